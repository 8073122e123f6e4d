"""What a node that keeps no files tells of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from ..errors import ErrorKind
from ..persistence_view import AppendOnlyFacts, DumpFacts, LoadFacts

if TYPE_CHECKING:
    from .server import Server

__all__ = ["MemoryOnly"]

_NO_FILES: Final = ErrorKind(
    "ERR", "this node keeps its data in memory only, and writes no files", "Ask a node that has a data directory."
)


class MemoryOnly:
    """The PersistenceView of such a node: nothing was ever saved, and nothing can be."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def append_only(self) -> AppendOnlyFacts:
        return AppendOnlyFacts(enabled=False)

    def dumps(self) -> DumpFacts:
        # As in Valkey: as long as nothing was saved, the start counts.
        return DumpFacts(last_save=self._server.started_at, changes=self._server.store.journal.offset)

    def load(self) -> LoadFacts | None:
        return None

    def is_durable(self, offset: int) -> bool:
        return False

    def rewrite(self) -> Literal["started", "scheduled"]:
        raise _NO_FILES()

    def save(self, *, schedule: bool = False) -> Literal["started", "scheduled"]:
        raise _NO_FILES()

    def cancel_save(self) -> Literal["running", "scheduled"] | None:
        return None
