"""Files of other servers taken in, and data given away as commands."""

from __future__ import annotations

import ast
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import dump_builder as build
from support.dump_builder import dump, key, length, text
from support.store_harness import Content, Harness, check_memory, content

import kevynode
from kevynode.resp import RequestParser
from kevynode.store.rebuild import rebuild_commands
from kevynode.store.store import Store
from kevynode.transfer import Import, ImportFailure, ImportReport, export_commands

FUTURE = 4_000_000_000_000


def commands(*lines: str | bytes) -> bytes:
    """Commands, given as lines of words between spaces, as in an append-only file."""
    out = b""
    for line in lines:
        words = line.split() if isinstance(line, bytes) else line.encode().split()
        out += b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
    return out


def restoring(kind: bytes, value: bytes) -> bytes:
    """The command that makes the key k of a value, as in an append-only file."""
    words = [b"RESTORE", b"k", b"0", build.payload(kind[0], value)]
    return b"*4\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def take_in(*files: bytes, piece: int = 65536, **options: Any) -> tuple[Content, ImportReport]:
    importing = Import(random.Random(1), **options)
    for number, data in enumerate(files, 1):
        parts = [data[place : place + piece] for place in range(0, len(data), piece)]
        for _ in importing.read(f"file {number}", parts, last=number == len(files)):
            pass
    for _ in importing.finish():
        pass
    store = Store(random.Random(1))
    store.replace_all(importing.staging)
    check_memory(store)
    return content(store), importing.report


def refused(*files: bytes, **options: Any) -> ImportFailure:
    failures = []
    for piece in (65536, 1):
        with pytest.raises(ImportFailure) as caught:
            take_in(*files, piece=piece, **options)
        failures.append(caught.value)
    assert str(failures[0]) == str(failures[1])
    return failures[0]


def test_a_dump_file() -> None:
    data = dump(
        b"\xfa" + text(b"valkey-ver") + text(b"9.1.2"),
        b"\xf5" + text(b"#!lua name=l"),
        b"\xfe\x02",
        key(0, b"a", text(b"1")),
        b"\xfc" + FUTURE.to_bytes(8, "little") + key(2, b"s", length(1) + text(b"m")),
        b"\xfc" + (1000).to_bytes(8, "little") + key(0, b"old", text(b"x")),
        key(2, b"empty", length(0)),
        magic=b"VALKEY080",
    )
    harness = Harness()
    harness.call("SET", "a", "1")
    harness.call("SADD", "s", "m")
    harness.call("PEXPIREAT", "s", FUTURE)
    found, report = take_in(data, now_ms=1001)
    assert found == content(harness.store)
    assert (report.writer, report.database, report.keys, report.expired, report.empty) == ("Valkey 9.1.2", 2, 2, 1, 1)
    assert (report.dumped, report.commands, report.functions, report.verified) == (3, 0, 1, True)
    assert report.bytes == len(data)


def test_commands_behind_a_dump() -> None:
    preamble = dump(b"\xfe\x00", key(1, b"l", length(1) + text(b"a")), b"\xfc" + b"\x01" * 8 + key(0, b"k", text(b"v")))
    data = preamble + commands("SELECT 0", "RPUSH l b", "PERSIST k", "INCR n")
    harness = Harness()
    harness.call("RPUSH", "l", "a", "b")
    harness.call("SET", "k", "v")
    harness.call("SET", "n", "1")
    for piece in (65536, 1, 7):
        found, report = take_in(data, piece=piece, now_ms=FUTURE)
        assert found == content(harness.store)
        assert (report.dumped, report.commands, report.keys, report.database) == (2, 4, 3, 0)


def test_several_files() -> None:
    base = dump(b"\xfe\x05", key(0, b"n", b"\xc0\x01"))
    found, report = take_in(base, b"", commands("SELECT 5", "INCR n"), commands("SELECT 5", "INCR n"))
    assert found == {b"n": (b"3", None)}
    assert report.database == 5
    failure = refused(base, commands("SELECT 5", "INCR n"), base)
    assert (failure.name, failure.reason) == ("file 3", "a dump stands behind commands")


