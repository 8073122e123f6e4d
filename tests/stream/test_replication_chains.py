"""Replicas of replicas, changes of role, and who may go on with whom afterwards."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from support.cluster import (
    HOST,
    Cluster,
    assert_equal,
    fill,
    fill_much,
    in_cluster,
    last_sync,
    seen,
    syncs,
    upstream,
)
from support.store_harness import content

from kevynode import Node


async def start_chain(cluster: Cluster, count: int = 3, **options: Any) -> list[Node]:
    """Nodes of which each follows the one before, with data of every type, named "0", "1" and so on."""
    nodes: list[Node] = []
    for number in range(count):
        above = nodes[-1] if nodes else ""
        nodes.append(await cluster.start(str(number), port=7000 + number, upstream=above, **options))
    fill(nodes[0])
    await cluster.settle(nodes[0], *nodes[1:])
    return nodes


def follow(node: Node, other: Node) -> None:
    """Have a node follow another one."""
    host, _, port = other.replication_address.rpartition(":")
    assert node.execute("REPLICAOF", host, port) == "OK"


def promote(node: Node) -> None:
    """Make a node a primary."""
    assert node.execute("REPLICAOF", "NO", "ONE") == "OK"


def place(node: Node) -> tuple[int, int]:
    """Where a node stands."""
    return node.replication.history, node.replication.position


# -- copies of copies -------------------------------------------------------------------------------------------------


@in_cluster
async def test_a_chain_has_one_history_and_one_numbering(cluster: Cluster) -> None:
    nodes = await start_chain(cluster, 4)
    for number in range(50):
        nodes[0].execute("RPUSH", "list", number)
    client = await cluster.connect(nodes[0])
    await client.pipeline("MULTI", "SET a 1", "DEL list", "INCR n", "EXEC")
    await cluster.settle(nodes[0], *nodes[1:])
    assert len({place(node) for node in nodes}) == 1
    assert [syncs(node) for node in nodes] == [(1, 0, 0)] * 3 + [(0, 0, 0)]


@in_cluster
async def test_what_a_copy_passes_on_is_what_it_received_byte_for_byte(cluster: Cluster) -> None:
    nodes = await start_chain(cluster)
    recorded = []
    for node in nodes[:2]:
        (wire,) = cluster.network.to(node.replication_address)
        wire.outward.record = bytearray()
        recorded.append(wire.outward.record)
    fill(nodes[0], " again")
    client = await cluster.connect(nodes[0])
    await client.pipeline("MULTI", "SET a 1", "HSET hash f v", "FLUSHALL", "SET b 2", "EXEC")
    nodes[0].execute("SET", b"+TXN 2\r\n", b"\r\n+PING 1 1\r\n*2\r\n:7\r\n")
    await cluster.settle(nodes[0], *nodes[1:])

    def frames(stream: bytearray) -> bytes:
        """A stream without its heartbeats, which each node sends at its own times."""
        parts = bytes(stream).split(b"+PING ")
        # The one that stands in a value is not at the begin of a line with a known history.
        history = b"%d " % nodes[0].replication.history
        kept = parts[0]
        for part in parts[1:]:
            kept += part.partition(b"\r\n")[2] if part.startswith(history) else b"+PING " + part
        return kept

    assert frames(recorded[0]) == frames(recorded[1])
    assert b"+TXN 4\r\n" in recorded[1]


@in_cluster
async def test_a_copy_in_the_middle_that_is_cut_off_goes_on_and_so_do_its_followers(cluster: Cluster) -> None:
    nodes = await start_chain(cluster)
    cluster.network.separate(nodes[0].replication_address)
    fill(nodes[0], " missed")
    await cluster.until(lambda: upstream(nodes[1]).state == "connect")
    # The copy of the copy has nothing to do with that.
    assert upstream(nodes[2]).state == "connected"
    cluster.network.unreachable.clear()
    await cluster.settle(nodes[0], *nodes[1:])
    assert [syncs(node) for node in nodes] == [(1, 1, 0), (1, 0, 0), (0, 0, 0)]


@in_cluster
async def test_a_copy_in_the_middle_that_is_killed_starts_over_and_so_do_its_followers(cluster: Cluster) -> None:
    nodes = await start_chain(cluster)
    await cluster.kill(nodes[1])
    fill(nodes[0], " missed")
    nodes[1] = await cluster.restart(nodes[1])
    await cluster.settle(nodes[0], *nodes[1:])
    # Without data it served nobody; then its follower stood in a history that it knows, but before what it holds.
    assert syncs(nodes[0]) == (2, 0, 0)
    assert syncs(nodes[1]) == (1, 0, 1)
    assert "no longer held" in (seen(nodes[1], "2").last_sync or pytest.fail("none")).reason
    assert len({place(node) for node in nodes}) == 1


@in_cluster
async def test_a_copy_in_the_middle_that_is_killed_while_nothing_happens_lets_its_followers_go_on(
    cluster: Cluster,
) -> None:
    nodes = await start_chain(cluster)
    await cluster.kill(nodes[1])
    nodes[1] = await cluster.restart(nodes[1])
    await cluster.settle(nodes[0], *nodes[1:])
    assert syncs(nodes[1]) == (0, 1, 0)


@in_cluster
async def test_a_copy_in_the_middle_that_starts_over_has_its_followers_start_over(cluster: Cluster) -> None:
    nodes = await start_chain(cluster, replication_buffer_size=4096)
    cluster.network.separate(nodes[0].replication_address)
    fill_much(nodes[0])
    await cluster.until(lambda: upstream(nodes[1]).state == "connect")
    cluster.network.unreachable.clear()
    await cluster.settle(nodes[0], *nodes[1:])
    assert syncs(nodes[0]) == (2, 0, 1)
    assert syncs(nodes[1]) == (2, 0, 1)
    assert "synchronised anew" in cluster.logged("1", "replica_disconnected")[-1]["reason"]


# -- promotion --------------------------------------------------------------------------------------------------------


@in_cluster
async def test_followers_of_a_promoted_copy_go_on(cluster: Cluster) -> None:
    nodes = await start_chain(cluster, 4)
    old = place(nodes[0])
    await cluster.kill(nodes[0])
    promote(nodes[1])
    assert nodes[1].server.view.previous == old
    nodes[1].set("first", "of the new history")
    await cluster.settle(nodes[1], *nodes[2:])
    assert [syncs(node) for node in nodes[1:3]] == [(1, 1, 0), (1, 1, 0)]
    assert [node.server.view.previous for node in nodes[1:]] == [old] * 3
    assert nodes[3].get("first") == b"of the new history"


@in_cluster
async def test_survivors_of_a_primary_go_on_with_the_one_that_takes_its_place(cluster: Cluster) -> None:
    """None of them has followed another one: what the new primary needs to serve them it has kept as a copy."""
    old = await cluster.start("old", port=7000)
    fill(old)
    new = await cluster.start("new", port=7001, upstream=old)
    other = await cluster.start("other", port=7002, upstream=old)
    await cluster.settle(old, new, other)
    cluster.network.cut(old.replication_address)
    cluster.network.unreachable.add(old.replication_address)
    await cluster.kill(old)
    promote(new)
    new.set("written", "before anybody came")
    follow(other, new)
    await cluster.settle(new, other)
    assert last_sync(other).kind == "partial"
    assert syncs(new)[:2] == (0, 1)


@in_cluster
async def test_a_promoted_node_that_nobody_joins_keeps_no_backlog(cluster: Cluster) -> None:
    nodes = await start_chain(cluster, 2, reconnect_window_ms=5000)
    await cluster.kill(nodes[0])
    promote(nodes[1])
    fill_much(nodes[1])
    assert nodes[1].replication.active
    await trio.sleep(7)
    assert not nodes[1].replication.active


@in_cluster
async def test_followers_that_lag_behind_a_promotion_go_on(cluster: Cluster) -> None:
    nodes = await start_chain(cluster)
    cluster.network.separate(nodes[1].replication_address)
    fill(nodes[0], " missed by the last")
    await cluster.settle(nodes[0], nodes[1])
    promote(nodes[1])
    fill(nodes[1], " of the new history")
    cluster.network.unreachable.clear()
    await cluster.settle(nodes[1], nodes[2])
    assert syncs(nodes[1]) == (1, 1, 0)


@in_cluster
async def test_a_former_primary_that_has_nothing_of_its_own_goes_on(cluster: Cluster) -> None:
    old, new, last = await start_chain(cluster)
    promote(new)
    fill(new, " of the new history")
    follow(old, new)
    await cluster.settle(new, old, last)
    assert last_sync(old).kind == "partial"
    assert syncs(new) == (1, 2, 0)
    assert new.replication.beyond_branch == 0
    # And back again, twice across a branch.
    promote(old)
    fill(old, " of the third")
    follow(new, old)
    await cluster.settle(old, new, last)
    assert last_sync(new).kind == "partial"
    assert len(old.replication.lineage.ancestors) == 2


@in_cluster
async def test_a_former_primary_with_writes_beyond_the_branch_starts_over_and_they_are_counted(
    cluster: Cluster,
) -> None:
    old, new, last = await start_chain(cluster)
    branch = old.replication.position
    cluster.network.separate(old.replication_address)
    for number in range(7):
        old.set(f"lost {number}", "x")
    promote(new)
    new.set("kept", "1")
    follow(old, new)
    await cluster.settle(new, old, last)
    assert old.get("lost 0") is None
    assert old.get("kept") == b"1"
    assert last_sync(old).kind == "full"
    assert syncs(new) == (2, 1, 1)
    assert new.replication.beyond_branch == 7
    (facts,) = cluster.logged("1", "replica_ahead_of_branch")
    assert facts["entries"] == 7
    reason = (seen(new, "0").last_sync or pytest.fail("none")).reason
    assert f"the replica is 7 entries beyond the branch at offset {branch}" in reason


@in_cluster
async def test_followers_of_a_former_primary_beyond_the_branch_start_over_with_it(cluster: Cluster) -> None:
    old, new = await start_chain(cluster, 2)
    mate = await cluster.start("mate", port=7009, upstream=old)
    await cluster.settle(old, new, mate)
    cluster.network.separate(old.replication_address)
    promote(new)
    fill(new, " of the new history")
    cluster.network.unreachable.clear()
    old.set("lost", "1")
    await cluster.settle(old, mate)
    follow(old, new)
    await cluster.settle(new, old, mate)
    assert mate.get("lost") is None
    assert new.replication.beyond_branch == 1
    assert place(mate) == place(new)


@in_cluster
async def test_sixteen_histories_are_remembered_and_older_ones_forgotten(cluster: Cluster) -> None:
    first, second, soon, late, keeper = [await cluster.start(str(n), port=7000 + n) for n in range(5)]
    fill(first)
    for node in (second, soon, late):
        follow(node, first)
    # Without a follower nothing is held to go on with.
    follow(keeper, second)
    await cluster.settle(first, second, soon, late, keeper)
    cluster.network.separate(first.replication_address)
    for turn in range(16):
        promote(second)
        second.set("turn", str(turn))
        follow(second, first)
    assert len(second.replication.lineage.ancestors) == 16
    follow(soon, second)
    await cluster.settle(second, soon)
    assert last_sync(soon).kind == "partial"
    promote(second)
    assert len(second.replication.lineage.ancestors) == 16
    follow(late, second)
    await cluster.settle(second, late)
    assert last_sync(late).kind == "full"
    assert "the replica's history is unknown here" in cluster.logged("1", "replica_connected")[-1]["reason"]


@pytest.mark.slow
@in_cluster
async def test_whoever_was_told_of_a_promotion_while_entries_were_on_their_way_keeps_one_story(
    cluster: Cluster,
) -> None:
    """Entries of the old upstream that arrive with the promotion are in front of it or nowhere."""
    primary, heir, last = await start_chain(cluster)
    for number in range(40):
        release = cluster.network.hold(primary.replication_address)
        primary.execute("RPUSH", "list", number)
        await trio.testing.wait_all_tasks_blocked()
        release()
        promote(heir)
        held, position = content(heir.store), heir.replication.position
        await trio.testing.wait_all_tasks_blocked()
        assert content(heir.store) == held
        assert heir.replication.position == position
        await cluster.settle(heir, last)
        follow(heir, primary)
        await cluster.settle(primary, heir, last)
    assert_equal(primary, heir, last)


@in_cluster
async def test_a_promotion_while_a_snapshot_ends_leaves_the_data_alone(cluster: Cluster) -> None:
    primary = await cluster.start("primary", port=7000)
    other = await cluster.start("other", port=7001)
    fill(other)
    for _ in range(40):
        primary.set("k", "v")
        release = cluster.network.hold(primary.replication_address)
        follow(other, primary)
        held = content(other.store)

        def hold_end(wire: object) -> None:
            nonlocal release
            release = cluster.network.hold(primary.replication_address)

        cluster.network.on_connect = hold_end
        await trio.testing.wait_all_tasks_blocked()
        release()
        promote(other)
        history = other.replication.history
        await trio.testing.wait_all_tasks_blocked()
        assert content(other.store) == held
        assert other.replication.history == history


# -- circles ----------------------------------------------------------------------------------------------------------


@in_cluster
async def test_a_node_that_follows_itself_stays_as_it_is(cluster: Cluster) -> None:
    node = await cluster.start("node", port=7000)
    fill(node)
    held, before = content(node.store), place(node)
    follow(node, node)
    await trio.sleep(60)
    assert content(node.store) == held
    assert place(node) == before
    assert cluster.network.connected[node.replication_address] <= 40
    assert "a node cannot follow itself" in upstream(node).problem
    promote(node)
    node.set("again", "writable")
    assert node.execute("ROLE")[0] == b"master"


@in_cluster
async def test_an_empty_node_that_follows_itself_waits(cluster: Cluster) -> None:
    node = await cluster.start("node", port=7000)
    follow(node, node)
    await trio.sleep(60)
    assert node.server.loading
    assert "a node cannot follow itself" in upstream(node).problem
    assert cluster.network.connected[node.replication_address] <= 40
    promote(node)
    node.set("again", "writable")


@pytest.mark.parametrize("related", [True, False])
@in_cluster
async def test_two_nodes_that_follow_each_other_rest_in_one_history(cluster: Cluster, related: bool) -> None:
    one = await cluster.start("one", port=7000)
    fill(one)
    two = await cluster.start("two", port=7001)
    expected = [content(one.store)]
    if related:
        follow(two, one)
        await cluster.settle(one, two)
        follow(one, two)
    else:
        fill(two, " of the other")
        expected.append(content(two.store))
        follow(one, two)
        follow(two, one)
    await trio.sleep(120)
    assert content(one.store) == content(two.store)
    assert place(one) == place(two)
    assert content(one.store) in expected
    connected = dict(cluster.network.connected)
    assert all(count < 40 for count in connected.values())
    # It has come to rest.
    await trio.sleep(60)
    assert cluster.network.connected == connected
    promote(one)
    one.set("again", "writable")
    await cluster.settle(one, two)
    assert last_sync(two).kind == "partial"


@in_cluster
async def test_three_nodes_in_a_circle_rest(cluster: Cluster) -> None:
    nodes = await start_chain(cluster)
    follow(nodes[0], nodes[2])
    await trio.sleep(60)
    connected = dict(cluster.network.connected)
    await trio.sleep(60)
    assert cluster.network.connected == connected
    assert len({place(node) for node in nodes}) == 1
    assert_equal(nodes[0], *nodes[1:])
    assert nodes[0].execute("ROLE")[:3] == [b"slave", HOST.encode(), 17002]
