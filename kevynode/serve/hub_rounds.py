"""One round of the hub: the sockets that are ready are read, their sessions run, and what they say is sent.

There is a compiled twin of it; see :mod:`kevynode.twins`.
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .answers import AnswerGate
    from .hub import Hub
    from .hub_connection import HubConnection

__all__ = ["Rounds"]

_IN: Final = select.EPOLLIN


class Rounds:
    """Serves the ready sockets of one hub. ``turn`` is how long a session may run, in seconds on the ``timer``'s clock;
    ``size`` bytes are read from one socket in one turn. One look at ``epoll`` reports ``most`` sockets at most.
    ``queue`` holds the connections that have a turn without an event; ``before_batch`` and ``answers`` are the hub's.
    """

    def __init__(
        self,
        hub: Hub,
        connections: dict[int, HubConnection],
        queue: deque[HubConnection],
        epoll: select.epoll,
        timer: Callable[[], float],
        turn: float,
        size: int,
        most: int,
        before_batch: Callable[[float], object] | None,
        answers: AnswerGate | None,
    ) -> None:
        self._hub = hub
        self._connections = connections
        self._queue = queue
        self._before_batch = before_batch
        self._answers = answers
        #: The number of the last look.
        self.looks = 0
        self._epoll = epoll
        self._timer = timer
        self._turn = turn
        self._size = size
        self._most = most
        # What the last look has found and nobody has served: pairs of a descriptor and what is the matter with it.
        self._events: list[tuple[int, int]] = []

    @property
    def left(self) -> int:
        """How many sockets that the last look has found ready had no turn yet."""
        return len(self._events)

    def look(self) -> int:
        """See which sockets are ready, and how many that are. Does not block."""
        self.looks += 1
        self._events = self._epoll.poll(0, self._most)
        return len(self._events)

    def serve(self, deadline: float) -> bool:
        """Serve and answer what is left of the last look, then look again, and so on; whether the last look has found
        anybody.

        It ends when a look finds nobody, when the deadline has passed, and when all of a look have had their turn and
        somebody is in the queue, who comes before the next look.
        """
        timer = self._timer
        now = timer()
        while self._events or self.look():
            if self._before_batch is not None:
                self._before_batch(now)
            self.answer(*self.serve_sockets(deadline))
            now = timer()
            if self._events or self._queue or now > deadline:
                return True
        return False

    def serve_sockets(self, deadline: float) -> tuple[list[HubConnection], list[HubConnection]]:
        """Read and run for each socket that is left, until the deadline.

        Two lists of connections: those that have nothing but answers, and those to settle.
        """
        hub = self._hub
        find = self._connections.get
        timer = self._timer
        turn = self._turn
        size = self._size
        now = timer()
        served = 0
        answered: list[HubConnection] = []
        unsettled: list[HubConnection] = []
        for fd, mask in self._events:
            served += 1
            connection = find(fd)
            if connection is None or mask != _IN or not connection.plain:
                if hub.serve_other(fd, connection, mask, now + turn) and connection is not None:
                    unsettled.append(connection)
            else:
                try:
                    data = connection.recv(size)
                except BlockingIOError:
                    # An event for a predecessor with this descriptor.
                    continue
                except OSError as error:
                    hub.lost(connection, error)
                    continue
                if not data:
                    connection.ended = True
                    unsettled.append(connection)
                    continue
                session = connection.session
                try:
                    session.receive(data)
                    if session.run(now + turn):
                        unsettled.append(connection)
                    else:
                        answered.append(connection)
                except Exception as error:
                    hub.fail(connection, error)
            now = timer()
            if now > deadline:
                break
        del self._events[:served]
        return answered, unsettled

    def answer(self, answered: list[HubConnection], unsettled: list[HubConnection]) -> None:
        """Once everybody had a turn: let leave what may, of those who have nothing but answers, and of the others."""
        hub = self._hub
        # Asked even if there is nobody to answer: somebody who is gone, or silent, may have written.
        if self._answers is not None and not self._answers.before_answers():
            answered, unsettled = hub.sift(answered), hub.sift(unsettled)
        self.send_answers(answered)
        for connection in unsettled:
            hub.settle(connection)

    def send_answers(self, answered: list[HubConnection]) -> None:
        """Send the answers of a round, one connection after the other.

        A peer that is woken for the first of them finds the next ones there when it comes to look: sent one by one
        between the others' commands, each would cost a wake-up of its own.
        """
        for connection in answered:
            if connection.closed:
                continue
            try:
                data = connection.session.take_output()
                if not data:
                    continue
                try:
                    sent = connection.send(data)
                except BlockingIOError:
                    sent = 0
                except OSError as error:
                    connection.lose(error)
                    sent = len(data)
                if sent != len(data) or connection.ended:
                    connection.keep(memoryview(data)[sent:])
                    self._hub.settle(connection)
            except Exception as error:
                self._hub.fail(connection, error)
