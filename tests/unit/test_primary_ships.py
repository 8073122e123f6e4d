"""Ships, and the flushes that begin them: what a primary sends to a replica that has to start over."""

from __future__ import annotations

import pytest
from support.link_harness import SHIP, Source, payload, shown, take

from kevynode.replicate.primary_states import State


@pytest.mark.parametrize("form", ["FIVE", "SIX", "EXTENDED"])
def test_a_ship_is_as_of_one_offset_and_the_stream_goes_on_there(form: str) -> None:
    source = Source()
    source.fill(500)
    link = source.link(form, SHIP)
    data = b"".join(link.take(0.0))
    assert (link.state, link.slot.state, link.slot.acked, link.caught_up) == (State.SNAPSHOT, "snapshot", 0, False)
    source.call("SET", "fill:0", "new")
    source.call("SET", "more", "new")
    data += take(link)
    steps = [step for step in shown(data) if not step.startswith("PING")]
    assert steps[-4:] == ["chunk", "END 500", "500 SET fill:0 new", "501 SET more new"]
    assert b"new" not in payload(data)
    assert (link.slot.state, link.slot.sent, link.caught_up) == ("streaming", 502, True)
    assert source.calls == [("started", "full", SHIP.reason), ("ended", len(payload(data))), ("caught up",)]


def test_every_heartbeat_of_a_ship_stands_between_its_chunks() -> None:
    source = Source()
    source.fill(2000)
    link = source.link("SIX", SHIP)
    data = b""
    beats = 0
    while link.state is not State.STREAMING:
        link.heartbeat()
        beats += 1
        data += b"".join(link.take(0.0))
    assert beats > 3
    assert shown(data).count("PING 2000") == beats
    assert shown(data)[-1] == "END 2000"


@pytest.mark.parametrize("form", ["FIVE", "SIX", "EXTENDED"])
def test_deadlines_of_hash_fields_go_to_those_who_read_them(form: str) -> None:
    source = Source()
    source.call("HSET", "h", "f", "1")
    source.call("HPEXPIREAT", "h", source.harness.now + 1000, "FIELDS", 1, "f")
    assert payload(take(source.link(form, SHIP)))[8] == (4 if form == "FIVE" else 6)


def test_what_is_behind_the_ship_is_pinned_until_the_link_has_caught_up() -> None:
    source = Source()
    source.fill(300)
    link = source.link("SIX", SHIP)
    link.take(0.0)
    (pin,) = source.backlog.pins
    assert pin.offset == 300
    source.fill(400, key="more")
    while source.calls[-1][0] != "ended":
        link.take(0.0)
    assert source.pins == 1
    link.take(0.0)
    assert not link.caught_up
    (pin,) = source.backlog.pins
    assert pin.offset > 300
    take(link)
    assert (link.caught_up, source.pins) == (True, 0)


@pytest.mark.parametrize("phase", ["shipping", "catching up"])
def test_more_than_the_backlog_may_hold_during_a_ship_ends_it(phase: str) -> None:
    source = Source(budget=200_000)
    source.fill(300)
    link = source.link("SIX", SHIP)
    link.take(0.0)
    if phase == "catching up":
        while link.state is State.SNAPSHOT:
            link.take(0.0)
    # Within twice the budget the pin holds.
    source.fill(300, key="more")
    source.backlog.seal()
    assert source.pins == 1
    source.fill(300, key="evenmore")
    assert link.take(0.0) == []
    assert link.closed
    assert "than the backlog may hold" in link.reason
    assert source.calls.count(("overrun",)) == 1
    assert source.pins == 0
    assert link.take(0.0) == []


def test_who_falls_off_the_backlog_without_a_ship_is_no_overrun() -> None:
    source = Source(budget=100_000)
    link = source.link("SIX", 0)
    take(link)
    source.fill(500)
    assert link.take(0.0) == []
    assert link.reason.startswith("the replica fell off the backlog: offset 0 is older than what is held")
    assert source.calls == []