def test_annotations_are_passed_over() -> None:
    data = (
        b"#note: the file begins with a line that is none of ours\r\n"
        + commands("SET a 1", "MULTI", "SET b 2")
        + b"#TS:1700000000\n#\r\n"
        + commands("SET c 3", "EXEC")
        + b"# the end\n"
    )
    for piece in (65536, 1, 9):
        found, report = take_in(data, piece=piece)
        assert found == {b"a": (b"1", None), b"b": (b"2", None), b"c": (b"3", None)}
        assert report.torn is None


def test_every_place_where_a_file_may_break_off() -> None:
    whole = [commands("SET a 1"), commands("MULTI", "SET a 2", "SET b 2", "EXEC"), b"#note\n", commands("SET c 3")]
    data = b"".join(whole)
    ends = [sum(map(len, whole[:count])) for count in range(len(whole) + 1)]
    states: list[Content] = [{}, {b"a": (b"1", None)}, {b"a": (b"2", None), b"b": (b"2", None)}]
    states += [states[2], {**states[2], b"c": (b"3", None)}]
    for size in range(len(data) + 1):
        last = max(number for number, end in enumerate(ends) if end <= size)
        found, report = take_in(data[:size])
        assert found == states[last]
        assert report.torn == (None if ends[last] == size else (ends[last], size - ends[last]))
        assert take_in(data[:size], piece=1)[0] == found
        if size != ends[last]:
            assert "unfinished record, and more files follow" in refused(data[:size], b"").reason


def test_streams_and_restored_values() -> None:
    fields = length(1) + text(b"f") + text(b"v") + FUTURE.to_bytes(8, "little")
    payload = build.payload(22, fields, version=80)
    restore = [b"RESTORE", b"h", b"%d" % FUTURE, payload, b"REPLACE", b"ABSTTL"]
    data = commands("XADD x 5-1 f v", "XGROUP CREATE x g 0", "XGROUP CREATECONSUMER x g c", "SET h 1")
    data += b"*6\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in restore)
    found, _ = take_in(data, now_ms=99)
    assert found[b"h"] == (("hash", {b"f": b"v"}, {b"f": FUTURE}, found[b"h"][0][3]), FUTURE)
    assert found[b"x"][0][1] == [((5, 1), (b"f", b"v"))]
    assert found[b"x"][0][5] == {b"g": ((0, 0), {b"c"}, {})}
    found, report = take_in(data, now_ms=FUTURE + 1)
    assert (sorted(found), report.expired) == ([b"x"], 1)


def test_expired_fields_are_left_out() -> None:
    fields = b"".join(
        text(b"f%d" % number) + text(b"v") + (1000 + number % 2).to_bytes(8, "little") for number in range(3000)
    )
    data = dump(key(22, b"h", length(3000) + fields), magic=b"VALKEY080")
    found, report = take_in(data, now_ms=1001)
    assert (len(found[b"h"][0][1]), report.expired_fields, report.keys) == (1500, 1500, 1)
    found, report = take_in(data, now_ms=1002)
    assert (found, report.expired, report.expired_fields) == ({}, 1, 3000)


def test_databases() -> None:
    data = commands("SET a 0", "SELECT 1", "SET a 1", "FLUSHDB", "SET b 1", "SELECT 0", "SET c 0")
    assert "databases 0 and 1 both hold data: choose one" in refused(data).reason
    assert take_in(data, database=0)[0] == {b"a": (b"0", None), b"c": (b"0", None)}
    assert take_in(data, database=1)[0] == {b"b": (b"1", None)}
    assert take_in(data + commands("SELECT 7", "FLUSHALL"), database=1)[0] == {}
    two = dump(b"\xfe\x00", key(0, b"a", text(b"0")), b"\xfe\x01", key(0, b"b", text(b"1")))
    assert "databases 0 and 1 both hold keys: choose one" in refused(two).reason
    found, report = take_in(two, database=1)
    assert (found, report.other_databases) == ({b"b": (b"1", None)}, 1)
    one = dump(b"\xfe\x03", key(0, b"a", text(b"0")))
    assert "databases 3 and 0 both hold data" in refused(one + commands("SET a 1")).reason


