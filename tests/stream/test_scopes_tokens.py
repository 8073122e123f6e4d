"""What tokens promise across a move: who has waited for one shows what its giver had done, whoever wrote it before."""

from __future__ import annotations

import trio
from support.cluster import HOST, Cluster, ErrorReply, in_cluster
from support.network import hold
from support.scoped import PORTS, ScopedCluster

from kevynode.scope.ledger_records import MoveRecord, MoveState, Record


@in_cluster
async def test_a_token_of_the_new_writer_waits_for_the_scope_to_be_followed_there(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    await world.start("anna", "bert", "cleo")
    await world.settle()
    await world.stop("cleo")
    theirs = {id(wire) for wire in cluster.network.wires}
    await world.start("cleo")
    await world.settle()
    assert await world.write("anna", "SET", "a:1", "old") == "OK"
    await world.settle()
    anna = f"{HOST}:{PORTS['anna'] + 10000}"
    release = hold(wire.outward for wire in cluster.network.to(anna) if id(wire) not in theirs)
    # cleo hears of the move from bert, and does not get to the end of what anna wrote.
    assert isinstance(await world.write("anna", "MOVE-SCOPE", "a:", "FROM", "anna", "TO", "bert"), str)
    writer = await world.connect("bert")
    assert await writer.call("SET", "a:1", "new") == "OK"
    history, offset = await writer.call("REPL.TOKEN")
    await trio.sleep(1)
    reader = await world.connect("cleo")
    await reader.send("REPL.WAIT", history, offset, "TIMEOUT", 500)
    await reader.send("GET", "a:1")
    waited, value = await reader.reply(), await reader.reply()
    assert (isinstance(waited, ErrorReply), value) == (True, b"old")
    release()
    await reader.send("REPL.WAIT", history, offset, "TIMEOUT", 5000)
    await reader.send("GET", "a:1")
    assert (await reader.reply(), await reader.reply()) == ("OK", b"new")
    await writer.aclose()
    await reader.aclose()
    await world.settle()


@in_cluster
async def test_the_old_writer_does_not_answer_while_its_disk_keeps_it_from_being_that(cluster: Cluster) -> None:
    """The move is decided and done, and anna cannot write down that bert has the scope: what it shows is old."""
    cluster.expected_errors |= {"append_only_failed", "append_only_unsynced", "move_not_recorded", "rewrite_failed"}
    world = ScopedCluster(cluster)
    await world.start("anna", "bert", "cleo")
    await world.settle()
    assert await world.write("anna", "SET", "a:1", "old") == "OK"
    await world.settle()
    keeper, disk = world.member("anna").keeper, cluster.disk("anna")
    on_records = keeper.on_records

    def recorded(records: tuple[Record, ...]) -> None:
        on_records(records)
        if any(isinstance(record, MoveRecord) and record.state is MoveState.FLIPPED for record in records):
            disk.read_only()

    keeper.on_records = recorded
    mover = await world.connect("anna")
    await mover.send("MOVE-SCOPE", "a:", "FROM", "anna", "TO", "bert")
    await cluster.until(lambda: world.is_open("bert", b"a:"), "the move")
    writer = await world.connect("bert")
    assert await writer.call("SET", "a:1", "new") == "OK"
    history, offset = await writer.call("REPL.TOKEN")
    await trio.sleep(1)
    reader = await world.connect("anna")
    await reader.send("REPL.WAIT", history, offset, "TIMEOUT", 5000)
    await reader.send("GET", "a:1")
    assert (isinstance(await reader.reply(), ErrorReply), await reader.reply()) == (True, b"old")
    assert world.owners("anna")[b"a:"] == "anna"
    # Without a limit it waits until the disk takes it down, and is answered then, though nobody writes anything.
    await reader.send("REPL.WAIT", history, offset)
    await reader.send("GET", "a:1")
    await trio.sleep(30)
    disk.read_only(False)
    assert (await reader.reply(), await reader.reply()) == ("OK", b"new")
    for client in (mover, writer, reader):
        await client.aclose()
    await world.settle()


@in_cluster
async def test_a_node_that_knows_of_no_moves_answers_when_everybody_has_told_it_of_theirs(cluster: Cluster) -> None:
    """bert has lost its disk, and with it who had cleo's scope before: anna may have, or dora, who is away."""
    world = ScopedCluster(cluster)
    del world.scopes[b"b:"]
    world.ports["dora"] = 7003
    await world.start("anna", "bert", "cleo", "dora")
    await world.settle()
    writer = await world.connect("anna")
    assert await writer.call("SET", "a:1", "v") == "OK"
    history, offset = await writer.call("REPL.TOKEN")
    await world.settle()
    await world.stop("dora")
    await world.lose_disk("bert")
    await world.start("bert")
    await cluster.until(lambda: world.nodes["bert"].get("a:1") == b"v", "the copy at bert")
    await trio.sleep(5)
    reader = await world.connect("bert")
    assert isinstance(await reader.call("REPL.WAIT", history, offset, "TIMEOUT", 500), ErrorReply)
    await reader.send("REPL.WAIT", history, offset)
    await trio.sleep(5)
    await world.start("dora")
    assert await reader.reply() == "OK"
    for client in (writer, reader):
        await client.aclose()
    await world.settle()
