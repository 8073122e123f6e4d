"""Nodes that have nothing but peer links, on a network in memory and on Trio's clock."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio
import trio.testing
from support.network import Network, Wire, hold
from support.replication_harness import Primary
from support.session_harness import MemoryLog

from kevynode.accept import accept_connections
from kevynode.replicate.sender import ReplicaEntrance
from kevynode.scope.copies import HeldCopy
from kevynode.scope.ledger import Ledger, LedgerEntry
from kevynode.scope.peer_messages import Configuration, Hello, PeerRow, Refused, ScopeRow, Welcome
from kevynode.scope.peer_state import DeclaredPeer, OwnFacts, PeerFacts
from kevynode.scope.peer_wire import AnswerDecoder, PeerDecoder, encode
from kevynode.scope.peers import PeerLinks
from kevynode.transport import Listener

PORT = 16004


def address(node_id: str) -> str:
    """The replication address of a node."""
    return f"node-{node_id}:{PORT}"


def configuration(nodes: str, *scopes: tuple[bytes, str]) -> Configuration:
    """What nodes with one-letter ids declare: themselves, and scopes with their writers."""
    peers = tuple(PeerRow(node_id, f"node-{node_id}:6004", address(node_id), "kevynode") for node_id in nodes)
    return Configuration(tuple(ScopeRow(*scope) for scope in scopes), peers)


def entry(prefix: bytes = b"app:", owner: str = "b", epoch: int = 1, move: str = "m") -> LedgerEntry:
    """An entry of a ledger."""
    return LedgerEntry(prefix, owner, epoch, move)


class TrioClock:
    """Trio's time, so that a mock clock is the node's, too."""

    def monotonic(self) -> float:
        return trio.current_time()

    def wall(self) -> float:
        return 1_000_000.0 + trio.current_time()


@attrs.define
class Kept:
    """What a node keeps in its data directory."""

    instance: str
    ledger: Ledger = attrs.field(factory=Ledger)
    version: int = 0
    announced: dict[str, int] = attrs.field(factory=dict)

    def copy(self) -> Kept:
        """A backup of it."""
        return Kept(self.instance, Ledger(self.ledger), self.version, dict(self.announced))


class NodeTransport:
    """The network as one node sees it."""

    def __init__(self, cluster: Cluster, node_id: str) -> None:
        self._cluster = cluster
        self._node_id = node_id

    async def listen(self, addresses: Sequence[str], port: int, *, backlog: int = 511) -> Sequence[Listener]:
        return await self._cluster.network.listen(addresses, port)

    async def listen_unix(self, path: str, *, mode: int | None = None, backlog: int = 511) -> Listener:
        return await self._cluster.network.listen_unix(path)

    async def connect(self, host: str, port: int) -> trio.abc.Stream:
        pair = frozenset({self._node_id, host.removeprefix("node-")})
        if pair in self._cluster.swallowed:
            await trio.sleep_forever()
        if pair in self._cluster.parted:
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        stream = await self._cluster.network.connect(host, port)
        self._cluster.wires.append((pair, self._cluster.network.wires[-1]))
        return stream

    async def connect_unix(self, path: str) -> trio.abc.Stream:
        return await self._cluster.network.connect_unix(path)


class PeerNode:
    """A node: its host side of the peer links, and the replication port in front of them."""

    def __init__(self, cluster: Cluster, node_id: str, declared: Configuration, kept: Kept) -> None:
        self.network = cluster.network
        self.node_id = node_id
        self.declared = declared
        self.kept = kept
        self.state = "serving"
        self.log = MemoryLog()
        self.links = PeerLinks(
            node_id,
            kept.instance,
            [DeclaredPeer(row.node_id, row.replication, row.kind) for row in declared.peers],
            self,
            NodeTransport(cluster, node_id),
            TrioClock(),
            random.Random(node_id),
            self.log,
        )
        # Seconds that the disk takes, and what it raises next.
        self.disk = 0.0
        self.failure: Exception | None = None
        self.copies: dict[bytes, HeldCopy] = {}
        # Seconds that counting keys takes.
        self.counting = 0.0
        # What was called, in order: (name, peer, …).
        self.calls: list[tuple[Any, ...]] = []
        self.merging = 0
        self._scope = trio.CancelScope()

    # -- as the host of the links -------------------------------------------------------------------------------------

    def own_facts(self) -> OwnFacts:
        kept = self.kept
        return OwnFacts(kept.ledger.digest, kept.version, self.declared.digest, self.state, f"node-{self.node_id}:6004")

    def ledger_pages(self) -> Sequence[bytes]:
        return self.kept.ledger.rows()

    def configuration(self) -> Configuration:
        return self.declared

    def announced(self, node_id: str) -> int:
        return self.kept.announced.get(node_id, 0)

    async def on_rows(self, node_id: str, entries: tuple[LedgerEntry, ...]) -> None:
        self.calls.append(("rows", node_id, len(entries)))
        assert not self.merging
        self.merging += 1
        try:
            await trio.sleep(self.disk)
        finally:
            self.merging -= 1
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure
        self.learn(*entries)

    async def on_announced(self, node_id: str, version: int) -> None:
        self.calls.append(("announced", node_id, version))
        await trio.sleep(self.disk)
        self.kept.announced[node_id] = max(version, self.announced(node_id))

    def on_table(self, node_id: str, configuration: Configuration | None) -> None:
        self.calls.append(("table", node_id, configuration))

    def on_peer_state(self, facts: PeerFacts) -> None:
        self.calls.append(("state", facts.node_id, facts))

    def on_remembered(self, node_id: str, version: int) -> None:
        self.calls.append(("remembered", node_id, version))

    def on_answered(self, node_id: str) -> None:
        self.calls.append(("answered", node_id))

    async def copies_held(self, prefixes: tuple[bytes, ...]) -> Mapping[bytes, HeldCopy]:
        await trio.sleep(self.counting)
        return {prefix: self.copies[prefix] for prefix in prefixes if prefix in self.copies}

    # -- for the test -------------------------------------------------------------------------------------------------

    @property
    def address(self) -> str:
        return address(self.node_id)

    def learn(self, *entries: LedgerEntry) -> None:
        """Take entries into the ledger, and tell everybody what was new."""
        learned = self.kept.ledger.merge(entries).learned
        if learned:
            self.kept.version += 1
            self.links.announce(learned)

    def facts(self, node_id: str) -> PeerFacts:
        """What this node knows of another one."""
        (found,) = (facts for facts in self.links.facts() if facts.node_id == node_id)
        return found

    def called(self, name: str, node_id: str | None = None) -> list[Any]:
        """What was called with that name, about that peer: what else it was told, each time."""
        return [
            call[2] if len(call) > 2 else None for call in self.calls if call[0] == name and node_id in (None, call[1])
        ]

    def reasons(self, event: str) -> list[str]:
        """Why that was logged, each time."""
        return [str(facts["reason"]) for _, found, facts in self.log.records if found == event]

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Be there until stopped."""
        (listener,) = await self.network.listen([f"node-{self.node_id}"], PORT)
        replication = Primary(trio.current_time).replication
        with self._scope:
            async with trio.open_nursery() as sessions:
                entrance = ReplicaEntrance(replication, sessions, self.log, {b"PEER": self.links.admit})
                sessions.start_soon(self.links.run)
                sessions.start_soon(accept_connections, listener, entrance.admit, self.log)
                task_status.started()

    def stop(self) -> None:
        """Be gone."""
        self._scope.cancel()


