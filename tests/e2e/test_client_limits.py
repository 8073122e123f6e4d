"""How many clients a node serves, and for how long: maxclients, the limit of open files, the idle timeout."""

from __future__ import annotations

import re
from contextlib import ExitStack

from e2e.commands import start_error
from support.node_process import NodeProcess
from support.raw_client import CLOSED, RawClient, Reply

PONG = Reply("simple", b"PONG")
REFUSED = Reply("error", b"ERR max number of clients reached")


def is_served(node: NodeProcess) -> bool:
    """Whether a new client is let in."""
    with RawClient(node.host, node.port) as client:
        return client.call(b"PING") == PONG


def test_one_client_too_many_is_told_and_may_come_again() -> None:
    with NodeProcess(config="[server]\nmaxclients = 3\n") as node, ExitStack() as stack:
        clients = [stack.enter_context(RawClient(node.host, node.port)) for _ in range(3)]
        assert [client.call(b"PING") for client in clients] == [PONG] * 3
        for _ in range(5):
            with RawClient(node.host, node.port) as refused:
                assert refused.read() == REFUSED
                assert refused.read() == CLOSED
        assert [client.call(b"PING") for client in clients] == [PONG] * 3
        clients[0].close()
        node.wait_until(lambda: is_served(node), "a place is free again")
        assert [client.call(b"PING") for client in clients[1:]] == [PONG] * 2
        clients[1].close()
        node.wait_until(lambda: is_served(node), "another place is free")
        node.check_health()


def test_too_few_open_files_lower_the_number_of_clients() -> None:
    with NodeProcess(descriptors=140) as node, ExitStack() as stack:
        warning = re.search(r" warning maxclients_lowered (.*)", node.log())
        assert warning, node.log()
        facts = dict(word.split("=") for word in warning[1].split())
        assert (facts["wanted"], facts["open_files"]) == ("10000", "140")
        fitting = int(facts["now"])
        assert 1 <= fitting < 140
        clients = [stack.enter_context(RawClient(node.host, node.port)) for _ in range(fitting)]
        assert [client.call(b"PING") for client in clients] == [PONG] * fitting
        with RawClient(node.host, node.port) as refused:
            assert refused.read() == REFUSED
        clients.pop().close()
        node.wait_until(lambda: is_served(node), "a place is free again")
        clients.pop().close()
        node.wait_until(lambda: is_served(node), "another place is free")
        node.check_health()


def test_a_limit_of_open_files_that_leaves_room_for_nobody() -> None:
    said = start_error("--port", "0", descriptors=64)
    assert "64 open files" in said


def test_idle_clients_are_closed_but_not_those_who_wait_or_listen() -> None:
    with NodeProcess(config="[server]\ntimeout = 1\n") as node, ExitStack() as stack:
        idle, busy, waiting, listening = (
            stack.enter_context(RawClient(node.host, node.port, protocol)) for protocol in (2, 2, 2, 3)
        )
        waiting.send(b"BLPOP", b"queue", b"0")
        assert listening.call(b"SUBSCRIBE", b"news").kind == "push"
        assert idle.call(b"PING") == PONG

        def idle_is_closed() -> bool:
            assert busy.call(b"PING") == PONG
            return idle.readable()

        node.wait_until(idle_is_closed, "the idle client is closed")
        assert idle.read() == CLOSED
        assert busy.call(b"RPUSH", b"queue", b"a") == Reply("integer", 1)
        assert waiting.read() == Reply("array", (Reply("bulk", b"queue"), Reply("bulk", b"a")))
        assert busy.call(b"PUBLISH", b"news", b"hello") == Reply("integer", 1)
        assert listening.read().kind == "push"
        node.check_health()
