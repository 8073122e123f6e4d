"""Files that are rewritten, replaced, switched off and on under nodes that run."""

from __future__ import annotations

import random

import pytest
import trio
from support.cluster import Cluster, ErrorReply, fill, fill_much, follow, in_cluster, last_sync
from support.durable_clients import Promises, SlowJobs
from support.kept_files import files, opened
from support.memory_disk import Call, MemoryDisk
from support.store_harness import content

from kevynode import Node
from kevynode.errors import ReplyError

# -- rewrites ----------------------------------------------------------------------------------------------------------


@in_cluster
async def test_files_do_not_outgrow_the_data_for_long(cluster: Cluster) -> None:
    node = await cluster.start(
        "node", port=7000, persistence=files(auto_aof_rewrite_min_size=30_000, auto_aof_rewrite_percentage=50)
    )
    SlowJobs(node, lambda: 0.1)
    client = await cluster.connect(node)
    largest = 0
    for number in range(600):
        await client.call("SET", f"key{number % 10}", "x" * 500)
        await trio.sleep(0.05)
        largest = max(largest, node.persistence.append_only().size)
    facts = node.persistence.append_only()
    assert facts.rewrites > 5
    assert largest < 60_000
    disk = cluster.disk("node")
    names = [name for name in disk._files if "appendonlydir" in name]
    assert abs(facts.size - sum(len(disk.content(name)) for name in names if "manifest" not in name)) < 15_000
    assert len(names) <= 6
    assert await opened(cluster, disk.kill()) == content(node.store)


@in_cluster
async def test_a_rewrite_waits_for_a_dump_and_a_dump_for_a_rewrite(cluster: Cluster) -> None:
    node = await cluster.start("node", port=7000, persistence=files())
    fill(node)
    SlowJobs(node, lambda: 0.5)
    client = await cluster.connect(node)
    assert await client.call("BGSAVE") == "Background saving started"
    assert await client.call("BGREWRITEAOF") == "Background append only file rewriting scheduled"
    assert await client.call("BGSAVE") == ErrorReply("ERR Background save already in progress")
    await cluster.until(lambda: node.persistence.append_only().rewrites)
    assert node.persistence.dumps().saves == 1
    assert await client.call("BGREWRITEAOF") == "Background append only file rewriting started"
    assert await client.call("BGSAVE", "SCHEDULE") == "Background saving scheduled"
    await cluster.until(lambda: node.persistence.dumps().saves == 2)
    assert node.persistence.append_only().rewrites == 2


@pytest.mark.parametrize("policy", ["always", "everysec"])
@in_cluster
async def test_crashes_at_every_call_of_a_rewrite_under_load(cluster: Cluster, policy: str) -> None:
    node = await cluster.start("node", port=7000, persistence=files(policy))
    fill(node)
    promises = Promises(cluster)
    disk = cluster.disk("node")
    left: list[tuple[MemoryDisk, dict[str, int]]] = []
    is_looking = False

    def look(call: Call) -> None:
        nonlocal is_looking
        if not is_looking and node.persistence.append_only().rewrite_running is not None:
            is_looking = True
            left.append(
                (disk.kill() if policy == "everysec" or len(left) % 3 == 0 else disk.crash(), promises.so_far())
            )
            is_looking = False

    disk.before = look
    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(promises.write, node, f"{number}", 0.01)
        await trio.sleep(0.05)
        for count in range(2):
            node.execute("BGREWRITEAOF")
            await cluster.until(lambda count=count: node.persistence.append_only().rewrites > count)  # type: ignore[misc]
            await trio.sleep(0.05)
        nursery.cancel_scope.cancel()
    disk.before = None
    assert len(left) > 20
    for found, kept in left:
        cluster.disks["finder"] = found
        finder = await cluster.start("finder", port=7099, persistence=files())
        promises.check(finder.store, kept)
        assert finder.get("string") == b"plain"
        await cluster.stop(finder)


