"""What the commands of the command line print with: lines, errors, and how far something long has come."""

from __future__ import annotations

import sys
import time
from typing import Final, Self

from kevynode.probe import PASSWORD
from kevynode.progress import ProgressBar
from kevynode.serve.info import human_size

__all__ = ["INTERRUPTED", "Progress", "counted", "fail", "note", "reason_of", "say", "shown"]

#: The exit status of a command that was ended with Ctrl-C, as shells have it.
INTERRUPTED: Final = 130

#: Seconds between two pictures of a bar.
_INTERVAL: Final = 0.1
#: Bytes of a key that are shown.
_TEXT_LIMIT: Final = 200


def say(line: str) -> None:
    """Print a line on standard output."""
    sys.stdout.write(line + "\n")


def note(line: str) -> None:
    """Print a line for people on standard error."""
    sys.stderr.write(line + "\n")


def fail(problem: object) -> int:
    """Print one line about ``problem`` on standard error and return the exit status of a failure."""
    text = " ".join(str(problem).splitlines())
    if text.startswith("NOAUTH "):
        text += f" {PASSWORD} in the environment is where it is taken from."
    note("kevynode: " + text)
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


class Progress(ProgressBar):
    """How far a command has come, on standard error if that is a terminal. A context manager: gone at exit."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self._next = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def bytes(self, title: str, done: int, total: int) -> None:
        """``done`` of ``total`` bytes."""
        if self._is_due():
            self.show(title, done, total, f"{human_size(done)} of {human_size(total)}")

    def keys(self, title: str, done: int, total: int) -> None:
        """``done`` of ``total`` keys."""
        if self._is_due():
            self.show(title, done, total, f"{done:,} of {counted(total, 'key')}")

    def told(self, line: str) -> None:
        """Something of which nobody knows how much there is."""
        if self._is_due():
            self.write(line)

    def _is_due(self) -> bool:
        now = time.monotonic()
        if not self.is_wanted or now < self._next:
            return False
        self._next = now + _INTERVAL
        return True
