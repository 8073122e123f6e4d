"""Slow disks of simulated nodes: what takes time, what goes on meanwhile, and that a seed decides it."""

from __future__ import annotations

import errno
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
import trio
from sim.disk import SimDisk
from sim.plan import draw_plan
from sim.scheduling import run_by_seed
from sim.simulation import simulate
from sim.threads import simulated_threads
from sim.trace import Trace, TraceLog

from kevynode import Node, NodeConfig

FILE = "/data/a"
CONFIG: dict[str, Any] = {"server": {"data_dir": "/data", "port": 0}, "persistence": {"aof": True}}

T = TypeVar("T")
InThread = Callable[[Callable[[], Any]], Awaitable[Any]]


def simulated(body: Callable[[SimDisk, InThread], Awaitable[T]], seed: int = 1) -> T:
    """What it returns, called with a slow disk, and what has a node on that disk carry out work in a thread."""

    async def main() -> T:
        disk = SimDisk(seed)
        disk.slow(seed, 3.0)
        node = Node(NodeConfig.from_dict(CONFIG), TraceLog(Trace(), "node"), disk=disk)  # type: ignore[arg-type]
        return await body(disk, node.files.in_thread)

    with simulated_threads():
        return run_by_seed(main, seed)


def writing(disk: SimDisk, *texts: bytes) -> Callable[[], int]:
    """Work for a thread: append each text, and sync; how many bytes there are."""

    def work() -> int:
        file = disk.open_append(FILE)
        for text in texts:
            file.write(text)
            file.sync()
        file.close()
        return file.position

    return work


async def run_beside(in_thread: InThread, work: Callable[[], Any], every: Callable[[], None]) -> Any:
    """What comes of work in a thread, with ``every`` called each tenth of a second meanwhile."""
    done = False

    async def tick() -> None:
        while not done:
            every()
            await trio.sleep(0.1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tick)
        result = await in_thread(work)
        done = True
    return result


def test_everything_goes_on_while_the_disk_is_slow() -> None:
    async def body(disk: SimDisk, in_thread: InThread) -> tuple[float, int]:
        looks: list[bytes] = []
        began = trio.current_time()
        size = await run_beside(
            in_thread,
            writing(disk, b"one", b"two", b"three", b"four"),
            lambda: looks.append(disk.durable(FILE) if disk.exists(FILE) else b""),
        )
        assert size == len(disk.durable(FILE)) == 15
        return trio.current_time() - began, len(set(looks))

    found = [simulated(body, seed) for seed in range(20)]
    assert max(seconds for seconds, _ in found) > 3
    assert max(states for _, states in found) >= 3
    # The same again, by the same seed.
    assert found == [simulated(body, seed) for seed in range(20)]


def test_a_sync_covers_what_was_there_when_it_began() -> None:
    async def body(disk: SimDisk, in_thread: InThread) -> bool:
        file = disk.open_append(FILE)
        file.write(b"before")

        def append() -> None:
            if disk.exists(FILE) and len(disk.content(FILE)) < 10:
                file.write(b".")

        await run_beside(in_thread, writing(disk, b"!"), append)
        data, durable = disk.content(FILE), disk.durable(FILE)
        assert data.startswith(durable)
        assert b"!" in durable
        return len(durable) < len(data)

    assert any(simulated(body, seed) for seed in range(10))


def test_what_a_node_does_in_its_own_thread_takes_no_time() -> None:
    async def body(disk: SimDisk, in_thread: InThread) -> None:
        began = trio.current_time()
        assert writing(disk, b"one", b"two")() == 6
        disk.quick()
        assert await in_thread(writing(disk, b"three")) == 11
        assert trio.current_time() == began

    simulated(body)


def test_work_fails_in_its_own_way_and_is_never_cut_short() -> None:
    async def body(disk: SimDisk, in_thread: InThread) -> None:
        disk.fail_next("sync", errno.EIO)
        with pytest.raises(OSError) as raised:
            await in_thread(writing(disk, b"one"))
        assert raised.value.errno == errno.EIO
        with trio.move_on_after(0.01) as patience:
            assert await in_thread(writing(disk, b"two", b"three", b"four")) == 15
        assert trio.current_time() > patience.deadline
        assert disk.content(FILE) == b"onetwothreefour"

    simulated(body)


def test_a_node_that_dies_waits_for_nothing_and_a_moment_comes_in_the_simulations_own_thread() -> None:
    async def body(disk: SimDisk, in_thread: InThread) -> None:
        threads = []
        found = []

        def die() -> None:
            threads.append(threading.current_thread())
            disk.gone.set()
            found.append((trio.current_time(), disk.kill()))

        disk.at_moment(5, die)
        await in_thread(writing(disk, *[b"text"] * 50))
        assert threads == [threading.main_thread()]
        at, left = found[0]
        assert trio.current_time() == at
        assert 0 < len(left.content(FILE)) < 20

    simulated(body)


@pytest.mark.parametrize("profile", ["restarts", "moves"])
def test_a_seed_with_slow_disks_leaves_the_same_trace(profile: Any) -> None:
    def is_slow(seed: int) -> bool:
        plan = draw_plan(seed, profile)
        return plan.policy != "memory" and any(action.kind == "slow disk" for action in plan.actions)

    seed = next(filter(is_slow, range(1, 1000)))
    first, second = simulate(seed, profile), simulate(seed, profile)
    assert first.faults["slow disk"] > 0
    assert first.trace.text() == second.trace.text()
