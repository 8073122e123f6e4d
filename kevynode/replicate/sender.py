"""The primary's side of replication as tasks: the door that replicas knock at, and one sender for each known replica.

::

    sessions nursery
    ├─ greeting × connections without a handshake      ends with the handshake, or at its deadline
    └─ sender × slots                                  one task per known replica; outlives its connections
       └─ link: reader, writer                         one connection

A sender waits for its replica's next connection inside a cancel scope whose deadline is the reconnect window. A
connection in time goes on where the replica stopped; when the scope expires the replica's slot is given up and the task
ends. Everything that is decided is decided in :mod:`primary` and :mod:`replication`; here bytes and time pass.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import attrs
import trio
from trio.lowlevel import enable_ki_protection

from ..faults import traceback_line
from ..refusals import Refusals
from ..transport import Incoming
from .handshake import HandshakeError, HandshakeParser, Request, parse_request
from .primary import PrimaryLink
from .replication import SILENCE_DEADLINE, Replication
from .slots import Slot
from .surroundings import Refused

__all__ = ["HANDSHAKE_DEADLINE", "SILENCE_DEADLINE", "ReplicaEntrance", "SenderLog", "Visitor"]

#: Seconds that a connection may take to say what it wants.
HANDSHAKE_DEADLINE: Final = 10.0
#: Connections of one replica that wait to be served; the newest is, and the others are closed.
ARRIVALS: Final = 4
#: Connections that have not finished their handshake, at most.
GREETINGS: Final = 256

_READ_SIZE: Final = 16384
# Bytes that a replica has to take within SILENCE_DEADLINE: a long entry may take longer than that as a whole.
_SLICE: Final = 64 * 1024
_GONE: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


class SenderLog(Protocol):
    """Where events go."""

    def debug(self, event: str, /, **fields: object) -> None: ...
    def info(self, event: str, /, **fields: object) -> None: ...
    def warning(self, event: str, /, **fields: object) -> None: ...
    def error(self, event: str, /, **fields: object) -> None: ...


@attrs.frozen(eq=False)
class Connection:
    """A connection whose handshake has been read. ``rest`` are the bytes behind it."""

    stream: trio.abc.Stream
    # The socket under the stream, for sends that need no waiting; None where there is none.
    sock: socket.socket | None
    peer: str
    request: Request
    rest: bytes


@attrs.frozen(eq=False)
class Visitor:
    """A connection to the replication port that does not want to be a replica's, by the first command it sent.

    ``words`` are that command's, ``rest`` the bytes behind it. Whoever takes it has to close the stream.
    """

    stream: trio.abc.Stream
    peer: str
    words: tuple[bytes, ...]
    rest: bytes


class ReplicaEntrance:
    """Takes connections from the replication listener and hands each to its replica's sender.

    Greetings and senders run in ``nursery``, which outlives the listener: to shut down cancel that, call
    :meth:`drain`, then cancel the nursery.

    ``others`` are the commands, in capitals, besides REPLICATE that a connection may begin with, and who then takes it:
    called with the :class:`Visitor`, it returns whether it did, and neither blocks nor raises.
    """

    def __init__(
        self,
        replication: Replication,
        nursery: trio.Nursery,
        log: SenderLog,
        others: Mapping[bytes, Callable[[Visitor], bool]] | None = None,
    ) -> None:
        self._others = {} if others is None else others
        self._replication = replication
        self._nursery = nursery
        self._log = log
        self._refusals = Refusals(log, "replica_refused")
        # One for each connection without a handshake, oldest first.
        self._greetings: dict[trio.CancelScope, None] = {}
        self._senders: dict[Slot, Sender] = {}
        self._draining = False
        self._drained = trio.Event()

    def admit(self, incoming: Incoming) -> None:
        """Listen to what a new connection wants. Does not block.

        If too many have not said it yet the oldest of them goes: a replica says it at once.
        """
        if self._draining:
            self._nursery.start_soon(incoming.aclose)
            return
        if len(self._greetings) >= GREETINGS:
            oldest = next(iter(self._greetings))
            del self._greetings[oldest]
            oldest.cancel()
        scope = trio.CancelScope(deadline=trio.current_time() + HANDSHAKE_DEADLINE)
        self._greetings[scope] = None
        self._nursery.start_soon(self._greet, incoming, scope)

    async def drain(self) -> None:
        """Let every link send what its replica lacks, then end it. The node must be silent by now.

        Wait for that with a deadline.
        """
        self._draining = True
        for sender in tuple(self._senders.values()):
            sender.drain()
        if self._senders:
            await self._drained.wait()
        else:
            await trio.lowlevel.checkpoint()

    async def _greet(self, incoming: Incoming, scope: trio.CancelScope) -> None:
        """Read a handshake and pass the connection on; whoever does not finish one is closed without a word."""
        stream = incoming.stream()
        handed_over = False
        try:
            with scope:
                connection = await self._handshake(incoming, stream)
                if isinstance(connection, Visitor):
                    handed_over = not self._draining and self._others[connection.words[0].upper()](connection)
                elif connection is not None:
                    handed_over = await self._pass_on(connection)
            if scope.cancelled_caught:
                reason = "no handshake in time" if scope in self._greetings else "too many handshakes at once"
                self._refusals.log(incoming.peer, reason)
        except _GONE as error:
            self._log.debug("replica_gone", peer=incoming.peer, reason=str(error))
        except Exception as error:
            self._log.error("greeting_failed", peer=incoming.peer, error=error, where=traceback_line(error))
        finally:
            self._greetings.pop(scope, None)
            if not handed_over:
                await trio.aclose_forcefully(stream)

    async def _handshake(self, incoming: Incoming, stream: trio.abc.Stream) -> Connection | Visitor | None:
        parser = HandshakeParser()
        complete = False
        try:
            while not complete:
                data = await stream.receive_some(_READ_SIZE)
                if not data:
                    self._log.debug("replica_gone", peer=incoming.peer, reason="end of stream in its handshake")
                    return None
                complete = parser.feed_words(bytes(data))
            if parser.words[0].upper() in self._others:
                return Visitor(stream, incoming.peer, tuple(parser.words), parser.rest)
            request = parse_request(parser.words)
        except HandshakeError as error:
            self._refusals.log(incoming.peer, str(error))
            return None
        endpoint = incoming.endpoint
        sock = endpoint if isinstance(endpoint, socket.socket) else None
        return Connection(stream, sock, incoming.peer, request, parser.rest)

    async def _pass_on(self, connection: Connection) -> bool:
        """Give a connection to its replica's sender, a new one for a new replica; False if it is refused."""
        if self._draining:
            return False
        try:
            slot = self._replication.recognise(connection.request, connection.peer)
        except Refused as refused:
            self._refusals.log(connection.peer, refused.reason)
            if refused.line:
                await connection.stream.send_all(refused.line)
            return False
        sender = self._senders.get(slot)
        if sender is None:
            sender = self._senders[slot] = Sender(slot, self._replication, self._log, self._refusals)
            self._nursery.start_soon(self._run, sender)
        try:
            sender.hand_over(connection)
        except trio.WouldBlock:
            self._refusals.log(connection.peer, "connects faster than it is served")
            return False
        return True

    async def _run(self, sender: Sender) -> None:
        try:
            await sender.run()
        finally:
            self._senders.pop(sender.slot, None)
            self._replication.forget(sender.slot)
            if self._draining and not self._senders:
                self._drained.set()


