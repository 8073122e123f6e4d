"""What connections that do nothing cost: memory, and the throughput of the others: ``python -m bench idle``.

``bench/README.md`` explains the method and how to read the tables.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import attrs

from bench import machine
from bench.client import Connection, parse_info
from bench.compare import calibrate
from bench.figures import Turn
from bench.idle_clients import Crowd, Held
from bench.measuring import Child, Failed, Say, rotated
from bench.replication_servers import memory
from bench.servers import TARGETS, Running, Target, started
from bench.speed import turn
from bench.suite import Run, Suite, at_least, carry_out, names, numbers, options_from, parser_of, seconds
from bench.tables import Figure, Table, figure_table
from bench.workloads import WORKLOADS

SERVERS = ("kevynode", "kevynode-pure", "valkey")
NODE = "kevynode"
CLIENTS = "bench.idle_clients"

MEMORY_TARGET = 5.0
"""KiB of resident memory that an idle connection may take."""

LOSS_TARGET = 0.10
"""The share of its throughput that a node may lose to them."""

ROOM = 1000
"""Connections that a server is told to allow beyond the idle ones."""

CONNECT_SECONDS = 120.0
SETTLE_SECONDS = 2.0
LOOK_SECONDS = 0.05


@attrs.frozen
class Options:
    """What to measure. ``idle`` connections do nothing, ``connections`` write; times in seconds."""

    parts: tuple[str, ...]
    servers: tuple[str, ...]
    idle: int
    connections: int
    depths: tuple[int, ...]
    rounds: int
    seconds: float


@attrs.frozen
class Crowded:
    """Resident bytes of a server without and with so many idle connections."""

    server: str
    connections: int
    before: int
    after: int

    @property
    def each(self) -> float:
        """KiB for one connection."""
        return (self.after - self.before) / self.connections / 1024


@attrs.frozen
class Loss:
    """A server with idle connections beside the same without: medians of the ratios round by round.

    ``throughput`` is with ÷ without, ``cpu`` CPU per command without ÷ with: 1 is no loss. ``foreign`` is the largest
    share of a core that others used.
    """

    server: str
    depth: int
    throughput: float
    cpu: float
    foreign: float


def loss(server: str, depth: int, alone: Sequence[Turn], crowded: Sequence[Turn]) -> Loss:
    """What two series of rounds, taken in turns, say."""
    pairs = list(zip(alone, crowded, strict=True))
    return Loss(
        server,
        depth,
        statistics.median(with_.throughput / without.throughput for without, with_ in pairs),
        statistics.median(without.cost / with_.cost for without, with_ in pairs),
        max(each.foreign for pair in pairs for each in pair),
    )


def command(kind: str, clients: int, directory: Path, port: int) -> list[str]:
    """The command line of a server that lets that many clients in."""
    words = TARGETS[kind].command(directory, port)
    if kind == "valkey":
        return [*words, "--maxclients", str(clients)]
    file = directory / "node.toml"
    file.write_text(f"[server]\nmaxclients = {clients}\n", encoding="utf-8")
    return [*words, "--config", str(file)]


@contextmanager
def roomy(kind: str, idle: int, core: int) -> Iterator[Running]:
    """A server with data that lets ``idle`` connections and more in, for as long as the block lasts."""
    target = TARGETS[kind]
    make = partial(command, kind, idle + ROOM)
    with started(Target(kind, make, target.announces, target.environment), core) as server:
        with Connection(server.host, server.port) as connection:
            connection.run(WORKLOADS["SET"].fill())
        yield server


def connected(connection: Connection) -> int:
    """How many clients a server says it has. Raises Failed."""
    reply = connection.call("INFO", "clients")
    if not isinstance(reply, bytes):
        raise Failed("INFO has no text")
    return int(parse_info(reply)["connected_clients"])


def await_crowd(server: Running, crowd: Child, count: int) -> None:
    """Wait until so many idle connections are there. Raises Failed."""
    deadline = time.monotonic() + CONNECT_SECONDS
    with Connection(server.host, server.port) as connection:
        while connected(connection) <= count:
            if not crowd.running():
                crowd.result()
            if time.monotonic() > deadline:
                raise Failed(f"{count} connections to {server.name} were not there after {CONNECT_SECONDS:.0f} s")
            time.sleep(LOOK_SECONDS)


def measure_server(kind: str, options: Options, cores: machine.Cores, say: Say) -> tuple[Crowded, list[Loss]]:
    """Two servers of a kind, one with idle connections and one without, in turns."""
    with roomy(kind, options.idle, cores.server) as alone, roomy(kind, options.idle, cores.server) as crowded:
        sizes = {
            depth: calibrate(_elapsed(alone, depth, options, cores), options.connections * depth, options.seconds)
            for depth in options.depths
        }
        for depth, size in sizes.items():
            # The memory that it takes to work, as far as it is not given back, is none of the idle connections'.
            turn(crowded, options.connections, depth, size, cores)
        time.sleep(SETTLE_SECONDS)
        before = memory(crowded.pid)
        with Child(CLIENTS, Crowd(crowded.host, crowded.port, options.idle)) as crowd:
            await_crowd(crowded, crowd, options.idle)
            time.sleep(SETTLE_SECONDS)
            found = Crowded(kind, options.idle, before, memory(crowded.pid))
            say(f"idle: {kind} {found.each:.2f} KiB each")
            losses = [_loss(kind, depth, size, (alone, crowded), options, cores) for depth, size in sizes.items()]
            for each in losses:
                say(f"idle: {kind} depth {each.depth}: {each.throughput:.2f} of its throughput")
            held = Held(**crowd.result())
            if held.closed:
                raise Failed(f"{kind} has closed {held.closed} of {held.connections} idle connections")
    return found, losses


def _elapsed(server: Running, depth: int, options: Options, cores: machine.Cores) -> Callable[[int], float]:
    return lambda requests: turn(server, options.connections, depth, requests, cores).elapsed


def _loss(
    kind: str, depth: int, size: int, pair: tuple[Running, Running], options: Options, cores: machine.Cores
) -> Loss:
    turns: dict[Running, list[Turn]] = {server: [] for server in pair}
    for round_number in range(options.rounds):
        for server in rotated(pair, round_number):
            turns[server].append(turn(server, options.connections, depth, size, cores))
    alone, crowded = pair
    return loss(kind, depth, turns[alone], turns[crowded])


def tables(crowds: Sequence[Crowded], losses: Sequence[Loss], options: Options) -> list[Table]:
    """Memory and throughput."""
    memory_rows = [
        [each.server, f"{each.connections:,}", *(f"{size / 1024:,.0f}" for size in (each.before, each.after))]
        for each in crowds
    ]
    for row, each in zip(memory_rows, crowds, strict=True):
        row.append(f"{each.each:.2f}")
    loss_rows = [
        [each.server, str(each.depth), f"{each.throughput:.2f}", f"{each.cpu:.2f}", f"{each.foreign:.0%}"]
        for each in losses
    ]
    note = (
        f"{options.connections} connections SET, medians of {options.rounds} alternated rounds of about "
        f"{options.seconds:g} s; the kernel's part of a connection is in no process' memory"
    )
    return [
        Table(
            "Memory of idle connections", ("server", "connections", "KiB before", "KiB with", "KiB each"), memory_rows
        ),
        Table(
            "The others' work with them ÷ without",
            ("server", "depth", "throughput", "CPU per command", "foreign"),
            loss_rows,
            [note],
        ),
    ]


def figures(crowds: Sequence[Crowded], losses: Sequence[Loss], idle: int) -> list[Figure]:
    """What a node is to reach."""
    crowd = next((each for each in crowds if each.server == NODE), None)
    mine = [each for each in losses if each.server == NODE]
    name, other = f"{idle:,} idle connections: memory", f"{idle:,} idle connections: throughput that the others lose"
    first = Figure(name, f"≤ {MEMORY_TARGET:g} KiB each")
    second = Figure(other, f"≤ {LOSS_TARGET:.0%}")
    if crowd is not None:
        first = attrs.evolve(first, measured=f"{crowd.each:.2f} KiB", reached=crowd.each <= MEMORY_TARGET)
    if mine:
        worst = min(mine, key=lambda each: each.throughput)
        lost = 1 - worst.throughput
        shown = f"{max(0.0, lost):.1%} at depth {worst.depth}"
        second = attrs.evolve(second, measured=shown, reached=lost <= LOSS_TARGET, foreign=worst.foreign)
    return [first, second]


def build_parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    parser = parser_of("idle", "Measure what connections that do nothing cost", ("idle",))
    add = parser.add_argument
    add("--servers", type=names(SERVERS), default=SERVERS, help=f"of {', '.join(SERVERS)} (all)")
    add("--idle", type=at_least(1), default=10_000, help="connections that do nothing (10000)")
    add("--connections", type=at_least(1), default=50, help="clients that write (50)")
    add("--depths", type=numbers(1), default=(1, 16), help="requests per round trip (1,16)")
    add("--rounds", type=at_least(1), default=5, help="rounds whose median counts (5)")
    add("--seconds", type=seconds, default=1.0, help="about how long one round lasts (1)")
    return parser


def _idle(run: Run[Options], say: Say) -> None:
    crowds: list[Crowded] = []
    losses: list[Loss] = []
    for kind in run.options.servers:
        crowd, lost = measure_server(kind, run.options, run.cores, say)
        crowds.append(crowd)
        losses += lost
    run.tables += tables(crowds, losses, run.options)
    run.figures += figures(crowds, losses, run.options.idle)
    run.samples["memory"] = [attrs.asdict(each) for each in crowds]
    run.samples["losses"] = [attrs.asdict(each) for each in losses]


def finish(run: Run[Options]) -> None:
    """The figures, also those that came to nothing."""
    run.figures = run.figures or figures([], [], run.options.idle)
    run.tables.append(figure_table(run.figures))


SUITE = Suite(
    "idle",
    build_parser,
    options_from(Options),
    {"idle": _idle},
    "servers on {server}, clients on {generator}",
    finish,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the measurements; returns 0, 1 when something failed, 2 for a wrong argument, 130 if interrupted."""
    return carry_out(SUITE, argv)


if __name__ == "__main__":
    sys.exit(main())
