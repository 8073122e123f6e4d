"""Keeps copies of the scopes that one other node writes, beside what this node writes itself.

There is one such follower for each writer whose scopes are wanted here, and nothing is adopted: what is applied gets
numbers of this node's own journal and its origin with them, so that files, plain replicas and watchers see it, and
links to other followers of scopes do not: they carry only what was made here. So nothing goes in circles.

A ship is built aside. When it is complete the keys of its prefixes are exchanged in one step and one group of the
journal, which files and replicas take as a whole. That costs a copy of the prefix in the append-only file; a base of
all data, the other way to make it durable as a whole, would cost a copy of everything, and hold up what clients write
here until it is complete.

What the follower believes of its upstream is only what the link was made for: an entry or a key of a ship that is not
under the prefixes which the link names is refused, and ends it. A kevy server knows no such links and sends all it has,
of which the rest is passed over here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Final

import trio
from trio.lowlevel import enable_ki_protection

from ..clock import Clock
from ..faults import traceback_line
from ..replication_view import UpstreamFacts
from ..store.apply import Applier, ApplyError
from ..store.foreign import foreign_changes
from ..store.journal import Effect, Origin
from ..store.marks import MARK_KEY, Acquire, Mark
from ..store.prefix_keys import all_keys_under, drop_keys, keys_under, replace_keys
from ..store.staging import PrefixStaging
from ..store.store import Store
from ..transport import Transport
from .backoff import UniformSource
from .lineage import Lineage
from .mesh import Acquired, Released
from .mesh_sides import MeshSink, Ship
from .mesh_upstream import MeshUpstream
from .replica import ReplicaLink
from .replica_events import Entries, HistoryKnown, Resumed, ShipBegins, ShipEnds
from .scope_cursors import ScopeCursors
from .scope_entries import EntryRun, Forbidden, ScopeEntries, Unclear
from .snapshot import SnapshotDecoder, SnapshotError
from .stream_events import GROUP_BYTES_LIMIT
from .upstream import Upstream, UpstreamLog

__all__ = ["MESH_CAPABILITIES", "MeshFollower"]

#: What a follower of scopes asks a kevynode for.
MESH_CAPABILITIES: Final = frozenset({"txn", "ackreq", "lineage", "scopes", "skip"})

# Entries applied between two looks at the clock.
_BATCH: Final = 512


class MeshFollower:
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
        self.node_id = node_id
        self.host = host
        self.port = port
        self.kind = kind
        self.replica_id = replica_id
        self.client_port = client_port
        self.capabilities = MESH_CAPABILITIES
        self.bulk_limit = bulk_limit
        self.transport = transport
        self.clock = clock
        self.random = random
        self.log = log
        self.sink = sink
        # Commands of a kevy server that failed here, as they did there.
        self.ignored = 0
        #: What the writer's stream has said of prefixes: those that it released when their copy here was whole, and
        #: those that it acquired. ``on_marks`` is called when there is more of it, between two entries.
        self.released: dict[bytes, Released] = {}
        self.acquired: dict[bytes, Acquired] = {}
        self.on_marks: Callable[[], None] = lambda: None
        self._marks_passed = False
        # Whether something that was whole was found not to be.
        self._is_outdated = False
        self._store = store
        self._applier = applier
        self._prefixes = tuple(sorted(prefixes))
        self._ship: Ship | None = None
        self._retired = False
        self._upstream = MeshUpstream(self)
        self.cursors = ScopeCursors(self._upstream.address, sink.cursor_moved, found)
        self._entries = ScopeEntries(self.cursors)
        # Also of what was found nothing else is continued.
        self.cursors.keep(self._prefixes)

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
        self._upstream.ask_anew("other scopes are followed")

    async def run(self) -> None:
        """Follow until cancelled. Whatever the upstream does is logged, and never raised."""
        await self._upstream.run()

    def retire(self, reason: str) -> None:
        """Take nothing more from the upstream; :meth:`run` is to be cancelled.

        The keys stay as they are, and belong to nobody's stream from here on.
        """
        self._upstream.start_over(reason)
        self.cursors.forget_all()

    def stop(self, reason: str) -> None:
        """As :meth:`retire`, but the copies can be continued later where they are: the node only stops to follow."""
        self._upstream.start_over(reason)

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

    def has_applied(self, history: int, offset: int) -> bool | None:
        """Whether all entries before ``offset`` of a history are here; None: it is not this writer's."""
        link, stream = self._upstream.link, self.cursors.stream
        if not stream[0] or not history:
            return None
        if stream[0] != history:
            ancestors = () if link is None or link.history != stream[0] else link.ancestors
            shared = Lineage(stream[0], ancestors).shared(history)
            if shared is None or offset > shared:
                return None
        return stream[1] >= offset and not self.missing

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
        self._applier.lenient = "lineage" not in link.accepted
        self._entries.refuses = "scopes" in link.accepted

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
        if self._is_outdated:
            self._is_outdated = False
            upstream.ask_anew("what is held of a scope is from before its writer had it")
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

    def _apply_run(self, upstream: Upstream, commands: list[list[bytes]], first: int) -> None:
        """Apply lone entries at consecutive offsets, and commit each by itself."""
        for run in self._entries.pick(commands, first):
            if run.mark is not None:
                self._pass(run.mark, run.offsets[0] + 1)
            elif run.clears:
                self._apply_together(run)
                self._commit(upstream, run.offsets[0] + 1)
            elif self._applier.lenient:
                for command, offset in zip(run.commands, run.offsets, strict=True):
                    self._applier.apply(command)
                    self._commit(upstream, offset + 1)
            else:
                self._apply_exactly(upstream, run)

    def _pass(self, mark: Mark, offset: int) -> None:
        """Take a mark in the writer's stream, behind which the next entry is at ``offset``."""
        self.cursors.moved(offset)
        prefix = mark.prefix
        if isinstance(mark, Acquire):
            self.released.pop(prefix, None)
            if self.cursors.is_whole(prefix) and not self.cursors.holds(prefix, offset - 1):
                # It was asked for here when others wrote it already, and none of what they wrote has come.
                self.cursors.forget(prefix)
                self._is_outdated = True
            self._entries.acquire(prefix)
            self.acquired[prefix] = Acquired(mark, self.cursors.stream)
        else:
            self.acquired.pop(prefix, None)
            if self.cursors.is_whole(prefix):
                self.released[prefix] = Released(mark, self.cursors.stream)
            # What comes of it from here on is not the writer's to send.
            self._prefixes = tuple(other for other in self._prefixes if other != prefix)
            self._entries.release(prefix)
            self.cursors.forget(prefix)
        self._marks_passed = True
        self.log.info("mark_passed", node=self.node_id, mark=type(mark).__name__, prefix=prefix, epoch=mark.epoch)

    def adopt(self, prefix: bytes) -> None:
        """Go on with a prefix that this writer has acquired: what is held of it is what the last writer left."""
        self.cursors.adopt(prefix, self.acquired[prefix].at[1])
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

    def _close_group(self) -> None:
        try:
            self._store.journal.commit()
        except Exception as error:
            # Somebody who listens to the journal failed; the entry itself is applied and has its number.
            self.log.error("observer_failed", error=error, where=traceback_line(error))

    def _leave_nothing_pending(self) -> None:
        """What an entry that failed has done all the same is a change of the data, and files and replicas have it."""
        if self._store.touched:
            self._store.settle()
        if self._store.journal.pending:
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
        """A snapshot starts: of all that the link carries, or of one prefix; None: of nothing."""
        link = upstream.link
        if link is not None:
            self._know(link)
        scope = None if event is None else event.prefix
        if scope is not None and (scope not in self._prefixes or self.cursors.is_whole(scope)):
            raise SnapshotError(f"it is one of {scope!r}, which was not asked for")
        staging = PrefixStaging(self._prefixes if scope is None else (scope,), self._store.epoch)
        now_ms = int(self.clock.wall() * 1000)
        decoder = None if event is None else SnapshotDecoder(staging, now_ms=now_ms)
        self._ship = Ship(staging, decoder, scope, reason, self.clock.monotonic())

    @enable_ki_protection
    def ship_data(self, upstream: Upstream, data: bytes) -> None:
        """A piece of the snapshot. Raises SnapshotError."""
        ship = self._ship
        if ship is None or ship.decoder is None:
            raise SnapshotError("no snapshot was begun")
        ship.size += len(data)
        ship.decoder.feed(data)
        if ship.staging.left_out and self._entries.refuses and self._prefixes:
            raise SnapshotError("it holds keys that are not under the prefixes asked for")

    def ship_ends(self, upstream: Upstream, event: ShipEnds | Resumed) -> trio.Event | None:
        """Put the complete snapshot in place at once; see :meth:`place_ship`. Raises SnapshotError."""
        for _ in self.place_ship(upstream, event):
            pass
        return None

    def place_ship(self, upstream: Upstream, event: ShipEnds | Resumed) -> Iterator[None]:
        """Put the complete snapshot in place. Takes its time before each item; the last step does it all at once.

        Nothing of it may be asked for any more once the link has been ended. Raises SnapshotError.
        """
        ship = self._ship
        if ship is None:
            raise SnapshotError("no snapshot was begun")
        if ship.decoder is not None:
            ship.decoder.finish()
        # Nobody but this follower changes these keys, so those that are found are all there are.
        held: dict[bytes, None] = {}
        position = 0
        while True:
            position, keys = keys_under(self._store, ship.staging.prefixes, position)
            held.update(dict.fromkeys(keys))
            if not position:
                break
            yield
        self._swap(upstream, ship, held, event)

    @enable_ki_protection
    def _swap(self, upstream: Upstream, ship: Ship, held: Collection[bytes], event: ShipEnds | Resumed) -> None:
        self._ship = None
        self._exchange(upstream, ship, held, event)
        self._store.discarded += ship.staging.keyspace.shards()
        upstream.swapped(ship.began, ship.size, ship.reason, "full" if ship.scope is None else "scope")
        self.sink.scopes_applied()

    def _exchange(self, upstream: Upstream, ship: Ship, held: Collection[bytes], event: ShipEnds | Resumed) -> None:
        """Put the ship in place of the keys that are held."""
        journal, prefixes = self._store.journal, ship.staging.prefixes
        for prefix in prefixes:
            self.cursors.forget(prefix)
        # Not the name that the stream's own entries have: these are none of them.
        journal.origin = Origin(f"{upstream.address}/", event.history)
        try:
            with foreign_changes(self._store):
                replace_keys(self._store, held, ship.staging)
        finally:
            self._leave_nothing_pending()
            journal.origin = None
        for prefix in prefixes:
            self.cursors.shipped(prefix, event.history, event.offset)
        self.cursors.placed(event.history, event.offset)
        if ship.scope is not None and upstream.link is not None:
            upstream.link.resynced(ship.scope)

    def ship_seen(self, upstream: Upstream) -> tuple[float, int, str] | None:
        """When the running snapshot began, its bytes so far, and its reason; None while there is none."""
        ship = self._ship
        return None if ship is None else (ship.began, ship.size, ship.reason)

    def link_ended(self, upstream: Upstream, reason: str) -> None:
        """The link is over. A snapshot that was under way is void, the data from before stay."""
        if self._ship is not None:
            self._store.discarded += self._ship.staging.keyspace.shards()
            self._ship = None
