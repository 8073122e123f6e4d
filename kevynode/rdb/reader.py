"""Reads dump files of Redis (versions 1 to 12) and Valkey (11 and 80), key by key, as their bytes arrive."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from struct import error as StructError  # noqa: N812  an exception of the standard library under a telling name
from typing import Final, TypeAlias

from ..store.stream_values import Stream
from ..store.values import Hash, List, Set, SortedSet, Value
from .crc64 import Crc64, crc64
from .encodings import EncodingError, IntSet, ListPack, Packed, ZipList
from .source import PAUSES, Steps
from .streams import StreamReader
from .texts import RdbError
from .values import LAST_DEADLINE

__all__ = ["Put", "RdbError", "RdbReader", "read_dump"]

#: Takes (key, value, deadline in unix ms or None).
Put: TypeAlias = Callable[[bytes, Value, int | None], object]

_REDIS: Final = b"REDIS"
_VALKEY: Final = b"VALKEY"
#: The highest version of Redis' own forms that is read, and the lowest and highest of those that only Valkey writes.
_REDIS_LAST: Final = 12
_VALKEY_FIRST: Final = 80
_VALKEY_LAST: Final = 80
#: Files end with a checksum from this version on.
_CHECKSUM_SINCE: Final = 5

_I64: Final = Struct("<q").unpack_from
_U32: Final = Struct("<I").unpack

# What stands in place of a key's type.
_SLOT_IMPORT: Final = 243
_SLOT_INFO: Final = 244
_FUNCTION: Final = 245
_FUNCTION_DRAFT: Final = 246
_MODULE_AUX: Final = 247
_IDLE: Final = 248
_FREQUENCY: Final = 249
#: Hints about a key's use.
_HINTS: Final = frozenset((_IDLE, _FREQUENCY))
_AUX: Final = 250
_RESIZE: Final = 251
_DEADLINE_MS: Final = 252
_DEADLINE: Final = 253
_DATABASE: Final = 254
_END: Final = 255

_STRING: Final = 0
_MODULE_DRAFT: Final = 6
_MODULE: Final = 7
_QUICKLIST_2: Final = 18
_HASH_DEADLINES: Final = 22

#: The deadline of what has none.
_NEVER: Final = -1

#: Types whose value is one blob, or a number of them of which one is the rule, read at once when it is small.
_BLOBS: Final[dict[int, tuple[Callable[[bytes], Packed], str]]] = {
    10: (ZipList, "list"),
    11: (IntSet, "set"),
    12: (ZipList, "sorted set"),
    13: (ZipList, "hash"),
    16: (ListPack, "hash"),
    17: (ListPack, "sorted set"),
    _QUICKLIST_2: (ListPack, "list"),
    20: (ListPack, "set"),
}
_SMALL_BLOB: Final = 4096

#: Strings that are read between two pauses, and as how many of them a container counts beside its elements.
_SLICE: Final = 512
_BLOB_COST: Final = 8
#: The work that a record is that does not go the fast way.
_RECORD: Final = 16
#: The same for several texts or numbers one by one.
_SEVERAL: Final = 4
#: Fields about the file that are kept, and the longest that are.
_AUX_LIMIT: Final = 64
_AUX_SIZE: Final = 256

_MODULE_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


class RdbReader(StreamReader):
    """Reads a dump file and gives each key to ``put``, however the bytes arrive: fed one by one the result is the same.

    ``database``: the one to read; keys of others are skipped. None: the only one that holds keys; a second is an error.
    ``now_ms``: keys and fields with a deadline before it (unix ms) are left out; 0: none are. ``epoch`` is that of the
    values that are made. After an error what has been put is of no use.

    :meth:`steps` works a few milliseconds between two steps for pieces of up to 64 KiB, whatever they hold, and memory
    is taken only for bytes that have arrived and what is compressed in them. Functions and what modules know beside
    keys are skipped and counted; values of modules are refused. A reader that is part of another input ends behind the
    dump and leaves the rest to whoever reads on in ``source``.
    """

    def __init__(self, put: Put, *, database: int | None = None, now_ms: int = 0, epoch: int = 0) -> None:
        #: As the file says: its version and whether the form is Valkey's own; fields about it, such as ``redis-ver``.
        self.version = 0
        self.is_valkey = False
        self.aux: dict[bytes, bytes] = {}
        #: Keys that have been put, by database, and those that have not: expired, empty, of other databases.
        self.keys = 0
        self.databases: dict[int, int] = {}
        self.expired_keys = 0
        self.empty_keys = 0
        self.skipped_keys = 0
        #: Function libraries and pieces of modules' data that have been skipped.
        self.functions = 0
        self.module_data = 0
        #: Whether the checksum was there and right; None until it is known, False if the file has none.
        self.verified: bool | None = None
        self._wanted = database
        self._database = 0
        self._database_start = 0
        self._put = put
        self._deliver: Put = self._deliver_first
        super().__init__(epoch, now_ms)

    def _read(self) -> Steps[None]:
        yield from self._file()

    def finish(self) -> None:
        """No more bytes will come: raises RdbError if the file is not complete or has failed before."""
        if self._failure is not None:
            raise self._failure
        if not self.finished:
            raise self._fail(RdbError(self._fed, f"the file ends in the middle, after {self.keys} keys"))

    # -- the file -----------------------------------------------------------------------------------------------------

    def _file(self) -> Steps[None]:
        """The whole file, header to checksum."""
        source = self.source
        checksum = Crc64()
        source.on_passed = checksum.update
        yield from self._header()
        while True:
            while self._read_arrived_keys():
                yield PAUSES
            start = source.offset
            op = (yield from source.take(1))[0]
            if op == _END:
                break
            if op >= _SLOT_IMPORT:
                yield from self._opcode(op, start)
            else:
                yield from self._key(op, start, None)
            if self._is_tired(_RECORD):
                yield PAUSES
        source.tell_passed()
        source.on_passed = None
        if self.version >= _CHECKSUM_SINCE:
            start = source.offset
            expected = int.from_bytes((yield from source.take(8)), "little")
            if expected and expected != checksum.value():
                raise self._error("the checksum is wrong: the file is damaged", start)
            self.verified = expected != 0
        else:
            self.verified = False
        self._count_keys()

    def _header(self) -> Steps[None]:
        head = yield from self.source.take(9)
        if head.startswith(_REDIS):
            digits = head[5:]
        elif head.startswith(_VALKEY):
            self.is_valkey = True
            digits = head[6:]
        else:
            raise self._error("not a dump file: it begins with neither REDIS nor VALKEY", 0)
        if not digits.isdigit():
            raise self._error("the dump file's version is not a number", 0)
        self.version = int(digits)
        first, last = (_VALKEY_FIRST, _VALKEY_LAST) if self.is_valkey else (1, _REDIS_LAST)
        if not first <= self.version <= last:
            raise self._error(
                f"dump file version {head.decode('latin-1')} is not known here"
                f" (read are REDIS0001 to REDIS{_REDIS_LAST:04} and VALKEY{_VALKEY_LAST:03})",
                0,
            )

    def _opcode(self, op: int, start: int) -> Steps[None]:
        """What is no key, behind its first byte."""
        if op == _DATABASE:
            self._count_keys()
            self._database_start = start
            self._database = yield from self._length()
            self._deliver = self._deliver_first
        elif op == _DEADLINE_MS:
            (deadline,) = _I64((yield from self.source.take(8)))
            yield from self._key_with(deadline)
        elif op == _DEADLINE:
            (seconds,) = _U32((yield from self.source.take(4)))
            yield from self._key_with(1000 * seconds)
        elif op == _IDLE:
            yield from self._length()
        elif op == _FREQUENCY:
            yield from self.source.take(1)
        elif op == _RESIZE:
            yield from self._length()
            yield from self._length()
        elif op == _SLOT_INFO:
            for _ in range(3):
                yield from self._length()
        elif op == _AUX:
            name = yield from self._text()
            text = yield from self._text()
            if len(self.aux) < _AUX_LIMIT and len(name) <= _AUX_SIZE and len(text) <= _AUX_SIZE:
                self.aux[name] = text
        elif op == _FUNCTION:
            yield from self._text()
            self.functions += 1
        elif op == _MODULE_AUX:
            yield from self._skip_module_data()
            self.module_data += 1
        elif op == _SLOT_IMPORT:
            raise self._error("the file was saved in the middle of a slot import of a cluster", start)
        else:
            raise self._error("the file holds functions in the form of a release candidate of Redis 7", start)

    def _skip_module_data(self) -> Steps[None]:
        """A module's id, and parts behind their kind: numbers, a float, a double, a text; kind 0 ends them."""
        yield from self._length()
        while True:
            start = self.source.offset
            kind = yield from self._length()
            if kind == 0:
                return
            if kind in (1, 2):
                yield from self._length()
            elif kind in (3, 4):
                yield from self.source.take(4 if kind == 3 else 8)
            elif kind == 5:
                yield from self._text()
            else:
                raise self._error(f"data of a module has a part of the unknown kind {kind}", start)
            if self._is_tired(_SEVERAL):
                yield PAUSES

    # -- keys ---------------------------------------------------------------------------------------------------------

    def _key_with(self, deadline: int) -> Steps[None]:
        """The key behind a deadline (unix ms); hints about its use may stand between."""
        while True:
            start = self.source.offset
            op = (yield from self.source.take(1))[0]
            if op not in _HINTS:
                break
            yield from self._opcode(op, start)
        if op >= _SLOT_IMPORT:
            raise self._error("a deadline stands before something that is no key", start)
        yield from self._key(op, start, None if deadline == _NEVER else deadline)

    def _key(self, kind: int, start: int, deadline: int | None) -> Steps[None]:
        """A key and its value of type ``kind``, which stood at the input's offset ``start``."""
        key = yield from self._text()
        expired_before = self.expired_fields
        value = yield from self._value(kind, start)
        if not len(value) and self.expired_fields > expired_before:
            self.expired_keys += 1
        else:
            self._deliver(key, value, deadline)

    def _value(self, kind: int, start: int) -> Steps[Value]:
        if kind == _STRING:
            return (yield from self._text())
        if kind in (_MODULE, _MODULE_DRAFT):
            name = "of a release candidate" if kind == _MODULE_DRAFT else _module_name((yield from self._length()))
            raise self._error(f"the file holds a value of the module {name}, which cannot be read here", start)
        read = _READERS.get(kind)
        if kind == _HASH_DEADLINES and not self.is_valkey:
            # Redis gave that number to a draft.
            read = None
        if read is None:
            raise self._error(f"the file holds a value of the unknown type {kind}", start)
        return (yield from read(self))

    def _deliver_first(self, key: bytes, value: Value, deadline: int | None) -> None:
        """Take the first key of a database: decide what becomes of it and the others."""
        if self._wanted is None:
            others = [number for number in self.databases if number != self._database]
            if others:
                reason = f"databases {others[0]} and {self._database} both hold keys: choose one"
                raise self._error(reason, self._database_start)
        if self._wanted in (None, self._database):
            self._deliver = self._deliver_wanted
        else:
            self._deliver = self._deliver_unwanted
        self._deliver(key, value, deadline)

    def _deliver_unwanted(self, key: bytes, value: Value, deadline: int | None) -> None:
        self.skipped_keys += 1

    def _deliver_wanted(self, key: bytes, value: Value, deadline: int | None) -> None:
        if deadline is not None:
            if deadline < self.now_ms:
                self.expired_keys += 1
                return
            deadline = min(max(deadline, 0), LAST_DEADLINE)
        if type(value) is not bytes and not len(value) and type(value) is not Stream:
            self.empty_keys += 1
            return
        self.keys += 1
        self._put(key, value, deadline)

    def _count_keys(self) -> None:
        """Enter the keys of the database that ends here."""
        count = self.keys - sum(self.databases.values())
        if count:
            self.databases[self._database] = self.databases.get(self._database, 0) + count

    def _read_arrived_keys(self) -> bool:
        """Read keys that have arrived whole, strings and small blobs; True if it stopped because that was enough."""
        source = self.source
        buffer, position = source.buffer, source.position
        size = len(buffer)
        read, number = self._arrived_text, _I64
        value: Value
        left = _SLICE
        try:
            while left > 0:
                kind = buffer[position]
                place = position + 1
                deadline = None
                if kind == _DEADLINE_MS:
                    deadline = number(buffer, place)[0]
                    if deadline == _NEVER:
                        deadline = None
                    kind = buffer[place + 8]
                    place += 9
                while kind in _HINTS:
                    place = place + 1 if kind == _FREQUENCY else self._arrived_length(buffer, place)[1]
                    kind = buffer[place]
                    place += 1
                if kind != _STRING and kind not in _BLOBS:
                    break
                first = buffer[place]
                if first < 0x40:
                    middle = place + 1 + first
                    key = buffer[place + 1 : middle]
                else:
                    key, middle = read(buffer, place)
                first = buffer[middle]
                if kind != _STRING:
                    value, stop = self._arrived_blob(buffer, kind, middle)
                    left -= _BLOB_COST + len(value)
                elif first < 0x40:
                    stop = middle + 1 + first
                    if stop > size:
                        break
                    value = buffer[middle + 1 : stop]
                else:
                    value, stop = read(buffer, middle)
                self._deliver(key, value, deadline)
                position = stop
                left -= 1
        except (IndexError, StructError):
            # The next key has not arrived whole, or is too much for one step.
            pass
        source.position = position
        return left <= 0

    def _arrived_blob(self, buffer: bytes, kind: int, place: int) -> tuple[Value, int]:
        """The container in the blob that starts at ``place``, and where it stops."""
        if kind == _QUICKLIST_2:
            if buffer[place] != 1 or buffer[place + 1] != 2:
                # More than a single small node.
                raise IndexError
            place += 2
        blob, stop = self._arrived_text(buffer, place)
        if len(blob) > _SMALL_BLOB:
            raise IndexError
        start = self.source.base + place
        form, made = _BLOBS[kind]
        try:
            elements = form(blob).take(_SMALL_BLOB)
        except EncodingError as error:
            raise self._blob_error(error, start) from None
        if made == "set":
            return self._with_members(Set(self.epoch), elements, start), stop
        if made == "list":
            value = List(self.epoch)
            value.extend_right(elements)
            return value, stop
        if len(elements) & 1:
            raise self._error("a field without a value, or a member without a score", start)
        if made == "hash":
            pairs = Hash(self.epoch)
            self._put_pairs(pairs, elements, start)
            return pairs, stop
        texts = iter(elements)
        scores = {member: self._score(text, start) for member, text in zip(texts, texts, strict=True)}
        if 2 * len(scores) != len(elements):
            raise self._error("a sorted set holds a member twice", start)
        return SortedSet.of(scores, self.epoch), stop


