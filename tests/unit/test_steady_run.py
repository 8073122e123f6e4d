"""Runs of Trio that tests can repeat: the same order each time, and a clear word where Trio allows it no more."""

from __future__ import annotations

import pytest
import trio
from support.steady_run import run_steadily, scheduler_randomness


async def _order_of_tasks() -> list[int]:
    """In which order four tasks that are ready together have run, in sixteen rounds."""
    order: list[int] = []

    async def task(number: int) -> None:
        for _ in range(16):
            order.append(number)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(task, number)
    return order


def test_tasks_run_in_the_order_that_the_seed_decides() -> None:
    first = run_steadily(_order_of_tasks, seed=1)
    assert run_steadily(_order_of_tasks, seed=1) == first
    assert any(run_steadily(_order_of_tasks, seed=seed) != first for seed in range(2, 12))


def test_the_clock_jumps_ahead() -> None:
    async def a_day() -> float:
        began = trio.current_time()
        await trio.sleep(86_400)
        return trio.current_time() - began

    assert run_steadily(a_day) == 86_400


def test_one_exception_is_raised_as_itself_and_several_as_a_group() -> None:
    async def fail(count: int) -> None:
        async def task() -> None:
            raise ValueError("no")

        async with trio.open_nursery() as outer, trio.open_nursery() as nursery:
            outer.start_soon(trio.lowlevel.checkpoint)
            for _ in range(count):
                nursery.start_soon(task)

    with pytest.raises(ValueError, match="no"):
        run_steadily(lambda: fail(1))
    with pytest.raises(BaseExceptionGroup):
        run_steadily(lambda: fail(2))


@pytest.mark.parametrize("replaced", [None, "something else"])
def test_a_trio_that_keeps_its_randomness_elsewhere_is_named(monkeypatch: pytest.MonkeyPatch, replaced: object) -> None:
    module = trio._core._run
    assert scheduler_randomness() is module._r
    if replaced is None:
        monkeypatch.delattr(module, "_r")
    else:
        monkeypatch.setattr(module, "_r", replaced)
    with pytest.raises(RuntimeError, match=rf"Trio {trio.__version__} .*trio\._core\._run\._r"):
        scheduler_randomness()
