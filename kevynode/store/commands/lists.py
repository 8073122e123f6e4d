"""Commands that change lists; lists_reading.py has those that only read, lists_blocking.py those that may wait."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ... import errors
from ...reply import NULL_ARRAY, OK, Reply
from .. import notify
from ..arguments import INT64_MIN, as_int, parse_int
from ..command import Args, command, key_number, one_key
from ..store import Store
from ..values import List
from .lists_reading import bounds

__all__ = ["MOVE_KEYS", "move", "parse_pop_many", "parse_side", "pop_first", "pop_from"]

NO_KEYS = errors.ErrorKind("ERR", "numkeys should be greater than 0", errors.FIX)
NO_COUNT = errors.ErrorKind("ERR", "count should be greater than 0", errors.FIX)

MOVE_KEYS: Final = one_key("RW ACCESS DELETE") + one_key("RW INSERT", 2)

# Elements of one effect, at most.
_CHUNK = 1000


# -- pushing ----------------------------------------------------------------------------------------------------------


@command(
    "lpush",
    arity=-3,
    flags="write denyoom fast",
    keys=one_key("RW INSERT"),
    group="list",
    since="1.0.0",
    summary="Put elements before the head of a list.",
    complexity="O(N) for N elements pushed.",
    syntax="key element [element ...]",
)
def lpush(store: Store, argv: Args) -> Reply:
    """The list's new length. The last element given becomes the head."""
    key = argv[1]
    value = store.write_or_create(key, List)
    if len(argv) == 3:
        size = value.push_left(argv[2])
    else:
        value.extend_left(argv[2:])
        size = len(value.elements)
    store.emit(argv, key, (notify.LIST, b"lpush", key))
    return size


@command(
    "rpush",
    arity=-3,
    flags="write denyoom fast",
    keys=one_key("RW INSERT"),
    group="list",
    since="1.0.0",
    summary="Put elements behind the tail of a list.",
    complexity="O(N) for N elements pushed.",
    syntax="key element [element ...]",
)
def rpush(store: Store, argv: Args) -> Reply:
    """The list's new length."""
    key = argv[1]
    value = store.write_or_create(key, List)
    if len(argv) == 3:
        size = value.push_right(argv[2])
    else:
        value.extend_right(argv[2:])
        size = len(value.elements)
    store.emit(argv, key, (notify.LIST, b"rpush", key))
    return size


@command(
    "lpushx",
    arity=-3,
    flags="write denyoom fast",
    keys=one_key("RW INSERT"),
    group="list",
    since="2.2.0",
    summary="Put elements before the head of a list that exists.",
    complexity="O(N) for N elements pushed.",
    syntax="key element [element ...]",
)
def lpushx(store: Store, argv: Args) -> Reply:
    """The list's new length, 0 without a list."""
    if store.lookup_as(argv[1], List) is None:
        return 0
    return lpush(store, (b"LPUSH", *argv[1:]))


@command(
    "rpushx",
    arity=-3,
    flags="write denyoom fast",
    keys=one_key("RW INSERT"),
    group="list",
    since="2.2.0",
    summary="Put elements behind the tail of a list that exists.",
    complexity="O(N) for N elements pushed.",
    syntax="key element [element ...]",
)
def rpushx(store: Store, argv: Args) -> Reply:
    """The list's new length, 0 without a list."""
    if store.lookup_as(argv[1], List) is None:
        return 0
    return rpush(store, (b"RPUSH", *argv[1:]))


# -- popping ----------------------------------------------------------------------------------------------------------


@command(
    "lpop",
    arity=-2,
    flags="write fast",
    keys=one_key("RW ACCESS DELETE"),
    group="list",
    since="1.0.0",
    summary="Take elements off the head of a list.",
    complexity="O(N) for N elements taken.",
    syntax="key [count]",
)
def lpop(store: Store, argv: Args) -> Reply:
    """The head, or an array where a count is given; null without a list."""
    if len(argv) != 2:
        return _pop_counted(store, argv, "lpop", left=True)
    key = argv[1]
    value = store.write(key, List)
    if value is None:
        return None
    element = value.pop_left()
    # Every element has its share of the payload.
    if value.payload:
        store.emit(argv, key, (notify.LIST, b"lpop", key))
    else:
        _emit_last(store, key, argv, b"lpop")
    return element


@command(
    "rpop",
    arity=-2,
    flags="write fast",
    keys=one_key("RW ACCESS DELETE"),
    group="list",
    since="1.0.0",
    summary="Take elements off the tail of a list.",
    complexity="O(N) for N elements taken.",
    syntax="key [count]",
)
def rpop(store: Store, argv: Args) -> Reply:
    """The tail, or an array where a count is given; null without a list."""
    if len(argv) != 2:
        return _pop_counted(store, argv, "rpop", left=False)
    key = argv[1]
    value = store.write(key, List)
    if value is None:
        return None
    element = value.pop_right()
    if value.payload:
        store.emit(argv, key, (notify.LIST, b"rpop", key))
    else:
        _emit_last(store, key, argv, b"rpop")
    return element