_READERS: Final[dict[int, Callable[[RdbReader], Steps[Value]]]] = {
    1: RdbReader._list,
    2: RdbReader._set,
    3: RdbReader._sorted_set,
    4: RdbReader._hash,
    5: RdbReader._sorted_set_2,
    9: RdbReader._hash_zipmap,
    10: RdbReader._list_ziplist,
    11: RdbReader._set_intset,
    12: RdbReader._sorted_set_ziplist,
    13: RdbReader._hash_ziplist,
    14: RdbReader._quicklist,
    15: RdbReader._stream_1,
    16: RdbReader._hash_listpack,
    17: RdbReader._sorted_set_listpack,
    _QUICKLIST_2: RdbReader._quicklist_2,
    19: RdbReader._stream_2,
    20: RdbReader._set_listpack,
    21: RdbReader._stream_3,
    _HASH_DEADLINES: RdbReader._hash_2,
    24: RdbReader._hash_metadata,
    25: RdbReader._hash_listpack_deadlines,
}


def _module_name(number: int) -> str:
    """The name of a module, nine letters of six bits each above ten bits of its version."""
    return "".join(_MODULE_LETTERS[number >> shift & 63] for shift in range(58, 4, -6)).rstrip("A") or "AAAAAAAAA"


class _DumpReader(RdbReader):
    """Reads one value as it stands in a dump file, behind its type."""

    def __init__(self, now_ms: int, epoch: int, is_valkey: bool) -> None:
        self.value: Value | None = None
        super().__init__(_ignore, now_ms=now_ms, epoch=epoch)
        self.is_valkey = is_valkey

    def _read(self) -> Steps[None]:
        kind = (yield from self.source.take(1))[0]
        self.value = yield from self._value(kind, 0)


def _ignore(key: bytes, value: Value, deadline: int | None) -> None:
    """Take nothing."""


def read_dump(payload: bytes, *, now_ms: int = 0, epoch: int = 0) -> Value | None:
    """The value that DUMP has made ``payload`` of; None if all its fields have expired by ``now_ms`` (unix ms).

    Raises RdbError for a payload that is damaged, or of a version that is not known here. Works through all of it.
    """
    if len(payload) < 10:
        raise RdbError(0, "the dump is too short")
    version = int.from_bytes(payload[-10:-8], "little")
    is_valkey = version >= _VALKEY_FIRST
    if version > _REDIS_LAST and not _VALKEY_FIRST <= version <= _VALKEY_LAST:
        raise RdbError(len(payload) - 10, f"dump version {version} is not known here")
    if int.from_bytes(payload[-8:], "little") != crc64(payload[:-8]):
        raise RdbError(len(payload) - 8, "the dump's checksum is wrong")
    reader = _DumpReader(now_ms, epoch, is_valkey)
    reader.feed(payload[:-10])
    if not reader.finished or reader.surplus:
        raise RdbError(len(payload) - 10, "the dump has another length than its value")
    value = reader.value
    return None if value is None or (not len(value) and type(value) not in (bytes, Stream)) else value
