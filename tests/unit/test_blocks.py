"""The elements inside large lists, compared with a plain list; ends are made small so that few fill many blocks.

What is copied is changed on both sides: neither may see the other's changes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kevynode.store import blocks, list_value
from kevynode.store.blocks import ElementBlocks
from kevynode.store.list_value import List

# (operation, which of the copies, a number, how many, which element)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            "left right many-left many-right many-right take-left take-right pop-left pop-right"
            " set insert remove trim copy assign".split()
        ),
        st.integers(0, 2),
        st.integers(0, 60),
        st.integers(0, 12),
        st.sampled_from([b"a", b"b", b"c", b"dd" * 20]),
    ),
    min_size=5,
    max_size=80,
)


@contextmanager
def small_blocks() -> Iterator[None]:
    """Blocks and ends of at most 4 elements, and lists that are cut into them from 7 elements on."""
    with (
        patch.multiple(blocks, END_LIMIT=4, _SPARSE=2, _JUMP=1),
        patch.multiple(list_value, END_LIMIT=4, _LIST_LIMIT=6),
    ):
        yield


def removed(model: list[bytes], element: bytes, count: int) -> list[bytes]:
    """A list without some occurrences of an element, as LREM says it."""
    left = abs(count) or len(model)
    kept = []
    for other in model if count >= 0 else reversed(model):
        if other == element and left:
            left -= 1
        else:
            kept.append(other)
    return kept if count >= 0 else kept[::-1]


def apply(value: List, model: list[bytes], step: str, place: int, width: int, element: bytes) -> list[bytes]:
    """Do one step on a list; the model as it must be then."""
    size = len(model)
    many = [b"%c" % (97 + number % 4) for number in range(width)]
    match step:
        case "left":
            assert value.push_left(element) == size + 1
            return [element, *model]
        case "right":
            assert value.push_right(element) == size + 1
            return [*model, element]
        case "many-left":
            value.extend_left(many)
            return many[::-1] + model
        case "many-right":
            value.extend_right(many)
            return model + many
        case "take-left":
            assert value.pop_left_many(width) == model[:width]
            return model[width:]
        case "take-right":
            assert value.pop_right_many(width) == model[::-1][:width]
            return model[: max(size - width, 0)]
        case "assign":
            value.assign(many)
            return many
        case "remove":
            left = removed(model, element, width % 7 - 3)
            assert value.remove(element, width % 7 - 3) == size - len(left)
            return left
        case "trim":
            start = min(width, size)
            stop = max(start, size - place % 8)
            value.trim(start, stop)
            return model[start:stop]
        case "insert":
            place %= size + 1
            value.insert(place, element)
            return [*model[:place], element, *model[place:]]
        case _ if not model:
            return model
        case "pop-left":
            assert value.pop_left() == model[0]
            return model[1:]
        case "pop-right":
            assert value.pop_right() == model[-1]
            return model[:-1]
        case _:
            index = place % (2 * size) - size
            value.replace(index, element)
            model[index] = element
            return model


def check(value: List, model: list[bytes]) -> None:
    """Everything that can be read, and what must hold inside."""
    size = len(model)
    elements = value.elements
    assert len(value) == size
    assert list(elements) == model
    assert list(reversed(elements)) == model[::-1]
    assert [elements[index] for index in range(-size, size)] == model * 2
    for index in (size, -size - 1):
        with pytest.raises(IndexError):
            elements[index]
        with pytest.raises(IndexError):
            value.replace(index, b"x")
    for start in range(size + 1):
        for stop in range(start, size + 1):
            assert value.between(start, stop) == model[start:stop]
    for element in (*model, b"absent"):
        assert (element in elements) == (element in model)
        if element in model:
            assert elements.index(element) == model.index(element)
    with pytest.raises(ValueError):
        elements.index(b"absent")
    again = List()
    again.assign(model)
    assert value.payload == again.payload
    if type(elements) is ElementBlocks:
        assert all(elements.blocks)
        assert elements.middle == sum(map(len, elements.blocks))
        assert len(elements.owned) == len(elements.blocks)
        if elements.blocks:
            sizes = [len(block) for block in elements.blocks[:-1]]
            assert elements.starts == list(accumulate(sizes, initial=elements.starts[0]))


@pytest.mark.slow
@settings(deadline=None, max_examples=500)
@given(st.integers(0, 60), STEPS)
def test_a_copy_and_its_original_go_their_own_ways(size: int, steps: list[tuple[str, int, int, int, bytes]]) -> None:
    with small_blocks():
        first = [b"%c" % (97 + number % 3) for number in range(size)]
        value = List()
        value.assign(first)
        sides = [(value, first)]
        for step, number, place, width, element in steps:
            number %= len(sides)
            value, model = sides[number]
            if step == "copy":
                if len(sides) < 3:
                    sides.append((value.copy_at(value.epoch + 1), model.copy()))
            else:
                sides[number] = (value, apply(value, model, step, place, width, element))
        for value, model in sides:
            check(value, model)


@pytest.mark.parametrize("left", [False, True])
def test_many_elements_at_either_end(left: bool) -> None:
    size = 20_000
    model = [b"%d" % number for number in range(size)]
    value = List()
    push = value.push_left if left else value.push_right
    for element in model:
        push(element)
    if left:
        model.reverse()
    assert list(value.elements) == model
    assert value.between(3_000, 17_000) == model[3_000:17_000]
    assert [value.elements[index] for index in range(0, size, 7)] == model[::7]
    assert [value.pop_left() for _ in range(9_000)] == model[:9_000]
    assert [value.pop_right() for _ in range(11_000)] == model[:8_999:-1]
    assert (len(value), value.payload) == (0, 0)
    with pytest.raises(IndexError):
        value.pop_left()
    with pytest.raises(IndexError):
        value.pop_right()


def test_many_elements_at_once() -> None:
    model = [b"%d" % number for number in range(10_000)]
    value = List()
    value.extend_left(model)
    value.extend_right(model)
    assert list(value.elements) == model[::-1] + model
    assert value.pop_left_many(15_000) == (model[::-1] + model)[:15_000]
    assert value.pop_right_many(6_000) == model[:4_999:-1]


def test_a_list_that_turns_round_keeps_its_blocks() -> None:
    value = List()
    model = [b"%d" % number for number in range(5_000)]
    value.extend_right(model)
    for element in model * 2:
        assert value.pop_left() == element
        value.push_right(element)
    elements = value.elements
    assert type(elements) is ElementBlocks
    assert len(elements.blocks) <= 10
    assert list(elements) == model


def test_ends_do_not_change_their_form_at_each_step() -> None:
    value = List()
    value.extend_right([b"x"] * 10_000)
    elements = value.elements
    assert type(elements) is ElementBlocks
    for push, pop in ((value.push_left, value.pop_left), (value.push_right, value.pop_right)):
        changes = 0
        before = elements.blocks.copy()
        for _ in range(2_000):
            pop()
            push(b"x")
            changes += elements.blocks != before
            before = elements.blocks.copy()
        assert changes <= 3


def test_blocks_that_have_become_sparse_are_made_anew() -> None:
    value = List()
    value.extend_right([b"keep" if number % 100 == 0 else b"go" for number in range(100_000)])
    assert value.remove(b"go", 0) == 99_000
    elements = value.elements
    assert type(elements) is ElementBlocks
    assert list(elements) == [b"keep"] * 1000
    assert len(elements.blocks) <= 8


def test_a_write_after_a_copy_copies_one_block() -> None:
    value = List()
    value.extend_right([b"%d" % number for number in range(100_000)])
    twin = value.copy_at(1)
    twin.replace(50_000, b"x")
    twin.replace(50_001, b"y")
    old, new = value.elements, twin.elements
    assert type(old) is type(new) is ElementBlocks
    assert sum(block is not other for block, other in zip(old.blocks, new.blocks, strict=True)) == 1
    assert value.between(50_000, 50_002) == [b"50000", b"50001"]
    assert twin.between(50_000, 50_002) == [b"x", b"y"]


def test_a_list_that_shrinks_becomes_a_plain_list_again() -> None:
    value = List()
    value.extend_right([b"%d" % number for number in range(3_000)])
    value.trim(1_000, 2_900)
    value.pop_left_many(1_890)
    value.compact(random.Random(1))
    assert value.elements == [b"%d" % number for number in range(2_890, 2_900)]


def test_blocks_that_are_emptied_go() -> None:
    value = List()
    rest = [b"%d" % number for number in range(5_000)]
    value.extend_right(rest[:2_500] + [b"go"] * 5_000 + rest[2_500:])
    twin = value.copy_at(1)
    assert twin.remove(b"go", 0) == 5_000
    assert list(twin.elements) == rest
    assert [twin.elements[index] for index in range(0, 5_000, 3)] == rest[::3]
    assert value.between(2_499, 2_501) == [b"2499", b"go"]
    assert len(value) == 10_000


@pytest.mark.parametrize("place", [3, -3])
def test_many_insertions_at_one_place(place: int) -> None:
    value = List()
    model = [b"%d" % number for number in range(3_000)]
    value.extend_right(model)
    for number in range(3_000):
        at = place % (len(model) + 1)
        value.insert(at, b"new %d" % number)
        model.insert(at, b"new %d" % number)
    assert list(value.elements) == model
    assert [value.elements[index] for index in range(0, 6_000, 7)] == model[::7]
