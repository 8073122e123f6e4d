"""Marks in the journal: entries that change no data, and say from where on another node writes a prefix.

A mark looks like a deletion of a key that does not exist, so that whoever does not know marks (a kevy server, a Valkey
server that loads the append-only file) does nothing and counts one entry. It is told from a deletion by its command,
which stands in lower case: the deletions of the journal never do.

>>> mark = Release(b"app:", 3, "b")
>>> parse_mark(mark.command()) == mark
True
>>> parse_mark([b"DEL", mark.command()[1]]) is None
True
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

__all__ = ["MARK_COMMAND", "MARK_KEY", "Acquire", "Mark", "Release", "parse_mark"]

#: What a mark's command is, and how its key begins.
MARK_COMMAND: Final = b"del"
MARK_KEY: Final = b"\0kevynode:"

_LIMIT: Final = 2**63


class Release(NamedTuple):
    """From here on this node writes nothing more under ``prefix``: since ``epoch`` the node ``owner`` does."""

    prefix: bytes
    epoch: int
    owner: str

    def command(self) -> tuple[bytes, bytes]:
        """The entry."""
        return MARK_COMMAND, b"%brelease %d %b %b" % (MARK_KEY, self.epoch, self.owner.encode(), self.prefix)


class Acquire(NamedTuple):
    """From here on this node writes under ``prefix``, since ``epoch``.

    It has all that its last writer wrote there: everything before the offset ``tail`` of ``history``.
    """

    prefix: bytes
    epoch: int
    history: int
    tail: int

    def command(self) -> tuple[bytes, bytes]:
        """The entry."""
        return MARK_COMMAND, b"%bacquire %d %d@%d %b" % (MARK_KEY, self.epoch, self.history, self.tail, self.prefix)


Mark: TypeAlias = Release | Acquire


def parse_mark(command: Sequence[bytes]) -> Mark | None:
    """The mark that an entry is; None: it is none, or one that is not known here and means nothing."""
    if command[0] != MARK_COMMAND or len(command) != 2 or not command[1].startswith(MARK_KEY):
        return None
    words = command[1][len(MARK_KEY) :].split(b" ", 3)
    try:
        kind, epoch, what, prefix = words
        if kind == b"release":
            return Release(prefix, _number(epoch), what.decode("utf-8"))
        if kind == b"acquire":
            history, at, tail = what.partition(b"@")
            return Acquire(prefix, _number(epoch), _number(history), _number(tail)) if at else None
    except ValueError:
        pass
    return None


def _number(digits: bytes) -> int:
    if not digits.isdigit() or len(digits) > 19 or int(digits) >= _LIMIT:
        raise ValueError(digits)
    return int(digits)
