"""One move of a prefix: what its source and its target are told, and what they want done. Pure: no I/O, no clock.

:class:`~.source_move.SourceMove` and :class:`~.target_move.TargetMove` are the two machines. Each takes one event at a
time, ``actions = move.handle(event, now)``, with ``now`` in monotonic seconds, and every event has an answer in every
state. A **driver** carries out the actions in order and feeds what comes of them. Here is what it owes; whoever keeps
to it never has two writers, and loses no acknowledged write, whatever is lost, repeated, delayed or crashes.

Records
    ``Record(records)`` is always the last action of its list. Append the records together to the ledger's file
    (``LedgerFile.append``, in a thread); then feed :class:`Recorded` once they are durable, or :class:`RecordFailed`.
    Exactly one of them, once for each ``Record``, before any later ``Record`` of the move is carried out. Other events
    may be fed meanwhile. Nobody else may write records of this move. A node without files answers ``Recorded`` at once.

Start
    Build the machines of all open records with ``restart`` and carry out what it returns before any declared scope
    opens, under the rule by which scopes open: after the peers have told what they know of the ledger, or the time for
    it is over, and with what they told in the file. The epoch and the owner that the ledger then has go into
    ``restart``. Events go to the machine of the move that they name; one node may have several of one prefix, though
    only one that is new. A source that an operator has given up at the target (``Resolve``) must not be started before
    that has been reported, nor while the target is down: nobody else could tell it.

Links
    A move talks over one connection at a time (``move_wire``: who dials sends the hello). While ``wants_link`` is true
    and there is none, dial the other node, with jittered back-off and deadlines; where both have dialled, the
    connection that the source began stays. Feed :class:`Linked` when a connection is ready both ways, :class:`LinkLost`
    when it has ended; a newer one from the same node takes the place of an older one, with LinkLost before Linked.
    ``Send(message)`` goes out on it, in order, or is dropped where there is none. What arrives is fed as it is.
    Messages for a move that has no machine go to ``stray_at_source`` and ``stray_at_target``, a ``Request`` for a new
    one to ``consider``. Where the hello names other nodes or another prefix than the move has here, hang up.

Time
    Call ``handle(Tick(), now)`` when ``wake_at`` has come; it changes with every event. ``math.inf``: no need.

Writes
    ``Quiesce(node_id)``: from now on writes under the prefix answer -QUIESCED with the address of that node
    (``Ownership.quiesce``), clients blocked on its keys are woken with it, and expiry and eviction leave its keys
    alone. ``Resume()`` takes back what this move has quiesced, and nothing of another move of the prefix: an older one
    may come to its end while a newer one is under way. Writes pass when no move holds them. ``SetOwner(entry)``: merge
    the entry into the ledger and tell the ownership. Whoever changes the ledger for another reason tells the ownership,
    and feeds :class:`LedgerChanged` to the machines of that prefix, once the ledger's file has it. All of this takes
    effect before the driver looks at another event.

At the source
    ``Capture()``: take the own history and the journal's next offset in the same step as the Quiesce before it, so that
    every write that was acknowledged is below; count the keys under the prefix, in slices, expired ones included; feed
    :class:`Captured`. Its digest may stay empty.
    ``Ship(attempt)``: send ``Chunk`` messages with the rebuild commands of all keys under the prefix, sequences from 0,
    at most 65,536 bytes each, and then feed :class:`Staged` with what went out; the machine sends the ``StageEnd``. At
    LinkLost, at the next Ship and when the machine leaves the states in which ``shipping`` is true: stop. What keeps
    it from going on but the link is a :class:`ShipFailed`.
    ``Release(epoch, owner)``: put the RELEASE mark into the journal; it may come twice for one epoch.
    ``SettleSlice(keep)``: with ``keep``, the slice stays as the new owner's live copy; without, delete its keys, in
    slices, with DELs that go to unfiltered links only. Feed :class:`Settled` once that and the mark are durable in the
    files. Until then ``busy`` is true, and the node refuses to be a target for the prefix.

At the target
    ``OpenStage(attempt)``: begin a new, empty stage file; what an older attempt left is dropped. ``WriteChunk(data)``
    appends to it; on an error feed :class:`StageBroken`. ``CheckStage(ticket)``: read the whole stage: every command
    must be one that rebuilds and every key be under the prefix; fsync file and folder, whatever ``appendfsync`` says;
    feed :class:`Checked` with keys and digest, or :class:`CheckFailed`. ``CheckCopy(ticket, history, offset, digest)``:
    wait until the live copy has applied or been told to skip everything before ``offset`` of ``history``, then fsync
    the files, the cursor included, count (and make the digest if that is asked for), and feed the same. A newer ticket,
    and ``Discard``, end an older check; a stage is never written to after its check began.
    ``Place(following)``: make the data the node's own, durably, before Placed. Following: look whether the copy still
    is at the tail, then nothing more than to fsync. Else: swap the stage for all keys under the prefix in one step and
    one group of the journal. From then on no other node's stream may change them, until this node owns the prefix or
    the stage has been discarded. Doing it twice is doing it once. Feed :class:`Placed`, or :class:`PlacingFailed`, with
    ``lost`` if stage or copy are not whole any more.
    ``Acquire(epoch, history, offset)``: put the ACQUIRE mark into the journal, before the first write; it may come
    twice for one epoch. Feed :class:`Settled` once it is durable. ``Discard()``: drop the stage, and what of it was put
    in place, before a restart, too, unless this node owns the prefix; a live copy that is followed stays as it is. Feed
    :class:`Cleared` when it is gone.

People
    ``Report(outcome)``: for whoever waits for the end of the move; it may be followed by a better one ("in doubt", then
    "moved"). ``Refuse(reason)``: the last :class:`AbortWanted` or :class:`Resolve` is not done, and why.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import attrs

from .ledger import LedgerEntry
from .ledger_records import AgreedEpoch, MoveRecord
from .move_messages import Message

__all__ = [
    "ASK_SECONDS",
    "LINK_SECONDS",
    "QUIET_SECONDS",
    "REPEAT_SECONDS",
    "RETRY_SECONDS",
    "AbortWanted",
    "Acquire",
    "Action",
    "Capture",
    "Captured",
    "CheckCopy",
    "CheckFailed",
    "CheckStage",
    "Checked",
    "Cleared",
    "Discard",
    "LedgerChanged",
    "LinkLost",
    "Linked",
    "OpenStage",
    "Outcome",
    "Place",
    "Placed",
    "PlacingFailed",
    "Quiesce",
    "Record",
    "RecordFailed",
    "Recorded",
    "Refuse",
    "Release",
    "Report",
    "Resolve",
    "Resume",
    "Send",
    "SetOwner",
    "SettleSlice",
    "Settled",
    "Ship",
    "ShipFailed",
    "StageBroken",
    "Staged",
    "Tick",
    "WriteChunk",
]

#: Seconds after which a message that has had no answer is said again.
REPEAT_SECONDS: Final = 1.0
#: Seconds without a link after which a source calls off what its target cannot have all of.
LINK_SECONDS: Final = 2.0
#: Seconds after a failed record, or a failed placing, until the next try.
RETRY_SECONDS: Final = 1.0
#: Seconds of silence from the source after which a target asks what has become of the move.
ASK_SECONDS: Final = 2.0
#: Seconds of silence from the source after which an operator may decide in its place.
QUIET_SECONDS: Final = 10.0


# -- actions: what the driver is to do, in order ----------------------------------------------------------------------


@attrs.frozen
class Record:
    """Make these durable, together, before anything else of this move."""

    records: tuple[LedgerEntry | AgreedEpoch | MoveRecord, ...]


@attrs.frozen
class Send:
    """Say this to the other node."""

    message: Message


@attrs.frozen
class Quiesce:
    """Refuse writes of the prefix: it is moving to ``node_id`` (this node itself, at the target)."""

    node_id: str


@attrs.frozen
class Resume:
    """Refuse writes of the prefix for the sake of this move no longer; who owns it decides."""


@attrs.frozen
class Capture:
    """Find where the journal stands, and how many keys there are."""


@attrs.frozen
class Ship:
    """Send the slice in chunks."""

    attempt: int


@attrs.frozen
class Release:
    """Mark in the journal that ``owner`` has the prefix from ``epoch`` on."""

    epoch: int
    owner: str


@attrs.frozen
class SetOwner:
    """Route by this entry from now on; it is durable."""

    entry: LedgerEntry


@attrs.frozen
class SettleSlice:
    """Drop the slice that has moved away, or keep it as a copy."""

    keep: bool


@attrs.frozen
class OpenStage:
    """Begin an empty stage."""

    attempt: int


@attrs.frozen
class WriteChunk:
    """Append to the stage."""

    data: bytes


@attrs.frozen
class CheckStage:
    """Look through the stage and make it durable."""

    ticket: int


@attrs.frozen
class CheckCopy:
    """Wait until the live copy is at the tail, and make it durable."""

    ticket: int
    history: int
    offset: int
    digest: bool


@attrs.frozen
class Place:
    """Make the stage, or the live copy, this node's own data of the prefix."""

    following: bool


