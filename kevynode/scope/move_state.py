"""One move of this node as its driver sees it: the machine, the connection, and what is under way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs
import trio

from ..store.staging import PrefixStaging
from .move_jobs import Arrival, KeyCount, Shipment
from .move_link import MoveLink
from .moves import Outcome
from .source_move import SourceMove, SourceState
from .target_move import TargetMove, TargetState

__all__ = ["Move", "Waiter"]

_SOURCE_ENDED: Final = frozenset({SourceState.DONE, SourceState.CLOSED, SourceState.FAILED})
_TARGET_ENDED: Final = frozenset({TargetState.ACTIVE, TargetState.DISCARDED})


#: Called once with how a move ended (or stands), or with why what was wanted of it is not done.
Waiter = Callable[[Outcome | str], None]


@attrs.define(eq=False)
class Move:
    """One move of this node, and what is under way for it."""

    machine: SourceMove | TargetMove
    peer: str
    link: MoveLink | None = None
    dialling: bool = False
    # Jobs that another one takes the place of: shipping, or collecting and checking.
    job: trio.CancelScope | None = None
    arrival: Arrival | None = None
    staging: PrefixStaging | None = None
    # What has gone out of the slice that is going out, or went out last.
    sent: Shipment | None = None
    # How many keys there are, known before writes are refused.
    count: KeyCount | None = None
    # In this run: the copy was seen at the tail, the stage was put in place, the release was marked.
    checked: bool = False
    placed: bool = False
    marked: bool = False
    has_stage: bool = True
    outcome: Outcome | None = None
    waiters: list[Waiter] = attrs.field(factory=list)
    deciders: list[Waiter] = attrs.field(factory=list)

    @property
    def prefix(self) -> bytes:
        """What moves."""
        return self.machine.prefix

    @property
    def move_id(self) -> str:
        """Its id."""
        return self.machine.move_id

    @property
    def is_ended(self) -> bool:
        """Whether nothing is left to be done or said by this node."""
        machine = self.machine
        return machine.state in (_SOURCE_ENDED if isinstance(machine, SourceMove) else _TARGET_ENDED)

    @property
    def wants_link(self) -> bool:
        """Whether to dial. A target that does not ask any more may not have heard that the move was called off."""
        return self.machine.wants_link or self.machine.state is SourceState.ABORTED

    @property
    def has_dialled(self) -> bool:
        """Whether the connection was made from here: who has dialled hangs up."""
        return self.link is not None and self.link.by_source == isinstance(self.machine, SourceMove)

    def stop_job(self) -> None:
        """End what another job takes the place of."""
        if self.job is not None:
            self.job.cancel()
            self.job = None
