"""Members of a set or a sorted set at random: some that differ, or some that may repeat."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Final

from ... import errors
from ..arguments import INT64_MIN, parse_int
from ..sharded import RandomSource
from ..tables import Table, random_member

__all__ = ["MOST_REPEATED", "parse_count", "repeated", "sample", "walk"]


#: With repetition a few bytes can ask for any number of members; no more than so many are given.
MOST_REPEATED: Final = 1 << 20

# A few members of a large table are drawn one by one, more of them in one walk over it.
_FEW: Final = 64
_SPARSE: Final = 4


def parse_count(data: bytes) -> int:
    """The count of SRANDMEMBER or ZRANDMEMBER; negative asks for members that may repeat."""
    count = parse_int(data)
    if count == INT64_MIN:
        raise errors.COUNT_OUT_OF_RANGE()
    return count


def walk(table: Table) -> Iterable[bytes]:
    """The members of a table one by one; it must not change meanwhile."""
    return table if isinstance(table, dict) else chain.from_iterable(table.shards())


def sample(table: Table, count: int, random: RandomSource) -> list[bytes]:
    """``count`` different members, or all if there are fewer; every choice is (nearly) as likely. O(size) at most."""
    size = len(table)
    if count >= size:
        return list(walk(table))
    if not isinstance(table, dict) and count <= _FEW and count * _SPARSE <= size:
        drawn: dict[bytes, None] = {}
        while len(drawn) < count:
            drawn[random_member(table, random)] = None
        return list(drawn)
    if count * 2 <= size:
        return _members_at(table, sorted(_different(count, size, random)))
    left_out = _different(size - count, size, random)
    return _members_at(table, [place for place in range(size) if place not in left_out])


def repeated(table: Table, count: int, random: RandomSource) -> list[bytes]:
    """``count`` members of a table that is not empty, each drawn anew. Raises OUT_OF_RANGE for too many."""
    if count > MOST_REPEATED:
        raise errors.OUT_OF_RANGE()
    size = len(table)
    if not isinstance(table, dict) and count <= _FEW:
        return [random_member(table, random) for _ in range(count)]
    fraction = random.random
    places = [int(fraction() * size) for _ in range(count)]
    if count * _SPARSE >= size:
        members = list(walk(table))
        return [members[place] for place in places]
    wanted = sorted(set(places))
    found = dict(zip(wanted, _members_at(table, wanted), strict=True))
    return [found[place] for place in places]


def _different(count: int, size: int, random: RandomSource) -> set[int]:
    """``count`` different numbers below ``size``, every choice as likely (Floyd's algorithm, in ``count`` steps)."""
    chosen: set[int] = set()
    for top in range(size - count, size):
        pick = int(random.random() * (top + 1))
        chosen.add(top if pick in chosen else pick)
    return chosen


def _members_at(table: Table, places: list[int]) -> list[bytes]:
    """The members at these places, which ascend, in the order a walk over the table meets them."""
    if isinstance(table, dict):
        members = list(table)
        return [members[place] for place in places]
    found: list[bytes] = []
    first = number = 0
    for shard in table.shards():
        if number == len(places):
            break
        behind = first + len(shard)
        if places[number] < behind:
            members = list(shard)
            while number < len(places) and places[number] < behind:
                found.append(members[places[number] - first])
                number += 1
        first = behind
    return found
