"""When a node opens its scopes: not while anything is missing that it must know, and always once nothing is."""

from __future__ import annotations

from typing import Any, Final

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kevynode.scope import OwnershipTable, Scope
from kevynode.scope.copies import HeldCopy, newest_copies
from kevynode.scope.ledger import Ledger, LedgerEntry
from kevynode.scope.ledger_records import MoveRecord, MoveRole, MoveState, Opened, Settled, VersionFloor
from kevynode.scope.ledger_text import MAX_NUMBER
from kevynode.scope.opening import PATIENCE, Decision, Open, Opening, RestoreFrom, Waiting, lacks_data

APP, WEB, ELSE = b"app:", b"web:", b"else:"
TABLE = OwnershipTable([Scope(APP, "a"), Scope(WEB, "a"), Scope(ELSE, "b")])
PEERS = ("a", "b", "c")
#: What a peer that agrees declares.
SAME: Final = {APP: "a", WEB: "a", ELSE: "b"}
MOVE = MoveRecord("m1", APP, MoveRole.SOURCE, MoveState.QUIESCED, "c", 5)


def opening(
    *,
    table: OwnershipTable = TABLE,
    ledger: Ledger | None = None,
    peers: tuple[str, ...] = PEERS,
    version: int = 3,
    is_settled: bool = False,
    **more: Any,
) -> Opening:
    found = Ledger() if ledger is None else ledger
    return Opening("a", table, found, peers, now=100.0, version=version, is_settled=is_settled, **more)


def answer(made: Opening, *peers: str) -> None:
    for peer in peers:
        made.remembered(peer, 0)
        made.declared(peer, SAME)
        made.answered(peer)


def app(made: Opening, now: float = 100.0) -> Decision:
    return made.decide(now)[APP]


def copy(
    offset: int, keys: int = 5, history: int = 1, epoch: int = 0, ancestors: tuple[tuple[int, int], ...] = ()
) -> HeldCopy:
    return HeldCopy(history, offset, keys, epoch, ancestors)


# -- answers ----------------------------------------------------------------------------------------------------------


def test_without_a_ledger_every_peer_must_have_answered() -> None:
    made = opening()
    assert made.decide(100.0) == dict.fromkeys([APP, WEB], Waiting("b, c", frozenset("bc")))
    answer(made, "c")
    assert made.decide(10**9) == dict.fromkeys([APP, WEB], Waiting("b", frozenset("b")))
    assert made.deadline(100.0) is None
    answer(made, "b")
    assert made.decide(100.0) == dict.fromkeys([APP, WEB], Open())


def test_with_a_ledger_answers_are_waited_for_a_little() -> None:
    made = opening(is_settled=True)
    assert app(made) == Waiting("b, c", frozenset("bc"))
    assert made.deadline(100.0) == 100.0 + PATIENCE
    assert app(made, 100.0 + PATIENCE - 0.01) != Open()
    assert app(made, 100.0 + PATIENCE) == Open()
    assert made.deadline(100.0 + PATIENCE) is None
    answer(made, "b", "c")
    assert app(made) == Open()
    assert made.deadline(100.0) is None


def test_trust_in_the_configuration_waits_for_nobody() -> None:
    made = opening(trust_config=True)
    assert app(made) == Open()
    assert made.deadline(100.0) is None
    assert made.records_due() == ()


def test_a_node_alone_opens() -> None:
    assert app(opening(peers=())) == Open()
    assert app(opening(peers=("a",))) == Open()


def test_others_than_the_configured_peers_have_no_say() -> None:
    made = opening()
    answer(made, "x", "a")
    made.remembered("x", 99)
    made.declared("x", {APP: "x"})
    made.copies("x", [APP], {APP: copy(9)})
    assert made.highest_offset == 0
    answer(made, "b", "c")
    assert app(made) == Open()


def test_an_answer_counts_after_the_link_is_gone() -> None:
    made = opening()
    answer(made, "b")
    made.disconnected("b")
    answer(made, "c")
    assert app(made) == Open()


