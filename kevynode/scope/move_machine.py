"""What both machines of a move are made of: a state, a table that is complete, and records that have to be written."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, Generic, TypeAlias, TypeVar

import attrs

from .ledger import LedgerEntry
from .ledger_records import AgreedEpoch, MoveRecord
from .ledger_text import DETAIL_LIMIT
from .moves import RETRY_SECONDS, Action, Linked, LinkLost, Record, RecordFailed, Tick

__all__ = ["Machine", "MoveStatus", "Row", "complete", "remark"]


@attrs.frozen
class MoveStatus:
    """One move as MOVE-SCOPE STATUS shows it. ``size`` in bytes, ``window`` (without writes) in seconds."""

    prefix: bytes
    move_id: str
    role: str
    state: str
    peer: str
    epoch: int
    following: bool
    keys: int
    commands: int
    size: int
    window: float
    in_doubt: bool
    detail: str = ""
    # How many keys have gone out of the slice, where one is shipped.
    sent_keys: int = 0


S = TypeVar("S", bound=Enum)
# A step takes the machine, the event, the time and the list that its actions go to; None: the event changes nothing.
Step: TypeAlias = Any
Row: TypeAlias = Mapping[type, Step]


def complete(events: Iterable[type], steps: Mapping[type, Step], *ignored: Iterable[type]) -> Row:
    """A row of a table: ``steps``, and None for what is ``ignored``. ValueError unless each event is in it once."""
    without = [event for group in ignored for event in group]
    if sorted(event.__name__ for event in (*steps, *without)) != sorted(event.__name__ for event in events):
        raise ValueError("a row of a table must have each event once")
    return {**dict.fromkeys(without), **steps}


def remark(text: str) -> str:
    """``text`` as a record takes it: one that is too long loses its end."""
    return text.encode("utf-8", "replace")[:DETAIL_LIMIT].decode("utf-8", "ignore")


class Machine(ABC, Generic[S]):
    """One side of one move. Not thread-safe; never blocks."""

    def __init__(self, move_id: str, prefix: bytes, state: S) -> None:
        self.move_id = move_id
        self.prefix = prefix
        self.state = state
        #: Whether there is a connection to the other node.
        self.linked = False
        self._records: tuple[LedgerEntry | AgreedEpoch | MoveRecord, ...] = ()
        self._retry_at = math.inf
        self._repeat_at = math.inf

    @property
    @abstractmethod
    def table(self) -> Mapping[S, Row]:
        """What each event does in each state; complete."""

    def handle(self, event: Any, now: float) -> list[Action]:
        """What to do about ``event``, in order. A message of another move changes nothing."""
        output: list[Action] = []
        if getattr(event, "move_id", self.move_id) != self.move_id:
            return output
        if isinstance(event, Linked):
            self.linked = True
        elif isinstance(event, LinkLost):
            self.linked = False
        self._notice(event, now)
        step = self.table[self.state][type(event)]
        if step is not None:
            step(self, event, now, output)
        return output

    def _notice(self, event: Any, now: float) -> None:
        """See every event before its step."""

    def _record(self, state: S, output: list[Action], *records: LedgerEntry | AgreedEpoch | MoveRecord) -> None:
        """Go into a state in which ``records`` are being written."""
        self.state = state
        self._records = records
        self._retry_at = math.inf
        output.append(Record(records))

    def _retry_later(self, event: RecordFailed, now: float, output: list[Action]) -> None:
        """What was to be written has to be: only the time is open."""
        self._retry_at = now + RETRY_SECONDS

    def _retry(self, event: Tick, now: float, output: list[Action]) -> None:
        if now >= self._retry_at:
            self._retry_at = math.inf
            output.append(Record(self._records))
