"""Whether elements of lists that many clients push and take were handed out once each, and none was lost.

What is asked is not in which order they went, but where each of them is: every element is pushed once, moved from the
first list to the second one once at most, and taken once at most. A take without a reply may have taken any element.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import attrs
from sim.history import UNKNOWN, Dispute, Loss, Operation

__all__ = ["Elements", "check_elements"]

#: Operations that take an element from where it is.
TAKES: Final = frozenset({"pop", "move", "either", "drain"})


@attrs.define
class Elements:
    """What was done to the two lists under each prefix, and what they hold at rest: elements of one, and the other."""

    operations: dict[bytes, list[Operation]] = attrs.Factory(dict)
    rest: dict[bytes, tuple[list[bytes], list[bytes]]] = attrs.Factory(dict)

    def add(self, prefix: bytes, operation: Operation) -> Operation:
        """An operation that begins."""
        self.operations.setdefault(prefix, []).append(operation)
        return operation

    def settle(self, disputes: Sequence[Dispute]) -> None:
        """Leave out what was answered by those who were not to take writes."""
        for dispute in disputes:
            for prefix, operations in self.operations.items():
                self.operations[prefix] = dispute.left_over(operations)

    def drop(self, prefix: bytes, operation: Operation) -> None:
        """It was refused, so it never was."""
        self.operations[prefix].remove(operation)


@attrs.define(eq=False)
class _Life:
    """One element: who pushed it, who moved it, and who took it away; where it is at rest."""

    push: Operation
    moves: list[Operation] = attrs.Factory(list)
    takes: list[Operation] = attrs.Factory(list)
    rests: int = 0

    def left_first_list(self) -> float:
        """When an operation that took it from the first list began, if it is known that it was there until then."""
        leaves = [*self.moves, *(one for one in self.takes if one.kind == "pop")]
        return min((one.begun for one in leaves), default=-math.inf)


def check_elements(
    operations: Sequence[Operation], losses: Sequence[Loss], rest: tuple[Sequence[bytes], Sequence[bytes]]
) -> list[str]:
    """What is wrong with what became of the elements under one prefix, as lines for people."""
    lives = {one.argument: _Life(one) for one in operations if one.kind == "push"}
    found: list[str] = []
    for operation in operations:
        token = operation.result
        if operation.kind not in TAKES or token is UNKNOWN or token is None:
            continue
        life = lives.get(token)
        if life is None or operation.ended < life.push.begun:
            found.append(f"nobody had pushed what was taken: {operation}")
        else:
            (life.moves if operation.kind == "move" else life.takes).append(operation)
    for token in (*rest[0], *rest[1]):
        if token in lives:
            lives[token].rests += 1
        else:
            found.append(f"nobody has pushed {token!r}, which is there at rest")
    for token, life in lives.items():
        found += _check_life(token, life, losses)
    found += _check_missing(operations, lives, losses)
    found += _check_empty(operations, lives, losses)
    return found


def _check_life(token: bytes, life: _Life, losses: Sequence[Loss]) -> list[str]:
    """Nothing happens twice to an element, unless the first time was lost since."""
    found = []
    for done in (life.moves, life.takes):
        for one, next_one in pairwise(done):
            if not _may_be_lost(one, losses, next_one.ended) and not _may_be_lost(next_one, losses, one.ended):
                found.append(f"{token!r} was handed out twice: {one}, and {next_one}")
    if life.rests > 1:
        found.append(f"{token!r} is there {life.rests} times at rest")
    if life.rests and life.takes and not any(_may_be_lost(one, losses, math.inf) for one in life.takes):
        found.append(f"{token!r} is there at rest, and was taken: {life.takes[-1]}")
    return found


def _may_be_lost(operation: Operation, losses: Sequence[Loss], before: float) -> bool:
    """Whether a loss may have taken an operation back before some moment."""
    return any(operation.begun <= loss.at <= before and loss.may_take(operation) for loss in losses)


def _check_missing(operations: Sequence[Operation], lives: dict[bytes, _Life], losses: Sequence[Loss]) -> list[str]:
    """What was pushed and is nowhere was taken by somebody who has not heard of it."""
    silent = [one for one in operations if one.kind in TAKES and not one.known]
    missing = [
        token
        for token, life in lives.items()
        if life.push.known and not life.takes and not life.rests and not _may_be_lost(life.push, losses, math.inf)
    ]
    if len(missing) <= len(silent):
        return []
    return [f"{len(missing)} elements are gone, {missing[:4]} first, and {len(silent)} takes were not answered"]


def _check_empty(operations: Sequence[Operation], lives: dict[bytes, _Life], losses: Sequence[Loss]) -> list[str]:
    """Who was told that there is nothing was not told so while there was something all the time.

    A take that was not answered may have taken it, and a loss may have brought it back later.
    """
    silent = min((one.begun for one in operations if one.kind in TAKES and not one.known), default=math.inf)
    known = sorted((life for life in lives.values() if life.push.known), key=lambda life: life.push.ended)
    found = []
    for operation in operations:
        if operation.kind not in ("pop", "move", "either") or operation.result is not None:
            continue
        for life in known:
            if life.push.ended > operation.begun:
                break
            left = life.left_first_list()
            sure_until = left if silent < operation.ended else operation.ended
            if left > operation.ended and not any(life.push.begun <= loss.at <= sure_until for loss in losses):
                found.append(f"{life.push.argument!r} was there, from {life.push.ended:.4f} on: {operation}")
                break
    return found
