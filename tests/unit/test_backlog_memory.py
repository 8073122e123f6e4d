"""What a backlog holds in memory: as much as it says, within its budget, and what pins keep."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable

import pytest
from support.backlogs import ALL, SLACK, effect
from support.stream_text import parse

from kevynode.replicate import block as block_module
from kevynode.replicate.backlog import Backlog, Future, TooOld
from kevynode.replicate.block import BLOCK_SIZE


def deep_size(root: object) -> int:
    """Bytes of everything that is reachable from ``root``, by the interpreter's own count."""
    seen: set[int] = set()
    todo = [root]
    total = 0
    while todo:
        found = todo.pop()
        if id(found) in seen or isinstance(found, (type, Callable)):  # type: ignore[arg-type]
            continue
        seen.add(id(found))
        total += sys.getsizeof(found)
        todo += gc.get_referents(found)
        if isinstance(found, Backlog | block_module.Block):
            # Slots that hold no container are not always told.
            todo += [getattr(found, name) for name in found.__slots__ if hasattr(found, name)]
    return total


def fill(backlog: Backlog, count: int, size: int, per_seal: int = 50) -> None:
    for number in range(count):
        backlog.add([effect("SET", f"key:{number:07d}", b"v" * size)])
        if number % per_seal == per_seal - 1:
            backlog.seal()
    backlog.seal()


@pytest.mark.parametrize(("count", "size", "per_seal"), [(20000, 1, 1), (20000, 64, 50), (300, 100_000, 7), (9, 1, 1)])
def test_the_memory_told_is_the_memory_held(count: int, size: int, per_seal: int) -> None:
    backlog = Backlog(1 << 30, 0)
    fill(backlog, count, size, per_seal)
    assert backlog.memory == pytest.approx(deep_size(backlog), rel=0.02, abs=1500)
    for number in range(300):
        backlog.add([effect("SET", f"key:{number:07d}", b"%d" % number * size)])
    with_pending = backlog.memory
    assert with_pending == pytest.approx(deep_size(backlog), rel=0.05, abs=1500)
    assert with_pending > 300 * (sys.getsizeof(b"") + size)
    # Frames are what is held, so what an effect carries beside its command does not count.
    backlog.add([([b"SET", b"key", b"value"], b"k" * 10_000, ())])
    assert backlog.memory < with_pending + 5000
    backlog.reset(0)
    assert backlog.memory < 1000


@pytest.mark.parametrize(("count", "size", "per_seal"), [(20000, 1, 1), (30000, 64, 50), (300, 30_000, 7)])
def test_memory_stays_within_the_budget_and_a_block(count: int, size: int, per_seal: int) -> None:
    budget = 400_000
    backlog = Backlog(budget, 0)
    for part in range(10):
        fill(backlog, count // 10, size, per_seal)
        assert backlog.memory <= budget + BLOCK_SIZE + SLACK
        assert backlog.memory >= budget / 2 or part < 3
    assert 0 < backlog.first < backlog.next
    # No more was given up than had to be.
    kept = b"".join(backlog.read(backlog.cursor(backlog.first), ALL, True))
    assert len(kept) >= budget / 2


def test_a_huge_entry_is_kept_as_the_newest_and_goes_with_the_next() -> None:
    backlog = Backlog(100_000, 0)
    fill(backlog, 100, 64)
    backlog.add([effect("SET", "k", b"x" * 5_000_000)])
    backlog.seal()
    assert (backlog.first, backlog.next) == (100, 101)
    assert backlog.memory == pytest.approx(5_000_000, rel=0.01)
    cursor = backlog.cursor(100)
    assert [number for _, number, _ in parse(b"".join(backlog.read(cursor, 1, True)))] == [100]
    fill(backlog, 1, 64)
    assert (backlog.first, backlog.next) == (101, 102)
    assert backlog.memory < 100_000


def test_many_large_entries_at_once_are_kept_in_blocks_of_their_own() -> None:
    backlog = Backlog(1_000_000, 0)
    value = b"x" * 50_000
    for _ in range(200):
        backlog.add([effect("SET", "k", value)])
    backlog.add([effect("SET", "k", value), effect("SET", "k", value)])
    backlog.seal()
    assert backlog.memory <= 1_000_000 + 200_000
    assert backlog.first == 202 - 20 + backlog.first % 2
    assert backlog.on_boundary(200)
    assert not backlog.on_boundary(201)


def test_the_budget_may_change_at_any_time() -> None:
    backlog = Backlog(1 << 30, 0)
    fill(backlog, 20000, 64)
    assert backlog.first == 0
    before = backlog.memory
    backlog.budget = before // 2
    assert backlog.budget == before // 2
    assert backlog.memory <= before // 2
    assert backlog.first > 8000
    backlog.budget = 0
    assert backlog.memory <= BLOCK_SIZE + SLACK
    assert backlog.next == 20000


def test_blocks_that_were_trimmed_are_gone_though_a_cursor_stands_in_them() -> None:
    backlog = Backlog(100_000, 0)
    cursor = backlog.cursor(0)
    fill(backlog, 5000, 64)
    assert deep_size(cursor) < 1000


# Pins.


def test_a_pin_keeps_what_it_needs_up_to_twice_the_budget() -> None:
    budget = 400_000
    backlog = Backlog(budget, 0)
    fill(backlog, 1000, 64)
    pin = backlog.pin(1000)
    later = None
    peak = 0
    while not pin.lost:
        fill(backlog, 50, 64)
        peak = max(peak, backlog.memory)
        assert backlog.memory <= 2 * budget + BLOCK_SIZE + SLACK
        assert backlog.first <= 1000 or pin.lost
        if later is None and backlog.memory > 1.5 * budget:
            later = backlog.pin(backlog.next)
    assert peak > 1.9 * budget
    assert later is not None
    assert not later.lost
    # What the lost one alone held has gone.
    assert backlog.first > 1000
    later.release()
    assert backlog.memory <= budget + BLOCK_SIZE + SLACK


@pytest.mark.parametrize("release", [False, True])
def test_moving_or_releasing_a_pin_gives_memory_back_at_once(release: bool) -> None:
    budget = 200_000
    backlog = Backlog(budget, 0)
    fill(backlog, 100, 64)
    pin = backlog.pin(0)
    fill(backlog, 2400, 64)
    assert backlog.memory > 1.3 * budget
    assert backlog.first == 0
    if release:
        pin.release()
        pin.release()
    else:
        pin.move(2400)
    assert backlog.memory <= budget + SLACK
    assert backlog.first > 0
    # Moved, it still holds what it was moved to.
    fill(backlog, 2600, 64)
    assert (backlog.first > 2400) is release
    assert not pin.lost


def test_a_pin_needs_an_offset_that_is_held() -> None:
    backlog = Backlog(0, 0)
    fill(backlog, 2, BLOCK_SIZE, 1)
    with pytest.raises(TooOld):
        backlog.pin(0)
    with pytest.raises(Future):
        backlog.pin(3)
    pin = backlog.pin(2)
    pin.move(0)
    assert pin.lost
