"""Keeps what this node knows about scopes: its ledger on the disk, what peers say of theirs, and what is open here.

::

    keeper nursery
    ├─ decisions                what to open, close, write down and ask; whenever something has changed
    ├─ questions × peers        what copies they hold, while this node lacks data of its own
    └─ restore × prefix         getting one back from a peer's copy, while it is closed

Everything that is decided is decided in :mod:`opening`, :mod:`ledger` and :mod:`ownership`; here records become durable
and time passes. :class:`ScopeKeeper` is the host of the peer links (``peer_link.PeerHost``): make the links with it,
and set them as its ``links`` before :meth:`ScopeKeeper.run`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Protocol

import trio
from trio.lowlevel import enable_ki_protection

from ..clock import Clock
from ..disk import Disk
from .copies import HeldCopy
from .ledger import Incident, LedgerEntry
from .ledger_file import LedgerFile, LedgerFileError, Loaded, load
from .ledger_records import Announced, LedgerState, MoveRecord, Record
from .opening import Decision, Open, Opening, RestoreFrom
from .ownership import Ownership
from .peer_link import PeerLog, PeerUnreachable
from .peer_messages import Configuration
from .peer_state import OwnFacts, PeerFacts
from .settings import ScopeSettings
from .table import OwnershipTable
from .tails import Tails, TailWorld

__all__ = ["LedgerUnusable", "ScopeKeeper", "ScopeWorld"]

#: Seconds that a peer may take to say what copies it holds.
ASK_SECONDS: Final = 10.0
#: Seconds until what has failed is tried again.
RETRY_SECONDS: Final = 1.0


class LedgerUnusable(Exception):
    """The ledger's file cannot be used as it is; the text says why, and where."""


class ScopeWorld(TailWorld, Protocol):
    """The rest of the node, as far as scopes need it."""

    def lacking(self, state: LedgerState) -> Iterable[bytes]:
        """The declared prefixes whose data must be taken for lost: see ``opening.lacks_data``."""
        ...

    def copies_before(self, state: LedgerState) -> Mapping[bytes, HeldCopy]:
        """Of prefixes that are here as copies of what other nodes wrote, which copies the files said these are."""
        ...

    def copies(self, prefixes: tuple[bytes, ...]) -> Mapping[bytes, HeldCopy]:
        """What whole copies of these prefixes are held here, of scopes that others or this node own."""
        ...

    def number_above(self, offset: int) -> None:
        """Give entries that are made from now on numbers above ``offset``."""
        ...

    async def restore(self, prefix: bytes, peer: str) -> None:
        """Put a peer's copy of a prefix in place of what is here, durably. May raise what it likes; tried again."""
        ...


class PeerLinksSide(Protocol):
    """The peer links, as the keeper uses them."""

    def announce(self, entries: Iterable[LedgerEntry]) -> None: ...
    def changed(self) -> None: ...
    def is_up(self, node_id: str) -> bool: ...
    async def ask_copies(self, node_id: str, prefixes: Iterable[bytes]) -> dict[bytes, HeldCopy]: ...
    async def run(self) -> None: ...


