"""The careful way of a command: look-up, gates in Valkey's order, queueing, execution, reply.

The loop over commands (:mod:`kevynode.serve.loop`) takes a short cut for a plain command on a connection and a node
with nothing special about them; whatever else comes along goes through :func:`process`, which gives the same answers
and asks every question.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .. import errors
from ..errors import ErrorKind, ReplyError
from ..reply import QUEUED, Reply
from ..store.command import Args, Blocked, Command
from .monitor import feed_monitors
from .roles import WRITE_REFUSALS

if TYPE_CHECKING:
    from ..scope.ownership import Ownership
    from .server import Server
    from .session import Session
    from .transactions import Transaction

__all__ = ["ask", "call", "process", "refuse", "resolve"]

NO_AUTHENTICATION = ErrorKind("NOAUTH", "Authentication required.", "Send AUTH or HELLO with AUTH first.")

# What a RESP2 connection may send while it listens to channels.
_WHILE_SUBSCRIBED = frozenset(
    ("ping", "subscribe", "ssubscribe", "unsubscribe", "sunsubscribe", "psubscribe", "punsubscribe", "quit", "reset")
)
# What is let through while the first copy of a primary's data is on its way, beside the commands that Valkey lets
# through: a client may ask whether the node lives, and an operator may end a load from a primary that is gone. A load
# of files ends by itself, and the role has to wait for it.
_WHILE_COPYING = frozenset(("ping", "replicaof", "slaveof"))
# What runs at once although a transaction is open.
_NEVER_QUEUED = frozenset(("exec", "discard", "multi", "watch", "quit", "reset"))
_SHOWN_ARGUMENTS = 128
_WEB_REQUESTS = frozenset((b"post", b"host:"))


def process(session: Session, argv: list[bytes]) -> None:
    """Take one command through all gates, run or queue it, and reply. An empty ``argv`` is a protocol error."""
    if not argv:
        session.protocol_error()
        return
    if argv[0].lower() in _WEB_REQUESTS:
        # A browser that a hostile page sent here: nothing that follows may be taken for commands. As Valkey.
        session.server.log.warning("web_request_refused", id=session.id, peer=session.peer)
        session.close("looks like a web request", discard=True)
        return
    server = session.server
    command: Command | None = None
    try:
        if not session.authenticated:
            _ask_for_password(server, argv)
        command = resolve(server, argv)
        refuse(session, command, argv)
    except ReplyError as error:
        _reject(session, command or server.table.get(argv[0]), error)
        session.finish_command()
        if server.waiters.ready:
            # What was evicted to make room for the command.
            server.waiters.serve()
        return
    if _must_pause(session, command):
        session.postpone(argv)
        return
    transaction = session.transaction
    if transaction is not None and command.name not in _NEVER_QUEUED:
        transaction.queue(command, argv)
        session.write(QUEUED)
        session.finish_command()
        return
    reply = call(session, command, argv)
    session.commit()
    parked = isinstance(reply, Blocked)
    if isinstance(reply, Blocked):
        server.waiters.park(session, command, argv, reply)
    else:
        session.write(reply)
    if server.waiters.ready:
        server.waiters.serve()
    if parked:
        session.release_pushes()
    else:
        # Behind the reply comes what this session hears of its command, and of those whom that has served.
        session.finish_command()


def _ask_for_password(server: Server, argv: Args) -> None:
    """Before AUTH nothing is told, not even which commands there are."""
    command = server.table.get(argv[0])
    if command is None or "no_auth" not in command.flags:
        raise NO_AUTHENTICATION()


def resolve(server: Server, argv: Args) -> Command:
    """The command or subcommand that ``argv`` names, with an argument count that fits. Raises ReplyError."""
    command = server.table.get(argv[0])
    if command is None:
        raise _unknown(argv)
    if command.subcommands and len(argv) > 1:
        found = command.subcommands.get(argv[1].lower())
        if found is None:
            raise errors.UNKNOWN_SUBCOMMAND(errors.text(argv[1][:_SHOWN_ARGUMENTS]), command.name.upper())
        command = found
    if not command.accepts(len(argv)):
        raise errors.WRONG_ARITY(command.full_name)
    return command


def _unknown(argv: Args) -> ReplyError:
    shown = ""
    for argument in argv[1:]:
        if len(shown) >= _SHOWN_ARGUMENTS:
            break
        word = argument[: _SHOWN_ARGUMENTS - len(shown)].partition(b"\0")[0]
        shown += f"'{errors.text(word)}' "
    return errors.UNKNOWN_COMMAND(errors.text(argv[0][:_SHOWN_ARGUMENTS]), shown)


def refuse(session: Session, command: Command, argv: Args) -> None:
    """Ask every gate, in Valkey's order; raises the ReplyError of the first that is shut."""
    server = session.server
    flags = every = command.flags
    transaction = session.transaction
    if not session.authenticated and "no_auth" not in flags:
        raise NO_AUTHENTICATION()
    if transaction is not None:
        if "no_multi" in flags:
            raise errors.NOT_IN_TRANSACTION(command.full_name)
        if command.name == "exec":
            # EXEC asks again for all that it will run: what one of them needs, and what all of them may.
            flags = flags.union(*(queued.flags for queued, _ in transaction.commands))
            every = every.intersection(*(queued.flags for queued, _ in transaction.commands))
    if server.ownership is not None:
        _refuse_keys(server.ownership, session, command, argv)
    if server.make_room is not None and not server.make_room() and "denyoom" in flags:
        raise errors.OUT_OF_MEMORY()
    if server.write_refusals:
        _refuse_write(server.write_refusals, command, "write" in flags)
    if session.protocol == 2 and "subscribed" in session.gates and command.name not in _WHILE_SUBSCRIBED:
        raise errors.SUBSCRIBED(command.full_name)
    if server.stale and "stale" not in every:
        raise errors.STALE()
    if server.loading_reasons and "loading" not in every and not _may_run_while_copying(server, command):
        raise errors.LOADING()


