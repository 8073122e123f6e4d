"""The replication section of INFO: Valkey's names, and what it has no names for.

Offsets and lengths count entries, not bytes: an entry is one change, and an offset the number of entries before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeAlias

from ..replication_view import ReplicaFacts, SyncFacts, UpstreamFacts

if TYPE_CHECKING:
    from .server import Server

__all__ = ["line", "replication_fields"]

Fields: TypeAlias = Iterator[tuple[str, object]]


def replication_fields(server: Server) -> Fields:
    """The fields of the section, in Valkey's order."""
    view = server.view
    yield "role", server.role
    if server.role != "master":
        yield from _as_replica(server)
    replicas = sorted(view.replicas(), key=lambda replica: replica.state == "waiting")
    yield "connected_slaves", sum(replica.state != "waiting" for replica in replicas)
    if _wants_good_replicas(server):
        yield "min_slaves_good_slaves", view.good_replicas()
    for number, replica in enumerate(replicas):
        yield f"slave{number}", line(_replica(replica))
    yield "replicas_waiting_psync", 0
    yield "master_failover_state", "no-failover"
    yield "master_replid", server.history_id
    history, branch = view.previous
    yield "master_replid2", f"{history:040x}"
    yield "master_repl_offset", view.position
    yield "second_repl_offset", branch
    backlog = view.backlog()
    yield "repl_backlog_active", int(backlog.active)
    yield "repl_backlog_size", backlog.budget
    yield "repl_backlog_first_byte_offset", backlog.first if backlog.active else 0
    yield "repl_backlog_histlen", backlog.next - backlog.first if backlog.active else 0


def _wants_good_replicas(server: Server) -> bool:
    parameters = server.parameters
    if parameters is None:
        return False
    return bool(parameters.value("min-replicas-to-write") and parameters.value("min-replicas-max-lag"))


def _as_replica(server: Server) -> Fields:
    """What a replica tells of its upstream; of several, Valkey's fields show the one in the worst state."""
    upstream = server.upstream
    upstreams = server.view.upstreams()
    if upstream is not None:
        yield "master_host", _word(upstream.host)
        yield "master_port", upstream.port
        yield "master_link_status", "up" if upstream.state == "connected" else "down"
        silence = upstream.silence if upstream.state == "connected" else None
        yield "master_last_io_seconds_ago", -1 if silence is None else int(silence)
        yield "master_sync_in_progress", int(upstream.state == "sync")
    yield "slave_read_repl_offset", server.view.position
    yield "slave_repl_offset", server.view.position
    yield "slave_lag_frames", sum(max(0, each.announced - each.applied) for each in upstreams)
    stale = [each.staleness_ms for each in upstreams]
    if stale and None not in stale:
        yield "slave_lag_ms", max(milliseconds for milliseconds in stale if milliseconds is not None)
    if upstream is not None:
        if upstream.state == "sync":
            yield "master_sync_read_bytes", upstream.sync_bytes
            yield "master_sync_last_io_seconds_ago", -1 if upstream.silence is None else int(upstream.silence)
        if upstream.down is not None:
            yield "master_link_down_since_seconds", int(upstream.down)
    for number, each in enumerate(upstreams):
        yield f"upstream{number}", line(_upstream(each))
    yield "slave_priority", 100
    yield "slave_read_only", int(server.replica_read_only)
    yield "replica_announced", 1


def _replica(replica: ReplicaFacts) -> Fields:
    yield "ip", replica.address
    yield "port", replica.port
    yield "state", replica.state
    yield "offset", replica.acked
    yield "sent", replica.sent
    yield "lag", int(replica.silence)
    yield "type", "replica"
    yield "id", replica.replica_id
    yield "lag_frames", replica.lag_entries
    yield "lag_bytes", replica.lag_bytes
    yield "lag_ms", replica.lag_ms
    yield "prefixes", "all" if replica.prefixes is None else len(replica.prefixes)
    yield from _sync(replica.last_sync)


def _upstream(upstream: UpstreamFacts) -> Fields:
    yield "host", upstream.host
    yield "port", upstream.port
    yield "state", upstream.state
    yield "applied", upstream.applied
    yield "announced", upstream.announced
    yield "lag_frames", max(0, upstream.announced - upstream.applied)
    if upstream.staleness_ms is not None:
        yield "lag_ms", upstream.staleness_ms
    if upstream.sync_bytes:
        yield "sync_bytes", upstream.sync_bytes
    yield from _sync(upstream.last_sync)
    if upstream.problem:
        yield "problem", upstream.problem


def _sync(sync: SyncFacts | None) -> Fields:
    if sync is not None:
        yield "last_sync", sync.kind
        if sync.duration is not None:
            yield "last_sync_ms", round(sync.duration * 1000)
        yield "last_sync_bytes", sync.size
        yield "last_sync_reason", sync.reason


def line(fields: Fields) -> str:
    """Fields as one value: ``name=value`` with commas between them."""
    return ",".join(f"{name}={_word(str(value))}" for name, value in fields)


def _word(text: str) -> str:
    """Text from elsewhere as it may stand in a line of fields: nothing in it may end the field or the line."""
    plain = text.replace(",", ";").replace("=", ":")
    return "".join(char if char.isprintable() else "?" for char in plain)
