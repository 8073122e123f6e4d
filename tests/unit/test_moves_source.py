"""The source of a move, rule by rule: which event leads to which actions, and what must never come first."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from support.move_harness import (
    ENTRY,
    FLIPPED,
    FLIPPING,
    ORDER,
    QUIESCED,
    STAGED,
    M,
    P,
    source,
    states,
)

from kevynode.scope.ledger_records import MoveRecord, MoveRole, MoveState
from kevynode.scope.move_messages import (
    Aborted,
    Accepted,
    Activate,
    Activated,
    Ask,
    Await,
    NeedStage,
    Refused,
    Request,
    Sealed,
    Stage,
    StageEnd,
    Unknown,
)
from kevynode.scope.moves import (
    LINK_SECONDS,
    REPEAT_SECONDS,
    RETRY_SECONDS,
    AbortWanted,
    Capture,
    Captured,
    LedgerChanged,
    Linked,
    LinkLost,
    Outcome,
    Quiesce,
    Record,
    Recorded,
    RecordFailed,
    Refuse,
    Release,
    Report,
    Resume,
    Send,
    SetOwner,
    Settled,
    SettleSlice,
    Ship,
    Staged,
    Tick,
)
from kevynode.scope.source_move import SourceMove, SourceState, stray_at_source

# -- the source: up to the decision -----------------------------------------------------------------------------------


def test_the_way_of_a_move_at_its_source() -> None:
    move, actions = SourceMove.begin(ORDER, 0.0)
    assert actions == [Send(Request(M, 3, True, False))]
    move.handle(Linked(), 0.0)
    (record,) = move.handle(Accepted(M, 4, False), 0.0)
    assert isinstance(record, Record)
    assert states(record) == [MoveState.REQUESTED]
    assert move.handle(Recorded(), 0.0) == [Quiesce("b"), Capture()]
    (record,) = move.handle(Captured(7, 9, 5), 0.0)
    assert isinstance(record, Record)
    assert record.records == (MoveRecord(M, P, MoveRole.SOURCE, MoveState.QUIESCED, "b", 4, 7, 9, 5),)
    assert move.handle(Recorded(), 0.0) == [Send(Stage(M, 1, 7, 9)), Ship(1)]
    assert move.shipping
    assert move.handle(Staged(1, 3, 6, 5, 99, "aa"), 0.0) == [Send(StageEnd(M, 1, 3, 5, "aa"))]
    (record,) = move.handle(Sealed(M, 5, "aa"), 0.0)
    assert isinstance(record, Record)
    assert states(record) == [MoveState.SHIPPED]
    (record,) = move.handle(Recorded(), 0.0)
    assert isinstance(record, Record)
    assert states(record) == [MoveState.FLIPPED]
    before = move.decided
    assert move.handle(Recorded(), 0.0) == [Release(4, "b"), Send(Activate(M, 4, 7, 9))]
    assert (before, move.decided) == (False, True)
    (record,) = move.handle(Activated(M, 4), 0.0)
    assert isinstance(record, Record)
    assert states(record) == ["LedgerEntry", MoveState.ACTIVATED]
    outcome = Outcome("moved", "", 6, 5, 99, 2.0)
    assert move.handle(Recorded(), 2.0) == [
        Release(4, "b"), SetOwner(ENTRY), Resume(), SettleSlice(False), Report(outcome)
    ]  # fmt: skip
    assert move.busy
    (record,) = move.handle(Settled(), 2.0)
    assert isinstance(record, Record)
    assert states(record) == [MoveState.DONE]
    assert move.handle(Recorded(), 2.0) == []
    assert (move.state, move.busy) == (SourceState.DONE, False)


def test_a_target_that_follows_is_waited_for_at_the_tail() -> None:
    move, actions = source(Accepted(M, 4, True), Recorded(), Captured(7, 9, 5), Recorded())
    assert actions == [Send(Await(M, 7, 9, 5, ""))]
    assert move.handle(Sealed(M, 4, "bb"), 0.0) == []
    assert states(move.handle(Sealed(M, 5, "bb"), 0.0)[-1]) == [MoveState.SHIPPED]  # type: ignore[arg-type]


def test_a_following_target_that_lost_its_copy_gets_a_stage() -> None:
    _, actions = source(Accepted(M, 4, True), Recorded(), Captured(7, 9, 5), Recorded(), NeedStage(M, 0, "gone"))
    assert actions == [Send(Stage(M, 1, 7, 9)), Ship(1)]


@pytest.mark.parametrize("sealed", [Sealed(M, 4, "aa"), Sealed(M, 5, "bb")])
def test_another_count_or_digest_is_not_what_was_shipped(sealed: Sealed) -> None:
    assert source(*STAGED, sealed)[1] == []


def test_an_epoch_that_is_not_new_is_refused() -> None:
    move, actions = source(Accepted(M, 3, False))
    assert move.state is SourceState.FAILED
    assert isinstance(actions[-1], Report)


@pytest.mark.parametrize("length", range(2, 6))
@pytest.mark.parametrize("event", [AbortWanted(), LedgerChanged(4, "c"), Refused(M, False, "x"), Tick()], ids=repr)
def test_before_the_decision_anything_aborts_and_writes_resume_once_that_is_durable(length: int, event: Any) -> None:
    move, _ = source(*STAGED[:length])
    actions = move.handle(event, 31.0)
    if move.state in (SourceState.REQUESTING, SourceState.QUIESCING):
        # A record is being written: what was wanted counts once it is durable.
        if not isinstance(event, AbortWanted | LedgerChanged):
            return
        actions = move.handle(Recorded(), 31.0)
    (record,) = actions
    assert isinstance(record, Record)
    assert states(record) == [MoveState.ABORTED]
    assert move.handle(RecordFailed("disk"), 31.0)[0] == Report(move.outcome)  # type: ignore[arg-type]
    assert move.handle(Tick(), 31.0) == []
    assert move.handle(Tick(), 31.0 + RETRY_SECONDS) == [record]
    assert move.handle(Recorded(), 33.0) == [Resume(), Send(Aborted(M))]


def test_a_timeout_between_sealed_and_the_decision_aborts() -> None:
    move, _ = source(*STAGED)
    move.handle(Sealed(M, 5, "aa"), 29.0)
    assert states(move.handle(Recorded(), 30.0)[-1]) == [MoveState.ABORTED]  # type: ignore[arg-type]


def test_a_decision_that_may_not_be_in_the_file_keeps_the_prefix_quiesced() -> None:
    move, (record,) = source(*FLIPPING, RecordFailed("disk"))
    assert states(record) == [MoveState.ABORTED]
    assert move.handle(Ask(M), 0.0) == []
    move.handle(RecordFailed("disk"), 0.0)
    assert move.handle(Ask(M), 0.0) == []
    assert move.handle(Tick(), RETRY_SECONDS) == [record]
    assert Resume() in move.handle(Recorded(), 2.0)
    assert move.handle(Ask(M), 2.0) == [Send(Aborted(M))]


def test_who_calls_off_what_is_being_called_off_is_told_at_its_end_or_why_there_is_none() -> None:
    move, _ = source(*STAGED)
    move.handle(AbortWanted(), 0.0)
    # All who wait are told when that is recorded.
    assert move.handle(AbortWanted(), 0.0) == []
    (report,) = [action for action in move.handle(RecordFailed("disk"), 0.0) if isinstance(action, Report)]
    assert "writes stay refused until ABORTED is recorded" in report.outcome.reason
    assert move.handle(AbortWanted(), 0.0) == [Refuse(report.outcome.reason)]


def test_an_abort_that_comes_while_the_decision_is_written_is_too_late() -> None:
    move, _ = source(*FLIPPING)
    assert move.handle(AbortWanted(), 0.0) == []
    actions = move.handle(Recorded(), 0.0)
    assert isinstance(actions[1], Refuse)
    assert actions[-1] == Send(Activate(M, 4, 7, 9))


def test_what_was_lost_is_said_again() -> None:
    move, _ = source(*STAGED)
    assert move.handle(Tick(), REPEAT_SECONDS) == [Send(StageEnd(M, 1, 3, 5, "aa"))]
    assert move.handle(Tick(), REPEAT_SECONDS) == []
    assert move.handle(LinkLost(), 2.0) == []
    assert move.handle(Linked(), 2.0) == [Send(StageEnd(M, 1, 3, 5, "aa"))]
    assert move.handle(NeedStage(M, 1, "lost"), 2.0) == [Send(Stage(M, 2, 7, 9)), Ship(2)]
    assert move.handle(NeedStage(M, 1, "lost"), 2.0) == []
    # Not more often than once in a while, whatever the target says.
    move.handle(Staged(2, 3, 6, 5, 99, "aa"), 2.0)
    assert move.handle(NeedStage(M, 2, "lost"), 2.1) == []
    assert move.handle(Tick(), 3.0) == [Send(Stage(M, 3, 7, 9)), Ship(3)]


def test_a_target_that_is_gone_in_the_midst_of_a_slice_is_not_waited_for() -> None:
    move, _ = source(*QUIESCED)
    assert move.handle(LinkLost(), 1.0) == []
    assert move.wake_at <= 1.0 + LINK_SECONDS
    move.handle(Tick(), 1.0 + LINK_SECONDS - 0.1)
    assert move.state is SourceState.QUIESCED
    # A link that comes in time, and is lost again, begins a time of its own.
    assert move.handle(Linked(), 2.9) == [Send(Stage(M, 2, 7, 9)), Ship(2)]
    move.handle(LinkLost(), 3.0)
    move.handle(Tick(), 4.9)
    assert move.state is SourceState.QUIESCED
    assert move.wake_at <= 3.0 + LINK_SECONDS
    (record,) = move.handle(Tick(), 3.0 + LINK_SECONDS)
    assert isinstance(record, Record)
    assert states(record) == [MoveState.ABORTED]
    actions = move.handle(Recorded(), 5.0)
    assert actions[0] == Resume()
    assert isinstance(actions[-1], Report)
    assert actions[-1].outcome.reason == "the link to b was lost before it had the whole slice"


@pytest.mark.parametrize("following", [False, True])
def test_a_target_that_may_have_sealed_has_all_of_the_time(following: bool) -> None:
    move, _ = source(*((Accepted(M, 4, True), *QUIESCED[1:]) if following else STAGED))
    move.handle(LinkLost(), 1.0)
    move.handle(Tick(), 29.9)
    assert move.state is SourceState.QUIESCED
    (record,) = move.handle(Tick(), 30.0)
    assert isinstance(record, Record)
    assert states(record) == [MoveState.ABORTED]


# -- the source: behind the decision ----------------------------------------------------------------------------------


def test_no_timeout_and_nobody_takes_the_decision_back() -> None:
    move, _ = source(*FLIPPED)
    actions = move.handle(Tick(), 31.0)
    assert actions[-1] == Send(Activate(M, 4, 7, 9))
    assert isinstance(actions[0], Report)
    assert actions[0].outcome.kind == "in doubt"
    assert isinstance(move.handle(AbortWanted(), 32.0)[0], Refuse)
    assert move.handle(Refused(M, False, "unknown"), 32.0) == []
    assert move.state is SourceState.FLIPPED


def test_a_stage_that_was_lost_is_shipped_again_under_the_same_move() -> None:
    move, _ = source(*FLIPPED)
    assert move.handle(NeedStage(M, 0, "lost"), 5.0) == [Send(Stage(M, 2, 7, 9)), Ship(2)]
    assert move.handle(Staged(2, 3, 6, 5, 99, "aa"), 6.0) == [Send(StageEnd(M, 2, 3, 5, "aa"))]
    assert move.handle(Sealed(M, 5, "aa"), 6.0) == [Send(Activate(M, 4, 7, 9))]


def test_the_slice_goes_only_once_the_target_has_it() -> None:
    move, actions = source(*FLIPPED, Activated(M, 3))
    assert (move.state, actions) == (SourceState.FLIPPED, [])
    move, actions = source(*FLIPPED, Activated(M, 6), Recorded())
    assert SettleSlice(False) in actions
    _, actions = source(*FLIPPED, Activated(M, 4), Recorded(), order=attrs.evolve(ORDER, keeps_copy=True))
    assert SettleSlice(True) in actions


def test_a_prefix_that_came_back_by_a_higher_epoch_is_not_dropped() -> None:
    move, actions = source(*FLIPPED, LedgerChanged(5, "a"), Recorded())
    assert SettleSlice(True) in actions
    assert not any(isinstance(action, Release) for action in actions)
    assert move.busy


# -- the source: restarts ---------------------------------------------------------------------------------------------


def restarted(state: MoveState, epoch: int = 0, owner: str = "") -> tuple[SourceMove, list[Any]]:
    decision = MoveState.FLIPPED if state in (MoveState.ACTIVATED, MoveState.DONE) else None
    record = MoveRecord(M, P, MoveRole.SOURCE, state, "b", 4, 7, 9, 5, 99, "aa", decision=decision)
    move, actions = SourceMove.restart(record, ORDER, epoch, owner, 0.0)
    return move, list(actions)


@pytest.mark.parametrize("state", [MoveState.REQUESTED, MoveState.QUIESCED, MoveState.SHIPPED, MoveState.ABORTED])
def test_a_restart_before_the_decision_aborts_with_writes_refused_until_then(state: MoveState) -> None:
    move, (quiesce, record) = restarted(state)
    assert (quiesce, states(record)) == (Quiesce("b"), [MoveState.ABORTED])
    assert move.handle(Recorded(), 0.0)[:2] == [Resume(), Send(Aborted(M))]


def test_a_decision_that_was_read_is_made_durable_before_anybody_hears_of_it() -> None:
    move, (quiesce, record) = restarted(MoveState.FLIPPED)
    assert (quiesce, states(record)) == (Quiesce("b"), [MoveState.FLIPPED])
    assert move.handle(Ask(M), 0.0) == []
    # Somebody may have been told of it before: it is never taken back.
    assert move.handle(RecordFailed("disk"), 0.0) == []
    assert move.handle(Tick(), RETRY_SECONDS) == [record]
    assert move.handle(Recorded(), 2.0) == [Release(4, "b"), Send(Activate(M, 4, 7, 9))]
    move.handle(Linked(), 2.0)
    assert move.handle(NeedStage(M, 0, "lost"), 2.0) == [Send(Stage(M, 1, 7, 9)), Ship(1)]


def test_a_restart_while_dropping_drops_the_rest() -> None:
    move, (_, record) = restarted(MoveState.ACTIVATED)
    assert states(record) == ["LedgerEntry", MoveState.ACTIVATED]
    assert move.busy
    assert SettleSlice(False) in move.handle(Recorded(), 0.0)


def test_a_restart_after_the_prefix_came_back_drops_nothing() -> None:
    move, _ = restarted(MoveState.ACTIVATED, 6, "a")
    assert SettleSlice(True) in move.handle(Recorded(), 0.0)


def test_moves_that_are_over_still_answer() -> None:
    move, actions = restarted(MoveState.DONE)
    assert (move.state, actions) == (SourceState.DONE, [])
    assert move.handle(Ask(M), 0.0) == [Send(Activate(M, 4, 7, 9))]
    record = MoveRecord(M, P, MoveRole.SOURCE, MoveState.DONE, "b", 4, decision=MoveState.ABORTED)
    move, _ = SourceMove.restart(record, ORDER, 0, "", 0.0)
    assert move.handle(Ask(M), 0.0) == [Send(Aborted(M))]


def test_who_has_no_record_decides_nothing() -> None:
    assert stray_at_source(Ask(M)) == Unknown(M)
    assert stray_at_source(Sealed(M, 1, "")) == Unknown(M)
    assert stray_at_source(Activated(M, 4)) is None
