"""SCAN, and what HSCAN, SSCAN and ZSCAN share with it: cursors, options and the shape of the reply.

A container's scan reads::

    cursor = parse_cursor(argv[2])
    value = store.read_as(argv[1], Set)
    if value is None:
        return scan_reply(0, [])
    options = parse_options(argv, 3, Set)
    cursor, members = scan_table(value.members, cursor, options.count)
    return scan_reply(cursor, options.filter(members))
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from ... import errors
from ...reply import Reply
from ..arguments import as_int, parse_int
from ..command import Args, command
from ..glob import Matcher, compile_glob
from ..store import Store
from ..values import Hash, SortedSet

__all__ = ["ScanOptions", "parse_cursor", "parse_options", "scan_reply"]

UNKNOWN_TYPE = errors.ErrorKind("ERR", "unknown type name '{}'", errors.FIX)
NOVALUES_MISPLACED = errors.ErrorKind("ERR", "NOVALUES option can only be used in HSCAN", errors.FIX)
NOSCORES_MISPLACED = errors.ErrorKind("ERR", "NOSCORES option can only be used in ZSCAN", errors.FIX)

DEFAULT_COUNT: Final = 10
TYPES: Final = frozenset((b"string", b"list", b"set", b"zset", b"hash", b"stream"))

_CURSOR = re.compile(rb"[ \t-\r]*+([+-]?)(?=[0-9])0*+([0-9]{0,20})\Z")
_CURSOR_END: Final = 1 << 64


class ScanOptions:
    """The options of one scan: ``count`` >= 1, ``matches`` (None: everything does), ``type_name``, ``keys_only``."""

    __slots__ = ("count", "keys_only", "matches", "type_name")

    def __init__(self) -> None:
        self.count = DEFAULT_COUNT
        self.matches: Matcher | None = None
        # Lower-case name of the only type wanted (SCAN).
        self.type_name: bytes | None = None
        # NOVALUES of HSCAN, NOSCORES of ZSCAN.
        self.keys_only = False

    def filter(self, elements: Iterable[bytes]) -> list[bytes]:
        """Those elements that MATCH wants."""
        matches = self.matches
        return list(elements) if matches is None else [element for element in elements if matches(element)]


def parse_cursor(data: bytes) -> int:
    """A cursor from a client, 0 <= cursor < 2**64; raises INVALID_CURSOR.

    As lenient as the strtoull that Valkey 9 reads it with: blanks and a sign may lead, and what follows a zero byte
    is not looked at.
    """
    data = data.partition(b"\0")[0]
    plain = as_int(data)
    if plain is not None:
        if plain < 0:
            raise errors.INVALID_CURSOR()
        return plain
    found = _CURSOR.match(data)
    cursor = _CURSOR_END if found is None else int(found[2] or b"0")
    if found is None or cursor >= _CURSOR_END:
        raise errors.INVALID_CURSOR()
    return -cursor % _CURSOR_END if found[1] == b"-" else cursor


def parse_options(argv: Args, start: int, kind: type | None = None) -> ScanOptions:
    """The options that stand in ``argv`` from index ``start``; ``kind`` is the container's class, None for SCAN.

    Raises a syntax error, NOT_INTEGER for a bad count, or an error for an option that belongs to another scan.
    """
    options = ScanOptions()
    place, size = start, len(argv)
    while place < size:
        word = argv[place].upper()
        follows = place + 1 < size
        if word == b"COUNT" and follows:
            options.count = parse_int(argv[place + 1])
            if options.count < 1:
                raise errors.SYNTAX()
            place += 2
        elif word == b"MATCH" and follows:
            pattern = argv[place + 1]
            options.matches = None if pattern == b"*" else compile_glob(pattern)
            place += 2
        elif word == b"TYPE" and follows and kind is None:
            options.type_name = argv[place + 1].lower()
            if options.type_name not in TYPES:
                raise UNKNOWN_TYPE(errors.text(argv[place + 1]))
            place += 2
        elif word == b"NOVALUES":
            if kind is not Hash:
                raise NOVALUES_MISPLACED()
            options.keys_only = True
            place += 1
        elif word == b"NOSCORES":
            if kind is not SortedSet:
                raise NOSCORES_MISPLACED()
            options.keys_only = True
            place += 1
        else:
            raise errors.SYNTAX()
    return options


def scan_reply(cursor: int, elements: list[bytes]) -> Reply:
    """The reply of every scan: the next cursor and a flat array."""
    return [b"%d" % cursor, elements]


@command(
    "scan",
    arity=-2,
    flags="readonly",
    group="generic",
    since="2.8.0",
    summary="Walks the keys of the database in steps.",
    complexity="O(1) per step, O(N) for all N keys.",
    syntax="cursor [MATCH pattern] [COUNT count] [TYPE type]",
    tips=("nondeterministic_output", "request_policy:special", "response_policy:special"),
)
def scan(store: Store, argv: Args) -> Reply:
    cursor = parse_cursor(argv[1])
    options = parse_options(argv, 2)
    cursor, keys = store.keyspace.scan(cursor, options.count)
    found = [key for key in options.filter(keys) if _has_type(store, key, options.type_name)]
    return scan_reply(cursor, [key for key in found if not _expired(store, key)])


def _has_type(store: Store, key: bytes, type_name: bytes | None) -> bool:
    if type_name is None:
        return True
    value = store.keyspace.get(key)
    return (b"string" if isinstance(value, bytes) or value is None else value.type_name) == type_name


def _expired(store: Store, key: bytes) -> bool:
    """Whether the key's deadline has passed. As in Valkey 9, a scan deletes what it would have returned."""
    deadline = store.deadline(key)
    if deadline is None or deadline >= store.now:
        return False
    store.expire(key)
    return True
