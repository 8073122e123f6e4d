"""What an operator does to a running node, and takes back: pauses, limits, another policy; and clients that are cut."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, Final

import trio
from sim.plan import Action, Plan
from sim.talk import Word
from sim.world import World

__all__ = ["Meddling"]

#: What may stand in for a policy without promising less.
_STRONGER: Final = {"no": ("everysec", "always"), "everysec": ("always",), "always": (), "memory": ()}


class Meddling:
    """Carries it out. ``ask`` is one command to a node."""

    def __init__(self, world: World, plan: Plan, ask: Callable[..., Awaitable[Any]]) -> None:
        self._world = world
        self._plan = plan
        self._ask = ask

    async def pause(self, action: Action) -> None:
        """Nobody is served for a while, or nobody who writes; the pause may be ended, or end by itself."""
        random, name = Random(action.seed), action.nodes[0]
        kind = random.choice(("WRITE", "WRITE", "ALL"))
        await self._ask(name, "CLIENT", "PAUSE", random.choice((50, 500, 3000, 8000)), kind)
        await trio.sleep(action.span)
        if random.random() < 0.5:
            await self._ask(name, "CLIENT", "UNPAUSE")

    async def cut_clients(self, action: Action) -> None:
        """All clients, or all replicas and other nodes, lose their connections."""
        random = Random(action.seed)
        for _ in range(random.choice((1, 1, 5))):
            await self._ask(action.nodes[0], "CLIENT", "KILL", "TYPE", random.choice(("normal", "replica")))
            await trio.sleep(random.choice((0.01, 0.3)))

    async def limit_memory(self, action: Action) -> None:
        """A node has no more room for a while: it evicts what has a deadline, and refuses what needs memory."""
        random = Random(action.seed)
        policy = random.choice(("noeviction", "volatile-ttl", "volatile-random", "volatile-lru"))
        self._world.evicts = True
        limit = random.choice((1, 5000, 20000))
        await self._change(action, ("maxmemory", limit, "maxmemory-policy", policy), ("maxmemory", 0))

    async def change_policy(self, action: Action) -> None:
        """A node syncs more often for a while than its configuration says."""
        stronger = _STRONGER[self._plan.policy]
        if stronger:
            policy = Random(action.seed).choice(stronger)
            await self._change(action, ("appendfsync", policy), ("appendfsync", self._plan.policy))

    async def _change(self, action: Action, parameters: tuple[Word, ...], back: tuple[Word, ...]) -> None:
        name = action.nodes[0]
        life = self._world.lives[name]
        try:
            await self._ask(name, "CONFIG", "SET", *parameters)
            await trio.sleep(action.span)
        finally:
            # What has been asked for may arrive late; a node that is started again has forgotten it.
            self._world.nursery.start_soon(self._take_back, name, life.number, back)

    async def _take_back(self, name: str, number: int, parameters: tuple[Word, ...]) -> None:
        end = trio.current_time() + 12
        while self._world.exists(name) and self._world.lives[name].number == number:
            if await self._ask(name, "CONFIG", "SET", *parameters) == "OK" and trio.current_time() > end:
                return
            await trio.sleep(0.5)
