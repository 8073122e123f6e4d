"""Hash commands that get or set fields and do something else in the same step: HGETDEL, HGETEX, HSETEX."""

from __future__ import annotations

from ... import errors
from ...reply import Reply
from .. import notify
from ..arguments import parse_int
from ..command import Args, command, one_key
from ..store import Store
from ..values import Hash
from .hash_fields import (
    MILLISECONDS,
    NUMBER_OF_FIELDS,
    SECONDS,
    apply_deadline,
    counted_fields,
    emit_field_deadlines,
    field_deadline,
    find_fields,
    is_past,
    persist_fields,
    remove_fields,
    set_field_deadlines,
    writers_clock,
)

# Option -> (unit in milliseconds, whether relative to now).
_TIMES = {
    b"EX": (SECONDS, True),
    b"PX": (MILLISECONDS, True),
    b"EXAT": (SECONDS, False),
    b"PXAT": (MILLISECONDS, False),
}
_HGETEX_OPTIONS = frozenset({*_TIMES, b"PERSIST"})
_HSETEX_OPTIONS = frozenset({*_TIMES, b"KEEPTTL", b"NX", b"XX", b"FNX", b"FXX"})
_EXCLUSIVE = ({*_TIMES, b"PERSIST", b"KEEPTTL"}, {b"NX", b"XX"}, {b"FNX", b"FXX"})


class _Options:
    """The words between key and FIELDS: a set of options, and the one that sets a time with its argument."""

    __slots__ = ("given", "time", "time_option")

    def __init__(self, words: Args, allowed: frozenset[bytes]) -> None:
        self.given: set[bytes] = set()
        self.time_option: bytes | None = None
        self.time = b""
        rest = iter(words)
        for word in rest:
            option = word.upper()
            if option not in allowed:
                raise errors.SYNTAX()
            self.given.add(option)
            if option in _TIMES:
                time = next(rest, None)
                if time is None:
                    raise errors.SYNTAX()
                self.time_option, self.time = option, time
        if any(len(self.given & group) > 1 for group in _EXCLUSIVE):
            raise errors.SYNTAX()

    def deadline(self, store: Store, name: str) -> int | None:
        """The deadline (unix ms) the options ask for, or None; raises not an integer or invalid expire time."""
        if self.time_option is None:
            return None
        unit, relative = _TIMES[self.time_option]
        return field_deadline(store, self.time, name, unit, relative)


@command(
    "hgetdel",
    arity=-5,
    flags="write fast",
    keys=one_key("RW ACCESS DELETE"),
    group="hash",
    since="9.1.0",
    summary="Read fields of a hash and remove them.",
    complexity="O(N) for N fields named.",
    syntax="key FIELDS numfields field [field ...]",
)
def hgetdel(store: Store, argv: Args) -> Reply:
    """The values, null for a missing field."""
    fields = counted_fields(argv)
    key = argv[1]
    value = store.lookup_as(key, Hash)
    if value is None:
        return [None] * len(fields)
    values, found = _read_once(value, fields, writers_clock(store))
    if found:
        remove_fields(store, key, found, b"hdel")
    return values


def _read_once(value: Hash, fields: Args, now: int) -> tuple[list[bytes | None], dict[bytes, None]]:
    """The fields' values as if each were removed once read, and the fields that there are."""
    values: list[bytes | None] = []
    found: dict[bytes, None] = {}
    for field in fields:
        content = None if field in found else value.live(field, now)
        values.append(content)
        if content is not None:
            found[field] = None
    return values, found


@command(
    "hgetex",
    arity=-5,
    flags="write fast",
    keys=one_key("RW ACCESS UPDATE"),
    group="hash",
    since="9.0.0",
    summary="Read fields of a hash and set or take away their deadlines.",
    complexity="O(N) for N fields named.",
    syntax="key [EX seconds|PX milliseconds|EXAT unix-time-seconds|PXAT unix-time-milliseconds|PERSIST]"
    " FIELDS numfields field [field ...]",
)
def hgetex(store: Store, argv: Args) -> Reply:
    """The values, null for a missing field."""
    place = find_fields(argv, 2)
    options = _Options(argv[2:place], _HGETEX_OPTIONS)
    fields = counted_fields(argv, place)
    key = argv[1]
    value = store.read_as(key, Hash)
    deadline = options.deadline(store, "hgetex")
    if value is None:
        return [None] * len(fields)
    now = writers_clock(store)
    if deadline is not None and is_past(store, deadline):
        values, found = _read_once(value, fields, now)
    else:
        values = [value.live(field, now) for field in fields]
        found = {field: None for field, content in zip(fields, values, strict=True) if content is not None}
    if deadline is not None and found:
        apply_deadline(store, key, list(found), deadline)
    elif b"PERSIST" in options.given:
        persist_fields(store, key, [field for field in found if value.deadline(field) is not None])
    return values


