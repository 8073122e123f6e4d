"""What a disk promises, on the machine's own and on the double that other tests rely on."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from support.memory_disk import MemoryDisk

from kevynode.disk import Disk, Locked, SystemDisk, write_all


@pytest.fixture(params=["system", "memory"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    if request.param == "system":
        return SystemDisk()
    return MemoryDisk([str(folder) for folder in (tmp_path, *tmp_path.parents)])


def fails(number: int, call: Callable[[], object]) -> None:
    with pytest.raises(OSError) as raised:
        call()
    assert raised.value.errno == number


def test_a_disk_says_whether_its_calls_belong_into_a_thread() -> None:
    for disk, blocks in ((SystemDisk(), True), (MemoryDisk(), False)):
        asked: Disk = disk
        assert asked.blocks is blocks


def test_a_file_grows_at_its_end(disk: Disk, tmp_path: Path) -> None:
    path = str(tmp_path / "a")
    file = disk.open_append(path)
    assert (file.name, file.position) == (path, 0)
    assert file.write(b"one") == 3
    assert file.write(bytearray(b" two")) == 4
    assert file.write(memoryview(b"- three-")[1:-1]) == 6
    assert file.write(b"") == 0
    assert file.position == 13
    file.sync()
    file.close()
    file.close()
    again = disk.open_append(path, create=False)
    assert again.position == 13
    again.write(b"!")
    again.close()
    assert disk.read(path) == b"one two three!"
    assert disk.size(path) == 14


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_writing_all_goes_on_where_a_write_was_short(kind: Callable[[bytes], bytes]) -> None:
    disk = MemoryDisk()
    file = disk.create("/data/a")
    for size in (3, 1, 4):
        disk.shorten_next(size)
    write_all(file, kind(b"all of this"))
    write_all(file, kind(b""))
    assert disk.content("/data/a") == b"all of this"
    disk.fill_up(2)
    fails(errno.ENOSPC, lambda: write_all(file, kind(b"more")))
    assert disk.content("/data/a") == b"all of thismo"


def test_appending_goes_on_behind_a_cut(disk: Disk, tmp_path: Path) -> None:
    path = str(tmp_path / "a")
    file = disk.open_append(path)
    file.write(b"whole torn")
    disk.truncate(path, 6)
    assert disk.read(path) == b"whole "
    file.write(b"again")
    assert disk.read(path) == b"whole again"
    file.close()
    fails(errno.EINVAL, lambda: disk.truncate(path, 12))
    fails(errno.EINVAL, lambda: disk.truncate(path, -1))
    fails(errno.ENOENT, lambda: disk.truncate(path + "b", 0))


def test_creating_empties_what_is_there(disk: Disk, tmp_path: Path) -> None:
    path = str(tmp_path / "a")
    for text in (b"first, longer", b"second"):
        file = disk.create(path)
        assert file.position == 0
        file.write(text)
        file.close()
        assert disk.read(path) == text


def test_a_file_is_written_over_from_a_place_within(disk: Disk, tmp_path: Path) -> None:
    path = str(tmp_path / "a")
    with_text = disk.create(path)
    with_text.write(b"one two three")
    file = disk.open_over(path, 4)
    assert (file.name, file.position) == (path, 4)
    assert file.write(b"TWO") == 3
    assert file.position == 7
    file.sync()
    assert disk.read(path) == b"one TWO three"
    # What was opened before goes on behind the end.
    with_text.write(b" four")
    assert file.write(b" and more than there was") == 24
    assert disk.read(path) == b"one TWO and more than there was"
    file.close()
    with_text.close()
    end = disk.open_over(path, 31)
    end.write(b".")
    end.close()
    assert disk.size(path) == 32
    fails(errno.EBADF, file.sync)
    for offset in (-1, 33):
        fails(errno.EINVAL, partial(disk.open_over, path, offset))
    fails(errno.ENOENT, lambda: disk.open_over(path + "b", 0))


def test_a_file_must_be_there_unless_it_may_be_created(disk: Disk, tmp_path: Path) -> None:
    path = str(tmp_path / "a")
    fails(errno.ENOENT, lambda: disk.open_append(path, create=False))
    fails(errno.ENOENT, lambda: disk.open_append(path + "/b"))
    fails(errno.ENOENT, lambda: disk.open_read(path))
    fails(errno.ENOENT, lambda: disk.read(path))
    fails(errno.ENOENT, lambda: disk.size(path))
    fails(errno.ENOENT, lambda: disk.remove(path))
    fails(errno.ENOENT, lambda: disk.rename(path, path + "b"))
    fails(errno.ENOENT, lambda: disk.list(path))
    fails(errno.ENOENT, lambda: disk.sync_folder(path))
    assert not disk.exists(path)


def test_reading_in_pieces(disk: Disk, tmp_path: Path) -> None:
    path = str(tmp_path / "a")
    file = disk.open_append(path)
    file.write(b"0123456789")
    with disk.open_read(path) as reader:
        assert reader.size == 10
        assert [reader.read(4), reader.read(4), reader.read(4), reader.read(4)] == [b"0123", b"4567", b"89", b""]
        # Who follows a file reads on where it grows.
        file.write(b"abc")
        assert reader.size == 13
        assert reader.read(9) == b"abc"
    reader.close()
    file.close()
    with disk.open_read(path, 8) as reader:
        assert reader.read(99) == b"89abc"
    with disk.open_read(path, 99) as reader:
        assert reader.read(9) == b""
    fails(errno.EINVAL, lambda: disk.open_read(path, -1))


def test_reading_a_stretch(disk: Disk, tmp_path: Path) -> None:
    path = str(tmp_path / "a")
    file = disk.open_append(path)
    file.write(b"0123456789")
    file.close()
    assert disk.read(path, 2, 3) == b"234"
    assert disk.read(path, 8, 9) == b"89"
    assert disk.read(path, 8) == b"89"
    assert disk.read(path, 99) == b""
    assert disk.read(path, 3, 0) == b""


def test_names_in_a_folder(disk: Disk, tmp_path: Path) -> None:
    folder = str(tmp_path / "f")
    disk.make_folder(folder)
    disk.make_folder(folder)
    disk.sync_folder(str(tmp_path))
    for name in ("b", "a", "c"):
        disk.create(f"{folder}/{name}").close()
    disk.make_folder(f"{folder}/d")
    disk.sync_folder(folder)
    assert disk.list(folder) == ["a", "b", "c", "d"]
    disk.remove(f"{folder}/c")
    assert disk.list(folder) == ["a", "b", "d"]
    assert disk.exists(folder)
    assert disk.exists(f"{folder}/a")
    assert not disk.exists(f"{folder}/c")
    assert not disk.exists(f"{folder}/a/b")
    fails(errno.EEXIST, lambda: disk.make_folder(f"{folder}/a"))
    fails(errno.ENOENT, lambda: disk.make_folder(f"{folder}/x/y"))
    fails(errno.ENOTDIR, lambda: disk.list(f"{folder}/a"))
    fails(errno.ENOTDIR, lambda: disk.sync_folder(f"{folder}/a"))
    fails(errno.EISDIR, lambda: disk.create(f"{folder}/d"))


def test_a_rename_takes_the_place_of_what_is_there(disk: Disk, tmp_path: Path) -> None:
    old, new = str(tmp_path / "old"), str(tmp_path / "new")
    for path in (old, new):
        file = disk.create(path)
        file.write(os.path.basename(path).encode())
        file.close()
    reader = disk.open_read(new)
    disk.rename(old, new)
    disk.sync_folder(str(tmp_path))
    assert disk.list(str(tmp_path)) == ["new"]
    assert disk.read(new) == b"old"
    assert reader.read(9) == b"new"
    reader.close()
    disk.rename(new, new)
    assert disk.read(new) == b"old"


def test_a_removed_file_lives_on_for_those_who_have_it_open(disk: Disk, tmp_path: Path) -> None:
    path = str(tmp_path / "a")
    file = disk.create(path)
    file.write(b"x")
    reader = disk.open_read(path)
    disk.remove(path)
    assert file.write(b"y") == 1
    file.sync()
    assert reader.read(9) == b"xy"
    reader.close()
    file.close()
    assert disk.list(str(tmp_path)) == []


def test_a_closed_file_is_closed(disk: Disk, tmp_path: Path) -> None:
    path = str(tmp_path / "a")
    file = disk.create(path)
    file.close()
    reader = disk.open_read(path)
    reader.close()
    fails(errno.EBADF, lambda: file.write(b"x"))
    fails(errno.EBADF, file.sync)
    fails(errno.EBADF, lambda: reader.read(1))


def test_a_lock_is_held_by_one(disk: Disk, tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    lock = disk.lock(path)
    with pytest.raises(Locked, match=r"lock is in use by process [0-9]+") as raised:
        disk.lock(path)
    assert raised.value.path == path
    lock.release()
    lock.release()
    disk.lock(path).release()
    assert disk.exists(path)


# -- the machine's own ------------------------------------------------------------------------------------------------

HOLDER = """
import sys
from kevynode.disk import SystemDisk
lock = SystemDisk().lock(sys.argv[1])
print("locked", flush=True)
sys.stdin.read()
"""


def test_a_lock_names_the_process_that_holds_it_and_goes_with_it(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    disk = SystemDisk()
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(Locked, match=f"{path} is in use by process {holder.pid}") as raised:
            disk.lock(path)
        assert raised.value.pid == holder.pid
        holder.kill()
        holder.wait(10)
    lock = disk.lock(path)
    assert disk.read(path) == b"%d\n" % os.getpid()
    lock.release()


def test_a_lock_file_that_says_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    disk = SystemDisk()
    lock = disk.lock(path)
    Path(path).write_bytes(b"")
    with pytest.raises(Locked, match="in use by another process") as raised:
        disk.lock(path)
    assert raised.value.pid is None
    lock.release()


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_files_are_not_inherited(tmp_path: Path) -> None:
    disk = SystemDisk()
    file, lock = disk.create(str(tmp_path / "a")), disk.lock(str(tmp_path / "lock"))
    reader = disk.open_read(str(tmp_path / "a"))
    open_here = [handle for handle in map(int, os.listdir("/proc/self/fd")) if handle > 2 and _is_in(handle, tmp_path)]
    assert len(open_here) == 3
    assert not any(map(os.get_inheritable, open_here))
    for opened in (file, reader):
        opened.close()
    lock.release()


def _is_in(handle: int, folder: Path) -> bool:
    try:
        return Path(os.readlink(f"/proc/self/fd/{handle}")).parent == folder
    except OSError:
        return False


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_disk_says_so() -> None:
    file = SystemDisk().open_append("/dev/full", create=False)
    fails(errno.ENOSPC, lambda: file.write(b"x"))
    assert file.position == 0
    file.close()
