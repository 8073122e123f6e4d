"""Whole strings, read and written. Their parts are in ``strings_parts``, counters in ``strings_counters``."""

from __future__ import annotations

from typing import Final

from ... import errors
from ...reply import OK, Reply
from .. import notify
from ..arguments import parse_int
from ..command import Args, KeySpec, command, key_range, one_key
from ..store import Store
from ..values import bytes_memory
from .string_values import (
    CONDITIONS,
    EXPIRIES,
    expire_at_once,
    parse_deadline,
    parse_options,
    put_with_deadline,
    replace_string,
)

_INVALID_NUMBER_OF_KEYS: Final = errors.ErrorKind("ERR", "invalid numkeys value or out of range", errors.FIX)

_SET_OPTIONS: Final = CONDITIONS | EXPIRIES | {b"GET", b"KEEPTTL"}
_GETEX_OPTIONS: Final = EXPIRIES | {b"PERSIST"}
_MSETEX_OPTIONS: Final = EXPIRIES | {b"NX", b"XX", b"KEEPTTL"}
_MAX_NUMBER_OF_KEYS: Final = (1 << 31) - 1
_EXPIRY_SYNTAX: Final = "EX seconds|PX milliseconds|EXAT unix-time-seconds|PXAT unix-time-milliseconds"


# -- one key ------------------------------------------------------------------------------------------------------


@command(
    "get",
    arity=2,
    flags="readonly fast",
    keys=one_key("RO ACCESS"),
    group="string",
    since="1.0.0",
    summary="Reads the string of a key.",
    complexity="O(1)",
    syntax="key",
)
def get(store: Store, argv: Args) -> Reply:
    key = argv[1]
    keyspace = store.keyspace
    shard = keyspace.directory[hash(key) >> keyspace.shift]
    value = shard.get(key)
    if type(value) is bytes and key not in shard.deadlines and store.tracker is None:
        store.hits += 1
        return value
    return store.read_string(key)


@command(
    "set",
    arity=-3,
    flags="write denyoom",
    keys=one_key("RW ACCESS UPDATE VARIABLE_FLAGS"),
    group="string",
    since="1.0.0",
    summary="Writes the string of a key, whatever the key held, on conditions and with an expiry if asked.",
    complexity="O(1)",
    syntax=f"key value [NX|XX|IFEQ comparison-value] [GET] [{_EXPIRY_SYNTAX}|KEEPTTL]",
)
def set_(store: Store, argv: Args) -> Reply:
    if len(argv) != 3:
        return _set_with_options(store, argv)
    _, key, value = argv
    keyspace = store.keyspace
    shard = keyspace.directory[hash(key) >> keyspace.shift]
    old = shard.get(key)
    if type(old) is bytes and shard.epoch == keyspace.epoch and key not in shard.deadlines and store.tracker is None:
        # One string takes the place of another: what Store.put would do, without the calls.
        shard[key] = value
        if len(old) != len(value):
            store.used += bytes_memory(value) - bytes_memory(old)
    else:
        store.put(key, value)
    store.journal.pending.append((argv, key, ((notify.STRING, b"set", key),)))
    return OK


def _set_with_options(store: Store, argv: Args) -> Reply:
    key, value = argv[1], argv[2]
    options = parse_options(argv, 3, _SET_OPTIONS)
    deadline = None
    if options.lifetime in EXPIRIES:
        deadline = parse_deadline(store, options.lifetime, options.amount, "set")
    old = store.read_string(key) if options.get else store.lookup(key)
    done: Reply = old if options.get and type(old) is bytes else None
    if options.condition == b"IFEQ":
        if old is None:
            return None
        if type(old) is not bytes:
            raise errors.WRONG_TYPE()
        met = old == options.comparison
    else:
        met = not options.condition or (old is None) == (options.condition == b"NX")
    if not met:
        return done
    if deadline is None and options.lifetime == b"KEEPTTL":
        replace_string(store, key, value, (notify.STRING, b"set", key))
    elif deadline is None:
        _put(store, key, value)
    elif deadline > store.now:
        put_with_deadline(store, key, value, deadline)
    elif old is not None:
        expire_at_once(store, key)
    return done if options.get else OK


