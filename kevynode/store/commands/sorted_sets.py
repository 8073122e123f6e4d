"""Commands on the members and scores of one sorted set.

Ranges, pops and what combines several sorted sets stand in modules of their own beside this one.
"""

from __future__ import annotations

from typing import Final

from ... import errors
from ...doubles import format_double
from ...reply import NULL_ARRAY, Pairs, Reply
from .. import notify
from ..arguments import INT64_MAX, parse_float
from ..command import Args, command, one_key
from ..store import Store
from ..tables import random_member, scan_table
from ..values import SortedSet
from .random_members import parse_count, repeated, sample
from .scan import parse_cursor, parse_options, scan_reply
from .set_results import remove_members

__all__ = ["parse_score"]

NX_WITH_XX = errors.ErrorKind("ERR", "XX and NX options at the same time are not compatible", errors.FIX)
NX_WITH_GT_LT = errors.ErrorKind("ERR", "GT, LT, and/or NX options at the same time are not compatible", errors.FIX)
INCREMENT_ONE = errors.ErrorKind("ERR", "INCR option supports a single increment-element pair", errors.FIX)
NOT_A_NUMBER = errors.ErrorKind("ERR", "resulting score is not a number (NaN)", errors.FIX)

_OPTIONS: Final = frozenset((b"nx", b"xx", b"gt", b"lt", b"ch", b"incr"))
# Every whole number of so many digits is a double.
_PLAIN_DIGITS: Final = 300


def parse_score(data: bytes, kind: errors.ErrorKind = errors.NOT_FLOAT) -> float:
    """A score: any double but NaN, zero without a sign. Raises ``kind``."""
    if data.isdigit() and len(data) < _PLAIN_DIGITS:
        return float(data)
    return parse_float(data, kind) + 0.0


# -- scores -----------------------------------------------------------------------------------------------------------


@command(
    "zadd",
    arity=-4,
    flags="write denyoom fast",
    keys=one_key("RW UPDATE"),
    group="sorted-set",
    since="1.2.0",
    summary="Gives members of a sorted set their scores; the sorted set is made if it is missing.",
    complexity="O(log(N)) for each member given, N in the sorted set.",
    syntax="key [NX|XX] [GT|LT] [CH] [INCR] score member [score member ...]",
)
def zadd(store: Store, argv: Args) -> Reply:
    """How many members are new; with CH how many are new or changed; with INCR the score, or null if nothing is done.

    NX: new members only. XX: none that are new. GT, LT: a score only grows, or only shrinks.
    """
    if argv[2].lower() in _OPTIONS:
        return _add_with_options(store, argv)
    if len(argv) != 4:
        return _add_many(store, argv)
    score = parse_score(argv[2])
    key = argv[1]
    is_new = store.write_or_create(key, SortedSet).put(argv[3], score)
    if is_new is None:
        return 0
    store.emit(argv, key, (notify.ZSET, b"zadd", key))
    return 1 if is_new else 0


def _add_many(store: Store, argv: Args) -> Reply:
    if len(argv) % 2:
        raise errors.SYNTAX()
    scores = list(map(parse_score, argv[2::2]))
    key = argv[1]
    put = store.write_or_create(key, SortedSet).put
    outcomes = list(map(put, argv[3::2], scores))
    added = outcomes.count(True)
    if added or False in outcomes:
        store.emit(argv, key, (notify.ZSET, b"zadd", key))
    return added


def _add_with_options(store: Store, argv: Args) -> Reply:
    start = 2
    while start < len(argv) and argv[start].lower() in _OPTIONS:
        start += 1
    options = {option.lower() for option in argv[2:start]}
    if start == len(argv) or (len(argv) - start) % 2:
        raise errors.SYNTAX()
    if {b"nx", b"xx"} <= options:
        raise NX_WITH_XX()
    if len(options & {b"nx", b"gt", b"lt"}) > 1:
        raise NX_WITH_GT_LT()
    if b"incr" in options:
        if len(argv) - start > 2:
            raise INCREMENT_ONE()
        return _increment(store, argv[1], parse_float(argv[start]), argv[start + 1], options)
    return _add_some(store, argv[1], list(map(parse_score, argv[start::2])), argv[start + 1 :: 2], options)


