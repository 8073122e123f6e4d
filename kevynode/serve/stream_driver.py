"""The stream driver: one session over any Trio stream (TLS, streams in memory, platforms without epoll).

Each connection has three tasks in a nursery of its own. The reader feeds the session, the runner gives it turns and
decides what may be sent and when the connection is over, the sender sends. They tell each other through signals, so a
client that sends much before it reads anything is served as far as the session's limits allow, and is not waited for.

With an answer gate the runner asks it after each turn. While the gate has the answers held, the session is neither fed
nor run nor sent to; a single read is left open, which notices the end of the connection.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Protocol

import trio
from trio.lowlevel import enable_ki_protection

from ..faults import traceback_line
from .answers import NOT_STORED

if TYPE_CHECKING:
    from .answers import AnswerGate
    from .session_protocol import SessionProtocol

__all__ = ["StreamDriver", "StreamLog"]

#: Seconds that one session may run before other tasks get a turn.
TURN: Final = 0.0005
#: Bytes read in one go.
READ_SIZE: Final = 65536

# Seconds that a stream may take for its farewell (TLS has one).
_CLOSE_DEADLINE: Final = 1.0


class StreamLog(Protocol):
    """Where failures go."""

    def error(self, event: str, /, **fields: object) -> None: ...


class _Signal:
    """Wakes one task, now or when it next waits."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def set(self) -> None:
        self._event.set()

    def clear(self) -> None:
        if self._event.is_set():
            self._event = trio.Event()

    async def wait(self) -> None:
        await self._event.wait()
        self._event = trio.Event()


class StreamDriver:
    """Serves sessions over streams. Run :meth:`serve` in one task per connection.

    The arguments are those of :class:`kevynode.serve.hub.Hub`; unlike a hub it has no task of its own.
    """

    def __init__(
        self,
        log: StreamLog,
        *,
        before_batch: Callable[[float], object] | None = None,
        answers: AnswerGate | None = None,
        timer: Callable[[], float] = time.perf_counter,
        turn: float = TURN,
    ) -> None:
        self._log = log
        self._before_batch = before_batch
        self._answers = answers
        self._timer = timer
        self._turn_seconds = turn
        self._connections: set[_StreamConnection] = set()
        self._draining = False
        self._emptied = trio.Event()

    @property
    def connected(self) -> int:
        """Connections being served."""
        return len(self._connections)

    def release_answers(self) -> None:
        """Ask again about the answers that are held. Does not checkpoint; may be called at any time."""
        for connection in self._connections:
            connection.ask_again()

    async def serve(
        self, stream: trio.abc.Stream, session: SessionProtocol, peer_gone: Callable[[], bool] | None = None
    ) -> None:
        """Serve one connection until it ends, then close the stream, also if this task is cancelled.

        ``peer_gone`` is a look for the end of the stream that does not block, if there is one for this kind of stream;
        without it the end is known when a read reports it. Failures are logged, and raise nothing.
        """
        connection = _StreamConnection(self, stream, session, peer_gone)
        self._connections.add(connection)
        try:
            await connection.serve()
        finally:
            self._connections.discard(connection)
            connection.release()
            if self._draining and not self._connections:
                self._emptied.set()
            # Also after a send that was cancelled: nobody knows how much of it has arrived. The stream is closed even
            # if it does not say goodbye in time.
            with trio.move_on_after(_CLOSE_DEADLINE):
                try:
                    await stream.aclose()
                except trio.BrokenResourceError:
                    pass

    async def drain(self) -> None:
        """Read no more, run what was read, send it, and return when every connection is closed. As the hub's."""
        self._draining = True
        for connection in self._connections:
            connection.stop_reading()
        if self._connections:
            await self._emptied.wait()
        else:
            await trio.lowlevel.checkpoint()


