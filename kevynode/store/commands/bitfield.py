"""BITFIELD: integers of any width up to 64 bits at any bit of a string."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from ... import errors
from ...reply import Reply
from .. import notify
from ..arguments import parse_int
from ..command import Args, command, one_key
from ..store import Store
from .bitmaps import parse_bit_offset
from .string_values import replace_string

_BAD_TYPE: Final = errors.ErrorKind(
    "ERR",
    "Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.",
    errors.FIX,
)
_BAD_OVERFLOW: Final = errors.ErrorKind("ERR", "Invalid OVERFLOW type specified", errors.FIX)
_ONLY_GET: Final = errors.ErrorKind("ERR", "BITFIELD_RO only supports the GET subcommand", errors.FIX)

_TYPE: Final = re.compile(rb"[iu][1-9][0-9]?\Z")
_OVERFLOWS: Final = frozenset((b"WRAP", b"SAT", b"FAIL"))
_WORD: Final = 1 << 64


class _Operation(NamedTuple):
    """One GET, SET or INCRBY: ``name``, the field it works on, its argument, and what to do about an overflow."""

    name: bytes
    signed: bool
    width: int
    offset: int
    argument: int
    overflow: bytes


def _parse(store: Store, argv: Args) -> list[_Operation]:
    """The operations of a command line; raises the error of the first word that is wrong."""
    operations: list[_Operation] = []
    overflow = b"WRAP"
    place = 2
    while place < len(argv):
        name = argv[place].upper()
        left = len(argv) - place - 1
        if name == b"OVERFLOW" and left >= 1:
            overflow = argv[place + 1].upper()
            if overflow not in _OVERFLOWS:
                raise _BAD_OVERFLOW()
            place += 2
            continue
        if not ((name == b"GET" and left >= 2) or (name in (b"SET", b"INCRBY") and left >= 3)):
            raise errors.SYNTAX()
        signed, width = _parse_type(argv[place + 1])
        offset = parse_bit_offset(store, argv[place + 2], width)
        argument = 0 if name == b"GET" else parse_int(argv[place + 3])
        operations.append(_Operation(name, signed, width, offset, argument, overflow))
        place += 3 if name == b"GET" else 4
    return operations


def _parse_type(data: bytes) -> tuple[bool, int]:
    if _TYPE.match(data) is None:
        raise _BAD_TYPE()
    signed = data[:1] == b"i"
    width = int(data[1:])
    if width > (64 if signed else 63):
        raise _BAD_TYPE()
    return signed, width


def _read(value: bytes | bytearray, operation: _Operation) -> int:
    """The integer of a field; bits beyond the string are 0."""
    first = operation.offset >> 3
    end = operation.offset + operation.width
    last = (end + 7) >> 3
    number = int.from_bytes(bytes(value[first:last]).ljust(last - first, b"\0"), "big")
    number = number >> (-end & 7) & ((1 << operation.width) - 1)
    if operation.signed and number >> (operation.width - 1):
        number -= 1 << operation.width
    return number


def _write(value: bytearray, operation: _Operation, number: int) -> None:
    """Put an integer into a field that lies within the string."""
    first = operation.offset >> 3
    end = operation.offset + operation.width
    last = (end + 7) >> 3
    mask = (1 << operation.width) - 1
    shift = -end & 7
    around = int.from_bytes(value[first:last], "big") & ~(mask << shift)
    value[first:last] = (around | (number & mask) << shift).to_bytes(last - first, "big")


def _fitted(operation: _Operation, number: int) -> int | None:
    """``number`` made to fit the field as the overflow rule says; None where the rule is to fail."""
    if operation.signed:
        low, high = -(1 << (operation.width - 1)), (1 << (operation.width - 1)) - 1
    else:
        low, high = 0, (1 << operation.width) - 1
    if low <= number <= high:
        return number
    if operation.overflow == b"FAIL":
        return None
    if operation.overflow == b"SAT":
        return high if number > high else low
    number &= (1 << operation.width) - 1
    return number - (1 << operation.width) if operation.signed and number > high else number


def _change(value: bytearray, operation: _Operation) -> tuple[int | None, bool]:
    """Carry out a SET or INCRBY; its reply, and whether the field has another number now."""
    old = _read(value, operation)
    if operation.name == b"INCRBY":
        number = _fitted(operation, old + operation.argument)
    else:
        # An unsigned field takes its argument as an unsigned word, so that -1 is too large rather than too small.
        argument = operation.argument
        number = _fitted(operation, argument if operation.signed or argument >= 0 else argument + _WORD)
    if number is None:
        return None, False
    _write(value, operation, number)
    return old if operation.name == b"SET" else number, number != old


def _run(store: Store, key: bytes, operations: list[_Operation]) -> Reply:
    writes = [operation for operation in operations if operation.name != b"GET"]
    if not writes:
        string = store.read_string(key) or b""
        return [_read(string, operation) for operation in operations]
    old = store.lookup_string(key)
    value = bytearray(old or b"")
    needed = (max(operation.offset + operation.width for operation in writes) + 7) >> 3
    grows = old is None or needed > len(value)
    if needed > len(value):
        value.extend(bytes(needed - len(value)))
    replies: list[int | None] = []
    changed = False
    for operation in operations:
        if operation.name == b"GET":
            replies.append(_read(value, operation))
        else:
            reply, differs = _change(value, operation)
            changed = changed or differs or (grows and reply is not None)
            replies.append(reply)
    if changed:
        replace_string(store, key, bytes(value), (notify.STRING, b"setbit", key))
    elif grows:
        # Every write failed, yet the string has grown, which nothing publishes.
        replace_string(store, key, bytes(value))
    return replies


@command(
    "bitfield",
    arity=-2,
    flags="write denyoom",
    keys=one_key("RW ACCESS UPDATE VARIABLE_FLAGS"),
    group="bitmap",
    since="3.2.0",
    summary="Reads, writes and counts up integers that lie at any bit of a string.",
    complexity="O(N), N the length of the string",
    syntax=(
        "key [GET encoding offset|[OVERFLOW WRAP|SAT|FAIL] SET encoding offset value|INCRBY encoding offset increment"
        " [GET encoding offset|[OVERFLOW WRAP|SAT|FAIL] SET encoding offset value"
        "|INCRBY encoding offset increment ...]]"
    ),
)
def bitfield(store: Store, argv: Args) -> Reply:
    return _run(store, argv[1], _parse(store, argv))


@command(
    "bitfield_ro",
    arity=-2,
    flags="readonly fast",
    keys=one_key("RO ACCESS"),
    group="bitmap",
    since="6.0.0",
    summary="Reads integers that lie at any bit of a string.",
    complexity="O(1) for each operation",
    syntax="key [GET encoding offset [GET encoding offset ...]]",
)
def bitfield_ro(store: Store, argv: Args) -> Reply:
    operations = _parse(store, argv)
    if any(operation.name != b"GET" for operation in operations):
        raise _ONLY_GET()
    return _run(store, argv[1], operations)
