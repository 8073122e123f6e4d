"""Data built aside: counted as a store counts its own, and taken over by one in one step."""

from __future__ import annotations

import random
from typing import Any

import pytest
from support.session_harness import ServerHarness, request
from support.store_harness import START, Harness, content, describe

from kevynode.replicate.snapshot import SnapshotDecoder, encode_snapshot
from kevynode.store.expiry import ExpirySweeper
from kevynode.store.journal import Effect
from kevynode.store.sharded import SHARD_LIMIT
from kevynode.store.staging import Staging
from kevynode.store.store import Store
from kevynode.store.stream_values import Stream
from kevynode.store.values import Hash, List, Set, SortedSet, Value, bytes_memory, value_memory


def check(staging: Staging) -> None:
    """Assert that the counts are what a walk finds."""
    items = list(staging.keyspace.items())
    assert staging.count == len(items)
    assert staging.used == sum(bytes_memory(key) + value_memory(value) for key, value in items)
    assert staging.memory() == staging.used + staging.keyspace.memory()
    for shard in staging.keyspace.shards():
        assert set(shard.deadlines) <= set(shard)


def held(staging: Staging) -> dict[bytes, tuple[Any, int | None]]:
    return {
        key: (describe(value), shard.deadlines.get(key))
        for shard in staging.keyspace.shards()
        for key, value in shard.items()
    }


def hash_of(*fields: bytes) -> Hash:
    value = Hash()
    for field in fields:
        value.put(field, b"v")
    return value


def filled() -> Harness:
    """A store with something of every kind, made by commands."""
    harness = Harness()
    for line in (
        "SET string hello|SET volatile x PXAT 1700000100000|HSET hash f 1 g 2 h 3|HPEXPIRE hash 60000 FIELDS 2 f g"
        "|RPUSH list a b c d|SADD set x y z|ZADD zset 1 a 2.5 b -inf c|SET long " + "v" * 3000
    ).split("|"):
        harness.call(*line.split())
    for number in range(3000):
        harness.call("SET", f"key:{number}", number)
        harness.call("HSET", "wide", f"field:{number}", number)
        harness.call("SADD", "crowd", f"member:{number}")
        harness.call("ZADD", "ranking", number, f"member:{number}")
    return harness


def replace(harness: Harness, staging: Staging) -> None:
    """Replace the data; the harness wants a number for every effect, this one included."""
    harness.store.replace_all(staging, harness.store.journal.offset + 1)


def shipped(store: Store, epoch: int = 0) -> Staging:
    """What the store holds, by way of a snapshot."""
    decoder = SnapshotDecoder(Staging(epoch))
    for piece in encode_snapshot(store.freeze(), version=6):
        decoder.feed(piece)
    decoder.finish()
    return decoder.staging


# -- the staging ------------------------------------------------------------------------------------------------------


def test_puts_replace_and_count() -> None:
    staging = Staging()
    staging.put(b"a", b"1", 100)
    staging.put(b"b", b"x" * 100)
    check(staging)
    staging.put(b"a", hash_of(b"f"))
    staging.put(b"b", b"y", 7)
    check(staging)
    assert held(staging) == {b"a": (describe(hash_of(b"f")), None), b"b": (b"y", 7)}


def test_removals() -> None:
    staging = Staging()
    staging.put(b"a", b"1", 100)
    staging.put(b"b", b"2")
    assert staging.remove(b"a")
    assert not staging.remove(b"a")
    check(staging)
    assert held(staging) == {b"b": (b"2", None)}


def test_many_keys_lie_in_many_shards() -> None:
    staging = Staging()
    for number in range(5000):
        staging.put(b"%d" % number, b"v", number if number % 3 else None)
    check(staging)
    assert max(map(len, staging.keyspace.shards())) <= SHARD_LIMIT
    assert held(staging) == {b"%d" % number: (b"v", number if number % 3 else None) for number in range(5000)}


def test_deadlines_of_fields() -> None:
    staging = Staging()
    staging.put(b"h", hash_of(b"f", b"g"))
    staging.put(b"s", b"v")
    assert staging.set_field_deadline(b"h", b"f", 50)
    assert staging.set_field_deadline(b"h", b"f", 60)
    assert not staging.set_field_deadline(b"h", b"none", 50)
    assert not staging.set_field_deadline(b"s", b"f", 50)
    assert not staging.set_field_deadline(b"none", b"f", 50)
    check(staging)
    value = staging.keyspace[b"h"]
    assert type(value) is Hash
    assert value.deadlines == {b"f": 60}
    assert list(staging.field_deadline_keys) == [b"h"]


def test_a_hash_that_comes_with_deadlines_is_noted() -> None:
    staging = Staging()
    value = hash_of(b"f")
    value.set_deadline(b"f", 50)
    staging.put(b"h", value)
    assert list(staging.field_deadline_keys) == [b"h"]


# -- taking it over ---------------------------------------------------------------------------------------------------


