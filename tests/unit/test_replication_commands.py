"""REPLICAOF, ROLE, WAIT, WAITAOF, REPL.TOKEN and REPL.WAIT, against a replication that the test plays."""

from __future__ import annotations

from typing import cast

import pytest
from support.fake_replication import FakeReplication, replica, upstream
from support.session_harness import Client, ServerHarness, request

from kevynode.errors import Misdirected, ReplyError
from kevynode.scope.source_steps import SourceState
from kevynode.scope.target_steps import TargetState
from kevynode.scope_view import MoveFacts, ScopeView
from kevynode.serve.local import LocalClient


@pytest.fixture
def fake(node: ServerHarness) -> FakeReplication:
    return FakeReplication(node)


@pytest.fixture
def client(node: ServerHarness, fake: FakeReplication) -> Client:
    return node.connect()


# -- REPLICAOF ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["REPLICAOF", "SLAVEOF"])
@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("host x", b"-ERR Invalid master port\r\n"),
        ("host -1", b"-ERR Invalid master port\r\n"),
        ("host 65536", b"-ERR Invalid master port\r\n"),
        ("host 1.5", b"-ERR Invalid master port\r\n"),
        ("no two", b"-ERR Invalid master port\r\n"),
        ("no one", b"+OK\r\n"),
    ],
)
def test_arguments_of_replicaof(client: Client, name: str, words: str, answer: bytes) -> None:
    assert client.call(name, *words.split()) == answer
    assert client.node.server.role == "master"


def test_replicaof_and_back(client: Client, node: ServerHarness, fake: FakeReplication) -> None:
    assert client.call("REPLICAOF", "10.0.0.1", "16004") == b"+OK\r\n"
    assert node.server.role == "slave"
    assert client.call("REPLICAOF", "10.0.0.1", "16004") == b"+OK Already connected to specified master\r\n"
    assert client.call("CONFIG", "GET", "slaveof") == b"*2\r\n$7\r\nslaveof\r\n$14\r\n10.0.0.1 16004\r\n"
    assert client.call("SLAVEOF", "No", "onE") == b"+OK\r\n"
    assert (node.server.role, node.store.deletes_expired) == ("master", True)
    assert client.call("CONFIG", "GET", "replicaof") == b"*2\r\n$9\r\nreplicaof\r\n$0\r\n\r\n"
    assert client.call("SET", "k", "v") == b"+OK\r\n"


def test_replicaof_that_cannot_be(client: Client, node: ServerHarness, fake: FakeReplication) -> None:
    fake.refuse_to_follow = ReplyError("ERR", "move its scopes first")
    assert client.call("REPLICAOF", "h", "1") == b"-ERR move its scopes first\r\n"
    assert node.server.role == "master"


def test_replicaof_without_replication() -> None:
    client = ServerHarness().connect()
    assert client.call("REPLICAOF", "h", "1") == b"-ERR this node is standalone and follows nobody\r\n"
    assert client.call("REPLICAOF", "h", "x") == b"-ERR Invalid master port\r\n"
    assert client.call("REPLICAOF", "NO", "ONE") == b"+OK\r\n"


class Moving:
    """The moves of a node, as commands see them; nothing else of scopes."""

    def __init__(self, *moves: MoveFacts) -> None:
        self._moves = moves

    def moves(self) -> tuple[MoveFacts, ...]:
        return self._moves


def move(prefix: bytes, role: str, state: str) -> MoveFacts:
    return MoveFacts(prefix, f"id of {prefix!r}", role, state, "b", 1, 0, False)


SOURCE_MOVES = tuple((state.value, state.name in ("DONE", "ABORTED", "CLOSED", "FAILED")) for state in SourceState)
TARGET_MOVES = tuple((state.value, state.name in ("ACTIVE", "DISCARDED")) for state in TargetState)


@pytest.mark.parametrize(
    ("role", "state", "ended"),
    [("source", *case) for case in SOURCE_MOVES] + [("target", *case) for case in TARGET_MOVES],
)
def test_replicaof_waits_for_the_end_of_moves(
    client: Client, node: ServerHarness, fake: FakeReplication, role: str, state: str, ended: bool
) -> None:
    """A source that has given a scope away has the only data until the new writer says that it has them."""
    node.server.scopes = cast(ScopeView, Moving(move(b"x:", role, "done"), move(b"y:", role, state)))
    answer = client.call("REPLICAOF", "h", "1")
    if ended:
        assert answer == b"+OK\r\n"
    else:
        assert answer == (b"-ERR REPLICAOF is not allowed while scopes are moving from or to this node: y:\r\n")
        assert node.server.role == "master"
        assert client.call("REPLICAOF", "NO", "ONE") == b"+OK\r\n"


