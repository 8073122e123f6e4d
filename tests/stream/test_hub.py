"""The hub over real sockets: what epoll, descriptors and other tasks ask of it."""

from __future__ import annotations

import errno
import os
import random
import resource
import select
import socket
import struct
import sys

import pytest
import trio
import trio.testing
from stream.driving import PATIENCE, Driving, driving, receive_all, receive_exactly, receive_line, settled, socket_pair
from stream.line_session import LineSession, Log, Room

from kevynode.serve.hub import CYCLE, TURN, Hub

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="epoll is Linux's")


def hub_of(it: Driving) -> Hub:
    """The hub under test."""
    assert isinstance(it.driver, Hub)
    return it.driver


def reset(client: trio.abc.Stream) -> None:
    """Close a TCP connection with a reset."""
    assert isinstance(client, trio.SocketStream)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.socket.close()


def close_now(client: trio.abc.Stream) -> None:
    """Close a client's socket without a checkpoint."""
    assert isinstance(client, trio.SocketStream)
    client.socket.close()


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_clients_that_come_and_go_are_all_told_once(seed: int) -> None:
    chance = random.Random(seed)
    async with driving("hub over tcp") as it:
        hub = hub_of(it)

        async def visit(number: int) -> None:
            client, session = await it.connect()
            for turn in range(chance.randrange(4)):
                await client.send_all(b"echo %d.%d\n" % (number, turn))
                assert await receive_line(client) == b"%d.%d" % (number, turn)
            match chance.randrange(5):
                case 0:
                    reset(client)
                case 1:
                    await client.send_all(b"close\n")
                    assert await receive_all(client) == b"bye\n"
                case 2:
                    await client.send_all(b"block\n")
                    await client.aclose()
                case 3:
                    await client.send_all(b"fill 3000000\n")
                    await client.receive_some(1)
                    reset(client)
                case _:
                    await client.aclose()
            await session.gone.wait()

        for _ in range(4):
            async with trio.open_nursery() as visitors:
                for number in range(25):
                    visitors.start_soon(visit, number)
        await settled()
        assert hub.connected == 0
        assert not it.log.events
        assert [len(session.reasons) for session in it.room.sessions] == [1] * 100