def test_what_other_nodes_own_is_not_decided_here() -> None:
    ledger = Ledger([LedgerEntry(APP, "c", 1, "m1"), LedgerEntry(ELSE, "a", 1, "m2"), LedgerEntry(b"x", "a", 1, "m3")])
    made = opening(ledger=ledger)
    assert list(made.decide(100.0)) == [ELSE, WEB]
    # And it follows the ledger.
    ledger.merge([LedgerEntry(APP, "a", 2, "m4"), LedgerEntry(ELSE, "b", 2, "m5")])
    assert list(made.decide(100.0)) == [APP, WEB]


# -- having gone back -------------------------------------------------------------------------------------------------


def test_a_node_that_went_back_waits_for_all() -> None:
    made = opening(is_settled=True)
    answer(made, "b")
    assert app(made, 200.0) == Open()
    made.remembered("c", 8)
    assert app(made, 200.0) == Waiting("c to tell what this node has lost of its ledger", frozenset("c"))
    assert made.deadline(100.0) is None
    assert made.records_due() == ()
    made.answered("c")
    assert app(made, 200.0) == Open()
    assert made.records_due() == (VersionFloor(8),)
    made.appended(9, is_settled=True)
    assert made.records_due() == ()
    # The same said again, or what others heard since.
    made.remembered("c", 8)
    made.remembered("b", 9)
    assert app(made, 200.0) == Open()


def test_it_waits_for_those_as_well_that_know_of_no_loss() -> None:
    made = opening(is_settled=True)
    made.remembered("b", 8)
    made.answered("b")
    assert app(made, 200.0) == Waiting("c to tell what this node has lost of its ledger", frozenset("c"))
    made.answered("c")
    assert app(made, 200.0) == Open()


def test_what_a_peer_told_before_it_knew_does_not_count() -> None:
    made = opening()
    answer(made, "b", "c")
    made.remembered("b", 4)
    assert app(made) == Waiting("b to tell what this node has lost of its ledger", frozenset("b"))
    answer(made, "c")
    assert app(made) != Open()
    made.answered("b")
    assert app(made) == Open()
    assert made.records_due() == (VersionFloor(4), Settled())


def test_with_trust_only_those_who_know_of_a_loss_are_waited_for() -> None:
    made = opening(trust_config=True)
    made.remembered("b", 4)
    assert app(made) == Waiting("b to tell what this node has lost of its ledger", frozenset("b"))
    made.answered("b")
    assert app(made) == Open()


def test_what_peers_have_heard_of_this_run_is_no_loss() -> None:
    made = opening(is_settled=True, version=3)
    answer(made, "b", "c")
    made.appended(4, is_settled=True)
    made.remembered("b", 4)
    made.appended(3, is_settled=False)
    made.remembered("c", 4)
    assert app(made) == Open()


def test_a_ledger_settles_once_all_have_answered() -> None:
    made = opening()
    answer(made, "b")
    assert made.records_due() == ()
    answer(made, "c")
    assert made.records_due() == (Settled(),)
    made.appended(4, is_settled=True)
    assert made.records_due() == ()
    assert opening(is_settled=True).records_due() == ()


# -- declarations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("theirs", "told"),
    [
        ({APP: "b"}, "the writer is b"),
        ({APP: "c", WEB: "a"}, "the writer is c"),
        ({b"app": "b"}, "a shorter prefix has the writer b"),
        ({b"": "b"}, "a shorter prefix has the writer b"),
        ({b"app:1:": "a", b"app:2:": "c"}, "a longer prefix has the writer c"),
    ],
)
def test_a_prefix_that_a_peer_declares_for_another_is_closed(theirs: dict[bytes, str], told: str) -> None:
    ledger = Ledger()
    made = opening(ledger=ledger)
    answer(made, "b", "c")
    made.declared("b", theirs)
    assert app(made) == Waiting(f"agreement with b (there {told})", frozenset("b"))
    assert (made.decide(100.0)[WEB] == Open()) == (b"" not in theirs)
    # As long as it says so, there or not.
    made.disconnected("b")
    assert app(made) != Open()
    made.declared("b", SAME)
    assert app(made) == Open()
    # Or until the ledger knows, but it knows nothing of keys that two prefixes share.
    made.declared("b", theirs)
    ledger.merge([LedgerEntry(APP, "a", 1, "m1")])
    assert (app(made) == Open()) == (APP in theirs)


