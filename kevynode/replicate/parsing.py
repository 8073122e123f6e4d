"""What the parsers of this package share: unsigned numbers, and commands that arrive in pieces.

:class:`CommandReader` is exact and resumable. It never looks at a byte twice, so that dripped bytes cost no more than
their number, and it stops at the same place with the same complaint however its input was cut.
"""

from __future__ import annotations

from typing import Final

from ..resp import ARGUMENT_LIMIT, BULK_LIMIT, INLINE_LIMIT, split_inline

__all__ = ["CommandReader", "Malformed", "canonical", "unsigned"]

# Longest line that announces a count or a length, without its line end: a sign byte and more digits than either needs.
_LENGTH_LINE_LIMIT: Final = 32


class Malformed(Exception):
    """These bytes are no command. ``place`` is where the buffer can be read on by those who ignore such things."""

    def __init__(self, text: str, place: int) -> None:
        super().__init__(text)
        self.text = text
        self.place = place


def unsigned(digits: bytes, limit: int) -> int | None:
    """The unsigned decimal number ``digits``, leading zeros allowed; None for anything else and above ``limit``."""
    if not digits.isdigit():
        return None
    short = digits.lstrip(b"0")
    if len(short) > 20:
        return None
    number = int(short or b"0")
    return number if number <= limit else None


def canonical(digits: bytes | bytearray) -> int | None:
    """The number of a count or length line: unsigned, no leading zero; None for anything else."""
    if not digits.isdigit() or len(digits) > 20 or (len(digits) > 1 and digits[0] == 0x30):
        return None
    return int(digits)


class CommandReader:
    """Takes one command after another, multibulk or inline, off a buffer that grows at its end.

    ``bulk_limit`` bounds one argument in bytes, ``argument_limit`` their number.
    """

    __slots__ = ("_argument_limit", "_arguments", "_bulk_limit", "_left", "_length", "_searched")

    def __init__(self, bulk_limit: int = BULK_LIMIT, argument_limit: int = ARGUMENT_LIMIT) -> None:
        self._bulk_limit = bulk_limit
        self._argument_limit = argument_limit
        self._arguments: list[bytes] = []
        self._left = 0
        self._length = -1
        # How much of an unfinished inline line has been searched for its end.
        self._searched = 0

    @property
    def idle(self) -> bool:
        """Whether no command is under way."""
        return self._left == 0 and self._searched == 0

    def start_over(self) -> None:
        """Forget the command under way: it will be read again from its beginning."""
        self._left = 0
        self._length = -1
        self._arguments = []
        self._searched = 0

    def read(self, buffer: bytearray, place: int) -> tuple[int, list[bytes] | None]:
        """Go on at ``place``: where to go on next, and the command if it is complete (a blank line: ``[]``).

        While no command is complete, call it again with the place returned and more bytes behind it. Raises
        :class:`Malformed`; the reader is then ready for the next command.
        """
        if self._left == 0:
            if place == len(buffer):
                return place, None
            if buffer[place] != 0x2A:
                return self._inline(buffer, place)
            end = self._line_end(buffer, place)
            if end < 0:
                return place, None
            count = canonical(buffer[place + 1 : end])
            if count is None or not 0 < count <= self._argument_limit:
                raise Malformed("invalid multibulk length", end + 2)
            place = end + 2
            self._left = count
            self._arguments = []
        try:
            place = self._bulks(buffer, place)
        except Malformed:
            self._left = 0
            self._length = -1
            self._arguments = []
            raise
        if self._left:
            return place, None
        arguments = self._arguments
        self._arguments = []
        return place, arguments

    def _bulks(self, buffer: bytearray, place: int) -> int:
        """Take what has arrived of the running command's arguments."""
        size = len(buffer)
        while self._left:
            if self._length < 0:
                if place == size:
                    break
                if buffer[place] != 0x24:
                    raise Malformed("expected '$'", place)
                end = self._line_end(buffer, place)
                if end < 0:
                    break
                length = canonical(buffer[place + 1 : end])
                if length is None or length > self._bulk_limit:
                    raise Malformed("invalid bulk length", end + 2)
                self._length = length
                place = end + 2
            stop = place + self._length
            # The line end is looked at as soon as its first byte is there.
            if size <= stop:
                break
            if buffer[stop] != 0x0D or (size > stop + 1 and buffer[stop + 1] != 0x0A):
                raise Malformed("no line end behind an argument", stop)
            if size == stop + 1:
                break
            self._arguments.append(bytes(buffer[place:stop]))
            self._length = -1
            self._left -= 1
            place = stop + 2
        return place

    @staticmethod
    def _line_end(buffer: bytearray, place: int) -> int:
        """Where the line end of a count or length line starts, or -1 while it has not arrived."""
        end = buffer.find(b"\r\n", place, place + _LENGTH_LINE_LIMIT + 2)
        if end < 0 and len(buffer) - place > _LENGTH_LINE_LIMIT + 1:
            raise Malformed("length line too long", place + 1)
        return end

    def _inline(self, buffer: bytearray, place: int) -> tuple[int, list[bytes] | None]:
        end = buffer.find(b"\n", place + self._searched)
        if (len(buffer) if end < 0 else end) - place > INLINE_LIMIT:
            self._searched = 0
            raise Malformed("too big inline request", place + 1)
        if end < 0:
            self._searched = len(buffer) - place
            return place, None
        self._searched = 0
        line = bytes(buffer[place:end])
        words = split_inline(line[:-1] if line.endswith(b"\r") else line)
        if words is None:
            raise Malformed("unbalanced quotes in request", end + 1)
        return end + 1, words
