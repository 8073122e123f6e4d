"""Data that is built aside, to take the place of a store's data, or of a part of them, in one step.

See ``Store.replace_all`` and ``prefix_keys.replace_keys``.
"""

from __future__ import annotations

from .keyspace import Keyspace
from .sharded import SHARD_LIMIT
from .values import Hash, Value, bytes_memory, value_memory

__all__ = ["PrefixStaging", "Staging"]


class Staging:
    """Keys that nobody reads yet, counted as a store counts its own.

    ``epoch`` is what the containers that are put in have been made with: the store's own as of the start, so that none
    is above the store's when it takes them over. Nothing here blocks or emits an effect.
    """

    __slots__ = ("epoch", "field_deadline_keys", "keyspace", "used")

    def __init__(self, epoch: int = 0) -> None:
        self.epoch = epoch
        self.keyspace = Keyspace()
        # Keys of hashes that have, or had, a field with a deadline.
        self.field_deadline_keys: dict[bytes, None] = {}
        # Bytes of all keys and values; the dictionaries around them are counted by memory().
        self.used = 0

    @property
    def count(self) -> int:
        """The number of keys."""
        return self.keyspace.count

    def put(self, key: bytes, value: Value, deadline: int | None = None) -> None:
        """Put ``value`` with its ``deadline`` (unix ms) under ``key``, whatever was there.

        A container must not be empty (a stream may be) and belongs to the staging from then on; it is not changed any
        more but by :meth:`set_field_deadline`.
        """
        keyspace = self.keyspace
        shard = keyspace.directory[hash(key) >> keyspace.shift]
        old = shard.get(key)
        shard[key] = value
        if old is None:
            self.used += bytes_memory(key) + value_memory(value)
            keyspace.count += 1
        else:
            self.used += value_memory(value) - value_memory(old)
            shard.deadlines.pop(key, None)
        if deadline is not None:
            shard.deadlines[key] = deadline
        if type(value) is Hash and value.deadlines is not None:
            self.field_deadline_keys[key] = None
        if len(shard) > SHARD_LIMIT:
            keyspace.split(key)

    def remove(self, key: bytes) -> bool:
        """Remove ``key`` with its deadline; True if it was there."""
        keyspace = self.keyspace
        shard = keyspace.directory[hash(key) >> keyspace.shift]
        value = shard.pop(key, None)
        if value is None:
            return False
        shard.deadlines.pop(key, None)
        keyspace.count -= 1
        self.used -= bytes_memory(key) + value_memory(value)
        return True

    def set_field_deadline(self, key: bytes, field: bytes, deadline: int) -> bool:
        """Give a field of the hash under ``key`` a deadline (unix ms); False if there is no such hash or field."""
        value = self.keyspace.get(key)
        if type(value) is not Hash or value.get(field) is None:
            return False
        before = value.payload
        value.set_deadline(field, deadline)
        self.used += value.payload - before
        self.field_deadline_keys[key] = None
        return True

    def memory(self) -> int:
        """Bytes that keys, values and the dictionaries around them take; walks the shards, not the keys."""
        return self.used + self.keyspace.memory()


class PrefixStaging(Staging):
    """A staging that takes only keys under any of ``prefixes``, and counts in ``left_out`` what else it was given."""

    __slots__ = ("left_out", "prefixes")

    def __init__(self, prefixes: tuple[bytes, ...], epoch: int = 0) -> None:
        super().__init__(epoch)
        self.prefixes = prefixes
        self.left_out = 0

    def put(self, key: bytes, value: Value, deadline: int | None = None) -> None:
        if key.startswith(self.prefixes):
            super().put(key, value, deadline)
        else:
            self.left_out += 1
