"""Disks that fill up, fail and refuse under nodes that run: nothing is acknowledged and lost, and all is well again."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from typing import Any

import pytest
import trio
from support.cluster import Cluster, ErrorReply, fill, fill_much, in_cluster, last_sync
from support.durable_clients import Promises, SlowJobs
from support.kept_files import files, opened
from support.memory_disk import Call, MemoryDisk
from support.store_harness import content

from kevynode import Node, ReplyError
from kevynode.persist.jobs import Job

TROUBLE = {"append_only_failed", "rewrite_failed", "append_only_unsynced", "dump_failed", "append_only_unmeasured"}


async def info(node: Node) -> dict[str, str]:
    """INFO persistence."""
    lines = node.execute("INFO", "persistence").split("\r\n")
    return dict(line.split(":", 1) for line in lines if ":" in line)


async def well(cluster: Cluster, node: Node) -> None:
    """Wait until nothing is wrong any more."""
    await cluster.until(lambda: not node.persistence.problem and node.persistence.work is None, "recovery")


KINDS: list[Any] = [
    pytest.param(lambda disk: disk.fill_up(), lambda disk: disk.make_room(), errno.ENOSPC, id="full"),
    pytest.param(lambda disk: disk.read_only(), lambda disk: disk.read_only(False), errno.EROFS, id="read-only"),
    pytest.param(lambda disk: disk.fail_next("write", errno.EIO, 5), lambda disk: None, errno.EIO, id="failing"),
]


@pytest.mark.parametrize(("befall", "heal", "number"), KINDS)
@pytest.mark.parametrize("policy", ["always", "everysec", "no"])
@in_cluster
async def test_trouble_from_beginning_to_end(
    cluster: Cluster,
    policy: str,
    befall: Callable[[MemoryDisk], None],
    heal: Callable[[MemoryDisk], None],
    number: int,
) -> None:
    cluster.expected_errors |= TROUBLE
    node = await cluster.start("node", port=7000, persistence=files(policy))
    disk = cluster.disk("node")
    writer, reader, idle = [await cluster.connect(node) for _ in range(3)]
    assert await writer.call("SET", "key", "1") == "OK"
    assert await writer.call("SET", "mortal", "1", "PX", "1000") == "OK"
    assert (await info(node))["aof_last_write_status"] == "ok"
    befall(disk)
    await writer.send("SET", "key", "2")
    # It was done, and could not be stored: nobody says that it was.
    assert await writer.ended()
    if number != errno.EIO:
        writer = await cluster.connect(node)
        answer = await writer.call("SET", "key", "3")
        assert isinstance(answer, ErrorReply)
        reason = {errno.ENOSPC: "No space left on device", errno.EROFS: "Read-only file system"}[number]
        assert answer.text == f"MISCONF Errors writing to the AOF file: {reason}"
        assert (await info(node))["aof_last_write_status"] == "err"
        await trio.sleep(3)
        # Time passes for keys, too.
        assert await reader.call("GET", "mortal") is None
        assert await reader.call("GET", "key") == b"2"
        assert await idle.call("EXISTS", "mortal") == 0
        left = disk.kill()
        left.make_room()
        left.read_only(False)
        found = await opened(cluster, left)
        assert found[b"key"] == (b"1", None)
        assert node.persistence.append_only().failed_rewrites > 1
    heal(disk)
    await well(cluster, node)
    assert (await info(node))["aof_last_write_status"] == "ok"
    writer = await cluster.connect(node)
    assert await writer.call("SET", "key", "4") == "OK"
    await cluster.kill(node)
    assert await opened(cluster, cluster.disk("node").kill()) == content(node.store)


@in_cluster
async def test_a_sync_that_fails_once(cluster: Cluster) -> None:
    """What the system had taken for written is gone: all data are written anew."""
    cluster.expected_errors |= TROUBLE
    node = await cluster.start("node", port=7000, persistence=files())
    client = await cluster.connect(node)
    await client.call("SET", "key", "1")
    cluster.disk("node").fail_next("sync")
    await trio.sleep(1.5)
    await well(cluster, node)
    assert len(cluster.logged("node", "append_only_failed")) == 1
    assert await client.call("SET", "key", "2") == "OK"
    await node.flush()
    for seed in range(10):
        assert await opened(cluster, cluster.disk("node").crash(seed)) == {b"key": (b"2", None)}


@pytest.mark.parametrize("policy", ["always", "everysec", "no"])
@in_cluster
async def test_a_sync_fails_and_the_process_ends_and_the_power_with_the_next_one(cluster: Cluster, policy: str) -> None:
    """The next process finds bytes in the system's memory that no sync of its own stores."""
    cluster.expected_errors |= TROUBLE
    node = await cluster.start("node", port=7000, persistence=files(policy))
    node.set("stored", "1")
    await node.flush()
    for number in range(50):
        node.set(f"key{number}", "v" * 5000)
    # Not even in another file can it be stored.
    cluster.disk("node").fail_next("sync")
    cluster.disk("node").fail_next("create", times=50)
    with pytest.raises(ReplyError, match="MISCONF"):
        await node.flush()
    had = content(node.store)
    await cluster.kill(node)
    cluster.disks["node"] = cluster.disk("node").kill()
    node = await cluster.start("node", port=7000, persistence=files(policy))
    assert content(node.store) == had
    client = await cluster.connect(node)
    assert await client.call("SET", "key", "2") == "OK"
    await node.flush()
    for seed in range(20):
        assert await opened(cluster, cluster.disk("node").crash(seed)) == content(node.store)


