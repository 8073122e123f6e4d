"""A node that had scopes, and comes back with a configuration that declares none, or as another node."""

from __future__ import annotations

import pytest
from support.cluster import Cluster, in_cluster
from support.scoped import ScopedCluster
from support.session_harness import MemoryLog

from kevynode import Node, NodeConfig
from kevynode.leftovers import LEDGER
from kevynode.node import StartError
from kevynode.scope import ledger_file


@in_cluster
async def test_a_node_that_has_lost_its_scopes_says_so(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    await world.start("anna", "bert", "cleo")
    await world.settle()
    await cluster.stop(world.nodes["bert"])
    tables = {"server": {"port": 7001, "bind": "127.0.0.1", "data_dir": "/data"}, "persistence": {"aof": True}}
    await cluster.start_with("bert", tables)
    assert cluster.logged("bert", "ledger_without_scopes") == [{"file": "/data/kevynode.ledger"}]
    await cluster.until(lambda: cluster.logged("bert", "replica_refused"), "a peer that knocks")
    assert "no scopes are declared here" in cluster.logged("bert", "replica_refused")[0]["reason"]


@in_cluster
async def test_a_node_that_never_had_any_says_nothing(cluster: Cluster) -> None:
    node = await cluster.start("alone", port=7000, persistence={"aof": True})
    await cluster.stop(node)
    await cluster.restart(node)
    assert not cluster.logged("alone", "ledger_without_scopes")


@in_cluster
async def test_a_node_does_not_start_on_the_ledger_of_another_one(cluster: Cluster) -> None:
    """It would take that one's word for whose the scopes are, and write beside the node whose name it has."""
    world = ScopedCluster(cluster)
    await world.start("anna", "bert", "cleo")
    await world.settle()
    await world.stop("cleo")
    tables = world.tables("cleo", node_id="anna")
    node = Node(
        NodeConfig.from_dict(tables),
        MemoryLog(),  # type: ignore[arg-type]  # all that is asked of it
        transport=cluster.network,
        disk=cluster.disk("cleo"),
    )
    with pytest.raises(StartError, match="was written by another node, which knows anna as a peer"):
        await node.run()
    # It is cleo's as before.
    await world.start("cleo")
    await world.settle()


def test_the_ledger_has_one_name() -> None:
    assert LEDGER == ledger_file.LEDGER
