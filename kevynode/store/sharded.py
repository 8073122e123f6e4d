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
from collections.abc import Collection, Iterator, Sized
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

__all__ = ["SHARD_LIMIT", "RandomSource", "Shard", "ShardedDict"]

SHARD_LIMIT = 1024
# Two neighbours are merged when they hold no more keys together, so far below the limit that they do not split again.
_MERGE_LIMIT = SHARD_LIMIT // 4
# No dict that only ever grew takes more bytes for an entry; one that does was emptied.
_ROOMY_ENTRY = 96
_ROOMY_BASE = 512
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

    def divide(self, low: Shard[V], high: Shard[V], shift: int, upper: int) -> None:
        """Put all keys into two empty shards: into ``high`` those whose hash has the bit ``upper`` at ``shift``."""
        for key, value in self.items():
            if (hash(key) >> shift) & 1 == upper:
                high[key] = value
            else:
                low[key] = value

    def copy_at(self, epoch: int) -> Shard[V]:
        """The same content in a new shard of that epoch."""
        fresh = self.empty(epoch, self.bits)
        fresh.update(self)
        return fresh

    def roomy(self) -> bool:
        """Whether a copy would take far less memory: a dict keeps its size when keys are deleted."""
        return is_roomy(self)

    def memory(self) -> int:
        """Bytes of the structure itself, without keys and values."""
        return sys.getsizeof(self)


def is_roomy(table: Sized) -> bool:
    """Whether a dict takes far more memory than its entries need."""
    return sys.getsizeof(table) > _ROOMY_BASE + _ROOMY_ENTRY * len(table)


def slice_in_hash_order(table: Collection[bytes], start: int, room: int) -> tuple[int, list[bytes]]:
    """The first keys of ``table`` in hash order from the place ``start``, and the place behind them; 0: no key is left.

    At most ``room`` keys, plus those that share the last one's hash.
    """
    ordered = sorted(table, key=hash)
    first = bisect_left(ordered, start - _HALF, key=hash) if start else 0
    stop = first + room
    while stop < len(ordered) and hash(ordered[stop]) == hash(ordered[stop - 1]):
        stop += 1
    if stop >= len(ordered):
        return 0, ordered[first:]
    return (hash(ordered[stop - 1]) + 1 + _HALF) % _END, ordered[first:stop]


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
        old.divide(low, high, shift, upper)
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

    # -- giving memory back -------------------------------------------------------------------------------------------

    def shard_at(self, position: int) -> tuple[Shard[V], int]:
        """The shard at a place in hash order (0 <= position < 2**64), and the place behind it; 0 behind the last."""
        shard = self.directory[(position - _HALF) >> self.shift]
        width = 1 << (_HASH_BITS - shard.bits)
        return shard, (position // width + 1) * width % _END

    def compact_at(self, position: int) -> int:
        """Give back the memory that deletions have left at one place in hash order; the place to go on, 0 at the end.

        Merges the shard there with its neighbours while they hold few keys together, makes its dict anew if that is
        far larger than its content, and halves the directory at the end. Looks at one place only: call it now and then.
        """
        shard, _ = self.shard_at(position)
        while shard.bits:
            merged = self._merge(position, shard)
            if merged is None:
                break
            shard = merged
        if shard.roomy():
            self._put_at(position, shard.copy_at(self.epoch))
        _, following = self.shard_at(position)
        if not following:
            self._halve_directory()
        return following

    def _merge(self, position: int, shard: Shard[V]) -> Shard[V] | None:
        """The union of the shard at ``position`` and the one it was split from; None if that one is split or large."""
        width = 1 << (_HASH_BITS - shard.bits)
        neighbour = self.directory[((position ^ width) - _HALF) >> self.shift]
        if neighbour.bits != shard.bits or len(shard) + len(neighbour) > _MERGE_LIMIT:
            return None
        union = shard.empty(self.epoch, shard.bits - 1)
        for part in (shard, neighbour):
            for key in part:
                union.take(key, part)
        self._put_at(position, union)
        return union

    def _put_at(self, position: int, shard: Shard[V]) -> None:
        """Enter ``shard`` in every slot of its share of hash space, which holds ``position``."""
        width = 1 << (self.bits - shard.bits)
        start = ((position >> (_HASH_BITS - shard.bits)) * width if shard.bits else 0) - (1 << self.bits >> 1)
        for slot in range(start, start + width):
            self.directory[slot] = shard

    def _halve_directory(self) -> None:
        """Make the directory as small as its deepest shard allows."""
        while self.bits and all(shard.bits < self.bits for shard in self.shards()):
            half = len(self.directory) >> 1
            signed = (self.directory[half:] + self.directory[:half])[::2]
            middle = len(signed) >> 1
            self.bits -= 1
            self.shift += 1
            self.directory = signed[middle:] + signed[:middle]

    # -- walking ----------------------------------------------------------------------------------------------------

    def scan(self, cursor: int, count: int) -> tuple[int, list[bytes]]:
        """The next cursor (0 ends) and the next keys in hash order from ``cursor`` (0 starts), about ``count`` of them.

        Stateless: every key that is present from the first call to the last is returned, however the mapping changes
        in between. At most ``count`` keys, plus those that share the last one's hash. Cursors are below 2**64.
        """
        found: list[bytes] = []
        position = cursor
        while position < _END:
            shard, following = self.shard_at(position)
            position, keys = slice_in_hash_order(shard, position, count - len(found))
            found += keys
            position = position or following
            if not position or len(found) >= count:
                return position, found
        return 0, found

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
