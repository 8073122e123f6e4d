"""A stretch of the stream as it is held for replicas: frames, with a ``+TXN`` line before each group of several.

A block knows where in it groups and changes of origin are, so that most readers need not look at its frames. Whoever
must (a cursor that is set in its midst, a filter) walks them; they are trusted to be well-formed.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from sys import getsizeof
from typing import Final

from ..resp import split_inline

__all__ = ["BLOCK_SIZE", "FLUSHES", "SMALL_BLOCK_SIZE", "Block", "frame_end", "read_frame"]

#: Bytes that a block takes in before the next one is begun. Only a part that is larger makes a larger block. So much
#: is taken from the system at once and given back at once, where smaller pieces would leave the heap full of holes.
BLOCK_SIZE: Final = 256 * 1024
#: The same where little may be held.
SMALL_BLOCK_SIZE: Final = 64 * 1024
#: How many parts the newest block has at most before they are joined.
_PART_LIMIT: Final = 256
_BYTES_OVERHEAD: Final = getsizeof(b"")
# The numbers of a block: its place among the blocks, and its bounds.
_NUMBERS: Final = 4 * getsizeof(2**40)
_STAR: Final = 0x2A
_PLUS: Final = 0x2B
#: Commands that change every key, and so have none of their own.
FLUSHES: Final = frozenset({b"FLUSHALL", b"FLUSHDB"})


class Block:
    """Entries from ``first`` to ``next`` - 1, as ``size`` bytes.

    It is read in parts: ``ends`` says at which byte of the block each part ends, ``nexts`` at which offset. While the
    block grows they are what came; many small ones are joined. A closed block holds all of them in one piece.
    """

    __slots__ = (
        "_last_own",
        "_parts",
        "_payload",
        "_whole",
        "ends",
        "first",
        "flush_offsets",
        "flush_places",
        "groups",
        "next",
        "nexts",
        "own",
        "size",
        "turn_offsets",
        "turn_places",
    )

    def __init__(self, first: int, own: bool) -> None:
        self.first = self.next = first
        self._parts: list[bytes] = []
        # All parts in one piece, once the block is closed.
        self._whole: bytes | None = None
        self.ends = array("Q")
        self.nexts = array("Q")
        self.size = 0
        self._payload = 0
        # Whether the first entry was made here, and where (offset, byte) entries of the other origin begin, in turn.
        self.own = self._last_own = own
        self.turn_offsets = array("Q")
        self.turn_places = array("Q")
        # At which bytes +TXN lines begin.
        self.groups = array("Q")
        # Where (offset, byte) the frames of entries that empty everything begin.
        self.flush_offsets = array("Q")
        self.flush_places = array("Q")

    def append(self, data: bytes, next_offset: int, own: bool, grouped: bool, may_flush: bool) -> None:
        """Add the entries up to ``next_offset``, all of one origin, as one part.

        ``grouped``: they are one group, whose line is at the start of ``data``. ``may_flush``: one of them may be a
        FLUSHALL.
        """
        if own is not self._last_own:
            self._last_own = own
            self.turn_offsets.append(self.next)
            self.turn_places.append(self.size)
        if grouped:
            self.groups.append(self.size)
        if may_flush:
            self._mark_flushes(data)
        self._parts.append(data)
        self.next = next_offset
        self.size += len(data)
        self._payload += len(data) + _BYTES_OVERHEAD
        self.ends.append(self.size)
        self.nexts.append(next_offset)
        if len(self._parts) > _PART_LIMIT:
            old = self._parts
            bounds = self._larger_parts()
            self._parts = [b"".join(old[start:stop]) for start, stop in bounds]
            self._payload = self.size + len(self._parts) * _BYTES_OVERHEAD

    def close(self) -> None:
        """Take nothing more in, and hold everything in one piece. Cursors stay valid: they count bytes of the block."""
        if len(self._parts) > 1:
            self._whole = b"".join(self._parts)
            self._larger_parts()
            self._parts = []
            self._payload = self.size + _BYTES_OVERHEAD

    def _larger_parts(self) -> list[tuple[int, int]]:
        """Have ends and nexts tell of parts of at most SMALL_BLOCK_SIZE; which of the smaller ones make up each."""
        bounds: list[tuple[int, int]] = []
        ends, nexts = array("Q"), array("Q")
        start = place = 0
        last = len(self.ends) - 1
        for index, end in enumerate(self.ends):
            if index == last or self.ends[index + 1] - place > SMALL_BLOCK_SIZE:
                bounds.append((start, index + 1))
                ends.append(end)
                nexts.append(self.nexts[index])
                start, place = index + 1, end
        self.ends, self.nexts = ends, nexts
        return bounds

    def part(self, index: int) -> bytes:
        """One part; while the block grows that is the object that came, which all links then share."""
        if self._whole is None:
            return self._parts[index]
        return self._whole[self.ends[index - 1] if index else 0 : self.ends[index]]

    def _mark_flushes(self, data: bytes) -> None:
        """Note where in the part that is about to be added everything is emptied."""
        offset = self.next
        place = 0
        while place < len(data):
            if data[place] == _PLUS:
                place = data.index(b"\n", place) + 1
            end, words = read_frame(data, place)
            if words[0].upper() in FLUSHES:
                self.flush_offsets.append(offset)
                self.flush_places.append(self.size + place)
            offset += 1
            place = end

    @property
    def memory(self) -> int:
        """Bytes of memory held by this block, its data and everything beside it."""
        return (
            getsizeof(self)
            + _NUMBERS
            + self._payload
            + getsizeof(self._parts)
            + getsizeof(self.ends)
            + getsizeof(self.nexts)
            + getsizeof(self.turn_offsets)
            + getsizeof(self.turn_places)
            + getsizeof(self.groups)
            + getsizeof(self.flush_offsets)
            + getsizeof(self.flush_places)
        )

    def part_at(self, place: int) -> tuple[bytes, int]:
        """The part that holds the byte at ``place``, and the byte at which it begins."""
        part = bisect_right(self.ends, place)
        return self.part(part), self.ends[part - 1] if part else 0

    def place_of(self, offset: int) -> tuple[int, int, int]:
        """The byte at which what begins with the entry ``offset`` of this block begins, and the bounds of its group.

        The bounds are ``offset`` twice where a group or a lone entry begins, otherwise those of the group it is in.
        """
        part = bisect_right(self.nexts, offset)
        data = self.part(part)
        start = self.ends[part - 1] if part else 0
        at = self.nexts[part - 1] if part else self.first
        place = 0
        while at < offset:
            if data[place] == _PLUS:
                line_end = data.index(b"\r\n", place)
                count = int(data[place + 5 : line_end])
                if at + count > offset:
                    return start + place, at, at + count
                place = line_end + 2
            else:
                count = 1
            for _ in range(count):
                place = frame_end(data, place)
            at += count
        return start + place, offset, offset

    def without_groups(self, part: int, start: int, stop: int) -> bytes:
        """The frames between two bytes of a part, without the lines that announce groups."""
        data = self.part(part)
        base = self.ends[part] - len(data)
        groups = self.groups
        index = bisect_left(groups, start)
        pieces = []
        while index < len(groups) and groups[index] < stop:
            pieces.append(data[start - base : groups[index] - base])
            start = base + data.index(b"\n", groups[index] - base) + 1
            index += 1
        rest = data[start - base : stop - base]
        if not pieces:
            return rest
        pieces.append(rest)
        return b"".join(pieces)


def frame_end(data: bytes, place: int) -> int:
    """Where the frame that begins at ``place`` ends."""
    find = data.index
    place = find(b"\n", find(b"\n", place) + 1) + 1
    if data[place] != _STAR:
        # An inline command, as a foreign primary may have sent it.
        return find(b"\n", place) + 1
    end = find(b"\r\n", place)
    count = int(data[place + 1 : end])
    place = end + 2
    for _ in range(count):
        end = find(b"\r\n", place)
        place = end + 4 + int(data[place + 1 : end])
    return place


def read_frame(data: bytes, place: int) -> tuple[int, list[bytes]]:
    """Where the frame that begins at ``place`` ends, and at most the first three words of its command."""
    find = data.index
    place = find(b"\n", find(b"\n", place) + 1) + 1
    if data[place] != _STAR:
        end = find(b"\n", place)
        return end + 1, (split_inline(data[place:end].rstrip(b"\r")) or [b""])[:3]
    end = find(b"\r\n", place)
    count = int(data[place + 1 : end])
    place = end + 2
    words = []
    for index in range(count):
        end = find(b"\r\n", place)
        stop = end + 2 + int(data[place + 1 : end])
        if index < 3:
            words.append(data[end + 2 : stop])
        place = stop + 2
    return place, words
