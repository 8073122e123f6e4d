"""The slow log: the last commands that took longer than a threshold."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from .server import Server
    from .session import Session

__all__ = ["SlowLog", "SlowLogEntry"]

# What an entry keeps of a command, as in Valkey.
_ARGUMENTS: Final = 32
_ARGUMENT_BYTES: Final = 128
_REDACTED: Final = b"(redacted)"
# Parameters whose values nobody should read in a log.
_SECRET_PARAMETERS: Final = frozenset((b"requirepass", b"masterauth", b"primaryauth", b"masteruser", b"primaryuser"))


class SlowLogEntry(NamedTuple):
    """One slow command: when it ran (unix seconds), how long it took (microseconds), and who sent it."""

    number: int
    moment: int
    microseconds: int
    argv: list[bytes]
    address: bytes
    name: bytes


class SlowLog:
    """Entries, the newest first. Numbers grow by one and start again with the process."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._entries: deque[SlowLogEntry] = deque()
        self._limit = 128
        self._next = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def limit(self) -> int:
        """How many entries are kept. A lower limit takes effect with the next entry, as in Valkey."""
        return self._limit

    @limit.setter
    def limit(self, value: int) -> None:
        self._limit = value

    def add(self, session: Session, argv: Sequence[bytes], seconds: float) -> None:
        """Remember a command that took ``seconds``."""
        entry = SlowLogEntry(
            self._next,
            self._server.store.now // 1000,
            max(0, round(seconds * 1_000_000)),
            shorten(redact(argv)),
            session.peer.encode("utf-8", "surrogateescape"),
            session.name,
        )
        self._next += 1
        self._entries.appendleft(entry)
        while len(self._entries) > self._limit:
            self._entries.pop()

    def latest(self, count: int) -> list[SlowLogEntry]:
        """The newest ``count`` entries; -1 asks for all."""
        entries = list(self._entries)
        return entries if count < 0 else entries[:count]

    def clear(self) -> None:
        """Forget all entries."""
        self._entries.clear()


def redact(argv: Sequence[bytes]) -> list[bytes]:
    """The command without passwords."""
    words = list(argv)
    name = words[0].lower()
    if name == b"auth":
        words[1:] = [_REDACTED] * (len(words) - 1)
    elif name == b"hello":
        place = 2
        while place < len(words):
            option = words[place].lower()
            if option == b"auth":
                words[place + 1 : place + 3] = [_REDACTED] * len(words[place + 1 : place + 3])
            place += 3 if option == b"auth" else 2 if option == b"setname" else 1
    elif name == b"config" and len(words) > 3 and words[1].lower() == b"set":
        for place in range(2, len(words) - 1, 2):
            if words[place].lower() in _SECRET_PARAMETERS:
                words[place + 1] = _REDACTED
    return words


def shorten(words: list[bytes]) -> list[bytes]:
    """At most 32 arguments of at most 128 bytes each, with a note of what is left out."""
    kept = words
    if len(words) > _ARGUMENTS:
        kept = words[: _ARGUMENTS - 1]
        kept.append(b"... (%d more arguments)" % (len(words) - _ARGUMENTS + 1))
    return [
        word
        if len(word) <= _ARGUMENT_BYTES
        else b"%b... (%d more bytes)" % (word[:_ARGUMENT_BYTES], len(word) - _ARGUMENT_BYTES)
        for word in kept
    ]
