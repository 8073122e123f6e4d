"""Dump files read: forms that servers of today write no more, what is skipped and refused, damage, and bounds."""

from __future__ import annotations

import math
import random
import struct
from typing import Any

import pytest
from support import dump_builder as build
from support.dump_builder import dump, key, length, text
from support.rdb_reading import FUTURE, read, refused, stream_node, value_of
from support.store_harness import describe

from kevynode.rdb import RdbError, RdbReader, read_dump
from kevynode.store.apply import Applier
from kevynode.store.rebuild import rebuild_commands
from kevynode.store.store import Store
from kevynode.store.stream_values import Stream
from kevynode.store.values import Hash, List, Set, SortedSet


def list_of(*elements: bytes) -> Any:
    value = List()
    value.extend_right(elements)
    return describe(value)


def hash_of(fields: dict[bytes, bytes], deadlines: dict[bytes, int] | None = None) -> Any:
    value = Hash()
    for field, content in fields.items():
        value.put(field, content)
    for field, deadline in (deadlines or {}).items():
        value.set_deadline(field, deadline)
    return describe(value)


# -- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoded", "expected"),
    [
        (text(b""), b""),
        (text(b"x" * 63), b"x" * 63),
        (text(b"x" * 64), b"x" * 64),
        (text(b"x" * 20000), b"x" * 20000),
        (b"\x81" + (3).to_bytes(8, "big") + b"abc", b"abc"),
        (b"\xc0\x80", b"-128"),
        (b"\xc0\x7f", b"127"),
        (b"\xc1\x00\x80", b"-32768"),
        (b"\xc2\xff\xff\xff\x7f", b"2147483647"),
        (build.compressed(b"\x01ab\xe0\x0b\x01", 22), b"ab" * 11),
        (build.compressed(b"\x00a" + b"\xe0\xff\x00" * 4000, 1 + 264 * 4000), b"a" * (1 + 264 * 4000)),
    ],
)
def test_texts(encoded: bytes, expected: bytes) -> None:
    assert value_of(key(0, b"k", encoded)) == expected


@pytest.mark.parametrize(
    ("kind", "encoded"),
    [
        (1, length(3) + text(b"a") + b"\xc0\x05" + text(b"")),
        (10, text(build.ziplist([b"a", 5, b""]))),
        (14, length(2) + text(build.ziplist([b"a"])) + text(build.ziplist([5, b""]))),
        (
            18,
            length(3)
            + b"\x02"
            + text(build.listpack([b"a"]))
            + b"\x01"
            + text(b"5")
            + b"\x02"
            + text(build.listpack([b""])),
        ),
        (18, length(1) + b"\x02" + text(build.listpack([b"a", 5, b""]))),
    ],
)
def test_lists(kind: int, encoded: bytes) -> None:
    assert value_of(key(kind, b"k", encoded)) == list_of(b"a", b"5", b"")


@pytest.mark.parametrize(
    ("kind", "encoded"),
    [
        (2, length(2) + text(b"-7") + b"\xc0\x09"),
        (11, text(build.intset([-7, 9], 2))),
        (11, text(build.intset([-7, 9], 8))),
        (20, text(build.listpack([-7, 9]))),
    ],
)
def test_sets(kind: int, encoded: bytes) -> None:
    assert value_of(key(kind, b"k", encoded)) == describe(Set.of([b"-7", b"9"]))


@pytest.mark.parametrize(
    ("kind", "encoded"),
    [
        (
            3,
            length(4)
            + text(b"a")
            + b"\x04-1.5"
            + text(b"b")
            + b"\xfe"
            + text(b"c")
            + b"\xff"
            + text(b"d")
            + b"\x01"
            + b"0",
        ),
        (
            5,
            length(4)
            + b"".join(
                text(m) + struct.pack("<d", s)
                for m, s in ((b"b", math.inf), (b"d", -0.0), (b"a", -1.5), (b"c", -math.inf))
            ),
        ),
        (12, text(build.ziplist([b"c", b"-inf", b"a", b"-1.5", b"d", 0, b"b", b"inf"]))),
        (17, text(build.listpack([b"c", b"-inf", b"a", b"-1.5", b"d", b"-0", b"b", b"inf"]))),
    ],
)
def test_sorted_sets(kind: int, encoded: bytes) -> None:
    expected = describe(SortedSet.of({b"a": -1.5, b"b": math.inf, b"c": -math.inf, b"d": 0.0}))
    assert value_of(key(kind, b"k", encoded)) == expected


