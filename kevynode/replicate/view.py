"""What clients may see of replication and ask of it, in the words that commands use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeAlias

from ..replication_view import BacklogFacts, ReplicaFacts, SyncFacts, UpstreamFacts
from .primary_states import State
from .replication import Replication
from .slots import Slot

__all__ = ["NodeReplicationView"]

_Word: TypeAlias = Literal["wait_bgsave", "send_bulk", "online", "waiting"]

# Valkey's words for what a link does.
_WORDS: Final[dict[State, _Word]] = {
    State.HANDSHAKE: "wait_bgsave",
    State.SNAPSHOT: "send_bulk",
    State.STREAMING: "online",
    State.CLOSED: "waiting",
}


class NodeReplicationView:
    """The ReplicationView of a node that replicates.

    ``client_address`` gives the address for clients of the node with a replication host and port, ``own_address`` this
    node's own.
    """

    def __init__(
        self, replication: Replication, client_address: Callable[[str, int], str], own_address: Callable[[], str]
    ) -> None:
        self._replication = replication
        self._client_address = client_address
        self._own_address = own_address

    @property
    def role(self) -> Literal["master", "slave"]:
        return self._replication.role

    @property
    def history(self) -> int:
        return self._replication.history

    @property
    def previous(self) -> tuple[int, int]:
        ancestors = self._replication.lineage.ancestors
        return ancestors[0] if ancestors else (0, -1)

    @property
    def position(self) -> int:
        return self._replication.position

    @property
    def full_syncs(self) -> int:
        return self._replication.full_syncs

    @property
    def partial_syncs(self) -> int:
        return self._replication.partial_syncs

    @property
    def partial_refused(self) -> int:
        return self._replication.partial_refused

    @property
    def sent_bytes(self) -> int:
        return self._replication.sent_bytes

    @property
    def received_bytes(self) -> int:
        return self._replication.received_bytes

    def replicas(self) -> list[ReplicaFacts]:
        replication = self._replication
        now = replication.now()
        return [_facts(replication, slot, now) for slot in replication.slots]

    def upstreams(self) -> Sequence[UpstreamFacts]:
        upstream = self._replication.upstream
        return () if upstream is None else upstream.facts(self._replication.now())

    def backlog(self) -> BacklogFacts:
        held = self._replication.backlog
        return BacklogFacts(self._replication.active, held.budget, held.memory, held.first, held.next)

    def good_replicas(self) -> int:
        return self._replication.good_replicas()

    def acknowledged(self, offset: int, written: frozenset[bytes] | None) -> int:
        return self._replication.slots.acked(offset, written)

    def ask_for_acknowledgements(self) -> None:
        for link in self._replication.links.values():
            link.ask()

    def has_applied(self, history: int, offset: int) -> bool | None:
        replication = self._replication
        if replication.upstream is not None:
            position = replication.upstream.position_in(history)
            if position is not None:
                return position >= offset
        if replication.mesh is not None:
            applied = replication.mesh.has_applied(history, offset)
            if applied is not None:
                return applied
        shared = replication.lineage.shared(history)
        if shared is None or offset > shared:
            return None
        return replication.position >= offset

    def writer(self) -> str:
        target = self._replication.target
        return self._own_address() if target is None else self._client_address(*target)

    def follow(self, host: str, port: int) -> bool:
        return self._replication.follow(host, port)

    def promote(self) -> None:
        self._replication.promote()


def _age_ms(slot: Slot, behind: bool, now: float) -> int:
    """How long a replica that is away has been behind, at most, in milliseconds; 0 if it is not."""
    return round((now - slot.disconnected_at) * 1000) if behind and slot.disconnected_at is not None else 0


def _facts(replication: Replication, slot: Slot, now: float) -> ReplicaFacts:
    """One replica: what slot and link know, in one row."""
    link, position = replication.links.get(slot), replication.position
    sync = slot.last_sync
    size = 0 if sync is None else sync.size or (0 if link is None else link.ship_size)
    # A peer that never says how far it is counts by what it was sent.
    reached = slot.acked if link is None or link.waits_for_acknowledgements else slot.sent
    heard = slot.disconnected_at if link is None else link.heard
    return ReplicaFacts(
        replica_id=slot.replica_id,
        address=slot.address,
        port=slot.port,
        state="waiting" if link is None else _WORDS[link.state],
        acked=slot.acked,
        sent=slot.sent,
        lag_entries=max(0, position - reached),
        lag_bytes=replication.backlog.bytes_from(reached) if link is None else link.lag_bytes(),
        lag_ms=_age_ms(slot, reached < position, now) if link is None else link.lag_ms(now),
        silence=now - (slot.connected_at if heard is None else heard),
        prefixes=slot.prefixes,
        last_sync=None if sync is None else SyncFacts(sync.kind, sync.reason, sync.duration, size),
    )
