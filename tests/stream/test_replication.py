"""Whole nodes that follow each other over a network in memory: which kind of synchronisation it takes, and equal data.

Nothing keeps data over a restart, so a node that was restarted begins empty, in a history that nobody has heard of.
"""

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
from support.network import Wire
from support.store_harness import content

from kevynode import Node
from kevynode.replicate.client import Frame, Ping, ReplicaClient, ReplicaEvent, Resumed, SnapshotBegin

NOTHING_HELD = "nothing is held that could be continued"
#: A budget that a few writes exceed.
SMALL = 4096


async def start_pair(cluster: Cluster, **options: Any) -> tuple[Node, Node]:
    """A primary with data of every type and a replica of it, which agree."""
    primary = await cluster.start("primary", port=7000, **options)
    fill(primary)
    replica = await cluster.start("replica", port=7001, upstream=primary)
    await cluster.settle(primary, replica)
    return primary, replica


def expect(primary: Node, replica: Node, kind: str, why: str, seen_why: str, counts: tuple[int, int, int]) -> None:
    """Both sides tell of the last synchronisation: its kind, and what it was for."""
    assert syncs(primary) == counts
    ours, theirs = seen(primary, "replica").last_sync, last_sync(replica)
    assert ours is not None
    assert (ours.kind, theirs.kind) == (kind, kind)
    assert why in ours.reason
    assert seen_why in theirs.reason
    assert ours.duration is not None
    assert theirs.duration is not None
    assert (ours.size > 0) == (theirs.size > 0) == (kind == "full")


# -- nothing in the way -----------------------------------------------------------------------------------------------


@in_cluster
async def test_a_replica_begins_with_a_snapshot_and_follows(cluster: Cluster) -> None:
    primary, replica = await start_pair(cluster)
    expect(primary, replica, "full", "the replica claims no data", NOTHING_HELD, (1, 0, 0))
    fill(primary, " and more")
    primary.execute("DEL", "string", "set")
    await cluster.settle(primary, replica)
    expect(primary, replica, "full", "the replica claims no data", NOTHING_HELD, (1, 0, 0))
    ours, theirs = seen(primary, "replica"), upstream(replica)
    assert (ours.port, ours.state, theirs.port, theirs.state) == (7001, "online", 17000, "connected")
    assert ours.last_sync is not None
    assert theirs.last_sync is not None
    assert ours.last_sync.size == theirs.last_sync.size


@in_cluster
async def test_a_replica_of_an_empty_primary_is_sent_an_empty_snapshot(cluster: Cluster) -> None:
    primary = await cluster.start("primary", port=7000)
    replica = await cluster.start("replica", port=7001, upstream=primary)
    await cluster.settle(primary, replica)
    expect(primary, replica, "full", "the replica claims no data", NOTHING_HELD, (1, 0, 0))
    fill(primary)
    await cluster.settle(primary, replica)


@in_cluster
async def test_replicas_wait_for_a_primary_that_is_not_there_yet(cluster: Cluster) -> None:
    replica = await cluster.start("replica", port=7001, upstream=f"{HOST}:17000")
    await cluster.until(lambda: upstream(replica).problem)
    assert "cannot connect to 127.0.0.1:17000: Connection refused" in upstream(replica).problem
    primary = await cluster.start("primary", port=7000)
    fill(primary)
    await cluster.settle(primary, replica)
    assert upstream(replica).problem == ""


# -- cut --------------------------------------------------------------------------------------------------------------


@in_cluster
async def test_a_replica_that_was_cut_off_goes_on_with_what_it_missed(cluster: Cluster) -> None:
    primary, replica = await start_pair(cluster)
    cluster.network.separate(primary.replication_address)
    fill(primary, " missed")
    await cluster.until(lambda: upstream(replica).state == "connect" and upstream(replica).down is not None)
    assert replica.get("string") == b"plain"
    cluster.network.unreachable.clear()
    await cluster.settle(primary, replica)
    expect(primary, replica, "partial", "entries behind", "goes on at offset", (1, 1, 0))