@pytest.mark.parametrize(
    "theirs",
    [{}, {WEB: "a"}, {b"": "a"}, {b"app": "a"}, {b"app:1": "a"}, {APP: "a", ELSE: "c"}, {b"apq": "b", b"ap": "a"}],
)
def test_a_prefix_that_is_missing_or_the_same_there_is_open(theirs: dict[bytes, str]) -> None:
    made = opening()
    answer(made, "b", "c")
    made.declared("b", theirs)
    assert app(made) == Open()


def test_all_who_declare_otherwise_are_named() -> None:
    made = opening()
    answer(made, "b", "c")
    made.declared("c", {APP: "c"})
    made.declared("b", {APP: "b"})
    assert app(made) == Waiting("agreement with b (there the writer is b), c (there the writer is c)", frozenset("bc"))


# -- moves ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [MoveState.REQUESTED, MoveState.QUIESCED, MoveState.SHIPPED, MoveState.FLIPPED])
def test_a_move_that_was_under_way_is_settled_first(state: MoveState) -> None:
    made = opening(peers=(), moves=[attrs.evolve(MOVE, state=state)])
    assert app(made) == Waiting("move m1 to be settled with c", frozenset("c"))
    assert made.decide(100.0)[WEB] == Open()
    made.moved(attrs.evolve(MOVE, state=MoveState.SHIPPED))
    assert app(made) != Open()
    made.moved(attrs.evolve(MOVE, state=MoveState.ABORTED))
    assert app(made) == Open()


def test_a_move_that_was_aborted_holds_nothing_up() -> None:
    aborted = attrs.evolve(MOVE, state=MoveState.ABORTED)
    assert app(opening(peers=(), moves=[aborted])) == Open()
    done = attrs.evolve(MOVE, state=MoveState.DONE, decision=MoveState.FLIPPED)
    assert app(opening(peers=(), moves=[done])) == Open()


def test_a_move_that_a_later_one_settled_holds_nothing_up() -> None:
    ledger = Ledger([LedgerEntry(APP, "a", 5, "m9")])
    for state in (MoveState.FLIPPED, MoveState.ACTIVATED, MoveState.SHIPPED):
        assert app(opening(peers=(), ledger=ledger, moves=[attrs.evolve(MOVE, state=state)])) == Open()
        later = attrs.evolve(MOVE, state=state, epoch=6)
        assert app(opening(peers=(), ledger=ledger, moves=[later])) != Open()


def test_the_target_of_a_move_waits_for_its_activation() -> None:
    ledger = Ledger()
    move = attrs.evolve(MOVE, prefix=ELSE, role=MoveRole.TARGET, state=MoveState.SEALED, peer="b")
    made = opening(peers=(), ledger=ledger, moves=[move], lacking=[ELSE])
    assert ELSE not in made.decide(100.0)
    activated = attrs.evolve(move, state=MoveState.ACTIVATED)
    ledger.merge([LedgerEntry(ELSE, "a", 5, "m1")])
    made.moved(activated)
    assert made.decide(100.0)[ELSE] == Open()
    # Started again behind that.
    assert opening(peers=(), ledger=ledger, moves=[activated]).decide(100.0)[ELSE] == Open()
    # An old agreement of which nothing came.
    agreed = attrs.evolve(move, move_id="m0", state=MoveState.AGREED, epoch=4)
    assert opening(peers=(), ledger=ledger, moves=[agreed]).decide(100.0)[ELSE] == Open()


def test_moves_that_begin_later_quiesce_and_do_not_close() -> None:
    made = opening(peers=())
    made.moved(MOVE)
    assert app(made) == Open()


