"""Eviction: making room when the data has reached ``maxmemory``, by the policies of Valkey.

As Valkey does, a few keys are sampled at random and the best of them go into a small pool of candidates, which is kept
from one call to the next; the best candidate that still exists is evicted.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Final

from . import notify
from .access import follow_policy, frequency, idle_seconds
from .keyspace import KeyShard
from .store import Store

__all__ = ["Evictor"]

# As Valkey.
_POOL_SIZE: Final = 16
# Evictions between two looks at the clock.
_BATCH: Final = 16
# Slots tried for a shard that has something to offer, before the shards are searched one by one.
_TRIES: Final = 8
# Shards searched one by one in one go where keys of other nodes lie among our own.
_SEARCHED: Final = 16


class Evictor:
    """Deletes keys by the policy ``store.settings.maxmemory_policy`` while more than ``maxmemory`` bytes are in use.

    ``used_memory`` tells how much is in use; it is asked once for each call of :meth:`make_room`. Every evicted key is
    a group of its own in the journal: DEL with the event ``evicted``. Keys of other nodes (``store.foreign``) stay, and
    ``used_memory`` should leave them out.
    """

    def __init__(self, store: Store, used_memory: Callable[[], int]) -> None:
        self.store = store
        self.used_memory = used_memory
        self.evicted_keys = 0
        # More than maxmemory was still in use when the time of the last call was over.
        self.behind = False
        # Candidates (score, key): the last one has waited longest, is used least, or expires first.
        self._pool: list[tuple[int, bytes]] = []
        self._policy = ""
        # Among keys of other nodes: the slot searched last, how many in a row held nothing to evict, and whether the
        # search ended before it had seen all.
        self._slot = self._fruitless = 0
        self._searching = False
        self.follow_policy()

    def follow_policy(self) -> None:
        """Keep the access clocks that the policy needs. Call it when the policy has been set."""
        if self.store.settings.maxmemory_policy != self._policy:
            self._policy = self.store.settings.maxmemory_policy
            self._pool.clear()
        follow_policy(self.store)

    def make_room(self, over: Callable[[], bool]) -> bool:
        """Evict until there is room or ``over()`` turns True; False if the policy leaves nothing to evict.

        Commands that need memory are to be refused then. At most a batch of keys is evicted after the time is over, and
        ``behind`` says that there is more to do, or that something to evict is still searched for. Never blocks. Not to
        be called inside a command, for its effects would join that command's group.
        """
        limit = self.store.settings.maxmemory
        self.behind = self._searching = False
        if not limit:
            return True
        excess = self.used_memory() - limit
        if excess <= 0:
            return True
        if not self.store.deletes_expired:
            # What a copy holds is its writer's choice.
            return True
        self.follow_policy()
        target = self.store.used - excess
        number = 0
        while self.store.used > target:
            key = self._choose()
            if key is None:
                self.behind = self._searching
                return self.behind
            self._evict(key)
            number += 1
            if number % _BATCH == 0 and over():
                self.behind = self.store.used > target
                return True
        return True

    def _evict(self, key: bytes) -> None:
        store = self.store
        store.delete(key)
        self.evicted_keys += 1
        store.emit((b"DEL", key), key, (notify.EVICTED, b"evicted", key))
        store.commit()

    # -- choosing -----------------------------------------------------------------------------------------------------

    def _choose(self) -> bytes | None:
        """The key to evict next, or None if the policy allows none."""
        policy = self._policy
        if policy == "noeviction":
            return None
        volatile = policy.startswith("volatile-")
        if policy.endswith("-random"):
            found = self._sample(volatile, 1)
            return None if found is None else found[1][0]
        while True:
            if not self._fill_pool(volatile):
                return None
            while self._pool:
                _, key = self._pool.pop()
                shard = self._shard(key)
                # Since it became a candidate it may have been deleted or become permanent, or another node's.
                if key in (shard.deadlines if volatile else shard) and not self._stays(key):
                    return key

    def _fill_pool(self, volatile: bool) -> bool:
        """Sample some keys and keep the best candidates; False if there is nothing to sample."""
        found = self._sample(volatile, self.store.settings.maxmemory_samples)
        if found is None:
            return False
        pool = self._pool
        shard, keys = found
        waiting = {key for _, key in pool}
        for key in keys:
            if key not in waiting:
                insort(pool, (self._score(shard, key), key))
        del pool[:-_POOL_SIZE]
        return True

    def _score(self, shard: KeyShard, key: bytes) -> int:
        """How much ``key`` deserves to be evicted."""
        if self._policy.endswith("-lru"):
            return idle_seconds(self.store, shard, key)
        if self._policy.endswith("-lfu"):
            return -frequency(self.store, shard, key)
        return -shard.deadlines[key]

    def _sample(self, volatile: bool, count: int) -> tuple[KeyShard, list[bytes]] | None:
        """At most ``count`` keys of a random shard, of all keys or of those with a deadline; None if there are none.

        They are spread over the shard from its oldest to its newest key, and taken in one walk: a step to the next key
        costs more than all that is done with the key.
        """
        if self.store.foreign is not None:
            return self._sample_own(volatile, count)
        # A product with a float is several times faster than randrange, and even enough for a sample.
        random = self.store.random.random
        directory = self.store.keyspace.directory
        size = len(directory)
        start = 0
        for turn in range(_TRIES + size):
            # After some tries at random, one shard after the other.
            start = int(random() * size) if turn < _TRIES else (start + 1) % size
            shard = directory[start]
            keys: Mapping[bytes, object] = shard.deadlines if volatile else shard
            if keys:
                return shard, self._spread(keys, count)
        return None

    def _spread(self, keys: Mapping[bytes, object], count: int) -> list[bytes]:
        step = max(len(keys) // count, 1)
        return list(islice(islice(keys, int(self.store.random.random() * step), None, step), count))

    def _sample_own(self, volatile: bool, count: int) -> tuple[KeyShard, list[bytes]] | None:
        """As :meth:`_sample`, where most keys may be other nodes': searches on from call to call, a bit at a time."""
        store = self.store
        self._searching = False
        if store.foreign_keys >= len(store.keyspace):
            return None
        directory = store.keyspace.directory
        size = len(directory)
        for turn in range(_TRIES + _SEARCHED):
            at_random = turn < _TRIES
            if not at_random:
                self._slot = (self._slot + 1) % size
            shard = directory[int(store.random.random() * size) if at_random else self._slot % size]
            keys: Mapping[bytes, object] = shard.deadlines if volatile else shard
            # At random a few keys are looked at, in turn all of them.
            own = [key for key in self._spread(keys, count if at_random else len(keys) or 1) if not self._stays(key)]
            if own:
                self._fruitless = 0
                return shard, own[:count]
            if not at_random:
                self._fruitless += 1
                if self._fruitless >= size:
                    self._fruitless = 0
                    return None
        self._searching = True
        return None

    def _stays(self, key: bytes) -> bool:
        foreign = self.store.foreign
        return foreign is not None and foreign(key)

    def _shard(self, key: bytes) -> KeyShard:
        keyspace = self.store.keyspace
        return keyspace.directory[hash(key) >> keyspace.shift]
