"""The digest of a slice: equal exactly if the data are, in whatever order they come."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.store_harness import START, Harness, content

from kevynode.scope.slice_digest import SLICE, SliceDigest
from kevynode.store.apply import Applier
from kevynode.store.rebuild import rebuild_commands
from kevynode.store.store import Store
from kevynode.store.stream_values import Stream
from kevynode.store.values import Hash, List, Set, SortedSet, Value

WORDS = st.sampled_from([b"", b"a", b"b", b"ab", b"1", b"1:a", b";", b"\xff\x00"])
DEADLINES = st.none() | st.integers(START + 1, START + 3)


def entries(store: Store) -> list[tuple[bytes, Value, int | None]]:
    return [(key, value, store.deadline(key)) for shard in store.keyspace.shards() for key, value in shard.items()]


def digest(found: list[tuple[bytes, Value, int | None]]) -> tuple[int, str]:
    made = SliceDigest()
    for entry in found:
        made.add(*entry)
    return made.keys, made.hexadecimal


def rebuilt(found: list[tuple[bytes, Value, int | None]]) -> Store:
    """A store that was given the commands of everything in ``found``."""
    store = Harness().store
    store.deletes_expired = False
    applier = Applier(store)
    for entry in found:
        applier.apply_all(rebuild_commands(*entry))
    store.commit()
    return store


@st.composite
def values(draw: st.DrawFn) -> Value:
    kind = draw(st.integers(0, 5))
    some = st.lists(WORDS, min_size=1, max_size=5)
    if kind == 0:
        return draw(WORDS)
    if kind == 1:
        table = Hash()
        for field in draw(some):
            table.put(field, draw(WORDS))
            deadline = draw(DEADLINES)
            if deadline is not None:
                table.set_deadline(field, deadline)
        return table
    if kind == 2:
        row = List()
        row.assign(draw(some))
        return row
    if kind == 3:
        return Set.of(draw(some))
    if kind == 4:
        return SortedSet.of({member: draw(st.sampled_from([0.0, -1.5, 2.0**70])) for member in draw(some)})
    return draw(streams())


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    stream = Stream()
    for number in range(1, draw(st.integers(1, 4))):
        stream.append((number, draw(st.integers(0, 1))), (draw(WORDS), draw(WORDS)))
    for name in draw(st.sets(WORDS, max_size=2)):
        group = stream.create_group(name, draw(st.sampled_from([(0, 0), (1, 0)])))
        for consumer in draw(st.sets(WORDS, max_size=2)):
            group.see(consumer, draw(st.integers(START, START + 2)))
        if len(stream) and draw(st.booleans()):
            group.deliver(stream.first_id, draw(WORDS), draw(st.integers(START, START + 1)), draw(st.integers(1, 2)))
    return stream


def describe(value: Value, deadline: int | None) -> Any:
    """What is told of a value, in a form that compares: written down anew, not by the digest's own walk."""
    match value:
        case Hash():
            told: Any = ("hash", dict(value.fields.items()), dict(value.deadlines or {}))
        case Set():
            told = ("set", set(value))
        case List():
            told = ("list", list(value.elements))
        case SortedSet():
            told = ("zset", dict(value.scores.items()))
        case Stream():
            groups = {name: (g.last_delivered, set(g.consumers), dict(g.pending)) for name, g in value.groups.items()}
            told = ("stream", list(value), value.last_id, value.max_deleted_id, value.entries_added, groups)
        case _:
            told = value
    return told, deadline


SLICES = st.dictionaries(WORDS, st.tuples(values(), DEADLINES), max_size=3)


@given(SLICES, SLICES)
def test_equal_exactly_if_the_data_are(
    first: dict[bytes, tuple[Value, int | None]], second: dict[bytes, tuple[Value, int | None]]
) -> None:
    told = [{key: describe(*held) for key, held in each.items()} for each in (first, second)]
    made = [digest([(key, *held) for key, held in each.items()]) for each in (first, second)]
    assert (told[0] == told[1]) == (made[0] == made[1])


