"""Where a node has released prefixes in its own journal: what it writes under them behind that goes to no follower.

That has to be known after a restart, too, when the mark itself is older than everything that the files still hold as
entries: the clean-up of a slice may be behind it, and is read from the files like any other entry. So the files have a
cursor under ``released/<hex prefix>``, which a rewrite carries over with all others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from ..store.marks import Mark, Release
from .scope_cursors import PREFIX_LIMIT

__all__ = ["ReleasedPrefixes"]

# No upstream is called so: an address has a port.
_START: Final = "released/"


class ReleasedPrefixes:
    """The prefixes that this node has released and not acquired again, with the offsets of the marks that say so."""

    def __init__(self) -> None:
        self._offsets: dict[bytes, int] = {}
        # Of which marks were found as entries: they are newer than what stands beside them.
        self._met: set[bytes] = set()

    def before(self, offset: int) -> list[bytes]:
        """The prefixes whose marks are before ``offset``."""
        return [prefix for prefix, at in self._offsets.items() if at < offset]

    def passed(self, mark: Mark, offset: int) -> None:
        """The journal has a mark at ``offset``."""
        self._met.add(mark.prefix)
        if isinstance(mark, Release):
            self._offsets[mark.prefix] = offset
        else:
            self._offsets.pop(mark.prefix, None)

    def note(self, mark: Mark, history: int, note: Callable[[str, int, int], None]) -> None:
        """Tell the files what :meth:`passed` has just been told of, in the running ``history``."""
        if len(mark.prefix) <= PREFIX_LIMIT:
            offset = self._offsets.get(mark.prefix)
            note(f"{_START}{mark.prefix.hex()}", 0 if offset is None else history, offset or 0)

    def find(self, cursors: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
        """Take what is this node's own of the cursors that were in the files at the start; the others."""
        others = {}
        for name, (history, offset) in cursors.items():
            if not name.startswith(_START):
                others[name] = (history, offset)
                continue
            try:
                prefix = bytes.fromhex(name[len(_START) :])
            except ValueError:
                continue
            # No history: the files say that it was acquired again.
            if history and prefix not in self._met:
                self._offsets[prefix] = offset
        return others
