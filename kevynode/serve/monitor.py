"""MONITOR: every command that runs, told to those who watch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..reply import Status
from ..store.command import Args, Command
from .slowlog import redact

if TYPE_CHECKING:
    from .session import Session

__all__ = ["feed_monitors", "monitor_line"]

_ESCAPES: Final = {0x22: b'\\"', 0x5C: b"\\\\", 0x0A: b"\\n", 0x0D: b"\\r", 0x09: b"\\t", 0x07: b"\\a", 0x08: b"\\b"}


def _quote(word: bytes) -> bytes:
    return (
        b'"'
        + b"".join(
            _ESCAPES.get(char) or (bytes((char,)) if 0x20 <= char <= 0x7E else b"\\x%02x" % char) for char in word
        )
        + b'"'
    )


def monitor_line(session: Session, argv: Args) -> bytes:
    """A command as a monitor sees it: time, database and address, and the words in quotes; passwords left out."""
    microseconds = session.server.store.now * 1000
    address = "unix:" + session.local.rpartition(":")[0] if session.kind == "unix" else session.peer
    words = b" ".join(map(_quote, redact(argv)))
    return b"%d.%06d [0 %b] %b" % (
        microseconds // 1_000_000,
        microseconds % 1_000_000,
        address.encode("utf-8", "surrogateescape"),
        words,
    )


def feed_monitors(session: Session, command: Command, argv: Args) -> None:
    """Tell everybody who watches; administration is not told, as in Valkey."""
    if "admin" in command.flags:
        return
    wire = Status(monitor_line(session, argv)).wire
    for watcher in tuple(session.server.monitors):
        watcher.write_push(wire)
