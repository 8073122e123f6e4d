"""How a node ends: by signals and by SHUTDOWN, with its clients served and nothing left behind."""

from __future__ import annotations

import re
import signal
import socket

import pytest
from support.node_process import NodeProcess
from support.raw_client import CLOSED, RawClient, Reply

# More than the kernel takes for a client that does not read.
LARGE = 32 << 20


def client_fields(watcher: RawClient, name: bytes) -> dict[str, str]:
    """What CLIENT LIST says of the client with a name; empty if there is none."""
    listed = watcher.call(b"CLIENT", b"LIST").value.decode()
    for line in listed.splitlines():
        fields = dict(re.findall(r"(\S+)=(\S*)", line))
        if fields["name"] == name.decode():
            return fields
    return {}


def ask_without_reading(node: NodeProcess, watcher: RawClient, name: bytes) -> RawClient:
    """A client whose reply the node holds because the client does not read."""
    client = RawClient(node.host, node.port)
    client.call(b"CLIENT", b"SETNAME", name)
    client.send(b"GET", b"large")
    node.wait_until(lambda: int(client_fields(watcher, name)["omem"]) > 0, "a reply waits")
    return client


def refuses_connections(node: NodeProcess) -> bool:
    try:
        socket.create_connection((node.host, node.port), 5).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        pass
    return False


def check_clean_end(node: NodeProcess) -> None:
    """It ended with 0, and logged nothing but that it started and stopped."""
    assert node.wait() == 0, node.log()
    log = node.log()
    assert "Traceback" not in log
    for line in log.splitlines():
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info \w+", line), log
    assert " stopped " in log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_reply_on_its_way_arrives_whole(number: signal.Signals) -> None:
    with NodeProcess() as node, RawClient(node.host, node.port) as watcher:
        value = bytes(range(256)) * (LARGE // 256)
        assert watcher.call(b"SET", b"large", value) == Reply("simple", b"OK")
        with ask_without_reading(node, watcher, b"slow") as slow:
            # What was sent before the reply is read belongs to the commands that are still answered or not at all.
            node.send_signal(number)
            assert watcher.read() == CLOSED
            node.wait_until(lambda: refuses_connections(node), "new clients are refused")
            assert slow.read() == Reply("bulk", value)
            assert slow.read() == CLOSED
        check_clean_end(node)
        assert f" stopping signal={number.name}" in node.log()


def test_those_who_wait_are_let_go() -> None:
    with NodeProcess() as node, RawClient(node.host, node.port) as watcher:
        waiting, listening = RawClient(node.host, node.port), RawClient(node.host, node.port)
        with waiting, listening:
            waiting.call(b"CLIENT", b"SETNAME", b"waiting")
            waiting.send(b"BLPOP", b"queue", b"0")
            node.wait_until(lambda: client_fields(watcher, b"waiting")["flags"] == "b", "a client waits")
            assert listening.call(b"SUBSCRIBE", b"news").kind == "array"
            node.send_signal(signal.SIGTERM)
            assert waiting.read() == CLOSED
            assert listening.read() == CLOSED
        check_clean_end(node)


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_does_not_wait_for_clients(second: signal.Signals) -> None:
    with NodeProcess() as node, RawClient(node.host, node.port) as watcher:
        watcher.call(b"SET", b"large", bytes(LARGE))
        with ask_without_reading(node, watcher, b"slow"):
            node.send_signal(signal.SIGTERM)
            node.wait_until(lambda: "stopping signal=SIGTERM" in node.log(), "the first signal is heard")
            assert watcher.read() == CLOSED
            assert node.running()
            node.send_signal(second)
            check_clean_end(node)
            # Nobody waited until the time for clients was over.
            assert "drain_timeout" not in node.log()


def test_sighup_with_a_log_that_is_no_file() -> None:
    with NodeProcess() as node:
        node.send_signal(signal.SIGHUP)
        node.wait_until(lambda: " log_reopened" in node.log(), "the signal is heard")
        node.check_health()


def test_a_client_that_is_gone_when_the_node_stops() -> None:
    with NodeProcess() as node, RawClient(node.host, node.port) as watcher:
        watcher.call(b"SET", b"large", bytes(LARGE))
        slow = ask_without_reading(node, watcher, b"slow")
        node.send_signal(signal.SIGTERM)
        assert watcher.read() == CLOSED
        slow.close()
        check_clean_end(node)


@pytest.mark.parametrize("words", [(b"SHUTDOWN",), (b"SHUTDOWN", b"NOSAVE"), (b"SHUTDOWN", b"NOW", b"FORCE")])
def test_shutdown_ends_the_process_without_a_reply(words: tuple[bytes, ...]) -> None:
    with NodeProcess() as node, RawClient(node.host, node.port) as client, RawClient(node.host, node.port) as other:
        assert other.call(b"PING") == Reply("simple", b"PONG")
        client.send(*words)
        assert client.read() == CLOSED
        assert other.read() == CLOSED
        check_clean_end(node)


def test_shutdown_with_nonsense_is_refused() -> None:
    with NodeProcess() as node, RawClient(node.host, node.port) as client:
        assert client.call(b"SHUTDOWN", b"PLEASE") == Reply("error", b"ERR syntax error")
        node.check_health()
