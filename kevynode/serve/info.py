"""INFO: the state of a node in sections, with Valkey's names for what both have.

Only what is true is shown: a counter of something that does not exist here stands at 0 where tools expect it, and is
left out elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeAlias

from ..twins import IMPLEMENTATION
from .info_persistence import persistence_fields
from .info_replication import replication_fields
from .info_scopes import scope_fields

if TYPE_CHECKING:
    from .server import Server

__all__ = ["human_size", "info_text"]

Fields: TypeAlias = Iterator[tuple[str, object]]

# Keys with a deadline that avg_ttl is estimated from.
_TTL_SAMPLE: Final = 1000


def human_size(size: int) -> str:
    """Bytes as people read them: ``512B``, ``1.50K``, ``3.41M``."""
    if size < 1024:
        return f"{size}B"
    power = min((size.bit_length() - 1) // 10, 5)
    return f"{size / 1024**power:.2f}{'BKMGTP'[power]}"


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _server(server: Server) -> Fields:
    uptime = int(server.monotonic() - server.started)
    yield "redis_version", server.redis_version
    yield "server_name", "kevynode"
    yield "kevynode_version", server.version
    yield "implementation", IMPLEMENTATION
    yield "redis_mode", "standalone"
    yield "server_mode", "standalone"
    if server.process is not None:
        yield "os", server.process.system
        yield "arch_bits", 64
        yield "multiplexing_api", server.process.multiplexing
        yield "process_id", server.process.pid
        yield "executable", server.process.executable
    yield "run_id", server.run_id
    yield "node_id", server.node_id
    yield "tcp_port", server.tcp_port
    yield "server_time_usec", server.wall_ms() * 1000
    yield "uptime_in_seconds", uptime
    yield "uptime_in_days", uptime // 86400
    if server.parameters is not None:
        hz = server.parameters.value("hz")
        yield "hz", hz
        yield "configured_hz", hz
    yield "lru_clock", (server.wall_ms() // 1000) & 0xFFFFFF
    yield "config_file", ""
    for number, (kind, address, port) in enumerate(server.listeners):
        where = f"path={address}" if kind == "unix" else f"bind={address},port={port}"
        yield f"listener{number}", f"name={kind},{where}"


def _clients(server: Server) -> Fields:
    sessions = server.sessions.values()
    now = server.monotonic()
    yield "connected_clients", len(sessions)
    yield "cluster_connections", 0
    if server.parameters is not None:
        yield "maxclients", server.parameters.value("maxclients")
    yield "client_recent_max_input_buffer", max((session.held_input for session in sessions), default=0)
    yield "client_recent_max_output_buffer", max((session.held_output for session in sessions), default=0)
    yield "blocked_clients", sum(session.waiting is not None for session in sessions)
    yield "tracking_clients", 0
    yield "pubsub_clients", sum(session.kind_of_client() == "pubsub" for session in sessions)
    yield "watching_clients", sum(bool(session.watched) for session in sessions)
    yield (
        "clients_in_timeout_table",
        sum(session.waiting is not None and session.waiting.timer is not None for session in sessions),
    )
    yield "total_watched_keys", server.watches.count
    yield "total_blocking_keys", server.waiters.key_count
    yield "total_blocking_keys_on_nokey", 0
    yield "paused_reason", "none" if server.pause is None else "client_pause"
    yield "paused_actions", server.pause or "none"
    yield "paused_timeout_milliseconds", max(0, round((server.pause_end - now) * 1000)) if server.pause else 0


def _memory(server: Server) -> Fields:
    backlog = server.view.backlog().memory
    used = server.rates.memory() + backlog
    peak = server.rates.peak()
    clients = server.rates.client_memory()
    overhead = max(clients + backlog, used - server.store.used)
    dataset = used - overhead
    resident = 0 if server.process is None else server.process.resident()
    limit = server.store.settings.maxmemory
    yield "used_memory", used
    yield "used_memory_human", human_size(used)
    if server.process is not None:
        yield "used_memory_rss", resident
        yield "used_memory_rss_human", human_size(resident)
    yield "used_memory_peak", peak
    yield "used_memory_peak_human", human_size(peak)
    yield "used_memory_peak_perc", f"{100 * _ratio(used, peak):.2f}%"
    yield "used_memory_overhead", overhead
    yield "used_memory_startup", 0
    yield "used_memory_dataset", dataset
    yield "used_memory_dataset_perc", f"{100 * _ratio(dataset, used):.2f}%"
    if server.process is not None:
        yield "total_system_memory", server.process.system_memory
        yield "total_system_memory_human", human_size(server.process.system_memory)
    yield "used_memory_lua", 0
    yield "used_memory_lua_human", "0B"
    yield "used_memory_scripts", 0
    yield "used_memory_scripts_human", "0B"
    yield "number_of_cached_scripts", 0
    yield "number_of_functions", 0
    yield "number_of_libraries", 0
    yield "maxmemory", limit
    yield "maxmemory_human", human_size(limit)
    yield "maxmemory_policy", server.store.settings.maxmemory_policy
    if server.process is not None:
        yield "mem_fragmentation_ratio", f"{_ratio(resident, used):.2f}"
        yield "mem_fragmentation_bytes", resident - used
    foreign = server.rates.foreign_memory()
    if server.ownership is not None:
        yield "used_memory_foreign", foreign
        yield "used_memory_foreign_human", human_size(foreign)
    yield "mem_not_counted_for_evict", backlog + foreign
    yield "mem_replication_backlog", backlog
    yield "mem_total_replication_buffers", backlog
    yield "mem_replicas_repl_buffer", 0
    yield "mem_clients_slaves", 0
    yield "mem_clients_normal", clients
    yield "mem_cluster_links", 0
    yield "mem_aof_buffer", 0
    yield "mem_allocator", "pymalloc"
    yield "active_defrag_running", 0
    yield "lazyfree_pending_objects", 0
    yield "lazyfreed_objects", 0


def _stats(server: Server) -> Fields:
    statistics, store, pubsub = server.statistics, server.store, server.pubsub
    rates = server.rates.per_second()
    copies = server.copy_traffic()
    yield "total_connections_received", statistics.connections
    yield "total_commands_processed", server.rates.commands()
    yield "instantaneous_ops_per_sec", round(rates.commands)
    yield "total_net_input_bytes", statistics.input_bytes + copies.received_bytes
    yield "total_net_output_bytes", statistics.output_bytes + copies.sent_bytes
    yield "total_net_repl_input_bytes", copies.received_bytes
    yield "total_net_repl_output_bytes", copies.sent_bytes
    yield "instantaneous_input_kbps", f"{rates.input_bytes / 1024:.2f}"
    yield "instantaneous_output_kbps", f"{rates.output_bytes / 1024:.2f}"
    yield "instantaneous_input_repl_kbps", f"{rates.copied_in / 1024:.2f}"
    yield "instantaneous_output_repl_kbps", f"{rates.copied_out / 1024:.2f}"
    yield "rejected_connections", statistics.rejected_connections
    yield "sync_full", copies.full_syncs
    yield "sync_partial_ok", copies.partial_syncs
    yield "sync_partial_err", copies.partial_refused
    yield "expired_keys", store.expired_keys
    yield "expired_fields", store.expired_fields
    yield "evicted_keys", statistics.evicted_keys
    yield "evicted_clients", 0
    yield "evicted_scripts", 0
    yield "keyspace_hits", store.hits
    yield "keyspace_misses", store.misses
    yield "pubsub_channels", len(pubsub.channels)
    yield "pubsub_patterns", len(pubsub.patterns)
    yield "pubsubshard_channels", len(pubsub.shard_channels)
    yield "latest_fork_usec", 0
    yield "total_forks", 0
    yield "migrate_cached_sockets", 0
    yield "slave_expires_tracked_keys", 0
    yield "tracking_total_keys", 0
    yield "tracking_total_items", 0
    yield "tracking_total_prefixes", 0
    yield "unexpected_error_replies", statistics.unexpected_errors
    yield "total_error_replies", statistics.error_replies
    yield "client_query_buffer_limit_disconnections", statistics.query_limit_disconnections
    yield "client_output_buffer_limit_disconnections", statistics.output_limit_disconnections
    yield "acl_access_denied_auth", statistics.denied_logins


def _cpu(server: Server) -> Fields:
    if server.process is not None:
        times = server.process.cpu()
        yield "used_cpu_sys", f"{times.system:.6f}"
        yield "used_cpu_user", f"{times.user:.6f}"
        yield "used_cpu_sys_children", f"{times.system_children:.6f}"
        yield "used_cpu_user_children", f"{times.user_children:.6f}"


def _nothing(server: Server) -> Fields:
    return iter(())


def _commandstats(server: Server) -> Fields:
    for command in server.all_commands():
        if command.calls or command.rejected or command.failed:
            microseconds = round(command.seconds * 1_000_000)
            yield (
                f"cmdstat_{command.full_name}",
                f"calls={command.calls},usec={microseconds},"
                f"usec_per_call={_ratio(command.seconds * 1_000_000, command.calls):.2f},"
                f"rejected_calls={command.rejected},failed_calls={command.failed}",
            )


def _errorstats(server: Server) -> Fields:
    for prefix, count in sorted(server.statistics.errors.items()):
        yield f"errorstat_{prefix}", f"count={count}"


def _cluster(server: Server) -> Fields:
    yield "cluster_enabled", 0


def _keyspace(server: Server) -> Fields:
    store = server.store
    keys = len(store.keyspace)
    if not keys:
        return
    shards = [shard.deadlines for shard in store.keyspace.shards() if shard.deadlines]
    expires = sum(map(len, shards))
    sample = list(islice((deadline for deadlines in shards for deadline in deadlines.values()), _TTL_SAMPLE))
    average = sum(max(0, deadline - store.now) for deadline in sample) // len(sample) if sample else 0
    fields = len(store.field_deadline_keys)
    facts = f"keys={keys},expires={expires},avg_ttl={average},keys_with_volatile_items={fields}"
    yield "db0", facts if server.ownership is None else f"{facts},foreign={store.foreign_keys}"


# Name -> heading, what it shows, and whether plain INFO shows it; in the order of Valkey's reply.
_SECTIONS: Final[dict[str, tuple[str, Callable[[Server], Fields], bool]]] = {
    "server": ("Server", _server, True),
    "clients": ("Clients", _clients, True),
    "memory": ("Memory", _memory, True),
    "persistence": ("Persistence", persistence_fields, True),
    "stats": ("Stats", _stats, True),
    "replication": ("Replication", replication_fields, True),
    "scopes": ("Scopes", scope_fields, True),
    "cpu": ("CPU", _cpu, True),
    "modules": ("Modules", _nothing, True),
    "commandstats": ("Commandstats", _commandstats, False),
    "errorstats": ("Errorstats", _errorstats, True),
    "latencystats": ("Latencystats", _nothing, False),
    "cluster": ("Cluster", _cluster, True),
    "keyspace": ("Keyspace", _keyspace, True),
}


def _chosen(names: Iterable[str]) -> set[str]:
    chosen: set[str] = set()
    for name in names:
        if name in ("all", "everything"):
            chosen.update(_SECTIONS)
        elif name == "default":
            chosen.update(section for section, (_, _, by_default) in _SECTIONS.items() if by_default)
        elif name in _SECTIONS:
            chosen.add(name)
    return chosen


def info_text(server: Server, names: Iterable[str]) -> str:
    """The sections called ``names`` (any case; none: the default ones); names that are not known show nothing."""
    chosen = _chosen([name.lower() for name in names] or ["default"])
    if server.ownership is None:
        # Where there are no scopes nobody misses it.
        chosen.discard("scopes")
    sections = []
    for section, (heading, fields, _) in _SECTIONS.items():
        if section in chosen:
            lines = [f"# {heading}", *(f"{name}:{value}" for name, value in fields(server))]
            sections.append("".join(line + "\r\n" for line in lines))
    return "\r\n".join(sections)
