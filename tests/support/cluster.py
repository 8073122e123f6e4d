"""Several nodes in one process, over a network in memory that a test can cut, on Trio's clock.

::

    async with open_cluster() as cluster:
        primary = await cluster.start("primary", port=7000)
        replica = await cluster.start("replica", port=7001, upstream=primary)
        primary.set("k", "v")
        await cluster.settle(primary, replica)
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio
import trio.testing
from support.memory_transport import MemoryTransport
from support.session_harness import MemoryLog
from support.store_harness import content

from kevynode import Node, NodeConfig, open_node
from kevynode.transport import format_address

HOST = "127.0.0.1"
#: Seconds of Trio's clock that nodes get to agree.
PATIENCE = 60.0


class TrioClock:
    """The clock of Trio's run, which a test may replace; the wall's begins somewhere else and can be set."""

    def __init__(self) -> None:
        self.ahead = 1_700_000_000.0

    def monotonic(self) -> float:
        return trio.current_time()

    def wall(self) -> float:
        return trio.current_time() + self.ahead


@attrs.define(eq=False)
class Wire:
    """One connection of a network: ``near`` is the end of whoever connected."""

    address: str
    near: trio.StapledStream[Any, Any]
    far: trio.StapledStream[Any, Any]

    def cut(self) -> None:
        """Break it for both sides, as a reset does."""
        for side in (self.near, self.far):
            side.send_stream.close()
            side.receive_stream.close()


class Network(MemoryTransport):
    """A network whose connections a test can find, cut and hold up."""

    def __init__(self) -> None:
        super().__init__(self._make_pair)
        self.wires: list[Wire] = []
        self._made: tuple[Any, Any] | None = None
        # Addresses that nobody reaches for now.
        self.unreachable: set[str] = set()
        # How often somebody connected, by address.
        self.connected: dict[str, int] = {}

    def _make_pair(self) -> tuple[trio.abc.Stream, trio.abc.Stream]:
        self._made = trio.testing.memory_stream_pair()
        return self._made

    async def connect(self, host: str, port: int) -> trio.abc.Stream:
        address = format_address(host, port)
        await trio.lowlevel.checkpoint()
        if address in self.unreachable:
            raise ConnectionRefusedError(111, "Connection refused")
        stream = await super().connect(host, port)
        assert self._made is not None
        self.wires.append(Wire(address, *self._made))
        self.connected[address] = self.connected.get(address, 0) + 1
        return stream

    def cut(self, address: str) -> None:
        """Break every connection to an address."""
        for wire in self.wires:
            if wire.address == address:
                wire.cut()
        self.wires = [wire for wire in self.wires if wire.address != address]

    def hold(self, address: str) -> Callable[[], None]:
        """Let nothing more through towards those who have connected to an address; call the result to let go.

        The sender's sends block, as they do into a full socket whose peer does not read.
        """
        free = trio.Event()
        for wire in self.wires:
            if wire.address == address:
                wire.far.send_stream.send_all_hook = free.wait

        def release() -> None:
            free.set()
            for wire in self.wires:
                if wire.address == address:
                    wire.far.send_stream.send_all_hook = None

        return release


@attrs.define(eq=False)
class _Running:
    scope: trio.CancelScope
    ended: trio.Event


class Cluster:
    """Nodes by name. What one node does is decided by its seed, and by the order in which tasks run."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.network = Network()
        self.clock = TrioClock()
        self.logs: dict[str, MemoryLog] = {}
        self._nursery = nursery
        self._running: dict[Node, _Running] = {}

    async def start(self, name: str, *, port: int, upstream: Node | str = "", **replication: Any) -> Node:
        """Start a node whose replication port is ``port`` + 10000; further arguments go to ``[replication]``."""
        if upstream:
            address = upstream if isinstance(upstream, str) else upstream.replication_address
            replication |= {"role": "replica", "upstream": address}
        tables: dict[str, Any] = {
            "server": {"port": port, "bind": HOST},
            "cluster": {"node_id": name},
            "replication": replication,
        }
        return await self.start_with(name, tables)

    async def start_with(self, name: str, tables: dict[str, Any]) -> Node:
        """Start a node with a configuration of its own."""
        log = self.logs[name] = MemoryLog()
        running = _Running(trio.CancelScope(), trio.Event())
        node: Node = await self._nursery.start(self._run, NodeConfig.from_dict(tables), log, running)
        self._running[node] = running
        return node

    async def _run(
        self, config: NodeConfig, log: Any, running: _Running, *, task_status: trio.TaskStatus[Node]
    ) -> None:
        try:
            with running.scope:
                node = Node(
                    config,
                    log,
                    clock=self.clock,
                    transport=self.network,
                    random=random.Random(f"{config.cluster.node_id} {trio.current_time()}"),
                )
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
        """End a node in the middle of whatever it does."""
        self._running[node].scope.cancel()
        await self._running[node].ended.wait()

    async def until(self, condition: Callable[[], bool], what: str = "the condition") -> None:
        """Wait for something that the nodes will do by themselves."""
        with trio.move_on_after(PATIENCE) as patience:
            while not condition():
                await trio.sleep(0.005)
        assert not patience.cancelled_caught, f"{what} did not come true in {PATIENCE} s"

    async def settle(self, primary: Node, *replicas: Node) -> None:
        """Wait until the replicas have everything, and assert that they have the same."""

        def agreed() -> bool:
            ours = primary.replication
            return all(
                (node.replication.history, node.replication.position) == (ours.history, ours.position)
                and all(facts.state == "connected" for facts in node.server.view.upstreams())
                for node in replicas
            )

        await self.until(agreed, "agreement")
        expected = content(primary.store)
        for node in replicas:
            assert content(node.store) == expected


@asynccontextmanager
async def open_cluster() -> AsyncIterator[Cluster]:
    """A cluster without nodes; those that were started are ended with the block."""
    async with trio.open_nursery() as nursery:
        yield Cluster(nursery)
        nursery.cancel_scope.cancel()
