"""Access clocks: when, or how often, each key was used. Kept only while the eviction policy asks for them.

``Store.tracker`` is called at every access while it is set. The clocks live in ``KeyShard.access``, one int for a key:
under an LRU policy the second of the last access, under an LFU policy ``minute << 8 | counter``, where the counter is
the logarithmic one of Valkey: it rises with a probability that falls as it grows, and falls with the minutes.
"""

from __future__ import annotations

from typing import Final

from .keyspace import KeyShard
from .sharded import Shard
from .store import Store
from .values import Value

__all__ = [
    "LFU_INITIAL",
    "LfuClocks",
    "LruClocks",
    "follow_policy",
    "frequency",
    "has_lfu_policy",
    "has_lru_policy",
    "idle_seconds",
    "read_untouched",
    "watch_accesses",
]

#: The counter of a new key: high enough not to be evicted before it had a chance.
LFU_INITIAL: Final = 5
LFU_LIMIT: Final = 255


def has_lru_policy(store: Store) -> bool:
    """Whether the policy looks at the time of the last access."""
    return store.settings.maxmemory_policy.endswith("-lru")


def has_lfu_policy(store: Store) -> bool:
    """Whether the policy looks at how often keys are used."""
    return store.settings.maxmemory_policy.endswith("-lfu")


class LruClocks:
    """The tracker of the LRU policies."""

    def __init__(self, store: Store) -> None:
        self.store = store
        # Keys without a clock were last used before this second.
        self.began = self._second = store.now // 1000

    def __call__(self, shard: Shard[Value], key: bytes) -> None:
        """Note an access to ``key``, which is in ``shard``."""
        second = self.store.now // 1000
        # The keys of a second share one int object; each would cost 32 bytes otherwise.
        if second != self._second:
            self._second = second
        shard.access[key] = self._second  # type: ignore[attr-defined]  # a keyspace is made of KeyShards


class LfuClocks:
    """The tracker of the LFU policies."""

    def __init__(self, store: Store) -> None:
        self.store = store
        # Keys without a clock count as new in this minute.
        self.began = store.now // 60_000

    def __call__(self, shard: Shard[Value], key: bytes) -> None:
        """Note an access to ``key``, which is in ``shard``."""
        access: dict[bytes, int] = shard.access  # type: ignore[attr-defined]  # a keyspace is made of KeyShards
        clock = access.get(key)
        counter = LFU_INITIAL if clock is None else self._raised(decayed(self.store, clock))
        access[key] = (self.store.now // 60_000) << 8 | counter

    def _raised(self, counter: int) -> int:
        if counter >= LFU_LIMIT:
            return counter
        above = max(counter - LFU_INITIAL, 0)
        chance = 1.0 / (above * self.store.settings.lfu_log_factor + 1)
        return counter + (self.store.random.random() < chance)


def follow_policy(store: Store) -> None:
    """Start, stop or change tracking as the policy needs. Call it at start and whenever the policy has been set.

    Clocks of another kind are dropped; walks the shards then, not the keys.
    """
    wanted = LruClocks if has_lru_policy(store) else LfuClocks if has_lfu_policy(store) else None
    if (None if store.tracker is None else type(store.tracker)) is wanted:
        return
    for shard in store.keyspace.shards():
        shard.access = {}
    store.tracker = None if wanted is None else wanted(store)


def watch_accesses(store: Store) -> None:
    """Keep LRU clocks from now on, whatever the policy: somebody wants to know how long keys have been idle.

    Until then they cost nothing. Setting the policy again stops it.
    """
    if store.tracker is None:
        store.tracker = LruClocks(store)


def decayed(store: Store, clock: int) -> int:
    """The counter in an LFU clock, lowered by the time that has passed since."""
    counter = clock & 255
    decay_minutes = store.settings.lfu_decay_time
    if decay_minutes:
        # A wall clock that was set back must not make keys popular.
        counter -= max(store.now // 60_000 - (clock >> 8), 0) // decay_minutes
    return max(counter, 0)


def idle_seconds(store: Store, shard: KeyShard, key: bytes) -> int:
    """Seconds since the last access to a key of ``shard``, as far as an LRU policy has been watching."""
    now = store.now // 1000
    tracker = store.tracker
    began = tracker.began if isinstance(tracker, LruClocks) else now
    return max(now - shard.access.get(key, began), 0)


def frequency(store: Store, shard: KeyShard, key: bytes) -> int:
    """The access counter of a key of ``shard``, 0 to 255, decayed to this minute, as an LFU policy sees it."""
    clock = shard.access.get(key)
    if clock is None:
        tracker = store.tracker
        began = tracker.began if isinstance(tracker, LfuClocks) else store.now // 60_000
        clock = began << 8 | LFU_INITIAL
    return decayed(store, clock)


def read_untouched(store: Store, key: bytes) -> Value | None:
    """As ``store.read``, but the access clock stays as it is: what TYPE, EXISTS and TTL do."""
    tracker = store.tracker
    if tracker is None:
        return store.read(key)
    store.tracker = None
    try:
        return store.read(key)
    finally:
        store.tracker = tracker
