"""Copies of kevy servers that keep files and are restarted: nothing is applied twice, and nothing is left out."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
from support.cluster import HOST, Cluster, assert_equal, in_cluster, syncs
from support.fake_primary import FakeConnection, FakePrimary, answer, frames, group, ship
from support.follower_harness import HISTORY, accept

from kevynode import Node
from kevynode.replicate import wire
from kevynode.replicate.handshake import Form

KEVY = 0x5EED
FILES = {"aof": True, "appendfsync": "everysec"}


class Kevy:
    """A shard of a kevy server of version 5, which counts: it can go on from wherever it is asked to."""

    def __init__(self, primary: FakePrimary, number: int) -> None:
        self.number = number
        self.history = KEVY + number
        self.entries: list[str] = []
        self.count = 0
        # How many entries at the end changed nothing.
        self.idle = 0
        # What it was asked for each time, and how often it had to send everything.
        self.asked: list[tuple[int, int]] = []
        self.ships = 0
        self._primary = primary
        self._connection: FakeConnection | None = None

    async def run(self) -> None:
        """Serve one copy after the other."""
        while True:
            connection = await self._primary.accept()
            try:
                request = await connection.handshake()
            except (AssertionError, trio.BrokenResourceError):
                # The copy was ended before it had asked.
                continue
            if request.form is not Form.SIX:
                await connection.close()
                continue
            self.asked.append((request.history, request.offset))
            said = answer(self.history, request.offset)
            if request.history == self.history:
                said += frames(request.offset, *self.entries[request.offset :])
                said += wire.ping(self.history, len(self.entries))
            else:
                self.ships += 1
                said += ship(len(self.entries), {f"{self.number}:count": str(self.count)})
            self._connection = connection
            await self._send(said)

    async def beat(self) -> None:
        """Send heartbeats."""
        while True:
            await trio.sleep(1)
            await self._send(wire.ping(self.history, len(self.entries)))

    async def write(self, draw: random.Random) -> None:
        """Make an entry: one that counts, changes several keys, nothing, or fails here as it did there."""
        name = self.number
        kind = draw.randrange(5)
        entry = [
            f"INCR {name}:count",
            f"INCR {name}:count",
            f"MSET {name}:a {draw.random()} {name}:b {draw.random()}",
            f"DEL {name}:nothing",
            f"LPUSH {name}:count x",
        ][kind]
        self.count += kind < 2
        self.idle = 0 if kind < 3 else self.idle + 1
        offset = len(self.entries)
        self.entries.append(entry)
        await self._send(frames(offset, entry))

    async def _send(self, data: bytes) -> None:
        connection = self._connection
        if connection is not None:
            try:
                await connection.send(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                # The copy has gone; it will ask again.
                if self._connection is connection:
                    self._connection = None

    def has_all(self, node: Node) -> bool:
        """Whether the node has counted as often."""
        return node.get(f"{self.number}:count") == b"%d" % self.count


@asynccontextmanager
async def kevys(cluster: Cluster, count: int) -> AsyncIterator[list[Kevy]]:
    """That many shards, on ports 17000 and above."""
    async with AsyncExitStack() as stack:
        shards = []
        for number in range(count):
            primary = await stack.enter_async_context(FakePrimary(cluster.network, 17000 + number, HOST))
            shards.append(Kevy(primary, number))
        async with trio.open_nursery() as nursery:
            for shard in shards:
                nursery.start_soon(shard.run)
                nursery.start_soon(shard.beat)
            yield shards
            nursery.cancel_scope.cancel()


async def start_copy(cluster: Cluster, count: int) -> Node:
    tables = {
        "server": {"port": 7101, "bind": HOST, "data_dir": "/data"},
        "cluster": {"node_id": "copy"},
        "replication": {"role": "replica", "upstream": f"{HOST}:17000", "upstream_shards": count},
        "persistence": FILES,
    }
    return await cluster.start_with("copy", tables)


async def complete(cluster: Cluster, node: Node, shards: list[Kevy]) -> None:
    """Wait until the node has everything."""

    def agreed() -> bool:
        facts = node.server.view.upstreams()
        return all(one.state == "connected" for one in facts) and [one.applied for one in facts] == [
            len(shard.entries) for shard in shards
        ]

    await cluster.until(agreed)
    assert all(shard.has_all(node) for shard in shards)


@pytest.mark.parametrize("count", [1, 3])
@in_cluster
async def test_a_copy_goes_on_with_each_stream_where_it_stood(cluster: Cluster, count: int) -> None:
    draw = random.Random(1)
    async with kevys(cluster, count) as shards:
        node = await start_copy(cluster, count)
        await cluster.until(lambda: all(shard.ships for shard in shards))
        for _ in range(30):
            await draw.choice(shards).write(draw)
        await complete(cluster, node, shards)
        # What the system has been handed outlives the process.
        await trio.sleep(2)
        # Entries that changed nothing at the end of a stream may come again: they change nothing again.
        places = [(shard.history, len(shard.entries) - shard.idle, len(shard.entries)) for shard in shards]
        await cluster.kill(node)
        for _ in range(10):
            await draw.choice(shards).write(draw)
        node = await cluster.restart(node)
        await complete(cluster, node, shards)
        for shard, (history, first, last) in zip(shards, places, strict=True):
            assert shard.asked[-1][0] == history
            assert first <= shard.asked[-1][1] <= last
        assert [shard.ships for shard in shards] == [1] * count


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("count", [1, 2])
@in_cluster
async def test_whenever_a_copy_is_restarted_it_counts_right(cluster: Cluster, count: int, seed: int) -> None:
    draw = random.Random(seed)
    async with kevys(cluster, count) as shards:
        node = await start_copy(cluster, count)
        await cluster.until(lambda: node.replication.has_data)
        below = await cluster.start("below", port=7103, upstream=node, persistence=FILES)
        for _ in range(60):
            await draw.choice(shards).write(draw)
            await trio.sleep(draw.choice([0.0, 0.0, 0.05, 0.7]))
            if draw.random() < 0.1:
                match draw.randrange(3):
                    case 0:
                        await cluster.kill(node)
                    case 1:
                        await cluster.stop(node)
                    case 2:
                        await cluster.lose_power(node, seed)
                node = await cluster.restart(node)
        await complete(cluster, node, shards)
        assert [shard.ships for shard in shards] == [1] * count, f"seed {seed}"
        await cluster.settle(node, below)
        assert_equal(node, below)


@in_cluster
async def test_a_copy_that_went_its_own_way_starts_over(cluster: Cluster) -> None:
    draw = random.Random(1)
    async with kevys(cluster, 2) as shards:
        node = await start_copy(cluster, 2)
        for _ in range(10):
            await draw.choice(shards).write(draw)
        await cluster.until(lambda: node.replication.has_data)
        await complete(cluster, node, shards)
        node.execute("REPLICAOF", "NO", "ONE")
        node.set("0:count", "1000")
        await trio.sleep(2)
        # Its configuration still says whom to follow.
        await cluster.stop(node)
        node = await cluster.restart(node)
        await complete(cluster, node, shards)
        assert [shard.ships for shard in shards] == [2, 2]
        assert syncs(node) == (0, 0, 0)


@in_cluster
async def test_data_that_have_diverged_are_not_gone_on_with_after_a_restart(cluster: Cluster) -> None:
    async with FakePrimary(cluster.network, 17000, HOST) as primary:
        node = await start_copy(cluster, 1)
        connection, request = await primary.greet((0, 0))
        await connection.send(accept(request) + ship(5, {"a": "text"}))
        await connection.send(frames(5, "SET b 1"))
        await trio.sleep(2)
        cluster.expected_errors.add("diverged")
        await connection.send(group(6, "SET c 1", "RPUSH a x"))
        assert node.replication.upstream is not None
        assert node.replication.upstream.diverged
        await trio.sleep(2)
        await cluster.kill(node)
        node = await cluster.restart(node)
        # The half of the group that was applied is there.
        assert node.execute("MGET", "b", "c") == [b"1", b"1"]
        with trio.fail_after(60):
            while request.history in (0, HISTORY):
                connection = await primary.accept()
                try:
                    request = await connection.handshake()
                except AssertionError:
                    # One of the run before.
                    continue
        await connection.send(accept(request, history=HISTORY) + ship(8, {"a": "healed"}))
        assert (node.get("a"), node.get("c")) == (b"healed", None)
        await cluster.stop(node)
        node = await cluster.restart(node)
        connection, request = await primary.greet((HISTORY, 8))
