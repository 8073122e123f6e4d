"""The value of a stream: entries in the order of their ids, and the groups of consumers that read them.

An entry id is a pair ``(ms, seq)`` of unsigned 64-bit numbers; pairs compare as ids do. Entries lie in blocks of a few
hundred, so that a copy shares all of them with the original, and either side copies a block before it changes it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import ClassVar, Final, TypeAlias

from .sharded import RandomSource

__all__ = ["ID_LIMIT", "ZERO", "EntryId", "Fields", "Group", "Pending", "Stream", "format_id"]

#: (milliseconds, sequence number)
EntryId: TypeAlias = tuple[int, int]
#: field, value, field, value, ...
Fields: TypeAlias = tuple[bytes, ...]
#: (consumer, unix ms of the last delivery, number of deliveries)
Pending: TypeAlias = tuple[bytes, int, int]

#: The id below all entries: what an empty stream has for its last one.
ZERO: Final[EntryId] = (0, 0)
#: Both parts of an id are below this.
ID_LIMIT: Final = 1 << 64
# Entries that a stream is believed to have had: whatever is added to it, it does not come to 2**63, where XSETID ends.
_MOST_ADDED: Final = 1 << 62

_BLOCK_LIMIT: Final = 256
# Neighbours with so few entries together become one block.
_MERGE_LIMIT: Final = _BLOCK_LIMIT // 2

_STREAM_MEMORY: Final = 400
_BLOCK_MEMORY: Final = 56 + 2 * 56
# An id with its two numbers, and the places of id and fields in their block; a tuple and each word's place in it.
_ENTRY_MEMORY: Final = 56 + 32 + 32 + 16 + 40
_WORD_MEMORY: Final = 8 + 33 + 7
_GROUP_MEMORY: Final = 64 + 2 * 64 + 120 + 100
_CONSUMER_MEMORY: Final = 33 + 100 + 32
_PENDING_MEMORY: Final = 120 + 64 + 32 + 32 + 100


def format_id(entry_id: EntryId) -> bytes:
    """An entry id as clients write it: ``ms-seq``."""
    return b"%d-%d" % entry_id


class _Block:
    """A run of entries; ``owner`` is the token of the only stream that may change it."""

    __slots__ = ("contents", "ids", "owner")

    def __init__(self, owner: object, ids: list[EntryId], contents: list[Fields]) -> None:
        self.owner = owner
        self.ids = ids
        self.contents = contents


def _last_id(block: _Block) -> EntryId:
    return block.ids[-1]


class _Tally:
    """Bytes that a stream and its groups take together."""

    __slots__ = ("bytes",)

    def __init__(self, size: int = 0) -> None:
        self.bytes = size


class Group:
    """One consumer group; made by :meth:`Stream.create_group`.

    ``last_delivered`` is the last id handed out. ``consumers`` maps each name to the unix ms it was last seen at, and
    ``pending`` each id that was delivered and not acknowledged to ``(consumer, delivered at unix ms, deliveries)``, in
    no particular order. An id may be pending though its entry has been deleted.
    """

    __slots__ = ("_tally", "consumers", "last_delivered", "pending")

    def __init__(self, last_delivered: EntryId, tally: _Tally) -> None:
        self.last_delivered = last_delivered
        self.consumers: dict[bytes, int] = {}
        self.pending: dict[EntryId, Pending] = {}
        self._tally = tally

    def see(self, consumer: bytes, seen_ms: int) -> bool:
        """Note that a consumer was there at that time (unix ms); True if it is new."""
        is_new = consumer not in self.consumers
        if is_new:
            self._tally.bytes += _CONSUMER_MEMORY + len(consumer)
        self.consumers[consumer] = seen_ms
        return is_new

    def remove_consumer(self, consumer: bytes) -> int | None:
        """Remove a consumer and what is pending for it: how many entries, None without such a consumer. O(pending)."""
        if self.consumers.pop(consumer, None) is None:
            return None
        self._tally.bytes -= _CONSUMER_MEMORY + len(consumer)
        held = [entry_id for entry_id, pending in self.pending.items() if pending[0] == consumer]
        for entry_id in held:
            self.acknowledge(entry_id)
        return len(held)

    def deliver(self, entry_id: EntryId, consumer: bytes, delivered_ms: int, count: int) -> None:
        """Make an entry pending for ``consumer``; one that is not of the group yet becomes it, seen just then."""
        if consumer not in self.consumers:
            self.see(consumer, delivered_ms)
        if entry_id not in self.pending:
            self._tally.bytes += _PENDING_MEMORY
        self.pending[entry_id] = (consumer, delivered_ms, count)

    def acknowledge(self, entry_id: EntryId) -> bool:
        """Let an entry be pending no more; True if it was."""
        if self.pending.pop(entry_id, None) is None:
            return False
        self._tally.bytes -= _PENDING_MEMORY
        return True

    def _copy(self, tally: _Tally) -> Group:
        twin = Group(self.last_delivered, tally)
        twin.consumers = self.consumers.copy()
        twin.pending = self.pending.copy()
        return twin

    def _memory(self) -> int:
        """Bytes of memory beside the group's name; walks the consumers."""
        names = sum(_CONSUMER_MEMORY + len(name) for name in self.consumers)
        return _GROUP_MEMORY + names + len(self.pending) * _PENDING_MEMORY


