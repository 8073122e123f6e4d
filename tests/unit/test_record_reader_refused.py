"""What the files of records must not hold: where it is noticed, and what is said of it."""

from __future__ import annotations

import pytest
from support.record_files import BASE_START, LINEAGE, SET_RECORD, START, read, split

from kevynode.persist.annotations import ANNOTATION_LIMIT, Digest, End, FileHeader, GroupSpan, Local, MadeBy, Position
from kevynode.persist.record_reader import Damaged, Entries, Newer, RecordReader, Torn
from kevynode.persist.records import EXEC, MULTI, file_start
from kevynode.replicate.lineage import MAX_OFFSET


def damage(tail: bytes, *, start: bytes = START) -> tuple[int, str]:
    """Where and why a file with this behind its start is damaged, counted from the end of the start."""
    _, error = read(start + tail)
    assert isinstance(error, Damaged), error
    _, dripped = read(start + tail, range(len(start + tail)))
    assert dripped == error
    return error.position - len(start), error.reason


@pytest.mark.parametrize(
    ("tail", "position", "reason"),
    [
        (b"x", 0, "neither a command nor an annotation"),
        (b"SET a b\r\n", 0, "neither a command nor an annotation"),
        (b"\r\n", 0, "neither a command nor an annotation"),
        (b"*0\r\n", 1, "a command without words"),
        (b"*-1\r\n", 1, "no number"),
        (b"*\r\n", 1, "no number"),
        (b"*01\r\n", 1, "a number that is not written as it must be"),
        (b"*2147483648\r\n", 1, "a number that is not written as it must be"),
        (b"*11111111111111", 1, "a number that is too long"),
        (b"*1 \r\n", 2, "no line end"),
        (b"*1\n", 2, "no line end"),
        (b"*1\r\r", 3, "no line end"),
        (b"*1\r\n:1\r\n", 4, "no length of a word"),
        (b"*1\r\n$-1\r\n", 5, "no number"),
        (b"*1\r\n$03\r\nSET\r\n", 5, "a number that is not written as it must be"),
        (b"*1\r\n$2\r\nSET\r\n", 10, "no line end"),
        (b"*1\r\n$3\r\nSET\r\r", 12, "no line end"),
        (SET_RECORD + b"*2\r\n$3\r\nDEL\r\n*", len(SET_RECORD) + 13, "no length of a word"),
        (SET_RECORD[:-3] + b"\r\n" + SET_RECORD, len(SET_RECORD) - 2, "no line end"),
        (b"# a comment\r\n", 0, "no annotation of kevynode"),
        (b"#kevynode:end commands=0\n", 24, "no line end"),
        (b"#kevynode:end commands=0\r\r", 25, "no line end"),
        (b"#kevynode:end commands=\x7f\r\n", 23, "no line end"),
        (b"#" * ANNOTATION_LIMIT, ANNOTATION_LIMIT - 1, "an annotation that is too long"),
        (b"#" * (ANNOTATION_LIMIT - 1) + b"\r\n", ANNOTATION_LIMIT - 1, "an annotation that is too long"),
        (EXEC, 0, "EXEC without MULTI"),
        (MULTI + MULTI, len(MULTI), "MULTI inside MULTI"),
        (MULTI + EXEC, len(MULTI), "a group of 0"),
        (MULTI + SET_RECORD + EXEC, len(MULTI + SET_RECORD), "a group of 1"),
        (MULTI + MadeBy(None).line(), len(MULTI), "only cursors"),
        (MULTI + Position(LINEAGE, 100, 100).line(), len(MULTI), "only cursors"),
        (MULTI + Local(True).line(), len(MULTI), "only cursors"),
        (MULTI + Digest(1, 2, 0).line(), len(MULTI), "only cursors"),
        (GroupSpan(101).line() + Local(True).line(), len(GroupSpan(101).line()), "where a group was announced"),
        (GroupSpan(101).line() * 2, len(GroupSpan(101).line()), "where a group was announced"),
        (GroupSpan(99).line(), 0, "a group that goes back from 100 to 99"),
        (Position(LINEAGE, 100).line(), 0, "a position after none, where 100 is next"),
        (Position(LINEAGE, 105, 101).line(), 0, "a position after 101, where 100 is next"),
        (Position(LINEAGE, 99, 100).line(), 0, "goes back from 100 to 99"),
        (SET_RECORD + Position(LINEAGE, 100, 100).line(), len(SET_RECORD), "a position after 100, where 101 is next"),
        (FileHeader("incr", 3).line(), 0, "a second header"),
        (b"#kevynode:file version=2\r\n", 0, "a header that is written in format version 2"),
        (End(1).line(), 0, "1 commands are announced, 0 are there"),
        (End(0).line() + SET_RECORD, len(End(0).line()), "more behind the end"),
        (End(0).line() + MULTI, len(End(0).line()), "more behind the end"),
        (End(0).line() + MadeBy(None).line(), len(End(0).line()), "more behind the end"),
    ],
)
def test_damage_is_told_with_its_place(tail: bytes, position: int, reason: str) -> None:
    found, why = damage(tail)
    assert (found, why[: len(reason)] if reason not in why else reason) == (position, reason)


