"""Gives data away as the commands that build it again, for ``redis-cli --pipe`` and for append-only files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from ..reply import BULK_HEADERS
from ..store.keyspace import KeyShard
from ..store.rebuild import rebuild_commands

__all__ = ["export_commands"]

#: A piece is handed over when it has this many bytes.
_PIECE: Final = 32 * 1024
#: Keys that are looked at between two pieces, at most.
_LOOKED_AT: Final = 1024


def export_commands(
    shards: Iterable[KeyShard], *, prefix: bytes = b"", now_ms: int = 0, replace: bool = False
) -> Iterator[bytes]:
    """The keys of frozen ``shards`` (``Store.freeze``) as a stream of commands, in pieces of about 32 KiB.

    Only keys that begin with ``prefix``; none whose deadline is before ``now_ms`` (unix ms). The commands expect that
    the keys are not there; with ``replace`` each is deleted first. A piece may be empty where few keys are wanted; a
    large value makes several, or a larger one. Nothing here blocks.
    """
    out: list[bytes] = []
    size = looked_at = 0
    for shard in shards:
        deadlines = shard.deadlines
        for key, value in shard.items():
            looked_at += 1
            deadline = deadlines.get(key)
            if key.startswith(prefix) and (deadline is None or deadline >= now_ms):
                if replace:
                    out.append(_encoded((b"DEL", key)))
                for command in rebuild_commands(key, value, deadline):
                    encoded = _encoded(command)
                    out.append(encoded)
                    size += len(encoded)
                    if size >= _PIECE:
                        yield b"".join(out)
                        out = []
                        size = looked_at = 0
            if looked_at >= _LOOKED_AT:
                yield b"".join(out)
                out = []
                size = looked_at = 0
    if out:
        yield b"".join(out)


def _encoded(command: Sequence[bytes]) -> bytes:
    parts = [b"*%d\r\n" % len(command)]
    for word in command:
        size = len(word)
        parts += (BULK_HEADERS[size] if size < len(BULK_HEADERS) else b"$%d\r\n" % size, word, b"\r\n")
    return b"".join(parts)
