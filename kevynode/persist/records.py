"""What an append-only file holds: the encoders are here, the reader next door.

A file begins with its header and a position, which are annotations. Then come the journal's commands as multibulks. A
group of one entry is its command alone; larger ones stand between MULTI and EXEC. In a file of kind ``incr`` each entry
advances the position by one; a file of kind ``base`` holds everything as of its position, and its commands have no
offsets of their own. A placement (a file of kind ``stage``) has no position: it was written before its entries were
made, and they take the offsets from the end of the file before on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from ..replicate.lineage import Lineage
from ..reply import BULK_HEADERS
from .annotations import FileHeader, Position

__all__ = ["EXEC", "MULTI", "encode_commands", "file_start", "record_size"]

#: What stands around a group of several entries.
MULTI: Final = b"*1\r\n$5\r\nMULTI\r\n"
EXEC: Final = b"*1\r\n$4\r\nEXEC\r\n"


def file_start(kind: str, sequence: int, lineage: Lineage, offset: int) -> bytes:
    """The two lines that every file begins with: what it is (``kind`` is ``base`` or ``incr``), and its position."""
    return FileHeader(kind, sequence).line() + Position(lineage, offset).line()


def encode_commands(commands: Iterable[Sequence[bytes]]) -> bytes:
    """The records of ``commands``, each with at least one word, each by itself."""
    headers = BULK_HEADERS
    out: list[bytes] = []
    append = out.append
    for command in commands:
        try:
            if len(command) == 3:
                name, key, value = command
                append(
                    b"*3\r\n%b%b\r\n%b%b\r\n%b%b\r\n"
                    % (headers[len(name)], name, headers[len(key)], key, headers[len(value)], value)
                )
            elif len(command) == 2:
                name, key = command
                append(b"*2\r\n%b%b\r\n%b%b\r\n" % (headers[len(name)], name, headers[len(key)], key))
            else:
                append(_record(command))
        except IndexError:
            # An argument longer than the table of headers.
            append(_record(command))
    return b"".join(out)


def record_size(command: Sequence[bytes]) -> int:
    """Bytes that a command takes as a record."""
    size = len(b"*%d\r\n" % len(command))
    for word in command:
        size += len(b"$%d\r\n" % len(word)) + len(word) + 2
    return size


def _record(command: Sequence[bytes]) -> bytes:
    headers = BULK_HEADERS
    parts = [b"*%d\r\n" % len(command)]
    for word in command:
        size = len(word)
        parts += (headers[size] if size < len(headers) else b"$%d\r\n" % size, word, b"\r\n")
    return b"".join(parts)
