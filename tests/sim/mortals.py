"""Keys with deadlines: nobody shows one whose time is over by his own clock, and none goes before its time.

A deadline is a moment of the clock of whoever wrote the key when it was set. Others have other clocks, and all of them
jump: a key may go as soon as anybody's clock has been past its deadline, and is shown as long as the clock of who shows
it is not.
"""

from __future__ import annotations

from typing import Final

import attrs

__all__ = ["SLACK", "MortalKey", "Span"]

#: Seconds by which deadlines, which are milliseconds, and turns of a node may differ from what is noted here.
SLACK: Final = 0.005


@attrs.frozen
class Span:
    """A moment that is known to lie between two others."""

    low: float
    high: float

    def later(self, seconds: float) -> Span:
        """The span that is so many seconds later."""
        return Span(self.low + seconds, self.high + seconds)


@attrs.define
class MortalKey:
    """What one client, the only one who writes it, knows of a key: when its time is over, by the clocks of its writers.

    All moments are Unix seconds as some node's clock said them.
    """

    key: bytes
    value: bytes
    #: When it was first set, in seconds of the simulation.
    since: float
    #: What was acknowledged last, and before.
    deadline: Span
    before: list[Span] = attrs.Factory(list)

    def changed(self, deadline: Span) -> None:
        """Another deadline was acknowledged."""
        self.before.append(self.deadline)
        self.deadline = deadline

    def shown(self, clock: Span, by_writer: bool) -> str:
        """Why it may not have been shown by a node with this clock; empty if it may. A copy may be behind."""
        latest = self.deadline.high
        if not by_writer:
            latest = max([latest, *(span.high for span in self.before)])
        if clock.low > latest + SLACK:
            return f"{self.key!r} is shown at {clock.low:.3f}, and its time was over at {latest:.3f}"
        return ""

    def gone(self, latest: float) -> str:
        """Why its writer may not say that it is gone; empty if it may. ``latest``: no clock has been past that."""
        earliest = self.deadline.low
        if latest < earliest - SLACK:
            return f"{self.key!r} is gone, its time is over at {earliest:.3f}, and no clock has been past {latest:.3f}"
        return ""