@in_cluster
async def test_what_cannot_be_made_durable_at_the_start_is_written_anew(cluster: Cluster) -> None:
    """As while the node runs: the file whose sync has failed is not gone on with, and the data are not lost."""
    cluster.expected_errors |= TROUBLE
    node = await cluster.start("node", port=7000, persistence=files())
    fill(node)
    await node.flush()
    had = content(node.store)
    await cluster.kill(node)
    disk = cluster.disks["node"] = cluster.disk("node").kill()
    disk.fail_next("sync")
    node = await cluster.start("node", port=7000, persistence=files())
    assert content(node.store) == had
    (facts,) = cluster.logged("node", "append_only_failed")
    assert "Input/output error" in facts["reason"]
    assert len(cluster.logged("node", "append_only_recovered")) == 1
    node.set("then", "1")
    await node.flush()
    assert disk.exists("/data/appendonlydir/appendonly.aof.2.base.aof")
    for seed in range(10):
        assert await opened(cluster, disk.crash(seed)) == content(node.store)


@in_cluster
async def test_an_increment_is_never_begun_while_a_sync_of_the_old_one_is_under_way(cluster: Cluster) -> None:
    """Of two syncs of one file at once only one would hear that bytes are lost."""
    draw = random.Random(7)
    node = await cluster.start("node", port=7000, persistence=files())
    slow = SlowJobs(node, lambda: draw.choice([0.0, 0.0, 0.001]))
    begun: list[str] = []

    def look(jobs: list[Job]) -> None:
        kinds = [type(job).__name__ for job in jobs]
        assert not {"SyncJob", "IncrementJob"} <= set(kinds)
        begun.append(kinds[-1] if kinds else "")

    slow.on_jobs = look

    async def flush() -> None:
        while True:
            node.set("key", str(draw.random()))
            await node.flush()

    async def rewrite() -> None:
        while begun.count("IncrementJob") < 20:
            node.execute("BGREWRITEAOF")
            await cluster.until(lambda: node.persistence.append_only().rewrite_running is None, "the rewrite")

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(flush)
        await rewrite()
        nursery.cancel_scope.cancel()
    assert begun.count("SyncJob") > 20


@in_cluster
async def test_blocked_clients_and_transactions_in_trouble(cluster: Cluster) -> None:
    cluster.expected_errors |= TROUBLE
    node = await cluster.start("node", port=7000, persistence=files())
    taker, giver = await cluster.connect(node), await cluster.connect(node)
    await taker.send("BLPOP", "list", "0")
    await trio.sleep(0.1)
    cluster.disk("node").fail_next("write", errno.ENOSPC)
    assert await giver.pipeline("MULTI", "RPUSH list one") == ["OK", "QUEUED"]
    await giver.send("EXEC")
    assert await giver.ended()
    # It was given what nobody knows of.
    assert await taker.ended()
    await well(cluster, node)
    await cluster.kill(node)
    assert await opened(cluster, cluster.disk("node").kill()) == content(node.store)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("policy", ["always", "everysec"])