class ScopeKeeper:
    """The scopes of one node. :meth:`load` first, when the data are loaded; then :meth:`run`.

    ``ownership`` is what clients' writes are held against; the keeper changes it. ``in_thread`` calls what may take
    long and waits for it, whatever happens.
    """

    def __init__(
        self,
        settings: ScopeSettings,
        disk: Disk,
        data_dir: str,
        world: ScopeWorld,
        clock: Clock,
        log: PeerLog,
        in_thread: Callable[[Callable[[], Any]], Awaitable[Any]],
    ) -> None:
        self.settings = settings
        self.table = OwnershipTable(settings.scopes)
        addresses = {node.node_id: node.address for node in settings.nodes}
        self.ownership = Ownership(settings.node_id, self.table, addresses)
        self.state = LedgerState()
        self._tails = Tails(settings.node_id, self.table, world, self.append, self.wake, log)
        self.links: PeerLinksSide | None = None
        #: Called with records that have just become durable and count in ``state``, before the owners that they bring
        #: are told to anybody, in the same step.
        self.on_records: Callable[[tuple[Record, ...]], None] = lambda records: None
        self._disk = disk
        self._data_dir = data_dir
        self._world = world
        self._clock = clock
        self._log = log
        self._in_thread = in_thread
        self._configuration = settings.configuration()
        self._peers = frozenset(node.node_id for node in settings.nodes if node.kind == "kevynode") - {settings.node_id}
        self._file: LedgerFile | None = None
        self._opening: Opening | None = None
        # One append at a time, and what comes of it, before the next.
        self._appending = trio.Lock()
        self._alarm = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._is_settling = False
        # Peers that are up and could be asked, those that are being asked, and prefixes that are being restored.
        self._askable: set[str] = set()
        self._asked: set[str] = set()
        self._restoring: dict[bytes, tuple[str, trio.CancelScope]] = {}
        # What was last said of each prefix, so that it is said once, and of its owner by the ledger.
        self._said: dict[bytes, str] = {}
        self._reported: dict[bytes, str] = {}

    # -- the start -----------------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Read the ledger, and close what is not to be open yet. Nobody may be served before it returns.

        What the ledger says is gone by when its file, which is written anew, is durable; then all at once. Raises
        LedgerUnusable.
        """
        try:
            loaded = await self._in_thread(partial(load, self._disk, self._data_dir))
        except LedgerFileError as error:
            raise LedgerUnusable(str(error)) from error
        except OSError as error:
            raise LedgerUnusable(f"{error.filename or self._data_dir}: {error.strerror or error}") from error
        self._go_by(loaded)

    @enable_ki_protection
    def _go_by(self, loaded: Loaded) -> None:
        """Begin with what the file holds."""
        self._file = LedgerFile(self._disk, self._data_dir, loaded)
        if loaded.cut is not None:
            self._log.warning("ledger_cut", file=self._file.path, offset=loaded.cut.offset, bytes=loaded.cut.size)
        self.state = state = loaded.state
        for prefix in state.tails:
            self._world.take(prefix)
        self._apply(state.ledger)
        for entry in state.ledger.inert({scope.prefix for scope in self.table}):
            self._log.warning("ledger_entry_undeclared", prefix=entry.prefix, owner=entry.owner, epoch=entry.epoch)
        self._report_owners(state.ledger)
        self._opening = Opening(
            self.settings.node_id,
            self.table,
            state.ledger,
            self._peers,
            now=self._clock.monotonic(),
            version=state.version,
            is_settled=state.settled,
            lacking=self._world.lacking(state),
            own=self._world.copies_before(state),
            opened=state.opened,
            moves=state.open_moves(),
            trust_config=self.settings.trust_config,
            start_empty=self.settings.start_empty,
        )
        with self.ownership.together():
            for scope in self.table:
                if self.ownership.owner(scope.prefix) == self.settings.node_id:
                    self.ownership.close(scope.prefix, "this node to look at its ledger")
            self._send_on()

    def close(self) -> None:
        """Close the ledger's file. After :meth:`run`, when nobody appends any more; also if nothing was loaded."""
        if self._file is not None:
            self._file.close()

    @property
    def opening(self) -> Opening:
        """What decides when scopes open. There once :meth:`load` has returned."""
        assert self._opening is not None
        return self._opening

    def _apply(self, entries: Iterable[LedgerEntry]) -> None:
        """Let the ledger's owners be the owners."""
        with self.ownership.together():
            for prefix in {entry.prefix for entry in entries}:
                entry = self.state.ledger.entry(prefix)
                if entry is not None:
                    self.ownership.set_owner(prefix, entry.owner, entry.epoch)

    # -- while the node runs -------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep links with the peers, and open what may be opened, until cancelled."""
        assert self.links is not None
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self.links.run)
            while True:
                self._alarm = trio.Event()
                if await self._take_step(nursery):
                    continue
                now = self._clock.monotonic()
                deadline = self.opening.deadline(now)
                with trio.move_on_after(60.0 if deadline is None else max(0.0, deadline - now)):
                    await self._alarm.wait()

    def hears(self, node_id: str) -> bool:
        """Whether there is a link to a peer now."""
        return self.links is not None and self.links.is_up(node_id)

    def wake(self) -> None:
        """Something has changed: look again."""
        self._alarm.set()

    async def _take_step(self, nursery: trio.Nursery) -> bool:
        """Do one thing that is due; whether there may be more to do at once."""
        opening = self.opening
        try:
            records = opening.records_due()
            if records:
                await self.append(records)
                return True
            decisions, due = self._decide()
            if due:
                await self.append(due)
                return True
        except OSError as error:
            self._log.error("ledger_failed", reason=str(error))
            await trio.sleep(RETRY_SECONDS)
            return True
        self._restore_by(decisions, nursery)
        self._ask(nursery)
        self._tails.start(self.state, nursery)
        return False

    @enable_ki_protection
    def _decide(self) -> tuple[dict[bytes, Decision], list[Record]]:
        """Open and close by what is known: all decisions, and what is to be written down before more can be opened."""
        due: list[Record] = []
        decisions = self.opening.decide(self._clock.monotonic())
        with self.ownership.together():
            for prefix, decision in decisions.items():
                if prefix in self._tails.losing:
                    self._close(prefix, f"the entry of {self._tails.losing[prefix]} to be written down")
                elif not isinstance(decision, Open):
                    self._close(prefix, decision.reason)
                elif records := self.opening.opening_records(prefix, was_opened=prefix in self.state.opened):
                    self._close(prefix, "its opening to be written down")
                    due += records
                else:
                    self._open(prefix)
            self._send_on()
        return decisions, due

    def _send_on(self) -> None:
        """Close what others own where it is not clear that they do, and open to redirects what has become clear."""
        unclear = self.opening.unclear()
        for prefix in self.ownership.elsewhere():
            if prefix in unclear:
                self._close(prefix, unclear[prefix].reason)
            else:
                self._said.pop(prefix, None)
                self.ownership.open(prefix)

    def _restore_by(self, decisions: Mapping[bytes, Decision], nursery: trio.Nursery) -> None:
        """Restore what is to be restored, and nothing else any more: it may be another node's by now, or come anew."""
        for prefix, (peer, scope) in self._restoring.items():
            decision = decisions.get(prefix)
            if not isinstance(decision, RestoreFrom) or decision.peer != peer:
                scope.cancel()
        for prefix, decision in decisions.items():
            if isinstance(decision, RestoreFrom) and prefix not in self._restoring:
                scope = trio.CancelScope()
                self._restoring[prefix] = decision.peer, scope
                self.opening.restores_from(prefix, decision.peer)
                nursery.start_soon(self._restore, prefix, decision.peer, scope)

    def _open(self, prefix: bytes) -> None:
        if self._said.get(prefix) != "":
            self._said[prefix] = ""
            self._world.number_above(self.opening.highest_offset)
            # What is written from here on is its data, whatever copies come to light.
            self.opening.restored(prefix)
            self._log.info("scope_open", prefix=prefix)
        self.ownership.open(prefix)

    def _close(self, prefix: bytes, reason: str) -> None:
        if self._said.get(prefix) != reason:
            self._said[prefix] = reason
            self._log.info("scope_waits", prefix=prefix, waits_for=reason)
        self.ownership.close(prefix, reason)

    async def _restore(self, prefix: bytes, peer: str, scope: trio.CancelScope) -> None:
        try:
            with scope:
                await self._try_to_restore(prefix, peer)
        finally:
            del self._restoring[prefix]
            self.wake()

    async def _try_to_restore(self, prefix: bytes, peer: str) -> None:
        try:
            self._world.number_above(self.opening.highest_offset)
            await self._world.restore(prefix, peer)
        except Exception as error:
            self._log.warning("scope_not_restored", prefix=prefix, peer=peer, reason=str(error) or repr(error))
            await trio.sleep(RETRY_SECONDS)
        else:
            self._log.info("scope_restored", prefix=prefix, peer=peer)
            self.opening.restored(prefix)

    def _ask(self, nursery: trio.Nursery) -> None:
        """Ask the peers that are there what copies they hold of what this node lacks."""
        if self.opening.lacking:
            for peer in self._askable - self._asked:
                self._asked.add(peer)
                nursery.start_soon(self._ask_peer, peer, tuple(sorted(self.opening.lacking)))

    async def _ask_peer(self, peer: str, prefixes: tuple[bytes, ...]) -> None:
        assert self.links is not None
        try:
            with trio.fail_after(ASK_SECONDS):
                held = await self.links.ask_copies(peer, prefixes)
        except (PeerUnreachable, trio.TooSlowError) as error:
            self._log.info("copies_not_told", peer=peer, reason=str(error))
        else:
            self._askable.discard(peer)
            self.opening.copies(peer, prefixes, held)
        finally:
            self._asked.discard(peer)
        await trio.sleep(0 if peer not in self._askable else RETRY_SECONDS)
        self.wake()

    # -- the ledger ----------------------------------------------------------------------------------------------------

    async def append(self, records: Iterable[Record]) -> None:
        """Write records down; they are durable, and count, when this returns. Raises OSError, and then none does."""
        records = tuple(records)
        async with self._appending:
            await self._append(records)

    async def _append(self, records: tuple[Record, ...]) -> None:
        assert self._file is not None
        # Whoever is cancelled meanwhile: what is in the file counts.
        with trio.CancelScope(shield=True):
            try:
                await self._in_thread(partial(self._file.append, records))
            except OSError:
                if self._nursery is not None and not self._is_settling:
                    self._is_settling = True
                    self._nursery.start_soon(self._settle, self._file)
                raise
        self._count(records)

    async def _settle(self, file: LedgerFile) -> None:
        """Make sure that the next start finds nothing of an append that has failed."""
        while file.is_doubtful:
            try:
                async with self._appending:
                    with trio.CancelScope(shield=True):
                        await self._in_thread(file.settle)
            except OSError:
                # Whoever wanted to append has said why.
                await trio.sleep(RETRY_SECONDS)
        self._is_settling = False

    @enable_ki_protection
    def _count(self, records: tuple[Record, ...]) -> None:
        entries = tuple(record for record in records if isinstance(record, LedgerEntry))
        known = self.state.ledger.incidents() if entries else ()
        self.state.add(records)
        self.opening.appended(self.state.version, is_settled=self.state.settled)
        for record in records:
            if isinstance(record, MoveRecord):
                self.opening.moved(record)
        self.on_records(records)
        self._tails.recorded(records)
        if entries:
            with self.ownership.together():
                self._apply(entries)
                # What has become this node's own is not open before it is decided that it may be.
                self._decide()
            self._log.info("ledger_grew", entries=len(entries), version=self.state.version)
            self._report(entries, known)
        if self.links is not None:
            self.links.announce(entries)
        self.wake()

    def _report(self, entries: Iterable[LedgerEntry], known: Collection[Incident]) -> None:
        """Say what somebody has to look at in entries that are new: ``known`` were the incidents before them."""
        for entry in entries:
            if self.table.declared(entry.prefix) is None:
                self._log.warning("ledger_entry_undeclared", prefix=entry.prefix, owner=entry.owner, epoch=entry.epoch)
        self._report_owners(entries)
        for incident in self.state.ledger.incidents():
            if incident not in known:
                self._log.warning(
                    "two_owners",
                    prefix=incident.prefix,
                    epoch=incident.epoch,
                    owner=incident.winner.owner,
                    losers=" ".join(sorted(incident.losing_owners)),
                )

    def _report_owners(self, entries: Iterable[LedgerEntry]) -> None:
        """Say which prefixes of ``entries`` the configuration names another writer of than the ledger does now.

        It is not wrong, and the ledger goes before it; but whoever reads the file reads what is not so any more.
        """
        for prefix in sorted({entry.prefix for entry in entries}):
            scope = self.table.declared(prefix)
            if scope is None:
                continue
            owner = self.state.ledger.owner(prefix, scope.writer)
            if owner != scope.writer and self._reported.get(prefix) != owner:
                self._log.warning("ledger_differs", prefix=prefix, declared=scope.writer, owner=owner)
            self._reported[prefix] = owner

    # -- for the peer links --------------------------------------------------------------------------------------------

    def own_facts(self) -> OwnFacts:
        """What this node is now."""
        is_waiting = any(row.state == "waiting" for row in self.ownership.declared())
        own = next((node.address for node in self.settings.nodes if node.node_id == self.settings.node_id), "")
        ledger, version, state = self.state.ledger, self.state.version, "waiting" if is_waiting else "serving"
        return OwnFacts(ledger.digest, version, self._configuration.digest, state, own)

    def ledger_pages(self) -> Sequence[bytes]:
        """The whole ledger."""
        return self.state.ledger.rows()

    def configuration(self) -> Configuration:
        """What the configuration declares."""
        return self._configuration

    def announced(self, node_id: str) -> int:
        """The highest ledger version that a node was ever heard to have; 0: never heard of."""
        return self.state.announced.get(node_id, 0)

    async def on_rows(self, node_id: str, entries: tuple[LedgerEntry, ...]) -> None:
        """Take entries of a peer's ledger into this node's."""
        async with self._appending:
            difference = self.state.ledger.compare(entries)
            tails = self._tails.lost(difference.changed, self.state)
            if tails:
                # Whether or not it can be written down: another node takes writes of it.
                self._decide()
            if difference:
                await self._append((*difference.learned, *tails))

    async def on_announced(self, node_id: str, version: int) -> None:
        """Remember durably the highest ledger version of a node."""
        await self.append([Announced(node_id, version)])

    def on_table(self, node_id: str, configuration: Configuration | None) -> None:
        """A peer's configuration has become known: another one than ours, or None for the same."""
        found = self._configuration if configuration is None else configuration
        self.opening.declared(node_id, {scope.prefix: scope.writer for scope in found.scopes})
        self.wake()

    def on_peer_state(self, facts: PeerFacts) -> None:
        """Something that is known of a peer has changed."""
        if facts.up:
            self._askable.add(facts.node_id)
        else:
            self._askable.discard(facts.node_id)
            self.opening.disconnected(facts.node_id)
        self.wake()

    def on_remembered(self, node_id: str, version: int) -> None:
        """A peer has heard of this version of our own ledger."""
        self.opening.remembered(node_id, version)
        self.wake()

    def on_answered(self, node_id: str) -> None:
        """All entries that a peer has are taken in."""
        knew = self.opening.knows_moves
        self.opening.answered(node_id)
        if self.opening.knows_moves and not knew:
            self.ownership.ask_again()
        self.wake()

    async def copies_held(self, prefixes: tuple[bytes, ...]) -> Mapping[bytes, HeldCopy]:
        """What copies of these prefixes are held here."""
        await trio.lowlevel.checkpoint()
        return self._world.copies(prefixes)
