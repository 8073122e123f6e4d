"""A follower and its upstream: what arrives ends up in the store once, whole, in order, or not at all."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from support.fake_primary import answer, frames, group, ship, vector
from support.follower_harness import HISTORY, accept, copying, downgrade, synchronised
from support.store_harness import content

from kevynode.replicate import wire
from kevynode.replicate.handshake import Form

settled = trio.testing.wait_all_tasks_blocked


# -- snapshots and entries --------------------------------------------------------------------------------------------


async def test_a_newcomer_gets_everything_and_then_follows(autojump_clock: trio.testing.MockClock) -> None:
    async with copying() as (copy, primary):
        connection, request = await primary.greet((0, 0))
        assert request.replica_id == "kevynode-replica-6004#test"
        await connection.send(accept(request, ((5, 20),)) + ship(40, {"a": "1", "b": "2"}))
        assert (copy.data, copy.store.journal.offset) == ({"a": "1", "b": "2"}, 40)
        stream = frames(40, "SET c 3", "DEL a")
        await connection.send(stream)
        assert (copy.data, copy.store.journal.offset) == ({"b": "2", "c": "3"}, 42)
        assert copy.sink.told == ["full 7 40", "swapped", "40-42"]
        assert (copy.sink.ancestors, copy.sink.raw) == (((5, 20),), stream)
        assert copy.sink.reasons == ["nothing is held that could be continued"]
        assert copy.sink.losses == []


async def test_a_short_cut_goes_on_where_it_was(autojump_clock: trio.testing.MockClock) -> None:
    async with copying() as (copy, primary):
        connection = await synchronised(primary, {"a": "1"}, 40)
        await connection.send(frames(40, "SET b 2"))
        await connection.close()
        connection, request = await primary.greet((HISTORY, 41))
        assert copy.facts.state == "handshake"
        await connection.send(accept(request) + frames(41, "SET c 3"))
        assert copy.data == {"a": "1", "b": "2", "c": "3"}
        assert copy.sink.told[-2:] == ["partial 7 41", "41-42"]
        assert copy.sink.losses == ["primary:16004 closed the connection while streaming"]


async def test_a_promoted_upstream_lets_its_followers_go_on(autojump_clock: trio.testing.MockClock) -> None:
    async with copying() as (copy, primary):
        connection = await synchronised(primary, {"a": "1"}, 40)
        await connection.send(wire.ping(8, 40))
        assert await connection.ended()
        connection, request = await primary.greet((HISTORY, 40))
        await connection.send(accept(request, ((HISTORY, 40),), history=8) + wire.ping(8, 40))
        assert copy.sink.told[-1] == "partial 8 40"
        assert (copy.sink.history, copy.sink.ancestors) == (8, ((HISTORY, 40),))
        assert copy.sink.losses == ["the history of primary:16004 changed from 7 to 8"]


@pytest.mark.parametrize(
    ("name", "form", "expected"),
    [
        ("v5-live", Form.SIX, {b"k": b"v", b"n": b"12", b"b": b"\x00\x01\xff\r\n\x80", b"h": {b"f": b"1", b"g": b"2"}}),
        (
            "v2-live",
            Form.FIVE,
            {b"k": b"v", b"n": b"12", b"b": b"\x00\x01\xff\r\n\x80", b"h": {b"f": b"1", b"g": b"2"}},
        ),
        ("v5-snapshot-link", Form.SIX, {b"s": b"hello", b"big": b"A" * 300, b"negint": b"-7", b"empty": b""}),
        ("v2-snapshot-link", Form.FIVE, {b"s": b"hello", b"big": b"A" * 300, b"bin": bytes(range(256))}),
        ("v2-resume-0", Form.FIVE, {b"after": b"1", b"k": b"v"}),
    ],
)
async def test_what_real_servers_sent_becomes_their_data(
    name: str, form: Form, expected: dict[bytes, Any], autojump_clock: trio.testing.MockClock
) -> None:
    async with copying() as (copy, primary):
        await downgrade(primary, form)
        connection, request = await primary.greet((0, 0))
        assert request.form is form
        await connection.send(vector(name))
        held = content(copy.store)
        for key, value in expected.items():
            found = held[key][0]
            assert (found[1] if isinstance(found, tuple) else found) == value
        if name.endswith("live"):
            assert (held.keys(), copy.store.journal.offset) == (expected.keys(), 4)
        else:
            if name != "v2-resume-0":
                deadline = held[b"httl"][1]
                assert deadline is not None
                assert deadline // 10 == 410244480045
            assert copy.facts.sync_bytes == 0
            assert copy.facts.last_sync is not None
            assert copy.facts.last_sync.size > 90
        assert copy.facts.state == "connected"
        assert copy.log.of("error") == []


async def test_bytes_that_drip_make_the_same_data(autojump_clock: trio.testing.MockClock) -> None:
    async with copying() as (copy, primary):
        connection, request = await primary.greet()
        stream = accept(request) + ship(3, {"a": "1"}, wire.ping(HISTORY, 3)) + frames(3, "SET b 2")
        stream += group(4, "DEL a", "SET c 3") + wire.ping(HISTORY, 6)
        for place in range(len(stream)):
            await connection.send(stream[place : place + 1])
        assert (copy.data, copy.store.journal.offset) == ({"b": "2", "c": "3"}, 6)
        assert copy.sink.told == ["full 7 3", "swapped", "3-4", "4-6 grouped"]


# -- what breaks ------------------------------------------------------------------------------------------------------


async def test_a_broken_snapshot_leaves_the_old_data(autojump_clock: trio.testing.MockClock) -> None:
    async with copying() as (copy, primary):
        await (await synchronised(primary, {"old": "1"}, 40)).close()
        connection, request = await primary.greet((HISTORY, 40))
        whole = accept(request, history=9) + ship(50, {"new": "2", "newer": "3"})
        await connection.send(whole[: whole.index(b"newer")])
        # A chunk counts when it is whole.
        assert copy.facts.state == "sync"
        assert copy.facts.staleness_ms is not None
        await connection.close()
        assert (copy.data, copy.sink.cursor()) == ({"old": "1"}, (HISTORY, 40))
        assert copy.sink.losses[-1] == "primary:16004 closed the connection in the middle of a snapshot"
        connection, request = await primary.greet((HISTORY, 40))
        await connection.send(accept(request, history=9) + ship(50, {"new": "2"}))
        assert (copy.data, copy.sink.cursor()) == ({"new": "2"}, (9, 50))
        assert copy.sink.reasons[-1] == "asked for offset 40 of history 7, the upstream is in history 9"


async def test_a_link_is_up_only_when_what_it_brought_is_in_place(autojump_clock: trio.testing.MockClock) -> None:
    async with copying() as (copy, primary):
        await (await synchronised(primary, {"old": "1"}, 40)).close()
        connection, request = await primary.greet((HISTORY, 40))
        # Others get a turn between any two steps, while everything to the end of the snapshot has been read.
        copy.clock.step = 0.001
        seen: list[str] = []

        async def look() -> None:
            while copy.data == {"old": "1"}:
                seen.append(copy.facts.state)
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            many = {f"new{number}": "x" * 1000 for number in range(25)}
            await connection.send(accept(request, history=9) + ship(50, many))
        assert "sync" in seen
        assert "connected" not in seen
        assert copy.facts.state == "connected"


@pytest.mark.parametrize(
    ("content_sent", "what"),
    [
        (b"KEVYSNAP\x04\x01\x00\x03\x00\x00\x00new\x01\x00\x00\x00x", "bad snapshot"),
        (b"KEVYSNAP\x04\x01\x00\x03\x00\x00\x00new\x01\x00\x00\x00x\x63", "bad snapshot"),
        (b"REDIS0011", "bad snapshot"),
        (b"", "bad snapshot"),
    ],
)
async def test_a_bad_snapshot_ends_the_link(
    content_sent: bytes, what: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with copying() as (copy, primary):
        await (await synchronised(primary, {"old": "1"}, 40)).close()
        connection, request = await primary.greet()
        chunks = wire.chunk(content_sent) if content_sent else b""
        stream = accept(request, history=9) + wire.SNAPSHOT_BEGIN + chunks + wire.snapshot_end(50)
        await connection.send(stream + frames(50, "SET x y"))
        assert await connection.ended()
        assert copy.data == {"old": "1"}
        assert what in copy.sink.losses[-1]
        assert copy.store.discarded
        await primary.greet((HISTORY, 40))


@pytest.mark.parametrize(
    ("said", "reason", "reached"),
    [
        (frames(40, "SET b 2") + frames(42, "SET c 3"), "gap: expected offset 41, got 42", 41),
        (frames(40, "SET b 2") + frames(40, "SET b 2"), "gap: expected offset 41, got 40", 41),
        (wire.ping(HISTORY, 50) + wire.ping(HISTORY, 50), "gap: expected offset 40, got 50", 40),
        (wire.ping(HISTORY, 39), "gap: expected offset 40, got 39", 40),
        (wire.chunk(b"x"), "outer header is not *2", 40),
        (b"+SNAPSHOT_END 7\r\n", "end of a snapshot that never began", 40),
        (b"*2\r\n:4x\r\n", "primary:16004 broke the protocol", 40),
        (b"+" + b"x" * 5000, "primary:16004 broke the protocol", 40),
        (wire.skip(50), "+SKIP was not agreed on", 40),
    ],
)
async def test_a_lie_costs_the_link_and_no_data(
    said: bytes, reason: str, reached: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with copying() as (copy, primary):
        connection = await synchronised(primary, {"a": "1"}, 40)
        await connection.send(said)
        assert await connection.ended()
        assert reason in copy.sink.losses[-1]
        assert "c" not in copy.data
        await primary.greet((HISTORY, reached))


async def test_a_group_that_is_cut_is_not_applied(autojump_clock: trio.testing.MockClock) -> None:
    async with copying() as (copy, primary):
        connection = await synchronised(primary, {"a": "1"}, 40)
        whole = group(40, "DEL a", "SET b 2")
        await connection.send(frames(40, "SET z 9") + group(41, "DEL a", "SET b 2")[:-1])
        assert copy.data == {"a": "1", "z": "9"}
        await connection.close()
        connection, request = await primary.greet((HISTORY, 41))
        await connection.send(accept(request) + whole.replace(b":41", b":42").replace(b":40", b":41"))
        assert copy.data == {"b": "2", "z": "9"}
        assert copy.sink.told[-1] == "41-43 grouped"


@pytest.mark.parametrize(
    ("said", "applied"),
    [
        (frames(40, "SET b 2", "LPUSH a x", "SET c 3"), 41),
        (frames(40, "SET b 2", "DEL nothing", "SET c 3"), 41),
        (frames(40, "SET b 2") + group(41, "SET d 4", "FLY away") + frames(43, "SET c 3"), 41),
    ],
)
async def test_an_entry_that_fails_ends_the_link_loudly_and_a_fresh_copy_heals(
    said: bytes, applied: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with copying() as (copy, primary):
        connection = await synchronised(primary, {"a": "1"}, 40)
        await connection.send(said)
        assert await connection.ended()
        assert (copy.store.journal.offset, copy.sink.told[-1]) == (applied, f"40-{applied}")
        assert "c" not in copy.data
        assert copy.log.of("error") == ["diverged"]
        assert copy.follower.diverged
        assert copy.facts.staleness_ms is None
        assert "cannot be applied" in copy.sink.losses[-1]
        await synchronised(primary, {"a": "1", "b": "2", "c": "3"}, 43)
        assert copy.data == {"a": "1", "b": "2", "c": "3"}
        assert copy.follower.diverged == ""
        assert "cannot be applied" in copy.sink.reasons[-1]


async def test_what_fails_at_a_kevy_is_passed_over(autojump_clock: trio.testing.MockClock) -> None:
    async with copying() as (copy, primary):
        await downgrade(primary, Form.SIX)
        connection = await synchronised(primary, {"a": "1"}, 40)
        await connection.send(frames(40, "LPUSH a x", "DEL nothing", "SET b 2", "LPUSH a y") + wire.ping(HISTORY, 44))
        assert (copy.data, copy.store.journal.offset) == ({"a": "1", "b": "2"}, 44)
        assert (copy.follower.ignored, copy.sink.losses[-1]) == (
            2,
            "primary:16004 closed the connection without a word",
        )
        assert copy.log.of("warning").count("entry_ignored") == 2


async def test_a_flush_of_a_kevy_is_a_ship_and_its_history_is_told_later(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with copying() as (copy, primary):
        await downgrade(primary, Form.SIX)
        connection = await synchronised(primary, {"a": "1"}, 40)
        await connection.send(ship(0, {}) + frames(0, "SET b 2"))
        assert (copy.data, copy.sink.cursor()) == ({"b": "2"}, (1, 1))
        await connection.send(wire.ping(9, 1))
        assert copy.sink.told[-4:] == ["full 0 0", "swapped", "0-1", "partial 9 1"]
        await connection.close()
        await primary.greet((9, 1))


async def test_who_listens_and_fails_costs_no_entry(autojump_clock: trio.testing.MockClock) -> None:
    async with copying() as (copy, primary):
        connection = await synchronised(primary, {}, 40)

        def fail(first: int, group: list[Any]) -> None:
            raise ValueError("no")

        copy.store.journal.observers.append(fail)
        await connection.send(frames(40, "SET a 1", "SET b 2"))
        assert (copy.data, copy.store.journal.offset) == ({"a": "1", "b": "2"}, 42)
        assert copy.log.of("error") == ["observer_failed"] * 2


# -- five arguments ---------------------------------------------------------------------------------------------------


async def test_a_five_argument_upstream_is_asked_for_what_came_from_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with copying() as (copy, primary):
        await downgrade(primary, Form.FIVE)
        connection, _ = await primary.greet((0, 0))
        await connection.send(answer(None, 0) + frames(0, "SET a 1", "SET b 2"))
        assert copy.sink.told == ["full 0 0", "swapped", "0-2"]
        assert (copy.facts.state, copy.facts.staleness_ms) == ("connected", 0)
        await trio.sleep(30)
        assert copy.facts.state == "connected"
        await connection.close()
        connection, _ = await primary.greet((0, 2))
        await connection.send(answer(None, 2))
        assert copy.facts.down is not None
        await trio.sleep(1.5)
        # Nothing more is said on such a link, and nothing is ever sent.
        assert (copy.facts.state, copy.data) == ("connected", {"a": "1", "b": "2"})
        copy.running.cancel()
        assert await connection.line() == b""


# -- pace -------------------------------------------------------------------------------------------------------------


async def test_other_tasks_run_while_much_is_applied(autojump_clock: trio.testing.MockClock) -> None:
    async with copying() as (copy, primary):
        connection = await synchronised(primary, {}, 0)
        # A look at the clock takes a whole slice: only a batch fits in.
        copy.clock.step = 0.001
        stream = frames(0, *(f"SET k{number} v" for number in range(8000)))
        seen: set[int] = set()
        with trio.CancelScope() as watching:
            async with trio.open_nursery() as nursery:

                async def watch() -> None:
                    while True:
                        seen.add(len(copy.store.keyspace))
                        await trio.lowlevel.checkpoint()

                nursery.start_soon(watch)
                await connection._stream.send_all(stream)
                while len(copy.store.keyspace) < 8000:
                    await trio.lowlevel.checkpoint()
                watching.cancel()
        assert len(seen) > 5
        assert copy.sink.raw == stream
        assert len(copy.sink.told) > 10


async def test_positions_are_acknowledged(autojump_clock: trio.testing.MockClock) -> None:
    async with copying() as (_, primary):
        connection = await synchronised(primary, {}, 40)
        assert await connection.position() == 40
        await connection.send(frames(40, "SET a 1") + wire.ACK_REQUEST)
        assert await connection.position() == 41
        start = trio.current_time()
        await connection.send(frames(41, "SET a 2"))
        await connection.send(frames(42, "SET a 3"))
        assert await connection.position() == 43
        assert trio.current_time() - start == pytest.approx(0.1)
        await connection.send(wire.ping(HISTORY, 43))
        assert await connection.position() == 43
        assert trio.current_time() - start == pytest.approx(0.1)


async def test_staleness_is_the_age_of_the_last_moment_with_everything(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with copying() as (copy, primary):
        connection = await synchronised(primary, {}, 40)
        await trio.sleep(2)
        assert copy.facts.staleness_ms == 2000
        await connection.send(wire.ping(HISTORY, 41))
        await trio.sleep(1)
        assert (copy.facts.staleness_ms, copy.facts.announced, copy.facts.applied) == (3000, 41, 40)
        await connection.send(frames(40, "SET a 1"))
        # It was told of a second ago, and since then nobody knows.
        assert (copy.facts.staleness_ms, copy.facts.applied) == (1000, 41)
        await connection.send(wire.ping(HISTORY, 41))
        assert copy.facts.staleness_ms == 0
        await connection.close()
        await trio.sleep(4)
        assert (copy.facts.staleness_ms, copy.facts.down, copy.facts.silence) == (4000, 4.0, 4.0)
