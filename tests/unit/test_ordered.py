"""The order inside sorted sets, compared with a plain sorted list; blocks are made small so that few entries fill many.

What is copied is changed on both sides: neither may see the other's changes.
"""

from __future__ import annotations

import random
from bisect import bisect_left, insort
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kevynode.store import ordered, sorted_set_value
from kevynode.store.ordered import Entry, OrderedBlocks
from kevynode.store.sorted_set_value import SortedSet

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "put", "remove", "lowest", "highest", "between", "copy"]),
        st.integers(0, 2),
        st.integers(0, 60),
        st.integers(0, 12),
    ),
    max_size=120,
)


@contextmanager
def small_blocks() -> Iterator[None]:
    """Blocks of at most 4 entries, and trees of two children to a node."""
    with (
        patch.multiple(ordered, BLOCK_LIMIT=4, SMALL_BLOCK=2, _JOINED_LIMIT=3, _SHIFT=1, _FAN=2),
        patch.object(sorted_set_value, "LIST_LIMIT", 6),
    ):
        yield


def check(order: OrderedBlocks, model: list[Entry]) -> None:
    """Everything that can be read, and what must hold inside."""
    assert len(order) == len(model)
    assert list(order) == model
    assert [order[place] for place in range(-len(model), len(model))] == model * 2
    for place in (len(model), -len(model) - 1):
        with pytest.raises(IndexError):
            order[place]
    for start in range(0, len(model) + 1, 3):
        assert order[start : start + 7] == model[start : start + 7]
    for probe in [(score,) for score in range(62)] + [(score, b"\xff") for score in range(62)] + model:
        assert order.place(probe) == bisect_left(model, probe)
    assert all(0 < len(block) <= ordered.BLOCK_LIMIT for block in order.blocks)
    assert order.maxima == [block[-1] for block in order.blocks]
    assert len(order.owned) == len(order.blocks)
    if order.levels is not None:
        kept = order.levels
        order.levels = None
        assert kept == order._sum_up()


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 40), STEPS)
def test_a_copy_and_its_original_go_their_own_ways(size: int, steps: list[tuple[str, int, int, int]]) -> None:
    with small_blocks():
        first: list[Entry] = [(number * 1.5, b"start") for number in range(size)]
        sides = [(OrderedBlocks(first.copy()), first)]
        for step, side, score, width in steps:
            order, model = sides[side % len(sides)]
            entry = (float(score), b"%d" % width)
            if step == "copy":
                if len(sides) < 3:
                    sides.append((order.copy(), model.copy()))
            elif step == "put":
                if entry not in model:
                    order.add(entry)
                    insort(model, entry)
            elif not model:
                continue
            elif step == "remove":
                entry = model[score % len(model)]
                order.remove(entry)
                model.remove(entry)
            elif step == "lowest":
                assert order.pop(0) == model.pop(0)
            elif step == "highest":
                assert order.pop() == model.pop()
            else:
                start = score % len(model)
                stop = min(start + width, len(model))
                assert order.take_between(start, stop) == model[start:stop]
                del model[start:stop]
            # Places are asked for now and then, so that the tree of sums is there while entries come and go.
            if score % 3 == 0 and model:
                assert order.place(model[-1]) == len(model) - 1
        for order, model in sides:
            check(order, model)


@settings(deadline=None, max_examples=300)
@given(STEPS)
def test_sorted_sets_after_a_copy(steps: list[tuple[str, int, int, int]]) -> None:
    with small_blocks():
        sides = [(SortedSet(), dict[bytes, float]())]
        for step, side, score, number in steps:
            value, model = sides[side % len(sides)]
            member = b"member:%d" % number
            if step == "copy":
                if len(sides) < 3:
                    sides.append((value.copy_at(value.epoch + 1), model.copy()))
            elif step == "put":
                old = model.get(member)
                assert value.put(member, float(score)) is (True if old is None else None if old == score else False)
                model[member] = float(score)
            elif step == "remove":
                assert value.remove(member) == (model.pop(member, None) is not None)
            elif model:
                start = 0 if step == "lowest" else len(model) - 1 if step == "highest" else score % len(model)
                for entry in value.remove_between(start, start + 1):
                    assert model.pop(entry[1]) == entry[0]
        for value, model in sides:
            again = SortedSet.of(model)
            assert list(value.order) == list(again.order) == sorted((score, member) for member, score in model.items())
            assert dict(value.scores.items()) == model
            assert value.payload == again.payload
            assert [value.rank(member) for _, member in value.order] == list(range(len(model)))


@pytest.mark.parametrize("step", [1, -1, 7919])
def test_many_entries_in_any_direction(step: int) -> None:
    size = 20_011
    order = OrderedBlocks([])
    model = [(float(number), b"m") for number in range(size)]
    for number in range(size):
        order.add((float(number * step % size), b"m"))
    assert list(order) == model
    assert [order.place(entry) for entry in model[::97]] == list(range(size))[::97]
    assert [order[place] for place in range(0, size, 89)] == model[::89]
    assert order[500:19_500] == model[500:19_500]
    # What ascends fills its blocks; anything else half of them.
    assert len(order.blocks) <= (size // 1024 + 1 if step == 1 else size // 512 + 1)
    assert order.take_between(100, 19_900) == model[100:19_900]
    assert list(order) == model[:100] + model[19_900:]
    assert len(order.blocks) <= 2


def test_blocks_that_have_become_small_are_joined() -> None:
    order = OrderedBlocks([(float(number), b"m") for number in range(50_000)])
    for number in range(50_000):
        if number % 100:
            order.remove((float(number), b"m"))
    assert [score for score, _ in order] == list(range(0, 50_000, 100))
    assert len(order.blocks) <= 4


def test_a_write_after_a_copy_copies_one_block() -> None:
    order = OrderedBlocks([(float(number), b"m") for number in range(100_000)])
    twin = order.copy()
    twin.remove((50_000.0, b"m"))
    twin.add((50_000.0, b"m"))
    assert sum(block is not other for block, other in zip(order.blocks, twin.blocks, strict=True)) == 1
    assert list(order) == list(twin)


def test_a_sorted_set_that_shrinks_becomes_a_plain_list_again() -> None:
    value = SortedSet.of({b"%d" % number: float(number) for number in range(3000)})
    forms: list[type] = [type(value.order)]
    value.remove_between(10, 3000)
    value.compact(random.Random(1))
    forms.append(type(value.order))
    assert forms == [OrderedBlocks, list]
    assert list(value.order) == [(float(number), b"%d" % number) for number in range(10)]