@pytest.mark.parametrize(
    ("kind", "encoded"),
    [
        (4, length(2) + text(b"f") + text(b"v") + text(b"g") + b"\xc0\x05"),
        (9, text(build.zipmap([(b"f", b"v"), (b"g", b"5")], unused=3))),
        (13, text(build.ziplist([b"f", b"v", b"g", 5]))),
        (16, text(build.listpack([b"f", b"v", b"g", 5]))),
    ],
)
def test_hashes(kind: int, encoded: bytes) -> None:
    assert value_of(key(kind, b"k", encoded)) == hash_of({b"f": b"v", b"g": b"5"})


def test_hashes_with_deadlines_of_valkey_and_redis() -> None:
    expected = hash_of({b"f": b"v", b"g": b"5"}, {b"g": FUTURE})
    pairs = text(b"f") + text(b"v") + b"\xff" * 8 + text(b"g") + text(b"5") + FUTURE.to_bytes(8, "little")
    assert value_of(key(22, b"k", length(2) + pairs), b"VALKEY080") == expected
    lowest = (FUTURE - 10).to_bytes(8, "little")
    pairs = length(0) + text(b"f") + text(b"v") + length(11) + text(b"g") + text(b"5")
    assert value_of(key(24, b"k", lowest + length(2) + pairs), b"REDIS0012") == expected
    packed = text(build.listpack([b"f", b"v", 0, b"g", 5, FUTURE]))
    assert value_of(key(25, b"k", lowest + packed), b"REDIS0012") == expected
    many = text(build.listpack([word for number in range(2000) for word in (number, b"v", FUTURE)]))
    fields = {b"%d" % number: b"v" for number in range(2000)}
    expected = hash_of(fields, dict.fromkeys(fields, FUTURE))
    assert value_of(key(25, b"k", lowest + many), b"REDIS0012") == expected
    assert "unknown type 22" in refused(key(22, b"k", length(2) + pairs), b"REDIS0012")


def test_large_containers_in_packed_forms() -> None:
    numbers = [b"%d" % number for number in range(5000)]
    assert value_of(key(10, b"k", text(build.ziplist(numbers)))) == list_of(*numbers)
    assert value_of(key(20, b"k", text(build.listpack(numbers)))) == describe(Set.of(numbers))
    assert value_of(key(11, b"k", text(build.intset(range(5000), 4)))) == describe(Set.of(numbers))
    pairs = [word for number in numbers for word in (number, b"1")]
    assert value_of(key(13, b"k", text(build.ziplist(pairs)))) == hash_of(dict.fromkeys(numbers, b"1"))
    expected = describe(SortedSet.of(dict.fromkeys(numbers, 1.0)))
    assert value_of(key(17, b"k", text(build.listpack(pairs)))) == expected
    plain = length(5000) + b"".join(text(number) + struct.pack("<d", 1.0) for number in reversed(numbers))
    assert value_of(key(5, b"k", plain)) == expected


@pytest.mark.parametrize("version", [1, 2, 3])
def test_streams(version: int) -> None:
    """As Redis 5 and 6, Redis 7.0, and Redis 7.2 and Valkey write them."""
    nodes = stream_node((5, 0, [b"f", b"v"]), (5, 1, [b"g", b"w", b"h", b""])) + stream_node(
        (9, 2, [b"f", b"x"]), base=(9, 2)
    )
    tail = length(3) + length(10) + length(7)
    if version >= 2:
        tail += length(5) + length(0) + length(3) + length(1) + length(20)
    group = text(b"g") + length(9) + length(2)
    if version >= 2:
        group += length(2**64 - 1)
    group += length(1) + struct.pack(">QQ", 5, 1) + struct.pack("<q", 77) + length(4)
    group += length(2) + text(b"alice") + struct.pack("<q", 88) + (b"\xff" * 8 if version == 3 else b"")
    group += length(1) + struct.pack(">QQ", 5, 1)
    group += text(b"bob") + struct.pack("<q", -1) + (b"\xff" * 8 if version == 3 else b"") + length(0)
    encoded = length(2) + nodes + tail + length(1) + group
    expected = Stream()
    expected.append((5, 0), (b"f", b"v"))
    expected.append((5, 1), (b"g", b"w", b"h", b""))
    expected.append((9, 2), (b"f", b"x"))
    expected.last_id = (10, 7)
    if version >= 2:
        expected.max_deleted_id = (3, 1)
        expected.entries_added = 20
    made = expected.create_group(b"g", (9, 2))
    made.see(b"alice", 88)
    made.see(b"bob", 0)
    made.deliver((5, 1), b"alice", 77, 4)
    kind = {1: 15, 2: 19, 3: 21}[version]
    assert value_of(key(kind, b"k", encoded), b"REDIS0011") == describe(expected)


