"""Plans that are simulated one after the other until one fails, in a process of their own.

::

    python -m sim.trials FILE… --seeds 8                                    these, each with so many seeds
    python -m sim.trials --profile moves --first 1 --seeds 150 --minutes 3  those of so many seeds

with the folder of the tests, and that of the package which is to be tried, among ``PYTHONPATH``. Each line that is
printed is of JSON, and says what is tried, or what came of it: :func:`read` has them. A simulation that takes too long
ends the process by one of :data:`HANGS`, and what was tried is the last line then.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
from sim.plan import PROFILES, Plan, draw_plan, plan_from_json, plan_to_json
from sim.scheduling import require_hash_seed
from sim.shrinking import shrink
from sim.simulation import simulate_plan

__all__ = ["HANGS", "Told", "main", "read"]

#: What ends a process that hangs: it has used too many seconds of a processor, or waits for something for ever.
HANGS: Final = (signal.SIGPROF, signal.SIGALRM)
#: Seconds of the machine for each of the processor: others may have most of it.
SHARE: Final = 30


@attrs.frozen
class Told:
    """What a process has printed: what it tried last, and how that failed if it did."""

    #: The name of the file of the plan, or the profile.
    of: str = ""
    seed: int = 0
    failures: tuple[str, ...] = ()


def read(text: str) -> Told:
    """What the last whole lines of a process say."""
    told = Told()
    for line in text.splitlines():
        if line.startswith("{") and line.endswith("}"):
            fields: dict[str, Any] = json.loads(line)
            told = Told(fields["of"], fields["seed"], tuple(fields["failures"]))
    return told


def main(arguments: Sequence[str]) -> int:
    """Run the command line; the exit code, 1 if a plan failed."""
    parser = argparse.ArgumentParser(prog="python -m sim.trials", description=__doc__.partition("\n")[0])
    parser.add_argument("plans", type=Path, nargs="*", metavar="FILE")
    parser.add_argument("--profile", choices=PROFILES, default="all")
    parser.add_argument("--first", type=int, default=1, metavar="N", help="of FILEs: so many seeds after their own")
    parser.add_argument("--seeds", type=int, default=1, metavar="N")
    parser.add_argument("--minutes", type=float, default=60.0, metavar="M")
    parser.add_argument(
        "--patience", type=int, default=60, metavar="S", help="seconds of a processor for one simulation"
    )
    parser.add_argument("--keep", type=Path, metavar="FILE", help="where the plan that failed goes, shrunk")
    options = parser.parse_args(arguments)
    require_hash_seed(["-m", "sim.trials", *arguments])
    end = time.monotonic() + 60 * options.minutes
    for of, plan in _plans(options):
        if time.monotonic() >= end:
            break
        _say(Told(of, plan.seed))
        _limit(options.patience)
        outcome = simulate_plan(plan)
        _limit(0)
        if outcome.failures:
            _say(Told(of, plan.seed, tuple(failure.partition("\n")[0] for failure in outcome.failures)))
            if options.keep is not None:
                shrunk = shrink(outcome)
                about = shrunk.failures[0].partition("\n")[0]
                options.keep.write_text(plan_to_json(attrs.evolve(shrunk.plan, about=about)), encoding="utf-8")
            return 1
    return 0


def _plans(options: argparse.Namespace) -> Iterator[tuple[str, Plan]]:
    if not options.plans:
        for seed in range(options.first, options.first + options.seeds):
            yield options.profile, draw_plan(seed, options.profile)
    for file in options.plans:
        plan = plan_from_json(file.read_text(encoding="utf-8"))
        for more in range(options.first - 1, options.first - 1 + options.seeds):
            yield file.stem, attrs.evolve(plan, seed=plan.seed + more)


def _limit(seconds: int) -> None:
    """Let the process end when it has used so many more seconds of a processor, or far too many have passed; 0: not."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.alarm(SHARE * seconds)


def _say(told: Told) -> None:
    sys.stdout.write(json.dumps(attrs.asdict(told)) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
