"""The command line of the simulation: many seeds, or one again.

::

    python -m tests.sim --seeds 1000 --minutes 10 --profile moves
    python -m tests.sim --profile moves --seed 17                       one seed, with its trace
    python -m tests.sim --profile moves --seed 17 --actions 2,5         and only these of its actions
    python -m tests.sim --plan tests/sim/kept/NAME.json                 one that was kept

Needs what the node needs, and nothing else. Ends with 1 if any simulation failed. Ctrl-C ends it after the seed
that it is at, with what the others came to; a second one at once.
"""

from __future__ import annotations

import argparse
import multiprocessing
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import attrs
from sim.plan import PROFILES, Plan, Profile, draw_plan, plan_from_json, plan_to_json
from sim.scheduling import HASH_SEED, require_hash_seed
from sim.shrinking import shrink
from sim.simulation import Outcome, simulate, simulate_plan, with_actions

from kevynode.progress import ProgressBar

__all__ = ["main"]

#: How much of a failure's trace is shown at once.
_LAST_LINES: Final = 20


@attrs.define
class Totals:
    """What all simulations of a run came to."""

    seeds: int = 0
    simulated: float = 0.0
    took: float = 0.0
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
        self.took += outcome.took
        self.faults.update(outcome.faults)
        self.moves.update(outcome.moves)
        self.answers.update(outcome.answers)
        for name in (
            "operations",
            "unanswered",
            "undecided",
            "compared",
            "records",
            "counted",
            "reads",
            "waits",
            "pairs",
            "taken",
            "mortals",
        ):
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
            f"{self.seeds} seeds in {seconds:.0f} s: {self.simulated:.0f} s of a cluster, {self.rate:.0f} a second,"
            f" {self.simulated / max(self.took, 1e-6):.0f} in one of a processor",
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
    if options.plan is not None:
        return _replay(plan_from_json(options.plan.read_text(encoding="utf-8")), options)
    if options.seed is not None:
        return _replay(draw_plan(options.seed, options.profile), options)
    return _search(options)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description="Simulates clusters, and checks them.")
    parser.add_argument("--seeds", type=int, default=200, metavar="N", help="how many (200)")
    parser.add_argument("--first", type=int, default=1, metavar="N", help="the first of them (1)")
    parser.add_argument("--minutes", type=float, default=10.0, metavar="M", help="stop after so long (10)")
    parser.add_argument("--profile", choices=PROFILES, default="all", help="what befalls the cluster (all)")
    parser.add_argument("--jobs", type=int, default=0, metavar="N", help="how many processes (0: one for each core)")
    parser.add_argument("--failures", type=int, default=5, metavar="N", help="stop after so many failures (5)")
    parser.add_argument("--no-shrink", action="store_true", help="report failures as they are")
    parser.add_argument("--seed", type=int, metavar="S", help="run this seed only, and say what happened")
    parser.add_argument("--plan", type=Path, metavar="FILE", help="run this plan only, and say what happened")
    parser.add_argument("--actions", type=_numbers, metavar="I,J,…", help="with --seed: only these actions of its plan")
    traces = "where the trace goes (of one run: standard output; of a failure among many: beside its plan)"
    parser.add_argument("--trace", type=Path, metavar="FILE", help=traces)
    keeps = "the folder in which the plans of failures are kept; with --seed: the file for that plan"
    parser.add_argument("--keep", type=Path, metavar="PATH", help=keeps)
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
    with _interruption() as interrupted, _outcomes(options) as outcomes:
        for outcome in outcomes:
            if interrupted.is_set():
                # The signal may have woken that one: it is no other's trace.
                break
            totals.add(outcome)
            if bar.is_wanted:
                facts = f"{totals.rate:.0f} cluster-seconds a second, {len(totals.failed)} failed"
                bar.show("simulating", totals.seeds, options.seeds, facts)
            if outcome.failures:
                bar.clear()
                _report(outcome, bar, options)
            if time.monotonic() >= end or len(totals.failed) >= options.failures:
                break
    bar.clear()
    _say(totals.report())
    return 1 if totals.failed else 0


@contextmanager
def _interruption() -> Iterator[threading.Event]:
    """Set by the first Ctrl-C; the second one raises KeyboardInterrupt."""
    interrupted = threading.Event()

    def interrupt(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGINT, before)
        interrupted.set()

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _outcomes(options: argparse.Namespace) -> Iterator[Iterator[Outcome]]:
    """What comes of each seed, in their order, whoever simulates it."""
    seeds = range(options.first, options.first + options.seeds)
    work = partial(_simulate, profile=options.profile)
    if options.jobs == 1:
        yield map(work, seeds)
        return
    with multiprocessing.get_context("fork").Pool(options.jobs or None, maxtasksperchild=500) as pool:
        yield pool.imap(work, seeds)


def _simulate(seed: int, profile: Profile) -> Outcome:
    outcome = simulate(seed, profile)
    if not outcome.failures:
        # Nobody will read it, and it is all that is large.
        outcome.trace.lines.clear()
    return outcome


def _report(outcome: Outcome, bar: ProgressBar, options: argparse.Namespace) -> None:
    _say(f"seed {outcome.seed} of {outcome.profile} fails: {_first(outcome)}\n")
    found = outcome
    if not options.no_shrink and outcome.plan.actions:
        found = shrink(outcome, lambda text: bar.show("shrinking", 0, 1, text) if bar.is_wanted else None)
        bar.clear()
    for failure in found.failures[:6]:
        _say(f"  {failure}\n")
    for action in found.plan.actions:
        _say(f"  {action}\n")
    name = f"{found.profile}-{found.seed}"
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
        _keep(found.plan, options.keep / f"{name}.json", _first(found))
    trace = options.trace or (options.keep or Path(tempfile.mkdtemp(prefix="simulated-"))) / f"{name}.trace"
    trace.write_text(found.trace.text(), encoding="utf-8")
    _say(f"  trace: {trace}, which ends with\n")
    for line in found.trace.lines[-_LAST_LINES:]:
        _say(f"    {line}\n")
    _say(f"  replay: {replay_command(found)}\n\n")


def _keep(plan: Plan, file: Path, about: str = "") -> None:
    file.write_text(plan_to_json(attrs.evolve(plan, about=plan.about or about)), encoding="utf-8")
    _say(f"  plan: {file}\n")


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


def _replay(plan: Plan, options: argparse.Namespace) -> int:
    if options.actions is not None:
        plan = with_actions(plan, options.actions)
    outcome = simulate_plan(plan)
    if options.trace is None:
        _say(outcome.trace.text())
    else:
        options.trace.write_text(outcome.trace.text())
    _say(
        f"{plan.shape} cluster of {len(plan.nodes)}, {plan.policy}, upstreams {plan.upstreams}, scopes {plan.scopes}\n"
    )
    for action in plan.actions:
        _say(f"  {action}\n")
    _say(f"{outcome.simulated:.1f} s of the cluster, {outcome.operations} operations, trace {outcome.trace.digest()}\n")
    for failure in outcome.failures:
        _say(f"FAILED {failure}\n")
    if options.keep is not None:
        _keep(plan, options.keep, _first(outcome) if outcome.failures else "")
    again = replay_command(outcome) if options.plan is None else f"python -m tests.sim --plan {options.plan}"
    _say(f"replay: {again}\n")
    return 1 if outcome.failures else 0
