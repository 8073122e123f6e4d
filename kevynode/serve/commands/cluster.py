"""CLUSTER: this node, as a cluster of one that owns all slots, for client libraries in cluster mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final

from ... import errors
from ...config_values import split_address
from ...errors import FIX, ErrorKind
from ...reply import OK, Reply, Verbatim
from ...store.arguments import parse_int
from ...store.command import Args, command, container
from ...store.help import add_help
from ..session import Session
from ..slots import SLOTS, key_slot

_BAD_SLOT = ErrorKind("ERR", "Invalid slot", FIX)
_BAD_SLOT_OR_COUNT = ErrorKind("ERR", "Invalid slot or number of keys", FIX)
_NO_MIGRATION = ErrorKind("ERR", "This instance has cluster support disabled", FIX)
_UNKNOWN_NODE = ErrorKind("ERR", "Unknown node {}", FIX)
_VIEW: Final = ("nondeterministic_output",)

CLUSTER: Final = container(
    "cluster", group="cluster", since="3.0.0", summary="Shows this node as a cluster of one that owns all slots."
)
add_help(CLUSTER)


def _cluster(
    name: str,
    arity: int,
    flags: str,
    since: str,
    summary: str,
    syntax: str = "",
    complexity: str = "O(1)",
    tips: tuple[str, ...] = (),
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return command(
        name,
        arity=arity,
        flags=flags,
        group="cluster",
        since=since,
        summary=summary,
        complexity=complexity,
        syntax=syntax,
        tips=tips,
        parent=CLUSTER,
        on_store=False,
    )


def _own_address(session: Session) -> tuple[str, int]:
    """Where this node is, as the client reaches it: what it advertises, else the address the client came to."""
    server = session.server
    try:
        return split_address(server.advertise or session.local)
    except ValueError:
        # By a unix socket, or from inside the process.
        found = next(((address, port) for kind, address, port in server.listeners if kind == "tcp"), ("", 0))
        return found


@_cluster("info", 2, "loading stale", "3.0.0", "The state of the cluster, in name:value lines.", tips=_VIEW)
def cluster_info(session: Session, argv: Args) -> Reply:
    fields = {
        "cluster_state": "ok",
        "cluster_slots_assigned": SLOTS,
        "cluster_slots_ok": SLOTS,
        "cluster_slots_pfail": 0,
        "cluster_slots_fail": 0,
        "cluster_known_nodes": 1,
        "cluster_size": 1,
        "cluster_current_epoch": 0,
        "cluster_my_epoch": 0,
        "cluster_stats_messages_sent": 0,
        "cluster_stats_messages_received": 0,
        "total_cluster_links_buffer_limit_exceeded": 0,
    }
    return Verbatim("".join(f"{name}:{value}\r\n" for name, value in fields.items()).encode())


@_cluster("myid", 2, "loading stale", "3.0.0", "The id of this node.")
def cluster_myid(session: Session, argv: Args) -> Reply:
    return session.server.run_id.encode()


@_cluster("myshardid", 2, "loading stale", "7.2.0", "The id of this node's shard.", tips=_VIEW)
def cluster_myshardid(session: Session, argv: Args) -> Reply:
    return session.server.history_id.encode()


@_cluster(
    "slots",
    2,
    "loading stale",
    "3.0.0",
    "Which node owns which slots: this one all.",
    complexity="O(N) where N is the total number of Cluster nodes",
    tips=_VIEW,
)
def cluster_slots(session: Session, argv: Args) -> Reply:
    host, port = _own_address(session)
    return [[0, SLOTS - 1, [host.encode(), port, session.server.run_id.encode(), {}]]]


@_cluster(
    "shards",
    2,
    "loading stale",
    "7.0.0",
    "The shards of the cluster: one, of this node, with all slots.",
    complexity="O(N) where N is the total number of cluster nodes",
    tips=_VIEW,
)
def cluster_shards(session: Session, argv: Args) -> Reply:
    server = session.server
    host, port = _own_address(session)
    node = {
        b"id": server.run_id.encode(),
        b"port": port,
        b"ip": host.encode(),
        b"endpoint": host.encode(),
        b"role": b"master" if server.role == "master" else b"replica",
        b"replication-offset": server.view.position,
        b"health": b"online",
    }
    return [{b"slots": [0, SLOTS - 1], b"nodes": [node], b"id": server.history_id.encode()}]


@_cluster(
    "nodes",
    2,
    "loading stale",
    "3.0.0",
    "The nodes of the cluster, one to a line.",
    complexity="O(N) where N is the total number of Cluster nodes",
    tips=_VIEW,
)
def cluster_nodes(session: Session, argv: Args) -> Reply:
    return Verbatim(_node_line(session) + b"\n")


def _node_line(session: Session) -> bytes:
    host, port = _own_address(session)
    server = session.server
    return f"{server.run_id} {host}:{port}@{port} myself,{server.role} - 0 0 0 connected 0-{SLOTS - 1}".encode()


@_cluster(
    "replicas",
    3,
    "admin stale",
    "5.0.0",
    "The replicas of a node: none.",
    "node-id",
    "O(N) where N is the number of replicas.",
    _VIEW,
)
def cluster_replicas(session: Session, argv: Args) -> Reply:
    if argv[2] != session.server.run_id.encode():
        raise _UNKNOWN_NODE(errors.text(argv[2]))
    return []


@_cluster("keyslot", 3, "stale", "3.0.0", "The slot of a key.", "key", "O(N) where N is the number of bytes in the key")
def cluster_keyslot(session: Session, argv: Args) -> Reply:
    return key_slot(argv[2])


def _keys_in(session: Session, slot: int) -> Iterator[bytes]:
    return (key for key in session.server.store.keyspace if key_slot(key) == slot)


@_cluster(
    "countkeysinslot", 3, "stale", "3.0.0", "How many keys a slot holds.", "slot", "O(N) where N is the number of keys"
)
def cluster_countkeysinslot(session: Session, argv: Args) -> Reply:
    slot = parse_int(argv[2])
    if not 0 <= slot < SLOTS:
        raise _BAD_SLOT()
    return sum(1 for _ in _keys_in(session, slot))


@_cluster(
    "getkeysinslot",
    4,
    "stale",
    "3.0.0",
    "Some of the keys that a slot holds.",
    "slot count",
    "O(N) where N is the number of keys",
    _VIEW,
)
def cluster_getkeysinslot(session: Session, argv: Args) -> Reply:
    slot, count = parse_int(argv[2]), parse_int(argv[3])
    if not 0 <= slot < SLOTS or count < 0:
        raise _BAD_SLOT_OR_COUNT()
    return list(islice(_keys_in(session, slot), count))


@_cluster(
    "links",
    2,
    "stale",
    "7.0.0",
    "Links to other nodes of the cluster: none.",
    "",
    "O(N) where N is the total number of Cluster nodes",
    _VIEW,
)
def cluster_links(session: Session, argv: Args) -> Reply:
    return []


def _for_cluster_clients(name: str, flags: str, summary: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return command(
        name,
        arity=1,
        flags=flags,
        group="cluster",
        since="3.0.0",
        summary=summary,
        complexity="O(1)",
        categories="connection",
        on_store=False,
    )


@_for_cluster_clients("readonly", "loading stale fast", "Accepted: a replica answers reads anyway.")
def readonly(session: Session, argv: Args) -> Reply:
    return OK


@_for_cluster_clients("readwrite", "loading stale fast", "Accepted: the opposite of READONLY.")
def readwrite(session: Session, argv: Args) -> Reply:
    return OK


@_for_cluster_clients("asking", "fast", "Refused: slots never move from node to node here.")
def asking(session: Session, argv: Args) -> Reply:
    raise _NO_MIGRATION()
