"""Prefixes that move between writers which copy each other: what is followed by marks, and what is shipped again."""

from __future__ import annotations

import random

import pytest
import trio
from support.cluster import HOST, Cluster, in_cluster
from support.mesh import PORTS, MeshCluster, three, write_some

from kevynode.store.marks import Acquire, Release
from kevynode.store.prefix_keys import drop_keys


def ships(mesh: MeshCluster) -> int:
    """How often anything was synchronised by a ship."""
    return sum(
        facts.get("kind") != "partial"
        for log in mesh.cluster.logs.values()
        for _, event, facts in log.records
        if event == "synchronised"
    )


@pytest.mark.parametrize("late", ["nobody", "release", "acquire"])
@in_cluster
async def test_a_prefix_that_moves_is_followed_by_the_marks_without_a_ship(cluster: Cluster, late: str) -> None:
    mesh = three(cluster)
    await mesh.start("anna", "bert", "cleo")
    anna, bert, cleo = mesh.members.values()
    for number in range(50):
        anna.run("RPUSH", f"a:{number}", "x")
    bert.run("SET", "b:1", "v")
    await mesh.settle()
    before = ships(mesh)
    let_go = cluster.network.hold(f"{HOST}:{ {'release': 17000, 'acquire': 17001}.get(late, 17009) }")
    mesh.move(b"a:", "bert")
    for number in range(30):
        bert.run("RPUSH", f"a:{number}", "y")
        bert.run("SET", f"b:{number}", "w")
    await trio.sleep(1)
    let_go()
    await mesh.settle()
    assert [member.run("LRANGE", "a:1", 0, -1) for member in (anna, bert, cleo)] == [[b"x", b"y"]] * 3
    assert ships(mesh) == before
    # And back again.
    mesh.move(b"a:", "anna")
    anna.run("RPUSH", "a:1", "z")
    await mesh.settle()
    assert cleo.run("LRANGE", "a:1", 0, -1) == [b"x", b"y", b"z"]
    assert ships(mesh) == before


@in_cluster
async def test_what_the_last_writer_cleans_up_is_gone_nowhere_else(cluster: Cluster) -> None:
    mesh = three(cluster)
    mesh.wanted["anna"] = {b"b:", b"c:"}
    await mesh.start("anna", "bert", "cleo")
    anna, bert, cleo = mesh.members.values()
    replica = await cluster.start("replica", port=7010, upstream=anna.node)
    for number in range(20):
        anna.run("SET", f"a:{number}", "v")
    await mesh.settle()
    # The link to cleo stays behind, and gets it all in one piece.
    let_go = cluster.network.hold(f"{HOST}:17000")
    mesh.move(b"a:", "bert")
    store = anna.node.store
    drop_keys(store, list(anna.under(b"a:")))
    store.commit()
    let_go()
    await mesh.settle("bert", "cleo")
    assert (len(anna.under(b"a:")), len(bert.under(b"a:")), len(cleo.under(b"a:"))) == (0, 20, 20)
    await cluster.settle(anna.node, replica)
    assert not cluster.logged("cleo", "foreign_entry")


@in_cluster
async def test_a_new_owner_whose_mark_never_comes_ships_what_it_has(cluster: Cluster) -> None:
    mesh = three(cluster)
    await mesh.start("anna", "bert", "cleo")
    anna, bert, cleo = mesh.members.values()
    anna.run("SET", "a:1", "v")
    await mesh.settle()
    before = ships(mesh)
    await mesh.end("anna", cluster.kill)
    mesh.assign(b"a:", "bert")
    bert.run("SET", "a:1", "forced")
    assert cleo.run("GET", "a:1") == b"v"
    # As soon as bert's stream has been heard beyond that.
    began = trio.current_time()
    await mesh.settle("cleo")
    assert trio.current_time() - began < 3
    assert cleo.run("GET", "a:1") == b"forced"
    assert ships(mesh) == before + 1


@pytest.mark.parametrize("seed", range(4))
@in_cluster
async def test_random_moves_between_writes_cuts_and_restarts(cluster: Cluster, seed: int) -> None:
    chance = random.Random(seed)
    mesh = three(cluster, persistence={"aof": True} if seed % 2 else None)
    mesh.owners |= {b"x:": "anna", b"y:": "bert"}
    await mesh.start("anna", "bert", "cleo")
    await mesh.settle()
    for _ in range(15):
        write_some(mesh, chance, 20)
        prefix = chance.choice(sorted(mesh.owners))
        target = chance.choice(sorted(PORTS))
        source = mesh.owners[prefix]
        if target != source:
            # A move is done when the target has all that there is.
            await cluster.until(lambda target=target: mesh.agree(target), "the target")  # type: ignore[misc]
            mesh.move(prefix, target)
        write_some(mesh, chance, 20)
        match chance.randrange(4):
            case 0:
                cluster.network.cut(f"{HOST}:{PORTS[chance.choice(sorted(PORTS))] + 10000}")
            case 1 if seed % 2:
                name = chance.choice(sorted(PORTS))
                await mesh.end(name, cluster.stop)
                await mesh.restart(name)
            case 2:
                await trio.sleep(chance.choice((0.001, 0.02, 0.5)))
    await mesh.settle()


