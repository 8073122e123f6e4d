"""What the commands of the command line print with: lines, errors, and how far something long has come."""

from __future__ import annotations

import shutil
import sys
import time
from typing import Final

from kevynode.serve.info import human_size

__all__ = ["INTERRUPTED", "Progress", "counted", "fail", "note", "reason_of", "say", "shown"]

#: The exit status of a command that was ended with Ctrl-C, as shells have it.
INTERRUPTED: Final = 130

#: Seconds between two pictures of a bar; its width, and that of all beside it.
_INTERVAL: Final = 0.1
_BAR: Final = 30
_TEXT_LIMIT: Final = 200


def say(line: str) -> None:
    """Print a line on standard output."""
    sys.stdout.write(line + "\n")


def note(line: str) -> None:
    """Print a line for people on standard error."""
    sys.stderr.write(line + "\n")


def fail(problem: object) -> int:
    """Print one line about ``problem`` on standard error and return the exit status of a failure."""
    note("kevynode: " + " ".join(str(problem).splitlines()))
    return 1


def reason_of(error: OSError) -> str:
    """What went wrong, with the file's name if there is one."""
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if isinstance(error.filename, str) else reason


def shown(word: bytes) -> str:
    """A key or another word of a command as part of a message: in quotes, escaped, and cut if it is long."""
    return repr(word[:_TEXT_LIMIT])[1:]


def counted(number: int, one: str, many: str = "") -> str:
    """``1 key``, ``1,234 keys``.

    >>> counted(1234, "key")
    '1,234 keys'
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


class Progress:
    """A bar on standard error while something long runs, if that is a terminal. A context manager: gone at exit."""

    def __init__(self) -> None:
        self._is_shown = sys.stderr.isatty()
        self._next = 0.0
        self._drawn = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def bytes(self, what: str, done: int, whole: int = 0) -> None:
        """``done`` bytes of ``whole`` (0: nobody knows)."""
        if self._is_due():
            self._draw(what, done, whole, human_size(done), human_size(whole))

    def keys(self, what: str, done: int, whole: int = 0) -> None:
        """``done`` keys of ``whole`` (0: nobody knows)."""
        if self._is_due():
            self._draw(what, done, whole, f"{done:,}", counted(whole, "key"))

    def clear(self) -> None:
        """Remove the bar; what is printed next stands in its place."""
        if self._drawn:
            self._drawn = False
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
        self._next = 0.0

    def _is_due(self) -> bool:
        if not self._is_shown:
            return False
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + _INTERVAL
        return True

    def _draw(self, what: str, done: int, whole: int, done_text: str, whole_text: str) -> None:
        if whole:
            filled = min(done * _BAR // whole, _BAR)
            bar = "#" * filled + "-" * (_BAR - filled)
            line = f"{what} [{bar}] {min(done * 100 // whole, 100)}%  {done_text} of {whole_text}"
        else:
            line = f"{what} {done_text}"
        width = shutil.get_terminal_size().columns - 1
        sys.stderr.write(f"\r{line[:width]}\x1b[K")
        sys.stderr.flush()
        self._drawn = True
