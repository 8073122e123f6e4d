"""The replication stream: the same bytes both ways, and that the way bytes are cut changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.wire_harness import FRAME, HSET_H, SET_B, SET_K, SET_N, decode, encode, frames

from kevynode.replicate import wire
from kevynode.replicate.lineage import MAX_OFFSET
from kevynode.replicate.stream_events import CHUNK_LIMIT, EXTENSION_LINE_LIMIT
from kevynode.replicate.wire import (
    ACK_REQUEST,
    SNAPSHOT_BEGIN,
    Accepted,
    Acknowledged,
    AckRequested,
    Ancestors,
    Chunk,
    ErrorLine,
    Event,
    Frames,
    Ping,
    ScopeSnapshotBegin,
    Skip,
    SnapshotBegin,
    SnapshotEnd,
    StreamDecoder,
)

VECTORS = Path(__file__).parents[1] / "vectors"


EMPTY_SNAPSHOT = b"KEVYSNAP\x04\x00"
GENERATION = 4913458337130657


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("v2-live", [Acknowledged(None, 0), frames(0, SET_K, SET_N, SET_B, HSET_H)]),
        ("v2-resume-5", [Acknowledged(None, 5)]),
        (
            "v5-live",
            [
                Acknowledged(GENERATION, 0),
                SnapshotBegin(),
                Ping(GENERATION, 0),
                Chunk(EMPTY_SNAPSHOT),
                SnapshotEnd(0),
                frames(0, SET_K, SET_N, SET_B, HSET_H),
                *[Ping(GENERATION, 4)] * 4,
            ],
        ),
        ("v5-resume-4", [Acknowledged(GENERATION, 4), frames(4, [b"SET", b"after", b"1"]), Ping(GENERATION, 5)]),
        ("v5-resume-5", [Acknowledged(GENERATION, 5), Ping(GENERATION, 5)]),
        ("v2-resume-0", [Acknowledged, SnapshotBegin, Chunk, SnapshotEnd]),
        ("v5-resume-0", [Acknowledged, SnapshotBegin, Ping, Chunk, SnapshotEnd]),
        ("v5-ahead-6", [Acknowledged, SnapshotBegin, Ping, Chunk, SnapshotEnd]),
        ("v2-snapshot-link", [Acknowledged, SnapshotBegin, Chunk, SnapshotEnd]),
        ("v5-snapshot-link", [Acknowledged, SnapshotBegin, Ping, Chunk, SnapshotEnd]),
    ],
)
@pytest.mark.parametrize("step", [0, 1, 5, 64])
def test_the_kevy_servers_own_streams_both_ways(name: str, kinds: list[Any], step: int) -> None:
    recorded = (VECTORS / f"{name}.bin").read_bytes()
    events, error = decode(recorded, step)
    assert error is None
    assert events == kinds or [type(event) for event in events] == kinds
    assert b"".join(map(encode, events)) == recorded


@pytest.mark.parametrize("version", ["v2", "v5"])
def test_the_chunks_make_the_payload(version: str) -> None:
    events, _ = decode((VECTORS / f"{version}-snapshot-link.bin").read_bytes(), 100)
    payload = b"".join(event.data for event in events if isinstance(event, Chunk))
    assert payload == (VECTORS / f"{version}-snapshot-payload.bin").read_bytes()


@pytest.mark.parametrize(
    ("data", "events"),
    [
        pytest.param(FRAME, [frames(7, SET_K)], id="a frame"),
        pytest.param(wire.frame(7, [b"DEL", b"k"]), [frames(7, [b"DEL", b"k"])], id="two words"),
        pytest.param(wire.frame(7, [b"FLUSHALL"]), [frames(7, [b"FLUSHALL"])], id="one word"),
        pytest.param(wire.frame(7, [b"SET", b"", b""]), [frames(7, [b"SET", b"", b""])], id="empty words"),
        pytest.param(
            wire.frame(7, [b"SET", b"k", b"x" * 9000]), [frames(7, [b"SET", b"k", b"x" * 9000])], id="a long value"
        ),
        pytest.param(
            wire.frame(7, [b"RPUSH", *[b"x" * 5000] * 3]), [frames(7, [b"RPUSH", *[b"x" * 5000] * 3])], id="long words"
        ),
        pytest.param(
            wire.frame(7, [b"DEL", *[b"k" * 60] * 1100]), [frames(7, [b"DEL", *[b"k" * 60] * 1100])], id="many words"
        ),
        pytest.param(
            wire.frame(MAX_OFFSET, SET_K), [Frames(MAX_OFFSET, [SET_K], wire.frame(MAX_OFFSET, SET_K), False, 2**63)],
            id="the largest offset",
        ),
        pytest.param(
            b"*2\r\n:007\r\n*1\r\n$1\r\nx\r\n",
            [Frames(7, [[b"x"]], b"*2\r\n:007\r\n*1\r\n$1\r\nx\r\n", False, 8)],
            id="an offset with leading zeros",
        ),
        pytest.param(
            b"*2\r\n:7\r\nSET k 'a b'\r\n" + wire.frame(8, SET_K),
            [
                Frames(
                    7, [[b"SET", b"k", b"a b"], SET_K], b"*2\r\n:7\r\nSET k 'a b'\r\n" + wire.frame(8, SET_K), False, 9
                )
            ],
            id="an inline command",
        ),
        pytest.param(
            wire.frame(7, SET_K) + wire.frame(8, SET_B) + wire.frame(9, SET_N) + wire.frame(11, SET_N),
            [frames(7, SET_K, SET_B, SET_N), frames(11, SET_N)],
            id="a jump begins a new batch",
        ),
        pytest.param(FRAME + FRAME, [frames(7, SET_K), frames(7, SET_K)], id="so does a repetition"),
        pytest.param(
            FRAME + wire.ping(1, 8) + wire.frame(8, SET_N),
            [frames(7, SET_K), Ping(1, 8), frames(8, SET_N)],
            id="and a line between them",
        ),
        pytest.param(
            FRAME + wire.group(2) + wire.encode_frames(8, [SET_K, SET_N]) + wire.frame(10, SET_B),
            [frames(7, SET_K), frames(8, SET_K, SET_N, grouped=True), frames(10, SET_B)],
            id="a group",
        ),
        pytest.param(wire.group(1) + FRAME, [frames(7, SET_K, grouped=True)], id="a group of one"),
        pytest.param(
            wire.group(2) + wire.encode_frames(0, [SET_B, SET_K])
            + wire.group(2) + wire.encode_frames(2, [SET_K, SET_B]),
            [frames(0, SET_B, SET_K, grouped=True), frames(2, SET_K, SET_B, grouped=True)],
            id="groups with line ends in values",
        ),
        pytest.param(FRAME + wire.group(2) + wire.frame(8, SET_K), [frames(7, SET_K)], id="half a group is no event"),
        pytest.param(
            wire.group(3) + wire.frame(8, SET_K) + wire.skip(12) + wire.encode_frames(12, [SET_N, SET_B]),
            [
                Frames(
                    8,
                    [SET_K, SET_N, SET_B],
                    wire.frame(8, SET_K) + wire.encode_frames(12, [SET_N, SET_B]),
                    True,
                    14,
                )
            ],
            id="a group that lacks entries",
        ),
        pytest.param(
            wire.group(1) + wire.skip(9) + wire.skip(12) + wire.frame(12, SET_N),
            [Skip(12), Frames(12, [SET_N], wire.frame(12, SET_N), True, 13)],
            id="a group whose first entries are left out",
        ),
        pytest.param(wire.skip(9) + ACK_REQUEST, [Skip(9), AckRequested()], id="a skip, a request for acknowledgement"),
        pytest.param(b"+PING 9\r\n+PING 3 9\r\n", [Ping(0, 9), Ping(3, 9)], id="both forms of the heartbeat"),
        pytest.param(
            b"+ACK 5\r\n+ACK 9 5\r\n+ACK 0 18446744073709551615\r\n",
            [Acknowledged(None, 5), Acknowledged(9, 5), Acknowledged(0, 2**64 - 1)],
            id="acknowledged",
        ),
        pytest.param(
            b"+CAPA 2 txn later\r\n+CAPA 0\r\n+LINEAGE 8@250 7@100\r\n+LINEAGE\r\n",
            [
                Accepted(frozenset({"txn", "later"})), Accepted(frozenset()),
                Ancestors(((8, 250), (7, 100))), Ancestors(()),
            ],
            id="capabilities and lineage",
        ),
        pytest.param(
            SNAPSHOT_BEGIN + wire.chunk(b"") + wire.chunk(b"\r\n+PING 1 1\r\n") + wire.ping(3, 9)
            + wire.chunk(b"b" * 65536) + wire.snapshot_end(9) + wire.frame(9, SET_K),
            [
                SnapshotBegin(), Chunk(b""), Chunk(b"\r\n+PING 1 1\r\n"), Ping(3, 9), Chunk(b"b" * 65536),
                SnapshotEnd(9), frames(9, SET_K),
            ],
            id="a snapshot",
        ),
        pytest.param(
            FRAME + wire.snapshot_scope(3, b"app:\xff\r\n") + wire.chunk(b"x") + wire.snapshot_end(8) + wire.ping(1, 8),
            [frames(7, SET_K), ScopeSnapshotBegin(3, b"app:\xff\r\n"), Chunk(b"x"), SnapshotEnd(8), Ping(1, 8)],
            id="a scope's snapshot",
        ),
        pytest.param(wire.snapshot_scope(3, b""), [ScopeSnapshotBegin(3, b"")], id="the empty prefix"),
        pytest.param(
            b"-ERR unknown command 'REPLICATE', with args\r\n",
            [ErrorLine("ERR unknown command 'REPLICATE', with args")],
            id="a client port answers",
        ),
        pytest.param(b"*2\r\n:7\r\n*2\r\n$3\r\nDEL\r\n$1\r\nk", [], id="truncated"),
        *(pytest.param(FRAME[:-cut], [], id=f"truncated by {cut}") for cut in range(1, len(FRAME))),
        pytest.param(b"", [], id="nothing"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("step", [0, 1, 3, 17])
def test_well_formed(data: bytes, events: list[Event], step: int) -> None:
    assert decode(data, step) == (events, None)


def test_plain_frames_of_one_read_are_one_event() -> None:
    commands = [[b"SET", b"k%d" % number, b"v" * 64] for number in range(500)]
    data = wire.encode_frames(100, commands)
    assert StreamDecoder().feed(data) == [frames(100, *commands)]
    # Also if the first of them began in the read before.
    decoder = StreamDecoder()
    assert decoder.feed(data[:20]) == []
    assert decoder.feed(data[20:]) == [frames(100, *commands)]


def test_encode_frames_is_concatenation() -> None:
    commands: list[Sequence[bytes]] = [
        (b"FLUSHALL",), (b"DEL", b"k"), SET_B, HSET_H,
        [b"SET", b"k", b"x" * 5000], (b"DEL", b"y" * 5000), [b"z" * 4096],
    ]  # fmt: skip
    expected = b""
    for number, command in enumerate(commands):
        words = b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in command)
        expected += b"*2\r\n:%d\r\n*%d\r\n" % (number + 5, len(command)) + words
    assert wire.encode_frames(5, commands) == expected
    assert wire.encode_frames(5, iter(commands)) == expected
    assert wire.encode_frames(5, []) == b""


def test_chunks_cut_at_the_limit() -> None:
    data = bytes(range(256)) * 600
    events, error = decode(SNAPSHOT_BEGIN + b"".join(wire.chunks(data)) + wire.snapshot_end(1))
    assert error is None
    assert b"".join(event.data for event in events if isinstance(event, Chunk)) == data
    assert list(wire.chunks(b"")) == []
    with pytest.raises(ValueError):
        wire.chunk(b"x" * (CHUNK_LIMIT + 1))


def test_a_prefix_that_does_not_fit_its_line_is_refused() -> None:
    longest = b"x" * ((EXTENSION_LINE_LIMIT - len("+SNAPSHOT_SCOPE 1 ")) // 2)
    assert decode(wire.snapshot_scope(1, longest)) == ([ScopeSnapshotBegin(1, longest)], None)
    with pytest.raises(ValueError):
        wire.snapshot_scope(1, longest + b"x")


words = st.binary(max_size=12) | st.sampled_from([b"\r\n", b"a\r\n*2\r\n:0\r\n", b"SET"])
commands_ = st.lists(st.lists(words, min_size=1, max_size=5), min_size=1, max_size=4)
offsets = st.integers(0, 2**63 - 100)
outside = (
    st.builds(lambda first, commands: frames(first, *commands), offsets, commands_)
    | st.builds(lambda first, commands: frames(first, *commands, grouped=True), offsets, commands_)
    | st.builds(Skip, offsets)
    | st.builds(Ping, st.integers(0, 2**53), offsets)
    | st.just(AckRequested())
    | st.just(frames(3, [b"SET", b"k", b"x" * 4100], [b"DEL", b"k"]))
)
ships = st.builds(
    lambda begin, inside, end: [begin, *inside, end],
    st.just(SnapshotBegin()) | st.builds(ScopeSnapshotBegin, st.integers(0, 2**64 - 1), st.binary(max_size=9)),
    st.lists(st.builds(Chunk, st.binary(max_size=50)) | st.builds(Ping, st.integers(0, 2**53), offsets), max_size=5),
    st.builds(SnapshotEnd, offsets),
)
streams = st.lists(ships | outside.map(lambda event: [event]), max_size=4).map(
    lambda parts: [event for part in parts for event in part]
)


@pytest.mark.slow
@settings(deadline=None)
@given(streams, st.integers(1, 40))
def test_a_stream_survives_the_wire_however_it_is_cut(events: list[Event], step: int) -> None:
    data = b"".join(map(encode, events))
    for size in (0, 1, step):
        decoded, error = decode(data, size)
        assert error is None
        assert b"".join(map(encode, decoded)) == data
        assert [c for e in decoded if isinstance(e, Frames) for c in e.commands] == [
            c for e in events if isinstance(e, Frames) for c in e.commands
        ]
        others = [event for event in events if not isinstance(event, Frames) or event.grouped]
        assert [event for event in decoded if not isinstance(event, Frames) or event.grouped] == others


@pytest.mark.slow
@settings(deadline=None)
@given(streams, st.integers(1, 40), st.data())
def test_a_damaged_stream_decodes_or_ends_however_it_is_cut(
    events: list[Event], step: int, data: st.DataObject
) -> None:
    stream = bytearray(b"".join(map(encode, events)) + FRAME)
    place = data.draw(st.integers(0, len(stream) - 1))
    stream[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    whole = decode(bytes(stream))
    assert decode(bytes(stream), 1) == whole
    assert decode(bytes(stream), step) == whole


parts = [
    wire.frame(0, SET_B),
    wire.frame(1, SET_K),
    wire.frame(2, HSET_H),
    FRAME,
    b"\r\n",
    b"\r",
    b"\n",
    b"*",
    b"$",
    b"-1",
]
lines = b"*2,:0,:1,*1,$1,x,+TXN 2,+SKIP 1,+SNAPSHOT,+SNAPSHOT_END 1,+PING 1,SET k 'v'".split(b",")
pieces = st.sampled_from(parts + [line + b"\r\n" for line in lines])


@settings(deadline=None)
@given(st.binary(max_size=100) | st.lists(pieces, max_size=12).map(b"".join))
def test_any_bytes_decode_or_end_however_they_are_cut(data: bytes) -> None:
    whole = decode(data)
    assert decode(data, 1) == whole
    assert decode(data, 4) == whole
