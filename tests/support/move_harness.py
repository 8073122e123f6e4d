"""Machines of a move at any place of their way, for tests that look at single steps."""

from __future__ import annotations

from typing import Any

from kevynode.scope.ledger import LedgerEntry
from kevynode.scope.ledger_records import MoveRecord, MoveState
from kevynode.scope.move_messages import (
    Accepted,
    Activate,
    Chunk,
    Refused,
    Request,
    Sealed,
    Stage,
    StageEnd,
)
from kevynode.scope.moves import (
    Captured,
    Checked,
    Linked,
    Record,
    Recorded,
    Staged,
)
from kevynode.scope.source_move import MoveOrder, SourceMove
from kevynode.scope.target_move import TargetFacts, TargetMove, consider

M = "m1"
P = b"app:"
ENTRY = LedgerEntry(P, "b", 4, M)
ORDER = MoveOrder(M, P, "a", "b", timeout=30.0, floor=3)
FACTS = TargetFacts(
    node_id="b",
    source="a",
    prefix=P,
    is_peer=True,
    owner="a",
    epoch=2,
    loading=False,
    dropping=False,
    persistent=True,
    following=False,
    highest_epoch=2,
)


def states(records: Record) -> list[MoveState | str]:
    """What a Record writes: the state of a move record, and the names of the others."""
    return [each.state if isinstance(each, MoveRecord) else type(each).__name__ for each in records.records]


def source(*events: Any, order: MoveOrder = ORDER, now: float = 0.0) -> tuple[SourceMove, list[Any]]:
    """A source after these events, and what the last of them brought."""
    move, actions = SourceMove.begin(order, 0.0)
    move.handle(Linked(), 0.0)
    for event in events:
        actions = move.handle(event, now)
    return move, list(actions)


def target(*events: Any, facts: TargetFacts = FACTS, now: float = 0.0) -> tuple[TargetMove, list[Any]]:
    """A target after these events, and what the last of them brought."""
    made = consider(Request(M, 3, True, False), facts, 0.0)
    assert not isinstance(made, Refused)
    move, actions = made
    for event in events:
        actions = move.handle(event, now)
    return move, list(actions)


QUIESCED = (Accepted(M, 4, False), Recorded(), Captured(7, 9, 5), Recorded())
STAGED = (*QUIESCED, Staged(1, 3, 6, 5, 99, "aa"))
FLIPPING = (*STAGED, Sealed(M, 5, "aa"), Recorded())
FLIPPED = (*FLIPPING, Recorded())

STAGING = (Recorded(), Stage(M, 1, 7, 9), Chunk(M, 1, 0, b"x"), Chunk(M, 1, 1, b"y"))
SEALED = (*STAGING, StageEnd(M, 1, 2, 5, "aa"), Checked(2, 5, "aa"), Recorded())
PLACING = (*SEALED, Activate(M, 4, 7, 9))
