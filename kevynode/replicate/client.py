"""The bare recipe of a replica, for Trio programs that apply a primary's stream themselves.

>>> async def follow(client, apply):
...     async with client:
...         async for event in client:
...             apply(event)

Nothing is applied here, and nothing reconnects: when the link ends an error says why, and entering the client again
goes on where it stopped (:attr:`ReplicaClient.history` and :attr:`ReplicaClient.offset`).
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self, TypeAlias

import attrs
import trio

from ..clock import Clock, SystemClock
from ..transport import SystemTransport, Transport, format_address
from . import replica_events as link_events
from .handshake import CAPABILITIES, Form, Request
from .replica import ReplicaLink
from .replica_events import Entries, Fault, LinkEvent, State
from .wire import resync

__all__ = [
    "ConnectFailed",
    "Frame",
    "Gap",
    "Group",
    "HistoryChanged",
    "LinkClosed",
    "Ping",
    "ProtocolBroken",
    "Refused",
    "ReplicaClient",
    "ReplicaError",
    "ReplicaEvent",
    "Resumed",
    "Silent",
    "Skip",
    "SnapshotBegin",
    "SnapshotData",
    "SnapshotEnd",
]

#: Seconds that connecting may take unless told otherwise.
CONNECT_SECONDS: Final = 5.0
#: Seconds that the primary may take to accept the few bytes it is sent.
SEND_SECONDS: Final = 10.0

_READ_SIZE: Final = 65536
# What an empty data set looks like.
_EMPTY_SNAPSHOT: Final = b"KEVYSNAP\x04\x00"
_FILTERS: Final = frozenset({"scopes", "skip"})


class ReplicaError(Exception):
    """The link to the primary has ended, or could not be made; ``reason`` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ConnectFailed(ReplicaError):
    """There is nobody, or nobody answered in time."""


class Refused(ReplicaError):
    """Somebody answered with an error: a client port, or a primary that is not ready."""


class LinkClosed(ReplicaError):
    """The connection has ended."""


class Silent(ReplicaError):
    """The primary said nothing for too long."""


class Gap(ReplicaError):
    """An offset was not the expected one: entries are missing or come twice. None of them was handed out."""


class HistoryChanged(ReplicaError):
    """The primary is in another history now. Asked again, it decides whether to go on or to start over."""


class ProtocolBroken(ReplicaError):
    """The primary broke the protocol."""


_ERRORS: Final[dict[Fault, type[ReplicaError]]] = {
    Fault.ENDED: LinkClosed,
    Fault.CLOSED: LinkClosed,
    Fault.SILENT: Silent,
    Fault.REFUSED: Refused,
    Fault.HISTORY: HistoryChanged,
    Fault.GAP: Gap,
    Fault.PROTOCOL: ProtocolBroken,
}


@attrs.frozen
class Resumed:
    """The stream goes on at ``offset`` of ``history`` (0: not told), with what the caller holds."""

    history: int
    offset: int


@attrs.frozen
class Frame:
    """One entry: the command at ``offset``, as bytes."""

    offset: int
    command: list[bytes]


@attrs.frozen
class Group:
    """Entries from ``offset`` on that belong together: apply all of them or none. ``next_offset`` follows them."""

    offset: int
    commands: list[list[bytes]]
    next_offset: int


@attrs.frozen
class SnapshotBegin:
    """A snapshot follows: of everything the link follows, or (``prefix``) of one scope as owned in ``epoch``."""

    prefix: bytes | None = None
    epoch: int = 0


@attrs.frozen
class SnapshotData:
    """The snapshot's next bytes; ``kevynode.replicate.snapshot.SnapshotDecoder`` reads them."""

    data: bytes


@attrs.frozen
class SnapshotEnd:
    """The snapshot is complete: all before ``offset`` of ``history`` (0: not told), in place of what was held."""

    history: int
    offset: int
    prefix: bytes | None = None


@attrs.frozen
class Ping:
    """The primary lives, and its next entry will get ``next_offset``."""

    history: int
    next_offset: int


@attrs.frozen
class Skip:
    """The entries before ``offset`` that did not come are none of this link's."""

    offset: int


