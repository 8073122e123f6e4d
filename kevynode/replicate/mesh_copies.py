"""The copies of one writer's scopes in store and journal: what is committed there, and ships that come in. No I/O.

A ship is built aside. When it is complete the keys of its prefixes are exchanged in one step and one group of the
journal, which files and replicas take as a whole. That costs a copy of the prefix in the append-only file; a base of
all data, the other way to make it durable as a whole, would cost a copy of everything, and hold up what clients write
here until it is complete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from ..clock import Clock
from ..faults import traceback_line
from ..store.exchange import PrefixExchange
from ..store.foreign import foreign_changes
from ..store.journal import Origin
from ..store.staging import PrefixStaging
from ..store.store import Store
from .mesh_sides import MeshSink, Ship
from .replica import ReplicaLink
from .replica_events import Resumed, ShipBegins, ShipEnds
from .scope_cursors import ScopeCursors
from .scope_entries import ScopeEntries
from .snapshot import SnapshotDecoder, SnapshotError
from .upstream import Upstream, UpstreamLog

__all__ = ["MeshCopies"]


class MeshCopies:
    """What a :class:`~kevynode.replicate.mesh_follower.MeshFollower` holds, and how a ship takes its place.

    ``prefixes`` are what is copied from the writer at ``address``, ``found`` the cursors that were in the files at the
    start.
    """

    def __init__(
        self,
        prefixes: tuple[bytes, ...],
        address: str,
        found: Mapping[str, tuple[int, int]],
        store: Store,
        clock: Clock,
        log: UpstreamLog,
        sink: MeshSink,
    ) -> None:
        self.clock = clock
        self.log = log
        self.sink = sink
        self.cursors = ScopeCursors(address, sink.cursor_moved, found)
        #: Called with prefixes when a ship is about to take the place of what is held of them.
        self.on_placing: Callable[[tuple[bytes, ...]], None] = lambda prefixes: None
        self._store = store
        self._prefixes = prefixes
        self._ship: Ship | None = None
        self._entries = ScopeEntries(self.cursors)
        # Also of what was found nothing else is continued.
        self.cursors.keep(prefixes)

    # -- the journal --------------------------------------------------------------------------------------------------

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

    def _know(self, link: ReplicaLink) -> None:
        """What the writer takes part in on this link is known."""
        self._entries.refuses = "scopes" in link.accepted

    # -- ships --------------------------------------------------------------------------------------------------------

    def ship_begins(self, upstream: Upstream, event: ShipBegins | None, reason: str) -> None:
        """A snapshot starts: of all that the link carries, or of one prefix; None: of nothing."""
        if upstream.link is not None:
            self._know(upstream.link)
        scope = None if event is None else event.prefix
        if scope is not None and (scope not in self._prefixes or self.cursors.is_whole(scope)):
            raise SnapshotError(f"it is one of {scope!r}, which was not asked for")
        staging = PrefixStaging(self._prefixes if scope is None else (scope,), self._store.epoch)
        now_ms = int(self.clock.wall() * 1000)
        decoder = None if event is None else SnapshotDecoder(staging, now_ms=now_ms)
        self._ship = Ship(staging, decoder, scope, reason, self.clock.monotonic())

    def ship_data(self, upstream: Upstream, data: bytes) -> None:
        """A piece of the snapshot. Raises SnapshotError."""
        ship = self._ship
        if ship is None or ship.decoder is None:
            raise SnapshotError("no snapshot was begun")
        ship.size += len(data)
        ship.decoder.feed(data)
        if ship.staging.left_out and self._entries.refuses and self._prefixes:
            raise SnapshotError("it holds keys that are not under the prefixes asked for")

    def place_ship(self, upstream: Upstream, event: ShipEnds | Resumed) -> Iterator[None]:
        """Put the complete snapshot in place. Takes a moment before each item; one of these steps does it all at once.

        Nothing of it may be asked for any more once the link has been ended. Raises SnapshotError.
        """
        ship = self._ship
        if ship is None:
            raise SnapshotError("no snapshot was begun")
        if ship.decoder is not None:
            ship.decoder.finish()
        exchange = PrefixExchange(self._store, ship.staging)
        try:
            yield from exchange.prepare()
            self._swap(upstream, ship, exchange, event)
        finally:
            exchange.close()
        yield from exchange.tidy()

    def _swap(self, upstream: Upstream, ship: Ship, exchange: PrefixExchange, event: ShipEnds | Resumed) -> None:
        self._ship = None
        self._exchange(upstream, ship, exchange, event)
        self._store.discarded += ship.staging.keyspace.shards()
        upstream.swapped(ship.began, ship.size, ship.reason, "full" if ship.scope is None else "scope")
        self.sink.scopes_applied()

    def _exchange(self, upstream: Upstream, ship: Ship, exchange: PrefixExchange, event: ShipEnds | Resumed) -> None:
        """Put the ship in place of what is held."""
        journal, prefixes = self._store.journal, ship.staging.prefixes
        for prefix in prefixes:
            self.cursors.forget(prefix)
            self.cursors.forget_left(prefix)
        self.on_placing(prefixes)
        # Not the name that the stream's own entries have: these are none of them.
        journal.origin = Origin(f"{upstream.address}/", event.history)
        try:
            with foreign_changes(self._store):
                exchange.finish()
        finally:
            self._leave_nothing_pending()
            journal.origin = None
        self.cursors.descends(event.history, event.ancestors)
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
