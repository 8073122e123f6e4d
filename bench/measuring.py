"""What the measurements of every subject use: measuring processes, load on our cores that is not ours, turns."""

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, TypeVar

import attrs

from bench import machine
from bench.replication_load import Load
from bench.servers import HOST, Running, child_environment
from bench.workloads import STRING_PREFIX

LOAD = "bench.replication_load"
PROBE = "bench.replication_probe"
GENERATOR = "bench.generator"

GENERATOR_SECONDS = 120.0
CHILD_SECONDS = 30.0
"""How long a child may take to end once its work is over or its input is closed."""

SYNCS = 20

Say = Callable[[str], None]
_T = TypeVar("_T")


class Failed(Exception):
    """A measurement came to nothing; the text says how."""


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def rotated(items: Sequence[_T], round_number: int) -> list[_T]:
    """The order of a round: each goes first in its turn."""
    start = round_number % len(items) if items else 0
    return [*items[start:], *items[:start]]


class Meter:
    """Load on our cores that is not ours, between its making and :meth:`share`."""

    def __init__(self, cores: machine.Cores, on_server: Iterable[int], on_generator: Iterable[int]) -> None:
        """``on_server`` and ``on_generator`` are the processes that run on each core besides this one's children."""
        self._cores = cores
        self._pids = {cores.server: list(on_server)}
        self._pids.setdefault(cores.generator, []).extend(on_generator)
        self._began = self._read()

    def _read(self) -> tuple[float, dict[int, int], dict[int, float]]:
        used = {core: sum(map(machine.process_cpu, pids)) for core, pids in self._pids.items()}
        times = os.times()
        used[self._cores.generator] += times.user + times.system + times.children_user + times.children_system
        return time.perf_counter(), machine.read_core_times(), used

    def share(self) -> float:
        """The share of the busier core that others used."""
        began, before, used_before = self._began
        ended, after, used_after = self._read()
        ours = {core: used_after[core] - used_before[core] for core in used_after}
        return machine.foreign_share(before, after, ended - began, ours)


class Child:
    """A measuring process, ``python -m MODULE``, that works until it is done or its standard input is closed.

    It gets a task as one line of JSON and prints its result as one. A context manager: it never outlives the block.
    """

    def __init__(self, module: str, task: attrs.AttrsInstance) -> None:
        """Start it. Should this process be killed, the child's input ends and so does the child."""
        self._module = module
        # Files, so that a long result never has the child wait for somebody to read it.
        self._out = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._error = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=self._out,
            stderr=self._error,
            env=child_environment(),
            start_new_session=True,
        )
        assert self._process.stdin is not None
        self._input = self._process.stdin
        self._input.write(json.dumps(attrs.asdict(task)).encode() + b"\n")
        self._input.flush()

    def __enter__(self) -> "Child":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for file in (self._input, self._out, self._error):
            file.close()

    def running(self) -> bool:
        """Whether it still works."""
        return self._process.poll() is None

    def result(self, seconds: float = CHILD_SECONDS, *, wait: bool = False) -> Any:
        """Close its input and return its result; with ``wait`` only when it has ended by itself. Raises Failed."""
        if not wait:
            self._input.close()
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self._module} did not end within {seconds:.0f} s") from None
        self._out.seek(0)
        self._error.seek(0)
        if code:
            said = self._error.read().decode(errors="replace").strip().splitlines()[-1:]
            raise Failed(" ".join(said) or f"{self._module} ended with {code}")
        return json.loads(self._out.read())


def start_load(
    server: Running,
    connections: int,
    *,
    depth: int,
    rate: float,
    seconds: float,
    keyspace: int,
    prefix: str = STRING_PREFIX,
) -> Child:
    """Clients that write random keys at ``rate`` (0: as fast as they can) until their input ends, or ``seconds``."""
    load = Load(
        host=server.host,
        port=server.port,
        connections=connections,
        depth=depth,
        rate=rate,
        seconds=seconds,
        keyspace=keyspace,
        prefix=prefix,
    )
    return Child(LOAD, load)


def sync_seconds() -> float:
    """What it takes to make a few bytes durable here: the median of some appends to a temporary file."""
    times = []
    with tempfile.TemporaryFile() as file:
        for _ in range(SYNCS):
            began = time.perf_counter()
            file.write(b"x" * 64)
            file.flush()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - began)
    return statistics.median(times)
