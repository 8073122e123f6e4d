"""What copies cost, how far behind they are, and what a primary does meanwhile: ``python -m bench.replication``.

``bench/README.md`` explains the method and how to read the tables.
"""

import argparse
import sys
from collections.abc import Sequence

import attrs

from bench.measuring import Say
from bench.replication_figures import (
    cost,
    cost_table,
    course_table,
    held_table,
    probe_table,
    sync_table,
    visibility_table,
)
from bench.replication_live import Options, measure_cost, measure_courses, measure_visibility
from bench.replication_syncs import measure_stuck, measure_syncs
from bench.suite import Measures, Run, Suite, at_least, carry_out, names, numbers, options_from, parser_of, seconds
from bench.tables import MIB

PARTS = ("throughput", "lag", "sync", "slow")
SERVERS = ("kevynode", "valkey")
BASELINE = "valkey"


def _mebibytes(text: str) -> int:
    """A size in bytes, which is given in MiB."""
    return at_least(1)(text) * MIB


def build_parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    parser = parser_of("replication", "Measure replication of kevynode, beside valkey-server's", PARTS)
    add = parser.add_argument
    add("--servers", type=names(SERVERS), default=SERVERS, help=f"of {', '.join(SERVERS)} (both)")
    add("--depths", type=numbers(1), default=(1, 16), help="requests per round trip, throughput (1,16)")
    add("--replicas", type=numbers(0), default=(0, 1, 3), help="replicas attached, throughput (0,1,3)")
    add("--connections", type=at_least(1), default=50, help="clients that write (50)")
    add("--rounds", type=at_least(1), default=5, help="rounds whose median counts, throughput (5)")
    add("--seconds", type=seconds, default=2.0, help="about how long one round lasts (2)")
    add("--lag-seconds", type=seconds, default=15.0, help="how long lag is watched (15)")
    add("--keys", type=at_least(1), default=1_000_000, help="keys of a full sync (1000000)")
    add("--sync-rounds", type=at_least(1), default=3, help="full syncs of each server (3)")
    add("--write-rate", type=at_least(1), default=10_000, help="SETs a second during a full sync (10000)")
    add("--quiet-seconds", type=seconds, default=8.0, help="how long the probe looks before a full sync (8)")
    add("--budget", type=_mebibytes, default=32 * MIB, help="MiB of backlog in front of a stuck replica (32)")
    add("--window-ms", type=at_least(500), default=5000, help="how long a stuck replica's slot outlives it (5000)")
    return parser


def _throughput(run: Run[Options], say: Say) -> None:
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


def _lag(run: Run[Options], say: Say) -> None:
    found = measure_visibility(run.options, run.cores, say)
    run.tables.append(visibility_table(found))
    run.samples["visibility"] = [attrs.asdict(each) for each in found]


def _sync(run: Run[Options], say: Say) -> None:
    syncs, realtime = measure_syncs(run.options, run.cores, say)
    run.tables += [sync_table(syncs, BASELINE), probe_table(syncs, realtime)]
    run.samples["syncs"] = [attrs.asdict(sync) for sync in syncs]


def _slow(run: Run[Options], say: Say) -> None:
    held = measure_stuck(run.options, run.cores, say)
    run.tables.append(held_table(held))
    run.samples["stuck"] = attrs.asdict(held)


MEASURES: Measures[Options] = {"throughput": _throughput, "lag": _lag, "sync": _sync, "slow": _slow}
SUITE = Suite(
    "replication",
    build_parser,
    options_from(Options),
    MEASURES,
    "primaries on {server}, replicas, load and probes on {generator}",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the measurements; returns 0, 1 when a part failed, 2 for a wrong argument, 130 if interrupted."""
    return carry_out(SUITE, argv)


if __name__ == "__main__":
    sys.exit(main())
