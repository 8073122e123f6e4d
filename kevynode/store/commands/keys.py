"""Keys as such: existence, deletion, types, renaming, copying, patterns, flushing, and the one database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain

from ... import errors
from ...reply import OK, Reply, Status
from .. import notify
from ..access import read_untouched
from ..arguments import parse_int
from ..command import Args, command, key_range, one_key
from ..glob import compile_glob
from ..rebuild import deep_copy, rebuild_commands
from ..store import Store
from ..values import Hash, Value

__all__ = ["emit_rebuild", "flush_everything"]

DATABASE_OUT_OF_RANGE = errors.ErrorKind("ERR", "DB index is out of range", "Use database 0, the only one.")
INVALID_FIRST_DATABASE = errors.ErrorKind("ERR", "invalid first DB index", errors.FIX)
INVALID_SECOND_DATABASE = errors.ErrorKind("ERR", "invalid second DB index", errors.FIX)
SAME_OBJECT = errors.ErrorKind("ERR", "source and destination objects are the same", errors.FIX)

# On a copy, expired keys stay until the stream deletes them; RANDOMKEY gives up avoiding them after this many.
_RANDOM_TRIES = 100


# -- existence --------------------------------------------------------------------------------------------------------


@command(
    "del",
    arity=-2,
    flags="write",
    keys=key_range("RM DELETE"),
    group="generic",
    since="1.0.0",
    summary="Deletes keys.",
    complexity="O(N) for N keys.",
    syntax="key [key ...]",
    tips=("request_policy:multi_shard", "response_policy:agg_sum"),
)
def delete(store: Store, argv: Args) -> Reply:
    deleted = 0
    for key in argv[1:]:
        # What has expired counts as gone already, but a copy deletes what the stream says.
        if (store.lookup(key) is not None or not store.deletes_expired) and store.delete(key):
            deleted += 1
            store.emit((b"DEL", key), key, (notify.GENERIC, b"del", key))
    return deleted


@command(
    "unlink",
    arity=-2,
    flags="write fast",
    keys=key_range("RM DELETE"),
    group="generic",
    since="4.0.0",
    summary="Deletes keys; the same as DEL.",
    complexity="O(N) for N keys.",
    syntax="key [key ...]",
    tips=("request_policy:multi_shard", "response_policy:agg_sum"),
)
def unlink(store: Store, argv: Args) -> Reply:
    return delete(store, argv)


@command(
    "exists",
    arity=-2,
    flags="readonly fast",
    keys=key_range("RO"),
    group="generic",
    since="1.0.0",
    summary="How many of the keys exist; one named twice counts twice.",
    complexity="O(N) for N keys.",
    syntax="key [key ...]",
    tips=("request_policy:multi_shard", "response_policy:agg_sum"),
)
def exists(store: Store, argv: Args) -> Reply:
    return sum(read_untouched(store, key) is not None for key in argv[1:])


@command(
    "touch",
    arity=-2,
    flags="readonly fast",
    keys=key_range("RO"),
    group="generic",
    since="3.2.1",
    summary="How many of the keys exist; counts as an access to each.",
    complexity="O(N) for N keys.",
    syntax="key [key ...]",
    tips=("request_policy:multi_shard", "response_policy:agg_sum"),
)
def touch(store: Store, argv: Args) -> Reply:
    return sum(store.read(key) is not None for key in argv[1:])


@command(
    "type",
    arity=2,
    flags="readonly fast",
    keys=one_key("RO"),
    group="generic",
    since="1.0.0",
    summary="The type of the value under a key.",
    complexity="O(1)",
    syntax="key",
)
def type_(store: Store, argv: Args) -> Reply:
    value = read_untouched(store, argv[1])
    if value is None:
        return Status(b"none")
    return Status(b"string" if isinstance(value, bytes) else value.type_name)


# -- renaming and copying ---------------------------------------------------------------------------------------------


@command(
    "rename",
    arity=3,
    flags="write",
    keys=one_key("RW ACCESS DELETE", 1) + one_key("OW UPDATE", 2),
    group="generic",
    since="1.0.0",
    summary="Renames a key; whatever had the new name is gone.",
    complexity="O(1), and O(N) for N elements to tell the copies.",
    syntax="key newkey",
)
def rename(store: Store, argv: Args) -> Reply:
    source, target = argv[1], argv[2]
    value = store.lookup(source)
    if value is None:
        raise errors.NO_SUCH_KEY()
    if source != target:
        _rename(store, source, target, value)
    return OK


@command(
    "renamenx",
    arity=3,
    flags="write fast",
    keys=one_key("RW ACCESS DELETE", 1) + one_key("OW INSERT", 2),
    group="generic",
    since="1.0.0",
    summary="Renames a key unless the new name is taken.",
    complexity="O(1), and O(N) for N elements to tell the copies.",
    syntax="key newkey",
)
def renamenx(store: Store, argv: Args) -> Reply:
    source, target = argv[1], argv[2]
    value = store.lookup(source)
    if value is None:
        raise errors.NO_SUCH_KEY()
    if source == target or store.lookup(target) is not None:
        return 0
    _rename(store, source, target, value)
    return 1


def _rename(store: Store, source: bytes, target: bytes, value: Value) -> None:
    deadline = store.deadline(source)
    store.delete(source)
    store.emit((b"DEL", source), source, (notify.GENERIC, b"rename_from", source))
    _replace(store, target, value, deadline, b"rename_to")


@command(
    "copy",
    arity=-3,
    flags="write denyoom",
    keys=one_key("RO ACCESS", 1) + one_key("OW UPDATE", 2),
    group="generic",
    since="6.2.0",
    summary="Copies a value and its deadline to another key.",
    complexity="O(N) for N elements.",
    syntax="source destination [DB destination-db] [REPLACE]",
)
def copy(store: Store, argv: Args) -> Reply:
    source, target = argv[1], argv[2]
    replace = _parse_copy(argv)
    if source == target:
        raise SAME_OBJECT()
    value = store.read(source)
    if value is None or (store.lookup(target) is not None and not replace):
        return 0
    _replace(store, target, deep_copy(value, store.epoch), store.deadline(source), b"copy_to")
    return 1


def _parse_copy(argv: Args) -> bool:
    """Whether REPLACE is among COPY's options."""
    replace = False
    place, size = 3, len(argv)
    while place < size:
        word = argv[place].upper()
        if word == b"REPLACE":
            replace = True
        elif word == b"DB" and place + 1 < size:
            place += 1
            _check_database(argv[place])
        else:
            raise errors.SYNTAX()
        place += 1
    return replace


