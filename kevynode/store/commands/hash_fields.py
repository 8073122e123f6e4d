"""Deadlines of hash fields: HEXPIRE and its kin, HTTL and its kin, HPERSIST.

A field expires when its deadline lies before the store's clock. Reading commands hide it, HLEN still counts it, and it
is removed by :func:`expire_fields` or overwritten by a write, as in Valkey 9. On a copy (``store.deletes_expired`` is
False) writes come from the stream alone: they see every field and delete only what the stream names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from ... import errors
from ...reply import Reply
from .. import notify
from ..arguments import INT64_MAX, parse_int
from ..command import Args, command, one_key
from ..store import Store
from ..values import Hash
from .expire import GT_WITH_LT, NX_WITH_OTHERS, UNSUPPORTED_OPTION

__all__ = [
    "MILLISECONDS",
    "NUMBER_OF_FIELDS",
    "SECONDS",
    "apply_deadline",
    "counted_fields",
    "emit_field_deadlines",
    "expire_fields",
    "field_deadline",
    "find_fields",
    "is_past",
    "persist_fields",
    "remove_fields",
    "set_field_deadlines",
    "writers_clock",
]

NUMBER_OF_FIELDS = errors.ErrorKind(
    "ERR", "numfields should be greater than 0 and match the provided number of fields", errors.FIX
)

SECONDS: Final = 1000
MILLISECONDS: Final = 1
# Fields that expire_fields removes at once, so that other clients get their turn.
_BATCH = 1000


def writers_clock(store: Store) -> int:
    """The time (unix ms) before which a field's deadline makes it invisible to a write; 0 on a copy."""
    return store.now if store.deletes_expired else 0


def remove_fields(store: Store, key: bytes, fields: Iterable[bytes], *names: bytes) -> None:
    """Remove fields that the hash under ``key`` has, and the key with the last one, as one HDEL.

    ``names`` are the events of class hash to publish for it; ``del`` is added where the key goes.
    """
    value = store.write(key, Hash)
    assert value is not None
    for field in fields:
        value.remove(field)
    _emit_removal(store, key, value, fields, names)


def _emit_removal(store: Store, key: bytes, value: Hash, fields: Iterable[bytes], names: Iterable[bytes]) -> None:
    events = [(notify.HASH, name, key) for name in names]
    if store.drop_if_empty(key, value):
        events.append((notify.GENERIC, b"del", key))
        store.field_deadline_keys.pop(key, None)
    store.emit((b"HDEL", key, *fields), key, *events)


def expire_fields(store: Store, key: bytes, limit: int = _BATCH) -> int:
    """Remove at most ``limit`` expired fields of the hash under ``key`` as a change of its own; how many there were.

    For the sweeper that visits ``store.field_deadline_keys``, from which a key without field deadlines is struck. The
    caller commits. Does nothing on a copy, where the stream deletes, nor for keys of other nodes.
    """
    value = store.peek(key)
    if type(value) is not Hash or value.deadlines is None:
        store.field_deadline_keys.pop(key, None)
        return 0
    if not store.deletes_expired or not value.may_have_expired(store.now):
        return 0
    if store.foreign is not None and store.foreign(key):
        return 0
    # Housekeeping is no access.
    tracker, store.tracker = store.tracker, None
    opened = store.write(key, Hash)
    store.tracker = tracker
    assert opened is not None
    removed = opened.remove_expired(store.now, limit)
    if removed:
        store.expired_fields += len(removed)
        _emit_removal(store, key, opened, removed, (b"hexpired",))
    return len(removed)


def set_field_deadlines(store: Store, key: bytes, value: Hash, fields: Iterable[bytes], deadline: int) -> None:
    """Give fields of the opened hash ``value`` a deadline (unix ms). Emits nothing."""
    for field in fields:
        value.set_deadline(field, deadline)
    store.field_deadline_keys[key] = None


def emit_field_deadlines(store: Store, key: bytes, fields: Sequence[bytes], deadline: int, *names: bytes) -> None:
    """Emit that ``fields`` have been given a deadline (unix ms); ``names`` are events of class hash."""
    events = [(notify.HASH, name, key) for name in names]
    store.emit((b"HPEXPIREAT", key, b"%d" % deadline, b"FIELDS", b"%d" % len(fields), *fields), key, *events)


# -- arguments ---------------------------------------------------------------------------------------------------------


def counted_fields(argv: Args, at: int = 2, mismatch: errors.ErrorKind = NUMBER_OF_FIELDS) -> Args:
    """What stands behind ``FIELDS numfields`` where ``FIELDS`` must stand at index ``at``, one word for each field.

    Raises a syntax error, not an integer, or ``mismatch`` for a number that does not fit.
    """
    if argv[at].upper() != b"FIELDS":
        raise errors.SYNTAX()
    number = parse_int(argv[at + 1])
    if number <= 0 or number != len(argv) - at - 2:
        raise mismatch()
    return argv[at + 2 :]


