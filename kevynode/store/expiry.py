"""Active expiry: a walk that deletes what has expired though nobody asks for it, a little at a time.

Valkey samples keys at random until few of the sampled ones are stale. Here deadlines lie in shards, so a sweep looks at
whole shards in turn, and goes on for as long as more than a tenth of what it looked at was stale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from .commands.hash_fields import expire_fields
from .keyspace import KeyShard
from .memory import compact_values
from .store import Store

__all__ = ["ExpirySweeper"]

# A sweep goes on while more than one in so many of the deadlines it looked at had passed, as in Valkey.
_STALE_SHARE: Final = 10
_HASH_SPACE: Final = 1 << 64
# Deletions between two looks at the clock.
_BATCH: Final = 32
# Fields of one hash that are deleted as one group.
_FIELD_BATCH: Final = 256
# Seconds in which every shard is looked at once for memory to give back.
_COMPACTION_PERIOD: Final = 60


class ExpirySweeper:
    """Deletes what has expired, and gives back the memory of emptied dictionaries. Call it ``hz`` times a second.

    ``sample`` is the least number of deadlines that a sweep looks at. Every deleted key, and every batch of fields, is
    a group of its own in the journal: DEL with the event ``expired``, HDEL with ``hexpired`` (and ``del`` for the last
    field). A store whose deletions come from a stream is only compacted.
    """

    def __init__(self, store: Store, hz: int = 10, sample: int = 20) -> None:
        self.store = store
        self.hz = hz
        self.sample = sample
        # Switched off by tests that watch lazy expiry.
        self.active = True
        # How often a sweep ended because its time was over, and the share of stale deadlines, smoothed, in percent.
        self.time_cap_reached = 0
        self.stale_percent = 0.0
        # Places in hash order where the two walks go on.
        self._position = 0
        self._compacted = 0
        # Keys of hashes still to be visited in this round.
        self._hashes: Iterator[bytes] = iter(())
        # Deadlines that this sweep has looked at, and how many of them had passed.
        self._looked = self._found = 0

    def sweep(self, over: Callable[[], bool]) -> int:
        """Delete what has expired, as far as ``over()`` stays False; the number of keys and fields deleted.

        ``store.now`` must be the time of the call. Never blocks; with ``over`` True from the start it still takes one
        step, so that calling it always leads on.
        """
        expired = 0
        if self.active and self.store.deletes_expired:
            self._looked = self._found = 0
            expired = self._sweep_keys(over) + self._sweep_fields(over)
            if self._looked:
                self.stale_percent += 0.05 * (100 * self._found / self._looked - self.stale_percent)
        self._compact(over)
        return expired

    def work(self, over: Callable[[], bool]) -> bool:
        """As :meth:`sweep`, but says whether it ended for want of time, so that there is more to do at once."""
        before = self.time_cap_reached
        self.sweep(over)
        return self.time_cap_reached != before

    def _sweep_keys(self, over: Callable[[], bool]) -> int:
        total = looked = found = covered = 0
        while covered < _HASH_SPACE:
            shard, following = self.store.keyspace.shard_at(self._position)
            looked += len(shard.deadlines) or 1
            deleted, finished = self._delete_due(shard, over)
            total += deleted
            found += deleted
            if not finished:
                self.time_cap_reached += 1
                break
            covered += (following or _HASH_SPACE) - self._position
            self._position = following
            if looked >= self.sample:
                if found * _STALE_SHARE <= looked:
                    break
                looked = found = 0
            if over():
                self.time_cap_reached += 1
                break
        return total

    def _delete_due(self, shard: KeyShard, over: Callable[[], bool]) -> tuple[int, bool]:
        """Delete what has expired in one shard: how many keys, and whether that was all."""
        store, now = self.store, self.store.now
        deadlines = shard.deadlines
        due = [key for key, deadline in deadlines.items() if deadline < now] if deadlines else []
        if due and store.foreign is not None:
            # They stay until their writer's stream deletes them.
            foreign = store.foreign
            due = [key for key in due if not foreign(key)]
        self._looked += len(deadlines)
        for number, key in enumerate(due):
            if number % _BATCH == _BATCH - 1 and over():
                self._found += number
                return number, False
            store.expire(key)
            store.commit()
        self._found += len(due)
        return len(due), True

    def _sweep_fields(self, over: Callable[[], bool]) -> int:
        store = self.store
        total = found = 0
        # Every hash at most once in a sweep.
        for looked in range(1, len(store.field_deadline_keys) + 1):
            key = next(self._hashes, None)
            if key is None:
                self._hashes = iter(list(store.field_deadline_keys))
                key = next(self._hashes)
            deleted, finished = self._delete_due_fields(key, over)
            total += deleted
            found += deleted > 0
            if not finished or over():
                self.time_cap_reached += 1
                break
            if looked >= self.sample and found * _STALE_SHARE <= looked:
                break
        return total

    def _delete_due_fields(self, key: bytes, over: Callable[[], bool]) -> tuple[int, bool]:
        total = 0
        while True:
            deleted = expire_fields(self.store, key, _FIELD_BATCH)
            self.store.commit()
            total += deleted
            if deleted < _FIELD_BATCH:
                return total, True
            if over():
                return total, False

    def _compact(self, over: Callable[[], bool]) -> None:
        """Look at the next shards, and at the containers in them, for memory to give back."""
        keyspace = self.store.keyspace
        for _ in range(-(-len(keyspace.directory) // (self.hz * _COMPACTION_PERIOD))):
            shard, _ = keyspace.shard_at(self._compacted)
            compact_values(self.store, shard)
            self._compacted = keyspace.compact_at(self._compacted)
            if over():
                return
