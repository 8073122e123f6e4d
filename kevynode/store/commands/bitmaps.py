"""Strings as arrays of bits: bit 0 is the highest bit of the first byte. Bit fields are in ``bitfield``."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from ... import errors
from ...reply import Reply
from .. import notify
from ..arguments import as_int, parse_int
from ..command import Args, KeySpec, command, one_key
from ..store import Store
from .string_values import replace_string

_BAD_OFFSET: Final = errors.ErrorKind("ERR", "bit offset is not an integer or out of range", errors.FIX)
_BAD_BIT: Final = errors.ErrorKind("ERR", "bit is not an integer or out of range", errors.FIX)
_BIT_NOT_0_OR_1: Final = errors.ErrorKind("ERR", "The bit argument must be 1 or 0.", errors.FIX)
_NOT_TAKES_ONE: Final = errors.ErrorKind("ERR", "BITOP NOT must be called with a single source key.", errors.FIX)
_NOT_ALL_0: Final = re.compile(rb"[^\x00]")
_NOT_ALL_1: Final = re.compile(rb"[^\xff]")


def parse_bit_offset(store: Store, data: bytes, width: int = 0) -> int:
    """The place of a bit in a string of legal size; raises an error for any other.

    With a ``width`` (in bits), ``#n`` is the place of the n-th field of that width.
    """
    counts_fields = width > 0 and data[:1] == b"#"
    offset = as_int(data[1:] if counts_fields else data)
    if offset is None:
        raise _BAD_OFFSET()
    if counts_fields:
        offset *= width
    if not 0 <= offset < 8 * store.settings.proto_max_bulk_len:
        raise _BAD_OFFSET()
    return offset


@command(
    "setbit",
    arity=4,
    flags="write denyoom",
    keys=one_key("RW ACCESS UPDATE"),
    group="bitmap",
    since="2.2.0",
    summary="Sets or clears one bit of a string, which grows as needed; the bit before.",
    complexity="O(N), N the length of the string",
    syntax="key offset value",
)
def setbit(store: Store, argv: Args) -> Reply:
    key = argv[1]
    offset = parse_bit_offset(store, argv[2])
    bit = parse_int(argv[3], _BAD_BIT)
    if bit not in (0, 1):
        raise _BAD_BIT()
    old = store.lookup_string(key)
    place, mask = offset >> 3, 0x80 >> (offset & 7)
    value = bytearray(old or b"")
    grows = old is None or place >= len(value)
    if grows:
        value.extend(bytes(place + 1 - len(value)))
    before = int(value[place] & mask != 0)
    if grows or before != bit:
        value[place] ^= mask if before != bit else 0
        replace_string(store, key, bytes(value), (notify.STRING, b"setbit", key))
    return before


@command(
    "getbit",
    arity=3,
    flags="readonly fast",
    keys=one_key("RO ACCESS"),
    group="bitmap",
    since="2.2.0",
    summary="One bit of a string; 0 beyond its end.",
    complexity="O(1)",
    syntax="key offset",
)
def getbit(store: Store, argv: Args) -> Reply:
    offset = parse_bit_offset(store, argv[2])
    value = store.read_string(argv[1])
    if value is None or offset >> 3 >= len(value):
        return 0
    return value[offset >> 3] >> (7 - (offset & 7)) & 1


def _unit_is_bit(argv: Args) -> bool:
    """Whether the range of BITCOUNT and BITPOS counts bits, as its last word says. Raises SYNTAX."""
    unit = argv[-1].upper()
    if unit not in (b"BIT", b"BYTE"):
        raise errors.SYNTAX()
    return unit == b"BIT"


def _count(value: bytes, start: int, stop: int) -> int:
    """The number of set bits from ``start`` up to, not including, ``stop``."""
    number = int.from_bytes(value[start >> 3 : (stop + 7) >> 3], "big")
    if start & 7:
        number &= (1 << ((stop + 7 & ~7) - start)) - 1
    return (number >> (-stop & 7)).bit_count()


def _first(value: bytes, bit: int, start: int, stop: int) -> int:
    """The place of the first ``bit`` from ``start`` up to, not including, ``stop``; -1 where there is none."""
    place = start >> 3
    byte = (value[place] if bit else ~value[place]) & (0xFF >> (start & 7))
    if not byte:
        found = (_NOT_ALL_0 if bit else _NOT_ALL_1).search(value, place + 1, (stop + 7) >> 3)
        if found is None:
            return -1
        place = found.start()
        byte = (value[place] if bit else ~value[place]) & 0xFF
    position = 8 * place + 8 - byte.bit_length()
    return position if position < stop else -1


def _resolve(start: int, end: int, size: int) -> tuple[int, int]:
    """A range with both ends included, counted from the end where negative, as (start, stop) within ``size``."""
    start = max(start + size, 0) if start < 0 else start
    end = max(end + size, 0) if end < 0 else end
    return start, min(end, size - 1) + 1


@command(
    "bitcount",
    arity=-2,
    flags="readonly",
    keys=one_key("RO ACCESS"),
    group="bitmap",
    since="2.6.0",
    summary="The number of set bits in a string, or in a part of it.",
    complexity="O(N), N the length of the part",
    syntax="key [start [end [BYTE|BIT]]]",
)
def bitcount(store: Store, argv: Args) -> Reply:
    start, end, in_bits = 0, -1, False
    if len(argv) > 5:
        raise errors.SYNTAX()
    if len(argv) > 2:
        start = parse_int(argv[2])
    if len(argv) == 5:
        in_bits = _unit_is_bit(argv)
    if len(argv) > 3:
        end = parse_int(argv[3])
    value = store.read_string(argv[1])
    if not value or (start < 0 and end < 0 and start > end):
        return 0
    scale = 1 if in_bits else 8
    start, stop = _resolve(start, end, len(value) * 8 // scale)
    return _count(value, start * scale, stop * scale) if start < stop else 0


@command(
    "bitpos",
    arity=-3,
    flags="readonly",
    keys=one_key("RO ACCESS"),
    group="bitmap",
    since="2.8.7",
    summary="The place of the first set or clear bit in a string, or in a part of it; -1 where there is none.",
    complexity="O(N), N the length of the part",
    syntax="key bit [start [end [BYTE|BIT]]]",
)
def bitpos(store: Store, argv: Args) -> Reply:
    bit = parse_int(argv[2])
    if bit not in (0, 1):
        raise _BIT_NOT_0_OR_1()
    start, end, in_bits = 0, -1, False
    if len(argv) > 6:
        raise errors.SYNTAX()
    if len(argv) > 3:
        start = parse_int(argv[3])
    if len(argv) == 6:
        in_bits = _unit_is_bit(argv)
    if len(argv) > 4:
        end = parse_int(argv[4])
    value = store.read_string(argv[1])
    if value is None:
        return -1 if bit else 0
    scale = 1 if in_bits else 8
    start, stop = _resolve(start, end, len(value) * 8 // scale)
    if start >= stop:
        return -1
    position = _first(value, bit, start * scale, stop * scale)
    if position < 0 and not bit and len(argv) < 5:
        # Without an end, clear bits follow the string.
        return 8 * len(value)
    return position


def _and(values: list[bytes], size: int) -> int:
    result = (1 << (8 * size)) - 1
    for value in values:
        result &= int.from_bytes(value.ljust(size, b"\0"), "big")
    return result


def _or(values: list[bytes], size: int) -> int:
    result = 0
    for value in values:
        result |= int.from_bytes(value.ljust(size, b"\0"), "big")
    return result


def _xor(values: list[bytes], size: int) -> int:
    result = 0
    for value in values:
        result ^= int.from_bytes(value.ljust(size, b"\0"), "big")
    return result


def _not(values: list[bytes], size: int) -> int:
    return int.from_bytes(values[0], "big") ^ ((1 << (8 * size)) - 1)


_OPERATIONS: Final[dict[bytes, Callable[[list[bytes], int], int]]] = {
    b"AND": _and,
    b"OR": _or,
    b"XOR": _xor,
    b"NOT": _not,
}


@command(
    "bitop",
    arity=-4,
    flags="write denyoom",
    keys=(
        KeySpec(("OW", "UPDATE"), 2, ("range", 0, 1, 0)),
        KeySpec(("RO", "ACCESS"), 3, ("range", -1, 1, 0)),
    ),
    group="bitmap",
    since="2.6.0",
    summary="Combines strings bit by bit and stores the result; its length.",
    complexity="O(N), N the length of the strings together",
    syntax="AND|OR|XOR|NOT destkey key [key ...]",
)
def bitop(store: Store, argv: Args) -> Reply:
    operation = _OPERATIONS.get(argv[1].upper())
    if operation is None:
        raise errors.SYNTAX()
    if operation is _not and len(argv) != 4:
        raise _NOT_TAKES_ONE()
    target = argv[2]
    values = [store.read_string(key) or b"" for key in argv[3:]]
    size = max(map(len, values))
    if size:
        result = operation(values, size).to_bytes(size, "big")
        store.put(target, result)
        store.emit((b"SET", target, result), target, (notify.STRING, b"set", target))
    elif store.lookup(target) is not None:
        store.delete(target)
        store.emit((b"DEL", target), target, (notify.GENERIC, b"del", target))
    return size
