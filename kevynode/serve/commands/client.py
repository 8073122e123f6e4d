"""CLIENT: who is connected, and what a connection says about itself."""

from __future__ import annotations

from functools import partial
from typing import Final

from ... import errors
from ...errors import FIX, ErrorKind
from ...reply import NO_REPLY, OK, Reply, SetReply, Verbatim
from ...store.arguments import as_int
from ...store.command import Args, command, container
from ...store.help import add_help
from ..client_filters import Filters
from ..client_line import client_line
from ..session import Session
from .connection import set_name

_NO_SUCH_CLIENT = ErrorKind("ERR", "No such client", FIX)
_BAD_LIBRARY = ErrorKind("ERR", "{} cannot contain spaces, newlines or special characters.", FIX)
_UNRECOGNIZED = ErrorKind("ERR", "Unrecognized option '{}'", FIX)
_TIMEOUT_NOT_INTEGER = ErrorKind("ERR", "timeout is not an integer or out of range", FIX)
_PAUSE_MODE = ErrorKind("ERR", "CLIENT PAUSE mode must be WRITE or ALL", FIX)
_UNBLOCK_REASON = ErrorKind("ERR", "CLIENT UNBLOCK reason should be TIMEOUT or ERROR", FIX)
_NO_TRACKING = ErrorKind(
    "ERR", "client-side caching is not supported by this node", "Do without, or cache in the application."
)
_NOT_TRACKING = ErrorKind(
    "ERR",
    "CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled",
    FIX,
)
_NOT_IMPORTING = ErrorKind("ERR", "Server is not in import mode", FIX)

_FILTERS = (
    "[TYPE <NORMAL | PRIMARY | REPLICA | PUBSUB>] [USER username] [ADDR ip:port] [LADDR ip:port] [SKIPME <YES | NO>] "
    "[MAXAGE maxage] [NAME client-name] [IDLE idle] [FLAGS flags] [LIB-NAME lib-name] [LIB-VER lib-version] [DB db-id] "
    "[CAPA capa] [IP ip] [ID client-id [client-id ...]]"
)

CLIENT: Final = container(
    "client", group="connection", since="2.4.0", summary="Looks at connections and changes how they behave."
)


_client: Final = partial(command, group="connection", complexity="O(1)", parent=CLIENT, on_store=False)


_EVERYWHERE = ("request_policy:all_nodes", "response_policy:all_succeeded")
_CHANGING = ("nondeterministic_output",)
_PLAIN = "noscript loading stale"
_ADMIN = "admin noscript loading stale"
_BUSY = "noscript loading stale allow_busy"

add_help(CLIENT)


# -- who is there ---------------------------------------------------------------------------------------------------


@_client("id", arity=2, flags=_BUSY, since="5.0.0", summary="The number of this connection.")
def client_id(session: Session, argv: Args) -> Reply:
    return session.id


@_client(
    "info", arity=2, flags=_PLAIN, since="6.2.0", summary="This connection as a line of CLIENT LIST.", tips=_CHANGING
)
def client_info(session: Session, argv: Args) -> Reply:
    return Verbatim(client_line(session) + b"\n")


@_client(
    "list",
    arity=-2,
    flags=_ADMIN,
    since="2.4.0",
    summary="The connections, one to a line; all of them or those that fit the filters.",
    syntax=_FILTERS,
    complexity="O(N) where N is the number of client connections",
    tips=_CHANGING,
)
def client_list(session: Session, argv: Args) -> Reply:
    found = Filters.parse(argv[2:], skip_me=False).select(session)
    return Verbatim(b"".join(client_line(client) + b"\n" for client in found))