@pytest.mark.parametrize("marked", [False, True])
@in_cluster
async def test_a_prefix_that_was_elsewhere_unseen_is_copied_again(cluster: Cluster, marked: bool) -> None:
    mesh = three(cluster)
    await mesh.start("anna", "bert", "cleo")
    anna, bert, cleo = mesh.members.values()
    anna.run("SET", "a:1", "v")
    await mesh.settle()
    # The source has gone down between its decision and its mark, and another move has followed before it was back.
    mesh.assign(b"a:", "bert")
    bert.run("SET", "a:1", "w")
    bert.run("SET", "a:2", "w")
    await mesh.settle("anna")
    assert cleo.run("GET", "a:1") == b"v"
    source = bert.node.replication
    source.mark(Release(b"a:", 2, "anna"))
    if marked:
        mesh.owners[b"a:"], mesh.epochs[b"a:"] = "anna", 2
        mesh.acquire(b"a:", source.history, source.position)
    else:
        mesh.assign(b"a:", "anna")
    anna.run("SET", "a:3", "x")
    anna.run("RPUSH", "a:list", "once")
    began = trio.current_time()
    await cluster.until(lambda: cleo.run("GET", "a:2") == b"w", "another copy")
    await mesh.settle()
    assert trio.current_time() - began < 3
    assert [cleo.run("GET", f"a:{number}") for number in (1, 2, 3)] == [b"w", b"w", b"x"]
    assert not cleo.mesh.lacks(b"a:")


@pytest.mark.parametrize("only_others", [False, True])
@in_cluster
async def test_a_node_that_owned_everything_follows_at_once(cluster: Cluster, only_others: bool) -> None:
    mesh = MeshCluster(cluster, {b"a:": "anna", b"x:": "anna"}, {"anna": 7000, "bert": 7001})
    mesh.only_others = only_others
    await mesh.start("anna", "bert")
    anna, bert = mesh.members.values()
    for number in range(20):
        anna.run("RPUSH", f"a:{number}", "x")
    await mesh.settle()
    if not only_others:
        await cluster.until(lambda: anna.mesh.facts(0)[0].upstream.state == "connected", "the link for marks alone")
    before = ships(mesh)
    for turn in range(3):
        began = trio.current_time()
        mesh.move(b"a:", "bert")
        bert.run("RPUSH", "a:1", turn)
        await mesh.settle()
        assert trio.current_time() - began < 0.5, turn
        mesh.move(b"a:", "anna")
        anna.run("RPUSH", "a:2", turn)
        await mesh.settle()
        assert trio.current_time() - began < 1, turn
    # Who did not listen before is shipped nothing to begin with, and then what it has lost sight of.
    assert ships(mesh) == before + (2 if only_others else 0)


@in_cluster
async def test_moves_may_follow_one_another_as_fast_as_they_like(cluster: Cluster) -> None:
    mesh = three(cluster)
    await mesh.start(*PORTS)
    await mesh.settle()
    for turn in range(40):
        owner = mesh.owners[b"b:"]
        mesh.members[owner].run("RPUSH", "b:list", turn)
        await cluster.until(lambda: mesh.agree("anna", "bert"), "the next owner")
        mesh.move(b"b:", "anna" if owner == "bert" else "bert")
        await trio.sleep(0.05 * (turn % 3))
    began = trio.current_time()
    await mesh.settle()
    assert trio.current_time() - began < 0.5
    assert not any(cluster.logged(name, "replica_refused") for name in PORTS)


