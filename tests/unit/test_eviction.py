"""Eviction by every policy, and the access clocks beneath it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import pytest
from support.store_harness import START, Harness

from kevynode.store import notify
from kevynode.store.access import LFU_INITIAL
from kevynode.store.eviction import Evictor
from kevynode.store.memory import MemoryMeter


def never() -> bool:
    return False


def make(policy: str, seed: int = 1) -> tuple[Harness, Evictor]:
    harness = Harness(seed=seed)
    harness.store.settings.maxmemory_policy = policy
    return harness, Evictor(harness.store, MemoryMeter(harness.store).used)


def fill(harness: Harness, size: int, deadlines: bool = True) -> None:
    """Keys 0, 1, ...; the odd ones with a deadline, later for the later ones."""
    for number in range(size):
        harness.call("SET", number, "x" * 100)
        if deadlines and number % 2:
            harness.call("PEXPIREAT", number, START + 1_000_000 + number * 1000)


def shrink_to(harness: Harness, evictor: Evictor, share: float, over: Callable[[], bool] = never) -> bool:
    """Evict until so much of the data is left."""
    store = harness.store
    store.settings.maxmemory = evictor.used_memory() - int(store.used * (1 - share))
    harness.group = []
    return evictor.make_room(over)


def numbers(harness: Harness) -> list[int]:
    return sorted(int(key) for key in harness.store.keyspace)


def test_no_limit_and_no_excess() -> None:
    harness, evictor = make("allkeys-random")
    fill(harness, 20)
    assert evictor.make_room(never)
    harness.store.settings.maxmemory = 100_000_000
    assert evictor.make_room(never)
    assert len(harness.store.keyspace) == 20
    assert evictor.evicted_keys == 0


def test_noeviction_refuses() -> None:
    harness, evictor = make("noeviction")
    fill(harness, 20)
    assert not shrink_to(harness, evictor, 0.5)
    assert len(harness.store.keyspace) == 20


@pytest.mark.parametrize("policy", ["volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl"])
def test_volatile_policies_spare_keys_without_deadline(policy: str) -> None:
    harness, evictor = make(policy)
    fill(harness, 400)
    assert shrink_to(harness, evictor, 0.7)
    evens = set(range(0, 400, 2))
    assert evens <= set(numbers(harness))
    assert len(harness.store.keyspace) < 300
    assert not shrink_to(harness, evictor, 0.1)
    assert set(numbers(harness)) == evens
    harness.replay()


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu", "allkeys-random"])
def test_allkeys_policies_take_everything(policy: str) -> None:
    harness, evictor = make(policy)
    fill(harness, 300)
    harness.store.settings.maxmemory = 1
    assert not evictor.make_room(never)
    assert numbers(harness) == []
    assert evictor.evicted_keys == 300
    harness.replay()


def test_every_key_is_a_group_with_an_event() -> None:
    harness, evictor = make("allkeys-random")
    fill(harness, 100)
    groups: list[int] = []
    harness.store.journal.observers.append(lambda first, group: groups.append(len(group)))
    assert shrink_to(harness, evictor, 0.5)
    assert groups == [1] * evictor.evicted_keys
    assert len(harness.commands) == evictor.evicted_keys > 0
    for command, (flag, name, key) in zip(harness.commands, harness.events, strict=True):
        assert command == (b"DEL", key)
        assert (flag, name) == (notify.EVICTED, b"evicted")


def test_stops_when_time_is_over() -> None:
    harness, evictor = make("allkeys-random")
    fill(harness, 400)
    calls = count(1)
    assert shrink_to(harness, evictor, 0.2, over=lambda: next(calls) >= 3)
    assert evictor.behind
    left = len(harness.store.keyspace)
    assert 300 < left < 400
    for _ in range(400):
        assert evictor.make_room(lambda: True)
    assert len(harness.store.keyspace) < 120


def test_lru_takes_what_was_idle_longest() -> None:
    harness, evictor = make("allkeys-lru")
    harness.store.settings.maxmemory_samples = 10
    fill(harness, 500, deadlines=False)
    harness.now += 60_000
    for number in range(250):
        harness.call("GET", number)
    harness.now += 1000
    assert shrink_to(harness, evictor, 0.6)
    kept = numbers(harness)
    assert len([number for number in kept if number < 250]) >= 245


def test_lfu_takes_what_is_used_least() -> None:
    harness, evictor = make("allkeys-lfu")
    harness.store.settings.maxmemory_samples = 10
    fill(harness, 500, deadlines=False)
    for _ in range(30):
        for number in range(250):
            harness.call("GET", number)
    assert shrink_to(harness, evictor, 0.6)
    assert len([number for number in numbers(harness) if number < 250]) >= 245


def test_ttl_takes_what_expires_first() -> None:
    harness, evictor = make("volatile-ttl")
    harness.store.settings.maxmemory_samples = 10
    fill(harness, 1000)
    assert shrink_to(harness, evictor, 0.75)
    odd = [number for number in numbers(harness) if number % 2]
    assert len([number for number in odd if number > 600]) >= 195


def test_candidates_that_changed_are_passed_over() -> None:
    harness, evictor = make("volatile-ttl")
    fill(harness, 40)
    # The pool keeps the best of what was sampled.
    assert shrink_to(harness, evictor, 0.95)
    left = numbers(harness)
    for number in left[:-1]:
        harness.call("PERSIST", number)
    harness.call("DEL", *left[:5])
    assert not shrink_to(harness, evictor, 0.5)
    # Only one key could go, and nothing is told of those that were gone already.
    assert numbers(harness) == left[5:-1]
    assert harness.commands == [(b"DEL", b"%d" % left[-1])]
    harness.replay()


def test_a_copy_evicts_nothing() -> None:
    harness, evictor = make("allkeys-random")
    fill(harness, 20)
    harness.store.deletes_expired = False
    assert shrink_to(harness, evictor, 0.1)
    assert len(harness.store.keyspace) == 20


def test_containers_go_too() -> None:
    harness, evictor = make("allkeys-lru")
    for number in range(20):
        harness.call("HSET", f"h{number}", "f", "v", "g", "w")
        harness.call("RPUSH", f"l{number}", *range(30))
        harness.call("SADD", f"s{number}", *range(30))
        harness.call("ZADD", f"z{number}", 1, "a")
    assert shrink_to(harness, evictor, 0.3)
    harness.replay()


# -- access clocks --------------------------------------------------------------------------------------------------


def test_idle_time() -> None:
    harness, _ = make("allkeys-lru")
    harness.call("SET", "k", "v")
    harness.now += 5500
    assert harness.call("OBJECT", "IDLETIME", "k") == 5
    # Looking is no access, and neither are these.
    for command in ("TYPE", "EXISTS", "TTL", "PTTL", "EXPIRETIME"):
        harness.call(command, "k")
    assert harness.call("OBJECT", "IDLETIME", "k") == 5
    harness.call("TOUCH", "k")
    assert harness.call("OBJECT", "IDLETIME", "k") == 0
    assert harness.text("OBJECT", "FREQ", "k").startswith("ERR An LFU maxmemory policy is not selected")
    assert harness.call("OBJECT", "IDLETIME", "missing") is None


def test_idle_time_counts_from_the_first_question() -> None:
    harness = Harness()
    harness.call("SET", "k", "v")
    harness.now += 10_000
    assert harness.call("OBJECT", "IDLETIME", "k") == 0
    harness.now += 2_000
    assert harness.call("OBJECT", "IDLETIME", "k") == 2
    harness.call("GET", "k")
    assert harness.call("OBJECT", "IDLETIME", "k") == 0


def test_idle_time_counts_from_the_choice_of_an_lru_policy() -> None:
    harness = Harness()
    harness.call("SET", "k", "v")
    harness.now += 10_000
    harness.store.settings.maxmemory_policy = "volatile-lru"
    evictor = Evictor(harness.store, lambda: 0)
    harness.now += 3000
    assert harness.call("OBJECT", "IDLETIME", "k") == 3
    harness.store.settings.maxmemory_policy = "noeviction"
    evictor.follow_policy()
    assert harness.store.tracker is None


def test_frequency() -> None:
    harness, evictor = make("allkeys-lfu")
    harness.store.settings.lfu_log_factor = 0
    harness.call("SET", "k", "v")
    assert harness.call("OBJECT", "FREQ", "k") == LFU_INITIAL
    for _ in range(10):
        harness.call("GET", "k")
    assert harness.call("OBJECT", "FREQ", "k") == LFU_INITIAL + 10
    harness.now += 4 * 60_000
    assert harness.call("OBJECT", "FREQ", "k") == LFU_INITIAL + 6
    harness.store.settings.lfu_decay_time = 2
    assert harness.call("OBJECT", "FREQ", "k") == LFU_INITIAL + 8
    harness.store.settings.lfu_decay_time = 0
    assert harness.call("OBJECT", "FREQ", "k") == LFU_INITIAL + 10
    for _ in range(300):
        harness.call("GET", "k")
    assert harness.call("OBJECT", "FREQ", "k") == 255
    harness.store.settings.lfu_decay_time = 1
    harness.now += 10_000 * 60_000
    assert harness.call("OBJECT", "FREQ", "k") == 0
    assert harness.text("OBJECT", "IDLETIME", "k").startswith("ERR An LFU maxmemory policy is selected")
    harness.store.settings.maxmemory_policy = "allkeys-lru"
    evictor.follow_policy()
    assert harness.call("OBJECT", "IDLETIME", "k") == 0


def test_frequency_grows_ever_more_slowly() -> None:
    harness, _ = make("allkeys-lfu")
    harness.call("SET", "k", "v")
    for _ in range(1000):
        harness.call("GET", "k")
    counter = harness.call("OBJECT", "FREQ", "k")
    # The documentation of Valkey gives 18 for a thousand hits at the default factor.
    assert 12 <= counter <= 25


def test_clocks_follow_keys_into_split_and_merged_shards() -> None:
    harness, _ = make("allkeys-lru")
    harness.call("SET", "first", "v")
    harness.now += 7000
    for number in range(5000):
        harness.call("SET", number, "v")
    assert harness.call("OBJECT", "IDLETIME", "first") == 7
    for number in range(5000):
        harness.call("DEL", number)
    keyspace = harness.store.keyspace
    place = keyspace.compact_at(0)
    while place:
        place = keyspace.compact_at(place)
    assert len(keyspace.directory) == 1
    assert harness.call("OBJECT", "IDLETIME", "first") == 7