def test_a_ship_that_may_not_start_waits_and_leaves_nothing_behind_meanwhile() -> None:
    source = Source()
    source.fill(3)
    source.gate_open = False
    link = source.link("SIX", SHIP)
    assert shown(take(link)) == ["Acknowledged", "PING 3"]
    assert (link.state, source.pins, source.calls, take(link)) == (State.HANDSHAKE, 0, [], b"")
    source.gate_open = True
    assert shown(take(link)) == ["SnapshotBegin", "chunk", "END 3"]


def test_a_ship_that_fails_to_begin_leaves_no_pin_once_its_link_is_closed() -> None:
    source = Source()
    link = source.link("SIX", SHIP)
    # In the middle of a command, where nobody may look.
    source.harness.store.emit((b"SET", b"k", b"v"), b"k")
    with pytest.raises(RuntimeError, match="between two groups"):
        link.take(0.0)
    link.close("internal error")
    assert source.pins == 0


def test_a_five_argument_replica_is_known_by_what_this_process_served_it() -> None:
    source = Source()
    source.fill(3)
    link = source.link("FIVE", 0)
    served = [link.slot.served]
    take(link)
    served.append(link.slot.served)
    source.fill(2, key="more")
    take(link)
    served.append(link.slot.served)
    assert served == [None, 3, 5]


def test_a_five_argument_replica_in_the_middle_of_a_ship_was_served_nothing() -> None:
    source = Source()
    source.fill(400)
    take(source.link("FIVE", 0))
    link = source.link("FIVE", SHIP)
    assert link.slot.served == 400
    link.take(0.0)
    assert link.state is State.SNAPSHOT
    link.close("connection lost")
    assert link.slot.served is None


# -- FLUSHALL ---------------------------------------------------------------------------------------------------------


def test_who_knows_groups_gets_flushall_as_an_entry() -> None:
    source = Source()
    source.call("SET", "k", "v")
    link = source.link("EXTENDED", 1)
    take(link)
    source.call("FLUSHALL")
    source.call("SET", "k", "w")
    assert shown(take(link)) == ["1 FLUSHALL", "2 SET k w"]


@pytest.mark.parametrize(("form", "capabilities"), [("SIX", ""), ("EXTENDED", "lineage ackreq")])
def test_who_does_not_gets_a_fresh_ship_at_once(form: str, capabilities: str) -> None:
    source = Source()
    source.call("SET", "k", "v")
    link = source.link(form, 1, capabilities)
    take(link)
    source.call("FLUSHALL")
    # Nothing wakes the link a second time.
    assert shown(b"".join(link.take(0.0)))[0] == "SnapshotBegin"
    source.call("SET", "l", "w")
    take(link)
    assert source.calls[0] == ("started", "full", "everything was flushed")
    assert link.slot.sent == 3


def test_entries_before_and_behind_a_flush_stay_in_order() -> None:
    source = Source()
    link = source.link("SIX", 0)
    take(link)
    source.call("SET", "before", "v")
    source.call("FLUSHALL")
    source.call("SET", "behind", "v")
    data = take(link)
    assert shown(data) == ["0 SET before v", "SnapshotBegin", "chunk", "END 3"]
    assert b"behind" in payload(data)
    assert b"before" not in payload(data)


def test_a_fresh_ship_that_has_to_wait_lets_no_entry_pass() -> None:
    source = Source()
    source.call("SET", "k", "v")
    link = source.link("SIX", 1)
    take(link)
    source.call("FLUSHALL")
    source.gate_open = False
    source.call("SET", "behind", "v")
    assert take(link) == b""
    assert not link.caught_up
    source.call("SET", "more", "v")
    link.heartbeat()
    assert shown(take(link)) == ["PING 4"]
    source.gate_open = True
    assert shown(take(link)) == ["SnapshotBegin", "chunk", "END 4"]
    assert link.caught_up


def test_a_flush_ends_a_five_argument_link_and_what_is_known_of_its_replica() -> None:
    source = Source()
    link = source.link("FIVE", 0)
    take(link)
    source.call("SET", "k", "v")
    take(link)
    source.call("FLUSHALL")
    assert take(link) == b""
    assert (link.reason, link.slot.served) == ("everything was flushed: the replica must start over", None)
