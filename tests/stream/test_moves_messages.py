"""Moves of which single messages are lost, come twice, or are the last that a connection or a node lives to see."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from support.cluster import HOST, Cluster, in_cluster
from support.move_faults import CALLED_OFF, FOLLOWED, STAGED, MoveWires, Remains, ends_well
from support.moving import PREFIX, Follower, at_most_one_writer
from support.scoped import ScopedCluster
from support.store_harness import Content

MOVE = ("MOVE-SCOPE", "a:", "FROM", "anna", "TO", "bert")
#: The messages of moves that go well: with a target that follows, and with one that has nothing.
MESSAGES: list[tuple[bytes, Any]] = [(name, "all") for name in FOLLOWED] + [(name, []) for name in STAGED]
IDS = [f"{name.decode()}-{'follows' if replicate else 'empty'}" for name, replicate in MESSAGES]
of_each_message = pytest.mark.parametrize(("name", "replicate"), MESSAGES, ids=IDS)


class Tried:
    """A move under a client's writes, of which message ``number`` called ``name`` meets with something.

    ``arrives``: how often it arrives. ``then``: what happens at that moment.
    """

    def __init__(
        self,
        cluster: Cluster,
        name: bytes,
        *,
        arrives: int = 1,
        number: int = 0,
        then: Callable[[], object] = lambda: None,
    ) -> None:
        self.cluster = cluster
        self.world = ScopedCluster(cluster)
        self.answer: Any = None
        self.happened = trio.Event()
        self.wires = MoveWires(cluster.network, self._fate)
        self._name, self._number, self._arrives, self._then = name, number, arrives, then

    def _fate(self, name: bytes, before: int) -> int:
        if (name, before) != (self._name, self._number):
            return 1
        self.happened.set()
        self._then()
        return self._arrives

    def never_seals(self) -> None:
        """Let the source never hear that the target has it all."""
        self.wires.fate = lambda name, before: 0 if name == b"SEALED" else self._fate(name, before)

    async def move(self) -> None:
        try:
            self.answer = await self.world.write("anna", *MOVE, "TIMEOUT", 5000)
        except (AssertionError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def run(self, replicate: Any, meanwhile: Callable[[], Awaitable[None]] | None = None) -> str:
        """Who owns the prefix in the end; ``meanwhile`` runs beside the move."""
        cluster, world = self.cluster, self.world
        await world.start(*world.ports, replicate=replicate)
        await world.settle()
        before = await filled(world)
        remains = Remains(world)
        client = Follower(world)
        cluster.nursery.start_soon(client.run)
        await trio.sleep(0.05)

        async def work() -> None:
            with trio.fail_after(120):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.move)
                    if meanwhile is not None:
                        await meanwhile()

        await world.watching(at_most_one_writer(world), work)
        await cluster.until(self.happened.is_set, f"the message {self._name!r}")
        return await ends_well(cluster, world, remains, client, before)


async def filled(world: ScopedCluster) -> Content:
    """What anna has under the prefix then: enough for three chunks."""
    client = await world.connect("anna")
    for number in range(150):
        assert await client.call("SET", f"a:{number}", "x" * 1000) == "OK"
    assert await client.call("RPUSH", "a:list", "1", "2", "3") == 3
    await client.aclose()
    return world.under("anna", PREFIX)


@pytest.mark.slow
@pytest.mark.parametrize("arrives", [0, 2], ids=["lost", "twice"])
@of_each_message
@in_cluster
async def test_what_becomes_of_a_message_only_takes_time(
    cluster: Cluster, name: bytes, replicate: Any, arrives: int
) -> None:
    tried = Tried(cluster, name, arrives=arrives)
    assert await tried.run(replicate) == "bert"
    assert str(tried.answer).startswith("OK ")


@pytest.mark.parametrize("arrives", [0, 2], ids=["lost", "twice"])
@pytest.mark.parametrize("number", [1, 2])
@in_cluster
async def test_any_of_the_chunks_may_be_lost_or_come_twice(cluster: Cluster, number: int, arrives: int) -> None:
    tried = Tried(cluster, b"CHUNK", number=number, arrives=arrives)
    assert await tried.run([]) == "bert"
    assert str(tried.answer).startswith("OK ")


@pytest.mark.slow
@pytest.mark.parametrize("arrives", [0, 1], ids=["before", "behind"])
@of_each_message
@in_cluster
async def test_connections_may_break_at_each_message(
    cluster: Cluster, name: bytes, replicate: Any, arrives: int
) -> None:
    def cut() -> None:
        for port in (17000, 17001):
            cluster.network.cut(f"{HOST}:{port}")

    tried = Tried(cluster, name, arrives=arrives, then=cut)
    assert await tried.run(replicate) == "bert"
    assert str(tried.answer).startswith("OK ")


@pytest.mark.slow
@pytest.mark.parametrize("victims", [("anna",), ("bert",), ("anna", "bert"), ("cleo",)], ids="+".join)
@of_each_message
@in_cluster
async def test_nodes_may_end_at_each_message(
    cluster: Cluster, name: bytes, replicate: Any, victims: tuple[str, ...]
) -> None:
    tried = Tried(cluster, name, arrives=len(victims) % 2)
    seed = MESSAGES.index((name, replicate)) + len(victims)

    async def crash() -> None:
        await tried.happened.wait()
        for victim in victims:
            await (tried.world.kill(victim) if seed % 2 else tried.world.lose_power(victim, seed))
        await trio.sleep(seed % 4)
        for victim in reversed(victims):
            await tried.world.start(victim, replicate=replicate)

    owner = await tried.run(replicate, crash)
    if name in (b"ACTIVATE", b"ACTIVATED") or victims == ("cleo",):
        assert owner == "bert"
    if name in (b"REQUEST", b"ACCEPTED", b"AWAIT", b"STAGE", b"CHUNK", b"STAGEEND") and "anna" in victims:
        assert owner == "anna"


@pytest.mark.slow
@pytest.mark.parametrize("arrives", [0, 2], ids=["lost", "twice"])
@pytest.mark.parametrize("replicate", ["all", []], ids=["follows", "empty"])
@pytest.mark.parametrize("name", CALLED_OFF)
@in_cluster
async def test_a_move_is_called_off_whatever_becomes_of_the_messages(
    cluster: Cluster, name: bytes, replicate: Any, arrives: int
) -> None:
    tried = Tried(cluster, name, arrives=arrives)
    tried.never_seals()
    assert await tried.run(replicate) == "anna"
    assert tried.answer.text.startswith("ERR MOVE-SCOPE ship failed: bert did not ")


@pytest.mark.slow
@pytest.mark.parametrize("replicate", ["all", []], ids=["follows", "empty"])
@pytest.mark.parametrize("name", CALLED_OFF)
@pytest.mark.parametrize("victims", [("anna",), ("bert",), ("anna", "bert")], ids="+".join)
@in_cluster
async def test_nodes_may_end_while_a_move_is_called_off(
    cluster: Cluster, name: bytes, replicate: Any, victims: tuple[str, ...]
) -> None:
    tried = Tried(cluster, name)
    tried.never_seals()

    async def crash() -> None:
        await tried.happened.wait()
        for victim in victims:
            await tried.world.kill(victim)
        for victim in victims:
            await tried.world.start(victim, replicate=replicate)

    assert await tried.run(replicate, crash) == "anna"


@pytest.mark.parametrize("replicate", ["all", []], ids=["follows", "empty"])
@pytest.mark.parametrize("seed", range(4))
@in_cluster
async def test_any_of_the_messages_may_be_lost_or_come_twice(cluster: Cluster, seed: int, replicate: Any) -> None:
    tried = Tried(cluster, b"REQUEST")
    tried.happened.set()
    chance = random.Random(seed)
    tried.wires.fate = lambda name, before: chance.choice((0, 0, 1, 2)) if before < 6 else 1
    owner = await tried.run(replicate)
    if str(tried.answer).startswith("OK "):
        assert owner == "bert"