# -- on and off --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@in_cluster
async def test_it_can_be_switched_off_and_on_all_the_time(cluster: Cluster, seed: int) -> None:
    draw = random.Random(seed)
    node = await cluster.start("node", port=7000, persistence=files())
    SlowJobs(node, lambda: draw.choice([0.0, 0.01, 0.3]))
    promises = Promises(cluster)
    client = await cluster.connect(node)
    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(promises.write, node, f"{number}", 0.02)
        for _ in range(30):
            match draw.randrange(5):
                case 0:
                    await client.call("CONFIG", "SET", "appendfsync", draw.choice(["always", "everysec", "no"]))
                case 1:
                    answer = await client.call("BGREWRITEAOF")
                    assert isinstance(answer, str | ErrorReply)
                case 2:
                    await client.call("BGSAVE", "SCHEDULE")
                case _:
                    word = draw.choice(["yes", "no"])
                    assert await client.call("CONFIG", "SET", "appendonly", word) == "OK"
                    assert await client.call("CONFIG", "GET", "appendonly") == [b"appendonly", word.encode()]
                    assert node.persistence.append_only().enabled == (word == "yes")
            if draw.random() < 0.5:
                await trio.sleep(draw.random() * 0.5)
        assert await client.call("CONFIG", "SET", "appendonly", "yes") == "OK"
        await cluster.until(lambda: node.persistence.gate is not None)
        await node.flush()
        await trio.sleep(0.1)
        kept = promises.so_far()
        await cluster.kill(node)
        nursery.cancel_scope.cancel()
    assert promises.dropped <= 3
    node = await cluster.restart(node)
    promises.check(node.store, kept)
    assert len([name for name in cluster.disk("node")._files if "appendonlydir" in name]) <= 5


@in_cluster
async def test_what_is_switched_off_stays_as_it_was(cluster: Cluster) -> None:
    node = await cluster.start("node", port=7000, persistence=files("no"))
    node.set("key", "1")
    node.execute("CONFIG", "SET", "appendonly", "no")
    node.set("key", "2")
    await cluster.until(lambda: not node.persistence.retired)
    for seed in range(5):
        assert await opened(cluster, cluster.disk("node").crash(seed)) == {b"key": (b"1", None)}
    with pytest.raises(ReplyError, match="switched off"):
        node.execute("BGREWRITEAOF")
    node.execute("CONFIG", "SET", "appendonly", "yes")
    await node.flush()
    await cluster.kill(node)
    node = await cluster.restart(node)
    assert node.get("key") == b"2"


@in_cluster
async def test_a_switch_on_that_a_kill_interrupts_leaves_what_was_there(cluster: Cluster) -> None:
    node = await cluster.start("node", port=7000, persistence=files())
    node.set("key", "1")
    await node.flush()
    node.execute("CONFIG", "SET", "appendonly", "no")
    node.set("key", "2")
    await cluster.until(lambda: not node.persistence.retired)
    slow = SlowJobs(node)
    slow.hold()
    node.execute("CONFIG", "SET", "appendonly", "yes")
    await cluster.until(lambda: slow.running)
    for seed in range(5):
        assert await opened(cluster, cluster.disk("node").crash(seed)) == {b"key": (b"1", None)}
    slow.release()


# -- data that are replaced --------------------------------------------------------------------------------------------


