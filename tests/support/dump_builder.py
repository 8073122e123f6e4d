"""Builds dump files and the forms inside them, byte by byte from their description, old ones included."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from kevynode.rdb.crc64 import crc64

END = b"\xff"


def length(number: int) -> bytes:
    """A length in the shortest form."""
    if number < 64:
        return bytes([number])
    if number < 16384:
        return bytes([0x40 | number >> 8, number & 255])
    if number < 1 << 32:
        return b"\x80" + number.to_bytes(4, "big")
    return b"\x81" + number.to_bytes(8, "big")


def text(data: bytes) -> bytes:
    """A text that is there byte for byte."""
    return length(len(data)) + data


def compressed(packed: bytes, size: int) -> bytes:
    """A compressed text of ``size`` bytes."""
    return b"\xc3" + length(len(packed)) + length(size) + packed


def key(kind: int, name: bytes, value: bytes) -> bytes:
    """A key with its value, already encoded."""
    return bytes([kind]) + text(name) + value


def dump(*records: bytes, magic: bytes = b"REDIS0009", checksum: bool = True) -> bytes:
    """A whole file."""
    body = magic + b"".join(records) + b"\xff"
    if magic.startswith(b"REDIS") and int(magic[5:]) < 5:
        return body
    return body + (crc64(body) if checksum else 0).to_bytes(8, "little")


def payload(kind: int, value: bytes, version: int = 11) -> bytes:
    """What DUMP answers."""
    body = bytes([kind]) + value + version.to_bytes(2, "little")
    return body + crc64(body).to_bytes(8, "little")


def intset(numbers: Sequence[int], width: int) -> bytes:
    """An intset of numbers of ``width`` bytes."""
    form = {2: "h", 4: "i", 8: "q"}[width]
    return struct.pack(f"<II{len(numbers)}{form}", width, len(numbers), *numbers)


def ziplist_element(element: bytes | int) -> bytes:
    """An element without what stands before it; numbers in the narrowest form, texts in the shortest."""
    if isinstance(element, int):
        if 0 <= element <= 12:
            return bytes([0xF1 + element])
        for kind, width in ((0xFE, 1), (0xC0, 2), (0xF0, 3), (0xD0, 4), (0xE0, 8)):
            if -(1 << 8 * width - 1) <= element < 1 << 8 * width - 1:
                return bytes([kind]) + element.to_bytes(width, "little", signed=True)
        raise ValueError(element)
    size = len(element)
    if size < 64:
        return bytes([size]) + element
    if size < 16384:
        return bytes([0x40 | size >> 8, size & 255]) + element
    return b"\x80" + size.to_bytes(4, "big") + element


def ziplist(elements: Iterable[bytes | int]) -> bytes:
    """A ziplist."""
    body = b""
    before = last = count = 0
    for element in elements:
        last = 10 + len(body)
        head = bytes([before]) if before < 254 else b"\xfe" + before.to_bytes(4, "little")
        encoded = head + ziplist_element(element)
        before = len(encoded)
        body += encoded
        count += 1
    return struct.pack("<IIH", 11 + len(body), last, min(count, 0xFFFF)) + body + END


def listpack_element(element: bytes | int) -> bytes:
    """An element with its length behind it; numbers in the narrowest form, texts in the shortest."""
    if isinstance(element, int):
        encoded = _listpack_number(element)
    elif len(element) < 64:
        encoded = bytes([0x80 | len(element)]) + element
    elif len(element) < 4096:
        encoded = bytes([0xE0 | len(element) >> 8, len(element) & 255]) + element
    else:
        encoded = b"\xf0" + len(element).to_bytes(4, "little") + element
    size = len(encoded)
    parts = [size & 127]
    # The limits are what the servers use, not what the bits could hold.
    for limit in (127, 16382, 2097150, 268435454):
        if size > limit:
            parts.append(size >> 7 * len(parts) & 127)
    back = [parts[-1], *(part | 128 for part in reversed(parts[:-1]))]
    return encoded + bytes(back)


def _listpack_number(number: int) -> bytes:
    if 0 <= number < 128:
        return bytes([number])
    if -4096 <= number < 4096:
        return (0xC000 | number & 0x1FFF).to_bytes(2, "big")
    for kind, width in ((0xF1, 2), (0xF2, 3), (0xF3, 4), (0xF4, 8)):
        if -(1 << 8 * width - 1) <= number < 1 << 8 * width - 1:
            return bytes([kind]) + number.to_bytes(width, "little", signed=True)
    raise ValueError(number)


def listpack(elements: Sequence[bytes | int]) -> bytes:
    """A listpack."""
    body = b"".join(map(listpack_element, elements))
    return struct.pack("<IH", 7 + len(body), min(len(elements), 0xFFFF)) + body + END


def zipmap(pairs: Iterable[tuple[bytes, bytes]], unused: int = 0) -> bytes:
    """A zipmap with ``unused`` bytes behind each value."""
    items = list(pairs)
    body = b""
    for field, value in items:
        body += _zipmap_length(field) + field + _zipmap_length(value) + bytes([unused]) + value + bytes(unused)
    return bytes([min(len(items), 254)]) + body + END


def _zipmap_length(data: bytes) -> bytes:
    return bytes([len(data)]) if len(data) < 254 else b"\xfe" + len(data).to_bytes(4, "little")
