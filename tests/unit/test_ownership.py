"""Who may write a key now: equal to what the table of scopes says, but for what moves, quiesces and closes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from kevynode.errors import Misdirected, Quiesced, ReplyError
from kevynode.scope import NestedPrefix, OwnershipTable, Routing, Scope
from kevynode.scope.ownership import Ownership
from kevynode.serve.fast_guard import fast_guard

NODES = ("a", "b", "c")
ADDRESSES = {"a": "10.0.0.1:6004", "b": "10.0.0.2:6004", "c": "10.0.0.3:6004"}

prefixes = st.binary(max_size=4) | st.text("xyz:", max_size=4).map(str.encode)
keys = st.binary(max_size=6) | st.text("xyz:", max_size=6).map(str.encode)
nodes = st.sampled_from(NODES)


def without_nested(scopes: list[Scope]) -> OwnershipTable:
    """A table of those that fit beside those before them."""
    kept: list[Scope] = []
    for scope in scopes:
        try:
            OwnershipTable([*kept, scope])
        except ValueError:
            continue
        kept.append(scope)
    return OwnershipTable(kept)


tables = st.lists(st.builds(Scope, prefixes, nodes), max_size=12, unique_by=lambda scope: scope.prefix).map(
    without_nested
)


@pytest.fixture
def ownership() -> Ownership:
    return Ownership(
        "a", OwnershipTable([Scope(b"app:", "a", "c"), Scope(b"own:", "a"), Scope(b"web:", "b")]), ADDRESSES
    )


def shown(error: ReplyError | None) -> str | None:
    return None if error is None else str(error)


def fast_answer(ownership: Ownership, key: bytes) -> bool:
    """Whether the loop over commands takes ``key`` for one that may be written."""
    if ownership.is_kept(b""):
        return False
    written = [scope.prefix for scope in ownership.declared() if scope.state == "open"]
    place, marks, cut, heads, is_kept = fast_guard(ownership.guard, written, ownership.is_kept)
    return not (marks and place < len(key) and key[place] in marks and key[cut] in heads and is_kept(key))


# -- against the table -----------------------------------------------------------------------------------------------


@given(tables, keys, nodes)
def test_without_moves_it_says_what_the_table_says(table: OwnershipTable, key: bytes, self_id: str) -> None:
    error = Ownership(self_id, table, ADDRESSES).refuse_key(key)
    match table.route(key, self_id):
        case Routing.Misdirected(target):
            assert isinstance(error, Misdirected)
            assert error.writer == ADDRESSES[target]
        case _:
            assert error is None


@given(tables, st.lists(keys, max_size=5), nodes)
def test_keys_together_are_refused_for_two_scopes_first(
    table: OwnershipTable, several: list[bytes], self_id: str
) -> None:
    ownership = Ownership(self_id, table, ADDRESSES)
    scopes = {scope.prefix for key in several if (scope := table.lookup(key)) is not None}
    error = ownership.check(several)
    if len(scopes) > 1:
        assert error is not None
        assert error.prefix == "CROSSSCOPE"
    else:
        each = {shown(ownership.refuse_key(key)) for key in several} - {None}
        assert shown(error) == (each.pop() if each else None)


class Moves(RuleBasedStateMachine):
    """Anything happens to the scopes of a node; every answer follows from what has happened."""

    def __init__(self) -> None:
        super().__init__()
        self.changes = 0

    @initialize(table=tables, self_id=nodes)
    def start(self, table: OwnershipTable, self_id: str) -> None:
        self.table = table
        self.ownership = Ownership(self_id, table, ADDRESSES)
        self.ownership.on_change = self.count
        self.self_id = self_id
        # prefix -> (owner, epoch), what it waits for, where it goes
        self.owners = {scope.prefix: (scope.writer, 0) for scope in table}
        self.closed: dict[bytes, str] = {}
        self.moving: dict[bytes, str] = {}

    def count(self) -> None:
        self.changes += 1

    def pick(self, number: int) -> bytes | None:
        declared = sorted(self.owners)
        return declared[number % len(declared)] if declared else None

    @rule(number=st.integers(0, 11), owner=nodes, epoch=st.integers(0, 9))
    def set_owner(self, number: int, owner: str, epoch: int) -> None:
        prefix = self.pick(number)
        if prefix is None:
            return
        changed = epoch >= self.owners[prefix][1] and (owner, epoch) != self.owners[prefix]
        assert self.ownership.set_owner(prefix, owner, epoch) == changed
        if changed:
            self.owners[prefix] = (owner, epoch)
            if owner != self.self_id:
                self.closed.pop(prefix, None)
            if owner != self.self_id or self.moving.get(prefix) == owner:
                self.moving.pop(prefix, None)

    @rule(number=st.integers(0, 11), reason=st.sampled_from(["b", "b, c"]))
    def close(self, number: int, reason: str) -> None:
        prefix = self.pick(number)
        if prefix is not None:
            self.ownership.close(prefix, reason)
            self.closed[prefix] = reason

    @rule(number=st.integers(0, 11))
    def open(self, number: int) -> None:
        prefix = self.pick(number)
        if prefix is not None:
            self.ownership.open(prefix)
            self.closed.pop(prefix, None)

    @rule(number=st.integers(0, 11), node_id=nodes)
    def quiesce(self, number: int, node_id: str) -> None:
        prefix = self.pick(number)
        if prefix is not None:
            self.ownership.quiesce(prefix, node_id)
            self.moving[prefix] = node_id

    @rule(number=st.integers(0, 11))
    def resume(self, number: int) -> None:
        prefix = self.pick(number)
        if prefix is not None:
            self.ownership.resume(prefix)
            self.moving.pop(prefix, None)

    @invariant()
    def answers(self) -> None:
        ownership = self.ownership
        rows = {row.prefix: row for row in ownership.declared()}
        assert list(rows) == sorted(self.owners)
        assert ownership.owned() == tuple(sorted(p for p, (owner, _) in self.owners.items() if owner == self.self_id))
        assert ownership.elsewhere() == self.owners.keys() - set(ownership.owned())
        for prefix, (owner, epoch) in self.owners.items():
            key = prefix + b"1"
            if prefix in self.moving:
                expected, state = f"QUIESCED migrating to {ADDRESSES[self.moving[prefix]]}", "quiesced"
            elif prefix in self.closed:
                reason = self.closed[prefix]
                shown_prefix = prefix.decode("utf-8", "surrogateescape").partition("\0")[0]
                expected, state = f"LOADING scope {shown_prefix} is waiting for {reason}", "waiting"
            elif owner != self.self_id:
                expected, state = f"MISDIRECTED writer is {ADDRESSES[owner]}", "elsewhere"
            else:
                expected, state = None, "open"
            for written in (key, prefix):
                assert shown(ownership.refuse_key(written)) == expected
                assert ownership.is_kept(written) == (expected is not None)
                assert fast_answer(ownership, written) == (expected is None)
                assert ownership.is_elsewhere(written) == (owner != self.self_id)
                assert ownership.prefix_of(written) == prefix
            assert (rows[prefix].owner, rows[prefix].epoch, rows[prefix].state) == (owner, epoch, state)
            assert (ownership.owner(prefix), ownership.epoch(prefix)) == (owner, epoch)
        closed = {p for p in ownership.owned() if p in self.moving or p in self.closed}
        assert (ownership.check_all() is None) == (not closed)


TestMoves = Moves.TestCase


@given(tables, keys, nodes)
def test_the_fast_answer_is_the_right_one(table: OwnershipTable, key: bytes, self_id: str) -> None:
    ownership = Ownership(self_id, table, ADDRESSES)
    assert fast_answer(ownership, key) == (ownership.refuse_key(key) is None)
    assert ownership.is_kept(key) == (ownership.refuse_key(key) is not None)


# -- what happens to a scope -----------------------------------------------------------------------------------------


def test_one_byte_tells_where_prefixes_differ() -> None:
    table = OwnershipTable([Scope(b"tenant%03d:" % number, "ab"[number % 2]) for number in range(1000)])
    ownership = Ownership("a", table, ADDRESSES)
    written = [scope.prefix for scope in ownership.declared() if scope.state == "open"]
    guard = fast_guard(ownership.guard, written, ownership.is_kept)
    assert (guard.place, guard.marks) == (8, b"13579")


def test_a_move_from_here(ownership: Ownership) -> None:
    changes: list[None] = []
    ownership.on_change = lambda: changes.append(None)
    ownership.quiesce(b"app:", "b")
    assert isinstance(ownership.refuse_key(b"app:1"), Quiesced)
    assert ownership.set_owner(b"app:", "b", 1)
    assert shown(ownership.refuse_key(b"app:1")) == "MISDIRECTED writer is 10.0.0.2:6004"
    assert len(changes) == 2
    # Said again, by a later announcement, and what was so before.
    assert not ownership.set_owner(b"app:", "b", 1)
    assert not ownership.set_owner(b"app:", "a", 0)
    ownership.resume(b"app:")
    assert len(changes) == 2
    assert ownership.owner(b"app:") == "b"


def test_several_changes_together_are_told_once(ownership: Ownership) -> None:
    told: list[str] = []
    ownership.observers.append(lambda: told.append("observer"))
    ownership.on_change = lambda: told.append("on_change")
    with ownership.together():
        ownership.set_owner(b"app:", "b", 1)
        with ownership.together():
            ownership.quiesce(b"own:", "b")
        assert told == []
    assert told == ["observer", "on_change"]
    assert ownership.guard == ((4, frozenset((b"app:", b"own:", b"web:"))),)
    with ownership.together():
        pass
    assert told == ["observer", "on_change"]


def test_how_scopes_stand_is_looked_up_and_not_made_anew(ownership: Ownership) -> None:
    before = list(ownership.declared())
    assert all(one is other for one, other in zip(before, ownership.declared(), strict=True))
    assert (ownership.state(b"app:"), ownership.state(b"web:")) == ("open", "elsewhere")
    with ownership.together():
        ownership.close(b"app:", "b")
        assert ownership.state(b"app:") == "waiting"
        ownership.quiesce(b"app:", "b")
        assert ownership.state(b"app:") == "quiesced"
        # What waits for something does so whatever else holds it.
        assert ownership.is_closed(b"app:")
    with pytest.raises(KeyError):
        ownership.state(b"app")
    with pytest.raises(KeyError):
        ownership.is_closed(b"app")
    assert not ownership.is_closed(b"web:")
    assert [row.state for row in ownership.declared()] == ["quiesced", *(row.state for row in before[1:])]


def test_a_move_to_here(ownership: Ownership) -> None:
    ownership.quiesce(b"web:", "a")
    assert shown(ownership.refuse_key(b"web:1")) == "QUIESCED migrating to 10.0.0.1:6004"
    ownership.set_owner(b"web:", "a", 1)
    assert ownership.refuse_key(b"web:1") is None
    assert ownership.guard == ()


def test_an_old_entry_of_the_ledger_does_not_open_what_is_moving_away(ownership: Ownership) -> None:
    ownership.quiesce(b"app:", "b")
    ownership.close(b"app:", "b")
    ownership.set_owner(b"app:", "a", 4)
    assert isinstance(ownership.refuse_key(b"app:1"), Quiesced)
    ownership.resume(b"app:")
    assert shown(ownership.refuse_key(b"app:1")) == "LOADING scope app: is waiting for b"
    ownership.open(b"app:")
    assert ownership.refuse_key(b"app:1") is None


def test_what_is_not_declared_is_inert(ownership: Ownership) -> None:
    assert not ownership.set_owner(b"app", "b", 7)
    assert not ownership.set_owner(b"app:sub:", "b", 7)
    assert ownership.refuse_key(b"app:sub:1") is None
    for change in (ownership.open, ownership.resume, ownership.owner, ownership.epoch):
        with pytest.raises(KeyError):
            change(b"app")
    with pytest.raises(KeyError):
        ownership.close(b"app", "b")
    with pytest.raises(KeyError):
        ownership.quiesce(b"app", "b")


def test_a_writer_without_an_address_is_waited_for(ownership: Ownership) -> None:
    ownership.set_owner(b"app:", "d", 1)
    assert shown(ownership.refuse_key(b"app:1")) == "LOADING scope app: is waiting for an address of d"


def test_two_scopes_of_ours_are_two_scopes(ownership: Ownership) -> None:
    assert (
        shown(ownership.check([b"k", b"app:1", b"own:1"]))
        == "CROSSSCOPE keys of the scopes app: and own: in one command or transaction"
    )
    assert shown(ownership.check([b"app:1", b"web:1"])) != shown(ownership.check([b"web:1"]))
    assert ownership.check([b"k", b"app:1", b"app:2", b""]) is None
    assert ownership.check([]) is None


def test_the_empty_prefix_covers_every_key() -> None:
    ownership = Ownership("a", OwnershipTable([Scope(b"", "b")]), ADDRESSES)
    assert ownership.guard == ((0, frozenset((b"",))),)
    for key in (b"", b"k"):
        assert isinstance(ownership.refuse_key(key), Misdirected)
        assert ownership.is_kept(key)
    with pytest.raises(NestedPrefix):
        OwnershipTable([Scope(b"", "b"), Scope(b"app:", "a")])
