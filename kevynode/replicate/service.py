"""The tasks of replication that run for as long as the node works: heartbeats, and following an upstream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import trio
from trio.lowlevel import enable_ki_protection

from .replication import Replication
from .surroundings import UpstreamSide

__all__ = ["MakeFollower", "ReplicationService", "RunningFollower"]


class RunningFollower(UpstreamSide, Protocol):
    """A follower, as this module starts it."""

    def run(self) -> Awaitable[None]:
        """Keep the node a copy of its upstream until cancelled."""
        ...

    def retire(self, reason: str) -> None:
        """Take nothing more from the upstream from here on, whatever has arrived."""
        ...


MakeFollower = Callable[[str, int], RunningFollower]


class ReplicationService:
    """Runs what :class:`Replication` decides. ``make_follower`` makes one for a replication host and port."""

    def __init__(self, replication: Replication, make_follower: MakeFollower) -> None:
        self._replication = replication
        self._make_follower = make_follower
        self._follower: RunningFollower | None = None
        self._chosen = trio.Event()
        self._choose()
        replication.on_target = self._choose

    def _choose(self) -> None:
        """Have the upstream of the moment followed, if there is one. It can be asked about at once."""
        target = self._replication.target
        if self._follower is not None:
            # Its task ends a moment later; by then the node belongs to another stream, or to nobody's.
            self._follower.retire("another upstream, or none, is followed")
        self._follower = None if target is None else self._make_follower(*target)
        self._replication.set_upstream(self._follower)
        self._chosen.set()

    async def beat(self) -> None:
        """Send heartbeats, close silent links, and judge what depends on time, until cancelled."""
        while True:  # noqa: ASYNC110  it does something each time, it does not wait for a condition
            await trio.sleep(self._tick())

    @enable_ki_protection
    def _tick(self) -> float:
        return self._replication.tick()

    async def follow(self) -> None:
        """Follow the upstream of the moment, another one when that changes, or nobody; until cancelled.

        Following one upstream is a call that lasts as long as the role.
        """
        while True:
            self._chosen = trio.Event()
            follower = self._follower
            async with trio.open_nursery() as nursery:
                if follower is not None:
                    nursery.start_soon(follower.run)
                await self._chosen.wait()
                nursery.cancel_scope.cancel()
