"""Writers that have lost their data: they get it back from the copies, and never take it from those who have it."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import pytest
import trio
from support.cluster import HOST, Cluster, ClusterClient, in_cluster
from support.network import Wire
from support.scoped import ALWAYS, PORTS, ScopedCluster, closed
from support.store_harness import Content, content

from kevynode.scope.ledger_records import MoveRecord, MoveState, Record
from kevynode.store.prefix_keys import all_keys_under, drop_keys

MEMORY_ONLY = {"aof": False}


async def filled(world: ScopedCluster, *names: str) -> Content:
    """Start nodes, and let anna write things of every type; what all of them hold then under its scope."""
    await world.start(*names)
    await world.settle()
    write_all_types(world)
    await world.settle()
    return world.under("anna", b"a:")


def write_all_types(world: ScopedCluster) -> None:
    run = world.nodes["anna"].execute
    for number in range(100):
        run("SET", f"a:{number}", f"v{number}")
    run("RPUSH", "a:list", "x", "y", "z")
    run("HSET", "a:hash", "f", "1", "g", "2")
    run("HPEXPIRE", "a:hash", 9_000_000_000, "FIELDS", 1, "f")
    run("SADD", "a:set", "x", "y")
    run("ZADD", "a:zset", 1.5, "m", "-inf", "n")
    run("SET", b"a:\r\n\x00\xff", b"*2\r\n")
    run("SET", "a:mortal", "v", "PX", 9_000_000_000)
    run("DEL", "a:7")
    run("SET", "free", "anna's")


def unharmed(world: ScopedCluster, expected: Content, *names: str) -> Callable[[], None]:
    """Asserts that these nodes hold exactly that of anna's scope."""
    stores = [world.nodes[name].store for name in names]
    keys = tuple(expected)

    def check() -> None:
        for store in stores:
            held = sum(key in store.keyspace for key in keys)
            assert held == len(keys), f"{len(keys) - held} keys were gone"

    return check


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


async def moving_until(world: ScopedCluster, state: MoveState) -> ClusterClient:
    """Have anna move its scope to bert, and cut bert off as soon as it has come to a state; who asked for the move."""
    keeper = world.member("anna").keeper
    on_records, reached = keeper.on_records, trio.Event()

    def recorded(records: tuple[Record, ...]) -> None:
        on_records(records)
        if any(isinstance(record, MoveRecord) and record.state is state for record in records):
            world.cluster.network.separate(f"{HOST}:{world.ports['bert'] + 10000}")
            reached.set()

    keeper.on_records = recorded
    mover = await world.connect("anna")
    await mover.send("MOVE-SCOPE", "a:", "FROM", "anna", "TO", "bert", "FORCE")
    await reached.wait()
    return mover


async def ended_in_a_move(world: ScopedCluster, state: MoveState, *names: str) -> None:
    """End these nodes in the midst of a move of anna's scope to bert, and start them again, with bert cut off."""
    mover = await moving_until(world, state)
    for name in names:
        await world.kill(name)
    await world.start(*names)
    await trio.sleep(5)
    world.cluster.network.unreachable.clear()
    await world.settle()
    await mover.aclose()


@pytest.mark.parametrize("state", [MoveState.REQUESTED, MoveState.QUIESCED, MoveState.SHIPPED, MoveState.FLIPPED])
@in_cluster
async def test_a_writer_without_data_empties_no_copy_while_a_move_is_settled(
    cluster: Cluster, state: MoveState
) -> None:
    """It comes back with the records of the move, by which it is quiesced at first, and with nothing else."""
    world = ScopedCluster(cluster, persistence=MEMORY_ONLY)
    expected = await filled(world, "anna", "bert", "cleo")
    check = unharmed(world, expected, "bert", "cleo")
    await world.watching(check, partial(ended_in_a_move, world, state, "anna"))
    assert world.under("anna", b"a:") == world.under("bert", b"a:") == world.under("cleo", b"a:") == expected


@pytest.mark.parametrize("state", [MoveState.QUIESCED, MoveState.SHIPPED, MoveState.FLIPPED])
@in_cluster
async def test_what_both_sides_of_a_move_have_lost_comes_from_a_third(cluster: Cluster, state: MoveState) -> None:
    world = ScopedCluster(cluster, persistence=MEMORY_ONLY)
    expected = await filled(world, "anna", "bert", "cleo")
    check = unharmed(world, expected, "cleo")
    await world.watching(check, partial(ended_in_a_move, world, state, "anna", "bert"))
    assert world.owners("cleo")[b"a:"] == ("bert" if state is MoveState.FLIPPED else "anna")
    assert world.under("anna", b"a:") == world.under("bert", b"a:") == world.under("cleo", b"a:") == expected


