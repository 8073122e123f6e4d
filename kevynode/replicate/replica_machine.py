"""The life of a link to a primary, as its replica sees it, and what each event of the stream means in it.

Every event that may come in each state stands in :data:`TABLE`::

    CONNECTING ──+ACK──▶ SYNCING ──frames, or a PING that finds us complete──▶ LIVE
                            └──+SNAPSHOT──▶ SHIPPING ──+SNAPSHOT_END─────────▶ LIVE
                                               ▲──────────+SNAPSHOT──────────────┤
                            SHIPPING_SCOPE ◀───────────+SNAPSHOT_SCOPE───────────┘  (and back)
    any state ──a broken rule, silence, the end of the stream──▶ LOST

- CONNECTING: the handshake is on its way. Whoever answers it with an error line is no primary.
- SYNCING: the primary has answered, with the same words whether it goes on where we stopped or starts over. What comes
  next tells. Entries are taken without a snapshot only where the histories say that nothing can be missing.
- SHIPPING: a snapshot of everything the link follows arrives. What this copy held before says nothing about it.
- LIVE: entries follow each other without a gap.
- SHIPPING_SCOPE: as SHIPPING, for one prefix, at its place in a filtered stream.
- LOST: over; ``fault`` and ``reason`` say why. Nothing that arrives later counts.

The link trusts nothing: an event that has no place in the state, an offset that is not the next one, and a word that
was not agreed on end it, at the price of the link alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from .handshake import Form, Request, explain_refusal, format_scopes
from .lineage import HISTORY_LIMIT, MAX_OFFSET, Lineage
from .replica_events import (
    AckWanted,
    Fault,
    Heartbeat,
    HistoryKnown,
    LinkEvent,
    Resumed,
    ShipBegins,
    ShipData,
    ShipEnds,
    Skipped,
    State,
)
from .stream_events import (
    Accepted,
    Acknowledged,
    AckRequested,
    Ancestors,
    Chunk,
    ErrorLine,
    Event,
    Frames,
    Ping,
    ScopeSnapshotBegin,
    Skip,
    SnapshotBegin,
    SnapshotEnd,
)
from .wire import resync

__all__ = ["TABLE", "Output", "ReplicaMachine"]

#: What a step has to tell the driver goes here.
Output: TypeAlias = list[LinkEvent]


class ReplicaMachine:
    """What a link knows of its primary's stream, and what each event of it means. Never blocks.

    ``request``, ``peer``, ``prefixes`` and ``missing``: see :class:`kevynode.replicate.replica.ReplicaLink`.
    """

    def __init__(self, request: Request, peer: str, prefixes: Sequence[bytes], missing: Sequence[bytes]) -> None:
        self.request = request
        self.peer = peer
        self.state = State.CONNECTING
        self.fault: Fault | None = None
        self.reason = ""
        # Whether the primary has shown to be a kevynode; what it takes part in, and what its history descends from.
        self.confirmed = False
        self.accepted: frozenset[str] = frozenset()
        self.ancestors: tuple[tuple[int, int], ...] = ()
        # The history of the entries that come; 0: not told, or not told yet.
        self.history = 0
        # The next offset that may come, and the newest that the primary has told.
        self.expected = request.offset
        self.announced = 0
        # Lines to be sent, and when: math.inf while there is nothing to say.
        self._outgoing = b""
        self.send_at = math.inf
        self._prefixes = tuple(prefixes)
        self._missing = tuple(missing)
        # When the handshake went out, or its answer came; and when the last bytes did.
        self._since = 0.0
        self._now = 0.0
        # The state that a snapshot returns to began on this link: it has had entries.
        self._midstream = False
        self._ship: ShipBegins | None = None
        # What was expected when a heartbeat told of more, with nothing else since; -1: no such heartbeat.
        self._stuck_at = -1

    def _say(self, line: bytes) -> None:
        if self.state is not State.LOST:
            self._outgoing += line
            self.send_at = self._now

    def _take(self, event: Event, output: Output) -> None:
        step = TABLE[self.state].get(type(event))
        if step is None:
            self._breach(f"{_NAMES[type(event)]} while {self.state.value}")
        else:
            step(self, event, output)

    def _lose(self, fault: Fault, reason: str) -> None:
        if self.state is not State.LOST:
            self.state = State.LOST
            self.fault = fault
            self.reason = reason
            self._outgoing = b""
            self.send_at = math.inf

    def _breach(self, what: str) -> None:
        self._lose(Fault.PROTOCOL, f"{self.peer} broke the protocol: {what}")

    def _gap(self, found: int) -> None:
        self._lose(Fault.GAP, f"gap: expected offset {self.expected}, got {found}")

    def _refused(self, event: ErrorLine, output: Output) -> None:
        self._lose(Fault.REFUSED, explain_refusal(self.peer, event.text))

    def _failed(self, event: ErrorLine, output: Output) -> None:
        self._lose(Fault.REFUSED, f"{self.peer} ended the stream with an error: {event.text}")

    def _acknowledged(self, event: Acknowledged, output: Output) -> None:
        request = self.request
        if (event.history is None) != (request.form is Form.FIVE):
            self._breach("+ACK has another form than the handshake")
        elif event.offset != request.offset:
            self._breach(f"+ACK for offset {event.offset} when {request.offset} was asked for")
        elif event.history is not None and event.history >= HISTORY_LIMIT:
            self._breach(f"history {event.history} is out of range")
        else:
            self.history = event.history or 0
            self.state = State.SYNCING
            self._since = self._now

    def _accept(self, event: Accepted, output: Output) -> None:
        if self.request.form is not Form.EXTENDED or not event.names <= self.request.capabilities:
            self._breach("+CAPA accepts what was not offered")
            return
        self.accepted = event.names
        self.confirmed = True
        if self._prefixes and "scopes" in event.names:
            # In one breath: nothing is acknowledged before it is known what is missing.
            self._say(format_scopes(self._prefixes) + b"".join(map(resync, self._missing)))

    def _descend(self, event: Ancestors, output: Output) -> None:
        if "lineage" not in self.request.capabilities:
            self._breach("+LINEAGE was not asked for")
            return
        try:
            Lineage(self.history, event.ancestors)
        except ValueError as error:
            self._breach(f"+LINEAGE makes no sense: {error}")
        else:
            self.ancestors = event.ancestors

    @property
    def _may_resume(self) -> bool:
        """Whether entries that follow the claimed position can go without a snapshot."""
        request = self.request
        if request.form is Form.FIVE:
            return True
        if request.history == 0 or self.history == 0:
            return False
        return Lineage(self.history, self.ancestors).covers(request.history, request.offset)

    def _resume(self, output: Output) -> None:
        if not self._may_resume:
            self._breach(
                f"entries of history {self.history} without a snapshot, though"
                f" {self.request.offset} of history {self.request.history} was asked for"
            )
            return
        self.state = State.LIVE
        self.announced = max(self.announced, self.expected)
        # Only a five-argument primary goes on where nothing was claimed.
        output.append(Resumed(self.history, self.expected, self.ancestors, self.request.offset == 0 == self.history))

    def _first_frames(self, event: Frames, output: Output) -> None:
        if event.first != self.expected:
            self._gap(event.first)
            return
        self._resume(output)
        if self.state is State.LIVE:
            self._frames(event, output)

    def _frames(self, event: Frames, output: Output) -> None:
        if event.first != self.expected:
            self._gap(event.first)
        elif event.grouped and "txn" not in self.accepted:
            self._breach("+TXN was not agreed on")
        elif event.next > MAX_OFFSET:
            self._breach(f"offset {event.next} is out of range")
        else:
            self.expected = event.next
            if event.next > self.announced:
                self.announced = event.next
            self._stuck_at = -1
            output.append(event)

    @property
    def _filtered(self) -> bool:
        return "scopes" in self.accepted or "skip" in self.accepted

    def _first_skip(self, event: Skip, output: Output) -> None:
        self._resume(output)
        if self.state is State.LIVE:
            self._skip(event, output)

    def _skip(self, event: Skip, output: Output) -> None:
        if not self._filtered:
            self._breach("+SKIP was not agreed on")
        elif event.next_offset < self.expected:
            self._gap(event.next_offset)
        else:
            self.expected = event.next_offset
            self.announced = max(self.announced, event.next_offset)
            self._stuck_at = -1
            output.append(Skipped(event.next_offset))

    def _ack_requested(self, event: AckRequested, output: Output) -> None:
        if "ackreq" not in self.accepted:
            self._breach("+ACKREQ was not agreed on")
        else:
            output.append(AckWanted())

    def _same_history(self, history: int) -> bool:
        """Whether a heartbeat's history is the one this link carries; otherwise the link is over."""
        if history in (self.history, 0) or self.request.form is Form.FIVE:
            return True
        self._lose(Fault.HISTORY, f"the history of {self.peer} changed from {self.history} to {history}")
        return False

    def _early_ping(self, event: Ping, output: Output) -> None:
        if not self._same_history(event.history):
            return
        # Whoever stands where the primary stands is complete; any other number says nothing yet about what comes.
        if event.next_offset == self.expected and self._may_resume and self.request.form is not Form.FIVE:
            self._resume(output)
        self._beat(event, output)

    def _ship_ping(self, event: Ping, output: Output) -> None:
        # A kevy's history that changes with a snapshot in the middle of the stream is told behind it.
        if (self._midstream and not self.confirmed) or self._same_history(event.history):
            self._beat(event, output)

    def _live_ping(self, event: Ping, output: Output) -> None:
        if event.history >= HISTORY_LIMIT:
            self._breach(f"history {event.history} is out of range")
            return
        if self.history == 0 and event.history and self.request.form is not Form.FIVE:
            self.history = event.history
            output.append(HistoryKnown(event.history))
        elif not self._same_history(event.history):
            return
        ahead = event.next_offset - self.expected
        if ahead < 0 or (ahead > 0 and self._stuck_at == self.expected):
            # Behind what it has sent, or two heartbeats long ahead of it with nothing between them.
            self._gap(event.next_offset)
            return
        self._stuck_at = self.expected if ahead else -1
        self._beat(event, output)

    def _beat(self, event: Ping, output: Output) -> None:
        self.announced = max(self.announced, event.next_offset)
        output.append(Heartbeat(event.history, event.next_offset))

    def _ship_begins(self, event: SnapshotBegin, output: Output) -> None:
        self._midstream = self.state is State.LIVE
        self._ship = ShipBegins(self._midstream)
        self.state = State.SHIPPING
        output.append(self._ship)

    def _scope_ship_begins(self, event: ScopeSnapshotBegin, output: Output) -> None:
        if "scopes" not in self.accepted:
            self._breach("+SNAPSHOT_SCOPE was not agreed on")
            return
        if self.state is State.SYNCING and self._may_resume:
            self._resume(output)
        # A link that claimed nothing may begin with one, which then tells where the stream is.
        self._ship = ShipBegins(self.state is State.LIVE, event.prefix, event.epoch)
        self.state = State.SHIPPING_SCOPE
        output.append(self._ship)

    def _chunk(self, event: Chunk, output: Output) -> None:
        output.append(ShipData(event.data))

    def _ship_ends(self, event: SnapshotEnd, output: Output) -> None:
        if self._midstream and not self.confirmed:
            # A kevy that flushed has begun a new history, and says so in its next heartbeat.
            self.history = 0
        self._ship = None
        self.state = State.LIVE
        self._stuck_at = -1
        self.expected = self.announced = event.next_offset
        output.append(ShipEnds(self.history, event.next_offset, self.ancestors))

    def _scope_ship_ends(self, event: SnapshotEnd, output: Output) -> None:
        ship = self._ship
        assert ship is not None
        if ship.midstream and event.next_offset != self.expected:
            self._gap(event.next_offset)
            return
        prefix, self._ship = ship.prefix, None
        self.state = State.LIVE
        self._stuck_at = -1
        self.expected = event.next_offset
        self.announced = max(self.announced, event.next_offset)
        output.append(ShipEnds(self.history, event.next_offset, self.ancestors, prefix))