def test_data_come_with_a_move() -> None:
    ledger = Ledger()
    made = opening(ledger=ledger, lacking=[ELSE])
    answer(made, "b", "c")
    ledger.merge([LedgerEntry(ELSE, "a", 5, "m1")])
    assert made.decide(100.0)[ELSE] != Open()
    assert made.lacking == {ELSE}
    made.moved(attrs.evolve(MOVE, prefix=ELSE, role=MoveRole.TARGET, state=MoveState.ACTIVATED))
    assert made.decide(100.0)[ELSE] == Open()


# -- data -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "was_opened", "has_loaded", "expected"),
    [
        (1, False, False, False),
        (1, True, True, False),
        (0, True, True, False),
        (0, True, False, True),
        (0, False, True, True),
        (0, False, False, True),
    ],
)
def test_what_counts_as_lost(keys: int, was_opened: bool, has_loaded: bool, expected: bool) -> None:
    assert lacks_data(keys, was_opened=was_opened, has_loaded=has_loaded) is expected


def test_an_empty_writer_is_restored_from_the_most_advanced_copy() -> None:
    made = opening(lacking=[APP, ELSE])
    assert made.lacking == {APP}
    answer(made, "b", "c")
    assert app(made) == Waiting("b, c to say what copy they hold", frozenset("bc"))
    made.copies("b", [APP], {APP: copy(70)})
    assert app(made, 10**9) == Waiting("c to say what copy they hold", frozenset("c"))
    made.copies("c", [APP], {APP: copy(80)})
    assert app(made) == RestoreFrom("c", copy(80))
    assert app(made).reason == "its data from c"  # type: ignore[union-attr]
    assert made.highest_offset == 80
    assert made.decide(100.0)[WEB] == Open()
    made.restored(APP)
    assert app(made) == Open()
    assert made.lacking == frozenset()


def test_time_does_not_take_the_place_of_copies() -> None:
    for made in (opening(lacking=[APP], is_settled=True), opening(lacking=[APP], trust_config=True)):
        assert app(made, 10**9) == Waiting("b, c to say what copy they hold", frozenset("bc"))


def test_an_empty_writer_opens_where_nobody_holds_anything() -> None:
    made = opening(lacking=[APP])
    answer(made, "b", "c")
    for peer in "bc":
        made.copies(peer, [APP], {})
    assert app(made) == Open()


def test_the_newest_copy_may_be_empty() -> None:
    made = opening(lacking=[APP])
    answer(made, "b", "c")
    made.copies("b", [APP], {APP: copy(70, keys=9)})
    made.copies("c", [APP], {APP: copy(71, keys=0)})
    assert app(made) == Open()


@pytest.mark.parametrize(
    ("b", "c", "best"),
    [
        (copy(5), copy(4), "b"),
        (copy(5, keys=1), copy(5, keys=2), "c"),
        (copy(5), copy(5), "b"),
        (copy(5, history=1), copy(4, history=2), "b"),
        (copy(50, epoch=1), copy(4, epoch=2), "c"),
        # The writer lost the end of history 1, and has gone on from 6.
        (copy(50, history=1), copy(7, history=2, ancestors=((1, 6),)), "c"),
        (copy(50, history=1), copy(5, history=2, ancestors=((1, 6),)), "b"),
    ],
)
def test_copies_are_compared(b: HeldCopy, c: HeldCopy, best: str) -> None:
    made = opening(lacking=[APP])
    answer(made, "b", "c")
    made.copies("c", [APP], {APP: c})
    made.copies("b", [APP], {APP: b})
    assert app(made) == RestoreFrom(best, {"b": b, "c": c}[best])


