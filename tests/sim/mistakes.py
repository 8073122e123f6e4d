"""What operators do wrong, or at the same time: two primaries, circles, moves of one scope to different nodes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, Final

import trio
from sim.losses import Losses
from sim.plan import Action, Plan
from sim.world import REPLICATION_PORT, World

__all__ = ["Mistakes"]

#: Seconds after which somebody sees what is wrong.
_SEEN_AFTER: Final = (0.02, 0.3, 1.0, 3.0)


class Mistakes:
    """Carries them out, and puts right what does not end by itself.

    ``ask`` is one command to a node; ``point`` has a node follow whom it is to follow, as often as it takes;
    ``replace`` promotes the furthest replica in a primary's place, whether that is there or not.
    """

    def __init__(
        self,
        world: World,
        plan: Plan,
        losses: Losses,
        ask: Callable[..., Awaitable[Any]],
        point: Callable[[str], Awaitable[None]],
        replace: Callable[..., Awaitable[None]],
    ) -> None:
        self._world = world
        self._plan = plan
        self._losses = losses
        self._ask = ask
        self._point = point
        self._replace = replace

    # -- replicas -----------------------------------------------------------------------------------------------------

    async def usurp(self, action: Action) -> None:
        """A replica is promoted while its primary is there, both are written to, and then it has to follow again.

        What it has answered meanwhile is nobody's: it is replaced by what the primary has.
        """
        name = self._replica(action)
        if name is None:
            return
        random, usurpers = Random(action.seed), self._losses.usurpers
        usurpers.add(name)
        try:
            await self._ask(name, "REPLICAOF", "NO", "ONE")
            await trio.sleep(random.choice(_SEEN_AFTER))
        finally:
            # Who has been asked may do it later still: it is pointed back as soon as that is seen.
            self._world.nursery.start_soon(self._depose, name)

    async def _depose(self, name: str) -> None:
        """Have a node follow again until it does, and until nothing it was asked before can come any more."""
        end = trio.current_time() + 12
        while trio.current_time() < end and self._losses.primary != name:
            await self._point(name)
            await trio.sleep(0.2)
        self._losses.usurpers.discard(name)

    async def switch_over(self, action: Action) -> None:
        """A replica takes the place of a primary that is there, and takes writes for a while yet."""
        random, old = Random(action.seed), self._losses.primary
        if not self._world.is_up(old):
            return
        self._losses.about_to_promote()
        await self._replace(old, spare=random.choice((0.0, *_SEEN_AFTER)))

    async def circle(self, action: Action) -> None:
        """Two replicas are made to follow each other, or one itself."""
        random = Random(action.seed)
        names = [name for name in action.nodes if name != self._losses.primary and self._world.is_up(name)]
        if random.random() < 0.5:
            names = names[:1]
        for name, other in zip(names, [*names[1:], *names[:1]], strict=True):
            await self._ask(name, "REPLICAOF", self._world.addresses[other], REPLICATION_PORT)
        await trio.sleep(random.choice(_SEEN_AFTER))
        for name in names:
            self._world.nursery.start_soon(self._point, name)

    def _replica(self, action: Action) -> str | None:
        found = [name for name in action.nodes if name != self._losses.primary and self._world.is_up(name)]
        return found[0] if found else None

    # -- scopes -------------------------------------------------------------------------------------------------------

    async def move_twice(self, action: Action) -> None:
        """Two operators move one scope at the same time, to different nodes; a third may call it off."""
        random = Random(action.seed)
        prefix = random.choice(sorted(self._plan.scopes))
        living = self._world.living()
        owners = [name for name, node in living.items() if node.member and prefix in node.member.ownership.owned()]
        others = [name for name in self._plan.nodes if name not in owners]
        if not owners or len(others) < 2:
            return
        source = owners[0]
        async with trio.open_nursery() as nursery:
            for target in random.sample(others, 2):
                words = ("MOVE-SCOPE", prefix, "FROM", source, "TO", target, "TIMEOUT", random.choice((300, 4000)))
                nursery.start_soon(self._ask_until, 8.0, source, *words)
                # As soon as the first one is there, the second one may want to go on from it.
                nursery.start_soon(self._move_on, prefix, target, random.choice(self._plan.nodes), random.random())
            if random.random() < 0.3:
                await trio.sleep(random.choice((0.001, 0.01, 0.1)))
                nursery.start_soon(self._ask, source, "MOVE-SCOPE", "ABORT", prefix)

    async def _move_on(self, prefix: bytes, source: str, target: str, after: float) -> None:
        await trio.sleep(0.3 * after)
        if source != target:
            await self._ask_until(6.0, source, "MOVE-SCOPE", prefix, "FROM", source, "TO", target, "TIMEOUT", 3000)

    async def _ask_until(self, patience: float, name: str, *words: Any) -> None:
        await self._ask(name, *words, patience=patience)
