"""OBJECT: how a value is kept."""

from __future__ import annotations

from typing import Final

from ... import errors
from ...reply import Reply
from ..access import frequency, has_lfu_policy, idle_seconds, watch_accesses
from ..command import Args, command, container, one_key
from ..encoding import encoding
from ..help import add_help
from ..keyspace import KeyShard
from ..store import Store
from ..values import Value

NO_FREQUENCY = errors.ErrorKind(
    "ERR",
    "An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching between "
    "policies at runtime LRU and LFU data will take some time to adjust.",
    "Choose an LFU policy.",
)
NO_IDLE_TIME_BUT_FREQUENCY = errors.ErrorKind(
    "ERR",
    "An LFU maxmemory policy is selected, idle time not tracked. Please note that when switching between policies at "
    "runtime LRU and LFU data will take some time to adjust.",
    "Choose an LRU policy.",
)

OBJECT: Final = container(
    "object", group="generic", since="2.2.3", summary="Looks at how a value is kept: encoding, idle time, frequency."
)
add_help(OBJECT, "6.2.0")


def _inspect(store: Store, key: bytes) -> Value | None:
    """The live value; counted as a hit or a miss but not announced as a miss, its access clock untouched."""
    tracker, store.tracker = store.tracker, None
    try:
        value = store.lookup(key)
    finally:
        store.tracker = tracker
    if value is None:
        store.misses += 1
    else:
        store.hits += 1
    return value


def _shard(store: Store, key: bytes) -> KeyShard:
    return store.keyspace.directory[hash(key) >> store.keyspace.shift]


@command(
    "encoding",
    arity=3,
    flags="readonly",
    keys=one_key("RO", 2),
    group="generic",
    since="2.2.3",
    summary="The encoding Valkey would keep this value in.",
    complexity="O(1) for large values, O(N) for the N elements of small ones.",
    syntax="key",
    tips=("nondeterministic_output",),
    parent=OBJECT,
)
def object_encoding(store: Store, argv: Args) -> Reply:
    key = argv[2]
    value = _inspect(store, key)
    return None if value is None else encoding(key, value, store.deadline(key), store.settings)


@command(
    "freq",
    arity=3,
    flags="readonly",
    keys=one_key("RO", 2),
    group="generic",
    since="4.0.0",
    summary="How often a key is used, on a logarithmic scale from 0 to 255.",
    complexity="O(1)",
    syntax="key",
    tips=("nondeterministic_output",),
    parent=OBJECT,
)
def object_freq(store: Store, argv: Args) -> Reply:
    if _inspect(store, argv[2]) is None:
        return None
    if not has_lfu_policy(store):
        raise NO_FREQUENCY()
    return frequency(store, _shard(store, argv[2]), argv[2])


@command(
    "idletime",
    arity=3,
    flags="readonly",
    keys=one_key("RO", 2),
    group="generic",
    since="2.2.3",
    summary="Seconds since the last access to a key.",
    complexity="O(1)",
    syntax="key",
    tips=("nondeterministic_output",),
    parent=OBJECT,
)
def object_idletime(store: Store, argv: Args) -> Reply:
    if _inspect(store, argv[2]) is None:
        return None
    if has_lfu_policy(store):
        raise NO_IDLE_TIME_BUT_FREQUENCY()
    watch_accesses(store)
    return idle_seconds(store, _shard(store, argv[2]), argv[2])


@command(
    "refcount",
    arity=3,
    flags="readonly",
    keys=one_key("RO", 2),
    group="generic",
    since="2.2.3",
    summary="The number of references to a value: always 1.",
    complexity="O(1)",
    syntax="key",
    tips=("nondeterministic_output",),
    parent=OBJECT,
)
def object_refcount(store: Store, argv: Args) -> Reply:
    return None if _inspect(store, argv[2]) is None else 1
