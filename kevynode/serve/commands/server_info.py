"""INFO, TIME, SHUTDOWN, MONITOR: the node as a whole."""

from __future__ import annotations

from ... import errors
from ...errors import FIX, ErrorKind
from ...reply import NO_REPLY, OK, Reply, Verbatim
from ...store.command import Args, command
from ..info import info_text
from ..server import Shutdown
from ..session import Session

_NO_SHUTDOWN = ErrorKind("ERR", "No shutdown in progress.", FIX)
_SHUTDOWN_FAILED = ErrorKind("ERR", "Errors trying to SHUTDOWN. Check logs.", "Stop the process with a signal.")


@command(
    "info",
    arity=-1,
    flags="loading stale",
    group="server",
    since="1.0.0",
    summary="The state of the node, in sections of name:value lines.",
    complexity="O(1)",
    syntax="[section [section ...]]",
    categories="dangerous",
    tips=("nondeterministic_output", "request_policy:all_shards", "response_policy:special"),
    on_store=False,
)
def info(session: Session, argv: Args) -> Reply:
    text = info_text(session.server, (word.decode("latin-1") for word in argv[1:]))
    return Verbatim(text.encode("utf-8", "surrogateescape"))


@command(
    "time",
    arity=1,
    flags="loading stale fast",
    group="server",
    since="2.6.0",
    summary="The node's clock: unix seconds, and microseconds beyond them.",
    complexity="O(1)",
    tips=("nondeterministic_output",),
    on_store=False,
)
def time(session: Session, argv: Args) -> Reply:
    seconds, milliseconds = divmod(session.server.wall_ms(), 1000)
    return [b"%d" % seconds, b"%d" % (milliseconds * 1000)]


@command(
    "shutdown",
    arity=-1,
    flags="admin noscript loading stale no_multi allow_busy",
    group="server",
    since="1.0.0",
    summary="Stops the node.",
    complexity="O(N) when saving, where N is the number of keys; otherwise O(1)",
    syntax="[NOSAVE | SAVE] [NOW] [FORCE] [ABORT]",
    on_store=False,
)
def shutdown(session: Session, argv: Args) -> Reply:
    words = [word.lower() for word in argv[1:]]
    if any(word not in (b"nosave", b"save", b"now", b"force", b"abort") for word in words):
        raise errors.SYNTAX()
    if (b"nosave" in words and b"save" in words) or (b"abort" in words and len(set(words)) > 1):
        raise errors.SYNTAX()
    server = session.server
    if b"abort" in words:
        # A stop cannot be called back: it begins when it is asked for.
        raise _NO_SHUTDOWN()
    if server.on_shutdown is None:
        raise _SHUTDOWN_FAILED()
    save = True if b"save" in words else False if b"nosave" in words else None
    if server.loading:
        # As in Valkey: what is there is not all there is.
        save = False
    server.on_shutdown(Shutdown(save=save, now=b"now" in words, force=b"force" in words))
    if session.kind != "local":
        # Nothing behind it in a pipeline may be answered, for that would look like its answer.
        session.close("client said SHUTDOWN")
    return NO_REPLY


@command(
    "monitor",
    arity=1,
    flags="admin noscript loading stale",
    group="server",
    since="1.0.0",
    summary="Shows every command that the node runs, from now on.",
    complexity="",
    on_store=False,
)
def monitor(session: Session, argv: Args) -> Reply:
    server = session.server
    if session.kind != "local":
        server.monitors[session] = None
        server.gates.add("monitor")
    return OK
