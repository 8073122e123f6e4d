"""Primaries and replicas for the replication measurements: started on a core, joined, asked how far they are."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import attrs

from bench import machine
from bench.client import Connection, ServerError, parse_info
from bench.servers import HOST, TARGETS, Running, Target, child_environment, started

JOIN_SECONDS = 60.0
"""How long a replica may take to join a primary with little data."""

POLL_SECONDS = 0.01
CHILD_SECONDS = 30.0
"""How long a child may take to end once its work is over or its input is closed."""


class Failed(Exception):
    """A measurement came to nothing; the text says how."""


@attrs.frozen
class Node:
    """A server with the port its replicas connect to."""

    server: Running
    replication_port: int

    @property
    def kind(self) -> str:
        """``kevynode`` or ``valkey``."""
        return self.server.name

    @property
    def pid(self) -> int:
        """The process."""
        return self.server.pid

    def connect(self) -> Connection:
        """A client connection; raises OSError."""
        return Connection(self.server.host, self.server.port)

    def info(self) -> dict[str, str]:
        """The fields of INFO replication."""
        with self.connect() as connection:
            return replication_info(connection)


def replication_info(connection: Connection) -> dict[str, str]:
    """The fields of INFO replication over an open connection."""
    reply = connection.call("INFO", "replication")
    if not isinstance(reply, bytes):
        raise ServerError("INFO has no text")
    return parse_info(reply)


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def configuration(replication_port: int, settings: Mapping[str, int]) -> str:
    """The text of a kevynode configuration file with these settings of its ``[replication]`` section."""
    values = {"listen_port": replication_port, **settings}
    return "[replication]\n" + "".join(f"{name} = {value}\n" for name, value in values.items())


def _kevynode(replication_port: int, settings: Mapping[str, int], directory: Path, port: int) -> list[str]:
    file = directory / "node.toml"
    file.write_text(configuration(replication_port, settings), encoding="utf-8")
    return [*TARGETS["kevynode"].command(directory, port), "--config", str(file)]


def _valkey(directory: Path, port: int) -> list[str]:
    return [*TARGETS["valkey"].command(directory, port), "--repl-diskless-sync-delay", "0"]


@contextmanager
def node(kind: str, core: int, settings: Mapping[str, int] | None = None) -> Iterator[Node]:
    """A server of that kind on a core, for as long as the block lasts; raises Unavailable.

    ``settings`` are keys of a kevynode's ``[replication]`` section; valkey takes none.
    """
    if kind == "kevynode":
        port = free_port()
        with started(Target(kind, partial(_kevynode, port, settings or {}), announces=True), core) as running:
            yield Node(running, port)
    else:
        with started(Target(kind, _valkey, announces=False), core) as running:
            yield Node(running, running.port)


def follow(replica: Node, primary: Node) -> None:
    """Make a node a replica of another; it joins in its own time."""
    with replica.connect() as connection:
        connection.call("REPLICAOF", HOST, str(primary.replication_port))


def await_link(replica: Node, seconds: float) -> float:
    """Wait until a replica's link is up and return the moment (monotonic); raises Failed if it is not in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if replica.info().get("master_link_status") == "up":
            return time.monotonic()
        time.sleep(POLL_SECONDS)
    raise Failed(f"a {replica.kind} replica did not join within {seconds:.0f} s")


@contextmanager
def replica_of(primary: Node, core: int) -> Iterator[Node]:
    """A server of the primary's kind on a core that follows it and has joined; raises Unavailable and Failed."""
    with node(primary.kind, core) as copy:
        follow(copy, primary)
        await_link(copy, JOIN_SECONDS)
        yield copy


def position(info: Mapping[str, str]) -> int:
    """How far a node is: what it has applied as a replica, what it has written as a primary. Entries; valkey: bytes."""
    return int(info.get("slave_repl_offset", info.get("master_repl_offset", "0")))


def await_position(replicas: Iterable[Node], target: int, seconds: float) -> float | None:
    """Seconds until every replica has applied everything before ``target``; None if one has not after ``seconds``."""
    began = time.monotonic()
    for replica in replicas:
        with replica.connect() as connection:
            while position(replication_info(connection)) < target:
                if time.monotonic() - began > seconds:
                    return None
                time.sleep(POLL_SECONDS)
    return time.monotonic() - began


def memory(pid: int, field: str = "VmRSS") -> int:
    """Resident memory of a process in bytes: now, or with ``VmHWM`` the most since :func:`forget_peak`."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == field:
            return int(rest.split()[0]) * 1024
    raise Failed(f"process {pid} tells no {field}")


def forget_peak(pid: int) -> None:
    """Have the kernel measure a process' largest resident memory from now on."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


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
