"""Threads of simulated nodes: work for a slow disk that takes its time, while everything else goes on.

It is carried out in a thread of its own, so that it can wait in the midst of any call of the disk. But only ever one
thread of all goes on, that of the simulation or one of these, and which one is up to the simulation: so a seed decides
what happens here, too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import trio
from sim.disk import SimDisk, Waiting

from kevynode.persist.service import PersistenceService

__all__ = ["simulated_threads"]

T = TypeVar("T")


class _Worker(threading.Thread):
    """Carries out one piece of work, a stretch at a time."""

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self.result: object = None
        self.error: BaseException | None = None
        self._work = work
        self._may_go_on = threading.Semaphore(0)
        self._has_stopped = threading.Semaphore(0)
        self._wait: tuple[float, Callable[[], object] | None] | None = None
        self.start()

    def run(self) -> None:
        self._may_go_on.acquire()
        try:
            self.result = self._work()
        except BaseException as error:
            self.error = error
        self._wait = None
        self._has_stopped.release()

    def wait(self, seconds: float, then: Callable[[], object] | None) -> None:
        """In this thread: let the simulation go on, which calls ``then`` first and waits for so many seconds."""
        self._wait = seconds, then
        self._has_stopped.release()
        self._may_go_on.acquire()

    def go_on(self) -> tuple[float, Callable[[], object] | None] | None:
        """In the simulation's thread: the next stretch; what it waits for at the end, None if it has ended."""
        self._may_go_on.release()
        self._has_stopped.acquire()
        return self._wait


def _wait_in_worker(seconds: float, then: Callable[[], object] | None) -> bool:
    worker = threading.current_thread()
    if not isinstance(worker, _Worker):
        return False
    worker.wait(seconds, then)
    return True


async def _carry_out(disk: SimDisk, work: Callable[[], T]) -> T:
    """The work, to its end, whoever is cancelled meanwhile; without delay once the node is dead."""
    worker = _Worker(work)
    with trio.CancelScope(shield=True):
        while (wait := worker.go_on()) is not None:
            seconds, then = wait
            if then is not None:
                then()
            began = trio.current_time()
            with trio.move_on_after(seconds):
                await disk.gone.wait()
            disk.busy.append((began, trio.current_time()))
    worker.join()
    if worker.error is not None:
        raise worker.error
    return worker.result  # type: ignore[return-value]  # what the work has returned


@contextmanager
def simulated_threads() -> Iterator[None]:
    """Have nodes on slow disks carry out so what they carry out in threads."""
    plain = PersistenceService.in_thread
    waiting: Waiting = _wait_in_worker

    async def in_thread(self: PersistenceService, call: Callable[[], T]) -> T:
        disk = self.disk
        if not isinstance(disk, SimDisk) or not disk.is_slow:
            return await plain(self, call)
        async with self._limiter:
            return await _carry_out(disk, call)

    PersistenceService.in_thread = in_thread  # type: ignore[method-assign]
    SimDisk.waiting = waiting
    try:
        yield
    finally:
        PersistenceService.in_thread = plain  # type: ignore[method-assign]
        SimDisk.waiting = None
