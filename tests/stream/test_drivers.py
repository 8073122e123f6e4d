"""What both drivers owe a session, whatever the connection is made of."""

from __future__ import annotations

import pytest
import trio
from stream.driving import KINDS, driving, receive_all, receive_exactly, receive_line, settled
from stream.line_session import LineSession

pytestmark = pytest.mark.parametrize("kind", KINDS)


async def test_commands_of_one_read_are_answered_by_one_send(kind: str) -> None:
    async with driving(kind) as it:
        client, session = await it.connect()
        await client.send_all(b"echo a\necho b\necho c\n")
        assert await receive_exactly(client, 6) == b"a\nb\nc\n"
        assert session.reads == [21]
        assert session.sends == [6]


async def test_a_command_that_drips_is_run_when_it_is_whole(kind: str) -> None:
    async with driving(kind) as it:
        client, session = await it.connect()
        for byte in b"echo drip\n":
            assert not it.room.executed
            await client.send_all(bytes([byte]))
            await settled()
        assert await receive_line(client) == b"drip"
        assert len(session.reads) == 10


async def test_the_end_of_the_stream_ends_the_session_once(kind: str) -> None:
    async with driving(kind) as it:
        client, session = await it.connect()
        await client.send_all(b"echo half")
        await client.aclose()
        await session.gone.wait()
        await settled()
        assert session.reasons == ["end of stream"]
        assert it.driver.connected == 0
        assert session.wake is None
    assert session.reasons == ["end of stream"]


async def test_commands_sent_before_the_end_of_the_stream_are_run(kind: str) -> None:
    async with driving(kind, cost=1.0) as it:
        client, session = await it.connect()
        await client.send_all(b"push x\n" * 50)
        await client.aclose()
        await session.gone.wait()
        assert it.room.elements == [b"x"] * 50


async def test_closing_sends_what_there_is_first(kind: str) -> None:
    async with driving(kind) as it:
        client, session = await it.connect()
        await client.send_all(b"fill 5000000\nclose\necho never\n")
        assert await receive_all(client) == b"x" * 5_000_000 + b"bye\n"
        await session.gone.wait()
        assert session.reasons == ["closed by the server"]


async def test_discarding_does_not_wait_for_a_client_that_does_not_read(kind: str) -> None:
    async with driving(kind) as it:
        client, slow = await it.connect()
        killer, _ = await it.connect()
        await client.send_all(b"fill 9000000\n")
        await settled()
        if "memory" not in kind:
            assert slow.output_pending > 0
        await killer.send_all(b"kill\necho done\n")
        assert await receive_line(killer) == b"done"
        await slow.gone.wait()
        await settled()
        assert slow.reasons == ["closed by the server"]
        assert it.driver.connected == 1


async def test_a_failing_session_ends_alone_and_is_logged(kind: str) -> None:
    async with driving(kind) as it:
        client, session = await it.connect()
        bystander, _ = await it.connect()
        await client.send_all(b"boom\n")
        assert await receive_all(client) == b""
        await bystander.send_all(b"echo alive\n")
        assert await receive_line(bystander) == b"alive"
        assert session.reasons == ["internal error"]
        [(event, fields)] = it.log.events
        assert event == "session_failed"
        assert str(fields["error"]) == "boom"
        assert str(fields["where"]).startswith("_execute (")


async def test_a_session_that_fails_to_let_go_is_closed_all_the_same(kind: str) -> None:
    class Clinging(LineSession):
        def disconnected(self, reason: str) -> None:
            raise RuntimeError("kept")

    async with driving(kind) as it:
        client, session = await it.connect()
        session.__class__ = Clinging
        await client.send_all(b"close\n")
        assert await receive_all(client) == b"bye\n"
        await settled()
        assert it.driver.connected == 0
        assert it.log.names() == ["session_failed"]


async def test_cancelling_closes_connections_and_tells_their_sessions(kind: str) -> None:
    async with driving(kind) as it:
        client, session = await it.connect()
        await client.send_all(b"fill 9000000\n")
        blocked, other = await it.connect()
        await blocked.send_all(b"block\n")
        await settled()
        it.clients.clear()
    assert session.reasons == other.reasons == ["shutting down"]
    assert it.driver.connected == 0
    assert await receive_all(blocked) == b""
    await client.aclose()
    await blocked.aclose()