class Cluster:
    """Nodes that know each other. ``kept`` is what their data directories hold, by id."""

    def __init__(self, nursery: trio.Nursery, nodes: str, *scopes: tuple[bytes, str]) -> None:
        self.nursery = nursery
        self.network = Network()
        self.declared = configuration(nodes, *scopes)
        self.kept = {node_id: Kept(f"instance-{node_id}") for node_id in nodes}
        self.nodes: dict[str, PeerNode] = {}
        self.wires: list[tuple[frozenset[str], Wire]] = []
        self.parted: set[frozenset[str]] = set()
        self.swallowed: set[frozenset[str]] = set()

    def __getitem__(self, node_id: str) -> PeerNode:
        return self.nodes[node_id]

    async def start(self, node_id: str, **changes: Any) -> PeerNode:
        """Start a node with what it has kept; ``declared`` or ``kept`` change that."""
        declared = changes.get("declared", self.declared)
        self.kept[node_id] = changes.get("kept", self.kept[node_id])
        node = self.nodes[node_id] = PeerNode(self, node_id, declared, self.kept[node_id])
        await self.nursery.start(node.run)
        return node

    async def stop(self, node_id: str) -> None:
        """Stop a node, and let the others notice."""
        self.nodes.pop(node_id).stop()
        await trio.testing.wait_all_tasks_blocked()

    def between(self, one: str, other: str) -> list[Wire]:
        """The connections between two nodes that stand, whoever opened them."""
        self.wires = [(pair, wire) for pair, wire in self.wires if wire.stands]
        return [wire for pair, wire in self.wires if pair == {one, other}]

    def cut(self, one: str, other: str) -> None:
        """Break all connections between two nodes."""
        for wire in self.between(one, other):
            wire.cut()

    def part(self, one: str, other: str) -> None:
        """Break all connections between two nodes, and refuse new ones until they are healed."""
        self.parted.add(frozenset({one, other}))
        self.cut(one, other)

    def swallow(self, one: str, other: str) -> None:
        """Lose all that two nodes say to each other, and let their attempts to connect hang until they are healed."""
        self.swallowed.add(frozenset({one, other}))
        hold(lane for wire in self.between(one, other) for lane in wire.lanes)

    def heal(self, one: str, other: str) -> None:
        """Let two nodes reach each other again; connections that were swallowed stay dead."""
        self.parted.discard(frozenset({one, other}))
        self.swallowed.discard(frozenset({one, other}))

    @property
    def digests(self) -> set[str]:
        """The digests of all ledgers."""
        return {node.kept.ledger.digest for node in self.nodes.values()}

    @property
    def agreed(self) -> bool:
        """Whether all nodes hear each other, with equal ledgers."""
        found = [facts for node in self.nodes.values() for facts in node.links.facts()]
        return all(
            facts.up and facts.ledger_equal and facts.silence is not None and facts.silence < 2 for facts in found
        )


