"""The end of a node that keeps files: a final sync, nothing left locked, and clients that get what is theirs."""

from __future__ import annotations

import errno
from typing import Any

import pytest
import trio
from support.cluster import Cluster, fill, in_cluster
from support.durable_clients import SlowJobs
from support.kept_files import files, opened
from support.memory_disk import MemoryDisk
from support.session_harness import MemoryLog
from support.store_harness import content

from kevynode import Node, NodeConfig, open_node
from kevynode.errors import ReplyError
from kevynode.node import StartError


@pytest.mark.parametrize("policy", ["always", "everysec", "no"])
@in_cluster
async def test_a_node_that_is_stopped_has_synced_everything(cluster: Cluster, policy: str) -> None:
    node = await cluster.start("node", port=7000, persistence=files(policy))
    fill(node)
    client = await cluster.connect(node)
    await client.call("SET", "key", "1")
    node.set("program", "wrote this")
    await cluster.stop(node)
    for seed in range(10):
        assert await opened(cluster, cluster.disk("node").crash(seed)) == content(node.store)


@pytest.mark.parametrize("how", ["stopped", "cancelled"])
@pytest.mark.parametrize("state", ["well", "syncing", "rewriting", "switching on", "switching off", "saving"])
@in_cluster
async def test_a_node_that_ends_leaves_everything_in_order(cluster: Cluster, state: str, how: str) -> None:
    node = await cluster.start("node", port=7000, persistence=files() if state != "switching on" else None)
    fill(node)
    slow = SlowJobs(node, lambda: 0.2)
    client = await cluster.connect(node)
    await client.call("SET", "key", "1")
    match state:
        case "syncing":
            await trio.sleep(1.1)
            await client.call("SET", "key", "2")
        case "rewriting":
            await client.call("BGREWRITEAOF")
        case "switching on":
            await client.call("CONFIG", "SET", "appendonly", "yes")
        case "switching off":
            await client.call("CONFIG", "SET", "appendonly", "no")
        case "saving":
            await client.call("BGSAVE")
    if state != "well":
        await cluster.until(lambda: slow.running)
    if how == "stopped":
        await cluster.stop(node)
    else:
        cluster._running[node].scope.cancel()
        await cluster._running[node].ended.wait()
    assert cluster.logs["node"].events("error") == []
    assert not cluster.disk("node")._locked
    for seed in range(5):
        found = await opened(cluster, cluster.disk("node").crash(seed))
        assert found == content(node.store) or (state == "switching on" and not found)


@in_cluster
async def test_a_sync_that_had_not_begun_when_the_node_ends_is_made_up_for(cluster: Cluster) -> None:
    node = await cluster.start("node", port=7000, persistence=files())
    node.set("key", "1")
    # The task that syncs is called, and cancelled before it can.
    node.persistence.want_sync()
    cluster._running[node].scope.cancel()
    await cluster._running[node].ended.wait()
    for seed in range(10):
        assert await opened(cluster, cluster.disk("node").crash(seed)) == {b"key": (b"1", None)}


@in_cluster
async def test_answers_that_are_held_leave_before_a_node_stops(cluster: Cluster) -> None:
    node = await cluster.start("node", port=7000, persistence=files())
    slow = SlowJobs(node)
    client = await cluster.connect(node)
    slow.hold()
    node.execute("BGREWRITEAOF")
    await cluster.until(lambda: slow.running)
    await client.send("SET", "key", "1")
    await trio.sleep(0.1)
    node.stop()
    await trio.sleep(1)
    slow.release()
    assert await client.reply() == "OK"
    assert await client.ended()
    await cluster._running[node].ended.wait()
    assert await opened(cluster, cluster.disk("node").crash(1)) == {b"key": (b"1", None)}


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("method", ["write", "sync"])
@in_cluster
async def test_a_node_stops_though_its_disk_does_not_work(cluster: Cluster, method: str, error: int) -> None:
    cluster.expected_errors |= {"append_only_failed", "rewrite_failed", "append_only_unsynced"}
    node = await cluster.start("node", port=7000, persistence=files())
    client = await cluster.connect(node)
    assert await client.call("SET", "key", "1") == "OK"
    await client.call("WAITAOF", "1", "0", "0")
    cluster.disk("node").fail_next(method, error, 1000)
    node.set("key", "2")
    await trio.sleep(2)
    await cluster.stop(node)
    assert not cluster.disk("node")._locked
    assert "append_only_unsynced" in cluster.logs["node"].events("error")
    found = await opened(cluster, cluster.disk("node").crash(1))
    assert found.keys() == {b"key"}


# -- what programs wait for -------------------------------------------------------------------------------------------


@in_cluster
async def test_flush_and_save(cluster: Cluster) -> None:
    node = await cluster.start("node", port=7000, persistence=files("no"))
    fill(node)
    await node.flush()
    await node.flush()
    for seed in range(5):
        assert await opened(cluster, cluster.disk("node").crash(seed)) == content(node.store)
    await node.save()
    assert cluster.disk("node").exists("/data/dump.kevysnap")


