"""What a scope-following client has to know of a command: the key to route by, who answers it, whether to repeat it.

Everything comes from the command table, so that a client and a node are of one mind. Pure: no I/O, no Trio.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

import attrs

from .scope.prefixes import to_bytes
from .serve import commands as _serving  # noqa: F401 - enters the commands of connections and servers
from .store import commands as _storing  # noqa: F401 - enters the commands of data
from .store.command import TABLE, Command

__all__ = ["Intent", "Word", "encode_request", "encode_word", "intent_of", "merge", "writer_probe"]

Word: TypeAlias = bytes | str | int | float

# These change nothing and hold no key, though the table has no flag that says so.
_HARMLESS: Final = frozenset(
    "ping echo command info time role lastsave cluster memory object latency repl.token pubsub".split()
)
# These turn the connection into something else, or end it. The table knows the others.
_OF_A_CONNECTION: Final = frozenset("monitor sync psync replicate replconf".split())


@attrs.frozen
class Intent:
    """What a command is about: the ``key`` to route by, whether it ``writes``, and whether it may be ``repeatable``."""

    key: bytes | None
    writes: bool
    repeatable: bool


def encode_word(word: Word) -> bytes:
    """A word of a command as bytes; ``str`` is taken as UTF-8, numbers in their shortest form.

    Raises TypeError for anything else, ``bool`` included: what that should look like is not ours to guess.

    >>> encode_word("é"), encode_word(7), encode_word(0.5)
    (b'\\xc3\\xa9', b'7', b'0.5')
    """
    if isinstance(word, bytes):
        return word
    if isinstance(word, bool):
        raise TypeError("a word is bytes, str, int or float, not bool")
    if isinstance(word, int | float):
        return repr(word).encode()
    return to_bytes(word, "word")


def encode_request(commands: Iterable[Sequence[bytes]]) -> bytes:
    """Commands as multibulk requests.

    >>> encode_request([[b"GET", b"k"]])
    b'*2\\r\\n$3\\r\\nGET\\r\\n$1\\r\\nk\\r\\n'
    """
    parts: list[bytes] = []
    for words in commands:
        parts.append(b"*%d\r\n" % len(words))
        for word in words:
            parts += (b"$%d\r\n" % len(word), word, b"\r\n")
    return b"".join(parts)


def intent_of(words: Sequence[bytes]) -> Intent:
    """What a command is about. Raises ValueError for an empty one, and for one that needs a connection of its own.

    Of an unknown command the second word is taken for its key, and it counts as a write that must not be repeated.

    >>> intent_of([b"set", b"a:1", b"x"])
    Intent(key=b'a:1', writes=True, repeatable=False)
    >>> intent_of([b"MGET", b"a:1", b"b:1"])
    Intent(key=b'a:1', writes=False, repeatable=True)
    """
    if not words:
        raise ValueError("a command needs a name")
    name = words[0].lower()
    entry = TABLE.get(name)
    if name.decode("latin-1") in _OF_A_CONNECTION or (entry is not None and entry.needs_connection):
        raise ValueError(f"{name.decode('latin-1')[:40]} needs a connection of its own")
    if entry is None:
        return Intent(words[1] if len(words) > 1 else None, True, False)
    if entry.subcommands and len(words) > 1:
        entry = entry.subcommands.get(words[1].lower(), entry)
    repeatable = "readonly" in entry.flags or words[0].lower().decode("latin-1") in _HARMLESS
    return Intent(_key(entry, words), entry.writes, repeatable)


def merge(intents: Sequence[Intent]) -> Intent:
    """What several commands for one node are about together: the key is that of the first write, else the first key."""
    writing = [intent for intent in intents if intent.writes]
    keys = [intent.key for intent in (*writing, *intents) if intent.key is not None]
    return Intent(keys[0] if keys else None, bool(writing), all(intent.repeatable for intent in intents))


def writer_probe(key: bytes) -> list[bytes]:
    """A write that changes nothing, whatever the key holds: only the writer does not refuse it.

    Any node answers a read, be it from a copy. Sent directly before a read, this says whether the node was the writer.
    """
    return [b"ZREMRANGEBYRANK", key, b"1", b"0"]


def _key(entry: Command, words: Sequence[bytes]) -> bytes | None:
    argv = list(words)
    try:
        if entry.writes:
            written = entry.written_keys(argv)
            if written:
                return written[0]
        places = entry.key_positions(argv)
    except (ValueError, IndexError):
        # The node will say what is wrong with it.
        return None
    return argv[places[0]] if places and places[0] < len(argv) else None
