"""SORT and SORT_RO: the elements of a list, set or sorted set in order, by themselves or by other keys."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Final, TypeAlias

from ... import errors
from ...reply import Reply
from .. import notify
from ..arguments import as_float, parse_int
from ..command import Args, KeySpec, command, one_key
from ..store import Store
from ..stream_values import Stream
from ..values import Hash, List, Set, SortedSet
from .keys import emit_rebuild

__all__: list[str] = []

NOT_A_SCORE = errors.ErrorKind("ERR", "One or more scores can't be converted into double", errors.FIX)

_Sortable: TypeAlias = List | Set | SortedSet
# Reads what a BY or GET pattern stands for, given an element.
_Lookup: TypeAlias = Callable[[bytes], bytes | None]

#: How many arguments follow each option.
_ARGUMENTS: Final = {b"ASC": 0, b"DESC": 0, b"ALPHA": 0, b"LIMIT": 2, b"STORE": 1, b"BY": 1, b"GET": 1}


class _StoreOption(KeySpec):
    """The key behind the last STORE, which may stand anywhere among the options."""

    __slots__ = ()

    def positions(self, argv: Args) -> range:
        found = range(0)
        place = 2
        while place < len(argv):
            word = argv[place].upper()
            if word == b"STORE" and place + 1 < len(argv):
                found = range(place + 1, place + 2)
            place += 1 + _ARGUMENTS.get(word, 0)
        return found


_UNKNOWN: Final = ("unknown",)
# The keys that BY and GET read come from the elements: nobody knows them beforehand.
_PATTERN_KEYS: Final = KeySpec(("RO", "ACCESS"), 0, _UNKNOWN)
_READ_KEYS: Final = (*one_key("RO ACCESS"), _PATTERN_KEYS)


class _Request:
    """The options of one SORT."""

    __slots__ = ("alpha", "by", "count", "descending", "gets", "start", "target", "unsorted")

    def __init__(self) -> None:
        self.alpha = False
        self.by: bytes | None = None
        self.count = -1
        self.descending = False
        self.gets: list[bytes] = []
        self.start = 0
        self.target: bytes | None = None
        # A BY pattern without a star asks for no order at all.
        self.unsorted = False

    def window(self, size: int) -> tuple[int, int]:
        """First and one behind the last index that LIMIT leaves of ``size`` elements."""
        start = min(max(self.start, 0), size)
        return start, size if self.count < 0 else min(start + self.count, size)


@command(
    "sort",
    arity=-2,
    flags="write denyoom movablekeys",
    keys=(*_READ_KEYS, _StoreOption(("OW", "UPDATE"), 0, _UNKNOWN)),
    group="generic",
    since="1.0.0",
    summary="Sorts a list, a set or a sorted set, and may store the result.",
    complexity="O(N log(N)) for N elements, O(N) when they are not to be sorted.",
    syntax="key [BY by-pattern] [LIMIT offset count] [GET get-pattern [GET get-pattern ...]] [ASC|DESC] [ALPHA] "
    "[STORE destination]",
    categories="set sortedset list dangerous",
)
def sort(store: Store, argv: Args) -> Reply:
    request = _parse(argv, may_store=True)
    rows = _rows(store, argv[1], request)
    if request.target is None:
        return rows
    return _store_rows(store, request.target, [b"" if cell is None else cell for cell in rows])


@command(
    "sort_ro",
    arity=-2,
    flags="readonly movablekeys",
    keys=_READ_KEYS,
    group="generic",
    since="7.0.0",
    summary="Sorts a list, a set or a sorted set.",
    complexity="O(N log(N)) for N elements, O(N) when they are not to be sorted.",
    syntax="key [BY by-pattern] [LIMIT offset count] [GET get-pattern [GET get-pattern ...]] [ASC|DESC] [ALPHA]",
    categories="set sortedset list dangerous",
)
def sort_ro(store: Store, argv: Args) -> Reply:
    return _rows(store, argv[1], _parse(argv, may_store=False))


def _parse(argv: Args, may_store: bool) -> _Request:
    request = _Request()
    place, size = 2, len(argv)
    while place < size:
        word = argv[place].upper()
        arguments = _ARGUMENTS.get(word)
        if arguments is None or place + arguments >= size or (word == b"STORE" and not may_store):
            raise errors.SYNTAX()
        match word:
            case b"ASC" | b"DESC":
                request.descending = word == b"DESC"
            case b"ALPHA":
                request.alpha = True
            case b"LIMIT":
                request.start, request.count = parse_int(argv[place + 1]), parse_int(argv[place + 2])
            case b"STORE":
                request.target = argv[place + 1]
            case b"BY":
                request.by = argv[place + 1]
                request.unsorted |= b"*" not in request.by
            case _:
                request.gets.append(argv[place + 1])
        place += 1 + arguments
    return request


def _rows(store: Store, key: bytes, request: _Request) -> list[bytes | None]:
    """The cells of the reply: the elements in order, or what the GET patterns make of them."""
    value = store.read(key)
    if value is None:
        return []
    if isinstance(value, bytes | Hash | Stream):
        raise errors.WRONG_TYPE()
    # A set has no order of its own; what is stored must be the same wherever it is done.
    if request.unsorted and isinstance(value, Set) and request.target is not None:
        request.unsorted, request.alpha, request.by = False, True, None
    start, stop = request.window(len(value))
    if request.unsorted:
        elements = _in_own_order(value, start, stop, request.descending)
    else:
        elements = _ordered(store, value, request)[start:stop]
    if not request.gets:
        return list(elements)
    lookups = [_lookup(store, pattern) for pattern in request.gets]
    return [lookup(element) for element in elements for lookup in lookups]


def _elements(value: _Sortable) -> Iterable[bytes]:
    match value:
        case List():
            return value.elements
        case Set():
            return value
        case SortedSet():
            return value.scores


def _in_own_order(value: _Sortable, start: int, stop: int, descending: bool) -> Sequence[bytes]:
    size = len(value)
    match value:
        case List():
            if not descending:
                return value.between(start, stop)
            return value.between(size - stop, size - start)[::-1]
        case Set():
            return list(islice(value, start, stop))
        case SortedSet():
            if not descending:
                return [member for _, member in value.order[start:stop]]
            return [member for _, member in value.order[size - stop : size - start]][::-1]


def _ordered(store: Store, value: _Sortable, request: _Request) -> list[bytes]:
    weigh = _same if request.by is None else _lookup(store, request.by)
    if request.alpha:
        # An element without a weight comes before all others.
        keys: list[tuple[bytes | None, bytes]] = [(weigh(element), element) for element in _elements(value)]
        keys.sort(key=lambda pair: (pair[0] is not None, _collated(pair[0], request)), reverse=request.descending)
        return [element for _, element in keys]
    scored = [(_score(weigh(element)), element) for element in _elements(value)]
    scored.sort(reverse=request.descending)
    return [element for _, element in scored]


def _same(element: bytes) -> bytes:
    return element


def _collated(weight: bytes | None, request: _Request) -> bytes:
    """What text order compares: in replies, as C strings in the plain locale; in what is stored, all the bytes."""
    if weight is None:
        return b""
    return weight if request.target is not None else weight.partition(b"\0")[0]


def _score(weight: bytes | None) -> float:
    if weight is None:
        return 0.0
    score = as_float(weight.partition(b"\0")[0])
    if score is None:
        raise NOT_A_SCORE()
    return score


def _lookup(store: Store, pattern: bytes) -> _Lookup:
    """What ``pattern`` stands for: the element itself (``#``), a string key, or a field of a hash (``key->field``)."""
    if pattern == b"#":
        return _same
    star = pattern.find(b"*")
    if star < 0:
        return lambda element: None
    arrow = pattern.find(b"->", star + 1)
    if arrow < 0 or arrow + 2 == len(pattern):
        front, back = pattern[:star], pattern[star + 1 :]
        return lambda element: _read_string(store, front + element + back)
    front, back, field = pattern[:star], pattern[star + 1 : arrow], pattern[arrow + 2 :]
    return lambda element: _read_field(store, front + element + back, field)


def _read_string(store: Store, key: bytes) -> bytes | None:
    value = store.read(key)
    return value if isinstance(value, bytes) else None


def _read_field(store: Store, key: bytes, field: bytes) -> bytes | None:
    value = store.read(key)
    return value.live(field, store.now) if isinstance(value, Hash) else None


def _store_rows(store: Store, target: bytes, rows: list[bytes]) -> int:
    existed = store.lookup(target) is not None
    if rows:
        if existed:
            store.emit((b"DEL", target), target)
        made = List(store.epoch)
        made.assign(rows)
        store.put(target, made)
        emit_rebuild(store, target, made, None, (notify.LIST, b"sortstore", target))
    elif existed:
        store.delete(target)
        store.emit((b"DEL", target), target, (notify.GENERIC, b"del", target))
    return len(rows)
