"""EXPIRE and its relatives."""

from __future__ import annotations

import pytest
from support.store_harness import START, Harness, event_class

INT64_MAX = (1 << 63) - 1


def with_key(deadline: int | None = None) -> Harness:
    harness = Harness()
    harness.call("SET", "k", "v")
    if deadline is not None:
        harness.call("PEXPIREAT", "k", deadline)
    return harness


@pytest.mark.parametrize(
    ("line", "deadline"),
    [
        ("EXPIRE k 100", START + 100_000),
        ("PEXPIRE k 100", START + 100),
        ("EXPIREAT k 1800000000", 1_800_000_000_000),
        ("PEXPIREAT k 1800000000123", 1_800_000_000_123),
        ("PEXPIREAT k 9223372036854775807", INT64_MAX),
    ],
)
def test_setting(line: str, deadline: int) -> None:
    harness = with_key()
    assert harness.call(*line.split()) == 1
    assert harness.commands == [(b"PEXPIREAT", b"k", b"%d" % deadline)]
    assert harness.events == [(event_class("g"), b"expire", b"k")]
    assert harness.call("PEXPIRETIME", "k") == deadline
    # The same again is a change again.
    assert harness.call(*line.split()) == 1
    assert len(harness.group) == 1
    harness.replay()


@pytest.mark.parametrize("line", ["EXPIRE k 0", "EXPIRE k -5", "PEXPIREAT k 1", "EXPIREAT k -1", "PEXPIRE k -1 LT"])
def test_the_past_deletes(line: str) -> None:
    harness = with_key()
    assert harness.call(*line.split()) == 1
    assert harness.commands == [(b"DEL", b"k")]
    assert harness.events == [(event_class("x"), b"expired", b"k")]
    assert harness.store.expired_keys == 1
    assert harness.call("EXISTS", "k") == 0
    harness.replay()


def test_a_copy_does_not_judge_by_its_clock() -> None:
    harness = with_key()
    harness.store.deletes_expired = False
    assert harness.call("PEXPIREAT", "k", START - 1000) == 1
    assert harness.content()[b"k"] == (b"v", START - 1000)
    assert harness.call("EXISTS", "k") == 0


@pytest.mark.parametrize(
    ("current", "option", "wanted", "reply"),
    [
        (None, "NX", 100, 1),
        (500, "NX", 100, 0),
        (None, "XX", 100, 0),
        (500, "XX", 100, 1),
        (None, "GT", 100, 0),
        (500, "GT", 500, 0),
        (500, "GT", 501, 1),
        (None, "LT", 100, 1),
        (500, "LT", 500, 0),
        (500, "lt", 499, 1),
        (500, "XX GT", 501, 1),
        (None, "XX LT", 100, 0),
        (500, "XX LT", 499, 1),
        (500, "NX NX", 100, 0),
        (500, "GT", -1, 0),
        (500, "LT", -1, 1),
    ],
)
def test_options(current: int | None, option: str, wanted: int, reply: int) -> None:
    harness = with_key(None if current is None else START + current * 1000)
    assert harness.call("EXPIRE", "k", wanted, *option.split()) == reply
    assert len(harness.group) == reply
    harness.replay()


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("EXPIRE k abc", "ERR value is not an integer or out of range"),
        ("EXPIRE k 1.5", "ERR value is not an integer or out of range"),
        ("EXPIRE missing abc", "ERR value is not an integer or out of range"),
        ("EXPIRE k 9223372036854775807", "ERR invalid expire time in 'expire' command"),
        ("EXPIRE k -9223372036854775808", "ERR invalid expire time in 'expire' command"),
        ("EXPIRE missing 9223372036854776", "ERR invalid expire time in 'expire' command"),
        ("PEXPIRE k 9223372036854775807", "ERR invalid expire time in 'pexpire' command"),
        ("EXPIREAT k 9223372036854776", "ERR invalid expire time in 'expireat' command"),
        ("EXPIRE k 100 FOO", "ERR Unsupported option FOO"),
        ("EXPIRE k abc FOO", "ERR Unsupported option FOO"),
        ("EXPIRE k 100 NX XX", "ERR NX and XX, GT or LT options at the same time are not compatible"),
        ("EXPIRE k 100 GT NX", "ERR NX and XX, GT or LT options at the same time are not compatible"),
        ("EXPIRE k 100 GT LT", "ERR GT and LT options at the same time are not compatible"),
        ("EXPIRE k", "ERR wrong number of arguments for 'expire' command"),
    ],
)
def test_errors(line: str, error: str) -> None:
    harness = with_key(START + 5000)
    assert harness.text(*line.split()) == error
    assert harness.call("PTTL", "k") == 5000


def test_missing_keys() -> None:
    harness = Harness()
    for name in ("EXPIRE", "PEXPIRE", "EXPIREAT", "PEXPIREAT"):
        assert harness.call(name, "missing", 100) == 0
    assert harness.call("PERSIST", "missing") == 0
    for name in ("TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME"):
        assert harness.call(name, "missing") == -2
    assert harness.effects == []


@pytest.mark.parametrize(
    ("left", "seconds"), [(100_000, 100), (1499, 1), (1500, 2), (499, 0), (500, 1), (0, 0), (99_501, 100)]
)
def test_reading_rounds(left: int, seconds: int) -> None:
    harness = with_key(START + 100_000)
    harness.now += 100_000 - left
    assert harness.call("PTTL", "k") == left
    assert harness.call("TTL", "k") == seconds
    assert harness.call("PEXPIRETIME", "k") == START + 100_000
    assert harness.call("EXPIRETIME", "k") == (START + 100_000) // 1000


def test_expiretime_rounds() -> None:
    harness = with_key(START + 999)
    assert harness.call("EXPIRETIME", "k") == START // 1000 + 1
    harness.call("PEXPIREAT", "k", START + 1499)
    assert harness.call("EXPIRETIME", "k") == START // 1000 + 1


def test_without_deadline() -> None:
    harness = with_key()
    for name in ("TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME"):
        assert harness.call(name, "k") == -1


def test_persist() -> None:
    harness = with_key(START + 5000)
    assert harness.call("PERSIST", "k") == 1
    assert harness.commands == [(b"PERSIST", b"k")]
    assert harness.events == [(event_class("g"), b"persist", b"k")]
    assert harness.call("PERSIST", "k") == 0
    assert harness.group == []
    assert harness.call("TTL", "k") == -1
    harness.replay()


def test_expired_when_asked() -> None:
    harness = with_key(START + 5000)
    harness.now += 5001
    assert harness.call("TTL", "k") == -2
    assert harness.commands == [(b"DEL", b"k")]
    assert harness.events == [(event_class("x"), b"expired", b"k")]
    harness.replay()


def test_snapshots_keep_their_deadlines() -> None:
    harness = with_key(START + 5000)
    with harness.frozen():
        harness.call("EXPIRE", "k", 100)
    with harness.frozen():
        harness.call("PERSIST", "k")
    harness.replay()