def _replace(store: Store, key: bytes, value: Value, deadline: int | None, event: bytes) -> None:
    """Put ``value`` under ``key`` as something new, told as a deletion and a rebuild."""
    if store.lookup(key) is not None and store.delete(key):
        store.emit((b"DEL", key), key)
    store.put(key, value)
    if deadline is not None:
        store.set_deadline(key, deadline)
    if isinstance(value, Hash) and value.deadlines:
        store.field_deadline_keys[key] = None
    emit_rebuild(store, key, value, deadline, (notify.GENERIC, event, key))


def emit_rebuild(
    store: Store, key: bytes, value: Value, deadline: int | None, *events: tuple[int, bytes, bytes]
) -> None:
    """Emit the effects that build ``value``; the events hang on the last of them."""
    commands = rebuild_commands(key, value, deadline)
    for words in commands[:-1]:
        store.emit(words, key)
    store.emit(commands[-1], key, *events)


# -- the whole keyspace -----------------------------------------------------------------------------------------------


@command(
    "keys",
    arity=2,
    flags="readonly",
    group="generic",
    since="1.0.0",
    summary="All keys that match a glob pattern.",
    complexity="O(N) for N keys in the database.",
    syntax="pattern",
    categories="dangerous",
    tips=("request_policy:all_shards", "nondeterministic_output_order"),
)
def keys(store: Store, argv: Args) -> Reply:
    pattern, now = argv[1], store.now
    matches = None if pattern == b"*" else compile_glob(pattern)
    found: list[bytes] = []
    for shard in store.keyspace.shards():
        deadlines = shard.deadlines
        found += [
            key
            for key in shard
            if (matches is None or matches(key)) and (not deadlines or deadlines.get(key, now) >= now)
        ]
    return found


