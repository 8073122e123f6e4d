"""The sharded dictionary: a mapping, its snapshots, its scans, and the memory it gives back."""

from __future__ import annotations

import random
import sys

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from kevynode.store import sharded
from kevynode.store.sharded import SHARD_LIMIT, Shard, ShardedDict, slice_in_hash_order

SPACE = 1 << 64


def keys(count: int, prefix: bytes = b"key") -> list[bytes]:
    return [b"%b:%d" % (prefix, number) for number in range(count)]


def filled(count: int) -> ShardedDict[int]:
    table: ShardedDict[int] = ShardedDict()
    for number, key in enumerate(keys(count)):
        table[key] = number
    return table


def check_structure(table: ShardedDict[int]) -> None:
    """Every slot leads to the shard its hashes belong to, and no key is lost or counted twice."""
    assert len(table.directory) == 1 << table.bits
    assert table.shift == 64 - table.bits
    seen = 0
    place = 0
    for shard in table.shards():
        width = SPACE >> shard.bits
        assert all(place <= hash(key) + SPACE // 2 < place + width for key in shard)
        found, following = table.shard_at(place)
        assert found is shard
        assert following == (place + width) % SPACE
        for slot in range(1 << (table.bits - shard.bits)):
            at = place + slot * (SPACE >> table.bits)
            assert table.directory[(at - SPACE // 2) >> table.shift] is shard
        place += width
        seen += len(shard)
    assert place == SPACE
    assert seen == table.count == len(table)


def compact(table: ShardedDict[int]) -> None:
    place = table.compact_at(0)
    while place:
        place = table.compact_at(place)


def whole_scan(table: ShardedDict[int], count: int) -> list[bytes]:
    found: list[bytes] = []
    cursor, steps = 0, 0
    while True:
        cursor, part = table.scan(cursor, count)
        assert len(part) <= count
        found += part
        steps += 1
        if not cursor:
            # Every step but the last is full.
            assert steps <= len(found) // count + 1
            return found


def test_mapping() -> None:
    table = filled(5000)
    check_structure(table)
    assert table.bits > 1
    assert len(table) == 5000
    assert table[b"key:77"] == 77
    assert table.get(b"nothing") is None
    assert b"key:4999" in table
    assert b"key:5000" not in table
    table[b"key:77"] = -1
    assert table.get(b"key:77") == -1
    del table[b"key:78"]
    assert table.pop(b"key:79") == 79
    assert table.pop(b"key:79", -5) == -5
    with pytest.raises(KeyError):
        del table[b"key:79"]
    assert len(table) == 4998
    assert sorted(table) == sorted(set(keys(5000)) - {b"key:78", b"key:79"})
    assert dict(table.items()) == {key: table[key] for key in table}
    assert sorted(table.values()) == sorted(table[key] for key in table)
    check_structure(table)


@pytest.mark.parametrize("size", [0, 1, 7, 1000, 1025, 9000])
@pytest.mark.parametrize("count", [1, 10, 1000])
def test_scan_returns_every_key_once(size: int, count: int) -> None:
    if size * 5 > 10_000 * count:
        count = 7
    assert sorted(whole_scan(filled(size), count)) == sorted(keys(size))


def test_scan_takes_any_cursor() -> None:
    table = filled(3000)
    for cursor in (1, SPACE // 2, SPACE - 1, 123456789):
        following, part = table.scan(cursor, 10)
        assert 0 <= following < SPACE
        assert all(hash(key) + SPACE // 2 >= cursor for key in part)


class _Equal(bytes):
    """Bytes that all share one hash."""

    def __hash__(self) -> int:
        return 42


def test_keys_of_one_hash_come_together() -> None:
    table = [_Equal(b"%d" % number) for number in range(20)]
    following, part = slice_in_hash_order(table, 0, 3)
    assert (following, len(part)) == (0, 20)
    following, part = slice_in_hash_order([*table, b"other"], 42 + SPACE // 2, 3)
    assert set(table) <= set(part)


def test_more_keys_of_one_hash_than_a_shard_should_hold() -> None:
    table: ShardedDict[int] = ShardedDict()
    for number in range(SHARD_LIMIT + 20):
        table[_Equal(b"%d" % number)] = number
        if table.bits > 12:
            break
    assert len(table) >= SHARD_LIMIT
    assert len(whole_scan_ties(table)) == len(table)


def whole_scan_ties(table: ShardedDict[int]) -> list[bytes]:
    cursor, found = table.scan(0, 10)
    while cursor:
        cursor, part = table.scan(cursor, 10)
        found += part
    return found


def test_freeze_keeps_what_was_there() -> None:
    table = filled(3000)
    frozen = table.freeze()
    before = {key: value for shard in frozen for key, value in shard.items()}
    for number in range(0, 3000, 2):
        del table[b"key:%d" % number]
    table[b"key:1"] = -1
    for key in keys(4000, b"new"):
        table[key] = 0
    compact(table)
    assert {key: value for shard in frozen for key, value in shard.items()} == before
    check_structure(table)


def test_copies_do_not_see_each_other() -> None:
    table = filled(3000)
    twin = table.copy()
    del table[b"key:1"]
    twin[b"key:2"] = -2
    assert b"key:1" in twin
    assert table[b"key:2"] == 2
    compact(twin)
    check_structure(table)
    check_structure(twin)


def test_random_keys_are_spread_evenly() -> None:
    table = filled(200)
    for key in keys(5000):
        table.pop(key) if key not in keys(50) else None
    source = random.Random(7)
    drawn = [table.random_key(source) for _ in range(5000)]
    assert set(drawn) == set(keys(50))
    assert ShardedDict[int]().random_key(source) is None


def test_random_key_finds_the_only_one() -> None:
    table = filled(20_000)
    for key in keys(20_000)[1:]:
        del table[key]
    assert table.random_key(random.Random(3)) == b"key:0"


def test_emptied_tables_give_memory_back() -> None:
    table = filled(50_000)
    full = table.memory()
    for key in keys(50_000)[100:]:
        del table[key]
    compact(table)
    check_structure(table)
    assert sorted(table) == sorted(keys(100))
    assert table.memory() < full / 200
    assert len(table.directory) == 1


def test_a_full_table_is_left_alone() -> None:
    table = filled(20_000)
    before = list(table.shards())
    compact(table)
    assert list(map(id, table.shards())) == list(map(id, before))


def test_half_emptied_shards_are_made_anew() -> None:
    table = filled(20_000)
    shards = len(list(table.shards()))
    for number, key in enumerate(keys(20_000)):
        if number % 4:
            del table[key]
    before = table.memory()
    compact(table)
    assert len(list(table.shards())) <= shards
    assert table.memory() < before
    assert not any(shard.roomy() for shard in table.shards())


def test_growing_dicts_are_never_roomy() -> None:
    shard: Shard[int] = Shard()
    for key in keys(4 * SHARD_LIMIT):
        shard[key] = 1
        assert not shard.roomy(), (len(shard), sys.getsizeof(shard))


class ScanMachine(RuleBasedStateMachine):
    """Scans go on while the table grows, shrinks, splits, merges and is frozen; small shards make that frequent."""

    scans = Bundle("scans")

    def __init__(self) -> None:
        super().__init__()
        self.limits = (sharded.SHARD_LIMIT, sharded._MERGE_LIMIT)
        sharded.SHARD_LIMIT, sharded._MERGE_LIMIT = 8, 3
        self.table: ShardedDict[int] = ShardedDict()
        self.model: dict[bytes, int] = {}
        self.position = 0
        self.frozen: list[tuple[list[Shard[int]], dict[bytes, int]]] = []
        # For each running scan: cursor, keys present since its start, keys returned.
        self.running: dict[int, tuple[int, set[bytes], set[bytes]]] = {}

    def teardown(self) -> None:
        sharded.SHARD_LIMIT, sharded._MERGE_LIMIT = self.limits

    @initialize(size=st.integers(0, 80))
    def fill(self, size: int) -> None:
        for key in keys(size):
            self._put(key, 0)

    def _put(self, key: bytes, value: int) -> None:
        self.table[key] = value
        self.model[key] = value

    @rule(start=st.integers(0, 300), size=st.integers(1, 60), value=st.integers())
    def insert(self, start: int, size: int, value: int) -> None:
        for key in keys(start + size)[start:]:
            self._put(key, value)

    @rule(start=st.integers(0, 300), size=st.integers(1, 120), step=st.integers(1, 3))
    def delete(self, start: int, size: int, step: int) -> None:
        for key in keys(start + size)[start::step]:
            assert self.table.pop(key) == self.model.pop(key, None)
            for _, present, _ in self.running.values():
                present.discard(key)

    @rule(steps=st.integers(1, 30))
    def compact(self, steps: int) -> None:
        for _ in range(steps):
            self.position = self.table.compact_at(self.position)

    @rule(place=st.integers(0, SPACE - 1))
    def compact_anywhere(self, place: int) -> None:
        self.table.compact_at(place)

    @rule()
    def freeze(self) -> None:
        self.frozen.append((self.table.freeze(), dict(self.model)))

    @rule(target=scans)
    def start_scan(self) -> int:
        number = len(self.running)
        self.running[number] = (0, set(self.model), set())
        return number

    @rule(number=scans, count=st.integers(1, 20))
    def scan_on(self, number: int, count: int) -> None:
        if number not in self.running:
            return
        cursor, present, returned = self.running[number]
        cursor, part = self.table.scan(cursor, count)
        assert len(part) <= count
        assert len(part) == count or not cursor
        assert set(part) <= set(self.model)
        returned |= set(part)
        self.running[number] = (cursor, present, returned)
        if not cursor:
            assert present <= returned
            # A number is never used twice.
            self.running[number] = (0, set(), set())

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        check_structure(self.table)
        assert dict(self.table.items()) == self.model
        for shards, content in self.frozen[-2:]:
            assert {key: value for shard in shards for key, value in shard.items()} == content


TestScans = ScanMachine.TestCase
TestScans.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
