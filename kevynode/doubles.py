"""Doubles as text, digit for digit as Valkey writes them.

Valkey prints with Grisu2 (Florian Loitsch, "Printing floating-point numbers quickly and accurately with integers",
2010): the text always reads back as the same double, but about one in a thousand is not the shortest such text, as
``repr`` would give. Clients and tests compare texts, so the same digits are found here: :func:`repr` guesses how many
there are, and the algorithm's own condition, checked on Python's integers, decides.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Final

__all__ = ["format_double"]

# Whole numbers up to here are written as integers.
_WHOLE_LIMIT: Final = 2.0**62

_FRACTION_BITS: Final = 52
_HIDDEN_BIT: Final = 1 << _FRACTION_BITS
# A scaled number's last bit weighs between 2**-60 and 2**-32.
_MIN_WEIGHT: Final = -60
_MAX_WEIGHT: Final = -32
# Powers of ten stand in steps of eight decades; the first is 10**-348.
_FIRST_POWER: Final = -348
_POWER_STEP: Final = 8
_POWERS: Final = 87
_LOG10_OF_2: Final = 0.30102999566398114
_WORD: Final = 64

# At most so many digits stand in the scientific form, the sign counted as one.
_SCIENTIFIC_DIGITS: Final = 18


@cache
def _power_of_ten(power: int) -> tuple[int, int]:
    """``10**power`` as (64-bit fraction, binary exponent), correctly rounded."""
    if power >= 0:
        number, exponent = 10**power, 0
    else:
        # Two words more than are kept.
        exponent = -((10**-power).bit_length() + 2 * _WORD)
        number = (1 << -exponent) // 10**-power
    excess = number.bit_length() - _WORD
    if excess <= 0:
        return number << -excess, exponent + excess
    # No power of ten lies halfway, so adding half rounds to the nearest.
    return (number + (1 << (excess - 1))) >> excess, exponent + excess


@cache
def _scale(exponent: int) -> tuple[int, int, int]:
    """(fraction, binary exponent, decimal exponent) of the power of ten that brings ``2**exponent`` into the window."""
    index = (int(-(exponent + _POWERS) * _LOG10_OF_2) - _FIRST_POWER) // _POWER_STEP
    while True:
        power = _FIRST_POWER + index * _POWER_STEP
        fraction, binary = _power_of_ten(power)
        weight = exponent + binary + _WORD
        if weight < _MIN_WEIGHT:
            index += 1
        elif weight > _MAX_WEIGHT:
            index -= 1
        else:
            return fraction, binary, power


def _digits(value: float, guess: int) -> tuple[int, int]:
    """(digits, K) with ``digits * 10**K`` for a positive ``value``; ``guess`` is K of the shortest text."""
    mantissa, binary = math.frexp(value)
    # Subnormal numbers have fewer bits.
    exponent = max(binary - _FRACTION_BITS - 1, -1074)
    fraction = int(math.ldexp(mantissa, binary - exponent))
    # The number and its upper and lower boundary, halfway to its neighbours, as 64-bit fractions of one exponent.
    twice = (fraction << 1) + 1
    shift = _WORD - twice.bit_length()
    top = twice << shift
    exponent -= shift + 1
    below = 2 if fraction == _HIDDEN_BIT else 1
    bottom = ((fraction << below) - 1) << (shift + 1 - below)
    scale, scale_exponent, power = _scale(exponent)
    half = 1 << (_WORD - 1)
    # Products are off by less than one unit: the boundaries move inwards by one to stay safe.
    top = (top * scale + half >> _WORD) - 1
    bottom = (bottom * scale + half >> _WORD) + 1
    middle = (fraction << (shift + 1)) * scale + half >> _WORD
    point = -(exponent + scale_exponent + _WORD)

    # The number of decimals to leave out is the largest whose rest, cut off the upper boundary, stays inside.
    place = guess + power
    delta = top - bottom
    while _fits(top, delta, point, place + 1):
        place += 1
    while not _fits(top, delta, point, place):
        place -= 1

    factor = 10**-place if place < 0 else 1
    unit = 1 << point if place < 0 else 10**place << point
    digits, rest = divmod(top * factor, unit)
    delta *= factor
    wanted = (top - middle) * factor
    # From the upper boundary down to the candidate nearest to the number.
    while rest < wanted and delta - rest >= unit and (rest + unit < wanted or wanted - rest > rest + unit - wanted):
        digits -= 1
        rest += unit
    return digits, place - power


def _fits(top: int, delta: int, point: int, place: int) -> bool:
    """Whether cutting ``top`` (``point`` binary places) off below ``10**place`` takes no more than ``delta``."""
    if place >= 0:
        unit: int = 10**place << point
        return top >= unit and top % unit <= delta
    factor: int = 10**-place
    return (top * factor) & ((1 << point) - 1) < delta * factor


def format_double(value: float) -> bytes:
    """The text of a double in a reply: ``3``, ``3.5``, ``1e+30``, ``inf``, ``-0``, ``nan``. Reads back the same."""
    if -_WHOLE_LIMIT <= value <= _WHOLE_LIMIT:
        whole = int(value)
        if whole == value:
            return b"%d" % whole if whole or math.copysign(1.0, value) > 0 else b"-0"
    elif value != value:
        return b"nan"
    elif math.isinf(value):
        return b"inf" if value > 0 else b"-inf"
    text, _, exponent = repr(abs(value)).partition("e")
    part = text.partition(".")[2]
    guess = int(exponent or 0) - (0 if part == "0" else len(part))
    digits, power = _digits(abs(value), guess)
    return _layout(b"%d" % digits, power, b"-" if value < 0 else b"")


def _layout(digits: bytes, power: int, sign: bytes) -> bytes:
    """``digits * 10**power``: plain where that is short, else scientific."""
    size = len(digits)
    lead = power + size - 1
    if power >= 0 and abs(lead) < size + 7:
        return sign + digits + b"0" * power
    if power < 0 and (power > -7 or abs(lead) < 4):
        point = size + power
        if point <= 0:
            return sign + b"0." + b"0" * -point + digits
        return sign + digits[:point] + b"." + digits[point:]
    digits = digits[: _SCIENTIFIC_DIGITS - len(sign)]
    rest = b"." + digits[1:] if len(digits) > 1 else b""
    return b"%b%b%be%+d" % (sign, digits[:1], rest, lead)
