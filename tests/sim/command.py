"""The command line of the simulation: many seeds, or one again.

::

    python -m tests.sim --seeds 1000 --minutes 10 --profile moves
    python -m tests.sim --profile moves --seed 17                       one seed, with its trace
    python -m tests.sim --profile moves --seed 17 --actions 2,5         and only these of its actions

Needs what the node needs, and nothing else. Ends with 1 if any simulation failed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import attrs
from sim.plan import PROFILES, Profile
from sim.scheduling import HASH_SEED, require_hash_seed
from sim.shrinking import shrink
from sim.simulation import Outcome, simulate

from kevynode.progress import ProgressBar

__all__ = ["main"]


@attrs.define
class Totals:
    """What all simulations of a run came to."""

    seeds: int = 0
    simulated: float = 0.0
    began: float = attrs.Factory(time.monotonic)
    faults: Counter[str] = attrs.Factory(Counter)
    moves: Counter[str] = attrs.Factory(Counter)
    answers: Counter[str] = attrs.Factory(Counter)
    checked: Counter[str] = attrs.Factory(Counter)
    failed: list[Outcome] = attrs.Factory(list)

    def add(self, outcome: Outcome) -> None:
        """One more."""
        self.seeds += 1
        self.simulated += outcome.simulated
        self.faults.update(outcome.faults)
        self.moves.update(outcome.moves)
        self.answers.update(outcome.answers)
        for name in ("operations", "unanswered", "undecided", "compared", "records", "reads", "waits", "pairs"):
            self.checked[name] += getattr(outcome, name)
        if outcome.failures:
            self.failed.append(outcome)

    @property
    def rate(self) -> float:
        """Seconds of a cluster in one of the machine."""
        return self.simulated / max(time.monotonic() - self.began, 1e-6)

    def report(self) -> str:
        """Lines for people."""
        seconds = time.monotonic() - self.began
        lines = [
            f"{self.seeds} seeds in {seconds:.0f} s: {self.simulated:.0f} s of a cluster, {self.rate:.0f} a second",
            f"faults     {_counts(self.faults)}",
            f"moves      {_counts(self.moves)}",
            f"refusals   {_counts(self.answers)}",
            f"checked    {_counts(self.checked)}",
            f"failed     {len(self.failed)}",
        ]
        return "\n".join(lines) + "\n"


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "-"


def main(arguments: Sequence[str]) -> int:
    """Run the command line; the exit code."""
    options = _parse(arguments)
    require_hash_seed(["-m", "tests.sim", *arguments])
    if options.seed is not None:
        return _replay(options.profile, options.seed, options.actions, options.trace)
    return _search(options)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description="Simulates clusters, and checks them.")
    parser.add_argument("--seeds", type=int, default=200, metavar="N", help="how many (200)")
    parser.add_argument("--first", type=int, default=1, metavar="N", help="the first of them (1)")
    parser.add_argument("--minutes", type=float, default=10.0, metavar="M", help="stop after so long (10)")
    parser.add_argument("--profile", choices=PROFILES, default="all", help="what befalls the cluster (all)")
    parser.add_argument("--failures", type=int, default=5, metavar="N", help="stop after so many failures (5)")
    parser.add_argument("--no-shrink", action="store_true", help="report failures as they are")
    parser.add_argument("--seed", type=int, metavar="S", help="run this seed only, and say what happened")
    parser.add_argument("--actions", type=_numbers, metavar="I,J,…", help="with --seed: only these actions of its plan")
    parser.add_argument("--trace", type=Path, metavar="FILE", help="where the trace goes (standard output)")
    return parser.parse_args(arguments)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(",") if word)


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


# -- many -----------------------------------------------------------------------------------------------------------


def _search(options: argparse.Namespace) -> int:
    totals = Totals()
    bar = ProgressBar(sys.stderr)
    end = totals.began + options.minutes * 60
    for seed in range(options.first, options.first + options.seeds):
        outcome = simulate(seed, options.profile)
        totals.add(outcome)
        if bar.is_wanted:
            facts = f"{totals.rate:.0f} cluster-seconds a second, {len(totals.failed)} failed"
            bar.show("simulating", totals.seeds, options.seeds, facts)
        if outcome.failures:
            bar.clear()
            _report(outcome, bar, not options.no_shrink, options.trace)
        if time.monotonic() >= end or len(totals.failed) >= options.failures:
            break
    bar.clear()
    _say(totals.report())
    return 1 if totals.failed else 0


def _report(outcome: Outcome, bar: ProgressBar, shrinks: bool, trace: Path | None) -> None:
    _say(f"seed {outcome.seed} of {outcome.profile} fails: {_first(outcome)}\n")
    found = outcome
    if shrinks and outcome.plan.actions:
        found = shrink(outcome, lambda text: bar.show("shrinking", 0, 1, text) if bar.is_wanted else None)
        bar.clear()
    for failure in found.failures[:6]:
        _say(f"  {failure}\n")
    for action in found.plan.actions:
        _say(f"  {action}\n")
    if trace is not None:
        trace.write_text(found.trace.text())
        _say(f"  trace: {trace}\n")
    _say(f"  replay: {replay_command(found)}\n\n")


def _first(outcome: Outcome) -> str:
    return outcome.failures[0].partition("\n")[0]


def replay_command(outcome: Outcome) -> str:
    """The one command that does the same again."""
    numbers = ",".join(str(action.number) for action in outcome.plan.actions)
    return (
        f"PYTHONHASHSEED={HASH_SEED} python -m tests.sim --profile {outcome.profile} --seed {outcome.seed}"
        f" --actions '{numbers}'"
    )


# -- one ------------------------------------------------------------------------------------------------------------


def _replay(profile: Profile, seed: int, actions: tuple[int, ...] | None, trace: Path | None) -> int:
    outcome = simulate(seed, profile, actions)
    if trace is None:
        _say(outcome.trace.text())
    else:
        trace.write_text(outcome.trace.text())
    plan = outcome.plan
    _say(
        f"{plan.shape} cluster of {len(plan.nodes)}, {plan.policy}, upstreams {plan.upstreams}, scopes {plan.scopes}\n"
    )
    for action in plan.actions:
        _say(f"  {action}\n")
    _say(f"{outcome.simulated:.1f} s of the cluster, {outcome.operations} operations, trace {outcome.trace.digest()}\n")
    for failure in outcome.failures:
        _say(f"FAILED {failure}\n")
    _say(f"replay: {replay_command(outcome)}\n")
    return 1 if outcome.failures else 0
