"""What a node writes down of its scopes, and what it tells of them."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
import trio
from support.keeper_harness import NODES, Bench, in_time

from kevynode.scope.copies import HeldCopy
from kevynode.scope.keeper import LedgerUnusable
from kevynode.scope.ledger import LedgerEntry
from kevynode.scope.ledger_file import load
from kevynode.scope.ledger_records import Announced
from kevynode.scope.peer_messages import Configuration, PeerRow, ScopeRow

# -- the file ---------------------------------------------------------------------------------------------------------


@in_time
async def test_what_cannot_be_written_down_does_not_count(nursery: trio.Nursery) -> None:
    bench = Bench()
    await bench.keeper.load()
    nursery.start_soon(bench.keeper.run)
    bench.disk.read_only()
    bench.connect()
    await trio.sleep(5.5)
    assert bench.detail() != ""
    assert 5 <= len(bench.logged("ledger_failed")) <= 7
    entry = LedgerEntry(b"a:", "bert", 1, "m")
    with pytest.raises(OSError, match="Read-only"):
        await bench.keeper.append([entry])
    with pytest.raises(OSError, match="Read-only"):
        await bench.keeper.on_rows("bert", (entry,))
    with pytest.raises(OSError, match="Read-only"):
        await bench.keeper.on_announced("bert", 9)
    assert bench.keeper.own_facts().ledger_version == 0
    assert bench.keeper.ownership.owner(b"a:") == "anna"
    assert bench.keeper.announced("bert") == 0
    # It does not count as bert's, and nothing may be written to it here any more.
    assert bench.detail() == "the entry of bert to be written down"
    bench.disk.read_only(False)
    await trio.sleep(1.5)
    assert bench.detail() == "the entry of bert to be written down"
    await bench.keeper.on_rows("bert", (entry,))
    assert bench.keeper.ownership.owner(b"a:") == "bert"
    assert bench.detail() == "-"


@in_time
async def test_what_could_not_be_written_down_is_not_found_by_the_next_start(nursery: trio.Nursery) -> None:
    """The bytes may be in the file though it could not be said that they are durable."""
    bench = Bench()
    await bench.keeper.load()
    nursery.start_soon(bench.keeper.run)
    bench.connect()
    await trio.sleep(1)
    before = load(bench.disk.kill(), "/data").state
    bench.disk.fail_next("sync")
    with pytest.raises(OSError, match="Input/output"):
        await bench.keeper.append([LedgerEntry(b"a:", "bert", 1, "m")])
    assert load(bench.disk.kill(), "/data").state != before
    await trio.sleep(0.1)
    assert load(bench.disk.kill(), "/data").state == before


@in_time
async def test_what_was_lost_is_kept_before_it_is_given_back(nursery: trio.Nursery) -> None:
    bench = Bench()
    await bench.keeper.load()
    nursery.start_soon(bench.keeper.run)
    bench.connect()
    await trio.sleep(1)
    assert bench.detail() == ""
    bench.world.failures = [OSError("full"), OSError("full")]
    await bench.keeper.on_rows("bert", (LedgerEntry(b"a:", "bert", 3, "m"), LedgerEntry(b"b:", "bert", 3, "m")))
    assert bench.world.taken == [b"a:"]
    await trio.sleep(1.5)
    assert (bench.world.taken, bench.world.kept) == ([b"a:"], [])
    # It is known to the next start, too.
    again = Bench(bench.disk.kill())
    await again.keeper.load()
    assert again.world.taken == [b"a:"]
    await trio.sleep(1)
    assert (bench.world.taken, bench.world.kept) == ([], [(b"a:", 3)])
    assert [found["reason"] for found in bench.logged("tail_not_kept")] == ["full", "full"]
    assert bench.keeper.state.tails == {}


@in_time
async def test_who_is_cancelled_while_records_are_written_leaves_them_counted(nursery: trio.Nursery) -> None:
    bench = Bench()
    await bench.keeper.load()
    started, goes_on = trio.Event(), trio.Event()

    async def slowly(call: Callable[[], int]) -> int:
        started.set()
        await goes_on.wait()
        return call()

    bench.keeper._in_thread = slowly
    scope = trio.CancelScope()

    async def append() -> None:
        with scope:
            await bench.keeper.append([LedgerEntry(b"b:", "anna", 3, "m"), Announced("bert", 5)])

    nursery.start_soon(append)
    await started.wait()
    scope.cancel()
    await trio.sleep(1)
    assert bench.keeper.ownership.owner(b"b:") == "bert"
    goes_on.set()
    await trio.sleep(1)
    assert load(bench.disk, "/data").state.ledger == bench.keeper.state.ledger
    assert bench.keeper.ownership.owner(b"b:") == "anna"
    assert bench.keeper.announced("bert") == 5


def test_a_damaged_ledger_is_refused_by_name() -> None:
    bench = Bench()
    bench.disk.open_append("/data/kevynode.ledger", create=True).write(b"what is this?\n" * 9)
    with pytest.raises(LedgerUnusable, match=r"kevynode\.ledger"):
        trio.run(bench.keeper.load)


def test_a_ledger_whose_last_record_is_torn_is_cut_and_named() -> None:
    bench = Bench()
    trio.run(_append_once, bench)
    disk = bench.disk.kill()
    size = disk.size("/data/kevynode.ledger")
    disk.open_append("/data/kevynode.ledger", create=False).write(b"0123")
    again = Bench(disk)
    trio.run(_append_once, again)
    warnings = [fields for level, event, fields in again.log.records if event == "ledger_cut"]
    assert warnings == [{"file": "/data/kevynode.ledger", "offset": size, "bytes": 4}]


def test_a_ledger_that_cannot_be_read_is_refused_with_the_reason() -> None:
    bench = Bench()
    trio.run(_append_once, bench)
    again = Bench(bench.disk.kill())
    again.disk.fail_next("open_read", errno.EIO)
    again.disk.fail_next("read", errno.EIO)
    with pytest.raises(LedgerUnusable, match="Input/output error"):
        trio.run(again.keeper.load)


async def _append_once(bench: Bench) -> None:
    await bench.keeper.load()
    await bench.keeper.append([LedgerEntry(b"b:", "anna", 3, "m")])


# -- what is told -----------------------------------------------------------------------------------------------------


@in_time
async def test_entries_that_are_new_are_announced_and_known_ones_are_not(nursery: trio.Nursery) -> None:
    bench = Bench()
    await bench.keeper.load()
    entry = LedgerEntry(b"b:", "anna", 3, "m")
    await bench.keeper.on_rows("bert", (entry,))
    version = bench.keeper.own_facts().ledger_version
    assert bench.links.announced == [(entry,)]
    await bench.keeper.on_rows("bert", (entry, LedgerEntry(b"b:", "bert", 2, "n")))
    assert bench.links.announced == [(entry,)]
    assert bench.keeper.own_facts().ledger_version == version
    # What is written about peers only is no news of this node.
    await bench.keeper.on_announced("bert", 12)
    assert bench.keeper.own_facts().ledger_version == version
    assert bench.keeper.announced("bert") == 12


@in_time
async def test_another_configuration_closes_what_it_is_about(nursery: trio.Nursery) -> None:
    bench = Bench()
    await bench.keeper.load()
    nursery.start_soon(bench.keeper.run)
    bench.connect()
    await trio.sleep(1)
    rows = [PeerRow(node.node_id, node.address, node.replication, node.kind) for node in NODES]
    bench.keeper.on_table("bert", Configuration([ScopeRow(b"a:", "bert", "")], rows))
    await trio.sleep(0.1)
    assert bench.detail() == "agreement with bert (there the writer is bert)"
    bench.keeper.on_table("bert", None)
    await trio.sleep(0.1)
    assert bench.detail() == ""


@in_time
async def test_an_owner_that_is_not_the_declared_one_is_told_of_when_it_comes_up(nursery: trio.Nursery) -> None:
    bench = Bench()
    await bench.keeper.load()
    assert bench.logged("ledger_differs") == []
    differs = {"prefix": b"a:", "declared": "anna", "owner": "bert"}
    await bench.keeper.append([LedgerEntry(b"a:", "bert", 1, "m1"), LedgerEntry(b"else:", "bert", 1, "m1")])
    assert bench.logged("ledger_differs") == [differs]
    # Another epoch of the same owner is nothing new; what is back where it is declared does not differ.
    await bench.keeper.append([LedgerEntry(b"a:", "bert", 2, "m2")])
    await bench.keeper.append([LedgerEntry(b"a:", "anna", 3, "m3")])
    assert bench.logged("ledger_differs") == [differs]
    await bench.keeper.append([LedgerEntry(b"a:", "bert", 4, "m4")])
    assert bench.logged("ledger_differs") == [differs, differs]
    bench.keeper.close()
    again = Bench(bench.disk)
    await again.keeper.load()
    assert again.logged("ledger_differs") == [differs]


@in_time
async def test_a_scope_that_comes_back_from_a_later_epoch_is_open_at_one_above_it(nursery: trio.Nursery) -> None:
    bench = Bench()
    bench.world.lost = (b"a:",)
    bench.links.held = {b"a:": HeldCopy(7, 42, 3, 4)}
    bench.world.arrived.set()
    await bench.keeper.load()
    nursery.start_soon(bench.keeper.run)
    bench.connect()
    await trio.sleep(1)
    assert (bench.detail(), bench.keeper.ownership.epoch(b"a:")) == ("", 5)
    assert bench.keeper.state.ledger.entry(b"a:") == LedgerEntry(b"a:", "anna", 5, "restored")
    assert b"a:" in bench.keeper.state.opened
    # Others hear of it like of any other.
    assert any(bench.links.announced)
