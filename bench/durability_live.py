"""The durability measurements. Each blocks for as long as it measures, bounds every wait, and stops what it started."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs

from bench import machine
from bench.compare import calibrate
from bench.durability_figures import Loading, Rewritten, Setup, Window
from bench.durability_servers import (
    FOLDER,
    connect,
    data_folder,
    folder_size,
    keeping,
    rewrite,
    time_load,
)
from bench.figures import Turn
from bench.measuring import GENERATOR_SECONDS, PROBE, Child, Meter, Say, rotated, start_load
from bench.replication_load import Written
from bench.replication_probe import Seen, Watch
from bench.replication_syncs import BEAT, WARM_SHARE, fill, pairs
from bench.servers import Running
from bench.speed import turn
from bench.tables import between
from bench.workloads import KEYSPACE, STRING_PREFIX, WORKLOADS, Argv, number

REWRITE_SECONDS = 300.0
SETTLE_SECONDS = 2.0
SAFE_MS = 10_000
"""Milliseconds after which a write counts as never safe."""


@attrs.frozen
class Options:
    """What to measure. Times in seconds, rates in commands a second over all connections."""

    parts: tuple[str, ...]
    servers: tuple[str, ...]
    policies: tuple[str, ...]
    depths: tuple[int, ...]
    connections: int
    rounds: int
    seconds: float
    keys: int
    load_rounds: int
    rewrite_rounds: int
    write_rate: float
    quiet_seconds: float
    window_seconds: float


# -- what the file costs ----------------------------------------------------------------------------------------------

Turns = dict[int, dict[Setup, list[Turn]]]
"""Rounds by depth and setup."""


def setups_of(options: Options) -> list[Setup]:
    """Every server with every policy."""
    return [Setup(kind, policy) for kind in options.servers for policy in options.policies]


def measure_speed(options: Options, cores: machine.Cores, say: Say) -> Turns:
    """Rounds at full speed: all servers are up, each round measures each of them once, in turns."""
    measured: Turns = {}
    with ExitStack() as stack:
        servers = {setup: stack.enter_context(keeping(setup, cores.server)) for setup in setups_of(options)}
        for server in servers.values():
            with connect(server) as connection:
                # Rewrites have figures of their own: what counts here is the file that clients wait for.
                connection.call("CONFIG", "SET", "auto-aof-rewrite-percentage", "0")
                connection.run(WORKLOADS["SET"].fill())
        for depth in options.depths:
            sizes = {setup: _calibrate(server, depth, options, cores) for setup, server in servers.items()}
            turns: dict[Setup, list[Turn]] = {setup: [] for setup in servers}
            for round_number in range(options.rounds):
                for setup in rotated(list(servers), round_number):
                    taken = turn(servers[setup], options.connections, depth, sizes[setup], cores)
                    turns[setup].append(taken)
                    say(
                        f"throughput depth {depth} round {round_number + 1}: {setup.name} {taken.throughput:,.0f}/s, "
                        f"{taken.cost * 1e6:.2f} µs"
                    )
            measured[depth] = turns
    return measured


def _calibrate(server: Running, depth: int, options: Options, cores: machine.Cores) -> int:
    def elapsed(requests: int) -> float:
        return turn(server, options.connections, depth, requests, cores).elapsed

    return calibrate(elapsed, options.connections * depth, options.seconds)


# -- loading ----------------------------------------------------------------------------------------------------------


def small_keys(keys: int) -> Iterator[Argv]:
    """Commands that set so many keys to short values, one by one."""
    return (["SET", STRING_PREFIX + number(index), number(index)] for index in range(keys))


@contextmanager
def prepared(options: Options, cores: machine.Cores) -> Iterator[dict[str, Path]]:
    """Two folders that a node left: with the commands as clients wrote them, and rewritten."""
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        folders = {form: Path(scratch) / form / FOLDER for form in ("written", "rewritten")}
        with keeping(Setup("kevynode", "everysec"), cores.server) as server:
            with connect(server) as connection:
                # What was written stays as it was written.
                connection.call("CONFIG", "SET", "auto-aof-rewrite-percentage", "0")
                connection.run(small_keys(options.keys))
            shutil.copytree(data_folder(server.pid), folders["written"])
            rewrite(server, REWRITE_SECONDS)
            shutil.copytree(data_folder(server.pid), folders["rewritten"])
        yield folders


def measure_loads(options: Options, cores: machine.Cores, say: Say) -> list[Loading]:
    """Starts on both folders, in turns."""
    loads = []
    with prepared(options, cores) as folders:
        for form, folder in folders.items():
            for round_number in range(options.load_rounds):
                for kind in rotated(options.servers, round_number):
                    load = time_load(kind, form, folder, cores.server, options.keys)
                    say(f"load {form} round {round_number + 1}: {kind} {load.seconds:.2f} s")
                    loads.append(load)
    return loads


# -- rewriting --------------------------------------------------------------------------------------------------------


def measure_rewrites(options: Options, cores: machine.Cores, say: Say) -> tuple[list[Rewritten], bool]:
    """Rewrites in turns, and whether the probe had real-time priority."""
    rewrites: list[Rewritten] = []
    realtime = True
    with ExitStack() as stack:
        servers = []
        for kind in options.servers:
            server = stack.enter_context(keeping(Setup(kind, "everysec"), cores.server))
            with connect(server) as connection:
                connection.call("CONFIG", "SET", "auto-aof-rewrite-percentage", "0")
                connection.run(fill(options.keys))
            say(f"rewrite: {kind} filled")
            servers.append(server)
        for round_number in range(options.rewrite_rounds):
            for server in rotated(servers, round_number):
                rewritten, had_priority = _rewrite(server, options, cores)
                realtime = realtime and had_priority
                say(f"rewrite round {round_number + 1}: {server.name} {rewritten.duration:.2f} s")
                rewrites.append(rewritten)
    return rewrites, realtime


def _rewrite(server: Running, options: Options, cores: machine.Cores) -> tuple[Rewritten, bool]:
    """One rewrite after a time without one, probe and writers at work all the while."""
    limit = options.quiet_seconds + REWRITE_SECONDS
    watch = Watch(
        mode="replies", host=server.host, port=server.port, interval=BEAT, seconds=limit, keyspace=options.keys
    )
    time.sleep(SETTLE_SECONDS)
    meter = Meter(cores, [server.pid], [])
    quiet_from = time.monotonic() + options.quiet_seconds * WARM_SHARE
    with (
        start_load(
            server, options.connections, depth=1, rate=options.write_rate, seconds=limit, keyspace=options.keys
        ) as load,
        Child(PROBE, watch) as probe,
    ):
        time.sleep(options.quiet_seconds)
        began = time.monotonic()
        duration = rewrite(server, REWRITE_SECONDS)
        ended = time.monotonic()
        seen = Seen(**probe.result())
        written = Written(**load.result())
    samples = pairs(seen)
    rewritten = Rewritten(
        kind=server.name,
        duration=duration,
        size=folder_size(data_folder(server.pid)),
        quiet=tuple(between(samples, quiet_from, began)),
        busy=tuple(between(samples, began, ended)),
        quiet_rate=written.rate_between(quiet_from, began),
        rate=written.rate_between(began, ended),
        foreign=meter.share(),
    )
    return rewritten, seen.realtime


# -- what a loss of power would take ----------------------------------------------------------------------------------


def measure_windows(options: Options, cores: machine.Cores, say: Say) -> list[Window]:
    """How long a write is in danger under full load, with ``everysec``."""
    windows = []
    for kind in options.servers:
        setup = Setup(kind, "everysec")
        with keeping(setup, cores.server) as server:
            with connect(server) as connection:
                # Rewrites have figures of their own: what counts here is the file that clients wait for.
                connection.call("CONFIG", "SET", "auto-aof-rewrite-percentage", "0")
                connection.run(WORKLOADS["SET"].fill())
            window = _window(setup, server, options, cores)
        say(f"loss: {setup.name} {len(window.times)} writes at {window.throughput:,.0f}/s")
        windows.append(window)
    return windows


def _window(setup: Setup, server: Running, options: Options, cores: machine.Cores) -> Window:
    meter = Meter(cores, [server.pid], [])
    times: list[float] = []
    unsafe = 0
    limit = options.window_seconds + GENERATOR_SECONDS
    with (
        connect(server) as probe,
        start_load(
            server, options.connections, depth=max(options.depths), rate=0.0, seconds=limit, keyspace=KEYSPACE
        ) as load,
    ):
        end = time.monotonic() + options.window_seconds
        while time.monotonic() < end:
            probe.call("SET", "bench:safe", str(len(times)))
            acknowledged = time.monotonic()
            if probe.call("WAITAOF", "1", "0", str(SAFE_MS)) == [1, 0]:
                times.append(time.monotonic() - acknowledged)
            else:
                unsafe += 1
        written = Written(**load.result())
    return Window(setup, written.rate, tuple(times), unsafe, meter.share())
