"""A replica's link to a primary that does not say what is true, or not in order: the link ends, and says why."""

from __future__ import annotations

import pytest
from support.fake_primary import answer, frames, group
from support.replica_link import ALL, HISTORY, live, make, tell

from kevynode.replicate import wire
from kevynode.replicate.handshake import Form
from kevynode.replicate.replica_events import Fault


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (frames(7, "SET a 1"), "gap: expected offset 6, got 7"),
        (frames(5, "SET a 1"), "gap: expected offset 6, got 5"),
        (wire.skip(5), "gap: expected offset 6, got 5"),
        (wire.ping(HISTORY, 5), "gap: expected offset 6, got 5"),
        (wire.ping(HISTORY, 8) + wire.ping(HISTORY, 8), "gap: expected offset 6, got 8"),
        (wire.snapshot_scope(1, b"p:") + wire.snapshot_end(9), "gap: expected offset 6, got 9"),
    ],
)
def test_a_gap_ends_the_link(said: bytes, reason: str) -> None:
    link = live()
    link.feed(said, 0.0)
    assert (link.fault, link.reason) == (Fault.GAP, reason)


def test_a_heartbeat_may_be_ahead_while_entries_follow() -> None:
    link = live()
    link.feed(wire.ping(HISTORY, 8) + frames(6, "SET a 1") + wire.ping(HISTORY, 8), 0.0)
    link.feed(frames(7, "SET a 1") + wire.ping(HISTORY, 8) + wire.ping(HISTORY, 9), 0.0)
    assert link.fault is None
    link.feed(wire.skip(9) + wire.ping(HISTORY, 9), 0.0)
    assert (link.fault, link.announced) == (None, 9)


def test_what_comes_before_a_lie_counts() -> None:
    link = live()
    assert tell(link.feed(frames(6, "SET b 2") + frames(8, "SET c 3"), 0.0)) == ["entries 6: SET b 2"]
    assert link.fault is Fault.GAP


@pytest.mark.parametrize(
    ("said", "what"),
    [
        (b"+ACK 5\r\n", "another form"),
        (b"+ACK 7 4\r\n", "when 5 was asked for"),
        (b"+ACK %d 5\r\n" % 2**53, "out of range"),
        (answer(HISTORY, 5, ["teleport"]), "what was not offered"),
        (answer(HISTORY, 5, ["txn"]) + wire.ACK_REQUEST, "+ACKREQ was not agreed on"),
        (answer(HISTORY, 5, ["lineage"], [(7, 3)]), "+LINEAGE makes no sense"),
        (answer(HISTORY, 5, ["ackreq"]) + group(5, "SET a 1", "SET b 2"), "+TXN was not agreed on"),
        (answer(HISTORY, 5, ["txn"]) + wire.skip(6), "+SKIP was not agreed on"),
        (answer(HISTORY, 5, ["txn"]) + wire.snapshot_scope(1, b""), "+SNAPSHOT_SCOPE was not agreed on"),
        (answer(HISTORY, 5, ALL) + b"*3\r\n", "outer header is not *2"),
        (answer(HISTORY, 5, ALL) + b"*2\r\n:5\r\n*0\r\n", "inner command"),
        (answer(HISTORY, 5, ALL) + b"+" + b"x" * 9000, "line"),
        (b"x" * 300, ""),
        (b"*2\r\n:0\r\n*1\r\n$1\r\nx\r\n", "an entry while connecting"),
    ],
)
def test_a_primary_that_breaks_the_protocol_is_named(said: bytes, what: str) -> None:
    link = make(history=HISTORY, offset=5)
    link.feed(said, 0.0)
    assert link.fault is Fault.PROTOCOL
    assert link.reason.startswith("primary:16004 broke the protocol: ")
    assert what in link.reason
    assert link.to_send(0.0) == b""


def test_extensions_are_for_those_who_asked() -> None:
    link = make(Form.SIX, HISTORY, 5)
    link.feed(answer(HISTORY, 5, ["txn"]), 0.0)
    assert "not offered" in link.reason
    other = make(Form.SIX, HISTORY, 5)
    other.feed(answer(HISTORY, 5) + b"+LINEAGE 6@4\r\n", 0.0)
    assert "+LINEAGE was not asked for" in other.reason


@pytest.mark.parametrize(
    "said",
    [b"-ERR unknown command 'REPLICATE', with args beginning with: \r\n", b"-NOAUTH Authentication required.\r\n"],
)
def test_a_client_port_is_called_one(said: bytes) -> None:
    link = make()
    link.feed(said, 0.0)
    assert link.fault is Fault.REFUSED
    assert link.reason.startswith(
        "primary:16004 is a client port; replicas connect to the replication port (usually client port + 10000)."
    )


def test_a_primary_that_loads_is_not_called_a_client_port() -> None:
    link = make()
    link.feed(b"-LOADING kevynode is loading the dataset in memory\r\n", 0.0)
    assert link.reason == "primary:16004 is not ready: LOADING kevynode is loading the dataset in memory"
