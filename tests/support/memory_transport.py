"""A network in memory: the transport of a node under test, with the same errors as real sockets."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from itertools import count

import trio
import trio.testing

from kevynode.transport import Incoming, Kind, format_address

#: Makes the two ends of a connection.
StreamPair = Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]]


class MemoryListener:
    """A place that a :class:`MemoryTransport` connects to."""

    def __init__(self, listeners: dict[str, MemoryListener], address: str, port: int, kind: Kind) -> None:
        self.address = address
        self.port = port
        self.kind = kind
        self._listeners = listeners
        self._arrivals, self._waiting = trio.open_memory_channel[Incoming](511)
        listeners[address] = self

    async def accept(self) -> list[Incoming]:
        """The next connection."""
        try:
            return [await self._waiting.receive()]
        except trio.EndOfChannel:
            raise trio.ClosedResourceError("the listener is closed") from None

    def arrive(self, incoming: Incoming) -> None:
        """Put a connection into the backlog; raises ``trio.WouldBlock`` if that is full."""
        self._arrivals.send_nowait(incoming)

    def close(self) -> None:
        """Refuse connections from now on."""
        self._arrivals.close()
        if self._listeners.get(self.address) is self:
            del self._listeners[self.address]


class MemoryTransport:
    """All nodes that share one of these can reach each other. Names are not resolved."""

    def __init__(self, pair: StreamPair = trio.testing.memory_stream_pair) -> None:
        self._pair = pair
        self._listeners: dict[str, MemoryListener] = {}
        self._ports = count(30000)

    async def listen(self, addresses: Sequence[str], port: int, *, backlog: int = 511) -> list[MemoryListener]:
        """Listen on every address; port 0 takes one that nobody had before."""
        await trio.lowlevel.checkpoint()
        port = port or next(self._ports)
        names = [format_address(address, port) for address in addresses]
        for name in names:
            self._check_free(name)
        return [MemoryListener(self._listeners, name, port, "tcp") for name in names]

    async def listen_unix(self, path: str, *, mode: int | None = None, backlog: int = 511) -> MemoryListener:
        """Listen on a path, which is only a name here."""
        await trio.lowlevel.checkpoint()
        self._check_free(path)
        return MemoryListener(self._listeners, path, 0, "unix")

    async def connect(self, host: str, port: int) -> trio.abc.Stream:
        """Connect to a listener of this transport."""
        return await self._connect(format_address(host, port), format_address(host, next(self._ports)))

    async def connect_unix(self, path: str) -> trio.abc.Stream:
        """Connect to a path of this transport."""
        return await self._connect(path, f"{path}:0")

    async def _connect(self, address: str, own: str) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        listener = self._listeners.get(address)
        if listener is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        ours, theirs = self._pair()
        listener.arrive(Incoming(own, address if listener.kind == "tcp" else own, listener.kind, theirs))
        return ours

    def _check_free(self, address: str) -> None:
        if address in self._listeners:
            raise OSError(errno.EADDRINUSE, f"cannot listen on {address}: {os.strerror(errno.EADDRINUSE)}")
