"""Commands that act on the connection or on the node; importing this package enters them all into the table."""

from . import (
    acl,
    client,
    cluster,
    command_info,
    config,
    connection,
    debug,
    latency,
    memory,
    persistence,
    pubsub,
    replication,
    scopes,
    server_info,
    slowlog,
    transactions,
)

__all__ = [
    "acl",
    "client",
    "cluster",
    "command_info",
    "config",
    "connection",
    "debug",
    "latency",
    "memory",
    "persistence",
    "pubsub",
    "replication",
    "scopes",
    "server_info",
    "slowlog",
    "transactions",
]
