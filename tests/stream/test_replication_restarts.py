"""Nodes that keep files and are restarted: copies go on where they stood, and hear of nothing that may be lost."""

from __future__ import annotations

import random
from typing import Any, Final

import pytest
import trio
from support.cluster import Cluster, ErrorReply, assert_equal, fill, in_cluster, last_sync, seen, syncs, upstream
from support.store_harness import content

from kevynode import Node

#: What is kept, and when it is durable.
FILES: Final = {"aof": True, "appendfsync": "everysec"}


async def start_pair(cluster: Cluster, **options: Any) -> tuple[Node, Node]:
    """A primary with data of every type and a replica of it, both with files, which agree."""
    primary = await cluster.start("primary", port=7000, persistence=FILES, **options)
    fill(primary)
    replica = await cluster.start("replica", port=7001, upstream=primary, persistence=FILES)
    await cluster.settle(primary, replica)
    return primary, replica


async def restarted(cluster: Cluster, node: Node, how: str) -> Node:
    """The same node in its next life."""
    await (cluster.kill(node) if how == "killed" else cluster.stop(node))
    return await cluster.restart(node)


HOW = pytest.mark.parametrize("how", ["killed", "stopped"])


@HOW
@in_cluster
async def test_a_replica_that_was_restarted_goes_on(cluster: Cluster, how: str) -> None:
    primary, replica = await start_pair(cluster)
    history = replica.replication.history
    await cluster.acknowledged(primary)
    replica = await restarted(cluster, replica, how)
    assert replica.get("string") == b"plain"
    fill(primary, " missed")
    await cluster.settle(primary, replica)
    assert (syncs(primary), last_sync(replica).kind) == ((1, 1, 0), "partial")
    assert replica.replication.history == history
    # It is known to be the same one.
    assert [facts.state for facts in primary.server.view.replicas()] == ["online"]


@HOW
@in_cluster
async def test_a_replica_that_is_restarted_again_and_again_is_no_second_node(cluster: Cluster, how: str) -> None:
    primary, replica = await start_pair(cluster)
    for _ in range(8):
        replica = await restarted(cluster, replica, how)
        await cluster.settle(primary, replica)
    assert syncs(primary) == (1, 8, 0)
    assert cluster.logged("primary", "replica_refused") == []
    assert len(primary.server.view.replicas()) == 1


@HOW
@in_cluster
async def test_replicas_of_a_primary_that_was_restarted_go_on(cluster: Cluster, how: str) -> None:
    primary, replica = await start_pair(cluster)
    old = primary.replication.history
    position = primary.replication.position
    primary = await restarted(cluster, primary, how)
    assert primary.replication.lineage.ancestors == ((old, position),)
    fill(primary, " more")
    await cluster.settle(primary, replica)
    assert (syncs(primary), last_sync(replica).kind) == ((0, 1, 0), "partial")
    assert replica.replication.lineage == primary.replication.lineage


@in_cluster
async def test_a_replica_that_was_behind_gets_the_rest_from_the_files(cluster: Cluster) -> None:
    primary, replica = await start_pair(cluster)
    await cluster.stop(replica)
    fill(primary, " missed")
    primary.execute("DEL", "set")
    primary = await restarted(cluster, primary, "killed")
    fill(primary, " more")
    replica = await cluster.restart(replica)
    await cluster.settle(primary, replica)
    assert syncs(primary) == (0, 1, 0)
    assert "entries behind" in seen(primary, "replica").last_sync.reason  # type: ignore[union-attr]


@in_cluster
async def test_after_a_rewrite_the_files_hold_no_more_than_the_data(cluster: Cluster) -> None:
    primary, replica = await start_pair(cluster)
    await cluster.stop(replica)
    fill(primary, " missed")
    primary.execute("BGREWRITEAOF")
    facts = primary.server.persistence.append_only
    await cluster.until(lambda: facts().rewrites == 1)
    primary = await restarted(cluster, primary, "stopped")
    replica = await cluster.restart(replica)
    await cluster.settle(primary, replica)
    assert syncs(primary) == (1, 0, 1)


@HOW
@in_cluster
async def test_a_whole_chain_goes_on_when_its_middle_is_restarted(cluster: Cluster, how: str) -> None:
    primary, middle = await start_pair(cluster)
    last = await cluster.start("last", port=7002, upstream=middle, persistence=FILES)
    await cluster.settle(primary, last)
    middle = await restarted(cluster, middle, how)
    fill(primary, " more")
    await cluster.settle(primary, middle, last)
    assert (syncs(primary), syncs(middle)) == ((1, 1, 0), (0, 1, 0))


@in_cluster
async def test_a_whole_chain_goes_on_when_all_are_restarted(cluster: Cluster) -> None:
    primary, middle = await start_pair(cluster)
    last = await cluster.start("last", port=7002, upstream=middle, persistence=FILES)
    await cluster.settle(primary, last)
    for node in (primary, middle, last):
        await cluster.kill(node)
    last = await cluster.restart(last)
    assert last.get("string") == b"plain"
    middle = await cluster.restart(middle)
    primary = await cluster.restart(primary)
    fill(primary, " more")
    await cluster.settle(primary, middle, last)
    assert (syncs(primary)[0], syncs(middle)[0]) == (0, 0)
    assert last.replication.lineage == primary.replication.lineage


