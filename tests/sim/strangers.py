"""What somebody may say to a node who speaks its protocols, and means no good: valid for the most part, and then not.

Bytes alone hardly get behind a handshake. Here bytes are **choices**: whom to play, what to say next, which number to
get wrong. So whoever draws bytes, Hypothesis or a fuzzer that looks at what they reach, draws conversations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

from kevynode.replicate import wire
from kevynode.replicate.handshake import CAPABILITIES, Request
from kevynode.replicate.snapshot import encode_snapshot
from kevynode.scope import move_messages, move_wire, peer_messages, peer_wire
from kevynode.scope.copies import HeldCopy
from kevynode.scope.ledger import LedgerEntry
from kevynode.store.keyspace import KeyShard
from kevynode.store.marks import Acquire, Release

__all__ = [
    "EVE",
    "ONE",
    "PREFIXES",
    "Choices",
    "Talk",
    "ask_as_client",
    "ask_as_stranger",
    "said_by_peer",
    "said_in_a_move",
    "told_by_primary",
]

T = TypeVar("T")
#: Pieces to be sent one after the other.
Talk = Iterator[bytes]

#: The node under test, and who talks to it.
ONE: Final = "one"
EVE: Final = "eve"
#: What each of them writes, by declaration; the last one is declared by nobody.
PREFIXES: Final = (b"a:", b"b:", b"c:")

_NUMBERS: Final = (0, 1, 2, 3, 5, 7, 100, 2**31, 2**53 - 1, 2**53, 2**63 - 1, 2**64 - 1)
_WORDS: Final[tuple[tuple[bytes, ...], ...]] = (
    (b"SET", b"b:k", b"v"),
    (b"SET", b"a:k", b"v"),
    (b"SET", b"free", b"v"),
    (b"DEL", b"b:k", b"b:hash"),
    (b"HSET", b"b:hash", b"f", b"1"),
    (b"HINCRBY", b"b:hash", b"f", b"9223372036854775807"),
    (b"RPUSH", b"b:list", b"x", b"y"),
    (b"LTRIM", b"b:list", b"1", b"0"),
    (b"SADD", b"b:set", b"m"),
    (b"ZADD", b"b:zset", b"nan", b"m"),
    (b"ZADD", b"b:zset", b"1.5", b"m"),
    (b"XADD", b"b:stream", b"5-1", b"f", b"v"),
    (b"XGROUP", b"CREATE", b"b:stream", b"g", b"0"),
    (b"XCLAIM", b"b:stream", b"g", b"c", b"0", b"5-1", b"TIME", b"1", b"RETRYCOUNT", b"1", b"FORCE", b"JUSTID"),
    (b"PEXPIREAT", b"b:k", b"1"),
    (b"PEXPIREAT", b"b:hash", b"99999999999999"),
    (b"SET", b"b:k"),
    (b"SET", b"b:k", b"v", b"EX", b"10"),
    (b"FLUSHALL",),
    (b"NONSENSE", b"b:k"),
    (b"",),
    (b"MULTI",),
    (b"RENAME", b"b:k", b"a:k"),
    (b"APPEND", b"b:list", b"x"),
    Release(b"b:", 1, ONE).command(),
    Release(b"b:", 3, EVE).command(),
    Release(b"a:", 2, EVE).command(),
    Acquire(b"a:", 1, 7, 0).command(),
    Acquire(b"b:", 2, 9, 3).command(),
)
_JUNK: Final = (
    b"PING\r\n",
    b"*1\r\n$4\r\nSYNC\r\n",
    b"*1024\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x16\x03\x01\x02\x00",
    b"$5\r\n",
)
#: The last heartbeat that came back.
Heard = Callable[[], peer_messages.Beat | None]


class Choices:
    """Bytes as decisions. Once they are used up every choice is the first one."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0

    @property
    def left(self) -> bool:
        """Whether there is anything left to decide by."""
        return self._place < len(self._data)

    def number(self, limit: int) -> int:
        """A number below ``limit``, which is at most 256."""
        if not self.left:
            return 0
        self._place += 1
        return self._data[self._place - 1] % limit

    def pick(self, options: Sequence[T]) -> T:
        """One of these."""
        return options[self.number(len(options))]

    def seldom(self) -> bool:
        """True once in a while."""
        return self.number(16) == 15

    def near(self, right: int) -> int:
        """The right number for the most part."""
        if not self.seldom():
            return right
        return max(0, self.pick((right - 1, right + 1, right + 5, *_NUMBERS)))

    def spoilt(self, data: bytes) -> bytes:
        """What is to be sent, now and then cut short, doubled, or with a byte changed."""
        if not self.seldom() or not data:
            return data
        place = self.number(256) % len(data)
        match self.number(4):
            case 0:
                return data[:place]
            case 1:
                return data + data
            case 2:
                return data[:place] + bytes([self.number(256)]) + data[place + 1 :]
        return data[place:]


