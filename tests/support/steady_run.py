"""Runs of Trio that do the same each time: on a clock that jumps ahead, with tasks in an order that a seed decides.

Trio reverses the order of the tasks that are ready, or not, as a random generator of its own says. It offers no way to
seed it, so this is the one place that reaches for it by its private name.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio
import trio.testing

__all__ = ["run_steadily", "scheduler_randomness"]

T = TypeVar("T")


def run_steadily(main: Callable[[], Awaitable[T]], seed: int = 0) -> T:
    """What ``main`` returns, run on a clock that jumps ahead whenever nobody has anything to do.

    Whoever is ready together runs in the order that ``seed`` decides. A group that holds one exception only is raised
    as that exception.
    """
    scheduler_randomness().seed(seed)
    try:
        return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    except BaseExceptionGroup as group:
        raise _single(group) from None


def scheduler_randomness() -> random.Random:
    """The generator that decides in which order Trio runs the tasks that are ready.

    Raises RuntimeError if this version of Trio keeps none where the versions before it did.
    """
    found = getattr(getattr(getattr(trio, "_core", None), "_run", None), "_r", None)
    if not isinstance(found, random.Random):
        raise RuntimeError(
            f"Trio {trio.__version__} keeps the random generator of its scheduler elsewhere than in trio._core._run._r:"
            " tests that must do the same each time cannot seed it. Find where it is now, and name it in"
            " tests/support/steady_run.py"
        )
    return found


def _single(error: BaseException) -> BaseException:
    """What has gone wrong, if it is one thing only."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        (error,) = error.exceptions
    return error
