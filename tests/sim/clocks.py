"""The clocks of a simulated node: one that work moves, one that is wrong, and one that measures turns."""

from __future__ import annotations

from random import Random
from typing import Final

import trio

#: Unix seconds at which every simulation begins.
START: Final = 1_700_000_000.0


class SimClock:
    """What time it is for one node. ``drift`` is by how much its wall runs fast, ``jump`` by how much it is wrong.

    Whoever looks at the time works: so the monotonic clock goes on a little with each look, as far as the simulation's
    own has not gone on meanwhile.
    """

    def __init__(self, random: Random) -> None:
        self.drift = random.uniform(-1e-3, 1e-3)
        self.jump = random.uniform(-0.5, 0.5)
        # The latest moment that it has shown before it was set back.
        self._before = 0.0
        self._random = random
        self._time = trio.lowlevel.current_clock().current_time
        self._now = 0.0
        self._turns = 0.0

    def monotonic(self) -> float:
        """Seconds that only grow."""
        now = self._time()
        self._now = now if now > self._now else self._now + 0.00005 * self._random.random()
        return self._now

    def wall(self) -> float:
        """Seconds since 1970."""
        return START + self._time() * (1 + self.drift) + self.jump

    @property
    def highest(self) -> float:
        """The latest moment that it has shown so far."""
        return max(self._before, self.wall())

    def set(self, seconds: float) -> None:
        """Let it jump by so many seconds."""
        self._before = self.highest
        self.jump += seconds

    def take_over(self, other: SimClock) -> None:
        """Go on as the clock of the same machine has gone in an earlier life of its node."""
        self.drift, self.jump, self._before = other.drift, other.jump, other.highest

    def timer(self) -> float:
        """What a session's turn is measured with: some turns end after a command, some after many."""
        self._turns += 0.0004 * self._random.random() ** 2
        return self._turns
