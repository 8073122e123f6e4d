"""What a node does in the background, in slices so short that clients do not notice: sweeping, closing idle clients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from .server import Server

__all__ = ["SLICE", "Housekeeper", "Job"]

#: Seconds that one turn of all jobs may take while clients may be waiting.
SLICE: Final = 0.001

# Works until the callable answers True or there is nothing left; answers whether there is more to do at once.
Job: TypeAlias = Callable[[Callable[[], bool]], bool]


class Housekeeper:
    """Runs jobs ``hz`` times a second, and sooner again while one of them has more to do than fits into a slice."""

    def __init__(self, server: Server, hz: int) -> None:
        self._server = server
        self.hz = hz
        self.jobs: list[Job] = [self._close_idle]
        # Seconds a client may stay silent; 0 is for ever.
        self.client_timeout = 0
        self._unvisited: list[int] = []

    def work(self) -> float:
        """Do one slice; seconds until the next one should be done."""
        server = self._server
        deadline = server.perf() + SLICE

        def over() -> bool:
            return server.perf() >= deadline

        more = False
        for job in self.jobs:
            more = job(over) or more
        server.commit()
        return 2 * SLICE if more else 1 / self.hz

    def _close_idle(self, over: Callable[[], bool]) -> bool:
        """Close clients that have been silent too long; not those that wait for a key or listen, as in Valkey."""
        if not self.client_timeout:
            return False
        sessions = self._server.sessions
        oldest = self._server.perf() - self.client_timeout
        if not self._unvisited:
            self._unvisited = list(sessions)
        while self._unvisited and not over():
            session = sessions.get(self._unvisited.pop())
            if session is None or session.last_active >= oldest:
                continue
            if session.waiting is None and session.kind_of_client() == "normal":
                session.close("idle too long", discard=True)
        return bool(self._unvisited)