async def start_copying(cluster: Cluster, policy: str = "everysec") -> tuple[Node, Node]:
    """A node with data of its own in its files, that is about to follow another one with other data."""
    primary = await cluster.start("primary", port=7000)
    fill(primary, " new")
    fill_much(primary, 20_000)
    node = await cluster.start("node", port=7001, persistence=files(policy))
    fill(node, " old")
    await node.flush()
    return primary, node


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["always", "everysec"])
@pytest.mark.parametrize("under_way", ["nothing", "rewrite", "dump"])
@in_cluster
async def test_crashes_at_every_call_after_a_synchronisation(cluster: Cluster, under_way: str, policy: str) -> None:
    """Until the fresh base is complete the old data are there with their old place; they are never mixed."""
    primary, node = await start_copying(cluster, policy)
    old, new = content(node.store), content(primary.store)
    slow = SlowJobs(node)
    if under_way != "nothing":
        slow.hold()
        node.execute("BGREWRITEAOF" if under_way == "rewrite" else "BGSAVE")
        await cluster.until(lambda: slow.running)
    disk = cluster.disk("node")
    left: list[MemoryDisk] = []
    is_looking = False

    def look(call: Call) -> None:
        nonlocal is_looking
        if not is_looking:
            is_looking = True
            left.extend((disk.kill(), disk.crash(len(left))))
            is_looking = False

    disk.before = look
    follow(node, primary)
    await cluster.settle(primary, node)
    left.append(disk.kill())
    slow.release()
    await cluster.until(lambda: node.persistence.work is None and not slow.running)
    await node.flush()
    disk.before = None
    left += [disk.kill(), disk.crash(1)]
    assert len(left) > 30
    found: list[bool] = []
    for one in left:
        cluster.disks["finder"] = one
        finder = await cluster.start("finder", port=7099, upstream="127.0.0.1:1", persistence=files(policy))
        held = content(finder.store)
        assert held in (old, new)
        found.append(held == new)
        assert (finder.replication.history == primary.replication.history) == (held == new)
        await cluster.stop(finder)
    assert not found[0]
    assert found[-1]
    # And then it goes on, or is synchronised again.
    for one in (left[0], left[-1]):
        cluster.disks["finder"] = one
        finder = await cluster.start("finder", port=7099, upstream=primary, persistence=files(policy))
        await cluster.settle(primary, finder)
        assert last_sync(finder).kind == ("full" if one is left[0] else "partial")
        await cluster.stop(finder)


@pytest.mark.parametrize("policy", ["always", "everysec", "no"])
@in_cluster
async def test_what_a_promoted_node_acknowledges_outlives_it(cluster: Cluster, policy: str) -> None:
    """Also while the base of the data that it was given last is still being written."""
    primary, node = await start_copying(cluster, policy)
    slow = SlowJobs(node)
    slow.hold()
    follow(node, primary)
    await cluster.settle(primary, node)
    await cluster.until(lambda: slow.running)
    last = await cluster.start("last", port=7002, upstream=node)
    await cluster.settle(node, last)
    node.execute("REPLICAOF", "NO", "ONE")
    client, reader = await cluster.connect(node), await cluster.connect(node)
    await client.send("SET", "key", "acknowledged")
    if policy != "always":
        assert await reader.call("GET", "key") == b"acknowledged"
    await trio.sleep(3)
    assert last.get("key") is None
    assert last.replication.history == primary.replication.history
    slow.release()
    assert await client.reply() == "OK"
    history = node.replication.history
    await cluster.until(lambda: last.get("key") == b"acknowledged")
    await (cluster.lose_power(node, 1) if policy == "always" else cluster.kill(node))
    found = await opened(cluster, cluster.disk("node").kill())
    assert found[b"key"] == (b"acknowledged", None)
    assert found.keys() > content(primary.store).keys()
    cluster.disks["node"] = cluster.disks["node"].crash(2)
    node = await cluster.start("node", port=7001, persistence=files(policy))
    assert node.replication.lineage.ancestors[0][0] == history
    await cluster.settle(node, last)


@in_cluster
async def test_replicas_are_synchronised_again_and_again_while_bases_are_written(cluster: Cluster) -> None:
    """Each one displaces the one before, whatever it has come to."""
    draw = random.Random(7)
    one = await cluster.start("one", port=7000)
    other = await cluster.start("other", port=7001)
    fill(one, " one")
    fill(other, " other")
    node = await cluster.start("node", port=7002, persistence=files())
    SlowJobs(node, lambda: draw.choice([0.0, 0.02, 0.2]))
    upstream = one
    for number in range(20):
        upstream = draw.choice([one, other])
        follow(node, upstream)
        await trio.sleep(draw.choice([0.01, 0.1, 0.5]))
        upstream.set("number", str(number))
        if draw.random() < 0.3:
            node.execute("CONFIG", "SET", "appendonly", draw.choice(["yes", "no"]))
        if draw.random() < 0.3:
            node.persistence.cancel_save()
            node.persistence.save(schedule=True)
    await cluster.settle(upstream, node)
    node.execute("CONFIG", "SET", "appendonly", "yes")
    await cluster.until(lambda: node.persistence.gate is not None)
    await node.flush()
    await cluster.lose_power(node, 3)
    assert await opened(cluster, cluster.disk("node")) == content(upstream.store)
