"""How much of the data are copies of what other nodes write: counted by a walk, kept up by whoever applies changes.

The keys of other nodes change only where their streams are applied, so nothing that clients write has to be counted:
whoever applies such changes does it inside :func:`foreign_changes`. The walk finds what has become another node's, or
this one's, when an owner has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from .keyspace import Keyspace
from .store import Store
from .values import bytes_memory, value_memory

__all__ = ["ForeignCount", "foreign_changes"]

_HASH_SPACE: Final = 1 << 64


@contextmanager
def foreign_changes(store: Store) -> Iterator[None]:
    """Whatever changes inside is of keys that other nodes write: ``foreign_keys`` and ``foreign_used`` follow.

    For a batch of changes that are applied, and for the replacement of a whole prefix. Not inside a command or another
    of these; what is pending is left to the caller to commit.
    """
    store.settle()
    keys, used = len(store.keyspace), store.used
    try:
        yield
    finally:
        store.settle()
        store.foreign_keys += len(store.keyspace) - keys
        store.foreign_used += store.used - used


class ForeignCount:
    """Counts ``store.foreign_keys`` and ``store.foreign_used`` anew, shard by shard.

    What changes while it walks is taken to be spread evenly over the walk, as hashes spread keys; the next walk sets
    right what that is off by. Nothing here blocks.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._is_foreign: Callable[[bytes], bool] | None = None
        # Where the walk goes on in hash order; None while none is under way.
        self._position: int | None = None
        self._keys = self._used = 0
        # The data that are walked over, and what was known when the walk began.
        self._keyspace: Keyspace = store.keyspace
        self._keys_before = self._used_before = 0

    def restart(self, is_foreign: Callable[[bytes], bool] | None) -> None:
        """Begin a walk: ``is_foreign`` says which keys other nodes write; None: none are, and nothing is walked."""
        store = self._store
        self._is_foreign = is_foreign
        self._keys = self._used = 0
        self._keyspace = store.keyspace
        if is_foreign is None:
            self._position = None
            store.foreign_keys = store.foreign_used = 0
        else:
            self._position = 0
            self._keys_before, self._used_before = store.foreign_keys, store.foreign_used

    def again(self) -> None:
        """Begin the walk anew: data have come by a way that counts nothing, or the sums may have drifted."""
        self.restart(self._is_foreign)

    def work(self, over: Callable[[], bool]) -> bool:
        """Walk on until ``over()`` turns True; whether there is more to do. Takes one shard at least."""
        if self._is_foreign is not None and self._store.keyspace is not self._keyspace:
            # All data have been replaced.
            self.restart(self._is_foreign)
        while self._position is not None:
            self._take_shard(self._position)
            if over():
                break
        return self._position is not None

    def _take_shard(self, position: int) -> None:
        store, is_foreign = self._store, self._is_foreign
        assert is_foreign is not None
        # What has been applied since the last step, as far as it fell on what lies behind the walk.
        behind = position / _HASH_SPACE
        self._keys += round(behind * (store.foreign_keys - self._keys_before))
        self._used += round(behind * (store.foreign_used - self._used_before))
        self._keys_before, self._used_before = store.foreign_keys, store.foreign_used
        shard, following = store.keyspace.shard_at(position)
        for key, value in shard.items():
            if is_foreign(key):
                self._keys += 1
                self._used += bytes_memory(key) + value_memory(value)
        self._position = following or None
        if not following:
            store.foreign_keys, store.foreign_used = max(self._keys, 0), max(self._used, 0)
