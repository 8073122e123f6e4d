"""MEMORY beyond single keys: the process as a whole."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

from ...reply import OK, Reply, Verbatim
from ...store.command import Args, command
from ...store.commands.memory import MEMORY
from ...store.help import add_help
from ..session import Session

_PER_SHARD: Final = ("nondeterministic_output", "request_policy:all_shards", "response_policy:special")
# Below this much memory there is nothing to be said about it.
_LITTLE: Final = 5 * 1024 * 1024

add_help(MEMORY, "4.0.0")


def _memory(
    name: str, flags: str, summary: str, tips: tuple[str, ...], complexity: str = "O(1)"
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return command(
        name,
        arity=2,
        flags=flags,
        group="server",
        since="4.0.0",
        summary=summary,
        complexity=complexity,
        tips=tips,
        parent=MEMORY,
        on_store=False,
    )


@_memory("doctor", "", "What is remarkable about the memory in use.", _PER_SHARD)
def memory_doctor(session: Session, argv: Args) -> Reply:
    server = session.server
    used = server.rates.memory() + server.view.backlog().memory
    if used < _LITTLE:
        return Verbatim(b"The node holds too little data for a diagnosis.\n")
    found = []
    peak = server.rates.peak()
    if peak > used * 1.5:
        found.append(f"The peak was {peak} bytes, much more than the {used} in use now.")
    clients = server.rates.client_memory()
    if clients > used // 2:
        found.append(f"Clients hold {clients} bytes, more than half of it: somebody does not read his replies.")
    if server.process is not None and server.process.resident() > used * 2:
        found.append(
            f"The process holds {server.process.resident()} bytes, more than twice what data and clients take."
        )
    return Verbatim(("\n".join(found or ["Nothing remarkable."]) + "\n").encode())


@_memory("stats", "", "How much memory which part takes, in bytes.", _PER_SHARD)
def memory_stats(session: Session, argv: Args) -> Reply:
    server = session.server
    store = server.store
    backlog, clients = server.view.backlog().memory, server.rates.client_memory()
    used = server.rates.memory() + backlog
    peak = server.rates.peak()
    keys = len(store.keyspace)
    structure = max(0, used - clients - backlog - store.used)
    overhead = structure + clients + backlog
    dataset = used - overhead
    stats: dict[bytes, Any] = {
        b"peak.allocated": peak,
        b"total.allocated": used,
        b"startup.allocated": 0,
        b"replication.backlog": backlog,
        b"replicas.repl.buffer": 0,
        b"clients.slaves": 0,
        b"clients.normal": clients,
        b"cluster.links": 0,
        b"aof.buffer": 0,
        b"lua.caches": 0,
        b"functions.caches": 0,
    }
    if keys:
        expires = sum(sys.getsizeof(shard.deadlines) for shard in store.keyspace.shards())
        stats[b"db.0"] = {
            b"overhead.hashtable.main": structure - expires,
            b"overhead.hashtable.expires": expires,
        }
    stats |= {
        b"overhead.total": overhead,
        b"keys.count": keys,
        b"keys.bytes-per-key": dataset // keys if keys else 0,
        b"dataset.bytes": dataset,
        b"dataset.percentage": 100 * dataset / used if used else 0.0,
        b"peak.percentage": 100 * used / peak if peak else 0.0,
    }
    if server.process is not None:
        resident = server.process.resident()
        stats[b"fragmentation"] = resident / used if used else 0.0
        stats[b"fragmentation.bytes"] = resident - used
    return stats


@_memory(
    "malloc-stats",
    "loading",
    "Statistics of the allocator; there are none.",
    _PER_SHARD,
    "Depends on how much memory is allocated, could be slow",
)
def memory_malloc_stats(session: Session, argv: Args) -> Reply:
    return b"Stats not supported for the current allocator"


@_memory(
    "purge",
    "loading",
    "Accepted; the allocator gives memory back by itself.",
    ("request_policy:all_shards", "response_policy:all_succeeded"),
    "Depends on how much memory is allocated, could be slow",
)
def memory_purge(session: Session, argv: Args) -> Reply:
    return OK
