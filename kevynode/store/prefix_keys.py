"""The keys under some prefixes: finding and counting them, and replacing or removing all of them in one step.

The keyspace knows no prefixes, so finding means walking it, a shard at a time where it may not take long.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from . import notify
from .keyspace import KeyShard
from .rebuild import rebuild_commands
from .staging import Staging
from .store import Store
from .values import Hash, Value

__all__ = ["all_keys_under", "count_under", "drop_keys", "keys_under", "replace_keys"]


def keys_under(store: Store, prefixes: tuple[bytes, ...], position: int) -> tuple[int, list[bytes]]:
    """The keys under any of ``prefixes`` in one shard, and where to go on; 0 begins, and 0 is the end.

    Keys that are there from the first call to the last are all found, whatever is written meanwhile, some perhaps
    twice. A shard holds about a thousand keys.
    """
    shard, following = store.keyspace.shard_at(position)
    return following, [key for key in shard if key.startswith(prefixes)]


def all_keys_under(store: Store, prefixes: tuple[bytes, ...]) -> list[bytes]:
    """Every key under any of ``prefixes``, expired or not. Walks all keys."""
    return [key for shard in store.keyspace.shards() for key in shard if key.startswith(prefixes)]


def count_under(store: Store, prefixes: tuple[bytes, ...]) -> int:
    """How many keys there are under any of ``prefixes``, expired or not. Walks all keys."""
    return sum(key.startswith(prefixes) for shard in store.keyspace.shards() for key in shard)


def drop_keys(store: Store, keys: Iterable[bytes]) -> int:
    """Remove those of ``keys`` that are there, expired or not; how many. The effects are pending then."""
    dropped = 0
    for key in keys:
        if store.delete(key):
            store.emit((b"DEL", key), key, (notify.GENERIC, b"del", key))
            dropped += 1
    return dropped


def replace_keys(store: Store, keys: Collection[bytes], staging: Staging) -> int:
    """Hold, of ``keys`` and of those in ``staging``, exactly what ``staging`` holds; how many keys have changed.

    The staging must not be used any more. One step: the effects, which are pending then, build each changed key anew;
    a string that is the same here as there is no change. Takes time in proportion to the keys, a few microseconds each.
    """
    store.settle()
    arrived = staging.keyspace
    changed = drop_keys(store, (key for key in keys if key not in arrived))
    now = store.now
    # Nothing has expired at 0: what is hidden here is replaced as anything else.
    store.now = 0
    try:
        for shard in arrived.shards():
            deadlines = shard.deadlines
            for key, value in shard.items():
                changed += _replace(store, key, value, deadlines.get(key) if deadlines else None)
    finally:
        store.now = now
    return changed


def _replace(store: Store, key: bytes, value: Value, deadline: int | None) -> bool:
    """Put a value that nobody else holds under ``key``; False if it is there already."""
    keyspace = store.keyspace
    shard: KeyShard = keyspace.directory[hash(key) >> keyspace.shift]
    held = shard.get(key)
    pending = store.journal.pending
    # What is told is that the key has been replaced, as RESTORE tells it, and not each step that says so.
    told = ((notify.GENERIC, b"restore", key),) if store.settings.notify_keyspace_events else ()
    if type(value) is bytes:
        if held is not None and held == value and shard.deadlines.get(key) == deadline:
            return False
        # SET takes the place of anything; what builds other types adds to what there is.
        store.put(key, value)
        pending.append(((b"SET", key, value), key, told))
        if deadline is not None:
            store.set_deadline(key, deadline)
            pending.append(((b"PEXPIREAT", key, b"%d" % deadline), key, ()))
        return True
    if held is not None:
        store.delete(key)
        pending.append(((b"DEL", key), key, ()))
    store.put(key, value)
    if deadline is not None:
        store.set_deadline(key, deadline)
    if type(value) is Hash and value.deadlines:
        store.field_deadline_keys[key] = None
    for command in rebuild_commands(key, value, deadline):
        pending.append((command, key, told))
        told = ()
    return True
