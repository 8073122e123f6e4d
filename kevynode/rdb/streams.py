"""Streams in dump files, in the three forms that Redis 5, 7.0 and 7.2 and Valkey write."""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Final

from ..store.stream_values import ID_LIMIT, ZERO, EntryId, Fields, Group, Stream
from .encodings import ListPack, Packed
from .source import PAUSES, Steps
from .values import LAST_DEADLINE, ContainerReader

__all__ = ["StreamReader"]

#: An id as it stands where it is no number of its own: milliseconds and sequence, big-endian.
_RAW_ID: Final = Struct(">QQ")
#: An id that is pending for a group, and the unix ms it was delivered at.
_PENDING_SIZE: Final = 24
_I64: Final = Struct("<q")

# Flags of an entry in a node.
_DELETED: Final = 1
_SAME_FIELDS: Final = 2

#: The work that several texts and numbers one by one are.
_SEVERAL: Final = 4


class StreamReader(ContainerReader):
    """Reads streams as well."""

    def _stream_1(self) -> Steps[Stream]:
        return (yield from self._stream(1))

    def _stream_2(self) -> Steps[Stream]:
        return (yield from self._stream(2))

    def _stream_3(self) -> Steps[Stream]:
        return (yield from self._stream(3))

    def _stream(self, version: int) -> Steps[Stream]:
        value = Stream(self.epoch)
        start = self.source.offset
        for _ in range((yield from self._length())):
            yield from self._node(value)
        count = yield from self._length()
        if count != len(value):
            raise self._error(f"a stream of {len(value)} entries says that it has {count}", start)
        last_id = yield from self._id()
        max_deleted_id, added = ZERO, count
        if version >= 2:
            yield from self._id()  # of the first entry
            max_deleted_id = yield from self._id()
            added = yield from self._length()
        try:
            value.take_past(last_id, max_deleted_id, added)
        except ValueError as error:
            raise self._error(str(error), start) from None
        for _ in range((yield from self._length())):
            yield from self._group(value, version)
            if self._is_tired(_SEVERAL):
                yield PAUSES
        return value

    def _id(self) -> Steps[EntryId]:
        ms = yield from self._length()
        return ms, (yield from self._length())

    # -- entries ------------------------------------------------------------------------------------------------------

    def _node(self, value: Stream) -> Steps[None]:
        """A run of entries: the id that theirs are told from, and a listpack of them."""
        start = self.source.offset
        key = yield from self._text()
        if len(key) != _RAW_ID.size:
            raise self._error("a node of a stream has no id", start)
        packed, start = yield from self._packed(ListPack)
        words = _Words(self, packed, start)
        base = _RAW_ID.unpack(key)
        words.number()  # of entries that are there, deleted ones not counted
        words.number()  # of deleted ones
        fields = [words.word() for _ in range(words.count())]
        words.number()  # ends the fields
        while not words.ended():
            self._entry(value, words, base, fields)
            if self._is_tired(_SEVERAL + len(fields)):
                yield PAUSES

    def _entry(self, value: Stream, words: _Words, base: EntryId, fields: list[bytes]) -> None:
        flags = words.number()
        entry_id = (base[0] + words.number()) % ID_LIMIT, (base[1] + words.number()) % ID_LIMIT
        contents: list[bytes] = []
        if flags & _SAME_FIELDS:
            for field in fields:
                contents += (field, words.word())
        else:
            for _ in range(words.count()):
                contents += (words.word(), words.word())
        words.number()  # how many elements that were, for those who walk backwards
        if not flags & _DELETED:
            self._append(value, entry_id, tuple(contents), words.start)

    def _append(self, value: Stream, entry_id: EntryId, contents: Fields, start: int) -> None:
        try:
            value.append(entry_id, contents)
        except ValueError:
            raise self._error("the entries of a stream are not in the order of their ids", start) from None

    # -- groups -------------------------------------------------------------------------------------------------------

    def _group(self, value: Stream, version: int) -> Steps[None]:
        start = self.source.offset
        name = yield from self._text()
        if name in value.groups:
            raise self._error("a stream has two groups of the same name", start)
        group = value.create_group(name, (yield from self._id()))
        if version >= 2:
            yield from self._length()  # how many entries the group has read
        pending: dict[EntryId, tuple[int, int]] = {}
        for _ in range((yield from self._length())):
            data = yield from self.source.take(_PENDING_SIZE)
            (delivered,) = _I64.unpack_from(data, _RAW_ID.size)
            count = yield from self._length()
            ms, sequence = _RAW_ID.unpack_from(data)
            pending[ms, sequence] = _moment(delivered), min(count, LAST_DEADLINE)
            if self._is_tired(_SEVERAL):
                yield PAUSES
        for _ in range((yield from self._length())):
            yield from self._consumer(group, pending, version)
            if self._is_tired(_SEVERAL):
                yield PAUSES
        if pending:
            raise self._error("a group has entries that are pending for no consumer", start)

    def _consumer(self, group: Group, pending: dict[EntryId, tuple[int, int]], version: int) -> Steps[None]:
        start = self.source.offset
        name = yield from self._text()
        (seen,) = _I64.unpack((yield from self.source.take(8)))
        if version >= 3:
            yield from self.source.take(8)  # when it last got entries
        if not group.see(name, _moment(seen)):
            raise self._error("a group has two consumers of the same name", start)
        for _ in range((yield from self._length())):
            ms, sequence = _RAW_ID.unpack((yield from self.source.take(_RAW_ID.size)))
            told = pending.pop((ms, sequence), None)
            if told is None:
                raise self._error("a consumer has an entry pending that its group has not", start)
            group.deliver((ms, sequence), name, *told)
            if self._is_tired(_SEVERAL):
                yield PAUSES


class _Words:
    """The elements of a node one by one."""

    def __init__(self, reader: StreamReader, packed: Packed, start: int) -> None:
        self.start = start
        self._reader = reader
        self._packed = packed
        self._waiting: Iterator[bytes] = iter(())
        self._next: bytes | None = None
        self._advance()

    def _advance(self) -> None:
        self._next = next(self._waiting, None)
        if self._next is None:
            elements = self._reader._elements(self._packed, self.start)
            self._waiting = iter(elements)
            self._next = next(self._waiting, None)

    def ended(self) -> bool:
        return self._next is None

    def word(self) -> bytes:
        word = self._next
        if word is None:
            raise self._reader._error("a node of a stream ends in the middle of an entry", self.start)
        self._advance()
        return word

    def number(self) -> int:
        word = self.word()
        if len(word) > 20 or not word.lstrip(b"-").isdigit():
            raise self._reader._error("a node of a stream has text where a number belongs", self.start)
        return int(word)

    def count(self) -> int:
        number = self.number()
        if number < 0:
            raise self._reader._error("an entry of a stream has a negative number of fields", self.start)
        return number


def _moment(ms: int) -> int:
    """A time in unix ms; what was never is the start of all."""
    return max(ms, 0)
