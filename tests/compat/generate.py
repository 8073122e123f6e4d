"""Hypothesis strategies for commands over a small key space, whose replies do not depend on time or chance.

Deadlines are absolute, long past or far ahead, or so far from now that the answers stay near each other. Random pops
take everything. Scores are multiples of a half, so that the order of additions cannot show.
"""

from __future__ import annotations

from typing import Final

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

#: A part of a command: a word as it is, or a strategy for a word or for several.
Part = bytes | SearchStrategy[bytes] | SearchStrategy[tuple[bytes, ...]]
Command = tuple[bytes, ...]

_FAR: Final = (b"33177117420", b"33177117430", b"33177117440")
_FAR_MS: Final = (b"33177117420123", b"33177117430123", b"33177117440123")


def command(*parts: Part) -> SearchStrategy[Command]:
    """The strategy for a command made of these parts."""

    def flatten(drawn: tuple[bytes | tuple[bytes, ...], ...]) -> Command:
        return tuple(word for part in drawn for word in (part if isinstance(part, tuple) else (part,)))

    return st.tuples(*(st.just(part) if isinstance(part, bytes) else part for part in parts)).map(flatten)


def pick(text: str) -> SearchStrategy[bytes]:
    """One of the words of the text."""
    return st.sampled_from([word.encode() for word in text.split()])


def maybe(*parts: Part) -> SearchStrategy[tuple[bytes, ...]]:
    """The parts, or nothing."""
    return st.one_of(st.just(()), command(*parts))


def some(*parts: Part, least: int = 1, most: int = 4) -> SearchStrategy[tuple[bytes, ...]]:
    """The parts several times over."""
    return st.lists(command(*parts), min_size=least, max_size=most).map(
        lambda found: tuple(w for c in found for w in c)
    )


def counted(part: Part, most: int = 2) -> SearchStrategy[tuple[bytes, ...]]:
    """The number of parts, then the parts."""
    return some(part, most=most).map(lambda found: (b"%d" % len(found), *found))


def keys(own: str) -> SearchStrategy[bytes]:
    """Mostly keys of one type, at times any key."""
    names = [name.encode() for name in own.split()]
    return st.sampled_from([*names * 6, b"s1", b"h1", b"l1", b"e1", b"z1", b"k"])


S, H, L, E, Z = keys("s1 s2 s3"), keys("h1 h2"), keys("l1 l2 l3"), keys("e1 e2 e3"), keys("z1 z2 z3")
#: Sorted sets whose scores are all equal: a range by lex means nothing on others, not even twice the same.
Y = pick("y1 y2")
ANY = pick("s1 s2 h1 h2 l1 l2 e1 e2 z1 z2 k")
WORD = st.sampled_from([b"", b"a", b"b", b"ab", b"10", b"-3", b"1.5", b"\x00\xff", b"hello world", b"x" * 70])
MEMBER = st.sampled_from([b"a", b"b", b"c", b"d", b"1", b"2", b"3", b"", b"\xff", b"m" * 70])
NUMBER = pick("0 1 -1 2 -2 5 100 -100 9223372036854775807 -9223372036854775808 abc 1.5")
INDEX = pick("0 0 1 -1 2 -2 3 -3 10 -10 x")
COUNT = pick("1 1 2 3 100 0 -1")
SCORE = pick("0 1 1 2 2.5 -1 -0.5 100 1e3 x")
OFFSET = pick("0 1 7 8 15 20 100 -1")
FLOAT = pick("0.5 1 -2.25 1e2 0 x")
SIDE = pick("LEFT RIGHT")
FAR = st.sampled_from(_FAR)
FAR_MS = st.sampled_from(_FAR_MS)
WHEN = st.one_of(FAR, FAR, st.just(b"1"))
WHEN_MS = st.one_of(FAR_MS, FAR_MS, st.just(b"1"))
DEADLINE = st.one_of(
    command(b"EXAT", WHEN), command(b"PXAT", WHEN_MS), command(b"EX", pick("100000 0 x")), command(b"PX", b"100000000")
)
BORDER = pick("0 1 2 (1 (2 -inf +inf -1 100 x")
LEX = pick("- + [a [b (b [c (d x")
BIT_TYPE = pick("u1 u8 i8 i5 u16 i64 u63 u64")
FIELDS = counted(MEMBER, most=3).map(lambda found: (b"FIELDS", *found))

