"""One connection after the other to one stream of an upstream: connect, say hello, hand on what comes, come back.

What the bytes mean is decided in :mod:`replica`, what becomes of events in :mod:`follower`; here bytes and time pass.
One task does it all: it reads, applies, and sends acknowledgements in between, so an acknowledgement never tells more
than has been applied.
"""

from __future__ import annotations

import math
from typing import Final, Literal, Protocol

import trio

from ..clock import Clock
from ..faults import traceback_line
from ..replication_view import SyncFacts, UpstreamFacts
from ..transport import Transport, format_address
from ..twins import COMPILED
from .backoff import Backoff, UniformSource
from .form_chooser import FormChooser
from .handshake import Form, Request
from .replica import ReplicaLink
from .replica_events import (
    AckWanted,
    Entries,
    Fault,
    Heartbeat,
    HistoryKnown,
    LinkEvent,
    Resumed,
    ShipBegins,
    ShipData,
    ShipEnds,
    State,
)
from .snapshot import SnapshotError

__all__ = ["CONNECT_SECONDS", "SEND_SECONDS", "SLICE_SECONDS", "Following", "LinkSink", "Upstream", "UpstreamLog"]

#: Seconds that connecting may take.
CONNECT_SECONDS: Final = 5.0
#: Seconds that an upstream may take to accept the few bytes it is sent.
SEND_SECONDS: Final = 10.0
#: Seconds of applying before other tasks get a turn.
SLICE_SECONDS: Final = 0.002
#: Seconds that a link must have been up for its loss to count as a new trouble, after which waits are short again.
STEADY_SECONDS: Final = 1.0

# About as many small entries as fit into a slice: a batch that is applied in one go passes on the bytes it came in.
_READ_SIZE: Final = 65536 if COMPILED else 32768
# Bytes of a snapshot built in one step: a millisecond or two, whatever is in it.
_STEP_SIZE: Final = 16384
# Why a link ends when the follower is cancelled.
_STOPPED: Final = "no longer followed"
_GONE: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)

_Word = Literal["connect", "connecting", "handshake", "sync", "connected"]
_WORDS: Final[dict[State, _Word]] = {
    State.CONNECTING: "handshake",
    State.SYNCING: "handshake",
    State.SHIPPING: "sync",
    State.SHIPPING_SCOPE: "connected",
    State.LIVE: "connected",
    State.LOST: "connect",
}


class UpstreamLog(Protocol):
    """Where events go."""

    def debug(self, event: str, /, **fields: object) -> None: ...
    def info(self, event: str, /, **fields: object) -> None: ...
    def warning(self, event: str, /, **fields: object) -> None: ...
    def error(self, event: str, /, **fields: object) -> None: ...


class LinkSink(Protocol):
    """Who wants to know of the links of a follower."""

    def link_changed(self) -> None: ...


class Following(Protocol):
    """The follower that an upstream belongs to: what it is, and what becomes of what arrives. See :mod:`follower`."""

    host: str
    replica_id: str
    client_port: int
    capabilities: frozenset[str]
    bulk_limit: int
    transport: Transport
    clock: Clock
    random: UniformSource
    log: UpstreamLog

    @property
    def sink(self) -> LinkSink: ...
    @property
    def diverged(self) -> str: ...
    def claim(self, upstream: Upstream) -> tuple[int, int]: ...
    def applied(self, upstream: Upstream) -> int: ...
    def resumed(self, upstream: Upstream, event: Resumed, reason: str) -> None: ...
    def history_known(self, upstream: Upstream, event: HistoryKnown, offset: int) -> None: ...
    def apply(self, upstream: Upstream, entries: Entries, place: int, until: float) -> int: ...
    def ship_begins(self, upstream: Upstream, event: ShipBegins | None, reason: str) -> None: ...
    def ship_data(self, upstream: Upstream, data: bytes) -> None: ...
    def ship_ends(self, upstream: Upstream, event: ShipEnds | Resumed) -> trio.Event | None: ...
    def ship_seen(self, upstream: Upstream) -> tuple[float, int, str] | None: ...
    def link_ended(self, upstream: Upstream, reason: str) -> None: ...