@attrs.frozen
class Acquire:
    """Mark in the journal that this node has the prefix from ``epoch`` on, taken over at the source's tail."""

    epoch: int
    history: int
    offset: int


@attrs.frozen
class Discard:
    """Drop what there is of the stage."""


@attrs.frozen
class Outcome:
    """How a move has ended. ``commands``, ``keys``, ``size`` (bytes) were shipped; ``window``: seconds without writes.

    ``in doubt``: it is decided, and the target has not confirmed it yet.
    """

    kind: Literal["moved", "failed", "in doubt"]
    reason: str = ""
    commands: int = 0
    keys: int = 0
    size: int = 0
    window: float = 0.0


@attrs.frozen
class Report:
    """Tell whoever waits for the end."""

    outcome: Outcome


@attrs.frozen
class Refuse:
    """What an operator wanted is not done."""

    reason: str


Action: TypeAlias = (
    Record
    | Send
    | Quiesce
    | Resume
    | Capture
    | Ship
    | Release
    | SetOwner
    | SettleSlice
    | OpenStage
    | WriteChunk
    | CheckStage
    | CheckCopy
    | Place
    | Acquire
    | Discard
    | Report
    | Refuse
)


# -- events: what the driver has to say; the messages of the other node are events too --------------------------------


@attrs.frozen
class Recorded:
    """The last ``Record`` is durable."""