@given(st.tuples(values(), DEADLINES), st.tuples(values(), DEADLINES))
def test_two_values_of_one_key(first: tuple[Value, int | None], second: tuple[Value, int | None]) -> None:
    same = describe(*first) == describe(*second)
    assert same == (digest([(b"k", *first)]) == digest([(b"k", *second)]))


@given(SLICES)
def test_what_was_rebuilt_has_the_same_digest(held: dict[bytes, tuple[Value, int | None]]) -> None:
    found = [(key, *each) for key, each in held.items()]
    assert digest(entries(rebuilt(found))) == digest(found)


def big(seed: int) -> Harness:
    """Much data of every kind, made in an order of its own."""
    rng = random.Random(seed)
    harness = Harness()
    calls: list[tuple[bytes | int, ...]]
    calls = [(b"SET", b"key:%d" % number, b"v" * (number % 50)) for number in range(3000)]
    calls += [(b"SADD", b"set", b"m%d" % number) for number in range(3000)]
    calls += [(b"HSET", b"hash", b"f%d" % number, b"v") for number in range(3000)]
    calls += [(b"ZADD", b"sorted", number % 7, b"m%d" % number) for number in range(3000)]
    rng.shuffle(calls)
    calls += [(b"RPUSH", b"list", b"e%d" % number) for number in range(3000)]
    calls += [(b"PEXPIREAT", b"key:%d" % number, START + number + 5000) for number in range(0, 3000, 7)]
    calls += [(b"HPEXPIREAT", b"hash", START + 9000, b"FIELDS", 1, b"f7")]
    for words in calls:
        harness.call(*words)
    Applier(harness.store).apply_all([b"XADD", b"stream", b"%d-1" % (number + 1), b"f", b"v"] for number in range(3000))
    harness.store.commit()
    return harness


def test_the_order_of_keys_and_elements_does_not_matter_and_work_comes_in_slices() -> None:
    first, second = big(1), big(2)
    assert content(first.store) == content(second.store)
    assert digest(entries(first.store)) == digest(entries(second.store))
    made = SliceDigest()
    pauses = sum(1 for _ in made.walk(entries(second.store)))
    # Six times 3,000 elements, and the keys.
    assert pauses >= 6 * 3000 // SLICE
    assert (made.keys, made.hexadecimal) == digest(entries(first.store))
    assert made.keys == 3005
    second.call("HPERSIST", "hash", "FIELDS", 1, "f7")
    assert digest(entries(first.store)) != digest(entries(second.store))


def test_nothing() -> None:
    assert (SliceDigest().keys, SliceDigest().hexadecimal) == (0, "0" * 64)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((b"a", b"bc", None), (b"ab", b"c", None)),
        ((b"a", b"b", 1), (b"a", b"b", 11)),
        ((b"a", b"b", 1), (b"1", b"b", None)),
        ((b"a", b"", None), (b"a", b"", 0)),
    ],
)
def test_what_stands_side_by_side_is_kept_apart(first: Any, second: Any) -> None:
    assert digest([first]) != digest([second])


def test_empty_streams_keep_their_history() -> None:
    stream = Stream()
    stream.append((5, 1), (b"f", b"v"))
    before = digest([(b"s", stream, None)])
    stream.remove((5, 1))
    after = digest([(b"s", stream, None)])
    assert before != after == digest(entries(rebuilt([(b"s", stream, None)])))


def test_what_is_pending_of_a_deleted_entry_is_rebuilt() -> None:
    stream = Stream()
    stream.append((1, 1), (b"f", b"v"))
    stream.create_group(b"g", (1, 1)).deliver((1, 1), b"c", START, 1)
    stream.remove((1, 1))
    found: list[tuple[bytes, Value, int | None]] = [(b"s", stream, None)]
    assert digest(entries(rebuilt(found))) == digest(found)
