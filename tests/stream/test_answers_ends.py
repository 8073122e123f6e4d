"""How connections end whose answers may not leave, or never will."""

from __future__ import annotations

import pytest
import trio
from stream.driving import KINDS, receive_all, receive_exactly, receive_line, settled
from stream.gate import connect, gated, lines_of, open_up
from stream.test_hub import reset

from kevynode.serve.answers import NOT_STORED
from kevynode.serve.hub import Hub

pytestmark = pytest.mark.parametrize("kind", KINDS)


async def test_a_dropped_connection_ends_without_its_answers(kind: str) -> None:
    async with gated(kind, cost=1.0) as (it, gate):
        client, session = await connect(it, gate)
        other, _ = await connect(it, gate)
        gate.verdicts[session] = "drop"
        await client.send_all(b"echo a\necho b\n")
        assert await receive_all(client) == b""
        await session.gone.wait()
        assert session.reasons == [NOT_STORED] == ["what it wrote could not be stored"]
        assert lines_of(session) == [b"echo a"]
        await other.send_all(b"echo alive\n")
        assert await receive_line(other) == b"alive"
        assert it.driver.connected == 1
        assert not it.log.events


async def test_held_answers_may_be_dropped_later(kind: str) -> None:
    async with gated(kind) as (it, gate):
        client, session = await connect(it, gate)
        gate.verdicts[session] = "hold"
        await client.send_all(b"echo a\n")
        await settled()
        gate.verdicts[session] = "drop"
        it.driver.release_answers()
        assert await receive_all(client) == b""
        await session.gone.wait()
        assert session.reasons == [NOT_STORED]
        it.driver.release_answers()
        await settled()
        assert session.reasons == [NOT_STORED]


async def test_a_reset_ends_a_held_connection_at_once(kind: str) -> None:
    if "tcp" not in kind:
        pytest.skip("only TCP has resets")
    async with gated(kind) as (it, gate):
        client, session = await connect(it, gate)
        gate.verdicts[session] = "hold"
        await client.send_all(b"echo a\n")
        await settled()
        reset(client)
        await session.gone.wait()
        assert session.reasons == ["connection reset"]
        await settled()
        assert it.driver.connected == 0
        if isinstance(it.driver, Hub):
            assert not it.driver._held._held
        it.driver.release_answers()
        await settled()
        assert session.reasons == ["connection reset"]
        assert session.sends == []


async def test_a_held_connection_whose_peer_hangs_up_costs_nothing_and_ends(kind: str) -> None:
    async with gated(kind) as (it, gate):
        client, session = await connect(it, gate)
        gate.verdicts[session] = "hold"
        await client.send_all(b"echo a\n")
        await settled()
        await client.aclose()
        await settled()
        # Only there can it be told from one who has nothing more to say.
        assert session.gone.is_set() is (kind == "hub over unix")
        assert lines_of(session) == [b"echo a"]
        open_up(it, gate)
        await session.gone.wait()
        await settled()
        assert it.driver.connected == 0
        assert session.reasons[0] in ("end of stream", "connection reset")


@pytest.mark.parametrize("last_words", [b"", b"echo b\n"])
async def test_a_held_client_that_has_nothing_more_to_say_gets_its_answers(kind: str, last_words: bytes) -> None:
    async with gated(kind) as (it, gate):
        client, session = await connect(it, gate)
        gate.verdicts[session] = "hold"
        await client.send_all(b"echo a\n")
        await settled()
        await client.send_all(last_words)
        assert isinstance(client, (trio.SocketStream, trio.StapledStream))
        await client.send_eof()
        # The end of the stream is there to be read all the time.
        await settled()
        assert not session.gone.is_set()
        # Held again, it is no different.
        it.driver.release_answers()
        await settled()
        open_up(it, gate)
        assert await receive_all(client) == b"a\n" + last_words.removeprefix(b"echo ")
        await session.gone.wait()
        assert session.reasons == ["end of stream"]


