"""Two nodes that move a prefix back and forth, over a network and disks that fail in every way.

After every step no two nodes take writes of the prefix, and whoever takes one holds every write that was acknowledged
before. In the end everything works again for a while: then every move must be over, and exactly one node takes writes.
"""

from __future__ import annotations

from itertools import product
from typing import Final, Literal

import attrs
import pytest
from support.move_world import Trap, World

from kevynode.scope.ledger_records import MoveRole, MoveState


def run(seed: int, rough: bool, trap: Trap | None = None, steps: int = 400) -> World:
    world = World(seed, rough, trap)
    if trap is not None and trap.state is MoveState.ABORTED:
        # That is what becomes of a move that an operator calls off.
        world.weather = attrs.evolve(world.weather, operator=0.05)
    try:
        world.run(steps)
    except Exception as error:
        error.add_note(f"seed {seed}, {world.weather}, {trap}\n" + "\n".join(world.trace[-60:]))
        raise
    return world


@pytest.mark.slow
@pytest.mark.parametrize("rough", [False, True])
def test_no_write_is_lost_and_no_two_nodes_write(rough: bool) -> None:
    moved = 0
    for seed in range(500 if rough else 50):
        world = run(seed, rough)
        moved += sum(outcome.kind == "moved" for outcome in world.reports)
    assert moved > 20


RECORDS = {
    MoveRole.SOURCE: "REQUESTED QUIESCED SHIPPED FLIPPED ABORTED ACTIVATED DONE",
    MoveRole.TARGET: "AGREED SEALED ACTIVATED ABORTED DONE",
}


_WRITTEN: Final[tuple[Literal["durable", "lost", "unsure"], ...]] = ("durable", "lost", "unsure")
_CRASHES: Final[tuple[Literal["writer", "other", "both", "none"], ...]] = ("writer", "other", "both", "none")


def traps(role: MoveRole, state: MoveState) -> list[Trap]:
    """Every way in which the writing of a record can go wrong, or be the last thing for a while."""
    endings = product(_WRITTEN, (True, False), _CRASHES, (True, False), (True, False))
    # Whoever lives on is told.
    return [Trap(role, state, *ending) for ending in endings if ending[1] or ending[2] in ("writer", "both")]


@pytest.mark.slow
@pytest.mark.parametrize(("role", "state"), [(role, state) for role in RECORDS for state in RECORDS[role].split()])
def test_every_record_may_be_the_last_one(role: MoveRole, state: str) -> None:
    sprung = 0
    for seed, trap in enumerate(traps(role, MoveState(state))):
        world = run(seed, False, trap)
        sprung += world.trap is None
    assert sprung