def test_one_prefix() -> None:
    data = commands("SET app:a 1", "SET other 2", "RENAME other app:b", "SADD api:c 3")
    found, report = take_in(data, prefix=b"app:")
    assert found == {b"app:a": (b"1", None), b"app:b": (b"2", None)}
    assert (report.keys, report.other_prefixes) == (2, 1)


def test_what_changes_no_data_is_passed_over() -> None:
    found, report = take_in(commands("SCRIPT LOAD x", "FUNCTION LOAD x", "PUBLISH c m", "set a 1"))
    assert (found, report.passed_over) == ({b"a": (b"1", None)}, 3)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"hello\r\n", "expected '*', got 'h'"),
        (b"\0\0\0", "expected '*', got '\\x00'"),
        (b"*0\r\n", "a command without a word"),
        (b"*x\r\n", "'x' is no number"),
        (b"*-1\r\n", "'-1' is no number"),
        (b"*1048577\r\n", "'1048577' is no number"),
        (b"*" + b"1" * 40, "the line is too long"),
        (b"*1\r\n:1\r\n", "expected '$', got ':'"),
        (b"*1\r\n$x\r\n", "'x' is no number"),
        (b"*1\r\n$4\r\nPINGxx", "a word is longer than it says"),
        (commands("EXEC"), "EXEC without MULTI"),
        (commands("MULTI", "MULTI"), "MULTI inside a transaction"),
        (commands("GET a"), "GET a cannot be applied: not a command that changes data"),
        (commands("NONE a"), "NONE a cannot be applied: not a command"),
        (commands("BLPOP a 0"), "BLPOP a cannot be applied"),
        (commands("SET a"), "wrong number of words"),
        (commands("LPUSH a b", "INCR a"), "INCR a cannot be applied: WRONGTYPE"),
        (commands("EXPIRE a 5"), "counts from when it ran"),
        (commands("SET a b EX 5"), "counts from when it ran"),
        (commands("MOVE a 1"), "reaches into another database"),
        (commands("COPY a b DB 1"), "reaches into another database"),
        (commands("SELECT x"), "no number of a database"),
        (commands("XADD a"), "too few words"),
        (commands("RESTORE a 0 junkjunkjunk"), "dump version 27502 is not known"),
        (commands("RESTORE a 0 junkjunk"), "RESTORE a cannot be applied: the dump is too short"),
        (restoring(b"\1", length(0)), "RESTORE k cannot be applied: there is nothing in the dump"),
        (commands("RESTORE a 5 junkjunkjunk"), "counts from when it ran"),
        (commands("SET a 1", "RESTORE a 0 junkjunkjunk"), "the key exists"),
        (commands("RESTORE a"), "no lifetime"),
        (b"*2\r\n$4\r\nINCR\r\n$3\r\n\xff\r\n\r\n*2\r\n$5\r\nLPUSH\r\n$1\r\na\r\n", "wrong number of words"),
        (dump(key(0, b"a", text(b"v")))[:-1], "ends in the middle"),
        (dump(key(0, b"a", text(b"v"))) + b"junk", "expected '*', got 'j'"),
    ],
)
def test_what_is_refused(data: bytes, reason: str) -> None:
    failure = refused(data)
    assert reason in failure.reason
    assert 0 <= failure.offset <= len(data)


