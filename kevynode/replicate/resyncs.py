"""The ships of single prefixes that a filtered replica has asked for, and what it does not hold whole until they came.

A replica acknowledges the stream as a whole. What comes of a prefix that is yet to be shipped it passes over, so until
it says that the ship is in place its acknowledgements tell nothing about that prefix.
"""

from __future__ import annotations

from typing import Final

from . import wire

__all__ = ["Resyncs"]

_ANY_EPOCH: Final = 2**63 - 1


class Resyncs:
    """The scope ships of one link, in the order in which they were asked for."""

    def __init__(self) -> None:
        self._due: dict[bytes, None] = {}
        # For each prefix that is not held whole: how many of its ships are not in place yet.
        self._missing: dict[bytes, int] = {}

    def __len__(self) -> int:
        """How many are due."""
        return len(self._due)

    def ask(self, prefix: bytes) -> None:
        """A ship of ``prefix`` is due. Raises ValueError if the prefix is too long to be shipped by itself."""
        # The longest line that it may begin with.
        wire.snapshot_scope(_ANY_EPOCH, prefix)
        if prefix not in self._due:
            self._due[prefix] = None
            self._missing[prefix] = self._missing.get(prefix, 0) + 1

    @property
    def first(self) -> bytes:
        """The prefix whose turn it is."""
        return next(iter(self._due))

    def begin(self, prefix: bytes, epoch: int = 0) -> bytes:
        """The ship of ``prefix`` begins, as this node knows it to be owned in ``epoch``; its first line."""
        del self._due[prefix]
        return wire.snapshot_scope(epoch, prefix)

    def clear(self) -> None:
        """A ship of everything takes the place of all of them."""
        self._due.clear()
        self._missing.clear()

    def in_place(self, prefix: bytes) -> None:
        """The replica says that it has put a ship of ``prefix`` in place. What was not asked for is ignored."""
        left = self._missing.pop(prefix, 0) - 1
        if left > 0 or prefix in self._due:
            self._missing[prefix] = max(left, 1)

    def held(self, prefixes: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """Those of a link's ``prefixes`` that the replica holds whole."""
        missing = tuple(self._missing)
        return tuple(prefix for prefix in prefixes if not any(part.startswith(prefix) for part in missing))
