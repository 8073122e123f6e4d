"""The hub asks before answers leave once for everybody who had a turn, and a held connection costs it nothing."""

from __future__ import annotations

import sys

import pytest
from stream.driving import receive_all, receive_exactly, receive_line, settled
from stream.gate import connect, gated, open_up

from kevynode.serve.hub import Hub

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="epoll is Linux's")


async def test_one_question_covers_everybody_who_is_ready() -> None:
    async with gated("hub over unix") as (it, gate):
        clients = [await connect(it, gate) for _ in range(20)]
        gate.events.clear()
        for _, session in clients:
            it.raw[session].send(b"echo a\necho b\n")
        for client, _ in clients:
            assert await receive_exactly(client, 4) == b"a\nb\n"
        await settled()
        assert gate.events == ["run"] * 40 + ["asked"] + ["taken"] * 20


async def test_one_question_covers_those_who_close_and_pause_and_leave_too() -> None:
    async with gated("hub over unix") as (it, gate):
        plain, plain_session = await connect(it, gate)
        closing, closing_session = await connect(it, gate)
        pausing, pausing_session = await connect(it, gate)
        leaving, leaving_session = await connect(it, gate)
        writing, writing_session = await connect(it, gate)
        # Watched for room to send besides: an event that is no plain one.
        writing_session.output_limit = 1 << 30
        await writing.send_all(b"fill 9000000\n")
        await settled()
        gate.events.clear()
        it.raw[writing_session].send(b"echo e\n")
        it.raw[closing_session].send(b"echo a\nclose\n")
        it.raw[pausing_session].send(b"echo b\npause\n")
        it.raw[leaving_session].send(b"echo c\n")
        it.raw[plain_session].send(b"echo d\n")
        assert await receive_all(closing) == b"a\nbye\n"
        assert await receive_line(pausing) == b"b"
        assert await receive_line(leaving) == b"c"
        assert await receive_line(plain) == b"d"
        await settled()
        assert gate.events == ["run"] * 7 + ["asked"] + ["taken"] * 4
        assert pausing_session.paused
        gate.events.clear()
        await leaving.aclose()
        await leaving_session.gone.wait()
        assert gate.events == ["asked"]


async def test_one_question_covers_everybody_in_the_queue() -> None:
    async with gated("hub over unix") as (it, gate):
        listeners = [await connect(it, gate) for _ in range(20)]
        speaker, speaking = await connect(it, gate)
        gate.events.clear()
        it.raw[speaking].send(b"shout hello\n")
        for client, _ in listeners:
            assert await receive_line(client) == b"hello"
        await settled()
        assert gate.events == ["run", "asked", "asked"] + ["taken"] * 20
        del speaker


async def test_turns_that_go_on_in_the_queue_all_come_before_the_question() -> None:
    # Every turn is one command, and all turns of a round fit into a cycle.
    async with gated("hub over unix", cost=0.0001, turn=0.00005, cycle=0.01) as (it, gate):
        clients = [await connect(it, gate) for _ in range(10)]
        gate.events.clear()
        for _, session in clients:
            it.raw[session].send(b"echo a\necho b\necho c\n")
        for client, _ in clients:
            assert await receive_exactly(client, 6) == b"a\nb\nc\n"
        await settled()
        assert gate.events == (["run"] * 10 + ["asked"] + ["taken"] * 10) * 3


async def test_the_question_is_asked_for_who_fails() -> None:
    async with gated("hub over unix") as (it, gate):
        client, session = await connect(it, gate)
        gate.events.clear()
        it.raw[session].send(b"push x\nboom\n")
        assert await receive_all(client) == b""
        assert gate.events == ["run", "run", "asked"]


async def test_a_held_connection_outlives_a_stop_of_the_hub() -> None:
    async with gated("hub over unix") as (it, gate):
        client, session = await connect(it, gate)
        gate.verdicts[session] = "hold"
        await client.send_all(b"echo a\n")
        await settled()
        it.running.cancel()
        await settled()
        open_up(it, gate)
        await settled()
        assert session.sends == []
        await it.nursery.start(it.run)
        assert await receive_line(client) == b"a"


async def test_a_held_connection_is_not_watched_for_input() -> None:
    async with gated("hub over tcp") as (it, gate):
        client, session = await connect(it, gate)
        gate.verdicts[session] = "hold"
        await client.send_all(b"echo a\n")
        await settled()
        assert isinstance(it.driver, Hub)
        before = it.driver.cycles
        for _ in range(5):
            await client.send_all(b"echo b\n")
            await settled()
        assert it.driver.cycles == before
