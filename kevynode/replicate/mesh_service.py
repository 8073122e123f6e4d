"""The tasks of scopes that are copied: running a node's followers, and getting scopes back from a copy of them."""

from __future__ import annotations

from typing import Any, Final

import trio
from trio.lowlevel import enable_ki_protection

from ..store.exchange import PrefixExchange
from .mesh import Mesh, MeshFollowing
from .mesh_follower import MeshFollower
from .mesh_sides import Ship
from .replica_events import Resumed, ShipEnds
from .upstream import Upstream

__all__ = ["MeshService", "ScopeRestorer"]

#: Seconds between two looks at who owns what, in case nobody said that it has changed.
_LOOK: Final = 1.0


class MeshService:
    """Runs the followers that ``mesh`` has, each for as long as it is one of them."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._changed = trio.Event()
        mesh.on_followers = self._wake

    def _wake(self) -> None:
        self._changed.set()

    async def run(self) -> None:
        """Follow until cancelled."""
        running: dict[MeshFollowing, trio.CancelScope] = {}
        async with trio.open_nursery() as nursery:
            while True:
                self._changed = trio.Event()
                self._refresh()
                present = list(self._mesh.followers.values())
                for follower in [follower for follower in running if follower not in present]:
                    running.pop(follower).cancel()
                for follower in present:
                    if follower not in running:
                        scope = running[follower] = trio.CancelScope()
                        nursery.start_soon(self._follow, follower, scope)
                with trio.move_on_after(_LOOK):
                    await self._changed.wait()

    @enable_ki_protection
    def _refresh(self) -> None:
        self._mesh.refresh()

    @staticmethod
    async def _follow(follower: MeshFollowing, scope: trio.CancelScope) -> None:
        with scope:
            await follower.run()


class ScopeRestorer(MeshFollower):
    """Gets the keys under its prefixes from a node that holds a copy of them, and makes them this node's own entries.

    Made as a :class:`MeshFollower` of the node with the copy, with nothing found. For a writer that has lost its data:
    it takes no writes of these prefixes until :meth:`restore` has returned.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        #: How many keys have changed for it; None: the copy has not come yet.
        self.restored: int | None = None
        self._arrived = trio.Event()

    async def restore(self) -> None:
        """Return when the copy is in place. Until then the other node is asked again and again: set a deadline."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.run)
            await self._arrived.wait()
            nursery.cancel_scope.cancel()

    def _exchange(self, upstream: Upstream, ship: Ship, exchange: PrefixExchange, event: ShipEnds | Resumed) -> None:
        """Put the ship in place of what is held, as changes that are made here."""
        try:
            self.restored = exchange.finish()
        finally:
            self._leave_nothing_pending()
        # What follows in the stream is nobody's any more.
        upstream.stop("the copy is here")
        self._arrived.set()
