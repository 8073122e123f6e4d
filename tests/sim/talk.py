"""A client's connection to a node: requests, and replies as Python values."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import attrs
import trio
from sim.network import Host

__all__ = ["GONE", "Connection", "Refusal", "Word", "encode"]

Word: TypeAlias = bytes | str | int

#: What a connection raises when it is over.
GONE: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


@attrs.frozen
class Refusal:
    """An error that a client was answered with."""

    text: str

    @property
    def code(self) -> str:
        """Its first word."""
        return self.text.partition(" ")[0]


def encode(words: tuple[Word, ...]) -> bytes:
    """A request."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        data = word if isinstance(word, bytes) else str(word).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


class Connection:
    """One connection; raises one of :data:`GONE` when it is over."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._read = b""

    @classmethod
    async def open(cls, host: Host, address: str, port: int) -> Connection:
        """Connect from a host."""
        return cls(await host.connect(address, port))

    async def call(self, *words: Word) -> Any:
        """One command and its reply."""
        await self._stream.send_all(encode(words))
        return await self.reply()

    async def send(self, *commands: tuple[Word, ...]) -> None:
        """Several commands at once, without their replies."""
        await self._stream.send_all(b"".join(encode(words) for words in commands))

    async def send_part(self, data: bytes) -> None:
        """Bytes that may end in the midst of a command."""
        await self._stream.send_all(data)

    async def reply(self) -> Any:
        """The next reply, as RESP2 has it."""
        line = await self._line()
        kind, rest = line[:1], line[1:]
        match kind:
            case b"+":
                return rest.decode()
            case b"-":
                return Refusal(rest.decode())
            case b":":
                return int(rest)
            case b"$":
                return None if rest == b"-1" else (await self._exactly(int(rest) + 2))[:-2]
            case b"*":
                return None if rest == b"-1" else [await self.reply() for _ in range(int(rest))]
        raise AssertionError(f"no RESP2 reply: {line!r}")

    async def aclose(self) -> None:
        """Close it."""
        await self._stream.aclose()

    async def _line(self) -> bytes:
        while b"\r\n" not in self._read:
            await self._fill()
        line, _, self._read = self._read.partition(b"\r\n")
        return line

    async def _exactly(self, size: int) -> bytes:
        while len(self._read) < size:
            await self._fill()
        data, self._read = self._read[:size], self._read[size:]
        return data

    async def _fill(self) -> None:
        data = await self._stream.receive_some()
        if not data:
            raise trio.BrokenResourceError("closed by the node")
        self._read += data
