"""What a replica says behind its handshake: acknowledgements, wishes, and much that is ignored."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kevynode.replicate import wire
from kevynode.replicate.ack_decoder import ACK_LINE_LIMIT, SCOPES_LIMIT, AckDecoder, ReplicaMessage
from kevynode.replicate.handshake import HandshakeParser, format_scopes
from kevynode.replicate.lineage import MAX_OFFSET

VECTORS = Path(__file__).parents[1] / "vectors"


def decode(data: bytes, step: int = 0) -> tuple[list[ReplicaMessage], str | None]:
    decoder = AckDecoder()
    messages: list[ReplicaMessage] = []
    step = step or max(len(data), 1)
    for place in range(0, len(data), step):
        messages += decoder.feed(data[place : place + step])
    return messages, decoder.error.reason if decoder.error else None


@pytest.mark.parametrize(
    ("data", "messages"),
    [
        (wire.ack(0) + wire.ack(MAX_OFFSET), [("ack", 0), ("ack", MAX_OFFSET)]),
        (b"replconf Ack 7\r\nREPLCONF ACK 008\n  REPLCONF   ACK 9 \r\n", [("ack", 7), ("ack", 8), ("ack", 9)]),
        (wire.resync(b"a\xff\r\n"), [("resync", b"a\xff\r\n")]),
        (wire.resync(b""), [("resync", b"")]),
        (wire.ack(1) + format_scopes([b"a:", b"\r\nREPLCONF ACK 5\r\n"]) + wire.ack(2),
         [("ack", 1), ("scopes", (b"a:", b"\r\nREPLCONF ACK 5\r\n")), ("ack", 2)]),
        (format_scopes([]), [("scopes", ())]),
        (b"REPLCONF ACK 7", []),
        (b"REPLCONF ACK " + b"0" * 5000 + b"7\r\n", [("ack", 7)]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("step", [0, 1, 5])
def test_what_is_heard(data: bytes, messages: list[ReplicaMessage], step: int) -> None:
    assert decode(data, step) == (messages, None)


IGNORED = [
    b"*3\r\n$8\r\nREPLCONF\r\n$3\r\nACK\r\n$1\r\n7\r\n",
    b"*3\r\n$8\r\nREPLCONF\r\n$6\r\nSCOPES\r\n$1\r\n7\r\n",
    b"*1\r\n$18\r\nREPLCONF ACK 7\r\n12\r\n",
    b"REPLCONF\r\n",
    b"REPLCONF ACK\r\n",
    b"REPLCONF ACK x\r\n",
    b"REPLCONF ACK -1\r\n",
    b"REPLCONF ACK %d\r\n" % (MAX_OFFSET + 1),
    b"REPLCONF ACK 1 2\r\n",
    b"REPLCONF ACK " + b"1" * 5000 + b"\r\n",
    b"REPLCONF RESYNC abc\r\n",
    b"REPLCONF RESYNC zz\r\n",
    b"REPLCONF RESYNC \xff\r\n",
    b"REPLCONF SCOPES 1 a\r\n",
    b"REPLCONF GETACK *\r\n",
    b"ACK 7\r\n",
    b"\r\n\n",
    b"\x00\xff junk\r\n",
    b"*x\r\n",
    b"*0\r\n",
    b"*2\r\n*1\r\n:3\r\n",
    b"*1\r\n$-1\r\n",
    b"*1\r\n$1\r\nxy\r\n",
    b"*" + b"1" * 50 + b"\r\n",
]


@pytest.mark.parametrize("data", IGNORED)
@pytest.mark.parametrize("step", [0, 1, 5])
def test_what_is_ignored(data: bytes, step: int) -> None:
    assert decode(wire.ack(1) + data + wire.ack(2), step) == ([("ack", 1), ("ack", 2)], None)


@pytest.mark.parametrize("step", [0, 4096])
def test_what_never_ends_ends_the_link(step: int) -> None:
    assert decode(wire.ack(1) + b"x" * (ACK_LINE_LIMIT + 1), step) == ([("ack", 1)], "line too long")
    assert decode(wire.ack(1) + b"x" * (ACK_LINE_LIMIT + 1) + b"\n", step) == ([("ack", 1)], "line too long")
    endless = b"*3\r\n" + (b"$%d\r\n" % (SCOPES_LIMIT // 2) + b"x" * (SCOPES_LIMIT // 2) + b"\r\n") * 2
    assert decode(wire.ack(1) + endless, step) == ([("ack", 1)], "request too long")
    decoder = AckDecoder()
    decoder.feed(b"x" * (ACK_LINE_LIMIT + 1))
    assert decoder.error is not None
    assert decoder.feed(wire.ack(1)) == []


def test_the_kevy_servers_own_acknowledgements_both_ways() -> None:
    heard = []
    for data in filter(None, (VECTORS / "v5-replica-sends.bin").read_bytes().split(b"<EOF>")):
        parser = HandshakeParser()
        parser.feed(data)
        messages, error = decode(parser.rest)
        assert error is None
        acks = [message[1] for message in messages if message[0] == "ack"]
        assert b"".join(map(wire.ack, acks)) == (parser.rest if b"REPLICATE" not in parser.rest else b"")
        heard.append(acks)
    assert heard == [[1, 2, 2, 2], [11, 14], [], []]


parts = [
    wire.ack(5),
    wire.resync(b"p"),
    format_scopes([b"a", b"b"]),
    b"*1\r\n",
    b"$1\r\n",
    b" ACK ",
    b"\r\n",
    b"\n",
    b"\r",
]
pieces = st.sampled_from(parts + b"* 1 $ REPLCONF x".split())


@settings(deadline=None)
@given(st.binary(max_size=80) | st.lists(pieces, max_size=12).map(b"".join))
def test_any_bytes_are_heard_or_ignored_however_they_are_cut(data: bytes) -> None:
    whole = decode(data)
    assert whole[1] is None
    assert decode(data, 1) == whole
    assert decode(data, 3) == whole
