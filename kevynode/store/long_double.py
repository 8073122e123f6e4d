"""Arithmetic in the 80-bit ``long double`` of x86-64, which INCRBYFLOAT and HINCRBYFLOAT of Valkey compute in.

A number is ``mantissa * 2**exponent`` with a mantissa of at most 64 bits, rounded half to even, with gradual underflow.
Python's integers make each step exact before its one rounding, so results agree to the last digit. The sign of zero is
not kept, because no reply shows it.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final, NamedTuple

from .. import errors

__all__ = ["LongDouble", "add_long_double", "ceil_product", "format_long_double", "parse_long_double"]

_MANTISSA_BITS: Final = 64
# The weight of the last bit of the smallest subnormal number, and of one bit beyond the largest number.
_MIN_EXPONENT: Final = -16445
_MAX_EXPONENT: Final = 16384
_INFINITE: Final = 1 << 30

# The server copies a number into a buffer of this size, and refuses one that does not fit with its end mark.
_TEXT_LIMIT: Final = 5 * 1024
# Powers of ten that are surely too large and too small, whatever the first digit.
_MAX_POWER: Final = 4_940
_MIN_POWER: Final = -4_970
# Longer exponents than this saturate; no argument is long enough to balance them.
_EXPONENT_DIGITS: Final = 11

# What strtold reads. A leading blank, which strtold would skip, is refused by the server before it asks.
_NUMBER = re.compile(
    rb"""([+-]?)
    (?: 0[xX] (?=\.?[0-9a-fA-F]) ([0-9a-fA-F]*+) (?:\.([0-9a-fA-F]*+))?
        (?:[pP]([+-]?[0-9]++))?
    |   (?=\.?[0-9]) ([0-9]*+) (?:\.([0-9]*+))? (?:[eE]([+-]?[0-9]++))?
    |   ([iI][nN][fF](?:[iI][nN][iI][tT][yY])?)
    )\Z""",
    re.VERBOSE,
)


class LongDouble(NamedTuple):
    """``mantissa * 2**exponent``; an infinity has a mantissa of 1 or -1 and :attr:`is_infinite`."""

    mantissa: int
    exponent: int

    @property
    def is_infinite(self) -> bool:
        """Whether this is plus or minus infinity."""
        return self.exponent == _INFINITE


def _rounded(mantissa: int, exponent: int) -> LongDouble:
    """``mantissa * 2**exponent``, of any size, as the nearest long double; ties go to even, too large to infinity."""
    magnitude = abs(mantissa)
    excess = max(magnitude.bit_length() - _MANTISSA_BITS, _MIN_EXPONENT - exponent)
    if excess > 0:
        half = 1 << (excess - 1)
        rest = magnitude & ((half << 1) - 1)
        magnitude >>= excess
        exponent += excess
        if rest > half or (rest == half and magnitude & 1):
            magnitude += 1
    if magnitude.bit_length() + exponent > _MAX_EXPONENT and magnitude:
        return LongDouble(1 if mantissa > 0 else -1, _INFINITE)
    return LongDouble(magnitude if mantissa >= 0 else -magnitude, exponent)


def _quotient(numerator: int, denominator: int) -> LongDouble:
    """The long double nearest to a positive fraction."""
    shift = max(0, _MANTISSA_BITS + 2 - numerator.bit_length() + denominator.bit_length())
    quotient, rest = divmod(numerator << shift, denominator)
    # A last bit that only says "and a little more" decides ties the right way.
    return _rounded(quotient << 1 | (rest != 0), -shift - 1)


def _saturated(exponent: bytes | None) -> int:
    if not exponent:
        return 0
    digits = exponent.lstrip(b"+-").lstrip(b"0")
    size = int(digits or b"0") if len(digits) <= _EXPONENT_DIGITS else 10**_EXPONENT_DIGITS
    return -size if exponent[:1] == b"-" else size


def _decimal(digits: bytes, power: int) -> LongDouble | None:
    """``digits * 10**power``; None where that is surely out of range."""
    digits = digits.lstrip(b"0")
    if not digits:
        return LongDouble(0, 0)
    if power + len(digits) > _MAX_POWER or power + len(digits) < _MIN_POWER:
        return None
    # int() refuses very long text; Decimal reads and converts any.
    number = int(digits) if len(digits) < 100 else int(Decimal(digits.decode()))
    return _rounded(number * 10**power, 0) if power >= 0 else _quotient(number, 10**-power)


def _hexadecimal(digits: bytes, power: int) -> LongDouble | None:
    """``digits * 2**power``, the digits hexadecimal; None where that is surely out of range."""
    digits = digits.lstrip(b"0")
    if not digits:
        return LongDouble(0, 0)
    # Only the leading digits matter, and whether anything follows them.
    beyond = digits[32:]
    number = int(digits[:32], 16) << 1 | bool(beyond.strip(b"0"))
    power += 4 * len(beyond) - 1
    if not _MIN_EXPONENT - 256 < power < _MAX_EXPONENT + 256:
        return None
    return _rounded(number, power)


def parse_long_double(data: bytes) -> LongDouble | None:
    """The number ``data`` says, or None if it says none.

    As strtold reads it: decimal or hexadecimal, infinities, no NaN; but no blanks, nothing of 5,120 bytes or more, and
    nothing too large, nor too small to be told from zero.
    """
    found = _NUMBER.match(data) if len(data) < _TEXT_LIMIT else None
    if found is None:
        return None
    sign, hex_whole, hex_part, power, whole, part, exponent, infinity = found.groups()
    if infinity:
        return LongDouble(-1 if sign == b"-" else 1, _INFINITE)
    if whole is not None:
        digits = whole + part if part else whole
        value = _decimal(digits, _saturated(exponent) - len(part or b""))
    else:
        digits = hex_whole + (hex_part or b"")
        value = _hexadecimal(digits, _saturated(power) - 4 * len(hex_part or b""))
    if value is None or value.is_infinite or (not value.mantissa and digits.strip(b"0")):
        return None
    return LongDouble(-value.mantissa, value.exponent) if sign == b"-" else value


def ceil_product(value: LongDouble, factor: int) -> int:
    """The product, rounded to a long double, then up to a whole number; ``value`` is finite."""
    mantissa, exponent = _rounded(value.mantissa * factor, value.exponent)
    return mantissa << exponent if exponent >= 0 else -(-mantissa >> -exponent)


def format_long_double(value: LongDouble) -> bytes:
    """A finite number in plain decimals, rounded to 17 of them, without trailing zeros; never ``-0``."""
    mantissa, exponent = value
    sign = "-" if mantissa < 0 else ""
    magnitude = abs(mantissa)
    if exponent >= 0:
        return f"{sign}{Decimal(magnitude << exponent):f}".encode()
    scaled = magnitude * 10**17
    units = scaled >> -exponent
    rest = scaled - (units << -exponent)
    half = 1 << (-exponent - 1)
    if rest > half or (rest == half and units & 1):
        units += 1
    if not units:
        return b"0"
    whole, part = divmod(units, 10**17)
    # A mantissa of 64 bits with a negative exponent is below 2**64.
    text = f"{sign}{whole}.{part:017d}"
    return text.rstrip("0").rstrip(".").encode()


def add_long_double(old: bytes, increment: bytes, old_kind: errors.ErrorKind = errors.NOT_FLOAT) -> bytes:
    """The sum of two numbers given as text, as the text that INCRBYFLOAT stores.

    Raises ``old_kind`` where ``old`` is no number, then NOT_FLOAT where ``increment`` is none, and NAN_OR_INFINITY
    where the sum has no finite value.
    """
    first = parse_long_double(old)
    if first is None:
        raise old_kind()
    second = parse_long_double(increment)
    if second is None:
        raise errors.NOT_FLOAT()
    if first.is_infinite or second.is_infinite:
        raise errors.NAN_OR_INFINITY()
    exponent = min(first.exponent, second.exponent)
    total = _rounded(
        (first.mantissa << first.exponent - exponent) + (second.mantissa << second.exponent - exponent), exponent
    )
    if total.is_infinite:
        raise errors.NAN_OR_INFINITY()
    return format_long_double(total)
