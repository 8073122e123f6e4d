"""LCS: the longest common subsequence of two strings.

The table of the textbook algorithm has a cell for each pair of positions. Neighbouring cells differ by 0 or 1, so a
line of it fits an integer with one bit for each position of the longer string, and the next line follows from it with
a few operations on whole integers (Hyyrö, "Bit-parallel LCS-length computation revisited", 2004). That takes a 32nd of
the memory, and the way back through the table reads single bits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

import attrs

from ... import errors
from ...reply import Reply
from ..arguments import parse_int
from ..command import Args, command, key_range
from ..store import Store

_NOT_STRINGS: Final = errors.ErrorKind("ERR", "The specified keys must contain string values", errors.FIX)
_LENGTH_AND_INDEXES: Final = errors.ErrorKind(
    "ERR", "If you want both the length and indexes, please just use IDX.", errors.FIX
)
_TOO_LONG: Final = errors.ErrorKind("ERR", "String too long for LCS", errors.FIX)
_TOO_MUCH_MEMORY: Final = errors.ErrorKind(
    "ERR", "Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len", errors.FIX
)
# Valkey's table has cells of four bytes and 32-bit positions; what it refuses for them is refused here too.
_CELL: Final = 4
_MAX_POSITION: Final = (1 << 32) - 2


def _positions(text: bytes, wanted: set[int]) -> dict[int, int]:
    """For each wanted byte an integer with bit i set where ``text[i]`` is that byte."""
    backwards = text[::-1]
    table = bytearray(b"0" * 256)
    found: dict[int, int] = {}
    for byte in wanted:
        table[byte] = ord("1")
        found[byte] = int(backwards.translate(table), 2)
        table[byte] = ord("0")
    return found


def _lines(long: bytes, short: bytes) -> Iterator[int]:
    """A line for each prefix of ``short``: bit i is set where ``long[i]`` makes the LCS longer.

    ``short`` is not empty.
    """
    where = _positions(long, set(short))
    full = (1 << len(long)) - 1
    # The line's complement: set where the length stays.
    stays = full
    for byte in short:
        matches = stays & where[byte]
        stays = ((stays + matches) | (stays - matches)) & full
        yield stays ^ full


def lcs_length(first: bytes, second: bytes) -> int:
    """The length of the longest common subsequence."""
    long, short = (first, second) if len(first) >= len(second) else (second, first)
    if not short:
        return 0
    last = deque(_lines(long, short), maxlen=1)
    return last[0].bit_count()


def lcs_matches(first: bytes, second: bytes) -> list[tuple[int, int]]:
    """The pairs of positions (in ``first``, in ``second``) of one longest common subsequence, the last pair first.

    Of the many there may be it is the one that Valkey finds: from the ends, a match is taken; otherwise a step back in
    ``first`` is made only where that loses less than one in ``second``.
    """
    if not first or not second:
        return []
    if len(second) >= len(first):
        return _back_through_lines_of_second(first, second)
    return _back_through_lines_of_first(first, second)


def _back_through_lines_of_second(first: bytes, second: bytes) -> list[tuple[int, int]]:
    lines = list(_lines(second, first))
    pairs: list[tuple[int, int]] = []
    i, j = len(first), len(second)
    while i and j:
        if first[i - 1] == second[j - 1]:
            i -= 1
            j -= 1
            pairs.append((i, j))
            continue
        grown = lines[i - 1] & ((1 << j) - 1)
        if grown.bit_length() == j:
            # Without second[j - 1] the length would be less, and first[i - 1] does not match it: so i is not needed.
            i -= 1
        else:
            # Back to the next position that matches or where the length grows.
            j = max(grown.bit_length(), second.rfind(first[i - 1], 0, j) + 1)
    return pairs


def _back_through_lines_of_first(first: bytes, second: bytes) -> list[tuple[int, int]]:
    lines = [0, *_lines(first, second)]
    pairs: list[tuple[int, int]] = []
    i, j = len(first), len(second)
    while i and j:
        if first[i - 1] == second[j - 1]:
            i -= 1
            j -= 1
            pairs.append((i, j))
            continue
        # second[j - 1] makes first[:i] longer where an odd number of these bits is set, as the difference is 0 or 1.
        differing = (lines[j] ^ lines[j - 1]) & ((1 << i) - 1)
        if differing.bit_count() & 1:
            # Back to the next position that matches or where it makes no difference.
            i = max(differing.bit_length() - 1, first.rfind(second[j - 1], 0, i) + 1)
        else:
            j -= 1
    return pairs


def _ranges(pairs: list[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """Runs of neighbouring pairs as (start in the first, start in the second, length), the last run first."""
    place = 0
    while place < len(pairs):
        i, j = pairs[place]
        length = 1
        while place + length < len(pairs) and pairs[place + length] == (i - length, j - length):
            length += 1
        yield i - length + 1, j - length + 1, length
        place += length


@attrs.define
class _Options:
    length: bool = False
    indexes: bool = False
    with_lengths: bool = False
    min_length: int = 0


def _parse_options(argv: Args) -> _Options:
    options = _Options()
    place = 3
    while place < len(argv):
        word = argv[place].upper()
        if word == b"LEN":
            options.length = True
        elif word == b"IDX":
            options.indexes = True
        elif word == b"WITHMATCHLEN":
            options.with_lengths = True
        elif word == b"MINMATCHLEN" and place + 1 < len(argv):
            place += 1
            options.min_length = parse_int(argv[place])
        else:
            raise errors.SYNTAX()
        place += 1
    if options.length and options.indexes:
        raise _LENGTH_AND_INDEXES()
    return options


@command(
    "lcs",
    arity=-3,
    flags="readonly",
    keys=key_range("RO ACCESS", last=1),
    group="string",
    since="7.0.0",
    summary="The longest subsequence that two strings have in common, its length, or where it lies.",
    complexity="O(N*M), N and M the lengths of the strings",
    syntax="key1 key2 [LEN] [IDX] [MINMATCHLEN min-match-len] [WITHMATCHLEN]",
)
def lcs(store: Store, argv: Args) -> Reply:
    first, second = store.read(argv[1]), store.read(argv[2])
    first = b"" if first is None else first
    second = b"" if second is None else second
    if type(first) is not bytes or type(second) is not bytes:
        raise _NOT_STRINGS()
    options = _parse_options(argv)
    if max(len(first), len(second)) >= _MAX_POSITION:
        raise _TOO_LONG()
    if (len(first) + 1) * (len(second) + 1) * _CELL > store.settings.proto_max_bulk_len:
        raise _TOO_MUCH_MEMORY()
    if options.length:
        return lcs_length(first, second)
    pairs = lcs_matches(first, second)
    if not options.indexes:
        return bytes(first[i] for i, _ in reversed(pairs))
    matches: list[Reply] = []
    for i, j, length in _ranges(pairs):
        if length >= options.min_length:
            match: list[Reply] = [[i, i + length - 1], [j, j + length - 1]]
            if options.with_lengths:
                match.append(length)
            matches.append(match)
    return {b"matches": matches, b"len": len(pairs)}
