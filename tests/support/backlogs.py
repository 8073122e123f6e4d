"""Backlogs of commands as texts, and what readers get of them, as texts, too."""

from __future__ import annotations

from support.stream_text import parse

from kevynode.replicate.backlog import Backlog, Cursor
from kevynode.store.journal import Effect

#: Far more than any test reads.
ALL = 1 << 40
#: What a block may hold beside its data: mostly what the parts of the newest block cost before they are joined.
SLACK = 64 * 1024


def effect(*words: bytes | str) -> Effect:
    """The effect of a command, as handlers emit it."""
    command = [word.encode() if isinstance(word, str) else word for word in words]
    key = command[1] if len(command) > 1 else None
    return command, key, () if key is None else ((8, b"event", key),)


def put(backlog: Backlog, *commands: str, own: bool = True) -> None:
    """Add one group."""
    backlog.add([effect(*command.split()) for command in commands], own)


def shown(data: bytes) -> str:
    """A stream as one readable line: ``2:SET a 1``, groups as ``(n``, skips as ``>n``."""
    texts = []
    for kind, number, words in parse(data):
        text = b" ".join(words).decode()
        texts.append({"frame": f"{number}:{text}", "group": f"({number}", "skip": f">{number}"}[kind])
    return " ".join(texts)


def read(backlog: Backlog, cursor: Cursor, limit: int = ALL, grouped: bool = True) -> str:
    return shown(b"".join(backlog.read(cursor, limit, grouped)))


def read_filtered(backlog: Backlog, cursor: Cursor, wanted: str, expected: int | None = None) -> tuple[str, int]:
    keys = {key.encode() for key in wanted}
    parts, reached = backlog.read_filtered(cursor, keys.__contains__, ALL, expected)
    return shown(b"".join(parts)), reached


# Entries in, frames out.
