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

__all__ = ["CHUNK", "deep_copy", "rebuild_commands"]

#: Elements (pairs of field and value, pairs of score and member count once) of one command, at most.
CHUNK = 1000

T = TypeVar("T")


def rebuild_commands(key: bytes, value: Value, deadline: int | None = None) -> list[list[bytes]]:
    """The canonical commands that make ``key`` hold ``value`` where there was nothing before.

    ``deadline`` is the key's, in unix milliseconds, or None. Large containers come as several commands of at most
    :data:`CHUNK` elements; deadlines of fields and the key's own come last. An empty container gives no command, but an
    empty stream does. When the consumers of a stream were last seen is not told.
    """
    match value:
        case bytes():
            commands = [[b"SET", key, value]]
        case Hash():
            commands = [
                [b"HSET", key, *(word for pair in chunk for word in pair)] for chunk in _chunks(value.fields.items())
            ]
            commands += _field_deadlines(key, value)
        case List():
            commands = [[b"RPUSH", key, *chunk] for chunk in _chunks(value.elements)]
        case Set():
            commands = [[b"SADD", key, *chunk] for chunk in _chunks(value)]
        case SortedSet():
            commands = [
                [b"ZADD", key, *(word for score, member in chunk for word in (format_double(score), member))]
                for chunk in _chunks(value.order)
            ]
        case Stream():
            commands = _stream(key, value)
        case _:
            assert_never(value)
    if deadline is not None and commands:
        commands.append([b"PEXPIREAT", key, b"%d" % deadline])
    return commands


def deep_copy(value: Value, epoch: int) -> Value:
    """The same content as a value that nothing else holds; ``epoch`` is the store's. A string is its own copy."""
    return value if isinstance(value, bytes) else value.copy_at(epoch)


def _field_deadlines(key: bytes, value: Hash) -> list[list[bytes]]:
    by_deadline: dict[int, list[bytes]] = {}
    for field, deadline in (value.deadlines or {}).items():
        by_deadline.setdefault(deadline, []).append(field)
    return [
        [b"HPEXPIREAT", key, b"%d" % deadline, b"FIELDS", b"%d" % len(chunk), *chunk]
        for deadline, fields in by_deadline.items()
        for chunk in _chunks(fields)
    ]


def _stream(key: bytes, value: Stream) -> list[list[bytes]]:
    commands = [[b"XADD", key, format_id(entry_id), *fields] for entry_id, fields in value]
    if not commands:
        # Any entry makes the stream; XSETID below lets its id be forgotten.
        made = value.last_id if value.last_id != ZERO else (0, 1)
        commands = [[b"XADD", key, format_id(made), b"", b""], [b"XTRIM", key, b"MAXLEN", b"0"]]
    added, deleted = b"%d" % value.entries_added, format_id(value.max_deleted_id)
    commands.append([b"XSETID", key, format_id(value.last_id), b"ENTRIESADDED", added, b"MAXDELETEDID", deleted])
    for name, group in value.groups.items():
        commands.append([b"XGROUP", b"CREATE", key, name, format_id(group.last_delivered), b"MKSTREAM"])
        commands += ([b"XGROUP", b"CREATECONSUMER", key, name, consumer] for consumer in group.consumers)
        for entry_id, (consumer, delivered, count) in sorted(group.pending.items()):
            told = [b"TIME", b"%d" % delivered, b"RETRYCOUNT", b"%d" % count, b"FORCE", b"JUSTID"]
            commands.append([b"XCLAIM", key, name, consumer, b"0", format_id(entry_id), *told])
    return commands


def _chunks(elements: Iterable[T]) -> Iterator[list[T]]:
    source = iter(elements)
    while chunk := list(islice(source, CHUNK)):
        yield chunk
