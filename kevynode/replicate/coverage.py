"""What one link to a replica carries: everything, or what lies under the prefixes that the replica has named.

Of that the replica counts for what it holds whole: a prefix whose snapshot it has asked for is not part of it until
the replica says that the snapshot is in place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from .resyncs import Resyncs
from .slots import Slot

__all__ = ["Coverage"]

# Prefixes that one link may carry, and scope ships that may wait on it: each entry and each key is held against them.
_PREFIX_LIMIT: Final = 1024
# What a peer must know to follow a part of the stream: where it goes on, and what belongs together.
_FILTER_NEEDS: Final = frozenset({"scopes", "skip", "txn"})


class Coverage:
    """What one link carries, by the ``capabilities`` of its peer, and told to its ``slot`` whenever it changes."""

    def __init__(self, capabilities: frozenset[str], slot: Slot) -> None:
        self.filtered = capabilities >= _FILTER_NEEDS
        # A filtered link begins when the replica has said which prefixes it wants, or that it wants them all.
        self.named = not self.filtered
        # None: everything. A filtered link covers nothing until it is named.
        self.prefixes: tuple[bytes, ...] | None = () if self.filtered else None
        # Whether the replica named none, and so the link carries what this node owned then.
        self.carries_owned = False
        # The ships of single prefixes.
        self.resyncs = Resyncs()
        self._slot = slot
        slot.prefixes = self.prefixes

    def name(self, prefixes: tuple[bytes, ...], owned: Callable[[], tuple[bytes, ...]]) -> bool:
        """The replica names what it follows; nothing means all that is ``owned``. Whether that is news.

        Said once, before the link begins; later calls are ignored. Raises ValueError if there are too many.
        """
        if len(prefixes) > _PREFIX_LIMIT:
            raise ValueError(f"the replica names {len(prefixes)} prefixes; a link carries at most {_PREFIX_LIMIT}")
        if self.named:
            return False
        self.named = True
        self.carries_owned = not prefixes
        self.prefixes = prefixes or owned()
        self._count()
        return True

    def ask(self, prefix: bytes) -> None:
        """The replica asks for a ship of ``prefix``. Raises ValueError if it may not."""
        if not self.filtered or not prefix.startswith(self.prefixes or ()):
            raise ValueError(f"the replica asked for {prefix!r}, which this link does not carry")
        self.resyncs.ask(prefix)
        self._count()
        if len(self.resyncs) > _PREFIX_LIMIT:
            raise ValueError(f"the replica asked for more than {_PREFIX_LIMIT} scopes at once")

    def in_place(self, prefix: bytes) -> None:
        """The replica says that it has put a ship of ``prefix`` in place."""
        self.resyncs.in_place(prefix)
        self._count()

    def ships_everything(self) -> None:
        """A ship of everything begins: what single ones would bring is in it."""
        self.resyncs.clear()
        self._count()

    def _count(self) -> None:
        """Have the replica count for what it holds whole of what it follows."""
        self._slot.prefixes = None if self.prefixes is None else self.resyncs.held(self.prefixes)
