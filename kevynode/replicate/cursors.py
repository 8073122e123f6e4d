"""Places in the backlog: where a link reads on, and which offsets nobody can read from."""

from __future__ import annotations

__all__ = ["BacklogError", "Cursor", "Future", "NotABoundary", "TooOld"]


class BacklogError(Exception):
    """An offset from which the backlog cannot be read; it holds ``first`` to ``next`` - 1."""

    def __init__(self, offset: int, first: int, next: int) -> None:
        super().__init__(offset, first, next)
        self.offset = offset
        self.first = first
        self.next = next

    def __str__(self) -> str:
        return f"offset {self.offset} is {self._is} {self.first} to {self.next}"

    _is = "not in"


class TooOld(BacklogError):
    """The entry at this offset is not held any more."""

    _is = "older than what is held:"


class Future(BacklogError):
    """There is no entry at this offset yet, nor is it the next one."""

    _is = "ahead of what is held:"


class NotABoundary(BacklogError):
    """The offset lies within a group, which goes to replicas whole: the one from ``first`` to ``next`` - 1."""

    _is = "inside the group"


class Cursor:
    """How far one link has read. ``offset`` is the next entry to send.

    ``at_flush``: a reader who knows no FLUSHALL stands before one, and gets nothing until the flush is skipped.
    """

    __slots__ = ("at_flush", "block", "offset", "place")

    def __init__(self, offset: int, block: int, place: int) -> None:
        self.offset = offset
        self.at_flush = False
        # For the backlog alone: the number of the block that it stands in, and the byte at which reading goes on.
        self.block = block
        self.place = place
