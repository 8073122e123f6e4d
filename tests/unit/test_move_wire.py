"""The wire form of a move: every message there and back, however it is cut, and everything else refused by name."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kevynode.replicate.handshake import HandshakeError, parse_request
from kevynode.replicate.parsing import CommandReader
from kevynode.scope import move_messages, move_wire
from kevynode.scope.ledger_text import MAX_NUMBER
from kevynode.scope.move_messages import Aborted, Ask, Chunk, Message, Refused, Request, Sealed, Stage
from kevynode.scope.move_wire import (
    CHUNK_LIMIT,
    HELLO_LIMIT,
    Hello,
    MessageDecoder,
    MoveWireError,
    encode,
    format_hello,
    parse_hello,
    refuse_version,
)

IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._\-:#]{0,63}", fullmatch=True)
NUMBERS = st.integers(0, MAX_NUMBER)
TEXTS = st.text(max_size=200)
BY_NAME: dict[str, st.SearchStrategy[Any]] = {
    "move_id": IDS,
    "reason": TEXTS.map(lambda text: text.encode("utf-8", "replace").decode()),
    "digest": st.text("0123456789abcdef", max_size=64),
    "data": st.binary(max_size=300),
    **dict.fromkeys(("persistent", "force", "following", "again"), st.booleans()),
}
KINDS = [kind for name in move_messages.__all__ if attrs.has(kind := getattr(move_messages, name))]


def of_kind(kind: Any) -> st.SearchStrategy[Any]:
    return st.builds(kind, **{field.name: BY_NAME.get(field.name, NUMBERS) for field in attrs.fields(kind)})


MESSAGES = st.one_of([of_kind(kind) for kind in KINDS])


def decode(data: bytes, step: int = 0) -> tuple[list[Message], str | None]:
    decoder = MessageDecoder()
    messages: list[Message] = []
    step = step or max(len(data), 1)
    for place in range(0, len(data), step):
        messages += decoder.feed(data[place : place + step])
    return messages, decoder.error.reason if decoder.error else None


def multibulk(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def words_of(data: bytes) -> list[bytes]:
    _, words = CommandReader().read(bytearray(data), 0)
    assert words is not None
    return words


@given(st.lists(MESSAGES, max_size=5), st.integers(1, 50))
def test_messages_come_back_however_they_are_cut(messages: list[Message], step: int) -> None:
    data = b"".join(map(encode, messages))
    assert decode(data) == (messages, None)
    assert decode(data, step) == (messages, None)
    assert decode(data, 1) == (messages, None)


def test_every_kind_has_a_wire_form() -> None:
    assert {kind.__name__ for kind in KINDS} == {kind.__name__ for kind in move_wire._NAMES}
    assert encode(Request("m1", 4, True, False)) == multibulk(b"REQUEST", b"m1", b"4", b"1", b"0")


def test_a_chunk_is_as_large_as_it_may_be_and_no_larger() -> None:
    full = Chunk("m", 1, 0, bytes(CHUNK_LIMIT))
    assert decode(encode(full)) == ([full], None)
    with pytest.raises(ValueError, match="at most"):
        encode(Chunk("m", 1, 0, bytes(CHUNK_LIMIT + 1)))
    head = b"*5\r\n$5\r\nCHUNK\r\n$1\r\nm\r\n$1\r\n1\r\n$1\r\n0\r\n$65537\r\n"
    decoder = MessageDecoder()
    assert decoder.feed(head) == []
    assert decoder.error is not None
    assert (decoder.error.reason, decoder.held) == ("word too long", 0)


def test_a_long_reason_loses_its_end() -> None:
    messages, error = decode(encode(Refused("m", False, "é" * 2000)))
    assert error is None
    assert messages == [Refused("m", False, "é" * 512)]


ERRORS = [
    (b"PING\r\n", "expected a message"),
    (b"*x\r\n", "expected a message"),
    (b"*-1\r\n", "expected a message"),
    (b"*0\r\n", "no message has so many words"),
    (b"*1\r\n", "no message has so many words"),
    (b"*7\r\n", "no message has so many words"),
    (b"*1000000\r\n", "no message has so many words"),
    (b"*" + b"1" * 40, "line too long"),
    (b"*2\r\n:3\r\n", "expected a word"),
    (b"*2\r\n$-1\r\n", "expected a word"),
    (b"*2\r\n$03\r\n", "expected a word"),
    (b"*2\r\n$17\r\n", "word too long"),
    (b"*2\r\n$3\r\nASKx", "no line end behind a word"),
    (b"*2\r\n$3\r\nASK\rx", "no line end behind a word"),
    (multibulk(b"ask", b"m"), "unknown message"),
    (multibulk(b"HELLO", b"m"), "unknown message"),
    (multibulk(b"ASK", b"m", b"1"), "wrong number of words"),
    (multibulk(b"SEALED", b"m"), "wrong number of words"),
    (multibulk(b"ASK", b""), "not an id"),
    (multibulk(b"ASK", b"\xff"), "not an id"),
    (multibulk(b"ASK", b"a b"), "not an id"),
    (multibulk(b"ASK", b"m" * 65), "word too long"),
    (multibulk(b"STAGE", b"m", b"1", b"-1", b"0"), "not a number in range"),
    (multibulk(b"STAGE", b"m", b"01", b"1", b"0"), "not a number in range"),
    (multibulk(b"STAGE", b"m", b"1", b"9007199254740992", b"0"), "not a number in range"),
    (multibulk(b"STAGE", b"m", b"1", b"1" * 17, b"0"), "word too long"),
    (multibulk(b"REQUEST", b"m", b"1", b"2", b"0"), "neither 0 nor 1"),
    (multibulk(b"SEALED", b"m", b"1", b"xyz"), "not a digest"),
    (multibulk(b"SEALED", b"m", b"1", b"a" * 65), "word too long"),
    (multibulk(b"REFUSED", b"m", b"0", b"r" * 1025), "word too long"),
    (b"-ERR unknown command 'INGEST'\r\n", "the peer answers with an error"),
    (b"-" + b"x" * 600, "line too long"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "reason"), ERRORS)
@pytest.mark.parametrize("step", [0, 1, 7])
def test_everything_else_is_refused_by_name(data: bytes, reason: str, step: int) -> None:
    assert decode(encode(Ask("m")) + data + encode(Ask("m")), step) == ([Ask("m")], reason)


def test_what_the_other_end_says_instead_is_shown() -> None:
    decoder = MessageDecoder()
    decoder.feed(b"-ERR unknown command 'INGEST'\r\n")
    assert str(decoder.error) == "the peer answers with an error: ERR unknown command 'INGEST'"


@given(st.binary(max_size=200), st.integers(1, 20))
def test_junk_never_raises_and_is_never_kept(data: bytes, step: int) -> None:
    assert decode(data, step) == decode(data)


@given(MESSAGES, st.data())
def test_a_damaged_message_never_raises(message: Message, data: st.DataObject) -> None:
    raw = bytearray(encode(message))
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] = data.draw(st.integers(0, 255))
    assert decode(bytes(raw), 1) == decode(bytes(raw))


def test_no_more_than_one_message_is_held() -> None:
    decoder = MessageDecoder()
    held = 0
    data = encode(Chunk("m", 1, 0, bytes(CHUNK_LIMIT))) * 2
    for place in range(0, len(data), 1000):
        decoder.feed(data[place : place + 1000])
        held = max(held, decoder.held)
    assert held <= CHUNK_LIMIT + 1000


HELLO = Hello("m-1", b"app:\r\n\xff", "a", "b:1")


def test_the_hello_comes_back() -> None:
    data = format_hello(HELLO)
    assert len(data) <= HELLO_LIMIT
    assert parse_hello(words_of(data)) == HELLO
    assert len(format_hello(Hello("m" * 64, bytes(1024), "a" * 64, "b" * 64))) <= HELLO_LIMIT
    lower = [word.lower() if word in (b"INGEST", b"FROM", b"TO") else word for word in words_of(data)]
    assert parse_hello(lower) == HELLO


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "expected INGEST command"),
        ([b"PEER", b"1"], "expected INGEST command"),
        ([b"INGEST"], "INGEST expects 8 args, got 1"),
        ([b"INGEST", b"x"], "version must be a positive decimal"),
        ([b"INGEST", b"0"], "version must be a positive decimal"),
        ([b"INGEST", b"2"], "INGEST version 2 is newer than 1, the newest that this node speaks"),
        ([b"INGEST", b"1", b"m"], "INGEST expects 8 args, got 3"),
        ([b"INGEST", b"1", b"m", b"p", b"TO", b"a", b"FROM", b"b"], "expected 'FROM' and 'TO' keywords"),
        ([b"INGEST", b"1", b"m", b"p" * 1025, b"FROM", b"a", b"TO", b"b"], "a prefix has at most 1024 bytes"),
        ([b"INGEST", b"1", b"m", b"p", b"FROM", b"a", b"TO", b"a"], "a move goes from one node to another"),
        ([b"INGEST", b"1", b"", b"p", b"FROM", b"a", b"TO", b"b"], "not an id"),
        ([b"INGEST", b"1", b"m", b"p", b"FROM", b"a\n", b"TO", b"b"], "not an id"),
    ],
)
def test_bad_hellos_are_refused_by_name(words: list[bytes], reason: str) -> None:
    with pytest.raises(MoveWireError) as caught:
        parse_hello(words)
    assert caught.value.reason == reason


def test_a_newer_version_is_told_so_in_words_that_it_knows() -> None:
    words = [b"INGEST", b"9", b"m7", b"something", b"else"]
    assert decode(refuse_version(words, "too new")) == ([Refused("m7", False, "too new")], None)
    assert refuse_version([b"INGEST", b"9"], "too new") == b""
    assert refuse_version([b"INGEST", b"9", b"\xff"], "too new") == b""


def test_a_hello_is_no_handshake_of_a_replica() -> None:
    with pytest.raises(HandshakeError, match="expected REPLICATE"):
        parse_request(words_of(format_hello(HELLO)))


def test_messages_behind_an_error_do_not_count() -> None:
    decoder = MessageDecoder()
    decoder.feed(b"junk\r\n")
    assert decoder.feed(encode(Aborted("m")) + encode(Sealed("m", 1, "")) + encode(Stage("m", 1, 1, 1))) == []
