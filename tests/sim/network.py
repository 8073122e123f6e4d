"""A network between named hosts, in memory: slow, cut in one direction or both, and full of connections that break.

Every host has a :class:`Host`, which is the transport of the node (or of the client) that runs there. A connection is
two :class:`Lane` objects, one for each direction; bytes of one lane arrive in their order, those of two lanes in any.
What is cut off loses no bytes, as with TCP: they arrive when the way is free again, unless somebody gave up before.
What a process had sent before it was killed may arrive after its end, and what had arrived when a machine lost its
power may be read much later.
All that is random comes from the ``random`` that the network is made with.
"""

from __future__ import annotations

import errno
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from random import Random
from typing import Final

import attrs
import trio
from sim.scheduling import call_at

from kevynode.transport import Incoming, format_address

#: Seconds after which a system gives up to connect.
CONNECT_SECONDS: Final = 4.0


@attrs.define
class Weather:
    """How it is between two hosts, in one direction: seconds on the way, and seconds more or less."""

    latency: float = 0.0005
    jitter: float = 0.0005
    # Bytes that are on their way or wait to be read at most, and that one read gets.
    capacity: int = 64 * 1024
    grain: int = 1 << 30
    # Nothing arrives.
    cut: bool = False


class Lane:
    """One direction of a connection. One task reads it at a time."""

    __slots__ = (
        "_change",
        "_closed",
        "_ended",
        "_last",
        "_reader",
        "_segments",
        "_size",
        "_wakes_at",
        "broken",
        "limit",
        "network",
        "sender",
        "weather",
        "wire",
    )

    def __init__(self, network: Network, way: tuple[str, str], wire: Wire) -> None:
        self.network = network
        self.sender = way[0]
        self.weather = network.weather(way)
        self.wire = wire
        # Bytes after which the connection breaks; None: it does not.
        self.limit: int | None = None
        self.broken = False
        self._segments: deque[tuple[float, bytes]] = deque()
        self._size = 0
        self._last = 0.0
        self._ended = False
        # Nothing more is taken from who sends.
        self._closed = False
        # What writers wait for.
        self._change: trio.Event | None = None
        # Who waits for bytes, and the next moment at which it will be woken.
        self._reader: trio.lowlevel.Task | None = None
        self._wakes_at = math.inf

    def changed(self) -> None:
        """Have both ends look again."""
        change, self._change = self._change, None
        if change is not None:
            change.set()
        self._wake_reader()

    def break_(self) -> None:
        """Fail both ends; what is on its way is lost."""
        self.broken = True
        self._segments.clear()
        self._size = 0
        self.changed()

    def mute(self) -> None:
        """Let nothing arrive any more, not even an end; what is there already can be read."""
        now = self.network.now()
        kept = () if self.weather.cut else (segment for segment in self._segments if segment[0] <= now)
        self._segments = deque(kept)
        self._size = sum(len(data) for _, data in self._segments)
        self.weather = Weather()
        self._closed = True
        self.changed()

    def close(self) -> None:
        """Take nothing more: what was sent arrives, and then the end."""
        self._closed = True
        self.end()

    def end(self) -> None:
        """Nothing follows what was sent."""
        self._ended = True
        self.changed()

    # -- waiting ------------------------------------------------------------------------------------------------------

    def _wake_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            trio.lowlevel.reschedule(reader)

    def _arrives(self, at: float) -> None:
        """Wake who reads when bytes are there, and not when they set out."""
        if at < self._wakes_at:
            self._wakes_at = at
            call_at(at, self._has_arrived)

    def _has_arrived(self) -> None:
        self._wakes_at = math.inf
        self._wake_reader()

    async def _wait_to_read(self) -> None:
        self._reader = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._give_up_reading)

    def _give_up_reading(self, raises: object) -> trio.lowlevel.Abort:
        self._reader = None
        return trio.lowlevel.Abort.SUCCEEDED

    async def _wait_to_write(self) -> None:
        if self._change is None:
            self._change = trio.Event()
        await self._change.wait()

    # -- bytes --------------------------------------------------------------------------------------------------------

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Put bytes on their way; waits while there is no room."""
        await trio.lowlevel.checkpoint_if_cancelled()
        rest = bytes(data)
        while True:
            if self.broken:
                raise trio.BrokenResourceError("connection reset by peer")
            if self._closed:
                break
            weather = self.weather
            room = weather.capacity - self._size
            if rest and room > 0:
                part, rest = rest[:room], rest[room:]
                if self.limit is not None:
                    self.limit -= len(part)
                    if self.limit < 0:
                        self.wire.cut()
                        continue
                arrival = self.network.now() + weather.latency + weather.jitter * self.network.random.random()
                self._last = max(self._last, arrival)
                self._segments.append((self._last, part))
                self._size += len(part)
                if self._reader is not None and not weather.cut:
                    self._arrives(self._last)
            if not rest:
                break
            await self._wait_to_write()
        if self.network.on_sent:
            self.network.sent(self.sender)
        # They are on their way, and whoever sent them knows nothing of that yet.
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def receive(self, most: int | None) -> bytes:
        """The next bytes; none at the end."""
        if self._is_ready():
            await trio.lowlevel.checkpoint()
        while not self._is_ready():
            if self._segments and not self.weather.cut:
                self._arrives(self._segments[0][0])
            await self._wait_to_read()
        if self.broken:
            raise trio.BrokenResourceError("connection reset by peer")
        return self._take(min(self.weather.grain, 1 << 30 if most is None else most))

    def _is_ready(self) -> bool:
        """Whether somebody who reads gets something at once: bytes, the end, or an error."""
        if self.broken:
            return True
        if self.weather.cut:
            return False
        return self._segments[0][0] <= self.network.now() if self._segments else self._ended

    def _take(self, size: int) -> bytes:
        now = self.network.now()
        parts: list[bytes] = []
        while size and self._segments and self._segments[0][0] <= now:
            arrival, data = self._segments.popleft()
            if len(data) > size:
                self._segments.appendleft((arrival, data[size:]))
                data = data[:size]
            parts.append(data)
            size -= len(data)
        taken = b"".join(parts)
        if self._size >= self.weather.capacity:
            self.changed()
        self._size -= len(taken)
        return taken


class End(trio.abc.HalfCloseableStream):
    """One host's end of a connection."""

    def __init__(self, outgoing: Lane, incoming: Lane) -> None:
        self._outgoing = outgoing
        self._incoming = incoming
        self._closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this end is closed")
        await self._outgoing.send(data)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def send_eof(self) -> None:
        self._outgoing.end()
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._closed:
            raise trio.ClosedResourceError("this end is closed")
        return await self._incoming.receive(max_bytes)

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._outgoing.end()
            self._incoming.break_()
            self._outgoing.wire.closed += 1
        await trio.lowlevel.checkpoint()


