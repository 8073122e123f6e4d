"""Snapshots that are none: broken ones are refused, hostile ones take no memory, and lies stay within bounds."""

from __future__ import annotations

import math
import random
import struct
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.snapshots import (
    KEVY_5,
    LAST_DEADLINE,
    check,
    collection,
    feed,
    held,
    pictures,
    read,
    scored,
    snapshot,
    stream_record,
    string,
    text,
)

from kevynode.replicate.snapshot import SnapshotDecoder, SnapshotError
from kevynode.store.apply import Applier
from kevynode.store.rebuild import rebuild_commands
from kevynode.store.staging import Staging
from kevynode.store.store import Store
from kevynode.store.stream_values import Stream

BROKEN = [
    pytest.param(b"REDIS0011", "does not begin with KEVYSNAP", id="another format"),
    pytest.param(b"KEVYSNAP\1\0", "version 1 is not known", id="too old"),
    pytest.param(b"KEVYSNAP\x08\0", "version 8 is not known", id="too new"),
    pytest.param(snapshot(b"\x09"), "unknown record 9", id="unknown record"),
    pytest.param(snapshot(b"\xff"), "unknown record 255", id="unknown record, far off"),
    pytest.param(snapshot(b"\7" + text(b"h") + text(b"f") + bytes(8)), "unknown record 7", id="field deadline in 4"),
    pytest.param(snapshot(b"\x08" + bytes(10), version=7), "another tier", id="value elsewhere"),
    pytest.param(snapshot(b"\x08" + bytes(10), version=6), "unknown record 8", id="value elsewhere in 6"),
    pytest.param(snapshot(scored(b"z", (b"m", math.nan))), "not a number", id="score that is not a number"),
    pytest.param(snapshot(stream_record(b"x", [(2, 0), (1, 0)], (2, 0))), "order of their ids", id="ids descend"),
    pytest.param(snapshot(stream_record(b"x", [(1, 1), (1, 1)], (2, 0))), "order of their ids", id="an id twice"),
    pytest.param(snapshot(stream_record(b"x", [(0, 0)], (2, 0))), "order of their ids", id="id zero"),
    pytest.param(snapshot(stream_record(b"x", [(3, 0)], (2, 9))), "above its last id", id="id above the last"),
]


@pytest.mark.parametrize(("data", "reason"), BROKEN)
@pytest.mark.parametrize("step", [0, 1])
def test_broken_snapshots_are_refused(data: bytes, reason: str, step: int) -> None:
    decoder = SnapshotDecoder(Staging())
    with pytest.raises(SnapshotError, match=reason) as caught:
        feed(decoder, data, step)
    assert caught.value.reason == str(caught.value)
    # It stays broken.
    with pytest.raises(SnapshotError, match=reason):
        decoder.feed(b"more")
    with pytest.raises(SnapshotError, match=reason):
        decoder.finish()
    assert not decoder.finished


def test_what_a_snapshot_claims_can_be_told_in_commands() -> None:
    """Whatever it says of times and of a stream's past: a base that holds it must be read at the next start."""
    most = (1 << 64) - 1
    head = struct.pack("<QQQQQI", 9, 9, most, most, most, 1) + struct.pack("<QQI", 9, 0, 1) + text(b"f") + text(b"v")
    group = struct.pack("<I", 1) + text(b"g") + struct.pack("<QQ", most, most)
    consumer = struct.pack("<I", 1) + text(b"c") + struct.pack("<Q", most)
    pending = struct.pack("<I", 1) + struct.pack("<QQ", 9, 0) + text(b"c") + struct.pack("<QI", most, (1 << 32) - 1)
    few = struct.pack("<QQQQQI", 9, 9, 0, 0, 0, 1) + struct.pack("<QQI", 9, 0, 1) + text(b"f") + text(b"v") + bytes(4)
    told = read(
        snapshot(
            string(b"s", b"v", most),
            collection(2, b"h", b"f", b"v"),
            b"\7" + text(b"h") + text(b"f") + struct.pack("<Q", most),
            b"\6\0" + text(b"x") + head + group + consumer + pending,
            b"\6\0" + text(b"few") + few,
            version=6,
        )
    )
    store = Store(random.Random(1))
    for shard in told.staging.keyspace.shards():
        for key, value in shard.items():
            Applier(store).apply_all(rebuild_commands(key, value, shard.deadlines.get(key)))
    found = pictures(store.keyspace.shards())
    expected = held(told)
    seen = store.keyspace.get(b"x")
    assert isinstance(seen, Stream)
    # It is not told when a consumer was last seen.
    seen.groups[b"g"].see(b"c", LAST_DEADLINE)
    assert pictures(store.keyspace.shards()) == expected
    assert set(found) == {b"s", b"h", b"x", b"few"}


