"""The server: CONFIG, COMMAND, SLOWLOG, MEMORY, LATENCY, DEBUG, CLUSTER KEYSLOT, and the rest of administration."""

from __future__ import annotations

import pytest
from compat import runner, sequences
from compat.runner import Pair, Side
from compat.sequences import Sequence_
from support.raw_client import Reply

SEQUENCES = r"""
== config get
CONFIG GET maxmemory
CONFIG GET MAXMEMORY
CONFIG GET maxmemory-policy
CONFIG GET nothing
CONFIG GET maxmemory maxmemory-policy
CONFIG GET maxmemory maxmemory
CONFIG GET maxmemor?
CONFIG GET maxmemory*-policy nothing
CONFIG GET slowlog-*
CONFIG GET timeout
CONFIG GET tcp-keepalive
CONFIG GET notify-keyspace-events
CONFIG GET appendonly
CONFIG GET save
CONFIG GET maxclients
CONFIG GET proto-max-bulk-len
CONFIG GET client-query-buffer-limit
CONFIG GET client-output-buffer-limit
CONFIG GET hz
CONFIG GET maxmemory-samples
CONFIG GET lfu-log-factor
CONFIG GET lfu-decay-time
CONFIG GET latency-monitor-threshold
CONFIG GET hash-max-listpack-*
CONFIG GET hash-max-ziplist-*
CONFIG GET zset-max-listpack-*
CONFIG GET zset-max-ziplist-*
CONFIG GET set-max-*
CONFIG GET list-max-listpack-size
CONFIG GET list-max-ziplist-size
CONFIG GET list-compress-depth
CONFIG GET lazyfree-*
CONFIG GET appendfsync
CONFIG GET auto-aof-rewrite-*
CONFIG GET min-replicas-*
CONFIG GET min-slaves-*
CONFIG GET replica-read-only
CONFIG GET slave-read-only
CONFIG GET active-expire-effort
CONFIG GET requirepass
CONFIG GET busy-reply-threshold
CONFIG
CONFIG GET
CONFIG foo
CONFIG GET ""

== config set
CONFIG SET maxmemory 1000000000
CONFIG GET maxmemory
CONFIG SET maxmemory 1gb
CONFIG GET maxmemory
CONFIG SET maxmemory 1GB
CONFIG SET maxmemory 100mb
CONFIG GET maxmemory
CONFIG SET maxmemory 1k
CONFIG SET maxmemory 0
CONFIG SET maxmemory-policy allkeys-lru
CONFIG GET maxmemory-policy
CONFIG SET maxmemory-policy VOLATILE-TTL
CONFIG GET maxmemory-policy
CONFIG SET maxmemory-policy noeviction
CONFIG SET timeout 100
CONFIG GET timeout
CONFIG SET timeout 0
CONFIG SET slowlog-max-len 10 slowlog-log-slower-than 5000
CONFIG GET slowlog-*
CONFIG SET tcp-keepalive 60
CONFIG SET maxmemory-samples 10
CONFIG SET hash-max-listpack-entries 4
CONFIG SET hash-max-ziplist-entries 5
CONFIG GET hash-max-listpack-entries
CONFIG SET list-max-listpack-size 3
CONFIG SET appendfsync no
CONFIG GET appendfsync
CONFIG SET appendfsync EVERYSEC
CONFIG SET replica-read-only YES
CONFIG SET slave-read-only yes

== config set errors
CONFIG SET
CONFIG SET maxmemory
CONFIG SET maxmemory 1 timeout
CONFIG SET nothing 1
CONFIG SET nothing 1 maxmemory 5
CONFIG SET maxmemory abc
CONFIG SET maxmemory -1
CONFIG SET maxmemory 1.5
CONFIG SET maxmemory ""
CONFIG SET maxmemory 1xb
CONFIG SET maxmemory-policy foo
CONFIG SET maxmemory-policy ""
CONFIG SET timeout -1
CONFIG SET timeout abc
CONFIG SET timeout 99999999999
CONFIG SET maxmemory-samples 0
CONFIG SET maxmemory-samples 65
CONFIG SET appendfsync sometimes
CONFIG SET replica-read-only maybe
CONFIG SET slowlog-log-slower-than abc
CONFIG SET slowlog-log-slower-than -5
CONFIG SET slowlog-max-len -1
CONFIG SET notify-keyspace-events Q
CONFIG SET maxmemory 5 maxmemory 6
CONFIG SET maxmemory 5000000 maxmemory-policy foo
CONFIG GET maxmemory
CONFIG SET hash-max-listpack-entries -1
CONFIG SET hash-max-listpack-entries abc
CONFIG SET databases 5
CONFIG SET bind 1.2.3.4 x
CONFIG SET supervised no
CONFIG SET hash-max-listpack-entries 3 hash-max-ziplist-entries 4
CONFIG SET maxclients 0
CONFIG SET proto-max-bulk-len 100
CONFIG SET client-output-buffer-limit foo
CONFIG SET client-output-buffer-limit "normal 0 0"
CONFIG SET client-output-buffer-limit "foo 0 0 0"
CONFIG SET save "1"
CONFIG SET save abc
CONFIG RESETSTAT x
CONFIG RESETSTAT
CONFIG HELP
CONFIG REWRITE x
config get maxmemory

== encodings follow the configuration
CONFIG SET hash-max-listpack-entries 2
HSET h a 1 b 2
OBJECT ENCODING h
HSET h c 3
OBJECT ENCODING h
CONFIG SET set-max-intset-entries 2
SADD s 1 2
OBJECT ENCODING s
SADD s 3
OBJECT ENCODING s
CONFIG SET set-max-listpack-entries 2
SADD t a b
OBJECT ENCODING t
SADD t c
OBJECT ENCODING t
CONFIG SET zset-max-listpack-entries 2
ZADD z 1 a 2 b
OBJECT ENCODING z
ZADD z 3 c
OBJECT ENCODING z
CONFIG SET list-max-listpack-size 2
RPUSH l a b
OBJECT ENCODING l
RPUSH l c
OBJECT ENCODING l
CONFIG SET hash-max-listpack-value 4
HSET i a abcde
OBJECT ENCODING i

== command getkeys
COMMAND GETKEYS GET k
COMMAND GETKEYS SET k v
COMMAND GETKEYS MSET a 1 b 2
COMMAND GETKEYS MSETEX 2 a 1 b 2
COMMAND GETKEYS DEL a b c
COMMAND GETKEYS BLPOP a b 0
COMMAND GETKEYS BLMOVE a b LEFT LEFT 0
COMMAND GETKEYS LMPOP 2 a b LEFT
COMMAND GETKEYS BLMPOP 0 2 a b LEFT
COMMAND GETKEYS ZMPOP 2 a b MIN
COMMAND GETKEYS ZUNION 2 a b
COMMAND GETKEYS ZUNIONSTORE d 2 a b WEIGHTS 1 2
COMMAND GETKEYS ZRANGESTORE d s 0 -1
COMMAND GETKEYS SINTERCARD 2 a b LIMIT 5
COMMAND GETKEYS SINTERSTORE d a b
COMMAND GETKEYS SORT l
COMMAND GETKEYS SORT l STORE d
COMMAND GETKEYS SORT l BY w_* GET x_* STORE d
COMMAND GETKEYS SORT_RO l
COMMAND GETKEYS RENAME a b
COMMAND GETKEYS COPY a b DB 0
COMMAND GETKEYS SMOVE a b m
COMMAND GETKEYS BITOP AND d a b
COMMAND GETKEYS BITFIELD k GET u8 0
COMMAND GETKEYS OBJECT ENCODING k
COMMAND GETKEYS MEMORY USAGE k
COMMAND GETKEYS LCS a b
COMMAND GETKEYS PING
COMMAND GETKEYS PUBLISH ch m
COMMAND GETKEYS SPUBLISH ch m
COMMAND GETKEYS SUBSCRIBE ch
COMMAND GETKEYS FLUSHALL
COMMAND GETKEYS CONFIG GET x
COMMAND GETKEYS GET
COMMAND GETKEYS GET a b
COMMAND GETKEYS FOO a
COMMAND GETKEYS ZUNION abc a
COMMAND GETKEYS ZUNION 5 a
COMMAND GETKEYS ZUNION 0 a
COMMAND GETKEYS LMPOP 99999 a LEFT
COMMAND GETKEYS SINTERCARD -1 a
COMMAND GETKEYS MSET a
COMMAND GETKEYS WATCH a b
COMMAND GETKEYS HEXPIRE h 10 FIELDS 1 a
COMMAND GETKEYS HSETEX h FIELDS 1 a 1
COMMAND GETKEYS TOUCH a b
COMMAND GETKEYS MULTI
COMMAND GETKEYS EXISTS a a
COMMAND GETKEYS RPOPLPUSH a b
COMMAND GETKEYS MSETNX a 1 b 2
COMMAND GETKEYS OBJECT HELP
COMMAND GETKEYS object foo k
COMMAND GETKEYSANDFLAGS GET k
COMMAND GETKEYSANDFLAGS SET k v
COMMAND GETKEYSANDFLAGS SET k v GET
COMMAND GETKEYSANDFLAGS LMOVE a b LEFT LEFT
COMMAND GETKEYSANDFLAGS SORT l STORE d
COMMAND GETKEYSANDFLAGS PING
COMMAND GETKEYSANDFLAGS DEL a b
COMMAND GETKEYSANDFLAGS BITFIELD k GET u8 0
COMMAND GETKEYSANDFLAGS BITFIELD k SET u8 0 1
COMMAND GETKEYSANDFLAGS ZUNIONSTORE d 2 a b

== command
COMMAND COUNT #~ kind
COMMAND COUNT x
COMMAND #~ kind
COMMAND INFO nothing
COMMAND INFO #~ kind
COMMAND INFO foo get #~ kind
COMMAND LIST #~ kind
COMMAND LIST FILTERBY PATTERN xyz*
COMMAND LIST FILTERBY PATTERN "hget*"
COMMAND LIST FILTERBY PATTERN "config*"
COMMAND LIST FILTERBY ACLCAT nothing
COMMAND LIST FILTERBY ACLCAT bitmap
COMMAND LIST FILTERBY ACLCAT transaction
COMMAND LIST FILTERBY MODULE nothing
COMMAND LIST FILTERBY foo bar
COMMAND LIST FILTERBY
COMMAND LIST foo
COMMAND DOCS nothing
COMMAND DOCS get #~ kind
COMMAND foo
COMMAND HELP
COMMAND GETKEYS
COMMAND COUNT a b

== slowlog
SLOWLOG RESET
SLOWLOG LEN #~ exact
SLOWLOG GET #~ exact
CONFIG SET slowlog-log-slower-than 0
PING
SET k v
SLOWLOG LEN #~ exact
SLOWLOG GET 2 #~ shape
SLOWLOG GET 100 #~ shape
SLOWLOG GET -1 #~ shape
SLOWLOG GET 0
CONFIG SET slowlog-log-slower-than -1
SLOWLOG RESET
PING
SLOWLOG LEN #~ exact
SLOWLOG GET -2
SLOWLOG GET abc
SLOWLOG GET 1 2
SLOWLOG
SLOWLOG foo
SLOWLOG LEN x
SLOWLOG RESET x
SLOWLOG HELP

== slowlog cuts long commands
CONFIG SET slowlog-log-slower-than 0
SLOWLOG RESET
SET k {rep:x:1000}
CONFIG SET slowlog-log-slower-than -1
SLOWLOG GET #~ shape
SLOWLOG LEN #~ exact

== time lastsave role
TIME
TIME x
LASTSAVE
LASTSAVE x
ROLE #~ shape
ROLE x
DBSIZE x

== info
INFO
INFO server
INFO nothing
INFO server clients
INFO all
INFO everything
INFO default
INFO SERVER
INFO ""

== save
SAVE
SAVE x
BGSAVE foo
BGSAVE SCHEDULE x

== shutdown errors
SHUTDOWN foo
SHUTDOWN SAVE NOSAVE
SHUTDOWN ABORT
SHUTDOWN ABORT NOW
SHUTDOWN NOW ABORT

== latency
LATENCY LATEST
LATENCY RESET
LATENCY RESET foo
LATENCY HISTORY command
LATENCY HISTORY
LATENCY foo
LATENCY
LATENCY DOCTOR #~ kind
LATENCY LATEST x

== memory
MEMORY DOCTOR #~ kind
MEMORY STATS
MEMORY PURGE
MEMORY HELP
MEMORY STATS x
MEMORY PURGE x

== cluster
CLUSTER KEYSLOT a
CLUSTER KEYSLOT ""
CLUSTER KEYSLOT "{user}:1"
CLUSTER KEYSLOT "a{b}c"
CLUSTER KEYSLOT "{}a"
CLUSTER KEYSLOT "{a"
CLUSTER KEYSLOT "a}b{c}"
CLUSTER KEYSLOT "{a}{b}"
CLUSTER KEYSLOT "{{a}}"
CLUSTER KEYSLOT "\x00\xff"
CLUSTER KEYSLOT
CLUSTER KEYSLOT a b
CLUSTER foo
CLUSTER
CLUSTER HELP
CLUSTER INFO
CLUSTER MYID
CLUSTER SLOTS
CLUSTER SHARDS
CLUSTER NODES

== replication arity
REPLICAOF
REPLICAOF a
REPLICAOF a b c
SLAVEOF a
REPLCONF
FAILOVER foo
REPLICAOF NO ONE
SLAVEOF NO ONE

== debug
DEBUG
DEBUG foo
DEBUG SLEEP 0
DEBUG SLEEP
DEBUG SET-ACTIVE-EXPIRE 1
DEBUG SET-ACTIVE-EXPIRE 0
DEBUG SET-ACTIVE-EXPIRE
DEBUG ERROR "ERR my error"
DEBUG ERROR "something"
DEBUG LOG hello
DEBUG OBJECT missing
SET k v
DEBUG OBJECT k #~ kind
DEBUG DIGEST #~ kind
DEBUG DIGEST-VALUE k missing #~ shape
DEBUG STRINGMATCH-LEN
DEBUG JMAP
DEBUG POPULATE 3
DEBUG POPULATE abc
DEBUG POPULATE
DBSIZE
DEBUG RELOAD
GET k
DEBUG CHANGE-REPL-ID

== debug reload keeps everything
SET s v
SET t v PXAT 33177117420123
RPUSH l a b c
HSET h f v g w
HPEXPIREAT h 33177117420123 FIELDS 1 f
SADD ints 1 2 3
SADD words a b
ZADD z 1.5 a inf b
DEBUG RELOAD
GET s
PEXPIRETIME t
LRANGE l 0 -1
HGETALL h
HPEXPIRETIME h FIELDS 2 f g
SMEMBERS ints
SMEMBERS words
ZRANGE z 0 -1 WITHSCORES

== debug protocol
DEBUG PROTOCOL string
DEBUG PROTOCOL integer
DEBUG PROTOCOL double
DEBUG PROTOCOL bignum
DEBUG PROTOCOL null
DEBUG PROTOCOL array
DEBUG PROTOCOL set
DEBUG PROTOCOL map
DEBUG PROTOCOL verbatim
DEBUG PROTOCOL true
DEBUG PROTOCOL false
DEBUG PROTOCOL foo
DEBUG PROTOCOL

== maxmemory refuses writes
SET k v
CONFIG SET maxmemory 1
SET k w
GET k
LPUSH l a
DEL k
DEL missing
EXPIRE k 100
SET k v
LPOP l
MULTI
SET k v
EXEC
MULTI
GET k
EXEC
PUBLISH ch x
CONFIG SET maxmemory 0
SET k v
"""


