"""The list commands: replies, errors, events, effects and what a copy makes of them. Replies are Valkey 9.1's."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.store_harness import Harness, event_class, lines, named

from kevynode.reply import NULL_ARRAY, OK
from kevynode.store.command import Blocked
from kevynode.store.values import List

WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
NOT_INTEGER = "ERR value is not an integer or out of range"
BETWEEN = "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807"
LIST = event_class("l")
GENERIC = event_class("g")


@pytest.fixture
def harness() -> Harness:
    return Harness()


def elements(harness: Harness, key: str = "l") -> list[bytes]:
    found = harness.call("LRANGE", key, 0, -1)
    assert isinstance(found, list)
    return found


class TestPush:
    def test_order_and_length(self, harness: Harness) -> None:
        run = lines(harness)
        assert run("LPUSH l a b c") == 3
        assert harness.events == [(LIST, b"lpush", b"l")]
        assert harness.commands == [(b"LPUSH", b"l", b"a", b"b", b"c")]
        assert run("RPUSH l x") == 4
        assert run("LPUSH l y") == 5
        assert run("RPUSH l z w") == 7
        assert harness.events == [(LIST, b"rpush", b"l")]
        assert elements(harness) == [b"y", b"c", b"b", b"a", b"x", b"z", b"w"]
        harness.replay()

    def test_only_onto_an_existing_list(self, harness: Harness) -> None:
        run = lines(harness)
        assert run("LPUSHX l a") == 0
        assert run("RPUSHX l a") == 0
        assert harness.commands == []
        run("RPUSH l m")
        assert run("LPUSHX l a b") == 3
        assert harness.commands == [(b"LPUSH", b"l", b"a", b"b")]
        assert run("RPUSHX l c d") == 5
        assert harness.commands == [(b"RPUSH", b"l", b"c", b"d")]
        assert elements(harness) == [b"b", b"a", b"m", b"c", b"d"]
        harness.replay()

    @pytest.mark.parametrize("name", ["LPUSH", "RPUSH", "LPUSHX", "RPUSHX"])
    def test_wrong_type(self, harness: Harness, name: str) -> None:
        harness.call("HSET", "h", "f", "v")
        assert harness.text(name, "h", "a") == WRONG_TYPE


class TestPop:
    def test_one_from_either_end(self, harness: Harness) -> None:
        run = lines(harness)
        run("RPUSH l a b c")
        assert run("LPOP l") == b"a"
        assert harness.events == [(LIST, b"lpop", b"l")]
        assert run("RPOP l") == b"c"
        assert harness.events == [(LIST, b"rpop", b"l")]
        assert run("RPOP l") == b"b"
        assert harness.events == [(LIST, b"rpop", b"l"), (GENERIC, b"del", b"l")]
        assert harness.store.peek(b"l") is None
        assert run("LPOP l") is None
        assert run("RPOP l") is None
        harness.replay()

    def test_with_a_count(self, harness: Harness) -> None:
        run = lines(harness)
        run("RPUSH l a b c d e")
        assert run("LPOP l 2") == [b"a", b"b"]
        assert run("RPOP l 2") == [b"e", b"d"]
        assert run("LPOP l 0") == []
        assert harness.commands == []
        assert run("LPOP l 9223372036854775807") == [b"c"]
        assert named(harness) == [(b"lpop", b"l"), (b"del", b"l")]
        assert run("LPOP l 1") is NULL_ARRAY
        assert run("RPOP l 0") is NULL_ARRAY
        harness.replay()

    @pytest.mark.parametrize("count", ["-1", "x", "9223372036854775808"])
    def test_bad_count(self, harness: Harness, count: str) -> None:
        harness.call("SET", "s", "1")
        assert harness.text("LPOP", "s", count) == "ERR value is out of range, must be positive"
        assert harness.text("RPOP", "missing", count) == "ERR value is out of range, must be positive"

    def test_too_many_words(self, harness: Harness) -> None:
        assert harness.text("LPOP", "l", "2", "3") == "ERR wrong number of arguments for 'lpop' command"

    def test_wrong_type(self, harness: Harness) -> None:
        harness.call("SET", "s", "1")
        assert harness.text("LPOP", "s") == WRONG_TYPE
        assert harness.text("RPOP", "s", "0") == WRONG_TYPE

    def test_of_the_first_list_that_exists(self, harness: Harness) -> None:
        run = lines(harness)
        run("RPUSH l a b c d")
        run("SET s 1")
        assert run("LMPOP 1 l LEFT") == [b"l", [b"a"]]
        assert run("LMPOP 2 none l right count 2") == [b"l", [b"d", b"c"]]
        assert harness.commands == [(b"RPOP", b"l", b"2")]
        assert run("LMPOP 2 l s LEFT COUNT 100") == [b"l", [b"b"]]
        assert named(harness) == [(b"lpop", b"l"), (b"del", b"l")]
        assert run("LMPOP 1 l LEFT") is NULL_ARRAY
        assert harness.text("LMPOP", 2, "l", "s", "LEFT") == WRONG_TYPE
        harness.replay()

    @pytest.mark.parametrize(
        ("line", "error"),
        [
            ("0 l LEFT", "ERR numkeys should be greater than 0"),
            ("x l LEFT", "ERR numkeys should be greater than 0"),
            ("99999999999999999999 l LEFT", "ERR numkeys should be greater than 0"),
            ("9223372036854775807 l LEFT", "ERR syntax error"),
            ("2 l LEFT", "ERR syntax error"),
            ("1 l UP", "ERR syntax error"),
            ("1 l LEFT COUNT", "ERR syntax error"),
            ("1 l LEFT FOO 1", "ERR syntax error"),
            ("1 l LEFT COUNT 1 COUNT 2", "ERR syntax error"),
            ("1 l LEFT COUNT 0", "ERR count should be greater than 0"),
            ("1 l LEFT COUNT x", "ERR count should be greater than 0"),
        ],
    )
    def test_bad_lmpop(self, harness: Harness, line: str, error: str) -> None:
        assert harness.text("LMPOP", *line.split()) == error
        assert harness.text("BLMPOP", "never", *line.split()) == error


class TestMove:
    @pytest.mark.parametrize(
        ("ends", "source", "destination"),
        [
            ("LEFT LEFT", [b"b", b"c"], [b"a", b"x"]),
            ("left right", [b"b", b"c"], [b"x", b"a"]),
            ("RIGHT LEFT", [b"a", b"b"], [b"c", b"x"]),
            ("RIGHT RIGHT", [b"a", b"b"], [b"x", b"c"]),
        ],
    )
    def test_between_lists(self, harness: Harness, ends: str, source: list[bytes], destination: list[bytes]) -> None:
        run = lines(harness)
        run("RPUSH l a b c")
        run("RPUSH d x")
        moved = run(f"LMOVE l d {ends}")
        assert elements(harness, "l") == source
        assert elements(harness, "d") == destination
        assert moved not in source
        assert moved in destination
        harness.replay()

    def test_push_is_published_before_pop(self, harness: Harness) -> None:
        run = lines(harness)
        run("RPUSH l a")
        assert run("LMOVE l d LEFT RIGHT") == b"a"
        assert harness.events == [(LIST, b"rpush", b"d"), (LIST, b"lpop", b"l"), (GENERIC, b"del", b"l")]
        assert harness.commands == [(b"RPUSH", b"d", b"a"), (b"LPOP", b"l")]
        harness.replay()

    def test_onto_itself(self, harness: Harness) -> None:
        run = lines(harness)
        run("RPUSH l a b c")
        run("RPUSH one x")
        run(f"PEXPIREAT one {harness.now + 1000}")
        assert run("LMOVE l l LEFT RIGHT") == b"a"
        assert elements(harness) == [b"b", b"c", b"a"]
        assert run("RPOPLPUSH l l") == b"a"
        assert elements(harness) == [b"a", b"b", b"c"]
        assert run("RPOPLPUSH one one") == b"x"
        assert named(harness) == [(b"lpush", b"one"), (b"rpop", b"one")]
        assert harness.store.deadline(b"one") == harness.now + 1000
        harness.replay()

    def test_without_a_source(self, harness: Harness) -> None:
        run = lines(harness)
        run("SET s 1")
        assert run("LMOVE none s LEFT LEFT") is None
        assert run("RPOPLPUSH none s") is None

    def test_wrong_type_changes_nothing(self, harness: Harness) -> None:
        run = lines(harness)
        run("SET s 1")
        run("RPUSH l a")
        assert harness.text("LMOVE", "l", "s", "LEFT", "LEFT") == WRONG_TYPE
        assert harness.text("RPOPLPUSH", "s", "l") == WRONG_TYPE
        assert harness.text("LMOVE", "s", "l", "LEFT", "UP") == "ERR syntax error"
        assert elements(harness) == [b"a"]


class TestChange:
    def test_set(self, harness: Harness) -> None:
        run = lines(harness)
        run("RPUSH l a b c")
        assert run("LSET l 0 x") == OK
        assert run("LSET l -1 z") == OK
        assert harness.events == [(LIST, b"lset", b"l")]
        assert elements(harness) == [b"x", b"b", b"z"]
        for index in (3, -4, 2**63 - 1):
            assert harness.text("LSET", "l", index, "q") == "ERR index out of range"
        assert harness.text("LSET", "none", "x", "q") == "ERR no such key"
        assert harness.text("LSET", "l", "x", "q") == NOT_INTEGER
        run("SET s 1")
        assert harness.text("LSET", "s", "x", "q") == WRONG_TYPE
        harness.replay()

    def test_insert(self, harness: Harness) -> None:
        run = lines(harness)
        run("RPUSH l a b c b")
        assert run("LINSERT l BEFORE b x") == 5
        assert run("LINSERT l after c y") == 6
        assert harness.events == [(LIST, b"linsert", b"l")]
        assert elements(harness) == [b"a", b"x", b"b", b"c", b"y", b"b"]
        assert run("LINSERT l BEFORE q y") == -1
        assert run("LINSERT none BEFORE q y") == 0
        assert harness.text("LINSERT", "none", "AT", "q", "y") == "ERR syntax error"
        run("SET s 1")
        assert harness.text("LINSERT", "s", "AFTER", "q", "y") == WRONG_TYPE
        harness.replay()

    @pytest.mark.parametrize("place", [0, 1, 2, 3, 7, 8, 9])
    def test_insertion_is_told_from_the_nearer_end(self, harness: Harness, place: int) -> None:
        harness.call("RPUSH", "l", *range(10))
        harness.call("PEXPIREAT", "l", harness.now + 1000)
        harness.call("LINSERT", "l", "AFTER", place, "new")
        assert sum(map(len, harness.commands)) <= 14
        assert elements(harness) == [b"%d" % n for n in range(place + 1)] + [b"new"] + [
            b"%d" % n for n in range(place + 1, 10)
        ]
        harness.replay()

    def test_insertion_into_a_long_list_is_told_in_chunks(self, harness: Harness) -> None:
        harness.call("RPUSH", "l", *range(6000))
        harness.call("LINSERT", "l", "BEFORE", 2500, "new")
        assert max(map(len, harness.commands)) <= 1002
        assert len(harness.commands) == 4
        harness.replay()

    def test_remove(self, harness: Harness) -> None:
        run = lines(harness)
        run("RPUSH l a b a b a b a")
        assert run("LREM l 2 a") == 2
        assert harness.events == [(LIST, b"lrem", b"l")]
        assert elements(harness) == [b"b", b"b", b"a", b"b", b"a"]
        assert run("LREM l -1 a") == 1
        assert elements(harness) == [b"b", b"b", b"a", b"b"]
        assert run("LREM l -2 b") == 2
        assert elements(harness) == [b"b", b"a"]
        assert run("LREM l 0 q") == 0
        assert harness.commands == []
        assert run("LREM l 0 a") == 1
        assert run("LREM l -9223372036854775807 b") == 1
        assert named(harness) == [(b"lrem", b"l"), (b"del", b"l")]
        assert run("LREM l 0 a") == 0
        assert harness.text("LREM", "l", "-9223372036854775808", "a") == BETWEEN
        assert harness.text("LREM", "l", "x", "a") == NOT_INTEGER
        harness.replay()

    def test_trim(self, harness: Harness) -> None:
        run = lines(harness)
        run("RPUSH l a b c d e")
        harness.store.settings.notify_keyspace_events = LIST
        assert run("LTRIM l 0 -1") == OK
        assert (harness.events, harness.unbound_events) == ([], [(LIST, b"ltrim", b"l")])
        assert run("LTRIM l 1 -2") == OK
        assert elements(harness) == [b"b", b"c", b"d"]
        assert run("LTRIM l -1 100") == OK
        assert elements(harness) == [b"d"]
        assert run("LTRIM l 1 0") == OK
        assert named(harness) == [(b"ltrim", b"l"), (b"del", b"l")]
        assert run("LTRIM l 1 0") == OK
        assert harness.commands == []
        assert harness.text("LTRIM", "none", "x", 1) == NOT_INTEGER
        harness.replay()


class TestRead:
    def test_range(self, harness: Harness) -> None:
        run = lines(harness)
        run("RPUSH l a b c d e")
        assert run("LRANGE l 1 3") == [b"b", b"c", b"d"]
        assert run("LRANGE l -3 -2") == [b"c", b"d"]
        assert run("LRANGE l -100 100") == [b"a", b"b", b"c", b"d", b"e"]
        assert run("LRANGE l 3 1") == run("LRANGE l 5 9") == run("LRANGE none 0 -1") == []
        assert harness.text("LRANGE", "none", 0, "x") == NOT_INTEGER
        assert harness.text("LRANGE", "none", 0, "9223372036854775808") == NOT_INTEGER
        run("SET s 1")
        assert harness.text("LRANGE", "s", 0, 1) == WRONG_TYPE

    @pytest.mark.parametrize("start", [0, 3, 511, 513, 1000, 1490, 1999])
    @pytest.mark.parametrize("length", [1, 16, 17, 700])
    def test_range_in_a_long_list(self, harness: Harness, start: int, length: int) -> None:
        harness.call("RPUSH", "l", *range(2000))
        stop = min(start + length, 2000)
        assert harness.call("LRANGE", "l", start, stop - 1) == [b"%d" % number for number in range(start, stop)]

    def test_index_and_length(self, harness: Harness) -> None:
        run = lines(harness)
        run("RPUSH l a b c")
        assert [run(f"LINDEX l {index}") for index in (0, 2, 3, -1, -3, -4)] == [b"a", b"c", None, b"c", b"a", None]
        assert run("LINDEX none x") is None
        assert harness.text("LINDEX", "l", "x") == NOT_INTEGER
        assert (run("LLEN l"), run("LLEN none")) == (3, 0)
        run("SET s 1")
        assert harness.text("LINDEX", "s", "x") == WRONG_TYPE
        assert harness.text("LLEN", "s") == WRONG_TYPE

    @pytest.mark.parametrize(
        ("options", "reply"),
        [
            ("", 2),
            ("RANK 2", 6),
            ("RANK -1", 7),
            ("RANK 5", None),
            ("RANK 9223372036854775807", None),
            ("RANK -9223372036854775807", None),
            ("RANK 1 RANK 2", 6),
            ("COUNT 2", [2, 6]),
            ("COUNT 0", [2, 6, 7]),
            ("COUNT 0 RANK -2", [6, 2]),
            ("RANK 5 COUNT 0", []),
            ("MAXLEN 2", None),
            ("MAXLEN 3", 2),
            ("count 0 maxlen 7", [2, 6]),
            ("COUNT 0 MAXLEN 0", [2, 6, 7]),
            ("RANK -1 COUNT 2 MAXLEN 1", [7]),
        ],
    )
    def test_position(self, harness: Harness, options: str, reply: object) -> None:
        harness.call("RPUSH", "l", *"abc123cc")
        assert harness.call("LPOS", "l", "c", *options.split()) == reply

    @pytest.mark.parametrize(
        ("options", "error"),
        [
            ("RANK x", NOT_INTEGER),
            ("RANK -9223372036854775808", BETWEEN),
            (
                "RANK 0",
                "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to"
                " start from the end of the list",
            ),
            ("COUNT -1", "ERR COUNT can't be negative"),
            ("COUNT x", "ERR COUNT can't be negative"),
            ("MAXLEN -1", "ERR MAXLEN can't be negative"),
            ("FOO 1", "ERR syntax error"),
            ("RANK", "ERR syntax error"),
        ],
    )
    def test_bad_position(self, harness: Harness, options: str, error: str) -> None:
        assert harness.text("LPOS", "none", "c", *options.split()) == error

    def test_position_of_nothing(self, harness: Harness) -> None:
        assert harness.call("LPOS", "none", "c") is None
        assert harness.call("LPOS", "none", "c", "COUNT", 1) == []


class TestBlocking:
    def test_served_at_once(self, harness: Harness) -> None:
        run = lines(harness)
        run("RPUSH l a b c d e f")
        assert run("BLPOP none l 0") == [b"l", b"a"]
        assert harness.commands == [(b"LPOP", b"l", b"1")]
        assert run("BRPOP l 1.5") == [b"l", b"f"]
        assert run("BLMPOP 0 1 l LEFT COUNT 2") == [b"l", [b"b", b"c"]]
        assert run("BLMOVE l d LEFT RIGHT 0") == b"d"
        assert named(harness) == [(b"rpush", b"d"), (b"lpop", b"l")]
        assert run("BRPOPLPUSH l d 0") == b"e"
        assert named(harness) == [(b"lpush", b"d"), (b"rpop", b"l"), (b"del", b"l")]
        harness.replay()

    @pytest.mark.parametrize(
        ("line", "keys"),
        [
            ("BLPOP a b {}", [b"a", b"b"]),
            ("BRPOP a {}", [b"a"]),
            ("BLMPOP {} 2 a b LEFT COUNT 3", [b"a", b"b"]),
            ("BLMOVE a s LEFT RIGHT {}", [b"a"]),
            ("BRPOPLPUSH a s {}", [b"a"]),
        ],
    )
    def test_waits(self, harness: Harness, line: str, keys: list[bytes]) -> None:
        run = lines(harness)
        run("SET s 1")
        for timeout, milliseconds in (("0", 0), ("0.0001", 1), ("1.5", 1500)):
            blocked = run(line.format(timeout))
            assert isinstance(blocked, Blocked)
            assert (list(blocked.keys), blocked.timeout, blocked.kind) == (keys, milliseconds, List)
            assert blocked.on_timeout is NULL_ARRAY
            assert harness.commands == []
        for timeout, error in (
            ("x", "is not a float or out of range"),
            ("-1", "is negative"),
            ("inf", "is out of range"),
        ):
            assert harness.text(*line.format(timeout).split()) == f"ERR timeout {error}"

    def test_wrong_type(self, harness: Harness) -> None:
        run = lines(harness)
        run("SET s 1")
        run("RPUSH l a")
        assert harness.text("BLPOP", "none", "s", "l", 0) == WRONG_TYPE
        assert harness.text("BLMOVE", "l", "s", "LEFT", "LEFT", 0) == WRONG_TYPE
        assert harness.text("BLMOVE", "l", "s", "LEFT", "UP", "x") == "ERR syntax error"
        assert elements(harness) == [b"a"]


def test_a_snapshot_keeps_what_it_saw(harness: Harness) -> None:
    run = lines(harness)
    run("RPUSH l a b c d")
    run("RPUSH m x")
    with harness.frozen():
        for line in (
            "LSET l 0 z",
            "LREM l 1 b",
            "LTRIM l 0 1",
            "LMOVE m l LEFT LEFT",
            "LINSERT l AFTER z n",
            "LPOP l 9",
        ):
            run(line)
    harness.replay()


def test_replies_look_the_same_in_both_protocols(harness: Harness) -> None:
    lines(harness)("RPUSH l a b")
    assert harness.wire(2, "LPOP", "none", 1) == b"*-1\r\n"
    assert harness.wire(3, "LPOP", "none", 1) == b"_\r\n"
    assert harness.wire(2, "LPOP", "none") == b"$-1\r\n"
    assert harness.wire(2, "LMOVE", "none", "d", "LEFT", "LEFT") == b"$-1\r\n"
    assert harness.wire(2, "LMPOP", 1, "none", "LEFT") == b"*-1\r\n"
    assert harness.wire(3, "LMPOP", 1, "l", "LEFT") == b"*2\r\n$1\r\nl\r\n*1\r\n$1\r\na\r\n"


ELEMENTS = st.lists(st.sampled_from([b"a", b"b", b"c"]), max_size=24)


@settings(deadline=None)
@given(ELEMENTS, st.sampled_from([b"a", b"b"]), st.integers(-4, 4))
def test_remove_is_what_one_by_one_gives(content: list[bytes], element: bytes, count: int) -> None:
    value = List()
    value.extend_right(content)
    expected = deque(content if count >= 0 else reversed(content))
    left = abs(count) or len(content)
    removed = 0
    while left and element in expected:
        expected.remove(element)
        left -= 1
        removed += 1
    assert value.remove(element, count) == removed
    assert list(value.elements) == list(expected if count >= 0 else reversed(expected))
    again = List()
    again.assign(value.elements)
    assert value.payload == again.payload


@settings(deadline=None)
@given(ELEMENTS, st.data())
def test_trim_keeps_the_range(content: list[bytes], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(content)))
    stop = data.draw(st.integers(start, len(content)))
    value = List()
    value.extend_left(content[::-1])
    value.trim(start, stop)
    assert list(value.elements) == content[start:stop]
    again = List()
    again.assign(content[start:stop])
    assert value.payload == again.payload
