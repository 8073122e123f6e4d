"""Answers that leave only when a gate says so, with a gate that says what a test tells it to."""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from stream.driving import KINDS, Driving, driving, receive_all, receive_exactly, receive_line, settled
from stream.line_session import LineSession
from stream.test_hub import reset

from kevynode.serve.answers import NOT_STORED, Verdict
from kevynode.serve.hub import Hub

either = pytest.mark.parametrize("kind", KINDS)
hub_only = pytest.mark.skipif(sys.platform != "linux", reason="epoll is Linux's")


class Gate:
    """Says yes unless there are verdicts. Notes what it is asked, in one list with whatever else a test notes there."""

    def __init__(self) -> None:
        self.verdicts: dict[object, Verdict] = {}
        self.events: list[object] = []
        self.judged: Counter[object] = Counter()

    @property
    def asked(self) -> int:
        """How often."""
        return self.events.count("asked")

    def before_answers(self) -> bool:
        self.events.append("asked")
        return not self.verdicts

    def verdict(self, session: object) -> Verdict:
        self.judged[session] += 1
        return self.verdicts.get(session, "send")


class Noting(LineSession):
    """Notes in its gate's list when its output is taken."""

    gate: Gate

    def take_output(self) -> bytes:
        if self.has_output:
            self.gate.events.append("taken")
        return super().take_output()


@asynccontextmanager
async def gated(kind: str, **options: Any) -> AsyncIterator[tuple[Driving, Gate]]:
    """A driver that asks the gate."""
    gate = Gate()
    async with driving(kind, answers=gate, **options) as it:
        it.room.on_command = lambda: gate.events.append("run")
        yield it, gate


async def connect(it: Driving, gate: Gate, **options: int) -> tuple[trio.abc.Stream, LineSession]:
    """A connection whose session is a noting one."""
    client, session = await it.connect(**options)
    session.__class__ = Noting
    assert isinstance(session, Noting)
    session.gate = gate
    return client, session


def lines_of(session: LineSession) -> list[bytes]:
    """What a session has run."""
    return [line for who, line in session.room.executed if who is session]


@either
async def test_the_gate_is_asked_after_the_commands_and_before_their_answers_are_taken(kind: str) -> None:
    async with gated(kind) as (it, gate):
        client, session = await connect(it, gate)
        gate.events.clear()
        await client.send_all(b"echo a\necho b\n")
        assert await receive_exactly(client, 4) == b"a\nb\n"
        assert gate.events[:4] == ["run", "run", "asked", "taken"]
        assert session.sends == [4]
        assert not gate.judged


@either
async def test_the_gate_is_asked_though_nobody_is_answered(kind: str) -> None:
    async with gated(kind) as (it, gate):
        client, _ = await connect(it, gate)
        gate.events.clear()
        await client.send_all(b"call\n")
        await settled()
        assert gate.events[:2] == ["run", "asked"]
        assert "taken" not in gate.events


@either
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


@either
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
        gate.verdicts.clear()
        it.driver.release_answers()
        assert await receive_exactly(client, 6) == b"a\nb\nc\n"
        # What was held leaves before anything new is run.
        assert session.sends[0] == 2


@either
async def test_a_pipeline_may_be_held_in_the_middle(kind: str) -> None:
    async with gated(kind, cost=1.0) as (it, gate):
        client, session = await connect(it, gate)
        session.called = lambda: gate.verdicts.update({session: "hold"})
        await client.send_all(b"echo a\ncall\necho b\necho c\necho d\n")
        assert await receive_line(client) == b"a"
        await settled()
        assert lines_of(session) == [b"echo a", b"call", b"echo b"]
        gate.verdicts.clear()
        it.driver.release_answers()
        assert await receive_exactly(client, 6) == b"b\nc\nd\n"


@either
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


@either
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


@either
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
        it.driver.release_answers()
        await settled()
        assert session.reasons == ["connection reset"]
        assert session.sends == []


@either
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
        gate.verdicts.clear()
        it.driver.release_answers()
        await session.gone.wait()
        await settled()
        assert it.driver.connected == 0
        assert session.reasons[0] in ("end of stream", "connection reset")


@either
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
        gate.verdicts.clear()
        it.driver.release_answers()
        assert await receive_all(client) == b"a\n" + last_words.removeprefix(b"echo ")
        await session.gone.wait()
        assert session.reasons == ["end of stream"]


@either
async def test_answers_are_held_behind_an_end_of_stream_that_was_read(kind: str) -> None:
    async with gated(kind, cost=1.0) as (it, gate):
        client, session = await connect(it, gate)
        session.called = lambda: gate.verdicts.update({session: "hold"})
        await client.send_all(b"echo a\n" * 20 + b"call\necho b\necho c\n")
        assert isinstance(client, (trio.SocketStream, trio.StapledStream))
        await client.send_eof()
        assert await receive_exactly(client, 40) == b"a\n" * 20
        await settled()
        assert lines_of(session)[-1] == b"echo b"
        assert not session.gone.is_set()
        gate.verdicts.clear()
        it.driver.release_answers()
        assert await receive_all(client) == b"b\nc\n"


@either
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
        gate.verdicts.clear()
        it.driver.release_answers()
        assert await receive_exactly(held, 10) == b"one\nafter\n"


@either
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
        gate.verdicts.clear()
        it.driver.release_answers()
        assert await receive_exactly(client, 9) == b"a\ngift\nb\n"


@either
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
        gate.verdicts.clear()
        it.driver.release_answers()
        assert await receive_exactly(client, 8) == b"a\n0\n1\n2\n"
        assert session.sends == [8]


@either
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
        gate.verdicts.clear()
        it.driver.release_answers()
        assert await receive_exactly(client, 12) == b"hello\nlater\n"


@either
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


@either
async def test_the_last_answers_are_answers(kind: str) -> None:
    async with gated(kind) as (it, gate):
        client, session = await connect(it, gate)
        gate.verdicts[session] = "hold"
        await client.send_all(b"echo a\nclose\n")
        await settled()
        assert not session.gone.is_set()
        gate.verdicts.clear()
        it.driver.release_answers()
        assert await receive_all(client) == b"a\nbye\n"
        assert session.reasons == ["closed by the server"]


@either
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
        gate.verdicts.clear()
        it.driver.release_answers()
        assert await receive_exactly(client, 11) == b"late\nnever\n"


@either
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


@either
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
            gate.verdicts.clear()
            it.driver.release_answers()
            assert await receive_all(client) == b"a\nb\n"
        assert session.reasons == ["closed by the server"]


@either
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


@either
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


@either
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


@hub_only
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


@hub_only
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


@hub_only
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


@hub_only
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


@hub_only
async def test_the_question_is_asked_for_who_fails() -> None:
    async with gated("hub over unix") as (it, gate):
        client, session = await connect(it, gate)
        gate.events.clear()
        it.raw[session].send(b"push x\nboom\n")
        assert await receive_all(client) == b""
        assert gate.events == ["run", "run", "asked"]


@hub_only
async def test_a_held_connection_outlives_a_stop_of_the_hub() -> None:
    async with gated("hub over unix") as (it, gate):
        client, session = await connect(it, gate)
        gate.verdicts[session] = "hold"
        await client.send_all(b"echo a\n")
        await settled()
        it.running.cancel()
        await settled()
        gate.verdicts.clear()
        it.driver.release_answers()
        await settled()
        assert session.sends == []
        await it.nursery.start(it.run)
        assert await receive_line(client) == b"a"


@hub_only
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
