"""What the append-only file costs, how it loads, what a rewrite does to clients: ``python -m bench.durability``.

``bench/README.md`` explains the method and how to read the tables.
"""

import argparse
import json
import math
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

import attrs

from bench import machine
from bench.client import ServerError
from bench.durability_figures import (
    POLICIES,
    load_table,
    rewrite_table,
    speed,
    speed_table,
    stall_table,
    window_table,
)
from bench.durability_live import (
    Options,
    Say,
    measure_loads,
    measure_rewrites,
    measure_speed,
    measure_windows,
)
from bench.replication_figures import Table, render_markdown, render_text
from bench.replication_servers import Failed
from bench.servers import Unavailable

PARTS = ("throughput", "load", "rewrite", "loss")
SERVERS = ("kevynode", "valkey")
BASELINE = "valkey"
FORMAT = 1
"""Version of the run file; raised when a field changes its meaning."""


@attrs.define
class Run:
    """What has come of it so far: tables, the samples behind them by part, and what went wrong."""

    options: Options
    cores: machine.Cores
    machine: dict[str, str | int]
    tables: list[Table] = attrs.field(factory=list)
    samples: dict[str, object] = attrs.field(factory=dict)
    problems: list[str] = attrs.field(factory=list)


def _names(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """A parser for a comma-separated list of known names, kept in the order of ``known``."""

    def parse(text: str) -> tuple[str, ...]:
        words = [word.strip().lower() for word in text.split(",")]
        wrong = [word for word in words if word not in known]
        if wrong:
            raise argparse.ArgumentTypeError(f"{wrong[0]!r} is none of {', '.join(known)}")
        return tuple(name for name in known if name in words)

    return parse


def _depths(text: str) -> tuple[int, ...]:
    values = [int(word) for word in text.split(",")]
    if min(values) < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return tuple(dict.fromkeys(values))


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not (value >= 0.05 and math.isfinite(value)):
        raise argparse.ArgumentTypeError("at least 0.05 seconds")
    return value


def build_parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.durability",
        description="Measure the append-only file of kevynode, beside valkey-server's; see bench/README.md.",
    )
    add = parser.add_argument
    add("--parts", type=_names(PARTS), default=PARTS, help=f"comma-separated, of {', '.join(PARTS)} (all)")
    add("--servers", type=_names(SERVERS), default=SERVERS, help=f"of {', '.join(SERVERS)} (both)")
    add("--policies", type=_names(POLICIES), default=POLICIES, help=f"of {', '.join(POLICIES)}, throughput (all)")
    add("--depths", type=_depths, default=(1, 16), help="requests per round trip, throughput (1,16)")
    add("--connections", type=_positive, default=50, help="clients that write (50)")
    add("--rounds", type=_positive, default=5, help="rounds whose median counts, throughput (5)")
    add("--seconds", type=_seconds, default=2.0, help="about how long one round lasts (2)")
    add("--keys", type=_positive, default=1_000_000, help="keys that are loaded and rewritten (1000000)")
    add("--load-rounds", type=_positive, default=3, help="starts of each server on each folder (3)")
    add("--rewrite-rounds", type=_positive, default=3, help="rewrites of each server (3)")
    add("--write-rate", type=_positive, default=10_000, help="SETs a second during a rewrite (10000)")
    add("--quiet-seconds", type=_seconds, default=8.0, help="how long the probe looks before a rewrite (8)")
    add("--window-seconds", type=_seconds, default=20.0, help="how long the way to the disk is watched (20)")
    add("--json", type=Path, metavar="FILE", help="write every sample to FILE")
    add("--markdown", type=Path, metavar="FILE", help="write the tables in Markdown to FILE")
    return parser


