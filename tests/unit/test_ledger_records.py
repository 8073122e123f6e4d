"""Records of the ledger's file: each has one spelling, and a state is what they add up to."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kevynode.scope.ledger import LedgerEntry
from kevynode.scope.ledger_records import (
    FINISHED_KEPT,
    AgreedEpoch,
    Announced,
    LedgerState,
    MoveRecord,
    MoveRole,
    MoveState,
    Opened,
    Record,
    Settled,
    Tail,
    VersionFloor,
    parse_record,
)
from kevynode.scope.ledger_text import MAX_NUMBER, LedgerError

MOVE = MoveRecord("m1", b"app:", MoveRole.SOURCE, MoveState.REQUESTED, "b", 3)

ids = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._:#-]{0,63}\Z")
prefixes = st.binary(max_size=20)
numbers = st.integers(0, MAX_NUMBER)
moves = st.builds(
    MoveRecord,
    ids,
    prefixes,
    st.sampled_from(MoveRole),
    st.sampled_from(MoveState),
    ids,
    numbers,
    numbers,
    numbers,
    numbers,
    numbers,
    st.text("0123456789abcdef", max_size=64),
    st.booleans(),
    st.sampled_from([None, MoveState.FLIPPED, MoveState.ABORTED]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
)
records: st.SearchStrategy[Record] = st.one_of(
    st.builds(LedgerEntry, prefixes, ids, st.integers(1, MAX_NUMBER), ids),
    moves,
    st.builds(AgreedEpoch, prefixes, st.integers(1, MAX_NUMBER), ids),
    st.builds(Announced, ids, numbers),
    st.just(Settled()),
    st.builds(Opened, prefixes),
    st.builds(Tail, prefixes, st.integers(1, MAX_NUMBER), st.booleans()),
    st.builds(VersionFloor, st.integers(0, 10**9)),
)


@given(records)
def test_a_record_comes_through(record: Record) -> None:
    text = record.text()
    assert text.isascii()
    assert text.isprintable()
    assert parse_record(text) == record


@given(records, st.data())
def test_a_text_that_was_changed_is_refused_or_another_record(record: Record, data: st.DataObject) -> None:
    text = record.text()
    place = data.draw(st.integers(0, len(text) - 1))
    changed = text[:place] + data.draw(st.characters()) + text[place + data.draw(st.integers(0, 1)) :]
    try:
        other = parse_record(changed)
    except LedgerError:
        return
    assert other.text() == changed


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "unknown",
        "settled ",
        "settled now=1",
        "floor",
        "floor version=",
        "floor version=-1",
        "floor version=01",
        "floor version=1 version=1",
        "floor version=\u0661",
        "floor version=9007199254740992",
        "opened",
        "announced peer=a",
        "announced peer= version=1",
        "agreed prefix=a epoch=0 move=m",
        MOVE.text().replace("following=0", "following=2"),
        MOVE.text().replace("SOURCE", "source").replace("REQUESTED", "requested"),
        MOVE.text().replace("role=source", "role=both"),
        MOVE.text().replace("decision=", "decision=DONE"),
        MOVE.text().replace("decision=", "decision=MAYBE"),
        MOVE.text().replace("digest=", "digest=AB"),
        MOVE.text() + "%FF",
        MOVE.text() + "x" * 257,
        MOVE.text() + " more=1",
    ],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(LedgerError):
        parse_record(text)


@pytest.mark.parametrize(
    "values",
    [
        {"move_id": ""},
        {"prefix": b"x" * 1025},
        {"peer": "a b"},
        {"epoch": -1},
        {"history": 2**53},
        {"tail": -1},
        {"keys": True},
        {"size": 0.5},
        {"digest": "0" * 65},
        {"digest": "xy"},
        {"decision": MoveState.DONE},
        {"detail": "ä" * 129},
        {"detail": "\ud800"},
        {"detail": None},
    ],
)
def test_a_move_has_bounds(values: dict[str, Any]) -> None:
    with pytest.raises(LedgerError):
        attrs.evolve(MOVE, **values)


def test_what_was_decided_is_remembered() -> None:
    assert MOVE.decided is None
    assert attrs.evolve(MOVE, state=MoveState.FLIPPED).decided is MoveState.FLIPPED
    assert attrs.evolve(MOVE, state=MoveState.ABORTED).decided is MoveState.ABORTED
    done = attrs.evolve(MOVE, state=MoveState.DONE, decision=MoveState.ABORTED)
    assert done.decided is MoveState.ABORTED
    assert not done.is_open
    assert MOVE.is_open


@given(st.lists(st.lists(records, max_size=4), max_size=12))
def test_what_a_state_is_written_as_adds_up_to_it(appends: list[list[Record]]) -> None:
    state = LedgerState()
    for appended in appends:
        version = state.version_after(appended)
        before = state.version
        state.add(appended)
        assert state.version == version >= before
    again = LedgerState()
    again.add(state.records())
    again.version = state.version
    assert again == state
    assert list(again.moves) == list(state.moves)


def test_a_version_grows_with_what_the_node_says_of_itself_alone() -> None:
    state = LedgerState()
    state.add([Announced("b", 7)])
    assert state.version == 0
    state.add([])
    assert state.version == 0
    state.add([Settled(), Announced("b", 8)])
    assert state.version == 1
    state.add([VersionFloor(10)])
    assert state.version == 11
    state.add([VersionFloor(3), Settled()])
    assert state.version == 12


def test_a_version_that_somebody_says_was_the_highest_does_not_end_a_ledger() -> None:
    state = LedgerState()
    state.add([VersionFloor(MAX_NUMBER)])
    assert state.version == MAX_NUMBER
    state.add([Settled()])
    assert (state.version, state.settled) == (MAX_NUMBER, True)


def test_what_was_told_and_agreed_never_goes_back() -> None:
    state = LedgerState()
    state.add([Announced("b", 7), AgreedEpoch(b"app:", 5, "m5")])
    state.add([Announced("b", 6), AgreedEpoch(b"app:", 4, "m9")])
    assert state.announced == {"b": 7}
    assert state.agreed == {b"app:": AgreedEpoch(b"app:", 5, "m5")}


def test_a_prefix_that_came_by_a_move_was_opened() -> None:
    state = LedgerState()
    for role in MoveRole:
        for move_state in MoveState:
            if (role, move_state) != (MoveRole.TARGET, MoveState.ACTIVATED):
                state.add([attrs.evolve(MOVE, role=role, state=move_state)])
    assert state.opened == set()
    state.add([attrs.evolve(MOVE, role=MoveRole.TARGET, state=MoveState.ACTIVATED)])
    assert state.opened == {b"app:"}
    # It stays so when the move is forgotten.
    state.add([attrs.evolve(MOVE, role=MoveRole.TARGET, state=MoveState.DONE)])
    assert Opened(b"app:") in state.records()


def test_a_tail_is_known_until_it_is_kept() -> None:
    state = LedgerState()
    due = Tail(b"app:", 4)
    state.add([due, Tail(b"web:", 2)])
    assert state.tails == {b"app:": due, b"web:": Tail(b"web:", 2)}
    assert due in state.records()
    copy = state.copy()
    state.add([Tail(b"app:", 4, is_kept=True)])
    assert list(state.tails) == [b"web:"]
    assert due not in state.records()
    assert copy.tails[b"app:"] == due


def test_the_latest_finished_moves_are_remembered_and_all_others() -> None:
    state = LedgerState()
    for number in range(FINISHED_KEPT + 10):
        state.add([attrs.evolve(MOVE, move_id=f"open{number}")])
    for number in range(FINISHED_KEPT + 10):
        state.add([attrs.evolve(MOVE, move_id=f"m{number}")])
        state.add([attrs.evolve(MOVE, move_id=f"m{number}", state=MoveState.DONE)])
    assert [record.move_id for record in state.open_moves()] == [f"open{n}" for n in range(FINISHED_KEPT + 10)]
    finished = [record.move_id for record in state.moves.values() if not record.is_open]
    assert finished == [f"m{number}" for number in range(10, FINISHED_KEPT + 10)]


def test_a_copy_is_its_own() -> None:
    state = LedgerState()
    state.add([LedgerEntry(b"a", "a", 1, "m"), MOVE, AgreedEpoch(b"a", 1, "m"), Announced("b", 1), Opened(b"a")])
    copy = state.copy()
    assert copy == state
    state.add([LedgerEntry(b"b", "a", 1, "m"), attrs.evolve(MOVE, move_id="m2"), Settled(), Opened(b"b")])
    state.add([AgreedEpoch(b"b", 1, "m"), Announced("c", 1)])
    assert (len(copy.ledger), len(copy.moves), len(copy.agreed), len(copy.announced), copy.opened) == (
        1,
        1,
        1,
        1,
        {b"a"},
    )
    assert (copy.settled, copy.version) == (False, 1)
