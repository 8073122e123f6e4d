"""What a node keeps about its scopes, against a world and peers that the test plays, on a disk in memory."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import trio
from support.keeper_harness import NODES, Bench, facts, in_time

from kevynode.scope.copies import HeldCopy
from kevynode.scope.ledger import LedgerEntry
from kevynode.scope.ledger_file import load
from kevynode.scope.settings import DeclaredNode

# -- opening ----------------------------------------------------------------------------------------------------------


@in_time
async def test_a_scope_opens_when_the_peer_has_answered_and_stays_open(nursery: trio.Nursery) -> None:
    bench = Bench()
    await bench.keeper.load()
    assert bench.detail() == "this node to look at its ledger"
    nursery.start_soon(bench.keeper.run)
    await trio.sleep(600)
    assert bench.detail() == "bert"
    bench.connect()
    await trio.sleep(1)
    assert bench.detail() == ""
    bench.keeper.on_peer_state(facts(up=False))
    await trio.sleep(600)
    assert bench.detail() == ""
    waits = [found["waits_for"] for found in bench.logged("scope_waits") if found["prefix"] == b"a:"]
    assert waits[0] == "bert"
    assert len(bench.logged("scope_open")) == 1
    # All of it is in the file.
    state = load(bench.disk, "/data").state
    assert (state.settled, state.opened, state.version) == (True, {b"a:"}, bench.keeper.state.version)


@in_time
async def test_a_settled_ledger_and_its_patience(nursery: trio.Nursery) -> None:
    first = Bench()
    await first.keeper.load()
    first.connect()
    with trio.move_on_after(1):
        await first.keeper.run()
    bench = Bench(first.disk)
    await bench.keeper.load()
    nursery.start_soon(bench.keeper.run)
    await trio.sleep(1.99)
    assert bench.detail() == "bert"
    await trio.sleep(0.02)
    assert bench.detail() == ""


@in_time
async def test_nobody_waits_for_the_disk_that_the_ledger_is_read_from(nursery: trio.Nursery) -> None:
    """It counts all at once, when the file that was written anew is durable."""
    first = Bench()
    await first.keeper.load()
    await first.keeper.append([LedgerEntry(b"a:", "bert", 3, "m")])
    bench = Bench(first.disk)

    async def slowly(call: Callable[[], Any]) -> Any:
        await trio.sleep(5)
        result = call()
        await trio.sleep(5)
        return result

    bench.keeper._in_thread = slowly
    ended = trio.Event()

    async def load_it() -> None:
        await bench.keeper.load()
        ended.set()

    nursery.start_soon(load_it)
    for _ in range(9):
        await trio.sleep(1)
        assert not ended.is_set()
        assert bench.keeper.state.version == 0
        assert bench.keeper.ownership.owner(b"a:") == "anna"
    await ended.wait()
    assert bench.keeper.state.version == first.keeper.state.version == 1
    assert bench.keeper.ownership.owner(b"a:") == "bert"


# -- data that were lost ----------------------------------------------------------------------------------------------


async def lost(*, trusts: bool = False, is_empty: bool = False) -> Bench:
    """A keeper whose node has lost the data of its scope, of which bert has a copy."""
    bench = Bench(trusts=trusts, is_empty=is_empty)
    bench.world.lost = (b"a:",)
    bench.links.held = {b"a:": HeldCopy(7, 42, 3)}
    await bench.keeper.load()
    return bench


@in_time
async def test_a_copy_is_asked_for_and_restored_before_the_scope_opens(nursery: trio.Nursery) -> None:
    bench = await lost()
    nursery.start_soon(bench.keeper.run)
    bench.connect()
    await trio.sleep(1)
    assert bench.detail() == "its data from bert"
    assert bench.links.asked == [("bert", (b"a:",))]
    assert bench.world.above == [42]
    bench.world.arrived.set()
    await trio.sleep(1)
    assert bench.detail() == ""
    assert bench.world.restored == [(b"a:", "bert")]
    # It is never done again.
    bench.links.held = {b"a:": HeldCopy(7, 99, 9)}
    bench.keeper.on_peer_state(facts(up=False))
    bench.keeper.on_peer_state(facts(up=True))
    await trio.sleep(100)
    assert (bench.detail(), len(bench.links.asked), len(bench.world.restored)) == ("", 1, 1)


@in_time
async def test_what_was_opened_empty_is_not_restored_later(nursery: trio.Nursery) -> None:
    bench = await lost()
    bench.links.held = {}
    nursery.start_soon(bench.keeper.run)
    bench.connect()
    await trio.sleep(1)
    assert bench.detail() == ""
    bench.links.held = {b"a:": HeldCopy(7, 42, 3)}
    bench.keeper.on_peer_state(facts(up=False))
    bench.keeper.on_peer_state(facts(up=True))
    await trio.sleep(100)
    assert bench.detail() == ""
    assert bench.logged("scope_restored") == []


@in_time
async def test_a_restore_that_fails_is_tried_again(nursery: trio.Nursery) -> None:
    bench = await lost()
    bench.world.failures = [OSError(errno.ENOSPC, "No space left on device"), ExceptionGroup("two", [ValueError("x")])]
    bench.world.arrived.set()
    nursery.start_soon(bench.keeper.run)
    bench.connect()
    await trio.sleep(1.5)
    assert bench.detail() == "its data from bert"
    await trio.sleep(1.5)
    assert bench.detail() == ""
    assert len(bench.logged("scope_not_restored")) == 2
    assert "No space left" in str(bench.logged("scope_not_restored")[0]["reason"])


@in_time
async def test_a_peer_that_cannot_be_asked_is_asked_again_and_not_too_often(nursery: trio.Nursery) -> None:
    bench = await lost()
    bench.links.away = True
    nursery.start_soon(bench.keeper.run)
    bench.connect()
    await trio.sleep(20)
    assert 15 <= len(bench.links.asked) <= 25
    assert bench.detail() == "bert to say what copy they hold"
    bench.links.away = False
    bench.world.arrived.set()
    await trio.sleep(2)
    assert bench.detail() == ""


@in_time
async def test_a_restore_is_from_who_has_the_newest_copy_still(nursery: trio.Nursery) -> None:
    bench = Bench(nodes=(*NODES, DeclaredNode("cleo", "h:7002", "h:17002")))
    bench.world.lost = (b"a:",)
    bench.links.held = {b"a:": HeldCopy(7, 42, 3)}
    await bench.keeper.load()
    nursery.start_soon(bench.keeper.run)
    bench.connect()
    bench.connect("cleo")
    await trio.sleep(1)
    assert bench.detail() == "its data from bert"
    # What it comes back with may be less than it said.
    bench.keeper.on_peer_state(facts(up=False))
    await trio.sleep(0.1)
    assert (bench.detail(), bench.world.cancelled) == ("its data from cleo", 1)
    # Who has the same is no reason to begin anew.
    bench.connect()
    await trio.sleep(2)
    assert (bench.detail(), bench.world.cancelled) == ("its data from cleo", 1)
    assert [peer for peer, _ in bench.links.asked] in (["bert", "cleo", "bert"], ["cleo", "bert", "bert"])
    bench.world.arrived.set()
    await trio.sleep(1)
    assert (bench.detail(), bench.world.restored) == ("", [(b"a:", "cleo")])


@in_time
async def test_a_restore_ends_when_the_scope_is_another_nodes(nursery: trio.Nursery) -> None:
    bench = await lost()
    nursery.start_soon(bench.keeper.run)
    bench.connect()
    await trio.sleep(1)
    assert bench.detail() == "its data from bert"
    await bench.keeper.append([LedgerEntry(b"a:", "bert", 1, "m")])
    await trio.sleep(0.1)
    assert bench.world.cancelled == 1
    assert bench.detail() == "-"
    bench.world.arrived.set()
    await trio.sleep(10)
    assert bench.world.restored == []


@in_time
async def test_who_becomes_the_owner_without_the_data_is_closed_at_once(nursery: trio.Nursery) -> None:
    bench = Bench()
    bench.world.lost = (b"b:",)
    bench.links.held = {b"b:": HeldCopy(7, 42, 3)}
    await bench.keeper.load()
    nursery.start_soon(bench.keeper.run)
    bench.connect()
    await trio.sleep(1)
    assert (bench.detail(b"a:"), bench.detail(b"b:")) == ("", "-")
    seen: list[str] = []
    bench.keeper.ownership.observers.append(lambda: seen.append(bench.detail(b"b:")))
    await bench.keeper.append([LedgerEntry(b"b:", "anna", 1, "m")])
    assert seen == ["bert to say what copy they hold"]
    bench.world.arrived.set()
    # bert is asked when it is heard of again.
    bench.keeper.on_peer_state(facts(up=True))
    await trio.sleep(1)
    assert bench.detail(b"b:") == ""
    assert bench.world.restored == [(b"b:", "bert")]


@in_time
async def test_no_data_are_looked_for_where_the_node_is_to_start_empty(nursery: trio.Nursery) -> None:
    bench = await lost(is_empty=True, trusts=True)
    nursery.start_soon(bench.keeper.run)
    await trio.sleep(0.1)
    assert bench.detail() == ""
    assert bench.links.asked == []