class Wire:
    """One connection, from the host ``near``, which dialled, to ``far``."""

    def __init__(self, network: Network, near: str, far: str) -> None:
        self.near, self.far = near, far
        self.there = Lane(network, (near, far), self)
        self.back = Lane(network, (far, near), self)
        self.near_end = End(self.there, self.back)
        self.far_end = End(self.back, self.there)
        self.closed = 0

    def cut(self) -> None:
        """Break it for both sides, as a reset does."""
        self.there.break_()
        self.back.break_()

    @property
    def stands(self) -> bool:
        """Whether anybody can still use it."""
        return self.closed < 2 and not (self.there.broken and self.back.broken)

    def lanes(self, name: str) -> tuple[Lane, Lane]:
        """The direction from one of its hosts, and the one to it."""
        return (self.there, self.back) if self.near == name else (self.back, self.there)

    def between(self, one: str, other: str) -> bool:
        """Whether these are its hosts."""
        return {self.near, self.far} == {one, other}


class SimListener:
    """A port on which a host is reached."""

    def __init__(self, host: Host, address: str, port: int) -> None:
        self.address = address
        self.port = port
        self._host = host
        self._arrivals, self._waiting = trio.open_memory_channel[Incoming](511)
        host.listeners[address] = self

    async def accept(self) -> list[Incoming]:
        """The next connection."""
        try:
            return [await self._waiting.receive()]
        except trio.EndOfChannel:
            raise trio.ClosedResourceError("the listener is closed") from None

    def arrive(self, incoming: Incoming) -> None:
        """Put a connection into the backlog."""
        self._arrivals.send_nowait(incoming)

    def close(self) -> None:
        """Refuse connections from now on."""
        self._arrivals.close()
        if self._host.listeners.get(self.address) is self:
            del self._host.listeners[self.address]


class Host:
    """A machine: the transport of what runs on it."""

    def __init__(self, network: Network, name: str, ip: str) -> None:
        self.name = name
        self.ip = ip
        self.network = network
        self.listeners: dict[str, SimListener] = {}
        # Off: whoever dials gets no answer, instead of a refusal.
        self.off = False

    async def listen(self, addresses: Sequence[str], port: int, *, backlog: int = 511) -> list[SimListener]:
        """Listen on every address."""
        await trio.lowlevel.checkpoint()
        names = [format_address(address, port) for address in addresses]
        for name in names:
            if name in self.listeners:
                raise OSError(errno.EADDRINUSE, f"cannot listen on {name}: {os.strerror(errno.EADDRINUSE)}")
        return [SimListener(self, name, port) for name in names]

    async def listen_unix(self, path: str, *, mode: int | None = None, backlog: int = 511) -> SimListener:
        """There are no such sockets here."""
        raise OSError(errno.EADDRNOTAVAIL, f"cannot listen on {path}")

    async def connect(self, host: str, port: int) -> trio.abc.Stream:
        """Connect to a host of this network."""
        return await self.network.connect(self, host, port)

    async def connect_unix(self, path: str) -> trio.abc.Stream:
        """There are no such sockets here."""
        raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))


