"""Commands on hashes. What concerns deadlines of fields is in hash_fields.py and hash_getex.py."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from ... import errors
from ...reply import OK, Pairs, Reply
from .. import notify
from ..arguments import INT64_MAX, INT64_MIN, add_long_double, as_int, parse_int
from ..command import Args, command, one_key
from ..journal import Event
from ..long_double import parse_long_double
from ..store import Store
from ..values import Hash, random_member, scan_table
from .hash_fields import emit_field_deadlines, remove_fields, writers_clock
from .random_members import MOST_REPEATED
from .scan import parse_cursor, parse_options, scan_reply

VALUE_NOT_INTEGER = errors.ErrorKind("ERR", "hash value is not an integer", errors.FIX)
VALUE_NOT_FLOAT = errors.ErrorKind("ERR", "hash value is not a float", errors.FIX)
INCREMENT_NOT_FINITE = errors.ErrorKind("ERR", "value is NaN or Infinity", errors.FIX)

# Picks after which one stops hoping to hit a field that has not expired, and looks at all of them.
_DRAWS = 100
# From a hash this many times as large as what is asked for, fields are picked one by one.
_SPARSE = 8


# -- setting -----------------------------------------------------------------------------------------------------------


@command(
    "hset",
    arity=-4,
    flags="write denyoom fast",
    keys=one_key("RW UPDATE"),
    group="hash",
    since="2.0.0",
    summary="Set fields of a hash.",
    complexity="O(N) for N fields set.",
    syntax="key field value [field value ...]",
)
def hset(store: Store, argv: Args) -> Reply:
    """How many fields are new. A field that is set loses its deadline."""
    count = len(argv)
    if count & 1:
        raise errors.WRONG_ARITY("hset")
    key = argv[1]
    value = store.write_or_create(key, Hash)
    if value.deadlines is not None:
        return _set_over_deadlines(store, key, value, argv)
    put = value.put_keeping_deadline
    if count == 4:
        created = 1 if put(argv[2], argv[3]) else 0
    else:
        created = sum(map(put, argv[2::2], argv[3::2]))
    store.emit(argv, key, (notify.HASH, b"hset", key))
    return created


def _set_over_deadlines(store: Store, key: bytes, value: Hash, command: Args) -> int:
    """Set fields of an opened hash of which some have a deadline; ``command`` is the HSET that says it. How many are
    new, those included that had expired."""
    now = writers_clock(store)
    created = overwritten = 0
    for field, content in zip(command[2::2], command[3::2], strict=True):
        deadline = value.deadline(field)
        if deadline is not None and deadline < now:
            overwritten += 1
        created += value.put(field, content)
    _emit_set(store, key, command, b"hset", overwritten)
    return created + overwritten


def _emit_set(store: Store, key: bytes, command: Args, name: bytes, overwritten: int) -> None:
    """Emit an HSET with the event ``name``, after ``hexpired`` if it wrote over expired fields."""
    events: list[Event] = []
    if overwritten:
        store.expired_fields += overwritten
        events.append((notify.HASH, b"hexpired", key))
    store.emit(command, key, *events, (notify.HASH, name, key))


@command(
    "hmset",
    arity=-4,
    flags="write denyoom fast",
    keys=one_key("RW UPDATE"),
    group="hash",
    since="2.0.0",
    summary="Set fields of a hash; HSET does the same and answers with a number.",
    complexity="O(N) for N fields set.",
    syntax="key field value [field value ...]",
)
def hmset(store: Store, argv: Args) -> Reply:
    if len(argv) & 1:
        raise errors.WRONG_ARITY("hmset")
    hset(store, (b"HSET", *argv[1:]))
    return OK


@command(
    "hsetnx",
    arity=4,
    flags="write denyoom fast",
    keys=one_key("RW INSERT"),
    group="hash",
    since="2.0.0",
    summary="Set a field of a hash unless it exists.",
    complexity="O(1)",
    syntax="key field value",
)
def hsetnx(store: Store, argv: Args) -> Reply:
    """1 if the field has been set, else 0."""
    value = store.lookup_as(argv[1], Hash)
    if value is not None and value.live(argv[2], writers_clock(store)) is not None:
        return 0
    hset(store, (b"HSET", *argv[1:]))
    return 1


# -- counting ----------------------------------------------------------------------------------------------------------


@command(
    "hincrby",
    arity=4,
    flags="write denyoom fast",
    keys=one_key("RW ACCESS UPDATE"),
    group="hash",
    since="2.0.0",
    summary="Add an integer to the number in a field of a hash.",
    complexity="O(1)",
    syntax="key field increment",
)
def hincrby(store: Store, argv: Args) -> Reply:
    """The sum. The field keeps its deadline; a missing one counts as 0."""
    increment = parse_int(argv[3])
    key, field = argv[1], argv[2]
    old = _number_text(store, key, field)
    number = 0 if old is None else as_int(old)
    if number is None:
        raise VALUE_NOT_INTEGER()
    total = number + increment
    if not INT64_MIN <= total <= INT64_MAX:
        raise errors.OVERFLOW()
    value = store.write_or_create(key, Hash)
    if value.deadlines is None:
        value.put_keeping_deadline(field, b"%d" % total)
        store.emit(argv, key, (notify.HASH, b"hincrby", key))
    else:
        # A copy's clock may differ, and with it what it takes for the old number.
        _put_number(store, key, value, field, b"%d" % total, b"hincrby")
    return total


def _number_text(store: Store, key: bytes, field: bytes) -> bytes | None:
    value = store.lookup_as(key, Hash)
    return None if value is None else value.live(field, writers_clock(store))


def _put_number(store: Store, key: bytes, value: Hash, field: bytes, text: bytes, name: bytes) -> None:
    """Set a field of an opened hash to its new number, told as HSET with the event ``name``; its deadline stays unless
    it has passed."""
    deadline = value.deadline(field)
    expired = deadline is not None and deadline < writers_clock(store)
    if expired:
        value.put(field, text)
    else:
        value.put_keeping_deadline(field, text)
    _emit_set(store, key, (b"HSET", key, field, text), name, 1 if expired else 0)
    if deadline is not None and not expired:
        emit_field_deadlines(store, key, [field], deadline)


@command(
    "hincrbyfloat",
    arity=4,
    flags="write denyoom fast",
    keys=one_key("RW ACCESS UPDATE"),
    group="hash",
    since="2.6.0",
    summary="Add a decimal number to the number in a field of a hash.",
    complexity="O(1)",
    syntax="key field increment",
)
def hincrbyfloat(store: Store, argv: Args) -> Reply:
    """The sum as text. The field keeps its deadline; a missing one counts as 0."""
    increment = parse_long_double(argv[3])
    if increment is None:
        raise errors.NOT_FLOAT()
    if increment.is_infinite:
        raise INCREMENT_NOT_FINITE()
    key, field = argv[1], argv[2]
    old = _number_text(store, key, field)
    text = add_long_double(b"0" if old is None else old, argv[3], VALUE_NOT_FLOAT)
    _put_number(store, key, store.write_or_create(key, Hash), field, text, b"hincrbyfloat")
    return text


# -- removing ----------------------------------------------------------------------------------------------------------


@command(
    "hdel",
    arity=-3,
    flags="write fast",
    keys=one_key("RW DELETE"),
    group="hash",
    since="2.0.0",
    summary="Remove fields of a hash.",
    complexity="O(N) for N fields named.",
    syntax="key field [field ...]",
)
def hdel(store: Store, argv: Args) -> Reply:
    """How many fields there were. On a copy it removes expired ones too."""
    key = argv[1]
    value = store.lookup_as(key, Hash)
    if value is None:
        return 0
    now = writers_clock(store)
    found = [field for field in dict.fromkeys(argv[2:]) if value.live(field, now) is not None]
    if found:
        remove_fields(store, key, found, b"hdel")
    return len(found)


# -- reading -----------------------------------------------------------------------------------------------------------


@command(
    "hget",
    arity=3,
    flags="readonly fast",
    keys=one_key("RO ACCESS"),
    group="hash",
    since="2.0.0",
    summary="The value of a field of a hash.",
    complexity="O(1)",
    syntax="key field",
)
def hget(store: Store, argv: Args) -> Reply:
    value = store.read_as(argv[1], Hash)
    return None if value is None else value.live(argv[2], store.now)


@command(
    "hmget",
    arity=-3,
    flags="readonly fast",
    keys=one_key("RO ACCESS"),
    group="hash",
    since="2.0.0",
    summary="The values of some fields of a hash.",
    complexity="O(N) for N fields named.",
    syntax="key field [field ...]",
)
def hmget(store: Store, argv: Args) -> Reply:
    value = store.read_as(argv[1], Hash)
    if value is None:
        return [None] * (len(argv) - 2)
    now = store.now
    return [value.live(field, now) for field in argv[2:]]


@command(
    "hgetall",
    arity=2,
    flags="readonly",
    keys=one_key("RO ACCESS"),
    group="hash",
    since="2.0.0",
    summary="Every field of a hash with its value.",
    complexity="O(N) for N fields in the hash.",
    syntax="key",
    tips=("nondeterministic_output_order",),
)
def hgetall(store: Store, argv: Args) -> Reply:
    value = store.read_as(argv[1], Hash)
    return {} if value is None else dict(value.live_items(store.now))


@command(
    "hkeys",
    arity=2,
    flags="readonly",
    keys=one_key("RO ACCESS"),
    group="hash",
    since="2.0.0",
    summary="Every field of a hash.",
    complexity="O(N) for N fields in the hash.",
    syntax="key",
    tips=("nondeterministic_output_order",),
)
def hkeys(store: Store, argv: Args) -> Reply:
    value = store.read_as(argv[1], Hash)
    return [] if value is None else _live_fields(store, value)


def _live_fields(store: Store, value: Hash) -> list[bytes]:
    return [field for field, _ in value.live_items(store.now)]


@command(
    "hvals",
    arity=2,
    flags="readonly",
    keys=one_key("RO ACCESS"),
    group="hash",
    since="2.0.0",
    summary="Every value in a hash.",
    complexity="O(N) for N fields in the hash.",
    syntax="key",
    tips=("nondeterministic_output_order",),
)
def hvals(store: Store, argv: Args) -> Reply:
    value = store.read_as(argv[1], Hash)
    return [] if value is None else [content for _, content in value.live_items(store.now)]


@command(
    "hlen",
    arity=2,
    flags="readonly fast",
    keys=one_key("RO"),
    group="hash",
    since="2.0.0",
    summary="The number of fields in a hash.",
    complexity="O(1)",
    syntax="key",
)
def hlen(store: Store, argv: Args) -> Reply:
    """Expired fields count until they are removed, as in Valkey 9."""
    value = store.read_as(argv[1], Hash)
    return 0 if value is None else len(value)


@command(
    "hexists",
    arity=3,
    flags="readonly fast",
    keys=one_key("RO"),
    group="hash",
    since="2.0.0",
    summary="Whether a hash has a field.",
    complexity="O(1)",
    syntax="key field",
)
def hexists(store: Store, argv: Args) -> Reply:
    value = store.read_as(argv[1], Hash)
    return 0 if value is None or value.live(argv[2], store.now) is None else 1


@command(
    "hstrlen",
    arity=3,
    flags="readonly fast",
    keys=one_key("RO"),
    group="hash",
    since="3.2.0",
    summary="The length of the value of a field of a hash.",
    complexity="O(1)",
    syntax="key field",
)
def hstrlen(store: Store, argv: Args) -> Reply:
    value = store.read_as(argv[1], Hash)
    content = None if value is None else value.live(argv[2], store.now)
    return 0 if content is None else len(content)


@command(
    "hscan",
    arity=-3,
    flags="readonly",
    keys=one_key("RO ACCESS"),
    group="hash",
    since="2.8.0",
    summary="Walks a hash in steps.",
    complexity="O(1) for each call, O(N) for a whole walk over N fields.",
    syntax="key cursor [MATCH pattern] [COUNT count] [NOVALUES]",
    tips=("nondeterministic_output",),
)
def hscan(store: Store, argv: Args) -> Reply:
    cursor = parse_cursor(argv[2])
    value = store.read_as(argv[1], Hash)
    if value is None:
        return scan_reply(0, [])
    options = parse_options(argv, 3, Hash)
    cursor, fields = scan_table(value.fields, cursor, options.count)
    found: list[bytes] = []
    for field in options.filter(fields):
        content = value.live(field, store.now)
        if content is not None:
            found.append(field)
            if not options.keys_only:
                found.append(content)
    return scan_reply(cursor, found)


# -- random fields -----------------------------------------------------------------------------------------------------


@command(
    "hrandfield",
    arity=-2,
    flags="readonly",
    keys=one_key("RO ACCESS"),
    group="hash",
    since="6.2.0",
    summary="Random fields of a hash.",
    complexity="O(N) for N fields returned.",
    syntax="key [count [WITHVALUES]]",
    tips=("nondeterministic_output",),
)
def hrandfield(store: Store, argv: Args) -> Reply:
    """One field; or ``count`` different ones; or, where it is negative, ``-count`` that may repeat."""
    if len(argv) == 2:
        value = store.read_as(argv[1], Hash)
        return None if value is None else _random_field(store, value)
    count, with_values = _random_options(argv)
    value = store.read_as(argv[1], Hash)
    if value is None:
        return []
    fields = _distinct_fields(store, value, count) if count >= 0 else _repeated_fields(store, value, -count)
    if with_values:
        return Pairs((field, value.get(field)) for field in fields)
    return fields


def _random_options(argv: Args) -> tuple[int, bool]:
    count = parse_int(argv[2])
    if count == INT64_MIN:
        raise errors.COUNT_OUT_OF_RANGE()
    if len(argv) == 3:
        return count, False
    if len(argv) > 4 or argv[3].upper() != b"WITHVALUES":
        raise errors.SYNTAX()
    if abs(count) > INT64_MAX // 2:
        raise errors.OUT_OF_RANGE()
    return count, True


def _draws(store: Store, value: Hash, attempts: int) -> Iterator[bytes]:
    """Random fields that have not expired, from so many picks."""
    for _ in range(attempts):
        field = random_member(value.fields, store.random)
        if value.live(field, store.now) is not None:
            yield field


def _random_field(store: Store, value: Hash) -> bytes | None:
    """A field that has not expired, or None if there is none."""
    for field in _draws(store, value, _DRAWS):
        return field
    live = _live_fields(store, value)
    return live[store.random.randrange(len(live))] if live else None


def _repeated_fields(store: Store, value: Hash, number: int) -> list[bytes]:
    if number > MOST_REPEATED:
        raise errors.OUT_OF_RANGE()
    if number * _SPARSE < len(value):
        drawn = list(islice(_draws(store, value, 4 * number + _DRAWS), number))
        if len(drawn) == number:
            return drawn
    live = _live_fields(store, value)
    randrange = store.random.randrange
    return [live[randrange(len(live))] for _ in range(number)] if live else []


def _distinct_fields(store: Store, value: Hash, number: int) -> list[bytes]:
    if number * _SPARSE < len(value):
        found: dict[bytes, None] = {}
        for field in _draws(store, value, 4 * number + _DRAWS if number else 0):
            found[field] = None
            if len(found) == number:
                break
        if len(found) == number:
            return list(found)
    live = _live_fields(store, value)
    size = len(live)
    if number >= size:
        return live
    for place in range(number):
        other = place + store.random.randrange(size - place)
        live[place], live[other] = live[other], live[place]
    return live[:number]
