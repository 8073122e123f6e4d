"""How fast a replica applies a stream, and how fast a primary makes one: ``python -m bench apply``.

``bench/README.md`` explains the method and how to read the table.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence

import attrs

from bench import machine
from bench.apply_primary import Fed, Feed
from bench.client import Connection
from bench.compare import calibrate
from bench.figures import Turn
from bench.measuring import Child, Failed, Meter, Say, free_port
from bench.replication_servers import JOIN_SECONDS, Node, node
from bench.servers import HOST, Running, serving
from bench.sink import Drained, Sink
from bench.speed import turn
from bench.suite import Measures, Run, Suite, at_least, carry_out, options_from, parser_of, seconds
from bench.tables import Figure, Table, figure_table
from bench.workloads import WORKLOADS

PRIMARY = "bench.apply_primary"
SINK = "bench.sink"
NODE = "kevynode"
DEPTH = 100
"""Requests that clients of the primary send at a time: as many as make it produce the most."""

FRAMES_TARGET = 1e6
"""SET frames a second from one stream."""

LEAD_TARGET = 1.5
"""How many times as many frames a replica is to apply with its CPU as a primary makes with its own."""

FEED_SECONDS = 300.0


@attrs.frozen
class Options:
    """What to measure: ``rounds`` of ``frames`` each, and of ``seconds`` with ``connections`` clients."""

    parts: tuple[str, ...]
    frames: int
    connections: int
    rounds: int
    seconds: float


@attrs.frozen
class Rate:
    """Frames a second on the clock and a second of CPU, medians over the rounds, and the most of others' load."""

    wall: float
    cpu: float
    foreign: float


def rate(rounds: Sequence[Turn]) -> Rate:
    """What the rounds say."""
    return Rate(
        statistics.median(each.throughput for each in rounds),
        statistics.median(1 / each.cost for each in rounds),
        max(each.foreign for each in rounds),
    )


def measure_applying(options: Options, cores: machine.Cores, say: Say) -> list[Turn]:
    """A fresh replica in each round, fed by a primary that has everything ready."""
    found = []
    for _ in range(options.rounds):
        with serving(NODE, cores.server) as replica:
            found.append(_feed(replica, options.frames, cores))
        say(f"apply: {found[-1].throughput:,.0f} frames/s")
    return found


def _feed(replica: Running, frames: int, cores: machine.Cores) -> Turn:
    port = free_port()
    meter = Meter(cores, [replica.pid], [])
    with Child(PRIMARY, Feed(port, replica.pid, frames)) as primary:
        with Connection(replica.host, replica.port) as connection:
            connection.call("REPLICAOF", HOST, str(port))
        fed = Fed(**primary.result(FEED_SECONDS + JOIN_SECONDS, wait=True))
        with Connection(replica.host, replica.port) as connection:
            if not connection.call("DBSIZE"):
                raise Failed("the replica has applied nothing")
    return Turn(fed.frames, fed.seconds, fed.cpu, meter.share())


def measure_producing(options: Options, cores: machine.Cores, say: Say) -> list[Turn]:
    """A primary under full load, while a replica that keeps nothing takes its stream."""
    with node(NODE, cores.server) as primary:
        with primary.connect() as connection:
            connection.run(WORKLOADS["SET"].fill())
        with Child(SINK, Sink(primary.server.host, primary.replication_port)) as sink:
            found = _rounds(primary, options, cores)
            drained = Drained(**sink.result())
    for each in found:
        say(f"produce: {each.throughput:,.0f} frames/s")
    if drained.stream < sum(each.requests for each in found) * len(WORKLOADS["SET"].arguments[2]):
        raise Failed(f"the replica got only {drained.stream} bytes of the primary's stream")
    return found


def _rounds(primary: Node, options: Options, cores: machine.Cores) -> list[Turn]:
    def elapsed(requests: int) -> float:
        return turn(primary.server, options.connections, DEPTH, requests, cores).elapsed

    size = calibrate(elapsed, options.connections * DEPTH, options.seconds)
    return [turn(primary.server, options.connections, DEPTH, size, cores) for _ in range(options.rounds)]


def table(applied: Rate | None, produced: Rate | None) -> Table:
    """Both ends of a stream."""
    rows = [
        [name, f"{each.wall:,.0f}", f"{1e6 / each.cpu:.2f}", f"{each.cpu:,.0f}", f"{each.foreign:.0%}"]
        for name, each in (("replica applies", applied), (f"primary makes (SET, depth {DEPTH})", produced))
        if each is not None
    ]
    columns = ("", "frames/s", "CPU µs/frame", "frames per second of CPU", "foreign")
    note = "the primary shares its machine with the clients and the replica: compare what both do with a second of CPU"
    return Table("A stream of SETs with 64 bytes", columns, rows, [note])


def figures(applied: Rate | None, produced: Rate | None) -> list[Figure]:
    """What is to be reached."""
    frames = Figure("replica applies SET frames from one stream", f"≥ {FRAMES_TARGET:,.0f} a second")
    lead = Figure("frames that a replica applies ÷ that a primary makes, per second of CPU", f"≥ {LEAD_TARGET:g}")
    if applied is not None:
        shown, reached = f"{applied.wall:,.0f} a second", applied.wall >= FRAMES_TARGET
        frames = attrs.evolve(frames, measured=shown, reached=reached, foreign=applied.foreign)
        if produced is not None:
            ratio = applied.cpu / produced.cpu
            foreign = max(applied.foreign, produced.foreign)
            lead = attrs.evolve(lead, measured=f"{ratio:.2f}", reached=ratio >= LEAD_TARGET, foreign=foreign)
    return [frames, lead]


def _apply(run: Run[Options], say: Say) -> None:
    applied = measure_applying(run.options, run.cores, say)
    run.samples["applied"] = [attrs.asdict(each) for each in applied]
    run.figures = figures(rate(applied), None)
    produced = measure_producing(run.options, run.cores, say)
    run.samples["produced"] = [attrs.asdict(each) for each in produced]
    run.figures = figures(rate(applied), rate(produced))
    run.tables.append(table(rate(applied), rate(produced)))


MEASURES: Measures[Options] = {"apply": _apply}


def build_parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    parser = parser_of("apply", "Measure how fast a replica applies a stream", tuple(MEASURES))
    add = parser.add_argument
    add("--frames", type=at_least(1000), default=1_000_000, help="SETs in one round's stream (1000000)")
    add("--connections", type=at_least(1), default=50, help="clients of the primary (50)")
    add("--rounds", type=at_least(1), default=5, help="rounds whose median counts (5)")
    add("--seconds", type=seconds, default=1.0, help="about how long a round of the primary lasts (1)")
    return parser


def finish(run: Run[Options]) -> None:
    """The figures, also those that came to nothing."""
    run.figures = run.figures or figures(None, None)
    run.tables.append(figure_table(run.figures))


SUITE = Suite(
    "apply",
    build_parser,
    options_from(Options),
    MEASURES,
    "the node on {server}, its other side and its clients on {generator}",
    finish,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the measurements; returns 0, 1 when something failed, 2 for a wrong argument, 130 if interrupted."""
    return carry_out(SUITE, argv)


if __name__ == "__main__":
    sys.exit(main())
