"""Trio with less work for each step of a task, for as long as a simulation runs.

Trio's loop asks before each round which sockets are ready, what instruments want to hear, and for how long nobody has
had anything to do. A simulation has none of that, and takes hundreds of steps for each of its seconds. While
:func:`lean_trio` is in force the loop, and what sleeps, enters cancel scopes and is cancelled most of the time, are
those below: they do to Trio's own objects what Trio does, in the same order, in the plain case, and leave every other
one to Trio. ``test_scheduling.py`` compares the two. Where Trio's insides are not as expected nothing is put in place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

import outcome
import trio
from trio._core import _run, _traps

__all__ = ["Turns", "is_possible", "lean_trio"]

#: Rounds between two looks for signals.
_LOOK: Final = 1024
#: Seconds to wait for signals, and for what Trio tells itself at the end, when nobody has anything to do, ever.
_IDLE_SECONDS: Final = 1.0

_trio: Final[Any] = _run
_context: Final[Any] = _run.GLOBAL_RUN_CONTEXT
_yields: Final[Any] = _traps

#: What is used here, and by :mod:`sim.scheduling`, of Trio's own: attributes of the classes and of their modules.
_USED: Final[tuple[tuple[Any, str], ...]] = (
    (_run, "GLOBAL_RUN_CONTEXT unrolled_run CONTEXT_RUN_TB_FRAMES _NO_SEND CancelStatus current_time"),
    (_run.Runner, "init spawn_impl reschedule task_exited close runq tasks deadlines"),
    (_run.Task, "_attempt_abort _attempt_delivery_of_any_pending_cancel _abort_func _next_send _next_send_fn"),
    (_run.Task, "_cancel_status _counter"),
    (_run.CancelScope, "__enter__ __exit__ _cancel _cancel_called _cancel_reason _cancel_status _has_been_entered"),
    (_run.CancelScope, "_deadline _might_change_registered_deadline _registered_deadline _relative_deadline _shield"),
    (_run.CancelStatus, "_parent _children _tasks effectively_cancelled"),
    (_run.Deadlines, "_heap add remove next_deadline expire"),
    (_traps, "CancelShieldedCheckpoint WaitTaskRescheduled PermanentlyDetachCoroutineObject"),
)


class Turns(Protocol):
    """What decides when it is, and who is next."""

    @property
    def now(self) -> float: ...
    def choose(self, tasks: list[Any]) -> list[Any]:
        """Those of the tasks that have a turn now, in their order."""
        ...

    def jump(self) -> None:
        """Let it be the next moment at which somebody has something to do, and wake who has."""
        ...

    def call_at(self, moment: float, call: Callable[[], object]) -> None:
        """Have something called at a moment, outside of any task."""
        ...


def is_possible() -> bool:
    """Whether this version of Trio is made as expected."""
    return all(hasattr(owner, name) for owner, names in _USED for name in names.split())


# -- what tasks are woken with ------------------------------------------------------------------------------------


class _Nothing:
    """As ``outcome.Value(None)``, for as many tasks as one likes."""

    @staticmethod
    def unwrap() -> None:
        pass


class _Raising:
    """As ``outcome.Error`` of what a call raises, which is raised where it is wanted."""

    __slots__ = ("unwrap",)

    def __init__(self, raises: Callable[[], object]) -> None:
        self.unwrap = raises


_NOTHING: Final[Any] = _Nothing()


def _reschedule(runner: Any, task: Any, next_send: Any = _NOTHING) -> None:
    task._next_send_fn = task.coro.send
    task._next_send = _NOTHING if next_send is _trio._NO_SEND else next_send
    task._abort_func = None
    task.custom_sleep_data = None
    runner.runq.append(task)


def _attempt_abort(task: Any, raises: Callable[[], object]) -> None:
    # It is tried once for each time that a task waits.
    abort, task._abort_func = task._abort_func, None
    if abort(raises) is trio.lowlevel.Abort.SUCCEEDED:
        _reschedule(_context.runner, task, _Raising(raises))


# -- the loop ------------------------------------------------------------------------------------------------------


class _Loop:
    """Trio's loop for one run."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns

    @trio.lowlevel.enable_ki_protection
    def run(self, runner: Any, function: Any, arguments: Any, host_wakes: bool = False) -> Generator[float, Any, None]:
        """As Trio's. It yields when it has to know of sockets, and for how many seconds it would wait for them."""
        try:
            runner.entry_queue.wakeup.wakeup_on_signals()
            runner.clock.start_clock()
            start = runner.init, (function, arguments), None, "<init>"
            runner.init_task = runner.spawn_impl(*start, system_task=True)
            yield from self._rounds(runner)
        except trio.TrioInternalError:
            raise
        except BaseException as error:
            raise trio.TrioInternalError("the loop of the simulation has failed") from error
        finally:
            runner.close()
            _context.__dict__.clear()
            if runner.ki_pending:
                runner.main_task_outcome = outcome.Error(KeyboardInterrupt())

    def _rounds(self, runner: Any) -> Generator[float, Any, None]:
        turns, ready, deadlines = self._turns, runner.runq, runner.deadlines
        rounds = 0
        while runner.tasks:
            rounds += 1
            if rounds % _LOOK == 0:
                runner.io_manager.process_events((yield 0.0))
            if deadlines._heap and deadlines._heap[0][0] <= turns.now:
                deadlines.expire(turns.now)
            if not ready:
                turns.jump()
                if not ready:
                    runner.io_manager.process_events((yield _IDLE_SECONDS))
            tasks = list(ready)
            ready.clear()
            for task in turns.choose(tasks):
                _context.task = task
                message, end = _step(task)
                if end is None:
                    _heed(runner, task, message)
                else:
                    runner.task_exited(task, end)
                del _context.task