def _refuse_keys(ownership: Ownership, session: Session, command: Command, argv: Args) -> None:
    """Raise what keeps a command, or EXEC's commands together, from writing their keys here; asked where Valkey does.

    A transaction that is bound to fail is not asked for its keys: EXEC says that it failed before.
    """
    error: ReplyError | None = None
    transaction = session.transaction
    if transaction is not None and command.name == "exec":
        if transaction.failed:
            return
        commands: list[tuple[Command, list[bytes]]] = transaction.commands
        error = ownership.check(
            key for queued, words in commands if queued.writes for key in _written_keys(queued, words)
        )
        if error is None and any(queued.writes_everything for queued, _ in commands):
            error = ownership.check_all()
    elif command.writes_everything:
        error = ownership.check_all()
    elif command.writes and transaction is not None:
        error = _check_beside(ownership, transaction, _written_keys(command, argv))
    elif command.writes:
        error = ownership.check(_written_keys(command, argv))
    if error is not None:
        try:
            raise error
        finally:
            # The frame, which the error knows, must not know the error: no cycle for each write that is refused.
            del error


def _check_beside(ownership: Ownership, transaction: Transaction, keys: list[bytes]) -> ReplyError | None:
    """What keeps a command from being queued: two scopes before anything else, for no node would take them together."""
    for scope in map(ownership.prefix_of, keys):
        if transaction.scope is None:
            transaction.scope = scope
        elif scope not in (None, transaction.scope):
            # A prefix is a key under it.
            return ownership.check([transaction.scope, *keys])
    return ownership.check(keys)


def _written_keys(command: Command, argv: Args) -> list[bytes]:
    try:
        return command.written_keys(argv)
    except ValueError:
        # There is no telling which words are keys; the handler refuses such a line.
        return []


def _may_run_while_copying(server: Server, command: Command) -> bool:
    return command.name in _WHILE_COPYING and "files" not in server.loading_reasons


def _refuse_write(refusals: Mapping[str, str], command: Command, writes: bool) -> None:
    """Raise the first reason, in Valkey's order, for which this command is refused, if any is."""
    for reason, kind in WRITE_REFUSALS.items():
        # As in Valkey, PING tells those who watch a node that it cannot write.
        if reason in refusals and (writes or (reason == "misconf" and command.name == "ping")):
            raise kind(refusals[reason])


def _must_pause(session: Session, command: Command) -> bool:
    pause = session.server.pause
    if pause is None:
        return False
    if pause == "all":
        return True
    writes = command.writes or "may_replicate" in command.flags
    if command.name == "exec" and session.transaction is not None:
        writes = any(queued.writes or "may_replicate" in queued.flags for queued, _ in session.transaction.commands)
    return writes


def _reject(session: Session, command: Command | None, error: ReplyError) -> None:
    """Answer a command that did not run; an open transaction will not run either."""
    server = session.server
    server.count_error(error)
    if command is not None:
        command.rejected += 1
    if command is not None and command.name == "exec":
        session.end_transaction()
        error = errors.EXEC_ABORT_BECAUSE(error.text if error.prefix == "ERR" else str(error))
    elif session.transaction is not None:
        session.transaction.failed = True
    session.write(error)


def call(session: Session, command: Command, argv: Args) -> Reply | Blocked:
    """Run a handler and count it; whatever it raises becomes an error reply. The caller commits."""
    server = session.server
    store = server.store
    tracker = store.tracker
    if session.no_touch and command.name != "touch":
        store.tracker = None
    session.last_command = command
    started = server.perf()
    try:
        reply = ask(session, command, argv)
    finally:
        if session.no_touch:
            store.tracker = tracker
    elapsed = server.perf() - started
    if server.monitors:
        feed_monitors(session, command, argv)
    if isinstance(reply, ReplyError):
        command.failed += 1
        server.count_error(reply)
    store.settle()
    command.calls += 1
    command.seconds += elapsed
    session.traffic.commands_run += 1
    if elapsed > server.slow_after and server.on_slow is not None and command.name != "exec":
        server.on_slow(session, list(argv), elapsed)
    return reply


def ask(session: Session, command: Command, argv: Args) -> Reply | Blocked:
    """What a handler answers; whatever it raises becomes an error reply. Nothing is counted."""
    reply: Reply | Blocked
    try:
        reply = command.handler(session.server.store if command.on_store else session, argv)
    except ReplyError as error:
        reply = error
    except Exception as error:
        reply = session.server.unexpected(command.full_name, error)
    return reply
