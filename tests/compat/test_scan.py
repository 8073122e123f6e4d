"""SCAN, HSCAN, SSCAN and ZSCAN: their arguments, and whole scans that follow the cursor."""

import pytest
from compat import runner, sequences
from compat.runner import Pair, Side
from compat.sequences import Sequence_
from support.raw_client import Reply

SEQUENCES = r"""
== empty
SCAN 0
SCAN 0 COUNT 1
SCAN 0 MATCH *
HSCAN missing 0
SSCAN missing 0
ZSCAN missing 0
HSCAN missing 0 NOVALUES

== one of each
SET k v
HSET h f v g w
SADD s a b
ZADD z 1 a 2.5 b
SCAN 0
SCAN 0 COUNT 100
SCAN 0 COUNT 100 MATCH [hs]
SCAN 0 COUNT 100 TYPE string
SCAN 0 COUNT 100 TYPE HASH
SCAN 0 COUNT 100 TYPE set
SCAN 0 COUNT 100 TYPE zset
SCAN 0 COUNT 100 TYPE list
SCAN 0 COUNT 100 TYPE stream
SCAN 0 COUNT 100 TYPE nothing
SCAN 0 COUNT 100 MATCH * TYPE hash
SCAN 0 TYPE hash TYPE set COUNT 100
SCAN 0 MATCH h MATCH s COUNT 100
SCAN 0 count 100 match "\\h"
HSCAN h 0
HSCAN h 0 MATCH f
HSCAN h 0 COUNT 1
HSCAN h 0 NOVALUES
HSCAN h 0 NOVALUES MATCH g COUNT 10
HSCAN h 0 MATCH nothing
SSCAN s 0
SSCAN s 0 MATCH a*
SSCAN s 0 COUNT 1
ZSCAN z 0
ZSCAN z 0 MATCH b
ZSCAN z 0 COUNT 1000
ZSCAN z 0 NOSCORES
ZSCAN z 0 MATCH a NOSCORES

== scores as text
ZADD z 1 a 1.5 b -0.1 c inf d -inf e 1e100 f 3.0e-5 g 1234567890123456789 h
ZSCAN z 0

== errors
SET str v
RPUSH l a
HSET h f v
SADD s a
ZADD z 1 a
SCAN
SCAN abc
SCAN -1
SCAN 1.5
SCAN ""
SCAN 0 foo
SCAN 0 COUNT
SCAN 0 COUNT 0
SCAN 0 COUNT -1
SCAN 0 COUNT abc
SCAN 0 COUNT 1.5
SCAN 0 COUNT 9223372036854775808
SCAN 0 MATCH
SCAN 0 TYPE
SCAN 0 COUNT 10 foo
SCAN 18446744073709551616
SCAN 99999999999999999999999999
SCAN " 0"
SCAN 0x0
SCAN +0
SCAN 0 NOVALUES
HSCAN
HSCAN h
HSCAN h abc
HSCAN h 0 COUNT
HSCAN h 0 COUNT 0
HSCAN h 0 COUNT abc
HSCAN h 0 foo
HSCAN h 0 TYPE hash
HSCAN h 0 NOVALUES foo
HSCAN h 0 NOSCORES
HSCAN str 0
HSCAN l 0
HSCAN s 0
HSCAN str abc
HSCAN missing abc
HSCAN missing 0 COUNT 0
HSCAN missing 0 foo
SSCAN
SSCAN s
SSCAN s abc
SSCAN s 0 COUNT 0
SSCAN s 0 foo
SSCAN s 0 NOVALUES
SSCAN s 0 NOSCORES
SSCAN str 0
SSCAN h 0
SSCAN str 0 COUNT 0
ZSCAN
ZSCAN z
ZSCAN z abc
ZSCAN z 0 COUNT 0
ZSCAN z 0 foo
ZSCAN z 0 NOVALUES
ZSCAN str 0
ZSCAN s 0
ZSCAN z 0 COUNT 1 MATCH

== cursors out of the blue
SET k v
SCAN 12345 COUNT 100 #~ kind
SCAN 18446744073709551615 COUNT 100 #~ kind
SADD ints 1 2 3
SSCAN ints 5 #~ kind
HSET h f v
HSCAN h 7 #~ kind

== count above all
DEBUG POPULATE 200
SCAN 0 COUNT 100000
SCAN 0 COUNT 100000 MATCH key:1*
SCAN 0 COUNT 100000 TYPE string
SCAN 0 COUNT 100000 TYPE list
SCAN 0 COUNT 9223372036854775807

== expired keys are not shown
SET k v
SET gone v PXAT 1
SCAN 0 COUNT 100
"""


