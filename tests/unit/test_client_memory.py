"""What a client may make the node hold for it: queued transactions, replies and messages that it does not read."""

from __future__ import annotations

from support.session_harness import ServerHarness


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
    node.server.output_limits = {"normal": 0, "pubsub": 100_000}
    client = node.connect()
    client.call("HELLO", "3")
    client.call("SUBSCRIBE", "c")
    assert client.call("PUBLISH", "c", "x" * 90_000).startswith(b":1\r\n>3\r\n")
    assert client.call("PUBLISH", "c", "x" * 110_000) == b""
    assert client.session.discard


def test_a_monitor_that_does_not_read_is_closed_at_the_limit_for_subscribers() -> None:
    node = ServerHarness()
    node.server.output_limits = {"normal": 0, "pubsub": 1_000_000}
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