def test_the_newest_copy_is_waited_for_when_its_node_is_gone() -> None:
    made = opening(lacking=[APP])
    answer(made, "b", "c")
    made.copies("b", [APP], {APP: copy(9)})
    made.copies("c", [APP], {APP: copy(8)})
    made.disconnected("b")
    assert app(made) == Waiting("b with the newest copy of its data", frozenset("b"))
    made.copies("c", [APP], {APP: copy(9)})
    assert app(made) == RestoreFrom("c", copy(9))
    for back in (made.answered, lambda peer: made.remembered(peer, 0), lambda peer: made.declared(peer, SAME)):
        made.disconnected("c")
        made.disconnected("b")
        back("b")
        # It may have lost some of it since it said what it has.
        assert app(made) == Waiting("b, c with the newest copy of its data", frozenset("bc"))
        made.copies("b", [APP], {APP: copy(9)})
        assert app(made) == RestoreFrom("b", copy(9))
    # It came back, and has lost it.
    made.copies("b", [APP], {})
    made.copies("c", [APP], {APP: copy(7)})
    assert app(made) == RestoreFrom("c", copy(7))


@pytest.mark.parametrize("state", list(MoveState))
def test_what_is_lost_is_restored_for_who_it_is_given_to(state: MoveState) -> None:
    made = opening(lacking=[APP], moves=[attrs.evolve(MOVE, state=state)])
    answer(made, "b", "c")
    waits = app(made)
    assert made.lacks(APP)
    made.copies("b", [APP], {APP: copy(9)})
    made.copies("c", [APP], {APP: copy(8)})
    assert made.lacks(APP)
    over = state in (MoveState.ABORTED, MoveState.DONE)
    assert app(made) == (RestoreFrom("b", copy(9)) if over or state is MoveState.FLIPPED else waits)
    made.restored(APP)
    assert not made.lacks(APP)
    assert app(made) == (Open() if over else Waiting("move m1 to be settled with c", frozenset("c")))


def test_what_nobody_has_is_not_waited_for_by_who_it_is_given_to() -> None:
    made = opening(lacking=[APP], moves=[attrs.evolve(MOVE, state=MoveState.FLIPPED)])
    answer(made, "b", "c")
    for peer in "bc":
        assert made.lacks(APP)
        made.copies(peer, [APP], {})
    assert not made.lacks(APP)
    assert app(made) == Waiting("move m1 to be settled with c", frozenset("c"))


def test_a_start_that_is_to_be_empty() -> None:
    made = opening(lacking=[APP], start_empty=True)
    assert made.lacking == frozenset()
    assert app(made) != Open(), "it does not stand for answers"
    answer(made, "b", "c")
    assert app(made) == Open()


# -- any order of facts -----------------------------------------------------------------------------------------------

peer_ids = st.sampled_from(["b", "c", "d"])
prefixes = st.sampled_from([APP, WEB, ELSE])
writers = st.sampled_from(["a", "b", "c"])
ancestors = st.sampled_from([(), ((3, 1),), ((3, 2), (4, 1))])
held_copies = st.builds(
    HeldCopy, st.integers(1, 2), st.integers(0, 3), st.integers(0, 2), st.integers(0, 1), ancestors
) | st.builds(HeldCopy, st.just(3), st.integers(0, 3), st.integers(0, 2))
facts = st.one_of(
    st.tuples(st.just("remembered"), peer_ids, st.integers(0, 6)),
    st.tuples(st.just("answered"), peer_ids, st.none()),
    st.tuples(st.just("declared"), peer_ids, st.dictionaries(prefixes, writers)),
    st.tuples(st.just("copies"), peer_ids, st.dictionaries(prefixes, st.none() | held_copies)),
    st.tuples(st.just("disconnected"), peer_ids, st.none()),
    st.tuples(st.just("restored"), st.none(), prefixes),
    st.tuples(st.just("merged"), prefixes, st.tuples(writers, st.integers(1, 3))),
    st.tuples(st.just("append"), st.none(), st.none()),
)


