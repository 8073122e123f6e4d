"""Nodes that follow each other, are killed, lose power, are promoted and come back: they agree in the end."""

from __future__ import annotations

import random

import pytest
import trio
from support.cluster import Cluster, fill, follow, in_cluster, last_sync, syncs
from support.durable_clients import Promises, SlowJobs
from support.kept_files import files
from support.memory_disk import MemoryDisk
from support.store_harness import content


def slowly(cluster: Cluster, draw: random.Random) -> None:
    """Let syncs take time on all disks."""
    cluster.on_node = lambda node: SlowJobs(node, lambda: draw.choice([0.0, 0.0, 0.01, 0.1]))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("policy", ["always", "everysec"])
@in_cluster
async def test_a_chain_of_three_whose_nodes_come_and_go(cluster: Cluster, policy: str, seed: int) -> None:
    draw = random.Random(f"{policy} {seed}")
    slowly(cluster, draw)
    promises = Promises(cluster)
    names = ["first", "middle", "last"]
    first = await cluster.start("first", port=7000, persistence=files(policy))
    fill(first)
    middle = await cluster.start("middle", port=7001, upstream=first, persistence=files(policy))
    last = await cluster.start("last", port=7002, upstream=middle, persistence=files(policy))
    nodes = dict(zip(names, (first, middle, last), strict=True))
    await cluster.settle(*nodes.values())
    for _ in range(6):
        victim = draw.choice(names)
        how = draw.choice(["kill", "kill", "stop", "power"])
        async with trio.open_nursery() as nursery:
            for number in range(2):
                nursery.start_soon(promises.write, nodes["first"], f"{number}", 0.03)
            await trio.sleep(draw.random())
            if draw.random() < 0.3:
                nodes[draw.choice(names)].persistence.rewrite()
            kept = promises.so_far()
            match how:
                case "kill":
                    await cluster.kill(nodes[victim])
                case "stop":
                    await cluster.stop(nodes[victim])
                case "power":
                    await cluster.lose_power(nodes[victim], draw.randrange(1000))
            await trio.sleep(draw.choice([0.0, 0.1, 1.0]))
            # Who writes to the first one finds nobody there, and ends.
            nodes[victim] = await cluster.restart(nodes[victim])
            if victim == "first" and (policy == "always" or how != "power"):
                promises.check(nodes["first"].store, kept)
            await trio.sleep(draw.random())
            nursery.cancel_scope.cancel()
        await cluster.settle(*nodes.values())
        # Nobody had heard of what was lost.
        assert nodes["first"].replication.beyond_branch == 0 or (how == "power" and policy == "everysec")
    for node in nodes.values():
        await node.flush()
        assert content(node.store) == content(nodes["first"].store)
    for name in names:
        await cluster.lose_power(nodes[name], seed)
    again = {name: await cluster.restart(nodes[name]) for name in names}
    await cluster.settle(*again.values())
    assert content(again["last"].store) == content(again["first"].store)


@pytest.mark.parametrize("seed", range(4))
@in_cluster
async def test_a_failover_and_the_old_primary_comes_back(cluster: Cluster, seed: int) -> None:
    """The promoted node's history is durable; the old primary gives up what only it had."""
    draw = random.Random(seed)
    slowly(cluster, draw)
    one = await cluster.start("one", port=7000, persistence=files("always"))
    other = await cluster.start("other", port=7001, persistence=files("always"))
    follow(other, one)
    promises = Promises(cluster)
    nodes = [one, other]
    for _ in range(4):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(promises.write, nodes[0], "1", 0.02)
            await trio.sleep(draw.random())
            nursery.cancel_scope.cancel()
        await cluster.settle(*nodes)
        nodes[0].set("only", "here")
        await cluster.lose_power(nodes[0], draw.randrange(1000))
        nodes[1].execute("REPLICAOF", "NO", "ONE")
        client = await cluster.connect(nodes[1])
        await client.call("SET", "promoted", nodes[1].config.cluster.node_id)
        if draw.random() < 0.5:
            await cluster.lose_power(nodes[1], draw.randrange(1000))
            nodes[1] = await cluster.restart(nodes[1])
        assert nodes[1].get("promoted") == nodes[1].config.cluster.node_id.encode()
        promises.check(nodes[1].store)
        nodes[0] = await cluster.restart(nodes[0])
        follow(nodes[0], nodes[1])
        nodes.reverse()
        await cluster.settle(*nodes)
        promises.check(nodes[1].store)


@in_cluster
async def test_a_primary_without_a_backlog_in_memory_sends_what_its_files_hold(cluster: Cluster) -> None:
    primary = await cluster.start("primary", port=7000, persistence=files())
    replica = await cluster.start("replica", port=7001, upstream=primary, persistence=files())
    fill(primary)
    await cluster.settle(primary, replica)
    await cluster.kill(replica)
    fill(primary, " more")
    await primary.flush()
    await cluster.lose_power(primary, 1)
    primary = await cluster.restart(primary)
    replica = await cluster.restart(replica)
    await cluster.settle(primary, replica)
    assert last_sync(replica).kind == "partial"
    assert syncs(primary) == (0, 1, 0)


@in_cluster
async def test_a_disk_that_is_put_back_to_what_it_was_is_found_out(cluster: Cluster) -> None:
    """Somebody restores an older copy of the folder: its numbers are given anew, in another history."""
    primary = await cluster.start("primary", port=7000, persistence=files("always"))
    fill(primary)
    await primary.flush()
    old: MemoryDisk = cluster.disk("primary").kill()
    replica = await cluster.start("replica", port=7001, upstream=primary, persistence=files("always"))
    fill(primary, " more")
    await cluster.settle(primary, replica)
    await cluster.kill(primary)
    cluster.disks["primary"] = old
    primary = await cluster.restart(primary)
    for number in range(40):
        primary.set("key", f"{number}")
    await cluster.settle(primary, replica)
    assert primary.replication.beyond_branch > 0
    assert last_sync(replica).kind == "full"
