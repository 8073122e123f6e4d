"""Keeps a node's store a copy of one upstream: what each event of its links does to the store, and the task that runs.

::

    follower nursery
    └─ upstream × shards        connect → handshake → (snapshot) → stream, and again after a jittered back-off

An upstream with one stream is **adopted**: its entries keep their offsets here, and its history becomes this node's. An
upstream of several shards (a kevy server) has one history for each, so its entries get this node's own numbers, in the
order in which they are applied, and where each shard's stream is to go on is kept here.

Nothing is ever half done when another task runs: a group is applied whole, a snapshot is built aside and swapped in
once, and the store, the journal and the position move in the same step. A snapshot of several shards is swapped in when
all of them have sent theirs; if one breaks off, all start over and the old data stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

import attrs
import trio
from trio.lowlevel import enable_ki_protection

from ..clock import Clock
from ..faults import traceback_line
from ..replication_view import UpstreamFacts
from ..store.apply import Applier, ApplyError
from ..store.journal import Effect, Origin
from ..store.staging import Staging
from ..store.store import Store
from ..transport import Transport
from ..twins import COMPILED
from .backoff import UniformSource
from .follower_sink import FollowerSink
from .replica import ReplicaLink
from .replica_events import Entries, HistoryKnown, Resumed, ShipBegins, ShipEnds
from .snapshot import SnapshotDecoder, SnapshotError
from .stream_events import GROUP_BYTES_LIMIT
from .upstream import Upstream, UpstreamLog
from .wire import encode_frames

if COMPILED:
    from ..compiled.following import commit_each, put_entries

__all__ = ["FOLLOWER_CAPABILITIES", "Follower"]

#: What a copy of everything asks a kevynode for: it follows no filter, so it has no use for ``skip`` and ``scopes``.
FOLLOWER_CAPABILITIES: Final = frozenset({"txn", "ackreq", "lineage"})

# Entries applied between two looks at the clock: about what one read brings, so that it is passed on as it came.
_BATCH: Final = 512


@attrs.define(eq=False)
class _Ship:
    """A snapshot being built aside, by all links together."""

    staging: Staging
    reason: str
    began: float
    # What reads each link's part; None for a part that is empty by itself. And where the finished ones go on.
    parts: dict[Upstream, SnapshotDecoder | None] = attrs.Factory(dict)
    ends: dict[Upstream, tuple[int, int, tuple[tuple[int, int], ...]]] = attrs.Factory(dict)
    size: int = 0
    swapped: trio.Event = attrs.Factory(trio.Event)


class Follower:
    """Keeps ``store`` a copy of the upstream whose replication port is ``port`` on ``host``.

    ``shards`` streams are followed, on as many ports from ``port`` on. ``applier`` is the door to the store, ``sink``
    the rest of the node. ``replica_id`` is what the upstream knows this node by; ``capabilities`` are offered to it. A
    kevy server is told the id that its own replicas have, with ``client_port`` in it, which it shows to its clients.
    ``adopts`` says whether the upstream's history and offsets become this node's; never those of several shards.
    ``bulk_limit`` bounds one argument of an entry in bytes; what its clients may write is the primary's affair.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        store: Store,
        applier: Applier,
        transport: Transport,
        clock: Clock,
        random: UniformSource,
        log: UpstreamLog,
        sink: FollowerSink,
        replica_id: str,
        client_port: int = 0,
        shards: int = 1,
        capabilities: frozenset[str] = FOLLOWER_CAPABILITIES,
        adopts: bool = True,
        bulk_limit: int = GROUP_BYTES_LIMIT,
    ) -> None:
        self.host = host
        self.port = port
        self.adopts = adopts and shards == 1
        self.replica_id, self.client_port = replica_id, client_port
        self.capabilities, self.bulk_limit = capabilities, bulk_limit
        self.transport = transport
        self.clock = clock
        self.random = random
        self.log = log
        self.sink = sink
        # Commands of a kevy upstream that failed here, as they did there.
        self.ignored = 0
        # Why the data is not what the upstream's entries should have made of it; empty while it is. Only a fresh copy
        # ends that, so nothing is asked for but one, and nobody should be given a copy of this.
        self.diverged = ""
        self._store, self._applier = store, applier
        self._ship: _Ship | None = None
        # Why the last snapshot came to nothing, until one succeeds.
        self._void = ""
        # The compiled parts, which apply what is plain; None: there are none.
        self._put_entries = put_entries if COMPILED and type(store) is Store else None
        self._commit_each = commit_each if COMPILED else None
        # What the entries applied last came from.
        self._origin: tuple[ReplicaLink, Origin] | None = None
        # Index of the next entry to apply in the batch under way.
        self._place = 0
        self._upstreams = [Upstream(self, index, port + index) for index in range(shards)]

    # -- for the node -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Follow until cancelled. Whatever an upstream does is logged, and never raised."""
        if not self.adopts:
            cursors = self.sink.cursors_of([upstream.address for upstream in self._upstreams])
            for upstream in self._upstreams:
                upstream.cursor = cursors.get(upstream.address, (0, 0))
        async with trio.open_nursery() as nursery:
            for upstream in self._upstreams:
                nursery.start_soon(upstream.run)

    def retire(self, reason: str) -> None:
        """Take nothing more from the upstream from here on, whatever has arrived; :meth:`run` is to be cancelled."""
        for upstream in self._upstreams:
            upstream.start_over(reason)

    def facts(self, now: float) -> Sequence[UpstreamFacts]:
        """Each link, as clients may see it. ``now`` is monotonic."""
        return [upstream.facts(now) for upstream in self._upstreams]

    def position_in(self, history: int) -> int | None:
        """The next offset applied of a history that this node does not adopt; None if none of its streams has it."""
        if not self.adopts and history:
            for upstream in self._upstreams:
                if upstream.cursor[0] == history:
                    return upstream.cursor[1]
        return None

    @property
    def received_bytes(self) -> int:
        """Bytes received from the upstream."""
        return sum(upstream.received_bytes for upstream in self._upstreams)

    @property
    def lenient(self) -> bool:
        """Whether a kevy server's stream is followed, at first or second hand, with all that goes wrong in it."""
        return self._applier.lenient

    # -- for the links ------------------------------------------------------------------------------------------------

    def claim(self, upstream: Upstream) -> tuple[int, int]:
        """The history and next offset to ask a link for; (0, 0): a fresh copy."""
        if self.diverged:
            return 0, 0
        return self.sink.cursor() if self.adopts else upstream.cursor

    def applied(self, upstream: Upstream) -> int:
        """How far a link's stream has been applied."""
        return self._store.journal.offset if self.adopts else upstream.cursor[1]

    @enable_ki_protection
    def resumed(self, upstream: Upstream, event: Resumed, reason: str) -> None:
        """A link goes on where it was, with what is held."""
        upstream.cursor = (event.history, event.offset)
        self._know(upstream)
        if self.adopts:
            self.sink.adopt(event.history, event.offset, event.ancestors, "partial", reason)

    @enable_ki_protection
    def history_known(self, upstream: Upstream, event: HistoryKnown, offset: int) -> None:
        """The history of what a link has sent is told after the fact."""
        upstream.cursor = (event.history, offset)
        if self.adopts:
            self.sink.adopt(event.history, offset, (), "partial", "the upstream has told its history")

    @enable_ki_protection
    def apply(self, upstream: Upstream, entries: Entries, place: int, until: float) -> int:
        """Apply entries from index ``place`` on, until the clock says ``until`` or they are done; how far it came.

        A group is applied whole. Entries of a kevynode must all apply: one that does not ends the link.
        """
        store, link = self._store, upstream.link
        assert link is not None
        journal = store.journal
        first = journal.offset
        size = len(entries.commands)
        store.now = int(self.clock.wall() * 1000)
        self._applier.lenient = _is_kevys(link)
        self._applier.may_have_flushed = False
        self._applier.on_ignored = partial(self._ignored, upstream)
        journal.origin = self._origin_of(upstream, link)
        self._place = place
        try:
            if entries.grouped:
                self._applier.apply_all(entries.commands)
                self._commit(upstream, entries.next)
                self._place = size
            else:
                advance = self._apply_each if self._applier.lenient else self._apply_run
                while self._place < size:
                    advance(upstream, entries, min(size, self._place + _BATCH))
                    if self.clock.monotonic() >= until:
                        break
        except ApplyError as error:
            number = entries.first + self._place + (error.applied if entries.grouped else 0)
            self._diverge(upstream, f"entry {number} of {upstream.address} cannot be applied: {error}")
        finally:
            journal.origin = None
            self._applier.on_ignored = None
            if store.touched:
                store.settle()
        reached = self._place
        if reached > place:
            self._report(upstream, link, entries, place, reached, first)
        return reached

    def _origin_of(self, upstream: Upstream, link: ReplicaLink) -> Origin:
        """Where a link's entries come from: the same object for all of them, which whoever records them knows again."""
        known = self._origin
        if known is None or known[0] is not link or known[1].history != link.history:
            self._origin = known = (link, Origin(upstream.address, link.history))
        return known[1]

    def _report(
        self, upstream: Upstream, link: ReplicaLink, entries: Entries, place: int, reached: int, first: int
    ) -> None:
        """Tell the rest of the node that entries from index ``place`` up to ``reached`` have been applied."""
        size = len(entries.commands)
        position = entries.next if reached == size else entries.first + reached
        if not self.diverged:
            upstream.cursor = (link.history, position)
        raw = b""
        if self.adopts:
            whole = reached - place == size
            raw = entries.raw if whole else encode_frames(entries.first + place, entries.commands[place:reached])
        link.applied(position, self.clock.monotonic())
        flushed = self._applier.may_have_flushed
        self.sink.entries_applied(first, self._store.journal.offset, raw, entries.grouped, flushed)

    def _apply_run(self, upstream: Upstream, entries: Entries, stop: int) -> None:
        """Apply entries up to index ``stop`` that make one change each, and commit each by itself."""
        journal = self._store.journal
        if self._put_entries is not None and self.adopts and journal.offset == entries.first + self._place:
            self._place = self._put_entries(self._store, entries.commands, self._place, stop)
            if self._place == stop:
                return
        place, done = self._place, stop - self._place
        try:
            self._applier.apply_all(entries.commands[place:stop])
        except ApplyError as error:
            done = error.applied
            raise
        finally:
            effects = journal.pending
            if journal.observers:
                self._commit_all(upstream, effects[:done], entries.first + place)
            else:  # Nobody listens: only the numbers count.
                journal.offset = self._numbered(entries.first + place + done, done)
            journal.pending = effects[done:]
            self._place = place + done

    def _commit_all(self, upstream: Upstream, effects: list[Effect], number: int) -> None:
        """Commit effects, each by itself; ``number`` is the first one's offset upstream."""
        if self._commit_each is not None and self.adopts:
            self._commit_each(self._store.journal, effects, number, self._observer_failed)
            return
        for place, effect in enumerate(effects):
            self._store.journal.pending = [effect]
            self._commit(upstream, number + place + 1)

    def _apply_each(self, upstream: Upstream, entries: Entries, stop: int) -> None:
        """Apply entries up to index ``stop`` that may make any number of changes, each entry a group."""
        apply = self._applier.apply
        for place in range(self._place, stop):
            apply(entries.commands[place])
            self._commit(upstream, entries.first + place + 1)
            self._place = place + 1

    def _commit(self, upstream: Upstream, next_offset: int) -> None:
        journal = self._store.journal
        if not self.adopts and journal.pending and upstream.link is not None:
            self.sink.note_cursor(upstream.address, upstream.link.history, next_offset)
        try:
            journal.commit(self._numbered(next_offset, len(journal.pending)))
        except Exception as error:
            self._observer_failed(error)

    def _observer_failed(self, error: Exception) -> None:
        """Somebody who listens to the journal failed; the entry itself is applied and has its number."""
        self.log.error("observer_failed", error=error, where=traceback_line(error))

    def _numbered(self, next_offset: int, count: int) -> int:
        """The next offset here behind ``count`` more changes, which the upstream calls ``next_offset``."""
        return next_offset if self.adopts else self._store.journal.offset + count

    def _ignored(self, upstream: Upstream, error: ApplyError) -> None:
        self.ignored += 1
        # Seldom enough for a log, however many there are.
        if self.ignored & (self.ignored - 1) == 0:
            self.log.warning("entry_ignored", upstream=upstream.address, error=str(error), ignored=self.ignored)

    def _diverge(self, upstream: Upstream, reason: str) -> None:
        """What an entry should have done is not done, or half done: end the link, and ask for a fresh copy."""
        journal = self._store.journal
        self.sink.diverged()
        if journal.pending:
            # Whoever watches a key hears of it, but it is no part of the history.
            journal.commit(journal.offset)
        self.diverged = reason
        for other in self._upstreams:
            other.cursor = (0, 0)
        self.log.error("diverged", upstream=upstream.address, reason=reason)
        upstream.stop(reason)

    def _know(self, upstream: Upstream) -> None:
        """Note whose stream it is. A kevy server does not tell when a key expires: so it does here as it does there."""
        link = upstream.link
        if link is not None:
            self._applier.lenient = self._store.deletes_expired = _is_kevys(link)

    # -- snapshots ----------------------------------------------------------------------------------------------------

    @enable_ki_protection
    def ship_begins(self, upstream: Upstream, event: ShipBegins | None, reason: str) -> None:
        """A link starts over; None: with nothing. All others do so with it."""
        if self._ship is not None and upstream in self._ship.parts:
            self._give_up("a shard sent a second snapshot", upstream)
        ship = self._ship
        if ship is None:
            ship = self._ship = _Ship(Staging(self._store.epoch), self._void or reason, self.clock.monotonic())
            for other in self._upstreams:
                other.cursor = (0, 0)
                if other is not upstream and other.goes_on:
                    other.start_over(f"{upstream.address} starts over")
        now_ms = int(self.clock.wall() * 1000)
        ship.parts[upstream] = None if event is None else SnapshotDecoder(ship.staging, now_ms=now_ms)

    @enable_ki_protection
    def ship_data(self, upstream: Upstream, data: bytes) -> None:
        """A piece of a link's snapshot. Raises SnapshotError."""
        ship = self._ship
        decoder = None if ship is None else ship.parts.get(upstream)
        if ship is None or decoder is None:
            raise SnapshotError("the snapshot has been given up")
        ship.size += len(data)
        decoder.feed(data)

    @enable_ki_protection
    def ship_ends(self, upstream: Upstream, event: ShipEnds | Resumed) -> trio.Event | None:
        """A link's snapshot is complete. When all are the store is replaced; until then there is an event to wait for.

        Raises SnapshotError.
        """
        ship = self._ship
        if ship is None or upstream not in ship.parts:
            raise SnapshotError("the snapshot has been given up")
        decoder = ship.parts[upstream]
        if decoder is not None:
            decoder.finish()
        ship.ends[upstream] = (event.history, event.offset, event.ancestors)
        if len(ship.ends) < len(self._upstreams):
            return ship.swapped
        self._swap(ship)
        return None

    def ship_seen(self, upstream: Upstream) -> tuple[float, int, str] | None:
        """When the running snapshot began, its bytes so far, and its reason; None if this link has no part in one."""
        ship = self._ship
        if ship is None or upstream not in ship.parts:
            return None
        return ship.began, ship.size, ship.reason

    def _swap(self, ship: _Ship) -> None:
        store = self._store
        self._ship = None
        self.diverged = self._void = ""
        for upstream, (history, offset, _) in ship.ends.items():
            self._know(upstream)
            upstream.cursor = (history, offset)
        history, offset, ancestors = ship.ends[self._upstreams[0]]
        store.journal.origin = Origin(self._upstreams[0].address, history)
        try:
            store.replace_all(ship.staging, offset if self.adopts else None)
        except Exception as error:
            if store.keyspace is not ship.staging.keyspace:
                raise
            # Somebody who listens to the journal failed; the data are replaced.
            self.log.error("observer_failed", error=error, where=traceback_line(error))
        finally:
            store.journal.origin = None
        ship.swapped.set()
        for upstream in ship.ends:
            upstream.swapped(ship.began, ship.size, ship.reason)
        if self.adopts:
            self.sink.adopt(history, offset, ancestors, "full", ship.reason)
            self.sink.swapped({})
        else:
            self.sink.swapped({upstream.address: upstream.cursor for upstream in self._upstreams})

    def _give_up(self, reason: str, by: Upstream) -> None:
        """The snapshot under way will not be complete: let go of it, and have those who sent a part start over."""
        ship = self._ship
        assert ship is not None
        self._ship = None
        if len(self._upstreams) > 1:
            self._void = reason
        # Somebody frees them piece by piece.
        self._store.discarded += ship.staging.keyspace.shards()
        for other in ship.parts:
            if other is not by:
                other.start_over(reason)

    @enable_ki_protection
    def link_ended(self, upstream: Upstream, reason: str) -> None:
        """A link is over. A snapshot that it had a part in is void, the data from before stays."""
        if self._ship is not None and upstream in self._ship.parts:
            self._give_up(f"{upstream.address} broke off: {reason}", upstream)
        self.sink.lost(reason)


def _is_kevys(link: ReplicaLink) -> bool:
    """Whether a link carries what a kevy server streams: a kevynode that only passes it on knows no lineage of it."""
    return "lineage" not in link.accepted
