"""One or more command lines for every command that writes: for tests that must not miss one.

``{w}`` and ``{v}`` stand for keys that are written, ``{r}`` and ``{q}`` for keys that are only read. Each line changes
something where all four hold a value of the type that stands before it: ``string``, ``hash``, ``list``, ``set`` or
``sorted-set``, as :data:`VALUES` makes them; ``none``: where they hold nothing.
"""

from __future__ import annotations

from typing import Final

__all__ = ["LINES", "VALUES", "WHOLE", "fill"]

#: What makes a value of a type: the command and what stands behind the key.
VALUES: Final[dict[str, tuple[str, ...]]] = {
    "string": ("SET", "10"),
    "hash": ("HSET", "f", "1", "g", "2"),
    "list": ("RPUSH", "a", "b", "c"),
    "set": ("SADD", "a", "b", "c"),
    "sorted-set": ("ZADD", "1", "a", "2", "b", "3", "c"),
}

#: Commands that write whatever there is, and one that writes nothing.
WHOLE: Final = frozenset(("flushall", "flushdb", "swapdb"))

LINES: Final[tuple[tuple[str, str], ...]] = tuple(
    (kind, line.strip())
    for kind, lines in {
        "string": """
            SETBIT {w} 6 1
            BITOP AND {w} {r} {q}
            BITOP NOT {w} {r}
            BITFIELD {w} SET u8 0 7
            EXPIRE {w} 100
            PEXPIRE {w} 100000
            EXPIREAT {w} 33177117420
            EXPIREAT {w} 1
            PEXPIREAT {w} 33177117420123
            DEL {w}
            DEL {w} {v}
            UNLINK {w} {v}
            RENAME {w} {v}
            COPY {r} {w} REPLACE
            SET {w} 1
            SET {w} 1 XX GET EX 100
            SETEX {w} 10 v
            PSETEX {w} 10000 v
            GETSET {w} v
            GETDEL {w}
            DELIFEQ {w} 10
            GETEX {w} EX 100
            MSET {w} 1 {v} 2
            MSETEX 2 {w} 1 {v} 2 EX 100
            INCR {w}
            DECR {w}
            INCRBY {w} 2
            DECRBY {w} 2
            INCRBYFLOAT {w} 0.5
            APPEND {w} x
            SETRANGE {w} 1 x
        """,
        "none": """
            SETNX {w} v
            MSETNX {w} 1 {v} 2
        """,
        "hash": """
            HEXPIRE {w} 100 FIELDS 1 f
            HPEXPIRE {w} 100000 FIELDS 1 f
            HEXPIREAT {w} 33177117420 FIELDS 1 f
            HPEXPIREAT {w} 33177117420123 FIELDS 1 f
            HGETDEL {w} FIELDS 1 f
            HGETEX {w} EX 100 FIELDS 1 f
            HSETEX {w} EX 100 FIELDS 1 f 2
            HSET {w} f 2
            HMSET {w} f 2
            HSETNX {w} h 2
            HINCRBY {w} f 2
            HINCRBYFLOAT {w} f 0.5
            HDEL {w} f
        """,
        "list": """
            LPUSH {w} x
            RPUSH {w} x
            LPUSHX {w} x
            RPUSHX {w} x
            LPOP {w}
            RPOP {w} 2
            LMPOP 2 {w} {v} LEFT
            LMOVE {w} {v} LEFT RIGHT
            RPOPLPUSH {w} {v}
            LSET {w} 0 x
            LINSERT {w} BEFORE a x
            LREM {w} 0 a
            LTRIM {w} 1 1
            BLPOP {w} {v} 0
            BRPOP {w} 0
            BLMPOP 0 2 {w} {v} RIGHT
            BLMOVE {w} {v} LEFT LEFT 0
            BRPOPLPUSH {w} {v} 0
            SORT {r} ALPHA STORE {w}
            SORT {r} BY nosort GET # store {q} STORE {w}
        """,
        "set": """
            SADD {w} x
            SREM {w} a
            SMOVE {w} {v} a
            SPOP {w}
            SINTERSTORE {w} {r} {q}
            SUNIONSTORE {w} {r} {q}
            SDIFFSTORE {w} {r} {q}
        """,
        "sorted-set": """
            ZINTERSTORE {w} 2 {r} {q}
            ZUNIONSTORE {w} 2 {r} {q} WEIGHTS 1 2
            ZDIFFSTORE {w} 1 {r}
            ZPOPMIN {w}
            ZPOPMAX {w} 2
            ZMPOP 2 {w} {v} MIN
            BZMPOP 0 2 {w} {v} MAX
            BZPOPMIN {w} {v} 0
            BZPOPMAX {w} 0
            ZRANGESTORE {w} {r} 0 -1
            ZREMRANGEBYRANK {w} 0 0
            ZREMRANGEBYSCORE {w} 1 2
            ZREMRANGEBYLEX {w} - +
            ZADD {w} 9 x
            ZINCRBY {w} 1 a
            ZREM {w} a
        """,
        # These change something only where there is a deadline or no key of the new name, and MOVE nothing at all.
        "other": """
            PERSIST {w}
            HPERSIST {w} FIELDS 1 f
            RENAMENX {w} {v}
            MOVE {w} 0
        """,
    }.items()
    for line in lines.strip().splitlines()
)


def fill(line: str, **keys: str) -> list[str]:
    """The words of a line with ``w``, ``v``, ``r`` and ``q`` in their places."""
    return [word.format(**keys) for word in line.split()]
