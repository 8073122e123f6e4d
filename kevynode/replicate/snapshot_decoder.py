"""Reads snapshots: bytes in the form of ``snapshot_format``, as they arrive, into a staging."""

from __future__ import annotations

from collections.abc import Callable, Generator
from io import BytesIO
from struct import error as StructError  # noqa: N812  an exception of the standard library under a telling name
from typing import Final, TypeAlias

from ..store.staging import Staging
from ..store.stream_values import EntryId, Group, Stream
from ..store.values import Hash, List, Set, SortedSet, Value
from ..twins import COMPILED
from .snapshot_format import (
    CURSOR,
    DEADLINE_STRING_HEAD,
    END,
    ENTRY,
    F64,
    FIELD_DEADLINE,
    FIELD_HEAD,
    HASH,
    LIST,
    MAGIC,
    PENDING,
    PLAIN_HEAD,
    READABLE,
    SET,
    SORTED_SET,
    STREAM,
    STREAM_HEAD,
    STRING,
    TIERED,
    U32,
    U64,
)

if COMPILED:
    from ..compiled.snapshot import put_strings

__all__ = ["SnapshotDecoder", "SnapshotError"]

#: (staging, bytes, place) -> the place behind the plain strings that stand there, which have been put in.
_PutStrings: TypeAlias = Callable[[Staging, bytes, int], int]

# The store counts in signed 64-bit milliseconds, as Valkey does; what is beyond will not come in 292 million years.
_LAST_MOMENT: Final = 2**63 - 1
# Containers of at most so many elements are read whole if they have arrived whole.
_SMALL: Final = 64


