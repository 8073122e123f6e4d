"""A node inside a Trio program: values and errors, changes, clients beside it, its clocks, its end."""

from __future__ import annotations

import signal
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from support.memory_transport import MemoryListener, MemoryTransport

from kevynode import ConfigError, Misdirected, Node, NodeConfig, Quiesced, ReplyError, open_node
from kevynode.changes import Change, ChangesLost
from kevynode.log import Logger
from kevynode.node import StartError

# Seconds, real or pretended, that a whole test may take.
PATIENCE = 60


class ManualClock:
    """Clocks that stand still until they are set."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now


class TrioClock:
    """The clock of Trio's run, which a test may replace; the wall's begins somewhere else."""

    def monotonic(self) -> float:
        return trio.current_time()

    def wall(self) -> float:
        return trio.current_time() + 1_700_000_000


@attrs.define
class Lines:
    """A log that is kept."""

    lines: list[str] = attrs.field(factory=list)

    def write(self, line: bytes) -> None:
        self.lines.append(line.decode())

    def reopen(self) -> None: ...
    def close(self) -> None: ...


@asynccontextmanager
async def opened(*, transport: MemoryTransport | None = None, **options: Any) -> AsyncIterator[Node]:
    """A node over streams in memory, which must not have logged an error in the end."""
    lines = Lines()
    config = options.pop("config", {})
    with trio.fail_after(PATIENCE):
        async with open_node(
            NodeConfig.from_dict({"server": {"port": 0}, "persistence": {"aof": False}, **config}),
            log=Logger(lines),
            transport=transport or MemoryTransport(),
            **options,
        ) as node:
            yield node
    assert [line for line in lines.lines if " error " in line] == []


async def connect(node: Node) -> trio.abc.Stream:
    """A connection to the node's first address."""
    return await node.transport.connect("127.0.0.1", node.port)


async def ask(stream: trio.abc.Stream, request: bytes, expected: bytes) -> None:
    """Send inline commands, and assert that exactly this comes back."""
    await stream.send_all(request + b"\r\n")
    await hear(stream, expected)


async def hear(stream: trio.abc.Stream, expected: bytes) -> None:
    received = b""
    while len(received) < len(expected) and (piece := await stream.receive_some()):
        received += piece
    assert received == expected


# -- values and errors ----------------------------------------------------------------------------------------------


async def test_get_and_set_take_text_and_bytes() -> None:
    async with opened() as node:
        assert node.get("größe") is None
        node.set("größe", "naïve")
        assert node.get("größe".encode()) == "naïve".encode()
        node.set(b"\xff\x00", bytes(range(256)))
        assert node.get(b"\xff\x00") == bytes(range(256))
        node.set("größe", "")
        assert node.get("größe") == b""


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("PING",), "PONG"),
        (("ECHO", "x"), b"x"),
        (("SET", "k", 1.5), "OK"),
        (("INCRBYFLOAT", "n", "0.5"), b"0.5"),
        (("APPEND", "n", 12), 2),
        (("GET", "nothing"), None),
        (("MGET", "nothing", "nothing"), [None, None]),
        (("HGETALL", "hash"), {b"a": b"1", b"b": b"2"}),
        (("HGETALL", "nothing"), {}),
        (("SMEMBERS", "set"), {b"x", b"y"}),
        (("ZSCORE", "zset", "m"), 2.5),
        (("ZSCORE", "zset", "nobody"), None),
        (("ZRANGE", "zset", 0, -1, "WITHSCORES"), [[b"m", 2.5]]),
        (("LRANGE", "list", 0, -1), [b"1", b"2"]),
        (("LMPOP", 1, "list", "LEFT", "COUNT", 9), [b"list", [b"1", b"2"]]),
        (("BLPOP", "nothing", 0), None),
        (("BLPOP", "list", 0), [b"list", b"1"]),
        (("SISMEMBER", "set", "x"), 1),
        (("CONFIG", "GET", "hash-max-listpack-entries"), {b"hash-max-listpack-entries": b"512"}),
        (("TYPE", "hash"), "hash"),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else None,
)
async def test_replies_are_plain_python_values(command: tuple[Any, ...], expected: object) -> None:
    async with opened() as node:
        node.execute("HSET", "hash", "a", 1, "b", 2)
        node.execute("SADD", "set", "x", "y")
        node.execute("ZADD", "zset", 2.5, "m")
        node.execute("RPUSH", "list", 1, 2)
        reply = node.execute(*command)
        assert reply == expected
        assert type(reply) is type(expected)


