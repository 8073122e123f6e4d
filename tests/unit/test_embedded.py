"""A node inside a Trio program: values and errors, changes, and clients beside it."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import trio.testing
from support.embedding import PATIENCE, ask, connect, hear, hear_the_end, opened
from support.memory_transport import MemoryTransport

from kevynode import Misdirected, NodeConfig, Quiesced, ReplyError, open_node
from kevynode.changes import Change, ChangesLost

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
