"""What a client can rely on: how many copies have a write, when a copy has it, and when a node does not answer."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from support.cluster import (
    HOST,
    Cluster,
    ErrorReply,
    assert_equal,
    fill,
    in_cluster,
    last_sync,
    seen,
    syncs,
    upstream,
)
from support.network import Wire

from kevynode import Node

#: Seconds that bytes take from one node to the next, where that matters.
LATENCY = 0.02


async def start_group(cluster: Cluster, count: int = 2, *, latency: float = 0.0, **options: Any) -> tuple[Node, ...]:
    """A primary and replicas that are in step and have said so."""

    def slow(wire: Wire) -> None:
        for lane in wire.lanes:
            lane.latency = latency

    primary = await cluster.start("primary", port=7000, **options)
    fill(primary)
    cluster.network.on_connect = slow
    replicas = [await cluster.start(f"replica{n}", port=7001 + n, upstream=primary) for n in range(count)]
    await cluster.settle(primary, *replicas)
    await cluster.acknowledged(primary, count)
    cluster.network.on_connect = None
    return (primary, *replicas)


# -- WAIT -------------------------------------------------------------------------------------------------------------


@in_cluster
async def test_wait_counts_replicas_that_have_what_the_connection_wrote(cluster: Cluster) -> None:
    primary, _, _ = await start_group(cluster)
    client = await cluster.connect(primary)
    # Without a write everybody has everything that it wrote.
    assert await client.call("WAIT", 2, 0) == 2
    await client.call("SET", "k", "v")
    assert await client.call("WAIT", 2, 0) == 2
    await client.call("SET", "k", "w")
    first, second = cluster.network.to(primary.replication_address)
    second.outward.held = True
    await client.call("SET", "k", "x")
    assert await client.call("WAIT", 1, 0) == 1
    assert await client.call("WAIT", 2, 100) == 1
    assert await client.call("WAIT", 3, 100) == 1
    second.outward.held = False
    second.outward.changed()
    assert await client.call("WAIT", 2, 0) == 2
    first.cut()
    second.cut()
    cluster.network.unreachable.add(primary.replication_address)
    await client.call("SET", "k", "y")
    assert await client.call("WAIT", 1, 50) == 0
    assert await client.call("WAIT", 0, 0) == 0


@in_cluster
async def test_wait_takes_one_round_trip(cluster: Cluster) -> None:
    primary, *_ = await start_group(cluster, latency=LATENCY)
    client = await cluster.connect(primary)
    for number in range(5):
        await trio.sleep(0.33)
        start = trio.current_time()
        await client.call("SET", "k", number)
        assert await client.call("WAIT", 2, 0) == 2
        assert trio.current_time() - start == pytest.approx(2 * LATENCY)
    # Also when all that is asked for was written long ago, and when writes and questions come in one piece.
    start = trio.current_time()
    assert (await client.pipeline("SET k 1", "SET k 2", "WAIT 2 0"))[-1] == 2
    assert trio.current_time() - start == pytest.approx(2 * LATENCY)
    start = trio.current_time()
    assert await client.call("WAIT", 2, 0) == 2
    assert trio.current_time() == start


@in_cluster
async def test_wait_ends_in_time(cluster: Cluster) -> None:
    primary, *_ = await start_group(cluster)
    release = cluster.network.hold(primary.replication_address)
    client = await cluster.connect(primary)
    await client.call("SET", "k", "v")
    start = trio.current_time()
    assert await client.call("WAIT", 2, 250) == 0
    assert trio.current_time() - start == pytest.approx(0.25)
    waiting = await cluster.connect(primary)
    await waiting.call("SET", "k", "w")
    await waiting.send("WAIT", 2, 0)
    await trio.sleep(2)
    release()
    assert await waiting.reply() == 2


@in_cluster
async def test_wait_counts_nobody_who_is_still_being_sent_a_snapshot(cluster: Cluster) -> None:
    primary, _ = await start_group(cluster, 1)
    cluster.network.on_connect = lambda wire: setattr(wire.outward, "held", True)
    await cluster.start("late", port=7008, upstream=primary)
    await cluster.until(lambda: [facts.state for facts in primary.server.view.replicas()] == ["online"] * 2)
    assert (seen(primary, "late").sent, seen(primary, "late").acked) == (primary.replication.position, 0)
    cluster.network.on_connect = None
    client = await cluster.connect(primary)
    await client.call("SET", "k", "v")
    assert await client.call("WAIT", 2, 100) == 1
    for wire in cluster.network.to(primary.replication_address):
        wire.outward.held = False
        wire.outward.changed()
    assert await client.call("WAIT", 2, 0) == 2


@in_cluster
async def test_waits_end_when_the_node_becomes_a_replica(cluster: Cluster) -> None:
    primary, replica = await start_group(cluster, 1)
    cluster.network.hold(primary.replication_address)
    client = await cluster.connect(primary)
    await client.call("SET", "k", "v")
    await client.send("WAIT", 1, 0)
    await trio.testing.wait_all_tasks_blocked()
    primary.execute("REPLICAOF", HOST, 17001)
    reply = await client.reply()
    assert reply.text.startswith("UNBLOCKED")
    assert await client.ended()
    other = await cluster.connect(replica)
    assert await other.call("WAIT", 1, 0) == ErrorReply("ERR WAIT cannot be used with replica instances")


# -- tokens -----------------------------------------------------------------------------------------------------------


@in_cluster
async def test_whoever_waits_for_a_token_reads_its_writes(cluster: Cluster) -> None:
    primary, replica, chained = await start_group(cluster, 2, latency=LATENCY)
    chained.execute("REPLICAOF", HOST, 17001)
    await cluster.settle(primary, replica, chained)
    writer = await cluster.connect(primary)
    readers = [await cluster.connect(node) for node in (replica, chained)]
    token: list[int] = []
    for number in range(5):
        await writer.call("SET", "k", number)
        token = await writer.call("REPL.TOKEN")
        assert token == [primary.replication.history, primary.replication.position]
        for reader in readers:
            assert await reader.call("REPL.WAIT", *token, "TIMEOUT", 1000) == "OK"
            assert await reader.call("GET", "k") == b"%d" % number
    # What is there already is not waited for.
    start = trio.current_time()
    assert await readers[0].call("REPL.WAIT", *token) == "OK"
    assert trio.current_time() == start


@in_cluster
async def test_a_token_that_is_not_reached_in_time_sends_to_the_writer(cluster: Cluster) -> None:
    primary, replica = await start_group(cluster, 1)
    release = cluster.network.hold(primary.replication_address)
    writer, reader = await cluster.connect(primary), await cluster.connect(replica)
    await writer.call("SET", "k", "v")
    history, offset = await writer.call("REPL.TOKEN")
    start = trio.current_time()
    assert await reader.call("REPL.WAIT", history, offset, "TIMEOUT", 200) == ErrorReply(
        f"MISDIRECTED writer is {HOST}:7000"
    )
    assert trio.current_time() - start == pytest.approx(0.2)
    await reader.send("REPL.WAIT", history, offset)
    await trio.sleep(1)
    release()
    assert await reader.reply() == "OK"


@in_cluster
async def test_a_token_of_a_foreign_history_sends_to_the_writer_at_once(cluster: Cluster) -> None:
    primary, replica = await start_group(cluster, 1)
    reader = await cluster.connect(replica)
    history, position = primary.replication.history, primary.replication.position
    start = trio.current_time()
    assert await reader.call("REPL.WAIT", history + 1, 0) == ErrorReply(f"MISDIRECTED writer is {HOST}:7000")
    assert trio.current_time() == start
    # Of an ancestor what was before the branch is known, and nothing behind it.
    primary.execute("REPLICAOF", HOST, 17009)
    primary.execute("REPLICAOF", "NO", "ONE")
    await cluster.settle(primary, replica)
    assert await reader.call("REPL.WAIT", history, position) == "OK"
    assert await reader.call("REPL.WAIT", history, position + 1) == ErrorReply(f"MISDIRECTED writer is {HOST}:7000")


@in_cluster
async def test_a_wait_for_a_token_outlives_a_cut_and_a_new_snapshot(cluster: Cluster) -> None:
    primary, replica = await start_group(cluster, 1, replication_buffer_size=4096)
    cluster.network.separate(primary.replication_address)
    await cluster.until(lambda: upstream(replica).state == "connect")
    for number in range(300):
        primary.set(f"k{number}", "v" * 1000)
    token = primary.execute("REPL.TOKEN")
    reader = await cluster.connect(replica)
    await reader.send("REPL.WAIT", *token)
    await trio.sleep(1)
    cluster.network.unreachable.clear()
    assert await reader.reply() == "OK"
    assert last_sync(replica).kind == "full"
    assert_equal(primary, replica)


# -- reads that would be too old --------------------------------------------------------------------------------------

STALE = ErrorReply("STALE replica is stale; read the primary or raise replica_max_staleness_ms")


@in_cluster
async def test_a_replica_that_hears_nothing_refuses_reads_until_it_does_again(cluster: Cluster) -> None:
    primary = await cluster.start("primary", port=7000)
    primary.set("k", "v")
    replica = await cluster.start("replica", port=7001, upstream=primary, replica_max_staleness_ms=3000)
    await cluster.settle(primary, replica)
    reader = await cluster.connect(replica)
    await trio.sleep(30)
    assert await reader.call("GET", "k") == b"v"
    release = cluster.network.hold(primary.replication_address)
    await trio.sleep(1.5)
    assert await reader.call("GET", "k") == b"v"
    await trio.sleep(3.5)
    assert await reader.call("GET", "k") == STALE
    # What says how it is still answers.
    assert await reader.call("PING") == STALE or await reader.call("PING") == "PONG"
    assert b"role:slave" in await reader.call("INFO", "replication")
    primary.set("k", "w")
    release()
    await cluster.until(lambda: not replica.server.stale)
    assert await reader.call("GET", "k") == b"w"


@in_cluster
async def test_a_replica_without_a_link_refuses_reads_until_it_is_whole_again(cluster: Cluster) -> None:
    primary = await cluster.start("primary", port=7000)
    primary.set("k", "v")
    replica = await cluster.start("replica", port=7001, upstream=primary, replica_max_staleness_ms=3000)
    await cluster.settle(primary, replica)
    cluster.network.separate(primary.replication_address)
    reader = await cluster.connect(replica)
    await trio.sleep(1)
    assert await reader.call("GET", "k") == b"v"
    await trio.sleep(4)
    assert await reader.call("GET", "k") == STALE
    primary.set("k", "w")
    cluster.network.unreachable.clear()
    await cluster.settle(primary, replica)
    await cluster.until(lambda: not replica.server.stale)
    assert await reader.call("GET", "k") == b"w"
    # As a primary it is never too old.
    cluster.network.separate(primary.replication_address)
    await trio.sleep(10)
    assert await reader.call("GET", "k") == STALE
    assert await reader.call("REPLICAOF", "NO", "ONE") == "OK"
    assert await reader.call("GET", "k") == b"w"


# -- writes that too few would have -----------------------------------------------------------------------------------

FEW = ErrorReply("NOREPLICAS Not enough good replicas to write.")


@in_cluster
async def test_writes_wait_for_enough_replicas(cluster: Cluster) -> None:
    primary = await cluster.start("primary", port=7000, min_replicas_to_write=2, min_replicas_max_lag_ms=3000)
    client = await cluster.connect(primary)
    assert await client.call("SET", "k", "v") == FEW
    assert await client.call("GET", "k") is None
    one = await cluster.start("one", port=7001, upstream=primary)
    await cluster.settle(primary, one)
    assert await client.call("SET", "k", "v") == FEW
    two = await cluster.start("two", port=7002, upstream=primary)
    await cluster.settle(primary, one, two)
    await cluster.until(lambda: primary.server.view.good_replicas() == 2)
    assert await client.call("SET", "k", "v") == "OK"
    await trio.sleep(30)
    assert await client.call("SET", "k", "v") == "OK"
    await cluster.settle(primary, one, two)
    # One that is gone counts no more at once.
    await cluster.kill(two)
    await trio.testing.wait_all_tasks_blocked()
    assert await client.call("SET", "k", "w") == FEW
    assert await client.call("GET", "k") == b"v"
    two = await cluster.restart(two)
    await cluster.settle(primary, two)
    await cluster.until(lambda: primary.server.view.good_replicas() == 2)
    assert await client.call("SET", "k", "w") == "OK"


@in_cluster
async def test_a_silent_replica_is_no_good_one(cluster: Cluster) -> None:
    primary, replica = await start_group(cluster, 1, min_replicas_max_lag_ms=3000)
    primary.execute("CONFIG", "SET", "min-replicas-to-write", 1)
    await trio.sleep(1.5)
    client = await cluster.connect(primary)
    assert await client.call("SET", "k", "v") == "OK"
    release = cluster.network.silence(primary.replication_address)
    await trio.sleep(1.5)
    assert await client.call("SET", "k", "w") == "OK"
    await trio.sleep(3)
    assert await client.call("SET", "k", "x") == FEW
    assert b"min_slaves_good_slaves:0" in await client.call("INFO", "replication")
    release()
    await trio.sleep(1.5)
    assert await client.call("SET", "k", "x") == "OK"
    await cluster.settle(primary, replica)


# -- replicas and writes ----------------------------------------------------------------------------------------------


@in_cluster
async def test_a_replica_refuses_writes_and_says_so(cluster: Cluster) -> None:
    primary, replica = await start_group(cluster, 1)
    client = await cluster.connect(replica)
    refused = ErrorReply("READONLY You can't write against a read only replica.")
    for line in ("SET k v", "DEL string", "FLUSHALL", "BLPOP list 0", "EXPIRE string 9", "SPOP set"):
        assert await client.call(*line.split()) == refused
    replies = await client.pipeline("MULTI", "SET k v", "EXEC")
    assert replies[1] == refused
    assert replies[2].text.startswith("EXECABORT")
    assert_equal(primary, replica)
    # A transaction that begins before the change of role ends behind it.
    turning = await cluster.connect(primary)
    await turning.pipeline("MULTI", "SET k v")
    primary.execute("REPLICAOF", HOST, 17001)
    reply = await turning.call("EXEC")
    assert "READONLY" in reply.text
    assert primary.get("k") is None


@in_cluster
async def test_local_writes_of_a_replica_are_nobody_elses_and_gone_with_the_next_snapshot(cluster: Cluster) -> None:
    primary = await cluster.start("primary", port=7000, replication_buffer_size=4096)
    fill(primary)
    replica = await cluster.start("replica", port=7001, upstream=primary, replica_read_only=False)
    below = await cluster.start("below", port=7002, upstream=replica)
    await cluster.settle(primary, replica, below)
    position = replica.replication.position
    client = await cluster.connect(replica)
    assert await client.call("SET", "local", "v") == "OK"
    assert await client.call("RPUSH", "local list", "a", "b") == 2
    assert await client.call("LPOP", "local list") == b"a"
    assert await client.pipeline("MULTI", "INCR n", "INCR n", "EXEC") == ["OK", "QUEUED", "QUEUED", [1, 2]]
    assert replica.replication.position == position
    primary.set("shared", "1")
    await cluster.until(lambda: below.get("shared"))
    assert below.get("local") is None
    assert replica.get("local") == b"v"
    assert upstream(replica).state == "connected"
    # A short cut leaves them, a snapshot does not.
    cluster.network.cut(primary.replication_address)
    await cluster.until(lambda: syncs(primary)[1] == 1)
    assert replica.get("local") == b"v"
    cluster.network.separate(primary.replication_address)
    for number in range(300):
        primary.set(f"k{number}", "v" * 1000)
    await cluster.until(lambda: upstream(replica).state == "connect")
    cluster.network.unreachable.clear()
    await cluster.settle(primary, replica, below)
    assert replica.get("local") is None


@in_cluster
async def test_a_local_write_that_the_stream_cannot_be_applied_on_costs_a_snapshot(cluster: Cluster) -> None:
    cluster.expected_errors.add("diverged")
    primary, replica = await start_group(cluster, 1)
    replica.execute("CONFIG", "SET", "replica-read-only", "no")
    replica.execute("SET", "list", "no list any more")
    primary.execute("RPUSH", "list", "four")
    await cluster.settle(primary, replica)
    assert last_sync(replica).kind == "full"
    assert "cannot be applied: RPUSH 'list': WRONGTYPE" in last_sync(replica).reason
    # It was asked for, so no request to go on was refused.
    assert syncs(primary) == (2, 0, 0)


@in_cluster
async def test_local_writes_get_into_no_other_copy_by_a_snapshot(cluster: Cluster) -> None:
    primary = await cluster.start("primary", port=7000)
    fill(primary)
    replica = await cluster.start("replica", port=7001, upstream=primary, replica_read_only=False)
    await cluster.settle(primary, replica)
    replica.set("local", "1")
    below = await cluster.start("below", port=7002, upstream=replica)
    await cluster.until(lambda: "writes of its own" in upstream(below).problem)
    # It would resume at the primary, with one key too many.
    below.execute("REPLICAOF", HOST, 17000)
    await cluster.settle(primary, below)
    assert below.get("local") is None
    # A promoted node has a history that says all it holds.
    replica.execute("REPLICAOF", "NO", "ONE")
    below.execute("REPLICAOF", HOST, 17001)
    await cluster.settle(replica, below)
    assert below.get("local") == b"1"


@in_cluster
async def test_followers_of_a_promoted_copy_hold_its_local_writes_too(cluster: Cluster) -> None:
    primary = await cluster.start("primary", port=7000)
    fill(primary)
    replica = await cluster.start("replica", port=7001, upstream=primary, replica_read_only=False)
    below = await cluster.start("below", port=7002, upstream=replica)
    await cluster.settle(primary, replica, below)
    replica.set("local", "1")
    replica.execute("REPLICAOF", "NO", "ONE")
    replica.set("own", "2")
    await cluster.settle(replica, below)
    assert below.execute("MGET", "local", "own") == [b"1", b"2"]


# -- nothing to serve yet ---------------------------------------------------------------------------------------------


@in_cluster
async def test_only_a_replica_that_never_had_data_is_loading(cluster: Cluster) -> None:
    cluster.network.on_connect = lambda wire: setattr(wire.outward, "held", wire.address == f"{HOST}:17000")
    replica = await cluster.start("replica", port=7001, upstream=f"{HOST}:17000")
    client = await cluster.connect(replica)
    loading = ErrorReply("LOADING kevynode is loading the dataset in memory")
    assert await client.call("GET", "string") == loading
    assert b"loading:1" in await client.call("INFO", "persistence")
    assert await client.call("PING") in ("PONG", loading)
    primary = await cluster.start("primary", port=7000)
    fill(primary)
    await cluster.until(lambda: cluster.network.to(primary.replication_address))
    assert await client.call("GET", "string") == loading
    cluster.network.on_connect = None
    for wire in cluster.network.to(primary.replication_address):
        wire.outward.held = False
        wire.outward.changed()
    await cluster.settle(primary, replica)
    assert await client.call("GET", "string") == b"plain"
    # From now on there always is something to serve.
    await cluster.kill(primary)
    await trio.sleep(30)
    assert await client.call("GET", "string") == b"plain"
    replica.execute("REPLICAOF", HOST, 17008)
    await trio.sleep(5)
    assert await client.call("GET", "string") == b"plain"


@in_cluster
async def test_a_primary_with_data_that_begins_to_follow_serves_them_until_it_has_others(cluster: Cluster) -> None:
    node = await cluster.start("node", port=7000)
    node.set("k", "v")
    node.execute("DEL", "k")
    node.execute("REPLICAOF", HOST, 17009)
    await trio.sleep(1)
    assert node.get("k") is None
    empty = await cluster.start("empty", port=7001)
    empty.execute("REPLICAOF", HOST, 17009)
    await trio.sleep(1)
    assert empty.server.loading
    empty.execute("REPLICAOF", "NO", "ONE")
    assert empty.get("k") is None
