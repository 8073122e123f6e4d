"""Connections of the hub whose answers may not leave yet, because what they promise is not where it was promised to be.

A held connection is neither read nor run nor sent to until :meth:`HeldConnections.release`; what was taken from its
session before still leaves. That its peer has gone altogether ends it. That its peer sends no more does not: such a
peer may still want its answers, and what it sent last is read when the connection is let go.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from .answers import NOT_STORED

if TYPE_CHECKING:
    from .answers import AnswerGate
    from .hub_connection import HubConnection

__all__ = ["HeldConnections"]

_OUT: Final = select.EPOLLOUT
_RDHUP: Final = select.EPOLLRDHUP
_BROKEN: Final = select.EPOLLHUP | select.EPOLLERR


class HeldConnections:
    """Who is held. ``end`` closes a connection for a reason, ``watch`` changes the events that it is watched for."""

    def __init__(
        self,
        answers: AnswerGate | None,
        end: Callable[[HubConnection, str], None],
        watch: Callable[[HubConnection, int], None],
    ) -> None:
        self._answers = answers
        self._end = end
        self._watch = watch
        # In the order in which they were held.
        self._held: dict[HubConnection, None] = {}

    def sift(self, connections: list[HubConnection]) -> list[HubConnection]:
        """Those whose answers may leave, after the gate has said that not all may; the others are held or ended."""
        return [connection for connection in connections if self._may_leave(connection)]

    def let_go(self, connection: HubConnection) -> bool:
        """Whether a held connection was released, and is to be asked about again in this turn, before it runs.

        If it was not, then it has its turn because it was called for something that has to wait, or was killed.
        """
        if connection not in self._held:
            connection.held = False
            return True
        if connection.session.discard:
            self._end(connection, "closed by the server")
        return False

    def release(self) -> None:
        """Give all of them a turn, in which they are asked about again."""
        released, self._held = self._held, {}
        for connection in released:
            connection.wake()

    def forget(self, connection: HubConnection) -> None:
        """A connection has ended."""
        self._held.pop(connection, None)

    def serve_event(self, connection: HubConnection, mask: int) -> None:
        """What epoll says of a held connection."""
        if mask & _BROKEN:
            self._end(connection, "connection reset" if mask & select.EPOLLERR else "end of stream")
            return
        if mask & _OUT and connection.unsent is not None:
            connection.transmit(connection.unsent)
        # The end of the stream would be reported for ever.
        self._watch(connection, _unsent(connection) | (connection.interest & _RDHUP & ~mask))

    def _may_leave(self, connection: HubConnection) -> bool:
        session = connection.session
        if self._answers is None or connection.closed or session.discard or not session.has_output:
            return True
        verdict = self._answers.verdict(session)
        if verdict == "send":
            return True
        if verdict == "drop":
            self._end(connection, NOT_STORED)
        else:
            connection.held = True
            connection.plain = False
            self._held[connection] = None
            self._watch(connection, _unsent(connection) | _RDHUP)
        return False


def _unsent(connection: HubConnection) -> int:
    return 0 if connection.unsent is None else _OUT
