"""What was answered by those who were not to take writes is left out, and nothing else."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing
from sim.elements import Elements
from sim.history import UNKNOWN, Dispute, History, Operation
from sim.linear import check_key
from sim.test_checkers import Cluster


def increment(node: str, begun: float, ended: float, result: int) -> Operation:
    return Operation("c", b"k", "increment", b"", begun, ended, result, node=node)


def settled(*operations: Operation, dispute: Dispute) -> list[Operation]:
    history = History()
    history.disputes.append(dispute)
    for operation in operations:
        history.add(operation)
    history.settle()
    return history.operations[b"k"]


def test_what_a_second_primary_has_answered_does_not_count() -> None:
    here = increment("n1", 3, 4, 2)
    there = increment("n2", 3, 4, 2)
    before = increment("n1", 0, 1, 1)
    assert check_key([before, here, there]).outcome == "bad"
    left = settled(before, here, there, dispute=Dispute("n2", 2.0, 5.0))
    assert left == [before, here]
    assert check_key(left).outcome == "good"


@pytest.mark.parametrize(("begun", "ended"), [(0.0, 1.0), (5.5, 6.0)])
def test_what_it_has_answered_before_or_afterwards_counts(begun: float, ended: float) -> None:
    operation = increment("n2", begun, ended, 1)
    assert settled(operation, dispute=Dispute("n2", 2.0, 5.0)) == [operation]
    assert operation.result == 1


def test_what_had_begun_before_may_count() -> None:
    operation = increment("n2", 1.0, 3.0, 1)
    assert settled(operation, dispute=Dispute("n2", 2.0)) == [operation]
    assert (operation.result, operation.ended) == (UNKNOWN, math.inf)


def test_elements_of_a_second_primary_do_not_count() -> None:
    elements = Elements()
    operation = elements.add(b"a:", Operation("c", b"a:", "push", b"1;", 3.0, 4.0, 1, node="n2"))
    elements.settle([Dispute("n1", 2.0)])
    assert elements.operations[b"a:"] == [operation]
    elements.settle([Dispute("n2", 2.0)])
    assert elements.operations[b"a:"] == []


@pytest.mark.parametrize("how", ["follows", "ends"])
async def test_a_usurper_takes_nobodys_place(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, how: str
) -> None:
    cluster = Cluster(nursery)
    cluster.add("n1")
    usurper = cluster.add("n2").replication
    usurper.role = "slave"
    cluster.losses.usurpers.add("n2")
    usurper.promote()
    assert cluster.losses.primary == "n1"
    assert cluster.history.losses == []
    assert cluster.history.disputes == [Dispute("n2", trio.current_time())]
    assert cluster.history.disputed(trio.current_time())
    if how == "follows":
        usurper.follow("10.0.0.1", 16004)
    else:
        cluster.world.die("n2", "kill")
    (dispute,) = cluster.history.disputes
    assert dispute.ended == trio.current_time()
    assert not cluster.history.disputed(trio.current_time() + 1.0)


async def test_who_follows_a_usurper_has_begun_no_history(nursery: trio.Nursery) -> None:
    cluster = Cluster(nursery)
    usurper, other = cluster.add("n2").replication, cluster.add("n3")
    usurper.role = other.replication.role = "slave"
    cluster.losses.usurpers.add("n2")
    usurper.promote()
    other.replication.lineage = usurper.lineage
    other.store.journal.offset = 3
    usurper.follow("10.0.0.1", 16004)
    cluster.watch._ready(cluster.world.lives["n3"])
    assert cluster.failures == []


@pytest.mark.parametrize("is_there", [True, False])
async def test_a_primary_that_is_replaced_takes_writes_as_long_as_it_is_there(
    nursery: trio.Nursery, is_there: bool
) -> None:
    cluster = Cluster(nursery)
    cluster.add("n1")
    successor = cluster.add("n2").replication
    successor.role = "slave"
    if not is_there:
        cluster.world.die("n1", "kill")
    successor.promote()
    assert cluster.losses.primary == "n2"
    assert [dispute.node for dispute in cluster.history.disputes] == ["n1"] * is_there
