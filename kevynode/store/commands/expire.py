"""Deadlines of keys: EXPIRE and its relatives, TTL and its relatives, PERSIST."""

from __future__ import annotations

from typing import Final

from ... import errors
from ...reply import Reply
from .. import notify
from ..access import read_untouched
from ..arguments import INT64_MAX, INT64_MIN, parse_int
from ..command import Args, command, one_key
from ..store import Store

UNSUPPORTED_OPTION = errors.ErrorKind("ERR", "Unsupported option {}", errors.FIX)
NX_WITH_OTHERS = errors.ErrorKind("ERR", "NX and XX, GT or LT options at the same time are not compatible", errors.FIX)
GT_WITH_LT = errors.ErrorKind("ERR", "GT and LT options at the same time are not compatible", errors.FIX)

_NX: Final = 1
_XX: Final = 2
_GT: Final = 4
_LT: Final = 8
_OPTIONS: Final = {b"NX": _NX, b"XX": _XX, b"GT": _GT, b"LT": _LT}

_NO_KEY: Final = -2
_NO_DEADLINE: Final = -1


# -- setting ----------------------------------------------------------------------------------------------------------


@command(
    "expire",
    arity=-3,
    flags="write fast",
    keys=one_key("RW UPDATE"),
    group="generic",
    since="1.0.0",
    summary="Gives a key a time to live in seconds.",
    complexity="O(1)",
    syntax="key seconds [NX|XX|GT|LT]",
)
def expire(store: Store, argv: Args) -> Reply:
    return _expire(store, argv, "expire", store.now, 1000)


@command(
    "pexpire",
    arity=-3,
    flags="write fast",
    keys=one_key("RW UPDATE"),
    group="generic",
    since="2.6.0",
    summary="Gives a key a time to live in milliseconds.",
    complexity="O(1)",
    syntax="key milliseconds [NX|XX|GT|LT]",
)
def pexpire(store: Store, argv: Args) -> Reply:
    return _expire(store, argv, "pexpire", store.now, 1)


@command(
    "expireat",
    arity=-3,
    flags="write fast",
    keys=one_key("RW UPDATE"),
    group="generic",
    since="1.2.0",
    summary="Sets the moment a key expires, as a unix time in seconds.",
    complexity="O(1)",
    syntax="key unix-time-seconds [NX|XX|GT|LT]",
)
def expireat(store: Store, argv: Args) -> Reply:
    return _expire(store, argv, "expireat", 0, 1000)


@command(
    "pexpireat",
    arity=-3,
    flags="write fast",
    keys=one_key("RW UPDATE"),
    group="generic",
    since="2.6.0",
    summary="Sets the moment a key expires, as a unix time in milliseconds.",
    complexity="O(1)",
    syntax="key unix-time-milliseconds [NX|XX|GT|LT]",
)
def pexpireat(store: Store, argv: Args) -> Reply:
    return _expire(store, argv, "pexpireat", 0, 1)


def _expire(store: Store, argv: Args, name: str, base: int, unit: int) -> int:
    options = _parse_options(argv) if len(argv) > 3 else 0
    deadline = _parse_deadline(argv[2], name, base, unit)
    key = argv[1]
    if store.lookup(key) is None:
        return 0
    if options and not _allowed(options, deadline, store.deadline(key)):
        return 0
    # A copy never deletes by its own clock: the stream says when.
    if deadline <= store.now and store.deletes_expired:
        store.delete(key)
        store.expired_keys += 1
        store.emit((b"DEL", key), key, (notify.EXPIRED, b"expired", key))
        return 1
    store.set_deadline(key, deadline)
    store.emit((b"PEXPIREAT", key, b"%d" % deadline), key, (notify.GENERIC, b"expire", key))
    return 1


def _parse_options(argv: Args) -> int:
    options = 0
    for word in argv[3:]:
        option = _OPTIONS.get(word.upper())
        if option is None:
            raise UNSUPPORTED_OPTION(errors.text(word))
        options |= option
    if options & _NX and options != _NX:
        raise NX_WITH_OTHERS()
    if options & _GT and options & _LT:
        raise GT_WITH_LT()
    return options


def _parse_deadline(data: bytes, name: str, base: int, unit: int) -> int:
    """The unix ms that ``data`` (in units of ``unit`` ms from ``base``) stands for; raises INVALID_EXPIRE."""
    when = parse_int(data) * unit
    if not INT64_MIN <= when <= INT64_MAX - base:
        raise errors.INVALID_EXPIRE(name)
    return when + base


def _allowed(options: int, deadline: int, current: int | None) -> bool:
    if options & _NX:
        return current is None
    if current is None:
        # No deadline counts as an infinite one: everything is earlier, nothing later.
        return not options & (_XX | _GT)
    if options & _GT:
        return deadline > current
    return not options & _LT or deadline < current


@command(
    "persist",
    arity=2,
    flags="write fast",
    keys=one_key("RW UPDATE"),
    group="generic",
    since="2.2.0",
    summary="Takes the time to live of a key away.",
    complexity="O(1)",
    syntax="key",
)
def persist(store: Store, argv: Args) -> Reply:
    key = argv[1]
    if store.lookup(key) is None or not store.clear_deadline(key):
        return 0
    store.emit((b"PERSIST", key), key, (notify.GENERIC, b"persist", key))
    return 1


# -- reading ----------------------------------------------------------------------------------------------------------


@command(
    "ttl",
    arity=2,
    flags="readonly fast",
    keys=one_key("RO ACCESS"),
    group="generic",
    since="1.0.0",
    summary="The time to live of a key in seconds.",
    complexity="O(1)",
    syntax="key",
    tips=("nondeterministic_output",),
)
def ttl(store: Store, argv: Args) -> Reply:
    deadline = _deadline(store, argv[1])
    return deadline if deadline < 0 else _seconds(max(deadline - store.now, 0))


@command(
    "pttl",
    arity=2,
    flags="readonly fast",
    keys=one_key("RO ACCESS"),
    group="generic",
    since="2.6.0",
    summary="The time to live of a key in milliseconds.",
    complexity="O(1)",
    syntax="key",
    tips=("nondeterministic_output",),
)
def pttl(store: Store, argv: Args) -> Reply:
    deadline = _deadline(store, argv[1])
    return deadline if deadline < 0 else max(deadline - store.now, 0)


@command(
    "expiretime",
    arity=2,
    flags="readonly fast",
    keys=one_key("RO ACCESS"),
    group="generic",
    since="7.0.0",
    summary="The unix time in seconds at which a key expires.",
    complexity="O(1)",
    syntax="key",
)
def expiretime(store: Store, argv: Args) -> Reply:
    deadline = _deadline(store, argv[1])
    return deadline if deadline < 0 else _seconds(deadline)


@command(
    "pexpiretime",
    arity=2,
    flags="readonly fast",
    keys=one_key("RO ACCESS"),
    group="generic",
    since="7.0.0",
    summary="The unix time in milliseconds at which a key expires.",
    complexity="O(1)",
    syntax="key",
)
def pexpiretime(store: Store, argv: Args) -> Reply:
    return _deadline(store, argv[1])


def _deadline(store: Store, key: bytes) -> int:
    """The key's deadline in unix ms, -1 if it has none, -2 if there is no key."""
    if read_untouched(store, key) is None:
        return _NO_KEY
    deadline = store.deadline(key)
    return _NO_DEADLINE if deadline is None else deadline


def _seconds(milliseconds: int) -> int:
    """Rounded to the nearest second, as Valkey does."""
    return (milliseconds + 500) // 1000
