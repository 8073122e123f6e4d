"""Sans-I/O decoding of a replication stream on the replica's side.

As in the request parser two ways lead through it. The fast way cuts a whole read at its line ends once and picks plain
frames and control lines out of the pieces. Whatever is not plainly well-formed and complete goes the exact way, which
walks the bytes, keeps its state between reads, and is where errors in frames and chunks are found.

The fast way exists twice. The compiled twin needs no line ends: it looks at a read's bytes once, where they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from ..resp import ARGUMENT_LIMIT, BULK_LIMIT
from ..twins import COMPILED
from .control_lines import GroupBegin, line_limit, parse_control_line
from .lineage import MAX_OFFSET
from .parsing import CommandReader, Malformed, canonical, unsigned
from .stream_events import (
    CHUNK_LIMIT,
    CONTROL_LINE_LIMIT,
    GROUP_BYTES_LIMIT,
    Chunk,
    Event,
    Frames,
    ScopeSnapshotBegin,
    Skip,
    SnapshotBegin,
    SnapshotEnd,
    WireError,
)

if COMPILED:
    from ..compiled.frames import take_frames

__all__ = ["StreamDecoder"]

#: (bytes, place, most frames, most bytes of an argument, whether they are a group's) -> first offset, the place behind
#: the frames, and their commands: takes the plain frames at consecutive offsets that stand there.
_TakeFrames: TypeAlias = Callable[[bytes, int, int, int, bool], tuple[int, int, Sequence[list[bytes]]]]

_COUNTS: Final = {b"*%d" % count: count for count in range(1, 1024)}
_HEADERS: Final = [b"$%d" % length for length in range(4096)]

# All that may stand between a snapshot's chunks.
_INSIDE_SHIP: Final = (b"+PING ", b"+SNAPSHOT_END ")
# What begins something else than a command: without this it would pass for an inline one.
_NO_COMMAND: Final = (b"$", b":", b"+", b"-")
# Bytes of an unfinished unit up to which it is cheaper to begin it again than to go on with it.
_SHORT_UNIT: Final = 16384


class StreamDecoder:
    """Bytes in, events out: ``feed`` returns everything that the new bytes complete.

    ``bulk_limit`` bounds one argument in bytes, ``argument_limit`` their number, ``group_bytes_limit`` the bytes of a
    frame or a group. After a broken rule ``error`` holds it, and later bytes are ignored; the events before it still
    count. Raises ValueError for a limit below what the fast way takes unseen (4096 and 1024).
    """

    __slots__ = (
        "_batch",
        "_bulk_limit",
        "_chunk",
        "_group_bytes_limit",
        "_group_left",
        "_in_command",
        "_leading_skip",
        "_offset",
        "_parts",
        "_pending",
        "_place",
        "_reader",
        "_shipping",
        "_size",
        "_take_frames",
        "error",
    )

    def __init__(
        self,
        bulk_limit: int = BULK_LIMIT,
        argument_limit: int = ARGUMENT_LIMIT,
        group_bytes_limit: int = GROUP_BYTES_LIMIT,
    ) -> None:
        if bulk_limit < len(_HEADERS) or argument_limit <= len(_COUNTS):
            raise ValueError(f"limits too low: {bulk_limit} bytes, {argument_limit} arguments")
        self.error: WireError | None = None
        self._bulk_limit = bulk_limit
        self._group_bytes_limit = group_bytes_limit
        # The compiled part of the fast way; None: there is none.
        self._take_frames: _TakeFrames | None = take_frames if COMPILED else None
        # The frames that the next event will hold: their bytes, how many bytes that is, and for a group how many
        # frames it lacks, and whether a skip stood in front of its first.
        self._batch: Frames | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self._group_left = 0
        self._leading_skip = False
        # Inside a snapshot, where chunks stand for frames; the announced length of the chunk under way, -1 for none.
        self._shipping = False
        self._chunk = -1
        # State of the exact way: bytes from the start of the unit under way (a frame, a line, a chunk) on, how many of
        # them have been parsed, and for a frame behind its offset that offset and its command's reader.
        self._pending = bytearray()
        self._place = 0
        self._in_command = False
        self._offset = 0
        self._reader = CommandReader(bulk_limit, argument_limit)

    @property
    def held(self) -> int:
        """Bytes of the unfinished frame, group or chunk that are held in memory."""
        return len(self._pending) + self._size

    def feed(self, data: bytes) -> list[Event]:
        """The events that ``data`` completes, in order. Never raises: see ``error``."""
        events: list[Event] = []
        if self.error is not None:
            return events
        try:
            self._feed(data, events)
        except WireError as error:
            self.error = error
            self._pending = bytearray()
        if self._group_left == 0:
            self._close(events)
        elif self.error is not None:
            self._batch = None
            self._parts = []
            self._size = 0
        return events

    def _feed(self, data: bytes, events: list[Event]) -> None:
        pending = self._pending
        if pending and not self._shipping and len(pending) <= _SHORT_UNIT:
            # With the rest of it the unit under way is probably plain.
            data = bytes(pending) + data
            pending.clear()
            self._place = 0
            self._in_command = False
            self._reader.start_over()
        elif pending:
            # The exact way finishes the unit under way; what follows it may be plain again.
            pending += data
            if not self._walk(events, single=True) or not pending:
                return
            data = bytes(pending)
            pending.clear()
        if self._shipping or len(data) > self._group_bytes_limit:
            # The exact way looks at the bytes of each frame by itself.
            taken = 0
        elif self._take_frames is None:
            taken = self._take_plain(data, events)
        else:
            taken = self._take_plain_at_once(data, events, self._take_frames)
        if taken < len(data):
            pending += data[taken:] if taken else data
            self._walk(events)

    # What both ways lead to.

    def _frames(self, first: int, commands: Sequence[list[bytes]], raw: bytes, events: list[Event]) -> None:
        """Add frames at consecutive offsets to the batch that they continue, or begin a new one."""
        batch = self._batch
        if batch is None or batch.next != first:
            if self._group_left and batch is not None:
                raise WireError("offsets inside a group are not consecutive", f"expected {batch.next}, got {first}")
            self._close(events)
            batch = self._batch = Frames(first, commands, b"", self._group_left > 0, first)
        else:
            batch.commands = _joined(batch.commands, commands)
        self._parts.append(raw)
        self._size += len(raw)
        batch.next = first + len(commands)
        if self._group_left:
            if self._size > self._group_bytes_limit:
                raise WireError("frame or group too large", f"more than {self._group_bytes_limit} bytes")
            self._group_left -= len(commands)
            if self._group_left == 0:
                self._close(events)

    def _close(self, events: list[Event]) -> None:
        """Deliver the frames that belong together."""
        batch = self._batch
        if batch is None:
            return
        if self._leading_skip:
            events.append(Skip(batch.first))
            self._leading_skip = False
        batch.raw = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        events.append(batch)
        self._batch = None
        self._parts = []
        self._size = 0

    def _control(self, line: bytes, events: list[Event]) -> None:
        """Act on a control line, given without its line end."""
        if len(line) > line_limit(line):
            raise WireError("line too long", line)
        if self._shipping and not line.startswith(_INSIDE_SHIP):
            raise WireError("not a chunk inside a snapshot", line)
        said = parse_control_line(line)
        if self._group_left:
            self._skip_in_group(said, line)
            return
        self._close(events)
        if isinstance(said, GroupBegin):
            self._group_left = said.count
            return
        if isinstance(said, SnapshotEnd):
            if not self._shipping:
                raise WireError("end of a snapshot that never began", line)
            self._shipping = False
        elif isinstance(said, SnapshotBegin | ScopeSnapshotBegin):
            self._shipping = True
        events.append(said)

    def _skip_in_group(self, said: object, line: bytes) -> None:
        """A group of a filtered link may lack entries: nothing but the announcement of that may stand inside it."""
        if not isinstance(said, Skip):
            raise WireError("not a frame inside a group", line)
        batch = self._batch
        if batch is None:
            self._batch = Frames(said.next_offset, [], b"", True, said.next_offset)
            self._leading_skip = True
        elif said.next_offset < batch.next:
            raise WireError("skip leads backwards", f"expected {batch.next}, got {said.next_offset}")
        elif batch.commands:
            batch.next = said.next_offset
        else:
            batch.first = batch.next = said.next_offset

    # The fast way.

    def _take_plain(self, data: bytes, events: list[Event]) -> int:
        """Take the plainly well-formed units at the start of ``data``; how many bytes they were."""
        lines = data.split(b"\r\n")
        last = len(lines) - 1
        place = taken = 0
        while place < last:
            line = lines[place]
            if line == b"*2":
                commands: list[list[bytes]] = []
                first, end = _take_frames(lines, place, self._group_left or last, commands, self._bulk_limit)
                if end == place:
                    break
                if end == last:
                    size = len(data) - len(lines[last]) - taken
                else:
                    size = sum(map(len, lines[place:end])) + 2 * (end - place)
                self._frames(first, commands, data[taken : taken + size], events)
                taken += size
                place = end
            elif line[:1] == b"+" or line[:1] == b"-":
                self._control(line, events)
                taken += len(line) + 2
                place += 1
                if self._shipping:
                    break
            else:
                break
        return taken

    def _take_plain_at_once(self, data: bytes, events: list[Event], take_frames: _TakeFrames) -> int:
        """As :meth:`_take_plain`, with the compiled part."""
        size = len(data)
        taken = 0
        while taken < size:
            head = data[taken]
            if head == 0x2A:
                limit = self._group_left
                first, end, commands = take_frames(data, taken, limit or size, self._bulk_limit, limit > 0)
                if end == taken:
                    break
                self._frames(first, commands, data[taken:end], events)
                taken = end
            elif head == 0x2B or head == 0x2D:
                end = data.find(b"\r\n", taken)
                if end < 0:
                    break
                self._control(data[taken:end], events)
                taken = end + 2
                if self._shipping:
                    break
            else:
                break
        return taken

    # The exact way.

    def _walk(self, events: list[Event], single: bool = False) -> bool:
        """Take whole units off the pending bytes until they run out, or only the first; whether there was any."""
        pending = self._pending
        start = 0
        try:
            while start < len(pending) and self._unit(start, events):
                start = self._place
                if single:
                    break
            return start > 0
        finally:
            del pending[:start]
            self._place -= start

    def _unit(self, start: int, events: list[Event]) -> bool:
        """Take the unit that begins at ``start``, if it is complete; ``_place`` is then behind it."""
        pending = self._pending
        self._place = max(self._place, start)
        head = pending[start]
        if head == 0x2B or (head == 0x2D and not self._shipping):
            end = self._line_end(start, line_limit(pending[start : start + 32]))
            if end < 0:
                return False
            self._place = end + 2
            self._control(bytes(pending[start:end]), events)
            return True
        if self._shipping:
            return self._take_chunk(start, events)
        command = self._take_frame(start)
        if command is None:
            return False
        self._frames(self._offset, [command], bytes(pending[start : self._place]), events)
        return True

    def _line_end(self, start: int, limit: int) -> int:
        """Where the line end of the line that begins at ``start`` starts, or -1 while it has not arrived."""
        pending = self._pending
        end = pending.find(b"\r\n", start, start + limit + 2)
        if end < 0 and len(pending) - start > limit + 1:
            raise WireError("line too long", pending[start : start + 128])
        return end

    def _take_frame(self, start: int) -> list[bytes] | None:
        """The command of the frame that begins at ``start``, once it is complete; ``_offset`` is then its offset."""
        pending = self._pending
        if not self._in_command:
            if pending[start] != 0x2A:
                raise WireError("outer header is not *2", pending[start : start + 128])
            if self._place == start:
                end = self._line_end(start, CONTROL_LINE_LIMIT)
                if end < 0:
                    return None
                if pending[start:end] != b"*2":
                    raise WireError("outer header is not *2", pending[start:end])
                self._place = end + 2
            end = self._line_end(self._place, CONTROL_LINE_LIMIT)
            if end < 0:
                return None
            self._offset = _offset(bytes(pending[self._place : end]))
            self._place = end + 2
            self._in_command = True
        try:
            if self._reader.idle and pending.startswith(_NO_COMMAND, self._place):
                raise WireError("inner command malformed", pending[self._place : self._place + 128])
            self._place, command = self._reader.read(pending, self._place)
        except Malformed as error:
            raise WireError("inner command malformed", error.text) from None
        if command is not None and not command:
            raise WireError("inner command malformed", "a blank line")
        size = (len(pending) if command is None else self._place) - start
        if size > self._group_bytes_limit:
            raise WireError("frame or group too large", f"more than {self._group_bytes_limit} bytes")
        self._in_command = command is None
        return command

    def _take_chunk(self, start: int, events: list[Event]) -> bool:
        """Deliver the chunk that begins at ``start``, if it is complete."""
        pending = self._pending
        if self._chunk < 0:
            if pending[start] != 0x24:
                raise WireError("not a chunk inside a snapshot", pending[start : start + 128])
            end = self._line_end(start, CONTROL_LINE_LIMIT)
            if end < 0:
                return False
            length = canonical(pending[start + 1 : end])
            if length is None or length > CHUNK_LIMIT:
                raise WireError("invalid chunk length", pending[start:end])
            self._chunk = length
            self._place = end + 2
        stop = self._place + self._chunk
        if len(pending) <= stop:
            return False
        if pending[stop] != 0x0D or (len(pending) > stop + 1 and pending[stop + 1] != 0x0A):
            raise WireError("no line end behind a chunk", pending[stop : stop + 2])
        if len(pending) == stop + 1:
            return False
        events.append(Chunk(bytes(pending[self._place : stop])))
        self._chunk = -1
        self._place = stop + 2
        return True


def _joined(commands: Sequence[list[bytes]], more: Sequence[list[bytes]]) -> Sequence[list[bytes]]:
    """Commands and those that follow them: the same list, if they stand in one already."""
    if isinstance(commands, list):
        commands += more
        return commands
    return [*commands, *more]


def _offset(line: bytes) -> int:
    """The offset of a frame. Raises :class:`WireError`."""
    if line[:1] == b":":
        number = unsigned(line[1:], MAX_OFFSET)
        if number is not None:
            return number
        if line[1:2] == b"-" and line[2:].isdigit():
            raise WireError("negative offset", line)
    raise WireError("offset is not an integer", line)


def _take_frames(
    lines: list[bytes], place: int, limit: int, commands: list[list[bytes]], bulk_limit: int
) -> tuple[int, int]:
    """Append the commands of the plainly well-formed frames from ``lines[place]`` on, at most ``limit`` of them.

    Their offsets are consecutive. Returns the first one, and the index of the first line not taken. The last of
    ``lines`` is what follows the last line end, so it never belongs to a whole frame.
    """
    last = len(lines) - 1
    first = canonical(lines[place + 1][1:])
    if first is None or first > MAX_OFFSET:
        return 0, place
    offset = first
    stop = min(first + limit, MAX_OFFSET + 1)
    headers = _HEADERS
    append = commands.append
    while offset < stop:
        try:
            # A frame has at least five lines: a read that ends earlier raises IndexError or ValueError here.
            if lines[place + 2] == b"*3":
                outer, number, _, first_header, name, second, key, third, value = lines[place : place + 9]
                if (
                    place + 9 > last
                    or headers[len(value)] != third
                    or headers[len(key)] != second
                    or headers[len(name)] != first_header
                    or number != b":%d" % offset
                    or outer != b"*2"
                ):
                    break
                append([name, key, value])
                place += 9
                offset += 1
                continue
        except (IndexError, ValueError):
            # Not all of it is there, or an argument is longer than the table of headers: looked at below.
            pass
        end = _take_frame(lines, place, offset, commands, bulk_limit)
        if end == place:
            break
        place = end
        offset += 1
    return first, place


def _take_frame(lines: list[bytes], place: int, offset: int, commands: list[list[bytes]], bulk_limit: int) -> int:
    """Append the command of the frame of any length at ``lines[place]``; the index behind it, or ``place``."""
    last = len(lines) - 1
    if place + 5 > last or lines[place] != b"*2" or lines[place + 1] != b":%d" % offset:
        return place
    count = _COUNTS.get(lines[place + 2])
    if count is None:
        return place
    end = place + 3 + 2 * count
    if end > last:
        return place
    arguments = lines[place + 4 : end : 2]
    announced = lines[place + 3 : end : 2]
    try:
        if announced != [_HEADERS[len(argument)] for argument in arguments]:
            return place
    except IndexError:
        if announced != [b"$%d" % len(argument) for argument in arguments]:
            return place
        if max(map(len, arguments)) > bulk_limit:
            return place
    commands.append(arguments)
    return end