@attrs.frozen
class RecordFailed:
    """The last ``Record`` may or may not be in the file."""

    reason: str


@attrs.frozen
class Linked:
    """There is a connection to the other node."""


@attrs.frozen
class LinkLost:
    """It has ended."""


@attrs.frozen
class Tick:
    """Time has passed."""


@attrs.frozen
class LedgerChanged:
    """By the ledger, ``owner`` has the prefix since ``epoch``; from elsewhere than this move's own record."""

    epoch: int
    owner: str

    @property
    def reason(self) -> str:
        """Why a move below that is pointless."""
        return f"{self.owner} owns the prefix by epoch {self.epoch}"


@attrs.frozen
class AbortWanted:
    """An operator wants the move off (at the source)."""

    reason: str = "aborted by an operator"


@attrs.frozen
class Captured:
    """The answer to ``Capture``: every acknowledged write is before ``offset`` of ``history``."""

    history: int
    offset: int
    keys: int
    digest: str = ""


@attrs.frozen
class Staged:
    """The answer to ``Ship``: everything went out, in ``chunks`` chunks; ``size`` bytes, ``commands`` commands."""

    attempt: int
    chunks: int
    commands: int
    keys: int
    size: int
    digest: str


@attrs.frozen
class ShipFailed:
    """The other answer to ``Ship``."""

    attempt: int
    reason: str


@attrs.frozen
class Settled:
    """The slice is dropped or kept (source), the mark is in the journal (both), and that is durable."""


@attrs.frozen
class StageBroken:
    """The stage cannot be written."""

    reason: str


@attrs.frozen
class Checked:
    """The answer to a check: what is there, and durable."""

    ticket: int
    keys: int
    digest: str


@attrs.frozen
class CheckFailed:
    """The other answer to a check."""

    ticket: int
    reason: str


@attrs.frozen
class Placed:
    """The answer to ``Place``: the data are this node's own, durably."""


@attrs.frozen
class PlacingFailed:
    """The other answer to ``Place``."""

    reason: str
    lost: bool


@attrs.frozen
class Cleared:
    """The answer to ``Discard``: nothing is left."""


@attrs.frozen
class Resolve:
    """An operator decides in place of a source that does not come back (at the target)."""

    commit: bool
