"""What the source of a move does at each event; when, says :mod:`.source_move`. Pure."""

from __future__ import annotations

import math
from enum import Enum
from typing import Final

import attrs

from .ledger import LedgerEntry
from .ledger_records import MoveRecord, MoveRole, MoveState
from .move_machine import Machine, remark
from .move_messages import (
    Aborted,
    Accepted,
    Activate,
    Activated,
    Await,
    NeedStage,
    Purged,
    Refused,
    Request,
    Sealed,
    Stage,
    StageEnd,
    Unknown,
)
from .moves import (
    LINK_SECONDS,
    REPEAT_SECONDS,
    AbortWanted,
    Action,
    Capture,
    Captured,
    LedgerChanged,
    Linked,
    LinkLost,
    Outcome,
    Quiesce,
    Recorded,
    RecordFailed,
    Refuse,
    Release,
    Report,
    Resume,
    Send,
    SetOwner,
    Settled,
    SettleSlice,
    Ship,
    ShipFailed,
    Staged,
    Tick,
)

__all__ = ["MoveOrder", "SourceState", "SourceSteps"]

_Output = list[Action]


class SourceState(Enum):
    """Where the source is."""

    ASKING = "asking"
    REQUESTING = "requesting"
    CAPTURING = "capturing"
    QUIESCING = "quiescing"
    QUIESCED = "quiesced"
    CONFIRMING = "confirming"
    FLIPPING = "flipping"
    FLIPPED = "flipped"
    RESTORING = "restoring"
    RELEASING = "releasing"
    SETTLING = "settling"
    FINISHING = "finishing"
    DONE = "done"
    ABORTING = "aborting"
    ABORTED = "aborted"
    CLOSING = "closing"
    CLOSED = "closed"
    FAILED = "failed"


@attrs.frozen
class MoveOrder:
    """What an operator wants: ``prefix`` from the node ``source`` to the node ``target`` within ``timeout`` seconds.

    ``floor`` is the highest epoch of the prefix that the source and every peer it reaches know, agreed ones included;
    ``persistent`` says that the source keeps files, ``force`` that the target need not; ``keeps_copy`` that the source
    follows the new owner afterwards. ``move_id`` is random.
    """

    move_id: str
    prefix: bytes
    source: str
    target: str
    timeout: float
    floor: int = 0
    persistent: bool = True
    force: bool = False
    keeps_copy: bool = False


# The states of a move that is off.
_OFF: Final = frozenset({SourceState.ABORTING, SourceState.ABORTED, SourceState.CLOSING, SourceState.CLOSED})