def find_fields(argv: Args, start: int) -> int:
    """Index of the first FIELDS from ``start`` on; without one, no number of fields can be right."""
    for place in range(start, len(argv) - 1):
        if argv[place].upper() == b"FIELDS":
            return place
    raise NUMBER_OF_FIELDS()


def field_deadline(store: Store, data: bytes, name: str, unit: int, relative: bool) -> int:
    """A time argument as a deadline in unix milliseconds; raises not an integer or invalid expire time."""
    time = parse_int(data)
    base = store.now if relative else 0
    if time < 0 or time > (INT64_MAX - base) // unit:
        raise errors.INVALID_EXPIRE(name)
    return time * unit + base


def is_past(store: Store, deadline: int) -> bool:
    """Whether a field that is given this deadline goes at once."""
    return deadline <= store.now and store.deletes_expired


# -- HEXPIRE, HPEXPIRE, HEXPIREAT, HPEXPIREAT --------------------------------------------------------------------------

_Condition = Callable[[int | None, int], bool]
_CONDITIONS: dict[bytes, _Condition] = {
    b"NX": lambda old, new: old is None,
    b"XX": lambda old, new: old is not None,
    b"GT": lambda old, new: old is not None and new > old,
    b"LT": lambda old, new: old is None or new < old,
}


def _conditions(words: Args) -> list[_Condition]:
    given = set()
    for word in words:
        option = word.upper()
        if option not in _CONDITIONS:
            raise UNSUPPORTED_OPTION(errors.text(word))
        given.add(option)
    if b"NX" in given and len(given) > 1:
        raise NX_WITH_OTHERS()
    if b"GT" in given and b"LT" in given:
        raise GT_WITH_LT()
    return [_CONDITIONS[option] for option in given]


def _expire(store: Store, argv: Args, name: str, unit: int, relative: bool) -> Reply:
    place = find_fields(argv, 3)
    conditions = _conditions(argv[3:place])
    fields = counted_fields(argv, place)
    deadline = field_deadline(store, argv[2], name, unit, relative)
    key = argv[1]
    value = store.lookup_as(key, Hash)
    if value is None:
        return [-2] * len(fields)
    past = is_past(store, deadline)
    now = writers_clock(store)
    replies: list[int] = []
    # In the order of the line, and seen by the same field further on.
    changed: dict[bytes, None] = {}
    for field in fields:
        if value.live(field, now) is None or (past and field in changed):
            replies.append(-2)
            continue
        old = deadline if field in changed else value.deadline(field)
        if not all(holds(old, deadline) for holds in conditions):
            replies.append(0)
            continue
        changed[field] = None
        replies.append(2 if past else 1)
    if changed:
        apply_deadline(store, key, list(changed), deadline)
    return replies


def apply_deadline(store: Store, key: bytes, fields: Sequence[bytes], deadline: int) -> None:
    """Give live fields a deadline, or remove them if it has passed, with effect and events."""
    if is_past(store, deadline):
        store.expired_fields += len(fields)
        remove_fields(store, key, fields, b"hexpired")
        return
    value = store.write(key, Hash)
    assert value is not None
    set_field_deadlines(store, key, value, fields, deadline)
    emit_field_deadlines(store, key, fields, deadline, b"hexpire")


_EXPIRE_SYNTAX = "key {} [NX|XX|GT|LT] FIELDS numfields field [field ...]"


@command(
    "hexpire",
    arity=-6,
    flags="write fast",
    keys=one_key("RW UPDATE"),
    group="hash",
    since="9.0.0",
    summary="Let fields of a hash expire after a number of seconds.",
    complexity="O(N) for N fields named.",
    syntax=_EXPIRE_SYNTAX.format("seconds"),
)
def hexpire(store: Store, argv: Args) -> Reply:
    """Per field: 1 set, 0 condition not met, 2 removed at once, -2 no such field."""
    return _expire(store, argv, "hexpire", SECONDS, relative=True)


@command(
    "hpexpire",
    arity=-6,
    flags="write fast",
    keys=one_key("RW UPDATE"),
    group="hash",
    since="9.0.0",
    summary="Let fields of a hash expire after a number of milliseconds.",
    complexity="O(N) for N fields named.",
    syntax=_EXPIRE_SYNTAX.format("milliseconds"),
)
def hpexpire(store: Store, argv: Args) -> Reply:
    """As HEXPIRE."""
    return _expire(store, argv, "hpexpire", MILLISECONDS, relative=True)


@command(
    "hexpireat",
    arity=-6,
    flags="write fast",
    keys=one_key("RW UPDATE"),
    group="hash",
    since="9.0.0",
    summary="Let fields of a hash expire at a Unix time in seconds.",
    complexity="O(N) for N fields named.",
    syntax=_EXPIRE_SYNTAX.format("unix-time-seconds"),
)
def hexpireat(store: Store, argv: Args) -> Reply:
    """As HEXPIRE."""
    return _expire(store, argv, "hexpireat", SECONDS, relative=False)


