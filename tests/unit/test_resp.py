"""The request parser: what it accepts, what it refuses, and that the way bytes are cut changes nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kevynode.resp import ARGUMENT_LIMIT, INLINE_LIMIT, RequestParser, split_inline


def multibulk(*arguments: bytes) -> bytes:
    return b"*%d\r\n" % len(arguments) + b"".join(b"$%d\r\n%b\r\n" % (len(a), a) for a in arguments)


def parse(data: bytes, step: int | None = None) -> tuple[list[list[bytes]], bytes | None]:
    parser = RequestParser()
    commands: list[list[bytes]] = []
    for place in range(0, len(data), step or len(data) or 1):
        commands += parser.feed(data[place : place + (step or len(data))])
    return commands, parser.error


WELL_FORMED = [
    pytest.param(multibulk(b"PING"), [[b"PING"]], id="one word"),
    pytest.param(multibulk(b"GET", b"k"), [[b"GET", b"k"]], id="two words"),
    pytest.param(multibulk(b"SET", b"k", b"v"), [[b"SET", b"k", b"v"]], id="three words"),
    pytest.param(multibulk(b"SET", b"", b""), [[b"SET", b"", b""]], id="empty arguments"),
    pytest.param(multibulk(b"SET", b"k", b"a\r\nb\r\n"), [[b"SET", b"k", b"a\r\nb\r\n"]], id="line ends in a value"),
    pytest.param(multibulk(b"SET", b"k", b"x" * 5000), [[b"SET", b"k", b"x" * 5000]], id="a longer argument"),
    pytest.param(multibulk(*[b"a"] * 3000), [[b"a"] * 3000], id="many words"),
    pytest.param(b"*0\r\n*-1\r\n\r\n\n" + multibulk(b"PING"), [[b"PING"]], id="empty requests are skipped"),
    pytest.param(b"PING\r\n", [[b"PING"]], id="inline"),
    pytest.param(b"PING\n", [[b"PING"]], id="inline, line feed only"),
    pytest.param(b'set k "a b\\x41\\n"\r\n', [[b"set", b"k", b"a bA\n"]], id="inline, double quotes"),
    pytest.param(b"set k 'a \\'b\\n'\r\n", [[b"set", b"k", b"a 'b\\n"]], id="inline, single quotes"),
    pytest.param(b"set k \"a\"b'c'\r\n", [[b"set", b"k", b"abc"]], id="inline, text behind a quote"),
    pytest.param(b"set k a\0b\xff\r\n", [[b"set", b"k", b"a\0b\xff"]], id="inline, any byte"),
]


@pytest.mark.parametrize(("data", "commands"), WELL_FORMED)
@pytest.mark.parametrize("step", [None, 1, 2, 7])
def test_well_formed(data: bytes, commands: list[list[bytes]], step: int | None) -> None:
    assert parse(data, step) == (commands, None)


MALFORMED = [
    pytest.param(b"*abc\r\n", b"invalid multibulk length", id="count is no number"),
    pytest.param(b"*01\r\n", b"invalid multibulk length", id="count with a leading zero"),
    pytest.param(b"*%d\r\n" % (ARGUMENT_LIMIT + 1), b"invalid multibulk length", id="too many arguments"),
    pytest.param(b"*99999999999999999999999999\r\n", b"invalid multibulk length", id="count beyond 64 bits"),
    pytest.param(b"*1\r\n:4\r\nPING\r\n", b"expected '$', got ':'", id="no bulk"),
    pytest.param(b"*1\r\n$-1\r\n", b"invalid bulk length", id="negative length"),
    pytest.param(b"*1\r\n$+1\r\n", b"invalid bulk length", id="signed length"),
    pytest.param(b"*1\r\n$ 1\r\n", b"invalid bulk length", id="blank before the length"),
    pytest.param(b"*1\r\n$536870913\r\n", b"invalid bulk length", id="beyond 512 MiB"),
    pytest.param(b'set "k\r\n', b"unbalanced quotes in request", id="open quote"),
    pytest.param(b"*1\r\n$4\r\nPINGxy", b"invalid CRLF in request", id="no line end behind an argument"),
    pytest.param(b"*1\rx$4\r\nPING\r\n", b"invalid CRLF in request", id="half a line end"),
    pytest.param(b"*1\r\n\r\n", b"expected '$', got ' '", id="no bulk but a line end"),
    pytest.param(b"x" * (INLINE_LIMIT + 2), b"too big inline request", id="endless inline"),
    pytest.param(b"*" + b"1" * (INLINE_LIMIT + 2), b"too big mbulk count string", id="endless count"),
    pytest.param(b"*1\r\n$" + b"1" * (INLINE_LIMIT + 2), b"too big bulk count string", id="endless length"),
]


@pytest.mark.parametrize(("data", "error"), MALFORMED)
def test_malformed(data: bytes, error: bytes) -> None:
    assert parse(multibulk(b"PING") + data) == ([[b"PING"]], error)
    assert parse(multibulk(b"PING") + data, 997) == ([[b"PING"]], error)


def test_nothing_is_parsed_after_an_error() -> None:
    parser = RequestParser()
    parser.feed(b"*x\r\n")
    assert parser.feed(multibulk(b"PING")) == []
    assert parser.held == 0


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"*11\r\n", b"unauthenticated multibulk length"),
        (b"*2\r\n$4\r\nAUTH\r\n$16385\r\n", b"unauthenticated bulk length"),
    ],
)
def test_limits_before_authentication(data: bytes, error: bytes) -> None:
    parser = RequestParser()
    parser.authenticated = False
    assert parser.feed(data) == []
    assert parser.error == error


def test_a_bulk_limit_of_ones_own() -> None:
    parser = RequestParser(bulk_limit=5000)
    assert parser.feed(multibulk(b"SET", b"k", b"x" * 5000)) == [[b"SET", b"k", b"x" * 5000]]
    assert parser.feed(multibulk(b"SET", b"k", b"x" * 5001)) == []
    assert parser.error == b"invalid bulk length"


def test_an_unfinished_command_is_held_and_counted() -> None:
    parser = RequestParser()
    parser.feed(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100\r\nxxxx")
    assert 0 < parser.held < 1000
    parser.feed(b"x" * 96 + b"\r\n")
    assert parser.held == 0


def test_an_announced_argument_takes_no_memory_before_it_comes() -> None:
    parser = RequestParser()
    parser.feed(b"*1048576\r\n$536870912\r\n")
    assert parser.held < 100


argument = st.binary(max_size=40) | st.sampled_from([b"\r\n", b"$3", b"*1\r\n$1\r\na\r\n"])
words = st.lists(argument, min_size=1, max_size=6)


@given(st.lists(words, max_size=8), st.lists(st.integers(1, 30), min_size=1, max_size=5))
def test_any_cut_gives_the_same_commands(commands: list[list[bytes]], steps: list[int]) -> None:
    data = b"".join(multibulk(*command) for command in commands)
    parser = RequestParser()
    found: list[list[bytes]] = []
    place = turn = 0
    while place < len(data):
        step = steps[turn % len(steps)]
        found += parser.feed(data[place : place + step])
        place += step
        turn += 1
    assert found == commands
    assert parser.error is None
    assert parser.held == 0


pieces = st.sampled_from([*b"* $ 1 2 3 - \r\n \n \r GET \" ' \\x".split(b" "), b" ", b"\0"])


@given(st.lists(pieces | st.binary(max_size=4), max_size=30).map(b"".join))
def test_any_bytes_whole_and_dripped_agree(data: bytes) -> None:
    assert parse(data) == parse(data, 1)


@given(st.binary(max_size=60))
def test_inline_words_never_raise(line: bytes) -> None:
    words = split_inline(line)
    assert words is None or all(isinstance(word, bytes) for word in words)
