"""Answers that leave only when a gate says so: who is asked about, who has to wait, and what goes on meanwhile."""

from __future__ import annotations

import random

import pytest
import trio
from stream.driving import KINDS, driving, receive_all, receive_exactly, receive_line, settled
from stream.gate import Gate, connect, gated, lines_of, open_up

from kevynode.serve.answers import Verdict

pytestmark = pytest.mark.parametrize("kind", KINDS)


async def test_the_gate_is_asked_after_the_commands_and_before_their_answers_are_taken(kind: str) -> None:
    async with gated(kind) as (it, gate):
        client, session = await connect(it, gate)
        gate.events.clear()
        await client.send_all(b"echo a\necho b\n")
        assert await receive_exactly(client, 4) == b"a\nb\n"
        assert gate.events[:4] == ["run", "run", "asked", "taken"]
        assert session.sends == [4]
        assert not gate.judged


async def test_the_gate_is_asked_though_nobody_is_answered(kind: str) -> None:
    async with gated(kind) as (it, gate):
        client, _ = await connect(it, gate)
        gate.events.clear()
        await client.send_all(b"call\n")
        await settled()
        assert gate.events[:2] == ["run", "asked"]
        assert "taken" not in gate.events


async def test_who_has_nothing_to_be_told_is_not_held(kind: str) -> None:
    async with gated(kind) as (it, gate):
        client, session = await connect(it, gate)
        gate.verdicts[session] = "hold"
        await client.send_all(b"call\n")
        await settled()
        await client.send_all(b"push x\n")
        await settled()
        assert lines_of(session) == [b"call", b"push x"]
        assert gate.judged[session] == 1
        assert session.sends == []


async def test_held_answers_stay_and_nothing_more_is_run_until_they_are_released(kind: str) -> None:
    async with gated(kind) as (it, gate):
        client, session = await connect(it, gate)
        other, _ = await connect(it, gate)
        gate.verdicts[session] = "hold"
        await client.send_all(b"echo a\n")
        await settled()
        await client.send_all(b"echo b\n")
        # Would not return if anybody span around the unread bytes.
        await settled()
        for number in range(3):
            await other.send_all(b"echo %d\n" % number)
            assert await receive_line(other) == b"%d" % number
        assert session.reads == [7]
        assert lines_of(session) == [b"echo a"]
        assert session.sends == []
        assert gate.judged[session] == 1
        gate.verdicts.clear()
        # It is the release that counts.
        await settled()
        assert session.sends == []
        it.driver.release_answers()
        assert await receive_exactly(client, 4) == b"a\nb\n"
        assert session.sends == [2, 2]


async def test_who_must_still_wait_after_a_release_is_held_again_and_runs_nothing(kind: str) -> None:
    # Every command is a turn of its own.
    async with gated(kind, cost=1.0) as (it, gate):
        client, session = await connect(it, gate)
        gate.verdicts[session] = "hold"
        await client.send_all(b"echo a\necho b\necho c\n")
        for times in range(1, 4):
            await settled()
            assert gate.judged[session] == times
            assert lines_of(session) == [b"echo a"]
            assert session.sends == []
            it.driver.release_answers()
        await settled()
        open_up(it, gate)
        assert await receive_exactly(client, 6) == b"a\nb\nc\n"
        # What was held leaves before anything new is run.
        assert session.sends[0] == 2


async def test_a_pipeline_may_be_held_in_the_middle(kind: str) -> None:
    async with gated(kind, cost=1.0) as (it, gate):
        client, session = await connect(it, gate)
        session.called = lambda: gate.verdicts.update({session: "hold"})
        await client.send_all(b"echo a\ncall\necho b\necho c\necho d\n")
        await settled()
        # The call has no answer of its own, but may find the one before it waiting to be sent.
        assert lines_of(session)[1:] in ([b"call"], [b"call", b"echo b"])
        open_up(it, gate)
        assert await receive_exactly(client, 8) == b"a\nb\nc\nd\n"


