"""Two nodes that move a prefix back and forth, over a network and disks that fail in every way.

After every step no two nodes take writes of the prefix, and whoever takes one holds every write that was acknowledged
before. In the end everything works again for a while: then every move must be over, and exactly one node takes writes.
"""

from __future__ import annotations

import pytest
from support.move_world import World


def run(seed: int, rough: bool, steps: int = 400) -> World:
    world = World(seed, rough)
    try:
        world.run(steps)
    except Exception as error:
        error.add_note(f"seed {seed}, {world.weather}\n" + "\n".join(world.trace[-60:]))
        raise
    return world


@pytest.mark.parametrize("rough", [False, True])
def test_no_write_is_lost_and_no_two_nodes_write(rough: bool) -> None:
    moved = 0
    for seed in range(600 if rough else 50):
        world = run(seed, rough)
        moved += sum(outcome.kind == "moved" for outcome in world.reports)
    assert moved > 20
