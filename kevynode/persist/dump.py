"""The dump: all data in one file, ``dump.kevysnap`` in the data directory, written whole and read at the start.

It is a snapshot (``replicate.snapshot_format``) of version 5, or of version 6 where a hash field may have a deadline.
The form has no checksum. So behind its end, where a reader of snapshots looks at nothing, follow annotations of our
own: the position, cursors of upstreams, whether the data are local, and last the size of the snapshot with a checksum
of all bytes before that line, so that damage is found. A file that ends where the snapshot does, as a kevy server
writes it, is accepted: only the form itself tells then whether it is as it was written, and its history has no
ancestors.

:class:`Dump` is driven as :class:`~kevynode.persist.rewriting.Rewrite` is::

    dump = Dump(disk, data_dir, store, lineage, cursors)     # between two commands; freezes the data
    try:
        for job in dump.steps():
            if job is None:
                await checkpoint()
            else:
                await to_thread.run_sync(job.run)
    finally:
        dump.close()
    if dump.failed: ...
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Final
from zlib import crc32

import attrs

from ..disk import Disk, DiskFile, write_all
from ..replicate.lineage import HISTORY_LIMIT, MAX_OFFSET, Lineage
from ..replicate.snapshot import SnapshotDecoder, SnapshotError, encode_snapshot
from ..store.staging import Staging
from ..store.store import Store
from .annotations import (
    Annotation,
    AnnotationError,
    Local,
    Position,
    UpstreamCursor,
    parse_annotation,
)
from .folder import Cursors
from .jobs import Job

__all__ = ["DUMP", "Dump", "DumpError", "LoadedDump", "load_dump", "sweep_dumps"]

#: The name of the file in the data directory.
DUMP: Final = "dump.kevysnap"
#: What is being written, or was when a process ended.
_TEMPORARY: Final = re.compile(r"temp-dump-([1-9][0-9]{0,17})\.kevysnap")

#: Bytes between two syncs, so that the last one has little to do.
_SYNC: Final = 8 * 1024 * 1024
#: Bytes that are read in one step.
_STEP: Final = 16 * 1024
_LAST: Final = re.compile(rb"#kevynode:dump snapshot=([0-9]{1,19}) crc32=([0-9]{1,10})\r\n\Z")
_LAST_LIMIT: Final = 80


class DumpError(Exception):
    """The dump cannot be loaded: ``path`` is the file, ``reason`` why.

    ``offset``: up to this byte nothing was found to be wrong; None where that says nothing.
    """

    def __init__(self, path: str, offset: int | None, reason: str) -> None:
        super().__init__(f"{path} {reason}")
        self.path = path
        self.offset = offset
        self.reason = reason


@attrs.frozen
class LoadedDump:
    """What a dump held: as :class:`~kevynode.persist.loader.Loaded`.

    ``lineage`` is None if its writer named no history: the one that begins then did not begin empty. ``is_checked``:
    a checksum says that all is as it was written.
    """

    lineage: Lineage | None
    offset: int
    cursors: dict[str, tuple[int, int]]
    local: bool
    keys: int
    bytes: int
    is_checked: bool

    @property
    def cursor(self) -> tuple[int, int]:
        """The history and next offset that the data stand for; (0, 0): none."""
        return (0, 0) if self.lineage is None else (self.lineage.history, self.offset)


class Dump:
    """One dump of the data in ``store`` as of now. Made between two commands; touches no disk until :meth:`steps`.

    ``lineage``, at the journal's offset, and ``cursors`` are what the data stand for, as in a writer of the append-only
    file; ``local`` is the journal's ``outside``. The file is written beside the last one and takes its place when it is
    complete and durable. ``failed`` says why it came to nothing; None while it runs, and if it succeeded. ``size`` is
    in bytes so far, ``keys`` those of the data.

    Only where the disk failed once it had given the file its name, the last dump may be gone: a crash finds one of the
    two.
    """

    def __init__(
        self,
        disk: Disk,
        data_dir: str,
        store: Store,
        lineage: Lineage,
        cursors: Cursors | None = None,
        *,
        local: bool = False,
    ) -> None:
        self.failed: str | None = None
        self.done = False
        self.keys = len(store.keyspace)
        self.size = 0
        offset = store.journal.offset
        #: The history and next offset that the data stand for.
        self.cursor = (lineage.history, offset)
        self._disk = disk
        self._data_dir = data_dir
        self._temporary = ""
        self._file: DiskFile | None = None
        self._lines = _lines(lineage, offset, cursors or {}, local)
        self._version = 6 if store.field_deadline_keys else 5
        # Nobody else has what was written beside the stream: a reader that knows no lines is told of no position.
        self._told = (0, 0) if local else self.cursor
        self._shards = store.freeze()
        self._steps: Generator[Job | None, None, None] | None = None

    def steps(self) -> Iterator[Job | None]:
        """None after about a millisecond's work, or a job that must have run before the next step is asked for.

        Never raises OSError.
        """
        if self.failed is None and self._steps is None:
            self._steps = self._run()
        return iter(()) if self._steps is None else self._steps

    def run_all(self) -> bool:
        """Take all steps that are left, with their jobs, at once; whether the dump is done. Takes long."""
        for job in self.steps():
            if job is not None:
                job.run()
        self.close()
        return self.done

    def close(self) -> None:
        """Nobody goes on with it: if it is not done the last dump stays, and what has been written is removed.

        No job may be under way.
        """
        if self._steps is not None:
            self._steps.close()
        if not self.done:
            self._fail("the dump was given up")
        self._shards.clear()

    def _fail(self, reason: str) -> None:
        if self.failed is None:
            self.failed = reason
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError:
                pass
            _remove(self._disk, self._temporary)

    def _run(self) -> Generator[Job | None, None, None]:
        try:
            yield from self._write()
        except OSError as error:
            self._fail(f"writing {posixpath.join(self._data_dir, DUMP)} failed: {error.strerror or error}")
        finally:
            if not self.done:
                self._fail("the dump was given up")

    def _write(self) -> Generator[Job | None, None, None]:
        """All steps. Raises OSError."""
        disk = self._disk
        found = [int(match[1]) for name in disk.list(self._data_dir) if (match := _TEMPORARY.fullmatch(name))]
        self._temporary = posixpath.join(self._data_dir, f"temp-dump-{max(found, default=0) + 1}.kevysnap")
        self._file = file = disk.create(self._temporary)
        checksum = synced = 0
        for piece in encode_snapshot(self._shards, version=self._version, cursor=self._told):
            checksum = crc32(piece, checksum)
            write_all(file, piece)
            self.size += len(piece)
            if self.size - synced < _SYNC:
                yield None
                continue
            synced = self.size
            yield from _done(Job(file.sync))
        lines = self._lines
        last = _last_line(self.size, crc32(lines, checksum))
        write_all(file, lines + last)
        self.size += len(lines) + len(last)
        job = Job(self._finish)
        try:
            yield job
        finally:
            self.done = job.succeeded
        if job.error is not None:
            raise job.error

    def _finish(self) -> None:
        """Give the file its name. Takes long. Raises OSError."""
        disk, file = self._disk, self._file
        assert file is not None
        file.sync()
        file.close()
        disk.rename(self._temporary, posixpath.join(self._data_dir, DUMP))
        disk.sync_folder(self._data_dir)


def _done(job: Job) -> Generator[Job, None, None]:
    """Have a job run. Raises OSError."""
    yield job
    if job.error is not None:
        raise job.error


def _lines(lineage: Lineage, offset: int, cursors: Mapping[str, tuple[int, int]], local: bool) -> bytes:
    """What stands behind the snapshot, but for the digest."""
    lines = [Position(lineage, offset).line()]
    lines += [UpstreamCursor(upstream, *cursor).line() for upstream, cursor in cursors.items()]
    if local:
        lines.append(Local(True).line())
    return b"".join(lines)


def _last_line(snapshot: int, checksum: int) -> bytes:
    return b"#kevynode:dump snapshot=%d crc32=%d\r\n" % (snapshot, checksum)


# -- loading ----------------------------------------------------------------------------------------------------------


def load_dump(
    disk: Disk,
    data_dir: str,
    store: Store,
    now_ms: int,
    on_progress: Callable[[int, int, int], None] | None = None,
) -> Generator[None, None, LoadedDump | None]:
    """Load the dump into an empty ``store``; each step takes a millisecond or two, the last returns what there was.

    None: there is no dump. Keys that have expired are kept: somebody sweeps them. Nothing enters the journal, whose
    offset is the caller's to set. ``now_ms`` is the wall clock in unix ms. ``on_progress`` is called with bytes read,
    bytes in all, and keys so far; the store holds them at the end, all at once. What a dump left behind that did not
    come to an end is removed. Raises DumpError, and OSError where the disk fails; the store is as it was then.
    """
    sweep_dumps(disk, data_dir)
    path = posixpath.join(data_dir, DUMP)
    if not disk.exists(path):
        return None
    staging = Staging(store.epoch)
    run = _Load(disk, path, SnapshotDecoder(staging, now_ms=now_ms), on_progress)
    yield from run.snapshot()
    loaded = run.result()
    store.take_over(staging)
    return loaded


class _Load:
    """One load."""

    def __init__(
        self, disk: Disk, path: str, decoder: SnapshotDecoder, on_progress: Callable[[int, int, int], None] | None
    ) -> None:
        self._disk = disk
        self._path = path
        self._decoder = decoder
        self._on_progress = on_progress
        self._size = disk.size(path)
        # Where the snapshot ends; and where there are lines behind it, the last one, with the checksum of all before.
        self._snapshot = self._size
        self._last = b""
        self._expected = 0
        found = _LAST.search(disk.read(path, max(self._size - _LAST_LIMIT, 0)))
        if found is not None:
            self._snapshot, self._expected, self._last = int(found[1]), int(found[2]), found[0]
            is_spelled_right = self._last == _last_line(self._snapshot, self._expected)
            if not is_spelled_right or self._snapshot > self._size - len(self._last):
                raise DumpError(path, None, "is damaged: its last line does not fit it")
        self._checksum = 0

    def snapshot(self) -> Generator[None, None, None]:
        """Read the snapshot. Raises DumpError."""
        left = self._snapshot
        with self._disk.open_read(self._path) as file:
            while left and (data := file.read(min(_STEP, left))):
                left -= len(data)
                self._checksum = crc32(data, self._checksum)
                self._feed(self._snapshot - left - len(data), data, left == 0)
                if self._on_progress is not None:
                    self._on_progress(self._snapshot - left, self._size, self._decoder.staging.count)
                yield
        try:
            self._decoder.finish()
        except SnapshotError as error:
            raise DumpError(self._path, self._snapshot, f"cannot be read: {error.reason}") from None

    def _feed(self, place: int, data: bytes, is_last: bool) -> None:
        decoder = self._decoder
        try:
            # The very last byte completes it, and none before.
            decoder.feed(data[:-1] if is_last else data)
            if decoder.finished:
                raise DumpError(self._path, place, "is damaged: there is more behind the end of its snapshot")
            if is_last:
                decoder.feed(data[-1:])
        except SnapshotError as error:
            raise DumpError(self._path, place, f"cannot be read: {error.reason}") from None

    def result(self) -> LoadedDump:
        """What the data stand for. Raises DumpError."""
        if not self._last:
            return self._told_by_snapshot()
        lines = self._disk.read(self._path, self._snapshot, self._size - len(self._last) - self._snapshot)
        if crc32(lines, self._checksum) != self._expected:
            raise DumpError(self._path, None, "is damaged: what is in it does not match its checksum")
        try:
            return self._told_by_lines([parse_annotation(line) for line in lines.splitlines(keepends=True)])
        except AnnotationError as error:
            reason = f"has lines behind its snapshot that cannot be read: {error}"
            raise DumpError(self._path, self._snapshot, reason) from None

    def _told_by_snapshot(self) -> LoadedDump:
        lineage, offset = None, 0
        history, told = self._decoder.cursor or (0, 0)
        if 0 < history < HISTORY_LIMIT and told <= MAX_OFFSET:
            lineage, offset = Lineage(history), told
        return LoadedDump(lineage, offset, {}, False, self._decoder.staging.count, self._size, False)

    def _told_by_lines(self, annotations: list[Annotation]) -> LoadedDump:
        """Raises AnnotationError."""
        position: Position | None = None
        cursors: dict[str, tuple[int, int]] = {}
        local = False
        for annotation in annotations:
            match annotation:
                case Position():
                    position = annotation
                case UpstreamCursor(upstream, history, offset):
                    cursors[upstream] = (history, offset)
                case Local(is_local):
                    local = is_local
                case _:
                    raise AnnotationError("an annotation that belongs elsewhere")
        if position is None:
            raise AnnotationError("no position")
        keys = self._decoder.staging.count
        return LoadedDump(position.lineage, position.offset, cursors, local, keys, self._size, True)


def sweep_dumps(disk: Disk, data_dir: str) -> None:
    """Remove what dumps left behind that did not come to an end. Not while one is under way.

    What cannot be removed stays until the next time.
    """
    try:
        names = disk.list(data_dir)
    except OSError:
        return
    for name in names:
        if _TEMPORARY.fullmatch(name):
            _remove(disk, posixpath.join(data_dir, name))


def _remove(disk: Disk, path: str) -> None:
    try:
        disk.remove(path)
    except OSError:
        pass