@sequences.parametrize(SEQUENCES)
def test_server(pair: Pair, protocol: int, sequence: Sequence_) -> None:
    runner.run(pair, sequence, protocol)


#: INFO fields that monitoring tools and client libraries read, by section.
INFO_FIELDS = {
    "server": "redis_version server_name os arch_bits process_id run_id tcp_port uptime_in_seconds uptime_in_days hz "
    "server_mode multiplexing_api executable config_file server_time_usec",
    "clients": "connected_clients maxclients blocked_clients pubsub_clients watching_clients "
    "client_recent_max_input_buffer client_recent_max_output_buffer total_watched_keys",
    "memory": "used_memory used_memory_human used_memory_rss used_memory_peak used_memory_peak_human "
    "used_memory_dataset total_system_memory maxmemory maxmemory_human maxmemory_policy mem_fragmentation_ratio "
    "mem_allocator lazyfree_pending_objects",
    "persistence": "loading rdb_changes_since_last_save rdb_bgsave_in_progress rdb_last_save_time "
    "rdb_last_bgsave_status aof_enabled aof_rewrite_in_progress aof_last_bgrewrite_status aof_last_write_status",
    "stats": "total_connections_received total_commands_processed instantaneous_ops_per_sec total_net_input_bytes "
    "total_net_output_bytes rejected_connections sync_full sync_partial_ok sync_partial_err expired_keys evicted_keys "
    "keyspace_hits keyspace_misses pubsub_channels pubsub_patterns latest_fork_usec total_error_replies",
    "replication": "role connected_slaves master_replid master_repl_offset second_repl_offset repl_backlog_active "
    "repl_backlog_size repl_backlog_first_byte_offset repl_backlog_histlen",
    "cpu": "used_cpu_sys used_cpu_user used_cpu_sys_children used_cpu_user_children",
    "cluster": "cluster_enabled",
}


