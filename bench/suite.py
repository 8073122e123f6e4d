"""What ``python -m bench.SUBJECT`` of every subject does alike: its command line, its parts in turn, its report.

A part that fails leaves a line that says why, and the others go on. ``bench/README.md`` explains methods and tables.
"""

import argparse
import json
import math
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Generic, Protocol, TypeVar

import attrs

from bench import machine
from bench.client import ServerError
from bench.measuring import Failed, Say
from bench.servers import Unavailable
from bench.tables import Figure, Table, figure_table, render_markdown, render_text

FORMAT = 1
"""Version of the run files; raised when a field changes its meaning."""


class HasParts(attrs.AttrsInstance, Protocol):
    """The options of a subject: an attrs class that says, among other things, which parts are measured."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Their names, in the order in which they are measured."""
        ...


_Options = TypeVar("_Options", bound=HasParts)


@attrs.define
class Run(Generic[_Options]):
    """What has come of it so far: tables, the samples behind them by part, figures, what went wrong."""

    options: _Options
    cores: machine.Cores
    machine: dict[str, str | int]
    tables: list[Table] = attrs.field(factory=list)
    samples: dict[str, object] = attrs.field(factory=dict)
    figures: list[Figure] = attrs.field(factory=list)
    problems: list[str] = attrs.field(factory=list)


Measures = Mapping[str, Callable[[Run[_Options], Say], None]]


@attrs.frozen
class Suite(Generic[_Options]):
    """The measurements of a subject.

    ``measures`` are its parts, each of which adds tables and samples to a run; ``placing`` says what runs on the core
    of the servers (``{server}``) and on that of the load (``{generator}``); ``finish`` adds what sums up all parts.
    """

    name: str
    build_parser: Callable[[], argparse.ArgumentParser]
    options_of: Callable[[argparse.Namespace], _Options]
    measures: Measures[_Options]
    placing: str
    finish: Callable[[Run[_Options]], None] = lambda run: None


# -- the command line -------------------------------------------------------------------------------------------------


def names(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """A parser for a comma-separated list of known names, kept in the order of ``known``."""

    def parse(text: str) -> tuple[str, ...]:
        words = [word.strip().lower() for word in text.split(",")]
        wrong = [word for word in words if word not in known]
        if wrong:
            raise argparse.ArgumentTypeError(f"{wrong[0]!r} is none of {', '.join(known)}")
        return tuple(name for name in known if name in words)

    return parse


def numbers(lowest: int) -> Callable[[str], tuple[int, ...]]:
    """A parser for a comma-separated list of whole numbers, each at least ``lowest`` and each once."""

    def parse(text: str) -> tuple[int, ...]:
        values = [int(word) for word in text.split(",")]
        if min(values) < lowest:
            raise argparse.ArgumentTypeError(f"at least {lowest}")
        return tuple(dict.fromkeys(values))

    return parse


def at_least(lowest: int) -> Callable[[str], int]:
    """A parser for a whole number that is at least ``lowest``."""

    def parse(text: str) -> int:
        value = int(text)
        if value < lowest:
            raise argparse.ArgumentTypeError(f"at least {lowest}")
        return value

    return parse


def seconds(text: str) -> float:
    """A duration on the command line."""
    value = float(text)
    if not (value >= 0.05 and math.isfinite(value)):
        raise argparse.ArgumentTypeError("at least 0.05 seconds")
    return value


def options_from(kind: type[_Options]) -> Callable[[argparse.Namespace], _Options]:
    """What makes options of the arguments that bear the names of their fields."""
    return lambda arguments: kind(**{field.name: getattr(arguments, field.name) for field in attrs.fields(kind)})


def parser_of(name: str, description: str, parts: Sequence[str]) -> argparse.ArgumentParser:
    """A parser with the options that every subject has."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.{name}", description=f"{description}; see bench/README.md.")
    add = parser.add_argument
    add("--parts", type=names(parts), default=tuple(parts), help=f"comma-separated, of {', '.join(parts)} (all)")
    add("--json", type=Path, metavar="FILE", help="write every sample to FILE")
    add("--markdown", type=Path, metavar="FILE", help="write the tables in Markdown to FILE")
    return parser


# -- a run ------------------------------------------------------------------------------------------------------------


def measure(suite: Suite[_Options], run: Run[_Options], say: Say) -> None:
    """Measure every part that is asked for, one after the other; a part that fails leaves a problem, not a table."""
    os.sched_setaffinity(0, {run.cores.generator})
    for part in run.options.parts:
        try:
            suite.measures[part](run, say)
        except (Failed, Unavailable, ServerError, OSError) as error:
            run.problems.append(f"{part}: {error}")
            say(f"bench.{suite.name}: {run.problems[-1]}")


def render(suite: Suite[_Options], run: Run[_Options], markdown: bool) -> str:
    """Conditions, tables and problems in one text."""
    facts, cores = run.machine, run.cores
    placing = suite.placing.format(server=f"core {cores.server}", generator=f"core {cores.generator}")
    conditions = (
        f"Machine: {facts['processor']}, {facts['cores']} core(s) allowed; {placing}; Linux {facts['kernel']}, "
        f"Python {facts['python']}.\n"
    )
    tables = [(render_markdown if markdown else render_text)(table) for table in run.tables]
    return "\n".join([conditions, *tables, *(f"! {problem}\n" for problem in run.problems)])


def sum_up(run: Run[_Options], wanted: Sequence[Figure]) -> None:
    """Add the table of all figures that were asked for, those included that came to nothing."""
    measured = {figure.name: figure for figure in run.figures}
    run.figures = [measured.get(figure.name, figure) for figure in wanted]
    run.tables.append(figure_table(run.figures))


def _end(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends us like Ctrl-C does: what runs is stopped on the way out."""
    raise KeyboardInterrupt


def carry_out(suite: Suite[_Options], argv: Sequence[str] | None = None) -> int:
    """Run the measurements; returns 0, 1 when a part failed, 2 for a wrong argument, 130 if interrupted."""
    arguments = suite.build_parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _end)
    cores = machine.choose_cores(os.sched_getaffinity(0))
    run = Run(suite.options_of(arguments), cores, machine.describe())
    code = 0
    try:
        measure(suite, run, lambda line: print(line, file=sys.stderr, flush=True))
    except KeyboardInterrupt:
        run.problems.append("interrupted: only what was complete is shown")
        code = 130
    suite.finish(run)
    print(render(suite, run, markdown=False), end="")
    if arguments.markdown:
        arguments.markdown.write_text(render(suite, run, markdown=True))
    if arguments.json:
        document = {
            "format": FORMAT,
            "options": attrs.asdict(run.options),
            "machine": run.machine,
            **run.samples,
            "figures": [attrs.asdict(figure) for figure in run.figures],
            "problems": run.problems,
        }
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    return code or (1 if run.problems else 0)