async def test_subclasses_of_bytes_are_kept_as_bytes() -> None:
    """They would be taken for another type of value, and their keys for no keys at all."""

    class Text(bytes):
        pass

    async with opened() as node:
        node.set(Text(b"k"), Text(b"v"))
        assert type(node.get("k")) is bytes
        assert node.execute("KEYS", "*") == [b"k"]
        assert all(type(key) is bytes for key in node.store.keyspace)


async def test_texts_are_str() -> None:
    async with opened() as node:
        information = node.execute("INFO", "server")
        assert isinstance(information, str)
        assert "server_name:kevynode" in information


async def test_errors_are_exceptions_and_change_nothing() -> None:
    async with opened() as node:
        node.execute("RPUSH", "list", "a")
        with pytest.raises(ReplyError, match="WRONGTYPE Operation against") as caught:
            node.get("list")
        assert caught.value.prefix == "WRONGTYPE"
        assert caught.value.text == "Operation against a key holding the wrong kind of value"
        for command, message in [
            (("NONSENSE",), "ERR unknown command 'NONSENSE'"),
            (("GET",), "ERR wrong number of arguments for 'get' command"),
            (("INCRBY", "list", "x"), "ERR value is not an integer"),
            (("INCR", "list"), "WRONGTYPE"),
            (("SUBSCRIBE", "news"), "ERR 'subscribe' needs a connection"),
            (("MULTI",), "ERR 'multi' needs a connection"),
        ]:
            with pytest.raises(ReplyError) as caught:
                node.execute(*command)
            assert str(caught.value).startswith(message), command
        with pytest.raises(TypeError, match="NoneType"):
            node.execute("SET", "k", None)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="bool"):
            node.execute("SET", "k", True)
        assert node.execute("KEYS", "*") == [b"list"]


def test_errors_of_routing_are_errors_with_an_address() -> None:
    assert issubclass(Misdirected, ReplyError)
    assert issubclass(Quiesced, ReplyError)
    assert Misdirected("10.0.0.2:6004").writer == "10.0.0.2:6004"
    assert str(Misdirected("10.0.0.2:6004")) == "MISDIRECTED writer is 10.0.0.2:6004"
    assert Quiesced("10.0.0.2:6004").target == "10.0.0.2:6004"


# -- changes --------------------------------------------------------------------------------------------------------


async def read(changes: AsyncIterator[Change], count: int) -> list[tuple[bytes | None, tuple[bytes, ...]]]:
    """The next changes without their offsets, which must grow."""
    read = [await anext(changes) for _ in range(count)]
    offsets = [change.offset for change in read]
    assert offsets == sorted(set(offsets))
    return [(change.key, change.command) for change in read]


async def test_changes_under_a_prefix_whoever_makes_them() -> None:
    async with opened() as node:
        node.set("app:before", "unseen")
        changes = node.watch("app:")
        client = await connect(node)
        node.set("app:own", "1")
        node.set("other", "unseen")
        await ask(client, b"SADD app:set x", b":1\r\n")
        await ask(
            client,
            b"MULTI\r\nINCR app:n\r\nDEL app:own app:nothing\r\nEXEC",
            b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:1\r\n:1\r\n",
        )
        seen = await read(changes, 4)
        assert [key for key, _ in seen] == [b"app:own", b"app:set", b"app:n", b"app:own"]
        assert seen[1] == (b"app:set", (b"SADD", b"app:set", b"x"))
        node.execute("FLUSHALL")
        [(key, _)] = await read(changes, 1)
        assert key is None
        node.set("app:last", "1")
        changes.close()
        node.set("app:after", "unseen")
        assert [change.key async for change in changes] == [b"app:last"]
        await client.aclose()


