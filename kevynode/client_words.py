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

__all__ = [
    "Intent",
    "Word",
    "encode_request",
    "encode_word",
    "in_turn",
    "intent_of",
    "merge",
    "probe_of",
    "writer_probe",
]

Word: TypeAlias = bytes | str | int | float

# These change nothing and hold no key, though the table has no flag that says so.
_HARMLESS: Final = frozenset(
    "ping echo command info time role lastsave cluster memory object latency repl.token pubsub".split()
)
# These turn the connection into something else, or end it. The table knows the others.
_OF_A_CONNECTION: Final = frozenset("monitor sync psync replicate replconf".split())


@attrs.frozen
class Intent:
    """What a command is about: what to route it by, who has to answer it, and whether doing it twice does no harm."""

    #: Those that it writes, else those that it reads; the writer is that of one of them, as the others may be under no
    #: scope. Empty where it is about none, or the line is wrong.
    keys: tuple[bytes, ...]
    writes: bool
    repeatable: bool
    #: It changes nothing, and only the writer is to answer it.
    at_writer: bool = False
    #: It may wait for something, for as long as it says.
    blocks: bool = False


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
    Intent(keys=(b'a:1',), writes=True, repeatable=False, at_writer=False, blocks=False)
    >>> intent_of([b"MGET", b"a:1", b"b:1"])
    Intent(keys=(b'a:1', b'b:1'), writes=False, repeatable=True, at_writer=False, blocks=False)
    """
    if not words:
        raise ValueError("a command needs a name")
    name = words[0].lower()
    entry = TABLE.get(name)
    if name.decode("latin-1") in _OF_A_CONNECTION or (entry is not None and entry.needs_connection):
        raise ValueError(f"{name.decode('latin-1')[:40]} needs a connection of its own")
    if entry is None:
        return Intent(tuple(words[1:2]), True, False)
    if entry.subcommands and len(words) > 1:
        entry = entry.subcommands.get(words[1].lower(), entry)
    repeatable = "readonly" in entry.flags or name.decode("latin-1") in _HARMLESS
    blocks = "blocking" in entry.flags
    if not entry.writes:
        return Intent(_read(entry, words), False, repeatable, blocks=blocks)
    written = _written(entry, words)
    if not written and _read(entry, words):
        # SORT without STORE.
        return Intent(_read(entry, words), False, True)
    return Intent(written, True, False, blocks=blocks)


def merge(intents: Sequence[Intent]) -> Intent:
    """What several commands are about that one node is to do together: all keys that they write, else all they read."""
    keys = _keys([intent for intent in intents if intent.writes]) or _keys(intents)
    return _together(keys, intents)


def in_turn(intents: Sequence[Intent]) -> Intent:
    """What several commands are about that are done one by one: the keys of the first that writes, else has keys."""
    having = [intent for intent in intents if intent.keys]
    first = next((intent for intent in having if intent.writes), having[0] if having else None)
    return _together(() if first is None else first.keys, intents)


def writer_probe(keys: Sequence[bytes]) -> list[bytes]:
    """A write that changes nothing, whatever these keys hold: only their writer does not refuse it.

    Any node answers a read, be it from a copy. Sent directly before a read, this says whether the node was the writer.
    Of several keys a node looks at who writes them before it finds that the line is wrong.
    """
    if len(keys) == 1:
        return [b"ZREMRANGEBYRANK", keys[0], b"1", b"0"]
    return [b"LMPOP", b"%d" % len(keys), *keys, b"NEITHER"]


def probe_of(keys: Sequence[bytes]) -> Intent:
    """What :func:`writer_probe` is about."""
    return Intent(tuple(keys), False, True, at_writer=True)


def _together(keys: tuple[bytes, ...], intents: Sequence[Intent]) -> Intent:
    return Intent(
        keys,
        any(intent.writes for intent in intents),
        all(intent.repeatable for intent in intents),
        any(intent.at_writer for intent in intents),
        any(intent.blocks for intent in intents),
    )


def _keys(intents: Iterable[Intent]) -> tuple[bytes, ...]:
    return tuple(dict.fromkeys(key for intent in intents for key in intent.keys))


def _written(entry: Command, words: Sequence[bytes]) -> tuple[bytes, ...]:
    """The keys that a line writes; none where that cannot be told: the node will say what is wrong with it."""
    try:
        return tuple(dict.fromkeys(entry.written_keys(words)))
    except (ValueError, IndexError):
        return ()


def _read(entry: Command, words: Sequence[bytes]) -> tuple[bytes, ...]:
    """All keys in a line; as :func:`_written`."""
    try:
        return tuple(dict.fromkeys(words[place] for place in entry.key_positions(words)))
    except (ValueError, IndexError):
        return ()
