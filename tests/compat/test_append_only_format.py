"""Valkey accepts what we write into an append-only folder, and we read what Valkey writes into one."""

from __future__ import annotations

import os
import random
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from support.raw_client import RawClient, Reply
from support.records import encode_groups, encode_spanning
from support.store_harness import START, Harness
from support.valkey_server import ValkeyServer, valkey_binary
from support.verbs import CASES, DATA

from kevynode.disk import SystemDisk
from kevynode.persist.annotations import ANNOTATION_LIMIT, End, MadeBy, Position, UpstreamCursor
from kevynode.persist.manifest import Manifest, base_name, increment_name, manifest_name
from kevynode.persist.record_reader import Entries, RecordReader, Torn
from kevynode.persist.records import EXEC, MULTI, encode_commands, file_start
from kevynode.replicate.lineage import ANCESTOR_LIMIT, HISTORY_LIMIT, MAX_OFFSET, Lineage
from kevynode.serve.digest import data_digest
from kevynode.store.apply import Applier
from kevynode.store.journal import Effect, Origin
from kevynode.store.values import Hash

#: Unix ms in the year 2096: deadlines counted from then have not come.
LATER = 4_000_000_000_000
LINEAGE = Lineage(7, ((5, 10),))
LONG_LINEAGE = Lineage(
    HISTORY_LIMIT - 1, tuple((HISTORY_LIMIT - 2 - number, MAX_OFFSET) for number in range(ANCESTOR_LIMIT))
)
STREAMS = """
XADD st 1-1 f v
XADD st 1-2 f v g w
XADD st 2-0 f v
XADD st 5-0 f v
XADD st 6-0 f v
XTRIM st MAXLEN = 4
XDEL st 2-0
XSETID st 9-0 ENTRIESADDED 12 MAXDELETEDID 2-0
XGROUP CREATE st readers 1-2
XGROUP CREATECONSUMER st readers c
XCLAIM st readers c 0 5-0 6-0 TIME 4000000000000 RETRYCOUNT 3 FORCE JUSTID LASTID 6-0
XACK st readers 6-0
XGROUP CREATE st others 0-0
XGROUP SETID st others 5-0
XGROUP CREATE st gone 0-0
XGROUP DESTROY st gone
XGROUP CREATE made there 0-0 MKSTREAM
"""


class Checked(NamedTuple):
    """What the check tool says."""

    status: int
    text: str


