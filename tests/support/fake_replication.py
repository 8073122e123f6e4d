"""A ReplicationView that a test writes to: what a node would know of its copies, without any."""

from __future__ import annotations

from typing import Any, Literal

import attrs
from support.session_harness import ServerHarness

from kevynode.errors import ReplyError
from kevynode.replication_view import BacklogFacts, ReplicaFacts, SyncFacts, UpstreamFacts

#: What a replica that is well looks like; tests change what they need.
REPLICA = ReplicaFacts(
    replica_id="r1",
    address="10.0.0.2",
    port=6005,
    state="online",
    acked=90,
    sent=100,
    lag_entries=10,
    lag_bytes=420,
    lag_ms=7,
    silence=1.9,
    prefixes=None,
    last_sync=SyncFacts("full", "no cursor", 0.0125, 4096),
)

#: A link to a primary that is well.
UPSTREAM = UpstreamFacts(
    host="10.0.0.1",
    port=16004,
    state="connected",
    problem="",
    silence=0.4,
    down=None,
    applied=95,
    announced=100,
    staleness_ms=3,
    sync_bytes=0,
    last_sync=SyncFacts("partial", "resumed", 0.001),
)


class FakeReplication:
    """Follows and promotes by telling the server at once, as the real one does; counts what it is asked."""

    def __init__(self, node: ServerHarness) -> None:
        self._server = node.server
        self.role: Literal["master", "slave"] = "master"
        self.history = 0xABC
        self.previous = (0, -1)
        self.full_syncs = self.partial_syncs = self.partial_refused = 0
        self.sent_bytes = self.received_bytes = 0
        # None: what the journal of the node says.
        self.fixed_position: int | None = None
        self.replica_list: list[ReplicaFacts] = []
        self.upstream_list: list[UpstreamFacts] = []
        self.backlog_facts = BacklogFacts(active=False, budget=1 << 20, memory=0, first=0, next=0)
        self.good = 0
        # Offsets that replicas have acknowledged, each with the prefixes it follows (None: everything).
        self.acks: list[tuple[int, tuple[bytes, ...] | None]] = []
        self.asked_for_acknowledgements = 0
        self.asked_keys: list[frozenset[bytes] | None] = []
        self.applied: dict[int, int] = {}
        self.writer_address = "10.0.0.1:6004"
        self.refuse_to_follow: ReplyError | None = None
        node.server.replication = self

    @property
    def position(self) -> int:
        return self._server.store.journal.offset if self.fixed_position is None else self.fixed_position

    def replicas(self) -> list[ReplicaFacts]:
        return self.replica_list

    def upstreams(self) -> list[UpstreamFacts]:
        return self.upstream_list

    def backlog(self) -> BacklogFacts:
        return self.backlog_facts

    def good_replicas(self) -> int:
        return self.good

    def acknowledged(self, offset: int, written: frozenset[bytes] | None) -> int:
        self.asked_keys.append(written)
        return sum(acked >= offset and _covers(prefixes, written) for acked, prefixes in self.acks)

    def ask_for_acknowledgements(self) -> None:
        self.asked_for_acknowledgements += 1

    def has_applied(self, history: int, offset: int) -> bool | None:
        reached = self.applied.get(history)
        return None if reached is None else offset <= reached

    def writer(self) -> str:
        return self.writer_address

    def follow(self, host: str, port: int) -> bool:
        if self.refuse_to_follow is not None:
            raise self.refuse_to_follow
        if any((upstream.host, upstream.port) == (host, port) for upstream in self.upstream_list):
            return False
        self.upstream_list = [upstream(host=host, port=port, state="connecting")]
        self.role = "slave"
        self._server.become_replica(read_only=self._server.replica_read_only)
        return True

    def promote(self) -> None:
        self.upstream_list = []
        self.role = "master"
        self._server.become_primary()

    def acknowledge(self, *acks: int) -> None:
        """Unfiltered replicas have acknowledged these offsets, and the server is told."""
        self.acks = [(offset, None) for offset in acks]
        self._server.acknowledged()

    def advance(self, history: int, offset: int) -> None:
        """The node has applied everything before ``offset``, and the server is told."""
        self.applied[history] = offset
        self._server.replication_advanced()


def _covers(prefixes: tuple[bytes, ...] | None, written: frozenset[bytes] | None) -> bool:
    return prefixes is None or (written is not None and all(key.startswith(prefixes) for key in written))


def replica(**changes: Any) -> ReplicaFacts:
    """A replica that is well but for ``changes``."""
    return attrs.evolve(REPLICA, **changes)


def upstream(**changes: Any) -> UpstreamFacts:
    """A link to a primary that is well but for ``changes``."""
    return attrs.evolve(UPSTREAM, **changes)
