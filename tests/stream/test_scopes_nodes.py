"""Nodes with scopes from start to end: starts that are broken off, data directories, roles, and what idling costs."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from support.cluster import Cluster, ErrorReply, in_cluster
from support.scoped import ALWAYS, ScopedCluster, misdirected

from kevynode.node import StartError

MEMORY_ONLY = {"aof": False}


# -- roles ------------------------------------------------------------------------------------------------------------


@in_cluster
async def test_a_node_that_owns_scopes_does_not_become_a_replica(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    await world.start("anna", "bert", "cleo")
    await world.settle()
    refused = ErrorReply("ERR REPLICAOF is not allowed on a node that owns scopes: a:")
    assert await world.write("anna", "REPLICAOF", "127.0.0.1", 17001) == refused
    assert await world.write("anna", "SLAVEOF", "127.0.0.1", 17001) == refused
    assert await world.write("anna", "REPLICAOF", "NO", "ONE") == "OK"
    client = await world.connect("anna")
    assert await client.pipeline("MULTI", "SET a:1 v", "REPLICAOF 127.0.0.1 17001", "EXEC") == [
        "OK", "QUEUED", "QUEUED", ["OK", refused],
    ]  # fmt: skip
    assert world.nodes["anna"].server.role == "master"
    await world.settle()
    assert world.nodes["bert"].get("a:1") == b"v"


@in_cluster
async def test_who_owns_no_scope_may_become_a_replica_and_a_writers_copier_again(cluster: Cluster) -> None:
    world = ScopedCluster(cluster, {b"a:": "anna", b"b:": "bert"})
    await world.start("anna", "bert", "cleo")
    await world.settle()
    assert await world.write("anna", "MSET", "a:1", "v", "free", "anna's") == "OK"
    assert await world.write("bert", "SET", "b:1", "v") == "OK"
    await world.settle()
    assert await world.write("cleo", "REPLICAOF", "127.0.0.1", 17000) == "OK"
    await cluster.until(lambda: world.nodes["cleo"].get("free") == b"anna's", "the replica's copy")
    assert world.under("cleo", b"") == world.under("anna", b"")
    assert (await world.write("cleo", "SET", "free", "v")).text.startswith("READONLY")
    assert await world.write("cleo", "REPLICAOF", "NO", "ONE") == "OK"
    await world.settle()
    assert await world.write("cleo", "SET", "a:1", "v") == misdirected("anna")
    assert await world.write("cleo", "SET", "free", "v") == "OK"


@in_cluster
async def test_no_scope_moves_to_a_replica(cluster: Cluster) -> None:
    """It would own what it refuses to write."""
    world = ScopedCluster(cluster, {b"a:": "anna", b"b:": "bert"})
    await world.start("anna", "bert", "cleo")
    await world.settle()
    assert await world.write("anna", "SET", "a:1", "v") == "OK"
    assert await world.write("cleo", "REPLICAOF", "127.0.0.1", 17001) == "OK"
    await world.settle()
    refused = await world.write("anna", "MOVE-SCOPE", "a:", "FROM", "anna", "TO", "cleo")
    assert "it is a replica" in refused.text
    assert await world.write("anna", "SET", "a:1", "w") == "OK"
    assert await world.write("cleo", "REPLICAOF", "NO", "ONE") == "OK"
    await world.settle()
    assert (await world.write("anna", "MOVE-SCOPE", "a:", "FROM", "anna", "TO", "cleo")).startswith("OK")
    assert await world.write("cleo", "GET", "a:1") == b"w"


@in_cluster
async def test_a_replica_by_its_configuration_that_owns_scopes_does_not_start(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    tables = world.tables("anna") | {"replication": {"role": "replica", "upstream": "127.0.0.1:17001"}}
    assert await refusal(cluster, tables) == ("replication.role: a replica owns no scopes, and this node owns a:")


async def refusal(cluster: Cluster, tables: dict[str, Any]) -> str:
    """Why a node cannot start on anna's disk."""
    found: list[str] = []

    async def start() -> None:
        try:
            await cluster.start_with("anna", tables)
        except* StartError as group:
            error: BaseException = group
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            found.append(str(error))

    around = cluster.nursery
    async with trio.open_nursery() as cluster.nursery:
        await start()
    cluster.nursery = around
    return found[0]


