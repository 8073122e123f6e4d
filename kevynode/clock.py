"""Time, as it is injected into everything that needs it."""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """Two clocks: one that only goes forward, and one that says what time it is."""

    def monotonic(self) -> float:
        """Seconds since some moment; for durations."""
        ...

    def wall(self) -> float:
        """Seconds since 1970-01-01 UTC; for deadlines of keys and for people. It may jump."""
        ...


class SystemClock:
    """The machine's clocks."""

    def monotonic(self) -> float:
        """Seconds since some moment; for durations."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        return time.time()
