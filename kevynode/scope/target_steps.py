"""What the target of a move does at each event; when, says :mod:`.target_move`. Pure."""

from __future__ import annotations

import math
from enum import Enum
from typing import Final

from .ledger import LedgerEntry
from .ledger_records import AgreedEpoch, MoveRecord, MoveRole, MoveState
from .move_machine import Machine, remark
from .move_messages import (
    Aborted,
    Accepted,
    Activate,
    Activated,
    Ask,
    Await,
    Chunk,
    FromSource,
    NeedStage,
    Purged,
    Refused,
    Sealed,
    Stage,
    StageEnd,
    Unknown,
)
from .moves import (
    ASK_SECONDS,
    QUIET_SECONDS,
    RETRY_SECONDS,
    Acquire,
    Action,
    CheckCopy,
    Checked,
    CheckFailed,
    CheckStage,
    Cleared,
    Discard,
    LedgerChanged,
    LinkLost,
    OpenStage,
    Outcome,
    Place,
    Placed,
    PlacingFailed,
    Quiesce,
    Recorded,
    RecordFailed,
    Refuse,
    Report,
    Resolve,
    Resume,
    Send,
    SetOwner,
    StageBroken,
    Tick,
    WriteChunk,
)

__all__ = ["TargetState", "TargetSteps"]

_Output = list[Action]
# What an operator's decision is above the epoch of the move.
_COMMIT_STEP: Final = 2


class TargetState(Enum):
    """Where the target is."""

    AGREEING = "agreeing"
    AGREED = "agreed"
    STAGING = "staging"
    CHECKING = "checking"
    SEALING = "sealing"
    SEALED = "sealed"
    COMMITTING = "committing"
    PLACING = "placing"
    OPENING = "opening"
    OPEN = "open"
    FINISHING = "finishing"
    ACTIVE = "active"
    DISCARDING = "discarding"
    CLEARING = "clearing"
    CLOSING = "closing"
    DISCARDED = "discarded"


