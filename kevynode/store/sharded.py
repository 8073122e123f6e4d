"""A dictionary cut into small shards: cheap to freeze, to scan statelessly, and to pick from at random.

Keys are bytes. A shard holds the keys whose hashes share their leading bits, at most about :data:`SHARD_LIMIT` of them.
The directory has one slot for each prefix of :attr:`ShardedDict.bits` bits; a shard with fewer bits stands in several
neighbouring slots. This is extendible hashing on the *leading* bits, so that walking the slots in order walks the keys
in the order of their hashes: a scan's cursor is a position in hash order and stays true while shards split, merge
or are copied.

``hash(key) >> shift`` is a signed slot number: from ``-2**(bits-1)`` to ``2**(bits-1)-1``, and Python's negative
indexes make it index the directory directly.

Freezing bumps an epoch and keeps the list of shards. The first write to a shard older than the epoch copies that shard.
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Iterator
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

__all__ = ["SHARD_LIMIT", "RandomSource", "Shard", "ShardedDict"]

SHARD_LIMIT = 1024
_HASH_BITS = 64
_HALF = 1 << (_HASH_BITS - 1)
_END = 1 << _HASH_BITS

V = TypeVar("V")


class RandomSource(Protocol):
    """The part of ``random.Random`` that the store draws from."""

    def random(self) -> float: ...

    def randrange(self, stop: int, /) -> int: ...
    def getrandbits(self, k: int, /) -> int: ...


class Shard(dict[bytes, V]):
    """One shard: a dict, the epoch it was last copied in, and how many leading hash bits its keys share."""

    __slots__ = ("bits", "epoch")

    def __init__(self, epoch: int = 0, bits: int = 0) -> None:
        super().__init__()
        self.epoch = epoch
        self.bits = bits

    def empty(self, epoch: int, bits: int) -> Shard[V]:
        """A new empty shard of the same class."""
        return type(self)(epoch, bits)

    def take(self, key: bytes, source: Shard[V]) -> None:
        """Put in ``key`` with everything ``source`` knows about it."""
        self[key] = source[key]

    def copy_at(self, epoch: int) -> Shard[V]:
        """The same content in a new shard of that epoch."""
        fresh = self.empty(epoch, self.bits)
        fresh.update(self)
        return fresh

    def memory(self) -> int:
        """Bytes of the structure itself, without keys and values."""
        return sys.getsizeof(self)


class ShardedDict(Generic[V]):
    """A mutable mapping from bytes to values, cut into shards. Not thread-safe."""

    __slots__ = ("bits", "count", "directory", "epoch", "shift")

    shard_class: type[Shard[Any]] = Shard

    def __init__(self, epoch: int = 0) -> None:
        self.epoch = epoch
        self.count = 0
        self.bits = 0
        self.shift = _HASH_BITS
        self.directory: list[Shard[V]] = [self.shard_class(epoch, 0)]

    # -- as a mapping -----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self.count

    def __contains__(self, key: bytes) -> bool:
        return key in self.directory[hash(key) >> self.shift]

    def __getitem__(self, key: bytes) -> V:
        return self.directory[hash(key) >> self.shift][key]

    def get(self, key: bytes) -> V | None:
        """The value under ``key``, or None."""
        return self.directory[hash(key) >> self.shift].get(key)

    def __setitem__(self, key: bytes, value: V) -> None:
        shard = self.writable(key)
        before = len(shard)
        shard[key] = value
        if len(shard) != before:
            self.count += 1
            if before >= SHARD_LIMIT:
                self.split(key)

    def __delitem__(self, key: bytes) -> None:
        del self.writable(key)[key]
        self.count -= 1

    def pop(self, key: bytes, default: V | None = None) -> V | None:
        """Remove ``key``; its value, or ``default`` if it was not there."""
        shard = self.writable(key)
        if key not in shard:
            return default
        self.count -= 1
        return shard.pop(key)

    def __iter__(self) -> Iterator[bytes]:
        for shard in self.shards():
            yield from shard

    def items(self) -> Iterator[tuple[bytes, V]]:
        """Every key with its value, shard by shard."""
        for shard in self.shards():
            yield from shard.items()

    def values(self) -> Iterator[V]:
        """Every value, shard by shard."""
        for shard in self.shards():
            yield from shard.values()

    def copy(self) -> ShardedDict[V]:
        """A second mapping with the same content that shares every shard until one side writes to it."""
        twin = type(self).__new__(type(self))
        self.epoch += 1
        twin.epoch = self.epoch + 1
        twin.count, twin.bits, twin.shift = self.count, self.bits, self.shift
        twin.directory = list(self.directory)
        return twin

    # -- shards -----------------------------------------------------------------------------------------------------

    def shards(self) -> Iterator[Shard[V]]:
        """Each shard once, in hash order."""
        size = len(self.directory)
        slot = -(size >> 1)
        end = slot + size
        while slot < end:
            shard = self.directory[slot]
            yield shard
            slot += 1 << (self.bits - shard.bits)

    def writable(self, key: bytes) -> Shard[V]:
        """The shard for ``key``, copied first if a snapshot still holds it."""
        shard = self.directory[hash(key) >> self.shift]
        if shard.epoch != self.epoch:
            shard = self._replace(key, shard.copy_at(self.epoch))
        return shard

    def freeze(self) -> list[Shard[V]]:
        """The shards as they are now, each once, in hash order; later writes leave them untouched."""
        frozen = list(self.shards())
        self.epoch += 1
        return frozen

    def split(self, key: bytes) -> None:
        """Cut the shard that holds ``key`` in two by its next hash bit, doubling the directory if it must."""
        old = self.writable(key)
        if old.bits == _HASH_BITS:
            return
        if old.bits == self.bits:
            # Slot s becomes 2s and 2s+1. With signed slots that is: the list in signed order, each entry twice.
            half = len(self.directory) >> 1
            signed = self.directory[half:] + self.directory[:half] if half else self.directory
            doubled = [shard for shard in signed for _ in (0, 1)]
            self.bits += 1
            self.shift -= 1
            middle = len(doubled) >> 1
            self.directory = doubled[middle:] + doubled[:middle]
        low = old.empty(self.epoch, old.bits + 1)
        high = old.empty(self.epoch, old.bits + 1)
        shift = _HASH_BITS - old.bits - 1
        # The first bit is the sign, and negative hashes come first.
        upper = 0 if old.bits == 0 else 1
        for member in old:
            (high if (hash(member) >> shift) & 1 == upper else low).take(member, old)
        start, width = self._slots(key, old.bits)
        half = width >> 1
        for slot in range(start, start + half):
            self.directory[slot] = low
            self.directory[slot + half] = high

    def _slots(self, key: bytes, bits: int) -> tuple[int, int]:
        """First signed slot and number of slots of the shard of ``bits`` bits that holds ``key``."""
        width = 1 << (self.bits - bits)
        if bits == 0:
            return -(width >> 1), width
        return (hash(key) >> (_HASH_BITS - bits)) * width, width

    def _replace(self, key: bytes, fresh: Shard[V]) -> Shard[V]:
        start, width = self._slots(key, fresh.bits)
        for slot in range(start, start + width):
            self.directory[slot] = fresh
        return fresh

    # -- walking ----------------------------------------------------------------------------------------------------

    def scan(self, cursor: int, count: int) -> tuple[int, list[bytes]]:
        """The next cursor (0 ends) and the next keys in hash order from ``cursor`` (0 starts), about ``count`` of them.

        Stateless: every key that is present from the first call to the last is returned, however the mapping changes
        in between. At most ``count`` keys, plus those that share the last one's hash. Cursors are below 2**64.
        """
        found: list[bytes] = []
        position = cursor
        while position < _END:
            slot = (position - _HALF) >> self.shift
            shard = self.directory[slot]
            ordered = sorted(shard, key=hash)
            start = bisect_left(ordered, position - _HALF, key=hash) if position else 0
            room = count - len(found)
            if len(ordered) - start > room:
                stop = start + room
                last = hash(ordered[stop - 1])
                while stop < len(ordered) and hash(ordered[stop]) == last:
                    stop += 1
                found += ordered[start:stop]
                position = last + 1 + _HALF
                return (0 if position >= _END else position), found
            found += ordered[start:]
            width = 1 << (_HASH_BITS - shard.bits)
            position = (position // width + 1) * width
            if len(found) >= count:
                break
        return (0 if position >= _END else position), found

    def random_key(self, random: RandomSource) -> bytes | None:
        """A key, nearly uniformly at random; None if there is none."""
        if not self.count:
            return None
        # Every slot covers the same share of hash space, so a random slot favours no shard over its keys' number.
        for _ in range(32):
            shard = self.directory[random.randrange(len(self.directory))]
            if shard:
                return next(islice(shard, random.randrange(len(shard)), None))
        place = random.randrange(self.count)
        for shard in self.shards():
            if place < len(shard):
                return next(islice(shard, place, None))
            place -= len(shard)
        raise AssertionError("count and shards disagree")

    def memory(self) -> int:
        """Bytes of the structure itself, without keys and values; walks the shards."""
        return sys.getsizeof(self.directory) + sum(shard.memory() for shard in self.shards())
