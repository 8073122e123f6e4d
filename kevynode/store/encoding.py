"""What OBJECT ENCODING says about a value.

Values here have one form each. Clients and test suites look at encodings to learn how large a value is, so the answer
is what a Valkey 9 that has just been given the whole value would say, by the same thresholds.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Final, assert_never

from .arguments import as_int
from .settings import StoreSettings
from .stream_values import Stream
from .values import Hash, List, Set, SortedSet, Value

__all__ = ["encoding"]

# A string lives in one allocation with its key up to this many bytes, headers included.
_EMBEDDED_LIMIT: Final = 128
_EMBEDDED_OVERHEAD: Final = 15
# A key of at least this size has a longer header, and one above the second limit leaves no room beside a deadline.
_LONG_KEY: Final = 32
_LONG_KEY_OVERHEAD: Final = 17
_DEADLINE_KEY_LIMIT: Final = 107

# list-max-listpack-size: the sizes that negative numbers stand for, and the size no compact list exceeds.
_LIST_SIZES: Final = {-1: 4096, -2: 8192, -3: 16384, -4: 32768, -5: 65536}
_LIST_SAFETY_LIMIT: Final = 8192
_LISTPACK_OVERHEAD: Final = 7


def encoding(key: bytes, value: Value, deadline: int | None, settings: StoreSettings) -> bytes:
    """The name of the encoding of ``value`` under ``key``; looks at no more elements than the compact ones may have."""
    match value:
        case bytes():
            return _string(key, value, deadline)
        case Hash():
            small = (
                value.deadlines is None
                and len(value) <= settings.hash_max_listpack_entries
                and _short(chain.from_iterable(value.fields.items()), settings.hash_max_listpack_value)
            )
            return b"listpack" if small else b"hashtable"
        case List():
            return b"listpack" if _compact_list(value, settings.list_max_listpack_size) else b"quicklist"
        case Set():
            return _set(value, settings)
        case SortedSet():
            small = len(value) <= settings.zset_max_listpack_entries and _short(
                value.scores, settings.zset_max_listpack_value
            )
            return b"listpack" if small else b"skiplist"
        case Stream():
            return b"stream"
        case _:
            assert_never(value)


def _string(key: bytes, value: bytes, deadline: int | None) -> bytes:
    if len(value) <= 20 and as_int(value) is not None:
        return b"int"
    overhead = _EMBEDDED_OVERHEAD if len(key) < _LONG_KEY else _LONG_KEY_OVERHEAD
    fits = len(key) + len(value) + overhead <= _EMBEDDED_LIMIT
    return b"embstr" if fits and (deadline is None or len(key) <= _DEADLINE_KEY_LIMIT) else b"raw"


def _short(elements: Iterable[bytes], limit: int) -> bool:
    return all(len(element) <= limit for element in elements)


def _set(value: Set, settings: StoreSettings) -> bytes:
    size = len(value)
    if size <= max(settings.set_max_intset_entries, settings.set_max_listpack_entries) and all(
        as_int(member) is not None for member in value
    ):
        # Integers that are too many go straight into a table.
        return b"intset" if size <= settings.set_max_intset_entries else b"hashtable"
    if size <= settings.set_max_listpack_entries and _short(value, settings.set_max_listpack_value):
        return b"listpack"
    return b"hashtable"


def _compact_list(value: List, fill: int) -> bool:
    """Whether a list that was filled element by element is still one listpack."""
    size = len(value)
    if fill >= 0:
        if size > fill:
            return False
        limit = _LIST_SAFETY_LIMIT
    else:
        limit = _LIST_SIZES.get(fill, _LIST_SIZES[-5])
    # Each element takes two bytes at least.
    if size * 2 > limit:
        return False
    # The last push looked at the bytes that were there and at the plain length of what came.
    stored = sum(map(_listpack_entry, value.elements)) - _listpack_entry(value.elements[-1])
    return _LISTPACK_OVERHEAD + stored + len(value.elements[-1]) <= limit


def _listpack_entry(element: bytes) -> int:
    """Bytes that one element takes inside a listpack: its header, its data, and its length once more."""
    number = as_int(element) if len(element) <= 20 else None
    if number is not None:
        return _listpack_integer(number) + 1
    size = len(element)
    size += 1 if size < 64 else 2 if size < 4096 else 5
    return size + (1 if size <= 127 else 2 if size < 16383 else 3 if size < 2097151 else 4 if size < 268435455 else 5)


def _listpack_integer(number: int) -> int:
    if 0 <= number <= 127:
        return 1
    for size, bits in ((2, 13), (3, 16), (4, 24), (5, 32)):
        if -(1 << bits - 1) <= number < 1 << bits - 1:
            return size
    return 9
