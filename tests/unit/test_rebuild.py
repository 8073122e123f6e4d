"""Values told as canonical commands."""

from __future__ import annotations

import math

import pytest
from support.store_harness import START, Harness, content, describe

from kevynode.store.rebuild import CHUNK, deep_copy, rebuild_commands
from kevynode.store.values import Hash, List, Set, SortedSet, Value


def big_hash() -> Hash:
    value = Hash()
    for number in range(2 * CHUNK + 5):
        value.put(b"f%d" % number, b"v%d" % number)
        if number % 3 == 0:
            value.set_deadline(b"f%d" % number, START + 1000 + number % 2)
    return value


def a_list(size: int) -> List:
    value = List()
    value.assign(b"e%d" % number for number in range(size))
    return value


def a_set(size: int) -> Set:
    return Set.of(b"m%d" % number for number in range(size))


def a_sorted_set(size: int) -> SortedSet:
    scores = {b"m%d" % number: number / 7 for number in range(size)}
    return SortedSet.of(scores | {b"top": math.inf, b"bottom": -math.inf, b"big": 2.0**70, b"small": 5e-324})


VALUES: dict[str, Value] = {
    "empty string": b"",
    "string": b"\x00\r\n\xff",
    "hash": big_hash(),
    "list": a_list(2 * CHUNK),
    "short list": a_list(1),
    "set": a_set(2 * CHUNK + 1),
    "sorted set": a_sorted_set(CHUNK),
}


@pytest.mark.parametrize("deadline", [None, START + 5000], ids=["for ever", "expires"])
@pytest.mark.parametrize("name", VALUES)
def test_commands_build_the_value_again(name: str, deadline: int | None) -> None:
    value = VALUES[name]
    commands = rebuild_commands(b"key", value, deadline)
    assert max(map(len, commands)) <= 2 * CHUNK + 5
    harness = Harness()
    for words in commands:
        harness.call(*words)
    assert content(harness.store) == {b"key": (describe(value), deadline)}


def test_pieces_are_bounded() -> None:
    assert [len(words) - 2 for words in rebuild_commands(b"k", a_list(2 * CHUNK))] == [CHUNK, CHUNK]
    assert [len(words) - 2 for words in rebuild_commands(b"k", a_set(CHUNK + 1))] == [CHUNK, 1]
    assert rebuild_commands(b"k", List(), 5) == []


def test_fields_with_one_deadline_share_a_command() -> None:
    value = Hash()
    for number in range(4):
        value.put(b"%d" % number, b"v")
        value.set_deadline(b"%d" % number, 100 + number // 2)
    assert rebuild_commands(b"k", value, 7)[1:] == [
        [b"HPEXPIREAT", b"k", b"100", b"FIELDS", b"2", b"0", b"1"],
        [b"HPEXPIREAT", b"k", b"101", b"FIELDS", b"2", b"2", b"3"],
        [b"PEXPIREAT", b"k", b"7"],
    ]


@pytest.mark.parametrize("name", VALUES)
def test_deep_copies_are_their_own(name: str) -> None:
    value = VALUES[name]
    before = describe(value)
    twin = deep_copy(value, 3)
    assert describe(twin) == before
    if not isinstance(twin, bytes):
        assert twin is not value
        assert twin.epoch == 3
    match twin:
        case Hash():
            twin.put(b"f1", b"new")
            twin.remove(b"f2")
        case List():
            twin.push_left(b"new")
        case Set():
            twin.add(b"new")
        case SortedSet():
            twin.put(b"new", 1.0)
    assert describe(value) == before
