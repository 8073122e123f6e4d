"""A connection as the hub sees it: the socket, its session, and what is going on between them."""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING

import trio
from trio.lowlevel import enable_ki_protection

if TYPE_CHECKING:
    from .hub import Hub
    from .session_protocol import SessionProtocol

__all__ = ["HubConnection", "reason_of"]


class HubConnection:
    """One socket and its session."""

    __slots__ = (
        "born",
        "closed",
        "ended",
        "fd",
        "held",
        "hub",
        "interest",
        "lost",
        "parked",
        "plain",
        "queued",
        "recv",
        "send",
        "session",
        "sock",
        "unsent",
    )

    def __init__(self, hub: Hub, sock: socket.socket, session: SessionProtocol) -> None:
        self.hub = hub
        self.sock = sock
        self.fd = sock.fileno()
        self.session = session
        self.recv = sock.recv
        self.send = sock.send
        # Nothing but reading is going on. The hot loop looks at no other field of this kind.
        self.plain = True
        # Events registered with epoll.
        self.interest = 0
        # Taken from the session and not accepted by the kernel.
        self.unsent: memoryview | None = None
        # In the hub's queue: there are commands left to run, or somebody else's turn touched the session. It is not
        # read before it had its turn there.
        self.queued = False
        # Its answers may not leave, or have been released and not asked about again: it is neither read nor run.
        self.held = False
        # The peer sends no more: close once everything is answered.
        self.ended = False
        # Why nothing can be sent any more; commands that were read are run all the same.
        self.lost = ""
        # Out of the hub's map.
        self.closed = False
        # The connection's task while it sleeps.
        self.parked: trio.lowlevel.Task | None = None
        # Number of the last look at epoll before it was registered: events of that look are meant for a predecessor.
        self.born = 0

    @enable_ki_protection
    def wake(self) -> None:
        """Have the hub look at this session before it sleeps again."""
        if not self.queued and not self.closed:
            self.hub.enqueue(self)

    def transmit(self, data: bytes | memoryview) -> None:
        """Send what the kernel takes and keep the rest. Nothing is kept for a peer that is gone."""
        sent = len(data)
        if not self.lost:
            try:
                sent = self.send(data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self.lose(error)
        self.keep(memoryview(data)[sent:])

    def lose(self, error: OSError) -> None:
        """Nothing can be sent any more."""
        self.lost = reason_of(error)
        self.ended = True

    def keep(self, unsent: memoryview) -> None:
        """Hold what the kernel has not taken."""
        self.unsent = unsent if len(unsent) else None
        self.session.output_pending = len(unsent)

    def peer_gone(self) -> bool:
        """Whether the peer has hung up, even behind data that was not read yet."""
        if self.closed or self.ended:
            return True
        poll = select.poll()
        poll.register(self.fd, select.POLLRDHUP)
        return bool(poll.poll(0))

    def abort(self, _: object) -> trio.lowlevel.Abort:
        """The connection's task is cancelled; it closes the connection in its own next step."""
        self.parked = None
        return trio.lowlevel.Abort.SUCCEEDED


def reason_of(error: OSError) -> str:
    """What the system says of an error."""
    return error.strerror or str(error)
