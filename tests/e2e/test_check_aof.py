"""The files of real nodes: checked while a node runs, after it was killed, torn and damaged; imported and exported."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from e2e.commands import kevynode
from e2e.replicating import free_ports
from support.durable_server import DurableServer, start_node
from support.raw_client import Reply, encode

OK = Reply("simple", b"OK")
KEYS = 20


@contextmanager
def running(directory: Path) -> Iterator[DurableServer]:
    """A node on a data directory, serving."""
    with start_node(directory, free_ports()[0]) as server:
        server.wait_until(lambda: "kevynode ready " in server.log(), "the node says that it is ready")
        yield server


def snapshot_of(folder: Path) -> dict[str, bytes]:
    """Every file there, but for the lock, which says who had it last."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "kevynode.lock"
    }


@pytest.fixture
def left_behind(tmp_path: Path) -> Path:
    """The data directory of a node that was killed: a base, and an increment of which the last write is one group."""
    directory = tmp_path / "data"
    directory.mkdir()
    with running(directory) as server, server.connect() as client:
        for number in range(KEYS):
            assert client.call(b"SET", b"key:%d" % number, b"value %d" % number) == OK
        server.kill()
    return directory


def last_increment(directory: Path) -> Path:
    files = (directory / "appendonlydir").glob("appendonly.aof.*.incr.aof")
    return max(files, key=lambda path: int(path.name.split(".")[2]))


def keys_after_a_start(directory: Path) -> int:
    with running(directory) as server:
        reply = server.call(b"DBSIZE")
        assert reply.kind == "integer"
        return int(reply.value)


def test_files_that_are_well(left_behind: Path) -> None:
    before = snapshot_of(left_behind)
    for path in (left_behind, left_behind / "appendonlydir"):
        for options in ((), ("--fix", "--yes")):
            done = kevynode("check-aof", *options, str(path))
            assert (done.returncode, done.stderr) == (0, "")
            lines = done.stdout.splitlines()
            assert lines
            for line in lines:
                name, _, rest = line.partition(": good, ")
                assert f"{os.path.getsize(name):,} bytes" in rest
            assert f"{KEYS} commands" in done.stdout
    assert snapshot_of(left_behind) == before


def test_the_files_of_a_running_node_are_left_alone(left_behind: Path, tmp_path: Path) -> None:
    with running(left_behind) as server:
        said = f"kevynode: data_dir {left_behind} is in use by process {server.pid}\n"
        address = f"127.0.0.1:{server.port}"
        for command in (
            ("check-aof", str(left_behind)),
            ("check-aof", "--fix", "--yes", str(left_behind / "appendonlydir")),
            ("export", "--dir", str(left_behind), "--output", str(tmp_path / "out")),
            ("import", str(left_behind), "--at", address, "--replace"),
        ):
            done = kevynode(*command)
            assert (done.returncode, done.stdout, done.stderr) == (1, "", said)
        assert server.call(b"DBSIZE") == Reply("integer", KEYS)
        assert not (tmp_path / "out").exists()


def test_a_torn_end(left_behind: Path) -> None:
    file = last_increment(left_behind)
    whole = file.stat().st_size
    with file.open("ab") as append:
        append.write(encode((b"SET", b"key:3", b"wrong"))[:-4])
    torn = file.stat().st_size
    before = snapshot_of(left_behind)

    done = kevynode("check-aof", str(left_behind))
    assert done.returncode == 1
    assert f"{whole:,} of {torn:,} bytes are good, with {KEYS} commands" in done.stdout
    assert f"ends in an unfinished record at byte {whole}" in done.stderr
    assert f"cuts off the last {torn - whole} bytes" in done.stderr
    # There is nobody to be asked.
    done = subprocess.run(
        [sys.executable, "-m", "kevynode", "check-aof", "--fix", str(left_behind)],
        input="y\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "nothing was cut" in done.stderr
    assert snapshot_of(left_behind) == before

    done = kevynode("check-aof", "--fix", "--yes", str(left_behind))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{file} is to be cut from {torn:,} bytes to {whole:,}: {torn - whole} bytes go" in done.stdout
    assert file.stat().st_size == whole
    assert kevynode("check-aof", str(left_behind)).returncode == 0
    assert keys_after_a_start(left_behind) == KEYS


def test_damage_that_no_node_starts_with(left_behind: Path) -> None:
    file = last_increment(left_behind)
    data = file.read_bytes()
    place = data.index(b"value 12")
    file.write_bytes(data[:place] + b"X" + data[place + 1 :])
    refused = kevynode("run", "--port", "0", "--dir", str(left_behind))
    assert refused.returncode == 1
    assert file.name in refused.stderr

    done = kevynode("check-aof", str(left_behind))
    assert done.returncode == 1
    assert "no node starts with it" in done.stderr
    assert "with 12 commands" in done.stdout
    done = kevynode("check-aof", "--fix", "--yes", str(left_behind))
    assert (done.returncode, done.stderr) == (0, "")
    assert kevynode("check-aof", str(left_behind)).returncode == 0
    assert keys_after_a_start(left_behind) == 12


def test_a_file_that_is_missing_cannot_be_repaired(left_behind: Path) -> None:
    file = last_increment(left_behind)
    file.unlink()
    for options in ((), ("--fix", "--yes")):
        done = kevynode("check-aof", *options, str(left_behind))
        assert done.returncode == 1
        assert f"{file} is missing, though the manifest names it" in done.stderr


def test_the_files_of_a_stopped_node_are_exported_and_imported(left_behind: Path, tmp_path: Path) -> None:
    with last_increment(left_behind).open("ab") as append:
        append.write(b"*3\r\n$3\r\nSET")
    before = snapshot_of(left_behind)
    out = tmp_path / "out"
    done = kevynode("export", "--dir", str(left_behind), "--scope", "key:1", "--output", str(out))
    assert done.returncode == 0
    assert done.stdout.startswith("exported 11 keys")
    assert "has an unfinished end, left out: 11 bytes" in done.stderr
    other = tmp_path / "other"
    other.mkdir()
    with running(other) as server:
        address = f"127.0.0.1:{server.port}"
        assert kevynode("import", str(out), "--at", address).returncode == 0
        assert server.call(b"DBSIZE") == Reply("integer", 11)
        assert server.call(b"GET", b"key:13") == Reply("bulk", b"value 13")
        done = kevynode("import", str(left_behind), "--at", address, "--replace")
        assert "left out: an unfinished end of 11 bytes from byte" in done.stdout
        assert server.call(b"DBSIZE") == Reply("integer", KEYS)
        # What is acknowledged to an import is as durable as to any other client.
        server.kill()
    assert keys_after_a_start(other) == KEYS
    assert snapshot_of(left_behind) == before


def test_a_dump_of_a_node_moves_to_another(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    with start_node(first, free_ports()[0], "--no-aof") as server:
        server.wait_until(lambda: "kevynode ready " in server.log(), "the node says that it is ready")
        assert server.call(b"RPUSH", b"l", b"a", b"b") == Reply("integer", 2)
        assert server.call(b"SAVE") == OK
        server.kill()
    out = tmp_path / "out"
    assert kevynode("export", "--dir", str(first), "--output", str(out)).returncode == 0
    assert out.read_bytes() == encode((b"RPUSH", b"l", b"a", b"b"))
    with running(second) as server:
        done = kevynode("import", str(first / "dump.kevysnap"), "--at", f"127.0.0.1:{server.port}")
        assert done.stdout.startswith("imported 1 key from ")
        assert server.call(b"LRANGE", b"l", b"0", b"-1").value == (Reply("bulk", b"a"), Reply("bulk", b"b"))
