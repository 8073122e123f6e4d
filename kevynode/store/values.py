"""The values a key can hold. Strings are plain ``bytes``; the containers are the small classes of this module.

Every container knows the epoch it was last copied in (a snapshot may still hold an older one, so the store copies it
before the first write; see ``Store.write``) and how many bytes its elements take (``payload``), kept up to date by its
own methods, so that :meth:`memory` costs O(1). Nothing outside a container's methods changes its data.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import ClassVar, TypeAlias

from sortedcontainers import SortedList

from .sharded import SHARD_LIMIT, RandomSource
from .stream_values import Stream
from .tables import Table, compact_table, cut_up, random_member, scan_table, table_memory

__all__ = ["Hash", "List", "Set", "SortedSet", "Value", "bytes_memory", "random_member", "scan_table", "value_memory"]

# CPython's allocator rounds to 16 bytes; a bytes object is 33 bytes and its content.
_BYTES_OVERHEAD = 33 + 15
_FLOAT_MEMORY = 32
_TUPLE_MEMORY = 64
# A deadline of a field: its number, its entry in the table of deadlines, and its tuple and place in the schedule.
_DEADLINE_MEMORY = 190


def bytes_memory(value: bytes) -> int:
    """Bytes of memory that one ``bytes`` object takes."""
    return (len(value) + _BYTES_OVERHEAD) & ~15


class Hash:
    """Fields and their values; a field may have a deadline (unix ms).

    A field whose deadline has passed stays until it is removed or overwritten; readers skip it. The methods that take
    ``now`` (unix ms) skip such fields; ``now=0`` skips none.
    """

    __slots__ = ("deadlines", "epoch", "fields", "payload", "schedule")
    type_name: ClassVar[bytes] = b"hash"

    def __init__(self, epoch: int = 0) -> None:
        self.epoch = epoch
        self.fields: Table = {}
        # Deadlines of the fields that have one, in unix milliseconds; None while no field has.
        self.deadlines: dict[bytes, int] | None = None
        # A heap of (deadline, field) with an entry for each of ``deadlines``; what those do not confirm is stale.
        self.schedule: list[tuple[int, bytes]] = []
        self.payload = 0

    def __len__(self) -> int:
        return len(self.fields)

    def get(self, field: bytes) -> bytes | None:
        """The field's value, expired or not, or None."""
        value: bytes | None = self.fields.get(field)
        return value

    def live(self, field: bytes, now: int) -> bytes | None:
        """The value of a field that has not expired, or None."""
        value: bytes | None = self.fields.get(field)
        if value is not None and self.deadlines is not None and self.deadlines.get(field, now) < now:
            return None
        return value

    def live_items(self, now: int) -> Iterable[tuple[bytes, bytes]]:
        """Every field that has not expired, with its value."""
        items: Iterable[tuple[bytes, bytes]] = self.fields.items()
        if not self.may_have_expired(now):
            return items
        deadlines = self.deadlines or {}
        return [item for item in items if deadlines.get(item[0], now) >= now]

    def may_have_expired(self, now: int) -> bool:
        """False if certainly no field has expired; O(1)."""
        return self.deadlines is not None and self.schedule[0][0] < now

    def put(self, field: bytes, value: bytes) -> bool:
        """Set a field and forget its deadline; True if the field is new."""
        if self.deadlines is not None:
            self.forget_deadline(field)
        return self.put_keeping_deadline(field, value)

    def put_keeping_deadline(self, field: bytes, value: bytes) -> bool:
        """Set a field; its deadline stays. True if the field is new."""
        fields = self.fields
        old = fields.get(field)
        fields[field] = value
        if old is not None:
            if len(old) != len(value):
                self.payload += bytes_memory(value) - bytes_memory(old)
            return False
        self.payload += bytes_memory(value) + bytes_memory(field)
        if type(fields) is dict and len(fields) > SHARD_LIMIT:
            self.fields = cut_up(fields)
        return True

    def remove(self, field: bytes) -> bool:
        """Remove a field with its deadline; True if it was there."""
        old = self.fields.pop(field, None)
        if old is None:
            return False
        self.payload -= bytes_memory(old) + bytes_memory(field)
        if self.deadlines is not None:
            self.forget_deadline(field)
        return True

    def deadline(self, field: bytes) -> int | None:
        """The field's deadline in unix milliseconds, or None."""
        return None if self.deadlines is None else self.deadlines.get(field)

    def set_deadline(self, field: bytes, deadline: int) -> None:
        """Give an existing field a deadline (unix ms)."""
        if self.deadlines is None:
            self.deadlines = {}
        if field not in self.deadlines:
            self.payload += _DEADLINE_MEMORY
        self.deadlines[field] = deadline
        if len(self.schedule) < 2 * len(self.deadlines) + 64:
            heappush(self.schedule, (deadline, field))
        else:
            self.schedule = [(moment, name) for name, moment in self.deadlines.items()]
            heapify(self.schedule)

    def forget_deadline(self, field: bytes) -> bool:
        """Take the field's deadline away; True if it had one."""
        if self.deadlines is None or self.deadlines.pop(field, None) is None:
            return False
        self.payload -= _DEADLINE_MEMORY
        if not self.deadlines:
            self.deadlines = None
            self.schedule = []
        return True

    def remove_expired(self, now: int, limit: int) -> list[bytes]:
        """Remove at most ``limit`` fields that have expired, the longest overdue first; their names.

        Takes O(log n) for each and no time for those that are not due.
        """
        removed: list[bytes] = []
        while self.deadlines is not None and len(removed) < limit and self.schedule[0][0] < now:
            deadline, field = heappop(self.schedule)
            if self.deadlines.get(field) == deadline:
                self.remove(field)
                removed.append(field)
        return removed

    def copy_at(self, epoch: int) -> Hash:
        """The same content as a container of that epoch."""
        twin = Hash(epoch)
        twin.fields = self.fields.copy()
        twin.deadlines = None if self.deadlines is None else dict(self.deadlines)
        twin.schedule = self.schedule.copy()
        twin.payload = self.payload
        return twin

    def compact(self, random: RandomSource) -> None:
        """Give back memory that deletions have left unused; bounded work (see ``compact_table``)."""
        self.fields = compact_table(self.fields, random)

    def memory(self) -> int:
        """Bytes of memory this value takes."""
        fields = self.fields
        if type(fields) is dict:
            return 64 + sys.getsizeof(fields) + self.payload
        return 64 + table_memory(fields) + self.payload


