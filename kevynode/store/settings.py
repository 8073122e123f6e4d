"""The settings of the store that CONFIG SET can change while it runs."""

from __future__ import annotations

import attrs

__all__ = ["StoreSettings"]


@attrs.define
class StoreSettings:
    """Thresholds, limits and policies; sizes are bytes, names and defaults are Valkey's with ``_`` for ``-``."""

    proto_max_bulk_len: int = 512 * 1024 * 1024
    # Up to these sizes OBJECT ENCODING reports the compact encodings.
    hash_max_listpack_entries: int = 512
    hash_max_listpack_value: int = 64
    set_max_intset_entries: int = 512
    set_max_listpack_entries: int = 128
    set_max_listpack_value: int = 64
    zset_max_listpack_entries: int = 128
    zset_max_listpack_value: int = 64
    list_max_listpack_size: int = -2
    # 0 means no limit.
    maxmemory: int = 0
    maxmemory_policy: str = "noeviction"
    maxmemory_samples: int = 5
    lfu_log_factor: int = 10
    lfu_decay_time: int = 1
    # Bits of kevynode.store.notify.
    notify_keyspace_events: int = 0