@command(
    "hpexpireat",
    arity=-6,
    flags="write fast",
    keys=one_key("RW UPDATE"),
    group="hash",
    since="9.0.0",
    summary="Let fields of a hash expire at a Unix time in milliseconds.",
    complexity="O(N) for N fields named.",
    syntax=_EXPIRE_SYNTAX.format("unix-time-milliseconds"),
)
def hpexpireat(store: Store, argv: Args) -> Reply:
    """As HEXPIRE; on a copy a deadline in the past is kept and the field left to the stream."""
    return _expire(store, argv, "hpexpireat", MILLISECONDS, relative=False)


# -- HTTL, HPTTL, HEXPIRETIME, HPEXPIRETIME, HPERSIST ------------------------------------------------------------------


def _deadlines(store: Store, argv: Args, unit: int, relative: bool) -> Reply:
    fields = counted_fields(argv, mismatch=errors.SYNTAX)
    value = store.read_as(argv[1], Hash)
    if value is None:
        return [-2] * len(fields)
    base = store.now if relative else 0
    replies: list[int] = []
    for field in fields:
        if value.live(field, store.now) is None:
            replies.append(-2)
            continue
        deadline = value.deadline(field)
        # Seconds are rounded to the nearest.
        replies.append(-1 if deadline is None else (deadline - base + unit // 2) // unit)
    return replies


@command(
    "httl",
    arity=-5,
    flags="readonly fast",
    keys=one_key("RO ACCESS"),
    group="hash",
    since="9.0.0",
    summary="How many seconds fields of a hash have left.",
    complexity="O(N) for N fields named.",
    syntax="key FIELDS numfields field [field ...]",
)
def httl(store: Store, argv: Args) -> Reply:
    """Per field: what is left, -1 without a deadline, -2 no such field."""
    return _deadlines(store, argv, SECONDS, relative=True)


@command(
    "hpttl",
    arity=-5,
    flags="readonly fast",
    keys=one_key("RO ACCESS"),
    group="hash",
    since="9.0.0",
    summary="How many milliseconds fields of a hash have left.",
    complexity="O(N) for N fields named.",
    syntax="key FIELDS numfields field [field ...]",
)
def hpttl(store: Store, argv: Args) -> Reply:
    """As HTTL."""
    return _deadlines(store, argv, MILLISECONDS, relative=True)


@command(
    "hexpiretime",
    arity=-5,
    flags="readonly fast",
    keys=one_key("RO ACCESS"),
    group="hash",
    since="9.0.0",
    summary="When fields of a hash expire, in Unix seconds.",
    complexity="O(N) for N fields named.",
    syntax="key FIELDS numfields field [field ...]",
)
def hexpiretime(store: Store, argv: Args) -> Reply:
    """Per field: the deadline, -1 without one, -2 no such field."""
    return _deadlines(store, argv, SECONDS, relative=False)


@command(
    "hpexpiretime",
    arity=-5,
    flags="readonly fast",
    keys=one_key("RO ACCESS"),
    group="hash",
    since="9.0.0",
    summary="When fields of a hash expire, in Unix milliseconds.",
    complexity="O(N) for N fields named.",
    syntax="key FIELDS numfields field [field ...]",
)
def hpexpiretime(store: Store, argv: Args) -> Reply:
    """As HEXPIRETIME."""
    return _deadlines(store, argv, MILLISECONDS, relative=False)


@command(
    "hpersist",
    arity=-5,
    flags="write fast",
    keys=one_key("RW UPDATE"),
    group="hash",
    since="9.0.0",
    summary="Take away the deadlines of fields of a hash.",
    complexity="O(N) for N fields named.",
    syntax="key FIELDS numfields field [field ...]",
)
def hpersist(store: Store, argv: Args) -> Reply:
    """Per field: 1 taken away, -1 had none, -2 no such field."""
    fields = counted_fields(argv)
    key = argv[1]
    value = store.lookup_as(key, Hash)
    if value is None:
        return [-2] * len(fields)
    now = writers_clock(store)
    replies: list[int] = []
    persisted: dict[bytes, None] = {}
    for field in fields:
        if value.live(field, now) is None:
            replies.append(-2)
        elif value.deadline(field) is None or field in persisted:
            replies.append(-1)
        else:
            persisted[field] = None
            replies.append(1)
    persist_fields(store, key, list(persisted))
    return replies


def persist_fields(store: Store, key: bytes, fields: Sequence[bytes]) -> None:
    """Take the deadlines of fields that have one away, with effect and event; no field is no change."""
    if not fields:
        return
    value = store.write(key, Hash)
    assert value is not None
    for field in fields:
        value.forget_deadline(field)
    store.emit((b"HPERSIST", key, b"FIELDS", b"%d" % len(fields), *fields), key, (notify.HASH, b"hpersist", key))
