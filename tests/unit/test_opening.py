"""When a node opens its scopes: not while anything is missing that it must know, and always once nothing is."""

from __future__ import annotations

import attrs
import pytest
from support.opening_harness import APP, ELSE, MOVE, SAME, WEB, answer, app, copy, opening

from kevynode.scope.copies import HeldCopy
from kevynode.scope.ledger import Ledger, LedgerEntry
from kevynode.scope.ledger_records import MoveRole, MoveState, Opened, Settled, VersionFloor
from kevynode.scope.ledger_text import MAX_NUMBER
from kevynode.scope.opening import PATIENCE, RESTORED, Decision, Open, RestoreFrom, Waiting, lacks_data

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


def test_all_moves_are_known_by_a_ledger_or_by_all_answers() -> None:
    made, told = opening(), []
    for peer in ("b", "c"):
        told.append(made.knows_moves)
        answer(made, peer)
    told.append(made.knows_moves)
    made.remembered("b", 8)
    told.append(made.knows_moves)
    assert told == [False, False, True, False]
    settled = opening(is_settled=True)
    told = [settled.knows_moves]
    settled.remembered("b", 8)
    told += [settled.knows_moves, opening(trust_config=True).knows_moves]
    assert told == [True, False, True]


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


@pytest.mark.parametrize(
    ("theirs", "decision"),
    [
        (None, Open()),
        (copy(40), Open()),
        (copy(50), Open()),
        (copy(60), RestoreFrom("b", copy(60))),
        # The writer has removed everything since.
        (copy(60, keys=0), RestoreFrom("b", copy(60, keys=0))),
        (copy(40, history=2, epoch=1), RestoreFrom("b", copy(40, history=2, epoch=1))),
    ],
)
def test_what_is_here_as_a_copy_is_one_among_the_copies(theirs: HeldCopy | None, decision: Decision) -> None:
    made = opening(is_settled=True, own={APP: copy(50)})
    answer(made, "b", "c")
    assert app(made, 1000.0) == Waiting("b, c to say what copy they hold", frozenset("bc"))
    made.copies("b", [APP], {} if theirs is None else {APP: theirs})
    made.copies("c", [APP], {APP: copy(45)})
    assert app(made) == decision
    # Nobody who asks for nothing is asked.
    empty = opening(is_settled=True, own={APP: copy(50)}, start_empty=True)
    answer(empty, "b", "c")
    assert app(empty) == Open()


def test_an_epoch_that_only_the_own_copy_knows_is_not_used_again() -> None:
    made = opening(own={APP: copy(50, epoch=3)})
    answer(made, "b", "c")
    for peer in "bc":
        made.copies(peer, [APP], {APP: copy(60, epoch=1)})
    assert app(made) == Open()
    assert made.opening_records(APP, was_opened=False) == (LedgerEntry(APP, "a", 4, RESTORED), Opened(APP))


def test_who_had_no_copy_and_is_back_is_asked_again() -> None:
    made = opening(lacking=[APP])
    answer(made, "b", "c")
    for peer in "bc":
        made.copies(peer, [APP], {})
    assert app(made) == Open()
    made.disconnected("b")
    # Who does not come back has said what there is to say.
    assert app(made) == Open()
    made.declared("b", SAME)
    assert app(made) == Waiting("b to say what copy they hold", frozenset("b"))
    made.copies("b", [APP], {APP: copy(50)})
    assert app(made) == RestoreFrom("b", copy(50))


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
