"""What an append-only file is written with: records, groups, and the annotations between them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.records import encode_groups, encode_spanning

from kevynode.persist.annotations import (
    ANNOTATION_LIMIT,
    Annotation,
    AnnotationError,
    Digest,
    End,
    FileHeader,
    GroupSpan,
    Local,
    MadeBy,
    NewerFormat,
    Position,
    UpstreamCursor,
    parse_annotation,
)
from kevynode.persist.records import (
    EXEC,
    MULTI,
    encode_commands,
    file_start,
    record_size,
)
from kevynode.replicate.lineage import ANCESTOR_LIMIT, HISTORY_LIMIT, MAX_OFFSET, Lineage
from kevynode.resp import RequestParser
from kevynode.store.journal import Effect, Origin

SET = [b"SET", b"key", b"value"]
SET_RECORD = b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5\r\nvalue\r\n"
WORDS = st.binary(max_size=20) | st.integers(4090, 5000).map(bytes)
COMMANDS = st.lists(WORDS, min_size=1, max_size=6)


def effects(*commands: list[bytes]) -> list[Effect]:
    return [(command, None, ()) for command in commands]


# -- records ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "record"),
    [
        (SET, SET_RECORD),
        ([b"DEL", b"key"], b"*2\r\n$3\r\nDEL\r\n$3\r\nkey\r\n"),
        ([b"FLUSHALL"], b"*1\r\n$8\r\nFLUSHALL\r\n"),
        ([b"HSET", b"", b"\r\n", b"\0"], b"*4\r\n$4\r\nHSET\r\n$0\r\n\r\n$2\r\n\r\n\r\n$1\r\n\0\r\n"),
    ],
)
def test_a_command_is_a_multibulk(command: list[bytes], record: bytes) -> None:
    assert encode_commands([command]) == record
    assert encode_groups([effects(command)]) == record
    assert record_size(command) == len(record)


@given(st.lists(COMMANDS, max_size=8))
def test_what_is_written_is_what_a_server_reads(commands: list[list[bytes]]) -> None:
    data = encode_commands(commands)
    assert RequestParser().feed(data) == commands
    assert sum(map(record_size, commands)) == len(data)
    assert encode_groups([effects(command) for command in commands]) == data


def test_groups_of_several_stand_between_multi_and_exec() -> None:
    data = encode_groups([effects(SET), effects(SET, [b"DEL", b"a"], SET), effects(SET), effects(SET, SET)])
    assert RequestParser().feed(data) == [
        SET,
        *([b"MULTI"], SET, [b"DEL", b"a"], SET, [b"EXEC"]),
        SET,
        *([b"MULTI"], SET, SET, [b"EXEC"]),
    ]
    assert encode_groups([]) == b""


@given(st.lists(st.lists(COMMANDS, min_size=1, max_size=3), max_size=6))
def test_groups_written_one_by_one_or_together_are_the_same(groups: list[list[list[bytes]]]) -> None:
    all_effects = [effects(*group) for group in groups]
    assert encode_groups(all_effects) == b"".join(encode_groups([group]) for group in all_effects)


def test_a_group_may_take_other_offsets_than_it_has_entries() -> None:
    assert encode_spanning([SET], 12) == b"#kevynode:group next=12\r\n" + SET_RECORD
    assert encode_spanning([SET, SET], 11) == b"#kevynode:group next=11\r\n" + MULTI + SET_RECORD * 2 + EXEC


def test_how_a_file_begins() -> None:
    assert file_start("base", 3, Lineage(7, ((5, 100), (4, 20))), 110) == (
        b"#kevynode:file version=1 kind=base seq=3\r\n#kevynode:position history=7 offset=110 lineage=5@100,4@20\r\n"
    )


# -- annotations ------------------------------------------------------------------------------------------------------

NUMBERS = st.integers(0, MAX_OFFSET)
HISTORIES = st.integers(1, HISTORY_LIMIT - 1)
ANY_HISTORY = st.integers(0, 2**64 - 1)
CHECKSUMS = st.integers(0, 2**32 - 1)
ADDRESSES = st.text(st.characters(codec="utf-8"), max_size=30)


@st.composite
def lineages(draw: st.DrawFn) -> Lineage:
    histories = draw(st.lists(HISTORIES, min_size=1, max_size=ANCESTOR_LIMIT + 1, unique=True))
    return Lineage(histories[0], tuple((history, draw(NUMBERS)) for history in histories[1:]))


ANNOTATIONS: st.SearchStrategy[Annotation] = st.one_of(
    st.builds(FileHeader, st.sampled_from(["base", "incr", "stage"]), NUMBERS),
    st.builds(Position, lineages(), NUMBERS, st.none() | NUMBERS),
    st.builds(UpstreamCursor, ADDRESSES, ANY_HISTORY, NUMBERS),
    st.builds(MadeBy, st.none() | st.builds(Origin, ADDRESSES, ANY_HISTORY)),
    st.builds(GroupSpan, NUMBERS),
    st.builds(Local, st.booleans()),
    st.builds(End, NUMBERS),
    st.builds(lambda crc32, places: Digest(crc32, max(places), min(places)), CHECKSUMS, st.tuples(NUMBERS, NUMBERS)),
)


@given(ANNOTATIONS)
def test_an_annotation_is_one_line_that_says_what_it_said(annotation: Annotation) -> None:
    line = annotation.line()
    assert len(line) <= ANNOTATION_LIMIT
    assert line.startswith(b"#kevynode:")
    assert line.endswith(b"\r\n")
    assert all(0x20 <= byte < 0x7F for byte in line[:-2])
    assert parse_annotation(line) == annotation


@given(ANNOTATIONS, st.data())
def test_a_line_says_something_in_one_way_only(annotation: Annotation, data: st.DataObject) -> None:
    line = bytearray(annotation.line())
    place = data.draw(st.integers(0, len(line) - 1))
    line[place] ^= data.draw(st.integers(1, 255))
    try:
        read = parse_annotation(bytes(line))
    except AnnotationError:
        return
    assert read != annotation
    assert read.line() == line


@pytest.mark.parametrize(
    ("annotation", "line"),
    [
        (Position(Lineage(7), 0), b"#kevynode:position history=7 offset=0 lineage=\r\n"),
        (Position(Lineage(7), 20, 12), b"#kevynode:position history=7 offset=20 lineage= after=12\r\n"),
        (UpstreamCursor("[::1]:6379", 5, 9), b"#kevynode:cursor upstream=[::1]:6379 history=5 offset=9\r\n"),
        (UpstreamCursor("a b=%\n", 5, 9), b"#kevynode:cursor upstream=a%20b%3D%25%0A history=5 offset=9\r\n"),
        (MadeBy(None), b"#kevynode:origin own\r\n"),
        (MadeBy(Origin("host:1", 8)), b"#kevynode:origin upstream=host:1 history=8\r\n"),
        (MadeBy(Origin("\udcff", 8)), b"#kevynode:origin upstream=%FF history=8\r\n"),
        (Local(True), b"#kevynode:local yes\r\n"),
        (Local(False), b"#kevynode:local no\r\n"),
        (End(3), b"#kevynode:end commands=3\r\n"),
        (Digest(2**32 - 1, 90, 0), b"#kevynode:digest crc32=4294967295 place=90 synced=0\r\n"),
    ],
)
def test_how_annotations_look(annotation: Annotation, line: bytes) -> None:
    assert annotation.line() == line
    assert parse_annotation(line) == annotation


def test_the_longest_lineage_fits() -> None:
    oldest = HISTORY_LIMIT - 1 - ANCESTOR_LIMIT
    ancestors = tuple((history, MAX_OFFSET) for history in range(HISTORY_LIMIT - 2, oldest - 1, -1))
    position = Position(Lineage(HISTORY_LIMIT - 1, ancestors), MAX_OFFSET, MAX_OFFSET)
    assert len(ancestors) == ANCESTOR_LIMIT
    assert len(position.line()) < ANNOTATION_LIMIT
    assert parse_annotation(position.line()) == position


def test_an_address_that_is_too_long_is_refused() -> None:
    longest = ANNOTATION_LIMIT - len(UpstreamCursor("", 1, 2).line())
    assert len(UpstreamCursor("a" * longest, 1, 2).line()) == ANNOTATION_LIMIT
    with pytest.raises(ValueError, match="1023 bytes, not 1024"):
        UpstreamCursor("a" * (longest + 1), 1, 2).line()
    with pytest.raises(ValueError, match="at most 1023 bytes"):
        MadeBy(Origin("ä" * 400, 1)).line()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"# a comment\r\n", "no annotation of kevynode"),
        (b"#kevynode:end commands=" + b"1" * 1000 + b"\r\n", "no annotation of kevynode"),
        (b"#kevynode:\r\n", "not known"),
        (b"#kevynode:news x=1\r\n", "not known"),
        (b"#kevynode:digest crc32=1 place=2\r\n", "not known"),
        (b"#kevynode:digest crc32=4294967296 place=2 synced=1\r\n", "a number up to 4294967295"),
        (b"#kevynode:digest crc32=1 place=2 synced=3\r\n", "a number up to 2"),
        (b"#kevynode:local\r\n", "not spelled"),
        (b"#kevynode:local yes no\r\n", "not spelled"),
        (b"#kevynode:end\r\n", "not known"),
        (b"#kevynode:origin\r\n", "not known"),
        (b"#kevynode:end commands=\xff\r\n", "not known"),
        (b"#kevynode:end commands=-1\r\n", "a number up to"),
        (b"#kevynode:end commands=%d\r\n" % 2**63, "a number up to"),
        (b"#kevynode:end commands=01\r\n", "not spelled"),
        (b"#kevynode:end commands=1\n", "not spelled"),
        (b"#kevynode:end  commands=1\r\n", "not spelled"),
        (b"#kevynode:end commands=1 more=2\r\n", "not spelled"),
        (b"#kevynode:cursor upstream=%41 history=1 offset=2\r\n", "not spelled"),
        (b"#kevynode:origin own=1\r\n", "not spelled"),
        (b"#kevynode:file version=1 kind=rdb seq=1\r\n", "base, incr or stage, not 'rdb'"),
        (b"#kevynode:file version=0 kind=base seq=1\r\n", "no format version 0"),
        (b"#kevynode:position history=0 offset=1 lineage=\r\n", "at least 1"),
        (b"#kevynode:position history=3 offset=1 lineage=3@4\r\n", "stands twice"),
        (b"#kevynode:position history=3 offset=1 lineage=4\r\n", "a number up to"),
        (b"#kevynode:position history=3 offset=1 lineage=4@5,\r\n", "a number up to"),
    ],
)
def test_what_is_no_annotation(line: bytes, reason: str) -> None:
    with pytest.raises(AnnotationError, match=reason):
        parse_annotation(line)


@pytest.mark.parametrize("rest", [b"", b" kind=base seq=1", b" and=whatever comes=then"])
def test_a_newer_format_is_told_by_its_version(rest: bytes) -> None:
    with pytest.raises(NewerFormat, match="format version 2, newer than 1") as raised:
        parse_annotation(b"#kevynode:file version=2%b\r\n" % rest)
    assert raised.value.version == 2