@pytest.mark.parametrize(
    ("deleted", "added", "expected"),
    [
        ((5, 1), 7, ((5, 1), 7)),
        ((5, 2), 7, ((5, 1), 7)),
        ((0, 0), 1, ((0, 0), 2)),
        ((0, 0), 2**64 - 1, ((0, 0), 2**62)),
    ],
)
def test_the_past_of_a_stream_is_taken_as_far_as_it_can_be(
    deleted: tuple[int, int], added: int, expected: tuple[tuple[int, int], int]
) -> None:
    """Otherwise no command could tell of it, and nobody could read the append-only file that the command is in."""
    encoded = length(1) + stream_node((5, 0, [b"f", b"v"]), (5, 1, [b"f", b"v"]))
    encoded += length(2) + length(5) + length(1) + length(5) + length(0)
    encoded += length(deleted[0]) + length(deleted[1]) + length(added) + length(0)
    value = read_dump(build.payload(19, encoded))
    assert isinstance(value, Stream)
    assert (value.max_deleted_id, value.entries_added) == expected
    store = Store(random.Random(1))
    Applier(store).apply_all(rebuild_commands(b"k", value))
    made = store.lookup(b"k")
    assert made is not None
    assert describe(made) == describe(value)


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (length(1) + stream_node((5, 0, [b"f", b"v"]), (5, 0, [b"f", b"v"])), "order of their ids"),
        (
            length(1) + stream_node((5, 0, [b"f", b"v"])) + length(2) + length(5) + length(0) + length(0),
            "says that it has 2",
        ),
        (
            length(1) + stream_node((5, 1, [b"f", b"v"])) + length(1) + length(5) + length(0) + length(0),
            "above its last id",
        ),
        (length(1) + text(b"short") + text(b""), "has no id"),
        (length(1) + text(bytes(16)) + text(build.listpack([1, 0, 1, b"f", 0, 2, 0, 1])), "middle of an entry"),
        (length(1) + text(bytes(16)) + text(build.listpack([1, 0, b"x"])), "text where a number belongs"),
        (length(1) + text(bytes(16)) + text(build.listpack([1, 0, -1])), "negative number of fields"),
        (
            length(0) * 4 + length(1) + text(b"g") + length(0) * 2 + length(1) + bytes(24) + length(1) + length(0),
            "pending for no consumer",
        ),
        (
            length(0) * 4
            + length(1)
            + text(b"g")
            + length(0) * 3
            + length(1)
            + text(b"c")
            + bytes(8)
            + length(1)
            + bytes(16),
            "that its group has not",
        ),
        (
            length(0) * 4
            + length(1)
            + text(b"g")
            + length(0) * 3
            + length(2)
            + (text(b"c") + bytes(8) + length(0)) * 2,
            "two consumers",
        ),
        (length(0) * 4 + length(2) + (text(b"g") + length(0) * 4) * 2, "two groups"),
    ],
)
def test_damaged_streams(encoded: bytes, reason: str) -> None:
    assert reason in refused(key(15, b"k", encoded))


# -- the file ---------------------------------------------------------------------------------------------------------


