"""SCAN, and what the scans of containers share with it."""

from __future__ import annotations

from typing import Any

import pytest
from support.store_harness import START, Harness

from kevynode.errors import ReplyError
from kevynode.store.commands.scan import parse_cursor


def whole(harness: Harness, *front: str, options: tuple[str | int, ...] = ()) -> list[bytes]:
    """Every element of a scan, cursor 0 to cursor 0."""
    found: list[bytes] = []
    cursor: Any = 0
    for _ in range(20_000):
        cursor, part = harness.call(*front, cursor, *options)
        found += part
        if cursor == b"0":
            return found
    raise AssertionError("the scan has no end")


def mixed() -> Harness:
    harness = Harness()
    for number in range(700):
        harness.call("SET", f"str:{number}", number)
    for number in range(300):
        harness.call("RPUSH", f"list:{number}", number)
    for number in range(20):
        harness.call("HSET", f"hash:{number}", "f", "v")
    return harness


@pytest.mark.parametrize(
    ("cursor", "value"),
    [
        (b"0", 0),
        (b"12", 12),
        (b"18446744073709551615", 2**64 - 1),
        (b"00018446744073709551615", 2**64 - 1),
        (b"0" * 5000, 0),
        (b" 0", 0),
        (b"\t\n\v\f\r 7", 7),
        (b"+1", 1),
        (b"007", 7),
        (b"-0", 0),
        (b"-00", 0),
        (b"-01", 2**64 - 1),
        (b" -1", 2**64 - 1),
        (b"-9223372036854775809", 2**63 - 1),
        (b"-18446744073709551615", 1),
        (b"0\0x", 0),
        (b"5\x00", 5),
    ],
)
def test_cursors_are_read_as_valkey_does(cursor: bytes, value: int) -> None:
    assert parse_cursor(cursor) == value
    assert not isinstance(Harness().call("SCAN", cursor), ReplyError)


@pytest.mark.parametrize(
    "cursor",
    [
        b"",
        b"-",
        b"+",
        b"abc",
        b"-1",
        b"1.5",
        b"0 ",
        b"0x0",
        b"\x000",
        b"18446744073709551616",
        b"+18446744073709551616",
        b"-18446744073709551616",
        b"-9223372036854775808",
        b"9" * 5000,
        b"0" * 5000 + b"x",
    ],
)
def test_bad_cursors(cursor: bytes) -> None:
    assert Harness().text("SCAN", cursor) == "ERR invalid cursor"


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("SCAN 0 FOO", "ERR syntax error"),
        ("SCAN 0 FOO bar", "ERR syntax error"),
        ("SCAN 0 COUNT", "ERR syntax error"),
        ("SCAN 0 COUNT 0", "ERR syntax error"),
        ("SCAN 0 COUNT -1", "ERR syntax error"),
        ("SCAN 0 COUNT abc", "ERR value is not an integer or out of range"),
        ("SCAN 0 COUNT 01", "ERR value is not an integer or out of range"),
        ("SCAN 0 MATCH", "ERR syntax error"),
        ("SCAN 0 TYPE", "ERR syntax error"),
        ("SCAN 0 TYPE module", "ERR unknown type name 'module'"),
        ("SCAN 0 TYPE foo COUNT abc", "ERR unknown type name 'foo'"),
        ("SCAN abc TYPE foo", "ERR invalid cursor"),
        ("SCAN 0 NOVALUES", "ERR NOVALUES option can only be used in HSCAN"),
        ("HSCAN hash:1 0 NOSCORES", "ERR NOSCORES option can only be used in ZSCAN"),
        ("HSCAN hash:1 0 TYPE hash", "ERR syntax error"),
        ("HSCAN missing abc", "ERR invalid cursor"),
    ],
)
def test_errors(line: str, error: str) -> None:
    assert mixed().text(*line.split()) == error


@pytest.mark.parametrize("count", [1, 7, 100, 5000])
def test_whole_scan(count: int) -> None:
    harness = mixed()
    found = whole(harness, "SCAN", options=("COUNT", count))
    assert sorted(found) == sorted(harness.store.keyspace)


def test_filters() -> None:
    harness = mixed()
    assert len(whole(harness, "SCAN", options=("TYPE", "LIST"))) == 300
    assert len(whole(harness, "SCAN", options=("TYPE", "string", "COUNT", 50))) == 700
    assert whole(harness, "SCAN", options=("TYPE", "stream")) == []
    assert len(whole(harness, "SCAN", options=("MATCH", "str:1*"))) == 111
    assert sorted(whole(harness, "SCAN", options=("MATCH", "*:1", "TYPE", "hash"))) == [b"hash:1"]
    assert len(whole(harness, "SCAN", options=("MATCH", "list*", "MATCH", "*"))) == 1020


def test_expired_keys_are_deleted_when_they_would_be_returned() -> None:
    harness = Harness()
    harness.call("SET", "a", "v", "PXAT", START + 1000)
    harness.call("SET", "b", "v")
    harness.now += 1001
    assert harness.call("SCAN", 0, "MATCH", "x") == [b"0", []]
    assert harness.call("SCAN", 0, "TYPE", "list") == [b"0", []]
    assert harness.call("DBSIZE") == 2
    assert harness.call("SCAN", 0) == [b"0", [b"b"]]
    assert harness.commands == [(b"DEL", b"a")]
    harness.replay()


def test_a_copy_hides_expired_keys() -> None:
    harness = Harness()
    harness.call("SET", "a", "v", "PXAT", START + 1000)
    harness.store.deletes_expired = False
    harness.now += 1001
    assert harness.call("SCAN", 0) == [b"0", []]
    assert harness.call("DBSIZE") == 1


@pytest.mark.parametrize("size", [1, 100, 129, 800, 3000])
@pytest.mark.parametrize("count", [1, 10, 400])
def test_containers(size: int, count: int) -> None:
    harness = Harness()
    members = [b"m%d" % number for number in range(size)]
    harness.call("SADD", "s", *members)
    assert sorted(whole(harness, "SSCAN", "s", options=("COUNT", count))) == sorted(members)
    if size > 128:
        assert len(harness.call("SSCAN", "s", 0, "COUNT", count)[1]) == min(count, size)


def test_containers_that_change_their_form_during_a_scan() -> None:
    """A cursor from a small table is true for a sharded one, and the other way round."""
    for before, after in ((500, 3000), (3000, 500), (3000, 150), (150, 3000)):
        harness = Harness()
        stays = [b"m%d" % number for number in range(min(before, after))]
        harness.call("SADD", "s", *(f"m{number}" for number in range(before)))
        cursor, found = harness.call("SSCAN", "s", 0, "COUNT", 40)
        if before < after:
            harness.call("SADD", "s", *(f"m{number}" for number in range(before, after)))
        else:
            harness.call("SREM", "s", *(f"m{number}" for number in range(after, before)))
            for value in harness.store.keyspace.values():
                assert not isinstance(value, bytes)
                value.compact(harness.store.random)
        while cursor != b"0":
            cursor, part = harness.call("SSCAN", "s", cursor, "COUNT", 40)
            found += part
        assert set(stays) <= set(found)
