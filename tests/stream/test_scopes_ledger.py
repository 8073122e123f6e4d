"""What nodes with scopes know of moves: it spreads, survives, and closes whoever does not know enough."""

from __future__ import annotations

import errno
import os
import posixpath
import random
import threading

import pytest
import trio
from support.cluster import HOST, Cluster, in_cluster
from support.memory_disk import Call, MemoryDisk
from support.network import Network
from support.scoped import ScopedCluster, closed, misdirected

from kevynode import NodeConfig, open_node
from kevynode.scope import ledger_file
from kevynode.scope.ledger import LedgerEntry
from kevynode.scope.ledger_file import LEDGER
from kevynode.scope.stage import STAGE


def entry(prefix: bytes, owner: str, epoch: int = 1, move_id: str = "m") -> LedgerEntry:
    return LedgerEntry(prefix, owner, epoch, move_id)


async def three(cluster: Cluster) -> ScopedCluster:
    world = ScopedCluster(cluster)
    await world.start("anna", "bert", "cleo")
    await world.settle()
    return world


# -- entries ----------------------------------------------------------------------------------------------------------


@in_cluster
async def test_an_entry_reaches_all_within_a_second_and_stays(cluster: Cluster) -> None:
    world = await three(cluster)
    assert await world.write("anna", "SET", "a:1", "v") == "OK"
    await world.settle()
    await world.member("cleo").keeper.append([entry(b"a:", "bert")])
    await trio.sleep(1)
    for name in world.nodes:
        assert world.owners(name)[b"a:"] == "bert"
        expected = "OK" if name == "bert" else misdirected("bert")
        assert await world.write(name, "SET", "a:2", name) == expected
    await world.settle()
    assert world.nodes["anna"].get("a:2") == b"bert"
    differs = {"prefix": b"a:", "declared": "anna", "owner": "bert"}
    assert cluster.logged("anna", "ledger_differs") == [differs]
    for name in tuple(world.nodes):
        await world.lose_power(name, 3)
    await world.start("anna")
    assert await world.write("anna", "SET", "a:3", "v") == misdirected("bert")
    await world.start("bert", "cleo")
    await world.settle()
    assert {world.owners(name)[b"a:"] for name in world.nodes} == {"bert"}
    assert await world.write("bert", "SET", "a:3", "v") == "OK"
    await world.settle()
    assert cluster.logged("anna", "ledger_differs") == [differs]


@in_cluster
async def test_a_node_that_was_cut_off_learns_of_an_entry_when_it_is_back(cluster: Cluster) -> None:
    world = await three(cluster)
    everybody = [f"{HOST}:{port + 10000}" for port in world.ports.values()]
    for address in everybody:
        cluster.network.separate(address)
    await world.member("cleo").keeper.append([entry(b"a:", "bert")])
    await trio.sleep(30)
    assert world.owners("anna")[b"a:"] == world.owners("bert")[b"a:"] == "anna"
    cluster.network.unreachable.clear()
    await cluster.until(lambda: {world.owners(name)[b"a:"] for name in world.nodes} == {"bert"})
    await world.settle()


@in_cluster
async def test_entries_for_what_is_not_declared_are_kept_and_do_nothing(cluster: Cluster) -> None:
    world = await three(cluster)
    await world.member("anna").keeper.append([entry(b"a:sub:", "bert"), entry(b"zzz", "cleo")])
    await trio.sleep(2)
    for name in world.nodes:
        assert world.member(name).keeper.state.ledger.entry(b"zzz") == entry(b"zzz", "cleo")
        assert await world.write(name, "SET", "zzz", "v") == "OK"
    assert await world.write("anna", "SET", "a:sub:1", "v") == "OK"
    for _ in range(2):
        assert [facts["prefix"] for facts in cluster.logged("cleo", "ledger_entry_undeclared")] == [b"a:sub:", b"zzz"]
        await world.stop("cleo")
        await world.start("cleo")
    await world.settle()


