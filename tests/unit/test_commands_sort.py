"""SORT and SORT_RO."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.store_harness import START, Harness, event_class, lines, named


def with_list(*elements: str | float | bytes) -> Harness:
    harness = Harness()
    harness.call("RPUSH", "l", *elements)
    return harness


def ask(harness: Harness, line: str) -> list[str | None]:
    reply = harness.call(*line.split())
    assert isinstance(reply, list), reply
    return [None if cell is None else cell.decode() for cell in reply]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("SORT l", "-5 1 1.5 2 3 10"),
        ("SORT l DESC", "10 3 2 1.5 1 -5"),
        ("SORT l desc asc", "-5 1 1.5 2 3 10"),
        ("SORT l ALPHA", "-5 1 1.5 10 2 3"),
        ("SORT l LIMIT 1 2", "1 1.5"),
        ("SORT l LIMIT -3 2", "-5 1"),
        ("SORT l LIMIT 4 -1", "3 10"),
        ("SORT l LIMIT 9 2", ""),
        ("SORT l LIMIT 0 0", ""),
        ("SORT l LIMIT 0 9223372036854775807 DESC", "10 3 2 1.5 1 -5"),
        ("SORT l BY nosort", "3 1 2 10 -5 1.5"),
        ("SORT l BY nosort DESC LIMIT 1 2", "-5 10"),
        ("SORT l BY nosort LIMIT 1 2", "1 2"),
        ("SORT_RO l DESC LIMIT 0 1", "10"),
    ],
)
def test_numbers(line: str, expected: str) -> None:
    assert ask(with_list(3, 1, 2, 10, -5, 1.5), line) == expected.split()


@pytest.mark.parametrize("bad", ["x", "", " 1", "1 ", "nan", "0x10", "1e400", "1e-400", "1e"])
def test_what_is_no_number(bad: str) -> None:
    harness = with_list(1, bad)
    assert harness.text("SORT", "l") == "ERR One or more scores can't be converted into double"
    assert harness.text("SORT", "l", "STORE", "d") == "ERR One or more scores can't be converted into double"
    assert harness.call("SORT", "l", "BY", "nosort") == [b"1", bad.encode()]


def test_ties_are_settled_by_the_elements() -> None:
    assert ask(with_list("2", "1.0", "01", "1"), "SORT l") == ["01", "1", "1.0", "2"]
    assert ask(with_list("2", "1.0", "01", "1"), "SORT l DESC") == ["2", "1.0", "1", "01"]


def test_by_and_get() -> None:
    harness = with_list(1, 2, 3)
    run = lines(harness)
    run("MSET w_1 30 w_2 10 w_3 20 n_1 one n_3 three")
    run("HSET h_1 f 3 g a")
    run("HSET h_2 f 1")
    run("HSET h_3 f 2 g c")
    assert ask(harness, "SORT l BY w_*") == ["2", "3", "1"]
    assert ask(harness, "SORT l BY w_* GET # GET n_*") == ["2", None, "3", "three", "1", "one"]
    assert ask(harness, "SORT l BY h_*->f DESC GET h_*->g") == ["a", "c", None]
    assert ask(harness, "SORT l BY missing_* ALPHA") == ["1", "2", "3"]
    assert ask(harness, "SORT l GET constant GET h_*") == [None] * 6
    assert ask(harness, "SORT l GET w_*->f LIMIT 0 1") == [None]
    harness.call("SET", "h_1->", "arrow")
    assert ask(harness, "SORT l GET h_*-> LIMIT 0 1") == ["arrow"]


def test_elements_without_weight_come_first() -> None:
    harness = with_list("a", "b", "c")
    harness.call("SET", "w_b", "")
    assert ask(harness, "SORT l BY w_* ALPHA") == ["a", "c", "b"]
    assert ask(harness, "SORT l BY w_* ALPHA DESC") == ["b", "a", "c"]


def test_expired_weights_do_not_count() -> None:
    harness = with_list(1, 2)
    harness.call("SET", "w_1", "9", "PXAT", START + 1000)
    harness.call("HSET", "h_1", "f", "v", "g", "w")
    harness.call("HPEXPIREAT", "h_1", START + 1000, "FIELDS", 1, "f")
    assert ask(harness, "SORT l BY w_* GET h_*->f") == [None, "v"]
    harness.now += 1001
    assert ask(harness, "SORT_RO l BY w_* GET h_*->f") == [None, None]
    assert named(harness) == [(b"expired", b"w_1")]


def test_sets_and_sorted_sets() -> None:
    harness = Harness()
    harness.call("SADD", "s", 3, 1, 2)
    harness.call("ZADD", "z", 3, 1, 2, 2, 1, 3)
    assert ask(harness, "SORT s") == ["1", "2", "3"]
    assert sorted(map(str, ask(harness, "SORT s BY nosort"))) == ["1", "2", "3"]
    assert ask(harness, "SORT z DESC") == ["3", "2", "1"]
    assert ask(harness, "SORT z BY nosort") == ["3", "2", "1"]
    assert ask(harness, "SORT z BY nosort DESC LIMIT 0 2") == ["1", "2"]
    assert ask(harness, "SORT z BY nosort LIMIT 1 5") == ["2", "1"]
    # What is stored must be the same wherever it is done.
    assert harness.call("SORT", "s", "BY", "nosort", "STORE", "d") == 3
    assert harness.call("LRANGE", "d", 0, -1) == [b"1", b"2", b"3"]
    harness.replay()


def test_store() -> None:
    harness = with_list(3, 1, 2)
    assert harness.call("SORT", "l", "STORE", "d") == 3
    assert harness.commands == [(b"RPUSH", b"d", b"1", b"2", b"3")]
    assert harness.events == [(event_class("l"), b"sortstore", b"d")]
    harness.call("EXPIRE", "d", 100)
    assert harness.call("SORT", "l", "GET", "nothing_*", "GET", "#", "STORE", "d") == 6
    assert harness.commands[0] == (b"DEL", b"d")
    assert harness.call("LRANGE", "d", 0, -1) == [b"", b"1", b"", b"2", b"", b"3"]
    assert harness.call("TTL", "d") == -1
    assert harness.call("SORT", "l", "DESC", "STORE", "l") == 3
    assert harness.call("LRANGE", "l", 0, -1) == [b"3", b"2", b"1"]
    assert harness.call("SORT", "missing", "STORE", "d") == 0
    assert harness.events == [(event_class("g"), b"del", b"d")]
    assert harness.call("SORT", "missing", "STORE", "d") == 0
    assert harness.group == []
    harness.replay()


def test_snapshots_keep_what_a_store_overwrites() -> None:
    harness = with_list(3, 1, 2)
    with harness.frozen():
        harness.call("SORT", "l", "STORE", "l")
    harness.replay()


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("SORT str", "WRONGTYPE Operation against a key holding the wrong kind of value"),
        ("SORT h", "WRONGTYPE Operation against a key holding the wrong kind of value"),
        ("SORT str FOO", "ERR syntax error"),
        ("SORT l LIMIT 1", "ERR syntax error"),
        ("SORT l LIMIT a 1", "ERR value is not an integer or out of range"),
        ("SORT l LIMIT 1 a FOO", "ERR value is not an integer or out of range"),
        ("SORT l BY", "ERR syntax error"),
        ("SORT l GET", "ERR syntax error"),
        ("SORT l STORE", "ERR syntax error"),
        ("SORT_RO l STORE d", "ERR syntax error"),
    ],
)
def test_errors(line: str, error: str) -> None:
    harness = with_list(1)
    harness.call("SET", "str", "v")
    harness.call("HSET", "h", "f", "v")
    assert harness.text(*line.split()) == error


@given(st.lists(st.integers(-20, 20), min_size=1, max_size=30), st.booleans(), st.integers(-3, 35), st.integers(-3, 35))
def test_windows(numbers: list[int], descending: bool, start: int, size: int) -> None:
    harness = with_list(*numbers)
    order = ["DESC"] if descending else []
    found = [int(cell) for cell in harness.call("SORT", "l", *order, "LIMIT", start, size)]
    begin = max(start, 0)
    expected = sorted(numbers, key=lambda number: (number, str(number)), reverse=descending)
    assert found == (expected[begin:] if size < 0 else expected[begin : begin + size])