class Stream:
    """Entries in the order of their ids, and consumer groups by name.

    ``last_id`` is the highest id ever added, ``max_deleted_id`` the highest one deleted by name (trimming does not
    count), ``entries_added`` the number of entries ever added. A stream that has become empty stays.
    """

    __slots__ = (
        "_blocks",
        "_count",
        "_owner",
        "_tally",
        "entries_added",
        "epoch",
        "groups",
        "last_id",
        "max_deleted_id",
    )
    type_name: ClassVar[bytes] = b"stream"

    def __init__(self, epoch: int = 0) -> None:
        self.epoch = epoch
        self.last_id = ZERO
        self.max_deleted_id = ZERO
        self.entries_added = 0
        self.groups: dict[bytes, Group] = {}
        self._blocks: list[_Block] = []
        self._count = 0
        self._owner = object()
        self._tally = _Tally()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[EntryId, Fields]]:
        """Every entry with its fields, from the lowest id to the highest."""
        for block in self._blocks:
            yield from zip(block.ids, block.contents, strict=True)

    # -- entries ----------------------------------------------------------------------------------------------------

    @property
    def first_id(self) -> EntryId:
        """The lowest id there is; ``ZERO`` without entries."""
        return self._blocks[0].ids[0] if self._blocks else ZERO

    @property
    def top_id(self) -> EntryId:
        """The highest id there is; ``ZERO`` without entries."""
        return self._blocks[-1].ids[-1] if self._blocks else ZERO

    def get(self, entry_id: EntryId) -> Fields | None:
        """The fields of an entry, or None."""
        number, place = self._find(entry_id)
        if number == len(self._blocks) or self._blocks[number].ids[place] != entry_id:
            return None
        return self._blocks[number].contents[place]

    def append(self, entry_id: EntryId, fields: Fields) -> None:
        """Add an entry behind all others. Raises ValueError unless its id is above ``last_id``."""
        if entry_id <= self.last_id:
            raise ValueError("the id of a new entry must be above the last one")
        if not self._blocks or len(self._blocks[-1].ids) >= _BLOCK_LIMIT:
            self._blocks.append(_Block(self._owner, [], []))
        block = self._own(len(self._blocks) - 1)
        block.ids.append(entry_id)
        block.contents.append(fields)
        self._count += 1
        self._tally.bytes += _entry_memory(fields)
        self.last_id = entry_id
        self.entries_added += 1

    def take_past(self, last_id: EntryId, max_deleted_id: EntryId, entries_added: int) -> None:
        """Take on what a file or a peer says of the stream's past, as far as it can be: as far as XSETID would take it.

        Raises ValueError if there are entries above ``last_id``.
        """
        if last_id < self.top_id:
            raise ValueError("a stream has entries above its last id")
        self.last_id = last_id
        self.max_deleted_id = min(max_deleted_id, last_id)
        self.entries_added = max(min(entries_added, _MOST_ADDED), self._count)

    def remove(self, entry_id: EntryId) -> bool:
        """Delete an entry; True if it was there. It stays pending where it is."""
        number, place = self._find(entry_id)
        if number == len(self._blocks) or self._blocks[number].ids[place] != entry_id:
            return False
        block = self._own(number)
        self._tally.bytes -= _entry_memory(block.contents[place])
        self._count -= 1
        del block.ids[place]
        del block.contents[place]
        self._join(number)
        self.max_deleted_id = max(self.max_deleted_id, entry_id)
        return True

    def trim(self, excess: int) -> None:
        """Remove the ``excess`` lowest entries (0 <= excess <= len)."""
        number, left = 0, excess
        while left and len(self._blocks[number].ids) <= left:
            left -= len(self._blocks[number].ids)
            self._tally.bytes -= sum(map(_entry_memory, self._blocks[number].contents))
            number += 1
        del self._blocks[:number]
        if left:
            block = self._own(0)
            self._tally.bytes -= sum(map(_entry_memory, block.contents[:left]))
            del block.ids[:left]
            del block.contents[:left]
            self._join(0)
        self._count -= excess

    def count_below(self, entry_id: EntryId) -> int:
        """How many entries have a lower id; O(number of blocks)."""
        number, place = self._find(entry_id)
        return sum(len(block.ids) for block in self._blocks[:number]) + place

    def _find(self, entry_id: EntryId) -> tuple[int, int]:
        """Block and place in it of the first entry whose id is not lower; behind the last block if there is none."""
        number = bisect_left(self._blocks, entry_id, key=_last_id)
        if number == len(self._blocks):
            return number, 0
        return number, bisect_left(self._blocks[number].ids, entry_id)

    def _own(self, number: int) -> _Block:
        """The block, ready to be changed."""
        block = self._blocks[number]
        if block.owner is not self._owner:
            block = self._blocks[number] = _Block(self._owner, block.ids.copy(), block.contents.copy())
        return block

    def _join(self, number: int) -> None:
        """Drop a block that has become empty, or join it to the next one if both have become small."""
        blocks = self._blocks
        block = blocks[number]
        if not block.ids:
            del blocks[number]
        elif number + 1 < len(blocks) and len(block.ids) + len(blocks[number + 1].ids) <= _MERGE_LIMIT:
            block.ids += blocks[number + 1].ids
            block.contents += blocks[number + 1].contents
            del blocks[number + 1]

    # -- groups -----------------------------------------------------------------------------------------------------

    def create_group(self, name: bytes, last_delivered: EntryId) -> Group:
        """Add an empty group under a name that is free."""
        group = self.groups[name] = Group(last_delivered, self._tally)
        self._tally.bytes += _GROUP_MEMORY + len(name)
        return group

    def remove_group(self, name: bytes) -> bool:
        """Remove a group with its consumers and what is pending; True if it was there."""
        group = self.groups.pop(name, None)
        if group is None:
            return False
        self._tally.bytes -= len(name) + group._memory()
        return True

    # -- as a value -------------------------------------------------------------------------------------------------

    @property
    def payload(self) -> int:
        """Bytes that entries and groups take."""
        return self._tally.bytes

    def copy_at(self, epoch: int) -> Stream:
        """The same content as a container of that epoch; O(blocks + consumers + pending)."""
        twin = Stream(epoch)
        twin.last_id = self.last_id
        twin.max_deleted_id = self.max_deleted_id
        twin.entries_added = self.entries_added
        twin._blocks = self._blocks.copy()
        twin._count = self._count
        twin._tally = _Tally(self._tally.bytes)
        twin.groups = {name: group._copy(twin._tally) for name, group in self.groups.items()}
        # From now on neither side owns what both hold.
        self._owner = object()
        return twin

    def compact(self, random: RandomSource) -> None:
        """Do nothing: a stream gives memory back as it shrinks."""

    def memory(self) -> int:
        """Bytes of memory this value takes."""
        return _STREAM_MEMORY + len(self._blocks) * _BLOCK_MEMORY + self._tally.bytes


def _entry_memory(fields: Fields) -> int:
    return _ENTRY_MEMORY + len(fields) * _WORD_MEMORY + sum(map(len, fields))
