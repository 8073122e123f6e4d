"""Which form of the handshake is tried next: slowly down, and soon back up."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kevynode.replicate.form_chooser import FORGET_AFTER
from kevynode.replicate.handshake import Form, FormChooser

EXTENDED, SIX, FIVE = Form.EXTENDED, Form.SIX, Form.FIVE

Step = Callable[[FormChooser, float], None]


def silent(chooser: FormChooser, now: float) -> None:
    """The upstream closed without a byte."""
    chooser.closed(now, 0)


def answered(chooser: FormChooser, now: float) -> None:
    chooser.closed(now, 12)


def reset(chooser: FormChooser, now: float) -> None:
    chooser.closed(now, 0, clean=False)


def confirmed(chooser: FormChooser, now: float) -> None:
    chooser.confirmed_capabilities()


@pytest.mark.parametrize(
    ("steps", "form"),
    [
        pytest.param([], EXTENDED, id="at first"),
        pytest.param([silent] * 2, EXTENDED, id="two closes"),
        pytest.param([silent] * 3, SIX, id="three closes"),
        pytest.param([silent] * 5, SIX, id="five closes"),
        pytest.param([silent] * 6, FIVE, id="six closes"),
        pytest.param([silent] * 20, FIVE, id="there is nothing below"),
        pytest.param([silent, silent, answered, silent, silent], EXTENDED, id="an answer between them"),
        pytest.param([silent, silent, reset, silent, silent], EXTENDED, id="a reset between them"),
        pytest.param([reset] * 9, EXTENDED, id="resets are no closes"),
        pytest.param([*[silent] * 3, answered, silent, silent], SIX, id="what was answered stays"),
        pytest.param([*[silent] * 3, answered, *[silent] * 3], FIVE, id="answered once, then refused"),
        pytest.param([*[silent] * 5, reset, silent, silent], SIX, id="a reset on the way to five"),
        pytest.param([confirmed, *[silent] * 9], EXTENDED, id="confirmed once"),
        pytest.param([*[silent] * 6, confirmed], EXTENDED, id="confirmed after all"),
        pytest.param([*[silent] * 2, confirmed, *[silent] * 9], EXTENDED, id="confirmed between them"),
    ],
)
def test_the_next_form(steps: list[Step], form: Form) -> None:
    chooser = FormChooser()
    now = 1000.0
    for step in steps:
        chooser.next(now)
        step(chooser, now)
        now += 1.0
    assert chooser.next(now) is form


@pytest.mark.parametrize("closes", [3, 6])
def test_a_weaker_form_is_forgotten(closes: int) -> None:
    chooser = FormChooser()
    for number in range(closes):
        chooser.closed(1000.0 + number, 0)
    weakened = 1000.0 + closes - 1
    assert chooser.next(weakened + FORGET_AFTER - 0.001) is (SIX if closes == 3 else FIVE)
    assert chooser.next(weakened + FORGET_AFTER) is EXTENDED
    # It takes all three closes again.
    chooser.closed(weakened + FORGET_AFTER, 0)
    chooser.closed(weakened + FORGET_AFTER, 0)
    assert chooser.next(weakened + FORGET_AFTER) is EXTENDED
    chooser.closed(weakened + FORGET_AFTER, 0)
    assert chooser.next(weakened + FORGET_AFTER) is SIX


def test_a_link_that_lived_long_on_a_weaker_form_begins_anew_with_the_strongest() -> None:
    chooser = FormChooser()
    for number in range(3):
        chooser.closed(1000.0 + number, 0)
    assert chooser.next(1003.0) is SIX
    chooser.closed(9000.0, 10**6)
    assert chooser.next(9000.1) is EXTENDED


def test_closes_long_ago_do_not_count() -> None:
    chooser = FormChooser()
    chooser.closed(1000.0, 0)
    chooser.closed(1001.0, 0)
    chooser.closed(1000.0 + FORGET_AFTER, 0)
    assert chooser.next(1000.0 + FORGET_AFTER) is EXTENDED


def test_a_clock_that_begins_at_zero() -> None:
    chooser = FormChooser()
    for number in range(3):
        assert chooser.next(float(number)) is EXTENDED
        chooser.closed(float(number), 0)
    assert chooser.next(3.0) is SIX
