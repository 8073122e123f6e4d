"""REPLICAOF, ROLE, WAIT and what a replica refuses. Nothing listens where the primary should be."""

from __future__ import annotations

import pytest
from compat import runner, sequences
from compat.runner import Pair, Side
from compat.sequences import Sequence_
from compat.test_info import info_of
from support.raw_client import Reply

#: Nothing listens on this port of the loopback interface.
_NOBODY = (b"REPLICAOF", b"127.0.0.1", b"1")

SEQUENCES = r"""
== arguments of replicaof
REPLICAOF
REPLICAOF a
REPLICAOF a 1 b
REPLICAOF host x
REPLICAOF host -1
REPLICAOF host 65536
REPLICAOF host 1.5
REPLICAOF host " 1"
REPLICAOF host ""
REPLICAOF no two
REPLICAOF one no
REPLICAOF NO ONE
replicaof no One
SLAVEOF
SLAVEOF host x
SLAVEOF NO ONE
ROLE #~ shape
CONFIG GET replicaof
CONFIG GET slaveof
CONFIG SET replicaof "a 1"

== replicaof of a primary inside a transaction
MULTI
REPLICAOF NO ONE
ROLE
REPLICAOF x y
EXEC #~ shape
MULTI
REPLICAOF a
EXEC

== a replica refuses writes
SET k v
RPUSH l a
REPLICAOF 127.0.0.1 1
REPLICAOF 127.0.0.1 1
REPLICAOF 127.0.0.1 x
SET k w
GET k
DEL missing
GETEX k
SORT l
SORT_RO l ALPHA
EXPIRE k 10
BLPOP l 0
FLUSHALL
INCR
NEVER
PUBLISH a b
EVAL
CONFIG GET replicaof
MULTI
GET k
EXEC
MULTI
SET k w
GET k
EXEC
WAITAOF 0 0 0
WAITAOF 1 0 0
WAITAOF x 0 0
WAITAOF 0 0 x
REPLICAOF NO ONE
SET k w
CONFIG GET replicaof

== wait of a replica
REPLICAOF 127.0.0.1 1
WAIT 0 0
WAIT x y
WAIT 1 10
WAIT 0

== a pipeline sees the new role at once
SET k v
1_ REPLICAOF 127.0.0.1 1
1_ SET k w
1_ GET k
1_ REPLICAOF NO ONE
1_ SET k x
1< 5
GET k

== a transaction that was queued before
2: WATCH w
2: MULTI
2: SET k v
2: GET k
3: MULTI
3: GET k
REPLICAOF 127.0.0.1 1
2: EXEC
3: EXEC

== a transaction that changes the role
SET k v
MULTI
SET k w
REPLICAOF 127.0.0.1 1
GET k
EXEC
SET k x
GET k

== who waits is sent away
2! BLPOP l 0
3! WAIT 5 0
4! BLMOVE a b LEFT LEFT 0
REPLICAOF 127.0.0.1 1
2<
3<
4<

== a listener of a replica
2: SUBSCRIBE c
REPLICAOF 127.0.0.1 1
2: SET k v
2: GET k
PUBLISH c x
2<

== a pause outlasts the change
2: CLIENT PAUSE 100000 WRITE
3! SET k v
REPLICAOF 127.0.0.1 1
2: CLIENT UNPAUSE
3<

== a writable replica
CONFIG SET replica-read-only no
REPLICAOF 127.0.0.1 1
SET k v
GET k
CONFIG SET replica-read-only yes
SET k w
GET k

== expired keys of a replica are hidden
SET k v PX 1
REPLICAOF 127.0.0.1 1
DEBUG SLEEP 0.01
GET k
EXISTS k
TYPE k
DBSIZE
REPLICAOF NO ONE
EXISTS k
DBSIZE

== maxmemory does not concern a replica
SET k v
CONFIG SET maxmemory 1
SET k w
CONFIG SET replica-read-only no
REPLICAOF 127.0.0.1 1
SET k w
GET k

== too few replicas
SET k v
CONFIG SET min-replicas-to-write 1
SET k w
GET k
DEL missing
INCR
2: MULTI
2: SET k w
2: EXEC
2: MULTI
2: GET k
2: EXEC
3: SUBSCRIBE c
3: SET k v
3: GET k
PUBLISH c x
3<
CONFIG SET maxmemory 1
SET k w
DEL k
REPLICAOF 127.0.0.1 1
SET k w
REPLICAOF NO ONE
CONFIG SET min-replicas-to-write 0
DEL k

== too few replicas for a queued write
MULTI
SET k v
2: CONFIG SET min-replicas-to-write 3
EXEC
2: CONFIG SET min-replicas-max-lag 0
SET k v

== parameters of replication
CONFIG GET min-replicas-max-lag
CONFIG SET min-replicas-max-lag 20
CONFIG GET min-slaves-max-lag
CONFIG SET min-replicas-max-lag 2.5
CONFIG SET min-replicas-max-lag -1
CONFIG SET min-replicas-to-write -1
CONFIG SET min-replicas-to-write x
CONFIG SET repl-backlog-size 32kb
CONFIG GET repl-backlog-size
CONFIG SET repl-backlog-size 0
CONFIG SET repl-backlog-size x
CONFIG SET replica-read-only perhaps
"""


