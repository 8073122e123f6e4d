"""The handshake on the replication port: what a replica asks for, and how the primary answers.

A request has one of three forms, each a refinement of the one before:

``REPLICATE FROM <offset> ID <id>``
    five arguments, the oldest: no history is named, so little can be trusted.
``REPLICATE FROM <history> <offset> ID <id>``
    six arguments, today's kevy server. History 0 claims nothing.
``REPLICATE FROM <history> <offset> ID <id> CAPA <n> <name>...``
    extended, between kevynodes: with what the replica understands beyond the kevy server's stream.

A request that is none of these gets no answer: the connection is closed, and the reason logged. What the primary
decides on a well-formed one is in :mod:`kevynode.replicate.decision`, which form a replica uses in
:mod:`kevynode.replicate.form_chooser`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from .ack_decoder import SCOPES_LIMIT
from .decision import Decision, Held, Refuse, Resume, Snapshot, decide
from .form_chooser import FormChooser
from .lineage import Lineage
from .parsing import CommandReader, Malformed, unsigned
from .request import CAPABILITIES, Form, Request

__all__ = [
    "CAPABILITIES",
    "HANDSHAKE_LIMIT",
    "Decision",
    "Form",
    "FormChooser",
    "HandshakeError",
    "HandshakeParser",
    "Held",
    "Refuse",
    "Request",
    "Resume",
    "Snapshot",
    "decide",
    "explain_refusal",
    "format_answer",
    "format_request",
    "format_scopes",
    "parse_request",
]

#: Longest handshake in bytes; as the kevy server.
HANDSHAKE_LIMIT: Final = 4096

_LARGEST_NUMBER: Final = 2**64 - 1
# More words than any request that fits the limit can have.
_WORD_LIMIT: Final = 1024

# How ports for clients of Redis servers begin their answer to a handshake.
_CLIENT_PORT_ANSWERS: Final = ("ERR unknown command", "NOAUTH", "NOPERM", "ERR Protocol error", "DENIED")
# What nodes with scopes say to each other here.
_OTHER_NODES: Final = frozenset({b"PEER", b"INGEST"})
_REDIS_REPLICA: Final = frozenset({b"PSYNC", b"SYNC", b"PING", b"AUTH", b"REPLCONF"})


class HandshakeError(Exception):
    """The peer sent no handshake. ``reason`` says why, ``hint`` what it may be instead; both for the log only."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(f"{reason} ({hint})" if hint else reason)
        self.reason = reason
        self.hint = hint


class _OneCommand:
    """Bytes in, the words of the one command they begin with out. Blank lines in front of it are skipped."""

    __slots__ = ("_limit", "_pending", "_place", "_reader", "rest", "words")

    def __init__(self, limit: int, word_limit: int) -> None:
        self._limit = limit
        self._reader = CommandReader(limit, word_limit)
        self._pending = bytearray()
        self._place = 0
        self.words: list[bytes] = []
        self.rest = b""

    def feed(self, data: bytes) -> bool:
        """Whether the command is complete: its ``words``, and the ``rest`` behind it. Raises HandshakeError."""
        if self.words:
            raise RuntimeError("the command is complete: what follows it belongs to another parser")
        pending = self._pending
        room = self._limit - len(pending)
        pending += data[:room]
        while True:
            try:
                self._place, words = self._reader.read(pending, self._place)
            except Malformed as error:
                raise HandshakeError(f"malformed request: {error.text}") from None
            if words:
                self.words = words
                self.rest = bytes(pending[self._place :]) + data[room:]
                pending.clear()
                return True
            if words is None:
                if len(data) > room:
                    raise HandshakeError(f"no complete request in {self._limit} bytes")
                return False


class HandshakeParser:
    """Bytes in, one request out; ``rest`` then holds the bytes behind it, and ``words`` the request as it came.

    Whoever also takes connections that begin with another command calls :meth:`feed_words` and reads the words.
    """

    __slots__ = ("_command",)

    def __init__(self) -> None:
        self._command = _OneCommand(HANDSHAKE_LIMIT, _WORD_LIMIT)

    @property
    def rest(self) -> bytes:
        """What followed the request in the bytes fed."""
        return self._command.rest

    @property
    def words(self) -> Sequence[bytes]:
        """The words of the request, also of one that was refused; empty until it is complete."""
        return self._command.words

    def feed(self, data: bytes) -> Request | None:
        """The request, once it is complete. Raises :class:`HandshakeError`; feed nothing behind it or the request."""
        return parse_request(self._command.words) if self._command.feed(data) else None

    def feed_words(self, data: bytes) -> bool:
        """Whether ``words`` is complete, whatever command it is. Raises and ends as :meth:`feed`."""
        return self._command.feed(data)


