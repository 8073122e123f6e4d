"""What a primary streams, applied to a copy: canonical effects whatever the copy's clock says, and kevy's own ways."""

from __future__ import annotations

import random
from typing import Any

import pytest
from support.store_harness import START, Content, Harness, check_memory, content
from unit.test_journal_replay import Workload

from kevynode.store import notify
from kevynode.store.access import follow_policy, idle_seconds
from kevynode.store.apply import Applier, ApplyError
from kevynode.store.command import TABLE
from kevynode.store.rebuild import rebuild_commands
from kevynode.store.store import Store

HOUR = 3_600_000


def copy_at(now: int, lenient: bool = False) -> Applier:
    """An applier for an empty copy whose clock shows ``now``."""
    store = Store(random.Random(2))
    store.deletes_expired = False
    store.now = now
    return Applier(store, TABLE, lenient)


def apply_lines(applier: Applier, *lines: str) -> None:
    applier.apply_all([line.encode().split() for line in lines])
    applier.store.commit()


def held(applier: Applier) -> Content:
    return content(applier.store)


# -- canonical effects, whatever the time -----------------------------------------------------------------------------

SETUP = [
    "SET s 10 PXAT {soon}",
    "RPUSH l a b c",
    "PEXPIREAT l {soon}",
    "HSET h f 1 g 2 n 3",
    "HPEXPIREAT h {soon} FIELDS 2 f g",
    "HSET k f 1 g 2",
    "PEXPIREAT k {soon}",
    "SADD m a b",
    "PEXPIREAT m {soon}",
    "ZADD z 1 a 2 b",
    "PEXPIREAT z {soon}",
]


@pytest.mark.parametrize("skew", [0, HOUR, -HOUR], ids=["same time", "ahead", "behind"])
@pytest.mark.parametrize(
    "line",
    """SET s new|SET s new KEEPTTL|SET s new GET|SETEX s 5 new|APPEND s 5|INCR s|DECRBY s 3|INCRBYFLOAT s 0.5|GETDEL s
    SETRANGE s 1 x|SETBIT s 1 1|GETEX s PERSIST|PERSIST s|PEXPIREAT s {later}|PEXPIREAT s {past}|DEL s l h k m z
    UNLINK s|RENAME s t|RENAME s l|COPY s t|COPY s l REPLACE|RENAME h t|COPY h t|MSET s 1 l 2|EXPIRE s 5 GT|DELIFEQ s 10
    LPUSH l x|RPUSH l x y|LPOP l|RPOP l 2|LPOP l 5|LSET l 0 x|LINSERT l AFTER b x|LREM l 1 b|LTRIM l 1 1|LTRIM l 5 9
    LMOVE l l LEFT RIGHT|LMOVE l q LEFT RIGHT|SORT l ALPHA STORE q|SORT l ALPHA STORE l
    HSET h f 5|HSETNX h x 1|HINCRBY h f 3|HINCRBY h n 3|HINCRBYFLOAT h f 0.5|HDEL h f|HDEL h f g n|HPERSIST h FIELDS 1 f
    HPEXPIREAT h {past} FIELDS 1 f|HPEXPIREAT h {past} FIELDS 3 f g n|HPEXPIREAT h {later} FIELDS 2 f n
    HGETEX h PERSIST FIELDS 1 f|HGETDEL h FIELDS 1 f|HSETEX h KEEPTTL FIELDS 1 f 9|HSETEX h PX 5 FIELDS 1 x 9
    HSET k f 5|HINCRBY k f 1|HDEL k f g|HPEXPIREAT k {later} FIELDS 1 f
    SADD m c|SREM m a|SREM m a b|SMOVE m q a|SPOP m|SUNIONSTORE m m|SINTERSTORE q m
    ZADD z 3 c|ZADD z 5 a|ZINCRBY z 2 a|ZREM z a b|ZPOPMIN z|ZUNIONSTORE z 1 z|FLUSHALL""".replace("\n", "|").split(
        "|"
    ),
)
def test_effects_mean_the_same_when_the_deadlines_have_passed_here(line: str, skew: int) -> None:
    times = {"soon": START + 1000, "later": START + 9000, "past": START - 5}
    primary = Harness()
    copy = copy_at(0)
    store = copy.store
    for words in [*SETUP, line.strip()]:
        reply = primary.call(*words.format(**times).split())
        assert not isinstance(reply, Exception), reply
        store.now = START + skew
        for command in primary.commands:
            copy.apply(command)
            store.commit()
    assert primary.group
    assert held(copy) == primary.content()
    check_memory(store)
    assert store.now == START + skew
    # Now they expire at the primary too, which says so.
    primary.now += 5000
    for key in list(primary.content()):
        primary.group = []
        primary.store.lookup(key)
        primary.store.commit()
        copy.apply_all(primary.commands)
        store.commit()
    assert held(copy) == primary.content()