@sequences.parametrize(SEQUENCES)
def test_replication(pair: Pair, protocol: int, sequence: Sequence_) -> None:
    """Every reply is the same."""
    runner.run(pair, sequence, protocol)


#: What monitoring tools read of a replica.
_REPLICA_FIELDS = (
    "role master_host master_port master_link_status master_last_io_seconds_ago master_sync_in_progress "
    "slave_read_repl_offset slave_repl_offset master_link_down_since_seconds slave_priority slave_read_only "
    "replica_announced connected_slaves master_failover_state master_replid master_replid2 master_repl_offset "
    "second_repl_offset repl_backlog_active repl_backlog_size repl_backlog_first_byte_offset repl_backlog_histlen"
).split()
#: Those of them that say the same on both servers while there is nobody to follow.
_SAME = (
    "role master_host master_port master_link_status master_last_io_seconds_ago master_sync_in_progress slave_priority "
    "slave_read_only replica_announced connected_slaves master_failover_state"
).split()


def followed(side: Side) -> dict[str, str]:
    """INFO replication of a server that follows nobody in vain."""
    assert side.control.call(*_NOBODY) == Reply("simple", b"OK"), side.name
    return info_of(side, b"replication")["replication"]


def test_info_of_a_replica(pair: Pair) -> None:
    """The fields that tools read are there, those without a matter of chance are equal, in the same order."""
    try:
        expected, actual = (followed(side) for side in pair.sides)
    finally:
        pair.clean()
    for side, fields in zip(pair.sides, (expected, actual), strict=True):
        assert not set(_REPLICA_FIELDS) - set(fields), side.name
    assert {name: actual[name] for name in _SAME} == {name: expected[name] for name in _SAME}
    known = [name for name in actual if name in expected]
    assert known == [name for name in expected if name in actual]


def test_good_replicas_are_counted_where_they_are_wanted(pair: Pair) -> None:
    """A primary that wants replicas before it writes says how many it has."""
    found = []
    try:
        for side in pair.sides:
            side.remember_config((b"min-replicas-to-write",))
            side.control.call(b"CONFIG", b"SET", b"min-replicas-to-write", b"2")
            found.append(info_of(side, b"replication")["replication"].get("min_slaves_good_slaves"))
    finally:
        pair.clean()
    assert found == ["0", "0"]


@pytest.mark.parametrize("version", [2, 3])
def test_role_of_a_replica(pair: Pair, version: int) -> None:
    """Who is followed, and in which state; how far is a matter of its own unit."""
    found = []
    try:
        for side in pair.sides:
            followed(side)
            with side.connect(version) as client:
                role = client.call(b"ROLE").elements
                greeting = client.call(b"HELLO", b"%d" % version).elements
            found.append((role[:3], role[3].value in (b"connect", b"connecting"), role[4].kind, greeting[11]))
    finally:
        pair.clean()
    assert found[0] == found[1]
