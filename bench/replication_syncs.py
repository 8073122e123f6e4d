"""Measurements of full syncs, and of a replica that stops reading.

Each blocks for as long as it measures, keeps every wait bounded, and stops what it started.
"""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import attrs

from bench import machine
from bench.measuring import GENERATOR_SECONDS, PROBE, Child, Failed, Meter, Say, rotated, start_load
from bench.replication_figures import Held, Sync, replica_lines
from bench.replication_live import LOOK_SECONDS, Options
from bench.replication_load import Written, batch_template
from bench.replication_probe import Seen, Watch
from bench.replication_servers import (
    Node,
    await_link,
    follow,
    forget_peak,
    memory,
    node,
    position,
    replication_info,
)
from bench.tables import MIB, between
from bench.workloads import KEYSPACE, STRING_PREFIX, VALUE, WORKLOADS, Argv, encode_request, number

SYNC_SECONDS = 300.0
FORGET_SECONDS = 30.0
STUCK_SECONDS = 60.0
SETTLE_SECONDS = 2.0
BEAT = 0.001
"""Seconds between two requests of the probe connection."""

WARM_SHARE = 0.2
"""The share of the time without a sync that is not counted: writers and probe start in it."""

KEYS_AT_ONCE = 200
SHORT_WINDOW = 1000
"""Milliseconds that a kevynode primary remembers a replica between two rounds of full syncs."""


# -- full syncs -------------------------------------------------------------------------------------------------------


def fill(keys: int) -> Iterator[Argv]:
    """Commands that set the first ``keys`` keys of the workload to 64 bytes each."""
    for start in range(0, keys, KEYS_AT_ONCE):
        words = ["MSET"]
        for index in range(start, min(start + KEYS_AT_ONCE, keys)):
            words += (STRING_PREFIX + number(index), VALUE)
        yield words


def measure_syncs(options: Options, cores: machine.Cores, say: Say) -> tuple[list[Sync], bool]:
    """Full syncs in turns, and whether the probe had real-time priority."""
    syncs: list[Sync] = []
    realtime = True
    with ExitStack() as stack:
        primaries = []
        for kind in options.servers:
            primary = stack.enter_context(node(kind, cores.server, {"reconnect_window_ms": SHORT_WINDOW}))
            with primary.connect() as connection:
                connection.run(fill(options.keys))
            say(f"sync: {kind} filled, {memory(primary.pid) / MIB:.0f} MiB")
            primaries.append(primary)
        for round_number in range(options.sync_rounds):
            for primary in rotated(primaries, round_number):
                sync, had_priority = _sync(primary, options, cores)
                realtime = realtime and had_priority
                say(f"sync round {round_number + 1}: {primary.kind} {sync.duration:.2f} s, {sync.rate:,.0f} writes/s")
                syncs.append(sync)
    return syncs, realtime


def _sync(primary: Node, options: Options, cores: machine.Cores) -> tuple[Sync, bool]:
    """One sync of a fresh replica, after a time without one, the probe and the writers at work all the while."""
    limit = options.quiet_seconds + SYNC_SECONDS
    watch = Watch(
        mode="replies",
        host=primary.server.host,
        port=primary.server.port,
        interval=BEAT,
        seconds=limit,
        keyspace=options.keys,
    )
    time.sleep(SETTLE_SECONDS / 2)
    resting = memory(primary.pid)
    with node(primary.kind, cores.generator) as copy:
        meter = Meter(cores, [primary.pid], [copy.pid])
        quiet_from = time.monotonic() + options.quiet_seconds * WARM_SHARE
        with (
            start_load(
                primary.server,
                options.connections,
                depth=1,
                rate=options.write_rate,
                seconds=limit,
                keyspace=options.keys,
            ) as load,
            Child(PROBE, watch) as probe,
        ):
            time.sleep(options.quiet_seconds)
            forget_peak(primary.pid)
            began = time.monotonic()
            follow(copy, primary)
            up = await_link(copy, SYNC_SECONDS)
            current = _await_marker(primary, copy)
            peak = memory(primary.pid, "VmHWM")
            seen = Seen(**probe.result())
            written = Written(**load.result())
        foreign = meter.share()
    _await_forgotten(primary)
    samples = pairs(seen)
    sync = Sync(
        kind=primary.kind,
        duration=up - began,
        current=current - began,
        quiet=tuple(between(samples, quiet_from, began)),
        busy=tuple(between(samples, began, current)),
        quiet_rate=written.rate_between(quiet_from, began),
        rate=written.rate_between(began, current),
        resting=resting,
        peak=peak,
        foreign=foreign,
    )
    return sync, seen.realtime


def pairs(seen: Seen) -> list[tuple[float, float]]:
    """The samples as pairs: JSON knows lists only."""
    return [(moment, value) for moment, value in seen.samples]