def test_replicaof_inside_a_transaction(client: Client, node: ServerHarness, fake: FakeReplication) -> None:
    """What came before it is a group of the history that ends; it takes effect for the commands behind EXEC."""
    groups: list[int] = []
    node.store.journal.observers.append(lambda _, group: groups.append(len(group)))
    client.call("MULTI")
    client.call("SET", "k", "1")
    client.call("SET", "k", "2")
    client.call("REPLICAOF", "h", "1")
    assert client.call("EXEC") == b"*3\r\n+OK\r\n+OK\r\n+OK\r\n"
    assert groups == [2]
    assert client.session.wrote == 2
    assert client.call("SET", "k", "3").startswith(b"-READONLY")


# -- ROLE -----------------------------------------------------------------------------------------------------------


def test_role_of_a_primary(client: Client, fake: FakeReplication) -> None:
    client.call("SET", "k", "v")
    fake.replica_list = [replica(), replica(state="send_bulk"), replica(state="waiting"), replica(port=0, acked=1)]
    assert client.call("ROLE") == (
        b"*3\r\n$6\r\nmaster\r\n:1\r\n*2\r\n"
        b"*3\r\n$8\r\n10.0.0.2\r\n$4\r\n6005\r\n$2\r\n90\r\n*3\r\n$8\r\n10.0.0.2\r\n$1\r\n0\r\n$1\r\n1\r\n"
    )


def test_role_of_a_replica(client: Client, node: ServerHarness, fake: FakeReplication) -> None:
    node.server.become_replica(read_only=True)
    fake.fixed_position = 95
    assert client.call("ROLE") == b"*5\r\n$5\r\nslave\r\n$0\r\n\r\n:0\r\n$7\r\nconnect\r\n:95\r\n"
    fake.upstream_list = [upstream(), upstream(port=16005, state="sync"), upstream(port=16006)]
    assert client.call("ROLE") == b"*5\r\n$5\r\nslave\r\n$8\r\n10.0.0.1\r\n:16005\r\n$4\r\nsync\r\n:95\r\n"


# -- WAIT -----------------------------------------------------------------------------------------------------------


def test_wait_that_is_fulfilled_already(client: Client, fake: FakeReplication) -> None:
    client.call("SET", "k", "v")
    fake.acks = [(1, None), (1, None), (0, None)]
    assert client.call("WAIT", "2", "0") == b":2\r\n"
    assert client.call("WAIT", "1", "0") == b":2\r\n"
    assert client.call("WAIT", "-1", "0") == b":2\r\n"
    assert fake.asked_for_acknowledgements == 0


def test_wait_until_they_acknowledge(client: Client, node: ServerHarness, fake: FakeReplication) -> None:
    writer = node.connect()
    client.call("CONFIG", "RESETSTAT")
    assert client.send(request("SET", "k", "v") + request("WAIT", "2", "0") + request("PING")) == b"+OK\r\n"
    # What others write later is none of its business.
    writer.call("SET", "k", "w")
    assert fake.asked_for_acknowledgements == 1
    fake.acknowledge(0, 1)
    assert client.read() == b""
    fake.acknowledge(1, 1)
    assert client.woken
    assert client.read() == b":2\r\n+PONG\r\n"
    # They were asked once, however often the command was looked at, and it counts as one call.
    assert fake.asked_for_acknowledgements == 1
    assert b"cmdstat_wait:calls=1," in client.call("INFO", "commandstats")
    fake.acknowledge(9)
    assert client.read() == b""


def test_wait_counts_what_has_come_when_its_time_is_over(
    client: Client, node: ServerHarness, fake: FakeReplication
) -> None:
    client.call("SET", "k", "v")
    assert client.call("WAIT", "3", "500") == b""
    fake.acknowledge(1, 1)
    node.advance(0.4)
    assert client.read() == b""
    # Not told of any more, and counted all the same.
    fake.acks = [(1, None)]
    node.advance(0.2)
    assert client.read() == b":1\r\n"


def test_an_unblocked_wait_counts_too(client: Client, node: ServerHarness, fake: FakeReplication) -> None:
    client.call("SET", "k", "v")
    client.call("WAIT", "2", "0")
    fake.acknowledge(1)
    assert node.connect().call("CLIENT", "UNBLOCK", str(client.session.id)) == b":1\r\n"
    assert client.read() == b":1\r\n"


def test_nobody_waits_for_replicas_inside_a_transaction(client: Client, fake: FakeReplication) -> None:
    fake.acks = [(1, None)]
    client.call("SET", "k", "v")
    client.call("MULTI")
    client.call("WAIT", "2", "0")
    assert client.call("EXEC") == b"*1\r\n:1\r\n"


def test_a_program_does_not_wait(node: ServerHarness, fake: FakeReplication) -> None:
    local = LocalClient(node.server)
    local.execute("SET", "k", "v")
    fake.acks = [(1, None)]
    assert local.execute("WAIT", 2, 0) == 1
    with pytest.raises(Misdirected):
        local.execute("REPL.WAIT", 5, 1)
    fake.applied[5] = 0
    with pytest.raises(Misdirected) as raised:
        local.execute("REPL.WAIT", 5, 1)
    assert raised.value.writer == "10.0.0.1:6004"


