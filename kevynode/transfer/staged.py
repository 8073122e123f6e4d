"""Data on its way from one place to another: taken from a store, and rid of what nobody wants."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import attrs

from ..store.staging import Staging
from ..store.store import Store
from ..store.values import Hash, value_memory

__all__ = ["Swept", "staged", "sweep"]

#: Fields of hashes that are looked at between two pauses.
_SLICE: Final = 1000


@attrs.define
class Swept:
    """How many keys, and fields of keys that stay, were removed, and why."""

    expired: int = 0
    expired_fields: int = 0
    other_prefixes: int = 0


def staged(store: Store) -> Staging:
    """The data of a store that nobody uses any more."""
    staging = Staging(store.epoch)
    staging.keyspace = store.keyspace
    staging.field_deadline_keys = store.field_deadline_keys
    staging.used = store.used
    return staging


def sweep(staging: Staging, swept: Swept, *, prefix: bytes = b"", now_ms: int = 0) -> Iterator[None]:
    """Remove what has expired by ``now_ms`` (unix ms; 0: nothing has) and all keys that do not begin with ``prefix``.

    Counts in ``swept``. Works in steps of a few milliseconds, and does not block.
    """
    for shard in list(staging.keyspace.shards()):
        others = [key for key in shard if not key.startswith(prefix)] if prefix else []
        for key in others:
            staging.remove(key)
        expired = [key for key, deadline in shard.deadlines.items() if deadline < now_ms]
        for key in expired:
            staging.remove(key)
        swept.expired += len(expired)
        swept.other_prefixes += len(others)
        yield
    for key in list(staging.field_deadline_keys):
        value = staging.keyspace.get(key)
        if type(value) is Hash:
            yield from _sweep_fields(staging, swept, key, value, now_ms)


def _sweep_fields(staging: Staging, swept: Swept, key: bytes, value: Hash, now_ms: int) -> Iterator[None]:
    while value.may_have_expired(now_ms):
        before = value_memory(value)
        swept.expired_fields += len(value.remove_expired(now_ms, _SLICE))
        staging.used += value_memory(value) - before
        yield
    if not len(value):
        staging.remove(key)
        swept.expired += 1
