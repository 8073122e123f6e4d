"""A snapshot on its way, and when one may be sent: always, unless the backlog has just proved too small for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

__all__ = ["Ship", "ShipGate"]

#: Seconds to wait after a ship that failed for want of backlog, doubled with each one that follows, up to the last.
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0


class Ship:
    """A snapshot on its way: of everything the link follows, or (``prefix``) of one scope."""

    __slots__ = ("header", "offset", "pieces", "prefix", "size")

    def __init__(self, pieces: Iterator[bytes], offset: int, prefix: bytes | None, header: bytes) -> None:
        self.pieces = pieces
        self.offset = offset
        self.prefix = prefix
        self.header = header
        self.size = 0


class ShipGate:
    """Counts running ships. After an overrun only one runs at a time, and not before a pause; a success forgets it.

    Without that a node that is written to faster than a replica can load would ship for ever, each time in vain.
    """

    def __init__(self) -> None:
        self.running = 0
        self.overruns = 0
        self._not_before = 0.0

    def may_start(self, now: float) -> bool:
        """Whether a ship may start at ``now`` (monotonic seconds)."""
        return not self.overruns or (not self.running and now >= self._not_before)

    def started(self) -> None:
        """A ship has started; it ends with :meth:`finished` or :meth:`broken_off`."""
        self.running += 1

    def finished(self) -> None:
        """A ship is complete; whether the backlog was large enough shows when its link has caught up."""
        self.running -= 1

    def caught_up(self) -> None:
        """What was written during a ship has gone out, too: the backlog is large enough."""
        self.overruns = 0

    def broken_off(self) -> None:
        """A ship ended because its connection did."""
        self.running -= 1

    def overrun(self, now: float) -> None:
        """What was written during a ship was more than the backlog may hold."""
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**self.overruns)
        self.overruns = min(self.overruns + 1, 16)
        self._not_before = now + pause