# -- starts and ends --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("persistence", [ALWAYS, MEMORY_ONLY], ids=["aof", "memory"])
@in_cluster
async def test_a_second_node_on_the_data_directory_is_refused(cluster: Cluster, persistence: dict[str, object]) -> None:
    world = ScopedCluster(cluster, persistence=persistence)
    await world.start("anna", "bert", "cleo")
    await world.settle()
    double = ScopedCluster(cluster, ports=world.ports | {"anna": 7005}, persistence=persistence)
    assert "/data" in await refusal(cluster, double.tables("anna"))
    assert await world.write("anna", "SET", "a:1", "v") == "OK"
    await world.settle()


@in_cluster
async def test_a_node_stops_while_it_waits_for_peers(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    await world.start("anna")
    await trio.sleep(20)
    client = await world.connect("anna")
    assert await client.call("PING") == "PONG"
    began = trio.current_time()
    await world.stop("anna")
    assert trio.current_time() - began < 6
    await world.start("anna", "bert", "cleo")
    await world.settle()


@in_cluster
async def test_a_node_that_has_stopped_leaves_no_file_open(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    await world.start("anna", "bert", "cleo")
    await world.settle()
    disk = cluster.disk("anna")
    assert disk._files["/data/kevynode.ledger"].handles == 1
    await world.stop("anna")
    assert {path: content.handles for path, content in disk._files.items() if content.handles} == {}
    await world.start("anna")
    await world.settle()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["stop", "kill"])
@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5, 8, 12, 18, 25, 35, 50, 70, 100, 150, 200])
@in_cluster
async def test_a_start_may_end_at_every_step(cluster: Cluster, how: str, steps: int) -> None:
    world = ScopedCluster(cluster)
    await world.start("bert", "cleo")
    await world.start("anna")
    for _ in range(steps):
        await trio.lowlevel.checkpoint()
    await (world.stop if how == "stop" else world.kill)("anna")
    await world.start("anna")
    await world.settle()
    assert await world.write("anna", "SET", "a:1", "v") == "OK"
    await world.settle()


@pytest.mark.slow
@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5, 8, 12, 18, 25, 35, 50, 70, 100, 150, 200, 300])
@in_cluster
async def test_a_restore_may_be_stopped_at_every_step(cluster: Cluster, steps: int) -> None:
    world = ScopedCluster(cluster)
    await world.start("anna", "bert", "cleo")
    await world.settle()
    for number in range(50):
        world.nodes["anna"].execute("SET", f"a:{number}", "v")
    await world.settle()
    expected = world.under("anna", b"a:")
    await world.lose_disk("anna")
    await world.start("anna")
    await cluster.until(lambda: "its data from" in world.row("anna", b"a:").detail or world.is_open("anna", b"a:"))
    for _ in range(steps):
        await trio.lowlevel.checkpoint()
    await world.stop("anna")
    await world.start("anna")
    await world.settle()
    assert world.under("anna", b"a:") == world.under("bert", b"a:") == world.under("cleo", b"a:") == expected


# -- idling -----------------------------------------------------------------------------------------------------------


class Steps(trio.abc.Instrument):
    """Counts the steps of tasks by their names."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.counts[task.name] = self.counts.get(task.name, 0) + 1

    def of(self, word: str) -> int:
        """How many steps tasks took whose names have a word."""
        return sum(count for name, count in self.counts.items() if word in name)


@pytest.mark.slow
@pytest.mark.parametrize("present", [("anna", "bert", "cleo"), ("anna", "bert"), ("anna",)], ids=len)
@in_cluster
async def test_idling_costs_nothing(cluster: Cluster, present: tuple[str, ...]) -> None:
    world = ScopedCluster(cluster)
    await world.start(*present)
    await trio.sleep(60)
    steps = Steps()
    trio.lowlevel.add_instrument(steps)
    await trio.sleep(100)
    trio.lowlevel.remove_instrument(steps)
    # A look a minute, at the most one with each change of what is known of a peer.
    assert 0 < steps.of("ScopeKeeper.run") <= 10 * len(present), steps.counts
    assert steps.of("_restore") == steps.of("_ask_peer") == 0
    # A heartbeat a second on each link, both ways.
    assert steps.of("Link._") <= 100 * 20 * len(present), steps.counts


@in_cluster
async def test_waiting_for_data_costs_little(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    await world.start("anna", "bert", "cleo")
    await world.settle()
    assert await world.write("anna", "SET", "a:1", "v") == "OK"
    await world.settle()
    await world.lose_disk("anna")
    await world.stop("bert")
    await world.start("anna")
    await trio.sleep(10)
    steps = Steps()
    trio.lowlevel.add_instrument(steps)
    await trio.sleep(100)
    trio.lowlevel.remove_instrument(steps)
    assert not world.is_open("anna", b"a:")
    assert steps.of("ScopeKeeper") <= 50, steps.counts
