"""Replies on the wire: every type in both protocols, and doubles digit for digit."""

from __future__ import annotations

import math
import random
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.raw_client import RawClient
from support.valkey_server import ValkeyServer

from kevynode.errors import WRONG_TYPE, Misdirected, ReplyError
from kevynode.reply import (
    NO_REPLY,
    NULL_ARRAY,
    OK,
    Pairs,
    Push,
    SetReply,
    Status,
    Verbatim,
    encode,
    format_double,
)

WIRE: list[tuple[Any, bytes, bytes]] = [
    (b"", b"$0\r\n\r\n", b"$0\r\n\r\n"),
    (b"a\r\nb", b"$4\r\na\r\nb\r\n", b"$4\r\na\r\nb\r\n"),
    (7, b":7\r\n", b":7\r\n"),
    (-(2**63), b":-9223372036854775808\r\n", b":-9223372036854775808\r\n"),
    (None, b"$-1\r\n", b"_\r\n"),
    (NULL_ARRAY, b"*-1\r\n", b"_\r\n"),
    (NO_REPLY, b"", b""),
    (True, b":1\r\n", b"#t\r\n"),
    (False, b":0\r\n", b"#f\r\n"),
    (2.5, b"$3\r\n2.5\r\n", b",2.5\r\n"),
    (math.inf, b"$3\r\ninf\r\n", b",inf\r\n"),
    (OK, b"+OK\r\n", b"+OK\r\n"),
    (Status(b"PONG"), b"+PONG\r\n", b"+PONG\r\n"),
    (Verbatim(b"hi"), b"$2\r\nhi\r\n", b"=6\r\ntxt:hi\r\n"),
    (Verbatim(b"# hi", b"mkd"), b"$4\r\n# hi\r\n", b"=8\r\nmkd:# hi\r\n"),
    ([], b"*0\r\n", b"*0\r\n"),
    ([b"a", 1, None], b"*3\r\n$1\r\na\r\n:1\r\n$-1\r\n", b"*3\r\n$1\r\na\r\n:1\r\n_\r\n"),
    ((b"a", [b"b"]), b"*2\r\n$1\r\na\r\n*1\r\n$1\r\nb\r\n", b"*2\r\n$1\r\na\r\n*1\r\n$1\r\nb\r\n"),
    ({b"a": 1}, b"*2\r\n$1\r\na\r\n:1\r\n", b"%1\r\n$1\r\na\r\n:1\r\n"),
    ({}, b"*0\r\n", b"%0\r\n"),
    (SetReply([b"a", b"b"]), b"*2\r\n$1\r\na\r\n$1\r\nb\r\n", b"~2\r\n$1\r\na\r\n$1\r\nb\r\n"),
    (Pairs([(b"a", 1.5)]), b"*2\r\n$1\r\na\r\n$3\r\n1.5\r\n", b"*1\r\n*2\r\n$1\r\na\r\n,1.5\r\n"),
    (Pairs(), b"*0\r\n", b"*0\r\n"),
    (Push([b"message", 1]), b"*2\r\n$7\r\nmessage\r\n:1\r\n", b">2\r\n$7\r\nmessage\r\n:1\r\n"),
    (ReplyError("ERR", "a\r\nb"), b"-ERR a  b\r\n", b"-ERR a  b\r\n"),
    (ReplyError("NOAUTH", ""), b"-NOAUTH\r\n", b"-NOAUTH\r\n"),
    (Misdirected("h:1"), b"-MISDIRECTED writer is h:1\r\n", b"-MISDIRECTED writer is h:1\r\n"),
    ([{b"k": [True, Push([b"x"])]}], b"*1\r\n*2\r\n$1\r\nk\r\n*2\r\n:1\r\n*1\r\n$1\r\nx\r\n",
     b"*1\r\n%1\r\n$1\r\nk\r\n*2\r\n#t\r\n>1\r\n$1\r\nx\r\n"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "resp2", "resp3"), WIRE, ids=lambda case: repr(case)[:40])
def test_every_type_in_both_protocols(value: Any, resp2: bytes, resp3: bytes) -> None:
    assert encode(value, 2) == resp2
    assert encode(value, 3) == resp3


def test_errors_inside_a_reply() -> None:
    wrong_type = b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"
    assert encode([1, WRONG_TYPE()], 2) == b"*2\r\n:1\r\n" + wrong_type


@pytest.mark.parametrize("value", ["text", object(), bytearray(b"x"), {1, 2}])
def test_what_is_no_reply_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match=f"not a reply: {type(value).__name__}"):
        encode(value, 2)


def test_statuses_compare_by_text() -> None:
    assert Status(b"OK") == OK
    assert hash(Status(b"OK")) == hash(OK)
    assert Status(b"QUEUED") != OK
    assert repr(OK) == "Status(b'OK')"


# As valkey-server 9.1 answered ZSCORE.
DOUBLES = [
    (3.0, b"3"),
    (-0.0, b"-0"),
    (0.5, b"0.5"),
    (1e17, b"100000000000000000"),
    (2.0**62, b"4611686018427387904"),
    (2.0**63, b"9223372036854776000"),
    (1e22, b"1e+22"),
    (1.25e20, b"1.25e+20"),
    (1.2345675e20, b"123456750000000010000"),
    (1e-5, b"0.00001"),
    (1e-6, b"0.000001"),
    (1e-7, b"1e-7"),
    (1.5e-6, b"1.5e-6"),
    (1.5e-7, b"1.5e-7"),
    (10928588.983213553, b"1.0928588983213553e+7"),
    (-58361.878085002165, b"-5.8361878085002165e+4"),
    (88637315.64805965, b"8.863731564805965e+7"),
    (1234.5678, b"1234.5678"),
    (1.7976931348623157e308, b"1.7976931348623157e+308"),
    (5e-324, b"5e-324"),
    # Not the nearest of the shortest texts, and longer than the shortest.
    (-1039514241563211.8, b"-1039514241563211.7"),
    (-3.1316709716158577e78, b"-3.1316709716158578e+78"),
    (math.inf, b"inf"),
    (-math.inf, b"-inf"),
    (math.nan, b"nan"),
]


@pytest.mark.parametrize(("value", "text"), DOUBLES, ids=lambda case: repr(case))
def test_doubles_as_text(value: float, text: bytes) -> None:
    assert format_double(value) == text


@given(st.floats(allow_nan=False))
def test_a_double_reads_back_the_same(value: float) -> None:
    assert float(format_double(value)) == value


@pytest.mark.differential
@pytest.mark.parametrize("seed", [1, 2])
def test_doubles_are_written_as_a_real_server_writes_them(seed: int) -> None:
    numbers = random.Random(seed)
    values = [2.0**power for power in range(-1074, 1024, 7)]
    values += [10.0**power for power in range(-323, 309, 3)]
    values += [struct.unpack("d", numbers.randbytes(8))[0] for _ in range(500)]
    values += [numbers.uniform(-10, 10) * 10 ** numbers.randint(-12, 25) for _ in range(500)]
    values += [round(numbers.uniform(-1000, 1000), numbers.randint(0, 6)) for _ in range(500)]
    # A small sorted set keeps whole scores as integers, without the sign of zero.
    values = [value for value in values if value == value and value != 0]
    with ValkeyServer() as server, RawClient(server.host, server.port) as client:
        replies = client.pipeline(
            line for value in values for line in ((b"ZADD", b"z", repr(value).encode(), b"m"), (b"ZSCORE", b"z", b"m"))
        )
    answered = [reply.value for reply in replies[1::2]]
    assert [format_double(value) for value in values] == answered
