"""A primary that does what a test tells it to: the bytes of a stream in all forms, and a scripted other end for them.

The functions give what a primary says; :class:`FakePrimary` listens on a memory transport and hands out its
connections, on which a test reads the handshake, sends what it likes, and looks at what comes back.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import trio
import trio.testing
from support.memory_transport import MemoryTransport

from kevynode.replicate import wire
from kevynode.replicate.handshake import HandshakeParser, Request
from kevynode.replicate.snapshot import encode_snapshot
from kevynode.store.keyspace import KeyShard
from kevynode.store.store import Store

#: Where the bytes recorded from real servers are.
VECTORS: Final = Path(__file__).parent.parent / "vectors"

Words: TypeAlias = Sequence[bytes]


def vector(name: str) -> bytes:
    """What a real server sent on one occasion; ``tests/vectors/README.md`` says which."""
    return (VECTORS / f"{name}.bin").read_bytes()


def words(text: str) -> list[bytes]:
    """A command from its words: ``words("SET k v")``."""
    return text.encode().split()


def frames(first: int, *commands: str) -> bytes:
    """Frames of commands given as text, from offset ``first`` on."""
    return wire.encode_frames(first, [words(command) for command in commands])


def group(first: int, *commands: str) -> bytes:
    """The same as one group."""
    return wire.group(len(commands)) + frames(first, *commands)


def answer(
    history: int | None, offset: int, accepted: Iterable[str] | None = None, lineage: Sequence[tuple[int, int]] = ()
) -> bytes:
    """What a handshake is answered with: five arguments if ``history`` is None, extended if ``accepted`` is given."""
    if history is None:
        return b"+ACK %d\r\n" % offset
    line = b"+ACK %d %d\r\n" % (history, offset)
    if accepted is None:
        return line
    names = sorted(accepted)
    line += " ".join(["+CAPA", str(len(names)), *names]).encode() + b"\r\n"
    if "lineage" in names:
        line += " ".join(["+LINEAGE", *(f"{old}@{branch}" for old, branch in lineage)]).encode() + b"\r\n"
    return line


def payload(data: Mapping[str, str]) -> bytes:
    """A snapshot of string keys, version 4."""
    store = Store(random.Random(0))
    for key, value in data.items():
        store.put(key.encode(), value.encode())
    shards: list[KeyShard] = store.freeze()
    return b"".join(encode_snapshot(shards, version=4))


def ship(offset: int, data: Mapping[str, str], inside: bytes = b"") -> bytes:
    """A whole snapshot as of ``offset``; ``inside`` stands before its first chunk."""
    chunks = b"".join(wire.chunks(payload(data)))
    return wire.SNAPSHOT_BEGIN + inside + chunks + wire.snapshot_end(offset)


class FakeConnection:
    """The primary's end of one connection."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._read = b""

    async def handshake(self) -> Request:
        """What the replica asks for."""
        parser = HandshakeParser()
        while True:
            data = await self._stream.receive_some()
            assert data, "the connection ended in its handshake"
            request = parser.feed(bytes(data))
            if request is not None:
                self._read = parser.rest
                return request

    async def send(self, data: bytes) -> None:
        """Send bytes, and let the replica do with them what it does."""
        await self._stream.send_all(data)
        await trio.testing.wait_all_tasks_blocked()

    async def line(self) -> bytes:
        """The next line the replica sends, without its end; empty at the end of the stream."""
        while b"\r\n" not in self._read:
            data = await self._stream.receive_some()
            if not data:
                assert not self._read, self._read
                return b""
            self._read += data
        line, _, self._read = self._read.partition(b"\r\n")
        return line

    async def position(self) -> int:
        """What the replica acknowledges next."""
        line = await self.line()
        assert line.startswith(b"REPLCONF ACK "), line
        return int(line.rpartition(b" ")[2])

    async def ended(self) -> bool:
        """Read on to the end of the stream; whether it has come. Waits for ever on a connection that stays."""
        while await self.line():
            pass
        await trio.testing.wait_all_tasks_blocked()
        return True

    async def close(self) -> None:
        """End the connection."""
        await self._stream.aclose()
        await trio.testing.wait_all_tasks_blocked()


class FakePrimary:
    """Listens on ``port`` of a memory transport, where a follower or client is to connect."""

    def __init__(self, transport: MemoryTransport, port: int = 16004, host: str = "primary") -> None:
        self.host = host
        self.port = port
        self._transport = transport

    async def __aenter__(self) -> FakePrimary:
        (self._listener,) = await self._transport.listen([self.host], self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()

    async def accept(self) -> FakeConnection:
        """The next connection."""
        (incoming,) = await self._listener.accept()
        return FakeConnection(incoming.stream())

    async def greet(self, expected: tuple[int, int] | None = None) -> tuple[FakeConnection, Request]:
        """The next connection with what it asks for, which is ``expected`` (history, offset) if given."""
        connection = await self.accept()
        request = await connection.handshake()
        if expected is not None:
            assert (request.history, request.offset) == expected
        return connection, request
