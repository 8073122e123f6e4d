"""Whole nodes with declared peers and scopes, over a network in memory: whose keys they write, copy and get back.

::

    @in_cluster
    async def test_a_copy_is_live(cluster: Cluster) -> None:
        world = ScopedCluster(cluster)
        await world.start("anna", "bert", "cleo")
        await world.settle()
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import trio
from support.cluster import HOST, Cluster, ClusterClient, ErrorReply
from support.store_harness import Content, check_memory, content

from kevynode import Node
from kevynode.member import Member
from kevynode.scope.ownership import DeclaredScope

#: Whose scope is whose, and where the nodes are, unless a test says otherwise.
SCOPES = {b"a:": "anna", b"b:": "bert", b"c:": "cleo"}
PORTS = {"anna": 7000, "bert": 7001, "cleo": 7002}
#: What goes to [persistence] of a node that keeps all it has acknowledged.
ALWAYS = {"aof": True, "appendfsync": "always"}


def address(name: str, ports: Mapping[str, int] = PORTS) -> str:
    """Where clients find a node."""
    return f"{HOST}:{ports[name]}"


def misdirected(name: str) -> ErrorReply:
    """What a write is answered at any other node than the one that takes it."""
    return ErrorReply(f"MISDIRECTED writer is {address(name)}")


def closed(prefix: str, reason: str) -> ErrorReply:
    """What a write is answered by the owner of a scope that is not open."""
    return ErrorReply(f"LOADING scope {prefix} is waiting for {reason}")


class ScopedCluster:
    """Nodes by name, each declaring the same ``scopes`` and peers unless it is started with others."""

    def __init__(
        self,
        cluster: Cluster,
        scopes: Mapping[bytes, str] = SCOPES,
        ports: Mapping[str, int] = PORTS,
        persistence: Mapping[str, Any] = ALWAYS,
    ) -> None:
        self.cluster = cluster
        self.scopes = dict(scopes)
        self.ports = dict(ports)
        self.persistence = dict(persistence)
        self.nodes: dict[str, Node] = {}

    # -- starting and ending ------------------------------------------------------------------------------------------

    def tables(self, name: str, **cluster: Any) -> dict[str, Any]:
        """The configuration of a node; ``cluster`` replaces what is in that section."""
        section: dict[str, Any] = {
            "node_id": name,
            "peer": [{"id": other, "address": f"{HOST}:{port}"} for other, port in self.ports.items()],
            "scope": [{"prefix": prefix.decode(), "writer": writer} for prefix, writer in self.scopes.items()],
        }
        return {
            "server": {"port": self.ports[name], "bind": HOST, "data_dir": "/data"},
            "cluster": section | cluster,
            "persistence": dict(self.persistence),
        }

    async def start(self, *names: str, flags: Mapping[str, bool] | None = None, **cluster: Any) -> None:
        """Start nodes, or those that have ended, on the disk that they left."""
        for name in names:
            tables = self.tables(name, **cluster)
            self.nodes[name] = await self.cluster.start_with(name, tables, **(flags or {}))

    async def stop(self, name: str) -> None:
        """Stop a node as SIGTERM does."""
        await self.cluster.stop(self.nodes.pop(name))

    async def kill(self, name: str) -> None:
        """End a node as SIGKILL does."""
        await self.cluster.kill(self.nodes.pop(name))

    async def lose_power(self, name: str, seed: int) -> None:
        """End a node as a loss of power does."""
        await self.cluster.lose_power(self.nodes.pop(name), seed)

    async def lose_disk(self, name: str) -> None:
        """End a node, whose disk is new and empty then."""
        await self.kill(name)
        del self.cluster.disks[name]

    # -- looking ------------------------------------------------------------------------------------------------------

    def member(self, name: str) -> Member:
        """What a node does about scopes."""
        member = self.nodes[name].member
        assert member is not None
        return member

    def row(self, name: str, prefix: bytes) -> DeclaredScope:
        """How a scope stands at a node."""
        (row,) = (row for row in self.member(name).ownership.declared() if row.prefix == prefix)
        return row

    def states(self, name: str) -> dict[bytes, str]:
        """The state of every scope at a node."""
        return {row.prefix: row.state for row in self.member(name).ownership.declared()}

    def owners(self, name: str) -> dict[bytes, str]:
        """Who owns what, as a node knows it."""
        return {row.prefix: row.owner for row in self.member(name).ownership.declared()}

    def is_open(self, name: str, prefix: bytes) -> bool:
        """Whether a node takes writes of a prefix."""
        return self.row(name, prefix).state == "open"

    def under(self, name: str, prefix: bytes) -> Content:
        """What a node holds under a prefix."""
        return {key: value for key, value in content(self.nodes[name].store).items() if key.startswith(prefix)}

    def wants(self, name: str, prefix: bytes) -> bool:
        """Whether a node copies a prefix, or would if another one owned it."""
        wanted = self.nodes[name].config.cluster.replicate
        return wanted == "all" or prefix in wanted

    async def write(self, name: str, *words: str | bytes | int) -> Any:
        """One command on a connection of its own."""
        client = await self.cluster.connect(self.nodes[name])
        try:
            return await client.call(*words)
        finally:
            await client.aclose()

    async def connect(self, name: str) -> ClusterClient:
        """A client's connection."""
        return await self.cluster.connect(self.nodes[name])

    # -- waiting ------------------------------------------------------------------------------------------------------

    async def opened(self, *prefixes: bytes) -> None:
        """Wait until running owners have opened these prefixes, or all that they own."""
        wanted = prefixes or tuple(self.scopes)

        def are_open() -> bool:
            rows = [self.row(name, prefix) for name in self.nodes for prefix in wanted]
            return all(
                row.state == "open"
                for name, row in zip((name for name in self.nodes for _ in wanted), rows, strict=True)
                if row.owner == name
            )

        await self.cluster.until(are_open, f"opening of {wanted!r}")

    def agree(self) -> bool:
        """Whether every copy that a running node wants of another one's scope is whole and up to date."""
        for name in self.nodes:
            member = self.member(name)
            mesh = member.mesh
            assert mesh is not None
            for prefix, owner in self.owners(name).items():
                if owner == name or owner not in self.nodes or not self.wants(name, prefix):
                    continue
                writer = self.nodes[owner].replication
                expected = writer.history, writer.position, member.ownership.epoch(prefix)
                copy = mesh.copy_of(prefix)
                if copy is None or (copy.history, copy.offset, copy.epoch) != expected:
                    return False
        return True

    async def settle(self) -> None:
        """Wait until all that is owned by running nodes is open and copied, and compare the copies."""
        await self.opened()
        await self.cluster.until(self.agree, "agreement of the copies")
        self.compare()

    def compare(self) -> None:
        """Assert that all nodes name the same owners, and hold the same of each scope as its owner."""
        for name, node in self.nodes.items():
            check_memory(node.store)
            for prefix, owner in self.owners(name).items():
                if owner in self.nodes and self.wants(name, prefix):
                    assert self.under(name, prefix) == self.under(owner, prefix), (name, owner, prefix)

    def copies_of(self, prefix: bytes, names: Iterable[str]) -> list[Content]:
        """What some nodes hold of a prefix now."""
        return [self.under(name, prefix) for name in names]

    async def watching(self, check: Callable[[], object], work: Callable[[], Awaitable[None]]) -> None:
        """Do something, and call ``check`` after every step that any task makes meanwhile."""

        class Watcher(trio.abc.Instrument):
            def after_task_step(self, task: trio.lowlevel.Task) -> None:
                if not failures:
                    try:
                        check()
                    except BaseException as error:
                        failures.append(error)

        failures: list[BaseException] = []
        watcher = Watcher()
        trio.lowlevel.add_instrument(watcher)
        try:
            await work()
        finally:
            trio.lowlevel.remove_instrument(watcher)
        if failures:
            raise failures[0]
