"""COMMAND: the command table, told to clients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from ... import errors
from ...errors import FIX, ErrorKind, ReplyError
from ...reply import Reply, SetReply, Status
from ...store.command import TABLE, Args, Command, KeySpec, command
from ...store.glob import glob_match
from ...store.help import add_help
from .. import dispatch
from ..command_docs import parse_syntax
from ..server import Server
from ..session import Session

_NO_SUCH_COMMAND = ErrorKind("ERR", "Invalid command specified", FIX)
_NO_KEYS = ErrorKind("ERR", "The command has no key arguments", FIX)
_BAD_COUNT = ErrorKind("ERR", "Invalid number of arguments specified for command", FIX)
_BAD_ARGUMENTS = ErrorKind("ERR", "Invalid arguments specified for command", FIX)

_ACCESS_FLAGS: Final = frozenset(("RO", "RW", "OW", "RM"))
# Flags that dispatch knows and Valkey does not tell either.
_UNTOLD_FLAGS: Final = frozenset(("may_replicate",))
_ORDER_FREE: Final = ("nondeterministic_output_order",)


def _show_flag(flag: str) -> Status:
    return Status((flag if flag in _ACCESS_FLAGS else flag.lower()).encode())


# -- COMMAND INFO ---------------------------------------------------------------------------------------------------


def legacy_range(entry: Command) -> tuple[int, int, int]:
    """First key, last key and step, for clients older than key specifications; zeros where no range says it."""
    plain = [spec for spec in entry.keys if isinstance(spec.begin, int) and spec.find[0] == "range"]
    if len(entry.keys) == 1 and plain:
        return _span(plain[0])
    first = last = 0
    for spec in plain:
        start, stop, step = _span(spec)
        # Only ranges that follow each other make one range.
        if step == 1 and (not last or last == start - 1):
            first, last = first or start, stop if stop < 0 or last >= 0 else last
    return (first, last, 1) if first else (0, 0, 0)


def _span(spec: KeySpec) -> tuple[int, int, int]:
    assert isinstance(spec.begin, int)
    _, last, step, _ = spec.find
    return spec.begin, spec.begin + last if last >= 0 else last, step


def has_movable_keys(entry: Command) -> bool:
    """Whether the legacy range does not tell all keys."""
    if entry.find_keys is not None or any("INCOMPLETE" in spec.flags for spec in entry.keys):
        return True
    last = 0
    for spec in entry.keys:
        if not isinstance(spec.begin, int) or spec.find[0] != "range":
            return True
        start, stop, step = _span(spec)
        if len(entry.keys) > 1 and (step != 1 or (last and last != start - 1)):
            return True
        last = stop
    return False


def _show_specification(spec: KeySpec) -> dict[bytes, Any]:
    begin: dict[bytes, Any]
    if spec.find[0] == "unknown":
        begin = {b"type": b"unknown", b"spec": {}}
    elif isinstance(spec.begin, int):
        begin = {b"type": b"index", b"spec": {b"index": spec.begin}}
    else:
        keyword, start = spec.begin
        begin = {b"type": b"keyword", b"spec": {b"keyword": keyword.encode(), b"startfrom": start}}
    find: dict[bytes, Any]
    if spec.find[0] == "range":
        _, last, step, limit = spec.find
        find = {b"type": b"range", b"spec": {b"lastkey": last, b"keystep": step, b"limit": limit}}
    elif spec.find[0] == "keynum":
        _, at, first, step = spec.find
        find = {b"type": b"keynum", b"spec": {b"keynumidx": at, b"firstkey": first, b"keystep": step}}
    else:
        find = {b"type": b"unknown", b"spec": {}}
    return {b"flags": SetReply(map(_show_flag, spec.flags)), b"begin_search": begin, b"find_keys": find}


def show_command(entry: Command) -> list[Any]:
    """A command as COMMAND INFO replies it, with its subcommands."""
    flags = entry.flags - _UNTOLD_FLAGS
    if has_movable_keys(entry):
        flags |= {"movablekeys"}
    return [
        entry.full_name.encode(),
        entry.arity,
        SetReply(map(_show_flag, sorted(flags))),
        *legacy_range(entry),
        SetReply(Status(b"@" + name.encode()) for name in entry.categories),
        SetReply(tip.encode() for tip in entry.tips),
        SetReply(map(_show_specification, entry.keys)),
        [show_command(subcommand) for subcommand in entry.subcommands.values()],
    ]


def find(server: Server, name: bytes) -> Command | None:
    """The command called ``name``, or the subcommand called ``container|name``."""
    outer, divided, inner = name.partition(b"|")
    entry = server.table.get(outer)
    if entry is None or not divided:
        return entry
    return entry.subcommands.get(inner.lower())


@command(
    "command",
    arity=-1,
    flags="loading stale",
    group="server",
    since="2.8.13",
    summary="The commands of this node, with arity, flags and where their keys stand.",
    complexity="O(N) where N is the total number of commands",
    categories="connection",
    tips=_ORDER_FREE,
    on_store=False,
)
def all_commands(session: Session, argv: Args) -> Reply:
    return [show_command(entry) for entry in session.server.table]


COMMAND: Final = TABLE.by_name[b"command"]
add_help(COMMAND)


def _subcommand(
    name: str, *, arity: int, since: str, summary: str, complexity: str, syntax: str = "", tips: tuple[str, ...] = ()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return command(
        name,
        arity=arity,
        flags="loading stale",
        group="server",
        since=since,
        summary=summary,
        complexity=complexity,
        syntax=syntax,
        categories="connection",
        tips=tips,
        parent=COMMAND,
        on_store=False,
    )


@_subcommand("count", arity=2, since="2.8.13", summary="How many commands this node has.", complexity="O(1)")
def command_count(session: Session, argv: Args) -> Reply:
    return len(session.server.table)


@_subcommand(
    "info",
    arity=-2,
    since="2.8.13",
    summary="Arity, flags and key positions of the commands that are named, or of all.",
    complexity="O(N) where N is the number of commands to look up",
    syntax="[command-name [command-name ...]]",
    tips=_ORDER_FREE,
)
def command_info(session: Session, argv: Args) -> Reply:
    server = session.server
    if len(argv) == 2:
        return [show_command(entry) for entry in server.table]
    found = (find(server, name) for name in argv[2:])
    return [None if entry is None else show_command(entry) for entry in found]


# -- COMMAND DOCS and LIST ------------------------------------------------------------------------------------------


def show_docs(entry: Command) -> dict[bytes, Any]:
    """A command as COMMAND DOCS replies it, with its subcommands."""
    docs: dict[bytes, Any] = {
        b"summary": entry.summary.encode(),
        b"since": entry.since.encode(),
        b"group": entry.group.encode(),
    }
    if entry.complexity:
        docs[b"complexity"] = entry.complexity.encode()
    arguments = parse_syntax(entry.syntax, len(entry.keys))
    if arguments:
        docs[b"arguments"] = arguments
    if entry.subcommands:
        docs[b"subcommands"] = {
            subcommand.full_name.encode(): show_docs(subcommand) for subcommand in entry.subcommands.values()
        }
    return docs


@_subcommand(
    "docs",
    arity=-2,
    since="7.0.0",
    summary="What the commands that are named, or all, do and how they are written.",
    complexity="O(N) where N is the number of commands to look up",
    syntax="[command-name [command-name ...]]",
    tips=_ORDER_FREE,
)
def command_docs(session: Session, argv: Args) -> Reply:
    server = session.server
    entries = server.table if len(argv) == 2 else [find(server, name) for name in argv[2:]]
    return {entry.full_name.encode(): show_docs(entry) for entry in entries if entry is not None}


@_subcommand(
    "list",
    arity=-2,
    since="7.0.0",
    summary="The names of the commands, all of them or those that fit.",
    complexity="O(N) where N is the total number of commands",
    syntax="[FILTERBY <MODULE module-name | ACLCAT category | PATTERN pattern>]",
    tips=_ORDER_FREE,
)
def command_list(session: Session, argv: Args) -> Reply:
    server = session.server
    if len(argv) == 2:
        return [entry.full_name.encode() for entry in server.all_commands()]
    if len(argv) != 5 or argv[2].upper() != b"FILTERBY":
        raise errors.SYNTAX()
    kind, wanted = argv[3].upper(), argv[4]
    if kind == b"MODULE":
        return []
    if kind == b"ACLCAT":
        category = errors.text(wanted).lower()
        return [entry.full_name.encode() for entry in server.all_commands() if category in entry.categories]
    if kind == b"PATTERN":
        names = (entry.full_name.encode() for entry in server.all_commands())
        return [name for name in names if glob_match(wanted.lower(), name)]
    raise errors.SYNTAX()


# -- COMMAND GETKEYS ------------------------------------------------------------------------------------------------


def _resolve(server: Server, words: Args) -> Command:
    """The command that ``words`` are a call of; raises ReplyError as Valkey does."""
    try:
        return dispatch.resolve(server, words)
    except ReplyError as error:
        if "wrong number of arguments" not in error.text:
            raise _NO_SUCH_COMMAND() from None
        entry = server.table.get(words[0])
        keyed = entry is not None and (entry.keys or entry.find_keys or _subcommand_keys(entry, words))
        raise (_BAD_COUNT() if keyed else _NO_KEYS()) from None


def _subcommand_keys(entry: Command, words: Args) -> bool:
    subcommand = entry.subcommands.get(words[1].lower()) if len(words) > 1 else None
    return subcommand is not None and bool(subcommand.keys or subcommand.find_keys)


def _is_key(spec: KeySpec) -> bool:
    return "NOT_KEY" not in spec.flags


def _flags_here(entry: Command, spec: KeySpec, words: Args) -> tuple[str, ...]:
    """The flags of a key where they depend on the other arguments (SET … GET, BITFIELD that only reads)."""
    if "VARIABLE_FLAGS" not in spec.flags:
        return spec.flags
    options = {word.upper() for word in words[2:]}
    if entry.name == "set":
        return ("RW", "ACCESS", "UPDATE") if b"GET" in options else ("OW", "UPDATE")
    if entry.name == "bitfield":
        return ("RW", "ACCESS", "UPDATE") if options & {b"SET", b"INCRBY"} else ("RO", "ACCESS")
    return tuple(flag for flag in spec.flags if flag != "VARIABLE_FLAGS")


def _keys_with_flags(entry: Command, words: Args) -> Iterator[tuple[bytes, tuple[str, ...]]]:
    specs = [spec for spec in entry.keys if _is_key(spec)]
    try:
        named = {place: _flags_here(entry, spec, words) for spec in specs for place in spec.positions(words)}
        places = list(named) if entry.find_keys is None else list(entry.find_keys(words))
    except ValueError:
        raise _BAD_ARGUMENTS() from None
    if not places:
        # A number of keys that says there are none.
        raise _BAD_ARGUMENTS()
    for place in places:
        yield words[place], named.get(place) or specs[-1].flags


def _find_keys(session: Session, argv: Args) -> list[tuple[bytes, tuple[str, ...]]]:
    words = argv[2:]
    entry = _resolve(session.server, words)
    if not (any(map(_is_key, entry.keys)) or entry.find_keys):
        raise _NO_KEYS()
    return list(_keys_with_flags(entry, words))


@_subcommand(
    "getkeys",
    arity=-3,
    since="2.8.13",
    summary="The keys in a command line.",
    complexity="O(N) where N is the number of arguments to the command",
    syntax="command [arg [arg ...]]",
)
def command_getkeys(session: Session, argv: Args) -> Reply:
    return [key for key, _ in _find_keys(session, argv)]


@_subcommand(
    "getkeysandflags",
    arity=-3,
    since="7.0.0",
    summary="The keys in a command line, and what the command does with each.",
    complexity="O(N) where N is the number of arguments to the command",
    syntax="command [arg [arg ...]]",
)
def command_getkeysandflags(session: Session, argv: Args) -> Reply:
    return [[key, SetReply(map(_show_flag, flags))] for key, flags in _find_keys(session, argv)]
