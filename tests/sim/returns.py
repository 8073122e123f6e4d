"""A scope that goes elsewhere and comes back while a node with a new disk cannot write down that it was gone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import trio
from sim.plan import Action, Plan
from sim.traps import Traps
from sim.world import World

__all__ = ["Returns"]


class Returns:
    """Carries out what :meth:`move_and_return` is. ``come_back`` and ``ask`` are those of the faults."""

    def __init__(
        self,
        world: World,
        plan: Plan,
        traps: Traps,
        come_back: Callable[[str, float], Awaitable[None]],
        ask: Callable[..., Awaitable[Any]],
    ) -> None:
        self._world = world
        self._plan = plan
        self._traps = traps
        self._come_back = come_back
        self._ask = ask

    async def move_and_return(self, action: Action) -> None:
        """A scope leaves the writer that the configuration declares, and a third node loses its disk. Needs files.

        The third node copies the scope from the declared writer then, which has no more than a copy itself. It cannot
        note in its ledger who writes the scope until that is back where it was.
        """
        random = Random(action.seed)
        prefix = random.choice(sorted(self._plan.scopes))
        writer = self._plan.scopes[prefix]
        others = [name for name in self._plan.nodes if name != writer]
        third = random.choice([name for name in others if self._plan.wants(name, prefix)] or others)
        other = random.choice([name for name in others if name != third])
        await self._move(prefix, other)
        await trio.sleep(random.choice((0.05, 0.5)))
        self._world.die(third, "lose", action.seed)
        mended = self._traps.fail_ledger(third)
        try:
            await self._come_back(third, 0.05)
            with trio.move_on_after(3):
                while not self._has_copy(third, prefix):  # noqa: ASYNC110  nobody tells of it
                    await trio.sleep(0.01)
            await trio.sleep(random.choice((0.1, 0.5, 1.0)))
            await self._move(prefix, writer)
            await trio.sleep(random.choice((0.1, 1.0)))
        finally:
            mended.set()
        self._world.disks[third].forgive()

    def _has_copy(self, name: str, prefix: bytes) -> bool:
        node = self._world.living().get(name)
        mesh = None if node is None or node.member is None else node.member.mesh
        return mesh is not None and mesh.copy_of(prefix) is not None

    async def _move(self, prefix: bytes, target: str) -> None:
        """Have a prefix moved, wherever it is."""
        for name, node in self._world.living().items():
            if name != target and node.member is not None and prefix in node.member.ownership.owned():
                words = ("MOVE-SCOPE", prefix, "FROM", name, "TO", target, "TIMEOUT", 3000)
                await self._ask(name, *words, patience=5.0)
                return
