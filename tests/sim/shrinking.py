"""The shortest schedule of faults that still makes a simulation fail the same way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from sim.simulation import Outcome, simulate_plan, with_actions

__all__ = ["shrink"]

#: Simulations that are run for it at most.
ATTEMPTS: Final = 80


def shrink(outcome: Outcome, told: Callable[[str], object] = lambda text: None) -> Outcome:
    """The outcome of the same seed with as few actions as were found to be enough.

    Whole runs of actions are left out first, then smaller ones (Zeller's delta debugging, with a limit).
    """
    best = outcome
    numbers = [action.number for action in outcome.plan.actions]
    attempts = 0
    size = max(1, len(numbers) // 2)
    while numbers and attempts < ATTEMPTS:
        shorter = None
        for start in range(0, len(numbers), size):
            kept = numbers[:start] + numbers[start + size :]
            attempts += 1
            told(f"{len(numbers)} actions, attempt {attempts}")
            found = _try(outcome, kept)
            if found is not None:
                best, shorter = found, kept
                break
            if attempts >= ATTEMPTS:
                break
        if shorter is not None:
            numbers = shorter
            size = max(1, min(size, len(numbers) // 2))
        elif size == 1:
            break
        else:
            size //= 2
    return best


def _try(outcome: Outcome, kept: Sequence[int]) -> Outcome | None:
    found = simulate_plan(with_actions(outcome.plan, kept))
    return found if found.kinds & outcome.kinds else None
