"""The sweeper: what it deletes, how it tells it, and that it keeps within its time."""

from __future__ import annotations

from itertools import count

from support.store_harness import START, Harness

from kevynode.store import notify
from kevynode.store.expiry import ExpirySweeper


def never() -> bool:
    return False


def always() -> bool:
    return True


def fill(harness: Harness, size: int, after: int = 1000, name: str = "k") -> None:
    for number in range(size):
        harness.call("SET", f"{name}{number}", "v", "PXAT", START + after)


def groups_of(harness: Harness) -> list[int]:
    """The sizes of the groups from now on."""
    sizes: list[int] = []
    harness.store.journal.observers.append(lambda first, group: sizes.append(len(group)))
    harness.group = []
    return sizes


def test_nothing_to_do() -> None:
    harness = Harness()
    sweeper = ExpirySweeper(harness.store)
    assert sweeper.sweep(never) == 0
    fill(harness, 50)
    assert sweeper.sweep(never) == 0
    assert not sweeper.work(never)
    assert len(harness.store.keyspace) == 50


def test_expired_keys_are_deleted_one_group_each() -> None:
    harness = Harness()
    fill(harness, 50)
    fill(harness, 20, after=9000, name="later")
    harness.call("SET", "for ever", "v")
    harness.now += 1001
    sizes = groups_of(harness)
    assert ExpirySweeper(harness.store).sweep(never) == 50
    assert sizes == [1] * 50
    for command, (flag, name, key) in zip(harness.commands, harness.events, strict=True):
        assert command == (b"DEL", key)
        assert (flag, name) == (notify.EXPIRED, b"expired")
    assert harness.store.expired_keys == 50
    assert len(harness.store.keyspace) == 21
    harness.replay()


def test_a_deadline_is_not_over_in_its_last_millisecond() -> None:
    harness = Harness()
    fill(harness, 1)
    harness.now += 1000
    sweeper = ExpirySweeper(harness.store)
    assert sweeper.sweep(never) == 0
    harness.now += 1
    assert sweeper.sweep(never) == 1


def test_sweeps_go_on_where_they_ended() -> None:
    harness = Harness()
    fill(harness, 3000)
    fill(harness, 30_000, after=100_000, name="later")
    harness.now += 1001
    sweeper = ExpirySweeper(harness.store)
    sweeps = 0
    while len(harness.store.keyspace) > 30_000:
        sweeper.sweep(never)
        sweeps += 1
        assert sweeps < 200
    # One in eleven keys is stale: that is too little to go on in the same sweep.
    assert sweeps > 5
    assert 1 < sweeper.stale_percent < 20


def test_much_to_do_is_done_at_once() -> None:
    harness = Harness()
    fill(harness, 10_000)
    harness.now += 1001
    assert ExpirySweeper(harness.store).sweep(never) == 10_000


def test_time_is_kept() -> None:
    harness = Harness()
    fill(harness, 10_000)
    harness.now += 1001
    sweeper = ExpirySweeper(harness.store)
    calls = count()
    assert 0 < sweeper.sweep(lambda: next(calls) >= 5) < 400
    assert sweeper.time_cap_reached >= 1
    assert 0 < sweeper.sweep(always) < 100
    assert sweeper.work(always)
    for _ in range(2000):
        sweeper.work(always)
    assert len(harness.store.keyspace) == 0
    harness.replay()


def test_switched_off_and_on_a_copy() -> None:
    harness = Harness()
    fill(harness, 20)
    harness.call("HSET", "h", "f", "v")
    harness.call("HPEXPIREAT", "h", START + 1000, "FIELDS", 1, "f")
    harness.now += 1001
    sweeper = ExpirySweeper(harness.store)
    sweeper.active = False
    assert sweeper.sweep(never) == 0
    sweeper.active = True
    harness.store.deletes_expired = False
    assert sweeper.sweep(never) == 0
    assert len(harness.store.keyspace) == 21
    harness.store.deletes_expired = True
    assert sweeper.sweep(never) == 21


