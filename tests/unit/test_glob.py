"""Glob patterns: the table of odd cases, and a plain recursive matcher as the judge of the rest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kevynode.store.glob import STAR_LIMIT, compile_glob, glob_match

ALPHABET = [b"a", b"A", b"b", b"z", b"]", b"-", b"^", b"\\", b"*", b"?", b"[", b"\xff", b"\x00"]


@pytest.mark.parametrize(
    ("pattern", "matching", "failing"),
    [
        (b"", [b""], [b"a"]),
        (b"*", [b"a", b"abc"], [b""]),
        (b"**", [b"a"], [b""]),
        (b"?", [b"a", b"\xff", b"\n"], [b"", b"ab"]),
        (b"h?llo", [b"hello", b"h\nllo"], [b"hllo", b"heello"]),
        (b"h*llo", [b"hllo", b"heeello"], [b"hell", b"xhllo"]),
        (b"*?", [b"a", b"ab"], [b""]),
        (b"?*", [b"a", b"ab"], [b""]),
        (b"a*b*c", [b"abc", b"a-b-b-c", b"abcbc"], [b"acb", b"abcd"]),
        (b"*ab*ab*", [b"abab", b"xabyabz"], [b"aba", b"ab"]),
        (b"a*a", [b"aa", b"aba"], [b"a"]),
        (b"a\\*b", [b"a*b"], [b"axb"]),
        (b"a\\", [b"a\\"], [b"a"]),
        (b"\\", [b"\\"], [b""]),
        (b"[", [], [b"[", b"a", b""]),
        (b"[]", [], [b"]", b"a"]),
        (b"[]]", [], [b"]"]),
        (b"[^]", [b"a", b"]"], [b""]),
        (b"[^", [b"a"], [b""]),
        (b"[a", [b"a"], [b"[", b"b"]),
        (b"[a-", [b"a", b"-"], [b"b"]),
        # A range takes whatever byte follows, so the bracket is its end and the class runs on.
        (b"[a-]", [b"a", b"]", b"^"], [b"-", b"b"]),
        (b"[a-c]", [b"a", b"b", b"c"], [b"d", b"-"]),
        (b"[c-a]", [b"a", b"b", b"c"], [b"d"]),
        (b"[\\a-z]", [b"a", b"-", b"z"], [b"b"]),
        (b"[\\]]", [b"]"], [b"\\"]),
        (b"[a\\]", [b"a", b"]"], [b"\\"]),
        (b"[\\", [b"\\"], [b"["]),
        (b"[^a-c]", [b"d", b"-"], [b"a", b"b"]),
        (b"[a-\xff]", [b"a", b"A", b"\x00", b"\xff", b"]"], [b"z", b"\xfe", b"b"]),
        (b"[\xf0-\xff]", [b"\xf0", b"\xff"], [b"a", b"\xef"]),
        (b"[[]x]", [b"[x]"], [b"x"]),
        (b"a[^", [b"ab", b"a-"], [b"a", b"abc"]),
    ],
)
def test_table(pattern: bytes, matching: list[bytes], failing: list[bytes]) -> None:
    match = compile_glob(pattern)
    assert [data for data in matching if not match(data)] == []
    assert [data for data in failing if match(data)] == []


@pytest.mark.parametrize(
    ("pattern", "data", "expected"),
    [
        (b"MAX*", b"maxmemory", True),
        (b"max*", b"MAXMEMORY", True),
        (b"[M]AX", b"max", True),
        (b"[A-C]x", b"bX", True),
        (b"[a-c]x", b"BX", True),
        (b"[\\M]", b"m", False),
        (b"[\\M]", b"M", True),
        (b"*memory-P*", b"maxmemory-policy", True),
        (b"[^m]ax", b"Max", False),
    ],
)
def test_nocase(pattern: bytes, data: bytes, expected: bool) -> None:
    assert glob_match(pattern, data, nocase=True) is expected


def test_stars_beyond_the_limit_match_nothing() -> None:
    data = b"a" * (STAR_LIMIT + 500)
    assert glob_match(b"*a" * STAR_LIMIT, data)
    assert glob_match(b"*a" * STAR_LIMIT + b"*", data)
    assert glob_match(b"a*" * (STAR_LIMIT + 1), data)
    assert not glob_match(b"*a" * (STAR_LIMIT + 1), data)


def test_no_pattern_takes_exponential_time() -> None:
    """A backtracking matcher would not end before the universe does."""
    assert not glob_match(b"*a" * 900 + b"b", b"a" * 20_000)
    assert not glob_match(b"*?[ab]a" * 200 + b"[^a]", b"a" * 5_000)


def judge(pattern: bytes, data: bytes, nocase: bool) -> bool:
    """Match by trying everything, byte by byte."""

    def fold(byte: int) -> int:
        return ord(chr(byte).lower()) if nocase and 0 <= byte < 128 else byte

    def char(byte: int) -> int:
        return byte - 256 if byte > 127 else byte

    def in_class(place: int, byte: int) -> tuple[bool, int]:
        """Whether the class at ``place`` has ``byte``, and where the pattern goes on."""
        found = False
        negated = pattern[place : place + 1] == b"^"
        place += negated
        while True:
            rest = pattern[place:]
            if rest[:1] == b"\\" and len(rest) >= 2:
                found |= rest[1] == byte
                place += 2
            elif not rest or rest[:1] == b"]":
                return found != negated, min(place + 1, len(pattern))
            elif len(rest) >= 3 and rest[1:2] == b"-":
                low, high = sorted((char(rest[0]), char(rest[2])))
                found |= fold(low) <= fold(char(byte)) <= fold(high)
                place += 3
            else:
                found |= fold(rest[0]) == fold(byte)
                place += 1

    def walk(place: int, at: int) -> bool:
        while place < len(pattern) and at < len(data):
            head = pattern[place : place + 1]
            if head == b"*":
                return place + 1 == len(pattern) or any(walk(place + 1, later) for later in range(at, len(data) + 1))
            if head == b"[":
                fits, place = in_class(place + 1, data[at])
                if not fits:
                    return False
            else:
                if head == b"\\" and place + 1 < len(pattern):
                    place += 1
                if head != b"?" and fold(pattern[place]) != fold(data[at]):
                    return False
                place += 1
            at += 1
        if at == len(data) and data:
            while pattern[place : place + 1] == b"*":
                place += 1
        return place == len(pattern) and at == len(data)

    return walk(0, 0)


text = st.lists(st.sampled_from(ALPHABET), max_size=9).map(b"".join)


@given(text, text, st.booleans())
def test_as_the_judge_says(pattern: bytes, data: bytes, nocase: bool) -> None:
    assert glob_match(pattern, data, nocase) is judge(pattern, data, nocase)
