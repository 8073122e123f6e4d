"""BGREWRITEAOF, SAVE, BGSAVE, LASTSAVE: the node's files. How they come about is the node's business."""

from __future__ import annotations

from typing import Final

from ... import errors
from ...errors import FIX, ErrorKind
from ...persistence_view import REWRITE_RUNNING, SAVE_RUNNING
from ...reply import OK, Reply, Status
from ...store.command import Args, Blocked, command
from ..session import Session

_NOTHING_TO_CANCEL = ErrorKind("ERR", "Background saving is currently not in progress or scheduled", FIX)
_NOT_SAVED = ErrorKind("ERR", "the data could not be saved; the node's log has the reason", "Look into the log.")
_STILL_SAVING = ErrorKind("ERR", "the data are still being saved", "LASTSAVE and INFO tell when that is done.")
_SAVE_IN_PROCESS = ErrorKind(
    "ERR", "SAVE takes time, and execute() does not wait: use `await node.save()`, or BGSAVE", FIX
)

_REWRITE_ANSWERS: Final = {
    "started": Status(b"Background append only file rewriting started"),
    "scheduled": Status(b"Background append only file rewriting scheduled"),
}
_SAVE_ANSWERS: Final = {
    "started": Status(b"Background saving started"),
    "scheduled": Status(b"Background saving scheduled"),
}
_CANCEL_ANSWERS: Final = {
    "running": Status(b"Background saving cancelled"),
    "scheduled": Status(b"Scheduled background saving cancelled"),
}


class _AwaitedDump(Blocked):
    """The wait of SAVE: remembers how many dumps had succeeded before."""

    __slots__ = ("saves",)

    def __init__(self, saves: int) -> None:
        super().__init__(on_timeout=_STILL_SAVING(), signal="saved")
        self.saves = saves


@command(
    "bgrewriteaof",
    arity=1,
    flags="admin noscript no_async_loading",
    group="server",
    since="1.0.0",
    summary="Writes the append-only file anew, without what has been overwritten, while the node goes on.",
    complexity="O(1)",
    on_store=False,
)
def bgrewriteaof(session: Session, argv: Args) -> Reply:
    server = session.server
    if server.persistence.append_only().rewrite_running is not None:
        raise REWRITE_RUNNING()
    began = server.persistence.rewrite()
    # Not before what EXEC changes is complete, as in Valkey.
    return _REWRITE_ANSWERS["scheduled" if server.in_exec else began]


@command(
    "save",
    arity=1,
    flags="admin noscript no_async_loading no_multi",
    group="server",
    since="1.0.0",
    summary="Saves all data in one file; answers when that is done, while other clients are served.",
    complexity="O(N) where N is the total number of keys in all databases",
    on_store=False,
)
def save(session: Session, argv: Args) -> Reply | Blocked:
    """A rewrite that is under way comes first: as in Valkey, SAVE is not refused because of it."""
    persistence = session.server.persistence
    facts = persistence.dumps()
    waiting = session.waiting
    if waiting is not None and isinstance(waiting.blocked, _AwaitedDump):
        if facts.saves > waiting.blocked.saves:
            return OK
        if facts.running is None and not facts.scheduled:
            raise _NOT_SAVED()
        return waiting.blocked
    if session.kind == "local":
        raise _SAVE_IN_PROCESS()
    if facts.running is not None:
        raise SAVE_RUNNING()
    persistence.save(schedule=True)
    return _AwaitedDump(facts.saves)


@command(
    "bgsave",
    arity=-1,
    flags="admin noscript no_async_loading",
    group="server",
    since="1.0.0",
    summary="Saves all data in one file while the node goes on, or gives that up.",
    complexity="O(1)",
    syntax="[SCHEDULE | CANCEL]",
    on_store=False,
)
def bgsave(session: Session, argv: Args) -> Reply:
    word = argv[1].lower() if len(argv) > 1 else b""
    if len(argv) > 2 or (len(argv) == 2 and word not in (b"schedule", b"cancel")):
        raise errors.SYNTAX()
    server = session.server
    persistence = server.persistence
    if word == b"cancel":
        cancelled = persistence.cancel_save()
        if cancelled is None:
            raise _NOTHING_TO_CANCEL()
        return _CANCEL_ANSWERS[cancelled]
    if persistence.dumps().running is not None:
        raise SAVE_RUNNING()
    began = persistence.save(schedule=server.in_exec or word == b"schedule")
    return _SAVE_ANSWERS["scheduled" if server.in_exec else began]


@command(
    "lastsave",
    arity=1,
    flags="loading stale fast",
    group="server",
    since="1.0.0",
    summary="When the last save succeeded, in unix seconds; the start of the node if there was none.",
    complexity="O(1)",
    categories="admin dangerous",
    tips=("nondeterministic_output",),
    on_store=False,
)
def lastsave(session: Session, argv: Args) -> Reply:
    return session.server.persistence.dumps().last_save
