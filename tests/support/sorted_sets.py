"""Sorted sets that tests begin with, and what is in them."""

from __future__ import annotations

from support.store_harness import Harness

__all__ = ["entries", "fill"]


def fill(harness: Harness, key: str, size: int, step: float = 1.0) -> None:
    """Put ``m<number>`` into a sorted set with score ``number * step``, for each number below ``size``."""
    for start in range(0, size, 1000):
        numbers = range(start, min(size, start + 1000))
        harness.call("ZADD", key, *(word for number in numbers for word in (number * step, f"m{number}")))


def entries(harness: Harness, key: str) -> list[tuple[bytes, float]]:
    """All members with their scores, in order."""
    return list(harness.call("ZRANGE", key, 0, -1, "WITHSCORES"))
