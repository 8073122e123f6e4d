"""Looks at the records of moves as nodes write them: who may decide what, and when."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from sim.world import Life, World

from kevynode.scope.ledger_records import MoveRecord, MoveRole, MoveState

__all__ = ["Records"]


class Records:
    """Checks at each record that it may be there.

    A source flips only what its target has sealed. A target that has sealed gives up only if the source has recorded
    that the move is off, if the prefix has an owner at that epoch or a later one, or if an operator says so.
    """

    def __init__(self, world: World) -> None:
        #: Called with the node and each record of a move once that is durable, and before the node acts on it.
        self.on_record: list[Callable[[Life, MoveRecord], object]] = []
        #: Moves that an operator has decided, by prefix.
        self.resolved: set[bytes] = set()
        self.looked = 0
        #: By prefix, the latest epoch at which somebody has opened it.
        self.opened: Mapping[bytes, int] = {}
        self._world = world
        self._seen: dict[str, set[tuple[MoveRole, MoveState]]] = {}
        self._epochs: dict[bytes, int] = {}
        world.on_birth.append(self._born)

    def _born(self, life: Life) -> None:
        member = None if life.node is None else life.node.member
        if member is not None:
            # What the coordinator gives to the keeper once it has loaded.
            coordinator = member.coordinator
            coordinator._recorded = partial(self._written, life, coordinator._recorded)  # type: ignore[method-assign]

    def _written(self, life: Life, take: Callable[[Any], None], records: Iterable[Any]) -> None:
        if not life.dead:
            for record in records:
                if isinstance(record, MoveRecord):
                    self._look(life, record)
                    for told in tuple(self.on_record):
                        told(life, record)
        take(records)

    def _look(self, life: Life, record: MoveRecord) -> None:
        self.looked += 1
        move, role, state = record.move_id, record.role, record.state
        if role is MoveRole.SOURCE and state is MoveState.FLIPPED and not self._is(move, MoveRole.TARGET, "sealed"):
            self._world.fail(f"moves: {life.name} flips {record.prefix!r}, and {record.peer} has not sealed it")
        if role is MoveRole.TARGET and state is MoveState.ABORTED and self._was_sealed(move):
            self._check_given_up(life, record)
        if role is MoveRole.TARGET and state is MoveState.ACTIVATED:
            self._epochs[record.prefix] = max(record.epoch, self._epochs.get(record.prefix, 0))
        self._seen.setdefault(move, set()).add((role, state))

    def _was_sealed(self, move: str) -> bool:
        return (MoveRole.TARGET, MoveState.SEALED) in self._seen.get(move, ())

    def _check_given_up(self, life: Life, record: MoveRecord) -> None:
        is_off = self._is(record.move_id, MoveRole.SOURCE, "off")
        # Who had lost its disk opens above all epochs that anybody knows of, this one too.
        latest = max(self._epochs.get(record.prefix, 0), self.opened.get(record.prefix, 0))
        overtaken = latest >= record.epoch
        if not is_off and not overtaken and record.prefix not in self.resolved:
            self._world.fail(
                f"moves: {life.name} gives up {record.prefix!r}, which it has sealed, and nobody has called it off"
            )

    def _is(self, move: str, role: MoveRole, what: str) -> bool:
        """Whether a move was seen to be sealed, or called off, or is by what nodes have in memory from their files."""
        states = {state for found, state in self._seen.get(move, ()) if found is role}
        for life in self._world.lives.values():
            member = None if life.node is None else life.node.member
            record = None if member is None else member.keeper.state.moves.get(move)
            if record is not None and record.role is role:
                states.add(record.state)
                if record.decided is not None:
                    states.add(record.decided)
        if what == "off":
            return MoveState.ABORTED in states
        return bool(states & {MoveState.SEALED, MoveState.ACTIVATED, MoveState.DONE})
