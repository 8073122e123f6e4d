"""Bitmaps: single bits, counting, searching, combining, and the integers of BITFIELD."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from support.store_harness import START, Harness, named

from kevynode.store import notify
from kevynode.store.settings import StoreSettings

WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
SYNTAX = "ERR syntax error"
NOT_INTEGER = "ERR value is not an integer or out of range"
BAD_OFFSET = "ERR bit offset is not an integer or out of range"
LATER = START + 100_000


@pytest.fixture
def harness() -> Harness:
    harness = Harness()
    harness.call("RPUSH", "l", "x")
    return harness


def bits_of(value: bytes) -> list[int]:
    return [byte >> shift & 1 for byte in value for shift in range(7, -1, -1)]


# -- single bits --------------------------------------------------------------------------------------------------


def test_setbit_and_getbit(harness: Harness) -> None:
    assert harness.call("SETBIT", "k", 7, 1) == 0
    assert harness.commands == [(b"SET", b"k", b"\x01")]
    assert harness.events == [(notify.STRING, b"setbit", b"k")]
    assert harness.call("SETBIT", "k", 7, 1) == 1
    assert harness.commands == []
    assert harness.call("SETBIT", "k", 20, 0) == 0
    assert harness.call("GET", "k") == b"\x01\0\0"
    assert harness.call("SETBIT", "k", 7, 0) == 1
    assert harness.call("SETBIT", "k", 8, 1) == 0
    assert [harness.call("GETBIT", "k", place) for place in (7, 8, 9, 24, 4294967295)] == [0, 1, 0, 0, 0]
    assert harness.call("GETBIT", "none", 0) == 0
    assert harness.call("SETBIT", "zero", 0, 0) == 0
    assert harness.call("GET", "zero") == b"\0"
    harness.replay()


def test_setbit_keeps_the_deadline(harness: Harness) -> None:
    harness.call("SET", "t", "a", "PXAT", LATER)
    harness.call("SETBIT", "t", 6, 1)
    assert harness.commands == [(b"SET", b"t", b"c"), (b"PEXPIREAT", b"t", b"%d" % LATER)]
    harness.replay()


@pytest.mark.parametrize("offset", ["-1", "x", "", "1.0", "#1", "4294967296", "9223372036854775807"])
def test_bad_offsets(harness: Harness, offset: str) -> None:
    assert harness.text("SETBIT", "k", offset, 1) == BAD_OFFSET
    assert harness.text("GETBIT", "l", offset) == BAD_OFFSET


def test_the_largest_offset_follows_the_largest_string() -> None:
    harness = Harness(settings=StoreSettings(proto_max_bulk_len=10))
    assert harness.call("SETBIT", "k", 79, 1) == 0
    assert harness.text("SETBIT", "k", 80, 1) == BAD_OFFSET


def test_bits_refuse(harness: Harness) -> None:
    for bit in ("2", "-1", "x"):
        assert harness.text("SETBIT", "l", 0, bit) == "ERR bit is not an integer or out of range"
    assert harness.text("SETBIT", "l", 0, 1) == WRONG_TYPE
    assert harness.text("GETBIT", "l", 0) == WRONG_TYPE
    assert harness.text("BITCOUNT", "l") == WRONG_TYPE
    assert harness.text("BITPOS", "l", 1) == WRONG_TYPE
    assert harness.text("BITOP", "AND", "d", "l") == WRONG_TYPE
    assert harness.text("BITFIELD", "l", "GET", "u8", 0) == WRONG_TYPE
    assert harness.text("BITFIELD", "l", "SET", "u8", 0, 1) == WRONG_TYPE


# -- ranges -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        ("BITCOUNT k", 26),
        ("BITCOUNT k 0 0", 4),
        ("BITCOUNT k 1", 22),
        ("BITCOUNT k 1 1 byte", 6),
        ("BITCOUNT k 5 30 BIT", 17),
        ("BITCOUNT k -2 -3", 0),
        ("BITCOUNT k 9 10", 0),
        ("BITCOUNT none 0 5", 0),
        ("BITPOS k 1", 1),
        ("BITPOS k 0", 0),
        ("BITPOS k 1 2 -1 BIT", 2),
        ("BITPOS k 1 -1", 41),
        ("BITPOS k 0 7 15 BIT", 7),
        ("BITPOS none 0", 0),
        ("BITPOS none 1", -1),
        ("BITPOS none 0 3 9", 0),
    ],
)
def test_known_counts_and_places(harness: Harness, line: str, reply: int) -> None:
    harness.call("SET", "k", "foobar")
    assert harness.call(*line.split()) == reply


def test_clear_bits_follow_a_string_without_an_end(harness: Harness) -> None:
    harness.call("SET", "k", b"\xff\xff\xff")
    assert harness.call("BITPOS", "k", 0) == 24
    assert harness.call("BITPOS", "k", 0, 1) == 24
    assert harness.call("BITPOS", "k", 0, 0, -1) == -1
    assert harness.call("BITPOS", "k", 0, 3) == -1
    harness.call("SET", "k", "")
    assert harness.call("BITPOS", "k", 0) == -1


PLACES = st.integers(-45, 45)


@given(
    st.one_of(st.binary(max_size=5), st.sampled_from([b"\xff" * 5, b"\0" * 5, b"\0\0\x10", b"\xff\xef"])),
    PLACES,
    PLACES,
    st.sampled_from(["BIT", "BYTE"]),
)
def test_ranges_like_a_list_of_bits(value: bytes, start: int, end: int, unit: str) -> None:
    harness = Harness()
    harness.call("SET", "k", value)
    size = len(value) * (8 if unit == "BIT" else 1)
    first = max(start + size, 0) if start < 0 else start
    last = min(max(end + size, 0) if end < 0 else end, size - 1)
    scale = 1 if unit == "BIT" else 8
    first, stop = first * scale, (last + 1) * scale
    bits = bits_of(value)[first:stop] if first < stop else []
    # BITCOUNT alone looks at a range that ends before its start before it looks at the string's size.
    backwards = start < 0 and end < 0 and start > end
    assert harness.call("BITCOUNT", "k", start, end, unit) == (0 if backwards else sum(bits))
    for bit in (0, 1):
        place = first + bits.index(bit) if bit in bits else -1
        assert harness.call("BITPOS", "k", bit, start, end, unit) == place


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("BITCOUNT k x 1", NOT_INTEGER),
        ("BITCOUNT k 1 x", NOT_INTEGER),
        ("BITCOUNT k 1 BIT", NOT_INTEGER),
        ("BITCOUNT k 1 x FOO", SYNTAX),
        ("BITCOUNT k x 1 BIT 2", SYNTAX),
        ("BITPOS k x", NOT_INTEGER),
        ("BITPOS k 2 x", "ERR The bit argument must be 1 or 0."),
        ("BITPOS k 1 x", NOT_INTEGER),
        ("BITPOS k 1 1 x FOO", SYNTAX),
        ("BITPOS k 1 x 1 FOO", NOT_INTEGER),
        ("BITPOS k 1 x 1 BIT 2", SYNTAX),
    ],
)
def test_bad_ranges(harness: Harness, line: str, message: str) -> None:
    assert harness.text(*line.split()) == message


# -- BITOP --------------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=5), min_size=1, max_size=4), st.sampled_from(["AND", "or", "XOR", "NOT"]))
def test_bitop_like_lists_of_bits(values: list[bytes], operation: str) -> None:
    assume(operation != "NOT" or len(values) == 1)
    harness = Harness()
    size = max(map(len, values))
    rows = [bits_of(value.ljust(size, b"\0")) for value in values]
    columns = list(zip(*rows, strict=True))
    combined = {
        "AND": [int(all(column)) for column in columns],
        "or": [int(any(column)) for column in columns],
        "XOR": [sum(column) % 2 for column in columns],
        "NOT": [1 - column[0] for column in columns],
    }[operation]
    for place, value in enumerate(values):
        harness.call("SET", f"k{place}", value)
    harness.call("SET", "target", "old", "PX", 1000)
    assert harness.call("BITOP", operation, "target", *(f"k{place}" for place in range(len(values)))) == size
    result = harness.call("GET", "target")
    assert (None if result is None else bits_of(result)) == (combined if size else None)
    assert harness.store.deadline(b"target") is None
    harness.replay()


def test_bitop_records_what_it_stores(harness: Harness) -> None:
    harness.call("MSET", "a", "\x0f", "b", "\x3c\x01")
    assert harness.call("BITOP", "AND", "l", "a", "none", "b") == 2
    assert (harness.commands, named(harness)) == ([(b"SET", b"l", b"\0\0")], [(b"set", b"l")])
    assert harness.call("BITOP", "OR", "l", "none") == 0
    assert (harness.commands, named(harness)) == ([(b"DEL", b"l")], [(b"del", b"l")])
    assert harness.call("BITOP", "NOT", "l", "none") == 0
    assert harness.commands == []
    assert harness.text("BITOP", "FOO", "d", "a") == SYNTAX
    assert harness.text("BITOP", "NOT", "d", "a", "b") == "ERR BITOP NOT must be called with a single source key."
    harness.replay()


# -- BITFIELD -----------------------------------------------------------------------------------------------------


def fields(harness: Harness, line: str) -> object:
    return harness.call("BITFIELD", "k", *line.split())


def test_bitfield_reads_and_writes(harness: Harness) -> None:
    assert fields(harness, "") == []
    assert fields(harness, "GET u8 0 GET i64 #5") == [0, 0]
    assert fields(harness, "SET u8 0 255 GET i8 0 SET i8 0 -128 GET u8 0") == [0, -1, -1, 128]
    assert harness.commands == [(b"SET", b"k", b"\x80")]
    assert harness.events == [(notify.STRING, b"setbit", b"k")]
    assert fields(harness, "SET u8 0 128") == [128]
    assert harness.commands == []
    assert fields(harness, "set u4 #3 15 get u16 0 incrby u5 3 1") == [0, 0x800F, 1]
    assert fields(harness, "SET i64 3 -9223372036854775808 GET i64 3 GET u63 4") == [1 << 59 | 0xF << 51, -(2**63), 0]
    harness.replay()


@pytest.mark.parametrize(
    ("line", "replies"),
    [
        ("INCRBY u2 0 5", [1]),
        ("INCRBY u2 0 -1", [3]),
        ("SET i8 0 127 INCRBY i8 0 1", [0, -128]),
        ("OVERFLOW SAT INCRBY u8 0 300 INCRBY i8 8 -300", [255, -128]),
        ("OVERFLOW SAT SET i8 0 200 GET i8 0 SET u8 0 -1 GET u8 0", [0, 127, 127, 255]),
        ("OVERFLOW FAIL INCRBY u8 0 256 OVERFLOW wrap INCRBY u8 0 257", [None, 1]),
        ("SET u8 0 -1 GET u8 0 SET u8 0 257", [0, 255, 255]),
        ("SET i64 0 9223372036854775807 INCRBY i64 0 1", [0, -(2**63)]),
        ("OVERFLOW SAT SET i64 0 9223372036854775807 INCRBY i64 0 1", [0, 2**63 - 1]),
        ("OVERFLOW FAIL SET u1 0 2", [None]),
    ],
)
def test_overflows(harness: Harness, line: str, replies: list[int | None]) -> None:
    assert fields(harness, line) == replies
    harness.replay()


def test_a_failed_write_still_grows_the_string(harness: Harness) -> None:
    assert fields(harness, "OVERFLOW FAIL INCRBY u2 100 5") == [None]
    assert harness.events == []
    assert harness.call("STRLEN", "k") == 13
    harness.replay()


@given(
    st.binary(max_size=12),
    st.booleans(),
    st.integers(1, 64),
    st.integers(0, 100),
    st.integers(-(2**63), 2**63 - 1),
)
def test_a_field_is_a_slice_of_bits(value: bytes, signed: bool, width: int, offset: int, number: int) -> None:
    assume(signed or width < 64)
    harness = Harness()
    harness.call("SET", "k", value)
    kind = f"{'i' if signed else 'u'}{width}"
    before = bits_of(value.ljust(25, b"\0"))
    stored = number & ((1 << width) - 1)
    back = stored - (1 << width) if signed and stored >> (width - 1) else stored
    old = int("".join(map(str, before[offset : offset + width])), 2)
    old -= 1 << width if signed and old >> (width - 1) else 0
    assert harness.call("BITFIELD", "k", "GET", kind, offset, "SET", kind, offset, number, "GET", kind, offset) == [
        *(old, old, back)
    ]
    after = bits_of(harness.call("GET", "k").ljust(25, b"\0"))
    before[offset : offset + width] = map(int, f"{stored:0{width}b}")
    assert after == before
    assert harness.call("BITFIELD_RO", "k", "GET", kind, offset) == [back]
    harness.replay()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        *((f"GET {kind} 0", "Invalid bitfield type") for kind in ("u64", "i65", "u0", "x8", "U8", "u", "u08", "8")),
        *((f"GET u8 {offset}", BAD_OFFSET) for offset in ("-1", "#-1", "x", "#", "#x", "4294967296", "#536870912")),
        *((line, SYNTAX) for line in ("FOO", "GET u8", "SET u8 0", "INCRBY u8 0", "OVERFLOW", "FOO u8 0")),
        ("OVERFLOW FOO", "ERR Invalid OVERFLOW type specified"),
        ("SET u8 0 x", NOT_INTEGER),
        ("SET u8 0 1 INCRBY u8 0 1.5", NOT_INTEGER),
    ],
)
def test_bad_fields(harness: Harness, line: str, message: str) -> None:
    assert message in harness.text("BITFIELD", "k", *line.split())
    assert harness.call("EXISTS", "k") == 0


def test_bitfield_ro_only_reads(harness: Harness) -> None:
    harness.call("SET", "k", "ab")
    assert harness.call("BITFIELD_RO", "k", "GET", "u8", "#1", "OVERFLOW", "SAT") == [98]
    only_get = "ERR BITFIELD_RO only supports the GET subcommand"
    assert harness.text("BITFIELD_RO", "k", "SET", "u8", 0, 1) == only_get
    assert harness.text("BITFIELD_RO", "l", "SET", "u8", 0, 1) == only_get
