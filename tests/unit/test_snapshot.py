"""Snapshots: what kevy wrote is read, and what is written is read again, however it is cut."""

from __future__ import annotations

import math
import random
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.snapshots import (
    KEVY_2,
    KEVY_5,
    KEVY_5_FILE,
    LAST_DEADLINE,
    U64_LIMIT,
    check,
    collection,
    held,
    pictures,
    read,
    scored,
    snapshot,
    store_of,
    stream_record,
    string,
    text,
    write,
)

from kevynode.replicate.snapshot import SnapshotDecoder, SnapshotError, encode_snapshot
from kevynode.store.staging import Staging
from kevynode.store.store import Store
from kevynode.store.stream_values import Stream
from kevynode.store.values import Hash, List, Set, SortedSet, Value

GOLDEN = [pytest.param(KEVY_2, id="2.0.3"), pytest.param(KEVY_5, id="5.4.0"), pytest.param(KEVY_5_FILE, id="file")]


# -- what kevy wrote --------------------------------------------------------------------------------------------------


def everything(moment: int, deadline: int, field_deadlines: dict[bytes, dict[bytes, int]]) -> dict[bytes, Any]:
    """What both kevy servers held when their snapshots were taken."""
    groups = {
        b"grp": ((5, 1), {b"alice": moment, b"bob": moment}, {(5, 1): (b"alice", moment, 1)}),
        b"g2": ((7, 0), {}, {}),
    }
    entries = [((5, 1), (b"f", b"v", b"g", b"w")), ((7, 0), (b"f", b"v3"))]
    scores = {b"one": 1.0, b"twohalf": 2.5, b"ninf": -math.inf, b"pinf": math.inf, b"huge": 1e300, b"nz": 0.0}
    return {
        b"s": (b"hello", None),
        b"int": (b"12345", None),
        b"negint": (b"-7", None),
        b"intlike": (b"007", None),
        b"bin": (bytes(range(256)), None),
        b"empty": (b"", None),
        b"bin\0key\xff\r\n": (b"x", None),
        b"big": (b"A" * 300, None),
        b"h": (("hash", {b"f1": b"v1", b"f2": b"\0\xff"}, field_deadlines.get(b"h", {})), None),
        b"l": (("list", [b"a", b"b", b"", b"3"]), None),
        b"st": (("set", {b"m1", b"m2", b"42"}), None),
        b"z": (("zset", scores), None),
        b"x": (("stream", entries, (7, 0), (5, 2), 3, groups), None),
        b"xe": (("stream", [], (9, 9), (9, 9), 1, {}), None),
        b"httl": (("hash", {b"a": b"1"}, field_deadlines.get(b"httl", {})), deadline),
    }


def test_snapshot_of_kevy_2() -> None:
    decoder = read(KEVY_2)
    assert (decoder.version, decoder.cursor) == (4, None)
    assert held(decoder) == everything(1795323520006, 4102444800456, {})


def test_snapshot_of_kevy_5_with_deadlines_of_fields() -> None:
    decoder = read(KEVY_5)
    assert (decoder.version, decoder.cursor) == (6, (0, 0))
    deadlines = {b"httl": {b"a": 4102444800789}, b"h": {b"f1": 1795423528978}}
    assert set(decoder.staging.field_deadline_keys) == {b"h", b"httl"}
    assert held(decoder) == everything(1795323528977, 4102444800457, deadlines)


def test_file_of_kevy_5_names_its_cursor() -> None:
    decoder = read(KEVY_5_FILE)
    assert (decoder.version, decoder.cursor) == (5, (5047063758675408, 15))
    entries = [((1795322949619, 0), (b"f", b"v"))]
    assert held(decoder) == {
        b"f": (b"0.1", None),
        b"l": (("list", [b"b"]), None),
        b"l2": (("list", [b"c"]), None),
        b"k2": (b"v", 1795323449616),
        b"m1": (b"1", None),
        b"m2": (b"2", None),
        b"s": (("set", {b"a", b"c"}), None),
        b"x": (("stream", entries, (1795322949619, 0), (0, 0), 1, {}), None),
    }


@pytest.mark.parametrize("data", GOLDEN)
def test_written_again_it_is_as_long_and_reads_the_same(data: bytes) -> None:
    first = read(data)
    store = Store(random.Random(1))
    store.replace_all(first.staging)
    again = write(store, first.version, cursor=first.cursor or (0, 0))
    assert len(again) == len(data)
    second = read(again)
    assert held(second) == held(first)
    assert (second.version, second.cursor) == (first.version, first.cursor)