def _is_wanted(old: float | None, score: float, options: set[bytes]) -> bool:
    """Whether the options let a member whose score is ``old`` (None: it is new) get ``score``."""
    if old is None:
        return b"xx" not in options
    if b"nx" in options:
        return False
    if b"gt" in options:
        return score > old
    return b"lt" not in options or score < old


def _add_some(store: Store, key: bytes, scores: list[float], members: Args, options: set[bytes]) -> Reply:
    """ZADD under options: what they let through."""
    if store.lookup_as(key, SortedSet) is None and b"xx" in options:
        return 0
    value = store.write_or_create(key, SortedSet)
    changed: dict[bytes, float] = {}
    added = updated = 0
    for member, score in zip(members, scores, strict=True):
        if not _is_wanted(value.score(member), score, options):
            continue
        is_new = value.put(member, score)
        if is_new is not None:
            changed[member] = score
            added += is_new
            updated += not is_new
    if changed:
        words = [word for member, score in changed.items() for word in (format_double(score), member)]
        store.emit((b"ZADD", key, *words), key, (notify.ZSET, b"zadd", key))
    return added + updated if b"ch" in options else added


def _increment(store: Store, key: bytes, increment: float, member: bytes, options: set[bytes]) -> Reply:
    """Add to the score of a member, which is 0 if it is new; the score, or None if the options forbid it."""
    value = store.lookup_as(key, SortedSet)
    old = None if value is None else value.score(member)
    score = increment if old is None else old + increment
    if score != score:
        raise NOT_A_NUMBER()
    if not _is_wanted(old, score, options):
        return None
    if score != old:
        # A negative zero is shown but not kept.
        kept = score + 0.0
        store.write_or_create(key, SortedSet).put(member, kept)
        store.emit((b"ZADD", key, format_double(kept), member), key, (notify.ZSET, b"zincr", key))
    return score


@command(
    "zincrby",
    arity=4,
    flags="write denyoom fast",
    keys=one_key("RW ACCESS UPDATE"),
    group="sorted-set",
    since="1.2.0",
    summary="Adds to the score of a member of a sorted set; what is missing counts as 0.",
    complexity="O(log(N)) for N members.",
    syntax="key increment member",
)
def zincrby(store: Store, argv: Args) -> Reply:
    """The new score."""
    return _increment(store, argv[1], parse_float(argv[2]), argv[3], set())


@command(
    "zrem",
    arity=-3,
    flags="write fast",
    keys=one_key("RW DELETE"),
    group="sorted-set",
    since="1.2.0",
    summary="Takes members out of a sorted set; with the last one the key goes.",
    complexity="O(M*log(N)) for M members given, N in the sorted set.",
    syntax="key member [member ...]",
)
def zrem(store: Store, argv: Args) -> Reply:
    """How many members were there."""
    return remove_members(store, argv, SortedSet, (notify.ZSET, b"zrem", argv[1]))


@command(
    "zcard",
    arity=2,
    flags="readonly fast",
    keys=one_key("RO"),
    group="sorted-set",
    since="1.2.0",
    summary="How many members a sorted set has.",
    complexity="O(1).",
    syntax="key",
)
def zcard(store: Store, argv: Args) -> Reply:
    value = store.read_as(argv[1], SortedSet)
    return 0 if value is None else len(value)


@command(
    "zscore",
    arity=3,
    flags="readonly fast",
    keys=one_key("RO ACCESS"),
    group="sorted-set",
    since="1.2.0",
    summary="The score of a member of a sorted set.",
    complexity="O(1).",
    syntax="key member",
)
def zscore(store: Store, argv: Args) -> Reply:
    value = store.read_as(argv[1], SortedSet)
    return None if value is None else value.score(argv[2])


@command(
    "zmscore",
    arity=-3,
    flags="readonly fast",
    keys=one_key("RO ACCESS"),
    group="sorted-set",
    since="6.2.0",
    summary="The scores of several members of a sorted set.",
    complexity="O(N) for N members asked about.",
    syntax="key member [member ...]",
)
def zmscore(store: Store, argv: Args) -> Reply:
    """A score or null for each member."""
    value = store.read_as(argv[1], SortedSet)
    if value is None:
        return [None] * (len(argv) - 2)
    return list(map(value.scores.get, argv[2:]))


