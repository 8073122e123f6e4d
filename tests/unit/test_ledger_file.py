"""The ledger's file: what is in it, what it refuses, and what it does when the disk fails."""

from __future__ import annotations

import errno
from itertools import pairwise
from pathlib import Path
from zlib import crc32

import attrs
import pytest
from support.memory_disk import MemoryDisk

from kevynode.disk import SystemDisk
from kevynode.scope.ledger import ROWS_LIMIT, LedgerEntry, LedgerFull
from kevynode.scope.ledger_file import (
    LEDGER,
    Cut,
    LedgerDamaged,
    LedgerFile,
    LedgerFileError,
    Loaded,
    NewerLedger,
    load,
)
from kevynode.scope.ledger_records import (
    AgreedEpoch,
    Announced,
    LedgerState,
    MoveRecord,
    MoveRole,
    MoveState,
    Opened,
    Record,
    Settled,
    VersionFloor,
)
from kevynode.scope.ledger_text import MAX_NUMBER

DATA = "/data"
PATH = f"{DATA}/{LEDGER}"
TEMPORARY = f"{DATA}/temp-{LEDGER}"

ENTRY = LedgerEntry(b"app:", "b", 4, "m1")
MOVE = MoveRecord("m1", b"app:", MoveRole.TARGET, MoveState.AGREED, "a", 4)
ACTIVATED = attrs.evolve(MOVE, state=MoveState.ACTIVATED, decision=MoveState.FLIPPED, keys=7, detail="as told, späť")

APPENDS: list[list[Record]] = [
    [Settled()],
    [Announced("a", 12)],
    [AgreedEpoch(b"app:", 4, "m1"), MOVE],
    [ENTRY, ACTIVATED, Opened(b"app:")],
]


def opened(disk: MemoryDisk) -> LedgerFile:
    return LedgerFile(disk, DATA, load(disk, DATA))


def written(disk: MemoryDisk) -> list[int]:
    """Append all of APPENDS; where each of them ends."""
    file = opened(disk)
    ends = []
    for records in APPENDS:
        file.append(records)
        ends.append(len(disk.content(PATH)))
    file.close()
    return ends


def state_of(appends: list[list[Record]]) -> LedgerState:
    state = LedgerState()
    for records in appends:
        state.add(records)
    return state


def with_content(data: bytes) -> MemoryDisk:
    disk = MemoryDisk()
    file = disk.create(PATH)
    file.write(data)
    file.sync()
    file.close()
    disk.sync_folder(DATA)
    return disk


def whole() -> tuple[bytes, list[int]]:
    disk = MemoryDisk()
    ends = written(disk)
    return disk.content(PATH), ends


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


# -- damage -----------------------------------------------------------------------------------------------------------


def test_every_truncation_leaves_whole_appends_or_is_refused() -> None:
    data, ends = whole()
    for size in range(len(data)):
        disk = with_content(data[:size])
        if size < ends[0] - 1:
            # The first append took the name together with the file, so it was whole.
            with pytest.raises(LedgerDamaged, match=rf"^{PATH} is damaged at byte \d+ ") as caught:
                load(disk, DATA)
            assert caught.value.offset <= size
            assert caught.value.path == PATH
            continue
        loaded = load(disk, DATA)
        # But for its line end an append is whole.
        kept = sum(end - 1 <= size for end in ends)
        assert loaded.state == state_of(APPENDS[:kept])
        assert loaded.existed
        assert loaded.cut == (
            None if size in (ends[kept - 1], ends[kept - 1] - 1) else Cut(ends[kept - 1], size - ends[kept - 1])
        )
        assert load(disk, DATA) == attrs.evolve(loaded, cut=None)
        # It goes on as if what is missing had never been.
        file = LedgerFile(disk, DATA, loaded)
        file.append([Opened(b"web:")])
        assert load(disk, DATA).state == state_of([*APPENDS[:kept], [Opened(b"web:")]])
        assert load(disk, DATA).cut is None


@pytest.mark.parametrize("bit", range(8))
def test_every_flipped_bit_is_refused(bit: int) -> None:
    data, _ = whole()
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << bit
        disk = with_content(bytes(damaged))
        if place == len(data) - 1:
            # The line end of the last append: nothing is missing.
            assert load(disk, DATA).state == state_of(APPENDS)
            opened(disk).append([Opened(b"web:")])
            assert load(disk, DATA).state == state_of([*APPENDS, [Opened(b"web:")]])
            continue
        with pytest.raises(LedgerFileError, match=f"^{PATH} is ") as caught:
            load(disk, DATA)
        if isinstance(caught.value, LedgerDamaged):
            assert caught.value.offset <= place
        assert disk.content(PATH) == bytes(damaged)


def test_any_other_byte_in_the_middle_is_refused() -> None:
    data, ends = whole()
    for place in range(ends[2]):
        for byte in b"\0\n\r .+0%":
            if data[place] != byte:
                disk = with_content(data[:place] + bytes([byte]) + data[place + 1 :])
                with pytest.raises(LedgerFileError):
                    load(disk, DATA)


