"""Redirects end: whatever nodes believe of who writes what, none of them sends a write round in circles."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import trio
from support.cluster import HOST, Cluster, ErrorReply, in_cluster
from support.scoped import ScopedCluster, closed, misdirected

from kevynode.scope.ledger import LedgerEntry

NAMES = ("anna", "bert", "cleo")
#: Redirects that a client follows at most until it is told something else: one for each other node.
HOPS = len(NAMES) - 1


def declared(writer: str) -> list[dict[str, str]]:
    """The scopes of a node that takes ``writer`` for the one of ``a:``."""
    return [{"prefix": p, "writer": w} for p, w in (("a:", writer), ("b:", "bert"), ("c:", "cleo"))]


async def follow(world: ScopedCluster, name: str, key: str = "a:1") -> tuple[list[str], Any]:
    """Send a write to a node, and where it is sent from there: all who were asked, and the last answer.

    Ends where a node is not there, and where somebody is asked a second time.
    """
    asked: list[str] = []
    answer: Any = None
    while name in world.nodes and name not in asked:
        asked.append(name)
        answer = await world.write(name, "SET", key, name)
        if not isinstance(answer, ErrorReply) or not answer.text.startswith("MISDIRECTED "):
            return asked, answer
        port = int(answer.text.rpartition(":")[2])
        name = next(other for other, taken in world.ports.items() if taken == port)
    assert name not in asked, f"a write goes round: {[*asked, name]}"
    return asked, answer


async def none_goes_round(world: ScopedCluster) -> None:
    for name in world.nodes:
        asked, _ = await follow(world, name)
        assert len(asked) - 1 <= HOPS


#: What anna, bert and cleo take for the writer: some who name themselves, and two and three who name each other.
WRITERS = [
    ("bert", "anna", "anna"),
    ("bert", "anna", "cleo"),
    ("bert", "cleo", "anna"),
    ("cleo", "anna", "bert"),
    ("anna", "bert", "anna"),
    ("cleo", "cleo", "anna"),
]
ORDERS = [NAMES, ("bert", "cleo", "anna"), ("cleo", "bert", "anna")]


@pytest.mark.parametrize("writers", WRITERS, ids="-".join)
@in_cluster
async def test_declarations_that_point_at_each_other_close_the_prefix(cluster: Cluster, writers: Sequence[str]) -> None:
    world = ScopedCluster(cluster)
    for name, writer in zip(NAMES, writers, strict=True):
        await world.start(name, scope=declared(writer))
        await none_goes_round(world)
    for _ in range(20):
        await trio.sleep(0.1)
        await none_goes_round(world)
    for name, writer in zip(NAMES, writers, strict=True):
        others = [
            f"{other} (there the writer is {theirs})"
            for other, theirs in zip(NAMES, writers, strict=True)
            if theirs != writer
        ]
        assert await world.write(name, "SET", "a:1", "v") == closed("a:", f"agreement with {', '.join(others)}")
        assert await world.write(name, "SET", "b:1", "v") == ("OK" if name == "bert" else misdirected("bert"))
    # When they agree it opens.
    for name in NAMES:
        await world.stop(name)
        await world.start(name)
    await world.settle()
    assert (await follow(world, "cleo")) == (["cleo", "anna"], "OK")


@in_cluster
async def test_an_entry_of_the_ledger_ends_the_dispute_of_those_who_are_not_concerned(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    for name, writer in zip(NAMES, ("bert", "anna", "anna"), strict=True):
        await world.start(name, scope=declared(writer))
    await cluster.until(lambda: world.states("cleo")[b"a:"] == "waiting")
    await world.member("cleo").keeper.append([LedgerEntry(b"a:", "cleo", 1, "m")])
    await cluster.until(lambda: world.is_open("cleo", b"a:"))
    await world.settle()
    for name in NAMES:
        assert (await follow(world, name))[0] == ([name] if name == "cleo" else [name, "cleo"])


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS, ids="-".join)
@pytest.mark.parametrize("lost", [("anna",), ("bert",), ("anna", "bert"), NAMES[1:]], ids="-".join)
@in_cluster
async def test_who_has_lost_the_ledger_sends_nobody_to_those_who_know_better(
    cluster: Cluster, lost: Sequence[str], order: Sequence[str]
) -> None:
    """The scope has gone on and come back; who lost what is known of that believes what is declared."""
    world = ScopedCluster(cluster)
    await world.start(*NAMES)
    await world.settle()
    for source, target in (("anna", "bert"), ("bert", "cleo"), ("cleo", "bert")):
        reply = await world.write(source, "MOVE-SCOPE", "a:", "FROM", source, "TO", target)
        assert isinstance(reply, str)
    await world.settle()
    for name in NAMES:
        await (world.lose_disk if name in lost else world.kill)(name)
    # Those who come first cannot ask the others yet.
    for name in order:
        world.cluster.network.unreachable.add(f"{HOST}:{world.ports[name] + 10000}")
    for name in order:
        await world.start(name)
        await trio.sleep(1)
        await none_goes_round(world)
    for name in order:
        world.cluster.network.unreachable.clear()
        world.cluster.network.unreachable.update(f"{HOST}:{world.ports[n] + 10000}" for n in order if n > name)
        for _ in range(10):
            await trio.sleep(0.1)
            await none_goes_round(world)
    world.cluster.network.unreachable.clear()
    await world.settle()
    owners = {world.owners(name)[b"a:"] for name in NAMES}
    assert owners == {"bert"}
    assert (await follow(world, "anna")) == (["anna", "bert"], "OK")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@in_cluster
async def test_no_write_goes_round_while_scopes_move(cluster: Cluster, seed: int) -> None:
    """A client that is always somewhere: each of its writes is taken, or it is told to come back, within the hops."""
    chance = random.Random(seed)
    world = ScopedCluster(cluster)
    await world.start(*NAMES)
    await world.settle()
    taken: Mapping[str, int] = {}

    async def ask() -> None:
        while True:
            await trio.sleep(chance.uniform(0, 0.002))
            name = chance.choice(NAMES)
            hops = 0
            answer = await world.write(name, "SET", "a:1", "v")
            while isinstance(answer, ErrorReply) and answer.text.startswith("MISDIRECTED "):
                hops += 1
                assert hops <= HOPS, f"seed {seed}: a write was sent on {hops} times"
                port = int(answer.text.rpartition(":")[2])
                name = next(other for other, number in world.ports.items() if number == port)
                answer = await world.write(name, "SET", "a:1", "v")
            assert answer == "OK" or answer.text.split()[0] == "QUIESCED", answer
            taken[name] = taken.get(name, 0) + 1  # type: ignore[index]

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(ask)
        for _ in range(8):
            source = world.owners("anna")[b"a:"]
            target = chance.choice([name for name in NAMES if name != source])
            reply = await world.write(source, "MOVE-SCOPE", "a:", "FROM", source, "TO", target)
            assert isinstance(reply, str), (seed, reply)
            await cluster.until(lambda: world.owners("anna")[b"a:"] == target, "the news")  # noqa: B023
            await trio.sleep(chance.uniform(0, 0.05))
        nursery.cancel_scope.cancel()
    assert sum(taken.values()) > 20
