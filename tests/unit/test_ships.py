"""When a snapshot may start: always, but for a pause behind one that the backlog could not hold."""

from __future__ import annotations

import pytest

from kevynode.replicate.ships import FIRST_PAUSE, LONGEST_PAUSE, ShipGate


def test_any_number_of_ships_may_run() -> None:
    gate = ShipGate()
    for _ in range(5):
        assert gate.may_start(0.0)
        gate.started()
    assert gate.running == 5


def test_after_an_overrun_one_runs_at_a_time_and_not_before_the_pause() -> None:
    gate = ShipGate()
    gate.started()
    gate.started()
    gate.overrun(100.0)
    gate.broken_off()
    # The other one still runs.
    assert not gate.may_start(100.0 + LONGEST_PAUSE)
    gate.broken_off()
    assert not gate.may_start(100.0 + FIRST_PAUSE - 0.01)
    assert gate.may_start(100.0 + FIRST_PAUSE)
    gate.started()
    assert not gate.may_start(1000.0)


def test_a_pause_doubles_up_to_the_longest() -> None:
    gate = ShipGate()
    pauses = []
    now = 0.0
    for _ in range(100):
        gate.started()
        gate.overrun(now)
        gate.broken_off()
        pause = FIRST_PAUSE
        while not gate.may_start(now + pause):
            pause += FIRST_PAUSE
        pauses.append(pause)
        now += pause
    assert pauses[:8] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert set(pauses[6:]) == {LONGEST_PAUSE}


def test_a_success_forgets_it() -> None:
    gate = ShipGate()
    gate.started()
    gate.overrun(0.0)
    gate.broken_off()
    gate.started()
    gate.finished()
    assert (gate.running, gate.overruns) == (0, 1)
    gate.caught_up()
    assert gate.overruns == 0
    assert gate.may_start(0.0)


@pytest.mark.parametrize("end", ["finished", "broken_off"])
def test_each_ship_ends_once(end: str) -> None:
    gate = ShipGate()
    gate.started()
    gate.started()
    getattr(gate, end)()
    assert gate.running == 1