@pytest.mark.parametrize("skew", [-10_000_000, 10_000_000, None], ids=["behind", "ahead", "to and fro"])
@pytest.mark.parametrize("seed", range(20, 24))
def test_a_copy_with_another_clock_holds_the_same(seed: int, skew: int | None) -> None:
    work = Workload(seed)
    for _ in range(500):
        work.step()
    draw = random.Random(seed)
    copy = copy_at(0)
    for _, now, group in work.groups:
        copy.store.now = now + (draw.randrange(-500, 500) if skew is None else skew)
        copy.apply_all([command for command, _, _ in group])
        copy.store.commit()
    check_memory(copy.store)
    assert held(copy) == content(work.node.store)


def test_what_has_expired_is_hidden_from_readers_and_kept() -> None:
    reader = Harness(START + HOUR)
    reader.store.deletes_expired = False
    applier = Applier(reader.store)
    soon = START + 1000
    apply_lines(applier, "SET s 1", f"PEXPIREAT s {soon}", "HSET h f 1 g 2", f"HPEXPIREAT h {soon} FIELDS 1 f")
    before = held(applier)
    call = reader.call
    assert call("GET", "s") is None
    assert call("EXISTS", "s") == 0
    assert call("TTL", "s") == -2
    assert call("KEYS", "*") == [b"h"]
    assert call("SCAN", "0") == [b"0", [b"h"]]
    assert call("OBJECT", "ENCODING", "s") is None
    assert call("HGET", "h", "f") is None
    assert call("HMGET", "h", "f", "g") == [None, b"2"]
    assert call("HRANDFIELD", "h") == b"g"
    assert call("RANDOMKEY") == b"h"
    assert held(applier) == before
    check_memory(reader.store)


def test_what_is_written_over_something_hidden_is_not_hidden() -> None:
    # A copy that lets its clients write.
    writer = Harness(START + HOUR)
    writer.store.deletes_expired = False
    applier = Applier(writer.store)
    apply_lines(applier, "SET s 1", f"PEXPIREAT s {START}", "RPUSH l a", f"PEXPIREAT l {START}")
    assert writer.call("INCR", "s") == 1
    assert writer.call("GET", "s") == b"1"
    assert writer.call("RPUSH", "l", "b") == 1
    assert writer.call("LRANGE", "l", "0", "-1") == [b"b"]
    check_memory(writer.store)


def test_accesses_are_noted_at_the_time_they_are() -> None:
    copy = copy_at(START)
    store = copy.store
    store.settings.maxmemory_policy = "allkeys-lru"
    follow_policy(store)
    tracker = store.tracker
    apply_lines(copy, "SET s 1", "RPUSH l a")
    assert store.tracker is tracker
    store.now += 7000
    apply_lines(copy, "RPUSH l b")
    store.now += 2000
    shard = next(store.keyspace.shards())
    assert [idle_seconds(store, shard, key) for key in (b"s", b"l")] == [9, 2]


