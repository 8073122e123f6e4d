"""The checker of one key's history knows bad ones."""

from __future__ import annotations

import math
from typing import Any

import pytest
from sim.history import UNKNOWN, Loss, Operation
from sim.linear import check_key


def done(kind: Any, begun: float, ended: float, result: Any, argument: bytes = b"", copies: int = 0) -> Operation:
    return Operation("c", b"k", kind, argument, begun, ended, result, copies)


def swap(begun: float, ended: float, seen: bytes | None, argument: bytes, result: Any = "OK") -> Operation:
    return Operation("c", b"k", "swap", argument, begun, ended, result, seen=seen)


def lost(kind: Any, begun: float, argument: bytes = b"") -> Operation:
    return Operation("c", b"k", kind, argument, begun, math.inf, UNKNOWN)


GOOD = {
    "one after the other": [done("set", 0, 1, "OK", b"1"), done("get", 2, 3, b"1")],
    "side by side": [done("set", 0, 5, "OK", b"1"), done("get", 1, 2, None), done("get", 3, 4, b"1")],
    "without a reply, and done": [lost("set", 0, b"1"), done("get", 5, 6, None), done("get", 7, 8, b"1")],
    "without a reply, and not done": [lost("append", 0, b"1"), done("append", 5, 6, 1, b"2"), done("get", 7, 8, b"2")],
    "counted without a reply": [
        lost("increment", 0),
        lost("increment", 1),
        done("increment", 2, 3, 2),
        done("increment", 4, 5, 4),
    ],
    "exchanged": [done("set", 0, 1, "OK", b"1"), done("exchange", 2, 3, b"1", b"2"), done("get", 4, 5, b"2")],
    "swapped": [
        done("set", 0, 1, "OK", b"1"),
        swap(2, 3, b"1", b"2"),
        done("get", 4, 5, b"2"),
    ],
    "swapped for what nobody was told of": [lost("set", 0, b"1"), swap(2, 3, b"1", b"2"), done("get", 4, 5, b"2")],
    "swapped without a reply, or not": [
        done("set", 0, 1, "OK", b"1"),
        swap(2, math.inf, b"0", b"2", UNKNOWN),
        swap(3, math.inf, b"1", b"3", UNKNOWN),
        done("get", 4, 5, b"3"),
    ],
    "emptied": [
        done("set", 0, 1, "OK", b"1"),
        done("clear", 2, 3, "OK"),
        done("get", 4, 5, None),
    ],
    "emptied without a reply, or not": [
        done("set", 0, 1, "OK", b"1"),
        lost("clear", 2),
        done("get", 3, 4, b"1"),
        done("get", 5, 6, None),
    ],
    "deleted": [done("set", 0, 1, "OK", b"1"), done("delete", 2, 3, 1), done("get", 4, 5, None)],
}
BAD = {
    "there after it was emptied": [
        done("set", 0, 1, "OK", b"1"),
        done("clear", 2, 3, "OK"),
        done("get", 4, 5, b"1"),
    ],
    "swapped by two for one": [
        done("set", 0, 1, "OK", b"1"),
        swap(2, 5, b"1", b"2"),
        swap(3, 4, b"1", b"3"),
    ],
    "swapped for an old one": [
        done("set", 0, 1, "OK", b"1"),
        done("set", 2, 3, "OK", b"2"),
        swap(4, 5, b"1", b"3"),
    ],
    "swapped without a reply for an old one": [
        done("set", 0, 1, "OK", b"1"),
        done("set", 2, 3, "OK", b"2"),
        swap(4, math.inf, b"1", b"3", UNKNOWN),
        done("get", 6, 7, b"3"),
    ],
    "a lost write": [done("set", 0, 1, "OK", b"1"), done("get", 2, 3, None)],
    "an old value": [done("set", 0, 1, "OK", b"1"), done("set", 2, 3, "OK", b"2"), done("get", 4, 5, b"1")],
    "a value that comes and goes": [
        lost("set", 0, b"1"),
        done("get", 1, 2, b"1"),
        done("set", 3, 4, "OK", b"2"),
        done("get", 5, 6, b"2"),
        done("get", 7, 8, b"1"),
    ],
    "a value before it was written": [done("get", 0, 1, b"1"), done("set", 2, 3, "OK", b"1")],
    "one number twice": [done("increment", 0, 1, 1), done("increment", 2, 3, 1)],
    "one number for two at once": [done("increment", 0, 3, 1), done("increment", 1, 2, 1)],
    "an element lost": [
        done("append", 0, 1, 2, b"1;"),
        done("append", 2, 3, 4, b"2;"),
        done("get", 4, 5, b"2;"),
    ],
    "done twice": [done("append", 0, 1, 2, b"1;"), done("get", 2, 3, b"1;1;")],
}


