"""What follows from what peers say: who is one, when a ledger is sent, when all is known."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.peer_facts import EMPTY, ENTRY, OTHER, OURS, OWN, THEIRS, Peer, beat

from kevynode.scope.copies import HeldCopy
from kevynode.scope.peer_actions import (
    Action,
    ConfigurationKnown,
    LedgerKnown,
    Merge,
    NoteVersion,
    PeerWentBack,
    Remembered,
    SendConfiguration,
    SendLedger,
)
from kevynode.scope.peer_messages import (
    CONFIGURATION_BYTES_LIMIT,
    Beat,
    Configuration,
    ConfigurationRows,
    CopiesAsked,
    CopiesHeld,
    Hello,
    LedgerPage,
    Refused,
    ScopeRow,
    Welcome,
)
from kevynode.scope.peer_state import DeclaredPeer, LinkState, PeerStates
from kevynode.scope.peer_wire import PeerWireError

# -- ledgers ----------------------------------------------------------------------------------------------------------


def test_a_first_heartbeat_with_another_digest_is_answered_with_the_ledger() -> None:
    peer = Peer()
    link = peer.link()
    assert SendLedger() in peer.take(link, beat(OTHER))
    facts = peer.state.facts(peer.time)
    assert (facts.ledger_equal, facts.ledger_known, facts.answered) == (False, False, False)


def test_equal_ledgers_and_configurations_are_all_there_is_to_know() -> None:
    peer = Peer()
    link = peer.link()
    assert peer.take(link, beat()) == [Remembered(0), ConfigurationKnown(None), LedgerKnown()]
    peer.state.answered()
    assert peer.take(link, beat(), 1) == []
    facts = peer.state.facts(peer.time + 1)
    assert (facts.ledger_equal, facts.answered, facts.same_configuration) == (True, True, True)
    assert (facts.since, facts.silence) == (2, 1)


def test_a_difference_that_vanishes_at_once_is_not_worth_a_ledger() -> None:
    peer = Peer()
    link = peer.link()
    peer.take(link, beat())
    assert peer.take(link, beat(OTHER), 1) == []
    assert peer.take(link, beat(), 0.1) == []
    # The difference counts anew.
    assert peer.take(link, beat(OTHER), 1) == []
    assert peer.take(link, beat(OTHER), 0.4) == []
    assert peer.take(link, beat(OTHER), 0.1) == [SendLedger()]


def test_ledgers_are_sent_less_often_if_that_changes_nothing_and_at_once_if_something_did() -> None:
    peer = Peer()
    link = peer.link()
    sent = [peer.time for _ in range(400) if SendLedger() in peer.take(link, beat(OTHER), 1)]
    gaps = [after - before for before, after in pairwise(sent)]
    assert gaps == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60]
    for _ in range(3):
        peer.own = attrs.evolve(peer.own, ledger_digest=f"{int(peer.time):064x}")
        peer.time = max(peer.time, peer.state._exchange_after)
        assert peer.take(link, beat(OTHER)) == [SendLedger()]
        assert peer.take(link, beat(OTHER), 0.5) == []
        assert peer.take(link, beat(OTHER), 0.5) == [SendLedger()]


def test_two_links_are_not_two_reasons_to_send_it_but_a_lost_one_is() -> None:
    peer = Peer()
    first, second = peer.link("out"), peer.link("in")
    assert SendLedger() in peer.take(first, beat(OTHER))
    assert SendLedger() not in peer.take(second, beat(OTHER), 0.1)
    peer.state.detach(second, "gone", peer.time)
    assert SendLedger() not in peer.take(first, beat(OTHER), 0.6)
    again = peer.link("in")
    peer.state.detach(first, "gone", peer.time)
    assert SendLedger() in peer.take(again, beat(OTHER), 0.1)


def test_all_is_known_behind_the_last_page() -> None:
    peer = Peer()
    link = peer.link()
    peer.take(link, beat(OTHER))
    assert peer.take(link, LedgerPage("NEWS", (ENTRY,))) == [Merge((ENTRY,))]
    assert peer.take(link, LedgerPage("PART", (ENTRY,))) == [Merge((ENTRY,))]
    assert peer.take(link, LedgerPage("LAST", (ENTRY,))) == [Merge((ENTRY,)), LedgerKnown()]
    assert peer.take(link, LedgerPage("LAST", ())) == [LedgerKnown()]


def test_nothing_is_known_of_a_peer_that_has_not_said_what_it_is() -> None:
    peer = Peer()
    link = peer.link()
    assert peer.take(link, LedgerPage("LAST", (ENTRY,))) == [Merge((ENTRY,))]
    # What it had before it said so does not count.
    assert LedgerKnown() not in peer.take(link, beat(OTHER))


# -- versions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("facts", [{"state": "Waiting for b"}, {"state": ""}, {"client_address": "x" * 257}])
def test_a_node_does_not_say_of_itself_what_no_peer_takes(facts: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(facts))):
        attrs.evolve(OWN, **facts)


def test_a_version_is_noted_until_it_is_remembered() -> None:
    peer = Peer(announced=3)
    link = peer.link()
    assert NoteVersion(4) in peer.take(link, beat(version=4))
    assert NoteVersion(4) in peer.take(link, beat(version=4), 1)
    assert peer.state.beat(OWN).remembered == 3
    peer.state.noted(4)
    peer.state.noted(2)
    assert peer.take(link, beat(version=4), 1) == []
    assert peer.state.beat(OWN) == Beat(EMPTY, 5, 4, OURS.digest, "serving", "a:6004")


def test_a_peer_that_went_back_is_named_once_each_time() -> None:
    peer = Peer(announced=9)
    link = peer.link()
    assert PeerWentBack(4, 9) in peer.take(link, beat(version=4))
    assert peer.take(link, beat(version=4), 1) == []
    assert peer.take(link, beat(version=5), 1) == []
    assert peer.take(link, beat(version=3), 1) == [PeerWentBack(3, 9)]
    assert peer.take(link, beat(version=9), 1) == []
    assert peer.take(link, beat(version=8), 1) == [PeerWentBack(8, 9)]
    assert peer.state.announced == 9


def test_a_peer_whose_heartbeats_overtake_each_other_on_its_links_has_not_gone_back() -> None:
    peer = Peer(announced=3)
    ours, theirs = peer.link("out"), peer.link("in")
    assert NoteVersion(5) in peer.take(theirs, beat(version=5))
    peer.state.noted(5)
    assert peer.take(ours, beat(version=4))[0] == Remembered(0)
    assert peer.take(theirs, beat(version=4), 1) == []


def test_what_a_peer_said_while_it_was_dialled_is_not_gone_back_from() -> None:
    peer = Peer(announced=3)
    dialled_at = peer.state.announced
    theirs = peer.link("in")
    assert NoteVersion(5) in peer.take(theirs, beat(version=5))
    peer.state.noted(5)
    # Its first heartbeat there is older than what it has said here in between.
    ours, _ = peer.state.attach("out", "i", peer.time, dialled_at)
    assert PeerWentBack(4, 5) not in peer.take(ours, beat(version=4))
    # One that it was dialled after must not be below that.
    later, _ = peer.state.attach("out", "i", peer.time, peer.state.announced)
    assert PeerWentBack(4, 5) in peer.take(later, beat(version=4))


def test_what_it_remembers_of_us_is_told_first_on_each_link_and_when_it_changes() -> None:
    peer = Peer()
    link = peer.link()
    peer.take(link, beat(remembered=7))
    assert peer.take(link, beat(remembered=7), 1) == []
    # All is to be known anew by a node that has found out that it went back.
    assert peer.take(link, beat(remembered=8), 1) == [Remembered(8), LedgerKnown()]
    other = peer.link("in")
    assert peer.take(other, beat(remembered=8), 1) == [Remembered(8), LedgerKnown()]
    assert peer.state.facts(peer.time).remembers == 8


# -- configurations ---------------------------------------------------------------------------------------------------


def pieces(configuration: Configuration) -> list[ConfigurationRows]:
    return [ConfigurationRows(n, len(configuration.rows), (row,)) for n, row in enumerate(configuration.rows)]


def take_all(peer: Peer, link: LinkState, said: list[ConfigurationRows]) -> list[Action]:
    return [action for piece in said for action in peer.take(link, piece)]


def test_another_configuration_is_taken_piece_by_piece_and_known_before_the_ledger() -> None:
    peer = Peer()
    link = peer.link()
    assert peer.take(link, beat(configuration=THEIRS)) == [Remembered(0), SendConfiguration()]
    assert peer.take(link, beat(configuration=THEIRS), 1) == []
    first, second = pieces(THEIRS)
    assert peer.take(link, first) == []
    assert peer.take(link, first) == []
    assert peer.take(link, second) == [ConfigurationKnown(THEIRS), LedgerKnown()]
    assert peer.state.same_configuration is False
    # The same on the other link is no news.
    other = peer.link("in")
    assert peer.take(other, beat(configuration=THEIRS)) == [Remembered(0), SendConfiguration(), LedgerKnown()]
    assert [action for piece in pieces(THEIRS) for action in peer.take(other, piece)] == [LedgerKnown()]
    # It came back with ours.
    peer.state.detach(link, "gone", peer.time)
    peer.state.detach(other, "gone", peer.time)
    assert peer.state.same_configuration is False
    assert ConfigurationKnown(None) in peer.take(peer.link(), beat())
    assert peer.state.same_configuration is True


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ([ConfigurationRows(1, 2, THEIRS.rows[1:])], "row 1 of a configuration follows 0 rows"),
        ([*pieces(THEIRS)[:1], ConfigurationRows(0, 2, THEIRS.rows), pieces(THEIRS)[1]], "row 1 of a configuration"),
        ([ConfigurationRows(0, 1, THEIRS.rows[:1])], "another digest than the heartbeat's"),
        (
            [ConfigurationRows(n, 65536, (ScopeRow(b"%05d" % n + b"p" * 1000, "a"),)) for n in range(9000)],
            f"a configuration of more than {CONFIGURATION_BYTES_LIMIT} bytes",
        ),
    ],
)
def test_pieces_that_do_not_fit_end_the_link(said: list[ConfigurationRows], reason: str) -> None:
    peer = Peer()
    link = peer.link()
    peer.take(link, beat(configuration=THEIRS))
    with pytest.raises(PeerWireError, match=reason):
        take_all(peer, link, said)


def test_a_configuration_before_the_first_heartbeat_ends_the_link() -> None:
    peer = Peer()
    with pytest.raises(PeerWireError, match="before the first heartbeat"):
        peer.take(peer.link(), pieces(THEIRS)[0])


def test_questions_and_answers_are_passed_on() -> None:
    peer = Peer()
    link = peer.link()
    for message in (CopiesAsked(1, (b"p",)), CopiesHeld(2, ((b"p", HeldCopy(1, 2, 3)),))):
        assert peer.take(link, message) == [message]


# -- links ------------------------------------------------------------------------------------------------------------


def test_a_peer_is_up_while_it_has_a_link() -> None:
    peer = Peer()
    facts = peer.state.facts(peer.time + 3)
    assert (facts.up, facts.since, facts.silence, facts.ledger_equal, facts.same_configuration) == (
        False, 3, None, None, None,
    )  # fmt: skip
    first, second = peer.link("out"), peer.link("in")
    peer.take(first, beat(), 5)
    peer.state.detach(first, "cut", peer.time)
    assert (peer.state.up, peer.state.problem, peer.state.facts(peer.time).since) == (True, "cut", 5)
    peer.state.detach(first, "again", peer.time)
    assert peer.state.problem == "cut"
    peer.time += 2
    peer.state.detach(second, "cut, too", peer.time)
    facts = peer.state.facts(peer.time + 1)
    assert (facts.up, facts.since, facts.problem, facts.state, facts.ledger_equal) == (False, 1, "cut, too", "", None)
    assert (facts.ledger_version, facts.instance, facts.silence) == (0, "i", 3)


def test_a_link_takes_the_place_of_its_predecessor_and_of_another_instances() -> None:
    peer = Peer()
    ours, theirs = peer.link("out"), peer.link("in")
    again, replaced = peer.state.attach("in", "i", peer.time)
    assert replaced == (theirs,)
    newer, replaced = peer.state.attach("out", "other", peer.time)
    assert set(replaced) == {ours, again}
    assert peer.state.links == {"out": newer}


def test_the_node_at_the_configured_address_is_the_peer_while_it_is_heard() -> None:
    peer = Peer()
    link = peer.link("out", "right")
    assert peer.state.refusal("right", peer.time) == ""
    assert "another node answers to b at b:16004" in peer.state.refusal("wrong", peer.time + 3)
    assert peer.state.refusal("wrong", peer.time + 3.1) == ""
    peer.take(link, beat(), 4)
    assert peer.state.refusal("wrong", peer.time + 3) != ""
    peer.state.detach(link, "gone", peer.time)
    assert peer.state.refusal("wrong", peer.time) == ""


def test_three_takeovers_in_ten_seconds_are_two_nodes_with_one_id() -> None:
    peer = Peer()
    peer.link("in")
    assert peer.state.refusal("i", peer.time) == peer.state.refusal("i", peer.time + 4) == ""
    assert "3 takeovers within 10 s" in peer.state.refusal("i", peer.time + 10)
    assert "this one came last" in peer.state.refusal("i", peer.time + 19.9)
    assert peer.state.refusal("i", peer.time + 20) == ""
    # Slower ones are a peer that has trouble with its connections.
    slow = Peer()
    slow.link("in")
    assert [slow.state.refusal("i", slow.time + 5.1 * number) for number in range(20)] == [""] * 20


# -- who may be a peer ------------------------------------------------------------------------------------------------


def everybody() -> PeerStates:
    declared = [DeclaredPeer("a", "a:1"), DeclaredPeer("b", "b:1"), DeclaredPeer("k", "k:1", "kevy")]
    return PeerStates("a", "instance", declared, {"b": 6}.__getitem__, 100.0)


def test_peers_are_the_other_nodes_of_our_kind() -> None:
    states = everybody()
    assert [(peer.node_id, peer.announced) for peer in states] == [("b", 6)]
    assert len(states) == 1
    peer = states.get("b")
    assert peer is not None
    assert states.get("a") is states.get("k") is None
    assert states.hello(peer) == Hello(1, "a", "instance", "b")
    assert states.welcome() == Welcome(1, "a", "instance")
    assert states.recognise(Hello(1, "b", "i", "a"), 100.0) is peer


@pytest.mark.parametrize(
    ("hello", "code"),
    [
        (Hello(2, "b", "i", "a"), "version"),
        (Hello(1, "a", "i", "a"), "same-node"),
        (Hello(1, "a", "instance", "a"), "same-node"),
        (Hello(1, "b", "instance", "a"), "same-instance"),
        (Hello(1, "x", "instance", "a"), "same-instance"),
        (Hello(1, "x", "i", "a"), "unknown"),
        (Hello(1, "k", "i", "a"), "unknown"),
        (Hello(1, "b", "i", "b"), "misplaced"),
    ],
)
def test_all_others_are_refused_by_name(hello: Hello, code: str) -> None:
    refused = everybody().recognise(hello, 100.0)
    assert isinstance(refused, Refused)
    assert (refused.version, refused.code) == (1, code)
    assert refused.text


def test_an_answer_that_is_not_the_peers_is_objected_to() -> None:
    states = everybody()
    peer = states.get("b")
    assert peer is not None
    assert states.objection(peer, Welcome(1, "b", "i")) == ""
    for answer in (Welcome(1, "c", "i"), Welcome(2, "b", "i"), Welcome(1, "b", "instance"), Refused(1, "x", "why")):
        assert states.objection(peer, answer).startswith("b:1 ")


# -- any order --------------------------------------------------------------------------------------------------------

steps = st.lists(
    st.tuples(
        st.sampled_from(["beat", "attach", "detach", "page", "rows"]),
        st.sampled_from(["in", "out"]),
        st.sampled_from(["i", "j"]),
        st.sampled_from([EMPTY, OTHER]),
        st.sampled_from([OURS, THEIRS]),
        st.integers(0, 3),
        st.sampled_from([0.0, 0.02, 0.6, 1.0, 11.0]),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(steps)
def test_in_any_order_of_things_the_rules_hold(found: list[tuple[Any, ...]]) -> None:
    peer = Peer()
    state = peer.state
    sent = -100.0
    for kind, direction, instance, digest, configuration, number, after in found:
        peer.time += after
        link = state.links.get(direction)
        actions: list[Action] = []
        if kind == "attach":
            link, replaced = state.attach(direction, instance, peer.time)
            assert state.links[direction] is link
            assert not any(other in state.links.values() for other in replaced)
        elif link is None:
            continue
        elif kind == "detach":
            state.detach(link, "gone", peer.time)
            sent = -100.0
        elif kind == "beat":
            actions = peer.take(link, beat(digest, number, number, configuration))
        elif kind == "page":
            actions = peer.take(link, LedgerPage("LAST", ()))
        else:
            try:
                actions = [action for piece in pieces(configuration) for action in peer.take(link, piece)]
            except PeerWireError:
                state.detach(link, "lied", peer.time)
                sent = -100.0
        if SendLedger() in actions:
            assert peer.time - sent >= 1 or kind == "attach"
            sent = peer.time
        if kind == "attach":
            sent = -100.0
        for action in actions:
            if isinstance(action, NoteVersion):
                assert action.version > state.announced
                state.noted(action.version)
        if LedgerKnown() in actions:
            assert state.same_configuration is not None
            assert link is not None
            assert link.beat is not None
        assert len({other.instance for other in state.links.values()}) <= 1
        facts = state.facts(peer.time)
        assert facts.up == bool(state.links)
        assert facts.up or facts.ledger_equal is None
        assert min(facts.since, facts.silence or 0) >= 0
