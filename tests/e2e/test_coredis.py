"""coredis under Trio, in RESP3: requests on one connection, pipelines, pub/sub, waits."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import coredis
import pytest
import trio
from coredis import PureToken
from coredis.exceptions import ResponseError, WrongTypeError
from support.node_process import NodeProcess

# Seconds that a whole test may take.
PATIENCE = 30


@asynccontextmanager
async def connect(node: NodeProcess, **options: Any) -> AsyncIterator[Any]:
    """A client as a program makes it, open for the length of the block."""
    with trio.fail_after(PATIENCE):
        async with coredis.Redis(host=node.host, port=node.port, **options) as client:
            yield client


async def test_every_type_of_data(node: NodeProcess) -> None:
    async with connect(node) as client:
        assert await client.set("k", bytes(range(256)), ex=60) is True
        assert await client.get("k") == bytes(range(256))
        assert await client.ttl("k") == 60
        assert await client.incrbyfloat("f", 1.5) == 1.5
        assert await client.hset("h", {"a": "1", "b": "2"}) == 2
        assert await client.hgetall("h") == {b"a": b"1", b"b": b"2"}
        assert await client.rpush("l", ["a", "b", "c"]) == 3
        assert await client.lmpop(["l"], PureToken.LEFT, count=2) == [b"l", [b"a", b"b"]]
        assert await client.sadd("s", ["a", "b"]) == 2
        assert await client.smembers("s") == {b"a", b"b"}
        assert await client.zadd("z", {"low": -math.inf, "high": 2.5}) == 2
        assert [tuple(pair) for pair in await client.zrange("z", 0, -1, withscores=True)] == [
            (b"low", -math.inf),
            (b"high", 2.5),
        ]
        assert await client.zscore("z", "nobody") is None
        assert await client.setbit("b", 3, 1) == 0
        assert await client.bitcount("b") == 1


async def test_it_speaks_resp3_and_says_who_it_is(node: NodeProcess) -> None:
    async with connect(node, client_name="core") as client:
        mine = await client.client_info()
        assert (mine["lib-name"], mine["lib-ver"], mine["resp"]) == ("coredis", coredis.__version__, "3")
        assert await client.client_getname() == b"core"
        assert [entry["name"] for entry in await client.client_list()].count("core") == 1
        info = await client.info("server")
        assert info["server_name"] == "kevynode"


async def test_errors_keep_the_connection(node: NodeProcess) -> None:
    async with connect(node, max_connections=1) as client:
        identity = await client.client_id()
        await client.set("k", "v")
        with pytest.raises(WrongTypeError):
            await client.lpush("k", ["a"])
        with pytest.raises(ResponseError, match="not an integer"):
            await client.incr("k")
        assert await client.client_id() == identity


async def test_many_tasks_at_once(node: NodeProcess) -> None:
    async with connect(node, max_connections=4) as client:

        async def work(task: int) -> None:
            for number in range(20):
                await client.set(f"own:{task}", str(number))
                await client.incr("shared")
                assert await client.get(f"own:{task}") == b"%d" % number

        async with trio.open_nursery() as nursery:
            for task in range(20):
                nursery.start_soon(work, task)
        assert await client.get("shared") == b"400"


async def test_eight_mebibytes(node: NodeProcess) -> None:
    large = bytes(range(256)) * (1 << 15)
    async with connect(node) as client:
        assert await client.set("large", large) is True
        assert await client.get("large") == large
        assert await client.getrange("large", -2, -1) == b"\xfe\xff"


async def test_pipelines_and_transactions(node: NodeProcess) -> None:
    async with connect(node) as client:
        async with client.pipeline(transaction=False) as pipe:
            pushes = [pipe.rpush("l", [str(number)]) for number in range(500)]
        assert [await push for push in pushes] == list(range(1, 501))
        async with client.pipeline(transaction=True) as pipe:
            first, second = pipe.set("k", "1"), pipe.incr("k")
        assert (await first, await second) == (True, 2)


async def test_watch_tries_again(node: NodeProcess) -> None:
    async with connect(node) as client, connect(node) as rival:
        await client.set("balance", "100")
        seen: list[int] = []

        async def withdraw(pipe: Any) -> None:
            balance = int(await client.get("balance"))
            seen.append(balance)
            if len(seen) < 3:
                await rival.decrby("balance", 10)
            pipe.set("balance", str(balance - 1))

        await client.transaction(withdraw, "balance", watch_delay=0)
        assert seen == [100, 90, 80]
        assert await client.get("balance") == b"79"


async def test_channels_and_patterns(node: NodeProcess) -> None:
    async with connect(node) as client:
        async with client.pubsub(channels=["news"], patterns=["n*"], ignore_subscribe_messages=True) as listener:
            for number in range(100):
                assert await client.publish("news", str(number)) == 2
            heard = [await anext(listener) for _ in range(200)]
        assert [message["data"] for message in heard] == [b"%d" % (place // 2) for place in range(200)]
        assert [message["type"] for message in heard] == ["message", "pmessage"] * 100
        assert {message["pattern"] for message in heard[1::2]} == {b"n*"}


async def test_waits_are_served_in_turn(node: NodeProcess) -> None:
    async with connect(node) as client:
        served: list[tuple[int, Any]] = []

        async def wait(place: int) -> None:
            served.append((place, await client.blpop(["queue"], timeout=PATIENCE)))

        async with trio.open_nursery() as nursery:
            for place in range(3):
                nursery.start_soon(wait, place)
                while (await client.info("clients"))["blocked_clients"] != place + 1:
                    pass
            await client.rpush("queue", ["a", "b", "c"])
        assert sorted(served) == [(0, [b"queue", b"a"]), (1, [b"queue", b"b"]), (2, [b"queue", b"c"])]


async def test_a_cancelled_wait_takes_nothing(node: NodeProcess) -> None:
    async with connect(node) as client:

        async def blocked(count: int) -> None:
            while (await client.info("clients"))["blocked_clients"] != count:
                pass

        async def wait() -> None:
            await client.blpop(["queue"], timeout=PATIENCE)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await blocked(1)
            nursery.cancel_scope.cancel()
        await blocked(0)
        assert await client.rpush("queue", ["a"]) == 1
        assert await client.lrange("queue", 0, -1) == [b"a"]


async def test_scanning(node: NodeProcess) -> None:
    names = {b"%04d" % number for number in range(2000)}
    async with connect(node) as client:
        await client.mset(dict.fromkeys(names, "1"))
        found = {name async for name in client.scan_iter(count=100)}
        assert found == names
        await client.sadd("s", names)
        assert {name async for name in client.sscan_iter("s", count=100)} == names