class Sender:
    """Serves one replica for as long as its slot lives, one connection after the other."""

    def __init__(self, slot: Slot, replication: Replication, log: SenderLog, refusals: Refusals) -> None:
        self.slot = slot
        self._replication = replication
        self._log = log
        self._refusals = refusals
        self._arrivals, self._waiting = trio.open_memory_channel[Connection](ARRIVALS)
        # The connection to serve next, once it has been taken from there.
        self._newest: Connection | None = None
        # Around the connection being served; cancelled when it is to end at once.
        self._serving: trio.CancelScope | None = None
        self._around_all = trio.CancelScope()
        self._draining = False
        self._wakeup = trio.Event()

    def hand_over(self, connection: Connection) -> None:
        """Serve this connection next, at once: a replica that connects again has given up its last connection.

        Raises ``trio.WouldBlock`` if too many of them wait already.
        """
        self._arrivals.send_nowait(connection)
        if self._serving is not None:
            self._serving.cancel()

    def drain(self) -> None:
        """Send what is missing and end; at once if the replica is not there."""
        self._draining = True
        self._wakeup.set()
        if self._serving is None:
            self._around_all.cancel()

    async def run(self) -> None:
        """Serve connections until none comes within the reconnect window."""
        try:
            with self._around_all:
                while not self._draining:
                    connection = await self._next()
                    if connection is None:
                        return
                    try:
                        with trio.CancelScope() as self._serving:
                            await self._serve(connection)
                    finally:
                        self._serving = None
                        await trio.aclose_forcefully(connection.stream)
        finally:
            await self._turn_away()

    async def _next(self) -> Connection | None:
        """The newest connection of the replica; waits for one, and returns None if none comes in time."""
        await self._take_newest()
        if self._newest is None:
            window = self._replication.reconnect_window
            with trio.move_on_after(window):
                self._newest = await self._waiting.receive()
            await self._take_newest()
            if self._newest is None:
                self._log.info("replica_expired", id=self.slot.replica_id, window=window)
        connection, self._newest = self._newest, None
        return connection

    async def _take_newest(self) -> None:
        """Look at all that wait: the newest is to be served, the others have been given up by the replica."""
        while True:
            try:
                newer = self._waiting.receive_nowait()
            except trio.WouldBlock:
                return
            older, self._newest = self._newest, newer
            if older is not None:
                await trio.aclose_forcefully(older.stream)

    async def _turn_away(self) -> None:
        """Close what nobody will serve any more, also when cancelled: closing by force waits for nothing."""
        with trio.CancelScope(shield=True):
            while True:
                try:
                    connection = self._newest or self._waiting.receive_nowait()
                except trio.WouldBlock:
                    return
                self._newest = None
                await trio.aclose_forcefully(connection.stream)

    async def _serve(self, connection: Connection) -> None:
        """Be the primary on one connection until it ends; never raises but for cancellation."""
        replication, slot = self._replication, self.slot
        link = None
        try:
            link = self._open_link(connection)
        except Refused as refused:
            self._refusals.log(connection.peer, refused.reason)
            await self._refuse(connection, refused.line)
        except Exception as error:
            self._failed(error)
        if link is None:
            return
        reason = "cancelled"
        try:
            link.on_wake = self._wake
            link.hang_up = self._hang_up
            self._listen(link, connection.rest)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read, link, connection.stream, nursery.cancel_scope)
                await self._write(link, connection)
                nursery.cancel_scope.cancel()
            reason = link.reason or "shutting down"
        except* _GONE as group:
            reason = str(group.exceptions[0]) or "connection lost"
        except* Exception as group:
            # One replica's failure is its own.
            reason = "internal error"
            self._failed(group.exceptions[0])
        finally:
            link.on_wake = link.hang_up = None
            link.close(reason)
            replication.close_link(slot, link)
            self._log.info("replica_disconnected", id=slot.replica_id, peer=connection.peer, reason=link.reason)

    @enable_ki_protection
    def _open_link(self, connection: Connection) -> PrimaryLink:
        try:
            return self._replication.open_link(self.slot, connection.request)
        except BaseException:
            # Nobody is served: when the replica comes back it takes nothing over.
            self._replication.slots.disconnected(self.slot, self._replication.now())
            raise

    @staticmethod
    async def _refuse(connection: Connection, line: bytes) -> None:
        with trio.move_on_after(SILENCE_DEADLINE):
            try:
                await connection.stream.send_all(line)
            except _GONE:
                pass

    def _failed(self, error: Exception) -> None:
        self._log.error("sender_failed", id=self.slot.replica_id, error=error, where=traceback_line(error))

    def _wake(self) -> None:
        self._wakeup.set()

    def _hang_up(self) -> None:
        if self._serving is not None:
            self._serving.cancel()

    @enable_ki_protection
    def _listen(self, link: PrimaryLink, data: bytes) -> None:
        if data:
            self._replication.heard(self.slot, link, data)

    @enable_ki_protection
    def _take(self, link: PrimaryLink) -> list[bytes]:
        return self._replication.take(link)

    async def _read(self, link: PrimaryLink, stream: trio.abc.Stream, around: trio.CancelScope) -> None:
        while True:
            data = await stream.receive_some(_READ_SIZE)
            if not data:
                link.close("end of stream")
                around.cancel()
                return
            self._listen(link, bytes(data))

    async def _write(self, link: PrimaryLink, connection: Connection) -> None:
        """Send whatever there is to send until the link is closed, or drained."""
        while True:
            parts = self._take(link)
            if parts:
                await self._send(link, connection, parts[0] if len(parts) == 1 else b"".join(parts))
            elif link.closed:
                return
            elif link.busy:
                await trio.lowlevel.checkpoint()
            elif self._draining and link.caught_up:
                link.close("shutting down")
                await self._part(connection.stream)
            else:
                self._wakeup = trio.Event()
                await self._wakeup.wait()

    async def _send(self, link: PrimaryLink, connection: Connection, data: bytes) -> None:
        """Send all of it. The link knows since when the replica has taken nothing."""
        sent = 0
        if connection.sock is not None:
            try:
                sent = connection.sock.send(data)
            except BlockingIOError:
                pass
        if sent == len(data):
            await trio.lowlevel.checkpoint()
            return
        rest = memoryview(data)
        for start in range(sent, len(data), _SLICE):
            link.sending_since = self._replication.now()
            await connection.stream.send_all(rest[start : start + _SLICE])
            if start > sent:
                # What it is asked stands behind what it is still taking: that it takes it is a sign of life, too.
                link.heard = self._replication.now()
        link.sending_since = None

    @staticmethod
    async def _part(stream: trio.abc.Stream) -> None:
        """Say that nothing follows, and give the replica the time to read what is under way: it then ends the stream.

        Closing at once would have what it says meanwhile answered with a reset, which throws away what it has not read.
        """
        if isinstance(stream, trio.abc.HalfCloseableStream):
            await stream.send_eof()
            await trio.sleep_forever()
