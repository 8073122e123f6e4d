"""Ledgers' files that are not as they were written: what was torn is cut, and all else is refused."""

from __future__ import annotations

from zlib import crc32

import attrs
import pytest
from support.ledger_files import APPENDS, DATA, PATH, opened, state_of, whole, with_content
from support.memory_disk import MemoryDisk

from kevynode.scope.ledger import LedgerEntry
from kevynode.scope.ledger_file import Cut, LedgerDamaged, LedgerFile, LedgerFileError, NewerLedger, load
from kevynode.scope.ledger_records import Opened, Settled, VersionFloor


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
