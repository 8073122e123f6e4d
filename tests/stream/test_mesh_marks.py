"""A follower of scopes against a writer that releases and acquires prefixes: marks, and what they mean for copies."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from support.fake_primary import frames
from support.follower_harness import HISTORY
from support.mesh_copy import ADDRESS, A, B, accepted, copying, said, scope_ship, shipped, whole
from trio.testing import MockClock

from kevynode.replicate import wire
from kevynode.replicate.scope_cursors import scope_cursor_name
from kevynode.store.marks import MARK_KEY, Acquire, Mark, Release


async def test_without_prefixes_a_link_carries_marks_alone(autojump_clock: MockClock) -> None:
    async with copying(whole(HISTORY, 9, 5, 5), prefixes=()) as (copy, primary):
        # What was found of others is not continued: it would be passed over.
        assert copy.follower.cursors.whole == ()
        connection = await accepted(primary, (HISTORY, 9))
        assert (await said(connection, 9))[-1] == MARK_KEY
        copy.put(own="x")
        await connection.send(frames(9, "FLUSHALL") + wire.skip(12))
        await connection.send(wire.frame(12, Acquire(A, 3, 99, 5).command()) + wire.skip(20))
        assert copy.data == {"own": "x"}
        assert copy.follower.acquired[A].at == (HISTORY, 13)
        copy.follower.adopt(A)
        copy.follower.follow_prefixes([A])
        # The stream is read again from behind the mark on.
        again = await accepted(primary, (HISTORY, 13))
        await again.send(frames(13, "SET a:1 x"))
        assert copy.data == {"own": "x", "a:1": "x"}


async def test_what_comes_of_a_prefix_behind_its_release_is_refused(autojump_clock: MockClock) -> None:
    async with copying() as (copy, primary):
        connection = await shipped(primary)
        passed: list[tuple[bytes, ...]] = []
        copy.follower.on_marks = lambda: passed.append(copy.follower.prefixes)
        entries = frames(5, "SET a:1 x") + wire.frame(6, Release(A, 3, "other").command()) + frames(7, "SET b:1 x")
        await connection.send(entries)
        assert passed == [(B,)]
        assert copy.follower.released[A].at == (HISTORY, 7)
        assert copy.sink.cursors == {ADDRESS: (HISTORY, 8), scope_cursor_name(ADDRESS, B): (HISTORY, 5)}
        await connection.send(frames(8, "DEL a:1"))
        assert await connection.ended()
        assert copy.data == {"a:1": "x", "b:1": "x"}
        assert copy.log.of("error") == ["foreign_entry"]


async def test_a_prefix_that_comes_back_is_continued_from_there(autojump_clock: MockClock) -> None:
    async with copying() as (copy, primary):
        connection = await shipped(primary)

        def follow() -> None:
            if A in copy.follower.acquired:
                copy.follower.adopt(A)
                copy.follower.follow_prefixes([A, B])

        copy.follower.on_marks = follow
        marks: tuple[Mark, ...] = (Release(A, 3, "other"), Acquire(A, 4, 99, 5))
        sent = b"".join(wire.frame(5 + place, mark.command()) for place, mark in enumerate(marks))
        # In one breath: what comes behind the mark on this link is read again on the next one.
        await connection.send(sent + frames(7, "DEL a:1", "SET b:1 x"))
        assert not copy.follower.released
        assert copy.follower.acquired[A].at == (HISTORY, 7)
        again = await accepted(primary, (HISTORY, 7))
        await again.send(frames(7, "DEL a:1", "APPEND b:1 not-again", "SET b:2 y"))
        assert copy.data == {"b:1": "x", "b:2": "y"}


async def test_what_nobody_follows_again_is_not_named_any_more(autojump_clock: MockClock) -> None:
    async with copying() as (_, primary):
        connection = await shipped(primary)
        marks: tuple[Mark, ...] = (Release(A, 3, "other"), Acquire(A, 4, 99, 5))
        await connection.send(b"".join(wire.frame(5 + place, mark.command()) for place, mark in enumerate(marks)))
        # Otherwise what comes of it would be acknowledged, as if it was held.
        assert await connection.ended()
        again = await accepted(primary, (HISTORY, 7))
        assert await said(again, 9) == b"*4 $8 REPLCONF $6 SCOPES $1 1 $2 b:".split()


async def test_a_prefix_that_was_elsewhere_without_a_word_is_copied_again(autojump_clock: MockClock) -> None:
    async with copying() as (copy, primary):
        connection = await shipped(primary)
        acquired = wire.frame(6, Acquire(A, 2, 99, 5).command())
        await connection.send(frames(5, "SET a:1 x") + acquired + frames(7, "SET a:2 x", "SET b:1 x"))
        assert copy.data == {"a:1": "x", "b:1": "x"}
        assert A in copy.follower.missing
        while (line := await connection.line()) != b"REPLCONF RESYNC 613a":
            assert line != b"REPLCONF ACK 9"
        await connection.send(scope_ship(A, 9, {"a:9": "x"}) + frames(9, "SET a:3 x"))
        assert copy.data == {"a:9": "x", "a:3": "x", "b:1": "x"}
        # Once is enough, also if the writer repeats itself; and what the ship holds is known to be in it.
        copy.follower.on_marks = lambda: None
        assert copy.follower.missing == ()


async def test_marks_from_before_a_ship_say_nothing_about_it(autojump_clock: MockClock) -> None:
    async with copying(whole(HISTORY, 5, 20, 5)) as (copy, primary):
        copy.put(a_1="v", b_1="v")
        connection = await accepted(primary, (HISTORY, 5))
        marks: tuple[Mark, ...] = (Release(A, 3, "other"), Acquire(A, 4, 99, 5))
        await connection.send(b"".join(wire.frame(5 + place, mark.command()) for place, mark in enumerate(marks)))
        await connection.send(frames(7, "SET a:1 old", "SET b:1 x") + wire.skip(20) + frames(20, "SET a:1 new"))
        assert copy.data == {"a:1": "new", "b:1": "x"}
        assert copy.follower.missing == ()
        assert (copy.follower.released, copy.follower.acquired) == ({}, {})


async def test_what_is_to_be_copied_again_is_asked_for_at_once(autojump_clock: MockClock) -> None:
    async with copying() as (copy, primary):
        connection = await shipped(primary)
        copy.follower.renew(A)
        assert copy.follower.missing == (A,)
        assert await connection.ended()
        again = await accepted(primary, (HISTORY, 5))
        assert (await said(again, 12))[-1] == b"REPLCONF RESYNC 613a"
        # There is nothing more to forget.
        copy.follower.renew(A)
        await again.send(scope_ship(A, 5, {"a:2": "v"}))
        assert copy.data == {"a:2": "v", "b:1": "v"}


async def test_a_writer_has_ended_the_last_connection_before_the_next_one_comes(autojump_clock: MockClock) -> None:
    async with copying() as (copy, primary):
        connection = await shipped(primary)
        copy.follower.follow_prefixes([A])
        assert await connection.ended()
        # While that stands the next one would look like another node with the same id.
        with trio.move_on_after(0.5) as patience:
            await primary.accept()
        assert patience.cancelled_caught
        began = trio.current_time()
        await connection.close()
        connection = await accepted(primary, (HISTORY, 5))
        assert trio.current_time() == began
        # But who does not end it is not waited for.
        copy.follower.follow_prefixes([A, B])
        await accepted(primary, (HISTORY, 5))


@pytest.mark.parametrize("is_new", [False, True])
async def test_a_stream_is_known_to_be_heard_beyond_a_moment(autojump_clock: MockClock, is_new: bool) -> None:
    async with copying() as (copy, primary):
        heard: list[float] = []
        copy.follower.on_heard = lambda: heard.append(copy.clock.monotonic())
        connection = await shipped(primary, offset=5)
        await trio.sleep(1)
        since = copy.clock.monotonic()
        if is_new:
            copy.follower.follow_prefixes([A])
            await connection.close()
            connection = await accepted(primary, (HISTORY, 5))
        # It may have been sent before, unless the link is newer.
        await connection.send(frames(5, "SET a:1 x") + wire.ping(HISTORY, 7))
        assert copy.follower.has_heard_all(since) is False
        await connection.send(frames(6, "SET a:2 x"))
        assert copy.follower.has_heard_all(since) is is_new
        assert heard[-1] == since
        await trio.sleep(1)
        await connection.send(wire.ping(HISTORY, 7))
        assert copy.follower.has_heard_all(since) is True
        await connection.close()
        assert copy.follower.has_heard_all(since) is False
