"""Reading a key inside the program against a round trip to valkey with redis-py: ``python -m bench local``.

``bench/README.md`` explains the method and how to read the table.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence

import attrs

from bench.local_work import Reads, Took
from bench.measuring import Child, Meter, Say
from bench.servers import serving
from bench.suite import Measures, Run, Suite, at_least, carry_out, options_from, parser_of, seconds
from bench.tables import Figure, Table, figure_table

WORKER = "bench.local_work"
SERVER = "valkey"
NAME = "node.get in-process against redis-py's round trip to valkey"
TARGET = 200.0
"""How many times as fast reading inside the program is to be."""

START_SECONDS = 60.0


@attrs.frozen
class Options:
    """What to measure: ``rounds`` of ``seconds`` each."""

    parts: tuple[str, ...]
    rounds: int
    seconds: float


@attrs.frozen
class Reading:
    """Seconds of one read, round by round, inside the program and outside."""

    inside: tuple[float, ...]
    outside: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """How many times as fast it is inside: the median of the ratios round by round."""
        return statistics.median(out / within for within, out in zip(self.inside, self.outside, strict=True))


def figure(reading: Reading | None = None, foreign: float | None = None) -> Figure:
    """What is to be reached."""
    wanted = f"≥ {TARGET:g} ×"
    if reading is None:
        return Figure(NAME, wanted)
    return Figure(NAME, wanted, f"{reading.ratio:,.0f} ×", reading.ratio >= TARGET, foreign)


def table(reading: Reading, version: str) -> Table:
    """Both in microseconds."""
    rows = [
        [name, f"{statistics.median(times) * 1e6:,.3f}", f"{min(times) * 1e6:,.3f}", f"{max(times) * 1e6:,.3f}"]
        for name, times in (("node.get in the program", reading.inside), (f"redis-py to {version}", reading.outside))
    ]
    return Table("One read of 64 bytes", ("read", "median µs", "least", "most"), rows)


def _took(reads: Reads) -> float:
    with Child(WORKER, reads) as child:
        return Took(**child.result(reads.seconds + START_SECONDS, wait=True)).each


def _local(run: Run[Options], say: Say) -> None:
    options, cores = run.options, run.cores
    inside: list[float] = []
    outside: list[float] = []
    with serving(SERVER, cores.server) as server:
        meter = Meter(cores, [server.pid], [])
        for _ in range(options.rounds):
            # The client shares no core with the server, as the load of the other measurements; a program has its own.
            outside.append(_took(Reads("outside", cores.generator, options.seconds, server.host, server.port)))
            inside.append(_took(Reads("inside", cores.generator, options.seconds)))
        foreign = meter.share()
        version = f"{server.name} {server.version}"
    reading = Reading(tuple(inside), tuple(outside))
    say(f"local: {reading.ratio:,.0f} × as fast")
    run.tables.append(table(reading, version))
    run.figures.append(figure(reading, foreign))
    run.samples["local"] = attrs.asdict(reading)


MEASURES: Measures[Options] = {"local": _local}


def build_parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    parser = parser_of("local", "Measure reads inside the program", tuple(MEASURES))
    parser.add_argument("--rounds", type=at_least(1), default=5, help="rounds whose median counts (5)")
    parser.add_argument("--seconds", type=seconds, default=1.0, help="about how long one round lasts (1)")
    return parser


def finish(run: Run[Options]) -> None:
    """The figure, also if it came to nothing."""
    run.figures = run.figures or [figure()]
    run.tables.append(figure_table(run.figures))


SUITE = Suite(
    "local", build_parser, options_from(Options), MEASURES, "valkey on {server}, readers on {generator}", finish
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the measurement; returns 0, 1 when it failed, 2 for a wrong argument, 130 if interrupted."""
    return carry_out(SUITE, argv)


if __name__ == "__main__":
    sys.exit(main())
