"""Requests byte by byte: inline commands, multibulk limits, and every malformed request with what is answered.

Each input is sent and followed by an inline PING. If its echo comes back the connection survived; if it does not, the
server closed. Inputs that leave a request open are sent without it.
"""

from __future__ import annotations

import pytest
from compat import accepted
from compat.runner import Pair, Side
from support.raw_client import CLOSED, RawClient, Reply

#: Sent after an input that leaves no request open.
_AFTER = b"PING after\r\n"

#: Inputs that leave no request open.
WHOLE: dict[str, bytes] = {
    "inline": b"PING\r\n",
    "inline-lf": b"PING\n",
    "inline-arguments": b"SET k v\r\nGET k\r\n",
    "inline-spaces": b"   SET   k    v   \r\nGET k\r\n",
    "inline-tabs": b"\tSET\tk\tv\t\r\nGET k\r\n",
    "inline-double-quotes": b'SET k "a b\\x00\\n\\t\\"\\\\\\q"\r\nGET k\r\n',
    "inline-single-quotes": b"SET k 'a \\'b\\' \\n'\r\nGET k\r\n",
    "inline-empty-quotes": b"SET k \"\"\r\nGET k\r\nSET k ''\r\nGET k\r\n",
    "inline-quote-inside-word": b'SET k a"b"\r\nGET k\r\n',
    "inline-unbalanced-double": b'SET k "abc\r\n',
    "inline-unbalanced-single": b"SET k 'abc\r\n",
    "inline-text-after-quote": b'SET k "abc"def\r\n',
    "inline-hex-cut-short": b'SET k "\\x4"\r\nGET k\r\n',
    "inline-binary": b"SET k \x80\xfe\x01\r\nGET k\r\n",
    "inline-cr-inside": b"SET k a\rb\r\nGET k\r\n",
    "inline-unknown": b"FOO bar\r\n",
    "inline-only-quotes": b'""\r\n',
    "inline-other-marks": b"$5\r\nhallo\r\n",
    "inline-colon": b":5\r\n",
    "inline-plus": b"+OK\r\n",
    "inline-64k-minus": b"ECHO " + b"x" * (65536 - 10) + b"\r\n",
    "inline-64k": b"ECHO " + b"x" * (65536 - 5) + b"\r\n",
    "http-get": b"GET / HTTP/1.1\r\n\r\n",
    "http-host": b"Host: example.com\r\n",
    "http-post": b"POST / HTTP/1.1\r\n",
    "blank-lines": b"\r\n\r\n\n\nPING\r\n",
    "blank-spaces": b"   \r\nPING\r\n",
    "empty-multibulk": b"*0\r\nPING\r\n",
    "negative-multibulk": b"*-1\r\nPING\r\n",
    "more-negative-multibulk": b"*-10\r\nPING\r\n",
    "multibulk": b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n",
    "multibulk-pipeline": b"*1\r\n$4\r\nPING\r\n*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\n*1\r\n$6\r\nDBSIZE\r\n",
    "multibulk-then-inline": b"*1\r\n$4\r\nPING\r\nPING x\r\n*1\r\n$4\r\nPING\r\n",
    "multibulk-empty-name": b"*1\r\n$0\r\n\r\n",
    "multibulk-binary": b"*3\r\n$3\r\nSET\r\n$3\r\n\x00\r\n\r\n$2\r\n\r\n\r\n*2\r\n$3\r\nGET\r\n$3\r\n\x00\r\n\r\n",
    "count-junk": b"*abc\r\n",
    "count-empty": b"*\r\n",
    "count-space": b"* 1\r\n$4\r\nPING\r\n",
    "count-plus": b"*+1\r\n$4\r\nPING\r\n",
    "count-zeros": b"*01\r\n$4\r\nPING\r\n",
    "count-float": b"*1.5\r\n",
    "count-two-billion": b"*2147483648\r\n",
    "count-2-63": b"*9223372036854775808\r\n",
    "count-minus": b"*-\r\n",
    "count-trailing": b"*1x\r\n$4\r\nPING\r\n",
    "bulk-not-dollar": b"*1\r\n:5\r\n",
    "bulk-not-dollar-letter": b"*1\r\nPING\r\n",
    "bulk-not-dollar-cr": b"*1\r\n\r\n",
    "bulk-not-dollar-star": b"*1\r\n*1\r\n$4\r\nPING\r\n",
    "bulk-not-dollar-nul": b"*1\r\n\x00\r\n",
    "bulk-not-dollar-high": b"*1\r\n\xff\r\n",
    "bulk-not-dollar-second": b"*2\r\n$3\r\nGET\r\n#1\r\nk\r\n",
    "bulk-length-junk": b"*1\r\n$abc\r\n",
    "bulk-length-empty": b"*1\r\n$\r\n",
    "bulk-length-negative": b"*1\r\n$-1\r\n",
    "bulk-length-minus-five": b"*1\r\n$-5\r\n",
    "bulk-length-space": b"*1\r\n$ 4\r\nPING\r\n",
    "bulk-length-plus": b"*1\r\n$+4\r\nPING\r\n",
    "bulk-length-zeros": b"*1\r\n$04\r\nPING\r\n",
    "bulk-length-too-big": b"*1\r\n$536870913\r\n",
    "bulk-length-2-63": b"*1\r\n$9223372036854775808\r\n",
    "bulk-length-float": b"*1\r\n$4.0\r\n",
    "valid-before-invalid": b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\nPING\r\n*1\r\n:5\r\nPING\r\n",
    "error-then-more": b"*x\r\nPING\r\nPING\r\n",
    "bulk-without-crlf": b"*1\r\n$4\r\nPINGxx",
    "bulk-too-long-for-length": b"*2\r\n$4\r\nECHO\r\n$2\r\nabcd\r\n",
    "quit-then-more": b"QUIT\r\nSET k v\r\nPING\r\n",
    "count-long-line": b"*" + b"1" * 100 + b"\r\n",
    "set-many-arguments": b"*1001\r\n$3\r\nDEL\r\n" + b"$1\r\nk\r\n" * 1000,
}