async def test_answers_may_be_held_after_the_end_of_the_stream_was_read(kind: str) -> None:
    if "memory" in kind:
        pytest.skip("streams in memory take everything")
    async with gated(kind) as (it, gate):
        client, session = await connect(it, gate, output_limit=1 << 30)
        # What the first command says takes long to send, so that the second answer waits behind it.
        await client.send_all(b"fill 9000000\n")
        await settled()
        await client.send_all(b"echo late\n")
        await settled()
        gate.verdicts[session] = "hold"
        assert isinstance(client, (trio.SocketStream, trio.StapledStream))
        await client.send_eof()
        await settled()
        assert not session.gone.is_set()
        assert await receive_exactly(client, 9_000_000) == b"x" * 9_000_000
        await settled()
        assert not session.gone.is_set()
        open_up(it, gate)
        assert await receive_all(client) == b"late\n"
        await session.gone.wait()
        assert session.reasons == ["end of stream"]


async def test_a_held_client_that_is_killed_ends_at_once(kind: str) -> None:
    async with gated(kind) as (it, gate):
        client, session = await connect(it, gate)
        killer, _ = await connect(it, gate)
        gate.verdicts[session] = "hold"
        await client.send_all(b"echo a\n")
        await settled()
        await killer.send_all(b"kill\necho done\n")
        assert await receive_line(killer) == b"done"
        assert await receive_all(client) == b""
        await session.gone.wait()
        assert session.reasons == ["closed by the server"]


async def test_the_last_answers_are_answers(kind: str) -> None:
    async with gated(kind) as (it, gate):
        client, session = await connect(it, gate)
        gate.verdicts[session] = "hold"
        await client.send_all(b"echo a\nclose\n")
        await settled()
        assert not session.gone.is_set()
        open_up(it, gate)
        assert await receive_all(client) == b"a\nbye\n"
        assert session.reasons == ["closed by the server"]


async def test_what_was_taken_before_still_leaves(kind: str) -> None:
    async with gated(kind) as (it, gate):
        client, session = await connect(it, gate, output_limit=1 << 30)
        await client.send_all(b"fill 9000000\n")
        await settled()
        gate.verdicts[session] = "hold"
        await client.send_all(b"echo late\n")
        await settled()
        assert lines_of(session)[-1] == b"echo late"
        await client.send_all(b"echo never\n")
        assert await receive_exactly(client, 9_000_000) == b"x" * 9_000_000
        await settled()
        assert session.output_pending == 0
        assert session.sends == [9_000_000]
        assert b"echo never" not in lines_of(session)
        open_up(it, gate)
        assert await receive_exactly(client, 11) == b"late\nnever\n"


async def test_a_reset_amid_what_was_taken_before_ends_a_held_connection(kind: str) -> None:
    if "tcp" not in kind:
        pytest.skip("only TCP has resets")
    async with gated(kind) as (it, gate):
        client, session = await connect(it, gate, output_limit=1 << 30)
        await client.send_all(b"fill 9000000\n")
        await settled()
        gate.verdicts[session] = "hold"
        await client.send_all(b"echo late\n")
        await settled()
        reset(client)
        await session.gone.wait()
        assert session.sends == [9_000_000]
        await settled()
        assert it.driver.connected == 0


async def test_draining_waits_for_held_answers(kind: str) -> None:
    async with gated(kind, cost=1.0) as (it, gate):
        client, session = await connect(it, gate)
        idle, _ = await connect(it, gate)
        gate.verdicts[session] = "hold"
        await client.send_all(b"echo a\necho b\n")
        await settled()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(it.driver.drain)
            assert await receive_all(idle) == b""
            await settled()
            assert it.driver.connected == 1
            assert lines_of(session) == [b"echo a"]
            open_up(it, gate)
            assert await receive_all(client) == b"a\nb\n"
        assert session.reasons == ["closed by the server"]


async def test_cancelling_closes_held_connections_without_their_answers(kind: str) -> None:
    async with gated(kind) as (it, gate):
        client, session = await connect(it, gate)
        gate.verdicts[session] = "hold"
        await client.send_all(b"echo a\n")
        await settled()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(it.driver.drain)
                await settled()
                scope.cancel()
        assert not session.gone.is_set()
        it.clients.clear()
    assert session.reasons == ["shutting down"]
    assert session.sends == []
    assert await receive_all(client) == b""
    it.driver.release_answers()
    await client.aclose()
