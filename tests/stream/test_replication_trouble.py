"""Replicas that are slow, stuck, lying, gone, or two under one name: the others and the clients do not suffer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
from support.cluster import (
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

from kevynode import Node
from kevynode.replicate.handshake import CAPABILITIES, Form, Request, format_request

#: Bytes of backlog that these primaries may hold, and what they may hold beside: a block that is being filled.
BUDGET = 400_000
BESIDE = 200_000
#: Seconds that a replica may take no byte, or say nothing.
SILENCE = 10


async def start_group(cluster: Cluster, *names: str, **options: Any) -> tuple[Node, ...]:
    """A primary and replicas by name, in step."""
    options = {"replication_buffer_size": BUDGET} | options
    primary = await cluster.start("primary", port=7000, **options)
    fill(primary)
    replicas = [await cluster.start(name, port=7001 + n, upstream=primary) for n, name in enumerate(names)]
    await cluster.settle(primary, *replicas)
    await cluster.acknowledged(primary, len(replicas))
    return (primary, *replicas)


def wire_of(cluster: Cluster, primary: Node, name: str) -> Wire:
    """The connection of a replica, which connected in the order of the slots."""
    names = [facts.replica_id.partition("#")[2].partition(".")[0] for facts in primary.server.view.replicas()]
    return cluster.network.to(primary.replication_address)[names.index(name)]


class PlayedReplica:
    """Somebody who says he is a replica."""

    def __init__(self, stream: trio.abc.Stream, replica_id: str) -> None:
        self.stream = stream
        self.replica_id = replica_id
        self.read = bytearray()

    async def hello(self, history: int = 0, offset: int = 0) -> None:
        """The extended handshake of a copy of everything."""
        capabilities = frozenset(CAPABILITIES) - {"scopes", "skip"}
        request = Request(Form.EXTENDED, history, offset, self.replica_id, capabilities)
        await self.stream.send_all(format_request(request))

    async def until(self, text: bytes) -> None:
        """Read until a text has come."""
        while text not in self.read:
            data = await self.stream.receive_some()
            assert data, bytes(self.read)
            self.read += data

    async def drink(self) -> None:
        """Read for ever; returns at the end of the stream."""
        try:
            async for data in self.stream:
                self.read += data
        except trio.BrokenResourceError:
            pass

    async def acknowledge(self, offset: int) -> None:
        """Claim to have applied everything before an offset, and have the primary look at that."""
        await self.stream.send_all(b"REPLCONF ACK %d\r\n" % offset)
        await trio.testing.wait_all_tasks_blocked()


async def play(cluster: Cluster, primary: Node, replica_id: str = "kevynode-replica-9#played.0") -> PlayedReplica:
    """A connection of such a one that has said hello."""
    played = PlayedReplica(await cluster.dial(primary), replica_id)
    await played.hello()
    return played


async def write_much(
    primary: Node, cluster: Cluster, rounds: int = 100, check: Callable[[], None] = lambda: None
) -> None:
    """A client writes several times the backlog's budget; each of its commands is answered without any delay."""
    client = await cluster.connect(primary)
    for number in range(rounds):
        start = trio.current_time()
        await client.call("SET", f"k{number % 5}", "x" * 50_000)
        assert trio.current_time() == start
        check()
        await trio.sleep(0.02)


# -- slow and stuck ---------------------------------------------------------------------------------------------------


@in_cluster
async def test_a_stuck_replica_costs_no_more_than_the_backlog_and_nobody_else_anything(cluster: Cluster) -> None:
    primary, good = await start_group(cluster, "good", reconnect_window_ms=20_000)
    stuck = await play(cluster, primary)
    await stuck.until(b"+SNAPSHOT_END")
    held = []
    await write_much(primary, cluster, check=lambda: held.append(primary.server.view.backlog().memory))
    assert max(held) <= BUDGET + BESIDE
    await cluster.settle(primary, good)
    assert seen(primary, "good").lag_entries == 0
    assert seen(primary, "played").lag_entries >= 100
    await trio.sleep(SILENCE + 2)
    assert seen(primary, "played").state == "waiting"
    assert "took no byte for 10 s" in cluster.logged("primary", "replica_disconnected")[-1]["reason"]
    await trio.sleep(20)
    assert [facts.replica_id.split("#")[1][:4] for facts in primary.server.view.replicas()] == ["good"]
    assert syncs(primary) == (2, 0, 0)
    assert primary.server.view.backlog().memory <= BUDGET
    await cluster.settle(primary, good)


