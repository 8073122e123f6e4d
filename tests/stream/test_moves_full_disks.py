"""Moves from and to a node whose disk is full: they are refused at once, and everybody goes on as before."""

from __future__ import annotations

from support.cluster import Cluster, ErrorReply, in_cluster
from support.scoped import ScopedCluster

FULL = "No space left on device"


@in_cluster
async def test_nothing_is_moved_from_or_to_a_node_whose_disk_is_full(cluster: Cluster) -> None:
    cluster.expected_errors |= {"append_only_failed", "rewrite_failed"}
    world = ScopedCluster(cluster)
    await world.start(*world.ports)
    await world.settle()
    assert await world.write("anna", "SET", "a:k", "v") == "OK"
    disk = cluster.disk("bert")
    disk.fill_up()
    # Nobody whose write could not be stored is answered.
    client = await world.connect("bert")
    await client.send("SET", "b:k", "v")
    assert await client.ended()
    await client.aclose()

    to_bert = await world.write("anna", "MOVE-SCOPE", "a:", "FROM", "anna", "TO", "bert")
    assert to_bert == ErrorReply(f"ERR MOVE-SCOPE ship failed: bert refused: it cannot write its files: {FULL}")
    from_bert = await world.write("bert", "MOVE-SCOPE", "b:", "FROM", "bert", "TO", "anna")
    assert from_bert == ErrorReply(f"MISCONF Errors writing to the AOF file: {FULL}")
    assert world.is_open("anna", b"a:")
    assert await world.write("anna", "SET", "a:k", "w") == "OK"

    disk.make_room()
    await cluster.until(lambda: cluster.logged("bert", "append_only_recovered"), "a disk that works again")
    assert await world.write("anna", "MOVE-SCOPE", "a:", "FROM", "anna", "TO", "bert") == "OK 0"
    assert await world.write("bert", "GET", "a:k") == b"w"
    await world.settle()
