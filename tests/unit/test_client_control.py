"""Clients that act on clients in awkward moments: killed in EXEC, blocked and silenced, served in somebody's turn."""

from __future__ import annotations

import pytest
from support.session_harness import Client, ServerHarness, request

from kevynode.store.notify import parse_flags


def _listener_to_events(node: ServerHarness) -> Client:
    flags = parse_flags("KEA")
    assert flags is not None
    node.server.events.configure(flags)
    client = node.connect()
    client.call("HELLO", "3")
    client.call("PSUBSCRIBE", "__keyevent*")
    return client


def test_events_of_those_whom_a_command_serves_come_behind_its_reply_at_once() -> None:
    node = ServerHarness()
    client, waiter = _listener_to_events(node), node.connect()
    waiter.call("BLPOP", "list", "0")
    answer = client.call("LPUSH", "list", "x")
    assert answer.startswith(b":1\r\n>4\r\n")
    assert [answer.find(name) > 0 for name in (b":lpush\r\n", b":lpop\r\n", b":del\r\n")] == [True] * 3
    assert client.call("PING") == b"+PONG\r\n"


def test_a_skipped_reply_is_skipped_when_the_client_waits_for_it() -> None:
    for end in ("push", "timeout", "unblock"):
        node = ServerHarness()
        client, other = node.connect(), node.connect()
        pipeline = request("CLIENT", "REPLY", "SKIP") + request("BLPOP", "list", "1") + request("ECHO", "a")
        assert client.send(pipeline + request("ECHO", "b")) == b""
        if end == "push":
            other.call("LPUSH", "list", "x")
        elif end == "unblock":
            other.call("CLIENT", "UNBLOCK", str(client.session.id))
        else:
            node.advance(1)
        assert client.read() == b"$1\r\na\r\n$1\r\nb\r\n"
        assert client.session.gates == set()


def test_who_kills_himself_inside_exec_reads_up_to_there_and_everything_is_done() -> None:
    node = ServerHarness()
    client = node.connect()
    client.send(
        request("MULTI") + request("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no") + request("SET", "k", "v")
    )
    assert client.send(request("EXEC") + request("PING")) == b"*2\r\n:1\r\n"
    assert client.session.closing
    assert node.store.lookup(b"k") == b"v"


def test_many_ready_keys_and_many_waiters_are_served_in_order() -> None:
    node = ServerHarness()
    waiters = [node.connect() for _ in range(50)]
    sorted_set_waiter = node.connect()
    sorted_set_waiter.call("BZPOPMIN", *[f"k{number}" for number in range(50)], "0")
    for number, waiter in enumerate(waiters):
        waiter.call("BLPOP", f"k{number}", f"k{(number + 1) % 50}", "0")
    pusher = node.connect()
    pusher.send(request("MULTI") + b"".join(request("RPUSH", f"k{number}", "x") for number in range(50)))
    pusher.call("EXEC")
    assert [waiter.read() for waiter in waiters] == [
        b"*2\r\n$%d\r\nk%d\r\n$1\r\nx\r\n" % (len(str(number)) + 1, number) for number in range(50)
    ]
    assert sorted_set_waiter.session.blocked
    assert not node.server.waiters.ready


def test_timers_that_were_cancelled_do_not_pile_up() -> None:
    node = ServerHarness()
    client, other = node.connect(), node.connect()
    sleeper = node.connect()
    sleeper.call("BLPOP", "never", "100000")
    for _ in range(1000):
        client.call("BLPOP", "list", "100000")
        other.call("LPUSH", "list", "x")
        assert client.read()
    assert len(node.server.timers) < 200
    node.advance(100_000)
    assert sleeper.read() == b"*-1\r\n"
    assert len(node.server.timers) == 0


def test_what_follows_shutdown_in_a_pipeline_is_neither_run_nor_answered() -> None:
    node = ServerHarness()
    asked: list[object] = []
    node.server.on_shutdown = asked.append
    client = node.connect()
    assert client.send(request("SET", "a", "1") + request("SHUTDOWN") + request("SET", "b", "1")) == b"+OK\r\n"
    assert len(asked) == 1
    assert client.session.closing
    assert node.store.lookup(b"b") is None


@pytest.mark.parametrize("mode", ["WRITE", "ALL"])
def test_nothing_is_deleted_for_its_age_during_a_pause(mode: str) -> None:
    node = ServerHarness()
    client, other = node.connect(), node.connect()
    client.call("SET", "k", "v", "PX", "100")
    node.advance(0.2)
    offset = node.store.journal.offset
    assert other.call("CLIENT", "PAUSE", "1000", mode) == b"+OK\r\n"
    client.call("GET", "k")
    assert node.store.journal.offset == offset
    node.advance(2)
    assert client.read() + client.call("GET", "k") == b"$-1\r\n" * (2 if mode == "ALL" else 1)
    assert node.store.journal.offset == offset + 1
