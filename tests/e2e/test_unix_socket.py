"""The unix socket of a node: it appears, serves like any other, and goes; what is not the node's is not touched."""

from __future__ import annotations

import os
import signal
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.commands import start_error
from support.node_process import NodeProcess


@pytest.fixture
def path() -> Iterator[Path]:
    """A path short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="kn-") as folder:
        yield Path(folder) / "node.sock"


def serving(path: Path) -> NodeProcess:
    """A node that listens on a unix socket as well."""
    return NodeProcess(environment={"KEVYNODE_SERVER_UNIXSOCKET": str(path)})


def ask(path: Path, request: bytes, length: int) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(request)
        received = b""
        while len(received) < length and (piece := client.recv(1 << 20)):
            received += piece
        return received


def test_it_serves_beside_tcp_and_is_gone_after_the_end(path: Path) -> None:
    umask = os.umask(0o027)
    try:
        node = serving(path)
    finally:
        os.umask(umask)
    with node:
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert stat.S_IMODE(path.stat().st_mode) == 0o750
        assert ask(path, b"SET k v\r\nGET k\r\n", 12) == b"+OK\r\n$1\r\nv\r\n"
        listed = ask(path, b"CLIENT LIST\r\n", 100).decode()
        assert f" addr={path}:0 laddr={path}:0 " in listed
        assert " flags=U " in listed
        large = bytes(8 << 20)
        assert ask(path, b"*3\r\n$3\r\nSET\r\n$1\r\nl\r\n$%d\r\n%b\r\n" % (len(large), large), 5) == b"+OK\r\n"
        expected = b"$%d\r\n%b\r\n" % (len(large), large)
        assert ask(path, b"GET l\r\n", len(expected)) == expected
        node.check_health()
        node.send_signal(signal.SIGTERM)
        assert node.wait() == 0
        assert not path.exists()


def test_what_a_killed_node_left_is_replaced(path: Path) -> None:
    with serving(path) as node:
        node.send_signal(signal.SIGKILL)
        assert node.wait() == -signal.SIGKILL
    assert stat.S_ISSOCK(path.stat().st_mode)
    with serving(path) as node:
        assert ask(path, b"PING\r\n", 7) == b"+PONG\r\n"
        node.check_health()
    assert not path.exists()


def test_a_file_of_somebody_else_is_left_alone(path: Path) -> None:
    path.write_text("precious")
    said = start_error("--port", "0", environment={"KEVYNODE_SERVER_UNIXSOCKET": str(path)})
    assert said == f"server.unixsocket: cannot listen on {path}: there is a file that is no socket"
    assert path.read_text() == "precious"


def test_the_socket_of_a_running_node_is_left_alone(path: Path) -> None:
    with serving(path) as node:
        said = start_error("--port", "0", environment={"KEVYNODE_SERVER_UNIXSOCKET": str(path)})
        assert said.startswith("server.unixsocket: ")
        assert ask(path, b"PING\r\n", 7) == b"+PONG\r\n"
        node.check_health()


def test_a_path_that_somebody_else_took_over_is_not_removed(path: Path) -> None:
    with serving(path) as node:
        path.unlink()
        path.write_text("precious")
        node.send_signal(signal.SIGTERM)
        assert node.wait() == 0
    assert path.read_text() == "precious"


def test_a_path_without_its_folder_is_a_start_error(path: Path) -> None:
    missing = str(path.parent / "missing" / "node.sock")
    said = start_error("--port", "0", environment={"KEVYNODE_SERVER_UNIXSOCKET": missing})
    assert said == f"server.unixsocket: cannot listen on {missing}: No such file or directory"