@in_cluster
async def test_calls_that_fail_at_random(cluster: Cluster, policy: str, seed: int) -> None:
    """Whatever fails, and whenever it ends: what was acknowledged is there."""
    cluster.expected_errors |= TROUBLE
    draw = random.Random(f"{policy} {seed}")
    cluster.on_node = lambda node: SlowJobs(node, lambda: draw.choice([0.0, 0.02, 0.5]))
    promises = Promises(cluster)
    node = await cluster.start("node", port=7000, persistence=files(policy))
    fill(node)
    for _ in range(3):
        disk = cluster.disk("node")

        def fail(call: Call) -> None:
            # As disks do, it fails for a while.
            if call.method != "close" and draw.random() < (0.3 if int(trio.current_time()) % 4 == 3 else 0.002):
                raise OSError(draw.choice([errno.EIO, errno.ENOSPC]), "it failed", call.path)

        disk.before = fail
        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(promises.write, node, f"{number}", draw.choice([0.02, 0.1]))
            nursery.start_soon(promises.read, node, "1", 0.05)
            end = trio.current_time() + 8 * draw.random()
            while trio.current_time() < end:
                await trio.sleep(draw.random())
                facts = node.persistence.append_only()
                if draw.random() < 0.3 and facts.rewrite_running is None and not facts.problem:
                    node.execute("BGREWRITEAOF")
                if draw.random() < 0.1:
                    node.persistence.cancel_save()
                    node.persistence.save(schedule=True)
            kept = promises.so_far()
            disk.before = None
            if policy == "always":
                await cluster.lose_power(node, draw.randrange(1000))
            else:
                await cluster.kill(node)
            nursery.cancel_scope.cancel()
        node = await cluster.restart(node)
        promises.check(node.store, kept)
    assert all(error.startswith("EXECABORT Transaction discarded because of") for error in promises.errors)
    # How far everything comes in a turn depends on the machine.
    assert promises.errors or promises.dropped


@in_cluster
async def test_replicas_hear_nothing_that_could_not_be_stored(cluster: Cluster) -> None:
    cluster.expected_errors |= TROUBLE
    primary = await cluster.start("primary", port=7000, persistence=files())
    replica = await cluster.start("replica", port=7001, upstream=primary)
    client = await cluster.connect(primary)
    await client.call("SET", "key", "1")
    await cluster.settle(primary, replica)
    disk = cluster.disk("primary")
    disk.fill_up()
    await client.send("SET", "key", "2")
    assert await client.ended()
    await trio.sleep(3)
    assert replica.get("key") == b"1"
    await cluster.kill(primary)
    disk = cluster.disks["primary"]
    disk.make_room()
    primary = await cluster.restart(primary)
    primary.set("other", "1")
    await cluster.settle(primary, replica)
    assert primary.replication.beyond_branch == 0
    assert primary.replication.full_syncs == 0


@in_cluster
async def test_a_replica_in_trouble_goes_on_as_a_copy(cluster: Cluster) -> None:
    cluster.expected_errors |= TROUBLE
    primary = await cluster.start("primary", port=7000)
    replica = await cluster.start("replica", port=7001, upstream=primary, persistence=files())
    fill(primary)
    await cluster.settle(primary, replica)
    disk = cluster.disk("replica")
    disk.fill_up()
    fill(primary, " more")
    await cluster.settle(primary, replica)
    await cluster.until(lambda: replica.persistence.problem)
    reader = await cluster.connect(replica)
    assert await reader.call("GET", "string") == b"plain more"
    disk.make_room()
    await well(cluster, replica)
    await cluster.kill(replica)
    assert await opened(cluster, cluster.disk("replica").kill()) == content(primary.store)
    replica = await cluster.restart(replica)
    await cluster.settle(primary, replica)
    assert last_sync(replica).kind == "partial"


@in_cluster
async def test_a_full_disk_costs_no_more_than_what_could_not_be_written(cluster: Cluster) -> None:
    """A rewrite that finds no room leaves everything as it was, and writes go on."""
    cluster.expected_errors |= TROUBLE
    node = await cluster.start("node", port=7000, persistence=files())
    fill_much(node, 300_000)
    await node.flush()
    cluster.disk("node").fill_up(after=100_000)
    client = await cluster.connect(node)
    assert "rewriting started" in await client.call("BGREWRITEAOF")
    await cluster.until(lambda: node.persistence.append_only().failed_rewrites)
    assert await client.call("SET", "key", "1") == "OK"
    assert (await info(node))["aof_last_bgrewrite_status"] == "err"
    assert (await info(node))["aof_last_write_status"] == "ok"
    await cluster.kill(node)
    assert await opened(cluster, cluster.disk("node").kill()) == content(node.store)