@in_cluster
async def test_a_replica_that_is_made_a_primary_by_a_restart_serves_the_old_history(cluster: Cluster) -> None:
    primary, replica = await start_pair(cluster)
    await cluster.acknowledged(primary)
    await cluster.kill(primary)
    await cluster.stop(replica)
    promoted = await cluster.start("replica", port=7000, persistence=FILES)
    assert promoted.replication.role == "master"
    primary = await cluster.start("primary", port=7001, upstream=promoted, persistence=FILES)
    fill(promoted, " more")
    await cluster.settle(promoted, primary)
    assert syncs(promoted) == (0, 1, 0)


@pytest.mark.parametrize("seed", range(6))
@in_cluster
async def test_what_a_loss_of_power_takes_from_the_primary_its_replicas_give_up(cluster: Cluster, seed: int) -> None:
    primary, replica = await start_pair(cluster)
    draw = random.Random(seed)
    for number in range(draw.randrange(1, 40)):
        primary.execute("RPUSH", f"list{number % 5}", number)
        await trio.sleep(draw.choice([0.0, 0.01, 0.5]))
    await cluster.settle(primary, replica)
    had = replica.replication.position
    await cluster.lose_power(primary, seed)
    primary = await cluster.restart(primary)
    lost = had - primary.replication.position
    assert lost >= 0
    fill(primary, " later")
    await cluster.settle(primary, replica)
    assert primary.replication.beyond_branch == lost
    assert syncs(primary) == ((1, 0, 1) if lost else (0, 1, 0))


@in_cluster
async def test_replicas_are_told_nothing_that_is_not_durable(cluster: Cluster) -> None:
    primary = await cluster.start("primary", port=7000, persistence={"aof": True, "appendfsync": "always"})
    client = await cluster.connect(primary)
    replica = await cluster.start("replica", port=7001, upstream=primary)
    await cluster.settle(primary, replica)
    for number in range(20):
        assert await client.call("SET", "k", number) == "OK"
        await cluster.until(lambda: replica.replication.position == primary.replication.position)
        assert primary.server.persistence.is_durable(replica.replication.position)
    assert replica.get("k") == b"19"


@pytest.mark.parametrize("seed", range(3))
@in_cluster
async def test_the_history_of_a_promotion_is_durable_before_anybody_hears_of_it(cluster: Cluster, seed: int) -> None:
    primary, middle = await start_pair(cluster)
    last = await cluster.start("last", port=7002, upstream=middle, persistence=FILES)
    await cluster.settle(primary, last)
    old = primary.replication.history
    middle.execute("REPLICAOF", "NO", "ONE")
    promoted = middle.replication.history
    assert promoted != old
    heard = trio.current_time()
    while last.replication.history != promoted:
        await trio.sleep(0.001)
        assert trio.current_time() < heard + 30
    left, folder = cluster.disk("replica").crash(seed), "/data/appendonlydir"
    assert any(b"history=%d " % promoted in left.content(f"{folder}/{name}") for name in left.list(folder))
    middle.set("later", "1")
    await cluster.settle(middle, last)
    assert syncs(middle) == (1, 1, 0)


@in_cluster
async def test_while_the_disk_is_full_replicas_hear_only_that_the_primary_lives(cluster: Cluster) -> None:
    primary, replica = await start_pair(cluster)
    cluster.expected_errors |= {"append_only_failed", "rewrite_failed"}
    await cluster.acknowledged(primary)
    before, position = content(replica.store), replica.replication.position
    cluster.disk("primary").fill_up()
    primary.set("unsafe", "1")
    await cluster.until(lambda: primary.server.persistence.append_only().problem)
    client = await cluster.connect(primary)
    refused = await client.call("SET", "k", "v")
    assert isinstance(refused, ErrorReply)
    assert refused.text.startswith("MISCONF")
    await trio.sleep(25)
    assert (content(replica.store), replica.replication.position) == (before, position)
    assert (upstream(replica).state, syncs(primary)) == ("connected", (1, 0, 0))
    # Who comes now is told nothing, and nobody's stream ends.
    late = await cluster.start("late", port=7002, upstream=primary)
    await trio.sleep(5)
    assert upstream(late).state == "handshake"
    cluster.disk("primary").make_room()
    await cluster.until(lambda: not primary.server.persistence.append_only().problem)
    await cluster.settle(primary, replica, late)
    assert replica.get("unsafe") == b"1"
    assert syncs(primary) == (2, 0, 0)


@pytest.mark.parametrize("seed", range(6))
@in_cluster
async def test_whoever_is_restarted_whenever_all_agree_in_the_end(cluster: Cluster, seed: int) -> None:
    draw = random.Random(seed)
    primary, middle = await start_pair(cluster)
    last = await cluster.start("last", port=7002, upstream=middle, persistence=FILES)
    nodes = [primary, middle, last]
    for _ in range(12):
        number = draw.randrange(3)
        match draw.randrange(4):
            case 0:
                nodes[number] = await restarted(cluster, nodes[number], draw.choice(["killed", "stopped"]))
            case 1:
                await cluster.lose_power(nodes[number], draw.randrange(1000))
                nodes[number] = await cluster.restart(nodes[number])
            case _:
                for _ in range(draw.randrange(20)):
                    nodes[0].execute("RPUSH", f"list{draw.randrange(5)}", draw.random())
                    if draw.random() < 0.2:
                        nodes[0].execute("LMOVE", "list0", "list1", "LEFT", "RIGHT")
        await trio.sleep(draw.choice([0.0, 0.05, 1.0, 3.0]))
    await cluster.settle(*nodes)
    assert_equal(nodes[0], *nodes[1:])
