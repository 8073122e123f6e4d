"""The set commands: replies, errors, events, effects and what a copy makes of them. Replies are Valkey 9.1's."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.store_harness import Harness, event_class, lines, named

from kevynode.reply import SetReply
from kevynode.store.commands.random_members import MOST_REPEATED
from kevynode.store.values import Set

WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
SYNTAX = "ERR syntax error"
NOT_INTEGER = "ERR value is not an integer or out of range"
BETWEEN = "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807"
POSITIVE = "ERR value is out of range, must be positive"
SET = event_class("s")
GENERIC = event_class("g")
LARGE = 5000


@pytest.fixture
def harness() -> Harness:
    return Harness()


def fill(harness: Harness, key: str, members: range) -> None:
    """Put ``m<number>`` into a set for each number, a thousand at a time."""
    for start in range(0, len(members), 1000):
        harness.call("SADD", key, *(f"m{number}" for number in members[start : start + 1000]))


def members_of(harness: Harness, key: str) -> set[bytes]:
    return set(harness.call("SMEMBERS", key))


class TestMembers:
    def test_add(self, harness: Harness) -> None:
        run = lines(harness)
        added = run("SADD s a b c a")
        assert (added, type(added)) == (3, int)
        assert harness.events == [(SET, b"sadd", b"s")]
        assert harness.commands == [(b"SADD", b"s", b"a", b"b", b"c", b"a")]
        assert run("SADD s c d") == 1
        assert run("SADD s e") == 1
        assert run("SCARD s") == 5
        assert members_of(harness, "s") == {b"a", b"b", b"c", b"d", b"e"}
        harness.replay()

    def test_add_what_is_there_changes_nothing(self, harness: Harness) -> None:
        run = lines(harness)
        run("SADD s a b")
        assert run("SADD s a") == 0
        assert harness.group == []
        assert run("SADD s b a") == 0
        assert harness.group == []

    def test_remove(self, harness: Harness) -> None:
        run = lines(harness)
        run("SADD s a b c")
        assert run("SREM s a x a") == 1
        assert harness.events == [(SET, b"srem", b"s")]
        assert run("SREM s x") == 0
        assert run("SREM missing x") == 0
        assert harness.group == []
        assert run("SREM s b c") == 2
        assert harness.events == [(SET, b"srem", b"s"), (GENERIC, b"del", b"s")]
        assert harness.store.lookup(b"s") is None
        harness.replay()

    def test_a_deadline_goes_with_the_last_member(self, harness: Harness) -> None:
        run = lines(harness)
        run("SADD s a")
        harness.store.set_deadline(b"s", harness.now + 1000)
        run("SREM s a")
        run("SADD s a")
        assert harness.store.deadline(b"s") is None

    def test_ask(self, harness: Harness) -> None:
        run = lines(harness)
        run("SADD s a b")
        assert run("SISMEMBER s a") == 1
        assert run("SISMEMBER s x") == 0
        assert run("SISMEMBER missing a") == 0
        assert run("SMISMEMBER s a x b a") == [1, 0, 1, 1]
        assert run("SMISMEMBER missing a b") == [0, 0]
        assert run("SCARD missing") == 0
        assert run("SMEMBERS missing") == []

    def test_shape(self, harness: Harness) -> None:
        harness.call("SADD", "s", "a")
        assert harness.wire(2, "SMEMBERS", "s") == b"*1\r\n$1\r\na\r\n"
        assert harness.wire(3, "SMEMBERS", "s") == b"~1\r\n$1\r\na\r\n"
        assert harness.wire(3, "SISMEMBER", "s", "a") == b":1\r\n"

    def test_small_sets_of_integers_ascend(self, harness: Harness) -> None:
        run = lines(harness)
        run("SADD s 10 9 -1 100 0")
        assert run("SMEMBERS s") == [b"-1", b"0", b"9", b"10", b"100"]
        run("SADD t 9 100")
        assert run("SUNION t s") == [b"-1", b"0", b"9", b"10", b"100"]
        run("SADD s a")
        assert run("SMEMBERS s") == [b"10", b"9", b"-1", b"100", b"0", b"a"]

    def test_move(self, harness: Harness) -> None:
        run = lines(harness)
        run("SADD s a b")
        assert run("SMOVE s t a") == 1
        assert harness.events == [(SET, b"srem", b"s"), (SET, b"sadd", b"t")]
        assert harness.commands == [(b"SREM", b"s", b"a"), (b"SADD", b"t", b"a")]
        run("SADD t b")
        assert run("SMOVE s t b") == 1
        assert harness.events == [(SET, b"srem", b"s"), (GENERIC, b"del", b"s")]
        assert run("SMOVE t t a") == 1
        assert harness.group == []
        assert run("SMOVE t t x") == 0
        assert run("SMOVE t u x") == 0
        assert run("SMOVE s t a") == 0
        assert harness.group == []
        assert members_of(harness, "t") == {b"a", b"b"}
        harness.replay()

    def test_move_looks_at_the_destination_only_if_there_is_a_source(self, harness: Harness) -> None:
        run = lines(harness)
        run("SADD s a")
        harness.store.put(b"str", b"v")
        assert run("SMOVE missing str a") == 0
        assert str(run("SMOVE s str x")) == WRONG_TYPE
        assert str(run("SMOVE str s a")) == WRONG_TYPE

    def test_writes_leave_a_snapshot_alone(self, harness: Harness) -> None:
        fill(harness, "large", range(LARGE))
        harness.call("SADD", "small", "a", "b")
        with harness.frozen():
            harness.call("SADD", "large", "new")
            harness.call("SREM", "large", "m1")
            harness.call("SPOP", "large", 100)
            harness.call("SMOVE", "small", "large", "a")
            harness.call("SINTERSTORE", "small", "large")
        harness.replay()


class TestRandom:
    @pytest.mark.parametrize("size", [1, 2, 7, LARGE])
    def test_pop_until_it_is_gone(self, harness: Harness, size: int) -> None:
        fill(harness, "s", range(size))
        before = members_of(harness, "s")
        first = harness.call("SPOP", "s")
        assert first in before
        assert harness.commands == [(b"SREM", b"s", first)]
        expected = [b"spop", b"del"] if size == 1 else [b"spop"]
        assert [name for name, _ in named(harness)] == expected
        rest = harness.call("SPOP", "s", size)
        assert isinstance(rest, SetReply)
        assert sorted([first, *rest]) == sorted(before)
        assert harness.call("SPOP", "s") is None
        harness.replay()

    def test_pop_some(self, harness: Harness) -> None:
        fill(harness, "s", range(LARGE))
        before = members_of(harness, "s")
        popped = harness.call("SPOP", "s", 2500)
        assert len(popped) == len(set(popped)) == 2500
        assert [len(command) for command in harness.commands] == [1002, 1002, 502]
        assert [events for _, _, events in harness.group] == [(), (), ((SET, b"spop", b"s"),)]
        assert members_of(harness, "s") == before - set(popped)
        harness.replay()

    def test_pop_all_is_told_as_a_deletion(self, harness: Harness) -> None:
        fill(harness, "s", range(10))
        assert len(harness.call("SPOP", "s", 11)) == 10
        assert harness.commands == [(b"DEL", b"s")]
        assert harness.events == [(SET, b"spop", b"s"), (GENERIC, b"del", b"s")]
        harness.replay()

    def test_pop_nothing(self, harness: Harness) -> None:
        run = lines(harness)
        run("SADD s a")
        for line in ("SPOP s 0", "SPOP missing 3", "SPOP missing 0"):
            assert run(line) == SetReply()
            assert harness.group == []
        assert harness.wire(3, "SPOP", "missing", 3) == b"~0\r\n"
        assert harness.wire(3, "SPOP", "missing") == b"_\r\n"

    def test_show_one(self, harness: Harness) -> None:
        run = lines(harness)
        run("SADD s a b")
        assert run("SRANDMEMBER s") in (b"a", b"b")
        assert run("SRANDMEMBER missing") is None
        assert run("SRANDMEMBER missing 2") == []
        assert run("SRANDMEMBER s 0") == []
        assert harness.wire(3, "SRANDMEMBER", "s", 2)[:4] == b"*2\r\n"

    @settings(deadline=None, max_examples=60)
    @given(
        st.sampled_from([1, 5, 1000, 1024, 1025, 4000]),
        st.sampled_from([0.0, 0.01, 0.3, 0.6, 0.99, 1.0, 2.0]),
        st.integers(),
    )
    def test_different_members(self, size: int, share: float, seed: int) -> None:
        harness = Harness(seed=seed)
        fill(harness, "s", range(size))
        for count in {int(size * share), min(64, size), 1}:
            shown = harness.call("SRANDMEMBER", "s", count)
            assert len(shown) == len(set(shown)) == min(count, size)
            assert set(shown) <= members_of(harness, "s")

    @pytest.mark.parametrize("size", [1, 3, LARGE])
    @pytest.mark.parametrize("count", [1, 64, 100, 2000, 10000])
    def test_members_that_may_repeat(self, harness: Harness, size: int, count: int) -> None:
        fill(harness, "s", range(size))
        shown = harness.call("SRANDMEMBER", "s", -count)
        assert len(shown) == count
        assert set(shown) <= members_of(harness, "s")
        assert len(set(shown)) > 1 or size == 1 or count == 1

    @pytest.mark.parametrize("count", [1, 10, 2500, 4999])
    def test_a_count_near_the_size_draws_no_more_often_than_there_are_members(self, count: int) -> None:
        harness = Harness()
        fill(harness, "s", range(LARGE))
        source = CountingRandom(3)
        harness.store.random = source
        harness.call("SRANDMEMBER", "s", count)
        assert source.draws <= LARGE // 2
        harness.call("SPOP", "s", count)
        assert source.draws <= LARGE

    def test_every_member_turns_up_about_as_often(self) -> None:
        harness = Harness(seed=11)
        fill(harness, "s", range(3000))
        seen: dict[bytes, int] = {}
        for _ in range(40):
            for member in harness.call("SRANDMEMBER", "s", 1000):
                seen[member] = seen.get(member, 0) + 1
        # 13 times on average. The seed decides the places drawn, so that each run counts the same.
        assert len(seen) == 3000
        assert max(seen.values()) < 35

    def test_too_many_repetitions(self, harness: Harness) -> None:
        harness.call("SADD", "s", "a")
        assert harness.text("SRANDMEMBER", "s", -MOST_REPEATED - 1) == "ERR value is out of range"
        assert len(harness.call("SRANDMEMBER", "s", -MOST_REPEATED)) == MOST_REPEATED


class CountingRandom(random.Random):
    """Counts what is drawn from it."""

    draws = 0

    def random(self) -> float:
        self.draws += 1
        return super().random()

    def getrandbits(self, k: int, /) -> int:
        self.draws += 1
        return super().getrandbits(k)


def intersection(sets: list[set[bytes]]) -> set[bytes]:
    return set.intersection(*sets)


def union(sets: list[set[bytes]]) -> set[bytes]:
    return set.union(*sets)


def difference(sets: list[set[bytes]]) -> set[bytes]:
    return sets[0].difference(*sets[1:])


OPERATIONS: list[tuple[str, Callable[[list[set[bytes]]], set[bytes]]]] = [
    ("SINTER", intersection),
    ("SUNION", union),
    ("SDIFF", difference),
]


class TestAlgebra:
    @pytest.mark.parametrize(("name", "model"), OPERATIONS)
    @settings(deadline=None, max_examples=50)
    @given(
        st.lists(st.sets(st.integers(0, 12)), min_size=1, max_size=4),
        st.lists(st.integers(0, 3), min_size=1, max_size=6),
    )
    def test_as_a_model(
        self, name: str, model: Callable[[list[set[bytes]]], set[bytes]], contents: list[set[int]], picks: list[int]
    ) -> None:
        harness = Harness()
        sets = [{f"m{number}".encode() for number in content} for content in contents]
        for number, members in enumerate(sets):
            if members:
                harness.call("SADD", f"k{number}", *members)
        chosen = [pick % len(sets) for pick in picks]
        keys = [f"k{number}" for number in chosen]
        expected = model([sets[number] for number in chosen])
        shown = harness.call(name, *keys)
        assert isinstance(shown, SetReply)
        assert len(shown) == len(expected)
        assert set(shown) == expected
        for target in ("new", "k0"):
            assert harness.call(f"{name}STORE", target, *keys) == len(expected)
            assert members_of(harness, target) == expected
        harness.replay()

    @pytest.mark.parametrize(("name", "model"), OPERATIONS)
    @pytest.mark.parametrize(
        "ranges", [(range(3000), range(1000, 6000)), (range(10), range(4000)), (range(4000), range(9))]
    )
    def test_large(
        self,
        harness: Harness,
        name: str,
        model: Callable[[list[set[bytes]]], set[bytes]],
        ranges: tuple[range, range],
    ) -> None:
        for key, numbers in zip("ab", ranges, strict=True):
            fill(harness, key, numbers)
        expected = model([members_of(harness, key) for key in "ab"])
        assert set(harness.call(name, "a", "b")) == expected
        assert harness.call(f"{name}STORE", "c", "a", "b") == len(expected)
        assert members_of(harness, "c") == expected
        assert all(len(command) <= 1002 for command in harness.commands)
        harness.replay()

    def test_a_key_named_often_is_read_once(self, harness: Harness) -> None:
        run = lines(harness)
        run("SADD a x y")
        for name in ("SINTER", "SUNION"):
            harness.store.hits = 0
            assert set(harness.call(name, *["a"] * 1000)) == {b"x", b"y"}
            assert harness.store.hits == 2
        assert harness.call("SDIFF", *["a"] * 1000) == []

    def test_events_of_a_stored_result(self, harness: Harness) -> None:
        run = lines(harness)
        run("SADD a x y")
        for name in ("sinterstore", "sunionstore", "sdiffstore"):
            assert run(f"{name} t a") == 2
            assert harness.events == [(SET, name.encode(), b"t")]
            assert harness.commands == [(b"SADD", b"t", b"x", b"y")]
            harness.store.set_deadline(b"t", harness.now + 1000)
            harness.store.emit((b"PEXPIREAT", b"t", b"%d" % (harness.now + 1000)), b"t")
            assert run(f"{name} t a") == 2
            assert harness.commands[-2:] == [(b"DEL", b"t"), (b"SADD", b"t", b"x", b"y")]
            assert harness.store.deadline(b"t") is None
            assert run(f"{name} t missing") == 0
            assert harness.events == [(GENERIC, b"del", b"t")]
            assert run(f"{name} t missing") == 0
            assert harness.group == []
        harness.replay()

    def test_a_result_replaces_any_type(self, harness: Harness) -> None:
        run = lines(harness)
        run("SADD a x")
        harness.store.put(b"t", b"text")
        harness.store.emit((b"SET", b"t", b"text"), b"t")
        assert run("SUNIONSTORE t a missing") == 1
        assert run("SMEMBERS t") == [b"x"]
        harness.replay()

    def test_every_source_is_checked(self, harness: Harness) -> None:
        run = lines(harness)
        harness.store.put(b"str", b"v")
        run("SADD a x")
        for name in ("SINTER", "SUNION", "SDIFF", "SINTERSTORE t", "SUNIONSTORE t", "SDIFFSTORE t", "SINTERCARD 2"):
            assert str(run(f"{name} missing str")) == WRONG_TYPE
            assert str(run(f"{name} str a")) == WRONG_TYPE

    def test_count_of_common_members(self, harness: Harness) -> None:
        run = lines(harness)
        run("SADD a 1 2 3 4")
        run("SADD b 2 3 4 5")
        assert run("SINTERCARD 1 a") == 4
        assert run("SINTERCARD 2 a b") == 3
        assert run("SINTERCARD 2 a b LIMIT 2") == 2
        assert run("SINTERCARD 2 a b limit 0") == 3
        assert run("SINTERCARD 2 a b LIMIT 9 LIMIT 1") == 1
        assert run("SINTERCARD 2 a missing") == 0


class TestScan:
    def test_a_small_set_comes_whole(self, harness: Harness) -> None:
        run = lines(harness)
        run("SADD s a b c")
        assert run("SSCAN s 0") == [b"0", [b"a", b"b", b"c"]]
        assert run("SSCAN s 0 MATCH [ab] COUNT 1") == [b"0", [b"a", b"b"]]
        assert run("SSCAN missing 0") == [b"0", []]

    def test_a_large_set_comes_in_steps(self, harness: Harness) -> None:
        fill(harness, "s", range(LARGE))
        cursor, found, steps = b"0", [], 0
        while steps == 0 or cursor != b"0":
            cursor, part = harness.call("SSCAN", "s", cursor, "COUNT", 500)
            assert len(part) <= 1000
            found += part
            steps += 1
        assert steps >= 5
        assert set(found) == members_of(harness, "s")


ERRORS: list[tuple[str, str]] = [
    ("SPOP s -1", POSITIVE),
    ("SPOP s abc", POSITIVE),
    ("SPOP missing 99999999999999999999", POSITIVE),
    ("SPOP s 1 2", SYNTAX),
    ("SRANDMEMBER s abc", NOT_INTEGER),
    ("SRANDMEMBER s abc 2", SYNTAX),
    ("SRANDMEMBER missing -9223372036854775808", BETWEEN),
    ("SINTERCARD 0 s", "ERR numkeys should be greater than 0"),
    ("SINTERCARD -1 s", "ERR numkeys should be greater than 0"),
    ("SINTERCARD abc s", "ERR numkeys should be greater than 0"),
    ("SINTERCARD 2 s", "ERR Number of keys can't be greater than number of args"),
    ("SINTERCARD 1 s LIMIT", SYNTAX),
    ("SINTERCARD 1 s COUNT 1", SYNTAX),
    ("SINTERCARD 1 str LIMIT -1", "ERR LIMIT can't be negative"),
    ("SINTERCARD 1 s LIMIT x", "ERR LIMIT can't be negative"),
    ("SSCAN str x", "ERR invalid cursor"),
    ("SSCAN s 0 COUNT 0", SYNTAX),
    ("SSCAN s 0 NOSCORES", "ERR NOSCORES option can only be used in ZSCAN"),
    *(
        (line, WRONG_TYPE)
        for line in (
            "SADD str a",
            "SREM str a",
            "SCARD str",
            "SISMEMBER str a",
            "SMISMEMBER str a",
            "SMEMBERS str",
            "SPOP str",
            "SPOP str 0",
            "SRANDMEMBER str",
            "SRANDMEMBER str 2",
            "SSCAN str 0 COUNT 0",
        )
    ),
]


@pytest.mark.parametrize(("line", "error"), ERRORS)
def test_errors_change_nothing(harness: Harness, line: str, error: str) -> None:
    run = lines(harness)
    run("SADD s a b")
    harness.store.put(b"str", b"v")
    before = harness.content()
    reply: Any = run(line)
    assert str(reply) == error
    assert harness.content() == before


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2500)), max_size=60), st.integers(0, 2000))
def test_a_set_counts_its_memory(changes: list[tuple[bool, int]], size: int) -> None:
    value = Set.of(b"m%d" % number for number in range(size))
    model = {b"m%d" % number for number in range(size)}
    for adds, number in changes:
        member = b"m%d" % number
        if adds:
            assert value.add(member) == (member not in model)
            model.add(member)
        else:
            assert value.remove(member) == (member in model)
            model.discard(member)
    assert set(value) == model
    assert value.payload == Set.of(model).payload
