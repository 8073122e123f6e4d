"""What is put in place for a move is nobody's copy any more, however late an old owner's stream arrives."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
import trio
from support.cluster import HOST, Cluster, ErrorReply, in_cluster
from support.fake_primary import FakePrimary, answer, frames, ship
from support.memory_disk import Call
from support.moving import PREFIX, at_rest
from support.network import Wire
from support.scoped import PORTS, SCOPES, ScopedCluster
from support.session_harness import request

MOVE = ("MOVE-SCOPE", "a:", "FROM", "anna", "TO", "bert")


class LateShip:
    """Holds back a ship that a node sends to one who copies its scopes; what follows it is lost with the connection."""

    def __init__(self, cluster: Cluster, port: int) -> None:
        self._network = cluster.network
        self._address = f"{HOST}:{port + 10000}"
        self._network.on_connect = self._connected
        self._wire: Wire | None = None

    def _connected(self, wire: Wire) -> None:
        if wire.address == self._address:
            wire.outward.latency = 1.0

    def is_under_way(self) -> bool:
        """Whether it has been sent; it does not arrive then."""
        for wire in self._network.to(self._address):
            if b"+SNAPSHOT_END" in wire.outward.sent and self._wire is None:
                self._wire = wire
                wire.outward.held = True
                wire.outward.limit = wire.outward.waiting
        return self._wire is not None

    def arrive(self) -> None:
        """Let it arrive, and nothing else for a while."""
        assert self._wire is not None
        self._network.unreachable.add(self._address)
        self._wire.outward.held = False
        self._wire.outward.changed()


def slow_files(world: ScopedCluster, name: str, meanwhile: Callable[[], object]) -> None:
    """Have it take a second until what is put in place is durable, and something happen in it."""
    member = world.member(name)
    durable = member.make_durable

    async def slowly() -> None:
        member.make_durable = durable  # type: ignore[method-assign]
        meanwhile()
        await trio.sleep(1)
        await durable()

    member.make_durable = slowly  # type: ignore[method-assign]


@in_cluster
async def test_a_ship_that_arrives_behind_the_stage_does_not_take_its_place(cluster: Cluster) -> None:
    world = ScopedCluster(cluster, {b"a:": "anna"}, {"anna": 7000, "bert": 7001})
    await world.start("anna", "bert")
    await world.settle()
    await world.lose_disk("bert")
    assert await world.write("anna", "MSET", "a:old", "v", "a:gone", "v") == "OK"
    late = LateShip(cluster, 7000)
    await world.start("bert")
    await cluster.until(late.is_under_way, "a ship")
    assert await world.write("anna", "RPUSH", "a:list", "1", "2", "3") == 3
    assert await world.write("anna", "DEL", "a:gone") == 1
    expected = world.under("anna", PREFIX)
    await cluster.until(lambda: world.states("bert")[PREFIX] == "elsewhere", "bert's peers")
    slow_files(world, "bert", late.arrive)
    assert await world.write("anna", *MOVE) == "OK 2"
    assert world.under("bert", PREFIX) == expected
    cluster.network.unreachable.clear()
    await at_rest(cluster, world)
    assert world.under("anna", PREFIX) == world.under("bert", PREFIX) == expected


# -- kevy servers -----------------------------------------------------------------------------------------------------

BULK = request("SET", "k:string", "value") + request("RPUSH", "k:list", "1", "2", "3")
INGEST = ("MOVE-SCOPE-INGEST", "k:", BULK)


async def beside_a_kevy(cluster: Cluster, replicate: str | list[str] = "all") -> ScopedCluster:
    """Three nodes, and a kevy server at port 7009 that writes k:."""
    ports = {**PORTS, "kevy": 7009}
    world = ScopedCluster(cluster, SCOPES | {b"k:": "kevy"}, ports)
    peers = [
        {"id": name, "address": f"{HOST}:{port}", "kind": "kevy" if name == "kevy" else "kevynode"}
        for name, port in ports.items()
    ]
    await world.start("anna", replicate=replicate, peer=peers)
    await world.start("bert", "cleo", replicate=[], peer=peers)
    return world


@in_cluster
async def test_what_a_kevy_server_has_given_away_is_not_applied_once_more(cluster: Cluster) -> None:
    async with FakePrimary(cluster.network, 17009, HOST) as kevy:
        world = await beside_a_kevy(cluster)
        connection = await kevy.accept()
        await connection.handshake()
        await connection.send(answer(7, 0) + ship(5, {"k:string": "old"}))
        await cluster.until(lambda: world.under("anna", b"k:"), "the copy")
        await world.opened(*SCOPES)
        # It is in the bulk, and comes on the stream, too, while that is being made durable.
        late = frames(5, "SET k:string value", "RPUSH k:list 1 2 3")

        async def send_late() -> None:
            # Nobody may be there for it.
            with suppress(trio.BrokenResourceError):
                await connection.send(late)

        slow_files(world, "anna", lambda: cluster.nursery.start_soon(send_late))
        assert await world.write("anna", *INGEST) == "OK 2"
        assert await world.write("anna", "LRANGE", "k:list", 0, -1) == [b"1", b"2", b"3"]


class FullLedger:
    """Lets nothing be written to a node's ledger."""

    def __call__(self, call: Call) -> None:
        if "kevynode.ledger" in call.path and call.method in ("open_append", "write", "create"):
            raise OSError(28, "No space left on device", call.path)


@pytest.mark.parametrize("replicate", ["all", []], ids=["follows", "empty"])
@in_cluster
async def test_a_bulk_that_cannot_be_recorded_leaves_nothing_behind(
    cluster: Cluster, replicate: str | list[str]
) -> None:
    async with FakePrimary(cluster.network, 17009, HOST) as kevy:
        world = await beside_a_kevy(cluster, replicate)
        if replicate:
            connection = await kevy.accept()
            await connection.handshake()
            await connection.send(answer(7, 0) + ship(5, {"k:string": "old"}))
            await cluster.until(lambda: world.under("anna", b"k:"), "the copy")
        await world.opened(*SCOPES)
        before = world.under("anna", b"k:")
        cluster.disk("anna").before = FullLedger()
        reply = await world.write("anna", *INGEST)
        assert isinstance(reply, ErrorReply)
        assert reply.text.startswith("ERR MOVE-SCOPE-INGEST: it cannot be recorded: ")
        cluster.disk("anna").before = None
        assert world.owners("anna")[b"k:"] == "kevy"
        if replicate:
            # What came is no copy of a place in the stream: the server, which goes on, is asked for all of it.
            connection = await kevy.accept()
            handshake = await connection.handshake()
            assert (handshake.history, handshake.offset) == (0, 0)
            await connection.send(answer(7, 0) + ship(9, {"k:string": "old"}))
        await cluster.until(lambda: world.under("anna", b"k:") == before, "what was there")
        # The node has lost nothing for it: the next time it goes through.
        assert await world.write("anna", *INGEST) == "OK 2"
        assert await world.write("anna", "LRANGE", "k:list", 0, -1) == [b"1", b"2", b"3"]
