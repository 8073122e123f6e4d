"""The start of a node that keeps files: what it loads, what it refuses, and what clients are told meanwhile."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest
import trio
from support.cluster import Cluster, ErrorReply, fill, fill_much, in_cluster, syncs
from support.kept_files import files
from support.memory_disk import Call, MemoryDisk
from support.store_harness import check_memory, content

from kevynode import Node
from kevynode.node import StartError

FOLDER = "/data/appendonlydir"
INCREMENT = f"{FOLDER}/appendonly.aof.1.incr.aof"


async def filled(cluster: Cluster, *, much: int = 0, **persistence: Any) -> Any:
    """What a node held that has been stopped; its disk is that of ``node``."""
    node = await cluster.start("node", port=7000, persistence=files(**persistence))
    fill(node)
    if much:
        fill_much(node, much)
    await node.flush()
    await cluster.stop(node)
    return content(node.store)


async def refused(cluster: Cluster, **persistence: Any) -> str:
    """Why the node does not start, in one line."""
    reasons: list[str] = []
    try:
        async with trio.open_nursery() as nursery:
            lonely = Cluster(nursery)
            lonely.disks, lonely.network = cluster.disks, cluster.network
            await lonely.start("node", port=7000, persistence=persistence or files())
            raise AssertionError("it has started")
    except* StartError as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            (error,) = error.exceptions
        reasons.append(str(error))
    (reason,) = reasons
    assert "\n" not in reason
    return reason


def restarted(cluster: Cluster, **persistence: Any) -> Any:
    """Start the node anew."""
    return cluster.start("node", port=7000, persistence=persistence or files())


def files_of(disk: MemoryDisk) -> dict[str, bytes]:
    """All files but the lock and the node's instance."""
    return {name: bytes(held.data) for name, held in disk._files.items() if "kevynode." not in name}


# -- what is loaded --------------------------------------------------------------------------------------------------


@in_cluster
async def test_everything_is_there_again(cluster: Cluster) -> None:
    had = await filled(cluster, much=100_000)
    for _ in range(3):
        node = await restarted(cluster)
        assert content(node.store) == had
        check_memory(node.store)
        await cluster.stop(node)
    # Starts that wrote nothing leave no file each.
    assert len([name for name in files_of(cluster.disk("node")) if "incr" in name]) == 2


@in_cluster
async def test_a_torn_end_is_cut_off_and_told(cluster: Cluster) -> None:
    had = await filled(cluster)
    disk = cluster.disk("node")
    size = len(disk.content(INCREMENT))
    disk._files[INCREMENT].data += b"*3\r\n$3\r\nSET\r\n$4\r\nha"
    node = await restarted(cluster)
    assert content(node.store) == had
    (facts,) = cluster.logged("node", "append_only_cut")
    assert (facts["file"], facts["offset"], facts["bytes"]) == (INCREMENT, size, 19)
    await cluster.stop(node)
    node = await restarted(cluster)
    assert cluster.logged("node", "append_only_cut") == []
    assert content(node.store) == had


@in_cluster
async def test_damage_is_refused_by_file_and_byte(cluster: Cluster) -> None:
    await filled(cluster)
    disk = cluster.disk("node")
    held = disk._files[INCREMENT].data
    place = held.index(b"plain")
    held[place] ^= 1
    before = files_of(disk)
    reason = await refused(cluster)
    assert reason.startswith(INCREMENT)
    assert any(word.strip(":,").isdigit() for word in reason.split())
    assert reason.endswith(f". `kevynode check-aof {FOLDER}` says what can be done about it")
    assert files_of(disk) == before
    held[place] ^= 1
    await restarted(cluster)


@pytest.mark.parametrize("lost", ["increment", "manifest"])
@in_cluster
async def test_a_file_that_is_missing_is_named(cluster: Cluster, lost: str) -> None:
    await filled(cluster)
    disk = cluster.disk("node")
    path = INCREMENT if lost == "increment" else f"{FOLDER}/appendonly.aof.manifest"
    del disk._files[path]
    assert path.rpartition("/")[2] in await refused(cluster)


@in_cluster
async def test_only_one_node_uses_a_folder(cluster: Cluster) -> None:
    await restarted(cluster)
    assert await refused(cluster) == "data_dir /data is in use by process 4711"


@in_cluster
async def test_a_dump_is_loaded_where_no_append_only_file_is_kept(cluster: Cluster) -> None:
    node = await restarted(cluster, aof=False)
    fill(node)
    had = content(node.store)
    history = node.replication.history
    await node.save()
    node.set("later", "lost")
    await cluster.stop(node)
    node = await restarted(cluster, aof=False)
    assert content(node.store) == had
    assert node.replication.history != history
    assert node.execute("LASTSAVE") > 0


