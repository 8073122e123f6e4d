"""A line on a terminal that says how far something has come."""

from __future__ import annotations

from shutil import get_terminal_size
from typing import Final, TextIO

__all__ = ["ProgressBar"]

#: Columns of the bar itself.
_WIDTH: Final = 30


class ProgressBar:
    """One line on ``stream`` that is written over again and again; on anything but a terminal, nothing at all."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown = 0
        #: Whether somebody can see it.
        self.is_wanted = stream.isatty()

    def show(self, title: str, done: int, total: int, rest: str = "") -> None:
        """Say that ``done`` of ``total`` are done, and whatever else there is to say."""
        if not self.is_wanted:
            return
        share = min(1.0, done / total) if total > 0 else 1.0
        full = round(share * _WIDTH)
        line = f"{title} [{'#' * full}{'.' * (_WIDTH - full)}] {share:4.0%} {rest}".rstrip()
        self.write(line)

    def write(self, line: str) -> None:
        """Put ``line`` in place of what is there; what does not fit into one line of the terminal is left out."""
        # A line that the terminal has broken would stay.
        line = line[: max(1, get_terminal_size().columns - 1)]
        self._stream.write("\r" + line.ljust(self._shown))
        self._stream.flush()
        self._shown = len(line)

    def clear(self) -> None:
        """Leave an empty line."""
        if self._shown:
            self._stream.write("\r" + " " * self._shown + "\r")
            self._stream.flush()
            self._shown = 0
