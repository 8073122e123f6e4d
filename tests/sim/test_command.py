"""What the command line says of failures."""

from __future__ import annotations

import signal
from pathlib import Path

import attrs
import pytest
from sim import command
from sim.plan import Profile, plan_from_json
from sim.simulation import Outcome, simulate

ONE = ("--jobs", "1", "--seeds", "1", "--first", "3", "--profile", "replication", "--no-shrink")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every simulation counts as one that failed."""

    def failed(seed: int, profile: Profile) -> Outcome:
        return attrs.evolve(simulate(seed, profile), failures=["durability: gone\nwith more about it"])

    monkeypatch.setattr(command, "simulate", failed)
    monkeypatch.setenv("PYTHONHASHSEED", "0")


@pytest.mark.usefixtures("failing")
def test_a_failure_is_told_with_its_schedule_its_trace_and_how_to_have_it_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([*ONE, "--keep", str(tmp_path / "kept")]) == 1
    told = capsys.readouterr().out
    assert told.startswith("seed 3 of replication fails: durability: gone\n")
    plan = plan_from_json((tmp_path / "kept" / "replication-3.json").read_text())
    assert plan.actions
    for action in plan.actions:
        assert f"  {action}\n" in told
    trace = (tmp_path / "kept" / "replication-3.trace").read_text()
    assert all(f"{name} " in trace for name in plan.nodes)
    for line in trace.splitlines()[-5:]:
        assert line in told
    numbers = ",".join(str(action.number) for action in plan.actions)
    assert f"python -m tests.sim --profile replication --seed 3 --actions '{numbers}'" in told
    assert "\nfailed     1\n" in told


@pytest.mark.usefixtures("failing")
def test_a_trace_is_written_whether_or_not_somebody_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert command.main(ONE) == 1
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("  trace: "))
    trace = Path(line.removeprefix("  trace: ").partition(",")[0])
    assert trace.is_relative_to(tmp_path)
    assert "started id=n1" in trace.read_text()


def test_an_interruption_ends_it_with_what_the_others_came_to(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(seed: int, profile: Profile) -> Outcome:
        outcome = simulate(1, profile)
        if seed == 5:
            signal.raise_signal(signal.SIGINT)
        return outcome

    monkeypatch.setattr(command, "simulate", interrupted)
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    before = signal.getsignal(signal.SIGINT)
    assert command.main(["--jobs", "1", "--seeds", "100", "--first", "4", "--profile", "replication"]) == 0
    assert capsys.readouterr().out.startswith("1 seeds in ")
    assert signal.getsignal(signal.SIGINT) is before
