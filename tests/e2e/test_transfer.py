"""Coming from a Valkey server and leaving for one: import and export as commands, with real servers at either end."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from compat.filled import Content, Filled
from e2e.commands import kevynode
from e2e.replicating import free_ports, start
from support.node_process import NodeProcess
from support.valkey_server import ValkeyServer

FUTURE = 4_000_000_000_000
REDIS_CLI = shutil.which("redis-cli")
#: Seconds that a command which ends by itself may take.
PATIENCE = 30


@contextmanager
def talking(server: NodeProcess | ValkeyServer) -> Iterator[Filled]:
    """Calls to a server, node or not, and its content."""
    # Only its address counts.
    with Filled(cast(ValkeyServer, server)) as filled:
        yield filled


@pytest.fixture(scope="module")
def running() -> Iterator[NodeProcess]:
    with NodeProcess("--no-aof") as process:
        yield process


@pytest.fixture
def node(running: NodeProcess) -> Iterator[NodeProcess]:
    """A node without data and without files."""
    yield running
    running.check_health()
    with talking(running) as there:
        there.call("FLUSHALL")


@pytest.fixture(scope="module")
def servers() -> Iterator[ValkeyServer]:
    with ValkeyServer("--enable-debug-command", "yes") as server:
        yield server


@pytest.fixture
def valkey(servers: ValkeyServer) -> Iterator[Filled]:
    """A Valkey server without data."""
    with talking(servers) as there:
        yield there
        there.call("DEBUG", "SET-ACTIVE-EXPIRE", 1)
        there.call("FLUSHALL")
        there.call("FUNCTION", "FLUSH")


def address(server: NodeProcess) -> str:
    return f"{server.host}:{server.port}"


def done(*arguments: str, **options: Any) -> str:
    """The line that a command prints which does what it should."""
    process = kevynode(*arguments, **options)
    assert (process.returncode, process.stderr) == (0, ""), process
    return process.stdout


def refused(*arguments: str, **options: Any) -> str:
    """The only line that a command prints which does not."""
    process = kevynode(*arguments, **options)
    assert (process.returncode, process.stdout) == (1, ""), process
    assert process.stderr.startswith("kevynode: ")
    assert process.stderr.count("\n") == 1
    return process.stderr.removeprefix("kevynode: ")[:-1]


def pipe(data: bytes, port: int) -> None:
    """Load an export as ``redis-cli --pipe`` does; with it where it is installed. AssertionError for an error."""
    if REDIS_CLI is not None:
        loaded = subprocess.run(
            [REDIS_CLI, "-p", str(port), "--pipe"], input=data, capture_output=True, timeout=PATIENCE, check=False
        )
        assert loaded.returncode == 0, loaded
        assert b"errors: 0" in loaded.stdout, loaded
        return
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as link:
        link.sendall(data + b"*2\r\n$4\r\nECHO\r\n$10\r\n~the end~~\r\n")
        received = b""
        while not received.endswith(b"~the end~~\r\n"):
            part = link.recv(65536)
            assert part
            received += part
    assert [line for line in received.split(b"\r\n") if line.startswith(b"-")] == []


def fill(server: Filled) -> None:
    """Keys of every type but streams, small and large, with bytes of all kinds and deadlines."""
    call = server.call
    call("SET", b"bytes:\r\n\x00\xff $", bytes(range(256)))
    call("SET", "empty", "")
    call("SET", "number", -(2**63))
    call("SET", "large", b"0123456789" * 50_000)
    call("SET", "timed", "x", "PXAT", FUTURE)
    for size in (3, 2500):
        call("RPUSH", f"list:{size}", *range(size))
        call("SADD", f"set:{size}", *range(size), "text")
        call("ZADD", f"zset:{size}", *(word for n in range(size) for word in (n * 0.37 - 5, f"m{n}")))
        call("HSET", f"hash:{size}", *(word for n in range(size) for word in (f"f{n}", n)))
    call("ZADD", "zset:edges", "-inf", "a", "+inf", "b", "5e-324", "c", "9007199254740993", "d")
    call("HPEXPIREAT", "hash:3", FUTURE, "FIELDS", 2, "f0", "f1")
    call("PEXPIREAT", "hash:3", FUTURE + 1)
    call("HPEXPIREAT", "hash:2500", FUTURE + 2, "FIELDS", 1200, *(f"f{n}" for n in range(1200)))
    for number in range(500):
        call("SET", f"many:{number}", number)


def test_a_dump_comes_in_and_goes_out_again(node: NodeProcess, valkey: Filled, tmp_path: Path) -> None:
    fill(valkey)
    expected = valkey.content()
    valkey.call("DEBUG", "SET-ACTIVE-EXPIRE", 0)
    valkey.call("SET", "expired", "x", "PX", 1)
    valkey.call("HSET", "hash:expired", "gone", 1, "stays", 2)
    valkey.call("HPEXPIRE", "hash:expired", 1, "FIELDS", 1, "gone")
    valkey.call("HSET", "hash:all-expired", "gone", 1)
    valkey.call("HPEXPIRE", "hash:all-expired", 1, "FIELDS", 1, "gone")
    expected[b"hash:expired"] = (("hash", {b"stays": b"2"}, {}), None)
    valkey.call("FUNCTION", "LOAD", "#!lua name=l\nserver.register_function('f', function(keys, args) return 1 end)")
    dump = tmp_path / "dump.rdb"
    dump.write_bytes(valkey.saved())
    line = done("import", str(dump), "--at", address(node))
    assert line.startswith(f"imported {len(expected)} keys from {dump.stat().st_size:,} bytes (Valkey 9.")
    assert line.endswith("left out: 2 expired keys, 2 expired fields, 1 library of functions\n")
    with talking(node) as there:
        assert there.content() == expected

    file = tmp_path / "out"
    line = done("export", "--replication", node.replication_address, "--output", str(file))
    assert line.startswith(f"exported {len(expected)} keys, {file.stat().st_size:,} bytes, in ")
    assert [path.name for path in tmp_path.iterdir() if path.name != "dump.rdb"] == ["out"]
    valkey.call("FLUSHALL")
    pipe(file.read_bytes(), valkey.server.port)
    assert valkey.content() == expected

    # What was exported can be imported as well.
    done("import", str(file), "--at", address(node), "--replace")
    with talking(node) as there:
        assert there.content() == expected


@pytest.mark.parametrize("preamble", ["yes", "no"])
def test_the_append_only_folder_of_valkey(node: NodeProcess, preamble: str) -> None:
    with ValkeyServer("--appendonly", "yes", "--aof-use-rdb-preamble", preamble) as server, talking(server) as valkey:
        fill(valkey)
        valkey.call("BGREWRITEAOF")
        while b"aof_rewrite_in_progress:1" in valkey.call("INFO", "persistence"):
            valkey.call("WAITAOF", 0, 0, 1)
        valkey.call("LPUSH", "list:3", "later")
        valkey.call("MULTI")
        valkey.call("DEL", "number")
        valkey.call("INCR", "number")
        valkey.call("EXEC")
        expected = valkey.content()
        for path in (server.directory, server.directory / "appendonlydir"):
            done("import", str(path), "--at", address(node), "--replace")
            with talking(node) as there:
                assert there.content() == expected
        assert "was not written by kevynode" in refused("check-aof", str(server.directory))
        assert sorted(path.name for path in server.directory.iterdir()) == ["appendonlydir", "log"]


def test_one_of_several_databases(node: NodeProcess, valkey: Filled, tmp_path: Path) -> None:
    valkey.call("SET", "zero", 0)
    valkey.call("SELECT", 3)
    valkey.call("SET", "three", 3)
    valkey.call("RPUSH", "drei", 3)
    expected = valkey.content()
    dump = tmp_path / "dump.rdb"
    dump.write_bytes(valkey.saved())
    valkey.call("SELECT", 0)
    assert "choose one" in refused("import", str(dump), "--at", address(node))
    line = done("import", str(dump), "--at", address(node), "--database", "3")
    assert "database 3" in line
    assert line.endswith("left out: 1 key of other databases\n")
    with talking(node) as there:
        assert there.content() == expected


def test_streams(node: NodeProcess, valkey: Filled, tmp_path: Path) -> None:
    for number in range(300):
        valkey.call("XADD", "stream", "*", "f", number)
    valkey.call("XADD", "emptied", "5-5", "f", "v")
    valkey.call("XDEL", "emptied", "5-5")
    valkey.call("XGROUP", "CREATE", "stream", "g", "0")
    valkey.call("XREADGROUP", "GROUP", "g", "alice", "COUNT", 3, "STREAMS", "stream", ">")
    valkey.call("SET", "plain", "x")
    expected = valkey.content()
    valkey.saved()
    folder = valkey.server.directory
    # Through a file alone all of them come through.
    exported = subprocess.run(
        [sys.executable, "-m", "kevynode", "export", "--dir", str(folder)],
        capture_output=True,
        timeout=PATIENCE,
        check=True,
    )
    assert exported.stderr == b""
    valkey.call("FLUSHALL")
    pipe(exported.stdout, valkey.server.port)
    assert valkey.content() == expected

    valkey.saved()
    with talking(node) as there:
        knows_streams = there.call("COMMAND", "INFO", "XADD") != [None]
        if not knows_streams:
            there.call("SET", "plain", "before")
            problem = refused("import", str(folder), "--at", address(node), "--replace")
            assert "2 streams" in problem
            assert "--without-streams" in problem
            assert there.call("GET", "plain") == b"before"
        line = done("import", str(folder), "--at", address(node), "--replace", "--without-streams")
        assert line.endswith("left out: 2 streams\n")
        assert there.content() == {b"plain": (b"x", None)}


def under(content: Content, prefix: bytes) -> Content:
    return {key: value for key, value in content.items() if key.startswith(prefix)}


def test_backup_and_restore_of_one_prefix(node: NodeProcess, tmp_path: Path) -> None:
    with talking(node) as there:
        fill(there)
        for number in range(1500):
            there.call("SET", f"app[*]:{number}", number)
        before = there.content()
        backup = tmp_path / "backup"
        backup.write_bytes(b"an older one")
        line = done("export", "--replication", node.replication_address, "--scope", "app[*]:", "--output", str(backup))
        assert line.startswith("exported 1,500 keys")

        there.call("DEL", "app[*]:1")
        there.call("SET", "app[*]:2", "changed")
        there.call("SET", "app[*]:new", "new")
        there.call("SET", "many:1", "changed too")
        problem = refused("import", str(backup), "--at", address(node), "--scope", "app[*]:")
        assert "has keys already that begin with 'app[*]:', such as 'app[*]:" in problem
        done("import", str(backup), "--at", address(node), "--scope", "app[*]:", "--replace")
        after = there.content()
        assert after == before | {b"many:1": (b"changed too", None)}

        # Another prefix of the same file is as if it were not there.
        assert "so nothing was removed" in refused(
            "import", str(backup), "--at", address(node), "--scope", "many:", "--replace"
        )
        assert there.content() == after
        assert "0 keys" in done("import", str(backup), "--at", address(node), "--scope", "nobody:")


def test_a_node_with_keys_is_left_alone(node: NodeProcess, valkey: Filled) -> None:
    valkey.call("SET", "a", 1)
    valkey.saved()
    with talking(node) as there:
        there.call("SET", "mine", 1)
        problem = refused("import", str(valkey.server.directory), "--at", address(node))
        assert problem == f"{address(node)} has 1 key already: --replace removes them first"
        # A broken file is found before anything is removed.
        dump = valkey.server.directory / "dump.rdb"
        data = dump.read_bytes()
        broken = valkey.server.directory / "broken.rdb"
        broken.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
        assert "broken.rdb" in refused("import", str(broken), "--at", address(node), "--replace")
        assert there.content() == {b"mine": (b"1", None)}
        done("import", str(dump), "--at", address(node), "--replace")
        assert there.content() == {b"a": (b"1", None)}


def test_a_copy_takes_no_import(node: NodeProcess, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n")
    with start("--no-aof", upstream=node) as replica, talking(replica) as copy:
        with talking(node) as there:
            there.call("SET", "k", "v")
            assert there.call("WAIT", 1, 20_000) == 1
        problem = refused("import", str(file), "--at", address(replica), "--replace")
        assert "FLUSHALL: READONLY" in problem
        assert copy.content() == {b"k": (b"v", None)}
        # A copy can be exported like any other node.
        out = tmp_path / "out"
        done("export", "--replication", replica.replication_address, "--output", str(out))
        assert out.read_bytes() == b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n"


def test_a_node_without_room_says_so(tmp_path: Path) -> None:
    file = tmp_path / "file"
    command = b"*3\r\n$3\r\nSET\r\n$6\r\nk%05d\r\n$1000\r\n" + b"x" * 1000 + b"\r\n"
    file.write_bytes(b"".join(command % number for number in range(5000)))
    with NodeProcess("--no-aof", environment={"KEVYNODE_MEMORY_MAXMEMORY": "2mb"}) as node:
        problem = refused("import", str(file), "--at", address(node))
        assert problem.startswith("SET 'k")
        assert ": OOM command not allowed when used memory > 'maxmemory'." in problem
        assert "of 5,000 keys had arrived" in problem


def test_the_password_is_that_of_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n")
    with NodeProcess("--no-aof", environment={"KEVYNODE_CONFIG_REQUIREPASS": "sésame"}) as node:
        arguments = ("import", str(file), "--at", address(node))
        assert "NOAUTH" in refused(*arguments)
        problem = refused(*arguments, environment={"REDISCLI_AUTH": "wrong"})
        assert "refuses the password in REDISCLI_AUTH: WRONGPASS" in problem
        done(*arguments, environment={"REDISCLI_AUTH": "sésame"})
        assert kevynode("status", address(node)).returncode == 1
        assert kevynode("status", address(node), environment={"REDISCLI_AUTH": "sésame"}).returncode == 0


def test_a_password_that_nobody_asks_for_is_no_trouble(node: NodeProcess) -> None:
    assert kevynode("status", address(node), environment={"REDISCLI_AUTH": "x"}).returncode == 0


def test_the_replication_port_is_found() -> None:
    port, _ = free_ports()
    with NodeProcess("--no-aof", "--port", str(port)) as node:
        with talking(node) as there:
            there.call("SET", "a", 1)
        assert done("export", "--at", address(node)).startswith("*3")
    assert "Connection refused (--replication names another replication address)" in refused(
        "export", "--at", address(node)
    )


def test_what_is_no_replication_port_is_told(node: NodeProcess) -> None:
    assert "is a client port" in refused("export", "--replication", address(node))
    assert "name it (--replication)" in refused("export", "--at", "127.0.0.1:60000")


def test_a_reader_that_has_had_enough_ends_an_export_quietly(node: NodeProcess) -> None:
    with talking(node) as there:
        for number in range(20):
            there.call("SET", f"k{number}", b"x" * 100_000)
    with subprocess.Popen(
        [sys.executable, "-m", "kevynode", "export", "--replication", node.replication_address],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(4) == b"*3\r\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(PATIENCE) == 1