# -- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("GET s", "not a command that is streamed"),
        ("COPY s t", "not a command that is streamed"),
        ("GETEX s PERSIST", "not a command that is streamed"),
        ("NONSENSE s", "not a command that is streamed"),
        ("LPUSH s x", "WRONGTYPE"),
        ("INCR s", "not an integer"),
        ("SET s", "wrong number of arguments"),
        ("XADD x 5-5 f", "wrong number of arguments"),
        ("XADD x 1-1 f v", "equal or smaller"),
        ("DEL absent", "0 changes instead of one"),
        ("LTRIM l 0 -1", "0 changes instead of one"),
        ("DEL l s", "2 changes instead of one"),
        ("XDEL x 7-7", "0 changes instead of one"),
    ],
)
def test_an_effect_that_does_not_apply_is_never_passed_over(line: str, reason: str) -> None:
    copy = copy_at(START)
    apply_lines(copy, "SET s text", "RPUSH l a b", "XADD x 1-1 f v")
    with pytest.raises(ApplyError, match=reason) as caught:
        apply_lines(copy, "SET t 1", "SET u 2", line, "SET v 3")
    error = caught.value
    words = line.encode().split()
    assert (error.name, error.key, error.applied) == (words[0], words[1], 2)
    assert [command[1] for command, _, _ in copy.store.journal.pending[:2]] == [b"t", b"u"]
    assert copy.store.now == START
    assert copy.store.peek(b"v") is None


def test_a_handler_that_breaks_is_never_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    for lenient in (False, True):
        copy = copy_at(START, lenient)
        monkeypatch.setattr(copy.store, "tracker", lambda shard, key: 1 // 0)
        with pytest.raises(ApplyError, match="ZeroDivisionError"):
            copy.apply([b"SET", b"s", b"1"])
        assert copy.store.now == START
        with pytest.raises(ApplyError, match="IndexError"):
            copy.apply([])


def test_names_are_read_in_any_case() -> None:
    copy = copy_at(START)
    apply_lines(copy, "set s 1", "Set s 2", "iNcR s", "xadd x 1-1 f v", "Xgroup crEate x g $")
    assert held(copy)[b"s"] == (b"3", None)
    assert held(copy)[b"x"][0][-1] == {b"g": ((1, 1), set(), {})}


def test_no_limit_of_this_node_stops_an_effect() -> None:
    copy = copy_at(START)
    copy.store.settings.proto_max_bulk_len = 4
    apply_lines(copy, "SET s 12345678", "APPEND s 90")
    assert held(copy) == {b"s": (b"1234567890", None)}


# -- kevy's own ways --------------------------------------------------------------------------------------------------


def final(applier: Applier) -> Any:
    """What is held, containers as plain values, with what counts of their memory left out."""
    plain: dict[bytes, Any] = {}
    for key, (value, deadline) in held(applier).items():
        shown = value
        if isinstance(value, tuple):
            shown = value[1]
            if value[0] == "hash" and value[2]:
                shown = value[1:3]
        plain[key] = shown if deadline is None else (shown, deadline - START)
    return plain


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("SETEX s 5 v", {b"s": (b"v", 5000)}),
        ("PSETEX s 5 v", {b"s": (b"v", 5)}),
        ("SET s v EX 5", {b"s": (b"v", 5000)}),
        ("set s v px 5 nx", {b"s": (b"v", 5)}),
        ("SET s v XX EX 5", {}),
        ("SET s ex|SET s v IFEQ ex EX 9", {b"s": (b"v", 9000)}),
        ("SET s v|SET s w GET EX 1", {b"s": (b"w", 1000)}),
        ("SET s v EX 5|SET s w KEEPTTL", {b"s": (b"w", 5000)}),
        ("SET s v EX 0|SETEX s -1 v|SET s v EX x|SET s v EX", {}),
        ("SET s v|EXPIRE s 5", {b"s": (b"v", 5000)}),
        ("SET s v|PEXPIRE s 5|EXPIRE s 9 NX", {b"s": (b"v", 5)}),
        ("SET s v|EXPIRE s 5|PERSIST s", {b"s": b"v"}),
        ("SET s v|EXPIREAT s 99999999999", {b"s": (b"v", 99999999999000 - START)}),
        ("SETNX s v|SETNX s w", {b"s": b"v"}),
        ("SET s v|GETSET s w", {b"s": b"w"}),
        ("SET s v|GETDEL s|GETDEL s", {}),
        ("SET s 1|INCRBYFLOAT s 0.25|INCRBYFLOAT s x", {b"s": b"1.25"}),
        ("RPUSH l a b c d|LPOP l 2|RPOP l|LPOP l 0", {b"l": [b"c"]}),
        ("RPUSH l a|LPOP l 9|LPOP l 9", {}),
        ("LPOP l|DEL l|SREM m x|HDEL h f|ZREM z a|LTRIM l 0 1|PERSIST x|EXPIRE x 5", {}),
        ("SET s v|LPUSH s x|HSET s f v|INCR s|XADD s * f v|ZADD s 1 m", {b"s": b"v"}),
        ("ZINCRBY z 1.5 m|ZINCRBY z 1 m", {b"z": {b"m": 2.5}}),
        ("HSET h f 1|HSETNX h f 2|HINCRBY h f 5", {b"h": {b"f": b"6"}}),
        ("HSET h f 1 g 2|HEXPIRE h 5 FIELDS 1 f", {b"h": ({b"f": b"1", b"g": b"2"}, {b"f": START + 5000})}),
        ("HSET h f 1|HPEXPIRE h 5 NX FIELDS 1 f|HPERSIST h FIELDS 1 f", {b"h": {b"f": b"1"}}),
        ("MSET a 1 b 2|RENAME a c|RENAME a d", {b"c": b"1", b"b": b"2"}),
        ("SADD m a|SPOP m|GETEX s EX 5|GET s|NONSENSE|XREADGROUP GROUP g c STREAMS s >", {b"m": {b"a"}}),
        ("FLUSHDB|SET s v|FLUSHALL", {}),
    ],
)
def test_a_kevy_primarys_frames_are_applied_as_its_replicas_do(lines: str, expected: object) -> None:
    applier = copy_at(START, lenient=True)
    apply_lines(applier, *lines.split("|"))
    assert final(applier) == expected
    check_memory(applier.store)
    assert applier.store.now == START


