"""Clients that behave badly, over real sockets: the node goes on serving the others, and its log stays clean."""

from __future__ import annotations

import errno
import os
import resource
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random

import pytest
from support.node_process import NodeProcess
from support.raw_client import CLOSED, RawClient, Reply, encode

PONG = Reply("simple", b"PONG")
# Random input of one run is repeated with KEVYNODE_TEST_SEED.
SEED = int(os.environ.get("KEVYNODE_TEST_SEED", "0")) or Random().getrandbits(32)
KIB = 1024

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="memory and time of another process are read from /proc")


@contextmanager
def open_files(count: int) -> Iterator[None]:
    """Let this process open so many files, if it may; skips the test otherwise."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        if hard != resource.RLIM_INFINITY and hard < count:
            pytest.skip(f"this process may open only {hard} files")
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def resident(node: NodeProcess) -> int:
    """Bytes of the node's memory that are in use."""
    pages = int(Path(f"/proc/{node.pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def processor_seconds(node: NodeProcess) -> float:
    """Seconds of processor time that the node has used."""
    fields = Path(f"/proc/{node.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def connect(node: NodeProcess) -> socket.socket:
    connection = socket.create_connection((node.host, node.port), 10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def connected(client: RawClient) -> int:
    """How many clients the node has, this one included."""
    return len(client.call(b"CLIENT", b"LIST").value.splitlines()) - 1


def work(client: RawClient) -> None:
    """A counted number of commands, so that the node's processor time can be compared."""
    for _ in range(1000):
        assert client.call(b"SET", b"key", b"value").value == b"OK"
    for _ in range(40):
        assert len(client.pipeline([(b"GET", b"key")] * 250)) == 250


HALVES = {
    "nothing at all": b"",
    "half an inline command": b"SET key val",
    "half a header": b"*3\r\n$3\r\nSET\r\n$3\r",
    "half an argument": b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$100\r\n" + b"x" * 50,
    "the promise of a giant": b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$536870912\r\nxx",
    "the promise of many": b"*1048576\r\n$3\r\nSET\r\n$3\r\nkey\r\n",
}


@on_linux
def test_a_thousand_silent_halves_cost_little_memory_and_no_time(node: NodeProcess) -> None:
    with open_files(1500), ExitStack() as stack:
        client = stack.enter_context(RawClient(node.host, node.port))
        before_all = connected(client)
        work(client)
        start = processor_seconds(node)
        work(client)
        alone = processor_seconds(node) - start

        memory = resident(node)
        halves = list(HALVES.values())
        for number in range(1000):
            stack.enter_context(connect(node)).sendall(halves[number % len(halves)])
        node.wait_until(lambda: connected(client) == before_all + 1000, "all are connected")
        node.wait_until(lambda: half_commands(client) >= 600, "what they sent has arrived")
        assert resident(node) - memory < 1000 * 32 * KIB
        start = processor_seconds(node)
        work(client)
        # The clock of processes ticks in hundredths; a node that looked at the silent ones would need many times that.
        assert processor_seconds(node) - start < 3 * alone + 0.3
    with RawClient(node.host, node.port) as client:
        node.wait_until(lambda: connected(client) == before_all, "all are gone")


def half_commands(client: RawClient) -> int:
    """Clients of whose commands a part has arrived."""
    listed = client.call(b"CLIENT", b"LIST").value
    return sum(b" qbuf=0 " not in line for line in listed.splitlines())


def test_half_commands_go_on_where_they_stopped(node: NodeProcess) -> None:
    command = encode((b"SET", b"key", b"x" * 300))
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(node.host, node.port)) for _ in range(100)]
        for place, client in enumerate(clients):
            client.send_raw(command[: 1 + 3 * place])
        for place, client in enumerate(clients):
            client.send_raw(command[1 + 3 * place :])
            assert client.read() == Reply("simple", b"OK")


def garbage(random: Random) -> bytes:
    """Bytes that are nearly, or not at all, commands."""
    pieces = [
        lambda: random.randbytes(random.randrange(200)),
        lambda: encode([random.randbytes(random.randrange(20)) for _ in range(random.randrange(1, 6))]),
        lambda: b"*%d\r\n" % random.choice([-(2**63), -1, 0, 1, 3, 2**20, 2**31, 2**63]),
        lambda: b"$%d\r\n" % random.choice([-(2**63), -1, 0, 1, 3, 2**29, 2**31, 2**63]),
        lambda: random.choice(
            [b"\r\n", b"\n", b"\r", b"\0", b'"', b"'", b'SET "', b"GET k\r\n", b"PING\n", b"*", b"$"]
        ),
        lambda: encode([random.choice([b"SET", b"LPUSH", b"ZADD", b"BLPOP", b"MULTI", b"EXEC", b"CLIENT"])] * 3),
        lambda: b"*2\r\n$3\r\nGET\r\n" + random.choice([b":1\r\n", b"$x\r\n", b"$3\r\nabcde", b"+k\r\n", b"_\r\n"]),
    ]
    return b"".join(random.choice(pieces)() for _ in range(random.randrange(1, 12)))


def test_garbage_on_two_hundred_connections(node: NodeProcess) -> None:
    print(f"KEVYNODE_TEST_SEED={SEED}")  # noqa: T201  pytest shows it when the test fails
    random = Random(SEED)
    witness = RawClient(node.host, node.port)
    with witness, ExitStack() as stack:
        connections = [stack.enter_context(connect(node)) for _ in range(200)]
        for _ in range(4):
            for place, connection in enumerate(connections):
                data = garbage(random)
                try:
                    if place % 3:
                        connection.sendall(data)
                    else:
                        for byte in data[:100]:
                            connection.sendall(bytes([byte]))
                except (BrokenPipeError, ConnectionResetError):
                    # The node closed it, as it should after bad input.
                    continue
            assert witness.call(b"PING") == PONG
        for connection in connections:
            check_replies_to_garbage(connection)
    with RawClient(node.host, node.port) as client:
        node.wait_until(lambda: connected(client) == 0, "all are gone")


def check_replies_to_garbage(connection: socket.socket) -> None:
    """End the input, and read to the end: no reply betrays a fault of the node."""
    replies = b""
    try:
        connection.shutdown(socket.SHUT_WR)
        while data := connection.recv(1 << 16):
            replies += data
    except (BrokenPipeError, ConnectionResetError):
        # The node had closed it before it read all.
        pass
    except OSError as error:
        # Shutting down a connection that has been reset already.
        if error.errno != errno.ENOTCONN:
            raise
    assert b"Traceback" not in replies
    assert b"nternal error" not in replies


def reset(connection: socket.socket) -> None:
    """Close the connection with a reset instead of an orderly end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def test_a_reset_in_the_middle_of_a_reply(node: NodeProcess) -> None:
    with RawClient(node.host, node.port) as client:
        client.call(b"SET", b"large", bytes(16 << 20))
        for pipeline in (1, 3):
            connection = connect(node)
            connection.sendall(encode((b"GET", b"large")) * pipeline)
            assert connection.recv(1000).startswith(b"$16777216\r\n")
            reset(connection)
            node.wait_until(lambda: connected(client) == 0, "it is gone")
            assert client.call(b"STRLEN", b"large") == Reply("integer", 16 << 20)


def test_resets_at_every_moment(node: NodeProcess) -> None:
    with RawClient(node.host, node.port) as client:
        for request in (
            b"",
            b"SET k",
            b"BLPOP queue 0\r\n",
            b"SUBSCRIBE c\r\nPSUBSCRIBE *\r\n",
            b"MULTI\r\nSET k v\r\n",
        ):
            for _ in range(20):
                connection = connect(node)
                connection.sendall(request)
                reset(connection)
        # Connections are let in in their order: once the last one is served, none of the others is still to come.
        with RawClient(node.host, node.port) as last:
            assert last.call(b"PING") == PONG
        node.wait_until(lambda: connected(client) == 0, "all are gone")
        assert client.call(b"RPUSH", b"queue", b"a") == Reply("integer", 1)
        assert client.call(b"LLEN", b"queue") == Reply("integer", 1)
        assert client.call(b"PUBLISH", b"c", b"m") == Reply("integer", 0)
        assert client.call(b"EXISTS", b"k") == Reply("integer", 0)


@on_linux
def test_a_listener_that_never_reads_is_closed_and_the_others_hear_on(node: NodeProcess) -> None:
    with ExitStack() as stack:
        publisher, good, bad = (stack.enter_context(RawClient(node.host, node.port)) for _ in range(3))
        limit = b"pubsub 4194304 0 0"
        assert publisher.call(b"CONFIG", b"SET", b"client-output-buffer-limit", limit).value == b"OK"
        stack.callback(restore_output_limits, node)
        for listener in (good, bad):
            assert listener.call(b"SUBSCRIBE", b"news").kind == "array"
        memory = resident(node)
        message = bytes(256 * KIB)
        heard_by = []
        for _ in range(100):
            heard_by.append(publisher.call(b"PUBLISH", b"news", message).value)
            assert good.read().elements[2] == Reply("bulk", message)
        assert heard_by[0] == 2
        assert heard_by[-1] == 1
        assert resident(node) - memory < 32 << 20
        node.wait_until(lambda: connected(publisher) == 1, "it is closed")
        assert " output_limit " in node.log()


def restore_output_limits(node: NodeProcess) -> None:
    with RawClient(node.host, node.port) as client:
        limit = b"normal 0 0 0 pubsub 33554432 8388608 60"
        assert client.call(b"CONFIG", b"SET", b"client-output-buffer-limit", limit).value == b"OK"


INLINE_LIMIT = 64 * KIB


def test_a_giant_inline_command(node: NodeProcess) -> None:
    with RawClient(node.host, node.port) as client:
        client.send_raw(b"PING " + b"x" * (INLINE_LIMIT - 100) + b"\r\n")
        assert client.read() == Reply("bulk", b"x" * (INLINE_LIMIT - 100))
        client.send_raw(b"x" * (2 * INLINE_LIMIT))
        assert client.read() == Reply("error", b"ERR Protocol error: too big inline request")
        assert client.read() == CLOSED


@pytest.mark.parametrize(
    ("request_bytes", "text"),
    [
        (b"*1048577\r\n", b"invalid multibulk length"),
        (b"*x\r\n", b"invalid multibulk length"),
        (b"*1\r\n$536870913\r\n", b"invalid bulk length"),
        (b"*1\r\n$-1\r\n", b"invalid bulk length"),
        (b"*1\r\n:1\r\n", b"expected '$', got ':'"),
        (b'SET "unbalanced\r\n', b"unbalanced quotes in request"),
        (b"*" + b"1" * INLINE_LIMIT * 2, b"too big mbulk count string"),
        (b"*1\r\n$" + b"1" * INLINE_LIMIT * 2, b"too big bulk count string"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_a_breach_of_the_protocol_is_answered_and_closes(node: NodeProcess, request_bytes: bytes, text: bytes) -> None:
    with RawClient(node.host, node.port) as client:
        client.send_raw(b"PING\r\n" + request_bytes)
        assert client.read() == PONG
        assert client.read() == Reply("error", b"ERR Protocol error: " + text)
        assert client.read() == CLOSED


BLOCKING: dict[str, Callable[[RawClient], None]] = {
    "a list": lambda client: client.send(b"BLPOP", b"queue", b"0"),
    "a move": lambda client: client.send(b"BLMOVE", b"queue", b"other", b"LEFT", b"LEFT", b"0"),
    "a pipeline": lambda client: client.send_raw(b"BLPOP queue 0\r\n" * 50),
}


@pytest.mark.parametrize("wait", BLOCKING.values(), ids=list(BLOCKING))
def test_who_left_while_waiting_takes_nothing(node: NodeProcess, wait: Callable[[RawClient], None]) -> None:
    with RawClient(node.host, node.port) as client:
        leaving = [RawClient(node.host, node.port) for _ in range(20)]
        for waiting in leaving:
            wait(waiting)
        node.wait_until(lambda: blocked(client) == 20, "all wait")
        for waiting in leaving:
            waiting.close()
        # The push comes right behind the ends of the connections.
        assert client.call(b"RPUSH", b"queue", b"a", b"b") == Reply("integer", 2)
        assert client.call(b"LLEN", b"queue") == Reply("integer", 2)
        assert client.call(b"EXISTS", b"other") == Reply("integer", 0)
        node.wait_until(lambda: connected(client) == 0, "all are gone")


def blocked(client: RawClient) -> int:
    """How many clients wait in a blocking command."""
    return sum(b" flags=b " in line for line in client.call(b"CLIENT", b"LIST").value.splitlines())


@on_linux
def test_a_client_that_asks_and_never_reads_costs_what_the_kernel_takes_and_a_turn(node: NodeProcess) -> None:
    with ExitStack() as stack:
        client = stack.enter_context(RawClient(node.host, node.port))
        client.call(b"SET", b"value", bytes(64 * KIB))
        memory = resident(node)
        greedy = stack.enter_context(connect(node))
        greedy.setblocking(False)
        requests = encode((b"GET", b"value")) * 5000
        sent = 0
        try:
            while sent < len(requests):
                sent += greedy.send(requests[sent:])
        except BlockingIOError:
            pass
        for _ in range(2000):
            assert client.call(b"PING") == PONG
        # All replies together would be 320 MB.
        assert resident(node) - memory < 64 << 20


@on_linux
def test_a_reply_above_the_limit_of_ordinary_clients_closes_the_connection(node: NodeProcess) -> None:
    with ExitStack() as stack:
        client = stack.enter_context(RawClient(node.host, node.port))
        client.call(b"SET", b"value", bytes(1024 * KIB))
        assert client.call(b"CONFIG", b"SET", b"client-output-buffer-limit", b"normal 524288 0 0").value == b"OK"
        stack.callback(restore_output_limits, node)
        other = stack.enter_context(connect(node))
        other.sendall(encode((b"GET", b"value")))
        other.settimeout(10)
        assert other.recv(1) == b""
        assert " output_limit " in node.log()
