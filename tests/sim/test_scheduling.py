"""What makes a run the same each time, and what stops some of its tasks."""

from __future__ import annotations

import math
from random import Random

import pytest
import trio
from sim.clocks import START, SimClock
from sim.network import Network
from sim.scheduling import call_at, freeze, join_group, run_by_seed, thaw
from sim.trace import Trace, TraceLog
from sim.world import Life


def test_tasks_that_are_ready_together_run_in_an_order_that_the_seed_decides() -> None:
    def order(seed: int) -> str:
        async def main() -> str:
            done: list[str] = []

            async def one(name: str) -> None:
                await trio.sleep(1)
                done.append(name)

            async with trio.open_nursery() as nursery:
                for name in "abcdef":
                    nursery.start_soon(one, name)
            return "".join(done)

        return run_by_seed(main, seed)

    orders = [order(seed) for seed in range(20)]
    assert orders == [order(seed) for seed in range(20)]
    assert len(set(orders)) > 10


def test_calls_come_at_their_moment_and_those_of_one_moment_in_order() -> None:
    async def main() -> list[tuple[float, str]]:
        called: list[tuple[float, str]] = []

        def note(name: str) -> None:
            called.append((trio.current_time() - begun, name))

        begun = trio.current_time()
        call_at(begun + 2, lambda: note("third"))
        call_at(begun + 1, lambda: note("first"))
        call_at(begun + 1, lambda: note("second"))
        await trio.sleep(1.5)
        note("between")
        await trio.sleep(5)
        return called

    assert run_by_seed(main, 1) == [(1, "first"), (1, "second"), (1.5, "between"), (2, "third")]


def test_a_frozen_group_does_nothing_until_it_is_thawed() -> None:
    async def main() -> list[tuple[float, str]]:
        done: list[tuple[float, str]] = []

        async def work(name: str) -> None:
            while True:
                await trio.sleep(1)
                done.append((trio.current_time(), name))

        async def member() -> None:
            join_group("them")
            async with trio.open_nursery() as own:
                own.start_soon(work, "child")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(member)
            nursery.start_soon(work, "other")
            await trio.sleep(1.5)
            freeze("them")
            await trio.sleep(2)
            thaw("them")
            await trio.sleep(1.2)
            nursery.cancel_scope.cancel()
        return sorted(done)

    assert run_by_seed(main, 3) == [(1, "child"), (1, "other"), (2, "other"), (3, "other"), (3.5, "child"),
                                    (4, "other"), (4.5, "child")]  # fmt: skip


def test_whoever_has_sent_something_can_be_stopped_before_its_next_step() -> None:
    async def main() -> tuple[bytes, list[str]]:
        network = Network(Random(1))
        near, far = network.add("near", "10.0.0.1"), network.add("far", "10.0.0.2")
        (listener,) = await far.listen(["10.0.0.2"], 1)
        steps: list[str] = []

        async def send() -> None:
            join_group("near")
            stream = await near.connect("10.0.0.2", 1)
            network.on_sent["near"] = 1, lambda: freeze("near")
            for word in ("one", "two", "three"):
                await stream.send_all(word.encode())
                steps.append(word)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            (incoming,) = await listener.accept()
            stream, got = incoming.stream(), b""
            with trio.move_on_after(1):
                while True:
                    got += await stream.receive_some()
            seen = list(steps)
            thaw("near")
        return got, seen

    assert run_by_seed(main, 5) == (b"onetwo", ["one"])


def test_time_in_which_a_node_could_do_nothing_does_not_count() -> None:
    life = Life("n1", 1, TraceLog(Trace(), "n1"), None, 0.0)  # type: ignore[arg-type]
    assert life.before(10, 2) == 8
    life.freezes = [(1, 4), (6, 7), (8.5, math.inf)]
    assert life.before(10, 1) == 7.5
    assert life.before(10, 2) == 5.5
    assert life.before(10, 4) == 0.5
    assert life.before(8, 1) == 7


def test_nothing_is_frozen_outside_of_a_run_by_seed() -> None:
    with pytest.raises(RuntimeError):
        freeze("them")


def test_a_clock_of_a_node_goes_on_while_it_works() -> None:
    async def main() -> None:
        clock = SimClock(Random(1))
        first, second = clock.monotonic(), clock.monotonic()
        assert first < second < first + 0.001
        await trio.sleep(10)
        assert clock.monotonic() == trio.current_time()
        assert abs(clock.wall() - START - trio.current_time()) < 1

    run_by_seed(main, 1)
