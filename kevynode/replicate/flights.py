"""What has been sent to a replica and not been acknowledged: how much, and since when the oldest is on its way."""

from __future__ import annotations

from collections import deque
from typing import Final

__all__ = ["Flights"]

# Moments remembered; when there are more, half of them are enough.
_LIMIT: Final = 1024


class Flights:
    """Sends of one stream in order, each until the replica has acknowledged it. Moments are monotonic seconds."""

    def __init__(self) -> None:
        # For each: the next offset behind it, bytes of the stream up to there, and when it was sent.
        self._flights: deque[tuple[int, int, float]] = deque()
        self._sent = 0
        self._acknowledged = 0

    def __len__(self) -> int:
        """Sends that are told apart."""
        return len(self._flights)

    def take_off(self, offset: int, size: int, now: float) -> None:
        """``size`` bytes of entries have been sent, up to ``offset``."""
        flights = self._flights
        self._sent += size
        if flights and flights[-1][0] == offset:
            flights[-1] = (offset, self._sent, flights[-1][2])
            return
        if len(flights) >= _LIMIT:
            # The oldest stays, because it tells how old everything is.
            self._flights = flights = deque(flight for place, flight in enumerate(flights) if not place % 2)
        flights.append((offset, self._sent, now))

    def land(self, offset: int) -> None:
        """The replica has applied everything before ``offset``."""
        flights = self._flights
        while flights and flights[0][0] <= offset:
            self._acknowledged = flights.popleft()[1]

    @property
    def size(self) -> int:
        """Bytes on their way, about."""
        return self._sent - self._acknowledged if self._flights else 0

    @property
    def oldest(self) -> float | None:
        """When the oldest send that is on its way began; None if there is none."""
        return self._flights[0][2] if self._flights else None
