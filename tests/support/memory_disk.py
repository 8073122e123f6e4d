"""A disk in memory that loses power, fills up and fails, for tests of what must survive.

It keeps two states: what programs see, and what a loss of power would surely leave. :meth:`MemoryDisk.crash` makes the
disk as it would be found then. What had not been synced is there, partly there or not at all, by the seed, as Linux may
have written it back in any order: file contents by pages, names by the change.
"""

from __future__ import annotations

import copy
import errno
import os
import posixpath
from collections.abc import Callable, Iterable
from random import Random
from threading import Lock as Mutex
from types import TracebackType
from typing import NamedTuple
from weakref import WeakKeyDictionary

from support.memory_content import PAGE, Content, rooted, surviving

from kevynode.disk import Locked

__all__ = ["PAGE", "Call", "MemoryDisk"]

#: The process that is said to hold a lock.
PID = 4711


class Call(NamedTuple):
    """One call: the method, the path it was about, and how many bytes it asked for (or to which size it cut)."""

    method: str
    path: str
    size: int = 0


class MemoryDisk:
    """A disk that holds the ``folders``, durably, and nothing else. As :class:`kevynode.disk.Disk` in every other way.

    ``calls`` holds every call in order; ``before`` is called with each before it is carried out, in the thread that
    makes it, and may block or raise. Without one no call takes long.
    """

    blocks = False

    def __init__(self, folders: Iterable[str] = ("/data",), *, seed: int = 0) -> None:
        self.seed = seed
        self.calls: list[Call] = []
        self.before: Callable[[Call], None] | None = None
        self._random = Random(seed)
        self._mutex = Mutex()
        # Each is held by a sync of the file that is under way.
        self._sync_locks: WeakKeyDictionary[Content, Mutex] = WeakKeyDictionary()
        self._files: dict[str, Content] = {}
        self._durable_files: dict[str, Content] = {}
        self._folders = {"/", *map(posixpath.normpath, folders)}
        self._durable_folders = set(self._folders)
        # By folder, in order: what became of its names since it was synced. None: removed; a text: a folder.
        self._changes: dict[str, list[dict[str, Content | str | None]]] = {}
        self._locked: set[str] = set()
        self._failures: dict[str, list[int]] = {}
        self._shortened: list[int] = []
        self._room: int | None = None
        self._is_read_only = False

    # -- what befalls it ----------------------------------------------------------------------------------------------

    def crash(self, seed: int | None = None) -> MemoryDisk:
        """The disk as it may be found after a loss of power now; this one stays as it is.

        The same ``seed`` finds the same. Without one, each crash finds something else, by the disk's own seed.
        """
        seed = self._random.getrandbits(64) if seed is None else seed
        random = Random(seed)
        with self._mutex:
            files = dict(self._durable_files)
            folders = set(self._durable_folders)
            for folder in sorted(self._changes):
                for change in surviving(self._changes[folder], random):
                    for name, now in change.items():
                        if now is None:
                            files.pop(name, None)
                        elif isinstance(now, str):
                            folders.add(name)
                        else:
                            files[name] = now
            found = MemoryDisk(rooted(folders), seed=seed)
            contents: dict[int, Content] = {}
            for name in sorted(files):
                content = files[name]
                if posixpath.dirname(name) in found._folders:
                    if id(content) not in contents:
                        contents[id(content)] = Content(content.found(random))
                    found._files[name] = found._durable_files[name] = contents[id(content)]
        return found

    def kill(self) -> MemoryDisk:
        """The disk as another process finds it when this one was killed: all bytes are there, and no locks.

        What a failed sync has left in the system's memory alone is there, too, and no sync of the other process stores
        it; see :meth:`forget`.
        """
        with self._mutex:
            found = MemoryDisk(seed=self.seed)
            found._files, found._durable_files, found._folders, found._durable_folders, found._changes = copy.deepcopy(
                (self._files, self._durable_files, self._folders, self._durable_folders, self._changes)
            )
            for content in [*found._files.values(), *found._durable_files.values()]:
                content.handles = 0
                content.dirty |= content.syncing
                content.syncing = set()
            found._room, found._is_read_only = self._room, self._is_read_only
        return found

    def fill_up(self, after: int = 0) -> None:
        """Let writes fail with ENOSPC once ``after`` more bytes are there; the last to succeed may be short."""
        self._room = after

    def make_room(self) -> None:
        """No longer be full."""
        self._room = None

    def read_only(self, flag: bool = True) -> None:
        """Refuse all changes with EROFS, those to open files, too; or no longer."""
        self._is_read_only = flag

    def fail_next(self, method: str, error: int = errno.EIO, times: int = 1) -> None:
        """Let the next calls of a method of the disk or of its files raise OSError with the number ``error``.

        They change nothing, but for ``sync``: the bytes it was to make durable never will be, unless more is written to
        the same pages, and the next sync succeeds without them.
        """
        self._failures.setdefault(method, []).extend([error] * times)

    def shorten_next(self, size: int) -> None:
        """Let the next write take no more than ``size`` bytes."""
        self._shortened.append(size)

    def forget(self, random: Random) -> list[str]:
        """Let the system drop some pages from its memory that it takes for stored, though a sync of them failed.

        What had been stored before is found in their places, zeros where that was nothing. The files that have changed.
        """
        with self._mutex:
            return [name for name in sorted(self._files) if self._files[name].forget(random)]

    # -- what tests look at -------------------------------------------------------------------------------------------

    def content(self, path: str) -> bytes:
        """What programs see in a file; no call of the disk."""
        return bytes(self._files[posixpath.normpath(path)].data)

    def durable(self, path: str) -> bytes:
        """What any crash leaves of a file at the least, if its name is left; no call of the disk."""
        return bytes(self._files[posixpath.normpath(path)].durable)

    def open_files(self) -> list[str]:
        """The paths of files that are open, sorted; no call of the disk."""
        return sorted(name for name, content in self._files.items() if content.handles)

    def methods(self, path: str) -> list[str]:
        """The methods that were called about a path, in order."""
        path = posixpath.normpath(path)
        return [call.method for call in self.calls if call.path == path]

    # -- the disk -----------------------------------------------------------------------------------------------------

    def open_append(self, path: str, *, create: bool = True) -> MemoryFile:
        """As SystemDisk."""
        path = self._call("open_append", path, changes=True)
        with self._mutex:
            return MemoryFile(self, path, self._open(path, create))

    def create(self, path: str) -> MemoryFile:
        """As SystemDisk."""
        path = self._call("create", path, changes=True)
        with self._mutex:
            content = self._open(path, True)
            if content.data:
                self._give_back(len(content.data))
                content.empty()
            return MemoryFile(self, path, content)

    def open_over(self, path: str, offset: int) -> MemoryFile:
        """As SystemDisk."""
        path = self._call("open_over", path, changes=True)
        with self._mutex:
            if not 0 <= offset <= len(self._file(path).data):
                raise _error(errno.EINVAL, path)
            return MemoryFile(self, path, self._open(path, False), offset)

    def open_read(self, path: str, offset: int = 0) -> MemoryReadFile:
        """As SystemDisk."""
        path = self._call("open_read", path)
        if offset < 0:
            raise _error(errno.EINVAL, path)
        return MemoryReadFile(self, path, self._file(path), offset)

    def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        """As SystemDisk."""
        path = self._call("read", path, size or 0)
        with self._mutex:
            data = self._file(path).data
            return bytes(data[offset:] if size is None else data[offset : offset + size])

    def exists(self, path: str) -> bool:
        """As SystemDisk."""
        path = self._call("exists", path)
        return path in self._files or path in self._folders

    def size(self, path: str) -> int:
        """As SystemDisk."""
        return len(self._file(self._call("size", path)).data)

    def list(self, folder: str) -> list[str]:
        """As SystemDisk."""
        folder = self._call("list", folder)
        self._check_folder(folder)
        names = [*self._files, *(self._folders - {"/"})]
        return sorted(posixpath.basename(name) for name in names if posixpath.dirname(name) == folder)

    def make_folder(self, path: str) -> None:
        """As SystemDisk."""
        path = self._call("make_folder", path, changes=True)
        with self._mutex:
            if path in self._files:
                raise _error(errno.EEXIST, path)
            self._check_folder(posixpath.dirname(path))
            if path not in self._folders:
                self._folders.add(path)
                self._changed(path, {path: path})

    def remove(self, path: str) -> None:
        """As SystemDisk."""
        path = self._call("remove", path, changes=True)
        with self._mutex:
            content = self._file(path)
            del self._files[path]
            self._changed(path, {path: None})
            self._dropped(content)

    def rename(self, old: str, new: str) -> None:
        """As SystemDisk; between two folders a crash may find the file under both names or under none."""
        old, new = self._call("rename", old, changes=True), posixpath.normpath(new)
        with self._mutex:
            content = self._file(old)
            if new in self._folders:
                raise _error(errno.EISDIR, new)
            self._check_folder(posixpath.dirname(new))
            if old == new:
                return
            replaced = self._files.get(new)
            del self._files[old]
            self._files[new] = content
            if posixpath.dirname(old) == posixpath.dirname(new):
                self._changed(new, {old: None, new: content})
            else:
                self._changed(old, {old: None})
                self._changed(new, {new: content})
            if replaced is not None:
                self._dropped(replaced)

    def sync_folder(self, path: str) -> None:
        """As SystemDisk."""
        path = self._call("sync_folder", path)
        with self._mutex:
            self._check_folder(path)
            for change in self._changes.pop(path, ()):
                for name, now in change.items():
                    if now is None:
                        self._durable_files.pop(name, None)
                    elif isinstance(now, str):
                        self._durable_folders.add(name)
                    else:
                        self._durable_files[name] = now

    def truncate(self, path: str, size: int) -> None:
        """As SystemDisk."""
        path = self._call("truncate", path, size, changes=True)
        with self._mutex:
            content = self._file(path)
            if not 0 <= size <= len(content.data):
                raise _error(errno.EINVAL, path)
            self._give_back(len(content.data) - size)
            content.write_back(set(content.dirty), bytes(content.data))
            del content.data[size:], content.durable[size:]
            content.dirty.clear()
            content.lost = {page for page in content.lost if page * PAGE < size}

    def lock(self, path: str) -> MemoryLock:
        """As SystemDisk."""
        path = self._call("lock", path, changes=True)
        with self._mutex:
            self._open(path, True).handles -= 1
            if path in self._locked:
                raise Locked(path, PID)
            self._locked.add(path)
        return MemoryLock(self._locked, path)

    def free_space(self, path: str) -> int:
        """Bytes that can still be written; a disk that is not about to be full says 2**40."""
        return 2**40 if self._room is None else self._room

    # -- for the files ------------------------------------------------------------------------------------------------

    def _call(self, method: str, path: str, size: int = 0, *, changes: bool = False) -> str:
        """Note a call, and let it fail if it is to; the path in one spelling."""
        path = posixpath.normpath(path)
        call = Call(method, path, size)
        self.calls.append(call)
        if self.before is not None:
            self.before(call)
        failures = self._failures.get(method)
        if failures:
            raise _error(failures.pop(0), path)
        if changes and self._is_read_only:
            raise _error(errno.EROFS, path)
        return path

    def _write(self, path: str, content: Content, data: bytes, offset: int | None) -> int:
        """Write at ``offset``, or at the end."""
        self._call("write", path, len(data), changes=True)
        with self._mutex:
            if self._shortened:
                data = data[: self._shortened.pop(0)]
            offset = len(content.data) if offset is None else offset
            if self._room is not None:
                # What is written over takes no room.
                over = max(len(content.data) - offset, 0)
                if data and not self._room and not over:
                    raise _error(errno.ENOSPC, path)
                data = data[: over + self._room]
                self._room -= max(len(data) - over, 0)
            if data:
                content.write(offset, data)
        return len(data)

    def _sync(self, path: str, content: Content) -> None:
        # A sync waits for one of the same file that is under way, and covers what was written before it began.
        with self._mutex:
            lock = self._sync_locks.setdefault(content, Mutex())
        self._wait_for_sync(lock, path)
        try:
            with self._mutex:
                content.syncing, content.dirty = content.dirty, set()
                seen = bytes(content.data)
            try:
                self._call("sync", path, changes=True)
                with self._mutex:
                    content.write_back(content.syncing, seen)
                    content.syncing = set()
            finally:
                # If it failed the system takes the pages for clean.
                content.lost |= content.syncing - content.dirty
                content.syncing = set()
        finally:
            lock.release()

    def _wait_for_sync(self, lock: Mutex, path: str) -> None:
        """Take the lock of a file's syncs."""
        lock.acquire()

    def _open(self, path: str, create: bool) -> Content:
        content = self._files.get(path)
        if content is None:
            if path in self._folders:
                raise _error(errno.EISDIR, path)
            self._check_folder(posixpath.dirname(path))
            if not create:
                raise _error(errno.ENOENT, path)
            content = self._files[path] = Content()
            self._changed(path, {path: content})
        content.handles += 1
        return content

    def _file(self, path: str) -> Content:
        content = self._files.get(path)
        if content is None:
            raise _error(errno.EISDIR if path in self._folders else errno.ENOENT, path)
        return content

    def _check_folder(self, path: str) -> None:
        if path not in self._folders:
            raise _error(errno.ENOTDIR if path in self._files else errno.ENOENT, path)

    def _changed(self, path: str, change: dict[str, Content | str | None]) -> None:
        self._changes.setdefault(posixpath.dirname(path), []).append(change)

    def _dropped(self, content: Content) -> None:
        """A name or a handle of a file is gone: with the last of them its bytes are free."""
        if content.handles == 0 and content not in self._files.values():
            self._give_back(len(content.data))

    def _give_back(self, size: int) -> None:
        if self._room is not None:
            self._room += size


