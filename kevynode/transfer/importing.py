"""Takes in the data of other servers' files, one after the other, for a store to take over."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator
from itertools import chain
from typing import Final, TypeAlias
from zlib import crc32

import attrs

from ..persist.digests import CheckedReader
from ..persist.record_reader import Damaged, Entries, Torn
from ..rdb.source import FormatError
from ..replicate.snapshot_decoder import SnapshotDecoder, SnapshotError
from ..replicate.snapshot_format import END, MAGIC
from ..store.sharded import RandomSource
from ..store.staging import Staging
from .data_file import DataFileReader
from .replay import Replay, ReplayError
from .staged import Swept, sweep

__all__ = ["OWN_FILE", "Import", "ImportFailure", "ImportReport"]

#: How the append-only files of a kevynode begin.
OWN_FILE: Final = b"#kevynode:file "
#: Bytes of a file that tell what it is, at most.
_HEAD: Final = max(len(MAGIC), len(OWN_FILE))
#: Bytes of a snapshot, and commands, that are read between two pauses.
_SNAPSHOT_STEP: Final = 16 * 1024
_COMMANDS: Final = 256
#: The last line of the snapshot that a kevynode saves (``persist.dump``), with the checksum of all before it.
_LAST: Final = re.compile(rb"#kevynode:dump snapshot=[0-9]{1,19} crc32=([0-9]{1,10})\r\n\Z")
_LAST_LIMIT: Final = 80
_SNAPSHOT_END: Final = bytes((END,))
#: A byte of a file, and how many bytes from there on.
Span: TypeAlias = tuple[int, int]
#: Fields of a dump that say who wrote it, and as what they are shown.
_WRITERS: Final = ((b"valkey-ver", "Valkey"), (b"redis-ver", "Redis"))


class ImportFailure(Exception):
    """A file cannot be taken in: its ``name``, the ``offset`` of the byte, and the ``reason``."""

    def __init__(self, name: str, offset: int, reason: str) -> None:
        super().__init__(f"{name}: {reason} (at byte {offset})")
        self.name = name
        self.offset = offset
        self.reason = reason


@attrs.define
class ImportReport:
    """What an import has found. Numbers are of keys unless they say otherwise."""

    #: Who wrote the dump, such as ``Valkey 9.1.2``; empty if no file says so.
    writer: str = ""
    #: The database that was read; None if all were empty.
    database: int | None = None
    #: Keys taken from dumps, commands applied behind them, and bytes read.
    dumped: int = 0
    commands: int = 0
    bytes: int = 0
    #: Keys there are in the end, and those that are not: expired, of values without elements (which mistakes of old
    #: servers have left), of other databases, without the wanted prefix.
    keys: int = 0
    expired: int = 0
    expired_fields: int = 0
    empty: int = 0
    other_databases: int = 0
    other_prefixes: int = 0
    #: Commands for other databases.
    other_commands: int = 0
    #: What is not data here: libraries of functions, what modules keep beside keys, commands without an effect.
    functions: int = 0
    module_data: int = 0
    passed_over: int = 0
    #: Whether all dumps had a checksum.
    verified: bool = True
    #: Where the last file broke off in the middle of a record, and how many bytes were left out; None if it did not.
    torn: tuple[int, int] | None = None


class Import:
    """Reads files into a staging: a dump, a snapshot, an append-only file, or those of a folder in order.

    For each file exhaust :meth:`read`, then :meth:`finish`; then :attr:`staging` is a store's to take over
    (``Store.replace_all``) and ``report`` is complete. ``random``: what commands draw from, though none of a file
    should. ``database``: the one to read; None: the only one that holds data, a second is an error. ``prefix``: keys
    that do not begin with it are left out. ``now_ms`` (unix ms): what has expired by then is left out; 0: nothing has.
    ``epoch``: see :class:`Staging`.

    Works in steps of a few milliseconds; nothing here blocks. What a kevynode wrote has one database, 0.
    """

    def __init__(
        self,
        random: RandomSource,
        *,
        database: int | None = None,
        prefix: bytes = b"",
        now_ms: int = 0,
        epoch: int = 0,
    ) -> None:
        self.report = ImportReport()
        self.staging = Staging(epoch)
        self._prefix = prefix
        self._now = now_ms
        self._replay = Replay(random, database=database, now_ms=now_ms, epoch=epoch)
        self._database = database
        self._epoch = epoch

    def read(self, name: str, pieces: Iterable[bytes], *, last: bool = True) -> Iterator[None]:
        """Read a file; ``pieces`` are its bytes, 64 KiB or less at a time, and may block.

        A file may be empty. Only the last may break off in the middle of a record; what is unfinished there is left
        out. Raises ImportFailure.
        """
        self._replay.start_file()
        rest = self._counted(pieces)
        head = b""
        for piece in rest:
            head += piece
            if len(head) >= _HEAD:
                break
        read = self._read_foreign
        if head.startswith(MAGIC):
            read = self._read_snapshot
        elif head.startswith(OWN_FILE):
            read = self._read_own
        try:
            torn = yield from read(chain((head,), rest))
        except FormatError as error:
            raise ImportFailure(name, error.offset, error.reason) from error
        except ReplayError as error:
            raise ImportFailure(name, 0, error.reason) from error
        if torn is not None and not last:
            offset, size = torn
            raise ImportFailure(name, offset, f"the last {size} bytes are an unfinished record, and more files follow")
        self.report.torn = torn

    def _counted(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self.report.bytes += len(piece)
            yield piece

    # -- each kind of file: reads it, and returns what was left out at its end -----------------------------------------

    def _read_foreign(self, pieces: Iterable[bytes]) -> Generator[None, None, Span | None]:
        replay = self._replay
        reader = DataFileReader(replay.put, replay.apply, database=self._database, epoch=self._epoch)
        for piece in pieces:
            yield
            for _ in reader.steps(piece):
                if reader.databases:
                    # The dump has ended; commands may follow.
                    replay.note_database(next(iter(reader.databases)))
                yield
        reader.finish()
        for number in reader.databases:
            replay.note_database(number)
        self._note(reader)
        return reader.torn

    def _read_snapshot(self, pieces: Iterable[bytes]) -> Generator[None, None, Span | None]:
        self._check_database()
        staging = self._replay.bare_staging()
        before = staging.count
        decoder = SnapshotDecoder(staging, now_ms=self._now)
        place = checksum = 0
        tail = b""
        try:
            for piece in pieces:
                for start in range(0, len(piece), _SNAPSHOT_STEP):
                    decoder.feed(piece[start : start + _SNAPSHOT_STEP])
                    yield
                place += len(piece)
                tail += piece
                checksum = crc32(tail[:-_LAST_LIMIT], checksum)
                tail = tail[-_LAST_LIMIT:]
            decoder.finish()
        except SnapshotError as error:
            raise FormatError(place, error.reason) from error
        last = _LAST.search(tail)
        if last is None:
            if not tail.endswith(_SNAPSHOT_END):
                raise FormatError(place, "what stands behind the snapshot is not as it was written")
            # As other servers write it.
            self.report.verified = False
        elif crc32(tail[: last.start()], checksum) != int(last[1]):
            raise FormatError(0, "what is in it does not match its checksum")
        self._replay.note_database(0)
        self.report.dumped += staging.count - before
        return None

    def _read_own(self, pieces: Iterable[bytes]) -> Generator[None, None, Span | None]:
        """What has its digests is checked against them."""
        self._check_database()
        reader = CheckedReader()
        size = 0
        for piece in pieces:
            size += len(piece)
            for event in reader.feed(piece):
                if isinstance(event, Entries):
                    yield from self._apply_entries(event)
            if isinstance(reader.error, Damaged):
                break
            yield
        error = reader.finish()
        if isinstance(error, Damaged):
            raise FormatError(error.position, error.reason)
        header = reader.reader.header
        if header is not None and header.kind == "base" and not reader.reader.ended:
            # What is missing is not what was written last, but any keys.
            raise FormatError(reader.cut, "it is a base, and not complete")
        if error is None:
            return None
        if isinstance(error, Torn) and reader.cut:
            return error.cut, size - error.cut
        raise FormatError(reader.cut, str(error))

    def _apply_entries(self, entries: Entries) -> Iterator[None]:
        for index, command in enumerate(entries.commands, 1):
            try:
                self._replay.apply(command)
            except ReplayError as error:
                raise FormatError(entries.start, error.reason) from error
            if not index % _COMMANDS:
                yield
        self.report.commands += len(entries.commands)

    def _check_database(self) -> None:
        if self._database:
            raise ReplayError("a kevynode wrote it, which has no database but 0")

    def _note(self, reader: DataFileReader) -> None:
        report = self.report
        for field, server in _WRITERS:
            if field in reader.aux:
                report.writer = f"{server} {reader.aux[field].decode('ascii', 'replace')}"
        report.dumped += reader.keys
        report.empty += reader.empty_keys
        report.other_databases += reader.skipped_keys
        report.commands += reader.commands
        report.functions += reader.functions
        report.module_data += reader.module_data
        report.verified = report.verified and reader.verified is not False

    def finish(self) -> Iterator[None]:
        """All files have been read: leave out what has expired and what is not wanted."""
        staging = self.staging = self._replay.staging()
        report = self.report
        report.database = self._replay.database
        report.passed_over = self._replay.passed_over
        report.other_commands = self._replay.others
        swept = Swept()
        yield from sweep(staging, swept, prefix=self._prefix, now_ms=self._now)
        report.expired = swept.expired
        report.expired_fields = swept.expired_fields
        report.other_prefixes = swept.other_prefixes
        report.keys = staging.count
