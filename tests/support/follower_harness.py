"""A follower with a real store behind it, on Trio's clock and a network in memory."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any, Literal

import trio
import trio.testing
from support.fake_primary import FakeConnection, FakePrimary, answer, ship
from support.memory_transport import MemoryTransport
from support.store_harness import START, Content, content

import kevynode.store.commands  # noqa: F401  enters the commands into the table
from kevynode.replicate.follower import FOLLOWER_CAPABILITIES, Follower
from kevynode.replicate.handshake import Form, Request
from kevynode.replication_view import UpstreamFacts
from kevynode.store.apply import Applier
from kevynode.store.store import Store

HISTORY = 7


class TrioClock:
    """Trio's time as both clocks; ``step`` seconds pass whenever somebody looks."""

    step = 0.0
    _passed = 0.0

    def monotonic(self) -> float:
        """Seconds; only forward."""
        self._passed += self.step
        return trio.current_time() + self._passed

    def wall(self) -> float:
        """Seconds since 1970."""
        return START / 1000 + trio.current_time()


class Log:
    """Remembers events by level."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, object]]] = []

    def debug(self, event: str, /, **fields: object) -> None:
        """Keep it."""
        self.lines.append(("debug", event, fields))

    def info(self, event: str, /, **fields: object) -> None:
        """Keep it."""
        self.lines.append(("info", event, fields))

    def warning(self, event: str, /, **fields: object) -> None:
        """Keep it."""
        self.lines.append(("warning", event, fields))

    def error(self, event: str, /, **fields: object) -> None:
        """Keep it."""
        self.lines.append(("error", event, fields))

    def of(self, level: str) -> list[str]:
        """The events of one level."""
        return [event for found, event, _ in self.lines if found == level]


class Sink:
    """The rest of the node: holds the position, and remembers what it was told."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.history = 0
        self.ancestors: tuple[tuple[int, int], ...] = ()
        self.told: list[str] = []
        self.reasons: list[str] = []
        self.losses: list[str] = []
        self.raw = b""
        # What was found at the start, what the last swap brought, and every cursor that was noted.
        self.found: dict[str, tuple[int, int]] = {}
        self.cursors: dict[str, tuple[int, int]] = {}
        self.noted: list[tuple[str, int, int]] = []
        self.divergences = 0
        # The data at every position that others could have seen.
        self.seen: dict[int, Content] = {}

    def cursor(self) -> tuple[int, int]:
        """What is held."""
        return (self.history, self._store.journal.offset) if self.history else (0, 0)

    def adopt(
        self,
        history: int,
        offset: int,
        ancestors: tuple[tuple[int, int], ...],
        kind: Literal["full", "partial"],
        reason: str,
    ) -> None:
        """A position is known."""
        assert offset == self._store.journal.offset
        self.told.append(f"{kind} {history} {offset}")
        self.reasons.append(reason)
        if history or kind == "full":
            self.history, self.ancestors = history or 1, ancestors
        self._look()

    def swapped(self, cursors: Mapping[str, tuple[int, int]]) -> None:
        """The data is new."""
        self.told.append("swapped")
        self.cursors = dict(cursors)
        self._look()

    def cursors_of(self, upstreams: Collection[str]) -> Mapping[str, tuple[int, int]]:
        """What is held of streams that are not adopted."""
        return self.found if self.found.keys() == set(upstreams) else {}

    def note_cursor(self, upstream: str, history: int, offset: int) -> None:
        """A group of such a stream is about to be committed."""
        assert self._store.journal.pending
        self.noted.append((upstream, history, offset))

    def diverged(self) -> None:
        """What is held is no history's."""
        self.divergences += 1

    def entries_applied(self, first: int, next: int, raw: bytes, grouped: bool, may_flush: bool) -> None:
        """Entries are in."""
        assert next == self._store.journal.offset
        self.told.append(f"{first}-{next}" + (" grouped" if grouped else ""))
        self.raw += raw
        self._look()

    def link_changed(self) -> None:
        """Nobody looks."""

    def lost(self, reason: str) -> None:
        """A link is gone."""
        self.losses.append(reason)

    def _look(self) -> None:
        assert not self._store.journal.pending
        self.seen[self._store.journal.offset] = content(self._store)


class Copy:
    """A store that follows whoever listens at ``primary`` on port 16004 and above."""

    def __init__(self, shards: int = 1, **options: Any) -> None:
        self.transport = MemoryTransport()
        self.clock = TrioClock()
        self.log = Log()
        self.store = Store(random.Random(1))
        self.store.deletes_expired = False
        self.store.journal.follows = shards == 1
        self.sink = Sink(self.store)
        self.options: dict[str, Any] = {"transport": self.transport, "shards": shards, **options}
        self.running = trio.CancelScope()

    async def run(self) -> None:
        """Follow until ``running`` is cancelled."""
        self.follower = Follower(
            "primary",
            16004,
            store=self.store,
            applier=Applier(self.store),
            clock=self.clock,
            random=random.Random(1),
            log=self.log,
            sink=self.sink,
            replica_id="kevynode-replica-6004#test",
            **self.options,
        )
        with self.running:
            await self.follower.run()

    @property
    def data(self) -> dict[str, str]:
        """The strings held."""
        return {key.decode(): value.decode() for key, (value, _) in content(self.store).items()}

    @property
    def facts(self) -> UpstreamFacts:
        """The first link, as clients may see it."""
        return self.follower.facts(self.clock.monotonic())[0]


@asynccontextmanager
async def copying(shards: int = 1, **options: Any) -> AsyncIterator[tuple[Copy, FakePrimary]]:
    """A follower and its scripted primary."""
    copy = Copy(shards, **options)
    async with FakePrimary(copy.transport) as primary, trio.open_nursery() as nursery:
        nursery.start_soon(copy.run)
        yield copy, primary
        copy.running.cancel()


async def synchronised(
    primary: FakePrimary, data: dict[str, str], offset: int, expected: tuple[int, int] = (0, 0)
) -> FakeConnection:
    """Serve the next connection with a snapshot, in the form it asks for."""
    connection, request = await primary.greet(expected)
    await connection.send(accept(request) + ship(offset, data))
    return connection


def accept(request: Request, lineage: tuple[tuple[int, int], ...] = (), history: int = HISTORY) -> bytes:
    """What a primary in HISTORY answers to a request."""
    if request.form is Form.FIVE:
        return answer(None, request.offset)
    names = None
    if request.form is Form.EXTENDED:
        assert request.capabilities == FOLLOWER_CAPABILITIES
        names = request.capabilities
    return answer(history, request.offset, names, lineage)


async def downgrade(primary: FakePrimary, form: Form) -> None:
    """Close connections until the follower asks in ``form``."""
    for refused in (Form.EXTENDED, Form.SIX):
        if refused is form:
            return
        for _ in range(3):
            connection, request = await primary.greet()
            assert request.form is refused
            await connection.close()
