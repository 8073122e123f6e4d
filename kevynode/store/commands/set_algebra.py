"""Intersections, unions and differences of sets, shown or stored.

A key that is named again behind the first changes no result, so it is read once and does not cost again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final, TypeAlias

from ... import errors
from ...reply import Reply, SetReply
from .. import notify
from ..arguments import as_int
from ..command import Args, command, key_number, key_range, one_key
from ..store import Store
from ..values import Set
from .random_members import walk
from .set_results import store_result
from .sets import arranged

__all__ = ["NEGATIVE_LIMIT", "parse_limit"]

TOO_MANY_KEYS = errors.ErrorKind("ERR", "Number of keys can't be greater than number of args", errors.FIX)
NEGATIVE_LIMIT = errors.ErrorKind("ERR", "LIMIT can't be negative", errors.FIX)

_STORE_KEYS: Final = one_key("OW UPDATE") + key_range("RO ACCESS", first=2)
Operation: TypeAlias = Callable[[list[Set | None]], Iterable[bytes]]


def _read(store: Store, keys: Args) -> list[Set | None]:
    """The sets under these keys, each key but the first only once; raises WRONGTYPE for another kind of value."""
    return [store.read_as(key, Set) for key in (keys[0], *dict.fromkeys(keys[1:]))]


def _common(sources: list[Set | None]) -> Iterator[bytes]:
    """The members of every source, found from the smallest."""
    sets = [source for source in sources if source is not None]
    if len(sets) < len(sources):
        return iter(())
    sets.sort(key=len)
    members = iter(walk(sets[0].members))
    for other in sets[1:]:
        members = filter(other.members.__contains__, members)
    return members


def _united(sources: list[Set | None]) -> Iterable[bytes]:
    """The members of any source."""
    united: dict[bytes, None] = {}
    for source in sources:
        if source is None:
            continue
        members = source.members
        for part in (members,) if isinstance(members, dict) else members.shards():
            united.update(part)
    return united


def _different(sources: list[Set | None]) -> Iterable[bytes]:
    """The members of the first source that are in no other.

    Either each member is looked up in the others, or theirs are taken away from it, whichever is less work.
    """
    first = sources[0]
    if first is None:
        return ()
    others = [source for source in sources[1:] if source is not None]
    if len(first) * len(others) <= 2 * sum(map(len, others)):
        # The largest is the likeliest to have a member.
        others.sort(key=len, reverse=True)
        left = list(walk(first.members))
        for other in others:
            members = other.members
            left = [member for member in left if member not in members]
        return left
    table = dict.fromkeys(walk(first.members))
    for other in others:
        for member in walk(other.members):
            table.pop(member, None)
    return table


def _show(store: Store, argv: Args, operation: Operation) -> Reply:
    return SetReply(arranged(list(operation(_read(store, argv[1:]))), store.settings))


def _store(store: Store, argv: Args, operation: Operation, event: bytes) -> Reply:
    result = Set.of(operation(_read(store, argv[2:])), store.epoch)
    return store_result(store, argv[1], result, (notify.SET, event, argv[1]))


@command(
    "sinter",
    arity=-2,
    flags="readonly",
    keys=key_range("RO ACCESS"),
    group="set",
    since="1.0.0",
    summary="The members that all of the sets have.",
    complexity="O(N*M) for N members of the smallest set and M sets.",
    syntax="key [key ...]",
    tips=("nondeterministic_output_order",),
)
def sinter(store: Store, argv: Args) -> Reply:
    return _show(store, argv, _common)


@command(
    "sunion",
    arity=-2,
    flags="readonly",
    keys=key_range("RO ACCESS"),
    group="set",
    since="1.0.0",
    summary="The members that any of the sets has.",
    complexity="O(N) for N members of all sets together.",
    syntax="key [key ...]",
    tips=("nondeterministic_output_order",),
)
def sunion(store: Store, argv: Args) -> Reply:
    return _show(store, argv, _united)


@command(
    "sdiff",
    arity=-2,
    flags="readonly",
    keys=key_range("RO ACCESS"),
    group="set",
    since="1.0.0",
    summary="The members of the first set that no other set has.",
    complexity="O(N) for N members of all sets together.",
    syntax="key [key ...]",
    tips=("nondeterministic_output_order",),
)
def sdiff(store: Store, argv: Args) -> Reply:
    return _show(store, argv, _different)


@command(
    "sinterstore",
    arity=-3,
    flags="write denyoom",
    keys=_STORE_KEYS,
    group="set",
    since="1.0.0",
    summary="Stores the members that all of the sets have.",
    complexity="O(N*M) for N members of the smallest set and M sets.",
    syntax="destination key [key ...]",
)
def sinterstore(store: Store, argv: Args) -> Reply:
    """How many members are stored."""
    return _store(store, argv, _common, b"sinterstore")


@command(
    "sunionstore",
    arity=-3,
    flags="write denyoom",
    keys=_STORE_KEYS,
    group="set",
    since="1.0.0",
    summary="Stores the members that any of the sets has.",
    complexity="O(N) for N members of all sets together.",
    syntax="destination key [key ...]",
)
def sunionstore(store: Store, argv: Args) -> Reply:
    """How many members are stored."""
    return _store(store, argv, _united, b"sunionstore")


@command(
    "sdiffstore",
    arity=-3,
    flags="write denyoom",
    keys=_STORE_KEYS,
    group="set",
    since="1.0.0",
    summary="Stores the members of the first set that no other set has.",
    complexity="O(N) for N members of all sets together.",
    syntax="destination key [key ...]",
)
def sdiffstore(store: Store, argv: Args) -> Reply:
    """How many members are stored."""
    return _store(store, argv, _different, b"sdiffstore")


@command(
    "sintercard",
    arity=-3,
    flags="readonly movablekeys",
    keys=key_number("RO ACCESS"),
    group="set",
    since="7.0.0",
    summary="How many members all of the sets have, counted up to a limit.",
    complexity="O(N*M) for N members of the smallest set and M sets.",
    syntax="numkeys key [key ...] [LIMIT limit]",
)
def sintercard(store: Store, argv: Args) -> Reply:
    number = as_int(argv[1])
    if number is None or number < 1:
        raise errors.NUMKEYS()
    if number > len(argv) - 2:
        raise TOO_MANY_KEYS()
    limit = parse_limit(argv, 2 + number)
    found = _common(_read(store, argv[2 : 2 + number]))
    return sum(1 for _ in islice(found, limit or None))


def parse_limit(argv: Args, place: int) -> int:
    """The value of ``LIMIT``, which may stand in ``argv`` from ``place``; 0, the default, means no limit."""
    limit = 0
    while place < len(argv):
        if argv[place].upper() != b"LIMIT" or place + 1 == len(argv):
            raise errors.SYNTAX()
        number = as_int(argv[place + 1])
        if number is None or number < 0:
            raise NEGATIVE_LIMIT()
        limit = number
        place += 2
    return limit
