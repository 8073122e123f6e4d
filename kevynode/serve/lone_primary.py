"""What a node that nobody follows, and that follows nobody, tells of replication."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from ..errors import ErrorKind
from ..replication_view import BacklogFacts, ReplicaFacts, UpstreamFacts

if TYPE_CHECKING:
    from .server import Server

__all__ = ["LonePrimary"]

_STANDALONE: Final = ErrorKind(
    "ERR",
    "this node is standalone and follows nobody",
    'Start it with replication.role "primary" or "replica" to change that at run time.',
)


class LonePrimary:
    """The ReplicationView of such a node: a history of its own, and nobody to share it with."""

    role: Literal["master", "slave"] = "master"
    previous = (0, -1)
    full_syncs = partial_syncs = partial_refused = 0
    sent_bytes = received_bytes = 0

    def __init__(self, server: Server) -> None:
        self._server = server
        self.history = 0
        self.change_history()

    def change_history(self) -> None:
        """Go on under another history (DEBUG CHANGE-REPL-ID)."""
        self.history = self._server.store.random.getrandbits(52) + 1

    @property
    def position(self) -> int:
        return self._server.store.journal.offset

    def replicas(self) -> tuple[ReplicaFacts, ...]:
        return ()

    def upstreams(self) -> tuple[UpstreamFacts, ...]:
        return ()

    def backlog(self) -> BacklogFacts:
        parameters = self._server.parameters
        budget = 0 if parameters is None else parameters.value("repl-backlog-size")
        return BacklogFacts(active=False, budget=budget, memory=0, first=self.position, next=self.position)

    def good_replicas(self) -> int:
        return 0

    def acknowledged(self, offset: int, written: frozenset[bytes] | None) -> int:
        return 0

    def ask_for_acknowledgements(self) -> None:
        """There is nobody to ask."""

    def has_applied(self, history: int, offset: int) -> bool | None:
        return offset <= self.position if history == self.history else None

    def writer(self) -> str:
        return self._server.advertise or f"127.0.0.1:{self._server.tcp_port}"

    def follow(self, host: str, port: int) -> bool:
        raise _STANDALONE()

    def promote(self) -> None:
        """It is a primary."""