@command(
    "hsetex",
    arity=-6,
    flags="write denyoom fast",
    keys=one_key("RW INSERT"),
    group="hash",
    since="9.0.0",
    summary="Set fields of a hash together with their deadline, on conditions.",
    complexity="O(N) for N fields named.",
    syntax="key [NX|XX] [FNX|FXX]"
    " [EX seconds|PX milliseconds|EXAT unix-time-seconds|PXAT unix-time-milliseconds|KEEPTTL]"
    " FIELDS numfields field value [field value ...]",
)
def hsetex(store: Store, argv: Args) -> Reply:
    """1 if the fields have been set, 0 if a condition kept them."""
    place = find_fields(argv, 2)
    options = _Options(argv[2:place], _HSETEX_OPTIONS)
    number = parse_int(argv[place + 1])
    pairs = argv[place + 2 :]
    if number <= 0 or number * 2 != len(pairs):
        raise NUMBER_OF_FIELDS()
    key = argv[1]
    value = store.lookup_as(key, Hash)
    given = options.given
    if (b"NX" in given and value is not None) or (b"XX" in given and value is None):
        return 0
    deadline = options.deadline(store, "hsetex")
    contents = dict(zip(pairs[::2], pairs[1::2], strict=True))
    if not _fields_allow(value, contents, given, writers_clock(store)):
        return 0
    if deadline is not None and is_past(store, deadline):
        _set_expired(store, key, value, contents)
    else:
        _set_fields(store, key, value, contents, deadline, b"KEEPTTL" in given)
    return 1


def _fields_allow(value: Hash | None, contents: dict[bytes, bytes], given: set[bytes], now: int) -> bool:
    """Whether FNX (no field may exist) or FXX (every field must) is met; ``now`` in unix ms."""
    if b"FNX" in given:
        return value is None or all(value.live(field, now) is None for field in contents)
    if b"FXX" in given:
        return value is not None and all(value.live(field, now) is not None for field in contents)
    return True


def _set_expired(store: Store, key: bytes, value: Hash | None, contents: dict[bytes, bytes]) -> None:
    """Set fields that expire at once: they end up removed, and every event is published."""
    names = (b"hset", b"hexpire", b"hexpired")
    store.expired_fields += len(contents)
    found = [field for field in contents if value is not None and value.get(field) is not None]
    if found:
        remove_fields(store, key, found, *names)
        return
    events = [(notify.HASH, name) for name in names]
    if value is None:
        events.append((notify.GENERIC, b"del"))
    for flag, name in events:
        store.announce(flag, name, key)


def _set_fields(
    store: Store,
    key: bytes,
    value: Hash | None,
    contents: dict[bytes, bytes],
    deadline: int | None,
    keep: bool,
) -> None:
    """Set fields and their common ``deadline`` (unix ms), or ``keep`` those they have; effects and events."""
    overwritten = 0
    kept: dict[int, list[bytes]] = {}
    if value is not None and value.deadlines is not None:
        now = writers_clock(store)
        for field in contents:
            old = value.deadline(field)
            if old is not None and old < now:
                overwritten += 1
            elif old is not None and keep:
                kept.setdefault(old, []).append(field)
    store.expired_fields += overwritten
    opened = store.write_or_create(key, Hash)
    for field, content in contents.items():
        opened.put(field, content)
    events = [(notify.HASH, b"hexpired", key)] if overwritten else []
    store.emit(
        (b"HSET", key, *(word for pair in contents.items() for word in pair)),
        key,
        *events,
        (notify.HASH, b"hset", key),
    )
    for old, fields in kept.items():
        set_field_deadlines(store, key, opened, fields, old)
        emit_field_deadlines(store, key, fields, old)
    if deadline is not None:
        set_field_deadlines(store, key, opened, contents, deadline)
        emit_field_deadlines(store, key, list(contents), deadline, b"hexpire")
