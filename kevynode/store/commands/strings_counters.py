"""Strings that count: INCR and its relatives."""

from __future__ import annotations

from typing import Final

from ... import errors
from ...reply import Reply
from .. import notify
from ..arguments import INT64_MAX, INT64_MIN, add_long_double, as_int, parse_int
from ..command import Args, command, one_key
from ..store import Store
from ..values import bytes_memory
from .string_values import replace_string

_DECREMENT_OVERFLOW: Final = errors.ErrorKind("ERR", "decrement would overflow", errors.FIX)


def _sum(value: bytes, increment: int) -> int:
    old = as_int(value)
    if old is None:
        raise errors.NOT_INTEGER()
    total = old + increment
    if not INT64_MIN <= total <= INT64_MAX:
        raise errors.OVERFLOW()
    return total


def _add(store: Store, argv: Args, increment: int) -> int:
    """Add to the counter ``argv[1]``; ``argv`` itself is the canonical form of the change."""
    key = argv[1]
    keyspace = store.keyspace
    shard = keyspace.directory[hash(key) >> keyspace.shift]
    held = shard.get(key)
    if type(held) is bytes and shard.epoch == keyspace.epoch and key not in shard.deadlines and store.tracker is None:
        # One string takes the place of another: what Store.put would do, without the calls.
        if held.isdigit() and len(held) < 18 and (held[0] != 0x30 or len(held) == 1) and -9 < increment < 9:
            # Most counters: nothing to check that could fail.
            total = int(held) + increment
        else:
            total = _sum(held, increment)
        text = b"%d" % total
        shard[key] = text
        if len(text) != len(held):
            store.used += bytes_memory(text) - bytes_memory(held)
    else:
        value = store.lookup_string(key)
        total = increment if value is None else _sum(value, increment)
        store.put(key, b"%d" % total, True)
    store.journal.pending.append((argv, key, ((notify.STRING, b"incrby", key),)))
    return total


@command(
    "incr",
    arity=2,
    flags="write denyoom fast",
    keys=one_key("RW ACCESS UPDATE"),
    group="string",
    since="1.0.0",
    summary="Adds one to the integer of a key; one that does not exist counts as 0.",
    complexity="O(1)",
    syntax="key",
)
def incr(store: Store, argv: Args) -> Reply:
    return _add(store, argv, 1)


@command(
    "decr",
    arity=2,
    flags="write denyoom fast",
    keys=one_key("RW ACCESS UPDATE"),
    group="string",
    since="1.0.0",
    summary="Takes one from the integer of a key; one that does not exist counts as 0.",
    complexity="O(1)",
    syntax="key",
)
def decr(store: Store, argv: Args) -> Reply:
    return _add(store, argv, -1)


@command(
    "incrby",
    arity=3,
    flags="write denyoom fast",
    keys=one_key("RW ACCESS UPDATE"),
    group="string",
    since="1.0.0",
    summary="Adds to the integer of a key; one that does not exist counts as 0.",
    complexity="O(1)",
    syntax="key increment",
)
def incrby(store: Store, argv: Args) -> Reply:
    return _add(store, argv, parse_int(argv[2]))


@command(
    "decrby",
    arity=3,
    flags="write denyoom fast",
    keys=one_key("RW ACCESS UPDATE"),
    group="string",
    since="1.0.0",
    summary="Takes from the integer of a key; one that does not exist counts as 0.",
    complexity="O(1)",
    syntax="key decrement",
)
def decrby(store: Store, argv: Args) -> Reply:
    decrement = parse_int(argv[2])
    if decrement == INT64_MIN:
        raise _DECREMENT_OVERFLOW()
    return _add(store, argv, -decrement)


@command(
    "incrbyfloat",
    arity=3,
    flags="write denyoom fast",
    keys=one_key("RW ACCESS UPDATE"),
    group="string",
    since="2.6.0",
    summary="Adds to the number of a key, decimals included; one that does not exist counts as 0.",
    complexity="O(1)",
    syntax="key increment",
)
def incrbyfloat(store: Store, argv: Args) -> Reply:
    key = argv[1]
    old = store.lookup_string(key)
    total = add_long_double(b"0" if old is None else old, argv[2])
    replace_string(store, key, total, (notify.STRING, b"incrbyfloat", key))
    return total
