"""The target's side of one move: it takes a prefix over, once its source has decided so. Pure.

What every event does in every state stands in :data:`TRANSITIONS`; the states marked with * wait for a record::

    AGREEING* ─ AGREED ─ STAGING ─ CHECKING ─ SEALING* ─ SEALED ─┬─── PLACING ─ OPENING* ─ OPEN ─ FINISHING* ─ ACTIVE
                  └─────────┴─────────┴──────────────────┤       └ COMMITTING* ┘
                                                    DISCARDING* ─ CLEARING ─ CLOSING* ─ DISCARDED

- AGREEING: the epoch is being recorded. AGREED: it is durable, and the source has been told.
- STAGING: chunks come in. CHECKING: the stage is whole, or the live copy is on its way to the tail; what is there is
  looked through and made durable. Up to here there is nothing that anybody could miss.
- SEALED: all of it is durable, and the source may have decided. From here on only two things let this node drop it: the
  source's word that it has recorded ABORTED, or a higher epoch that is active elsewhere. Silence is none, and UNKNOWN
  is none. The target asks. An operator may decide for a source that does not come back: COMMITTING is that, recorded,
  with an epoch two above the move's, so that a source that comes back all the same loses.
- PLACING: the data become this node's own. OPENING: that is being recorded, together with the ledger's entry. OPEN:
  writes are taken. ACTIVE: the mark is durable too.
- DISCARDING: ABORTED is being written; CLEARING: the stage is being dropped. DISCARDED: only the answer is left. If the
  source turns out to have flipped all the same, it begins anew from there: the source still has the data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import attrs

from .ledger import LedgerError, next_epoch
from .ledger_records import MoveRecord, MoveState
from .move_machine import MoveStatus, Row, complete
from .move_messages import (
    Aborted,
    Activate,
    Activated,
    Await,
    Chunk,
    FromSource,
    Message,
    Purged,
    Refused,
    Request,
    Stage,
    StageEnd,
    Unknown,
)
from .moves import (
    ASK_SECONDS,
    QUIET_SECONDS,
    Action,
    Checked,
    CheckFailed,
    Cleared,
    LedgerChanged,
    Linked,
    LinkLost,
    Placed,
    PlacingFailed,
    Quiesce,
    Recorded,
    RecordFailed,
    Resolve,
    Settled,
    StageBroken,
    Tick,
)
from .target_steps import TargetState, TargetSteps

__all__ = [
    "EVENTS",
    "TRANSITIONS",
    "TargetFacts",
    "TargetMove",
    "TargetState",
    "consider",
    "stray_at_target",
]


@attrs.frozen
class TargetFacts:
    """What a target must know of itself to answer a ``Request`` for ``prefix`` by the peer ``source``.

    ``is_peer``: the source is a declared peer of kind kevynode. ``owner``: who owns the prefix as this node sees it,
    None if it is not declared here. ``epoch``: the ledger's; ``highest_epoch``: of that and of what was agreed to
    before. ``other_move``: the id of another move of the prefix that is still busy here. ``dropping``: this node still
    cleans up what moved away. ``following``: it keeps a live copy. ``replica``: it copies all of another node.
    ``disk_trouble``: why it can keep nothing in its files now; it could take the prefix over, and then no writes.
    """

    node_id: str
    source: str
    prefix: bytes
    is_peer: bool
    owner: str | None
    epoch: int
    loading: bool
    dropping: bool
    persistent: bool
    following: bool
    highest_epoch: int
    other_move: str = ""
    replica: bool = False
    disk_trouble: str = ""


def consider(request: Request, facts: TargetFacts, now: float) -> tuple[TargetMove, list[Action]] | Refused:
    """Take part in a move that this node has no record of, or refuse it."""
    reason, again = _obstacle(request, facts)
    if reason:
        return Refused(request.move_id, again, reason)
    try:
        epoch = next_epoch((request.floor, facts.highest_epoch))
    except LedgerError as error:
        return Refused(request.move_id, False, str(error))
    move = TargetMove(request.move_id, facts.prefix, facts.node_id, facts.source, facts.following, now)
    return move, move._agree(epoch)


def _obstacle(request: Request, facts: TargetFacts) -> tuple[str, bool]:
    """Why the request is refused, empty if it is not, and whether that may pass soon."""
    if not facts.is_peer:
        return f"{facts.source} is no declared peer of {facts.node_id}", False
    if facts.owner is None:
        return "the prefix is not a declared scope there", False
    if facts.owner != facts.source:
        # It may not have heard of the last move yet.
        return f"by what it knows {facts.owner} owns the prefix", facts.epoch < request.floor
    if facts.replica:
        return "it is a replica", False
    if facts.loading:
        return "it is loading its data", True
    if facts.dropping:
        return "it is still cleaning up what moved away", True
    if facts.other_move:
        return f"it has not finished the move {facts.other_move} of the prefix", True
    if request.persistent and not request.force and not facts.persistent:
        return "it keeps no files, and the source does; FORCE moves the prefix all the same", False
    if facts.disk_trouble:
        return f"it cannot write its files: {facts.disk_trouble}", False
    return "", False


def stray_at_target(message: FromSource, known_epoch: int, has_data: bool) -> Message | None:
    """The answer to a message, no Request, about a move of which this node has no record; None: there is none.

    ``known_epoch`` is the ledger's of the prefix; ``has_data`` is false while this node owns the prefix and waits for
    its data. An ``Activate`` above that epoch has no answer here: build the machine with :meth:`TargetMove.recover`.
    """
    if isinstance(message, Activate):
        known = message.epoch <= known_epoch and has_data
        return Activated(message.move_id, known_epoch) if known else None
    if isinstance(message, Stage | StageEnd | Await):
        return Refused(message.move_id, False, "it has no record of the move")
    return Purged(message.move_id) if isinstance(message, Aborted) else None


class TargetMove(TargetSteps):
    """One move, at its target. Build it with :func:`consider`, :meth:`recover` or :meth:`restart`."""

    @property
    def table(self) -> Mapping[TargetState, Row]:
        """What each event does in each state."""
        return TRANSITIONS

    @classmethod
    def recover(
        cls, activate: Activate, prefix: bytes, node_id: str, source: str, now: float
    ) -> tuple[TargetMove, list[Action]]:
        """A move whose records this node has lost, and whose source has flipped: what to do first."""
        move = cls(activate.move_id, prefix, node_id, source, False, now)
        return move, move._reopen(activate)

    @classmethod
    def restart(
        cls, record: MoveRecord, node_id: str, following: bool, known_epoch: int, known_owner: str, now: float
    ) -> tuple[TargetMove, list[Action]]:
        """A move as its last record tells it, and what to do first. See ``SourceMove.restart``."""
        move = cls(record.move_id, record.prefix, node_id, record.peer, following, now)
        move.epoch, move.history, move.tail = record.epoch, record.history, record.tail
        move.following = record.following
        move._found = (record.keys, record.digest)
        move.known_epoch, move.known_owner = known_epoch, known_owner
        move._restored = True
        # Nobody has been heard: what is in doubt is asked about at once.
        move._heard_at = now - QUIET_SECONDS
        move._ask_at = now
        output: list[Action] = []
        if record.state is MoveState.DONE:
            flipped = record.decided is MoveState.FLIPPED
            move.state = TargetState.ACTIVE if flipped else TargetState.DISCARDED
        elif record.state is MoveState.AGREED:
            output = move._agree(record.epoch)
        elif record.state is MoveState.ABORTED:
            move._record(TargetState.DISCARDING, output, record)
        else:
            output.append(Quiesce(node_id))
            if record.state is MoveState.ACTIVATED:
                move._record(TargetState.OPENING, output, move._entry(), record)
            elif record.decision is MoveState.FLIPPED:
                move._committed = True
                move._record(TargetState.COMMITTING, output, record)
            else:
                move._record(TargetState.SEALING, output, record)
        return move, output

    # -- for the driver ---------------------------------------------------------------------------------------------

    @property
    def wake_at(self) -> float:
        """When to feed a ``Tick``."""
        if self.state in _WRITING or self.state is TargetState.PLACING:
            return self._retry_at
        return self._ask_at if self.state in _WAITING else math.inf

    @property
    def wants_link(self) -> bool:
        """Whether the source is to be asked and has been silent; otherwise it is the one that dials."""
        return self.state in _WAITING and self._silent

    @property
    def busy(self) -> bool:
        """Whether the move is still under way here: no other move of the prefix may begin, to or from this node."""
        return self.state not in _OVER

    def status(self, now: float) -> MoveStatus:
        """The move as people see it."""
        return MoveStatus(
            prefix=self.prefix,
            move_id=self.move_id,
            role="target",
            state=self.state.value,
            peer=self.source,
            epoch=self.epoch,
            following=self.following,
            keys=self._found[0],
            commands=0,
            size=0,
            window=0.0,
            in_doubt=self.in_doubt(now),
            detail=self._reason,
        )

    def in_doubt(self, now: float) -> bool:
        """Whether everything is there, and only the source could tell what is to become of it, but does not."""
        return self.state is TargetState.SEALED and (self._unknown or now - self._heard_at >= ASK_SECONDS)


_T = TargetState
_M = TargetSteps

_WRITING: Final = frozenset(
    {
        _T.AGREEING,
        _T.SEALING,
        _T.COMMITTING,
        _T.OPENING,
        _T.FINISHING,
        _T.DISCARDING,
        _T.CLOSING,
    }
)
# The states in which the source is to say something.
_WAITING: Final = frozenset({_T.AGREED, _T.STAGING, _T.CHECKING, _T.SEALED})
_OVER: Final = frozenset({_T.OPEN, _T.FINISHING, _T.ACTIVE, _T.DISCARDED})

_STAGES: Final = (Stage, StageEnd, Await)
_CHECKS: Final = (Checked, CheckFailed, StageBroken)
_PLACES: Final = (Placed, PlacingFailed)
_LINKS: Final = (Linked, LinkLost)
_WRITTEN: Final = (Recorded, RecordFailed)
_LATE: Final = (Settled, Cleared)
#: Everything that can happen to the target of a move.
EVENTS: Final = (
    *(Request, *_STAGES, Chunk, Activate, Aborted, Unknown),
    *(*_CHECKS, *_PLACES, *_WRITTEN, *_LATE, *_LINKS, Tick, Resolve, LedgerChanged),
)
# What does not matter while a record is being written: the source says again what it has to say. What the ledger has is
# looked at afterwards.
_MEANWHILE: Final = (
    *(Request, *_STAGES, Chunk, Activate, Aborted, Unknown),
    *(*_CHECKS, *_PLACES, *_LATE, *_LINKS, LedgerChanged),
)

#: What each event does in each state; None: nothing.
TRANSITIONS: Final[dict[TargetState, Row]] = {
    _T.AGREEING: complete(
        EVENTS,
        {Recorded: _M._agreed, RecordFailed: _M._not_agreed, Tick: _M._retry, Resolve: _M._not_now},
        _MEANWHILE,
    ),
    _T.AGREED: complete(
        EVENTS,
        {
            Request: _M._accept,
            Stage: _M._open_stage,
            StageEnd: _M._no_stage,
            Await: _M._await,
            Activate: _M._activate_without,
            Aborted: _M._called_off,
            Unknown: _M._not_known,
            Tick: _M._waiting_tick,
            Resolve: _M._resolve_unsealed,
            LedgerChanged: _M._ledger_changed,
        },
        (Chunk,), _CHECKS, _PLACES, _WRITTEN, _LATE, _LINKS,
    ),
    _T.STAGING: complete(
        EVENTS,
        {
            Stage: _M._open_stage,
            Chunk: _M._chunk,
            StageEnd: _M._stage_end,
            Activate: _M._activate_while_staging,
            Aborted: _M._called_off,
            Unknown: _M._not_known,
            StageBroken: _M._broken,
            LinkLost: _M._interrupted,
            Tick: _M._waiting_tick,
            Resolve: _M._resolve_unsealed,
            LedgerChanged: _M._ledger_changed,
        },
        (Request, Await, Checked, CheckFailed, Linked), _PLACES, _WRITTEN, _LATE,
    ),
    _T.CHECKING: complete(
        EVENTS,
        {
            Stage: _M._open_stage,
            Activate: _M._activate_early,
            Aborted: _M._called_off,
            Unknown: _M._not_known,
            Checked: _M._checked,
            CheckFailed: _M._check_failed,
            Tick: _M._waiting_tick,
            Resolve: _M._resolve_unsealed,
            LedgerChanged: _M._ledger_changed,
        },
        (Request, StageEnd, Await, Chunk, StageBroken), _PLACES, _WRITTEN, _LATE, _LINKS,
    ),
    _T.SEALING: complete(
        EVENTS,
        {Recorded: _M._sealed, RecordFailed: _M._retry_later, Tick: _M._retry, Resolve: _M._not_now},
        _MEANWHILE,
    ),
    _T.SEALED: complete(
        EVENTS,
        {
            Stage: _M._say_sealed,
            StageEnd: _M._say_sealed,
            Await: _M._say_sealed,
            Activate: _M._activate,
            Aborted: _M._called_off,
            Linked: _M._ask,
            Tick: _M._waiting_tick,
            Resolve: _M._resolve,
            LedgerChanged: _M._ledger_changed,
        },
        (Request, Chunk, Unknown, LinkLost), _CHECKS, _PLACES, _WRITTEN, _LATE,
    ),
    _T.COMMITTING: complete(
        EVENTS,
        {
            Recorded: _M._committed_now,
            RecordFailed: _M._not_committed,
            Tick: _M._retry,
            Resolve: _M._not_now,
        },
        _MEANWHILE,
    ),
    _T.PLACING: complete(
        EVENTS,
        {
            Placed: _M._placed,
            PlacingFailed: _M._not_placed,
            Aborted: _M._disown,
            Tick: _M._place_again,
            Resolve: _M._is_decided,
        },
        (Request, Chunk, Activate, Unknown, LedgerChanged), _STAGES, _CHECKS, _WRITTEN, _LATE, _LINKS,
    ),
    _T.OPENING: complete(
        EVENTS,
        {Recorded: _M._opened, RecordFailed: _M._retry_later, Tick: _M._retry, Resolve: _M._is_decided},
        _MEANWHILE,
    ),
    _T.OPEN: complete(
        EVENTS,
        {
            Stage: _M._say_activated,
            StageEnd: _M._say_activated,
            Await: _M._say_activated,
            Activate: _M._say_activated,
            Linked: _M._say_activated,
            Settled: _M._marked,
            Resolve: _M._no_move,
        },
        (Request, Chunk, Aborted, Unknown, Cleared, LinkLost, Tick, LedgerChanged), _CHECKS, _PLACES, _WRITTEN,
    ),
    _T.FINISHING: complete(
        EVENTS,
        {Recorded: _M._finished, RecordFailed: _M._retry_later, Tick: _M._retry, Resolve: _M._no_move},
        _MEANWHILE,
    ),
    _T.ACTIVE: complete(
        EVENTS,
        {
            Stage: _M._say_activated,
            StageEnd: _M._say_activated,
            Await: _M._say_activated,
            Activate: _M._say_activated,
            Resolve: _M._no_move,
        },
        (Request, Chunk, Aborted, Unknown, Tick, LedgerChanged), _CHECKS, _PLACES, _WRITTEN, _LATE, _LINKS,
    ),
    _T.DISCARDING: complete(
        EVENTS,
        {Recorded: _M._discarded, RecordFailed: _M._retry_later, Tick: _M._retry, Resolve: _M._not_now},
        _MEANWHILE,
    ),
    _T.CLEARING: complete(
        EVENTS,
        {Aborted: _M._say_purged, Cleared: _M._cleared, Resolve: _M._no_move},
        (Request, Chunk, Activate, Unknown, Settled, Tick, LedgerChanged),
        _STAGES, _CHECKS, _PLACES, _WRITTEN, _LINKS,
    ),
    _T.CLOSING: complete(
        EVENTS,
        {Recorded: _M._closed, RecordFailed: _M._retry_later, Tick: _M._retry, Resolve: _M._no_move},
        _MEANWHILE,
    ),
    _T.DISCARDED: complete(
        EVENTS,
        {
            Request: _M._say_refused,
            Stage: _M._say_refused,
            StageEnd: _M._say_refused,
            Await: _M._say_refused,
            Activate: _M._activate_anew,
            Aborted: _M._say_purged,
            Resolve: _M._no_move,
        },
        (Chunk, Unknown, Tick, LedgerChanged), _CHECKS, _PLACES, _WRITTEN, _LATE, _LINKS,
    ),
}  # fmt: skip