class Told:
    """All that a node was told, and what follows by the rules, written down as they are."""

    def __init__(self, *, is_settled: bool, trusts: bool, lacking: set[bytes]) -> None:
        self.version = 3
        self.is_settled, self.trusts, self.lacking = is_settled, trusts, set(lacking)
        self.answered: set[str] = set()
        self.lost: dict[str, int] = {}
        self.writers: dict[str, dict[bytes, str]] = {}
        self.copies: dict[tuple[str, bytes], HeldCopy | None] = {}
        self.linked: set[str] = set()
        self.ledger = Ledger()

    def owner(self, prefix: bytes) -> str:
        return self.ledger.owner(prefix, SAME[prefix])

    def take(self, made: Opening, fact: str, who: Any, value: Any) -> None:
        if fact == "merged":
            owner, epoch = value
            self.ledger.merge([LedgerEntry(who, owner, epoch, "m1")])
            return
        if fact == "append":
            due = made.records_due()
            floors = [record.version for record in due if isinstance(record, VersionFloor)]
            if due:
                self.version = max([self.version, *floors]) + 1
                self.is_settled = self.is_settled or Settled() in due
            made.appended(self.version, is_settled=self.is_settled)
            return
        if fact == "restored":
            self.lacking.discard(value)
            made.restored(value)
            return
        if fact == "disconnected":
            self.linked.discard(who)
            made.disconnected(who)
            return
        self.linked.add(who)
        if fact == "remembered":
            if value > self.version and value > self.lost.get(who, 0):
                self.lost[who] = value
                self.answered.discard(who)
            made.remembered(who, value)
        elif fact == "answered":
            self.answered.add(who)
            made.answered(who)
        elif fact == "declared":
            self.writers[who] = value
            made.declared(who, value)
        else:
            for prefix, held in value.items():
                self.copies[who, prefix] = held
            made.copies(who, list(value), {prefix: held for prefix, held in value.items() if held is not None})

    def must_wait(self, prefix: bytes, is_late: bool) -> bool:
        peers = {"b", "c", "d"}
        missing = peers - self.answered
        if self.lost and missing & (set(self.lost) if self.trusts else peers):
            return True
        if missing and not self.lost and not self.trusts and not (self.is_settled and is_late):
            return True
        if not self.ledger.entry(prefix) and any(theirs.get(prefix, "a") != "a" for theirs in self.writers.values()):
            return True
        if prefix not in self.lacking:
            return False
        copies = {peer: self.copies.get((peer, prefix)) for peer in peers}
        if any((peer, prefix) not in self.copies for peer in peers):
            return True
        held = {peer: copy for peer, copy in copies.items() if copy is not None}
        return any(held[peer].keys for peer in newest_copies(held))


@pytest.mark.slow
@settings(max_examples=300)
@given(
    st.lists(facts, max_size=40),
    st.booleans(),
    st.booleans(),
    st.sets(st.sampled_from([APP, WEB])),
    st.booleans(),
)
def test_it_is_open_if_and_only_if_nothing_speaks_against_it(
    taken: list[tuple[str, Any, Any]], is_settled: bool, trusts: bool, lacking: set[bytes], is_late: bool
) -> None:
    told = Told(is_settled=is_settled, trusts=trusts, lacking=lacking)
    made = opening(
        ledger=told.ledger, peers=("b", "c", "d"), is_settled=is_settled, trust_config=trusts, lacking=lacking
    )
    now = 100.0 + (PATIENCE if is_late else 0.0)
    for fact in [None, *taken]:
        if fact is not None:
            told.take(made, *fact)
        decisions = made.decide(now)
        assert list(decisions) == [prefix for prefix in (APP, ELSE, WEB) if told.owner(prefix) == "a"]
        for prefix, decision in decisions.items():
            assert (decision == Open()) == (not told.must_wait(prefix, is_late))
            if isinstance(decision, Waiting):
                assert decision.peers
                assert decision.peers <= {"b", "c", "d"}
                assert all(peer in decision.reason for peer in decision.peers)
            elif isinstance(decision, RestoreFrom):
                assert decision.peer in told.linked
                assert decision.copy == told.copies[decision.peer, prefix]
                assert decision.copy.keys > 0
                advance = (decision.copy.epoch, decision.copy.offset)
                assert all(
                    (one.epoch, one.offset) <= advance
                    for (_, about), one in told.copies.items()
                    if one and about == prefix
                )


