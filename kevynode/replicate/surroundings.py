"""What replication needs of the rest of the node, what it is told to do, and how it turns a replica away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import attrs

from ..replication_view import UpstreamFacts
from .lineage import Lineage

__all__ = [
    "FilesSide",
    "MeshSide",
    "NodeSide",
    "OwnedPrefixes",
    "Refused",
    "ReplicationLog",
    "ReplicationSettings",
    "UpstreamSide",
]


class ReplicationLog(Protocol):
    """Where decisions go, with the numbers behind them."""

    def info(self, event: str, /, **facts: object) -> None: ...
    def warning(self, event: str, /, **facts: object) -> None: ...


class NodeSide(Protocol):
    """What replication asks of the rest of the node: roles, gates, and waking those who wait."""

    # Whether a replica refuses clients' writes.
    replica_read_only: bool
    # Whether sessions have to remember which keys they wrote (WAIT, while there are filtered replicas).
    tracks_written_keys: bool

    def become_replica(self, read_only: bool) -> None: ...
    def become_primary(self) -> None: ...
    def close_writes(self, reason: str) -> None: ...
    def open_writes(self, reason: str) -> None: ...
    def set_loading(self, loading: bool) -> None: ...
    def set_stale(self, stale: bool) -> None: ...
    def replication_advanced(self) -> None:
        """More of a stream has been applied."""
        ...

    def acknowledged(self) -> None:
        """A replica has told how far it is."""
        ...

    def forget_writes(self) -> None:
        """Nothing that any session wrote is among the data any more, and offsets start over."""
        ...


class FilesSide(Protocol):
    """What replication asks of the node's files, and tells them. Nothing here blocks or checkpoints, or raises."""

    def may_ship(self) -> bool:
        """Hand what has been committed to the system; whether all of it, and the lineage, may be told to replicas now.

        After a False ``Replication.may_ship_again`` is called when that changes. Not called in the midst of a command.
        """
        ...

    def hand_over(self) -> None:
        """Hand what has been committed to the system: a stream brings much, and no client's round may come for long."""
        ...

    def note_lineage(self, lineage: Lineage) -> None:
        """The next entry belongs to this lineage; the data stay what they are."""
        ...

    def data_replaced(self, lineage: Lineage, cursors: Mapping[str, tuple[int, int]]) -> None:
        """All data have been replaced in this very step, and belong to this lineage.

        ``cursors`` holds history and next offset of each upstream whose entries are renumbered here, and of no other.
        """
        ...

    def note_cursor(self, upstream: str, history: int, offset: int) -> None:
        """The group that is committed next brings a renumbered upstream to this offset of its history.

        A ``history`` of 0 is not known: nobody can go on from there.
        """
        ...

    def cursor_moved(self, upstream: str, history: int, offset: int) -> None:
        """A renumbered upstream is at this offset of its history, and no entry says so. 0 and 0: forget where it is."""
        ...

    def forget_cursors(self) -> None:
        """Where renumbered upstreams stood means nothing from here on: the data here go their own way."""
        ...


class UpstreamSide(Protocol):
    """The running follower, as far as others look at it."""

    @property
    def received_bytes(self) -> int: ...
    @property
    def diverged(self) -> str:
        """Why the data here is not what the upstream's entries should have made of it; empty while it is."""
        ...

    @property
    def lenient(self) -> bool:
        """Whether a kevy server's stream is followed, at first or second hand."""
        ...

    def facts(self, now: float) -> Sequence[UpstreamFacts]: ...
    def position_in(self, history: int) -> int | None:
        """The next offset applied of a history that this node does not adopt (an upstream of several shards)."""
        ...


class OwnedPrefixes(Protocol):
    """Who writes what, as far as it concerns those who copy this node."""

    def owned(self) -> tuple[bytes, ...]:
        """The declared prefixes that this node writes, open or not."""
        ...

    def epoch(self, prefix: bytes) -> int:
        """The epoch of the move that made the owner of a prefix one, 0 if none did. Raises KeyError: not declared."""
        ...


class MeshSide(Protocol):
    """The copies of other writers' scopes that this node keeps beside what it writes itself."""

    @property
    def received_bytes(self) -> int: ...
    def has_applied(self, history: int, offset: int) -> bool | None:
        """Whether everything before ``offset`` of a writer's history is here; None: nobody's who is copied here."""
        ...


@attrs.define
class ReplicationSettings:
    """What the configuration says; every value may be changed while the node runs. Sizes in bytes, times in ms."""

    backlog_budget: int = 256 << 20
    reconnect_window_ms: int = 60000
    max_staleness_ms: int = 0
    min_replicas: int = 0
    min_replicas_max_lag_ms: int = 10000
    standalone: bool = False


class Refused(Exception):
    """A replica is turned away: ``reason`` is for the log, ``line`` for the peer (empty: nothing is said)."""

    def __init__(self, reason: str, line: bytes = b"") -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line
