"""LCS: the bit-parallel table against the textbook's, and the command around it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.store_harness import Harness

from kevynode.store.commands.lcs import lcs_length, lcs_matches
from kevynode.store.settings import StoreSettings


def textbook(first: bytes, second: bytes) -> list[tuple[int, int]]:
    """The pairs that the plain table of lengths leads to, walked back as Valkey walks it."""
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, byte in enumerate(first, 1):
        for j, other in enumerate(second, 1):
            table[i][j] = table[i - 1][j - 1] + 1 if byte == other else max(table[i - 1][j], table[i][j - 1])
    pairs = []
    i, j = len(first), len(second)
    while i and j:
        if first[i - 1] == second[j - 1]:
            i, j = i - 1, j - 1
            pairs.append((i, j))
        elif table[i - 1][j] > table[i][j - 1]:
            i -= 1
        else:
            j -= 1
    assert len(pairs) == table[-1][-1]
    return pairs


TEXTS = st.one_of(st.binary(max_size=40), st.text("ab", max_size=40).map(str.encode), st.text("abcd").map(str.encode))


@given(TEXTS, TEXTS)
def test_the_same_pairs_as_the_textbook(first: bytes, second: bytes) -> None:
    pairs = textbook(first, second)
    assert lcs_matches(first, second) == pairs
    assert lcs_length(first, second) == len(pairs)


@pytest.mark.parametrize(("first_size", "second_size"), [(1, 200_000), (200_000, 1), (3, 60_000), (60_000, 3)])
def test_a_short_string_against_a_long_one(first_size: int, second_size: int) -> None:
    text = b"abcde" * 40_000
    first, second = text[:first_size], text[1 : second_size + 1]
    pairs = lcs_matches(first, second)
    assert len(pairs) == lcs_length(first, second) > 0
    assert all(first[i] == second[j] for i, j in pairs)
    assert all(i > k and j > m for (i, j), (k, m) in pairwise(pairs))


@pytest.fixture
def harness() -> Harness:
    harness = Harness()
    harness.call("MSET", "a", "ohmytext", "b", "mynewtext")
    return harness


def test_the_subsequence_and_its_length(harness: Harness) -> None:
    assert harness.call("LCS", "a", "b") == b"mytext"
    assert harness.call("LCS", "a", "b", "LEN") == 6
    assert harness.call("LCS", "a", "none") == b""
    assert harness.call("LCS", "none", "a", "len") == 0
    assert harness.call("LCS", "a", "b", "MINMATCHLEN", 4, "WITHMATCHLEN") == b"mytext"


def test_where_it_lies(harness: Harness) -> None:
    ends, starts = [[4, 7], [5, 8]], [[2, 3], [0, 1]]
    assert harness.call("LCS", "a", "b", "IDX") == {b"matches": [ends, starts], b"len": 6}
    assert harness.call("LCS", "a", "b", "IDX", "MINMATCHLEN", 4) == {b"matches": [ends], b"len": 6}
    assert harness.call("LCS", "a", "b", "IDX", "MINMATCHLEN", -1) == {b"matches": [ends, starts], b"len": 6}
    with_lengths = {b"matches": [[*ends, 4], [*starts, 2]], b"len": 6}
    assert harness.call("LCS", "a", "b", "withmatchlen", "idx") == with_lengths
    assert harness.call("LCS", "a", "none", "IDX") == {b"matches": [], b"len": 0}
    assert harness.wire(3, "LCS", "a", "none", "IDX") == b"%2\r\n$7\r\nmatches\r\n*0\r\n$3\r\nlen\r\n:0\r\n"
    assert harness.wire(2, "LCS", "a", "none", "IDX") == b"*4\r\n$7\r\nmatches\r\n*0\r\n$3\r\nlen\r\n:0\r\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a b FOO", "ERR syntax error"),
        ("a b MINMATCHLEN", "ERR syntax error"),
        ("a b MINMATCHLEN x", "ERR value is not an integer or out of range"),
        ("a b LEN IDX", "ERR If you want both the length and indexes, please just use IDX."),
        ("a l FOO", "ERR The specified keys must contain string values"),
        ("l none", "ERR The specified keys must contain string values"),
    ],
)
def test_what_is_refused(harness: Harness, line: str, message: str) -> None:
    harness.call("RPUSH", "l", "x")
    assert harness.text("LCS", *line.split()) == message


def test_a_table_that_valkey_could_not_hold_is_refused() -> None:
    harness = Harness(settings=StoreSettings(proto_max_bulk_len=4 * 11 * 11))
    harness.call("MSET", "a", "x" * 10, "b", "x" * 11)
    assert harness.call("LCS", "a", "a", "LEN") == 10
    too_much = "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len"
    assert harness.text("LCS", "a", "b", "LEN") == too_much
