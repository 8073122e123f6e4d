"""Several nodes that write a scope or more each and copy each other's, over a network in memory.

The nodes are whole ones; who owns what is a table of the test's, which all of them look at.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import trio
from support.cluster import HOST, Cluster
from support.network import Wire
from support.store_harness import Content, check_memory, content
from support.wire_harness import decode

from kevynode import Node
from kevynode.replicate.mesh import Mesh, MeshPeer
from kevynode.replicate.mesh_follower import MeshFollower
from kevynode.replicate.mesh_service import MeshService, ScopeRestorer
from kevynode.replicate.stream_events import Event, Frames
from kevynode.store.apply import Applier
from kevynode.store.marks import Acquire, Release


class Owned:
    """What one node owns by the table of all."""

    def __init__(self, name: str, owners: dict[bytes, str]) -> None:
        self._name = name
        self._owners = owners

    def owned(self) -> tuple[bytes, ...]:
        """The prefixes."""
        return tuple(sorted(prefix for prefix, owner in self._owners.items() if owner == self._name))


class Member:
    """A node with its mesh."""

    def __init__(self, name: str, node: Node, mesh: Mesh) -> None:
        self.name = name
        self.node = node
        self.mesh = mesh
        self.scope = trio.CancelScope()

    def follower(self, name: str) -> MeshFollower:
        """The one of a writer."""
        follower = self.mesh.followers[name]
        assert isinstance(follower, MeshFollower)
        return follower

    def under(self, prefix: bytes) -> Content:
        """What the node holds under a prefix."""
        return {key: value for key, value in content(self.node.store).items() if key.startswith(prefix)}

    def run(self, name: str, *words: str | bytes | int) -> Any:
        """Run a command as the program that the node lives in."""
        return self.node.execute(name, *words)


class MeshCluster:
    """Members by name; ``owners`` says who writes which prefix, and may be changed with :meth:`assign`.

    ``wanted`` holds, by node, the prefixes that it copies, if not all.
    """

    def __init__(self, cluster: Cluster, owners: dict[bytes, str], ports: dict[str, int], **settings: Any) -> None:
        self.cluster = cluster
        self.owners = owners
        self.ports = ports
        self.settings = settings
        self.members: dict[str, Member] = {}
        self.wanted: dict[str, set[bytes]] = {}
        # What is declared to be a kevy server, by name.
        self.kevys: set[str] = set()
        self.wires: list[Wire] = []
        # How slowly new connections bring what writers send: seconds of a read, and bytes that it gets.
        self.pause, self.grain = 0.0, 1 << 30
        cluster.on_node = self._introduce
        cluster.network.on_connect = self._connected

    def _introduce(self, node: Node) -> None:
        node.replication.set_ownership(Owned(node.config.cluster.node_id, self.owners))

    def _connected(self, wire: Wire) -> None:
        wire.outward.record = bytearray()
        wire.outward.pause = self.pause
        wire.outward.grain = self.grain
        self.wires.append(wire)

    async def start(self, *names: str, **options: Any) -> None:
        """Start nodes, and let them copy from each other."""
        for name in names:
            node = await self.cluster.start(name, port=self.ports[name], **self.settings, **options)
            self._join(name, node)

    async def restart(self, name: str) -> None:
        """Start a node again that has ended."""
        self._join(name, await self.cluster.restart(self.members[name].node))

    def _join(self, name: str, node: Node) -> None:
        replication = node.replication

        def make(peer: MeshPeer, prefixes: tuple[bytes, ...], found: Mapping[str, tuple[int, int]]) -> MeshFollower:
            return MeshFollower(peer.node_id, peer.host, peer.port, prefixes, **_options(name, node, peer), found=found)

        peers = [
            MeshPeer(other, HOST, port + 10000, "kevy" if other in self.kevys else "kevynode")
            for other, port in self.ports.items()
        ]
        mesh = Mesh(
            name,
            peers,
            lambda: {
                prefix: owner
                for prefix, owner in self.owners.items()
                if owner != name and prefix in self.wanted.get(name, self.owners)
            },
            make,
            node.log,
            monotonic=node.clock.monotonic,
            is_active=lambda: replication.role == "master",
            found=replication.found_scopes,
            forget=lambda cursor: replication.cursor_moved(cursor, 0, 0),
        )
        replication.mesh = mesh
        mesh.refresh()
        member = self.members[name] = Member(name, node, mesh)
        self.cluster.nursery.start_soon(self._follow, member)

    def restorer(self, name: str, other: str, prefixes: tuple[bytes, ...]) -> ScopeRestorer:
        """What gets a node's own scopes back from the copy that another one holds."""
        node, peer = self.members[name].node, MeshPeer(other, HOST, self.ports[other] + 10000)
        return ScopeRestorer(peer.node_id, peer.host, peer.port, prefixes, **_options("restore", node, peer), found={})

    @staticmethod
    async def _follow(member: Member) -> None:
        with member.scope:
            await MeshService(member.mesh).run()

    async def end(self, name: str, how: Callable[[Node], Awaitable[None]]) -> None:
        """End a node by one of the ways that a cluster knows."""
        member = self.members[name]
        await how(member.node)
        member.scope.cancel()

    def assign(self, prefix: bytes, owner: str) -> None:
        """Let another node be the owner of a prefix, whatever is on its way."""
        self.owners[prefix] = owner
        self.refresh()

    def move(self, prefix: bytes, owner: str, epoch: int = 1) -> None:
        """Move a prefix as a move does it that is done: both writers say so in their streams."""
        source, target = self.members[self.owners[prefix]], self.members[owner]
        history, tail = source.node.replication.history, source.node.replication.position
        release = Release(prefix, epoch, owner)
        self.owners[prefix] = owner
        source.node.replication.mark(release)
        source.mesh.released_here(release, history, source.node.replication.position)
        target.mesh.refresh()
        target.node.replication.mark(Acquire(prefix, epoch, history, tail))
        self.refresh()

    def refresh(self) -> None:
        """Tell everybody that the table has changed."""
        for member in self.members.values():
            member.mesh.refresh()
            member.node.replication.ownership_changed()

    # -- waiting ------------------------------------------------------------------------------------------------------

    def agree(self, *names: str) -> bool:
        """Whether every copy that these nodes want is whole and up to date."""
        return all(self._has_all(self.members[name]) for name in names or self.members)

    def _has_all(self, member: Member) -> bool:
        now = member.node.clock.monotonic()
        for prefix, owner in self.owners.items():
            wanted = owner != member.name and prefix in self.wanted.get(member.name, self.owners)
            if wanted and owner in self.members:
                follower = member.mesh.followers.get(owner)
                if follower is None or prefix not in follower.prefixes:
                    return False
        for other, following in member.mesh.followers.items():
            if other not in self.members or not following.prefixes:
                continue
            writer = self.members[other].node.replication
            if following.missing or following.facts(now).state != "connected":
                return False
            if member.follower(other).cursors.stream != (writer.history, writer.position):
                return False
        return True

    async def settle(self, *names: str) -> None:
        """Wait until all copies are up to date, and assert that they are what their owners hold."""
        await self.cluster.until(lambda: self.agree(*names), "agreement of the mesh")
        self.compare(*names)

    def compare(self, *names: str) -> None:
        """Assert that each node holds what the owners hold, of everything it copies."""
        for name in names or self.members:
            member = self.members[name]
            check_memory(member.node.store)
            for other, follower in member.mesh.followers.items():
                if other in self.members:
                    for prefix in follower.prefixes:
                        assert member.under(prefix) == self.members[other].under(prefix), (name, prefix)

    # -- what went over the wires -------------------------------------------------------------------------------------

    def streamed(self, name: str) -> list[list[bytes]]:
        """Every entry that a node has sent on any link so far."""
        address = f"{HOST}:{self.ports[name] + 10000}"
        commands: list[list[bytes]] = []
        for wire in self.wires:
            if wire.address == address:
                assert wire.outward.record is not None
                commands += entries(decode(bytes(wire.outward.record))[0])
        return commands


def _options(name: str, node: Node, peer: MeshPeer) -> dict[str, Any]:
    return {
        "store": node.store,
        "applier": Applier(node.store),
        "transport": node.transport,
        "clock": node.clock,
        "random": node.random,
        "log": node.log,
        "sink": node.replication,
        "replica_id": f"kevynode-mesh-{node.port}#{name}.{peer.node_id}",
        "client_port": node.port,
        "kind": peer.kind,
    }


def entries(events: Iterable[Event]) -> list[list[bytes]]:
    """The commands among the events of a stream."""
    return [command for event in events if isinstance(event, Frames) for command in event.commands]
