"""Moving prefixes: every event in every state, and which keys are held back."""

from __future__ import annotations

import itertools
import pickle

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from kevynode.scope import (
    AlreadyInFlight,
    AlreadyMigrated,
    Migration,
    MigrationError,
    MigrationState,
    MigrationTable,
    UnknownMigration,
)
from kevynode.scope.migration import TRANSITIONS, MigrationEvent

PREFIX = b"app:\xff"
MOVE = Migration(PREFIX, "a", "b")

IDLE, QUIESCED, MIGRATED = MigrationState.IDLE, MigrationState.QUIESCED, MigrationState.MIGRATED
START, COMMIT, ABORT, FORGET = MigrationEvent.START, MigrationEvent.COMMIT, MigrationEvent.ABORT, MigrationEvent.FORGET

EXPECTED: dict[tuple[MigrationState, MigrationEvent], MigrationState | type[MigrationError]] = {
    (IDLE, START): QUIESCED,
    (IDLE, COMMIT): UnknownMigration,
    (IDLE, ABORT): UnknownMigration,
    (IDLE, FORGET): UnknownMigration,
    (QUIESCED, START): AlreadyInFlight,
    (QUIESCED, COMMIT): MIGRATED,
    (QUIESCED, ABORT): IDLE,
    (QUIESCED, FORGET): AlreadyInFlight,
    (MIGRATED, START): AlreadyMigrated,
    (MIGRATED, COMMIT): AlreadyMigrated,
    (MIGRATED, ABORT): AlreadyMigrated,
    (MIGRATED, FORGET): IDLE,
}


def table_in(state: MigrationState) -> MigrationTable:
    """A table whose one prefix is in ``state``."""
    table = MigrationTable()
    if state is not IDLE:
        table.start(PREFIX, "a", "b")
    if state is MIGRATED:
        table.commit(PREFIX)
    return table


def send(table: MigrationTable, event: MigrationEvent, prefix: bytes, target: str = "b") -> Migration:
    if event is START:
        return table.start(prefix, "a", target)
    return {COMMIT: table.commit, ABORT: table.abort, FORGET: table.forget}[event](prefix)


def seen(table: MigrationTable) -> tuple[object, ...]:
    """Everything that a table answers about its one prefix."""
    key = PREFIX + b"1"
    return table.state(PREFIX), table.match(key), table.match_migrated(key), table.in_flight, table.migrated


SEEN = {
    IDLE: (IDLE, None, None, (), ()),
    QUIESCED: (QUIESCED, MOVE, None, (MOVE,), ()),
    MIGRATED: (MIGRATED, None, MOVE, (), (MOVE,)),
}


def test_every_event_has_an_outcome_in_every_state() -> None:
    assert set(EXPECTED) == set(itertools.product(MigrationState, MigrationEvent))
    assert dict(TRANSITIONS) == EXPECTED


@pytest.mark.parametrize(("state", "event"), list(EXPECTED))
def test_an_event_in_a_state(state: MigrationState, event: MigrationEvent) -> None:
    table = table_in(state)
    assert seen(table) == SEEN[state]
    outcome = EXPECTED[state, event]
    if isinstance(outcome, MigrationState):
        assert send(table, event, PREFIX) == MOVE
        assert seen(table) == SEEN[outcome]
        return
    with pytest.raises(outcome) as caught:
        send(table, event, PREFIX, target="elsewhere")
    assert type(caught.value) is outcome
    assert caught.value.prefix == PREFIX
    assert caught.value.migration == (None if state is IDLE else MOVE)
    assert seen(table) == SEEN[state]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            AlreadyInFlight(PREFIX, MOVE),
            "migration for this prefix is already in flight: b'app:\\xff', from 'a' to 'b'",
        ),
        (AlreadyMigrated(PREFIX, MOVE), "prefix has already been migrated: b'app:\\xff', from 'a' to 'b'"),
        (UnknownMigration(PREFIX), "no migration for this prefix: b'app:\\xff'"),
    ],
)
def test_errors_name_the_prefix_and_the_move(error: MigrationError, text: str) -> None:
    assert str(error) == text
    assert text.startswith(error.reason)
    assert isinstance(error, ValueError)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (again.prefix, again.migration) == (error.prefix, error.migration)


def test_what_is_no_move_changes_nothing() -> None:
    table = MigrationTable()
    with pytest.raises(ValueError, match="not from 'a' to itself"):
        table.start(PREFIX, "a", "a")
    with pytest.raises(TypeError, match="a prefix is bytes or str, not int"):
        table.start(7, "a", "b")  # type: ignore[arg-type]
    assert seen(table) == SEEN[IDLE]


def test_prefixes_move_independently() -> None:
    table = MigrationTable()
    table.start("é:", "a", "b")
    table.start(b"p:", "a", "c")
    table.start(b"pp", "a", "d")
    table.commit(b"p:")
    assert [move.target for move in table.in_flight] == ["d", "b"]
    assert [move.target for move in table.migrated] == ["c"]
    assert table.match("é:1") == table.match(b"\xc3\xa9:1") == Migration("é:", "a", "b")
    assert table.match(b"p:1") is None
    assert table.match_migrated("p:1") == Migration(b"p:", "a", "c")
    table.abort(b"pp")
    assert table.match(b"pp1") is None
    assert repr(table) == (
        r"<MigrationTable in_flight=[Migration(prefix=b'\xc3\xa9:', source='a', target='b')]"
        r" migrated=[Migration(prefix=b'p:', source='a', target='c')]>"
    )


def test_a_prefix_moves_away_and_again() -> None:
    table = table_in(MIGRATED)
    table.forget(PREFIX)
    again = table.start(PREFIX, "a", "c")
    assert table.match(PREFIX) == again == Migration(PREFIX, "a", "c")


WORDS = st.text("ab", max_size=3).map(str.encode)


class Moves(RuleBasedStateMachine):
    """Moves of nested prefixes, beside plain dictionaries that are searched from end to end."""

    def __init__(self) -> None:
        super().__init__()
        self.table = MigrationTable()
        self.moves: dict[MigrationState, dict[bytes, Migration]] = {QUIESCED: {}, MIGRATED: {}}

    @rule(prefix=WORDS, event=st.sampled_from(MigrationEvent), goal=st.sampled_from("bc"))
    def happens(self, prefix: bytes, event: MigrationEvent, goal: str) -> None:
        state = next((state for state, moves in self.moves.items() if prefix in moves), IDLE)
        outcome = EXPECTED[state, event]
        if not isinstance(outcome, MigrationState):
            with pytest.raises(outcome):
                send(self.table, event, prefix, goal)
            return
        move = Migration(prefix, "a", goal) if state is IDLE else self.moves[state].pop(prefix)
        assert send(self.table, event, prefix, goal) == move
        if outcome is not IDLE:
            self.moves[outcome][prefix] = move

    @rule(key=st.text("ab", max_size=5).map(str.encode))
    def keys_are_matched_by_their_longest_prefix(self, key: bytes) -> None:
        for state, match in ((QUIESCED, self.table.match), (MIGRATED, self.table.match_migrated)):
            found = [prefix for prefix in self.moves[state] if key.startswith(prefix)]
            assert match(key) == (self.moves[state][max(found, key=len)] if found else None)

    @invariant()
    def the_lists_are_complete_and_in_order(self) -> None:
        for state, listed in ((QUIESCED, self.table.in_flight), (MIGRATED, self.table.migrated)):
            assert list(listed) == [move for _, move in sorted(self.moves[state].items())]


TestMoves = Moves.TestCase
