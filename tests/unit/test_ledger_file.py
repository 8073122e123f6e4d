"""The ledger file: what is in it, and what it does when the disk fails."""

from __future__ import annotations

import errno
from itertools import pairwise
from pathlib import Path

import attrs
import pytest
from support.ledger_files import (
    ACTIVATED,
    APPENDS,
    DATA,
    ENTRY,
    MOVE,
    PATH,
    TEMPORARY,
    opened,
    state_of,
    whole,
    written,
)
from support.memory_disk import MemoryDisk

from kevynode.disk import SystemDisk
from kevynode.scope.ledger import ROWS_LIMIT, LedgerEntry, LedgerFull
from kevynode.scope.ledger_file import LEDGER, LedgerFile, Loaded, load
from kevynode.scope.ledger_records import LedgerState, MoveState, Opened, Record, Settled, VersionFloor
from kevynode.scope.ledger_text import MAX_NUMBER

# -- what is in it ----------------------------------------------------------------------------------------------------


def test_without_a_file_there_is_nothing_and_none_is_made() -> None:
    disk = MemoryDisk()
    loaded = load(disk, DATA)
    assert loaded == Loaded(LedgerState())
    file = LedgerFile(disk, DATA, loaded)
    assert file.append([]) == 0
    assert disk.list(DATA) == []


def test_what_was_appended_is_found() -> None:
    disk = MemoryDisk()
    file = opened(disk)
    state = LedgerState()
    for records in APPENDS:
        state.add(records)
        assert file.append(records) == state.version == file.version
        assert file.size == len(disk.content(PATH))
        for found in (disk.kill(), *map(disk.crash, range(5))):
            loaded = load(found, DATA)
            assert loaded.state == state
            assert (loaded.existed, loaded.cut) == (True, None)
            assert loaded.size == len(found.content(PATH))
    assert disk.list(DATA) == [LEDGER]
    assert state.version == 3


def test_it_can_be_read_by_people() -> None:
    data, _ = whole()
    assert data.isascii()
    lines = data.decode("ascii").splitlines()
    assert lines[0] == "kevynode-ledger version=1"
    assert [line[9:] for line in lines[1:]] == [
        "1 1 . settled",
        "2 1 . announced peer=a version=12",
        "3 2 + agreed prefix=app: epoch=4 move=m1",
        f"3 2 . {MOVE.text()}",
        f"4 3 + {ENTRY.text()}",
        f"4 3 + {ACTIVATED.text()}",
        "4 3 . opened prefix=app:",
    ]


def test_it_goes_on_after_a_restart() -> None:
    disk = MemoryDisk()
    written(disk)
    file = opened(disk)
    size = len(disk.content(PATH))
    assert file.append([Opened(b"web:")]) == 4
    assert disk.content(PATH)[size:].endswith(b"2 4 . opened prefix=web:\n")
    assert load(disk, DATA).state == state_of([*APPENDS, [Opened(b"web:")]])


def test_the_real_disk(tmp_path: Path) -> None:
    disk = SystemDisk()
    for records in APPENDS:
        file = LedgerFile(disk, str(tmp_path), load(disk, str(tmp_path)))
        file.append(records)
        file.close()
    assert load(disk, str(tmp_path)).state == state_of(APPENDS)
    assert [path.name for path in tmp_path.iterdir()] == [LEDGER]


def test_what_a_killed_process_left_is_durable_once_it_is_loaded() -> None:
    disk = MemoryDisk()
    file = opened(disk)
    file.append([Settled()])
    disk.fail_next("sync")
    with pytest.raises(OSError, match="Input/output"):
        file.append([ENTRY])
    # Killed now: the bytes can be read, and no sync will bring them to the disk.
    found = disk.kill()
    state = load(found, DATA).state
    assert state == state_of([[Settled()], [ENTRY]])
    for crashed in map(found.crash, range(10)):
        assert load(crashed, DATA).state == state


