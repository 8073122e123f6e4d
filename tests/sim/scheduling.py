"""One run of Trio that a seed decides altogether.

Tasks that become ready together are put in the order in which they were
made before the seed shuffles them: Trio itself keeps many of them in sets, whose order is that of addresses in memory.
Cyclic garbage is collected between runs only, because what it frees may close things.
"""

from __future__ import annotations

import gc
import math
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import trio
import trio.testing
from support.steady_run import scheduler_randomness

__all__ = ["HASH_SEED", "require_hash_seed", "run_by_seed"]

T = TypeVar("T")

#: What PYTHONHASHSEED must be: the order of sets of bytes, and with it some traces, goes by it.
HASH_SEED: Final = "0"


def _make_clock() -> trio.testing.MockClock:
    """A clock that jumps ahead, and that says faster what time it is: it is asked some hundred thousand times."""
    clock = trio.testing.MockClock(autojump_threshold=0)

    def current_time() -> float:
        return clock._virtual_base

    def jump() -> None:
        deadline = trio._core._run.GLOBAL_RUN_CONTEXT.runner.deadlines.next_deadline()
        if clock._virtual_base < deadline < math.inf:
            clock._virtual_base = deadline

    clock.current_time = current_time  # type: ignore[method-assign]
    clock._autojump = jump  # type: ignore[method-assign]
    return clock


def require_hash_seed(arguments: list[str]) -> None:
    """Start this Python program again, with ``arguments`` behind the interpreter, unless it has the hash seed."""
    if os.environ.get("PYTHONHASHSEED") != HASH_SEED:
        os.environ["PYTHONHASHSEED"] = HASH_SEED
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, *arguments])


def run_by_seed(main: Callable[[], Awaitable[T]], seed: int) -> T:
    """What ``main`` returns, run on a clock that jumps ahead; the same for the same seed."""
    scheduler = trio._core._run
    before = scheduler._ALLOW_DETERMINISTIC_SCHEDULING
    collects = gc.isenabled()
    gc.collect(1)
    gc.disable()
    scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    scheduler_randomness().seed(seed)
    try:
        return trio.run(main, clock=_make_clock())
    finally:
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING = before  # type: ignore[misc]
        if collects:
            gc.enable()
