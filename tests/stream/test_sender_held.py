"""Replicas of a node whose files shut and open: what they see, and that nobody spins, waits for ever or is cut off."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from support.fake_replica import PATIENCE, FakeReplica
from support.replication_harness import FilesProbe, House
from trio.testing import MockClock

from kevynode.replicate import wire


@asynccontextmanager
async def house_with_files(**settings: Any) -> AsyncIterator[tuple[House, FilesProbe]]:
    async with trio.open_nursery() as nursery:
        house = House(nursery, **settings)
        house.replication.files = files = FilesProbe()
        yield house, files
        nursery.cancel_scope.cancel()


async def join(house: House, offset: int | None = None, **asked: Any) -> FakeReplica:
    """A replica that has said its handshake."""
    replica = FakeReplica(house.arrive(), house.request(offset, **asked))
    await replica.hello()
    await trio.testing.wait_all_tasks_blocked()
    return replica


def let(house: House, files: FilesProbe) -> None:
    """All that has been committed may be told from now on."""
    files.open = True
    house.replication.may_ship_again()


async def read_for(replica: FakeReplica, seconds: float) -> None:
    """Read whatever comes in that time."""
    with trio.move_on_after(seconds):
        while await replica.read():
            pass


async def test_nothing_is_told_while_the_files_are_behind_and_all_of_it_then(autojump_clock: MockClock) -> None:
    async with house_with_files() as (house, files):
        replica = await join(house)
        await replica.reach(0)
        files.open = False
        house.fill(3, 10)
        # Longer than either side takes silence for death.
        await read_for(replica, 30)
        assert not replica.ended
        assert replica.position == 0
        assert {step for step in replica.steps[3:] if step.startswith("PING")} == {"PING 0"}
        assert house.slot.acked == 0
        let(house, files)
        await replica.reach(3)
        await trio.testing.wait_all_tasks_blocked()
        assert house.slot.acked == 3


@pytest.mark.parametrize("offset", [None, 1])
async def test_a_handshake_is_answered_when_the_files_have_caught_up(
    autojump_clock: MockClock, offset: int | None
) -> None:
    async with house_with_files() as (house, files):
        kept = await join(house, name="keeps the backlog")
        await kept.reach(0)
        house.fill(2, 10)
        files.open = False
        replica = await join(house, offset)
        await read_for(replica, 30)
        # It gives up when it likes to; this node does not take it for dead, which has nothing to answer to.
        assert (bytes(replica.data), replica.ended) == (b"", False)
        let(house, files)
        await replica.reach(2)
        assert ("SnapshotBegin" in replica.steps) is (offset is None)


async def test_a_sender_that_is_held_sleeps(autojump_clock: MockClock) -> None:
    async with house_with_files() as (house, files):
        replicas = [await join(house, name=name) for name in "abc"]
        for replica in replicas:
            await replica.reach(0)
        house.beating.cancel()
        files.open = False
        house.fill(1, 10)
        await trio.testing.wait_all_tasks_blocked()
        asked = files.asked
        await trio.sleep(1)
        assert files.asked == asked
        let(house, files)
        for replica in replicas:
            await replica.reach(1)


async def test_a_snapshot_that_has_begun_is_completed(autojump_clock: MockClock) -> None:
    async with house_with_files() as (house, files):
        house.fill(2000)
        replica = await join(house)
        await replica.until(lambda: replica.payload)
        files.open = False
        house.fill(1, key="later")
        await replica.until(lambda: "END 2000" in replica.steps)
        await read_for(replica, 3)
        assert replica.position == 2000
        let(house, files)
        await replica.reach(2001)


async def test_a_drain_waits_for_what_may_not_be_told_yet(autojump_clock: MockClock) -> None:
    async with house_with_files() as (house, files):
        replica = await join(house)
        await replica.reach(0)
        files.open = False
        house.fill(2, 10)
        with trio.move_on_after(3) as deadline:
            await house.entrance.drain()
        assert deadline.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.entrance.drain)
            let(house, files)
            await replica.until(lambda: replica.position == 2)
            await replica.until_end()
            await replica.leave()
        assert house.reasons("replica_disconnected") == ["shutting down"]


async def test_a_drain_ends_whom_it_owes_nothing(autojump_clock: MockClock) -> None:
    async with house_with_files() as (house, files):
        replica = await join(house)
        await replica.reach(0)
        files.open = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.entrance.drain)
            await replica.until_end()
            await replica.leave()


async def test_a_history_that_is_not_durable_is_named_to_nobody(autojump_clock: MockClock) -> None:
    async with house_with_files() as (house, files):
        replication = house.replication
        replica = await join(house)
        await replica.reach(0)
        old = replication.history
        replication.follow("10.0.0.2", 16004)
        files.open = False
        replication.promote()
        await replica.until_end()
        back = await join(house, 0, history=old)
        await read_for(back, 5)
        assert bytes(back.data) == b""
        let(house, files)
        await back.reach(0)
        assert back.data.startswith(b"+ACK %d 0\r\n" % replication.history)
        assert replication.partial_syncs == 1


@pytest.mark.parametrize("seed", range(8))
async def test_files_that_shut_and_open_change_nothing_about_the_stream(autojump_clock: MockClock, seed: int) -> None:
    draw = random.Random(seed)
    async with house_with_files() as (house, files):
        told = bytearray()
        safe = 0

        async def follow(replica: FakeReplica) -> None:
            while await replica.read():
                assert replica.position <= safe

        replicas = [await join(house, name=str(number)) for number in range(3)]
        for replica in replicas:
            await replica.reach(0)
            del replica.data[:]
        house.harness.store.journal.observers.append(
            lambda first, group: told.extend(wire.encode_frames(first, [effect[0] for effect in group]))
        )
        async with trio.open_nursery() as nursery:
            for replica in replicas:
                nursery.start_soon(follow, replica)
            for _ in range(60):
                house.fill(draw.randrange(4), draw.choice([1, 100, 70_000]), key=str(draw.random()))
                if draw.random() < 0.3:
                    files.open = False
                elif draw.random() < 0.6:
                    safe = house.replication.position
                    let(house, files)
                if files.open:
                    safe = house.replication.position
                await trio.sleep(draw.choice([0.0, 0.01, 1.5]))
            safe = house.replication.position
            let(house, files)
            with trio.fail_after(PATIENCE):
                while any(replica.position < safe for replica in replicas):  # noqa: ASYNC110  nobody tells
                    await trio.sleep(0.1)
            nursery.cancel_scope.cancel()
        for replica in replicas:
            data = bytes(replica.data)
            for offset in range(safe + 1):
                data = data.replace(b"+PING %d %d\r\n" % (house.replication.history, offset), b"")
            assert data == bytes(told), f"seed {seed}"