class _StreamConnection:
    """One stream and its session."""

    def __init__(
        self,
        driver: StreamDriver,
        stream: trio.abc.Stream,
        session: SessionProtocol,
        peer_gone: Callable[[], bool] | None,
    ) -> None:
        self._driver = driver
        self._stream = stream
        self._session = session
        self._look = peer_gone
        self._scope = trio.CancelScope()
        self._reading = trio.CancelScope()
        # The reader may go on, there is something to run or to decide, there is something to send.
        self._room = _Signal()
        self._work = _Signal()
        self._output = _Signal()
        # What the sender is sending.
        self._unsent = b""
        # The answers may not leave; the gate is to be asked again before anything else happens.
        self._held = False
        self._asking = False
        # Nothing more will be read; and whether that is because the peer sends no more.
        self._ended = False
        self._hung_up = False
        # Why nothing can be sent any more; commands that were read are run all the same.
        self._lost = ""
        self._reason = "shutting down"
        session.wake = self._work.set
        session.peer_gone = self._peer_gone

    async def serve(self) -> None:
        """Until the connection is over. Failures of the session and the stream are logged, and raise nothing."""
        if self._driver._draining:
            self.stop_reading()
        with self._scope:
            async with trio.open_nursery() as nursery:
                for task in (self._read, self._send, self._run):
                    nursery.start_soon(self._guard, task)

    @enable_ki_protection
    def release(self) -> None:
        """Tell the session that it is over."""
        session = self._session
        session.wake = session.peer_gone = None
        try:
            session.disconnected(self._reason)
        except Exception as error:
            self._driver._log.error("session_failed", error=error, where=traceback_line(error))

    def ask_again(self) -> None:
        """Answers that are held may be allowed to leave by now."""
        if self._held:
            self._asking = True
            self._work.set()

    def stop_reading(self) -> None:
        """Answer what was read, then close."""
        self._reading.cancel()

    def _peer_gone(self) -> bool:
        return self._hung_up or (self._look is not None and self._look())

    def _end(self, reason: str) -> None:
        if not self._scope.cancel_called:
            self._reason = reason
            self._scope.cancel()

    async def _guard(self, task: Callable[[], Awaitable[None]]) -> None:
        try:
            await task()
        except Exception as error:
            self._driver._log.error("session_failed", error=error, where=traceback_line(error))
            self._end("internal error")

    async def _read(self) -> None:
        session = self._session
        with self._reading:
            while True:
                while not (session.wants_read or session.blocked or self._held):
                    await self._room.wait()
                try:
                    data = await self._stream.receive_some(READ_SIZE)
                except trio.BrokenResourceError:
                    self._lost = "connection reset"
                    break
                if not data:
                    self._hung_up = True
                    break
                # One that is blocked or held is read to notice its end. What it sent instead waits here, and then in
                # the kernel.
                while self._held or not session.wants_read:
                    await self._room.wait()
                session.receive(bytes(data))
                # What has come in runs before more is read.
                self._room.clear()
                self._work.set()
                await self._room.wait()
        self._ended = True
        self._work.set()

    async def _run(self) -> None:
        session = self._session
        while True:
            self._take_turn()
            if session.discard:
                self._end("closed by the server")
                return
            if self._held:
                if self._lost:
                    self._end(self._lost)
                    return
                self._room.set()
                await self._work.wait()
                continue
            if session.runnable:
                await trio.lowlevel.checkpoint()
                continue
            unsent = self._unsent or session.has_output
            if (session.closing and not unsent) or (self._ended and (session.blocked or not unsent)):
                self._end(self._lost or ("end of stream" if self._hung_up else "closed by the server"))
                return
            self._room.set()
            await self._work.wait()

    @enable_ki_protection
    def _take_turn(self) -> None:
        """Run, ask what may leave, and hand it to the sender. Nothing runs between the question and what follows."""
        session, driver = self._session, self._driver
        if self._held and not self._asking:
            return
        # What was held is asked about again before anything else runs.
        if session.runnable and not self._held:
            now = driver._timer()
            if driver._before_batch is not None:
                driver._before_batch(now)
            session.run(now + driver._turn_seconds)
        self._held = self._asking = False
        answers = driver._answers
        may_leave = answers is None or answers.before_answers() or self._may_leave(answers)
        if may_leave and session.has_output and not self._unsent:
            self._hand_over()

    def _may_leave(self, answers: AnswerGate) -> bool:
        session = self._session
        if session.discard or not session.has_output:
            return True
        verdict = answers.verdict(session)
        if verdict == "drop":
            self._end(NOT_STORED)
        self._held = verdict == "hold"
        return verdict == "send"

    def _hand_over(self) -> None:
        data = self._session.take_output()
        # Nobody is there to read it: it counts as sent.
        if not self._lost:
            self._unsent = data
            self._session.output_pending = len(data)
            self._output.set()

    async def _send(self) -> None:
        while True:
            await self._output.wait()
            try:
                await self._stream.send_all(self._unsent)
            except trio.BrokenResourceError:
                self._lost = "connection reset"
                self.stop_reading()
            self._unsent = b""
            self._session.output_pending = 0
            # There may be more to send. Above its output limit a session neither runs nor reads; that may be over now.
            self._work.set()
