"""The elements inside a large list: cut into blocks that copies share, between two deques at the ends.

Elements come and go at the ends, which are deques of at most ``END_LIMIT`` elements and belong to one list alone. One
that is full becomes two blocks, and where one is empty a block comes back, so that either happens once in many
elements. A copy shares every block; each side marks the blocks that it alone holds, and copies another one before it
writes to it.

Each block has a position, which is only compared with those of other blocks: blocks that come or go at the left leave
the positions of all others alone, so that an index is found with one search at any time.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain, islice
from typing import Final, TypeAlias, final

__all__ = ["ELEMENTS_BLOCK_MEMORY", "ELEMENTS_MEMORY", "END_LIMIT", "ElementBlocks", "Elements", "without"]

#: Elements of an end, and of a block, at most.
END_LIMIT: Final = 1024
# Blocks that hold fewer elements on average are made anew when elements are removed.
_SPARSE: Final = END_LIMIT // 8
# A deque skips 64 elements at a time from the nearer end to an index. To walk there costs as much for so many elements.
_JUMP: Final = 8
#: Bytes of a block without its elements: the list, its place, and its position.
ELEMENTS_BLOCK_MEMORY: Final = 56 + 16 + 8 + 8 + 32
#: Bytes of ``ElementBlocks`` without its blocks.
ELEMENTS_MEMORY: Final = 1500


@final
class ElementBlocks:
    """Elements from left to right, as many as one likes. Not thread-safe."""

    __slots__ = ("blocks", "head", "middle", "owned", "starts", "tail")

    def __init__(self, elements: Sequence[bytes] = ()) -> None:
        self.head: deque[bytes] = deque()
        self.tail: deque[bytes] = deque()
        # No block is empty.
        self.blocks: list[list[bytes]] = []
        # The position of each block: that of the one before it, and its size.
        self.starts: list[int] = []
        # How many elements the blocks hold.
        self.middle = 0
        # A byte for each block: 1 if no copy shares it.
        self.owned = bytearray()
        self.extend(elements)

    def copy(self) -> ElementBlocks:
        """The same elements once more; neither side sees what the other one changes."""
        twin = ElementBlocks.__new__(ElementBlocks)
        twin.head, twin.tail = self.head.copy(), self.tail.copy()
        twin.blocks = self.blocks.copy()
        twin.starts = self.starts.copy()
        twin.middle = self.middle
        twin.owned = bytearray(len(self.blocks))
        self.owned = bytearray(len(self.blocks))
        return twin

    # -- reading ----------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.head) + self.middle + len(self.tail)

    def _parts(self) -> Iterator[Sequence[bytes]]:
        return chain((self.head,), self.blocks, (self.tail,))

    def __iter__(self) -> Iterator[bytes]:
        return chain.from_iterable(self._parts())

    def __reversed__(self) -> Iterator[bytes]:
        return chain(
            reversed(self.tail), chain.from_iterable(map(reversed, reversed(self.blocks))), reversed(self.head)
        )

    def __contains__(self, element: bytes) -> bool:
        if element in self.head or element in self.tail:
            return True
        return any(element in block for block in self.blocks)

    def index(self, element: bytes) -> int:
        """Where an element stands first; raises ValueError if it is nowhere."""
        if element in self.head:
            return self.head.index(element)
        place = len(self.head)
        for block in self.blocks:
            if element in block:
                return place + block.index(element)
            place += len(block)
        return place + self.tail.index(element)

    def __getitem__(self, index: int) -> bytes:
        """The element at an index, which may be negative; raises IndexError outside the list."""
        head, tail = self.head, self.tail
        if index < 0:
            index += len(head) + self.middle + len(tail)
            if index < 0:
                raise IndexError("no element at this index")
        if index < len(head):
            return head[index]
        index -= len(head)
        if index >= self.middle:
            return tail[index - self.middle]
        number, offset = self._locate(index)
        return self.blocks[number][offset]

    def _locate(self, index: int) -> tuple[int, int]:
        """The block that holds the element ``index`` places behind the first one of all blocks, and the index in it."""
        position = self.starts[0] + index
        number = bisect_right(self.starts, position) - 1
        return number, position - self.starts[number]

    def between(self, start: int, stop: int) -> list[bytes]:
        """The elements from ``start`` up to, not including, ``stop``; 0 <= start <= stop <= len."""
        part = self.head
        left = len(part)
        if stop > left:
            right = left + self.middle
            if start < right:
                return self._across(start, stop, left, right)
            part = self.tail
            start -= right
            stop -= right
        behind = len(part) - stop
        from_head = start <= behind
        if (start if from_head else behind) > _JUMP * (stop - start):
            return [part[index] for index in range(start, stop)]
        if from_head:
            return list(islice(part, start, stop))
        found = list(islice(reversed(part), behind, len(part) - start))
        found.reverse()
        return found

    def _across(self, start: int, stop: int, left: int, right: int) -> list[bytes]:
        """As ``between`` where blocks take part; they hold the elements from ``left`` up to ``right``."""
        found = list(islice(self.head, start, left)) if start < left else []
        wanted = min(right, stop) - start
        if len(found) < wanted:
            number, offset = self._locate(start + len(found) - left)
            found += self.blocks[number][offset : offset + wanted - len(found)]
            while len(found) < wanted:
                number += 1
                found += self.blocks[number][: wanted - len(found)]
        if stop > right:
            found += islice(self.tail, stop - right)
        return found

    # -- the ends: who adds to ``head`` or ``tail`` stores what is more than END_LIMIT, who takes fetches before ----

    def extend(self, elements: Sequence[bytes]) -> None:
        """Put elements behind the tail, in their order."""
        if len(elements) + len(self.tail) <= END_LIMIT:
            self.tail.extend(elements)
            return
        for start in range(0, len(elements), END_LIMIT):
            self.tail.extend(elements[start : start + END_LIMIT])
            if len(self.tail) > END_LIMIT:
                self.store_tail()

    def extend_left(self, elements: Sequence[bytes]) -> None:
        """Put elements before the head one after the other."""
        if len(elements) + len(self.head) <= END_LIMIT:
            self.head.extendleft(elements)
            return
        for start in range(0, len(elements), END_LIMIT):
            self.head.extendleft(elements[start : start + END_LIMIT])
            if len(self.head) > END_LIMIT:
                self.store_head()

    def take_left(self, count: int) -> list[bytes]:
        """Take at most ``count`` elements off the head, in the order they are taken."""
        taken: list[bytes] = []
        while len(taken) < count and (self.head or self.fetch_head()):
            pop = self.head.popleft
            taken += [pop() for _ in range(min(count - len(taken), len(self.head)))]
        return taken

    def take_right(self, count: int) -> list[bytes]:
        """Take at most ``count`` elements off the tail, in the order they are taken."""
        taken: list[bytes] = []
        while len(taken) < count and (self.tail or self.fetch_tail()):
            pop = self.tail.pop
            taken += [pop() for _ in range(min(count - len(taken), len(self.tail)))]
        return taken

    def store_tail(self) -> None:
        """Make blocks of the tail, which is left empty."""
        stop = self.starts[0] + self.middle if self.starts else 0
        self.middle += len(self.tail)
        for block in _halved(list(self.tail)):
            self.blocks.append(block)
            self.starts.append(stop)
            self.owned.append(1)
            stop += len(block)
        self.tail.clear()

    def store_head(self) -> None:
        """Make blocks of the head, which is left empty."""
        start = self.starts[0] if self.starts else 0
        self.middle += len(self.head)
        for block in reversed(_halved(list(self.head))):
            start -= len(block)
            self.blocks.insert(0, block)
            self.starts.insert(0, start)
            self.owned.insert(0, 1)
        self.head.clear()

    def fetch_tail(self) -> bool:
        """Give the empty tail the last elements of the others; False if there are none."""
        if not self.blocks:
            self.head, self.tail = self.tail, self.head
            return bool(self.tail)
        block = self.blocks.pop()
        del self.starts[-1], self.owned[-1]
        self.middle -= len(block)
        self.tail.extend(block)
        return True

    def fetch_head(self) -> bool:
        """Give the empty head the first elements of the others; False if there are none."""
        if not self.blocks:
            self.head, self.tail = self.tail, self.head
            return bool(self.head)
        block = self.blocks.pop(0)
        del self.starts[0], self.owned[0]
        self.middle -= len(block)
        self.head.extend(block)
        return True

    # -- in place ---------------------------------------------------------------------------------------------------

    def replace(self, index: int, element: bytes) -> bytes:
        """Set the element at an index, which may be negative; the old one. Raises IndexError outside the list."""
        part: deque[bytes] | list[bytes] = self.head
        if index < 0:
            index += len(part) + self.middle + len(self.tail)
            if index < 0:
                raise IndexError("no element at this index")
        if index >= len(part):
            index -= len(part)
            if index < self.middle:
                number, index = self._locate(index)
                if not self.owned[number]:
                    self.blocks[number] = self.blocks[number].copy()
                    self.owned[number] = 1
                part = self.blocks[number]
            else:
                index -= self.middle
                part = self.tail
        old = part[index]
        part[index] = element
        return old

    def insert(self, index: int, element: bytes) -> None:
        """Insert an element before the one at ``index``, or behind the tail; 0 <= index <= len."""
        place = index - len(self.head)
        if place <= 0:
            self.head.insert(index, element)
            if len(self.head) > END_LIMIT:
                self.store_head()
        elif place >= self.middle:
            self.tail.insert(place - self.middle, element)
            if len(self.tail) > END_LIMIT:
                self.store_tail()
        else:
            number, offset = self._locate(place)
            block = self.blocks[number].copy()
            block.insert(offset, element)
            self._replace(number, [block] if len(block) <= END_LIMIT else _halved(block))

    def _replace(self, number: int, blocks: list[list[bytes]]) -> None:
        """Put new blocks, none of them empty, where one stands; the positions on its shorter side move."""
        starts = self.starts
        growth = sum(map(len, blocks)) - len(self.blocks[number])
        if number < len(starts) >> 1:
            starts[: number + 1] = [start - growth for start in starts[: number + 1]]
        else:
            starts[number + 1 :] = [start + growth for start in starts[number + 1 :]]
        self.middle += growth
        self.blocks[number : number + 1] = blocks
        starts[number : number + 1] = accumulate(map(len, blocks[:-1]), initial=starts[number])
        self.owned[number : number + 1] = b"\1" * len(blocks)

    def remove(self, element: bytes, count: int) -> int:
        """Remove ``count`` occurrences of an element, from the head or, if negative, from the tail; 0 removes all.

        How many have been removed. Looks no further than it must; O(n).
        """
        removed = 0
        changed: list[tuple[int, list[bytes]]] = []
        numbers = range(-1, len(self.blocks) + 1)
        for number in numbers if count >= 0 else reversed(numbers):
            part = self._part(number)
            left = without(part, element, count - removed if count > 0 else count and count + removed)
            if left is not None:
                changed.append((number, left))
                removed += len(part) - len(left)
                if removed == abs(count):
                    break
        if changed:
            self._put_parts(changed)
        return removed

    def _part(self, number: int) -> Sequence[bytes]:
        """The head for -1, the tail behind the last block, else a block."""
        return self.head if number < 0 else self.tail if number == len(self.blocks) else self.blocks[number]

    def _put_parts(self, changed: Iterable[tuple[int, list[bytes]]]) -> None:
        """Put new parts, which may be empty, in the place of others."""
        blocks, owned = self.blocks.copy(), self.owned
        for number, part in changed:
            if number < 0:
                self.head = deque(part)
            elif number == len(blocks):
                self.tail = deque(part)
            else:
                blocks[number] = part
                owned[number] = 1
        kept = [number for number, block in enumerate(blocks) if block]
        if len(kept) < len(blocks):
            blocks = [blocks[number] for number in kept]
            owned = bytearray([owned[number] for number in kept])
        self.middle = sum(map(len, blocks))
        if len(blocks) > 1 and self.middle < len(blocks) * _SPARSE:
            flat = list(chain.from_iterable(blocks))
            blocks = [flat[start : start + END_LIMIT // 2] for start in range(0, self.middle, END_LIMIT // 2)]
            owned = bytearray(b"\1") * len(blocks)
        self.blocks, self.owned = blocks, owned
        *self.starts, _ = accumulate(map(len, blocks), initial=0)


Elements: TypeAlias = list[bytes] | ElementBlocks


def without(elements: Sequence[bytes], element: bytes, count: int) -> list[bytes] | None:
    """The elements without ``count`` occurrences of one, from the head or, if negative, from the tail; 0 means all.

    None if there is none.
    """
    found = elements.count(element)
    if not found:
        return None
    if not count or abs(count) >= found:
        return [other for other in elements if other != element]
    skip = found + count if count < 0 else 0
    flat = list(elements)
    kept: list[bytes] = []
    place = start = 0
    for number in range(skip + abs(count)):
        place = flat.index(element, place)
        if number >= skip:
            kept += flat[start:place]
            start = place + 1
        place += 1
    return kept + flat[start:]


def _halved(elements: list[bytes]) -> list[list[bytes]]:
    half = len(elements) >> 1
    return [elements[:half], elements[half:]]
