"""What is measured: one command with its data, its preparation and the shape of its reply. No I/O here."""

import random
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import attrs

RANDOM = "__rand_int__"
"""Stands in an argument for a random number of :data:`DIGITS` digits; redis-benchmark knows the same word."""

DIGITS = 12
KEYSPACE = 10_000
"""How many different keys, fields or members a workload draws from."""

VALUE = "x" * 64

STRING_PREFIX = "bench:string:"
COUNTER_PREFIX = "bench:counter:"
LIST_KEY = "bench:list"
RANGE_KEY = "bench:range"
HASH_KEY = "bench:hash"
SET_KEY = "bench:set"
ZSET_KEY = "bench:zset"

MGET_KEYS = 10
"""Keys that one MGET asks for."""

LIST_RANGE = 100
"""Elements that one LRANGE returns, all of its list."""

ERROR = ord("-")
"""What the reply of a failed command begins with."""

DELETE_AT_ONCE = 500
PUSH_AT_ONCE = 500
BATCH_POOL_REQUESTS = 4096
"""The own generator cycles through batches holding about this many prebuilt requests in all."""

Argv = list[str]


def number(value: int) -> str:
    """The text that stands for a random number on the wire: zero-padded to :data:`DIGITS` digits."""
    return f"{value:0{DIGITS}d}"


def encode_request(argv: Iterable[str]) -> bytes:
    """One request as a RESP array of bulk strings (arguments as UTF-8)."""
    encoded = [argument.encode() for argument in argv]
    parts = [b"*%d\r\n" % len(encoded)]
    parts += [b"$%d\r\n%b\r\n" % (len(argument), argument) for argument in encoded]
    return b"".join(parts)


class NumberSource(Protocol):
    """Where :func:`fill_in` takes its numbers from: ``random.Random`` is one."""

    def randrange(self, start: int, /) -> int:
        """A number from zero to below ``start``."""


def fill_in(arguments: Iterable[str], source: NumberSource, keyspace: int = KEYSPACE) -> Argv:
    """The arguments with every :data:`RANDOM` replaced by its own random number below ``keyspace``."""
    filled = []
    for argument in arguments:
        while RANDOM in argument:
            argument = argument.replace(RANDOM, number(source.randrange(keyspace)), 1)
        filled.append(argument)
    return filled


def build_batches(arguments: Iterable[str], depth: int, seed: int, keyspace: int = KEYSPACE) -> list[bytes]:
    """Prebuilt batches of ``depth`` requests each: what one connection sends in one go.

    The same seed gives the same bytes. There are enough batches for about :data:`BATCH_POOL_REQUESTS` requests,
    and never fewer than 16.
    """
    template = list(arguments)
    source = random.Random(seed)
    batches = max(16, BATCH_POOL_REQUESTS // depth)
    return [b"".join(encode_request(fill_in(template, source, keyspace)) for _ in range(depth)) for _ in range(batches)]


def count_line_ends(data: bytes | bytearray, size: int) -> int:
    """How many reply lines end in the first ``size`` bytes of ``data``.

    A reply of a workload has a known number of line ends and no line end inside its data, so replies are
    counted by one scan for one byte. That is right wherever a read cuts the stream, between CR and LF included.
    """
    return data.count(b"\n", 0, size)


def _nothing(requests: int) -> Iterator[Argv]:
    return iter(())


def _fill_strings() -> Iterator[Argv]:
    return (["SET", STRING_PREFIX + number(i), VALUE] for i in range(KEYSPACE))


def _fill_counters() -> Iterator[Argv]:
    return (["SET", COUNTER_PREFIX + number(i), "0"] for i in range(KEYSPACE))


def _fill_set() -> Iterator[Argv]:
    return (["SADD", SET_KEY, "member:" + number(i)] for i in range(KEYSPACE))


def _fill_range() -> Iterator[Argv]:
    yield ["DEL", RANGE_KEY]
    yield ["RPUSH", RANGE_KEY, *[VALUE] * LIST_RANGE]


def _fill_hash() -> Iterator[Argv]:
    return (["HSET", HASH_KEY, "field:" + number(i), VALUE] for i in range(KEYSPACE))


def _fill_zset() -> Iterator[Argv]:
    return (["ZADD", ZSET_KEY, number(i), "member:" + number(i)] for i in range(KEYSPACE))


def _no_fill() -> Iterator[Argv]:
    return iter(())


def _empty_list(requests: int) -> Iterator[Argv]:
    yield ["DEL", LIST_KEY]


def _fill_list(requests: int) -> Iterator[Argv]:
    """A list with an element for each of ``requests`` pops, so that no pop meets an empty list."""
    yield ["DEL", LIST_KEY]
    for start in range(0, requests, PUSH_AT_ONCE):
        yield ["RPUSH", LIST_KEY, *[VALUE] * min(PUSH_AT_ONCE, requests - start)]


@attrs.frozen
class Workload:
    """One row of the table.

    ``arguments`` is the command with :data:`RANDOM` where a number goes; ``line_ends`` is how many line ends one
    reply has; ``fill`` yields the commands that run once before the first measurement, ``before`` those that run
    before every measurement of so many requests. Keys that any of these touch begin with ``bench:``.
    """

    name: str
    arguments: tuple[str, ...]
    line_ends: int
    fill: Callable[[], Iterator[Argv]] = _no_fill
    before: Callable[[int], Iterator[Argv]] = _nothing


WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        Workload("GET", ("GET", STRING_PREFIX + RANDOM), 2, fill=_fill_strings),
        Workload("SET", ("SET", STRING_PREFIX + RANDOM, VALUE), 1, fill=_fill_strings),
        Workload("INCR", ("INCR", COUNTER_PREFIX + RANDOM), 1, fill=_fill_counters),
        Workload("HSET", ("HSET", HASH_KEY, "field:" + RANDOM, VALUE), 1, fill=_fill_hash),
        Workload("LPUSH", ("LPUSH", LIST_KEY, VALUE), 1, before=_empty_list),
        Workload("SADD", ("SADD", SET_KEY, "member:" + RANDOM), 1, fill=_fill_set),
        Workload("ZADD", ("ZADD", ZSET_KEY, RANDOM, "member:" + RANDOM), 1, fill=_fill_zset),
        Workload("MGET", ("MGET", *[STRING_PREFIX + RANDOM] * MGET_KEYS), 1 + 2 * MGET_KEYS, fill=_fill_strings),
        Workload("LRANGE", ("LRANGE", RANGE_KEY, "0", str(LIST_RANGE - 1)), 1 + 2 * LIST_RANGE, fill=_fill_range),
        Workload("LPOP", ("LPOP", LIST_KEY), 2, before=_fill_list),
    )
}

USUAL: tuple[str, ...] = tuple(name for name in WORKLOADS if name != "LPOP")
"""The commands that are compared unless others are named: LPOP is as LPUSH, and filling its list takes long."""


def clean_up() -> Iterator[Argv]:
    """Commands that delete every key any workload makes, and no other."""
    yield ["DEL", LIST_KEY, RANGE_KEY, HASH_KEY, SET_KEY, ZSET_KEY]
    for prefix in (STRING_PREFIX, COUNTER_PREFIX):
        for start in range(0, KEYSPACE, DELETE_AT_ONCE):
            stop = min(start + DELETE_AT_ONCE, KEYSPACE)
            yield ["DEL", *[prefix + number(i) for i in range(start, stop)]]