STRINGS = st.one_of(
    command(b"SET", S, WORD, maybe(pick("NX XX")), maybe(b"GET"), maybe(st.one_of(DEADLINE, command(b"KEEPTTL")))),
    command(b"SET", S, WORD, b"IFEQ", WORD, maybe(b"GET")),
    command(pick("GET STRLEN GETDEL INCR DECR"), S),
    command(b"GETEX", S, maybe(st.one_of(DEADLINE, command(b"PERSIST")))),
    command(pick("GETSET APPEND SETNX DELIFEQ"), S, WORD),
    command(b"SETEX", S, b"100000", WORD),
    command(pick("INCRBY DECRBY"), S, NUMBER),
    command(b"INCRBYFLOAT", S, FLOAT),
    command(pick("GETRANGE SUBSTR"), S, INDEX, INDEX),
    command(b"SETRANGE", S, pick("0 1 5 50 -1"), WORD),
    command(b"MGET", some(S)),
    command(pick("MSET MSETNX"), some(S, WORD)),
    command(
        b"MSETEX",
        st.lists(st.tuples(S, WORD), min_size=1, max_size=3).map(
            lambda pairs: (b"%d" % len(pairs), *(word for pair in pairs for word in pair))
        ),
        maybe(pick("NX XX")),
        maybe(DEADLINE),
    ),
    command(b"LCS", S, S, maybe(pick("LEN IDX"))),
)

BITMAPS = st.one_of(
    command(b"SETBIT", S, OFFSET, pick("0 1 1 2")),
    command(b"GETBIT", S, OFFSET),
    command(b"BITCOUNT", S, maybe(INDEX, INDEX, maybe(pick("BYTE BIT")))),
    command(b"BITPOS", S, pick("0 1"), maybe(INDEX, maybe(INDEX, maybe(pick("BYTE BIT"))))),
    command(b"BITOP", pick("AND OR XOR NOT DIFF DIFF1 ANDOR ONE"), S, some(S, most=3)),
    command(
        b"BITFIELD",
        S,
        some(
            st.one_of(
                command(b"GET", BIT_TYPE, OFFSET),
                command(b"SET", BIT_TYPE, OFFSET, NUMBER),
                command(b"INCRBY", BIT_TYPE, OFFSET, NUMBER),
                command(b"OVERFLOW", pick("WRAP SAT FAIL")),
            )
        ),
    ),
    command(b"BITFIELD_RO", S, some(b"GET", BIT_TYPE, OFFSET)),
)

GENERIC = st.one_of(
    command(pick("TYPE TTL PTTL EXPIRETIME PEXPIRETIME PERSIST"), ANY),
    command(pick("DEL UNLINK EXISTS TOUCH"), some(ANY)),
    command(pick("RENAME RENAMENX"), ANY, ANY),
    command(b"COPY", ANY, ANY, maybe(b"REPLACE")),
    command(pick("EXPIRE"), ANY, pick("100000 -1 0 x")),
    command(b"EXPIREAT", ANY, WHEN, maybe(pick("NX XX GT LT"))),
    command(b"PEXPIREAT", ANY, WHEN_MS, maybe(pick("NX XX GT LT"))),
    command(b"KEYS", pick("* s* ?1 [hl]* nothing")),
    command(b"SCAN", b"0", b"COUNT", b"1000", maybe(b"MATCH", pick("* *1")), maybe(b"TYPE", pick("string hash list"))),
    command(b"SORT", L, maybe(b"ALPHA"), maybe(b"DESC"), maybe(b"LIMIT", INDEX, INDEX), maybe(b"STORE", L)),
    command(b"SORT", st.one_of(L, E, Z), b"ALPHA", b"GET", b"#", b"GET", pick("s* h1->*")),
)

