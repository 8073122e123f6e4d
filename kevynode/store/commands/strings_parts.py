"""Parts of strings: length, ranges, growing."""

from __future__ import annotations

from typing import Final

from ... import errors
from ...reply import Reply
from .. import notify
from ..arguments import parse_int
from ..command import Args, command, one_key
from ..store import Store
from .string_values import check_size, replace_string

_OFFSET_OUT_OF_RANGE: Final = errors.ErrorKind("ERR", "offset is out of range", errors.FIX)


@command(
    "strlen",
    arity=2,
    flags="readonly fast",
    keys=one_key("RO"),
    group="string",
    since="2.2.0",
    summary="The length of the string of a key, in bytes.",
    complexity="O(1)",
    syntax="key",
)
def strlen(store: Store, argv: Args) -> Reply:
    value = store.read_string(argv[1])
    return 0 if value is None else len(value)


@command(
    "append",
    arity=3,
    flags="write denyoom fast",
    keys=one_key("RW INSERT"),
    group="string",
    since="2.0.0",
    summary="Adds to the end of the string of a key; the length after that.",
    complexity="O(N), N the length of the result",
    syntax="key value",
)
def append(store: Store, argv: Args) -> Reply:
    key = argv[1]
    old = store.lookup_string(key)
    if old is None:
        value = argv[2]
    else:
        check_size(store, len(old) + len(argv[2]))
        value = old + argv[2]
    store.put(key, value, True)
    store.emit(argv, key, (notify.STRING, b"append", key))
    return len(value)


def _range(store: Store, argv: Args) -> Reply:
    start, stop = parse_int(argv[2]), parse_int(argv[3])
    value = store.read_string(argv[1])
    if value is None or (start < 0 and stop < 0 and start > stop):
        return b""
    size = len(value)
    start = max(start + size, 0) if start < 0 else start
    stop = max(stop + size, 0) if stop < 0 else stop
    return value[start : stop + 1]


@command(
    "getrange",
    arity=4,
    flags="readonly",
    keys=one_key("RO ACCESS"),
    group="string",
    since="2.4.0",
    summary="A part of the string of a key; both ends are included.",
    complexity="O(N), N the length of the part",
    syntax="key start end",
)
def getrange(store: Store, argv: Args) -> Reply:
    return _range(store, argv)


@command(
    "substr",
    arity=4,
    flags="readonly",
    keys=one_key("RO ACCESS"),
    group="string",
    since="1.0.0",
    summary="The older name of GETRANGE.",
    complexity="O(N), N the length of the part",
    syntax="key start end",
)
def substr(store: Store, argv: Args) -> Reply:
    return _range(store, argv)


@command(
    "setrange",
    arity=4,
    flags="write denyoom",
    keys=one_key("RW UPDATE"),
    group="string",
    since="2.2.0",
    summary="Writes over a part of the string of a key, growing it with zero bytes; the length after that.",
    complexity="O(N), N the length of the result",
    syntax="key offset value",
)
def setrange(store: Store, argv: Args) -> Reply:
    key, part = argv[1], argv[3]
    offset = parse_int(argv[2])
    if offset < 0:
        raise _OFFSET_OUT_OF_RANGE()
    old = store.lookup_string(key) or b""
    if not part:
        return len(old)
    end = offset + len(part)
    check_size(store, end)
    head = old[:offset] if offset <= len(old) else old.ljust(offset, b"\0")
    value = b"".join((head, part, old[end:]))
    replace_string(store, key, value, (notify.STRING, b"setrange", key))
    return len(value)
