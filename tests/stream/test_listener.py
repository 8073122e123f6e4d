"""Letting clients in, turning them away, running out of descriptors, and leaving in order."""

from __future__ import annotations

import errno
import os
import socket
import sys
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from stream.driving import PATIENCE, receive_all, receive_line, settled
from stream.line_session import LineSession, Log, Room
from support.memory_transport import MemoryTransport

from kevynode.accept import CAPACITY_PAUSE
from kevynode.serve.hub import Hub
from kevynode.serve.listener import Admission, ClientEntrance
from kevynode.serve.stream_driver import StreamDriver
from kevynode.transport import Incoming, Listener, SystemTransport, Transport

needs_hub = pytest.mark.skipif(sys.platform != "linux", reason="the hub is Linux's")
WAYS = [pytest.param("hub", marks=needs_hub), "streams over tcp", "streams over memory"]


class House:
    """A listener, both drivers, and an entrance between them."""

    def __init__(self, way: str, nursery: trio.Nursery) -> None:
        self.room = Room()
        self.log = Log()
        self.admission = Admission()
        self.transport: Transport = MemoryTransport() if way.endswith("memory") else SystemTransport()
        self.hub = Hub(self.log, timer=self.room.timer) if way == "hub" else None
        self.streams = StreamDriver(self.log, timer=self.room.timer)
        self.entrance = ClientEntrance(
            self.admission, self.open_session, nursery, self.log, hub=self.hub, streams=self.streams
        )
        self.opened: list[tuple[str, str, str]] = []
        self.port = 0
        # Set to have the next session fail.
        self.failure: Exception | None = None

    def open_session(self, peer: str, local: str, kind: str) -> LineSession:
        if self.failure is not None:
            raise self.failure
        self.opened.append((peer, local, kind))
        return self.room.session()

    async def connect(self) -> trio.abc.Stream:
        return await self.transport.connect("127.0.0.1", self.port)


@asynccontextmanager
async def house(way: str) -> AsyncIterator[House]:
    """Open for clients; leaving shuts down as a node does."""
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as sessions:
            it = House(way, sessions)
            if it.hub is not None:
                await sessions.start(it.hub.run)
            async with trio.open_nursery() as inner:
                [listener] = await it.transport.listen(["127.0.0.1"], 0)
                it.port = listener.port
                await inner.start(it.entrance.listen, listener)
                yield it
                inner.cancel_scope.cancel()
            with pytest.raises(OSError, match=r"(?i)connect"):
                await it.connect()
            async with trio.open_nursery() as draining:
                draining.cancel_scope.deadline = trio.current_time() + PATIENCE
                draining.start_soon(it.streams.drain)
                if it.hub is not None:
                    draining.start_soon(it.hub.drain)
            sessions.cancel_scope.cancel()
    if it.hub is not None:
        it.hub.close()
    assert it.admission.connected == 0
    assert all(len(session.reasons) == 1 for session in it.room.sessions)


@pytest.mark.parametrize("way", WAYS)
async def test_clients_are_served_and_the_last_replies_leave_before_the_end(way: str) -> None:
    async with house(way) as it:
        client = await it.connect()
        await client.send_all(b"echo hello\n")
        assert await receive_line(client) == b"hello"
        [(peer, local, kind)] = it.opened
        assert (local, kind) == (f"127.0.0.1:{it.port}", "tcp")
        assert peer.startswith("127.0.0.1:")
        assert (it.admission.connected, it.admission.received) == (1, 1)
        if it.hub is not None:
            assert (it.hub.connected, it.streams.connected) == (1, 0)
        blocked = await it.connect()
        await blocked.send_all(b"echo waiting\nblock\n")
        await settled()
    assert await receive_all(client) == b""
    assert await receive_all(blocked) == b"waiting\n"
    await client.aclose()
    await blocked.aclose()


@pytest.mark.parametrize("way", WAYS)
async def test_more_clients_than_allowed_are_told_so(way: str) -> None:
    async with house(way) as it:
        it.admission.maxclients = 2
        first, second = await it.connect(), await it.connect()
        refused = await it.connect()
        assert await receive_all(refused) == b"-ERR max number of clients reached\r\n"
        assert (it.admission.connected, it.admission.received, it.admission.rejected) == (2, 2, 1)
        assert len(it.opened) == 2
        await first.aclose()
        await settled()
        third = await it.connect()
        await third.send_all(b"echo in\n")
        assert await receive_line(third) == b"in"
        for client in (second, third, refused):
            await client.aclose()