@_client(
    "kill",
    arity=-3,
    flags=_ADMIN,
    since="2.4.0",
    summary="Closes connections: the one from an address, or all that fit the filters.",
    syntax=f"<ip:port | {_FILTERS}>",
    complexity="O(N) where N is the number of client connections",
)
def client_kill(session: Session, argv: Args) -> Reply:
    by_address = len(argv) == 3
    filters = Filters.parse((b"ADDR", argv[2]), skip_me=False) if by_address else Filters.parse(argv[2:], skip_me=True)
    victims = filters.select(session)
    if by_address and not victims:
        raise _NO_SUCH_CLIENT()
    for client in victims:
        # The client that asks gets its answer first.
        client.close("killed by CLIENT KILL", discard=client is not session)
    return OK if by_address else len(victims)


# -- what a connection says about itself ----------------------------------------------------------------------------


@_client("getname", arity=2, flags=_BUSY, since="2.6.9", summary="The name of this connection.")
def client_getname(session: Session, argv: Args) -> Reply:
    return session.name or None


@_client(
    "setname",
    arity=3,
    flags=_BUSY,
    since="2.6.9",
    summary="Names this connection; an empty name takes the name away.",
    syntax="connection-name",
    tips=_EVERYWHERE,
)
def client_setname(session: Session, argv: Args) -> Reply:
    set_name(session, argv[2])
    return OK


@_client(
    "setinfo",
    arity=4,
    flags=_BUSY,
    since="7.2.0",
    summary="Says which library the client uses, for CLIENT LIST.",
    syntax="<LIB-NAME libname | LIB-VER libver>",
    tips=_EVERYWHERE,
)
def client_setinfo(session: Session, argv: Args) -> Reply:
    option, value = argv[2].lower(), argv[3]
    if option not in (b"lib-name", b"lib-ver"):
        raise _UNRECOGNIZED(errors.text(argv[2]))
    if any(not 0x21 <= char <= 0x7E for char in value):
        raise _BAD_LIBRARY(option.upper().decode())
    if option == b"lib-name":
        session.library_name = value
    else:
        session.library_version = value
    return OK


@_client(
    "capa",
    arity=-3,
    flags=_BUSY,
    since="8.0.0",
    summary="Says what the client can do; names that are not known mean nothing.",
    syntax="capability [capability ...]",
)
def client_capa(session: Session, argv: Args) -> Reply:
    if any(word.lower() == b"redirect" for word in argv[2:]):
        session.follows_redirects = True
    return OK


def _on_or_off(word: bytes) -> bool:
    answer = {b"on": True, b"off": False}.get(word.lower())
    if answer is None:
        raise errors.SYNTAX()
    return answer


@_client(
    "no-evict",
    arity=3,
    flags="admin noscript loading stale allow_busy",
    since="7.0.0",
    summary="Says that this connection should outlive others when memory for clients runs short.",
    syntax="<ON | OFF>",
)
def client_no_evict(session: Session, argv: Args) -> Reply:
    session.no_evict = _on_or_off(argv[2])
    return OK


@_client(
    "no-touch",
    arity=3,
    flags=_BUSY,
    since="7.2.0",
    summary="Says whether this connection's commands count as accesses to keys.",
    syntax="<ON | OFF>",
)
def client_no_touch(session: Session, argv: Args) -> Reply:
    session.no_touch = _on_or_off(argv[2])
    if session.no_touch:
        session.gates.add("no touch")
    else:
        session.gates.discard("no touch")
    return OK


@_client(
    "reply",
    arity=3,
    flags="noscript loading stale no_multi allow_busy",
    since="3.2.0",
    summary="Switches replies on or off, or leaves the next one out.",
    syntax="<ON | OFF | SKIP>",
)
def client_reply(session: Session, argv: Args) -> Reply:
    word = argv[2].lower()
    if word == b"on":
        session.reply_mode = "on"
        session.gates.discard("reply")
        return OK
    if word == b"off":
        session.reply_mode = "off"
    elif word == b"skip":
        if session.reply_mode != "off":
            session.reply_mode = "skip next"
    else:
        raise errors.SYNTAX()
    session.gates.add("reply")
    return NO_REPLY


# -- making others wait, and go on ----------------------------------------------------------------------------------


