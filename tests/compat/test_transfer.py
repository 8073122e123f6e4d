"""Append-only folders that a real valkey-server has written, taken in; and what is exported, loaded by it."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from compat.filled import Content, Filled, shown
from support.store_harness import check_memory
from support.valkey_server import ValkeyServer

from kevynode.persist.manifest import Manifest
from kevynode.store.staging import Staging
from kevynode.store.store import Store
from kevynode.transfer import Import, ImportReport, export_commands

FUTURE = 4_000_000_000_000


def pieces(path: Path, size: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(size):
            yield piece


def taken_in(paths: list[Path], size: int = 65536, **options: Any) -> tuple[Staging, ImportReport]:
    importing = Import(random.Random(1), **options)
    for number, path in enumerate(paths, 1):
        for _ in importing.read(path.name, pieces(path, size), last=number == len(paths)):
            pass
    for _ in importing.finish():
        pass
    return importing.staging, importing.report


def content(staging: Staging) -> Content:
    store = Store(random.Random(1))
    store.replace_all(staging)
    check_memory(store)
    return {
        key: (shown(value), shard.deadlines.get(key))
        for shard in store.keyspace.shards()
        for key, value in shard.items()
    }


def files(server: ValkeyServer) -> list[Path]:
    folder = server.directory / "appendonlydir"
    manifest = Manifest.parse((folder / "appendonly.aof.manifest").read_bytes())
    return [folder / file.name for file in manifest.files]


def work(server: Filled, seed: int, database: int = 0) -> None:
    """A few hundred writes of all kinds, some of them rewritten by the server before they are stored."""
    chance = random.Random(seed)
    call = server.call
    call("SELECT", database)
    call("SET", "moved", "x", "EX", 1000)
    call("RENAME", "moved", f"arrived{seed}")
    for _ in range(300):
        number = chance.randrange(20)
        match chance.randrange(16):
            case 0:
                call("SET", f"s{number}", chance.randbytes(chance.randrange(200)))
            case 1:
                call("SET", f"s{number}", "timed", "PX", chance.randrange(10**8, 10**9))
            case 2:
                call("SETEX", f"s{number}", chance.randrange(10**5, 10**6), "lasting")
            case 3:
                call("INCRBYFLOAT", f"float{number}", chance.random())
            case 4:
                call("RPUSH", f"l{number}", *map(str, range(chance.randrange(1, 9))))
            case 5:
                call("LMOVE", f"l{number}", f"l{chance.randrange(20)}", "LEFT", "RIGHT")
            case 6:
                call("SADD", f"set{number}", *map(str, range(chance.randrange(1, 30))))
            case 7:
                call("SPOP", f"set{number}", 2)
            case 8:
                call("ZADD", f"z{number}", chance.random(), "a", chance.random(), "b")
            case 9:
                call("ZUNIONSTORE", f"z{number}", 2, f"z{chance.randrange(20)}", f"z{chance.randrange(20)}")
            case 10:
                call("HSET", f"h{number}", "f", chance.random(), "g", "x")
            case 11:
                call("HPEXPIRE", f"h{number}", chance.randrange(10**8, 10**9), "FIELDS", 1, "g")
            case 12:
                call("XADD", f"x{number}", "MAXLEN", "~", 50, "*", "f", chance.randrange(100))
            case 13:
                call("EXPIRE", f"l{number}", chance.randrange(10**5, 10**6))
            case 14:
                call("COPY", f"s{number}", f"copy{number}", "REPLACE")
            case _:
                call("DEL", f"h{number}", f"s{number}")
    call("XADD", "x0", "*", "f", "v")
    if not call("EXISTS", "grouped"):
        call("XGROUP", "CREATE", "grouped", "g", "$", "MKSTREAM")
    call("XADD", "grouped", "*", "f", "v")
    call("XREADGROUP", "GROUP", "g", "alice", "STREAMS", "grouped", ">")
    call("MULTI")
    call("SET", f"in{seed}", "transaction")
    call("LPUSH", "l0", "transaction")
    call("EXEC")
    call("SET", "dumped", "y" * 100)
    call("RESTORE", "restored", FUTURE, call("DUMP", "x0"), "REPLACE", "ABSTTL")
    call("BITFIELD", "bits", "SET", "u8", 8, seed)
    call("EVAL", "server.call('SET', KEYS[1], ARGV[1]); server.call('SADD', 'scripted', ARGV[1])", 1, "script", "1")


@pytest.fixture(params=["yes", "no"], ids=["rdb-base", "aof-base"])
def persistent(request: pytest.FixtureRequest) -> Iterator[Filled]:
    options = ("--appendonly", "yes", "--aof-use-rdb-preamble", request.param, "--auto-aof-rewrite-percentage", "0")
    with ValkeyServer(*options) as server, Filled(server) as filled:
        yield filled


def rewritten(server: Filled) -> None:
    server.call("BGREWRITEAOF")
    while b"aof_rewrite_in_progress:1" in server.call("INFO", "persistence"):
        server.call("WAITAOF", 0, 0, 1)


@pytest.mark.parametrize("size", [65536, 1, 777])
def test_an_append_only_folder(persistent: Filled, size: int) -> None:
    work(persistent, 1)
    rewritten(persistent)
    work(persistent, 2)
    expected = persistent.content()
    staging, report = taken_in(files(persistent.server), size)
    assert content(staging) == expected
    assert (report.database, report.keys, report.torn) == (0, len(expected), None)
    assert report.commands > 100


def test_several_databases(persistent: Filled) -> None:
    work(persistent, 3, database=2)
    rewritten(persistent)
    work(persistent, 4, database=2)
    expected = persistent.content()
    paths = files(persistent.server)
    assert content(taken_in(paths)[0]) == expected
    work(persistent, 5, database=7)
    persistent.call("SELECT", 2)
    with pytest.raises(Exception, match="databases 2 and 7 both hold data: choose one"):
        taken_in(paths)
    staging, report = taken_in(paths, database=2)
    assert content(staging) == expected
    assert report.database == 2
    persistent.call("SELECT", 7)
    assert content(taken_in(paths, database=7)[0]) == persistent.content()


@pytest.mark.parametrize("replace", [False, True])
def test_what_is_exported_loads(persistent: Filled, replace: bool) -> None:
    work(persistent, 6)
    persistent.call("RPUSH", "long", *range(5000))
    persistent.call("SET", "large", b"x" * 1_000_000)
    expected = persistent.content()
    staging, _ = taken_in(files(persistent.server))
    store = Store(random.Random(1))
    store.replace_all(staging)
    exported = b"".join(export_commands(store.freeze(), replace=replace))
    with ValkeyServer() as server, Filled(server) as other:
        for _ in range(2 if replace else 1):
            load(server, exported)
        assert other.content() == expected
        other.call("FLUSHALL")
        load(server, b"".join(export_commands(store.freeze(), prefix=b"l")))
        assert other.content() == {key: value for key, value in expected.items() if key.startswith(b"l")}


def load(server: ValkeyServer, data: bytes) -> None:
    """Do what ``redis-cli --pipe`` does; AssertionError for an error."""
    with socket.create_connection((server.host, server.port)) as link:
        link.sendall(data + b"*2\r\n$4\r\nECHO\r\n$10\r\n~the end~~\r\n")
        received = b""
        while not received.endswith(b"~the end~~\r\n"):
            part = link.recv(65536)
            assert part
            received += part
    errors = [line for line in received.split(b"\r\n") if line.startswith(b"-")]
    assert errors == []
