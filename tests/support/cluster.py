"""Several nodes in one process, over a network in memory that a test can cut, on Trio's clock.

::

    @in_cluster
    async def test_a_replica_follows(cluster: Cluster) -> None:
        primary = await cluster.start("primary", port=7000)
        replica = await cluster.start("replica", port=7001, upstream=primary)
        primary.set("k", "v")
        await cluster.settle(primary, replica)
"""

from __future__ import annotations

import inspect
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any

import attrs
import trio
import trio.testing
from support.memory_disk import MemoryDisk
from support.network import Network
from support.session_harness import MemoryLog, request
from support.steady_run import run_steadily
from support.store_harness import check_memory, content

from kevynode import Node, NodeConfig
from kevynode.store.apply import Applier
from kevynode.store.values import Hash
from kevynode.transport import format_address

if TYPE_CHECKING:
    from kevynode.replication_view import ReplicaFacts, SyncFacts, UpstreamFacts

HOST = "127.0.0.1"
#: Seconds of Trio's clock that nodes get to agree.
PATIENCE = 60.0


class TrioClock:
    """The clock of Trio's run, with a wall that begins at ``ahead`` and that a test may set by it.

    ``step`` is how many seconds pass by each look at it: so work takes time, too.
    """

    def __init__(self) -> None:
        self.ahead = 1_700_000_000.0
        self.step = 0.0
        self._worked = 0.0

    def monotonic(self) -> float:
        self._worked += self.step
        return trio.current_time() + self._worked

    def wall(self) -> float:
        return trio.current_time() + self.ahead