def _put(store: Store, key: bytes, value: bytes) -> None:
    store.put(key, value)
    store.emit((b"SET", key, value), key, (notify.STRING, b"set", key))


@command(
    "setnx",
    arity=3,
    flags="write denyoom fast",
    keys=one_key("OW INSERT"),
    group="string",
    since="1.0.0",
    summary="Writes a string under a key that does not exist.",
    complexity="O(1)",
    syntax="key value",
)
def setnx(store: Store, argv: Args) -> Reply:
    if store.lookup(argv[1]) is not None:
        return 0
    _put(store, argv[1], argv[2])
    return 1


def _set_for(store: Store, argv: Args, unit: bytes, name: str) -> Reply:
    put_with_deadline(store, argv[1], argv[3], parse_deadline(store, unit, argv[2], name))
    return OK


@command(
    "setex",
    arity=4,
    flags="write denyoom",
    keys=one_key("OW UPDATE"),
    group="string",
    since="2.0.0",
    summary="Writes the string of a key that lives for some seconds.",
    complexity="O(1)",
    syntax="key seconds value",
)
def setex(store: Store, argv: Args) -> Reply:
    return _set_for(store, argv, b"EX", "setex")


@command(
    "psetex",
    arity=4,
    flags="write denyoom",
    keys=one_key("OW UPDATE"),
    group="string",
    since="2.6.0",
    summary="Writes the string of a key that lives for some milliseconds.",
    complexity="O(1)",
    syntax="key milliseconds value",
)
def psetex(store: Store, argv: Args) -> Reply:
    return _set_for(store, argv, b"PX", "psetex")


@command(
    "getset",
    arity=3,
    flags="write denyoom fast",
    keys=one_key("RW ACCESS UPDATE"),
    group="string",
    since="1.0.0",
    summary="Writes the string of a key and returns the one before.",
    complexity="O(1)",
    syntax="key value",
)
def getset(store: Store, argv: Args) -> Reply:
    old = store.read_string(argv[1])
    _put(store, argv[1], argv[2])
    return old


@command(
    "getdel",
    arity=2,
    flags="write fast",
    keys=one_key("RW ACCESS DELETE"),
    group="string",
    since="6.2.0",
    summary="Returns the string of a key and deletes the key.",
    complexity="O(1)",
    syntax="key",
)
def getdel(store: Store, argv: Args) -> Reply:
    key = argv[1]
    old = store.read_string(key)
    if old is not None:
        _delete(store, key)
    return old


def _delete(store: Store, key: bytes) -> None:
    store.delete(key)
    store.emit((b"DEL", key), key, (notify.GENERIC, b"del", key))


@command(
    "delifeq",
    arity=3,
    flags="write fast",
    keys=one_key("RM DELETE"),
    group="string",
    since="9.0.0",
    summary="Deletes a key if it holds just this string.",
    complexity="O(1)",
    syntax="key value",
)
def delifeq(store: Store, argv: Args) -> Reply:
    key = argv[1]
    if store.lookup_string(key) != argv[2]:
        return 0
    _delete(store, key)
    return 1


@command(
    "getex",
    arity=-2,
    flags="write fast",
    keys=one_key("RW ACCESS UPDATE"),
    group="string",
    since="6.2.0",
    summary="Returns the string of a key and sets or clears the key's expiry.",
    complexity="O(1)",
    syntax=f"key [{_EXPIRY_SYNTAX}|PERSIST]",
)
def getex(store: Store, argv: Args) -> Reply:
    key = argv[1]
    options = parse_options(argv, 2, _GETEX_OPTIONS)
    deadline = None
    if options.lifetime in EXPIRIES:
        deadline = parse_deadline(store, options.lifetime, options.amount, "getex")
    value = store.read_string(key)
    if value is None:
        return None
    if deadline is not None and deadline <= store.now:
        expire_at_once(store, key)
    elif deadline is not None:
        store.set_deadline(key, deadline)
        store.emit((b"PEXPIREAT", key, b"%d" % deadline), key, (notify.GENERIC, b"expire", key))
    elif options.lifetime == b"PERSIST" and store.clear_deadline(key):
        store.emit((b"PERSIST", key), key, (notify.GENERIC, b"persist", key))
    return value


