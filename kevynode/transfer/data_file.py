"""Reads one file of data: a dump file, an append-only file, or a dump file with commands behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from ..rdb.reader import Put, RdbReader
from ..rdb.source import PAUSES, FormatError, Steps
from ..resp import ARGUMENT_LIMIT
from .replay import ReplayError

__all__ = ["AofError", "DataFileReader"]

#: Takes one command.
Apply: TypeAlias = Callable[[list[bytes]], object]

_STAR: Final = 0x2A
_DOLLAR: Final = 0x24
_HASH: Final = 0x23
#: Longest line that says how many words or bytes follow.
_LINE: Final = 32
#: Commands that are read, and applied, between two pauses; words of a command that has not arrived whole.
_SLICE: Final = 256
_FIRST_OF_DUMPS: Final = b"RV"


class AofError(FormatError):
    """Bytes that no append-only file has, or a command in it that cannot be applied."""


class DataFileReader(RdbReader):
    """Gives the keys of a dump to ``put`` and the commands behind it, or of an append-only file, to ``apply``.

    Commands between MULTI and EXEC are applied when EXEC has been read. ``apply`` raises ReplayError for a command that
    it cannot take. Lines that start with ``#`` are passed over. Reads in steps as :class:`RdbReader`.
    """

    def __init__(self, put: Put, apply: Apply, *, database: int | None = None, epoch: int = 0) -> None:
        self.commands = 0
        #: Set by :meth:`finish`: where the unfinished record or transaction at the end starts, and its bytes.
        self.torn: tuple[int, int] | None = None
        self._apply = apply
        # Where the last whole record ends; None before and in a dump.
        self._whole: int | None = None
        # Commands, and where they start: what is to be applied, and the open transaction.
        self._due: list[tuple[int, list[bytes]]] = []
        self._open: list[tuple[int, list[bytes]]] | None = None
        super().__init__(put, database=database, epoch=epoch)

    def _read(self) -> Steps[None]:
        source = self.source
        yield from source.wait()
        if source.buffer[source.position] in _FIRST_OF_DUMPS:
            yield from self._file()
            # Whoever drives this learns of the databases before commands are applied.
            yield PAUSES
        self._whole = source.offset
        while True:
            problem: AofError | None = None
            try:
                more = self._read_arrived()
            except AofError as error:
                # What stands before it may be wrong as well, and is told first.
                more, problem = False, error
            yield from self._apply_due()
            if problem is not None:
                raise problem
            if not more:
                yield from self._record()
                yield from self._apply_due()
            yield PAUSES

    def finish(self) -> None:
        """No more bytes will come. Raises FormatError in the middle of a dump, or if reading has failed before.

        An append-only file may end in the middle of a record, as after a power failure: see ``torn``. It may be empty.
        """
        if self._failure is None and self._fed == 0:
            return
        if self._failure is not None or self._whole is None:
            super().finish()
            return
        if self._whole < self._fed:
            self.torn = (self._whole, self._fed - self._whole)

    def _apply_due(self) -> Steps[None]:
        due, self._due = self._due, []
        for number, (start, command) in enumerate(due, 1):
            try:
                self._apply(command)
            except ReplayError as error:
                raise AofError(start, error.reason) from error
            if not number % _SLICE:
                yield PAUSES
        self.commands += len(due)

    def _enter(self, command: list[bytes], start: int, end: int) -> None:
        """Take a command that stood between these offsets of the input."""
        name = command[0]
        if len(command) == 1 and name.upper() in (b"MULTI", b"EXEC"):
            if name.upper() == b"MULTI":
                if self._open is not None:
                    raise AofError(start, "MULTI inside a transaction")
                self._open = []
                return
            if self._open is None:
                raise AofError(start, "EXEC without MULTI")
            self._due += self._open
            self._open = None
        elif self._open is not None:
            self._open.append((start, command))
            return
        else:
            self._due.append((start, command))
        self._whole = end

    def _pass_line(self, end: int) -> None:
        if self._open is None:
            self._whole = end

    # -- what has arrived ---------------------------------------------------------------------------------------------

    def _read_arrived(self) -> bool:
        """Take records that have arrived whole; True if it stopped because they were enough."""
        source = self.source
        buffer, position, base = source.buffer, source.position, source.base
        left = _SLICE
        try:
            while left:
                first = buffer[position]
                if first == _STAR:
                    command, stop = self._arrived_command(buffer, position)
                    self._enter(command, base + position, base + stop)
                    position = stop
                elif first == _HASH:
                    end = buffer.find(b"\n", position)
                    if end < 0:
                        break
                    position = end + 1
                    self._pass_line(base + position)
                else:
                    raise AofError(base + position, f"expected '*', got {chr(first)!r}")
                left -= 1
        except IndexError:
            # The next record has not arrived whole.
            pass
        source.position = position
        return not left

    def _arrived_command(self, buffer: bytes, position: int) -> tuple[list[bytes], int]:
        """The command that starts at ``position``, and where it stops; IndexError if the buffer ends before."""
        base = self.source.base
        end = _line_end(buffer, position)
        count = _number(buffer[position + 1 : end], base + position, ARGUMENT_LIMIT)
        words: list[bytes] = []
        place = end + 2
        for _ in range(count):
            end = _line_end(buffer, place)
            if buffer[place] != _DOLLAR:
                raise AofError(base + place, f"expected '$', got {chr(buffer[place])!r}")
            digits = buffer[place + 1 : end]
            start = end + 2
            stop = start + (int(digits) if digits.isdigit() else _number(digits, base + place, 0))
            place = stop + 2
            if buffer[stop:place] != b"\r\n":
                if place > len(buffer):
                    raise IndexError
                raise AofError(base + stop, "a word is longer than it says")
            words.append(buffer[start:stop])
        if not words:
            raise AofError(base + position, "a command without a word")
        return words, place

    # -- what has not -------------------------------------------------------------------------------------------------

    def _record(self) -> Steps[None]:
        """The next record, waiting for its bytes."""
        source = self.source
        start = source.offset
        first = (yield from source.take(1))[0]
        if first == _HASH:
            while (end := source.buffer.find(b"\n", source.position)) < 0:
                source.position = len(source.buffer)
                yield from source.wait()
            source.position = end + 1
            self._pass_line(source.offset)
            return
        if first != _STAR:
            raise AofError(start, f"expected '*', got {chr(first)!r}")
        count = _number((yield from self._line()), start, ARGUMENT_LIMIT)
        if not count:
            raise AofError(start, "a command without a word")
        words: list[bytes] = []
        for number in range(1, count + 1):
            place = source.offset
            kind = yield from source.take(1)
            if kind[0] != _DOLLAR:
                raise AofError(place, f"expected '$', got {chr(kind[0])!r}")
            size = _number((yield from self._line()), place, 1 << 62)
            words.append((yield from source.take(size)))
            place = source.offset
            if (yield from source.take(2)) != b"\r\n":
                raise AofError(place, "a word is longer than it says")
            if not number % _SLICE:
                yield PAUSES
        self._enter(words, start, source.offset)

    def _line(self) -> Steps[bytes]:
        """The rest of a short line, without its end."""
        source = self.source
        start = source.offset
        end = source.buffer.find(b"\r\n", source.position, source.position + _LINE)
        if end >= 0:
            line = source.buffer[source.position : end]
            source.position = end + 2
            return line
        collected = b""
        while not collected.endswith(b"\r\n"):
            if len(collected) > _LINE:
                raise AofError(start, "the line is too long")
            collected += yield from source.take(1)
        return collected[:-2]


def _line_end(buffer: bytes, position: int) -> int:
    end = buffer.find(b"\r\n", position, position + _LINE)
    if end < 0:
        # Too long or not there yet: the patient way tells.
        raise IndexError
    return end


def _number(digits: bytes, offset: int, limit: int) -> int:
    if digits.isdigit() and int(digits) <= limit:
        return int(digits)
    raise AofError(offset, f"{digits[:_LINE].decode('latin-1')!r} is no number of words or bytes")