def parse_request(words: Sequence[bytes]) -> Request:
    """The request that ``words`` make. Raises :class:`HandshakeError`."""
    command = words[0].upper()
    if command != b"REPLICATE":
        if command in _REDIS_REPLICA:
            who = "a Redis or Valkey replica or client"
            hint = f"{who} sent {command.decode()}: this port is for replicas of kevynode and kevy"
        elif command in _OTHER_NODES:
            hint = f"a node that shares scopes with this one sent {command.decode()}: no scopes are declared here"
        else:
            hint = f"got {words[0][:32]!r}: is this a client that wants the client port?"
        raise HandshakeError("expected REPLICATE command", hint)
    size = len(words)
    extended = size >= 8 and words[6].upper() == b"CAPA"
    if size not in (5, 6) and not extended:
        raise HandshakeError(f"REPLICATE expects 6 args, got {size}")
    numbers = 1 if size == 5 else 2
    if words[1].upper() != b"FROM":
        raise HandshakeError("expected 'FROM' keyword")
    if words[2 + numbers].upper() != b"ID":
        raise HandshakeError("expected 'ID' keyword")
    history = unsigned(words[2], _LARGEST_NUMBER) if numbers == 2 else 0
    if history is None:
        raise HandshakeError("generation must be an unsigned decimal")
    offset = unsigned(words[1 + numbers], _LARGEST_NUMBER)
    if offset is None:
        raise HandshakeError("from-offset must be an unsigned decimal")
    replica_id = _text(words[3 + numbers])
    if not replica_id:
        raise HandshakeError("replica id must be non-empty UTF-8")
    if not extended:
        return Request(Form.FIVE if numbers == 1 else Form.SIX, history, offset, replica_id)
    names = [_text(name) for name in words[8:]]
    if unsigned(words[7], size) != len(names):
        raise HandshakeError(f"CAPA announces {words[7][:32]!r} names, got {len(names)}")
    if not all(names):
        raise HandshakeError("a capability must be non-empty UTF-8")
    return Request(Form.EXTENDED, history, offset, replica_id, frozenset(names))


def _text(word: bytes) -> str:
    """The text of a word, empty if it is not UTF-8."""
    try:
        return word.decode("utf-8")
    except UnicodeDecodeError:
        return ""


def format_request(request: Request) -> bytes:
    """The request as a replica sends it. Raises ValueError if its id is empty or it is longer than the limit."""
    if not request.replica_id:
        raise ValueError("a replica needs an id")
    numbers = [request.offset] if request.form is Form.FIVE else [request.history, request.offset]
    words = [b"REPLICATE", b"FROM", *(b"%d" % number for number in numbers), b"ID", request.replica_id.encode()]
    if request.form is Form.EXTENDED:
        names = _ordered(request.capabilities) + sorted(request.capabilities.difference(CAPABILITIES))
        words += [b"CAPA", b"%d" % len(names), *(name.encode() for name in names)]
    data = _multibulk(words)
    if len(data) > HANDSHAKE_LIMIT:
        raise ValueError(f"a handshake has at most {HANDSHAKE_LIMIT} bytes, not {len(data)}")
    return data


def format_answer(request: Request, lineage: Lineage, accepted: Collection[str] = ()) -> bytes:
    """What the primary of ``lineage`` answers before the stream; it repeats the offset asked for.

    To an extended request it names the capabilities in ``accepted`` that the replica has too, and its older histories
    if that is among them.
    """
    if request.form is Form.FIVE:
        return b"+ACK %d\r\n" % request.offset
    answer = b"+ACK %d %d\r\n" % (lineage.history, request.offset)
    if request.form is Form.SIX:
        return answer
    names = _ordered(request.capabilities.intersection(accepted))
    answer += " ".join(["+CAPA", str(len(names)), *names]).encode() + b"\r\n"
    if "lineage" in names:
        ancestors = [f"{history}@{offset}" for history, offset in lineage.ancestors]
        answer += " ".join(["+LINEAGE", *ancestors]).encode() + b"\r\n"
    return answer


def _ordered(names: Collection[str]) -> list[str]:
    return [name for name in CAPABILITIES if name in names]


def explain_refusal(peer: str, text: str) -> str:
    """What it means that ``peer`` answers a handshake with an error line of this text, for the log."""
    if text.startswith("LOADING"):
        # What a replication port says, too, before there is anything to stream.
        return f"{peer} is not ready: {text}"
    answer = text.partition(", with args")[0]
    if not text.startswith(_CLIENT_PORT_ANSWERS):
        return f"{peer} refuses this replica: {answer}"
    return (
        f"{peer} is a client port; replicas connect to the replication port (usually client port + 10000)."
        f" It answered: {answer}"
    )


def format_scopes(prefixes: Collection[bytes]) -> bytes:
    """The request that narrows a link to ``prefixes``. Raises ValueError if it is longer than the limit."""
    data = _multibulk([b"REPLCONF", b"SCOPES", b"%d" % len(prefixes), *prefixes])
    if len(data) > SCOPES_LIMIT:
        raise ValueError(f"prefixes take at most {SCOPES_LIMIT} bytes in all, not {len(data)}")
    return data


def _multibulk(words: Sequence[bytes]) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
