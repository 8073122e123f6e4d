"""Several nodes that write a scope or more each and copy each other's, over a network in memory.

The nodes are whole ones; who owns what is a table of the test's, which all of them look at.
"""

from __future__ import annotations

import random
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
from kevynode.replicate.request import RESTORING
from kevynode.replicate.stream_events import Event, Frames
from kevynode.store.apply import Applier
from kevynode.store.marks import Acquire, Release

#: Whose scope is whose, and where the nodes are, unless a test says otherwise.
THREE = {b"a:": "anna", b"b:": "bert", b"c:": "cleo"}
PORTS = {"anna": 7000, "bert": 7001, "cleo": 7002}


def three(cluster: Cluster, **settings: Any) -> MeshCluster:
    """Three nodes with a prefix each."""
    return MeshCluster(cluster, dict(THREE), dict(PORTS), **settings)


def write_some(mesh: MeshCluster, chance: random.Random, count: int) -> None:
    """Let owners write at random under their prefixes, and beside them."""
    for _ in range(count):
        prefix, owner = chance.choice(sorted(mesh.owners.items()))
        member = mesh.members[owner]
        key = prefix.decode() + str(chance.randrange(20))
        match chance.randrange(10):
            case 0 | 1 | 2:
                member.run("SET", f"{key}s", str(chance.random()))
            case 3:
                member.run("RPUSH", f"{key}l", "x", "y", str(chance.random()))
            case 4:
                member.run("HSET", f"{key}h", str(chance.randrange(5)), "v")
            case 5:
                member.run("DEL", f"{key}s", f"{key}l")
            case 6:
                member.run("SET", f"free:{owner}:{chance.randrange(9)}", "v")
            case 7:
                member.run("MSET", f"{key}s", "1", f"free:{owner}:m", "2", f"{prefix.decode()}t", "3")
            case 8:
                member.run("ZADD", f"{key}z", str(chance.random()), str(chance.randrange(9)))
            case 9:
                member.run("SET", f"{key}e", "v", "PX", 5_000_000)


class Owned:
    """What one node owns by the table of all."""

    def __init__(self, name: str, owners: dict[bytes, str], epochs: dict[bytes, int]) -> None:
        self._name = name
        self._owners = owners
        self._epochs = epochs

    def owned(self) -> tuple[bytes, ...]:
        """The prefixes."""
        return tuple(sorted(prefix for prefix, owner in self._owners.items() if owner == self._name))

    def epoch(self, prefix: bytes) -> int:
        """By which move a prefix has become its owner's."""
        return self._epochs.get(prefix, 0)


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
        # By which move each prefix has become its owner's; one that is not here was declared so.
        self.epochs: dict[bytes, int] = {}
        self.ports = ports
        self.settings = settings
        self.members: dict[str, Member] = {}
        self.wanted: dict[str, set[bytes]] = {}
        # Whether a mesh hears only of what others own.
        self.only_others = False
        # What is declared to be a kevy server, by name.
        self.kevys: set[str] = set()
        self.wires: list[Wire] = []
        # How slowly new connections bring what writers send: seconds of a read, and bytes that it gets.
        self.pause, self.grain = 0.0, 1 << 30
        cluster.on_node = self._introduce
        cluster.network.on_connect = self._connected

    def _introduce(self, node: Node) -> None:
        node.replication.set_ownership(Owned(node.config.cluster.node_id, self.owners, self.epochs))

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
                prefix: owner for prefix, owner in self.owners.items() if prefix in self.wanted.get(name, self.owners)
            },
            make,
            node.log,
            monotonic=node.clock.monotonic,
            epoch=lambda prefix: self.epochs.get(prefix, 0),
            is_active=lambda: replication.role == "master",
            found=replication.found_scopes,
            note=replication.cursor_moved,
        )
        replication.mesh = mesh
        mesh.refresh()
        member = self.members[name] = Member(name, node, mesh)
        self.cluster.nursery.start_soon(self._follow, member)

    def restorer(self, name: str, other: str, prefixes: tuple[bytes, ...]) -> ScopeRestorer:
        """What gets a node's own scopes back from the copy that another one holds."""
        node, peer = self.members[name].node, MeshPeer(other, HOST, self.ports[other] + 10000)
        options = _options(name, node, peer) | {"replica_id": f"kevynode-mesh-{node.port}#{name}{RESTORING}"}
        return ScopeRestorer(peer.node_id, peer.host, peer.port, prefixes, **options, found={})

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
        """Let another node be the owner of a prefix, whatever is on its way, and without a word in any stream."""
        self.owners[prefix] = owner
        self.epochs[prefix] = self.epochs.get(prefix, 0) + 1
        self.refresh()

    def move(self, prefix: bytes, owner: str) -> None:
        """Move a prefix as a move does it that is done: both writers say so in their streams."""
        source, target = self.members[self.owners[prefix]], self.members[owner]
        history, tail = source.node.replication.history, source.node.replication.position
        epoch = self.epochs.get(prefix, 0) + 1
        release = Release(prefix, epoch, owner)
        source.node.replication.mark(release)
        source.mesh.released_here(release, history, source.node.replication.position)
        self.owners[prefix], self.epochs[prefix] = owner, epoch
        target.mesh.refresh()
        self.acquire(prefix, history, tail)

    def acquire(self, prefix: bytes, history: int, tail: int) -> None:
        """Let the owner of a prefix say that it has it, with all before ``tail`` of its last writer's history."""
        target = self.members[self.owners[prefix]].node.replication
        target.mark(Acquire(prefix, self.epochs[prefix], history, tail))
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

    def is_settled(self, name: str) -> bool:
        """Whether a node has all that it wants, and knows it."""
        return self.agree(name) and not self.members[name].mesh.is_between_writers

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
