"""Whether what clients saw of one key has an order that explains it.

The search is that of Wing and Gong ("Testing and verifying concurrent objects", 1993) with Lowe's memory of what has
been tried ("Testing for linearizability", 2017): one operation after the other is put in its place, only ever one that
began before all others that are left had ended. An operation whose reply never came may stand anywhere behind its
beginning, or nowhere. A :class:`~sim.history.Loss` stands at its moment, and takes back as many of the operations in
front of it as it may.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

import attrs
from sim.history import UNKNOWN, Loss, Operation

__all__ = ["Verdict", "check_key"]

State: TypeAlias = bytes | None

#: Steps of one search before it is given up.
BUDGET: Final = 150_000
_BAD: Final = object()


@attrs.frozen
class Verdict:
    """``undecided``: the search was given up."""

    outcome: Literal["good", "bad", "undecided"]
    #: The longest order that was found, and what could not follow it.
    detail: str = ""


def apply(state: State, operation: Operation) -> State | object:
    """What the key holds after an operation; ``_BAD`` if its reply cannot be."""
    result = operation.result
    match operation.kind:
        case "get":
            return state if result in (state, UNKNOWN) else _BAD
        case "set":
            return operation.argument
        case "exchange":
            return operation.argument if result is UNKNOWN or result == state else _BAD
        case "delete":
            return None if result is UNKNOWN or result == int(state is not None) else _BAD
        case "append":
            longer = (state or b"") + operation.argument
            return longer if result is UNKNOWN or result == len(longer) else _BAD
        case "increment":
            number = int(state or b"0") + 1
            return b"%d" % number if result is UNKNOWN or result == number else _BAD
        case "clear":
            return None
        case "swap":
            return operation.argument if state == operation.seen else _BAD
    raise AssertionError(operation.kind)


def check_key(operations: Sequence[Operation], losses: Sequence[Loss] = (), initial: State = None) -> Verdict:
    """The verdict on all operations of one key. Sees nothing in replies that were never given."""
    search = _Search([one for one in operations if one.known or one.kind != "get"], sorted(losses, key=_moment))
    return search.run(initial)


def _moment(loss: Loss) -> float:
    return loss.at


def _of_account(operations: Sequence[Operation]) -> Sequence[Operation]:
    """Without those that were never answered, and that nobody can have seen: they may as well never have been."""
    if any(one.kind not in ("get", "set", "exchange", "swap", "clear") for one in operations):
        return operations
    seen = {one.result for one in operations if one.known and one.kind not in ("set", "swap", "clear")}
    seen |= {one.seen for one in operations if one.kind == "swap"}
    return [one for one in operations if one.known or one.argument in seen or one.kind == "clear"]


class _Search:
    def __init__(self, operations: list[Operation], losses: list[Loss]) -> None:
        self.operations = sorted(_of_account(operations), key=lambda one: one.begun)
        self.losses = losses
        self.count = len(self.operations)
        self.whole = sum(1 << place for place, one in enumerate(self.operations) if one.known)
        # From which loss on nothing can take an operation back any more.
        self.last_taker = [
            max((place + 1 for place, loss in enumerate(losses) if loss.may_take(one)), default=0)
            for one in self.operations
        ]
        # What is only ever appended to holds in the end what was there in the meantime, and more.
        appended = all(one.kind in ("get", "append") for one in self.operations)
        reads = [one for one in self.operations if one.known and one.kind == "get"]
        last = max(reads, key=lambda one: one.begun, default=None) if appended else None
        self.final = None if last is None or any(one.ended > last.begun for one in reads if one is not last) else last
        self.tried: set[tuple[int, int, State, tuple[tuple[int, State], ...]]] = set()
        self.steps = 0
        self.best: list[int] = []
        self.best_state: State = None

    def run(self, initial: State) -> Verdict:
        # Entries: what is done (a bit for each), losses passed, state, what can be taken back, order so far.
        stack: list[tuple[int, int, State, tuple[tuple[int, State], ...], tuple[int, ...]]] = [(0, 0, initial, (), ())]
        while stack:
            done, passed, state, tail, order = stack.pop()
            key = done, passed, state, tail
            if key in self.tried:
                continue
            self.tried.add(key)
            self.steps += 1
            if self.steps > BUDGET:
                return Verdict("undecided")
            if done & self.whole == self.whole and passed == len(self.losses):
                return Verdict("good")
            if len(order) >= len(self.best):
                self.best, self.best_state = list(order), state
            stack.extend(self._follow(done, passed, state, tail, order))
        return Verdict("bad", self._explain())

    def _follow(
        self, done: int, passed: int, state: State, tail: tuple[tuple[int, State], ...], order: tuple[int, ...]
    ) -> list[tuple[int, int, State, tuple[tuple[int, State], ...], tuple[int, ...]]]:
        """All that can come next; what is most likely last."""
        operations = self.operations
        left = [place for place in range(self.count) if not done >> place & 1]
        horizon = min((operations[place].ended for place in left), default=float("inf"))
        if passed < len(self.losses):
            horizon = min(horizon, self.losses[passed].at)
        found = []
        increment_tried = False
        for place in reversed(left):
            operation = operations[place]
            if operation.begun > horizon:
                continue
            if not operation.known and operation.kind == "increment":
                # Those without replies are all alike: one order of them is enough.
                if increment_tried or self._earlier_unknown_increment(left, place):
                    continue
                increment_tried = True
            after = apply(state, operation)
            if after is _BAD:
                continue
            if self.last_taker[place] > passed:
                longer = (*tail, (place, state))
            else:
                longer = ()
                if self.final is not None and not self.final_has(after, operation):
                    continue
            found.append((done | 1 << place, passed, after, longer, (*order, place)))
        # Known ones first.
        found.sort(key=lambda entry: self.operations[entry[4][-1]].known)
        if passed < len(self.losses):
            loss = self.losses[passed]
            if loss.at <= min((operations[place].ended for place in left), default=float("inf")):
                found[:0] = self._lose(done, passed, state, tail, order, loss)
        return found  # type: ignore[return-value]

    def final_has(self, state: State | object, operation: Operation) -> bool:
        """Whether what is in the key now, and cannot be taken back, is the beginning of what was there in the end."""
        if operation.begun > self.final.ended:  # type: ignore[union-attr]
            return True
        return state is None or (self.final.result or b"").startswith(state)  # type: ignore[union-attr, arg-type]

    def _earlier_unknown_increment(self, left: list[int], place: int) -> bool:
        return any(
            other < place and not self.operations[other].known and self.operations[other].kind == "increment"
            for other in left
        )

    def _lose(
        self,
        done: int,
        passed: int,
        state: State,
        tail: tuple[tuple[int, State], ...],
        order: tuple[int, ...],
        loss: Loss,
    ) -> list[tuple[int, int, State, tuple[tuple[int, State], ...], tuple[int, ...]]]:
        """What is left when a loss has taken nothing, one operation, two…; those that took least come last."""
        found = [(done, passed + 1, state, tail, order)]
        taken = len(tail)
        while taken and loss.may_take(self.operations[tail[taken - 1][0]]):
            taken -= 1
            found.append((done, passed + 1, tail[taken][1], tail[:taken], order))
        found.reverse()
        return found

    def _explain(self) -> str:
        operations = self.operations
        lines = [str(operations[place]) for place in self.best[-12:]]
        lines.append(f"then, with {self.best_state!r} in the key, none of these:")
        rest = [place for place in range(self.count) if place not in self.best]
        lines += [str(operations[place]) for place in rest[:6]]
        lines += [str(loss) for loss in self.losses]
        return "\n      ".join(lines)
