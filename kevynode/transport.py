"""Connections, as they are injected: listen and connect, over real sockets or over anything that gives streams.

A node never calls ``socket`` itself. It asks its :class:`Transport`, so that tests and simulations can run a whole
cluster over streams in memory. :class:`SystemTransport` is the real one: TCP over IPv4 and IPv6, and unix sockets.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from collections.abc import Sequence
from typing import Final, Literal, Protocol, TypeAlias

import attrs
import trio

__all__ = [
    "Incoming",
    "Kind",
    "Listener",
    "SocketListener",
    "SystemTransport",
    "Transport",
    "format_address",
    "set_keepalive",
    "socket_stream",
]

Kind: TypeAlias = Literal["tcp", "unix"]

#: Connections that the kernel holds until they are accepted; Valkey's default for ``tcp-backlog``.
DEFAULT_BACKLOG: Final = 511

# Accepted in one go before other tasks get a turn.
_ACCEPTS_PER_TURN: Final = 64

# Port 0 with several addresses needs one port that is free on all of them; how often another one is tried.
_PORT_ATTEMPTS: Final = 32

# accept(2) reports errors of the new connection, too; the listening socket is as good as before. See its manual page.
_CONNECTION_ERRORS: Final = frozenset(
    getattr(errno, name)
    for name in (
        "ECONNABORTED",
        "EHOSTDOWN",
        "EHOSTUNREACH",
        "EINTR",
        "ENETDOWN",
        "ENETUNREACH",
        "ENONET",
        "ENOPROTOOPT",
        "EOPNOTSUPP",
        "EPERM",
        "EPROTO",
        "ETIMEDOUT",
    )
    if hasattr(errno, name)
)


@attrs.frozen
class Incoming:
    """A connection that somebody opened to us.

    ``peer`` and ``local`` are addresses as CLIENT LIST shows them: ``1.2.3.4:5``, ``[::1]:5``, and ``path:0`` on both
    sides of a unix socket. ``endpoint`` is a non-blocking socket, or a stream where there is no socket.
    Whoever takes it has to close it.
    """

    peer: str
    local: str
    kind: Kind
    endpoint: socket.socket | trio.abc.Stream

    def stream(self) -> trio.abc.Stream:
        """The connection as a stream; a socket belongs to that stream from now on."""
        return socket_stream(self.endpoint) if isinstance(self.endpoint, socket.socket) else self.endpoint

    async def aclose(self) -> None:
        """Close it at once, unused. A checkpoint."""
        if isinstance(self.endpoint, socket.socket):
            self.endpoint.close()
            await trio.lowlevel.checkpoint()
        else:
            await trio.aclose_forcefully(self.endpoint)


class Listener(Protocol):
    """Something that takes connections until it is closed."""

    @property
    def address(self) -> str:
        """Where it listens, with the port it really has: ``host:port`` or a path."""
        ...

    @property
    def port(self) -> int:
        """The port it really has; 0 for a unix socket."""
        ...

    async def accept(self) -> Sequence[Incoming]:
        """Wait for connections; at least one. A checkpoint.

        Raises ``OSError`` when there are no descriptors or buffers left (EMFILE, ENFILE, ENOBUFS, ENOMEM): try again
        later. Raises ``trio.ClosedResourceError`` once it is closed.
        """
        ...

    def close(self) -> None:
        """Stop listening. Does not block; a second call does nothing."""
        ...


class Transport(Protocol):
    """How a node reaches the world. Deadlines are the caller's: wrap a call into a cancel scope."""

    async def listen(
        self, addresses: Sequence[str], port: int, *, backlog: int = DEFAULT_BACKLOG
    ) -> Sequence[Listener]:
        """Listen on every address, all with the same port; port 0 takes one that is free on all of them.

        Raises ``OSError`` with the address in its text; then nothing listens.
        """
        ...

    async def listen_unix(self, path: str, *, mode: int | None = None, backlog: int = DEFAULT_BACKLOG) -> Listener:
        """Listen on a unix socket; ``mode`` are its permission bits. Raises ``OSError``.

        A socket left behind by a process that is gone is replaced; anything else at ``path`` is left alone.
        """
        ...

    async def connect(self, host: str, port: int) -> trio.abc.Stream:
        """Connect over TCP. Raises ``OSError``."""
        ...

    async def connect_unix(self, path: str) -> trio.abc.Stream:
        """Connect to a unix socket. Raises ``OSError``."""
        ...


def format_address(host: str, port: int) -> str:
    """``host:port``, with brackets around an IPv6 address.

    >>> format_address("127.0.0.1", 6004), format_address("::1", 6004)
    ('127.0.0.1:6004', '[::1]:6004')
    """
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def socket_stream(sock: socket.socket) -> trio.SocketStream:
    """A stream over a connected socket, which belongs to the stream from now on."""
    return trio.SocketStream(trio.socket.from_stdlib_socket(sock))


