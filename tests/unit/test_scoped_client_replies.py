"""The parser of replies: every type, however the bytes arrive, and nothing beyond its bounds."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kevynode.errors import ReplyError
from kevynode.reply import Status, Verbatim, encode
from kevynode.reply_parser import DEPTH_LIMIT, LINE_LIMIT, ReplyParser, ReplyProtocolError


def plain(value: Any) -> Any:
    """Errors compare by identity."""
    if isinstance(value, ReplyError):
        return ("error", value.prefix, value.text)
    if isinstance(value, list):
        return [plain(element) for element in value]
    if isinstance(value, dict):
        return {plain(key): plain(element) for key, element in value.items()}
    return value


def parse(data: bytes, limit: int = 1 << 20) -> list[Any]:
    return [plain(reply) for reply in ReplyParser(limit).feed(data)]


@pytest.mark.parametrize(
    ("wire", "value"),
    [
        (b"+OK\r\n", "OK"),
        (b"+\r\n", ""),
        (b"-ERR no such key\r\n", ("error", "ERR", "no such key")),
        (b"-DENIED\r\n", ("error", "DENIED", "")),
        (b":-42\r\n", -42),
        (b":+7\r\n", 7),
        (b"$0\r\n\r\n", b""),
        (b"$4\r\n\r\n\r\n\r\n", b"\r\n\r\n"),
        (b"$-1\r\n", None),
        (b"*-1\r\n", None),
        (b"*0\r\n", []),
        (b"*2\r\n*1\r\n:1\r\n*0\r\n", [[1], []]),
        (b"_\r\n", None),
        (b"#t\r\n", True),
        (b"#f\r\n", False),
        (b",1.5\r\n", 1.5),
        (b",-inf\r\n", -math.inf),
        (b"(12345678901234567890123\r\n", 12345678901234567890123),
        (b"=7\r\ntxt:abc\r\n", "abc"),
        (b"!9\r\nOOM wrong\r\n", ("error", "OOM", "wrong")),
        (b"~2\r\n:1\r\n:2\r\n", [1, 2]),
        (b"%1\r\n$1\r\nk\r\n:1\r\n", {b"k": 1}),
        (b"%1\r\n*1\r\n:1\r\n:2\r\n", [([1], 2)]),
    ],
)
def test_a_type(wire: bytes, value: Any) -> None:
    assert parse(wire) == [value]


@pytest.mark.parametrize(
    "wire",
    [
        b">2\r\n+message\r\n+x\r\n:1\r\n",
        b"|1\r\n+ttl\r\n:3\r\n:1\r\n",
        b">0\r\n:1\r\n",
        b">1\r\n*1\r\n|0\r\n+x\r\n:1\r\n",
    ],
)
def test_what_answers_nothing_is_left_out(wire: bytes) -> None:
    assert parse(wire) == [1]


def test_an_attribute_inside_an_array_is_no_element() -> None:
    assert parse(b"*2\r\n|1\r\n+a\r\n+b\r\n:1\r\n:2\r\n") == [[1, 2]]


@pytest.mark.parametrize(
    "wire",
    [
        b"hello\r\n",
        b"\r\n",
        b":x\r\n",
        b":\r\n",
        b"$-2\r\n",
        b"*-2\r\n",
        b"=-1\r\n",
        b"%-1\r\n",
        b"#x\r\n",
        b"_x\r\n",
        b",one\r\n",
        b"$3\r\nabcde\r\n",
        b":" + b"1" * 5000 + b"\r\n",
        b"+" + b"x" * (LINE_LIMIT + 1),
        b"+" + b"x" * (LINE_LIMIT + 1) + b"\r\n",
        b"*1\r\n" * (DEPTH_LIMIT + 1),
        b"$2000000\r\n",
        b"*1000000000\r\n",
        b"*3\r\n" + b"$600000\r\n" + b"x" * 600000 + b"\r\n" + b"$600000\r\n",
    ],
    ids=lambda wire: repr(wire[:20]),
)
def test_what_is_no_reply_or_too_much(wire: bytes) -> None:
    with pytest.raises(ReplyProtocolError):
        parse(wire)


def test_many_small_elements_count_too() -> None:
    inner = b"*100\r\n" + b":1\r\n" * 100
    with pytest.raises(ReplyProtocolError):
        parse(b"*1000\r\n" + inner * 1000, limit=100_000)


def test_the_limit_is_one_of_each_reply() -> None:
    assert len(parse(b"$1000\r\n" + b"x" * 1000 + b"\r\n", limit=2000)) == 1
    assert len(parse((b"$1000\r\n" + b"x" * 1000 + b"\r\n") * 100, limit=2000)) == 100


def test_it_knows_whether_something_is_held() -> None:
    parser = ReplyParser()
    assert parser.idle
    for piece in (b"*", b"1\r\n", b"$1\r\n"):
        assert parser.feed(piece) == []
        assert not parser.idle
    assert parser.feed(b"x\r\n") == [[b"x"]]
    assert parser.idle


values = st.recursive(
    st.none()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.binary(max_size=30)
    | st.booleans()
    | st.text("ab c", max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.binary(max_size=3), inner, max_size=3),
    max_leaves=12,
)


def typed(value: Any) -> Any:
    """The same as what a command handler returns; text is verbatim or a status, by its first letter."""
    if isinstance(value, str):
        return Verbatim(value.encode()) if value.startswith("a") else Status(value.encode())
    if isinstance(value, list):
        return [typed(element) for element in value]
    if isinstance(value, dict):
        return {key: typed(element) for key, element in value.items()}
    return value


@given(st.lists(values, max_size=4), st.data())
def test_what_a_node_encodes_comes_out_however_it_arrives(replies: list[Any], data: st.DataObject) -> None:
    wire = b"".join(bytes(encode(typed(reply), 3)) for reply in replies)
    parser = ReplyParser()
    parsed: list[Any] = []
    place = 0
    while place < len(wire):
        size = data.draw(st.integers(1, 20))
        parsed += parser.feed(wire[place : place + size])
        place += size
    assert parsed == replies
    assert parser.idle


@given(st.binary(max_size=300))
def test_any_bytes_parse_or_are_refused(wire: bytes) -> None:
    def outcome(pieces: list[bytes]) -> tuple[list[Any], bool]:
        parser = ReplyParser(1 << 16)
        parsed: list[Any] = []
        try:
            for piece in pieces:
                parsed += [repr(plain(reply)) for reply in parser.feed(piece)]
        except ReplyProtocolError:
            return parsed, False
        return parsed, True

    whole, accepted = outcome([wire])
    dripped, also = outcome([wire[place : place + 1] for place in range(len(wire))])
    assert accepted == also
    # Replies before what is wrong are lost with the piece that they came in.
    assert dripped[: len(whole)] == whole
