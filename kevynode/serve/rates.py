"""Commands and bytes per second over the last moments, and the peak of memory: what INFO cannot tell from counters."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from ..store.memory import MemoryMeter

if TYPE_CHECKING:
    from .server import Server

__all__ = ["Rates"]

# As Valkey: the mean of the last 16 samples.
_SAMPLES: Final = 16


class _Sample(NamedTuple):
    moment: float
    commands: int
    input_bytes: int
    output_bytes: int


class Rates:
    """The node calls :meth:`sample` about ten times a second; without that every rate is 0."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._meter = MemoryMeter(server.store)
        self._samples: deque[_Sample] = deque(maxlen=_SAMPLES)
        # Bytes held for clients when they were last counted; a walk over all of them is nothing for every command.
        self._clients = 0
        self._taken = 0
        # The most that memory() has been seen at.
        self.peak_memory = 0

    def commands(self) -> int:
        """Commands run since the statistics were last reset."""
        return sum(command.calls for command in self._server.all_commands())

    def sample(self) -> None:
        """Take the counters as they are now."""
        server = self._server
        statistics = server.statistics
        self._samples.append(
            _Sample(server.monotonic(), self.commands(), statistics.input_bytes, statistics.output_bytes)
        )
        if self._taken % _SAMPLES == 0:
            self._clients = self.client_memory()
        self._taken += 1
        self.memory()

    def reset(self) -> None:
        """Begin anew: the counters have been set to zero."""
        self._samples.clear()
        self.peak_memory = 0

    def memory(self) -> int:
        """Bytes that data, indexes and the buffers of clients (as last counted) take, in O(1); notes the peak."""
        used = self._meter.used() + self._clients
        self.peak_memory = max(self.peak_memory, used)
        return used

    def client_memory(self) -> int:
        """Bytes held for clients: unfinished commands, unsent replies, open transactions."""
        return sum(session.memory for session in self._server.sessions.values())

    def per_second(self) -> tuple[float, float, float]:
        """Commands, bytes received and bytes sent per second."""
        if len(self._samples) < 2:
            return 0.0, 0.0, 0.0
        first, last = self._samples[0], self._samples[-1]
        seconds = last.moment - first.moment
        if seconds <= 0:
            return 0.0, 0.0, 0.0
        return (
            (last.commands - first.commands) / seconds,
            (last.input_bytes - first.input_bytes) / seconds,
            (last.output_bytes - first.output_bytes) / seconds,
        )
