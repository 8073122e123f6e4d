"""What went wrong, in one line of bounded length for the log."""

from __future__ import annotations

import traceback
from typing import Final

__all__ = ["traceback_line"]

_FRAMES: Final = 12


def traceback_line(error: BaseException) -> str:
    """The frames that ``error`` passed through, the innermost first, because a long log value loses its end.

    >>> try:
    ...     int("x")
    ... except ValueError as error:
    ...     traceback_line(error).partition(" ")[0]
    '<module>'
    """
    frames = traceback.extract_tb(error.__traceback__)
    return " < ".join(f"{frame.name} ({frame.filename}:{frame.lineno})" for frame in reversed(frames[-_FRAMES:]))