#: Inputs after which the server waits for more.
OPEN: dict[str, bytes] = {
    "nothing": b"",
    "star": b"*",
    "count": b"*1",
    "count-cr": b"*1\r",
    "count-line": b"*1\r\n",
    "length": b"*1\r\n$4",
    "length-line": b"*1\r\n$4\r\n",
    "length-of-big": b"*1\r\n$536870912\r\n",
    "part-of-bulk": b"*1\r\n$4\r\nPI",
    "bulk-without-end": b"*1\r\n$4\r\nPING",
    "bulk-with-cr": b"*1\r\n$4\r\nPING\r",
    "command-and-a-half": b"PING\r\n*1\r\n$4\r\nPI",
    "inline": b"PING",
    "inline-cr": b"PING\r",
    "long-count": b"*" + b"1" * 65530,
    "inline-64k": b"x" * 65536,
    "second-argument": b"*2\r\n$4\r\nECHO\r\n",
}

#: Inputs without a line end that are longer than a line may be.
TOO_LONG: dict[str, bytes] = {
    "inline": b"x" * 65537,
    "count": b"*" + b"1" * 65537,
    "length": b"*1\r\n$" + b"1" * 65537,
}


def conversation(side: Side, protocol: int, data: bytes, step: int) -> list[Reply]:
    """What the server answers to the bytes, sent ``step`` at a time, until the end of the stream."""
    with side.connect(protocol) as client:
        for start in range(0, len(data), step):
            client.send_raw(data[start : start + step])
        client.end_of_input()
        return client.read_to_end()


def check(pair: Pair, protocol: int, data: bytes, step: int) -> None:
    """Both answer the same and close."""
    __tracebackhide__ = True
    try:
        expected, actual = (conversation(side, protocol, data, step) for side in pair.sides)
    finally:
        pair.clean()
    assert expected[-1] == CLOSED
    assert [reply.render() for reply in actual] == [reply.render() for reply in expected]


@pytest.mark.parametrize("how", ["whole", "dripped"])
@pytest.mark.parametrize("name", WHOLE)
def test_request(pair: Pair, protocol: int, name: str, how: str) -> None:
    data = WHOLE[name] + _AFTER
    check(pair, protocol, data, len(data) if how == "whole" else 1 if len(data) < 1000 else 997)


@pytest.mark.parametrize("name", OPEN)
def test_open_request(pair: Pair, protocol: int, name: str) -> None:
    check(pair, protocol, OPEN[name], max(1, len(OPEN[name])))


@pytest.mark.parametrize("name", TOO_LONG)
def test_line_too_long(pair: Pair, protocol: int, name: str) -> None:
    check(pair, protocol, TOO_LONG[name], 1 << 14)


def test_half_a_line_of_64k_then_its_end(pair: Pair, protocol: int) -> None:
    """A line that reaches the limit is refused although its end would have come."""
    check(pair, protocol, b"x" * 65537 + b"\r\n", 1 << 14)


def test_too_many_arguments(pair: Pair, protocol: int) -> None:
    """The count above our limit is refused here and accepted by Valkey: an accepted difference."""
    data = b"*%d\r\n" % (accepted.ARGUMENT_LIMIT + 1)
    expected = conversation(pair.valkey, protocol, data, len(data))
    actual = conversation(pair.subject, protocol, data, len(data))
    assert expected == [CLOSED]
    if actual != expected:
        assert actual == [Reply("error", b"ERR Protocol error: invalid multibulk length"), CLOSED]


def test_most_arguments(pair: Pair, protocol: int) -> None:
    """A count at our limit is no error."""
    data = b"*%d\r\n" % accepted.ARGUMENT_LIMIT
    check(pair, protocol, data, len(data))


def test_resp3_types_are_no_requests(pair: Pair, protocol: int) -> None:
    """Aggregates of RESP3 are taken as inline commands."""
    check(pair, protocol, b"%1\r\n+a\r\n+b\r\n" + _AFTER, 100)


def test_big_argument(pair: Pair, protocol: int) -> None:
    """A 20 MiB argument arrives in many reads and comes back whole."""
    payload = bytes(range(256)) * (20 << 12)
    try:
        for side in pair.sides:
            with side.connect(protocol) as client:
                assert client.call(b"SET", b"k", payload) == Reply("simple", b"OK"), side.name
                assert client.call(b"GET", b"k") == Reply("bulk", payload), side.name
    finally:
        pair.clean()


def test_long_pipeline(pair: Pair, protocol: int) -> None:
    """Ten thousand commands in one piece are answered in order."""
    try:
        for side in pair.sides:
            client: RawClient
            with side.connect(protocol) as client:
                replies = client.pipeline([(b"INCR", b"n")] * 10_000)
            assert [reply.value for reply in replies] == list(range(1, 10_001)), side.name
    finally:
        pair.clean()