class Set:
    """Members without order; kept in the order of their arrival."""

    __slots__ = ("epoch", "members", "payload")
    type_name: ClassVar[bytes] = b"set"

    def __init__(self, epoch: int = 0) -> None:
        self.epoch = epoch
        self.members: Table = {}
        self.payload = 0

    def __len__(self) -> int:
        return len(self.members)

    def __contains__(self, member: bytes) -> bool:
        return member in self.members

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.members)

    @classmethod
    def of(cls, members: Iterable[bytes], epoch: int = 0) -> Set:
        """A set of these members; those that come twice count once."""
        made = cls(epoch)
        table = dict.fromkeys(members, True)
        made.members = table if len(table) <= SHARD_LIMIT else cut_up(table)
        made.payload = sum(map(bytes_memory, table))
        return made

    def add(self, member: bytes) -> bool:
        """Add a member; True if it is new."""
        members = self.members
        if member in members:
            return False
        members[member] = True
        self.payload += bytes_memory(member)
        if type(members) is dict and len(members) > SHARD_LIMIT:
            self.members = cut_up(members)
        return True

    def remove(self, member: bytes) -> bool:
        """Remove a member; True if it was there."""
        if self.members.pop(member, None) is None:
            return False
        self.payload -= bytes_memory(member)
        return True

    def copy_at(self, epoch: int) -> Set:
        """The same content as a container of that epoch."""
        twin = Set(epoch)
        twin.members = self.members.copy()
        twin.payload = self.payload
        return twin

    def compact(self, random: RandomSource) -> None:
        """Give back memory that deletions have left unused; bounded work (see ``compact_table``)."""
        self.members = compact_table(self.members, random)

    def memory(self) -> int:
        """Bytes of memory this value takes."""
        return 56 + table_memory(self.members) + self.payload


# To index a deque is to skip blocks of 64 elements from the nearer end: that beats walking for a few elements.
_FEW = 16
_FAR = 512


