"""Replicas as others may see them: what slot and link know, in one row."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from ..serve.replication_view import ReplicaFacts, SyncFacts
from .primary import PrimaryLink, State
from .slots import Slot

__all__ = ["replica_facts"]

_Word: TypeAlias = Literal["wait_bgsave", "send_bulk", "online", "waiting"]

# Valkey's words for what a link does.
_WORDS: Final[dict[State, _Word]] = {
    State.HANDSHAKE: "wait_bgsave",
    State.SNAPSHOT: "send_bulk",
    State.STREAMING: "online",
    State.CLOSED: "waiting",
}


def replica_facts(slot: Slot, link: PrimaryLink | None, position: int, now: float) -> ReplicaFacts:
    """One replica: ``link`` is its connection, if it has one; ``position`` this node's next offset."""
    sync = slot.last_sync
    heard = slot.disconnected_at if link is None else link.heard
    return ReplicaFacts(
        replica_id=slot.replica_id,
        address=slot.address,
        port=slot.port,
        state="waiting" if link is None else _WORDS[link.state],
        acked=slot.acked,
        sent=slot.sent,
        lag_entries=max(0, position - slot.acked),
        lag_bytes=0 if link is None else link.lag_bytes(),
        lag_ms=0 if link is None else link.lag_ms(now),
        silence=now - (slot.connected_at if heard is None else heard),
        prefixes=slot.prefixes,
        last_sync=None if sync is None else SyncFacts(sync.kind, sync.reason, sync.duration, sync.size),
    )
