"""Intersections, unions and differences of sorted sets, compared with what dicts give. Replies are Valkey 9.1's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.store_harness import Harness, event_class, lines

from kevynode.reply import Pairs

WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
SYNTAX = "ERR syntax error"
NOT_INTEGER = "ERR value is not an integer or out of range"
NOT_WEIGHT = "ERR weight value is not a float"
ZSET = event_class("z")
GENERIC = event_class("g")
INFINITY = float("inf")

Scores: TypeAlias = dict[bytes, float]
Aggregate: TypeAlias = Callable[[float, float], float]


@pytest.fixture
def harness() -> Harness:
    return Harness()


def ordered(scores: Scores) -> list[tuple[bytes, float]]:
    return [(member, score) for score, member in sorted((score, member) for member, score in scores.items())]


def build(harness: Harness, key: str, scores: Scores, plain: bool) -> Scores:
    """A sorted set with these scores, or a plain set of their members; what each counts as."""
    if scores and plain:
        harness.call("SADD", key, *scores)
    elif scores:
        harness.call("ZADD", key, *(word for member, score in scores.items() for word in (score, member)))
    return dict.fromkeys(scores, 1.0) if plain else scores


def add(total: float, score: float) -> float:
    return total + score


AGGREGATES: dict[str, Aggregate] = {"SUM": add, "MIN": min, "max": max}


def combine(inputs: list[Scores], weights: list[float], aggregate: Aggregate, common: bool) -> Scores:
    """What a union, or an intersection, gives. Exact for small whole numbers, which add up in any order."""
    result: Scores = {}
    for scores, weight in zip(inputs, weights, strict=True):
        for member, score in scores.items():
            weighted = score * weight
            result[member] = aggregate(result[member], weighted) if member in result else weighted
    return {member: score for member, score in result.items() if not common or all(member in each for each in inputs)}


INPUTS = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from([b"", b"a", b"b", b"c", b"dd"]), st.integers(-3, 5).map(float)), st.booleans()
    ),
    min_size=1,
    max_size=4,
)


class TestCombined:
    @settings(deadline=None)
    @given(
        INPUTS,
        st.booleans(),
        st.one_of(st.none(), st.lists(st.integers(-2, 3), min_size=4, max_size=4)),
        st.sampled_from([None, *AGGREGATES]),
    )
    def test_as_a_model(
        self, inputs: list[tuple[Scores, bool]], common: bool, weights: list[int] | None, aggregate: str | None
    ) -> None:
        harness = Harness()
        sources = [build(harness, f"k{number}", *given) for number, given in enumerate(inputs)]
        words: list[str | int] = [len(sources), *(f"k{number}" for number in range(len(sources)))]
        if weights is not None:
            words += ["WEIGHTS", *weights[: len(sources)]]
        if aggregate is not None:
            words += ["AGGREGATE", aggregate]
        numbers = [1.0] * len(sources) if weights is None else list(map(float, weights[: len(sources)]))
        expected = combine(sources, numbers, AGGREGATES[aggregate or "SUM"], common)
        name = "ZINTER" if common else "ZUNION"
        assert harness.call(name, *words, "WITHSCORES") == ordered(expected)
        assert harness.call(name, *words) == [member for member, _ in ordered(expected)]
        for target in ("new", "k0"):
            assert harness.call(f"{name}STORE", target, *words) == len(expected)
            assert harness.call("ZRANGE", target, 0, -1, "WITHSCORES") == ordered(expected)
        harness.replay()

    @settings(deadline=None)
    @given(INPUTS)
    def test_difference_as_a_model(self, inputs: list[tuple[Scores, bool]]) -> None:
        harness = Harness()
        first, *others = (build(harness, f"k{number}", *given) for number, given in enumerate(inputs))
        expected = {member: score for member, score in first.items() if not any(member in other for other in others)}
        words: list[str | int] = [len(inputs), *(f"k{number}" for number in range(len(inputs)))]
        assert harness.call("ZDIFF", *words, "WITHSCORES") == ordered(expected)
        assert harness.call("ZDIFF", *words) == [member for member, _ in ordered(expected)]
        assert harness.call("ZDIFFSTORE", "new", *words) == len(expected)
        assert harness.call("ZRANGE", "new", 0, -1, "WITHSCORES") == ordered(expected)
        assert harness.call("ZDIFF", len(inputs) + 1, *words[1:], "k0") == []
        harness.replay()

    def test_large(self, harness: Harness) -> None:
        for key, numbers in (("a", range(3000)), ("b", range(1000, 4500))):
            for start in range(0, len(numbers), 1000):
                harness.call("ZADD", key, *(word for n in numbers[start : start + 1000] for word in (n, f"m{n}")))
        assert harness.call("ZINTERSTORE", "i", 2, "a", "b") == 2000
        assert harness.call("ZSCORE", "i", "m1500") == 3000.0
        assert harness.call("ZUNIONSTORE", "u", 2, "a", "b") == 4500
        assert all(len(command) <= 2002 for command in harness.commands)
        assert harness.call("ZSCORE", "u", "m4000") == 4000.0
        assert harness.call("ZDIFFSTORE", "d", 2, "a", "b") == 1000
        assert harness.call("ZDIFFSTORE", "e", 2, "b", "d") == 3500
        assert harness.call("ZINTERCARD", 2, "a", "b") == 2000
        assert harness.call("ZINTERCARD", 2, "a", "b", "LIMIT", 7) == 7
        harness.replay()

    def test_infinities(self, harness: Harness) -> None:
        run = lines(harness)
        run("ZADD high inf a")
        run("ZADD low -inf a")
        run("ZADD zero 0 a")
        assert run("ZUNION 2 high low WITHSCORES") == [(b"a", 0.0)]
        assert run("ZINTER 2 high low WITHSCORES") == [(b"a", 0.0)]
        assert run("ZINTER 2 high low WEIGHTS 0 1 WITHSCORES") == [(b"a", -INFINITY)]
        assert run("ZUNION 1 zero WEIGHTS inf WITHSCORES") == [(b"a", 0.0)]
        assert run("ZUNIONSTORE t 1 zero WEIGHTS -1") == 1
        assert harness.wire(2, "ZSCORE", "t", "a") == b"$1\r\n0\r\n"
        harness.replay()

    def test_shapes(self, harness: Harness) -> None:
        run = lines(harness)
        run("ZADD a 1 x")
        run("SADD b x")
        assert isinstance(run("ZUNION 2 a b WITHSCORES"), Pairs)
        assert harness.wire(3, "ZUNION", 2, "a", "b", "WITHSCORES") == b"*1\r\n*2\r\n$1\r\nx\r\n,2\r\n"
        assert harness.wire(2, "ZINTER", 2, "a", "b", "WITHSCORES") == b"*2\r\n$1\r\nx\r\n$1\r\n2\r\n"

    def test_options_again(self, harness: Harness) -> None:
        run = lines(harness)
        run("ZADD a 1 x 2 y")
        assert run("ZUNION 1 a WEIGHTS 2 WEIGHTS 3 WITHSCORES withscores") == [(b"x", 3.0), (b"y", 6.0)]
        assert run("ZINTERCARD 1 a LIMIT 1 LIMIT 2") == 2
        assert run("ZINTERCARD 2 a missing") == 0

    @pytest.mark.parametrize("name", ["zunionstore", "zinterstore", "zdiffstore"])
    def test_events_of_a_stored_result(self, harness: Harness, name: str) -> None:
        run = lines(harness)
        run("ZADD a 1 x")
        assert run(f"{name} t 1 a") == 1
        assert harness.events == [(ZSET, name.encode(), b"t")]
        assert harness.commands == [(b"ZADD", b"t", b"1", b"x")]
        assert run(f"{name} t 1 a") == 1
        assert harness.commands == [(b"DEL", b"t"), (b"ZADD", b"t", b"1", b"x")]
        assert run(f"{name} t 1 missing") == 0
        assert harness.events == [(GENERIC, b"del", b"t")]
        assert run(f"{name} t 1 missing") == 0
        assert harness.group == []
        harness.replay()


NAMES = ("zunion", "zinter", "zdiff", "zintercard")
STORES = ("zunionstore t", "zinterstore t", "zdiffstore t")
ERRORS: list[tuple[str, str]] = [
    *(
        (f"{name} 0 a", f"ERR at least 1 input key is needed for '{name.split()[0]}' command")
        for name in NAMES + STORES
    ),
    *(
        (f"{name} -1 a", f"ERR at least 1 input key is needed for '{name.split()[0]}' command")
        for name in NAMES + STORES
    ),
    *((f"{name} x a", NOT_INTEGER) for name in NAMES + STORES),
    *((f"{name} 2 a", SYNTAX) for name in NAMES + STORES),
    *((f"{name} 1 a FOO", SYNTAX) for name in NAMES + STORES),
    # Sources are looked at before options.
    *((f"{name} 2 missing str FOO", WRONG_TYPE) for name in NAMES + STORES),
    *((f"{name} 1 a WITHSCORES", SYNTAX) for name in (*STORES, "zintercard")),
    ("ZUNION 2 a b WEIGHTS 1", SYNTAX),
    ("ZUNION 1 a WEIGHTS x", NOT_WEIGHT),
    ("ZUNION 1 a WEIGHTS nan", NOT_WEIGHT),
    ("ZUNION 1 a WEIGHTS 1e400", NOT_WEIGHT),
    ("ZINTER 1 a AGGREGATE", SYNTAX),
    ("ZINTER 1 a AGGREGATE AVG", SYNTAX),
    ("ZDIFF 1 a WEIGHTS 1", SYNTAX),
    ("ZDIFF 1 a AGGREGATE SUM", SYNTAX),
    ("ZINTERCARD 1 a LIMIT", SYNTAX),
    ("ZINTERCARD 1 a LIMIT -1", "ERR LIMIT can't be negative"),
]


@pytest.mark.parametrize(("line", "error"), ERRORS)
def test_errors_change_nothing(harness: Harness, line: str, error: str) -> None:
    run = lines(harness)
    run("ZADD a 1 x")
    run("SADD t y")
    harness.store.put(b"str", b"v")
    before = harness.content()
    assert str(run(line)) == error
    assert harness.content() == before