# -- many keys ----------------------------------------------------------------------------------------------------


@command(
    "mget",
    arity=-2,
    flags="readonly fast",
    keys=key_range("RO ACCESS"),
    group="string",
    since="1.0.0",
    summary="Reads the strings of several keys; null for a key without one.",
    complexity="O(N), N the number of keys",
    syntax="key [key ...]",
    tips=("request_policy:multi_shard",),
)
def mget(store: Store, argv: Args) -> Reply:
    found: list[bytes | None] = []
    keyspace = store.keyspace
    directory = keyspace.directory
    shift = keyspace.shift
    untracked = store.tracker is None
    hits = 0
    for key in argv[1:]:
        shard = directory[hash(key) >> shift]
        value = shard.get(key)
        if type(value) is bytes and untracked and key not in shard.deadlines:
            hits += 1
            found.append(value)
        else:
            value = store.read(key)
            found.append(value if type(value) is bytes else None)
    store.hits += hits
    return found


def _put_all(store: Store, pairs: Args) -> None:
    for place in range(0, len(pairs), 2):
        _put(store, pairs[place], pairs[place + 1])


@command(
    "mset",
    arity=-3,
    flags="write denyoom",
    keys=key_range("OW UPDATE", step=2),
    group="string",
    since="1.0.1",
    summary="Writes the strings of several keys.",
    complexity="O(N), N the number of keys",
    syntax="key value [key value ...]",
    tips=("request_policy:multi_shard", "response_policy:all_succeeded"),
)
def mset(store: Store, argv: Args) -> Reply:
    if len(argv) % 2 == 0:
        raise errors.WRONG_ARITY("mset")
    _put_all(store, argv[1:])
    return OK


@command(
    "msetnx",
    arity=-3,
    flags="write denyoom",
    keys=key_range("OW INSERT", step=2),
    group="string",
    since="1.0.1",
    summary="Writes the strings of several keys if none of them exists.",
    complexity="O(N), N the number of keys",
    syntax="key value [key value ...]",
)
def msetnx(store: Store, argv: Args) -> Reply:
    if len(argv) % 2 == 0:
        raise errors.WRONG_ARITY("msetnx")
    if any(store.lookup(key) is not None for key in argv[1::2]):
        return 0
    _put_all(store, argv[1:])
    return 1


@command(
    "msetex",
    arity=-4,
    flags="write denyoom movablekeys",
    keys=(KeySpec(("OW", "UPDATE"), 1, ("keynum", 0, 1, 2)),),
    group="string",
    since="9.1.0",
    summary="Writes the strings of several keys, all or none, on a condition and with an expiry if asked.",
    complexity="O(N), N the number of keys",
    syntax=f"numkeys key value [key value ...] [NX|XX] [{_EXPIRY_SYNTAX}|KEEPTTL]",
    tips=("request_policy:multi_shard", "response_policy:all_succeeded"),
)
def msetex(store: Store, argv: Args) -> Reply:
    number = parse_int(argv[1], _INVALID_NUMBER_OF_KEYS)
    if not 0 < number <= _MAX_NUMBER_OF_KEYS:
        raise _INVALID_NUMBER_OF_KEYS()
    end = 2 + 2 * number
    if end > len(argv):
        raise errors.SYNTAX()
    options = parse_options(argv, end, _MSETEX_OPTIONS)
    deadline = None
    if options.lifetime in EXPIRIES:
        deadline = parse_deadline(store, options.lifetime, options.amount, "msetex")
    if options.condition:
        wanted = options.condition == b"XX"
        if any((store.lookup(key) is not None) != wanted for key in argv[2:end:2]):
            return 0
    for place in range(2, end, 2):
        key, value = argv[place], argv[place + 1]
        if deadline is None and options.lifetime == b"KEEPTTL":
            replace_string(store, key, value, (notify.STRING, b"set", key))
        elif deadline is None:
            _put(store, key, value)
        else:
            # Unlike SET, it does not look at the clock: what has expired goes with the next access.
            put_with_deadline(store, key, value, deadline)
    return 1
