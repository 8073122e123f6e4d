"""MOVE-SCOPE and MOVE-SCOPE-INGEST as clients send them: what is asked for, why not, and the answers. Pure.

Texts and the order of the checks are the kevy server's, with its dash and its quotes; what it does not have says so.

>>> parse_move([b"MOVE-SCOPE", b"app:", b"from", b"a", b"to", b"b", b"TIMEOUT", b"5000"])
MoveRequest(prefix=b'app:', source='a', target='b', timeout=5.0, force=False)
>>> try:
...     check_move(_, Standing("b", frozenset("ab"), {b"app:": "b"}, frozenset()))
... except ReplyError as error:
...     print(error)
ERR MOVE-SCOPE: from-id "a" is not this node ("b")
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, TypeAlias

import attrs

from ..errors import ReplyError, text
from ..replicate.parsing import CommandReader, Malformed, unsigned
from ..reply import Status
from .ledger_text import escape_prefix
from .move_machine import MoveStatus
from .moves import Outcome

__all__ = [
    "DEFAULT_TIMEOUT",
    "AbortRequest",
    "IngestRequest",
    "MoveRequest",
    "ResolveRequest",
    "Standing",
    "StatusRequest",
    "answer",
    "check_ingest",
    "check_move",
    "key_refused",
    "parse_ingest",
    "parse_move",
    "status_reply",
]

#: Seconds that a move may take until it is decided, unless the client says otherwise.
DEFAULT_TIMEOUT: Final = 30.0
_LONGEST_TIMEOUT: Final = 24 * 3600 * 1000
# What the rebuilding of one key takes at most, as a command's own limit: a command of 2,000 elements.
_ARGUMENT_LIMIT: Final = 1024 * 1024

_ARITY: Final = "wrong number of arguments — MOVE-SCOPE <prefix> FROM <from-id> TO <to-id>"
_SYNTAX: Final = "MOVE-SCOPE syntax: MOVE-SCOPE <prefix> FROM <from-id> TO <to-id>"
_INGEST_ARITY: Final = "wrong number of arguments — MOVE-SCOPE-INGEST <prefix> <bulk>"
_MALFORMED: Final = "MOVE-SCOPE-INGEST: malformed bulk"

#: What rebuilds a key, and which word of the command is the key.
_KEY_PLACES: Final = dict.fromkeys(b"SET HSET RPUSH SADD ZADD XADD XSETID XTRIM XCLAIM PEXPIREAT HPEXPIREAT".split(), 1)
_GROUP_STEPS: Final = (b"CREATE", b"CREATECONSUMER")


@attrs.frozen
class MoveRequest:
    """``MOVE-SCOPE <prefix> FROM <from-id> TO <to-id> [TIMEOUT ms] [FORCE]``; ``timeout`` in seconds."""

    prefix: bytes
    source: str
    target: str
    timeout: float = DEFAULT_TIMEOUT
    force: bool = False


@attrs.frozen
class StatusRequest:
    """``MOVE-SCOPE STATUS [prefix]``; None: all."""

    prefix: bytes | None


@attrs.frozen
class AbortRequest:
    """``MOVE-SCOPE ABORT <prefix>``."""

    prefix: bytes


@attrs.frozen
class ResolveRequest:
    """``MOVE-SCOPE RESOLVE <prefix> COMMIT|ABORT``."""

    prefix: bytes
    commit: bool


@attrs.frozen
class IngestRequest:
    """``MOVE-SCOPE-INGEST <prefix> <bulk>``: the commands that the bulk holds, each with its key."""

    prefix: bytes
    commands: tuple[tuple[bytes, list[bytes]], ...]


Request: TypeAlias = MoveRequest | StatusRequest | AbortRequest | ResolveRequest


@attrs.frozen
class Standing:
    """What a node must know of itself to check a request.

    ``node_id`` is empty if none is configured, ``peers`` the ids that moves may go to, ``owners`` the owner of each
    declared prefix by now, ``moving`` the prefixes of moves that are under way here, and ``declared_here`` those of
    which this node is the declared writer.
    """

    node_id: str
    peers: Collection[str]
    owners: Mapping[bytes, str]
    moving: Collection[bytes]
    declared_here: Collection[bytes] = ()


def parse_move(argv: Sequence[bytes]) -> Request:
    """What MOVE-SCOPE asks for. Raises ReplyError.

    The number of words tells the forms apart, so a prefix may be called STATUS.
    """
    size = len(argv)
    word = argv[1].upper() if size > 1 else b""
    if word == b"STATUS" and size in (2, 3):
        return StatusRequest(argv[2] if size == 3 else None)
    if word == b"ABORT" and size == 3:
        return AbortRequest(argv[2])
    if word == b"RESOLVE" and size == 4:
        decision = argv[3].upper()
        if decision not in (b"COMMIT", b"ABORT"):
            raise _error("MOVE-SCOPE syntax: MOVE-SCOPE RESOLVE <prefix> COMMIT|ABORT")
        return ResolveRequest(argv[2], decision == b"COMMIT")
    if size < 6:
        raise _error(_ARITY)
    if argv[2].upper() != b"FROM" or argv[4].upper() != b"TO":
        raise _error(_SYNTAX)
    try:
        source, target = argv[3].decode("utf-8"), argv[5].decode("utf-8")
    except UnicodeDecodeError:
        raise _error(_SYNTAX) from None
    timeout, force = _options(argv[6:])
    return MoveRequest(argv[1], source, target, timeout, force)


def _options(words: Sequence[bytes]) -> tuple[float, bool]:
    """The timeout in seconds, and whether FORCE was said; each at most once."""
    timeout: float | None = None
    force = False
    place = 0
    while place < len(words):
        option = words[place].upper()
        if option == b"FORCE" and not force:
            force = True
            place += 1
        elif option == b"TIMEOUT" and timeout is None and place + 1 < len(words):
            milliseconds = unsigned(words[place + 1], _LONGEST_TIMEOUT)
            if not milliseconds:
                raise _error(f"MOVE-SCOPE: TIMEOUT takes milliseconds from 1 to {_LONGEST_TIMEOUT}")
            timeout = milliseconds / 1000
            place += 2
        else:
            raise _error(_SYNTAX)
    return DEFAULT_TIMEOUT if timeout is None else timeout, force


def check_move(request: MoveRequest, standing: Standing) -> None:
    """Raise ReplyError where this node cannot even begin the move."""
    node_id = standing.node_id
    if not node_id:
        raise _error("MOVE-SCOPE: [cluster] node_id is not configured on this node")
    if request.source != node_id:
        raise _error(f"MOVE-SCOPE: from-id {_quote(request.source)} is not this node ({_quote(node_id)})")
    if request.target not in standing.peers:
        raise _error(f"MOVE-SCOPE: target node {_quote(request.target)} not in [cluster] peers")
    if not standing.owners:
        raise _error("MOVE-SCOPE: no [cluster] scopes declared on this node — writes would not quiesce during the move")
    owner = standing.owners.get(request.prefix)
    if owner is None:
        raise _error("MOVE-SCOPE: prefix is not a declared scope")
    if request.prefix in standing.moving:
        raise _error("MOVE-SCOPE: migration for this prefix is already in flight")
    if owner != node_id and request.prefix in standing.declared_here:
        raise _error("MOVE-SCOPE: prefix has already been migrated")
    if owner != node_id:
        raise _error(f"MOVE-SCOPE: the writer of the prefix is {_quote(owner)}, not this node ({_quote(node_id)})")
    if request.target == node_id:
        raise _error(f"MOVE-SCOPE: {_quote(node_id)} is the writer of the prefix already")


def answer(outcome: Outcome) -> Status | ReplyError:
    """The reply to whoever waits for the end of a move."""
    if outcome.kind == "moved":
        return Status(b"OK %d" % outcome.commands)
    if outcome.kind == "in doubt":
        return _error(f"MOVE-SCOPE in doubt: {outcome.reason}")
    return _error(f"MOVE-SCOPE ship failed: {outcome.reason}")


def status_reply(moves: Iterable[MoveStatus], prefix: bytes | None = None) -> list[dict[bytes, bytes | int]]:
    """The reply to MOVE-SCOPE STATUS: a map for each move (of ``prefix``), a flat array in protocol 2."""
    return [_row(move) for move in moves if prefix is None or move.prefix == prefix]


def _row(move: MoveStatus) -> dict[bytes, bytes | int]:
    return {
        b"prefix": move.prefix,
        b"move-id": move.move_id.encode(),
        b"role": move.role.encode(),
        b"state": move.state.encode(),
        b"peer": move.peer.encode(),
        b"epoch": move.epoch,
        b"following": int(move.following),
        b"keys": move.keys,
        b"sent-keys": move.sent_keys,
        b"commands": move.commands,
        b"bytes": move.size,
        b"window-ms": round(move.window * 1000),
        b"in-doubt": int(move.in_doubt),
        b"detail": move.detail.encode("utf-8", "surrogateescape"),
    }


# -- from a kevy source -----------------------------------------------------------------------------------------------


def parse_ingest(argv: Sequence[bytes]) -> IngestRequest:
    """What MOVE-SCOPE-INGEST brings. Raises ReplyError unless every command rebuilds a key under the prefix."""
    if len(argv) != 3:
        raise _error(_INGEST_ARITY)
    prefix, bulk = argv[1], bytearray(argv[2])
    reader = CommandReader(len(bulk), _ARGUMENT_LIMIT)
    commands: list[tuple[bytes, list[bytes]]] = []
    place = 0
    while place < len(bulk):
        if bulk[place] != 0x2A:
            raise _error(_MALFORMED)
        try:
            place, words = reader.read(bulk, place)
        except Malformed:
            raise _error(_MALFORMED) from None
        if words is None:
            raise _error(_MALFORMED)
        commands.append((_ingested_key(prefix, words), words))
    return IngestRequest(prefix, tuple(commands))


def _ingested_key(prefix: bytes, words: list[bytes]) -> bytes:
    name = words[0].upper()
    place = _KEY_PLACES.get(name)
    if name == b"XGROUP" and len(words) > 1 and words[1].upper() in _GROUP_STEPS:
        place = 2
    if len(words) < 3:
        raise _error(_MALFORMED)
    if place is None:
        raise key_refused(words[1], ReplyError("ERR", f"unknown command '{text(words[0][:64])}'"))
    key = words[place]
    if not key.startswith(prefix):
        raise key_refused(key, ReplyError("ERR", f"it is not under the prefix {escape_prefix(prefix)}"))
    return key


def check_ingest(prefix: bytes, owners: Mapping[bytes, str], kevy_peers: Collection[str], moving: bool) -> None:
    """Raise ReplyError unless ``prefix`` is declared, owned by a peer of kind kevy, and not moving here."""
    owner = owners.get(prefix)
    if owner is None:
        raise _error("MOVE-SCOPE-INGEST: prefix is not a declared scope")
    if moving:
        raise _error("MOVE-SCOPE-INGEST: migration for this prefix is already in flight")
    if owner not in kevy_peers:
        raise _error(f"MOVE-SCOPE-INGEST: {_quote(owner)}, the writer of the prefix, is no peer of kind kevy")


def key_refused(key: bytes, error: ReplyError) -> ReplyError:
    """The answer to an ingest of which one key cannot be taken."""
    return _error(f"MOVE-SCOPE-INGEST: key '{text(key)}' refused by this node: {error}")


def _error(message: str) -> ReplyError:
    return ReplyError("ERR", message)


def _quote(name: str) -> str:
    """A name in quotes, as the kevy server writes it."""
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(char if char.isprintable() else f"\\u{{{ord(char):x}}}" for char in escaped) + '"'