def test_what_fails_in_a_kevy_stream_is_reported() -> None:
    applier = copy_at(START, lenient=True)
    heard: list[ApplyError] = []
    apply_lines(applier, "SET s v", "LPUSH s x")
    applier.on_ignored = heard.append
    apply_lines(applier, "SET t v", "INCR s", "NONSENSE", "DEL nothing")
    assert applier.ignored == 3
    assert [(error.name, error.key) for error in heard] == [(b"INCR", b"s"), (b"NONSENSE", None)]
    assert "not an integer" in heard[0].reason


def test_a_kevy_primary_does_not_say_what_has_expired() -> None:
    applier = copy_at(START, lenient=True)
    store = applier.store
    apply_lines(
        applier,
        *"RPUSH l a|EXPIRE l 5|SET s 5 EX 5|SADD m a|EXPIRE m 50|HSET h f 5 g 1|HPEXPIRE h 9 FIELDS 1 f|SET n 1|"
        "EXPIRE n -1|SET e 1 EX 5|XADD x 1-1 f v|EXPIRE x 5|HSET o f 1|HPEXPIRE o 9 FIELDS 1 f".split("|"),
    )
    store.now += 10_000
    told: list[tuple[bytes, ...]] = []
    events: list[tuple[int, bytes, bytes]] = []
    store.journal.observers.append(lambda first, group: told.extend(tuple(command) for command, _, _ in group))
    store.journal.observers.append(
        lambda first, group: events.extend(event for _, _, names in group for event in names)
    )
    apply_lines(applier, "LPUSH l b", "APPEND s x", "SADD m b", "HINCRBY h f 1", "INCR n", "SET e 2", "HLEN o", "DEL o")
    apply_lines(applier, "XGROUP CREATE x g $ MKSTREAM")
    assert final(applier) == {
        b"l": [b"b"],
        b"s": b"x",
        b"m": ({b"a", b"b"}, 50_000),
        b"h": {b"f": b"1", b"g": b"1"},
        b"n": b"1",
        b"e": b"2",
        b"x": [],
    }
    assert [command for command in told if command[0] in (b"DEL", b"HDEL")] == [
        (b"DEL", b"l"),
        (b"DEL", b"s"),
        (b"HDEL", b"h", b"f"),
        (b"DEL", b"n"),
        (b"HDEL", b"o", b"f"),
        (b"DEL", b"x"),
    ]
    assert events[0] == (notify.EXPIRED, b"expired", b"l")
    assert (notify.HASH, b"hexpired", b"h") in events
    check_memory(store)