@pytest.mark.parametrize("name", GOOD)
def test_what_has_an_order_is_good(name: str) -> None:
    assert check_key(GOOD[name]).outcome == "good"


@pytest.mark.parametrize("name", BAD)
def test_what_has_no_order_is_bad(name: str) -> None:
    verdict = check_key(BAD[name])
    assert verdict.outcome == "bad"
    assert verdict.detail


WRITES = [done("append", number, number + 0.5, 2 * number + 2, b"%d;" % number) for number in range(4)]


@pytest.mark.parametrize(
    ("left", "outcome"), [(b"0;1;2;3;", "good"), (b"0;1;2;", "good"), (None, "good"), (b"1;", "bad")]
)
def test_a_loss_takes_the_last_first(left: bytes | None, outcome: str) -> None:
    loss = Loss(5, b"k", -math.inf)
    assert check_key([*WRITES, done("get", 6, 7, left)], [loss]).outcome == outcome


@pytest.mark.parametrize(("left", "outcome"), [(b"0;1;2;", "good"), (b"0;1;", "good"), (b"0;", "bad"), (None, "bad")])
def test_a_loss_takes_nothing_that_is_older(left: bytes | None, outcome: str) -> None:
    loss = Loss(5, b"k", 2)
    assert check_key([*WRITES, done("get", 6, 7, left)], [loss]).outcome == outcome


def test_a_loss_of_reads_takes_no_writes() -> None:
    loss = Loss(5, b"k", 0, only_reads=True)
    seen = [lost("set", 1, b"1"), done("get", 2, 3, b"1"), done("get", 6, 7, None)]
    assert check_key(seen, [loss]).outcome == "good"
    assert check_key(seen).outcome == "bad"
    written = [done("set", 1, 2, "OK", b"1"), done("get", 6, 7, None)]
    assert check_key(written, [loss]).outcome == "bad"


def test_a_loss_takes_nothing_that_copies_have() -> None:
    loss = Loss(5, b"k", -math.inf, safe_copies=2, steady_since=0)
    for copies, outcome in ((1, "good"), (2, "bad")):
        written = [done("set", 1, 2, "OK", b"1", copies), done("get", 6, 7, None)]
        assert check_key(written, [loss]).outcome == outcome
    early = [done("set", -2, -1, "OK", b"1", 2), done("get", 6, 7, None)]
    assert check_key(early, [loss]).outcome == "good"


def test_what_was_lost_does_not_come_back() -> None:
    loss = Loss(5, b"k", -math.inf)
    history = [done("set", 1, 2, "OK", b"1"), done("get", 6, 7, None), done("get", 8, 9, b"1")]
    assert check_key(history, [loss]).outcome == "bad"


def test_it_gives_up_in_the_end() -> None:
    # Nobody can have appended so much, and there are too many orders of those that may have.
    maybe = [lost("append", 0, b"%02d" % number) for number in range(24)]
    verdict = check_key([*maybe, done("append", 1, 2, 1001, b"x")])
    assert verdict.outcome == "undecided"
