"""The wire form of a move between two kevynodes, on the replication port. Pure.

Whoever dials sends the **hello** first, and then both sides send messages (:mod:`.move_messages`), each a RESP
multibulk of plain bulks::

    INGEST <version> <move-id> <prefix> FROM <source-id> TO <target-id>
    REQUEST <move-id> <floor> <persistent> <force>          ACCEPTED <move-id> <epoch> <following>
    STAGE <move-id> <attempt> <history> <offset>            REFUSED <move-id> <again> <reason>
    CHUNK <move-id> <attempt> <sequence> <bytes>            NEEDSTAGE <move-id> <attempt> <reason>
    STAGEEND <move-id> <attempt> <chunks> <keys> <digest>   SEALED <move-id> <keys> <digest>
    AWAIT <move-id> <history> <offset> <keys> <digest>      ACTIVATED <move-id> <epoch>
    ACTIVATE <move-id> <epoch> <history> <offset>           PURGED <move-id>
    ABORTED <move-id>                                       ASK <move-id>
    UNKNOWN <move-id>

The hello names the nodes of the move, not of the connection: a source dials to move, a target to ask. Numbers are
unsigned decimals, yes and no are 1 and 0, a digest is empty or up to 64 hexadecimal digits, texts are UTF-8. A version
above :data:`VERSION` is refused by name, with a REFUSED that every version reads, and the connection closed.

No announced length is believed: a word's is checked against the place where it stands before a byte of it is kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs

from ..replicate.parsing import canonical, unsigned
from .ledger_text import ID_LIMIT, MAX_NUMBER, PREFIX_LIMIT, LedgerError, check_id
from .move_messages import (
    Aborted,
    Accepted,
    Activate,
    Activated,
    Ask,
    Await,
    Chunk,
    Message,
    NeedStage,
    Purged,
    Refused,
    Request,
    Sealed,
    Stage,
    StageEnd,
    Unknown,
)

__all__ = [
    "CHUNK_LIMIT",
    "HELLO_LIMIT",
    "VERSION",
    "Hello",
    "MessageDecoder",
    "MoveWireError",
    "encode",
    "format_hello",
    "parse_hello",
    "refuse_version",
]

#: The version that is spoken here.
VERSION: Final = 1
#: Bytes in one chunk, at most; as in a snapshot.
CHUNK_LIMIT: Final = 65536
#: Bytes in a hello, at most; as a replica's handshake.
HELLO_LIMIT: Final = 4096
# Bytes in a reason, in a number, in a length line without its line end, and in the line of an error.
_REASON_LIMIT: Final = 1024
_NUMBER_LIMIT: Final = 16
_LENGTH_LINE_LIMIT: Final = 16
_ERROR_LINE_LIMIT: Final = 512
_NAME_LIMIT: Final = 16
_DIGEST: Final = re.compile(r"[0-9a-f]{0,64}")


class MoveWireError(Exception):
    """The peer broke the protocol, or answered with an error line. ``reason`` names the rule, ``detail`` what came."""

    def __init__(self, reason: str, detail: object = "") -> None:
        shown = detail if isinstance(detail, str) else repr(detail)
        super().__init__(f"{reason}: {shown}" if shown else reason)
        self.reason = reason
        self.detail = shown


@attrs.frozen
class Hello:
    """The first words of a connection: which move it is for, and between which nodes that is."""

    move_id: str
    prefix: bytes
    source: str
    target: str


def format_hello(hello: Hello) -> bytes:
    """The hello as bytes."""
    words = [b"INGEST", b"%d" % VERSION, hello.move_id.encode(), hello.prefix]
    return _multibulk([*words, b"FROM", hello.source.encode(), b"TO", hello.target.encode()])


def parse_hello(words: Sequence[bytes]) -> Hello:
    """The hello that the words of the first command make. Raises :class:`MoveWireError`, a newer version by name."""
    if not words or words[0].upper() != b"INGEST":
        raise MoveWireError("expected INGEST command", words[0][:32] if words else "")
    if len(words) < 2:
        raise MoveWireError("INGEST expects 8 args, got 1")
    version = unsigned(words[1], MAX_NUMBER)
    if not version:
        raise MoveWireError("version must be a positive decimal", words[1][:32])
    if version > VERSION:
        raise MoveWireError(f"INGEST version {version} is newer than {VERSION}, the newest that this node speaks")
    if len(words) != 8:
        raise MoveWireError(f"INGEST expects 8 args, got {len(words)}")
    if words[4].upper() != b"FROM" or words[6].upper() != b"TO":
        raise MoveWireError("expected 'FROM' and 'TO' keywords", b" ".join((words[4][:32], words[6][:32])))
    if len(words[3]) > PREFIX_LIMIT:
        raise MoveWireError(f"a prefix has at most {PREFIX_LIMIT} bytes", str(len(words[3])))
    source, target = _read_id(words[5]), _read_id(words[7])
    if source == target:
        raise MoveWireError("a move goes from one node to another", source)
    return Hello(_read_id(words[2]), words[3], source, target)


def refuse_version(words: Sequence[bytes], reason: str) -> bytes:
    """What to answer a hello of a newer version with; empty if not even its move can be read."""
    try:
        return encode(Refused(_read_id(words[2]), False, reason))
    except (IndexError, MoveWireError):
        return b""


# -- the fields of messages -------------------------------------------------------------------------------------------


def _read_id(word: bytes) -> str:
    try:
        text = word.decode("ascii")
        check_id(text, "an id")
    except (UnicodeDecodeError, LedgerError):
        raise MoveWireError("not an id", word[:32]) from None
    return text


def _read_number(word: bytes) -> int:
    number = canonical(word)
    if number is None or number > MAX_NUMBER:
        raise MoveWireError("not a number in range", word[:32])
    return number


def _read_flag(word: bytes) -> bool:
    if word not in (b"0", b"1"):
        raise MoveWireError("neither 0 nor 1", word[:32])
    return word == b"1"


def _read_text(word: bytes) -> str:
    return word.decode("utf-8", "replace")


def _read_digest(word: bytes) -> str:
    text = word.decode("ascii", "replace")
    if _DIGEST.fullmatch(text) is None:
        raise MoveWireError("not a digest", word[:32])
    return text


@attrs.frozen
class _Kind:
    """One kind of field: how many bytes it may have, and how it is read."""

    limit: int
    read: Callable[[bytes], Any]


_ID: Final = _Kind(ID_LIMIT, _read_id)
_NUMBER: Final = _Kind(_NUMBER_LIMIT, _read_number)
_FLAG: Final = _Kind(1, _read_flag)
_TEXT: Final = _Kind(_REASON_LIMIT, _read_text)
_HEX: Final = _Kind(64, _read_digest)
_BYTES: Final = _Kind(CHUNK_LIMIT, bytes)

_KINDS: Final[dict[str, _Kind]] = {"move_id": _ID, "reason": _TEXT, "digest": _HEX, "data": _BYTES}
_KINDS_OF_FLAGS: Final = dict.fromkeys(("persistent", "force", "following", "again"), _FLAG)


def _fields(message: type[Any]) -> tuple[_Kind, ...]:
    """The kinds of a message's fields in order: by their names, and numbers otherwise."""
    known = _KINDS | _KINDS_OF_FLAGS
    return tuple(known.get(field.name, _NUMBER) for field in attrs.fields(message))


