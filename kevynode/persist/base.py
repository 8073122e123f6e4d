"""What a base holds: frozen data as the commands that build it again, a piece at a time.

The commands are those of :mod:`kevynode.store.rebuild`, each made when its turn comes, so that a piece takes the same
time whatever the size of a value.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from ..store.keyspace import KeyShard
from ..store.rebuild import rebuilding
from .records import encode_commands

__all__ = ["Piece", "encode_base"]

#: A piece is handed over when it has about so many bytes, and commands of strings, or elements.
_PIECE: Final = 48 * 1024
_KEYS: Final = 1000
#: A word above this many bytes is written by itself.
_LONG: Final = 16 * 1024


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
        else:
            yield from rebuilding(key, value, deadline)


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
