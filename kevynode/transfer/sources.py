"""What a path on a disk holds in the way of data, and how all of it is read."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeAlias, cast

import attrs

from ..disk import Disk
from ..persist.folder import FOLDER, LOCK, AppendOnlyFolder, FolderError, lock_data_dir, read_manifest
from ..persist.loader import LoadError, exhaust, load
from ..persist.manifest import Manifest, ManifestError, ManifestFile, manifest_name
from ..store.apply import Applier
from ..store.sharded import RandomSource
from ..store.staging import Staging
from ..store.store import Store
from .importing import OWN_FILE, Import, ImportFailure, ImportReport
from .staged import Swept, staged, sweep

__all__ = ["READ_ERRORS", "Progress", "Source", "SourceError", "find_source", "read_source"]

#: Called with bytes that have been read and bytes in all.
Progress: TypeAlias = Callable[[int, int], None]

_MANIFEST_END: Final = ".manifest"
_TEMPORARY: Final = "temp-"
#: Files that hold a whole data set, by the names that servers give them in their folders.
_DUMPS: Final = ("dump.kevysnap", "dump.rdb")
_READ: Final = 64 * 1024


class SourceError(Exception):
    """There is no data to be found at a path; the text says why, and names it."""


#: What reading may end with, beside OSError.
READ_ERRORS: Final = (SourceError, ImportFailure, LoadError)


@attrs.frozen
class Source:
    """The files to read, in order, and what lies beside them and is not read.

    ``data_dir``: the data directory of a kevynode that the files are the append-only set of; None: they are something
    else.
    """

    paths: tuple[str, ...]
    data_dir: str | None = None
    manifest: Manifest | None = None
    beside: tuple[str, ...] = ()


def find_source(disk: Disk, path: str) -> Source:
    """What to read at ``path``: a file, an append-only folder, or the folder around one. Raises SourceError, OSError.

    In a folder with both an append-only set and a dump the set is it, as it is for the servers themselves.
    """
    try:
        names = disk.list(path)
    except NotADirectoryError:
        return Source((path,))
    if _manifests(names) or posixpath.basename(path) == FOLDER:
        return _append_only(disk, path, ())
    dumps = tuple(posixpath.join(path, name) for name in _DUMPS if name in names)
    if FOLDER in names:
        source = _append_only(disk, posixpath.join(path, FOLDER), dumps)
        if source.paths or not dumps:
            return source
    if len(dumps) > 1:
        raise SourceError(f"{path} has {' and '.join(_DUMPS)}: name one of them")
    if not dumps:
        raise SourceError(f"{path} has no {FOLDER}, {' or '.join(_DUMPS)}")
    return Source(dumps)


def _manifests(names: list[str]) -> list[str]:
    return [name for name in names if name.endswith(_MANIFEST_END) and not name.startswith(_TEMPORARY)]


def _append_only(disk: Disk, folder: str, beside: tuple[str, ...]) -> Source:
    """The set of an append-only folder, whoever wrote it."""
    manifests = _manifests(disk.list(folder))
    if len(manifests) > 1:
        raise SourceError(f"{folder} has several manifests: {', '.join(manifests)}")
    try:
        if not manifests or manifests[0] == manifest_name():
            manifest = read_manifest(disk, folder) or Manifest()
        else:
            manifest = Manifest.parse(disk.read(posixpath.join(folder, manifests[0])))
    except ManifestError as error:
        raise SourceError(f"{posixpath.join(folder, manifests[0])}: {error}") from None
    except FolderError as error:
        raise SourceError(str(error)) from None
    paths = tuple(posixpath.join(folder, file.name) for file in manifest.files)
    is_own = any(_is_own(disk, path, file) for path, file in zip(paths, manifest.files, strict=True))
    return Source(paths, posixpath.dirname(folder) or "." if is_own else None, manifest, beside)


def _is_own(disk: Disk, path: str, file: ManifestFile) -> bool:
    if file.is_rdb:
        return False
    try:
        return disk.read(path, 0, len(OWN_FILE)) == OWN_FILE
    except FileNotFoundError:
        raise SourceError(f"{path} is missing, though the manifest names it") from None


def read_source(
    disk: Disk,
    path: str,
    random: RandomSource,
    *,
    database: int | None = None,
    prefix: bytes = b"",
    now_ms: int = 0,
    on_progress: Progress | None = None,
) -> tuple[Staging, ImportReport, Source]:
    """The data at ``path``; arguments as for :class:`Import`. Changes nothing on the disk, and takes long.

    While the append-only set of a kevynode is read its data directory is locked. Raises those of
    READ_ERRORS (SourceError also where a node uses the files) and OSError.
    """
    source = find_source(disk, path)
    if not source.paths:
        raise SourceError(f"{path} is empty: no server has written anything there")
    if source.data_dir is None:
        importing = Import(random, database=database, prefix=prefix, now_ms=now_ms)
        whole = sum(map(disk.size, source.paths))
        for name in source.paths:
            for _ in importing.read(name, _pieces(disk, name), last=name == source.paths[-1]):
                if on_progress is not None:
                    on_progress(importing.report.bytes, whole)
        for _ in importing.finish():
            pass
        return importing.staging, importing.report, source
    if database:
        raise ImportFailure(source.paths[0], 0, "a kevynode wrote it, which has no database but 0")
    with _locked(disk, source.data_dir):
        # Only now nobody changes it.
        source = find_source(disk, path)
        return *_read_set(disk, source, random, prefix, now_ms, on_progress), source


def _pieces(disk: Disk, path: str) -> Iterator[bytes]:
    with disk.open_read(path) as file:
        while piece := file.read(_READ):
            yield piece


def _read_set(
    disk: Disk, source: Source, random: RandomSource, prefix: bytes, now_ms: int, on_progress: Progress | None
) -> tuple[Staging, ImportReport]:
    """Read the append-only set of a kevynode as a node does that starts, but leave its files as they are."""
    assert source.manifest is not None
    path = posixpath.dirname(source.paths[0])
    folder = AppendOnlyFolder(cast(Disk, _Uncut(disk)), path, source.manifest, None, 0, 0)
    store = Store(random)
    loaded = exhaust(load(folder, store, Applier(store), on_progress))
    torn = None if loaded.cut is None else (loaded.cut.offset, loaded.cut.bytes)
    swept = Swept()
    staging = staged(store)
    for _ in sweep(staging, swept, prefix=prefix, now_ms=now_ms):
        pass
    report = ImportReport(
        database=0,
        commands=loaded.commands,
        bytes=loaded.bytes,
        keys=staging.count,
        expired=swept.expired,
        expired_fields=swept.expired_fields,
        other_prefixes=swept.other_prefixes,
        torn=torn,
    )
    return staging, report


class _Uncut:
    """A disk on which no file is cut."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._disk, name)

    def truncate(self, path: str, size: int) -> None:
        """Leave the file as it is."""


@contextmanager
def _locked(disk: Disk, data_dir: str) -> Iterator[None]:
    """Hold the lock of a data directory that has one. A copy of the files alone has none, and nobody else uses it."""
    if not disk.exists(posixpath.join(data_dir, LOCK)):
        yield
        return
    try:
        lock = lock_data_dir(disk, data_dir)
    except FolderError as error:
        raise SourceError(str(error)) from None
    try:
        yield
    finally:
        lock.release()
