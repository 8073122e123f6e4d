"""What readers of a replica see: whole groups, nothing that has expired, and in the end what the primary holds."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from support.cluster import Cluster, assert_equal, in_cluster, upstream
from support.network import Wire
from support.store_harness import content

from kevynode import Node


async def start_pair(cluster: Cluster) -> tuple[Node, Node]:
    primary = await cluster.start("primary", port=7000)
    replica = await cluster.start("replica", port=7001, upstream=primary)
    await cluster.settle(primary, replica)
    return primary, replica


def drip(wire: Wire) -> None:
    """Let each read get one byte."""
    wire.outward.grain = 1


# -- groups -----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def watched(node: Node, *keys: str) -> AsyncIterator[set[tuple[bytes | None, ...]]]:
    """What a reader sees under some keys, at every moment at which it gets a turn."""
    seen: set[tuple[bytes | None, ...]] = set()

    async def watch() -> None:
        while True:
            seen.add(tuple(node.get(key) for key in keys))
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        yield seen
        for _ in range(5):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("way", ["bytes", "whole"])
@in_cluster
async def test_a_transaction_is_seen_whole_or_not_at_all(cluster: Cluster, way: str) -> None:
    if way == "bytes":
        cluster.network.on_connect = drip
    primary = await cluster.start("primary", port=7000)
    replica = await cluster.start("replica", port=7001, upstream=primary)
    await cluster.settle(primary, replica)
    client = await cluster.connect(primary)
    async with watched(replica, "a", "b", "c") as seen:
        for number in range(8):
            await client.pipeline(
                "MULTI", f"SET a {number}", "SET noise 1", f"SET b {number}", f"SET c {number}", "EXEC"
            )
            # A reader keeps the clock from jumping.
            while replica.replication.position != primary.replication.position:
                await trio.lowlevel.checkpoint()
    assert seen >= {(b"%d" % number,) * 3 for number in range(8)}
    assert all(a == b == c for a, b, c in seen)
    assert_equal(primary, replica)


@in_cluster
async def test_a_long_transaction_is_seen_whole_by_those_who_get_turns_while_others_are_applied(
    cluster: Cluster,
) -> None:
    primary, replica = await start_pair(cluster)
    # Each look at the clock ends a slice of work.
    cluster.clocks[replica].step = 0.002
    client = await cluster.connect(primary)
    release = cluster.network.hold(primary.replication_address)
    for number in range(3):
        await client.pipeline("MULTI", f"SET a {number}", *["INCR n"] * 500, f"SET b {number}", "EXEC")
        await client.pipeline(*(f"SET alone {entry}" for entry in range(3000)))
    async with watched(replica, "a", "b") as seen, watched(replica, "alone") as singles:
        release()
        while replica.replication.position != primary.replication.position:
            await trio.lowlevel.checkpoint()
    assert {(b"%d" % number,) * 2 for number in range(3)} <= seen
    assert all(a == b for a, b in seen)
    assert len(singles) > 10
    assert_equal(primary, replica)


@in_cluster
async def test_a_connection_that_is_cut_inside_a_transaction_leaves_nothing_of_it(cluster: Cluster) -> None:
    primary, replica = await start_pair(cluster)
    client = await cluster.connect(primary)
    before = content(replica.store)
    size = 0
    for cut in range(0, 160, 9):
        (wire,) = cluster.network.to(primary.replication_address)
        wire.outward.limit = cut
        await client.pipeline("MULTI", f"SET a {cut}", "DEL b", f"SET b {cut}", f"RPUSH c {cut}", "EXEC")
        await cluster.until(lambda: replica.get("a") != before.get(b"a", (None,))[0] or not wire.outward.limit)  # noqa: B023
        after = content(replica.store)
        assert after in (before, content(primary.store))
        size += after == before
        await cluster.settle(primary, replica)
        before = content(replica.store)
    assert size > 10


@in_cluster
async def test_an_element_that_is_moved_is_always_in_one_of_its_places(cluster: Cluster) -> None:
    cluster.network.on_connect = drip
    primary, replica = await start_pair(cluster)
    primary.execute("RPUSH", "from", *range(5))
    await cluster.settle(primary, replica)
    sizes = set()
    done = False

    async def watch() -> None:
        while not done:
            sizes.add(replica.execute("LLEN", "from") + replica.execute("LLEN", "to"))
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        for _ in range(5):
            primary.execute("LMOVE", "from", "to", "LEFT", "RIGHT")
        while replica.replication.position != primary.replication.position:
            await trio.lowlevel.checkpoint()
        done = True
    assert sizes == {5}
    assert_equal(primary, replica)


@in_cluster
async def test_what_a_blocked_client_was_served_is_gone_on_the_replica_too(cluster: Cluster) -> None:
    primary, replica = await start_pair(cluster)
    waiting = [await cluster.connect(primary) for _ in range(3)]
    for client, command in zip(
        waiting, ("BLPOP q 0", "BLMOVE q r LEFT RIGHT 0", "BLMPOP 0 1 q LEFT COUNT 2"), strict=True
    ):
        await client.send(*command.split())
        await trio.testing.wait_all_tasks_blocked()
    primary.execute("RPUSH", "q", "first", "second", "third", "fourth", "fifth")
    assert await waiting[0].reply() == [b"q", b"first"]
    assert await waiting[1].reply() == b"second"
    assert await waiting[2].reply() == [b"q", [b"third", b"fourth"]]
    await cluster.settle(primary, replica)
    assert replica.execute("LRANGE", "q", 0, -1) == [b"fifth"]
    assert replica.execute("LRANGE", "r", 0, -1) == [b"second"]


# -- time -------------------------------------------------------------------------------------------------------------


@in_cluster
async def test_what_expires_on_the_primary_is_hidden_and_then_deleted_on_replicas(cluster: Cluster) -> None:
    primary, replica = await start_pair(cluster)
    primary.execute("SET", "mortal", "x", "PX", 2000)
    primary.execute("HSET", "hash", "a", 1, "b", 2)
    primary.execute("HPEXPIRE", "hash", 2000, "FIELDS", 1, "a")
    await cluster.settle(primary, replica)
    cluster.network.separate(primary.replication_address)
    await trio.sleep(3)
    # Hidden by its own clock, deleted by its primary.
    assert replica.get("mortal") is None
    assert replica.execute("HGETALL", "hash") == {b"b": b"2"}
    assert b"mortal" in content(replica.store)
    assert b"mortal" not in content(primary.store)
    cluster.network.unreachable.clear()
    await cluster.settle(primary, replica)
    assert b"mortal" not in content(replica.store)
    assert replica.execute("INFO", "stats").count("expired_keys:0\r\n") == 1


@in_cluster
async def test_a_replica_deletes_nothing_of_its_own_however_often_it_is_asked(cluster: Cluster) -> None:
    primary, replica = await start_pair(cluster)
    for number in range(50):
        primary.execute("SET", f"mortal:{number}", "x", "PX", 1000 + number)
    await cluster.settle(primary, replica)
    cluster.network.separate(primary.replication_address)
    held = content(replica.store)
    position = replica.replication.position
    await trio.sleep(20)
    for number in range(50):
        assert replica.get(f"mortal:{number}") is None
        assert replica.execute("TTL", f"mortal:{number}") == -2
    assert replica.execute("KEYS", "*") == []
    await trio.sleep(20)
    assert content(replica.store) == held
    assert replica.replication.position == position


@pytest.mark.parametrize("ahead", [-3600.0, -1.0, 1.0, 3600.0])
@in_cluster
async def test_clocks_that_differ_change_nothing_that_is_held(cluster: Cluster, ahead: float) -> None:
    primary, replica = await start_pair(cluster)
    cluster.clocks[replica].ahead += ahead
    primary.execute("SET", "minutes", "x", "EX", 60)
    primary.execute("SET", "soon", "x", "PX", 500)
    primary.execute("HSET", "hash", "a", 1, "b", 2)
    primary.execute("HEXPIRE", "hash", 60, "FIELDS", 1, "a")
    primary.execute("SET", "soon", "again", "KEEPTTL")
    primary.execute("APPEND", "minutes", "y")
    await cluster.settle(primary, replica)
    assert (replica.get("minutes") is None) == (ahead > 60)
    copy = await cluster.start("copy", port=7002, upstream=primary)
    cluster.clocks[copy].ahead += ahead
    await cluster.settle(primary, replica, copy)
    await trio.sleep(2)
    await cluster.settle(primary, replica, copy)
    assert b"soon" not in content(replica.store)


@in_cluster
async def test_clocks_that_jump_change_nothing_that_is_held(cluster: Cluster) -> None:
    primary, replica = await start_pair(cluster)
    for jump in (-10_000.0, 10_000.0, 50.0, -50.0):
        for node in (primary, replica):
            primary.execute("SET", "mortal", "x", "EX", 30)
            primary.execute("RPUSH", "list", "x")
            primary.execute("EXPIRE", "list", 40)
            await trio.sleep(0.2)
            cluster.clocks[node].ahead += jump
            primary.execute("RPUSH", "list", "y")
            primary.execute("INCR", "counter")
            await trio.sleep(3)
            await cluster.settle(primary, replica)
            assert upstream(replica).state == "connected"
    copy = await cluster.start("copy", port=7002, upstream=primary)
    await cluster.settle(primary, replica, copy)


# -- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-random", "volatile-ttl"])
@in_cluster
async def test_what_the_primary_evicts_goes_on_replicas_too_and_they_evict_nothing(
    cluster: Cluster, policy: str
) -> None:
    primary, replica = await start_pair(cluster)
    replica.execute("CONFIG", "SET", "maxmemory", 1000, "maxmemory-policy", "allkeys-lru")
    used = primary.server.rates.memory()
    primary.execute("CONFIG", "SET", "maxmemory", used + 40_000, "maxmemory-policy", policy)
    for number in range(100):
        primary.execute("SET", f"k:{number}", "x" * 1000, "EX", 10_000 + number)
    await cluster.settle(primary, replica)
    assert 10 < primary.execute("DBSIZE") < 90
    assert "evicted_keys:0\r\n" in replica.execute("INFO", "stats")


# -- all at once ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@in_cluster
async def test_random_writes_over_links_that_break_end_in_equal_copies(cluster: Cluster, seed: int) -> None:
    """Clients write whatever comes to mind while replicas, one of them a copy of a copy, come, go and are cut off."""
    draw = random.Random(seed)

    def disturb(wire: Wire) -> None:
        wire.outward.latency = draw.choice((0.0, 0.001, 0.02))
        wire.outward.grain = draw.choice((1, 7, 1000, 1 << 20))
        if draw.random() < 0.6:
            wire.outward.limit = draw.randrange(20_000)

    primary = await cluster.start("primary", port=7000, replication_buffer_size=30_000)
    nodes = [await cluster.start("near", port=7001, upstream=primary)]
    nodes.append(await cluster.start("far", port=7002, upstream=nodes[0]))
    ports = {node.replication_address for node in (primary, nodes[0])}
    cluster.network.on_connect = lambda wire: disturb(wire) if wire.address in ports else None
    clients = [await cluster.connect(primary) for _ in range(3)]
    for _ in range(150):
        client = draw.choice(clients)
        key, number = f"k{draw.randrange(12)}", draw.randrange(1000)
        commands = [
            f"SET {key} {'v' * number}",
            f"SET {key} {number} PX {draw.randrange(1, 4000)}",
            f"APPEND {key} {number}",
            f"DEL {key}",
            f"PEXPIRE {key} {draw.randrange(3000)}",
            f"RPUSH l{key} {number} {number}",
            f"LMOVE l{key} lk1 LEFT RIGHT",
            f"LPOP l{key} 3",
            f"HSET h{key} {number % 7} {number}",
            f"HPEXPIRE h{key} {draw.randrange(1, 3000)} FIELDS 1 {number % 7}",
            f"SADD s{key} {number % 9}",
            f"SPOP s{key}",
            f"ZINCRBY z{key} 0.1 {number % 5}",
            f"ZPOPMIN z{key}",
        ]
        if draw.random() < 0.03:
            commands.append("FLUSHALL")
        lines = draw.choices(commands, k=draw.randrange(1, 8))
        if draw.random() < 0.3:
            lines = ["MULTI", *lines, "EXEC"]
        await client.pipeline(*lines)
        if draw.random() < 0.3:
            await trio.sleep(draw.choice((0.001, 0.01, 0.3)))
        if draw.random() < 0.03:
            cluster.network.cut(draw.choice(sorted(ports)))
    assert sum(cluster.network.connected[port] for port in ports) > 4
    cluster.network.on_connect = None
    for wire in cluster.network.wires:
        for lane in wire.lanes:
            lane.limit, lane.grain = None, 1 << 20
    primary.set("the", "end")
    # What is due to expire does, and the replicas are told.
    await trio.sleep(5)
    await cluster.settle(primary, *nodes)
    late = await cluster.start("late", port=7003, upstream=nodes[1])
    await cluster.settle(primary, *nodes, late)
