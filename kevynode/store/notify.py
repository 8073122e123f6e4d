"""Classes of keyspace events and the ``notify-keyspace-events`` flag string, as in Valkey."""

from __future__ import annotations

from typing import Final

__all__ = [
    "EVICTED",
    "EXPIRED",
    "GENERIC",
    "HASH",
    "KEYEVENT",
    "KEYSPACE",
    "KEY_MISS",
    "LIST",
    "NEW",
    "SET",
    "STREAM",
    "STRING",
    "ZSET",
    "format_flags",
    "parse_flags",
]

KEYSPACE: Final = 1 << 0  # K
KEYEVENT: Final = 1 << 1  # E
GENERIC: Final = 1 << 2  # g
STRING: Final = 1 << 3  # $
LIST: Final = 1 << 4  # l
SET: Final = 1 << 5  # s
HASH: Final = 1 << 6  # h
ZSET: Final = 1 << 7  # z
EXPIRED: Final = 1 << 8  # x
EVICTED: Final = 1 << 9  # e
STREAM: Final = 1 << 10  # t
KEY_MISS: Final = 1 << 11  # m, not part of A
MODULE: Final = 1 << 13  # d
NEW: Final = 1 << 14  # n, not part of A
ALL: Final = GENERIC | STRING | LIST | SET | HASH | ZSET | EXPIRED | EVICTED | STREAM | MODULE

_LETTERS: Final[dict[str, int]] = {
    "g": GENERIC,
    "$": STRING,
    "l": LIST,
    "s": SET,
    "h": HASH,
    "z": ZSET,
    "x": EXPIRED,
    "e": EVICTED,
    "t": STREAM,
    "d": MODULE,
    "K": KEYSPACE,
    "E": KEYEVENT,
    "m": KEY_MISS,
    "n": NEW,
}


def parse_flags(letters: str) -> int | None:
    """The flags that ``letters`` name (``A`` is all classes but ``m`` and ``n``), or None if a letter is unknown."""
    flags = 0
    for letter in letters:
        if letter == "A":
            flags |= ALL
        elif letter in _LETTERS:
            flags |= _LETTERS[letter]
        else:
            return None
    return flags


def format_flags(flags: int) -> str:
    """The flag string as CONFIG GET shows it: classes (``A`` for all, which hides ``n``), then ``K``, ``E``, ``m``."""
    if flags & ALL == ALL:
        shown = "A"
    else:
        shown = "".join(letter for letter, flag in _LETTERS.items() if flag & flags & (ALL | NEW))
    return shown + "".join(letter for letter in "KEm" if _LETTERS[letter] & flags)
