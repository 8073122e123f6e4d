"""Nodes that keep files: what clients were told is there when the process is killed, or the power goes."""

from __future__ import annotations

import random
from typing import Any

import pytest
import trio
from support.cluster import Cluster, ErrorReply, assert_equal, fill, in_cluster, syncs
from support.durable_clients import Promises, SlowJobs
from support.kept_files import files, opened
from support.store_harness import content

from kevynode import Node
from kevynode.persist.gate import MOST_EXPOSED

ALL_POLICIES = pytest.mark.parametrize("policy", ["always", "everysec", "no"])


async def rewrite_again_and_again(node: Node, pause: float) -> None:
    """Have the file of a node rewritten, whenever it is not being rewritten, until it ends."""
    while (facts := node.persistence.append_only()).enabled:
        if facts.rewrite_running is None:
            node.persistence.rewrite()
        await trio.sleep(pause)


# -- acknowledged is there --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
@ALL_POLICIES
@in_cluster
async def test_what_was_acknowledged_outlives_the_process(cluster: Cluster, policy: str, seed: int) -> None:
    draw = random.Random(f"{policy} {seed}")
    slow: list[SlowJobs] = []
    cluster.on_node = lambda node: slow.append(SlowJobs(node, lambda: draw.choice([0.0, 0.001, 0.05, 3.0])))
    promises = Promises(cluster)
    node = await cluster.start("node", port=7000, persistence=files(policy))
    for life in range(3):
        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(promises.write, node, f"{number}", draw.choice([0.02, 0.1, 0.3]))
            nursery.start_soon(promises.read, node, "1", 0.02)
            nursery.start_soon(rewrite_again_and_again, node, draw.choice([0.05, 1.0]))
            await trio.sleep(draw.random() * 5)
            kept, seen = promises.so_far(), dict(promises.seen)
            if policy == "always" and draw.random() < 0.8:
                await cluster.lose_power(node, life)
            else:
                await cluster.kill(node)
            nursery.cancel_scope.cancel()
        node = await cluster.restart(node)
        promises.check(node.store, kept)
        if policy == "always":
            promises.check(node.store, seen)
        promises.seen.clear()
    assert len(promises.kept) == 6
    assert sum(promises.kept.values()) > 50
    assert promises.errors == []


@pytest.mark.parametrize("seed", range(4))
@in_cluster
async def test_nobody_is_ahead_of_a_primary_that_lost_its_power(cluster: Cluster, seed: int) -> None:
    draw = random.Random(seed)
    cluster.on_node = lambda node: SlowJobs(node, lambda: draw.choice([0.0, 0.001, 0.05]))
    promises = Promises(cluster)
    primary = await cluster.start("primary", port=7000, persistence=files("always"))
    replica = await cluster.start("replica", port=7001, upstream=primary, persistence=files("always"))
    other = await cluster.start("other", port=7002, upstream=primary)
    histories = {primary.replication.history}
    for life in range(4):
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(promises.write, primary, f"{number}", 0.02)
            nursery.start_soon(rewrite_again_and_again, primary, 0.1)
            await trio.sleep(draw.random())
            await cluster.lose_power(primary, draw.randrange(1000))
            nursery.cancel_scope.cancel()
        if life == 2:
            await cluster.lose_power(replica, draw.randrange(1000))
            replica = await cluster.restart(replica)
        primary = await cluster.restart(primary)
        assert primary.replication.history not in histories
        histories.add(primary.replication.history)
        promises.check(primary.store)
        primary.set("life", f"{life}")
        await cluster.settle(primary, replica, other)
        assert primary.replication.beyond_branch == 0
        # Nobody needs a copy, unless the base of a rewrite holds what it lacks.
        assert syncs(primary)[1] >= 1


@in_cluster
async def test_many_clients_share_a_sync(cluster: Cluster) -> None:
    node = await cluster.start("node", port=7000, persistence=files("always"))
    clients = [await cluster.connect(node) for _ in range(30)]
    before = sum(call.method == "sync" for call in cluster.disk("node").calls)
    writes = sum(call.method == "write" for call in cluster.disk("node").calls)
    for client in clients:
        await client.send("INCR", "number")
    assert sorted([await client.reply() for client in clients]) == list(range(1, 31))
    calls = cluster.disk("node").calls
    # Each stream has a round of its own here; the hub has one for all.
    assert sum(call.method == "sync" for call in calls) - before == sum(c.method == "write" for c in calls) - writes
    for seed in range(5):
        found = await opened(cluster, cluster.disk("node").crash(seed))
        assert found == content(node.store)


@in_cluster
async def test_what_a_blocked_client_takes_is_taken_for_good(cluster: Cluster) -> None:
    node = await cluster.start("node", port=7000, persistence=files())
    slow = SlowJobs(node)
    taker, giver = await cluster.connect(node), await cluster.connect(node)
    await taker.send("BLPOP", "list", "0")
    await trio.sleep(0.1)
    slow.hold()
    node.execute("BGREWRITEAOF")
    await cluster.until(lambda: slow.running == 1)
    await giver.send("RPUSH", "list", "one", "two")
    told = []

    async def listen() -> None:
        told.append(await taker.reply())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await trio.sleep(0.5)
        # The answer says that it is gone from the list, which no file says yet.
        assert told == []
        assert await opened(cluster, cluster.disk("node").kill()) == {}
        slow.release()
    assert told == [[b"list", b"one"]]
    await cluster.kill(node)
    node = await cluster.restart(node)
    assert node.execute("LRANGE", "list", 0, -1) == [b"two"]