@pytest.mark.parametrize("data", GOLDEN)
@pytest.mark.parametrize("step", [1, 2, 3, 7, 64, 1000])
def test_cuts_change_nothing(data: bytes, step: int) -> None:
    assert held(read(data, step)) == held(read(data))


@pytest.mark.parametrize("data", GOLDEN)
def test_every_prefix_is_incomplete_and_no_error(data: bytes) -> None:
    for length in range(len(data)):
        decoder = SnapshotDecoder(Staging())
        decoder.feed(data[:length])
        assert not decoder.finished
        check(decoder.staging)
        with pytest.raises(SnapshotError, match="ends in the middle"):
            decoder.finish()


# -- single rules -----------------------------------------------------------------------------------------------------


def test_the_empty_data_set() -> None:
    assert write(Store(random.Random(1))) == b"KEVYSNAP\4\0"
    assert held(read(b"KEVYSNAP\4\0")) == {}


def test_what_follows_the_end_is_ignored() -> None:
    decoder = SnapshotDecoder(Staging())
    decoder.feed(snapshot(string(b"k", b"v")) + b"\xffjunk")
    assert decoder.finished
    decoder.feed(b"more junk")
    decoder.finish()
    assert held(decoder) == {b"k": (b"v", None)}


@pytest.mark.parametrize("step", [0, 1])
def test_of_a_key_that_comes_twice_the_last_stays(step: int) -> None:
    records = [
        string(b"a", b"long " * 10, 5),
        collection(2, b"b", b"f", b"v"),
        string(b"c", b"1"),
        collection(3, b"d", b"x"),
        string(b"a", b"short"),
        string(b"b", b"2"),
        collection(4, b"c", b"m", b"m"),
        collection(3, b"d"),
    ]
    assert held(read(snapshot(*records), step)) == {
        b"a": (b"short", None),
        b"b": (b"2", None),
        b"c": (("set", {b"m"}), None),
    }


def test_elements_that_come_twice() -> None:
    records = [collection(2, b"h", b"f", b"1", b"f", b"2"), scored(b"z", (b"m", 2.0), (b"a", 1.0), (b"m", 0.5))]
    assert held(read(snapshot(*records))) == {
        b"h": (("hash", {b"f": b"2"}, {}), None),
        b"z": (("zset", {b"a": 1.0, b"m": 0.5}), None),
    }


@pytest.mark.parametrize("step", [0, 1])
def test_a_negative_zero_becomes_zero(step: int) -> None:
    value = read(snapshot(scored(b"z", (b"m", -0.0))), step).staging.keyspace[b"z"]
    assert type(value) is SortedSet
    assert [math.copysign(1, score) for score, _ in value.order] == [1]
    assert math.copysign(1, value.score(b"m") or 0.0) == 1


@pytest.mark.parametrize("op", [2, 3, 4, 5])
def test_an_empty_container_is_no_key(op: int) -> None:
    assert held(read(snapshot(collection(op, b"k"), string(b"s", b"")))) == {b"s": (b"", None)}


@pytest.mark.parametrize("step", [0, 1])
def test_only_the_flag_1_announces_a_deadline(step: int) -> None:
    odd = b"\1\2" + text(b"k") + text(b"v")
    assert held(read(snapshot(odd, string(b"t", b"v", 77)), step)) == {b"k": (b"v", None), b"t": (b"v", 77)}


@pytest.mark.parametrize("step", [0, 1])
def test_deadlines_of_version_2_are_what_is_left(step: int) -> None:
    records = [string(b"k", b"v", 500), b"\4\1" + struct.pack("<Q", 7) + text(b"s") + struct.pack("<I", 1) + text(b"m")]
    content = held(read(snapshot(*records, version=2), step, now_ms=1000))
    assert content == {b"k": (b"v", 1500), b"s": (("set", {b"m"}), 1007)}


@pytest.mark.parametrize("version", [2, 4])
def test_deadlines_beyond_the_counted_time_are_its_end(version: int) -> None:
    content = held(read(snapshot(string(b"k", b"v", U64_LIMIT - 1), version=version), now_ms=1))
    assert content == {b"k": (b"v", LAST_DEADLINE)}