HUGE = b"\xff\xff\xff\xff"
STREAM_HEAD = b"\6\0" + text(b"x") + struct.pack("<QQQQQ", 9, 9, 0, 0, 0)
HOSTILE = [
    pytest.param(b"\1\0" + HUGE, id="key"),
    pytest.param(b"\1\0" + text(b"k") + HUGE, id="value"),
    pytest.param(b"\2\0" + text(b"k") + HUGE, id="fields"),
    pytest.param(b"\2\0" + text(b"k") + struct.pack("<I", 1) + HUGE, id="field"),
    pytest.param(b"\2\0" + text(b"k") + struct.pack("<I", 1) + text(b"f") + HUGE, id="field's value"),
    pytest.param(b"\3\0" + text(b"k") + HUGE, id="elements"),
    pytest.param(b"\3\0" + text(b"k") + HUGE + HUGE, id="element"),
    pytest.param(b"\4\0" + text(b"k") + HUGE, id="members"),
    pytest.param(b"\5\0" + text(b"k") + HUGE, id="scored members"),
    pytest.param(b"\5\0" + text(b"k") + HUGE + HUGE, id="scored member"),
    pytest.param(STREAM_HEAD + HUGE, id="entries"),
    pytest.param(STREAM_HEAD + HUGE + struct.pack("<QQ", 1, 1) + HUGE, id="fields of an entry"),
    pytest.param(STREAM_HEAD + bytes(4) + HUGE, id="groups"),
    pytest.param(STREAM_HEAD + bytes(4) + HUGE + text(b"g") + bytes(16) + HUGE, id="consumers"),
    pytest.param(STREAM_HEAD + bytes(4) + HUGE + text(b"g") + bytes(20) + HUGE, id="pending"),
]


@pytest.mark.parametrize("record", HOSTILE)
@pytest.mark.parametrize("step", [0, 1])
def test_announced_lengths_take_no_memory(record: bytes, step: int) -> None:
    data = snapshot(record)[:-1] + b"\1" * 100
    decoder = SnapshotDecoder(Staging())
    tracemalloc.start()
    try:
        feed(decoder, data, step)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000
    assert not decoder.finished
    assert decoder.staging.count == 0


@given(
    changes=st.lists(st.tuples(st.integers(9, len(KEVY_5) - 1), st.integers(0, 255)), min_size=1, max_size=5),
    step=st.sampled_from([0, 1, 100]),
)
@settings(deadline=None)
def test_changed_bytes_are_read_or_refused(changes: list[tuple[int, int]], step: int) -> None:
    data = bytearray(KEVY_5)
    for place, byte in changes:
        data[place] = byte
    decoder = SnapshotDecoder(Staging())
    try:
        feed(decoder, bytes(data), step)
    except SnapshotError:
        assert not decoder.finished
    check(decoder.staging)


@given(data=st.binary(max_size=200), step=st.sampled_from([0, 1, 5]), head=st.integers(0, len(KEVY_5)))
@settings(deadline=None)
def test_any_bytes_are_read_or_refused(data: bytes, step: int, head: int) -> None:
    data = KEVY_5[:head] + data
    decoder = SnapshotDecoder(Staging())
    try:
        feed(decoder, data, step)
    except SnapshotError:
        assert not decoder.finished
    check(decoder.staging)