@in_cluster
async def test_a_replica_that_hears_nothing_comes_back(cluster: Cluster) -> None:
    primary, good, deaf = await start_group(cluster, "good", "deaf")
    wire_of(cluster, primary, "deaf").outward.held = True
    await write_much(primary, cluster, 3)
    await trio.sleep(SILENCE)
    await cluster.settle(primary, good, deaf)
    assert "was silent for 10 s" in cluster.logged("deaf", "upstream_lost")[-1]["reason"]
    assert last_sync(deaf).kind == "partial"
    assert syncs(primary) == (2, 1, 0)


@in_cluster
async def test_a_slow_replica_falls_behind_alone_and_catches_up(cluster: Cluster) -> None:
    primary, good, slow = await start_group(cluster, "good", "slow")
    lane = wire_of(cluster, primary, "slow").outward
    lane.capacity, lane.pause = 20_000, 0.1
    lags, held = [], []

    def look() -> None:
        lags.append((seen(primary, "good").lag_entries, seen(primary, "slow").lag_entries))
        held.append(primary.server.view.backlog().memory)

    await write_much(primary, cluster, 60, check=look)
    assert max(good for good, _ in lags) <= 20
    assert max(slow for _, slow in lags) > 40
    assert max(held) <= BUDGET + BESIDE
    await cluster.settle(primary, good, slow)
    # It fell off the backlog, so it had to start over.
    reasons = [facts["reason"] for facts in cluster.logged("primary", "replica_disconnected")]
    assert ["fell off the backlog" in reason for reason in reasons] == [True]
    assert last_sync(slow).kind == "full"
    assert syncs(primary) == (3, 0, 1)
    assert upstream(good).down is None


@in_cluster
async def test_a_silent_replica_is_given_up(cluster: Cluster) -> None:
    primary, good, silent = await start_group(cluster, "good", "silent")
    lane = wire_of(cluster, primary, "silent").inward
    lane.held = True
    await trio.sleep(SILENCE + 2)
    assert f"silent for {SILENCE} s" in cluster.logged("primary", "replica_disconnected")[-1]["reason"]
    await cluster.settle(primary, good, silent)
    assert syncs(primary) == (2, 1, 0)


@in_cluster
async def test_when_the_last_replica_is_gone_for_good_nothing_is_kept(cluster: Cluster) -> None:
    primary, one, two = await start_group(cluster, "one", "two", reconnect_window_ms=20_000)
    await cluster.kill(one)
    await trio.sleep(15)
    await write_much(primary, cluster, 3)
    await cluster.kill(two)
    await trio.sleep(10)
    # The first has expired, the second has ten seconds left.
    assert [facts.replica_id.split("#")[1][:3] for facts in primary.server.view.replicas()] == ["two"]
    assert primary.server.view.backlog().active
    assert primary.server.view.backlog().memory > 100_000
    await trio.sleep(15)
    assert primary.server.view.replicas() == []
    backlog = primary.server.view.backlog()
    assert (backlog.active, backlog.first) == (False, backlog.next)
    assert backlog.memory < 1000
    # And writes are not counted for anybody.
    await write_much(primary, cluster, 3)
    assert primary.server.view.backlog().memory < 1000


# -- lying ------------------------------------------------------------------------------------------------------------


@in_cluster
async def test_a_replica_that_claims_what_it_cannot_have_is_not_believed(cluster: Cluster) -> None:
    primary, good = await start_group(cluster, "good")
    liar = await play(cluster, primary)
    await liar.until(b"+SNAPSHOT_END")
    position = primary.replication.position
    for claim in (position + 1, position + 1000, 2**63 - 1, 2**64, 2**200):
        await liar.acknowledge(claim)
        assert seen(primary, "played").acked == 0
    # What it held before the snapshot says nothing.
    await liar.acknowledge(position - 1)
    assert seen(primary, "played").acked == 0
    await liar.acknowledge(position)
    assert seen(primary, "played").acked == position
    for claim in (position - 1, 0, position + 1):
        await liar.acknowledge(claim)
        assert seen(primary, "played").acked == position
    # Nobody has what was not sent: it reads nothing, so most of this waits at the primary.
    await write_much(primary, cluster, 10)
    await cluster.settle(primary, good)
    client = await cluster.connect(primary)
    await client.call("SET", "k", "v")
    assert seen(primary, "played").sent < primary.replication.position
    await liar.acknowledge(primary.replication.position)
    assert seen(primary, "played").acked == position
    assert await client.call("WAIT", 2, 100) == 1
    assert_equal(primary, good)


