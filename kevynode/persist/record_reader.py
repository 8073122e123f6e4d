"""Reads an append-only file from front to back, and says what its end is.

:class:`RecordReader` takes bytes as they come and gives whole groups and annotations. Two ways lead through it, as in
:mod:`kevynode.resp`: bytes are cut at their line ends once, and plain commands are picked out of the pieces. Whatever
is not plain goes through the exact scanner, which keeps its state between reads and knows the byte at which a file is
damaged.

A file may simply end in the midst of a record, or in zeros that a file system left where bytes had not arrived: that is
a **torn** end. Bytes that no beginning of a valid file has are **damage**.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple, TypeAlias

from ..replicate.lineage import MAX_OFFSET, Lineage
from .annotations import (
    ANNOTATION_LIMIT,
    Annotation,
    AnnotationError,
    End,
    FileHeader,
    GroupSpan,
    NewerFormat,
    Position,
    UpstreamCursor,
    parse_annotation,
)
from .record_scanner import RecordScanner, Wrong, take_lines, take_plain
from .records import EXEC, MULTI, record_size

__all__ = ["Damaged", "Entries", "FileError", "Newer", "RecordEvent", "RecordReader", "Torn"]

_CUT: Final = 64 * 1024
_HASH: Final = b"#"
# The lines of MULTI and of EXEC.
_ONE_WORD: Final = b"*1"
_MULTI: Final = [b"$5", b"MULTI"]
_EXEC: Final = [b"$4", b"EXEC"]
_ANNOTATION: Final = re.compile(rb"#[ -~]{0,%d}" % (ANNOTATION_LIMIT - 3))


class Entries(NamedTuple):
    """Whole groups: the commands at the offsets from ``first`` up to ``next``, and the bytes that hold them.

    ``grouped``: they are one group. It mostly takes one offset for each command, but any number of them where it came
    so from another node, and none if it was written beside the stream: then ``next - first`` is not the number of
    commands. Otherwise each command is a group of its own, at an offset of its own. Where the numbering leaps without
    entries, ``first`` is above the last ``next``. In a file of kind ``base`` both offsets are its position. ``start``
    and ``end`` say which bytes of the file hold them.
    """

    first: int
    commands: list[list[bytes]]
    next: int
    grouped: bool
    start: int
    end: int

    def place_of(self, index: int) -> int:
        """The byte of the file at which the command with this index begins, in entries that are not grouped."""
        return self.start + sum(map(record_size, self.commands[:index]))


class Torn(NamedTuple):
    """The file ends within a record or a group, or in zeros. What is whole ends at byte ``cut``."""

    cut: int

    def __str__(self) -> str:
        return f"ends in an unfinished record at byte {self.cut}"


class Damaged(NamedTuple):
    """The byte at ``position`` belongs to no valid file, for the ``reason``. What is whole ends at byte ``cut``."""

    position: int
    reason: str
    cut: int

    def __str__(self) -> str:
        return f"is damaged at byte {self.position}: {self.reason}"


class Newer(NamedTuple):
    """The file has the format ``version``, which is not known here. Nothing is wrong with it."""

    version: int
    reason: str

    def __str__(self) -> str:
        return self.reason


FileError: TypeAlias = Torn | Damaged | Newer
RecordEvent: TypeAlias = Entries | Annotation


class _Misplaced(Exception):
    """The record at byte ``position`` is well-formed, and cannot be where it is."""

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(reason)
        self.position = position


class RecordReader:
    """Bytes in, groups and annotations out. Never raises for what a file may hold: see ``error``.

    ``foreign``: the file was written by Valkey. It need not begin with a header, lines that start with ``#`` are passed
    over, a group may have any number of commands, and the commands are numbered from 0.

    ``behind``: where the file before ends, from where a placement goes on; without it one is numbered
    from 0, and its ``lineage`` stays None.

    ``header`` is the first line, ``lineage`` and ``offset`` are the position of the next entry, and ``cut`` is the byte
    behind the last whole group or annotation: where a torn or damaged file can be cut.
    """

    def __init__(self, *, foreign: bool = False, behind: Position | None = None) -> None:
        self.foreign = foreign
        self.error: FileError | None = None
        self.header: FileHeader | None = None
        self.lineage: Lineage | None = None
        self.offset = 0
        self.cut = 0
        self.ended = False
        self._behind = behind
        # Whether there is all that a file begins with.
        self._is_started = foreign
        # The byte of the file at which the scanner's buffer begins.
        self._place = 0
        self._scanner = RecordScanner(foreign)
        self._events: list[RecordEvent] = []
        # Lone commands that have been read and are not among the events yet, and where they begin.
        self._lone: list[list[bytes]] = []
        self._lone_start = 0
        self._lone_first = 0
        # The open MULTI: its commands, the cursors within, and where it began.
        self._group: list[list[bytes]] | None = None
        self._held: list[RecordEvent] = []
        self._group_start = 0
        # What the line before a group said about its offsets.
        self._span: int | None = None
        # Commands so far, or None if reading began behind the start.
        self._commands: int | None = 0
        # Where zeros began that may be the rest of the file; -1: there are none.
        self._zeros = -1

    @classmethod
    def resume(cls, header: FileHeader, position: Position, place: int) -> RecordReader:
        """A reader that begins at byte ``place`` of a file, the start of a group or an annotation.

        ``position`` is the one there, as another reader found it.
        """
        reader = cls()
        reader.header = header
        reader.lineage = position.lineage
        reader.offset = position.offset
        reader.cut = reader._place = place
        reader._is_started = True
        reader._commands = None
        return reader

    def feed(self, data: bytes) -> list[RecordEvent]:
        """What the bytes complete, in order. Once there is an ``error``, nothing more.

        Fastest with 64 KiB at a time, whose commands are let go before the next.
        """
        if self.error is not None:
            return []
        if self._zeros >= 0:
            self._more_zeros(data)
            return []
        try:
            # The pieces of one cut should fit the processor's cache.
            for place in range(0, len(data), _CUT):
                self._read(data[place : place + _CUT])
        except Wrong as wrong:
            self._fail(wrong)
        except _Misplaced as misplaced:
            self.error = Damaged(misplaced.position, str(misplaced), self.cut)
        except NewerFormat as newer:
            self.error = Newer(newer.version, str(newer))
        self._flush_lone()
        events, self._events = self._events, []
        return events

    def finish(self) -> FileError | None:
        """What is wrong with the file if nothing follows: None for nothing. ``error`` holds it from then on."""
        if self.error is None and not self._is_whole():
            self.error = Torn(self.cut)
        return self.error

    def _is_whole(self) -> bool:
        if self._scanner.buffer or self._zeros >= 0 or self._group is not None or self._span is not None:
            return False
        return self._is_started and (self.ended or not self._is_placement)

    @property
    def _is_placement(self) -> bool:
        return self.header is not None and self.header.is_placement

    def _fail(self, wrong: Wrong) -> None:
        buffer = self._scanner.buffer
        position = self._place + wrong.place
        if buffer[wrong.place : wrong.place + 1] == b"\0":
            # Zeros up to the end are a torn end; it remains to be seen whether they are.
            rest = bytes(buffer[wrong.place :])
            buffer.clear()
            self._zeros = position
            self._more_zeros(rest)
        else:
            self.error = Damaged(position, wrong.reason, self.cut)

    def _more_zeros(self, data: bytes) -> None:
        if data.strip(b"\0"):
            self.error = Damaged(self._zeros, "zeros, and other bytes behind them", self.cut)

    # -- records out of bytes -----------------------------------------------------------------------------------------

    def _read(self, data: bytes) -> None:
        scanner = self._scanner
        buffer = scanner.buffer
        if buffer:
            buffer += data
        else:
            buffer += self._read_plain(data)
        while True:
            taken = scanner.take()
            if taken is None:
                return
            record, size = taken
            if isinstance(record, bytes):
                self._annotation(record)
            else:
                self._command(record, size)
            if not buffer:
                return
            # What follows may be plain again.
            data = bytes(buffer)
            buffer.clear()
            buffer += self._read_plain(data)

    def _read_plain(self, data: bytes) -> bytes:
        """Take what is plainly well-formed; the bytes from the first record on that is not, or not complete."""
        lines = data.split(b"\r\n")
        last = len(lines) - 1
        place = 0
        left = len(data)
        while place < last:
            line = lines[place]
            commands: list[list[bytes]] = []
            if line == _ONE_WORD and lines[place + 1 : place + 3] == _MULTI and place + 2 < last:
                stop = place + 3
                size = len(MULTI)
                self._begin_group(size)
            elif line == _ONE_WORD and lines[place + 1 : place + 3] == _EXEC and place + 2 < last:
                stop = place + 3
                size = len(EXEC)
                self._end_group(size)
            elif (stop := take_plain(lines, place, commands)) > place:
                size = _size(lines, place, stop, left)
                self._commands_of_their_own(commands, size)
            elif line[:1] == _HASH:
                if self.foreign or not _ANNOTATION.fullmatch(line):
                    break
                stop = place + 1
                size = len(line) + 2
                self._annotation(line + b"\r\n")
            else:
                taken = take_lines(lines, place)
                if taken is None:
                    break
                command, stop = taken
                size = _size(lines, place, stop, left)
                self._command(command, size)
            place = stop
            left -= size
        return b"\r\n".join(lines[place:]) if place else data

    # -- groups and positions out of records --------------------------------------------------------------------------

    def _command(self, command: list[bytes], size: int) -> None:
        """Take the command that begins at the place and has ``size`` bytes."""
        if len(command) == 1:
            name = command[0].upper()
            if name == b"MULTI":
                self._begin_group(size)
                return
            if name == b"EXEC":
                self._end_group(size)
                return
        self._commands_of_their_own([command], size)

    def _commands_of_their_own(self, commands: list[list[bytes]], size: int) -> None:
        """Take commands, none of them MULTI or EXEC, that begin at the place and have ``size`` bytes together."""
        self._check_started()
        if self._group is not None:
            self._group += commands
            self._place += size
        elif self._span is not None:
            # It was said of the next group, which is the first command.
            first = commands[:1]
            first_size = record_size(commands[0])
            self._group_start = self._place
            self._place += first_size
            self._give_group(first)
            if len(commands) > 1:
                self._lone_commands(commands[1:], size - first_size)
        else:
            self._lone_commands(commands, size)

    def _lone_commands(self, commands: list[list[bytes]], size: int) -> None:
        first = self.offset
        self._advance(first + len(commands), len(commands))
        if not self._lone:
            self._lone_start = self._place
            self._lone_first = first
            self._lone = commands
        else:
            self._lone += commands
        self._place += size
        self.cut = self._place

    def _begin_group(self, size: int) -> None:
        self._check_started()
        if self._group is not None:
            raise _Misplaced(self._place, "MULTI inside MULTI")
        self._group = []
        self._group_start = self._place
        self._place += size

    def _end_group(self, size: int) -> None:
        self._check_started()
        commands, self._group = self._group, None
        if commands is None:
            raise _Misplaced(self._place, "EXEC without MULTI")
        if len(commands) < 2 and not self.foreign:
            raise _Misplaced(self._place, f"a group of {len(commands)} between MULTI and EXEC")
        self._place += size
        self._give_group(commands)
        self._events += self._held
        self._held = []

    def _give_group(self, commands: list[list[bytes]]) -> None:
        """The group that ends at the place is complete."""
        self._flush_lone()
        first = self.offset
        span, self._span = self._span, None
        self._advance(first + len(commands) if span is None else span, len(commands))
        self._events.append(Entries(first, commands, self.offset, True, self._group_start, self._place))
        self.cut = self._place

    def _advance(self, next_offset: int, commands: int) -> None:
        """Count whole groups of so many ``commands``, behind which an increment goes on at ``next_offset``."""
        if self._commands is not None:
            self._commands += commands
        if self.header is not None and self.header.kind == "base":
            return
        if next_offset > MAX_OFFSET:
            raise _Misplaced(self._place, "more entries than there are offsets")
        self.offset = next_offset

    def _check_started(self) -> None:
        if self.ended:
            raise _Misplaced(self._place, "more behind the end")
        if not self._is_started:
            raise _Misplaced(self._place, "a file begins with its header and a position")

    def _flush_lone(self) -> None:
        if self._lone:
            entries = Entries(self._lone_first, self._lone, self.offset, False, self._lone_start, self.cut)
            self._events.append(entries)
            self._lone = []

    # -- annotations --------------------------------------------------------------------------------------------------

    def _annotation(self, line: bytes) -> None:
        """Take the annotation that begins at the place."""
        if self.foreign:
            self._flush_lone()
        else:
            try:
                self._take_annotation(parse_annotation(line))
            except NewerFormat as newer:
                if self._place == 0:
                    raise
                raise _Misplaced(self._place, f"a header that {newer}") from newer
            except AnnotationError as error:
                raise _Misplaced(self._place, str(error)) from None
        self._place += len(line)
        if self._group is None and self._span is None and self._is_started:
            self.cut = self._place

    def _take_annotation(self, annotation: Annotation) -> None:
        if not self._is_started:
            self._take_start(annotation)
        elif self.ended:
            raise _Misplaced(self._place, "more behind the end")
        elif self._group is not None:
            if not isinstance(annotation, UpstreamCursor):
                raise _Misplaced(self._place, "between MULTI and EXEC only cursors are annotated")
            self._held.append(annotation)
            return
        elif self._span is not None:
            raise _Misplaced(self._place, "an annotation where a group was announced")
        elif isinstance(annotation, GroupSpan):
            self._take_span(annotation)
            return
        elif isinstance(annotation, Position):
            self._take_position(annotation)
        elif isinstance(annotation, End):
            if self._commands is not None and annotation.commands != self._commands:
                raise _Misplaced(
                    self._place, f"{annotation.commands} commands are announced, {self._commands} are there"
                )
            self.ended = True
        elif isinstance(annotation, FileHeader):
            raise _Misplaced(self._place, "a second header")
        self._flush_lone()
        self._events.append(annotation)

    def _take_start(self, annotation: Annotation) -> None:
        """Take one of the two lines that a file begins with, or the one of a placement."""
        if self.header is None and isinstance(annotation, FileHeader):
            self.header = annotation
            if annotation.is_placement:
                self._is_started = True
                if self._behind is not None:
                    self.lineage, self.offset = self._behind.lineage, self._behind.offset
        elif self.header is not None and isinstance(annotation, Position) and annotation.after is None:
            self.lineage = annotation.lineage
            self.offset = annotation.offset
            self._is_started = True
        else:
            raise _Misplaced(self._place, "a file begins with its header and a position")

    def _take_position(self, position: Position) -> None:
        if position.after != self.offset:
            counted = "none" if position.after is None else position.after
            raise _Misplaced(self._place, f"a position after {counted}, where {self.offset} is next")
        if position.offset < self.offset:
            raise _Misplaced(self._place, f"a position that goes back from {self.offset} to {position.offset}")
        self._check_increment()
        self.lineage = position.lineage
        self._flush_lone()
        self.offset = position.offset

    def _take_span(self, span: GroupSpan) -> None:
        if span.next < self.offset:
            raise _Misplaced(self._place, f"a group that goes back from {self.offset} to {span.next}")
        self._check_increment()
        self._span = span.next

    def _check_increment(self) -> None:
        assert self.header is not None
        if self.header.kind == "base":
            raise _Misplaced(self._place, "the commands of a base have one position")
        if self.header.is_placement:
            raise _Misplaced(self._place, "the commands of a placement are numbered one by one")


def _size(lines: list[bytes], start: int, stop: int, left: int) -> int:
    """The bytes of the lines from index ``start`` up to ``stop``, if there are ``left`` bytes from ``start`` on."""
    behind = len(lines) - 1 - stop
    if behind < stop - start:
        return left - sum(map(len, lines[stop:])) - 2 * behind
    return sum(map(len, lines[start:stop])) + 2 * (stop - start)
