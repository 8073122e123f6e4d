"""How long to wait before the next attempt to connect."""

from __future__ import annotations

from typing import Final, Protocol

__all__ = ["FIRST_SECONDS", "LAST_SECONDS", "Backoff", "UniformSource"]

#: The longest first wait, and the longest of all, in seconds.
FIRST_SECONDS: Final = 0.1
LAST_SECONDS: Final = 5.0


class UniformSource(Protocol):
    """Where chance comes from."""

    def uniform(self, a: float, b: float, /) -> float: ...


class Backoff:
    """Waits that double from attempt to attempt. Each is drawn between half of itself and all of it, so that those who
    lost the same peer at the same moment do not all come back at once."""

    __slots__ = ("_longest", "_random")

    def __init__(self, random: UniformSource) -> None:
        self._random = random
        self._longest = FIRST_SECONDS

    def next(self) -> float:
        """Seconds to wait now."""
        longest = self._longest
        self._longest = min(LAST_SECONDS, longest * 2)
        return self._random.uniform(longest / 2, longest)

    def reset(self) -> None:
        """It worked: start with short waits again."""
        self._longest = FIRST_SECONDS
