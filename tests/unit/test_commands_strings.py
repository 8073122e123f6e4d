"""Strings: whole values, their parts, and counters."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.store_harness import START, Harness, named

from kevynode.reply import OK
from kevynode.store import notify
from kevynode.store.settings import StoreSettings

WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
SYNTAX = "ERR syntax error"
NOT_INTEGER = "ERR value is not an integer or out of range"
LATER = START + 100_000


@pytest.fixture
def harness() -> Harness:
    return Harness()


def with_types(harness: Harness) -> Harness:
    """``s`` holds a string, ``t`` one with a deadline, ``l`` a list."""
    harness.call("SET", "s", "value")
    harness.call("SET", "t", "timed", "PXAT", LATER)
    harness.call("RPUSH", "l", "x")
    return harness


# -- reading ------------------------------------------------------------------------------------------------------


def test_get(harness: Harness) -> None:
    with_types(harness)
    assert harness.call("GET", "s") == b"value"
    assert harness.call("GET", "t") == b"timed"
    assert harness.call("GET", "none") is None
    assert harness.text("GET", "l") == WRONG_TYPE
    assert (harness.store.hits, harness.store.misses) == (3, 1)


def test_expired_strings_are_gone(harness: Harness) -> None:
    with_types(harness)
    harness.now = LATER
    assert harness.call("GET", "t") == b"timed"
    harness.now += 1
    assert harness.call("MGET", "t", "s") == [None, b"value"]
    assert harness.commands == [(b"DEL", b"t")]
    assert harness.events == [(notify.EXPIRED, b"expired", b"t")]
    harness.replay()


def test_every_read_tells_the_eviction_policy(harness: Harness) -> None:
    with_types(harness)
    seen: list[bytes] = []
    harness.store.tracker = lambda shard, key: seen.append(key)
    harness.call("GET", "s")
    harness.call("MGET", "s", "t")
    harness.call("SET", "s", "w")
    harness.call("SET", "n", "1")
    harness.call("INCR", "n")
    assert seen[:5] == [b"s", b"s", b"t", b"s", b"n"]
    assert seen[5:] == [b"n", b"n"]


def test_misses_are_published_where_asked(harness: Harness) -> None:
    harness.store.settings.notify_keyspace_events = notify.KEY_MISS
    harness.call("GET", "k")
    assert harness.unbound_events == [(notify.KEY_MISS, b"keymiss", b"k")]
    harness.call("INCR", "k")
    assert harness.unbound_events == []


def test_mget(harness: Harness) -> None:
    with_types(harness)
    assert harness.call("MGET", "s", "l", "none", "t", "s") == [b"value", None, None, b"timed", b"value"]
    assert (harness.store.hits, harness.store.misses) == (4, 1)


@pytest.mark.parametrize(
    ("start", "end", "part"),
    [
        *((0, -1, b"hello"), (1, 3, b"ell"), (-3, -2, b"ll"), (3, 1, b""), (-1, -3, b""), (4, 100, b"o"), (5, 9, b"")),
        *((-100, 1, b"he"), (-100, -100, b"h"), (0, 0, b"h"), (-9223372036854775808, 9223372036854775807, b"hello")),
    ],
)
@pytest.mark.parametrize("command", ["GETRANGE", "SUBSTR"])
def test_getrange(harness: Harness, command: str, start: int, end: int, part: bytes) -> None:
    harness.call("SET", "k", "hello")
    assert harness.call(command, "k", start, end) == part
    assert harness.call(command, "none", start, end) == b""


def test_getrange_and_strlen_of_other_things(harness: Harness) -> None:
    with_types(harness)
    assert harness.text("GETRANGE", "l", "x", "0") == NOT_INTEGER
    assert harness.text("GETRANGE", "l", "0", "0") == WRONG_TYPE
    assert harness.text("STRLEN", "l") == WRONG_TYPE
    assert harness.call("STRLEN", "s") == 5
    assert harness.call("STRLEN", "none") == 0


# -- SET ----------------------------------------------------------------------------------------------------------


def test_set_records_itself(harness: Harness) -> None:
    assert harness.call("set", "k", "v") == OK
    assert harness.commands == [(b"set", b"k", b"v")]
    assert harness.events == [(notify.STRING, b"set", b"k")]
    harness.replay()


@pytest.mark.parametrize("value", [b"", b"other", b"longer than before", b"\0\r\n\xff"])
def test_set_replaces_anything(harness: Harness, value: bytes) -> None:
    with_types(harness)
    for key in ("s", "t", "l", "new"):
        assert harness.call("SET", key, value) == OK
        assert harness.call("GET", key) == value
        assert harness.call("PTTL", key) == -1
    harness.replay()


@pytest.mark.parametrize(
    ("options", "on_old", "on_new"),
    [
        ("NX", None, OK),
        ("XX", OK, None),
        ("nx get", b"value", None),
        ("XX GET", b"value", None),
        ("GET", b"value", None),
        ("GET GET", b"value", None),
        ("IFEQ value", OK, None),
        ("IFEQ other", None, None),
        ("IFEQ value GET", b"value", None),
        ("GET IFEQ other", b"value", None),
        ("NX NX", None, OK),
    ],
)
def test_conditions(harness: Harness, options: str, on_old: Any, on_new: Any) -> None:
    with_types(harness)
    words = options.split()
    written = "IFEQ value" in options or "XX" in options or options.startswith("GET G") or options == "GET"
    assert harness.call("SET", "s", "w", *words) == on_old
    assert harness.call("GET", "s") == (b"w" if written else b"value")
    assert harness.call("SET", "new", "w", *words) == on_new
    created = not ("XX" in options or "IFEQ" in options)
    assert harness.call("GET", "new") == (b"w" if created else None)
    harness.replay()


@pytest.mark.parametrize("options", ["GET", "NX GET", "XX GET", "IFEQ x", "IFEQ x GET"])
def test_what_must_see_the_old_string_refuses_other_types(harness: Harness, options: str) -> None:
    with_types(harness)
    assert harness.text("SET", "l", "v", *options.split()) == WRONG_TYPE


@pytest.mark.parametrize(
    "options",
    [
        *("FOO", "NX XX", "XX IFEQ a", "IFEQ a NX", "IFEQ a IFEQ a", "IFEQ", "EX", "EX 1 PX 1", "EX 1 KEEPTTL"),
        *("KEEPTTL PXAT 1", "PERSIST", "EX 1 NX foo", "EXAT 1 EX 1"),
    ],
)
def test_contradictions(harness: Harness, options: str) -> None:
    assert harness.text("SET", "k", "v", *options.split()) == SYNTAX


@pytest.mark.parametrize(
    ("options", "deadline"),
    [
        ("EX 10", START + 10_000),
        ("ex 5 EX 10", START + 10_000),
        ("PX 10", START + 10),
        ("EXAT 1700000100", LATER),
        (f"PXAT {LATER}", LATER),
        ("PXAT 9223372036854775807", 9223372036854775807),
    ],
)
def test_set_with_a_deadline(harness: Harness, options: str, deadline: int) -> None:
    assert harness.call("SET", "k", "v", *options.split()) == OK
    assert harness.commands == [(b"SET", b"k", b"v"), (b"PEXPIREAT", b"k", b"%d" % deadline)]
    assert harness.events == [(notify.STRING, b"set", b"k"), (notify.GENERIC, b"expire", b"k")]
    assert harness.store.deadline(b"k") == deadline
    harness.replay()


@pytest.mark.parametrize(
    ("option", "amount", "message"),
    [
        *((unit, "x", NOT_INTEGER) for unit in ("EX", "PX", "EXAT", "PXAT")),
        *((unit, "0", "ERR invalid expire time in 'set' command") for unit in ("EX", "PX", "EXAT", "PXAT")),
        *((unit, "-1", "ERR invalid expire time in 'set' command") for unit in ("EX", "PX", "EXAT", "PXAT")),
        *((unit, "9223372036854775", "ERR invalid expire time in 'set' command") for unit in ("EX",)),
        *((unit, "9223372036854776", "ERR invalid expire time in 'set' command") for unit in ("EX", "EXAT")),
        ("PX", "9223372036854775807", "ERR invalid expire time in 'set' command"),
    ],
)
def test_bad_deadlines(harness: Harness, option: str, amount: str, message: str) -> None:
    with_types(harness)
    assert harness.text("SET", "s", "v", option, amount) == message
    assert harness.text("GETEX", "s", option, amount) == message.replace("'set'", "'getex'")
    assert harness.text("GETEX", "none", option, amount) == message.replace("'set'", "'getex'")
    assert harness.text("MSETEX", 1, "s", "v", option, amount) == message.replace("'set'", "'msetex'")


def test_a_deadline_that_has_passed_deletes(harness: Harness) -> None:
    with_types(harness)
    assert harness.call("SET", "s", "v", "PXAT", START) == OK
    assert harness.commands == [(b"DEL", b"s")]
    assert harness.events == [(notify.EXPIRED, b"expired", b"s")]
    assert harness.call("SET", "s", "v", "PXAT", 1) == OK
    assert harness.commands == []
    assert harness.call("SET", "t", "v", "EXAT", 1, "GET") == b"timed"
    assert harness.call("EXISTS", "s", "t") == 0
    harness.replay()


def test_keepttl(harness: Harness) -> None:
    with_types(harness)
    assert harness.call("SET", "t", "w", "KEEPTTL") == OK
    assert harness.commands == [(b"SET", b"t", b"w"), (b"PEXPIREAT", b"t", b"%d" % LATER)]
    assert named(harness) == [(b"set", b"t")]
    assert harness.call("SET", "s", "w", "KEEPTTL") == OK
    assert harness.commands == [(b"SET", b"s", b"w")]
    harness.now = LATER + 1
    assert harness.call("SET", "t", "late", "KEEPTTL") == OK
    assert harness.call("PTTL", "t") == -1
    harness.replay()


@pytest.mark.parametrize(("command", "amount"), [("SETEX", 10), ("PSETEX", 10_000)])
def test_setex(harness: Harness, command: str, amount: int) -> None:
    with_types(harness)
    for key in ("s", "t", "l", "new"):
        assert harness.call(command, key, amount, "v") == OK
        assert harness.store.deadline(key.encode()) == START + 10_000
        assert named(harness) == [(b"set", key.encode()), (b"expire", key.encode())]
    assert harness.text(command, "s", 0, "v") == f"ERR invalid expire time in '{command.lower()}' command"
    assert harness.text(command, "s", "x", "v") == NOT_INTEGER
    harness.replay()


def test_setnx_getset_getdel_delifeq(harness: Harness) -> None:
    with_types(harness)
    assert harness.call("SETNX", "s", "w") == 0
    assert harness.call("SETNX", "n", "w") == 1
    assert named(harness) == [(b"set", b"n")]
    assert harness.call("GETSET", "t", "w") == b"timed"
    assert harness.call("PTTL", "t") == -1
    assert harness.call("GETSET", "m", "w") is None
    assert harness.text("GETSET", "l", "w") == WRONG_TYPE
    assert harness.call("DELIFEQ", "n", "x") == 0
    assert harness.call("DELIFEQ", "n", "w") == 1
    assert (harness.commands, named(harness)) == ([(b"DEL", b"n")], [(b"del", b"n")])
    assert harness.call("DELIFEQ", "n", "w") == 0
    assert harness.text("DELIFEQ", "l", "w") == WRONG_TYPE
    assert harness.call("GETDEL", "s") == b"value"
    assert (harness.commands, named(harness)) == ([(b"DEL", b"s")], [(b"del", b"s")])
    assert harness.call("GETDEL", "s") is None
    assert harness.text("GETDEL", "l") == WRONG_TYPE
    harness.replay()


def test_getex(harness: Harness) -> None:
    with_types(harness)
    assert harness.call("GETEX", "s") == b"value"
    assert harness.commands == []
    assert harness.call("GETEX", "s", "PERSIST") == b"value"
    assert harness.commands == []
    assert harness.call("GETEX", "s", "EX", 7) == b"value"
    assert harness.commands == [(b"PEXPIREAT", b"s", b"%d" % (START + 7000))]
    assert named(harness) == [(b"expire", b"s")]
    assert harness.call("GETEX", "s", "persist") == b"value"
    assert (harness.commands, named(harness)) == ([(b"PERSIST", b"s")], [(b"persist", b"s")])
    assert harness.call("GETEX", "t", "PXAT", 1) == b"timed"
    assert (harness.commands, named(harness)) == ([(b"DEL", b"t")], [(b"expired", b"t")])
    assert harness.call("GETEX", "t", "EX", 7) is None
    assert harness.text("GETEX", "l", "EX", 7) == WRONG_TYPE
    for options in ("KEEPTTL", "NX", "GET", "EX", "EX 1 PERSIST", "EX 1 PX 1"):
        assert harness.text("GETEX", "s", *options.split()) == SYNTAX
    harness.replay()


# -- many keys ----------------------------------------------------------------------------------------------------


def test_mset_and_msetnx(harness: Harness) -> None:
    with_types(harness)
    assert harness.call("MSET", "t", 1, "l", 2, "a", 3, "a", 4) == OK
    assert named(harness) == [(b"set", b"t"), (b"set", b"l"), (b"set", b"a"), (b"set", b"a")]
    assert harness.call("MGET", "t", "l", "a") == [b"1", b"2", b"4"]
    assert harness.call("MSETNX", "b", 1, "a", 2) == 0
    assert harness.commands == []
    assert harness.call("MSETNX", "b", 1, "b", 2) == 1
    assert harness.call("GET", "b") == b"2"
    assert harness.text("MSET", "a", 1, "b") == "ERR wrong number of arguments for 'mset' command"
    assert harness.text("MSETNX", "a", 1, "b") == "ERR wrong number of arguments for 'msetnx' command"
    harness.replay()


def test_msetex(harness: Harness) -> None:
    with_types(harness)
    assert harness.call("MSETEX", 2, "a", 1, "l", 2) == 1
    assert harness.call("MSETEX", 2, "a", 3, "b", 4, "NX") == 0
    assert harness.call("MSETEX", 2, "a", 3, "b", 4, "XX") == 0
    assert harness.call("MSETEX", 2, "c", 3, "b", 4, "NX", "EX", 10) == 1
    assert named(harness) == [(b"set", b"c"), (b"expire", b"c"), (b"set", b"b"), (b"expire", b"b")]
    assert harness.call("MSETEX", 2, "a", 5, "b", 6, "keepttl", "XX") == 1
    assert [harness.store.deadline(key) for key in (b"a", b"b")] == [None, START + 10_000]
    assert harness.call("MSETEX", 2, "a", 7, "a", 8, "PXAT", 1) == 1
    assert harness.call("EXISTS", "a") == 0
    assert harness.commands == [(b"DEL", b"a")]
    harness.replay()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        *((f"{n} a 1", "ERR invalid numkeys value or out of range") for n in ("0", "-1", "x", "9223372036854775807")),
        *((line, SYNTAX) for line in ("3 a 1 b 2", "1 a 1 b 2", "1 a 1 GET", "1 a 1 IFEQ 1", "1 a 1 PERSIST")),
        *((line, SYNTAX) for line in ("1 a 1 NX XX", "1 a 1 EX 1 KEEPTTL", "1 a 1 EX")),
    ],
)
def test_bad_msetex(harness: Harness, line: str, message: str) -> None:
    assert harness.text("MSETEX", *line.split()) == message


# -- parts --------------------------------------------------------------------------------------------------------


def test_append(harness: Harness) -> None:
    with_types(harness)
    assert harness.call("APPEND", "s", "!") == 6
    assert harness.commands == [(b"APPEND", b"s", b"!")]
    assert harness.events == [(notify.STRING, b"append", b"s")]
    assert harness.call("APPEND", "t", "") == 5
    assert harness.store.deadline(b"t") == LATER
    assert harness.call("APPEND", "new", "") == 0
    assert harness.call("EXISTS", "new") == 1
    assert harness.text("APPEND", "l", "x") == WRONG_TYPE
    harness.replay()


@pytest.mark.parametrize(
    ("offset", "part", "result"),
    [(0, b"J", b"Jello"), (4, b"!!", b"hell!!"), (7, b"x", b"hello\0\0x"), (5, b"x", b"hellox"), (2, b"", b"hello")],
)
def test_setrange(harness: Harness, offset: int, part: bytes, result: bytes) -> None:
    harness.call("SET", "k", "hello", "PXAT", LATER)
    assert harness.call("SETRANGE", "k", offset, part) == len(result)
    if part:
        assert harness.commands == [(b"SET", b"k", result), (b"PEXPIREAT", b"k", b"%d" % LATER)]
        assert named(harness) == [(b"setrange", b"k")]
    assert harness.call("GET", "k") == result
    harness.replay()


def test_setrange_elsewhere(harness: Harness) -> None:
    with_types(harness)
    assert harness.call("SETRANGE", "new", 3, "") == 0
    assert harness.call("EXISTS", "new") == 0
    assert harness.call("SETRANGE", "new", 2, "x") == 3
    assert harness.call("GET", "new") == b"\0\0x"
    assert harness.text("SETRANGE", "l", 0, "x") == WRONG_TYPE
    assert harness.text("SETRANGE", "l", -1, "x") == "ERR offset is out of range"
    assert harness.text("SETRANGE", "l", "x", "x") == NOT_INTEGER
    harness.replay()


def test_strings_have_a_largest_size() -> None:
    harness = Harness(settings=StoreSettings(proto_max_bulk_len=10))
    too_long = "ERR string exceeds maximum allowed size (proto-max-bulk-len)"
    harness.call("SET", "k", "12345678")
    assert harness.call("APPEND", "k", "90") == 10
    assert harness.text("APPEND", "k", "1") == too_long
    assert harness.call("SETRANGE", "k", 8, "xy") == 10
    assert harness.text("SETRANGE", "k", 8, "xyz") == too_long
    assert harness.text("SETRANGE", "none", 9223372036854775807, "x") == too_long


# -- counters -----------------------------------------------------------------------------------------------------


def test_counters(harness: Harness) -> None:
    for line, total in (("INCR n", 1), ("INCRBY n 41", 42), ("DECR n", 41), ("DECRBY n -9", 50), ("INCRBY n -50", 0)):
        assert harness.call(*line.split()) == total
        assert harness.commands == [tuple(line.encode().split())]
        assert harness.events == [(notify.STRING, b"incrby", b"n")]
    harness.call("SET", "t", "9", "PXAT", LATER)
    assert harness.call("INCR", "t") == 10
    assert harness.store.deadline(b"t") == LATER
    harness.now = LATER + 1
    assert harness.call("DECR", "t") == -1
    assert harness.store.deadline(b"t") is None
    harness.replay()


def test_counters_refuse(harness: Harness) -> None:
    with_types(harness)
    for command in (["INCR", "s"], ["INCRBY", "s", "1"], ["INCRBY", "none", "1.0"], ["DECRBY", "l", "x"]):
        assert harness.text(*command) == NOT_INTEGER
    assert harness.text("INCR", "l") == WRONG_TYPE
    harness.call("SET", "n", 2**63 - 1)
    overflow = "ERR increment or decrement would overflow"
    assert harness.text("INCR", "n") == overflow
    assert harness.call("DECRBY", "n", 2**63 - 1) == 0
    assert harness.call("DECRBY", "n", 2**63 - 1) == -(2**63) + 1
    assert harness.text("INCRBY", "n", -2) == overflow
    assert harness.text("DECRBY", "n", -(2**63)) == "ERR decrement would overflow"
    for value in (b"01", b" 1", b"1 ", b"", b"+1", b"9223372036854775808"):
        harness.call("SET", "n", value)
        assert harness.text("INCR", "n") == NOT_INTEGER
    harness.replay()


def test_float_counters(harness: Harness) -> None:
    assert harness.call("INCRBYFLOAT", "f", "0.1") == b"0.1"
    assert harness.call("INCRBYFLOAT", "f", "0.2") == b"0.3"
    assert harness.commands == [(b"SET", b"f", b"0.3")]
    assert harness.events == [(notify.STRING, b"incrbyfloat", b"f")]
    harness.call("SET", "t", "3.0e3", "PXAT", LATER)
    assert harness.call("INCRBYFLOAT", "t", "-200") == b"2800"
    assert harness.commands == [(b"SET", b"t", b"2800"), (b"PEXPIREAT", b"t", b"%d" % LATER)]
    with_types(harness)
    assert harness.text("INCRBYFLOAT", "s", "1") == "ERR value is not a valid float"
    assert harness.text("INCRBYFLOAT", "f", "x") == "ERR value is not a valid float"
    assert harness.text("INCRBYFLOAT", "f", "inf") == "ERR increment would produce NaN or Infinity"
    assert harness.text("INCRBYFLOAT", "l", "1") == WRONG_TYPE
    harness.replay()


# -- all together -------------------------------------------------------------------------------------------------

KEYS = st.sampled_from(["a", "b", "c"])
VALUES = st.sampled_from(["", "1", "-7", "x", "0.5", "longer than the others"])
LINES = st.one_of(
    st.tuples(st.just("SET"), KEYS, VALUES),
    st.tuples(st.just("SET"), KEYS, VALUES, st.sampled_from(["NX", "XX", "GET", "KEEPTTL"])),
    st.tuples(st.sampled_from(["SETEX", "PSETEX"]), KEYS, st.integers(1, 3), VALUES),
    st.tuples(st.sampled_from(["SETNX", "GETSET", "APPEND", "DELIFEQ"]), KEYS, VALUES),
    st.tuples(st.sampled_from(["INCR", "DECR", "GETDEL", "GET", "DEL"]), KEYS),
    st.tuples(st.just("INCRBYFLOAT"), KEYS, VALUES),
    st.tuples(st.just("SETRANGE"), KEYS, st.integers(0, 9), VALUES),
    st.tuples(st.just("GETEX"), KEYS, st.just("PX"), st.integers(1, 3000)),
    st.tuples(st.just("GETEX"), KEYS, st.just("PERSIST")),
    st.tuples(st.just("MSETEX"), st.just(2), KEYS, VALUES, KEYS, VALUES, st.just("PX"), st.integers(1, 3000)),
)


@given(st.lists(st.tuples(LINES, st.integers(0, 1500)), max_size=40))
def test_any_history_replays_and_leaves_snapshots_alone(history: list[tuple[tuple[Any, ...], int]]) -> None:
    harness = Harness()
    middle = len(history) // 2
    for line, pause in history[:middle]:
        harness.call(*line)
        harness.now += pause
    with harness.frozen():
        for line, pause in history[middle:]:
            harness.call(*line)
            harness.now += pause
    harness.replay()
