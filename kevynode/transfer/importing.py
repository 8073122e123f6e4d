"""Takes in the data of other servers' files, one after the other, for a store to take over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import attrs

from ..rdb.source import FormatError
from ..store.sharded import RandomSource
from ..store.staging import Staging
from ..store.values import Hash, value_memory
from .data_file import DataFileReader
from .replay import Replay, ReplayError

__all__ = ["Import", "ImportFailure", "ImportReport"]

#: Fields of hashes that are looked at between two pauses.
_SLICE: Final = 1000
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
    #: Keys there are in the end, and those that are not: expired, of other databases, without the wanted prefix.
    keys: int = 0
    expired: int = 0
    expired_fields: int = 0
    other_databases: int = 0
    other_prefixes: int = 0
    #: What is not data here: libraries of functions, what modules keep beside keys, commands without an effect.
    functions: int = 0
    module_data: int = 0
    passed_over: int = 0
    #: Whether all dumps had a checksum.
    verified: bool = True
    #: Where the last file broke off in the middle of a record, and how many bytes were left out; None if it did not.
    torn: tuple[int, int] | None = None


class Import:
    """Reads files into a staging: a dump file, an append-only file, or those of a folder in the manifest's order.

    For each file exhaust :meth:`read`, then :meth:`finish`; then :attr:`staging` is a store's to take over
    (``Store.replace_all``) and ``report`` is complete. ``random``: what commands draw from, though none of a file
    should. ``database``: the one to read; None: the only one that holds data, a second is an error. ``prefix``: keys
    that do not begin with it are left out. ``now_ms`` (unix ms): what has expired by then is left out; 0: nothing has.
    ``epoch``: see :class:`Staging`.

    Works in steps of a few milliseconds; nothing here blocks.
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
        replay = self._replay
        replay.start_file()
        reader = DataFileReader(replay.put, replay.apply, database=self._database, epoch=self._epoch)
        try:
            for piece in pieces:
                self.report.bytes += len(piece)
                yield
                for _ in reader.steps(piece):
                    if reader.databases:
                        # The dump has ended; commands may follow.
                        replay.note_database(next(iter(reader.databases)))
                    yield
            reader.finish()
        except FormatError as error:
            raise ImportFailure(name, error.offset, error.reason) from error
        except ReplayError as error:
            raise ImportFailure(name, 0, error.reason) from error
        if reader.torn is not None and not last:
            offset, size = reader.torn
            raise ImportFailure(name, offset, f"the last {size} bytes are an unfinished record, and more files follow")
        for number in reader.databases:
            replay.note_database(number)
        self._note(reader)

    def _note(self, reader: DataFileReader) -> None:
        report = self.report
        for field, server in _WRITERS:
            if field in reader.aux:
                report.writer = f"{server} {reader.aux[field].decode('ascii', 'replace')}"
        report.dumped += reader.keys
        report.other_databases += reader.skipped_keys
        report.commands += reader.commands
        report.functions += reader.functions
        report.module_data += reader.module_data
        report.verified = report.verified and reader.verified is not False
        report.torn = reader.torn

    def finish(self) -> Iterator[None]:
        """All files have been read: leave out what has expired and what is not wanted."""
        staging = self.staging = self._replay.staging()
        report = self.report
        report.database = self._replay.database
        report.passed_over = self._replay.passed_over
        prefix = self._prefix
        for shard in list(staging.keyspace.shards()):
            expired = [key for key, deadline in shard.deadlines.items() if deadline < self._now]
            for key in expired:
                staging.remove(key)
            others = [key for key in shard if not key.startswith(prefix)] if prefix else []
            for key in others:
                staging.remove(key)
            report.expired += len(expired)
            report.other_prefixes += len(others)
            yield
        for key in list(staging.field_deadline_keys):
            value = staging.keyspace.get(key)
            if type(value) is Hash:
                yield from self._remove_expired_fields(key, value)
        report.keys = staging.count

    def _remove_expired_fields(self, key: bytes, value: Hash) -> Iterator[None]:
        while value.may_have_expired(self._now):
            before = value_memory(value)
            self.report.expired_fields += len(value.remove_expired(self._now, _SLICE))
            self.staging.used += value_memory(value) - before
            yield
        if not len(value):
            self.staging.remove(key)
            self.report.expired += 1
