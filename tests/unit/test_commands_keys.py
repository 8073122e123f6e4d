"""DEL, EXISTS, TYPE, RENAME, COPY, KEYS, RANDOMKEY, FLUSHALL and the commands on databases."""

from __future__ import annotations

import pytest
from support.store_harness import START, Harness, event_class, lines, named

from kevynode.reply import OK, Status
from kevynode.store.command import TABLE

G = event_class("g")


def every_type() -> Harness:
    """One key of each type, all with a deadline but the string; ``h`` has a field that expires."""
    harness = Harness()
    run = lines(harness)
    run("SET str v")
    run("RPUSH l a b c")
    run("SADD s a b")
    run("ZADD z 1 a 2 b")
    run("HSET h f v g w")
    harness.call("HPEXPIREAT", "h", START + 7000, "FIELDS", 1, "f")
    for key in "lszh":
        harness.call("PEXPIREAT", key, START + 9000)
    return harness


# -- existence ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["DEL", "UNLINK"])
def test_delete(name: str) -> None:
    harness = every_type()
    assert harness.call(name, "str", "missing", "l", "str") == 2
    assert harness.commands == [(b"DEL", b"str"), (b"DEL", b"l")]
    assert harness.events == [(G, b"del", b"str"), (G, b"del", b"l")]
    assert harness.call(name, "missing") == 0
    assert harness.group == []
    assert harness.call("EXISTS", "str", "l", "s") == 1
    harness.replay()


def test_delete_what_has_expired() -> None:
    harness = every_type()
    harness.now += 9001
    assert harness.call("DEL", "l", "str") == 1
    assert named(harness) == [(b"expired", b"l"), (b"del", b"str")]
    harness.replay()


def test_a_copy_deletes_what_the_stream_says() -> None:
    harness = every_type()
    harness.store.deletes_expired = False
    harness.now += 9001
    assert harness.call("EXISTS", "l") == 0
    assert len(harness.store.keyspace) == 5
    assert harness.call("DEL", "l") == 1
    assert len(harness.store.keyspace) == 4


def test_exists_and_touch_count_twice() -> None:
    harness = every_type()
    for name in ("EXISTS", "TOUCH"):
        assert harness.call(name, "str", "str", "missing", "h") == 3
    assert (harness.store.hits, harness.store.misses) == (6, 2)


def test_type() -> None:
    harness = every_type()
    found = [harness.call("TYPE", key) for key in ("str", "l", "s", "z", "h", "missing")]
    assert found == [Status(word) for word in (b"string", b"list", b"set", b"zset", b"hash", b"none")]


def test_misses_are_announced() -> None:
    harness = Harness()
    harness.store.settings.notify_keyspace_events = event_class("m")
    for words in (["EXISTS", "k"], ["TYPE", "k"], ["TOUCH", "k"], ["TTL", "k"], ["COPY", "k", "other"]):
        harness.call(*words)
        assert harness.unbound_events == [(event_class("m"), b"keymiss", b"k")]
    for words in (["DEL", "k"], ["EXPIRE", "k", "1"], ["PERSIST", "k"], ["OBJECT", "ENCODING", "k"], ["KEYS", "k"]):
        harness.call(*words)
        assert harness.unbound_events == []


# -- renaming and copying -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["str", "l", "s", "z", "h"])
@pytest.mark.parametrize("target", ["fresh", "taken"])
@pytest.mark.parametrize("name", ["RENAME", "RENAMENX", "COPY"])
def test_move_and_copy(key: str, target: str, name: str) -> None:
    harness = every_type()
    harness.call("SET", "taken", "old", "EX", 1)
    source = harness.content()[key.encode()]
    if target == "taken" and name in ("RENAMENX", "COPY"):
        assert harness.call(name, key, target) == 0
        assert harness.group == []
        return
    with harness.frozen():
        assert harness.call(name, key, target) == (OK if name == "RENAME" else 1)
    assert harness.content()[target.encode()] == source
    assert (key.encode() in harness.content()) == (name == "COPY")
    events = [(G, b"copy_to", target.encode())]
    if name != "COPY":
        events = [(G, b"rename_from", key.encode()), (G, b"rename_to", target.encode())]
    assert harness.events == events
    harness.replay()


