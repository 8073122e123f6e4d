"""Reads a replication stream for tests, in the plainest way and with no part of the package."""

from __future__ import annotations

from collections.abc import Iterator


def words_of(data: bytes, place: int) -> tuple[list[bytes], int]:
    """The command at ``place``, multibulk or inline, and where it ends."""
    line_end = data.index(b"\r\n", place)
    line = data[place:line_end]
    if not line.startswith(b"*"):
        return line.split(), line_end + 2
    place = line_end + 2
    words = []
    for _ in range(int(line[1:])):
        line_end = data.index(b"\r\n", place)
        assert data[place : place + 1] == b"$"
        length = int(data[place + 1 : line_end])
        words.append(data[line_end + 2 : line_end + 2 + length])
        place = line_end + 4 + length
    return words, place


def parse(data: bytes) -> Iterator[tuple[str, int, list[bytes]]]:
    """The stream as (what, number, words): the offset of a frame, the size of a group, the target of a skip."""
    place = 0
    while place < len(data):
        line_end = data.index(b"\r\n", place)
        line = data[place:line_end]
        place = line_end + 2
        if line == b"*2":
            line_end = data.index(b"\r\n", place)
            assert data[place : place + 1] == b":"
            words, end = words_of(data, line_end + 2)
            yield "frame", int(data[place + 1 : line_end]), words
            place = end
        else:
            kind, number = line.split()
            yield {b"+TXN": "group", b"+SKIP": "skip"}[kind], int(number), []
