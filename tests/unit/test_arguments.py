"""Numbers in arguments: what counts as one, and the long double arithmetic of the float counters."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kevynode import errors
from kevynode.errors import ReplyError
from kevynode.store.arguments import (
    INT64_MAX,
    INT64_MIN,
    add_long_double,
    as_float,
    as_int,
    parse_float,
    parse_int,
    parse_timeout,
)
from kevynode.store.long_double import parse_long_double


@pytest.mark.parametrize("value", [0, 1, -1, 10, -10, INT64_MAX, INT64_MIN])
def test_integers(value: int) -> None:
    assert as_int(b"%d" % value) == value


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"-", b"+1", b"-0", b"00", b"01", b"-01", b" 1", b"1 ", b"1\n", b"1\0", b"1_0", b"1.0", b"1e3", b"0x1"),
        *(b"9223372036854775808", b"-9223372036854775809", b"9" * 21, b"9" * 100_000, b"\xd9\xa1"),
    ],
)
def test_no_integers(data: bytes) -> None:
    assert as_int(data) is None
    with pytest.raises(ReplyError, match="ERR value is not an integer or out of range"):
        parse_int(data)
    with pytest.raises(ReplyError, match="index out of range"):
        parse_int(data, errors.INDEX_OUT_OF_RANGE)


@given(st.binary(max_size=22))
def test_an_integer_is_its_own_canonical_text(data: bytes) -> None:
    value = as_int(data)
    assert value is None or (b"%d" % value == data and INT64_MIN <= value <= INT64_MAX)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        *((b"1", 1.0), (b"+1", 1.0), (b"-1.5", -1.5), (b"1.", 1.0), (b".5", 0.5), (b"1.e5", 1e5), (b"00012", 12.0)),
        *((b"1E+5", 1e5), (b"1e-320", 1e-320), (b"0e-400", 0.0), (b"0e999999", 0.0), (b"-0.0", 0.0)),
        *((b"inf", float("inf")), (b"-Infinity", -float("inf")), (b"+INF", float("inf"))),
        (b"1" * 5000 + b"e-4999", 1.1111111111111112),
    ],
)
def test_doubles(data: bytes, value: float) -> None:
    assert as_float(data) == value


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b".", b"e5", b"1e", b"1e+", b" 1", b"1 ", b"\t1", b"1\n", b"1\0", b"1_0", b"nan", b"-nan", b"infinit"),
        *(b"0x10", b"1e309", b"-1e400", b"1e-324", b"-1e-400", b"--1", b"1e1_0", b"0.0_0"),
    ],
)
def test_no_doubles(data: bytes) -> None:
    assert as_float(data) is None
    with pytest.raises(ReplyError, match="ERR value is not a valid float"):
        parse_float(data)


@pytest.mark.parametrize(
    ("data", "milliseconds"),
    [
        *((b"0", 0), (b"1", 1000), (b"0.001", 1), (b"0.0001", 1), (b"1e-400", 1), (b"0x1", 1000), (b"0x.8", 500)),
        *(
            (b"-0", 0),
            (b"-0.0001", 0),
            (b"-0.001", 0),
            (b"1.5", 1500),
            (b"0.1", 100),
            (b"0.003", 3),
            (b"9223370000000000", 9223370000000000000),
        ),
    ],
)
def test_timeouts(data: bytes, milliseconds: int) -> None:
    assert parse_timeout(data, 1_700_000_000_000) == milliseconds


@pytest.mark.parametrize(
    ("data", "message"),
    [
        *((bad, "timeout is not a float or out of range") for bad in (b"", b"x", b"nan", b" 1", b"1e-5000", b"1e5000")),
        *((bad, "timeout is out of range") for bad in (b"inf", b"1e400", b"9223372036854776", b"9223372036854775")),
        *((bad, "timeout is negative") for bad in (b"-1", b"-inf", b"-1e30", b"-1e400", b"-0.002")),
    ],
)
def test_no_timeouts(data: bytes, message: str) -> None:
    with pytest.raises(ReplyError, match=message):
        parse_timeout(data, 1_700_000_000_000)


@pytest.mark.parametrize(
    ("old", "increment", "total"),
    [
        # Sums that a double would show differently; as Valkey answers on x86-64.
        *(
            (b"0", b"0.1", b"0.1"),
            (b"0.1", b"0.2", b"0.3"),
            (b"0", b"411.9", b"411.89999999999999999"),
            (b"10.5", b"0.1", b"10.6"),
            (b"3.0e3", b"200", b"3200"),
        ),
        *((b"5", b"-5", b"0"), (b"-0", b"0", b"0"), (b"0", b"-1e-30", b"0"), (b"-0", b"-0.0", b"0")),
        *((b"0x10", b"0", b"16"), (b"-0x1.8p1", b"0", b"-3"), (b"0x.8", b"0", b"0.5"), (b"1.e1", b"+.5", b"10.5")),
        (b"18446744073709551616", b"1", b"18446744073709551616"),
        (b"9223372036854775807", b"1", b"9223372036854775808"),
        (b"1.000000000000000005", b"0", b"1"),
        (b"1" * 400 + b"e-390", b"0", b"1111111111.11111111112404615"),
        (b"1" * 5000 + b"e-4999", b"0", b"1.11111111111111111"),
        (b"0." + b"0" * 500 + b"1e501", b"0", b"1"),
        (b"0x1p-16445", b"0", b"0"),
        *((b"0x0p5", b"0", b"0"), (b"0x1" + b"0" * 40 + b".8p-160", b"0", b"1")),
        # A tie goes to the even neighbour, unless a digit however far behind breaks it.
        (b"18446744073709551617", b"0", b"18446744073709551616"),
        (b"18446744073709551617." + b"0" * 5_000, b"0", b"18446744073709551616"),
        (b"18446744073709551617." + b"0" * 5_000 + b"1", b"0", b"18446744073709551618"),
        (b"0x1" + b"0" * 15 + b"1." + b"0" * 5_000 + b"1", b"0", b"18446744073709551618"),
        (b"1." + b"0" * 5_117, b"0", b"1"),
    ],
)
def test_long_double_sums(old: bytes, increment: bytes, total: bytes) -> None:
    assert add_long_double(old, increment) == total
    assert add_long_double(increment, old) == total


def test_the_largest_sums_have_thousands_of_digits() -> None:
    assert add_long_double(b"1e308", b"0").startswith(b"9999999999999999999668587965584564566056")
    assert len(add_long_double(b"1e4932", b"0")) == 4933
    with pytest.raises(ReplyError, match="ERR increment would produce NaN or Infinity"):
        add_long_double(b"1.1e4932", b"1.1e4932")


@pytest.mark.parametrize(
    "data",
    [
        *(
            b"",
            b" 1",
            b"1 ",
            b"\t1",
            b"1\0",
            b".",
            b"1e",
            b"1e+",
            b"e5",
            b"0x",
            b"0xp1",
            b"0x1p",
            b"0x.",
            b"nan",
            b"1_0",
        ),
        *(b"1e5000", b"1e-5000", b"1e-4951", b"0x1p-16446", b"1e5000000000000000000000000", b"0x1p99999999999999999"),
        *(b"1e" + b"9" * 10_000, b"1e-" + b"9" * 10_000, b"1." + b"0" * 5_118, b"1" * 100_000),
    ],
)
def test_no_long_doubles(data: bytes) -> None:
    assert parse_long_double(data) is None
    with pytest.raises(ReplyError, match="ERR value is not a valid float"):
        add_long_double(b"1", data)
    with pytest.raises(ReplyError, match="ERR index out of range"):
        add_long_double(data, b"1", errors.INDEX_OUT_OF_RANGE)


@pytest.mark.parametrize("data", [b"inf", b"-Infinity"])
def test_infinities_have_no_sum(data: bytes) -> None:
    with pytest.raises(ReplyError, match="ERR increment would produce NaN or Infinity"):
        add_long_double(b"1", data)
    with pytest.raises(ReplyError, match="ERR increment would produce NaN or Infinity"):
        add_long_double(data, b"1")


@given(st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**9), max_value=10**9))
def test_a_parsed_number_is_off_by_half_its_last_bit_at_most(number: Decimal) -> None:
    text = str(number).encode()
    parsed = parse_long_double(text)
    assert parsed is not None
    value = parsed.mantissa * Fraction(2) ** parsed.exponent
    assert abs(parsed.mantissa).bit_length() <= 64
    assert abs(value - Fraction(text.decode())) <= abs(Fraction(text.decode())) / 2**64


@given(st.decimals(-(10**9), 10**9, places=6), st.decimals(-(10**9), 10**9, places=6))
def test_a_sum_is_off_by_its_four_roundings_at_most(first: Decimal, second: Decimal) -> None:
    total = Fraction(add_long_double(str(first).encode(), str(second).encode()).decode())
    exact = Fraction(first) + Fraction(second)
    slack = (abs(Fraction(first)) + abs(Fraction(second)) + abs(exact)) / 2**64 + Fraction(1, 2 * 10**17)
    # Three numbers rounded to 64 bits, the sum to 17 decimals, and a little because one rounding builds on another.
    assert abs(total - exact) <= slack * Fraction(101, 100)
