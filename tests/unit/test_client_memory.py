"""What a client may make the node hold for it: queued transactions, replies and messages that it does not read."""

from __future__ import annotations

import pytest
from support.session_harness import Client, ServerHarness

from kevynode.serve.housekeeping import Housekeeper
from kevynode.serve.output_limit import OutputLimit


def test_the_query_limit_counts_what_a_transaction_has_queued() -> None:
    node = ServerHarness()
    node.server.query_limit = 1 << 20
    client = node.connect()
    client.call("MULTI")
    sent = 0
    while not client.session.closing and sent < 100:
        client.call("SET", "k", "x" * 50_000)
        sent += 1
    assert sent <= 22
    assert client.session.discard
    assert node.server.statistics.query_limit_disconnections == 1
    client.session.disconnected("")
    assert node.connect().call("GET", "k") == b"$-1\r\n"


def test_messages_to_oneself_count_towards_the_limit() -> None:
    node = ServerHarness()
    node.server.output_limits = {"normal": OutputLimit(), "pubsub": OutputLimit(100_000)}
    client = node.connect()
    client.call("HELLO", "3")
    client.call("SUBSCRIBE", "c")
    assert client.call("PUBLISH", "c", "x" * 90_000).startswith(b":1\r\n>3\r\n")
    assert client.call("PUBLISH", "c", "x" * 110_000) == b""
    assert client.session.discard


def test_a_monitor_that_does_not_read_is_closed_at_the_limit_for_subscribers() -> None:
    node = ServerHarness()
    node.server.output_limits = {"normal": OutputLimit(), "pubsub": OutputLimit(1_000_000)}
    monitor, client = node.connect(), node.connect()
    monitor.call("MONITOR")
    sent = 0
    while not monitor.session.closing and sent < 100:
        client.call("SET", "k", "x" * 50_000)
        sent += 1
    assert 19 <= sent <= 21
    assert monitor.session.held_output == 0


def test_a_client_that_said_quit_and_does_not_read_is_listed_and_can_be_killed() -> None:
    node = ServerHarness()
    client, other = node.connect(), node.connect()
    client.call("QUIT")
    number = b"id=%d " % client.session.id
    assert number not in other.call("CLIENT", "LIST")
    # The driver could not send it all.
    client.session.output_pending = 1000
    assert number in other.call("CLIENT", "LIST")
    client.woken = False
    assert other.call("CLIENT", "KILL", "ID", str(client.session.id)) == b":1\r\n"
    assert client.session.discard
    assert client.woken
    assert number not in other.call("CLIENT", "LIST")


def test_without_a_password_everybody_is_let_in() -> None:
    node = ServerHarness()
    node.server.set_password(b"secret")
    stranger, friend = node.connect(), node.connect()
    friend.call("AUTH", "secret")
    assert stranger.call("PING").startswith(b"-NOAUTH")
    node.server.set_password(None)
    assert stranger.call("PING") == friend.call("PING") == b"+PONG\r\n"
    node.server.set_password(b"other")
    assert friend.call("PING") == b"+PONG\r\n"
    assert node.connect().call("PING").startswith(b"-NOAUTH")


# -- soft limits ------------------------------------------------------------------------------------------------------


class SlowReader:
    """A subscriber that holds up what the driver has to send, at a node whose house is kept."""

    def __init__(self, limit: OutputLimit) -> None:
        self.node = ServerHarness()
        self.node.server.output_limits["pubsub"] = limit
        self.house = Housekeeper(self.node.server)
        self.client: Client = self.node.connect()
        self.client.call("SUBSCRIBE", "c")
        self.session = self.client.session

    def hold(self, size: int) -> None:
        """The driver has so much left that the kernel has not taken."""
        self.session.output_pending = size

    def pass_seconds(self, seconds: int) -> int:
        """Keep house for so long: the seconds that have passed when the client was closed, or all of them."""
        for passed in range(1, seconds + 1):
            self.node.advance(1.0)
            while self.house.work() < 0.01:
                pass
            if self.session.closing:
                return passed
        return seconds


def test_who_holds_more_than_the_soft_limit_is_closed_when_its_seconds_have_passed() -> None:
    reader = SlowReader(OutputLimit(1_000_000, 1000, 5))
    reader.hold(1000)
    # It is noticed in the first second; then there are five, and no more.
    assert reader.pass_seconds(6) == 6
    assert not reader.session.closing
    assert reader.pass_seconds(100) == 1
    assert reader.session.discard
    assert reader.node.server.statistics.output_limit_disconnections == 1
    assert reader.node.log.events("warning") == ["output_limit"]
    # It is closed once, however long the driver takes.
    assert reader.pass_seconds(100) == 1
    assert reader.node.server.statistics.output_limit_disconnections == 1


def test_who_has_read_in_between_has_all_the_seconds_again() -> None:
    reader = SlowReader(OutputLimit(0, 1000, 5))
    reader.hold(5000)
    reader.pass_seconds(6)
    reader.hold(999)
    reader.pass_seconds(100)
    reader.hold(5000)
    assert reader.pass_seconds(6) == 6
    assert not reader.session.closing
    reader.pass_seconds(1)
    assert reader.session.discard


def test_messages_that_come_after_the_seconds_close_at_once() -> None:
    reader = SlowReader(OutputLimit(0, 1000, 5))
    sender = reader.node.connect()
    reader.hold(900)
    sender.call("PUBLISH", "c", "x" * 100)
    reader.node.advance(5.9)
    sender.call("PUBLISH", "c", "x")
    assert not reader.session.closing
    reader.node.advance(0.1)
    sender.call("PUBLISH", "c", "x")
    assert reader.session.discard


def test_what_is_taken_at_once_never_counts_as_held() -> None:
    reader = SlowReader(OutputLimit(0, 1000, 0))
    sender = reader.node.connect()
    for _ in range(20):
        sender.call("PUBLISH", "c", "x" * 5000)
        assert len(reader.client.read()) > 5000
        reader.pass_seconds(1)
    assert not reader.session.closing


@pytest.mark.parametrize("limit", [OutputLimit(1000), OutputLimit(0, 1000, 0)])
def test_a_client_that_asks_nothing_more_is_closed_too(limit: OutputLimit) -> None:
    """What it was sent went past the limit after it was last asked."""
    node = ServerHarness()
    node.server.output_limits["normal"] = limit
    house = Housekeeper(node.server)
    client = node.connect()
    assert client.call("PING") == b"+PONG\r\n"
    client.session.output_pending = 2000
    for _ in range(3):
        node.advance(1.0)
        house.work()
    assert client.session.discard


def test_a_client_without_a_limit_may_hold_anything() -> None:
    node = ServerHarness()
    house = Housekeeper(node.server)
    client = node.connect()
    client.session.output_pending = 1 << 40
    for _ in range(100):
        node.advance(1.0)
        house.work()
    assert not client.session.closing
