"""The append-only folder: which files are in use, and how others take their place so that a crash never finds half.

``appendonlydir`` lies in the data directory. Its manifest names a base and the increments behind it; what it does not
name is not in use. Each change is one swap of the manifest: what it names is made durable first, names and bytes, then
the manifest takes its own name, then the folder is synced. Only then may anything be removed.

Nothing here waits for anybody but the disk. Every method that says so may take long, and may be called in another
thread, as long as no two are at the same time.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from typing import Final
from zlib import crc32

import attrs

from ..disk import Disk, DiskFile, Lock, Locked, write_all
from ..replicate.lineage import Lineage
from .annotations import PLACEMENT, Digest, End, FileHeader, Local, UpstreamCursor
from .manifest import NAME, Manifest, ManifestError, ManifestFile, base_name, increment_name, manifest_name
from .records import file_start

__all__ = ["FOLDER", "AppendOnlyFolder", "Cursors", "FolderError", "LogFile", "lock_data_dir", "read_manifest"]

#: The name of the folder in the data directory.
FOLDER: Final = "appendonlydir"
#: The lock of the data directory.
LOCK: Final = "kevynode.lock"

#: By the address of each upstream whose entries got numbers of this node: its history, and its next offset.
Cursors = Mapping[str, tuple[int, int]]

_TEMPORARY: Final = "temp-"
# Of a placement that is not in use.
_ASIDE: Final = "stage-"
_OURS: Final = re.compile(rf"(?:{_TEMPORARY}|{_ASIDE})?{re.escape(NAME)}\.([1-9][0-9]{{0,17}})\.(?:base|incr)\.aof")


class FolderError(Exception):
    """The folder cannot be used; the text says why, and names it."""


class LogFile:
    """A file of the folder that is being written, piece by piece, each with its digest.

    ``size`` is how much has been written, ``synced`` how much is durable.
    """

    def __init__(self, file: DiskFile, path: str, kind: str, sequence: int) -> None:
        self.path = path
        self.kind = kind
        self.sequence = sequence
        self.synced = 0
        self._file = file
        # Why a sync failed: what it lost is lost, though the system says so only once.
        self._failure: OSError | None = None
        # Of the parts of a record that is not complete.
        self._checksum = 0

    @property
    def size(self) -> int:
        """Bytes in it, as far as they were written whole or in part."""
        return self._file.position

    def write(self, data: bytes) -> None:
        """Append whole records. Raises OSError; then a part of them may be there, and nothing may follow it."""
        digest = Digest(crc32(data, self._checksum), self._file.position + len(data), self.synced)
        self._checksum = 0
        write_all(self._file, data + digest.line())

    def write_part(self, data: bytes) -> None:
        """Append a part of a record, which :meth:`write` completes; as that."""
        self._checksum = crc32(data, self._checksum)
        write_all(self._file, data)

    def end(self, commands: int) -> None:
        """Append the last line: the file is complete, and holds so many commands. Raises OSError."""
        write_all(self._file, End(commands).line())

    def sync(self) -> None:
        """Make durable what has been written. Takes long, and may not be called while another call is under way.

        Raises OSError, and from then on at every call: it must not be written to any more.
        """
        if self._failure is not None:
            raise self._failure
        size = self._file.position
        try:
            self._file.sync()
        except OSError as error:
            self._failure = error
            raise
        self.synced = max(self.synced, size)

    def close(self) -> None:
        """Close it; whatever goes wrong concerns nobody any more."""
        try:
            self._file.close()
        except OSError:
            pass


@attrs.define(eq=False)
class AppendOnlyFolder:
    """The files of one data directory, locked. Make it with :meth:`open`."""

    disk: Disk
    path: str
    manifest: Manifest
    _lock: Lock | None
    # The numbers of files that have been used, by anything that was ever found or made here.
    _used_base: int
    _used_increment: int

    @classmethod
    def open(cls, disk: Disk, data_dir: str, *, is_locked: bool = False) -> AppendOnlyFolder:
        """Lock the data directory, which must exist, and read the manifest; without one a new set begins.

        ``is_locked``: the caller has the lock already, and keeps it (:func:`lock_data_dir`). Takes long. Raises
        FolderError (also where the manifest or the files without one say that something is amiss) and OSError.
        """
        lock = None if is_locked else lock_data_dir(disk, data_dir)
        try:
            path = posixpath.join(data_dir, FOLDER)
            disk.make_folder(path)
            disk.sync_folder(data_dir)
            manifest = read_manifest(disk, path)
            if manifest is None:
                manifest = Manifest()
                _begin(disk, path)
            found = [int(match[1]) for name in disk.list(path) if (match := _OURS.fullmatch(name))]
            used_base = max(manifest.next_base - 1, *found, 0)
            used_increment = max(manifest.next_increment - 1, *found, 0)
            return cls(disk, path, manifest, lock, used_base, used_increment)
        except BaseException:
            if lock is not None:
                lock.release()
            raise

    def close(self) -> None:
        """Give up the lock, if it was taken here."""
        if self._lock is not None:
            self._lock.release()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to load."""
        return not self.manifest.files

    def base_size(self) -> int:
        """Bytes of the base; 0 without one. Raises OSError."""
        base = self.manifest.base
        return 0 if base is None else self.disk.size(self.path_of(base))

    def size(self) -> int:
        """Bytes of all files in use. Raises OSError."""
        return sum(self.disk.size(self.path_of(file)) for file in self.manifest.files)

    def path_of(self, file: ManifestFile) -> str:
        """The path of a file that the manifest names."""
        return posixpath.join(self.path, file.name)

    # -- new files ----------------------------------------------------------------------------------------------------

    def create_increment(
        self, lineage: Lineage, offset: int, cursors: Cursors, more: bytes = b"", *, local: bool = False
    ) -> LogFile:
        """A new increment, with its first lines and ``more`` behind them, that is not in use yet.

        It begins at ``offset`` of the lineage's history, with upstreams where ``cursors`` say, and data that are
        ``local`` or not (``annotations.Local``). Raises OSError, and then leaves nothing behind.
        """
        self._used_increment += 1
        sequence = self._used_increment
        path = posixpath.join(self.path, increment_name(sequence))
        return self._create(path, "incr", sequence, lineage, offset, cursors, local, more)

    def create_placement(self) -> LogFile:
        """A placement: a new increment of entries that are made when it comes into use, and take their offsets then.

        It must be the last one that was begun then (:meth:`may_use`). Raises OSError, and then leaves nothing behind.
        """
        self._used_increment += 1
        sequence = self._used_increment
        path = posixpath.join(self.path, _ASIDE + increment_name(sequence))
        return self._begin(path, PLACEMENT, sequence, FileHeader(PLACEMENT, sequence).line())

    def may_use(self, placement: LogFile) -> bool:
        """Whether no increment was begun behind a placement, which cannot come into use before it then."""
        return placement.sequence == self._used_increment

    def create_base(self, lineage: Lineage, offset: int, cursors: Cursors, *, local: bool = False) -> LogFile:
        """A new base under a temporary name, with its first lines; as :meth:`create_increment`."""
        self._used_base += 1
        sequence = self._used_base
        path = posixpath.join(self.path, _TEMPORARY + base_name(sequence))
        return self._create(path, "base", sequence, lineage, offset, cursors, local)

    def _create(
        self,
        path: str,
        kind: str,
        sequence: int,
        lineage: Lineage,
        offset: int,
        cursors: Cursors,
        local: bool,
        more: bytes = b"",
    ) -> LogFile:
        lines = [file_start(kind, sequence, lineage, offset)]
        lines += [UpstreamCursor(upstream, history, place).line() for upstream, (history, place) in cursors.items()]
        if local:
            lines.append(Local(True).line())
        return self._begin(path, kind, sequence, b"".join(lines) + more)

    def _begin(self, path: str, kind: str, sequence: int, start: bytes) -> LogFile:
        file = LogFile(self.disk.create(path), path, kind, sequence)
        try:
            file.write(start)
        except BaseException:
            self.discard(file)
            raise
        return file

    def discard(self, file: LogFile) -> None:
        """Close a file, and remove it unless it is in use. Whatever goes wrong is left for :meth:`sweep`."""
        file.close()
        named = {self.path_of(known) for known in self.manifest.files}
        if file.path not in named:
            self._remove(file.path)

    # -- what is in use -----------------------------------------------------------------------------------------------

    def use_increment(
        self, increment: LogFile, *, instead_of_last: bool = False, placement: LogFile | None = None
    ) -> None:
        """Put an increment into use behind all others, or in place of the last, which must hold nothing then.

        ``placement``, which is complete and durable, comes into use before it. What is in use already must be durable.
        Takes long. Raises OSError. If the manifest names the increment then (see :meth:`names`), it cannot be told
        which set a crash will find, and nothing may be written to either.
        """
        manifest = self.manifest
        if instead_of_last:
            manifest = attrs.evolve(manifest, increments=manifest.increments[:-1])
        increment.sync()
        if placement is not None:
            final = posixpath.join(self.path, increment_name(placement.sequence))
            self.disk.rename(placement.path, final)
            placement.path = final
            manifest = manifest.with_increment(placement.sequence)
        self._swap(manifest.with_increment(increment.sequence))

    def use_base(self, base: LogFile, commands: int, *, keep_from: int, increment: LogFile | None = None) -> None:
        """Put a base of so many commands into use, in place of all files but the increments from ``keep_from`` on.

        ``increment``, not in use yet, comes into use with it. Takes long. Raises OSError, after which the old set or
        the new one is in use; both are there.
        """
        base.end(commands)
        base.sync()
        base.close()
        manifest = self.manifest.with_base(base.sequence, keep_from=keep_from).without_history()
        if increment is not None:
            increment.sync()
            manifest = manifest.with_increment(increment.sequence)
        final = posixpath.join(self.path, base_name(base.sequence))
        self.disk.rename(base.path, final)
        base.path = final
        self._swap(manifest)
        self.sweep()

    def names(self, file: LogFile) -> bool:
        """Whether the manifest names a file, durably or not."""
        kept = (self.manifest.base,) if file.kind == "base" else self.manifest.increments
        return any(known is not None and known.sequence == file.sequence for known in kept)

    def sweep(self) -> None:
        """Remove what no manifest names any more, but for the placement begun last, which may come into use yet.

        Not while another file is being written that is not in use yet. Takes long. What cannot be removed stays until
        the next time.
        """
        named = {known.name for known in (*self.manifest.files, *self.manifest.history)}
        named.add(_ASIDE + increment_name(self._used_increment))
        try:
            names = self.disk.list(self.path)
        except OSError:
            return
        for name in names:
            if name not in named and _OURS.fullmatch(name):
                self._remove(posixpath.join(self.path, name))

    def _swap(self, manifest: Manifest) -> None:
        disk = self.disk
        temporary = posixpath.join(self.path, _TEMPORARY + manifest_name())
        file = disk.create(temporary)
        try:
            write_all(file, manifest.format())
            file.sync()
        finally:
            file.close()
        # What it names must be there before it can be found itself.
        disk.sync_folder(self.path)
        disk.rename(temporary, posixpath.join(self.path, manifest_name()))
        self.manifest = manifest
        disk.sync_folder(self.path)

    def _remove(self, path: str) -> None:
        try:
            self.disk.remove(path)
        except OSError:
            pass


