"""The keyspace: a sharded dictionary from key to value whose shards also hold the keys' deadlines and access clocks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from .sharded import Shard, ShardedDict, is_roomy
from .untracked import untrack
from .values import Value

__all__ = ["KeyShard", "Keyspace"]


# The number, and half of a second key object: EXPIRE brings one of its own, SET with an option shares it.
_DEADLINE_MEMORY = 32 + 20


class KeyShard(Shard[Value]):
    """Keys with their values; ``deadlines`` holds the unix-ms deadline of those that have one.

    ``access`` holds what the eviction policy knows about each key (seconds of the last access for LRU, a counter for
    LFU); it stays empty while the policy needs nothing.
    """

    __slots__ = ("access", "deadlines")

    def __init__(self, epoch: int = 0, bits: int = 0) -> None:
        super().__init__(epoch, bits)
        self.deadlines: dict[bytes, int] = {}
        self.access: dict[bytes, int] = {}
        untrack(self)

    def take(self, key: bytes, source: Shard[Value]) -> None:
        source = cast(KeyShard, source)
        self[key] = source[key]
        deadline = source.deadlines.get(key)
        if deadline is not None:
            self.deadlines[key] = deadline
        clock = source.access.get(key)
        if clock is not None:
            self.access[key] = clock

    def divide(self, low: Shard[Value], high: Shard[Value], shift: int, upper: int) -> None:
        if not self.deadlines and not self.access:
            super().divide(low, high, shift, upper)
            return
        # Key by key: tables that grow in turn use the room that one another's smaller ones have left.
        for key in self:
            (high if (hash(key) >> shift) & 1 == upper else low).take(key, self)

    def copy_at(self, epoch: int) -> KeyShard:
        fresh = KeyShard(epoch, self.bits)
        fresh.update(self)
        fresh.deadlines = dict(self.deadlines)
        fresh.access = self.access
        return fresh

    def roomy(self) -> bool:
        return is_roomy(self) or is_roomy(self.deadlines)

    def memory(self) -> int:
        return (
            sys.getsizeof(self)
            + sys.getsizeof(self.deadlines)
            + sys.getsizeof(self.access)
            + _DEADLINE_MEMORY * len(self.deadlines)
        )


class Keyspace(ShardedDict[Value]):
    """All keys of one partition."""

    __slots__ = ("__weakref__",)
    shard_class = KeyShard
    if TYPE_CHECKING:
        # Every shard is made by ``shard_class``; a cast at each access would cost as much as the access.
        directory: list[KeyShard]  # type: ignore[assignment]

        def writable(self, key: bytes) -> KeyShard: ...
        def shards(self) -> Iterator[KeyShard]: ...
        def freeze(self) -> list[KeyShard]: ...  # type: ignore[override]  # a list, for once not only read
        def shard_at(self, position: int) -> tuple[KeyShard, int]: ...
