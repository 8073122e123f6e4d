"""The lengths and texts that dump files are made of, read as they arrive."""

from __future__ import annotations

from io import BytesIO
from struct import Struct
from struct import error as StructError  # noqa: N812  an exception of the standard library under a telling name
from typing import Final

from .encodings import EncodingError, expand
from .source import PAUSES, FormatError, StepReader, Steps

__all__ = ["RdbError", "TextReader"]

_BIG_U32: Final = Struct(">I").unpack_from
_BIG_U64: Final = Struct(">Q").unpack_from
_I16: Final = Struct("<h").unpack_from
_I32: Final = Struct("<i").unpack_from

# First bytes of lengths of more than 14 bits, and of texts that are not there byte for byte.
_LENGTH_32: Final = 0x80
_LENGTH_64: Final = 0x81
_INT_8: Final = 0xC0
_INT_16: Final = 0xC1
_INT_32: Final = 0xC2
_COMPRESSED: Final = 0xC3

#: Compressed bytes that are expanded at once.
_EXPANDED_AT_ONCE: Final = 8 * 1024
#: References reach so far back.
_WINDOW: Final = 8192


class RdbError(FormatError):
    """The bytes are no dump file, a damaged one, or one that holds what cannot be read here."""


class TextReader(StepReader):
    """Reads lengths and texts; a coroutine where they may not have arrived, a plain method where they have.

    The plain ones take and return a place in the buffer, and raise IndexError or ``struct.error`` where it ends too
    early. Lengths that are announced cost nothing until the bytes come.
    """

    def _error(self, reason: str, offset: int | None = None) -> RdbError:
        return RdbError(self.source.offset if offset is None else offset, reason)

    def _length(self) -> Steps[int]:
        """The next length or plain number."""
        source = self.source
        start = source.offset
        first = (yield from source.take(1))[0]
        if first < 0x40:
            return first
        if first < 0x80:
            return (first & 0x3F) << 8 | (yield from source.take(1))[0]
        if first == _LENGTH_32:
            return int.from_bytes((yield from source.take(4)), "big")
        if first == _LENGTH_64:
            return int.from_bytes((yield from source.take(8)), "big")
        raise self._error(f"{first:#x} begins no length", start)

    def _text(self) -> Steps[bytes]:
        """The next text."""
        source = self.source
        yield from source.wait()
        try:
            text, source.position = self._arrived_text(source.buffer, source.position)
            return text
        except (IndexError, StructError):
            # It has not arrived whole, or is too much for one step.
            pass
        # The same again, now with the patience to wait for its bytes; what it begins with is known to be right.
        start = source.offset
        first = (yield from source.take(1))[0]
        if first < 0xC0:
            if first < 0x40:
                size = first
            elif first < 0x80:
                size = (first & 0x3F) << 8 | (yield from source.take(1))[0]
            else:
                size = int.from_bytes((yield from source.take(4 if first == _LENGTH_32 else 8)), "big")
            return (yield from source.take(size))
        if first == _COMPRESSED:
            return (yield from self._compressed(start))
        number = yield from source.take(1 << (first & 0x3F))
        return b"%d" % int.from_bytes(number, "little", signed=True)

    def _compressed(self, start: int) -> Steps[bytes]:
        """The compressed text that began at the input's offset ``start``, behind its first byte."""
        packed = yield from self._length()
        size = yield from self._length()
        out = bytearray()
        done = BytesIO()
        rest = b""
        left = packed
        while left:
            data = yield from self.source.some(min(left, _EXPANDED_AT_ONCE))
            left -= len(data)
            data = rest + data
            try:
                rest = data[expand(data, 0, out, size - done.tell()) :]
            except EncodingError as error:
                raise self._error(error.reason, start) from None
            if len(out) > 4 * _WINDOW:
                done.write(out[:-_WINDOW])
                del out[:-_WINDOW]
            yield PAUSES
        done.write(out)
        if rest or done.tell() != size:
            raise self._error("compressed text is shorter than it says", start)
        return done.getvalue()

    def _arrived_text(self, buffer: bytes, position: int) -> tuple[bytes, int]:
        """The text that starts at ``position``, and where it stops."""
        first = buffer[position]
        if first < 0x40:
            start = position + 1
            stop = start + first
        elif first < 0x80:
            start = position + 2
            stop = start + ((first & 0x3F) << 8 | buffer[position + 1])
        elif first == _INT_8:
            number = buffer[position + 1]
            return b"%d" % (number - 256 if number >= 128 else number), position + 2
        elif first == _INT_16:
            return b"%d" % _I16(buffer, position + 1)[0], position + 3
        elif first == _INT_32:
            return b"%d" % _I32(buffer, position + 1)[0], position + 5
        elif first == _COMPRESSED:
            return self._arrived_compressed(buffer, position)
        elif first in (_LENGTH_32, _LENGTH_64):
            size, start = self._arrived_length(buffer, position)
            stop = start + size
        else:
            raise self._error(f"{first:#x} begins no text", self.source.base + position)
        if stop > len(buffer):
            raise IndexError
        return buffer[start:stop], stop

    def _arrived_length(self, buffer: bytes, position: int) -> tuple[int, int]:
        """The length that starts at ``position``, and where it stops."""
        first = buffer[position]
        if first < 0x40:
            return first, position + 1
        if first < 0x80:
            return (first & 0x3F) << 8 | buffer[position + 1], position + 2
        if first == _LENGTH_32:
            return _BIG_U32(buffer, position + 1)[0], position + 5
        if first == _LENGTH_64:
            return _BIG_U64(buffer, position + 1)[0], position + 9
        raise self._error(f"{first:#x} begins no length", self.source.base + position)

    def _arrived_compressed(self, buffer: bytes, position: int) -> tuple[bytes, int]:
        packed, place = self._arrived_length(buffer, position + 1)
        size, place = self._arrived_length(buffer, place)
        stop = place + packed
        if stop > len(buffer) or packed > _EXPANDED_AT_ONCE:
            raise IndexError
        out = bytearray()
        try:
            end = expand(buffer[place:stop], 0, out, size)
        except EncodingError as error:
            raise self._error(error.reason, self.source.base + position) from None
        if end != packed or len(out) != size:
            raise self._error("compressed text is shorter than it says", self.source.base + position)
        return bytes(out), stop

    def _arrived_texts(self, limit: int) -> list[bytes]:
        """The next texts, at most ``limit``, that have arrived whole."""
        source = self.source
        buffer, position = source.buffer, source.position
        size = len(buffer)
        read = self._arrived_text
        texts: list[bytes] = []
        append = texts.append
        try:
            while limit:
                first = buffer[position]
                if first < 0x40:
                    stop = position + 1 + first
                    if stop > size:
                        break
                    append(buffer[position + 1 : stop])
                    position = stop
                else:
                    text, position = read(buffer, position)
                    append(text)
                limit -= 1
        except (IndexError, StructError):
            # The next one has not arrived whole, or is too much for one step.
            pass
        except RdbError:
            # Those before it may be wrong as well, and are looked at first.
            if not texts:
                raise
        source.position = position
        return texts

    def _texts(self, limit: int) -> Steps[list[bytes]]:
        """The next texts: as many as have arrived, at least one and at most ``limit``."""
        texts = self._arrived_texts(limit)
        if not texts:
            texts.append((yield from self._text()))
        return texts