def test_each_who_waits_is_served_for_what_it_wrote(node: ServerHarness, fake: FakeReplication) -> None:
    clients = [node.connect() for _ in range(3)]
    for client in clients:
        assert client.send(request("SET", "k", "v") + request("WAIT", "1", "0")) == b"+OK\r\n"
    fake.acknowledge(2)
    assert [client.read() for client in clients] == [b":1\r\n", b":1\r\n", b""]
    assert [client.session.blocked for client in clients] == [False, False, True]
    clients[2].session.disconnected("gone")
    fake.acknowledge(3)
    assert node.server.waiters.count == 0


def test_wait_has_no_place_on_a_replica(client: Client, node: ServerHarness) -> None:
    node.server.become_replica(read_only=True)
    refused = b"-ERR WAIT cannot be used with replica instances\r\n"
    assert client.call("WAIT", "0", "0") == refused
    assert client.call("WAIT", "x", "y") == refused
    refused = (
        b"-ERR WAITAOF cannot be used with replica instances."
        b" Please also note that writes to replicas are just local and are not propagated.\r\n"
    )
    assert client.call("WAITAOF", "0", "0", "0") == refused
    assert client.call("WAITAOF", "1", "0", "0") == refused
    assert client.call("WAITAOF", "x", "0", "0") == b"-ERR value is not an integer or out of range\r\n"


# -- tokens ---------------------------------------------------------------------------------------------------------


def test_the_token_covers_what_was_done(client: Client, fake: FakeReplication) -> None:
    client.call("SET", "k", "v")
    assert client.call("REPL.TOKEN") == b"*2\r\n:2748\r\n:1\r\n"
    client.call("MULTI")
    client.call("SET", "k", "v")
    client.call("REPL.TOKEN")
    assert client.call("EXEC") == b"*2\r\n+OK\r\n*2\r\n:2748\r\n:2\r\n"


def test_repl_wait(client: Client, node: ServerHarness, fake: FakeReplication) -> None:
    fake.applied[7] = 10
    assert client.call("REPL.WAIT", "7", "10") == b"+OK\r\n"
    assert client.call("REPL.WAIT", "7", "11") == b""
    fake.advance(7, 10)
    assert client.read() == b""
    fake.advance(7, 11)
    assert client.read() == b"+OK\r\n"


def test_repl_wait_in_vain(client: Client, node: ServerHarness, fake: FakeReplication) -> None:
    fake.applied[7] = 10
    assert client.call("repl.wait", "7", "11", "timeout", "500") == b""
    fake.writer_address = "10.0.0.9:6004"
    node.advance(0.6)
    assert client.read() == b"-MISDIRECTED writer is 10.0.0.9:6004\r\n"
    assert b"errorstat_MISDIRECTED:count=1\r\n" in client.call("INFO", "errorstats")


def test_repl_wait_for_a_history_that_is_not_ours(client: Client, fake: FakeReplication) -> None:
    assert client.call("REPL.WAIT", "8", "0") == b"-MISDIRECTED writer is 10.0.0.1:6004\r\n"
    fake.applied[7] = 10
    assert client.call("REPL.WAIT", "7", "11") == b""
    # The node follows another history now.
    fake.applied.clear()
    fake.advance(9, 1)
    assert client.read() == b"-MISDIRECTED writer is 10.0.0.1:6004\r\n"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("x 0", "ERR value is not an integer or out of range"),
        ("1 x", "ERR value is not an integer or out of range"),
        ("-1 0", "ERR value is out of range, must be positive"),
        ("1 -1", "ERR value is out of range, must be positive"),
        ("1 0 TIMEOUT", "ERR syntax error"),
        ("1 0 SOON 5", "ERR syntax error"),
        ("1 0 TIMEOUT 5 5", "ERR syntax error"),
        ("1 0 TIMEOUT x", "ERR timeout is not an integer or out of range"),
        ("1 0 TIMEOUT -1", "ERR timeout is negative"),
        ("1", "ERR wrong number of arguments for 'repl.wait' command"),
    ],
)
def test_errors_of_repl_wait(client: Client, words: str, error: str) -> None:
    assert client.call("REPL.WAIT", *words.split()) == f"-{error}\r\n".encode()


def test_a_lone_primary_keeps_its_own_tokens() -> None:
    node = ServerHarness()
    client = node.connect()
    client.call("SET", "k", "v")
    history = node.server.view.history
    assert client.call("REPL.TOKEN") == b"*2\r\n:%d\r\n:1\r\n" % history
    assert 1 <= history < 1 << 53
    assert client.call("REPL.WAIT", str(history), "1") == b"+OK\r\n"
    assert client.call("REPL.WAIT", str(history), "2", "TIMEOUT", "5") == b""
    node.advance(1)
    assert client.read() == b"-MISDIRECTED writer is 127.0.0.1:0\r\n"
    assert client.call("REPL.WAIT", str(history + 1), "0") == b"-MISDIRECTED writer is 127.0.0.1:0\r\n"
