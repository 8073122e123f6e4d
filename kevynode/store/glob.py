"""Glob patterns as KEYS, SCAN, PSUBSCRIBE and CONFIG GET take them: ``*``, ``?``, ``[a-z]``, ``[^a]`` and escapes.

A pattern is cut at its stars into segments. Every segment matches a fixed number of bytes, so it is enough to find each
at the first place behind the one before it: matching takes at most len(pattern) * len(data) steps whatever the pattern.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

__all__ = ["Matcher", "compile_glob", "glob_match"]

Matcher: TypeAlias = Callable[[bytes], bool]

#: As Valkey 9, whose matcher calls itself for every star: a pattern with more stars before others matches nothing.
STAR_LIMIT: Final = 1000

_STAR, _ANY, _OPEN, _CLOSE, _ESCAPE, _NOT, _RANGE = b"*?[]\\^-"


class _Segment:
    """What stands between two stars: pieces of literal bytes and of classes, each at its offset."""

    __slots__ = ("anchor", "anchor_offset", "classes", "literals", "width")

    def __init__(
        self, literals: list[tuple[int, bytes]], classes: list[tuple[int, frozenset[int]]], width: int
    ) -> None:
        self.width = width
        self.literals = literals
        self.classes = classes
        # The longest literal is searched for; the rest is checked where it is found.
        self.anchor_offset, self.anchor = max(literals, key=lambda piece: len(piece[1]), default=(0, b""))

    def fits(self, data: bytes, text: bytes, place: int) -> bool:
        """Whether the segment matches at ``place``; the caller knows that enough bytes follow."""
        for offset, literal in self.literals:
            if not text.startswith(literal, place + offset):
                return False
        return all(data[place + offset] in members for offset, members in self.classes)

    def find(self, data: bytes, text: bytes, start: int, stop: int) -> int:
        """The first place from ``start`` where the segment matches and ends at ``stop`` or before; -1 if none."""
        offset, anchor = self.anchor_offset, self.anchor
        last = stop - self.width
        place = start
        while place <= last:
            if anchor:
                found = text.find(anchor, place + offset, last + offset + len(anchor))
                if found < 0:
                    return -1
                place = found - offset
            if self.fits(data, text, place):
                return place
            place += 1
        return -1


def compile_glob(pattern: bytes, nocase: bool = False) -> Matcher:
    """A function that says whether bytes match ``pattern``, as Valkey 9; ``nocase`` makes ASCII letters equal.

    Never raises: an unclosed class ends with the pattern, a backslash at the end stands for itself. Of the empty string
    only the empty pattern is a match, not ``*``.
    """
    segments = _cut(pattern, nocase)
    if len(segments) - 1 - (pattern.endswith(b"*") and not segments[-1].width) > STAR_LIMIT:
        return lambda data: not data and not pattern
    if len(segments) == 1:
        return _whole(segments[0], nocase)
    first, middle, last = segments[0], segments[1:-1], segments[-1]
    shortest = sum(segment.width for segment in segments)

    def match(data: bytes) -> bool:
        size = len(data)
        if size < shortest or not size:
            return False
        text = data.lower() if nocase else data
        if not first.fits(data, text, 0) or not last.fits(data, text, size - last.width):
            return False
        place, stop = first.width, size - last.width
        for segment in middle:
            place = segment.find(data, text, place, stop)
            if place < 0:
                return False
            place += segment.width
        return True

    return match


def glob_match(pattern: bytes, data: bytes, nocase: bool = False) -> bool:
    """Whether ``data`` matches ``pattern``; see :func:`compile_glob`, which is better for several data."""
    return compile_glob(pattern, nocase)(data)


def _whole(segment: _Segment, nocase: bool) -> Matcher:
    width = segment.width
    return lambda data: len(data) == width and segment.fits(data, data.lower() if nocase else data, 0)


def _cut(pattern: bytes, nocase: bool) -> list[_Segment]:
    """The segments between the stars of ``pattern``; several stars in a row are one."""
    segments: list[_Segment] = []
    literals: list[tuple[int, bytes]] = []
    classes: list[tuple[int, frozenset[int]]] = []
    run = bytearray()
    width = 0

    def end_run() -> None:
        if run:
            literals.append((width - len(run), bytes(run).lower() if nocase else bytes(run)))
            run.clear()

    place, size = 0, len(pattern)
    while place < size:
        byte = pattern[place]
        if byte == _STAR:
            end_run()
            segments.append(_Segment(literals, classes, width))
            literals, classes, width = [], [], 0
            while place + 1 < size and pattern[place + 1] == _STAR:
                place += 1
        elif byte == _ANY:
            end_run()
            width += 1
        elif byte == _OPEN:
            end_run()
            members, place = _read_class(pattern, place + 1, nocase)
            classes.append((width, members))
            width += 1
        else:
            if byte == _ESCAPE and place + 1 < size:
                place += 1
            run.append(pattern[place])
            width += 1
        place += 1
    end_run()
    segments.append(_Segment(literals, classes, width))
    return segments


def _read_class(pattern: bytes, place: int, nocase: bool) -> tuple[frozenset[int], int]:
    """The bytes that the class starting at ``place`` matches, and the index of its last byte."""
    size = len(pattern)
    negated = place < size and pattern[place] == _NOT
    if negated:
        place += 1
    members: set[int] = set()
    while place < size and pattern[place] != _CLOSE:
        byte = pattern[place]
        if byte == _ESCAPE and place + 1 < size:
            place += 1
            members.add(pattern[place])
        elif place + 2 < size and pattern[place + 1] == _RANGE:
            members |= _range(byte, pattern[place + 2], nocase)
            place += 2
        elif nocase:
            members |= {byte, *bytes((byte,)).lower(), *bytes((byte,)).upper()}
        else:
            members.add(byte)
        place += 1
    if negated:
        members = set(range(256)) - members
    return frozenset(members), min(place, size - 1)


def _signed(byte: int) -> int:
    return byte - 256 if byte > 127 else byte


def _range(first: int, last: int, nocase: bool) -> set[int]:
    """The bytes from ``first`` to ``last``, in either order; bytes above 127 come before 0, as signed chars do."""
    low, high = sorted((_signed(first), _signed(last)))
    if not nocase:
        return {byte % 256 for byte in range(low, high + 1)}
    low, high = _lower(low), _lower(high)
    return {byte for byte in range(256) if low <= _lower(_signed(byte)) <= high}


def _lower(char: int) -> int:
    return char + 32 if 65 <= char <= 90 else char
