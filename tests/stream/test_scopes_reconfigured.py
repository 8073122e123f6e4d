"""Nodes that are declared in another way from one start to the next: nothing that anybody has a copy of is lost."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from support.cluster import HOST, Cluster, in_cluster
from support.scoped import PORTS, ScopedCluster, closed
from support.store_harness import Content

from kevynode.scope.ledger import LedgerEntry
from kevynode.scope.ledger_file import LedgerFile, load
from kevynode.scope.ledger_records import MoveRecord, MoveState, Record, Tail

A = b"a:"


async def written(world: ScopedCluster) -> Content:
    """Let anna write; what all that copy it hold then under its scope."""
    await world.settle()
    for number in range(20):
        assert await world.write("anna", "SET", f"a:{number}", f"v{number}") == "OK"
    await world.settle()
    return world.under("anna", A)


async def filled(world: ScopedCluster, *names: str) -> Content:
    """Start nodes, and let anna write; what all of them hold then under its scope."""
    await world.start(*names)
    return await written(world)


async def restart(world: ScopedCluster, *names: str, **cluster: Any) -> None:
    """Stop nodes and start them again, all with the same configuration."""
    for name in names:
        await world.stop(name)
    await world.start(*names, **cluster)


@in_cluster
async def test_a_writer_on_a_new_machine_gets_its_scope_back(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    expected = await filled(world, "anna", "bert", "cleo")
    await world.lose_disk("anna")
    world.ports["anna"] = 7009
    await restart(world, "bert", "cleo")
    # And once more before there is anything new.
    await restart(world, "bert", "cleo")
    await world.start("anna")
    await world.settle()
    assert world.under("anna", A) == expected


@in_cluster
async def test_nodes_that_change_places_are_who_they_were(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    expected = await filled(world, "anna", "bert", "cleo")
    await world.lose_disk("anna")
    await world.stop("bert")
    world.ports |= {"anna": PORTS["bert"], "bert": PORTS["anna"]}
    await restart(world, "cleo")
    await restart(world, "cleo")
    await world.start("anna", "bert")
    await world.settle()
    assert world.under("anna", A) == expected


@in_cluster
async def test_a_writer_that_was_not_declared_for_a_while_gets_its_scope_back(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    expected = await filled(world, "anna", "bert", "cleo")
    assert await world.write("anna", "MOVE-SCOPE", "a:", "FROM", "anna", "TO", "cleo") == "OK 0"
    await world.settle()
    await world.lose_disk("cleo")
    # Only the ledger names it.
    del world.ports["cleo"], world.scopes[b"c:"]
    await restart(world, "anna", "bert")
    await restart(world, "anna", "bert")
    assert world.owners("bert")[A] == "cleo"
    world.ports["cleo"] = 7009
    await restart(world, "anna", "bert")
    await world.start("cleo")
    await world.settle()
    assert world.under("cleo", A) == expected


@in_cluster
async def test_a_new_writer_without_a_copy_gets_that_of_a_node_that_is_declared_no_more(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    await world.start("anna", "bert")
    await world.start("cleo", replicate=["b:"])
    expected = await written(world)
    await world.lose_disk("anna")
    del world.ports["anna"]
    world.scopes[A] = "cleo"
    await restart(world, "bert", "cleo")
    await world.settle()
    assert world.under("cleo", A) == expected


@in_cluster
async def test_a_writer_by_declaration_that_has_nothing_begins_with_what_the_one_before_has(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    await world.start("anna", "bert")
    await world.start("cleo", replicate=["b:"])
    expected = await written(world)
    world.scopes[A] = "cleo"
    await restart(world, "anna", "bert", "cleo")
    await world.settle()
    assert world.under("cleo", A) == expected


@in_cluster
async def test_nobody_else_needs_to_have_a_copy_for_that(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    await world.start("anna")
    await world.start("bert", "cleo", replicate=["b:"])
    expected = await written(world)
    world.scopes[A] = "cleo"
    # One after the other, as people do it.
    await restart(world, "cleo")
    await restart(world, "bert")
    await restart(world, "anna")
    await restart(world, "anna")
    await world.settle()
    assert world.under("cleo", A) == expected


@in_cluster
async def test_a_move_with_a_node_that_is_declared_no_more_can_be_decided(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    expected = await filled(world, "anna", "bert", "cleo")
    keeper = world.member("bert").keeper
    on_records, reached = keeper.on_records, trio.Event()

    def recorded(records: tuple[Record, ...]) -> None:
        on_records(records)
        if any(isinstance(record, MoveRecord) and record.state is MoveState.SEALED for record in records):
            cluster.network.separate(f"{HOST}:{world.ports['anna'] + 10000}")
            reached.set()

    keeper.on_records = recorded
    mover = await world.connect("anna")
    await mover.send("MOVE-SCOPE", "a:", "FROM", "anna", "TO", "bert")
    await reached.wait()
    await world.lose_disk("anna")
    await mover.aclose()
    del world.ports["anna"]
    world.scopes[A] = "bert"
    await restart(world, "bert", "cleo")
    await trio.sleep(20)
    assert world.row("bert", A).state == "quiesced"
    await world.write("bert", "MOVE-SCOPE", "RESOLVE", "a:", "ABORT")
    await world.settle()
    assert world.under("bert", A) == world.under("cleo", A) == expected


@in_cluster
async def test_what_is_to_be_kept_of_a_scope_that_is_declared_no_more_is_kept(cluster: Cluster) -> None:
    """It had been lost to another node, and then there was no room for the file."""
    world = ScopedCluster(cluster)
    await world.start("anna")
    assert await world.write("anna", "SET", "z:1", "v") == "OK"
    await world.stop("anna")
    disk = cluster.disks["anna"]
    file = LedgerFile(disk, "/data", load(disk, "/data"))
    file.append([LedgerEntry(b"z:", "bert", 3, "m"), Tail(b"z:", 3)])
    file.close()
    await world.start("anna", "bert", "cleo")
    await world.settle()
    (kept,) = cluster.logged("anna", "tail_kept")
    assert (kept["prefix"], kept["keys"]) == (b"z:", 1)
    assert not world.member("anna").keeper.state.tails
    # It is under no scope, and stays.
    assert world.nodes["anna"].get("z:1") == b"v"


@in_cluster
async def test_a_writer_by_declaration_begins_with_the_best_copy_and_not_with_its_own(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    await filled(world, "anna", "bert", "cleo")
    await world.stop("bert")
    # bert does not hear of this.
    assert await world.write("anna", "SET", "a:late", "v") == "OK"
    assert await world.write("anna", "DEL", "a:1", "a:2") == 2
    expected = world.under("anna", A)
    world.scopes[A] = "bert"
    # One after the other, and one of them twice before there is anything better.
    await world.start("bert")
    await trio.sleep(10)
    assert not world.is_open("bert", A)
    await restart(world, "bert")
    await trio.sleep(10)
    assert not world.is_open("bert", A)
    await restart(world, "cleo", "anna")
    await world.settle()
    assert world.under("bert", A) == expected
    assert await world.write("bert", "SET", "a:new", "v") == "OK"
    # From here on what it has is the state of the scope.
    await world.kill("bert")
    await world.start("bert")
    await world.settle()
    assert world.nodes["anna"].get("a:new") == b"v"
    assert not cluster.logged("bert", "scope_restored")


@in_cluster
async def test_a_writer_by_declaration_that_is_cut_off_takes_no_writes(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    await filled(world, "anna", "bert", "cleo")
    await world.stop("bert")
    for name in ("anna", "bert", "cleo"):
        cluster.network.separate(f"{HOST}:{world.ports[name] + 10000}")
    world.scopes[A] = "bert"
    await world.start("bert")
    await trio.sleep(30)
    assert world.is_open("anna", A)
    assert not world.is_open("bert", A)


@in_cluster
async def test_a_writer_by_declaration_knows_that_it_has_not_followed_for_a_while(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    await filled(world, "anna", "bert", "cleo")
    await restart(world, "cleo", replicate=["b:"])
    await restart(world, "cleo", replicate=["b:"])
    await world.settle()
    assert await world.write("anna", "SET", "a:late", "v") == "OK"
    await world.settle()
    expected = world.under("anna", A)
    world.scopes[A] = "cleo"
    await restart(world, "anna", "bert")
    await restart(world, "cleo", replicate=["b:"])
    await world.settle()
    assert world.under("cleo", A) == expected


@in_cluster
async def test_what_has_been_removed_does_not_come_back_with_a_writer_by_declaration(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    expected = await filled(world, "anna", "bert", "cleo")
    await world.stop("bert")
    assert await world.write("anna", "DEL", *expected) == 20
    world.scopes[A] = "bert"
    await world.start("bert")
    await restart(world, "cleo", "anna")
    await world.settle()
    assert [facts["peer"] for facts in cluster.logged("bert", "scope_restored")] == ["anna"]
    assert world.under("bert", A) == {}


@pytest.mark.parametrize("prefix", [b"a:1", b"a"])
@in_cluster
async def test_a_scope_that_is_cut_out_of_one_that_was_moved_waits_for_the_right_writer(
    cluster: Cluster, prefix: bytes
) -> None:
    """A scope that holds one that was moved, likewise."""
    world = ScopedCluster(cluster)
    await filled(world, "anna", "bert", "cleo")
    assert await world.write("anna", "MOVE-SCOPE", "a:", "FROM", "anna", "TO", "bert") == "OK 0"
    await world.settle()
    await world.stop("anna")
    assert await world.write("bert", "SET", "a:1late", "v") == "OK"
    expected = world.under("bert", prefix)
    del world.scopes[A]
    world.scopes[prefix] = "anna"
    await world.start("anna")
    await restart(world, "bert", "cleo")
    await trio.sleep(10)
    reason = "bert, which writes a: by the ledger, to be declared its writer"
    assert await world.write("anna", "SET", "a:1", "v") == closed(prefix.decode(), reason)
    assert world.under("bert", prefix) == expected
    world.scopes[prefix] = "bert"
    await restart(world, "anna", "bert", "cleo")
    await world.settle()
    assert world.under("anna", prefix) == expected
    assert await world.write("bert", "SET", "a:1", "v") == "OK"


@pytest.mark.parametrize(
    "replication",
    [{}, {"role": "replica", "upstream": f"{HOST}:9", "replica_read_only": False}],
    ids=["alone", "replica of nobody"],
)
@in_cluster
async def test_what_is_written_to_a_copy_while_no_scopes_are_declared_does_not_stay_there(
    cluster: Cluster, replication: dict[str, Any]
) -> None:
    world = ScopedCluster(cluster)
    expected = await filled(world, "anna", "bert", "cleo")
    await world.stop("cleo")
    tables = world.tables("cleo")
    del tables["cluster"]
    tables["replication"] = replication
    alone = await cluster.start_with("cleo", tables)
    alone.execute("SET", "a:1", "cleo's")
    alone.execute("DEL", "a:2")
    alone.execute("RPUSH", "a:list", "x")
    await cluster.stop(alone)
    await world.start("cleo")
    await world.settle()
    assert world.under("cleo", A) == expected
    # And so it is for good.
    await world.stop("cleo")
    await world.start("cleo")
    await world.settle()


@pytest.mark.parametrize("wanted", ["all", ["b:"]], ids=["behind", "no copy"])
@in_cluster
async def test_a_scope_that_is_divided_among_writers_loses_nothing(cluster: Cluster, wanted: Any) -> None:
    world = ScopedCluster(cluster)
    await world.start("anna", "cleo")
    await world.start("bert", replicate=wanted)
    await world.settle()
    for number in range(30):
        assert await world.write("anna", "SET", f"a:{number}", f"v{number}") == "OK"
    await world.settle()
    await world.stop("bert")
    assert await world.write("anna", "SET", "a:1late", "v") == "OK"
    expected = world.under("anna", A)
    del world.scopes[A]
    world.scopes |= {b"a:1": "bert", b"a:2": "anna"}
    await world.start("bert", replicate=wanted)
    await restart(world, "anna", "cleo")
    await world.settle()
    for prefix in (b"a:1", b"a:2"):
        assert world.under("cleo", prefix) == {key: value for key, value in expected.items() if key.startswith(prefix)}


@in_cluster
async def test_a_writer_that_comes_back_without_data_to_a_part_of_its_scope_gets_that_back(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    expected = await filled(world, "anna", "bert", "cleo")
    await world.lose_disk("anna")
    del world.scopes[A]
    world.scopes[b"a:1"] = "anna"
    await restart(world, "bert", "cleo")
    await restart(world, "bert", "cleo")
    await world.start("anna")
    await world.settle()
    assert world.under("anna", b"a:1") == {key: value for key, value in expected.items() if key.startswith(b"a:1")}
