"""What a follower of scopes has on both sides: the node that it tells, and the snapshot that it builds aside."""

from __future__ import annotations

from typing import Protocol

import attrs

from ..store.staging import PrefixStaging
from .snapshot import SnapshotDecoder

__all__ = ["MeshSink", "Ship"]


class MeshSink(Protocol):
    """The rest of the node, as far as it concerns it what a writer sends. Nothing here blocks or checkpoints."""

    def note_cursor(self, upstream: str, history: int, offset: int) -> None:
        """The next group of the journal brings an upstream to this offset of its history."""
        ...

    def cursor_moved(self, upstream: str, history: int, offset: int) -> None:
        """An upstream is at this offset of its history, and no entry says so. 0 and 0: forget where it is."""
        ...

    def scopes_applied(self) -> None:
        """Entries or a ship are in the store and the journal."""
        ...

    def link_changed(self) -> None:
        """The state of a link has changed."""
        ...


@attrs.define(eq=False)
class Ship:
    """A snapshot being built aside. ``scope``: the one prefix that was asked for; None: all that the link carries."""

    staging: PrefixStaging
    # None: the snapshot is empty by itself.
    decoder: SnapshotDecoder | None
    scope: bytes | None
    reason: str
    began: float
    size: int = 0