def test_the_offset_of_a_command_that_fails() -> None:
    before = b"#note\n" + commands("LPUSH a b", "MULTI", "SET b 1")
    failure = refused(before + commands("INCR a", "EXEC", "SET c 1"))
    assert (failure.name, failure.offset) == ("file 1", len(before))
    assert str(failure).startswith("file 1: INCR a cannot be applied: WRONGTYPE")


def test_large_commands_and_transactions() -> None:
    words = b" ".join(b"%d" % number for number in range(3000))
    many = [f"SET k{number} v" for number in range(2000)]
    data = commands(b"SADD s " + words) + commands("MULTI", *many, "EXEC") + commands(b"SET big " + b"x" * 300_000)
    for piece in (65536, 100):
        found, report = take_in(data, piece=piece)
        assert len(found[b"s"][0][1]) == 3000
        assert len(found) == 2002
        assert report.commands == 2002
    importing = Import(random.Random(1))
    assert sum(1 for _ in importing.read("x", [data])) > 8


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=2), st.integers(2, 50))
def test_damaged_files_are_refused_or_read_the_same(changes: list[tuple[int, int]], piece: int) -> None:
    data = bytearray(
        b"#a\n" + commands("SELECT 0", "RPUSH l a b", "MULTI", "INCR n", "EXEC", "PEXPIREAT l 99999") + b"#b\r\n"
    )
    for place, byte in changes:
        data[place % len(data)] = byte
    outcomes: list[Any] = []
    for size in (len(data), 1, piece):
        try:
            found, report = take_in(bytes(data), piece=size)
            outcomes.append((found, report))
        except ImportFailure as failure:
            outcomes.append(str(failure))
    assert outcomes[1:] == outcomes[:1] * 2


# -- export -----------------------------------------------------------------------------------------------------------


def filled() -> Harness:
    harness = Harness()
    harness.call("SET", "app:s", b"\0\r\n" * 5000)
    harness.call("RPUSH", "app:l", *range(2500))
    harness.call("SADD", "set", "a", "b")
    harness.call("ZADD", "z", "1.5", "a", "inf", "b")
    harness.call("HSET", "app:h", "f", "v", "g", "w")
    harness.call("HPEXPIREAT", "app:h", FUTURE, "FIELDS", 1, "g")
    harness.call("SET", "late", "x", "PXAT", FUTURE)
    for number in range(3000):
        harness.call("SET", f"many:{number}", "x")
    return harness


def test_what_is_exported_can_be_taken_in() -> None:
    store = filled().store
    pieces = list(export_commands(store.freeze()))
    assert max(map(len, pieces)) < 80_000
    assert len(pieces) > 3
    assert take_in(b"".join(pieces))[0] == content(store)
    only = b"".join(export_commands(store.freeze(), prefix=b"app:"))
    assert take_in(only)[0] == {name: told for name, told in content(store).items() if name.startswith(b"app:")}
    assert b"late" not in b"".join(export_commands(store.freeze(), now_ms=FUTURE + 1))
    assert b"late" in b"".join(export_commands(store.freeze(), now_ms=FUTURE))
    twice = b"".join(export_commands(store.freeze(), replace=True))
    assert take_in(twice + twice)[0] == content(store)


def test_what_is_exported_are_the_commands_of_each_key() -> None:
    store = filled().store
    shards = store.freeze()
    expected = [
        command
        for shard in shards
        for name, value in shard.items()
        for command in (
            [[b"SET", b"late", b"x", b"PXAT", b"%d" % FUTURE]]
            if name == b"late"
            else rebuild_commands(name, value, shard.deadlines.get(name))
        )
    ]
    assert RequestParser().feed(b"".join(export_commands(shards))) == expected
    assert list(export_commands([])) == []


# -- the rooms --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", ["rdb", "transfer"])
def test_the_rooms_know_no_outside_world(room: str) -> None:
    outside = {"asyncio", "os", "random", "secrets", "socket", "threading", "time", "trio", "pathlib"}
    for path in (Path(kevynode.__file__).parent / room).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            assert not outside & {name.split(".")[0] for name in names}, path
