"""A node that goes on at another machine, and the others, which are told where by their next start."""

from __future__ import annotations

from random import Random
from typing import Any

import trio
from sim.plan import Action, Plan
from sim.world import CLIENT_PORT, World

__all__ = ["Relocation"]


class Relocation:
    """Carries out what :meth:`relocate` is; :meth:`finish` has all who have not been told yet start again."""

    def __init__(self, world: World, plan: Plan) -> None:
        self._world = world
        self._plan = plan
        # Who runs, or will start, with a configuration that is not the one it was started with last.
        self._untold: list[str] = []
        self._count = 0

    async def relocate(self, action: Action) -> None:
        """A node leaves its machine, with its disk or without, and has a new address in all configurations.

        They are changed at once; each node goes by its own from its next start on, one after the other.
        """
        random, world, name = Random(action.seed), self._world, action.nodes[0]
        if random.random() < 0.6:
            world.die(name, "lose", action.seed)
        else:
            await world.stop(name)
        self._count += 1
        self._declare(name, f"10.{self._count}.0.{self._plan.nodes.index(name) + 1}")
        others = [other for other in self._plan.everybody if other != name]
        random.shuffle(others)
        others.insert(random.choice((0, 0, 1, len(others))), name)
        self._untold += others
        for other in others:
            await trio.sleep(random.choice((0.02, 0.3, 2.0)))
            await self._tell(other)

    async def finish(self) -> None:
        """Have everybody go by its present configuration."""
        for name in tuple(self._untold):
            await self._tell(name)

    async def _tell(self, name: str) -> None:
        await self._world.stop(name)
        await self._world.start(name)
        if name in self._untold:
            self._untold.remove(name)

    def _declare(self, name: str, ip: str) -> None:
        """Write into all configurations that a node is at this address."""
        world = self._world
        before = f"{world.addresses[name]}:"
        world.relocate(name, ip)
        world.tables[name]["server"]["bind"] = ip
        for tables in world.tables.values():
            peers: list[dict[str, Any]] = tables["cluster"].get("peer", [])
            for peer in peers:
                if peer["id"] == name:
                    peer["address"] = f"{ip}:{CLIENT_PORT}"
            replication = tables.get("replication", {})
            upstream: str = replication.get("upstream", "")
            if upstream.startswith(before):
                replication["upstream"] = f"{ip}:{upstream.removeprefix(before)}"
