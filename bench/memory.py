"""What a million keys take, and what a snapshot of them costs: ``python -m bench memory``.

``bench/README.md`` explains the method and how to read the tables.
"""

import argparse
import sys
from collections.abc import Sequence

import attrs

from bench.measuring import Say
from bench.memory_figures import (
    encoding_figures,
    encoding_table,
    memory_figure,
    memory_table,
    pause_figure,
    pause_table,
)
from bench.memory_live import Options, measure_encoding, measure_memory, measure_ships
from bench.suite import Measures, Run, Suite, at_least, carry_out, names, options_from, parser_of, seconds
from bench.tables import Figure, figure_table

PARTS = ("memory", "snapshot")
SERVERS = ("kevynode", "kevynode-pure", "valkey", "redis")
USUAL = ("kevynode", "kevynode-pure", "valkey")


def _memory(run: Run[Options], say: Say) -> None:
    found = measure_memory(run.options, run.cores, say)
    run.tables.append(memory_table(found))
    run.figures.append(memory_figure(found, run.options.keys))
    run.samples["memory"] = [attrs.asdict(each) for each in found]


def _snapshot(run: Run[Options], say: Say) -> None:
    encoded = measure_encoding(run.options, run.cores, say)
    run.figures += encoding_figures(encoded, run.options.keys)
    run.samples["encoded"] = [attrs.asdict(each) for each in encoded]
    shipped, pauses = measure_ships(run.options, run.cores, say)
    run.tables += [encoding_table(encoded, shipped), pause_table(pauses)]
    run.figures.append(pause_figure(pauses))
    run.samples["shipped"] = [attrs.asdict(each) for each in shipped]
    run.samples["pauses"] = [attrs.asdict(each) for each in pauses]


MEASURES: Measures[Options] = {"memory": _memory, "snapshot": _snapshot}


def build_parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    parser = parser_of("memory", "Measure the memory of keys, and snapshots of them", PARTS)
    add = parser.add_argument
    add("--servers", type=names(SERVERS), default=USUAL, help=f"of {', '.join(SERVERS)}, memory (all but redis)")
    add("--keys", type=at_least(1), default=1_000_000, help="keys of 64 bytes (1000000)")
    add("--rounds", type=at_least(1), default=3, help="snapshots of each kind (3)")
    add("--connections", type=at_least(1), default=50, help="clients that write meanwhile (50)")
    add("--write-rate", type=at_least(1), default=10_000, help="SETs a second to random keys meanwhile (10000)")
    add("--quiet-seconds", type=seconds, default=8.0, help="how long the probe looks before a snapshot (8)")
    return parser


def wanted(options: Options) -> list[Figure]:
    """Every figure that these options ask for, none of which has been measured."""
    found = {
        "memory": [memory_figure([], options.keys)],
        "snapshot": [*encoding_figures([], options.keys), pause_figure([])],
    }
    return [figure for part in options.parts for figure in found[part]]


def finish(run: Run[Options]) -> None:
    """The figures, also those that came to nothing."""
    measured = {figure.name: figure for figure in run.figures}
    run.figures = [measured.get(figure.name, figure) for figure in wanted(run.options)]
    run.tables.append(figure_table(run.figures))


SUITE = Suite(
    "memory",
    build_parser,
    options_from(Options),
    MEASURES,
    "servers on {server}, clients, probe and replica on {generator}",
    finish,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the measurements; returns 0, 1 when a part failed, 2 for a wrong argument, 130 if interrupted."""
    return carry_out(SUITE, argv)


if __name__ == "__main__":
    sys.exit(main())
