"""Nodes that are killed at any moment of moves: nothing that was confirmed is lost, done twice, or left in two places.

Each round has a seed of its own, which its name tells; four are run. For hundreds, and for others::

    KEVYNODE_CRASH_ROUNDS=300 KEVYNODE_CRASH_SEED=1000 python -m pytest tests/e2e/test_move_crashes.py

runs 300 rounds from seed 1000 on. A kill hits another instruction each time, so a seed that failed may have to be run
some times: the data directories and logs that a failure leaves behind say more.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from e2e.crashing import seeds, told
from e2e.moving_nodes import NAMES, PREFIX, Nodes, Writer, is_refusal, until

#: Moves in a round.
MOVES: Final = 3
#: What a node writes down in a move.
STATES: Final = ("REQUESTED", "AGREED", "QUIESCED", "SEALED", "SHIPPED", "FLIPPED", "ACTIVATED", "DONE", "ABORTED")

pytestmark = pytest.mark.slow


async def moment(nodes: Nodes, source: str, target: str) -> None:
    """Let a random time pass in a move, or wait until somebody has written down a random record of it."""
    draw = nodes.draw
    if draw.random() < 0.4:
        await trio.sleep(draw.uniform(0, 0.15))
        return
    who = nodes.running[draw.choice((source, target))]
    record = f"state={draw.choice(STATES)} "
    before = who.log().count(record)
    with trio.move_on_after(1.0):
        while who.log().count(record) == before:  # noqa: ASYNC110  another process writes it
            await trio.sleep(0.001)


async def one_move(nodes: Nodes, nursery: trio.Nursery, answers: list[Any]) -> None:
    """Begin a move, kill nodes in it, and have them come back."""
    draw = nodes.draw
    await until(lambda: len(nodes.running) == 3, "three nodes")
    source = await nodes.owner(draw.choice(NAMES))
    target = draw.choice([name for name in NAMES if name != source])
    (third,) = set(NAMES) - {source, target}
    victims = draw.choice(((source,), (target,), (source, target), (third,), (target, third), ()))
    with told(f"{source} to {target}, killed: {victims}"):
        nursery.start_soon(nodes.move, source, target, answers)
        await moment(nodes, source, target)
        await nodes.kill(*victims)
        for name in sorted(victims, key=lambda _: draw.random()):
            await trio.sleep(draw.choice((0.0, 0.0, 0.5, 2.5)))
            await nodes.start(name)
            if draw.random() < 0.2:
                # In the midst of what it has to make up for.
                await trio.sleep(draw.uniform(0, 0.3))
                await nodes.kill(name)
                await nodes.start(name)


async def written(writers: list[Writer], more: int) -> None:
    """Wait until each of them has been told of so many more writes."""
    goals = [len(writer.confirmed) + more for writer in writers]

    def are_there() -> bool:
        return all(len(writer.confirmed) >= goal for writer, goal in zip(writers, goals, strict=True))

    await until(are_there, f"{more} writes of each client")


@pytest.mark.parametrize("seed", seeds(4))
def test_nothing_confirmed_is_lost_in_a_move(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    answers: list[Any] = []

    async def main(nodes: Nodes) -> None:
        await nodes.start(*NAMES)
        await nodes.rest()
        await nodes.fill()
        writers = [Writer(nodes, prefix, number) for number, prefix in enumerate((PREFIX, PREFIX, PREFIX, "b:"))]
        async with trio.open_nursery() as clients:
            for writer in writers:
                clients.start_soon(writer.run)
            await written(writers, 5)
            async with trio.open_nursery() as moves:
                for _ in range(MOVES):
                    await one_move(nodes, moves, answers)
                    await written(writers, draw.choice((1, 20, 50)))
            await nodes.rest()
            await written(writers, 5)
            for writer in writers:
                writer.stop()
        owner = await nodes.rest()
        for writer in writers:
            await writer.check(nodes, owner if writer.list.startswith(PREFIX) else "bert")
        await nodes.compare(owner)
        for name in NAMES:
            nodes.check_log(name)
        # Everybody is there: now a move comes to its end, and so it is known to everybody.
        target = draw.choice([name for name in NAMES if name != owner])
        await nodes.move(owner, target, answers)
        assert str(answers[-1]).startswith("OK "), answers[-1]
        assert await nodes.rest() == target
        await nodes.compare(target)

    with Nodes(draw, tmp_path) as nodes, told(nodes.policies, f"copies: {nodes.copies}", tmp_path):
        try:
            trio.run(main, nodes)
        except BaseException:
            nodes.keep_logs()
            raise
        assert all(answer is None or str(answer).startswith("OK ") or is_refusal(answer) for answer in answers), answers
