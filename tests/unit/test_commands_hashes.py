"""The hash commands without deadlines of fields: replies, errors, events, effects and what a copy makes of them.

Replies are Valkey 9.1's. Deadlines of fields are tested in test_commands_hash_fields.py.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.store_harness import Harness, event_class, lines, named

from kevynode.reply import OK
from kevynode.store.commands.random_members import MOST_REPEATED
from kevynode.store.values import Hash

WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
NOT_INTEGER = "ERR value is not an integer or out of range"
HASH = event_class("h")
GENERIC = event_class("g")


@pytest.fixture
def harness() -> Harness:
    return Harness()


class TestSet:
    def test_one_and_several(self, harness: Harness) -> None:
        run = lines(harness)
        created = run("HSET h a 1")
        assert (created, type(created)) == (1, int)
        assert harness.events == [(HASH, b"hset", b"h")]
        assert harness.commands == [(b"HSET", b"h", b"a", b"1")]
        assert run("HSET h a 2") == 0
        assert run("HSET h a 3 b 1 c 1 c 2") == 2
        assert run("HGETALL h") == {b"a": b"3", b"b": b"1", b"c": b"2"}
        harness.replay()

    def test_hmset_is_told_as_hset(self, harness: Harness) -> None:
        run = lines(harness)
        assert run("HMSET h a 1 b 2") == OK
        assert harness.commands == [(b"HSET", b"h", b"a", b"1", b"b", b"2")]
        assert harness.events == [(HASH, b"hset", b"h")]
        harness.replay()

    def test_hsetnx(self, harness: Harness) -> None:
        run = lines(harness)
        assert run("HSETNX h a 1") == 1
        assert harness.commands == [(b"HSET", b"h", b"a", b"1")]
        assert run("HSETNX h a 2") == 0
        assert harness.commands == []
        assert run("HGET h a") == b"1"
        harness.replay()

    def test_a_field_without_a_value(self, harness: Harness) -> None:
        for name in ("hset", "hmset"):
            assert harness.text(name, "h", "a", "1", "b") == f"ERR wrong number of arguments for '{name}' command"

    @pytest.mark.parametrize(
        "line",
        [
            "HSET s a 1",
            "HMSET s a 1",
            "HSETNX s a 1",
            "HGET s a",
            "HMGET s a",
            "HGETALL s",
            "HKEYS s",
            "HVALS s",
            "HLEN s",
            "HEXISTS s a",
            "HSTRLEN s a",
            "HDEL s a",
            "HINCRBY s a 1",
            "HINCRBYFLOAT s a 1",
            "HSCAN s 0",
            "HRANDFIELD s",
            "HRANDFIELD s 2",
            "HGETDEL s FIELDS 1 a",
        ],
    )
    def test_wrong_type(self, harness: Harness, line: str) -> None:
        harness.call("SET", "s", "1")
        assert harness.text(*line.split()) == WRONG_TYPE

    def test_a_large_hash(self, harness: Harness) -> None:
        words = [word for number in range(3000) for word in (f"f{number}", number)]
        assert harness.call("HSET", "h", *words) == 3000
        assert harness.call("HLEN", "h") == 3000
        assert harness.call("HGET", "h", "f2999") == b"2999"
        assert harness.call("HDEL", "h", *words[::2]) == 3000
        assert named(harness) == [(b"hdel", b"h"), (b"del", b"h")]
        harness.replay()


class TestRead:
    def test_values(self, harness: Harness) -> None:
        run = lines(harness)
        run("HSET h a 1 b 22")
        assert run("HGET h a") == b"1"
        assert run("HMGET h a z b") == [b"1", None, b"22"]
        assert run("HKEYS h") == [b"a", b"b"]
        assert run("HVALS h") == [b"1", b"22"]
        assert [run(f"HEXISTS h {field}") for field in "az"] == [1, 0]
        assert [run(f"HSTRLEN h {field}") for field in "bz"] == [2, 0]
        assert run("HLEN h") == 2

    def test_nothing(self, harness: Harness) -> None:
        run = lines(harness)
        assert run("HGET none a") is None
        assert run("HMGET none a b") == [None, None]
        assert run("HGETALL none") == {}
        assert run("HKEYS none") == run("HVALS none") == run("HRANDFIELD none 3") == []
        assert run("HLEN none") == run("HEXISTS none a") == run("HSTRLEN none a") == run("HDEL none a") == 0
        assert run("HSCAN none 0 FOO") == [b"0", []]

    def test_shapes(self, harness: Harness) -> None:
        harness.call("HSET", "h", "a", "1")
        assert harness.wire(2, "HGETALL", "h") == b"*2\r\n$1\r\na\r\n$1\r\n1\r\n"
        assert harness.wire(3, "HGETALL", "h") == b"%1\r\n$1\r\na\r\n$1\r\n1\r\n"
        assert harness.wire(2, "HRANDFIELD", "h", 1, "WITHVALUES") == b"*2\r\n$1\r\na\r\n$1\r\n1\r\n"
        assert harness.wire(3, "HRANDFIELD", "h", 1, "WITHVALUES") == b"*1\r\n*2\r\n$1\r\na\r\n$1\r\n1\r\n"
        assert harness.wire(3, "HRANDFIELD", "none", 1, "WITHVALUES") == b"*0\r\n"
        assert harness.wire(3, "HSCAN", "h", 0) == b"*2\r\n$1\r\n0\r\n*2\r\n$1\r\na\r\n$1\r\n1\r\n"
        assert harness.wire(3, "HINCRBYFLOAT", "h", "a", "0.5") == b"$3\r\n1.5\r\n"
        assert harness.wire(3, "HEXISTS", "h", "a") == b":1\r\n"

    def test_scan(self, harness: Harness) -> None:
        run = lines(harness)
        run("HSET h na 1 nb 2 c 3")
        assert run("HSCAN h 0") == [b"0", [b"na", b"1", b"nb", b"2", b"c", b"3"]]
        assert run("HSCAN h 0 MATCH n*") == [b"0", [b"na", b"1", b"nb", b"2"]]
        assert run("HSCAN h 0 MATCH n* NOVALUES COUNT 1") == [b"0", [b"na", b"nb"]]
        assert harness.text("HSCAN", "none", "x") == "ERR invalid cursor"
        assert harness.text("HSCAN", "h", "0", "COUNT", "0") == "ERR syntax error"
        assert harness.text("HSCAN", "h", "0", "TYPE", "hash") == "ERR syntax error"

    def test_scan_of_a_large_hash_meets_every_field(self, harness: Harness) -> None:
        fields = {f"f{number}".encode() for number in range(2500)}
        harness.call("HSET", "h", *(word for field in fields for word in (field, b"v")))
        seen: list[bytes] = []
        cursor = b"0"
        for _ in range(1000):
            cursor, found = harness.call("HSCAN", "h", cursor, "COUNT", 100, "NOVALUES")
            seen += found
            if cursor == b"0":
                break
        assert set(seen) == fields


class TestRemove:
    def test_hdel(self, harness: Harness) -> None:
        run = lines(harness)
        run("HSET h a 1 b 2 c 3")
        assert run("HDEL h z") == 0
        assert harness.commands == []
        assert run("HDEL h a z a b") == 2
        assert harness.commands == [(b"HDEL", b"h", b"a", b"b")]
        assert harness.events == [(HASH, b"hdel", b"h")]
        assert run("HDEL h c") == 1
        assert harness.events == [(HASH, b"hdel", b"h"), (GENERIC, b"del", b"h")]
        harness.replay()

    def test_hgetdel(self, harness: Harness) -> None:
        run = lines(harness)
        run("HSET h a 1 b 2 c 3")
        assert run("HGETDEL h FIELDS 2 a z") == [b"1", None]
        assert harness.commands == [(b"HDEL", b"h", b"a")]
        assert run("HGETDEL h fields 3 b b c") == [b"2", None, b"3"]
        assert named(harness) == [(b"hdel", b"h"), (b"del", b"h")]
        assert run("HGETDEL h FIELDS 1 b") == [None]
        harness.replay()

    @pytest.mark.parametrize(
        ("words", "error"),
        [
            ("FIELDS 2 a", "ERR numfields should be greater than 0 and match the provided number of fields"),
            ("FIELDS 0 a", "ERR numfields should be greater than 0 and match the provided number of fields"),
            ("FIELDS x a", NOT_INTEGER),
            ("FOO x a", "ERR syntax error"),
        ],
    )
    def test_bad_hgetdel(self, harness: Harness, words: str, error: str) -> None:
        harness.call("SET", "s", "1")
        assert harness.text("HGETDEL", "s", *words.split()) == error


class TestCount:
    def test_integers(self, harness: Harness) -> None:
        run = lines(harness)
        assert run("HINCRBY h a 5") == 5
        assert harness.commands == [(b"HINCRBY", b"h", b"a", b"5")]
        assert harness.events == [(HASH, b"hincrby", b"h")]
        assert run("HINCRBY h a -7") == -2
        assert run("HGET h a") == b"-2"
        assert run("HINCRBY h b 9223372036854775807") == 2**63 - 1
        assert harness.text("HINCRBY", "h", "b", 1) == "ERR increment or decrement would overflow"
        assert harness.text("HINCRBY", "s", "b", "x") == NOT_INTEGER
        harness.replay()

    @pytest.mark.parametrize("text", ["", " 1", "01", "1.0", "x"])
    def test_not_integers(self, harness: Harness, text: str) -> None:
        harness.call("HSET", "h", "a", text)
        assert harness.text("HINCRBY", "h", "a", 1) == "ERR hash value is not an integer"

    def test_floats(self, harness: Harness) -> None:
        run = lines(harness)
        assert run("HINCRBYFLOAT h a 0.1") == b"0.1"
        assert harness.commands == [(b"HSET", b"h", b"a", b"0.1")]
        assert harness.events == [(HASH, b"hincrbyfloat", b"h")]
        assert run("HINCRBYFLOAT h a 0.2") == b"0.3"
        assert run("HINCRBYFLOAT h a -1.3") == b"-1"
        harness.replay()

    def test_bad_floats(self, harness: Harness) -> None:
        run = lines(harness)
        run("HSET h a x inf inf")
        assert harness.text("HINCRBYFLOAT", "h", "a", "x") == "ERR value is not a valid float"
        assert harness.text("HINCRBYFLOAT", "h", "a", "inf") == "ERR value is NaN or Infinity"
        assert harness.text("HINCRBYFLOAT", "h", "a", "1") == "ERR hash value is not a float"
        assert harness.text("HINCRBYFLOAT", "h", "inf", "1") == "ERR increment would produce NaN or Infinity"

    def test_a_failed_increment_makes_no_key(self, harness: Harness) -> None:
        assert harness.text("HINCRBYFLOAT", "h", "a", "x") == "ERR value is not a valid float"
        assert harness.store.peek(b"h") is None


class TestRandom:
    @pytest.fixture(params=[5, 40, 3000])
    def filled(self, harness: Harness, request: pytest.FixtureRequest) -> Harness:
        for number in range(request.param):
            harness.store.write_or_create(b"h", Hash).put(b"f%d" % number, b"%d" % number)
        harness.store.commit()
        return harness

    def test_one(self, filled: Harness) -> None:
        size = filled.call("HLEN", "h")
        drawn = Counter(filled.call("HRANDFIELD", "h") for _ in range(200))
        assert all(filled.call("HEXISTS", "h", field) for field in drawn)
        assert len(drawn) >= min(size, 30)

    @pytest.mark.parametrize("count", [0, 1, 4, 30, 2000, 2**63 - 1])
    def test_distinct(self, filled: Harness, count: int) -> None:
        fields = filled.call("HRANDFIELD", "h", count)
        assert len(set(fields)) == len(fields) == min(count, filled.call("HLEN", "h"))
        assert None not in filled.call("HMGET", "h", *fields, "f0")

    @pytest.mark.parametrize("count", [1, 4, 30, 5000])
    def test_repeated(self, filled: Harness, count: int) -> None:
        fields = filled.call("HRANDFIELD", "h", -count)
        assert len(fields) == count
        assert None not in filled.call("HMGET", "h", *fields)

    def test_with_values(self, filled: Harness) -> None:
        for count in (3, -3):
            pairs = filled.call("HRANDFIELD", "h", count, "withvalues")
            assert len(pairs) == 3
            assert all(field == b"f" + value for field, value in pairs)

    @pytest.mark.parametrize(
        ("words", "error"),
        [
            ("x", NOT_INTEGER),
            ("WITHVALUES", NOT_INTEGER),
            ("1 FOO", "ERR syntax error"),
            ("1 WITHVALUES x", "ERR syntax error"),
            ("9223372036854775807 WITHVALUES", "ERR value is out of range"),
            ("-4611686018427387904 WITHVALUES", "ERR value is out of range"),
            (
                "-9223372036854775808",
                "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
            ),
        ],
    )
    def test_bad_options(self, harness: Harness, words: str, error: str) -> None:
        assert harness.text("HRANDFIELD", "none", *words.split()) == error

    def test_repetitions_are_bounded(self, harness: Harness) -> None:
        harness.call("HSET", "h", "a", "1")
        assert harness.text("HRANDFIELD", "h", -MOST_REPEATED - 1) == "ERR value is out of range"


def test_a_snapshot_keeps_what_it_saw(harness: Harness) -> None:
    run = lines(harness)
    run("HSET h a 1 b 2 c 3")
    with harness.frozen():
        for line in ("HSET h a 9", "HDEL h b", "HINCRBY h c 1", "HSETNX h n 1"):
            run(line)
    harness.replay()


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("pdefs"), st.integers(0, 6), st.integers(0, 9)), max_size=40))
def test_a_hash_agrees_with_its_model(steps: list[tuple[str, int, int]]) -> None:
    """Against two plain dicts: fields, deadlines, what is live, and the payload of a hash built afresh."""
    value = Hash()
    model: dict[bytes, bytes] = {}
    deadlines: dict[bytes, int] = {}
    for action, number, amount in steps:
        field = b"f%d" % number
        if action == "p":
            assert value.put(field, b"x" * amount) == (field not in model)
            model[field] = b"x" * amount
            deadlines.pop(field, None)
        elif action == "d":
            assert value.remove(field) == (model.pop(field, None) is not None)
            deadlines.pop(field, None)
        elif action == "s" and field in model:
            value.set_deadline(field, amount)
            deadlines[field] = amount
        elif action == "f":
            assert value.forget_deadline(field) == (deadlines.pop(field, None) is not None)
        elif action == "e":
            due = sorted((deadline, name) for name, deadline in deadlines.items() if deadline < amount)
            assert value.remove_expired(amount, 3) == [name for _, name in due[:3]]
            for _, name in due[:3]:
                del model[name], deadlines[name]
        live = {name: content for name, content in model.items() if deadlines.get(name, amount) >= amount}
        assert dict(value.live_items(amount)) == live
        assert value.live(field, amount) == live.get(field)
        assert value.may_have_expired(amount) or len(live) == len(model)
        assert (value.deadlines or {}) == deadlines
    twin = Hash()
    for name, content in model.items():
        twin.put(name, content)
    for name, deadline in deadlines.items():
        twin.set_deadline(name, deadline)
    assert dict(value.fields.items()) == model
    assert value.payload == twin.payload


def test_the_schedule_of_a_hash_stays_small() -> None:
    value = Hash()
    value.put(b"f", b"")
    moments = random.Random(5)
    for _ in range(1000):
        value.set_deadline(b"f", moments.randrange(10**6))
    assert len(value.schedule) <= 66
    assert value.remove_expired(10**6, 10) == [b"f"]
