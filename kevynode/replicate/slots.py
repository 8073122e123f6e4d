"""What a primary knows of each replica, also while it is away: how far it is, and for how long its place is kept.

A **slot** belongs to a replica, not to a connection. It is opened by a handshake, outlives the connection by the
reconnect window, and is forgotten when nobody comes back in time. All of it is a pure function of the times handed in.

Replicas that name capabilities have an id of their own, so that their id alone finds their slot, from wherever they
connect. All others are told apart by id and address: the ids of two of them on default ports are equal.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection, Iterator
from typing import Final, Literal, TypeAlias

import attrs

from .request import Form, Request

__all__ = ["Refusal", "Slot", "SlotState", "Slots", "SyncRecord"]

#: This many takeovers of one slot within TAKEOVER_SPAN seconds are two nodes with one id.
TAKEOVER_LIMIT: Final = 3
TAKEOVER_SPAN: Final = 10.0
#: Seconds for which the newcomer is then refused.
REFUSAL_SPAN: Final = 10.0
#: Most slots at once: more than that are not replicas but somebody who makes up ids.
SLOT_LIMIT: Final = 1024

SlotKey: TypeAlias = tuple[str] | tuple[str, str]
SlotState: TypeAlias = Literal["handshake", "snapshot", "streaming", "waiting"]

_PORT_IN_ID: Final = re.compile(r"(?:kevy|kevynode)-replica-([0-9]{1,5})#")


@attrs.define
class SyncRecord:
    """One synchronisation of a replica: its kind, why it was that kind, and what it cost.

    ``started`` is in monotonic seconds, ``duration`` in seconds (None while it lasts), ``size`` the snapshot's bytes.
    """

    kind: Literal["full", "partial", "scope"]
    reason: str
    started: float
    duration: float | None = None
    size: int = 0


@attrs.frozen
class Refusal:
    """A newcomer is not let in: why (for the log), and until when (monotonic seconds)."""

    reason: str
    until: float


@attrs.define(eq=False)
class Slot:
    """One replica as its primary knows it. Compared and hashed by identity.

    ``sent`` and ``acked`` are next offsets in ``history`` (0: none yet): how far the stream was handed to the replica,
    and how far the replica says it has applied it. Within one history ``acked`` never goes back by an acknowledgement;
    only a new handshake in which the replica itself says that it holds less sets it lower.
    """

    key: SlotKey
    replica_id: str
    address: str
    # The client port that its id tells; 0 if it tells none.
    port: int
    capabilities: frozenset[str]
    # Key prefixes it follows; None: everything.
    prefixes: tuple[bytes, ...] | None = None
    connected: bool = True
    connected_at: float = 0.0
    state: SlotState = "handshake"
    history: int = 0
    sent: int = 0
    acked: int = 0
    # When it was last heard of by a valid acknowledgement (or a resumption) on this connection; None: not yet.
    acked_at: float | None = None
    # When it is forgotten unless it is back; None while connected.
    deadline: float | None = None
    last_sync: SyncRecord | None = None
    # How often a newcomer took the slot over from a connection that was still there.
    takeovers: int = 0
    # Which connection is the slot's: counts from 1, so that what is left of an earlier one can be told apart.
    link: int = 1
    # Whether it ever says how far it is: peers of the oldest form do not.
    acknowledges: bool = True
    # How far a replica that names no history was served by this process, for its next handshake; None: never.
    served: int | None = None
    # From where on: what such a replica held before the snapshot it was sent is not of this history.
    served_from: int = 0
    disconnected_at: float | None = None
    # Where the last snapshot ended: an acknowledgement below it speaks of what the replica held before.
    _floor: int = attrs.field(default=0, repr=False)
    _recent_takeovers: deque[float] = attrs.field(factory=lambda: deque(maxlen=TAKEOVER_LIMIT - 1), repr=False)
    _refused_until: float = attrs.field(default=0.0, repr=False)

    def counts_for(self, written: Collection[bytes] | None) -> bool:
        """Whether this replica follows all of the keys ``written``; None stands for "any key may be among them"."""
        if self.prefixes is None:
            return True
        if written is None:
            return False
        prefixes = self.prefixes
        return all(key.startswith(prefixes) for key in written)

    def resumed(self, history: int, offset: int, now: float) -> None:
        """The replica goes on from ``offset`` of ``history``: by its own word it has applied everything before."""
        self.history = history
        self.sent = self.acked = offset
        self._floor = 0
        self.acked_at = now if self.acknowledges else None
        self.state = "streaming"

    def ship_began(self, history: int) -> None:
        """A snapshot of everything is on its way; what the replica holds until it is complete counts for nothing."""
        self.history = history
        self.sent = self.acked = 0
        self.acked_at = None
        self.state = "snapshot"

    def ship_ended(self, offset: int) -> None:
        """The snapshot has gone out, and the stream goes on from ``offset``. The replica has yet to acknowledge it."""
        self.sent = self._floor = offset
        self.state = "streaming"

    def acknowledge(self, history: int, offset: int, now: float, next_offset: int) -> bool:
        """Take the replica's word that it has applied everything before ``offset``; False if that cannot be.

        It cannot be in another history than the slot's, ahead of ``next_offset`` (our own next offset), behind what
        it has acknowledged before, or before the snapshot it was sent is applied. An offset beyond ``sent`` only means
        that the sender's note comes later.
        """
        if history != self.history or self.state != "streaming" or not self.acked <= offset <= next_offset:
            return False
        if offset < self._floor:
            return False
        self.acked = offset
        if offset > self.sent:
            self.sent = offset
        self.acked_at = now
        return True


class Slots:
    """All replicas of a node. ``window_ms``: how long a disconnected one's place is kept, in milliseconds."""

    def __init__(self, window_ms: int = 60_000, limit: int = SLOT_LIMIT) -> None:
        self._window_ms = window_ms
        self._limit = limit
        self._slots: dict[SlotKey, Slot] = {}

    def __len__(self) -> int:
        return len(self._slots)

    def __iter__(self) -> Iterator[Slot]:
        """Every slot, connected or waiting, oldest first. A copy: slots may come and go meanwhile."""
        return iter(tuple(self._slots.values()))

    @property
    def window_ms(self) -> int:
        """The reconnect window in milliseconds. A new value also holds for replicas that are away already."""
        return self._window_ms

    @window_ms.setter
    def window_ms(self, window_ms: int) -> None:
        self._window_ms = window_ms
        for slot in self._slots.values():
            if slot.disconnected_at is not None:
                slot.deadline = slot.disconnected_at + window_ms / 1000

    @staticmethod
    def key(request: Request, address: str) -> SlotKey:
        """What a replica is recognised by."""
        return (request.replica_id,) if request.capabilities else (request.replica_id, address)

    def find(self, request: Request, address: str) -> Slot | None:
        """The slot that this replica has already."""
        return self._slots.get(self.key(request, address))

    def open(self, request: Request, address: str, now: float) -> Slot | Refusal:
        """The slot for a replica that has just said its handshake from ``address`` (its IP), connected, as "handshake".

        The slot it has already, if any: a newcomer takes it over from a connection that is still there, which the
        caller ends. Where that happens again and again to a replica that names capabilities, the newcomer is refused.
        """
        key = self.key(request, address)
        slot = self._slots.get(key)
        if slot is None:
            if len(self._slots) >= self._limit and not self._forget_stranger():
                return Refusal(f"there are {self._limit} replicas already", now)
            slot = Slot(key, request.replica_id, address, _client_port(request.replica_id), request.capabilities)
            self._slots[key] = slot
        else:
            if slot.connected:
                refusal = self._take_over(slot, address, now) if request.capabilities else None
                if refusal is not None:
                    return refusal
                slot.takeovers += 1
            slot.link += 1
            slot.address = address
            slot.capabilities = request.capabilities
        slot.acknowledges = request.form is not Form.FIVE
        # A filtered replica has yet to say what it follows.
        slot.prefixes = () if "scopes" in request.capabilities else None
        slot.connected = True
        slot.connected_at = now
        slot.state = "handshake"
        slot.acked_at = None
        slot.deadline = slot.disconnected_at = None
        return slot

    def _forget_stranger(self) -> bool:
        """Make room by forgetting the oldest replica that is away and was never served; False if there is none."""
        for slot in self._slots.values():
            if not slot.connected and slot.last_sync is None:
                self.forget(slot)
                return True
        return False

    @staticmethod
    def _take_over(slot: Slot, address: str, now: float) -> Refusal | None:
        """Note a takeover by a newcomer from ``address``, or refuse it."""
        if now < slot._refused_until:
            return Refusal(
                f"id {_shortened(slot.replica_id)} is used by two nodes, at {slot.address} and {address}",
                slot._refused_until,
            )
        recent = slot._recent_takeovers
        if len(recent) == recent.maxlen and now - recent[0] < TAKEOVER_SPAN:
            slot._refused_until = now + REFUSAL_SPAN
            recent.clear()
            return Refusal(
                f"id {_shortened(slot.replica_id)} was taken over {TAKEOVER_LIMIT} times within {TAKEOVER_SPAN:g}"
                f" seconds: two nodes use it, at {slot.address} and {address}",
                slot._refused_until,
            )
        recent.append(now)
        return None

    def disconnected(self, slot: Slot, now: float, link: int | None = None) -> None:
        """The connection of ``slot`` has ended: its place is kept for the reconnect window.

        With ``link`` (the slot's ``link`` when that connection was opened) it is ignored if another has taken over.
        """
        if not slot.connected or (link is not None and link != slot.link) or self._slots.get(slot.key) is not slot:
            return
        slot.connected = False
        slot.state = "waiting"
        slot.disconnected_at = now
        slot.deadline = now + self._window_ms / 1000

    def forget(self, slot: Slot) -> None:
        """Give up a slot at once, whatever its window."""
        if self._slots.get(slot.key) is slot:
            del self._slots[slot.key]

    def acknowledge(self, slot: Slot, history: int, offset: int, now: float, next_offset: int) -> bool:
        """As :meth:`Slot.acknowledge`; False also for a slot that was forgotten or is not connected."""
        if not slot.connected or self._slots.get(slot.key) is not slot:
            return False
        return slot.acknowledge(history, offset, now, next_offset)

    def good(self, now: float, max_lag_s: float, written: Collection[bytes] | None = None) -> int:
        """How many connected, streaming replicas have acknowledged within the last ``max_lag_s`` seconds.

        Only those count that follow everything in ``written``, as for :meth:`acked`.
        """
        return sum(
            slot.acked_at is not None
            and slot.state == "streaming"
            and now - slot.acked_at <= max_lag_s
            and slot.counts_for(written)
            for slot in self._slots.values()
        )

    def acked(self, offset: int, written: Collection[bytes] | None = None) -> int:
        """How many connected, streaming replicas have applied everything before ``offset``.

        ``written`` are keys that a filtered replica must follow to count; None: only unfiltered ones count.
        """
        return sum(
            slot.state == "streaming" and slot.acked >= offset and slot.counts_for(written)
            for slot in self._slots.values()
        )


def _shortened(replica_id: str) -> str:
    """An id as it may stand in a log line, whatever its sender put into it."""
    return repr(replica_id[:64] + "..." if len(replica_id) > 64 else replica_id)


def _client_port(replica_id: str) -> int:
    """The port in ``kevy-replica-<port>#…`` and ``kevynode-replica-<port>#…``; 0 for any other id."""
    match = _PORT_IN_ID.match(replica_id)
    port = int(match[1]) if match else 0
    return port if port < 65536 else 0
