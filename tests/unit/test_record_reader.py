"""The reader of append-only files: what it gives, and what it says about files that end early or are damaged."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.record_files import LINEAGE, SET, SET_RECORD, START, Group, plain_words, read, split
from support.records import encode_spanning

from kevynode.persist.annotations import (
    ANNOTATION_LIMIT,
    Annotation,
    End,
    FileHeader,
    Local,
    MadeBy,
    Position,
    UpstreamCursor,
)
from kevynode.persist.record_reader import Damaged, Newer, RecordReader, Torn
from kevynode.persist.records import EXEC, MULTI, encode_commands, file_start
from kevynode.replicate.lineage import MAX_OFFSET, Lineage
from kevynode.store.journal import Origin

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
        self.add(data, Group(first, plain_words(commands), self.offset, place, start + len(data)), *held)

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
        plain_words([command]) for command in commands
    ]


def test_many_words() -> None:
    commands = [[b"RPUSH", b"key", *[b"%d" % number for number in range(size)]] for size in (1021, 1022, 5000)]
    data = START + encode_commands(commands)
    for cuts in ((), range(0, len(data), 1000)):
        events, error = read(data, cuts)
        assert error is None
        assert [group.commands for group in split(events) if isinstance(group, Group)] == [
            plain_words([command]) for command in commands
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
