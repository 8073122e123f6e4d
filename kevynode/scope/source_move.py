"""The source's side of one move: it gives a prefix away, and it alone decides whether it has. Pure.

What every event does in every state stands in :data:`TRANSITIONS`; the states marked with * wait for a record::

    ASKING ─ REQUESTING* ─ CAPTURING ─ QUIESCING* ─ QUIESCED ─ CONFIRMING* ─ FLIPPING* ─┬─ FLIPPED ─ RELEASING*
      │           └────────────┴───────────┴───────────┴───────────┴───────────┤        │               │
    FAILED                                                                 ABORTING*   RESTORING*    SETTLING
                                                                               │       (a restart)      │
                                                                            ABORTED                 FINISHING*
                                                                               │                        │
                                                                           CLOSING* ─ CLOSED           DONE

- ASKING: the target is asked whether it can take the prefix, and at which epoch. Nothing is recorded yet.
- REQUESTING: writes still pass. CAPTURING: they do not from here on; the tail is being found. QUIESCING: it is being
  recorded.
- QUIESCED: the stage goes out, or a target that follows comes to the tail, until the target has SEALED what it has.
- CONFIRMING: SHIPPED is being written. Up to here a timeout, a refusal, an operator or a restart aborts.
- FLIPPING: the single decision is being written. If that fails nobody knows what the file says, so writes stay refused
  until ABORTED is durable, which nothing contradicts: nobody was told of FLIPPED.
- FLIPPED: only forward, whatever comes. The target is told until it says that it has activated, and gets the stage
  again if it has lost it. RESTORING makes sure that a FLIPPED that was read from a file is on the disk.
- RELEASING, SETTLING, FINISHING: the target has it; the slice is dropped or becomes a copy; DONE.
- ABORTING: writes resume once ABORTED is durable, and only then is anybody told. ABORTED: until the target has purged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from .ledger_records import MoveRecord, MoveState
from .move_machine import MoveStatus, Row, complete
from .move_messages import (
    Accepted,
    Activated,
    Ask,
    FromTarget,
    Message,
    NeedStage,
    Purged,
    Refused,
    Sealed,
    Unknown,
)
from .moves import (
    AbortWanted,
    Action,
    Captured,
    LedgerChanged,
    Linked,
    LinkLost,
    Quiesce,
    Recorded,
    RecordFailed,
    Settled,
    ShipFailed,
    Staged,
    Tick,
)
from .source_steps import MoveOrder, SourceState, SourceSteps

__all__ = ["EVENTS", "TRANSITIONS", "MoveOrder", "SourceMove", "SourceState", "stray_at_source"]


class SourceMove(SourceSteps):
    """One move, at its source. Build it with :meth:`begin` or :meth:`restart`."""

    @property
    def table(self) -> Mapping[SourceState, Row]:
        """What each event does in each state."""
        return TRANSITIONS

    @classmethod
    def begin(cls, order: MoveOrder, now: float) -> tuple[SourceMove, list[Action]]:
        """A new move, and what to do first."""
        move = cls(order, SourceState.ASKING, now)
        output: list[Action] = []
        move._ask(None, now, output)
        return move, output

    @classmethod
    def restart(
        cls, record: MoveRecord, order: MoveOrder, known_epoch: int, known_owner: str, now: float
    ) -> tuple[SourceMove, list[Action]]:
        """A move as its last record tells it, and what to do first. Of ``order`` the ids and ``keeps_copy`` count.

        ``known_epoch`` and ``known_owner`` are what the ledger says of the prefix (0: nothing).
        """
        move = cls(order, SourceState.DONE, now)
        move.epoch, move.history, move.tail = record.epoch, record.history, record.tail
        move.following = record.following
        if record.digest or record.keys:
            move._expected = (record.keys, record.digest)
        move._deadline = now
        output: list[Action] = []
        if record.state is MoveState.DONE:
            move.state = SourceState.DONE if record.decided is MoveState.FLIPPED else SourceState.CLOSED
            return move, output
        output.append(Quiesce(order.target))
        if known_epoch:
            move._note(LedgerChanged(known_epoch, known_owner), now, output)
        if record.state is MoveState.ACTIVATED:
            move._release(now, output)
        elif record.state is MoveState.FLIPPED:
            move._record(SourceState.RESTORING, output, record)
        else:
            move._abort(record.detail or "the source was restarted", now, output)
        return move, output

    # -- for the driver ---------------------------------------------------------------------------------------------

    @property
    def wake_at(self) -> float:
        """When to feed a ``Tick``."""
        if self.state in _WRITING:
            return self._retry_at
        if self.state is SourceState.QUIESCED:
            return min(self._deadline, self._repeat_at, self.gone_at)
        if self.state in (SourceState.ASKING, SourceState.CAPTURING):
            return min(self._deadline, self._repeat_at)
        if self.state is SourceState.FLIPPED:
            return self._repeat_at if self.outcome else min(self._deadline, self._repeat_at)
        return math.inf

    @property
    def wants_link(self) -> bool:
        """Whether there is something to say that cannot wait until the target asks."""
        return self.state in _TALKING

    @property
    def busy(self) -> bool:
        """Whether the move is still under way here: no other move of the prefix may begin, to or from this node."""
        return self.state not in _OVER

    def status(self, now: float) -> MoveStatus:
        """The move as people see it."""
        shipped = self._shipped
        since = 0.0 if math.isnan(self._quiesced_at) else now - self._quiesced_at
        return MoveStatus(
            prefix=self.prefix,
            move_id=self.move_id,
            role="source",
            state=self.state.value,
            peer=self.order.target,
            epoch=self.epoch,
            following=self.following,
            keys=(self._expected or (0,))[0],
            commands=shipped.commands,
            size=shipped.size,
            window=self._window or (since if self.busy else 0.0),
            in_doubt=self.outcome is not None and self.outcome.kind == "in doubt",
            detail=self._reason,
            sent_keys=shipped.keys,
        )

    @property
    def decided(self) -> bool:
        """Whether it is past the point of no return."""
        return self.state in _FORWARD


def stray_at_source(message: FromTarget) -> Message | None:
    """The answer to a message about a move of which this node, as its source, has no record; None: there is none."""
    return None if isinstance(message, Activated | Purged | Refused) else Unknown(message.move_id)


_S = SourceState
_M = SourceSteps

_WRITING: Final = frozenset(
    {
        _S.REQUESTING,
        _S.QUIESCING,
        _S.CONFIRMING,
        _S.FLIPPING,
        _S.RESTORING,
        _S.RELEASING,
        _S.FINISHING,
        _S.ABORTING,
        _S.CLOSING,
    }
)
_TALKING: Final = frozenset(
    {_S.ASKING, _S.REQUESTING, _S.CAPTURING, _S.QUIESCING, _S.QUIESCED, _S.CONFIRMING, _S.FLIPPING, _S.FLIPPED}
)
_OVER: Final = frozenset({_S.DONE, _S.ABORTED, _S.CLOSING, _S.CLOSED, _S.FAILED})
_FORWARD: Final = frozenset({_S.FLIPPED, _S.RESTORING, _S.RELEASING, _S.SETTLING, _S.FINISHING, _S.DONE})

_OFFERS: Final = (Accepted, NeedStage, Sealed)
_ANSWERS: Final = (Activated, Purged)
_DATA: Final = (Captured, Staged, ShipFailed, Settled)
_LINKS: Final = (Linked, LinkLost)
_WRITTEN: Final = (Recorded, RecordFailed)
#: Everything that can happen to the source of a move.
EVENTS: Final = (*_OFFERS, *_ANSWERS, Ask, Refused, *_DATA, *_LINKS, *_WRITTEN, Tick, AbortWanted, LedgerChanged)
# What does not matter while a record is being written: a message is said again, and a link is looked at afterwards.
_MEANWHILE: Final = (*_OFFERS, *_ANSWERS, Ask, Refused, *_DATA, Linked)

#: What each event does in each state; None: nothing.
TRANSITIONS: Final[dict[SourceState, Row]] = {
    _S.ASKING: complete(
        EVENTS,
        {
            Accepted: _M._accepted,
            Refused: _M._refused,
            Linked: _M._ask,
            Ask: _M._ask,
            Tick: _M._asking_tick,
            AbortWanted: _M._give_up,
            LedgerChanged: _M._asked_too_late,
        },
        (NeedStage, Sealed, LinkLost), _ANSWERS, _DATA, _WRITTEN,
    ),
    _S.REQUESTING: complete(
        EVENTS,
        {Recorded: _M._requested, RecordFailed: _M._cannot_write, AbortWanted: _M._note, LedgerChanged: _M._note},
        _MEANWHILE, (LinkLost, Tick),
    ),
    _S.CAPTURING: complete(
        EVENTS,
        {
            Captured: _M._captured,
            Refused: _M._refused_late,
            Tick: _M._capturing_tick,
            AbortWanted: _M._abort_wanted,
            LedgerChanged: _M._overtaken_early,
        },
        _OFFERS, _ANSWERS, _LINKS, _WRITTEN, (Ask, Staged, ShipFailed, Settled),
    ),
    _S.QUIESCING: complete(
        EVENTS,
        {Recorded: _M._quiesced, RecordFailed: _M._cannot_write, AbortWanted: _M._note, LedgerChanged: _M._note},
        _MEANWHILE, (LinkLost, Tick),
    ),
    _S.QUIESCED: complete(
        EVENTS,
        {
            NeedStage: _M._stage_needed,
            Sealed: _M._sealed,
            Refused: _M._refused_late,
            Ask: _M._offer,
            Staged: _M._went_out,
            ShipFailed: _M._not_shipped,
            Linked: _M._offer,
            LinkLost: _M._unlinked,
            Tick: _M._quiesced_tick,
            AbortWanted: _M._abort_wanted,
            LedgerChanged: _M._overtaken_early,
        },
        _ANSWERS, _WRITTEN, (Accepted, Captured, Settled),
    ),
    _S.CONFIRMING: complete(
        EVENTS,
        {
            Recorded: _M._flip,
            RecordFailed: _M._cannot_write,
            LinkLost: _M._unlinked,
            AbortWanted: _M._note,
            LedgerChanged: _M._note,
        },
        _MEANWHILE, (Tick,),
    ),
    _S.FLIPPING: complete(
        EVENTS,
        {
            Recorded: _M._flipped,
            RecordFailed: _M._cannot_write,
            LinkLost: _M._unlinked,
            AbortWanted: _M._note,
            LedgerChanged: _M._note,
        },
        _MEANWHILE, (Tick,),
    ),
    _S.RESTORING: complete(
        EVENTS,
        {
            Recorded: _M._flipped,
            RecordFailed: _M._retry_later,
            Tick: _M._retry,
            AbortWanted: _M._too_late_to_abort,
            LedgerChanged: _M._note,
        },
        _MEANWHILE, (LinkLost,),
    ),
    _S.FLIPPED: complete(
        EVENTS,
        {
            NeedStage: _M._lost_there,
            Sealed: _M._sealed_again,
            Activated: _M._activated,
            Refused: _M._refused_flipped,
            Ask: _M._press,
            Staged: _M._went_out,
            ShipFailed: _M._not_shipped_again,
            Linked: _M._press,
            LinkLost: _M._unlinked_flipped,
            Tick: _M._flipped_tick,
            AbortWanted: _M._too_late_to_abort,
            LedgerChanged: _M._overtaken_late,
        },
        _WRITTEN, (Accepted, Purged, Captured, Settled),
    ),
    _S.RELEASING: complete(
        EVENTS,
        {
            Recorded: _M._released,
            RecordFailed: _M._retry_later,
            Tick: _M._retry,
            AbortWanted: _M._too_late_to_abort,
            LedgerChanged: _M._note_return,
        },
        _MEANWHILE, (LinkLost,),
    ),
    _S.SETTLING: complete(
        EVENTS,
        {Settled: _M._settled, Ask: _M._say_flipped, AbortWanted: _M._too_late_to_abort},
        _OFFERS, _ANSWERS, _LINKS, _WRITTEN, (Refused, Captured, Staged, ShipFailed, Tick, LedgerChanged),
    ),
    _S.FINISHING: complete(
        EVENTS,
        {
            Recorded: _M._done,
            RecordFailed: _M._retry_later,
            Tick: _M._retry,
            AbortWanted: _M._too_late_to_abort,
        },
        _MEANWHILE, (LinkLost, LedgerChanged),
    ),
    _S.DONE: complete(
        EVENTS,
        {Ask: _M._say_flipped, AbortWanted: _M._no_move},
        _OFFERS, _ANSWERS, _DATA, _LINKS, _WRITTEN, (Refused, Tick, LedgerChanged),
    ),
    _S.ABORTING: complete(
        EVENTS,
        {Recorded: _M._aborted, RecordFailed: _M._not_aborted, Tick: _M._retry, AbortWanted: _M._abort_again},
        _MEANWHILE, (LinkLost, LedgerChanged),
    ),
    _S.ABORTED: complete(
        EVENTS,
        {
            Accepted: _M._say_aborted,
            NeedStage: _M._say_aborted,
            Sealed: _M._say_aborted,
            Ask: _M._say_aborted,
            Linked: _M._say_aborted,
            Purged: _M._purged,
            AbortWanted: _M._no_move,
        },
        _DATA, _WRITTEN, (Activated, Refused, LinkLost, Tick, LedgerChanged),
    ),
    _S.CLOSING: complete(
        EVENTS,
        {Recorded: _M._closed, RecordFailed: _M._retry_later, Tick: _M._retry, AbortWanted: _M._no_move},
        _MEANWHILE, (LinkLost, LedgerChanged),
    ),
    _S.CLOSED: complete(
        EVENTS,
        {
            Accepted: _M._say_aborted,
            NeedStage: _M._say_aborted,
            Sealed: _M._say_aborted,
            Ask: _M._say_aborted,
            AbortWanted: _M._no_move,
        },
        _ANSWERS, _DATA, _LINKS, _WRITTEN, (Refused, Tick, LedgerChanged),
    ),
    _S.FAILED: complete(
        EVENTS,
        {
            Accepted: _M._say_unknown,
            NeedStage: _M._say_unknown,
            Sealed: _M._say_unknown,
            Ask: _M._say_unknown,
            AbortWanted: _M._no_move,
        },
        _ANSWERS, _DATA, _LINKS, _WRITTEN, (Refused, Tick, LedgerChanged),
    ),
}  # fmt: skip
