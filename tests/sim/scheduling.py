"""One run of Trio that a seed decides altogether.

Tasks that become ready together are put in the order in which they were
made before the seed shuffles them: Trio itself keeps many of them in sets, whose order is that of addresses in memory.
Cyclic garbage is collected between runs only, because what it frees may close things.
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
from support.steady_run import scheduler_randomness
from trio._core import _run

__all__ = ["HASH_SEED", "call_at", "freeze", "join_group", "require_hash_seed", "run_by_seed", "thaw"]

T = TypeVar("T")

#: What PYTHONHASHSEED must be: the order of sets of bytes, and with it some traces, goes by it.
HASH_SEED: Final = "0"


class _Agenda:
    """What is to be called when, apart from the deadlines that Trio keeps: cheaper than a task that waits."""

    __slots__ = ("_count", "_entries")

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, Callable[[], object]]] = []
        self._count = 0

    @property
    def next(self) -> float:
        """The moment of the next call."""
        return self._entries[0][0] if self._entries else math.inf

    def add(self, moment: float, call: Callable[[], object]) -> None:
        """Have something called; of one moment in the order in which it was asked for."""
        self._count += 1
        heapq.heappush(self._entries, (moment, self._count, call))

    def carry_out(self, now: float) -> None:
        """Call what is due."""
        while self._entries and self._entries[0][0] <= now:
            heapq.heappop(self._entries)[2]()


_agenda: Final[trio.lowlevel.RunVar[_Agenda]] = trio.lowlevel.RunVar("agenda")


def call_at(moment: float, call: Callable[[], object]) -> None:
    """Have ``call`` called, outside of any task, when it is ``moment``, in the run by seed that this is asked in."""
    _agenda.get().add(moment, call)


def _make_clock(agenda: _Agenda) -> trio.testing.MockClock:
    """A clock that jumps to the next deadline or the next call whenever nobody has anything to do.

    It says faster what time it is than the one it is made of: it is asked some hundred thousand times.
    """
    clock = trio.testing.MockClock(autojump_threshold=0)
    now = clock._virtual_base

    def current_time() -> float:
        return now

    def jump() -> None:
        nonlocal now
        runner = _run.GLOBAL_RUN_CONTEXT.runner
        deadlines = runner.deadlines
        while not runner.runq:
            moment = min(deadlines.next_deadline(), agenda.next)
            if moment == math.inf:
                return
            now = max(now, moment)
            agenda.carry_out(now)
            deadlines.expire(now)

    clock.current_time = current_time  # type: ignore[method-assign]
    clock._autojump = jump  # type: ignore[method-assign]
    return clock


class _RareLooks:
    """In place of what asks the system for sockets that are ready: nobody waits for any but for signals' sake."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager
        self._looks = 0
        self._nothing: list[object] = []

    def get_events(self, timeout: float) -> Any:
        self._looks += 1
        return self._nothing if self._looks % 1024 else self._manager.get_events(0)

    def process_events(self, events: Any) -> None:
        if events:
            self._manager.process_events(events)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._manager, name)


class _Shuffler(Random):
    """What Trio puts tasks that are ready together in order with: quick where there is one only.

    It keeps back those of frozen groups.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._frozen: set[object] = set()
        self._kept: list[trio.lowlevel.Task] = []

    def shuffle(self, x: MutableSequence[Any]) -> None:
        if self._frozen:
            ready = list(x)
            x[:] = [task for task in ready if task.context.get(_group) not in self._frozen]
            self._kept += [task for task in ready if task.context.get(_group) in self._frozen]
        if len(x) > 1:
            super().shuffle(x)

    def freeze(self, group: object) -> None:
        """Let no task of a group do anything."""
        self._frozen.add(group)

    def thaw(self, group: object) -> None:
        """Let them go on; what has happened meanwhile they find as it is."""
        self._frozen.discard(group)
        kept, self._kept = self._kept, []
        _run.GLOBAL_RUN_CONTEXT.runner.runq.extend(kept)


_group: Final[ContextVar[object]] = ContextVar("group", default=None)


def join_group(group: object) -> None:
    """Make the task that calls this one of a group, with all tasks that it starts from now on."""
    _group.set(group)


def freeze(group: object) -> None:
    """Let no task of a group take another step, as if its process was stopped; only in a run by seed."""
    _shuffler().freeze(group)


def thaw(group: object) -> None:
    """Let a group that is frozen go on; nothing happens to others."""
    _shuffler().thaw(group)


def _shuffler() -> _Shuffler:
    shuffler = scheduler_randomness()
    if not isinstance(shuffler, _Shuffler):
        raise RuntimeError("tasks can be frozen in a run by seed only")
    return shuffler


class _DeadlineChange:
    """What a cancel scope registers its deadline with, as Trio does it, without a generator each time."""

    __slots__ = ("_scope",)

    def __init__(self, scope: Any) -> None:
        self._scope = scope

    def __enter__(self) -> None:
        pass

    def __exit__(self, *reason: object) -> None:
        scope = self._scope
        old = scope._registered_deadline
        new = math.inf if scope._cancel_status is None or scope._cancel_called else scope._deadline
        if old != new:
            scope._registered_deadline = new
            deadlines = _run.GLOBAL_RUN_CONTEXT.runner.deadlines
            if old != math.inf:
                deadlines.remove(old, scope)
            if new != math.inf:
                deadlines.add(new, scope)


@contextmanager
def _steady_trio(seed: int) -> Iterator[None]:
    """Trio with tasks in an order that ``seed`` decides, and with less work for each of their steps."""
    runs: Any = _run
    before = scheduler_randomness(), runs._ALLOW_DETERMINISTIC_SCHEDULING
    change = runs.CancelScope._might_change_registered_deadline
    runs._r, runs._ALLOW_DETERMINISTIC_SCHEDULING = _Shuffler(seed), True
    runs.CancelScope._might_change_registered_deadline = _change_deadline
    try:
        yield
    finally:
        runs._r, runs._ALLOW_DETERMINISTIC_SCHEDULING = before
        runs.CancelScope._might_change_registered_deadline = change


def _change_deadline(scope: object) -> _DeadlineChange:
    return _DeadlineChange(scope)


def require_hash_seed(arguments: list[str]) -> None:
    """Start this Python program again, with ``arguments`` behind the interpreter, unless it has the hash seed."""
    if os.environ.get("PYTHONHASHSEED") != HASH_SEED:
        os.environ["PYTHONHASHSEED"] = HASH_SEED
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, *arguments])


def run_by_seed(main: Callable[[], Awaitable[T]], seed: int) -> T:
    """What ``main`` returns, run on a clock that jumps ahead; the same for the same seed."""
    agenda = _Agenda()

    async def run() -> T:
        runner = _run.GLOBAL_RUN_CONTEXT.runner
        runner.io_manager = _RareLooks(runner.io_manager)  # type: ignore[assignment]  # all that is asked of it
        # There are none; but an empty mapping of Trio's own is slow to ask for each of their methods.
        runner.instruments = {}  # type: ignore[assignment]
        _agenda.set(agenda)
        return await main()

    collects = gc.isenabled()
    gc.collect(1)
    gc.disable()
    try:
        with _steady_trio(seed):
            return trio.run(run, clock=_make_clock(agenda))
    finally:
        if collects:
            gc.enable()
