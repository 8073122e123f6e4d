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

from kevynode.disk import Locked

#: Bytes that are written back together.
PAGE = 4096
#: The process that is said to hold a lock.
PID = 4711


class Call(NamedTuple):
    """One call: the method, the path it was about, and how many bytes it asked for (or to which size it cut)."""

    method: str
    path: str
    size: int = 0


class _Content:
    """What a file holds, whatever it is called: ``data`` as programs see it, ``durable`` as a crash leaves it."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = bytearray(data)
        self.durable = bytearray(data)
        # Pages that differ from the durable ones, or may: not written back yet, and just being written back.
        self.dirty: set[int] = set()
        self.syncing: set[int] = set()
        # Whether it was emptied since the last sync.
        self.emptied = False
        self.handles = 0

    def append(self, data: bytes) -> None:
        first = len(self.data) // PAGE
        self.data += data
        self.dirty.update(range(first, (len(self.data) - 1) // PAGE + 1))

    def empty(self) -> None:
        self.data.clear()
        self.dirty.clear()
        self.emptied = True

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
        self._syncing = Mutex()
        self._files: dict[str, _Content] = {}
        self._durable_files: dict[str, _Content] = {}
        self._folders = {"/", *map(posixpath.normpath, folders)}
        self._durable_folders = set(self._folders)
        # By folder, in order: what became of its names since it was synced. None: removed; a text: a folder.
        self._changes: dict[str, list[dict[str, _Content | str | None]]] = {}
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
                for change in _surviving(self._changes[folder], random):
                    for name, now in change.items():
                        if now is None:
                            files.pop(name, None)
                        elif isinstance(now, str):
                            folders.add(name)
                        else:
                            files[name] = now
            found = MemoryDisk(_rooted(folders), seed=seed)
            contents: dict[int, _Content] = {}
            for name in sorted(files):
                content = files[name]
                if posixpath.dirname(name) in found._folders:
                    if id(content) not in contents:
                        contents[id(content)] = _Content(content.found(random))
                    found._files[name] = found._durable_files[name] = contents[id(content)]
        return found

    def kill(self) -> MemoryDisk:
        """The disk as another process finds it when this one was killed: all bytes are there, and no locks."""
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
        """As SystemDisk; a disk that is not about to be full says 2**40."""
        self._call("free_space", path)
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

    def _write(self, path: str, content: _Content, data: bytes) -> int:
        self._call("write", path, len(data), changes=True)
        with self._mutex:
            if self._shortened:
                data = data[: self._shortened.pop(0)]
            if self._room is not None:
                if data and not self._room:
                    raise _error(errno.ENOSPC, path)
                data = data[: self._room]
                self._room -= len(data)
            if data:
                content.append(data)
        return len(data)

    def _sync(self, path: str, content: _Content) -> None:
        # A sync waits for one that is under way, and covers what was written before it began.
        with self._syncing:
            with self._mutex:
                content.syncing, content.dirty = content.dirty, set()
                seen = bytes(content.data)
            try:
                self._call("sync", path, changes=True)
                with self._mutex:
                    content.write_back(content.syncing, seen)
            finally:
                # Also if it failed: the system takes the pages for clean.
                content.syncing = set()

    def _open(self, path: str, create: bool) -> _Content:
        content = self._files.get(path)
        if content is None:
            if path in self._folders:
                raise _error(errno.EISDIR, path)
            self._check_folder(posixpath.dirname(path))
            if not create:
                raise _error(errno.ENOENT, path)
            content = self._files[path] = _Content()
            self._changed(path, {path: content})
        content.handles += 1
        return content

    def _file(self, path: str) -> _Content:
        content = self._files.get(path)
        if content is None:
            raise _error(errno.EISDIR if path in self._folders else errno.ENOENT, path)
        return content

    def _check_folder(self, path: str) -> None:
        if path not in self._folders:
            raise _error(errno.ENOTDIR if path in self._files else errno.ENOENT, path)

    def _changed(self, path: str, change: dict[str, _Content | str | None]) -> None:
        self._changes.setdefault(posixpath.dirname(path), []).append(change)

    def _dropped(self, content: _Content) -> None:
        """A name or a handle of a file is gone: with the last of them its bytes are free."""
        if content.handles == 0 and content not in self._files.values():
            self._give_back(len(content.data))

    def _give_back(self, size: int) -> None:
        if self._room is not None:
            self._room += size


class MemoryFile:
    """A file that is open for writing."""

    def __init__(self, disk: MemoryDisk, path: str, content: _Content) -> None:
        self.name = path
        self.position = len(content.data)
        self._disk = disk
        self._content: _Content | None = content

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """As SystemDisk."""
        written = self._disk._write(self.name, self._opened(), bytes(data))
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

    def _opened(self) -> _Content:
        if self._content is None:
            raise _error(errno.EBADF, self.name)
        return self._content


class MemoryReadFile:
    """A file that is open for reading."""

    def __init__(self, disk: MemoryDisk, path: str, content: _Content, offset: int) -> None:
        content.handles += 1
        self._disk = disk
        self._path = path
        self._content: _Content | None = content
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

    def _opened(self) -> _Content:
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


def _surviving(
    changes: list[dict[str, _Content | str | None]], random: Random
) -> list[dict[str, _Content | str | None]]:
    """Those of a folder's changes that a crash may leave: none, all, the first ones, or any."""
    number = random.choice((0, len(changes), random.randrange(len(changes) + 1), -1))
    return changes[:number] if number >= 0 else [change for change in changes if random.random() < 0.5]


def _rooted(folders: set[str]) -> list[str]:
    """The folders that can be reached from the root."""
    kept = {"/"}
    for folder in sorted(folders):
        if posixpath.dirname(folder) in kept:
            kept.add(folder)
    return sorted(kept)
