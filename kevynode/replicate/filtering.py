"""Picks from a stretch of the stream what concerns the reader of a filtered link."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..store.marks import MARK_COMMAND, Release, parse_mark
from . import wire
from .block import FLUSHES, read_frame

__all__ = ["Filter"]

_PLUS: Final = 0x2B


class Filter:
    """Picks entries for one filtered link: ``out`` gets the bytes, ``expected`` is the offset its peer waits for.

    ``accept`` is asked with the key of each entry. Entries without one, and marks, concern everybody. What is written
    under a prefix behind the mark that releases it is none of the link's, up to the one that acquires it again;
    ``released`` is the list of such prefixes, which is kept up to date. Where frames are left out, a ``+SKIP`` line
    stands before the next one.
    """

    __slots__ = ("_accept", "_released", "expected", "out")

    def __init__(self, accept: Callable[[bytes], bool], expected: int, released: list[bytes] | None = None) -> None:
        self._accept = accept
        self._released = [] if released is None else released
        self.expected = expected
        self.out: list[bytes] = []

    def take(self, data: bytes, place: int, stop: int, offset: int) -> None:
        """Pick from whole groups and lone entries: the bytes from ``place`` to ``stop``, of which ``offset`` is first.

        What is picked in one piece goes out in one piece.
        """
        out = self.out
        # Accepted frames that follow each other and have not been put out: from here on; -1: there are none.
        run = -1
        while place < stop:
            if data[place] == _PLUS:
                if run >= 0:
                    out.append(data[run:place])
                    run = -1
                place, offset = self._take_group(data, place, offset)
                continue
            end, words = read_frame(data, place)
            if self._wants(words):
                if run < 0:
                    self._skip_to(offset)
                    run = place
                self.expected = offset + 1
            elif run >= 0:
                out.append(data[run:place])
                run = -1
            offset += 1
            place = end
        if run >= 0:
            out.append(data[run:stop])

    def _take_group(self, data: bytes, place: int, offset: int) -> tuple[int, int]:
        """Pick from the group that begins at ``place``; where it ends, and the offset behind it."""
        line_end = data.index(b"\r\n", place)
        count = int(data[place + 5 : line_end])
        whole = place
        place = line_end + 2
        picked: list[tuple[int, int, int]] = []
        for at in range(offset, offset + count):
            end, words = read_frame(data, place)
            if self._wants(words):
                picked.append((at, place, end))
            place = end
        if picked:
            out = self.out
            self._skip_to(picked[0][0])
            if len(picked) == count:
                out.append(data[whole:place])
                self.expected = offset + count
            else:
                if len(picked) > 1:
                    out.append(wire.group(len(picked)))
                for at, start, end in picked:
                    self._skip_to(at)
                    out.append(data[start:end])
                    self.expected = at + 1
                # No position within a group is ever acknowledged.
                self._skip_to(offset + count)
        return place, offset + count

    def _wants(self, words: list[bytes]) -> bool:
        if words[0] == MARK_COMMAND and self._passes_mark(words):
            return True
        name = words[0].upper()
        if len(words) < 2 or name in FLUSHES:
            return True
        key = words[2] if name == b"XGROUP" and len(words) > 2 else words[1]
        return self._accept(key) and not (self._released and key.startswith(tuple(self._released)))

    def _passes_mark(self, words: list[bytes]) -> bool:
        """Whether an entry is a mark, which then counts for those behind it."""
        mark = parse_mark(words)
        if mark is not None and mark.prefix in self._released:
            self._released.remove(mark.prefix)
        if isinstance(mark, Release):
            self._released.append(mark.prefix)
        return mark is not None

    def _skip_to(self, offset: int) -> None:
        if self.expected != offset:
            self.out.append(wire.skip(offset))
            self.expected = offset
