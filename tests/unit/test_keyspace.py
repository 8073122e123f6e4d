"""The keyspace: what its shards know about keys stays with them through splits, merges, copies and snapshots."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.store_harness import Harness

from kevynode.store.keyspace import KeyShard, Keyspace
from kevynode.store.sharded import SHARD_LIMIT
from kevynode.store.store import Store


def filled(size: int) -> Store:
    store = Store(random.Random(1))
    for number in range(size):
        key = b"k%d" % number
        store.put(key, b"v%d" % number)
        if number % 2:
            store.set_deadline(key, 10_000 + number)
        store.keyspace.writable(key).access[key] = number
    return store


def known(keyspace: Keyspace) -> dict[bytes, tuple[object, int | None, int | None]]:
    return {
        key: (value, shard.deadlines.get(key), shard.access.get(key))
        for shard in keyspace.shards()
        for key, value in shard.items()
    }


def compact(keyspace: Keyspace) -> None:
    place = keyspace.compact_at(0)
    while place:
        place = keyspace.compact_at(place)


def test_splits_keep_deadlines_and_clocks() -> None:
    store = filled(5 * SHARD_LIMIT)
    assert len(store.keyspace.directory) > 4
    assert known(store.keyspace) == {
        b"k%d" % number: (b"v%d" % number, 10_000 + number if number % 2 else None, number)
        for number in range(5 * SHARD_LIMIT)
    }


def test_merges_keep_deadlines_and_clocks() -> None:
    store = filled(5 * SHARD_LIMIT)
    for number in range(100, 5 * SHARD_LIMIT):
        store.delete(b"k%d" % number)
    before = known(store.keyspace)
    compact(store.keyspace)
    assert len(store.keyspace.directory) == 1
    assert known(store.keyspace) == before
    assert len(before) == 100


def test_deleting_forgets_deadlines_and_clocks() -> None:
    store = filled(100)
    for number in range(100):
        assert store.delete(b"k%d" % number)
    assert all(not shard.deadlines and not shard.access for shard in store.keyspace.shards())
    assert store.used == 0


def test_deadlines_alone_make_a_shard_roomy() -> None:
    store = filled(600)
    for number in range(1, 600):
        store.clear_deadline(b"k%d" % number)
    (shard,) = store.keyspace.shards()
    assert shard.roomy()
    before = shard.memory()
    compact(store.keyspace)
    (shard,) = store.keyspace.shards()
    assert shard.memory() < before
    assert len(shard) == 600


def test_shards_are_of_the_right_class() -> None:
    keyspace = Keyspace()
    for number in range(3 * SHARD_LIMIT):
        keyspace[b"%d" % number] = b""
    compact(keyspace)
    assert {type(shard) for shard in keyspace.shards()} == {KeyShard}
    assert type(keyspace.copy()) is Keyspace


@given(st.lists(st.tuples(st.sampled_from("put expire persist delete freeze compact".split()), st.integers(0, 30))))
def test_snapshots_hold_what_was_there(steps: list[tuple[str, int]]) -> None:
    harness = Harness()
    store = harness.store
    snapshots = []
    for number, (step, name) in enumerate(steps):
        key = b"k%d" % name
        match step:
            case "put":
                harness.call("SET", key, number)
            case "expire":
                harness.call("PEXPIRE", key, 1000 + number)
            case "persist":
                harness.call("PERSIST", key)
            case "delete":
                harness.call("DEL", key)
            case "freeze":
                content = {key: found[:2] for key, found in known(store.keyspace).items()}
                snapshots.append((content, store.freeze()))
            case _:
                compact(store.keyspace)
    for content, shards in snapshots:
        assert content == {key: (value, shard.deadlines.get(key)) for shard in shards for key, value in shard.items()}
    harness.replay()


def test_no_snapshot_inside_a_command() -> None:
    store = Store(random.Random(1))
    store.put(b"k", b"v")
    store.emit((b"SET", b"k", b"v"), b"k")
    with pytest.raises(RuntimeError, match="between two groups"):
        store.freeze()
    store.commit()
    frozen = store.freeze()
    store.put(b"k", b"w")
    assert [dict(shard) for shard in frozen] == [{b"k": b"v"}]
