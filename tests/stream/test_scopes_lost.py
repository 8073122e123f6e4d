"""Writers that have lost their data: they get it back from the copies, and never take it from those who have it."""

from __future__ import annotations

import random
from functools import partial

import pytest
import trio
from support.cluster import HOST, Cluster, in_cluster
from support.network import Wire
from support.scoped import ALWAYS, ScopedCluster, closed
from support.scoped_loss import MEMORY_ONLY, filled, unharmed, write_all_types
from support.store_harness import Content, content

from kevynode.store.prefix_keys import all_keys_under, drop_keys


@pytest.mark.parametrize("how", ["disk", "memory"])
@in_cluster
async def test_a_writer_gets_its_scope_back_before_it_opens(cluster: Cluster, how: str) -> None:
    world = ScopedCluster(cluster)
    if how == "memory":
        world.persistence = MEMORY_ONLY
    expected = await filled(world, "anna", "bert", "cleo")
    check = unharmed(world, expected, "bert", "cleo")
    openings: list[Content] = []

    async def lose_and_return() -> None:
        await (world.lose_disk if how == "disk" else world.kill)("anna")
        await trio.sleep(5)
        await world.start("anna")
        anna = world.member("anna")

        def look() -> None:
            if world.is_open("anna", b"a:") and not openings:
                openings.append(world.under("anna", b"a:"))

        anna.ownership.observers.append(look)
        assert not world.is_open("anna", b"a:")
        await world.settle()

    await world.watching(check, lose_and_return)
    assert openings == [expected]
    assert world.under("bert", b"a:") == expected
    assert world.nodes["anna"].get("free") is None
    assert await world.write("anna", "SET", "a:new", "v") == "OK"
    await world.settle()
    assert world.nodes["cleo"].get("a:new") == b"v"
    # And what came back is kept as everything else.
    if how == "disk":
        await world.lose_power("anna", 7)
        await world.start("anna")
        await world.settle()
        assert not cluster.logged("anna", "scope_restored")
        assert world.under("anna", b"a:") == expected | {b"a:new": (b"v", None)}


