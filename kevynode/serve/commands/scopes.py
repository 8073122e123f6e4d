"""MOVE-SCOPE and MOVE-SCOPE-INGEST: giving a prefix to another node, and taking one. How it comes about is the node's.

As on a kevy server, with STATUS, ABORT and RESOLVE besides. The forms are told apart where scopes are known.
"""

from __future__ import annotations

from typing import Final

from ...errors import FIX, ErrorKind, ReplyError
from ...reply import Reply
from ...scope_view import Ticket
from ...store.command import Args, Blocked, command
from ..session import Session

_NO_SCOPES: Final = ErrorKind("ERR", "MOVE-SCOPE: no [cluster] scopes declared on this node", FIX)
_IN_PROCESS: Final = ErrorKind("ERR", "a move takes time, and execute() does not wait: send it as a client", FIX)
_UNENDED: Final = ErrorKind("ERR", "MOVE-SCOPE: the move goes on; MOVE-SCOPE STATUS tells how it ends", FIX)


class _AwaitedMove(Blocked):
    """The wait for what a ticket will say."""

    __slots__ = ("ticket",)

    def __init__(self, ticket: Ticket) -> None:
        super().__init__(on_timeout=_UNENDED(), at_once=_UNENDED(), signal="moved")
        self.ticket = ticket


def _waited(session: Session) -> Reply | Blocked | None:
    """What a command that waits already is to answer; None: it does not wait yet."""
    waiting = session.waiting
    if waiting is None or not isinstance(waiting.blocked, _AwaitedMove):
        return None
    reply = waiting.blocked.ticket.reply
    if reply is None:
        return waiting.blocked
    return _told(reply)


def _told(reply: Reply) -> Reply:
    if isinstance(reply, ReplyError):
        raise reply
    return reply


@command(
    "move-scope",
    arity=-1,
    flags="admin noscript no_async_loading no_multi",
    group="cluster",
    since="1.0.0",
    summary="Moves the keys under a prefix, and the right to write them, to another node; answers when that is done.",
    complexity="O(N) where N is the number of keys; only those under the prefix wait meanwhile",
    syntax="<prefix FROM from-id TO to-id [TIMEOUT milliseconds] [FORCE] | STATUS [prefix] | ABORT prefix | "
    "RESOLVE prefix <COMMIT | ABORT>>",
    on_store=False,
)
def move_scope(session: Session, argv: Args) -> Reply | Blocked:
    """The reply is ``+OK`` and the number of commands that were shipped, 0 to a target with a live copy."""
    waited = _waited(session)
    if waited is not None:
        return waited
    scopes = session.server.scopes
    if scopes is None:
        raise _NO_SCOPES()
    if session.kind == "local" and (len(argv) < 2 or argv[1].upper() != b"STATUS"):
        raise _IN_PROCESS()
    found = scopes.move_scope(argv)
    return _AwaitedMove(found) if isinstance(found, Ticket) else _told(found)


@command(
    "move-scope-ingest",
    arity=-1,
    flags="admin noscript no_async_loading no_multi",
    group="cluster",
    since="1.0.0",
    summary="Takes a prefix from a kevy server that gives it away, with all its keys; what a kevy server sends.",
    complexity="O(N) where N is the number of keys",
    syntax="prefix bulk",
    on_store=False,
)
def move_scope_ingest(session: Session, argv: Args) -> Reply | Blocked:
    """All or nothing, and this node is the writer of the prefix then."""
    waited = _waited(session)
    if waited is not None:
        return waited
    scopes = session.server.scopes
    if scopes is None:
        raise _NO_SCOPES()
    if session.kind == "local":
        raise _IN_PROCESS()
    found = scopes.ingest(argv, session.peer)
    return _AwaitedMove(found) if isinstance(found, Ticket) else _told(found)
