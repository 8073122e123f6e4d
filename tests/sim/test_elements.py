"""What checks elements of lists knows those that were lost, or handed out twice."""

from __future__ import annotations

import math
from typing import Any

import pytest
from sim.elements import Elements, check_elements
from sim.history import UNKNOWN, Loss, Operation


def done(kind: Any, begun: float, ended: float, element: bytes | None) -> Operation:
    """A push of an element, or a take of it, that was answered."""
    if kind == "push":
        return Operation("c", b"a:", kind, element or b"", begun, ended, 1)
    return Operation("c", b"a:", kind, b"", begun, ended, element)


def silent(kind: Any, begun: float, element: bytes = b"") -> Operation:
    """The same, without an answer."""
    return Operation("c", b"a:", kind, element, begun, math.inf, UNKNOWN)


ONE = done("push", 0, 1, b"1;")
POWER = Loss(5.0, b"a:", 2.5)
GOOD: dict[str, tuple[list[Operation], list[bytes], list[bytes], list[Loss]]] = {
    "taken": ([ONE, done("pop", 2, 3, b"1;")], [], [], []),
    "there still": ([ONE], [b"1;"], [], []),
    "moved": ([ONE, done("move", 2, 3, b"1;")], [], [b"1;"], []),
    "moved, and taken": ([ONE, done("move", 2, 3, b"1;"), done("either", 4, 5, b"1;")], [], [], []),
    "taken while it was pushed": ([ONE, done("pop", 0.5, 0.7, b"1;")], [], [], []),
    "pushed without an answer": ([silent("push", 0, b"1;")], [], [], []),
    "pushed without an answer, and there": ([silent("push", 0, b"1;")], [b"1;"], [], []),
    "taken without an answer": ([ONE, silent("pop", 2)], [], [], []),
    "taken again after a loss": ([ONE, done("pop", 2, 3, b"1;"), done("pop", 6, 7, b"1;")], [], [], [POWER]),
    "back after a loss": ([ONE, done("pop", 2, 3, b"1;")], [b"1;"], [], [POWER]),
    "lost": ([done("push", 2, 3, b"1;")], [], [], [POWER]),
    "nothing before it was there": ([done("pop", 0, 0.5, None), ONE], [b"1;"], [], []),
    "nothing while others took it": ([ONE, done("pop", 2, 3, b"1;"), done("pop", 2.5, 4, None)], [], [], []),
    "nothing while it was taken, and back after a loss": (
        [ONE, silent("pop", 2), done("pop", 3, 4, None), done("pop", 6, 7, b"1;")], [], [], [POWER]
    ),
    "nothing while it was in the other list": (
        [ONE, done("move", 2, 3, b"1;"), done("pop", 4, 5, None), done("drain", 6, 7, b"1;")], [], [], []
    ),
}  # fmt: skip
BAD: dict[str, tuple[list[Operation], list[bytes], list[bytes], list[Loss]]] = {
    "lost": ([ONE], [], [], []),
    "lost before a loss": ([ONE], [], [], [POWER]),
    "more lost than taken": ([ONE, done("push", 1, 2, b"2;"), silent("pop", 3)], [], [], []),
    "taken twice": ([ONE, done("pop", 2, 3, b"1;"), done("pop", 4, 5, b"1;")], [], [], []),
    "taken twice at once": ([ONE, done("pop", 2, 6, b"1;"), done("either", 3, 5, b"1;")], [], [], []),
    "taken twice before a loss": ([ONE, done("pop", 2, 3, b"1;"), done("pop", 3, 4, b"1;")], [], [], [POWER]),
    "taken again, and no loss has taken that": (
        [ONE, done("pop", 1.5, 2, b"1;"), done("pop", 6, 7, b"1;")], [], [], [POWER]
    ),
    "moved twice": ([ONE, done("move", 2, 3, b"1;"), done("move", 4, 5, b"1;")], [], [b"1;"], []),
    "taken, and there": ([ONE, done("pop", 2, 3, b"1;")], [b"1;"], [], []),
    "there twice": ([ONE], [b"1;"], [b"1;"], []),
    "there, and never pushed": ([ONE], [b"1;", b"2;"], [], []),
    "taken before it was pushed": ([done("pop", 0, 1, b"1;"), done("push", 2, 3, b"1;")], [], [], []),
    "nothing while it was there": ([ONE, done("pop", 2, 3, None), done("pop", 4, 5, b"1;")], [], [], []),
    "nothing while it was there before a loss": (
        [ONE, done("pop", 3, 4, None), silent("pop", 5.5), done("pop", 6, 7, b"1;")], [], [], [POWER]
    ),
    "nothing to move while it was there": ([ONE, done("move", 2, 3, None), done("move", 4, 5, b"1;")], [], [b"1;"], []),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_what_may_have_become_of_elements_is_good(name: str) -> None:
    operations, one, other, losses = GOOD[name]
    assert check_elements(operations, losses, (one, other)) == []


@pytest.mark.parametrize("name", BAD)
def test_what_may_not_become_of_elements_is_found(name: str) -> None:
    operations, one, other, losses = BAD[name]
    assert check_elements(operations, losses, (one, other))


def test_what_was_refused_never_was() -> None:
    elements = Elements()
    elements.add(b"a:", ONE)
    elements.drop(b"a:", elements.add(b"a:", silent("pop", 2)))
    assert elements.operations == {b"a:": [ONE]}
