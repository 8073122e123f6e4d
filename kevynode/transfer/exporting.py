"""Gives data away as the commands that build it again, for ``redis-cli --pipe`` and for append-only files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from ..persist.records import encode_commands
from ..store.keyspace import KeyShard
from ..store.rebuild import rebuild_commands

__all__ = ["ExportPiece", "export_commands", "export_pieces"]

#: A piece is handed over when it has this many bytes.
_PIECE: Final = 32 * 1024
#: Keys that are looked at between two pieces, at most.
_LOOKED_AT: Final = 1024


class ExportPiece(NamedTuple):
    """Whole ``commands`` as ``data``, their bytes. With the last of them ``keys`` keys are complete."""

    data: bytes
    commands: list[list[bytes]]
    keys: int


def export_commands(
    shards: Iterable[KeyShard], *, prefix: bytes = b"", now_ms: int = 0, replace: bool = False
) -> Iterator[bytes]:
    """The keys of frozen ``shards`` (``Store.freeze``) as a stream of commands, in pieces of about 32 KiB.

    Only keys that begin with ``prefix``; none whose deadline is before ``now_ms`` (unix ms). The commands expect that
    the keys are not there; with ``replace`` each is deleted first. A piece may be empty where few keys are wanted; a
    large value makes several, or a larger one. Nothing here blocks.
    """
    for piece in export_pieces(shards, prefix=prefix, now_ms=now_ms, replace=replace):
        yield piece.data


def export_pieces(
    shards: Iterable[KeyShard], *, prefix: bytes = b"", now_ms: int = 0, replace: bool = False
) -> Iterator[ExportPiece]:
    """As :func:`export_commands`, for somebody who wants to know which commands a piece holds."""
    out: list[bytes] = []
    commands: list[list[bytes]] = []
    size = looked_at = keys = 0
    for shard in shards:
        deadlines = shard.deadlines
        for key, value in shard.items():
            looked_at += 1
            deadline = deadlines.get(key)
            if key.startswith(prefix) and (deadline is None or deadline >= now_ms):
                if deadline is not None and deadline > 0 and type(value) is bytes:
                    # In one command, so that no loading that breaks off leaves a key that stays for ever.
                    rebuilding = [[b"SET", key, value, b"PXAT", b"%d" % deadline]]
                else:
                    rebuilding = rebuild_commands(key, value, deadline)
                if replace:
                    rebuilding.insert(0, [b"DEL", key])
                for command in rebuilding:
                    if size >= _PIECE:
                        yield ExportPiece(b"".join(out), commands, keys)
                        out, commands = [], []
                        size = looked_at = keys = 0
                    encoded = encode_commands((command,))
                    out.append(encoded)
                    commands.append(command)
                    size += len(encoded)
                keys += 1
            if size >= _PIECE or looked_at >= _LOOKED_AT:
                yield ExportPiece(b"".join(out), commands, keys)
                out, commands = [], []
                size = looked_at = keys = 0
    if out:
        yield ExportPiece(b"".join(out), commands, keys)
