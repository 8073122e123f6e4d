"""The Valkey parameters a node knows: kind, default, and what setting one does."""

from __future__ import annotations

from typing import Any, Final

import attrs

from .parameter_kinds import (
    INT32_MAX,
    INT64_MAX,
    EventClasses,
    Flag,
    Integer,
    MemorySize,
    OutputLimits,
    ParameterKind,
    SavePoints,
    Seconds,
    Text,
    Word,
)

__all__ = ["ALIASES", "PARAMETERS", "Parameter"]

_UINT32_MAX: Final = (1 << 32) - 1
_MEBIBYTE: Final = 1 << 20


@attrs.frozen
class Parameter:
    """One parameter.

    ``fixed``: its value says how the node is, and no other is accepted. ``immutable``: CONFIG SET refuses it, whatever
    the value; unless it is fixed too the configuration may set it. ``without_effect``: any value is accepted and
    nothing changes. ``secret``: never logged.
    """

    name: str
    kind: ParameterKind
    default: Any
    fixed: bool = False
    immutable: bool = False
    without_effect: bool = False
    secret: bool = False


_FLAG: Final = Flag()
_COUNT: Final = Integer(0, INT64_MAX)
_SMALL: Final = Integer(0, INT32_MAX)
_PORT: Final = Integer(0, 65535)

_POLICIES: Final = Word(
    (
        "volatile-lru",
        "volatile-lfu",
        "volatile-random",
        "volatile-ttl",
        "allkeys-lru",
        "allkeys-lfu",
        "allkeys-random",
        "noeviction",
    )
)

_LIVE: Final = (
    Parameter("appendfsync", Word(("everysec", "always", "no")), "everysec"),
    Parameter("appendonly", _FLAG, False),
    Parameter("auto-aof-rewrite-min-size", MemorySize(), 64 * _MEBIBYTE),
    Parameter("auto-aof-rewrite-percentage", _SMALL, 100),
    Parameter(
        "client-output-buffer-limit",
        OutputLimits(),
        {
            "normal": (0, 0, 0),
            "slave": (256 * _MEBIBYTE, 64 * _MEBIBYTE, 60),
            "pubsub": (32 * _MEBIBYTE, 8 * _MEBIBYTE, 60),
        },
    ),
    Parameter("client-query-buffer-limit", MemorySize(_MEBIBYTE), 1024 * _MEBIBYTE),
    Parameter("hash-max-listpack-entries", _COUNT, 512),
    Parameter("hash-max-listpack-value", MemorySize(), 64),
    Parameter("hz", Integer(1, 500, clamped=True), 10),
    Parameter("lfu-decay-time", _SMALL, 1),
    Parameter("lfu-log-factor", _SMALL, 10),
    Parameter("list-max-listpack-size", Integer(-INT32_MAX - 1, INT32_MAX), -2),
    Parameter("maxclients", Integer(1, _UINT32_MAX), 10000),
    Parameter("maxmemory", MemorySize(0, (1 << 64) - 1), 0),
    Parameter("maxmemory-policy", _POLICIES, "noeviction"),
    Parameter("maxmemory-samples", Integer(1, 64), 5),
    Parameter("min-replicas-max-lag", Seconds(), 10_000),
    Parameter("min-replicas-to-write", _SMALL, 0),
    Parameter("notify-keyspace-events", EventClasses(), 0),
    Parameter("proto-max-bulk-len", MemorySize(_MEBIBYTE), 512 * _MEBIBYTE),
    Parameter("repl-backlog-size", MemorySize(1), 256 * _MEBIBYTE),
    Parameter("replica-read-only", _FLAG, True),
    Parameter("requirepass", Text(), "", secret=True),
    Parameter("set-max-intset-entries", _COUNT, 512),
    Parameter("set-max-listpack-entries", _COUNT, 128),
    Parameter("set-max-listpack-value", MemorySize(), 64),
    Parameter("slowlog-log-slower-than", Integer(-1, INT64_MAX), 10000),
    Parameter("slowlog-max-len", _COUNT, 128),
    Parameter("tcp-keepalive", _SMALL, 300),
    Parameter("timeout", _SMALL, 0),
    Parameter("zset-max-listpack-entries", _COUNT, 128),
    Parameter("zset-max-listpack-value", MemorySize(), 64),
)

_START: Final = (
    Parameter("bind", Text(), "127.0.0.1", immutable=True),
    Parameter("dir", Text(), ".", immutable=True),
    Parameter("enable-debug-command", Word(("no", "yes", "local")), "no", immutable=True),
    Parameter("port", _PORT, 6004, immutable=True),
    Parameter("unixsocket", Text(), "", immutable=True),
)

