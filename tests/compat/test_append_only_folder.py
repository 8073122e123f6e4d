"""Valkey loads the folders that our writer leaves behind, at every stage of their life, and its check tool agrees."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from compat.test_append_only_format import LATER, check, everything, serve
from support.append_only import Node, read_folder
from support.raw_client import RawClient, Reply
from support.store_harness import content

from kevynode.disk import SystemDisk
from kevynode.persist.annotations import UpstreamCursor
from kevynode.persist.base import encode_base
from kevynode.persist.folder import FOLDER
from kevynode.persist.manifest import manifest_name
from kevynode.persist.records import encode_commands
from kevynode.serve.digest import data_digest
from kevynode.store.apply import Applier
from kevynode.store.journal import Effect, Origin
from kevynode.store.store import Store


def start(data_dir: Path, history: int = 1) -> Node:
    """A node at a time when no deadline has come."""
    node = Node(SystemDisk(), history=history, data_dir=str(data_dir))
    node.store.now = LATER
    assert node.start()
    return node


def apply(node: Node, groups: list[list[Effect]]) -> None:
    """Let these changes happen, written after every few."""
    applier = Applier(node.store)
    for number, group in enumerate(groups):
        applier.apply_all([effect[0] for effect in group])
        node.store.commit()
        if number % 7 == 0:
            assert node.writer.write()
    assert node.writer.write()


def expect_same(node: Node, data_dir: Path) -> None:
    """Assert that Valkey, and we, find in the folder what the node holds."""
    node.sync()
    node.writer.close()
    node.folder.close()
    checked = check(data_dir / FOLDER, manifest_name())
    assert checked.status == 0, checked.text
    assert "All AOF files and manifest are valid" in checked.text
    with serve(data_dir / FOLDER) as server, RawClient(server.host, server.port) as client:
        assert client.call(b"DBSIZE") == Reply("integer", node.store.keyspace.count)
        assert client.call(b"DEBUG", b"DIGEST") == Reply("simple", data_digest(node.store))
        for shard in node.store.keyspace.shards():
            for key in shard:
                deadline = shard.deadlines.get(key, -1)
                assert client.call(b"PEXPIRETIME", key) == Reply("integer", deadline), key


@pytest.mark.parametrize("stage", ["increment", "rewritten", "fresh", "placed", "restarted"])
def test_valkey_loads_a_folder(stage: str, tmp_path: Path) -> None:
    node = start(tmp_path)
    groups = everything().groups_together(seed=5)
    half = len(groups) // 2
    # What nobody but us makes anything of.
    node.writer.note_cursor(UpstreamCursor("host:1", 5, 6))
    apply(node, groups[:half])
    node.writer.note_lineage(node.writer.lineage.branch(77, node.store.journal.offset))
    node.store.journal.origin = Origin("host:1", 5)
    # Written beside a stream: no offset, and data that are local from now on.
    node.store.journal.follows = True
    node.do("SET", "beside", "1")
    node.store.journal.follows = False
    if stage == "rewritten":
        assert node.rewrite(between=node.writer.write).done
    elif stage == "fresh":
        assert node.rewrite(fresh=True, between=node.writer.write).done
    elif stage == "placed":
        use_placement(node, ("DEL", "beside"), ("RPUSH", "list:placed", "a", "b"), ("SET", "placed", "v" * 100_000))
    elif stage == "restarted":
        node.writer.write()
        before = content(node.store)
        node.writer.close()
        node.folder.close()
        node = start(tmp_path, 2)
        assert content(node.store) == before
    apply(node, groups[half:])
    assert content(read_folder_of(node, tmp_path)) == content(node.store)
    texts = [path.read_bytes() for path in (tmp_path / FOLDER).glob("*.*.aof")]
    assert any(b"#kevynode:local yes\r\n" in text for text in texts)
    assert all(b"#kevynode:digest " in text for text in texts)
    expect_same(node, tmp_path)


def use_placement(node: Node, *commands: tuple[str, ...]) -> None:
    """Have these come into use with a file that holds them already."""
    words = [[word.encode() for word in command] for command in commands]
    node.store.journal.origin = None
    placement = node.folder.create_placement()
    for argv in words:
        placement.write(encode_commands([argv]))
    placement.end(len(words))
    placement.sync()
    job = node.writer.begin_placement_use(placement, len(words), lambda: node.do_together(*commands))
    assert job is not None
    job.run()
    assert node.writer.end_increment(job)


def read_folder_of(node: Node, data_dir: Path) -> Store:
    """What a second process would find; it borrows the lock."""
    node.folder.close()
    store, _ = read_folder(SystemDisk(), str(data_dir))
    return store


def test_valkey_loads_large_values_of_every_type_from_a_base(tmp_path: Path) -> None:
    node = start(tmp_path)
    draw = random.Random(3)
    count = 3500
    node.do("SET", "long", "v" * 300_000)
    node.do("SET", "l" * 200_000, "key")
    node.do("HSET", "longhash", "f", "w" * 100_000, "g", "x")
    for first in range(0, count, 500):
        numbers = [str(number) for number in range(first, first + 500)]
        node.do("RPUSH", "list", *numbers)
        node.do("SADD", "set", *numbers)
        node.do("HSET", "hash", *(word for number in numbers for word in (number, "v" + number)))
        node.do("ZADD", "zset", *(word for number in numbers for word in (repr(draw.random()), number)))
        for deadline in (LATER + 5000, LATER + 6000):
            fields = draw.sample(numbers, 40)
            node.do("HPEXPIREAT", "hash", str(deadline), "FIELDS", "40", *fields)
    applier = Applier(node.store)
    for number in range(1, count):
        applier.apply([b"XADD", b"stream", b"%d-1" % number, b"field", b"%d" % number])
    applier.apply([b"XGROUP", b"CREATE", b"stream", b"group", b"3000-1"])
    applier.apply([b"XGROUP", b"CREATE", b"bare", b"group", b"0-0", b"MKSTREAM"])
    for number in range(1, 1500):
        claim = b"XCLAIM stream group reader 0 %d-1 TIME 4000000000000 RETRYCOUNT 2 FORCE JUSTID" % number
        applier.apply(claim.split())
    node.store.commit()
    node.do("PEXPIREAT", "list", str(LATER + 9000))
    assert node.rewrite(fresh=True).done
    sizes = [len(piece.data) for piece in encode_base(node.store.freeze())]
    assert max(sizes) < 256 * 1024
    assert content(read_folder_of(node, tmp_path)) == content(node.store)
    expect_same(node, tmp_path)
