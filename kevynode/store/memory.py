"""How much memory keys take, from counts that are kept up to date: for MEMORY USAGE, INFO and the evictor."""

from __future__ import annotations

from typing import Final
from weakref import ReferenceType, ref

from .keyspace import KeyShard, Keyspace
from .store import Store
from .values import Value, bytes_memory, value_memory

__all__ = ["MemoryMeter", "compact_values", "key_memory"]

# The structure is measured again when the number of keys has changed by this share.
_DRIFT: Final = 1 / 16
# What a key's entry in a dict takes, on average between two growths, and the number of a deadline.
_ENTRY_MEMORY: Final = 44
_INT_MEMORY: Final = 32


def key_memory(store: Store, key: bytes, value: Value) -> int:
    """Bytes that ``key``, its ``value``, its deadline and its entry in the keyspace take; O(1)."""
    size = bytes_memory(key) + value_memory(value) + _ENTRY_MEMORY
    return size if store.deadline(key) is None else size + _ENTRY_MEMORY + _INT_MEMORY


class MemoryMeter:
    """The store's memory in O(1): the structure, which takes a walk over the shards, is measured once in a while."""

    def __init__(self, store: Store) -> None:
        self.store = store
        # Weak: what a flush removes is freed piece by piece, by whoever empties ``store.discarded``, and not all at
        # once when it is let go of here.
        self._keyspace: ReferenceType[Keyspace] | None = None
        self._count = 0
        self._structure = 0

    def used(self) -> int:
        """Bytes that keys, values and dictionaries take; the dictionaries' part may be off by a few percent."""
        store = self.store
        keyspace = store.keyspace
        measured = None if self._keyspace is None else self._keyspace()
        if keyspace is not measured or abs(keyspace.count - self._count) > 64 + self._count * _DRIFT:
            self.measure()
        return store.used + self._structure

    def foreign(self) -> int:
        """Bytes of :meth:`used` that copies of other nodes' keys take; their part of the dictionaries is a share."""
        store = self.store
        if not store.foreign_keys:
            return 0
        return max(0, store.foreign_used) + self._structure * store.foreign_keys // max(self._count, 1)

    def measure(self) -> None:
        """Measure the structure now; walks the shards, not the keys."""
        keyspace = self.store.keyspace
        self._keyspace = ref(keyspace)
        self._count = keyspace.count
        self._structure = keyspace.memory()


def compact_values(store: Store, shard: KeyShard) -> None:
    """Give back the memory that deletions have left inside the containers of one shard.

    A container that a snapshot may still hold is left alone.
    """
    foreign = store.foreign
    for key, value in shard.items():
        if not isinstance(value, bytes) and value.epoch == store.epoch:
            before = value.memory()
            value.compact(store.random)
            given_back = before - value.memory()
            if given_back:
                store.used -= given_back
                if foreign is not None and foreign(key):
                    store.foreign_used -= given_back