def test_the_store_counts_as_one_built_by_commands() -> None:
    built = filled()
    other = Harness()
    other.call("SET", "gone", "x" * 1000)
    other.call("HSET", "hash", "other", "field")
    replace(other, shipped(built.store))
    assert other.content() == built.content()
    assert other.store.used == built.store.used
    assert other.store.keyspace.count == built.store.keyspace.count
    assert set(other.store.field_deadline_keys) == {b"hash"}
    other.check_memory()


def test_all_observers_hear_of_one_change_without_an_offset() -> None:
    store = Store(random.Random(1))
    store.put(b"old", b"v")
    store.journal.offset = 41
    heard: list[tuple[int, list[Effect]]] = []
    store.journal.observers.append(lambda first, group: heard.append((first, group)))
    store.replace_all(Staging())
    assert heard == [(41, [((b"FLUSHALL",), None, ())])]
    assert store.journal.offset == 41
    store.replace_all(Staging(), next_offset=1000)
    assert heard[1:] == [(41, [((b"FLUSHALL",), None, ())])]
    assert store.journal.offset == 1000
    assert content(store) == {}


def test_not_inside_a_group() -> None:
    store = Store(random.Random(1))
    store.put(b"k", b"v")
    store.emit((b"SET", b"k", b"v"), b"k")
    staging = Staging()
    with pytest.raises(RuntimeError, match="between two groups"):
        store.replace_all(staging)
    assert content(store) == {b"k": (b"v", None)}
    store.commit()
    store.replace_all(staging)
    assert content(store) == {}


def test_a_container_opened_before_does_not_count_for_the_new_data() -> None:
    store = Store(random.Random(1))
    store.write_or_create(b"l", List).push_right(b"x" * 500)
    staging = Staging()
    staging.put(b"k", b"v")
    store.replace_all(staging)
    store.commit()
    assert store.used == bytes_memory(b"k") + value_memory(b"v")


def test_the_old_data_is_left_for_freeing() -> None:
    store = filled().store
    old = list(store.keyspace.shards())
    store.replace_all(Staging())
    assert store.discarded == old


def test_who_watches_a_key_hears_of_it() -> None:
    node = ServerHarness()
    client = node.connect()
    client.send(request("SET", "k", "1") + request("WATCH", "k") + request("MULTI") + request("GET", "k"))
    node.store.replace_all(shipped(node.store))
    assert client.call("EXEC") == b"*-1\r\n"


@pytest.mark.parametrize("later_epoch", [0, 1, 3])
def test_snapshots_on_both_sides_of_the_step_hold_what_they_held(later_epoch: int) -> None:
    """Whatever has been frozen between the start of the staging and the end, no write reaches a frozen container."""
    harness = filled()
    store = harness.store
    staging = shipped(store, store.epoch)
    for _ in range(later_epoch):
        store.freeze()
    with harness.frozen():
        replace(harness, staging)
        with harness.frozen():
            for line in (
                "HSET hash f 9|RPUSH list e|SREM set x|ZADD zset 9 a|SET string new|PERSIST volatile"
                "|HSET wide field:1 9|SREM crowd member:1|ZREM ranking member:1|DEL key:1"
            ).split("|"):
                harness.call(*line.split())
    harness.check_memory()


def test_new_containers_are_written_in_place() -> None:
    harness = filled()
    store = harness.store
    store.freeze()
    staging = shipped(store, store.epoch)
    store.freeze()
    values: list[Value] = [staging.keyspace[key] for key in (b"hash", b"list", b"set", b"zset")]
    replace(harness, staging)
    for line in ("HSET hash z 1", "RPUSH list z", "SADD set zz", "ZADD zset 1 z"):
        harness.call(*line.split())
    for key, value in zip((b"hash", b"list", b"set", b"zset"), values, strict=True):
        assert store.keyspace[key] is value


def test_deadlines_of_keys_and_fields_are_kept() -> None:
    harness = Harness()
    replace(harness, shipped(filled().store))
    sweeper = ExpirySweeper(harness.store)
    harness.now = START + 59_000
    assert sweeper.sweep(lambda: False) == 0
    harness.now = START + 200_000
    assert sweeper.sweep(lambda: False) == 3
    assert harness.call("HGETALL", "hash") == {b"h": b"3"}
    assert harness.call("EXISTS", "volatile") == 0
    harness.check_memory()


def test_streams_are_taken_over() -> None:
    stream = Stream()
    stream.append((1, 0), (b"f", b"v"))
    stream.create_group(b"g", (1, 0)).deliver((1, 0), b"c", 5, 1)
    staging = Staging()
    staging.put(b"x", stream)
    staging.put(b"empty", Stream())
    check(staging)
    harness = Harness()
    replace(harness, staging)
    harness.check_memory()
    assert harness.call("TYPE", "x") == harness.call("TYPE", "empty")
    assert describe(harness.store.keyspace[b"x"]) == describe(stream)


def test_every_container_can_be_put() -> None:
    staging = Staging()
    elements = List()
    elements.push_right(b"a")
    staging.put(b"h", hash_of(b"f"))
    staging.put(b"l", elements)
    staging.put(b"s", Set.of([b"m"]))
    staging.put(b"z", SortedSet.of({b"m": 1.0}))
    check(staging)