def in_cluster(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Make a test of an asynchronous function whose first argument is a :class:`Cluster`.

    It runs on a clock that jumps ahead when nobody has anything to do, and its tasks are always scheduled in the same
    order, so that it does the same each time.
    """

    @wraps(test)
    def run(**arguments: Any) -> None:
        async def main() -> None:
            async with open_cluster() as cluster:
                await test(cluster, **arguments)

        run_steadily(main)

    signature = inspect.signature(test)
    run.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])  # type: ignore[attr-defined]
    return run


@attrs.frozen
class ErrorReply:
    """An error that a client was answered with."""

    text: str


class ClusterClient:
    """A connection to a node's client port over the cluster's network."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._read = b""

    async def send(self, *words: bytes | str | int) -> None:
        """Send one command and read nothing."""
        await self._stream.send_all(_request(words))

    async def call(self, *words: bytes | str | int) -> Any:
        """Send one command; its reply as a Python value, errors as :class:`ErrorReply`."""
        await self.send(*words)
        return await self.reply()

    async def pipeline(self, *commands: str) -> list[Any]:
        """Send commands, given as lines, at once; all replies."""
        await self._stream.send_all(b"".join(_request(command.split()) for command in commands))
        return [await self.reply() for _ in commands]

    async def reply(self) -> Any:
        """The next reply, as RESP2 has it."""
        line = await self._line()
        kind, rest = line[:1], line[1:]
        match kind:
            case b"+":
                return rest.decode()
            case b"-":
                return ErrorReply(rest.decode())
            case b":":
                return int(rest)
            case b"$":
                return None if rest == b"-1" else (await self._exactly(int(rest) + 2))[:-2]
            case b"*":
                return None if rest == b"-1" else [await self.reply() for _ in range(int(rest))]
        raise AssertionError(f"no RESP2 reply: {line!r}")

    async def aclose(self) -> None:
        """Close the connection."""
        await self._stream.aclose()

    async def ended(self) -> bool:
        """Whether the node has closed the connection, after all that was sent on it has been read."""
        return not self._read and not await self._stream.receive_some()

    async def _line(self) -> bytes:
        while b"\r\n" not in self._read:
            await self._fill()
        line, _, self._read = self._read.partition(b"\r\n")
        return line

    async def _exactly(self, size: int) -> bytes:
        while len(self._read) < size:
            await self._fill()
        data, self._read = self._read[:size], self._read[size:]
        return data

    async def _fill(self) -> None:
        data = await self._stream.receive_some()
        assert data, "the node closed the connection"
        self._read += data


def _request(words: Iterable[bytes | str | int]) -> bytes:
    return request(*(str(word) if isinstance(word, int) else word for word in words))


@attrs.define(eq=False)
class _Running:
    name: str
    tables: dict[str, Any]
    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    ended: trio.Event = attrs.Factory(trio.Event)


class Cluster:
    """Nodes by name. What one node does is decided by its seed, and by the order in which tasks run."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.network = Network()
        self.clocks: dict[Node, TrioClock] = {}
        self.logs: dict[str, MemoryLog] = {}
        self.disks: dict[str, MemoryDisk] = {}
        # Events that may be logged as errors, because the test brings them about.
        self.expected_errors: set[str] = set()
        # Called with each node before it starts.
        self.on_node: Callable[[Node], object] | None = None
        self.nursery = nursery
        self._running: dict[Node, _Running] = {}

    # -- nodes ------------------------------------------------------------------------------------------------------

    async def start(
        self,
        name: str,
        *,
        port: int,
        upstream: Node | str = "",
        persistence: Mapping[str, Any] | None = None,
        **replication: Any,
    ) -> Node:
        """Start a node whose replication port is ``port`` + 10000; further arguments go to ``[replication]``.

        ``persistence`` goes to that section; without it nothing is kept. Each name has a disk of its own.
        """
        if upstream:
            address = upstream if isinstance(upstream, str) else upstream.replication_address
            replication |= {"role": "replica", "upstream": address}
        tables: dict[str, Any] = {
            "server": {"port": port, "bind": HOST, "data_dir": "/data"},
            "cluster": {"node_id": name},
            "replication": replication,
        }
        if persistence is not None:
            tables["persistence"] = dict(persistence)
        return await self.start_with(name, tables)

    async def start_with(
        self, name: str, tables: dict[str, Any], *, trust_config: bool = False, start_empty: bool = False
    ) -> Node:
        """Start a node with a configuration of its own; unless that says otherwise nothing is kept.

        ``trust_config`` and ``start_empty`` count for this start only.
        """
        tables = {"persistence": {"aof": False}, **tables}
        log = self.logs[name] = MemoryLog()
        running = _Running(name, tables)
        config = NodeConfig.from_dict(tables, trust_config=trust_config, start_empty=start_empty)
        node: Node = await self.nursery.start(self._run, config, log, running)
        self._running[node] = running
        return node

    async def _run(
        self, config: NodeConfig, log: Any, running: _Running, *, task_status: trio.TaskStatus[Node]
    ) -> None:
        clock = TrioClock()
        try:
            with running.scope:
                node = Node(
                    config,
                    log,
                    clock=clock,
                    transport=self.network,
                    random=random.Random(f"{config.cluster.node_id} {trio.current_time()}"),
                    disk=self.disk(running.name),
                )
                self.clocks[node] = clock
                if self.on_node is not None:
                    self.on_node(node)
                await node.open_files()
                await node.listen()
                async with trio.open_nursery() as nursery:
                    await nursery.start(node.run)
                    task_status.started(node)
        finally:
            running.ended.set()

    async def stop(self, node: Node) -> None:
        """Stop a node as SIGTERM does."""
        node.stop()
        await self._running[node].ended.wait()

    async def kill(self, node: Node) -> None:
        """End a node in the middle of whatever it does, as SIGKILL does: what it writes from now on reaches nobody."""
        running = self._running[node]
        self.disks[running.name] = self.disk(running.name).kill()
        running.scope.cancel()
        await self._running[node].ended.wait()

    async def restart(self, node: Node) -> Node:
        """Start a node that has ended again, on the disk that it left."""
        running = self._running[node]
        assert running.ended.is_set()
        return await self.start_with(running.name, running.tables)

    def disk(self, name: str) -> MemoryDisk:
        """The disk of the node with this name."""
        return self.disks.setdefault(name, MemoryDisk())

    async def lose_power(self, node: Node, seed: int) -> None:
        """As :meth:`kill`, and what was not durable is there, or not, by the seed."""
        running = self._running[node]
        self.disks[running.name] = self.disk(running.name).crash(seed)
        running.scope.cancel()
        await running.ended.wait()

    async def connect(self, node: Node) -> ClusterClient:
        """A client's connection to a node."""
        return ClusterClient(await self.network.connect(HOST, node.port))

    async def dial(self, node: Node) -> trio.abc.Stream:
        """A connection to a node's replication port, for somebody who plays a replica."""
        host, _, port = node.replication_address.rpartition(":")
        return await self.network.connect(host, int(port))

    # -- waiting ----------------------------------------------------------------------------------------------------

    async def until(self, condition: Callable[[], object], what: str = "the condition") -> None:
        """Wait for something that the nodes will do by themselves."""
        with trio.move_on_after(PATIENCE) as patience:
            while not condition():  # noqa: ASYNC110  anything may be waited for
                await trio.sleep(0.005)
        assert not patience.cancelled_caught, f"{what} did not come true in {PATIENCE} s"

    async def settle(self, primary: Node, *replicas: Node) -> None:
        """Wait until the replicas have everything, and assert that they have the same."""

        def agreed() -> bool:
            ours = primary.replication
            return all(
                (node.replication.history, node.replication.position) == (ours.history, ours.position)
                and node.server.view.upstreams()
                and all(facts.state == "connected" for facts in node.server.view.upstreams())
                for node in replicas
            )

        await self.until(agreed, "agreement")
        assert_equal(primary, *replicas)

    async def acknowledged(self, primary: Node, count: int = 1) -> None:
        """Wait until so many replicas have acknowledged everything."""
        view = primary.server.view
        await self.until(lambda: view.acknowledged(view.position, None) >= count, "acknowledgement")

    def logged(self, name: str, event: str) -> list[dict[str, Any]]:
        """The facts of each such event in the log of the node that runs, or ran last, under a name."""
        return [facts for _, found, facts in self.logs[name].records if found == event]


@asynccontextmanager
async def open_cluster() -> AsyncIterator[Cluster]:
    """A cluster without nodes; those that were started are ended with the block.

    Nothing that the nodes did may have been an error of theirs.
    """
    async with trio.open_nursery() as nursery:
        cluster = Cluster(nursery)
        yield cluster
        nursery.cancel_scope.cancel()
    for name, log in cluster.logs.items():
        failures = [
            record for record in log.records if record[0] == "error" and record[1] not in cluster.expected_errors
        ]
        assert not failures, (name, failures)


def assert_equal(primary: Node, *replicas: Node) -> None:
    """Assert that nodes hold the same: values of all types with what they count of memory, and every deadline."""
    expected = content(primary.store)
    check_memory(primary.store)
    for node in replicas:
        assert content(node.store) == expected
        check_memory(node.store)
        # It may still name keys that have none left.
        assert node.store.field_deadline_keys.keys() >= _with_field_deadlines(node)


def _with_field_deadlines(node: Node) -> set[bytes]:
    return {key for key, value in node.store.keyspace.items() if isinstance(value, Hash) and value.deadlines}


def syncs(node: Node) -> tuple[int, int, int]:
    """How often a node as primary has sent everything, gone on, and not gone on though it was asked to."""
    view = node.server.view
    return view.full_syncs, view.partial_syncs, view.partial_refused


def seen(primary: Node, name: str) -> ReplicaFacts:
    """What a primary knows of the newest replica that runs under a name."""
    (*_, facts) = [facts for facts in primary.server.view.replicas() if f"#{name}." in facts.replica_id]
    return facts


def upstream(replica: Node) -> UpstreamFacts:
    """What a replica knows of its only upstream."""
    (facts,) = replica.server.view.upstreams()
    return facts


def last_sync(replica: Node) -> SyncFacts:
    """The last synchronisation of a replica, as it sees it."""
    facts = upstream(replica).last_sync
    assert facts is not None
    return facts


def replication_address(host: str, port: int) -> str:
    """An address as the network names it."""
    return format_address(host, port)


def fill(node: Node, mark: str = "") -> None:
    """Put something of every type into a node, with deadlines of keys and of fields; ``mark`` makes it differ."""
    run = node.execute
    run("SET", "string", f"plain{mark}")
    run("SET", b"binary\r\n\x00", b"*2\r\n:0\r\n")
    run("SET", "empty", "")
    run("SET", "mortal", "x", "PX", 3_600_000)
    run("HSET", "hash", "a", f"1{mark}", "b", "2", "c", "3")
    run("HPEXPIRE", "hash", 7_200_000, "FIELDS", 2, "a", "b")
    run("EXPIRE", "hash", 7_300)
    run("RPUSH", "list", "one", "two", f"three{mark}")
    run("SADD", "set", "x", "y", f"z{mark}")
    run("ZADD", "zset", 1.5, "low", "-inf", "lowest", 1e300, f"high{mark}")
    run("PEXPIRE", "zset", 5_000_000)
    # Clients cannot make streams here, but upstreams can.
    applier = Applier(node.store)
    node.server.tick()
    run("DEL", "stream")
    for words in (
        [b"XADD", b"stream", b"5-1", b"field", f"value{mark}".encode()],
        [b"XADD", b"stream", b"6-0", b"f", b"v"],
        [b"XGROUP", b"CREATE", b"stream", b"group", b"5-1"],
    ):
        applier.apply(words)
        node.server.commit()


def follow(node: Node, other: Node) -> None:
    """Have a node follow another one."""
    host, _, port = other.replication_address.rpartition(":")
    node.execute("REPLICAOF", host, port)


def fill_much(node: Node, size: int = 200_000) -> None:
    """Put about so many bytes into a node, in keys that a snapshot needs several chunks for."""
    for number in range(size // 1000):
        node.set(f"much:{number}", f"{number}".ljust(1000, "."))
