"""Ranges of a sorted set by place, score or member, as commands give them.

A range knows its **span** in a sorted set that is not empty: the places from ``start`` up to, not including, ``stop``,
counted from the lowest score.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from math import inf, nextafter
from operator import itemgetter
from typing import Final, Protocol, TypeAlias

import attrs

from ... import errors
from ..arguments import as_float, parse_int
from ..ordered import Order
from ..values import SortedSet

__all__ = ["LexRange", "Range", "RankRange", "ScoreRange", "Span"]

NOT_SCORE_RANGE = errors.ErrorKind("ERR", "min or max is not a float", errors.FIX)
NOT_LEX_RANGE = errors.ErrorKind("ERR", "min or max not valid string range item", errors.FIX)

Span: TypeAlias = tuple[int, int]
_EMPTY: Final = (0, 0)
_member = itemgetter(1)


class Range(Protocol):
    """Anything that has a span in a sorted set."""

    def span(self, value: SortedSet, backward: bool = False) -> Span:
        """The places of the entries inside, start == stop if there are none; ``backward``: the reply descends."""
        ...


# -- by place ---------------------------------------------------------------------------------------------------------


@attrs.frozen
class RankRange:
    """Places from ``first`` to ``last``, both inside; negative ones count from the end."""

    first: int
    last: int

    @classmethod
    def parse(cls, first: bytes, last: bytes) -> RankRange:
        """Raises NOT_INTEGER."""
        return cls(parse_int(first), parse_int(last))

    def span(self, value: SortedSet, backward: bool = False) -> Span:
        size = len(value)
        first = max(self.first + size, 0) if self.first < 0 else self.first
        last = min(self.last + size if self.last < 0 else self.last, size - 1)
        if first > last:
            return _EMPTY
        return (size - 1 - last, size - first) if backward else (first, last + 1)


# -- by score ---------------------------------------------------------------------------------------------------------


def _parse_score_bound(data: bytes) -> tuple[float, bool]:
    """A bound and whether it lies outside (``(`` leads). As in Valkey what follows a zero byte is not looked at."""
    data = data.partition(b"\0")[0]
    is_open = data[:1] == b"("
    if is_open:
        data = data[1:]
    if not data:
        return 0.0, is_open
    bound = as_float(data)
    if bound is None:
        bound = _extreme(data)
    return bound, is_open


def _extreme(data: bytes) -> float:
    """A bound beyond what a double can hold is infinite, and one too near to zero is zero."""
    try:
        bound = float(data)
    except ValueError:
        raise NOT_SCORE_RANGE() from None
    # float() also reads blanks, underscores and NaN.
    if bound != bound or data.strip() != data or b"_" in data:
        raise NOT_SCORE_RANGE()
    return bound


@attrs.frozen
class ScoreRange:
    """Scores between two bounds, each inside or (``open``) outside."""

    low: float
    low_open: bool
    high: float
    high_open: bool

    @classmethod
    def parse(cls, low: bytes, high: bytes) -> ScoreRange:
        """Raises NOT_SCORE_RANGE."""
        return cls(*_parse_score_bound(low), *_parse_score_bound(high))

    def span(self, value: SortedSet, backward: bool = False) -> Span:
        start = self._cut(value, self.low, self.low_open)
        stop = self._cut(value, self.high, not self.high_open)
        return (start, stop) if start < stop else _EMPTY

    @staticmethod
    def _cut(value: SortedSet, score: float, behind: bool) -> int:
        """The place before the first entry with this score, or behind the last."""
        if behind:
            if score == inf:
                return len(value)
            score = nextafter(score, inf)
        # A tuple of one element sorts before all that go on.
        return value.place((score,))


# -- by member --------------------------------------------------------------------------------------------------------


# Up to this size Valkey keeps a sorted set in a compact form, which it searches member by member.
_COMPACT: Final = 128

_LOWEST: Final = (0, b"", False)
_HIGHEST: Final = (2, b"", False)
# (0, ...) lies before every member, (2, ...) behind, (1, member, is open) at one.
LexBound: TypeAlias = tuple[int, bytes, bool]


def _parse_lex_bound(data: bytes) -> LexBound:
    if data == b"-":
        return _LOWEST
    if data == b"+":
        return _HIGHEST
    if data[:1] not in (b"[", b"("):
        raise NOT_LEX_RANGE()
    return 1, data[1:], data[:1] == b"("


@attrs.frozen
class LexRange:
    """Members between two bounds. Meant for sorted sets whose members all have one score."""

    low: LexBound
    high: LexBound

    @classmethod
    def parse(cls, low: bytes, high: bytes) -> LexRange:
        """Raises NOT_LEX_RANGE."""
        return cls(_parse_lex_bound(low), _parse_lex_bound(high))

    def span(self, value: SortedSet, backward: bool = False) -> Span:
        order = value.order
        score = order[0][0]
        if score != order[-1][0]:
            # Valkey promises nothing here. A compact form is walked as Valkey walks it, a larger one is searched as
            # if members ascended.
            if len(order) <= _COMPACT:
                return self._walk([member for _, member in order], backward)
            start, stop = _find_member(order, self.low, self.low[2]), _find_member(order, self.high, not self.high[2])
        else:
            start = _find_entry(value, score, self.low, self.low[2])
            stop = _find_entry(value, score, self.high, not self.high[2])
        return (start, stop) if start < stop else _EMPTY

    def _is_below(self, member: bytes) -> bool:
        side, bound, is_open = self.low
        return side == 2 or (side == 1 and (member <= bound if is_open else member < bound))

    def _is_above(self, member: bytes) -> bool:
        side, bound, is_open = self.high
        return side == 0 or (side == 1 and (member >= bound if is_open else member > bound))

    def _walk(self, members: list[bytes], backward: bool) -> Span:
        """From the first member that is not before the range up to the first one behind it, or from the other end."""
        if self.low > self.high or self._is_below(members[-1]) or self._is_above(members[0]):
            return _EMPTY
        size = len(members)
        if backward:
            stop = next((place for place in range(size, 0, -1) if not self._is_above(members[place - 1])), 0)
            return next((place for place in range(stop, 0, -1) if self._is_below(members[place - 1])), 0), stop
        start = next((place for place in range(size) if not self._is_below(members[place])), size)
        return start, next((place for place in range(start, size) if self._is_above(members[place])), size)


def _find_entry(value: SortedSet, score: float, bound: LexBound, behind: bool) -> int:
    """The place before or behind a bound among entries that all have this score."""
    side, member, _ = bound
    if side != 1:
        return 0 if side == 0 else len(value)
    # No member lies between one and the same with a zero byte behind it.
    return value.place((score, member + b"\0" if behind else member))


def _find_member(order: Order, bound: LexBound, behind: bool) -> int:
    """The place before or behind a bound among entries whose members are taken to ascend."""
    side, member, _ = bound
    if side != 1:
        return 0 if side == 0 else len(order)
    return (bisect_right if behind else bisect_left)(order, member, key=_member)
