"""What the twins are fed with: words and requests, plain and odd, and commands of all kinds."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from support.session_harness import request
from support.store_harness import content

from kevynode.store.store import Store

words = st.one_of(
    st.sampled_from([b"", b"GET", b"set", b"k", b"\r\n", b"$1\r\nx", b"a" * 17, b"v" * 5000, b"\x00\xff"]),
    st.binary(max_size=20),
)
plain_requests = st.lists(words, min_size=1, max_size=5).map(lambda argv: request(*argv))
odd_requests = st.one_of(
    st.sampled_from(
        [
            b"PING\r\n",
            b"*0\r\n",
            b"*-1\r\n",
            b"*01\r\n$1\r\nx\r\n",
            b"*1\r\n$01\r\nx\r\n",
            b"*1\r\n$-1\r\n",
            b"*1\r\n$1\r\nxy\r\n",
            b"*1\r\n$5\r\nhello\n\n",
            b"*1\n$1\r\nx\r\n",
            b"*1\r\n+x\r\n",
            b"*1\r\n$99999999999999999999\r\n",
            b"*99999999999\r\n",
            b"*1025\r\n",
            b'SET k "a b"\r\n',
            b'"open\r\n',
            b"\r\n",
        ]
    ),
    st.binary(max_size=12),
)

keys = st.sampled_from([b"a", b"b", b"c", b"", b"\x00\r\n"])
values = st.one_of(
    st.sampled_from([b"", b"0", b"9", b"10", b"-1", b"007", b"99999999999999999", b"9223372036854775807", b"x" * 70]),
    st.binary(max_size=6),
)
scores = st.one_of(
    st.sampled_from([b"0", b"-0", b"1", b"1.5", b"-2.25", b"000012", b"1e3", b"inf", b"nan", b".5", b"5.", b"-", b"."]),
    st.integers(-(10**17), 10**17).map(lambda number: b"%d" % number),
    st.decimals(-1000, 1000, places=3, allow_nan=False).map(lambda number: str(number).encode()),
)
indexes = st.sampled_from([b"0", b"1", b"2", b"-1", b"00", b"99", b"x", b"1000000000000"])
hot_commands = st.one_of(
    st.tuples(st.just(b"GET"), keys),
    st.tuples(st.just(b"SET"), keys, values),
    st.tuples(st.just(b"SET"), keys, values, st.sampled_from([b"NX", b"XX", b"GET", b"KEEPTTL", b"nonsense"])),
    st.tuples(st.just(b"INCR"), keys),
    st.tuples(st.just(b"MGET"), keys, keys, keys),
    st.tuples(st.just(b"HSET"), keys, values, values),
    st.tuples(st.just(b"HSET"), keys, values, values, values, values),
    st.tuples(st.just(b"HSET"), keys, values, values, values),
    st.tuples(st.sampled_from([b"LPUSH", b"RPUSH", b"SADD"]), keys, values),
    st.tuples(st.sampled_from([b"LPUSH", b"RPUSH", b"SADD"]), keys, values, values),
    st.tuples(st.just(b"LRANGE"), keys, indexes, indexes),
    st.tuples(st.just(b"ZADD"), keys, scores, values),
    st.tuples(st.just(b"ZADD"), keys, st.sampled_from([b"NX", b"GT", b"CH"]), scores, values),
)
other_commands = st.one_of(
    st.tuples(st.just(b"DEL"), keys),
    st.tuples(st.just(b"PEXPIRE"), keys, st.sampled_from([b"1", b"50", b"100000"])),
    st.tuples(st.just(b"PERSIST"), keys),
    st.tuples(
        st.just(b"HPEXPIRE"),
        keys,
        st.sampled_from([b"1", b"100"]),
        st.just(b"FIELDS"),
        st.just(b"1"),
        values,
    ),
    st.tuples(st.just(b"RENAME"), keys, keys),
)


def state_of(store: Store) -> Any:
    """All that a store holds and counts."""
    return content(store), store.used, store.hits, store.misses, store.expired_keys, store.journal.offset