_Step: TypeAlias = Callable[[ReplicaMachine, Any, Output], None]

#: Every event that may come in each state, and what it leads to. Any other ends the link.
TABLE: Final[dict[State, dict[type[Any], _Step]]] = {
    State.CONNECTING: {
        Acknowledged: ReplicaMachine._acknowledged,
        ErrorLine: ReplicaMachine._refused,
    },
    State.SYNCING: {
        Accepted: ReplicaMachine._accept,
        Ancestors: ReplicaMachine._descend,
        Frames: ReplicaMachine._first_frames,
        Skip: ReplicaMachine._first_skip,
        AckRequested: ReplicaMachine._ack_requested,
        Ping: ReplicaMachine._early_ping,
        SnapshotBegin: ReplicaMachine._ship_begins,
        ScopeSnapshotBegin: ReplicaMachine._scope_ship_begins,
        ErrorLine: ReplicaMachine._failed,
    },
    State.SHIPPING: {
        Chunk: ReplicaMachine._chunk,
        Ping: ReplicaMachine._ship_ping,
        SnapshotEnd: ReplicaMachine._ship_ends,
        ErrorLine: ReplicaMachine._failed,
    },
    State.LIVE: {
        Frames: ReplicaMachine._frames,
        Skip: ReplicaMachine._skip,
        AckRequested: ReplicaMachine._ack_requested,
        Ping: ReplicaMachine._live_ping,
        SnapshotBegin: ReplicaMachine._ship_begins,
        ScopeSnapshotBegin: ReplicaMachine._scope_ship_begins,
        ErrorLine: ReplicaMachine._failed,
    },
    State.SHIPPING_SCOPE: {
        Chunk: ReplicaMachine._chunk,
        Ping: ReplicaMachine._ship_ping,
        SnapshotEnd: ReplicaMachine._scope_ship_ends,
        ErrorLine: ReplicaMachine._failed,
    },
    State.LOST: {},
}

_NAMES: Final[dict[type[Any], str]] = {
    Acknowledged: "+ACK",
    Accepted: "+CAPA",
    Ancestors: "+LINEAGE",
    Frames: "an entry",
    Skip: "+SKIP",
    AckRequested: "+ACKREQ",
    Ping: "+PING",
    SnapshotBegin: "+SNAPSHOT",
    ScopeSnapshotBegin: "+SNAPSHOT_SCOPE",
    Chunk: "a chunk",
    SnapshotEnd: "+SNAPSHOT_END",
    ErrorLine: "an error",
}