async def test_changes_can_be_made_again_on_another_node() -> None:
    transport = MemoryTransport()
    async with opened(transport=transport) as source, opened(transport=transport) as copy:
        changes = source.watch()
        source.set("k", "v")
        source.execute("HSET", "h", "a", 1)
        source.execute("HINCRBYFLOAT", "h", "a", "0.5")
        source.execute("ZADD", "z", 1, "a", 2, "b")
        source.execute("ZPOPMIN", "z")
        source.execute("RPUSH", "l", *range(5))
        source.execute("LMOVE", "l", "m", "LEFT", "RIGHT")
        source.execute("SPOP", "nothing")
        source.execute("SADD", "s", *range(100))
        source.execute("SPOP", "s", 50)
        source.execute("RENAME", "k", "renamed")
        changes.close()
        async for change in changes:
            copy.execute(*change.command)
        for command in (("HGETALL", "h"), ("ZRANGE", "z", 0, -1), ("LRANGE", "l", 0, -1), ("LRANGE", "m", 0, -1)):
            assert copy.execute(*command) == source.execute(*command)
        assert copy.execute("SMEMBERS", "s") == source.execute("SMEMBERS", "s")
        assert copy.get("renamed") == b"v"
        assert sorted(copy.execute("KEYS", "*")) == sorted(source.execute("KEYS", "*"))


async def test_a_reader_that_falls_behind_is_told_after_what_it_may_still_read() -> None:
    async with opened() as node:
        slow, fast = node.watch(), node.watch()
        async with trio.open_nursery() as nursery:
            heard: set[int] = set()

            async def keep_up() -> None:
                async for change in fast:
                    heard.add(change.offset)

            nursery.start_soon(keep_up)
            for number in range(12_000):
                node.set("k", str(number))
                if number % 100 == 0:
                    await trio.testing.wait_all_tasks_blocked()
            await trio.testing.wait_all_tasks_blocked()
            assert len(heard) == 12_000
            nursery.cancel_scope.cancel()
        late: set[int] = set()

        async def read_late() -> None:
            async for change in slow:
                late.add(change.offset)

        with pytest.raises(ChangesLost):
            await read_late()
        # What it could still read is the beginning, without a gap.
        assert late == set(sorted(heard)[: len(late)])
        assert 0 < len(late) < 12_000
        again = node.watch()
        node.set("k", "v")
        assert (await anext(again)).key == b"k"


# -- clients beside the program --------------------------------------------------------------------------------------


async def test_clients_and_program_share_the_data() -> None:
    async with opened() as node:
        client, waiting, listening = await connect(node), await connect(node), await connect(node)
        node.set("k", "v")
        await ask(client, b"GET k", b"$1\r\nv\r\n")
        await ask(client, b"SET k w", b"+OK\r\n")
        assert node.get("k") == b"w"
        await waiting.send_all(b"BLPOP queue 0\r\n")
        await ask(listening, b"SUBSCRIBE news", b"*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n")
        await trio.testing.wait_all_tasks_blocked()
        assert node.execute("RPUSH", "queue", "a", "b") == 2
        await hear(waiting, b"*2\r\n$5\r\nqueue\r\n$1\r\na\r\n")
        assert node.execute("PUBLISH", "news", "hello") == 1
        await hear(listening, b"*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nhello\r\n")


async def test_what_the_program_writes_breaks_a_watch() -> None:
    async with opened() as node:
        client = await connect(node)
        await ask(client, b"WATCH k\r\nMULTI\r\nGET k", b"+OK\r\n+OK\r\n+QUEUED\r\n")
        node.set("k", "v")
        await ask(client, b"EXEC", b"*-1\r\n")


async def test_real_sockets() -> None:
    config = NodeConfig.from_dict({"server": {"port": 0}, "persistence": {"aof": False}, "log": {"level": "error"}})
    with trio.fail_after(PATIENCE):
        before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
        async with open_node(config) as node:
            assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
            assert node.addresses == [f"127.0.0.1:{node.port}"]
            client = await trio.open_tcp_stream("127.0.0.1", node.port)
            await ask(client, b"PING", b"+PONG\r\n")
        await hear_the_end(client)
        with pytest.raises(OSError, match=r"refused|all attempts"):
            await trio.open_tcp_stream("127.0.0.1", node.port)


async def hear_the_end(stream: trio.abc.Stream) -> None:
    assert await stream.receive_some() == b""
    await stream.aclose()


async def test_two_nodes_in_one_program_are_strangers() -> None:
    transport = MemoryTransport()
    async with opened(transport=transport) as one, opened(transport=transport) as two:
        assert one.id != two.id
        assert one.port != two.port
        one.set("k", "one")
        assert two.get("k") is None
        client = await connect(two)
        await ask(client, b"SET k two", b"+OK\r\n")
        assert (one.get("k"), two.get("k")) == (b"one", b"two")


# -- clocks ---------------------------------------------------------------------------------------------------------


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
