"""What the ledger's file holds: records, and the state that they add up to. Pure: no I/O, no clock.

A record is a :class:`~kevynode.scope.ledger.LedgerEntry` or one of the classes here. Each has a ``text``, one line of
ASCII, and :func:`parse_record` reads it again. :class:`LedgerState` is the sum of all records of a file. Those about
different moves, prefixes or peers may come in any order; those of one move count in the order they were written in.

Who writes which record, and when, durable before the next step:

- ``MoveRecord``: the machine of a move, at each step, at the source and at the target.
- ``AgreedEpoch``: the target, before it agrees to the epoch that a source proposes.
- ``Announced``: whoever hears a peer tell its version; it is what that peer is told when it comes back.
- ``Settled``: a node once every configured peer of kind kevynode has answered it, and not earlier: with it the ledger
  counts as known at the next start.
- ``Opened``: a node before it opens a prefix for the first time: from then on its files know whether there are keys.
  A move to it that is ACTIVATED says the same.
- ``Tail``: a node that another one has become the owner of a prefix in place of it, by no move of its own.
- ``VersionFloor``: a node that was told that its version had been higher, once it is in sync again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from typing import Final, TypeAlias

import attrs

from .ledger import Ledger, LedgerEntry
from .ledger_text import (
    MAX_NUMBER,
    LedgerError,
    check_detail,
    check_id,
    check_number,
    check_prefix,
    escape_prefix,
    escape_text,
    fields_of,
    format_fields,
    read_number,
    unescape_prefix,
    unescape_text,
)

__all__ = [
    "FINISHED_KEPT",
    "AgreedEpoch",
    "Announced",
    "LedgerState",
    "MoveRecord",
    "MoveRole",
    "MoveState",
    "Opened",
    "Record",
    "Settled",
    "Tail",
    "VersionFloor",
    "parse_record",
]

#: Finished moves that are remembered, the latest ones: for status, and for peers that ask again.
FINISHED_KEPT: Final = 64
_HEXADECIMAL: Final = frozenset("0123456789abcdef")


class MoveRole(Enum):
    """What this node is in a move."""

    SOURCE = "source"
    TARGET = "target"


class MoveState(Enum):
    """How far a move has come, as the record says that was written last.

    At the source REQUESTED, QUIESCED, SHIPPED, then FLIPPED or ABORTED, ACTIVATED (the target said so), DONE. At the
    target AGREED (to the epoch), SEALED (what must be there is durable), ACTIVATED or ABORTED, DONE. A move that is not
    DONE is open: somebody may still ask what became of it.
    """

    REQUESTED = "REQUESTED"
    AGREED = "AGREED"
    QUIESCED = "QUIESCED"
    SHIPPED = "SHIPPED"
    SEALED = "SEALED"
    FLIPPED = "FLIPPED"
    ABORTED = "ABORTED"
    ACTIVATED = "ACTIVATED"
    DONE = "DONE"


@attrs.frozen
class MoveRecord:
    """How far the move ``move_id`` of ``prefix`` has come at this node. Raises LedgerError for values that do not fit.

    ``peer`` is the node at the other end, ``tail`` the next offset of the source's ``history`` at which it quiesced
    (both 0 before), ``keys`` and ``size`` (bytes) what was or is to be shipped, ``digest`` that of the data (at most 64
    hexadecimal digits, or none). ``following``: the target has the data by following, and there is no stage.
    ``decision`` is FLIPPED or ABORTED from that record on, in all that follow; ``detail`` a remark for people.
    """

    move_id: str
    prefix: bytes
    role: MoveRole
    state: MoveState
    peer: str
    epoch: int
    history: int = 0
    tail: int = 0
    keys: int = 0
    size: int = 0
    digest: str = ""
    following: bool = False
    decision: MoveState | None = None
    detail: str = ""

    def __attrs_post_init__(self) -> None:
        check_id(self.move_id, "a move id")
        check_prefix(self.prefix)
        check_id(self.peer, "the peer of a move")
        check_number(self.epoch, "an epoch")
        for name in ("history", "tail", "keys", "size"):
            check_number(getattr(self, name), f"{name} of a move")
        if len(self.digest) > 64 or not _HEXADECIMAL.issuperset(self.digest):
            raise LedgerError("the digest of a move is not at most 64 hexadecimal digits")
        if self.decision not in (None, MoveState.FLIPPED, MoveState.ABORTED):
            raise LedgerError("what was decided about a move is FLIPPED or ABORTED")
        check_detail(self.detail)

    @property
    def is_open(self) -> bool:
        """Whether it still has to be remembered."""
        return self.state is not MoveState.DONE

    @property
    def decided(self) -> MoveState | None:
        """FLIPPED or ABORTED, whichever is known here to have been decided."""
        return self.state if self.state in (MoveState.FLIPPED, MoveState.ABORTED) else self.decision

    def text(self) -> str:
        """The record as one line of ASCII."""
        return format_fields(
            "move",
            id=self.move_id,
            prefix=escape_prefix(self.prefix),
            role=self.role.value,
            state=self.state.value,
            peer=self.peer,
            epoch=self.epoch,
            history=self.history,
            tail=self.tail,
            keys=self.keys,
            size=self.size,
            digest=self.digest,
            following=int(self.following),
            decision="" if self.decision is None else self.decision.value,
            detail=escape_text(self.detail),
        )

    @classmethod
    def parse(cls, text: str) -> MoveRecord:
        """The record that :meth:`text` wrote. Raises LedgerError for everything else."""
        values = dict(zip(_MOVE_FIELDS, fields_of(text, "move", _MOVE_FIELDS), strict=True))
        try:
            role = MoveRole(values["role"])
            state = MoveState(values["state"])
            decision = MoveState(values["decision"]) if values["decision"] else None
        except ValueError:
            raise LedgerError("a move has a role or a state that is not known") from None
        return cls(
            move_id=values["id"],
            prefix=unescape_prefix(values["prefix"]),
            role=role,
            state=state,
            peer=values["peer"],
            epoch=read_number(values["epoch"]),
            history=read_number(values["history"]),
            tail=read_number(values["tail"]),
            keys=read_number(values["keys"]),
            size=read_number(values["size"]),
            digest=values["digest"],
            following=values["following"] == "1",
            decision=decision,
            detail=unescape_text(values["detail"]),
        )


_MOVE_FIELDS: Final = (
    "id",
    "prefix",
    "role",
    "state",
    "peer",
    "epoch",
    "history",
    "tail",
    "keys",
    "size",
    "digest",
    "following",
    "decision",
    "detail",
)


@attrs.frozen
class AgreedEpoch:
    """This node has agreed, as the target of ``move_id``, to become the owner of ``prefix`` at ``epoch``."""

    prefix: bytes
    epoch: int
    move_id: str

    def __attrs_post_init__(self) -> None:
        check_prefix(self.prefix)
        check_number(self.epoch, "an epoch", 1)
        check_id(self.move_id, "a move id")

    def text(self) -> str:
        """The record as one line of ASCII."""
        return format_fields("agreed", prefix=escape_prefix(self.prefix), epoch=self.epoch, move=self.move_id)

    @classmethod
    def parse(cls, text: str) -> AgreedEpoch:
        """The record that :meth:`text` wrote. Raises LedgerError for everything else."""
        prefix, epoch, move_id = fields_of(text, "agreed", ("prefix", "epoch", "move"))
        return cls(unescape_prefix(prefix), read_number(epoch), move_id)


@attrs.frozen
class Announced:
    """The node ``peer`` has said that the version of its ledger is ``version``."""

    peer: str
    version: int

    def __attrs_post_init__(self) -> None:
        check_id(self.peer, "a peer")
        check_number(self.version, "a version")

    def text(self) -> str:
        """The record as one line of ASCII."""
        return format_fields("announced", peer=self.peer, version=self.version)

    @classmethod
    def parse(cls, text: str) -> Announced:
        """The record that :meth:`text` wrote. Raises LedgerError for everything else."""
        peer, version = fields_of(text, "announced", ("peer", "version"))
        return cls(peer, read_number(version))


@attrs.frozen
class Settled:
    """Every configured peer has answered this node: with this file it knows of every move away from it."""

    def text(self) -> str:
        """The record as one line of ASCII."""
        return "settled"

    @classmethod
    def parse(cls, text: str) -> Settled:
        """The record that :meth:`text` wrote. Raises LedgerError for everything else."""
        fields_of(text, "settled", ())
        return cls()


@attrs.frozen
class Opened:
    """This node took writes under ``prefix`` at least once, and has had its data since then."""

    prefix: bytes

    def __attrs_post_init__(self) -> None:
        check_prefix(self.prefix)

    def text(self) -> str:
        """The record as one line of ASCII."""
        return format_fields("opened", prefix=escape_prefix(self.prefix))

    @classmethod
    def parse(cls, text: str) -> Opened:
        """The record that :meth:`text` wrote. Raises LedgerError for everything else."""
        (prefix,) = fields_of(text, "opened", ("prefix",))
        return cls(unescape_prefix(prefix))


@attrs.frozen
class VersionFloor:
    """The version of this ledger is above ``version``, which the node had announced before it lost its newest state."""

    version: int

    def __attrs_post_init__(self) -> None:
        check_number(self.version, "a version")

    def text(self) -> str:
        """The record as one line of ASCII."""
        return format_fields("floor", version=self.version)

    @classmethod
    def parse(cls, text: str) -> VersionFloor:
        """The record that :meth:`text` wrote. Raises LedgerError for everything else."""
        (version,) = fields_of(text, "floor", ("version",))
        return cls(read_number(version))


@attrs.frozen
class Tail:
    """At ``epoch`` another node has become the owner of ``prefix``, which this node has not given away.

    What is held of it here may be nowhere else: it is to be kept in a file, or (``is_kept``) that has been done.
    """

    prefix: bytes
    epoch: int
    is_kept: bool = False

    def __attrs_post_init__(self) -> None:
        check_prefix(self.prefix)
        check_number(self.epoch, "an epoch", 1)

    def text(self) -> str:
        """The record as one line of ASCII."""
        return format_fields("tail", prefix=escape_prefix(self.prefix), epoch=self.epoch, kept=int(self.is_kept))

    @classmethod
    def parse(cls, text: str) -> Tail:
        """The record that :meth:`text` wrote. Raises LedgerError for everything else."""
        prefix, epoch, kept = fields_of(text, "tail", ("prefix", "epoch", "kept"))
        return cls(unescape_prefix(prefix), read_number(epoch), kept == "1")


Record: TypeAlias = LedgerEntry | MoveRecord | AgreedEpoch | Announced | Settled | Opened | Tail | VersionFloor

_READERS: Final[dict[str, Callable[[str], Record]]] = {
    "entry": LedgerEntry.parse,
    "move": MoveRecord.parse,
    "agreed": AgreedEpoch.parse,
    "announced": Announced.parse,
    "settled": Settled.parse,
    "opened": Opened.parse,
    "tail": Tail.parse,
    "floor": VersionFloor.parse,
}


def parse_record(text: str) -> Record:
    """The record with this text. Raises LedgerError for everything that no record writes."""
    reader = _READERS.get(text.partition(" ")[0])
    if reader is None:
        raise LedgerError("a record of a kind that is not known")
    record = reader(text)
    if record.text() != text:
        raise LedgerError("a record is spelled in another way than it would be written")
    return record


@attrs.define
class LedgerState:
    """The sum of the records of one ledger's file. Not thread-safe.

    ``moves`` has the last record of each move by its id, those that are finished only as far as they are remembered.
    ``announced`` has the highest version that each peer told, ``agreed`` the highest epoch of each prefix that this
    node agreed to as a target. ``version`` grows by one with each append that says something of this node (not with
    those that hold ``Announced`` alone, or two nodes would talk for ever): it is what is announced. For ``settled`` and
    ``opened`` see :class:`Settled` and :class:`Opened`; ``tails`` are those that are yet to be kept, by their prefixes.
    """

    ledger: Ledger = attrs.field(factory=Ledger)
    moves: dict[str, MoveRecord] = attrs.field(factory=dict)
    announced: dict[str, int] = attrs.field(factory=dict)
    agreed: dict[bytes, AgreedEpoch] = attrs.field(factory=dict)
    opened: set[bytes] = attrs.field(factory=set)
    version: int = 0
    settled: bool = False
    tails: dict[bytes, Tail] = attrs.field(factory=dict)

    def add(self, records: Iterable[Record]) -> None:
        """Add the records that were appended together; the version grows if they count for it.

        Raises LedgerError (the ledger is full), and then has changed nothing.
        """
        records = tuple(records)
        version = self.version_after(records)
        self.ledger.merge(record for record in records if isinstance(record, LedgerEntry))
        for record in records:
            self._add(record)
        self.version = version

    def version_after(self, records: Iterable[Record]) -> int:
        """The version once ``records`` have been appended.

        It stays at the highest number that a record takes. Nobody comes there by himself, but a peer may say that this
        node was there; and a node that could append nothing any more would be lost by that.
        """
        version = self.version
        counts = False
        for record in records:
            counts = counts or not isinstance(record, Announced)
            if isinstance(record, VersionFloor):
                version = max(version, record.version)
        return min(version + counts, MAX_NUMBER)

    def open_moves(self) -> tuple[MoveRecord, ...]:
        """The last records of the moves that are not finished, the oldest first."""
        return tuple(record for record in self.moves.values() if record.is_open)

    def records(self) -> Iterator[Record]:
        """Records that add up to this state, but for its version."""
        yield from self.ledger
        yield from self.moves.values()
        yield from self.agreed.values()
        for peer, version in self.announced.items():
            yield Announced(peer, version)
        if self.settled:
            yield Settled()
        yield from map(Opened, sorted(self.opened))
        yield from self.tails.values()

    def copy(self) -> LedgerState:
        """A state of its own that holds the same."""
        return LedgerState(
            self.ledger.copy(),
            dict(self.moves),
            dict(self.announced),
            dict(self.agreed),
            set(self.opened),
            self.version,
            self.settled,
            dict(self.tails),
        )

    def _add(self, record: Record) -> None:
        if isinstance(record, MoveRecord):
            if record.role is MoveRole.TARGET and record.state is MoveState.ACTIVATED:
                self.opened.add(record.prefix)
            if record.is_open:
                self.moves[record.move_id] = record
            else:
                # To the end: the one that was finished first is forgotten first.
                self.moves.pop(record.move_id, None)
                self.moves[record.move_id] = record
                finished = [move_id for move_id, held in self.moves.items() if not held.is_open]
                for move_id in finished[: max(len(finished) - FINISHED_KEPT, 0)]:
                    del self.moves[move_id]
        elif isinstance(record, AgreedEpoch):
            held = self.agreed.get(record.prefix)
            if held is None or (held.epoch, held.move_id) < (record.epoch, record.move_id):
                self.agreed[record.prefix] = record
        elif isinstance(record, Announced):
            self.announced[record.peer] = max(record.version, self.announced.get(record.peer, 0))
        elif isinstance(record, Settled):
            self.settled = True
        elif isinstance(record, Opened):
            self.opened.add(record.prefix)
        elif isinstance(record, Tail):
            if record.is_kept:
                self.tails.pop(record.prefix, None)
            else:
                self.tails[record.prefix] = record