async def test_a_blocked_client_and_who_serves_it_are_judged_apart(kind: str) -> None:
    async with gated(kind) as (it, gate):
        held, held_session = await connect(it, gate)
        served, _ = await connect(it, gate)
        writer, writing = await connect(it, gate)
        for client in (held, served):
            await client.send_all(b"block\necho after\n")
            await settled()
        gate.verdicts.update({held_session: "hold", writing: "hold"})
        await writer.send_all(b"push one\npush two\npush three\n")
        assert await receive_exactly(served, 10) == b"two\nafter\n"
        await settled()
        assert held_session.sends == writing.sends == []
        # The element was handed over before the hold, so its command is done; no other one is begun.
        assert not held_session.blocked
        del gate.verdicts[writing]
        it.driver.release_answers()
        assert await receive_exactly(writer, 9) == b"ok\n" * 3
        await settled()
        assert held_session.sends == []
        open_up(it, gate)
        assert await receive_exactly(held, 10) == b"one\nafter\n"


async def test_a_held_client_that_is_blocked_is_served_meanwhile(kind: str) -> None:
    async with gated(kind) as (it, gate):
        client, session = await connect(it, gate)
        pusher, _ = await connect(it, gate)
        gate.verdicts[session] = "hold"
        await client.send_all(b"echo a\nblock\necho b\n")
        await settled()
        await pusher.send_all(b"push gift\n")
        assert await receive_line(pusher) == b"ok"
        await settled()
        assert lines_of(session) == [b"echo a", b"block"]
        open_up(it, gate)
        assert await receive_exactly(client, 9) == b"a\ngift\nb\n"


async def test_messages_to_a_held_client_are_kept_and_ask_nobody(kind: str) -> None:
    async with gated(kind) as (it, gate):
        client, session = await connect(it, gate)
        listener, _ = await connect(it, gate)
        speaker, _ = await connect(it, gate)
        gate.verdicts[session] = "hold"
        await client.send_all(b"echo a\n")
        await settled()
        for number in range(3):
            await speaker.send_all(b"shout %d\n" % number)
            assert await receive_line(listener) == b"%d" % number
        await settled()
        assert gate.judged[session] == 1
        assert session.sends == []
        open_up(it, gate)
        assert await receive_exactly(client, 8) == b"a\n0\n1\n2\n"
        assert session.sends == [8]


async def test_messages_of_others_may_be_held(kind: str) -> None:
    async with gated(kind) as (it, gate):
        client, session = await connect(it, gate)
        speaker, _ = await connect(it, gate)
        gate.verdicts[session] = "hold"
        await speaker.send_all(b"shout hello\necho done\n")
        assert await receive_line(speaker) == b"done"
        await client.send_all(b"echo later\n")
        await settled()
        assert session.sends == []
        assert lines_of(session) == []
        open_up(it, gate)
        assert await receive_exactly(client, 12) == b"hello\nlater\n"


async def test_a_release_of_nothing_wakes_nobody(kind: str) -> None:
    async with gated(kind) as (it, gate):
        client, _ = await connect(it, gate)
        await client.send_all(b"echo a\n")
        assert await receive_line(client) == b"a"
        await settled()
        before = len(gate.events)
        it.driver.release_answers()
        await settled()
        assert len(gate.events) == before
    async with driving(kind) as it:
        it.driver.release_answers()


@pytest.mark.parametrize("seed", range(3))
async def test_holding_at_random_loses_and_reorders_nothing(kind: str, seed: int) -> None:
    chance = random.Random(seed)

    class Moody(Gate):
        def before_answers(self) -> bool:
            return chance.random() < 0.5

        def verdict(self, session: object) -> Verdict:
            return "hold" if chance.random() < 0.4 else "send"

    async with driving(kind, answers=Moody(), cost=0.0002) as it:
        talkers = [await it.connect(queue_limit=chance.choice([1, 1000])) for _ in range(6)]

        async def talk(client: trio.abc.Stream, number: int) -> None:
            lines = b"".join(b"echo %d.%d\n" % (number, line) for line in range(200)) + b"close\n"
            while lines:
                size = chance.randrange(1, 400)
                await client.send_all(lines[:size])
                lines = lines[size:]
                await trio.lowlevel.checkpoint()

        async def listen(client: trio.abc.Stream, number: int) -> None:
            expected = b"".join(b"%d.%d\n" % (number, line) for line in range(200))
            assert await receive_all(client) == expected + b"bye\n"

        async def release() -> None:
            while True:
                for _ in range(chance.randrange(10)):
                    await trio.lowlevel.checkpoint()
                it.driver.release_answers()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(release)
            async with trio.open_nursery() as talking:
                for number, (client, _) in enumerate(talkers):
                    talking.start_soon(talk, client, number)
                    talking.start_soon(listen, client, number)
            nursery.cancel_scope.cancel()
        await settled()
        assert it.driver.connected == 0
        assert not it.log.events
