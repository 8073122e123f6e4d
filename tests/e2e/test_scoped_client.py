"""Clients that follow scopes, against three real nodes that write a scope each."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import redis
import trio
from e2e.replicating import DEBUGGING, free_ports
from support.node_process import NodeProcess

from kevynode import ReplyError, ScopedClient
from kevynode.client import DeadlinePassed
from kevynode.redis_scoped import AsyncScopedRedis, ScopedRedis, Uncertain

NAMES = ("a", "b", "c")


class Three:
    """Nodes a, b and c. Each writes the prefix that is its name and a colon."""

    def __init__(self) -> None:
        self.ports = {name: free_ports()[0] for name in NAMES}
        self.nodes: dict[str, NodeProcess] = {}
        self._folders: dict[str, str] = {}
        # Their folders are those of who came after them.
        self._dead: list[NodeProcess] = []
        for name in NAMES:
            self.start(name)

    @property
    def addresses(self) -> list[str]:
        """Where clients connect, a's first."""
        return [f"127.0.0.1:{self.ports[name]}" for name in NAMES]

    def start(self, name: str) -> None:
        """Start a node, with the data that it had, on the ports that it had."""
        config = f'[cluster]\nnode_id = "{name}"\n'
        for peer, port in self.ports.items():
            config += f'[[cluster.peer]]\nid = "{peer}"\naddress = "127.0.0.1:{port}"\n'
        for writer in NAMES:
            config += f'[[cluster.scope]]\nprefix = "{writer}:"\nwriter = "{writer}"\n'
        folder = ["--dir", self._folders[name]] if name in self._folders else []
        node = NodeProcess("--port", str(self.ports[name]), *folder, config=config, environment=DEBUGGING)
        self._folders.setdefault(name, str(node.directory))
        self.nodes[name] = node

    def kill(self, name: str) -> None:
        """End a node as a crash does."""
        self.nodes[name].send_signal(signal.SIGKILL)
        self.nodes[name].wait()
        self._dead.append(self.nodes[name])

    def stop(self) -> None:
        """End them all."""
        for node in (*self.nodes.values(), *self._dead):
            node.stop()

    def copied(self, key: str, value: bytes) -> None:
        """Wait until every node has a value."""
        for node in self.nodes.values():
            with redis.Redis(host=node.host, port=node.port) as client:
                node.wait_until(lambda client=client: client.get(key) == value, f"{key} is {value!r}")  # type: ignore[misc]


@pytest.fixture(scope="module")
def three() -> Iterator[Three]:
    """Three nodes that know each other and take writes."""
    nodes = Three()
    try:

        async def open_all() -> None:
            async with ScopedClient(nodes.addresses, timeout=20) as client:
                for name in NAMES:
                    await client.call("SET", f"{name}:opened", 1)

        trio.run(open_all)
        yield nodes
    finally:
        nodes.stop()


