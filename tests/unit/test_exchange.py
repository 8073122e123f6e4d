"""The exchange of what is held under prefixes: worked out while others write, and as if it had been done at once."""

from __future__ import annotations

import random
from typing import Any

import pytest
from support.store_harness import check_memory, content

import kevynode.store.commands  # noqa: F401  enters the commands into the table
from kevynode.store import notify
from kevynode.store.apply import Applier
from kevynode.store.exchange import PrefixExchange
from kevynode.store.journal import Effect
from kevynode.store.prefix_keys import all_keys_under, replace_keys
from kevynode.store.staging import PrefixStaging
from kevynode.store.store import Store
from kevynode.store.values import Hash, Value

P = (b"a:", b"x:")


def value(chance: random.Random) -> Value:
    if chance.random() < 0.8:
        return b"%d" % chance.randrange(3)
    pairs = Hash(0)
    pairs.put(b"f", b"%d" % chance.randrange(3))
    if chance.random() < 0.3:
        pairs.set_deadline(b"f", 5_000_000)
    return pairs


def fill(store: Any, chance: random.Random, prefixes: tuple[bytes, ...], keys: int, span: int) -> None:
    for _ in range(keys):
        key = chance.choice(prefixes) + b"%d" % chance.randrange(span)
        if isinstance(store, Store):
            store.put(key, value(chance))
            if chance.random() < 0.1:
                store.set_deadline(key, chance.choice((1, 9_000_000)))
            else:
                store.clear_deadline(key)
        else:
            store.put(key, value(chance), chance.choice((None, None, 1, 9_000_000)))


def build(seed: int, *, held: int, arrived: int, others: int, span: int) -> tuple[Store, PrefixStaging]:
    chance = random.Random(seed)
    store = Store(random.Random(1))
    fill(store, chance, (b"o:",), others, span)
    fill(store, chance, P, held, span)
    store.settle()
    # Some of it is hidden then.
    store.now = 1_000
    store.foreign = lambda key: True
    staging = PrefixStaging(P, store.epoch)
    fill(staging, chance, P, arrived, span)
    return store, staging


def run(store: Store, seed: int, staging: PrefixStaging) -> tuple[int, list[Effect]]:
    """Exchange, with all sorts of things that others do in between."""
    chance = random.Random(seed)
    exchange = PrefixExchange(store, staging)
    before = {key: held for key, held in content(store).items() if key.startswith(P)}
    groups: list[list[Effect]] = []
    commands: list[tuple[bytes, ...]] = []

    def listen(_: int, group: list[Effect]) -> None:
        groups.append(group)

    if seed % 2:
        # Somebody listens from the start; otherwise nobody does while it is worked out.
        store.journal.observers.append(listen)
    for _ in exchange.prepare():
        commands += map(tuple, exchange.next_commands())
        match chance.randrange(8):
            case 0:
                store.freeze()
            case 1:
                for _ in range(300):
                    key = b"o:%d" % chance.randrange(50_000)
                    store.put(key, b"v")
                    store.emit((b"SET", key, b"v"), key)
                store.commit()
            case 2:
                store.keyspace.compact_at(chance.randrange(1 << 64))
            case 3:
                store.keyspace.split(b"%d" % chance.randrange(100))
            case 4:
                # Nobody sees half of it.
                assert {key: held for key, held in content(store).items() if key.startswith(P)} == before
    commands += map(tuple, exchange.next_commands())
    if not seed % 2:
        store.journal.observers.append(listen)
    assert exchange.is_true
    groups.clear()
    changed = exchange.finish()
    store.commit()
    for _ in exchange.tidy():
        pass
    (group,) = groups or [[]]
    # What was told beforehand is what was done, in that order.
    assert commands == [tuple(command) for command, _, _ in group]
    assert not [observer for observer in store.journal.observers if getattr(observer, "__self__", None) is exchange]
    return changed, group


def by_key(group: list[Effect]) -> dict[bytes | None, list[tuple[bytes, ...]]]:
    """The commands for each key, in order."""
    found: dict[bytes | None, list[tuple[bytes, ...]]] = {}
    for command, key, _ in group:
        found.setdefault(key, []).append(tuple(command))
    return found