async def test_half_commands_of_many_silent_clients_cost_nothing() -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(2000, (soft - 200) // 2) if soft > 0 else 2000
    async with driving("hub over unix") as it:
        hub = hub_of(it)
        ends = [socket_pair("unix") for _ in range(count)]
        try:
            for near, far in ends:
                it.nursery.start_soon(hub.serve, far, it.room.session())
                near.send(b"echo half a comm")
            await settled()
            assert hub.connected == count
            assert [session.reads for session in it.room.sessions] == [[16]] * count
            before = hub.cycles
            await settled()
            await settled()
            assert hub.cycles == before
        finally:
            for near, _ in ends:
                near.close()


async def test_a_turn_reads_64_kib_at_most() -> None:
    async with driving("hub over unix") as it:
        near, far = socket_pair("unix")
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        sent = near.send(b"echo a\n" * 40_000)
        assert sent > 65536
        session = it.room.session()
        it.nursery.start_soon(hub_of(it).serve, far, session)
        await settled()
        assert max(session.reads) == 65536
        assert sum(session.reads) == sent
        near.close()


async def test_a_paused_client_that_is_reset_is_closed_and_does_not_spin() -> None:
    async with driving("hub over tcp") as it:
        client, session = await it.connect()
        await client.send_all(b"pause\n")
        await settled()
        await client.send_all(b"echo unread\n")
        await settled()
        assert not session.gone.is_set()
        reset(client)
        await session.gone.wait()
        assert session.reasons == ["connection reset"]
        await settled()


async def test_a_reset_amid_output_ends_the_connection() -> None:
    async with driving("hub over tcp") as it:
        client, session = await it.connect()
        await client.send_all(b"fill 9000000\n")
        await settled()
        assert session.output_pending > 0
        assert not session.gone.is_set()
        reset(client)
        await session.gone.wait()
        await settled()
        assert hub_of(it).connected == 0


async def test_a_command_that_came_before_a_reset_is_run() -> None:
    async with driving("hub over tcp") as it:
        _, first = await it.connect()
        client, second = await it.connect()
        # Both are in one batch, and the reset comes in between.
        first.called = lambda: reset(client)
        it.raw[first].send(b"call\n")
        it.raw[second].send(b"push x\n")
        await second.gone.wait()
        assert it.room.elements == [b"x"]


async def test_an_error_of_the_socket_ends_the_connection() -> None:
    async with driving("hub over tcp") as it:
        _, first = await it.connect()
        _, second = await it.connect()

        hub = hub_of(it)

        def shut() -> None:
            # The descriptor that has something to read becomes one that cannot be read from.
            served = next(connection for connection in hub._connections.values() if connection.session is second)
            with socket.socket() as unconnected:
                unconnected.setblocking(False)
                os.dup2(unconnected.fileno(), served.fd)
            hub._epoll.register(served.fd, select.EPOLLIN)

        first.called = shut
        it.raw[first].send(b"call\n")
        it.raw[second].send(b"echo lost\n")
        await second.gone.wait()
        assert second.reasons == [os.strerror(errno.ENOTCONN)]


async def test_commands_that_were_read_run_though_their_replies_cannot_be_sent() -> None:
    async with driving("hub over unix", cost=1.0) as it:
        client, session = await it.connect()
        session.called = lambda: close_now(client)
        it.raw[session].send(b"echo a\ncall\n" + b"push x\n" * 10)
        await session.gone.wait()
        assert it.room.elements == [b"x"] * 10
        assert session.reasons == [os.strerror(errno.EPIPE)]
        assert session.output_pending == 0


async def test_a_session_that_fails_after_a_wait_ends_alone() -> None:
    async with driving("hub over unix") as it:
        client, session = await it.connect()
        pusher, _ = await it.connect()
        await client.send_all(b"block\nboom\n")
        await settled()
        await pusher.send_all(b"push gift\n")
        assert await receive_line(pusher) == b"ok"
        await session.gone.wait()
        assert session.reasons == ["internal error"]
        assert it.log.names() == ["session_failed"]


@pytest.mark.parametrize("kind", ["hub over unix", "hub over tcp"])
@pytest.mark.parametrize("last_words", [b"", b"echo unread\n"])
async def test_no_element_is_handed_to_a_client_that_has_hung_up(kind: str, last_words: bytes) -> None:
    async with driving(kind) as it:
        first, first_session = await it.connect()
        second, _ = await it.connect()
        _, pusher = await it.connect()
        for client, session in ((first, first_session), (second, it.room.sessions[1])):
            # The queue has no room, so only the end of the stream is watched while it is blocked.
            session.queue_limit = 1
            await client.send_all(b"block\n")
            await settled()
            session.queue_limit = 0
            session.rouse()
            await settled()
        # All in one batch, and the push comes first.
        it.raw[pusher].send(b"push gift\n")
        it.raw[first_session].send(last_words)
        close_now(first)
        assert await receive_line(second) == b"gift"
        await first_session.gone.wait()
        assert it.room.executed[-1] == (pusher, b"push gift")


def pair_with(descriptor: int) -> tuple[socket.socket, socket.socket]:
    """A pair whose second socket has a certain descriptor, which must be free."""
    one, other = socket_pair("unix")
    if one.fileno() == descriptor:
        return other, one
    if other.fileno() != descriptor:
        os.dup2(other.fileno(), descriptor, inheritable=False)
        other.close()
        other = socket.socket(fileno=descriptor)
    return one, other


@pytest.mark.parametrize("last_words", [b"", b"echo unread\n"])
@pytest.mark.parametrize("paused", [False, True])
async def test_events_for_a_closed_connection_do_not_reach_its_successor(last_words: bytes, paused: bool) -> None:
    # A command takes longer than a cycle, so that the second event of a batch is left over.
    async with driving("hub over unix", cost=1.0) as it:
        hub = hub_of(it)
        _, session = await it.connect()
        session.called = it.running.cancel
        near, far = socket_pair("unix")
        doomed = it.room.session()
        scope = trio.CancelScope()

        async def serve() -> None:
            with scope:
                await hub.serve(far, doomed)

        it.nursery.start_soon(serve)
        await settled()
        # A paused one is not read, so that its event is nothing but the end.
        doomed.paused = paused
        doomed.rouse()
        await settled()
        descriptor = far.fileno()
        it.raw[session].send(b"call\n")
        near.send(last_words)
        if paused or not last_words:
            near.close()
        await settled()
        assert hub._rounds.left == 1
        scope.cancel()
        await doomed.gone.wait()
        near.close()
        near, far = pair_with(descriptor)
        successor = it.room.session()
        it.nursery.start_soon(hub.serve, far, successor)
        await settled()
        it.nursery.start_soon(it.run)
        await settled()
        near.send(b"echo alive\n")
        await trio.lowlevel.wait_readable(near)
        assert near.recv(100) == b"alive\n"
        assert not successor.reasons
        assert doomed.reasons == ["shutting down"]
        near.close()


async def test_a_descriptor_is_not_free_before_the_cycle_ends() -> None:
    async with driving("hub over unix") as it:
        _, first = await it.connect()
        leaving, session = await it.connect()
        _, third = await it.connect()
        served = {connection.session: connection.fd for connection in hub_of(it)._connections.values()}
        opened: list[int] = []

        def look() -> None:
            # The lowest free descriptors are given out first.
            pair = socket_pair("unix")
            opened.extend(end.fileno() for end in pair)
            for end in pair:
                end.close()

        third.called = look
        for session_, line in ((first, b"echo a"), (session, b"close"), (third, b"call")):
            it.raw[session_].send(line + b"\n")
        assert await receive_all(leaving) == b"bye\n"
        await settled()
        assert [line for _, line in it.room.executed] == [b"echo a", b"close", b"call"]
        assert session.reasons == ["closed by the server"]
        assert served[session] not in opened
        assert len(opened) == 2


class Attentive(LineSession):
    """Notes at which look at epoll its output is taken."""

    hub: Hub
    looks: list[int]

    def take_output(self) -> bytes:
        if self.has_output:
            self.looks.append(self.hub._rounds.looks)
        return super().take_output()


async def test_what_others_are_told_is_sent_before_the_next_look() -> None:
    async with driving("hub over unix") as it:
        client, listener = await it.connect()
        listener.__class__ = Attentive
        assert isinstance(listener, Attentive)
        listener.hub, listener.looks = hub_of(it), []
        _, speaker = await it.connect()
        looks: list[int] = []
        speaker.called = lambda: looks.append(hub_of(it)._rounds.looks)
        it.raw[speaker].send(b"call\nshout hello\n")
        assert await receive_line(client) == b"hello"
        assert listener.looks == looks


async def test_descriptors_that_are_used_again_within_one_batch() -> None:
    async with driving("hub over unix") as it:
        killer, killer_session = await it.connect()
        victims = [await it.connect() for _ in range(5)]
        fresh: list[tuple[socket.socket, socket.socket]] = []

        def replace() -> None:
            # Both take the lowest free descriptors: those of victims, if any were closed in this batch.
            fresh.append(socket_pair("unix"))
            it.nursery.start_soon(hub_of(it).serve, fresh[-1][1], it.room.session())

        killer_session.called = replace
        # One batch: the kill, a new connection, and what the victims still say.
        it.raw[killer_session].send(b"kill\ncall\necho done\n")
        for _, session in victims:
            it.raw[session].send(b"echo last words\n")
        assert await receive_line(killer) == b"done"
        for _, session in victims:
            await session.gone.wait()
            assert session.reasons == ["closed by the server"]
        [(near, _)] = fresh
        near.send(b"echo fresh\n")
        await trio.lowlevel.wait_readable(near)
        assert near.recv(100) == b"fresh\n"
        near.close()


async def test_the_hub_can_be_stopped_and_started_again() -> None:
    async with driving("hub over tcp") as it:
        client, session = await it.connect()
        other, _ = await it.connect()
        await other.send_all(b"block\n")
        await settled()
        with pytest.raises(RuntimeError, match="running already"):
            await hub_of(it).run()
        for round_ in range(3):
            it.running.cancel()
            await settled()
            await client.send_all(b"echo %d\n" % round_)
            session.write(b"meanwhile")
            await settled()
            assert hub_of(it).connected == 2
            await it.nursery.start(it.run)
            assert {await receive_line(client), await receive_line(client)} == {b"meanwhile", b"%d" % round_}
        await client.send_all(b"push gift\n")
        assert await receive_line(other) == b"gift"


async def test_closing_ends_the_hubs_task_and_the_connections() -> None:
    async with driving("hub over tcp") as it:
        client, session = await it.connect()
        it.running.cancel()
        await settled()
        ended: list[type[BaseException]] = []

        async def run() -> None:
            try:
                await hub_of(it).run()
            except trio.ClosedResourceError as error:
                ended.append(type(error))

        it.nursery.start_soon(run)
        await settled()
        hub_of(it).close()
        await settled()
        assert ended == [trio.ClosedResourceError]
        assert session.reasons == ["shutting down"]
        assert await receive_all(client) == b""


async def test_a_client_waits_for_one_turn_of_each_other_one() -> None:
    async with driving("hub over unix", cost=TURN / 10) as it:
        hogs = [await it.connect() for _ in range(4)]
        polite, session = await it.connect()
        for _, hog in hogs:
            it.raw[hog].send(b"push x\n" * 2000)
        it.raw[session].send(b"echo please\n")
        await receive_line(polite)
        await settled()
        at = it.room.executed.index((session, b"echo please"))
        # A turn ends with the command that passes its deadline.
        assert 0 < at <= len(hogs) * 12
        order = [who for who, _ in it.room.executed[at + 1 :]]
        # From then on the hogs go round: nobody has two turns while another one waits.
        turns = [who for number, who in enumerate(order) if not number or who is not order[number - 1]]
        assert all(len(set(turns[start : start + 4])) == 4 for start in range(len(turns) - 8))


async def test_a_cycle_ends_when_its_time_is_up() -> None:
    async with driving("hub over unix", cost=CYCLE / 10) as it:
        hub = hub_of(it)
        in_cycle: dict[int, int] = {}

        def count() -> None:
            in_cycle[hub.cycles] = in_cycle.get(hub.cycles, 0) + 1

        it.room.on_command = count
        clients = [await it.connect() for _ in range(30)]
        for _, session in clients:
            it.raw[session].send(b"echo a\n" * 10)
        for client, _ in clients:
            assert await receive_exactly(client, 20) == b"a\n" * 10
        assert sum(in_cycle.values()) == 300
        # The last turn may begin just before the end of the cycle.
        assert max(in_cycle.values()) <= 11 + TURN / (CYCLE / 10) + 1
        assert len(in_cycle) >= 300 / 15


async def test_the_clock_is_set_before_each_batch() -> None:
    times: list[float] = []
    async with driving("hub over unix", cost=1.0, before_batch=times.append) as it:
        client, _ = await it.connect()
        await client.send_all(b"echo a\n" * 5)
        assert await receive_exactly(client, 10) == b"a\n" * 5
        assert times == sorted(times)
        assert {0.0, 1.0, 2.0, 3.0, 4.0} <= set(times)


class Rally(LineSession):
    """Returns every byte."""

    def receive(self, data: bytes) -> None:
        self._reply(data)


async def test_a_threads_job_ends_beside_a_busy_hub() -> None:
    interval = sys.getswitchinterval()
    # As `kevynode run` does: shorter than a slice, because each system call of the hub starts the wait anew.
    sys.setswitchinterval(0.0005)
    try:
        room = Room()
        with trio.fail_after(PATIENCE), Hub(Log()) as hub:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(hub.run)
                for _ in range(50):
                    # Both ends are served, so that the ball flies until the end.
                    for end in (pair := socket_pair("unix")):
                        nursery.start_soon(hub.serve, end, Rally(room))
                    pair[0].send(b"ball")
                for _ in range(20):
                    await trio.lowlevel.checkpoint()
                for _ in range(5):
                    before = hub.cycles
                    assert await trio.to_thread.run_sync(lambda: sum(range(1000))) == 499_500
                    assert 0 < hub.cycles - before < 1000
                nursery.cancel_scope.cancel()
    finally:
        sys.setswitchinterval(interval)


async def test_a_socket_that_cannot_be_registered_ends_its_session() -> None:
    async with driving("hub over unix") as it:
        near, far = socket_pair("unix")
        os.close(far.fileno())
        session = it.room.session()
        await hub_of(it).serve(far, session)
        assert session.reasons == ["Bad file descriptor"]
        assert it.log.names() == ["close_failed"]
        assert hub_of(it).connected == 0
        near.close()


async def test_many_listeners_get_what_one_client_says() -> None:
    async with driving("hub over unix") as it:
        listeners = [await it.connect() for _ in range(50)]
        speaker, _ = await it.connect()
        await speaker.send_all(b"shout hello\nshout world\necho done\n")
        assert await receive_line(speaker) == b"done"
        for client, session in listeners:
            assert await receive_exactly(client, 12) == b"hello\nworld\n"
            assert session.sends == [12]
