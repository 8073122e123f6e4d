"""Timers as data: what should happen when, on the monotonic clock. One task of the node sleeps until the next one."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

__all__ = ["Timer", "Timers"]


class Timer:
    """One thing to do at a time; :meth:`cancel` forgets it."""

    __slots__ = ("action",)

    def __init__(self, action: Callable[[], None]) -> None:
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """Do nothing when the time comes."""
        self.action = None


class Timers:
    """A heap of timers. Times are seconds on the node's monotonic clock."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._numbers = count()
        # Called when a timer becomes the first to fall due, so that a sleeper can sleep shorter.
        self.on_earlier: Callable[[], None] | None = None

    def at(self, when: float, action: Callable[[], None]) -> Timer:
        """Call ``action`` at ``when``."""
        timer = Timer(action)
        heapq.heappush(self._heap, (when, next(self._numbers), timer))
        if self._heap[0][2] is timer and self.on_earlier is not None:
            self.on_earlier()
        return timer

    def next(self) -> float | None:
        """When the first timer falls due, or None."""
        while self._heap and self._heap[0][2].action is None:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def run(self, now: float) -> None:
        """Do everything that is due at ``now``, in order."""
        while self._heap and self._heap[0][0] <= now:
            action = heapq.heappop(self._heap)[2].action
            if action is not None:
                action()
