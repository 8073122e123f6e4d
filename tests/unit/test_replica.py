"""A replica's link to its primary: every event in every state, and what real servers sent."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fake_primary import answer, frames, group, payload, ship, vector
from support.replica_link import ALL, HISTORY, live, make, tell

from kevynode.replicate import wire
from kevynode.replicate.backoff import Backoff
from kevynode.replicate.handshake import Form, HandshakeParser, Request
from kevynode.replicate.replica import HANDSHAKE_SECONDS, QUIET_SECONDS, SILENCE_SECONDS, ReplicaLink
from kevynode.replicate.replica_events import Entries, Fault, Heartbeat, LinkEvent, Resumed, ShipData, ShipEnds, State
from kevynode.replicate.replica_machine import TABLE

# -- every event in every state ----------------------------------------------------------------------------------------

# What a primary can say. Its numbers fit a link that expects offset 6 of HISTORY where it has got so far, and 5 before.
SAYINGS: dict[str, Callable[[int], bytes]] = {
    "+ACK": lambda expected: answer(HISTORY, 5),
    "+CAPA": lambda expected: b"+CAPA 1 txn\r\n",
    "+LINEAGE": lambda expected: b"+LINEAGE 6@4\r\n",
    "an entry": lambda expected: frames(expected, "SET b 2"),
    "+SKIP": lambda expected: wire.skip(expected + 1),
    "+ACKREQ": lambda expected: wire.ACK_REQUEST,
    "+PING": lambda expected: wire.ping(HISTORY, expected),
    "+SNAPSHOT": lambda expected: wire.SNAPSHOT_BEGIN,
    "+SNAPSHOT_SCOPE": lambda expected: wire.snapshot_scope(1, b"p:"),
    "a chunk": lambda expected: wire.chunk(b"KEVY"),
    "+SNAPSHOT_END": lambda expected: wire.snapshot_end(expected),
    "an error": lambda expected: b"-ERR something\r\n",
}

# What it leads to. "-": a broken rule. In brackets: the state it leaves the link in, if that is another one.
OUTCOMES: dict[State, dict[str, str]] = {
    State.CONNECTING: {"+ACK": "[SYNCING]", "an error": "refused"},
    State.SYNCING: {
        "+CAPA": "",
        "+LINEAGE": "",
        "an entry": "resumed 5; entries 5: SET b 2 [LIVE]",
        "+SKIP": "resumed 5; skipped 6 [LIVE]",
        "+ACKREQ": "ack wanted",
        "+PING": "resumed 5; beat 5 [LIVE]",
        "+SNAPSHOT": "ship [SHIPPING]",
        "+SNAPSHOT_SCOPE": "resumed 5; midstream ship of p: epoch 1 [SHIPPING_SCOPE]",
        "an error": "refused",
    },
    State.SHIPPING: {
        "a chunk": "data",
        "+PING": "beat 5",
        "+SNAPSHOT_END": "ship ends 5 [LIVE]",
    },
    State.LIVE: {
        "an entry": "entries 6: SET b 2",
        "+SKIP": "skipped 7",
        "+ACKREQ": "ack wanted",
        "+PING": "beat 6",
        "+SNAPSHOT": "midstream ship [SHIPPING]",
        "+SNAPSHOT_SCOPE": "midstream ship of p: epoch 1 [SHIPPING_SCOPE]",
        "an error": "refused",
    },
    State.SHIPPING_SCOPE: {
        "a chunk": "data",
        "+PING": "beat 6",
        "+SNAPSHOT_END": "ship ends 6 [LIVE]",
    },
    State.LOST: {},
}


def in_state(state: State) -> tuple[ReplicaLink, int]:
    """A link in a state, and what offset it expects."""
    if state in (State.LIVE, State.SHIPPING_SCOPE):
        link = live()
        if state is State.SHIPPING_SCOPE:
            link.feed(wire.snapshot_scope(1, b"p:"), 0.0)
        return link, 6
    link = make(history=HISTORY, offset=5)
    if state is not State.CONNECTING:
        link.feed(answer(HISTORY, 5, ALL), 0.0)
    if state is State.SHIPPING:
        link.feed(wire.SNAPSHOT_BEGIN, 0.0)
    elif state is State.LOST:
        link.close("enough")
    assert link.state is state
    return link, 5


@pytest.mark.parametrize("saying", SAYINGS)
@pytest.mark.parametrize("state", State)
def test_every_event_in_every_state(state: State, saying: str) -> None:
    link, expected = in_state(state)
    told = "; ".join(tell(link.feed(SAYINGS[saying](expected), 1.0)))
    outcome = OUTCOMES[state].get(saying)
    if state is State.LOST:
        assert (told, link.reason) == ("", "enough")
    elif outcome is None:
        assert (told, link.state, link.fault) == ("", State.LOST, Fault.PROTOCOL)
        assert link.reason.startswith("primary:16004 broke the protocol: ")
    elif outcome == "refused":
        assert (told, link.state, link.fault) == ("", State.LOST, Fault.REFUSED)
    else:
        text, _, then = outcome.partition("[")
        assert told == text.strip()
        assert link.state is (State[then[:-1]] if then else state)
        assert link.fault is None


def test_the_table_has_no_state_and_no_event_that_the_test_lacks() -> None:
    assert set(TABLE) == set(State) == set(OUTCOMES)
    assert max(len(steps) for steps in TABLE.values()) <= len(SAYINGS)


# -- what real servers sent --------------------------------------------------------------------------------------------

V5 = 4913458337130657


def run_vector(name: str, form: Form, history: int, offset: int, step: int) -> tuple[list[str], ReplicaLink, bytes]:
    """What a recording tells, adjacent entries joined, so that it is the same however the bytes were cut."""
    link = make(form, history, offset)
    data = vector(name)
    events: list[LinkEvent] = []
    for place in range(0, len(data), step):
        events += link.feed(data[place : place + step], 0.0)
    told: list[str] = []
    content = b""
    for event in events:
        if isinstance(event, ShipData):
            content += event.data
        elif isinstance(event, Entries):
            texts = [b" ".join(command).decode(errors="replace") for command in event.commands]
            told += [f"{number}: {text}" for number, text in enumerate(texts, event.first)]
        else:
            told += tell([event])
    return told, link, content


@pytest.mark.parametrize("step", [1, 7, 100000])
@pytest.mark.parametrize(
    ("name", "form", "history", "offset", "expected"),
    [
        ("v5-live", Form.SIX, 0, 0, "ship|beat 0|ship ends 0|0: SET k v|1: SET n 12|2: *|3: HSET h f 1 g 2|beat 4"),
        ("v5-resume-0", Form.SIX, V5, 0, "ship|beat 5|ship ends 5"),
        ("v5-resume-4", Form.SIX, V5, 4, "resumed 4|4: SET after 1|beat 5"),
        ("v5-resume-5", Form.SIX, V5, 5, "resumed 5|beat 5"),
        ("v5-ahead-6", Form.SIX, V5, 6, "ship|beat 5|ship ends 5"),
        ("v5-snapshot-link", Form.SIX, 0, 0, "ship|beat 27|ship ends 27"),
        ("v2-live", Form.FIVE, 0, 0, "resumed 0 from nothing|0: SET k v|1: SET n 12|2: *|3: HSET h f 1 g 2"),
        ("v2-resume-0", Form.FIVE, 0, 0, "ship|ship ends 5"),
        ("v2-resume-5", Form.FIVE, 0, 5, ""),
        ("v2-snapshot-link", Form.FIVE, 0, 0, "ship|ship ends *"),
    ],
)
def test_recordings_are_understood_however_they_are_cut(
    name: str, form: Form, history: int, offset: int, expected: str, step: int
) -> None:
    told, link, content = run_vector(name, form, history, offset, step)
    assert link.fault is None, link.reason
    wanted = [part for part in expected.split("|") if part]
    # The heartbeats at the end go on for as long as somebody recorded.
    while len(told) > len(wanted) and told[-1] == told[-2]:
        told.pop()
    assert len(told) == len(wanted), told
    for found, part in zip(told, wanted, strict=True):
        assert found.startswith(part[:-1]) if part.endswith("*") else found == part
    if name.endswith("snapshot-link"):
        assert content == vector(name.replace("-link", "-payload"))


def test_a_five_argument_primary_that_says_nothing_goes_on_where_we_were() -> None:
    told, link, _ = run_vector("v2-resume-5", Form.FIVE, 0, 5, 100)
    assert told == []
    assert link.deadline(3.0) == QUIET_SECONDS
    assert tell(link.timed_out(QUIET_SECONDS)) == ["resumed 5"]
    assert link.deadline(9.0) == math.inf
    # And a snapshot may still come.
    assert tell(link.feed(ship(9, {"a": "1"}), 9.0)) == ["midstream ship", "data", "ship ends 9"]


@pytest.mark.slow
@given(st.data())
def test_a_stream_says_the_same_however_it_is_cut(data: st.DataObject) -> None:
    stream = answer(HISTORY, 0, ALL) + ship(3, {"a": "1", "b": "2"}, wire.ping(HISTORY, 3))
    stream += frames(3, "SET c 3", "DEL a") + group(5, "LPOP l", "LPUSH m x") + wire.skip(9) + wire.ACK_REQUEST
    stream += frames(9, "DEL b") + wire.ping(HISTORY, 10)
    link = make()
    found: list[LinkEvent] = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += link.feed(stream[:size], 0.0)
        stream = stream[size:]
    told = [word for word in tell(found) if word != "data"]
    joined = "|".join(told).replace("entries 3: SET c 3|entries 4: DEL a", "entries 3: SET c 3, DEL a")
    assert joined == (
        "ship|beat 3|ship ends 3|entries 3: SET c 3, DEL a|group 5: LPOP l, LPUSH m x|skipped 9|ack wanted"
        "|entries 9: DEL b|beat 10"
    )
    assert b"".join(event.data for event in found if isinstance(event, ShipData)) == payload({"a": "1", "b": "2"})


# -- going on, or starting over ----------------------------------------------------------------------------------------


def test_the_request_is_the_handshake() -> None:
    link = ReplicaLink(Request(Form.SIX, 7, 5, "me"), "primary:16004")
    parser = HandshakeParser()
    assert parser.feed(link.start(0.0)) == link.request


def test_an_ancestor_that_covers_the_position_lets_the_stream_go_on() -> None:
    link = make(history=6, offset=5)
    events = link.feed(answer(8, 5, ALL, [(7, 9), (6, 5)]) + frames(5, "SET a 1"), 0.0)
    assert events[0] == Resumed(8, 5, ((7, 9), (6, 5)), False)


@pytest.mark.parametrize("said", [frames(5, "SET a 1"), wire.skip(6)])
@pytest.mark.parametrize(
    "link",
    [
        lambda: make(history=6, offset=5),
        lambda: make(history=0, offset=5),
        lambda: make(Form.SIX, history=6, offset=5),
    ],
)
def test_entries_that_cannot_continue_what_is_held_are_refused(link: Callable[[], ReplicaLink], said: bytes) -> None:
    replica = link()
    accepted = ALL if replica.request.form is Form.EXTENDED else None
    # The branch lies before the position.
    assert replica.feed(answer(8, 5, accepted, [(6, 4)]) + said, 0.0) == []
    assert replica.fault is Fault.PROTOCOL
    assert "without a snapshot" in replica.reason


def test_a_ping_right_after_the_handshake_says_nothing_unless_it_finds_us_complete() -> None:
    link = make(history=HISTORY, offset=5)
    assert tell(link.feed(answer(HISTORY, 5, ALL) + wire.ping(HISTORY, 8), 0.0)) == ["beat 8"]
    assert link.state is State.SYNCING
    assert tell(link.feed(wire.ping(HISTORY, 8) + wire.ping(HISTORY, 8), 0.0)) == ["beat 8", "beat 8"]
    assert tell(link.feed(frames(5, "SET a 1"), 0.0))[0] == "resumed 5"
    unknown = make(history=6, offset=5)
    assert tell(unknown.feed(answer(HISTORY, 5, ALL) + wire.ping(HISTORY, 5), 0.0)) == ["beat 5"]
    assert unknown.state is State.SYNCING


def test_a_flush_of_a_kevy_arrives_as_a_ship_and_its_history_behind_it() -> None:
    link = live(Form.SIX)
    assert tell(link.feed(ship(0, {}), 0.0)) == ["midstream ship", "data", "ship ends 0"]
    assert link.history == 0
    told = tell(link.feed(frames(0, "SET a 1") + wire.ping(99, 1), 0.0))
    assert told == ["entries 0: SET a 1", "history 99", "beat 1"]
    link.feed(wire.ping(98, 1), 0.0)
    assert (link.fault, link.reason) == (Fault.HISTORY, "the history of primary:16004 changed from 99 to 98")


def test_a_kevynode_keeps_its_history_over_a_ship() -> None:
    link = live()
    (*_, end) = link.feed(ship(9, {}), 0.0)
    assert end == ShipEnds(HISTORY, 9, ())


@pytest.mark.parametrize("form", [Form.SIX, Form.EXTENDED])
@pytest.mark.parametrize("where", ["handshake", "ship", "live"])
def test_a_changed_history_ends_the_link(form: Form, where: str) -> None:
    link = make(form, HISTORY, 5)
    link.feed(answer(HISTORY, 5, ALL if form is Form.EXTENDED else None), 0.0)
    if where == "ship":
        link.feed(wire.SNAPSHOT_BEGIN, 0.0)
    elif where == "live":
        link.feed(frames(5, "SET a 1"), 0.0)
    assert link.feed(wire.ping(8, 6), 0.0) == []
    assert link.fault is Fault.HISTORY


def test_the_old_heartbeat_of_one_number_tells_no_history() -> None:
    link = live(Form.SIX)
    assert link.feed(b"+PING 6\r\n", 0.0) == [Heartbeat(0, 6)]


# -- filters -----------------------------------------------------------------------------------------------------------


def test_a_filtered_link_names_its_prefixes_once_they_are_accepted() -> None:
    link = make(prefixes=(b"a:", b"b:"))
    assert link.to_send(0.0) == b""
    link.feed(answer(HISTORY, 0, ["txn", "scopes", "skip"]), 1.0)
    assert link.send_at == 1.0
    assert link.to_send(1.0) == b"*5\r\n$8\r\nREPLCONF\r\n$6\r\nSCOPES\r\n$1\r\n2\r\n$2\r\na:\r\n$2\r\nb:\r\n"
    assert link.send_at == math.inf


def test_a_filtered_link_may_begin_with_the_ship_of_a_scope() -> None:
    link = make()
    stream = answer(HISTORY, 0, ALL) + wire.snapshot_scope(3, b"a:") + wire.chunk(b"x") + wire.snapshot_end(40)
    stream += wire.skip(44) + wire.snapshot_scope(3, b"b:") + wire.snapshot_end(44) + frames(44, "SET a:1 x")
    assert tell(link.feed(stream, 0.0)) == [
        "ship of a: epoch 3",
        "data",
        "ship ends 40",
        "skipped 44",
        "midstream ship of b: epoch 3",
        "ship ends 44",
        "entries 44: SET a:1 x",
    ]


# -- acknowledgements and deadlines ------------------------------------------------------------------------------------


def test_entries_are_acknowledged_once_in_a_while() -> None:
    link = live()
    link.applied(6, 1.0)
    assert link.send_at == 1.0
    assert link.to_send(1.0) == b"REPLCONF ACK 6\r\n"
    link.applied(7, 1.02)
    link.applied(8, 1.03)
    assert link.send_at == pytest.approx(1.1)
    assert link.to_send(1.1) == b"REPLCONF ACK 8\r\n"
    assert (link.send_at, link.to_send(1.2)) == (math.inf, b"")


def test_a_primary_that_cannot_ask_hears_more_often() -> None:
    link = live(Form.SIX)
    link.applied(6, 1.0)
    link.to_send(1.0)
    link.applied(7, 1.0)
    assert link.send_at == pytest.approx(1.01)


def test_what_is_asked_for_is_told_at_once() -> None:
    link = live()
    link.applied(6, 1.0)
    link.to_send(1.0)
    link.applied(7, 1.01)
    link.acknowledge(1.02)
    assert link.send_at == 1.02
    assert link.to_send(1.02) == b"REPLCONF ACK 7\r\n"


def test_nothing_is_claimed_while_a_snapshot_arrives() -> None:
    link = make(history=HISTORY, offset=5)
    link.feed(answer(HISTORY, 5, ALL) + wire.SNAPSHOT_BEGIN + wire.ping(HISTORY, 9), 0.0)
    link.acknowledge(0.0)
    assert link.to_send(0.0) == b"REPLCONF ACK 0\r\n"
    link.feed(wire.chunk(payload({})) + wire.snapshot_end(9), 0.0)
    link.applied(9, 0.5)
    assert link.to_send(0.5) == b"REPLCONF ACK 9\r\n"


def test_five_argument_primaries_are_never_told_anything() -> None:
    link = live(Form.FIVE)
    link.applied(6, 1.0)
    link.acknowledge(1.0)
    assert (link.send_at, link.to_send(2.0)) == (math.inf, b"")


def test_silence_has_a_limit_unless_the_primary_has_no_heartbeat() -> None:
    link = make()
    assert link.deadline(3.0) == HANDSHAKE_SECONDS
    assert link.timed_out(10.0) == []
    assert (link.fault, link.reason) == (Fault.SILENT, "primary:16004 did not answer the handshake within 10 s")
    beating = live()
    assert beating.deadline(3.0) == 3.0 + SILENCE_SECONDS
    beating.timed_out(13.0)
    assert (beating.fault, beating.reason) == (Fault.SILENT, "primary:16004 was silent for 10 s")
    quiet = live(Form.FIVE)
    assert quiet.deadline(3.0) == math.inf
    assert (quiet.timed_out(99.0), quiet.fault) == ([], None)


@pytest.mark.parametrize(
    ("fed", "where"),
    [
        (b"", "without a word"),
        (b"+AC", "in its handshake"),
        (answer(HISTORY, 5, ALL), "after the handshake"),
        (answer(HISTORY, 5, ALL) + wire.SNAPSHOT_BEGIN, "in the middle of a snapshot"),
        (answer(HISTORY, 5, ALL) + wire.ping(HISTORY, 5), "while streaming"),
    ],
)
def test_the_end_of_the_stream_is_told_with_its_place(fed: bytes, where: str) -> None:
    link = make(history=HISTORY, offset=5)
    link.feed(fed, 0.0)
    link.end_of_stream()
    assert (link.fault, link.reason) == (Fault.ENDED, f"primary:16004 closed the connection {where}")
    link.close("too late")
    assert link.fault is Fault.ENDED


@given(st.binary(max_size=200), st.sampled_from(State))
def test_no_bytes_break_the_link_itself(data: bytes, state: State) -> None:
    link, _ = in_state(state)
    link.feed(data, 0.0)
    for place in range(len(data)):
        link.feed(data[place : place + 1], 0.0)
    assert (link.state is State.LOST) == (link.fault is not None)


# -- waiting -----------------------------------------------------------------------------------------------------------


class Longest:
    """Chance that always gives the most."""

    def uniform(self, a: float, b: float, /) -> float:
        assert a == b / 2
        return b


def test_waits_double_up_to_a_limit() -> None:
    backoff = Backoff(Longest())
    assert [backoff.next() for _ in range(8)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    backoff.reset()
    assert backoff.next() == 0.1