@in_cluster
async def test_a_copy_from_who_was_not_the_writer_any_more_is_replaced_when_it_is_again(cluster: Cluster) -> None:
    mesh = three(cluster)
    await mesh.start("anna", "bert", "cleo")
    anna, bert = mesh.members["anna"], mesh.members["bert"]
    anna.run("SET", "a:1", "first")
    await mesh.settle()
    await mesh.end("cleo", cluster.kill)
    mesh.move(b"a:", "bert")
    bert.run("SET", "a:1", "second")
    await cluster.until(lambda: anna.run("GET", "a:1") == b"second", "anna's copy")
    # cleo comes back, and has not heard of the move when it asks for the scope.
    mesh.owners[b"a:"], mesh.epochs[b"a:"] = "anna", 0
    await mesh.restart("cleo")
    cleo = mesh.members["cleo"]
    await cluster.until(lambda: cleo.run("GET", "a:1"), "cleo's copy")
    mesh.owners[b"a:"], mesh.epochs[b"a:"] = "bert", 1
    mesh.refresh()
    bert.run("SET", "a:2", "second")
    await cluster.until(lambda: anna.run("GET", "a:2"), "anna's copy")
    # The scope is back before cleo has given up to wait for the marks of the move.
    mesh.move(b"a:", "anna")
    anna.run("SET", "a:3", "third")
    await mesh.settle()
    assert [cleo.run("GET", f"a:{number}") for number in (1, 2, 3)] == [b"second", b"second", b"third"]


@pytest.mark.parametrize("rewritten", [False, True])
@in_cluster
async def test_what_a_node_has_released_outlives_its_restart(cluster: Cluster, rewritten: bool) -> None:
    mesh = three(cluster, persistence={"aof": True})
    await mesh.start(*PORTS)
    anna, bert, _ = mesh.members.values()
    for number in range(30):
        anna.run("RPUSH", f"a:{number}", "x")
    await mesh.settle()
    # bert has it, and what it says of that has not come to anna.
    cluster.network.hold(f"{HOST}:17001")
    mesh.move(b"a:", "bert")
    bert.run("RPUSH", "a:1", "y")
    await trio.sleep(0.1)
    if rewritten:
        anna.run("BGREWRITEAOF")
        await cluster.until(lambda: anna.node.server.persistence.append_only().rewrites, "the rewrite")
    await mesh.end("anna", cluster.stop)
    await mesh.restart("anna")
    await mesh.settle("anna")
    anna = mesh.members["anna"]
    assert anna.run("LRANGE", "a:1", 0, -1) == [b"x", b"y"]
    assert cluster.logged("anna", "scope_continued")
    assert all(facts["kind"] == "partial" for facts in cluster.logged("anna", "synchronised"))


@in_cluster
async def test_whoever_follows_other_scopes_asks_for_them_at_once(cluster: Cluster) -> None:
    mesh = three(cluster)
    await mesh.start(*PORTS)
    await mesh.settle()
    for turn in range(8):
        began = trio.current_time()
        mesh.move(b"b:", "anna" if turn % 2 == 0 else "bert")
        await mesh.settle()
        assert trio.current_time() - began < 0.5, turn


@pytest.mark.parametrize("ends", ["stop", "kill"])
@pytest.mark.parametrize("rewritten", [False, True])
@in_cluster
async def test_what_is_cleaned_up_behind_a_release_goes_to_no_follower_after_a_restart_either(
    cluster: Cluster, rewritten: bool, ends: str
) -> None:
    mesh = three(cluster, persistence={"aof": True, "appendfsync": "always"})
    await mesh.start(*PORTS)
    anna, bert, _ = mesh.members.values()
    anna.run("SET", "a:1", "x")
    await mesh.settle()
    mesh.move(b"a:", "bert")
    at = anna.node.replication.position
    if rewritten:
        anna.run("BGREWRITEAOF")
        await cluster.until(lambda: anna.node.server.persistence.append_only().rewrites, "the rewrite")
    # The clean-up, as entries of its own.
    drop_keys(anna.node.store, [b"a:1"])
    anna.node.store.commit()
    await trio.sleep(0.1)
    await mesh.end("anna", getattr(cluster, ends))
    await mesh.restart("anna")
    replication = mesh.members["anna"].node.replication
    assert (replication.released_before(at), replication.released_before(at - 1)) == ([b"a:"], [])
    assert not any(name.startswith("released") for name in replication.found_scopes)
    # Until it has it back.
    bert.node.replication.mark(Release(b"a:", 2, "anna"))
    replication.mark(Acquire(b"a:", 2, bert.node.replication.history, bert.node.replication.position))
    if rewritten:
        mesh.members["anna"].run("BGREWRITEAOF")
        node = mesh.members["anna"].node
        await cluster.until(lambda: node.server.persistence.append_only().rewrites, "the rewrite")
    await mesh.end("anna", cluster.stop)
    await mesh.restart("anna")
    assert mesh.members["anna"].node.replication.released_before(1 << 40) == []