def test_streams_have_no_groups_before_version_4() -> None:
    record = stream_record(b"x", [(1, 0)], (1, 0), tail=b"")
    assert set(held(read(snapshot(record, string(b"s", b"v"), version=3)))) == {b"x", b"s"}


def test_a_group_that_comes_twice_is_the_last_one() -> None:
    def group(last: int, *consumers: bytes) -> bytes:
        seen = b"".join(text(consumer) + struct.pack("<Q", 5) for consumer in consumers)
        return text(b"g") + struct.pack("<QQI", last, 0, len(consumers)) + seen + bytes(4)

    tail = struct.pack("<I", 2) + group(1, b"a", b"b") + group(2, b"c")
    content = held(read(snapshot(stream_record(b"x", [], (1, 0), tail))))
    assert content[b"x"][0][-1] == {b"g": ((2, 0), {b"c": 5}, {})}


@pytest.mark.parametrize("step", [0, 1])
def test_deadlines_of_fields_that_are_not_there_are_left_out(step: int) -> None:
    def field_deadline(key: bytes, field: bytes) -> bytes:
        return b"\7" + text(key) + text(field) + struct.pack("<Q", 99)

    records = [
        collection(2, b"h", b"f", b"1", b"g", b"2"),
        string(b"s", b"v"),
        field_deadline(b"h", b"none"),
        field_deadline(b"s", b"f"),
        field_deadline(b"none", b"f"),
        field_deadline(b"h", b"g"),
    ]
    # A record of another kind, behind: here the end with something that is ignored.
    decoder = read(snapshot(*records, version=6) + b"ignored", step)
    assert held(decoder)[b"h"] == (("hash", {b"f": b"1", b"g": b"2"}, {b"g": 99}), None)
    assert set(decoder.staging.field_deadline_keys) == {b"h"}


@pytest.mark.parametrize("version", [1, 2, 3, 7])
def test_versions_that_are_not_written(version: int) -> None:
    with pytest.raises(ValueError, match=f"not {version}"):
        encode_snapshot([], version=version)


def test_field_deadlines_need_version_6_and_a_cursor_version_5() -> None:
    value = Hash()
    value.put(b"f", b"v")
    value.set_deadline(b"f", 99)
    store = store_of({b"h": (value, None)})
    for version, cursor, deadlines in ((4, None, {}), (5, (1, 2), {}), (6, (1, 2), {b"f": 99})):
        decoder = read(write(store, version, cursor=(1, 2)))
        assert (decoder.version, decoder.cursor) == (version, cursor)
        assert held(decoder) == {b"h": (("hash", {b"f": b"v"}, deadlines), None)}


def test_numbers_that_do_not_fit_are_bounded() -> None:
    stream = Stream()
    stream.create_group(b"g", (0, 0)).deliver((1, 1), b"c", -5, 1 << 40)
    store = store_of({b"s": (b"v", -1), b"l": (Set.of([b"m"]), -1), b"x": (stream, None)})
    content = held(read(write(store)))
    assert content[b"s"] == (b"v", 0)
    assert content[b"l"] == (("set", {b"m"}), 0)
    assert content[b"x"][0][-1] == {b"g": ((0, 0), {b"c": 0}, {(1, 1): (b"c", 0, (1 << 32) - 1)})}


def test_keys_can_be_chosen() -> None:
    hashes: dict[bytes, tuple[Value, int | None]] = {}
    for name in (b"a:h", b"b:h"):
        value = Hash()
        value.put(b"f", b"v")
        value.set_deadline(b"f", 99)
        hashes[name] = (value, None)
    store = store_of({b"a:%d" % number: (b"v", 5) for number in range(5000)} | {b"b:1": (b"w", None)} | hashes)
    pieces = list(encode_snapshot(store.freeze(), version=6, accept=lambda key: key.startswith(b"b:")))
    # While nothing is chosen the steps still end now and then.
    assert len(pieces) > 1
    assert held(read(b"".join(pieces))) == {b"b:1": (b"w", None), b"b:h": (("hash", {b"f": b"v"}, {b"f": 99}), None)}


# -- piece by piece ---------------------------------------------------------------------------------------------------