def _multibulk(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


# -- a primary --------------------------------------------------------------------------------------------------------


def told_by_primary(choices: Choices, request: Request | None, shards: Callable[[], list[KeyShard]]) -> Talk:
    """What a primary answers to a request, and its stream. ``shards`` are the data of a snapshot."""
    history = 7 if request is None or not request.history or choices.seldom() else request.history
    offset = 0 if request is None else request.offset
    names = sorted(CAPABILITIES if request is None else request.capabilities)
    if choices.seldom():
        yield choices.pick((b"-ERR unknown command\r\n", b"-NOAUTH x\r\n", b"+OK\r\n", b""))
    line = b"+ACK %d\r\n" % offset
    if request is None or request.form.name != "FIVE" or choices.seldom():
        line = b"+ACK %d %d\r\n" % (choices.near(history), choices.near(offset))
    if names and not choices.seldom():
        line += b" ".join([b"+CAPA", b"%d" % len(names), *(name.encode() for name in names)]) + b"\r\n"
        line += choices.pick(
            (b"+LINEAGE\r\n", b"+LINEAGE 7@3\r\n", b"+LINEAGE 9@2 7@1\r\n", b"+LINEAGE 7@1 9@5\r\n", b"")
        )
    yield choices.spoilt(line)
    position = offset
    if (request is None or not request.history) and not choices.seldom():
        position = choices.pick((1, 3, 0))
        yield wire.SNAPSHOT_BEGIN + _chunks(choices, shards()) + wire.snapshot_end(position)
    while choices.left:
        piece, position = _stream_piece(choices, history, position, shards)
        yield choices.spoilt(piece)


def _stream_piece(
    choices: Choices, history: int, position: int, shards: Callable[[], list[KeyShard]]
) -> tuple[bytes, int]:
    """Something that may stand in a stream at a position, and the position behind it."""
    match choices.number(12):
        case 0 | 1 | 2 | 3:
            words = [choices.pick(_WORDS) for _ in range(1 + choices.number(3))]
            return wire.encode_frames(choices.near(position), words), position + len(words)
        case 4:
            words = [choices.pick(_WORDS) for _ in range(1 + choices.number(3))]
            return wire.group(choices.near(len(words))) + wire.encode_frames(position, words), position + len(words)
        case 5:
            position = choices.near(position + choices.number(3))
            return wire.skip(position), position
        case 6 | 7:
            return wire.ping(choices.near(history), choices.near(position)), position
        case 8:
            position = choices.near(position)
            return wire.SNAPSHOT_BEGIN + _chunks(choices, shards()) + wire.snapshot_end(position), position
        case 9:
            begin = wire.snapshot_scope(choices.number(4), choices.pick(PREFIXES))
            return begin + _chunks(choices, shards()) + wire.snapshot_end(choices.near(position)), position
        case 10:
            return wire.ACK_REQUEST, position
    return choices.pick((wire.SNAPSHOT_BEGIN, wire.chunk(b"x"), wire.snapshot_end(position), b"-ERR x\r\n")), position


def _chunks(choices: Choices, shards: list[KeyShard]) -> bytes:
    payload = b"".join(encode_snapshot(shards, version=choices.pick((4, 6))))
    return b"".join(wire.chunk(piece) for piece in (payload[:10], choices.spoilt(payload[10:])) if piece)


# -- a replica, a peer, a node that moves -----------------------------------------------------------------------------


def ask_as_stranger(
    choices: Choices, heard: Callable[[], peer_messages.Beat | None], move_id: Callable[[], str]
) -> Talk:
    """What is said on the replication port by whoever dials it.

    ``heard`` is the last heartbeat that came back, ``move_id`` the newest move that is known of.
    """
    match choices.number(4):
        case 0:
            return _replica(choices)
        case 1:
            return _peer(choices, heard)
        case 2:
            return _source(choices, move_id)
    return _junk(choices)


def _replica(choices: Choices) -> Talk:
    names = sorted(CAPABILITIES)[choices.number(3) :]
    words = [b"REPLICATE", b"FROM", b"%d" % choices.pick(_NUMBERS), b"%d" % choices.pick(_NUMBERS), b"ID", b"eve.1"]
    form = choices.number(3)
    if form == 0:
        words += [b"CAPA", b"%d" % len(names), *(name.encode() for name in names)]
    elif form == 1:
        del words[3]
    yield choices.spoilt(_multibulk(*words))
    while choices.left:
        prefix = choices.pick((*PREFIXES, b"", b"a:k"))
        number = choices.pick(_NUMBERS)
        yield choices.spoilt(
            choices.pick(
                (
                    wire.ack(number),
                    _multibulk(b"REPLCONF", b"SCOPES", b"1", prefix),
                    _multibulk(b"REPLCONF", b"SCOPES", b"%d" % number, prefix, prefix),
                    wire.resync(prefix),
                    wire.resynced(prefix),
                    b"REPLCONF ACK\r\n",
                    b"\r\n" * 5,
                )
            )
        )


def _peer(choices: Choices, heard: Heard) -> Talk:
    instance = choices.pick(("eve-1", "eve-2", "eve-3"))
    hello = peer_messages.Hello(
        choices.pick((1, 1, 1, 2)), choices.pick((EVE, EVE, EVE, ONE, "mallory")), instance, ONE
    )
    yield choices.spoilt(peer_wire.encode(hello))
    yield from said_by_peer(choices, heard)


def said_by_peer(choices: Choices, heard: Heard) -> Talk:
    """What follows the greeting of a peer link, either way."""
    while choices.left:
        yield choices.spoilt(_peer_piece(choices, heard()))


def _peer_piece(choices: Choices, beat: peer_messages.Beat | None) -> bytes:
    match choices.number(6):
        case 0 | 1:
            ours = ("0" * 64, "f" * 64)
            ledger, configuration = ours if beat is None else (beat.ledger_digest, beat.configuration_digest)
            if choices.seldom():
                configuration = ours[1]
            versions = choices.pick(_NUMBERS), choices.pick(_NUMBERS)
            state = choices.pick(("serving", "waiting", "x"))
            digest = choices.pick((ledger, *ours))
            return peer_wire.encode(peer_messages.Beat(digest, *versions, configuration, state, "127.0.0.1:7001"))
        case 2 | 3:
            kind: Any = choices.pick(("NEWS", "PART", "LAST"))
            entries = tuple(
                LedgerEntry(
                    choices.pick(PREFIXES), choices.pick((ONE, EVE, "mallory")), choices.pick((1, 2, 3, 9)), move
                )
                for move in ("m1", "m2")[: choices.number(3)]
            )
            return peer_wire.encode(peer_messages.LedgerPage(kind, entries))
        case 4:
            rows: list[peer_messages.Row] = [
                peer_messages.ScopeRow(choices.pick(PREFIXES), choices.pick((ONE, EVE)), choices.pick(("", EVE))),
                peer_messages.PeerRow(choices.pick((ONE, EVE)), "127.0.0.1:7001", "127.0.0.1:17001", "kevynode"),
            ]
            place = choices.near(0)
            return peer_wire.encode(peer_messages.ConfigurationRows(place, choices.near(2), tuple(rows)))
    number, prefix = choices.number(3), choices.pick(PREFIXES)
    if choices.number(2):
        return peer_wire.encode(peer_messages.CopiesAsked(number, (prefix, b"b:")))
    held = HeldCopy(choices.pick((7, 9)), choices.pick((0, 5, 2**50)), choices.number(5), choices.number(3), ((9, 3),))
    return peer_wire.encode(peer_messages.CopiesHeld(number, ((prefix, held),)))


def _source(choices: Choices, move_id: Callable[[], str]) -> Talk:
    move = choices.pick(("m1", "m2", "m3"))
    source, target = choices.pick(
        ((EVE, ONE), (EVE, ONE), (ONE, EVE), ("mallory", ONE) if choices.seldom() else (EVE, ONE))
    )
    if source == ONE:
        # The target of a move of theirs, which asks.
        move = move_id() or move
    hello = move_wire.Hello(move, choices.pick((b"b:", b"b:", b"a:", b"c:")), source, target)
    yield choices.spoilt(move_wire.format_hello(hello))
    yield from said_in_a_move(choices, lambda: move)


def said_in_a_move(choices: Choices, move_id: Callable[[], str]) -> Talk:
    """What follows the hello of a move, either way."""
    chunks = 0
    while choices.left:
        move = "m9" if choices.seldom() else move_id() or "m1"
        made = _move_message(choices, move, chunks)
        chunks += isinstance(made, move_messages.Chunk)
        yield choices.spoilt(move_wire.encode(made))


def _move_message(choices: Choices, move: str, chunks: int) -> move_messages.Message:
    epoch, attempt, keys = choices.pick((1, 2, 3, 2**53 - 1)), choices.pick((1, 1, 2)), choices.pick((1, 0, 2))
    digest = choices.pick(("", "ab" * 32))
    data = _multibulk(*choices.pick(_WORDS)) if not choices.seldom() else b"*1\r\n$5\r\nab"
    makers: tuple[Callable[[], move_messages.Message], ...] = (
        lambda: move_messages.Request(move, choices.near(1), choices.number(2) == 0, choices.number(2) == 1),
        lambda: move_messages.Accepted(move, epoch, choices.number(2) == 1),
        lambda: move_messages.Stage(move, attempt, 7, choices.near(3)),
        lambda: move_messages.Chunk(move, attempt, choices.near(chunks), data),
        lambda: move_messages.Chunk(move, attempt, choices.near(chunks), data),
        lambda: move_messages.StageEnd(move, attempt, choices.near(chunks), keys, digest),
        lambda: move_messages.Await(move, 7, choices.near(3), keys, digest),
        lambda: move_messages.Activate(move, epoch, 7, choices.near(3)),
        lambda: move_messages.Sealed(move, keys, digest),
        lambda: move_messages.Activated(move, epoch),
        lambda: move_messages.NeedStage(move, attempt, "lost"),
        lambda: move_messages.Refused(move, choices.number(2) == 1, "no"),
        lambda: move_messages.Aborted(move),
        lambda: move_messages.Purged(move),
        lambda: move_messages.Ask(move),
        lambda: move_messages.Unknown(move),
    )
    return choices.pick(makers)()


def _junk(choices: Choices) -> Talk:
    while choices.left:
        yield choices.pick(
            (
                b"PING\r\n",
                b"*1\r\n$4\r\nSYNC\r\n",
                b"*1024\r\n",
                b"GET / HTTP/1.1\r\n\r\n",
                b"\x16\x03\x01\x02\x00",
                b"$5\r\n",
            )
        )


# -- a client ---------------------------------------------------------------------------------------------------------

_COMMANDS: Final[tuple[tuple[bytes, ...], ...]] = (
    (b"SET", b"a:k", b"v"),
    (b"SET", b"a:m", b"v", b"PX", b"50"),
    (b"SET", b"b:k", b"v"),
    (b"MULTI",),
    (b"EXEC",),
    (b"WATCH", b"a:k", b"b:k"),
    (b"BLPOP", b"a:list", b"b:list", b"0.1"),
    (b"RPUSH", b"a:list", b"x"),
    (b"LMOVE", b"b:list", b"a:list", b"LEFT", b"RIGHT"),
    (b"HSET", b"a:hash", b"f", b"v"),
    (b"WAIT", b"1", b"100"),
    (b"WAITAOF", b"1", b"0", b"100"),
    (b"REPL.TOKEN",),
    (b"REPL.WAIT", b"7", b"3", b"TIMEOUT", b"50"),
    (b"FLUSHALL",),
    (b"SUBSCRIBE", b"c"),
    (b"HELLO", b"3"),
    (b"CLIENT", b"NO-EVICT", b"on"),
    (b"INFO", b"everything"),
    (b"BGREWRITEAOF",),
    (b"MONITOR",),
    (b"RESET",),
)


def ask_as_client(choices: Choices) -> Talk:
    """What a client says, an operator's words among it."""
    while choices.left:
        prefix = choices.pick((b"a:", b"a:", b"b:", b"c:"))
        bulk = b"".join(_multibulk(*choices.pick(_WORDS)) for _ in range(choices.number(3)))
        words = choices.pick(
            (
                *(choices.pick(_COMMANDS) for _ in range(4)),
                (b"MOVE-SCOPE", prefix, b"FROM", ONE.encode(), b"TO", EVE.encode(), b"TIMEOUT", b"3000"),
                (b"MOVE-SCOPE", prefix, b"FROM", ONE.encode(), b"TO", EVE.encode(), b"FORCE"),
                (b"MOVE-SCOPE", b"a:", b"FROM", ONE.encode(), b"TO", EVE.encode()),
                (b"MOVE-SCOPE", b"ABORT", prefix),
                (b"MOVE-SCOPE", b"RESOLVE", prefix, choices.pick((b"COMMIT", b"ABORT"))),
                (b"MOVE-SCOPE", b"STATUS"),
                (b"MOVE-SCOPE-INGEST", prefix, choices.spoilt(bulk)),
            )
        )
        yield choices.spoilt(_multibulk(*words))
