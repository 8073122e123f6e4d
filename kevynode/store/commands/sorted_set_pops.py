"""Taking members off either end of sorted sets, waiting for one where the command may."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

from ... import errors
from ...reply import NULL_ARRAY, Pairs, Reply
from .. import notify
from ..arguments import as_int, parse_timeout
from ..command import Args, Blocked, command, key_number, key_range, one_key
from ..store import Store
from ..values import SortedSet
from .set_results import emit_removal
from .sets import parse_pop_count

COUNT = errors.ErrorKind("ERR", "count should be greater than 0", errors.FIX)

_POP_KEY: Final = "RW ACCESS DELETE"
MemberScores: TypeAlias = list[tuple[bytes, float]]


def _pop(store: Store, key: bytes, highest: bool, count: int) -> MemberScores:
    """Take up to ``count`` members, one at least, off one end of a sorted set; nothing if there is none."""
    value = store.write(key, SortedSet)
    if value is None:
        return []
    size = len(value)
    count = min(count, size)
    if highest:
        entries = value.remove_between(size - count, size)
        entries.reverse()
    else:
        entries = value.remove_between(0, count)
    popped = [(member, score) for score, member in entries]
    event = (notify.ZSET, b"zpopmax" if highest else b"zpopmin", key)
    emit_removal(store, key, value, [member for member, _ in popped], event)
    return popped


def _pop_one_key(store: Store, argv: Args, highest: bool) -> Reply:
    if len(argv) == 2:
        popped = _pop(store, argv[1], highest, 1)
        return list(popped[0]) if popped else []
    if len(argv) > 3:
        raise errors.SYNTAX()
    count = parse_pop_count(argv[2])
    if not count:
        store.lookup_as(argv[1], SortedSet)
        return Pairs()
    return Pairs(_pop(store, argv[1], highest, count))


def _pop_first(store: Store, keys: Sequence[bytes], highest: bool, count: int) -> tuple[bytes, MemberScores] | None:
    """Take members off the first sorted set that exists, with its key; WRONGTYPE for another value before it."""
    for key in keys:
        popped = _pop(store, key, highest, count)
        if popped:
            return key, popped
    return None


def _parse_many(argv: Args, at: int) -> tuple[Sequence[bytes], bool, int]:
    """(keys, highest, count) of ``numkeys key ... MIN|MAX [COUNT count]`` from index ``at``."""
    number = as_int(argv[at])
    if number is None or number < 1:
        raise errors.NUMKEYS()
    place = at + 1 + number
    if place >= len(argv):
        raise errors.SYNTAX()
    keys = argv[at + 1 : place]
    end = argv[place].upper()
    if end not in (b"MIN", b"MAX"):
        raise errors.SYNTAX()
    options = argv[place + 1 :]
    if not options:
        return keys, end == b"MAX", 1
    if options[0].upper() != b"COUNT" or len(options) == 1:
        raise errors.SYNTAX()
    count = as_int(options[1])
    if count is None or count < 1:
        raise COUNT()
    if len(options) > 2:
        raise errors.SYNTAX()
    return keys, end == b"MAX", count


@command(
    "zpopmin",
    arity=-2,
    flags="write fast",
    keys=one_key(_POP_KEY),
    group="sorted-set",
    since="5.0.0",
    summary="Takes the members with the lowest scores out of a sorted set; with the last one the key goes.",
    complexity="O(log(N)*M) for N members and M taken.",
    syntax="key [count]",
)
def zpopmin(store: Store, argv: Args) -> Reply:
    """[member, score], or nothing; with a count pairs of them."""
    return _pop_one_key(store, argv, highest=False)


@command(
    "zpopmax",
    arity=-2,
    flags="write fast",
    keys=one_key(_POP_KEY),
    group="sorted-set",
    since="5.0.0",
    summary="Takes the members with the highest scores out of a sorted set; with the last one the key goes.",
    complexity="O(log(N)*M) for N members and M taken.",
    syntax="key [count]",
)
def zpopmax(store: Store, argv: Args) -> Reply:
    """[member, score], or nothing; with a count pairs of them, the highest score first."""
    return _pop_one_key(store, argv, highest=True)


@command(
    "zmpop",
    arity=-4,
    flags="write movablekeys",
    keys=key_number(_POP_KEY),
    group="sorted-set",
    since="7.0.0",
    summary="Takes members off one end of the first sorted set that exists.",
    complexity="O(K) + O(M*log(N)) for K keys named, M members taken of N.",
    syntax="numkeys key [key ...] MIN|MAX [COUNT count]",
)
def zmpop(store: Store, argv: Args) -> Reply:
    """[key, rows of member and score], or a null array."""
    popped = _pop_first(store, *_parse_many(argv, 1))
    return NULL_ARRAY if popped is None else popped


@command(
    "bzmpop",
    arity=-5,
    flags="write blocking movablekeys",
    keys=key_number(_POP_KEY, at=2),
    group="sorted-set",
    since="7.0.0",
    summary="Takes members off one end of the first sorted set that exists, or waits for one.",
    complexity="O(K) + O(M*log(N)) for K keys named, M members taken of N.",
    syntax="timeout numkeys key [key ...] MIN|MAX [COUNT count]",
)
def bzmpop(store: Store, argv: Args) -> Reply | Blocked:
    """[key, rows of member and score]; a null array when the timeout passes."""
    keys, highest, count = _parse_many(argv, 2)
    timeout = parse_timeout(argv[1], store.now)
    popped = _pop_first(store, keys, highest, count)
    return Blocked(keys, timeout, SortedSet) if popped is None else popped


def _pop_or_wait(store: Store, argv: Args, highest: bool) -> Reply | Blocked:
    keys = argv[1:-1]
    timeout = parse_timeout(argv[-1], store.now)
    popped = _pop_first(store, keys, highest, 1)
    if popped is None:
        return Blocked(keys, timeout, SortedSet)
    key, [(member, score)] = popped
    return [key, member, score]


@command(
    "bzpopmin",
    arity=-3,
    flags="write blocking fast",
    keys=key_range(_POP_KEY, last=-2),
    group="sorted-set",
    since="5.0.0",
    summary="Takes the member with the lowest score of the first sorted set that exists, or waits for one.",
    complexity="O(log(N)) for N members.",
    syntax="key [key ...] timeout",
)
def bzpopmin(store: Store, argv: Args) -> Reply | Blocked:
    """[key, member, score]; a null array when the timeout passes."""
    return _pop_or_wait(store, argv, highest=False)


@command(
    "bzpopmax",
    arity=-3,
    flags="write blocking fast",
    keys=key_range(_POP_KEY, last=-2),
    group="sorted-set",
    since="5.0.0",
    summary="Takes the member with the highest score of the first sorted set that exists, or waits for one.",
    complexity="O(log(N)) for N members.",
    syntax="key [key ...] timeout",
)
def bzpopmax(store: Store, argv: Args) -> Reply | Blocked:
    """[key, member, score]; a null array when the timeout passes."""
    return _pop_or_wait(store, argv, highest=True)
