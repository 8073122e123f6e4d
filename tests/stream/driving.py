"""Runs either driver over either kind of connection, for tests."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing
from stream.line_session import LineSession, Log, Room

from kevynode.serve.hub import Hub
from kevynode.serve.stream_driver import StreamDriver
from kevynode.transport import socket_stream

#: Seconds after which a test that hangs is ended; no test depends on it otherwise.
PATIENCE = 20.0

#: Driver and kind of connection.
KINDS = ["hub over unix", "hub over tcp", "streams over memory", "streams over tcp"]


def socket_pair(kind: str) -> tuple[socket.socket, socket.socket]:
    """Two connected non-blocking sockets."""
    if kind == "unix":
        left, right = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            left = socket.create_connection(listening.getsockname())
            right, _ = listening.accept()
        left.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    left.setblocking(False)
    right.setblocking(False)
    return left, right


class Driving:
    """A driver that serves, and the connections to it."""

    def __init__(self, kind: str, room: Room, log: Log, nursery: trio.Nursery, **options: Any) -> None:
        self.kind = kind
        self.room = room
        self.log = log
        self.nursery = nursery
        make = Hub if kind.startswith("hub") else StreamDriver
        self.driver: Hub | StreamDriver = make(log, timer=room.timer, **options)
        self.clients: list[trio.abc.Stream] = []
        # The clients' sockets by session, for what has to happen without a checkpoint.
        self.raw: dict[LineSession, socket.socket] = {}
        # Stops the hub's own task.
        self.running = trio.CancelScope()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The hub's own task, until ``running`` is cancelled. Other drivers have none."""
        self.running = trio.CancelScope()
        if isinstance(self.driver, Hub):
            with self.running:
                await self.driver.run(task_status=task_status)
        else:
            task_status.started()

    async def connect(self, **options: int) -> tuple[trio.abc.Stream, LineSession]:
        """A client's stream and the session at its other end."""
        session = self.room.session(**options)
        client: trio.abc.Stream
        if self.kind.endswith("memory"):
            client, served = trio.testing.memory_stream_pair()
            assert isinstance(self.driver, StreamDriver)
            self.nursery.start_soon(self.driver.serve, served, session)
        else:
            near, far = socket_pair(self.kind.split()[-1])
            client = socket_stream(near)
            self.raw[session] = near
            if isinstance(self.driver, Hub):
                self.nursery.start_soon(self.driver.serve, far, session)
            else:
                self.nursery.start_soon(self.driver.serve, socket_stream(far), session)
        self.clients.append(client)
        await settled()
        return client, session


@asynccontextmanager
async def driving(kind: str, *, cost: float = 0.0, **options: Any) -> AsyncIterator[Driving]:
    """A running driver; leaving cancels it and its connections."""
    room = Room(cost)
    log = Log()
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            it = Driving(kind, room, log, nursery, **options)
            await nursery.start(it.run)
            try:
                yield it
                nursery.cancel_scope.cancel()
            finally:
                with trio.CancelScope(shield=True):
                    for client in it.clients:
                        await trio.aclose_forcefully(client)
    if isinstance(it.driver, Hub):
        it.driver.close()


async def settled() -> None:
    """Until nobody has anything to do: also shows that the hub sleeps."""
    await trio.testing.wait_all_tasks_blocked(0.005)


async def receive_exactly(stream: trio.abc.Stream, count: int) -> bytes:
    """``count`` bytes, or fewer at the end of the stream."""
    data = bytearray()
    while len(data) < count:
        chunk = await stream.receive_some(count - len(data))
        if not chunk:
            break
        data += chunk
    return bytes(data)


async def receive_line(stream: trio.abc.Stream) -> bytes:
    """A line without its end, read byte by byte."""
    line = b""
    while not line.endswith(b"\n"):
        byte = await stream.receive_some(1)
        assert byte, line
        line += byte
    return line[:-1]


async def receive_all(stream: trio.abc.Stream) -> bytes:
    """Everything until the end of the stream."""
    return b"".join([bytes(chunk) async for chunk in stream])
