"""The handshake: every form and every way to get it wrong, and what the primary answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kevynode.replicate.ack_decoder import SCOPES_LIMIT, AckDecoder
from kevynode.replicate.handshake import (
    CAPABILITIES,
    HANDSHAKE_LIMIT,
    Form,
    HandshakeError,
    HandshakeParser,
    Request,
    format_answer,
    format_request,
    format_scopes,
)
from kevynode.replicate.lineage import Lineage
from kevynode.replicate.wire import ack

VECTORS = Path(__file__).parents[1] / "vectors"


def multibulk(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def parse(data: bytes, step: int = 0) -> Request | str:
    """The request in ``data``, or why there is none; fed in pieces of ``step`` bytes, or whole."""
    parser = HandshakeParser()
    step = step or max(len(data), 1)
    try:
        for place in range(0, len(data), step):
            request = parser.feed(data[place : place + step])
            if request is not None:
                assert data.endswith(parser.rest + data[place + step :])
                return request
    except HandshakeError as error:
        return error.reason
    return "incomplete"


LONG_ID = "наш узел " * 235

WELL_FORMED = [
    pytest.param(multibulk(b"REPLICATE", b"FROM", b"7", b"ID", b"a"), Request(Form.FIVE, 0, 7, "a"), id="five"),
    pytest.param(
        multibulk(b"REPLICATE", b"FROM", b"9", b"7", b"ID", b"a"), Request(Form.SIX, 9, 7, "a"), id="six arguments"
    ),
    pytest.param(
        multibulk(b"REPLICATE", b"FROM", b"9", b"7", b"ID", b"a", b"CAPA", b"2", b"txn", b"new"),
        Request(Form.EXTENDED, 9, 7, "a", frozenset({"txn", "new"})),
        id="extended",
    ),
    pytest.param(
        multibulk(b"REPLICATE", b"FROM", b"9", b"7", b"ID", b"a", b"CAPA", b"0"),
        Request(Form.EXTENDED, 9, 7, "a"),
        id="extended, with nothing",
    ),
    pytest.param(
        multibulk(b"replicate", b"From", b"9", b"7", b"iD", b"a", b"capa", b"1", b"txn"),
        Request(Form.EXTENDED, 9, 7, "a", frozenset({"txn"})),
        id="keywords in any case",
    ),
    pytest.param(b"REPLICATE FROM 9 7 ID a\r\n", Request(Form.SIX, 9, 7, "a"), id="inline"),
    pytest.param(b"REPLICATE FROM 7 ID a\n", Request(Form.FIVE, 0, 7, "a"), id="inline, line feed only"),
    pytest.param(b"REPLICATE FROM 7 ID 'a b'\r\n", Request(Form.FIVE, 0, 7, "a b"), id="inline, quoted"),
    pytest.param(b"\r\n\r\nREPLICATE FROM 7 ID a\r\n", Request(Form.FIVE, 0, 7, "a"), id="line ends in front"),
    pytest.param(
        b"\r\n" + multibulk(b"REPLICATE", b"FROM", b"7", b"ID", b"a"),
        Request(Form.FIVE, 0, 7, "a"),
        id="a line end before a multibulk",
    ),
    pytest.param(
        multibulk(b"REPLICATE", b"FROM", b"0009", b"0" * 30 + b"7", b"ID", b"a"),
        Request(Form.SIX, 9, 7, "a"),
        id="leading zeros",
    ),
    pytest.param(
        multibulk(b"REPLICATE", b"FROM", b"%d" % (2**64 - 1), b"%d" % (2**64 - 1), b"ID", b"a"),
        Request(Form.SIX, 2**64 - 1, 2**64 - 1, "a"),
        id="the largest numbers",
    ),
    pytest.param(
        multibulk(b"REPLICATE", b"FROM", b"1", b"2", b"ID", LONG_ID.encode()),
        Request(Form.SIX, 1, 2, LONG_ID),
        id="a long id with blanks",
    ),
]


@pytest.mark.parametrize(("data", "request_"), WELL_FORMED)
@pytest.mark.parametrize("step", [0, 1, 7])
def test_well_formed(data: bytes, request_: Request, step: int) -> None:
    assert parse(data, step) == request_


def six(history: bytes = b"1", offset: bytes = b"2", replica_id: bytes = b"a") -> bytes:
    return multibulk(b"REPLICATE", b"FROM", history, offset, b"ID", replica_id)


NO_HISTORY = "generation must be an unsigned decimal"
NO_OFFSET = "from-offset must be an unsigned decimal"
NO_NUMBERS = [b"-1", b"+1", b"", b"NaN", b"%d" % 2**64, b"1" * 40, b"1.0", b" 1", b"0x1", "٣".encode()]

MALFORMED = [
    *((six(history=word), NO_HISTORY) for word in NO_NUMBERS),
    *((six(offset=word), NO_OFFSET) for word in NO_NUMBERS),
    *((multibulk(b"REPLICATE", b"FROM", word, b"ID", b"a"), NO_OFFSET) for word in NO_NUMBERS),
    (six(replica_id=b""), "replica id must be non-empty UTF-8"),
    (six(replica_id=b"\xff"), "replica id must be non-empty UTF-8"),
    (multibulk(b"REPLICATE", b"FROM", b"1", b"ID", b"\xc3"), "replica id must be non-empty UTF-8"),
    (multibulk(b"REPLICATE"), "REPLICATE expects 6 args, got 1"),
    (multibulk(b"REPLICATE", b"FROM", b"1", b"ID"), "REPLICATE expects 6 args, got 4"),
    (multibulk(b"REPLICATE", b"FROM", b"1", b"2", b"ID", b"a", b"CAPA"), "REPLICATE expects 6 args, got 7"),
    (multibulk(b"REPLICATE", b"FROM", b"1", b"2", b"ID", b"a", b"b", b"c"), "REPLICATE expects 6 args, got 8"),
    (b"REPLICATE FROM 1\r\n", "REPLICATE expects 6 args, got 3"),
    (multibulk(b"REPLICATE", b"SINCE", b"1", b"2", b"ID", b"a"), "expected 'FROM' keyword"),
    (multibulk(b"REPLICATE", b"SINCE", b"1", b"ID", b"a"), "expected 'FROM' keyword"),
    (multibulk(b"REPLICATE", b"FROM", b"1", b"2", b"AS", b"a"), "expected 'ID' keyword"),
    (multibulk(b"REPLICATE", b"FROM", b"1", b"AS", b"a"), "expected 'ID' keyword"),
    (multibulk(b"REPLICATES", b"FROM", b"1", b"2", b"ID", b"a"), "expected REPLICATE command"),
    (multibulk(b"PSYNC", b"?", b"-1"), "expected REPLICATE command"),
    (b"SYNC\r\n", "expected REPLICATE command"),
    (b"PING\r\n", "expected REPLICATE command"),
    (multibulk(b"PING"), "expected REPLICATE command"),
    (multibulk(b"SET", b"k", b"v"), "expected REPLICATE command"),
    (b"GET / HTTP/1.1\r\n", "expected REPLICATE command"),
    (six()[:-1] + b"\r", "malformed request: no line end behind an argument"),
    (b"*6\r\n:9\r\n", "malformed request: expected '$'"),
    (b"*x\r\n", "malformed request: invalid multibulk length"),
    (b"*0\r\n", "malformed request: invalid multibulk length"),
    (b"*-1\r\n", "malformed request: invalid multibulk length"),
    (b"*1025\r\n", "malformed request: invalid multibulk length"),
    (b"*1\r\n$-1\r\n", "malformed request: invalid bulk length"),
    (b"*1\r\n$4097\r\n", "malformed request: invalid bulk length"),
    (b"*" + b"1" * 40, "malformed request: length line too long"),
    (b'REPLICATE FROM 1 ID "a\r\n', "malformed request: unbalanced quotes in request"),
    (b"x" * (HANDSHAKE_LIMIT + 1), "no complete request in 4096 bytes"),
    (b"\r\n" * HANDSHAKE_LIMIT, "no complete request in 4096 bytes"),
    (six(replica_id=b"i" * 4060), "no complete request in 4096 bytes"),
    (
        multibulk(b"REPLICATE", b"FROM", b"1", b"2", b"ID", b"a", b"CAPA", b"2", b"txn"),
        "CAPA announces b'2' names, got 1",
    ),
    (
        multibulk(b"REPLICATE", b"FROM", b"1", b"2", b"ID", b"a", b"CAPA", b"-", b"txn"),
        "CAPA announces b'-' names, got 1",
    ),
    (
        multibulk(b"REPLICATE", b"FROM", b"1", b"2", b"ID", b"a", b"CAPA", b"1", b"\xff"),
        "a capability must be non-empty UTF-8",
    ),
]


@pytest.mark.parametrize(("data", "reason"), MALFORMED)
@pytest.mark.parametrize("step", [0, 1, 7])
def test_malformed(data: bytes, reason: str, step: int) -> None:
    assert parse(data, step) == reason


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        (multibulk(b"psync", b"?", b"-1"), "a Redis or Valkey replica or client sent PSYNC"),
        (b"PING\r\n", "a Redis or Valkey replica or client sent PING"),
        (multibulk(b"GET", b"k"), "wants the client port"),
        (multibulk(b"PEER", b"1", b"a", b"i", b"b"), "no scopes are declared here"),
        (multibulk(b"INGEST", b"1", b"m", b"p", b"FROM", b"a", b"TO", b"b"), "no scopes are declared here"),
    ],
)
def test_who_is_wrong_here_is_told_apart_in_the_log(data: bytes, hint: str) -> None:
    parser = HandshakeParser()
    with pytest.raises(HandshakeError) as caught:
        parser.feed(data)
    assert hint in caught.value.hint
    assert str(caught.value) == f"expected REPLICATE command ({caught.value.hint})"
    assert parser.words


def test_what_follows_the_request_is_kept() -> None:
    parser = HandshakeParser()
    behind = b"REPLCONF ACK 1\r\n" * 1000
    assert parser.feed(six() + behind) == Request(Form.SIX, 1, 2, "a")
    assert parser.rest == behind
    with pytest.raises(RuntimeError):
        parser.feed(b"more")


def test_a_request_may_fill_the_limit() -> None:
    data = format_request(Request(Form.FIVE, 0, 1, "i" * 4043))
    assert len(data) == HANDSHAKE_LIMIT
    assert isinstance(parse(data), Request)
    assert isinstance(parse(data, 1), Request)
    with pytest.raises(ValueError):
        format_request(Request(Form.FIVE, 0, 1, "i" * 4044))


def test_a_request_needs_an_id() -> None:
    with pytest.raises(ValueError):
        format_request(Request(Form.FIVE, 0, 1, ""))


requests = st.builds(
    Request,
    st.just(Form.EXTENDED),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200),
    st.frozensets(st.sampled_from([*CAPABILITIES, "later", "x"])),
) | st.builds(
    lambda form, history, offset: Request(form, history if form is Form.SIX else 0, offset, "id"),
    st.sampled_from([Form.FIVE, Form.SIX]),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
)


@settings(deadline=None)
@given(requests, st.integers(0, 9))
def test_a_request_survives_the_wire(request_: Request, step: int) -> None:
    assert parse(format_request(request_), step) == request_


parts = [*b"REPLICATE FROM ID CAPA * 1 2 4 5 6 9 $ '".split(b" "), b" ", b"\r\n", b"\n"]
shapes = st.binary(max_size=200) | st.lists(st.sampled_from(parts)).map(b"".join)


@settings(deadline=None)
@given(shapes)
def test_any_bytes_parse_or_are_refused_however_they_are_cut(data: bytes) -> None:
    assert parse(data) == parse(data, 1) == parse(data, 3)


@settings(deadline=None)
@given(requests, st.data())
def test_damaged_requests_parse_or_are_refused_however_they_are_cut(request_: Request, data: st.DataObject) -> None:
    wire = bytearray(format_request(request_))
    wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    assert parse(bytes(wire)) == parse(bytes(wire), 1)


@pytest.mark.parametrize("version", ["v2", "v5"])
def test_the_kevy_servers_own_requests_both_ways(version: str) -> None:
    connections = (VECTORS / f"{version}-replica-sends.bin").read_bytes().split(b"<EOF>")
    read = 0
    for data in filter(None, connections):
        parser = HandshakeParser()
        request_ = parser.feed(data)
        assert request_ is not None
        assert request_.form is (Form.FIVE if version == "v2" else Form.SIX)
        assert request_.replica_id.startswith("kevy-replica-")
        assert format_request(request_) + parser.rest == data
        read += 1
    assert read == 4


LINEAGE = Lineage(7).branch(8, 100).branch(9, 250)


@pytest.mark.parametrize(
    ("request_", "accepted", "answer"),
    [
        (Request(Form.FIVE, 0, 5, "a"), CAPABILITIES, b"+ACK 5\r\n"),
        (Request(Form.SIX, 3, 5, "a"), CAPABILITIES, b"+ACK 9 5\r\n"),
        (Request(Form.EXTENDED, 3, 5, "a"), CAPABILITIES, b"+ACK 9 5\r\n+CAPA 0\r\n"),
        (
            Request(Form.EXTENDED, 3, 5, "a", frozenset({"ackreq", "txn", "later"})),
            ("ackreq", "later", "txn", "skip"),
            b"+ACK 9 5\r\n+CAPA 2 txn ackreq\r\n",
        ),
        (
            Request(Form.EXTENDED, 3, 5, "a", frozenset(CAPABILITIES)),
            CAPABILITIES,
            b"+ACK 9 5\r\n+CAPA 5 txn skip scopes ackreq lineage\r\n+LINEAGE 8@250 7@100\r\n",
        ),
    ],
)
def test_the_answer(request_: Request, accepted: Sequence[str], answer: bytes) -> None:
    assert format_answer(request_, LINEAGE, accepted) == answer


def test_a_history_without_ancestors_says_so() -> None:
    request_ = Request(Form.EXTENDED, 0, 0, "a", frozenset({"lineage"}))
    assert format_answer(request_, Lineage(9), CAPABILITIES) == b"+ACK 9 0\r\n+CAPA 1 lineage\r\n+LINEAGE\r\n"


def test_the_answer_to_the_kevy_servers_requests() -> None:
    for version, history in (("v2", 1), ("v5", 4913458337130657)):
        for name, offset in (("live", 0), ("resume-0", 0), ("resume-5", 5)):
            recorded = (VECTORS / f"{version}-{name}.bin").read_bytes()
            form = Form.FIVE if version == "v2" else Form.SIX
            assert recorded.startswith(format_answer(Request(form, history, offset, "cap1"), Lineage(history)))


@pytest.mark.parametrize("prefixes", [(), (b"a:", b"", b"\xff\r\n"), tuple(b"p%d:" % n for n in range(3000))])
def test_prefixes_arrive_as_they_were_named(prefixes: tuple[bytes, ...]) -> None:
    decoder = AckDecoder()
    data = format_scopes(prefixes) + ack(7)
    messages = [message for place in range(len(data)) for message in decoder.feed(data[place : place + 1])]
    assert messages == [("scopes", prefixes), ("ack", 7)]
    assert decoder.error is None


def test_too_many_prefixes_are_not_asked_for() -> None:
    with pytest.raises(ValueError):
        format_scopes([b"x" * SCOPES_LIMIT])