@pytest.mark.parametrize("way", WAYS)
async def test_a_session_that_cannot_be_opened_closes_its_connection_only(way: str) -> None:
    async with house(way) as it:
        it.failure = RuntimeError("no session")
        lost = await it.connect()
        assert await receive_all(lost) == b""
        it.failure = None
        client = await it.connect()
        await client.send_all(b"echo fine\n")
        assert await receive_line(client) == b"fine"
        assert it.log.names() == ["session_failed"]
        assert it.admission.connected == 1
        for stream in (lost, client):
            await stream.aclose()


async def test_a_blocked_client_over_a_socket_is_looked_at_without_the_hub_too() -> None:
    async with house("streams over tcp") as it:
        client = await it.connect()
        await client.send_all(b"block\n")
        await settled()
        [session] = it.room.sessions
        assert session.peer_gone is not None
        assert not session.peer_gone()
        assert isinstance(client, trio.SocketStream)
        client.socket.shutdown(socket.SHUT_WR)
        assert session.peer_gone()
        await session.gone.wait()
        await client.aclose()


async def test_tcp_connections_are_kept_alive() -> None:
    async with house("streams over tcp") as it:
        it.admission.tcp_keepalive = 33
        ours, theirs = socket.socketpair()
        ours.close()
        theirs.close()
        with socket.create_server(("127.0.0.1", 0)) as server:
            near = socket.create_connection(server.getsockname())
            far, _ = server.accept()
        far.setblocking(False)
        it.entrance.admit(Incoming("peer:1", "local:2", "tcp", far))
        await settled()
        assert far.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 33
        near.close()


@needs_hub
async def test_an_idle_connection_holds_nothing_of_how_it_came_in() -> None:
    async with house("hub") as it:
        pairs = [socket.socketpair() for _ in range(2)]
        came = []
        for number, (_, far) in enumerate(pairs):
            far.setblocking(False)
            incoming = Incoming("peer:1", f"local:{number // 2}", "unix", far)
            came.append(weakref.ref(incoming))
            it.entrance.admit(incoming)
            del incoming
        await settled()
        assert it.hub is not None
        assert it.hub.connected == 2
        assert [reference() for reference in came] == [None, None]
        assert it.opened[0][1] is it.opened[1][1]
        for near, _ in pairs:
            near.close()


class ScarceListener:
    """Answers accept with what it is given."""

    address = "memory"
    port = 1

    def __init__(self, answers: list[OSError | Incoming]) -> None:
        self.answers = answers
        self.times: list[float] = []
        self.closed = False

    async def accept(self) -> list[Incoming]:
        await trio.lowlevel.checkpoint()
        self.times.append(trio.current_time())
        if not self.answers:
            raise trio.ClosedResourceError
        answer = self.answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return [answer]

    def close(self) -> None:
        self.closed = True


async def test_without_descriptors_it_waits_and_says_so_once(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    it = House("streams over memory", nursery)
    client, served = trio.testing.memory_stream_pair()
    no_descriptors = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    listener = ScarceListener([no_descriptors, no_descriptors, no_descriptors, Incoming("a", "b", "tcp", served)])
    checked: Listener = listener
    await it.entrance.listen(checked)
    start = listener.times[0]
    assert [time - start for time in listener.times] == pytest.approx([CAPACITY_PAUSE * n for n in (0, 1, 2, 3, 3)])
    assert it.log.events == [
        ("accept_failed", {"address": "memory", "error": os.strerror(errno.EMFILE)}),
        ("accept_recovered", {"address": "memory", "attempts": 3}),
    ]
    assert listener.closed
    await client.send_all(b"echo at last\n")
    assert await receive_line(client) == b"at last"
    await client.aclose()


async def test_a_broken_listener_is_no_secret(nursery: trio.Nursery) -> None:
    it = House("streams over memory", nursery)
    listener = ScarceListener([OSError(errno.EINVAL, "broken")])
    with pytest.raises(OSError, match="broken"):
        await it.entrance.listen(listener)
    assert listener.closed
