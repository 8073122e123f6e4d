"""What a primary streams, applied to a copy: canonical effects whatever the clock of the copy says."""

from __future__ import annotations

import random

import pytest
from support.appliers import HOUR, apply_lines, copy_at, held
from support.store_harness import START, Harness, check_memory, content
from unit.test_journal_replay import Workload

from kevynode.store.access import follow_policy, idle_seconds
from kevynode.store.apply import Applier, ApplyError

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
