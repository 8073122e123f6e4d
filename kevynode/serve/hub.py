"""The hub: one task that serves every socket. Linux only; elsewhere the stream driver does the same work.

The hub owns an epoll object and waits until that is readable. Then it goes through the ready sockets and does for each
of them, inline, ``recv`` and the session's turn, and sends all answers at the end of the round. That costs half of what
a task that wakes up for every read costs. Each connection still has a task of its own, parked in a nursery: cancelling
it closes the connection.

What holds:

- A cycle is synchronous and lasts about ``CYCLE`` seconds at most; then other tasks get a turn. What was ready and not
  served comes first in the next cycle, so a connection waits for at most one turn of each other one.
- A session's turn writes into buffers of other sessions, never to their sockets: those are put into the queue, which
  has its turn after the ready sockets.
- Turns come first, answers after all of them: with an answer gate it is asked in between, once for everybody. Only
  bytes that were taken from a session before may leave without asking.
- epoll is level-triggered, so nothing is lost by leaving a socket alone, and a socket that will not be read loses its
  EPOLLIN at once.
- A connection ends in this order: unregister, leave the map, tell the session, close the socket. The last step comes at
  the end of the cycle, because a descriptor's number is given to the next connection as soon as it is free. Events that
  outlive a cycle are checked against the connection's age.
- A session that raises loses its connection, and nothing else happens.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol, Self

import trio
from trio.lowlevel import enable_ki_protection

from ..faults import traceback_line
from ..twins import COMPILED
from .hub_connection import HubConnection, reason_of
from .hub_held import HeldConnections

if TYPE_CHECKING or not COMPILED:
    from .hub_rounds import Rounds
else:
    from ..compiled.hub import Rounds

if TYPE_CHECKING:
    from .answers import AnswerGate
    from .session_protocol import SessionProtocol

__all__ = ["Hub", "HubLog"]

#: Seconds of clients' work before other tasks get a turn.
CYCLE: Final = 0.0015
#: Seconds that one session may run before the next one gets its turn.
TURN: Final = 0.0005
#: Bytes read from one socket in one turn.
READ_SIZE: Final = 65536

# Sockets reported by one look at the epoll object.
_BATCH: Final = 512

_IN: Final = select.EPOLLIN
_OUT: Final = select.EPOLLOUT
_RDHUP: Final = select.EPOLLRDHUP
# Reported whether it was asked for or not.
_BROKEN: Final = select.EPOLLHUP | select.EPOLLERR


class HubLog(Protocol):
    """Where failures go."""

    def error(self, event: str, /, **fields: object) -> None: ...


class Hub:
    """Serves sessions over non-blocking sockets. Run :meth:`run` in one task and :meth:`serve` in one per connection.

    ``before_batch(now)`` is called before the commands of each batch of ready sockets, with the timer's seconds: a
    place to set the clock; it must not raise. ``timer`` is in seconds and ought to have microseconds; all deadlines are
    on its clock.
    ``answers`` is asked after each batch and before its answers leave, once for all of them; it must not raise. Whoever
    it has had held stays so until :meth:`release_answers`.

    Use it as a context manager, or call :meth:`close`. Its methods belong to the Trio thread.
    """

    def __init__(
        self,
        log: HubLog,
        *,
        before_batch: Callable[[float], object] | None = None,
        answers: AnswerGate | None = None,
        timer: Callable[[], float] = time.perf_counter,
        cycle: float = CYCLE,
        turn: float = TURN,
    ) -> None:
        self._log = log
        self._before_batch = before_batch
        self._held = HeldConnections(answers, self.end, self._watch)
        self._timer = timer
        self._cycle_seconds = cycle
        self._turn_seconds = turn
        self._epoll = select.epoll()
        self._connections: dict[int, HubConnection] = {}
        # Connections to look at without an event, and how many of them come before the next look.
        self._queue: deque[HubConnection] = deque()
        self._owed = 0
        self._rounds = Rounds(
            self, self._connections, self._queue, self._epoll, timer, turn, READ_SIZE, _BATCH, before_batch, answers
        )
        # Out of the map; their sockets are closed at the end of the cycle.
        self._ending: list[HubConnection] = []
        # Cycles begun: a measure of progress that does not depend on the machine.
        self.cycles = 0
        self._in_cycle = False
        self._running = False
        self._draining = False
        self._emptied = trio.Event()
        # Gets the hub's task out of its sleep.
        self._sleeping = False
        self._alarm = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._alarm, _IN)

    # -- for the node ---------------------------------------------------------------------------------------------

    @property
    def connected(self) -> int:
        """Connections being served."""
        return len(self._connections)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. May be run again after that; connections keep what they had."""
        if self._running:
            raise RuntimeError("the hub is running already")
        self._running = True
        try:
            task_status.started()
            while True:
                if self._cycle():
                    await trio.lowlevel.checkpoint()
                else:
                    self._sleeping = True
                    await trio.lowlevel.wait_readable(self._epoll)
                    self._sleeping = False
        finally:
            self._sleeping = False
            self._running = False

    async def serve(self, sock: socket.socket, session: SessionProtocol) -> None:
        """Serve one connection until it ends; the task sleeps all the time.

        The socket must be non-blocking and belongs to the hub now: no other registration, no duplicate. It is closed
        and the session told, also if this task is cancelled. Failures are logged, and raise nothing.
        """
        connection = HubConnection(self, sock, session)
        try:
            self._register(connection)
            if connection.closed:
                await trio.lowlevel.checkpoint()
            else:
                connection.parked = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(connection.abort)
        finally:
            self.end(connection, "shutting down")

    async def drain(self) -> None:
        """Read no more, run what was read, send it, and return when every connection is closed.

        Clients that wait for something are closed at once. This lasts as long as a client does not read, or is held:
        give it a deadline, and cancel the connections' tasks then. The hub has to run meanwhile.
        """
        self._draining = True
        for connection in self._connections.values():
            connection.wake()
        if self._connections:
            await self._emptied.wait()
        else:
            await trio.lowlevel.checkpoint()

    def release_answers(self) -> None:
        """Ask again about the answers that are held. Does not checkpoint; may be called at any time."""
        self._held.release()

    def close(self) -> None:
        """Close what is left. Cancel the hub's task first; a second call does nothing."""
        if self._epoll.closed:
            return
        for connection in tuple(self._connections.values()):
            self.end(connection, "shutting down")
        trio.lowlevel.notify_closing(self._epoll)
        self._epoll.close()
        os.close(self._alarm)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    # -- one cycle ------------------------------------------------------------------------------------------------

    @enable_ki_protection
    def _cycle(self) -> bool:
        """Serve what is ready for a while; whether there is more to do right now.

        A round is: the sockets of one look, then the connections that are in the queue by then. A round that lasts
        longer than a cycle goes on in the next one where it stopped.
        """
        self.cycles += 1
        self._in_cycle = True
        rounds = self._rounds
        timer = self._timer
        now = timer()
        deadline = now + self._cycle_seconds
        more = True
        try:
            while more:
                if not self._owed:
                    more = rounds.serve(deadline)
                    if not rounds.left:
                        self._owed = len(self._queue)
                    now = timer()
                if self._owed and now <= deadline:
                    if self._before_batch is not None:
                        self._before_batch(now)
                    now = self._serve_queue(deadline)
                    more = True
                if now > deadline:
                    break
            more = more or self._owed > 0
        finally:
            self._in_cycle = False
            if self._ending:
                self._close_ending()
        return more

    def sift(self, connections: list[HubConnection]) -> list[HubConnection]:
        """Those whose answers may leave, after the gate has said that not all may; the others are held or ended."""
        return self._held.sift(connections)

    def _serve_queue(self, deadline: float) -> float:
        """Give their turn to those in the queue that come before the next look; the time when it stopped."""
        queue = self._queue
        timer = self._timer
        now = timer()
        unsettled: list[HubConnection] = []
        while self._owed and queue:
            self._owed -= 1
            connection = queue.popleft()
            connection.queued = False
            if connection.closed:
                continue
            try:
                if connection.held:
                    if not self._held.let_go(connection):
                        continue
                elif connection.session.runnable:
                    connection.session.run(now + self._turn_seconds)
            except Exception as error:
                self.fail(connection, error)
            else:
                unsettled.append(connection)
            now = timer()
            if now > deadline:
                break
        self._rounds.answer([], unsettled)
        return timer()

    def serve_other(self, fd: int, connection: HubConnection | None, mask: int, turn_ends: float) -> bool:
        """An event that is more than "there is something to read" from a connection that is plain; whether to settle
        the connection, None if there is none with this descriptor."""
        if connection is None:
            if fd == self._alarm:
                os.eventfd_read(fd)
            return False
        return self._serve_special(connection, mask, turn_ends)

    def _serve_special(self, connection: HubConnection, mask: int, turn_ends: float) -> bool:
        """An event that is more than "there is something to read from one that may be read"; whether to settle it."""
        if connection.queued or connection.born == self._rounds.looks:
            return False
        if connection.held:
            self._held.serve_event(connection, mask)
            return False
        if mask & _OUT and connection.unsent is not None:
            connection.transmit(connection.unsent)
        session = connection.session
        try:
            if mask & _IN and connection.interest & _IN:
                try:
                    data = connection.recv(READ_SIZE)
                except BlockingIOError:
                    pass
                except OSError as error:
                    self.end(connection, reason_of(error))
                    return False
                else:
                    if data:
                        session.receive(data)
                        session.run(turn_ends)
                    else:
                        connection.ended = True
            elif mask & _BROKEN:
                self.end(connection, "connection reset" if mask & select.EPOLLERR else "end of stream")
                return False
            elif mask & _RDHUP:
                # The commands that wait are not answered any more.
                connection.ended = session.blocked
        except Exception as error:
            self.fail(connection, error)
            return False
        return True

    # -- one connection -------------------------------------------------------------------------------------------

    def _register(self, connection: HubConnection) -> None:
        session = connection.session
        session.wake = connection.wake
        session.peer_gone = connection.peer_gone
        connection.born = self._rounds.looks
        connection.interest = _IN
        try:
            self._epoll.register(connection.fd, _IN)
        except OSError as error:
            self.end(connection, reason_of(error))
            return
        self._connections[connection.fd] = connection
        if self._draining or session.has_output or not session.wants_read:
            connection.wake()

    def enqueue(self, connection: HubConnection) -> None:
        """Give a connection a turn before the hub sleeps again, without an event; it is not in the queue yet."""
        connection.queued = True
        connection.plain = False
        self._queue.append(connection)
        if self._sleeping:
            os.eventfd_write(self._alarm, 1)

    def settle(self, connection: HubConnection) -> None:
        """Do what the session's state asks for: send, have another turn, end, and watch for the right events."""
        if connection.closed:
            return
        session = connection.session
        try:
            if session.discard:
                self.end(connection, "closed by the server")
                return
            if connection.unsent is None and session.has_output:
                connection.transmit(session.take_output())
            finishing = connection.ended or self._draining
            runnable = session.runnable
            if runnable:
                if not connection.queued:
                    self.enqueue(connection)
            elif (connection.unsent is None and (session.closing or finishing)) or (finishing and session.blocked):
                reason = "end of stream" if connection.ended else "closed by the server"
                self.end(connection, connection.lost or reason)
                return
            interest = 0 if connection.unsent is None else _OUT
            if not finishing and (session.wants_read or (runnable and connection.interest & _IN)):
                # It stays registered while it has commands left to run, because that is cheaper than a change.
                interest |= _IN
            elif session.blocked:
                interest |= _RDHUP
        except Exception as error:
            self.fail(connection, error)
            return
        self._watch(connection, interest)
        connection.plain = interest == _IN and not connection.queued

    def _watch(self, connection: HubConnection, interest: int) -> None:
        if interest != connection.interest:
            connection.interest = interest
            self._epoll.modify(connection.fd, interest)

    def lost(self, connection: HubConnection, error: OSError) -> None:
        """Nothing can be read any more."""
        self.end(connection, reason_of(error))

    def fail(self, connection: HubConnection, error: Exception) -> None:
        """The session has raised: its connection goes, and nothing else happens."""
        self._log.error("session_failed", error=error, where=traceback_line(error))
        self.end(connection, "internal error")

    @enable_ki_protection
    def end(self, connection: HubConnection, reason: str) -> None:
        """Take a connection out. Its socket is closed at the end of the cycle, at once outside of one."""
        if connection.closed:
            return
        connection.closed = True
        session = connection.session
        if self._connections.get(connection.fd) is connection:
            self._epoll.unregister(connection.fd)
            del self._connections[connection.fd]
        self._held.forget(connection)
        session.wake = session.peer_gone = None
        try:
            session.disconnected(reason)
        except Exception as error:
            self._log.error("session_failed", error=error, where=traceback_line(error))
        self._ending.append(connection)
        if not self._in_cycle:
            self._close_ending()

    def _close_ending(self) -> None:
        while self._ending:
            connection = self._ending.pop()
            try:
                connection.sock.close()
            except OSError as error:
                self._log.error("close_failed", error=error)
            task, connection.parked = connection.parked, None
            if task is not None:
                trio.lowlevel.reschedule(task)
        if self._draining and not self._connections:
            self._emptied.set()
