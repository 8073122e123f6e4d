"""Writes snapshots: frozen shards as bytes in the form of ``snapshot_format``, a piece at a time."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import chain
from typing import Final, assert_never

from ..store.keyspace import KeyShard
from ..store.stream_values import Group, Stream
from ..store.values import Hash, List, Set, SortedSet, Value
from ..twins import COMPILED
from .snapshot_format import (
    CURSOR,
    DEADLINE_HEAD,
    DEADLINE_STRING_HEAD,
    END,
    ENTRY,
    F64,
    FIELD_DEADLINE,
    HASH,
    LIST,
    MAGIC,
    PENDING,
    PLAIN_HEAD,
    SET,
    SORTED_SET,
    STREAM,
    STREAM_HEAD,
    STRING,
    U32,
    U64,
    WRITABLE,
)

if COMPILED:
    from ..compiled.snapshot import ShardWriter

__all__ = ["encode_snapshot"]

#: A piece is handed over when it has this many bytes; none has more than 64 KiB.
_PIECE: Final = 32 * 1024
#: A text above this many bytes is cut into several pieces; runs of short ones are joined up to it.
_RUN: Final = 16 * 1024
#: So is one that so many parts have been joined into, each of which took some time: records may be very small.
_PARTS: Final = 256
#: With a filter, keys looked at between two pieces at most: a piece may be empty then.
_LOOKED_AT: Final = 4096

# Heads and lengths of shorter texts are ready made.
_SHORT: Final = 1024
_LENGTHS: Final = tuple(U32.pack(length) for length in range(_SHORT))
_STRING_HEADS: Final = tuple(PLAIN_HEAD.pack(STRING, 0, length) for length in range(_SHORT))
# The number has 32 bits there; clients may set a higher one.
_MOST_DELIVERIES: Final = 2**32 - 1


def encode_snapshot(
    shards: list[KeyShard],
    *,
    version: int = 4,
    cursor: tuple[int, int] = (0, 0),
    accept: Callable[[bytes], bool] | None = None,
) -> Iterator[bytes]:
    """A snapshot of frozen ``shards`` (``Store.freeze``), in pieces of at most 64 KiB, mostly of 32 KiB.

    ``shards`` is consumed: each shard is taken off the list when its turn comes, so that what only the snapshot holds
    is freed on the way. ``version`` is 4; 5, with ``cursor``, the (history, offset) that the data stands for; or 6,
    with the cursor and the deadlines of hash fields, which 4 and 5 leave out. ``accept`` chooses keys. A piece may be
    empty, which only says that time has passed. A step takes a millisecond or two at most, whatever the size of
    keys and values. Raises ValueError for another version.
    """
    if version not in WRITABLE:
        raise ValueError(f"snapshots are written in version 4, 5 or 6, not {version}")
    head = MAGIC + bytes((version,))
    if version >= 5:
        head += CURSOR.pack(*cursor)
    return _join(chain((head,), _records(shards, version >= 6, accept), (bytes((END,)),)))


def _join(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in fewer pieces. An empty piece hands over what there is, if only to let time pass."""
    parts: list[bytes] = []
    size = 0
    for piece in pieces:
        if size + len(piece) > 2 * _PIECE:
            yield b"".join(parts)
            parts, size = [], 0
        parts.append(piece)
        size += len(piece)
        if size >= _PIECE or len(parts) >= _PARTS or not piece:
            yield b"".join(parts)
            parts, size = [], 0
    if parts:
        yield b"".join(parts)


def _records(
    shards: list[KeyShard], with_field_deadlines: bool, accept: Callable[[bytes], bool] | None
) -> Iterator[bytes]:
    """All records, in pieces of little more than 32 KiB at most; with a filter, now and then an empty one."""
    hashes: list[tuple[bytes, dict[bytes, int]]] = []
    looked_at = 0
    while shards:
        shard = shards.pop()
        # What asks about every key takes its time anyway.
        if COMPILED and accept is None:
            has_containers = yield from _written_pieces(shard)
        else:
            yield from _shard_pieces(shard, accept)
            has_containers = True
        if with_field_deadlines and has_containers:
            for key, value in shard.items():
                if type(value) is Hash and value.deadlines is not None and (accept is None or accept(key)):
                    hashes.append((key, value.deadlines))
        if accept is not None:
            looked_at += len(shard)
            if looked_at >= _LOOKED_AT:
                looked_at = 0
                yield b""
    for key, deadlines in hashes:
        yield from _field_deadline_pieces(key, deadlines)


