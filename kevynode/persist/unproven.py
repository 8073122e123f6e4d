"""The end of a file that may not be on the disk, though programs read it, and how it gets there.

A process may end right after a sync has failed. Then its last bytes are in the system's memory alone, which takes them
for stored: another process reads them, and no sync of its own stores them or fails. A loss of power would take what
that process has relied on, in the midst of what it has written since.

How far a file is proven to be on the disk is said in the file itself: each digest tells how much had been durable
before, as the process that wrote it knew first-hand. What is behind that is written over with itself when another
process begins, so that the system has to store it or say that it cannot. That is a second of writes with ``everysec``,
a round of them with ``always``, all of an increment with ``no``.
"""

from __future__ import annotations

import errno
from collections import deque
from typing import Final
from zlib import crc32

import attrs

from ..disk import Disk, DiskFile, write_all

__all__ = ["STEP", "Checksums", "Unproven", "write_again"]

#: Bytes that are read, summed up, and written again at a time.
STEP: Final = 32 * 1024


@attrs.frozen
class Unproven:
    """The bytes of a file from ``offset`` on may not be on the disk.

    ``checksums`` are the CRC-32 of what was read there, of STEP bytes each, and of what is left at the end of the file,
    at byte ``size``.
    """

    path: str
    offset: int
    size: int
    checksums: tuple[int, ...]


class Checksums:
    """What has been read of a file, STEP bytes at a time, as far as it is not proven to be on the disk."""

    def __init__(self) -> None:
        self._sums: deque[int] = deque()
        # Where the first of them begins, and where the last one ends.
        self._start = self._end = 0

    def add(self, data: bytes) -> None:
        """The next STEP bytes; fewer only where the file ends."""
        self._sums.append(crc32(data))
        self._end += len(data)

    def prove(self, size: int) -> None:
        """So many bytes of the file, of those that were read, are on the disk."""
        while self._sums and self._start + STEP <= size:
            self._sums.popleft()
            self._start += STEP

    def unproven(self, disk: Disk, path: str, size: int) -> Unproven:
        """What is not proven of the file, of which ``size`` bytes count, no fewer than were proven.

        Reads STEP bytes where that is not all that was read. Raises OSError, also if they are not found as they were.
        """
        sums = list(self._sums)
        kept, rest = divmod(size - self._start, STEP)
        if size < self._end:
            last = sums[kept]
            del sums[kept:]
            if rest:
                whole = disk.read(path, self._start + kept * STEP, STEP)
                if crc32(whole) != last:
                    raise _changed(path)
                sums.append(crc32(whole[:rest]))
        return Unproven(path, self._start, size, tuple(sums))


def write_again(disk: Disk, unproven: Unproven) -> None:
    """Write the bytes over with themselves, and make the file durable.

    The file must not be written to by anybody else. Takes long. Raises OSError, also if what is found there is not what
    was read; then they are as unproven as before.
    """
    file = disk.open_over(unproven.path, unproven.offset)
    try:
        _copy(disk, unproven, file)
        file.sync()
    finally:
        file.close()


def _copy(disk: Disk, unproven: Unproven, file: DiskFile) -> None:
    with disk.open_read(unproven.path, unproven.offset) as source:
        for checksum in unproven.checksums:
            data = source.read(STEP)
            if crc32(data) != checksum:
                raise _changed(unproven.path)
            write_all(file, data)
    if file.position != unproven.size:
        raise _changed(unproven.path)


def _changed(path: str) -> OSError:
    return OSError(errno.EIO, "the disk does not give back what was read before", path)