class Upstream:
    """The link to one port of a follower's upstream, through all its connections. ``index`` is the shard's."""

    def __init__(self, follower: Following, index: int, port: int) -> None:
        self.index = index
        self.port = port
        self.address = format_address(follower.host, port)
        # Where this stream is to go on, if the follower does not adopt it: (history, next offset), or (0, 0).
        self.cursor = (0, 0)
        self.link: ReplicaLink | None = None
        self._follower = follower
        self._clock = follower.clock
        self._log = follower.log
        self._chooser = FormChooser()
        # Set when the next connection is wanted at once.
        self._again = trio.Event()
        # Why this node itself has ended the connection though nothing had gone wrong; empty: it has not.
        self._parted = ""
        self._backoff = Backoff(follower.random)
        self._connecting = False
        # What was asked for on this connection: (history, next offset).
        self._claim = (0, 0)
        # How far this process came on a five-argument stream, which names no history; 0: not on one.
        self._unnamed = 0
        self._around: trio.CancelScope | None = None
        # Nothing more that has come on the connection counts.
        self._stopped = False
        self._was_live = False
        self._slice_end = 0.0
        self._problem = ""
        self._heard_at = -math.inf
        self._live_since: float | None = None
        self._down_since = follower.clock.monotonic()
        # When this copy was last known to have everything, and the heartbeat whose entries it still lacks.
        self._whole_at: float | None = None
        self._told: tuple[int, float] | None = None
        self._announced = 0
        self._received = 0
        self._last_sync: SyncFacts | None = None

    # -- for the follower ---------------------------------------------------------------------------------------------

    @property
    def goes_on(self) -> bool:
        """Whether this link carries, or has asked for, a continuation of what is held."""
        link = self.link
        return link is not None and (self._claim != (0, 0) or link.state in (State.LIVE, State.SHIPPING_SCOPE))

    def ask_anew(self, reason: str) -> None:
        """End the connection, and make the next one at once: what is asked for is another thing than before."""
        self._again.set()
        self.part(reason)

    def part(self, reason: str) -> None:
        """End the connection because this node wants something else, and not for anything that has gone wrong."""
        self._parted = reason
        self.start_over(reason)

    def start_over(self, reason: str) -> None:
        """End the connection, and ask the next one for a fresh copy."""
        if self.link is not None and self._around is not None:
            self._stopped = True
            self.link.close(reason)
            self._around.cancel(reason=reason)

    def stop(self, reason: str) -> None:
        """End the connection: nothing that has come on it counts from here on."""
        assert self.link is not None
        self._stopped = True
        self.link.break_off(reason)

    def swapped(self, began: float, size: int, reason: str, kind: Literal["full", "scope"] = "full") -> None:
        """The snapshot that this link had a part in has replaced the data, or those of one scope."""
        now = self._clock.monotonic()
        if kind == "full":
            self._whole_at = began
        self._last_sync = SyncFacts(kind, reason, now - began, size)
        self._log.info("synchronised", upstream=self.address, kind=kind, bytes=size, seconds=round(now - began, 3))
        link = self.link
        if link is not None:
            link.applied(self._follower.applied(self), now)

    @property
    def received_bytes(self) -> int:
        """Bytes received on all connections."""
        return self._received + (0 if self.link is None else self.link.received_bytes)

    def facts(self, now: float) -> UpstreamFacts:
        """What is known of this link."""
        link, follower = self.link, self._follower
        state = self._word()
        applied = follower.applied(self)
        ship = follower.ship_seen(self)
        sync = self._last_sync if ship is None else SyncFacts("full", ship[2], None, ship[1])
        return UpstreamFacts(
            host=follower.host,
            port=self.port,
            state=state,
            problem=self._problem,
            silence=None if self._heard_at == -math.inf else now - self._heard_at,
            down=None if state == "connected" else now - self._down_since,
            applied=applied,
            announced=max(applied, self._announced if link is None else link.announced),
            staleness_ms=self._staleness_ms(now),
            sync_bytes=0 if ship is None else ship[1],
            last_sync=sync,
        )

    def _word(self) -> _Word:
        link = self.link
        if link is None:
            return "connecting" if self._connecting else "connect"
        word = _WORDS[link.state]
        # What the link has read may not be in place yet: until then nobody sees the upstream's data.
        return "sync" if word == "connected" and self._live_since is None else word

    def _staleness_ms(self, now: float) -> int | None:
        link = self.link
        if self._follower.diverged:
            return None
        if link is not None and link.request.form is Form.FIVE and link.caught_up and self._live_since is not None:
            # A primary without heartbeats: that the connection stands is all that can be known.
            return 0
        return None if self._whole_at is None else max(0, round((now - self._whole_at) * 1000))

    # -- the task -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep a connection, until cancelled."""
        while True:
            await self._attempt()
            with trio.move_on_after(self._backoff.next()):
                await self._again.wait()
                # Nothing has gone wrong: this node wants something else.
                self._backoff.reset()
            self._again = trio.Event()

    async def _attempt(self) -> None:
        """One connection, from connecting to its end."""
        now = self._clock.monotonic()
        link = self._make_link(now)
        self._stopped = self._was_live = False
        self._parted = ""
        self._connecting = True
        self._follower.sink.link_changed()
        reason = _STOPPED
        try:
            stream, reason = await self._connect()
            if stream is not None:
                reason = _STOPPED
                self.link = link
                try:
                    with trio.CancelScope() as self._around:
                        await self._serve(link, stream)
                finally:
                    await trio.aclose_forcefully(stream)
                reason = link.reason
        finally:
            link.close(reason)
            self._ended(link, reason)

    def _make_link(self, now: float) -> ReplicaLink:
        return ReplicaLink(self._request(now), self.address, bulk_limit=self._follower.bulk_limit)

    def _form(self, now: float) -> Form:
        """The form of the next handshake."""
        return self._chooser.next(now)

    def _request(self, now: float) -> Request:
        follower = self._follower
        form = self._form(now)
        history, offset = follower.claim(self)
        if form is Form.FIVE:
            # Only what came on such a stream, in this process, can be claimed without a history.
            history, offset = 0, offset if offset == self._unnamed else 0
        elif history == 0:
            offset = 0
        self._claim = (history, offset)
        capabilities = follower.capabilities if form is Form.EXTENDED else frozenset[str]()
        name = follower.replica_id if form is Form.EXTENDED else f"kevy-replica-{follower.client_port}#{self.index}"
        return Request(form, history, offset, name, capabilities)

    async def _connect(self) -> tuple[trio.abc.Stream | None, str]:
        """A stream, or why there is none."""
        try:
            with trio.move_on_after(CONNECT_SECONDS):
                return await self._follower.transport.connect(self._follower.host, self.port), ""
            return None, f"{self.address} did not accept a connection within {CONNECT_SECONDS:.0f} s"
        except OSError as error:
            return None, f"cannot connect to {self.address}: {error.strerror or error}"
        finally:
            self._connecting = False

    def _ended(self, link: ReplicaLink, reason: str) -> None:
        now = self._clock.monotonic()
        if link.confirmed:
            self._chooser.confirmed_capabilities()
        self._chooser.closed(now, link.received_bytes, clean=link.fault is Fault.ENDED)
        self._received += link.received_bytes
        self._announced = link.announced or self._announced
        if self.link is link:
            self.link = self._around = None
        self._told = None
        lived = 0.0 if self._live_since is None else now - self._live_since
        if self._was_live:
            self._unnamed = link.position if link.request.form is Form.FIVE else 0
        self._went_down()
        if lived >= STEADY_SECONDS:
            self._backoff.reset()
        # The same trouble again and again is worth one line, and the end of the follower itself none.
        say = self._log.debug if reason in (self._problem, _STOPPED) else self._log.warning
        if reason == self._parted:
            say = self._log.info
        self._problem = reason
        say("upstream_lost", upstream=self.address, reason=reason, lived=round(lived, 3))
        self._follower.link_ended(self, reason)
        self._follower.sink.link_changed()

    # -- one connection -----------------------------------------------------------------------------------------------

    async def _serve(self, link: ReplicaLink, stream: trio.abc.Stream) -> None:
        """Follow one connection until the link is lost. Raises nothing but cancellation."""
        clock = self._clock
        try:
            await self._send(link, stream, link.start(clock.monotonic()))
            while link.state is not State.LOST:
                now = clock.monotonic()
                if link.send_at <= now:
                    await self._send(link, stream, link.to_send(now))
                    continue
                deadline = link.deadline(now)
                data: bytes | bytearray | None = None
                with trio.move_on_after(max(0.0, min(deadline, link.send_at) - now)):
                    data = await stream.receive_some(_READ_SIZE)
                now = clock.monotonic()
                if data is None:
                    if link.send_at < deadline:
                        continue
                    events = link.timed_out(now)
                elif data:
                    self._heard_at = now
                    self._slice_end = now + SLICE_SECONDS
                    events = link.feed(bytes(data), now)
                else:
                    link.end_of_stream()
                    return
                await self._process(link, events)
        except _GONE as error:
            link.close(f"the connection to {self.address} broke: {error.__cause__ or error}")
        except SnapshotError as error:
            link.break_off(f"{self.address} sent a bad snapshot: {error}")
        except Exception as error:
            self._log.error("upstream_failed", upstream=self.address, error=error, where=traceback_line(error))
            link.close(f"internal error: {error!r}")

    async def _send(self, link: ReplicaLink, stream: trio.abc.Stream, data: bytes) -> None:
        with trio.move_on_after(SEND_SECONDS) as patience:
            await stream.send_all(data)
        if patience.cancelled_caught:
            link.close(f"{self.address} took no byte for {SEND_SECONDS:.0f} s")

    async def _process(self, link: ReplicaLink, events: list[LinkEvent]) -> None:
        """Do what the events say, in order, and let other tasks run in between."""
        for event in events:
            if type(event) is Entries:
                await self._apply(link, event)
            else:
                await self._obey(link, event)
            if self._stopped:
                return
            if self._clock.monotonic() >= self._slice_end:
                await self._yield()

    async def _yield(self) -> None:
        await trio.lowlevel.checkpoint()
        self._slice_end = self._clock.monotonic() + SLICE_SECONDS

    async def _apply(self, link: ReplicaLink, entries: Entries) -> None:
        place = 0
        while True:
            place = self._follower.apply(self, entries, place, self._slice_end)
            self._check_whole(link)
            if place == len(entries.commands) or self._stopped:
                return
            await self._yield()

    async def _obey(self, link: ReplicaLink, event: LinkEvent) -> None:
        follower = self._follower
        match event:
            case Heartbeat():
                now = self._clock.monotonic()
                if link.state is State.LIVE and self._told is None:
                    self._told = (event.next_offset, now)
                self._check_whole(link)
                link.acknowledge(now)
                follower.sink.link_changed()
            case AckWanted():
                link.acknowledge(self._clock.monotonic())
            case Resumed():
                await self._resume(link, event)
            case ShipBegins():
                self._went_down()
                reason = self._ship_reason(link, event)
                follower.ship_begins(self, event, reason)
                self._log.info("synchronising", upstream=self.address, reason=reason)
                follower.sink.link_changed()
            case ShipData():
                await self._take_piece(event.data)
            case ShipEnds():
                await self._end_ship(link, event)
            case HistoryKnown():
                follower.history_known(self, event, link.position)
            case _:
                await self._obey_filtered(link, event)

    async def _obey_filtered(self, link: ReplicaLink, event: LinkEvent) -> None:
        # A skip, or a ship of one scope, on a link that follows everything: neither was asked for.
        link.break_off(f"{self.address} sent what is for filtered links only: {type(event).__name__}")

    async def _take_piece(self, data: bytes) -> None:
        """Build what a piece of a snapshot says, in steps short enough for those who read the old data meanwhile."""
        for place in range(0, len(data), _STEP_SIZE):
            if place and self._clock.monotonic() >= self._slice_end:
                await self._yield()
                if self._stopped:
                    return
            self._follower.ship_data(self, data[place : place + _STEP_SIZE])

    async def _resume(self, link: ReplicaLink, event: Resumed) -> None:
        follower = self._follower
        if event.from_nothing:
            follower.ship_begins(self, None, "the upstream has sent its history from an empty beginning on")
            await self._end_ship(link, event)
            return
        reason = f"goes on at offset {event.offset}" + (f" of history {event.history}" if event.history else "")
        self._last_sync = SyncFacts("partial", reason, 0.0)
        self._log.info("synchronised", upstream=self.address, kind="partial", reason=reason)
        follower.resumed(self, event, reason)
        self._went_up()

    async def _end_ship(self, link: ReplicaLink, event: ShipEnds | Resumed) -> None:
        others = self._follower.ship_ends(self, event)
        if others is not None:
            await others.wait()
        self._went_up()

    def _went_up(self) -> None:
        self._live_since = self._clock.monotonic()
        self._was_live = True
        self._problem = ""
        self._follower.sink.link_changed()

    def _went_down(self) -> None:
        self._told = None
        if self._live_since is not None:
            self._live_since = None
            self._down_since = self._clock.monotonic()

    def _check_whole(self, link: ReplicaLink) -> None:
        """Whether everything that the last heartbeat told of has been applied: then this copy was whole at its time."""
        if self._told is not None and link.position >= self._told[0]:
            self._whole_at = self._told[1]
            self._told = None

    def _ship_reason(self, link: ReplicaLink, event: ShipBegins) -> str:
        """Why the upstream sends everything, as far as that can be told from here."""
        history, offset = self._claim
        if event.midstream:
            return "the upstream sent a fresh copy in the middle of its stream"
        if self._follower.diverged:
            return self._follower.diverged
        if self._claim == (0, 0):
            return "nothing is held that could be continued"
        if link.request.form is Form.FIVE:
            return f"the upstream does not go on at offset {offset}"
        if link.history != history:
            return f"asked for offset {offset} of history {history}, the upstream is in history {link.history}"
        return f"asked for offset {offset} of history {history}, which the upstream does not go on from"
