"""The sorted-set commands: replies, errors, events, effects and what a copy makes of them. Replies are Valkey 9.1's.

Ranges and what combines several sorted sets are tested in files of their own.
"""

from __future__ import annotations

from bisect import insort
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.sorted_sets import entries, fill
from support.store_harness import Harness, event_class, lines, named

from kevynode.reply import NULL_ARRAY, Pairs
from kevynode.store.command import Blocked
from kevynode.store.values import SortedSet

WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
SYNTAX = "ERR syntax error"
NOT_INTEGER = "ERR value is not an integer or out of range"
NOT_FLOAT = "ERR value is not a valid float"
BETWEEN = "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807"
POSITIVE = "ERR value is out of range, must be positive"
NAN = "ERR resulting score is not a number (NaN)"
ZSET = event_class("z")
GENERIC = event_class("g")
INFINITY = float("inf")


@pytest.fixture
def harness() -> Harness:
    return Harness()


class TestAdd:
    def test_one_and_several(self, harness: Harness) -> None:
        run = lines(harness)
        added = run("ZADD z 1 a")
        assert (added, type(added)) == (1, int)
        assert harness.events == [(ZSET, b"zadd", b"z")]
        assert harness.commands == [(b"ZADD", b"z", b"1", b"a")]
        assert run("ZADD z 2 a") == 0
        assert harness.events == [(ZSET, b"zadd", b"z")]
        assert run("ZADD z 2 a") == 0
        assert harness.group == []
        assert run("ZADD z 1 a 2 b 1.5 a 1 c") == 2
        assert entries(harness, "z") == [(b"c", 1.0), (b"a", 1.5), (b"b", 2.0)]
        assert run("ZADD z 1.5 a 2 b") == 0
        assert harness.group == []
        assert run("ZADD z 9 a 2 b") == 0
        assert harness.events == [(ZSET, b"zadd", b"z")]
        harness.replay()

    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("3.0", b"3"),
            ("+5", b"5"),
            (".5", b"0.5"),
            ("1.", b"1"),
            ("1e3", b"1000"),
            ("-0", b"0"),
            ("INF", b"inf"),
            ("-infinity", b"-inf"),
            ("0001", b"1"),
            ("1e17", b"100000000000000000"),
            ("1e20", b"1e+20"),
            ("0.00001", b"0.00001"),
            ("3.0000000000000004", b"3.0000000000000004"),
            ("9" * 300, b"1e+300"),
        ],
    )
    def test_scores(self, harness: Harness, text: str, shown: bytes) -> None:
        assert harness.call("ZADD", "z", text, "a") == 1
        assert harness.wire(2, "ZSCORE", "z", "a") == b"$%d\r\n%b\r\n" % (len(shown), shown)
        assert harness.wire(3, "ZSCORE", "z", "a") == b",%b\r\n" % shown
        harness.replay()

    @pytest.mark.parametrize(
        "text", ["", " 1", "1 ", "nan", "1e400", "-1e400", "1e-400", "0x10", "1_0", "5e", "9" * 400]
    )
    @pytest.mark.parametrize("words", [("ZADD", "z", None, "a"), ("ZADD", "z", "CH", 1, "b", None, "a")])
    def test_what_is_no_score(self, harness: Harness, text: str, words: tuple[Any, ...]) -> None:
        argv = [text if word is None else word for word in words]
        assert harness.text(*argv) == NOT_FLOAT
        assert harness.content() == {}

    @pytest.mark.parametrize(
        ("options", "reply", "scores"),
        [
            ("NX", 1, {b"a": 5, b"b": 5, b"new": 1}),
            ("XX", 0, {b"a": 1, b"b": 9}),
            ("XX CH", 2, {b"a": 1, b"b": 9}),
            ("GT", 1, {b"a": 5, b"b": 9, b"new": 1}),
            ("LT", 1, {b"a": 1, b"b": 5, b"new": 1}),
            ("lt ch", 2, {b"a": 1, b"b": 5, b"new": 1}),
            ("GT XX CH", 1, {b"a": 5, b"b": 9}),
            ("CH", 3, {b"a": 1, b"b": 9, b"new": 1}),
            ("NX CH nx", 1, {b"a": 5, b"b": 5, b"new": 1}),
        ],
    )
    def test_options(self, harness: Harness, options: str, reply: int, scores: dict[bytes, float]) -> None:
        run = lines(harness)
        run("ZADD z 5 a 5 b")
        assert run(f"ZADD z {options} 1 a 9 b 1 new") == reply
        assert harness.events == [(ZSET, b"zadd", b"z")]
        changed = {member: score for member, score in scores.items() if score != 5}
        told = harness.commands[0]
        assert dict(zip(told[3::2], map(float, told[2::2]), strict=True)) == changed
        assert dict(entries(harness, "z")) == scores
        harness.replay()

    @pytest.mark.parametrize(
        "line", ["ZADD z XX 1 new", "ZADD z NX 9 a", "ZADD z GT 1 a 5 a", "ZADD missing XX CH 1 a"]
    )
    def test_options_that_let_nothing_through(self, harness: Harness, line: str) -> None:
        run = lines(harness)
        run("ZADD z 5 a")
        assert run(line) == 0
        assert harness.group == []
        assert set(harness.content()) == {b"z"}

    def test_increment(self, harness: Harness) -> None:
        run = lines(harness)
        assert run("ZINCRBY z 1.5 a") == 1.5
        assert harness.commands == [(b"ZADD", b"z", b"1.5", b"a")]
        assert harness.events == [(ZSET, b"zincr", b"z")]
        assert run("ZADD z INCR 2 a") == 3.5
        assert run("ZADD z INCR CH -1 a") == 2.5
        assert run("ZINCRBY z 0 a") == 2.5
        assert harness.group == []
        assert run("ZADD z INCR NX 1 a") is None
        assert run("ZADD z INCR XX 1 x") is None
        assert run("ZADD z INCR GT -1 a") is None
        assert run("ZADD z INCR LT 0 a") is None
        assert harness.group == []
        assert run("ZADD z INCR 0 zero") == 0.0
        assert harness.commands == [(b"ZADD", b"z", b"0", b"zero")]
        assert harness.wire(2, "ZINCRBY", "z", 1, "a") == b"$3\r\n3.5\r\n"
        assert harness.wire(3, "ZINCRBY", "z", 1, "a") == b",4.5\r\n"
        harness.replay()

    def test_infinities_do_not_add_up(self, harness: Harness) -> None:
        run = lines(harness)
        run("ZADD z inf a -inf b")
        assert str(run("ZINCRBY z -inf a")) == NAN
        assert str(run("ZADD z INCR inf b")) == NAN
        assert run("ZINCRBY z inf a") == INFINITY
        assert harness.group == []