class MemoryFile:
    """A file that is open for writing."""

    def __init__(self, disk: MemoryDisk, path: str, content: Content, offset: int | None = None) -> None:
        self.name = path
        self.position = len(content.data) if offset is None else offset
        self._is_over = offset is not None
        self._disk = disk
        self._content: Content | None = content

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """As SystemDisk."""
        offset = self.position if self._is_over else None
        written = self._disk._write(self.name, self._opened(), bytes(data), offset)
        self.position += written
        return written

    def sync(self) -> None:
        """As SystemDisk."""
        self._disk._sync(self.name, self._opened())

    def close(self) -> None:
        """As SystemDisk."""
        content, self._content = self._content, None
        if content is not None:
            content.handles -= 1
            self._disk._dropped(content)
            self._disk._call("close", self.name)

    def _opened(self) -> Content:
        if self._content is None:
            raise _error(errno.EBADF, self.name)
        return self._content


class MemoryReadFile:
    """A file that is open for reading."""

    def __init__(self, disk: MemoryDisk, path: str, content: Content, offset: int) -> None:
        content.handles += 1
        self._disk = disk
        self._path = path
        self._content: Content | None = content
        self._offset = offset

    @property
    def size(self) -> int:
        """As SystemDisk."""
        return len(self._opened().data)

    def read(self, size: int) -> bytes:
        """As SystemDisk."""
        content = self._opened()
        self._disk._call("read", self._path, size)
        data = bytes(content.data[self._offset : self._offset + size])
        self._offset += len(data)
        return data

    def close(self) -> None:
        """As SystemDisk."""
        content, self._content = self._content, None
        if content is not None:
            content.handles -= 1
            self._disk._dropped(content)

    def _opened(self) -> Content:
        if self._content is None:
            raise _error(errno.EBADF, self._path)
        return self._content

    def __enter__(self) -> MemoryReadFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class MemoryLock:
    """A lock that is held until it is released or the disk is found anew."""

    def __init__(self, locked: set[str], path: str) -> None:
        self._locked: set[str] | None = locked
        self._path = path

    def release(self) -> None:
        """As SystemDisk."""
        locked, self._locked = self._locked, None
        if locked is not None:
            locked.discard(self._path)


def _error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)
