"""Deadlines of hash fields: setting, reading, expiring, and what writes make of expired fields. As Valkey 9.1."""

from __future__ import annotations

import pytest
from support.store_harness import START, Harness, event_class, lines, named

from kevynode.reply import OK
from kevynode.store.commands.hash_fields import expire_fields
from kevynode.store.journal import Event

WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
NOT_INTEGER = "ERR value is not an integer or out of range"
NUMBER_OF_FIELDS = "ERR numfields should be greater than 0 and match the provided number of fields"
SYNTAX = "ERR syntax error"
HASH = event_class("h")
GENERIC = event_class("g")
HEXPIRED: Event = (HASH, b"hexpired", b"h")
HSET: Event = (HASH, b"hset", b"h")
HEXPIRE: Event = (HASH, b"hexpire", b"h")
DEL: Event = (GENERIC, b"del", b"h")
LATER = START + 100_000


@pytest.fixture
def harness() -> Harness:
    harness = Harness()
    lines(harness)("HSET h a 1 b 2 c 3")
    return harness


@pytest.fixture
def expired(harness: Harness) -> Harness:
    """Fields a and b have expired, c has 100 seconds left."""
    run = lines(harness)
    run("HPEXPIRE h 5 FIELDS 2 a b")
    run(f"HPEXPIREAT h {LATER + 6} FIELDS 1 c")
    harness.now += 6
    return harness


def sweep(harness: Harness, limit: int = 100) -> int:
    harness.group = []
    removed = expire_fields(harness.store, b"h", limit)
    harness.store.commit()
    return removed


class TestSetting:
    @pytest.mark.parametrize(
        ("line", "deadline"),
        [
            ("HEXPIRE h 100", LATER),
            ("HPEXPIRE h 100000", LATER),
            (f"HEXPIREAT h {LATER // 1000}", LATER),
            (f"hpexpireat h {LATER}", LATER),
            ("HPEXPIREAT h 9223372036854775807", 2**63 - 1),
        ],
    )
    def test_is_told_as_a_moment(self, harness: Harness, line: str, deadline: int) -> None:
        run = lines(harness)
        assert run(f"{line} FIELDS 3 a z a") == [1, -2, 1]
        assert harness.commands == [(b"HPEXPIREAT", b"h", b"%d" % deadline, b"FIELDS", b"1", b"a")]
        assert harness.events == [HEXPIRE]
        assert run("HPEXPIRETIME h FIELDS 3 a b z") == [deadline, -1, -2]
        assert b"h" in harness.store.field_deadline_keys
        harness.replay()

    def test_conditions(self, harness: Harness) -> None:
        run = lines(harness)
        assert run("HEXPIRE h 100 NX FIELDS 2 a a") == [1, 0]
        assert run("HEXPIRE h 100 XX FIELDS 2 a b") == [1, 0]
        assert run("HEXPIRE h 100 gt FIELDS 2 a b") == [0, 0]
        assert harness.commands == []
        assert run("HEXPIRE h 200 GT XX FIELDS 2 a b") == [1, 0]
        assert run("HEXPIRE h 200 LT FIELDS 2 a b") == [0, 1]
        assert run("HEXPIRE h 50 LT XX FIELDS 3 a b c") == [1, 1, 0]
        harness.replay()

    @pytest.mark.parametrize("line", ["HEXPIRE h 0", "HPEXPIRE h 0", "HEXPIREAT h 1", f"HPEXPIREAT h {START}"])
    def test_a_moment_that_has_passed_removes(self, harness: Harness, line: str) -> None:
        run = lines(harness)
        assert run(f"{line} FIELDS 3 a a z") == [2, -2, -2]
        assert harness.commands == [(b"HDEL", b"h", b"a")]
        assert harness.events == [HEXPIRED]
        assert run(f"{line} GT FIELDS 1 b") == [0]
        assert run(f"{line} FIELDS 2 b c") == [2, 2]
        assert harness.events == [HEXPIRED, DEL]
        assert b"h" not in harness.store.field_deadline_keys
        assert harness.store.expired_fields == 3
        assert run(f"{line} FIELDS 2 b c") == [-2, -2]
        harness.replay()

    @pytest.mark.parametrize(
        ("words", "error"),
        [
            ("x FIELDS 1 a", NOT_INTEGER),
            ("x FIELDS 2 a", NUMBER_OF_FIELDS),
            ("1 FIELDS 0 a", NUMBER_OF_FIELDS),
            ("1 FIELDS -1 a", NUMBER_OF_FIELDS),
            ("1 FIELDS 1 a b", NUMBER_OF_FIELDS),
            ("1 FIELDS x a", NOT_INTEGER),
            ("1 NX 1 a", NUMBER_OF_FIELDS),
            ("1 FOO FIELDS 1 a", "ERR Unsupported option FOO"),
            ("1 NX XX FOO FIELDS 1 a", "ERR Unsupported option FOO"),
            ("1 NX XX FIELDS 1 a", "ERR NX and XX, GT or LT options at the same time are not compatible"),
            ("1 GT LT FIELDS 1 a", "ERR GT and LT options at the same time are not compatible"),
            ("-1 FIELDS 1 a", "ERR invalid expire time in 'hexpire' command"),
            ("9223372036854775 FIELDS 1 a", "ERR invalid expire time in 'hexpire' command"),
            ("1 FIELDS 1 a", WRONG_TYPE),
        ],
    )
    def test_errors(self, harness: Harness, words: str, error: str) -> None:
        harness.call("SET", "s", "1")
        assert harness.text("HEXPIRE", "s", *words.split()) == error

    def test_without_a_hash(self, harness: Harness) -> None:
        assert lines(harness)("HEXPIRE none 0 FIELDS 2 a b") == [-2, -2]

    def test_a_copy_keeps_a_moment_that_has_passed(self, harness: Harness) -> None:
        harness.store.deletes_expired = False
        assert lines(harness)("HPEXPIREAT h 5 FIELDS 1 a") == [1]
        assert lines(harness)("HMGET h a b") == [None, b"2"]
        assert lines(harness)("HLEN h") == 3


