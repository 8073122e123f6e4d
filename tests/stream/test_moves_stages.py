"""Large slices that take their place in a file of their own: nobody waits long, and no crash finds half of one."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from support.cluster import Cluster, in_cluster
from support.durable_clients import SlowJobs
from support.kept_files import files, opened
from support.memory_disk import Call, MemoryDisk
from support.moving import at_rest
from support.scoped import ScopedCluster

PREFIX = b"a:"
KEYS = 120
MOVE = ("MOVE-SCOPE", "a:", "FROM", "anna", "TO", "bert")


async def begun(cluster: Cluster, policy: str = "always", **more: Any) -> ScopedCluster:
    """Two nodes without copies of each other, one of which has more than is written to a file as one group."""
    world = ScopedCluster(cluster, persistence=files(policy, **more))
    await world.start("anna", "bert", "cleo", replicate=[])
    await world.settle()
    for number in range(KEYS):
        assert await world.write("anna", "SET", f"a:{number}", "x" * 1000) == "OK"
    assert await world.write("anna", "RPUSH", "a:list", "1", "2", "3") == 3
    assert await world.write("anna", "PEXPIREAT", "a:0", 9_000_000_000_000) == 1
    return world


def kinds(disk: MemoryDisk) -> list[bytes]:
    """What the files are that a node has in use, in order, the base left out."""
    folder = "/data/appendonlydir/"
    manifest = disk.content(folder + "appendonly.aof.manifest").decode().splitlines()
    names = [line.split()[1] for line in manifest if line.endswith("type i")]
    return [disk.content(folder + name).split(b"\r\n", 1)[0].split()[2] for name in names]


def under(found: Any) -> Any:
    """What there is of the prefix."""
    return {key: value for key, value in found.items() if key.startswith(PREFIX)}


@in_cluster
async def test_a_slice_comes_in_a_file_of_its_own_and_a_rewrite_folds_it_in(cluster: Cluster) -> None:
    world = await begun(cluster)
    before = world.under("anna", PREFIX)
    assert str(await world.write("anna", *MOVE)).startswith("OK ")
    await at_rest(cluster, world)
    disk = cluster.disk("bert")
    assert kinds(disk) == [b"kind=incr", b"kind=stage", b"kind=incr"]
    assert world.under("bert", PREFIX) == before
    assert await world.write("bert", "SET", "a:0", "y") == "OK"
    held = world.under("bert", PREFIX)
    assert under(await opened(cluster, disk.crash())) == held
    node = world.nodes["bert"]
    node.execute("BGREWRITEAOF")
    await cluster.until(lambda: node.persistence.append_only().rewrites)
    assert b"kind=stage" not in kinds(disk)
    assert under(await opened(cluster, disk.crash())) == held


@pytest.mark.parametrize("policy", ["always", "everysec"])
@in_cluster
async def test_a_crash_at_any_call_finds_all_of_a_slice_or_nothing(cluster: Cluster, policy: str) -> None:
    world = await begun(cluster, policy)
    before = world.under("anna", PREFIX)
    # What is there already has to go, or to be replaced, with the slice.
    store = world.nodes["bert"].store
    store.put(b"a:1", b"stale")
    store.put(b"a:stale", b"stale")
    store.emit((b"SET", b"a:1", b"stale"), b"a:1")
    store.emit((b"SET", b"a:stale", b"stale"), b"a:stale")
    store.commit()
    stale = world.under("bert", PREFIX)
    disk = cluster.disk("bert")
    left: list[MemoryDisk] = []

    def look(call: Call) -> None:
        # The calls in the append-only folder; what comes of those for the ledger others look at.
        if "appendonlydir" in call.path:
            disk.before = None
            left.append(disk.crash() if len(left) % 2 else disk.kill())
            disk.before = look

    await world.nodes["bert"].flush()
    disk.before = look
    assert str(await world.write("anna", *MOVE)).startswith("OK ")
    await at_rest(cluster, world)
    disk.before = None
    assert world.under("bert", PREFIX) == before
    assert len(left) >= 12
    found = [under(await opened(cluster, one)) for one in left]
    assert all(one in (stale, before) for one in found)
    # Old until one call, and new from there on.
    assert found == sorted(found, key=lambda one: one == before)
    assert stale in found
    assert found[-1] == before


@in_cluster
async def test_others_write_and_rewrite_while_a_slice_takes_its_place(cluster: Cluster) -> None:
    world = await begun(cluster, auto_aof_rewrite_min_size=1, auto_aof_rewrite_percentage=1)
    before = world.under("anna", PREFIX)
    acknowledged: dict[str, str] = {}

    async def write() -> None:
        number = 0
        while True:
            number += 1
            key = f"b:{number % 7}"
            if await world.write("bert", "SET", key, str(number)) == "OK":
                acknowledged[key] = str(number)
            await trio.sleep(0.001)

    async def rewrite() -> None:
        while True:
            world.nodes["bert"].execute("BGREWRITEAOF")
            await trio.sleep(0.003)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        nursery.start_soon(rewrite)
        for source, target in (("anna", "bert"), ("bert", "anna"), ("anna", "bert")):
            move = ("MOVE-SCOPE", "a:", "FROM", source, "TO", target)
            answer: Any = ""
            while not str(answer).startswith("OK "):
                answer = await world.write(source, *move)
                await trio.sleep(0.05)
        nursery.cancel_scope.cancel()
    await at_rest(cluster, world)
    assert world.under("bert", PREFIX) == before
    assert acknowledged
    found = await opened(cluster, cluster.disk("bert").crash())
    assert under(found) == before
    assert {key: found[key.encode()][0] for key in acknowledged} == {
        key: world.under("bert", b"b:")[key.encode()][0] for key in acknowledged
    }


@in_cluster
async def test_answers_to_others_wait_for_one_change_of_files_and_no_more(cluster: Cluster) -> None:
    world = await begun(cluster, "everysec")
    # Whatever bert does in a thread takes this long, on the clock of the test.
    job = 0.1
    SlowJobs(world.nodes["bert"], lambda: job)
    waits: dict[str, list[float]] = {"SET": [], "GET": []}

    async def ask(*words: str) -> None:
        client = await world.connect("bert")
        while True:
            began = trio.current_time()
            await client.call(*words)
            waits[words[0]].append(trio.current_time() - began)
            await trio.sleep(0.001)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, "SET", "b:k", "v")
        nursery.start_soon(ask, "GET", "b:k")
        await trio.sleep(0.01)
        assert str(await world.write("anna", *MOVE)).startswith("OK ")
        nursery.cancel_scope.cancel()
    assert b"kind=stage" in kinds(cluster.disk("bert"))
    # There were many jobs, and writes were answered in their midst but for one.
    assert len(waits["SET"]) > 100
    held = [wait for wait in waits["SET"] if wait >= job / 2]
    assert len(held) == 1
    assert held[0] < 2 * job
    assert max(waits["GET"]) < job / 2
    await at_rest(cluster, world)


@in_cluster
async def test_whoever_watches_hears_of_each_key(cluster: Cluster) -> None:
    world = await begun(cluster)
    node = world.nodes["bert"]
    seen: list[bytes | None] = []

    def observe(_first: int, group: Any) -> None:
        seen.extend(key for _, key, _ in group)

    node.store.journal.observers.append(observe)
    assert str(await world.write("anna", *MOVE)).startswith("OK ")
    await at_rest(cluster, world)
    keys = set(world.under("bert", PREFIX))
    assert keys <= set(seen)
    assert world.under("bert", PREFIX) == under(await opened(cluster, cluster.disk("bert").crash()))


@in_cluster
async def test_a_target_that_dies_in_the_midst_of_a_slice_does_not_hold_writes_up(cluster: Cluster) -> None:
    world = await begun(cluster)
    client = await world.connect("anna")
    for part in range(30):
        words = [word for number in range(100) for word in (f"a:{part}:{number}", "x" * 1000)]
        assert await client.call("MSET", *words) == "OK"
    await client.aclose()
    is_staging = trio.Event()

    def look() -> None:
        moves = world.member("bert").coordinator.status() if "bert" in world.nodes else []
        if any(move.state == "staging" for move in moves):
            is_staging.set()

    answer: Any = None
    took = 0.0

    async def work() -> None:
        nonlocal answer, took
        async with trio.open_nursery() as nursery:

            async def kill() -> None:
                await is_staging.wait()
                await world.kill("bert")

            nursery.start_soon(kill)
            began = trio.current_time()
            answer = await world.write("anna", *MOVE)
            took = trio.current_time() - began

    await world.watching(look, work)
    assert answer.text == ("ERR MOVE-SCOPE ship failed: the link to bert was lost before it had the whole slice")
    assert took < 5
    assert await world.write("anna", "SET", "a:0", "y") == "OK"
    await world.start("bert", replicate=[])
    await at_rest(cluster, world)
    assert world.owners("bert")[PREFIX] == "anna"
    assert world.under("bert", PREFIX) == {}