class TestOne:
    def test_remove(self, harness: Harness) -> None:
        run = lines(harness)
        run("ZADD z 1 a 2 b 3 c")
        assert run("ZREM z b x b") == 1
        assert harness.events == [(ZSET, b"zrem", b"z")]
        assert run("ZREM z x") == 0
        assert run("ZREM missing x") == 0
        assert harness.group == []
        assert run("ZREM z a c") == 2
        assert harness.events == [(ZSET, b"zrem", b"z"), (GENERIC, b"del", b"z")]
        assert harness.content() == {}
        harness.replay()

    def test_ask(self, harness: Harness) -> None:
        run = lines(harness)
        run("ZADD z 1 a 2.5 b")
        assert run("ZCARD z") == 2
        assert run("ZCARD missing") == 0
        assert run("ZSCORE z b") == 2.5
        assert run("ZSCORE z x") is None
        assert run("ZSCORE missing x") is None
        assert run("ZMSCORE z b x a") == [2.5, None, 1.0]
        assert run("ZMSCORE missing b x") == [None, None]

    @pytest.mark.parametrize("size", [5, 3000])
    def test_rank(self, harness: Harness, size: int) -> None:
        fill(harness, "z", size)
        for number in (0, 3, size - 1):
            assert harness.call("ZRANK", "z", f"m{number}") == number
            assert harness.call("ZREVRANK", "z", f"m{number}") == size - 1 - number
            assert harness.call("ZRANK", "z", f"m{number}", "withscore") == [number, float(number)]
        assert harness.call("ZRANK", "z", "x") is None
        assert harness.call("ZREVRANK", "missing", "x") is None
        assert harness.call("ZRANK", "z", "x", "WITHSCORE") is NULL_ARRAY
        assert harness.call("ZREVRANK", "missing", "x", "WITHSCORE") is NULL_ARRAY

    @pytest.mark.parametrize("size", [3, 3000])
    def test_random(self, harness: Harness, size: int) -> None:
        fill(harness, "z", size)
        scores = dict(entries(harness, "z"))
        assert harness.call("ZRANDMEMBER", "z") in scores
        for count in (2, size - 1, size, size + 5):
            shown = harness.call("ZRANDMEMBER", "z", count)
            assert len(shown) == len(set(shown)) == min(count, size)
            assert set(shown) <= set(scores)
            pairs = harness.call("ZRANDMEMBER", "z", -count, "WITHSCORES")
            assert isinstance(pairs, Pairs)
            assert len(pairs) == count
            assert all(scores[member] == score for member, score in pairs)
        assert harness.call("ZRANDMEMBER", "missing") is None
        assert harness.call("ZRANDMEMBER", "missing", 3, "WITHSCORES") == []
        assert harness.call("ZRANDMEMBER", "z", 0) == []

    def test_scan(self, harness: Harness) -> None:
        run = lines(harness)
        run("ZADD z 2 b 1.5 a inf c")
        assert run("ZSCAN z 0") == [b"0", [b"a", b"1.5", b"b", b"2", b"c", b"inf"]]
        assert run("ZSCAN z 0 NOSCORES MATCH [ac]") == [b"0", [b"a", b"c"]]
        assert run("ZSCAN missing 0") == [b"0", []]
        fill(harness, "large", 3000)
        found: dict[bytes, float] = {}
        cursor, steps = b"0", 0
        while steps == 0 or cursor != b"0":
            cursor, part = harness.call("ZSCAN", "large", cursor, "COUNT", 300)
            assert len(part) <= 1200
            found.update(zip(part[::2], map(float, part[1::2]), strict=True))
            steps += 1
        assert found == dict(entries(harness, "large"))

    def test_writes_leave_a_snapshot_alone(self, harness: Harness) -> None:
        fill(harness, "large", 3000)
        fill(harness, "small", 5)
        with harness.frozen():
            harness.call("ZADD", "large", 7, "new", 8, "m1")
            harness.call("ZREM", "large", "m2")
            harness.call("ZPOPMIN", "large", 100)
            harness.call("ZREMRANGEBYRANK", "large", 500, 600)
            harness.call("ZRANGESTORE", "small", "large", 0, 9)
        harness.replay()