class List:
    """Elements from head (left, index 0) to tail (right)."""

    __slots__ = ("elements", "epoch", "payload")
    type_name: ClassVar[bytes] = b"list"

    def __init__(self, epoch: int = 0) -> None:
        self.epoch = epoch
        self.elements: deque[bytes] = deque()
        self.payload = 0

    def __len__(self) -> int:
        return len(self.elements)

    def push_left(self, element: bytes) -> None:
        """Put an element before the head."""
        self.elements.appendleft(element)
        self.payload += bytes_memory(element)

    def push_right(self, element: bytes) -> None:
        """Put an element behind the tail."""
        self.elements.append(element)
        self.payload += bytes_memory(element)

    def extend_left(self, elements: Sequence[bytes]) -> None:
        """Put elements before the head one after the other, so that the last of them becomes the head."""
        self.elements.extendleft(elements)
        self.payload += sum(map(bytes_memory, elements))

    def extend_right(self, elements: Sequence[bytes]) -> None:
        """Put elements behind the tail, in their order."""
        self.elements.extend(elements)
        self.payload += sum(map(bytes_memory, elements))

    def pop_left(self) -> bytes:
        """Take the head off; raises IndexError if there is none."""
        element = self.elements.popleft()
        self.payload -= bytes_memory(element)
        return element

    def pop_right(self) -> bytes:
        """Take the tail off; raises IndexError if there is none."""
        element = self.elements.pop()
        self.payload -= bytes_memory(element)
        return element

    def pop_left_many(self, count: int) -> list[bytes]:
        """Take at most ``count`` elements off the head, in the order they are taken."""
        pop = self.elements.popleft
        taken = [pop() for _ in range(min(count, len(self.elements)))]
        self.payload -= sum(map(bytes_memory, taken))
        return taken

    def pop_right_many(self, count: int) -> list[bytes]:
        """Take at most ``count`` elements off the tail, in the order they are taken."""
        pop = self.elements.pop
        taken = [pop() for _ in range(min(count, len(self.elements)))]
        self.payload -= sum(map(bytes_memory, taken))
        return taken

    def replace(self, index: int, element: bytes) -> None:
        """Set the element at ``index`` (negative counts from the tail); raises IndexError outside the list."""
        self.payload += bytes_memory(element) - bytes_memory(self.elements[index])
        self.elements[index] = element

    def insert(self, index: int, element: bytes) -> None:
        """Insert an element before the one at ``index``; O(n)."""
        self.elements.insert(index, element)
        self.payload += bytes_memory(element)

    def assign(self, elements: Iterable[bytes]) -> None:
        """Hold exactly these elements from now on."""
        self.elements = deque(elements)
        self.payload = sum(map(bytes_memory, self.elements))

    def remove(self, element: bytes, count: int) -> int:
        """Remove ``count`` occurrences of an element, from the head or, if negative, from the tail; 0 removes all.

        How many have been removed; O(n).
        """
        found = self.elements.count(element)
        wanted = min(found, abs(count)) if count else found
        if not wanted:
            return 0
        self.payload -= wanted * bytes_memory(element)
        if wanted == found:
            self.elements = deque([other for other in self.elements if other != element])
        elif count == 1:
            self.elements.remove(element)
        else:
            self._remove_some(element, found - wanted if count < 0 else 0, wanted)
        return wanted

    def _remove_some(self, element: bytes, skip: int, wanted: int) -> None:
        """Remove ``wanted`` occurrences behind the first ``skip``; there are as many."""
        flat = list(self.elements)
        kept: deque[bytes] = deque()
        place = start = 0
        for number in range(skip + wanted):
            place = flat.index(element, place)
            if number >= skip:
                kept.extend(flat[start:place])
                start = place + 1
            place += 1
        kept.extend(flat[start:])
        self.elements = kept

    def trim(self, start: int, stop: int) -> None:
        """Keep only the elements from ``start`` up to, not including, ``stop``; 0 <= start <= stop <= len."""
        size = len(self.elements)
        if stop - start < size >> 1:
            self.assign(self.between(start, stop))
        else:
            self.pop_left_many(start)
            self.pop_right_many(size - stop)

    def between(self, start: int, stop: int) -> list[bytes]:
        """The elements from ``start`` up to, not including, ``stop``; 0 <= start <= stop <= len.

        Walks from the nearer end; to a few elements far inside it jumps.
        """
        elements = self.elements
        size = len(elements)
        if stop - start <= _FEW and start > _FAR and size - stop > _FAR:
            return [elements[index] for index in range(start, stop)]
        if start <= size - stop:
            return list(islice(elements, start, stop))
        tail = list(islice(reversed(elements), size - stop, size - start))
        tail.reverse()
        return tail

    def copy_at(self, epoch: int) -> List:
        """The same content as a container of that epoch."""
        twin = List(epoch)
        twin.elements = self.elements.copy()
        twin.payload = self.payload
        return twin

    def compact(self, random: RandomSource) -> None:
        """Do nothing: a list gives memory back as it shrinks."""

    def memory(self) -> int:
        """Bytes of memory this value takes."""
        return 56 + 672 + 8 * len(self.elements) + self.payload


