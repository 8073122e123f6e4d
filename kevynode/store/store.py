"""The store: what command handlers read and change.

A handler is synchronous and gets ``(store, argv)``. It validates everything, then changes values through the methods
here, and emits one canonical effect for each change (:meth:`Store.emit`). The dispatcher calls :meth:`Store.commit`
when the command, or the whole EXEC, is done.

Time stands still while a command runs: ``now`` (unix ms) is set by the dispatcher.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar

from .. import errors
from . import notify
from .journal import Event, Journal
from .keyspace import KeyShard, Keyspace
from .settings import StoreSettings
from .sharded import SHARD_LIMIT, RandomSource, Shard
from .staging import Staging
from .stream_values import Stream
from .values import Hash, List, Set, SortedSet, Value, bytes_memory, value_memory

__all__ = ["Container", "Store"]

Container: TypeAlias = Hash | List | Set | SortedSet | Stream
C = TypeVar("C", Hash, List, Set, SortedSet, Stream)


class Store:
    """The data of one node. Owned by one thread; nothing here blocks or checkpoints."""

    __slots__ = (
        "deletes_expired",
        "deletions_paused",
        "discarded",
        "epoch",
        "expired_fields",
        "expired_keys",
        "field_deadline_keys",
        "foreign",
        "foreign_keys",
        "foreign_used",
        "hits",
        "journal",
        "keyspace",
        "misses",
        "now",
        "on_event",
        "random",
        "settings",
        "touched",
        "tracker",
        "used",
    )

    def __init__(
        self, random: RandomSource, journal: Journal | None = None, settings: StoreSettings | None = None
    ) -> None:
        self.random = random
        self.journal = journal if journal is not None else Journal()
        self.settings = settings if settings is not None else StoreSettings()
        # The wall clock in unix ms, as of the start of the running command.
        self.now = 0
        self.keyspace = Keyspace()
        self.epoch = 0
        # Keys of hashes that have, or had lately, a field with a deadline: what the field sweeper visits.
        self.field_deadline_keys: dict[bytes, None] = {}
        # A copy of somebody else's data hides what has expired but leaves the deletion to the stream.
        self.deletes_expired = True
        # Which keys are not this node's to change by itself: they are hidden when they have expired, and never deleted,
        # evicted or flushed here. None: there are no such keys.
        self.foreign: Callable[[bytes], bool] | None = None
        # How many keys here are copies of what other nodes write, and the bytes of those keys and their values (part
        # of ``used``); see kevynode.store.foreign.
        self.foreign_keys = self.foreign_used = 0
        # While writes are paused (CLIENT PAUSE) what has expired is hidden and deleted later, as in Valkey.
        self.deletions_paused = False
        # Called as (shard, key) at every access while the eviction policy needs access clocks, else None.
        self.tracker: Callable[[Shard[Value], bytes], None] | None = None
        # Called as (class flag, event name, key) for events that belong to no change (key misses, new keys).
        self.on_event: Callable[[int, bytes, bytes], None] | None = None
        # Bytes of all keys and values; the dictionaries around them are counted by memory().
        self.used = 0
        self.hits = self.misses = 0
        self.expired_keys = self.expired_fields = 0
        # Shards that nobody reads any more, for somebody who has time to let go of them one by one: freeing millions of
        # keys takes long.
        self.discarded: list[Shard[Value]] = []
        # Containers opened for writing since the last settle(), with their memory before: id -> (container, bytes).
        self.touched: dict[int, tuple[Container, int]] = {}

    # -- reading ----------------------------------------------------------------------------------------------------

    def lookup(self, key: bytes) -> Value | None:
        """The live value under ``key`` or None, without counting a hit or a miss. Deletes the key if it has expired."""
        keyspace = self.keyspace
        shard = keyspace.directory[hash(key) >> keyspace.shift]
        value = shard.get(key)
        if value is None:
            return None
        if shard.deadlines and shard.deadlines.get(key, self.now) < self.now:
            self.expire(key)
            return None
        if self.tracker is not None:
            self.tracker(shard, key)
        return value

    def peek(self, key: bytes) -> Value | None:
        """As :meth:`lookup`, but leaves the access clock alone and never deletes (OBJECT, DEBUG, SCAN filters)."""
        shard = self.keyspace.directory[hash(key) >> self.keyspace.shift]
        value = shard.get(key)
        if value is not None and shard.deadlines and shard.deadlines.get(key, self.now) < self.now:
            return None
        return value

    def read(self, key: bytes) -> Value | None:
        """The live value under ``key`` or None, counted as a hit or a miss: what a reading command calls."""
        value = self.lookup(key)
        if value is None:
            self.misses += 1
            self.announce(notify.KEY_MISS, b"keymiss", key)
        else:
            self.hits += 1
        return value

    def read_string(self, key: bytes) -> bytes | None:
        """The string under ``key`` or None; raises WRONGTYPE for any other type."""
        value = self.read(key)
        if value is None or type(value) is bytes:
            return value
        raise errors.WRONG_TYPE()

    def read_as(self, key: bytes, kind: type[C]) -> C | None:
        """The container under ``key`` or None, for reading only; raises WRONGTYPE for any other type."""
        value = self.read(key)
        if value is None or type(value) is kind:
            return value
        raise errors.WRONG_TYPE()

    def deadline(self, key: bytes) -> int | None:
        """The deadline of a key in unix ms, or None; only meaningful for a key that :meth:`lookup` found."""
        return self.keyspace.directory[hash(key) >> self.keyspace.shift].deadlines.get(key)

    # -- writing ----------------------------------------------------------------------------------------------------

    def lookup_as(self, key: bytes, kind: type[C]) -> C | None:
        """The container under ``key`` or None, for a look before a write; raises WRONGTYPE for any other type."""
        value = self.lookup(key)
        if value is None or type(value) is kind:
            return value
        raise errors.WRONG_TYPE()

    def lookup_string(self, key: bytes) -> bytes | None:
        """The string under ``key`` or None, for a look before a write; raises WRONGTYPE for any other type."""
        value = self.lookup(key)
        if value is None or type(value) is bytes:
            return value
        raise errors.WRONG_TYPE()

    def write(self, key: bytes, kind: type[C]) -> C | None:
        """The container under ``key``, ready to be changed, or None; raises WRONGTYPE for any other type.

        A container that a snapshot may still hold is copied first. The caller emits an effect for what it changes and
        calls :meth:`drop_if_empty` after removing elements.
        """
        keyspace = self.keyspace
        shard = keyspace.directory[hash(key) >> keyspace.shift]
        held = shard.get(key)
        if type(held) is kind and held.epoch == self.epoch and key not in shard.deadlines and self.tracker is None:
            # What the careful way below comes to for most containers, without the calls.
            if id(held) not in self.touched:
                self.touched[id(held)] = (held, held.memory())
            return held
        value = self.lookup_as(key, kind)
        return None if value is None else self._open(key, value)

    def write_or_create(self, key: bytes, kind: type[C]) -> C:
        """As :meth:`write`, but puts an empty container under a key that has none; the caller must then fill it."""
        value = self.write(key, kind)
        if value is None:
            value = kind(self.epoch)
            self.put(key, value)
            self.touched[id(value)] = (value, value.memory())
        return value

    def _open(self, key: bytes, value: C) -> C:
        before = value.memory()
        if value.epoch != self.epoch:
            # The copy may be packed tighter than what it stands for, which is what was counted.
            value = value.copy_at(self.epoch)
            self.keyspace.writable(key)[key] = value
        if id(value) not in self.touched:
            self.touched[id(value)] = (value, before)
        return value

    def put(self, key: bytes, value: Value, keep_deadline: bool = False) -> None:
        """Put ``value`` under ``key``, whatever was there; the deadline goes unless ``keep_deadline``."""
        keyspace = self.keyspace
        shard = keyspace.directory[hash(key) >> keyspace.shift]
        if shard.epoch != keyspace.epoch:
            shard = keyspace.writable(key)
        old = shard.get(key)
        if old is not None and shard.deadlines:
            if shard.deadlines.get(key, self.now) < self.now:
                if self.expire(key):
                    old = None
                else:
                    # It may only be hidden, but counts as gone: what takes its place must not be hidden too.
                    del shard.deadlines[key]
            elif not keep_deadline:
                shard.deadlines.pop(key, None)
        shard[key] = value
        if old is None:
            self.used += bytes_memory(key) + value_memory(value)
            keyspace.count += 1
            if len(shard) > SHARD_LIMIT:
                keyspace.split(key)
            self.announce(notify.NEW, b"new", key)
        else:
            self.used += value_memory(value) - value_memory(old)
        if self.tracker is not None:
            self.tracker(keyspace.directory[hash(key) >> keyspace.shift], key)

    def delete(self, key: bytes) -> bool:
        """Remove ``key`` with its deadline; True if it was there, expired or not. Emits nothing."""
        keyspace = self.keyspace
        shard = keyspace.writable(key)
        value = shard.pop(key, None)
        if value is None:
            return False
        keyspace.count -= 1
        self.used -= bytes_memory(key) + value_memory(value)
        if shard.deadlines:
            shard.deadlines.pop(key, None)
        if shard.access:
            shard.access.pop(key, None)
        return True

    def drop_if_empty(self, key: bytes, value: Container) -> bool:
        """Remove ``key`` if its container has become empty; True if it did. The caller adds the ``del`` event."""
        return not len(value) and self.delete(key)

    def set_deadline(self, key: bytes, deadline: int) -> None:
        """Give an existing key a deadline (unix ms)."""
        self.keyspace.writable(key).deadlines[key] = deadline

    def clear_deadline(self, key: bytes) -> bool:
        """Take the deadline of a key away; True if it had one."""
        shard = self.keyspace.directory[hash(key) >> self.keyspace.shift]
        if key not in shard.deadlines:
            return False
        del self.keyspace.writable(key).deadlines[key]
        return True

    def clear(self) -> None:
        """Remove every key at once. The caller emits the effect. Much data is freed when ``discarded`` is emptied."""
        if len(self.keyspace.directory) > 1:
            self.discarded += self.keyspace.shards()
        self.keyspace = Keyspace(self.keyspace.epoch)
        self.field_deadline_keys = {}
        self.used = self.foreign_keys = self.foreign_used = 0
        self.touched.clear()

    def expire(self, key: bytes) -> bool:
        """Delete a key whose deadline has passed, as a change of its own; False where it may only be hidden now."""
        if not self.deletes_expired or self.deletions_paused or (self.foreign is not None and self.foreign(key)):
            return False
        self.delete(key)
        self.expired_keys += 1
        self.emit((b"DEL", key), key, (notify.EXPIRED, b"expired", key))
        return True

    # -- effects ----------------------------------------------------------------------------------------------------

    def emit(self, command: Sequence[bytes], key: bytes | None, *events: Event) -> None:
        """Enter one change that has been made into the journal.

        ``command`` is its canonical form (see ``journal.Effect``), ``key`` the key changed (None: all of them), and
        ``events`` the (class flag, name, key) triples that Valkey publishes for it, in order.
        """
        self.journal.pending.append((command, key, events))

    def settle(self) -> None:
        """Count what the containers opened for writing have grown or shrunk by."""
        for value, before in self.touched.values():
            self.used += value.memory() - before
        self.touched.clear()

    def commit(self) -> None:
        """End the running command or EXEC: settle memory, close the group."""
        if self.touched:
            self.settle()
        if self.journal.pending:
            self.journal.commit()

    def announce(self, flag: int, name: bytes, key: bytes) -> None:
        """Publish an event that belongs to no change (a key miss, a trim that cut nothing)."""
        if self.on_event is not None and self.settings.notify_keyspace_events & flag:
            self.on_event(flag, name, key)

    def freeze(self) -> list[KeyShard]:
        """The data as of ``journal.offset``, shard by shard in hash order; later writes leave it untouched.

        O(number of shards): shards and containers are copied when they are first written to. Raises RuntimeError inside
        a command or a transaction, because a snapshot must not cut a group in two.
        """
        if self.journal.pending or self.touched:
            raise RuntimeError("a snapshot can only be taken between two groups")
        self.epoch += 1
        return self.keyspace.freeze()

    def replace_all(self, staging: Staging, next_offset: int | None = None) -> None:
        """Hold what ``staging`` holds, and nothing else, from now on; the staging must not be used any more.

        One step: watchers, blocked clients and observers hear of it as one change of all keys, FLUSHALL's, without an
        offset. ``next_offset`` is the one that the next effect gets; None: it stays. Raises RuntimeError inside a
        command or a transaction. Much data is freed when ``discarded`` is emptied.
        """
        self.take_over(staging)
        self.emit((b"FLUSHALL",), None)
        self.journal.commit(self.journal.offset if next_offset is None else next_offset)

    def take_over(self, staging: Staging) -> None:
        """As :meth:`replace_all`, but nobody hears of it and the next effect's offset stays: data found at the start.

        Only while nobody has seen other data here. Raises RuntimeError inside a command or a transaction.
        """
        if self.journal.pending:
            raise RuntimeError("the data can only be replaced between two groups")
        self.settle()
        self.discarded += self.keyspace.shards()
        self.keyspace = staging.keyspace
        # Snapshots hold only containers that have just been left behind, so none of the new ones needs to be copied.
        self.epoch = staging.epoch
        self.field_deadline_keys = staging.field_deadline_keys
        self.used = staging.used

    # -- the whole --------------------------------------------------------------------------------------------------

    def memory(self) -> int:
        """Bytes that keys, values and the dictionaries around them take; walks the shards, not the keys."""
        return self.used + self.keyspace.memory()
