"""Streams that are renumbered here: what the files are told of where they stand, and where a restart goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from support.fake_primary import FakeConnection, FakePrimary, answer, frames, group, ship
from support.follower_harness import HISTORY, Copy, accept, copying, synchronised
from trio.testing import MockClock

from kevynode.replicate import wire
from kevynode.replicate.handshake import Form, Request

ADDRESSES = ["primary:16004", "primary:16005"]
FOUND = {ADDRESSES[0]: (HISTORY, 5), ADDRESSES[1]: (HISTORY + 1, 8)}


@asynccontextmanager
async def two(found: dict[str, tuple[int, int]]) -> AsyncIterator[tuple[Copy, list[FakePrimary]]]:
    """A follower of two streams, and what it found at its start."""
    copy = Copy(2)
    copy.sink.found = found
    # The files listen to the journal.
    copy.store.journal.observers.append(lambda *_: None)
    async with (
        FakePrimary(copy.transport) as first,
        FakePrimary(copy.transport, 16005) as second,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(copy.run)
        yield copy, [first, second]
        copy.running.cancel()


async def greeted(primary: FakePrimary, expected: tuple[int, int]) -> tuple[FakeConnection, Request]:
    connection, request = await primary.greet(expected)
    assert request.form is Form.EXTENDED
    return connection, request


async def test_every_group_is_noted_before_it_is_committed(autojump_clock: MockClock) -> None:
    async with two({}) as (copy, primaries):
        streams = []
        for shard, primary in enumerate(primaries):
            connection, request = await greeted(primary, (0, 0))
            await connection.send(accept(request, history=HISTORY + shard) + ship(5 + shard, {f"s{shard}": "1"}))
            streams.append(connection)
        assert copy.sink.cursors == {ADDRESSES[0]: (HISTORY, 5), ADDRESSES[1]: (HISTORY + 1, 6)}
        # The change of all keys is no entry of anybody's.
        assert copy.sink.noted == []
        noted: list[tuple[int, tuple[str, int, int]]] = []
        copy.store.journal.observers.append(lambda first, _: noted.append((first, copy.sink.noted[-1])))
        await streams[0].send(frames(5, "SET a 1", "SET b 1"))
        await streams[1].send(group(6, "SET c 1", "SET d 1") + frames(8, "SET e 1"))
        assert noted == [
            (0, (ADDRESSES[0], HISTORY, 6)),
            (1, (ADDRESSES[0], HISTORY, 7)),
            (2, (ADDRESSES[1], HISTORY + 1, 8)),
            (4, (ADDRESSES[1], HISTORY + 1, 9)),
        ]


async def test_an_adopted_stream_needs_no_notes(autojump_clock: MockClock) -> None:
    async with copying() as (copy, primary):
        connection = await synchronised(primary, {"a": "1"}, 5)
        await connection.send(frames(5, "SET a 2"))
        assert (copy.data, copy.sink.noted, copy.sink.cursors) == ({"a": "2"}, [], {})


async def test_all_streams_go_on_where_the_files_say(autojump_clock: MockClock) -> None:
    async with two(FOUND) as (copy, primaries):
        for primary, place in zip(primaries, FOUND.values(), strict=True):
            connection, request = await greeted(primary, place)
            await connection.send(accept(request, history=place[0]) + frames(place[1], f"SET k{place[1]} v"))
        assert copy.data == {"k5": "v", "k8": "v"}
        assert copy.sink.told == ["0-1", "1-2"]
        assert copy.sink.noted == [(ADDRESSES[0], HISTORY, 6), (ADDRESSES[1], HISTORY + 1, 9)]


async def test_an_upstream_that_was_started_anew_is_followed_across_its_branch(autojump_clock: MockClock) -> None:
    async with two(FOUND) as (copy, primaries):
        connection, request = await greeted(primaries[0], FOUND[ADDRESSES[0]])
        await connection.send(accept(request, ((HISTORY, 5),), history=99) + frames(5, "SET a 1"))
        assert copy.sink.noted == [(ADDRESSES[0], 99, 6)]


async def test_one_stream_that_cannot_go_on_makes_all_start_over(autojump_clock: MockClock) -> None:
    async with two(FOUND) as (copy, primaries):
        first, request = await greeted(primaries[0], FOUND[ADDRESSES[0]])
        await first.send(accept(request) + frames(5, "SET a 1"))
        second, request = await greeted(primaries[1], FOUND[ADDRESSES[1]])
        await second.send(accept(request, history=50) + ship(3, {"b": "1"}))
        assert await first.ended()
        assert copy.data == {"a": "1"}
        again, request = await greeted(primaries[0], (0, 0))
        await again.send(accept(request) + ship(6, {"a": "1"}))
        assert copy.data == {"a": "1", "b": "1"}
        assert copy.sink.cursors == {ADDRESSES[0]: (HISTORY, 6), ADDRESSES[1]: (50, 3)}


@pytest.mark.parametrize("found", [{}, {ADDRESSES[0]: (HISTORY, 5)}])
async def test_without_a_place_for_each_stream_all_start_over(
    autojump_clock: MockClock, found: dict[str, tuple[int, int]]
) -> None:
    async with two(found) as (_, primaries):
        for primary in primaries:
            await greeted(primary, (0, 0))


async def test_a_stream_that_names_no_history_leaves_no_place_to_go_on_from(autojump_clock: MockClock) -> None:
    async with two({}) as (copy, primaries):
        for shard, primary in enumerate(primaries):
            for _ in range(6):
                await (await primary.greet())[0].close()
            connection, request = await primary.greet((0, 0))
            assert request.form is Form.FIVE
            await connection.send(answer(None, 0) + ship(4, {f"s{shard}": "1"}) + frames(4, f"SET a{shard} 1"))
        assert copy.sink.cursors == {ADDRESSES[0]: (0, 4), ADDRESSES[1]: (0, 4)}
        assert sorted(copy.sink.noted) == [(ADDRESSES[0], 0, 5), (ADDRESSES[1], 0, 5)]


async def test_an_entry_that_changes_nothing_is_noted_with_the_next_one(autojump_clock: MockClock) -> None:
    async with two(FOUND) as (copy, primaries):
        for _ in range(3):
            await (await primaries[0].greet())[0].close()
        connection, request = await primaries[0].greet(FOUND[ADDRESSES[0]])
        assert request.form is Form.SIX
        await connection.send(answer(HISTORY, 5) + frames(5, "DEL nothing", "SET a 1") + wire.ping(HISTORY, 7))
        assert copy.sink.noted == [(ADDRESSES[0], HISTORY, 7)]


async def test_what_has_diverged_is_told_before_it_is_in_the_journal(autojump_clock: MockClock) -> None:
    async with copying() as (copy, primary):
        connection = await synchronised(primary, {"a": "text"}, 5)
        heard: list[int] = []
        copy.store.journal.observers.append(lambda *_: heard.append(copy.sink.divergences))
        await connection.send(group(5, "SET b 1", "RPUSH a x"))
        assert heard == [1]
        assert copy.follower.diverged


async def test_a_listener_that_fails_at_a_swap_does_not_part_data_and_position(autojump_clock: MockClock) -> None:
    def fail(*_: object) -> None:
        raise OSError("no room")

    async with copying() as (copy, primary):
        copy.store.journal.observers.append(fail)
        connection = await synchronised(primary, {"a": "1"}, 40)
        assert (copy.data, copy.sink.cursor()) == ({"a": "1"}, (HISTORY, 40))
        assert copy.sink.told == [f"full {HISTORY} 40", "swapped"]
        assert copy.log.of("error") == ["observer_failed"]
        await connection.send(frames(40, "SET a 2"))
        assert copy.data == {"a": "2"}
