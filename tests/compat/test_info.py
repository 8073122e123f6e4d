"""INFO: the fields that tools read, and what the counters count."""

from __future__ import annotations

import pytest
from compat.runner import Pair, Side
from support.raw_client import Reply

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
