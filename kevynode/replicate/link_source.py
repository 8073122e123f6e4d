"""What a link to a replica takes its data from, and whom it asks and tells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

from ..store.keyspace import KeyShard
from .backlog import Backlog
from .lineage import Lineage

if TYPE_CHECKING:
    from .primary import PrimaryLink

__all__ = ["LinkSource"]


class LinkSource(Protocol):
    """What a link takes its data from: the same object for all links of a node."""

    @property
    def backlog(self) -> Backlog: ...

    @property
    def lineage(self) -> Lineage: ...

    def freeze(self) -> tuple[list[KeyShard], bool]:
        """The data as of the backlog's next offset, and whether any hash may hold a field with a deadline."""
        ...

    def owned_prefixes(self) -> tuple[bytes, ...]:
        """What a filtered link that names no prefixes follows."""
        ...

    def epoch(self, prefix: bytes) -> int:
        """The epoch that this node knows a prefix to be owned in; 0: no move made its owner one."""
        ...

    def released_before(self, offset: int) -> list[bytes]:
        """The prefixes that this node released by a mark before ``offset``, and has not acquired again."""
        ...

    def may_ship(self, link: PrimaryLink, now: float, prefixes: tuple[bytes, ...] | None) -> bool:
        """Whether a snapshot of ``prefixes`` (None: of everything) may start on ``link`` now.

        :meth:`PrimaryLink.wake` is called when that may have changed.
        """
        ...

    def may_tell(self) -> bool:
        """Whether all that has been committed, and the lineage, may leave this node now; :meth:`PrimaryLink.wake`
        is called when that changes."""
        ...

    def ship_started(self, link: PrimaryLink, kind: Literal["full", "scope"], reason: str, now: float) -> None: ...
    def ship_ended(self, link: PrimaryLink, size: int, now: float) -> None: ...
    def ship_caught_up(self, link: PrimaryLink) -> None:
        """What was written during a ship has gone out, too."""
        ...

    def ship_overrun(self, link: PrimaryLink, now: float) -> None:
        """The backlog could not hold what was written during a ship."""
        ...