class TestReading:
    def test_what_is_left(self, harness: Harness) -> None:
        run = lines(harness)
        run("HPEXPIRE h 1500 FIELDS 1 a")
        run("HPEXPIRE h 1499 FIELDS 1 b")
        assert run("HTTL h FIELDS 4 a b c z") == [2, 1, -1, -2]
        assert run("HPTTL h fields 3 a b c") == [1500, 1499, -1]
        assert run("HEXPIRETIME h FIELDS 2 a b") == [(START + 2000) // 1000, (START + 1000) // 1000]
        assert run("HTTL none FIELDS 2 a b") == [-2, -2]

    @pytest.mark.parametrize("name", ["HTTL", "HPTTL", "HEXPIRETIME", "HPEXPIRETIME"])
    def test_errors(self, harness: Harness, name: str) -> None:
        harness.call("SET", "s", "1")
        assert harness.text(name, "s", "FIELDS", 1, "a") == WRONG_TYPE
        assert harness.text(name, "s", "FIELDS", 2, "a") == SYNTAX
        assert harness.text(name, "s", "FIELDS", 0, "a") == SYNTAX
        assert harness.text(name, "s", "FOO", "x", "a") == SYNTAX
        assert harness.text(name, "s", "FIELDS", "x", "a") == NOT_INTEGER

    def test_expired_fields_are_hidden_but_counted(self, expired: Harness) -> None:
        run = lines(expired)
        assert run("HLEN h") == 3
        assert run("HGETALL h") == {b"c": b"3"}
        assert run("HMGET h a b c") == [None, None, b"3"]
        assert run("HGET h a") is None
        assert run("HKEYS h") == [b"c"]
        assert run("HVALS h") == [b"3"]
        assert run("HSCAN h 0") == [b"0", [b"c", b"3"]]
        assert run("HEXISTS h a") == run("HSTRLEN h a") == 0
        assert run("HTTL h FIELDS 2 a c") == [-2, 100]
        assert run("HRANDFIELD h 10") == [b"c"]
        assert run("HRANDFIELD h -3") == [b"c", b"c", b"c"]
        assert run("HRANDFIELD h") == b"c"

    def test_a_hash_of_expired_fields_is_still_there(self, expired: Harness) -> None:
        run = lines(expired)
        run("HPEXPIRE h 5 FIELDS 1 c")
        expired.now += 6
        assert run("HLEN h") == 3
        assert run("HGETALL h") == {}
        assert run("HRANDFIELD h") is None
        assert run("HRANDFIELD h 3") == run("HRANDFIELD h -3 WITHVALUES") == []

    def test_random_fields_of_a_large_hash_of_expired_fields(self, harness: Harness) -> None:
        fields = [f"f{number}" for number in range(2000)]
        harness.call("HSET", "h", *(word for field in fields for word in (field, 1)))
        harness.call("HPEXPIRE", "h", 5, "FIELDS", 2000, *fields)
        harness.now += 6
        assert harness.call("HRANDFIELD", "h") in (b"a", b"b", b"c")
        assert sorted(harness.call("HRANDFIELD", "h", 5)) == [b"a", b"b", b"c"]
        assert set(harness.call("HRANDFIELD", "h", -5)) <= {b"a", b"b", b"c"}


class TestWritesMeetExpiredFields:
    """For a write, an expired field is not there; overwriting one publishes that it expired."""

    @pytest.mark.parametrize(
        ("line", "reply"),
        [
            ("HDEL h a b", 0),
            ("HGETDEL h FIELDS 1 a", [None]),
            ("HGETEX h EX 100 FIELDS 1 a", [None]),
            ("HGETEX h PERSIST FIELDS 1 a", [None]),
            ("HGETEX h EX 0 FIELDS 1 a", [None]),
            ("HPERSIST h FIELDS 1 a", [-2]),
            ("HEXPIRE h 100 FIELDS 1 a", [-2]),
            ("HEXPIRE h 0 FIELDS 1 a", [-2]),
            ("HSETEX h FXX FIELDS 1 a 3", 0),
        ],
    )
    def test_not_there(self, expired: Harness, line: str, reply: object) -> None:
        assert lines(expired)(line) == reply
        assert expired.commands == []
        assert expired.call("HLEN", "h") == 3

    @pytest.mark.parametrize(
        ("line", "reply", "events", "deadline"),
        [
            ("HSET h a 9", 1, [HEXPIRED, HSET], None),
            ("HSET h a 9 b 9 c 9", 2, [HEXPIRED, HSET], None),
            ("HMSET h a 9", OK, [HEXPIRED, HSET], None),
            ("HSETNX h a 9", 1, [HEXPIRED, HSET], None),
            ("HINCRBY h a 9", 9, [HEXPIRED, (HASH, b"hincrby", b"h")], None),
            ("HINCRBYFLOAT h a 9", b"9", [HEXPIRED, (HASH, b"hincrbyfloat", b"h")], None),
            ("HSETEX h FNX FIELDS 1 a 9", 1, [HEXPIRED, HSET], None),
            ("HSETEX h KEEPTTL FIELDS 1 a 9", 1, [HEXPIRED, HSET], None),
            (f"HSETEX h PXAT {LATER} FIELDS 1 a 9", 1, [HEXPIRED, HSET, HEXPIRE], LATER),
        ],
    )
    def test_overwritten(
        self, expired: Harness, line: str, reply: object, events: list[Event], deadline: int | None
    ) -> None:
        assert lines(expired)(line) == reply
        assert expired.events == events
        assert expired.call("HGET", "h", "a") == b"9"
        assert expired.call("HPEXPIRETIME", "h", "FIELDS", 1, "a") == [-1 if deadline is None else deadline]
        assert expired.store.expired_fields >= 1
        expired.replay()


class TestWritesMeetDeadlines:
    @pytest.fixture
    def bound(self, harness: Harness) -> Harness:
        harness.call("HPEXPIREAT", "h", LATER, "FIELDS", 2, "a", "b")
        return harness

    @pytest.mark.parametrize("line", ["HSET h a 5", "HSET h n 1 a 5", "HMSET h a 5", "HSETEX h FIELDS 1 a 5"])
    def test_setting_takes_the_deadline_away(self, bound: Harness, line: str) -> None:
        run = lines(bound)
        run(line)
        assert run("HPEXPIRETIME h FIELDS 2 a b") == [-1, LATER]
        bound.replay()

    @pytest.mark.parametrize(("line", "total"), [("HINCRBY h a 5", b"6"), ("HINCRBYFLOAT h a 0.5", b"1.5")])
    def test_counting_keeps_it(self, bound: Harness, line: str, total: bytes) -> None:
        run = lines(bound)
        run(line)
        # A copy must not add to what its own clock may have hidden.
        assert bound.commands == [
            (b"HSET", b"h", b"a", total),
            (b"HPEXPIREAT", b"h", b"%d" % LATER, b"FIELDS", b"1", b"a"),
        ]
        assert run("HPEXPIRETIME h FIELDS 1 a") == [LATER]
        run("HINCRBY h c 1")
        assert bound.commands == [(b"HSET", b"h", b"c", b"4")]
        bound.replay()

    def test_persist(self, bound: Harness) -> None:
        run = lines(bound)
        assert run("HPERSIST h FIELDS 4 a a c z") == [1, -1, -1, -2]
        assert bound.commands == [(b"HPERSIST", b"h", b"FIELDS", b"1", b"a")]
        assert bound.events == [(HASH, b"hpersist", b"h")]
        assert run("HPERSIST h FIELDS 1 a") == [-1]
        assert bound.commands == []
        assert run("HPERSIST none FIELDS 2 a b") == [-2, -2]
        run("SET s 1")
        assert bound.text("HPERSIST", "s", "FIELDS", 1, "a") == WRONG_TYPE
        assert bound.text("HPERSIST", "s", "FIELDS", 2, "a") == NUMBER_OF_FIELDS
        assert bound.text("HPERSIST", "s", "FOO", "x", "a") == SYNTAX
        bound.replay()

    def test_a_snapshot_keeps_them(self, bound: Harness) -> None:
        run = lines(bound)
        with bound.frozen():
            run("HPERSIST h FIELDS 1 a")
            run("HSET h b 1")
            run("HEXPIRE h 5 FIELDS 1 c")
        assert run("HPEXPIRETIME h FIELDS 3 a b c") == [-1, -1, START + 5000]


class TestHgetex:
    def test_reads(self, harness: Harness) -> None:
        assert lines(harness)("HGETEX h FIELDS 2 a z") == [b"1", None]
        assert harness.commands == []
        assert lines(harness)("HGETEX none EX 5 FIELDS 2 a z") == [None, None]

    @pytest.mark.parametrize("option", ["EX 100", "px 100000", f"EXAT {LATER // 1000}", f"PXAT {LATER}", "EX 1 EX 100"])
    def test_sets_the_deadline(self, harness: Harness, option: str) -> None:
        run = lines(harness)
        assert run(f"HGETEX h {option} FIELDS 3 a a z") == [b"1", b"1", None]
        assert harness.commands == [(b"HPEXPIREAT", b"h", b"%d" % LATER, b"FIELDS", b"1", b"a")]
        assert harness.events == [HEXPIRE]
        assert run("HGETEX h PERSIST FIELDS 2 a b") == [b"1", b"2"]
        assert harness.commands == [(b"HPERSIST", b"h", b"FIELDS", b"1", b"a")]
        assert run("HGETEX h PERSIST FIELDS 1 a") == [b"1"]
        assert harness.commands == []
        harness.replay()

    def test_removes(self, harness: Harness) -> None:
        run = lines(harness)
        assert run("HGETEX h EX 0 FIELDS 3 a a z") == [b"1", None, None]
        assert harness.commands == [(b"HDEL", b"h", b"a")]
        assert harness.events == [HEXPIRED]
        assert run("HGETEX h PXAT 1 FIELDS 2 b c") == [b"2", b"3"]
        assert harness.events == [HEXPIRED, DEL]
        harness.replay()

    @pytest.mark.parametrize(
        ("words", "error"),
        [
            ("EX x FIELDS 1 a", NOT_INTEGER),
            ("EX -1 FIELDS 1 a", "ERR invalid expire time in 'hgetex' command"),
            ("EX 9223372036854775807 FIELDS 1 a", "ERR invalid expire time in 'hgetex' command"),
            ("EX FIELDS 1 a", SYNTAX),
            ("EX 1 PX 1 FIELDS 1 a", SYNTAX),
            ("PERSIST EX 1 FIELDS 1 a", SYNTAX),
            ("KEEPTTL FIELDS 1 a", SYNTAX),
            ("FOO FIELDS 1 a", SYNTAX),
            ("FIELDS 1 a EX 100", NUMBER_OF_FIELDS),
            ("FIELDS 0 a", NUMBER_OF_FIELDS),
            ("FIELDS x a", NOT_INTEGER),
            ("1 2 3", NUMBER_OF_FIELDS),
        ],
    )
    def test_errors(self, harness: Harness, words: str, error: str) -> None:
        assert harness.text("HGETEX", "h", *words.split()) == error

    def test_type_comes_before_the_time(self, harness: Harness) -> None:
        harness.call("SET", "s", "1")
        assert harness.text("HGETEX", "s", "EX", "x", "FIELDS", 1, "a") == WRONG_TYPE

    def test_a_key_may_be_called_fields(self, harness: Harness) -> None:
        assert harness.call("HSETEX", "fields", "FIELDS", 1, "a", "1") == 1
        assert harness.call("HGETEX", "fields", "FIELDS", 1, "a") == [b"1"]


class TestHsetex:
    def test_sets_with_a_deadline(self, harness: Harness) -> None:
        run = lines(harness)
        assert run("HSETEX h EX 100 FIELDS 2 a 9 n 8") == 1
        assert harness.commands == [
            (b"HSET", b"h", b"a", b"9", b"n", b"8"),
            (b"HPEXPIREAT", b"h", b"%d" % LATER, b"FIELDS", b"2", b"a", b"n"),
        ]
        assert harness.events == [HSET, HEXPIRE]
        assert run("HSETEX h KEEPTTL FIELDS 3 a 7 b 7 a 6") == 1
        assert harness.events == [HSET]
        assert run("HMGET h a b n") == [b"6", b"7", b"8"]
        assert run("HPEXPIRETIME h FIELDS 3 a b n") == [LATER, -1, LATER]
        assert run("HSETEX h FIELDS 1 a 5") == 1
        assert run("HPEXPIRETIME h FIELDS 1 a") == [-1]
        harness.replay()

    @pytest.mark.parametrize(
        ("line", "reply"),
        [
            ("HSETEX h NX FIELDS 1 a 9", 0),
            ("HSETEX h NX EX x FIELDS 1 a 9", 0),
            ("HSETEX none NX FIELDS 1 a 9", 1),
            ("HSETEX h XX FIELDS 1 a 9", 1),
            ("HSETEX none XX FIELDS 1 a 9", 0),
            ("HSETEX h FNX FIELDS 2 n 1 a 9", 0),
            ("HSETEX h FNX FIELDS 2 n 1 n 9", 1),
            ("HSETEX none FNX FIELDS 1 a 9", 1),
            ("HSETEX h FXX FIELDS 2 n 1 a 9", 0),
            ("HSETEX h XX fxx EX 100 FIELDS 2 b 1 a 9", 1),
            ("HSETEX none FXX EX 0 FIELDS 1 a 9", 0),
        ],
    )
    def test_conditions(self, harness: Harness, line: str, reply: int) -> None:
        assert lines(harness)(line) == reply
        assert bool(harness.commands) == bool(reply)
        harness.replay()

    def test_a_moment_that_has_passed_removes(self, harness: Harness) -> None:
        run = lines(harness)
        assert run("HSETEX h EX 0 FIELDS 3 a 9 n 8 a 7") == 1
        assert harness.commands == [(b"HDEL", b"h", b"a")]
        assert harness.events == [HSET, HEXPIRE, HEXPIRED]
        assert run(f"HSETEX h PXAT {START} FIELDS 2 b 9 c 8") == 1
        assert harness.events == [HSET, HEXPIRE, HEXPIRED, DEL]
        harness.replay()

    def test_events_of_what_never_was(self, harness: Harness) -> None:
        harness.store.settings.notify_keyspace_events = HASH | GENERIC
        assert lines(harness)("HSETEX h EX 0 FIELDS 1 n 9") == 1
        assert (harness.commands, harness.unbound_events) == ([], [HSET, HEXPIRE, HEXPIRED])
        assert lines(harness)("HSETEX none EX 0 FIELDS 1 n 9") == 1
        assert [name for _, name, _ in harness.unbound_events] == [b"hset", b"hexpire", b"hexpired", b"del"]
        assert harness.store.peek(b"none") is None

    @pytest.mark.parametrize(
        ("words", "error"),
        [
            ("EX x FIELDS 1 a 1", NOT_INTEGER),
            ("EX -1 FIELDS 1 a 1", "ERR invalid expire time in 'hsetex' command"),
            ("EX 1 KEEPTTL FIELDS 1 a 1", SYNTAX),
            ("PERSIST FIELDS 1 a 1", SYNTAX),
            ("NX XX FIELDS 1 a 1", SYNTAX),
            ("FNX FXX FIELDS 1 a 1", SYNTAX),
            ("FIELDS 2 a 1 b", NUMBER_OF_FIELDS),
            ("FIELDS 1 a 1 b 2", NUMBER_OF_FIELDS),
            ("FIELDS 9223372036854775807 a 1", NUMBER_OF_FIELDS),
            ("FIELDS x a 1", NOT_INTEGER),
        ],
    )
    def test_errors(self, harness: Harness, words: str, error: str) -> None:
        assert harness.text("HSETEX", "h", *words.split()) == error

    def test_wrong_type(self, harness: Harness) -> None:
        harness.call("SET", "s", "1")
        assert harness.text("HSETEX", "s", "XX", "FIELDS", 1, "a", 1) == WRONG_TYPE


class TestSweeping:
    def test_removes_what_is_due(self, expired: Harness) -> None:
        assert sweep(expired) == 2
        assert [(command[0], *sorted(command[1:])) for command in expired.commands] == [(b"HDEL", b"a", b"b", b"h")]
        assert expired.events == [HEXPIRED]
        assert expired.store.expired_fields == 2
        assert expired.call("HLEN", "h") == 1
        assert sweep(expired) == 0
        assert expired.commands == []
        assert b"h" in expired.store.field_deadline_keys
        expired.replay()

    def test_removes_the_key_with_the_last_field(self, expired: Harness) -> None:
        expired.now = LATER + 7
        assert sweep(expired, limit=2) == 2
        assert expired.events == [HEXPIRED]
        assert sweep(expired, limit=2) == 1
        assert expired.events == [HEXPIRED, DEL]
        assert not expired.store.field_deadline_keys
        expired.replay()

    def test_a_deadline_is_the_last_moment_of_a_field(self, harness: Harness) -> None:
        harness.call("HPEXPIRE", "h", 5, "FIELDS", 1, "a")
        harness.now += 5
        assert harness.call("HGET", "h", "a") == b"1"
        assert sweep(harness) == 0
        harness.now += 1
        assert harness.call("HGET", "h", "a") is None
        assert sweep(harness) == 1

    def test_a_copy_leaves_it_to_the_stream(self, expired: Harness) -> None:
        expired.store.deletes_expired = False
        assert sweep(expired) == 0
        assert expired.call("HLEN", "h") == 3
        assert expired.call("HDEL", "h", "a") == 1

    def test_forgets_keys_without_deadlines(self, expired: Harness) -> None:
        expired.call("HSET", "h", "a", 1, "b", 2, "c", 3)
        assert sweep(expired) == 0
        assert not expired.store.field_deadline_keys
        expired.store.field_deadline_keys[b"h"] = None
        expired.store.delete(b"h")
        assert sweep(expired) == 0
        assert not expired.store.field_deadline_keys

    def test_is_no_access(self, expired: Harness) -> None:
        seen: list[bytes] = []
        expired.store.tracker = lambda shard, key: seen.append(key)
        assert sweep(expired) == 2
        assert seen == []
        assert expired.call("HLEN", "h") == 1
        assert seen == [b"h"]

    def test_events_in_order(self, expired: Harness) -> None:
        expired.call("HSET", "h", "a", 1)
        assert named(expired) == [(b"hexpired", b"h"), (b"hset", b"h")]
        assert sweep(expired) == 1
        expired.replay()
