"""Reading numbers and options from command arguments, exactly as strictly as Valkey does."""

from __future__ import annotations

import math
import re
from typing import Final

from .. import errors

__all__ = ["INT64_MAX", "INT64_MIN", "as_int", "parse_float", "parse_int", "parse_timeout"]

INT64_MAX: Final = (1 << 63) - 1
INT64_MIN: Final = -(1 << 63)

_INTEGER = re.compile(rb"(?:0|-?[1-9][0-9]{0,18})\Z")
_FLOAT = re.compile(
    rb"[+-]?(?:[0-9]+\.?[0-9]*(?:[eE][+-]?[0-9]+)?|\.[0-9]+(?:[eE][+-]?[0-9]+)?|inf|infinity)\Z", re.IGNORECASE
)


def as_int(data: bytes) -> int | None:
    """The signed 64-bit integer that ``data`` is the canonical decimal form of, or None.

    Canonical: no ``+``, no blanks, no leading zeros.
    """
    if _INTEGER.match(data) is None:
        return None
    value = int(data)
    return value if INT64_MIN <= value <= INT64_MAX else None


def parse_int(data: bytes, kind: errors.ErrorKind = errors.NOT_INTEGER) -> int:
    """As :func:`as_int`, but raises ``kind`` instead of answering None."""
    value = as_int(data)
    if value is None:
        raise kind()
    return value


def parse_float(data: bytes, kind: errors.ErrorKind = errors.NOT_FLOAT) -> float:
    """A double; infinities are allowed, NaN and surrounding blanks are not. Raises ``kind``."""
    if len(data) > 400 or _FLOAT.match(data) is None:
        raise kind()
    value = float(data)
    if math.isinf(value) and b"n" not in data.lower():
        raise kind()
    return value


def parse_timeout(data: bytes) -> int:
    """The timeout of a blocking command, given in seconds with decimals, as milliseconds; 0 waits for ever."""
    if len(data) > 400 or _FLOAT.match(data) is None:
        raise errors.TIMEOUT_NOT_FLOAT()
    seconds = float(data)
    if math.isinf(seconds) or seconds * 1000 > INT64_MAX:
        raise errors.TIMEOUT_OUT_OF_RANGE()
    if seconds < 0:
        raise errors.TIMEOUT_NEGATIVE()
    return math.ceil(seconds * 1000)