# What one member takes beside itself.
_ENTRY_MEMORY = _FLOAT_MEMORY + _TUPLE_MEMORY + 8


class SortedSet:
    """Members with scores, ordered by (score, member)."""

    __slots__ = ("epoch", "order", "payload", "scores")
    type_name: ClassVar[bytes] = b"zset"

    def __init__(self, epoch: int = 0) -> None:
        self.epoch = epoch
        self.scores: Table = {}
        self.order: SortedList[tuple[float, bytes]] = SortedList()
        self.payload = 0

    def __len__(self) -> int:
        return len(self.scores)

    def score(self, member: bytes) -> float | None:
        """The member's score, or None."""
        score: float | None = self.scores.get(member)
        return score

    @classmethod
    def of(cls, scores: dict[bytes, float], epoch: int = 0) -> SortedSet:
        """A sorted set of these members with their scores (numbers, never NaN)."""
        made = cls(epoch)
        # Adding zero turns a negative zero into zero.
        made.order = SortedList([(score + 0.0, member) for member, score in scores.items()])
        table = {member: score for score, member in made.order}
        made.scores = table if len(table) <= SHARD_LIMIT else cut_up(table)
        made.payload = sum(map(bytes_memory, table)) + len(table) * _ENTRY_MEMORY
        return made

    def put(self, member: bytes, score: float) -> bool | None:
        """Give ``member`` this score (a number, neither NaN nor negative zero).

        True if the member is new, False if its score has changed, None if it had this score.
        """
        scores = self.scores
        old = scores.get(member)
        if old is not None:
            if old == score:
                return None
            self.order.remove((old, member))
            self.order.add((score, member))
            scores[member] = score
            return False
        scores[member] = score
        self.order.add((score, member))
        self.payload += bytes_memory(member) + _ENTRY_MEMORY
        if type(scores) is dict and len(scores) > SHARD_LIMIT:
            self.scores = cut_up(scores)
        return True

    def remove(self, member: bytes) -> bool:
        """Remove a member; True if it was there."""
        score = self.scores.pop(member, None)
        if score is None:
            return False
        self.order.remove((score, member))
        self.payload -= bytes_memory(member) + _ENTRY_MEMORY
        return True

    def remove_between(self, start: int, stop: int) -> list[tuple[float, bytes]]:
        """Remove the entries from place ``start`` up to, not including, ``stop``; they are returned in order."""
        order = self.order
        if stop - start == 1 and (start == 0 or stop == len(order)):
            removed = [order.pop(0 if start == 0 else -1)]
        else:
            removed = order[start:stop]
            del order[start:stop]
        if not order:
            self.scores = {}
            self.payload = 0
            return removed
        for _, member in removed:
            self.scores.pop(member)
            self.payload -= bytes_memory(member) + _ENTRY_MEMORY
        return removed

    def rank(self, member: bytes) -> int | None:
        """The member's place counted from the lowest score, or None."""
        score = self.scores.get(member)
        return None if score is None else self.order.index((score, member))

    def copy_at(self, epoch: int) -> SortedSet:
        """The same content as a container of that epoch."""
        twin = SortedSet(epoch)
        twin.scores = self.scores.copy()
        twin.order = self.order.copy()
        twin.payload = self.payload
        return twin

    def compact(self, random: RandomSource) -> None:
        """Give back memory that deletions have left unused; bounded work (see ``compact_table``)."""
        self.scores = compact_table(self.scores, random)

    def memory(self) -> int:
        """Bytes of memory this value takes."""
        return 56 + 400 + table_memory(self.scores) + self.payload


Value: TypeAlias = bytes | Hash | List | Set | SortedSet | Stream
_BIG_OBJECT = 48


def value_memory(value: Value) -> int:
    """Bytes of memory that a value takes; O(1)."""
    if isinstance(value, bytes):
        return (len(value) + _BYTES_OVERHEAD) & ~15
    return value.memory() + _BIG_OBJECT
