"""A primary's link to one replica, without I/O: what it sends, when, and what the replica may say."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.link_harness import ALL, GENERATION, SHIP, Source, kinds, payload, shown, take
from support.store_harness import Word

from kevynode.replicate import wire
from kevynode.replicate.decision import Snapshot
from kevynode.replicate.handshake import format_scopes
from kevynode.replicate.primary import TAKE, PrimaryLink
from kevynode.replicate.primary_states import TRANSITIONS, State
from kevynode.replicate.stream_events import Ping

VECTORS = Path(__file__).parents[1] / "vectors"


# -- the table --------------------------------------------------------------------------------------------------------

H, N, S, C = State.HANDSHAKE, State.SNAPSHOT, State.STREAMING, State.CLOSED


@pytest.mark.parametrize(
    ("state", "cause", "then"),
    [
        (H, "resume", S), (H, "ship", N), (H, "shipped", None), (H, "close", C),
        (N, "resume", None), (N, "ship", None), (N, "shipped", S), (N, "close", C),
        (S, "resume", None), (S, "ship", N), (S, "shipped", None), (S, "close", C),
        (C, "resume", None), (C, "ship", None), (C, "shipped", None), (C, "close", C),
    ],
)  # fmt: skip
def test_every_state_and_cause(state: State, cause: Any, then: State | None) -> None:
    assert TRANSITIONS.get((state, cause)) is then


def in_state(source: Source, state: State) -> PrimaryLink:
    source.fill(400)
    source.gate_open = state is not State.HANDSHAKE
    link = source.link("SIX", SHIP if state in (State.HANDSHAKE, State.SNAPSHOT) else source.backlog.next)
    link.take(0.0)
    source.gate_open = True
    if state is State.CLOSED:
        link.close("gone")
    assert link.state is state
    return link


@pytest.mark.parametrize("state", [H, N, S, C])
def test_a_link_can_be_closed_in_every_state_and_leaves_nothing(state: State) -> None:
    source = Source()
    link = in_state(source, state)
    woken: list[bool] = []
    link.on_wake = lambda: woken.append(True)
    link.close("over")
    link.close("and again")
    assert (link.state, link.closed) == (State.CLOSED, True)
    assert link.reason == ("gone" if state is State.CLOSED else "over")
    assert len(woken) == (state is not State.CLOSED)
    link.heartbeat()
    link.ask()
    assert (link.take(0.0), link.busy, link.caught_up, source.pins) == ([], False, False, 0)


@pytest.mark.parametrize(("state", "answer"), [(H, True), (N, True), (S, True), (C, False)])
def test_a_heartbeat_goes_out_in_every_state_but_the_last(state: State, answer: bool) -> None:
    source = Source()
    link = in_state(source, state)
    source.gate_open = False
    link.heartbeat()
    assert (Ping in kinds(b"".join(link.take(0.0)))) is answer


# -- golden bytes -----------------------------------------------------------------------------------------------------

LIVE: list[tuple[Word, ...]] = [
    ("SET", "k", "v"),
    ("SET", "n", "12"),
    ("SET", "b", b"\x00\x01\xff\r\n\x80"),
    ("HSET", "h", "f", "1", "g", "2"),
]


def recorded(name: str) -> bytes:
    return (VECTORS / f"{name}.bin").read_bytes()


def test_a_five_argument_replica_of_an_empty_primary_gets_the_recorded_bytes() -> None:
    source = Source()
    link = source.link("FIVE", 0)
    data = take(link)
    for command in LIVE:
        source.call(*command)
        link.heartbeat()
        data += take(link)
    assert data == recorded("v2-live")


def test_a_six_argument_replica_of_an_empty_primary_gets_the_recorded_bytes() -> None:
    source = Source()
    link = source.link("SIX", SHIP)
    data = take(link)
    for command in LIVE:
        source.call(*command)
    data += take(link)
    for _ in range(4):
        link.heartbeat()
        data += take(link)
    assert data == recorded("v5-live")


@pytest.mark.parametrize(("form", "offset", "name"), [("FIVE", 5, "v2-resume-5"), ("SIX", 5, "v5-resume-5")])
def test_who_is_up_to_date_gets_the_recorded_bytes(form: str, offset: int, name: str) -> None:
    source = Source()
    for command in [*LIVE, ("SET", "after", "1")]:
        source.call(*command)
    assert take(source.link(form, offset)) == recorded(name)


def test_who_lacks_one_entry_gets_the_recorded_bytes() -> None:
    source = Source()
    for command in [*LIVE, ("SET", "after", "1")]:
        source.call(*command)
    assert take(source.link("SIX", 4)) == recorded("v5-resume-4")


@pytest.mark.parametrize(("form", "name"), [("FIVE", "v2-resume-0"), ("SIX", "v5-resume-0")])
def test_a_ship_is_the_recorded_bytes_but_for_the_order_of_keys(form: str, name: str) -> None:
    source = Source()
    for command in [*LIVE, ("SET", "after", "1")]:
        source.call(*command)
    ours, theirs = take(source.link(form, SHIP)), recorded(name)
    assert kinds(ours) == kinds(theirs)
    assert len(ours) == len(theirs)
    assert ours.partition(b"$")[0] == theirs.partition(b"$")[0]
    assert ours.rpartition(b"+")[2] == theirs.rpartition(b"+")[2]
    assert sorted(payload(ours)) == sorted(payload(theirs))


def test_an_extended_replica_is_told_what_is_accepted_and_where_the_history_comes_from() -> None:
    source = Source()
    source.call("SET", "k", "v")
    data = take(source.link("EXTENDED", 1, "txn ackreq lineage later"))
    assert data == (
        b"+ACK %d 1\r\n+CAPA 3 txn ackreq lineage\r\n+LINEAGE 7@3\r\n+PING %d 1\r\n" % (GENERATION, GENERATION)
    )


# -- the forms of a stream --------------------------------------------------------------------------------------------


def test_groups_go_whole_to_those_who_know_them_and_as_frames_to_the_others() -> None:
    source = Source()
    five, six, extended = source.link("FIVE", 0), source.link("SIX", 0), source.link("EXTENDED", 0)
    for link in (five, six, extended):
        take(link)
    source.call("RPUSH", "l", "a")
    source.call("LMOVE", "l", "m", "LEFT", "LEFT")
    assert shown(take(five)) == shown(take(six)) == ["0 RPUSH l a", "1 LPUSH m a", "2 LPOP l"]
    assert shown(take(extended)) == ["0 RPUSH l a", "TXN 1 LPUSH m a", "TXN 2 LPOP l"]


@pytest.mark.parametrize(
    ("form", "capabilities", "answer"),
    [
        ("FIVE", "", []),
        ("SIX", "", ["PING 1"]),
        ("EXTENDED", "txn lineage", ["PING 1"]),
        ("EXTENDED", "txn ackreq", ["AckRequested"]),
        ("EXTENDED", ALL, ["AckRequested"]),
    ],
)
def test_asking_for_acknowledgements(form: str, capabilities: str, answer: list[str]) -> None:
    source = Source()
    source.call("SET", "k", "v")
    link = source.link(form, 1, capabilities)
    link.receive(b"REPLCONF ACK 1\r\n", 0.0)
    take(link)
    link.ask()
    link.ask()
    assert shown(take(link)) == answer
    assert take(link) == b""


def test_who_is_asked_has_been_sent_everything() -> None:
    source = Source()
    link = source.link("EXTENDED", 0)
    take(link)
    source.fill(400)
    link.ask()
    data = take(link)
    assert len(data) > TAKE
    assert shown(data)[-2:] == [f"399 SET fill:399 {'v' * 1000}", "AckRequested"]


@pytest.mark.parametrize("form", ["FIVE", "SIX", "EXTENDED"])
def test_a_link_hands_out_a_little_at_a_time(form: str) -> None:
    source = Source()
    source.fill(1000)
    link = source.link(form, 0)
    while parts := link.take(0.0):
        assert sum(map(len, parts)) < TAKE + 70_000
    assert link.caught_up


def test_new_entries_and_news_for_a_link_wake_it() -> None:
    source = Source()
    link = source.link("EXTENDED", 0, ALL)
    woken: list[str] = []
    actions: list[tuple[str, Callable[[], object]]] = [
        ("beat", link.heartbeat),
        ("ask", link.ask),
        ("names", lambda: link.receive(format_scopes([b"a"]), 0.0)),
        ("resync", lambda: link.receive(wire.resync(b"a"), 0.0)),
        ("close", lambda: link.close("over")),
    ]
    for what, act in actions:
        link.on_wake = partial(woken.append, what)
        act()
    assert woken == [what for what, _ in actions]


# -- what the replica says --------------------------------------------------------------------------------------------


def test_the_last_acknowledgement_of_a_read_counts() -> None:
    source = Source()
    source.fill(3)
    link = source.link("SIX", 0)
    take(link)
    assert link.receive(b"REPLCONF ACK 1\r\njunk\r\nREPLCONF ACK 2\r\nREPLCONF ACK", 5.0) == 2
    assert link.receive(b" 3\r\n", 6.0) == 3
    assert link.heard == 6.0


def test_nobody_has_what_was_not_sent() -> None:
    source = Source()
    link = source.link("SIX", 0)
    take(link)
    source.fill(3)
    assert link.receive(b"REPLCONF ACK 3\r\n", 0.0) is None
    take(link)
    assert link.receive(b"REPLCONF ACK 3\r\n", 0.0) == 3


def test_an_endless_line_ends_the_link() -> None:
    source = Source()
    link = source.link("SIX", 0)
    for _ in range(5):
        link.receive(b"x" * 16384, 0.0)
    assert link.reason.startswith("the replica broke the protocol: line too long")
    assert link.take(0.0) == []


# -- lag --------------------------------------------------------------------------------------------------------------


def test_lag_is_what_was_sent_and_not_acknowledged() -> None:
    source = Source()
    link = source.link("SIX", 0)
    take(link, 0.0)
    assert (link.lag_bytes(), link.lag_ms(5.0)) == (0, 0)
    source.call("SET", "k", "v")
    first = take(link, 10.0)
    source.call("SET", "k", "w")
    second = take(link, 11.0)
    assert link.lag_ms(12.0) == 2000
    assert link.lag_bytes() >= len(first + second)
    link.acknowledged(1)
    assert (link.lag_bytes(), link.lag_ms(12.0)) == (len(second), 1000)
    link.acknowledged(2)
    assert (link.lag_bytes(), link.lag_ms(12.0)) == (0, 0)


def test_lag_counts_what_has_not_even_been_sent() -> None:
    source = Source()
    link = source.link("FIVE", 0)
    source.fill(400)
    link.take(100.0)
    assert not link.caught_up
    assert link.lag_ms(103.0) == 3000
    take(link, 103.0)
    assert link.lag_ms(104.0) == 0


def test_a_snapshot_is_no_lag() -> None:
    source = Source()
    source.fill(100)
    link = source.link("SIX", Snapshot("it is new"))
    while take(link, 1.0):
        pass
    assert (link.state, link.lag_bytes(), link.lag_ms(2.0)) == (State.STREAMING, 0, 0)
    source.call("SET", "k", "v")
    frames = take(link, 3.0)
    assert link.lag_bytes() == len(frames)


def test_the_sends_remembered_are_bounded_and_keep_the_oldest() -> None:
    source = Source()
    link = source.link("SIX", 0)
    take(link)
    for number in range(5000):
        source.call("SET", "k", str(number))
        link.take(float(number))
    assert len(link._flights) <= 1024
    assert link.lag_ms(5000.0) == 5_000_000
    link.acknowledged(5000)
    assert link.lag_bytes() == 0