@in_cluster
async def test_a_dump_is_what_an_append_only_file_begins_with(cluster: Cluster) -> None:
    node = await restarted(cluster, aof=False)
    fill(node)
    await node.save()
    await cluster.stop(node)
    node = await restarted(cluster)
    for seed in range(5):
        cluster.disks["other"] = cluster.disk("node").crash(seed)
        del cluster.disks["other"]._files["/data/dump.kevysnap"]
        other = await cluster.start("other", port=7001, persistence=files())
        assert content(other.store) == content(node.store)
        await cluster.stop(other)


@in_cluster
async def test_the_append_only_file_goes_before_a_dump(cluster: Cluster) -> None:
    node = await restarted(cluster)
    node.set("key", "old")
    await node.save()
    node.set("key", "new")
    await node.flush()
    await cluster.kill(node)
    node = await restarted(cluster)
    assert node.get("key") == b"new"


@in_cluster
async def test_files_that_are_ignored_are_told_of(cluster: Cluster) -> None:
    await filled(cluster)
    before = files_of(cluster.disk("node"))
    node = await restarted(cluster, aof=False)
    assert node.execute("DBSIZE") == 0
    assert len(cluster.logged("node", "append_only_ignored")) == 1
    await cluster.stop(node)
    assert files_of(cluster.disk("node")) == before


# -- a disk that does not work ---------------------------------------------------------------------------------------


@in_cluster
async def test_a_disk_without_room_is_refused(cluster: Cluster) -> None:
    had = await filled(cluster)
    disk = cluster.disk("node")
    disk.fill_up()
    assert "No space left on device" in await refused(cluster)
    disk.make_room()
    node = await restarted(cluster)
    assert content(node.store) == had


@pytest.mark.parametrize("found", ["nothing", "files", "dump"])
@in_cluster
async def test_whatever_fails_at_the_start_it_is_refused_and_nothing_is_lost(cluster: Cluster, found: str) -> None:
    """Fail each call of the disk in turn, and lose power then."""
    had: Any = {}
    if found != "nothing":
        node = await restarted(cluster, aof=found == "files")
        fill(node)
        had = content(node.store)
        await (node.flush() if found == "files" else node.save())
        await cluster.stop(node)
    disk = cluster.disk("node")
    refusals = starts = 0
    number = 0
    while True:
        tried = cluster.disks["node"] = disk.kill()
        number += 1

        def fail(call: Call, tried: MemoryDisk = tried, number: int = number) -> None:
            if len(tried.calls) == number and call.method != "close":
                raise OSError(errno.EIO, "Input/output error", call.path)

        tried.before = fail
        try:
            async with trio.open_nursery() as nursery:
                lonely = Cluster(nursery)
                lonely.disks = cluster.disks
                node = await lonely.start("node", port=7000, persistence=files())
                assert content(node.store) == had
                starts += 1
                tried.before = None
                await lonely.stop(node)
        except* StartError:
            refusals += 1
            assert not tried._locked
            assert tried.open_files() == []
        done = len(tried.calls) < number
        tried.before = None
        cluster.disks["node"] = tried.crash(number)
        node = await restarted(cluster)
        assert content(node.store) == had
        await cluster.stop(node)
        if done:
            break
    assert refusals > 10
    assert starts >= 1


# -- while it loads --------------------------------------------------------------------------------------------------


async def during_load(cluster: Cluster, node_name: str, visit: Callable[[Node], Any], **more: Any) -> Node | None:
    """Start the node, and have it visited when it listens."""
    visited = trio.Event()

    async def wait(node: Node) -> None:
        while not node.replication_address:
            await trio.lowlevel.checkpoint()
        await visit(node)
        visited.set()

    def begin(node: Node) -> None:
        cluster.on_node = None
        cluster.nursery.start_soon(wait, node)

    cluster.on_node = begin
    node = await cluster.start(node_name, port=7000, persistence=files(), **more)
    await visited.wait()
    return node


@in_cluster
async def test_clients_are_told_that_the_node_is_loading(cluster: Cluster) -> None:
    await filled(cluster, much=3_000_000)
    told: list[Any] = []
    shown: list[bytes] = []

    async def visit(node: Node) -> None:
        client = await cluster.connect(node)
        while not node.loaded:
            told.append(await client.call("GET", "string"))
            shown.append(await client.call("INFO", "persistence"))
        told.append(await client.call("GET", "string"))
        shown.append(await client.call("INFO", "persistence"))

    node = await during_load(cluster, "node", visit)
    assert node is not None
    loading = ErrorReply("LOADING kevynode is loading the dataset in memory")
    assert told[:2] == [loading, loading]
    assert told[-1] == b"plain"
    assert b"\r\nloading:1\r\n" in shown[0]
    assert b"\r\nloading_loaded_perc:" in shown[0]
    assert b"\r\nloading:0\r\n" in shown[-1]