@given(st.lists(facts, max_size=30), st.booleans(), st.sets(st.sampled_from([APP, WEB])))
def test_it_opens_once_all_have_answered_and_agree(
    taken: list[tuple[str, Any, Any]], is_settled: bool, lacking: set[bytes]
) -> None:
    told = Told(is_settled=is_settled, trusts=False, lacking=lacking)
    made = opening(ledger=told.ledger, peers=("b", "c", "d"), is_settled=is_settled, lacking=lacking)
    for fact in taken:
        told.take(made, *fact)
    for peer in ("b", "c", "d"):
        made.remembered(peer, 0)
        made.declared(peer, SAME)
        made.answered(peer)
        made.copies(peer, [APP, WEB, ELSE], {APP: copy(4)} if peer == "c" else {})
    for prefix, decision in made.decide(100.0).items():
        if isinstance(decision, RestoreFrom):
            assert (prefix, decision.peer) == (APP, "c")
            made.restored(prefix)
    assert set(made.decide(100.0).values()) <= {Open()}


tables = st.dictionaries(st.sampled_from([b"", b"a", b"ab", b"abc", b"b", b"ba"]), st.sampled_from(["a", "b"]))


@given(tables, tables)
def test_no_two_nodes_open_what_shares_a_key(first: dict[bytes, str], second: dict[bytes, str]) -> None:
    declared = {}
    for node, scopes in (("a", first), ("b", second)):
        kept: dict[bytes, str] = {}
        for prefix, writer in sorted(scopes.items()):
            if not any(prefix.startswith(other) for other in kept):
                kept[prefix] = writer
        declared[node] = kept
    opened = {}
    for node, other in (("a", "b"), ("b", "a")):
        table = OwnershipTable([Scope(prefix, writer) for prefix, writer in declared[node].items()])
        made = Opening(node, table, Ledger(), ["a", "b"], now=0.0, version=0, is_settled=False)
        made.remembered(other, 0)
        made.declared(other, declared[other])
        made.answered(other)
        opened[node] = [prefix for prefix, decision in made.decide(0.0).items() if decision == Open()]
    for mine in opened["a"]:
        for theirs in opened["b"]:
            assert not mine.startswith(theirs)
            assert not theirs.startswith(mine)
    if declared["a"] == declared["b"]:
        assert {prefix: node for node, prefixes in opened.items() for prefix in prefixes} == declared["a"]


# -- moves that nobody knows of any more ------------------------------------------------------------------------------


def test_an_owner_goes_on_above_an_epoch_that_only_a_copy_knows() -> None:
    made = opening(lacking=[APP])
    answer(made, "b", "c")
    made.copies("b", [APP], {APP: copy(9, epoch=4)})
    made.copies("c", [APP], {})
    made.restored(APP)
    assert app(made) == Open()
    entry = LedgerEntry(APP, "a", 5, "restored")
    assert made.opening_records(APP, was_opened=False) == (entry, Opened(APP))
    assert made.opening_records(APP, was_opened=True) == (entry,)
    assert made.opening_records(WEB, was_opened=False) == (Opened(WEB),)


@pytest.mark.parametrize(("known", "told"), [(4, 4), (5, 4), (0, 0), (0, MAX_NUMBER)])
def test_what_the_ledger_knows_needs_no_new_epoch(known: int, told: int) -> None:
    made = opening(ledger=Ledger([LedgerEntry(APP, "a", known, "m1")] if known else []), lacking=[APP])
    answer(made, "b", "c")
    made.copies("b", [APP], {APP: copy(9, epoch=told)})
    made.copies("c", [APP], {})
    assert made.opening_records(APP, was_opened=True) == ()


def test_no_epoch_is_taken_before_every_ledger_is_known() -> None:
    """The one that knows of the move may be among them."""
    made = opening(lacking=[APP], trust_config=True)
    answer(made, "b")
    made.copies("b", [APP], {APP: copy(9, epoch=4)})
    made.copies("c", [APP], {})
    made.restored(APP)
    assert app(made) == Open()
    assert made.opening_records(APP, was_opened=True) == ()
    answer(made, "c")
    assert made.opening_records(APP, was_opened=True) == (LedgerEntry(APP, "a", 5, "restored"),)
