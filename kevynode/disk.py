"""The disk as persistence needs it: files that grow at their end, and the few calls that make changes durable.

Nothing here knows what is stored. :class:`SystemDisk` is the machine's disk; tests bring doubles that crash, fill up
and fail. Every call blocks until the system has answered, so whoever must not wait calls from a thread.

What survives a loss of power: the bytes that a file had when :meth:`DiskFile.sync` was called and succeeded, and the
names that a folder had when :meth:`Disk.sync_folder` was. Anything later may survive, too, wholly, partly or in another
order. When a sync has failed nothing is known about the bytes since the last one that succeeded, whatever later calls
answer, in this process or in another: the system may show them and take them for stored, and it may have dropped them.
Only bytes that are written again are stored by a later sync.
"""

from __future__ import annotations

import errno
import fcntl
import os
from types import TracebackType
from typing import Final, Protocol

__all__ = ["Disk", "DiskFile", "Lock", "Locked", "ReadFile", "SystemDisk", "write_all"]

_FILE_MODE: Final = 0o644
_FOLDER_MODE: Final = 0o755
#: A lock file holds the number of a process; anything longer is not ours.
_PID_LIMIT: Final = 32


class Locked(Exception):
    """``path`` is locked already. ``pid`` is the process that holds it; None if the lock file does not say."""

    def __init__(self, path: str, pid: int | None) -> None:
        super().__init__(f"{path} is in use by {'another process' if pid is None else f'process {pid}'}")
        self.path = path
        self.pid = pid


class DiskFile(Protocol):
    """A file that is written at its end, or, by :meth:`Disk.open_over`, from a place within."""

    @property
    def name(self) -> str:
        """The path it was opened by."""
        ...

    @property
    def position(self) -> int:
        """Where the next byte goes: at the end, the size of the file as far as it was written through here."""
        ...

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Write ``data`` there and return how many bytes of it were taken, at least one unless it is empty.

        Fewer than all are taken when the disk fills up, for example; the next call then says why. Raises OSError when
        none could be.
        """
        ...

    def sync(self) -> None:
        """Make everything written so far durable. Raises OSError; then see the module: nothing is known any more."""
        ...

    def close(self) -> None:
        """Close it without making anything durable, while no other thread syncs it; a second call does nothing.

        Raises OSError; closed it is in any case.
        """
        ...


class ReadFile(Protocol):
    """A file that is read from front to back. A context manager: closed at exit."""

    @property
    def size(self) -> int:
        """Bytes in the file now."""
        ...

    def read(self, size: int) -> bytes:
        """The next bytes, at most ``size``; empty at the end, where more may appear later. Raises OSError."""
        ...

    def close(self) -> None:
        """Close it; a second call does nothing."""
        ...

    def __enter__(self) -> ReadFile: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Lock(Protocol):
    """A lock that is held until it is released or the process ends, however it ends."""

    def release(self) -> None:
        """Give it up; a second call does nothing."""
        ...


class Disk(Protocol):
    """What persistence asks of a disk. Paths are text as :mod:`os` takes it; every method may raise OSError."""

    @property
    def blocks(self) -> bool:
        """Whether a call may take so long that it belongs into a thread, where others wait for this one."""
        ...

    def open_append(self, path: str, *, create: bool = True) -> DiskFile:
        """Open a file to write at its end; without ``create`` it must exist."""
        ...

    def create(self, path: str) -> DiskFile:
        """Open a new file, or empty the one that has this name."""
        ...

    def open_over(self, path: str, offset: int) -> DiskFile:
        """Open a file that exists to write over what it has from byte ``offset`` on, at most its size.

        ``position`` begins there. What is written over, with the same bytes or with others, is new to the system: the
        next sync stores it, or fails.
        """
        ...

    def open_read(self, path: str, offset: int = 0) -> ReadFile:
        """Open a file to read from byte ``offset`` on, which may lie behind its end."""
        ...

    def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        """At most ``size`` bytes of a file from ``offset`` on; None: all. Fewer only where the file ends."""
        ...

    def exists(self, path: str) -> bool:
        """Whether a file or folder has this name."""
        ...

    def size(self, path: str) -> int:
        """Bytes in a file."""
        ...

    def list(self, folder: str) -> list[str]:
        """The names in a folder, sorted."""
        ...

    def make_folder(self, path: str) -> None:
        """Create a folder in one that exists, unless it is there; durable with the sync of the folder around it."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file; durable with the sync of its folder."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Give a file another name in one step, in place of what had it; durable with the sync of both folders."""
        ...

    def sync_folder(self, path: str) -> None:
        """Make the names in a folder durable: those that were created, renamed and removed."""
        ...

    def truncate(self, path: str, size: int) -> None:
        """Cut a file to ``size`` bytes, not above what it has; it is durable when this returns."""
        ...

    def lock(self, path: str) -> Lock:
        """Take the lock of this name, a small file that stays. Raises :class:`Locked` if somebody has it."""
        ...


class SystemDisk:
    """The machine's disk."""

    blocks: Final = True

    def open_append(self, path: str, *, create: bool = True) -> DiskFile:
        """Open a file to write at its end; without ``create`` it must exist."""
        return _SystemFile(path, os.O_APPEND | (os.O_CREAT if create else 0))

    def create(self, path: str) -> DiskFile:
        """Open a new file, or empty the one that has this name."""
        return _SystemFile(path, os.O_APPEND | os.O_CREAT | os.O_TRUNC)

    def open_over(self, path: str, offset: int) -> DiskFile:
        """Open a file to write over it from byte ``offset`` on. Raises OSError (EINVAL) if it has fewer."""
        file = _SystemFile(path, 0)
        try:
            file.seek(offset)
        except OSError:
            file.close()
            raise
        return file

    def open_read(self, path: str, offset: int = 0) -> ReadFile:
        """Open a file to read from byte ``offset`` on."""
        return _SystemReadFile(path, offset)

    def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        """At most ``size`` bytes of a file from ``offset`` on; None: all."""
        with _SystemReadFile(path, offset) as file:
            left = max(file.size - offset, 0) if size is None else size
            parts = []
            while left > 0 and (data := file.read(left)):
                parts.append(data)
                left -= len(data)
        return b"".join(parts)

    def exists(self, path: str) -> bool:
        """Whether a file or folder has this name."""
        try:
            os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def size(self, path: str) -> int:
        """Bytes in a file."""
        return os.stat(path).st_size

    def list(self, folder: str) -> list[str]:
        """The names in a folder, sorted."""
        return sorted(os.listdir(folder))

    def make_folder(self, path: str) -> None:
        """Create a folder in one that exists, unless it is there."""
        try:
            os.mkdir(path, _FOLDER_MODE)
        except FileExistsError:
            if not os.path.isdir(path):
                raise

    def remove(self, path: str) -> None:
        """Remove a file."""
        os.unlink(path)

    def rename(self, old: str, new: str) -> None:
        """Give a file another name in one step, in place of what had it."""
        os.replace(old, new)

    def sync_folder(self, path: str) -> None:
        """Make the names in a folder durable."""
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def truncate(self, path: str, size: int) -> None:
        """Cut a file to ``size`` bytes, durably. Raises OSError (EINVAL) if it has fewer."""
        handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            if not 0 <= size <= os.fstat(handle).st_size:
                raise OSError(errno.EINVAL, f"cannot be cut to {size} bytes", path)
            os.ftruncate(handle, size)
            _sync(handle)
        finally:
            os.close(handle)

    def lock(self, path: str) -> Lock:
        """Take the lock of this name; the file holds the number of the process that has it."""
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                text = os.pread(handle, _PID_LIMIT, 0).strip()
                raise Locked(path, int(text) if text.isdigit() else None) from None
            os.ftruncate(handle, 0)
            os.pwrite(handle, b"%d\n" % os.getpid(), 0)
        except BaseException:
            os.close(handle)
            raise
        return _SystemLock(handle)