@pytest.mark.parametrize("found", ["files", "dump"])
@in_cluster
async def test_how_far_it_is_is_told_from_the_beginning_to_the_end(cluster: Cluster, found: str) -> None:
    """Also while what a dump held is written to the first base."""
    node = await restarted(cluster, aof=found == "files")
    fill_much(node, 500_000)
    await (node.flush() if found == "files" else node.save())
    await cluster.stop(node)
    shown: list[str] = []

    async def watch(node: Node) -> None:
        while not node.addresses:
            await trio.lowlevel.checkpoint()
        while not node.loaded:
            shown.append(node.execute("INFO", "persistence"))
            await trio.lowlevel.checkpoint()

    cluster.on_node = lambda node: cluster.nursery.start_soon(watch, node)
    await restarted(cluster)
    loading = [text for text in shown if "\r\nloading:1\r\n" in text]
    assert len(loading) > 10
    assert all("\r\nloading_loaded_perc:" in text for text in loading)


@in_cluster
async def test_replicas_are_not_served_while_the_node_loads(cluster: Cluster) -> None:
    await filled(cluster, much=3_000_000)
    seen: list[bool] = []

    async def visit(node: Node) -> None:
        replica = await cluster.start("replica", port=7001, upstream=node)
        while not node.loaded:
            seen.append(replica.replication.has_data)
            await trio.lowlevel.checkpoint()

    node = await during_load(cluster, "node", visit)
    assert node is not None
    (replica,) = [other for other in cluster._running if other.config.cluster.node_id == "replica"]
    await cluster.settle(node, replica)
    assert seen.count(True) == 0
    assert len(seen) > 3
    assert syncs(node)[0] == 1


@pytest.mark.parametrize("how", ["stop", "cancel", "SHUTDOWN", "SHUTDOWN SAVE"])
@in_cluster
async def test_a_node_that_ends_while_it_loads_leaves_everything_as_it_was(cluster: Cluster, how: str) -> None:
    had = await filled(cluster, much=3_000_000)
    before = files_of(cluster.disk("node"))
    loaded: list[bool] = []

    async def visit(node: Node) -> None:
        while not node.persistence.loading or node.persistence.loading.loaded_bytes < 1_000_000:
            await trio.lowlevel.checkpoint()
        loaded.append(node.loaded)
        if how == "stop":
            node.stop()
        elif how != "cancel":
            client = await cluster.connect(node)
            await client.send(*how.split())

    if how == "cancel":
        async with trio.open_nursery() as nursery:
            lonely = Cluster(nursery)
            lonely.disks = cluster.disks

            async def give_up(node: Node) -> None:
                await visit(node)
                nursery.cancel_scope.cancel()

            lonely.on_node = lambda node: nursery.start_soon(give_up, node)
            await lonely.start("node", port=7000, persistence=files())
    else:
        node = await during_load(cluster, "node", visit)
        assert node is not None
        await cluster._running[node].ended.wait()
        assert not node.loaded
    assert loaded == [False]
    assert files_of(cluster.disk("node")) == before
    assert not cluster.disk("node")._locked
    assert cluster.disk("node").open_files() == []
    node = await restarted(cluster)
    assert content(node.store) == had


@in_cluster
async def test_what_a_client_sets_while_the_node_loads_is_what_it_gets(cluster: Cluster) -> None:
    await filled(cluster, much=3_000_000)
    answers: list[Any] = []

    async def visit(node: Node) -> None:
        client = await cluster.connect(node)
        answers.append(await client.call("CONFIG", "SET", "appendfsync", "always"))
        answers.append(await client.call("CONFIG", "SET", "appendonly", "yes"))
        answers.append(await client.call("BGREWRITEAOF"))
        answers.append(await client.call("BGSAVE"))
        answers.append(await client.call("WAITAOF", "1", "0", "10"))
        answers.append(node.loaded)

    node = await during_load(cluster, "node", visit)
    assert node is not None
    assert answers[:2] == ["OK", "OK"]
    assert all(isinstance(answer, ErrorReply) for answer in answers[2:-1])
    assert answers[-1] is False
    before = len(cluster.disk("node").calls)
    client = await cluster.connect(node)
    await client.call("SET", "key", "1")
    assert [call.method for call in cluster.disk("node").calls[before:]] == ["write", "sync"]
