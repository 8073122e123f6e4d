"""Nodes that are started on an older copy of their data directory, with its ledger or without it."""

from __future__ import annotations

import pytest
from support.cluster import HOST, Cluster, in_cluster
from support.memory_disk import MemoryDisk
from support.scoped import ScopedCluster
from support.store_harness import Content
from trio import sleep

A = b"a:"


async def moved_since(world: ScopedCluster, name: str, *, keeps_ledger: bool) -> tuple[MemoryDisk, Content]:
    """A backup of a node from before anna's scope has moved to bert, and what is in the scope now."""
    await world.start("anna", "bert", "cleo")
    await world.settle()
    for number in range(20):
        assert await world.write("anna", "SET", f"a:{number}", f"v{number}") == "OK"
    await world.settle()
    backup: MemoryDisk = world.cluster.disks[name].kill()
    if not keeps_ledger:
        backup.remove("/data/kevynode.ledger")
        backup.sync_folder("/data")
    assert await world.write("anna", "MOVE-SCOPE", "a:", "FROM", "anna", "TO", "bert") == "OK 0"
    assert await world.write("bert", "SET", "a:late", "v") == "OK"
    assert await world.write("bert", "DEL", "a:1") == 1
    await world.settle()
    return backup, world.under("bert", A)


@pytest.mark.parametrize("keeps_ledger", [True, False], ids=["with its ledger", "without"])
@pytest.mark.parametrize("is_cut_off", [True, False], ids=["cut off", "linked"])
@in_cluster
async def test_a_node_that_has_become_the_writer_since_gets_what_was_written(
    cluster: Cluster, is_cut_off: bool, keeps_ledger: bool
) -> None:
    """What it has is a copy of what another node wrote then, which is not the newest one."""
    world = ScopedCluster(cluster)
    backup, expected = await moved_since(world, "bert", keeps_ledger=keeps_ledger)
    await world.kill("bert")
    cluster.disks["bert"] = backup
    if is_cut_off:
        for port in world.ports.values():
            cluster.network.separate(f"{HOST}:{port + 10000}")
    await world.start("bert")
    await sleep(10)
    assert world.is_open("bert", A) != is_cut_off
    cluster.network.unreachable.clear()
    await world.settle()
    assert world.under("bert", A) == world.under("cleo", A) == expected
    assert await world.write("bert", "SET", "a:1", "v") == "OK"


@pytest.mark.parametrize("is_cut_off", [True, False], ids=["cut off", "linked"])
@in_cluster
async def test_a_node_that_is_not_the_writer_any_more_takes_no_writes(cluster: Cluster, is_cut_off: bool) -> None:
    world = ScopedCluster(cluster)
    backup, expected = await moved_since(world, "anna", keeps_ledger=False)
    await world.kill("anna")
    cluster.disks["anna"] = backup
    if is_cut_off:
        for port in world.ports.values():
            cluster.network.separate(f"{HOST}:{port + 10000}")
    await world.start("anna")
    opened = [world.is_open("anna", A)]
    world.member("anna").ownership.observers.append(lambda: opened.append(world.is_open("anna", A)))
    await sleep(10)
    cluster.network.unreachable.clear()
    await world.settle()
    assert not any(opened)
    assert world.under("bert", A) == world.under("anna", A) == expected
