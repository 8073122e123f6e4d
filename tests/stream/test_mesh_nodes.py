"""Copies of scopes between whole nodes that hear of moves late, or in another order than they happened in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio
from support.cluster import HOST, Cluster, in_cluster
from support.moving import PREFIX, at_rest
from support.network import Wire, hold
from support.scoped import ScopedCluster

from kevynode.scope.ledger_records import MoveRecord, MoveRole, MoveState

MOVE = ("MOVE-SCOPE", "a:", "FROM", "anna", "TO", "bert")
BACK = ("MOVE-SCOPE", "a:", "FROM", "bert", "TO", "anna")
BERT = f"{HOST}:17001"


class Late:
    """Holds up what bert says to others on its replication port, on links that begin with a command."""

    def __init__(self, cluster: Cluster, command: bytes) -> None:
        self._network = cluster.network
        self._command = command
        self._let_go: Callable[[], None] = lambda: None
        cluster.network.on_connect = self._record

    def _record(self, wire: Wire) -> None:
        wire.inward.record = bytearray()

    def begin(self) -> None:
        """Nothing more arrives from now on."""
        links = [wire for wire in self._network.to(BERT) if self._command in bytes(wire.inward.record or b"")[:64]]
        assert links
        self._let_go = hold(wire.outward for wire in links)

    def end(self) -> None:
        """All of it arrives."""
        self._let_go()


def when_shipped(world: ScopedCluster, call: Callable[[], None]) -> None:
    """Have something done as soon as the source of a move needs to hear nothing more to decide it."""
    keeper = world.member("anna").keeper
    take = keeper.on_records

    def seen(records: tuple[Any, ...]) -> None:
        take(records)
        for record in records:
            if isinstance(record, MoveRecord) and (record.role, record.state) == (MoveRole.SOURCE, MoveState.SHIPPED):
                call()

    keeper.on_records = seen


async def filled(cluster: Cluster) -> ScopedCluster:
    world = ScopedCluster(cluster)
    await world.start(*world.ports)
    await world.settle()
    for number in range(20):
        assert await world.write("anna", "RPUSH", f"a:{number}", "x") == 1
    await world.settle()
    return world


@in_cluster
async def test_a_source_that_hears_of_its_move_from_others_first_goes_on_where_it_is(cluster: Cluster) -> None:
    late = Late(cluster, b"INGEST")
    world = await filled(cluster)
    when_shipped(world, late.begin)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.write, "anna", *MOVE)
        await cluster.until(lambda: cluster.logged("anna", "scope_continued"), "the copy")
        for number in range(20):
            assert await world.write("bert", "RPUSH", f"a:{number}", "y") == 2
        await cluster.until(world.agree, "agreement of the copies")
        late.end()
    await at_rest(cluster, world)
    assert len(cluster.logged("anna", "scope_continued")) == 1
    assert await world.write("bert", *BACK) == "OK 0"
    await at_rest(cluster, world)
    assert world.owners("cleo")[PREFIX] == "anna"
    assert await world.write("anna", "RPUSH", "a:1", "z") == 3


@in_cluster
async def test_a_writer_that_loses_its_disk_gets_back_what_no_copy_has_followed_it_for_yet(cluster: Cluster) -> None:
    late = Late(cluster, b"REPLICATE")
    world = await filled(cluster)
    before = world.under("anna", PREFIX)
    when_shipped(world, late.begin)
    assert await world.write("anna", *MOVE) == "OK 0"
    await world.lose_disk("bert")
    await world.start("bert")
    await at_rest(cluster, world)
    assert world.owners("cleo")[PREFIX] == "bert"
    assert world.under("bert", PREFIX) == before
    assert cluster.logged("bert", "scope_restored")
