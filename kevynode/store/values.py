"""The values a key can hold. Strings are plain ``bytes``; the containers are small classes, here or beside this module.

Every container knows the epoch it was last copied in (a snapshot may still hold an older one, so the store copies it
before the first write; see ``Store.write``) and how many bytes its elements take (``payload``), kept up to date by its
own methods, so that :meth:`memory` costs O(1). Nothing outside a container's methods changes its data.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heappush
from typing import ClassVar, TypeAlias

from .list_value import List
from .sharded import SHARD_LIMIT, RandomSource
from .sizes import BYTES_OVERHEAD, bytes_memory
from .sorted_set_value import SortedSet
from .stream_values import Stream
from .tables import Table, compact_table, cut_up, random_member, scan_table, table_memory

__all__ = ["Hash", "List", "Set", "SortedSet", "Value", "bytes_memory", "random_member", "scan_table", "value_memory"]

# A deadline of a field: its number, its entry in the table of deadlines, and its tuple and place in the schedule.
_DEADLINE_MEMORY = 190


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


Value: TypeAlias = bytes | Hash | List | Set | SortedSet | Stream
_BIG_OBJECT = 48


def value_memory(value: Value) -> int:
    """Bytes of memory that a value takes; O(1)."""
    if isinstance(value, bytes):
        return (len(value) + BYTES_OVERHEAD) & ~15
    return value.memory() + _BIG_OBJECT
