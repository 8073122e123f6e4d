"""The kinds of value, and the two ways they are written."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kevynode.config_values import (
    Addresses,
    Boolean,
    Choice,
    Endpoint,
    Identifier,
    Integer,
    Kind,
    Path,
    PrefixSelection,
    Size,
    join_address,
    parse_size,
    show,
    split_address,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512", 512),
        ("512b", 512),
        ("1k", 1000),
        ("1kb", 1024),
        ("2K", 2000),
        ("2Kb", 2048),
        ("1m", 1_000_000),
        ("1mb", 1 << 20),
        ("3g", 3_000_000_000),
        ("3GB", 3 << 30),
        ("1t", 10**12),
        ("1tb", 1 << 40),
        (" 64 mb ", 64 << 20),
        ("9223372036854775807", (1 << 63) - 1),
    ],
)
def test_sizes_have_the_units_of_valkey(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "mb", "1.5gb", "-1", "1xb", "0x10", "1 000", "١", "9223372036854775808", "9tbb"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(ValueError):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("h:1", ("h", 1)),
        ("10.0.0.1:65535", ("10.0.0.1", 65535)),
        ("[::1]:6004", ("::1", 6004)),
        ("[fe80::1%eth0]:5", ("fe80::1%eth0", 5)),
        ("db-2.internal.:7", ("db-2.internal.", 7)),
    ],
)
def test_addresses_round_trip(text: str, parts: tuple[str, int]) -> None:
    assert split_address(text) == parts
    assert join_address(*parts) == text


@pytest.mark.parametrize(
    "text", ["", "h", ":1", "h:", "h:x", "h:0", "h:65536", "h:-1", "::1:1", "[::1]", "[h]:1", "a b:1", "1.2.3:4", "h:١"]
)
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(ValueError):
        split_address(text)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (True, "true"),
        (3, "3"),
        ("a\nb\x1b", '"a\\nb\\x1b"'),
        ('say "x"', '"say \\"x\\""'),
        ({}, "a table"),
        ([], "a list"),
        (None, "a value of type NoneType"),
        (b"x", "a value of type bytes"),
    ],
)
def test_values_are_shown_on_one_line(value: object, shown: str) -> None:
    assert show(value) == shown


def test_long_values_are_cut() -> None:
    assert len(show("x" * 10_000)) == 60
    assert len(show("\x1b" * 10_000)) == 60


KINDS: list[tuple[Kind[Any], str, object]] = [
    (Integer(-5, 5), " -3 ", -3),
    (Integer(-5, 5), "+3", 3),
    (Size(), "1kb", 1024),
    (Boolean(), "YES", True),
    (Boolean(), "0", False),
    (Choice(("a", "b"), {"c": "a"}), " C ", "a"),
    (Path("a path"), "/tmp/x y", "/tmp/x y"),
    (Identifier(), "node-1.a_b:c#d", "node-1.a_b:c#d"),
    (Endpoint(optional=True), "", ""),
    (Endpoint(), "[::1]:05", "[::1]:5"),
    (Addresses(), "*, ::1,localhost", ("0.0.0.0", "::1", "localhost")),
    (PrefixSelection(), "ALL", "all"),
    (PrefixSelection(), "a:,b:", (b"a:", b"b:")),
]


@pytest.mark.parametrize(("kind", "text", "value"), KINDS, ids=str)
def test_text_of_variables_and_flags(kind: Kind[Any], text: str, value: object) -> None:
    assert kind.parse_text(text) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Integer(0, 5), "6"),
        (Integer(0, 5), "1_0"),
        (Integer(0, 5), "0x1"),
        (Integer(0, 5), "9" * 5000),
        (Boolean(), "maybe"),
        (Identifier(), ""),
        (Identifier(), "-a"),
        (Identifier(), "a" * 65),
        (Identifier(), "a\n"),
        (Addresses(), " , "),
        (Addresses(), "a_b..c"),
        (Addresses(), "-::1"),
    ],
    ids=str,
)
def test_text_that_is_refused(kind: Kind[Any], text: str) -> None:
    with pytest.raises(ValueError):
        kind.parse_text(text)


@given(st.text() | st.from_regex(r"[0-9a-z:\[\].%-]{0,20}", fullmatch=True))
def test_an_address_that_is_read_can_be_read_again(text: str) -> None:
    try:
        parts = split_address(text)
    except ValueError:
        return
    assert split_address(join_address(*parts)) == parts