@pytest.mark.parametrize("key", ["str", "l", "s", "z", "h"])
def test_copy_replaces(key: str) -> None:
    harness = every_type()
    harness.call("SET", "taken", "old", "EX", 1)
    assert harness.call("COPY", key, "taken", "REPLACE") == 1
    assert harness.content()[b"taken"] == harness.content()[key.encode()]
    assert harness.commands[0] == (b"DEL", b"taken")
    assert named(harness) == [(b"copy_to", b"taken")]
    harness.replay()


def test_copies_are_independent() -> None:
    harness = every_type()
    run = lines(harness)
    for key in "lszh":
        run(f"COPY {key} {key}2")
    run("RPUSH l2 d")
    run("SREM s2 a")
    run("ZADD z2 5 a")
    run("HSET h2 f changed")
    assert run("LLEN l") == 3
    assert run("SCARD s") == 2
    assert run("ZSCORE z a") == 1.0
    assert run("HGET h f") == b"v"
    harness.replay()


def test_field_deadlines_move_along() -> None:
    harness = every_type()
    harness.call("RENAME", "h", "renamed")
    harness.call("COPY", "renamed", "copied")
    assert {b"renamed", b"copied"} <= set(harness.store.field_deadline_keys)
    harness.now = START + 7001
    assert harness.call("HGETALL", "copied") == {b"g": b"w"}


def test_big_values_are_told_in_pieces() -> None:
    harness = Harness()
    harness.call("RPUSH", "l", *range(2500))
    harness.call("RENAME", "l", "m")
    assert [len(words) for words in harness.commands] == [2, 1002, 1002, 502]
    assert [events for _, _, events in harness.group[1:-1]] == [(), ()]
    harness.replay()


def test_rename_onto_itself() -> None:
    harness = every_type()
    assert harness.call("RENAME", "l", "l") == OK
    assert harness.call("RENAMENX", "l", "l") == 0
    assert harness.group == []
    assert harness.call("LLEN", "l") == 3


def test_expired_keys_do_not_stand_in_the_way() -> None:
    harness = every_type()
    harness.now += 9001
    assert harness.text("RENAME", "l", "other") == "ERR no such key"
    assert harness.call("RENAMENX", "str", "s") == 1
    assert named(harness) == [(b"expired", b"s"), (b"rename_from", b"str"), (b"rename_to", b"s")]
    assert harness.call("COPY", "s", "z") == 1
    assert harness.call("COPY", "h", "x") == 0
    harness.replay()


def test_overwriting_makes_a_new_key() -> None:
    harness = every_type()
    harness.store.settings.notify_keyspace_events = event_class("n")
    harness.call("RENAME", "str", "l")
    assert harness.unbound_events == [(event_class("n"), b"new", b"l")]


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("RENAME missing other", "ERR no such key"),
        ("RENAMENX missing missing", "ERR no such key"),
        ("COPY str str", "ERR source and destination objects are the same"),
        ("COPY missing missing", "ERR source and destination objects are the same"),
        ("COPY str x FOO", "ERR syntax error"),
        ("COPY str x DB", "ERR syntax error"),
        ("COPY str x DB a", "ERR value is not an integer or out of range"),
        ("COPY str x DB 1", "ERR DB index is out of range"),
        ("COPY missing x DB -1", "ERR DB index is out of range"),
        ("COPY str x REPLACE FOO", "ERR syntax error"),
        ("MOVE str 0", "ERR source and destination objects are the same"),
        ("MOVE missing 0", "ERR source and destination objects are the same"),
        ("MOVE str 1", "ERR DB index is out of range"),
        ("MOVE str a", "ERR value is not an integer or out of range"),
        ("SWAPDB a b", "ERR invalid first DB index"),
        ("SWAPDB 0 b", "ERR invalid second DB index"),
        ("SWAPDB 0 1", "ERR DB index is out of range"),
        ("SWAPDB -1 0", "ERR DB index is out of range"),
        ("FLUSHALL FOO", "ERR syntax error"),
        ("FLUSHALL SYNC ASYNC", "ERR syntax error"),
        ("FLUSHDB FOO", "ERR syntax error"),
    ],
)
def test_errors(line: str, error: str) -> None:
    harness = every_type()
    before = harness.content()
    assert harness.text(*line.split()) == error
    assert harness.content() == before