@pytest.mark.parametrize("number", range(len(APPENDS)))
def test_an_append_that_is_missing_or_repeated_is_noticed(number: int) -> None:
    data, ends = whole()
    start = [len(b"kevynode-ledger version=1\n"), *ends][number]
    without = data[:start] + data[ends[number] :]
    twice = data[: ends[number]] + data[start:]
    for damaged in [twice] + ([without] if number < len(APPENDS) - 1 else []):
        with pytest.raises(LedgerDamaged, match="does not belong"):
            load(with_content(damaged), DATA)


def test_records_in_another_order_are_noticed() -> None:
    data, _ = whole()
    lines = data.splitlines(keepends=True)
    for number in range(1, len(lines) - 1):
        swapped = lines.copy()
        swapped[number : number + 2] = reversed(swapped[number : number + 2])
        disk = with_content(b"".join(swapped))
        if lines[number][9:15] == lines[number + 1][9:15] and b"+" in lines[number + 1][:15]:
            # Within one append, neither being the last: the order is part of what was written, but of no number.
            load(disk, DATA)
        else:
            with pytest.raises(LedgerDamaged):
                load(disk, DATA)


def test_a_line_that_is_right_in_itself_must_fit_the_file() -> None:
    disk = MemoryDisk()
    opened(disk).append([Settled()])
    other = MemoryDisk()
    file = opened(other)
    file.append([Opened(b"a"), Settled(), VersionFloor(5)])
    file.append([Opened(b"b")])
    foreign = other.content(PATH).splitlines(keepends=True)[-1]
    with pytest.raises(LedgerDamaged, match="version 7 follows where 2 should"):
        load(with_content(disk.content(PATH) + foreign), DATA)


@pytest.mark.parametrize(
    ("text", "reason"), [("unheard of", "of a kind that is not known"), ("opened prefix=%61", "spelled in another way")]
)
def test_a_whole_line_that_is_no_record_is_refused(text: str, reason: str) -> None:
    disk = MemoryDisk()
    opened(disk).append([Settled()])
    rest = f"2 2 . {text}".encode()
    with pytest.raises(LedgerDamaged, match=reason):
        load(with_content(disk.content(PATH) + b"%08x %b\n" % (crc32(rest), rest)), DATA)


def test_all_records_of_an_append_have_one_version() -> None:
    lines = []
    for first in ([Settled()], [VersionFloor(5)]):
        disk = MemoryDisk()
        file = opened(disk)
        file.append(first)
        file.append([Opened(b"a"), Opened(b"b")])
        lines.append(disk.content(PATH).splitlines(keepends=True))
    with pytest.raises(LedgerDamaged, match="does not belong"):
        load(with_content(b"".join([*lines[0][:3], lines[1][3]])), DATA)


@pytest.mark.parametrize("data", [b"", b"\n", b"kevynode-ledger", b"kevynode-ledger version=1", b"#", b"\0" * 600])
def test_what_is_no_ledger_is_refused(data: bytes) -> None:
    with pytest.raises(LedgerDamaged, match=rf"^{PATH} is damaged at byte 0 \(its first line .* remove it"):
        load(with_content(data), DATA)


def test_a_ledger_without_a_record_is_refused() -> None:
    with pytest.raises(LedgerDamaged, match="ends before its first record"):
        load(with_content(b"kevynode-ledger version=1\n"), DATA)


def test_a_newer_format_is_refused_by_name() -> None:
    disk = with_content(b"kevynode-ledger version=12\nwho knows\n")
    with pytest.raises(NewerLedger, match=rf"^{PATH} is written in format version 12, newer than 1, ") as caught:
        load(disk, DATA)
    assert caught.value.version == 12


def test_no_endless_file_is_read() -> None:
    disk = with_content(b"kevynode-ledger version=1\n")
    disk.size = lambda path: 2**40  # type: ignore[method-assign]
    with pytest.raises(LedgerFileError, match="this is no ledger"):
        load(disk, DATA)
    assert "read" not in disk.methods(PATH)


def test_gaps_of_an_append_that_was_not_finished() -> None:
    """Blocks are written back in any order, so a torn append may have its end and not its middle."""
    disk = MemoryDisk()
    file = opened(disk)
    file.append([Settled()])
    start = len(disk.content(PATH))
    file.append([LedgerEntry(b"%d:" % number, "a", 1, "m") for number in range(200)])
    data = disk.content(PATH)
    for first in range(0, len(data), 512):
        if first + 512 <= start:
            continue
        gap = max(first, start), min(first + 512, len(data))
        torn = data[: gap[0]] + bytes(gap[1] - gap[0]) + data[gap[1] :]
        loaded = load(with_content(torn), DATA)
        assert loaded.state == state_of([[Settled()]])
        assert loaded.cut == Cut(start, len(data) - start)
    # With another append behind it, it had been relied on.
    file.append([Opened(b"a")])
    more = disk.content(PATH)
    torn = more[:512] + bytes(512) + more[1024:]
    with pytest.raises(LedgerDamaged):
        load(with_content(torn), DATA)
    # And zeros that end anywhere are no gap.
    with pytest.raises(LedgerDamaged):
        load(with_content(data[:600] + bytes(100) + data[700:]), DATA)


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
