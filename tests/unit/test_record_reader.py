"""The reader of append-only files: what it gives, and what it says about files that end early or are damaged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.records import encode_spanning

from kevynode.persist.annotations import (
    ANNOTATION_LIMIT,
    Annotation,
    Digest,
    End,
    FileHeader,
    GroupSpan,
    Local,
    MadeBy,
    Position,
    UpstreamCursor,
)
from kevynode.persist.record_reader import Damaged, Entries, FileError, Newer, RecordEvent, RecordReader, Torn
from kevynode.persist.records import EXEC, MULTI, encode_commands, file_start
from kevynode.replicate.lineage import MAX_OFFSET, Lineage
from kevynode.store.journal import Origin

LINEAGE = Lineage(7, ((5, 10),))
SET = [b"SET", b"key", b"value"]
SET_RECORD = encode_commands([SET])
START = file_start("incr", 3, LINEAGE, 100)
BASE_START = file_start("base", 3, LINEAGE, 100)


class Group(NamedTuple):
    """One group as a file should give it, however its commands came in events."""

    first: int
    commands: tuple[tuple[bytes, ...], ...]
    next: int
    start: int
    end: int


def read(data: bytes, cuts: Iterable[int] = (), *, foreign: bool = False) -> tuple[list[RecordEvent], FileError | None]:
    """The events of a file that comes in pieces, and how it ends."""
    reader = RecordReader(foreign=foreign)
    places = [0, *sorted(cuts), len(data)]
    events: list[RecordEvent] = []
    for start, stop in pairwise(places):
        events += reader.feed(data[start:stop])
    error = reader.finish()
    assert reader.error == error
    assert reader.finish() == error
    assert reader.feed(b"more") == [] or error is None
    return events, error


def split(events: Iterable[RecordEvent]) -> list[Group | Annotation]:
    """The events with each group by itself."""
    out: list[Group | Annotation] = []
    for event in events:
        if not isinstance(event, Entries):
            out.append(event)
        elif event.grouped:
            out.append(Group(event.first, _words(event.commands), event.next, event.start, event.end))
        else:
            step = 0 if event.next == event.first else 1
            places = [event.place_of(index) for index in range(len(event.commands) + 1)]
            assert places[-1] == event.end
            assert event.next == event.first + step * len(event.commands)
            out += [
                Group(event.first + step * index, _words([command]), event.first + step * (index + 1), start, end)
                for index, (command, (start, end)) in enumerate(zip(event.commands, pairwise(places), strict=True))
            ]
    return out


def _words(commands: Sequence[Sequence[bytes]]) -> tuple[tuple[bytes, ...], ...]:
    return tuple(map(tuple, commands))


# -- files made at random ---------------------------------------------------------------------------------------------


class File:
    """A valid file under construction, and what a reader should make of it."""

    def __init__(self, kind: str = "incr", offset: int = 100) -> None:
        self.kind = kind
        self.offset = offset
        self.lineage = LINEAGE
        self.data = file_start(kind, 3, LINEAGE, offset)
        self.expected: list[Group | Annotation] = [FileHeader(kind, 3), Position(LINEAGE, offset)]
        # Where the file may be cut, and how many of the expected are whole there.
        self.whole = [(len(self.data), 2)]
        self.commands = 0

    def add(self, data: bytes, *expected: Group | Annotation) -> None:
        self.data += data
        self.expected += expected
        self.whole.append((len(self.data), len(self.expected)))

    def lone(self, command: list[bytes]) -> None:
        self.group(encode_commands([command]), [command], 1)

    def group(self, data: bytes, commands: list[list[bytes]], advance: int, *held: Annotation) -> None:
        start, first = len(self.data), self.offset
        if self.kind == "incr":
            self.offset += advance
        place = start + (data.index(b"\n") + 1 if data.startswith(b"#") else 0)
        self.commands += len(commands)
        self.add(data, Group(first, _words(commands), self.offset, place, start + len(data)), *held)

    def several(self, commands: list[list[bytes]], cursor: UpstreamCursor | None) -> None:
        line = [] if cursor is None else [cursor]
        inside = encode_commands(commands[:1]) + b"".join(each.line() for each in line) + encode_commands(commands[1:])
        self.group(MULTI + inside + EXEC, commands, len(commands), *line)

    def spanning(self, commands: list[list[bytes]], advance: int) -> None:
        self.group(encode_spanning(commands, self.offset + advance), commands, advance)

    def jump(self, lineage: Lineage, advance: int) -> None:
        position = Position(lineage, self.offset + advance, self.offset)
        self.add(position.line(), position)
        self.lineage = lineage
        self.offset += advance

    def annotate(self, annotation: Annotation) -> None:
        self.add(annotation.line(), annotation)

    def end(self) -> None:
        self.annotate(End(self.commands))

    def before(self, place: int) -> tuple[int, list[Group | Annotation]]:
        """Where the file is cut if it ends at ``place``, and what is whole then."""
        cut, count = max(((end, count) for end, count in self.whole if end <= place), default=(0, 0))
        if count == 0 and place >= len(self.expected[0].line() if isinstance(self.expected[0], FileHeader) else b""):
            count = 1
        return cut, self.expected[:count]


WORDS = st.binary(max_size=8) | st.sampled_from([b"\r\n", b"a\r\nb\r\n\r", b"*1\r\n", b"\0" * 5, b"\n", b"x" * 4096])
COMMANDS = st.lists(WORDS, min_size=1, max_size=5).filter(lambda words: words[0].upper() not in (b"MULTI", b"EXEC"))
CURSORS = st.builds(UpstreamCursor, st.text(max_size=10), st.integers(0, 9), st.integers(0, MAX_OFFSET))
ORIGINS = st.builds(MadeBy, st.none() | st.builds(Origin, st.text(max_size=5), st.integers(0, 9)))
LOCALS = st.builds(Local, st.booleans())


@st.composite
def files(draw: st.DrawFn) -> File:
    file = File(draw(st.sampled_from(["incr", "base"])), draw(st.sampled_from([0, 100])))
    steps = ["lone"] * 5 + ["several", "annotate"] + (["spanning", "jump"] if file.kind == "incr" else [])
    for step in draw(st.lists(st.sampled_from(steps), max_size=12)):
        if step == "lone":
            file.lone(draw(COMMANDS))
        elif step == "several":
            file.several(draw(st.lists(COMMANDS, min_size=2, max_size=4)), draw(st.none() | CURSORS))
        elif step == "annotate":
            file.annotate(draw(CURSORS | ORIGINS | LOCALS))
        elif step == "spanning":
            file.spanning(draw(st.lists(COMMANDS, min_size=1, max_size=3)), draw(st.integers(0, 5)))
        else:
            file.jump(draw(st.sampled_from([LINEAGE, Lineage(8, ((7, 99),))])), draw(st.integers(0, 5)))
    if draw(st.booleans()):
        file.end()
    return file


@given(files(), st.data())
def test_what_was_written_is_read_however_it_comes(file: File, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(file.data)), max_size=8))
    events, error = read(file.data, cuts)
    assert error is None
    assert split(events) == file.expected


@pytest.mark.slow
@given(files())
def test_dripped_bytes_are_read_the_same(file: File) -> None:
    events, error = read(file.data, range(len(file.data)))
    assert error is None
    assert split(events) == file.expected


@given(files(), st.data())
def test_a_file_that_ends_early_is_whole_or_torn_at_its_last_whole_record(file: File, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(file.data)))
    cut, expected = file.before(place)
    events, error = read(file.data[:place])
    assert split(events) == expected
    assert error == (None if cut == place and cut else Torn(cut))
    if cut:
        # What is left after the cut is a file again, with all that was whole.
        again, error = read(file.data[:cut])
        assert error is None
        assert split(again) == expected


@given(files(), st.data())
def test_a_file_that_ends_in_zeros_is_torn(file: File, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(file.data)))
    zeros = data.draw(st.sampled_from([1, 7, 5000]))
    torn = file.data[:place] + bytes(zeros)
    cuts = data.draw(st.lists(st.integers(0, len(torn)), max_size=4))
    events, error = read(torn, cuts)
    given_zeros = len(file.data[place:]) - len(file.data[place:].lstrip(b"\0"))
    cut, expected = file.before(place)
    if given_zeros and split(events) != expected:
        # The zeros were what stood there anyway.
        cut, expected = file.before(place + given_zeros)
    assert split(events) == expected
    assert error == Torn(cut)


@pytest.mark.slow
@given(files(), files(), st.data())
def test_zeros_in_the_midst_are_damage(file: File, other: File, data: st.DataObject) -> None:
    place = data.draw(st.sampled_from([end for end, _ in file.whole]))
    cut, expected = file.before(place)
    damaged = file.data[:place] + bytes(4096) + other.data
    events, error = read(damaged, data.draw(st.lists(st.integers(0, len(damaged)), max_size=4)))
    assert split(events) == expected
    assert isinstance(error, Damaged)
    assert (error.position, error.cut) == (place, cut)
    assert "zeros" in error.reason


# -- every byte of a small file ---------------------------------------------------------------------------------------


def small_file() -> tuple[File, set[int]]:
    """A file with one of everything, and the bytes of it that are contents, where another byte may be as good."""
    file = File()
    file.lone(SET)
    file.annotate(UpstreamCursor("host:1", 9, 4))
    file.annotate(MadeBy(Origin("host:1", 9)))
    file.several([[b"RPOP", b"a"], [b"LPUSH", b"b", b"\r\n"]], UpstreamCursor("host:1", 9, 5))
    file.annotate(MadeBy(None))
    file.spanning([[b"FLUSHALL"]], 3)
    file.jump(Lineage(8, ((7, 90), (5, 10))), 4)
    file.lone([b"SET", b"", b"0123456789ab"])
    file.lone([b"DEL", b"key"])
    file.end()
    contents: set[int] = set()
    for group in file.expected:
        if isinstance(group, Group):
            place = group.start + (len(MULTI) if len(group.commands) > 1 else 0)
            for command in group.commands:
                if file.data[place : place + 1] == b"#":
                    place = file.data.index(b"\n", place) + 1
                place = file.data.index(b"\r\n", place) + 2
                for word in command:
                    place = file.data.index(b"\r\n", place) + 2
                    assert file.data.startswith(word, place)
                    contents.update(range(place, place + len(word)))
                    place += len(word) + 2
    return file, contents


def test_the_small_file_is_valid() -> None:
    file, contents = small_file()
    events, error = read(file.data)
    assert error is None
    assert split(events) == file.expected
    assert len(contents) > 40


def test_every_truncation_of_a_small_file() -> None:
    file, _ = small_file()
    for place in range(len(file.data)):
        cut, expected = file.before(place)
        events, error = read(file.data[:place])
        assert split(events) == expected
        assert error == (None if cut == place and cut else Torn(cut))


def commands_of(groups: Iterable[Group | Annotation]) -> list[tuple[tuple[bytes, ...], ...]]:
    return [group.commands for group in groups if isinstance(group, Group)]


@pytest.mark.parametrize("change", [*(1 << bit for bit in range(8)), 0x3A, 0xFF])
def test_every_byte_flip_of_a_small_file(change: int) -> None:
    file, contents = small_file()
    for place in range(len(file.data)):
        damaged = bytearray(file.data)
        damaged[place] ^= change
        cut, before = file.before(place)
        events, error = read(bytes(damaged))
        groups = split(events)
        # What is whole before the byte is given as it was.
        assert groups[: len(before)] == before
        if isinstance(error, Damaged):
            assert cut <= error.cut <= error.position <= len(file.data)
            assert error.position >= cut
        if error is not None:
            assert isinstance(error, Newer) or error.cut >= cut
        elif place in contents:
            # Nobody can know, but nothing else may be different.
            assert sum(group != other for group, other in zip(groups, file.expected, strict=True)) == 1
        else:
            # A number or a name in an annotation may be as good as another. The commands are those that were written,
            # with MULTI and EXEC in any case of letters.
            assert commands_of(groups) == commands_of(file.expected)
            if groups != file.expected:
                line = file.data[file.data.rindex(b"\n", 0, place) + 1 :] if place > 40 else file.data
                assert line.startswith(b"#kevynode:")


# -- what files must not hold -----------------------------------------------------------------------------------------


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


# -- reading on, and reading what others wrote ------------------------------------------------------------------------


@given(files(), st.data())
def test_reading_can_begin_at_any_group(file: File, data: st.DataObject) -> None:
    place, count = data.draw(st.sampled_from(file.whole))
    whole = RecordReader()
    whole.feed(file.data[:place])
    assert whole.cut == place
    assert whole.header is not None
    assert whole.lineage is not None
    reader = RecordReader.resume(whole.header, Position(whole.lineage, whole.offset), place)
    if whole.ended:
        assert reader.finish() is None
        return
    events = reader.feed(file.data[place:])
    assert reader.finish() is None
    assert split(events) == file.expected[count:]


def test_state_after_reading() -> None:
    file, _ = small_file()
    reader = RecordReader()
    reader.feed(file.data)
    assert reader.header == FileHeader("incr", 3)
    assert reader.lineage == file.lineage
    assert reader.offset == file.offset
    assert reader.cut == len(file.data)
    assert reader.ended


def test_files_of_others_have_comments_and_no_header() -> None:
    comments = b"#TS:1700000000\r\n", b"# any\xff\0bytes\n", b"#" * (ANNOTATION_LIMIT - 1) + b"\n", b"#kevynode:x\r\n"
    data = b"".join(comment + SET_RECORD for comment in comments)
    data += MULTI + comments[1] + SET_RECORD + EXEC + MULTI + EXEC + b"*1\r\n$5\r\nmulti\r\n" + SET_RECORD * 2 + EXEC
    for cuts in ((), range(len(data))):
        events, error = read(data, cuts, foreign=True)
        assert error is None
        groups = [group for group in split(events) if isinstance(group, Group)]
        assert [(group.first, len(group.commands)) for group in groups] == [
            *((number, 1) for number in range(4)),
            *((4, 1), (5, 0), (5, 2)),
        ]
        assert [data[group.start : group.end] for group in groups[:4]] == [SET_RECORD] * 4
    assert read(b"", foreign=True)[1] is None
    assert read(data[:-3], foreign=True)[1] == Torn(len(data) - len(SET_RECORD * 2 + EXEC) - 15)
    _, error = read(b"#" * ANNOTATION_LIMIT + b"\n", foreign=True)
    assert error == Damaged(ANNOTATION_LIMIT - 1, "an annotation that is too long", 0)


def test_a_value_of_many_lines_among_plain_ones() -> None:
    value = b"\r\n".join(b"%d" % number for number in range(50_000))
    commands = [SET, [b"SET", b"lines", value], SET, [b"SET", b"lines", value + b"\r"], SET]
    events, error = read(START + encode_commands(commands))
    assert error is None
    assert [group.commands for group in split(events) if isinstance(group, Group)] == [
        _words([command]) for command in commands
    ]


def test_many_words() -> None:
    commands = [[b"RPUSH", b"key", *[b"%d" % number for number in range(size)]] for size in (1021, 1022, 5000)]
    data = START + encode_commands(commands)
    for cuts in ((), range(0, len(data), 1000)):
        events, error = read(data, cuts)
        assert error is None
        assert [group.commands for group in split(events) if isinstance(group, Group)] == [
            _words([command]) for command in commands
        ]


def test_what_was_said_of_one_group_does_not_hold_for_the_next() -> None:
    file = File()
    file.spanning([SET], 5)
    file.lone(SET)
    file.lone(SET)
    file.spanning([SET, SET], 0)
    file.several([SET, SET], None)
    assert file.offset == 109
    for cuts in ((), range(len(file.data))):
        events, error = read(file.data, cuts)
        assert error is None
        assert split(events) == file.expected


def test_groups_among_plain_commands() -> None:
    file = File()
    for number in range(300):
        file.lone([b"SET", b"%d" % number, b"v"])
        file.several([[b"DEL", b"a"], [b"FLUSHALL"], [b"SET", b"b", b"%d" % number]], None)
    for cuts in ((), range(0, len(file.data), 11)):
        events, error = read(file.data, cuts)
        assert error is None
        assert split(events) == file.expected
