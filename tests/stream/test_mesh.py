"""Writers of scopes that copy each other: whole nodes in a full mesh, over a network in memory."""

from __future__ import annotations

import random
from typing import Any

import pytest
import trio
from support.cluster import HOST, Cluster, fill, in_cluster
from support.mesh import PORTS, THREE, MeshCluster, three, write_some
from support.store_harness import content

from kevynode import Node
from kevynode.replicate.client import Frame, ReplicaClient, ReplicaEvent, Skip, SnapshotData, SnapshotEnd


def only_own(mesh: MeshCluster) -> None:
    """Assert that nobody has sent, on a link of scopes, what is not its own."""
    for name in mesh.members:
        for command in mesh.streamed(name):
            key = command[2] if command[0] == b"XGROUP" else command[1]
            assert any(key.startswith(prefix) for prefix, owner in mesh.owners.items() if owner == name), command


# -- all is well ------------------------------------------------------------------------------------------------------


@in_cluster
async def test_everybody_has_what_the_others_write_and_nothing_else_of_them(cluster: Cluster) -> None:
    mesh = three(cluster)
    await mesh.start("anna", "bert")
    anna, bert = mesh.members["anna"], mesh.members["bert"]
    anna.run("SET", "a:1", "before")
    anna.run("SET", "unscoped", "anna's")
    bert.run("SET", "unscoped", "bert's")
    fill(anna.node)
    await mesh.start("cleo")
    await mesh.settle()
    anna.run("SET", "a:2", "after")
    bert.run("RPUSH", "b:list", "x", "y")
    mesh.members["cleo"].run("HSET", "c:hash", "f", "v")
    await mesh.settle()
    cleo = mesh.members["cleo"]
    assert cleo.run("GET", "a:1") == b"before"
    assert cleo.run("LRANGE", "b:list", 0, -1) == [b"x", b"y"]
    assert anna.run("HGET", "c:hash", "f") == b"v"
    assert (bert.run("GET", "unscoped"), cleo.run("GET", "unscoped")) == (b"bert's", None)
    assert set(content(cleo.node.store)) == {b"a:1", b"a:2", b"b:list", b"c:hash"}
    only_own(mesh)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@in_cluster
