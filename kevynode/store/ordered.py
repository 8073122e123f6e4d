"""The order inside a sorted set: entries ``(score, member)`` that ascend, a plain list of them or one cut into blocks.

A list that ``bisect`` keeps in order is the smallest and fastest up to ``LIST_LIMIT`` entries. What is larger is cut
into blocks. The highest entry of each block stands in a list of its own, which is searched first. A copy shares every
block; each side marks the blocks that it alone holds, and copies another one before it writes to it, so that to copy a
million entries is to copy a list of some thousand blocks.

Places are found with a tree of sums over the blocks' sizes, ``_FAN`` to a node. It is made when a place is asked for,
follows what is added and removed, and is forgotten when blocks are cut, merged or dropped.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from itertools import chain
from typing import Final, TypeAlias, final, overload

__all__ = ["LIST_LIMIT", "ORDER_BLOCK_MEMORY", "ORDER_MEMORY", "Entry", "Order", "OrderedBlocks"]

Entry: TypeAlias = tuple[float, bytes]

#: Entries of a plain list, and of one block, at most.
LIST_LIMIT: Final = 2048
BLOCK_LIMIT: Final = 1024
# A block that falls below the first size is joined to a neighbour, if both together stay within the second.
SMALL_BLOCK: Final = BLOCK_LIMIT // 4
_JOINED_LIMIT: Final = BLOCK_LIMIT * 3 // 4
# Children of one node of the tree of sums: 1 << _SHIFT.
_SHIFT: Final = 4
_FAN: Final = 1 << _SHIFT
#: Bytes of a block without its entries: the list with its room to grow, the places of it and of its highest entry, and
#: its size in the tree.
ORDER_BLOCK_MEMORY: Final = 56 + 16 + 400 + 8 + 8 + 40
#: Bytes of ``OrderedBlocks`` without its blocks.
ORDER_MEMORY: Final = 400


@final
class OrderedBlocks:
    """Entries that ascend, each different from all others, in blocks that copies share. Not thread-safe."""

    __slots__ = ("blocks", "count", "levels", "maxima", "owned")

    def __init__(self, entries: list[Entry]) -> None:
        """Holds ``entries``, which must ascend."""
        self.count = len(entries)
        # No block is empty.
        self.blocks = [entries[start : start + BLOCK_LIMIT] for start in range(0, self.count, BLOCK_LIMIT)]
        self.maxima = [block[-1] for block in self.blocks]
        # A byte for each block: 1 if no copy shares it.
        self.owned = bytearray(b"\1") * len(self.blocks)
        # The tree of sums, sizes of blocks first; None while nobody has asked for a place.
        self.levels: list[list[int]] | None = None

    def copy(self) -> OrderedBlocks:
        """The same entries once more; neither side sees what the other one changes."""
        twin = OrderedBlocks.__new__(OrderedBlocks)
        twin.count = self.count
        twin.blocks = self.blocks.copy()
        twin.maxima = self.maxima.copy()
        twin.levels = None
        twin.owned = bytearray(len(self.blocks))
        self.owned = bytearray(len(self.blocks))
        return twin

    # -- reading ----------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Entry]:
        return chain.from_iterable(self.blocks)

    @overload
    def __getitem__(self, place: int) -> Entry: ...
    @overload
    def __getitem__(self, place: slice) -> list[Entry]: ...
    def __getitem__(self, place: int | slice) -> Entry | list[Entry]:
        """The entry at a place, or the entries of a slice without steps."""
        if isinstance(place, slice):
            start, stop, _ = place.indices(self.count)
            return self._between(start, stop) if start < stop else []
        if place < 0:
            place += self.count
        if not 0 <= place < self.count:
            raise IndexError("no entry at this place")
        number, offset = self._locate(place)
        return self.blocks[number][offset]

    def _between(self, start: int, stop: int) -> list[Entry]:
        number, offset = self._locate(start)
        wanted = stop - start
        found = self.blocks[number][offset : offset + wanted]
        while len(found) < wanted:
            number += 1
            found += self.blocks[number][: wanted - len(found)]
        return found

    def place(self, probe: tuple[float] | Entry) -> int:
        """How many entries are lower than ``probe``, an entry or a score alone, which is lower than its entries."""
        number = bisect_left(self.maxima, probe)
        if number == len(self.blocks):
            return self.count
        place = bisect_left(self.blocks[number], probe)
        if number:
            for level in self.levels or self._sum_up():
                place += sum(level[number & -_FAN : number])
                number >>= _SHIFT
        return place

    def _locate(self, place: int) -> tuple[int, int]:
        """The block that holds a place that exists, and the place inside that block."""
        blocks = self.blocks
        if place < len(blocks[0]):
            return 0, place
        last = self.count - len(blocks[-1])
        if place >= last:
            return len(blocks) - 1, place - last
        number = 0
        for level in reversed(self.levels or self._sum_up()):
            number <<= _SHIFT
            while place >= level[number]:
                place -= level[number]
                number += 1
        return number, place

    def _sum_up(self) -> list[list[int]]:
        """Make the tree of sums."""
        level = list(map(len, self.blocks))
        self.levels = [level]
        while len(level) > _FAN:
            level = [sum(level[start : start + _FAN]) for start in range(0, len(level), _FAN)]
            self.levels.append(level)
        return self.levels

    # -- changing ---------------------------------------------------------------------------------------------------

    def add(self, entry: Entry) -> None:
        """Put in an entry that is not there; entries that come in ascending order fill block after block."""
        maxima = self.maxima
        number = bisect_left(maxima, entry)
        self.count += 1
        if number < len(maxima):
            block = self.blocks[number] if self.owned[number] else self._own(number)
            insort(block, entry)
        else:
            number -= 1
            if number < 0 or len(self.blocks[number]) >= BLOCK_LIMIT:
                self._append_block(entry)
                return
            block = self.blocks[number] if self.owned[number] else self._own(number)
            block.append(entry)
            maxima[number] = entry
        if len(block) > BLOCK_LIMIT:
            half = len(block) >> 1
            self._replace(number, 1, [block[:half], block[half:]])
        elif self.levels is not None:
            for level in self.levels:
                level[number] += 1
                number >>= _SHIFT

    def remove(self, entry: Entry) -> None:
        """Take out an entry that is there."""
        number = bisect_left(self.maxima, entry)
        block = self.blocks[number] if self.owned[number] else self._own(number)
        self._take(number, block, bisect_left(block, entry))

    def pop(self, place: int = -1) -> Entry:
        """Take out the lowest entry (place 0) or the highest (-1); raises IndexError if there is none."""
        number = 0 if place == 0 else len(self.blocks) - 1
        block = self.blocks[number] if self.owned[number] else self._own(number)
        entry = block[place]
        self._take(number, block, 0 if place == 0 else len(block) - 1)
        return entry

    def take_between(self, start: int, stop: int) -> list[Entry]:
        """Take out the entries from place ``start`` up to, not including, ``stop``; they are returned in order."""
        if start >= stop:
            return []
        first, offset = self._locate(start)
        last, end = self._locate(stop - 1)
        taken = self._between(start, stop)
        left = self.blocks[first][:offset] + self.blocks[last][end + 1 :]
        self.count -= stop - start
        if len(left) > BLOCK_LIMIT:
            self._replace(first, last - first + 1, [left[:offset], left[offset:]])
        else:
            self._replace(first, last - first + 1, [left] if left else [])
            if len(left) < SMALL_BLOCK and first < len(self.blocks):
                self._join(first)
        return taken

    def _own(self, number: int) -> list[Entry]:
        """Copy a block that copies share; the copy, which takes its place."""
        block = self.blocks[number] = self.blocks[number].copy()
        self.owned[number] = 1
        return block

    def _append_block(self, entry: Entry) -> None:
        self.blocks.append([entry])
        self.maxima.append(entry)
        self.owned.append(1)
        self.levels = None

    def _take(self, number: int, block: list[Entry], offset: int) -> None:
        """Take one entry out of a block that no copy shares."""
        del block[offset]
        self.count -= 1
        if not block:
            self._replace(number, 1, [])
            return
        if offset == len(block):
            self.maxima[number] = block[-1]
        if len(block) < SMALL_BLOCK and self._join(number):
            return
        if self.levels is not None:
            for level in self.levels:
                level[number] -= 1
                number >>= _SHIFT

    def _join(self, number: int) -> bool:
        """Make one of a block and a neighbour, if they are small enough; True if they were."""
        blocks = self.blocks
        for lower in (number, number - 1):
            if 0 <= lower < len(blocks) - 1 and len(blocks[lower]) + len(blocks[lower + 1]) <= _JOINED_LIMIT:
                self._replace(lower, 2, [blocks[lower] + blocks[lower + 1]])
                return True
        return False

    def _replace(self, number: int, width: int, blocks: list[list[Entry]]) -> None:
        """Put new blocks, none of them empty, where ``width`` others stand from ``number`` on."""
        self.blocks[number : number + width] = blocks
        self.maxima[number : number + width] = [block[-1] for block in blocks]
        self.owned[number : number + width] = b"\1" * len(blocks)
        self.levels = None


Order: TypeAlias = list[Entry] | OrderedBlocks
