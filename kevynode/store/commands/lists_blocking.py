"""List commands that wait for an element: BLPOP, BRPOP, BLMPOP, BLMOVE, BRPOPLPUSH.

A handler serves what it can at once, or answers ``Blocked`` and is run again with the same arguments. WRONGTYPE for a
destination is raised when there is something to move, as in Valkey.
"""

from __future__ import annotations

from ...reply import Reply
from ..arguments import parse_timeout
from ..command import Args, Blocked, command, key_number, key_range
from ..store import Store
from ..values import List
from .lists import MOVE_KEYS, move, parse_pop_many, parse_side, pop_first


def _pop(store: Store, argv: Args, left: bool) -> Reply | Blocked:
    keys = argv[1:-1]
    timeout = parse_timeout(argv[-1], store.now)
    found = pop_first(store, keys, left, 1)
    if found is None:
        return Blocked(keys, timeout, List)
    key, elements = found
    return [key, elements[0]]


@command(
    "blpop",
    arity=-3,
    flags="write blocking",
    keys=key_range("RW ACCESS DELETE", last=-2),
    group="list",
    since="2.0.0",
    summary="Take the head off the first list that exists, or wait for one.",
    complexity="O(N) for N keys named.",
    syntax="key [key ...] timeout",
)
def blpop(store: Store, argv: Args) -> Reply | Blocked:
    """The key and the element; a null array when the timeout passes."""
    return _pop(store, argv, left=True)


@command(
    "brpop",
    arity=-3,
    flags="write blocking",
    keys=key_range("RW ACCESS DELETE", last=-2),
    group="list",
    since="2.0.0",
    summary="Take the tail off the first list that exists, or wait for one.",
    complexity="O(N) for N keys named.",
    syntax="key [key ...] timeout",
)
def brpop(store: Store, argv: Args) -> Reply | Blocked:
    """The key and the element; a null array when the timeout passes."""
    return _pop(store, argv, left=False)


@command(
    "blmpop",
    arity=-5,
    flags="write blocking movablekeys",
    keys=key_number("RW ACCESS DELETE", at=2),
    group="list",
    since="7.0.0",
    summary="Take elements off one end of the first list that exists, or wait for one.",
    complexity="O(N+M) for N keys named and M elements taken.",
    syntax="timeout numkeys key [key ...] LEFT|RIGHT [COUNT count]",
)
def blmpop(store: Store, argv: Args) -> Reply | Blocked:
    """The key and its elements; a null array when the timeout passes."""
    keys, left, count = parse_pop_many(argv, 2)
    timeout = parse_timeout(argv[1], store.now)
    found = pop_first(store, keys, left, count)
    return Blocked(keys, timeout, List) if found is None else list(found)


@command(
    "blmove",
    arity=6,
    flags="write denyoom blocking",
    keys=MOVE_KEYS,
    group="list",
    since="6.2.0",
    summary="Take an element off one list and put it on another, or wait for one.",
    complexity="O(1)",
    syntax="source destination LEFT|RIGHT LEFT|RIGHT timeout",
)
def blmove(store: Store, argv: Args) -> Reply | Blocked:
    """The element; a null array when the timeout passes."""
    from_left, to_left = parse_side(argv[3]), parse_side(argv[4])
    timeout = parse_timeout(argv[5], store.now)
    element = move(store, argv[1], argv[2], from_left, to_left)
    return Blocked((argv[1],), timeout, List, at_once=None) if element is None else element


@command(
    "brpoplpush",
    arity=4,
    flags="write denyoom blocking",
    keys=MOVE_KEYS,
    group="list",
    since="2.2.0",
    summary="Take the tail off one list and put it before the head of another, or wait for one.",
    complexity="O(1)",
    syntax="source destination timeout",
)
def brpoplpush(store: Store, argv: Args) -> Reply | Blocked:
    """As BLMOVE with RIGHT LEFT."""
    timeout = parse_timeout(argv[3], store.now)
    element = move(store, argv[1], argv[2], from_left=False, to_left=True)
    return Blocked((argv[1],), timeout, List, at_once=None) if element is None else element
