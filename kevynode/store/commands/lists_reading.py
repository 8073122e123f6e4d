"""Commands that read lists: LLEN, LRANGE, LINDEX, LPOS."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from ... import errors
from ...reply import Reply
from ..arguments import INT64_MIN, as_int, parse_int
from ..blocks import ElementBlocks
from ..command import Args, command, one_key
from ..store import Store
from ..values import List

__all__ = ["bounds"]

RANK_ZERO = errors.ErrorKind(
    "ERR",
    "RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to start from the"
    " end of the list",
    errors.FIX,
)
COUNT_NEGATIVE = errors.ErrorKind("ERR", "COUNT can't be negative", errors.FIX)
MAXLEN_NEGATIVE = errors.ErrorKind("ERR", "MAXLEN can't be negative", errors.FIX)


def bounds(start: int, stop: int, size: int) -> tuple[int, int]:
    """An inclusive range with negative indexes as ``0 <= start <= stop <= size``, ``stop`` exclusive."""
    if start < 0:
        start = max(start + size, 0)
    stop = stop + size + 1 if stop < 0 else stop + 1
    if stop > size:
        stop = size
    return (start, stop) if start < stop else (0, 0)


@command(
    "llen",
    arity=2,
    flags="readonly fast",
    keys=one_key("RO"),
    group="list",
    since="1.0.0",
    summary="The length of a list.",
    complexity="O(1)",
    syntax="key",
)
def llen(store: Store, argv: Args) -> Reply:
    value = store.read_as(argv[1], List)
    return 0 if value is None else len(value)


@command(
    "lrange",
    arity=4,
    flags="readonly",
    keys=one_key("RO ACCESS"),
    group="list",
    since="1.0.0",
    summary="A range of a list.",
    complexity="O(S+N) for S elements between the range and the nearer end and N elements in the range.",
    syntax="key start stop",
)
def lrange(store: Store, argv: Args) -> Reply:
    start, stop = parse_int(argv[2]), parse_int(argv[3])
    value = store.read_as(argv[1], List)
    if value is None:
        return []
    elements = value.elements
    if start == 0 and stop == -1:
        return list(elements)
    start, stop = bounds(start, stop, len(elements))
    # As ``value.between``, without the call.
    return elements.between(start, stop) if type(elements) is ElementBlocks else elements[start:stop]


@command(
    "lindex",
    arity=3,
    flags="readonly",
    keys=one_key("RO ACCESS"),
    group="list",
    since="1.0.0",
    summary="The element at an index of a list.",
    complexity="O(N) for N elements between the index and the nearer end.",
    syntax="key index",
)
def lindex(store: Store, argv: Args) -> Reply:
    value = store.read_as(argv[1], List)
    if value is None:
        return None
    index = parse_int(argv[2])
    try:
        return value.elements[index]
    except IndexError:
        return None


@command(
    "lpos",
    arity=-3,
    flags="readonly",
    keys=one_key("RO ACCESS"),
    group="list",
    since="6.0.6",
    summary="Where an element stands in a list.",
    complexity="O(N) for N elements compared.",
    syntax="key element [RANK rank] [COUNT num-matches] [MAXLEN len]",
)
def lpos(store: Store, argv: Args) -> Reply:
    """The index of the first match or null; an array where COUNT is given."""
    rank, count, most = _position_options(argv)
    value = store.read_as(argv[1], List)
    if value is None:
        return None if count is None else []
    places = _positions(value, argv[2], rank, most)
    if count is None:
        return next(places, None)
    return list(islice(places, count or None))


def _position_options(argv: Args) -> tuple[int, int | None, int]:
    """Rank, count (None: not given, 0: all) and how many elements to compare (0: all)."""
    rank, most = 1, 0
    count: int | None = None
    for place in range(3, len(argv), 2):
        option = argv[place].upper()
        if option not in (b"RANK", b"COUNT", b"MAXLEN") or place + 1 == len(argv):
            raise errors.SYNTAX()
        number = as_int(argv[place + 1])
        if option == b"RANK":
            rank = parse_int(argv[place + 1])
            if rank == INT64_MIN:
                raise errors.COUNT_OUT_OF_RANGE()
            if rank == 0:
                raise RANK_ZERO()
        elif option == b"COUNT":
            if number is None or number < 0:
                raise COUNT_NEGATIVE()
            count = number
        else:
            if number is None or number < 0:
                raise MAXLEN_NEGATIVE()
            most = number
    return rank, count, most


def _positions(value: List, element: bytes, rank: int, most: int) -> Iterator[int]:
    """Indexes of matches from the ``rank``-th on, from the tail if negative, among the first ``most`` elements."""
    size = len(value)
    compared = islice(value.elements if rank > 0 else reversed(value.elements), most or None)
    matches = (place for place, other in enumerate(compared) if other == element)
    wanted = islice(matches, min(abs(rank) - 1, size), None)
    return wanted if rank > 0 else (size - 1 - place for place in wanted)
