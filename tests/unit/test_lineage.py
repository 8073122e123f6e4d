"""Histories: what a copy of an older one shares with ours."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kevynode.replicate.lineage import ANCESTOR_LIMIT, HISTORY_LIMIT, MAX_OFFSET, Lineage

LINE = Lineage(1).branch(2, 100).branch(3, 250)
# The recovery that began history 3 had lost entries of 2, and some from before it.
FELL_BACK = Lineage(1).branch(2, 100).branch(3, 80)


@pytest.mark.parametrize(
    ("lineage", "history", "shared"),
    [
        (LINE, 3, MAX_OFFSET),
        (LINE, 2, 250),
        (LINE, 1, 100),
        (LINE, 4, None),
        (LINE, 0, None),
        (FELL_BACK, 2, 80),
        (FELL_BACK, 1, 80),
    ],
)
def test_shared(lineage: Lineage, history: int, shared: int | None) -> None:
    assert lineage.shared(history) == shared


@pytest.mark.parametrize(
    ("history", "offset", "covered"),
    [
        (3, 10**12, True),
        (2, 250, True),
        (2, 251, False),
        (1, 100, True),
        (1, 101, False),
        (9, 0, False),
        (3, -1, False),
    ],
)
def test_covers(history: int, offset: int, covered: bool) -> None:
    assert LINE.covers(history, offset) is covered


def test_the_newest_ancestors_are_kept() -> None:
    lineage = Lineage(1)
    for history in range(2, 30):
        lineage = lineage.branch(history, history * 10)
    assert len(lineage.ancestors) == ANCESTOR_LIMIT
    assert lineage.ancestors[0] == (28, 290)
    assert lineage.ancestors[-1] == (13, 140)
    assert lineage.shared(12) is None


@pytest.mark.parametrize(
    ("history", "ancestors"),
    [
        (0, ()),
        (HISTORY_LIMIT, ()),
        (-1, ()),
        (5, ((0, 1),)),
        (5, ((HISTORY_LIMIT, 1),)),
        (5, ((4, -1),)),
        (5, ((4, MAX_OFFSET + 1),)),
        (5, ((5, 1),)),
        (5, ((4, 1), (4, 1))),
        (50, tuple((history, 1) for history in range(1, ANCESTOR_LIMIT + 2))),
    ],
)
def test_what_is_no_lineage(history: int, ancestors: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(ValueError):
        Lineage(history, ancestors)


def test_a_history_never_branches_into_a_known_one() -> None:
    with pytest.raises(ValueError):
        LINE.branch(1, 300)
    with pytest.raises(ValueError):
        LINE.branch(3, 300)


@settings(deadline=None)
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=ANCESTOR_LIMIT))
def test_what_is_shared_is_the_smallest_branch_from_there_on(offsets: list[int]) -> None:
    lineage = Lineage(1)
    for number, offset in enumerate(offsets):
        lineage = lineage.branch(number + 2, offset)
    for number in range(len(offsets)):
        assert lineage.shared(number + 1) == min(offsets[number:])
