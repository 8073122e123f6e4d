"""What a node keeps about its scopes, against a world and peers that the test plays, on a disk in memory."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import wraps
from typing import Any

import pytest
import trio
from support.memory_disk import MemoryDisk
from support.session_harness import MemoryLog
from support.steady_run import run_steadily

from kevynode.scope.copies import HeldCopy
from kevynode.scope.keeper import LedgerUnusable, ScopeKeeper
from kevynode.scope.ledger import LedgerEntry
from kevynode.scope.ledger_file import load
from kevynode.scope.ledger_records import Announced, LedgerState
from kevynode.scope.peer_link import PeerUnreachable
from kevynode.scope.peer_messages import Configuration, PeerRow, ScopeRow
from kevynode.scope.peer_state import PeerFacts
from kevynode.scope.scope import Scope
from kevynode.scope.settings import DeclaredNode, ScopeSettings

NODES = tuple(DeclaredNode(name, f"h:{port}", f"h:{port + 10000}") for port, name in enumerate(("anna", "bert"), 7000))
SCOPES = (Scope(b"a:", "anna"), Scope(b"b:", "bert"))


class TrioTime:
    """The clock of Trio's run."""

    def monotonic(self) -> float:
        return trio.current_time()

    def wall(self) -> float:
        return trio.current_time()


class World:
    """The node around a keeper."""

    def __init__(self) -> None:
        self.lost: tuple[bytes, ...] = ()
        self.above: list[int] = []
        self.restored: list[tuple[bytes, str]] = []
        self.failures: list[Exception] = []
        self.cancelled = 0
        self.taken: list[bytes] = []
        self.kept: list[tuple[bytes, int]] = []
        # Set: a restore may come to its end.
        self.arrived = trio.Event()

    def lacking(self, state: LedgerState) -> Iterable[bytes]:
        return self.lost

    def copies(self, prefixes: tuple[bytes, ...]) -> Mapping[bytes, HeldCopy]:
        return {}

    def number_above(self, offset: int) -> None:
        self.above.append(offset)

    def take(self, prefix: bytes) -> None:
        self.taken.append(prefix)

    async def keep(self, prefix: bytes, epoch: int) -> tuple[str, int]:
        await trio.lowlevel.checkpoint()
        if self.failures:
            raise self.failures.pop(0)
        self.kept.append((prefix, epoch))
        return "kept", 1

    async def give_back(self, prefix: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.taken.remove(prefix)

    async def restore(self, prefix: bytes, peer: str) -> None:
        try:
            if self.failures:
                raise self.failures.pop(0)
            await self.arrived.wait()
        except trio.Cancelled:
            self.cancelled += 1
            raise
        self.restored.append((prefix, peer))


class Links:
    """The peers of a keeper: they hold ``held`` and say so, unless they are ``away``."""

    def __init__(self) -> None:
        self.held: dict[bytes, HeldCopy] = {}
        self.away = False
        self.asked: list[tuple[str, tuple[bytes, ...]]] = []
        self.announced: list[tuple[LedgerEntry, ...]] = []

    def announce(self, entries: Iterable[LedgerEntry]) -> None:
        self.announced.append(tuple(entries))

    def changed(self) -> None:
        self.announce(())

    async def ask_copies(self, node_id: str, prefixes: Iterable[bytes]) -> dict[bytes, HeldCopy]:
        await trio.lowlevel.checkpoint()
        self.asked.append((node_id, tuple(prefixes)))
        if self.away:
            raise PeerUnreachable(f"there is no link to {node_id}")
        return self.held

    async def run(self) -> None:
        await trio.sleep_forever()


class Bench:
    """A keeper with everything around it."""

    def __init__(
        self,
        disk: MemoryDisk | None = None,
        *,
        trusts: bool = False,
        is_empty: bool = False,
        nodes: tuple[DeclaredNode, ...] = NODES,
    ) -> None:
        self.disk = MemoryDisk() if disk is None else disk
        self.world = World()
        self.links = Links()
        self.log = MemoryLog()
        self.keeper = ScopeKeeper(
            ScopeSettings("anna", nodes, SCOPES, trust_config=trusts, start_empty=is_empty),
            self.disk,
            "/data",
            self.world,
            TrioTime(),
            self.log,
            self._at_once,
        )
        self.keeper.links = self.links

    @staticmethod
    async def _at_once(call: Callable[[], Any]) -> Any:
        await trio.lowlevel.checkpoint()
        return call()

    def connect(self, peer: str = "bert", *, answers: bool = True) -> None:
        """A peer is there, and says the same as this node."""
        self.keeper.on_peer_state(facts(up=True, peer=peer))
        self.keeper.on_remembered(peer, 0)
        self.keeper.on_table(peer, None)
        if answers:
            self.keeper.on_answered(peer)

    def detail(self, prefix: bytes = b"a:") -> str:
        """What a scope waits for; empty if it is open."""
        (row,) = (row for row in self.keeper.ownership.declared() if row.prefix == prefix)
        return row.detail if row.state == "waiting" else {"open": "", "elsewhere": "-"}[row.state]

    def logged(self, event: str) -> list[dict[str, object]]:
        return [found for _, name, found in self.log.records if name == event]


def facts(*, up: bool, peer: str = "bert") -> PeerFacts:
    return PeerFacts(peer, "h:17001", up, 0.0, 0.0, "", "i", "serving", "h:7001", 1, True, True, True, 0)


def in_time(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a test on a clock that jumps ahead when nobody has anything to do."""

    @wraps(test)
    def run() -> None:
        async def main() -> None:
            async with trio.open_nursery() as nursery:
                await test(nursery)
                nursery.cancel_scope.cancel()

        run_steadily(main)

    del run.__wrapped__
    return run


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
