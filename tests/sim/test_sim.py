"""Whole clusters from seeds: a few of them each time, and those that once found something."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sim.mutations import MUTATIONS, Mutation
from sim.plan import PROFILES, Profile
from sim.simulation import simulate

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("seed", range(1, 6))
def test_a_cluster_keeps_what_it_promises(seed: int, profile: Profile) -> None:
    outcome = simulate(seed, profile)
    assert not outcome.failures, f"python -m tests.sim --profile {profile} --seed {seed}"
    assert outcome.operations > 50


@pytest.mark.parametrize(("seed", "profile"), [(1, "moves"), (2, "restarts"), (3, "replication")])
def test_the_same_seed_leaves_the_same_trace(seed: int, profile: Profile) -> None:
    first, second = simulate(seed, profile), simulate(seed, profile)
    assert first.trace.text() == second.trace.text()
    assert simulate(seed + 1, profile).trace.text() != first.trace.text()


def test_the_same_seed_leaves_the_same_trace_in_another_process(tmp_path: Path) -> None:
    digests = set()
    for number in range(2):
        trace = tmp_path / str(number)
        command = [sys.executable, "-m", "tests.sim", "--profile", "moves", "--seed", "2", "--trace", str(trace)]
        environment = {**os.environ, "PYTHONHASHSEED": str(number)}
        subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, timeout=120)
        digests.add(trace.read_bytes())
    assert len(digests) == 1


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_the_mistakes_that_it_must_find_can_still_be_made(mutation: Mutation) -> None:
    assert mutation.old in mutation.find(ROOT / "kevynode")
    compile(mutation.find(ROOT / "kevynode").replace(mutation.old, mutation.new), mutation.file, "exec")
