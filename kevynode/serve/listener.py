"""Letting clients in: the accept loop, who is refused, and who drives the session of whom."""

from __future__ import annotations

import socket
from collections.abc import Callable
from sys import intern
from typing import TYPE_CHECKING, Final, Protocol

import attrs
import trio

from ..accept import accept_connections
from ..faults import traceback_line
from ..transport import Incoming, Listener, set_keepalive

if TYPE_CHECKING:
    from .hub import Hub
    from .session_protocol import OpenSession
    from .stream_driver import StreamDriver

__all__ = ["Admission", "ClientEntrance", "ListenerLog"]

#: Seconds that a refused client may take to accept the refusal.
_REFUSAL_DEADLINE: Final = 1.0

_REFUSED: Final = b"-ERR max number of clients reached\r\n"


class ListenerLog(Protocol):
    """Where events go."""

    def debug(self, event: str, /, **fields: object) -> None: ...
    def info(self, event: str, /, **fields: object) -> None: ...
    def warning(self, event: str, /, **fields: object) -> None: ...
    def error(self, event: str, /, **fields: object) -> None: ...


@attrs.define
class Admission:
    """Limits that may change while the node runs, and what was counted. Shared by all listeners for clients."""

    maxclients: int = 10000
    # Seconds; 0 is off.
    tcp_keepalive: int = 300
    # Being served now.
    connected: int = 0
    # Let in since the start, and turned away.
    received: int = 0
    rejected: int = 0


class ClientEntrance:
    """Takes connections from listeners and serves each in a task of ``nursery``.

    That nursery outlives the listeners' tasks: to shut down, cancel those, let the drivers drain, then cancel it.
    Sockets go to ``hub`` where there is one; anything else, and every socket without a hub, goes to ``streams``.
    """

    def __init__(
        self,
        admission: Admission,
        open_session: OpenSession,
        nursery: trio.Nursery,
        log: ListenerLog,
        *,
        hub: Hub | None,
        streams: StreamDriver,
    ) -> None:
        self._admission = admission
        self._open_session = open_session
        self._nursery = nursery
        self._log = log
        self._hub = hub
        self._streams = streams

    async def listen(
        self, listener: Listener, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Let clients in until cancelled or until the listener is closed; closes it.

        When the system is out of descriptors it waits and tries again. Raises ``OSError`` if the listener is broken.
        """
        await accept_connections(listener, self.admit, self._log, task_status=task_status)

    def admit(self, incoming: Incoming) -> None:
        """Start serving a connection, or turning it away. Does not block."""
        admission = self._admission
        if admission.connected >= admission.maxclients:
            admission.rejected += 1
            self._log.debug("client_refused", peer=incoming.peer, maxclients=admission.maxclients)
            self._nursery.start_soon(self._refuse, incoming)
        else:
            # Counted here and not in the task, which starts later.
            admission.connected += 1
            admission.received += 1
            self._nursery.start_soon(self._serve, incoming)

    async def _serve(self, incoming: Incoming) -> None:
        try:
            endpoint = incoming.endpoint
            try:
                if incoming.kind == "tcp" and isinstance(endpoint, socket.socket):
                    set_keepalive(endpoint, self._admission.tcp_keepalive)
                # Thousands of clients have reached the same address: one text says so for all of them.
                session = self._open_session(incoming.peer, intern(incoming.local), incoming.kind)
            except Exception as error:
                self._log.error("session_failed", peer=incoming.peer, error=error, where=traceback_line(error))
                await incoming.aclose()
                return
            if not isinstance(endpoint, socket.socket):
                await self._streams.serve(endpoint, session)
                return
            session.fd = endpoint.fileno()
            if self._hub is not None:
                # This waits for as long as the connection lasts, and is all that would hold it.
                del incoming
                await self._hub.serve(endpoint, session)
            else:
                await self._streams.serve(incoming.stream(), session, _look_at(endpoint))
        finally:
            self._admission.connected -= 1

    async def _refuse(self, incoming: Incoming) -> None:
        try:
            if isinstance(incoming.endpoint, socket.socket):
                # One segment on a new connection: the kernel takes it all. Reading first what the client has sent
                # already lets the connection end without a reset, which could overtake the reply.
                incoming.endpoint.send(_REFUSED)
                incoming.endpoint.shutdown(socket.SHUT_WR)
                incoming.endpoint.recv(65536)
            else:
                with trio.move_on_after(_REFUSAL_DEADLINE):
                    await incoming.endpoint.send_all(_REFUSED)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            # It is gone, or silent; either way it is closed now.
            pass
        finally:
            await incoming.aclose()


def _look_at(sock: socket.socket) -> Callable[[], bool]:
    """Whether the peer has hung up, by a look at what could be read next."""

    def gone() -> bool:
        try:
            return not sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    return gone
