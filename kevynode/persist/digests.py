"""Digests in append-only files: what has been written together is known to have arrived together.

A system that loses power may have stored the later bytes of a file and not the earlier ones; the gap reads as zeros,
and zeros within a value look like a value. So each piece of bytes that is written at once ends with a line that holds
its checksum, and is believed only with it. The line says, too, how much of the file had been made durable before: if
bytes are wrong that once were durable, the file is damaged and not just cut short by a crash.
"""

from __future__ import annotations

import re
from typing import Final
from zlib import crc32

from .annotations import Digest, End
from .record_reader import Damaged, FileError, RecordEvent, RecordReader, Torn

__all__ = ["CheckedReader", "has_gap", "is_synced_behind"]

_LINE: Final = re.compile(rb"#kevynode:digest crc32=[0-9]{1,10} place=([0-9]{1,19}) synced=([0-9]{1,19})\r\n")
#: Bytes that a file system stores together.
_PAGE: Final = 4096


def is_synced_behind(data: bytes, place: int, cut: int) -> bool:
    """Whether digests in ``data``, which begins at byte ``place`` of a file, prove that more than ``cut`` was durable.

    Only what is whole in ``data`` is seen.
    """
    return any(int(line[1]) == place + line.start() and int(line[2]) > cut for line in _LINE.finditer(data))


def has_gap(data: bytes, place: int) -> bool:
    """Whether a page may be missing in ``data``, which begins at byte ``place`` of a file: it reads as zeros."""
    return any(data[end - 1] == 0 for end in range(_PAGE - place % _PAGE, len(data) + 1, _PAGE))


class CheckedReader:
    """A :class:`RecordReader` that gives only what a digest has vouched for.

    ``cut`` is the byte behind the last digest that was right, ``error`` what is wrong behind it. ``synced`` is how much
    of the file is known to have been durable, by the digests so far.
    """

    def __init__(self, reader: RecordReader | None = None) -> None:
        self.reader = RecordReader() if reader is None else reader
        self.cut = self.reader.cut
        self.error: FileError | None = None
        self.synced = 0
        # The bytes of the file from the cut on, and what has been read in them.
        self._bytes = bytearray()
        self._held: list[RecordEvent] = []

    def feed(self, data: bytes) -> list[RecordEvent]:
        """The events that the bytes complete and vouch for, in order, without the digests. Once in error, nothing."""
        if self.error is not None:
            return []
        self._bytes += data
        held = self._held
        vouched = 0
        for event in self.reader.feed(data):
            if not isinstance(event, Digest):
                held.append(event)
                if isinstance(event, End) and self._is_alone(event):
                    vouched = len(held)
            elif self._check(event):
                vouched = len(held)
            else:
                break
        else:
            self.error = self.reader.error
        given = held[:vouched]
        del held[:vouched]
        return given

    def finish(self) -> FileError | None:
        """What is wrong with the file if nothing follows: None for nothing. ``error`` holds it from then on."""
        if self.error is None:
            self.error = self.reader.finish()
            if self.error is None and self._bytes:
                self.error = Torn(self.cut)
        if isinstance(self.error, Torn):
            # The reader knows of no digests.
            self.error = Torn(self.cut)
        elif isinstance(self.error, Damaged):
            self.error = self.error._replace(cut=self.cut)
        return self.error

    def _is_alone(self, end: End) -> bool:
        """Whether the last line stands right behind a digest. It can have none itself, and tells what is before it."""
        line = end.line()
        if self._bytes != line:
            return False
        self._bytes.clear()
        self.cut += len(line)
        return True

    def _check(self, digest: Digest) -> bool:
        size = digest.place - self.cut
        line = digest.line()
        with memoryview(self._bytes) as held:
            is_right = size >= 0 and held[size : size + len(line)] == line and crc32(held[:size]) == digest.crc32
        if not is_right:
            self.error = Damaged(self.cut, "what follows does not match its digest", self.cut)
            return False
        del self._bytes[: size + len(line)]
        self.cut += size + len(line)
        self.synced = max(self.synced, digest.synced)
        return True
