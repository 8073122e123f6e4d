"""The compact forms in which Redis and Valkey store small containers, and the compression of their strings.

All numbers are little-endian unless said otherwise. Each form is read by a class that is made with the whole blob and
gives its elements as bytes, numbers in decimal, some at a time; :class:`EncodingError` names the place in the blob.
"""

from __future__ import annotations

from struct import Struct
from struct import error as StructError  # noqa: N812  an exception of the standard library under a telling name
from typing import Final, Protocol

__all__ = ["EncodingError", "IntSet", "ListPack", "Packed", "ZipList", "ZipMap", "expand"]

_U16: Final = Struct("<H").unpack_from
_U32: Final = Struct("<I").unpack_from
_BIG_U32: Final = Struct(">I").unpack_from
_I16: Final = Struct("<h").unpack_from
_I32: Final = Struct("<i").unpack_from
_I64: Final = Struct("<q").unpack_from
_TWO_U32: Final = Struct("<II").unpack_from

_SMALL_NUMBERS: Final = [b"%d" % number for number in range(128)]
#: A count of elements that did not fit its 16 bits: count them yourself.
_UNCOUNTED: Final = 0xFFFF
_END: Final = 0xFF


class EncodingError(Exception):
    """A blob is damaged. ``place`` is the byte in it, ``reason`` what is wrong there."""

    def __init__(self, place: int, reason: str) -> None:
        super().__init__(reason)
        self.place = place
        self.reason = reason


class Packed(Protocol):
    """A blob that is read element by element."""

    def take(self, limit: int) -> list[bytes]:
        """The next elements, at most ``limit``; fewer, and then none, at the end. Raises EncodingError."""