@pytest.mark.parametrize("seed", range(4))
def test_what_was_made_of_a_kevy_stream_is_canonical(seed: int) -> None:
    """Whatever comes in, what is emitted for it makes a second copy, with another clock, the same."""
    draw = random.Random(seed)
    applier = copy_at(START, lenient=True)
    second = copy_at(START - HOUR)
    applier.store.journal.observers.append(
        lambda first, group: apply_lines_of(second, [tuple(command) for command, _, _ in group])
    )
    for _ in range(1500):
        applier.store.now += draw.randrange(3)
        line = draw.choice(KEVY_LINES).split()
        applier.apply([draw_word(draw, word) for word in line])
        applier.store.commit()
    check_memory(applier.store)
    check_memory(second.store)
    assert held(second) == held(applier)
    third = copy_at(START + HOUR)
    for shard in applier.store.keyspace.shards():
        for key, value in shard.items():
            third.apply_all(rebuild_commands(key, value, shard.deadlines.get(key)))
            third.store.commit()
    assert held(third) == held(applier)


def apply_lines_of(applier: Applier, commands: list[tuple[bytes, ...]]) -> None:
    applier.apply_all(commands)
    applier.store.commit()


KEVY_LINES = (
    """SET k w|SET k w EX s|SETEX k s w|PSETEX k t w|EXPIRE k s|PEXPIRE k t|PERSIST k|DEL k k|INCR k|APPEND k w
LPUSH k w w|RPUSH k w|LPOP k 2|RPOP k|LTRIM k 1 -2|HSET k w w|HINCRBY k w 2|HDEL k w|HPEXPIRE k t FIELDS 1 w|SADD k w w
SREM k w|ZADD k 1 w|ZINCRBY k 2 w|ZREM k w|INCRBYFLOAT k 0.5|GETDEL k|XADD x * w w|XADD x i w w|XADD x MAXLEN ~ 9 * w w
XADD y MINID i * w w|XADD y NOMKSTREAM i w w|XDEL x i i|XTRIM y MAXLEN ~ 5 LIMIT 2|XSETID x i|EXPIRE x s|PEXPIRE y t
XGROUP CREATE x w i MKSTREAM|XGROUP CREATE y w $|XGROUP SETID x w i|XGROUP DESTROY x w|XGROUP CREATECONSUMER x w w
XGROUP DELCONSUMER x w w|XACK x w i i|XCLAIM x w w 0 i i FORCE|XCLAIM x w w 3 i i JUSTID|XCLAIM y w w 0 i IDLE 5 FORCE
XCLAIM x w w 0 i TIME t RETRYCOUNT 4 FORCE JUSTID|XCLAIM x w w 0 i FORCE LASTID i|XADD x i-* w w|DEL x|RENAME k k
""".replace("\n", "|")
    .strip("|")
    .split("|")
)


def draw_word(draw: random.Random, word: str) -> bytes:
    match word:
        case "k":
            return b"k%d" % draw.randrange(6)
        case "w":
            return draw.choice((b"a", b"b", b"7"))
        case "s":
            return b"%d" % draw.randrange(-1, 2)
        case "t":
            return b"%d" % draw.randrange(1, 90)
        case "i":
            return b"%d-%d" % (START + draw.randrange(2000), draw.randrange(3))
        case "i-*":
            return b"%d-*" % (START + draw.randrange(2000))
    return word.encode()