class TestPop:
    def test_one(self, harness: Harness) -> None:
        run = lines(harness)
        run("ZADD z 1 a 2 b 3 c")
        assert harness.wire(3, "ZPOPMIN", "z") == b"*2\r\n$1\r\na\r\n,1\r\n"
        assert harness.commands == [(b"ZREM", b"z", b"a")]
        assert harness.events == [(ZSET, b"zpopmin", b"z")]
        assert harness.wire(2, "ZPOPMAX", "z") == b"*2\r\n$1\r\nc\r\n$1\r\n3\r\n"
        assert run("ZPOPMAX z") == [b"b", 2.0]
        assert harness.events == [(ZSET, b"zpopmax", b"z"), (GENERIC, b"del", b"z")]
        assert run("ZPOPMAX z") == []
        assert harness.wire(3, "ZPOPMIN", "z") == b"*0\r\n"
        harness.replay()

    def test_several(self, harness: Harness) -> None:
        run = lines(harness)
        run("ZADD z 1 a 2 b 3 c 4 d")
        assert harness.wire(3, "ZPOPMIN", "z", 1) == b"*1\r\n*2\r\n$1\r\na\r\n,1\r\n"
        assert run("ZPOPMAX z 2") == [(b"d", 4.0), (b"c", 3.0)]
        assert harness.commands == [(b"ZREM", b"z", b"d", b"c")]
        assert run("ZPOPMIN z 0") == []
        assert harness.group == []
        assert harness.wire(2, "ZPOPMIN", "z", 9) == b"*2\r\n$1\r\nb\r\n$1\r\n2\r\n"
        harness.replay()

    @pytest.mark.parametrize("count", [1, 100, 2500, 3000, 4000])
    @pytest.mark.parametrize("name", ["ZPOPMIN", "ZPOPMAX"])
    def test_many(self, harness: Harness, name: str, count: int) -> None:
        fill(harness, "z", 3000)
        before = entries(harness, "z")
        popped = harness.call(name, "z", count)
        told = harness.commands
        if name == "ZPOPMAX":
            before.reverse()
        assert popped == before[:count]
        assert sorted(entries(harness, "z")) == sorted(before[count:])
        assert told == [(b"DEL", b"z")] if count >= 3000 else all(len(command) <= 1002 for command in told)
        harness.replay()

    def test_from_the_first_of_several(self, harness: Harness) -> None:
        run = lines(harness)
        run("ZADD z 1 a 2 b 3 c")
        run("ZADD y 1 a")
        assert run("ZMPOP 3 missing z y MIN") == (b"z", [(b"a", 1.0)])
        assert harness.events == [(ZSET, b"zpopmin", b"z")]
        assert harness.wire(2, "ZMPOP", 2, "z", "y", "max", "COUNT", 2) == (
            b"*2\r\n$1\r\nz\r\n*2\r\n*2\r\n$1\r\nc\r\n$1\r\n3\r\n*2\r\n$1\r\nb\r\n$1\r\n2\r\n"
        )
        assert named(harness) == [(b"zpopmax", b"z"), (b"del", b"z")]
        assert run("ZMPOP 1 missing MAX") is NULL_ARRAY
        harness.store.put(b"str", b"v")
        harness.store.emit((b"SET", b"str", b"v"), b"str")
        assert run("ZMPOP 2 y str MIN COUNT 5") == (b"y", [(b"a", 1.0)])
        assert str(run("ZMPOP 2 y str MIN")) == WRONG_TYPE
        harness.replay()

    @pytest.mark.parametrize(
        ("line", "keys", "timeout"),
        [
            ("BZPOPMIN a b 1.5", [b"a", b"b"], 1500),
            ("BZPOPMAX a 0", [b"a"], 0),
            ("BZMPOP 0.001 2 a b MIN COUNT 3", [b"a", b"b"], 1),
        ],
    )
    def test_waits(self, harness: Harness, line: str, keys: list[bytes], timeout: int) -> None:
        waiting = harness.call(*line.split())
        assert isinstance(waiting, Blocked)
        assert (list(waiting.keys), waiting.timeout, waiting.kind) == (keys, timeout, SortedSet)
        assert waiting.on_timeout is NULL_ARRAY
        assert harness.content() == {}

    def test_serves_what_it_would_wait_for(self, harness: Harness) -> None:
        run = lines(harness)
        run("ZADD z 1 a 2 b 3 c")
        assert run("BZPOPMIN missing z 0") == [b"z", b"a", 1.0]
        assert harness.commands == [(b"ZREM", b"z", b"a")]
        assert run("BZPOPMAX z 0") == [b"z", b"c", 3.0]
        assert run("BZMPOP 0 2 missing z MIN COUNT 10") == (b"z", [(b"b", 2.0)])
        assert named(harness) == [(b"zpopmin", b"z"), (b"del", b"z")]
        harness.replay()