def info_of(side: Side, *sections: bytes) -> dict[str, dict[str, str]]:
    """INFO as section -> field -> value, the section names in lower case."""
    reply = side.control.call(b"INFO", *sections)
    assert reply.kind in ("bulk", "verbatim"), reply.render()
    found: dict[str, dict[str, str]] = {}
    name = ""
    for line in str(reply.value, "utf-8").split("\r\n"):
        if line.startswith("# "):
            name = line[2:].lower()
            found[name] = {}
        elif line:
            field, _, value = line.partition(":")
            found[name][field] = value
    return found


@pytest.mark.parametrize("section", INFO_FIELDS)
def test_info_fields(pair: Pair, section: str) -> None:
    """Every field of the list above is in that section of both servers."""
    for side in pair.sides:
        fields = info_of(side, section.encode())
        assert list(fields) == [section], side.name
        missing = set(INFO_FIELDS[section].split()) - set(fields[section])
        assert not missing, side.name


def test_info_keyspace(pair: Pair) -> None:
    """The keyspace section counts keys and keys with a deadline in Valkey's form."""
    lines = []
    try:
        for side in pair.sides:
            empty = info_of(side, b"keyspace")["keyspace"]
            side.control.call(b"MSET", b"a", b"1", b"b", b"2", b"c", b"3")
            side.control.call(b"PEXPIREAT", b"a", b"33177117420123")
            line = info_of(side, b"keyspace")["keyspace"]["db0"]
            fields = dict(part.split("=") for part in line.split(","))
            fields.pop("avg_ttl")
            lines.append((empty, fields))
    finally:
        pair.clean()
    assert lines[0] == lines[1]