def _emit_last(store: Store, key: bytes, effect: Args, name: bytes) -> None:
    """Remove a key whose list has become empty; ``effect`` emptied it, ``name`` is its event."""
    store.delete(key)
    store.emit(effect, key, (notify.LIST, name, key), (notify.GENERIC, b"del", key))


def _emit(store: Store, key: bytes, value: List, effect: Args, name: bytes) -> None:
    """Emit an effect that may have emptied the list."""
    if value.elements:
        store.emit(effect, key, (notify.LIST, name, key))
    else:
        _emit_last(store, key, effect, name)


def _pop_counted(store: Store, argv: Args, name: str, left: bool) -> Reply:
    if len(argv) > 3:
        raise errors.WRONG_ARITY(name)
    count = as_int(argv[2])
    if count is None or count < 0:
        raise errors.MUST_BE_POSITIVE()
    value = store.lookup_as(argv[1], List)
    if value is None:
        return NULL_ARRAY
    return pop_from(store, argv[1], count, left) if count else []


def pop_from(store: Store, key: bytes, count: int, left: bool) -> list[bytes]:
    """Take at most ``count`` elements (at least one) off one end of a list that exists, with effect and events."""
    value = store.write(key, List)
    assert value is not None
    elements = value.pop_left_many(count) if left else value.pop_right_many(count)
    name = b"lpop" if left else b"rpop"
    _emit(store, key, value, (name.upper(), key, b"%d" % len(elements)), name)
    return elements


def parse_side(word: bytes) -> bool:
    """True for LEFT, False for RIGHT; raises a syntax error for anything else."""
    side = word.upper()
    if side not in (b"LEFT", b"RIGHT"):
        raise errors.SYNTAX()
    return side == b"LEFT"


def parse_pop_many(argv: Args, at: int) -> tuple[Args, bool, int]:
    """Keys, whether to pop from the left, and the count, of ``numkeys key ... LEFT|RIGHT [COUNT count]`` at ``at``."""
    number = as_int(argv[at])
    if number is None or number <= 0:
        raise NO_KEYS()
    keys = argv[at + 1 : at + 1 + number]
    place = at + 1 + number
    if place >= len(argv):
        raise errors.SYNTAX()
    left = parse_side(argv[place])
    if len(argv) == place + 1:
        return keys, left, 1
    if len(argv) != place + 3 or argv[place + 1].upper() != b"COUNT":
        raise errors.SYNTAX()
    count = as_int(argv[place + 2])
    if count is None or count <= 0:
        raise NO_COUNT()
    return keys, left, count


def pop_first(store: Store, keys: Iterable[bytes], left: bool, count: int) -> tuple[bytes, list[bytes]] | None:
    """Pop from the first of ``keys`` that exists: the key and its elements; None if there is none. Raises WRONGTYPE."""
    for key in keys:
        if store.lookup_as(key, List) is not None:
            return key, pop_from(store, key, count, left)
    return None


@command(
    "lmpop",
    arity=-4,
    flags="write movablekeys",
    keys=key_number("RW ACCESS DELETE"),
    group="list",
    since="7.0.0",
    summary="Take elements off one end of the first list that exists.",
    complexity="O(N+M) for N keys named and M elements taken.",
    syntax="numkeys key [key ...] LEFT|RIGHT [COUNT count]",
)
def lmpop(store: Store, argv: Args) -> Reply:
    """The key and its elements, or a null array."""
    keys, left, count = parse_pop_many(argv, 1)
    found = pop_first(store, keys, left, count)
    return NULL_ARRAY if found is None else list(found)


# -- moving -----------------------------------------------------------------------------------------------------------


@command(
    "lmove",
    arity=5,
    flags="write denyoom",
    keys=MOVE_KEYS,
    group="list",
    since="6.2.0",
    summary="Take an element off one list and put it on another.",
    complexity="O(1)",
    syntax="source destination LEFT|RIGHT LEFT|RIGHT",
)
def lmove(store: Store, argv: Args) -> Reply:
    """The element, or null without a source."""
    return move(store, argv[1], argv[2], parse_side(argv[3]), parse_side(argv[4]))


@command(
    "rpoplpush",
    arity=3,
    flags="write denyoom",
    keys=MOVE_KEYS,
    group="list",
    since="1.2.0",
    summary="Take the tail off one list and put it before the head of another.",
    complexity="O(1)",
    syntax="source destination",
)
def rpoplpush(store: Store, argv: Args) -> Reply:
    """As LMOVE with RIGHT LEFT."""
    return move(store, argv[1], argv[2], from_left=False, to_left=True)


