"""Reading numbers and options from command arguments, exactly as strictly as Valkey does."""

from __future__ import annotations

import math
from typing import Final

from .. import errors
from .long_double import add_long_double, ceil_product, parse_long_double

__all__ = [
    "INT64_MAX",
    "INT64_MIN",
    "add_long_double",
    "as_float",
    "as_int",
    "parse_float",
    "parse_int",
    "parse_timeout",
]

INT64_MAX: Final = (1 << 63) - 1
INT64_MIN: Final = -(1 << 63)

# The longest canonical integer is -9223372036854775808.
_INT64_DIGITS: Final = 20
_MILLISECONDS: Final = 1000


def as_int(data: bytes) -> int | None:
    """The signed 64-bit integer that ``data`` is the canonical decimal form of, or None.

    Canonical: no ``+``, no blanks, no leading zeros, no ``-0``.
    """
    if len(data) > _INT64_DIGITS:
        return None
    try:
        value = int(data)
    except ValueError:
        return None
    # int() also reads blanks, underscores, plus signs and leading zeros: then the text does not come back.
    return value if INT64_MIN <= value <= INT64_MAX and b"%d" % value == data else None


def parse_int(data: bytes, kind: errors.ErrorKind = errors.NOT_INTEGER) -> int:
    """As :func:`as_int`, but raises ``kind`` instead of answering None."""
    value = as_int(data)
    if value is None:
        raise kind()
    return value


def as_float(data: bytes) -> float | None:
    """The double that ``data`` is the decimal form of, or None.

    Infinities by name and a leading ``+`` are fine; blanks, NaN, hexadecimals, and what is too large for a double or
    too small to be told from zero are not.
    """
    try:
        value = float(data)
    except ValueError:
        return None
    # float() also reads surrounding blanks, underscores and NaN.
    if value != value or b"_" in data or data[0] <= 32 or data[-1] <= 32:
        return None
    if value == 0:
        return None if data.lower().partition(b"e")[0].strip(b"+-0.") else value
    return None if math.isinf(value) and b"n" not in data.lower() else value


def parse_float(data: bytes, kind: errors.ErrorKind = errors.NOT_FLOAT) -> float:
    """As :func:`as_float`, but raises ``kind`` instead of answering None."""
    value = as_float(data)
    if value is None:
        raise kind()
    return value


def parse_timeout(data: bytes, now: int = 0) -> int:
    """The timeout of a blocking command, given in seconds with decimals, as milliseconds; 0 waits for ever.

    Rounded up, so that a small timeout never means "for ever". ``now`` (unix ms) bounds it: the deadline must fit 64
    bits. Raises TIMEOUT_NOT_FLOAT, TIMEOUT_OUT_OF_RANGE or TIMEOUT_NEGATIVE.
    """
    seconds = parse_long_double(data)
    if seconds is None:
        raise errors.TIMEOUT_NOT_FLOAT()
    if seconds.is_infinite:
        raise errors.TIMEOUT_OUT_OF_RANGE() if seconds.mantissa > 0 else errors.TIMEOUT_NEGATIVE()
    milliseconds = ceil_product(seconds, _MILLISECONDS)
    if milliseconds < 0:
        raise errors.TIMEOUT_NEGATIVE()
    if milliseconds > INT64_MAX - now:
        raise errors.TIMEOUT_OUT_OF_RANGE()
    return milliseconds