def expand(data: bytes, position: int, out: bytearray, limit: int) -> int:
    """Expand LZF-compressed ``data`` from ``position`` on onto ``out``; where the first token stands that is not whole.

    A token is a byte below 32 and one literal byte more than it says, or a reference: 3 bits of length (7: one more
    byte of it follows) and 13 bits of distance back. ``out`` must hold the 8,192 bytes before, if there were so many.
    Raises EncodingError for a reference before the start and as soon as ``out`` has more than ``limit`` bytes.
    """
    size = len(data)
    while position < size:
        control = data[position]
        if control < 32:
            following = position + control + 2
            if following > size:
                break
            out += data[position + 1 : following]
        else:
            length = (control >> 5) + 2
            following = position + 2
            if length == 9:
                if following >= size:
                    break
                length += data[position + 1]
                following += 1
            elif following > size:
                break
            distance = ((control & 31) << 8 | data[following - 1]) + 1
            start = len(out) - distance
            if start < 0:
                raise EncodingError(position, "compressed text refers to what is before its start")
            if distance >= length:
                out += out[start : start + length]
            else:
                # The copy reads what it has just written.
                out += (out[start:] * (length // distance + 1))[:length]
        if len(out) > limit:
            raise EncodingError(position, "compressed text is longer than it says")
        position = following
    return position


class ListPack:
    """u32 size of all, u16 number of elements, the elements, 0xFF. Behind each element stands its length backwards."""

    __slots__ = ("_blob", "_count", "_left", "_position")

    def __init__(self, blob: bytes) -> None:
        if len(blob) < 7 or _U32(blob)[0] != len(blob) or blob[-1] != _END:
            raise EncodingError(0, "listpack has another size than it says")
        self._blob = blob
        self._position = 6
        self._count = _U16(blob, 4)[0]
        self._left = self._count

    def take(self, limit: int) -> list[bytes]:
        """The next elements, at most ``limit``."""
        blob, position = self._blob, self._position
        elements: list[bytes] = []
        append = elements.append
        numbers = _SMALL_NUMBERS
        try:
            while limit:
                kind = blob[position]
                if kind < 0x80:
                    append(numbers[kind])
                    position += 2
                elif kind < 0xC0:
                    stop = position + (kind & 0x3F) + 1
                    append(blob[position + 1 : stop])
                    position = stop + 1
                elif kind == _END:
                    break
                else:
                    element, stop = _large_element(blob, position, kind)
                    append(element)
                    position = stop + _backwards_size(stop - position)
                limit -= 1
        except (IndexError, StructError):
            raise EncodingError(min(position, len(blob)), "listpack ends in the middle of an element") from None
        self._left -= len(elements)
        if position >= len(blob):
            raise EncodingError(min(position, len(blob)), "listpack ends in the middle of an element")
        if limit and (position != len(blob) - 1 or (self._left and self._count != _UNCOUNTED)):
            raise EncodingError(position, "listpack has another number of elements than it says")
        self._position = position
        return elements


def _large_element(blob: bytes, position: int, kind: int) -> tuple[bytes, int]:
    """The element of a listpack that starts at ``position`` with the byte ``kind``, and where its content stops."""
    if kind < 0xE0:
        number = (kind & 0x1F) << 8 | blob[position + 1]
        return b"%d" % (number - 0x2000 if number >= 0x1000 else number), position + 2
    if kind < 0xF0:
        start = position + 2
        stop = start + ((kind & 0x0F) << 8 | blob[position + 1])
        return blob[start:stop], stop
    if kind == 0xF0:
        start = position + 5
        stop = start + _U32(blob, position + 1)[0]
        return blob[start:stop], stop
    if kind == 0xF1:
        return b"%d" % _I16(blob, position + 1)[0], position + 3
    if kind == 0xF2:
        return b"%d" % _three_bytes(blob, position + 1), position + 4
    if kind == 0xF3:
        return b"%d" % _I32(blob, position + 1)[0], position + 5
    if kind == 0xF4:
        return b"%d" % _I64(blob, position + 1)[0], position + 9
    raise EncodingError(position, f"listpack has an element of the unknown kind {kind}")


def _three_bytes(blob: bytes, position: int) -> int:
    digits = blob[position : position + 3]
    if len(digits) < 3:
        raise IndexError
    return int.from_bytes(digits, "little", signed=True)


def _backwards_size(size: int) -> int:
    """Bytes that an element's length takes behind the element, 7 bits in each."""
    if size < 128:
        return 1
    if size < 16383:
        return 2
    if size < 2097151:
        return 3
    return 4 if size < 268435455 else 5


class ZipList:
    """u32 size of all, u32 place of the last element, u16 number of elements, the elements, 0xFF (Redis up to 6.2).

    Before each element stands the size of the one before it, in one byte or, behind 0xFE, in four.
    """

    __slots__ = ("_blob", "_count", "_left", "_position")

    def __init__(self, blob: bytes) -> None:
        if len(blob) < 11 or _U32(blob)[0] != len(blob) or blob[-1] != _END:
            raise EncodingError(0, "ziplist has another size than it says")
        self._blob = blob
        self._position = 10
        self._count = _U16(blob, 8)[0]
        self._left = self._count

    def take(self, limit: int) -> list[bytes]:
        """The next elements, at most ``limit``."""
        blob, position = self._blob, self._position
        elements: list[bytes] = []
        try:
            while limit:
                before = blob[position]
                if before == _END:
                    break
                start = position + (5 if before == 0xFE else 1)
                kind = blob[start]
                if kind < 0x40:
                    position = start + 1 + kind
                    elements.append(blob[start + 1 : position])
                elif kind < 0xC0:
                    if kind < 0x80:
                        size = (kind & 0x3F) << 8 | blob[start + 1]
                        start += 2
                    elif kind == 0x80:
                        size = _BIG_U32(blob, start + 1)[0]
                        start += 5
                    else:
                        raise EncodingError(start, f"ziplist has an element of the unknown kind {kind}")
                    position = start + size
                    elements.append(blob[start:position])
                else:
                    number, position = _ziplist_number(blob, start, kind)
                    elements.append(b"%d" % number)
                limit -= 1
        except (IndexError, StructError):
            raise EncodingError(min(position, len(blob)), "ziplist ends in the middle of an element") from None
        self._left -= len(elements)
        if position >= len(blob):
            raise EncodingError(min(position, len(blob)), "ziplist ends in the middle of an element")
        if limit and (position != len(blob) - 1 or (self._left and self._count != _UNCOUNTED)):
            raise EncodingError(position, "ziplist has another number of elements than it says")
        self._position = position
        return elements


def _ziplist_number(blob: bytes, start: int, kind: int) -> tuple[int, int]:
    """The number of a ziplist whose ``kind`` stands at ``start``, and where it stops."""
    if kind == 0xC0:
        return _I16(blob, start + 1)[0], start + 3
    if kind == 0xD0:
        return _I32(blob, start + 1)[0], start + 5
    if kind == 0xE0:
        return _I64(blob, start + 1)[0], start + 9
    if kind == 0xF0:
        return _three_bytes(blob, start + 1), start + 4
    if kind == 0xFE:
        number = blob[start + 1]
        return number - 256 if number >= 128 else number, start + 2
    if 0xF1 <= kind <= 0xFD:
        return kind - 0xF1, start + 1
    raise EncodingError(start, f"ziplist has an element of the unknown kind {kind}")


class IntSet:
    """u32 size of a number (2, 4 or 8), u32 how many, and the signed numbers, ascending."""

    __slots__ = ("_blob", "_position", "_size")

    def __init__(self, blob: bytes) -> None:
        if len(blob) < 8:
            raise EncodingError(0, "intset is too short")
        self._size, count = _TWO_U32(blob)
        if self._size not in (2, 4, 8) or len(blob) != 8 + count * self._size:
            raise EncodingError(0, "intset has another size than it says")
        self._blob = blob
        self._position = 8

    def take(self, limit: int) -> list[bytes]:
        """The next numbers, at most ``limit``."""
        part = self._blob[self._position : self._position + limit * self._size]
        self._position += len(part)
        form = {2: "h", 4: "i", 8: "q"}[self._size]
        return [b"%d" % number for number in Struct(f"<{len(part) // self._size}{form}").unpack(part)]


class ZipMap:
    """A byte that counts up to 253 pairs, then fields and values in turn, 0xFF (Redis before 2.6).

    A length is one byte or, behind 0xFE, four. Behind a value's length stands how many unused bytes follow the value.
    """

    __slots__ = ("_blob", "_left", "_position")

    def __init__(self, blob: bytes) -> None:
        if len(blob) < 2 or blob[-1] != _END:
            raise EncodingError(0, "zipmap does not end as one")
        self._blob = blob
        self._left = blob[0]
        self._position = 1

    def take(self, limit: int) -> list[bytes]:
        """The next fields and values in turn, at most ``limit``, an even number."""
        blob, position = self._blob, self._position
        elements: list[bytes] = []
        try:
            while len(elements) < limit and blob[position] != _END:
                for unused_follows in (False, True):
                    size = blob[position]
                    position += 1
                    if size == 0xFE:
                        size = _U32(blob, position)[0]
                        position += 4
                    elif size == _END:
                        raise EncodingError(position - 1, "zipmap has a field without a value")
                    unused = 0
                    if unused_follows:
                        unused = blob[position]
                        position += 1
                    elements.append(blob[position : position + size])
                    position += size + unused
        except (IndexError, StructError):
            raise EncodingError(min(position, len(blob)), "zipmap ends in the middle of a pair") from None
        if position >= len(blob):
            raise EncodingError(min(position, len(blob)), "zipmap ends in the middle of a pair")
        self._left -= len(elements) // 2
        ended = len(elements) < limit
        if ended and (position != len(blob) - 1 or (self._left and blob[0] < 254)):
            raise EncodingError(position, "zipmap has another number of pairs than it says")
        self._position = position
        return elements
