"""Instruction counts: what is made of callgrind's files and baselines, and that the workloads still work."""

import platform
import shutil
from pathlib import Path

import pytest
from support.checkout import load_bench

load_bench()

from bench import regress, regress_work  # noqa: E402
from bench.measuring import Failed  # noqa: E402

BUILD = "3.11.7 (main) [GCC]"


def counts(build: str = BUILD, parts: str = "pure", **work: float) -> regress.Counts:
    """Counts with a reference of 100."""
    return regress.Counts(build, parts, {regress.REFERENCE: 100.0, **work})


class TestCallgrind:
    def test_dumps_are_read_in_the_order_of_their_numbers(self, tmp_path: Path) -> None:
        for number, instructions in ((1, 500), (2, 600), (10, 700)):
            text = f"version: 1\ndesc: Trigger: --dump-after\nsummary: {instructions}\ntotals: {instructions}\n"
            (tmp_path / f"callgrind.out.{number}").write_text(text)
        (tmp_path / "callgrind.out").write_text("summary: 0\n")
        assert regress.read_summaries(tmp_path) == [500, 600, 700]

    def test_the_fewest_instructions_of_the_passes_count(self) -> None:
        work = [{"name": "GET", "operations": 10, "passes": 2}, {"name": "SET", "operations": 4, "passes": 1}]
        assert regress.per_operation(work, [1000, 905, 200]) == {"GET": 90.5, "SET": 50.0}

    def test_passes_that_callgrind_did_not_see_are_a_failure(self) -> None:
        with pytest.raises(Failed, match="saw 1 passes, not 2"):
            regress.per_operation([{"name": "GET", "operations": 10, "passes": 2}], [1000])

    def test_only_the_door_is_counted(self, tmp_path: Path) -> None:
        words = regress.command_line("/bin/valgrind", regress_work.DOOR_SYMBOL, tmp_path, ["GET"])
        assert "--collect-atstart=no" in words
        assert f"--toggle-collect={regress_work.DOOR_SYMBOL}" in words
        assert words[-2:] == [regress.WORKER, "GET"]

    @pytest.mark.slow
    @pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
    def test_callgrind_counts_what_goes_through_the_door(self) -> None:
        found = regress.count([regress.REFERENCE, "routing"], pure=True)
        assert found.parts == "pure"
        assert found.work.keys() == {regress.REFERENCE, "routing"}
        # Starting the interpreter and importing the node alone would be a hundred thousand for each operation.
        assert all(100 < instructions < 20_000 for instructions in found.work.values())


class TestBaselines:
    def test_growth_beyond_the_tolerance_is_worse(self) -> None:
        before = counts(GET=1000.0, SET=1000.0, INCR=1000.0)
        now = counts(GET=1019.0, SET=1021.0, INCR=979.0)
        changes = regress.compare(now, before, 2.0, 10.0)
        assert [change.verdict for change in changes] == ["", "", "WORSE", "better"]

    def test_another_build_is_compared_in_units_of_the_reference(self) -> None:
        before = counts(GET=1000.0, SET=1000.0)
        now = regress.Counts("3.11.2 (main)", "pure", {regress.REFERENCE: 50.0, "GET": 545.0, "SET": 560.0})
        changes = regress.compare(now, before, 2.0, 10.0)
        assert [change.verdict for change in changes] == ["", "", "WORSE"]
        assert changes[1].change == pytest.approx(0.09)
        assert "another build" in regress.change_table(changes, now, before).notes[0]

    def test_what_has_no_baseline_is_new(self) -> None:
        (_, change) = regress.compare(counts(GET=1.0), counts(), 2.0, 10.0)
        assert (change.verdict, change.change) == ("new", None)
        assert all(each.verdict == "new" for each in regress.compare(counts(GET=1.0), None, 2.0, 10.0))

    def test_versions_machines_and_parts_have_baselines_of_their_own(self) -> None:
        machine = platform.machine()
        assert counts().key == f"3.11-{machine}-pure"
        assert counts("3.13.0rc1 (x)", "compiled").key == f"3.13-{machine}-compiled"

    def test_files_are_read_as_they_were_written(self, tmp_path: Path) -> None:
        file = tmp_path / "baseline.json"
        assert regress.read_baselines(file) == {}
        kept = {"b": counts(GET=2.0), "a": counts("3.12", "compiled")}
        regress.write_baselines(file, kept)
        assert regress.read_baselines(file) == kept
        file.write_text('{"format": 99}')
        with pytest.raises(Failed, match="holds no baselines"):
            regress.read_baselines(file)

    def test_the_stored_baseline_is_of_work_that_there_is(self) -> None:
        for key, kept in regress.read_baselines(regress.BASELINE).items():
            assert key.endswith(kept.parts)
            assert set(kept.work) == set(regress_work.WORK)


class TestCommandLine:
    @pytest.fixture(autouse=True)
    def _counted(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.found = counts(GET=1000.0)
        self.file = tmp_path / "baseline.json"
        monkeypatch.setattr(regress, "count", lambda names, pure, keep: self.found)

    def run(self, *words: str) -> int:
        return regress.main(["--baseline", str(self.file), *words])

    def test_nothing_to_compare_with_is_said_and_fails_only_if_required(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.run() == 0
        assert regress.SKIPPED in capsys.readouterr().err
        assert self.run("--required") == 1

    def test_what_is_worse_fails_until_it_is_saved(self) -> None:
        assert self.run("--save") == 0
        assert self.run() == 0
        self.found = counts(GET=1100.0)
        assert self.run() == 1
        assert self.run("--tolerance", "20") == 0
        assert self.run("--save") == 0
        assert self.run() == 0

    def test_saving_some_work_keeps_the_others_of_the_same_build(self) -> None:
        self.run("--save")
        self.found = counts(SET=7.0)
        self.run("--save")
        (kept,) = regress.read_baselines(self.file).values()
        assert kept.work == {regress.REFERENCE: 100.0, "GET": 1000.0, "SET": 7.0}

    def test_unknown_work_is_refused(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            self.run("--work", "GET,nope")
        assert "nope" in capsys.readouterr().err

    def test_the_reference_is_always_counted(self) -> None:
        assert regress.chosen("set, GET,set", ["reference", "GET", "SET"]) == ["reference", "SET", "GET"]


def test_without_valgrind_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert regress.main(["--work", "GET"]) == 0
    assert f"{regress.SKIPPED}: valgrind" in capsys.readouterr().err
    assert regress.main(["--work", "GET", "--required"]) == 1


@pytest.mark.parametrize("name", list(regress_work.WORK))
def test_work_does_what_it_is_named_for_again_and_again(name: str) -> None:
    counted = regress_work.WORK[name]()
    try:
        for _ in range(2):
            counted.prepare()
            counted.work()
    finally:
        counted.finish()
    assert counted.operations > 0