ERRORS: list[tuple[str, str]] = [
    ("ZADD z 1 a 2", SYNTAX),
    ("ZADD z NX 1", SYNTAX),
    ("ZADD z foo 1 a", SYNTAX),
    ("ZADD z NX XX 1 a", "ERR XX and NX options at the same time are not compatible"),
    ("ZADD z GT LT 1 a", "ERR GT, LT, and/or NX options at the same time are not compatible"),
    ("ZADD z nx gt 1 a", "ERR GT, LT, and/or NX options at the same time are not compatible"),
    ("ZADD z INCR 1 a 2 b", "ERR INCR option supports a single increment-element pair"),
    ("ZADD z 1 a x b", NOT_FLOAT),
    ("ZADD str x a", NOT_FLOAT),
    ("ZINCRBY z nan a", NOT_FLOAT),
    ("ZINCRBY str x a", NOT_FLOAT),
    ("ZRANK z a FOO", SYNTAX),
    ("ZRANK z a WITHSCORE FOO", "ERR wrong number of arguments for 'zrank' command"),
    ("ZREVRANK z a WITHSCORE FOO", "ERR wrong number of arguments for 'zrevrank' command"),
    ("ZRANDMEMBER z abc FOO", NOT_INTEGER),
    ("ZRANDMEMBER z 1 FOO", SYNTAX),
    ("ZRANDMEMBER z 1 WITHSCORES FOO", SYNTAX),
    ("ZRANDMEMBER z -9223372036854775808", BETWEEN),
    ("ZRANDMEMBER z -4611686018427387904 WITHSCORES", "ERR value is out of range"),
    ("ZRANDMEMBER z -9999999", "ERR value is out of range"),
    ("ZPOPMIN str -1", POSITIVE),
    ("ZPOPMIN z abc", POSITIVE),
    ("ZPOPMIN z 1 2", SYNTAX),
    ("ZMPOP 0 z MIN", "ERR numkeys should be greater than 0"),
    ("ZMPOP x z MIN", "ERR numkeys should be greater than 0"),
    ("ZMPOP 5 z MIN", SYNTAX),
    ("ZMPOP 1 z FOO", SYNTAX),
    ("ZMPOP 1 z MIN MAX", SYNTAX),
    ("ZMPOP 1 z MIN COUNT", SYNTAX),
    ("ZMPOP 1 z MIN COUNT 1 COUNT 2", SYNTAX),
    ("ZMPOP 1 z MIN COUNT 0", "ERR count should be greater than 0"),
    ("BZMPOP x 1 z FOO", SYNTAX),
    ("BZMPOP -1 1 z MIN", "ERR timeout is negative"),
    ("BZPOPMIN str -1", "ERR timeout is negative"),
    ("BZPOPMIN missing x", "ERR timeout is not a float or out of range"),
    ("ZSCAN z x", "ERR invalid cursor"),
    ("ZSCAN z 0 NOVALUES", "ERR NOVALUES option can only be used in HSCAN"),
    *(
        (line, WRONG_TYPE)
        for line in (
            "ZADD str 1 a",
            "ZADD str 1 a 2 b",
            "ZADD str XX 1 a",
            "ZADD str INCR 1 a",
            "ZINCRBY str 1 a",
            "ZREM str a",
            "ZCARD str",
            "ZSCORE str a",
            "ZMSCORE str a",
            "ZRANK str a",
            "ZRANDMEMBER str",
            "ZRANDMEMBER str 1",
            "ZSCAN str 0",
            "ZPOPMIN str",
            "ZPOPMAX str 0",
            "BZPOPMIN missing str 0",
            "BZMPOP 0 1 str MIN",
        )
    ),
]


