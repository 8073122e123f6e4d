"""Primaries and replicas for the replication measurements: started on a core, joined, asked how far they are."""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import attrs

from bench.client import Connection, ServerError, parse_info
from bench.measuring import Failed, free_port
from bench.servers import HOST, TARGETS, Running, Target, started

JOIN_SECONDS = 60.0
"""How long a replica may take to join a primary with little data."""

POLL_SECONDS = 0.01


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
