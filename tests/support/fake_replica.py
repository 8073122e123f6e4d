"""A replica that does what a test says: reads, acknowledges, falls silent, lies, or leaves."""

from __future__ import annotations

from collections.abc import Callable

import trio
from support.link_harness import shown

from kevynode.replicate.handshake import Request, format_request
from kevynode.replicate.stream_events import Chunk, Event, Frames, Ping, Skip, SnapshotBegin, SnapshotEnd
from kevynode.replicate.wire import StreamDecoder, ack

#: Seconds of the test's clock after which a replica gives up waiting.
PATIENCE = 600.0


class FakeReplica:
    """One connection to a primary. ``position`` is the next offset that it expects; ``data`` everything received."""

    def __init__(self, stream: trio.abc.Stream, request: Request) -> None:
        self.stream = stream
        self.request = request
        self.position = request.offset
        self.data = bytearray()
        self.payload = bytearray()
        self.ended = False
        # Whether the stream has begun, or goes on, behind whatever snapshot there was.
        self.live = False
        # Whether it answers every heartbeat.
        self.polite = True
        self._decoder = StreamDecoder()

    async def hello(self) -> None:
        """Say the handshake."""
        await self.stream.send_all(format_request(self.request))

    async def acknowledge(self, offset: int | None = None) -> None:
        """Say how far it is, or claims to be."""
        await self.stream.send_all(ack(self.position if offset is None else offset))

    async def read(self) -> bool:
        """Take what comes next; False at the end of the stream."""
        data = await self.stream.receive_some(1 << 16)
        if not data:
            self.ended = True
            return False
        self.data += data
        for event in self._decoder.feed(bytes(data)):
            await self._follow(event)
        assert self._decoder.error is None
        return True

    async def _follow(self, event: Event) -> None:
        match event:
            case SnapshotBegin():
                self.live = False
            case Frames():
                self.live = True
                assert event.first == self.position, f"expected {self.position}, got {event.first}"
                self.position = event.next
            case Chunk():
                self.payload += event.data
            case SnapshotEnd() | Skip():
                self.live = True
                self.position = event.next_offset
            case Ping():
                self.live = self.live or event.next_offset == self.position
                if self.polite:
                    await self.acknowledge()

    async def until(self, condition: Callable[[], object]) -> None:
        """Read until something is the case."""
        with trio.fail_after(PATIENCE):
            while not condition():
                assert await self.read(), f"the stream ended behind {self.steps[-3:]}"

    async def reach(self, offset: int) -> None:
        """Read everything before ``offset``, and say so."""
        await self.until(lambda: self.live and self.position >= offset)
        await self.acknowledge()

    async def until_end(self) -> None:
        """Read until the primary ends the stream."""
        with trio.fail_after(PATIENCE):
            while not self.ended:
                try:
                    await self.read()
                except trio.BrokenResourceError:
                    self.ended = True

    @property
    def steps(self) -> list[str]:
        """What has come, in words."""
        return shown(bytes(self.data))

    async def leave(self) -> None:
        """Close the connection."""
        await self.stream.aclose()
