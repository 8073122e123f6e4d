"""A scope keeper with everything around it, played by the test."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import wraps
from typing import Any

import trio
from support.memory_disk import MemoryDisk
from support.session_harness import MemoryLog
from support.steady_run import run_steadily

from kevynode.scope.copies import HeldCopy
from kevynode.scope.keeper import ScopeKeeper
from kevynode.scope.ledger import LedgerEntry
from kevynode.scope.ledger_records import LedgerState
from kevynode.scope.peer_link import PeerUnreachable
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

    def copies_before(self, state: LedgerState) -> Mapping[bytes, HeldCopy]:
        return {}

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

    def is_up(self, node_id: str) -> bool:
        return not self.away

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
