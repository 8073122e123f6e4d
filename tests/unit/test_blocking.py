"""Clients that wait for a key: who is served, in which order, with what, and that nothing is lost or stolen."""

from __future__ import annotations

import pytest
from support.session_harness import Client, ServerHarness, request


def served(key: str, element: str) -> bytes:
    return b"*2\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(key), key.encode(), len(element), element.encode())


def waiting(node: ServerHarness, *arguments: str) -> Client:
    client = node.connect()
    assert client.call(*arguments) == b""
    assert client.session.blocked
    return client


def test_what_is_there_is_taken_at_once() -> None:
    client = ServerHarness().connect()
    client.call("RPUSH", "b", "1")
    assert client.call("BLPOP", "a", "b", "0") == served("b", "1")


def test_the_first_to_wait_is_the_first_to_be_served() -> None:
    node = ServerHarness()
    first, second = waiting(node, "BLPOP", "k", "0"), waiting(node, "BLPOP", "k", "0")
    pusher = node.connect()
    assert pusher.call("RPUSH", "k", "1") == b":1\r\n"
    assert (first.read(), second.read()) == (served("k", "1"), b"")
    pusher.call("RPUSH", "k", "2")
    assert second.read() == served("k", "2")
    assert first.woken
    assert second.woken
    assert node.store.lookup(b"k") is None


def test_one_push_serves_as_many_as_it_has_elements() -> None:
    node = ServerHarness()
    clients = [waiting(node, "BLPOP", "k", "0") for _ in range(3)]
    assert node.connect().call("RPUSH", "k", "1", "2") == b":2\r\n"
    assert [client.read() for client in clients] == [served("k", "1"), served("k", "2"), b""]


def test_waiters_are_served_after_the_whole_exec_in_the_order_of_their_arguments() -> None:
    node = ServerHarness()
    client = waiting(node, "BLPOP", "a", "b", "0")
    pusher = node.connect()
    pusher.call("MULTI")
    pusher.call("RPUSH", "b", "from b")
    pusher.call("RPUSH", "a", "from a")
    assert pusher.call("EXEC") == b"*2\r\n:1\r\n:1\r\n"
    assert client.read() == served("a", "from a")


def test_push_and_delete_in_one_transaction_serve_nobody() -> None:
    node = ServerHarness()
    client = waiting(node, "BLPOP", "k", "0")
    pusher = node.connect()
    pusher.call("MULTI")
    pusher.call("RPUSH", "k", "1")
    pusher.call("DEL", "k")
    pusher.call("EXEC")
    assert client.read() == b""
    assert client.session.blocked


def test_a_key_of_another_type_wakes_nobody() -> None:
    node = ServerHarness()
    client = waiting(node, "BLPOP", "k", "0")
    other = node.connect()
    other.call("SET", "k", "v")
    assert client.session.blocked
    other.call("DEL", "k")
    other.call("RPUSH", "k", "1")
    assert client.read() == served("k", "1")


def test_a_moved_element_can_serve_the_next_waiter() -> None:
    node = ServerHarness()
    mover = waiting(node, "BLMOVE", "a", "b", "LEFT", "RIGHT", "0")
    popper = waiting(node, "BLPOP", "b", "0")
    node.connect().call("RPUSH", "a", "x")
    assert mover.read() == b"$1\r\nx\r\n"
    assert popper.read() == served("b", "x")
    assert len(node.store.keyspace) == 0


def test_a_served_pop_is_an_effect_of_its_own() -> None:
    node = ServerHarness()
    waiting(node, "BLPOP", "k", "0")
    groups: list[list[tuple[bytes, ...]]] = []
    node.store.journal.observers.append(lambda _, group: groups.append([tuple(effect[0]) for effect in group]))
    node.connect().call("RPUSH", "k", "1")
    assert [group[0][0] for group in groups] == [b"RPUSH", b"LPOP"]


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (("BLPOP", "k", "0.5"), b"*-1\r\n"),
        (("BLMOVE", "k", "d", "LEFT", "LEFT", "0.5"), b"*-1\r\n"),
        (("BZPOPMIN", "k", "0.5"), b"*-1\r\n"),
        (("BLMPOP", "0.5", "1", "k", "LEFT"), b"*-1\r\n"),
    ],
)
def test_a_timeout_answers_null(arguments: tuple[str, ...], answer: bytes) -> None:
    node = ServerHarness()
    client = waiting(node, *arguments)
    node.advance(0.4)
    assert client.read() == b""
    node.advance(0.2)
    assert client.read() == answer
    assert client.woken
    assert node.server.waiters.count == 0
    # Too late: nothing is taken.
    assert node.connect().call("RPUSH", "k", "1") == b":1\r\n"
    assert client.read() == b""


def test_pipelined_commands_run_after_the_wait() -> None:
    node = ServerHarness()
    client = node.connect()
    assert client.send(request("BLPOP", "k", "0") + request("PING")) == b""
    node.connect().call("RPUSH", "k", "1")
    assert client.read() == served("k", "1") + b"+PONG\r\n"


def test_a_client_that_hung_up_takes_nothing() -> None:
    node = ServerHarness()
    gone, patient = waiting(node, "BLPOP", "k", "0"), waiting(node, "BLPOP", "k", "0")
    gone.hung_up = True
    node.connect().call("RPUSH", "k", "1")
    assert gone.read() == b""
    assert patient.read() == served("k", "1")


def test_a_client_that_disconnects_leaves_no_trace() -> None:
    node = ServerHarness()
    client = waiting(node, "BLPOP", "a", "b", "10")
    client.session.disconnected("reset by peer")
    assert node.server.waiters.count == 0
    assert node.store.journal.observers == []
    node.advance(20)
    assert node.connect().call("RPUSH", "a", "1") == b":1\r\n"


def test_nobody_waits_inside_a_transaction() -> None:
    client = ServerHarness().connect()
    client.call("MULTI")
    client.call("BLPOP", "k", "0")
    assert client.call("EXEC") == b"*1\r\n*-1\r\n"


def test_a_sorted_set_serves_those_who_wait_for_one() -> None:
    node = ServerHarness()
    client = waiting(node, "BZPOPMAX", "z", "0")
    node.connect().call("ZADD", "z", "1", "a", "2", "b")
    assert client.read() == b"*3\r\n$1\r\nz\r\n$1\r\nb\r\n$1\r\n2\r\n"


def test_a_write_queued_behind_a_wait_is_not_run_before_it_ends() -> None:
    node = ServerHarness()
    client = node.connect()
    assert client.send(request("BLPOP", "k", "0") + request("SET", "after", "1")) == b""
    assert node.store.lookup(b"after") is None
    node.connect().call("RPUSH", "k", "1")
    assert client.read() == served("k", "1") + b"+OK\r\n"
    assert node.store.lookup(b"after") == b"1"
