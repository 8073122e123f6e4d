"""Dump files that a real valkey-server has written, in every form it has for a value, read back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, Final

import pytest
from compat.filled import Content, Filled, shown
from support.valkey_server import ValkeyServer

from kevynode.rdb import RdbError, RdbReader, read_dump
from kevynode.store.values import Value

#: Numbers at the edges of every width a listpack or an intset has for them.
NUMBERS: Final = sorted(
    {sign * ((1 << bits) + shift) for bits in (0, 3, 7, 12, 15, 23, 31) for shift in (-1, 0, 1) for sign in (1, -1)}
    | {2**63 - 1, -(2**63)}
)
TEXTS: Final = [
    b"",
    b"x",
    b"007",
    b"1e5",
    b"y" * 63,
    b"z" * 64,
    bytes(range(256)),
    b"w" * 4095,
    b"v" * 4096,
    b"u" * 70000,
]
ELEMENTS: Final = [b"%d" % number for number in NUMBERS] + TEXTS

#: Names of settings and how much each form takes: everything small and packed, as it is by default, nothing packed.
FORMS: Final = {
    "default": {},
    "packed": {
        "hash-max-listpack-entries": 100000,
        "hash-max-listpack-value": 100000,
        "set-max-listpack-entries": 100000,
        "set-max-listpack-value": 100000,
        "set-max-intset-entries": 100000,
        "zset-max-listpack-entries": 100000,
        "zset-max-listpack-value": 100000,
        "list-max-listpack-size": 100000,
    },
    "plain": {
        "hash-max-listpack-entries": 0,
        "set-max-listpack-entries": 0,
        "set-max-intset-entries": 0,
        "zset-max-listpack-entries": 0,
        "list-max-listpack-size": 1,
    },
}
DEFAULTS: Final = {
    "hash-max-listpack-entries": 512,
    "hash-max-listpack-value": 64,
    "set-max-listpack-entries": 128,
    "set-max-listpack-value": 64,
    "set-max-intset-entries": 512,
    "zset-max-listpack-entries": 128,
    "zset-max-listpack-value": 64,
    "list-max-listpack-size": -2,
}
FUTURE: Final = 4_000_000_000_000


def read(data: bytes, piece: int = 65536, **options: Any) -> tuple[Content, RdbReader]:
    found: Content = {}

    def put(key: bytes, value: Value, deadline: int | None) -> None:
        found[key] = shown(value), deadline

    reader = RdbReader(put, **options)
    for place in range(0, len(data), piece):
        reader.feed(data[place : place + piece])
    reader.finish()
    assert reader.surplus == 0
    return found, reader


@pytest.fixture(scope="module")
def running() -> Iterator[Filled]:
    with (
        ValkeyServer("--enable-debug-command", "yes", "--maxmemory-policy", "noeviction") as server,
        Filled(server) as filled,
    ):
        yield filled


@pytest.fixture
def filled(running: Filled) -> Filled:
    """An empty server with its default settings."""
    running.call("SELECT", 0)
    running.call("FLUSHALL")
    running.call("FUNCTION", "FLUSH")
    running.configure(DEFAULTS)
    running.call("CONFIG", "SET", "rdbcompression", "yes")
    running.call("CONFIG", "SET", "maxmemory-policy", "noeviction")
    return running


def fill(server: Filled) -> None:
    """Containers of every type, small and large, with elements of all widths."""
    call = server.call
    for number, text in enumerate(ELEMENTS):
        call("SET", b"string:%d" % number, text)
    call("SET", "deadline", "x", "PXAT", FUTURE)
    call("SADD", "numbers:16", *(number for number in NUMBERS if abs(number) < 2**15))
    call("SADD", "numbers:32", *(number for number in NUMBERS if abs(number) < 2**31))
    call("SADD", "numbers:64", *NUMBERS)
    for name, elements in (("small", ELEMENTS[:10]), ("mixed", ELEMENTS), ("texts", [b"t%d" % n for n in range(3000)])):
        call("RPUSH", f"list:{name}", *elements, *elements)
        call("SADD", f"set:{name}", *elements)
        call("HSET", f"hash:{name}", *(word for element in elements for word in (element, element[::-1])))
        scores = [word for number, element in enumerate(elements) for word in (number * 0.37 - 5, element)]
        call("ZADD", f"zset:{name}", *scores)
    call(
        "ZADD",
        "zset:edges",
        "-inf",
        "a",
        "+inf",
        "b",
        "-0.0",
        "c",
        "1e300",
        "d",
        "5e-324",
        "e",
        "9007199254740993",
        "f",
    )
    call("HPEXPIREAT", "hash:small", FUTURE, "FIELDS", 2, *ELEMENTS[:2])
    call("HPEXPIREAT", "hash:texts", FUTURE + 1, "FIELDS", 3, "t0", "t1500", "t2999")
    call("PEXPIREAT", "hash:texts", FUTURE + 2)


@pytest.mark.parametrize("compression", ["yes", "no"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_value(filled: Filled, form: str, compression: str) -> None:
    filled.configure(FORMS[form])
    filled.call("CONFIG", "SET", "rdbcompression", compression)
    fill(filled)
    names = ("hash:mixed", "set:mixed", "numbers:64", "zset:mixed", "list:texts")
    encodings = [filled.call("OBJECT", "ENCODING", name) for name in names]
    assert (
        encodings
        == {
            "default": [b"hashtable", b"hashtable", b"intset", b"skiplist", b"quicklist"],
            "packed": [b"listpack", b"listpack", b"intset", b"listpack", b"quicklist"],
            "plain": [b"hashtable", b"hashtable", b"hashtable", b"skiplist", b"quicklist"],
        }[form]
    )
    expected = filled.content()
    data = filled.saved()
    found, reader = read(data)
    assert found == expected
    assert (reader.is_valkey, reader.version, reader.verified) == (True, 80, True)
    assert reader.aux[b"valkey-ver"].startswith(b"9.")
    assert reader.databases == {0: len(expected)}
    for piece in (1009, 8191):
        assert read(data, piece)[0] == expected
    for key, (value, _) in expected.items():
        dumped = read_dump(filled.call("DUMP", key))
        assert dumped is not None
        assert shown(dumped) == value


def test_byte_by_byte(filled: Filled) -> None:
    filled.call("SET", "a", b"ab" * 40)
    filled.call("SET", "b", 12345, "PXAT", FUTURE)
    filled.call("HSET", "h", "f", "v", "g", "w")
    filled.call("HPEXPIREAT", "h", FUTURE, "FIELDS", 1, "f")
    filled.call("RPUSH", "l", *ELEMENTS[:20])
    filled.call("XADD", "s", "5-1", "f", "v")
    filled.call("XGROUP", "CREATE", "s", "g", 0)
    filled.call("XREADGROUP", "GROUP", "g", "c", "STREAMS", "s", ">")
    assert read(filled.saved(), 1)[0] == filled.content()


def test_compressed_texts(filled: Filled) -> None:
    chance = random.Random(20)
    filled.call("SET", "run", b"a" * 1_000_000)
    filled.call("SET", "pattern", b"abcdefg" * 200_000)
    filled.call("SET", "far", chance.randbytes(8000) * 30)
    filled.call("SET", "words", b" ".join(chance.choice(ELEMENTS[:40]) for _ in range(200_000)))
    filled.call("RPUSH", "list", *(b"element" * chance.randrange(1, 300) for _ in range(300)))
    data = filled.saved()
    assert len(data) < 1_500_000
    expected = filled.content()
    assert read(data)[0] == expected
    assert read(data, 777)[0] == expected


def test_streams(filled: Filled) -> None:
    filled.call("CONFIG", "SET", "stream-node-max-entries", 10)
    chance = random.Random(21)
    for number in range(1, 200):
        fields = [b"same", b"%d" % number, b"other", b"v"]
        if chance.random() < 0.3:
            fields = [word for name in range(chance.randrange(1, 4)) for word in (b"f%d" % name, chance.randbytes(9))]
        filled.call("XADD", "s", f"{number // 3 * 1000}-{number + 5}", *fields)
    for number in range(1, 200, 7):
        filled.call("XDEL", "s", f"{number // 3 * 1000}-{number + 5}")
    filled.call("XTRIM", "s", "MAXLEN", "=", 150)
    for group in ("g", "h"):
        filled.call("XGROUP", "CREATE", "s", group, "0", "ENTRIESREAD", 3)
        filled.call("XGROUP", "CREATECONSUMER", "s", group, "idle")
        filled.call("XREADGROUP", "GROUP", group, "alice", "COUNT", 20, "STREAMS", "s", ">")
        filled.call("XREADGROUP", "GROUP", group, "bob", "COUNT", 5, "STREAMS", "s", ">")
    filled.call("XACK", "s", "g", "9000-33", "9000-34")
    filled.call("XADD", "empty", "7-7", "f", "v")
    filled.call("XTRIM", "empty", "MAXLEN", 0)
    filled.call("XADD", "high", f"{2**64 - 2}-{2**64 - 1}", "f", "v")
    filled.call("XADD", "high", f"{2**64 - 1}-0", "f", "v")
    filled.call("CONFIG", "SET", "stream-node-max-entries", 100)
    filled.call("XADD", "wide", "1-1", *(word for n in range(600) for word in (b"f%d" % n, b"v")))
    expected = filled.content()
    data = filled.saved()
    assert read(data)[0] == expected
    assert read(data, 97)[0] == expected
    payload = read_dump(filled.call("DUMP", "s"))
    assert payload is not None
    assert shown(payload) == expected[b"s"][0]


def test_what_has_expired_is_left_out(filled: Filled) -> None:
    filled.call("DEBUG", "SET-ACTIVE-EXPIRE", 0)
    filled.call("SET", "gone", "x", "PXAT", FUTURE)
    filled.call("SET", "stays", "x", "PXAT", FUTURE + 1)
    filled.call("HSET", "h", "gone", 1, "stays", 2, "plain", 3)
    filled.call("HPEXPIREAT", "h", FUTURE, "FIELDS", 1, "gone")
    filled.call("HPEXPIREAT", "h", FUTURE + 1, "FIELDS", 1, "stays")
    filled.call("HSET", "empties", "gone", 1)
    filled.call("HPEXPIREAT", "empties", FUTURE, "FIELDS", 1, "gone")
    data = filled.saved()
    assert read(data, now_ms=FUTURE)[0] == filled.content()
    found, reader = read(data, now_ms=FUTURE + 1)
    assert found == {
        b"stays": (b"x", FUTURE + 1),
        b"h": (("hash", {b"stays": b"2", b"plain": b"3"}, {b"stays": FUTURE + 1}), None),
    }
    assert (reader.expired_keys, reader.expired_fields, reader.keys) == (2, 2, 2)


def test_databases(filled: Filled) -> None:
    filled.call("SELECT", 9)
    filled.call("SET", "nine", 9)
    data = filled.saved()
    found, reader = read(data)
    assert found == {b"nine": (b"9", None)}
    assert reader.databases == {9: 1}
    assert read(data, database=0)[0] == {}
    filled.call("SELECT", 3)
    filled.call("SET", "three", 3)
    filled.call("SET", "drei", 3)
    data = filled.saved()
    filled.call("SELECT", 0)
    with pytest.raises(RdbError, match="databases 3 and 9 both hold keys: choose one"):
        read(data)
    found, reader = read(data, database=9)
    assert found == {b"nine": (b"9", None)}
    assert (reader.databases, reader.skipped_keys) == ({9: 1}, 2)


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu"])
def test_hints_about_the_use_of_keys_and_functions_are_skipped(filled: Filled, policy: str) -> None:
    filled.call("CONFIG", "SET", "maxmemory-policy", policy)
    filled.call("FUNCTION", "LOAD", "#!lua name=mine\nserver.register_function('f', function(keys, args) return 1 end)")
    filled.call("SET", "plain", "x")
    filled.call("SET", "deadline", "y" * 200, "PXAT", FUTURE)
    filled.call("RPUSH", "list", "a", "b")
    filled.call("SADD", "set", *range(5000), "x")
    expected = filled.content()
    data = filled.saved()
    found, reader = read(data)
    assert found == expected
    assert reader.functions == 1
    assert read(data, 1)[0] == expected


def test_a_file_without_a_checksum() -> None:
    with ValkeyServer("--rdbchecksum", "no") as server, Filled(server) as filled:
        filled.call("SET", "a", "b")
        found, reader = read(filled.saved())
    assert found == {b"a": (b"b", None)}
    assert reader.verified is False


def test_every_damage_is_found_or_harmless(filled: Filled) -> None:
    filled.configure(FORMS["default"])
    filled.call("SET", "text", b"ab" * 40)
    filled.call("SET", "deadline", 12345, "PXAT", FUTURE)
    filled.call("HSET", "h", "f", "v", "g", "w")
    filled.call("HPEXPIREAT", "h", FUTURE, "FIELDS", 1, "f")
    filled.call("HSET", "packed", "f", "v", "n", 1000)
    filled.call("RPUSH", "l", *ELEMENTS[:20])
    filled.call("SADD", "ints", 1, 2, 70000)
    filled.call("ZADD", "z", 1.5, "m", 2, "n")
    filled.call("XADD", "s", "5-1", "f", "v")
    filled.call("XGROUP", "CREATE", "s", "g", 0)
    filled.call("XREADGROUP", "GROUP", "g", "c", "STREAMS", "s", ">")
    data = filled.saved()
    expected = read(data)[0]
    for size in range(len(data)):
        with pytest.raises(RdbError):
            read(data[:size])
    refused = 0
    for place in range(len(data) - 8):
        for flip in (1, 0x80, 0xFF):
            damaged = data[:place] + bytes([data[place] ^ flip]) + data[place + 1 :]
            with pytest.raises(RdbError) as caught:
                read(damaged)
            assert 0 <= caught.value.offset <= len(damaged)
            # The same without a checksum: refused for another reason, or read as something else.
            try:
                read(damaged[:-8] + bytes(8))
            except RdbError:
                refused += 1
    assert refused > len(data)
    assert read(data)[0] == expected