# -- everysec, and a slow disk ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@in_cluster
async def test_everysec_loses_two_seconds_at_most(cluster: Cluster, seed: int) -> None:
    """From the first transaction that was acknowledged and is lost to the last one, however slow the disk is."""
    draw = random.Random(seed)
    cluster.on_node = lambda node: SlowJobs(node, lambda: draw.choice([0.0, 0.1, 2.5, 6.0]))
    node = await cluster.start("node", port=7000, persistence=files())
    answered: list[tuple[float, int]] = []

    async def write() -> None:
        client = await cluster.connect(node)
        while True:
            number = await client.call("INCR", "number")
            answered.append((trio.current_time(), number))
            await trio.sleep(0.04)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        if seed % 2:
            nursery.start_soon(rewrite_again_and_again, node, 0.5)
        for crash in range(8):
            await trio.sleep(draw.random() * 5)
            told = answered.copy()
            found = await opened(cluster, cluster.disk("node").crash(crash))
            number = int(found.get(b"number", (b"0", None))[0])
            lost = [when for when, value in told if value > number]
            assert not lost or lost[-1] - lost[0] <= MOST_EXPOSED
        nursery.cancel_scope.cancel()


@in_cluster
async def test_a_sync_that_takes_long_holds_writers_and_lets_readers_go_on(cluster: Cluster) -> None:
    node = await cluster.start("node", port=7000, persistence=files())
    slow = SlowJobs(node)
    writer, reader = await cluster.connect(node), await cluster.connect(node)
    slow.hold()
    assert await writer.call("SET", "key", "1") == "OK"
    await trio.sleep(3.5)
    assert node.persistence.append_only().sync_running
    await writer.send("SET", "key", "2")
    assert await reader.call("GET", "key") in {b"1", b"2"}
    assert await reader.call("GET", "key") == b"2"
    with trio.move_on_after(20) as waiting:
        await writer.reply()
    assert waiting.cancelled_caught
    assert b"aof_delayed_fsync:1\r\n" in await reader.call("INFO", "persistence")
    slow.release()
    assert await writer.reply() == "OK"
    assert await writer.call("SET", "key", "3") == "OK"


@in_cluster
async def test_a_flush_does_not_wait_for_the_clock(cluster: Cluster) -> None:
    node = await cluster.start("node", port=7000, persistence=files("no"))
    SlowJobs(node, lambda: 0.01)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(20):
            node.set("key", f"{number}")
            nursery.start_soon(node.flush)
            await trio.sleep(0.003)
    assert trio.current_time() - began < 0.2
    for seed in range(5):
        assert await opened(cluster, cluster.disk("node").crash(seed)) == {b"key": (b"19", None)}


# -- WAITAOF ----------------------------------------------------------------------------------------------------------


@in_cluster
async def test_waitaof_waits_for_the_disk(cluster: Cluster) -> None:
    node = await cluster.start("node", port=7000, persistence=files())
    client = await cluster.connect(node)
    for number in range(3):
        await client.call("SET", "key", number)
        assert await client.call("WAITAOF", "1", "0", "0") == [1, 0]
        for seed in range(5):
            found = await opened(cluster, cluster.disk("node").crash(seed))
            assert found == {b"key": (f"{number}".encode(), None)}


@in_cluster
async def test_waitaof_waits_for_the_first_base(cluster: Cluster) -> None:
    node = await cluster.start("node", port=7000)
    fill(node)
    slow = SlowJobs(node)
    slow.hold()
    client = await cluster.connect(node)
    await client.call("SET", "key", "1")
    assert await client.call("CONFIG", "SET", "appendonly", "yes") == "OK"
    assert await client.call("WAITAOF", "1", "0", "3000") == [0, 0]
    slow.release()
    assert await client.call("WAITAOF", "1", "0", "0") == [1, 0]
    for seed in range(5):
        assert await opened(cluster, cluster.disk("node").crash(seed)) == content(node.store)


# -- histories --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["everysec", "no"])
@in_cluster
async def test_a_primary_that_loses_its_power_again_and_again_never_numbers_twice(
    cluster: Cluster, policy: str
) -> None:
    """Whoever follows it finds out what is gone: by the history, whether there is a common past."""
    draw = random.Random(policy)
    primary = await cluster.start("primary", port=7000, persistence=files(policy))
    fill(primary)
    replica = await cluster.start("replica", port=7001, upstream=primary, persistence=files(policy))
    known: dict[tuple[int, int], Any] = {}
    for life in range(8):
        await cluster.settle(primary, replica)
        for number in range(draw.randrange(1, 20)):
            primary.execute("RPUSH", f"list{life}", number)
            primary.execute("SET", "life", life * 100 + number)
            place = (primary.replication.history, primary.replication.position)
            assert known.setdefault(place, life * 100 + number) == life * 100 + number
            await trio.sleep(draw.choice([0, 0.01, 0.4]))
        victim = draw.choice([primary, primary, replica])
        await cluster.lose_power(victim, draw.randrange(1000))
        if victim is primary:
            primary = await cluster.restart(primary)
        else:
            replica = await cluster.restart(replica)
        assert_equal(primary)
    await cluster.settle(primary, replica)


@in_cluster
async def test_a_client_is_answered_while_an_error_is_no_acknowledgement(cluster: Cluster) -> None:
    node = await cluster.start("node", port=7000, persistence=files("always"))
    client = await cluster.connect(node)
    await client.call("SET", "text", "x")
    assert isinstance(await client.call("INCR", "text"), ErrorReply)
    assert await client.call("GET", "text") == b"x"