def test_every_kind_of_record() -> None:
    module = length(12345) + length(2) + length(1) + length(1) + length(7) + length(2) + length(8)
    module += length(3) + bytes(4) + length(4) + bytes(8) + length(5) + text(b"text") + length(0)
    data = dump(
        b"\xfa" + text(b"redis-ver") + text(b"7.2.4"),
        b"\xfa" + text(b"ctime") + b"\xc2\x01\x00\x00\x00",
        b"\xf7" + module,
        b"\xf5" + text(b"#!lua name=l"),
        b"\xfe\x03\xfb\x05\x01",
        b"\xf4" + length(100) + length(1) + length(0),
        key(0, b"plain", text(b"v")),
        b"\xfd" + (4_000_000_000).to_bytes(4, "little") + key(0, b"seconds", text(b"v")),
        b"\xfc" + FUTURE.to_bytes(8, "little") + key(0, b"ms", text(b"v")),
        b"\xfc" + b"\xff" * 8 + key(0, b"never", text(b"v")),
        b"\xf8" + length(500) + key(0, b"idle", text(b"v")),
        b"\xf9\x05" + key(0, b"frequency", text(b"v")),
        b"\xfc" + FUTURE.to_bytes(8, "little") + b"\xf8" + length(70000) + key(2, b"both", length(1) + text(b"m")),
        key(2, b"empty", length(0)),
        magic=b"REDIS0011",
    )
    for piece in (len(data), 1):
        found, reader = read(data, piece)
        assert found.pop(b"both") == (describe(Set.of([b"m"])), FUTURE)
        assert found == {
            b"plain": (b"v", None),
            b"seconds": (b"v", 4_000_000_000_000),
            b"ms": (b"v", FUTURE),
            b"never": (b"v", None),
            b"idle": (b"v", None),
            b"frequency": (b"v", None),
        }
        assert (reader.version, reader.is_valkey, reader.verified) == (11, False, True)
        assert reader.aux == {b"redis-ver": b"7.2.4", b"ctime": b"1"}
        assert (reader.databases, reader.keys, reader.empty_keys) == ({3: 7}, 7, 1)
        assert (reader.functions, reader.module_data) == (1, 1)


def test_old_files_have_no_checksum() -> None:
    found, reader = read(dump(key(0, b"k", text(b"v")), magic=b"REDIS0004"))
    assert found == {b"k": (b"v", None)}
    assert reader.verified is False


def module_id(name: bytes, version: int) -> int:
    letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    number = 0
    for letter in name:
        number = number << 6 | letters.index(letter)
    return number << 10 | version


#: Fields with values and no deadlines, one element more than are taken together.
TRIPLES: list[bytes | int] = [word for number in range(171) for word in (number, b"v", 0)]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (key(7, b"k", length(module_id(b"ReJSON-RL", 3))), "the module ReJSON-RL"),
        (key(6, b"k", b""), "the module of a release candidate"),
        (key(8, b"k", b""), "unknown type 8"),
        (key(26, b"k", b""), "unknown type 26"),
        (b"\xf6" + text(b"x"), "release candidate of Redis 7"),
        (b"\xf3" + text(b"job"), "slot import"),
        (b"\xfc" + bytes(8) + b"\xfe\x00", "deadline stands before"),
        (b"\xf7" + length(1) + length(9), "unknown kind 9"),
        (key(0, b"k", b"\xc4"), "0xc4 begins no text"),
        (key(0, b"k", b"\x82"), "0x82 begins no text"),
        (key(1, b"k", b"\xc0\x01"), "0xc0 begins no length"),
        (key(0, b"k", build.compressed(b"\x00a", 5)), "shorter than it says"),
        (key(0, b"k", build.compressed(b"\x00a\x20", 5)), "shorter than it says"),
        (key(0, b"k", build.compressed(b"\x20\x00", 5)), "before its start"),
        (key(0, b"k", build.compressed(b"\x04abcde", 2)), "longer than it says"),
        (key(2, b"k", length(2) + text(b"a") * 2), "member twice"),
        (key(11, b"k", text(build.intset([1, 1], 2))), "member twice"),
        (key(4, b"k", length(2) + (text(b"f") + text(b"v")) * 2), "field twice"),
        (key(16, b"k", text(build.listpack([b"f", b"v", b"f", b"v"]))), "field twice"),
        # What is wrong first is told, though what follows is wrong as well.
        (key(4, b"k", length(3) + (text(b"f") + text(b"v")) * 2 + b"\xff"), "field twice"),
        (key(25, b"k", bytes(8) + text(build.listpack([*TRIPLES, b"f"]))), "field without a value"),
        (
            key(25, b"k", bytes(8) + text(build.listpack([*TRIPLES[:-1], b"f"])[:-4] + b"\xf5\x01\x01\xff")),
            "unknown kind",
        ),
        (key(16, b"k", text(build.listpack([b"f"]))), "field without a value"),
        (key(5, b"k", length(2) + (text(b"m") + bytes(8)) * 2), "member twice"),
        (key(17, b"k", text(build.listpack([b"m", 1, b"m", 1]))), "member twice"),
        (key(17, b"k", text(build.listpack([b"m", b"1_0"]))), "not a number"),
        (key(17, b"k", text(build.listpack([b"m", b"nan"]))), "not a number"),
        (key(5, b"k", length(1) + text(b"m") + struct.pack("<d", math.nan)), "not a number"),
        (key(3, b"k", length(1) + text(b"m") + b"\xfd"), "not a number"),
        (key(18, b"k", length(1) + b"\x03" + text(b"x")), "unknown kind 3"),
        (key(25, b"k", bytes(8) + text(build.listpack([b"f", b"v", b"soon"]))), "not a number"),
        (key(25, b"k", bytes(8) + text(build.listpack([b"f", b"v", b"9" * 5000]))), "not a number"),
        (key(10, b"k", text(build.ziplist([b"a"])[:-1] + b"\x00")), "another size than it says, at byte 0"),
    ],
)
def test_what_is_refused(record: bytes, reason: str) -> None:
    assert reason in refused(record)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"KEVYSNAP\x05", "not a dump file"),
        (b"REDISxxxx", "not a number"),
        (b"REDIS0013" + bytes(9), "REDIS0013 is not known here"),
        (b"REDIS0080" + bytes(9), "not known here"),
        (b"VALKEY081" + bytes(9), r"VALKEY081 is not known here \(read are REDIS0001 to REDIS0012 and VALKEY080\)"),
        (b"VALKEY011" + bytes(9), "not known here"),
        (b"", "ends in the middle, after 0 keys"),
        (dump(key(0, b"k", text(b"v")))[:-1], "ends in the middle, after 1 keys"),
    ],
)
def test_what_is_no_file(data: bytes, reason: str) -> None:
    with pytest.raises(RdbError, match=reason):
        read(data)


