"""SAVE, BGSAVE, BGREWRITEAOF, LASTSAVE, WAITAOF, and the parameters of the files."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from compat import runner, sequences
from compat.runner import Pair, Side
from compat.sequences import Sequence_
from compat.test_info import info_of
from support.node_process import NodeProcess
from support.valkey_server import ValkeyServer

#: Seconds within which a handful of keys must be saved.
PATIENCE = 30.0

SEQUENCES = r"""
== save
SET k v
SAVE
LASTSAVE
GET k
SAVE x
SAVE
LASTSAVE x

== save in a transaction
MULTI
SAVE
EXEC

== lastsave in a transaction
MULTI
LASTSAVE
SET k v
EXEC

== arguments
BGSAVE x
BGSAVE SCHEDULE x
BGSAVE CANCEL x
BGSAVE ""
BGSAVE CANCEL
BGREWRITEAOF x
BGREWRITEAOF SCHEDULE

== parameters
CONFIG GET appenddirname
CONFIG GET appendfilename
CONFIG GET aof-load-truncated
CONFIG GET no-appendfsync-on-rewrite
CONFIG SET appenddirname x
CONFIG SET appendfilename x
CONFIG SET appendonly maybe
CONFIG SET appendonly no
CONFIG SET appendfsync often
CONFIG SET appendfsync ALWAYS
CONFIG GET appendfsync
CONFIG SET appendfsync everysec
CONFIG SET auto-aof-rewrite-percentage -1
CONFIG SET auto-aof-rewrite-percentage 2147483648
CONFIG SET auto-aof-rewrite-min-size x
CONFIG SET auto-aof-rewrite-min-size 1mb auto-aof-rewrite-percentage x
CONFIG GET auto-aof-rewrite-*
"""


#: For servers that keep an append-only file.
SEQUENCES_WITH_FILE = r"""
== waitaof
WAITAOF 0 0 0
WAITAOF 1 0 0
SET k v
WAITAOF 1 0 0
WAITAOF 1 0 1000
WAITAOF 1 1 10
WAITAOF 0 1 10
WAITAOF 2 0 0
WAITAOF -1 0 0
WAITAOF a 0 0
WAITAOF 1 -1 0
WAITAOF 1 0 -1
WAITAOF 1 0
2: WAITAOF 1 0 0

== waitaof without waiting
MULTI
WAITAOF 1 0 0
EXEC

== parameters of a file that is kept
CONFIG GET appendonly
CONFIG SET appendonly yes
CONFIG SET appendfsync always
SET k v
WAITAOF 1 0 0
CONFIG SET appendfsync no
SET k w
CONFIG SET appendfsync everysec
WAITAOF 1 0 0
"""

#: The last one: it switches the files off.
LAST_SEQUENCE = r"""
== the file is switched off
CONFIG SET appendonly no maxmemory x
CONFIG GET appendonly
CONFIG SET appendonly no
WAITAOF 1 0 0
WAITAOF 0 0 0
CONFIG GET appendonly
"""


@pytest.fixture(scope="module")
def keeping() -> Iterator[Pair]:
    """Two servers that keep an append-only file."""
    valkey = Side("valkey", lambda: ValkeyServer("--appendonly", "yes"))
    try:
        node = Side("kevynode", NodeProcess)
    except BaseException:
        valkey.stop()
        raise
    yield Pair(valkey, node)
    # While it writes its first file valkey does not stop.
    finished(valkey)
    valkey.stop()
    node.stop()


@sequences.parametrize(SEQUENCES)
def test_persistence(pair: Pair, protocol: int, sequence: Sequence_) -> None:
    runner.run(pair, sequence, protocol)


def finished(side: Side, rewrites: int = 0) -> dict[str, str]:
    """The persistence section of INFO once nothing is being written any more, after so many rewrites at least."""
    end = time.monotonic() + PATIENCE
    while True:
        facts = info_of(side, b"persistence")["persistence"]
        idle = facts["rdb_bgsave_in_progress"] == facts["aof_rewrite_in_progress"] == "0"
        if idle and int(facts["aof_rewrites"]) >= rewrites:
            return facts
        assert time.monotonic() < end, f"{side.name} is still writing"


def test_bgsave(pair: Pair) -> None:
    """It starts, ends by itself, and INFO counts it."""
    found = []
    for side in pair.sides:
        before = finished(side)
        replies = [side.control.call(b"SET", b"k", b"v"), side.control.call(b"BGSAVE")]
        after = finished(side)
        counted = int(after["rdb_saves"]) - int(before["rdb_saves"])
        found.append((replies, counted, after["rdb_last_bgsave_status"], after["rdb_changes_since_last_save"]))
        side.control.call(b"DEL", b"k")
    assert found[1] == found[0]


def test_info_has_valkeys_fields_in_its_order(pair: Pair) -> None:
    expected, actual = (list(info_of(side, b"persistence")["persistence"]) for side in pair.sides)
    assert actual == expected


def test_info_of_a_file_that_is_kept(keeping: Pair) -> None:
    """All of Valkey's fields, in its order; beside them what it has no name for."""
    expected, actual = (list(info_of(side, b"persistence")["persistence"]) for side in keeping.sides)
    assert [name for name in actual if name in expected] == expected
    assert set(actual) - set(expected) <= {"aof_waiting_groups"}


def test_bgrewriteaof(keeping: Pair) -> None:
    found = []
    for side in keeping.sides:
        before = int(finished(side)["aof_rewrites"])
        side.control.call(b"SET", b"k", b"v")
        reply = side.control.call(b"BGREWRITEAOF")
        after = finished(side, before + 1)
        side.control.call(b"DEL", b"k")
        found.append((reply, after["aof_last_bgrewrite_status"], after["aof_base_size"] != "0"))
    assert found[1] == found[0]


@sequences.parametrize(SEQUENCES_WITH_FILE)
def test_append_only_file(keeping: Pair, protocol: int, sequence: Sequence_) -> None:
    runner.run(keeping, sequence, protocol)


@sequences.parametrize(LAST_SEQUENCE)
def test_switching_off(keeping: Pair, sequence: Sequence_) -> None:
    runner.run(keeping, sequence, 2)
