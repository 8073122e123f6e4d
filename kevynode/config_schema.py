"""The sections and keys of the configuration: names, defaults, accepted values, meaning.

These classes are the one place that knows the keys. Reading a file, the environment, the flags, the error texts and
``docs/configuration.md`` all go by the metadata of their fields.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

from kevynode.config_values import (
    UNIX_SOCKET_PATH_LIMIT,
    Addresses,
    Boolean,
    Choice,
    Endpoint,
    Identifier,
    Integer,
    Kind,
    Path,
    PrefixSelection,
    Size,
)

__all__ = [
    "ClusterConfig",
    "ExpiryConfig",
    "LogConfig",
    "MemoryConfig",
    "Option",
    "PeerConfig",
    "PersistenceConfig",
    "ReplicationConfig",
    "ScopeConfig",
    "ServerConfig",
    "options",
]

_UINT32_MAX = (1 << 32) - 1


@attrs.frozen
class Option:
    """What is known about one key: the kind of its value, and what it does (one sentence, for the documentation)."""

    kind: Kind[Any]
    meaning: str


def _option(default: Any, kind: Kind[Any], meaning: str) -> Any:
    return attrs.field(default=default, metadata={"option": Option(kind, meaning)})


def _required(kind: Kind[Any], meaning: str) -> Any:
    return attrs.field(metadata={"option": Option(kind, meaning)})


def options(section: type) -> Iterator[tuple[str, Any, Option]]:
    """Every key of a section class, in order: name, default (``attrs.NOTHING`` if required), option."""
    for field in attrs.fields(section):
        if "option" in field.metadata:
            yield field.name, field.default, field.metadata["option"]


@attrs.frozen
class ServerConfig:
    """``[server]``: where clients connect, and where files live."""

    bind: tuple[str, ...] = _option(("127.0.0.1",), Addresses(), "Addresses that clients connect to.")
    port: int = _option(6004, Integer(0, 65535), "Client port; 0 takes any free port, and the ready line says which.")
    data_dir: str = _option(".", Path("a path"), "Folder of everything the node writes; it must exist.")
    advertise: str = _option(
        "", Endpoint(optional=True), "Client address that redirects to this node name; empty: its own peer entry."
    )
    unixsocket: str = _option(
        "",
        Path('a path of at most 107 bytes, or ""', optional=True, limit=UNIX_SOCKET_PATH_LIMIT),
        "Path of a unix socket to listen on as well; empty: none.",
    )
    maxclients: int = _option(10000, Integer(1, _UINT32_MAX), "Connections served at once; more get an error.")
    timeout: int = _option(0, Integer(0, (1 << 31) - 1), "Seconds until an idle connection is closed; 0: never.")


@attrs.frozen
class PersistenceConfig:
    """``[persistence]``: what survives a restart."""

    aof: bool = _option(True, Boolean(), "Keep an append-only file.")
    appendfsync: str = _option(
        "everysec", Choice(("always", "everysec", "no")), "When the append-only file is forced to the disk."
    )
    auto_aof_rewrite_percentage: int = _option(
        100, Integer(0, (1 << 31) - 1), "Rewrite the append-only file when it grew by this percentage; 0: never."
    )
    auto_aof_rewrite_min_size: int = _option(64 << 20, Size(), "Do not rewrite an append-only file smaller than this.")


@attrs.frozen
class MemoryConfig:
    """``[memory]``: the limit on data, and what goes when it is reached."""

    maxmemory: int = _option(0, Size(), "Memory that data may take; 0: no limit.")
    maxmemory_policy: str = _option(
        "noeviction",
        Choice(
            (
                "noeviction",
                "allkeys-lru",
                "allkeys-lfu",
                "allkeys-random",
                "volatile-lru",
                "volatile-lfu",
                "volatile-random",
                "volatile-ttl",
            )
        ),
        "Which keys are evicted when the limit is reached.",
    )


@attrs.frozen
class ExpiryConfig:
    """``[expiry]``: how eagerly expired keys are swept."""

    hz: int = _option(10, Integer(1, 500), "Sweeps a second.")
    sample: int = _option(20, Integer(1, 10000), "Keys with a deadline looked at in one round of a sweep.")


@attrs.frozen
class LogConfig:
    """``[log]``."""

    level: str = _option(
        "info",
        Choice(("debug", "info", "warning", "error"), {"warn": "warning", "trace": "debug"}),
        "The least important level that is written.",
    )
    output: str = _option(
        "stderr", Path('"stderr", "stdout" or a path'), "Where the log goes; a file is reopened on SIGHUP."
    )
    format: str = _option("text", Choice(("text", "json")), "One line of text, or one JSON object, for each event.")


@attrs.frozen
class ReplicationConfig:
    """``[replication]``: copies of the whole node."""

    role: str = _option(
        "primary",
        Choice(("primary", "replica", "standalone")),
        "A primary can be followed, a replica follows its upstream, a standalone node does neither.",
    )
    upstream: str = _option("", Endpoint(optional=True), "Replication address that a replica follows.")
    upstream_shards: int = _option(1, Integer(1, 1024), "Consecutive ports the upstream streams on, from that one up.")
    listen_port: int = _option(
        0,
        Integer(0, 65535),
        "Port that replicas connect to; 0: client port + 10000, or any free port if the client port is 0 or above"
        " 55535.",
    )
    replication_buffer_size: int = _option(256 << 20, Size(), "Backlog kept for replicas that reconnect.")
    reconnect_window_ms: int = _option(
        60000, Integer(0, _UINT32_MAX), "Milliseconds that a replica that went away keeps its place in the backlog."
    )
    replica_read_only: bool = _option(True, Boolean(), "A replica refuses writes from clients.")
    replica_max_staleness_ms: int = _option(
        0, Integer(0, _UINT32_MAX), "A replica that heard nothing for so long refuses reads; 0: it never does."
    )
    min_replicas_to_write: int = _option(
        0, Integer(0, _UINT32_MAX), "Refuse writes with fewer replicas in step than this; 0: never."
    )
    min_replicas_max_lag_ms: int = _option(
        10000, Integer(0, _UINT32_MAX), "A replica is in step if it acknowledged within this time."
    )


@attrs.frozen
class PeerConfig:
    """``[[cluster.peer]]``: one node of the cluster. The list is the same on every node, itself included."""

    id: str = _required(Identifier(), "The node's id.")
    address: str = _required(Endpoint(), "Its client address, which redirects name.")
    replication: str = _option(
        "", Endpoint(optional=True), "Its replication address; empty: the client address, port + 10000."
    )
    kind: str = _option("kevynode", Choice(("kevynode", "kevy")), "The program it runs.")


def _prefix(value: bytes | str) -> bytes:
    return value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")


@attrs.frozen
class ScopeConfig:
    """``[[cluster.scope]]``: one key prefix and the node that writes it."""

    prefix: bytes = attrs.field(converter=_prefix)
    writer: str
    fallback: str | None = None


@attrs.frozen
class ClusterConfig:
    """``[cluster]``: who writes what."""

    node_id: str = _option("", Identifier(optional=True), "This node's id among the peers.")
    replicate: str | tuple[bytes, ...] = _option(
        "all", PrefixSelection(), "Which other writers' scopes this node keeps a live copy of."
    )
    peers: tuple[PeerConfig, ...] = ()
    scopes: tuple[ScopeConfig, ...] = ()
