"""Commands and bytes per second over the last moments, and the peak of memory: what INFO cannot tell from counters."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from ..store.memory import MemoryMeter

if TYPE_CHECKING:
    from .server import Server

__all__ = ["Rates", "Speed"]

# As Valkey: the mean of the last 16 samples.
_SAMPLES: Final = 16


class Speed(NamedTuple):
    """Counts per second: commands, bytes of clients in and out, bytes of replication in and out."""

    commands: float
    input_bytes: float
    output_bytes: float
    copied_in: float
    copied_out: float


class _Sample(NamedTuple):
    moment: float
    # In the order of Speed.
    counts: tuple[int, int, int, int, int]


class Rates:
    """The node calls :meth:`sample` about ten times a second; without that every rate is 0."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._meter = MemoryMeter(server.store)
        self._samples: deque[_Sample] = deque(maxlen=_SAMPLES)
        # Bytes held for clients when they were last counted; a walk over all of them is nothing for every command.
        self._clients = 0
        self._taken = 0
        # Bytes of the backlog when it was last looked at.
        self._backlog = 0
        # The most that memory() and the backlog have been seen at.
        self._peak = 0

    def commands(self) -> int:
        """Commands run since the statistics were last reset."""
        return sum(command.calls for command in self._server.all_commands())

    def sample(self) -> None:
        """Take the counters as they are now."""
        server = self._server
        statistics = server.statistics
        traffic = server.copy_traffic()
        counts = (
            self.commands(),
            statistics.input_bytes + traffic.received_bytes,
            statistics.output_bytes + traffic.sent_bytes,
            traffic.received_bytes,
            traffic.sent_bytes,
        )
        self._samples.append(_Sample(server.monotonic(), counts))
        self._backlog = server.view.backlog().memory
        if self._taken % _SAMPLES == 0:
            self._clients = self.client_memory()
        self._taken += 1
        self.memory()

    def reset(self) -> None:
        """Begin anew: the counters have been set to zero."""
        self._samples.clear()
        self._peak = 0

    def memory(self) -> int:
        """Bytes that data, indexes and the buffers of clients (as last counted) take, in O(1); notes the peak.

        The backlog is not among them: evicting keys would not make it smaller.
        """
        used = self._meter.used() + self._clients
        self._peak = max(self._peak, used + self._backlog)
        return used

    def foreign_memory(self) -> int:
        """Bytes of :meth:`memory` that copies of other nodes' keys take: evicting is not this node's to do there."""
        return self._meter.foreign()

    def own_memory(self) -> int:
        """Bytes that count toward ``maxmemory``: :meth:`memory` without the copies of other nodes' keys."""
        return self.memory() - self._meter.foreign()

    def peak(self) -> int:
        """The most bytes that were ever in use, the backlog included."""
        self._backlog = self._server.view.backlog().memory
        self.memory()
        return self._peak

    def client_memory(self) -> int:
        """Bytes held for clients: unfinished commands, unsent replies, open transactions."""
        return sum(session.memory for session in self._server.sessions.values())

    def per_second(self) -> Speed:
        """Counts per second; bytes of replication are also among those in and out, as in Valkey."""
        if len(self._samples) < 2:
            return Speed(0.0, 0.0, 0.0, 0.0, 0.0)
        first, last = self._samples[0], self._samples[-1]
        seconds = last.moment - first.moment
        if seconds <= 0:
            return Speed(0.0, 0.0, 0.0, 0.0, 0.0)
        return Speed(*((after - before) / seconds for before, after in zip(first.counts, last.counts, strict=True)))
