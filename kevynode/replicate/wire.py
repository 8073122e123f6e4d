"""The wire of a replication stream, both directions: the encoders are here, the decoders next door.

A stream is a sequence of **frames**, ``*2``, the offset as an integer, and the command as a multibulk, between which
control lines may stand. Concatenation is the whole protocol: frames encoded one by one or together are the same bytes.
Lines beyond those of the kevy server (groups, skips, scope snapshots, requests for acknowledgement) go only to peers
that asked for them in their handshake.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from ..reply import BULK_HEADERS
from .ack_decoder import AckDecoder, ReplicaMessage
from .stream_decoder import StreamDecoder
from .stream_events import (
    CHUNK_LIMIT,
    EXTENSION_LINE_LIMIT,
    Accepted,
    Acknowledged,
    AckRequested,
    Ancestors,
    Chunk,
    ErrorLine,
    Event,
    Frames,
    Ping,
    ScopeSnapshotBegin,
    Skip,
    SnapshotBegin,
    SnapshotEnd,
    WireError,
)

__all__ = [
    "ACK_REQUEST",
    "SNAPSHOT_BEGIN",
    "Accepted",
    "AckDecoder",
    "AckRequested",
    "Acknowledged",
    "Ancestors",
    "Chunk",
    "ErrorLine",
    "Event",
    "Frames",
    "Ping",
    "ReplicaMessage",
    "ScopeSnapshotBegin",
    "Skip",
    "SnapshotBegin",
    "SnapshotEnd",
    "StreamDecoder",
    "WireError",
    "ack",
    "chunk",
    "chunks",
    "encode_frames",
    "frame",
    "group",
    "ping",
    "resync",
    "resynced",
    "skip",
    "snapshot_end",
    "snapshot_scope",
]

#: Begins a snapshot; chunks and :func:`snapshot_end` follow.
SNAPSHOT_BEGIN: Final = b"+SNAPSHOT\r\n"
#: Asks the replica for its position at once.
ACK_REQUEST: Final = b"+ACKREQ\r\n"


def frame(offset: int, command: Sequence[bytes]) -> bytes:
    """One frame. ``command`` has at least one word."""
    headers = BULK_HEADERS
    try:
        if len(command) == 3:
            name, key, value = command
            return b"*2\r\n:%d\r\n*3\r\n%b%b\r\n%b%b\r\n%b%b\r\n" % (
                offset,
                headers[len(name)],
                name,
                headers[len(key)],
                key,
                headers[len(value)],
                value,
            )
        if len(command) == 2:
            name, key = command
            return b"*2\r\n:%d\r\n*2\r\n%b%b\r\n%b%b\r\n" % (offset, headers[len(name)], name, headers[len(key)], key)
    except IndexError:
        # An argument longer than the table of headers.
        pass
    return _long_frame(offset, command)


def encode_frames(first: int, commands: Iterable[Sequence[bytes]]) -> bytes:
    """The frames of ``commands``, each with at least one word, at consecutive offsets from ``first`` on."""
    return b"".join(map(frame, itertools.count(first), commands))


def _long_frame(offset: int, command: Sequence[bytes]) -> bytes:
    parts = [b"*2\r\n:%d\r\n*%d\r\n" % (offset, len(command))]
    for word in command:
        parts += (b"$%d\r\n" % len(word), word, b"\r\n")
    return b"".join(parts)


def group(count: int) -> bytes:
    """Announces that the next ``count`` frames belong together, for peers that know groups."""
    return b"+TXN %d\r\n" % count


def skip(next_offset: int) -> bytes:
    """Announces on a filtered link that nothing before ``next_offset`` is missing."""
    return b"+SKIP %d\r\n" % next_offset


def ping(history: int, next_offset: int) -> bytes:
    """The heartbeat: the primary's history and the offset its next entry gets. Not for five-argument links."""
    return b"+PING %d %d\r\n" % (history, next_offset)


def snapshot_scope(epoch: int, prefix: bytes) -> bytes:
    """Begins a snapshot of the keys under ``prefix``. Raises ValueError if the prefix is too long for its line."""
    line = b"+SNAPSHOT_SCOPE %d %b\r\n" % (epoch, prefix.hex().encode("ascii"))
    if len(line) - 2 > EXTENSION_LINE_LIMIT:
        raise ValueError(f"a prefix of {len(prefix)} bytes is too long to be shipped by itself")
    return line


def snapshot_end(next_offset: int) -> bytes:
    """Ends a snapshot; the next entry behind it is ``next_offset``."""
    return b"+SNAPSHOT_END %d\r\n" % next_offset


def chunk(data: bytes) -> bytes:
    """One chunk of a snapshot. Raises ValueError above 65536 bytes."""
    if len(data) > CHUNK_LIMIT:
        raise ValueError(f"a chunk has at most {CHUNK_LIMIT} bytes, not {len(data)}")
    return b"$%d\r\n%b\r\n" % (len(data), data)


def chunks(data: bytes) -> Iterator[bytes]:
    """``data`` of any length as chunks; none for no data."""
    for place in range(0, len(data), CHUNK_LIMIT):
        yield chunk(data[place : place + CHUNK_LIMIT])


def ack(offset: int) -> bytes:
    """From the replica: the offset it expects next, having applied all before it."""
    return b"REPLCONF ACK %d\r\n" % offset


def resync(prefix: bytes) -> bytes:
    """From the replica: asks for a snapshot of the keys under ``prefix``."""
    return b"REPLCONF RESYNC %b\r\n" % prefix.hex().encode("ascii")


def resynced(prefix: bytes) -> bytes:
    """From the replica: a snapshot of the keys under ``prefix`` that it had asked for is in place."""
    return b"REPLCONF RESYNCED %b\r\n" % prefix.hex().encode("ascii")
