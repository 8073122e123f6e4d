"""Putting a slice in place at the target of a move: a little at a time, but for the step itself."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import trio
from support.memory_disk import MemoryDisk

from kevynode.scope.move_jobs import MoveJobs
from kevynode.scope.stage import StageReplay, encode_command
from kevynode.store.staging import PrefixStaging
from kevynode.store.store import Store

KEYS = 5_000
PREFIX = b"a:"


class Memory:
    """A node that keeps no files."""

    async def add(self, commands: Sequence[Sequence[bytes]]) -> None:
        await trio.lowlevel.checkpoint()

    passing = ()

    async def use(self, commit: Callable[[tuple[Any, ...]], None], is_true: Callable[[], bool]) -> None:
        await trio.lowlevel.checkpoint()
        commit(())


class World:
    """As much of a node as placing needs. ``taken`` are the prefixes that no stream may change any more."""

    def __init__(self) -> None:
        self.store = Store(random.Random(1))
        self.taken: list[bytes] = []

    @asynccontextmanager
    async def placing(self) -> AsyncIterator[Memory]:
        yield Memory()

    def take(self, prefix: bytes) -> None:
        self.taken.append(prefix)

    def set(self, key: bytes, value: bytes) -> None:
        """Write a key, as its writer does."""
        self.store.put(key, value)
        self.store.emit((b"SET", key, value), key)
        self.store.settle()
        self.store.commit()

    def held(self) -> dict[bytes, Any]:
        return {key: value for shard in self.store.keyspace.shards() for key, value in shard.items()}


async def in_thread(work: Any) -> Any:
    await trio.lowlevel.checkpoint()
    return work()


def jobs_of(world: World) -> MoveJobs:
    return MoveJobs(cast(Any, world), MemoryDisk(["data"]), "data", in_thread)


def staged(store: Store, keys: int) -> PrefixStaging:
    """So many keys under the prefix."""
    replay = StageReplay(PREFIX, store)
    data = b"".join(encode_command([b"SET", PREFIX + b"%d" % number, b"new"]) for number in range(keys))
    for _ in replay.feed(data):
        pass
    return replay.finish()


async def test_others_have_their_turn_while_a_slice_is_put_in_place() -> None:
    world = World()
    jobs = jobs_of(world)
    world.set(b"a:old", b"goes")
    world.set(b"a:1", b"old")
    # How many keys others find at each of their turns.
    seen: list[int] = []
    groups: list[int] = []

    async def others() -> None:
        number = 0
        while True:
            number += 1
            world.set(b"other:%d" % number, b"v")
            keyspace = world.store.keyspace
            seen.append(sum(key.startswith(PREFIX) for shard in keyspace.shards() for key in shard))
            await trio.lowlevel.checkpoint()

    def observe(_offset: int, group: list[Any]) -> None:
        groups.append(sum(key.startswith(PREFIX) for _, key, _ in group))

    staging = staged(world.store, KEYS)
    world.store.journal.observers.append(observe)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        exchange = await jobs.exchange(PREFIX, staging)
        turns = len(seen)
        await jobs.tidy(exchange)
        nursery.cancel_scope.cancel()
    assert turns >= KEYS // 500
    assert world.taken == [PREFIX]
    # One step and one group: at no turn is there a part of it.
    assert set(seen) <= {2, KEYS}
    assert [size for size in groups if size] == [KEYS + 1]
    held = world.held()
    assert {key for key in held if key.startswith(PREFIX)} == {PREFIX + b"%d" % number for number in range(KEYS)}
    assert held[b"a:1"] == b"new"
    assert sum(key.startswith(b"other:") for key in held) == len(seen)


async def test_a_slice_that_is_cancelled_on_its_way_leaves_everything_as_it_was() -> None:
    world = World()
    jobs = jobs_of(world)
    world.set(b"a:old", b"stays")
    staging = staged(world.store, KEYS)
    observers = list(world.store.journal.observers)
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:

            async def cancel() -> None:
                for _ in range(5):
                    await trio.lowlevel.checkpoint()
                scope.cancel()

            nursery.start_soon(cancel)
            await jobs.exchange(PREFIX, staging)
    assert scope.cancelled_caught
    assert world.held() == {b"a:old": b"stays"}
    assert world.store.journal.observers == observers