def run(three: Three, test: Callable[[ScopedClient], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        async with ScopedClient(three.addresses, **{"timeout": 20, **options}) as client:
            await test(client)

    trio.run(main)


@pytest.mark.parametrize("protocol", [2, 3])
def test_writes_find_their_writer_and_reads_are_answered_nearby(three: Three, protocol: int) -> None:
    async def test(client: ScopedClient) -> None:
        for name in NAMES:
            for number in range(20):
                assert await client.call("SET", f"{name}:{number}", f"{name}{number}") == "OK"
            assert await client.call("GET", f"{name}:19", at_writer=True) == f"{name}19".encode()
        # By now it knows the prefixes, and takes what goes through for granted.
        await client.call("SET", "a:last", 1)
        for name, address in zip(NAMES, three.addresses, strict=True):
            assert client.routes.writer(f"{name}:other".encode()) == address
        three.copied("c:19", b"c19")
        assert await client.call("GET", "c:19") == b"c19"
        assert await client.call("HSET", "b:h", "f", "v") in (0, 1)
        assert await client.call("HGETALL", "b:h", at_writer=True) in ([b"f", b"v"], {b"f": b"v"})

    run(three, test, protocol=protocol)


def test_pipelines_and_transactions(three: Three) -> None:
    async def test(client: ScopedClient) -> None:
        await client.call("DEL", "b:counter", "b:big")
        counts = await client.pipeline([("INCR", "b:counter")] * 100)
        assert counts == list(range(1, 101))
        assert await client.pipeline([("INCR", "b:counter"), ("GET", "b:counter")], transaction=True) == [101, b"101"]
        big = b"x" * 300_000
        assert await client.pipeline([("APPEND", "b:big", big), ("GETRANGE", "b:big", 0, -1)] * 3) == [
            reply for number in (1, 2, 3) for reply in (number * len(big), big * number)
        ]
        with pytest.raises(ReplyError, match="CROSSSCOPE"):
            await client.call("MSET", "a:1", 1, "b:1", 1)

    run(three, test)


def test_a_writer_that_is_killed_and_comes_back(three: Three) -> None:
    """Every call ends well or says that nobody knows; what was confirmed is there."""
    confirmed: list[int] = []
    uncertain: list[int] = []

    async def test(client: ScopedClient) -> None:
        await client.call("DEL", "b:list")
        moments = {number: trio.Event() for number in (200, 400)}

        async def write() -> None:
            for number in count(1):
                try:
                    await client.call("RPUSH", "b:list", number)
                except Uncertain:
                    uncertain.append(number)
                    continue
                confirmed.append(number)
                if len(confirmed) in moments:
                    moments[len(confirmed)].set()
                    if len(confirmed) == max(moments):
                        return

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            await moments[200].wait()
            three.kill("b")
            for _ in range(100):
                # Meanwhile the copies answer, and the writer tries.
                assert await client.call("LLEN", "b:list") > 0
            three.start("b")
        stored = [int(item) for item in await client.call("LRANGE", "b:list", 0, -1, at_writer=True)]
        assert stored == sorted(set(stored)), "a write was done twice, or out of order"
        assert set(confirmed) <= set(stored)
        assert set(stored) <= set(confirmed) | set(uncertain)
        assert len(uncertain) <= 1

    run(three, test)


@pytest.mark.slow
def test_a_scope_that_moves_to_and_fro_under_writes(three: Three) -> None:
    """No call fails, and every write is there once and in order."""
    confirmed: list[int] = []

    def move(source: str, target: str) -> None:
        with redis.Redis(port=three.ports[source], socket_timeout=40) as node:
            assert node.execute_command("MOVE-SCOPE", "b:", "FROM", source, "TO", target).startswith(b"OK")

    async def test(client: ScopedClient) -> None:
        await client.call("DEL", "b:moving")
        progress = trio.Event()
        wanted = 0
        ended = False

        async def write() -> None:
            for number in count(1):
                await client.call("RPUSH", "b:moving", number)
                confirmed.append(number)
                if len(confirmed) >= wanted:
                    progress.set()
                if ended:
                    return

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            for source, target in [("b", "c"), ("c", "b")] * 4:
                wanted, progress = len(confirmed) + 50, trio.Event()
                await progress.wait()
                await trio.to_thread.run_sync(move, source, target)
            ended = True
        stored = [int(item) for item in await client.call("LRANGE", "b:moving", 0, -1, at_writer=True)]
        assert stored == confirmed

    run(three, test, timeout=30)


def test_idle_connections_to_a_node_that_was_restarted_cost_no_write(three: Three) -> None:
    async def test(client: ScopedClient) -> None:
        assert await client.call("SET", "c:idle", 1) == "OK"
        three.kill("c")
        three.start("c")
        assert await client.call("INCR", "c:idle") == 2

    run(three, test)


def test_without_the_writer_a_write_ends_at_its_deadline(three: Three) -> None:
    async def test(client: ScopedClient) -> None:
        three.kill("c")
        with pytest.raises(DeadlinePassed, match=str(three.ports["c"])):
            await client.call("SET", "c:1", "x", timeout=0.5)
        assert await client.call("SET", "a:1", "x") == "OK"
        three.start("c")
        assert await client.call("SET", "c:1", "x") == "OK"

    run(three, test)


def test_the_examples_of_the_page(three: Three, capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[2] / "docs" / "clients.md").read_text(encoding="utf-8")
    programs = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "import" in block]
    with scoped(three) as client:
        client.delete("b:n")
        client.delete("c:n")
    names: dict[str, Any] = {}
    for program in programs:
        exec(compile(program, "clients.md", "exec"), names)
    trio.run(names["main"], three.addresses)
    names["colours"](three.addresses)
    asyncio.run(names["colours_too"](three.addresses))
    assert capsys.readouterr().out == "b'blue'\n[1, 2]\ngreen\n[1, 2]\nb'red'\n"


# -- redis-py ---------------------------------------------------------------------------------------------------------


def scoped(three: Three, **options: Any) -> ScopedRedis:
    return ScopedRedis(
        host="127.0.0.1", port=three.ports["a"], nodes=three.addresses[1:], timeout=20, decode_responses=True, **options
    )


def test_redis_py(three: Three) -> None:
    with scoped(three) as client:
        for name in NAMES:
            assert client.set(f"{name}:r", name) is True
            assert client.hset(f"{name}:rh", mapping={"f": 1}) in (0, 1)
            assert client.execute_command("GET", f"{name}:r", at_writer=True) == name
            assert client.execute_command("HGETALL", f"{name}:rh", at_writer=True) == {"f": "1"}
        with pytest.raises(redis.ResponseError, match="CROSSSCOPE"):
            client.mset({"a:1": 1, "b:1": 1})
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            client.lpush("b:r", 1)
        assert client.ping() is True
        with client.client_for("b:r").pipeline() as pipeline:
            assert pipeline.set("b:p", 1).incr("b:p").execute() == [True, 2]


def test_redis_py_meets_a_restart(three: Three) -> None:
    with scoped(three) as client:
        client.set("b:n", 0)
        three.kill("b")
        # Nodes end with the thread that started them, so it is the client who gets one of its own.
        with ThreadPoolExecutor(1) as other:
            answer = other.submit(client.incr, "b:n")
            three.start("b")
            assert answer.result() == 1
        assert client.incr("b:n") == 2
        # It lies idle while the node is replaced.
        three.kill("b")
        three.start("b")
        assert client.incr("b:n") == 3


def test_redis_py_ends_at_the_deadline(three: Three) -> None:
    three.kill("c")
    try:
        with scoped(three) as client:
            client.timeout = 0.5
            with pytest.raises(DeadlinePassed):
                client.set("c:1", "x")
            assert client.get("a:opened") == "1"
    finally:
        three.start("c")


@pytest.mark.parametrize("client_class", [ScopedRedis, AsyncScopedRedis])
def test_redis_py_clients_of_one_connection_are_refused(client_class: Any) -> None:
    with pytest.raises(ValueError, match="single_connection_client"):
        client_class(host="127.0.0.1", single_connection_client=True)


@pytest.mark.parametrize("client_class", [ScopedRedis, AsyncScopedRedis])
def test_redis_py_clients_from_a_url(client_class: Any) -> None:
    client = client_class.from_url("redis://10.0.0.1:7001/0", nodes=["10.0.0.2:7001"])
    assert client.routes.nodes == ("10.0.0.1:7001", "10.0.0.2:7001")
    with pytest.raises(ValueError, match="host"):
        client_class.from_url("unix:///tmp/socket")


def test_redis_py_with_asyncio(three: Three) -> None:
    async def main() -> None:
        async with AsyncScopedRedis(
            host="127.0.0.1", port=three.ports["a"], nodes=three.addresses[1:], timeout=20
        ) as client:
            for name in NAMES:
                assert await client.set(f"{name}:r", name) is True
                assert await client.execute_command("GET", f"{name}:r", at_writer=True) == name.encode()
            await client.delete("b:n")
            assert sorted(await asyncio.gather(*(client.incr("b:n") for _ in range(50)))) == list(range(1, 51))
            with pytest.raises(redis.ResponseError, match="CROSSSCOPE"):
                await client.mset({"a:1": 1, "b:1": 1})
            await asyncio.to_thread(three.kill, "b")
            answer: asyncio.Future[int] = asyncio.ensure_future(client.incr("b:n"))
            for _ in range(50):
                assert await client.get("a:opened") == b"1"
            three.start("b")
            assert await answer == 51
            with pytest.raises(Uncertain):
                await stopped_in_the_middle(client)

    async def stopped_in_the_middle(client: Any) -> None:
        """The node takes the command and answers nothing more in time."""
        three.nodes["b"].send_signal(signal.SIGSTOP)
        client.timeout = 0.5
        try:
            await client.incr("b:n")
        finally:
            three.nodes["b"].send_signal(signal.SIGCONT)

    asyncio.run(main())
