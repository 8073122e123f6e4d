"""SLOWLOG: the commands that took longest."""

from __future__ import annotations

from typing import Final

from ... import errors
from ...errors import FIX, ErrorKind
from ...reply import OK, Reply
from ...store.arguments import as_int
from ...store.command import Args, command, container
from ...store.help import UNKNOWN_FORM, add_help
from ..session import Session

_BAD_COUNT = ErrorKind("ERR", "count should be greater than or equal to -1", FIX)
_ADMIN: Final = "admin loading stale"

SLOWLOG: Final = container("slowlog", group="server", since="2.2.12", summary="Remembers commands that took long.")
add_help(SLOWLOG, "6.2.0")


@command(
    "get",
    arity=-2,
    flags=_ADMIN,
    group="server",
    since="2.2.12",
    summary="The newest entries: number, unix time, microseconds, command, address and name of the client.",
    complexity="O(N) where N is the number of entries returned",
    syntax="[count]",
    tips=("request_policy:all_nodes", "nondeterministic_output"),
    parent=SLOWLOG,
    on_store=False,
)
def slowlog_get(session: Session, argv: Args) -> Reply:
    if len(argv) > 3:
        raise UNKNOWN_FORM(errors.text(argv[1]), "SLOWLOG")
    count = as_int(argv[2]) if len(argv) == 3 else 10
    if count is None or count < -1:
        raise _BAD_COUNT()
    return [list(entry) for entry in session.server.slow_log.latest(count)]


@command(
    "len",
    arity=2,
    flags=_ADMIN,
    group="server",
    since="2.2.12",
    summary="How many entries there are.",
    complexity="O(1)",
    tips=("request_policy:all_nodes", "response_policy:agg_sum", "nondeterministic_output"),
    parent=SLOWLOG,
    on_store=False,
)
def slowlog_len(session: Session, argv: Args) -> Reply:
    return len(session.server.slow_log)


@command(
    "reset",
    arity=2,
    flags=_ADMIN,
    group="server",
    since="2.2.12",
    summary="Forgets all entries.",
    complexity="O(N) where N is the number of entries in the slowlog",
    tips=("request_policy:all_nodes", "response_policy:all_succeeded"),
    parent=SLOWLOG,
    on_store=False,
)
def slowlog_reset(session: Session, argv: Args) -> Reply:
    session.server.slow_log.clear()
    return OK