_NAMES: Final[dict[type[Any], bytes]] = {
    kind: kind.__name__.upper().encode()
    for kind in (
        *(Request, Stage, Chunk, StageEnd, Await, Activate, Aborted, Unknown),
        *(Accepted, Refused, NeedStage, Sealed, Activated, Purged, Ask),
    )
}
_MESSAGES: Final = {name: (kind, _fields(kind)) for kind, name in _NAMES.items()}
_FEWEST: Final = 1 + min(len(kinds) for _, kinds in _MESSAGES.values())
_MOST: Final = 1 + max(len(kinds) for _, kinds in _MESSAGES.values())


def encode(message: Message) -> bytes:
    """A message as bytes. Raises ValueError if a chunk has more bytes than it may; a reason that is too long is cut."""
    words = [_NAMES[type(message)]]
    for field, kind in zip(attrs.fields(type(message)), _MESSAGES[words[0]][1], strict=True):
        words.append(_word(getattr(message, field.name), kind))
    return _multibulk(words)


def _word(value: object, kind: _Kind) -> bytes:
    match value:
        case bytes():
            if len(value) > kind.limit:
                raise ValueError(f"a chunk has at most {kind.limit} bytes, not {len(value)}")
            return value
        case str():
            return value.encode("utf-8", "replace")[: kind.limit].decode("utf-8", "ignore").encode()
        case int():
            # A flag is 1 or 0.
            return b"%d" % value
        case _:
            raise TypeError(f"{type(value).__name__} is no field of a message")


