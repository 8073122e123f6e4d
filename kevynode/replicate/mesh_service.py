"""The task that runs a node's followers of scopes."""

from __future__ import annotations

from typing import Final

import trio
from trio.lowlevel import enable_ki_protection

from .mesh import Mesh, MeshFollowing

__all__ = ["MeshService"]

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