def check(folder: Path, name: str) -> Checked:
    """Run Valkey's check tool on a file of the folder."""
    tool = folder.parent / "valkey-check-aof"
    if not tool.exists():
        tool.symlink_to(valkey_binary())
    done = subprocess.run([tool, folder / name], capture_output=True, text=True, timeout=60, check=False)
    return Checked(done.returncode, done.stdout + done.stderr)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty append-only folder, in the place where a server that runs in ``tmp_path`` looks for it."""
    path = tmp_path / "appendonlydir"
    path.mkdir()
    return path


def write(folder: Path, base: bytes, *increments: bytes) -> None:
    """Write the files and their manifest."""
    disk = SystemDisk()
    manifest = Manifest().with_base(1)
    files = {base_name(1): base}
    for number, data in enumerate(increments, 1):
        manifest = manifest.with_increment(number)
        files[increment_name(number)] = data
    files[manifest_name()] = manifest.format()
    for name, data in files.items():
        file = disk.create(str(folder / name))
        assert file.write(data) == len(data)
        file.sync()
        file.close()


def serve(folder: Path, *options: str) -> ValkeyServer:
    """A server that loads the folder, and must not cut anything from it."""
    own = ("--dir", str(folder.parent), "--appendonly", "yes", "--aof-load-truncated", "no")
    return ValkeyServer(*own, "--enable-debug-command", "yes", *options)


class Recorder:
    """A store whose groups are kept as its journal gives them."""

    def __init__(self, now: int = LATER) -> None:
        self.harness = Harness(now=now)
        self.groups: list[list[Effect]] = []
        self.harness.store.journal.observers.append(lambda first, group: self.groups.append(group))

    def run(self, line: str) -> None:
        self.harness.call(*line.split())

    def apply(self, *lines: str) -> None:
        """Apply commands that clients have not, as one group, however many changes each makes."""
        applier = Applier(self.harness.store, lenient=True)
        applier.apply_all([line.encode().split() for line in lines])
        assert applier.ignored == 0
        self.harness.store.commit()

    def groups_together(self, seed: int) -> list[list[Effect]]:
        """The groups, some of them made one as EXEC does."""
        chance = random.Random(seed)
        out: list[list[Effect]] = [[]]
        for group in self.groups:
            if out[-1] and chance.random() < 0.7:
                out.append([])
            out[-1] = out[-1] + group
        return out


def everything() -> Recorder:
    """A recorder that has seen every command that writes, in every form that takes effect at once."""
    recorder = Recorder()
    recorder.run("SET before flush")
    recorder.run("FLUSHALL")
    for lines in CASES.values():
        for case in lines:
            if "&" in case or "PASS" in case:
                continue
            for line in [*DATA, *case.split(";")]:
                recorder.run(line)
    recorder.run("HSET mortal a 1 b 2 c 3")
    recorder.run("HPEXPIRE mortal 500000 FIELDS 2 a b")
    recorder.run("HPERSIST mortal FIELDS 1 b")
    for line in DATA:
        recorder.run(line)
    recorder.apply(*STREAMS.strip().splitlines()[:3])
    for line in STREAMS.strip().splitlines()[3:]:
        recorder.apply(line)
    return recorder


def expect_equal(server: ValkeyServer, recorder: Recorder) -> None:
    """Assert that a server holds what the store does, deadlines and all."""
    store = recorder.harness.store
    with RawClient(server.host, server.port) as client:
        assert client.call(b"DBSIZE") == Reply("integer", store.keyspace.count)
        assert client.call(b"DEBUG", b"DIGEST") == Reply("simple", data_digest(store))
        for shard in store.keyspace.shards():
            for key, value in shard.items():
                deadline = shard.deadlines.get(key, -1)
                assert client.call(b"PEXPIRETIME", key) == Reply("integer", deadline), key
                if isinstance(value, Hash) and value.deadlines:
                    for field in value.fields:
                        at = client.call(b"HPEXPIRETIME", key, b"FIELDS", b"1", field)
                        assert at.elements == (Reply("integer", value.deadlines.get(field, -1)),), (key, field)


def pieces(data: Sequence[list[Effect]], count: int) -> Iterator[Sequence[list[Effect]]]:
    size = -(-len(data) // count)
    for place in range(0, len(data), size):
        yield data[place : place + size]


def test_valkey_loads_everything_that_a_journal_holds(folder: Path) -> None:
    recorder = everything()
    offset = 100
    files = []
    for number, groups in enumerate(pieces(recorder.groups_together(seed=11), 3), 1):
        files.append(file_start("incr", number, LINEAGE, offset) + encode_groups(groups))
        offset += sum(map(len, groups))
    base = file_start("base", 1, LINEAGE, 100) + UpstreamCursor("host:1", 3, 4).line() + End(0).line()
    write(folder, base, *files)
    words = {effect[0][0] for group in recorder.groups for effect in group}
    assert {b"FLUSHALL", b"HPEXPIREAT", b"HPERSIST", b"XCLAIM", b"XSETID", b"PEXPIREAT", b"LTRIM"} <= words
    assert any(MULTI in data for data in files)
    checked = check(folder, manifest_name())
    assert checked.status == 0, checked.text
    assert "All AOF files and manifest are valid" in checked.text
    with serve(folder) as server:
        expect_equal(server, recorder)
        with RawClient(server.host, server.port) as client:
            readers = client.call(b"XINFO", b"GROUPS", b"st").elements
            assert [reader.elements[1].value for reader in readers] == [b"others", b"readers"]
            pending = client.call(b"XPENDING", b"st", b"readers").elements
            assert [reply.value for reply in pending[:3]] == [1, b"5-0", b"5-0"]
            facts = [reply.value for reply in client.call(b"XINFO", b"STREAM", b"st").elements]
            stream = dict(zip(facts[::2], facts[1::2], strict=True))
            assert (stream[b"length"], stream[b"last-generated-id"]) == (3, b"9-0")
            assert (stream[b"max-deleted-entry-id"], stream[b"entries-added"]) == (b"2-0", 12)


def test_valkey_loads_a_base_of_commands(folder: Path) -> None:
    recorder = everything()
    commands = [effect[0] for group in recorder.groups for effect in group]
    base = file_start("base", 1, LINEAGE, 100) + encode_commands(commands) + End(len(commands)).line()
    write(folder, base, file_start("incr", 1, LINEAGE, 100))
    checked = check(folder, manifest_name())
    assert checked.status == 0, checked.text
    with serve(folder) as server:
        expect_equal(server, recorder)


def longest_cursor() -> UpstreamCursor:
    """A cursor whose line is as long as a line may be."""
    room = ANNOTATION_LIMIT - len(UpstreamCursor("", 1, 2).line())
    return UpstreamCursor("%" * (room // 3) + "a" * (room % 3), 1, 2)


def test_valkey_passes_over_every_annotation(folder: Path) -> None:
    cursor = longest_cursor()
    assert len(cursor.line()) == ANNOTATION_LIMIT
    set_records = [encode_commands([[b"SET", b"k%d" % number, b"v"]]) for number in range(8)]
    data = (
        file_start("incr", 1, LONG_LINEAGE, MAX_OFFSET - 100)
        + cursor.line()
        + set_records[0]
        + MULTI
        + cursor.line()
        + set_records[1]
        + cursor.line()
        + set_records[2]
        + cursor.line()
        + EXEC
        + MadeBy(Origin("host:1", 4)).line()
        + set_records[3]
        + MadeBy(None).line()
        + encode_spanning([[b"SET", b"k4", b"v"]], MAX_OFFSET - 90)
        + encode_spanning([[b"SET", b"k5", b"v"], [b"SET", b"k6", b"v"]], MAX_OFFSET - 90)
        + Position(LONG_LINEAGE, MAX_OFFSET - 50, MAX_OFFSET - 90).line()
        + set_records[7]
        + End(8).line()
    )
    reader = RecordReader()
    events = reader.feed(data)
    assert reader.finish() is None
    assert sum(len(event.commands) for event in events if isinstance(event, Entries)) == 8
    write(folder, file_start("base", 1, LONG_LINEAGE, 0) + End(0).line(), data)
    checked = check(folder, manifest_name())
    assert checked.status == 0, checked.text
    with serve(folder) as server, RawClient(server.host, server.port) as client:
        keys = client.call(b"KEYS", b"*").elements
        assert sorted(key.value for key in keys) == [b"k%d" % number for number in range(8)]


def test_a_line_that_is_longer_is_too_long_for_valkey(folder: Path) -> None:
    """So the limit is where it must be."""
    line = b"#" * (ANNOTATION_LIMIT - 2) + b"\r\n"
    record = encode_commands([[b"SET", b"k", b"v"]])
    write(folder, file_start("base", 1, LINEAGE, 0), file_start("incr", 1, LINEAGE, 0) + line + record)
    assert check(folder, manifest_name()).status == 0
    write(folder, file_start("base", 1, LINEAGE, 0), file_start("incr", 1, LINEAGE, 0) + b"#" + line + record)
    assert check(folder, manifest_name()).status != 0


def test_valkey_cuts_where_we_do(folder: Path) -> None:
    commands = [[b"SET", b"key", b"value"], [b"RPUSH", b"list", b"a", b"\r\n"], [b"DEL", b"key"]]
    group: list[Effect] = [(command, None, ()) for command in commands]
    data = file_start("incr", 1, LINEAGE, 0) + encode_groups([group[:1], group, group[1:2], group[:2], group[2:]])
    start = len(file_start("incr", 1, LINEAGE, 0))
    (folder / "tail").write_bytes(data)
    chance = random.Random(5)
    for place in sorted(chance.sample(range(start + 1, len(data)), 40)):
        reader = RecordReader()
        reader.feed(data[:place])
        error = reader.finish()
        (folder / "tail").write_bytes(data[:place])
        checked = check(folder, "tail")
        if error is None:
            assert checked.status == 0, checked.text
        else:
            assert isinstance(error, Torn)
            found = re.search(r"ok_up_to=(\d+)", checked.text)
            assert found is not None, checked.text
            assert (int(found[1]), checked.status) == (error.cut, 1), place


def test_reading_what_valkey_writes(folder: Path) -> None:
    recorder = Recorder(now=START)
    options = ("--aof-use-rdb-preamble", "no", "--aof-timestamp-enabled", "yes", "--save", "")
    os.rmdir(folder)
    with serve(folder, *options) as server, RawClient(server.host, server.port) as client:
        for line in [*DATA, "LMOVE l lm LEFT RIGHT", "HPEXPIRE h 500000 FIELDS 1 b"]:
            client.call(*line.encode().split())
        client.call(b"SET", b"lines", b"\r\n*1\r\n")
        client.call(b"BGREWRITEAOF")
        assert any(b"aof_rewrite_in_progress:0" in client.call(b"INFO", b"persistence").value for _ in range(100_000))
        client.pipeline([[b"MULTI"], [b"INCR", b"k"], [b"EXEC"], [b"SET", b"last", b"v"]])
        digest = client.call(b"DEBUG", b"DIGEST")
        manifest = Manifest.parse((folder / manifest_name()).read_bytes())
        assert manifest.base is not None
        assert not manifest.base.is_rdb
        stamped = 0
        for file in manifest.files:
            reader = RecordReader(foreign=True)
            data = (folder / file.name).read_bytes()
            stamped += data.count(b"#TS:")
            for event in reader.feed(data):
                assert isinstance(event, Entries)
                for command in event.commands:
                    if command[0] != b"SELECT":
                        recorder.harness.call(*command)
            assert reader.finish() is None
        assert stamped
        assert Reply("simple", data_digest(recorder.harness.store)) == digest
