"""Slots keep a replica's place by the clock they are told, and believe of acknowledgements only what can be true."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kevynode.replicate.request import CAPABILITIES, Form, Request
from kevynode.replicate.slots import Refusal, Slot, Slots, SyncRecord

CAPABLE = frozenset(CAPABILITIES) - {"scopes"}


def request(
    replica_id: str = "r", form: Form = Form.EXTENDED, capabilities: frozenset[str] = CAPABLE, offset: int = 0
) -> Request:
    return Request(form, 0, offset, replica_id, capabilities if form is Form.EXTENDED else frozenset())


def connect(
    slots: Slots, now: float, replica_id: str = "r", address: str = "10.0.0.1", form: Form = Form.EXTENDED
) -> Slot:
    slot = slots.open(request(replica_id, form), address, now)
    assert isinstance(slot, Slot)
    return slot


def streaming(
    slots: Slots, now: float, replica_id: str, offset: int, prefixes: tuple[bytes, ...] | None = None
) -> Slot:
    """A connected replica that has everything before ``offset`` of history 1."""
    slot = connect(slots, now, replica_id)
    slot.resumed(1, offset, now)
    slot.prefixes = prefixes
    return slot


# Who is who.


def test_a_new_replica_gets_a_slot_of_its_own() -> None:
    slots = Slots()
    slot = connect(slots, 5.0, "kevy-replica-6004#0", "10.0.0.1", Form.SIX)
    assert (slot.replica_id, slot.address, slot.port) == ("kevy-replica-6004#0", "10.0.0.1", 6004)
    assert (slot.connected, slot.connected_at, slot.state, slot.deadline) == (True, 5.0, "handshake", None)
    assert (slot.history, slot.sent, slot.acked, slot.acked_at) == (0, 0, 0, None)
    assert (slot.prefixes, slot.last_sync, slot.takeovers, slot.link) == (None, None, 0, 1)
    assert list(slots) == [slot]
    assert len(slots) == 1


@pytest.mark.parametrize(
    ("replica_id", "port"),
    [
        ("kevy-replica-6004#0", 6004),
        ("kevynode-replica-16004#b41c", 16004),
        ("kevy-replica-65535#", 65535),
        ("kevy-replica-65536#0", 0),
        ("kevy-replica-123456#0", 0),
        ("kevy-replica-3", 0),
        ("kevy-replica-#0", 0),
        ("my kevy-replica-6004#0", 0),
        ("kevy-replica-\N{ARABIC-INDIC DIGIT SIX}#0", 0),
        ("", 0),
    ],
)
def test_the_port_is_told_by_ids_of_a_known_form(replica_id: str, port: int) -> None:
    assert connect(Slots(), 0.0, replica_id).port == port


def test_a_replica_with_capabilities_is_known_by_its_id_wherever_it_connects_from() -> None:
    slots = Slots()
    slot = connect(slots, 0.0, "r", "10.0.0.1")
    assert slot.key == ("r",)
    slots.disconnected(slot, 1.0)
    assert connect(slots, 2.0, "r", "10.0.0.2") is slot
    assert slot.address == "10.0.0.2"
    assert slot.takeovers == 0


@pytest.mark.parametrize("form", [Form.FIVE, Form.SIX])
def test_others_are_told_apart_by_their_address_too(form: Form) -> None:
    slots = Slots()
    one = connect(slots, 0.0, "kevy-replica-6004#0", "10.0.0.1", form)
    other = connect(slots, 0.0, "kevy-replica-6004#0", "10.0.0.2", form)
    assert one is not other
    assert one.key == ("kevy-replica-6004#0", "10.0.0.1")
    assert connect(slots, 1.0, "kevy-replica-6004#0", "10.0.0.1", form) is one
    assert slots.find(request("kevy-replica-6004#0", form), "10.0.0.2") is other
    assert slots.find(request("kevy-replica-6004#0"), "10.0.0.2") is None


def test_whoever_made_up_an_id_and_left_makes_room_for_a_replica() -> None:
    slots = Slots(limit=2)
    stranger = connect(slots, 0.0, "stranger")
    slots.disconnected(stranger, 1.0)
    known = connect(slots, 2.0, "known")
    known.last_sync = SyncRecord("full", "new", 2.0)
    slots.disconnected(known, 3.0)
    assert isinstance(slots.open(request("newcomer"), "10.0.0.2", 4.0), Slot)
    assert list(slots) == [known, slots.find(request("newcomer"), "10.0.0.2")]
    # The place of a replica that was served is kept.
    assert isinstance(slots.open(request("another"), "10.0.0.3", 5.0), Refusal)


def test_there_are_only_so_many_slots() -> None:
    slots = Slots(limit=2)
    first = connect(slots, 0.0, "a")
    connect(slots, 0.0, "b")
    refusal = slots.open(request("c"), "10.0.0.1", 1.0)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "there are 2 replicas already"
    # Who has one may come back, and room that is given up is free again.
    slots.disconnected(first, 1.0)
    assert connect(slots, 2.0, "a") is first
    slots.forget(first)
    slots.forget(first)
    connect(slots, 3.0, "c")
    assert len(slots) == 2


# The reconnect window.


def test_a_place_is_kept_for_the_window() -> None:
    slots = Slots(window_ms=60_000)
    slot = streaming(slots, 0.0, "r", 70)
    assert (slot.connected, slot.deadline) == (True, None)
    slots.disconnected(slot, 100.0)
    assert (slot.connected, slot.state, slot.deadline) == (False, "waiting", 160.0)
    # Hearing it again changes nothing.
    slots.disconnected(slot, 130.0)
    assert slot.deadline == 160.0
    slots.forget(slot)
    assert len(slots) == 0
    assert connect(slots, 161.0) is not slot


def test_coming_back_in_time_ends_the_wait_and_keeps_what_is_known() -> None:
    slots = Slots(window_ms=1000)
    slot = streaming(slots, 0.0, "r", 70)
    slot.last_sync = SyncRecord("partial", "resumes at 70", 0.0)
    slots.disconnected(slot, 1.0)
    assert connect(slots, 1.9) is slot
    assert (slot.deadline, slot.connected_at, slot.state, slot.acked, slot.link) == (None, 1.9, "handshake", 70, 2)
    assert slot.last_sync is not None


def test_a_new_window_holds_for_those_who_are_away_already() -> None:
    slots = Slots(window_ms=1000)
    away, here = connect(slots, 0.0, "a"), connect(slots, 0.0, "b")
    slots.disconnected(away, 10.0)
    slots.window_ms = 5000
    assert slots.window_ms == 5000
    assert (away.deadline, here.deadline) == (15.0, None)
    slots.window_ms = 0
    assert (away.deadline, here.deadline) == (10.0, None)


def test_the_end_of_a_connection_that_was_taken_over_changes_nothing() -> None:
    slots = Slots()
    slot = connect(slots, 0.0)
    old = slot.link
    assert connect(slots, 1.0) is slot
    slots.disconnected(slot, 2.0, old)
    assert (slot.connected, slot.deadline) == (True, None)
    slots.disconnected(slot, 3.0, slot.link)
    assert (slot.connected, slot.deadline) == (False, 63.0)


def test_a_slot_that_is_gone_is_out_of_reach() -> None:
    slots = Slots()
    slot = streaming(slots, 0.0, "r", 5)
    slots.forget(slot)
    newer = streaming(slots, 1.0, "r", 5)
    slots.disconnected(slot, 2.0)
    slots.forget(slot)
    assert not slots.acknowledge(slot, 1, 6, 2.0, 10)
    assert list(slots) == [newer]
    assert newer.connected


# Takeovers.


def test_a_newcomer_takes_over_and_the_third_time_within_ten_seconds_is_refused() -> None:
    slots = Slots()
    slot = connect(slots, 0.0, address="10.0.0.1")
    for now in (1.0, 2.0):
        assert connect(slots, now, address="10.0.0.2") is slot
    assert (slot.takeovers, slot.link, slot.address) == (2, 3, "10.0.0.2")
    refusal = slots.open(request(), "10.0.0.3", 10.9)
    assert refusal == Refusal(
        "id 'r' was taken over 3 times within 10 seconds: two nodes use it, at 10.0.0.2 and 10.0.0.3", 20.9
    )
    # The connection that is there stays what it was.
    assert (slot.takeovers, slot.link, slot.address, slot.connected_at) == (2, 3, "10.0.0.2", 2.0)
    again = slots.open(request(), "10.0.0.3", 20.8)
    assert again == Refusal("id 'r' is used by two nodes, at 10.0.0.2 and 10.0.0.3", 20.9)
    assert connect(slots, 20.9, address="10.0.0.3") is slot
    assert (slot.takeovers, slot.address) == (3, "10.0.0.3")


def test_an_id_stands_in_a_reason_without_doing_harm() -> None:
    slots = Slots()
    replica_id = "x\r\n" + "y" * 4000
    for _ in range(3):
        connect(slots, 0.0, replica_id)
    refusal = slots.open(request(replica_id), "10.0.0.1", 0.0)
    assert isinstance(refusal, Refusal)
    assert refusal.reason.startswith("id 'x\\r\\nyyy")
    assert len(refusal.reason) < 256


def test_takeovers_that_are_further_apart_are_one_node_that_reconnects() -> None:
    slots = Slots()
    slot = connect(slots, 0.0)
    for number in range(1, 20):
        assert connect(slots, number * 5.0) is slot
    assert slot.takeovers == 19


def test_coming_back_to_an_empty_place_is_no_takeover_and_never_refused() -> None:
    slots = Slots()
    slot = connect(slots, 0.0)
    for number in range(10):
        slots.disconnected(slot, number / 10)
        assert connect(slots, number / 10) is slot
    assert slot.takeovers == 0
    connect(slots, 1.0)
    connect(slots, 1.0)
    assert isinstance(slots.open(request(), "10.0.0.9", 1.0), Refusal)
    slots.disconnected(slot, 1.5)
    assert connect(slots, 1.6) is slot


def test_replicas_without_capabilities_are_never_refused_for_it() -> None:
    slots = Slots()
    slot = connect(slots, 0.0, form=Form.SIX)
    for _ in range(10):
        assert connect(slots, 0.0, form=Form.SIX) is slot
    assert slot.takeovers == 10


# Acknowledgements.


def test_an_acknowledgement_moves_the_position() -> None:
    slots = Slots()
    slot = streaming(slots, 0.0, "r", 10)
    slot.sent = 15
    assert slots.acknowledge(slot, 1, 12, 3.0, 20)
    assert (slot.acked, slot.sent, slot.acked_at) == (12, 15, 3.0)
    # The same again says that the replica is alive.
    assert slots.acknowledge(slot, 1, 12, 4.0, 20)
    assert slot.acked_at == 4.0
    # It may be quicker than our own note of what was sent.
    assert slots.acknowledge(slot, 1, 20, 5.0, 20)
    assert (slot.acked, slot.sent) == (20, 20)


@pytest.mark.parametrize(("history", "offset"), [(1, 21), (1, 9), (1, 2**64), (2, 15), (0, 15), (1, -1)])
def test_an_acknowledgement_that_cannot_be_true_is_not_taken(history: int, offset: int) -> None:
    slots = Slots()
    slot = streaming(slots, 0.0, "r", 10)
    assert not slots.acknowledge(slot, history, offset, 3.0, 20)
    assert (slot.acked, slot.sent, slot.acked_at) == (10, 10, 0.0)


def test_another_history_begins_a_new_count() -> None:
    slots = Slots()
    slot = streaming(slots, 0.0, "r", 10)
    slot.resumed(2, 4, 1.0)
    assert (slot.history, slot.acked, slot.sent) == (2, 4, 4)
    assert not slots.acknowledge(slot, 1, 10, 2.0, 20)
    assert slots.acknowledge(slot, 2, 5, 2.0, 20)


def test_a_replica_that_comes_back_with_less_counts_for_no_more_than_that() -> None:
    slots = Slots()
    slot = streaming(slots, 0.0, "r", 10)
    slots.disconnected(slot, 1.0)
    connect(slots, 2.0).resumed(1, 7, 2.0)
    assert (slots.acked(8), slots.acked(7)) == (0, 1)


def test_what_a_replica_holds_while_it_is_sent_a_snapshot_does_not_count() -> None:
    slots = Slots()
    slot = streaming(slots, 0.0, "r", 10)
    slot.ship_began(1)
    assert (slot.state, slot.acked, slot.acked_at) == ("snapshot", 0, None)
    # It may still tell the position of the data that are about to be replaced.
    assert not slots.acknowledge(slot, 1, 10, 1.0, 50)
    slot.ship_ended(40)
    assert (slot.state, slot.sent, slot.acked) == ("streaming", 40, 0)
    assert not slots.acknowledge(slot, 1, 39, 1.0, 50)
    assert (slots.acked(1), slots.good(1.0, 10.0)) == (0, 0)
    assert slots.acknowledge(slot, 1, 40, 1.0, 50)
    assert (slots.acked(40), slots.good(1.0, 10.0)) == (1, 1)
    # A later resumption is not bound by where that snapshot ended.
    slot.resumed(1, 30, 2.0)
    assert slots.acknowledge(slot, 1, 31, 2.0, 50)


def test_nothing_is_heard_from_a_connection_that_has_ended_or_not_begun() -> None:
    slots = Slots()
    slot = streaming(slots, 0.0, "r", 10)
    slots.disconnected(slot, 1.0)
    assert not slots.acknowledge(slot, 1, 12, 1.0, 20)
    connect(slots, 2.0)
    assert not slots.acknowledge(slot, 1, 12, 2.0, 20)
    assert slot.acked == 10


events = st.one_of(
    st.tuples(st.just("ack"), st.integers(0, 3), st.integers(-2, 60)),
    st.tuples(st.just("write"), st.just(0), st.integers(1, 9)),
    st.tuples(st.just("send"), st.just(0), st.integers(1, 9)),
    st.tuples(st.just("resume"), st.integers(1, 3), st.integers(0, 60)),
    st.tuples(st.just("ship"), st.integers(1, 3), st.just(0)),
    st.tuples(st.just("ship end"), st.just(0), st.just(0)),
    st.tuples(st.just("reconnect"), st.just(0), st.just(0)),
)


@given(st.lists(events, max_size=40))
def test_positions_never_lie(sequence: list[tuple[str, int, int]]) -> None:
    slots = Slots()
    slot = connect(slots, 0.0)
    next_offset, history = 10, 1
    for now, (what, claimed, number) in enumerate(sequence):
        before = (slot.history, slot.acked, slot.state)
        if what == "ack":
            taken = slots.acknowledge(slot, claimed, number, float(now), next_offset)
            true = before[2] == "streaming" and claimed == slot.history and before[1] <= number <= next_offset
            assert not taken or true
            assert slot.acked == (number if taken else before[1])
            assert slot.acked >= before[1]
        elif what == "write":
            next_offset += number
        elif what == "send":
            slot.sent = min(next_offset, slot.sent + number)
        elif what == "resume":
            history = claimed
            slot.resumed(history, min(number, next_offset), float(now))
        elif what == "ship":
            history = claimed
            slot.ship_began(history)
        elif what == "ship end" and slot.state == "snapshot":
            slot.ship_ended(next_offset)
        elif what == "reconnect":
            slots.disconnected(slot, float(now))
            assert connect(slots, float(now)) is slot
        assert 0 <= slot.acked <= slot.sent <= next_offset
        if slot.history != before[0]:
            assert slot.history == history


# Counting.


def test_only_replicas_that_stream_and_have_it_all_count_for_wait() -> None:
    slots = Slots()
    streaming(slots, 0.0, "a", 10)
    streaming(slots, 0.0, "b", 12)
    away = streaming(slots, 0.0, "c", 15)
    slots.disconnected(away, 1.0)
    connect(slots, 0.0, "d")
    assert [slots.acked(offset) for offset in (0, 10, 11, 12, 13)] == [2, 2, 1, 1, 0]


def test_a_filtered_replica_counts_only_for_what_it_follows() -> None:
    slots = Slots()
    streaming(slots, 0.0, "all", 10)
    streaming(slots, 0.0, "two", 10, (b"app:", b"web:"))
    streaming(slots, 0.0, "none", 10, ())

    def count(*keys: bytes) -> int:
        counted = slots.acked(10, frozenset(keys))
        assert slots.good(1.0, 5.0, frozenset(keys)) == counted
        return counted

    assert count(b"app:1") == 2
    assert count(b"app:1", b"web:") == 2
    assert count(b"app:1", b"loose") == 1
    assert count(b"ap") == 1
    assert count() == 3
    assert slots.acked(10) == slots.good(1.0, 5.0) == 1


def test_a_filtered_replica_counts_for_nothing_before_it_has_said_what_it_follows() -> None:
    slots = Slots()
    filtered = request(capabilities=frozenset(CAPABILITIES))
    slot = slots.open(filtered, "10.0.0.1", 0.0)
    assert isinstance(slot, Slot)
    slot.resumed(1, 10, 0.0)
    assert slots.acked(10) == slots.acked(10, frozenset([b"app:1"])) == 0
    slot.prefixes = (b"app:",)
    assert slots.acked(10, frozenset([b"app:1"])) == 1
    # Nor is what it followed last what it will follow next.
    slots.disconnected(slot, 1.0)
    assert slots.open(filtered, "10.0.0.1", 1.0) is slot
    slot.resumed(1, 10, 1.0)
    assert slots.acked(10, frozenset([b"app:1"])) == 0


def test_good_replicas_have_acknowledged_lately() -> None:
    slots = Slots()
    slot = streaming(slots, 0.0, "a", 10)
    silent = streaming(slots, 100.0, "b", 10)
    assert slots.good(100.0, 10.0) == 1
    slots.acknowledge(slot, 1, 10, 105.0, 10)
    assert slots.good(110.0, 10.0) == 2
    assert slots.good(110.1, 10.0) == 1
    assert slots.good(115.0, 10.0) == 1
    assert slots.good(115.1, 10.0) == 0
    assert slots.good(115.1, 20.0) == 2
    slots.disconnected(silent, 116.0)
    assert slots.good(116.0, 20.0) == 1


def test_a_replica_that_never_acknowledges_is_not_a_good_one() -> None:
    slots = Slots()
    slot = connect(slots, 0.0, form=Form.FIVE)
    slot.resumed(1, 10, 0.0)
    assert slots.good(0.0, 10.0) == 0
    assert slots.acked(10) == 1
    # Its next version may.
    slots.disconnected(slot, 1.0)
    again = connect(slots, 2.0, form=Form.SIX)
    assert again is slot
    again.resumed(1, 10, 2.0)
    assert slots.good(2.0, 10.0) == 1
