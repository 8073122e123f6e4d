"""A value as the canonical commands that build it again, and as a copy of its own.

What no single canonical effect can say (RENAME, COPY, the *STORE commands, LINSERT) is told as a deletion and these
commands; so is a value in a snapshot or in an append-only file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar, assert_never

from ..reply import format_double
from .stream_values import ZERO, Stream, format_id
from .values import Hash, List, Set, SortedSet, Value

__all__ = ["CHUNK", "deep_copy", "rebuild_commands", "rebuilding"]

#: Elements (pairs of field and value, pairs of score and member count once) of one command, at most.
CHUNK = 1000

T = TypeVar("T")


def rebuild_commands(key: bytes, value: Value, deadline: int | None = None) -> list[list[bytes]]:
    """The canonical commands that make ``key`` hold ``value`` where there was nothing before.

    ``deadline`` is the key's, in unix milliseconds, or None. Large containers come as several commands of at most
    :data:`CHUNK` elements, the deadlines of fields behind the fields, and the key's own last. An empty container gives
    no command, but an empty stream does. When the consumers of a stream were last seen is not told.
    """
    return list(rebuilding(key, value, deadline))


def rebuilding(key: bytes, value: Value, deadline: int | None = None) -> Iterator[list[bytes]]:
    """The commands of :func:`rebuild_commands` one by one, each made when it is asked for.

    So none takes long, whatever the size of a value, which must not change meanwhile.
    """
    match value:
        case bytes():
            commands: Iterable[list[bytes]] = ([b"SET", key, value],)
        case Hash():
            commands = _hash(key, value)
        case List():
            commands = ([b"RPUSH", key, *chunk] for chunk in _chunks(value.elements))
        case Set():
            commands = ([b"SADD", key, *chunk] for chunk in _chunks(value))
        case SortedSet():
            commands = (
                [b"ZADD", key, *(word for score, member in chunk for word in (format_double(score), member))]
                for chunk in _chunks(value.order)
            )
        case Stream():
            commands = _stream(key, value)
        case _:
            assert_never(value)
    is_there = False
    for command in commands:
        is_there = True
        yield command
    if deadline is not None and is_there:
        yield [b"PEXPIREAT", key, b"%d" % deadline]


def deep_copy(value: Value, epoch: int) -> Value:
    """The same content as a value that nothing else holds; ``epoch`` is the store's. A string is its own copy."""
    return value if isinstance(value, bytes) else value.copy_at(epoch)


def _hash(key: bytes, value: Hash) -> Iterator[list[bytes]]:
    deadlines = value.deadlines
    for pairs in _chunks(value.fields.items()):
        yield [b"HSET", key, *(word for pair in pairs for word in pair)]
        if deadlines:
            yield from _field_deadlines(key, deadlines, [field for field, _ in pairs])


def _field_deadlines(key: bytes, deadlines: dict[bytes, int], fields: list[bytes]) -> Iterator[list[bytes]]:
    by_deadline: dict[int, list[bytes]] = {}
    for field in fields:
        deadline = deadlines.get(field)
        if deadline is not None:
            by_deadline.setdefault(deadline, []).append(field)
    for deadline, some in by_deadline.items():
        yield [b"HPEXPIREAT", key, b"%d" % deadline, b"FIELDS", b"%d" % len(some), *some]


def _stream(key: bytes, value: Stream) -> Iterator[list[bytes]]:
    if len(value):
        for entry_id, fields in value:
            yield [b"XADD", key, format_id(entry_id), *fields]
    else:
        # Any entry makes the stream; XSETID below lets its id be forgotten.
        made = value.last_id if value.last_id != ZERO else (0, 1)
        yield [b"XADD", key, format_id(made), b"", b""]
        yield [b"XTRIM", key, b"MAXLEN", b"0"]
    added, deleted = b"%d" % value.entries_added, format_id(value.max_deleted_id)
    yield [b"XSETID", key, format_id(value.last_id), b"ENTRIESADDED", added, b"MAXDELETEDID", deleted]
    for name, group in value.groups.items():
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
