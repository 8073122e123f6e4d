"""The manifest of the append-only folder, as Valkey writes and reads it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kevynode.persist.manifest import (
    FILE_LIMIT,
    LINE_LIMIT,
    Manifest,
    ManifestError,
    ManifestFile,
    base_name,
    increment_name,
    manifest_name,
)

VALKEYS = (
    b"file appendonly.aof.2.base.rdb seq 2 type b\n"
    b"file appendonly.aof.1.base.rdb seq 1 type h\n"
    b"file appendonly.aof.1.incr.aof seq 1 type h\n"
    b"file appendonly.aof.2.incr.aof seq 2 type i startoffset 12 endoffset 345\n"
    b"file appendonly.aof.3.incr.aof seq 3 type i startoffset 345\n"
)


def test_names_are_valkeys() -> None:
    assert base_name(2) == "appendonly.aof.2.base.aof"
    assert increment_name(17) == "appendonly.aof.17.incr.aof"
    assert manifest_name() == "appendonly.aof.manifest"


def test_reading_what_valkey_wrote() -> None:
    manifest = Manifest.parse(VALKEYS)
    assert manifest.base == ManifestFile("appendonly.aof.2.base.rdb", 2, "b")
    assert manifest.base.is_rdb
    assert [file.name for file in manifest.history] == ["appendonly.aof.1.base.rdb", "appendonly.aof.1.incr.aof"]
    assert manifest.increments == (
        ManifestFile("appendonly.aof.2.incr.aof", 2, "i", (("startoffset", "12"), ("endoffset", "345"))),
        ManifestFile("appendonly.aof.3.incr.aof", 3, "i", (("startoffset", "345"),)),
    )
    assert not manifest.increments[0].is_rdb
    assert manifest.files == (manifest.base, *manifest.increments)
    assert manifest.format() == VALKEYS


@pytest.mark.parametrize(
    ("data", "files"),
    [
        (b"file a seq 1 type b\n", ["a"]),
        (b"file a seq 1 type i\n", ["a"]),
        (b"# says nothing\nfile a seq 1 type b\n#\n", ["a"]),
        (b"#\n", []),
        (b'  file "a b\\x01" seq 1 type i \r\n', ["a b\x01"]),
        (b"TYPE i SEQ 7 FILE 'a'\n", ["a"]),
        (b"file a seq 1 type i what ever\n", ["a"]),
        (b"file i seq 1 type i\nfile b seq 1 type b\nfile j seq 2 type i\n", ["b", "i", "j"]),
    ],
)
def test_what_is_a_manifest(data: bytes, files: list[str]) -> None:
    manifest = Manifest.parse(data)
    assert [file.name for file in manifest.files] == files
    if files:
        assert Manifest.parse(manifest.format()) == manifest


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "the manifest is empty"),
        (b"file a seq 1 type b", "line 1: the line does not end"),
        (b"file a seq 1 type b\nfile", "line 2: the line does not end"),
        (b"file a seq 1 type b\n\n", "line 2: expected: file <name> seq <number> type <b|h|i>"),
        (b"file a seq 1\n", "line 1: expected: file <name> seq <number> type <b|h|i>"),
        (b"file a seq 1 type i more\n", "line 1: expected: file <name> seq <number> type <b|h|i>"),
        (b'file "a seq 1 type i\n', "line 1: a quote is not closed"),
        (b"file a seq 1 seq 1 type i\n", "line 1: 'seq' is said twice"),
        (b"file a seq 1 kind i\n", "line 1: 'type' is missing"),
        (b"name a seq 1 type i\n", "line 1: 'file' is missing"),
        (b"file a seq 0 type i\n", "line 1: the number of a file is 1 or more, not '0'"),
        (b"file a seq 01 type i\n", "line 1: the number of a file is 1 or more, not '01'"),
        (b"file a seq -1 type i\n", "line 1: the number of a file is 1 or more, not '-1'"),
        (b"file a seq 9223372036854775808 type i\n", "line 1: the number of a file is 1 or more, not '922"),
        ("file a seq ٣ type i\n".encode(), "line 1: the number of a file is 1 or more, not '٣'"),
        (b"file a seq 1 type x\n", "line 1: the type of a file is b, h or i, not 'x'"),
        (b"file a seq 1 type bi\n", "line 1: the type of a file is b, h or i, not 'bi'"),
        (b'file a seq 1 type ""\n', "line 1: the type of a file is b, h or i, not ''"),
        (b"file ../a seq 1 type i\n", "line 1: '../a' is no name of a file in this folder"),
        (b"file .. seq 1 type i\n", "line 1: '..' is no name of a file in this folder"),
        (b'file "" seq 1 type i\n', "line 1: '' is no name of a file in this folder"),
        (b'file "a\\x00" seq 1 type i\n', "line 1: 'a\\x00' is no name of a file in this folder"),
        (b"file a seq 1 type b\nfile b seq 2 type b\n", "line 2: a second base"),
        (b"file a seq 2 type i\nfile b seq 2 type i\n", "line 2: increments must stand in order of their numbers"),
        (b"file a seq 2 type i\nfile b seq 1 type i\n", "line 2: increments must stand in order of their numbers"),
        (b"file a seq 1 type i\nfile a seq 2 type i\n", "line 2: the file a stands twice"),
        (b"#" * (LINE_LIMIT + 1) + b"\n", f"line 1: the line is longer than {LINE_LIMIT} bytes"),
        (b"#\n" * (FILE_LIMIT + 1), f"more than {FILE_LIMIT} files"),
    ],
)
def test_what_is_none(data: bytes, text: str) -> None:
    with pytest.raises(ManifestError) as raised:
        Manifest.parse(data)
    assert str(raised.value).startswith(text)
    assert str(raised.value).endswith(raised.value.reason)
    assert raised.value.line == (int(text.split()[1].rstrip(":")) if text.startswith("line") else 0)


@given(st.binary(max_size=80) | st.text("file seq 1 type bhi\n#\"'\\", max_size=80).map(str.encode))
def test_any_bytes_are_a_manifest_or_none(data: bytes) -> None:
    try:
        manifest = Manifest.parse(data)
    except ManifestError:
        return
    assert Manifest.parse(manifest.format() or b"#\n") == manifest


NAMES = st.text(min_size=1, max_size=20).filter(lambda name: not {"/", "\0"} & set(name) and name not in (".", ".."))


@given(st.lists(NAMES, unique=True, max_size=5), st.booleans(), st.data())
def test_what_was_written_is_read(names: list[str], based: bool, data: st.DataObject) -> None:
    names = [name for name in names if name.isprintable() or name.isascii()]
    base = [ManifestFile(name, data.draw(st.integers(1, 2**63 - 1)), "b") for name in names[:based]]
    increments = [ManifestFile(name, number, "i") for number, name in enumerate(names[based:], 1)]
    manifest = Manifest(base[0] if base else None, tuple(increments))
    assert Manifest.parse(manifest.format() or b"#\n") == manifest


def test_numbers_go_up_from_one_set_of_files_to_the_next() -> None:
    manifest = Manifest()
    assert (manifest.next_base, manifest.next_increment) == (1, 1)
    manifest = manifest.with_base(1).with_increment(1).with_increment(2)
    assert (manifest.next_base, manifest.next_increment) == (2, 3)
    manifest = manifest.with_base(manifest.next_base).with_increment(manifest.next_increment)
    assert manifest.format() == (
        b"file appendonly.aof.2.base.aof seq 2 type b\n"
        b"file appendonly.aof.1.base.aof seq 1 type h\n"
        b"file appendonly.aof.1.incr.aof seq 1 type h\n"
        b"file appendonly.aof.2.incr.aof seq 2 type h\n"
        b"file appendonly.aof.3.incr.aof seq 3 type i\n"
    )
    assert (manifest.next_base, manifest.next_increment) == (3, 4)
    manifest = manifest.without_history()
    assert [file.name for file in manifest.files] == ["appendonly.aof.2.base.aof", "appendonly.aof.3.incr.aof"]
    assert (manifest.next_base, manifest.next_increment) == (3, 4)


def test_a_name_that_is_taken_is_not_given_again() -> None:
    # All increments are gone, and one of them may still be on the disk.
    manifest = Manifest.parse(b"file a seq 4 type b\nfile b seq 9 type h\n")
    assert (manifest.next_base, manifest.next_increment) == (10, 10)


def test_a_base_takes_the_place_of_some_increments_only() -> None:
    manifest = Manifest().with_base(1).with_increment(1).with_increment(2).with_increment(3)
    later = manifest.with_base(2, keep_from=3)
    assert [(file.name, file.type) for file in later.files] == [
        ("appendonly.aof.2.base.aof", "b"),
        ("appendonly.aof.3.incr.aof", "i"),
    ]
    assert [file.sequence for file in later.history] == [1, 1, 2]


def test_increments_are_added_in_order() -> None:
    manifest = Manifest().with_increment(3)
    with pytest.raises(ValueError, match="increment 3 cannot follow 3"):
        manifest.with_increment(3)


@pytest.mark.parametrize(
    ("types", "left_out"),
    [
        ("b1 i1", None),
        ("b2 h1 i3", None),
        ("b2 hb1 h1 h2 i3", None),
        # Valkey writes this while the file is switched off.
        ("b2 hb1 h1", None),
        ("b1 h1", "appendonly.aof.1.incr.aof"),
        ("b1 i1 h2", "appendonly.aof.2.incr.aof"),
        ("b1 i1 h2 i3", "appendonly.aof.2.incr.aof"),
        ("hb1 i1", "appendonly.aof.1.base.aof"),
        ("b1 hb2 i1", "appendonly.aof.2.base.aof"),
    ],
)
def test_what_nothing_can_have_superseded_is_left_out(types: str, left_out: str | None) -> None:
    lines = []
    for word in types.split():
        kind = "base" if "b" in word else "incr"
        number = word.lstrip("bhi")
        lines.append(f"file appendonly.aof.{number}.{kind}.aof seq {number} type {word[0]}\n")
    found = Manifest.parse("".join(lines).encode()).left_out()
    assert (None if found is None else found.name) == left_out
