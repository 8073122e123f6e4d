"""REPLICAOF, ROLE, WAIT, WAITAOF, REPL.TOKEN, REPL.WAIT: who copies whom, and how far the copies are."""

from __future__ import annotations

from typing import Final

from ... import errors
from ...errors import FIX, ErrorKind, Misdirected, ReplyError
from ...reply import OK, Reply, Status
from ...store.arguments import as_int
from ...store.command import Args, Blocked, command
from ..server import Server
from ..session import Session

_INVALID_PORT = ErrorKind("ERR", "Invalid master port", FIX)
_TIMEOUT_NOT_INTEGER = ErrorKind("ERR", "timeout is not an integer or out of range", FIX)
_LOCAL_OUT_OF_RANGE = ErrorKind("ERR", "value is out of range, value must between 0 and 1", FIX)
_NO_APPEND_ONLY_FILE = ErrorKind(
    "ERR", "WAITAOF cannot be used when numlocal is set but appendonly is disabled.", "Switch the append-only file on."
)
_WAIT_ON_REPLICA = ErrorKind("ERR", "WAIT cannot be used with replica instances", "Ask the primary.")
_WAITAOF_ON_REPLICA = ErrorKind(
    "ERR",
    "WAITAOF cannot be used with replica instances."
    " Please also note that writes to replicas are just local and are not propagated.",
    "Ask the primary.",
)
_OWNS_SCOPES = ErrorKind(
    "ERR",
    "REPLICAOF is not allowed on a node that owns scopes: {}",
    "Move them to other nodes first: a replica writes nothing.",
)
_MOVES_SCOPES = ErrorKind(
    "ERR",
    "REPLICAOF is not allowed while scopes are moving from or to this node: {}",
    "Try again when MOVE-SCOPE STATUS shows that these moves have ended: a replica's data are another node's.",
)
#: States of moves that need nothing of this node's data any more, as MOVE-SCOPE STATUS names them.
_ENDED: Final = frozenset(("done", "aborted", "closed", "failed", "active", "discarded"))
_ALREADY_CONNECTED: Final = Status(b"OK Already connected to specified master")

#: How many scopes an error names, at most.
_SCOPES_NAMED: Final = 8

_SHARDS: Final = ("request_policy:all_shards", "response_policy:agg_min")


# -- roles ----------------------------------------------------------------------------------------------------------


@command(
    "replicaof",
    arity=3,
    flags="admin noscript stale no_async_loading",
    group="server",
    since="5.0.0",
    summary="Follows the primary with this replication address; NO ONE makes the node a primary.",
    complexity="O(1)",
    syntax="host port | NO ONE",
    on_store=False,
)
def replicaof(session: Session, argv: Args) -> Reply:
    server = session.server
    # Inside EXEC: what came before it belongs to the history that it ends.
    session.commit()
    if argv[1].lower() == b"no" and argv[2].lower() == b"one":
        if server.role != "master":
            server.view.promote()
            server.log.info("promoted_by_client", id=session.id, peer=session.peer)
        return OK
    port = as_int(argv[2])
    if port is None or not 0 <= port <= 65535:
        raise _INVALID_PORT()
    _refuse_with_scopes(server)
    if not server.view.follow(errors.text(argv[1]), port):
        return _ALREADY_CONNECTED
    server.log.info("replicaof_by_client", id=session.id, peer=session.peer, upstream=errors.text(argv[1]), port=port)
    return OK


def _refuse_with_scopes(server: Server) -> None:
    """Raise where others count on the data of this node: what it writes, what comes to it and what it still hands over.

    A source keeps what it has given away until the new writer has said that it has it.
    """
    owned = () if server.ownership is None else server.ownership.owned()
    if owned:
        raise _OWNS_SCOPES(_listed(owned))
    moves = () if server.scopes is None else server.scopes.moves()
    moving = dict.fromkeys(move.prefix for move in moves if move.state not in _ENDED)
    if moving:
        raise _MOVES_SCOPES(_listed(tuple(moving)))


def _listed(prefixes: tuple[bytes, ...]) -> str:
    return ", ".join([*map(errors.text, prefixes[:_SCOPES_NAMED]), *["…"] * (len(prefixes) > _SCOPES_NAMED)])


@command(
    "slaveof",
    arity=3,
    flags="admin noscript stale no_async_loading",
    group="server",
    since="1.0.0",
    summary="The old name of REPLICAOF.",
    complexity="O(1)",
    syntax="host port | NO ONE",
    on_store=False,
)
def slaveof(session: Session, argv: Args) -> Reply:
    return replicaof(session, argv)


@command(
    "role",
    arity=1,
    flags="noscript loading stale fast",
    group="server",
    since="2.8.12",
    summary="Whether the node is a primary or a replica, and how far its stream has come.",
    complexity="O(1)",
    categories="admin dangerous",
    on_store=False,
)
def role(session: Session, argv: Args) -> Reply:
    server = session.server
    view = server.view
    if server.role == "master":
        replicas = [
            [replica.address.encode(), b"%d" % replica.port, b"%d" % replica.acked]
            for replica in view.replicas()
            if replica.state == "online"
        ]
        return [b"master", view.position, replicas]
    upstream = server.upstream
    if upstream is None:
        return [b"slave", b"", 0, b"connect", view.position]
    return [
        b"slave",
        upstream.host.encode("utf-8", "surrogateescape"),
        upstream.port,
        upstream.state.encode(),
        view.position,
    ]


