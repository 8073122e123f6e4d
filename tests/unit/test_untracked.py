"""What the collector of cyclic garbage is not to look at, and what must not be left to it."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from support.session_harness import ServerHarness

from kevynode.errors import ReplyError
from kevynode.scope import OwnershipTable, Scope
from kevynode.scope.ownership import Ownership
from kevynode.store.keyspace import KeyShard, Keyspace
from kevynode.store.values import Hash


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_nobody_looks_through_shards_of_strings_and_all_others_are_looked_through() -> None:
    keyspace = Keyspace()
    for number in range(5000):
        keyspace[b"%d" % number] = b"v"
    keyspace.freeze()
    keyspace[b"0"] = b"w"
    assert not [shard for shard in keyspace.shards() if gc.is_tracked(shard)]
    shard = KeyShard()
    shard[b"hash"] = Hash(0)
    assert gc.is_tracked(shard)


def test_a_refused_write_leaves_no_cycle_behind(no_collector: None) -> None:
    node = ServerHarness()
    table = OwnershipTable([Scope(b"web:", "b")])
    node.server.ownership = Ownership("a", table, {"a": "10.0.0.1:6004", "b": "10.0.0.2:6004"})
    client = node.connect()
    before = sum(isinstance(found, ReplyError) for found in gc.get_objects())
    for number in range(20):
        assert client.call("SET", f"web:{number}", "x") == b"-MISDIRECTED writer is 10.0.0.2:6004\r\n"
    assert sum(isinstance(found, ReplyError) for found in gc.get_objects()) == before
