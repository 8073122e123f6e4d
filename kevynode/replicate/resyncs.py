"""The ships of single prefixes that a filtered replica has asked for, and what it does not hold whole until they came.

A replica acknowledges the stream as a whole. What comes of a prefix that is yet to be shipped it passes over, so until
it says that the ship is in place its acknowledgements tell nothing about that prefix.
"""

from __future__ import annotations

from . import wire

__all__ = ["Resyncs"]


class Resyncs:
    """The scope ships of one link, in the order in which they were asked for."""

    def __init__(self) -> None:
        # The line that each begins with.
        self._due: dict[bytes, bytes] = {}
        # For each prefix that is not held whole: how many of its ships are not in place yet.
        self._missing: dict[bytes, int] = {}

    def __len__(self) -> int:
        """How many are due."""
        return len(self._due)

    def ask(self, prefix: bytes) -> None:
        """A ship of ``prefix`` is due. Raises ValueError if the prefix is too long to be shipped by itself."""
        line = wire.snapshot_scope(0, prefix)
        if prefix not in self._due:
            self._due[prefix] = line
            self._missing[prefix] = self._missing.get(prefix, 0) + 1

    @property
    def first(self) -> bytes:
        """The prefix whose turn it is."""
        return next(iter(self._due))

    def begin(self, prefix: bytes) -> bytes:
        """The ship of ``prefix`` begins; its first line."""
        return self._due.pop(prefix)

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