_FIXED: Final = (
    Parameter("acl-pubsub-default", Word(("allchannels", "resetchannels")), "resetchannels", fixed=True),
    Parameter("aclfile", Text(), "", fixed=True, immutable=True),
    # What a crash has torn off at the end is cut off and told; damage elsewhere refuses the start.
    Parameter("aof-load-truncated", _FLAG, True, fixed=True),
    # Bases are lists of commands, as increments are.
    Parameter("aof-use-rdb-preamble", _FLAG, False, fixed=True),
    Parameter("appenddirname", Text(), "appendonlydir", fixed=True, immutable=True),
    Parameter("appendfilename", Text(), "appendonly.aof", fixed=True, immutable=True),
    Parameter("cluster-enabled", _FLAG, False, fixed=True, immutable=True),
    Parameter("daemonize", _FLAG, False, fixed=True, immutable=True),
    Parameter("databases", Integer(1, INT32_MAX), 1, fixed=True, immutable=True),
    Parameter("dbfilename", Text(), "dump.kevysnap", fixed=True),
    Parameter("enable-module-command", Word(("no", "yes", "local")), "no", fixed=True, immutable=True),
    Parameter("enable-protected-configs", Word(("no", "yes", "local")), "no", fixed=True, immutable=True),
    Parameter("io-threads", Integer(1, 256), 1, fixed=True),
    Parameter("latency-tracking", _FLAG, False, fixed=True),
    Parameter("maxmemory-clients", MemorySize(), 0, fixed=True),
    # What a policy promises it keeps during a rewrite too.
    Parameter("no-appendfsync-on-rewrite", _FLAG, False, fixed=True),
    Parameter("protected-mode", _FLAG, False, fixed=True),
    Parameter("replicaof", Text(), "", fixed=True, immutable=True),
    Parameter("save", SavePoints(), "", fixed=True),
    Parameter("supervised", Word(("upstart", "systemd", "auto", "no")), "no", fixed=True, immutable=True),
    Parameter("tcp-backlog", _SMALL, 511, fixed=True, immutable=True),
    Parameter("tls-port", _PORT, 0, fixed=True),
)

# Accepted so that scripts written for Valkey run; they tune what works in another way here.
_WITHOUT_EFFECT: Final = (
    Parameter("active-expire-effort", Integer(1, 10), 1, without_effect=True),
    Parameter("activedefrag", _FLAG, False, without_effect=True),
    Parameter("activerehashing", _FLAG, True, without_effect=True),
    Parameter("busy-reply-threshold", _COUNT, 5000, without_effect=True),
    Parameter("latency-monitor-threshold", _COUNT, 0, without_effect=True),
    Parameter("lazyfree-lazy-eviction", _FLAG, True, without_effect=True),
    Parameter("lazyfree-lazy-expire", _FLAG, True, without_effect=True),
    Parameter("lazyfree-lazy-server-del", _FLAG, True, without_effect=True),
    Parameter("lazyfree-lazy-user-del", _FLAG, True, without_effect=True),
    Parameter("lazyfree-lazy-user-flush", _FLAG, True, without_effect=True),
    Parameter("list-compress-depth", _SMALL, 0, without_effect=True),
    Parameter("maxmemory-eviction-tenacity", Integer(0, 100), 10, without_effect=True),
    Parameter("stop-writes-on-bgsave-error", _FLAG, True, without_effect=True),
    Parameter("stream-node-max-bytes", MemorySize(), 4096, without_effect=True),
    Parameter("stream-node-max-entries", _COUNT, 100, without_effect=True),
    Parameter("tracking-table-max-keys", _COUNT, 1000000, without_effect=True),
)

#: Other names of a parameter, as CONFIG GET shows them beside it.
ALIASES: Final[dict[str, str]] = {
    "commandlog-execution-slower-than": "slowlog-log-slower-than",
    "commandlog-slow-execution-max-len": "slowlog-max-len",
    "hash-max-ziplist-entries": "hash-max-listpack-entries",
    "hash-max-ziplist-value": "hash-max-listpack-value",
    "list-max-ziplist-size": "list-max-listpack-size",
    "lua-time-limit": "busy-reply-threshold",
    "min-slaves-max-lag": "min-replicas-max-lag",
    "min-slaves-to-write": "min-replicas-to-write",
    "slave-read-only": "replica-read-only",
    "slaveof": "replicaof",
    "zset-max-ziplist-entries": "zset-max-listpack-entries",
    "zset-max-ziplist-value": "zset-max-listpack-value",
}

PARAMETERS: Final[dict[str, Parameter]] = {
    parameter.name: parameter for parameter in (*_LIVE, *_START, *_FIXED, *_WITHOUT_EFFECT)
}