def test_a_version_alone_is_kept() -> None:
    disk = MemoryDisk()
    assert opened(disk).append([VersionFloor(7)]) == 8
    for _ in range(2):
        assert load(disk, DATA).state == LedgerState(version=8)


def test_the_highest_version_is_kept_and_stays_the_highest() -> None:
    disk = MemoryDisk()
    appends: list[list[Record]] = [[VersionFloor(MAX_NUMBER)], [Settled()], [ENTRY]]
    file = opened(disk)
    assert [file.append(records) for records in appends] == [MAX_NUMBER] * 3
    file.close()
    assert load(disk, DATA).state == state_of(appends)
    # Written anew at the start, and appended to.
    assert opened(disk).append([Opened(b"app:")]) == MAX_NUMBER
    assert load(disk, DATA).state == state_of([*appends, [Opened(b"app:")]])


def test_a_state_that_was_loaded_is_not_shared() -> None:
    disk = MemoryDisk()
    written(disk)
    loaded = load(disk, DATA)
    file = LedgerFile(disk, DATA, loaded)
    loaded.state.add([LedgerEntry(b"other:", "z", 9, "m9")])
    disk.fail_next("sync")
    with pytest.raises(OSError, match="Input/output"):
        file.append([Opened(b"web:")])
    # Written anew, from what was appended alone.
    file.append([Opened(b"web:")])
    assert load(disk, DATA).state == state_of([*APPENDS, [Opened(b"web:")]])


def test_too_much_is_refused_before_anything_is_written() -> None:
    disk = MemoryDisk()
    file = opened(disk)
    file.append([LedgerEntry(b"%d" % number, "a", 1, "m") for number in range(ROWS_LIMIT)])
    calls = len(disk.calls)
    with pytest.raises(LedgerFull):
        file.append([Settled(), LedgerEntry(b"more", "a", 1, "m")])
    assert len(disk.calls) == calls
    assert file.append([Opened(b"1")]) == 2
    assert len(load(disk, DATA).state.ledger) == ROWS_LIMIT


def test_two_at_the_same_time_are_refused() -> None:
    disk = MemoryDisk()
    file = opened(disk)
    errors = []

    def again(call: object) -> None:
        disk.before = None
        with pytest.raises(RuntimeError, match="two appends") as caught:
            file.append([Settled()])
        errors.append(caught.value)

    disk.before = again
    assert file.append([ENTRY]) == 1
    assert len(errors) == 1
    assert load(disk, DATA).state == state_of([[ENTRY]])


# -- a disk that fails ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["open_append", "write", "sync", "create", "rename", "sync_folder"])
@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("number", [0, 2])
def test_after_an_error_another_file_is_written(method: str, times: int, number: int) -> None:
    disk = MemoryDisk()
    file = opened(disk)
    for records in APPENDS[:number]:
        file.append(records)
    file.close()
    before = state_of(APPENDS[:number])
    disk.fail_next(method, errno.EIO, times)
    failed = version = 0
    while not version:
        try:
            version = file.append(APPENDS[number])
        except OSError:
            failed += 1
            assert file.size is None
            assert file.version == before.version
            found = load(disk.kill(), DATA).state if disk.exists(PATH) else LedgerState()
            assert found in (before, state_of(APPENDS[: number + 1]))
    # Once the appends to the old file have failed only what concerns the new one can.
    used = {"open_append", "write", "sync"} if number else {"create", "write", "sync", "rename", "sync_folder"}
    rewrites = {"create", "write", "sync", "rename", "sync_folder"}
    assert failed == (0 if method not in used else times if method in rewrites else 1)
    assert version == state_of(APPENDS[: number + 1]).version
    for found_disk in (disk.kill(), *map(disk.crash, range(10))):
        assert load(found_disk, DATA).state == state_of(APPENDS[: number + 1])