@pytest.mark.parametrize(
    ("start", "position"),
    [
        (SET_RECORD, 0),
        (MULTI, 0),
        (EXEC, 0),
        (Position(LINEAGE, 1).line(), 0),
        (MadeBy(None).line(), 0),
        (FileHeader("incr", 1).line() + SET_RECORD, 42),
        (FileHeader("incr", 1).line() * 2, 42),
        (FileHeader("incr", 1).line() + Position(LINEAGE, 1, 1).line(), 42),
    ],
)
def test_a_file_begins_with_header_and_position(start: bytes, position: int) -> None:
    assert damage(start, start=b"") == (position, "a file begins with its header and a position")
    assert read(start)[1] == Damaged(position, "a file begins with its header and a position", 0)


def test_the_commands_of_a_base_have_one_position() -> None:
    assert damage(GroupSpan(101).line(), start=BASE_START) == (0, "the commands of a base have one position")
    assert damage(Position(LINEAGE, 100, 100).line(), start=BASE_START)[1] == "the commands of a base have one position"
    reader = RecordReader()
    (_, _, entries) = reader.feed(BASE_START + SET_RECORD * 3)
    assert isinstance(entries, Entries)
    assert (entries.first, entries.next, reader.offset) == (100, 100, 100)


def test_offsets_end() -> None:
    start = file_start("incr", 1, LINEAGE, MAX_OFFSET - 1)
    events, error = read(start + SET_RECORD)
    assert error is None
    _, error = read(start + SET_RECORD * 2)
    assert error == Damaged(len(start), "more entries than there are offsets", len(start))
    assert len(split(events)) == 3


@pytest.mark.parametrize("data", [b"#kevynode:file version=2\r\n", b"#kevynode:file version=17 sort=of\r\nwhatever"])
def test_a_newer_format_is_no_damage(data: bytes) -> None:
    for cuts in ((), range(len(data))):
        events, error = read(data, cuts)
        assert events == []
        assert isinstance(error, Newer)
        assert str(error).startswith(f"is written in format version {error.version}, newer than 1")


@pytest.mark.parametrize("data", [b"", FileHeader("incr", 1).line()[:20], FileHeader("incr", 1).line()])
def test_a_file_that_has_not_begun_is_torn_at_its_start(data: bytes) -> None:
    assert read(data)[1] == Torn(0)


def test_errors_say_what_is_the_matter() -> None:
    assert str(Torn(17)) == "ends in an unfinished record at byte 17"
    assert str(Damaged(17, "zeros", 12)) == "is damaged at byte 17: zeros"
