"""Snapshots for tests: those that kevy wrote, others put together record by record, and what is in them."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kevynode.replicate.snapshot import SnapshotDecoder, encode_snapshot
from kevynode.store.keyspace import KeyShard
from kevynode.store.staging import Staging
from kevynode.store.store import Store
from kevynode.store.stream_values import Stream
from kevynode.store.values import Hash, List, Set, SortedSet, Value, bytes_memory, value_memory

VECTORS = Path(__file__).parent.parent / "vectors"
KEVY_2 = (VECTORS / "v2-snapshot-payload.bin").read_bytes()
KEVY_5 = (VECTORS / "v5-snapshot-payload.bin").read_bytes()
KEVY_5_FILE = (VECTORS / "v5-saved-dump.bin").read_bytes()
U64_LIMIT = 1 << 64
LAST_DEADLINE = (1 << 63) - 1


def picture(value: Value) -> Any:
    """A value's whole content, such that equal content compares equal."""
    match value:
        case bytes():
            return value
        case Hash():
            return ("hash", dict(value.fields.items()), dict(value.deadlines or {}))
        case List():
            return ("list", list(value.elements))
        case Set():
            return ("set", set(value.members))
        case SortedSet():
            assert {member: score for score, member in value.order} == dict(value.scores.items())
            assert list(value.order) == sorted(value.order)
            return ("zset", dict(value.scores.items()))
        case Stream():
            groups = {name: (g.last_delivered, g.consumers, g.pending) for name, g in value.groups.items()}
            return ("stream", list(value), value.last_id, value.max_deleted_id, value.entries_added, groups)


def pictures(shards: Iterator[KeyShard]) -> dict[bytes, tuple[Any, int | None]]:
    return {key: (picture(value), shard.deadlines.get(key)) for shard in shards for key, value in list(shard.items())}


def feed(decoder: SnapshotDecoder, data: bytes, step: int) -> None:
    """Feed ``data``, ``step`` bytes at a time; 0: all at once."""
    for place in range(0, len(data), step or len(data) or 1):
        decoder.feed(data[place : place + (step or len(data))])


def read(data: bytes, step: int = 0, now_ms: int = 0) -> SnapshotDecoder:
    """A decoder that has been fed ``data`` and finished."""
    decoder = SnapshotDecoder(Staging(), now_ms=now_ms)
    feed(decoder, data, step)
    decoder.finish()
    check(decoder.staging)
    return decoder


def held(decoder: SnapshotDecoder) -> dict[bytes, tuple[Any, int | None]]:
    return pictures(decoder.staging.keyspace.shards())


def check(staging: Staging) -> None:
    """Assert that the counts are what a walk finds."""
    items = list(staging.keyspace.items())
    assert staging.count == len(items)
    assert staging.used == sum(bytes_memory(key) + value_memory(value) for key, value in items)
    with_deadlines = {key for key, value in items if type(value) is Hash and value.deadlines is not None}
    assert with_deadlines <= set(staging.field_deadline_keys)
    for shard in staging.keyspace.shards():
        assert set(shard.deadlines) <= set(shard)


def store_of(content: dict[bytes, tuple[Value, int | None]]) -> Store:
    store = Store(random.Random(1))
    for key, (value, deadline) in content.items():
        store.put(key, value)
        if deadline is not None:
            store.set_deadline(key, deadline)
    return store


def write(store: Store, version: int = 4, **options: Any) -> bytes:
    return b"".join(encode_snapshot(store.freeze(), version=version, **options))


def text(content: bytes) -> bytes:
    return struct.pack("<I", len(content)) + content


def snapshot(*records: bytes, version: int = 4) -> bytes:
    cursor = bytes(16) if version >= 5 else b""
    return b"KEVYSNAP" + bytes((version,)) + cursor + b"".join(records) + b"\0"


def string(key: bytes, value: bytes, deadline: int | None = None) -> bytes:
    flag = b"\0" if deadline is None else struct.pack("<BQ", 1, deadline)
    return b"\1" + flag + text(key) + text(value)


def collection(op: int, key: bytes, *texts: bytes) -> bytes:
    count = len(texts) // 2 if op == 2 else len(texts)
    return bytes((op, 0)) + text(key) + struct.pack("<I", count) + b"".join(map(text, texts))


def scored(key: bytes, *entries: tuple[bytes, float]) -> bytes:
    body = b"".join(text(member) + struct.pack("<d", score) for member, score in entries)
    return b"\5\0" + text(key) + struct.pack("<I", len(entries)) + body


def stream_record(key: bytes, ids: list[tuple[int, int]], last_id: tuple[int, int], tail: bytes = bytes(4)) -> bytes:
    entries = b"".join(struct.pack("<QQI", *entry_id, 1) + text(b"f") + text(b"v") for entry_id in ids)
    return b"\6\0" + text(key) + struct.pack("<QQQQQI", *last_id, 0, 0, len(ids), len(ids)) + entries + tail
