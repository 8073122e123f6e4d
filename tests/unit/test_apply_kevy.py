"""A kevy primary's frames are applied as its replicas apply them; streams among them."""

from __future__ import annotations

import random
from typing import Any

import pytest
from support.appliers import HOUR, apply_lines, copy_at, held
from support.store_harness import START, check_memory

from kevynode.store import notify
from kevynode.store.apply import Applier, ApplyError
from kevynode.store.rebuild import rebuild_commands


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
