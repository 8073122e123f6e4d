"""What programs build from commands, over redis-py and valkey-py: pipelines, transactions, pub/sub, waits, scans."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from e2e.libraries import Library
from support.node_process import NodeProcess

# Seconds that a thread of a test may take.
PATIENCE = 30


def test_a_pipeline_of_thousands(client: Any) -> None:
    with client.pipeline(transaction=False) as pipe:
        for number in range(3000):
            pipe.set(f"key:{number}", number).incr("counter")
        replies = pipe.execute()
    assert replies == [reply for number in range(3000) for reply in (True, number + 1)]
    assert client.mget("key:0", "key:2999") == [b"0", b"2999"]


def test_an_error_inside_a_pipeline_stays_at_its_place(client: Any, library: Library) -> None:
    with client.pipeline(transaction=False) as pipe:
        pipe.set("k", "v").incr("k").get("k")
        first, error, last = pipe.execute(raise_on_error=False)
    assert (first, last) == (True, b"v")
    assert isinstance(error, library.module.ResponseError)
    assert "not an integer" in str(error)


def test_a_transaction_is_all_or_nothing(client: Any, library: Library) -> None:
    with client.pipeline() as pipe:
        assert pipe.set("a", 1).lpush("l", "x").incr("a").execute() == [True, 1, 2]
    with client.pipeline() as pipe:
        pipe.set("a", "refused").execute_command("NONSENSE")
        with pytest.raises(library.module.ResponseError, match="unknown command"):
            pipe.execute()
    assert client.get("a") == b"2"


def test_watch_sees_a_change_and_the_library_tries_again(connect: Callable[..., Any]) -> None:
    client, rival = connect(), connect()
    client.set("balance", 100)
    seen: list[int] = []

    def withdraw(pipe: Any) -> None:
        balance = int(pipe.get("balance"))
        seen.append(balance)
        if len(seen) < 4:
            rival.decrby("balance", 10)
        pipe.multi()
        pipe.set("balance", balance - 1)

    assert client.transaction(withdraw, "balance") == [True]
    assert seen == [100, 90, 80, 70]
    assert client.get("balance") == b"69"


def test_watch_from_several_threads_loses_no_increment(connect: Callable[..., Any]) -> None:
    client = connect()

    def increment() -> None:
        for _ in range(25):
            client.transaction(lambda pipe: add_one(pipe), "counter")

    def add_one(pipe: Any) -> None:
        value = int(pipe.get("counter") or 0)
        pipe.multi()
        pipe.set("counter", value + 1)

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(increment) for _ in range(4)]:
            done.result(PATIENCE)
    assert client.get("counter") == b"100"


def test_a_lock_without_scripts(connect: Callable[..., Any]) -> None:
    holder, rival = connect(), connect()
    assert holder.set("lock", "token of the holder", nx=True, px=60_000) is True
    assert rival.set("lock", "token of the rival", nx=True, px=60_000) is None

    def release(pipe: Any) -> None:
        mine = pipe.get("lock") == b"token of the holder"
        pipe.multi()
        if mine:
            pipe.delete("lock")

    assert holder.transaction(release, "lock") == [1]
    assert rival.set("lock", "token of the rival", nx=True, px=60_000) is True
    assert holder.transaction(release, "lock") == []
    assert rival.get("lock") == b"token of the rival"


def received(listener: Any) -> dict[str, Any]:
    """The next message of a pub/sub object."""
    message = listener.get_message(timeout=PATIENCE)
    assert message is not None
    return {name: message[name] for name in ("type", "pattern", "channel", "data")}


def message(kind: str, channel: bytes, data: object, pattern: bytes | None = None) -> dict[str, Any]:
    return {"type": kind, "pattern": pattern, "channel": channel, "data": data}


def test_channels_and_patterns(connect: Callable[..., Any]) -> None:
    publisher, binary = connect(), bytes(range(256))
    with connect().pubsub() as listener:
        listener.subscribe("news", "weather")
        listener.psubscribe("n*", "[xyz]")
        assert [received(listener) for _ in range(4)] == [
            message("subscribe", b"news", 1),
            message("subscribe", b"weather", 2),
            message("psubscribe", b"n*", 3),
            message("psubscribe", b"[xyz]", 4),
        ]
        assert publisher.publish("news", binary) == 2
        assert publisher.publish("x", "to the pattern") == 1
        assert publisher.publish("nowhere else", "n*") == 1
        assert publisher.publish("unheard", "!") == 0
        assert [received(listener) for _ in range(4)] == [
            message("message", b"news", binary),
            message("pmessage", b"news", binary, b"n*"),
            message("pmessage", b"x", b"to the pattern", b"[xyz]"),
            message("pmessage", b"nowhere else", b"n*", b"n*"),
        ]
        assert sorted(publisher.pubsub_channels()) == [b"news", b"weather"]
        assert publisher.pubsub_numsub("news", "unheard") == [(b"news", 1), (b"unheard", 0)]
        assert publisher.pubsub_numpat() == 2
        listener.unsubscribe("news")
        listener.punsubscribe()
        assert [received(listener)["type"] for _ in range(3)] == ["unsubscribe", "punsubscribe", "punsubscribe"]
        assert publisher.publish("news", "unheard") == 0
        assert publisher.publish("weather", "fine") == 1
        assert received(listener) == message("message", b"weather", b"fine")


def test_every_listener_hears_everything_in_order(connect: Callable[..., Any]) -> None:
    publisher, listeners = connect(), [connect().pubsub(ignore_subscribe_messages=True) for _ in range(5)]
    for listener in listeners:
        listener.subscribe("stream")
        assert listener.get_message(timeout=PATIENCE) is None
    with publisher.pipeline(transaction=False) as pipe:
        for number in range(500):
            pipe.publish("stream", number)
        assert pipe.execute() == [5] * 500
    for listener in listeners:
        heard = [received(listener)["data"] for _ in range(500)]
        assert heard == [b"%d" % number for number in range(500)]
        listener.close()


def test_keyspace_events(connect: Callable[..., Any]) -> None:
    client = connect()
    client.config_set("notify-keyspace-events", "KEA")
    with connect().pubsub(ignore_subscribe_messages=True) as listener:
        listener.psubscribe("__key*__:*")
        assert listener.get_message(timeout=PATIENCE) is None
        client.rpush("queue", "a")
        assert received(listener) == message("pmessage", b"__keyspace@0__:queue", b"rpush", b"__key*__:*")
        assert received(listener) == message("pmessage", b"__keyevent@0__:rpush", b"queue", b"__key*__:*")
    client.config_set("notify-keyspace-events", "")


def waiting(client: Any) -> int:
    """How many clients wait in a blocking command."""
    return int(client.info("clients")["blocked_clients"])


def start_waiting(
    node: NodeProcess, client: Any, threads: ThreadPoolExecutor, calls: list[Callable[[], Any]]
) -> list[Future[Any]]:
    """Run each call in a thread, one after the other has begun to wait."""
    futures = []
    for number, call in enumerate(calls, 1):
        futures.append(threads.submit(call))
        node.wait_until(lambda number=number: waiting(client) == number, "a client waits")  # type: ignore[misc]
    return futures


def test_those_who_wait_are_served_in_turn(connect: Callable[..., Any], node: NodeProcess) -> None:
    client = connect()
    with ThreadPoolExecutor(4) as threads:
        futures = start_waiting(
            node,
            client,
            threads,
            [
                lambda: client.blpop(["first", "second"], timeout=PATIENCE),
                lambda: client.brpop("first", timeout=PATIENCE),
                lambda: client.blmove("first", "moved", PATIENCE, "LEFT", "RIGHT"),
                lambda: client.bzpopmin("board", timeout=PATIENCE),
            ],
        )
        assert client.rpush("first", "a", "b", "c") == 3
        assert [list(future.result(PATIENCE)) for future in futures[:2]] == [[b"first", b"a"], [b"first", b"c"]]
        assert futures[2].result(PATIENCE) == b"b"
        assert client.lrange("moved", 0, -1) == [b"b"]
        assert not futures[3].done()
        client.zadd("board", {"low": 1, "high": 2})
        assert list(futures[3].result(PATIENCE)) == [b"board", b"low", 1.0]
    assert waiting(client) == 0


def test_a_wait_ends_with_its_time_or_by_another_client(connect: Callable[..., Any], node: NodeProcess) -> None:
    client = connect()
    assert client.blpop("nothing", timeout=0.01) is None
    sleeper = connect(single_connection_client=True)
    identity = sleeper.client_id()
    with ThreadPoolExecutor(1) as threads:
        [future] = start_waiting(node, client, threads, [lambda: sleeper.blpop("nothing", timeout=PATIENCE)])
        assert client.client_unblock(identity) == 1
        assert future.result(PATIENCE) is None
    assert sleeper.client_id() == identity


def test_a_queue_between_producers_and_workers(connect: Callable[..., Any]) -> None:
    client = connect()

    def work() -> list[bytes]:
        done = []
        while (job := client.blpop("jobs", timeout=PATIENCE)[1]) != b"stop":
            done.append(job)
        return done

    def produce(name: str) -> None:
        for number in range(100):
            client.rpush("jobs", f"{name}{number}")

    with ThreadPoolExecutor(7) as threads:
        workers = [threads.submit(work) for _ in range(4)]
        for producer in [threads.submit(produce, name) for name in "abc"]:
            producer.result(PATIENCE)
        client.rpush("jobs", *["stop"] * 4)
        done = [job for worker in workers for job in worker.result(PATIENCE)]
    assert sorted(done) == sorted(b"%b%d" % (name, number) for name in (b"a", b"b", b"c") for number in range(100))
    assert client.llen("jobs") == 0


def test_a_scan_finds_all_that_stays_while_others_write(connect: Callable[..., Any]) -> None:
    client, writer = connect(), connect()
    staying = {b"stay:%d" % number for number in range(3000)}
    client.mset(dict.fromkeys(staying, "x"))
    client.mset({f"go:{number}": "x" for number in range(1000)})
    found: list[bytes] = []
    for number, key in enumerate(client.scan_iter(count=50)):
        found.append(key)
        if number % 10 == 0:
            writer.set(f"new:{number}", "x")
            writer.delete(f"go:{number // 10}")
    assert staying <= set(found)
    assert set(client.scan_iter(match="stay:1?", count=500)) == {b"stay:%d" % number for number in range(10, 20)}
    assert set(client.scan_iter(count=1000, _type="hash")) == set()


def test_scans_inside_large_values(client: Any) -> None:
    names = [b"%05d" % number for number in range(3000)]
    client.hset("h", mapping=dict.fromkeys(names, b"v"))
    client.sadd("s", *names)
    client.zadd("z", {name: float(name) for name in names})
    assert dict(client.hscan_iter("h", count=100)) == dict.fromkeys(names, b"v")
    assert set(client.sscan_iter("s", match="0000*", count=100)) == set(names[:10])
    assert dict(client.zscan_iter("z", count=100)) == {name: float(name) for name in names}


@pytest.mark.parametrize("pool_name", ["ConnectionPool", "BlockingConnectionPool"])
def test_threads_share_a_pool(library: Library, node: NodeProcess, pool_name: str) -> None:
    most = 4 if pool_name == "BlockingConnectionPool" else 8
    pool = getattr(library.module, pool_name)(host=node.host, port=node.port, max_connections=most, **library.options)
    client = library.client_class(connection_pool=pool)
    start = threading.Barrier(8)

    def use(thread: int) -> None:
        start.wait(PATIENCE)
        for number in range(50):
            client.set(f"own:{thread}", number)
            client.incr("shared")
            assert int(client.get(f"own:{thread}")) == number

    with ThreadPoolExecutor(8) as threads:
        for future in [threads.submit(use, thread) for thread in range(8)]:
            future.result(PATIENCE)
    assert client.get("shared") == b"400"
    assert 1 <= int(client.info("clients")["connected_clients"]) <= most
    client.close()
    pool.disconnect()
