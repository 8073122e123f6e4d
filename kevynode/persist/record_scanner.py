"""Takes single records off a file's bytes, exactly, and knows at which byte they stop being a file."""

from __future__ import annotations

import re
from typing import Final

from .annotations import ANNOTATION_LIMIT

__all__ = ["RecordScanner", "Wrong", "take_lines", "take_plain"]

# Most words of one command, and bytes of one word. What was written must be readable again, so these are no limits of
# what clients may send; they are there to tell damage from an end.
_WORD_LIMIT: Final = 2**31 - 1
_LENGTH_LIMIT: Final = 2**40
_DIGITS: Final = 13
# The first line and the length lines of most commands. A word alone may be MULTI or EXEC, and is not among them.
_COUNTS: Final = {b"*%d" % count: count for count in range(2, 1024)}
_HEADERS: Final = [b"$%d" % length for length in range(4096)]
_STAR: Final = 0x2A
_DOLLAR: Final = 0x24
_HASH: Final = 0x23
_UNPRINTABLE: Final = re.compile(rb"[^ -~]")


class Wrong(Exception):
    """No record goes on with the byte at index ``place`` of the buffer."""

    def __init__(self, place: int, reason: str) -> None:
        super().__init__(reason)
        self.place = place
        self.reason = reason


class RecordScanner:
    """Takes the record that ``buffer`` begins with, as its bytes arrive. It never looks at a value's bytes twice.

    ``foreign``: any line that starts with ``#`` is taken, with LF alone as its end, too, as Valkey does.
    """

    __slots__ = ("_foreign", "_left", "_length", "_place", "_words", "buffer")

    def __init__(self, foreign: bool) -> None:
        self._foreign = foreign
        self.buffer = bytearray()
        # How far the running record has been read, its words, how many are missing, and the length of the next one
        # (-1: not announced yet).
        self._place = 0
        self._words: list[bytes] = []
        self._left = 0
        self._length = -1

    def take(self) -> tuple[list[bytes] | bytes, int] | None:
        """A command or an annotation with its line end, taken off the buffer, and its size; None while unfinished.

        Raises :class:`Wrong`; nothing more can be taken then.
        """
        buffer = self.buffer
        if not buffer:
            return None
        record: list[bytes] | bytes
        if buffer[0] == _HASH:
            size = self._line_size()
            if size == 0:
                return None
            record = bytes(buffer[:size])
        else:
            if not self._command():
                return None
            size, record = self._place, self._words
            self._place = 0
            self._words = []
        del buffer[:size]
        return record, size

    def _line_size(self) -> int:
        """Bytes of the annotation, 0 while it has not ended."""
        buffer = self.buffer
        if self._foreign:
            size = buffer.find(b"\n", 0, ANNOTATION_LIMIT) + 1
        else:
            unprintable = _UNPRINTABLE.search(buffer, 0, ANNOTATION_LIMIT)
            if unprintable is None:
                size = 0
            else:
                end = unprintable.start()
                _expect(buffer, end, 0x0D)
                size = end + 2
                if len(buffer) < size <= ANNOTATION_LIMIT:
                    return 0
                if size <= ANNOTATION_LIMIT:
                    _expect(buffer, end + 1, 0x0A)
                    return size
                size = 0
        if size == 0 and len(buffer) >= ANNOTATION_LIMIT:
            raise Wrong(ANNOTATION_LIMIT - 1, "an annotation that is too long")
        return size

    def _command(self) -> bool:
        """Whether the command is complete."""
        buffer = self.buffer
        if self._place == 0:
            if buffer[0] != _STAR:
                raise Wrong(0, "neither a command nor an annotation")
            count = self._number(_WORD_LIMIT)
            if count < 0:
                return False
            if count == 0:
                raise Wrong(1, "a command without words")
            self._left = count
        size = len(buffer)
        while self._left:
            if self._length < 0:
                if self._place == size:
                    return False
                if buffer[self._place] != _DOLLAR:
                    raise Wrong(self._place, "no length of a word")
                self._length = self._number(_LENGTH_LIMIT)
                if self._length < 0:
                    return False
            stop = self._place + self._length
            if size <= stop:
                return False
            _expect(buffer, stop, 0x0D)
            if size == stop + 1:
                return False
            _expect(buffer, stop + 1, 0x0A)
            self._words.append(bytes(memoryview(buffer)[self._place : stop]))
            self._length = -1
            self._left -= 1
            self._place = stop + 2
        return True

    def _number(self, limit: int) -> int:
        """The number of the count or length line at the place, which moves behind it; -1 while it has not arrived."""
        buffer = self.buffer
        size = len(buffer)
        start = end = self._place + 1
        while end < size and 0x30 <= buffer[end] <= 0x39:
            end += 1
            if end - start > _DIGITS:
                raise Wrong(start, "a number that is too long")
        if end == size:
            return -1
        if end == start:
            raise Wrong(end, "no number")
        _expect(buffer, end, 0x0D)
        if end + 1 == size:
            return -1
        _expect(buffer, end + 1, 0x0A)
        number = int(buffer[start:end])
        if number > limit or (buffer[start] == 0x30 and end - start > 1):
            raise Wrong(start, "a number that is not written as it must be")
        self._place = end + 2
        return number


