"""SAVE, BGSAVE, BGREWRITEAOF, LASTSAVE, and the parameters of the files, on servers without an append-only file."""

from __future__ import annotations

import time

from compat import runner, sequences
from compat.runner import Pair, Side
from compat.sequences import Sequence_
from compat.test_info import info_of

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


@sequences.parametrize(SEQUENCES)
def test_persistence(pair: Pair, protocol: int, sequence: Sequence_) -> None:
    runner.run(pair, sequence, protocol)


def saved(side: Side) -> dict[str, str]:
    """The persistence section of INFO once no dump is being written."""
    end = time.monotonic() + PATIENCE
    while True:
        facts = info_of(side, b"persistence")["persistence"]
        if facts["rdb_bgsave_in_progress"] == "0":
            return facts
        assert time.monotonic() < end, f"{side.name} is still saving"


def test_bgsave(pair: Pair) -> None:
    """It starts, ends by itself, and INFO counts it."""
    found = []
    for side in pair.sides:
        before = saved(side)
        replies = [side.control.call(b"SET", b"k", b"v"), side.control.call(b"BGSAVE")]
        after = saved(side)
        counted = int(after["rdb_saves"]) - int(before["rdb_saves"])
        found.append((replies, counted, after["rdb_last_bgsave_status"], after["rdb_changes_since_last_save"]))
        side.control.call(b"DEL", b"k")
    assert found[1] == found[0]


def test_info_has_valkeys_fields_in_its_order(pair: Pair) -> None:
    expected, actual = (list(info_of(side, b"persistence")["persistence"]) for side in pair.sides)
    assert actual == expected