def _shard_pieces(shard: KeyShard, accept: Callable[[bytes], bool] | None) -> Iterator[bytes]:
    deadlines = shard.deadlines
    parts: list[bytes] = []
    size = 0
    for key, value in shard.items():
        if accept is not None and not accept(key):
            continue
        deadline = deadlines.get(key) if deadlines else None
        key_size = len(key)
        if type(value) is bytes and key_size < _SHORT and len(value) <= _RUN:
            # A string of moderate length, the most frequent record by far.
            length = len(value)
            parts += (
                _STRING_HEADS[key_size]
                if deadline is None
                else DEADLINE_STRING_HEAD.pack(STRING, 1, max(deadline, 0), key_size),
                key,
                _LENGTHS[length] if length < _SHORT else U32.pack(length),
                value,
            )
            size += length + key_size + 10
            if size >= _RUN:
                yield b"".join(parts)
                parts, size = [], 0
        else:
            if parts:
                yield b"".join(parts)
                parts, size = [], 0
            yield from _record_pieces(key, value, deadline)
    if parts:
        yield b"".join(parts)


def _written_pieces(shard: KeyShard) -> Generator[bytes, None, bool]:
    """What :func:`_shard_pieces` yields without a filter, cut elsewhere; whether there was more than strings."""
    writer = ShardWriter(shard)
    while True:
        records = writer.records(_PIECE)
        if records:
            yield records
        if writer.is_crowded:
            yield b""
        elif len(records) < _PIECE:
            item = writer.step()
            if item is None:
                return writer.has_containers
            key, value = item
            yield from _record_pieces(key, value, shard.deadlines.get(key))


def _record_pieces(key: bytes, value: Value, deadline: int | None) -> Iterator[bytes]:
    """The record of one key, whatever its type and size."""

    def head(op: int) -> bytes:
        return bytes((op, 0)) if deadline is None else DEADLINE_HEAD.pack(op, 1, max(deadline, 0))

    match value:
        case bytes():
            yield from _text_pieces(head(STRING), (key, value))
        case Hash():
            yield from _text_pieces(head(HASH), (key,))
            yield from _text_pieces(U32.pack(len(value)), chain.from_iterable(value.fields.items()))
        case List():
            yield from _text_pieces(head(LIST), (key,))
            yield from _text_pieces(U32.pack(len(value)), value.elements)
        case Set():
            yield from _text_pieces(head(SET), (key,))
            yield from _text_pieces(U32.pack(len(value)), value)
        case SortedSet():
            yield from _text_pieces(head(SORTED_SET), (key,))
            yield from _scored_pieces(U32.pack(len(value)), value.order)
        case Stream():
            yield from _text_pieces(head(STREAM), (key,))
            yield from _stream_pieces(value)
        case _:
            assert_never(value)


def _text_pieces(head: bytes, texts: Iterable[bytes]) -> Iterator[bytes]:
    """``head`` and each of ``texts`` with its length."""
    parts = [head]
    size = len(head)
    for text in texts:
        length = len(text)
        if length > _RUN:
            parts.append(U32.pack(length))
            yield b"".join(parts)
            for start in range(0, length, _RUN):
                yield text[start : start + _RUN]
            parts, size = [], 0
        else:
            parts += (_LENGTHS[length] if length < _SHORT else U32.pack(length), text)
            size += length + 4
            if size >= _RUN:
                yield b"".join(parts)
                parts, size = [], 0
    if parts:
        yield b"".join(parts)


def _scored_pieces(head: bytes, entries: Iterable[tuple[float, bytes]]) -> Iterator[bytes]:
    """``head`` and each member with its length and score."""
    parts = [head]
    size = len(head)
    pack = F64.pack
    for score, member in entries:
        length = len(member)
        if length > _RUN:
            yield b"".join(parts)
            yield from _text_pieces(b"", (member,))
            parts, size = [pack(score)], 8
        else:
            parts += (_LENGTHS[length] if length < _SHORT else U32.pack(length), member, pack(score))
            size += length + 12
            if size >= _RUN:
                yield b"".join(parts)
                parts, size = [], 0
    if parts:
        yield b"".join(parts)


def _stream_pieces(stream: Stream) -> Iterator[bytes]:
    yield STREAM_HEAD.pack(*stream.last_id, *stream.max_deleted_id, stream.entries_added, len(stream))
    for entry_id, fields in stream:
        yield from _text_pieces(ENTRY.pack(*entry_id, len(fields) >> 1), fields)
    yield U32.pack(len(stream.groups))
    for name, group in stream.groups.items():
        yield from _text_pieces(b"", (name,))
        yield from _group_pieces(group)


def _group_pieces(group: Group) -> Iterator[bytes]:
    yield CURSOR.pack(*group.last_delivered) + U32.pack(len(group.consumers))
    for consumer, seen in group.consumers.items():
        yield from _text_pieces(b"", (consumer,))
        yield U64.pack(max(seen, 0))
    yield U32.pack(len(group.pending))
    for entry_id, (consumer, delivered, deliveries) in group.pending.items():
        yield from _text_pieces(CURSOR.pack(*entry_id), (consumer,))
        yield PENDING.pack(max(delivered, 0), min(max(deliveries, 0), _MOST_DELIVERIES))


def _field_deadline_pieces(key: bytes, deadlines: dict[bytes, int]) -> Iterator[bytes]:
    head = bytes((FIELD_DEADLINE,))
    for field, deadline in deadlines.items():
        yield from _text_pieces(head, (key, field))
        yield U64.pack(max(deadline, 0))
