"""A follower of scopes with a store of its own, and what the rest of its node would hold, against a scripted writer."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
from support.fake_primary import FakeConnection, FakePrimary, answer, payload, ship
from support.follower_harness import HISTORY, Log, TrioClock
from support.memory_transport import MemoryTransport
from support.store_harness import content

import kevynode.store.commands  # noqa: F401  enters the commands into the table
from kevynode.replicate import wire
from kevynode.replicate.mesh_follower import MESH_CAPABILITIES, MeshFollower
from kevynode.replicate.scope_cursors import scope_cursor_name
from kevynode.store.apply import Applier
from kevynode.store.journal import Effect, Origin
from kevynode.store.store import Store

ADDRESS = "primary:16004"
A, B = b"a:", b"b:"


class Sink:
    """The rest of the node: the cursors that its files hold, and what the journal has committed with which."""

    def __init__(self, store: Store) -> None:
        self.cursors: dict[str, tuple[int, int]] = {}
        self.next: tuple[str, int, int] | None = None
        # Commands of each group, who made it, and where that is in its stream.
        self.groups: list[tuple[list[str], Origin | None, int | None]] = []
        self.applied = 0
        store.journal.observers.append(self.observe)
        self._store = store

    def observe(self, first: int, group: list[Effect]) -> None:
        """A group is committed."""
        told, self.next = self.next, None
        if told is not None:
            self.cursors[told[0]] = told[1:]
        commands = [b" ".join(command).decode() for command, _, _ in group]
        self.groups.append((commands, self._store.journal.origin, None if told is None else told[2]))

    def note_cursor(self, upstream: str, history: int, offset: int) -> None:
        """With the next group."""
        assert self._store.journal.pending
        self.next = upstream, history, offset

    def cursor_moved(self, upstream: str, history: int, offset: int) -> None:
        """Without one."""
        self.cursors[upstream] = (history, offset)
        if not history:
            del self.cursors[upstream]

    def scopes_applied(self) -> None:
        """Something is in."""
        assert not self._store.journal.pending
        assert not self._store.touched
        self.applied += 1

    def link_changed(self) -> None:
        """Nobody looks."""


class Copy:
    """A store with a follower of whoever listens at ``primary``."""

    def __init__(self, found: Mapping[str, tuple[int, int]], prefixes: Sequence[bytes], **options: Any) -> None:
        self.transport = MemoryTransport()
        self.clock = TrioClock()
        self.log = Log()
        self.store = Store(random.Random(1))
        self.sink = Sink(self.store)
        self.sink.cursors.update(found)
        self.running = trio.CancelScope()
        make = options.pop("make", MeshFollower)
        self.follower: MeshFollower = make(
            "writer",
            "primary",
            16004,
            prefixes,
            store=self.store,
            applier=Applier(self.store),
            transport=self.transport,
            clock=self.clock,
            random=random.Random(1),
            log=self.log,
            sink=self.sink,
            replica_id="kevynode-mesh-6004#test",
            found=found,
            client_port=6004,
            **options,
        )

    async def run(self) -> None:
        """Follow until ``running`` is cancelled."""
        with self.running:
            await self.follower.run()

    @property
    def data(self) -> dict[str, str]:
        """The strings held."""
        return {key.decode(): value.decode() for key, (value, _) in content(self.store).items()}

    @property
    def problem(self) -> str:
        """Why the link is down."""
        return self.follower.facts(self.clock.monotonic()).problem

    def put(self, **data: str) -> None:
        """Own data that no stream has brought."""
        for key, value in data.items():
            self.store.put(key.replace("_", ":").encode(), value.encode())


@asynccontextmanager
async def copying(
    found: Mapping[str, tuple[int, int]] | None = None, prefixes: Sequence[bytes] = (A, B), **options: Any
) -> AsyncIterator[tuple[Copy, FakePrimary]]:
    copy = Copy(found or {}, prefixes, **options)
    async with FakePrimary(copy.transport) as primary, trio.open_nursery() as nursery:
        nursery.start_soon(copy.run)
        yield copy, primary
        copy.running.cancel()


async def accepted(
    primary: FakePrimary, expected: tuple[int, int], *, history: int = HISTORY, lineage: Sequence[tuple[int, int]] = ()
) -> FakeConnection:
    """The next connection, of a follower that asks in the extended form, with its handshake answered."""
    connection, request = await primary.greet(expected)
    assert request.capabilities == MESH_CAPABILITIES
    await connection.send(answer(history, request.offset, request.capabilities, lineage))
    return connection


async def said(connection: FakeConnection, count: int) -> list[bytes]:
    """So many lines of what the follower says."""
    return [await connection.line() for _ in range(count)]


async def shipped(primary: FakePrimary, data: dict[str, str] | None = None, offset: int = 5) -> FakeConnection:
    """A follower that holds both prefixes as of an offset."""
    connection = await accepted(primary, (0, 0))
    assert await said(connection, 11) == b"*5 $8 REPLCONF $6 SCOPES $1 2 $2 a: $2 b:".split()
    await connection.send(ship(offset, {"a:1": "v", "b:1": "v"} if data is None else data))
    return connection


def scope_ship(prefix: bytes, offset: int, data: dict[str, str]) -> bytes:
    chunks = b"".join(wire.chunks(payload(data)))
    return wire.snapshot_scope(1, prefix) + chunks + wire.snapshot_end(offset)


def whole(history: int, stream: int, *ships: int) -> dict[str, tuple[int, int]]:
    """The cursors of a stream with prefixes that were shipped at these offsets."""
    marks = {scope_cursor_name(ADDRESS, prefix): (history, at) for prefix, at in zip((A, B), ships, strict=False)}
    return {ADDRESS: (history, stream), **marks}