@in_cluster
async def test_a_replica_that_missed_nothing_goes_on(cluster: Cluster) -> None:
    primary, replica = await start_pair(cluster)
    await cluster.acknowledged(primary)
    cluster.network.cut(primary.replication_address)
    await cluster.until(lambda: syncs(primary)[1])
    await cluster.settle(primary, replica)
    expect(primary, replica, "partial", "up to date", "goes on at offset", (1, 1, 0))


@in_cluster
async def test_a_replica_that_is_cut_off_again_and_again_goes_on_each_time(cluster: Cluster) -> None:
    primary, replica = await start_pair(cluster)
    for number in range(20):
        primary.execute("RPUSH", "list", number)
        cluster.network.cut(primary.replication_address)
        primary.execute("RPUSH", "list", f"{number} and")
        await cluster.settle(primary, replica)
    assert syncs(primary) == (1, 20, 0)


@in_cluster
async def test_a_snapshot_that_is_cut_begins_anew(cluster: Cluster) -> None:
    primary = await cluster.start("primary", port=7000)
    fill_much(primary)
    limits = iter([0, 10, 100_000])

    def cut_early(wire: Wire) -> None:
        wire.outward.limit = next(limits, None)

    cluster.network.on_connect = cut_early
    replica = await cluster.start("replica", port=7001, upstream=primary)
    await cluster.settle(primary, replica)
    # Those with 0 and 10 bytes may have been cut before the snapshot began.
    full, partial, refused = syncs(primary)
    assert (partial, refused) == (0, 0)
    assert 2 <= full <= 4
    assert cluster.network.connected[primary.replication_address] == 4
    expect(primary, replica, "full", "the replica claims no data", NOTHING_HELD, (full, 0, 0))


@in_cluster
async def test_a_snapshot_in_place_of_old_data_that_is_cut_leaves_them_and_begins_anew(cluster: Cluster) -> None:
    other = await cluster.start("other", port=7002)
    fill(other, " of another")
    primary, replica = await start_pair(cluster)
    before = content(replica.store)
    fill_much(other)
    limits = iter([1_000, 20_000, 100_000])

    def cut_early(wire: Wire) -> None:
        wire.outward.limit = next(limits, None)

    cluster.network.on_connect = cut_early
    replica.execute("REPLICAOF", HOST, 17002)
    while cluster.network.connected.get(other.replication_address, 0) < 4:
        assert content(replica.store) == before
        assert replica.replication.history == primary.replication.history
        assert not replica.server.loading
        await trio.sleep(0.005)
    await cluster.settle(other, replica)
    full, partial, refused = syncs(other)
    assert partial == 0
    # It asked to go on each time: what it holds is still what it held.
    assert full == refused == 4
    why = "the replica's history is unknown here"
    expect(other, replica, "full", why, "the upstream is in history", (full, 0, refused))


# -- too late ---------------------------------------------------------------------------------------------------------


@in_cluster
async def test_a_replica_that_missed_more_than_is_held_starts_over(cluster: Cluster) -> None:
    primary, replica = await start_pair(cluster, replication_buffer_size=SMALL)
    cluster.network.separate(primary.replication_address)
    fill_much(primary)
    await cluster.until(lambda: upstream(replica).state == "connect")
    cluster.network.unreachable.clear()
    await cluster.settle(primary, replica)
    why = "entries that the replica lacks are no longer held"
    expect(primary, replica, "full", why, "which the upstream does not go on from", (2, 0, 1))
    held = primary.server.view.backlog()
    assert f"holding {held.first} to {held.next}" in cluster.logged("primary", "replica_connected")[-1]["reason"]


@in_cluster
async def test_a_replica_whose_place_has_expired_starts_over_and_what_was_kept_is_given_back(cluster: Cluster) -> None:
    primary, replica = await start_pair(cluster, reconnect_window_ms=30_000)
    fill_much(primary)
    await cluster.settle(primary, replica)
    cluster.network.separate(primary.replication_address)
    await cluster.until(lambda: seen(primary, "replica").state == "waiting")
    assert primary.server.view.backlog().active
    fill(primary, " missed")
    await cluster.until(lambda: not primary.server.view.replicas(), "the end of the reconnect window")
    backlog = primary.server.view.backlog()
    assert not backlog.active
    assert backlog.first == backlog.next == primary.replication.position
    assert backlog.memory < 1000
    assert cluster.logged("primary", "replica_expired")
    cluster.network.unreachable.clear()
    await cluster.settle(primary, replica)
    expect(primary, replica, "full", "no longer held", "does not go on from", (2, 0, 1))