def set_keepalive(sock: socket.socket, seconds: int) -> None:
    """Let the kernel notice a TCP peer that vanished, after about twice ``seconds``; 0 switches that off.

    As Valkey's ``tcp-keepalive``: probes start after ``seconds`` of silence, then three a third of that apart.
    """
    if not seconds:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # macOS calls the same thing by another name.
    idle = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", None))
    if idle is not None:
        sock.setsockopt(socket.IPPROTO_TCP, idle, seconds)
    if hasattr(socket, "TCP_KEEPINTVL"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, seconds // 3))
    if hasattr(socket, "TCP_KEEPCNT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)


class SocketListener:
    """A listening socket. It accepts with plain calls, so that what it hands out is a socket and not a stream."""

    def __init__(self, sock: socket.socket, *, path: str = "") -> None:
        sock.setblocking(False)
        self._socket = sock
        self._path = path
        # The file that close() removes is this one and not one that somebody else put there.
        self._file = _identity(path) if path else None
        self._closed = False
        if path:
            self.address, self.port = path, 0
        else:
            host, self.port = sock.getsockname()[:2]
            self.address = format_address(host, self.port)

    async def accept(self) -> list[Incoming]:
        """Wait for connections and take up to 64 of them. See :meth:`Listener.accept`."""
        accepted: list[Incoming] = []
        while True:
            if self._closed:
                raise trio.ClosedResourceError("the listener is closed")
            await trio.lowlevel.wait_readable(self._socket)
            # No checkpoint from here on: a connection that was accepted is handed out.
            try:
                while len(accepted) < _ACCEPTS_PER_TURN:
                    self._accept_one(accepted)
            except BlockingIOError:
                pass
            except OSError:
                if not accepted:
                    raise
            if accepted:
                return accepted

    def _accept_one(self, accepted: list[Incoming]) -> None:
        try:
            connection, address = self._socket.accept()
        except OSError as error:
            if error.errno in _CONNECTION_ERRORS:
                return
            raise
        try:
            connection.setblocking(False)
            if self._path:
                name = f"{self._path}:0"
                accepted.append(Incoming(name, name, "unix", connection))
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer = format_address(*address[:2])
            local = format_address(*connection.getsockname()[:2])
            accepted.append(Incoming(peer, local, "tcp", connection))
        except OSError:
            # Gone already.
            connection.close()

    def close(self) -> None:
        """Stop listening, and remove the file of a unix socket."""
        if self._closed:
            return
        self._closed = True
        if self._file is not None and _identity(self._path) == self._file:
            os.unlink(self._path)
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()


class SystemTransport:
    """Real sockets."""

    async def listen(
        self, addresses: Sequence[str], port: int, *, backlog: int = DEFAULT_BACKLOG
    ) -> list[SocketListener]:
        """Listen on every address, all with the same port. See :meth:`Transport.listen`."""
        attempts = _PORT_ATTEMPTS if port == 0 else 1
        while True:
            attempts -= 1
            try:
                return await self._listen_once(addresses, port, backlog)
            except OSError as error:
                # The port that the first address got may be taken on the next one.
                if not attempts or error.errno != errno.EADDRINUSE:
                    raise

    async def _listen_once(self, addresses: Sequence[str], port: int, backlog: int) -> list[SocketListener]:
        listeners: list[SocketListener] = []
        try:
            for address in addresses:
                try:
                    found = await trio.socket.getaddrinfo(
                        address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
                    )
                    for family, kind, protocol, _, where in found:
                        if port == 0 and listeners:
                            where = (where[0], listeners[0].port, *where[2:])
                        listeners.append(SocketListener(_bound(family, kind, protocol, where, backlog)))
                except OSError as error:
                    reason = error.strerror or str(error)
                    raise OSError(error.errno, f"cannot listen on {format_address(address, port)}: {reason}") from error
        except BaseException:
            for listener in listeners:
                listener.close()
            raise
        return listeners

    async def listen_unix(
        self, path: str, *, mode: int | None = None, backlog: int = DEFAULT_BACKLOG
    ) -> SocketListener:
        """Listen on a unix socket. See :meth:`Transport.listen_unix`."""
        await trio.lowlevel.checkpoint()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _remove_abandoned(path)
            sock.bind(path)
            if mode is not None:
                os.chmod(path, mode)
            sock.listen(backlog)
            return SocketListener(sock, path=path)
        except OSError as error:
            sock.close()
            raise OSError(error.errno, f"cannot listen on {path}: {error.strerror or error}") from error

    async def connect(self, host: str, port: int) -> trio.SocketStream:
        """Connect over TCP, to whichever address of the host answers first."""
        try:
            return await trio.open_tcp_stream(host, port)
        except OSError as error:
            # Trio tells of the attempts; why they failed is behind that.
            cause: BaseException | None = error.__cause__
            while isinstance(cause, BaseExceptionGroup):
                cause = cause.exceptions[0]
            raise cause if isinstance(cause, OSError) else error from None

    async def connect_unix(self, path: str) -> trio.SocketStream:
        """Connect to a unix socket."""
        return await trio.open_unix_socket(path)


def _bound(family: int, kind: int, protocol: int, where: tuple[object, ...], backlog: int) -> socket.socket:
    sock = socket.socket(family, kind, protocol)
    try:
        if sys.platform != "win32":
            # A restarted server may listen at once, beside connections of its predecessor that still die away.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # "::" leaves IPv4 to "0.0.0.0".
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(where)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _remove_abandoned(path: str) -> None:
    """Remove a socket file that nobody listens on; raises ``OSError`` if somebody does, or if it is no socket."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "there is a file that is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            # Its backlog is full, so somebody listens.
            pass
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