@pytest.mark.parametrize("order", [("anna", "bert"), ("bert", "anna")])
@in_cluster
async def test_of_two_owners_at_one_epoch_one_closes_everywhere(cluster: Cluster, order: tuple[str, str]) -> None:
    world = await three(cluster)
    for name in order:
        cluster.network.separate(f"{HOST}:{world.ports[name] + 10000}")
    cluster.network.separate(f"{HOST}:{world.ports['cleo'] + 10000}")
    # Each hears of another one of the two; the one with the higher id of its move is the owner.
    await world.member(order[0]).keeper.append([entry(b"c:", order[0], 4, "m1")])
    await world.member(order[1]).keeper.append([entry(b"c:", order[1], 4, "m2")])
    await trio.sleep(1)
    assert {world.owners(name)[b"c:"] for name in order} == set(order)
    cluster.network.unreachable.clear()
    await cluster.until(lambda: {world.owners(name)[b"c:"] for name in world.nodes} == {order[1]})
    await world.settle()
    assert await world.write(order[0], "SET", "c:1", "v") == misdirected(order[1])
    assert await world.write("cleo", "SET", "c:1", "v") == misdirected(order[1])
    assert await world.write(order[1], "SET", "c:1", "v") == "OK"
    for name in order:
        (facts,) = cluster.logged(name, "two_owners")
        assert facts == {"prefix": b"c:", "epoch": 4, "owner": order[1], "losers": order[0]}


@pytest.mark.parametrize("seed", range(4))
@in_cluster
async def test_entries_at_random_end_in_one_owner_and_equal_copies(cluster: Cluster, seed: int) -> None:
    chance = random.Random(seed)
    world = await three(cluster)
    for epoch in range(1, 13):
        prefix = chance.choice(sorted(world.scopes))
        name = chance.choice(sorted(world.nodes))
        await world.member(name).keeper.append([entry(prefix, chance.choice(sorted(world.ports)), epoch, f"m{epoch}")])
        taken = [
            await world.write(writer, "SET", f"{prefix.decode()}{chance.randrange(9)}", f"{writer} {epoch}")
            for writer in world.nodes
        ]
        # It may not have heard of it yet.
        assert taken.count("OK") <= 2
        if chance.random() < 0.3:
            await world.kill(name)
            await trio.sleep(chance.random())
            await world.start(name)
        await cluster.until(lambda: len({world.member(other).keeper.state.ledger.digest for other in world.nodes}) == 1)
        # No marks say that it has moved: the copies are made anew after a while.
        await world.settle()
    assert len({tuple(sorted(world.owners(name).items())) for name in world.nodes}) == 1


