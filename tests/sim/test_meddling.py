"""What is done to running nodes in a simulation promises nobody less, and is taken back."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
import trio.testing
from sim.meddling import Meddling
from sim.plan import Action
from sim.test_checkers import Cluster


def action(kind: str, seed: int = 1) -> Action:
    return Action(0, 0.0, kind, ("n1", "n2"), 1.0, seed)


class Asked:
    """Answers, after as many commands as fail."""

    def __init__(self, failing: int = 0) -> None:
        self.commands: list[tuple[Any, ...]] = []
        self.failing = failing

    async def __call__(self, name: str, *words: Any) -> Any:
        self.commands.append(words)
        await trio.sleep(0.01)
        self.failing -= 1
        return None if self.failing >= 0 else "OK"


@pytest.mark.parametrize(("policy", "others"), [
    ("no", {"everysec", "always"}),
    ("everysec", {"always"}),
    ("always", set()),
    ("memory", set()),
])  # fmt: skip
async def test_another_policy_is_a_stronger_one_and_is_taken_back(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, policy: Any, others: set[str]
) -> None:
    cluster = Cluster(nursery)
    cluster.add("n1")
    found = set()
    for seed in range(8):
        asked = Asked()
        plan = attrs.evolve(cluster.plan, policy=policy)
        await Meddling(cluster.world, plan, asked).change_policy(action("change policy", seed))
        await trio.sleep(30)
        if asked.commands:
            found.add(asked.commands[0][-1])
            assert set(asked.commands[1:]) == {("CONFIG", "SET", "appendfsync", policy)}
    assert found == others


async def test_a_limit_is_taken_back_as_often_as_it_takes(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    cluster = Cluster(nursery)
    cluster.add("n1")
    # What was asked for without an answer may come yet: so it is taken back until nothing is on its way any more.
    asked = Asked(failing=60)
    await Meddling(cluster.world, cluster.plan, asked).limit_memory(action("limit memory"))
    await trio.sleep(60)
    assert asked.commands[-1] == ("CONFIG", "SET", "maxmemory", 0)
    assert len(asked.commands) > 60
    count = len(asked.commands)
    await trio.sleep(60)
    assert len(asked.commands) == count


async def test_nothing_is_taken_back_from_a_node_that_has_ended(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    cluster = Cluster(nursery)
    cluster.add("n1")
    asked = Asked(failing=1000)
    await Meddling(cluster.world, cluster.plan, asked).limit_memory(action("limit memory"))
    cluster.world.die("n1", "kill")
    await trio.sleep(5)
    count = len(asked.commands)
    await trio.sleep(60)
    assert len(asked.commands) == count
