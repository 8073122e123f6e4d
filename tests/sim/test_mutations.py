"""Mistakes that the simulation has to find: each can be made, and has a plan that finds it."""

from __future__ import annotations

import ast
from pathlib import Path

import attrs
import pytest
from sim.mutations import CAUGHT, MUTATIONS, ROOT, SEEDS, Mutation, main, mutated, try_plans
from sim.plan import plan_from_json
from sim.trials import Told, read

#: One of each kind: what has gone wrong is on a disk, in a stream, in a move, in who takes writes.
SAMPLE = ("skip a fsync", "make a branch in a chain", "take UNKNOWN for ABORTED", "let a cursor lag its entry")


def _named(name: str) -> Mutation:
    return next(mutation for mutation in MUTATIONS if mutation.name == name)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mistake_can_be_made_and_has_a_plan(mutation: Mutation) -> None:
    for file, changed in mutation.changed(ROOT / "kevynode").items():
        assert changed != (ROOT / "kevynode" / file).read_text(encoding="utf-8")
        ast.parse(changed)
    assert mutation.plans()
    for plan in mutation.plans():
        assert plan_from_json(plan.read_text(encoding="utf-8")).about


def test_no_plan_is_kept_for_nothing() -> None:
    assert sorted(CAUGHT.iterdir()) == sorted(plan for mutation in MUTATIONS for plan in mutation.plans())


def test_a_mistake_that_cannot_be_made_is_said_to_be_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "some.py").write_text("a = 1\nb = 2\nb = 2\n")
    (tmp_path / "other.py").write_text("c = 1\n")
    more = (("some.py", "a = 2", "a = 3"), ("other.py", "c = 1", "c = 2"))
    mutation = Mutation("some", "some.py", "a = 1", "a = 2", "all", more)
    assert mutation.changed(tmp_path) == {"some.py": "a = 3\nb = 2\nb = 2\n", "other.py": "c = 2\n"}
    for old in ("b = 2", "c = 3"):
        with pytest.raises(ValueError, match=r"some.py has it [02] times"):
            attrs.evolve(mutation, old=old).make(tmp_path)
    assert (tmp_path / "some.py").read_text() == "a = 1\nb = 2\nb = 2\n"
    assert (tmp_path / "other.py").read_text() == "c = 1\n"
    assert main(["--only", "no mistake has this name"]) == 0
    assert capsys.readouterr().out == "0 of 0 caught\n"


def test_what_a_process_has_told_last_is_read() -> None:
    tried = '{"of": "moves", "seed": 3, "failures": []}'
    failed = '{"of": "moves", "seed": 4, "failures": ["ownership: one", "moves: other"]}'
    assert read("") == read("a word\n{half") == Told()
    assert read(f"{tried}\n") == Told("moves", 3)
    assert read(f"{tried}\n{failed}\n") == Told("moves", 4, ("ownership: one", "moves: other"))


def test_what_cannot_be_simulated_is_no_failure(tmp_path: Path) -> None:
    with pytest.raises(ChildProcessError, match=r"no-plan\.json"):
        try_plans(ROOT, tmp_path / "no-plan.json")


@pytest.mark.parametrize("name", SAMPLE)
def test_a_mistake_is_caught_by_its_plan(name: str) -> None:
    mutation = _named(name)
    with mutated(mutation) as place:
        found = try_plans(place, *mutation.plans(), "--seeds", SEEDS)
    assert found.failure
