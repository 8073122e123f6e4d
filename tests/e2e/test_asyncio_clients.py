"""redis-py and valkey-py under asyncio: connections shared by tasks, pipelines, transactions, pub/sub, waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from e2e.libraries import Library
from support.node_process import NodeProcess

# Seconds that a whole test may take.
PATIENCE = 30

Test = Callable[[Any], Awaitable[None]]


@pytest.fixture
def run(library: Library, node: NodeProcess) -> Callable[[Test], None]:
    """Runs a coroutine function with a client of the library, in an event loop of its own."""

    @asynccontextmanager
    async def client() -> AsyncIterator[Any]:
        made = library.asynchronous_class(host=node.host, port=node.port, **library.options)
        try:
            yield made
        finally:
            await made.aclose()

    def run(test: Test) -> None:
        async def main() -> None:
            async with client() as made:
                await asyncio.wait_for(test(made), PATIENCE)

        asyncio.run(main())

    return run


def test_every_type_of_data(run: Callable[[Test], None]) -> None:
    async def test(client: Any) -> None:
        assert await client.set("k", bytes(range(256)), px=60_000) is True
        assert await client.get("k") == bytes(range(256))
        assert await client.hset("h", mapping={"a": 1}) == 1
        assert await client.hgetall("h") == {b"a": b"1"}
        assert await client.rpush("l", 1, 2) == 2
        assert await client.lrange("l", 0, -1) == [b"1", b"2"]
        assert await client.sadd("s", "a", "b") == 2
        assert set(await client.smembers("s")) == {b"a", b"b"}
        assert await client.zadd("z", {"a": 1.5}) == 1
        assert await client.zscore("z", "a") == 1.5
        assert await client.setbit("b", 3, 1) == 0
        assert await client.bitcount("b") == 1
        assert await client.ttl("k") == 60
        assert await client.ping() is True

    run(test)


def test_a_task_for_each_request(run: Callable[[Test], None]) -> None:
    async def test(client: Any) -> None:
        async def request(number: int) -> int:
            await client.set(f"own:{number}", number)
            await client.incr("shared")
            return int(await client.get(f"own:{number}"))

        assert await asyncio.gather(*map(request, range(100))) == list(range(100))
        assert await client.get("shared") == b"100"

    run(test)


def test_large_values_side_by_side(run: Callable[[Test], None]) -> None:
    async def test(client: Any) -> None:
        async def roundtrip(number: int) -> None:
            value = bytes([number]) * (8 << 20)
            assert await client.set(f"large:{number}", value) is True
            assert await client.get(f"large:{number}") == value

        await asyncio.gather(*map(roundtrip, range(4)))

    run(test)


def test_pipelines_and_transactions(run: Callable[[Test], None]) -> None:
    async def test(client: Any) -> None:
        async with client.pipeline(transaction=False) as pipe:
            for number in range(1000):
                pipe.rpush("l", number)
            assert await pipe.execute() == list(range(1, 1001))

        async def increment(pipe: Any) -> None:
            value = int(await pipe.get("counter") or 0)
            pipe.multi()
            pipe.set("counter", value + 1)

        await asyncio.gather(*(client.transaction(increment, "counter") for _ in range(12)))
        assert await client.get("counter") == b"12"

    run(test)


def test_pub_sub_while_others_work(run: Callable[[Test], None]) -> None:
    async def test(client: Any) -> None:
        async def listen(ready: asyncio.Event, kind: str) -> list[bytes]:
            heard: list[bytes] = []
            async with client.pubsub() as listener:
                await (listener.subscribe("news") if kind == "message" else listener.psubscribe("n?ws"))
                async for message in listener.listen():
                    ready.set()
                    if message["type"] == kind:
                        heard.append(message["data"])
                        if len(heard) == 200:
                            break
            return heard

        events = [asyncio.Event() for _ in range(6)]
        kinds = ["message", "pmessage"] * 3
        tasks = [asyncio.create_task(listen(event, kind)) for event, kind in zip(events, kinds, strict=True)]
        for event in events:
            await event.wait()
        for number in range(200):
            assert await client.publish("news", number) == 6
        expected = [b"%d" % number for number in range(200)]
        assert await asyncio.gather(*tasks) == [expected] * 6

    run(test)


def test_waiting_tasks_are_served_and_may_be_cancelled(run: Callable[[Test], None]) -> None:
    async def test(client: Any) -> None:
        async def waiting(count: int) -> None:
            while (await client.info("clients"))["blocked_clients"] != count:
                pass

        tasks = []
        for number in range(3):
            tasks.append(asyncio.create_task(client.blpop("queue", timeout=PATIENCE)))
            await waiting(number + 1)
        tasks[1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[1]
        # Its connection is closed; nothing is handed to somebody who left.
        await waiting(2)
        assert await client.rpush("queue", "a", "b", "c") == 3
        assert [list(await tasks[place]) for place in (0, 2)] == [[b"queue", b"a"], [b"queue", b"b"]]
        assert await client.lrange("queue", 0, -1) == [b"c"]

    run(test)


def test_scanning(run: Callable[[Test], None]) -> None:
    async def test(client: Any) -> None:
        names = [b"%04d" % number for number in range(2000)]
        await client.mset(dict.fromkeys(names, 1))
        found = set()
        async for name in client.scan_iter(count=100):
            found.add(name)
            if len(found) % 20 == 1:
                await client.set(b"new" + name, 1)
        assert set(names) <= found

    run(test)
