"""redis-py's scope-following clients against scripted nodes, over real sockets: every answer, in both worlds."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import pytest
import redis
import trio
from support.scripted_nodes import Ends, Script, ScriptedNode

from kevynode.client_errors import DeadlinePassed, RedirectLoop, Uncertain
from kevynode.redis_scoped import AsyncScopedRedis, ScopedRedis
from kevynode.transport import SystemTransport

OK = b"+OK\r\n"


@contextmanager
def serving(*scripts: Script) -> Iterator[list[ScriptedNode]]:
    """Nodes on free loopback ports, in a thread of their own."""
    transport = SystemTransport()
    nodes = [ScriptedNode(transport, 0, greeted(script), "127.0.0.1") for script in scripts]
    ready = threading.Event()
    stop: list[Callable[[], None]] = []

    async def serve() -> None:
        async with trio.open_nursery() as nursery:
            for node in nodes:
                await nursery.start(node.run)
            token = trio.lowlevel.current_trio_token()
            stop.append(lambda: token.run_sync_soon(nursery.cancel_scope.cancel))
            ready.set()
            await trio.sleep_forever()

    thread = threading.Thread(target=trio.run, args=(serve,))
    thread.start()
    assert ready.wait(10)
    try:
        yield nodes
    finally:
        stop[0]()
        thread.join()


def greeted(script: Script) -> Script:
    """What redis-py says when it connects is answered for it."""

    def answer(words: list[bytes]) -> bytes | Ends | None:
        if words[0].upper() == b"HELLO":
            return b"%1\r\n+proto\r\n:3\r\n"
        return OK if words[0].upper() == b"CLIENT" else script(words)

    return answer


def asked(node: ScriptedNode) -> list[str]:
    return [name for name in node.names() if name not in ("HELLO", "CLIENT")]


def always(answer: bytes | Ends | None) -> Script:
    return lambda words: answer


def in_turn(*answers: bytes | Ends | None) -> Script:
    left = list(answers)
    return lambda words: left.pop(0) if len(left) > 1 else left[0]


def misdirected(node: ScriptedNode) -> bytes:
    return f"-MISDIRECTED writer is {node.address}\r\n".encode()


Call: TypeAlias = Callable[..., Any]


def call_blocking(nodes: list[ScriptedNode], *words: Any, times: int = 1, **options: Any) -> Any:
    host, _, port = nodes[0].address.rpartition(":")
    settings = {
        "timeout": 5.0,
        "hops": 8,
        **{name: options.pop(name) for name in ("timeout", "hops") if name in options},
    }
    with ScopedRedis(host=host, port=int(port), nodes=[node.address for node in nodes[1:]], **settings) as client:
        return [client.execute_command(*words, **options) for _ in range(times)][-1]


def call_asyncio(nodes: list[ScriptedNode], *words: Any, times: int = 1, **options: Any) -> Any:
    host, _, port = nodes[0].address.rpartition(":")
    settings = {
        "timeout": 5.0,
        "hops": 8,
        **{name: options.pop(name) for name in ("timeout", "hops") if name in options},
    }

    async def main() -> Any:
        addresses = [node.address for node in nodes[1:]]
        async with AsyncScopedRedis(host=host, port=int(port), nodes=addresses, **settings) as client:
            return [await client.execute_command(*words, **options) for _ in range(times)][-1]

    return asyncio.run(main())


@pytest.fixture(params=[call_blocking, call_asyncio], ids=["blocking", "asyncio"])
def call(request: pytest.FixtureRequest) -> Call:
    """Makes calls with one of the two clients."""
    found: Call = request.param
    return found


def test_a_redirect_is_followed_and_remembered(call: Call) -> None:
    with serving(always(b"-ERR\r\n"), always(OK)) as nodes:
        nodes[0].script = greeted(always(misdirected(nodes[1])))
        assert call(nodes, "SET", "a:1", "x", times=3) is True
        # The second is the question for the prefixes.
        assert asked(nodes[0]) == ["SET", "INFO"]
        assert asked(nodes[1]) == ["SET"] * 3


@pytest.mark.parametrize(
    "refusal",
    [b"-QUIESCED migrating to 127.0.0.1:1\r\n", b"-LOADING x\r\n", b"-NOREPLICAS x\r\n", b"-READONLY x\r\n"],
)
def test_not_now_is_waited_out(call: Call, refusal: bytes) -> None:
    with serving(in_turn(refusal, refusal, OK)) as nodes:
        assert call(nodes, "SET", "a:1", "x") is True
        assert asked(nodes[0]) == ["SET"] * 3
    with serving(always(refusal)) as nodes, pytest.raises(DeadlinePassed, match=refusal[1:].split()[0].decode()):
        call(nodes, "SET", "a:1", "x", timeout=0.2)


@pytest.mark.parametrize("refusal", [b"-STALE x\r\n", b"-LOADING x\r\n", b"-MASTERDOWN x\r\n"])
def test_a_read_is_answered_by_another_node(call: Call, refusal: bytes) -> None:
    with serving(always(refusal), always(b"$1\r\nx\r\n")) as nodes:
        assert call(nodes, "GET", "a:1") == b"x"


def test_a_loop_of_redirects_ends(call: Call) -> None:
    with serving(always(OK), always(OK)) as nodes:
        nodes[0].script, nodes[1].script = (
            greeted(lambda words: b"-ERR x\r\n" if words[0] == b"INFO" else misdirected(nodes[1])),
            greeted(lambda words: b"-ERR x\r\n" if words[0] == b"INFO" else misdirected(nodes[0])),
        )
        with pytest.raises(RedirectLoop):
            call(nodes, "SET", "a:1", "x", hops=3)
        assert sum(asked(node).count("SET") for node in nodes) == 4


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b"-MISCONF disk\r\n", redis.exceptions.ResponseError),
        (b"-OOM full\r\n", redis.exceptions.OutOfMemoryError),
        (b"-WRONGTYPE x\r\n", redis.exceptions.ResponseError),
    ],
)
def test_other_errors_are_redis_pys(call: Call, line: bytes, kind: type[Exception]) -> None:
    with serving(always(line)) as nodes:
        with pytest.raises(kind):
            call(nodes, "SET", "a:1", "x")
        assert asked(nodes[0]) == ["SET"]


@pytest.mark.parametrize("partial", [b"", b"$5\r\nab"])
def test_a_write_without_an_answer_is_never_repeated(call: Call, partial: bytes) -> None:
    with serving(always(Ends(partial)), always(OK)) as nodes:
        with pytest.raises(Uncertain):
            call(nodes, "INCR", "a:1")
        assert [asked(node) for node in nodes] == [["INCR"], []]
        assert call(nodes, "SET", "a:1", "x", idempotent=True) is True
        assert call(nodes, "GET", "a:1") == b"OK"


def test_a_silent_node(call: Call) -> None:
    with serving(always(None)) as nodes:
        with pytest.raises(Uncertain):
            call(nodes, "INCR", "a:1", timeout=0.2)
        with pytest.raises(DeadlinePassed):
            call(nodes, "GET", "a:1", timeout=0.2)


def test_a_read_at_the_writer(call: Call) -> None:
    def writer(words: list[bytes]) -> bytes:
        return b"$5\r\nfresh\r\n" if words[0] == b"GET" else b"-WRONGTYPE x\r\n"

    with serving(always(OK), writer) as nodes:
        nodes[0].script = greeted(
            lambda words: b"$5\r\nstale\r\n" if words[0] == b"GET" else misdirected(nodes[1]),
        )
        assert call(nodes, "GET", "a:1") == b"stale"
        assert call(nodes, "GET", "a:1", at_writer=True, times=2) == b"fresh"
        # Refused and failed at once: the refusal is what counts.
        nodes[0].script = greeted(lambda words: b"-STALE x\r\n" if words[0] == b"GET" else misdirected(nodes[1]))
        assert call(nodes, "GET", "a:1", at_writer=True) == b"fresh"


def test_a_read_of_several_keys_at_the_writer_asks_for_all_of_them(call: Call) -> None:
    def writer(words: list[bytes]) -> bytes:
        return b"*1\r\n$5\r\nfresh\r\n" if words[0] == b"MGET" else b"-ERR syntax error\r\n"

    with serving(always(OK), writer) as nodes:

        def copy(words: list[bytes]) -> bytes:
            if words[0] == b"LMPOP" and b"b:1" in words:
                return b"-CROSSSCOPE keys of the scopes a: and b:\r\n"
            return b"*1\r\n$5\r\nstale\r\n" if words[0] == b"MGET" else misdirected(nodes[1])

        nodes[0].script = greeted(copy)
        assert call(nodes, "MGET", "free", "a:1", at_writer=True) == [b"fresh"]
        with pytest.raises(redis.exceptions.ResponseError, match="CROSSSCOPE"):
            call(nodes, "MGET", "a:1", "b:1", at_writer=True)


def test_the_end_of_a_write_that_was_lost_is_uncertain(call: Call) -> None:
    with serving(always(Ends())) as nodes, pytest.raises(Uncertain):
        call(nodes, "SET", "a:1", "x", idempotent=True, timeout=0.3)


def test_reads_of_asyncio_leave_a_silent_node_while_there_is_time() -> None:
    with serving(always(None), always(b"$1\r\nx\r\n")) as nodes:
        assert call_asyncio(nodes, "GET", "a:1", timeout=1.0) == b"x"


def test_reads_without_asyncio_leave_a_silent_node_in_the_time_of_the_socket() -> None:
    with serving(always(None), always(b"$1\r\nx\r\n")) as nodes:
        host, _, port = nodes[0].address.rpartition(":")
        with ScopedRedis(host=host, port=int(port), nodes=[nodes[1].address], socket_timeout=0.3) as client:
            assert client.get("a:1") == b"x"


def test_what_is_about_the_connection_goes_to_the_nearest_node(call: Call) -> None:
    with serving(always(OK), always(b"-ERR\r\n")) as nodes:
        assert call(nodes, "SELECT", 0) is True
        assert call(nodes, "CONFIG SET", "maxmemory", 0) is True
        assert asked(nodes[0]) == ["SELECT", "CONFIG"]
        assert nodes[0].asked[-1] == [b"CONFIG", b"SET", b"maxmemory", b"0"]


@pytest.mark.parametrize("client_class", [ScopedRedis, AsyncScopedRedis])
@pytest.mark.parametrize("options", [{"timeout": 0}, {"hops": -1}, {"nodes": ["nowhere"]}])
def test_options_that_make_no_sense(client_class: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        client_class(host="127.0.0.1", **options)


def test_a_url_with_tls_is_understood() -> None:
    client = ScopedRedis.from_url("rediss://user:word@10.0.0.1:7001", timeout=2.0)
    assert client.connection_pool.connection_class is redis.SSLConnection
    assert client.connection_pool.connection_kwargs["password"] == "word"
    assert client.connection_pool.connection_kwargs["socket_timeout"] == 2.0
    client.close()