class SourceSteps(Machine[SourceState]):
    """The steps of one move at its source, and what they know."""

    def __init__(self, order: MoveOrder, state: SourceState, now: float) -> None:
        super().__init__(order.move_id, order.prefix, state)
        self.order = order
        self.epoch = 0
        self.history = 0
        self.tail = 0
        #: Whether the target has the data by following; a stage goes out otherwise.
        self.following = False
        #: Whether chunks are going out.
        self.shipping = False
        self.outcome: Outcome | None = None
        self._deadline = now + order.timeout
        self._keep = order.keeps_copy
        # What the target must hold, once that is known: keys and digest.
        self._expected: tuple[int, str] | None = None
        self._attempt = 0
        self._ship_again_at = -math.inf
        # What went out last and whole on this link; it has not been sealed yet.
        self._staged: Staged | None = None
        self._shipped = Staged(0, 0, 0, 0, 0, "")
        self._quiesced_at = math.nan
        self._window = 0.0
        # Since when there is no link; infinity while there is one.
        self._lost_at = math.inf
        # Why the move is to be aborted once the record under way is durable, and that an operator said so.
        self._unwanted = ""
        self._abort_asked = False
        # A ledger entry that puts this move behind it.
        self._overtaken: LedgerChanged | None = None
        self._reason = ""

    def record(self, state: MoveState) -> MoveRecord:
        """The record that says that the move has come to ``state``."""
        keys, digest = self._expected or (0, "")
        decision = None
        if state in (MoveState.ACTIVATED, MoveState.DONE):
            decision = MoveState.ABORTED if self.state in _OFF else MoveState.FLIPPED
        return MoveRecord(
            move_id=self.move_id,
            prefix=self.prefix,
            role=MoveRole.SOURCE,
            state=state,
            peer=self.order.target,
            epoch=self.epoch,
            history=self.history,
            tail=self.tail,
            keys=keys,
            size=self._shipped.size,
            digest=digest,
            following=self.following,
            decision=decision,
            detail=remark(self._reason),
        )

    def _notice(self, event: object, now: float) -> None:
        if isinstance(event, Linked | LinkLost):
            self._lost_at = now if isinstance(event, LinkLost) else math.inf

    # -- before the decision ----------------------------------------------------------------------------------------

    def _ask(self, event: object, now: float, output: _Output) -> None:
        order = self.order
        self._repeat_at = now + REPEAT_SECONDS
        output.append(Send(Request(self.move_id, order.floor, order.persistent, order.force)))

    def _asking_tick(self, event: Tick, now: float, output: _Output) -> None:
        if now >= self._deadline:
            self._fail(self._reason or f"{self.order.target} did not answer in time", now, output)
        elif now >= self._repeat_at:
            self._ask(event, now, output)

    def _refused(self, event: Refused, now: float, output: _Output) -> None:
        self._reason = f"{self.order.target} refused: {event.reason}"
        if not event.again:
            self._fail(self._reason, now, output)

    def _give_up(self, event: AbortWanted, now: float, output: _Output) -> None:
        self._fail(event.reason, now, output)

    def _asked_too_late(self, event: LedgerChanged, now: float, output: _Output) -> None:
        if event.epoch > self.order.floor:
            self._fail(event.reason, now, output)

    def _fail(self, reason: str, now: float, output: _Output) -> None:
        """End a move of which nothing was recorded. The target cannot have sealed anything."""
        self.state = SourceState.FAILED
        output.append(Send(Unknown(self.move_id)))
        self._report(Outcome("failed", reason), output)

    def _accepted(self, event: Accepted, now: float, output: _Output) -> None:
        if event.epoch <= self.order.floor:
            self._fail(f"{self.order.target} agreed to epoch {event.epoch}, which is not new", now, output)
            return
        self._reason = ""
        self.epoch = event.epoch
        self.following = event.following
        self._record(SourceState.REQUESTING, output, self.record(MoveState.REQUESTED))

    def _requested(self, event: Recorded, now: float, output: _Output) -> None:
        if self._unwanted:
            self._abort(self._unwanted, now, output)
            return
        self.state = SourceState.CAPTURING
        self._repeat_at = math.inf
        self._quiesced_at = now
        output += [Quiesce(self.order.target), Capture()]

    def _captured(self, event: Captured, now: float, output: _Output) -> None:
        self.history, self.tail = event.history, event.offset
        self._expected = (event.keys, event.digest)
        self._record(SourceState.QUIESCING, output, self.record(MoveState.QUIESCED))

    def _quiesced(self, event: Recorded, now: float, output: _Output) -> None:
        if self._unwanted:
            self._abort(self._unwanted, now, output)
            return
        self.state = SourceState.QUIESCED
        self._offer(event, now, output)

    def _offer(self, event: object, now: float, output: _Output) -> None:
        """Say what the target needs in order to seal."""
        self._repeat_at = now + REPEAT_SECONDS
        if self.following:
            keys, digest = self._expected or (0, "")
            output.append(Send(Await(self.move_id, self.history, self.tail, keys, digest)))
        elif self._staged is not None:
            whole = self._staged
            output.append(Send(StageEnd(self.move_id, whole.attempt, whole.chunks, whole.keys, whole.digest)))
        elif self.linked and not self.shipping:
            self._ship(now, output)

    def _ship(self, now: float, output: _Output) -> None:
        self._attempt += 1
        self._staged = None
        self.shipping = True
        self._repeat_at = self._ship_again_at = now + REPEAT_SECONDS
        output += [Send(Stage(self.move_id, self._attempt, self.history, self.tail)), Ship(self._attempt)]

    def _stage_needed(self, event: NeedStage, now: float, output: _Output) -> None:
        """Ship instead of waiting, or again; not more often than messages are said again."""
        if self.shipping and event.attempt != self._attempt:
            return
        self.following = False
        self.shipping = False
        self._staged = None
        if now >= self._ship_again_at:
            self._offer(event, now, output)

    def _went_out(self, event: Staged, now: float, output: _Output) -> None:
        if not self.shipping or event.attempt != self._attempt:
            return
        self.shipping = False
        self._staged = self._shipped = event
        self._expected = (event.keys, event.digest)
        self._repeat_at = now + REPEAT_SECONDS
        output.append(Send(StageEnd(self.move_id, event.attempt, event.chunks, event.keys, event.digest)))

    def _not_shipped(self, event: ShipFailed, now: float, output: _Output) -> None:
        if self.shipping and event.attempt == self._attempt:
            self._abort(event.reason, now, output)

    def _unlinked(self, event: LinkLost, now: float, output: _Output) -> None:
        self.shipping = False

    def _matches(self, event: Sealed) -> bool:
        """Whether the target holds exactly the slice."""
        if self.shipping or self._expected is None or (self._staged is None and not self.following):
            return False
        keys, digest = self._expected
        return event.keys == keys and (not digest or not event.digest or event.digest == digest)

    def _sealed(self, event: Sealed, now: float, output: _Output) -> None:
        if now >= self._deadline:
            self._abort(self._too_late(), now, output)
        elif self._matches(event):
            self._record(SourceState.CONFIRMING, output, self.record(MoveState.SHIPPED))

    def _quiesced_tick(self, event: Tick, now: float, output: _Output) -> None:
        if now >= self._deadline:
            self._abort(self._too_late(), now, output)
        elif now >= self.gone_at:
            self._abort(f"the link to {self.order.target} was lost before it had the whole slice", now, output)
        elif now >= self._repeat_at and not self.shipping:
            self._offer(event, now, output)

    @property
    def gone_at(self) -> float:
        """When a target that is not there any more, and cannot have sealed, is waited for no longer."""
        return math.inf if self.following or self._staged is not None else self._lost_at + LINK_SECONDS

    def _capturing_tick(self, event: Tick, now: float, output: _Output) -> None:
        if now >= self._deadline:
            self._abort(self._too_late(), now, output)

    def _too_late(self) -> str:
        doing = "come to the tail" if self.following else "take the slice"
        return f"{self.order.target} did not {doing} within {self.order.timeout:g} s"

    def _flip(self, event: Recorded, now: float, output: _Output) -> None:
        if self._unwanted or now >= self._deadline:
            self._abort(self._unwanted or self._too_late(), now, output)
        else:
            self._record(SourceState.FLIPPING, output, self.record(MoveState.FLIPPED))

    # -- what keeps the decision from being made ----------------------------------------------------------------------

    def _note(self, event: AbortWanted | LedgerChanged, now: float, output: _Output) -> None:
        """Remember, while a record is being written, what counts once it is."""
        if isinstance(event, AbortWanted):
            self._unwanted = self._unwanted or event.reason
            self._abort_asked = True
            return
        if event.epoch > self.order.floor:
            self._unwanted = self._unwanted or event.reason
        if event.epoch >= self.epoch:
            self._overtaken = event
            self._note_return(event, now, output)

    def _cannot_write(self, event: RecordFailed, now: float, output: _Output) -> None:
        self._abort(f"the move cannot be recorded: {event.reason}", now, output)

    def _abort_wanted(self, event: AbortWanted, now: float, output: _Output) -> None:
        self._abort(event.reason, now, output)

    def _refused_late(self, event: Refused, now: float, output: _Output) -> None:
        # "Ask again" was about the request, and it comes late.
        if not event.again:
            self._abort(f"{self.order.target} refused: {event.reason}", now, output)

    def _overtaken_early(self, event: LedgerChanged, now: float, output: _Output) -> None:
        if event.epoch > self.order.floor:
            self._abort(event.reason, now, output)

    def _abort(self, reason: str, now: float, output: _Output) -> None:
        self._reason = reason
        self.shipping = False
        self._record(SourceState.ABORTING, output, self.record(MoveState.ABORTED))

    def _not_aborted(self, event: RecordFailed, now: float, output: _Output) -> None:
        self._retry_later(event, now, output)
        if self.outcome is None:
            held = "" if math.isnan(self._quiesced_at) else "; writes stay refused until ABORTED is recorded"
            self._report(Outcome("failed", f"{self._reason} ({event.reason}{held})"), output)

    def _aborted(self, event: Recorded, now: float, output: _Output) -> None:
        self.state = SourceState.ABORTED
        self._close_window(now)
        output += [Resume(), Send(Aborted(self.move_id))]
        if self.outcome is None:
            self._report(Outcome("failed", self._reason, window=self._window), output)

    def _say_aborted(self, event: object, now: float, output: _Output) -> None:
        output.append(Send(Aborted(self.move_id)))

    def _purged(self, event: Purged, now: float, output: _Output) -> None:
        self._record(SourceState.CLOSING, output, self.record(MoveState.DONE))

    def _closed(self, event: Recorded, now: float, output: _Output) -> None:
        self.state = SourceState.CLOSED

    def _say_unknown(self, event: object, now: float, output: _Output) -> None:
        output.append(Send(Unknown(self.move_id)))

    # -- behind the decision ------------------------------------------------------------------------------------------

    def _flipped(self, event: Recorded, now: float, output: _Output) -> None:
        self.state = SourceState.FLIPPED
        # What went out has been sealed.
        self._staged = None
        self._mark(output)
        if self._abort_asked:
            self._too_late_to_abort(event, now, output)
        if self._overtaken is not None:
            self._activated(self._overtaken, now, output)
        else:
            self._press(event, now, output)

    def _mark(self, output: _Output) -> None:
        """Put the mark into the journal, but not behind one of a later move."""
        if self._overtaken is None or self._overtaken.epoch == self.epoch:
            output.append(Release(self.epoch, self.order.target))

    def _press(self, event: object, now: float, output: _Output) -> None:
        """Say what the target is to do next."""
        self._repeat_at = now + REPEAT_SECONDS
        if not self.shipping:
            output.append(Send(Activate(self.move_id, self.epoch, self.history, self.tail)))

    def _press_on(self, event: object, now: float, output: _Output) -> None:
        """The next thing to say, whichever of them was lost."""
        if self._staged is not None or self.shipping:
            self._repeat_at = now + REPEAT_SECONDS
            if self._staged is not None:
                self._offer(event, now, output)
        else:
            self._press(event, now, output)

    def _flipped_tick(self, event: Tick, now: float, output: _Output) -> None:
        if self.outcome is None and now >= self._deadline:
            waits = f"the move is decided, and {self.order.target} has not confirmed it yet; it goes on"
            self._report(Outcome("in doubt", waits), output)
        if now >= self._repeat_at:
            self._press_on(event, now, output)

    def _lost_there(self, event: NeedStage, now: float, output: _Output) -> None:
        """The target has lost what it had sealed: the slice is still here, and goes out again."""
        if self.shipping and event.attempt != self._attempt:
            return
        self.following = False
        self.shipping = False
        self._staged = None
        if self.linked and now >= self._ship_again_at:
            self._ship(now, output)

    def _unlinked_flipped(self, event: LinkLost, now: float, output: _Output) -> None:
        self.shipping = False
        self._staged = None

    def _not_shipped_again(self, event: ShipFailed, now: float, output: _Output) -> None:
        if event.attempt == self._attempt:
            self.shipping = False

    def _sealed_again(self, event: Sealed, now: float, output: _Output) -> None:
        if not self.shipping:
            self._staged = None
            self._press(event, now, output)

    def _refused_flipped(self, event: Refused, now: float, output: _Output) -> None:
        """It does not know the move any more, or cannot write: it is told again in a moment."""
        self.shipping = False
        self._staged = None

    def _overtaken_late(self, event: LedgerChanged, now: float, output: _Output) -> None:
        self._note(event, now, output)
        if event.epoch >= self.epoch:
            self._activated(event, now, output)

    def _activated(self, event: Activated | LedgerChanged, now: float, output: _Output) -> None:
        if event.epoch >= self.epoch:
            self.shipping = False
            self._release(now, output)

    def _release(self, now: float, output: _Output) -> None:
        entry = LedgerEntry(self.prefix, self.order.target, self.epoch, self.move_id)
        self._record(SourceState.RELEASING, output, entry, self.record(MoveState.ACTIVATED))

    def _released(self, event: Recorded, now: float, output: _Output) -> None:
        self.state = SourceState.SETTLING
        self._close_window(now)
        entry = LedgerEntry(self.prefix, self.order.target, self.epoch, self.move_id)
        # The mark again: after a restart the journal may not have it.
        self._mark(output)
        output += [SetOwner(entry), Resume(), SettleSlice(self._keep)]
        shipped = self._shipped
        outcome = Outcome("moved", "", shipped.commands, (self._expected or (0,))[0], shipped.size, self._window)
        self._report(outcome, output)

    def _settled(self, event: Settled, now: float, output: _Output) -> None:
        self._record(SourceState.FINISHING, output, self.record(MoveState.DONE))

    def _done(self, event: Recorded, now: float, output: _Output) -> None:
        self.state = SourceState.DONE

    def _say_flipped(self, event: object, now: float, output: _Output) -> None:
        output.append(Send(Activate(self.move_id, self.epoch, self.history, self.tail)))

    def _note_return(self, event: LedgerChanged, now: float, output: _Output) -> None:
        self._keep = self._keep or (event.epoch > self.epoch and event.owner == self.order.source)

    # -- for people ---------------------------------------------------------------------------------------------------

    def _too_late_to_abort(self, event: object, now: float, output: _Output) -> None:
        output.append(Refuse("the move is decided; it can only go forward"))

    def _abort_again(self, event: AbortWanted, now: float, output: _Output) -> None:
        if self.outcome is not None:
            output.append(Refuse(self.outcome.reason))

    def _no_move(self, event: AbortWanted, now: float, output: _Output) -> None:
        output.append(Refuse("no move of this prefix is in flight"))

    def _report(self, outcome: Outcome, output: _Output) -> None:
        self.outcome = outcome
        output.append(Report(outcome))

    def _close_window(self, now: float) -> None:
        if not math.isnan(self._quiesced_at):
            self._window = now - self._quiesced_at