def test_an_error_stays() -> None:
    reader = RdbReader(lambda *_: None)
    for _ in range(2):
        with pytest.raises(RdbError, match="not a dump file"):
            reader.feed(b"NOT A DUMP FILE")
    with pytest.raises(RdbError, match="not a dump file"):
        reader.finish()


def test_bytes_behind_the_end_are_counted() -> None:
    data = dump(key(0, b"k", text(b"v")))
    reader = RdbReader(lambda *_: None)
    reader.feed(data + b"more")
    reader.feed(b" and more")
    reader.finish()
    assert (reader.surplus, reader.source.offset) == (13, len(data))


def test_hints_of_the_past_are_left_out() -> None:
    data = dump(b"\xfc" + (1000).to_bytes(8, "little") + key(0, b"k", text(b"v")), key(0, b"l", text(b"v")))
    assert read(data)[0] == {b"k": (b"v", 1000), b"l": (b"v", None)}
    assert read(data, now_ms=1000)[0] == {b"k": (b"v", 1000), b"l": (b"v", None)}
    found, reader = read(data, now_ms=1001)
    assert (found, reader.expired_keys) == ({b"l": (b"v", None)}, 1)


# -- payloads of DUMP -------------------------------------------------------------------------------------------------


def test_dumped_values() -> None:
    assert read_dump(build.payload(0, text(b"v"))) == b"v"
    assert read_dump(build.payload(0, text(b""))) == b""
    value = read_dump(build.payload(10, text(build.ziplist([b"a"])), version=6), epoch=7)
    assert isinstance(value, List)
    assert (list(value.elements), value.epoch) == ([b"a"], 7)
    fields = length(1) + text(b"f") + text(b"v") + (1000).to_bytes(8, "little")
    assert isinstance(read_dump(build.payload(22, fields, version=80), now_ms=1000), Hash)
    assert read_dump(build.payload(22, fields, version=80), now_ms=1001) is None


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"short", "too short"),
        (build.payload(0, text(b"v"), version=13), "version 13 is not known"),
        (build.payload(0, text(b"v"), version=81), "version 81 is not known"),
        (build.payload(0, text(b"v"))[:-1] + b"x", "checksum is wrong"),
        (build.payload(0, text(b"v") + b"x"), "another length"),
        (build.payload(0, b"\x05abc"), "another length"),
        (build.payload(22, length(0), version=12), "unknown type 22"),
        (build.payload(200, b""), "unknown type 200"),
    ],
)
def test_damaged_payloads(data: bytes, reason: str) -> None:
    with pytest.raises(RdbError, match=reason):
        read_dump(data)
