"""A link whose node's files are behind: what it says all the same, and that nothing leaves that may still be lost."""

from __future__ import annotations

from typing import Any

import pytest
from support.link_harness import ALL, GENERATION, SHIP, Source, kinds, named, shown, take

from kevynode.replicate.decision import Resume, Snapshot
from kevynode.replicate.handshake import Form, Request, format_scopes
from kevynode.replicate.primary import PrimaryLink
from kevynode.replicate.primary_states import State
from kevynode.replicate.replica import ReplicaLink
from kevynode.replicate.stream_events import Ping, SnapshotEnd

PLAIN = "txn ackreq lineage"


def streaming(source: Source, form: str = "EXTENDED", capabilities: str = PLAIN) -> PrimaryLink:
    """A link that has sent everything there is so far."""
    link = source.link(form, source.backlog.next, capabilities)
    if "scopes" in capabilities:
        named(link, b"a:")
    take(link)
    return link


def held(link: PrimaryLink, *, beat: bool = False) -> list[str]:
    """What a take gives that finds the files behind; nobody is to come back at once."""
    if beat:
        link.heartbeat()
    parts = link.take(0.0)
    assert not link.busy
    return shown(b"".join(parts))


@pytest.mark.parametrize("form", ["FIVE", "SIX", "EXTENDED"])
@pytest.mark.parametrize("decision", [1, SHIP], ids=["resume", "ship"])
def test_no_handshake_is_answered_before_all_may_be_told(form: str, decision: int | Snapshot) -> None:
    source = Source()
    source.fill(2)
    source.tellable = False
    link = source.link(form, decision)
    for _ in range(3):
        assert held(link, beat=True) == []
    assert not link.waits_for_acknowledgements
    assert (link.sent_bytes, source.pins, source.calls) == (0, 0, [])
    source.tellable = True
    steps = shown(take(link))
    assert steps[0] == "Acknowledged"
    expected = {"SnapshotBegin", "chunk", "END 2"} if decision is SHIP else {f"1 SET fill:1 {'v' * 1000}"}
    assert expected <= set(steps)


def test_silence_is_counted_from_the_answer_on() -> None:
    source = Source()
    source.tellable = False
    link = source.link("EXTENDED", 0)
    link.take(20.0)
    assert link.heard == 0.0
    source.tellable = True
    link.take(30.0)
    assert (link.heard, link.waits_for_acknowledgements) == (30.0, True)


def test_no_entry_leaves_before_it_may_be_told() -> None:
    source = Source()
    link = streaming(source)
    source.tellable = False
    source.fill(2)
    assert held(link) == []
    assert (link.caught_up, link.slot.sent) == (False, 0)
    source.tellable = True
    assert [step.split(" ")[0] for step in shown(take(link))] == ["0", "1"]
    assert link.caught_up


def test_who_is_held_counts_as_behind_from_then_on() -> None:
    source = Source()
    link = streaming(source)
    source.tellable = False
    assert (held(link), link.lag_ms(9.0)) == ([], 0)
    source.fill(1)
    link.take(2.0)
    link.take(4.0)
    assert link.lag_ms(9.0) == 7000
    source.tellable = True
    link.take(9.0)
    link.acknowledged(1)
    assert link.lag_ms(9.0) == 0


def test_the_files_are_asked_once_for_each_take() -> None:
    source = Source()
    link = streaming(source)
    source.fill(20)
    before = source.asked
    link.take(0.0)
    assert source.asked == before + 1


@pytest.mark.parametrize("form", ["SIX", "EXTENDED"])
def test_heartbeats_go_on_and_tell_what_was_sent(form: str) -> None:
    source = Source()
    source.fill(3)
    link = streaming(source, form)
    source.tellable = False
    source.fill(2)
    for _ in range(3):
        assert held(link, beat=True) == ["PING 3"]
    source.tellable = True
    link.heartbeat()
    assert shown(take(link))[-1] == "PING 5"


def test_a_replica_that_is_held_does_not_take_what_it_is_told_for_a_gap() -> None:
    source = Source()
    source.fill(3)
    link = streaming(source, "SIX")
    replica = ReplicaLink(Request(Form.SIX, GENERATION, 3, "cap1", frozenset()), "primary")
    replica.start(0.0)
    replica.feed(b"+ACK %d 3\r\n" % GENERATION, 0.0)
    source.tellable = False
    source.fill(2)
    for _ in range(4):
        link.heartbeat()
        replica.feed(b"".join(link.take(0.0)), 0.0)
    assert (replica.fault, replica.expected, replica.announced) == (None, 3, 3)
    source.tellable = True
    replica.feed(take(link), 0.0)
    assert (replica.fault, replica.expected) == (None, 5)


