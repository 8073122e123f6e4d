"""The tables of both machines: every event has its entry in every state, and is taken at every place."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from support.move_harness import (
    FLIPPED,
    PLACING,
    QUIESCED,
    SEALED,
    STAGED,
    M,
    source,
    target,
)

from kevynode.scope import source_move, target_move
from kevynode.scope.move_machine import complete
from kevynode.scope.move_messages import (
    Aborted,
    Accepted,
    Activate,
    Activated,
    Ask,
    Await,
    Chunk,
    NeedStage,
    Purged,
    Refused,
    Request,
    Sealed,
    Stage,
    StageEnd,
    Unknown,
)
from kevynode.scope.moves import (
    AbortWanted,
    Captured,
    Checked,
    Cleared,
    LedgerChanged,
    Linked,
    LinkLost,
    Placed,
    PlacingFailed,
    Record,
    Recorded,
    RecordFailed,
    Resolve,
    Settled,
    ShipFailed,
    StageBroken,
    Staged,
    Tick,
)
from kevynode.scope.source_move import SourceState
from kevynode.scope.target_move import TargetState

#: Any event of each kind.
EXAMPLES: list[Any] = [
    *(Request(M, 3, True, False), Stage(M, 1, 7, 9), Chunk(M, 1, 0, b"x"), StageEnd(M, 1, 1, 5, "aa")),
    *(Await(M, 7, 9, 5, ""), Activate(M, 4, 7, 9), Aborted(M), Unknown(M), Accepted(M, 4, False)),
    *(Refused(M, False, "no"), NeedStage(M, 0, "lost"), Sealed(M, 5, "aa"), Activated(M, 4), Purged(M), Ask(M)),
    *(Captured(7, 9, 5), Staged(1, 1, 5, 5, 99, "aa"), ShipFailed(1, "no"), Settled(), Recorded(), RecordFailed("no")),
    *(Checked(1, 5, "aa"), StageBroken("no"), Placed(), PlacingFailed("no", True), Cleared(), Linked(), LinkLost()),
    *(Tick(), AbortWanted(), Resolve(True), LedgerChanged(9, "c")),
]


# -- the tables -------------------------------------------------------------------------------------------------------


def test_every_state_has_an_entry_for_every_event() -> None:
    assert set(source_move.TRANSITIONS) == set(SourceState)
    assert set(target_move.TRANSITIONS) == set(TargetState)
    for table, events in [(source_move.TRANSITIONS, source_move.EVENTS), (target_move.TRANSITIONS, target_move.EVENTS)]:
        assert all(set(row) == set(events) for row in table.values())  # type: ignore[attr-defined]


def test_a_row_must_be_complete() -> None:
    assert complete((Tick, Linked), {Tick: 1}, (Linked,)) == {Tick: 1, Linked: None}
    with pytest.raises(ValueError, match="each event once"):
        complete((Tick, Linked), {Tick: 1})
    with pytest.raises(ValueError, match="each event once"):
        complete((Tick, Linked), {Tick: 1, Linked: 1}, (Linked,))


WAYS: list[tuple[Any, ...]] = [QUIESCED, (*FLIPPED, Activated(M, 4), Recorded(), Settled(), Recorded())]
WAYS += [(*STAGED, AbortWanted(), Recorded(), Purged(M), Recorded()), (Refused(M, False, "no"),)]
TARGET_WAYS: list[tuple[Any, ...]] = [SEALED, (*PLACING, Placed(), Recorded(), Settled(), Recorded())]
TARGET_WAYS += [(*SEALED, Aborted(M), Recorded(), Cleared(), Recorded())]


@pytest.mark.parametrize("way", range(len(WAYS)))
def test_any_event_at_any_place_is_taken_by_the_source(way: int) -> None:
    for length in range(len(WAYS[way]) + 1):
        for event in EXAMPLES:
            if type(event) not in source_move.EVENTS:
                continue
            move, actions = source(*WAYS[way][:length], event, now=1.0)
            assert not any(isinstance(action, Record) for action in actions[:-1])
            assert move.wake_at >= 0
            assert move.status(1.0).state == move.state.value


@pytest.mark.parametrize("way", range(len(TARGET_WAYS)))
def test_any_event_at_any_place_is_taken_by_the_target(way: int) -> None:
    for length in range(len(TARGET_WAYS[way]) + 1):
        for event in EXAMPLES:
            if type(event) not in target_move.EVENTS:
                continue
            move, actions = target(*TARGET_WAYS[way][:length], event, now=1.0)
            assert not any(isinstance(action, Record) for action in actions[:-1])
            assert move.wake_at >= 0
            assert move.status(1.0).state == move.state.value


@pytest.mark.parametrize("message", [each for each in EXAMPLES if hasattr(each, "move_id")])
def test_a_message_of_another_move_changes_nothing(message: Any) -> None:
    other = attrs.evolve(message, move_id="m0")
    for move in (source(*STAGED)[0], target(*SEALED)[0]):
        before = move.state
        assert (move.handle(other, 1.0), move.state) == ([], before)
