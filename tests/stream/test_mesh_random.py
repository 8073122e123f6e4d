"""Whatever befalls writers of scopes that copy each other: at rest every copy is what its owner holds."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import trio
from support.cluster import HOST, Cluster, in_cluster
from support.mesh import PORTS, MeshCluster, three, write_some

#: Longer than anybody waits for marks.
A_WHILE = 20.0


class Trouble:
    """What happens to a mesh, by chance."""

    def __init__(self, cluster: Cluster, mesh: MeshCluster, chance: random.Random, *, is_kept: bool) -> None:
        self._cluster = cluster
        self._mesh = mesh
        self._chance = chance
        self._is_kept = is_kept
        self._held: list[Callable[[], None]] = []
        self._steps = [
            self.move,
            self.move,
            self.move,
            self.cut,
            self.end,
            self.hold,
            self.let_go,
            self.slow,
            self.want,
        ]

    async def step(self) -> None:
        """One thing."""
        write_some(self._mesh, self._chance, self._chance.randrange(1, 20))
        await self._chance.choice([*self._steps, self.wait])()

    def _address(self) -> str:
        return f"{HOST}:{PORTS[self._chance.choice(sorted(PORTS))] + 10000}"

    async def wait(self) -> None:
        """Let some time pass."""
        await trio.sleep(self._chance.choice((0.001, 0.02, 0.2, 1.2, 5)))

    async def move(self) -> None:
        """Move a prefix to a node that has all of it, with the marks of a move, or without those that a crash loses."""
        mesh, chance = self._mesh, self._chance
        prefix = chance.choice(sorted(mesh.owners))
        target = chance.choice(sorted(set(PORTS) - {mesh.owners[prefix]}))
        if prefix not in mesh.wanted.get(target, mesh.owners):
            return
        await self.let_go()
        await self._cluster.until(lambda: mesh.is_settled(target), "the target")
        if chance.random() < 0.6:
            mesh.move(prefix, target)
            return
        source = mesh.members[mesh.owners[prefix]].node.replication
        mesh.owners[prefix], mesh.epochs[prefix] = target, mesh.epochs.get(prefix, 0) + 1
        mesh.members[target].mesh.refresh()
        mesh.acquire(prefix, source.history, source.position)

    async def cut(self) -> None:
        """Break the links to a node."""
        self._cluster.network.cut(self._address())

    async def hold(self) -> None:
        """Let nothing arrive from a node."""
        self._held.append(self._cluster.network.hold(self._address()))

    async def let_go(self) -> None:
        """Let all arrive."""
        while self._held:
            self._held.pop()()

    async def slow(self) -> None:
        """Make new links slow, or fast."""
        self._mesh.pause, self._mesh.grain = self._chance.choice(((0.0, 1 << 30), (0.01, 200), (0.001, 50)))

    async def want(self) -> None:
        """Have a node copy other prefixes than before."""
        wanted = {prefix for prefix in self._mesh.owners if self._chance.random() < 0.7}
        self._mesh.wanted[self._chance.choice(sorted(PORTS))] = wanted
        self._mesh.refresh()

    async def end(self) -> None:
        """End a node, in one of several ways, and start it again."""
        mesh, cluster, chance = self._mesh, self._cluster, self._chance
        name = chance.choice(sorted(PORTS))
        if self._is_kept:
            # A move waits for its marks to be durable.
            await mesh.members[name].node.flush()
        seed = chance.randrange(1000)
        ways = [cluster.stop, cluster.kill, lambda node: cluster.lose_power(node, seed)]
        await mesh.end(name, chance.choice(ways))
        if chance.random() < 0.5:
            for prefix, owner in mesh.owners.items():
                if owner != name:
                    mesh.members[owner].run("SET", prefix + b"meanwhile", str(chance.random()))
            await self.wait()
        await mesh.restart(name)

    async def ends(self) -> None:
        """All is well from now on."""
        await self.let_go()
        self._mesh.pause, self._mesh.grain = 0.0, 1 << 30
        self._mesh.wanted = {}
        self._mesh.refresh()


@pytest.mark.parametrize("seed", range(24))
@in_cluster
async def test_copies_are_what_their_owners_hold_at_rest(cluster: Cluster, seed: int) -> None:
    chance = random.Random(seed)
    is_kept = chance.random() < 0.5
    mesh = three(cluster, persistence={"aof": True, "appendfsync": "always"} if is_kept else None)
    mesh.only_others = chance.random() < 0.3
    if chance.random() < 0.5:
        mesh.owners |= {b"x:": "anna", b"y:": "bert"}
    await mesh.start(*PORTS)
    trouble = Trouble(cluster, mesh, chance, is_kept=is_kept)
    for _ in range(chance.randrange(10, 40)):
        await trouble.step()
    await trouble.ends()
    write_some(mesh, chance, 20)
    await trio.sleep(A_WHILE)
    await mesh.settle()
    for name, member in mesh.members.items():
        assert mesh.is_settled(name)
        assert not any(map(member.mesh.lacks, mesh.owners))
        # Nobody took one node for two.
        assert not [facts for facts in cluster.logged(name, "replica_refused") if "two nodes" in facts["reason"]]
