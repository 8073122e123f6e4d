"""Snapshots on their way: written under, flushed under, cut after any byte, given up. Nobody ever sees half of one."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from support.cluster import (
    Cluster,
    assert_equal,
    fill,
    fill_much,
    follow,
    in_cluster,
    last_sync,
    seen,
    syncs,
    upstream,
)
from support.network import Wire
from support.store_harness import Content, content

from kevynode import Node


def slowly(wire: Wire) -> None:
    """Let what a primary sends arrive in small pieces, each a little later."""
    wire.outward.capacity = wire.outward.grain = 10_000
    wire.outward.pause = 0.01


async def start_two(cluster: Cluster, size: int = 200_000, **options: Any) -> tuple[Node, Node, Content]:
    """A primary with that many bytes, a node with quite other data, and what these are."""
    primary = await cluster.start("primary", port=7000, **options)
    fill(primary)
    fill_much(primary, size)
    node = await cluster.start("node", port=7001)
    fill(node, " old")
    node.set("old", "data")
    return primary, node, content(node.store)


@asynccontextmanager
async def never_half(node: Node, *allowed: Content) -> AsyncIterator[None]:
    """Assert that a node holds one of some contents, and answers from it, whenever anybody looks."""

    async def watch() -> None:
        while True:
            assert not node.server.loading
            assert content(node.store) in allowed
            await trio.sleep(0.003)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        yield
        nursery.cancel_scope.cancel()


# -- while it is under way --------------------------------------------------------------------------------------------


@in_cluster
async def test_old_data_serve_until_the_new_are_complete(cluster: Cluster) -> None:
    primary, node, old = await start_two(cluster)
    cluster.network.on_connect = slowly
    async with never_half(node, old, content(primary.store)):
        follow(node, primary)
        await cluster.until(lambda: upstream(node).sync_bytes > 50_000)
        assert node.get("old") == b"data"
        assert upstream(node).state == "sync"
        assert b"master_sync_in_progress:1" in node.execute("INFO", "replication").encode()
        assert seen(primary, "node").state == "send_bulk"
        await cluster.settle(primary, node)
    assert node.get("old") is None
    record = last_sync(node)
    assert record.duration is not None
    assert record.duration > 0.1
    assert record.size > 200_000


@pytest.mark.parametrize("seed", range(3))
@in_cluster
async def test_what_is_written_meanwhile_follows(cluster: Cluster, seed: int) -> None:
    draw = random.Random(seed)
    primary, node, old = await start_two(cluster)
    cluster.network.on_connect = slowly
    follow(node, primary)
    await cluster.until(lambda: upstream(node).sync_bytes > 0)
    rounds = 0
    while upstream(node).state == "sync":
        assert content(node.store) == old
        rounds += 1
        for _ in range(draw.randrange(20)):
            key = f"much:{draw.randrange(200)}"
            match draw.randrange(6):
                case 0:
                    primary.execute("DEL", key)
                case 1:
                    primary.execute("APPEND", key, "x")
                case 2:
                    primary.execute("PEXPIRE", key, draw.randrange(1, 400))
                case 3:
                    primary.execute("RENAME", "list", "set" if primary.execute("EXISTS", "set") else "list")
                    primary.execute("RPUSH", "list", draw.random())
                case 4:
                    primary.execute("ZINCRBY", "zset", draw.random(), "low")
                case 5:
                    primary.execute("HSET", "hash", draw.randrange(50), draw.random())
        await trio.sleep(0.005)
    assert rounds > 20
    await trio.sleep(1)
    await cluster.settle(primary, node)
    assert syncs(primary) == (1, 0, 1)


@pytest.mark.parametrize("command", ["FLUSHALL", "FLUSHDB ASYNC"])
@in_cluster
async def test_a_flush_meanwhile_follows(cluster: Cluster, command: str) -> None:
    primary, node, old = await start_two(cluster)
    cluster.network.on_connect = slowly
    frozen = content(primary.store)
    async with never_half(node, old, frozen, {}, {b"after": (b"1", None)}):
        follow(node, primary)
        await cluster.until(lambda: upstream(node).sync_bytes > 50_000)
        primary.execute(*command.split())
        primary.set("after", "1")
        await cluster.settle(primary, node)
    assert node.execute("KEYS", "*") == [b"after"]
    assert syncs(primary) == (1, 0, 1)


@in_cluster
async def test_several_replicas_are_sent_snapshots_at_once(cluster: Cluster) -> None:
    primary, node, _ = await start_two(cluster)
    cluster.network.on_connect = slowly
    follow(node, primary)
    await cluster.until(lambda: upstream(node).sync_bytes > 50_000)
    others = [await cluster.start(f"other{n}", port=7002 + n, upstream=primary) for n in range(2)]
    for number in range(30):
        primary.set(f"much:{number}", "changed")
        await trio.sleep(0.003)
    await cluster.settle(primary, node, *others)
    assert syncs(primary) == (3, 0, 1)


# -- broken off -------------------------------------------------------------------------------------------------------


def cuts(size: int) -> list[int]:
    """After how many bytes to cut: each of the first, and some of all others."""
    return [*range(0, 120, 3), *range(120, size, max(1, size // 40)), *range(size - 30, size, 3)]


@in_cluster
async def test_a_snapshot_that_is_cut_after_any_byte_leaves_the_old_data(cluster: Cluster) -> None:
    primary, node, old = await start_two(cluster, 3_000)
    # How long the whole of it is, up to the end of the snapshot.
    cluster.network.on_connect = lambda wire: setattr(wire.outward, "record", bytearray())
    probe = await cluster.start("probe", port=7002, upstream=primary)
    await cluster.settle(primary, probe)
    recorded = cluster.network.to(primary.replication_address)[0].outward.record
    assert recorded is not None
    size = bytes(recorded).index(b"+SNAPSHOT_END") + len(b"+SNAPSHOT_END 00\r\n") - 1
    await cluster.kill(probe)
    limits = iter(cuts(size))
    cut: list[int] = []

    def cut_off(wire: Wire) -> None:
        assert content(node.store) == old
        wire.outward.limit = next(limits, None)
        cut.append(wire.outward.limit or 0)

    cluster.network.on_connect = cut_off
    follow(node, primary)
    while len(cut) < len(cuts(size)):
        assert content(node.store) == old
        assert not node.server.loading
        # Not to wait for so long between two attempts.
        await trio.sleep(0.5)
    await cluster.settle(primary, node)
    assert len(cut) == len(cuts(size)) + 1
    assert node.get("old") is None


@in_cluster
async def test_a_handshake_that_is_cut_after_any_byte_costs_nothing(cluster: Cluster) -> None:
    primary, node, old = await start_two(cluster, 1_000)
    limits = iter(range(0, 140, 5))
    left = 28

    def cut_off(wire: Wire) -> None:
        nonlocal left
        wire.inward.limit = next(limits, None)
        left -= 1

    cluster.network.on_connect = cut_off
    follow(node, primary)
    while left > 0:
        assert content(node.store) in (old, content(primary.store))
        if node.get("old") is None:
            cluster.network.cut(primary.replication_address)
        await trio.sleep(0.5)
    await cluster.settle(primary, node)
    primary.set("and", "on")
    await cluster.settle(primary, node)


@pytest.mark.parametrize("at", [0, 40_000, 150_000])
@in_cluster
async def test_a_primary_that_is_killed_in_the_middle_leaves_the_old_data(cluster: Cluster, at: int) -> None:
    primary, node, old = await start_two(cluster)
    cluster.network.on_connect = slowly
    follow(node, primary)
    await cluster.until(lambda: upstream(node).sync_bytes > at)
    await cluster.kill(primary)
    await cluster.until(lambda: upstream(node).state == "connect")
    assert content(node.store) == old
    primary = await cluster.restart(primary)
    fill(primary, " new")
    await cluster.settle(primary, node)


@pytest.mark.parametrize("at", [0, 40_000, 150_000])
@in_cluster
async def test_whoever_is_sent_elsewhere_in_the_middle_leaves_the_old_data(cluster: Cluster, at: int) -> None:
    primary, node, old = await start_two(cluster)
    other = await cluster.start("other", port=7002)
    fill_much(other, 30_000)
    cluster.network.on_connect = slowly
    follow(node, primary)
    await cluster.until(lambda: upstream(node).sync_bytes > at)
    follow(node, other)
    await trio.testing.wait_all_tasks_blocked()
    assert content(node.store) == old
    await cluster.settle(other, node)
    # Nothing is left of it at the primary but a place that will expire.
    assert seen(primary, "node").state == "waiting"
    held = primary.server.view.backlog()
    assert held.first == held.next == primary.replication.position


@pytest.mark.parametrize("at", [0, 40_000, 150_000])
@in_cluster
async def test_whoever_is_promoted_in_the_middle_keeps_the_old_data(cluster: Cluster, at: int) -> None:
    primary, node, old = await start_two(cluster)
    cluster.network.on_connect = slowly
    history, position = node.replication.history, node.replication.position
    follow(node, primary)
    await cluster.until(lambda: upstream(node).sync_bytes > at)
    node.execute("REPLICAOF", "NO", "ONE")
    node.set("new", "1")
    await trio.sleep(5)
    assert content(node.store) == old | {b"new": (b"1", None)}
    assert node.server.view.previous == (history, position)
    # The memory of what had come is given back.
    assert not node.store.discarded
    assert_equal(node)


@in_cluster
async def test_a_snapshot_that_is_damaged_is_thrown_away_and_said_so(cluster: Cluster) -> None:
    primary, node, old = await start_two(cluster, 3_000)
    damaged = False

    class Damaging:
        """Turns the first op of the first snapshot into one that does not exist."""

        def __init__(self, wire: Wire) -> None:
            self._take = wire.outward.take
            wire.outward.take = self.take  # type: ignore[method-assign]

        def take(self, most: int | None) -> bytes:
            nonlocal damaged
            data = self._take(most)
            if b"KEVYSNAP\x06" in data and not damaged:
                damaged = True
                data = data.replace(b"KEVYSNAP\x06\x00", b"KEVYSNAP\x06\x63", 1)
                data = data.replace(b"KEVYSNAP\x06", b"KEVYSNAP\x63", 1)
            return data

    def damage(wire: Wire) -> None:
        if wire.address == primary.replication_address:
            Damaging(wire)

    cluster.network.on_connect = damage
    follow(node, primary)
    await cluster.until(lambda: damaged)
    await trio.testing.wait_all_tasks_blocked()
    assert content(node.store) == old
    assert "sent a bad snapshot" in upstream(node).problem
    await cluster.settle(primary, node)
    assert syncs(primary) == (2, 0, 2)


# -- more than can be held --------------------------------------------------------------------------------------------


@in_cluster
async def test_a_snapshot_under_which_too_much_is_written_is_given_up_and_tried_again_later(cluster: Cluster) -> None:
    primary, node, old = await start_two(cluster, 1_000_000, replication_buffer_size=100_000)
    cluster.network.on_connect = slowly
    follow(node, primary)
    await cluster.until(lambda: upstream(node).sync_bytes > 0)
    memory = []
    while not any("more was written" in facts["reason"] for facts in cluster.logged("primary", "replica_disconnected")):
        primary.set(f"hot:{primary.replication.position % 10}", "x" * 5_000)
        memory.append(primary.server.view.backlog().memory)
        assert content(node.store) == old
        await trio.sleep(0.01)
    # A pin may stretch the budget to twice its size, and the newest block comes on top of it.
    assert 150_000 < max(memory) < 2 * 100_000 + 100_000
    assert content(node.store) == old
    # It waits before it tries again.
    given_up = trio.current_time()
    await cluster.until(lambda: syncs(primary)[0] == 2)
    assert trio.current_time() - given_up > 0.5
    await cluster.settle(primary, node)
    assert syncs(primary)[1] == 0


@in_cluster
async def test_what_is_written_within_twice_the_budget_is_kept_for_a_snapshot(cluster: Cluster) -> None:
    primary, node, _ = await start_two(cluster, 600_000, replication_buffer_size=200_000)
    cluster.network.on_connect = slowly
    follow(node, primary)
    await cluster.until(lambda: upstream(node).sync_bytes > 0)
    for number in range(50):
        primary.set(f"more:{number}", "x" * 5_000)
        await trio.sleep(0.002)
    assert upstream(node).state == "sync"
    assert primary.server.view.backlog().memory > 200_000
    await cluster.settle(primary, node)
    assert syncs(primary) == (1, 0, 1)
    assert node.execute("EXISTS", "more:0", "more:49") == 2
