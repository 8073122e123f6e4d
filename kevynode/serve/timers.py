"""Timers as data: what should happen when, on the monotonic clock. One task of the node sleeps until the next one."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from typing import Final

__all__ = ["Timer", "Timers"]

# Fewer cancelled timers than this are not worth a look.
_CANCELLED: Final = 64


class Timer:
    """One thing to do at a time; :meth:`cancel` forgets it."""

    __slots__ = ("_timers", "action")

    def __init__(self, timers: Timers, action: Callable[[], None]) -> None:
        self._timers = timers
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """Do nothing when the time comes; also when it has come already."""
        if self.action is not None:
            self.action = None
            self._timers.forget_one()


class Timers:
    """A heap of timers. Times are seconds on the node's monotonic clock."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._numbers = count()
        # Timers in the heap that do nothing any more.
        self._cancelled = 0
        # Called when a timer becomes the first to fall due, so that a sleeper can sleep shorter.
        self.on_earlier: Callable[[], None] | None = None

    def at(self, when: float, action: Callable[[], None]) -> Timer:
        """Call ``action`` at ``when``."""
        timer = Timer(self, action)
        heapq.heappush(self._heap, (when, next(self._numbers), timer))
        if self._heap[0][2] is timer and self.on_earlier is not None:
            self.on_earlier()
        return timer

    def next(self) -> float | None:
        """When the first timer falls due, or None."""
        while self._heap and self._heap[0][2].action is None:
            heapq.heappop(self._heap)
            self._cancelled -= 1
        return self._heap[0][0] if self._heap else None

    def forget_one(self) -> None:
        """Count a timer that was cancelled. The heap drops such timers before they are more than the others.

        Somebody who waits for hours may be served at once, again and again.
        """
        self._cancelled += 1
        if self._cancelled > _CANCELLED and 2 * self._cancelled > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].action is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def __len__(self) -> int:
        """Timers held, those that were cancelled included."""
        return len(self._heap)

    def run(self, now: float) -> None:
        """Do everything that is due at ``now``, in order."""
        while self._heap and self._heap[0][0] <= now:
            timer = heapq.heappop(self._heap)[2]
            action, timer.action = timer.action, None
            if action is None:
                self._cancelled -= 1
            else:
                action()
