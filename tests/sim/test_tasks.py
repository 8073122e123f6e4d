"""The tasks of a node at rest: those that are to be there are right, and any other is found."""

from __future__ import annotations

import attrs
import pytest
import trio
import trio.testing
from sim.tasks import Tasks
from sim.test_checkers import Cluster

ONCE = "kevynode.serve.hub.Hub.run"
PEER = "kevynode.scope.peers.PeerLinks._keep"
CLIENT = "kevynode.serve.listener.ClientEntrance._serve"
MOVE = "kevynode.scope.move_link.MoveLink._write"


@pytest.mark.parametrize(("names", "left"), [
    ([], ""),
    ([ONCE, PEER, PEER, CLIENT, CLIENT, CLIENT], ""),
    ([ONCE, ONCE], "n1 has 2 tasks serve.hub.Hub.run, and may have 1"),
    ([PEER, PEER, PEER], "n1 has 3 tasks scope.peers.PeerLinks._keep, and may have 2"),
    ([CLIENT] * 4, "n1 has 4 tasks serve.listener.ClientEntrance._serve, and may have 3"),
    ([ONCE, MOVE], "n1 has 1 tasks scope.move_link.MoveLink._write, and may have 0"),
])  # fmt: skip
async def test_tasks_that_are_too_many_are_found_wherever_they_are(
    nursery: trio.Nursery, names: list[str], left: str
) -> None:
    cluster = Cluster(nursery)
    plan = attrs.evolve(cluster.plan, nodes=("n1", "n2", "n3"), clients=2, habits=())
    tasks = Tasks(cluster.world, plan)
    cluster.add("n1")
    assert tasks.left_over() == ""

    async def live() -> None:
        cluster.world.lives["n1"].task = trio.lowlevel.current_task()
        async with trio.open_nursery() as own:
            own.start_soon(trio.sleep_forever, name="kevynode.node.Node.run")
            own.start_soon(work)

    async def work() -> None:
        trio.lowlevel.current_task().name = "kevynode.member.Member.run"
        async with trio.open_nursery() as inner:
            for name in names:
                inner.start_soon(trio.sleep_forever, name=name)

    nursery.start_soon(live)
    await trio.testing.wait_all_tasks_blocked()
    assert tasks.left_over() == left
