"""OBJECT ENCODING at each threshold; the expected names were read off a Valkey 9.1."""

from __future__ import annotations

import pytest
from support.store_harness import Harness

from kevynode.store.settings import StoreSettings


def encoding(*fill: str | int | float | bytes, settings: StoreSettings | None = None) -> bytes:
    harness = Harness(settings=settings)
    harness.call(*fill)
    found = harness.call("OBJECT", "ENCODING", fill[1])
    assert isinstance(found, bytes)
    return found


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("k", "0", b"int"),
        ("k", "-5", b"int"),
        ("k", "9223372036854775807", b"int"),
        ("k", "-9223372036854775808", b"int"),
        ("k", "9223372036854775808", b"embstr"),
        ("k", "012", b"embstr"),
        ("k", "-0", b"embstr"),
        ("k", " 1", b"embstr"),
        ("k", "", b"embstr"),
        ("k", "x" * 112, b"embstr"),
        ("k", "x" * 113, b"raw"),
        ("k" * 31, "x" * 82, b"embstr"),
        ("k" * 31, "x" * 83, b"raw"),
        ("k" * 32, "x" * 79, b"embstr"),
        ("k" * 32, "x" * 80, b"raw"),
        ("k" * 111, "", b"embstr"),
        ("k" * 112, "", b"raw"),
    ],
)
def test_strings(key: str, value: str, expected: bytes) -> None:
    assert encoding("SET", key, value) == expected


@pytest.mark.parametrize(("size", "expected"), [(107, b"embstr"), (108, b"raw")])
def test_a_deadline_needs_room_beside_the_key(size: int, expected: bytes) -> None:
    assert encoding("SET", "k" * size, "", "EX", 100) == expected
    assert encoding("SET", "k" * size, 12, "EX", 100) == b"int"


def numbered(size: int, step: int = 1, text: str = "") -> list[str]:
    return [f"{text}{number}" for number in range(0, size * step, step)]


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        (["1", "2", "-9223372036854775808"], b"intset"),
        (numbered(512), b"intset"),
        (numbered(513), b"hashtable"),
        (["1", "a"], b"listpack"),
        (["1", "01"], b"listpack"),
        (["9223372036854775808"], b"listpack"),
        (numbered(128, text="m"), b"listpack"),
        (numbered(129, text="m"), b"hashtable"),
        (["x" * 64], b"listpack"),
        (["x" * 65], b"hashtable"),
    ],
)
def test_sets(members: list[str], expected: bytes) -> None:
    assert encoding("SADD", "k", *members) == expected


def test_small_intsets_of_other_settings() -> None:
    settings = StoreSettings(set_max_intset_entries=3)
    assert encoding("SADD", "k", 1, 2, 3, settings=settings) == b"intset"
    assert encoding("SADD", "k", 1, 2, 3, 4, settings=settings) == b"hashtable"
    assert encoding("SADD", "k", 1, 2, 3, 4, "a", settings=settings) == b"listpack"


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        (numbered(1024), b"listpack"),
        (numbered(1026), b"hashtable"),
        (["f", "x" * 64], b"listpack"),
        (["f", "x" * 65], b"hashtable"),
        (["x" * 65, "v"], b"hashtable"),
    ],
)
def test_hashes(pairs: list[str], expected: bytes) -> None:
    assert encoding("HSET", "k", *pairs) == expected


def test_hashes_with_deadlines() -> None:
    harness = Harness()
    harness.call("HSET", "k", "f", "v")
    harness.call("HEXPIRE", "k", 100, "FIELDS", 1, "f")
    assert harness.call("OBJECT", "ENCODING", "k") == b"hashtable"


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        (numbered(256), b"listpack"),
        (numbered(258), b"skiplist"),
        (["1", "x" * 64], b"listpack"),
        (["1", "x" * 65], b"skiplist"),
    ],
)
def test_sorted_sets(pairs: list[str], expected: bytes) -> None:
    assert encoding("ZADD", "k", *pairs) == expected


@pytest.mark.parametrize(
    ("limit", "elements", "expected"),
    [
        (-2, ["x" * 8185], b"listpack"),
        (-2, ["x" * 8186], b"quicklist"),
        (-2, ["x" * 8000, "x" * 100], b"listpack"),
        (-2, ["x" * 8000, "x" * 8000], b"quicklist"),
        (-2, ["x"] * 2700, b"listpack"),
        (-2, ["x"] * 2800, b"quicklist"),
        (-2, ["7"] * 4000, b"listpack"),
        (-2, ["7"] * 5000, b"quicklist"),
        (-2, ["1234567890123"] * 800, b"listpack"),
        (-2, ["1234567890123"] * 850, b"quicklist"),
        (-1, ["x" * 4089], b"listpack"),
        (-1, ["x" * 4090], b"quicklist"),
        (-5, ["x" * 60_000], b"listpack"),
        (3, ["1", "2", "3"], b"listpack"),
        (3, ["1", "2", "3", "4"], b"quicklist"),
        (3, ["x" * 8186], b"quicklist"),
    ],
)
def test_lists(limit: int, elements: list[str], expected: bytes) -> None:
    harness = Harness(settings=StoreSettings(list_max_listpack_size=limit))
    for element in elements:
        harness.call("RPUSH", "k", element)
    assert harness.call("OBJECT", "ENCODING", "k") == expected


def test_missing() -> None:
    harness = Harness()
    assert harness.call("OBJECT", "ENCODING", "missing") is None
    assert (harness.store.hits, harness.store.misses, harness.unbound_events) == (0, 1, [])
    assert harness.call("OBJECT", "REFCOUNT", "missing") is None
    assert harness.call("OBJECT", "FREQ", "missing") is None
    harness.call("SET", "k", 1)
    assert harness.call("OBJECT", "REFCOUNT", "k") == 1