def options_of(arguments: argparse.Namespace) -> Options:
    """The options that a command line stands for."""
    return Options(
        parts=arguments.parts,
        servers=arguments.servers,
        policies=arguments.policies,
        depths=arguments.depths,
        connections=arguments.connections,
        rounds=arguments.rounds,
        seconds=arguments.seconds,
        keys=arguments.keys,
        load_rounds=arguments.load_rounds,
        rewrite_rounds=arguments.rewrite_rounds,
        write_rate=float(arguments.write_rate),
        quiet_seconds=arguments.quiet_seconds,
        window_seconds=arguments.window_seconds,
    )


def _throughput(run: Run, say: Say) -> None:
    options = run.options
    measured = measure_speed(options, run.cores, say)
    rows = [speed(setup, depth, taken, turns) for depth, turns in measured.items() for setup, taken in turns.items()]
    note = (
        f"{options.connections} connections, medians of {options.rounds} alternated rounds of about "
        f"{options.seconds:g} s; throughput ratio: this ÷ that of `against`; CPU ratio: CPU per SET of `against` ÷ this"
    )
    run.tables.append(speed_table(rows, note))
    run.samples["turns"] = [
        {"server": setup.kind, "policy": setup.policy, "depth": depth, "rounds": [attrs.asdict(each) for each in taken]}
        for depth, turns in measured.items()
        for setup, taken in turns.items()
    ]


def _load(run: Run, say: Say) -> None:
    loads = measure_loads(run.options, run.cores, say)
    run.tables.append(load_table(loads, run.options.keys, BASELINE))
    run.samples["loads"] = [attrs.asdict(each) for each in loads]


def _rewrite(run: Run, say: Say) -> None:
    rewrites, realtime = measure_rewrites(run.options, run.cores, say)
    run.tables += [rewrite_table(rewrites), stall_table(rewrites, realtime)]
    run.samples["rewrites"] = [attrs.asdict(each) for each in rewrites]


def _loss(run: Run, say: Say) -> None:
    windows = measure_windows(run.options, run.cores, say)
    run.tables.append(window_table(windows))
    run.samples["windows"] = [attrs.asdict(each) for each in windows]


_MEASURES = {"throughput": _throughput, "load": _load, "rewrite": _rewrite, "loss": _loss}


def measure(run: Run, say: Say) -> None:
    """Measure every part that is asked for, one after the other; a part that fails leaves a problem, not a table."""
    os.sched_setaffinity(0, {run.cores.generator})
    for part in run.options.parts:
        try:
            _MEASURES[part](run, say)
        except (Failed, Unavailable, ServerError, OSError) as error:
            run.problems.append(f"{part}: {error}")
            say(f"bench.durability: {run.problems[-1]}")


def render(run: Run, markdown: bool) -> str:
    """Conditions, tables and problems in one text."""
    facts, cores = run.machine, run.cores
    conditions = (
        f"Machine: {facts['processor']}, {facts['cores']} core(s) allowed; servers on core {cores.server}, load and "
        f"probes on core {cores.generator}; Linux {facts['kernel']}, Python {facts['python']}.\n"
    )
    tables = [(render_markdown if markdown else render_text)(table) for table in run.tables]
    return "\n".join([conditions, *tables, *(f"! {problem}\n" for problem in run.problems)])


def _end(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends us like Ctrl-C does: what runs is stopped on the way out."""
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """Run the measurements; returns 0, 1 when a part failed, 2 for a wrong argument, 130 if interrupted."""
    arguments = build_parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _end)
    run = Run(options_of(arguments), machine.choose_cores(os.sched_getaffinity(0)), machine.describe())
    code = 0
    try:
        measure(run, lambda line: print(line, file=sys.stderr, flush=True))
    except KeyboardInterrupt:
        run.problems.append("interrupted: only what was complete is shown")
        code = 130
    print(render(run, markdown=False), end="")
    if arguments.markdown:
        arguments.markdown.write_text(render(run, markdown=True))
    if arguments.json:
        document = {
            "format": FORMAT,
            "options": attrs.asdict(run.options),
            "machine": run.machine,
            **run.samples,
            "problems": run.problems,
        }
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    return code or (1 if run.problems else 0)


if __name__ == "__main__":
    sys.exit(main())
