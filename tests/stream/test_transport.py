"""Listening and connecting: real sockets, and the same over memory."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

import pytest
import trio
from support.memory_transport import MemoryTransport

from kevynode.transport import Incoming, Listener, SystemTransport, Transport, set_keepalive


def has_ipv6() -> bool:
    """Whether ``::1`` can be listened on."""
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


def exists(path: str) -> bool:
    """Whether there is a file."""
    return os.path.exists(path)


def replace_file(path: str) -> None:
    """Put another file in the place of one."""
    os.unlink(path)
    Path(path).write_text("mine")


@pytest.fixture(params=[SystemTransport, MemoryTransport])
def transport(request: pytest.FixtureRequest) -> Transport:
    made: Transport = request.param()
    return made


async def accept_one(listener: Listener) -> Incoming:
    [incoming] = await listener.accept()
    return incoming


async def exchange(client: trio.abc.Stream, incoming: Incoming) -> None:
    """Say something in both directions, and close."""
    served = incoming.stream()
    await client.send_all(b"ping")
    assert await served.receive_some(4) == b"ping"
    await served.send_all(b"pong")
    assert await client.receive_some(4) == b"pong"
    await client.aclose()
    assert await served.receive_some(1) == b""
    await served.aclose()


async def test_tcp(transport: Transport) -> None:
    [listener] = await transport.listen(["127.0.0.1"], 0)
    assert listener.port
    assert listener.address == f"127.0.0.1:{listener.port}"
    client = await transport.connect("127.0.0.1", listener.port)
    incoming = await accept_one(listener)
    assert incoming.kind == "tcp"
    assert incoming.local == listener.address
    assert incoming.peer.startswith("127.0.0.1:")
    assert incoming.peer != incoming.local
    await exchange(client, incoming)
    with pytest.raises(OSError, match=r"cannot listen on 127.0.0.1:\d+: .*in use") as taken:
        await transport.listen(["127.0.0.1"], listener.port)
    assert taken.value.errno == errno.EADDRINUSE
    listener.close()
    listener.close()
    with pytest.raises(OSError, match=r"(?i)connect"):
        await transport.connect("127.0.0.1", listener.port)
    with pytest.raises(trio.ClosedResourceError):
        await listener.accept()


async def test_unix_socket(transport: Transport, tmp_path: Path) -> None:
    path = str(tmp_path / "node.sock")
    listener = await transport.listen_unix(path, mode=0o700)
    assert (listener.address, listener.port) == (path, 0)
    client = await transport.connect_unix(path)
    incoming = await accept_one(listener)
    assert (incoming.peer, incoming.local, incoming.kind) == (f"{path}:0", f"{path}:0", "unix")
    await exchange(client, incoming)
    with pytest.raises(OSError, match=r"cannot listen on .*in use"):
        await transport.listen_unix(path)
    listener.close()
    assert not exists(path)
    with pytest.raises(OSError, match=r"(?i)no such file|refused"):
        await transport.connect_unix(path)


async def test_closing_ends_a_wait_for_connections(transport: Transport, nursery: trio.Nursery) -> None:
    [listener] = await transport.listen(["127.0.0.1"], 0)
    ended = trio.Event()

    async def wait() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await listener.accept()
        ended.set()

    nursery.start_soon(wait)
    await trio.testing.wait_all_tasks_blocked()
    listener.close()
    await ended.wait()


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
async def test_several_addresses_share_one_port() -> None:
    transport = SystemTransport()
    listeners = await transport.listen(["127.0.0.1", "::1"], 0)
    assert [listener.address for listener in listeners] == [
        f"127.0.0.1:{listeners[0].port}",
        f"[::1]:{listeners[0].port}",
    ]
    for host, listener in zip(("127.0.0.1", "::1"), listeners, strict=True):
        client = await transport.connect(host, listener.port)
        incoming = await accept_one(listener)
        assert incoming.local == listener.address
        await exchange(client, incoming)
    for listener in listeners:
        listener.close()


async def test_nothing_listens_if_one_address_cannot() -> None:
    transport = SystemTransport()
    [taken] = await transport.listen(["127.0.0.1"], 0)
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{taken.port}"):
        await transport.listen(["127.0.0.2", "127.0.0.1"], taken.port)
    # The one that was opened before the failure is closed again.
    [again] = await transport.listen(["127.0.0.2"], taken.port)
    again.close()
    taken.close()
    with pytest.raises(OSError, match=r"cannot listen on 192\.0\.2\.1:0"):
        await transport.listen(["192.0.2.1"], 0)


async def test_many_connections_are_accepted_in_few_turns() -> None:
    transport = SystemTransport()
    [listener] = await transport.listen(["127.0.0.1"], 0)
    clients = [socket.create_connection(("127.0.0.1", listener.port)) for _ in range(100)]
    taken: list[Incoming] = []
    sizes = []
    while len(taken) < 100:
        some = await listener.accept()
        sizes.append(len(some))
        taken += some
    assert sizes == [64, 36]
    assert all(
        isinstance(incoming.endpoint, socket.socket)
        and incoming.endpoint.gettimeout() == 0
        and incoming.endpoint.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        for incoming in taken
    )
    for incoming in taken:
        await incoming.aclose()
    for client in clients:
        assert client.recv(1) == b""
        client.close()
    listener.close()


async def test_an_abandoned_socket_file_is_replaced_and_gets_its_mode(tmp_path: Path) -> None:
    path = str(tmp_path / "node.sock")
    with socket.socket(socket.AF_UNIX) as abandoned:
        abandoned.bind(path)
    listener = await SystemTransport().listen_unix(path, mode=0o700)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o700
    # Somebody else's file stays.
    replace_file(path)
    listener.close()
    assert exists(path)


async def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_text("precious")
    with pytest.raises(OSError, match="no socket"):
        await SystemTransport().listen_unix(str(path))
    assert path.read_text() == "precious"


def test_keepalive_follows_the_interval() -> None:
    with socket.socket() as sock:
        set_keepalive(sock, 300)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        options = [
            sock.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        ]
        assert options == [300, 100, 3]
        set_keepalive(sock, 0)
        assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
