"""Streams of replication for tests: taken apart however they are cut, and put together again."""

from __future__ import annotations

from kevynode.replicate import wire
from kevynode.replicate.wire import (
    ACK_REQUEST,
    SNAPSHOT_BEGIN,
    Acknowledged,
    AckRequested,
    Chunk,
    Event,
    Frames,
    Ping,
    ScopeSnapshotBegin,
    Skip,
    SnapshotBegin,
    SnapshotEnd,
    StreamDecoder,
)

SET_K: list[bytes] = [b"SET", b"k", b"v"]
SET_N: list[bytes] = [b"SET", b"n", b"12"]
SET_B: list[bytes] = [b"SET", b"b", b"\x00\x01\xff\r\n\x80"]
HSET_H: list[bytes] = [b"HSET", b"h", b"f", b"1", b"g", b"2"]
FRAME = wire.frame(7, SET_K)


def decode(data: bytes, step: int = 0, **limits: int) -> tuple[list[Event], str | None]:
    """The events in ``data`` and the reason of the error behind them; fed in pieces of ``step`` bytes, or whole.

    Frames that only the cut has separated are put together again.
    """
    decoder = StreamDecoder(**limits)
    events: list[Event] = []
    step = step or max(len(data), 1)
    for place in range(0, len(data), step):
        for event in decoder.feed(data[place : place + step]):
            last = events[-1] if events else None
            if (
                isinstance(event, Frames)
                and isinstance(last, Frames)
                and not (event.grouped or last.grouped)
                and last.next == event.first
            ):
                last.commands = [*last.commands, *event.commands]
                last.raw += event.raw
                last.next = event.next
            else:
                events.append(event)
    return events, decoder.error.reason if decoder.error else None


def frames(first: int, *commands: list[bytes], grouped: bool = False) -> Frames:
    return Frames(first, list(commands), wire.encode_frames(first, commands), grouped, first + len(commands))


def encode(event: Event) -> bytes:
    """The bytes that an event came from."""
    match event:
        case Frames(raw=raw, commands=commands, grouped=grouped):
            return wire.group(len(commands)) + raw if grouped else raw
        case Skip(offset):
            return wire.skip(offset)
        case AckRequested():
            return ACK_REQUEST
        case Ping(history, offset):
            return wire.ping(history, offset)
        case SnapshotBegin():
            return SNAPSHOT_BEGIN
        case ScopeSnapshotBegin(epoch, prefix):
            return wire.snapshot_scope(epoch, prefix)
        case Chunk(data):
            return wire.chunk(data)
        case SnapshotEnd(offset):
            return wire.snapshot_end(offset)
        case Acknowledged(None, offset):
            return b"+ACK %d\r\n" % offset
        case Acknowledged(history, offset):
            return b"+ACK %d %d\r\n" % (history or 0, offset)
    raise AssertionError(event)
