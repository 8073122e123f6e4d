"""Intersections, unions and differences of sorted sets, shown or stored. Plain sets take part, each score being 1."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from math import isinf
from typing import Final, TypeAlias

import attrs

from ... import errors
from ...reply import Pairs, Reply
from .. import notify
from ..arguments import parse_float, parse_int
from ..command import Args, command, key_number, one_key
from ..store import Store
from ..tables import Table
from ..values import Set, SortedSet
from .random_members import walk
from .set_algebra import parse_limit
from .set_results import store_result

NO_KEYS = errors.ErrorKind("ERR", "at least 1 input key is needed for '{}' command", errors.FIX)
WEIGHT_NOT_FLOAT = errors.ErrorKind("ERR", "weight value is not a float", errors.FIX)

_STORE_KEYS: Final = one_key("OW UPDATE") + key_number("RO ACCESS", at=2)
Scores: TypeAlias = dict[bytes, float]
Aggregate: TypeAlias = Callable[[float, float], float]


def _sum(total: float, score: float) -> float:
    total += score
    # Infinities of both signs cancel out.
    return total if total == total else 0.0


_AGGREGATES: Final[dict[bytes, Aggregate]] = {b"SUM": _sum, b"MIN": min, b"MAX": max}


@attrs.define
class _Source:
    """One input: its members as keys, with scores, or with True where it is a plain set. None: there is no such key."""

    key: bytes
    table: Table | None
    weight: float = 1.0

    def __len__(self) -> int:
        return 0 if self.table is None else len(self.table)


@attrs.define
class _Query:
    """What a command asks for."""

    sources: list[_Source]
    aggregate: Aggregate = _sum
    with_scores: bool = False


Operation: TypeAlias = Callable[[_Query], Scores]


def _read_sources(store: Store, argv: Args, at: int, name: str) -> tuple[list[_Source], int]:
    """The inputs of ``numkeys key ...`` from index ``at`` and the index behind them; raises WRONGTYPE."""
    number = parse_int(argv[at])
    if number < 1:
        raise NO_KEYS(name)
    end = at + 1 + number
    if end > len(argv):
        raise errors.SYNTAX()
    return [_Source(key, _read_table(store, key)) for key in argv[at + 1 : end]], end


def _read_table(store: Store, key: bytes) -> Table | None:
    value = store.read(key)
    if value is None:
        return None
    if type(value) is SortedSet:
        return value.scores
    if type(value) is Set:
        return value.members
    raise errors.WRONG_TYPE()


def _parse(store: Store, argv: Args, at: int, name: str, weighs: bool, shows: bool) -> _Query:
    """Read inputs and options; ``weighs``: WEIGHTS and AGGREGATE are allowed, ``shows``: WITHSCORES is."""
    sources, place = _read_sources(store, argv, at, name)
    query = _Query(sources)
    while place < len(argv):
        word = argv[place].upper()
        left = len(argv) - place - 1
        if word == b"WEIGHTS" and weighs and left >= len(sources):
            for source in sources:
                place += 1
                source.weight = parse_float(argv[place], WEIGHT_NOT_FLOAT)
        elif word == b"AGGREGATE" and weighs and left:
            place += 1
            aggregate = _AGGREGATES.get(argv[place].upper())
            if aggregate is None:
                raise errors.SYNTAX()
            query.aggregate = aggregate
        elif word == b"WITHSCORES" and shows:
            query.with_scores = True
        else:
            raise errors.SYNTAX()
        place += 1
    return query


# -- operations -------------------------------------------------------------------------------------------------------


def _weighted(source: _Source) -> Scores:
    """Members of a source that is there with their scores times its weight; zero times infinity is zero."""
    assert source.table is not None
    weight = source.weight
    # True, the score of a plain set's member, multiplies as 1.
    scores = {member: score * weight for member, score in source.table.items()}
    if weight == 0 or isinf(weight):
        return {member: score if score == score else 0.0 for member, score in scores.items()}
    return scores


def _common(query: _Query) -> Scores:
    """The members of every source, found from the smallest, with their scores put together from the smallest on."""
    # As in Valkey scores are put together from the smallest source on: the order shows in the last digits.
    sources = sorted(query.sources, key=len)
    if not len(sources[0]):
        return {}
    aggregate = query.aggregate
    scores = _weighted(sources[0])
    for source in sources[1:]:
        assert source.table is not None
        get, weight = source.table.get, source.weight
        left: Scores = {}
        for member, score in scores.items():
            other = get(member)
            if other is not None:
                left[member] = aggregate(score, other * weight)
        scores = left
    return scores


def _united(query: _Query) -> Scores:
    """The members of any source with their scores put together."""
    scores: Scores = {}
    aggregate = query.aggregate
    for source in sorted(query.sources, key=len):
        if not len(source):
            continue
        if not scores:
            scores = _weighted(source)
            continue
        get = scores.get
        for member, score in _weighted(source).items():
            other = get(member)
            scores[member] = score if other is None else aggregate(other, score)
    return scores


def _different(query: _Query) -> Scores:
    """The members of the first source that are in no other, with their scores there."""
    first = query.sources[0]
    if first.table is None:
        return {}
    others = _tables(query.sources[1:])
    if len(first) * len(others) <= 2 * sum(map(len, others)):
        # The largest is the likeliest to have a member.
        others.sort(key=len, reverse=True)
        kept = _weighted(first)
        for table in others:
            kept = {member: score for member, score in kept.items() if member not in table}
        return kept
    scores = _weighted(first)
    for table in others:
        for member in walk(table):
            scores.pop(member, None)
    return scores


def _tables(sources: list[_Source]) -> list[Table]:
    """What the sources hold, those left out that hold nothing or that are named a second time."""
    return [table for table in {source.key: source.table for source in sources}.values() if table is not None]


# -- commands ---------------------------------------------------------------------------------------------------------


def _show(store: Store, argv: Args, name: str, operation: Operation, weighs: bool = True) -> Reply:
    query = _parse(store, argv, 1, name, weighs, shows=True)
    entries = sorted([(score, member) for member, score in operation(query).items()])
    if query.with_scores:
        return Pairs([(member, score) for score, member in entries])
    return [member for _, member in entries]


def _store(store: Store, argv: Args, name: str, operation: Operation, weighs: bool = True) -> Reply:
    query = _parse(store, argv, 2, name, weighs, shows=False)
    result = SortedSet.of(operation(query), store.epoch)
    return store_result(store, argv[1], result, (notify.ZSET, name.encode(), argv[1]))


@command(
    "zinter",
    arity=-3,
    flags="readonly movablekeys",
    keys=key_number("RO ACCESS"),
    group="sorted-set",
    since="6.2.0",
    summary="The members that all of the sorted sets have.",
    complexity="O(N*K)+O(M*log(M)) for N members of the smallest of K inputs, and M found.",
    syntax="numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE SUM|MIN|MAX] [WITHSCORES]",
)
def zinter(store: Store, argv: Args) -> Reply:
    """Members, or pairs of member and score, the lowest score first."""
    return _show(store, argv, "zinter", _common)


@command(
    "zunion",
    arity=-3,
    flags="readonly movablekeys",
    keys=key_number("RO ACCESS"),
    group="sorted-set",
    since="6.2.0",
    summary="The members that any of the sorted sets has.",
    complexity="O(N)+O(M*log(M)) for N members of all inputs together, and M found.",
    syntax="numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE SUM|MIN|MAX] [WITHSCORES]",
)
def zunion(store: Store, argv: Args) -> Reply:
    """Members, or pairs of member and score, the lowest score first."""
    return _show(store, argv, "zunion", _united)


@command(
    "zdiff",
    arity=-3,
    flags="readonly movablekeys",
    keys=key_number("RO ACCESS"),
    group="sorted-set",
    since="6.2.0",
    summary="The members of the first sorted set that no other has.",
    complexity="O(N)+O(M*log(M)) for N members of all inputs together, and M found.",
    syntax="numkeys key [key ...] [WITHSCORES]",
)
def zdiff(store: Store, argv: Args) -> Reply:
    """Members, or pairs of member and score, the lowest score first."""
    return _show(store, argv, "zdiff", _different, weighs=False)


@command(
    "zinterstore",
    arity=-4,
    flags="write denyoom movablekeys",
    keys=_STORE_KEYS,
    group="sorted-set",
    since="2.0.0",
    summary="Stores the members that all of the sorted sets have.",
    complexity="O(N*K)+O(M*log(M)) for N members of the smallest of K inputs, and M found.",
    syntax="destination numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE SUM|MIN|MAX]",
)
def zinterstore(store: Store, argv: Args) -> Reply:
    """How many members are stored."""
    return _store(store, argv, "zinterstore", _common)


@command(
    "zunionstore",
    arity=-4,
    flags="write denyoom movablekeys",
    keys=_STORE_KEYS,
    group="sorted-set",
    since="2.0.0",
    summary="Stores the members that any of the sorted sets has.",
    complexity="O(N)+O(M*log(M)) for N members of all inputs together, and M found.",
    syntax="destination numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE SUM|MIN|MAX]",
)
def zunionstore(store: Store, argv: Args) -> Reply:
    """How many members are stored."""
    return _store(store, argv, "zunionstore", _united)


@command(
    "zdiffstore",
    arity=-4,
    flags="write denyoom movablekeys",
    keys=_STORE_KEYS,
    group="sorted-set",
    since="6.2.0",
    summary="Stores the members of the first sorted set that no other has.",
    complexity="O(N)+O(M*log(M)) for N members of all inputs together, and M found.",
    syntax="destination numkeys key [key ...]",
)
def zdiffstore(store: Store, argv: Args) -> Reply:
    """How many members are stored."""
    return _store(store, argv, "zdiffstore", _different, weighs=False)


@command(
    "zintercard",
    arity=-3,
    flags="readonly movablekeys",
    keys=key_number("RO ACCESS"),
    group="sorted-set",
    since="7.0.0",
    summary="How many members all of the sorted sets have, counted up to a limit.",
    complexity="O(N*K) for N members of the smallest of K inputs.",
    syntax="numkeys key [key ...] [LIMIT limit]",
)
def zintercard(store: Store, argv: Args) -> Reply:
    sources, place = _read_sources(store, argv, 1, "zintercard")
    limit = parse_limit(argv, place)
    if any(source.table is None for source in sources):
        return 0
    tables = sorted(_tables(sources), key=len)
    members = iter(walk(tables[0]))
    for table in tables[1:]:
        members = filter(table.__contains__, members)
    return sum(1 for _ in islice(members, limit or None))