@sequences.parametrize(SEQUENCES)
def test_arguments(pair: Pair, mode: tuple[int, bool], sequence: Sequence_) -> None:
    runner.run(pair, sequence, *mode)


#: Steps after which a scan that has not come back to cursor 0 counts as endless.
STEP_LIMIT = 5000


def whole_scan(side: Side, protocol: int, front: list[bytes], options: list[bytes]) -> list[Reply]:
    """Every element that a scan returns, in order, cursor 0 to cursor 0."""
    found: list[Reply] = []
    cursor = b"0"
    with side.connect(protocol) as client:
        for _ in range(STEP_LIMIT):
            reply = client.call(*front, cursor, *options)
            assert reply.kind == "array", reply.render()
            assert len(reply.value) == 2
            cursor_reply, elements = reply.value
            assert (cursor_reply.kind, elements.kind) == ("bulk", "array")
            found += elements.value
            cursor = cursor_reply.value
            if cursor == b"0":
                return found
    raise AssertionError(f"no end after {STEP_LIMIT} steps")


def fill(side: Side, size: int) -> None:
    """Keys k:0…, and a hash, a set and a sorted set of ``size`` elements each."""
    numbers = [b"%d" % number for number in range(size)]
    commands = [(b"SET", b"k:" + number, number) for number in numbers]
    for start in range(0, size, 500):
        part = numbers[start : start + 500]
        side.control.call(b"HSET", b"h", *(word for n in part for word in (b"f:" + n, b"v:" + n)))
        side.control.call(b"SADD", b"s", *(b"m:" + n for n in part))
        side.control.call(b"ZADD", b"z", *(word for n in part for word in (n, b"m:" + n)))
    side.control.pipeline(commands)


@pytest.mark.parametrize("size", [1, 9, 200, 3000])
@pytest.mark.parametrize(
    ("front", "options", "width"),
    [
        (["SCAN"], [], 1),
        (["SCAN"], ["COUNT", "1"], 1),
        (["SCAN"], ["COUNT", "100"], 1),
        (["SCAN"], ["COUNT", "57", "MATCH", "k:*9"], 1),
        (["SCAN"], ["COUNT", "57", "TYPE", "zset"], 1),
        (["HSCAN", "h"], ["COUNT", "33"], 2),
        (["HSCAN", "h"], ["COUNT", "33", "MATCH", "*5*"], 2),
        (["HSCAN", "h"], ["NOVALUES"], 1),
        (["SSCAN", "s"], ["COUNT", "33"], 1),
        (["SSCAN", "s"], ["COUNT", "3", "MATCH", "m:1*"], 1),
        (["ZSCAN", "z"], ["COUNT", "33"], 2),
        (["ZSCAN", "z"], ["MATCH", "*7"], 2),
    ],
    ids=lambda part: "-".join(part) or "default" if isinstance(part, list) else str(part),
)
def test_whole_scan(pair: Pair, protocol: int, front: list[str], options: list[str], width: int, size: int) -> None:
    """Both return every element that is there and matches, and nothing else (a repeated element is allowed)."""
    found = []
    try:
        for side in pair.sides:
            fill(side, size)
            flat = whole_scan(side, protocol, [w.encode() for w in front], [w.encode() for w in options])
            assert len(flat) % width == 0
            found.append({tuple(flat[i : i + width]) for i in range(0, len(flat), width)})
    finally:
        pair.clean()
    assert found[0] == found[1]


@pytest.mark.parametrize("count", [1, 10, 500])
def test_present_throughout(pair: Pair, count: int) -> None:
    """What is there from the first step to the last is returned, though the table grows and shrinks meanwhile."""
    try:
        for side in pair.sides:
            fill(side, 600)
            stable = {b"k:%d" % number for number in range(300)}
            seen: set[bytes] = set()
            cursor = b"0"
            for step in range(STEP_LIMIT):
                reply = side.control.call(b"SCAN", cursor, b"COUNT", b"%d" % count)
                cursor = reply.value[0].value
                seen |= {element.value for element in reply.value[1].value}
                if cursor == b"0":
                    break
                side.control.call(b"DEL", b"k:%d" % (300 + step % 300))
                if step < 100:
                    side.control.pipeline([(b"SET", b"new:%d:%d" % (step, n), b"v") for n in range(20)])
            assert cursor == b"0", f"{side.name}: no end after {STEP_LIMIT} steps"
            assert stable <= seen, f"{side.name}: {sorted(stable - seen)[:5]} not returned"
    finally:
        pair.clean()
