"""That Trio with less work for each step does what Trio does."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import Any

import pytest
import sim.lean
import sim.scheduling
import sim.simulation
import trio
from sim.lean import is_possible
from sim.scheduling import call_at, freeze, join_group, run_by_seed, thaw
from sim.simulation import simulate

Log = list[tuple[float, str]]


class Program:
    """Tasks that do what a seed says: wait, with and without deadlines, cancel each other, fail, and note it all."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.log: Log = []
        self.scopes: list[trio.CancelScope] = []
        self.events = [trio.Event() for _ in range(4)]
        self.lock = trio.Lock()
        self.tasks = 0

    def note(self, text: str) -> None:
        self.log.append((round(trio.current_time(), 9), text))

    def moment(self) -> float:
        """Often the same for many: what falls together is what is hard."""
        return self.random.choice((0.0, 0.25, 0.5, 0.5, 1.0, 1.0, 2.0, self.random.random()))

    async def run(self) -> Log:
        with trio.move_on_after(20) as all_of_it:
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(self.task, nursery, 0)
                for number in range(4):
                    call_at(self.moment(), partial(self.note, f"call {number}"))
                    call_at(self.moment(), partial(self.freeze, number))
        self.note(f"end {all_of_it.cancelled_caught} {all_of_it.cancel_called}")
        return self.log

    def freeze(self, number: int) -> None:
        freeze(number)
        call_at(trio.current_time() + self.moment(), partial(thaw, number))

    async def task(self, nursery: trio.Nursery, depth: int) -> None:
        self.tasks += 1
        name = f"task {self.tasks}"
        if self.random.random() < 0.5:
            join_group(self.tasks % 4)
        for _ in range(self.random.randrange(1, 8)):
            try:
                await self.block(nursery, name, depth)
            except* ValueError as group:
                self.note(f"{name} has failed {len(group.exceptions)}")

    async def block(self, nursery: trio.Nursery, name: str, depth: int) -> None:
        """One thing, and inside of scopes and nurseries, more."""
        random = self.random
        draw = random.random()
        if draw < 0.35 and depth < 4:
            await self.inside(nursery, name, depth)
        elif draw < 0.55:
            await trio.sleep(self.moment())
        elif draw < 0.62:
            event = random.choice(self.events)
            with trio.move_on_after(self.moment()) as patience:
                await event.wait()
            self.note(f"{name} waited {patience.cancelled_caught}")
        elif draw < 0.68:
            place = random.randrange(4)
            self.events[place].set()
            self.events[place] = trio.Event()
        elif draw < 0.76 and self.scopes:
            random.choice(self.scopes).cancel()
        elif draw < 0.80 and self.scopes:
            random.choice(self.scopes).deadline = trio.current_time() + self.moment() - 0.25
        elif draw < 0.84:
            async with self.lock:
                await trio.sleep(self.moment())
        elif draw < 0.88:
            await trio.lowlevel.checkpoint()
        elif draw < 0.92:
            await trio.lowlevel.cancel_shielded_checkpoint()
            await trio.lowlevel.checkpoint_if_cancelled()
        elif draw < 0.94:
            raise ExceptionGroup("drawn", [ValueError(name)])
        elif self.tasks < 40:
            nursery.start_soon(self.task, nursery, depth)
        self.note(f"{name} at {depth}: {draw:.2f}")

    async def inside(self, nursery: trio.Nursery, name: str, depth: int) -> None:
        random = self.random
        shield, seconds = random.random() < 0.2, self.moment()
        if random.random() < 0.3:
            async with trio.open_nursery() as inner:
                inner.cancel_scope.deadline = trio.current_time() + seconds
                inner.start_soon(self.task, inner, depth + 1)
                await self.block(inner, name, depth + 1)
            self.note(f"{name} left a nursery {inner.cancel_scope.cancelled_caught}")
            return
        scope = trio.CancelScope(shield=shield) if seconds == 0 else trio.move_on_after(seconds, shield=shield)
        self.scopes.append(scope)
        try:
            with scope:
                for _ in range(random.randrange(3)):
                    await self.block(nursery, name, depth + 1)
                if not shield and random.random() < 0.4:
                    await trio.sleep_forever()
        finally:
            self.note(f"{name} left {scope.cancelled_caught} {scope.cancel_called} {scope.deadline}")


def test_this_trio_can_be_lean() -> None:
    assert is_possible()


@pytest.mark.parametrize("seed", range(60))
def test_programs_do_the_same_however_trio_runs_them(seed: int) -> None:
    async def main() -> Log:
        return await Program(seed).run()

    log = run_by_seed(main, seed)
    assert len(log) > 1
    assert log == run_by_seed(main, seed, lean=False)


@pytest.mark.parametrize("seed", [8, 28])
def test_a_simulation_leaves_the_same_trace_however_trio_runs_it(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = simulate(seed, "all").trace.text()
    monkeypatch.setattr(sim.simulation, "run_by_seed", partial(run_by_seed, lean=False))
    assert trace == simulate(seed, "all").trace.text()


def test_trio_is_as_it_was_once_a_run_is_over() -> None:
    places: list[tuple[Any, str]] = [(trio, "sleep"), (trio, "current_time"), (trio.CancelScope, "__enter__")]
    before = [getattr(owner, name) for owner, name in places]

    async def fail() -> None:
        assert [getattr(owner, name) for owner, name in places] != before
        raise ValueError

    with pytest.raises(ValueError):
        run_by_seed(fail, 1)
    assert [getattr(owner, name) for owner, name in places] == before


def test_another_trio_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim.lean, "_USED", ((trio, "what_no_trio_has"),))
    assert not is_possible()

    async def main() -> object:
        return trio.sleep

    assert run_by_seed(main, 1) is trio.sleep


def test_whoever_sleeps_is_cancelled_and_woken_as_elsewhere() -> None:
    async def main() -> list[float]:
        found: list[float] = []
        await trio.sleep_until(-1)
        await trio.sleep_until(2.5)
        found.append(trio.current_time())
        with trio.move_on_after(1):
            await trio.sleep(3)
        found.append(trio.current_time())
        with pytest.raises(ValueError):
            await trio.sleep(-1)
        return found

    assert run_by_seed(main, 1) == [2.5, 3.5]


def test_what_no_task_of_trios_yields_is_refused() -> None:
    class Strange:
        def __await__(self) -> Any:
            yield "strange"

    async def main() -> None:
        await Strange()

    with pytest.raises(TypeError, match="strange"):
        run_by_seed(main, 1)
