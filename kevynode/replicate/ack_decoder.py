"""Sans-I/O decoding of what a replica sends behind its handshake, on the primary's side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

from .lineage import MAX_OFFSET
from .parsing import CommandReader, Malformed, unsigned
from .stream_events import WireError

__all__ = ["ACK_LINE_LIMIT", "SCOPES_LIMIT", "AckDecoder", "ReplicaMessage", "parse_scopes"]

#: Longest line a replica may send, in bytes without its line end.
ACK_LINE_LIMIT: Final = 64 * 1024
#: Longest request in bytes that narrows a link to prefixes.
SCOPES_LIMIT: Final = 1024 * 1024

ReplicaMessage: TypeAlias = (
    tuple[Literal["ack"], int]
    | tuple[Literal["resync", "resynced"], bytes]
    | tuple[Literal["scopes"], tuple[bytes, ...]]
)


def parse_scopes(words: Sequence[bytes]) -> tuple[bytes, ...] | None:
    """The prefixes of a ``REPLCONF SCOPES <n> <prefix>...`` request; None if it is anything else."""
    if len(words) < 3 or words[0].upper() != b"REPLCONF" or words[1].upper() != b"SCOPES":
        return None
    if unsigned(words[2], len(words)) != len(words) - 3:
        return None
    return tuple(words[3:])


class AckDecoder:
    """Bytes in, messages out: ``("ack", offset)``, ``("scopes", prefixes)``, and ``("resync", prefix)`` with
    ``("resynced", prefix)``.

    An acknowledgement counts in its inline form only, prefixes in their multibulk form only; as in the kevy server
    every other line is ignored, be it a command or none. After a line or request beyond its limit ``error`` holds that,
    and later bytes are ignored; the messages before it still count.
    """

    __slots__ = ("_pending", "_place", "_reader", "_searched", "error")

    def __init__(self) -> None:
        self.error: WireError | None = None
        # Bytes from the start of the line or request under way on; how far a request has been parsed, and a line been
        # searched for its end.
        self._pending = bytearray()
        self._place = 0
        self._searched = 0
        self._reader = CommandReader(SCOPES_LIMIT, SCOPES_LIMIT)

    def feed(self, data: bytes) -> list[ReplicaMessage]:
        """The messages that ``data`` completes, in order. Never raises: see ``error``."""
        messages: list[ReplicaMessage] = []
        if self.error is not None:
            return messages
        pending = self._pending
        pending += data
        start = 0
        try:
            while start < len(pending):
                end = self._request(start, messages) if pending[start] == 0x2A else self._line(start, messages)
                if end < 0:
                    break
                start = end
        except WireError as error:
            self.error = error
            start = len(pending)
        del pending[:start]
        self._place = max(self._place - start, 0)
        return messages

    def _line(self, start: int, messages: list[ReplicaMessage]) -> int:
        """Take the line at ``start``; the place behind it, or -1 while it has not ended."""
        pending = self._pending
        end = pending.find(b"\n", start + self._searched)
        if (len(pending) if end < 0 else end) - start > ACK_LINE_LIMIT:
            raise WireError("line too long", pending[start : start + 128])
        if end < 0:
            self._searched = len(pending) - start
            return -1
        self._searched = 0
        message = _inline_message(bytes(pending[start:end]))
        if message is not None:
            messages.append(message)
        return end + 1

    def _request(self, start: int, messages: list[ReplicaMessage]) -> int:
        """Take the multibulk request at ``start``; the place behind it, or -1 while it is not complete."""
        pending = self._pending
        try:
            # A place left behind by an earlier request lies before the start.
            place, words = self._reader.read(pending, max(self._place, start))
        except Malformed as error:
            return error.place
        if (len(pending) if words is None else place) - start > SCOPES_LIMIT:
            raise WireError("request too long", pending[start : start + 128])
        if words is None:
            self._place = place
            return -1
        prefixes = parse_scopes(words)
        if prefixes is not None:
            messages.append(("scopes", prefixes))
        return place


def _inline_message(line: bytes) -> ReplicaMessage | None:
    words = line.split()
    if not 2 <= len(words) <= 3 or words[0].upper() != b"REPLCONF":
        return None
    verb, argument = words[1].upper(), words[2] if len(words) == 3 else b""
    if verb == b"ACK":
        offset = unsigned(argument, MAX_OFFSET)
        return None if offset is None else ("ack", offset)
    if verb in (b"RESYNC", b"RESYNCED"):
        try:
            prefix = bytes.fromhex(argument.decode("ascii"))
            return ("resync" if verb == b"RESYNC" else "resynced"), prefix
        except ValueError:
            return None
    return None
