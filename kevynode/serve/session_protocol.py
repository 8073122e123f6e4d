"""What a driver needs of a session: the seam between a connection's I/O and everything that its commands mean.

Two drivers move bytes for the same session object: the hub (:mod:`kevynode.serve.hub`, one task for all sockets) and
the stream driver (:mod:`kevynode.serve.stream_driver`, any Trio stream). A session does no I/O and knows no Trio.

A driver's turn with a session is: ``receive`` what came in, ``run``, send what ``take_output`` returns, then look at
``discard``, ``closing``, ``runnable`` and ``wants_read`` to see what to do next.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

__all__ = ["OpenSession", "SessionProtocol"]


class SessionProtocol(Protocol):
    """One client, as a driver sees it. All calls come from one thread and none of them blocks."""

    wake: Callable[[], None] | None
    """Set by the driver. The session, or somebody else's turn, calls it when output appeared or when ``runnable``,
    ``closing`` or ``discard`` changed outside the session's own ``run``. It only takes a note, so it may be called
    anywhere and any number of times."""

    peer_gone: Callable[[], bool] | None
    """Set by the driver: whether the peer has hung up, by a look at the connection that does not block. Asked before
    an element is handed to a blocked client."""

    output_pending: int
    """Bytes that the driver took and the kernel has not accepted yet. The driver keeps it up to date; it counts towards
    the session's output limit."""

    wrote: int
    """The offset behind what this client wrote last, 0 before: what its answers promise."""

    fd: int
    """The connection's descriptor, for people who look at the list of clients; -1 where there is none."""

    @property
    def runnable(self) -> bool:
        """Queued commands could run now. False while blocked, paused, closing, or over the output limit."""
        ...

    @property
    def wants_read(self) -> bool:
        """More bytes may be read. False while blocked or paused with a full query buffer, closing, or over the output
        limit."""
        ...

    @property
    def closing(self) -> bool:
        """Close once the output has been sent."""
        ...

    @property
    def discard(self) -> bool:
        """Close at once, without sending what is left: the client was killed, or does not read what it asked for."""
        ...

    @property
    def blocked(self) -> bool:
        """Parked in a blocking command. The driver watches for the end of the stream whatever ``wants_read`` says."""
        ...

    @property
    def has_output(self) -> bool:
        """``take_output`` would return something."""
        ...

    def receive(self, data: bytes) -> None:
        """Parse bytes of the peer and queue their commands. Bad input raises nothing: its error reply is queued."""
        ...

    def run(self, deadline: float) -> bool:
        """Run queued commands until none is left or one has to wait, or the driver's timer has passed ``deadline``.

        The deadline is looked at after each command, so that every call makes progress. True if there is more to do
        than to send the output and to read on: ``runnable``, or not ``wants_read``.
        """
        ...

    def take_output(self) -> bytes:
        """Everything to send, joined; empties it."""
        ...

    def disconnected(self, reason: str) -> None:
        """The connection is gone, said exactly once: let go of watches, subscriptions and waits."""
        ...


class OpenSession(Protocol):
    """Makes the session of a new connection."""

    def __call__(self, peer: str, local: str, kind: Literal["tcp", "unix"]) -> SessionProtocol:
        """``peer`` and ``local`` are addresses as CLIENT LIST shows them."""
        ...