def test_a_filtered_replica_hears_of_no_skip_before_all_may_be_told() -> None:
    source = Source()
    link = streaming(source, capabilities=ALL)
    source.tellable = False
    source.call("SET", "b:1", "v")
    assert held(link, beat=True) == ["PING 0"]
    source.call("SET", "a:1", "v")
    assert held(link, beat=True) == ["PING 0"]
    source.tellable = True
    link.heartbeat()
    assert shown(take(link)) == ["SKIP 1", "1 SET a:1 v", "PING 2"]


def test_a_request_for_acknowledgements_waits() -> None:
    source = Source()
    link = streaming(source)
    source.tellable = False
    link.ask()
    assert held(link) == []
    source.tellable = True
    assert shown(take(link)) == ["AckRequested"]


def test_no_snapshot_begins_but_one_that_has_begun_goes_on() -> None:
    source = Source()
    source.fill(400)
    source.gate_open = False
    link = source.link("EXTENDED", SHIP)
    assert kinds(b"".join(link.take(0.0)))[-1] is not SnapshotEnd
    source.gate_open, source.tellable = True, False
    # What it knows of the stream is what could be told when it was answered.
    source.fill(1, key="more")
    assert held(link, beat=True) == ["PING 400"]
    assert source.calls == []
    source.tellable = True
    data = b"".join(link.take(0.0))
    assert [call[0] for call in source.calls] == ["started"]
    source.tellable = False
    source.fill(2, key="even more")
    link.heartbeat()
    while link.state is State.SNAPSHOT:
        assert link.busy
        data += b"".join(link.take(0.0))
    assert shown(data) == ["SnapshotBegin", "chunk", "PING 401", "chunk", "END 401"]
    assert held(link, beat=True) == ["PING 401"]
    source.tellable = True
    assert [step.split(":")[0] for step in shown(take(link))] == ["401 SET even more", "402 SET even more"]


def test_a_snapshot_of_one_scope_waits_too() -> None:
    source = Source()
    source.call("SET", "a:1", "v")
    link = streaming(source, capabilities=ALL)
    source.tellable = False
    link.receive(b"REPLCONF RESYNC %b\r\n" % b"a:".hex().encode(), 0.0)
    assert held(link, beat=True) == ["PING 1"]
    source.tellable = True
    assert shown(take(link)) == ["SCOPE a:", "chunk", "END 1"]


@pytest.mark.parametrize("capabilities", [PLAIN, ALL], ids=["plain", "filtered"])
def test_a_flush_that_is_held_is_told_of_later(capabilities: str) -> None:
    source = Source()
    source.call("SET", "a:1", "v")
    link = streaming(source, capabilities=capabilities)
    source.tellable = False
    source.call("FLUSHALL")
    assert held(link, beat=True) == ["PING 1"]
    source.tellable = True
    assert kinds(take(link)) != []
    assert link.caught_up


def test_who_is_closed_asks_nobody() -> None:
    source = Source()
    link = streaming(source)
    link.close("over")
    asked = source.asked
    assert link.take(0.0) == []
    assert source.asked == asked


def test_who_waits_for_its_answer_may_be_closed_and_named() -> None:
    source = Source()
    source.tellable = False
    link = source.link("EXTENDED", 0, ALL)
    assert held(link) == []
    link.receive(format_scopes([b"a:"]), 0.0)
    assert held(link) == []
    link.close("shutting down")
    assert (link.take(0.0), link.reason) == ([], "shutting down")


@pytest.mark.parametrize("opens", [range(2, 40, 3), range(0, 40, 7), range(39, 40)])
def test_whenever_the_files_open_the_stream_is_the_same(opens: Any) -> None:
    source, free = Source(), Source()
    links = [(source, streaming(source)), (free, streaming(free))]
    out = [b"", b""]
    for step in range(40):
        source.tellable = step in opens
        for place, (origin, link) in enumerate(links):
            origin.call("SET", f"k{step}", step)
            if step % 5 == 0:
                origin.call("LMOVE", "l", "m", "LEFT", "RIGHT")
                origin.call("RPUSH", "l", step)
            out[place] += take(link)
    source.tellable = True
    out[0] += take(links[0][1])
    assert out[0] == out[1]


def test_a_resumption_that_is_held_is_no_resumption_yet() -> None:
    source = Source()
    source.fill(3)
    source.tellable = False
    request = Request(Form.EXTENDED, GENERATION, 3, "cap1", frozenset(PLAIN.split()))
    slot = source.slots.open(request, "127.0.0.1", 0.0)
    link = PrimaryLink(request, Resume(3), slot, source, 0.0)  # type: ignore[arg-type]
    link.heartbeat()
    # No PING before the answer: the replica would take it for a broken rule.
    assert Ping not in kinds(b"".join(link.take(0.0)))
    source.tellable = True
    assert shown(take(link))[0] == "Acknowledged"