def test_fields() -> None:
    harness = Harness()
    for number in range(3):
        harness.call("HSET", f"h{number}", "a", 1, "b", 2, "c", 3)
        harness.call("HPEXPIREAT", f"h{number}", START + 1000, "FIELDS", 2, "a", "b")
    harness.call("HPEXPIREAT", "h2", START + 1000, "FIELDS", 1, "c")
    harness.call("HPEXPIREAT", "h1", START + 5000, "FIELDS", 1, "c")
    sweeper = ExpirySweeper(harness.store)
    assert sweeper.sweep(never) == 0
    harness.now += 1001
    sizes = groups_of(harness)
    assert sweeper.sweep(never) == 7
    assert sizes == [1, 1, 1]
    assert sorted((key, name) for _, name, key in harness.events) == [
        (b"h0", b"hexpired"),
        (b"h1", b"hexpired"),
        (b"h2", b"del"),
        (b"h2", b"hexpired"),
    ]
    assert harness.store.expired_fields == 7
    sweeper.sweep(never)
    assert set(harness.store.field_deadline_keys) == {b"h1"}
    assert harness.call("HGETALL", "h0") == {b"c": b"3"}
    harness.replay()


def test_a_big_hash_goes_in_batches() -> None:
    harness = Harness()
    fields = [f"f{number}" for number in range(2000)]
    harness.call("HSET", "h", *(word for field in fields for word in (field, "v")))
    harness.call("HPEXPIREAT", "h", START + 1000, "FIELDS", len(fields), *fields)
    harness.now += 1001
    sizes = groups_of(harness)
    sweeper = ExpirySweeper(harness.store)
    assert 0 < sweeper.sweep(always) < 1000
    assert sweeper.work(always)
    while len(harness.store.keyspace):
        sweeper.work(always)
    assert len(sizes) > 3
    harness.replay()


def test_hashes_that_went_away_are_forgotten() -> None:
    harness = Harness()
    for number in range(50):
        harness.call("HSET", f"h{number}", "f", "v")
        harness.call("HPEXPIREAT", f"h{number}", START + 9000, "FIELDS", 1, "f")
    for number in range(25):
        harness.call("DEL", f"h{number}")
    harness.call("RENAME", "h49", "renamed")
    harness.call("COPY", "h48", "copied")
    sweeper = ExpirySweeper(harness.store)
    for _ in range(5):
        sweeper.sweep(never)
    assert len(harness.store.field_deadline_keys) == 26
    harness.now += 9001
    for _ in range(5):
        sweeper.sweep(never)
    assert len(harness.store.keyspace) == 0
    harness.replay()


def test_sweeping_is_no_access() -> None:
    harness = Harness()
    harness.store.settings.maxmemory_policy = "allkeys-lru"
    accessed: list[bytes] = []
    harness.call("HSET", "h", "f", "v", "g", "w")
    harness.call("HPEXPIREAT", "h", START + 1000, "FIELDS", 1, "f")
    harness.store.tracker = lambda shard, key: accessed.append(key)
    harness.now += 1001
    assert ExpirySweeper(harness.store).sweep(never) == 1
    assert accessed == []


def test_snapshots_keep_what_expires() -> None:
    harness = Harness()
    fill(harness, 3000)
    harness.call("HSET", "h", "f", "v", "g", "w")
    harness.call("HPEXPIREAT", "h", START + 1000, "FIELDS", 1, "f")
    with harness.frozen():
        harness.now += 1001
        assert ExpirySweeper(harness.store).sweep(never) == 3001
    harness.check_memory()


def test_memory_comes_back() -> None:
    harness = Harness()
    fill(harness, 20_000)
    harness.call("SADD", "s", *range(5000))
    harness.call("HSET", "h", *(number // 2 for number in range(1000)))
    harness.call("ZADD", "z", *(number // 2 for number in range(6000)))
    full = harness.store.memory()
    harness.call("SREM", "s", *range(4990))
    harness.call("HDEL", "h", *range(495))
    harness.call("ZREMRANGEBYSCORE", "z", 0, 2990)
    harness.now += 1001
    sweeper = ExpirySweeper(harness.store, hz=10)
    for _ in range(10 * 60 * 2):
        sweeper.sweep(never)
        harness.check_memory()
    assert len(harness.store.keyspace.directory) == 1
    assert harness.store.memory() < full / 300
    assert harness.call("SCARD", "s") == 10
    assert harness.call("HLEN", "h") == 5
    assert len(harness.call("SSCAN", "s", 0)[1]) == 10
    harness.replay()


def test_compaction_spares_what_a_snapshot_holds() -> None:
    harness = Harness()
    harness.call("SADD", "s", *range(5000))
    harness.call("SREM", "s", *range(4000))
    sweeper = ExpirySweeper(harness.store)
    with harness.frozen():
        for _ in range(5):
            sweeper.sweep(never)
    harness.call("SADD", "s", "new")
    for _ in range(5):
        sweeper.sweep(never)
    assert harness.call("SCARD", "s") == 1001
    harness.replay()
