"""What the append-only file costs, how it loads, what a rewrite does to clients: ``python -m bench.durability``.

``bench/README.md`` explains the method and how to read the tables.
"""

import argparse
import sys
from collections.abc import Sequence

import attrs

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
    measure_loads,
    measure_rewrites,
    measure_speed,
    measure_windows,
)
from bench.measuring import Say
from bench.suite import Measures, Run, Suite, at_least, carry_out, names, numbers, options_from, parser_of, seconds

PARTS = ("throughput", "load", "rewrite", "loss")
SERVERS = ("kevynode", "valkey")
BASELINE = "valkey"


def build_parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    parser = parser_of("durability", "Measure the append-only file of kevynode, beside valkey-server's", PARTS)
    add = parser.add_argument
    add("--servers", type=names(SERVERS), default=SERVERS, help=f"of {', '.join(SERVERS)} (both)")
    add("--policies", type=names(POLICIES), default=POLICIES, help=f"of {', '.join(POLICIES)}, throughput (all)")
    add("--depths", type=numbers(1), default=(1, 16), help="requests per round trip, throughput (1,16)")
    add("--connections", type=at_least(1), default=50, help="clients that write (50)")
    add("--rounds", type=at_least(1), default=5, help="rounds whose median counts, throughput (5)")
    add("--seconds", type=seconds, default=2.0, help="about how long one round lasts (2)")
    add("--keys", type=at_least(1), default=1_000_000, help="keys that are loaded and rewritten (1000000)")
    add("--load-rounds", type=at_least(1), default=3, help="starts of each server on each folder (3)")
    add("--rewrite-rounds", type=at_least(1), default=3, help="rewrites of each server (3)")
    add("--write-rate", type=at_least(1), default=10_000, help="SETs a second during a rewrite (10000)")
    add("--quiet-seconds", type=seconds, default=8.0, help="how long the probe looks before a rewrite (8)")
    add("--window-seconds", type=seconds, default=20.0, help="how long the way to the disk is watched (20)")
    return parser


def _throughput(run: Run[Options], say: Say) -> None:
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


def _load(run: Run[Options], say: Say) -> None:
    loads = measure_loads(run.options, run.cores, say)
    run.tables.append(load_table(loads, run.options.keys, BASELINE))
    run.samples["loads"] = [attrs.asdict(each) for each in loads]


def _rewrite(run: Run[Options], say: Say) -> None:
    rewrites, realtime = measure_rewrites(run.options, run.cores, say)
    run.tables += [rewrite_table(rewrites), stall_table(rewrites, realtime)]
    run.samples["rewrites"] = [attrs.asdict(each) for each in rewrites]


def _loss(run: Run[Options], say: Say) -> None:
    windows = measure_windows(run.options, run.cores, say)
    run.tables.append(window_table(windows))
    run.samples["windows"] = [attrs.asdict(each) for each in windows]


MEASURES: Measures[Options] = {"throughput": _throughput, "load": _load, "rewrite": _rewrite, "loss": _loss}
SUITE = Suite(
    "durability", build_parser, options_from(Options), MEASURES, "servers on {server}, load and probes on {generator}"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the measurements; returns 0, 1 when a part failed, 2 for a wrong argument, 130 if interrupted."""
    return carry_out(SUITE, argv)


if __name__ == "__main__":
    sys.exit(main())
