"""What a base holds: frozen data as the commands that build it again, a piece at a time.

The commands are those of :mod:`kevynode.store.rebuild`; containers larger than one command are walked through here, so
that a piece takes the same time whatever the size of a value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple, TypeVar

from ..reply import format_double
from ..store.keyspace import KeyShard
from ..store.rebuild import CHUNK, rebuild_commands
from ..store.stream_values import Stream, format_id
from ..store.values import Hash, List, Set, SortedSet, Value
from .records import encode_commands

__all__ = ["Piece", "encode_base"]

#: A piece is handed over when it has about so many bytes, and commands of strings, or elements.
_PIECE: Final = 48 * 1024
_KEYS: Final = 1000
#: A word above this many bytes is written by itself.
_LONG: Final = 16 * 1024

T = TypeVar("T")


class Piece(NamedTuple):
    """Bytes of a base, and how many commands end in them. Without ``is_whole`` the last command goes on in the next."""

    data: bytes
    commands: int
    is_whole: bool = True


def encode_base(shards: list[KeyShard]) -> Iterator[Piece]:
    """The commands that make an empty store hold what ``shards`` (``Store.freeze``) do, a millisecond's work at a time.

    ``shards`` is consumed: each is taken off the list when its turn comes, so that what nobody else holds is freed.
    """
    while shards:
        shard = shards.pop()
        yield from _join(_commands(shard))


def _commands(shard: KeyShard) -> Iterator[Sequence[bytes]]:
    deadlines = shard.deadlines
    for key, value in shard.items():
        deadline = deadlines.get(key) if deadlines else None
        if type(value) is bytes:
            yield (b"SET", key, value)
            if deadline is not None:
                yield (b"PEXPIREAT", key, b"%d" % deadline)
        elif isinstance(value, bytes) or (len(value) <= CHUNK and not _is_deep(value)):
            yield from rebuild_commands(key, value, deadline)
        else:
            yield from _large(key, value)
            if deadline is not None:
                yield (b"PEXPIREAT", key, b"%d" % deadline)


def _is_deep(value: Value) -> bool:
    """Whether a value of few elements holds many other things."""
    return isinstance(value, Stream) and any(
        len(group.pending) > CHUNK or len(group.consumers) > CHUNK for group in value.groups.values()
    )


def _large(key: bytes, value: Value) -> Iterator[Sequence[bytes]]:
    """The commands for a container that holds many things, but for the deadline of its key."""
    match value:
        case Hash():
            for pairs in _chunks(value.fields.items()):
                yield [b"HSET", key, *(word for pair in pairs for word in pair)]
                if value.deadlines:
                    yield from _field_deadlines(key, value.deadlines, [field for field, _ in pairs])
        case List():
            for elements in _chunks(value.elements):
                yield [b"RPUSH", key, *elements]
        case Set():
            for members in _chunks(value):
                yield [b"SADD", key, *members]
        case SortedSet():
            for scored in _chunks(value.order):
                yield [b"ZADD", key, *(word for score, member in scored for word in (format_double(score), member))]
        case Stream():
            yield from _large_stream(key, value)
        case _:
            raise AssertionError("a string is not walked through")


def _field_deadlines(key: bytes, deadlines: dict[bytes, int], fields: list[bytes]) -> Iterator[Sequence[bytes]]:
    by_deadline: dict[int, list[bytes]] = {}
    for field in fields:
        deadline = deadlines.get(field)
        if deadline is not None:
            by_deadline.setdefault(deadline, []).append(field)
    for deadline, some in by_deadline.items():
        yield [b"HPEXPIREAT", key, b"%d" % deadline, b"FIELDS", b"%d" % len(some), *some]


def _large_stream(key: bytes, stream: Stream) -> Iterator[Sequence[bytes]]:
    if not len(stream):
        # The way to make an empty one is known elsewhere; what its groups hold comes below.
        bare = Stream()
        bare.last_id, bare.max_deleted_id = stream.last_id, stream.max_deleted_id
        bare.entries_added = stream.entries_added
        yield from rebuild_commands(key, bare)
    else:
        for entry_id, fields in stream:
            yield [b"XADD", key, format_id(entry_id), *fields]
        added, deleted = b"%d" % stream.entries_added, format_id(stream.max_deleted_id)
        yield [b"XSETID", key, format_id(stream.last_id), b"ENTRIESADDED", added, b"MAXDELETEDID", deleted]
    for name, group in stream.groups.items():
        yield [b"XGROUP", b"CREATE", key, name, format_id(group.last_delivered), b"MKSTREAM"]
        for consumer in group.consumers:
            yield [b"XGROUP", b"CREATECONSUMER", key, name, consumer]
        for entry_id, (consumer, delivered, count) in group.pending.items():
            told = [b"TIME", b"%d" % delivered, b"RETRYCOUNT", b"%d" % count, b"FORCE", b"JUSTID"]
            yield [b"XCLAIM", key, name, consumer, b"0", format_id(entry_id), *told]


def _chunks(elements: Iterable[T]) -> Iterator[list[T]]:
    source = iter(elements)
    while chunk := list(islice(source, CHUNK)):
        yield chunk


def _join(commands: Iterator[Sequence[bytes]]) -> Iterator[Piece]:
    """The records of commands, many short ones in a piece, a long one in many."""
    batch: list[Sequence[bytes]] = []
    size = 0
    for command in commands:
        length = sum(map(len, command))
        if length > _LONG and max(map(len, command)) > _LONG:
            if batch:
                yield Piece(encode_commands(batch), len(batch))
                batch, size = [], 0
            yield from _long(command)
            continue
        batch.append(command)
        size += length
        if size >= _PIECE or len(batch) >= _KEYS:
            yield Piece(encode_commands(batch), len(batch))
            batch, size = [], 0
    if batch:
        yield Piece(encode_commands(batch), len(batch))


def _long(command: Sequence[bytes]) -> Iterator[Piece]:
    """The record of a command with words too long to be joined."""
    parts = [b"*%d\r\n" % len(command)]
    size = 0
    for word in command:
        parts.append(b"$%d\r\n" % len(word))
        for start in range(0, len(word), _PIECE):
            if size >= _PIECE:
                yield Piece(b"".join(parts), 0, is_whole=False)
                parts, size = [], 0
            part = word[start : start + _PIECE]
            parts.append(part)
            size += len(part)
        parts.append(b"\r\n")
    yield Piece(b"".join(parts), 1)