@_client(
    "pause",
    arity=-3,
    flags=_ADMIN,
    since="3.0.0",
    summary="Lets all commands, or those that write, wait for so many milliseconds.",
    syntax="timeout [WRITE | ALL]",
)
def client_pause(session: Session, argv: Args) -> Reply:
    kind = "all"
    if len(argv) > 3:
        mode = {b"write": "write", b"all": "all"}.get(argv[3].lower())
        if mode is None:
            raise _PAUSE_MODE()
        kind = mode
    milliseconds = as_int(argv[2])
    if milliseconds is None:
        raise _TIMEOUT_NOT_INTEGER()
    if milliseconds < 0:
        raise errors.TIMEOUT_NEGATIVE()
    server = session.server
    if milliseconds > (1 << 63) - 1 - server.store.now:
        raise errors.TIMEOUT_OUT_OF_RANGE()
    server.start_pause(kind, server.monotonic() + milliseconds / 1000)
    return OK


@_client(
    "unpause",
    arity=2,
    flags=_ADMIN,
    since="6.2.0",
    summary="Ends CLIENT PAUSE.",
    complexity="O(N) Where N is the number of paused clients",
)
def client_unpause(session: Session, argv: Args) -> Reply:
    session.server.end_pause()
    return OK


@_client(
    "unblock",
    arity=-3,
    flags=_ADMIN,
    since="5.0.0",
    summary="Ends another client's wait: as if its time had passed, or with an error.",
    syntax="client-id [TIMEOUT | ERROR]",
    complexity="O(log N) where N is the number of client connections",
)
def client_unblock(session: Session, argv: Args) -> Reply:
    with_error = False
    if len(argv) == 4:
        reason = {b"timeout": False, b"error": True}.get(argv[3].lower())
        if reason is None:
            raise _UNBLOCK_REASON()
        with_error = reason
    number = as_int(argv[2])
    if number is None:
        raise errors.NOT_INTEGER()
    target = session.server.sessions.get(number)
    if target is None or target.waiting is None:
        return 0
    error = errors.UNBLOCKED()
    if with_error:
        session.server.count_error(error)
    session.server.waiters.release(target, error if with_error else target.waiting.blocked.give_up())
    return 1


# -- what there is not ----------------------------------------------------------------------------------------------


@_client(
    "tracking",
    arity=-3,
    flags=_PLAIN,
    since="6.0.0",
    summary="Client-side caching, which a node does not offer: OFF is accepted, ON is refused.",
    syntax="<ON | OFF>",
    complexity="O(1). Some options may introduce additional complexity.",
)
def client_tracking(session: Session, argv: Args) -> Reply:
    if _on_or_off(argv[2]):
        raise _NO_TRACKING()
    if len(argv) > 3:
        raise errors.SYNTAX()
    return OK


@_client("trackinginfo", arity=2, flags=_PLAIN, since="6.2.0", summary="The state of client-side caching: always off.")
def client_trackinginfo(session: Session, argv: Args) -> Reply:
    return {b"flags": SetReply((b"off",)), b"redirect": -1, b"prefixes": []}


@_client("getredir", arity=2, flags=_BUSY, since="6.0.0", summary="Who gets this connection's invalidations: nobody.")
def client_getredir(session: Session, argv: Args) -> Reply:
    return -1


@_client(
    "caching",
    arity=3,
    flags=_BUSY,
    since="6.0.0",
    summary="Chooses what client-side caching follows; refused, as there is none.",
    syntax="<YES | NO>",
)
def client_caching(session: Session, argv: Args) -> Reply:
    raise _NOT_TRACKING()


@_client(
    "import-source",
    arity=3,
    flags=_PLAIN,
    since="8.1.0",
    summary="Marks a connection that imports data; ON is refused, as there is no import mode.",
    syntax="<ON | OFF>",
)
def client_import_source(session: Session, argv: Args) -> Reply:
    if argv[2].lower() != b"off":
        raise _NOT_IMPORTING()
    return OK
