"""A follower of scopes against a scripted writer: what is believed of it, where it goes on, and kevy servers."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from support.fake_primary import FakeConnection, FakePrimary, answer, frames, group, payload, ship
from support.follower_harness import HISTORY
from support.mesh_copy import ADDRESS, A, B, Copy, accepted, copying, said, scope_ship, shipped, whole
from support.store_harness import content
from trio.testing import MockClock

from kevynode.replicate import wire
from kevynode.replicate.handshake import Form
from kevynode.replicate.mesh_service import ScopeRestorer
from kevynode.replicate.scope_cursors import descent_cursor_name
from kevynode.store.journal import Origin

# -- the stream -------------------------------------------------------------------------------------------------------


async def test_a_ship_replaces_the_prefixes_and_nothing_else(autojump_clock: MockClock) -> None:
    async with copying() as (copy, primary):
        copy.put(a_old="x", a_1="x", own="x")
        await shipped(primary)
        assert copy.data == {"a:1": "v", "b:1": "v", "own": "x"}
        ((commands, origin, at),) = copy.sink.groups
        assert sorted(commands) == ["DEL a:old", "SET a:1 v", "SET b:1 v"]
        # They are no entries of the stream, and do not count as such.
        assert (origin, at) == (Origin(f"{ADDRESS}/", HISTORY), None)
        assert copy.sink.cursors == whole(HISTORY, 5, 5, 5)


async def test_entries_are_journaled_with_their_origin_and_place(autojump_clock: MockClock) -> None:
    async with copying() as (copy, primary):
        connection = await shipped(primary, {})
        await connection.send(frames(5, "SET a:1 x", "SET b:1 x") + group(7, "SET a:2 x", "RPUSH b:l 1"))
        origin = Origin(ADDRESS, HISTORY)
        assert copy.sink.groups == [
            (["SET a:1 x"], origin, 6),
            (["SET b:1 x"], origin, 7),
            (["SET a:2 x", "RPUSH b:l 1"], origin, 9),
        ]
        assert copy.sink.cursors == whole(HISTORY, 9, 5, 5)
        assert copy.store.journal.offset == 4


async def test_skips_move_what_is_acknowledged(autojump_clock: MockClock) -> None:
    async with copying() as (copy, primary):
        connection = await shipped(primary, {})
        assert await connection.position() == 5
        await connection.send(wire.skip(9) + wire.ACK_REQUEST)
        assert await connection.position() == 9
        await connection.send(frames(9, "SET a:1 x") + wire.skip(20) + wire.ping(HISTORY, 20))
        while (position := await connection.position()) < 20:
            assert position >= 9
        assert copy.follower.has_applied(HISTORY, 20) is True
        assert copy.follower.has_applied(HISTORY, 21) is False
        assert copy.follower.has_applied(HISTORY + 1, 1) is None
        assert copy.follower.facts(copy.clock.monotonic()).staleness_ms == 0


async def test_a_flush_clears_what_the_link_carries(autojump_clock: MockClock) -> None:
    async with copying() as (copy, primary):
        connection = await shipped(primary)
        copy.put(own="x")
        await connection.send(group(5, "SET a:2 x", "FLUSHALL", "SET b:2 x"))
        assert copy.data == {"own": "x", "b:2": "x"}
        commands, _, at = copy.sink.groups[-1]
        assert (sorted(commands[1:4]), at) == (["DEL a:1", "DEL a:2", "DEL b:1"], 8)
        await connection.send(frames(8, "FLUSHALL", "FLUSHALL"))
        assert copy.data == {"own": "x"}
        assert copy.follower.stream == (HISTORY, 10)


# -- where it goes on -------------------------------------------------------------------------------------------------


async def test_it_goes_on_where_it_was_and_asks_for_what_it_lacks(autojump_clock: MockClock) -> None:
    async with copying(whole(HISTORY, 9, 5)) as (copy, primary):
        copy.put(a_1="v", b_1="stale")
        connection = await accepted(primary, (HISTORY, 9))
        assert (await said(connection, 12))[-1] == b"REPLCONF RESYNC 623a"
        # What comes of it before its ship is in the ship.
        await connection.send(frames(9, "SET a:1 x", "RPUSH b:l 1", "SET a:2 x"))
        assert copy.data == {"a:1": "x", "a:2": "x", "b:1": "stale"}
        assert copy.follower.missing == (B,)
        assert copy.follower.has_applied(HISTORY, 9) is False
        await connection.send(scope_ship(B, 12, {"b:2": "v"}) + frames(12, "SET b:3 x"))
        assert copy.data == {"a:1": "x", "a:2": "x", "b:2": "v", "b:3": "x"}
        assert copy.sink.cursors == whole(HISTORY, 13, 5, 12)
        lines = await said(connection, 3)
        assert b"REPLCONF RESYNCED 623a" in lines
        # Nothing is acknowledged behind the ship before it is said that it is in place.
        assert lines.index(b"REPLCONF RESYNCED 623a") < lines.index(b"REPLCONF ACK 13")


async def test_what_a_ship_holds_already_is_not_applied_again(autojump_clock: MockClock) -> None:
    # The files end behind the ship of b, and before the stream's place was told again.
    async with copying(whole(HISTORY, 9, 5, 12)) as (copy, primary):
        connection = await accepted(primary, (HISTORY, 9))
        await connection.send(frames(9, "RPUSH a:l 1", "RPUSH b:l 1") + group(11, "RPUSH a:l 2", "RPUSH b:l 2"))
        # A group that is not in the ship as a whole is not in it.
        assert {key: len(value[1]) for key, (value, _) in content(copy.store).items()} == {b"a:l": 2, b"b:l": 1}


async def test_a_writer_that_has_lost_what_was_shipped_ships_it_again(autojump_clock: MockClock) -> None:
    async with copying(whole(HISTORY, 9, 5, 12)) as (copy, primary):
        connection = await accepted(primary, (HISTORY, 9), history=99, lineage=((HISTORY, 10),))
        await connection.send(wire.ping(99, 9))
        assert await connection.ended()
        await primary.greet((0, 0))
        assert copy.follower.missing == (A, B)


async def test_it_follows_across_a_branch_and_the_files_hear_of_it(autojump_clock: MockClock) -> None:
    async with copying(whole(HISTORY, 9, 5, 6)) as (copy, primary):
        connection = await accepted(primary, (HISTORY, 9), history=99, lineage=((HISTORY, 9),))
        await connection.send(wire.ping(99, 9) + frames(9, "SET a:1 x"))
        descent = {descent_cursor_name(ADDRESS, 99): (HISTORY, 9)}
        assert copy.sink.cursors == whole(99, 10, 5, 6) | descent
        assert copy.follower.has_applied(HISTORY, 9) is True
        assert copy.follower.has_applied(HISTORY, 10) is None
        found = dict(copy.sink.cursors)
    # The writer may be away for ever.
    again = Copy(found, (A, B)).follower
    assert (again.place_of(A), again.ancestors) == ((99, 10), ((HISTORY, 9),))
    assert [again.has_applied(HISTORY, offset) for offset in (9, 10)] == [True, None]


async def test_a_ship_tells_what_its_history_descends_from(autojump_clock: MockClock) -> None:
    async with copying() as (copy, primary):
        connection = await accepted(primary, (0, 0), lineage=((41, 4), (42, 3)))
        await said(connection, 11)
        await connection.send(ship(5, {"a:1": "v"}))
        known = [follower.ancestors for follower in (copy.follower, Copy(copy.sink.cursors, (A, B)).follower)]
        assert known == [((41, 4), (42, 3))] * 2
        # It is shipped anew by a writer that began with nothing.
        await connection.close()
        connection = await accepted(primary, (HISTORY, 5), history=99)
        await connection.send(ship(2, {"a:1": "w"}))
        assert copy.follower.ancestors == Copy(copy.sink.cursors, (A, B)).follower.ancestors == ()
        assert copy.sink.cursors == whole(99, 2, 2, 2)


async def test_a_ship_that_breaks_off_leaves_everything_as_it_was(autojump_clock: MockClock) -> None:
    async with copying() as (copy, primary):
        connection = await shipped(primary)
        before = dict(copy.sink.cursors)
        chunks = b"".join(wire.chunks(payload({"a:9": "x"})))
        await connection.send(wire.SNAPSHOT_BEGIN + chunks)
        await connection.close()
        assert copy.data == {"a:1": "v", "b:1": "v"}
        assert copy.sink.cursors == before
        await accepted(primary, (HISTORY, 5))


async def test_a_link_that_is_ended_for_another_is_no_trouble(autojump_clock: MockClock) -> None:
    async with copying() as (copy, primary):
        await shipped(primary)
        copy.follower.follow_prefixes([A])
        connection = await accepted(primary, (HISTORY, 5))
        await connection.send(wire.ping(HISTORY, 5))
        assert [line for line in copy.log.lines if line[1] == "upstream_lost"] == [
            ("info", "upstream_lost", {"upstream": ADDRESS, "reason": "other scopes are followed", "lived": 1.0})
        ]
        assert copy.log.of("warning") == []
        await connection.close()
        await accepted(primary, (HISTORY, 5))
        assert copy.log.of("warning") == ["upstream_lost"]
        copy.follower.retire("none of its scopes is followed any more")
        await accepted(primary, (0, 0))
    assert copy.log.of("warning") == ["upstream_lost"]


async def test_other_prefixes_take_effect_at_once(autojump_clock: MockClock) -> None:
    async with copying() as (copy, primary):
        connection = await shipped(primary)
        copy.follower.follow_prefixes([A])
        assert copy.sink.cursors == whole(HISTORY, 5, 5)
        assert await connection.ended()
        connection = await accepted(primary, (HISTORY, 5))
        assert await said(connection, 9) == b"*4 $8 REPLCONF $6 SCOPES $1 1 $2 a:".split()
        copy.follower.retire("enough")
        assert await connection.ended()
        assert copy.follower.cursors.claim() == (0, 0)


# -- what is not believed ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "entries",
    [
        frames(6, "SET c:1 x", "SET a:4 x"),
        frames(6, "DEL a:1 c:1", "SET a:4 x"),
        frames(6, "XGROUP CREATE c:1 g 0 MKSTREAM", "SET a:4 x"),
        group(6, "SET a:3 x", "SET c:1 x") + frames(8, "SET a:4 x"),
        frames(6, "PING", "SET a:4 x"),
    ],
)
async def test_an_entry_of_another_scope_ends_the_link_loudly(autojump_clock: MockClock, entries: bytes) -> None:
    async with copying() as (copy, primary):
        connection = await shipped(primary)
        copy.put(c_1="own")
        await connection.send(frames(5, "SET a:2 x") + entries)
        assert await connection.ended()
        assert copy.data == {"a:1": "v", "a:2": "x", "b:1": "v", "c:1": "own"}
        assert copy.log.of("error") == ["foreign_entry"]
        assert "none of the scopes that it was asked for" in copy.problem
        # Nothing is wrong with what came before.
        await accepted(primary, (HISTORY, 6))


@pytest.mark.parametrize(
    "sent",
    [
        ship(9, {"a:5": "x", "c:1": "x"}),
        scope_ship(A, 5, {"a:5": "x"}),
        scope_ship(b"c:", 5, {"c:1": "x"}),
        scope_ship(b"", 5, {"c:1": "x"}),
    ],
)
async def test_a_ship_of_what_was_not_asked_for_is_thrown_away(autojump_clock: MockClock, sent: bytes) -> None:
    async with copying() as (copy, primary):
        connection = await shipped(primary)
        copy.put(c_1="own")
        await connection.send(sent)
        assert await connection.ended()
        assert copy.data == {"a:1": "v", "b:1": "v", "c:1": "own"}
        assert "bad snapshot" in copy.problem
        await accepted(primary, (HISTORY, 5))


@pytest.mark.parametrize("entries", [frames(5, "LPOP a:none"), group(5, "SET a:2 x", "LPOP a:none")])
async def test_an_entry_that_cannot_be_applied_costs_the_copies_of_that_writer(
    autojump_clock: MockClock, entries: bytes
) -> None:
    async with copying() as (copy, primary):
        connection = await shipped(primary)
        await connection.send(entries)
        assert await connection.ended()
        assert copy.log.of("error") == ["diverged"]
        assert copy.sink.cursors == {ADDRESS: (HISTORY, 5)}
        await shipped(primary, {"a:1": "v"}, 7)
        assert copy.data == {"a:1": "v"}
        assert copy.sink.cursors == whole(HISTORY, 7, 7, 7)


# -- kevy servers -----------------------------------------------------------------------------------------------------


async def kevy(primary: FakePrimary, expected: tuple[int, int], offset: int, data: dict[str, str]) -> FakeConnection:
    connection, request = await primary.greet(expected)
    assert (request.form, request.replica_id) == (Form.SIX, "kevy-replica-6004#0")
    await connection.send(answer(HISTORY, request.offset) + ship(offset, data))
    return connection


async def test_of_a_kevy_server_everything_else_is_passed_over(autojump_clock: MockClock) -> None:
    async with copying(kind="kevy") as (copy, primary):
        copy.put(c_1="own")
        connection = await kevy(primary, (0, 0), 5, {"a:1": "v", "c:1": "theirs", "d": "x"})
        assert copy.data == {"a:1": "v", "c:1": "own"}
        sent = ["SET a:2 x", "SET c:1 x", "MSET b:1 x c:2 x a:3 x", "DEL c:1 a:1", "INCR c:9", "PING"]
        await connection.send(frames(5, *sent))
        assert copy.data == {"a:2": "x", "b:1": "x", "a:3": "x", "c:1": "own"}
        assert [commands for commands, _, _ in copy.sink.groups[1:]] == [
            ["SET a:2 x"],
            ["SET b:1 x", "SET a:3 x"],
            ["DEL a:1"],
        ]
        assert copy.follower.stream == (HISTORY, 11)
        await connection.close()
        again, _ = await primary.greet((HISTORY, 11))
        await again.send(answer(HISTORY, 11) + frames(11, "SET a:9 x"))
        assert copy.data["a:9"] == "x"
        # Commands that fail there fail here, too.
        await again.send(frames(12, "LPUSH a:9 x", "SET a:10 x"))
        assert (copy.data["a:10"], copy.follower.ignored) == ("x", 1)


async def test_a_kevy_server_that_flushes_sends_everything_anew(autojump_clock: MockClock) -> None:
    async with copying(kind="kevy") as (copy, primary):
        connection = await kevy(primary, (0, 0), 5, {"a:1": "v", "d": "x"})
        copy.put(own="x")
        await connection.send(ship(0, {"b:1": "v", "d": "x"}))
        assert copy.data == {"b:1": "v", "own": "x"}
        # Its history is told behind it; until then nobody could go on.
        assert copy.sink.cursors == {ADDRESS: (HISTORY, 5)}
        await connection.send(frames(0, "SET a:2 x") + wire.ping(99, 1))
        assert copy.sink.cursors == whole(99, 1, 0, 0)
        await connection.close()
        await primary.greet((99, 1))


async def test_what_moves_between_scopes_in_a_kevy_server_is_copied_anew(autojump_clock: MockClock) -> None:
    async with copying(kind="kevy") as (copy, primary):
        connection = await kevy(primary, (0, 0), 5, {"a:1": "v", "d": "x"})
        await connection.send(frames(5, "SET a:2 x", "RENAME d a:3", "SET a:4 x"))
        assert await connection.ended()
        assert copy.log.of("error") == ["diverged"]
        assert copy.data == {"a:1": "v", "a:2": "x"}
        await kevy(primary, (0, 0), 8, {"a:1": "v", "a:2": "x", "a:3": "x", "a:4": "x"})
        assert copy.data == {"a:1": "v", "a:2": "x", "a:3": "x", "a:4": "x"}


async def test_a_peer_that_closes_without_a_word_is_asked_in_weaker_forms(autojump_clock: MockClock) -> None:
    async with copying() as (copy, primary):
        forms = []
        for _ in range(6):
            connection, request = await primary.greet((0, 0))
            forms.append(request.form)
            await connection.close()
        assert forms == [Form.EXTENDED] * 3 + [Form.SIX] * 3
        connection, request = await primary.greet((0, 0))
        assert request.form is Form.FIVE
        await connection.send(answer(None, 0) + ship(5, {"a:1": "v", "d": "x"}) + frames(5, "SET b:1 x", "SET d y"))
        assert copy.data == {"a:1": "v", "b:1": "x"}
        assert copy.follower.missing == ()
        # It names no history, so nobody goes on from here.
        await connection.close()
        await primary.greet((0, 0))


# -- getting a scope back ---------------------------------------------------------------------------------------------


async def test_a_writer_gets_its_scope_back_as_entries_of_its_own(autojump_clock: MockClock) -> None:
    copy = Copy({}, (A,), make=ScopeRestorer)
    copy.put(a_old="x", own="x")
    restorer = copy.follower
    assert isinstance(restorer, ScopeRestorer)
    async with FakePrimary(copy.transport) as primary, trio.open_nursery() as nursery:
        nursery.start_soon(restorer.restore)
        connection, _ = await primary.greet((0, 0))
        await connection.close()
        connection = await accepted(primary, (0, 0))
        await connection.send(ship(5, {"a:1": "v", "a:2": "v"}) + frames(5, "SET a:3 x"))
        assert await connection.ended()
    assert copy.data == {"a:1": "v", "a:2": "v", "own": "x"}
    ((commands, origin, at),) = copy.sink.groups
    assert (sorted(commands), origin, at) == (["DEL a:old", "SET a:1 v", "SET a:2 v"], None, None)
    assert (restorer.restored, copy.sink.cursors) == (3, {})


async def test_no_cursor_speaks_of_data_that_are_being_exchanged(autojump_clock: MockClock) -> None:
    async with copying(whole(HISTORY, 9, 5, 5)) as (copy, primary):
        seen: list[dict[str, tuple[int, int]]] = []
        copy.store.journal.observers.append(lambda *_: seen.append(dict(copy.sink.cursors)))
        connection = await accepted(primary, (HISTORY, 9), history=99)
        await connection.send(ship(3, {"a:1": "v"}))
        # However the files end: the data are those of the cursors that they hold, or have none.
        assert seen == [{ADDRESS: (HISTORY, 9)}]
        assert copy.sink.cursors == whole(99, 3, 3, 3)
