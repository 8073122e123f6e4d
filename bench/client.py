"""A small blocking client: fills and cleans the data of a workload and asks a server who it is."""

import socket
from collections.abc import Iterable, Iterator
from types import TracebackType

from bench.workloads import Argv, encode_request

Reply = bytes | int | None | list["Reply"]

TIMEOUT = 60.0
"""Seconds one reply may take: filling a slow server with half a million elements is the longest wait."""

CHUNK_BYTES = 64 * 1024
"""Requests go out in chunks of about this size; the replies of one chunk are read before the next is sent, so
that neither side can fill the other's socket buffers."""


class ServerError(Exception):
    """The server answered with an error; the text is the server's."""


class Connection:
    """One blocking connection, to be used as a context manager."""

    def __init__(self, host: str, port: int) -> None:
        """Connect; raises OSError when nobody listens at ``host``:``port``."""
        self._socket = socket.create_connection((host, port), timeout=TIMEOUT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = self._socket.makefile("rb", buffering=CHUNK_BYTES)

    def __enter__(self) -> "Connection":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.close()
        self._socket.close()

    def call(self, *argv: str) -> Reply:
        """Send one command and return its reply; raises :class:`ServerError` for an error reply."""
        self._socket.sendall(encode_request(argv))
        return self._read_reply()

    def run(self, commands: Iterable[Argv]) -> int:
        """Send all commands in pipelined chunks, check that none fails, and return how many there were."""
        total = 0
        for chunk, count in _chunks(commands):
            self._socket.sendall(chunk)
            for _ in range(count):
                self._read_reply()
            total += count
        return total

    def _read_reply(self) -> Reply:
        line = self._reader.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the server closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest
        if kind == b":":
            return int(rest)
        if kind == b"-":
            raise ServerError(rest.decode(errors="replace"))
        if kind == b"$":
            return None if rest == b"-1" else self._reader.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return None if rest == b"-1" else [self._read_reply() for _ in range(int(rest))]
        raise ServerError(f"unexpected reply {line[:64]!r}")


def _chunks(commands: Iterable[Argv]) -> Iterator[tuple[bytes, int]]:
    pending: list[bytes] = []
    size = 0
    for argv in commands:
        pending.append(encode_request(argv))
        size += len(pending[-1])
        if size >= CHUNK_BYTES:
            yield b"".join(pending), len(pending)
            pending, size = [], 0
    if pending:
        yield b"".join(pending), len(pending)


def read_info(host: str, port: int) -> dict[str, str]:
    """The fields of INFO SERVER, or an empty dict from a server that refuses the command."""
    with Connection(host, port) as connection:
        try:
            reply = connection.call("INFO", "server")
        except ServerError:
            return {}
    return parse_info(reply) if isinstance(reply, bytes) else {}


def parse_info(text: bytes) -> dict[str, str]:
    """The ``field:value`` lines of an INFO reply; headings and blank lines are left out."""
    fields = {}
    for line in text.decode(errors="replace").splitlines():
        name, colon, value = line.partition(":")
        if colon and not line.startswith("#"):
            fields[name] = value
    return fields
