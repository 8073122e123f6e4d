"""When a node may open its scopes for writing, and what it waits for. Pure: facts come in, time as an argument.

A node owns a prefix by what it knows; what it does not know may be that another node owns it by now, or that another
one has the data. So it opens a prefix when none of these speaks against it:

- **Answers.** Without a ledger that is settled (``ledger_records.Settled``) every peer must have answered, where an
  answer is that peer's whole ledger, merged and durable here. With one it knows of every move away from it, and waits
  for the answers :data:`PATIENCE` seconds at the most. ``trust_config`` waits for nobody.
- **Having gone back.** A peer that remembers a higher version of this node's ledger than it has now knows that the node
  lost its newest state: nothing is open until every peer has answered, or with ``trust_config`` those that said so.
- **Declarations.** A prefix that a peer declares for another writer is closed until both agree, or the ledger has an
  entry for it; one that shares keys with another prefix of another writer, until both agree.
- **Undeclared entries.** A prefix that was never open here and shares keys with one that is not declared, of which the
  ledger says that it is another node's: that one has the data. Until the configuration says so too, or with
  ``trust_config``.
- **Moves.** A move that was under way at a restart and has not been decided, or has gone to the other side. What has
  gone there is restored all the same if it is lost here: the other side may have lost it, too, and asks for it again.
- **Data.** A prefix for which the node has lost its data (:func:`lacks_data`) is restored from the most advanced copy
  (:mod:`copies`), and every peer must say what it holds before that is known. Where nobody holds a key it opens. So it
  is with a prefix that has become this node's by another declaration alone: what is here is a copy like the others.
  ``start_empty`` opens it in any case. Copies may be from a later epoch than any ledger knows; then it opens at one
  above that.

And it sends writes of a prefix to another node (:meth:`Opening.unclear`) only where that one cannot send them back: two
nodes that each take the other one for the owner would, for ever. So a node that does not know the ledger redirects to
nobody who has not told his, and one that a peer contradicts redirects nowhere. Of what is left, each redirect goes by a
higher epoch than the one before it.

Who calls what, and when (all of it in the thread of the node):

- *At start*, after ``ledger_file.load`` and the load of the data: make an :class:`Opening` over the declared table and
  the live ledger, with the version and ``settled`` of the state, the prefixes that :func:`lacks_data`, and the last
  record of each move that is open; :meth:`Opening.decide`, and close what is not ``Open``, before anybody is served.
- *On a peer link*: :meth:`Opening.remembered` with each heartbeat, :meth:`Opening.declared` once the declarations of
  the peer are whole, :meth:`Opening.answered` once its ledger is merged and durable (in this order at the beginning of
  a link, so that a scope is not opened for a moment), :meth:`Opening.copies` with its answer about
  :attr:`Opening.lacking`, :meth:`Opening.disconnected` when the link ends.
- *After each append to the ledger's file*: :meth:`Opening.appended`; for each record of a move :meth:`Opening.moved`.
- *After each of these, and at* :meth:`Opening.deadline`: :meth:`Opening.decide`, and :meth:`Opening.unclear` for what
  others own. What was open closes again if something turns up. ``RestoreFrom``: say so (:meth:`Opening.restores_from`),
  take a scope ship of the prefix from that peer, and from no other, make it durable, then :meth:`Opening.restored`.
  ``Open``: append :meth:`Opening.opening_records` first.
- *Whenever* :meth:`Opening.records_due` *has records*: append them.
- A scope that is not open yet must not be streamed or shipped to followers: an empty one would wipe their copies. When
  it opens, this node's numbering goes on above :attr:`Opening.highest_offset`, so that of two copies the one with the
  higher offset stays the newer one although the histories differ.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

import attrs

from .copies import HeldCopy, newest_copies
from .ledger import Ledger, LedgerEntry
from .ledger_records import MoveRecord, MoveRole, MoveState, Opened, Record, Settled, VersionFloor
from .ledger_text import MAX_NUMBER, escape_prefix
from .prefixes import PrefixMap
from .table import OwnershipTable

__all__ = ["PATIENCE", "RESTORED", "Decision", "Open", "Opening", "RestoreFrom", "Waiting", "lacks_data"]

#: Seconds for which a node with a settled ledger waits for answers.
PATIENCE: Final = 2.0
#: The move id of entries by which nothing has moved: the owner goes on above an epoch that nobody's ledger knows.
RESTORED: Final = "restored"


@attrs.frozen
class Open:
    """Take writes."""


@attrs.frozen
class Waiting:
    """Take no writes: ``reason`` completes "is waiting for"; ``peers`` are the ids of those that are waited for."""

    reason: str
    peers: frozenset[str] = frozenset()


@attrs.frozen
class RestoreFrom:
    """Take no writes; get the data from ``peer``, which has the most advanced ``copy``."""

    peer: str
    copy: HeldCopy

    @property
    def reason(self) -> str:
        """Completes "is waiting for"."""
        return f"its data from {self.peer}"


Decision: TypeAlias = Open | Waiting | RestoreFrom


def lacks_data(keys: int, *, was_opened: bool, has_loaded: bool) -> bool:
    """Whether the data of a prefix must be taken for lost, and not for empty.

    ``keys`` are there now; ``was_opened``: the ledger's file says that it was open here (``LedgerState.opened``);
    ``has_loaded``: at this start files with data were loaded, whatever was in them. A prefix that was emptied by its
    clients is in files that know it; after a restore that was cut off there are files, but it was never opened.
    """
    return keys == 0 and not (was_opened and has_loaded)


class Opening:
    """Decides about what this node, ``self_id``, owns by ``ledger`` (which stays the caller's) over ``table``.

    ``peers``: the ids of the other configured nodes of kind kevynode; facts about others are ignored. ``now`` is the
    monotonic time in seconds, here the time of the start. ``version`` and ``is_settled`` are those of the ledger's
    state, ``lacking`` all declared prefixes, whoever owns them, of which :func:`lacks_data` is true, ``own`` those that
    are here as copies of what others wrote, and by no move this node's, ``opened`` those that the ledger's file says
    were open here, ``moves`` the last records of the moves that are open.
    """

    def __init__(
        self,
        self_id: str,
        table: OwnershipTable,
        ledger: Ledger,
        peers: Iterable[str],
        *,
        now: float,
        version: int,
        is_settled: bool,
        lacking: Iterable[bytes] = (),
        own: Mapping[bytes, HeldCopy] | None = None,
        opened: Iterable[bytes] = (),
        moves: Iterable[MoveRecord] = (),
        trust_config: bool = False,
        start_empty: bool = False,
    ) -> None:
        self._self_id = self_id
        self._table = table
        self._ledger = ledger
        self._peers = frozenset(peers) - {self_id}
        self._started = now
        self._version = version
        self._is_settled = is_settled
        self._trusts = trust_config
        self._own = dict(own or {})
        self._opened = set(opened)
        self._lacking = set() if start_empty else {*lacking, *self._own}
        self._moves: dict[bytes, dict[str, MoveRecord]] = {}
        self._answered: set[str] = set()
        # By peer that said so: the version it remembers, above the one that this node had then.
        self._lost: dict[str, int] = {}
        # By peer: what it declares otherwise, by our prefix.
        self._differing: dict[str, dict[bytes, _Difference]] = {}
        self._copies: dict[str, dict[bytes, HeldCopy | None]] = {}
        # Peers, and the prefixes, whose copies may be others than they said.
        self._outdated: set[tuple[str, bytes]] = set()
        # From whom prefixes are being restored.
        self._sources: dict[bytes, str] = {}
        self._linked: set[str] = set()
        # The moves to here that had put their data in place before the start: whether they are there is another matter.
        self._placed_before: set[str] = set()
        for record in moves:
            if _is_placed(record):
                self._placed_before.add(record.move_id)
            if _holds_up(record):
                self._moves.setdefault(record.prefix, {})[record.move_id] = record

    # -- facts --------------------------------------------------------------------------------------------------------

    def remembered(self, peer: str, version: int) -> None:
        """``peer`` has heard ``version`` of this node's ledger, or 0; in the latest of its heartbeats.

        Must not be called with what it can only have heard from this run and :meth:`appended` has not been told of.
        """
        if peer in self._peers:
            self._linked.add(peer)
            if version > max(self._version, self._lost.get(peer, 0)):
                self._lost[peer] = version
                # What it told before this was known does not count.
                self._answered.discard(peer)

    def answered(self, peer: str) -> None:
        """All entries that ``peer`` had at this or a later time are merged and durable here."""
        if peer in self._peers:
            self._linked.add(peer)
            self._answered.add(peer)

    def declared(self, peer: str, writers: Mapping[bytes, str]) -> None:
        """``peer`` declares these prefixes, all it has, each with its writer."""
        if peer in self._peers:
            self._linked.add(peer)
            self._differing[peer] = _differences(self._table, writers)

    def copies(self, peer: str, asked: Iterable[bytes], held: Mapping[bytes, HeldCopy]) -> None:
        """``peer`` was asked about these prefixes, and holds these copies; what is missing it does not hold."""
        if peer in self._peers:
            self._linked.add(peer)
            known = self._copies.setdefault(peer, {})
            for prefix in asked:
                known[prefix] = held.get(prefix)
                self._outdated.discard((peer, prefix))

    def disconnected(self, peer: str) -> None:
        """The link with ``peer`` ended. What it said still holds; nothing can be got from it.

        Of copies it holds as what there was: when it is back it may have lost some, and is to be asked again.
        """
        self._linked.discard(peer)
        self._outdated.update((peer, prefix) for prefix in self._copies.get(peer, {}))

    def restores_from(self, prefix: bytes, peer: str) -> None:
        """The data of ``prefix`` are being got from ``peer``: as long as nobody has a newer copy it stays the one."""
        self._sources[prefix] = peer

    def restored(self, prefix: bytes) -> None:
        """The data of ``prefix`` is here and durable."""
        self._lacking.discard(prefix)
        self._opened.add(prefix)

    def moved(self, record: MoveRecord) -> None:
        """``record`` is durable. Moves that begin after the start have no say here: they quiesce the prefix."""
        if _is_placed(record) and record.move_id not in self._placed_before:
            self._lacking.discard(record.prefix)
        moves = self._moves.get(record.prefix, {})
        if record.move_id in moves:
            if _holds_up(record):
                moves[record.move_id] = record
            else:
                del moves[record.move_id]

    def appended(self, version: int, *, is_settled: bool) -> None:
        """The ledger's file has this version now, and says that it is settled or does not. After each append."""
        self._version = max(self._version, version)
        self._is_settled = self._is_settled or is_settled

    # -- conclusions --------------------------------------------------------------------------------------------------

    @property
    def lacking(self) -> frozenset[bytes]:
        """The prefixes that each peer must be asked about: of which this node should have data, and has lost it."""
        return frozenset(prefix for prefix in self._lacking if self._owns(prefix))

    def lacks(self, prefix: bytes) -> bool:
        """Whether the data of a prefix that is this node's, or was until now, were lost, and may be got back."""
        return not isinstance(self._data(prefix), Open)

    def deadline(self, now: float) -> float | None:
        """When to decide again though nothing has happened, later than ``now``; None: not before something does."""
        waits = self._is_settled and not self._trusts and not self._lost and self._peers - self._answered
        end = self._started + PATIENCE
        return end if waits and now < end else None

    @property
    def highest_offset(self) -> int:
        """The highest offset of any copy that was told of; 0 if none was."""
        held = [copy.offset for known in self._copies.values() for copy in known.values() if copy is not None]
        return max(held, default=0)

    def records_due(self) -> tuple[Record, ...]:
        """What to append to the ledger's file now: that it is settled, and above which version it goes on."""
        if self._peers - self._answered:
            return ()
        lost = max(self._lost.values(), default=0)
        floor = (VersionFloor(lost),) if lost > self._version else ()
        return floor if self._is_settled else (*floor, Settled())

    def opening_records(self, prefix: bytes, *, was_opened: bool) -> tuple[Record, ...]:
        """What to append before a prefix for which :class:`Open` was decided takes writes; nothing: it may at once.

        ``was_opened``: the ledger's file says that it was open here (``LedgerState.opened``).
        """
        epoch = self._forgotten(prefix)
        entry = () if epoch is None else (LedgerEntry(prefix, self._self_id, epoch, RESTORED),)
        return entry if was_opened else (*entry, Opened(prefix))

    def _forgotten(self, prefix: bytes) -> int | None:
        """The epoch at which this node is to be the owner of a prefix anew, above one that a copy of it is from.

        Every ledger is known here, and none has heard of that move: who had are without their ledgers now. Whoever
        has heard of it in their streams would wait for them, and what is written here would count as older. None: no
        copy is from a later epoch than the ledger's.
        """
        if self._peers - self._answered:
            return None
        known: list[Mapping[bytes, HeldCopy | None]] = [*self._copies.values(), self._own]
        told = [copy.epoch for held in known if (copy := held.get(prefix)) is not None]
        highest = max(told, default=0)
        return highest + 1 if self._ledger.epoch(prefix) < highest < MAX_NUMBER else None

    def decide(self, now: float) -> dict[bytes, Decision]:
        """What to do with each prefix that this node owns, in order. Changes nothing."""
        wait = self._wait_for_answers(now)
        inert = () if self._trusts else self._ledger.inert(self._table)
        owned = [scope.prefix for scope in self._table if self._owns(scope.prefix)]
        return {prefix: self._decide(prefix, wait or self._wait_for_declaration(prefix, inert)) for prefix in owned}

    @property
    def knows_moves(self) -> bool:
        """Whether the ledger here has every move that any declared node knew of when this one started."""
        return (self._is_settled and not self._lost) or self._trusts or self._peers <= self._answered

    def unclear(self) -> dict[bytes, Waiting]:
        """The prefixes that another node owns by what is known here, and whose writes must not be sent there yet."""
        found: dict[bytes, Waiting] = {}
        for scope in self._table:
            owner = self._ledger.owner(scope.prefix, scope.writer)
            if owner == self._self_id:
                continue
            wait = self._wait_for_owner(owner) or self._wait_for_agreement(scope.prefix)
            if wait is not None:
                found[scope.prefix] = wait
        return found

    def _wait_for_owner(self, owner: str) -> Waiting | None:
        missing = self._peers - self._answered
        return None if self.knows_moves or owner not in missing else Waiting(owner, frozenset({owner}))

    def _owns(self, prefix: bytes) -> bool:
        scope = self._table.declared(prefix)
        return scope is not None and self._ledger.owner(prefix, scope.writer) == self._self_id

    def _decide(self, prefix: bytes, wait: Waiting | None) -> Decision:
        move = self._wait_for_move(prefix)
        decision = wait or self._wait_for_agreement(prefix) or self._data(prefix)
        if move is None or (isinstance(decision, RestoreFrom) and self._is_given_away(prefix)):
            return decision
        return move

    def _is_given_away(self, prefix: bytes) -> bool:
        """Whether a move of it to another node is decided, which may ask for the data once more before it has them."""
        records = self._moves.get(prefix, {}).values()
        return any(record.role is MoveRole.SOURCE and record.decided is MoveState.FLIPPED for record in records)

    def _wait_for_answers(self, now: float) -> Waiting | None:
        """What concerns all prefixes."""
        missing = self._peers - self._answered
        if self._lost:
            required = missing & self._lost.keys() if self._trusts else missing
            if required:
                return Waiting(f"{_listed(required)} to tell what this node has lost of its ledger", required)
            return None
        if missing and not self._trusts and (not self._is_settled or now < self._started + PATIENCE):
            return Waiting(_listed(missing), missing)
        return None

    def _wait_for_move(self, prefix: bytes) -> Waiting | None:
        for move_id, record in sorted(self._moves.get(prefix, {}).items()):
            # What a later move settled nobody has to decide any more.
            if record.epoch > self._ledger.epoch(prefix):
                return Waiting(f"move {move_id} to be settled with {record.peer}", frozenset({record.peer}))
        return None

    def _wait_for_agreement(self, prefix: bytes) -> Waiting | None:
        is_settled = self._ledger.entry(prefix) is not None
        found = {peer: differing[prefix] for peer, differing in self._differing.items() if prefix in differing}
        others = {peer: told.text for peer, told in found.items() if not (told.is_same_prefix and is_settled)}
        if not others:
            return None
        listed = ", ".join(f"{peer} (there {others[peer]})" for peer in sorted(others))
        return Waiting(f"agreement with {listed}", frozenset(others))

    def _wait_for_declaration(self, prefix: bytes, inert: Iterable[LedgerEntry]) -> Waiting | None:
        if prefix in self._opened or self._ledger.entry(prefix) is not None:
            return None
        for entry in inert:
            is_shared = prefix.startswith(entry.prefix) or entry.prefix.startswith(prefix)
            if is_shared and entry.owner != self._self_id:
                shown = escape_prefix(entry.prefix)
                reason = f"{entry.owner}, which writes {shown} by the ledger, to be declared its writer"
                return Waiting(reason, frozenset({entry.owner}))
        return None

    def _is_silent(self, peer: str, prefix: bytes) -> bool:
        """Whether it is yet to be heard what copy a peer holds.

        One that had none, and is back, may have one by what it declares now, and is asked again at once.
        """
        known = self._copies.get(peer, {})
        is_back = peer in self._linked and (peer, prefix) in self._outdated
        return prefix not in known or (is_back and known[prefix] is None)

    def _data(self, prefix: bytes) -> Decision:
        if prefix not in self._lacking:
            return Open()
        silent = frozenset(peer for peer in self._peers if self._is_silent(peer, prefix))
        if silent:
            return Waiting(f"{_listed(silent)} to say what copy they hold", silent)
        held = {peer: copy for peer, known in self._copies.items() if (copy := known[prefix]) is not None}
        if not held:
            return Open()
        own = self._own.get(prefix)
        if own is not None and self._self_id in newest_copies({**held, self._self_id: own}):
            return Open()
        best = newest_copies(held)
        if held[best[0]].keys == 0 and (own is None or own.keys == 0):
            # It is known to be empty.
            return Open()
        for peer in sorted(best, key=lambda peer: peer != self._sources.get(prefix)):
            if peer in self._linked and (peer, prefix) not in self._outdated:
                return RestoreFrom(peer, held[peer])
        return Waiting(f"{_listed(frozenset(best))} with the newest copy of its data", frozenset(best))


def _is_placed(record: MoveRecord) -> bool:
    """Whether a move to here has put its data in place."""
    return record.role is MoveRole.TARGET and record.state is MoveState.ACTIVATED


def _holds_up(record: MoveRecord) -> bool:
    """Whether its prefix must not be opened here, unless a later move has made this node the owner."""
    if record.state in (MoveState.ABORTED, MoveState.DONE) or record.decided is MoveState.ABORTED:
        return False
    return record.role is MoveRole.SOURCE or record.state is not MoveState.ACTIVATED


@attrs.frozen
class _Difference:
    """What a peer declares otherwise about a prefix of ours."""

    text: str
    #: About the very same prefix, and not about one that shares keys with it.
    is_same_prefix: bool = False


def _differences(table: OwnershipTable, writers: Mapping[bytes, str]) -> dict[bytes, _Difference]:
    """What ``writers`` has against our declared prefixes, by these."""
    theirs: PrefixMap[str] = PrefixMap()
    for prefix, writer in writers.items():
        theirs.add(prefix, writer)
    ordered = sorted(writers)
    found: dict[bytes, _Difference] = {}
    for scope in table:
        outer = theirs.longest(scope.prefix)
        if scope.prefix in writers:
            if writers[scope.prefix] != scope.writer:
                found[scope.prefix] = _Difference(f"the writer is {writers[scope.prefix]}", is_same_prefix=True)
        elif outer is not None and outer != scope.writer:
            found[scope.prefix] = _Difference(f"a shorter prefix has the writer {outer}")
        for index in range(bisect_left(ordered, scope.prefix), len(ordered)):
            inner = ordered[index]
            if not inner.startswith(scope.prefix):
                break
            if inner != scope.prefix and writers[inner] != scope.writer:
                found[scope.prefix] = _Difference(f"a longer prefix has the writer {writers[inner]}")
                break
    return found


def _listed(ids: frozenset[str]) -> str:
    return ", ".join(sorted(ids))
