"""What checks keys with deadlines knows those that are there too long, or not long enough."""

from __future__ import annotations

import math
from random import Random

import pytest
import trio.testing
from sim.clocks import START, SimClock
from sim.mortals import MortalKey, Span


def mortal(deadline: Span) -> MortalKey:
    return MortalKey(b"a:brief", b"v", 0.0, deadline)


@pytest.mark.parametrize(("clock", "wrong"), [
    (Span(100.0, 101.0), False),
    # It may have been asked before its time was over.
    (Span(109.9, 130.0), False),
    (Span(110.5, 111.5), False),
    (Span(112.0, 113.0), True),
])  # fmt: skip
def test_what_is_shown_when_its_time_is_over_is_found(clock: Span, wrong: bool) -> None:
    assert bool(mortal(Span(110.0, 111.0)).shown(clock, True)) == wrong


@pytest.mark.parametrize(("latest", "wrong"), [(112.0, False), (110.0, False), (109.0, True)])
def test_what_goes_before_its_time_is_found(latest: float, wrong: bool) -> None:
    assert bool(mortal(Span(110.0, 111.0)).gone(latest)) == wrong


def test_what_has_no_deadline_any_more_never_goes() -> None:
    key = mortal(Span(110.0, 111.0))
    key.changed(Span(50.0, 51.0).later(math.inf))
    assert key.gone(1e12)
    assert not key.shown(Span(1e12, 1e12), True)


def test_a_copy_may_show_it_by_the_deadline_before() -> None:
    key = mortal(Span(110.0, 111.0))
    key.changed(Span(105.0, 106.0))
    assert key.shown(Span(107.0, 107.0), True)
    assert not key.shown(Span(107.0, 107.0), False)
    assert key.shown(Span(112.0, 112.0), False)


async def test_a_clock_that_is_set_back_has_been_later(autojump_clock: trio.testing.MockClock) -> None:
    clock = SimClock(Random(1))
    clock.drift = clock.jump = 0.0
    await trio.sleep(10 - trio.current_time())
    assert clock.highest == pytest.approx(START + 10)
    clock.set(-5)
    assert clock.wall() == pytest.approx(START + 5)
    assert clock.highest == pytest.approx(START + 10)
    another = SimClock(Random(2))
    another.take_over(clock)
    assert (another.wall(), another.highest) == (clock.wall(), clock.highest)