@in_cluster
async def test_a_replica_that_breaks_the_protocol_goes_alone(cluster: Cluster) -> None:
    primary, good = await start_group(cluster, "good")
    for words, reason in ((b"x" * 100_000, "too long"), (b"REPLCONF RESYNC 6b\r\n", "does not carry")):
        played = await play(cluster, primary)
        await played.until(b"+SNAPSHOT_END")
        await played.stream.send_all(words)
        await played.drink()
        assert reason in cluster.logged("primary", "replica_disconnected")[-1]["reason"]
    primary.set("k", "v")
    await cluster.settle(primary, good)
    assert upstream(good).state == "connected"


# -- two under one name -----------------------------------------------------------------------------------------------


@in_cluster
async def test_two_nodes_with_one_configured_id_are_told_apart(cluster: Cluster) -> None:
    primary, one, two = await start_group(cluster, "twin", "twin")
    fill(primary, " more")
    await trio.sleep(30)
    await cluster.settle(primary, one, two)
    assert syncs(primary) == (2, 0, 0)
    assert len({facts.replica_id for facts in primary.server.view.replicas()}) == 2


@in_cluster
async def test_a_replica_that_connects_again_takes_its_place_over(cluster: Cluster) -> None:
    primary, good = await start_group(cluster, "good")
    first = await play(cluster, primary)
    await first.until(b"+SNAPSHOT_END")
    second = await play(cluster, primary)
    await second.until(b"+SNAPSHOT_END")
    await first.drink()
    assert len(primary.server.view.replicas()) == 2
    primary.set("only", "to the second")
    await second.until(b"to the second")
    assert b"to the second" not in first.read
    await cluster.settle(primary, good)


@in_cluster
async def test_two_that_take_one_place_over_from_each_other_are_noticed(cluster: Cluster) -> None:
    primary, good = await start_group(cluster, "good")
    played = []
    for _ in range(3):
        played.append(await play(cluster, primary))
        await played[-1].until(b"+SNAPSHOT_END")
        await trio.sleep(0.5)
    newcomer = await play(cluster, primary)
    await newcomer.drink()
    assert newcomer.read.startswith(b"-ERR id 'kevynode-replica-9#played.0' was taken over 3 times within 10 seconds")
    assert cluster.logged("primary", "replica_refused")[-1]["reason"].encode() in newcomer.read
    # The one that was there goes on.
    primary.set("only", "to the third")
    await played[-1].until(b"to the third")
    await trio.sleep(9)
    late = await play(cluster, primary)
    await late.drink()
    assert late.read.startswith(b"-ERR id ")
    await played[-1].acknowledge(primary.replication.position)
    await trio.sleep(2)
    last = await play(cluster, primary)
    await last.until(b"+SNAPSHOT_END")
    await cluster.settle(primary, good)


@pytest.mark.parametrize("count", [300])
@in_cluster
async def test_many_that_never_say_hello_keep_nobody_out(cluster: Cluster, count: int) -> None:
    primary, good = await start_group(cluster, "good")
    idlers = [await cluster.dial(primary) for _ in range(count)]
    late = await cluster.start("late", port=7009, upstream=primary)
    await cluster.settle(primary, good, late)
    for idler in idlers:
        assert await idler.receive_some() == b""
        await idler.aclose()
    # A line for the first, second, fourth time and so on, so the last one tells of more than half of them.
    times = {facts["reason"]: facts["times"] for facts in cluster.logged("primary", "replica_refused")}
    assert 2 * times["too many handshakes at once"] > count - 256
    assert 2 * times["no handshake in time"] > 200
    fill_much(primary)
    await cluster.settle(primary, good, late)


@in_cluster
async def test_what_is_written_while_replicas_are_away_stays_within_the_budget(cluster: Cluster) -> None:
    primary, replica = await start_group(cluster, "replica")
    cluster.network.separate(primary.replication_address)
    held = []
    await write_much(primary, cluster, check=lambda: held.append(primary.server.view.backlog().memory))
    assert max(held) <= BUDGET + BESIDE
    cluster.network.unreachable.clear()
    await cluster.settle(primary, replica)
    assert last_sync(replica).kind == "full"


@in_cluster
async def test_what_is_written_beside_stuck_replicas_only_stays_within_the_budget(cluster: Cluster) -> None:
    (primary,) = await start_group(cluster)
    stuck = await play(cluster, primary)
    await stuck.until(b"+SNAPSHOT_END")
    held = []
    await write_much(primary, cluster, check=lambda: held.append(primary.server.view.backlog().memory))
    assert max(held) <= BUDGET + BESIDE
