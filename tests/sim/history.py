"""What clients did and were told, and which of it may have been lost since by the rules."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final, Literal

import attrs

__all__ = ["UNKNOWN", "Dispute", "History", "Loss", "Operation"]


class _Unknown:
    def __repr__(self) -> str:
        return "?"


#: The outcome of an operation whose reply never came.
UNKNOWN: Final = _Unknown()

Kind = Literal[
    "set", "exchange", "get", "delete", "append", "increment", "swap", "clear", "push", "pop", "move", "either", "drain"
]


@attrs.define(eq=False)
class Operation:
    """One command on one key, sent to whoever writes it; times are the simulation's seconds."""

    client: str
    key: bytes
    kind: Kind
    argument: bytes
    begun: float
    ended: float = math.inf
    result: Any = UNKNOWN
    #: So many copies have said that they have it.
    copies: int = 0
    #: Of a swap: what the key has to hold for it.
    seen: bytes | None = None
    #: Who was asked.
    node: str = ""

    @property
    def known(self) -> bool:
        """Whether the reply came."""
        return self.result is not UNKNOWN

    def __str__(self) -> str:
        end = f"{self.ended:.4f}" if self.known else "…"
        return f"[{self.begun:.4f} {end}] {self.client} {self.kind} {self.key!r} {self.argument!r} -> {self.result!r}"


@attrs.define
class Dispute:
    """A node took writes while another one was to, from a moment on and until it followed that one, or ended."""

    node: str
    began: float
    ended: float = math.inf

    def left_over(self, operations: Iterable[Operation]) -> list[Operation]:
        """The operations that count still: what began there in the meantime is on a branch that nobody goes on with.

        Of what had begun before nobody knows; so that is made into what was not answered.
        """
        found = []
        for operation in operations:
            concerned = operation.node == self.node and operation.begun <= self.ended and operation.known
            if concerned and operation.ended >= self.began:
                if operation.begun >= self.began:
                    continue
                operation.result, operation.ended, operation.copies = UNKNOWN, math.inf, 0
            found.append(operation)
        return found


@attrs.frozen
class Loss:
    """At a moment the latest operations under a prefix may have been taken back, in the order opposite to theirs.

    Those whose reply came after ``since``, that is, and those whose reply did not come. ``only_reads``: nothing that
    writes and was acknowledged is among them; and nothing of that kind that began after ``until``. But what another
    node answered before ``inherited`` may be. ``safe_copies``: what so many copies have is not among them.
    """

    at: float
    prefix: bytes
    since: float
    only_reads: bool = False
    until: float = math.inf
    inherited: float = -math.inf
    safe_copies: int = 1 << 30
    #: Copies count for operations that began after that.
    steady_since: float = -math.inf
    why: str = ""

    def may_take(self, operation: Operation) -> bool:
        """Whether an operation may be among what is lost."""
        if not operation.known:
            return True
        if operation.ended <= self.since:
            return False
        if operation.ended <= self.inherited:
            return True
        if operation.copies >= self.safe_copies and operation.begun >= self.steady_since:
            return False
        return operation.kind == "get" or (not self.only_reads and operation.begun <= self.until)

    def __str__(self) -> str:
        until = ", of reads" if self.only_reads else "" if self.until == math.inf else f" until {self.until:.4f}"
        return f"[{self.at:.4f}] loss under {self.prefix!r} since {self.since:.4f}{until}: {self.why}"


class History:
    """Operations by key, and losses."""

    def __init__(self) -> None:
        self.operations: dict[bytes, list[Operation]] = {}
        self.losses: list[Loss] = []
        self.disputes: list[Dispute] = []
        #: When everything under a prefix was emptied, or may have been.
        self.clearings: list[Operation] = []

    def cleared(self, prefix: bytes, since: float = -math.inf) -> bool:
        """Whether what is under a prefix may have been emptied since a moment."""
        return any(prefix.startswith(one.key) and one.ended >= since for one in self.clearings)

    def disputed(self, since: float) -> bool:
        """Whether there were two who took writes, since a moment."""
        return any(dispute.ended >= since for dispute in self.disputes)

    def settle(self) -> None:
        """Leave out what was answered by those who were not to take writes."""
        for dispute in self.disputes:
            for key, operations in self.operations.items():
                self.operations[key] = dispute.left_over(operations)

    def add(self, operation: Operation) -> Operation:
        """An operation that begins."""
        self.operations.setdefault(operation.key, []).append(operation)
        return operation

    def drop(self, operation: Operation) -> None:
        """It was refused, so it never was."""
        self.operations[operation.key].remove(operation)

    def losses_of(self, key: bytes) -> list[Loss]:
        """What may have been lost of a key, in order."""
        return [loss for loss in self.losses if key.startswith(loss.prefix)]
