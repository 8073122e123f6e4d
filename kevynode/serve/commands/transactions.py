"""MULTI, EXEC, DISCARD, WATCH, UNWATCH."""

from __future__ import annotations

from ... import errors
from ...reply import NO_REPLY, NULL_ARRAY, OK, Reply
from ...store.command import Args, Blocked, command, key_range
from .. import dispatch
from ..session import Session
from ..transactions import Transaction


@command(
    "multi",
    arity=1,
    flags="noscript loading stale fast no_multi allow_busy",
    group="transactions",
    since="1.2.0",
    summary="Opens a transaction: the commands that follow are queued until EXEC.",
    complexity="O(1)",
    on_store=False,
)
def multi(session: Session, argv: Args) -> Reply:
    session.transaction = Transaction()
    session.gates.add("transaction")
    return OK


@command(
    "exec",
    arity=1,
    flags="noscript loading stale skip_commandlog",
    group="transactions",
    since="1.2.0",
    summary="Runs all queued commands, with nothing in between, as one group.",
    complexity="Depends on commands in the transaction",
    on_store=False,
)
def execute(session: Session, argv: Args) -> Reply:
    transaction = session.transaction
    if transaction is None:
        raise errors.EXEC_WITHOUT_MULTI()
    dirty = session.dirty or session.server.watches.has_expired(session)
    session.end_transaction()
    if transaction.failed:
        raise errors.EXEC_ABORT()
    if dirty:
        return NULL_ARRAY
    session.write_header(len(transaction.commands))
    session.server.in_exec = True
    try:
        for queued, arguments in transaction.commands:
            # All of them run, but a client that has had itself killed reads no further, as in Valkey.
            silent = session.closing
            reply = dispatch.call(session, queued, arguments)
            if not silent:
                # Nobody waits inside a transaction: a command that would wait answers as if its time had passed.
                session.write(reply.at_once if isinstance(reply, Blocked) else reply)
    finally:
        session.server.in_exec = False
    return NO_REPLY


@command(
    "discard",
    arity=1,
    flags="noscript loading stale fast allow_busy",
    group="transactions",
    since="2.0.0",
    summary="Drops the queued commands and ends the transaction.",
    complexity="O(N), when N is the number of queued commands",
    on_store=False,
)
def discard(session: Session, argv: Args) -> Reply:
    if session.transaction is None:
        raise errors.DISCARD_WITHOUT_MULTI()
    session.end_transaction()
    return OK


@command(
    "watch",
    arity=-2,
    flags="noscript loading stale fast no_multi allow_busy",
    keys=key_range("RO"),
    group="transactions",
    since="2.2.0",
    summary="Makes the next EXEC conditional: it runs only if none of these keys has changed by then.",
    complexity="O(1) for every key.",
    syntax="key [key ...]",
    on_store=False,
)
def watch(session: Session, argv: Args) -> Reply:
    # A session whose EXEC is bound to fail need not watch anything more.
    if not session.dirty:
        for key in argv[1:]:
            session.server.watches.add(session, key)
    return OK


@command(
    "unwatch",
    arity=1,
    flags="noscript loading stale fast allow_busy",
    group="transactions",
    since="2.2.0",
    summary="Forgets all watched keys.",
    complexity="O(1)",
    on_store=False,
)
def unwatch(session: Session, argv: Args) -> Reply:
    session.server.watches.clear(session)
    session.dirty = False
    return OK