def test_copy_within_database_0() -> None:
    harness = every_type()
    assert harness.call("COPY", "str", "x", "db", 0) == 1
    assert harness.call("SWAPDB", 0, 0) == OK
    assert harness.group == []


# -- the whole keyspace ---------------------------------------------------------------------------------------------


def test_keys() -> None:
    harness = every_type()
    harness.call("SET", "", "empty")
    assert sorted(harness.call("KEYS", "*")) == sorted([b"", b"str", b"l", b"s", b"z", b"h"])
    assert sorted(harness.call("KEYS", "s*")) == [b"s", b"str"]
    assert harness.call("KEYS", "[hx]") == [b"h"]
    assert harness.call("KEYS", "**") != []
    assert b"" not in harness.call("KEYS", "**")
    harness.now += 9001
    assert sorted(harness.call("KEYS", "*")) == [b"", b"str"]
    # Looking at names deletes nothing.
    assert harness.call("DBSIZE") == 6


def test_randomkey() -> None:
    harness = Harness()
    assert harness.call("RANDOMKEY") is None
    for number in range(30):
        harness.call("SET", f"k{number}", "v", "PXAT", START + 1000)
    harness.call("SET", "stays", "v")
    assert {harness.call("RANDOMKEY") for _ in range(1000)} == set(harness.store.keyspace)
    harness.now += 1001
    assert {harness.call("RANDOMKEY") for _ in range(50)} == {b"stays"}
    harness.replay()


def test_randomkey_with_nothing_but_expired_keys() -> None:
    harness = Harness()
    for number in range(30):
        harness.call("SET", f"k{number}", "v", "PXAT", START + 1000)
    harness.now += 1001
    harness.store.deletes_expired = False
    assert harness.call("RANDOMKEY").startswith(b"k")
    harness.store.deletes_expired = True
    assert harness.call("RANDOMKEY") is None
    assert len(harness.group) == 30
    assert harness.call("DBSIZE") == 0


@pytest.mark.parametrize("words", [["FLUSHALL"], ["FLUSHDB"], ["FLUSHALL", "async"], ["FLUSHDB", "SYNC"]])
def test_flush(words: list[str]) -> None:
    harness = every_type()
    with harness.frozen():
        assert harness.call(*words) == OK
    assert harness.commands == [(b"FLUSHALL",)]
    assert harness.group[0][1] is None
    assert harness.events == []
    assert (harness.call("DBSIZE"), harness.store.used) == (0, 0)
    assert harness.call(*words) == OK
    assert harness.group == []
    harness.call("SET", "k", "v")
    harness.replay()


# -- the table ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "keys"),
    [
        ("RENAME a b", "a b"),
        ("COPY a b REPLACE", "a b"),
        ("DEL a b c", "a b c"),
        ("SORT a", "a"),
        ("SORT a BY w_* STORE b GET x STORE c", "a c"),
        ("SORT a GET STORE b", "a"),
        ("SORT a BY store b", "a"),
        ("SORT a LIMIT 1 STORE b", "a"),
        ("SORT a STORE", "a"),
        ("SORT_RO a BY x STORE b", "a"),
        ("KEYS *", ""),
        ("SWAPDB 0 0", ""),
    ],
)
def test_key_positions(line: str, keys: str) -> None:
    argv = [word.encode() for word in line.split()]
    entry = TABLE.get(argv[0])
    assert entry is not None
    assert [argv[place].decode() for place in entry.key_positions(argv)] == keys.split()


def test_written_keys() -> None:
    sort = TABLE.get(b"SORT")
    assert sort is not None
    assert sort.written_keys([b"SORT", b"a", b"STORE", b"b"]) == [b"b"]
    assert sort.written_keys([b"SORT", b"a"]) == []