# -- ranks ------------------------------------------------------------------------------------------------------------


def _rank(store: Store, argv: Args, backward: bool) -> Reply:
    with_score = len(argv) > 3
    if len(argv) > 4:
        raise errors.WRONG_ARITY("zrevrank" if backward else "zrank")
    if with_score and argv[3].upper() != b"WITHSCORE":
        raise errors.SYNTAX()
    value = store.read_as(argv[1], SortedSet)
    rank = None if value is None else value.rank(argv[2])
    if value is None or rank is None:
        return NULL_ARRAY if with_score else None
    if backward:
        rank = len(value) - 1 - rank
    return [rank, value.score(argv[2])] if with_score else rank


@command(
    "zrank",
    arity=-3,
    flags="readonly fast",
    keys=one_key("RO ACCESS"),
    group="sorted-set",
    since="2.0.0",
    summary="The place of a member counted from the lowest score, which has place 0.",
    complexity="O(log(N)) for N members.",
    syntax="key member [WITHSCORE]",
)
def zrank(store: Store, argv: Args) -> Reply:
    """The place, or [place, score]; null where there is no such member."""
    return _rank(store, argv, backward=False)


@command(
    "zrevrank",
    arity=-3,
    flags="readonly fast",
    keys=one_key("RO ACCESS"),
    group="sorted-set",
    since="2.0.0",
    summary="The place of a member counted from the highest score, which has place 0.",
    complexity="O(log(N)) for N members.",
    syntax="key member [WITHSCORE]",
)
def zrevrank(store: Store, argv: Args) -> Reply:
    """The place, or [place, score]; null where there is no such member."""
    return _rank(store, argv, backward=True)


# -- members at random, scan ------------------------------------------------------------------------------------------


@command(
    "zrandmember",
    arity=-2,
    flags="readonly",
    keys=one_key("RO ACCESS"),
    group="sorted-set",
    since="6.2.0",
    summary="Random members of a sorted set, which stay in it.",
    complexity="O(1) without a count, else O(N+M) at most for N members asked for and M in the sorted set.",
    syntax="key [count [WITHSCORES]]",
    tips=("nondeterministic_output",),
)
def zrandmember(store: Store, argv: Args) -> Reply:
    """One member or null; with a count different members, or as many as ``-count`` that may repeat."""
    if len(argv) == 2:
        value = store.read_as(argv[1], SortedSet)
        return None if value is None else random_member(value.scores, store.random)
    count = parse_count(argv[2])
    with_scores = len(argv) > 3
    if len(argv) > 4 or (with_scores and argv[3].upper() != b"WITHSCORES"):
        raise errors.SYNTAX()
    if with_scores and abs(count) > INT64_MAX // 2:
        raise errors.OUT_OF_RANGE()
    value = store.read_as(argv[1], SortedSet)
    if value is None or not count:
        return []
    scores = value.scores
    members = repeated(scores, -count, store.random) if count < 0 else sample(scores, count, store.random)
    return Pairs(zip(members, map(scores.get, members), strict=True)) if with_scores else members


@command(
    "zscan",
    arity=-3,
    flags="readonly",
    keys=one_key("RO ACCESS"),
    group="sorted-set",
    since="2.8.0",
    summary="Walks the members of a sorted set, and their scores, in steps.",
    complexity="O(1) per step, O(N) for all N members.",
    syntax="key cursor [MATCH pattern] [COUNT count] [NOSCORES]",
    tips=("nondeterministic_output",),
)
def zscan(store: Store, argv: Args) -> Reply:
    """The next cursor, 0 at the end, and members with their scores in turn."""
    cursor = parse_cursor(argv[2])
    value = store.read_as(argv[1], SortedSet)
    if value is None:
        return scan_reply(0, [])
    options = parse_options(argv, 3, SortedSet)
    cursor, members = scan_table(value.scores, cursor, options.count)
    if len(members) == len(value):
        # What comes whole comes by score, as Valkey's compact encoding has it.
        members = [member for _, member in value.order]
    members = options.filter(members)
    if options.keys_only:
        return scan_reply(cursor, members)
    return scan_reply(cursor, [word for member in members for word in (member, format_double(value.scores[member]))])
