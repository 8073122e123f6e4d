"""The persistence section of INFO, with Valkey's names: there ``rdb`` is a dump, here it is one of another form."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeAlias

from ..persistence_view import AppendOnlyFacts, DumpFacts, LoadFacts

if TYPE_CHECKING:
    from .server import Server

__all__ = ["persistence_fields"]

Fields: TypeAlias = Iterator[tuple[str, object]]


def persistence_fields(server: Server) -> Fields:
    """The fields of the section, in Valkey's order. Nothing is forked here: what is told of children stands at 0."""
    load, facts = server.persistence.load(), server.persistence.append_only()
    yield "loading", int(server.loading)
    yield "async_loading", 0
    yield "current_cow_peak", 0
    yield "current_cow_size", 0
    yield "current_cow_size_age", 0
    yield "current_fork_perc", "0.00"
    yield "current_save_keys_processed", 0
    yield "current_save_keys_total", 0
    yield from _dumps(server.persistence.dumps(), facts)
    yield from _append_only(facts)
    yield "module_fork_in_progress", 0
    yield "module_fork_last_cow_size", 0
    yield "slot_migration_fork_in_progress", 0
    if facts.enabled:
        yield from _append_only_sizes(facts)
    if load is not None:
        yield from _loading(load)


def _dumps(facts: DumpFacts, append_only: AppendOnlyFacts) -> Fields:
    # Whoever has been told that one has started must not find it over before it began.
    is_next = facts.scheduled and append_only.rewrite_running is None
    yield "rdb_changes_since_last_save", facts.changes
    yield "rdb_bgsave_in_progress", int(facts.running is not None or is_next)
    yield "rdb_last_save_time", facts.last_save
    yield "rdb_last_bgsave_status", _status(facts.last_ok)
    yield "rdb_last_bgsave_time_sec", _seconds(facts.last_duration)
    yield "rdb_current_bgsave_time_sec", _seconds(facts.running)
    yield "rdb_saves", facts.saves
    yield "rdb_last_cow_size", 0
    yield "rdb_last_load_keys_expired", 0
    yield "rdb_last_load_keys_loaded", 0


def _append_only(facts: AppendOnlyFacts) -> Fields:
    yield "aof_enabled", int(facts.enabled)
    yield "aof_rewrite_in_progress", int(facts.rewrite_running is not None)
    yield "aof_rewrite_scheduled", int(facts.rewrite_scheduled)
    yield "aof_last_rewrite_time_sec", _seconds(facts.last_rewrite)
    yield "aof_current_rewrite_time_sec", _seconds(facts.rewrite_running)
    yield "aof_last_bgrewrite_status", _status(facts.last_rewrite_ok)
    yield "aof_rewrites", facts.rewrites
    yield "aof_rewrites_consecutive_failures", facts.failed_rewrites
    yield "aof_last_write_status", _status(not facts.problem)
    yield "aof_last_cow_size", 0


def _append_only_sizes(facts: AppendOnlyFacts) -> Fields:
    yield "aof_current_size", facts.size
    yield "aof_base_size", facts.base_size
    yield "aof_pending_rewrite", int(facts.rewrite_scheduled)
    # What waits is told in groups; it waits until the next answers leave, at the longest for a second.
    yield "aof_buffer_length", 0
    yield "aof_waiting_groups", facts.waiting
    yield "aof_pending_bio_fsync", int(facts.sync_running)
    yield "aof_delayed_fsync", facts.delayed_syncs


def _loading(facts: LoadFacts) -> Fields:
    share = facts.loaded_bytes / facts.total_bytes if facts.total_bytes else 0.0
    left = facts.total_bytes - facts.loaded_bytes
    yield "loading_start_time", facts.started
    yield "loading_total_bytes", facts.total_bytes
    yield "loading_rdb_used_mem", 0
    yield "loading_loaded_bytes", facts.loaded_bytes
    yield "loading_loaded_perc", f"{100 * share:.2f}"
    # As in Valkey: a second, as long as nothing can be told.
    yield "loading_eta_seconds", int(facts.seconds * left / (facts.loaded_bytes + 1)) if facts.seconds >= 1 else 1
    yield "loading_loaded_keys", facts.keys


def _seconds(seconds: float | None) -> int:
    return -1 if seconds is None else int(seconds)


def _status(is_fine: bool) -> str:
    return "ok" if is_fine else "err"