ReplicaEvent: TypeAlias = Resumed | Frame | Group | SnapshotBegin | SnapshotData | SnapshotEnd | Ping | Skip


class ReplicaClient:
    """What a primary streams, as an asynchronous iterator of events, in order and without gaps.

    ``history`` and ``offset`` are where to go on, both 0 for a fresh copy. ``prefixes`` asks for the keys under them
    only; such a stream skips. ``form`` is the form of the handshake: kevynodes know all, kevy servers of version 5 SIX,
    of version 2 FIVE. ``replica_id`` is what the primary shows and knows this replica by (empty: one that nobody else
    has). ``connect_seconds`` bounds connecting; the answer to the handshake and every heartbeat have 10 seconds.

    ``history`` and ``offset`` stand behind the last event that was handed out. They are 0 from the beginning of a
    snapshot to its end, because half of one is nothing to go on from. Asking for the next event says that the last one
    is done with: only then is it acknowledged to the primary, which gives up on a replica that it does not hear of for
    ten seconds.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        history: int = 0,
        offset: int = 0,
        prefixes: Sequence[bytes] | None = None,
        replica_id: str = "",
        form: Form = Form.EXTENDED,
        connect_seconds: float = CONNECT_SECONDS,
        transport: Transport | None = None,
        clock: Clock | None = None,
    ) -> None:
        if prefixes is not None and (not prefixes or form is not Form.EXTENDED):
            raise ValueError("prefixes need at least one of them, and the extended form")
        self.history = history
        self.offset = offset
        # The primary's older histories: (history, branch offset), newest first.
        self.ancestors: tuple[tuple[int, int], ...] = ()
        self._host = host
        self._port = port
        self._prefixes = tuple(prefixes or ())
        # Two programs must not be taken for one that has connected again.
        self._replica_id = replica_id or f"kevynode-replica-0#client.{secrets.token_hex(8)}"
        self._form = form
        self._connect_seconds = connect_seconds
        self._transport = transport if transport is not None else SystemTransport()
        self._clock = clock if clock is not None else SystemClock()
        self._stream: trio.abc.Stream | None = None
        self._link: ReplicaLink | None = None
        self._events: deque[LinkEvent | Frame] = deque()
        # A heartbeat was handed out, and deserves an answer.
        self._beat = False
        # A snapshot is being handed out: what the caller holds is no position.
        self._replacing = False

    @property
    def announced(self) -> int:
        """The newest next offset that the primary has told."""
        return 0 if self._link is None else self._link.announced

    async def __aenter__(self) -> Self:
        """Connect and ask. Raises ConnectFailed."""
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def connect(self) -> None:
        """Connect, and ask for the stream from ``offset`` of ``history`` on. Raises ConnectFailed."""
        await self.aclose()
        peer = format_address(self._host, self._port)
        capabilities = frozenset[str]()
        if self._form is Form.EXTENDED:
            capabilities = frozenset(CAPABILITIES) - (frozenset() if self._prefixes else _FILTERS)
        request = Request(self._form, self.history, self.offset, self._replica_id, capabilities)
        link = ReplicaLink(request, peer, prefixes=self._prefixes)
        try:
            with trio.move_on_after(self._connect_seconds):
                self._stream = await self._transport.connect(self._host, self._port)
        except OSError as error:
            raise ConnectFailed(f"cannot connect to {peer}: {error.strerror or error}") from error
        if self._stream is None:
            raise ConnectFailed(f"{peer} did not accept a connection within {self._connect_seconds:g} s")
        self._link = link
        self._events.clear()
        self._beat = self._replacing = False
        try:
            await self._send(link.start(self._clock.monotonic()))
        except BaseException:
            # Nobody leaves a block that was never entered.
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Close the connection at once; a second call does nothing."""
        stream, self._stream = self._stream, None
        if self._link is not None:
            self._link.close("closed by this side")
        if stream is not None:
            await trio.aclose_forcefully(stream)

    async def resync(self, prefix: bytes) -> None:
        """Ask for a fresh snapshot of the keys under ``prefix``, on a link with prefixes. Raises ReplicaError."""
        await self._send(resync(prefix))
        self._check()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ReplicaEvent:
        """The next event. A checkpoint when it has to be waited for. Raises ReplicaError when the link has ended.

        Ends when this side has closed the connection.
        """
        link = self._link
        if link is None or self._stream is None:
            raise StopAsyncIteration
        now = self._clock.monotonic()
        if link.state in (State.LIVE, State.SHIPPING_SCOPE) and not self._replacing:
            link.applied(self.offset, now)
        if self._beat:
            self._beat = False
            link.acknowledge(now)
        if link.send_at <= now:
            await self._send(link.to_send(now))
        while True:
            while self._events:
                event = self._hand_out(link, self._events.popleft())
                if event is not None:
                    return event
            self._check()
            await self._listen(link)
            if self._stream is None:
                raise StopAsyncIteration

    # -- inside -------------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        """Raise what the link's end means."""
        link = self._link
        if link is not None and link.fault is not None:
            raise _ERRORS[link.fault](link.reason)

    async def _send(self, data: bytes) -> None:
        link, stream = self._link, self._stream
        if link is None or stream is None:
            raise LinkClosed("not connected")
        try:
            with trio.move_on_after(SEND_SECONDS) as patience:
                await stream.send_all(data)
            if patience.cancelled_caught:
                link.close(f"{link.peer} took no byte for {SEND_SECONDS:.0f} s")
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            link.close(f"the connection to {link.peer} broke: {error.__cause__ or error}")

    async def _listen(self, link: ReplicaLink) -> None:
        """Send what is due, or wait for bytes."""
        now = self._clock.monotonic()
        if link.send_at <= now:
            await self._send(link.to_send(now))
            return
        stream = self._stream
        assert stream is not None
        deadline = link.deadline(now)
        data: bytes | bytearray | None = None
        try:
            with trio.move_on_after(max(0.0, min(deadline, link.send_at) - now)):
                data = await stream.receive_some(_READ_SIZE)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            link.close(f"the connection to {link.peer} broke: {error.__cause__ or error}")
            return
        if data:
            self._events.extend(link.feed(bytes(data), self._clock.monotonic()))
        elif data is not None:
            link.end_of_stream()
        elif deadline <= link.send_at:
            self._events.extend(link.timed_out(self._clock.monotonic()))

    def _hand_out(self, link: ReplicaLink, event: LinkEvent | Frame) -> ReplicaEvent | None:
        """What the caller sees of an event, with the cursor behind it."""
        match event:
            case Frame():
                self.offset = event.offset + 1
                return event
            case Entries():
                if event.grouped:
                    self.offset = event.next
                    return Group(event.first, list(event.commands), event.next)
                entries = [Frame(offset, command) for offset, command in enumerate(event.commands, event.first)]
                self._events.extendleft(reversed(entries))
                return None
            case link_events.Resumed(history, offset, ancestors, from_nothing):
                self.history, self.offset, self.ancestors = history, offset, ancestors
                if from_nothing:
                    # The primary's data began empty; to the caller it is a snapshot like any other.
                    self._events.extendleft(
                        [link_events.ShipEnds(history, offset, ancestors), link_events.ShipData(_EMPTY_SNAPSHOT)]
                    )
                    self._replacing = True
                    return SnapshotBegin()
                return Resumed(history, offset)
            case link_events.ShipBegins():
                self.history = self.offset = 0
                self._replacing = True
                return SnapshotBegin(event.prefix, event.epoch)
            case link_events.ShipData():
                return SnapshotData(event.data)
            case link_events.ShipEnds():
                self.history, self.offset, self.ancestors = event.history, event.offset, event.ancestors
                self._replacing = False
                return SnapshotEnd(event.history, event.offset, event.prefix)
            case link_events.Skipped():
                self.offset = event.offset
                return Skip(event.offset)
            case link_events.Heartbeat():
                self._beat = True
                return Ping(event.history, event.next_offset)
            case link_events.HistoryKnown():
                self.history = event.history
            case link_events.AckWanted():
                link.acknowledge(self._clock.monotonic())
        return None
