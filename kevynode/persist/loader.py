"""Loads an append-only folder into a store, checks one, and repairs one.

The files are read in order: the base, then the increments. Only the last one may end early, as a crash leaves it: what
is behind its last whole piece is cut off. Everything else that is not as it was written is refused, by file and byte.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Generator
from typing import Final, TypeVar

import attrs

from ..disk import Disk
from ..replicate.lineage import Lineage
from ..store.apply import Applier, ApplyError
from ..store.journal import Origin
from ..store.store import Store
from .annotations import PLACEMENT, FileHeader, Local, MadeBy, Position, UpstreamCursor
from .digests import CheckedReader, has_gap, is_synced_behind
from .folder import FOLDER, AppendOnlyFolder, read_manifest
from .manifest import Manifest, ManifestFile
from .record_reader import Damaged, Entries, Newer, RecordEvent, RecordReader, Torn
from .unproven import STEP, Checksums, Unproven

__all__ = ["Cut", "FileReport", "LoadError", "Loaded", "check", "exhaust", "fix", "load"]

T = TypeVar("T")

#: Commands of one group that are applied in one step.
_COMMANDS: Final = 128
#: Bytes that are looked through in one step, behind a place that is wrong; and what a line in them may take.
_SCAN: Final = 256 * 1024
_OVERLAP: Final = 1024
#: How every file begins.
_START: Final = b"#kevynode:file "
#: What a file goes on in where nobody asks whose entries it holds.
_ANY_LINEAGE: Final = Lineage(1)


class LoadError(Exception):
    """The folder cannot be loaded: ``path`` is the file, ``offset`` the byte (None: all of it), ``reason`` why."""

    def __init__(self, path: str, offset: int | None, reason: str) -> None:
        super().__init__(f"{path} {reason}")
        self.path = path
        self.offset = offset
        self.reason = reason


@attrs.frozen
class Cut:
    """What was cut off the end of the last file: ``bytes`` behind byte ``offset``."""

    path: str
    offset: int
    bytes: int
    reason: str


@attrs.frozen
class Loaded:
    """Where the data ends: the next offset and its lineage (None: there was nothing), and the cursors of upstreams.

    ``local``: the data hold writes that were made beside the stream they are a copy of (``Journal.outside``).
    ``last_is_empty``: the last file is an increment that says nothing that its successor would not. ``unproven``: what
    of the last file may not be on the disk (None: that is no increment).
    """

    lineage: Lineage | None = None
    offset: int = 0
    cursors: dict[str, tuple[int, int]] = attrs.Factory(dict)
    keys: int = 0
    bytes: int = 0
    commands: int = 0
    cut: Cut | None = None
    last_is_empty: bool = False
    local: bool = False
    unproven: Unproven | None = None


@attrs.frozen
class FileReport:
    """What a file of the set is like: ``error`` says what is wrong with it, None if nothing is.

    ``good`` is how many of its ``size`` bytes are as they were written. ``can_be_cut``: loading cuts it there by
    itself; ``can_be_fixed``: :func:`fix` does.
    """

    path: str
    size: int
    good: int = 0
    commands: int = 0
    error: str | None = None
    can_be_cut: bool = False
    can_be_fixed: bool = False


def load(
    folder: AppendOnlyFolder,
    store: Store,
    applier: Applier,
    on_progress: Callable[[int, int], None] | None = None,
    on_entries: Callable[[Entries, Origin | None], None] | None = None,
) -> Generator[None, None, Loaded]:
    """Load the set into an empty ``store``; each step takes a millisecond or two, and the last returns what there was.

    ``applier`` is the store's. Nothing enters the journal, whose offset is the caller's to set. ``on_progress`` is
    called with bytes read and bytes in all, ``on_entries`` with all entries of increments and who made them, in order
    and once they are in the store; the lists are the callee's to keep. Raises LoadError, and OSError where the disk
    fails; the store must not be used then. A torn end is cut off durably.
    """
    run = _Load(folder, store, applier, on_progress, on_entries)
    yield from run.all_files()
    return run.result()


class _Load:
    """One load."""

    def __init__(
        self,
        folder: AppendOnlyFolder,
        store: Store,
        applier: Applier,
        on_progress: Callable[[int, int], None] | None,
        on_entries: Callable[[Entries, Origin | None], None] | None,
    ) -> None:
        self._folder = folder
        self._store = store
        self._applier = applier
        self._on_progress = on_progress
        self._on_entries = on_entries
        self._lineage: Lineage | None = None
        self._offset = self._file_offset = 0
        self._cursors: dict[str, tuple[int, int]] = {}
        self._origin: Origin | None = None
        self._local = False
        self._commands = self._in_file = 0
        self._bytes = self._all_bytes = 0
        self._cut: Cut | None = None
        self._unproven: Unproven | None = None

    def all_files(self) -> Generator[None, None, None]:
        """Load them in order."""
        disk, files = self._folder.disk, self._folder.manifest.files
        paths = [_found(disk, self._folder.path_of(file), file) for file in files]
        self._all_bytes = sum(map(disk.size, paths))
        for path, file in zip(paths, files, strict=True):
            yield from self._file(path, file, file is files[-1])

    def result(self) -> Loaded:
        """What has been loaded."""
        files = self._folder.manifest.files
        return Loaded(
            self._lineage,
            self._offset,
            self._cursors,
            len(self._store.keyspace),
            self._bytes,
            self._commands,
            self._cut,
            # A line may have moved the offset: then the next file begins where nothing else says so.
            bool(files) and files[-1].type == "i" and self._in_file == 0 and self._offset == self._file_offset,
            self._local,
            self._unproven,
        )

    def _file(self, path: str, file: ManifestFile, is_last: bool) -> Generator[None, None, None]:
        self._origin = None
        self._in_file = 0
        disk, reader = self._folder.disk, _reader_behind(self._lineage, self._offset)
        # A base, and an increment that another one follows, had to be durable before the manifest could say so.
        sums = Checksums() if is_last and file.type == "i" else None
        is_first = True
        for events, size in _read(disk, path, reader, sums):
            self._bytes += size
            for event in events:
                if isinstance(event, Entries):
                    yield from self._entries(path, event, file.type == "i")
                elif isinstance(event, Position):
                    begins_set = file is self._folder.manifest.files[0]
                    self._position(path, event, begins_file=is_first, begins_set=begins_set, is_base=file.type == "b")
                    is_first = False
                elif isinstance(event, FileHeader):
                    self._header(path, file, event)
                elif isinstance(event, UpstreamCursor):
                    self._cursors[event.upstream] = (event.history, event.offset)
                elif isinstance(event, MadeBy):
                    self._origin = event.origin
                elif isinstance(event, Local):
                    self._local = event.is_local
            if self._on_progress is not None:
                self._on_progress(self._bytes, self._all_bytes)
            yield
        self._cut = yield from _judge(disk, path, file, reader, is_last)
        if sums is not None:
            self._unproven = sums.unproven(disk, path, reader.cut)
        if self._cut is not None:
            disk.truncate(path, self._cut.offset)

    def _header(self, path: str, file: ManifestFile, header: FileHeader) -> None:
        _check_header(path, file, header, begins_set=file is self._folder.manifest.files[0])
        if header.is_placement:
            self._file_offset = self._offset
        else:
            # It begins by saying where everything stands.
            self._local = False
            self._cursors = {}

    def _position(self, path: str, position: Position, *, begins_file: bool, begins_set: bool, is_base: bool) -> None:
        if begins_file:
            _check_start(path, position, self._offset, begins_set=begins_set, is_base=is_base)
        self._lineage = position.lineage
        self._offset = position.offset
        if begins_file:
            self._file_offset = position.offset

    def _entries(self, path: str, entries: Entries, is_increment: bool) -> Generator[None, None, None]:
        store, commands = self._store, entries.commands
        pending = store.journal.pending
        for place in range(0, len(commands), _COMMANDS):
            if place:
                yield
            part = commands[place : place + _COMMANDS] if len(commands) > _COMMANDS else commands
            try:
                self._applier.apply_all(part)
            except ApplyError as error:
                index = place + error.applied
                offset = entries.start if entries.grouped else entries.place_of(index)
                raise LoadError(path, offset, f"cannot be applied at byte {offset}: {error}") from error
            finally:
                pending.clear()
            if store.touched:
                store.settle()
        self._commands += len(commands)
        self._in_file += len(commands)
        self._offset = entries.next
        if not is_increment:
            return
        origin = self._origin
        if origin is not None:
            history, offset = self._cursors.get(origin.upstream, (None, 0))
            if history == origin.history:
                self._cursors[origin.upstream] = (origin.history, offset + len(commands))
        if self._on_entries is not None:
            self._on_entries(entries, origin)


# -- one file ---------------------------------------------------------------------------------------------------------


def _found(disk: Disk, path: str, file: ManifestFile) -> str:
    """The path, if a file of ours is there."""
    if file.is_rdb:
        raise _foreign(path)
    try:
        start = disk.read(path, 0, len(_START))
    except FileNotFoundError:
        raise LoadError(path, None, "is missing, though the manifest names it") from None
    if start and start != _START[: len(start)]:
        raise _foreign(path)
    return path


def _foreign(path: str) -> LoadError:
    return LoadError(path, 0, "was not written by kevynode: bring its data in with `kevynode import`")


def _reader_behind(lineage: Lineage | None, offset: int) -> CheckedReader:
    """What reads the next file of a set: those before end at ``offset``. Without a lineage there are none."""
    return CheckedReader(RecordReader(behind=None if lineage is None else Position(lineage, offset)))


def _is_placement(reader: CheckedReader) -> bool:
    header = reader.reader.header
    return header is not None and header.is_placement


def _check_header(path: str, file: ManifestFile, header: FileHeader, *, begins_set: bool) -> None:
    kind = "base" if file.type == "b" else "incr"
    if header.is_placement and file.type == "i":
        if begins_set:
            raise LoadError(path, 0, "goes on where the file before ends, and there is none")
        kind = PLACEMENT
    if (header.kind, header.sequence) != (kind, file.sequence):
        raise LoadError(
            path, 0, f"says that it is {header.kind} {header.sequence}, the manifest that it is {kind} {file.sequence}"
        )


def _check_start(path: str, position: Position, expected: int, *, begins_set: bool, is_base: bool) -> None:
    """Whether a file begins where the one before ended, and the first one with a base or with nothing before it."""
    if begins_set:
        if not is_base and position.offset:
            raise LoadError(path, 0, f"begins at offset {position.offset}, and no file has what was before")
    elif position.offset != expected:
        raise LoadError(path, 0, f"begins at offset {position.offset}, but the file before it ends at {expected}")


def _read(
    disk: Disk, path: str, reader: CheckedReader, sums: Checksums | None = None
) -> Generator[tuple[list[RecordEvent], int], None, None]:
    """The events of a file, and how many bytes were read for them; ends at the end of the file or at an error.

    ``sums`` hears of what has been read, as far as that is not proven to be on the disk.
    """
    with disk.open_read(path) as file:
        while reader.error is None and (data := file.read(STEP)):
            events = reader.feed(data)
            if sums is not None:
                sums.add(data)
                sums.prove(reader.synced)
            yield events, len(data)
    reader.finish()


def _judge(
    disk: Disk, path: str, file: ManifestFile, reader: CheckedReader, is_last: bool
) -> Generator[None, None, Cut | None]:
    """What has to be cut off a file that has been read, if anything. Raises LoadError if it cannot be used."""
    error = reader.error
    if error is None:
        if file.type == "b" and not reader.reader.ended:
            raise LoadError(path, reader.cut, f"is a base, and not complete: it ends at byte {reader.cut}")
        return None
    if isinstance(error, Newer):
        raise LoadError(path, 0, str(error))
    if file.type == "b" or _is_placement(reader) or not is_last or reader.cut == 0:
        raise LoadError(path, _place(error), str(error))
    torn = isinstance(error, Torn)
    place = reader.cut
    rest = b""
    with disk.open_read(path, place) as source:
        while data := source.read(_SCAN):
            torn = torn or has_gap(data, place + len(rest))
            rest += data
            if is_synced_behind(rest, place, reader.cut):
                raise LoadError(path, _place(error), f"{error}; it had been durable" if torn else str(error))
            keep = rest[-_OVERLAP:]
            place += len(rest) - len(keep)
            rest = keep
            yield
    if not torn and not rest.endswith(b"\0"):
        raise LoadError(path, _place(error), str(error))
    return Cut(path, reader.cut, place + len(rest) - reader.cut, str(error))


def _place(error: Torn | Damaged) -> int:
    return error.cut if isinstance(error, Torn) else error.position


# -- check and repair -------------------------------------------------------------------------------------------------


def check(disk: Disk, data_dir: str) -> list[FileReport]:
    """What the files of the set in a data directory are like, in order. Changes nothing, and takes long.

    Meant for a data directory that no node uses. Raises FolderError for a manifest that cannot be read, and OSError.
    """
    path = posixpath.join(data_dir, FOLDER)
    manifest = read_manifest(disk, path) or Manifest()
    return _reports(disk, path, manifest)


def fix(folder: AppendOnlyFolder) -> Cut | None:
    """Cut everything off the last increment from the first byte on that is not as it was written; None: all is well.

    Takes long. Raises LoadError if something else is wrong, which nothing can be done about here, and OSError.
    """
    for report in _reports(folder.disk, folder.path, folder.manifest):
        if report.error is None:
            continue
        if not report.can_be_fixed:
            raise LoadError(report.path, report.good, report.error)
        folder.disk.truncate(report.path, report.good)
        return Cut(report.path, report.good, report.size - report.good, report.error)
    return None


def _reports(disk: Disk, folder: str, manifest: Manifest) -> list[FileReport]:
    reports = []
    end: int | None = None
    for file in manifest.files:
        report, end = _report(disk, posixpath.join(folder, file.name), file, manifest, end)
        reports.append(report)
    return reports


def _report(
    disk: Disk, path: str, file: ManifestFile, manifest: Manifest, expected: int | None
) -> tuple[FileReport, int | None]:
    """What a file is like, and the offset at its end; ``expected`` is that of the file before, None if unknown."""
    begins_set, is_last = file is manifest.files[0], file is manifest.files[-1]
    commands = 0
    end: int | None = None
    reader = _reader_behind(None if expected is None else _ANY_LINEAGE, expected or 0)
    try:
        _found(disk, path, file)
        for events, _ in _read(disk, path, reader):
            for event in events:
                if isinstance(event, FileHeader):
                    _check_header(path, file, event, begins_set=begins_set)
                elif isinstance(event, Position):
                    if end is None and (begins_set or expected is not None):
                        _check_start(path, event, expected or 0, begins_set=begins_set, is_base=file.type == "b")
                    end = event.offset
                elif isinstance(event, Entries):
                    commands += len(event.commands)
                    end = None if _is_placement(reader) and expected is None else event.next
        cut = exhaust(_judge(disk, path, file, reader, is_last))
    except LoadError as error:
        size = disk.size(path) if disk.exists(path) else 0
        may_be_cut = is_last and file.type == "i" and not _is_placement(reader)
        fixable = may_be_cut and reader.cut > 0 and isinstance(reader.error, Torn | Damaged)
        return FileReport(path, size, reader.cut, commands, error.reason, can_be_fixed=fixable), None
    reason = None if cut is None else cut.reason
    report = FileReport(path, disk.size(path), reader.cut, commands, reason, cut is not None, cut is not None)
    return report, end


def exhaust(steps: Generator[None, None, T]) -> T:
    """Take all steps at once; what they come to. Takes as long as all of them."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result
