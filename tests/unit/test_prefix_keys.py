"""The keys under prefixes: found while others write, and exchanged for others in one step."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st
from support.store_harness import Harness, content

from kevynode.store.prefix_keys import all_keys_under, count_under, drop_keys, keys_under, replace_keys
from kevynode.store.staging import PrefixStaging
from kevynode.store.values import Hash, List


def walk(harness: Harness, *prefixes: bytes) -> list[bytes]:
    found, position = [], 0
    while True:
        position, keys = keys_under(harness.store, prefixes, position)
        found += keys
        if not position:
            return found


def test_every_key_under_the_prefixes_is_found_once() -> None:
    harness = Harness()
    for number in range(5000):
        harness.call("SET", f"{'abc'[number % 3]}:{number}", "v")
    found = walk(harness, b"a:", b"c:")
    assert len(found) == len(set(found)) == count_under(harness.store, (b"a:", b"c:")) == 3333
    assert sorted(found) == sorted(all_keys_under(harness.store, (b"a:", b"c:")))
    assert count_under(harness.store, (b"",)) == 5000


def test_keys_that_stay_are_found_whatever_is_written_meanwhile() -> None:
    harness = Harness()
    chance = random.Random(1)
    for number in range(3000):
        harness.call("SET", f"a:{number}", "v")
    found: set[bytes] = set()
    position = 0
    while True:
        position, keys = keys_under(harness.store, (b"a:",), position)
        found.update(keys)
        for _ in range(300):
            harness.call("SET", f"b:{chance.randrange(100_000)}", "v")
        if not position:
            break
    assert len(found) == 3000


def staged(data: dict[str, str]) -> PrefixStaging:
    staging = PrefixStaging((b"a:",))
    for key, value in data.items():
        staging.put(key.encode(), value.encode())
    return staging


def test_what_is_not_under_the_prefixes_is_left_out_of_a_staging() -> None:
    staging = staged({"a:1": "v", "b:1": "v"})
    assert (staging.count, staging.left_out) == (1, 1)
    assert not staging.set_field_deadline(b"b:1", b"f", 1)


def test_an_exchange_is_told_as_the_changes_it_makes() -> None:
    harness = Harness()
    for line in ("SET a:same v", "SET a:gone v", "RPUSH a:list old", "SET a:other old PX 1000", "SET b:1 v"):
        harness.call(*line.split())
    staging = staged({"a:same": "v", "a:other": "new", "a:fresh": "v"})
    staging.put(b"a:list", _list(b"new"))
    harness.group = []
    assert replace_keys(harness.store, all_keys_under(harness.store, (b"a:",)), staging) == 4
    harness.store.commit()
    assert sorted(harness.commands) == [
        (b"DEL", b"a:gone"),
        (b"DEL", b"a:list"),
        (b"RPUSH", b"a:list", b"new"),
        (b"SET", b"a:fresh", b"v"),
        (b"SET", b"a:other", b"new"),
    ]
    assert {key: value for key, (value, deadline) in content(harness.store).items() if deadline is None} == {
        b"a:same": b"v",
        b"a:other": b"new",
        b"a:fresh": b"v",
        b"a:list": ("list", [b"new"], _list(b"new").payload),
        b"b:1": b"v",
    }
    harness.replay()


def _list(*elements: bytes) -> List:
    harness = Harness()
    harness.call("RPUSH", "l", *elements)
    value = harness.store.lookup(b"l")
    assert isinstance(value, List)
    return value


def test_deadlines_come_along_and_count_as_a_difference() -> None:
    harness = Harness()
    harness.call("SET", "a:1", "v")
    staging = PrefixStaging((b"a:",))
    staging.put(b"a:1", b"v", harness.now + 5)
    fields = Hash()
    fields.put(b"f", b"v")
    staging.put(b"a:h", fields)
    staging.set_field_deadline(b"a:h", b"f", harness.now + 5000)
    assert replace_keys(harness.store, [b"a:1"], staging) == 2
    harness.store.commit()
    assert harness.call("PTTL", "a:1") == 5
    assert b"a:h" in harness.store.field_deadline_keys
    harness.replay()


def test_keys_that_have_expired_here_are_replaced_as_any_other() -> None:
    harness = Harness()
    harness.call("SET", "a:1", "v", "PX", "10")
    harness.call("SET", "a:2", "v", "PX", "10")
    harness.now += 100
    assert replace_keys(harness.store, [b"a:1", b"a:2"], staged({"a:1": "new"})) == 2
    harness.store.commit()
    assert content(harness.store) == {b"a:1": (b"new", None)}
    harness.check_memory()


def test_dropping_counts_what_was_there() -> None:
    harness = Harness()
    harness.call("SET", "a:1", "v")
    harness.group = []
    assert drop_keys(harness.store, [b"a:1", b"a:2", b"a:1"]) == 1
    harness.store.commit()
    assert harness.commands == [(b"DEL", b"a:1")]


@given(st.integers(0, 1000))
def test_an_exchange_ends_in_the_other_data_and_can_be_replayed(seed: int) -> None:
    chance = random.Random(seed)
    ours, theirs = Harness(), Harness(seed=2)
    for harness in (ours, theirs):
        for _ in range(chance.randrange(40)):
            key = f"{chance.choice('ab')}:{chance.randrange(8)}"
            harness.call("DEL", key)
            harness.call(
                *chance.choice(
                    [
                        ("SET", key, chance.randrange(3)),
                        ("RPUSH", key, 1, 2),
                        ("HSET", key, "f", chance.randrange(3)),
                        ("SADD", key, *range(chance.randrange(1, 5))),
                        ("ZADD", key, 1, "m", 2, "n"),
                    ]
                )
            )
            if chance.random() < 0.2:
                harness.call("PEXPIRE", key, 100_000)
    before = content(ours.store)
    staging = PrefixStaging((b"a:",))
    for shard in theirs.store.keyspace.shards():
        for name, value in shard.items():
            staging.put(name, value, shard.deadlines.get(name))
    replace_keys(ours.store, all_keys_under(ours.store, (b"a:",)), staging)
    ours.store.commit()
    expected = {key: value for key, value in content(theirs.store).items() if key.startswith(b"a:")}
    expected |= {key: value for key, value in before.items() if key.startswith(b"b:")}
    assert content(ours.store) == expected
    ours.replay()