def lock_data_dir(disk: Disk, data_dir: str) -> Lock:
    """Take the lock of a data directory, which must exist. Raises FolderError, with who has it, and OSError."""
    try:
        return disk.lock(posixpath.join(data_dir, LOCK))
    except Locked as locked:
        holder = "another process" if locked.pid is None else f"process {locked.pid}"
        raise FolderError(f"data_dir {data_dir} is in use by {holder}") from None


def read_manifest(disk: Disk, path: str) -> Manifest | None:
    """The manifest of the folder at ``path``; None if no set has come into use there. Raises FolderError and OSError.

    Takes no lock and changes nothing.
    """
    name = posixpath.join(path, manifest_name())
    if disk.exists(name):
        try:
            manifest = Manifest.parse(disk.read(name))
        except ManifestError as error:
            raise FolderError(f"{name}: {error}") from None
        left_out = manifest.left_out()
        if left_out is not None:
            raise FolderError(f"{name}: {left_out.name} is said to be superseded, and nothing in use comes after it")
        return manifest
    names = disk.list(path) if disk.exists(path) else []
    files = [name for name in names if name.startswith(NAME)]
    if files and _TEMPORARY + manifest_name() not in names:
        raise FolderError(f"{path} has no {manifest_name()}, but {files[0]}: put the manifest back, or move both away")
    return None


def _begin(disk: Disk, path: str) -> None:
    """Leave a sign that no set has come into use yet: files without a manifest are nobody's then."""
    disk.create(posixpath.join(path, _TEMPORARY + manifest_name())).close()
    disk.sync_folder(path)