@pytest.mark.parametrize("queue_limit", [2, 1000])
async def test_the_end_of_a_blocked_client_is_noticed(kind: str, queue_limit: int) -> None:
    async with driving(kind) as it:
        client, session = await it.connect(queue_limit=queue_limit)
        await client.send_all(b"block\necho a\necho b\n")
        await settled()
        assert session.blocked
        assert session.wants_read is (queue_limit == 1000)
        await client.aclose()
        await session.gone.wait()
        assert session.reasons == ["end of stream"]
        assert not it.room.waiting


async def test_a_blocked_client_is_served_by_another_ones_turn_and_goes_on(kind: str) -> None:
    async with driving(kind) as it:
        client, _ = await it.connect()
        pusher, _ = await it.connect()
        await client.send_all(b"block\necho after\n")
        await settled()
        await pusher.send_all(b"push gift\npush kept\n")
        assert await receive_line(client) == b"gift"
        assert await receive_line(client) == b"after"
        assert await receive_exactly(pusher, 6) == b"ok\nok\n"
        assert it.room.elements == [b"kept"]


async def test_output_from_outside_is_sent(kind: str) -> None:
    async with driving(kind) as it:
        client, session = await it.connect()
        for round_ in range(3):
            session.write(b"message %d" % round_)
            session.rouse()
            assert await receive_line(client) == b"message %d" % round_


async def test_a_paused_client_costs_nothing_and_goes_on(kind: str) -> None:
    async with driving(kind) as it:
        client, session = await it.connect()
        await client.send_all(b"pause\necho first\n")
        await settled()
        await client.send_all(b"echo second\n")
        # Would not return if anybody span around the unread bytes.
        await settled()
        assert session.reads in ([17], [17, 12])
        session.paused = False
        session.rouse()
        assert await receive_exactly(client, 13) == b"first\nsecond\n"


async def test_above_its_output_limit_a_client_is_neither_read_nor_run(kind: str) -> None:
    async with driving(kind) as it:
        client, session = await it.connect(output_limit=100_000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send_all, b"fill 500000\n" * 40 + b"close\n")
            await settled()
            if "memory" not in kind:
                assert len(it.room.executed) < 40
                assert not session.wants_read
                assert session.output_pending > 0
            assert await receive_all(client) == b"x" * (40 * 500_000) + b"bye\n"
        assert session.output_pending == 0


async def test_a_client_that_reads_only_after_it_sent_everything_is_answered(kind: str) -> None:
    async with driving(kind) as it:
        client, _ = await it.connect(output_limit=1 << 30)
        lines = [b"%d" % number * 100 for number in range(5_000)]
        await client.send_all(b"".join(b"echo " + line + b"\n" for line in lines) + b"close\n")
        assert await receive_all(client) == b"\n".join(lines) + b"\nbye\n"


async def test_draining_answers_what_was_read_and_closes_everybody(kind: str) -> None:
    async with driving(kind, cost=1.0) as it:
        busy, busy_session = await it.connect()
        blocked, blocked_session = await it.connect()
        idle, _ = await it.connect()
        await blocked.send_all(b"block\n")
        await settled()
        busy_session.called = lambda: it.nursery.start_soon(it.driver.drain)
        await busy.send_all(b"call\n" + b"echo answer\n" * 30)
        assert await receive_all(busy) == b"answer\n" * 30
        assert await receive_all(blocked) == await receive_all(idle) == b""
        assert blocked_session.reasons == ["closed by the server"]
        assert it.driver.connected == 0
        late, _ = await it.connect()
        assert await receive_all(late) == b""
        await it.driver.drain()


async def test_draining_waits_for_a_slow_client_as_long_as_the_deadline_says(kind: str) -> None:
    if "memory" in kind:
        pytest.skip("streams in memory take everything")
    async with driving(kind) as it:
        client, session = await it.connect()
        await client.send_all(b"fill 9000000\n")
        await settled()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(it.driver.drain)
                await settled()
                assert not session.gone.is_set()
                scope.cancel()
        assert len(await receive_all(client)) == 9_000_000
        await session.gone.wait()


async def test_sessions_run_protected_from_keyboard_interrupts(kind: str) -> None:
    protected: list[bool] = []

    class Watchful(LineSession):
        def disconnected(self, reason: str) -> None:
            protected.append(trio.lowlevel.currently_ki_protected())
            super().disconnected(reason)

    async with driving(kind) as it:
        client, session = await it.connect()
        session.__class__ = Watchful
        session.called = lambda: protected.append(trio.lowlevel.currently_ki_protected())
        await client.send_all(b"call\necho done\n")
        assert await receive_line(client) == b"done"
    assert protected == [True, True]
