"""A node in a program goes by the clocks that are injected, and ends as the program wants."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import pytest
import trio
import trio.testing
from support.embedding import PATIENCE, Lines, ManualClock, TrioClock, ask, connect, hear, hear_the_end, opened
from support.memory_transport import MemoryListener, MemoryTransport

from kevynode import ConfigError, Node, NodeConfig, open_node
from kevynode.log import Logger
from kevynode.node import StartError


async def test_keys_expire_by_the_injected_clock() -> None:
    clock = ManualClock()
    async with opened(clock=clock) as node:
        changes = node.watch()
        node.execute("SET", "k", "v", "PX", 5000)
        node.execute("HSET", "h", "f", "v")
        node.execute("HPEXPIRE", "h", 7000, "FIELDS", 1, "f")
        assert node.execute("PTTL", "k") == 5000
        # It lives through the millisecond of its deadline.
        clock.now += 5
        assert node.get("k") == b"v"
        clock.now += 0.01
        assert node.get("k") is None
        assert node.execute("EXISTS", "k") == 0
        assert node.execute("HGET", "h", "f") == b"v"
        clock.now += 2
        assert node.execute("HGET", "h", "f") is None
        changes.close()
        commands = [change.command async for change in changes]
        assert (b"DEL", b"k") in commands or (b"UNLINK", b"k") in commands


async def test_a_wall_that_jumps_back_brings_nothing_back() -> None:
    clock = ManualClock()
    async with opened(clock=clock) as node:
        node.execute("SET", "k", "v", "PX", 1000)
        clock.now += 2
        assert node.get("k") is None
        clock.now -= 2
        assert node.get("k") is None


async def test_expired_keys_go_without_being_asked_for(autojump_clock: trio.testing.MockClock) -> None:
    async with opened(clock=TrioClock()) as node:
        for number in range(500):
            node.execute("SET", number, "v", "EX", 10)
        node.set("stays", "v")
        await trio.sleep(9.5)
        assert node.execute("DBSIZE") == 501
        await trio.sleep(5)
        assert node.execute("DBSIZE") == 1


async def test_waits_end_by_the_mock_clock(autojump_clock: trio.testing.MockClock) -> None:
    async with opened(clock=TrioClock()) as node:
        first, second, third = await connect(node), await connect(node), await connect(node)
        start = trio.current_time()
        await second.send_all(b"BLPOP queue 8\r\n")
        await third.send_all(b"BLPOP queue 0\r\n")
        await ask(first, b"BLPOP queue 5", b"*-1\r\n")
        assert trio.current_time() - start == pytest.approx(5, abs=0.2)
        await hear(second, b"*-1\r\n")
        assert trio.current_time() - start == pytest.approx(8, abs=0.2)
        node.execute("RPUSH", "queue", "a")
        await hear(third, b"*2\r\n$5\r\nqueue\r\n$1\r\na\r\n")


async def test_a_pause_ends_by_the_mock_clock(autojump_clock: trio.testing.MockClock) -> None:
    async with opened(clock=TrioClock()) as node:
        client = await connect(node)
        start = trio.current_time()
        await ask(client, b"CLIENT PAUSE 3000 WRITE", b"+OK\r\n")
        await ask(client, b"GET k", b"$-1\r\n")
        assert trio.current_time() - start < 1
        await ask(client, b"SET k v", b"+OK\r\n")
        assert trio.current_time() - start == pytest.approx(3, abs=0.2)


# -- the end --------------------------------------------------------------------------------------------------------


async def test_leaving_the_block_closes_clients_and_address() -> None:
    transport = MemoryTransport()
    async with opened(transport=transport) as node:
        client, waiting = await connect(node), await connect(node)
        await ask(client, b"PING", b"+PONG\r\n")
        await waiting.send_all(b"BLPOP queue 0\r\n")
        await trio.testing.wait_all_tasks_blocked()
    await hear_the_end(client)
    await hear_the_end(waiting)
    with pytest.raises(ConnectionRefusedError):
        await transport.connect("127.0.0.1", node.port)


async def test_cancelling_the_program_closes_everything() -> None:
    transport = MemoryTransport()
    clients: list[trio.abc.Stream] = []
    nodes: list[Node] = []

    async def program(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with opened(transport=transport) as node:
            nodes.append(node)
            clients.append(await connect(node))
            await clients[0].send_all(b"BLPOP queue 0\r\n")
            task_status.started()
            async for _ in node.watch():
                pass

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            await nursery.start(program)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await hear_the_end(clients[0])
        with pytest.raises(ConnectionRefusedError):
            await transport.connect("127.0.0.1", nodes[0].port)


async def test_stopping_from_inside_the_block() -> None:
    async with opened() as node:
        client = await connect(node)
        await ask(client, b"PING", b"+PONG\r\n")
        node.stop()
        await hear_the_end(client)


async def test_an_address_in_use_is_a_start_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = NodeConfig.from_dict(
            {"server": {"port": port}, "persistence": {"aof": False}, "log": {"level": "error"}}
        )
        with pytest.raises(StartError, match=f"127.0.0.1:{port}: Address already in use"):
            async with open_node(config):
                pass


def test_a_dictionary_is_checked_like_a_file() -> None:
    with pytest.raises(ConfigError) as caught:
        NodeConfig.from_dict({"server": {"port": -1, "prot": 1}, "nonsense": {}})
    assert [problem.path for problem in caught.value.problems] == ["server.port", "server.prot", "nonsense"]


async def test_an_exception_in_the_block_stops_the_node_and_arrives() -> None:
    transport = MemoryTransport()
    with pytest.raises(ZeroDivisionError):  # noqa: PT012  the block is what is tested
        async with opened(transport=transport) as node:
            client = await connect(node)
            raise ZeroDivisionError
    await hear_the_end(client)
    with pytest.raises(ConnectionRefusedError):
        await transport.connect("127.0.0.1", node.port)


class HalfTransport(MemoryTransport):
    """A network that never gets to listen for replicas."""

    async def listen(self, addresses: Sequence[str], port: int, *, backlog: int = 511) -> list[MemoryListener]:
        if self.listeners:
            await trio.sleep_forever()
        self.listeners += await super().listen(addresses, port, backlog=backlog)
        return list(self.listeners)

    def __init__(self) -> None:
        super().__init__()
        self.listeners: list[MemoryListener] = []


def test_sweeps_of_expired_keys_go_by_the_configuration() -> None:
    node = Node(NodeConfig.from_dict({"expiry": {"hz": 50, "sample": 7}}), Logger(Lines()))
    sweeper = node.housekeeper.sweeper
    assert (node.housekeeper.hz, sweeper.hz, sweeper.sample) == (50, 50, 7)


async def test_whoever_gives_up_while_a_node_begins_to_listen_leaves_nothing_listening(
    autojump_clock: trio.testing.MockClock,
) -> None:
    transport = HalfTransport()
    config = NodeConfig.from_dict({"server": {"port": 7000}, "persistence": {"aof": False}})
    with trio.move_on_after(1) as patience:
        async with open_node(config, transport=transport, log=Logger(Lines())):
            raise AssertionError("it cannot have opened")
    assert patience.cancelled_caught
    with pytest.raises(OSError, match="refused"):
        await transport.connect("127.0.0.1", 7000)
