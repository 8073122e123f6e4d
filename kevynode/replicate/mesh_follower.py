"""Keeps copies of the scopes that one other node writes, beside what this node writes itself.

There is one such follower for each writer whose scopes are wanted here, and nothing is adopted: what is applied gets
numbers of this node's own journal and its origin with them, so that files, plain replicas and watchers see it, and
links to other followers of scopes do not: they carry only what was made here. So nothing goes in circles.

What the follower believes of its upstream is only what the link was made for: an entry or a key of a ship that is not
under the prefixes which the link names is refused, and ends it. A kevy server knows no such links and sends all it has,
of which the rest is passed over here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

import trio
from trio.lowlevel import enable_ki_protection

from ..clock import Clock
from ..replication_view import UpstreamFacts
from ..store.apply import Applier, ApplyError
from ..store.exchange import PrefixExchange
from ..store.foreign import foreign_changes
from ..store.journal import Effect, Origin
from ..store.marks import MARK_KEY, Acquire, Mark
from ..store.prefix_keys import all_keys_under, drop_keys
from ..store.store import Store
from ..transport import Transport, format_address
from .backoff import UniformSource
from .lineage import Lineage
from .mesh_copies import MeshCopies
from .mesh_following import Acquired, Released, ScopeCopy
from .mesh_sides import MeshSink, Ship
from .mesh_upstream import MeshUpstream
from .replica import ReplicaLink
from .replica_events import Entries, HistoryKnown, Resumed, ShipBegins, ShipEnds
from .scope_cursors import PREFIX_LIMIT, earlier_cursor_name, left_cursor_name
from .scope_entries import EntryRun, Forbidden, Unclear
from .stream_events import GROUP_BYTES_LIMIT
from .upstream import Upstream, UpstreamLog

__all__ = ["MESH_CAPABILITIES", "MeshFollower"]

#: What a follower of scopes asks a kevynode for.
MESH_CAPABILITIES: Final = frozenset({"txn", "ackreq", "lineage", "scopes", "skip"})

# Entries applied between two looks at the clock.
_BATCH: Final = 512


class MeshFollower(MeshCopies):
    """Keeps the keys under ``prefixes`` what the writer ``node_id`` makes them, whose replication port is ``port``.

    ``kind`` is ``kevynode`` or ``kevy``; a kevy server is asked in the form that its own replicas use. ``applier`` is
    this follower's door to the store. ``found`` are the cursors that were in the files at the start. ``replica_id`` is
    what the writer knows this node by, ``client_port`` what a kevy server shows of it.
    """

    #: Nothing that goes wrong here concerns more than the copies: those who serve them are told per prefix.
    diverged = ""

    def __init__(
        self,
        node_id: str,
        host: str,
        port: int,
        prefixes: Sequence[bytes],
        *,
        store: Store,
        applier: Applier,
        transport: Transport,
        clock: Clock,
        random: UniformSource,
        log: UpstreamLog,
        sink: MeshSink,
        replica_id: str,
        found: Mapping[str, tuple[int, int]],
        client_port: int = 0,
        kind: str = "kevynode",
        bulk_limit: int = GROUP_BYTES_LIMIT,
    ) -> None:
        chosen = tuple(sorted(prefixes))
        super().__init__(chosen, format_address(host, port), found, store, clock, log, sink)
        self.node_id = node_id
        self.host = host
        self.port = port
        self.kind = kind
        self.replica_id = replica_id
        self.client_port = client_port
        self.capabilities = MESH_CAPABILITIES
        self.bulk_limit = bulk_limit
        self.transport = transport
        self.random = random
        # Commands of a kevy server that failed here, as they did there.
        self.ignored = 0
        #: What the writer's stream has said of prefixes: those that it released, and those that it acquired.
        #: ``on_marks`` is called when there is more of it, between two entries, ``on_heard`` when the answer of
        #: :meth:`has_heard_all` may be another one.
        self.released: dict[bytes, Released] = {}
        self.acquired: dict[bytes, Acquired] = {}
        self.on_marks: Callable[[], None] = lambda: None
        self.on_heard: Callable[[], None] = lambda: None
        self._marks_passed = False
        # By which epoch the writer had acquired what is continued from its acquisition on.
        self._epochs: dict[bytes, int] = {}
        self._applier = applier
        self._upstream = MeshUpstream(self)

    # -- for the node -------------------------------------------------------------------------------------------------

    @property
    def address(self) -> str:
        """Where the writer takes replicas."""
        return self._upstream.address

    @property
    def prefixes(self) -> tuple[bytes, ...]:
        """What is copied from this writer."""
        return self._prefixes

    def follow_prefixes(self, prefixes: Sequence[bytes]) -> None:
        """Copy these prefixes from here on, and no others; those that are new have to be shipped first.

        Takes effect at once: nothing that has arrived for other prefixes is applied.
        """
        chosen = tuple(sorted(prefixes))
        if chosen == self._prefixes:
            return
        self._prefixes = chosen
        self.cursors.keep(chosen)
        self._epochs = {prefix: epoch for prefix, epoch in self._epochs.items() if prefix in chosen}
        self._upstream.ask_anew("other scopes are followed")

    def leave(self, left: Mapping[bytes, Released], earlier: Mapping[bytes, ScopeCopy]) -> None:
        """What is held of these prefixes is what their last writers released to this one; of no others it is.

        And of those in ``earlier``, which are not whole, it is what earlier writers had written.
        """
        address = self.address
        names = [(prefix, left_cursor_name(address, prefix, held.mark.epoch), held.at) for prefix, held in left.items()]
        for prefix, copy in earlier.items():
            names.append((prefix, earlier_cursor_name(address, prefix, copy.epoch), (copy.history, copy.offset)))
        self.cursors.leave({name: at for prefix, name, at in names if len(prefix) <= PREFIX_LIMIT})

    def renew(self, prefix: bytes) -> None:
        """Have a prefix shipped again: what is held of it is not what the writer has."""
        self._epochs.pop(prefix, None)
        if self.cursors.is_whole(prefix):
            self.cursors.forget(prefix)
            self._upstream.ask_anew(f"{prefix!r} is to be copied again")

    async def run(self) -> None:
        """Follow until cancelled. Whatever the upstream does is logged, and never raised."""
        await self._upstream.run()

    def retire(self, reason: str) -> None:
        """Take nothing more from the upstream; :meth:`run` is to be cancelled.

        The keys stay as they are, and belong to nobody's stream from here on.
        """
        self._upstream.part(reason)
        self.cursors.forget_all()
        self.cursors.leave({})

    def stop(self, reason: str) -> None:
        """As :meth:`retire`, but the copies can be continued later where they are: the node only stops to follow."""
        self._upstream.part(reason)

    def facts(self, now: float) -> UpstreamFacts:
        """The link, as clients may see it. ``now`` is monotonic."""
        return self._upstream.facts(now)

    @property
    def missing(self) -> tuple[bytes, ...]:
        """Those of the prefixes whose copy is not whole."""
        return tuple(prefix for prefix in self._prefixes if not self.cursors.is_whole(prefix))

    @property
    def stream(self) -> tuple[int, int]:
        """History and next offset of the writer's stream, as far as it has been applied or passed over."""
        return self.cursors.stream

    def place_of(self, prefix: bytes) -> tuple[int, int]:
        """The history of the writer and the next offset that the copy of a prefix, which is whole, is from."""
        return self.cursors.place_of(prefix)

    @property
    def ancestors(self) -> tuple[tuple[int, int], ...]:
        """What the stream's history descends from, newest first, as far as it is known: (history, branch offset)."""
        return self.cursors.ancestors

    def has_applied(self, history: int, offset: int) -> bool | None:
        """Whether all entries before ``offset`` of a history are here; None: it is not this writer's."""
        stream = self.cursors.stream
        if not stream[0] or not history:
            return None
        if stream[0] != history:
            shared = Lineage(stream[0], self.cursors.ancestors).shared(history)
            if shared is None or offset > shared:
                return None
        return stream[1] >= offset and not self.missing

    def has_heard_all(self, since: float) -> bool:
        """Whether all that the writer's stream held a moment after ``since`` (monotonic seconds) has been applied."""
        return self._upstream.has_heard_all(since)

    @property
    def received_bytes(self) -> int:
        """Bytes received from the upstream."""
        return self._upstream.received_bytes

    # -- for the link -------------------------------------------------------------------------------------------------

    def claim(self, upstream: Upstream) -> tuple[int, int]:
        """The history and next offset to ask for; (0, 0): a fresh copy."""
        if not self._prefixes:
            # A link for marks alone has nothing to lose.
            return self.cursors.stream if self.cursors.stream[0] else (0, 0)
        if not self.cursors.claim()[0]:
            self.cursors.forget_all()
        return self.cursors.claim()

    def applied(self, upstream: Upstream) -> int:
        """How far the stream has been applied or passed over."""
        return self.cursors.stream[1]

    def link_made(self) -> tuple[bytes, ...]:
        """A link is made that names the prefixes of now, which are the result.

        Where there are none, the link names what no data are under, so that it carries marks alone.
        """
        self._entries.begin(self._prefixes or (MARK_KEY,))
        return self._entries.prefixes

    @enable_ki_protection
    def resumed(self, upstream: Upstream, event: Resumed, reason: str) -> None:
        """The link goes on where it was, with what is held, unless some of it has been lost over there."""
        link = upstream.link
        if link is None or self._is_lost(upstream, event):
            return
        self._know(link)
        if self.missing and not self._entries.refuses:
            # Who knows no links of scopes has no ships of scopes.
            self.cursors.forget_all()
            upstream.start_over("scopes are missing that the upstream cannot send by themselves")
            return
        self.cursors.descends(event.history, event.ancestors)
        self.cursors.placed(event.history, event.offset)

    def _is_lost(self, upstream: Upstream, event: Resumed) -> bool:
        if not event.history or self.cursors.is_shared(Lineage(event.history, event.ancestors)):
            return False
        # A ship was further than the place that is asked for, and the writer has lost what was in it.
        self.cursors.forget_all()
        upstream.start_over("what was shipped is unknown to the writer now")
        return True

    @enable_ki_protection
    def history_known(self, upstream: Upstream, event: HistoryKnown, offset: int) -> None:
        """The history of what the link has sent is told after the fact."""
        self.cursors.placed(event.history, offset)

    @enable_ki_protection
    def skipped(self, upstream: Upstream, offset: int) -> None:
        """The entries before ``offset`` that did not come are none of these prefixes'."""
        self.cursors.moved(offset)
        link = upstream.link
        if link is not None:
            link.applied(offset, self.clock.monotonic())
        # Whoever waits for this writer's stream waits for what is skipped, too.
        self.sink.scopes_applied()

    def _know(self, link: ReplicaLink) -> None:
        super()._know(link)
        self._applier.lenient = "lineage" not in link.accepted

    # -- entries ------------------------------------------------------------------------------------------------------

    @enable_ki_protection
    def apply(self, upstream: Upstream, entries: Entries, place: int, until: float) -> int:
        """Apply entries from index ``place`` on, until the clock says ``until`` or they are done; how far it came.

        A group is applied whole, as far as it concerns what is held here.
        """
        store, link = self._store, upstream.link
        assert link is not None
        journal = store.journal
        size = len(entries.commands)
        store.now = int(self.clock.wall() * 1000)
        self._applier.on_ignored = partial(self._ignored, upstream)
        journal.origin = Origin(upstream.address, link.history)
        reached = place
        try:
            with foreign_changes(store):
                if entries.grouped:
                    self._apply_group(upstream, entries)
                    reached = size
                while reached < size:
                    stop = min(size, reached + _BATCH)
                    self._apply_run(upstream, entries.commands[reached:stop], entries.first + reached)
                    reached = stop
                    if self.clock.monotonic() >= until:
                        break
        except Forbidden as error:
            self._refuse(upstream, str(error))
        except (ApplyError, Unclear) as error:
            self._diverge(upstream, f"an entry of {upstream.address} cannot be applied: {error}")
        finally:
            self._leave_nothing_pending()
            journal.origin = None
            self._applier.on_ignored = None
        if reached > place:
            self.cursors.moved(entries.next if reached == size else entries.first + reached)
            link.applied(self.cursors.stream[1], self.clock.monotonic())
        if self._marks_passed:
            self._marks_passed = False
            self.on_marks()
            self._take_back()
        self.sink.scopes_applied()
        return reached

    def _apply_group(self, upstream: Upstream, entries: Entries) -> None:
        """Apply what is held here of a group, as a group."""
        # All of them are in a ship, or none.
        for run in list(self._entries.pick(entries.commands, entries.first, at=entries.next - 1)):
            if run.mark is not None:
                raise Forbidden("sent a mark in the midst of a group")
            self._apply_together(run)
        self._commit(upstream, entries.next)

    def _apply_run(self, upstream: Upstream, commands: Sequence[list[bytes]], first: int) -> None:
        """Apply lone entries at consecutive offsets, and commit each by itself."""
        for run in self._entries.pick(commands, first):
            if run.mark is not None:
                self._pass(upstream, run.mark, run.offsets[0] + 1)
            elif run.clears:
                self._apply_together(run)
                self._commit(upstream, run.offsets[0] + 1)
            elif self._applier.lenient:
                for command, offset in zip(run.commands, run.offsets, strict=True):
                    self._applier.apply(command)
                    self._commit(upstream, offset + 1)
            else:
                self._apply_exactly(upstream, run)

    def _pass(self, upstream: Upstream, mark: Mark, offset: int) -> None:
        """Take a mark in the writer's stream, behind which the next entry is at ``offset``."""
        prefix = mark.prefix
        is_whole = self.cursors.is_whole(prefix)
        is_known = is_whole and self.cursors.holds(prefix, offset - 1)
        self.cursors.moved(offset)
        if is_known:
            # The copy is from behind it.
            return
        if isinstance(mark, Acquire):
            self.released.pop(prefix, None)
            self._entries.acquire(prefix)
            self.acquired[prefix] = Acquired(mark, self.cursors.stream)
            if is_whole and mark.epoch > self._epochs.get(prefix, -1):
                self._missed(upstream, prefix)
        else:
            self.acquired.pop(prefix, None)
            self.released[prefix] = Released(mark, self.cursors.stream, is_whole)
            # What comes of it from here on is not the writer's to send.
            self._prefixes = tuple(other for other in self._prefixes if other != prefix)
            self._entries.release(prefix)
            self._forget(prefix)
        self._marks_passed = True
        self.log.info("mark_passed", node=self.node_id, mark=type(mark).__name__, prefix=prefix, epoch=mark.epoch)

    def _missed(self, upstream: Upstream, prefix: bytes) -> None:
        """A prefix whose release was not heard of is back: what was written elsewhere meanwhile is not in the copy."""
        self._forget(prefix)
        self.log.warning("scope_missed", node=self.node_id, prefix=prefix)
        if upstream.link is not None and self._entries.refuses and prefix in self._entries.prefixes:
            # Whoever waits for copies counts none of this prefix from here on.
            upstream.link.ask_for(prefix)

    def _take_back(self) -> None:
        """Have the link name only what is copied, if it carries something again that nobody here has asked to follow.

        Otherwise what is passed over would be acknowledged as if it was held.
        """
        if any(prefix in self._entries.prefixes and prefix not in self._prefixes for prefix in self.acquired):
            self._upstream.ask_anew("other scopes are followed")

    def _forget(self, prefix: bytes) -> None:
        self._epochs.pop(prefix, None)
        self.cursors.forget(prefix)

    def adopt(self, prefix: bytes) -> None:
        """Go on with a prefix that this writer has acquired: what is held of it is what the last writer left."""
        acquired = self.acquired[prefix]
        self._epochs[prefix] = acquired.mark.epoch
        self.cursors.adopt(prefix, acquired.at[1])
        # Whoever waits for this writer's stream has waited for that, too.
        self.sink.scopes_applied()

    def _apply_together(self, run: EntryRun) -> None:
        if run.clears:
            drop_keys(self._store, all_keys_under(self._store, run.clears))
        else:
            self._applier.apply_all(run.commands)

    def _apply_exactly(self, upstream: Upstream, run: EntryRun) -> None:
        """Apply entries that make one change each."""
        journal = self._store.journal
        done = len(run.commands)
        try:
            self._applier.apply_all(run.commands)
        except ApplyError as error:
            done = error.applied
            raise
        finally:
            effects: list[Effect] = journal.pending
            for effect, offset in zip(effects[:done], run.offsets, strict=False):
                journal.pending = [effect]
                self._commit(upstream, offset + 1)
            journal.pending = effects[done:]

    def _commit(self, upstream: Upstream, next_offset: int) -> None:
        """Close the group; its last entry is before ``next_offset`` of the upstream."""
        journal = self._store.journal
        if self._store.touched:
            self._store.settle()
        if not journal.pending:
            return
        assert journal.origin is not None
        self.sink.note_cursor(upstream.address, journal.origin.history, next_offset)
        self.cursors.applied(next_offset)
        self._close_group()

    def _ignored(self, upstream: Upstream, error: ApplyError) -> None:
        self.ignored += 1
        # Seldom enough for a log, however many there are.
        if self.ignored & (self.ignored - 1) == 0:
            self.log.warning("entry_ignored", upstream=upstream.address, error=str(error), ignored=self.ignored)

    def _refuse(self, upstream: Upstream, reason: str) -> None:
        """The upstream sends what is none of its: believe nothing more on this link."""
        reason = f"{upstream.address} {reason}"
        self.log.error("foreign_entry", node=self.node_id, upstream=upstream.address, reason=reason)
        upstream.stop(reason)

    def _diverge(self, upstream: Upstream, reason: str) -> None:
        """What an entry should have done is not done, or half done: end the link, and ask for fresh copies."""
        # Before what it has done all the same is written: no cursor may speak of these data.
        self.cursors.forget_all()
        self.log.error("diverged", node=self.node_id, upstream=upstream.address, reason=reason)
        upstream.stop(reason)

    # -- ships --------------------------------------------------------------------------------------------------------

    @enable_ki_protection
    def ship_begins(self, upstream: Upstream, event: ShipBegins | None, reason: str) -> None:
        """A snapshot starts: of all that the link carries, or of one prefix; None: of nothing. Raises SnapshotError."""
        super().ship_begins(upstream, event, reason)

    @enable_ki_protection
    def ship_data(self, upstream: Upstream, data: bytes) -> None:
        """A piece of the snapshot. Raises SnapshotError."""
        super().ship_data(upstream, data)

    def ship_ends(self, upstream: Upstream, event: ShipEnds | Resumed) -> trio.Event | None:
        """Put the complete snapshot in place at once; see :meth:`place_ship`. Raises SnapshotError."""
        for _ in self.place_ship(upstream, event):
            pass
        return None

    @enable_ki_protection
    def _swap(self, upstream: Upstream, ship: Ship, exchange: PrefixExchange, event: ShipEnds | Resumed) -> None:
        super()._swap(upstream, ship, exchange, event)