@in_cluster
async def test_a_node_that_is_made_owner_without_the_data_does_not_open_for_an_instant(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    await world.start("anna", "cleo")
    # bert copies nothing of it.
    await world.start("bert", replicate=["b:"])
    await world.settle()
    assert await world.write("anna", "SET", "a:1", "v") == "OK"
    await world.settle()
    states: list[str] = []
    bert = world.member("bert").ownership
    bert.observers.append(lambda: states.append(world.row("bert", b"a:").state))
    await world.member("cleo").keeper.append([entry(b"a:", "bert")])
    await cluster.until(lambda: world.is_open("bert", b"a:"))
    assert states[0] == "waiting"
    assert world.nodes["bert"].get("a:1") == b"v"


# -- files ------------------------------------------------------------------------------------------------------------


class Broken:
    """Lets whatever is done to the ledger's file fail."""

    def __init__(self, error: int) -> None:
        self.error = error
        self.failed = 0

    def __call__(self, call: Call) -> None:
        if "kevynode.ledger" in call.path and call.method in ("append", "write", "sync", "create", "rename", "replace"):
            self.failed += 1
            raise OSError(self.error, os.strerror(self.error), call.path)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
@in_cluster
async def test_nothing_opens_that_cannot_be_written_down(cluster: Cluster, error: int) -> None:
    world = ScopedCluster(cluster)
    cluster.expected_errors.add("ledger_failed")
    broken = Broken(error)
    cluster.disk("anna").before = broken
    await world.start("anna", "bert", "cleo")
    await trio.sleep(20)
    assert world.states("anna")[b"a:"] == "waiting"
    assert 5 <= broken.failed <= 500
    assert os.strerror(error) in cluster.logged("anna", "ledger_failed")[0]["reason"]
    assert (await world.write("anna", "SET", "a:1", "v")).text.startswith("LOADING scope a: is waiting for ")
    assert await world.write("anna", "SET", "free", "v") == "OK"
    cluster.disk("anna").before = None
    await world.settle()
    assert await world.write("anna", "SET", "a:1", "v") == "OK"


@in_cluster
async def test_an_entry_that_cannot_be_written_down_does_not_count_until_it_can(cluster: Cluster) -> None:
    world = await three(cluster)
    broken = Broken(errno.ENOSPC)
    cluster.disk("bert").before = broken
    await world.member("cleo").keeper.append([entry(b"a:", "bert")])
    await trio.sleep(5)
    assert world.owners("anna")[b"a:"] == "bert"
    assert world.owners("bert")[b"a:"] == "anna"
    assert broken.failed
    cluster.disk("bert").before = None
    await cluster.until(lambda: world.is_open("bert", b"a:"))
    await world.settle()


@in_cluster
async def test_a_restored_backup_is_closed_until_it_knows_what_it_has_lost(cluster: Cluster) -> None:
    world = await three(cluster)
    assert await world.write("anna", "SET", "a:1", "v") == "OK"
    await world.settle()
    backup = cluster.disk("anna").kill()
    # What became known since then: its scope has moved, and is written elsewhere.
    await world.member("anna").keeper.append([entry(b"a:", "bert")])
    await trio.sleep(2)
    assert await world.write("bert", "SET", "a:1", "w") == "OK"
    await world.settle()
    for name in tuple(world.nodes):
        await world.stop(name)
    cluster.disks["anna"] = backup
    opened: list[float] = []
    await world.start("cleo")
    await world.start("anna")
    anna = world.member("anna").ownership
    anna.observers.append(lambda: opened.append(trio.current_time()) if world.is_open("anna", b"a:") else None)
    await trio.sleep(30)
    # cleo remembers more of it, and knows what has become of the scope; bert may know what came then.
    assert world.owners("anna")[b"a:"] == "bert"
    assert await world.write("anna", "SET", "a:1", "x") == closed("a:", "bert")
    assert not opened
    await world.start("bert")
    await cluster.until(lambda: world.states("anna")[b"a:"] == "elsewhere")
    assert await world.write("anna", "SET", "a:1", "x") == misdirected("bert")
    await world.settle()
    assert world.nodes["anna"].get("a:1") == b"w"
    assert not opened


@in_cluster
async def test_a_restored_backup_waits_for_all_peers_if_one_remembers_more(cluster: Cluster) -> None:
    world = await three(cluster)
    backup = cluster.disk("anna").kill()
    await world.member("anna").keeper.append([entry(b"zzz", "anna")])
    await trio.sleep(2)
    for name in tuple(world.nodes):
        await world.stop(name)
    cluster.disks["anna"] = backup
    await world.start("cleo")
    await world.start("anna")
    await trio.sleep(30)
    reason = "bert to tell what this node has lost of its ledger"
    assert await world.write("anna", "SET", "a:1", "x") == closed("a:", reason)
    await world.start("bert")
    await world.settle()
    assert await world.write("anna", "SET", "a:1", "x") == "OK"
    # It has made up for it, and is no restored backup the next time.
    await world.stop("bert")
    await world.stop("anna")
    await world.start("anna")
    await world.opened(b"a:")


# -- configurations ---------------------------------------------------------------------------------------------------


@in_cluster
async def test_a_prefix_with_two_declared_writers_is_closed_on_both(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    await world.start("anna", "cleo")
    scopes = [{"prefix": p, "writer": w} for p, w in (("a:", "bert"), ("b:", "bert"), ("c:", "cleo"))]
    await world.start("bert", scope=scopes)
    await trio.sleep(30)
    assert await world.write("anna", "SET", "a:1", "v") == closed(
        "a:", "agreement with bert (there the writer is bert)"
    )
    assert await world.write("bert", "SET", "a:1", "v") == closed(
        "a:", "agreement with anna (there the writer is anna), cleo (there the writer is anna)"
    )
    assert await world.write("bert", "SET", "b:1", "v") == "OK"
    assert await world.write("cleo", "SET", "c:1", "v") == "OK"
    assert cluster.logged("anna", "peer_configuration_differs")
    await world.stop("bert")
    await trio.sleep(30)
    assert (await world.write("anna", "SET", "a:1", "v")).text.startswith("LOADING")
    await world.start("bert")
    await world.settle()
    assert await world.write("anna", "SET", "a:1", "v") == "OK"


@in_cluster
async def test_an_entry_of_the_ledger_settles_what_is_declared_differently(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    await world.start("anna", "cleo")
    scopes = [{"prefix": p, "writer": w} for p, w in (("a:", "bert"), ("b:", "bert"), ("c:", "cleo"))]
    await world.start("bert", scope=scopes)
    await trio.sleep(5)
    await world.member("cleo").keeper.append([entry(b"a:", "anna")])
    await cluster.until(lambda: world.is_open("anna", b"a:"))
    await cluster.until(lambda: world.owners("bert")[b"a:"] == "anna")
    assert await world.write("anna", "SET", "a:1", "v") == "OK"
    assert await world.write("bert", "SET", "a:1", "v") == misdirected("anna")
    await world.settle()


@in_cluster
async def test_prefixes_that_share_keys_are_closed_on_both(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    await world.start("anna", "cleo")
    scopes = [{"prefix": p, "writer": w} for p, w in (("a:b", "bert"), ("b:", "bert"), ("c:", "cleo"))]
    await world.start("bert", scope=scopes)
    await trio.sleep(30)
    assert world.states("anna") == {b"a:": "waiting", b"b:": "elsewhere", b"c:": "elsewhere"}
    assert world.states("bert") == {b"a:b": "waiting", b"b:": "open", b"c:": "elsewhere"}


# -- who is who -------------------------------------------------------------------------------------------------------


@in_cluster
async def test_a_node_with_another_id_is_no_peer(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    await world.start("anna", "bert")
    # What answers at cleo's address is somebody else.
    stranger = ScopedCluster(cluster, {b"c:": "carl"}, {"anna": 7000, "bert": 7001, "carl": 7002})
    await stranger.start("carl")
    await trio.sleep(30)
    assert await world.write("anna", "SET", "a:1", "v") == closed("a:", "cleo")
    assert "carl" in str(cluster.logged("anna", "peer_not_reached") + cluster.logged("anna", "peer_refused"))
    await stranger.stop("carl")
    await world.start("cleo")
    await world.settle()


@in_cluster
async def test_a_second_node_with_the_same_id_gets_no_say(cluster: Cluster) -> None:
    world = await three(cluster)
    assert await world.write("anna", "SET", "a:1", "v") == "OK"
    await world.settle()
    double = ScopedCluster(cluster, world.scopes, world.ports | {"anna": 7005})
    tables = double.tables("anna")
    node = await cluster.start_with("double", tables)
    await trio.sleep(30)
    assert node.member is not None
    (row,) = (row for row in node.member.ownership.declared() if row.prefix == b"a:")
    assert row.state == "waiting", row
    assert await world.write("anna", "SET", "a:2", "v") == "OK"
    await world.settle()
    assert cluster.logged("bert", "peer_refused")


# -- its file ---------------------------------------------------------------------------------------------------------


class BlockingDisk(MemoryDisk):
    """Says that its calls block."""

    blocks = True


def test_a_start_leaves_the_files_of_scopes_to_threads() -> None:
    """A disk that takes long holds up neither clients, who are told that the node loads, nor the rest of a program."""
    disk = BlockingDisk()
    stray = f"/data/{STAGE}stray"
    disk.create(stray)
    called: dict[bool, set[tuple[str, str]]] = {True: set(), False: set()}

    def note(call: Call) -> None:
        if LEDGER in call.path or call.path == stray:
            is_main = threading.current_thread() is threading.main_thread()
            called[is_main].add((call.method, posixpath.basename(call.path)))

    config = NodeConfig.from_dict(
        {
            "server": {"bind": HOST, "data_dir": "/data"},
            "persistence": {"aof": False},
            "log": {"level": "error"},
            "cluster": {
                "node_id": "anna",
                "peer": [{"id": "anna", "address": f"{HOST}:6004", "replication": f"{HOST}:16004"}],
                "scope": [{"prefix": "a:", "writer": "anna"}],
            },
        }
    )

    async def start() -> None:
        async with open_node(config, transport=Network(), disk=disk):
            pass

    ledger_file.LedgerFile(disk, "/data", ledger_file.load(disk, "/data")).append([entry(b"a:", "anna")])
    disk.before = note
    trio.run(start)
    disk.before = None
    assert not disk.exists(stray)
    assert {("read", LEDGER), ("create", "temp-" + LEDGER), ("remove", posixpath.basename(stray))} <= called[False]
    assert called[True] == set()
