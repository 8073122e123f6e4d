"""A blocking raw-socket client that keeps what ordinary clients throw away: the exact type of every reply.

``+OK`` and the bulk ``OK`` are different replies here, and so are ``$-1``, ``*-1`` and ``_``. Doubles keep their
text. Nothing in this module interprets a reply; it only reads one off the wire.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Final, NamedTuple

#: Seconds a read may wait for the next byte before the server counts as silent. Some replies take half a gigabyte of
#: fresh memory, which a busy machine does not give quickly.
READ_TIMEOUT: Final = 20.0

#: RESP type byte -> name of the kind, for replies that are one line.
_LINE_KINDS: Final = {
    b"+": "simple",
    b"-": "error",
    b":": "integer",
    b",": "double",
    b"#": "boolean",
    b"(": "big-number",
    b"_": "null",
}
#: RESP type byte -> name of the kind, for replies with a byte length.
_BLOB_KINDS: Final = {b"$": "bulk", b"=": "verbatim", b"!": "bulk-error"}
#: RESP type byte -> name of the kind, for replies with an element count.
_AGGREGATE_KINDS: Final = {b"*": "array", b"~": "set", b">": "push"}
#: RESP type byte -> name of the kind, for replies with a count of key-value pairs.
_PAIR_KINDS: Final = {b"%": "map", b"|": "attribute"}

#: Kinds whose value is a tuple of replies (for maps: keys and values in turn).
AGGREGATES: Final = frozenset({"array", "set", "push", "map", "attribute", "several"})


class Reply(NamedTuple):
    """One reply as it came off the wire.

    ``kind`` is one of simple, error, integer, bulk, null-bulk, array, null-array, null, double, boolean, big-number,
    verbatim, bulk-error, map, set, push, attribute. Three more kinds never come from the wire: ``closed`` (the server
    closed the connection), ``silent`` (no reply within READ_TIMEOUT) and ``several`` (replies read together).
    ``value`` is the text of a line (an int for integers), the bytes of a blob, a tuple of replies for aggregates,
    and None for nulls.
    """

    kind: str
    value: Any = None

    @property
    def elements(self) -> tuple[Reply, ...]:
        """The elements of an aggregate (keys and values in turn for a map); empty for anything else."""
        return tuple(self.value) if self.kind in AGGREGATES else ()

    def render(self, indent: str = "", limit: int = 200) -> str:
        """The reply as readable text, one element a line; long blobs are cut at ``limit`` bytes."""
        if self.kind in AGGREGATES:
            if not self.value:
                return f"{self.kind} (empty)"
            inner = "\n".join(f"{indent}  {element.render(indent + '  ', limit)}" for element in self.value[:100])
            more = f"\n{indent}  … {len(self.value)} in all" if len(self.value) > 100 else ""
            return f"{self.kind}\n{inner}{more}"
        if isinstance(self.value, bytes):
            shown = repr(self.value[:limit])[1:]
            return f"{self.kind} {shown}" + (f" … {len(self.value)} bytes" if len(self.value) > limit else "")
        return self.kind if self.value is None else f"{self.kind} {self.value!r}"


CLOSED: Final = Reply("closed")
SILENT: Final = Reply("silent")


class ProtocolViolation(Exception):
    """The server sent bytes that are not RESP."""


def encode(argv: Sequence[bytes]) -> bytes:
    """One command as a multibulk request."""
    parts = [b"*%d\r\n" % len(argv)]
    for argument in argv:
        parts.append(b"$%d\r\n" % len(argument))
        parts.append(argument)
        parts.append(b"\r\n")
    return b"".join(parts)


class RawClient:
    """One TCP connection to a server. Every method blocks; none waits longer than READ_TIMEOUT for the next byte."""

    def __init__(self, host: str, port: int, protocol: int = 2) -> None:
        """Connect, and switch to RESP3 with HELLO if ``protocol`` is 3.

        Raises ConnectionError when nobody listens, ProtocolViolation when HELLO 3 is refused.
        """
        self._socket = socket.create_connection((host, port), timeout=READ_TIMEOUT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray()
        self._start = 0
        if protocol == 3:
            greeting = self.call(b"HELLO", b"3")
            if greeting.kind != "map":
                self.close()
                raise ProtocolViolation(f"HELLO 3 answered with {greeting.render()}")

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; closing twice is fine."""
        self._socket.close()

    @property
    def address(self) -> str:
        """Our end of the connection as ``host:port``, as CLIENT LIST shows it under addr."""
        host, port = self._socket.getsockname()[:2]
        return f"{host}:{port}"

    @property
    def server_address(self) -> str:
        """The server's end of the connection as ``host:port``, as CLIENT LIST shows it under laddr."""
        host, port = self._socket.getpeername()[:2]
        return f"{host}:{port}"

    def send(self, *argv: bytes) -> None:
        """Send one command and read nothing. A connection the server has closed is not an error here."""
        self.send_raw(encode(argv))

    def send_raw(self, data: bytes) -> None:
        """Send bytes as they are. A connection the server has closed is not an error here: the next read says so."""
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def end_of_input(self) -> None:
        """Tell the server that no more bytes will come (TCP half close); its replies can still be read."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def call(self, *argv: bytes) -> Reply:
        """Send one command and read one reply."""
        self.send(*argv)
        return self.read()

    def pipeline(self, commands: Iterable[Sequence[bytes]]) -> list[Reply]:
        """Send all commands at once, then read one reply for each."""
        encoded = [encode(argv) for argv in commands]
        self.send_raw(b"".join(encoded))
        return [self.read() for _ in encoded]

    def read(self) -> Reply:
        """The next reply (or push); CLOSED at the end of the stream, SILENT when nothing comes in time."""
        if self._start:
            del self._buffer[: self._start]
            self._start = 0
        try:
            return self._parse()
        except TimeoutError:
            self._start = 0
            return SILENT
        except (EOFError, ConnectionResetError):
            if self._buffer:
                rest = bytes(self._buffer)
                raise ProtocolViolation(f"connection closed inside a reply: {rest[:200]!r}") from None
            return CLOSED

    def read_to_end(self) -> list[Reply]:
        """Every reply up to the end of the stream; the last one is CLOSED, or SILENT if the server keeps it open."""
        replies = [self.read()]
        while replies[-1] not in (CLOSED, SILENT):
            replies.append(self.read())
        return replies

    def readable(self, timeout: float = 0.0) -> bool:
        """Whether a read would find bytes or the end of the stream within ``timeout`` seconds."""
        if self._start < len(self._buffer):
            return True
        ready, _, _ = select.select([self._socket], [], [], timeout)
        return bool(ready)

    def _fill(self) -> None:
        data = self._socket.recv(1 << 18)
        if not data:
            raise EOFError
        self._buffer += data

    def _line(self) -> bytes:
        searched = 0
        while True:
            end = self._buffer.find(b"\r\n", self._start + searched)
            if end >= 0:
                line = bytes(self._buffer[self._start : end])
                self._start = end + 2
                return line
            searched = max(0, len(self._buffer) - self._start - 1)
            self._fill()

    def _blob(self, length: int) -> bytes:
        while len(self._buffer) - self._start < length + 2:
            self._fill()
        end = self._start + length
        if self._buffer[end : end + 2] != b"\r\n":
            raise ProtocolViolation(f"blob of {length} bytes does not end in CR LF")
        blob = bytes(self._buffer[self._start : end])
        self._start = end + 2
        return blob

    def _parse(self) -> Reply:
        line = self._line()
        mark, rest = line[:1], line[1:]
        if mark in _LINE_KINDS:
            kind = _LINE_KINDS[mark]
            if kind == "null":
                if rest:
                    raise ProtocolViolation(f"null with text: {line!r}")
                return Reply(kind)
            return Reply(kind, int(rest) if kind == "integer" else rest)
        if mark not in _BLOB_KINDS and mark not in _AGGREGATE_KINDS and mark not in _PAIR_KINDS:
            raise ProtocolViolation(f"not a RESP type: {line[:200]!r}")
        count = int(rest)
        if mark in _BLOB_KINDS:
            return Reply("null-bulk") if count == -1 else Reply(_BLOB_KINDS[mark], self._blob(count))
        if mark in _PAIR_KINDS:
            return Reply(_PAIR_KINDS[mark], tuple(self._parse() for _ in range(2 * count)))
        if count == -1:
            return Reply("null-array")
        return Reply(_AGGREGATE_KINDS[mark], tuple(self._parse() for _ in range(count)))
