"""What a follower needs of the node that it keeps a copy for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal, Protocol

__all__ = ["FollowerSink"]


class FollowerSink(Protocol):
    """The rest of the node, as far as it concerns it what the upstream sends. Nothing here blocks or checkpoints."""

    def cursor(self) -> tuple[int, int]:
        """The history and next offset that this node holds, to ask an adopted upstream for; (0, 0): nothing."""
        ...

    def adopt(
        self,
        history: int,
        offset: int,
        ancestors: tuple[tuple[int, int], ...],
        kind: Literal["full", "partial"],
        reason: str,
    ) -> None:
        """The store holds everything before ``offset`` of ``history``, which is this node's from now on.

        ``kind`` says whether all data has been replaced for that, ``reason`` why it was that kind. The journal's offset
        is ``offset`` already. A ``history`` of 0 means that the upstream tells none, or not yet: with ``full`` this
        node needs one of its own, with ``partial`` it keeps its own. Not called for an upstream of several shards.
        """
        ...

    def swapped(self, cursors: Mapping[str, tuple[int, int]]) -> None:
        """All data has been replaced, after :meth:`adopt` where that is called; otherwise ``cursors`` says by what.

        It holds history (0: not told) and next offset of each link, by its address. Called in the same step.
        """
        ...

    def cursors_of(self, upstreams: Collection[str]) -> Mapping[str, tuple[int, int]]:
        """Where links that are not adopted are to go on, by address, if all data here come from them; or nothing."""
        ...

    def note_cursor(self, upstream: str, history: int, offset: int) -> None:
        """The next group of the journal brings a link that is not adopted to this offset of its history."""
        ...

    def diverged(self) -> None:
        """The data here are not, or will not be, what the upstream's entries should have made of them."""
        ...

    def entries_applied(self, first: int, next: int, raw: bytes, grouped: bool, may_flush: bool) -> None:
        """The entries from offset ``first`` up to ``next`` are in the store and the journal.

        ``raw`` holds their frames, as they came where possible; it is empty where they got numbers of this node.
        ``grouped``: they, and no others, belong together. ``may_flush``: one of them may have emptied everything.
        """
        ...

    def link_changed(self) -> None:
        """The state of a link, or what is known about staleness, has changed: see ``Follower.facts``."""
        ...

    def lost(self, reason: str) -> None:
        """A link has ended, or could not be made."""
        ...