@pytest.mark.parametrize(("line", "error"), ERRORS)
def test_errors_change_nothing(harness: Harness, line: str, error: str) -> None:
    run = lines(harness)
    run("ZADD z 1 a 2 b")
    harness.store.put(b"str", b"v")
    before = harness.content()
    assert str(run(line)) == error
    assert harness.content() == before


@settings(deadline=None)
@given(
    st.sampled_from([0, 3, 1020, 2500]),
    st.lists(
        st.tuples(st.sampled_from(["put", "remove", "between"]), st.integers(0, 2600), st.integers(-3, 3)), max_size=50
    ),
)
def test_a_sorted_set_keeps_order_and_memory(size: int, changes: list[tuple[str, int, int]]) -> None:
    scores: dict[bytes, float] = {b"m%d" % number: number * 0.5 for number in range(size)}
    value = SortedSet.of(scores)
    model = sorted((score, member) for member, score in scores.items())
    for change, number, score in changes:
        member, old = b"m%d" % number, scores.get(b"m%d" % number)
        if change == "between":
            start, stop = min(number, len(model)), min(number + 5 + score, len(model))
            removed = value.remove_between(start, stop) if start < stop else []
            assert removed == model[start:stop]
            del model[start:stop]
            for _, gone in removed:
                del scores[gone]
            continue
        if old is not None:
            model.remove((old, member))
            del scores[member]
        if change == "put":
            assert value.put(member, float(score)) is (True if old is None else None if old == score else False)
            insort(model, (float(score), member))
            scores[member] = float(score)
        else:
            assert value.remove(member) == (old is not None)
    assert list(value.order) == model
    assert dict(value.scores.items()) == scores
    assert value.payload == SortedSet.of(scores).payload