class SnapshotError(Exception):
    """The bytes are no snapshot, or one that cannot be read here. ``reason`` says what is wrong with them."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class SnapshotDecoder:
    """Reads a snapshot into ``staging``, however its bytes arrive: fed byte by byte the result is the same.

    :meth:`feed` takes time in proportion to what it is given, about a millisecond for 16 KiB, and memory only for bytes
    that have arrived, whatever lengths they announce. Of a key that comes twice the last one stays. ``now_ms`` is the
    wall clock in unix ms, for version 2, whose deadlines are what is left of them. An error leaves the staging half
    filled: throw it away.
    """

    def __init__(self, staging: Staging, *, now_ms: int = 0) -> None:
        self.staging = staging
        #: The snapshot's version; 0 until it is known.
        self.version = 0
        #: The (history, offset) that the data stands for: version 5 and later, (0, 0) if its writer named none.
        self.cursor: tuple[int, int] | None = None
        #: The end has been read. What is fed behind it is ignored.
        self.finished = False
        self._now = now_ms
        # What has been fed and not yet read: _buffer from _position on.
        self._buffer = b""
        self._position = 0
        self._failure: SnapshotError | None = None
        # The compiled part, which takes plain strings; None: there is none.
        self._put_strings: _PutStrings | None = put_strings if COMPILED else None
        self._parser = self._parse()
        next(self._parser)

    def feed(self, data: bytes) -> None:
        """Read the next bytes. Raises SnapshotError for what can be no snapshot, and again at every later call."""
        if self._failure is not None:
            raise self._failure
        if not data or self.finished:
            return
        try:
            self._parser.send(data)
        except StopIteration:
            self.finished = True
            self._buffer = b""
        except SnapshotError as error:
            self._failure = error
            raise

    def finish(self) -> None:
        """No more bytes will come: raises SnapshotError if the snapshot is not complete or has failed before."""
        if self._failure is not None:
            raise self._failure
        if not self.finished:
            self._failure = SnapshotError(f"snapshot ends in the middle, after {self.staging.count} keys")
            raise self._failure

    # -- bytes --------------------------------------------------------------------------------------------------------

    def _take(self, size: int) -> Generator[None, bytes, bytes]:
        """The next ``size`` bytes, waiting for those that have not arrived."""
        start = self._position
        stop = start + size
        if stop <= len(self._buffer):
            self._position = stop
            return self._buffer[start:stop]
        # Grows in place and gives its bytes away without a copy: a text may have hundreds of megabytes.
        collected = BytesIO()
        missing = stop - len(self._buffer)
        collected.write(self._buffer[start:])
        while True:
            data = yield
            if len(data) >= missing:
                break
            missing -= len(data)
            collected.write(data)
        collected.write(data[:missing])
        self._buffer = data
        self._position = missing
        return collected.getvalue()

    def _number(self) -> Generator[None, bytes, int]:
        data = yield from self._take(4)
        return int.from_bytes(data, "little")

    def _long_number(self) -> Generator[None, bytes, int]:
        data = yield from self._take(8)
        return int.from_bytes(data, "little")

    def _two_numbers(self) -> Generator[None, bytes, tuple[int, int]]:
        first, second = CURSOR.unpack((yield from self._take(CURSOR.size)))
        return first, second

    def _text(self) -> Generator[None, bytes, bytes]:
        size = yield from self._number()
        return (yield from self._take(size))

    def _arrived_texts(self, limit: int) -> list[bytes]:
        """The next texts, at most ``limit``, that have arrived whole."""
        buffer, position = self._buffer, self._position
        size = len(buffer)
        number = U32.unpack_from
        texts: list[bytes] = []
        try:
            for _ in range(limit):
                start = position + 4
                stop = start + number(buffer, position)[0]
                if stop > size:
                    break
                texts.append(buffer[start:stop])
                position = stop
        except StructError:
            # Not even the length is whole.
            pass
        self._position = position
        return texts

    # -- records ------------------------------------------------------------------------------------------------------

    def _parse(self) -> Generator[None, bytes, None]:
        """The whole snapshot, step by step: a coroutine that is sent the bytes as they arrive."""
        magic = yield from self._take(len(MAGIC))
        if magic != MAGIC:
            raise SnapshotError("not a snapshot: it does not begin with KEVYSNAP")
        self.version = (yield from self._take(1))[0]
        if self.version not in READABLE:
            raise SnapshotError(f"snapshot version {self.version} is not known here")
        if self.version >= 5:
            self.cursor = yield from self._two_numbers()
        while True:
            self._read_arrived_keys()
            op = (yield from self._take(1))[0]
            if op == END:
                return
            if op <= STREAM:
                yield from self._record(op)
            elif op == FIELD_DEADLINE and self.version >= 6:
                yield from self._field_deadline()
            elif op == TIERED and self.version >= 7:
                raise SnapshotError("a value has been left out of the snapshot: it was moved to another tier")
            else:
                raise SnapshotError(f"unknown record {op} in a snapshot of version {self.version}")

    def _read_arrived_keys(self) -> None:
        """Read strings and small containers while whole records of them have arrived: most of most snapshots."""
        buffer, position = self._buffer, self._position
        size = len(buffer)
        put_strings = self._put_strings
        put, head, number = self.staging.put, PLAIN_HEAD.unpack_from, U32.unpack_from
        try:
            while True:
                if put_strings is not None:
                    position = put_strings(self.staging, buffer, position)
                op, has_deadline, key_size = head(buffer, position)
                if has_deadline == 1:
                    _, _, moment, key_size = DEADLINE_STRING_HEAD.unpack_from(buffer, position)
                    start = position + DEADLINE_STRING_HEAD.size
                    deadline = self._deadline(moment)
                else:
                    start = position + PLAIN_HEAD.size
                    deadline = None
                middle = start + key_size
                (length,) = number(buffer, middle)
                if op == STRING:
                    stop = middle + 4 + length
                    if stop > size:
                        break
                    put(buffer[start:middle], buffer[middle + 4 : stop], deadline)
                    position = stop
                elif HASH <= op <= SET and 0 < length <= _SMALL:
                    self._position = middle + 4
                    value = self._arrived_container(op, length)
                    if value is None:
                        break
                    put(buffer[start:middle], value, deadline)
                    position = self._position
                else:
                    break
        except StructError:
            # The record's head has not arrived whole.
            pass
        self._position = position

    def _arrived_container(self, op: int, count: int) -> Hash | List | Set | None:
        """A container of ``count`` elements, or None if they have not arrived whole."""
        epoch = self.staging.epoch
        wanted = 2 * count if op == HASH else count
        texts = self._arrived_texts(wanted)
        if len(texts) < wanted:
            return None
        if op == SET:
            return Set.of(texts, epoch)
        if op == LIST:
            value = List(epoch)
            value.extend_right(texts)
            return value
        pairs = Hash(epoch)
        for field, content in zip(texts[::2], texts[1::2], strict=True):
            pairs.put(field, content)
        return pairs

    def _deadline(self, moment: int) -> int:
        """A key's deadline in unix ms, from what the snapshot says."""
        return min(moment + self._now if self.version == 2 else moment, _LAST_MOMENT)

    def _record(self, op: int) -> Generator[None, bytes, None]:
        """One key with its value, behind the ``op``."""
        deadline = None
        if (yield from self._take(1)) == b"\x01":
            deadline = self._deadline((yield from self._long_number()))
        key = yield from self._text()
        value: Value
        if op == STRING:
            value = yield from self._text()
        elif op == HASH:
            value = yield from self._hash()
        elif op == LIST:
            value = yield from self._list()
        elif op == SET:
            value = yield from self._set()
        elif op == SORTED_SET:
            value = yield from self._sorted_set()
        else:
            value = yield from self._stream()
        if len(value) or op in (STRING, STREAM):
            self.staging.put(key, value, deadline)
        else:
            # An empty container is no value.
            self.staging.remove(key)

    def _hash(self) -> Generator[None, bytes, Hash]:
        value = Hash(self.staging.epoch)
        missing = yield from self._number()
        put = value.put
        while missing:
            texts = self._arrived_texts(2 * missing)
            for field, content in zip(texts[::2], texts[1::2], strict=False):
                put(field, content)
            missing -= len(texts) >> 1
            if missing:
                field = texts[-1] if len(texts) & 1 else (yield from self._text())
                put(field, (yield from self._text()))
                missing -= 1
        return value

    def _list(self) -> Generator[None, bytes, List]:
        value = List(self.staging.epoch)
        missing = yield from self._number()
        while missing:
            texts = self._arrived_texts(missing)
            missing -= len(texts)
            if missing:
                texts.append((yield from self._text()))
                missing -= 1
            value.extend_right(texts)
        return value

    def _set(self) -> Generator[None, bytes, Set]:
        value = Set(self.staging.epoch)
        missing = yield from self._number()
        while missing:
            texts = self._arrived_texts(missing)
            missing -= len(texts)
            for member in texts:
                value.add(member)
            if missing:
                value.add((yield from self._text()))
                missing -= 1
        return value

    def _sorted_set(self) -> Generator[None, bytes, SortedSet]:
        value = SortedSet(self.staging.epoch)
        missing = yield from self._number()
        while missing:
            missing -= self._read_arrived_scores(value, missing)
            if missing:
                member = yield from self._text()
                (score,) = F64.unpack((yield from self._take(8)))
                self._put_score(value, member, score)
                missing -= 1
        return value

    def _read_arrived_scores(self, value: SortedSet, limit: int) -> int:
        """Put in the next members, at most ``limit``, that have arrived whole with their scores; how many they are."""
        buffer, position = self._buffer, self._position
        number, double, put = U32.unpack_from, F64.unpack_from, self._put_score
        count = 0
        try:
            while count < limit:
                start = position + 4
                stop = start + number(buffer, position)[0]
                (score,) = double(buffer, stop)
                put(value, buffer[start:stop], score)
                position = stop + 8
                count += 1
        except StructError:
            # The next one has not arrived whole.
            pass
        self._position = position
        return count

    def _put_score(self, value: SortedSet, member: bytes, score: float) -> None:
        if score != score:
            raise SnapshotError("a score in the snapshot is not a number")
        # Adding zero turns a negative zero into zero.
        value.put(member, score + 0.0)

    def _stream(self) -> Generator[None, bytes, Stream]:
        value = Stream(self.staging.epoch)
        head = STREAM_HEAD.unpack((yield from self._take(STREAM_HEAD.size)))
        missing = head[5]
        while missing:
            missing -= self._read_arrived_entries(value, missing)
            if missing:
                ms, sequence, fields = ENTRY.unpack((yield from self._take(ENTRY.size)))
                texts: list[bytes] = []
                while len(texts) < 2 * fields:
                    texts += self._arrived_texts(2 * fields - len(texts))
                    if len(texts) < 2 * fields:
                        texts.append((yield from self._text()))
                self._append(value, (ms, sequence), texts)
                missing -= 1
        try:
            value.take_past((head[0], head[1]), (head[2], head[3]), head[4])
        except ValueError:
            raise SnapshotError("a stream in the snapshot has entries above its last id") from None
        if self.version >= 4:
            for _ in range((yield from self._number())):
                name = yield from self._text()
                value.remove_group(name)
                yield from self._group(value.create_group(name, (yield from self._two_numbers())))
        return value

    def _read_arrived_entries(self, value: Stream, limit: int) -> int:
        """Add the next entries, at most ``limit``, that have arrived whole; how many they are."""
        count = 0
        before = self._position
        while count < limit and before + ENTRY.size <= len(self._buffer):
            ms, sequence, fields = ENTRY.unpack_from(self._buffer, before)
            self._position = before + ENTRY.size
            texts = self._arrived_texts(2 * fields)
            if len(texts) < 2 * fields:
                break
            self._append(value, (ms, sequence), texts)
            count += 1
            before = self._position
        self._position = before
        return count

    def _append(self, value: Stream, entry_id: EntryId, texts: list[bytes]) -> None:
        try:
            value.append(entry_id, tuple(texts))
        except ValueError:
            raise SnapshotError("a stream in the snapshot has entries that are not in the order of their ids") from None

    def _group(self, group: Group) -> Generator[None, bytes, None]:
        for _ in range((yield from self._number())):
            consumer = yield from self._text()
            group.see(consumer, min((yield from self._long_number()), _LAST_MOMENT))
        for _ in range((yield from self._number())):
            entry_id = yield from self._two_numbers()
            consumer = yield from self._text()
            delivered, deliveries = PENDING.unpack((yield from self._take(PENDING.size)))
            group.deliver(entry_id, consumer, min(delivered, _LAST_MOMENT), deliveries)

    def _field_deadline(self) -> Generator[None, bytes, None]:
        """The deadline of one hash field, behind the ``op``, and of all that have arrived with it."""
        key = yield from self._text()
        field = yield from self._text()
        deadline = yield from self._long_number()
        # A field that is not there needs no deadline.
        self.staging.set_field_deadline(key, field, min(deadline, _LAST_MOMENT))
        self._read_arrived_field_deadlines()

    def _read_arrived_field_deadlines(self) -> None:
        buffer, position = self._buffer, self._position
        set_deadline, head, number, long_number = (
            self.staging.set_field_deadline,
            FIELD_HEAD.unpack_from,
            U32.unpack_from,
            U64.unpack_from,
        )
        try:
            while True:
                op, key_size = head(buffer, position)
                if op != FIELD_DEADLINE:
                    break
                start = position + FIELD_HEAD.size
                middle = start + key_size
                stop = middle + 4 + number(buffer, middle)[0]
                (deadline,) = long_number(buffer, stop)
                set_deadline(buffer[start:middle], buffer[middle + 4 : stop], min(deadline, _LAST_MOMENT))
                position = stop + 8
        except StructError:
            # The next record has not arrived whole.
            pass
        self._position = position