@in_cluster
async def test_flush_and_save_say_when_they_fail(cluster: Cluster) -> None:
    cluster.expected_errors |= {"append_only_failed", "rewrite_failed", "dump_failed"}
    node = await cluster.start("node", port=7000, persistence=files("no"))
    node.set("key", "1")
    disk = cluster.disk("node")
    disk.read_only()
    with trio.fail_after(10):
        with pytest.raises(ReplyError, match="Read-only file system"):
            await node.flush()
        # The file has not recovered, and does not stand in the way of a dump.
        with pytest.raises(ReplyError, match="could not be written"):
            await node.save()
        disk.read_only(False)
        await node.save()
    await cluster.until(lambda: not node.persistence.problem)
    await node.flush()
    assert await opened(cluster, disk.crash(1)) == {b"key": (b"1", None)}


@in_cluster
async def test_flush_fails_where_nothing_is_kept_and_when_it_is_switched_off(cluster: Cluster) -> None:
    node = await cluster.start("node", port=7000)
    with pytest.raises(ReplyError, match="no append-only file"):
        await node.flush()
    other = await cluster.start("other", port=7001, persistence=files("no"))
    slow = SlowJobs(other)
    slow.hold()
    other.set("key", "1")
    raised: list[ReplyError] = []

    async def flush() -> None:
        try:
            await other.flush()
        except ReplyError as error:
            raised.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flush)
        await cluster.until(lambda: slow.running)
        other.execute("CONFIG", "SET", "appendonly", "no")
        await trio.sleep(0.1)
        slow.release()
    assert len(raised) == 1


@in_cluster
async def test_flush_waits_for_the_first_base(cluster: Cluster) -> None:
    node = await cluster.start("node", port=7000)
    fill(node)
    SlowJobs(node, lambda: 0.5)
    node.execute("CONFIG", "SET", "appendonly", "yes")
    await node.flush()
    for seed in range(5):
        assert await opened(cluster, cluster.disk("node").crash(seed)) == content(node.store)


@in_cluster
async def test_save_fails_while_another_one_is_under_way(cluster: Cluster) -> None:
    node = await cluster.start("node", port=7000, persistence=files())
    fill(node)
    SlowJobs(node, lambda: 0.5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.save)
        await trio.sleep(0.1)
        with pytest.raises(ReplyError, match="already in progress"):
            await node.save()


# -- starts that come to nothing --------------------------------------------------------------------------------------


def config(port: int = 7000, **persistence: Any) -> NodeConfig:
    """A node on the network in memory."""
    return NodeConfig.from_dict(
        {
            "server": {"port": port, "bind": "127.0.0.1", "data_dir": "/data"},
            "replication": {"role": "standalone"},
            "log": {"level": "error"},
            "persistence": persistence,
        }
    )


@in_cluster
async def test_an_address_that_is_taken_leaves_the_folder_free(cluster: Cluster) -> None:
    await cluster.start("node", port=7000)
    disk = MemoryDisk()
    with pytest.raises(StartError, match=r"server\.bind"):
        async with open_node(config(), transport=cluster.network, disk=disk):
            pass
    assert not disk._locked


@in_cluster
async def test_an_instance_that_cannot_be_read_leaves_the_folder_free(cluster: Cluster) -> None:
    disk = MemoryDisk()
    disk.fail_next("open_append")
    disk.fail_next("create")
    with pytest.raises(StartError):
        async with open_node(config(), transport=cluster.network, disk=disk):
            pass
    assert not disk._locked


@in_cluster
async def test_a_node_whose_files_could_not_be_opened_can_be_forgotten(cluster: Cluster) -> None:
    """Whoever makes a node and opens its files does not have to do anything when that fails."""
    disk = MemoryDisk()
    disk.create("/data/kevynode.instance").write(b"damaged\n")
    node = Node(config(), MemoryLog(), transport=cluster.network, disk=disk)  # type: ignore[arg-type]
    with pytest.raises(StartError, match=r"kevynode\.instance"):
        await node.open_files()
    assert not disk._locked


@in_cluster
async def test_clients_are_told_when_a_node_ends_in_the_middle_of_a_transaction(cluster: Cluster) -> None:
    node = await cluster.start("node", port=7000, persistence=files())
    client = await cluster.connect(node)
    assert await client.call("MULTI") == "OK"
    assert await client.call("SET", "key", "1") == "QUEUED"
    await cluster.stop(node)
    assert await client.ended()
    assert await opened(cluster, cluster.disk("node")) == {}


@pytest.mark.parametrize("aof", [False, True])
@in_cluster
async def test_the_dump_of_a_shutdown_is_not_replaced_by_an_older_one(cluster: Cluster, aof: bool) -> None:
    node = await cluster.start("node", port=7000, persistence=files(aof=aof))
    fill(node)
    slow = SlowJobs(node)
    client = await cluster.connect(node)
    slow.hold()
    await client.call("BGSAVE")
    await cluster.until(lambda: slow.running)
    assert await client.call("SET", "key", "later") == "OK"
    await client.send("SHUTDOWN", "SAVE")
    await trio.sleep(0.1)
    slow.release()
    await cluster._running[node].ended.wait()
    left = cluster.disk("node").crash(1)
    cluster.disks["node"] = left
    restarted = await cluster.start("node", port=7000, persistence={"aof": False})
    assert content(restarted.store) == content(node.store)
