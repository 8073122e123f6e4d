"""Random sequences of groups, seals, trims and reads: every reader gets exactly what a plain list says, or TooOld."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from support.stream_text import parse

from kevynode.replicate import backlog as backlog_module
from kevynode.replicate import block as block_module
from kevynode.replicate.backlog import Backlog, BacklogError, Cursor, Future, NotABoundary, Pin, TooOld
from kevynode.replicate.wire import encode_frames

#: Far more than any test reads.
ALL = 1 << 40


class Entry:
    """An entry as the model keeps it."""

    def __init__(self, words: list[bytes], own: bool, group: tuple[int, int]) -> None:
        self.words = words
        self.own = own
        # The first offset of its group, and the one behind it.
        self.group = group
        self.flushes = words[0].upper() in (b"FLUSHALL", b"FLUSHDB")
        self.key = None if self.flushes else words[1]


class Reader:
    """A link, and what it must get next."""

    def __init__(self, kind: str, cursor: Cursor) -> None:
        self.kind = kind
        self.cursor = cursor
        self.offset = self.expected = cursor.offset


KEYS = [b"a", b"b", b"c"]
values = st.one_of(
    st.binary(max_size=6),
    st.sampled_from([b"\r\n+TXN 2\r\n", b"*2\r\n:1\r\n", b"FLUSHALL", b"+SKIP 3\r\n", b"v" * 90, b"v" * 400]),
)
commands = st.one_of(
    st.builds(lambda key, value: [b"SET", key, value], st.sampled_from(KEYS), values),
    st.builds(lambda key, value: [b"HSET", key, b"field", value], st.sampled_from(KEYS), values),
    st.builds(lambda key: [b"DEL", key], st.sampled_from(KEYS)),
    st.just([b"FLUSHALL"]),
)


class BacklogMachine(RuleBasedStateMachine):
    """Compares with a list. Blocks are tiny, so that a few entries make many of them."""

    @initialize(
        budget=st.integers(0, 6000),
        start=st.sampled_from([0, 9, 2**40]),
        size=st.sampled_from([1, 60, 200, 400, 900]),
        parts=st.integers(1, 5),
    )
    def begin(self, budget: int, start: int, size: int, parts: int) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(backlog_module, "BLOCK_SIZE", size)
        self.patch.setattr(block_module, "_PART_LIMIT", parts)
        self.patch.setattr(backlog_module, "PENDING_LIMIT", 4)
        self.backlog = Backlog(budget, start)
        self.start = start
        self.entries: list[Entry] = []
        self.readers: list[Reader] = []
        self.pins: list[Pin] = []

    def teardown(self) -> None:
        self.patch.undo()

    @property
    def next(self) -> int:
        return self.start + len(self.entries)

    def entry(self, offset: int) -> Entry:
        return self.entries[offset - self.start]

    def is_boundary(self, offset: int) -> bool:
        return offset == self.next or self.entry(offset).group[0] == offset

    def remember(self, group: list[list[bytes]], own: bool) -> None:
        bounds = (self.next, self.next + len(group))
        self.entries += [Entry(words, own, bounds) for words in group]

    @rule(group=st.lists(commands, min_size=1, max_size=4), own=st.booleans())
    def add(self, group: list[list[bytes]], own: bool) -> None:
        self.remember(group, own)
        self.backlog.add([(words, None, ()) for words in group], own)

    @rule(frames=st.lists(commands, min_size=1, max_size=4), grouped=st.booleans(), own=st.booleans())
    def add_raw(self, frames: list[list[bytes]], grouped: bool, own: bool) -> None:
        data = encode_frames(self.next, frames)
        self.backlog.add_raw(self.next, len(frames), data, grouped, own)
        for group in [frames] if grouped else [[words] for words in frames]:
            self.remember(group, own)

    @rule()
    def seal(self) -> None:
        self.backlog.seal()

    @rule(budget=st.integers(0, 6000))
    def set_budget(self, budget: int) -> None:
        self.backlog.budget = budget

    @rule(share=st.floats(0, 1))
    def pin(self, share: float) -> None:
        offset = self.backlog.first + round(share * (self.next - self.backlog.first))
        self.pins.append(self.backlog.pin(offset))

    @rule(index=st.integers(0, 5), forward=st.integers(0, 8), keep=st.booleans())
    def change_pin(self, index: int, forward: int, keep: bool) -> None:
        if index < len(self.pins):
            pin = self.pins[index]
            if keep:
                pin.move(min(pin.offset + forward, self.next))
            else:
                pin.release()
                del self.pins[index]

    @rule()
    def read_from_every_boundary(self) -> None:
        self.backlog.seal()
        for offset in range(self.backlog.first, self.next + 1):
            assert self.backlog.on_boundary(offset) is self.is_boundary(offset)
            if self.is_boundary(offset):
                reader = Reader("grouped", self.backlog.cursor(offset))
                self.check_all(reader, b"".join(self.backlog.read(reader.cursor, ALL, True)))
                assert self.backlog.cursor(reader.offset).offset == reader.offset

    @rule(kind=st.sampled_from(["grouped", "plain", "filtered"]), back=st.integers(-1, 40))
    def open(self, kind: str, back: int) -> None:
        offset = self.next - back
        cursor, found = None, None
        try:
            cursor = self.backlog.cursor(offset)
        except BacklogError as error:
            found = type(error)
        # Setting a cursor may have sealed, and so trimmed.
        wrong: type[BacklogError] | None
        if offset < self.backlog.first:
            wrong = TooOld
        elif offset > self.next:
            wrong = Future
        else:
            wrong = None if self.is_boundary(offset) else NotABoundary
        assert found is wrong
        assert self.backlog.on_boundary(offset) is (wrong is None)
        if cursor is not None:
            self.readers.append(Reader(kind, cursor))

    @rule(index=st.integers(0, 9), limit=st.sampled_from([0, 1, 50, 300, ALL]), key=st.sampled_from(KEYS))
    def read(self, index: int, limit: int, key: bytes) -> None:
        if index >= len(self.readers):
            return
        reader = self.readers[index]
        if reader.offset < self.backlog.first:
            with pytest.raises(TooOld):
                self.take(reader, limit)
            del self.readers[index]
            return
        if reader.cursor.at_flush:
            assert self.take(reader, limit) == []
            assert self.entry(reader.offset).flushes
            self.backlog.skip_flush(reader.cursor)
            reader.offset += 1
            assert reader.cursor.offset == reader.offset
            return
        parts = self.take(reader, limit)
        if reader.kind != "filtered":
            self.check_all(reader, b"".join(parts))
        assert reader.offset == reader.cursor.offset
        if limit == ALL and not reader.cursor.at_flush:
            # All that is sealed has come, and sealing brings the rest.
            self.backlog.seal()
            if reader.offset >= self.backlog.first:
                parts = self.take(reader, limit)
                if reader.kind != "filtered":
                    self.check_all(reader, b"".join(parts))
                assert reader.offset == self.next or reader.cursor.at_flush

    def take(self, reader: Reader, limit: int) -> list[bytes]:
        if reader.kind != "filtered":
            return self.backlog.read(reader.cursor, limit, reader.kind == "grouped")
        parts, expected = self.backlog.read_filtered(reader.cursor, b"ab".__contains__, limit, reader.expected)
        self.check_filtered(reader, b"".join(parts), expected)
        return parts

    def check_all(self, reader: Reader, data: bytes) -> None:
        """Every entry from the reader's offset to its cursor, in order, and group lines exactly where they belong."""
        announced = 0
        for kind, number, words in parse(data):
            if kind == "group":
                assert reader.kind == "grouped"
                assert self.entry(reader.offset).group == (reader.offset, reader.offset + number)
                assert number > 1
                announced = number
                continue
            first, behind = self.entry(reader.offset).group
            if reader.kind == "grouped" and behind - first > 1 and reader.offset == first:
                assert announced == behind - first
            assert kind == "frame"
            assert number == reader.offset
            assert words == self.entry(number).words
            assert reader.kind == "grouped" or not self.entry(number).flushes
            announced = 0
            reader.offset += 1
        assert reader.offset == reader.cursor.offset
        assert not reader.cursor.at_flush or self.entry(reader.offset).flushes

    def check_filtered(self, reader: Reader, data: bytes, told: int) -> None:
        """Exactly the wanted entries up to the cursor, and skips where they are not the expected ones."""
        wanted = [
            offset
            for offset in range(reader.offset, reader.cursor.offset)
            if self.entry(offset).own and (self.entry(offset).key is None or self.entry(offset).key in KEYS[:2])
        ]
        expected = reader.expected
        group_left = 0
        for kind, number, words in parse(data):
            if kind == "skip":
                assert number > expected
                expected = number
            elif kind == "group":
                first, behind = self.entry(wanted[0]).group
                assert number == sum(first <= offset < behind for offset in wanted) > 1
                group_left = number
            else:
                assert number == wanted.pop(0) == expected
                assert words == self.entry(number).words
                first, behind = self.entry(number).group
                others = [offset for offset in wanted if first <= offset < behind]
                assert not others or group_left > 1
                group_left = max(group_left - 1, 0)
                expected = number + 1
        assert wanted == []
        assert told == expected
        if expected > reader.offset:
            assert self.is_boundary(expected)
        reader.expected = expected
        reader.offset = reader.cursor.offset
        assert self.is_boundary(reader.offset)

    @invariant()
    def numbers_and_bounds_hold(self) -> None:
        backlog = self.backlog
        assert backlog.next == self.next
        assert self.start <= backlog.first <= self.next
        assert self.is_boundary(backlog.first)
        for pin in self.pins:
            assert pin.lost or backlog.first <= pin.offset

    @invariant()
    def everything_held_is_readable(self) -> None:
        for kind in ("grouped", "plain", "filtered"):
            reader = Reader(kind, self.backlog.cursor(self.backlog.first))
            while True:
                parts = self.take(reader, ALL)
                if kind != "filtered":
                    self.check_all(reader, b"".join(parts))
                if not reader.cursor.at_flush:
                    break
                self.backlog.skip_flush(reader.cursor)
                reader.offset += 1
            assert reader.offset == reader.cursor.offset
            assert self.take(reader, ALL) == []


BacklogMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
test_random_sequences = pytest.mark.slow(BacklogMachine.TestCase)
