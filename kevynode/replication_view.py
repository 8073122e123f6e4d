"""What clients may see of replication, and ask of it: the seam between commands and the copies of this node's data.

The node puts an object of this shape into ``Server.replication``. ``serve`` knows nothing else of how copies work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import attrs

__all__ = ["BacklogFacts", "ReplicaFacts", "ReplicationView", "SyncFacts", "UpstreamFacts"]


@attrs.frozen
class SyncFacts:
    """One synchronisation: ``kind`` full, partial or scope, why it was that kind, and how long it took (seconds)."""

    kind: Literal["full", "partial", "scope"]
    reason: str
    # None while it lasts.
    duration: float | None
    # Bytes of the snapshot, 0 for a partial one.
    size: int = 0


@attrs.frozen
class ReplicaFacts:
    """One replica as its primary sees it. Offsets are next offsets: how many entries it has."""

    replica_id: str
    address: str
    # Its client port, as its id tells it; 0 if it tells none.
    port: int
    # Valkey's words: wait_bgsave (about to be sent a snapshot), send_bulk, online; or waiting (disconnected, its place
    # in the stream is kept).
    state: Literal["wait_bgsave", "send_bulk", "online", "waiting"]
    acked: int
    sent: int
    # Entries, and bytes, that it has not acknowledged, and how old the oldest of them is in milliseconds (0: none).
    lag_entries: int
    lag_bytes: int
    lag_ms: int
    # Seconds since it was last heard of.
    silence: float
    # Key prefixes it follows; None: everything.
    prefixes: tuple[bytes, ...] | None
    last_sync: SyncFacts | None


@attrs.frozen
class UpstreamFacts:
    """The primary that this node follows, and how far it has come."""

    host: str
    # Its replication port.
    port: int
    # Valkey's words: connect (not connected), connecting, handshake, sync (receiving a snapshot), connected.
    state: Literal["connect", "connecting", "handshake", "sync", "connected"]
    # What stands in the way, as the last attempt ended; empty while connected.
    problem: str
    # Seconds since anything came from it; None: nothing ever did.
    silence: float | None
    # Seconds that the link has been down; None while it is up.
    down: float | None
    # Next offset applied here, and the newest next offset the upstream has told.
    applied: int
    announced: int
    # How far this copy may be behind in milliseconds: time since it was last known to have everything; None: never.
    staleness_ms: int | None
    # Bytes of the running snapshot received so far.
    sync_bytes: int
    last_sync: SyncFacts | None


@attrs.frozen
class BacklogFacts:
    """What is held for replicas that come back: offsets ``first`` to ``next`` - 1."""

    active: bool
    budget: int
    # Bytes of memory held.
    memory: int
    first: int
    next: int


class ReplicationView(Protocol):
    """Replication, as the commands of a node use it. Nothing here blocks or checkpoints."""

    @property
    def role(self) -> Literal["master", "slave"]:
        """Valkey's words for primary and replica."""
        ...

    @property
    def history(self) -> int:
        """The running history."""
        ...

    @property
    def previous(self) -> tuple[int, int]:
        """The history that this one branched off from last, and where; (0, -1): none."""
        ...

    @property
    def full_syncs(self) -> int:
        """How often a replica was sent a snapshot of everything it follows."""
        ...

    @property
    def partial_syncs(self) -> int:
        """How often a replica could go on where it was."""
        ...

    @property
    def partial_refused(self) -> int:
        """How often a replica asked to go on where it was, and could not."""
        ...

    @property
    def sent_bytes(self) -> int:
        """Bytes sent to replicas."""
        ...

    @property
    def received_bytes(self) -> int:
        """Bytes received from upstreams."""
        ...

    @property
    def position(self) -> int:
        """The next offset of the running history: of the entries made here, or on a replica of those applied."""
        ...

    def replicas(self) -> Sequence[ReplicaFacts]:
        """Every replica that is connected or whose place is kept."""
        ...

    def upstreams(self) -> Sequence[UpstreamFacts]:
        """Whom this node follows; empty on a primary. More than one for an upstream with several shards."""
        ...

    def backlog(self) -> BacklogFacts: ...

    def good_replicas(self) -> int:
        """Replicas that min_replicas_to_write may count on: streaming, and acknowledged lately."""
        ...

    def acknowledged(self, offset: int, written: frozenset[bytes] | None) -> int:
        """How many replicas have applied everything before ``offset``.

        ``written`` are the keys that must be among what a filtered replica follows; None: it may be any key, so only
        unfiltered ones count.
        """
        ...

    def ask_for_acknowledgements(self) -> None:
        """Have connected replicas say at once how far they are."""
        ...

    def has_applied(self, history: int, offset: int) -> bool | None:
        """Whether everything before ``offset`` of a history is in this node's memory; None: the history is not ours."""
        ...

    def writer(self) -> str:
        """The client address of the node to write to, as far as known: ``host:port``, or what stands for it."""
        ...

    def follow(self, host: str, port: int) -> bool:
        """Become a replica of that replication address, soon; False if this node follows it already.

        Raises ReplyError if it cannot.
        """
        ...

    def promote(self) -> None:
        """Become a primary, with what has been applied so far. Does nothing on a primary."""
        ...