def move(store: Store, source: bytes, destination: bytes, from_left: bool, to_left: bool) -> bytes | None:
    """Move one element; None without a source. Raises WRONGTYPE.

    The push is told before the pop, as Valkey publishes them, so that a list of one element that moves onto itself
    keeps its deadline on a copy too.
    """
    if store.lookup_as(source, List) is None:
        return None
    store.lookup_as(destination, List)
    origin = store.write(source, List)
    assert origin is not None
    element = origin.pop_left() if from_left else origin.pop_right()
    target = origin if source == destination else store.write_or_create(destination, List)
    if to_left:
        target.push_left(element)
    else:
        target.push_right(element)
    push = b"lpush" if to_left else b"rpush"
    store.emit((push.upper(), destination, element), destination, (notify.LIST, push, destination))
    pop = b"lpop" if from_left else b"rpop"
    _emit(store, source, origin, (pop.upper(), source), pop)
    return element


# -- changing in place ------------------------------------------------------------------------------------------------


@command(
    "lset",
    arity=4,
    flags="write denyoom",
    keys=one_key("RW UPDATE"),
    group="list",
    since="1.0.0",
    summary="Replace the element at an index of a list.",
    complexity="O(N) for a list of N elements, O(1) near its ends.",
    syntax="key index element",
)
def lset(store: Store, argv: Args) -> Reply:
    key = argv[1]
    value = store.lookup_as(key, List)
    if value is None:
        raise errors.NO_SUCH_KEY()
    index = parse_int(argv[2])
    size = len(value.elements)
    if not -size <= index < size:
        raise errors.INDEX_OUT_OF_RANGE()
    opened = store.write(key, List)
    assert opened is not None
    opened.replace(index, argv[3])
    store.emit(argv, key, (notify.LIST, b"lset", key))
    return OK


@command(
    "linsert",
    arity=5,
    flags="write denyoom",
    keys=one_key("RW INSERT"),
    group="list",
    since="2.2.0",
    summary="Insert an element before or after another one of a list.",
    complexity="O(N) for a list of N elements.",
    syntax="key BEFORE|AFTER pivot element",
)
def linsert(store: Store, argv: Args) -> Reply:
    """The list's new length, -1 where the pivot is not found, 0 without a list."""
    side = argv[2].upper()
    if side not in (b"BEFORE", b"AFTER"):
        raise errors.SYNTAX()
    key = argv[1]
    found = store.lookup_as(key, List)
    if found is None:
        return 0
    try:
        index = found.elements.index(argv[3])
    except ValueError:
        return -1
    if side == b"AFTER":
        index += 1
    value = store.write(key, List)
    assert value is not None
    value.insert(index, argv[4])
    _emit_insertion(store, key, value, index)
    return len(value)


def _emit_insertion(store: Store, key: bytes, value: List, index: int) -> None:
    """Tell an insertion as taking what stands between it and the nearer end away and pushing it back behind it.

    That never empties the list, whose deadline therefore stays.
    """
    size = len(value)
    if index < size - index:
        pop, push, moved = b"LPOP", b"LPUSH", index
        again = value.between(0, index + 1)[::-1]
    else:
        pop, push, moved = b"RPOP", b"RPUSH", size - index - 1
        again = value.between(index, size)
    effects: list[tuple[bytes, ...]] = []
    if moved:
        effects.append((pop, key, b"%d" % moved))
    effects += ((push, key, *again[start : start + _CHUNK]) for start in range(0, len(again), _CHUNK))
    for effect in effects[:-1]:
        store.emit(effect, key)
    store.emit(effects[-1], key, (notify.LIST, b"linsert", key))


@command(
    "lrem",
    arity=4,
    flags="write",
    keys=one_key("RW DELETE"),
    group="list",
    since="1.0.0",
    summary="Remove elements of a list that equal a given one.",
    complexity="O(N) for a list of N elements.",
    syntax="key count element",
)
def lrem(store: Store, argv: Args) -> Reply:
    """How many have been removed: ``count`` from the head, ``-count`` from the tail, all for 0."""
    count = parse_int(argv[2])
    if count == INT64_MIN:
        raise errors.COUNT_OUT_OF_RANGE()
    key, element = argv[1], argv[3]
    found = store.lookup_as(key, List)
    if found is None or element not in found.elements:
        return 0
    value = store.write(key, List)
    assert value is not None
    removed = value.remove(element, count)
    _emit(store, key, value, argv, b"lrem")
    return removed


@command(
    "ltrim",
    arity=4,
    flags="write",
    keys=one_key("RW DELETE"),
    group="list",
    since="1.0.0",
    summary="Keep only a range of a list.",
    complexity="O(N) for N elements removed.",
    syntax="key start stop",
)
def ltrim(store: Store, argv: Args) -> Reply:
    """Published even where nothing is removed, as in Valkey, but then it is no change."""
    start, stop = parse_int(argv[2]), parse_int(argv[3])
    key = argv[1]
    value = store.write(key, List)
    if value is None:
        return OK
    before = len(value)
    value.trim(*bounds(start, stop, before))
    if len(value) == before:
        store.announce(notify.LIST, b"ltrim", key)
    else:
        _emit(store, key, value, argv, b"ltrim")
    return OK
