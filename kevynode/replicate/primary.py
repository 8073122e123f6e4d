"""One connection to a replica, seen from its primary: what to send next, and what the replica says, without I/O.

The states of its life stand in :mod:`kevynode.replicate.primary_states`; where it has ended, ``reason`` says why.
Every link sends from a cursor, so a slow replica costs no memory of its own: it falls off the backlog instead.

What this node may still lose is told to nobody. While its files are behind, a link is **held**: it answers no
handshake, sends no entry and begins no snapshot. Heartbeats go on where the answer has gone out, and tell of nothing
beyond what was sent; a snapshot that has begun goes on, because it was frozen at a moment when all could be told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from . import wire
from .backlog import Cursor, Pin, TooOld
from .coverage import Coverage
from .decision import Resume, Snapshot
from .flights import Flights
from .handshake import CAPABILITIES, Form, Request, format_answer
from .link_source import LinkSource
from .primary_states import TRANSITIONS, Cause, State
from .ships import Ship
from .slots import Slot
from .snapshot import encode_snapshot
from .wire import AckDecoder

__all__ = ["TAKE", "PrimaryLink"]

#: Bytes handed out by one call of :meth:`PrimaryLink.take`, about: a millisecond's work while a snapshot is made.
TAKE: Final = 128 * 1024
# Pieces of a snapshot made in one call.
_PIECES: Final = 8
# Version of the snapshot format that every peer reads, and the one that carries deadlines of hash fields.
_PLAIN_VERSION: Final = 4
_FIELD_DEADLINE_VERSION: Final = 6


class PrimaryLink:
    """The primary's side of one connection. Not thread-safe; never blocks. Times are monotonic seconds.

    A driver sends what :meth:`take` returns and feeds :meth:`receive`; between two takes it waits until :meth:`wake`
    is called. ``decision`` is what the handshake came to; ``withheld`` are capabilities that this node lacks now.
    """

    def __init__(
        self,
        request: Request,
        decision: Resume | Snapshot,
        slot: Slot,
        source: LinkSource,
        now: float,
        withheld: frozenset[str] = frozenset(),
    ) -> None:
        self.request = request
        self.slot = slot
        self.state = State.HANDSHAKE
        self.reason = ""
        self.heard = now
        # Called when there is something to send after there was nothing.
        self.on_wake: Callable[[], None] | None = None
        # Ends the connection at once, whatever it waits for.
        self.hang_up: Callable[[], None] | None = None
        # Since when the connection has not taken what was handed out; None: it has taken it all.
        self.sending_since: float | None = None
        self.sent_bytes = 0
        self._number = slot.link
        self._source = source
        self._capabilities = request.capabilities
        self._grouped = "txn" in request.capabilities
        self._beats = request.form is not Form.FIVE
        self.coverage = Coverage(request.capabilities, slot)
        self._decoder = AckDecoder()
        accepted = set(CAPABILITIES) - withheld - (set() if self.coverage.filtered else {"scopes"})
        # The answer to the handshake, until it has gone out.
        self._answer = format_answer(request, source.lineage, accepted)
        # Whether the last take found that nothing more may be told yet, and the next offset when it last might.
        self._held = False
        self._tellable = 0
        self._cursor: Cursor | None = None
        # Prefixes that this node has released before the cursor.
        self._released: list[bytes] = []
        self._pin: Pin | None = None
        self._ship: Ship | None = None
        # Why a snapshot of everything is due.
        self._ship_due: str | None = None
        self._beat_due = self._beats
        self._ask_due = False
        # The next offset that the replica knows of, by frames or by SKIP.
        self._told = 0
        self._flights = Flights()
        self._behind_since: float | None = None
        if isinstance(decision, Resume):
            self._follow_from(decision.offset)
            slot.resumed(source.lineage.history, decision.offset, now)
            self._move("resume")
        else:
            self._ship_due = decision.reason
            # Whatever an earlier connection left: until the snapshot is there this replica counts for nothing.
            slot.state = "handshake"

    # -- for the driver ---------------------------------------------------------------------------------------------

    def receive(self, data: bytes, now: float) -> int | None:
        """The last position that the replica claims with these bytes, or None; it has yet to be checked.

        A claim beyond what was sent is none. A peer that breaks the protocol closes the link.
        """
        self.heard = now
        acknowledged: int | None = None
        for message in self._decoder.feed(data):
            match message:
                case ("scopes", prefixes):
                    self._name_prefixes(prefixes)
                case ("resync", prefix):
                    self._name_prefixes(())
                    self._resync(prefix)
                case ("resynced", prefix):
                    self.coverage.in_place(prefix)
                case ("ack", offset):
                    self._name_prefixes(())
                    acknowledged = offset
        if self._decoder.error is not None:
            self.close(f"the replica broke the protocol: {self._decoder.error}")
        if acknowledged is not None and acknowledged > self.slot.sent:
            # Nobody has what was not sent.
            return None
        return acknowledged

    def take(self, now: float) -> list[bytes]:
        """What to send next, in parts, about :data:`TAKE` bytes; empty if there is nothing: see :attr:`busy`."""
        parts: list[bytes] = []
        if self.state is not State.SNAPSHOT and not self._may_tell(now):
            if self._beat_due and not self._answer:
                self._beat(parts)
                self.sent_bytes += len(parts[0])
            return parts
        if self._answer:
            self._begin(parts, now)
        if self.state is State.STREAMING and self.coverage.named and self._ship_due is None:
            self._take_frames(parts, now)
        if self._ship_due is not None and self.state in (State.HANDSHAKE, State.STREAMING):
            self._begin_full_ship(parts, now)
        if self.state is State.SNAPSHOT:
            self._take_chunks(parts, now)
        if self.state is State.CLOSED:
            return []
        if self._beat_due:
            if self.state is not State.SNAPSHOT:
                self._skip(parts)
            self._beat(parts)
        self.sent_bytes += sum(map(len, parts))
        return parts

    def _may_tell(self, now: float) -> bool:
        """Whether everything up to this moment may be told; asked once for all that one take sends."""
        self._held = self.state is not State.CLOSED and not self._source.may_tell()
        if not self._held:
            self._tellable = self._source.backlog.next
        elif self._behind_since is None and self.state is State.STREAMING and not self.caught_up:
            self._behind_since = now
        return not self._held

    def _begin(self, parts: list[bytes], now: float) -> None:
        """Answer the handshake."""
        parts.append(self._answer)
        self._answer = b""
        # Before that it could say nothing.
        self.heard = now

    def _beat(self, parts: list[bytes]) -> None:
        """Say how far the stream is, as far as that may be told."""
        self._beat_due = False
        source, position = self._source, self._tellable
        if self._held and self.state is State.STREAMING:
            # It would take what is not sent after that for lost.
            position = self._told
        elif not self._held and (self.state is not State.SNAPSHOT or source.may_tell()):
            position = source.backlog.next
        parts.append(wire.ping(source.lineage.history, position))

    def heartbeat(self) -> None:
        """A PING is due, where the peer knows them."""
        self._beat_due = self._beats
        self.wake()

    def ask(self) -> None:
        """Have the replica say how far it is: one round trip where it can be asked."""
        if "ackreq" in self._capabilities:
            self._ask_due = True
        elif self._beats:
            # A peer that cannot be asked acknowledges at every PING.
            self._beat_due = True
        self.wake()

    def acknowledged(self, offset: int) -> None:
        """The replica has applied everything before ``offset`` (a claim that has been checked)."""
        self._flights.land(offset)

    def wake(self) -> None:
        """There may be something to send."""
        if self.on_wake is not None:
            self.on_wake()

    def close(self, reason: str) -> None:
        """Send nothing more; the first reason stands."""
        if self.state is State.CLOSED:
            return
        self.reason = reason
        self._move("close")
        self._ship = None
        self._cursor = None
        self._unpin()
        self.wake()

    # -- for status -------------------------------------------------------------------------------------------------

    @property
    def number(self) -> int:
        """Which connection of its slot this is."""
        return self._number

    @property
    def closed(self) -> bool:
        """Whether nothing more will be sent."""
        return self.state is State.CLOSED

    @property
    def busy(self) -> bool:
        """Whether there is more to do at once, also if the last take found nothing to send: a filter looks at much."""
        if self.state is State.SNAPSHOT:
            return True
        cursor = self._cursor
        return (
            self.state is State.STREAMING
            and not self._held
            and self.coverage.named
            and self._ship_due is None
            and cursor is not None
            and cursor.offset < self._source.backlog.next
        )

    @property
    def waits_for_acknowledgements(self) -> bool:
        """Whether this peer has to say how far it is.

        Not while it takes a snapshot, which is a sign of life itself, or has not been answered.
        """
        return self._beats and self.state is not State.SNAPSHOT and not self._answer

    @property
    def caught_up(self) -> bool:
        """Whether everything that is in the backlog has been handed out, and no snapshot is due."""
        cursor = self._cursor
        return (
            self.state is State.STREAMING
            and self._ship_due is None
            and cursor is not None
            and cursor.offset >= self._source.backlog.next
        )

    @property
    def ship_size(self) -> int:
        """Bytes of the running snapshot handed out so far; 0 while there is none."""
        return 0 if self._ship is None else self._ship.size

    def lag_bytes(self) -> int:
        """Bytes of the stream that the replica has not acknowledged, sent or not, about; a snapshot does not count."""
        # Until there is a cursor: what follows the snapshot.
        position = self.slot.sent if self._cursor is None else self._cursor.offset
        return self._flights.size + (0 if self.state is State.CLOSED else self._source.backlog.bytes_from(position))

    def lag_ms(self, now: float) -> int:
        """How long the oldest entry has been on its way, in milliseconds, about; 0 if there is none."""
        moments = [moment for moment in (self._flights.oldest, self._behind_since) if moment is not None]
        return max(0, round((now - min(moments)) * 1000)) if moments else 0

    # -- the stream -------------------------------------------------------------------------------------------------

    def _take_frames(self, parts: list[bytes], now: float) -> None:
        backlog, cursor = self._source.backlog, self._cursor
        assert cursor is not None
        backlog.seal()
        start = len(parts)
        try:
            if self.coverage.filtered:
                self._take_filtered(parts, cursor)
            else:
                parts += backlog.read(cursor, TAKE, self._grouped)
                self._told = cursor.offset
        except TooOld as error:
            self._fall_off(error, now)
            return
        self._sent(cursor.offset)
        if self._beats and len(parts) > start:
            self._flights.take_off(cursor.offset, sum(map(len, parts[start:])), now)
        if cursor.at_flush:
            self._flushed(cursor)
            return
        behind = cursor.offset < backlog.next
        if behind:
            if self._behind_since is None:
                self._behind_since = now
            if self._pin is not None:
                self._pin.move(cursor.offset)
            return
        self._behind_since = None
        if self._pin is not None:
            self._unpin()
            self._source.ship_caught_up(self)
        self._skip(parts)
        if self._ask_due:
            self._ask_due = False
            parts.append(wire.ACK_REQUEST)
        if self.coverage.resyncs:
            # In its place in the stream: behind every entry before it.
            self._begin_scope_ship(parts, now)

    def _take_filtered(self, parts: list[bytes], cursor: Cursor) -> None:
        prefixes = self.coverage.prefixes or ()
        frames, expected = self._source.backlog.read_filtered(
            cursor, lambda key: key.startswith(prefixes), TAKE, self._told, self._released
        )
        parts += frames
        self._told = expected

    def _skip(self, parts: list[bytes]) -> None:
        """Tell a filtered replica how far the stream is, where its frames do not."""
        if self.coverage.filtered and self._cursor is not None and self._told < self._cursor.offset:
            self._told = self._cursor.offset
            parts.append(wire.skip(self._told))

    def _flushed(self, cursor: Cursor) -> None:
        """Everything has been removed: a peer that knows no FLUSHALL gets a fresh copy of what there is."""
        self._source.backlog.skip_flush(cursor)
        if self.request.form is Form.FIVE:
            # It is not known to take a snapshot in the middle of a stream.
            self.slot.served = None
            self.close("everything was flushed: the replica must start over")
        else:
            self._ship_due = "everything was flushed"

    def _fall_off(self, error: TooOld, now: float) -> None:
        if self._pin is not None and self._pin.lost:
            self._source.ship_overrun(self, now)
            self.close(f"more was written during the snapshot than the backlog may hold: {error}")
        else:
            self.close(f"the replica fell off the backlog: {error}")

    # -- ships ------------------------------------------------------------------------------------------------------

    def _begin_full_ship(self, parts: list[bytes], now: float) -> None:
        if not self.coverage.named or not self._source.may_ship(self, now, self.coverage.prefixes):
            return
        assert self._ship_due is not None
        self._source.ship_started(self, "full", self._ship_due, now)
        self._ship_due = None
        self.slot.ship_began(self._source.lineage.history)
        # What it holds while this is under way is nothing to go on from.
        self.slot.served = None
        self.coverage.ships_everything()
        self._begin_ship(parts, self.coverage.prefixes, None, wire.SNAPSHOT_BEGIN)

    def _begin_scope_ship(self, parts: list[bytes], now: float) -> None:
        prefix = self.coverage.resyncs.first
        if not self._source.may_ship(self, now, (prefix,)):
            return
        header = self.coverage.resyncs.begin(prefix, self._source.epoch(prefix))
        self._source.ship_started(self, "scope", f"the replica asked for {prefix!r}", now)
        self._begin_ship(parts, (prefix,), prefix, header)

    def _begin_ship(
        self, parts: list[bytes], prefixes: tuple[bytes, ...] | None, scope: bytes | None, header: bytes
    ) -> None:
        source = self._source
        source.backlog.seal()
        offset = source.backlog.next
        self._unpin()
        self._pin = source.backlog.pin(offset)
        shards, field_deadlines = source.freeze()
        version = _FIELD_DEADLINE_VERSION if field_deadlines and self._beats else _PLAIN_VERSION
        accept = None if prefixes is None else lambda key: key.startswith(prefixes)
        self._ship = Ship(encode_snapshot(shards, version=version, accept=accept), offset, scope, header)
        self._cursor = None
        self._move("ship")
        parts.append(header)

    def _take_chunks(self, parts: list[bytes], now: float) -> None:
        ship, pin = self._ship, self._pin
        assert ship is not None
        # Only what is sealed counts towards the budget.
        self._source.backlog.seal()
        if pin is not None and pin.lost:
            self._source.ship_overrun(self, now)
            self.close("more was written during the snapshot than the backlog may hold")
            return
        if self._beat_due:
            self._beat(parts)
        taken = 0
        for looked, piece in enumerate(ship.pieces, 1):
            taken += len(piece)
            parts += wire.chunks(piece)
            # With a filter a piece may be empty and have taken its time all the same.
            if taken >= TAKE or looked >= _PIECES:
                ship.size += taken
                return
        ship.size += taken
        parts.append(wire.snapshot_end(ship.offset))
        self._ship = None
        self._follow_from(ship.offset)
        self.heard = now
        if not self._beats:
            self.slot.served_from = ship.offset
        if ship.prefix is None:
            self.slot.ship_ended(ship.offset)
        self._sent(ship.offset)
        self._move("shipped")
        self._source.ship_ended(self, ship.size, now)

    def _name_prefixes(self, prefixes: tuple[bytes, ...]) -> None:
        """What a filtered link carries; nothing named means all that this node owns. Said once, before it begins."""
        try:
            if self.coverage.name(prefixes, self._source.owned_prefixes):
                self.wake()
        except ValueError as error:
            self.close(str(error))

    def _resync(self, prefix: bytes) -> None:
        try:
            self.coverage.ask(prefix)
        except ValueError as error:
            self.close(str(error))
        self.wake()

    def _unpin(self) -> None:
        if self._pin is not None:
            self._pin.release()
            self._pin = None

    # -- bookkeeping ------------------------------------------------------------------------------------------------

    def _follow_from(self, offset: int) -> None:
        """Send the entries from ``offset`` on next."""
        self._cursor = self._source.backlog.cursor(offset)
        self._released = self._source.released_before(offset)
        self._told = offset

    def _sent(self, offset: int) -> None:
        slot = self.slot
        if slot.sent < offset:
            slot.sent = offset
        if not self._beats:
            # It names no history when it comes back: how far it was served is all that can be known of it.
            slot.served = offset

    def _move(self, cause: Cause) -> None:
        self.state = TRANSITIONS[self.state, cause]