class Network:
    """All hosts, the ways between them, and the connections that stand."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.now = trio.lowlevel.current_clock().current_time
        self.hosts: dict[str, Host] = {}
        self.wires: list[Wire] = []
        self.dialled = 0
        #: By name of a host: how many sends it still completes before something is called, once, and what.
        self.on_sent: dict[str, tuple[int, Callable[[], object]]] = {}
        self._by_ip: dict[str, Host] = {}
        self._ways: dict[tuple[str, str], Weather] = {}
        self._ports = count(30000)
        self._change = trio.Event()

    def add(self, name: str, ip: str) -> Host:
        """A new host."""
        host = self.hosts[name] = self._by_ip[ip] = Host(self, name, ip)
        return host

    def relocate(self, name: str, ip: str) -> None:
        """A host on which nothing runs has another address from now on; nobody is at the one that it had."""
        host = self.hosts[name]
        del self._by_ip[host.ip]
        host.ip = ip
        self._by_ip[ip] = host

    def weather(self, way: tuple[str, str]) -> Weather:
        """How it is from one host to another one; may be changed, then call :meth:`changed`."""
        found = self._ways.get(way)
        if found is None:
            found = self._ways[way] = Weather()
        return found

    def sent(self, name: str) -> None:
        """A host has sent something, and has not taken another step."""
        found = self.on_sent.pop(name, None)
        if found is not None:
            left, then = found
            if left:
                self.on_sent[name] = left - 1, then
            else:
                then()

    def changed(self) -> None:
        """The weather is another one."""
        change, self._change = self._change, trio.Event()
        change.set()
        for wire in self.wires:
            wire.there.changed()
            wire.back.changed()

    def standing(self) -> list[Wire]:
        """The connections that stand, oldest first."""
        self.wires = [wire for wire in self.wires if wire.stands]
        return self.wires

    @property
    def ways(self) -> list[tuple[str, str]]:
        """Those that are known: from whom to whom."""
        return list(self._ways)

    def calm(self, ways: Iterable[tuple[str, str]] | None = None) -> None:
        """End bad weather on these ways, but for what is cut off; on all, and cut nothing off, without an argument."""
        for way in self.ways if ways is None else ways:
            weather = self._ways[way]
            weather.cut = weather.cut and ways is not None
            weather.latency = weather.jitter = 0.0005
            weather.capacity, weather.grain = 64 * 1024, 1 << 30
        self.changed()

    async def connect(self, near: Host, ip: str, port: int) -> trio.abc.Stream:
        """A connection from one host to another one; needs a round trip."""
        far = self._by_ip.get(ip)
        if far is None:
            raise OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))
        there, back = self.weather((near.name, far.name)), self.weather((far.name, near.name))
        deadline = trio.current_time() + CONNECT_SECONDS
        travel = there.latency + there.jitter * self.random.random() + back.latency + back.jitter * self.random.random()
        await trio.sleep(travel)
        while there.cut or back.cut or far.off:
            with trio.CancelScope(deadline=deadline) as patience:
                await self._change.wait()
            if patience.cancelled_caught:
                raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        address = format_address(ip, port)
        listener = far.listeners.get(address)
        if listener is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        wire = Wire(self, near.name, far.name)
        own = format_address(near.ip, next(self._ports))
        try:
            listener.arrive(Incoming(own, address, "tcp", wire.far_end))
        except trio.WouldBlock:
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED)) from None
        self.dialled += 1
        if len(self.wires) > 256:
            self.standing()
        self.wires.append(wire)
        return wire.near_end

    def down(self, name: str, *, silently: bool) -> None:
        """What ran on a host is gone: its connections break. ``silently``: nobody is told before it is :meth:`up`."""
        host = self.hosts[name]
        for listener in tuple(host.listeners.values()):
            listener.close()
        host.off = silently
        for wire in self.standing():
            if name not in (wire.near, wire.far):
                continue
            out, into = wire.lanes(name)
            if silently:
                # What it sends from here on arrives nowhere; what is sent to it is not read by anybody.
                out.mute()
                into.mute()
            elif self.random.random() < 0.5:
                wire.cut()
            else:
                # The system sends what it was given, and then the end.
                out.close()
                into.break_()

    def up(self, name: str) -> None:
        """A host is there again, and knows nothing of the connections that it had."""
        self.hosts[name].off = False
        for wire in self.standing():
            if name in (wire.near, wire.far):
                out, into = wire.lanes(name)
                out.close()
                into.break_()
        self.changed()