SIZES = [
    {"held": 0, "arrived": 5_000, "others": 0, "span": 20_000},
    {"held": 5_000, "arrived": 0, "others": 500, "span": 20_000},
    {"held": 3_000, "arrived": 3_000, "others": 20_000, "span": 3_000},
    {"held": 20, "arrived": 30, "others": 30_000, "span": 50},
    {"held": 4_000, "arrived": 20_000, "others": 100, "span": 50_000},
]


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_it_comes_to_what_one_step_comes_to(seed: int, size: dict[str, int]) -> None:
    store, staging = build(seed, **size)
    twin, same = build(seed, **size)
    expected = replace_keys(twin, all_keys_under(twin, P), same)
    effects = by_key(twin.journal.pending)
    twin.commit()
    under = {key: held for key, held in content(twin).items() if key.startswith(P)}
    changed, group = run(store, seed, staging)
    assert changed == expected
    assert {key: held for key, held in content(store).items() if key.startswith(P)} == under
    assert by_key(group) == effects
    check_memory(store)
    assert len(store.keyspace) == sum(len(shard) for shard in store.keyspace.shards())
    assert max(len(shard) for shard in store.keyspace.shards()) <= 1100
    assert store.field_deadline_keys.keys() >= {
        key for key, held in staging.keyspace.items() if isinstance(held, Hash) and held.deadlines
    }


def test_the_effects_build_the_same_on_a_copy() -> None:
    store, staging = build(5, held=300, arrived=300, others=50, span=400)
    copy, _ = build(5, held=300, arrived=300, others=50, span=400)
    _, group = run(store, 7, staging)
    Applier(copy).apply_all([list(command) for command, _, _ in group])
    copy.settle()
    assert {key: held for key, held in content(copy).items() if key.startswith(P)} == {
        key: held for key, held in content(store).items() if key.startswith(P)
    }


@pytest.mark.parametrize("key", [b"a:1", None])
def test_what_is_worked_out_counts_for_nothing_if_it_is_not_true_any_more(key: bytes | None) -> None:
    store, staging = build(3, held=600, arrived=600, others=600, span=900)
    wanted = dict(staging.keyspace.items())
    exchange = PrefixExchange(store, staging)
    steps = exchange.prepare()
    next(steps)
    if key is None:
        store.clear()
        store.emit((b"FLUSHALL",), None)
    else:
        store.put(key, b"other")
        store.emit((b"SET", key, b"other"), key)
    store.commit()
    for _ in steps:
        pass
    exchange.finish()
    store.commit()
    assert {key: store.keyspace.get(key) for key in all_keys_under(store, P)} == wanted
    check_memory(store)


def test_who_listens_hears_of_new_keys_and_of_accesses() -> None:
    store = Store(random.Random(1))
    store.put(b"a:old", b"v")
    store.settings.notify_keyspace_events = notify.NEW | notify.GENERIC
    heard: list[bytes] = []
    accessed: list[bytes] = []
    store.on_event = lambda _flag, name, key: heard.append(name + b" " + key)
    store.tracker = lambda _shard, key: accessed.append(key)
    store.journal.observers.append(lambda _first, _group: None)
    staging = PrefixStaging(P)
    staging.put(b"a:old", b"w")
    staging.put(b"a:new", b"w")
    exchange = PrefixExchange(store, staging)
    for _ in exchange.prepare():
        pass
    assert exchange.finish() == 2
    assert heard == [b"new a:new"]
    assert sorted(accessed) == [b"a:new", b"a:old"]
    assert {effect[2] for effect in store.journal.pending} == {
        ((notify.GENERIC, b"restore", b"a:old"),),
        ((notify.GENERIC, b"restore", b"a:new"),),
    }


def test_effects_that_only_are_counted_are_not_made() -> None:
    store, staging = build(4, held=50, arrived=100, others=10, span=200)
    wanted, other = build(4, held=50, arrived=100, others=10, span=200)
    replace_keys(wanted, all_keys_under(wanted, P), other)
    count = len(wanted.journal.pending)
    offset = store.journal.offset
    sizes: list[int] = []

    def count_only(_first: int, group: list[Effect]) -> None:
        sizes.append(len(group))
        assert len({id(effect) for effect in group}) == 1

    store.journal.observers.append(count_only)
    exchange = PrefixExchange(store, staging, (count_only,))
    for _ in exchange.prepare():
        pass
    exchange.finish((count_only,))
    store.commit()
    assert sizes == [count]
    assert store.journal.offset == offset + count
    assert content(store) == content(wanted)
    check_memory(store)


def test_one_that_is_given_up_leaves_everything_as_it_was() -> None:
    store, staging = build(2, held=500, arrived=500, others=10, span=900)
    before = content(store)
    exchange = PrefixExchange(store, staging)
    for _ in exchange.prepare():
        pass
    exchange.close()
    exchange.close()
    assert content(store) == before
    assert not store.journal.observers
    assert not store.journal.pending
