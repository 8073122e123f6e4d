"""What a node does by time and not because somebody asks: timers that fall due, and house that is kept.

Each step is synchronous, like a command; between two steps the others have their turn.
"""

from __future__ import annotations

import math

import trio
from trio.lowlevel import enable_ki_protection

from .clock import Clock
from .persist.persistence import Persistence
from .serve.housekeeping import Housekeeper
from .serve.server import Server

__all__ = ["NodeWork"]


class NodeWork:
    """The timers and the housekeeping of one node. Everything belongs to its Trio thread."""

    def __init__(self, server: Server, housekeeper: Housekeeper, persistence: Persistence, clock: Clock) -> None:
        self._server = server
        self._housekeeper = housekeeper
        self._persistence = persistence
        self._clock = clock
        self._alarm = trio.Event()
        server.timers.on_earlier = self._wake

    def _wake(self) -> None:
        self._alarm.set()

    async def run_timers(self) -> None:
        """Sleep until the next timer falls due, then do what it says; until cancelled."""
        while True:
            self._alarm = trio.Event()
            when = self._server.timers.next()
            with trio.move_on_after(math.inf if when is None else max(0.0, when - self._clock.monotonic())):
                await self._alarm.wait()
            self._do_timers()

    @enable_ki_protection
    def _do_timers(self) -> None:
        self._server.tick()
        try:
            self._server.timers.run(self._clock.monotonic())
            self._server.commit()
        except Exception as error:
            # It costs the one who set the timer, not the node; the next ones are due at once.
            self._server.unexpected("timer", error)
        self._persistence.hand_over()

    async def keep_house(self) -> None:
        """A slice of background work ``hz`` times a second, oftener while there is more than a slice to do."""
        while True:  # noqa: ASYNC110  it does a slice of work each time, it does not wait for a condition
            await trio.sleep(self._clean())

    @enable_ki_protection
    def _clean(self) -> float:
        self._server.tick()
        pause = self._housekeeper.work()
        # What has expired and was evicted is written now: nobody's answers may come for long.
        self._persistence.hand_over()
        return pause