# -- streams ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "effects"),
    [
        ("XADD x * f v", [f"XADD x {START}-0 f v"]),
        (f"XADD x {START + 5}-7 f v|XADD x * f v", [f"XADD x {START + 5}-7 f v", f"XADD x {START + 5}-8 f v"]),
        ("XADD x 5-* f v|XADD x 5-* f v", ["XADD x 5-0 f v", "XADD x 5-1 f v"]),
        ("XADD x 5 f v", ["XADD x 5-0 f v"]),
        (
            "XADD x 5-18446744073709551615 f v|XADD x 5-* f v|XADD x 6-* f v",
            ["XADD x 5-18446744073709551615 f v", "XADD x 6-0 f v"],
        ),
        ("XADD x NOMKSTREAM 5-1 f v", []),
        (
            "XADD x 1-0 f v|XADD x 2-0 f v|XADD x MAXLEN ~ 1 LIMIT 5 3-0 f v",
            ["XADD x 1-0 f v", "XADD x 2-0 f v", "XADD x 3-0 f v", "XTRIM x MAXLEN 1"],
        ),
        ("XADD x 1-0 f v|XADD x 2-0 f v|XTRIM x MINID 2", ["XADD x 1-0 f v", "XADD x 2-0 f v", "XTRIM x MAXLEN 1"]),
        ("XADD x 1-0 f v|XTRIM x MAXLEN 1|XTRIM x MINID = 1-0", ["XADD x 1-0 f v"]),
        ("XADD x 1-0 f v|XDEL x 1-0 1 2-0", ["XADD x 1-0 f v", "XDEL x 1-0"]),
        (
            "XADD x 1-0 f v|XSETID x 9-1|XSETID x 8-1 ENTRIESADDED 5 MAXDELETEDID 3",
            [
                "XADD x 1-0 f v",
                "XSETID x 9-1 ENTRIESADDED 1 MAXDELETEDID 0-0",
                "XSETID x 8-1 ENTRIESADDED 5 MAXDELETEDID 3-0",
            ],
        ),
        (
            "XGROUP CREATE x g $|XGROUP CREATE x g $ MKSTREAM|XGROUP CREATE x g 0|XGROUP SETID x g 5 ENTRIESREAD 3",
            ["XGROUP CREATE x g 0-0 MKSTREAM", "XGROUP SETID x g 5-0"],
        ),
        (
            "XGROUP CREATE x g 0 MKSTREAM|XGROUP CREATECONSUMER x g c|XGROUP CREATECONSUMER x g c|"
            "XGROUP DELCONSUMER x g c|XGROUP DELCONSUMER x g c|XGROUP DESTROY x g|XGROUP DESTROY x g",
            [
                "XGROUP CREATE x g 0-0 MKSTREAM",
                "XGROUP CREATECONSUMER x g c",
                "XGROUP DELCONSUMER x g c",
                "XGROUP DESTROY x g",
            ],
        ),
        (
            "XADD x 1-0 f v|XGROUP CREATE x g 0|XCLAIM x g c 0 1-0 2-0 FORCE|XCLAIM x g d 1 1-0|"
            "XCLAIM x g d 0 1-0 JUSTID|XACK x g 1-0 1-0 3-0|XACK x g 1-0",
            [
                "XADD x 1-0 f v",
                "XGROUP CREATE x g 0-0 MKSTREAM",
                f"XCLAIM x g c 0 1-0 TIME {START} RETRYCOUNT 2 FORCE JUSTID",
                "XGROUP CREATECONSUMER x g d",
                f"XCLAIM x g d 0 1-0 TIME {START} RETRYCOUNT 2 FORCE JUSTID",
                "XACK x g 1-0",
            ],
        ),
        (
            "XADD x 1-0 f v|XGROUP CREATE x g 0|XCLAIM x g c 0 1-0 FORCE IDLE 500 RETRYCOUNT 0 LASTID 1-0|XDEL x 1-0|"
            "XCLAIM x g d 0 1-0|XCLAIM x g d 0 1-0 LASTID 4-0",
            [
                "XADD x 1-0 f v",
                "XGROUP CREATE x g 0-0 MKSTREAM",
                f"XCLAIM x g c 0 1-0 TIME {START - 500} RETRYCOUNT 0 FORCE JUSTID LASTID 1-0",
                "XDEL x 1-0",
                "XACK x g 1-0",
                "XGROUP CREATECONSUMER x g d",
                "XGROUP SETID x g 4-0",
            ],
        ),
    ],
)
def test_changes_of_streams_are_told_without_the_time(lines: str, effects: list[str]) -> None:
    applier = copy_at(START, lenient=True)
    told: list[str] = []
    applier.store.journal.observers.append(
        lambda first, group: told.extend(b" ".join(command).decode() for command, _, _ in group)
    )
    apply_lines(applier, *lines.split("|"))
    assert told == effects
    second = copy_at(START + HOUR)
    apply_lines(second, *told)
    assert held(second) == held(applier)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("XADD x 0-0 f v", "must be greater than 0-0"),
        ("XADD x 3-0 f v", "equal or smaller than the target stream top item"),
        ("XADD x 2-* f v", "equal or smaller than the target stream top item"),
        ("XADD x 4-18446744073709551616 f v", "Invalid stream ID"),
        ("XADD x +4-0 f v", "Invalid stream ID"),
        ("XADD x MAXLEN -1 * f v", "MAXLEN argument must be >= 0"),
        ("XADD x MAXLEN 5 MINID 3 * f v", "MAXLEN and MINID options at the same time"),
        ("XADD x MAXLEN 5 MINID", "syntax error"),
        ("XADD x NOMKSTREAM MAXLEN 5", "wrong number of arguments"),
        ("XADD full * f v", "exhausted the last possible ID"),
        ("XADD s * f v", "WRONGTYPE"),
        ("XTRIM x FOO 1", "syntax error"),
        ("XTRIM x MAXLEN 1 FOO", "syntax error"),
        ("XDEL x a", "Invalid stream ID"),
        ("XSETID absent 1-1", "no such key"),
        ("XSETID x 1-0", "smaller than current max_deleted_entry_id"),
        ("XSETID x 2-5", "smaller than the target stream top item"),
        ("XSETID x 9 ENTRIESADDED 0", "smaller than the target stream length"),
        ("XSETID x 9 ENTRIESADDED -1", "entries_added must be positive"),
        ("XSETID x 9 MAXDELETEDID 10", "smaller than the provided max_deleted_entry_id"),
        ("XSETID x 9 FOO 10", "syntax error"),
        ("XSETID x 9 ENTRIESADDED", "syntax error"),
        ("XGROUP FOO x g", "unknown subcommand"),
        ("XGROUP CREATE x g", "unknown subcommand"),
        ("XGROUP CREATE x g 0 FOO", "syntax error"),
        ("XGROUP CREATE x g2 0 ENTRIESREAD -2", "ENTRIESREAD must be positive or -1"),
        ("XGROUP CREATE x g2 0 ENTRIESREAD", "syntax error"),
        ("XGROUP CREATE x g 0", "BUSYGROUP"),
        ("XGROUP CREATE absent g 0", "requires the key to exist"),
        ("XGROUP SETID x none 0", "NOGROUP No such consumer group 'none' for key name 'x'"),
        ("XGROUP DESTROY absent g", "requires the key to exist"),
        ("XGROUP CREATECONSUMER x none c", "NOGROUP"),
        ("XGROUP DELCONSUMER x none c", "NOGROUP"),
        ("XACK x g b", "Invalid stream ID"),
        ("XCLAIM x none c 0 3-0 FORCE", "NOGROUP No such key 'x' or consumer group 'none'"),
        ("XCLAIM absent g c 0 3-0 FORCE", "NOGROUP"),
        ("XCLAIM x g c 0 3-0 FOO", "Unrecognized XCLAIM option 'FOO'"),
        ("XCLAIM x g c 0 3-0 TIME", "Unrecognized XCLAIM option 'TIME'"),
        ("XCLAIM x g c x 3-0", "not an integer"),
    ],
)
def test_bad_changes_of_streams_change_nothing(line: str, reason: str) -> None:
    applier = copy_at(START)
    limit = (1 << 64) - 1
    apply_lines(
        applier, "XADD x 1-0 f v", "XADD x 2-0 f v", "XADD x 3-0 f v", "XDEL x 2-0", "XGROUP CREATE x g 0 MKSTREAM"
    )
    apply_lines(applier, "SET s v", f"XADD full {limit}-{limit} f v")
    before = held(applier)
    with pytest.raises(ApplyError) as caught:
        apply_lines(applier, line)
    assert reason in caught.value.reason
    assert not applier.store.journal.pending
    assert held(applier) == before
    assert applier.ignored == 0


def test_a_key_of_a_stream_command_is_named_in_errors() -> None:
    applier = copy_at(START)
    with pytest.raises(ApplyError, match=r"XGROUP 'x'") as caught:
        apply_lines(applier, "XGROUP SETID x g 0")
    assert caught.value.key == b"x"