def _step(task: Any) -> tuple[Any, Any]:
    """Have a task go on: what it yields, or, once it is over, its outcome."""
    send, value = task._next_send_fn, task._next_send
    task._next_send_fn = task._next_send = None
    try:
        return task.context.run(send, value), None
    except StopIteration as stop:
        return None, outcome.Value(stop.value)
    except BaseException as error:
        # As Trio does, without the frames that are not the task's own.
        frames = error.__traceback__
        for _ in range(1 + _trio.CONTEXT_RUN_TB_FRAMES):
            frames = frames and frames.tb_next
        return None, outcome.Error(error.with_traceback(frames))


def _heed(runner: Any, task: Any, message: Any) -> None:
    """Do what a task asks for by what it yields."""
    if type(message) is _yields.WaitTaskRescheduled:
        task._abort_func = message.abort_func
        if runner.ki_pending and task is runner.main_task:
            task._attempt_delivery_of_pending_ki()
        if task._cancel_status.effectively_cancelled:
            task._attempt_delivery_of_any_pending_cancel()
    elif message is _yields.CancelShieldedCheckpoint:
        _reschedule(runner, task)
    elif type(message) is _yields.PermanentlyDetachCoroutineObject:
        runner.task_exited(task, message.final_outcome)
    else:
        _reschedule(runner, task)
        task._next_send_fn = task.coro.throw
        task._next_send = TypeError(f"a task has yielded {message!r}, which means nothing to Trio")


# -- time ----------------------------------------------------------------------------------------------------------


class _Nap:
    """One task that sleeps, and what it is woken with."""

    __slots__ = ("is_given_up", "task")

    def __init__(self) -> None:
        self.task = _context.task
        self.is_given_up = False

    def over(self) -> None:
        if not self.is_given_up:
            _reschedule(_context.runner, self.task, self)

    def give_up(self, raises: object) -> trio.lowlevel.Abort:
        self.is_given_up = True
        return trio.lowlevel.Abort.SUCCEEDED

    def unwrap(self) -> None:
        """Who is cancelled between the end of the nap and its next turn is cancelled, as Trio does it."""
        if self.task._cancel_status.effectively_cancelled:
            self.task._abort_func = _raise
            self.task._attempt_delivery_of_any_pending_cancel()


def _raise(raises: Callable[[], object]) -> None:
    raises()


def _sleeping(turns: Turns) -> tuple[Any, Any]:
    """``trio.sleep_until`` and ``trio.sleep``, without a cancel scope for each time."""

    async def sleep_until(deadline: float) -> None:
        if deadline <= turns.now:
            await trio.lowlevel.checkpoint()
            return
        nap = _Nap()
        if deadline != math.inf:
            turns.call_at(deadline, nap.over)
        await trio.lowlevel.wait_task_rescheduled(nap.give_up)

    async def sleep(seconds: float) -> None:
        if not seconds >= 0:
            raise ValueError("`seconds` must be non-negative")
        await sleep_until(turns.now + seconds)

    return sleep_until, sleep


# -- cancel scopes -------------------------------------------------------------------------------------------------


