"""CONFIG: reading and changing parameters while the node runs."""

from __future__ import annotations

from typing import Final

from ... import errors
from ...errors import FIX, ErrorKind
from ...reply import OK, Reply
from ...store.command import Args, command, container
from ...store.glob import glob_match
from ...store.help import add_help
from ..parameters import ParameterError, Parameters
from ..session import Session

_UNKNOWN = ErrorKind("ERR", "Unknown option or number of arguments for CONFIG SET - '{}'", FIX)
_REFUSED = ErrorKind("ERR", "CONFIG SET failed (possibly related to argument '{}') - {}", FIX)
_NO_REWRITE = ErrorKind(
    "ERR",
    "Rewriting config file: a node is configured by its TOML file, which it never writes",
    "Write the value into the [config] section of the file.",
)

_ADMIN: Final = "admin noscript loading stale"
_EVERYWHERE: Final = ("request_policy:all_nodes", "response_policy:all_succeeded")

CONFIG: Final = container("config", group="server", since="2.0.0", summary="Reads and changes parameters.")
add_help(CONFIG)


def _parameters(session: Session) -> Parameters:
    server = session.server
    if server.parameters is None:
        server.parameters = Parameters(server)
    return server.parameters


@command(
    "get",
    arity=-3,
    flags=_ADMIN,
    group="server",
    since="2.0.0",
    summary="The parameters whose names match, with their values.",
    complexity="O(N) when N is the number of configuration parameters provided",
    syntax="parameter [parameter ...]",
    parent=CONFIG,
    on_store=False,
)
def config_get(session: Session, argv: Args) -> Reply:
    shown = _parameters(session).shown()
    found: dict[bytes, str] = {}
    for pattern in argv[2:]:
        name = errors.text(pattern).lower()
        if not any(char in name for char in "*?["):
            # The name comes back as the client wrote it.
            if name in shown and not any(known.lower() == pattern.lower() for known in found):
                found[pattern] = shown[name]
            continue
        for known, value in shown.items():
            if glob_match(name.encode("utf-8", "surrogateescape"), known.encode()):
                found.setdefault(known.encode(), value)
    return {name: found[name].encode("utf-8", "surrogateescape") for name in sorted(found)}


@command(
    "set",
    arity=-4,
    flags=_ADMIN,
    group="server",
    since="2.0.0",
    summary="Changes parameters, all that are given or none.",
    complexity="O(N) when N is the number of configuration parameters provided",
    syntax="parameter value [parameter value ...]",
    tips=_EVERYWHERE,
    parent=CONFIG,
    on_store=False,
)
def config_set(session: Session, argv: Args) -> Reply:
    if len(argv) % 2:
        raise errors.SYNTAX()
    words = [errors.text(word) for word in argv[2:]]
    if session.server.in_exec and "appendonly" in map(str.lower, words[::2]):
        # A file that begins here must find all data it begins with committed.
        session.commit()
    try:
        _parameters(session).change(zip(words[::2], words[1::2], strict=True))
    except ParameterError as error:
        raise (_UNKNOWN(error.name) if error.unknown else _REFUSED(error.name, error.reason)) from None
    return OK


@command(
    "resetstat",
    arity=2,
    flags=_ADMIN,
    group="server",
    since="2.0.0",
    summary="Zeroes the counters that INFO shows.",
    complexity="O(1)",
    tips=_EVERYWHERE,
    parent=CONFIG,
    on_store=False,
)
def config_resetstat(session: Session, argv: Args) -> Reply:
    session.server.reset_statistics()
    return OK


@command(
    "rewrite",
    arity=2,
    flags=_ADMIN,
    group="server",
    since="2.8.0",
    summary="Refused: the configuration file belongs to the operator.",
    complexity="O(1)",
    tips=_EVERYWHERE,
    parent=CONFIG,
    on_store=False,
)
def config_rewrite(session: Session, argv: Args) -> Reply:
    raise _NO_REWRITE()
