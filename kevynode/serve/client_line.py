"""A client as CLIENT LIST shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .session import Session

__all__ = ["client_flags", "client_line", "client_type"]


def client_type(session: Session) -> str:
    """``pubsub`` or ``normal``."""
    return session.kind_of_client()


def client_flags(session: Session) -> str:
    """The letters for what a client is doing, in Valkey's order; ``N`` for nothing special."""
    letters = (
        ("O", session in session.server.monitors),
        ("P", bool(session.subscriptions() or session.shard_channels)),
        ("x", session.transaction is not None),
        ("b", session.waiting is not None or session.paused),
        ("d", session.dirty),
        ("c", session.closing and not session.discard),
        ("A", session.closing and session.discard),
        ("U", session.kind == "unix"),
        ("e", session.no_evict),
        ("T", session.no_touch),
    )
    return "".join(letter for letter, holds in letters if holds) or "N"


def client_line(session: Session) -> bytes:
    """The line of one client, without its line feed.

    Sizes are bytes; what does not exist here (a buffer apart from the replies, redirected tracking) is 0 or -1.
    """
    server = session.server
    transaction = session.transaction
    held_output = session.held_output
    fields: tuple[tuple[bytes, object], ...] = (
        (b"id", session.id),
        (b"addr", session.peer),
        (b"laddr", session.local),
        (b"fd", session.fd),
        (b"name", session.name),
        (b"age", int(server.monotonic() - session.created)),
        (b"idle", int(server.perf() - session.last_active)),
        (b"flags", client_flags(session)),
        (b"capa", "r" if session.follows_redirects else ""),
        (b"db", 0),
        (b"sub", len(session.channels)),
        (b"psub", len(session.patterns)),
        (b"ssub", len(session.shard_channels)),
        (b"multi", -1 if transaction is None else len(transaction.commands)),
        (b"watch", len(session.watched)),
        (b"qbuf", session.held_input),
        (b"qbuf-free", 0),
        (b"argv-mem", 0),
        (b"multi-mem", 0 if transaction is None else transaction.bytes),
        (b"rbs", 0),
        (b"rbp", 0),
        (b"obl", 0),
        (b"oll", 1 if held_output else 0),
        (b"omem", held_output),
        (b"tot-mem", session.memory),
        (b"events", "rw" if session.output_pending else "r"),
        (b"cmd", "NULL" if session.last_command is None else session.last_command.full_name),
        (b"user", "default"),
        (b"redir", -1),
        (b"resp", session.protocol),
        (b"lib-name", session.library_name),
        (b"lib-ver", session.library_version),
        (b"tot-net-in", session.traffic.input_bytes),
        (b"tot-net-out", session.traffic.output_bytes),
        (b"tot-cmds", session.traffic.commands_run),
    )
    return b" ".join(b"%b=%b" % (name, _encode(value)) for name, value in fields)


def _encode(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")
