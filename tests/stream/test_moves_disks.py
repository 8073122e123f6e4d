"""Moves between nodes whose disks fail or fill up at any call: one owner in the end, nothing lost or left over."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest
import trio
from support.cluster import Cluster, in_cluster
from support.memory_disk import Call
from support.move_faults import Remains, ends_well
from support.moving import PREFIX, Follower, at_most_one_writer
from support.scoped import ScopedCluster

MOVE = ("MOVE-SCOPE", "a:", "FROM", "anna", "TO", "bert")
#: What changes something on a disk, or makes a change durable.
CHANGES = frozenset({"write", "sync", "create", "open_append", "rename", "remove", "sync_folder", "truncate"})
#: What nodes may log as an error then.
ERRORS = {"move_not_recorded", "ledger_failed", "append_only_failed", "append_only_unsynced", "rewrite_failed"}


class Failing:
    """Lets calls of a disk fail from the ``first`` on, ``count`` of them."""

    def __init__(self, first: int, count: float, error: int) -> None:
        self.seen = 0
        self.failed = 0
        self._first, self._count, self._error = first, count, error

    def __call__(self, call: Call) -> None:
        if call.method in CHANGES:
            self.seen += 1
            if self._first < self.seen and self.failed < self._count:
                self.failed += 1
                raise OSError(self._error, os.strerror(self._error), call.path)


async def moved(cluster: Cluster, replicate: Any, name: str, failing: Failing, heals_after: float) -> tuple[str, Any]:
    """Who owns the prefix after a move under a client's writes, and what was answered."""
    cluster.expected_errors |= ERRORS
    world = ScopedCluster(cluster)
    await world.start(*world.ports, replicate=replicate)
    await world.settle()
    client = await world.connect("anna")
    for number in range(70):
        assert await client.call("SET", f"a:{number}", "x" * 1000) == "OK"
    assert await client.call("RPUSH", "a:list", "1", "2", "3") == 3
    await client.aclose()
    await world.settle()
    before = world.under("anna", PREFIX)
    remains = Remains(world)
    follower = Follower(world)
    # Without a write of somebody else most of the calls are the move's own.
    cluster.nursery.start_soon(follower.run, 0.2)
    await trio.sleep(0.05)
    answer: Any = None

    async def work() -> None:
        nonlocal answer
        async with trio.open_nursery() as nursery:
            cluster.disk(name).before = failing

            async def heal() -> None:
                await trio.sleep(heals_after)
                cluster.disk(name).before = None

            nursery.start_soon(heal)
            answer = await world.write("anna", *MOVE, "TIMEOUT", 5000)

    await world.watching(at_most_one_writer(world), work)
    cluster.disk(name).before = None
    return await ends_well(cluster, world, remains, follower, before), answer


#: Calls that a move costs a node, with the one or two writes of a client beside it.
CALLS = 40
#: How calls fail: one only, or all of them for three seconds.
WAYS = {"once": (1, errno.EIO), "full": (float("inf"), errno.ENOSPC)}
COPIES = {"follows": "all", "empty": []}


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, CALLS, 3))
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("copies", COPIES)
@pytest.mark.parametrize("name", ["anna", "bert"])
@in_cluster
async def test_a_disk_may_fail_at_each_call(cluster: Cluster, name: str, copies: str, way: str, first: int) -> None:
    count, error = WAYS[way]
    # Of three calls each combination has another one.
    first += (list(WAYS).index(way) + list(COPIES).index(copies)) % 3
    failing = Failing(first, count, error)
    owner, answer = await moved(cluster, COPIES[copies], name, failing, 3.0)
    if str(answer).startswith("OK "):
        assert owner == "bert"
    elif answer.text.startswith("ERR MOVE-SCOPE ship failed: "):
        assert owner == "anna"
    else:
        assert answer.text.startswith("ERR MOVE-SCOPE in doubt: ")