def _expect(buffer: bytearray, place: int, byte: int) -> None:
    if buffer[place] != byte:
        raise Wrong(place, "no line end where one must be")


def take_plain(lines: list[bytes], place: int, commands: list[list[bytes]]) -> int:
    """Append the plain commands that begin with ``lines[place]``; the index of the first line not taken.

    Plain: two words or more, none of them with a line end in it. The last of ``lines`` is what follows the last line
    end, so it never belongs to a whole command.
    """
    last = len(lines) - 1
    headers = _HEADERS
    append = commands.append
    while place < last:
        head = lines[place]
        try:
            if head == b"*3" and place + 7 <= last:
                _, first, name, second, key, third, value = lines[place : place + 7]
                if headers[len(name)] != first or headers[len(key)] != second or headers[len(value)] != third:
                    break
                append([name, key, value])
                place += 7
                continue
            count = _COUNTS.get(head)
            if count is None:
                break
            end = place + 1 + 2 * count
            if end > last:
                break
            words = lines[place + 2 : end : 2]
            if lines[place + 1 : end : 2] != [headers[len(word)] for word in words]:
                break
        except IndexError:
            # A word longer than the table of headers is taken with the others that are not plain.
            break
        append(words)
        place = end
    return place


def take_lines(lines: list[bytes], place: int) -> tuple[list[bytes], int] | None:
    """The command that begins with ``lines[place]``, whose words may hold line ends, and the index behind it.

    The last of ``lines`` is what follows the last line end. None if the command is not complete, or not well-formed.
    """
    last = len(lines) - 1
    count = _canonical(lines[place], b"*")
    place += 1
    words: list[bytes] = []
    # Each word takes two lines at least, so a count that is too large ends with the lines.
    for _ in range(count):
        if place + 1 >= last:
            return None
        missing = _canonical(lines[place], b"$")
        word = lines[place + 1]
        place += 2
        if missing != len(word):
            missing -= len(word)
            start = place - 1
            while missing > 0 and place < last:
                missing -= len(lines[place]) + 2
                place += 1
            if missing != 0:
                return None
            word = b"\r\n".join(lines[start:place])
        words.append(word)
    return (words, place) if words else None


def _canonical(line: bytes, mark: bytes) -> int:
    """The number of a count or length line, -1 for anything else."""
    digits = line[1:]
    if line[:1] != mark or not digits.isdigit() or len(digits) > _DIGITS or (digits[0] == 0x30 and len(digits) > 1):
        return -1
    return int(digits)
