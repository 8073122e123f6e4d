"""The disk in memory loses what Linux may lose, keeps what Linux keeps, and finds the same again by the same seed."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.memory_disk import PAGE, Call, MemoryDisk

from kevynode.disk import Disk, Locked

SEEDS = range(200)


def written(disk: MemoryDisk, path: str, data: bytes, *, sync: bool = True) -> None:
    file = disk.open_append(path)
    assert file.write(data) == len(data)
    if sync:
        file.sync()
    file.close()


def with_file(data: bytes = b"", path: str = "/data/a") -> MemoryDisk:
    """A disk with one file, durable in every way."""
    disk = MemoryDisk()
    written(disk, path, data)
    disk.sync_folder("/data")
    return disk


def found(disk: MemoryDisk, path: str = "/data/a") -> set[bytes | None]:
    """Everything that crashes leave of a file."""
    return {crashed.content(path) if crashed.exists(path) else None for crashed in map(disk.crash, SEEDS)}


def test_it_is_a_disk() -> None:
    disk: Disk = MemoryDisk()
    assert disk.list("/data") == []


# -- contents ---------------------------------------------------------------------------------------------------------


def test_what_was_synced_is_there_after_every_crash() -> None:
    data = bytes(range(256)) * 64
    assert found(with_file(data)) == {data}


def test_what_was_not_synced_is_lost_kept_or_torn() -> None:
    disk = with_file(b"synced")
    written(disk, "/data/a", b"then more", sync=False)
    left = found(disk)
    assert {b"synced", b"syncedthen more", b"syncedthen"} <= left
    assert all(data is not None and data.startswith(b"synced") and len(data) <= 15 for data in left)
    # Where bytes are missing that the size counts there are zeros.
    assert b"synced" + bytes(9) in left
    assert {data.rstrip(b"\0") for data in left if data} <= {b"syncedthen more"[:size] for size in range(6, 16)}


def test_pages_are_written_back_in_any_order() -> None:
    disk = with_file()
    pages = [bytes([number]) * PAGE for number in (1, 2, 3)]
    written(disk, "/data/a", b"".join(pages), sync=False)
    left = found(disk)
    assert bytes(PAGE) + pages[1] in left
    assert bytes(2 * PAGE) + pages[2] in left
    assert pages[0] + bytes(PAGE) + pages[2] in left


def test_a_sync_covers_everything_before_it_and_nothing_after() -> None:
    disk = with_file()
    file = disk.open_append("/data/a")
    file.write(b"a" * PAGE)
    file.sync()
    file.write(b"b" * PAGE)
    assert disk.durable("/data/a") == b"a" * PAGE
    assert all(data is not None and data.startswith(b"a" * PAGE) for data in found(disk))


def test_what_is_written_during_a_sync_is_not_covered_by_it() -> None:
    disk = with_file()
    file = disk.open_append("/data/a")
    file.write(b"before")
    entered, go_on = threading.Event(), threading.Event()

    def hold(call: Call) -> None:
        if call.method == "sync":
            entered.set()
            go_on.wait(10)

    disk.before = hold
    thread = threading.Thread(target=file.sync)
    thread.start()
    assert entered.wait(10)
    file.write(b" during")
    assert None not in found(disk)
    assert b"" in found(disk)
    go_on.set()
    thread.join()
    assert disk.durable("/data/a") == b"before"
    assert b"before during" in found(disk)


def test_a_failed_sync_drops_the_bytes_and_the_next_one_succeeds_without_them() -> None:
    disk = with_file(b"a" * PAGE)
    file = disk.open_append("/data/a")
    file.write(b"b" * PAGE)
    disk.fail_next("sync")
    with pytest.raises(OSError, match=r"Input/output error") as raised:
        file.sync()
    assert raised.value.errno == errno.EIO
    file.sync()
    file.write(b"c" * PAGE)
    file.sync()
    assert disk.content("/data/a") == b"a" * PAGE + b"b" * PAGE + b"c" * PAGE
    assert found(disk) == {b"a" * PAGE + bytes(PAGE) + b"c" * PAGE}


def test_writing_to_a_dropped_page_brings_it_back() -> None:
    disk = with_file()
    file = disk.open_append("/data/a")
    file.write(b"dropped ")
    disk.fail_next("sync")
    with pytest.raises(OSError):
        file.sync()
    file.write(b"and back")
    file.sync()
    assert found(disk) == {b"dropped and back"}


def lost(pages: bytes, stored: bytes = b"") -> MemoryDisk:
    """As another process finds a file to which these pages were written, with a sync that failed."""
    disk = with_file(stored)
    file = disk.open_append("/data/a")
    file.write(pages)
    disk.fail_next("sync")
    with pytest.raises(OSError):
        file.sync()
    return disk.kill()


def test_another_process_reads_what_a_failed_sync_has_lost_and_cannot_make_it_durable() -> None:
    disk = lost(b"b" * PAGE, b"a" * PAGE)
    written(disk, "/data/a", b"", sync=True)
    assert disk.content("/data/a") == b"a" * PAGE + b"b" * PAGE
    assert b"b" not in disk.durable("/data/a")
    assert all(b"b" not in (data or b"") for data in found(disk))


def test_writing_it_over_with_itself_makes_it_durable() -> None:
    disk = lost(b"b" * PAGE + b"c", b"a" * PAGE)
    file = disk.open_over("/data/a", PAGE)
    file.write(b"b" * PAGE)
    file.write(b"c")
    file.sync()
    assert found(disk) == {b"a" * PAGE + b"b" * PAGE + b"c"}
    assert disk.forget(Random(1)) == []


def test_what_is_lost_may_be_forgotten_and_nothing_else() -> None:
    left = set()
    for seed in SEEDS:
        disk = lost(b"b" * PAGE + b"c" * 100, b"a" * (PAGE + 10))
        written(disk, "/data/b", b"not synced", sync=False)
        changed = disk.forget(Random(seed))
        data = disk.content("/data/a")
        assert changed == (["/data/a"] if data != b"a" * (PAGE + 10) + b"b" * PAGE + b"c" * 100 else [])
        assert data[: PAGE + 10] == b"a" * (PAGE + 10)
        assert disk.content("/data/b") == b"not synced"
        left.add(data[PAGE + 10 :])
    assert left == {
        page + tail
        for page, tail in (
            (b"b" * (PAGE - 10), b"b" * 10 + b"c" * 100),
            (bytes(PAGE - 10), b"b" * 10 + b"c" * 100),
            (b"b" * (PAGE - 10), bytes(110)),
            (bytes(PAGE - 10), bytes(110)),
        )
    }


def test_a_page_that_is_written_to_again_is_not_forgotten() -> None:
    for seed in SEEDS:
        disk = lost(b"b" * 10)
        written(disk, "/data/a", b"c", sync=False)
        assert disk.forget(Random(seed)) == []
        assert disk.content("/data/a") == b"b" * 10 + b"c"


def test_writing_over_takes_room_only_behind_the_end() -> None:
    disk = with_file(b"0123456789")
    disk.fill_up(3)
    file = disk.open_over("/data/a", 4)
    assert file.write(b"abcdefghijkl") == 9
    assert disk.content("/data/a") == b"0123abcdefghi"
    with pytest.raises(OSError):
        file.write(b"j")


def test_an_emptied_file_may_still_hold_what_it_held() -> None:
    disk = with_file(b"old")
    file = disk.create("/data/a")
    assert disk.content("/data/a") == b""
    file.write(b"new")
    assert {b"old", b"", b"new"} <= found(disk)
    file.sync()
    assert found(disk) == {b"new"}


def test_a_cut_is_durable() -> None:
    disk = with_file(b"0123456789")
    written(disk, "/data/a", b"abc", sync=False)
    disk.truncate("/data/a", 11)
    assert found(disk) == {b"0123456789a"}
    with pytest.raises(OSError):
        disk.truncate("/data/a", 12)


# -- names ------------------------------------------------------------------------------------------------------------


def test_a_new_name_is_sure_once_its_folder_is_synced() -> None:
    disk = MemoryDisk()
    written(disk, "/data/a", b"x")
    assert found(disk) == {None, b"x"}
    disk.sync_folder("/data")
    assert found(disk) == {b"x"}


def test_a_removal_is_sure_once_its_folder_is_synced() -> None:
    disk = with_file(b"x")
    disk.remove("/data/a")
    assert found(disk) == {None, b"x"}
    disk.sync_folder("/data")
    assert found(disk) == {None}


def test_a_rename_happens_whole_or_not_at_all() -> None:
    disk = with_file(b"old", "/data/name")
    written(disk, "/data/beside", b"new")
    disk.sync_folder("/data")
    disk.rename("/data/beside", "/data/name")
    left = {(crashed.content("/data/name"), crashed.exists("/data/beside")) for crashed in map(disk.crash, SEEDS)}
    assert left == {(b"old", True), (b"new", False)}
    disk.sync_folder("/data")
    assert found(disk, "/data/name") == {b"new"}


def test_a_renamed_file_need_not_have_its_bytes() -> None:
    disk = with_file(b"old", "/data/name")
    written(disk, "/data/beside", b"new", sync=False)
    disk.rename("/data/beside", "/data/name")
    disk.sync_folder("/data")
    assert {b"", b"new"} <= found(disk, "/data/name")


def test_changes_of_names_may_come_through_in_any_order() -> None:
    disk = with_file(b"base", "/data/base")
    written(disk, "/data/next", b"next")
    disk.remove("/data/base")
    left = {tuple(crashed.list("/data")) for crashed in map(disk.crash, SEEDS)}
    assert left == {("base",), ("base", "next"), (), ("next",)}


def test_a_folder_that_is_lost_takes_its_files_along() -> None:
    disk = MemoryDisk()
    disk.make_folder("/data/appendonlydir")
    written(disk, "/data/appendonlydir/a", b"x")
    disk.sync_folder("/data/appendonlydir")
    assert found(disk, "/data/appendonlydir/a") == {None, b"x"}
    disk.sync_folder("/data")
    assert found(disk, "/data/appendonlydir/a") == {b"x"}


def test_names_in_a_folder() -> None:
    disk = with_file()
    disk.make_folder("/data/inner")
    disk.make_folder("/data/inner")
    assert disk.list("/data") == ["a", "inner"]
    assert disk.exists("/data/inner")
    assert not disk.exists("/data/inner/a")
    for call in (
        lambda: disk.make_folder("/data/a"),
        lambda: disk.make_folder("/data/no/where"),
        lambda: disk.list("/data/a"),
        lambda: disk.open_append("/data/b", create=False),
        lambda: disk.open_append("/nowhere/b"),
        lambda: disk.create("/data/inner"),
        lambda: disk.open_read("/data/b"),
        lambda: disk.remove("/data/b"),
        lambda: disk.rename("/data/b", "/data/c"),
        lambda: disk.rename("/data/a", "/data/inner"),
        lambda: disk.sync_folder("/data/b"),
        lambda: disk.size("/data/inner"),
    ):
        with pytest.raises(OSError):
            call()
    assert disk.list("/data") == ["a", "inner"]


# -- trouble ----------------------------------------------------------------------------------------------------------


def test_a_disk_that_fills_up_takes_what_it_can() -> None:
    disk = with_file(b"1234")
    file = disk.open_append("/data/a")
    disk.fill_up(3)
    assert disk.free_space("/data") == 3
    assert file.write(b"abcdef") == 3
    assert file.position == 7
    with pytest.raises(OSError) as raised:
        file.write(b"def")
    assert raised.value.errno == errno.ENOSPC
    assert disk.content("/data/a") == b"1234abc"
    file.close()
    disk.remove("/data/a")
    assert disk.free_space("/data") == 7
    disk.make_room()
    written(disk, "/data/a", b"any length" * 100)


def test_a_removed_file_takes_room_until_it_is_closed() -> None:
    disk = with_file(b"1234")
    reader = disk.open_read("/data/a")
    disk.fill_up()
    disk.remove("/data/a")
    assert disk.free_space("/data") == 0
    assert reader.read(9) == b"1234"
    reader.close()
    assert disk.free_space("/data") == 4


def test_a_short_write() -> None:
    disk = with_file()
    disk.shorten_next(2)
    file = disk.open_append("/data/a")
    assert file.write(b"abcd") == 2
    assert file.write(b"cd") == 2
    assert disk.content("/data/a") == b"abcd"


def test_a_read_only_disk_refuses_changes_and_can_be_read() -> None:
    disk = with_file(b"x")
    file = disk.open_append("/data/a")
    disk.read_only()
    for call in (
        lambda: file.write(b"y"),
        file.sync,
        lambda: disk.open_append("/data/a"),
        lambda: disk.create("/data/b"),
        lambda: disk.remove("/data/a"),
        lambda: disk.rename("/data/a", "/data/b"),
        lambda: disk.truncate("/data/a", 0),
        lambda: disk.make_folder("/data/c"),
        lambda: disk.lock("/data/lock"),
    ):
        with pytest.raises(OSError) as raised:
            call()
        assert raised.value.errno == errno.EROFS
    assert disk.read("/data/a") == b"x"
    disk.read_only(False)
    assert file.write(b"y") == 1


@pytest.mark.parametrize(
    "method", ["write", "rename", "remove", "create", "sync_folder", "truncate", "open_read", "read"]
)
def test_the_next_call_fails_and_changes_nothing(method: str) -> None:
    disk = with_file(b"x")
    file = disk.open_append("/data/a")
    calls: dict[str, Callable[[], object]] = {
        "write": lambda: file.write(b"y"),
        "rename": lambda: disk.rename("/data/a", "/data/b"),
        "remove": lambda: disk.remove("/data/a"),
        "create": lambda: disk.create("/data/a"),
        "sync_folder": lambda: disk.sync_folder("/data"),
        "truncate": lambda: disk.truncate("/data/a", 0),
        "open_read": lambda: disk.open_read("/data/a"),
        "read": lambda: disk.read("/data/a"),
    }
    disk.fail_next(method, errno.EDQUOT, times=2)
    for _ in range(2):
        with pytest.raises(OSError) as raised:
            calls[method]()
        assert raised.value.errno == errno.EDQUOT
        assert found(disk) == {b"x"}
        assert disk.content("/data/a") == b"x"
    calls[method]()


def test_every_call_is_recorded() -> None:
    disk = with_file(b"abc")
    disk.open_append("/data/./a").close()
    assert disk.calls == [
        Call("open_append", "/data/a"),
        Call("write", "/data/a", 3),
        Call("sync", "/data/a"),
        Call("close", "/data/a"),
        Call("sync_folder", "/data"),
        Call("open_append", "/data/a"),
        Call("close", "/data/a"),
    ]
    assert disk.methods("/data") == ["sync_folder"]


def test_a_closed_file_takes_nothing() -> None:
    disk = with_file(b"abc")
    file, reader = disk.open_append("/data/a"), disk.open_read("/data/a", 1)
    assert reader.size == 3
    with reader:
        assert (reader.read(1), reader.read(9), reader.read(9)) == (b"b", b"c", b"")
    for closed in (file, reader):
        closed.close()
        closed.close()
    for call in (lambda: file.write(b"x"), file.sync, lambda: reader.read(1)):
        with pytest.raises(OSError) as raised:
            call()
        assert raised.value.errno == errno.EBADF


# -- processes --------------------------------------------------------------------------------------------------------


def test_a_lock_is_held_by_one() -> None:
    disk = MemoryDisk()
    lock = disk.lock("/data/lock")
    with pytest.raises(Locked, match="/data/lock is in use by process 4711"):
        disk.lock("/data/lock")
    lock.release()
    lock.release()
    disk.lock("/data/lock")
    disk.crash().make_folder("/data/x")
    disk.kill().lock("/data/lock")


def test_a_killed_process_leaves_all_it_wrote_and_nothing_surer_than_it_was() -> None:
    disk = with_file(b"synced")
    written(disk, "/data/a", b" more", sync=False)
    written(disk, "/data/b", b"new", sync=False)
    after = disk.kill()
    assert after.list("/data") == ["a", "b"]
    assert (after.content("/data/a"), after.content("/data/b")) == (b"synced more", b"new")
    assert {b"synced", b"synced more"} <= found(after)
    assert None in found(after, "/data/b")
    written(after, "/data/a", b"!")
    assert disk.content("/data/a") == b"synced more"
    assert found(after) == {b"synced more!"}


@given(
    st.lists(
        st.tuples(st.sampled_from(["write", "sync", "rename", "remove", "folder"]), st.integers(0, 3)), max_size=30
    ),
    st.integers(0, 2**64 - 1),
)
def test_the_same_seed_finds_the_same(steps: list[tuple[str, int]], seed: int) -> None:
    def state() -> dict[str, bytes]:
        disk = MemoryDisk(seed=seed)
        for number, (step, which) in enumerate(steps):
            path = f"/data/{which}"
            if step == "write":
                written(disk, path, b"%d" % number * 1500, sync=False)
            elif step == "folder":
                disk.sync_folder("/data")
            elif disk.exists(path) and step == "sync":
                disk.open_append(path).sync()
            elif disk.exists(path) and step == "remove":
                disk.remove(path)
            elif disk.exists(path):
                disk.rename(path, f"/data/{3 - which}")
        left = disk.crash()
        again = left.crash(1)
        assert left.list("/data") == again.list("/data")
        return {name: left.content(f"/data/{name}") for name in left.list("/data")}

    assert state() == state()
