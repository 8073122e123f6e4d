"""Moves among everything else that befalls a cluster: lost disks, restored backups, configurations that differ.

What every copy had is never lost, but by who restores a backup over it: that is what its scopes are then. There is one
writer at any instant, and in the end one owner known to all, with equal copies, and nothing left over of any move.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio
from support.cluster import HOST, Cluster, in_cluster
from support.memory_disk import MemoryDisk
from support.moving import open_moves
from support.scoped import ScopedCluster

GONE = (OSError, KeyError, trio.BrokenResourceError, trio.ClosedResourceError, AssertionError)
MOVES = ("MOVE-SCOPE", "STATUS")


class Story:
    """One seed's course of events. ``safe`` is by key what all nodes that copy it had when they were last at rest."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.cluster = cluster
        self.chance = random.Random(seed)
        self.world = ScopedCluster(cluster)
        self.safe: dict[str, int] = {}
        self.told: list[str] = []
        self._acknowledged: dict[str, int] = {}
        self._number = 0
        self._writes = trio.Event()
        self._backups: dict[str, MemoryDisk] = {}

    # -- clients ------------------------------------------------------------------------------------------------------

    async def write(self, prefix: str) -> None:
        """Write rising numbers to any node that takes them, until cancelled."""
        chance = random.Random(f"{self.chance.random()}")
        while True:
            await self._writes.wait()
            await trio.sleep(chance.uniform(0.01, 0.1))
            name = chance.choice(sorted(self.world.ports))
            if not self._declares(name, prefix.encode()):
                # There it would be a key of no scope.
                continue
            self._number += 1
            key, number = f"{prefix}{chance.randrange(12)}", self._number
            try:
                if await self.world.write(name, "SET", key, number) == "OK":
                    self._acknowledged[key] = number
            except GONE:
                continue

    def _declares(self, name: str, prefix: bytes) -> bool:
        return name in self.world.nodes and prefix in self.world.states(name)

    # -- rest ---------------------------------------------------------------------------------------------------------

    async def rest(self) -> None:
        """Wait until everybody agrees and nothing goes on, and hold it to what was safe."""
        world = self.world
        self._writes = trio.Event()
        await trio.sleep(2)
        await self._decide()
        await self.cluster.until(lambda: not open_moves(world), f"the end of the moves {self.told}")
        await self.cluster.until(lambda: len(self._owners()) == 1, f"agreement on the owners {self.told}")
        await world.settle()
        for key, number in self.safe.items():
            owner = world.owners("anna")[key[:2].encode()]
            found = world.nodes[owner].get(key)
            assert found is not None, f"{key} is gone at {owner}: {self.told}"
            assert int(found) >= number, f"{key} is {found!r} at {owner}, not {number}: {self.told}"
        for name in world.nodes:
            files = self.cluster.disk(name).list("/data")
            assert not [file for file in files if "stage" in file or file.startswith("temp-")], files
            assert not world.member(name)._taken
        self.safe |= self._acknowledged
        self._acknowledged.clear()
        for key in tuple(self.safe):
            # What was written behind what is safe may have been lost.
            owner = world.owners("anna")[key[:2].encode()]
            found = world.nodes[owner].get(key)
            if found is None:
                del self.safe[key]
            else:
                self.safe[key] = min(self.safe[key], int(found))

    def _owners(self) -> set[tuple[tuple[bytes, str], ...]]:
        return {tuple(sorted(self.world.owners(name).items())) for name in self.world.nodes}

    async def _decide(self) -> None:
        """Do what an operator does about moves whose source has lost its records."""
        await trio.sleep(15)
        for name in tuple(self.world.nodes):
            for row in await self.world.write(name, *MOVES):
                facts = dict(zip(row[::2], row[1::2], strict=True))
                if facts[b"in-doubt"] and facts[b"role"] == b"target":
                    for decision in ("COMMIT", "ABORT"):
                        reply = await self.world.write(name, "MOVE-SCOPE", "RESOLVE", facts[b"prefix"], decision)
                        self.told.append(f"{name}: {decision} {facts[b'prefix']!r}: {reply}")
                        if reply == "OK":
                            break

    # -- events -------------------------------------------------------------------------------------------------------

    async def step(self, nursery: trio.Nursery) -> None:
        """Let them write, move something, have something happen in the midst of it or behind it, and make up for it."""
        chance, world = self.chance, self.world
        self._writes.set()
        await trio.sleep(chance.uniform(0.2, 1))
        if chance.random() < 0.4:
            name = chance.choice(sorted(world.nodes))
            self._backups[name] = self.cluster.disk(name).kill()
            self.told.append(f"backup of {name}")
        prefix = chance.choice(sorted(world.scopes))
        source = world.owners("anna")[prefix]
        target = chance.choice(sorted(set(world.ports) - {source}))
        self.told.append(f"{prefix!r} from {source} to {target}")
        nursery.start_soon(self._move, prefix, source, target)
        await self._wait()
        victim = chance.choice((source, target, *sorted(world.ports)))
        misfortunes: list[Callable[[str], Awaitable[None]]] = [
            *(self._kill, self._lose_power, self._lose_disk, self._separate),
            *(self._start_with_another_writer, self._start_without_a_peer),
        ]
        if victim in self._backups:
            misfortunes += [partial(self._restore, keep=True), partial(self._restore, keep=False)]
        misfortune = chance.choice(misfortunes)
        self.told.append(f"{getattr(misfortune, '__name__', 'restore')} {victim}")
        await misfortune(victim)

    async def _wait(self) -> None:
        """Until some step of the move, or its end."""
        if self.chance.random() < 0.3:
            await trio.sleep(1)
        for _ in range(self.chance.randrange(400)):
            await trio.lowlevel.checkpoint()

    async def _move(self, prefix: bytes, source: str, target: str) -> None:
        try:
            await self.world.write(source, "MOVE-SCOPE", prefix, "FROM", source, "TO", target, "TIMEOUT", 5000)
        except GONE:
            pass

    async def _kill(self, name: str) -> None:
        await self.world.kill(name)
        await self._return(name)

    async def _lose_power(self, name: str) -> None:
        await self.world.lose_power(name, self.chance.randrange(1000))
        await self._return(name)

    async def _lose_disk(self, name: str) -> None:
        await self.world.lose_disk(name)
        self._backups.pop(name, None)
        await self._return(name)

    async def _return(self, name: str) -> None:
        await trio.sleep(self.chance.uniform(0, 3))
        await self.world.start(name)

    async def _separate(self, name: str) -> None:
        """Nobody reaches it for a while."""
        address = f"{HOST}:{self.world.ports[name] + 10000}"
        self.cluster.network.separate(address)
        await trio.sleep(self.chance.uniform(0, 8))
        self.cluster.network.unreachable.discard(address)

    async def _restore(self, name: str, keep: bool) -> None:
        """Put a backup in the place of a node's disk; with ``keep``, its ledger is forgotten in there."""
        await self.rest()
        await self.world.stop(name)
        backup = self._backups.pop(name)
        if not keep and backup.exists("/data/kevynode.ledger"):
            backup.remove("/data/kevynode.ledger")
        self.cluster.disks[name] = backup
        await self.world.start(name)
        # What it owns is what is in the backup.
        owners = self.world.owners(next(other for other in self.world.nodes if other != name))
        self.safe = {key: number for key, number in self.safe.items() if owners[key[:2].encode()] != name}

    async def _start_with_another_writer(self, name: str) -> None:
        """Its configuration says something else of one scope for a while."""
        await self.rest()
        prefix = self.chance.choice(sorted(self.world.scopes))
        writer = self.chance.choice(sorted(set(self.world.ports) - {self.world.scopes[prefix]}))
        scopes = self.world.scopes | {prefix: writer}
        await self.world.stop(name)
        declared = [{"prefix": each.decode(), "writer": who} for each, who in scopes.items()]
        await self.world.start(name, scope=declared)
        self._writes.set()
        await trio.sleep(self.chance.uniform(0, 10))
        await self.world.kill(name)
        await self.world.start(name)

    async def _start_without_a_peer(self, name: str) -> None:
        """Its configuration does not know one of the others for a while."""
        await self.rest()
        absent = self.chance.choice(sorted(set(self.world.ports) - {name}))
        await self.world.stop(name)
        peers = [
            {"id": other, "address": f"{HOST}:{port}"} for other, port in self.world.ports.items() if other != absent
        ]
        scopes = [
            {"prefix": prefix.decode(), "writer": writer}
            for prefix, writer in self.world.scopes.items()
            if writer != absent
        ]
        await self.world.start(name, peer=peers, scope=scopes)
        self._writes.set()
        await trio.sleep(self.chance.uniform(0, 10))
        await self.world.kill(name)
        await self.world.start(name)

    def one_writer(self) -> None:
        """Assert that no scope is open at two nodes."""
        for prefix in self.world.scopes:
            writers = [
                name
                for name, node in self.world.nodes.items()
                if node.loaded and self.world.states(name).get(prefix) == "open"
            ]
            assert len(writers) <= 1, (prefix, writers, self.told)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 9))
@in_cluster
async def test_whatever_comes_together_ends_with_one_owner_and_what_was_safe(cluster: Cluster, seed: int) -> None:
    story = Story(cluster, seed)
    await story.world.start("anna", "bert", "cleo")
    await story.rest()

    async def work() -> None:
        async with trio.open_nursery() as nursery:
            for prefix in ("a:", "b:", "c:"):
                nursery.start_soon(story.write, prefix)
            for _ in range(5):
                await story.step(nursery)
                if story.chance.random() < 0.7:
                    await story.rest()
            await story.rest()
            nursery.cancel_scope.cancel()

    await story.world.watching(story.one_writer, work)