@in_cluster
async def test_a_replica_whose_place_has_expired_goes_on_if_it_missed_nothing(cluster: Cluster) -> None:
    primary, replica = await start_pair(cluster, reconnect_window_ms=1000)
    cluster.network.separate(primary.replication_address)
    await cluster.until(lambda: not primary.server.view.replicas(), "the end of the reconnect window")
    cluster.network.unreachable.clear()
    await cluster.settle(primary, replica)
    expect(primary, replica, "partial", "up to date", "goes on at offset", (1, 1, 0))


# -- restarts ---------------------------------------------------------------------------------------------------------


@in_cluster
async def test_a_replica_that_was_restarted_has_nothing_and_starts_over(cluster: Cluster) -> None:
    primary, replica = await start_pair(cluster)
    await cluster.stop(replica)
    fill(primary, " missed")
    replica = await cluster.restart(replica)
    await cluster.settle(primary, replica)
    # It has no cursor to ask with, so no request to go on was refused.
    expect(primary, replica, "full", "the replica claims no data", NOTHING_HELD, (2, 0, 0))


@in_cluster
async def test_a_replica_that_was_killed_has_nothing_and_starts_over(cluster: Cluster) -> None:
    primary, replica = await start_pair(cluster)
    await cluster.kill(replica)
    replica = await cluster.restart(replica)
    await cluster.settle(primary, replica)
    expect(primary, replica, "full", "the replica claims no data", NOTHING_HELD, (2, 0, 0))


@pytest.mark.parametrize("way", ["cleanly", "killed"])
@in_cluster
async def test_a_primary_that_was_restarted_is_empty_and_its_replicas_follow_it_in_that(
    cluster: Cluster, way: str
) -> None:
    primary, replica = await start_pair(cluster)
    history = primary.replication.history
    await (cluster.stop(primary) if way == "cleanly" else cluster.kill(primary))
    # While nobody is there the copy serves what it has.
    await cluster.until(lambda: upstream(replica).state != "connected")
    assert replica.get("string") == b"plain"
    primary = await cluster.restart(primary)
    assert primary.replication.history != history
    primary.set("after", "1")
    await cluster.settle(primary, replica)
    assert replica.execute("KEYS", "*") == [b"after"]
    why = "the replica's history is unknown here"
    expect(primary, replica, "full", why, "the upstream is in history", (1, 0, 1))


@in_cluster
async def test_a_primary_that_stops_cleanly_sends_all_that_it_has_acknowledged(cluster: Cluster) -> None:
    primary, replica = await start_pair(cluster)
    fill_much(primary)
    release = cluster.network.hold(primary.replication_address)
    primary.set("last", "word")
    expected = content(primary.store)
    position = primary.replication.position
    primary.stop()
    release()
    await cluster.until(lambda: upstream(replica).state != "connected")
    assert replica.replication.position == position
    assert content(replica.store) == expected


# -- other histories --------------------------------------------------------------------------------------------------


@in_cluster
async def test_a_replica_of_a_promoted_copy_goes_on_across_the_branch(cluster: Cluster) -> None:
    primary, replica = await start_pair(cluster)
    heir = await cluster.start("heir", port=7002, upstream=primary)
    await cluster.settle(primary, heir, replica)
    old, branch = primary.replication.history, primary.replication.position
    heir.execute("REPLICAOF", "NO", "ONE")
    assert heir.replication.history != old
    assert heir.server.view.previous == (old, branch)
    replica.execute("REPLICAOF", HOST, 17002)
    await cluster.settle(heir, replica)
    expect(heir, replica, "partial", "up to date", f"goes on at offset {branch} of history", (0, 1, 0))
    fill(heir, " of the heir")
    await cluster.settle(heir, replica)
    assert syncs(heir) == (0, 1, 0)
    assert replica.server.view.previous == (old, branch)


