"""The value of a list."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Final

from .blocks import ELEMENTS_BLOCK_MEMORY, ELEMENTS_MEMORY, END_LIMIT, ElementBlocks, Elements, without
from .sharded import RandomSource
from .sizes import BYTES_OVERHEAD, PLACE_MEMORY, PLAIN_MEMORY, bytes_memory

__all__ = ["List"]

# A list of more elements than this is cut into blocks.
_LIST_LIMIT: Final = 256


class List:
    """Elements from head (left, index 0) to tail (right)."""

    __slots__ = ("elements", "epoch", "payload")
    type_name: ClassVar[bytes] = b"list"

    def __init__(self, epoch: int = 0) -> None:
        self.epoch = epoch
        self.elements: Elements = []
        self.payload = 0

    def __len__(self) -> int:
        return len(self.elements)

    def push_left(self, element: bytes) -> int:
        """Put an element before the head; the new length."""
        self.payload += ((len(element) + BYTES_OVERHEAD) & ~15) + PLACE_MEMORY
        elements = self.elements
        if type(elements) is ElementBlocks:
            head = elements.head
            head.appendleft(element)
            if len(head) > END_LIMIT:
                elements.store_head()
            return len(head) + elements.middle + len(elements.tail)
        elements.insert(0, element)
        size = len(elements)
        if size > _LIST_LIMIT:
            self.elements = ElementBlocks(elements)
        return size

    def push_right(self, element: bytes) -> int:
        """Put an element behind the tail; the new length."""
        self.payload += ((len(element) + BYTES_OVERHEAD) & ~15) + PLACE_MEMORY
        elements = self.elements
        if type(elements) is ElementBlocks:
            tail = elements.tail
            tail.append(element)
            if len(tail) > END_LIMIT:
                elements.store_tail()
            return len(elements.head) + elements.middle + len(tail)
        elements.append(element)
        size = len(elements)
        if size > _LIST_LIMIT:
            self.elements = ElementBlocks(elements)
        return size

    def extend_left(self, elements: Sequence[bytes]) -> None:
        """Put elements before the head one after the other, so that the last of them becomes the head."""
        held = self.elements
        if type(held) is ElementBlocks:
            held.extend_left(elements)
        else:
            held[:0] = elements[::-1]
            if len(held) > _LIST_LIMIT:
                self.elements = ElementBlocks(held)
        self.payload += _elements_memory(elements)

    def extend_right(self, elements: Sequence[bytes]) -> None:
        """Put elements behind the tail, in their order."""
        held = self.elements
        held.extend(elements)
        if type(held) is not ElementBlocks and len(held) > _LIST_LIMIT:
            self.elements = ElementBlocks(held)
        self.payload += _elements_memory(elements)

    def pop_left(self) -> bytes:
        """Take the head off; raises IndexError if there is none."""
        elements = self.elements
        if type(elements) is ElementBlocks:
            if not elements.head:
                elements.fetch_head()
            element = elements.head.popleft()
        else:
            element = elements.pop(0)
        self.payload -= ((len(element) + BYTES_OVERHEAD) & ~15) + PLACE_MEMORY
        return element

    def pop_right(self) -> bytes:
        """Take the tail off; raises IndexError if there is none."""
        elements = self.elements
        if type(elements) is ElementBlocks:
            if not elements.tail:
                elements.fetch_tail()
            element = elements.tail.pop()
        else:
            element = elements.pop()
        self.payload -= ((len(element) + BYTES_OVERHEAD) & ~15) + PLACE_MEMORY
        return element

    def pop_left_many(self, count: int) -> list[bytes]:
        """Take at most ``count`` elements off the head, in the order they are taken."""
        elements = self.elements
        if type(elements) is ElementBlocks:
            taken = elements.take_left(count)
        else:
            taken = elements[:count]
            del elements[:count]
        self.payload -= _elements_memory(taken)
        return taken

    def pop_right_many(self, count: int) -> list[bytes]:
        """Take at most ``count`` elements off the tail, in the order they are taken."""
        elements = self.elements
        if type(elements) is ElementBlocks:
            taken = elements.take_right(count)
        else:
            taken = elements[: -count - 1 : -1]
            del elements[max(len(elements) - count, 0) :]
        self.payload -= _elements_memory(taken)
        return taken

    def replace(self, index: int, element: bytes) -> None:
        """Set the element at ``index`` (negative counts from the tail); raises IndexError outside the list."""
        elements = self.elements
        if type(elements) is ElementBlocks:
            old = elements.replace(index, element)
        else:
            old = elements[index]
            elements[index] = element
        if len(old) != len(element):
            self.payload += bytes_memory(element) - bytes_memory(old)

    def insert(self, index: int, element: bytes) -> None:
        """Insert an element before the one at ``index``, or behind the tail; 0 <= index <= len."""
        self.elements.insert(index, element)
        self.payload += bytes_memory(element) + PLACE_MEMORY

    def assign(self, elements: Iterable[bytes]) -> None:
        """Hold exactly these elements from now on."""
        self.elements = []
        self.payload = 0
        self.extend_right(list(elements))

    def remove(self, element: bytes, count: int) -> int:
        """Remove ``count`` occurrences of an element, from the head or, if negative, from the tail; 0 removes all.

        How many have been removed; O(n).
        """
        elements = self.elements
        if type(elements) is ElementBlocks:
            removed = elements.remove(element, count)
        else:
            left = without(elements, element, count)
            if left is None:
                return 0
            self.elements = left
            removed = len(elements) - len(left)
        self.payload -= removed * (bytes_memory(element) + PLACE_MEMORY)
        return removed

    def trim(self, start: int, stop: int) -> None:
        """Keep only the elements from ``start`` up to, not including, ``stop``; 0 <= start <= stop <= len."""
        size = len(self.elements)
        if stop - start < size >> 1:
            self.assign(self.between(start, stop))
            return
        if start:
            self.pop_left_many(start)
        if stop < size:
            self.pop_right_many(size - stop)

    def between(self, start: int, stop: int) -> list[bytes]:
        """The elements from ``start`` up to, not including, ``stop``; 0 <= start <= stop <= len."""
        elements = self.elements
        return elements.between(start, stop) if type(elements) is ElementBlocks else elements[start:stop]

    def copy_at(self, epoch: int) -> List:
        """The same content as a container of that epoch; takes no time for each element of a large list."""
        twin = List(epoch)
        twin.elements = self.elements.copy()
        twin.payload = self.payload
        return twin

    def compact(self, random: RandomSource) -> None:
        """Give back memory that removals have left unused."""
        if type(self.elements) is ElementBlocks and len(self.elements) <= _LIST_LIMIT // 2:
            self.elements = list(self.elements)

    def memory(self) -> int:
        """Bytes of memory this value takes."""
        elements = self.elements
        if type(elements) is ElementBlocks:
            return ELEMENTS_MEMORY + len(elements.blocks) * ELEMENTS_BLOCK_MEMORY + self.payload
        # A list keeps room to grow by up to an eighth.
        return PLAIN_MEMORY + len(elements) + self.payload


def _elements_memory(elements: Sequence[bytes]) -> int:
    return sum(map(bytes_memory, elements)) + PLACE_MEMORY * len(elements)
