"""What nodes say to each other on a peer link: the same both ways, however it is cut, and nothing but that."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kevynode.replicate.lineage import ANCESTOR_LIMIT, HISTORY_LIMIT, MAX_OFFSET
from kevynode.replicate.parsing import CommandReader
from kevynode.scope.copies import HeldCopy
from kevynode.scope.ledger import Ledger, LedgerEntry
from kevynode.scope.ledger_text import MAX_NUMBER, PREFIX_LIMIT
from kevynode.scope.peer_messages import (
    ASKED_PREFIXES,
    Beat,
    Configuration,
    ConfigurationRows,
    CopiesAsked,
    CopiesHeld,
    Hello,
    LedgerPage,
    Message,
    PeerRow,
    Refused,
    ScopeRow,
    Welcome,
    in_questions,
    multibulk,
)
from kevynode.scope.peer_wire import (
    ANSWER_LIMIT,
    MESSAGE_LIMIT,
    AnswerDecoder,
    PeerDecoder,
    PeerWireError,
    encode,
    encode_ledger,
    encode_news,
    parse_hello,
)

DIGEST = "0123456789abcdef" * 4
BEAT = Beat(DIGEST, 7, 3, DIGEST[::-1], "serving", "10.0.0.1:6004")
ENTRY = LedgerEntry(b"app:\xff ", "node-b", 4, "0c1d")
PAGE = LedgerPage("LAST", (ENTRY, LedgerEntry(b"", "c", 1, "m")))
SCOPES = ScopeRow(b"app:\r\n", "a", "b"), ScopeRow(b"z:", "b")
PEERS = (PeerRow("a", "10.0.0.1:6004", "10.0.0.1:16004", "kevynode"), PeerRow("b", "[::1]:1", "", "kevy"))
ROWS = ConfigurationRows(2, 9, (*SCOPES, *PEERS))
ASKED = CopiesAsked(5, (b"app:", b""))
# As many ancestors as there may be, as long as they may be.
LONGEST = tuple((HISTORY_LIMIT - number, MAX_OFFSET - number) for number in range(2, 2 + ANCESTOR_LIMIT))
HELD = CopiesHeld(
    5,
    ((b"app:", HeldCopy(HISTORY_LIMIT - 1, MAX_OFFSET, 0, 2, LONGEST)), (b"", HeldCopy(7, 9, 3, 0, ((6, 4), (5, 0))))),
)
MESSAGES: list[Message] = [BEAT, PAGE, ROWS, ASKED, HELD]


def decode(data: bytes) -> list[Message]:
    decoder = PeerDecoder()
    found = decoder.feed(data)
    assert decoder.error is None
    return found


def complaint(data: bytes) -> str:
    """What a decoder says about ``data``, the same for whole and dripped bytes; empty if nothing."""
    decoder = PeerDecoder()
    found = decoder.feed(data)
    dripped = PeerDecoder()
    assert [message for byte in data for message in dripped.feed(bytes([byte]))] == found
    # How much of it is shown depends on what was there.
    assert str(dripped.error).partition(", got")[0] == str(decoder.error).partition(", got")[0]
    if decoder.error is not None:
        assert decoder.held == 0
        assert decoder.feed(encode(BEAT)) == []
    return "" if decoder.error is None else str(decoder.error)


def words(message: Message) -> list[bytes]:
    """The words that a message has on the wire."""
    _, found = CommandReader().read(bytearray(encode(message)), 0)
    assert found is not None
    return found


# -- messages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_comes_out_as_it_went_in(message: Message) -> None:
    assert decode(encode(message)) == [message]


def test_what_is_held_is_said_in_these_bytes() -> None:
    said = CopiesHeld(5, ((b"app:", HeldCopy(7, 9, 3, 1, ((6, 4), (5, 0)))), (b"web:", HeldCopy(0, 2, 1))))
    assert encode(said) == (
        b"*14\r\n$4\r\nHELD\r\n$1\r\n5\r\n"
        b"$4\r\napp:\r\n$1\r\n7\r\n$1\r\n9\r\n$1\r\n3\r\n$1\r\n1\r\n$7\r\n6@4,5@0\r\n"
        b"$4\r\nweb:\r\n$1\r\n0\r\n$1\r\n2\r\n$1\r\n1\r\n$1\r\n0\r\n$0\r\n\r\n"
    )


def test_messages_may_come_in_pieces_of_any_size() -> None:
    data = b"".join(map(encode, MESSAGES))
    for size in (1, 2, 7, 64, len(data)):
        decoder = PeerDecoder()
        pieces = [data[start : start + size] for start in range(0, len(data), size)]
        assert [message for piece in pieces for message in decoder.feed(piece)] == MESSAGES
        assert (decoder.error, decoder.held) == (None, 0)


node_ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._\-:#]{0,63}", fullmatch=True)
numbers = st.integers(0, MAX_NUMBER)
prefixes = st.binary(max_size=80)
entries = st.builds(LedgerEntry, prefixes, node_ids, st.integers(1, MAX_NUMBER), node_ids)
addresses = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60)
rows = st.builds(ScopeRow, prefixes, node_ids, st.just("") | node_ids) | st.builds(
    PeerRow, node_ids, addresses, addresses, st.sampled_from(["kevynode", "kevy"])
)
digests = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
ancestors = st.lists(
    st.tuples(st.integers(1, 99), numbers), max_size=ANCESTOR_LIMIT, unique_by=lambda ancestor: ancestor[0]
).map(tuple)
copies = st.builds(HeldCopy, st.integers(0, HISTORY_LIMIT - 1), numbers, numbers, numbers) | st.builds(
    HeldCopy, st.integers(100, HISTORY_LIMIT - 1), numbers, numbers, numbers, ancestors
)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Beat, digests, numbers, numbers, digests, st.sampled_from(["loading", "serving"]), addresses),
    st.builds(LedgerPage, st.sampled_from(["NEWS", "PART", "LAST"]), st.lists(entries, max_size=5).map(tuple)),
    st.lists(rows, min_size=1, max_size=5).map(lambda found: ConfigurationRows(3, 3 + len(found), tuple(found))),
    st.builds(CopiesAsked, numbers, st.lists(prefixes, min_size=1, max_size=5).map(tuple)),
    st.builds(CopiesHeld, numbers, st.lists(st.tuples(prefixes, copies), max_size=5).map(tuple)),
)


@settings(deadline=None)
@given(st.lists(messages, max_size=6), st.integers(1, 300))
def test_any_messages_come_through_however_they_are_cut(said: list[Message], size: int) -> None:
    data = b"".join(map(encode, said))
    decoder = PeerDecoder()
    found = [m for start in range(0, len(data), size) for m in decoder.feed(data[start : start + size])]
    assert (found, decoder.error) == (said, None)


@settings(deadline=None)
@given(st.binary(max_size=200) | st.lists(messages, min_size=1, max_size=2).flatmap(
    lambda said: st.tuples(st.just(b"".join(map(encode, said))), st.integers(0, 400), st.binary(max_size=6)).map(
        lambda parts: parts[0][: parts[1]] + parts[2] + parts[0][parts[1] + 1 :]
    )
))  # fmt: skip
def test_any_bytes_are_messages_or_a_broken_rule_whole_and_dripped(data: bytes) -> None:
    complaint(data)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"PING\r\n", "expected a multibulk message, got b'P"),
        (b"\r\n", "expected a multibulk message"),
        (b"+OK\r\n", "expected a multibulk message"),
        (b"*0\r\n", "malformed message: invalid multibulk length"),
        (b"*-1\r\n", "malformed message: invalid multibulk length"),
        (b"*4097\r\n", "malformed message: invalid multibulk length"),
        (b"*1\r\n:1\r\n", "malformed message: expected '$'"),
        (b"*1\r\n$-1\r\n", "malformed message: invalid bulk length"),
        (b"*1\r\n$262145\r\n", "malformed message: invalid bulk length"),
        (b"*1\r\n$4\r\nBEATxx", "malformed message: no line end"),
        (b"*" + b"1" * 40, "malformed message: length line too long"),
        (multibulk([b"beat"]), "unknown message 'beat'"),
        (multibulk([b""]), "unknown message ''"),
        (multibulk([b"REPLICATE", b"FROM"]), "unknown message 'REPLICATE'"),
    ],
)
def test_what_is_no_message_ends_the_link(data: bytes, text: str) -> None:
    assert complaint(data).startswith(text)


def changed(message: Message, place: int, word: bytes) -> Any:
    said = words(message)
    said[place] = word
    return pytest.param(said, id=f"{said[0].decode()}-{place}-{word[:12]!r}")


@pytest.mark.parametrize(
    "said",
    [
        *(changed(BEAT, 1, word) for word in (b"", b"0" * 63, b"0" * 65, b"G" * 64, b"A" * 64)),
        *(changed(BEAT, 2, word) for word in (b"", b"-1", b"+1", b"1.0", b"%d" % (MAX_NUMBER + 1), b"9" * 3000)),
        changed(BEAT, 3, b"x"),
        changed(BEAT, 4, b"\xff" * 64),
        *(changed(BEAT, 5, word) for word in (b"", b"Serving", b"a b", b"a" * 33, b"\xff")),
        *(changed(BEAT, 6, word) for word in (b"\xff", b"a\nb", b"a" * 257, b"\x1b[2J")),
        [*words(BEAT), b"more"],
        words(BEAT)[:-1],
        [b"BEAT"],
        *(changed(PAGE, 1, word) for word in (b"", b"ALL", b"last")),
        *(changed(PAGE, 2, word) for word in (b"junk\n", b"\n", b"\xff\n", ENTRY.text().encode())),
        changed(PAGE, 2, ENTRY.text().encode().replace(b"epoch=4", b"epoch=04") + b"\n"),
        changed(PAGE, 2, ENTRY.text().encode().replace(b"node-b", b"b" * 65) + b"\n"),
        changed(PAGE, 2, (b"x" * 64 + b"\n") * 1025),
        [b"LEDGER", b"LAST"],
        *(changed(ROWS, 1, word) for word in (b"", b"-1", b"10", b"6")),
        *(changed(ROWS, 2, word) for word in (b"5", b"65537")),
        changed(ROWS, 3, b"SCOPES"),
        changed(ROWS, 4, b"p" * (PREFIX_LIMIT + 1)),
        changed(ROWS, 5, b""),
        changed(ROWS, 6, b"not an id"),
        changed(ROWS, 7, b"more"),
        words(ROWS)[:-1],
        [b"CONFIGURATION", b"0", b"1"],
        [b"CONFIGURATION", b"1", b"1"],
        [b"CONFIGURATION"],
        [b"COPIES", b"1"],
        [b"COPIES"],
        [b"COPIES", b"x", b"p"],
        [b"COPIES", b"1", b"p" * (PREFIX_LIMIT + 1)],
        [b"COPIES", b"1", *[b"p"] * (ASKED_PREFIXES + 1)],
        [b"HELD"],
        [b"HELD", b"x"],
        [*words(HELD), b"p"],
        changed(HELD, 2, b"p" * (PREFIX_LIMIT + 1)),
        changed(HELD, 3, b"%d" % HISTORY_LIMIT),
        changed(HELD, 4, b"%d" % (MAX_OFFSET + 1)),
        changed(HELD, 5, b"-1"),
        changed(HELD, 6, b""),
        *(changed(HELD, 7, word) for word in (b"1", b"1@", b"@1", b"1@2@3", b"1@2,", b"1@-1", b"0@1", b"1@2,1@3")),
        changed(HELD, 7, b"%d@1" % (HISTORY_LIMIT - 1)),
        changed(HELD, 7, b"%d@1" % HISTORY_LIMIT),
        changed(HELD, 7, b"1@%d" % (MAX_OFFSET + 1)),
        changed(HELD, 7, b",".join(b"%d@1" % number for number in range(1, ANCESTOR_LIMIT + 2))),
        changed(HELD, 7, b"0" * 700 + b"1@1"),
        [b"HELD", b"1", b"p", b"0", b"1", b"1", b"1", b"1@1"],
        [b"HELD", b"1", *[b"p", b"1", b"1", b"1", b"1", b""] * (ASKED_PREFIXES + 1)],
    ],
)
def test_a_message_with_other_words_than_it_has_ends_the_link(said: list[bytes]) -> None:
    assert complaint(multibulk(said)).startswith(f"malformed {said[0].decode()} message")


def test_a_message_that_is_too_long_is_noticed_before_it_is_held() -> None:
    decoder = PeerDecoder()
    decoder.feed(b"*4000\r\n")
    piece = b"$8000\r\n" + b"x" * 8000 + b"\r\n"
    most = 0
    for _ in range(100):
        decoder.feed(piece)
        most = max(most, decoder.held)
    assert str(decoder.error) == f"a message of more than {MESSAGE_LIMIT} bytes"
    assert most <= MESSAGE_LIMIT
    assert decoder.held == 0


def test_what_came_before_a_broken_rule_counts() -> None:
    decoder = PeerDecoder()
    assert decoder.feed(encode(BEAT) + encode(ASKED) + b"junk") == [BEAT, ASKED]
    assert decoder.error is not None


def test_a_whole_ledger_goes_out_page_by_page_and_ends() -> None:
    ledger = Ledger(LedgerEntry(b"scope:%05d:" % number, "owner", 1, "move") for number in range(3000))
    pages = [message for data in encode_ledger(ledger.rows()) for message in decode(data)]
    assert [page.kind for page in pages if isinstance(page, LedgerPage)] == ["PART"] * (len(pages) - 1) + ["LAST"]
    assert len(pages) > 2
    assert Ledger(entry for page in pages if isinstance(page, LedgerPage) for entry in page.entries) == ledger
    assert [decode(data) for data in encode_ledger(())] == [[LedgerPage("LAST", ())]]
    (page,) = Ledger([ENTRY]).rows()
    assert decode(encode_news(page)) == [LedgerPage("NEWS", (ENTRY,))]


# -- configurations and questions -------------------------------------------------------------------------------------


def test_a_configuration_goes_out_in_pieces_and_comes_together() -> None:
    whole = Configuration(tuple(ScopeRow(b"%04d" % n + b"p" * 1000, "a", "b") for n in range(700)), PEERS)
    pieces = [message for piece in whole.messages() for message in decode(encode(piece))]
    assert len(pieces) > 5
    found = [row for piece in pieces if isinstance(piece, ConfigurationRows) for row in piece.rows]
    assert Configuration.of(found) == whole
    assert Configuration.of(reversed(found)).digest == whole.digest
    assert [decode(encode(piece)) for piece in Configuration((), ()).messages()] == [[ConfigurationRows(0, 0, ())]]


def test_configurations_that_differ_anywhere_have_other_digests() -> None:
    whole = Configuration(SCOPES, PEERS)
    others = [
        Configuration(SCOPES[:1], PEERS),
        Configuration(SCOPES, PEERS[:1]),
        Configuration((SCOPES[0], attrs.evolve(SCOPES[1], writer="a")), PEERS),
        Configuration((SCOPES[0], attrs.evolve(SCOPES[1], fallback="a")), PEERS),
        *(Configuration(SCOPES, (PEERS[0], attrs.evolve(PEERS[1], **{name: "x"}))) for name in ("address", "kind")),
        Configuration((), ()),
    ]
    assert len({whole.digest, *(other.digest for other in others)}) == len(others) + 1
    assert Configuration(SCOPES[::-1], PEERS[::-1]).digest == whole.digest


def test_a_configuration_that_no_peer_could_take_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="a scope's prefix has at most 1024 bytes, not 1025"):
        Configuration((ScopeRow(b"p" * 1025, "a"),), ())
    with pytest.raises(ValueError, match="at most 65536 scopes and peers"):
        Configuration(tuple(ScopeRow(b"%d" % number, "a") for number in range(65537)), ())
    with pytest.raises(ValueError, match="take at most 8388608 bytes"):
        Configuration(tuple(ScopeRow(b"%05d" % number + b"p" * 1000, "a") for number in range(9000)), ())


def test_many_prefixes_are_asked_for_in_several_questions() -> None:
    asked = [b"%04d" % number + b"p" * (number % 1000) for number in range(2000)]
    groups = in_questions(asked)
    assert [prefix for group in groups for prefix in group] == asked
    longest = HeldCopy(HISTORY_LIMIT - 1, MAX_OFFSET, MAX_OFFSET, MAX_NUMBER, LONGEST)
    for group in [*groups, (b"p" * 256,) * ASKED_PREFIXES]:
        assert decode(encode(CopiesAsked(1, group))) == [CopiesAsked(1, group)]
        held = CopiesHeld(1, tuple((prefix, longest) for prefix in group))
        assert decode(encode(held)) == [held]
    assert in_questions([]) == []


# -- hellos and answers -----------------------------------------------------------------------------------------------


def hello_words(*said: bytes) -> list[bytes]:
    return [b"PEER", *said]


def test_a_hello_comes_out_as_it_went_in() -> None:
    hello = Hello(1, "node-a", "0" * 32, "b")
    lines = encode(hello).split(b"\r\n")
    assert parse_hello(lines[2::2]) == hello


@pytest.mark.parametrize(
    "said",
    [
        [],
        [b"1"],
        [b"1", b"a", b"i"],
        [b"1", b"a", b"i", b"b", b"more"],
        [b"0", b"a", b"i", b"b"],
        [b"x", b"a", b"i", b"b"],
        [b"99999999999", b"a", b"i", b"b"],
        [b"1", b"", b"i", b"b"],
        [b"1", b"a b", b"i", b"b"],
        [b"1", b"a" * 65, b"i", b"b"],
        [b"1", b"a\xff", b"i", b"b"],
        [b"1", b"a", b"", b"b"],
        [b"1", b"a", b"i" * 65, b"b"],
        [b"1", b"a", b"\n", b"b"],
        [b"1", b"a", b"i", b""],
        [b"2"],
        [b"2", b"a"],
    ],
)
def test_another_hello_is_none(said: list[bytes]) -> None:
    with pytest.raises(PeerWireError, match="PEER expects a version"):
        parse_hello(hello_words(*said))


def test_of_a_newer_hello_only_the_beginning_is_read() -> None:
    assert parse_hello(hello_words(b"2", b"a", b"\xffi", b"b", b"new", b"things")) == Hello(2, "a", "\\xffi", "b")
    assert parse_hello(hello_words(b"3", b"a", b"i")) == Hello(3, "a", "i", "")


@pytest.mark.parametrize("answer", [Welcome(1, "b", "f" * 32), Refused(1, "unknown", "é is no peer")])
def test_an_answer_comes_byte_by_byte_with_more_behind_it(answer: Welcome | Refused) -> None:
    decoder = AnswerDecoder()
    data = encode(answer)
    assert [decoder.feed(bytes([byte])) for byte in data[:-1]] == [None] * (len(data) - 1)
    assert decoder.feed(data[-1:] + encode(BEAT)[:10]) == answer
    assert decoder.rest == encode(BEAT)[:10]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"-ERR unknown command 'PEER'\r\n", 'PEER was answered with an error, as a client port does: b"-ERR unknown'),
        (b"+ACK 0\r\n", "expected a multibulk message"),
        (b"HTTP/1.1 400 Bad Request\r\n", "expected a multibulk message, got b'HTTP"),
        (multibulk([b"PEER", b"1", b"b"]), "PEER was answered with 'PEER' '1' 'b'"),
        (multibulk([b"PEER", b"x", b"b", b"i"]), "PEER was answered with"),
        (multibulk([b"PEER", b"1", b"b\n", b"i"]), "PEER was answered with"),
        (multibulk([b"REFUSED", b"1", b"code"]), "PEER was answered with"),
        (encode(BEAT), "PEER was answered with 'BEAT'"),
        (b"*9\r\n", "malformed message"),
        (b"*2\r\n$3000\r\n" + b"x" * 3000 + b"\r\n$3000\r\n" + b"x" * 2000, f"a message of more than {ANSWER_LIMIT}"),
    ],
)
def test_another_answer_is_none(data: bytes, text: str) -> None:
    with pytest.raises(PeerWireError) as caught:
        AnswerDecoder().feed(data)
    assert str(caught.value).startswith(text)


def test_a_long_refusal_is_cut() -> None:
    found = AnswerDecoder().feed(encode(Refused(1, "unknown", "x" * 5000)))
    assert found == Refused(1, "unknown", "x" * 256)
