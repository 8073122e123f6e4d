"""Every broken rule of a replication stream has its reason, and limits hold however the bytes are cut."""

from __future__ import annotations

import pytest
from support.wire_harness import FRAME, SET_B, SET_K, decode, frames

from kevynode.replicate import wire
from kevynode.replicate.lineage import HISTORY_LIMIT, MAX_OFFSET
from kevynode.replicate.stream_events import CHUNK_LIMIT, CONTROL_LINE_LIMIT, EXTENSION_LINE_LIMIT, GROUP_LIMIT
from kevynode.replicate.wire import ACK_REQUEST, SNAPSHOT_BEGIN, Ping, StreamDecoder, WireError

NOT_A_FRAME = "outer header is not *2"
NO_OFFSET = "offset is not an integer"
BAD_COMMAND = "inner command malformed"
BAD_LINE = "malformed control line"
NOT_A_CHUNK = "not a chunk inside a snapshot"
TOO_LONG = "line too long"


def headed(inner: bytes) -> bytes:
    return b"*2\r\n:7\r\n" + inner


MALFORMED = [
    (b"*3\r\n", NOT_A_FRAME),
    (b"*1\r\n:7\r\n", NOT_A_FRAME),
    (b"*02\r\n", NOT_A_FRAME),
    (b"*-1\r\n", NOT_A_FRAME),
    (b"*2 \r\n:7\r\n", NOT_A_FRAME),
    (b":7\r\n", NOT_A_FRAME),
    (b"$3\r\nabc\r\n", NOT_A_FRAME),
    (b"\r\n", NOT_A_FRAME),
    (b"SET k v\r\n", NOT_A_FRAME),
    (b"\x00", NOT_A_FRAME),
    (b"*" + b"2" * 300, TOO_LONG),
    (b"*2\r\n7\r\n", NO_OFFSET),
    (b"*2\r\n$1\r\n7\r\n", NO_OFFSET),
    (b"*2\r\n:\r\n", NO_OFFSET),
    (b"*2\r\n:x\r\n", NO_OFFSET),
    (b"*2\r\n:+7\r\n", NO_OFFSET),
    (b"*2\r\n: 7\r\n", NO_OFFSET),
    (b"*2\r\n:7.0\r\n", NO_OFFSET),
    (b"*2\r\n:-\r\n", NO_OFFSET),
    (b"*2\r\n:%d\r\n" % (MAX_OFFSET + 1), NO_OFFSET),
    (b"*2\r\n\r\n", NO_OFFSET),
    (b"*2\r\n:-1\r\n", "negative offset"),
    (b"*2\r\n:-9223372036854775808\r\n*1\r\n$1\r\nx\r\n", "negative offset"),
    (b"*2\r\n:" + b"1" * 300, TOO_LONG),
    (wire.frame(MAX_OFFSET, SET_K) + wire.frame(MAX_OFFSET + 1, SET_K), NO_OFFSET),
    (headed(b"*0\r\n"), BAD_COMMAND),
    (headed(b"*-1\r\n"), BAD_COMMAND),
    (headed(b"*x\r\n"), BAD_COMMAND),
    (headed(b"*01\r\n"), BAD_COMMAND),
    (headed(b"*1048577\r\n"), BAD_COMMAND),
    (headed(b"*1\r\n:1\r\n"), BAD_COMMAND),
    (headed(b"*1\r\n*1\r\n"), BAD_COMMAND),
    (headed(b"*1\r\n$-1\r\n"), BAD_COMMAND),
    (headed(b"*1\r\n$x\r\n"), BAD_COMMAND),
    (headed(b"*1\r\n$536870913\r\n"), BAD_COMMAND),
    (headed(b"*1\r\n$1\r\nxy\r\n"), BAD_COMMAND),
    (headed(b"*1\r\n$2\r\nx\r\n\r\n"), BAD_COMMAND),
    (headed(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$9\r\nv\r\n" + b"." * 20), BAD_COMMAND),
    (headed(b"*3\r\n$4\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n"), BAD_COMMAND),
    (headed(b"*3\r\n$3\r\nSET\r\n$2\r\nk\r\n$1\r\nv\r\n"), BAD_COMMAND),
    (headed(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\nv\r\n"), BAD_COMMAND),
    (headed(b"*2\r\n$3\r\nDEL\r\n$2\r\nk\r\n+PING 1 8\r\n"), BAD_COMMAND),
    (headed(b"*2\r\n$3\r\nDEL\r\n$4999\r\n" + b"x" * 5000 + b"\r\n"), BAD_COMMAND),
    (headed(b"*" + b"1" * 50), BAD_COMMAND),
    (headed(b"*1\r\n$" + b"1" * 50), BAD_COMMAND),
    (headed(b"$1\r\nx\r\n"), BAD_COMMAND),
    (headed(b":1\r\n"), BAD_COMMAND),
    (headed(b"+PING 1 2\r\n"), BAD_COMMAND),
    (headed(b"-ERR no\r\n"), BAD_COMMAND),
    (headed(b"\r\n"), BAD_COMMAND),
    (headed(b"   \r\n"), BAD_COMMAND),
    (headed(b"SET k 'v\r\n"), BAD_COMMAND),
    (headed(b"x" * 70000), BAD_COMMAND),
    (b"+HELLO\r\n", "unknown control line"),
    (b"+\r\n", "unknown control line"),
    (b"+ping 1 2\r\n", "unknown control line"),
    *(
        (line, BAD_LINE)
        for line in (
            b"+PING\r\n",
            b"+PING x\r\n",
            b"+PING 1 -2\r\n",
            b"+PING 1 2 3\r\n",
            b"+PING  1 2\r\n",
            b"+PING 1 %d\r\n" % (MAX_OFFSET + 1),
            b"+PING 1 \xff\r\n",
            b"+ACK\r\n",
            b"+ACK -1\r\n",
            b"+ACK 1 2 3\r\n",
            b"+ACK %d 1\r\n" % 2**64,
            b"+CAPA\r\n",
            b"+CAPA 2 txn\r\n",
            b"+CAPA x txn\r\n",
            b"+CAPA 1 \xff\r\n",
            b"+LINEAGE 7\r\n",
            b"+LINEAGE 7@x\r\n",
            b"+LINEAGE 0@1\r\n",
            b"+LINEAGE %d@1\r\n" % HISTORY_LIMIT,
            b"+LINEAGE" + b" 7@1" * 17 + b"\r\n",
            b"+SKIP\r\n",
            b"+SKIP -1\r\n",
            b"+SKIP 1 2\r\n",
            b"+TXN\r\n",
            b"+TXN 0\r\n",
            b"+TXN x\r\n",
            b"+ACKREQ 1\r\n",
            b"+SNAPSHOT 1\r\n",
            b"+SNAPSHOT_SCOPE\r\n",
            b"+SNAPSHOT_SCOPE 1 abc\r\n",
            b"+SNAPSHOT_SCOPE 1 zz\r\n",
            b"+SNAPSHOT_SCOPE x 00\r\n",
            b"+SNAPSHOT_SCOPE 1 00 00\r\n",
            b"+SNAPSHOT_END x\r\n",
            b"+SNAPSHOT_END\r\n",
        )
    ),
    (b"+SNAPSHOT_END 5\r\n", "end of a snapshot that never began"),
    (b"+PING 1 " + b"0" * CONTROL_LINE_LIMIT, TOO_LONG),
    (b"+PING 1 " + b"0" * CONTROL_LINE_LIMIT + b"\r\n", TOO_LONG),
    (b"+" + b"x" * 5000, TOO_LONG),
    (b"+CAPA 1 " + b"x" * EXTENSION_LINE_LIMIT, TOO_LONG),
    (b"+CAPA 1 " + b"x" * EXTENSION_LINE_LIMIT + b"\r\n", TOO_LONG),
    (b"-" + b"x" * 5000, TOO_LONG),
    (b"+TXN %d\r\n" % (GROUP_LIMIT + 1), "group too large"),
    (wire.group(2) + wire.ping(1, 2), "not a frame inside a group"),
    (wire.group(2) + wire.group(2), "not a frame inside a group"),
    (wire.group(2) + wire.frame(0, SET_K) + SNAPSHOT_BEGIN, "not a frame inside a group"),
    (wire.group(2) + wire.frame(0, SET_K) + b"-ERR\r\n", "not a frame inside a group"),
    (wire.group(2) + b"$1\r\n", NOT_A_FRAME),
    (wire.group(2) + wire.frame(0, SET_K) + wire.frame(2, SET_K), "offsets inside a group are not consecutive"),
    (wire.group(2) + wire.frame(0, SET_B) + wire.frame(0, SET_B), "offsets inside a group are not consecutive"),
    (wire.group(1) + wire.skip(9) + wire.frame(8, SET_K), "offsets inside a group are not consecutive"),
    (wire.group(2) + wire.frame(5, SET_K) + wire.skip(5), "skip leads backwards"),
    (SNAPSHOT_BEGIN + FRAME, NOT_A_CHUNK),
    (SNAPSHOT_BEGIN + b"-ERR\r\n", NOT_A_CHUNK),
    (SNAPSHOT_BEGIN + b"\r\n", NOT_A_CHUNK),
    (SNAPSHOT_BEGIN + SNAPSHOT_BEGIN, NOT_A_CHUNK),
    (SNAPSHOT_BEGIN + wire.skip(1), NOT_A_CHUNK),
    (SNAPSHOT_BEGIN + ACK_REQUEST, NOT_A_CHUNK),
    (SNAPSHOT_BEGIN + b"+HELLO\r\n", NOT_A_CHUNK),
    (SNAPSHOT_BEGIN + b"+PING x\r\n", BAD_LINE),
    (SNAPSHOT_BEGIN + b"+" + b"x" * 300, TOO_LONG),
    (wire.snapshot_scope(1, b"a") + FRAME, NOT_A_CHUNK),
    (SNAPSHOT_BEGIN + b"$-1\r\n", "invalid chunk length"),
    (SNAPSHOT_BEGIN + b"$\r\n", "invalid chunk length"),
    (SNAPSHOT_BEGIN + b"$%d\r\n" % (CHUNK_LIMIT + 1), "invalid chunk length"),
    (SNAPSHOT_BEGIN + b"$" + b"1" * 300, TOO_LONG),
    (SNAPSHOT_BEGIN + b"$1\r\nxy\r\n", "no line end behind a chunk"),
    (SNAPSHOT_BEGIN + b"$1\r\nx\ry", "no line end behind a chunk"),
]


@pytest.mark.parametrize(("data", "reason"), MALFORMED)
@pytest.mark.parametrize("step", [0, 1, 7])
def test_malformed(data: bytes, reason: str, step: int) -> None:
    alone, error = decode(data, step)
    assert error == reason
    # What came before it counts, and nothing behind it does.
    events, error = decode(FRAME + wire.ping(1, 8) + data + FRAME, step)
    assert error == reason
    assert events == [frames(7, SET_K), Ping(1, 8), *alone]


def test_the_error_shows_what_stood_there() -> None:
    decoder = StreamDecoder()
    assert decoder.feed(b"*2\r\n:x\r\n") == []
    assert isinstance(decoder.error, WireError)
    assert str(decoder.error) == "offset is not an integer: ':x'"
    decoder = StreamDecoder()
    decoder.feed(b"\x00" * 500)
    assert decoder.error is not None
    assert decoder.error.detail.endswith("...")
    assert len(decoder.error.detail) < 400


def test_nothing_is_decoded_or_held_after_an_error() -> None:
    decoder = StreamDecoder()
    decoder.feed(wire.group(2) + wire.frame(0, SET_K))
    assert decoder.held == len(wire.frame(0, SET_K))
    decoder.feed(b"?")
    assert decoder.error is not None
    assert decoder.held == 0
    assert decoder.feed(FRAME) == []


@pytest.mark.parametrize("step", [0, 1, 50])
def test_the_bytes_of_a_frame_or_a_group_are_bounded(step: int) -> None:
    big = [b"SET", b"k", b"x" * 1000]
    data = wire.group(3) + wire.encode_frames(0, [big] * 3)
    assert decode(data, step, group_bytes_limit=4000)[1] is None
    assert decode(data, step, group_bytes_limit=3000) == ([], "frame or group too large")
    odd = wire.frame(0, [b"SET", b"k", b"\r\n" * 2000])
    assert decode(odd, step, group_bytes_limit=3000) == ([], "frame or group too large")


def test_the_limits_have_a_floor() -> None:
    with pytest.raises(ValueError):
        StreamDecoder(bulk_limit=100)
    with pytest.raises(ValueError):
        StreamDecoder(argument_limit=100)


@pytest.mark.parametrize("step", [0, 1])
def test_the_limits_of_a_command(step: int) -> None:
    limits = {"bulk_limit": 5000, "argument_limit": 2000}
    for command in ([b"SET", b"k", b"x" * 5001], [b"DEL", *[b"k"] * 2000]):
        assert decode(wire.frame(0, command), step, **limits) == ([], "inner command malformed")
        assert decode(wire.frame(0, command[:2]), step, **limits)[1] is None