class TargetSteps(Machine[TargetState]):
    """The steps of one move at its target, and what they know."""

    def __init__(self, move_id: str, prefix: bytes, node_id: str, source: str, following: bool, now: float) -> None:
        super().__init__(move_id, prefix, TargetState.AGREEING)
        self.node_id = node_id
        self.source = source
        #: The epoch that the prefix is to be owned at.
        self.epoch = 0
        self.history = 0
        self.tail = 0
        #: Whether this node keeps a live copy; and whether that, and no stage, is what it checked and sealed.
        self.keeps_copy = following
        self.following = False
        self.known_epoch = 0
        self.known_owner = ""
        self._restored = False
        # The agreed epoch has to be told with NeedStage: the source has flipped already.
        self._reopened = False
        self._attempt = 0
        self._next_chunk = 0
        self._ticket = 0
        self._expected = (0, "")
        self._found = (0, "")
        self._heard_at = now
        self._ask_at = now + ASK_SECONDS
        # It was asked, and nothing has come since. / It answers, but has no record.
        self._silent = False
        self._unknown = False
        self._committed = False
        self._disowned = False
        self._reason = ""

    def record(self, state: MoveState, decision: MoveState | None = None) -> MoveRecord:
        """The record that says that the move has come to ``state``."""
        keys, digest = self._found
        return MoveRecord(
            move_id=self.move_id,
            prefix=self.prefix,
            role=MoveRole.TARGET,
            state=state,
            peer=self.source,
            epoch=self.epoch,
            history=self.history,
            tail=self.tail,
            keys=keys,
            digest=digest,
            following=self.following,
            decision=decision,
            detail=remark(self._reason),
        )

    def _notice(self, event: object, now: float) -> None:
        if isinstance(event, FromSource):
            self._heard_at = now
            self._ask_at = now + ASK_SECONDS
            self._unknown = isinstance(event, Unknown)
            self._silent = False
        elif isinstance(event, LedgerChanged) and event.epoch >= self.known_epoch:
            self.known_epoch, self.known_owner = event.epoch, event.owner

    # -- the epoch ----------------------------------------------------------------------------------------------------

    def _agree(self, epoch: int) -> list[Action]:
        output: list[Action] = []
        self.epoch = epoch
        agreed = AgreedEpoch(self.prefix, epoch, self.move_id)
        self._record(TargetState.AGREEING, output, agreed, self.record(MoveState.AGREED))
        return output

    def _reopen(self, activate: Activate) -> list[Action]:
        self._reopened = True
        self._committed = self._disowned = False
        self._reason = ""
        self.following = False
        self.history, self.tail = activate.history, activate.offset
        return self._agree(activate.epoch)

    def _agreed(self, event: Recorded, now: float, output: _Output) -> None:
        self.state = TargetState.AGREED
        if self._overtaken:
            self._discard(self._overtaken, output)
        elif self._reopened:
            self._need("the data are not here", 0, output)
            if self._reason:
                output.append(Report(Outcome("failed", self._reason)))
        else:
            self._accept(event, now, output)

    def _accept(self, event: object, now: float, output: _Output) -> None:
        output.append(Send(Accepted(self.move_id, self.epoch, self.keeps_copy)))

    def _not_agreed(self, event: RecordFailed, now: float, output: _Output) -> None:
        if self._reopened or self._restored:
            self._retry_later(event, now, output)
            return
        self.state = TargetState.DISCARDED
        self._reason = f"it cannot record the move: {event.reason}"
        output.append(Send(Refused(self.move_id, False, self._reason)))

    # -- the data -----------------------------------------------------------------------------------------------------

    def _open_stage(self, event: Stage, now: float, output: _Output) -> None:
        if self.state in (TargetState.STAGING, TargetState.CHECKING) and event.attempt == self._attempt:
            return
        self.state = TargetState.STAGING
        self.following = False
        self._attempt = event.attempt
        self._next_chunk = 0
        self._ticket += 1
        self.history, self.tail = event.history, event.offset
        output += [Quiesce(self.node_id), OpenStage(event.attempt)]

    def _chunk(self, event: Chunk, now: float, output: _Output) -> None:
        if event.attempt != self._attempt or event.sequence < self._next_chunk:
            return
        if event.sequence == self._next_chunk:
            self._next_chunk += 1
            output.append(WriteChunk(event.data))
        else:
            self._start_over(f"chunk {event.sequence} came when {self._next_chunk} was due", output)

    def _stage_end(self, event: StageEnd, now: float, output: _Output) -> None:
        if event.attempt != self._attempt:
            self._need("that attempt did not arrive", event.attempt, output)
        elif event.chunks != self._next_chunk:
            self._start_over(f"{event.chunks} chunks were sent, {self._next_chunk} have come", output)
        else:
            self.state = TargetState.CHECKING
            self._expected = (event.keys, event.digest)
            self._ticket += 1
            output.append(CheckStage(self._ticket))

    def _no_stage(self, event: StageEnd, now: float, output: _Output) -> None:
        self._need("the stage is not here", event.attempt, output)

    def _await(self, event: Await, now: float, output: _Output) -> None:
        self.state = TargetState.CHECKING
        self.following = True
        self._attempt = 0
        self.history, self.tail = event.history, event.offset
        self._expected = (event.keys, event.digest)
        self._ticket += 1
        output += [Quiesce(self.node_id), CheckCopy(self._ticket, event.history, event.offset, bool(event.digest))]

    def _checked(self, event: Checked, now: float, output: _Output) -> None:
        if event.ticket != self._ticket:
            return
        keys, digest = self._expected
        if event.keys != keys:
            self._start_over(f"{keys} keys were announced, {event.keys} are here", output)
        elif digest and event.digest and digest != event.digest:
            self._start_over("the data are not those that were announced", output)
        else:
            self._found = (event.keys, event.digest)
            self._record(TargetState.SEALING, output, self.record(MoveState.SEALED))

    def _check_failed(self, event: CheckFailed, now: float, output: _Output) -> None:
        if event.ticket == self._ticket:
            self._start_over(event.reason, output)

    def _broken(self, event: StageBroken, now: float, output: _Output) -> None:
        self._start_over(f"the stage cannot be written: {event.reason}", output)

    def _start_over(self, reason: str, output: _Output) -> None:
        self.state = TargetState.AGREED
        self._ticket += 1
        self._need(reason, self._attempt, output)

    def _need(self, reason: str, attempt: int, output: _Output) -> None:
        output.append(Send(NeedStage(self.move_id, attempt, reason)))

    def _interrupted(self, event: LinkLost, now: float, output: _Output) -> None:
        """The rest of the stage will not come; the source begins again."""
        self.state = TargetState.AGREED

    def _sealed(self, event: Recorded, now: float, output: _Output) -> None:
        self.state = TargetState.SEALED
        if self._overtaken:
            self._discard(self._overtaken, output)
            return
        self._say_sealed(event, now, output)
        if self._restored:
            self._ask(event, now, output)

    def _say_sealed(self, event: object, now: float, output: _Output) -> None:
        output.append(Send(Sealed(self.move_id, *self._found)))

    # -- what becomes of it -------------------------------------------------------------------------------------------

    def _ask(self, event: object, now: float, output: _Output) -> None:
        self._ask_at = now + ASK_SECONDS
        self._silent = True
        output.append(Send(Ask(self.move_id)))

    def _waiting_tick(self, event: Tick, now: float, output: _Output) -> None:
        if now >= self._ask_at:
            self._ask(event, now, output)

    def _settled_elsewhere(self, event: Activate, output: _Output) -> bool:
        """Whether the prefix has an owner at that epoch or a higher one: then the move has nothing to do here."""
        if event.epoch > self.known_epoch:
            return False
        output.append(Send(Activated(self.move_id, self.known_epoch)))
        return True

    def _activate(self, event: Activate, now: float, output: _Output) -> None:
        if self._settled_elsewhere(event, output):
            self._discard("the prefix has moved on", output)
            return
        self.epoch = event.epoch
        self._place(event, now, output)

    def _place(self, event: object, now: float, output: _Output) -> None:
        self.state = TargetState.PLACING
        self._retry_at = math.inf
        output.append(Place(self.following))

    def _activate_without(self, event: Activate, now: float, output: _Output) -> None:
        """Decided, and the data are not here any more."""
        if self._settled_elsewhere(event, output):
            self._discard("the prefix has moved on", output)
            return
        if event.epoch != self.epoch:
            output += self._reopen(event)
            return
        self.history, self.tail = event.history, event.offset
        self._need("the data are not here", 0, output)

    def _activate_early(self, event: Activate, now: float, output: _Output) -> None:
        """Decided, and the data are on their way again."""
        if self._settled_elsewhere(event, output):
            self._discard("the prefix has moved on", output)

    def _activate_while_staging(self, event: Activate, now: float, output: _Output) -> None:
        """Decided, and the source does not say this while it ships: what was coming does not come any more."""
        if self._settled_elsewhere(event, output):
            self._discard("the prefix has moved on", output)
        else:
            self.state = TargetState.AGREED
            self._need("the data are not here", 0, output)

    def _activate_anew(self, event: Activate, now: float, output: _Output) -> None:
        if not self._settled_elsewhere(event, output):
            output += self._reopen(event)

    def _placed(self, event: Placed, now: float, output: _Output) -> None:
        if self._overtaken or self._disowned:
            self._discard(self._overtaken or "the source has aborted the move", output)
            return
        record = self.record(MoveState.ACTIVATED, MoveState.FLIPPED)
        self._record(TargetState.OPENING, output, self._entry(), record)

    def _not_placed(self, event: PlacingFailed, now: float, output: _Output) -> None:
        if not event.lost:
            self._retry_at = now + RETRY_SECONDS
            return
        if not self._committed:
            self._start_over(event.reason, output)
            return
        # Nothing is left to commit; if the source comes back it has the data, at the move's own epoch. That is
        # recorded: it may take writes again then, and the old record would let a later start take them from it.
        self._committed = False
        self._reopened = True
        self._reason = f"what was to be committed is lost: {event.reason}"
        output += self._agree(self.epoch - _COMMIT_STEP)

    def _disown(self, event: Aborted, now: float, output: _Output) -> None:
        """An operator has given up a source that lives, and has the prefix back: it is not too late to heed that."""
        self._disowned = self._committed

    def _place_again(self, event: Tick, now: float, output: _Output) -> None:
        if now >= self._retry_at:
            self._place(event, now, output)

    def _entry(self) -> LedgerEntry:
        return LedgerEntry(self.prefix, self.node_id, self.epoch, self.move_id)

    def _opened(self, event: Recorded, now: float, output: _Output) -> None:
        self.state = TargetState.OPEN
        if self.known_epoch <= self.epoch:
            output.append(Acquire(self.epoch, self.history, self.tail))
        output += [SetOwner(self._entry()), Resume(), Send(Activated(self.move_id, self.epoch))]
        output.append(Report(Outcome("moved", keys=self._found[0])))
        if self.known_epoch > self.epoch:
            self._marked(event, now, output)

    def _say_activated(self, event: object, now: float, output: _Output) -> None:
        output.append(Send(Activated(self.move_id, max(self.epoch, self.known_epoch))))

    def _marked(self, event: object, now: float, output: _Output) -> None:
        self._record(TargetState.FINISHING, output, self.record(MoveState.DONE, MoveState.FLIPPED))

    def _finished(self, event: Recorded, now: float, output: _Output) -> None:
        self.state = TargetState.ACTIVE

    # -- giving up ----------------------------------------------------------------------------------------------------

    @property
    def _overtaken(self) -> str:
        """Why the move is pointless: a higher epoch is active, or another node is at this one; empty if it is not."""
        if self.known_epoch > self.epoch or (self.known_epoch == self.epoch and self.known_owner != self.node_id):
            return f"{self.known_owner} owns the prefix by epoch {self.known_epoch}"
        return ""

    def _ledger_changed(self, event: LedgerChanged, now: float, output: _Output) -> None:
        if self._overtaken:
            self._discard(self._overtaken, output)

    def _called_off(self, event: Aborted, now: float, output: _Output) -> None:
        self._discard("the source aborted the move", output)

    def _not_known(self, event: Unknown, now: float, output: _Output) -> None:
        """Nothing was sealed, so nothing can have been decided."""
        self._discard("the source has no record of the move", output)

    def _discard(self, reason: str, output: _Output) -> None:
        self._reason = reason
        self._ticket += 1
        self._record(TargetState.DISCARDING, output, self.record(MoveState.ABORTED, MoveState.ABORTED))

    def _discarded(self, event: Recorded, now: float, output: _Output) -> None:
        self.state = TargetState.CLEARING
        output += [Discard(), Resume(), Send(Purged(self.move_id)), Report(Outcome("failed", self._reason))]

    def _say_purged(self, event: object, now: float, output: _Output) -> None:
        output.append(Send(Purged(self.move_id)))

    def _cleared(self, event: Cleared, now: float, output: _Output) -> None:
        self._record(TargetState.CLOSING, output, self.record(MoveState.DONE, MoveState.ABORTED))

    def _closed(self, event: Recorded, now: float, output: _Output) -> None:
        self.state = TargetState.DISCARDED

    def _say_refused(self, event: object, now: float, output: _Output) -> None:
        output.append(Send(Refused(self.move_id, False, f"the move is off here: {self._reason or 'aborted'}")))

    # -- for people ---------------------------------------------------------------------------------------------------

    def _resolve_unsealed(self, event: Resolve, now: float, output: _Output) -> None:
        if event.commit:
            output.append(Refuse("this node does not have all of the data: there is nothing to commit"))
        else:
            self._discard("aborted by an operator", output)

    def _resolve(self, event: Resolve, now: float, output: _Output) -> None:
        is_heard = now - self._heard_at < QUIET_SECONDS
        if is_heard and not self._unknown:
            output.append(Refuse(f"{self.source} answers, and decides itself"))
        elif is_heard and event.commit:
            # It may have its scope back, and take writes of it: there would be two writers until it hears of this.
            knows = f"{self.source} answers, and has no record of the move"
            output.append(Refuse(f"{knows}: it goes on as the writer; ABORT, or stop it first"))
        elif event.commit:
            self.epoch += _COMMIT_STEP
            self._committed = True
            self._reason = "committed by an operator"
            agreed = AgreedEpoch(self.prefix, self.epoch, self.move_id)
            self._record(TargetState.COMMITTING, output, agreed, self.record(MoveState.SEALED, MoveState.FLIPPED))
        else:
            self._discard("aborted by an operator", output)

    def _committed_now(self, event: Recorded, now: float, output: _Output) -> None:
        if self._overtaken:
            self._discard(self._overtaken, output)
        else:
            self._place(event, now, output)

    def _not_committed(self, event: RecordFailed, now: float, output: _Output) -> None:
        if self._restored:
            self._retry_later(event, now, output)
            return
        self.state = TargetState.SEALED
        self.epoch -= _COMMIT_STEP
        self._committed = False
        self._reason = ""
        output.append(Refuse(f"that cannot be recorded: {event.reason}"))

    def _not_now(self, event: Resolve, now: float, output: _Output) -> None:
        output.append(Refuse("a step of the move is being recorded; try again"))

    def _is_decided(self, event: Resolve, now: float, output: _Output) -> None:
        output.append(Refuse("the move is decided; it can only go forward"))

    def _no_move(self, event: Resolve, now: float, output: _Output) -> None:
        output.append(Refuse("no move of this prefix is in doubt here"))
