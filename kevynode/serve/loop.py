"""The loop over the commands of one session: where a node's time goes.

It takes plain commands the short way, and everything else the careful way through :mod:`kevynode.serve.dispatch`. There
is a compiled twin of it; see :mod:`kevynode.twins`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .. import errors
from ..reply import BULK_HEADERS, Status, encode
from . import dispatch

if TYPE_CHECKING:
    from .session import Session

__all__ = ["PENDING_OUTPUT", "TURN_OUTPUT", "run_commands"]

#: Bytes of replies that pile up in one turn before they are sent.
TURN_OUTPUT: Final = 256 * 1024
#: Bytes that the peer has not taken yet before its next commands have to wait.
PENDING_OUTPUT: Final = 1024 * 1024


def run_commands(session: Session, deadline: float) -> bool:
    """Run queued commands until none is left, one must wait, or ``server.perf()`` passes ``deadline``.

    Whether the driver has to look at what has become of the session: it is not simply ready for more bytes.
    """
    # What is_free() asks, without the call.
    behind = session.output_pending + session.produced
    if session.waiting is not None or session.paused or session.closing or behind > PENDING_OUTPUT:
        return True
    queue = session.queue
    if not queue:
        return False
    server = session.server
    server.current = session
    special = False
    # Everything that every command needs is a local: this loop is where the node's time goes.
    store, journal, ready, find, (place, marks, cut, heads, is_kept) = server.needed_by_every_command
    perf = server.perf
    gates, server_gates = session.gates, server.gates
    held_pushes = session.held_pushes
    slow_after = server.slow_after
    tracks_written_keys = server.tracks_written_keys
    output = session.output
    size = 0
    # The last command that took the short way, and has not been noted in the session.
    last = None
    # Where the journal stood when session.wrote was last brought up to date.
    noted = journal.offset
    session.last_active = now = perf()
    try:
        while queue:
            argv = queue.popleft()
            command = find(argv[0]) if argv else None
            if (
                command is None
                or not command.plain
                or gates
                or server_gates
                or not command.fewest <= len(argv) <= command.most
                or (
                    marks
                    and command.writes_second_word
                    and place < len(argv[1])
                    and argv[1][place] in marks
                    and argv[1][cut] in heads
                    and is_kept(argv[1])
                )
            ):
                special = True
                start = len(output)
                if store.touched:
                    store.settle()
                if journal.offset != noted:
                    session.wrote = journal.offset
                if last is not None:
                    session.last_command = last
                    last = None
                # It notes itself as the last command, or the subcommand that it stands for.
                dispatch.process(session, argv)
                noted = journal.offset
                size += sum(map(len, output[start:]))
                # It may have closed or opened the node, or a scope, for writes.
                _, _, _, find, (place, marks, cut, heads, is_kept) = server.needed_by_every_command
                now = perf()
                if now > deadline or size > TURN_OUTPUT or not session.is_free():
                    break
                continue
            last = command
            try:
                reply = command.handler(store, argv)
            except errors.ReplyError as error:
                command.failed += 1
                server.count_error(error)
                reply = error
            except Exception as error:
                reply = server.unexpected(command.name, error)
            if journal.pending:
                if tracks_written_keys:
                    session.note_written(journal.pending)
                journal.commit()
            kind = type(reply)
            if kind is bytes:
                length = len(reply)
                if length < 4096:
                    output += (BULK_HEADERS[length], reply, b"\r\n")
                else:
                    output.append(b"$%d\r\n%b\r\n" % (length, reply))
                size += length
            elif kind is Status:
                output.append(reply.wire)
            elif kind is int:
                output.append(b":%d\r\n" % reply)
            else:
                wire = encode(reply, session.protocol)
                output.append(wire)
                size += len(wire)
            before = now
            now = perf()
            elapsed = now - before
            command.calls += 1
            command.seconds += elapsed
            session.traffic.commands_run += 1
            if elapsed > slow_after and server.on_slow is not None:
                server.on_slow(session, argv, elapsed)
            if ready:
                if store.touched:
                    store.settle()
                session.wrote = journal.offset
                server.waiters.serve()
                noted = journal.offset
            if held_pushes:
                session.release_pushes()
            if now > deadline or size > TURN_OUTPUT:
                break
    finally:
        server.current = None
        # Once for all commands: several often write to the same container. Nobody asks for the sum in between.
        if store.touched:
            store.settle()
        if journal.offset != noted:
            session.wrote = journal.offset
    if last is not None:
        session.last_command = last
    if special or size > TURN_OUTPUT:
        session.measure_output()
        return bool(queue) or not session.is_free()
    return bool(queue)