HASHES = st.one_of(
    command(pick("HSET HMSET"), H, some(MEMBER, WORD)),
    command(b"HSETNX", H, MEMBER, WORD),
    command(pick("HGET HEXISTS HSTRLEN"), H, MEMBER),
    command(pick("HMGET HDEL"), H, some(MEMBER)),
    command(pick("HGETALL HKEYS HVALS HLEN"), H),
    command(b"HINCRBY", H, MEMBER, NUMBER),
    command(b"HINCRBYFLOAT", H, MEMBER, FLOAT),
    command(b"HSCAN", H, b"0", b"COUNT", b"1000", maybe(b"NOVALUES")),
    command(b"HRANDFIELD", H, maybe(COUNT, maybe(b"WITHVALUES"))),
    command(b"HEXPIREAT", H, WHEN, maybe(pick("NX XX GT LT")), FIELDS),
    command(b"HPEXPIREAT", H, WHEN_MS, maybe(pick("NX XX GT LT")), FIELDS),
    command(b"HEXPIRE", H, pick("100000 0 x"), FIELDS),
    command(pick("HTTL HPTTL HEXPIRETIME HPEXPIRETIME HPERSIST HGETDEL"), H, FIELDS),
    command(b"HGETEX", H, maybe(st.one_of(DEADLINE, command(b"PERSIST"))), FIELDS),
    command(
        b"HSETEX",
        H,
        maybe(pick("FNX FXX NX XX")),
        maybe(st.one_of(DEADLINE, command(b"KEEPTTL"))),
        st.lists(st.tuples(MEMBER, WORD), min_size=1, max_size=3).map(
            lambda pairs: (b"FIELDS", b"%d" % len(pairs), *(word for pair in pairs for word in pair))
        ),
    ),
)

LISTS = st.one_of(
    command(pick("LPUSH RPUSH LPUSHX RPUSHX"), L, some(WORD)),
    command(pick("LPOP RPOP"), L, maybe(COUNT)),
    command(b"LRANGE", L, INDEX, INDEX),
    command(b"LTRIM", L, INDEX, INDEX),
    command(b"LINDEX", L, INDEX),
    command(b"LLEN", L),
    command(b"LSET", L, INDEX, WORD),
    command(b"LREM", L, INDEX, WORD),
    command(b"LINSERT", L, pick("BEFORE AFTER"), WORD, WORD),
    command(b"LPOS", L, WORD, maybe(b"RANK", INDEX), maybe(b"COUNT", COUNT), maybe(b"MAXLEN", COUNT)),
    command(b"LMOVE", L, L, SIDE, SIDE),
    command(b"RPOPLPUSH", L, L),
    command(b"LMPOP", counted(L), SIDE, maybe(b"COUNT", COUNT)),
)

SETS = st.one_of(
    command(pick("SADD SREM SMISMEMBER"), E, some(MEMBER)),
    command(pick("SMEMBERS SCARD"), E),
    command(b"SISMEMBER", E, MEMBER),
    command(b"SMOVE", E, E, MEMBER),
    command(b"SPOP", E, pick("0 100 -1 x")),
    command(b"SRANDMEMBER", E, maybe(COUNT)),
    command(pick("SINTER SUNION SDIFF"), some(E, most=3)),
    command(pick("SINTERSTORE SUNIONSTORE SDIFFSTORE"), E, some(E, most=3)),
    command(b"SINTERCARD", counted(E), maybe(b"LIMIT", COUNT)),
    command(b"SSCAN", E, b"0", b"COUNT", b"1000"),
)

