"""One run of Trio that a seed decides altogether.

Tasks that become ready together are put in the order in which they were made before the seed shuffles them: Trio itself
keeps many of them in sets, whose order is that of addresses in memory. Cyclic garbage is collected between runs only,
because what it frees may close things. Where it can be, Trio is :mod:`sim.lean` meanwhile, which changes nothing but
how long a run takes.
"""

from __future__ import annotations

import gc
import heapq
import math
import os
import sys
from collections.abc import Awaitable, Callable, Iterator, MutableSequence
from contextlib import contextmanager
from contextvars import ContextVar
from random import Random
from typing import Any, Final, TypeVar

import trio
import trio.testing
from sim.lean import is_possible, lean_trio
from support.steady_run import scheduler_randomness
from trio._core import _run

__all__ = ["HASH_SEED", "call_at", "freeze", "join_group", "require_hash_seed", "run_by_seed", "thaw"]

T = TypeVar("T")

#: What PYTHONHASHSEED must be: the order of sets of bytes, and with it some traces, goes by it.
HASH_SEED: Final = "0"


class _Turns:
    """When it is, what is called when, and who is next."""

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self._random = Random(seed)
        # What is to be called when, apart from the deadlines that Trio keeps: cheaper than a task that waits.
        self._calls: list[tuple[float, int, Callable[[], object]]] = []
        self._count = 0
        self._frozen: set[object] = set()
        self._kept: list[Any] = []

    def current_time(self) -> float:
        """As a clock says it."""
        return self.now

    def call_at(self, moment: float, call: Callable[[], object]) -> None:
        """Have something called; of one moment in the order in which it was asked for."""
        self._count += 1
        heapq.heappush(self._calls, (moment, self._count, call))

    def jump(self) -> None:
        """Let it be the next moment at which there is a deadline or a call, until somebody has something to do."""
        runner = _run.GLOBAL_RUN_CONTEXT.runner
        calls, deadlines = self._calls, runner.deadlines
        while not runner.runq:
            moment = deadlines.next_deadline()
            if calls and calls[0][0] < moment:
                moment = calls[0][0]
            if moment == math.inf:
                return
            now = self.now = max(self.now, moment)
            deadlines.expire(now)
            while calls and calls[0][0] <= now:
                heapq.heappop(calls)[2]()

    def choose(self, tasks: list[Any]) -> list[Any]:
        """Those of the tasks that are not frozen, as the seed orders them; the others are kept back."""
        if self._frozen:
            self._kept += [task for task in tasks if task.context.get(_group) in self._frozen]
            tasks = [task for task in tasks if task.context.get(_group) not in self._frozen]
        if len(tasks) > 1:
            tasks.sort(key=_number)
            draw = self._random.random
            for place in range(len(tasks) - 1, 0, -1):
                other = int(draw() * (place + 1))
                tasks[place], tasks[other] = tasks[other], tasks[place]
        return tasks

    def freeze(self, group: object) -> None:
        """Let no task of a group do anything."""
        self._frozen.add(group)

    def thaw(self, group: object) -> None:
        """Let them go on; what has happened meanwhile they find as it is."""
        self._frozen.discard(group)
        kept, self._kept = self._kept, []
        _run.GLOBAL_RUN_CONTEXT.runner.runq.extend(kept)


def _number(task: Any) -> int:
    """In which order tasks were made."""
    number: int = task._counter
    return number


_group: Final[ContextVar[object]] = ContextVar("group", default=None)
_turns: Final[trio.lowlevel.RunVar[_Turns]] = trio.lowlevel.RunVar("turns")


def call_at(moment: float, call: Callable[[], object]) -> None:
    """Have ``call`` called, outside of any task, when it is ``moment``, in the run by seed that this is asked in."""
    _turns.get().call_at(moment, call)


def join_group(group: object) -> None:
    """Make the task that calls this one of a group, with all tasks that it starts from now on."""
    _group.set(group)


def freeze(group: object) -> None:
    """Let no task of a group take another step, as if its process was stopped; only in a run by seed."""
    _running().freeze(group)


def thaw(group: object) -> None:
    """Let a group that is frozen go on; nothing happens to others."""
    _running().thaw(group)


def _running() -> _Turns:
    try:
        return _turns.get()
    except (RuntimeError, LookupError):
        raise RuntimeError("tasks can be frozen in a run by seed only") from None


def _clock(turns: _Turns) -> trio.testing.MockClock:
    """A clock that jumps when nobody has anything to do. Trio's own loop asks it to; the lean one does not."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    # It is asked some hundred thousand times.
    clock.current_time = turns.current_time  # type: ignore[method-assign]
    clock._autojump = turns.jump  # type: ignore[method-assign]
    return clock


class _Shuffler(Random):
    """What Trio puts tasks that are ready together in order with; it takes the last one first."""

    def __init__(self, turns: _Turns) -> None:
        super().__init__(0)
        self._turns = turns

    def shuffle(self, x: MutableSequence[Any]) -> None:
        x[:] = reversed(self._turns.choose(list(x)))


@contextmanager
def _plain_trio(turns: _Turns) -> Iterator[None]:
    """Trio's own loop, with tasks in their order."""
    runs: Any = _run
    before = scheduler_randomness(), runs._ALLOW_DETERMINISTIC_SCHEDULING
    runs._r, runs._ALLOW_DETERMINISTIC_SCHEDULING = _Shuffler(turns), True
    try:
        yield
    finally:
        runs._r, runs._ALLOW_DETERMINISTIC_SCHEDULING = before


def require_hash_seed(arguments: list[str]) -> None:
    """Start this Python program again, with ``arguments`` behind the interpreter, unless it has the hash seed."""
    if os.environ.get("PYTHONHASHSEED") != HASH_SEED:
        os.environ["PYTHONHASHSEED"] = HASH_SEED
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, *arguments])


def run_by_seed(main: Callable[[], Awaitable[T]], seed: int, *, lean: bool = True) -> T:
    """What ``main`` returns, run on a clock that jumps ahead; the same for the same seed, ``lean`` or not."""
    turns = _Turns(seed)

    async def run() -> T:
        # There are none; but an empty mapping of Trio's own is slow to ask for each of their methods.
        _run.GLOBAL_RUN_CONTEXT.runner.instruments = {}  # type: ignore[assignment]
        _turns.set(turns)
        return await main()

    collects = gc.isenabled()
    gc.collect(1)
    gc.disable()
    try:
        with lean_trio(turns, turns.current_time) if lean and is_possible() else _plain_trio(turns):
            return trio.run(run, clock=_clock(turns))
    finally:
        if collects:
            gc.enable()