async def test_random_writes_in_a_full_mesh_end_in_equal_copies(cluster: Cluster, seed: int) -> None:
    chance = random.Random(seed)
    mesh = three(cluster)
    await mesh.start("anna", "bert", "cleo")
    applied: dict[str, list[int]] = {}
    for name, member in mesh.members.items():
        applied[name] = [0]

        def observe(first: int, group: list[Any], name: str = name, member: Any = member) -> None:
            applied[name][0] += len(group) if member.node.store.journal.origin is not None else 0

        member.node.store.journal.observers.append(observe)
    await mesh.settle()
    for _ in range(20):
        write_some(mesh, chance, 40)
        await trio.sleep(chance.choice((0, 0.01, 0.3)))
    await mesh.settle()
    only_own(mesh)
    # What one has written the two others have applied, each once.
    for name in mesh.members:
        # Each owner has two links, and sent the same on both.
        assert applied[name][0] == sum(len(mesh.streamed(other)) // 2 for other in mesh.members if other != name)


@in_cluster
async def test_a_group_arrives_as_one_without_what_is_not_of_the_scope(cluster: Cluster) -> None:
    mesh = three(cluster)
    await mesh.start("anna", "bert")
    await mesh.settle()
    bert = mesh.members["bert"]
    groups: list[list[bytes]] = []
    bert.node.store.journal.observers.append(lambda _, group: groups.append([effect[1] or b"" for effect in group]))
    anna = await cluster.connect(mesh.members["anna"].node)
    for line in ("MULTI", "SET a:1 x", "SET unscoped x", "SET a:2 x"):
        await anna.call(*line.split())
    assert await anna.call("EXEC") == ["OK", "OK", "OK"]
    await mesh.settle()
    assert groups == [[b"a:1", b"a:2"]]


@in_cluster
async def test_what_one_flushes_is_cleared_of_its_scopes_only(cluster: Cluster) -> None:
    mesh = three(cluster)
    await mesh.start("anna", "bert", "cleo")
    for prefix, owner in THREE.items():
        mesh.members[owner].run("SET", prefix + b"1", "v")
    mesh.members["bert"].run("SET", "unscoped", "v")
    await mesh.settle()
    # As the owner's own clear is told where it holds nothing of others.
    store = mesh.members["anna"].node.store
    store.clear()
    store.emit((b"FLUSHALL",), None)
    store.commit()
    bert = mesh.members["bert"]
    await cluster.until(lambda: bert.run("GET", "a:1") is None, "the flush")
    assert set(content(bert.node.store)) == {b"b:1", b"c:1", b"unscoped"}


@in_cluster
async def test_wait_counts_a_copy_for_what_it_copies(cluster: Cluster) -> None:
    mesh = three(cluster)
    await mesh.start("anna", "bert")
    await mesh.settle()
    anna = await cluster.connect(mesh.members["anna"].node)
    await anna.call("SET", "a:1", "v")
    assert await anna.call("WAIT", 1, 5000) == 1
    await anna.call("SET", "unscoped", "v")
    assert await anna.call("WAIT", 1, 50) == 0
    token = mesh.members["anna"].node.replication
    bert = await cluster.connect(mesh.members["bert"].node)
    assert await bert.call("REPL.WAIT", token.history, token.position, "TIMEOUT", 5000) == "OK"


@in_cluster
async def test_a_plain_replica_of_a_member_has_all_that_it_has(cluster: Cluster) -> None:
    mesh = three(cluster)
    await mesh.start("anna", "bert")
    mesh.members["bert"].run("SET", "b:0", "v")
    anna = mesh.members["anna"].node
    replica = await cluster.start("replica", port=7010, upstream=anna)
    await cluster.settle(anna, replica)
    mesh.members["bert"].run("SET", "b:1", "v")
    anna.set("unscoped", "v")
    anna.set("a:1", "v")
    await mesh.settle("anna", "bert")
    await cluster.settle(anna, replica)
    assert replica.get("b:1") == b"v"
    # A ship for the node above comes to it as entries, too.
    await mesh.end("bert", cluster.kill)
    await mesh.restart("bert")
    mesh.members["bert"].run("SET", "b:2", "v")
    await mesh.settle("anna", "bert")
    await cluster.settle(anna, replica)
    assert [replica.get(key) for key in ("b:0", "b:1", "b:2")] == [None, None, b"v"]


# -- trouble ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
@in_cluster
async def test_cut_links_and_restarts_lose_nothing(cluster: Cluster, seed: int) -> None:
    chance = random.Random(seed)
    mesh = three(cluster, persistence={"aof": True, "appendfsync": "everysec"} if seed % 2 else None)
    await mesh.start("anna", "bert", "cleo")
    for _ in range(12):
        write_some(mesh, chance, 30)
        name = chance.choice(sorted(PORTS))
        address = f"{HOST}:{PORTS[name] + 10000}"
        match chance.randrange(4):
            case 0:
                cluster.network.cut(address)
            case 1:
                await mesh.end(name, cluster.kill if chance.random() < 0.5 else cluster.stop)
                write_some_others(mesh, chance, name)
                await mesh.restart(name)
            case 2:
                cluster.network.separate(address)
                write_some(mesh, chance, 30)
                await trio.sleep(2)
                cluster.network.unreachable.discard(address)
            case 3:
                await mesh.settle()
        await trio.sleep(chance.choice((0, 0.05, 1)))
    await mesh.settle()


def write_some_others(mesh: MeshCluster, chance: random.Random, absent: str) -> None:
    owners = dict(mesh.owners)
    for prefix, owner in owners.items():
        if owner != absent:
            for _ in range(10):
                mesh.members[owner].run("SET", prefix + b"%d" % chance.randrange(20), str(chance.random()))


@pytest.mark.parametrize("kept", [True, False])
@in_cluster
async def test_after_a_restart_files_say_where_to_go_on(cluster: Cluster, kept: bool) -> None:
    mesh = three(cluster, persistence={"aof": kept})
    await mesh.start("anna", "bert")
    anna = mesh.members["anna"]
    for number in range(50):
        anna.run("SET", f"a:{number}", "v")
        anna.run("SET", f"unscoped:{number}", "v")
    await mesh.settle()
    await mesh.end("bert", cluster.stop)
    anna.run("SET", "a:1", "new")
    anna.run("RPUSH", "a:list", "once")
    await mesh.restart("bert")
    await mesh.settle()
    view = anna.node.server.view
    assert view.partial_syncs == (1 if kept else 0)
    assert view.full_syncs == (1 if kept else 2)
    assert mesh.members["bert"].run("LRANGE", "a:list", 0, -1) == [b"once"]


@in_cluster
async def test_what_was_applied_of_a_group_is_no_place_that_nobody_goes_on_from(cluster: Cluster) -> None:
    mesh = three(cluster, persistence={"aof": True})
    await mesh.start("anna", "bert")
    await mesh.settle()
    anna = await cluster.connect(mesh.members["anna"].node)
    for line in ("MULTI", "SET a:1 x", "SET unscoped x", "SET unscoped y"):
        await anna.call(*line.split())
    assert await anna.call("EXEC") == ["OK", "OK", "OK"]
    await mesh.settle()
    await mesh.end("bert", cluster.stop)
    mesh.members["anna"].run("SET", "a:2", "x")
    await mesh.restart("bert")
    await mesh.settle()
    view = mesh.members["anna"].node.server.view
    assert (view.full_syncs, view.partial_syncs) == (1, 1)


@in_cluster
async def test_a_writer_that_comes_back_in_another_history_is_followed_across_it(cluster: Cluster) -> None:
    mesh = three(cluster, persistence={"aof": True})
    await mesh.start("anna", "bert")
    mesh.members["anna"].run("SET", "a:1", "v")
    await mesh.settle()
    for _ in range(2):
        await mesh.end("anna", cluster.stop)
        await mesh.restart("anna")
        mesh.members["anna"].run("SET", "a:2", "v")
        await mesh.settle()
        assert mesh.members["anna"].node.server.view.full_syncs == 0
    # Also by a node that knows only from its files what it holds.
    await mesh.end("bert", cluster.stop)
    await mesh.restart("bert")
    await mesh.settle()
    assert mesh.members["anna"].node.server.view.full_syncs == 0


@in_cluster
async def test_a_scope_that_is_added_comes_with_a_ship_in_its_place_in_the_stream(cluster: Cluster) -> None:
    mesh = MeshCluster(cluster, {b"a:": "anna", b"x:": "anna", b"b:": "bert"}, {"anna": 7000, "bert": 7001})
    mesh.wanted["bert"] = {b"a:"}
    await mesh.start("anna", "bert")
    anna, bert = mesh.members["anna"], mesh.members["bert"]
    for number in range(30):
        anna.run("SET", f"a:{number}", "v")
        anna.run("RPUSH", "x:list", number)
    await mesh.settle()
    assert bert.under(b"x:") == {}
    mesh.wanted["bert"] = {b"a:", b"x:"}
    mesh.refresh()
    for number in range(30, 60):
        anna.run("RPUSH", "x:list", number)
        anna.run("SET", f"a:{number}", "v")
        await trio.sleep(0.01)
    await mesh.settle()
    assert bert.run("LLEN", "x:list") == 60
    view = anna.node.server.view
    assert view.full_syncs == 1
    facts = bert.mesh.facts(bert.node.clock.monotonic())[0]
    assert facts.prefixes == (b"a:", b"x:")
    assert facts.missing == ()
    assert facts.upstream.last_sync is not None
    assert facts.upstream.last_sync.kind == "scope"
    # One that is not wanted any more stays as it is, and is not followed.
    mesh.wanted["bert"] = {b"x:"}
    mesh.refresh()
    anna.run("SET", "a:0", "changed")
    await mesh.settle()
    assert bert.run("GET", "a:0") == b"v"
    # When it is wanted again nothing that was missed is missing.
    mesh.wanted["bert"] = {b"a:", b"x:"}
    mesh.refresh()
    await mesh.settle()
    assert bert.run("GET", "a:0") == b"changed"


@in_cluster
async def test_the_ship_of_a_scope_says_in_which_epoch_it_is_owned(cluster: Cluster) -> None:
    mesh = MeshCluster(cluster, {b"a:": "anna", b"x:": "anna"}, {"anna": 7000, "bert": 7001})
    mesh.epochs[b"x:"] = 3
    mesh.wanted["bert"] = {b"a:"}
    await mesh.start("anna", "bert")
    await mesh.settle()
    mesh.wanted["bert"] = {b"a:", b"x:"}
    mesh.refresh()
    await mesh.settle()
    assert any(b"+SNAPSHOT_SCOPE 3 783a\r\n" in bytes(wire.outward.record or b"") for wire in mesh.wires)


@in_cluster
async def test_a_copy_that_lacks_a_scope_does_not_count_for_it(cluster: Cluster) -> None:
    mesh = MeshCluster(cluster, {b"a:": "anna", b"x:": "anna"}, {"anna": 7000, "bert": 7001})
    mesh.wanted["bert"] = {b"a:"}
    await mesh.start("anna", "bert")
    anna, bert = mesh.members["anna"], mesh.members["bert"]
    anna.run("SET", "x:1", "v" * 100_000)
    await mesh.settle()
    client = await cluster.connect(anna.node)
    mesh.pause, mesh.grain = 0.1, 2000
    mesh.wanted["bert"] = {b"a:", b"x:"}
    mesh.refresh()
    waits, lacked = [], 0
    for number in range(200):
        await client.call("SET", "x:2", number)
        waits.append(await client.call("WAIT", 1, 300))
        held = bert.run("GET", "x:2")
        assert not waits[-1] or held == b"%d" % number
        if waits[-1]:
            break
        lacked += bert.follower("anna").missing == (b"x:",)
    assert lacked > 5
    assert waits[-1] == 1
    await client.call("SET", "a:1", "v")
    assert await client.call("WAIT", 1, 0) == 1


@in_cluster
async def test_writes_during_a_ship_are_neither_lost_nor_applied_twice(cluster: Cluster) -> None:
    mesh = three(cluster)
    await mesh.start("anna")
    anna = mesh.members["anna"]
    for number in range(3000):
        anna.run("RPUSH", f"a:{number}", "first", "x" * 100)
    await mesh.start("bert")
    for number in range(0, 3000, 7):
        anna.run("RPUSH", f"a:{number}", "second")
        anna.run("DEL", f"a:{number + 1}")
        if number % 70 == 0:
            await trio.sleep(0.001)
    await mesh.settle()


@in_cluster
async def test_a_scope_that_becomes_this_nodes_own_is_left_alone_at_once(cluster: Cluster) -> None:
    mesh = three(cluster)
    await mesh.start("anna", "bert", "cleo")
    anna, bert = mesh.members["anna"], mesh.members["bert"]
    anna.run("SET", "a:1", "anna's")
    await mesh.settle()
    let_go = cluster.network.hold(f"{HOST}:17000")
    anna.run("SET", "a:1", "late")
    await trio.sleep(0.1)
    mesh.assign(b"a:", "bert")
    bert.run("SET", "a:1", "bert's")
    let_go()
    await mesh.settle()
    assert [member.run("GET", "a:1") for member in mesh.members.values()] == [b"bert's"] * 3
    assert bert.mesh.followers["anna"].prefixes == ()
    mesh.assign(b"a:", "anna")
    anna.run("SET", "a:1", "anna's again")
    await mesh.settle()
    assert bert.run("GET", "a:1") == b"anna's again"


@in_cluster
async def test_a_node_that_becomes_a_plain_replica_copies_no_scopes(cluster: Cluster) -> None:
    mesh = MeshCluster(cluster, {b"a:": "anna"}, {"anna": 7000, "bert": 7001, "other": 7002})
    await mesh.start("anna", "bert")
    other = await cluster.start("other", port=7002)
    other.set("plain", "v")
    mesh.members["anna"].run("SET", "a:1", "v")
    await mesh.settle()
    bert = mesh.members["bert"]
    bert.node.replication.follow(HOST, 17002)
    bert.mesh.refresh()
    assert bert.mesh.followers == {}
    await cluster.settle(other, bert.node)
    assert set(content(bert.node.store)) == {b"plain"}


@pytest.mark.parametrize("policy", ["always", "everysec", "no"])
@pytest.mark.parametrize("seed", range(4))
@in_cluster
async def test_whatever_a_loss_of_power_leaves_is_continued_exactly(cluster: Cluster, policy: str, seed: int) -> None:
    chance = random.Random(f"{policy} {seed}")
    mesh = three(cluster, persistence={"aof": True, "appendfsync": policy})
    mesh.owners |= {b"x:": "anna", b"y:": "bert"}
    await mesh.start("anna", "bert", "cleo")
    for round_ in range(8):
        write_some(mesh, chance, 40)
        for member in mesh.members.values():
            mesh.wanted[member.name] = {prefix for prefix in mesh.owners if chance.random() < 0.8}
        mesh.refresh()
        for _ in range(chance.randrange(6)):
            # Ships and entries are on their way, and some of it is in the files.
            await trio.sleep(chance.choice((0.001, 0.01, 0.1, 1.1)))
            write_some(mesh, chance, 10)
        name = chance.choice(sorted(PORTS))
        await mesh.end(name, lambda node, at=round_: cluster.lose_power(node, seed * 100 + at))  # type: ignore[misc]
        write_some_others(mesh, chance, name)
        await mesh.restart(name)
    mesh.wanted = {}
    mesh.refresh()
    write_some(mesh, chance, 20)
    await mesh.settle()


@in_cluster
async def test_a_writer_that_lost_its_data_wipes_no_copy_and_gets_it_back(cluster: Cluster) -> None:
    mesh = three(cluster)
    await mesh.start("anna", "bert", "cleo")
    for number in range(100):
        mesh.members["anna"].run("RPUSH", f"a:{number}", "x", "y")
    await mesh.settle()
    await mesh.end("anna", cluster.kill)
    closed = {b"a:"}
    introduce = cluster.on_node

    def close(node: Node) -> None:
        assert introduce is not None
        introduce(node)
        node.replication.is_withheld = closed.__contains__

    cluster.on_node = close
    await mesh.restart("anna")
    anna, bert = mesh.members["anna"], mesh.members["bert"]
    await trio.sleep(20)
    assert len(bert.under(b"a:")) == 100
    assert bert.mesh.copy_of(b"a:") is not None
    assert anna.under(b"a:") == {}
    restorer = mesh.restorer("anna", "bert", (b"a:",))
    await restorer.restore()
    assert restorer.restored == 100
    assert anna.under(b"a:") == bert.under(b"a:")
    closed.clear()
    anna.node.replication.ownership_changed()
    anna.run("RPUSH", "a:1", "z")
    await mesh.settle()
    assert bert.run("LRANGE", "a:1", 0, -1) == [b"x", b"y", b"z"]
    only_own(mesh)


@in_cluster
async def test_who_does_not_know_to_be_the_writer_ships_a_copy_only_to_who_has_lost_his_own_data(
    cluster: Cluster,
) -> None:
    """One that came back in an older state, say: those who follow it have more than it has."""
    mesh = three(cluster)
    await mesh.start("anna", "bert")
    anna = mesh.members["anna"]
    anna.run("SET", "a:1", "v")
    await mesh.settle()
    elsewhere = {b"a:"}
    anna.node.replication.is_elsewhere = elsewhere.__contains__
    await mesh.start("cleo")
    await trio.sleep(20)
    cleo = mesh.members["cleo"]
    assert cleo.under(b"a:") == {}
    assert cleo.mesh.copy_of(b"a:") is None
    restorer = mesh.restorer("cleo", "anna", (b"a:",))
    await restorer.restore()
    assert restorer.restored == 1
    elsewhere.clear()
    anna.node.replication.ownership_changed()
    await mesh.settle()
    assert cleo.mesh.copy_of(b"a:") is not None


@in_cluster
async def test_copies_are_shipped_to_who_asks_for_them_and_never_streamed(cluster: Cluster) -> None:
    mesh = three(cluster)
    await mesh.start("anna", "bert")
    anna, bert = mesh.members["anna"], mesh.members["bert"]
    anna.run("SET", "a:1", "v")
    await mesh.settle()
    got: list[ReplicaEvent] = []
    async with ReplicaClient(HOST, 17001, prefixes=[b"a:", b"b:"], transport=cluster.network) as client:
        async for event in client:
            got.append(event)
            match event:
                case SnapshotEnd():
                    anna.run("SET", "a:2", "v")
                    anna.run("FLUSHALL")
                    await mesh.settle()
                    bert.run("SET", "b:1", "v")
                case Frame():
                    break
    shipped = b"".join(event.data for event in got if isinstance(event, SnapshotData))
    assert b"a:1" in shipped
    # What bert has journaled of anna's it passes over.
    assert [event.command for event in got if isinstance(event, Frame)] == [[b"SET", b"b:1", b"v"]]
    assert any(isinstance(event, Skip) for event in got)
