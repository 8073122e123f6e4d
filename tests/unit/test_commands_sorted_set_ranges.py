"""The commands on ranges of sorted sets, compared with what a plain list gives. Replies are Valkey 9.1's."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.sorted_sets import entries, fill
from support.store_harness import Harness, event_class, lines

WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
SYNTAX = "ERR syntax error"
NOT_INTEGER = "ERR value is not an integer or out of range"
NOT_RANGE = "ERR min or max is not a float"
NOT_LEX = "ERR min or max not valid string range item"
NO_LIMIT = "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX"
NO_SCORES = "ERR syntax error, WITHSCORES not supported in combination with BYLEX"
ZSET = event_class("z")
GENERIC = event_class("g")
INFINITY = float("inf")


@pytest.fixture
def harness() -> Harness:
    return Harness()


BOUNDS = ["-inf", "+inf", "inf", "0", "1", "(1", "2", "(2", "2.5", "(inf", "(-inf", "(", "1e400", "-1e400", "1e-400"]


def in_score_range(score: float, low: str, high: str) -> bool:
    low_bound, high_bound = (float(bound.lstrip("(") or 0) for bound in (low, high))
    above = score > low_bound if low.startswith("(") else score >= low_bound
    return above and (score < high_bound if high.startswith("(") else score <= high_bound)


def in_lex_range(member: bytes, low: str, high: str) -> bool:
    if low == "+" or high == "-":
        return False
    above = low == "-" or (member > low[1:].encode() if low[0] == "(" else member >= low[1:].encode())
    below = high == "+" or (member < high[1:].encode() if high[0] == "(" else member <= high[1:].encode())
    return above and below


SCORES = st.sampled_from([0.0, 1.0, 2.0, 2.5, 3.0, INFINITY, -INFINITY])
NAMES = st.sampled_from(["", "a", "aa", "b", "c", "d\0", "\xff"])
LEX_BOUNDS = st.one_of(st.sampled_from(["-", "+"]), st.builds(str.__add__, st.sampled_from("(["), NAMES))
LIMITS = st.one_of(st.none(), st.tuples(st.integers(0, 4), st.integers(-1, 5)))
Entries = list[tuple[float, bytes]]


def build(harness: Harness, scores: dict[str, float]) -> Entries:
    """A sorted set ``z`` with these scores, and what it must hold."""
    if scores:
        harness.call("ZADD", "z", *(word for member, score in scores.items() for word in (score, member)))
    return sorted((score, member.encode()) for member, score in scores.items())


def check_range(
    harness: Harness, words: list[Any], expected: Entries, backward: bool, limit: tuple[int, int] | None, by_lex: bool
) -> None:
    """Compare ZRANGE and ZRANGESTORE with what a range must give."""
    if backward:
        expected = expected[::-1]
        words = [*words, "REV"]
    if limit is not None:
        offset, count = limit
        expected = expected[offset:] if count < 0 else expected[offset : offset + count]
        words = [*words, "LIMIT", offset, count]
    assert harness.call("ZRANGE", "z", *words) == [member for _, member in expected]
    if not by_lex:
        assert harness.call("ZRANGE", "z", *words, "WITHSCORES") == [(member, score) for score, member in expected]
    assert harness.call("ZRANGESTORE", "t", "z", *words) == len(expected)
    assert entries(harness, "t") == [(member, score) for score, member in sorted(expected)]


class TestRanges:
    @settings(deadline=None)
    @given(st.dictionaries(NAMES, SCORES), st.integers(-8, 8), st.integers(-8, 8), st.booleans())
    def test_by_place(self, scores: dict[str, float], first: int, last: int, backward: bool) -> None:
        harness = Harness()
        model = build(harness, scores)
        shown = model[::-1] if backward else model
        start = max(first + len(model), 0) if first < 0 else first
        expected = shown[start : max((last + len(model) if last < 0 else last) + 1, 0)]
        words = ["REV"] if backward else []
        assert harness.call("ZRANGE", "z", first, last, *words) == [member for _, member in expected]
        if backward:
            assert harness.call("ZREVRANGE", "z", first, last) == [member for _, member in expected]
        assert harness.call("ZREMRANGEBYRANK", "z", first, last) == len(
            expected if not backward else model[start:][: len(expected)]
        )
        harness.replay()

    @settings(deadline=None)
    @given(st.dictionaries(NAMES, SCORES), st.sampled_from(BOUNDS), st.sampled_from(BOUNDS), st.booleans(), LIMITS)
    def test_by_score(
        self, scores: dict[str, float], low: str, high: str, backward: bool, limit: tuple[int, int] | None
    ) -> None:
        harness = Harness()
        model = build(harness, scores)
        inside = [entry for entry in model if in_score_range(entry[0], low, high)]
        words = [high, low] if backward else [low, high]
        check_range(harness, [*words, "BYSCORE"], inside, backward, limit, by_lex=False)
        name = "ZREVRANGEBYSCORE" if backward else "ZRANGEBYSCORE"
        assert harness.call(name, "z", *words) == [member for _, member in (inside[::-1] if backward else inside)]
        assert harness.call("ZCOUNT", "z", low, high) == len(inside)
        assert harness.call("ZREMRANGEBYSCORE", "z", low, high) == len(inside)
        assert entries(harness, "z") == [(member, score) for score, member in model if (score, member) not in inside]
        harness.replay()

    @settings(deadline=None)
    @given(st.sets(NAMES), LEX_BOUNDS, LEX_BOUNDS, st.booleans(), LIMITS)
    def test_by_member(
        self, members: set[str], low: str, high: str, backward: bool, limit: tuple[int, int] | None
    ) -> None:
        harness = Harness()
        model = build(harness, dict.fromkeys(members, 1.0))
        inside = [entry for entry in model if in_lex_range(entry[1], low, high)]
        words = [high, low] if backward else [low, high]
        check_range(harness, [*words, "BYLEX"], inside, backward, limit, by_lex=True)
        name = "ZREVRANGEBYLEX" if backward else "ZRANGEBYLEX"
        assert harness.call(name, "z", *words) == [member for _, member in (inside[::-1] if backward else inside)]
        assert harness.call("ZLEXCOUNT", "z", low, high) == len(inside)
        assert harness.call("ZREMRANGEBYLEX", "z", low, high) == len(inside)
        harness.replay()

    def test_members_in_the_order_of_different_scores(self, harness: Harness) -> None:
        run = lines(harness)
        run("ZADD z 1 c 2 a 3 d 4 b 5 e")
        # A walk from the first that is not before the range to the first behind it, or the same from the other end.
        assert run("ZRANGEBYLEX z [b [d") == [b"c", b"a", b"d", b"b"]
        assert run("ZRANGEBYLEX z - [d") == [b"c", b"a", b"d", b"b"]
        assert run("ZREVRANGEBYLEX z [d [b") == [b"b", b"d"]
        assert run("ZLEXCOUNT z - +") == 5
        assert run("ZRANGEBYLEX z + -") == []
        assert run("ZRANGEBYLEX z [f +") == []

    def test_members_and_many_scores_that_ascend_together(self, harness: Harness) -> None:
        words = [word for number in range(1000) for word in (number, f"m{number:03}")]
        harness.call("ZADD", "z", *words)
        assert harness.call("ZLEXCOUNT", "z", "-", "+") == 1000
        assert harness.call("ZLEXCOUNT", "z", "[m100", "(m200") == 100
        assert harness.call("ZRANGEBYLEX", "z", "(m997", "[m998") == [b"m998"]
        assert harness.call("ZREVRANGEBYLEX", "z", "[m998", "[m997") == [b"m998", b"m997"]
        assert harness.call("ZRANGEBYLEX", "z", "+", "-") == []

    def test_large(self, harness: Harness) -> None:
        fill(harness, "z", 5000)
        members = [b"m%d" % number for number in range(5000)]
        assert harness.call("ZRANGE", "z", 0, -1) == members
        assert harness.call("ZRANGE", "z", 1500, 3500) == members[1500:3501]
        assert harness.call("ZRANGE", "z", "(1500", 3500, "BYSCORE", "LIMIT", 10, 5) == members[1511:1516]
        assert harness.call("ZREVRANGE", "z", 1500, 3500) == members[::-1][1500:3501]
        assert harness.call("ZREMRANGEBYRANK", "z", 100, -101) == 4800
        assert [len(command) for command in harness.commands] == [1002] * 4 + [802]
        assert harness.events == [(ZSET, b"zremrangebyrank", b"z")]
        assert harness.call("ZRANGE", "z", 0, -1) == members[:100] + members[-100:]
        harness.replay()

    def test_shapes(self, harness: Harness) -> None:
        harness.call("ZADD", "z", 1, "a", 2, "b")
        words = ("ZRANGE", "z", 0, 0, "WITHSCORES")
        assert harness.wire(2, *words) == b"*2\r\n$1\r\na\r\n$1\r\n1\r\n"
        assert harness.wire(3, *words) == b"*1\r\n*2\r\n$1\r\na\r\n,1\r\n"

    def test_grammar(self, harness: Harness) -> None:
        run = lines(harness)
        run("ZADD z 1 a 2 b 3 c")
        assert run("ZRANGE z 0 -1 LIMIT 1 -1") == [b"a", b"b", b"c"]
        assert run("ZRANGE z 0 0 WITHSCORES WITHSCORES") == [(b"a", 1.0)]
        assert run("ZRANGE z -inf +inf byscore limit 0 1 limit 1 1") == [b"b"]
        assert run("ZRANGE z -inf +inf BYSCORE LIMIT -1 2") == []
        assert run("ZRANGEBYSCORE z 1 3 LIMIT 1 1 WITHSCORES") == [(b"b", 2.0)]
        assert harness.call("ZCOUNT", "z", b"1\0junk", b"(3\0") == 2
        assert harness.call("ZCOUNT", "z", "", "(") == 0

    def test_store(self, harness: Harness) -> None:
        run = lines(harness)
        run("ZADD z 1 a 2 b 3 c")
        assert run("ZRANGESTORE t z 1 2") == 2
        assert harness.commands == [(b"ZADD", b"t", b"2", b"b", b"3", b"c")]
        assert harness.events == [(ZSET, b"zrangestore", b"t")]
        assert run("ZRANGESTORE t z 5 6") == 0
        assert harness.events == [(GENERIC, b"del", b"t")]
        assert run("ZRANGESTORE t missing 0 1") == 0
        assert harness.group == []
        assert run("ZRANGESTORE z z 0 0") == 1
        assert harness.commands == [(b"DEL", b"z"), (b"ZADD", b"z", b"1", b"a")]
        harness.replay()


ERRORS: list[tuple[str, str]] = [
    ("ZRANGE missing a b", NOT_INTEGER),
    ("ZRANGE z 0 1 LIMIT 0", SYNTAX),
    ("ZRANGE z 0 1 LIMIT 0 x", NOT_INTEGER),
    ("ZRANGE z 0 1 LIMIT 0 1", NO_LIMIT),
    ("ZREVRANGE z 0 1 LIMIT 0 1", NO_LIMIT),
    ("ZRANGE z 0 1 BYSCORE BYLEX", SYNTAX),
    ("ZRANGE z 0 1 REV REV", SYNTAX),
    ("ZREVRANGE z 0 1 REV", SYNTAX),
    ("ZRANGEBYSCORE z 0 1 BYSCORE", SYNTAX),
    ("ZRANGE z - + BYLEX WITHSCORES", NO_SCORES),
    ("ZRANGEBYLEX z - + WITHSCORES", NO_SCORES),
    ("ZRANGESTORE t z 0 1 WITHSCORES", SYNTAX),
    ("ZREMRANGEBYRANK missing a 1", NOT_INTEGER),
    *((f"ZRANGEBYSCORE missing {bound} 3", NOT_RANGE) for bound in ("a", "((1", "[1", "nan", ".", "1e", "0x1", "1_0")),
    *((f"ZRANGEBYLEX missing {bound} +", NOT_LEX) for bound in ("a", "-a", "+a")),
    ("ZCOUNT missing a 1", NOT_RANGE),
    ("ZLEXCOUNT missing a +", NOT_LEX),
    ("ZREMRANGEBYSCORE str a 1", NOT_RANGE),
    ("ZREMRANGEBYLEX str a +", NOT_LEX),
    *(
        (line, WRONG_TYPE)
        for line in (
            "ZRANGE str 0 1",
            "ZRANGESTORE z str 0 1",
            "ZCOUNT str 0 1",
            "ZLEXCOUNT str - +",
            "ZREMRANGEBYSCORE str 0 1",
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
