"""What a node wrote of a scope that is another one's after all: it stops at once, and keeps what it has in a file."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from typing import Any

import pytest
import trio
from support.cluster import HOST, Cluster, ErrorReply, in_cluster
from support.memory_disk import Call
from support.moving import PREFIX, Trap, at_most_one_writer, at_rest
from support.scoped import ScopedCluster, misdirected
from support.store_harness import Content, content

import kevynode.store.commands  # noqa: F401  enters the commands into the table
from kevynode.scope.ledger import LedgerEntry
from kevynode.scope.ledger_records import MoveRole, MoveState
from kevynode.store.apply import Applier
from kevynode.store.store import Store

MOVE = ("MOVE-SCOPE", "a:", "FROM", "anna", "TO", "bert")
RIVAL = LedgerEntry(b"a:", "cleo", 4, "m2")


def kept(cluster: Cluster, name: str) -> list[str]:
    """The files of tails that a node has."""
    return [file for file in cluster.disk(name).list("/data") if file.startswith("kevynode.kept.")]


def loaded(cluster: Cluster, name: str, file: str) -> Content:
    """What the commands of a file build."""
    store = Store(random.Random(0))
    applier = Applier(store)
    words = cluster.disk(name).content(f"/data/{file}")
    while words:
        end, command = _command(words)
        applier.apply(command)
        words = words[end:]
    return content(store)


def _command(data: bytes) -> tuple[int, list[bytes]]:
    place = data.index(b"\r\n")
    words = []
    count = int(data[1:place])
    for _ in range(count):
        start, place = place + 2, data.index(b"\r\n", place + 2)
        size = int(data[start + 1 : place])
        words.append(data[place + 2 : place + 2 + size])
        place += 2 + size
    return place + 2, words


async def rivals(cluster: Cluster, replicate: Any = "all") -> tuple[ScopedCluster, Content]:
    """Anna and cleo have both been made owner of a: at one epoch, and do not know; what anna has of it alone."""
    world = ScopedCluster(cluster)
    await world.start("anna", "bert", "cleo", replicate=replicate)
    await world.settle()
    assert await world.write("anna", "MSET", "a:both", "v", "a:changed", "old") == "OK"
    await world.settle()
    for port in world.ports.values():
        cluster.network.separate(f"{HOST}:{port + 10000}")
    await world.member("anna").keeper.append([LedgerEntry(b"a:", "anna", 4, "m1")])
    # Its copy is what it begins with.
    world.member("cleo").keeper.opening.restored(PREFIX)
    await world.member("cleo").keeper.append([RIVAL])
    await cluster.until(lambda: world.is_open("cleo", PREFIX), "the opening at cleo")
    assert await world.write("anna", "SET", "a:changed", "anna's") == "OK"
    assert await world.write("anna", "RPUSH", "a:list", "1", "2", "3") == 3
    assert await world.write("anna", "HSET", "a:hash", "f", "v") == 1
    assert await world.write("anna", "PEXPIRE", "a:hash", 3_600_000) == 1
    assert await world.write("cleo", "SET", "a:changed", "cleo's") == "OK"
    return world, world.under("anna", PREFIX)


def meet(cluster: Cluster) -> None:
    cluster.network.unreachable.clear()


@in_cluster
async def test_the_loser_of_two_owners_keeps_what_it_has_and_copies_the_other_one(cluster: Cluster) -> None:
    world, held = await rivals(cluster)
    meet(cluster)
    await cluster.until(lambda: kept(cluster, "anna"), "a file")
    await world.settle()
    assert await world.write("anna", "SET", "a:1", "v") == misdirected("cleo")
    assert world.nodes["anna"].get("a:changed") == b"cleo's"
    (file,) = kept(cluster, "anna")
    assert loaded(cluster, "anna", file) == held
    assert cluster.logged("anna", "scope_lost") == [{"prefix": b"a:", "owner": "cleo", "epoch": 4}]
    assert cluster.logged("anna", "tail_kept") == [{"prefix": b"a:", "file": file, "keys": 4}]
    assert not kept(cluster, "bert")
    assert not kept(cluster, "cleo")
    assert not world.member("anna").keeper.state.tails
    # Once only, and it may move on as any other.
    for name in tuple(world.nodes):
        await world.lose_power(name, 5)
    await world.start("anna", "bert", "cleo")
    await world.settle()
    assert str(await world.write("cleo", "MOVE-SCOPE", "a:", "FROM", "cleo", "TO", "anna")).startswith("OK ")
    await world.settle()
    assert kept(cluster, "anna") == [file]


@in_cluster
async def test_files_of_before_stay(cluster: Cluster) -> None:
    world, held = await rivals(cluster)
    meet(cluster)
    await cluster.until(lambda: kept(cluster, "anna"), "a file")
    (file,) = kept(cluster, "anna")
    _, _, digest, epoch, number, _ = file.split(".")
    assert (epoch, number) == ("4", "1")
    await world.settle()
    assert await world.member("anna").keep(PREFIX, 4) == (f"kevynode.kept.{digest}.4.2.aof", 2)
    assert loaded(cluster, "anna", file) == held


@in_cluster
async def test_without_copies_the_loser_drops_what_it_has_kept(cluster: Cluster) -> None:
    world, held = await rivals(cluster, replicate=[])
    meet(cluster)
    await cluster.until(lambda: not world.under("anna", PREFIX), "an empty slice")
    (file,) = kept(cluster, "anna")
    assert loaded(cluster, "anna", file) == held


@pytest.mark.parametrize("power", [False, True], ids=["killed", "power"])
@pytest.mark.parametrize("calls", range(0, 12, 2))
@in_cluster
async def test_the_loser_may_end_at_any_call(cluster: Cluster, calls: int, power: bool) -> None:
    world, held = await rivals(cluster)
    disk = cluster.disk("anna")
    ended = trio.Event()
    seen = 0

    def count(call: Call) -> None:
        nonlocal seen
        seen += call.method in ("write", "sync", "create", "rename", "sync_folder", "open_append")
        if seen > calls:
            ended.set()
            # From here on nothing reaches the disk.
            raise OSError(errno.EIO, os.strerror(errno.EIO), call.path)

    disk.before = count
    cluster.expected_errors |= {"peer_failed", "append_only_failed", "append_only_unsynced"}
    meet(cluster)
    await ended.wait()
    await (world.lose_power("anna", calls) if power else world.kill("anna"))
    cluster.disk("anna").before = None
    await world.start("anna")
    await cluster.until(lambda: world.owners("anna")[PREFIX] == "cleo", "the news")
    await world.settle()
    files = kept(cluster, "anna")
    assert files
    assert loaded(cluster, "anna", files[0]) == held
    assert not world.member("anna").keeper.state.tails


class Refusing:
    """Lets files of these names not be written."""

    def __init__(self, part: str) -> None:
        self.part = part
        self.refused = 0

    def __call__(self, call: Call) -> None:
        if self.part in call.path and call.method in ("write", "create", "open_append"):
            self.refused += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), call.path)


@in_cluster
async def test_nothing_takes_the_place_of_what_could_not_be_kept(cluster: Cluster) -> None:
    world, held = await rivals(cluster)
    cluster.disk("anna").before = refusing = Refusing("kevynode.kept.")
    meet(cluster)
    await trio.sleep(30)
    assert 20 < refusing.refused < 40
    assert world.under("anna", PREFIX) == held
    assert await world.write("anna", "SET", "a:1", "v") == misdirected("cleo")
    # Nobody can make it a writer of it, or its data a copy, before that is done.
    refused = await world.write("cleo", "MOVE-SCOPE", "a:", "FROM", "cleo", "TO", "anna", "TIMEOUT", 2000)
    assert refused.text.startswith("ERR MOVE-SCOPE ship failed: anna refused: it is still cleaning up what moved away")
    cluster.disk("anna").before = None
    await cluster.until(lambda: kept(cluster, "anna"), "a file")
    await world.settle()
    (file,) = kept(cluster, "anna")
    assert loaded(cluster, "anna", file) == held


@in_cluster
async def test_a_loser_that_cannot_write_that_down_takes_no_writes_all_the_same(cluster: Cluster) -> None:
    world, held = await rivals(cluster)
    cluster.disk("anna").before = Refusing("kevynode.ledger")
    meet(cluster)
    reason = "LOADING scope a: is waiting for the entry of cleo to be written down"

    async def is_closed() -> bool:
        return bool(await world.write("anna", "SET", "a:1", "v") == ErrorReply(reason))

    with trio.fail_after(5):
        while not await is_closed():  # noqa: ASYNC110  the nodes do that
            await trio.sleep(0.05)
    await trio.sleep(20)
    assert await is_closed()
    assert not kept(cluster, "anna")
    cluster.disk("anna").before = None
    await cluster.until(lambda: kept(cluster, "anna"), "a file")
    await world.settle()
    assert held.items() <= loaded(cluster, "anna", kept(cluster, "anna")[0]).items()


@pytest.mark.parametrize("replicate", ["all", []], ids=["follows", "empty"])
@pytest.mark.parametrize("ends", [False, True])
@in_cluster
async def test_who_has_given_a_scope_away_keeps_nothing(cluster: Cluster, replicate: Any, ends: bool) -> None:
    """Also where it hears of the new owner from others first."""
    world = ScopedCluster(cluster)
    await world.start("anna", "bert", "cleo", replicate=replicate)
    await world.settle()
    assert await world.write("anna", "SET", "a:1", "v") == "OK"
    await world.settle()
    trap = Trap(world, MoveRole.TARGET, MoveState.ACTIVATED, told=True)
    trap._spring = spring(cluster, trap.sprung)
    mover = await world.connect("anna")
    await mover.send(*MOVE, "TIMEOUT", 3000)
    await trap.sprung.wait()
    if ends:
        await world.kill("anna")
        await world.start("anna", replicate=replicate)
    await cluster.until(lambda: world.owners("anna")[PREFIX] == "bert", "the news")
    meet(cluster)
    await at_rest(cluster, world)
    assert not any(kept(cluster, name) for name in world.nodes)
    assert not cluster.logged("anna", "scope_lost")


def spring(cluster: Cluster, sprung: trio.Event) -> Callable[[], None]:
    def cut() -> None:
        sprung.set()
        # The source cannot ask the target, and hears of it over the links of peers.
        cluster.network.unreachable.add(f"{HOST}:17001")
        for wire in cluster.network.to(f"{HOST}:17001"):
            wire.cut()

    return cut


@in_cluster
async def test_a_source_that_was_given_up_and_took_writes_keeps_them(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    await world.start("anna", "bert", "cleo")
    await world.settle()
    assert await world.write("anna", "MSET", "a:1", "v", "a:2", "v") == "OK"
    await world.settle()
    trap = Trap(world, MoveRole.TARGET, MoveState.SEALED, told=True)
    mover = await world.connect("anna")
    await mover.send(*MOVE)
    await trap.sprung.wait()
    await world.kill("anna")
    await trio.sleep(15)
    assert await world.write("bert", "MOVE-SCOPE", "RESOLVE", "a:", "COMMIT") == "OK"
    await cluster.until(lambda: world.is_open("bert", PREFIX), "the opening at bert")
    # It comes back where nobody can tell it.
    for port in world.ports.values():
        cluster.network.separate(f"{HOST}:{port + 10000}")
    await world.start("anna")
    await cluster.until(lambda: world.is_open("anna", PREFIX), "the opening at anna")
    assert await world.write("anna", "SET", "a:alone", "v") == "OK"
    held = world.under("anna", PREFIX)
    meet(cluster)
    await cluster.until(lambda: kept(cluster, "anna"), "a file")
    await world.settle()
    assert world.owners("anna")[PREFIX] == "bert"
    assert world.nodes["anna"].get("a:alone") is None
    (file,) = kept(cluster, "anna")
    assert loaded(cluster, "anna", file) == held
    at_most_one_writer(world)()