def test_the_file_with_an_error_is_never_appended_to_again() -> None:
    disk = MemoryDisk()
    file = opened(disk)
    file.append([Settled()])
    disk.fail_next("sync")
    with pytest.raises(OSError, match="Input/output"):
        file.append([Opened(b"first:")])
    start = len(disk.calls)
    file.append([Opened(b"second:")])
    assert [(call.method, call.path) for call in disk.calls[start:]] == [
        ("create", TEMPORARY),
        ("write", TEMPORARY),
        ("sync", TEMPORARY),
        ("close", TEMPORARY),
        ("rename", TEMPORARY),
        ("sync_folder", DATA),
    ]
    assert load(disk, DATA).state.opened == {b"second:"}


@pytest.mark.parametrize("number", [0, 2])
def test_what_has_failed_can_be_made_sure_not_to_count(number: int) -> None:
    disk = MemoryDisk()
    file = opened(disk)
    for records in APPENDS[:number]:
        file.append(records)
    before = state_of(APPENDS[:number])
    doubts: list[bool] = []

    def settle() -> None:
        try:
            file.settle()
        finally:
            doubts.append(file.is_doubtful)

    settle()
    disk.fail_next("sync" if number else "sync_folder")
    with pytest.raises(OSError, match="Input/output"):
        file.append(APPENDS[number])
    # It is there for who starts now.
    assert load(disk.kill(), DATA).state == state_of(APPENDS[: number + 1])
    disk.fail_next("create")
    with pytest.raises(OSError, match="Input/output"):
        settle()
    settle()
    assert doubts == [False, True, False]
    for found_disk in (disk.kill(), *map(disk.crash, range(10))):
        assert load(found_disk, DATA).state == before
    file.append(APPENDS[number])
    assert load(disk.kill(), DATA).state == state_of(APPENDS[: number + 1])


def test_a_disk_that_is_full() -> None:
    disk = MemoryDisk()
    file = opened(disk)
    file.append([Settled()])
    disk.fill_up(after=10)
    for _ in range(3):
        with pytest.raises(OSError, match="No space"):
            file.append([ENTRY])
        found = disk.kill()
        with pytest.raises(OSError, match="No space"):
            load(found, DATA)
        found.make_room()
        assert load(found, DATA).state == state_of([[Settled()]])
    disk.make_room()
    disk.shorten_next(1)
    disk.shorten_next(20)
    assert file.append([ENTRY]) == 2
    assert load(disk, DATA).state == state_of([[Settled()], [ENTRY]])


@pytest.mark.parametrize("method", ["exists", "size", "read", "create", "write", "sync", "rename", "sync_folder"])
def test_a_disk_that_fails_at_the_start_is_told(method: str) -> None:
    disk = MemoryDisk()
    written(disk)
    disk.fail_next(method)
    with pytest.raises(OSError, match="Input/output"):
        load(disk, DATA)
    assert load(disk, DATA).state == state_of(APPENDS)


def test_errors_when_a_file_is_closed_concern_nobody() -> None:
    disk = MemoryDisk()
    disk.fail_next("close", times=2)
    file = opened(disk)
    file.append([Settled()])
    file.append([ENTRY])
    file.close()
    assert load(disk, DATA).state == state_of([[Settled()], [ENTRY]])


# -- growth -----------------------------------------------------------------------------------------------------------


def test_it_does_not_grow_for_ever() -> None:
    disk = MemoryDisk()
    file = opened(disk)
    state = LedgerState()
    sizes = []
    for number in range(3000):
        record = attrs.evolve(MOVE, move_id=f"m{number // 3}", state=list(MoveState)[6 + number % 3], detail="x" * 200)
        state.add([record])
        assert file.append([record]) == state.version
        sizes.append(len(disk.content(PATH)))
    assert max(sizes) < 400 * 1024
    assert any(later < earlier for earlier, later in pairwise(sizes))
    assert load(disk, DATA).state == state
    assert disk.list(DATA) == [LEDGER]
