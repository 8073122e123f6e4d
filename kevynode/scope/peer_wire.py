"""What two nodes of a cluster say to each other on a peer link, as bytes. Sans-I/O.

A peer link is a connection to the replication port. All that is said on it, either way, are RESP multibulk commands.
Whoever dialled says who it is and whom it takes the other for, and is answered in kind, or refused by name::

    PEER <version> <node id> <instance> <id of the node it dials>
    PEER <version> <node id> <instance>          the answer
    REFUSED <version> <code> <text>              the other answer, then the end of the stream

The version is that of this protocol. A node refuses a higher one than its own and says its own; whoever is refused so
may dial again with that. From then on both sides speak when they want to:

``BEAT <ledger digest> <ledger version> <remembered> <configuration digest> <state> <client address>``
    Every second, and whenever something in it changes. ``remembered`` is the highest ledger version that the sender
    ever heard from the *receiver* (0: none): a node that is below it went back in time.
``LEDGER NEWS|PART|LAST <page>``
    Entries of the sender's ledger. ``NEWS`` are those that just came; an exchange is any number of ``PART`` and then
    one ``LAST``, behind which the receiver knows everything that the sender knew when it began.
``CONFIGURATION <place> <total> <row of five words>…``
    The sender's declared scopes and peers, whole, in pieces: ``place`` is the number of the first row in this one.
``COPIES <number> <prefix>…`` and ``HELD <number> (<prefix> <history> <offset> <keys> <epoch> <ancestors>)…``
    The question what copies of these prefixes the other node holds, and the answer, which leaves out what is not held.
    ``ancestors`` are what the history descends from, newest first: ``history@offset``, with commas between them.

Anything else ends the link. Every message is bounded by :data:`MESSAGE_LIMIT`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal, cast

import attrs

from ..replicate.lineage import ANCESTOR_LIMIT, HISTORY_LIMIT, MAX_OFFSET, Lineage
from ..replicate.parsing import CommandReader, Malformed, unsigned
from .copies import HeldCopy
from .ledger import PAGE_LIMIT, LedgerError, parse_rows
from .ledger_text import MAX_NUMBER, PREFIX_LIMIT
from .peer_messages import (
    ASKED_PREFIXES,
    CONFIGURATION_ROWS_LIMIT,
    Beat,
    ConfigurationRows,
    CopiesAsked,
    CopiesHeld,
    Hello,
    LedgerPage,
    Message,
    PeerRow,
    Refused,
    Row,
    ScopeRow,
    Welcome,
    multibulk,
    row_words,
)

__all__ = [
    "MESSAGE_LIMIT",
    "STATE",
    "TEXT_LIMIT",
    "VERSION",
    "AnswerDecoder",
    "PeerDecoder",
    "PeerWireError",
    "encode",
    "encode_ledger",
    "encode_news",
    "parse_hello",
]

#: The version of this protocol that this module speaks.
VERSION: Final = 1
#: Longest message in bytes.
MESSAGE_LIMIT: Final = 256 * 1024
#: Longest answer to a hello in bytes; as a handshake.
ANSWER_LIMIT: Final = 4096
#: Longest text of a node about itself, in characters.
TEXT_LIMIT: Final = 256
#: What a node may call its state.
STATE: Final = re.compile(r"[a-z_-]{1,32}")

# Words of one message at most.
_WORD_LIMIT: Final = 4096
# Words that say what is held of one prefix, and the longest one that names ancestors.
_HELD_WORDS: Final = 6
_ANCESTORS_LIMIT: Final = ANCESTOR_LIMIT * (len(str(HISTORY_LIMIT)) + len(str(MAX_OFFSET)) + 2)
_LARGEST_VERSION: Final = 2**31 - 1
_DIGEST: Final = re.compile(rb"[0-9a-f]{64}")
_INSTANCE: Final = re.compile(r"[0-9A-Za-z._-]{1,64}")
_NODE_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-:#]{0,63}")


class PeerWireError(Exception):
    """The peer broke the rules of a peer link; the text says which one."""


# -- writing ----------------------------------------------------------------------------------------------------------


def encode(message: Hello | Welcome | Refused | Message) -> bytes:
    """The bytes of a message."""
    return multibulk([word if isinstance(word, bytes) else str(word).encode() for word in _words(message)])


def encode_ledger(pages: Sequence[bytes]) -> Iterator[bytes]:
    """An exchange: all pages of a ledger (:meth:`Ledger.rows`), one message after the other."""
    last = len(pages) - 1
    for number, page in enumerate(pages):
        yield multibulk((b"LEDGER", b"LAST" if number == last else b"PART", page))
    if not pages:
        yield multibulk((b"LEDGER", b"LAST", b""))


def encode_news(page: bytes) -> bytes:
    """One page of entries that just came."""
    return multibulk((b"LEDGER", b"NEWS", page))


def _words(message: Hello | Welcome | Refused | Message) -> Sequence[bytes | str | int]:
    match message:
        case Hello():
            return "PEER", message.version, message.node_id, message.instance, message.expected
        case Welcome():
            return "PEER", message.version, message.node_id, message.instance
        case Refused():
            return "REFUSED", message.version, message.code, message.text[:TEXT_LIMIT]
        case Beat():
            return ("BEAT", *attrs.astuple(message))
        case LedgerPage():
            return "LEDGER", message.kind, b"".join(entry.text().encode("ascii") + b"\n" for entry in message.entries)
        case ConfigurationRows():
            return "CONFIGURATION", message.place, message.total, *(w for row in message.rows for w in row_words(row))
        case CopiesAsked():
            return "COPIES", message.number, *message.prefixes
        case CopiesHeld():
            return "HELD", message.number, *(word for row in message.copies for word in _held_words(*row))


def _held_words(prefix: bytes, copy: HeldCopy) -> tuple[bytes | str | int, ...]:
    ancestors = ",".join(f"{history}@{offset}" for history, offset in copy.ancestors)
    return prefix, copy.history, copy.offset, copy.keys, copy.epoch, ancestors


# -- reading ----------------------------------------------------------------------------------------------------------


def parse_hello(words: Sequence[bytes]) -> Hello:
    """What a connection to the replication port says first, its first word being PEER. Raises PeerWireError.

    Of a version above ours only the beginning is understood; whatever follows it is ignored.
    """
    try:
        version = _number(words[1], _LARGEST_VERSION, 1)
        if len(words) != 5 and (version <= VERSION or len(words) < 4):
            raise ValueError
        expected = words[4] if len(words) > 4 else b""
        if version > VERSION:
            return Hello(version, _shown(words[2]), _shown(words[3]), _shown(expected))
        return Hello(version, _name(words[2]), _matched(_INSTANCE, words[3]), _name(expected))
    except (ValueError, IndexError):
        raise PeerWireError(
            f"PEER expects a version, a node id, an instance and a node id, got {_show(words)}"
        ) from None


class AnswerDecoder:
    """Takes the answer to a hello: bytes in, one answer out; ``rest`` then holds the bytes behind it."""

    __slots__ = ("_commands", "rest")

    def __init__(self) -> None:
        self._commands = _Commands(ANSWER_LIMIT, 8)
        self.rest = b""

    def feed(self, data: bytes) -> Welcome | Refused | None:
        """The answer, once it is complete; feed nothing behind it. Raises PeerWireError."""
        self._commands.add(data)
        if self._commands.starts_with(b"-"):
            raise PeerWireError(
                f"PEER was answered with an error, as a client port does: {self._commands.take_rest()!r}"
            )
        words = self._commands.next()
        if words is None:
            return None
        self.rest = self._commands.take_rest()
        try:
            if words[0] == b"PEER" and len(words) == 4:
                return Welcome(_number(words[1], _LARGEST_VERSION, 1), _name(words[2]), _matched(_INSTANCE, words[3]))
            if words[0] == b"REFUSED" and len(words) == 4:
                return Refused(_number(words[1], _LARGEST_VERSION, 1), _shown(words[2]), _shown(words[3]))
        except ValueError:
            pass
        raise PeerWireError(f"PEER was answered with {_show(words)}")


class PeerDecoder:
    """Bytes in, messages out: ``feed`` returns every message that the new bytes complete.

    After a broken rule ``error`` holds it, and later bytes are ignored; the messages before it still count.
    """

    __slots__ = ("_commands", "error")

    def __init__(self) -> None:
        self.error: PeerWireError | None = None
        self._commands = _Commands(MESSAGE_LIMIT, _WORD_LIMIT)

    @property
    def held(self) -> int:
        """Bytes of the unfinished message that are held in memory."""
        return self._commands.held

    def feed(self, data: bytes) -> list[Message]:
        """The messages that ``data`` completes, in order. Never raises: see ``error``."""
        messages: list[Message] = []
        if self.error is not None:
            return messages
        try:
            self._commands.add(data)
            while (words := self._commands.next()) is not None:
                messages.append(_parse(words))
        except PeerWireError as error:
            self.error = error
            self._commands.take_rest()
        return messages


class _Commands:
    """Takes multibulk commands of bounded size off bytes that arrive in pieces."""

    __slots__ = ("_limit", "_pending", "_place", "_reader", "_start")

    def __init__(self, limit: int, word_limit: int) -> None:
        self._limit = limit
        self._pending = bytearray()
        self._reader = CommandReader(limit, word_limit)
        # Where the command under way starts, and how far it has been read.
        self._start = self._place = 0

    @property
    def held(self) -> int:
        return len(self._pending) - self._start

    def add(self, data: bytes) -> None:
        del self._pending[: self._start]
        self._place -= self._start
        self._start = 0
        self._pending += data

    def starts_with(self, first: bytes) -> bool:
        """Whether the command under way starts so."""
        return self._pending.startswith(first, self._start)

    def next(self) -> list[bytes] | None:
        """The next command, or None while it is not complete. Raises PeerWireError."""
        pending = self._pending
        if self._start == len(pending):
            return None
        if pending[self._start] != 0x2A:
            raise PeerWireError(f"expected a multibulk message, got {bytes(pending[self._start : self._start + 64])!r}")
        try:
            place, words = self._reader.read(pending, self._place)
        except Malformed as error:
            raise PeerWireError(f"malformed message: {error.text}") from None
        if (len(pending) if words is None else place) - self._start > self._limit:
            raise PeerWireError(f"a message of more than {self._limit} bytes")
        self._place = place
        if words is not None:
            self._start = place
        return words

    def take_rest(self) -> bytes:
        rest = bytes(self._pending[self._start :])
        self._pending.clear()
        self._start = self._place = 0
        return rest


def _parse(words: list[bytes]) -> Message:
    parse = _MESSAGES.get(words[0])
    if parse is None:
        raise PeerWireError(f"unknown message {_show(words[:1])}")
    try:
        return parse(words[1:])
    except (ValueError, IndexError) as error:
        reason = f": {error}" if isinstance(error, LedgerError) else ""
        raise PeerWireError(f"malformed {words[0].decode()} message{reason}") from None


def _beat(words: list[bytes]) -> Beat:
    ledger_digest, version, remembered, configuration_digest, state, address = words
    return Beat(
        _digest(ledger_digest),
        _number(version, MAX_NUMBER),
        _number(remembered, MAX_NUMBER),
        _digest(configuration_digest),
        _matched(STATE, state),
        _text(address),
    )


def _ledger_page(words: list[bytes]) -> LedgerPage:
    kind, page = words
    if kind not in (b"NEWS", b"PART", b"LAST"):
        raise ValueError
    if len(page) > PAGE_LIMIT:
        raise LedgerError("a page is too long")
    return LedgerPage(cast(Literal["NEWS", "PART", "LAST"], kind.decode()), parse_rows(page))


def _configuration_rows(words: list[bytes]) -> ConfigurationRows:
    total = _number(words[1], CONFIGURATION_ROWS_LIMIT)
    place = _number(words[0], total)
    if len(words) % 5 != 2:
        raise ValueError
    rows = tuple(_row(words[start : start + 5]) for start in range(2, len(words), 5))
    # Only a configuration without rows has a piece without rows, so pieces come to an end.
    if place + len(rows) > total or (not rows and total):
        raise ValueError
    return ConfigurationRows(place, total, rows)


def _row(words: list[bytes]) -> Row:
    kind, first, second, third, fourth = words
    if kind == b"SCOPE":
        if len(first) > PREFIX_LIMIT or fourth:
            raise ValueError
        return ScopeRow(first, _name(second), _name(third) if third else "")
    if kind != b"NODE":
        raise ValueError
    return PeerRow(_name(first), _text(second), _text(third), _text(fourth))


def _copies_asked(words: list[bytes]) -> CopiesAsked:
    prefixes = words[1:]
    if not 1 <= len(prefixes) <= ASKED_PREFIXES or max(map(len, prefixes)) > PREFIX_LIMIT:
        raise ValueError
    return CopiesAsked(_number(words[0], MAX_NUMBER), tuple(prefixes))


def _copies_held(words: list[bytes]) -> CopiesHeld:
    if len(words) % _HELD_WORDS != 1 or len(words) > _HELD_WORDS * ASKED_PREFIXES + 1:
        raise ValueError
    copies = []
    for start in range(1, len(words), _HELD_WORDS):
        prefix, *said = words[start : start + _HELD_WORDS]
        if len(prefix) > PREFIX_LIMIT:
            raise ValueError
        copies.append((prefix, _held_copy(*said)))
    return CopiesHeld(_number(words[0], MAX_NUMBER), tuple(copies))


def _held_copy(history: bytes, offset: bytes, keys: bytes, epoch: bytes, ancestors: bytes) -> HeldCopy:
    number = _number(history, HISTORY_LIMIT - 1)
    return HeldCopy(
        number,
        _number(offset, MAX_OFFSET),
        _number(keys, MAX_OFFSET),
        _number(epoch, MAX_NUMBER),
        _ancestors(ancestors, number),
    )


def _ancestors(word: bytes, history: int) -> tuple[tuple[int, int], ...]:
    """What ``history`` descends from. A history that is not told, 0, descends from none."""
    if not word:
        return ()
    if len(word) > _ANCESTORS_LIMIT:
        raise ValueError
    found = []
    for row in word.split(b","):
        ancestor, offset = row.split(b"@")
        found.append((_number(ancestor, HISTORY_LIMIT - 1), _number(offset, MAX_OFFSET)))
    return Lineage(history, tuple(found)).ancestors


_MESSAGES: Final[dict[bytes, Callable[[list[bytes]], Message]]] = {
    b"BEAT": _beat,
    b"LEDGER": _ledger_page,
    b"CONFIGURATION": _configuration_rows,
    b"COPIES": _copies_asked,
    b"HELD": _copies_held,
}


def _number(word: bytes, limit: int, least: int = 0) -> int:
    number = unsigned(word, limit)
    if number is None or number < least:
        raise ValueError
    return number


def _digest(word: bytes) -> str:
    if _DIGEST.fullmatch(word) is None:
        raise ValueError
    return word.decode("ascii")


def _matched(pattern: re.Pattern[str], word: bytes) -> str:
    text = word.decode("ascii")
    if pattern.fullmatch(text) is None:
        raise ValueError
    return text


def _name(word: bytes) -> str:
    """A node id, as the configuration accepts them."""
    return _matched(_NODE_ID, word)


def _text(word: bytes) -> str:
    """A short text of printable characters; it may be empty."""
    text = word.decode("utf-8")
    if len(text) > TEXT_LIMIT or not text.isprintable():
        raise ValueError
    return text


def _shown(word: bytes) -> str:
    """What somebody sent who need not be understood, for the log."""
    return word[:TEXT_LIMIT].decode("utf-8", "backslashreplace")


def _show(words: Sequence[bytes]) -> str:
    return " ".join(repr(word[:32])[1:] for word in words[:6])
