"""Scopes that move while clients write to them and nodes are killed: one writer at any instant, and nothing lost."""

from __future__ import annotations

import random

import pytest
import trio
from support.cluster import Cluster, ErrorReply, in_cluster
from support.scoped import ScopedCluster

#: What a client may see that asks around while a scope moves.
EXPECTED = {"MISDIRECTED", "QUIESCED", "LOADING"}
GONE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, AssertionError)


class Wanderer:
    """A client that writes growing numbers under one prefix, to any node that takes them."""

    def __init__(self, world: ScopedCluster, prefix: bytes, chance: random.Random) -> None:
        self.prefix = prefix
        self.acknowledged: dict[str, int] = {}
        self.refused: set[str] = set()
        self._world = world
        self._chance = chance
        self._number = 0

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await trio.sleep(self._chance.uniform(0.05, 0.3))
            name = self._chance.choice(sorted(self._world.ports))
            if name in self._world.nodes:
                try:
                    await self._write(name)
                except GONE:
                    # It was killed.
                    continue

    async def _write(self, name: str) -> None:
        client = await self._world.connect(name)
        for _ in range(20):
            self._number += 1
            number = self._number
            key = f"{self.prefix.decode()}{self._chance.randrange(10)}"
            done = await client.call("SET", key, number)
            if done != "OK":
                self.refused.add(done.text.split()[0] if isinstance(done, ErrorReply) else repr(done))
                break
            self.acknowledged[key] = number
            await trio.sleep(self._chance.uniform(0, 0.1))
        await client.aclose()

    def check(self) -> None:
        """Assert that the owner has what was acknowledged, or something later."""
        assert self.acknowledged
        assert self.refused <= EXPECTED
        owner = self._world.nodes[self._world.owners("anna")[self.prefix]]
        for key, number in self.acknowledged.items():
            found = owner.get(key)
            assert found is not None, (key, number)
            assert int(found) >= number, key


def one_writer(world: ScopedCluster) -> None:
    """Assert that no scope is open at two nodes."""
    loaded = [name for name, node in world.nodes.items() if node.loaded]
    for prefix in world.scopes:
        writers = [name for name in loaded if world.is_open(name, prefix)]
        assert len(writers) <= 1, (prefix, writers)


async def move(world: ScopedCluster, prefix: bytes, source: str, target: str, done: list[object]) -> None:
    """Ask for a move; whoever is asked may end before it answers."""
    try:
        done.append(await world.write(source, "MOVE-SCOPE", prefix, "FROM", source, "TO", target))
    except GONE:
        done.append(None)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 7))
@in_cluster
async def test_moves_under_load_lose_nothing_whoever_is_killed(cluster: Cluster, seed: int) -> None:
    chance = random.Random(seed)
    world = ScopedCluster(cluster)
    await world.start("anna", "bert", "cleo")
    await world.settle()
    clients = [Wanderer(world, prefix, random.Random(f"{seed} {prefix!r}")) for prefix in world.scopes]
    done: list[object] = []

    async def work() -> None:
        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(client.run)
            for step in range(5):
                await trio.sleep(chance.uniform(0, 1))
                prefix = chance.choice(sorted(world.scopes))
                source = world.owners("anna")[prefix]
                target = chance.choice(sorted(set(world.ports) - {source}))
                nursery.start_soon(move, world, prefix, source, target, done)
                if chance.random() < 0.5:
                    await trio.sleep(1)
                    continue
                for _ in range(chance.randrange(300)):
                    await trio.lowlevel.checkpoint()
                victim = chance.choice((source, target))
                await (world.kill(victim) if chance.random() < 0.5 else world.lose_power(victim, step))
                await trio.sleep(chance.uniform(0, 2))
                await world.start(victim)
            await trio.sleep(12)
            nursery.cancel_scope.cancel()

    await world.watching(lambda: one_writer(world), work)
    await world.settle()
    assert len({tuple(sorted(world.owners(name).items())) for name in world.nodes}) == 1
    for client in clients:
        client.check()
    assert any(isinstance(answer, str) and answer.startswith("OK ") for answer in done)


@pytest.mark.slow
@pytest.mark.parametrize("who", ["anna", "bert", "cleo"])
@pytest.mark.parametrize("wait", [0, 30])
@in_cluster
async def test_a_disk_that_is_lost_after_a_move_is_made_up_for(cluster: Cluster, who: str, wait: int) -> None:
    world = ScopedCluster(cluster)
    await world.start("anna", "bert", "cleo")
    await world.settle()
    for number in range(50):
        assert await world.write("anna", "SET", f"a:{number}", number) == "OK"
    await world.settle()
    assert str(await world.write("anna", "MOVE-SCOPE", "a:", "FROM", "anna", "TO", "bert")).startswith("OK ")
    for number in range(50, 80):
        assert await world.write("bert", "SET", f"a:{number}", number) == "OK"
    await world.settle()
    expected = world.under("bert", b"a:")
    assert len(expected) == 80
    await trio.sleep(wait)
    await world.lose_disk(who)
    await world.start(who)
    await world.settle()
    assert {world.owners(name)[b"a:"] for name in world.nodes} == {"bert"}
    assert world.under("bert", b"a:") == expected
    assert await world.write("bert", "SET", "a:new", "v") == "OK"
    await world.settle()