_SOURCES = counted(st.one_of(Z, Z, Z, E))
_LIMIT = maybe(b"LIMIT", INDEX, INDEX)
_AGGREGATE = maybe(b"AGGREGATE", pick("SUM MIN MAX"))
SORTED_SETS = st.one_of(
    command(b"ZADD", Z, maybe(pick("NX XX")), maybe(pick("GT LT")), maybe(b"CH"), some(SCORE, MEMBER)),
    command(b"ZADD", Z, maybe(pick("NX XX GT LT")), b"INCR", SCORE, MEMBER),
    command(b"ZINCRBY", Z, SCORE, MEMBER),
    command(pick("ZREM ZMSCORE"), Z, some(MEMBER)),
    command(b"ZSCORE", Z, MEMBER),
    command(pick("ZRANK ZREVRANK"), Z, MEMBER, maybe(b"WITHSCORE")),
    command(b"ZCARD", Z),
    command(pick("ZCOUNT ZREMRANGEBYSCORE"), Z, BORDER, BORDER),
    command(b"ZADD", Y, maybe(pick("NX XX")), some(b"0", MEMBER)),
    command(pick("ZLEXCOUNT ZREMRANGEBYLEX ZRANGEBYLEX ZREVRANGEBYLEX"), Y, LEX, LEX),
    command(b"ZREMRANGEBYRANK", Z, INDEX, INDEX),
    command(b"ZRANGE", Z, INDEX, INDEX, maybe(b"REV"), maybe(b"WITHSCORES")),
    command(b"ZRANGE", Z, BORDER, BORDER, b"BYSCORE", maybe(b"REV"), _LIMIT, maybe(b"WITHSCORES")),
    command(b"ZRANGE", Y, LEX, LEX, b"BYLEX", maybe(b"REV"), _LIMIT),
    command(b"ZRANGESTORE", Z, Z, BORDER, BORDER, b"BYSCORE", maybe(b"REV"), _LIMIT),
    command(b"ZREVRANGE", Z, INDEX, INDEX, maybe(b"WITHSCORES")),
    command(pick("ZRANGEBYSCORE ZREVRANGEBYSCORE"), Z, BORDER, BORDER, maybe(b"WITHSCORES")),
    command(pick("ZPOPMIN ZPOPMAX"), Z, maybe(COUNT)),
    command(b"ZMPOP", counted(Z), pick("MIN MAX"), maybe(b"COUNT", COUNT)),
    command(pick("ZUNION ZINTER"), _SOURCES, _AGGREGATE, maybe(b"WITHSCORES")),
    command(b"ZDIFF", _SOURCES, maybe(b"WITHSCORES")),
    command(pick("ZUNIONSTORE ZINTERSTORE"), Z, b"2", Z, st.one_of(Z, E), maybe(b"WEIGHTS", SCORE, SCORE), _AGGREGATE),
    command(b"ZDIFFSTORE", Z, _SOURCES),
    command(b"ZINTERCARD", _SOURCES, maybe(b"LIMIT", COUNT)),
    command(b"ZRANDMEMBER", Z, maybe(COUNT, maybe(b"WITHSCORES"))),
    command(b"ZSCAN", Z, b"0", b"COUNT", b"1000"),
)

#: Family -> strategy for its commands. Deferred, because Hypothesis would print all of it in its messages otherwise.
FAMILIES: Final[dict[str, SearchStrategy[Command]]] = {
    "strings": st.deferred(lambda: STRINGS),
    "bitmaps": st.deferred(lambda: BITMAPS),
    "generic": st.deferred(lambda: GENERIC),
    "hashes": st.deferred(lambda: HASHES),
    "lists": st.deferred(lambda: LISTS),
    "sets": st.deferred(lambda: SETS),
    "sorted_sets": st.deferred(lambda: SORTED_SETS),
}

#: Any command of any family.
ANYTHING: Final[SearchStrategy[Command]] = st.deferred(lambda: st.one_of(*FAMILIES.values()))
