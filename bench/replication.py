"""What copies cost, how far behind they are, and what a primary does meanwhile: ``python -m bench.replication``.

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
from bench.replication_figures import (
    MIB,
    Table,
    cost,
    cost_table,
    course_table,
    held_table,
    probe_table,
    render_markdown,
    render_text,
    sync_table,
    visibility_table,
)
from bench.replication_live import Options, Say, measure_cost, measure_courses, measure_visibility
from bench.replication_servers import Failed
from bench.replication_syncs import measure_stuck, measure_syncs
from bench.servers import Unavailable

PARTS = ("throughput", "lag", "sync", "slow")
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


def _numbers(lowest: int) -> Callable[[str], tuple[int, ...]]:
    def parse(text: str) -> tuple[int, ...]:
        values = [int(word) for word in text.split(",")]
        if min(values) < lowest:
            raise argparse.ArgumentTypeError(f"at least {lowest}")
        return tuple(dict.fromkeys(values))

    return parse


def _at_least(lowest: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = int(text)
        if value < lowest:
            raise argparse.ArgumentTypeError(f"at least {lowest}")
        return value

    return parse


def _seconds(text: str) -> float:
    value = float(text)
    if not (value >= 0.05 and math.isfinite(value)):
        raise argparse.ArgumentTypeError("at least 0.05 seconds")
    return value


def build_parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.replication",
        description="Measure replication of kevynode, beside valkey-server's; see bench/README.md.",
    )
    add = parser.add_argument
    add("--parts", type=_names(PARTS), default=PARTS, help=f"comma-separated, of {', '.join(PARTS)} (all)")
    add("--servers", type=_names(SERVERS), default=SERVERS, help=f"of {', '.join(SERVERS)} (both)")
    add("--depths", type=_numbers(1), default=(1, 16), help="requests per round trip, throughput (1,16)")
    add("--replicas", type=_numbers(0), default=(0, 1, 3), help="replicas attached, throughput (0,1,3)")
    add("--connections", type=_at_least(1), default=50, help="clients that write (50)")
    add("--rounds", type=_at_least(1), default=5, help="rounds whose median counts, throughput (5)")
    add("--seconds", type=_seconds, default=2.0, help="about how long one round lasts (2)")
    add("--lag-seconds", type=_seconds, default=15.0, help="how long lag is watched (15)")
    add("--keys", type=_at_least(1), default=1_000_000, help="keys of a full sync (1000000)")
    add("--sync-rounds", type=_at_least(1), default=3, help="full syncs of each server (3)")
    add("--write-rate", type=_at_least(1), default=10_000, help="SETs a second during a full sync (10000)")
    add("--quiet-seconds", type=_seconds, default=8.0, help="how long the probe looks before a full sync (8)")
    add("--budget", type=_at_least(1), default=32, help="MiB of backlog in front of a stuck replica (32)")
    add("--window-ms", type=_at_least(500), default=5000, help="how long a stuck replica's slot outlives it (5000)")
    add("--json", type=Path, metavar="FILE", help="write every sample to FILE")
    add("--markdown", type=Path, metavar="FILE", help="write the tables in Markdown to FILE")
    return parser


def options_of(arguments: argparse.Namespace) -> Options:
    """The options that a command line stands for."""
    return Options(
        parts=arguments.parts,
        servers=arguments.servers,
        depths=arguments.depths,
        replicas=arguments.replicas,
        connections=arguments.connections,
        rounds=arguments.rounds,
        seconds=arguments.seconds,
        lag_seconds=arguments.lag_seconds,
        keys=arguments.keys,
        sync_rounds=arguments.sync_rounds,
        write_rate=float(arguments.write_rate),
        quiet_seconds=arguments.quiet_seconds,
        budget=arguments.budget * MIB,
        window_ms=arguments.window_ms,
    )


def _throughput(run: Run, say: Say) -> None:
    full, paced = measure_cost(run.options, run.cores, say)
    rows = [
        cost(kind, depth, count, taken, full[kind, depth, 0], paced[kind, depth, count], paced[kind, depth, 0])
        for (kind, depth, count), taken in sorted(full.items())
    ]
    options = run.options
    note = (
        f"{options.connections} connections, medians of {options.rounds} alternated rounds of about "
        f"{options.seconds:g} s; the ratio is CPU per SET without replicas ÷ with them, sending what was left after "
        "the load included; at one pace: the same ratio with as many SETs a second for all"
    )
    run.tables.append(cost_table(rows, note))
    run.samples["turns"] = [
        {
            "server": kind,
            "depth": depth,
            "replicas": count,
            "rounds": [attrs.asdict(turn) for turn in taken],
            "paced": [attrs.asdict(turn) for turn in paced[kind, depth, count]],
        }
        for (kind, depth, count), taken in full.items()
    ]
    courses = measure_courses(options, run.cores, say)
    run.tables.append(course_table(courses))
    run.samples["courses"] = [attrs.asdict(course) for course in courses]


def _lag(run: Run, say: Say) -> None:
    found = measure_visibility(run.options, run.cores, say)
    run.tables.append(visibility_table(found))
    run.samples["visibility"] = [attrs.asdict(each) for each in found]


def _sync(run: Run, say: Say) -> None:
    syncs, realtime = measure_syncs(run.options, run.cores, say)
    run.tables += [sync_table(syncs, BASELINE), probe_table(syncs, realtime)]
    run.samples["syncs"] = [attrs.asdict(sync) for sync in syncs]


def _slow(run: Run, say: Say) -> None:
    held = measure_stuck(run.options, run.cores, say)
    run.tables.append(held_table(held))
    run.samples["stuck"] = attrs.asdict(held)


_MEASURES = {"throughput": _throughput, "lag": _lag, "sync": _sync, "slow": _slow}


def measure(run: Run, say: Say) -> None:
    """Measure every part that is asked for, one after the other; a part that fails leaves a problem, not a table."""
    os.sched_setaffinity(0, {run.cores.generator})
    for part in run.options.parts:
        try:
            _MEASURES[part](run, say)
        except (Failed, Unavailable, ServerError, OSError) as error:
            run.problems.append(f"{part}: {error}")
            say(f"bench.replication: {run.problems[-1]}")


def render(run: Run, markdown: bool) -> str:
    """Conditions, tables and problems in one text."""
    facts, cores = run.machine, run.cores
    conditions = (
        f"Machine: {facts['processor']}, {facts['cores']} core(s) allowed; primaries on core {cores.server}, replicas, "
        f"load and probes on core {cores.generator}; Linux {facts['kernel']}, Python {facts['python']}.\n"
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
