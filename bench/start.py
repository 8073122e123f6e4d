"""How long it takes to import the library of scopes, and until a node is ready: ``python -m bench start``.

``bench/README.md`` explains the method and how to read the tables.
"""

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence

import attrs

from bench import machine
from bench.measuring import Meter, Say
from bench.servers import PURE
from bench.start_work import time_import, time_ready
from bench.suite import Measures, Run, Suite, at_least, carry_out, options_from, parser_of
from bench.tables import Figure, Table, figure_table

PARTS = ("import", "ready")
MODULES = ("kevynode.scope", "kevynode", "trio")
SCOPE = "kevynode.scope"
NODES: Mapping[str, str] = {"kevynode": "compiled parts, if they are built", "kevynode-pure": "pure Python"}

IMPORT_TARGET = 25.0
"""Milliseconds that importing the library of scopes may take beyond starting Python."""

READY_TARGET = 400.0
"""Milliseconds from the start of a node to its ready line."""


@attrs.frozen
class Options:
    """What to measure, and how often."""

    parts: tuple[str, ...]
    rounds: int


@attrs.frozen
class Times:
    """Seconds of each round."""

    name: str
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Milliseconds."""
        return statistics.median(self.seconds) * 1e3

    def cells(self) -> list[str]:
        """Median, least and most in milliseconds."""
        return [f"{self.median:.1f}", f"{min(self.seconds) * 1e3:.1f}", f"{max(self.seconds) * 1e3:.1f}"]


def beyond(name: str, seconds: Sequence[float], bare: Sequence[float]) -> Times:
    """What each round took beyond the bare interpreter in the same round."""
    return Times(name, tuple(one - other for one, other in zip(seconds, bare, strict=True)))


def _figure(name: str, target: float, times: Times | None, foreign: float | None) -> Figure:
    wanted = f"≤ {target:g} ms"
    if times is None:
        return Figure(name, wanted)
    return Figure(name, wanted, f"{times.median:.1f} ms", times.median <= target, foreign)


def import_figure(times: Times | None = None, foreign: float | None = None) -> Figure:
    """Importing the library of scopes."""
    return _figure("import of kevynode.scope over bare Python", IMPORT_TARGET, times, foreign)


def ready_figure(times: Times | None = None, foreign: float | None = None) -> Figure:
    """Starting a node."""
    return _figure("start of kevynode run to the ready line", READY_TARGET, times, foreign)


def _meter(cores: machine.Cores) -> Meter:
    """Others' load, where what this process starts runs on the core of the servers."""
    return Meter(machine.Cores(server=cores.generator, generator=cores.server), [], [])


def _import(run: Run[Options], say: Say) -> None:
    core = run.cores.server
    taken: dict[str | None, list[float]] = {name: [] for name in (None, *MODULES)}
    for name in taken:
        # What is compiled to byte code now need not be later.
        time_import(name, core, {PURE: None})
    meter = _meter(run.cores)
    for _ in range(run.options.rounds):
        for name, seconds in taken.items():
            seconds.append(time_import(name, core, {PURE: None}))
    foreign = meter.share()
    bare = taken.pop(None)
    found = [beyond(str(name), seconds, bare) for name, seconds in taken.items()]
    say(f"import: {found[0].median:.1f} ms")
    rows = [["bare Python", *Times("", tuple(bare)).cells()], *([f"+ {each.name}", *each.cells()] for each in found)]
    run.tables.append(Table("Import", ("process", "median ms", "least", "most"), rows))
    run.figures.append(import_figure(next(each for each in found if each.name == SCOPE), foreign))
    run.samples["import"] = [attrs.asdict(each) for each in (Times("bare", tuple(bare)), *found)]


def _ready(run: Run[Options], say: Say) -> None:
    taken: dict[str, list[float]] = {kind: [] for kind in NODES}
    for kind in taken:
        time_ready(kind, run.cores.server)
    meter = _meter(run.cores)
    for _ in range(run.options.rounds):
        for kind, seconds in taken.items():
            seconds.append(time_ready(kind, run.cores.server))
    foreign = meter.share()
    found = [Times(kind, tuple(seconds)) for kind, seconds in taken.items()]
    say(f"ready: {found[0].median:.0f} ms")
    rows = [[each.name, *each.cells(), NODES[each.name]] for each in found]
    run.tables.append(Table("From start to the ready line", ("node", "median ms", "least", "most", ""), rows))
    run.figures.append(ready_figure(found[0], foreign))
    run.samples["ready"] = [attrs.asdict(each) for each in found]


MEASURES: Measures[Options] = {"import": _import, "ready": _ready}


def build_parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    parser = parser_of("start", "Measure imports and the start of a node", PARTS)
    parser.add_argument("--rounds", type=at_least(1), default=20, help="processes of each kind, in turns (20)")
    return parser


def finish(run: Run[Options]) -> None:
    """The figures, also those that came to nothing."""
    measured = {figure.name: figure for figure in run.figures}
    wanted = {"import": import_figure(), "ready": ready_figure()}
    run.figures = [measured.get(wanted[part].name, wanted[part]) for part in run.options.parts]
    run.tables.append(figure_table(run.figures))


SUITE = Suite("start", build_parser, options_from(Options), MEASURES, "processes on {server}", finish)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the measurements; returns 0, 1 when something failed, 2 for a wrong argument, 130 if interrupted."""
    return carry_out(SUITE, argv)


if __name__ == "__main__":
    sys.exit(main())