def test_info_counters(pair: Pair) -> None:
    """Hits, misses, expired keys and errors are counted alike."""
    counted = []
    lines = (
        "SET k v|GET k|GET missing|MGET k missing k|EXISTS k|EXISTS missing|HGET k f|FOO|HGET missing f|TTL k|TYPE k|"
        "STRLEN missing|SET k|LRANGE missing 0 -1|SETNX k x|INCR k|DEL missing|SISMEMBER missing a|"
        "PEXPIREAT k 1|TOUCH a"
    )
    script = lines.encode().split(b"|")
    try:
        for side in pair.sides:
            side.control.call(b"CONFIG", b"RESETSTAT")
            for line in script:
                side.control.call(*line.split(b" "))
            stats = info_of(side, b"stats")["stats"]
            names = ("keyspace_hits", "keyspace_misses", "expired_keys", "total_error_replies", "evicted_keys")
            errors = info_of(side, b"errorstats")["errorstats"]
            counted.append(({name: stats[name] for name in names}, errors))
    finally:
        pair.clean()
    assert counted[0] == counted[1]


def test_info_commandstats(pair: Pair) -> None:
    """Calls, failures and rejections are counted by command alike."""
    counted = []
    script = [b"SET k v", b"GET k", b"GET k", b"LPUSH k x", b"GET", b"CONFIG GET maxmemory", b"OBJECT ENCODING k"]
    try:
        for side in pair.sides:
            side.control.call(b"CONFIG", b"RESETSTAT")
            for line in script:
                side.control.call(*line.split(b" "))
            found = {}
            for name, line_of in info_of(side, b"commandstats")["commandstats"].items():
                fields = dict(part.split("=") for part in line_of.split(","))
                found[name] = (fields["calls"], fields["rejected_calls"], fields["failed_calls"])
            found.pop("cmdstat_info", None)
            counted.append(found)
    finally:
        pair.clean()
    assert counted[0] == counted[1]


def test_config_resetstat_answers(pair: Pair) -> None:
    """After CONFIG RESETSTAT the counters start from nothing on both."""
    for side in pair.sides:
        side.control.call(b"GET", b"missing")
        assert side.control.call(b"CONFIG", b"RESETSTAT") == Reply("simple", b"OK")
        assert info_of(side, b"stats")["stats"]["keyspace_misses"] == "0", side.name
