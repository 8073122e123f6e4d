"""RDB files read in one call."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from support import dump_builder as build
from support.dump_builder import dump, text
from support.store_harness import Content, describe

from kevynode.rdb import RdbError, RdbReader
from kevynode.store.values import Value

FUTURE = 4_000_000_000_000


def read(data: bytes, piece: int = 65536, **options: Any) -> tuple[Content, RdbReader]:
    found: Content = {}

    def put(name: bytes, value: Value, deadline: int | None) -> None:
        found[name] = describe(value), deadline

    reader = RdbReader(put, **options)
    for place in range(0, len(data), piece):
        reader.feed(data[place : place + piece])
    reader.finish()
    return found, reader


def value_of(record: bytes, magic: bytes = b"REDIS0009") -> Any:
    """The value of the key ``k``, read whole and byte by byte."""
    data = dump(record, magic=magic)
    found = read(data)[0]
    assert read(data, 1)[0] == found
    assert found[b"k"][1] is None
    return found[b"k"][0]


def refused(record: bytes, magic: bytes = b"REDIS0009") -> str:
    """Why a record is refused, whole and byte by byte."""
    data = dump(record, magic=magic)
    reasons = []
    for piece in (len(data), 1):
        with pytest.raises(RdbError) as caught:
            read(data, piece)
        assert 0 < caught.value.offset <= len(data)
        reasons.append((caught.value.reason, caught.value.offset))
    assert reasons[0] == reasons[1]
    return reasons[0][0]


def stream_node(*entries: tuple[int, int, list[bytes]], base: tuple[int, int] = (5, 0)) -> bytes:
    elements: list[bytes | int] = [len(entries), 0, 1, b"f", 0]
    for ms, sequence, words in entries:
        shift = (ms - base[0], sequence - base[1])
        if words[::2] == [b"f"]:
            elements += [2, *shift, words[1], 4]
        else:
            elements += [0, *shift, len(words) // 2, *words, len(words) + 4]
    return text(struct.pack(">QQ", *base)) + text(build.listpack(elements))
