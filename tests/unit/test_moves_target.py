"""The target of a move, rule by rule: what it keeps, what lets it drop that, and when it opens."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from support.move_harness import (
    ENTRY,
    FACTS,
    PLACING,
    QUIESCED,
    SEALED,
    STAGING,
    M,
    P,
    source,
    states,
    target,
)

from kevynode.scope.ledger import LedgerEntry
from kevynode.scope.ledger_records import AgreedEpoch, MoveRecord, MoveRole, MoveState
from kevynode.scope.move_machine import remark
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
    ASK_SECONDS,
    QUIET_SECONDS,
    RETRY_SECONDS,
    Acquire,
    CheckCopy,
    Checked,
    CheckStage,
    Cleared,
    Discard,
    LedgerChanged,
    Linked,
    OpenStage,
    Outcome,
    Place,
    Placed,
    PlacingFailed,
    Quiesce,
    Record,
    Recorded,
    RecordFailed,
    Refuse,
    Report,
    Resolve,
    Resume,
    Send,
    SetOwner,
    Settled,
    ShipFailed,
    StageBroken,
    Tick,
    WriteChunk,
)
from kevynode.scope.target_move import TargetMove, TargetState, consider, stray_at_target

# -- the target -------------------------------------------------------------------------------------------------------


def test_the_way_of_a_move_at_its_target() -> None:
    made = consider(Request(M, 3, True, False), FACTS, 0.0)
    assert not isinstance(made, Refused)
    move, (record,) = made
    assert isinstance(record, Record)
    assert states(record) == ["AgreedEpoch", MoveState.AGREED]
    assert record.records[0] == AgreedEpoch(P, 4, M)
    assert move.handle(Recorded(), 0.0) == [Send(Accepted(M, 4, False))]
    assert move.handle(Stage(M, 1, 7, 9), 0.0) == [Quiesce("b"), OpenStage(1)]
    assert move.handle(Chunk(M, 1, 0, b"x"), 0.0) == [WriteChunk(b"x")]
    assert move.handle(Chunk(M, 1, 0, b"x"), 0.0) == []
    assert move.handle(Chunk(M, 1, 1, b"y"), 0.0) == [WriteChunk(b"y")]
    assert move.handle(StageEnd(M, 1, 2, 5, "aa"), 0.0) == [CheckStage(2)]
    (record,) = move.handle(Checked(2, 5, "aa"), 0.0)
    assert isinstance(record, Record)
    assert states(record) == [MoveState.SEALED]
    assert move.handle(Recorded(), 0.0) == [Send(Sealed(M, 5, "aa"))]
    assert move.handle(Activate(M, 4, 7, 9), 0.0) == [Place(False)]
    (record,) = move.handle(Placed(), 0.0)
    assert isinstance(record, Record)
    assert states(record) == ["LedgerEntry", MoveState.ACTIVATED]
    assert record.records[0] == ENTRY
    assert move.handle(Recorded(), 0.0) == [
        Acquire(4, 7, 9), SetOwner(ENTRY), Resume(), Send(Activated(M, 4)), Report(Outcome("moved", keys=5))
    ]  # fmt: skip
    assert states(move.handle(Settled(), 0.0)[-1]) == [MoveState.DONE]  # type: ignore[arg-type]
    assert move.handle(Recorded(), 0.0) == []
    assert move.handle(Activate(M, 4, 7, 9), 0.0) == [Send(Activated(M, 4))]


def test_a_live_copy_is_waited_for_and_kept() -> None:
    following = attrs.evolve(FACTS, following=True)
    move, actions = target(Recorded(), facts=following)
    assert actions == [Send(Accepted(M, 4, True))]
    assert move.handle(Await(M, 7, 9, 5, ""), 0.0) == [Quiesce("b"), CheckCopy(1, 7, 9, False)]
    assert move.handle(Await(M, 7, 9, 5, ""), 0.0) == []
    (record,) = move.handle(Checked(1, 5, ""), 0.0)
    assert isinstance(record, Record)
    assert isinstance(record.records[0], MoveRecord)
    assert record.records[0].following
    move.handle(Recorded(), 0.0)
    assert move.handle(Activate(M, 4, 7, 9), 0.0) == [Place(True)]
    assert move.handle(PlacingFailed("the copy was replaced", True), 0.0) == [
        Send(NeedStage(M, 0, "the copy was replaced"))
    ]
    assert move.handle(Stage(M, 1, 7, 9), 0.0) == [Quiesce("b"), OpenStage(1)]


@pytest.mark.parametrize(
    ("changes", "reason", "again"),
    [
        ({"is_peer": False}, "a is no declared peer of b", False),
        ({"owner": None}, "the prefix is not a declared scope there", False),
        ({"owner": "c"}, "by what it knows c owns the prefix", True),
        ({"owner": "c", "epoch": 3}, "by what it knows c owns the prefix", False),
        ({"loading": True}, "it is loading its data", True),
        ({"dropping": True}, "it is still cleaning up what moved away", True),
        ({"other_move": "m0"}, "it has not finished the move m0 of the prefix", True),
        ({"persistent": False}, "it keeps no files, and the source does; FORCE moves the prefix all the same", False),
        ({"disk_trouble": "No space left on device"}, "it cannot write its files: No space left on device", False),
        ({"highest_epoch": 2**53 - 1}, f"there is no epoch above {2**53 - 1}", False),
    ],
)
def test_why_a_target_refuses(changes: dict[str, Any], reason: str, again: bool) -> None:
    assert consider(Request(M, 3, True, False), attrs.evolve(FACTS, **changes), 0.0) == Refused(M, again, reason)


def test_force_and_a_source_without_files_make_a_target_without_files_good_enough() -> None:
    bare = attrs.evolve(FACTS, persistent=False)
    assert not isinstance(consider(Request(M, 3, True, True), bare, 0.0), Refused)
    assert not isinstance(consider(Request(M, 3, False, False), bare, 0.0), Refused)


def test_the_epoch_is_above_everything_that_both_know() -> None:
    for floor, highest in [(3, 8), (8, 3)]:
        made = consider(Request(M, floor, True, False), attrs.evolve(FACTS, highest_epoch=highest), 0.0)
        assert not isinstance(made, Refused)
        assert made[0].epoch == 9


@pytest.mark.parametrize(
    "events",
    [
        (Chunk(M, 1, 3, b"z"),),
        (StageEnd(M, 1, 3, 5, "aa"),),
        (StageBroken("no room"),),
        (StageEnd(M, 1, 2, 5, "aa"), Checked(2, 4, "aa")),
        (StageEnd(M, 1, 2, 5, "aa"), Checked(2, 5, "bb")),
        (Activate(M, 4, 7, 9),),
    ],
)
def test_a_stage_that_is_not_whole_is_never_sealed(events: tuple[Any, ...]) -> None:
    move, actions = target(*STAGING, *events)
    assert move.state is TargetState.AGREED
    assert isinstance(actions[-1].message, NeedStage)
    assert target(*STAGING, *events, StageEnd(M, 1, 2, 5, "aa"))[0].state is TargetState.AGREED


def test_a_check_of_an_older_stage_says_nothing_about_a_newer_one() -> None:
    move, _ = target(*STAGING, StageEnd(M, 1, 2, 5, "aa"), Stage(M, 2, 7, 9), StageEnd(M, 2, 0, 5, "aa"))
    assert move.state is TargetState.CHECKING
    assert move.handle(Checked(2, 5, "aa"), 0.0) == []


def test_silence_and_unknown_keep_what_is_sealed() -> None:
    move, _ = target(*SEALED)
    dials = [move.wants_link]
    assert move.handle(Tick(), ASK_SECONDS) == [Send(Ask(M))]
    dials.append(move.wants_link)
    assert dials == [False, True]
    assert move.in_doubt(ASK_SECONDS)
    assert move.handle(Unknown(M), 3.0) == []
    assert move.handle(Tick(), 1000.0) == [Send(Ask(M))]
    assert move.state is TargetState.SEALED
    assert move.handle(Linked(), 1000.0) == [Send(Ask(M))]


def test_only_an_abort_or_a_higher_epoch_elsewhere_purges() -> None:
    for event in (Aborted(M), LedgerChanged(5, "c"), LedgerChanged(4, "c")):
        move, (record,) = target(*SEALED, event)
        assert states(record) == [MoveState.ABORTED]
        assert move.handle(Recorded(), 0.0)[:3] == [Discard(), Resume(), Send(Purged(M))]
        assert states(move.handle(Cleared(), 0.0)[-1]) == [MoveState.DONE]  # type: ignore[arg-type]
        move.handle(Recorded(), 0.0)
        assert move.handle(Aborted(M), 0.0) == [Send(Purged(M))]
    for event in (LedgerChanged(3, "c"), LedgerChanged(4, "b")):
        assert target(*SEALED, event)[1] == []


def test_what_is_not_sealed_is_nobodys() -> None:
    for events in (STAGING[:1], STAGING, (*STAGING, StageEnd(M, 1, 2, 5, "aa"))):
        assert target(*events, Unknown(M))[0].state is TargetState.DISCARDING


def test_activate_at_or_below_a_known_epoch_is_done() -> None:
    # The ledger changed while SEALED was being written.
    move, (record,) = target(*SEALED[:-1], LedgerChanged(6, "b"), Recorded())
    assert states(record) == [MoveState.ABORTED]
    for event in (Recorded(), Cleared(), Recorded()):
        move.handle(event, 0.0)
    assert move.handle(Activate(M, 4, 7, 9), 0.0) == [Send(Activated(M, 6))]
    assert stray_at_target(Activate(M, 4, 7, 9), 4, has_data=True) == Activated(M, 4)
    assert stray_at_target(Activate(M, 4, 7, 9), 4, has_data=False) is None
    assert stray_at_target(Activate(M, 4, 7, 9), 3, has_data=True) is None
    assert stray_at_target(StageEnd(M, 1, 1, 1, ""), 0, True) == Refused(M, False, "it has no record of the move")
    assert stray_at_target(Aborted(M), 0, has_data=True) == Purged(M)
    assert stray_at_target(Unknown(M), 0, has_data=True) is None


def test_data_first_and_ledger_second() -> None:
    move, _ = target(*PLACING)
    assert move.handle(PlacingFailed("disk", False), 0.0) == []
    assert move.handle(Tick(), RETRY_SECONDS) == [Place(False)]
    (record,) = move.handle(Placed(), 2.0)
    assert move.handle(RecordFailed("disk"), 2.0) == []
    assert move.handle(Tick(), 2.0 + RETRY_SECONDS) == [record]
    assert Resume() in move.handle(Recorded(), 4.0)


def test_a_higher_epoch_that_comes_while_placing_keeps_it_closed() -> None:
    move, _ = target(*PLACING)
    assert move.handle(LedgerChanged(5, "c"), 0.0) == []
    assert states(move.handle(Placed(), 0.0)[-1]) == [MoveState.ABORTED]  # type: ignore[arg-type]


# -- the target: an operator, and restarts ----------------------------------------------------------------------------


def test_an_operator_commits_two_epochs_above_and_that_is_recorded_first() -> None:
    move, actions = target(*SEALED, Resolve(True), now=1.0)
    assert isinstance(actions[0], Refuse)
    (record,) = move.handle(Resolve(True), 1.0 + QUIET_SECONDS)
    assert isinstance(record, Record)
    assert record.records[0] == AgreedEpoch(P, 6, M)
    assert isinstance(record.records[1], MoveRecord)
    assert (record.records[1].state, record.records[1].decided) == (MoveState.SEALED, MoveState.FLIPPED)
    assert move.handle(Recorded(), 12.0) == [Place(False)]
    (record,) = move.handle(Placed(), 12.0)
    assert isinstance(record, Record)
    assert record.records[0] == LedgerEntry(P, "b", 6, M)
    move.handle(Recorded(), 12.0)
    # The source that comes back is told that it has been settled.
    assert move.handle(Activate(M, 4, 7, 9), 13.0) == [Send(Activated(M, 6))]


def test_a_commit_that_cannot_be_recorded_changes_nothing() -> None:
    move, actions = target(*SEALED)
    actions = move.handle(Resolve(True), QUIET_SECONDS)
    actions = move.handle(RecordFailed("disk"), QUIET_SECONDS)
    assert isinstance(actions[0], Refuse)
    assert (move.state, move.epoch) == (TargetState.SEALED, 4)


def test_an_operator_may_decide_at_once_where_the_source_knows_nothing() -> None:
    move, _ = target(*SEALED, Unknown(M))
    assert states(move.handle(Resolve(False), 0.1)[-1]) == [MoveState.ABORTED]  # type: ignore[arg-type]


def test_nothing_is_committed_while_a_source_without_records_is_alive() -> None:
    """It has lost them with its disk, gets its data back from the copies, and takes writes."""
    move, _ = target(*SEALED, Unknown(M))
    (refused,) = move.handle(Resolve(True), QUIET_SECONDS - 0.1)
    assert isinstance(refused, Refuse)
    assert refused.reason.startswith("a answers, and has no record of the move: ")
    (record,) = move.handle(Resolve(True), QUIET_SECONDS)
    assert isinstance(record, Record)
    assert states(record) == ["AgreedEpoch", MoveState.SEALED]


def test_half_a_stage_cannot_be_committed() -> None:
    move, actions = target(*STAGING, Resolve(True), now=99.0)
    assert isinstance(actions[0], Refuse)
    assert states(move.handle(Resolve(False), 99.0)[-1]) == [MoveState.ABORTED]  # type: ignore[arg-type]


def test_what_an_operator_aborted_begins_anew_if_the_source_had_flipped() -> None:
    move, _ = target(*SEALED, Unknown(M), Resolve(False), Recorded(), Cleared(), Recorded())
    (record,) = move.handle(Activate(M, 4, 7, 9), 1.0)
    assert isinstance(record, Record)
    assert states(record) == ["AgreedEpoch", MoveState.AGREED]
    assert move.handle(Recorded(), 1.0) == [Send(NeedStage(M, 0, "the data are not here"))]


def test_a_target_that_lost_its_disk_gets_the_stage_again() -> None:
    move, (record,) = TargetMove.recover(Activate(M, 4, 7, 9), P, "b", "a", 0.0)
    assert isinstance(record, Record)
    assert states(record) == ["AgreedEpoch", MoveState.AGREED]
    assert move.handle(Recorded(), 0.0) == [Send(NeedStage(M, 0, "the data are not here"))]


def target_restarted(
    state: MoveState, decision: MoveState | None = None, epoch: int = 4
) -> tuple[TargetMove, list[Any]]:
    record = MoveRecord(M, P, MoveRole.TARGET, state, "a", epoch, 7, 9, 5, 0, "aa", decision=decision)
    move, actions = TargetMove.restart(record, "b", False, 0, "", 0.0)
    return move, list(actions)


def test_restarts_of_a_target() -> None:
    move, (record,) = target_restarted(MoveState.AGREED)
    assert states(record) == ["AgreedEpoch", MoveState.AGREED]
    move, (quiesce, record) = target_restarted(MoveState.SEALED)
    assert (quiesce, states(record)) == (Quiesce("b"), [MoveState.SEALED])
    assert move.handle(Recorded(), 0.0) == [Send(Sealed(M, 5, "aa")), Send(Ask(M))]
    move, (quiesce, record) = target_restarted(MoveState.SEALED, MoveState.FLIPPED, 6)
    assert move.handle(RecordFailed("disk"), 0.0) == []
    assert move.handle(Tick(), RETRY_SECONDS) == [record]
    assert move.handle(Recorded(), 0.0) == [Place(False)]
    move, (quiesce, record) = target_restarted(MoveState.ACTIVATED, MoveState.FLIPPED)
    assert states(record) == ["LedgerEntry", MoveState.ACTIVATED]
    assert move.handle(Recorded(), 0.0)[:3] == [Acquire(4, 7, 9), SetOwner(ENTRY), Resume()]
    move, (record,) = target_restarted(MoveState.ABORTED, MoveState.ABORTED)
    assert Discard() in move.handle(Recorded(), 0.0)
    assert target_restarted(MoveState.DONE, MoveState.FLIPPED)[0].state is TargetState.ACTIVE
    assert target_restarted(MoveState.DONE, MoveState.ABORTED)[0].state is TargetState.DISCARDED


def test_a_commit_whose_stage_is_lost_goes_back_to_the_epoch_of_the_move() -> None:
    move, _ = target_restarted(MoveState.SEALED, MoveState.FLIPPED, 6)
    move.handle(Recorded(), 0.0)
    # Recorded, or a later start would commit what the source has had back since.
    (record,) = move.handle(PlacingFailed("gone", True), 0.0)
    assert isinstance(record, Record)
    assert record.records[0] == AgreedEpoch(P, 4, M)
    assert move.handle(RecordFailed("disk"), 0.0) == []
    assert move.handle(Tick(), RETRY_SECONDS) == [record]
    actions = move.handle(Recorded(), 2.0)
    assert actions[0] == Send(NeedStage(M, 0, "the data are not here"))
    assert isinstance(actions[1], Report)


def test_a_source_that_lives_has_its_way_until_a_commit_is_done() -> None:
    move, _ = target_restarted(MoveState.SEALED, MoveState.FLIPPED, 6)
    move.handle(Recorded(), 0.0)
    assert move.handle(Aborted(M), 0.0) == []
    assert states(move.handle(Placed(), 0.0)[-1]) == [MoveState.ABORTED]  # type: ignore[arg-type]


def test_a_remark_fits_into_a_record() -> None:
    assert remark("é" * 200) == "é" * 128
    source(*QUIESCED, ShipFailed(1, "\ud800" + "x" * 5000))


@pytest.mark.parametrize("events", [STAGING[:1], STAGING, (*STAGING, StageEnd(M, 1, 2, 5, "aa")), SEALED])
def test_a_prefix_that_this_node_has_by_that_epoch_is_not_taken_over_twice(events: tuple[Any, ...]) -> None:
    move, _ = target(*events, LedgerChanged(4, "b"))
    answer, record = move.handle(Activate(M, 4, 7, 9), 0.0)
    assert answer == Send(Activated(M, 4))
    assert states(record) == [MoveState.ABORTED]  # type: ignore[arg-type]


def test_an_older_agreement_gives_way_to_the_epoch_that_was_decided() -> None:
    (record,) = target(Recorded(), Activate(M, 5, 7, 9))[1]
    assert record.records[0] == AgreedEpoch(P, 5, M)
    move, actions = target(Recorded(), Activate(M, 4, 7, 9))
    assert (move.state, actions) == (TargetState.AGREED, [Send(NeedStage(M, 0, "the data are not here"))])


def test_a_commit_gives_way_to_a_higher_epoch() -> None:
    move, _ = target(*SEALED)
    move.handle(Resolve(True), QUIET_SECONDS)
    move.handle(LedgerChanged(7, "c"), QUIET_SECONDS)
    assert states(move.handle(Recorded(), 0.0)[-1]) == [MoveState.ABORTED]  # type: ignore[arg-type]
