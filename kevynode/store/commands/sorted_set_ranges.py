"""Commands on ranges of a sorted set: shown, stored, counted, removed.

The ranges themselves stand in ``sorted_set_spans``.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Final, TypeAlias

import attrs

from ... import errors
from ...reply import Pairs, Reply
from .. import notify
from ..arguments import parse_int
from ..command import Args, command, one_key
from ..store import Store
from ..values import SortedSet
from .set_results import emit_removal, store_result
from .sorted_set_spans import LexRange, Range, RankRange, ScoreRange

LIMIT_MISPLACED = errors.ErrorKind(
    "ERR", "syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX", errors.FIX
)
SCORES_MISPLACED = errors.ErrorKind(
    "ERR", "syntax error, WITHSCORES not supported in combination with BYLEX", errors.FIX
)

RangeClass: TypeAlias = type[RankRange] | type[ScoreRange] | type[LexRange]
_KINDS: Final[dict[bytes, RangeClass]] = {b"BYSCORE": ScoreRange, b"BYLEX": LexRange}
_member = itemgetter(1)


@attrs.define
class _Query:
    """What a command asks for. ``kind`` and ``backward`` are None while an option may still set them."""

    kind: RangeClass | None
    backward: bool | None
    offset: int = 0
    # Negative: as many as there are.
    count: int = -1
    with_scores: bool = False


def _parse_options(argv: Args, place: int, query: _Query, shows: bool) -> None:
    """Read the options from index ``place``; ``shows``: the command replies with what it finds, it stores nothing."""
    while place < len(argv):
        word = argv[place].upper()
        if word == b"WITHSCORES" and shows:
            query.with_scores = True
        elif word == b"LIMIT" and place + 2 < len(argv):
            query.offset, query.count = parse_int(argv[place + 1]), parse_int(argv[place + 2])
            place += 2
        elif word == b"REV" and query.backward is None:
            query.backward = True
        elif word in _KINDS and query.kind is None:
            query.kind = _KINDS[word]
        else:
            raise errors.SYNTAX()
        place += 1


def _find(store: Store, argv: Args, at: int, query: _Query, shows: bool = True) -> list[tuple[float, bytes]]:
    """The entries that a command asks for, in their order; its key stands at index ``at``, the bounds behind it."""
    _parse_options(argv, at + 3, query, shows)
    kind = query.kind or RankRange
    backward = bool(query.backward)
    if query.count != -1 and kind is RankRange:
        raise LIMIT_MISPLACED()
    if query.with_scores and kind is LexRange:
        raise SCORES_MISPLACED()
    first, second = argv[at + 1], argv[at + 2]
    if backward and kind is not RankRange:
        first, second = second, first
    found = kind.parse(first, second)
    value = store.read_as(argv[at], SortedSet)
    if value is None or (query.offset < 0 and kind is not RankRange):
        return []
    start, stop = found.span(value, backward)
    if kind is not RankRange:
        start, stop = _cut(start, stop, backward, query.offset, query.count)
    if start >= stop:
        return []
    entries = value.order[start:stop]
    if backward:
        entries.reverse()
    return entries


def _cut(start: int, stop: int, backward: bool, offset: int, count: int) -> tuple[int, int]:
    """The part of a span that LIMIT leaves."""
    if backward:
        stop -= offset
        return (start if count < 0 else max(start, stop - count)), stop
    start += offset
    return start, (stop if count < 0 else min(stop, start + count))


def _show(store: Store, argv: Args, kind: RangeClass | None, backward: bool | None) -> Reply:
    query = _Query(kind, backward)
    entries = _find(store, argv, 1, query)
    if query.with_scores:
        return Pairs([(member, score) for score, member in entries])
    return list(map(_member, entries))


# -- shown ------------------------------------------------------------------------------------------------------------


@command(
    "zrange",
    arity=-4,
    flags="readonly",
    keys=one_key("RO ACCESS"),
    group="sorted-set",
    since="1.2.0",
    summary="The members of a sorted set in a range of places, scores or members.",
    complexity="O(log(N)+M) for N members and M shown.",
    syntax="key start stop [BYSCORE|BYLEX] [REV] [LIMIT offset count] [WITHSCORES]",
)
def zrange(store: Store, argv: Args) -> Reply:
    """Members, or pairs of member and score."""
    return _show(store, argv, None, None)


@command(
    "zrevrange",
    arity=-4,
    flags="readonly",
    keys=one_key("RO ACCESS"),
    group="sorted-set",
    since="1.2.0",
    summary="The members of a sorted set in a range of places counted from the highest score.",
    complexity="O(log(N)+M) for N members and M shown.",
    syntax="key start stop [WITHSCORES]",
)
def zrevrange(store: Store, argv: Args) -> Reply:
    """Members, or pairs of member and score, the highest score first."""
    return _show(store, argv, RankRange, True)


@command(
    "zrangebyscore",
    arity=-4,
    flags="readonly",
    keys=one_key("RO ACCESS"),
    group="sorted-set",
    since="1.0.5",
    summary="The members of a sorted set in a range of scores.",
    complexity="O(log(N)+M) for N members and M shown.",
    syntax="key min max [WITHSCORES] [LIMIT offset count]",
)
def zrangebyscore(store: Store, argv: Args) -> Reply:
    """Members, or pairs of member and score."""
    return _show(store, argv, ScoreRange, False)


@command(
    "zrevrangebyscore",
    arity=-4,
    flags="readonly",
    keys=one_key("RO ACCESS"),
    group="sorted-set",
    since="2.2.0",
    summary="The members of a sorted set in a range of scores, the highest first.",
    complexity="O(log(N)+M) for N members and M shown.",
    syntax="key max min [WITHSCORES] [LIMIT offset count]",
)
def zrevrangebyscore(store: Store, argv: Args) -> Reply:
    """Members, or pairs of member and score."""
    return _show(store, argv, ScoreRange, True)


@command(
    "zrangebylex",
    arity=-4,
    flags="readonly",
    keys=one_key("RO ACCESS"),
    group="sorted-set",
    since="2.8.9",
    summary="The members between two others, in a sorted set whose scores are all equal.",
    complexity="O(log(N)+M) for N members and M shown.",
    syntax="key min max [LIMIT offset count]",
)
def zrangebylex(store: Store, argv: Args) -> Reply:
    return _show(store, argv, LexRange, False)


@command(
    "zrevrangebylex",
    arity=-4,
    flags="readonly",
    keys=one_key("RO ACCESS"),
    group="sorted-set",
    since="2.8.9",
    summary="The members between two others, the last first, in a sorted set whose scores are all equal.",
    complexity="O(log(N)+M) for N members and M shown.",
    syntax="key max min [LIMIT offset count]",
)
def zrevrangebylex(store: Store, argv: Args) -> Reply:
    return _show(store, argv, LexRange, True)


@command(
    "zrangestore",
    arity=-5,
    flags="write denyoom",
    keys=one_key("OW UPDATE") + one_key("RO ACCESS", at=2),
    group="sorted-set",
    since="6.2.0",
    summary="Stores a range of a sorted set under another key.",
    complexity="O(log(N)+M) for N members and M stored.",
    syntax="dst src min max [BYSCORE|BYLEX] [REV] [LIMIT offset count]",
)
def zrangestore(store: Store, argv: Args) -> Reply:
    """How many members are stored."""
    entries = _find(store, argv, 2, _Query(None, None), shows=False)
    result = SortedSet.of({member: score for score, member in entries}, store.epoch)
    return store_result(store, argv[1], result, (notify.ZSET, b"zrangestore", argv[1]))


# -- counted ----------------------------------------------------------------------------------------------------------


def _count(store: Store, key: bytes, wanted: Range) -> int:
    value = store.read_as(key, SortedSet)
    if value is None:
        return 0
    start, stop = wanted.span(value)
    return stop - start


@command(
    "zcount",
    arity=4,
    flags="readonly fast",
    keys=one_key("RO ACCESS"),
    group="sorted-set",
    since="2.0.0",
    summary="How many members of a sorted set have a score in a range.",
    complexity="O(log(N)) for N members.",
    syntax="key min max",
)
def zcount(store: Store, argv: Args) -> Reply:
    return _count(store, argv[1], ScoreRange.parse(argv[2], argv[3]))


@command(
    "zlexcount",
    arity=4,
    flags="readonly fast",
    keys=one_key("RO ACCESS"),
    group="sorted-set",
    since="2.8.9",
    summary="How many members lie between two others, in a sorted set whose scores are all equal.",
    complexity="O(log(N)) for N members.",
    syntax="key min max",
)
def zlexcount(store: Store, argv: Args) -> Reply:
    return _count(store, argv[1], LexRange.parse(argv[2], argv[3]))


# -- removed ----------------------------------------------------------------------------------------------------------


def _remove(store: Store, key: bytes, wanted: Range, event: bytes) -> int:
    value = store.lookup_as(key, SortedSet)
    if value is None:
        return 0
    start, stop = wanted.span(value)
    if start == stop:
        return 0
    opened = store.write(key, SortedSet)
    assert opened is not None
    members = [member for _, member in opened.remove_between(start, stop)]
    emit_removal(store, key, opened, members, (notify.ZSET, event, key))
    return len(members)


@command(
    "zremrangebyrank",
    arity=4,
    flags="write",
    keys=one_key("RW DELETE"),
    group="sorted-set",
    since="2.0.0",
    summary="Takes the members in a range of places out of a sorted set; with the last one the key goes.",
    complexity="O(log(N)+M) for N members and M removed.",
    syntax="key start stop",
)
def zremrangebyrank(store: Store, argv: Args) -> Reply:
    """How many members are removed."""
    return _remove(store, argv[1], RankRange.parse(argv[2], argv[3]), b"zremrangebyrank")


@command(
    "zremrangebyscore",
    arity=4,
    flags="write",
    keys=one_key("RW DELETE"),
    group="sorted-set",
    since="1.2.0",
    summary="Takes the members in a range of scores out of a sorted set; with the last one the key goes.",
    complexity="O(log(N)+M) for N members and M removed.",
    syntax="key min max",
)
def zremrangebyscore(store: Store, argv: Args) -> Reply:
    """How many members are removed."""
    return _remove(store, argv[1], ScoreRange.parse(argv[2], argv[3]), b"zremrangebyscore")


@command(
    "zremrangebylex",
    arity=4,
    flags="write",
    keys=one_key("RW DELETE"),
    group="sorted-set",
    since="2.8.9",
    summary="Takes the members between two others out of a sorted set whose scores are all equal.",
    complexity="O(log(N)+M) for N members and M removed.",
    syntax="key min max",
)
def zremrangebylex(store: Store, argv: Args) -> Reply:
    """How many members are removed."""
    return _remove(store, argv[1], LexRange.parse(argv[2], argv[3]), b"zremrangebylex")
