"""One connection to a primary, seen from its replica: what its bytes mean, and what to answer, without I/O.

What each event of the stream means is decided in :mod:`kevynode.replicate.replica_machine`; here are the bytes, the
time that may pass, and the acknowledgements.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from .handshake import Form, Request, format_request
from .replica_events import Fault, LinkEvent, State
from .replica_machine import Output, ReplicaMachine
from .stream_decoder import StreamDecoder
from .wire import ack, resync, resynced

__all__ = ["HANDSHAKE_SECONDS", "QUIET_SECONDS", "SILENCE_SECONDS", "ReplicaLink"]

#: Seconds in which a primary has to answer the handshake.
HANDSHAKE_SECONDS: Final = 10.0
#: Seconds of silence that a primary with heartbeats may take; it beats every second.
SILENCE_SECONDS: Final = 10.0
#: Seconds of silence behind ``+ACK`` after which a five-argument primary, which never says that we are complete, is
#: taken to go on where we stopped. If a snapshot comes later it is one in the middle of the stream.
QUIET_SECONDS: Final = 1.0
#: Seconds between two acknowledgements of entries, to a primary that can ask for one, and to one that cannot.
ACK_INTERVAL: Final = 0.1
UNASKED_ACK_INTERVAL: Final = 0.01


class ReplicaLink(ReplicaMachine):
    """The replica's side of one connection. Never blocks. Times are monotonic seconds.

    ``request`` is what to ask for, ``peer`` how texts call the primary. ``prefixes`` narrows a link that asks for
    ``scopes``; of those in ``missing`` nothing is held, so a snapshot of each is asked for where the link goes on.
    ``bulk_limit`` bounds one argument of an entry in bytes.

    The driver sends what :meth:`start` returns, feeds what arrives, applies the events in order and reports it with
    :meth:`applied`; it waits for bytes until :meth:`deadline` and calls :meth:`timed_out` then, and sends
    :meth:`to_send` whenever ``send_at`` has come.
    """

    def __init__(
        self,
        request: Request,
        peer: str,
        *,
        prefixes: Sequence[bytes] = (),
        missing: Sequence[bytes] = (),
        bulk_limit: int | None = None,
    ) -> None:
        super().__init__(request, peer, prefixes, missing)
        # What has been applied.
        self.position = request.offset
        self.received_bytes = 0
        self._decoder = StreamDecoder() if bulk_limit is None else StreamDecoder(bulk_limit)
        self._ack_due = False
        self._acked_at = -math.inf

    # -- for the driver ---------------------------------------------------------------------------------------------

    def start(self, now: float) -> bytes:
        """The handshake, to be sent first."""
        self._since = now
        return format_request(self.request)

    def feed(self, data: bytes, now: float) -> list[LinkEvent]:
        """What these bytes say. They may end the link: what came before the end still counts."""
        output: Output = []
        if self.state is State.LOST:
            return output
        self._now = now
        self.received_bytes += len(data)
        decoder = self._decoder
        for event in decoder.feed(data):
            self._take(event, output)
            if self.fault is not None:
                return output
        if decoder.error is not None:
            self._lose(Fault.PROTOCOL, f"{self.peer} broke the protocol: {decoder.error}")
        return output

    def end_of_stream(self) -> None:
        """The primary has closed the connection."""
        if self._ship is not None:
            where = "in the middle of a snapshot"
        elif self.state is State.CONNECTING:
            where = "in its handshake" if self.received_bytes else "without a word"
        else:
            where = "after the handshake" if self.state is State.SYNCING else "while streaming"
        self._lose(Fault.ENDED, f"{self.peer} closed the connection {where}")

    def close(self, reason: str) -> None:
        """This side ends the link, or the connection broke; the first reason stands."""
        self._lose(Fault.CLOSED, reason)

    def break_off(self, reason: str) -> None:
        """What the primary sent cannot be used, as the driver found: as bad as a broken rule."""
        self._lose(Fault.PROTOCOL, reason)

    def deadline(self, now: float) -> float:
        """Until when to wait for bytes, if waiting begins ``now``; ``math.inf``: for ever."""
        if self.state is State.CONNECTING:
            return self._since + HANDSHAKE_SECONDS
        if self.request.form is not Form.FIVE:
            return now + SILENCE_SECONDS
        return self._since + QUIET_SECONDS if self.state is State.SYNCING else math.inf

    def timed_out(self, now: float) -> list[LinkEvent]:
        """The deadline has passed without a byte."""
        output: Output = []
        self._now = now
        if self.state is State.CONNECTING:
            self._lose(Fault.SILENT, f"{self.peer} did not answer the handshake within {HANDSHAKE_SECONDS:.0f} s")
        elif self.request.form is not Form.FIVE:
            self._lose(Fault.SILENT, f"{self.peer} was silent for {SILENCE_SECONDS:.0f} s")
        elif self.state is State.SYNCING:
            self._resume(output)
        return output

    def applied(self, offset: int, now: float) -> None:
        """Everything before ``offset`` has been applied: it will be acknowledged soon."""
        if offset == self.position:
            return
        self.position = offset
        if self.request.form is not Form.FIVE:
            interval = ACK_INTERVAL if "ackreq" in self.accepted else UNASKED_ACK_INTERVAL
            self._ack_due = True
            self.send_at = min(self.send_at, max(now, self._acked_at + interval))

    def acknowledge(self, now: float) -> None:
        """Say at once how far this copy is: at every heartbeat, and when asked, once what came before is applied."""
        if self.request.form is not Form.FIVE:
            self._ack_due = True
            self.send_at = min(self.send_at, now)

    def ask_for(self, prefix: bytes) -> None:
        """Ask for a snapshot of the keys under ``prefix``, in its place in the stream. Only on a filtered link."""
        self._say(resync(prefix))

    def resynced(self, prefix: bytes) -> None:
        """Such a snapshot is in place: from now on acknowledgements speak of that prefix, too."""
        self._say(resynced(prefix))

    def to_send(self, now: float) -> bytes:
        """What to send at ``send_at``; empty if there is nothing."""
        data, self._outgoing = self._outgoing, b""
        self.send_at = math.inf
        if self._ack_due and self.state is not State.LOST:
            self._ack_due = False
            self._acked_at = now
            # Until the stream has begun, or while all is replaced, nothing of it is in this copy.
            held = self.position if self.state in (State.LIVE, State.SHIPPING_SCOPE) else 0
            data += ack(held)
        return data

    @property
    def caught_up(self) -> bool:
        """Whether everything that has come is applied, as far as one side alone can know."""
        return self.state is State.LIVE and self.position == self.expected
