"""A network in memory that a test can slow down, hold up, cut into single bytes, and cut off.

Each connection is a :class:`Wire` of two :class:`Lane`s, one for each direction. Time is Trio's, so a mock clock makes
latency exact.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Iterable

import trio
import trio.testing
from support.memory_transport import MemoryTransport

from kevynode.transport import format_address

#: Bytes that a lane holds before its sender has to wait, as a socket's buffers do.
CAPACITY = 256 * 1024


class Lane:
    """One direction of a connection. A test may set its attributes at any time and call :meth:`changed` then."""

    def __init__(self) -> None:
        # Seconds that bytes are on their way.
        self.latency = 0.0
        # Bytes at most that one read gets.
        self.grain = 1 << 30
        # Seconds that each read takes.
        self.pause = 0.0
        # Nothing arrives while this is set.
        self.held = False
        # Bytes that still arrive; the connection breaks with the last of them. None: no end.
        self.limit: int | None = None
        self.on_limit: Callable[[], None] | None = None
        self.capacity = CAPACITY
        # All that has arrived, for tests that look at the bytes.
        self.delivered = 0
        self.record: bytearray | None = None
        # What is sent becomes this on its way.
        self.filter: Callable[[bytes], bytes] = bytes
        # Whether one of the ends is gone.
        self.broken = False
        self._segments: deque[tuple[float, bytes]] = deque()
        self._size = 0
        self._ended = False
        self._change = trio.Event()

    @property
    def waiting(self) -> int:
        """Bytes that were sent and not read."""
        return self._size

    @property
    def sent(self) -> bytes:
        """What was sent and not read."""
        return b"".join(data for _, data in self._segments)

    def changed(self) -> None:
        """Have both ends look again."""
        change, self._change = self._change, trio.Event()
        change.set()

    def break_(self) -> None:
        """Lose what is on its way, and fail both ends."""
        self.broken = True
        self._segments.clear()
        self._size = 0
        self.changed()

    def end(self) -> None:
        """Nothing follows what was sent."""
        self._ended = True
        self.changed()

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Put bytes on their way; waits while there is no room."""
        await trio.lowlevel.checkpoint()
        rest = memoryview(self.filter(bytes(data)))
        while True:
            if self.broken:
                raise trio.BrokenResourceError("connection reset by peer")
            room = max(0, self.capacity - self._size)
            if rest and room:
                self._segments.append((trio.current_time() + self.latency, bytes(rest[:room])))
                self._size += len(rest[:room])
                rest = rest[room:]
                self.changed()
            if not rest:
                return
            await self._change.wait()

    async def receive(self, most: int | None) -> bytes:
        """The next bytes; none at the end."""
        await trio.sleep(self.pause)
        while True:
            if self.broken:
                raise trio.BrokenResourceError("connection reset by peer")
            if self.limit == 0:
                self._reach_limit()
                continue
            patience = trio.CancelScope()
            if not self.held and self._segments:
                if self._segments[0][0] <= trio.current_time():
                    return self.take(most)
                patience.deadline = self._segments[0][0]
            elif not self.held and self._ended:
                return b""
            with patience:
                await self._change.wait()

    def take(self, most: int | None) -> bytes:
        now = trio.current_time()
        size = min(self.grain, 1 << 30 if most is None else most)
        if self.limit is not None:
            size = min(size, self.limit)
        parts: list[bytes] = []
        while size and self._segments and self._segments[0][0] <= now:
            arrives, data = self._segments.popleft()
            if len(data) > size:
                self._segments.appendleft((arrives, data[size:]))
                data = data[:size]
            parts.append(data)
            size -= len(data)
        taken = b"".join(parts)
        self._size -= len(taken)
        self.delivered += len(taken)
        if self.record is not None:
            self.record += taken
        if self.limit is not None:
            self.limit -= len(taken)
        self.changed()
        return taken

    def _reach_limit(self) -> None:
        assert self.on_limit is not None
        self.on_limit()


class End(trio.abc.HalfCloseableStream):
    """One side's end of a connection."""

    def __init__(self, outgoing: Lane, incoming: Lane) -> None:
        self.outgoing = outgoing
        self.incoming = incoming
        self._closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this end is closed")
        await self.outgoing.send(data)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def send_eof(self) -> None:
        self.outgoing.end()
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._closed:
            raise trio.ClosedResourceError("this end is closed")
        return await self.incoming.receive(max_bytes)

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self.outgoing.end()
            self.incoming.break_()
        await trio.lowlevel.checkpoint()


class Wire:
    """One connection: ``inward`` leads to whom ``address`` belongs to, ``outward`` back to who connected."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.inward = Lane()
        self.outward = Lane()
        self.near = End(self.inward, self.outward)
        self.far = End(self.outward, self.inward)
        self.inward.on_limit = self.outward.on_limit = self.cut

    def cut(self) -> None:
        """Break it for both sides, as a reset does: what is on its way is lost."""
        self.inward.break_()
        self.outward.break_()

    @property
    def lanes(self) -> tuple[Lane, Lane]:
        """Both directions."""
        return self.inward, self.outward

    @property
    def stands(self) -> bool:
        """Whether neither side has ended it."""
        return not any(lane.broken for lane in self.lanes)


class Network(MemoryTransport):
    """A network whose connections a test can find and change.

    Connections are chosen by the address they lead to, which for those of replicas is their primary's.
    """

    def __init__(self) -> None:
        super().__init__(self._make_pair)
        self.wires: list[Wire] = []
        self._made = Wire("")
        # Called with each new connection before anything is sent on it.
        self.on_connect: Callable[[Wire], None] | None = None
        # Addresses that nobody reaches for now.
        self.unreachable: set[str] = set()
        # How often somebody connected, by address.
        self.connected: dict[str, int] = {}

    def _make_pair(self) -> tuple[trio.abc.Stream, trio.abc.Stream]:
        self._made = Wire("")
        return self._made.near, self._made.far

    async def connect(self, host: str, port: int) -> trio.abc.Stream:
        """Connect to a listener, unless it is made unreachable."""
        address = format_address(host, port)
        await trio.lowlevel.checkpoint()
        if address in self.unreachable:
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        stream = await super().connect(host, port)
        wire = self._made
        wire.address = address
        self.wires = [*(other for other in self.wires if other.stands), wire]
        self.connected[address] = self.connected.get(address, 0) + 1
        if self.on_connect is not None:
            self.on_connect(wire)
        return stream

    def to(self, address: str) -> list[Wire]:
        """The connections to an address that are not broken, oldest first."""
        return [wire for wire in self.wires if wire.address == address and wire.stands]

    def cut(self, address: str) -> None:
        """Break every connection to an address."""
        for wire in self.to(address):
            wire.cut()

    def separate(self, address: str) -> None:
        """Break every connection to an address and let nobody reach it, until it is taken from ``unreachable``."""
        self.unreachable.add(address)
        self.cut(address)

    def hold(self, address: str) -> Callable[[], None]:
        """Let nothing more arrive at those who are connected to an address; call the result to let go.

        The other side's sends block when the buffers are full, as they do when a peer does not read.
        """
        return hold(wire.outward for wire in self.to(address))

    def silence(self, address: str) -> Callable[[], None]:
        """Let nothing more arrive at an address from those who are connected to it; call the result to let go."""
        return hold(wire.inward for wire in self.to(address))


def hold(lanes: Iterable[Lane]) -> Callable[[], None]:
    """Stop lanes; call the result to let them go on."""
    held = list(lanes)
    for lane in held:
        lane.held = True

    def release() -> None:
        for lane in held:
            lane.held = False
            lane.changed()

    return release