async def until(condition: Callable[[], Any], seconds: float = 60.0, step: float = 0.05) -> float:
    """Wait until something holds; the seconds that it took."""
    began = trio.current_time()
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110  nobody tells
            await trio.sleep(step)
    return trio.current_time() - began


@asynccontextmanager
async def open_cluster(nodes: str, *scopes: tuple[bytes, str], start: bool = True) -> AsyncIterator[Cluster]:
    """A cluster, started and in agreement unless it is not to be started."""
    async with trio.open_nursery() as nursery:
        cluster = Cluster(nursery, nodes, *scopes)
        if start:
            for node_id in nodes:
                await cluster.start(node_id)
            await until(lambda: cluster.agreed)
        yield cluster
        nursery.cancel_scope.cancel()


DIGEST = "0" * 64


async def settled() -> None:
    """Let everybody go on until all wait, without a jump of the clock."""
    await trio.testing.wait_all_tasks_blocked()


async def join(
    cluster: Cluster, node_id: str, *, name: str = "b", instance: str = "i", version: int = 1, expected: str = ""
) -> tuple[trio.abc.Stream, PeerDecoder]:
    """A link that the test opened to a node, as ``name``; it has been taken."""
    stream = await cluster.network.connect(f"node-{node_id}", 16004)
    await stream.send_all(encode(Hello(version, name, instance, expected or node_id)))
    answer = await answered(stream)
    assert isinstance(answer, Welcome)
    return stream, PeerDecoder()


async def answered(stream: trio.abc.Stream) -> Welcome | Refused:
    decoder = AnswerDecoder()
    with trio.fail_after(5):
        while True:
            found = decoder.feed(bytes(await stream.receive_some(1)))
            if found is not None:
                return found


async def ends(stream: trio.abc.Stream, seconds: float = 5.0) -> bool:
    """Whether the other side ends a stream in time."""
    with trio.move_on_after(seconds):
        try:
            while await stream.receive_some(65536):
                pass
        except trio.BrokenResourceError:
            pass
        return True
    return False