@in_cluster
async def test_a_replica_of_another_node_starts_over(cluster: Cluster) -> None:
    _, replica = await start_pair(cluster)
    other = await cluster.start("other", port=7002)
    other.set("other", "data")
    replica.execute("REPLICAOF", HOST, 17002)
    await cluster.settle(other, replica)
    assert replica.execute("KEYS", "*") == [b"other"]
    why = "the replica's history is unknown here"
    expect(other, replica, "full", why, "the upstream is in history", (1, 0, 1))


@in_cluster
async def test_a_primary_that_becomes_a_replica_gives_up_its_own_data(cluster: Cluster) -> None:
    primary = await cluster.start("primary", port=7000)
    fill(primary)
    replica = await cluster.start("replica", port=7001)
    fill(replica, " to be lost")
    replica.execute("SET", "gone", "soon")
    replica.execute("REPLICAOF", HOST, 17000)
    await cluster.settle(primary, replica)
    assert replica.get("gone") is None
    why = "the replica's history is unknown here"
    expect(primary, replica, "full", why, "the upstream is in history", (1, 0, 1))


# -- cursors that no node of ours would claim -------------------------------------------------------------------------


async def first_events(primary: Node, history: int, offset: int) -> list[ReplicaEvent]:
    """What a stream that is asked for at some position begins with."""
    host, _, port = primary.replication_address.rpartition(":")
    client = ReplicaClient(
        host,
        int(port),
        history=history,
        offset=offset,
        transport=primary.transport,
        clock=primary.clock,
    )
    events: list[ReplicaEvent] = []
    async with client:
        async for event in client:
            if not isinstance(event, Ping):
                events.append(event)
            if len(events) == 2 or isinstance(event, SnapshotBegin):
                break
    return events


@pytest.mark.parametrize(
    ("history", "ahead", "resumes", "why"),
    [
        (0, -1, True, "1 entries behind"),
        (0, 1, False, "the replica is 1 entries ahead"),
        (0, 5_000_000, False, "the replica is 5000000 entries ahead"),
        (1, 0, False, "the replica's history is unknown here"),
        (1, -1, False, "the replica's history is unknown here"),
    ],
)
@in_cluster
async def test_what_a_claim_comes_to(cluster: Cluster, history: int, ahead: int, resumes: bool, why: str) -> None:
    primary, replica = await start_pair(cluster)
    primary.set("last", "entry")
    await cluster.settle(primary, replica)
    running, position = primary.replication.history, primary.replication.position
    events = await first_events(primary, running + history, position + ahead)
    asked = f"asked history {running + history} offset {position + ahead}; ours is history {running}"
    if resumes:
        assert events == [Resumed(running, position - 1), Frame(position - 1, [b"SET", b"last", b"entry"])]
        assert syncs(primary) == (1, 1, 0)
    else:
        assert events == [SnapshotBegin()]
        assert syncs(primary) == (2, 0, 1)
    (*_, told) = cluster.logged("primary", "replica_connected")
    assert told["sync"] == ("partial" if resumes else "full")
    assert why in told["reason"]
    assert asked in told["reason"]


@in_cluster
async def test_a_cursor_inside_a_group_starts_over(cluster: Cluster) -> None:
    primary, replica = await start_pair(cluster)
    before = primary.replication.position
    client = await cluster.connect(primary)
    await client.pipeline("MULTI", "SET a 1", "SET b 2", "SET c 3", "EXEC")
    await cluster.settle(primary, replica)
    assert primary.replication.position == before + 3
    assert await first_events(primary, primary.replication.history, before + 1) == [SnapshotBegin()]
    assert "the replica stands inside a group" in cluster.logged("primary", "replica_connected")[-1]["reason"]
    (resumed, *_) = await first_events(primary, primary.replication.history, before)
    assert resumed == Resumed(primary.replication.history, before)
    assert_equal(primary, replica)
