"""Damaged RDB files, and how much memory and work a file may cost."""

from __future__ import annotations

import struct
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import dump_builder as build
from support.dump_builder import dump, key, length, text
from support.rdb_reading import FUTURE, read, stream_node

from kevynode.rdb import FormatError, RdbError, RdbReader
from kevynode.store.stream_values import Stream
from kevynode.store.values import Value

SAMPLE = dump(
    b"\xfa" + text(b"redis-ver") + text(b"7"),
    b"\xfe\x00\xfb\x05\x01",
    key(0, b"text", text(b"v" * 70)),
    b"\xfc" + FUTURE.to_bytes(8, "little") + key(0, b"number", b"\xc1\x10\x27"),
    key(0, b"lzf", build.compressed(b"\x01ab\xe0\x0b\x01", 22)),
    key(10, b"ziplist", text(build.ziplist([b"a", 5, b"b" * 70]))),
    key(12, b"zset", text(build.ziplist([b"a", 5, b"b", b"1.5"]))),
    key(14, b"quicklist", length(1) + text(build.ziplist([b"a", 300]))),
    key(9, b"zipmap", text(build.zipmap([(b"f", b"v")], 1))),
    key(16, b"listpack", text(build.listpack([b"f", b"v", b"g", 70000]))),
    key(18, b"quicklist2", length(2) + b"\x01" + text(b"x") + b"\x02" + text(build.listpack([1]))),
    key(11, b"intset", text(build.intset([1, 2], 2))),
    key(5, b"skiplist", length(1) + text(b"m") + bytes(8)),
    key(4, b"plain", length(2) + text(b"f") + text(b"v") + text(b"g") + text(b"v")),
    key(15, b"stream", length(1) + stream_node((5, 0, [b"f", b"v"])) + length(1) + length(5) + length(0) + length(0)),
    checksum=False,
)


@given(st.lists(st.tuples(st.integers(9, len(SAMPLE) - 9), st.integers(0, 255)), max_size=3), st.data())
def test_any_damage_is_refused_or_read_the_same_however_it_arrives(changes: list[tuple[int, int]], data: Any) -> None:
    damaged = bytearray(SAMPLE)
    for place, byte in changes:
        damaged[place] = byte
    size = data.draw(st.integers(0, len(damaged))) if data.draw(st.booleans()) else len(damaged)
    damaged = damaged[:size]
    outcomes: list[tuple[Any, Any, int]] = []
    for piece in (len(SAMPLE), 1, data.draw(st.integers(2, 60))):
        try:
            found, reader = read(bytes(damaged), piece)
            outcomes.append((found, reader.databases, reader.surplus))
        except RdbError as error:
            outcomes.append((error.reason, 0 <= error.offset <= len(damaged), error.offset))
    assert outcomes[1:] == outcomes[:1] * 2
    assert outcomes[0][1] is not False, "the offset lies outside"
    if size < len(SAMPLE) and not changes:
        assert "ends in the middle" in outcomes[0][0]


@pytest.mark.parametrize("kind", [0, 1, 2, 3, 4, 5, 10, 14, 15, 18, 22])
def test_announced_sizes_take_no_memory(kind: int) -> None:
    data = b"VALKEY080" + key(kind, b"k", b"\x81\x7f" + b"\xff" * 7 + bytes(1000))
    tracemalloc.start()
    reader = RdbReader(lambda *_: None)
    try:
        reader.feed(data)
    except FormatError:
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 500_000


def test_no_step_does_much_at_once() -> None:
    """Few bytes that stand for many elements are handled in many steps."""
    numbers = build.listpack([1] * 200_000)
    # The elements are two bytes each, so all behind the first repeat what is two bytes before them.
    packed = bytes([7]) + numbers[:8] + b"\xe0\xff\x01" * ((len(numbers) - 9) // 264)
    rest = (len(numbers) - 9) % 264
    packed += b"".join(bytes([0, byte]) for byte in numbers[len(numbers) - 1 - rest :])
    data = dump(
        key(10, b"no", text(build.ziplist([1]))),
        key(18, b"k", length(1) + b"\x02" + build.compressed(packed, len(numbers))),
    )
    assert len(data) < 5000
    found: dict[bytes, Value] = {}
    reader = RdbReader(lambda name, value, _: found.__setitem__(name, value))
    assert sum(1 for _ in reader.steps(data)) >= 150
    assert list(found[b"k"].elements) == [b"1"] * 200_000  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "record",
    [
        key(0, b"string", text(b"")),
        key(2, b"set", length(1) + text(b"m")),
        key(2, b"empty", length(0)),
        key(16, b"hash", text(build.listpack([b"f", b"v"]))),
        b"\xfa" + text(b"name") + text(b"value"),
        b"\xf7" + length(1) + length(5) + text(b"") + length(0),
        b"\xfe\x00",
    ],
)
def test_many_small_records_are_read_in_many_steps(record: bytes) -> None:
    data = dump(record * 5000)
    reader = RdbReader(lambda *_: None)
    assert 9 <= sum(1 for _ in reader.steps(data)) <= 500
    reader.finish()


def test_large_streams_are_read_in_many_steps() -> None:
    entries = [(5, number, [b"f", b"v"]) for number in range(3000)]
    group = text(b"g") + length(0) * 2
    group += length(3000) + b"".join(struct.pack(">QQq", 5, number, 1) + length(1) for number in range(3000))
    group += length(1) + text(b"c") + bytes(8)
    group += length(3000) + b"".join(struct.pack(">QQ", 5, number) for number in range(3000))
    encoded = length(1) + stream_node(*entries) + length(3000) + length(9) + length(0) + length(1) + group
    found: dict[bytes, Value] = {}
    reader = RdbReader(lambda name, value, _: found.__setitem__(name, value))
    assert sum(1 for _ in reader.steps(dump(key(15, b"k", encoded)))) >= 30
    stream = found[b"k"]
    assert isinstance(stream, Stream)
    assert (len(stream), len(stream.groups[b"g"].pending)) == (3000, 3000)
