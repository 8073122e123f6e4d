"""The bare recipe: events in order, a cursor to come back with, acknowledgements of what is done, typed errors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from support.fake_primary import FakeConnection, FakePrimary, answer, frames, group, payload, ship, vector, words
from support.follower_harness import TrioClock
from support.memory_transport import MemoryTransport

from kevynode.replicate import wire
from kevynode.replicate.client import (
    ConnectFailed,
    Frame,
    Gap,
    Group,
    HistoryChanged,
    LinkClosed,
    Ping,
    ProtocolBroken,
    Refused,
    ReplicaClient,
    ReplicaError,
    ReplicaEvent,
    Resumed,
    Silent,
    Skip,
    SnapshotBegin,
    SnapshotData,
    SnapshotEnd,
)
from kevynode.replicate.handshake import Form
from kevynode.replicate.snapshot import SnapshotDecoder
from kevynode.store.staging import Staging

HISTORY = 7
PLAIN = ("txn", "ackreq", "lineage")


@asynccontextmanager
async def connected(
    stream: bytes = b"", **options: Any
) -> AsyncIterator[tuple[ReplicaClient, FakeConnection, FakePrimary]]:
    """A client whose handshake has been answered with ``stream``."""
    transport = MemoryTransport()
    async with FakePrimary(transport) as primary:
        client = ReplicaClient("primary", 16004, transport=transport, clock=TrioClock(), **options)
        async with client:
            connection, request = await primary.greet((client.history, client.offset))
            assert request.form is options.get("form", Form.EXTENDED)
            await connection.send(stream)
            yield client, connection, primary


async def take(client: ReplicaClient, count: int) -> list[ReplicaEvent]:
    return [await client.__anext__() for _ in range(count)]


async def test_events_come_in_order(autojump_clock: trio.testing.MockClock) -> None:
    stream = answer(HISTORY, 0, PLAIN, [(5, 20)]) + ship(40, {"a": "1"}, wire.ping(HISTORY, 40))
    stream += frames(40, "SET b 2", "DEL a") + group(42, "LPOP l", "RPUSH m x") + wire.ping(HISTORY, 44)
    async with connected(stream) as (client, _, _):
        assert await take(client, 4) == [
            SnapshotBegin(),
            Ping(HISTORY, 40),
            SnapshotData(payload({"a": "1"})),
            SnapshotEnd(HISTORY, 40),
        ]
        assert (client.history, client.offset, client.ancestors) == (HISTORY, 40, ((5, 20),))
        assert await take(client, 1) == [Frame(40, words("SET b 2"))]
        assert client.offset == 41
        assert await take(client, 3) == [
            Frame(41, words("DEL a")),
            Group(42, [words("LPOP l"), words("RPUSH m x")], 44),
            Ping(HISTORY, 44),
        ]
        assert (client.offset, client.announced) == (44, 44)


async def test_a_loop_with_a_store_of_ones_own(autojump_clock: trio.testing.MockClock) -> None:
    held: dict[bytes, bytes] = {}
    decoder = SnapshotDecoder(Staging())
    async with connected(vector("v5-snapshot-link"), form=Form.SIX) as (client, connection, _):
        await connection.send(frames(27, "SET mine 1"))
        async for event in client:
            match event:
                case SnapshotData(data):
                    decoder.feed(data)
                case SnapshotEnd():
                    decoder.finish()
                    held = {k: v for k, v in decoder.staging.keyspace.items() if isinstance(v, bytes)}
                case Frame(_, [b"SET", key, value]):
                    held[key] = value
                    break
        assert (held[b"s"], held[b"big"], held[b"mine"]) == (b"hello", b"A" * 300, b"1")
        assert client.offset == 28


async def test_a_client_comes_back_to_where_it_was(autojump_clock: trio.testing.MockClock) -> None:
    async with connected(answer(HISTORY, 0, PLAIN) + ship(40, {}) + frames(40, "SET a 1", "SET a 2")) as (
        client,
        _,
        primary,
    ):
        # Three events of the snapshot, and one entry: the other one was not handed out, so it comes again.
        await take(client, 4)
        await client.connect()
        connection, _ = await primary.greet((HISTORY, 41))
        await connection.send(answer(HISTORY, 41, PLAIN) + frames(41, "SET a 2"))
        assert await take(client, 2) == [Resumed(HISTORY, 41), Frame(41, words("SET a 2"))]


async def test_half_a_snapshot_is_nothing_to_come_back_to(autojump_clock: trio.testing.MockClock) -> None:
    stream = answer(9, 40, PLAIN) + ship(50, {"a": "1"})[:-3]
    async with connected(stream, history=HISTORY, offset=40) as (client, connection, primary):
        assert (client.history, client.offset) == (HISTORY, 40)
        await take(client, 2)
        await connection.close()
        with pytest.raises(LinkClosed, match="in the middle of a snapshot"):
            await client.__anext__()
        await client.connect()
        await primary.greet((0, 0))


async def test_what_is_done_is_acknowledged(autojump_clock: trio.testing.MockClock) -> None:
    stream = answer(HISTORY, 0, PLAIN) + ship(40, {}) + frames(40, "SET a 1") + wire.ACK_REQUEST + frames(41, "SET a 2")
    async with connected(stream) as (client, connection, _), trio.open_nursery() as nursery:
        await take(client, 4)
        assert await connection.position() == 40
        # An entry has been handed out, and is not done with before the next is asked for.
        assert await take(client, 1) == [Frame(41, words("SET a 2"))]
        nursery.start_soon(take, client, 1)
        assert await connection.position() == 42
        await connection.send(wire.ping(HISTORY, 42))
        nursery.start_soon(take, client, 1)
        assert await connection.position() == 42
        await connection.send(frames(42, "SET a 3"))
        nursery.cancel_scope.cancel()


async def test_a_snapshot_that_ends_at_the_very_beginning_is_acknowledged(
    autojump_clock: trio.testing.MockClock,
) -> None:
    stream = answer(HISTORY, 40, PLAIN) + ship(0, {}) + wire.ping(HISTORY, 0)
    async with connected(stream, history=9, offset=40) as (client, connection, _), trio.open_nursery() as nursery:
        assert (await take(client, 4))[2:] == [SnapshotEnd(HISTORY, 0), Ping(HISTORY, 0)]
        nursery.start_soon(take, client, 1)
        assert await connection.position() == 0
        nursery.cancel_scope.cancel()


async def test_prefixes_narrow_the_link(autojump_clock: trio.testing.MockClock) -> None:
    accepted = (*PLAIN, "scopes", "skip")
    stream = answer(HISTORY, 0, accepted) + ship(40, {"a:1": "x"}) + wire.skip(44) + frames(44, "SET a:2 y")
    stream += wire.snapshot_scope(3, b"a:") + wire.snapshot_end(45)
    async with connected(stream, prefixes=[b"a:"]) as (client, connection, _):
        events = await take(client, 7)
        assert events[3:] == [
            Skip(44),
            Frame(44, words("SET a:2 y")),
            SnapshotBegin(b"a:", 3),
            SnapshotEnd(HISTORY, 45, b"a:"),
        ]
        await client.resync(b"a:")
        lines = [await connection.line() for _ in range(9)]
        assert lines[0] == b"*4"
        assert lines[-1] == b"a:"
        assert await connection.position() == 40
        assert await connection.line() == b"REPLCONF RESYNC 613a"


def test_prefixes_need_a_kevynode() -> None:
    with pytest.raises(ValueError, match="prefixes"):
        ReplicaClient("primary", 1, prefixes=[])
    with pytest.raises(ValueError, match="prefixes"):
        ReplicaClient("primary", 1, prefixes=[b"a"], form=Form.SIX)


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (frames(41, "SET a 1"), Gap),
        (wire.ping(8, 40), HistoryChanged),
        (b"?\r\n", ProtocolBroken),
        (wire.skip(50), ProtocolBroken),
        (b"-ERR out of order\r\n", Refused),
    ],
)
async def test_errors_have_types(
    said: bytes, error: type[ReplicaError], autojump_clock: trio.testing.MockClock
) -> None:
    async with connected(answer(HISTORY, 40, PLAIN), history=HISTORY, offset=40) as (client, connection, _):
        await connection.send(wire.ping(HISTORY, 40) + said)
        # What came before counts.
        assert await take(client, 2) == [Resumed(HISTORY, 40), Ping(HISTORY, 40)]
        for _ in range(2):
            with pytest.raises(error) as caught:
                await client.__anext__()
            assert caught.value.reason == str(caught.value) != ""
        assert (client.history, client.offset) == (HISTORY, 40)


async def test_silence_has_a_type_too(autojump_clock: trio.testing.MockClock) -> None:
    async with connected() as (client, _, _):
        with pytest.raises(Silent, match="did not answer the handshake within 10 s"):
            await client.__anext__()
        assert trio.current_time() == pytest.approx(10)


async def test_nobody_there(autojump_clock: trio.testing.MockClock) -> None:
    client = ReplicaClient("primary", 16004, transport=MemoryTransport(), clock=TrioClock())
    with pytest.raises(ConnectFailed, match="cannot connect to primary:16004: Connection refused"):
        await client.connect()
    with pytest.raises(StopAsyncIteration):
        await client.__anext__()
    with pytest.raises(LinkClosed, match="not connected"):
        await client.resync(b"a")


async def test_connecting_has_a_deadline(autojump_clock: trio.testing.MockClock) -> None:
    class Nowhere(MemoryTransport):
        async def connect(self, host: str, port: int) -> trio.abc.Stream:
            await trio.sleep_forever()
            raise AssertionError

    client = ReplicaClient("primary", 16004, transport=Nowhere(), clock=TrioClock(), connect_seconds=2)
    with pytest.raises(ConnectFailed, match="within 2 s"):
        await client.connect()


async def test_a_connection_is_closed_if_the_handshake_is_cancelled(autojump_clock: trio.testing.MockClock) -> None:
    scope = trio.CancelScope()

    class Impatient(MemoryTransport):
        async def connect(self, host: str, port: int) -> trio.abc.Stream:
            stream = await super().connect(host, port)
            scope.cancel()
            return stream

    transport = Impatient()
    (listener,) = await transport.listen(["primary"], 16004)
    client = ReplicaClient("primary", 16004, transport=transport, clock=TrioClock())
    with scope:
        async with client:
            raise AssertionError("entered")
    (incoming,) = await listener.accept()
    with trio.fail_after(5):
        while await incoming.stream().receive_some():
            pass


async def test_closing_ends_the_loop(autojump_clock: trio.testing.MockClock) -> None:
    async with connected(answer(HISTORY, 40, PLAIN) + wire.ping(HISTORY, 40), history=HISTORY, offset=40) as (
        client,
        _,
        _,
    ):
        seen = []
        async for event in client:
            seen.append(event)
            if isinstance(event, Ping):
                await client.aclose()
        assert seen == [Resumed(HISTORY, 40), Ping(HISTORY, 40)]


async def test_an_old_kevy_that_began_empty_looks_like_an_empty_snapshot(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with connected(vector("v2-live"), form=Form.FIVE) as (client, _, _):
        begin, data, end, first, *_ = await take(client, 7)
        assert (begin, data, end) == (SnapshotBegin(), SnapshotData(b"KEVYSNAP\x04\x00"), SnapshotEnd(0, 0))
        assert first == Frame(0, words("SET k v"))
        assert (client.history, client.offset) == (0, 4)


async def test_a_history_that_is_told_late_is_taken_over(autojump_clock: trio.testing.MockClock) -> None:
    stream = answer(HISTORY, 40) + wire.ping(HISTORY, 40) + ship(0, {}) + frames(0, "SET a 1") + wire.ping(9, 1)
    async with connected(stream, form=Form.SIX, history=HISTORY, offset=40) as (client, _, _):
        await take(client, 6)
        assert (client.history, client.offset) == (0, 1)
        assert await take(client, 1) == [Ping(9, 1)]
        assert (client.history, client.offset) == (9, 1)


async def test_a_primary_that_takes_no_byte_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    transport = MemoryTransport(trio.testing.lockstep_stream_pair)
    async with FakePrimary(transport):
        client = ReplicaClient("primary", 16004, transport=transport, clock=TrioClock())
        async with client:
            with pytest.raises(LinkClosed, match="took no byte for 10 s"):
                await client.__anext__()


async def test_a_primary_that_goes_away_closes_the_link(autojump_clock: trio.testing.MockClock) -> None:
    async with connected(answer(HISTORY, 0, PLAIN) + ship(40, {})) as (client, connection, _):
        await take(client, 3)
        await connection.close()
        # The acknowledgement that is due meets a closed stream.
        with pytest.raises(LinkClosed, match="primary:16004"):
            await client.__anext__()
