"""Writers that have lost their data in the midst of a move, or behind one: somebody has them still."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from support.cluster import HOST, Cluster, ClusterClient, in_cluster
from support.scoped import PORTS, ScopedCluster
from support.scoped_loss import MEMORY_ONLY, filled, unharmed

from kevynode.scope.ledger_records import MoveRecord, MoveState, Record


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
