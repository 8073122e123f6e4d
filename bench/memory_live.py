"""The measurements of memory and snapshots. Each blocks for as long as it measures, and stops what it started."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import attrs

from bench import machine
from bench.client import Connection
from bench.measuring import PROBE, Child, Failed, Meter, Say, start_load
from bench.memory_figures import Filled, Pauses, Shipped
from bench.replication_figures import replica_lines
from bench.replication_load import Written
from bench.replication_probe import Seen, Watch
from bench.replication_servers import Node, memory, node
from bench.replication_syncs import BEAT, SHORT_WINDOW, WARM_SHARE, fill, pairs
from bench.servers import serving
from bench.sink import CAPABILITIES, Drained, Sink
from bench.snapshot_work import Encoded, Encoding
from bench.tables import between

SINK = "bench.sink"
ENCODER = "bench.snapshot_work"
NODE = "kevynode"

SHIP_SECONDS = 300.0
FORGET_SECONDS = 30.0
SETTLE_SECONDS = 2.0
LOOK_SECONDS = 0.05

FORMS: dict[str, tuple[str, ...]] = {"between kevynodes": CAPABILITIES, "to a kevy replica": ()}
"""How a snapshot is asked for: what the replica says that it can do."""


@attrs.frozen
class Options:
    """What to measure. Times in seconds, ``write_rate`` in SETs a second over all connections."""

    parts: tuple[str, ...]
    servers: tuple[str, ...]
    keys: int
    rounds: int
    connections: int
    write_rate: float
    quiet_seconds: float


def measure_memory(options: Options, cores: machine.Cores, say: Say) -> list[Filled]:
    """The resident memory of each server, empty and filled, one after the other."""
    found = []
    for kind in options.servers:
        with serving(kind, cores.server) as server, Connection(server.host, server.port) as connection:
            time.sleep(SETTLE_SECONDS)
            empty = memory(server.pid)
            connection.run(fill(options.keys))
            time.sleep(SETTLE_SECONDS)
            held = connection.call("DBSIZE")
            if held != options.keys:
                raise Failed(f"{kind} holds {held!r} keys")
            found.append(Filled(kind, options.keys, empty, memory(server.pid)))
            say(f"memory: {kind} {found[-1].filled / (1 << 20):,.0f} MiB")
    return found


def measure_encoding(options: Options, cores: machine.Cores, say: Say) -> list[Encoded]:
    """CPU for writing a snapshot without a network, with the compiled parts if they are built, and without them."""
    found: list[Encoded] = []
    for pure in (False, True):
        task = Encoding(options.keys, options.rounds, cores.server, pure)
        with Child(ENCODER, task) as child:
            encoded = Encoded(**child.result(SHIP_SECONDS, wait=True))
        if encoded.parts not in (each.parts for each in found):
            say(f"snapshot: {encoded.parts} {min(encoded.cpu):.2f} s of CPU")
            found.append(encoded)
    return found


@contextmanager
def _filled(options: Options, cores: machine.Cores) -> Iterator[Node]:
    with node(NODE, cores.server, {"reconnect_window_ms": SHORT_WINDOW}) as primary:
        with primary.connect() as connection:
            connection.run(fill(options.keys))
        time.sleep(SETTLE_SECONDS)
        yield primary


def measure_ships(options: Options, cores: machine.Cores, say: Say) -> tuple[list[Shipped], list[Pauses]]:
    """Snapshots over the network: what they cost an idle node, and how long its clients wait meanwhile."""
    shipped: list[Shipped] = []
    pauses = []
    with _filled(options, cores) as primary:
        for _ in range(options.rounds):
            for form, capabilities in FORMS.items():
                shipped.append(_ship(primary, form, capabilities, cores))
                say(f"snapshot {form}: {shipped[-1].cpu:.2f} s of CPU in {shipped[-1].seconds:.2f} s")
        for _ in range(options.rounds):
            pauses.append(_pauses(primary, options, cores))
            say(f"snapshot under load: longest reply {max(pauses[-1].busy, default=0.0) * 1e3:.1f} ms")
    return shipped, pauses


def _ship(primary: Node, form: str, capabilities: tuple[str, ...], cores: machine.Cores) -> Shipped:
    """One snapshot, with nobody else at work."""
    meter = Meter(cores, [primary.pid], [])
    before = machine.process_cpu(primary.pid)
    with Child(SINK, _sink(primary, capabilities)) as sink:
        drained = Drained(**sink.result(SHIP_SECONDS))
    cpu = machine.process_cpu(primary.pid) - before
    foreign = meter.share()
    _await_forgotten(primary)
    return Shipped(form, drained.complete - drained.began, cpu, drained.snapshot, foreign)


def _pauses(primary: Node, options: Options, cores: machine.Cores) -> Pauses:
    """One snapshot while clients write random keys, after a time without one, a probe watching all the while."""
    server = primary.server
    limit = options.quiet_seconds + SHIP_SECONDS
    watch = Watch(
        mode="replies", host=server.host, port=server.port, interval=BEAT, seconds=limit, keyspace=options.keys
    )
    meter = Meter(cores, [primary.pid], [])
    quiet_from = time.monotonic() + options.quiet_seconds * WARM_SHARE
    with (
        start_load(
            server, options.connections, depth=1, rate=options.write_rate, seconds=limit, keyspace=options.keys
        ) as load,
        Child(PROBE, watch) as probe,
    ):
        time.sleep(options.quiet_seconds)
        with Child(SINK, _sink(primary, CAPABILITIES)) as sink:
            drained = Drained(**sink.result(SHIP_SECONDS))
        seen = Seen(**probe.result())
        written = Written(**load.result())
    foreign = meter.share()
    _await_forgotten(primary)
    samples = pairs(seen)
    return Pauses(
        quiet=tuple(between(samples, quiet_from, drained.began)),
        busy=tuple(between(samples, drained.began, drained.complete)),
        seconds=drained.complete - drained.began,
        rate=written.rate_between(drained.began, drained.complete),
        realtime=seen.realtime,
        foreign=foreign,
    )


def _sink(primary: Node, capabilities: tuple[str, ...]) -> Sink:
    return Sink(primary.server.host, primary.replication_port, capabilities)


def _await_forgotten(primary: Node) -> None:
    """Wait until the primary knows no replica any more. Raises Failed."""
    deadline = time.monotonic() + FORGET_SECONDS
    while replica_lines(primary.info()):
        if time.monotonic() > deadline:
            raise Failed(f"{primary.kind} still knows a replica that ended {FORGET_SECONDS:.0f} s ago")
        time.sleep(LOOK_SECONDS)
