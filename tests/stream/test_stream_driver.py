"""The stream driver where streams in memory show more than sockets: back-pressure step by step, on a virtual clock."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from stream.driving import receive_all, receive_exactly, receive_line, settled
from stream.line_session import LineSession, Log, Room

from kevynode.serve.stream_driver import StreamDriver


class Setting:
    """One connection over a lockstep pair: a send ends when the other side has read it."""

    def __init__(self, nursery: trio.Nursery, **options: int) -> None:
        self.room = Room()
        self.log = Log()
        self.driver = StreamDriver(self.log, timer=self.room.timer)
        self.session: LineSession = self.room.session(**options)
        self.client, self.served = trio.testing.lockstep_stream_pair()
        self.scope = trio.CancelScope()
        nursery.start_soon(self._serve)

    async def _serve(self) -> None:
        with self.scope:
            await self.driver.serve(self.served, self.session)


async def test_output_is_pending_until_the_peer_has_read_it(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    it = Setting(nursery, output_limit=1000)
    await it.client.send_all(b"fill 3000\n")
    await trio.testing.wait_all_tasks_blocked()
    assert it.session.output_pending == 3000
    assert not it.session.wants_read
    with trio.move_on_after(60) as scope:
        await it.client.send_all(b"echo not read\n")
    assert scope.cancelled_caught
    assert await receive_exactly(it.client, 3000) == b"x" * 3000
    # Now it is read: a send that was cancelled may have happened.
    assert await receive_line(it.client) == b"not read"
    await trio.testing.wait_all_tasks_blocked()
    assert it.session.output_pending == 0
    assert it.session.wants_read


async def test_a_send_that_is_cancelled_closes_the_stream(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    it = Setting(nursery)
    await it.client.send_all(b"fill 3000\n")
    await trio.testing.wait_all_tasks_blocked()
    it.scope.cancel()
    await it.session.gone.wait()
    assert it.session.reasons == ["shutting down"]
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(trio.ClosedResourceError):
        await it.served.send_all(b"more")


async def test_draining_ends_with_its_deadline_if_a_client_does_not_read(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    it = Setting(nursery)
    await it.client.send_all(b"fill 3000\n")
    await trio.testing.wait_all_tasks_blocked()
    started = trio.current_time()
    with trio.move_on_after(5) as scope:
        await it.driver.drain()
    assert scope.cancelled_caught
    assert trio.current_time() - started == 5
    assert not it.session.gone.is_set()
    it.scope.cancel()
    await it.session.gone.wait()
    await it.driver.drain()


async def test_commands_that_were_read_run_though_nobody_reads_their_replies(nursery: trio.Nursery) -> None:
    it = Setting(nursery)
    it.room.cost = 1.0
    await it.client.send_all(b"push x\n" * 30)
    await trio.aclose_forcefully(it.client)
    await it.session.gone.wait()
    assert it.room.elements == [b"x"] * 30
    assert it.session.reasons[0] in ("connection reset", "end of stream")
    assert not it.log.events


async def test_a_peer_that_cannot_be_answered_is_not_listened_to(nursery: trio.Nursery) -> None:
    room = Room()
    session = room.session()
    to_server, from_client = trio.testing.memory_stream_one_way_pair()
    to_client, from_server = trio.testing.memory_stream_one_way_pair()
    nursery.start_soon(StreamDriver(Log(), timer=room.timer).serve, trio.StapledStream(to_client, from_client), session)
    await from_server.aclose()
    await to_server.send_all(b"echo a\npush x\n")
    await session.gone.wait()
    assert session.reasons == ["connection reset"]
    assert room.elements == [b"x"]
    await to_server.aclose()


async def test_a_look_at_the_peer_is_asked_before_an_element_is_handed_over(nursery: trio.Nursery) -> None:
    room = Room()
    driver = StreamDriver(Log(), timer=room.timer)
    hung_up = False
    ends = []
    for look in (lambda: hung_up, None):
        client, served = trio.testing.memory_stream_pair()
        nursery.start_soon(driver.serve, served, room.session(), look)
        await client.send_all(b"block\n")
        await settled()
        ends.append(client)
    hung_up = True
    pusher, served = trio.testing.memory_stream_pair()
    nursery.start_soon(driver.serve, served, room.session())
    await pusher.send_all(b"push gift\n")
    assert await receive_line(ends[1]) == b"gift"
    for client in (*ends, pusher):
        await client.aclose()


async def test_a_stream_that_says_no_goodbye_is_closed_all_the_same(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    closing: list[str] = []

    class Reluctant(trio.abc.Stream):
        def __init__(self, stream: trio.abc.Stream) -> None:
            self.stream = stream

        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            await self.stream.send_all(data)

        async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
            return await self.stream.receive_some(max_bytes)

        async def wait_send_all_might_not_block(self) -> None:
            await self.stream.wait_send_all_might_not_block()

        async def aclose(self) -> None:
            closing.append("asked")
            try:
                await trio.sleep_forever()
            finally:
                closing.append("closed")
                await trio.aclose_forcefully(self.stream)

    room = Room()
    client, served = trio.testing.memory_stream_pair()
    nursery.start_soon(StreamDriver(Log(), timer=room.timer).serve, Reluctant(served), room.session())
    await client.send_all(b"close\n")
    assert await receive_all(client) == b"bye\n"
    assert closing == ["asked", "closed"]
