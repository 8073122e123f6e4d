"""Real sessions behind a gate that looks at what they wrote."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest
import trio
from stream.driving import PATIENCE, settled, socket_pair
from stream.line_session import Log
from support.session_harness import ServerHarness, request

from kevynode.serve.answers import Verdict, WritingSession
from kevynode.serve.hub import Hub
from kevynode.serve.session import Session
from kevynode.serve.stream_driver import StreamDriver
from kevynode.transport import socket_stream


class Written:
    """Lets leave what is before ``offset``."""

    def __init__(self) -> None:
        self.offset = 0

    def before_answers(self) -> bool:
        return False

    def verdict(self, session: WritingSession) -> Verdict:
        return "send" if session.wrote <= self.offset else "hold"


def received(client: socket.socket) -> bytes:
    """What is there; nothing if nothing is."""
    try:
        return client.recv(1 << 16)
    except BlockingIOError:
        return b""


@pytest.mark.parametrize("way", ["hub", "streams"])
async def test_who_wrote_what_is_not_written_waits_and_who_reads_does_not(way: str) -> None:
    node = ServerHarness()
    gate = Written()
    driver: Any = Hub(Log(), answers=gate) if way == "hub" else StreamDriver(Log(), answers=gate)
    serve: Callable[..., Any] = driver.serve
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            if way == "hub":
                await nursery.start(driver.run)
            clients: list[socket.socket] = []
            for _ in range(4):
                near, far = socket_pair("unix")
                clients.append(near)
                session = Session(node.server, "peer", "here")
                nursery.start_soon(serve, far if way == "hub" else socket_stream(far), session)
            writer, reader, waiting, silent = clients
            waiting.send(request("BLPOP", "list", "0"))
            await settled()
            writer.send(request("RPUSH", "list", "element") + request("SET", "k", "1"))
            await settled()
            silent.send(request("CLIENT", "REPLY", "OFF") + request("SET", "k", "2"))
            await settled()
            reader.send(request("GET", "k"))
            await settled()
            assert received(reader) == b"$1\r\n2\r\n"
            # It has taken the element out, which is a write too.
            assert received(waiting) == received(writer) == b""
            silent.send(request("SET", "k", "3"))
            await settled()
            assert node.connect().call("GET", "k") == b"$1\r\n3\r\n"
            gate.offset = node.server.store.journal.offset
            driver.release_answers()
            await settled()
            assert received(waiting) == b"*2\r\n$4\r\nlist\r\n$7\r\nelement\r\n"
            assert received(writer) == b":1\r\n+OK\r\n"
            nursery.cancel_scope.cancel()
    for client in clients:
        client.close()
    if way == "hub":
        driver.close()