@command(
    "randomkey",
    arity=1,
    flags="readonly",
    group="generic",
    since="1.0.0",
    summary="A key at random.",
    complexity="O(1)",
    tips=("request_policy:all_shards", "response_policy:special", "nondeterministic_output"),
)
def randomkey(store: Store, argv: Args) -> Reply:
    tries = 0
    while (key := store.keyspace.random_key(store.random)) is not None:
        deadline = store.deadline(key)
        if deadline is None or deadline >= store.now:
            break
        tries += 1
        if not store.expire(key) and tries >= _RANDOM_TRIES:
            break
    return key


@command(
    "dbsize",
    arity=1,
    flags="readonly fast",
    group="server",
    since="1.0.0",
    summary="The number of keys in the database.",
    complexity="O(1)",
    categories="keyspace",
    tips=("request_policy:all_shards", "response_policy:agg_sum"),
)
def dbsize(store: Store, argv: Args) -> Reply:
    return len(store.keyspace)


@command(
    "flushall",
    arity=-1,
    flags="write",
    group="server",
    since="1.0.0",
    summary="Removes every key, except those that other nodes write.",
    complexity="O(N) for N keys.",
    syntax="[ASYNC|SYNC]",
    categories="keyspace dangerous",
    tips=("request_policy:all_shards", "response_policy:all_succeeded"),
)
def flushall(store: Store, argv: Args) -> Reply:
    if len(argv) > 2 or (len(argv) == 2 and argv[1].upper() not in (b"SYNC", b"ASYNC")):
        raise errors.SYNTAX()
    if store.foreign is not None and any(map(store.foreign, _every_key(store))):
        _flush_own(store, store.foreign)
    else:
        flush_everything(store, argv)
    return OK


def flush_everything(store: Store, argv: Args) -> None:
    """Remove every key, whoever writes it: FLUSHALL as a stream or a file means it. ``argv`` is not looked at."""
    if len(store.keyspace):
        store.clear()
        store.emit((b"FLUSHALL",), None)


def _every_key(store: Store) -> Iterator[bytes]:
    return chain.from_iterable(store.keyspace.shards())


def _flush_own(store: Store, foreign: Callable[[bytes], bool]) -> None:
    """Delete what is not other nodes' key by key: whoever follows this node holds copies of theirs too."""
    for key in [key for key in _every_key(store) if not foreign(key)]:
        store.delete(key)
        store.emit((b"DEL", key), key)


@command(
    "flushdb",
    arity=-1,
    flags="write",
    group="server",
    since="1.0.0",
    summary="Removes every key; the same as FLUSHALL.",
    complexity="O(N) for N keys.",
    syntax="[ASYNC|SYNC]",
    categories="keyspace dangerous",
    tips=("request_policy:all_shards", "response_policy:all_succeeded"),
)
def flushdb(store: Store, argv: Args) -> Reply:
    return flushall(store, argv)


# -- databases: there is one ------------------------------------------------------------------------------------------


def _check_database(data: bytes) -> None:
    """Raise unless ``data`` names database 0."""
    if parse_int(data):
        raise DATABASE_OUT_OF_RANGE()


@command(
    "move",
    arity=3,
    flags="write fast",
    keys=one_key("RW ACCESS UPDATE"),
    group="generic",
    since="1.0.0",
    summary="Refused: there is no other database to move a key to.",
    complexity="O(1)",
    syntax="key db",
)
def move(store: Store, argv: Args) -> Reply:
    _check_database(argv[2])
    raise SAME_OBJECT()


@command(
    "swapdb",
    arity=3,
    flags="write fast",
    group="server",
    since="4.0.0",
    summary="Does nothing for database 0 twice, and is refused otherwise.",
    complexity="O(1)",
    syntax="index1 index2",
    categories="keyspace dangerous",
)
def swapdb(store: Store, argv: Args) -> Reply:
    numbers = parse_int(argv[1], INVALID_FIRST_DATABASE), parse_int(argv[2], INVALID_SECOND_DATABASE)
    if any(numbers):
        raise DATABASE_OUT_OF_RANGE()
    return OK
