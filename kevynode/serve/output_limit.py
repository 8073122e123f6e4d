"""How much a client may leave unread before it is closed: one class of ``client-output-buffer-limit``."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["OutputLimit"]


class OutputLimit(NamedTuple):
    """``hard`` bytes are too many at once, ``soft`` bytes when it has been so for longer than ``seconds``; 0: no limit.

    As in Valkey, who falls below ``soft`` in between begins anew, and whole seconds of the clock are counted: even with
    0 seconds a client has a moment to read what came all at once.
    """

    hard: int = 0
    soft: int = 0
    seconds: int = 0

    def is_passed(self, held: int, since: float | None, now: float) -> bool:
        """Whether a client that holds ``held`` bytes is closed: above the soft limit ``since`` then, None: not yet.

        Times are seconds of one clock, which does not jump.
        """
        if self.hard and held >= self.hard:
            return True
        return self.is_soft(held) and since is not None and int(now) - int(since) > self.seconds

    def is_soft(self, held: int) -> bool:
        """Whether so many bytes may not last."""
        return 0 < self.soft <= held
