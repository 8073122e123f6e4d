"""The compact forms of containers, compression and the checksum of dump files."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import dump_builder as build

from kevynode.rdb.crc64 import Crc64, crc64
from kevynode.rdb.encodings import EncodingError, IntSet, ListPack, Packed, ZipList, ZipMap, expand

NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.integers(-5000, 5000)
TEXTS = st.binary(max_size=70) | st.integers(0, 20000).map(lambda size: b"x" * size)
ELEMENTS = st.lists(NUMBERS | TEXTS, max_size=30)
FORMS: list[Callable[[bytes], Packed]] = [IntSet, ListPack, ZipList, ZipMap]


def as_bytes(elements: list[Any]) -> list[bytes]:
    return [b"%d" % element if isinstance(element, int) else element for element in elements]


def everything(packed: Packed, limit: int) -> list[bytes]:
    found: list[bytes] = []
    while part := packed.take(limit):
        assert len(part) <= limit
        found += part
    assert packed.take(limit) == []
    return found


# -- forms ------------------------------------------------------------------------------------------------------------


@given(ELEMENTS, st.integers(1, 40))
def test_listpacks(elements: list[Any], limit: int) -> None:
    assert everything(ListPack(build.listpack(elements)), limit) == as_bytes(elements)


@given(ELEMENTS, st.integers(1, 40))
def test_ziplists(elements: list[Any], limit: int) -> None:
    assert everything(ZipList(build.ziplist(elements)), limit) == as_bytes(elements)


@given(st.lists(st.integers(-(2**15), 2**15 - 1)), st.sampled_from([2, 4, 8]), st.integers(1, 40))
def test_intsets(numbers: list[int], width: int, limit: int) -> None:
    assert everything(IntSet(build.intset(numbers, width)), limit) == as_bytes(numbers)


@given(st.lists(st.tuples(st.binary(max_size=300), st.binary(max_size=300)), max_size=9), st.integers(0, 5))
def test_zipmaps(pairs: list[tuple[bytes, bytes]], unused: int) -> None:
    assert everything(ZipMap(build.zipmap(pairs, unused)), 4) == [word for pair in pairs for word in pair]


def test_golden_bytes() -> None:
    """As the descriptions of the forms give them: two elements, ``a`` and 1000."""
    ziplist = bytes.fromhex("12000000 0d000000 0200 00 01 61 03 c0 e803 ff")
    assert everything(ZipList(ziplist), 9) == [b"a", b"1000"]
    assert build.ziplist([b"a", 1000]) == ziplist
    listpack = bytes.fromhex("0d000000 0200 81 61 02 c3e8 02 ff")
    assert everything(ListPack(listpack), 9) == [b"a", b"1000"]
    assert build.listpack([b"a", 1000]) == listpack
    zipmap = bytes.fromhex("02 03 666f6f 03 00 626172 05 68656c6c6f 05 00 776f726c64 ff")
    assert everything(ZipMap(zipmap), 2) == [b"foo", b"bar", b"hello", b"world"]
    intset = bytes.fromhex("02000000 02000000 ffff 0700")
    assert everything(IntSet(intset), 9) == [b"-1", b"7"]


def test_more_elements_than_the_count_can_say() -> None:
    elements = [1] * 70000
    assert everything(ListPack(build.listpack(elements)), 1000) == [b"1"] * 70000
    assert everything(ZipList(build.ziplist(elements)), 1000) == [b"1"] * 70000
    pairs = [(b"%d" % number, b"") for number in range(300)]
    assert len(everything(ZipMap(build.zipmap(pairs)), 10)) == 600


@pytest.mark.parametrize(
    ("form", "blob", "reason"),
    [
        (ListPack, b"", "another size"),
        (ListPack, build.listpack([1, 2])[:-1], "another size"),
        (ListPack, b"\x08\0\0\0\x01\0\x01\xff", "middle of an element"),
        (ListPack, b"\x0a\0\0\0\x02\0\x01\x01\xff\xff", "another number of elements"),
        (ListPack, b"\x09\0\0\0\x02\0\x01\x01\xff", "another number of elements"),
        (ListPack, b"\x0b\0\0\0\x01\0\xf0\xff\xff\xff\xff", "middle of an element"),
        (ListPack, b"\x09\0\0\0\x01\0\xf5\x01\xff", "unknown kind 245"),
        (ZipList, build.ziplist([])[:-1], "another size"),
        (ZipList, b"\x0d\0\0\0\x0a\0\0\0\x01\0\x00\x05\xff", "middle of an element"),
        (ZipList, b"\x0d\0\0\0\x0a\0\0\0\x02\0\x00\xf2\xff", "another number of elements"),
        (ZipList, b"\x0d\0\0\0\x0a\0\0\0\x01\0\x00\x90\xff", "unknown kind 144"),
        (ZipList, b"\x0d\0\0\0\x0a\0\0\0\x01\0\x00\xe1\xff", "unknown kind 225"),
        (IntSet, b"\x02\0\0", "too short"),
        (IntSet, b"\x03\0\0\0\x00\0\0\0", "another size"),
        (IntSet, b"\x02\0\0\0\xff\xff\xff\xff\x01\x02", "another size"),
        (ZipMap, b"\x01", "does not end"),
        (ZipMap, b"\x01\x01a\xff", "field without a value"),
        (ZipMap, b"\x01\x01a\x09\x00b\xff", "middle of a pair"),
        (ZipMap, b"\x02\x01a\x01\x00b\xff", "another number of pairs"),
    ],
)
def test_damaged_forms(form: Callable[[bytes], Packed], blob: bytes, reason: str) -> None:
    with pytest.raises(EncodingError, match=reason) as caught:
        everything(form(blob), 8)
    assert 0 <= caught.value.place <= len(blob)


def whole(form: Callable[[bytes], Packed], elements: list[Any]) -> bytes:
    if form is IntSet:
        return build.intset([7, 8, 9], 4)
    if form is ZipMap:
        return build.zipmap([(b"field", b"value"), (b"f" * 260, b"")])
    return build.listpack(elements) if form is ListPack else build.ziplist(elements)


@given(st.sampled_from(FORMS), ELEMENTS, st.data())
def test_any_damage_is_found_or_harmless(form: Callable[[bytes], Packed], elements: list[Any], data: Any) -> None:
    blob = bytearray(whole(form, elements))
    for _ in range(data.draw(st.integers(1, 3))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    outcomes = []
    for limit in (2, 10000):
        try:
            outcomes.append(everything(form(bytes(blob)), limit))
        except EncodingError as error:
            outcomes.append([error.reason.encode(), b"%d" % error.place])
    assert outcomes[0] == outcomes[1]


# -- compression ------------------------------------------------------------------------------------------------------


def expanded(tokens: list[Any]) -> tuple[bytes, bytes]:
    """Tokens (literal bytes, or (distance, length)) in compressed form, and what they stand for."""
    packed, out = bytearray(), bytearray()
    for token in tokens:
        if isinstance(token, bytes):
            packed += bytes([len(token) - 1]) + token
            out += token
        else:
            distance, size = token
            if distance > len(out):
                continue
            more = size - 2
            high, low = divmod(distance - 1, 256)
            packed += bytes([more << 5 | high, low]) if more < 7 else bytes([7 << 5 | high, more - 7, low])
            for _ in range(size):
                out.append(out[-distance])
    return bytes(packed), bytes(out)


TOKENS = st.lists(
    st.binary(min_size=1, max_size=32) | st.tuples(st.integers(1, 8192), st.integers(3, 264)), max_size=60
)


@given(TOKENS)
def test_compression(tokens: list[Any]) -> None:
    packed, expected = expanded(tokens)
    out = bytearray()
    assert expand(packed, 0, out, len(expected)) == len(packed)
    assert out == expected


@given(TOKENS, st.data())
def test_compression_in_pieces(tokens: list[Any], data: Any) -> None:
    packed, expected = expanded(tokens)
    out = bytearray()
    rest = b""
    place = 0
    while place < len(packed):
        size = data.draw(st.integers(1, 50))
        piece = rest + packed[place : place + size]
        place += size
        rest = piece[expand(piece, 0, out, len(expected)) :]
    assert not rest
    assert out == expected


def test_damaged_compression() -> None:
    with pytest.raises(EncodingError, match="before its start"):
        expand(b"\x00a\x20\x05", 0, bytearray(), 100)
    with pytest.raises(EncodingError, match="longer than it says"):
        expand(b"\x02abc", 0, bytearray(), 2)
    # A few bytes that stand for many are stopped where the announced size is passed.
    out = bytearray()
    with pytest.raises(EncodingError, match="longer than it says"):
        expand(b"\x00a" + b"\xe0\xff\x00" * 1000, 0, out, 500)
    assert len(out) < 1000


# -- checksum ---------------------------------------------------------------------------------------------------------


def slow_crc64(data: bytes) -> int:
    """The checksum by its definition, bit by bit."""
    checksum = 0
    for byte in data:
        checksum ^= byte
        for _ in range(8):
            checksum = checksum >> 1 ^ (0x95AC9329AC4BC9B5 if checksum & 1 else 0)
    return checksum


def test_known_checksums() -> None:
    assert crc64(b"") == 0
    assert crc64(b"123456789") == 0xE9C6D914C4B8D9CA


@pytest.mark.parametrize("size", [1, 1808, 1809, 1810, 1900, 3700, 32767, 32768, 70001])
def test_checksums_of_long_input(size: int) -> None:
    data = random.Random(size).randbytes(size)
    expected = slow_crc64(data)
    assert crc64(data) == expected
    chance = random.Random(size + 1)
    checksum = Crc64()
    place = 0
    while place < size:
        step = chance.randrange(1, 20000)
        checksum.update(data[place : place + step])
        place += step
        if chance.random() < 0.3:
            checksum.value()
    assert checksum.value() == expected
    assert checksum.value() == expected
