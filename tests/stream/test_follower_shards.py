"""An upstream of several shards: one link each, one store, numbers of its own, and fresh copies only all together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
import trio.testing
from support.fake_primary import FakeConnection, FakePrimary, answer, frames, ship
from support.follower_harness import Copy, copying

from kevynode.replicate import wire
from kevynode.replicate.handshake import Form

SHARDS = 3


@asynccontextmanager
async def sharded() -> AsyncIterator[tuple[Copy, list[FakePrimary], list[FakeConnection]]]:
    """A follower of three shards, each of which has been asked in the six-argument form by now."""
    async with (
        copying(SHARDS) as (copy, first),
        FakePrimary(copy.transport, 16005) as second,
        FakePrimary(copy.transport, 16006) as third,
    ):
        primaries = [first, second, third]
        for primary in primaries:
            for _ in range(3):
                await (await primary.greet())[0].close()
        yield copy, primaries, [await asked(primary) for primary in primaries]
        copy.running.cancel()


async def asked(primary: FakePrimary, expected: tuple[int, int] = (0, 0)) -> FakeConnection:
    connection, request = await primary.greet(expected)
    assert request.form is Form.SIX
    return connection


def generation(shard: int) -> int:
    return 100 + shard


def part(shard: int, offset: int, data: dict[str, str]) -> bytes:
    """A shard's answer to a fresh replica."""
    return answer(generation(shard), 0) + ship(offset, data)


async def test_the_data_is_swapped_in_when_all_shards_have_sent_theirs(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with sharded() as (copy, _, (first, second, third)):
        await first.send(part(0, 5, {"a": "1"}) + frames(5, "SET a 2"))
        await second.send(part(1, 7, {"b": "1"}))
        assert (copy.data, copy.sink.told) == ({}, [])
        assert [facts.state for facts in copy.follower.facts(0.0)] == ["sync", "sync", "handshake"]
        await third.send(part(2, 0, {}))
        # What a shard sent behind its snapshot is applied once all have swapped.
        assert copy.data == {"a": "2", "b": "1"}
        assert copy.sink.told == ["swapped", "0-1"]
        assert [facts.applied for facts in copy.follower.facts(0.0)] == [6, 7, 0]
        await second.send(frames(7, "SET b 2", "DEL nothing") + wire.ping(generation(1), 9))
        await third.send(frames(0, "SET c 3"))
        assert copy.data == {"a": "2", "b": "2", "c": "3"}
        # An entry that changes nothing takes no number here.
        assert (copy.store.journal.offset, copy.sink.raw) == (3, b"")
        assert copy.follower.position_in(generation(1)) == 9
        assert copy.follower.position_in(55) is None


async def test_a_shard_that_is_lost_goes_on_by_itself(autojump_clock: trio.testing.MockClock) -> None:
    async with sharded() as (copy, primaries, connections):
        for shard, connection in enumerate(connections):
            await connection.send(part(shard, 5, {str(shard): "x"}))
        await connections[1].send(frames(5, "SET y 1"))
        await connections[1].close()
        again = await asked(primaries[1], (generation(1), 6))
        await again.send(answer(generation(1), 6) + frames(6, "SET y 2"))
        await connections[0].send(frames(5, "SET z 1"))
        assert copy.data == {"0": "x", "1": "x", "2": "x", "y": "2", "z": "1"}
        assert copy.sink.told.count("swapped") == 1


async def test_a_shard_that_breaks_off_makes_all_start_over(autojump_clock: trio.testing.MockClock) -> None:
    async with sharded() as (copy, primaries, connections):
        for shard, connection in enumerate(connections):
            await connection.send(part(shard, 5, {"old": "1"}))
        # A new generation on one shard: all start over with it.
        await connections[2].close()
        again = await asked(primaries[2], (generation(2), 5))
        half = answer(999, 5) + ship(3, {"gone": "1"})
        await again.send(half[:-20])
        assert await connections[0].ended()
        assert await connections[1].ended()
        fresh = [await asked(primary) for primary in primaries[:2]]
        await fresh[0].send(part(0, 6, {"a": "1"}))
        await again.close()
        assert copy.data == {"old": "1"}
        assert copy.store.discarded
        # The first one had sent its part already; the second one had not begun.
        assert await fresh[0].ended()
        fresh = [await asked(primaries[0]), fresh[1], await asked(primaries[2])]
        for shard, connection in enumerate(fresh):
            await connection.send(part(shard, 6, {f"new{shard}": "1"}))
        assert copy.data == {"new0": "1", "new1": "1", "new2": "1"}
        assert copy.sink.told == ["swapped", "swapped"]
        for facts in copy.follower.facts(0.0):
            assert facts.last_sync is not None
            assert facts.last_sync.reason.startswith("primary:16006 broke off: primary:16006 closed the connection in")


async def test_a_snapshot_in_the_middle_of_one_stream_makes_all_start_over(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with sharded() as (copy, primaries, connections):
        for shard, connection in enumerate(connections):
            await connection.send(part(shard, 5, {str(shard): "x"}))
        await connections[1].send(ship(0, {}))
        assert copy.data == {"0": "x", "1": "x", "2": "x"}
        fresh = {shard: await asked(primaries[shard]) for shard in (0, 2)}
        for shard, connection in fresh.items():
            await connection.send(part(shard, 6, {f"new{shard}": "1"}))
        assert copy.data == {"new0": "1", "new2": "1"}
        # The one that started it goes on, and tells its new generation.
        await connections[1].send(frames(0, "SET b 1") + wire.ping(555, 1))
        assert copy.data == {"new0": "1", "new2": "1", "b": "1"}
        assert copy.follower.position_in(555) == 1
        assert copy.sink.losses[-2:] == ["primary:16005 starts over"] * 2


async def test_shards_of_an_old_kevy_that_have_nothing_to_say_count_as_empty(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with sharded() as (copy, primaries, connections):
        for primary, connection in zip(primaries, connections, strict=True):
            await connection.close()
            for _ in range(2):
                await (await primary.greet())[0].close()
        five = []
        for primary in primaries:
            connection, request = await primary.greet((0, 0))
            assert request.form is Form.FIVE
            await connection.send(answer(None, 0))
            five.append(connection)
        await five[0].send(frames(0, "SET a 1"))
        await five[2].send(ship(4, {"c": "1"}))
        await trio.sleep(1.1)
        assert copy.data == {"a": "1", "c": "1"}
        await five[1].send(frames(0, "SET b 1"))
        assert copy.data == {"a": "1", "b": "1", "c": "1"}