# -- acknowledgements -----------------------------------------------------------------------------------------------


def _timeout(word: bytes, now: int) -> int:
    milliseconds = as_int(word)
    if milliseconds is None:
        raise _TIMEOUT_NOT_INTEGER()
    if milliseconds < 0:
        raise errors.TIMEOUT_NEGATIVE()
    if milliseconds > (1 << 63) - 1 - now:
        raise errors.TIMEOUT_OUT_OF_RANGE()
    return milliseconds


@command(
    "wait",
    arity=3,
    flags="blocking",
    group="generic",
    since="3.0.0",
    summary="Waits until so many replicas have all that this connection wrote.",
    complexity="O(1)",
    syntax="numreplicas timeout",
    categories="connection",
    tips=_SHARDS,
    on_store=False,
)
def wait(session: Session, argv: Args) -> Reply | Blocked:
    """Applied, not on the disk of the replicas. A replica that follows only some keys counts if it follows all those
    that the connection wrote since a WAIT of it was fulfilled.
    """
    server = session.server
    if server.role != "master":
        raise _WAIT_ON_REPLICA()
    replicas = as_int(argv[1])
    if replicas is None:
        raise errors.NOT_INTEGER()
    milliseconds = _timeout(argv[2], server.store.now)
    reached = count_acknowledged(session)
    if reached >= replicas:
        session.wait_fulfilled = session.wait_fulfilled or replicas > 0
        return reached
    if session.waiting is None:
        # Once: what they answer has this run again.
        server.view.ask_for_acknowledgements()
    return Blocked(
        (), milliseconds, on_timeout=lambda: count_acknowledged(session), at_once=reached, signal="acknowledged"
    )


def count_acknowledged(session: Session) -> int:
    """How many replicas have applied everything that ``session`` wrote."""
    known = session.server.tracks_written_keys and session.written is not None
    written = frozenset(session.written or ()) if known else None
    return session.server.view.acknowledged(session.wrote, written)


@command(
    "waitaof",
    arity=4,
    flags="blocking",
    group="generic",
    since="7.2.0",
    summary="Waits until what this connection wrote is on the disk, here and on so many replicas.",
    complexity="O(1)",
    syntax="numlocal numreplicas timeout",
    categories="connection",
    tips=_SHARDS,
    on_store=False,
)
def waitaof(session: Session, argv: Args) -> Reply | Blocked:
    """Replicas acknowledge what they have applied, not what is on their disks: none of them ever counts here."""
    server = session.server
    local, replicas = as_int(argv[1]), as_int(argv[2])
    if local is None:
        raise errors.NOT_INTEGER()
    if local not in (0, 1):
        raise _LOCAL_OUT_OF_RANGE()
    if replicas is None or replicas < 0:
        raise errors.MUST_BE_POSITIVE()
    milliseconds = _timeout(argv[3], server.store.now)
    if server.role != "master":
        raise _WAITAOF_ON_REPLICA()
    durable = _count_durable(session)
    if local and not durable and not server.persistence.append_only().enabled:
        raise _NO_APPEND_ONLY_FILE()
    if durable >= local and not replicas:
        return [durable, 0]
    return Blocked(
        (), milliseconds, on_timeout=lambda: [_count_durable(session), 0], at_once=[durable, 0], signal="durable"
    )


def _count_durable(session: Session) -> int:
    """1 if all that ``session`` wrote is on the disk here, 0 if not."""
    return int(session.server.persistence.is_durable(session.wrote))


# -- tokens ---------------------------------------------------------------------------------------------------------


@command(
    "repl.token",
    arity=1,
    flags="loading stale fast",
    group="server",
    since="1.0.0",
    summary="The history of this node and its position in it: everything that it has done so far.",
    complexity="O(1)",
    on_store=False,
)
def repl_token(session: Session, argv: Args) -> Reply:
    server = session.server
    # Inside EXEC what it has done so far gets its offsets later.
    pending = len(server.store.journal.pending) if server.role == "master" else 0
    return [server.view.history, server.view.position + pending]


@command(
    "repl.wait",
    arity=-3,
    flags="blocking loading stale",
    group="server",
    since="1.0.0",
    summary="Waits until this node has applied everything before an offset of a history (see REPL.TOKEN).",
    complexity="O(1)",
    syntax="history offset [TIMEOUT milliseconds]",
    on_store=False,
)
def repl_wait(session: Session, argv: Args) -> Reply | Blocked:
    """Without TIMEOUT, or with 0, for as long as it takes. -MISDIRECTED when the time is over, and at once when the
    history is none that this node has or follows: it names where to read instead.
    """
    server = session.server
    history, offset = as_int(argv[1]), as_int(argv[2])
    if history is None or offset is None:
        raise errors.NOT_INTEGER()
    if history < 0 or offset < 0:
        raise errors.MUST_BE_POSITIVE()
    milliseconds = 0
    if len(argv) > 3:
        if len(argv) != 5 or argv[3].lower() != b"timeout":
            raise errors.SYNTAX()
        milliseconds = _timeout(argv[4], server.store.now)
    applied = server.view.has_applied(history, offset)
    if applied:
        return OK
    if applied is None:
        raise Misdirected(server.view.writer())
    return Blocked(
        (),
        milliseconds,
        on_timeout=lambda: _misdirected(server),
        at_once=Misdirected(server.view.writer()),
        signal="applied",
    )


def _misdirected(server: Server) -> ReplyError:
    error = Misdirected(server.view.writer())
    server.count_error(error)
    return error