def large_values() -> dict[bytes, Value]:
    count = 20_000
    fields, elements, scores, stream, wide = Hash(), List(), SortedSet(), Stream(), Stream()
    for number in range(count):
        fields.put(b"f%d" % number, b"%d" % number)
        fields.set_deadline(b"f%d" % number, 1000 + number)
        scores.put(b"m%d" % number, number / 8)
        stream.append((number + 1, 0), (b"f", b"%d" % number))
    elements.extend_right([b"%d" % number for number in range(count)])
    group = stream.create_group(b"g", (count, 0))
    for number in range(count):
        group.deliver((number + 1, 0), b"c%d" % (number % 500), 7, 1)
    wide.append((1, 1), tuple(b"%d" % number for number in range(count)))
    return {
        b"string": b"0123456789abcdef" * 20_000,
        b"key" * 20_000: b"long key",
        b"fields": fields,
        b"elements": elements,
        b"members": Set.of(b"%d" % number for number in range(count)),
        b"scores": scores,
        b"stream": stream,
        b"wide": wide,
        b"long texts": Set.of([b"x" * 100_000, b"y" * 20_000, b"z"]),
    }


@pytest.mark.slow
def test_large_values_go_in_pieces_and_come_in_pieces() -> None:
    long_member = SortedSet()
    long_member.put(b"m" * 200_000, 1.0)
    long_member.put(b"n", 2.0)
    values = large_values() | {b"long member": long_member}
    store = store_of({key: (value, 5) for key, value in values.items()})
    before = pictures(store.keyspace.shards())
    pieces = list(encode_snapshot(store.freeze(), version=6))
    assert max(map(len, pieces)) <= 65536
    data = b"".join(pieces)
    assert len(pieces) < len(data) / 8_000
    for step in (0, 999, 65536):
        assert held(read(data, step)) == before


def test_no_piece_is_above_64_kib_however_sizes_fall_together() -> None:
    elements, scores = List(), SortedSet()
    elements.push_right(b"x")
    scores.put(b"m" * 16_380, 1.0)
    store = store_of(
        {
            # Just below what is handed over by itself, and then as much as comes in one run.
            b"a": (b"a" * 16_384, None),
            b"b": (b"b" * 16_300, None),
            b"breaks the run": (elements, None),
            b"c": (b"c" * 16_340, None),
            b"d" * 1000: (b"d" * 16_384, None),
            b"scores": (scores, None),
        }
    )
    pieces = list(encode_snapshot(store.freeze()))
    assert max(map(len, pieces)) <= 65536
    assert held(read(b"".join(pieces))) == pictures(store.keyspace.shards())


def test_no_piece_is_empty_though_the_end_fills_the_last_one() -> None:
    head = len(b"KEVYSNAP\4") + len(string(b"a", b"")) + len(string(b"b" * 1024, b""))
    store = store_of({b"a": (b"a" * 16_384, None), b"b" * 1024: (b"b" * (32_767 - 16_384 - head), None)})
    pieces = list(encode_snapshot(store.freeze()))
    assert [len(piece) for piece in pieces] == [32_768]


def test_a_piece_holds_few_records_however_small_they_are() -> None:
    small = List()
    small.push_right(b"x")
    store = store_of({b"%d" % number: (small, None) for number in range(2000)})
    pieces = list(encode_snapshot(store.freeze()))
    # A record has 17 bytes at least, and 32 KiB of them would take a reader who waits 10 ms and more.
    assert max(map(len, pieces)) < 8192
    assert held(read(b"".join(pieces))) == pictures(store.keyspace.shards())