@in_cluster
async def test_a_move_that_both_sides_have_forgotten_keeps_no_copy_waiting(cluster: Cluster) -> None:
    """Both lose their disks, with what they knew of the move. cleo has heard of it in anna's stream, from where it
    waits for bert's."""
    world = ScopedCluster(cluster)
    expected = await filled(world, "anna", "bert", "cleo")
    mover = await moving_until(world, MoveState.FLIPPED)
    await cluster.until(lambda: cluster.logged("cleo", "mark_passed"), "the mark")
    await world.lose_disk("anna")
    await world.lose_disk("bert")
    cluster.network.unreachable.clear()
    await world.start("anna", "bert")
    await world.opened(b"a:")
    assert await world.write("anna", "SET", "a:after", "v") == "OK"
    await world.settle()
    assert world.under("cleo", b"a:") == world.under("bert", b"a:") == expected | {b"a:after": (b"v", None)}
    # Above what cleo has heard of.
    assert world.row("cleo", b"a:").epoch == 2
    await mover.aclose()


@pytest.mark.parametrize("waits", [0, 15], ids=["at once", "later"])
@in_cluster
async def test_what_an_earlier_writer_left_is_there_after_a_restart_too(cluster: Cluster, waits: int) -> None:
    """cleo knows that bert writes it now, has nothing of that yet, and is started again. Then the others lose all."""
    world = ScopedCluster(cluster)
    expected = await filled(world, "anna", "bert", "cleo")
    await world.stop("cleo")
    mover = await world.connect("anna")
    assert (await mover.call("MOVE-SCOPE", "a:", "FROM", "anna", "TO", "bert")).startswith("OK")
    cluster.network.separate(f"{HOST}:{world.ports['bert'] + 10000}")
    await world.start("cleo")
    await cluster.until(lambda: world.owners("cleo")[b"a:"] == "bert", "the news")
    await trio.sleep(waits)
    await world.stop("cleo")
    await world.start("cleo")
    check = unharmed(world, expected, "cleo")
    await trio.sleep(waits)
    await world.lose_disk("anna")
    await world.lose_disk("bert")
    cluster.network.unreachable.clear()
    await world.watching(check, partial(world.start, "anna", "bert"))
    await world.opened(b"a:")
    await world.settle()
    assert world.under("anna", b"a:") == world.under("bert", b"a:") == world.under("cleo", b"a:") == expected
    await mover.aclose()


@pytest.mark.parametrize("others", [(), ("cleo",)], ids=["two nodes", "three nodes"])
@pytest.mark.parametrize("state", [MoveState.ACTIVATED, MoveState.DONE])
@in_cluster
async def test_a_new_writer_that_loses_what_it_has_just_got_has_it_back_from_the_old_one(
    cluster: Cluster, state: MoveState, others: tuple[str, ...]
) -> None:
    """It is the owner by its ledger, and keeps nothing else; the source still has the slice, dropped or copied as it
    may be when it hears."""
    ports = {name: PORTS[name] for name in ("anna", "bert", *others)}
    world = ScopedCluster(cluster, {b"a:": "anna"}, ports, MEMORY_ONLY)
    expected = await filled(world, "anna", "bert", *others)
    keeper = world.member("bert").keeper
    on_records, reached = keeper.on_records, trio.Event()

    def recorded(records: tuple[Record, ...]) -> None:
        on_records(records)
        if any(isinstance(record, MoveRecord) and record.state is state for record in records):
            reached.set()

    keeper.on_records = recorded

    async def move() -> None:
        mover = await world.connect("anna")
        await mover.send("MOVE-SCOPE", "a:", "FROM", "anna", "TO", "bert", "FORCE")
        await reached.wait()
        await world.kill("bert")
        await trio.sleep(1)
        await world.start("bert")
        await world.settle()
        await mover.aclose()

    await world.watching(unharmed(world, expected, "anna", *others), move)
    assert world.owners("anna")[b"a:"] == "bert"
    assert world.under("bert", b"a:") == world.under("anna", b"a:") == expected


@pytest.mark.parametrize("who", ["anna", "bert"])
@in_cluster
async def test_what_is_sealed_and_released_is_there_when_either_side_is_started_again(
    cluster: Cluster, who: str
) -> None:
    """bert has all of it by following, has heard its release, and nothing that decides. Then anna loses its disk."""
    world = ScopedCluster(cluster, {b"a:": "anna"}, {name: PORTS[name] for name in ("anna", "bert")})
    expected = await filled(world, "anna", "bert")
    mover = await moving_until(world, MoveState.FLIPPED)
    await cluster.until(lambda: cluster.logged("bert", "mark_passed"), "the mark")
    await world.kill("anna")
    if who == "anna":
        # It enters the mark again.
        marks = len(cluster.logged("bert", "mark_passed"))
        await world.start("anna")
        await cluster.until(lambda: len(cluster.logged("bert", "mark_passed")) > marks, "the mark once more")
        await world.kill("anna")
    else:
        await world.kill("bert")
        await world.start("bert")
    del cluster.disks["anna"]
    cluster.network.unreachable.clear()
    await world.start("anna")
    await world.opened(b"a:")
    await world.settle()
    assert world.under("anna", b"a:") == world.under("bert", b"a:") == expected
    await mover.aclose()


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
