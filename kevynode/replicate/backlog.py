"""The newest entries of this node's history, held as the bytes that go out on every link.

Entries come in as the journal's groups and are **sealed** together, once for all links: encoded as frames, with a
``+TXN`` line in front of each group of several entries. They are kept in blocks of about 256 KiB. A link reads with a
**cursor**; what it gets are the very bytes objects held here, so that many links cost no more memory than one.

The budget bounds the memory held, not the payload. When it is exceeded the oldest blocks go, whoever still needs them:
a cursor that falls off reads TooOld. A **pin** (of a snapshot under way) may stretch that up to twice the budget.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from sys import getsizeof
from typing import Final

from ..reply import BULK_HEADERS
from ..store.journal import Effect
from . import wire
from .block import BLOCK_SIZE, FLUSHES, SMALL_BLOCK_SIZE, Block, frame_end
from .block_reading import pick_entries, take_frames, take_part
from .cursors import BacklogError, Cursor, Future, NotABoundary, TooOld
from .filtering import Filter
from .pins import Pin, Pins
from .stream_events import GROUP_BYTES_LIMIT, GROUP_LIMIT
from .wire import frame

__all__ = ["Backlog", "BacklogError", "Cursor", "Future", "NotABoundary", "Pin", "TooOld"]

#: Frames that wait for being sealed before they are sealed without being asked.
PENDING_LIMIT: Final = 512
_BYTES_OVERHEAD: Final = getsizeof(b"")
# Bytes of arguments in one group: so far below the limit of those who read it that frames and lines fit, too.
_GROUP_SIZE: Final = GROUP_BYTES_LIMIT // 2


class Backlog:
    """The end of one history, within ``budget`` bytes of memory. Holds nothing at first; the next entry is ``start``.

    Nothing here blocks. :meth:`add` is called for every write; everything else once per cycle or less.
    """

    __slots__ = (
        "_block_size",
        "_blocks",
        "_budget",
        "_closed_memory",
        "_floor",
        "_may_flush",
        "_newest",
        "_newest_number",
        "_next",
        "_oldest_number",
        "_own",
        "_pending",
        "_pending_size",
        "_sealed",
        "_waiting",
        "first",
        "on_pending",
        "pins",
    )

    def __init__(self, budget: int, start: int) -> None:
        # Called when something is added and nothing was since the last seal: a link may have something to send.
        self.on_pending: Callable[[], None] | None = None
        # The oldest offset held, or the next offset if none is.
        self.first = start
        self._budget = budget
        self._block_size = _block_size(budget)
        # The next offset behind what is sealed, and behind everything.
        self._sealed = self._next = start
        # Frames of lone entries that are not sealed yet, all of one origin, and whether that is this node; their bytes,
        # and whether one of them may be a flush. They are bytes already, because thousands of small containers that
        # live for a moment have the garbage collector look at them.
        self._pending: list[bytes] = []
        self._pending_size = 0
        self._may_flush = False
        self._own = True
        # Whether on_pending was called since the last seal.
        self._waiting = False
        # Blocks by number, from the oldest to the newest; the memory of all but the newest.
        self._blocks: dict[int, Block] = {}
        self._oldest_number = 0
        self._newest_number = -1
        self._newest: Block | None = None
        self._closed_memory = 0
        # Cursors into blocks with a lower number are from before a reset.
        self._floor = 0
        # What snapshots under way still need.
        self.pins = Pins(self._pins_changed)

    # -- what there is ------------------------------------------------------------------------------------------------

    @property
    def next(self) -> int:
        """The offset that the next entry gets."""
        return self._next

    @property
    def budget(self) -> int:
        """Bytes of memory to stay within, beyond which only the newest block is kept. May be set at any time."""
        return self._budget

    @budget.setter
    def budget(self, budget: int) -> None:
        self._budget = budget
        self._block_size = _block_size(budget)
        self._trim()

    @property
    def memory(self) -> int:
        """Bytes of memory held: data and objects, and frames not sealed yet."""
        pending = self._pending
        return self._sealed_memory() + getsizeof(pending) + self._pending_size + len(pending) * _BYTES_OVERHEAD

    def _sealed_memory(self) -> int:
        newest = self._newest
        return self._closed_memory + getsizeof(self._blocks) + (newest.memory if newest is not None else 0)

    def bytes_from(self, offset: int) -> int:
        """About how many bytes of the stream follow ``offset``, as far as they are sealed: for status."""
        total = 0
        for number in range(self._newest_number, self._oldest_number - 1, -1):
            block = self._blocks[number]
            if block.next <= offset:
                break
            share = 1.0 if block.first >= offset else (block.next - offset) / (block.next - block.first)
            total += round(block.size * share)
        return total

    # -- entries come in ----------------------------------------------------------------------------------------------

    def observe(self, _first: int, group: list[Effect]) -> None:
        """As :meth:`add`, for a journal in which everything is this node's own: once for every write of a primary."""
        command = group[0][0]
        pending = self._pending
        if len(command) != 3 or len(group) != 1 or not pending or not self._own or len(pending) >= PENDING_LIMIT:
            self.add(group)
            return
        name, key, value = command
        try:
            data = b"*2\r\n:%d\r\n*3\r\n%b%b\r\n%b%b\r\n%b%b\r\n" % (
                self._next,
                BULK_HEADERS[len(name)],
                name,
                BULK_HEADERS[len(key)],
                key,
                BULK_HEADERS[len(value)],
                value,
            )
        except IndexError:
            # An argument longer than the table of headers.
            self.add(group)
            return
        size = self._pending_size + len(data)
        if size > SMALL_BLOCK_SIZE:
            self.add(group)
            return
        pending.append(data)
        self._pending_size = size
        self._next += 1

    def add(self, group: list[Effect], own: bool = True) -> None:
        """Take the next group of the journal, never an empty one. ``own``: this node made it, no upstream did."""
        pending = self._pending
        if len(group) != 1 or own is not self._own or len(pending) >= PENDING_LIMIT:
            self._break_run(group, own)
            return
        command = group[0][0]
        data = frame(self._next, command)
        size = self._pending_size + len(data)
        if size > SMALL_BLOCK_SIZE and pending:
            self._encode()
            pending, size = self._pending, len(data)
        pending.append(data)
        self._pending_size = size
        self._next += 1
        if len(command) < 3 and command[0] in FLUSHES:
            self._may_flush = True
        if not self._waiting:
            self._announce()

    def _break_run(self, group: list[Effect], own: bool) -> None:
        """Take a group that cannot join the frames that are pending: one of several entries, or of another origin."""
        if self._pending:
            self._encode()
        self._own = own
        if len(group) == 1:
            self.add(group, own)
            return
        start = size = 0
        for stop, (command, _, _) in enumerate(group):
            size += sum(map(len, command))
            if stop > start and (stop - start >= GROUP_LIMIT or size > _GROUP_SIZE):
                # What is too large for the wire to go as one group goes as several.
                self._store_group(group[start:stop], own)
                start, size = stop, sum(map(len, command))
        self._store_group(group[start:], own)
        self._announce()

    def _store_group(self, group: list[Effect], own: bool) -> None:
        commands = [effect[0] for effect in group]
        line = wire.group(len(commands)) if len(commands) > 1 else b""
        data = line + wire.encode_frames(self._sealed, commands)
        self._store(data, len(commands), own, len(commands) > 1, any(command[0] in FLUSHES for command in commands))

    def add_raw(
        self,
        first: int,
        count: int,
        data: bytes,
        grouped: bool = False,
        own: bool = True,
        *,
        may_flush: bool = True,
    ) -> None:
        """Take ``count`` entries from ``first`` on as frames, byte for byte as they came from upstream.

        ``grouped``: they are one group. ``may_flush``: one of them may be a FLUSHALL, so look at each. Raises
        ValueError if ``first`` is not the next offset.
        """
        if self._pending:
            self._encode()
        if first != self._sealed:
            raise ValueError(f"expected the entry at offset {self._sealed}, not {first}")
        if grouped and count > 1:
            data = wire.group(count) + data
        else:
            grouped = False
        self._store(data, count, own, grouped, may_flush)
        self._announce()

    def _announce(self) -> None:
        if not self._waiting:
            self._waiting = True
            if self.on_pending is not None:
                self.on_pending()

    def seal(self) -> None:
        """Let what was added be read, and stay within the budget."""
        self._waiting = False
        if self._pending:
            self._encode()

    def _encode(self) -> None:
        """Put the frames that are pending into the newest block."""
        frames, may_flush = self._pending, self._may_flush
        self._pending = []
        self._pending_size = 0
        self._may_flush = False
        data = frames[0] if len(frames) == 1 else b"".join(frames)
        self._store(data, len(frames), self._own, False, may_flush)

    def _store(self, data: bytes, count: int, own: bool, grouped: bool, may_flush: bool) -> None:
        """Append encoded entries to the newest block, or begin the next one and see whether old ones must go."""
        block = self._newest
        fits = block is not None and block.size + len(data) <= self._block_size
        if block is None or not fits:
            block = self._begin_block(own)
        self._sealed += count
        self._next = self._sealed
        block.append(data, self._sealed, own, grouped, may_flush)
        if not fits:
            self._trim()

    def _begin_block(self, own: bool) -> Block:
        if self._newest is not None:
            self._newest.close()
            self._closed_memory += self._newest.memory
        self._newest_number += 1
        block = self._newest = self._blocks[self._newest_number] = Block(self._sealed, own)
        return block

    # -- entries go ---------------------------------------------------------------------------------------------------

    def _trim(self) -> None:
        """Give up the oldest blocks until the budget is kept; those that a pin needs only beyond twice the budget."""
        if self._closed_memory and self._sealed_memory() > self._budget:
            held_from = self.pins.lowest
            while self._oldest_number < self._newest_number:
                memory = self._sealed_memory()
                if memory <= self._budget:
                    break
                block = self._blocks[self._oldest_number]
                if held_from is not None and block.next > held_from:
                    if memory <= 2 * self._budget:
                        break
                    self.pins.lose_below(block.next)
                    held_from = self.pins.lowest
                del self._blocks[self._oldest_number]
                self._oldest_number += 1
                self._closed_memory -= block.memory
                self.first = block.next

    def pin(self, offset: int) -> Pin:
        """Keep the entries from ``offset`` on until the pin is moved or released, as far as twice the budget allows.

        Raises TooOld or Future for an offset that is not held or expected here.
        """
        self._check(offset)
        return self.pins.add(offset)

    def _pins_changed(self) -> None:
        self.pins.lose_below(self.first)
        self._trim()

    def reset(self, start: int) -> None:
        """Forget everything; the next entry is ``start``. Cursors read TooOld from now on, and pins are lost."""
        self._pending = []
        self._pending_size = 0
        self._may_flush = self._waiting = False
        self._blocks = {}
        self._newest = None
        self._oldest_number = self._floor = self._newest_number + 1
        self._closed_memory = 0
        self.first = self._sealed = self._next = start
        self.pins.lose_all()

    # -- reading ------------------------------------------------------------------------------------------------------

    def _check(self, offset: int) -> None:
        if offset < self.first:
            raise TooOld(offset, self.first, self.next)
        if offset > self.next:
            raise Future(offset, self.first, self.next)

    def cursor(self, offset: int) -> Cursor:
        """A cursor before the entry ``offset``, or behind the last one. Seals if it stands in what is not sealed yet.

        Raises TooOld below ``first``, Future above ``next``, NotABoundary within a group.
        """
        self._check(offset)
        if self._pending and offset > self._sealed:
            self._encode()
            self._check(offset)
        if offset == self._sealed:
            newest = self._newest
            return Cursor(offset, max(self._newest_number, self._oldest_number), newest.size if newest else 0)
        number = (
            bisect_right(
                range(self._oldest_number, self._newest_number + 1),
                offset,
                key=lambda number: self._blocks[number].first,
            )
            + self._oldest_number
            - 1
        )
        place, first, next_offset = self._blocks[number].place_of(offset)
        if first != next_offset:
            raise NotABoundary(offset, first, next_offset)
        return Cursor(offset, number, place)

    def on_boundary(self, offset: int) -> bool:
        """Whether a cursor can be set before the entry ``offset``."""
        try:
            self.cursor(offset)
        except BacklogError:
            return False
        return True

    def read(self, cursor: Cursor, limit_bytes: int, grouped: bool) -> list[bytes]:
        """The sealed entries from the cursor on, and move it behind them; empty if there are none.

        Stops when there are ``limit_bytes``, at the end of the part or block that reaches it. ``grouped`` says whether
        the reader knows groups, and with them FLUSHALL; for others their lines are left out, and reading stops before
        an entry that empties everything: see :attr:`Cursor.at_flush`. Raises TooOld if the cursor has fallen off.
        """
        out: list[bytes] = []
        block = self._enter(cursor)
        while block is not None and limit_bytes > 0 and not cursor.at_flush:
            part = bisect_right(block.ends, cursor.place)
            simple = grouped or not (block.groups or block.flush_offsets)
            while part < len(block.ends) and limit_bytes > 0 and not cursor.at_flush:
                data = take_part(cursor, block, part) if simple else take_frames(cursor, block, part)
                if data:
                    out.append(data)
                    limit_bytes -= len(data)
                part += 1
            block = self._enter(cursor)
        return out

    def skip_flush(self, cursor: Cursor) -> None:
        """Go on behind the flush that the cursor stands before. Raises TooOld if the cursor has fallen off."""
        block = self._enter(cursor)
        if cursor.at_flush and block is not None:
            data, start = block.part_at(cursor.place)
            cursor.place = start + frame_end(data, cursor.place - start)
            cursor.offset += 1
            cursor.at_flush = False

    def read_filtered(
        self,
        cursor: Cursor,
        accept: Callable[[bytes], bool],
        limit_bytes: int,
        expected: int | None = None,
        released: list[bytes] | None = None,
    ) -> tuple[list[bytes], int]:
        """The sealed entries of this node's own from the cursor on whose key is accepted, and move it behind all.

        ``expected`` is the offset that the peer waits for (None: the cursor's). Where others are left out before a
        frame, a ``+SKIP`` stands before it. Of a group what is accepted stays a group. Returns the bytes and the
        offset that the peer waits for then, which is below ``cursor.offset`` if the last entries were left out.
        ``released``: see :class:`Filter`.
        Stops when ``limit_bytes`` have been looked at, as :meth:`read`. Raises TooOld if the cursor has fallen off.
        """
        picker = Filter(accept, cursor.offset if expected is None else expected, released)
        block = self._enter(cursor)
        while block is not None and limit_bytes > 0:
            part = bisect_right(block.ends, cursor.place)
            while part < len(block.ends) and limit_bytes > 0:
                limit_bytes -= pick_entries(cursor, block, part, picker)
                part += 1
            block = self._enter(cursor)
        return picker.out, picker.expected

    def _enter(self, cursor: Cursor) -> Block | None:
        """The block in which the cursor has something to read; None if it has read everything that is sealed."""
        if cursor.block < self._floor or cursor.offset < self.first:
            raise TooOld(cursor.offset, self.first, self.next)
        if cursor.block < self._oldest_number:
            # It stood at the end of a block that has gone since.
            cursor.block, cursor.place = self._oldest_number, 0
        block = self._blocks.get(cursor.block)
        if block is not None and cursor.place == block.size:
            if cursor.block == self._newest_number:
                return None
            cursor.block += 1
            cursor.place = 0
            return self._blocks[cursor.block]
        return block


def _block_size(budget: int) -> int:
    """Bytes of a block where so many may be held: a small part of them."""
    return min(BLOCK_SIZE, max(SMALL_BLOCK_SIZE, budget // 16))
