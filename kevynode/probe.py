"""Ask a node, or send it much, over a plain blocking socket: what the command line's short-lived commands need.

It speaks RESP2 and imports nothing but the standard library, so ``kevynode status`` starts fast.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Any, Final, Self

from kevynode.config_values import join_address, split_address

__all__ = ["PASSWORD", "ErrorReply", "Probe", "ProbeError", "connect", "parse_address", "parse_info"]

#: The environment variable with the password, as for redis-cli: there it stands in no list of processes.
PASSWORD: Final = "REDISCLI_AUTH"

# A status reply has some kilobytes; a peer that announces more is no node.
BULK_LIMIT = 16 << 20
ARRAY_LIMIT = 1 << 16
DEPTH_LIMIT = 8
LINE_LIMIT = 64 << 10


class ProbeError(Exception):
    """The node could not be reached, or what answered does not speak RESP. The text says which."""


class ErrorReply(Exception):
    """The node answered with an error; the text is the line without its ``-``."""


class Probe:
    """One connection. Every call blocks for at most ``timeout`` seconds between two pieces of a reply."""

    def __init__(self, host: str, port: int, *, timeout: float = 5.0, password: bytes = b"") -> None:
        """Connect, and log in if there is a password; raises :class:`ProbeError`.

        A node that wants no password is told none, as by redis-cli.
        """
        self.address = join_address(host, port)
        try:
            self._socket = socket.create_connection((host, port), timeout)
        except OSError as error:
            raise ProbeError(f"cannot connect to {self.address}: {_reason(error)}") from None
        self._file = self._socket.makefile("rb")
        if password:
            self._log_in(password)

    def _log_in(self, password: bytes) -> None:
        try:
            self.call(b"AUTH", password)
        except ErrorReply as error:
            # The other errors say that there is no password to be given.
            if str(error).startswith("WRONGPASS"):
                self.close()
                raise ProbeError(f"{self.address} refuses the password in {PASSWORD}: {error}") from None
        except ProbeError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; a second call does nothing."""
        self._file.close()
        self._socket.close()

    def call(self, *words: bytes) -> Any:
        """Send a command and return its reply: str, int, bytes, None or a list of these.

        Raises :class:`ErrorReply` or :class:`ProbeError`; after the latter the connection is of no more use.
        """
        request = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
        self.send(request)
        return self.reply()

    def send(self, data: bytes) -> None:
        """Send whole commands, whose replies are to be fetched with :meth:`reply`. Raises :class:`ProbeError`.

        Replies that nobody fetches fill what lies between the two sides, and then both wait for the other.
        """
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise ProbeError(f"{self.address} takes nothing more: {_reason(error)}") from None

    def reply(self) -> Any:
        """The next reply; as :meth:`call`."""
        try:
            return self._reply(0)
        except OSError as error:
            raise ProbeError(f"{self.address} does not answer: {_reason(error)}") from None

    def _reply(self, depth: int) -> Any:
        line = self._file.readline(LINE_LIMIT)
        if not line:
            raise ProbeError(f"{self.address} closed the connection")
        if not line.endswith(b"\r\n"):
            raise self._not_resp()
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode("utf-8", "replace")
        if kind == b"-":
            raise ErrorReply(rest.decode("utf-8", "replace"))
        if kind not in b":$*" or not rest.removeprefix(b"-").isdigit() or len(rest) > 20:
            raise self._not_resp()
        number = int(rest)
        if kind == b":":
            return number
        if number == -1:
            return None
        return self._bulk(number) if kind == b"$" else self._array(number, depth)

    def _bulk(self, size: int) -> bytes:
        if not 0 <= size <= BULK_LIMIT:
            raise self._not_resp()
        data = self._file.read(size + 2)
        if len(data) < size + 2:
            raise ProbeError(f"{self.address} closed the connection")
        return data[:-2]

    def _array(self, size: int, depth: int) -> list[Any]:
        if not 0 <= size <= ARRAY_LIMIT or depth >= DEPTH_LIMIT:
            raise self._not_resp()
        return [self._reply(depth + 1) for _ in range(size)]

    def _not_resp(self) -> ProbeError:
        return ProbeError(f"{self.address} does not speak the Redis protocol")


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of an address that somebody has typed. Raises :class:`ProbeError`."""
    try:
        return split_address(text)
    except ValueError:
        raise ProbeError(f'{text}: no address (accepted: "host:port", "[ipv6]:port")') from None


def connect(address: str, *, timeout: float = 5.0) -> Probe:
    """Connect to ``host:port``, with the password of the environment if there is one. Raises :class:`ProbeError`."""
    host, port = parse_address(address)
    return Probe(host, port, timeout=timeout, password=os.environb.get(PASSWORD.encode(), b""))


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    return error.strerror or str(error)


def parse_info(text: str) -> dict[str, dict[str, str]]:
    """The sections of an INFO reply, each a dictionary of its fields.

    >>> parse_info("# Server\\r\\nrole:primary\\r\\n")
    {'server': {'role': 'primary'}}
    """
    sections: dict[str, dict[str, str]] = {}
    fields = sections.setdefault("", {})
    for line in text.splitlines():
        if line.startswith("#"):
            fields = sections.setdefault(line[1:].strip().lower(), {})
        elif ":" in line:
            name, _, value = line.partition(":")
            fields[name] = value
    return {name: fields for name, fields in sections.items() if fields}


def command_words(words: Sequence[str]) -> list[bytes]:
    """Arguments of the process as bytes, as the shell passed them."""
    return [word.encode("utf-8", "surrogateescape") for word in words]