def _await_marker(primary: Node, copy: Node) -> float:
    """Write something on the primary, and return the moment at which it is readable on the replica."""
    text = f"{time.monotonic():.6f}"
    with primary.connect() as writing, copy.connect() as reading:
        writing.call("SET", "bench:marker", text)
        deadline = time.monotonic() + SYNC_SECONDS
        while time.monotonic() < deadline:
            if reading.call("GET", "bench:marker") == text.encode():
                return time.monotonic()
            time.sleep(0.005)
    raise Failed(f"a {copy.kind} replica was not current {SYNC_SECONDS:.0f} s after its link was up")


def _await_forgotten(primary: Node) -> None:
    """Wait until a primary has no replica any more, and holds nothing for one."""
    deadline = time.monotonic() + FORGET_SECONDS
    while replica_lines(primary.info()):
        if time.monotonic() > deadline:
            raise Failed(f"{primary.kind} still knows a replica that ended {FORGET_SECONDS:.0f} s ago")
        time.sleep(LOOK_SECONDS)


# -- a replica that reads nothing -------------------------------------------------------------------------------------


class StuckReplica:
    """Takes a snapshot as a replica does, then says once a second that it lives, and reads nothing more."""

    def __init__(self, primary: Node) -> None:
        """Join; raises OSError, and Failed if the primary sends no snapshot in time."""
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        self._socket.settimeout(FORGET_SECONDS)
        self._socket.connect((primary.server.host, primary.replication_port))
        words = ["REPLICATE", "FROM", "0", "0", "ID", "bench-stuck", "CAPA", "3", "txn", "ackreq", "lineage"]
        self._socket.sendall(encode_request(words))
        tail = b""
        while b"+SNAPSHOT_END" not in tail:
            data = self._socket.recv(65536)
            if not data:
                raise Failed("the primary turned the scripted replica away")
            tail = tail[-32:] + data

    def live(self) -> None:
        """Say something, unless the primary has hung up."""
        try:
            self._socket.sendall(b"REPLCONF ACK 0\r\n")
        except OSError:
            pass

    def close(self) -> None:
        """Go."""
        self._socket.close()


@attrs.define
class _Watched:
    """What is seen of the primary while its replica is stuck."""

    stuck: int = 0
    waiting: int = 0
    hung_up_at: float | None = None
    expired_at: float | None = None


def measure_stuck(options: Options, cores: machine.Cores, say: Say) -> Held:
    """Memory of a kevynode primary before, during and after a replica that stops reading."""
    settings = {"replication_buffer_size": options.budget, "reconnect_window_ms": options.window_ms}
    with node("kevynode", cores.server, settings) as primary:
        with primary.connect() as connection:
            connection.run(WORKLOADS["SET"].fill())
        with start_load(
            primary.server, options.connections, depth=16, rate=0.0, seconds=options.lag_seconds, keyspace=KEYSPACE
        ) as load:
            load.result(options.lag_seconds + GENERATOR_SECONDS, wait=True)
        time.sleep(SETTLE_SECONDS)
        before = memory(primary.pid)
        say(f"slow: {before / MIB:.0f} MiB before")
        start = position(primary.info())
        replica = StuckReplica(primary)
        try:
            with start_load(
                primary.server, options.connections, depth=16, rate=0.0, seconds=STUCK_SECONDS * 2, keyspace=KEYSPACE
            ) as load:
                watched = _watch_stuck(primary, replica, options, say)
                load.result()
        finally:
            replica.close()
        entries = position(primary.info()) - start
        time.sleep(SETTLE_SECONDS)
        after = memory(primary.pid)
        active = primary.info().get("repl_backlog_active") == "1"
    return Held(
        budget=options.budget,
        written=entries * (len(batch_template(1) % 0) + len("*2\r\n:1000000\r\n")),
        before=before,
        stuck=watched.stuck,
        waiting=watched.waiting,
        after=after,
        hung_up_at=watched.hung_up_at,
        expired_at=watched.expired_at,
        backlog_gone=not active,
    )


def _watch_stuck(primary: Node, replica: StuckReplica, options: Options, say: Say) -> _Watched:
    watched = _Watched()
    began = time.monotonic()
    spoke = 0.0
    with primary.connect() as asking:
        while (elapsed := time.monotonic() - began) < STUCK_SECONDS + options.window_ms / 1000:
            if elapsed - spoke >= 1.0:
                spoke = elapsed
                replica.live()
            held = memory(primary.pid)
            lines = replica_lines(replication_info(asking))
            if not lines:
                watched.expired_at = elapsed
                say(f"slow: slot expired after {elapsed:.1f} s")
                break
            if lines[0].get("state") != "waiting":
                watched.stuck = max(watched.stuck, held)
            else:
                watched.waiting = max(watched.waiting, held)
                if watched.hung_up_at is None:
                    watched.hung_up_at = elapsed
                    say(f"slow: hung up after {elapsed:.1f} s at {held / MIB:.0f} MiB")
            time.sleep(LOOK_SECONDS)
    return watched
