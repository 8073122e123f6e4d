"""Measurements of live replicas: what they cost their primary, and how far behind they are.

Each blocks for as long as it measures, keeps every wait bounded, and stops what it started.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TypeAlias

import attrs

from bench import machine
from bench.client import Connection
from bench.compare import calibrate
from bench.measuring import GENERATOR_SECONDS, PROBE, Child, Failed, Meter, Say, rotated, start_load
from bench.replication_figures import Course, Lag, Turn, Visibility, replica_lines
from bench.replication_load import Written
from bench.replication_probe import Seen, Watch
from bench.replication_servers import (
    Node,
    await_position,
    node,
    position,
    replica_of,
    replication_info,
)
from bench.speed import burst
from bench.workloads import KEYSPACE, WORKLOADS

LOOK_SECONDS = 0.1
DRAIN_SECONDS = 60.0

PACE_SHARE = 0.6
"""The pace at which all setups are compared, as a share of what the slowest of them reached."""


@attrs.frozen
class Options:
    """What to measure. Times in seconds, ``budget`` in bytes, rates in commands a second over all connections."""

    parts: tuple[str, ...]
    servers: tuple[str, ...]
    depths: tuple[int, ...]
    replicas: tuple[int, ...]
    connections: int
    rounds: int
    seconds: float
    lag_seconds: float
    keys: int
    sync_rounds: int
    write_rate: float
    quiet_seconds: float
    budget: int
    window_ms: int


def counts_of(kind: str, replicas: Sequence[int]) -> list[int]:
    """With how many replicas a kind of server is measured: valkey is there to compare with, so with none and one."""
    return [count for count in dict.fromkeys((0, *replicas)) if kind == "kevynode" or count <= 1]


# -- what copies cost -------------------------------------------------------------------------------------------------


@attrs.frozen
class Setup:
    """A primary and the replicas it has."""

    primary: Node
    replicas: tuple[Node, ...]

    @property
    def name(self) -> str:
        """For progress lines."""
        return f"{self.primary.kind}+{len(self.replicas)}"


def _setup(stack: ExitStack, kind: str, count: int, cores: machine.Cores) -> Setup:
    primary = stack.enter_context(node(kind, cores.server))
    with primary.connect() as connection:
        connection.run(WORKLOADS["SET"].fill())
    copies = tuple(stack.enter_context(replica_of(primary, cores.generator)) for _ in range(count))
    return Setup(primary, copies)


Turns: TypeAlias = dict[tuple[str, int, int], list[Turn]]
"""Rounds by kind of server, depth and number of replicas."""


def measure_cost(options: Options, cores: machine.Cores, say: Say) -> tuple[Turns, Turns]:
    """Rounds at full speed and rounds at one pace for all; every round measures each setup once, in turns."""
    full: Turns = {}
    paced: Turns = {}
    with ExitStack() as stack:
        setups = [
            _setup(stack, kind, count, cores) for kind in options.servers for count in counts_of(kind, options.replicas)
        ]
        for depth in options.depths:
            sizes = {setup.name: _calibrate(setup, depth, options, cores) for setup in setups}

            def at_full_speed(setup: Setup, depth: int = depth, sizes: dict[str, int] = sizes) -> Turn:
                return _turn(setup, partial(_burst, setup, depth, sizes[setup.name], options), cores)

            _rounds(setups, depth, full, at_full_speed, options, f"throughput depth {depth}", say)
            pace = PACE_SHARE * min(
                turn.requests / turn.elapsed for (_, each, _), turns in full.items() for turn in turns if each == depth
            )

            def at_one_pace(setup: Setup, depth: int = depth, pace: float = pace) -> Turn:
                return _turn(setup, partial(_paced, setup, depth, pace, options), cores)

            _rounds(setups, depth, paced, at_one_pace, options, f"throughput depth {depth} at {pace:,.0f}/s", say)
    return full, paced


def _rounds(
    setups: Sequence[Setup],
    depth: int,
    turns: Turns,
    run: Callable[[Setup], Turn],
    options: Options,
    heading: str,
    say: Say,
) -> None:
    for round_number in range(options.rounds):
        for setup in rotated(setups, round_number):
            turn = run(setup)
            turns.setdefault((setup.primary.kind, depth, len(setup.replicas)), []).append(turn)
            say(
                f"{heading} round {round_number + 1}: {setup.name} {turn.requests / turn.elapsed:,.0f}/s, "
                f"{turn.cpu / turn.requests * 1e6:.2f} µs, drained after {turn.drain:.2f} s"
            )


def _calibrate(setup: Setup, depth: int, options: Options, cores: machine.Cores) -> int:
    def elapsed(requests: int) -> float:
        return _turn(setup, partial(_burst, setup, depth, requests, options), cores).elapsed

    return calibrate(elapsed, options.connections * depth, options.seconds)


def _burst(setup: Setup, depth: int, requests: int, options: Options) -> tuple[int, float]:
    """So many SETs as fast as they can, and how long that took."""
    outcome = burst(setup.primary.server, options.connections, depth, requests)
    return outcome.requests, outcome.elapsed


def _paced(setup: Setup, depth: int, rate: float, options: Options) -> tuple[int, float]:
    """SETs at a rate for one round, how many there were and how long it took."""
    with start_load(
        setup.primary.server, options.connections, depth=depth, rate=rate, seconds=options.seconds, keyspace=KEYSPACE
    ) as load:
        written = Written(**load.result(options.seconds + GENERATOR_SECONDS, wait=True))
    return written.requests, written.requests / written.rate


def _turn(setup: Setup, work: Callable[[], tuple[int, float]], cores: machine.Cores) -> Turn:
    """One piece of work, with the clocks read around it and around what the replicas had still to do."""
    primary, copies = setup.primary, setup.replicas
    meter = Meter(cores, [primary.pid], [copy.pid for copy in copies])
    before, copies_before = machine.process_cpu(primary.pid), _cpu(copies)
    requests, elapsed = work()
    loaded = machine.process_cpu(primary.pid) - before
    drain = await_position(copies, position(primary.info()), DRAIN_SECONDS) if copies else 0.0
    if drain is None:
        raise Failed(f"the replicas of {setup.name} were still behind {DRAIN_SECONDS:.0f} s after the load")
    return Turn(
        requests=requests,
        elapsed=elapsed,
        loaded_cpu=loaded,
        cpu=machine.process_cpu(primary.pid) - before,
        replica_cpu=_cpu(copies) - copies_before,
        drain=drain,
        foreign=meter.share(),
    )


def _cpu(nodes: Iterable[Node]) -> float:
    return sum(machine.process_cpu(each.pid) for each in nodes)


# -- how far behind ---------------------------------------------------------------------------------------------------


def measure_courses(options: Options, cores: machine.Cores, say: Say) -> list[Course]:
    """How far one replica of each kind is behind while the load goes as fast as it can."""
    courses = []
    with ExitStack() as stack:
        setups = [_setup(stack, kind, 1, cores) for kind in options.servers]
        for depth in options.depths:
            for setup in setups:
                course = _course(setup, depth, options)
                say(f"behind depth {depth}: {setup.name} at 0 after {course.drain:.2f} s")
                courses.append(course)
    return courses


def _course(setup: Setup, depth: int, options: Options) -> Course:
    primary, (copy,) = setup.primary, setup.replicas
    samples: list[Lag] = []
    with (
        primary.connect() as asking,
        copy.connect() as asking_copy,
        start_load(
            primary.server, options.connections, depth=depth, rate=0.0, seconds=options.lag_seconds, keyspace=KEYSPACE
        ) as load,
    ):
        began = time.monotonic()
        while load.running() and time.monotonic() - began < options.lag_seconds:
            samples.append(_look(asking, asking_copy, began))
            time.sleep(LOOK_SECONDS)
        written = Written(**load.result())
        target = position(replication_info(asking))
    waited = await_position([copy], target, DRAIN_SECONDS)
    drain = time.monotonic() - written.ended
    return Course(primary.kind, depth, written.rate, tuple(samples), drain, waited is not None)


def _look(asking: Connection, asking_copy: Connection, began: float) -> Lag:
    """The replica is asked first, so what it is behind comes out too large rather than too small."""
    applied = position(replication_info(asking_copy))
    info = replication_info(asking)
    line = (replica_lines(info) or [{}])[0]
    behind = max(0, position(info) - applied)
    return time.monotonic() - began, behind, int(line.get("lag_bytes", "0")), int(line.get("lag_ms", "0"))


def measure_visibility(options: Options, cores: machine.Cores, say: Say) -> list[Visibility]:
    """How long a write takes to be readable on one replica of each kind, at half of what the primary can take."""
    found = []
    for kind in options.servers:
        with ExitStack() as stack:
            setup = _setup(stack, kind, 1, cores)
            primary, (copy,) = setup.primary, setup.replicas
            with start_load(
                primary.server, options.connections, depth=1, rate=0.0, seconds=options.seconds, keyspace=KEYSPACE
            ) as load:
                highest = Written(**load.result(options.seconds + GENERATOR_SECONDS, wait=True))
            if await_position([copy], position(primary.info()), DRAIN_SECONDS) is None:
                raise Failed(f"the replica of {kind} was still behind {DRAIN_SECONDS:.0f} s after the load")
            rate = highest.rate / 2
            each = _visible(setup, rate, options, cores)
            say(f"lag: {kind} at {rate:,.0f}/s, {len(each.times)} values")
            found.append(each)
    return found


def _visible(setup: Setup, rate: float, options: Options, cores: machine.Cores) -> Visibility:
    primary, (copy,) = setup.primary, setup.replicas
    watch = Watch(
        mode="visible",
        host=primary.server.host,
        port=primary.server.port,
        interval=0.005,
        seconds=options.lag_seconds,
        replica_host=copy.server.host,
        replica_port=copy.server.port,
    )
    meter = Meter(cores, [primary.pid], [copy.pid])
    with (
        start_load(
            primary.server,
            options.connections,
            depth=1,
            rate=rate,
            seconds=options.lag_seconds + GENERATOR_SECONDS,
            keyspace=KEYSPACE,
        ) as load,
        Child(PROBE, watch) as probe,
    ):
        seen = Seen(**probe.result(options.lag_seconds + GENERATOR_SECONDS, wait=True))
        written = Written(**load.result())
    return Visibility(
        kind=primary.kind,
        rate=rate,
        achieved=written.rate,
        times=tuple(value for _, value in seen.samples),
        missing=seen.missing,
        foreign=meter.share(),
    )