def write_all(file: DiskFile, data: bytes | bytearray | memoryview) -> None:
    """Append all of ``data``. Raises OSError; then a part of it may be there."""
    written = file.write(data)
    if written < len(data):
        view = memoryview(data)[written:]
        while view:
            view = view[file.write(view) :]


def _sync(handle: int) -> None:
    """Make the bytes of an open file durable, and its size."""
    if hasattr(fcntl, "F_FULLFSYNC"):
        # Where it exists fsync alone leaves bytes in the drive's own memory.
        fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(handle)


class _SystemFile:
    __slots__ = ("_handle", "name", "position")

    def __init__(self, path: str, flags: int) -> None:
        self.name = path
        self._handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC | flags, _FILE_MODE)
        self.position = os.fstat(self._handle).st_size

    def seek(self, offset: int) -> None:
        if not 0 <= offset <= self.position:
            raise OSError(errno.EINVAL, f"cannot be written over from byte {offset} on", self.name)
        self.position = os.lseek(self._handle, offset, os.SEEK_SET)

    def write(self, data: bytes | bytearray | memoryview) -> int:
        written = os.write(self._handle, data)
        self.position += written
        return written

    def sync(self) -> None:
        if self._handle < 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), self.name)
        _sync(self._handle)

    def close(self) -> None:
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)


class _SystemReadFile:
    __slots__ = ("_handle",)

    def __init__(self, path: str, offset: int) -> None:
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.lseek(self._handle, offset, os.SEEK_SET)
        except OSError:
            self.close()
            raise

    @property
    def size(self) -> int:
        return os.fstat(self._handle).st_size

    def read(self, size: int) -> bytes:
        return os.read(self._handle, size)

    def close(self) -> None:
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    def __enter__(self) -> _SystemReadFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _SystemLock:
    __slots__ = ("_handle",)

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def release(self) -> None:
        handle, self._handle = self._handle, -1
        if handle >= 0:
            # The file stays, empty: whoever removed it could remove one that another process has just locked.
            try:
                os.ftruncate(handle, 0)
            finally:
                os.close(handle)
