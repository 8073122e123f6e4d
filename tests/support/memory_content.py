"""What a file in memory holds, as programs see it and as a loss of power leaves it, page by page."""

from __future__ import annotations

import posixpath
from random import Random

__all__ = ["PAGE", "Content", "rooted", "surviving"]

#: Bytes that are written back together.
PAGE = 4096


class Content:
    """What a file holds, whatever it is called: ``data`` as programs see it, ``durable`` as a crash leaves it."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = bytearray(data)
        self.durable = bytearray(data)
        # Pages that differ from the durable ones, or may: not written back yet, and just being written back.
        self.dirty: set[int] = set()
        self.syncing: set[int] = set()
        # Pages that a failed sync has left in memory alone: nothing writes them back, and they may be gone at any time.
        self.lost: set[int] = set()
        # Whether it was emptied since the last sync.
        self.emptied = False
        self.handles = 0

    def write(self, offset: int, data: bytes) -> None:
        self.data[offset : offset + len(data)] = data
        pages = set(range(offset // PAGE, (offset + len(data) - 1) // PAGE + 1))
        self.dirty |= pages
        self.lost -= pages

    def empty(self) -> None:
        self.data.clear()
        self.dirty.clear()
        self.lost.clear()
        self.emptied = True

    def forget(self, random: Random) -> bool:
        """Let some of what is only in memory, though taken for stored, be gone from there; whether anything was."""
        gone = [page for page in sorted(self.lost - self.dirty - self.syncing) if random.random() < 0.5]
        stored = b"" if self.emptied else self.durable
        for number in gone:
            start = number * PAGE
            end = min(start + PAGE, len(self.data))
            self.data[start:end] = stored[start:end].ljust(end - start, b"\0")
        self.lost.difference_update(gone)
        return bool(gone)

    def write_back(self, pages: set[int], data: bytes) -> None:
        """Make durable that these pages are as in ``data``, and that the file has its size."""
        if self.emptied:
            self.durable.clear()
            self.emptied = False
        for number in pages:
            _put(self.durable, number, data)
        self.durable.extend(bytes(max(len(data) - len(self.durable), 0)))

    def found(self, random: Random) -> bytes:
        """What a crash may leave of it."""
        unsure = sorted(self.dirty | self.syncing)
        left = bytearray(self.durable)
        if self.emptied:
            if random.random() < 0.5:
                return bytes(left)
            left.clear()
        written = random.choice((0, len(unsure), random.randrange(len(unsure) + 1), -1))
        kept = unsure[:written] if written >= 0 else [page for page in unsure if random.random() < 0.5]
        for number in kept:
            _put(left, number, self.data)
        torn = [page for page in unsure if page not in kept]
        if torn and random.random() < 0.5:
            # The page that was being written: a part of it is new, the rest as it was.
            number = torn[0] if written >= 0 else torn[-1]
            start = number * PAGE
            _put(left, number, self.data[: random.randrange(start, min(start + PAGE, len(self.data)) + 1)])
        if unsure and len(left) < len(self.data) and random.random() < 0.25:
            # The size came through and the bytes did not.
            left.extend(bytes(len(self.data) - len(left)))
        return bytes(left)


def _put(left: bytearray, number: int, data: bytes | bytearray) -> None:
    """Put the page of ``data`` with this number, as far as there is one, in its place."""
    start = number * PAGE
    page = data[start : start + PAGE]
    if page:
        left.extend(bytes(max(start - len(left), 0)))
        left[start : start + len(page)] = page


def surviving(changes: list[dict[str, Content | str | None]], random: Random) -> list[dict[str, Content | str | None]]:
    """Those of a folder's changes that a crash may leave: none, all, the first ones, or any."""
    number = random.choice((0, len(changes), random.randrange(len(changes) + 1), -1))
    return changes[:number] if number >= 0 else [change for change in changes if random.random() < 0.5]


def rooted(folders: set[str]) -> list[str]:
    """The folders that can be reached from the root."""
    kept = {"/"}
    for folder in sorted(folders):
        if posixpath.dirname(folder) in kept:
            kept.add(folder)
    return sorted(kept)