@in_cluster
async def test_the_most_advanced_copy_is_taken(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    await filled(world, "anna", "bert", "cleo")
    # bert hears no more of it.
    await world.stop("bert")
    world.nodes["anna"].execute("SET", "a:late", "v")
    world.nodes["anna"].execute("DEL", "a:1", "a:2", "a:3")
    await world.settle()
    expected = world.under("anna", b"a:")
    await world.lose_disk("anna")
    await world.start("bert")
    await trio.sleep(3)
    assert world.under("bert", b"a:") != expected
    await world.start("anna")
    await world.settle()
    assert world.under("anna", b"a:") == world.under("bert", b"a:") == expected
    assert [facts["peer"] for facts in cluster.logged("anna", "scope_restored")] == ["cleo"]


@in_cluster
async def test_who_goes_on_already_does_not_get_what_comes_back_on_top_of_what_it_has(cluster: Cluster) -> None:
    """What builds a list adds to a list that is there, and who follows from a mark on has one."""
    world = ScopedCluster(cluster, {b"a:": "anna"})
    expected = await filled(world, "anna", "bert", "cleo")
    store = world.nodes["anna"].store
    drop_keys(store, all_keys_under(store, (b"a:",)))
    store.settle()
    # Nobody hears of it.
    store.journal.pending.clear()
    assert world.under("anna", b"a:") == {}
    restore = partial(world.member("anna").restore, b"a:", "bert")
    await world.watching(unharmed(world, expected, "bert", "cleo"), restore)
    await world.settle()
    assert world.under("anna", b"a:") == world.under("bert", b"a:") == world.under("cleo", b"a:") == expected


@in_cluster
async def test_what_a_writer_has_lost_and_gone_on_without_is_not_given_back(cluster: Cluster) -> None:
    """bert has what anna lost with the power, which is more than anna has written since; cleo has that."""
    world = ScopedCluster(cluster, persistence={"aof": True, "appendfsync": "everysec"})
    await filled(world, "anna", "bert", "cleo")
    await trio.sleep(3)
    await world.stop("cleo")
    for number in range(100):
        world.nodes["anna"].execute("SET", f"a:dead:{number}", "v")
    await world.settle()
    await world.stop("bert")
    await world.lose_power("anna", 1)
    await world.start("anna", "cleo")
    await world.settle()
    assert world.nodes["anna"].get("a:dead:99") is None
    assert await world.write("anna", "SET", "a:kept", "v") == "OK"
    await world.settle()
    expected = world.under("anna", b"a:")
    # What cleo knows of the branch survives a restart.
    await world.stop("cleo")
    await world.lose_disk("anna")
    await world.start("bert", "cleo")
    bert, cleo = (world.member(name).copies((b"a:",))[b"a:"] for name in ("bert", "cleo"))
    assert bert.offset > cleo.offset
    assert bert.history in dict(cleo.ancestors)
    await world.start("anna")
    await world.settle()
    assert [facts["peer"] for facts in cluster.logged("anna", "scope_restored")] == ["cleo"]
    assert world.under("anna", b"a:") == world.under("bert", b"a:") == expected


@in_cluster
async def test_a_writer_waits_for_the_only_one_who_may_have_its_data(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    expected = await filled(world, "anna", "bert", "cleo")
    await world.stop("bert")
    await world.lose_disk("anna")
    await world.stop("cleo")
    # Nobody is there; then somebody is who may have less.
    await world.start("anna")
    await trio.sleep(30)
    assert await world.write("anna", "SET", "a:1", "w") == closed("a:", "bert, cleo")
    await world.start("cleo")
    await trio.sleep(30)
    reason = "bert to tell what this node has lost of its ledger"
    assert await world.write("anna", "SET", "a:1", "w") == closed("a:", reason)
    assert world.under("cleo", b"a:") == expected
    await world.start("bert")
    await world.settle()
    assert world.under("anna", b"a:") == expected


@in_cluster
async def test_the_holder_of_the_newest_copy_is_waited_for_when_it_has_gone_again(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    await filled(world, "anna", "bert", "cleo")
    await world.stop("bert")
    world.nodes["anna"].execute("SET", "a:late", "v")
    await world.settle()
    expected = world.under("anna", b"a:")
    await world.lose_disk("anna")
    await world.start("anna")
    await trio.sleep(5)
    reason = "bert to tell what this node has lost of its ledger"
    assert await world.write("anna", "SET", "a:1", "w") == closed("a:", reason)
    await world.stop("cleo")
    await world.start("bert")
    await trio.sleep(60)
    reason = "cleo with the newest copy of its data"
    assert await world.write("anna", "SET", "a:1", "w") == closed("a:", reason)
    await world.start("cleo")
    await world.settle()
    assert world.under("anna", b"a:") == world.under("bert", b"a:") == expected


@in_cluster
async def test_a_writer_told_to_start_empty_does(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    await filled(world, "anna", "bert", "cleo")
    await world.lose_disk("anna")
    await world.start("anna", flags={"start_empty": True})
    await world.settle()
    assert world.under("bert", b"a:") == {}
    assert await world.write("anna", "SET", "a:1", "anew") == "OK"
    await world.settle()
    assert world.nodes["cleo"].get("a:1") == b"anew"


@in_cluster
async def test_a_scope_that_clients_have_emptied_is_empty_and_not_lost(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    await filled(world, "anna", "bert", "cleo")
    await world.stop("cleo")
    assert await world.write("anna", "FLUSHALL") == "OK"
    await world.settle()
    await world.kill("anna")
    await world.start("anna")
    await world.opened(b"a:")
    assert world.under("anna", b"a:") == {}
    await world.start("cleo")
    await world.settle()
    assert world.under("cleo", b"a:") == {}


@in_cluster
async def test_two_writers_lose_everything_and_the_third_has_it(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    await filled(world, "anna", "bert", "cleo")
    world.nodes["bert"].execute("RPUSH", "b:list", "x", "y")
    await world.settle()
    expected = world.under("cleo", b"")
    await world.lose_disk("anna")
    await world.lose_disk("bert")
    await world.start("anna", "bert")
    await world.settle()
    assert world.under("anna", b"") == world.under("bert", b"") == world.under("cleo", b"") == expected


@in_cluster
async def test_a_follower_that_lost_its_disk_is_not_taken_for_one_with_an_empty_copy(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    expected = await filled(world, "anna", "bert", "cleo")
    await world.lose_disk("anna")
    await world.lose_disk("bert")
    await world.start("bert")
    await world.start("anna")
    await world.settle()
    assert world.under("anna", b"a:") == world.under("bert", b"a:") == expected


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
@in_cluster
async def test_a_restore_may_be_cut_off_anywhere(cluster: Cluster, seed: int) -> None:
    chance = random.Random(seed)
    world = ScopedCluster(cluster)
    expected = await filled(world, "anna", "bert", "cleo")
    fill_much_of(world)
    await world.settle()
    expected = world.under("anna", b"a:")
    await world.lose_disk("anna")
    check = unharmed(world, expected, "bert", "cleo")

    async def come_and_go() -> None:
        def connected(wire: Wire) -> None:
            wire.outward.pause = 0.01
            wire.outward.grain = 20_000

        cluster.network.on_connect = connected
        for step in range(8):
            await world.start("anna")
            await trio.sleep(chance.uniform(0.0, 1.0))
            if chance.random() < 0.3:
                cluster.network.cut(f"{HOST}:{world.ports[chance.choice(('bert', 'cleo'))] + 10000}")
                await trio.sleep(chance.uniform(0.0, 1.0))
            if chance.random() < 0.5:
                await world.kill("anna")
            else:
                await world.lose_power("anna", seed * 100 + step)
        await world.start("anna")
        await world.settle()

    await world.watching(check, come_and_go)
    assert world.under("anna", b"a:") == world.under("bert", b"a:") == world.under("cleo", b"a:") == expected


def fill_much_of(world: ScopedCluster) -> None:
    """Enough that it takes a while."""
    for number in range(300):
        world.nodes["anna"].set(f"a:much:{number}", f"{number}".ljust(1000, "."))


@pytest.mark.parametrize("seed", range(6))
@in_cluster
async def test_numbers_go_on_above_those_of_the_copies(cluster: Cluster, seed: int) -> None:
    """Losing the disk again and again ends each time with all that the copies had."""
    chance = random.Random(seed)
    world = ScopedCluster(cluster)
    await world.start("anna", "bert", "cleo")
    await world.settle()
    expected: dict[str, bytes] = {}
    for turn in range(5):
        for number in range(chance.randrange(1, 30)):
            key = f"a:{chance.randrange(20)}"
            expected[key] = f"{turn} {number}".encode()
            assert await world.write("anna", "SET", key, expected[key]) == "OK"
        await world.settle()
        away = chance.choice(("bert", "cleo", ""))
        if away:
            await world.stop(away)
            assert await world.write("anna", "SET", "a:missed", str(turn)) == "OK"
            expected["a:missed"] = str(turn).encode()
            await world.settle()
        await world.lose_disk("anna")
        if away:
            await world.start(away)
        await world.start("anna")
        await world.settle()
        assert {key: world.nodes["anna"].get(key) for key in expected} == expected


@pytest.mark.slow
@pytest.mark.parametrize("memory_only", [False, True], ids=["aof", "memory"])
@pytest.mark.parametrize("seed", range(5))
@in_cluster
async def test_what_every_copy_had_is_never_lost(cluster: Cluster, seed: int, memory_only: bool) -> None:
    """Disks are lost one at a time, beside kills, losses of power and cuts."""
    chance = random.Random(f"{seed} {memory_only}")
    world = ScopedCluster(cluster, persistence=MEMORY_ONLY if memory_only else ALWAYS)
    await world.start("anna", "bert", "cleo")
    await world.settle()
    for step in range(15):
        kept: dict[bytes, bytes] = {}
        for name in world.nodes:
            for number in range(chance.randrange(8)):
                key = f"{name[0]}:{chance.randrange(15)}".encode()
                if chance.random() < 0.2:
                    await world.write(name, "DEL", key)
                    kept.pop(key, None)
                else:
                    kept[key] = f"{step} {number}".encode()
                    assert await world.write(name, "SET", key, kept[key]) == "OK"
        await world.settle()
        whole = {name: world.under(name, name[:1].encode() + b":") for name in world.nodes}
        name = chance.choice(sorted(world.nodes))
        if chance.random() < 0.5:
            # Written by one who is about to be gone: it may be lost, or not.
            world.nodes[name].execute("SET", f"{name[0]}:late", str(step))
        match chance.randrange(5):
            case 0 | 1:
                await world.lose_disk(name)
            case 2:
                await world.kill(name)
            case 3:
                await world.lose_power(name, step)
            case 4:
                cluster.network.cut(f"{HOST}:{world.ports[name] + 10000}")
        if name not in world.nodes:
            other = chance.choice(sorted(world.nodes))
            if chance.random() < 0.3 and not memory_only:
                await world.kill(other)
            await trio.sleep(chance.uniform(0, 4))
            for absent in chance.sample(sorted(world.ports), 3):
                if absent not in world.nodes:
                    await world.start(absent)
                    await trio.sleep(chance.uniform(0, 1))
        await world.settle()
        for writer, held in whole.items():
            now = world.under(writer, writer[:1].encode() + b":")
            for key in held:
                if not key.endswith(b"late"):
                    assert now.get(key) == held[key], (step, writer, key)


@in_cluster
async def test_a_plain_replica_keeps_its_copy_and_gives_it_back(cluster: Cluster) -> None:
    world = ScopedCluster(cluster, {b"a:": "anna"}, {"anna": 7000, "cleo": 7002})
    await world.start("anna")
    tables = world.tables("cleo") | {"replication": {"role": "replica", "upstream": "127.0.0.1:17000"}}
    world.nodes["cleo"] = await cluster.start_with("cleo", tables)
    await world.opened()
    write_all_types(world)
    await cluster.until(lambda: world.under("cleo", b"") == world.under("anna", b""), "the replica's copy")
    expected = world.under("anna", b"a:")

    async def lose_and_return() -> None:
        await world.lose_disk("anna")
        await trio.sleep(3)
        await world.start("anna")
        await world.opened()
        await trio.sleep(20)

    await world.watching(unharmed(world, expected, "cleo"), lose_and_return)
    assert world.under("anna", b"a:") == world.under("cleo", b"a:") == expected
    assert await world.write("anna", "SET", "a:new", "v") == "OK"
    await cluster.until(lambda: world.nodes["cleo"].get("a:new") == b"v", "the replica's copy")


@in_cluster
async def test_a_plain_replica_that_nobody_knows_is_not_wiped_before_the_scope_opens(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    expected = await filled(world, "anna", "bert", "cleo")
    replica = await cluster.start("replica", port=7009, upstream=world.nodes["anna"])
    await cluster.until(lambda: replica.get("a:1") == b"v1", "the replica's copy")
    await world.lose_disk("anna")
    await world.stop("cleo")
    await world.start("anna")
    await trio.sleep(30)
    assert {key for key in content(replica.store) if key.startswith(b"a:")} == set(expected)
    await world.start("cleo")
    await world.settle()
    await cluster.settle(world.nodes["anna"], replica)
    assert {key for key in content(replica.store) if key.startswith(b"a:")} == set(expected)