def _register(scope: Any, deadline: float) -> None:
    """Have a scope expire then, and at no other moment."""
    before = scope._registered_deadline
    if before != deadline:
        scope._registered_deadline = deadline
        deadlines = _context.runner.deadlines
        if before != math.inf:
            deadlines.remove(before, scope)
        if deadline != math.inf:
            deadlines.add(deadline, scope)


class _DeadlineChange:
    """What Trio registers changed deadlines with, without a generator each time."""

    __slots__ = ("_scope",)

    def __init__(self, scope: Any) -> None:
        self._scope = scope

    def __enter__(self) -> None:
        pass

    def __exit__(self, *reason: object) -> None:
        scope = self._scope
        is_over = scope._cancel_status is None or scope._cancel_called
        _register(scope, math.inf if is_over else scope._deadline)


def _scopes(turns: Turns) -> tuple[Any, Any, Any]:
    """How scopes are entered, left and cancelled: here if that is nothing special, else by Trio."""
    plain: Any = trio.CancelScope
    enter, leave, cancel = plain.__enter__, plain.__exit__, plain._cancel

    def enter_scope(scope: Any) -> Any:
        task = _context.task
        around = task._cancel_status
        seconds = scope._relative_deadline
        deadline = scope._deadline if seconds == math.inf else turns.now + seconds
        if around is None or around.effectively_cancelled or scope._has_been_entered or scope._cancel_called:
            return enter(scope)
        if deadline <= turns.now:
            return enter(scope)
        scope._has_been_entered = True
        scope._deadline, scope._relative_deadline = deadline, math.inf
        status = scope._cancel_status = _trio.CancelStatus(scope)
        status._parent = around
        around._children.add(status)
        around._tasks.remove(task)
        task._cancel_status = status
        status._tasks.add(task)
        _register(scope, deadline)
        return scope

    def leave_scope(scope: Any, kind: Any, error: Any, frames: Any) -> Any:
        task, status = _context.task, scope._cancel_status
        if status is None or task._cancel_status is not status or status._children or len(status._tasks) > 1:
            return leave(scope, kind, error, frames)
        around = status._parent
        if around is None:
            return leave(scope, kind, error, frames)
        if error is not None:
            is_own = status.effectively_cancelled and (scope._shield or not around.effectively_cancelled)
            if not is_own or type(error) is not trio.Cancelled:
                return leave(scope, kind, error, frames)
            scope.cancelled_caught = True
        status._tasks.remove(task)
        status._parent = None
        around._children.remove(status)
        around._tasks.add(task)
        task._cancel_status = around
        scope._cancel_status = None
        _register(scope, math.inf)
        return error is not None

    def cancel_scope(scope: Any, reason: Any) -> None:
        status = scope._cancel_status
        if scope._cancel_called or status is None or status.effectively_cancelled or status._children:
            cancel(scope, reason)
            return
        if scope._cancel_reason is None:
            scope._cancel_reason = reason
        scope._cancel_called = status.effectively_cancelled = True
        _register(scope, math.inf)
        for task in status._tasks:
            task._attempt_delivery_of_any_pending_cancel()

    return enter_scope, leave_scope, cancel_scope


# -- all together --------------------------------------------------------------------------------------------------


@contextmanager
def lean_trio(turns: Turns, current_time: Callable[[], float]) -> Iterator[None]:
    """Have the next run of Trio's in this thread go by ``turns``. ``current_time`` says their ``now``."""
    sleep_until, sleep = _sleeping(turns)
    enter, leave, cancel = _scopes(turns)
    places: list[tuple[Any, str, object]] = [
        (_run, "unrolled_run", _Loop(turns).run),
        (_run, "current_time", current_time),
        (_run.Runner, "reschedule", _reschedule),
        (_run.Task, "_attempt_abort", _attempt_abort),
        (_run.CancelScope, "_might_change_registered_deadline", lambda scope: _DeadlineChange(scope)),
        (_run.CancelScope, "__enter__", enter),
        (_run.CancelScope, "__exit__", leave),
        (_run.CancelScope, "_cancel", cancel),
        (trio, "current_time", current_time),
        (trio, "sleep_until", sleep_until),
        (trio, "sleep", sleep),
    ]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in places]
    for owner, name, ours in places:
        setattr(owner, name, ours)
    try:
        yield
    finally:
        for owner, name, theirs in before:
            setattr(owner, name, theirs)