def test_the_list_of_shards_is_used_up_as_it_goes() -> None:
    store = store_of({b"%d" % number: (b"v" * 50, None) for number in range(10_000)})
    shards = store.freeze()
    pieces = encode_snapshot(shards)
    left = [len(shards) for _ in pieces]
    assert left == sorted(left, reverse=True)
    assert left[0] > left[len(left) // 2] > left[-1] == 0


def test_a_snapshot_shows_the_moment_of_the_freeze() -> None:
    values = large_values()
    store = store_of({key: (value, 5) for key, value in values.items()})
    for number in range(3000):
        store.put(b"%d" % number, b"before")
    before = pictures(store.keyspace.shards())
    pieces = []
    draw = random.Random(5)
    for number, piece in enumerate(encode_snapshot(store.freeze(), version=6)):
        pieces.append(piece)
        if number % 3 == 0:
            store.put(b"%d" % draw.randrange(3000), b"after")
            store.delete(b"%d" % draw.randrange(3000))
            store.put(b"new %d" % number, b"after")
            fields, elements = store.write_or_create(b"fields", Hash), store.write_or_create(b"elements", List)
            scores, stream = store.write_or_create(b"scores", SortedSet), store.write_or_create(b"stream", Stream)
            members = store.write_or_create(b"members", Set)
            fields.put(b"f%d" % number, b"after")
            fields.remove(b"f%d" % draw.randrange(20_000))
            elements.push_left(b"after")
            elements.pop_right()
            members.remove(b"%d" % draw.randrange(20_000))
            scores.put(b"m%d" % draw.randrange(20_000), -1.0)
            stream.remove((number + 1, 0))
            stream.groups[b"g"].acknowledge((number + 1, 0))
            store.commit()
    assert held(read(b"".join(pieces))) == before


# -- random data ------------------------------------------------------------------------------------------------------

WORDS = st.one_of(st.binary(max_size=12), st.sampled_from([b"", b"\0", b"a" * 1023, b"b" * 1024, b"c" * 17_000]))
NUMBERS = st.integers(0, U64_LIMIT - 1)
MOMENTS = st.integers(0, LAST_DEADLINE)
IDS = st.tuples(NUMBERS, NUMBERS)
DEADLINES = st.one_of(st.none(), st.integers(0, LAST_DEADLINE))
SCORES = st.floats(allow_nan=False).map(lambda score: score + 0.0)


@st.composite
def hashes(draw: st.DrawFn) -> Hash:
    value = Hash()
    for field, (content, deadline) in draw(
        st.dictionaries(WORDS, st.tuples(WORDS, DEADLINES), min_size=1, max_size=80)
    ).items():
        value.put(field, content)
        if deadline is not None:
            value.set_deadline(field, deadline)
    return value


@st.composite
def lists(draw: st.DrawFn) -> List:
    value = List()
    value.extend_right(draw(st.lists(WORDS, min_size=1, max_size=80)))
    return value


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    value = Stream()
    ids = draw(st.lists(IDS.filter(any), unique=True, max_size=8))
    for entry_id in sorted(ids):
        fields = draw(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=3))
        value.append(entry_id, tuple(word for pair in fields for word in pair))
    value.take_past(max(value.last_id, draw(IDS)), draw(IDS), draw(NUMBERS))
    for name in draw(st.lists(WORDS, unique=True, max_size=3)):
        group = value.create_group(name, draw(IDS))
        for consumer in draw(st.lists(WORDS, unique=True, max_size=3)):
            group.see(consumer, draw(MOMENTS))
            for entry_id in draw(st.lists(IDS, max_size=3)):
                group.deliver(entry_id, consumer, draw(MOMENTS), draw(st.integers(0, (1 << 32) - 1)))
    return value


VALUES: st.SearchStrategy[Value] = st.one_of(
    WORDS,
    hashes(),
    lists(),
    st.lists(WORDS, min_size=1, max_size=80).map(Set.of),
    st.dictionaries(WORDS, SCORES, min_size=1, max_size=80).map(SortedSet.of),
    streams(),
)
CONTENTS = st.dictionaries(WORDS, st.tuples(VALUES, DEADLINES), max_size=12)


@given(content=CONTENTS, version=st.sampled_from([4, 5, 6]), cursor=IDS, draw=st.randoms(use_true_random=False))
@settings(deadline=None)
def test_what_is_written_is_read_again(
    content: dict[bytes, tuple[Value, int | None]], version: int, cursor: tuple[int, int], draw: random.Random
) -> None:
    store = store_of(content)
    before = pictures(store.keyspace.shards())
    if version < 6:
        for key, (value, deadline) in before.items():
            if value[:1] == ("hash",):
                before[key] = ((*value[:2], {}), deadline)
    pieces = list(encode_snapshot(store.freeze(), version=version, cursor=cursor))
    assert all(0 < len(piece) <= 65536 for piece in pieces)
    data = b"".join(pieces)
    decoder = read(data)
    assert held(decoder) == before
    assert decoder.cursor == (cursor if version >= 5 else None)
    cut = SnapshotDecoder(Staging())
    place = 0
    while place < len(data):
        size = draw.choice((1, 2, 5, 30, 5000))
        cut.feed(data[place : place + size])
        assert cut.finished == (place + size >= len(data))
        place += size
    check(cut.staging)
    assert held(cut) == before