def _multibulk(words: Sequence[bytes]) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


class MessageDecoder:
    """Bytes in, messages out. After an error ``error`` holds it, and later bytes are ignored.

    Resumable and exact: dripped bytes cost no more than their number, and the same bytes end in the same error however
    they are cut. Nothing beyond one message is ever held.
    """

    __slots__ = ("_kinds", "_left", "_length", "_limit", "_made", "_pending", "_values", "error")

    def __init__(self) -> None:
        self.error: MoveWireError | None = None
        self._pending = bytearray()
        self._reset()

    def _reset(self) -> None:
        # Words that are missing, what the message is made of once its name is known, the values read, and the length
        # that was announced for the next word (-1: none).
        self._left = 0
        self._made: type[Any] | None = None
        self._kinds: tuple[_Kind, ...] = ()
        self._values: list[Any] = []
        self._length = -1

    @property
    def held(self) -> int:
        """Bytes of the unfinished message that are held."""
        return len(self._pending)

    def feed(self, data: bytes) -> list[Message]:
        """The messages that ``data`` completes, in order. Never raises: see ``error``."""
        messages: list[Message] = []
        if self.error is None:
            try:
                self._consume(data, messages)
            except MoveWireError as error:
                self.error = error
                self._pending = bytearray()
                self._reset()
        return messages

    def _consume(self, data: bytes, messages: list[Message]) -> None:
        pending = self._pending
        pending += data
        place = 0
        try:
            while place < len(pending):
                if self._length < 0:
                    end = self._line_end(place)
                    if end < 0:
                        return
                    self._announce(bytes(pending[place:end]))
                    place = end + 2
                    continue
                stop = place + self._length
                behind = bytes(pending[stop : stop + 2])
                if not b"\r\n".startswith(behind):
                    raise MoveWireError("no line end behind a word", behind)
                if len(pending) < stop + 2:
                    return
                self._take(bytes(pending[place:stop]))
                place = stop + 2
                if self._left == 0 and self._made is not None:
                    messages.append(self._made(*self._values))
                    self._reset()
        finally:
            del pending[:place]

    def _line_end(self, place: int) -> int:
        """Where the line end of the length line begins, or -1 while it has not come."""
        pending = self._pending
        is_error = self._left == 0 and pending[place] == 0x2D
        limit = _ERROR_LINE_LIMIT if is_error else _LENGTH_LINE_LIMIT
        end = pending.find(b"\r\n", place, place + limit + 2)
        if end < 0 and len(pending) - place > limit + 1:
            raise MoveWireError("line too long", bytes(pending[place : place + 32]))
        if is_error and end >= 0:
            raise MoveWireError("the peer answers with an error", pending[place + 1 : end].decode("utf-8", "replace"))
        return end

    def _announce(self, line: bytes) -> None:
        """Take the line that announces a message or a word."""
        number = canonical(line[1:])
        if self._left == 0:
            if line[:1] != b"*" or number is None:
                raise MoveWireError("expected a message", line)
            if not _FEWEST <= number <= _MOST:
                raise MoveWireError("no message has so many words", line)
            self._left = number
            return
        if line[:1] != b"$" or number is None:
            raise MoveWireError("expected a word", line)
        limit = _NAME_LIMIT if self._made is None else self._kinds[len(self._values)].limit
        if number > limit:
            raise MoveWireError("word too long", f"{number} bytes where {limit} may stand")
        self._length = number

    def _take(self, word: bytes) -> None:
        """Take a word that is complete."""
        self._length = -1
        self._left -= 1
        if self._made is not None:
            self._values.append(self._kinds[len(self._values)].read(word))
            return
        known = _MESSAGES.get(word)
        if known is None:
            raise MoveWireError("unknown message", word)
        if self._left != len(known[1]):
            raise MoveWireError("wrong number of words", f"{word.decode()} with {self._left}")
        self._made, self._kinds = known
