"""What a node does in the background, in slices so short that clients do not notice.

Flushed data is freed, expired keys are swept, idle clients and those that do not read closed, rates sampled; and while
memory is limited, room is made for commands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from ..store.eviction import Evictor
from ..store.expiry import ExpirySweeper
from .server import Server

__all__ = ["SLICE", "Housekeeper", "Job"]

#: Seconds that one turn of all jobs may take while clients may be waiting.
SLICE: Final = 0.001
#: Seconds that a command may spend on making room before it runs; what is missing then is made later.
EVICTION_SLICE: Final = 0.0005
# Seconds between two samples of the rates.
_SAMPLE_EVERY: Final = 0.1
# Seconds after which all clients are looked at again for replies that they have not read; as Valkey.
_ASK_EVERY: Final = 1.0
# Seconds after which the copies of other nodes' keys are counted anew.
_COUNT_EVERY: Final = 60

# Works until the callable answers True or there is nothing left; answers whether there is more to do at once.
Job: TypeAlias = Callable[[Callable[[], bool]], bool]


class Housekeeper:
    """Runs jobs ``hz`` times a second, and sooner again while one of them has more to do than fits into a slice.

    ``sample`` is the least number of deadlines that a sweep of expired keys looks at.
    """

    def __init__(self, server: Server, sample: int = 20) -> None:
        self._server = server
        self.sweeper = ExpirySweeper(server.store, sample=sample)
        self.evictor = Evictor(server.store, server.rates.own_memory)
        self.jobs: list[Job] = [self._sample, self._free, self._sweep, self._evict, self._close_idle]
        self.jobs += [self._close_slow, self._count_foreign]
        self.hz = 10
        # Seconds a client may stay silent; 0 is for ever.
        self.client_timeout = 0
        self._unvisited: list[int] = []
        self._unasked: list[int] = []
        self._sampled = self._counted = self._asked = server.perf()

    # -- parameters -------------------------------------------------------------------------------------------------

    def set_frequency(self, hz: int) -> None:
        """Run jobs ``hz`` times a second."""
        self.hz = self.sweeper.hz = hz

    def limit_memory(self, limit: int) -> None:
        """Take on ``maxmemory`` (bytes, 0 for none): while there is a limit every command asks for room first."""
        self._server.ask_for_room(self.make_room if limit else None)

    def follow_policy(self, _: str) -> None:
        """Take on ``maxmemory-policy``."""
        self.evictor.follow_policy()

    def make_room(self) -> bool:
        """Evict for a command that is about to run; False if it must be refused should it need memory."""
        if self._server.pause is not None:
            return True
        end = self._server.perf() + EVICTION_SLICE
        return self._make_room(lambda: self._server.perf() >= end)

    def _make_room(self, over: Callable[[], bool]) -> bool:
        room = self.evictor.make_room(over)
        self._server.statistics.evicted_keys += self.evictor.evicted_keys
        self.evictor.evicted_keys = 0
        return room

    # -- jobs -------------------------------------------------------------------------------------------------------

    def work(self) -> float:
        """Do one slice; seconds until the next one should be done."""
        server = self._server
        end = server.perf() + SLICE

        def over() -> bool:
            return server.perf() >= end

        more = False
        for job in self.jobs:
            try:
                more = job(over) or more
            except Exception as error:
                # One job that fails stops neither the others nor the node.
                server.unexpected("housekeeping", error)
        server.commit()
        return 2 * SLICE if more else 1 / self.hz

    def _sample(self, _: Callable[[], bool]) -> bool:
        now = self._server.perf()
        if now - self._sampled >= _SAMPLE_EVERY:
            self._sampled = now
            self._server.rates.sample()
        return False

    def _free(self, over: Callable[[], bool]) -> bool:
        """Let go of what FLUSHALL has removed, shard by shard."""
        discarded = self._server.store.discarded
        while discarded and not over():
            discarded.pop()
        return bool(discarded)

    def _sweep(self, over: Callable[[], bool]) -> bool:
        if self._server.pause is not None:
            # Nothing changes while writes are paused.
            return False
        self.sweeper.active = self._server.active_expire
        return self.sweeper.work(over)

    def _evict(self, over: Callable[[], bool]) -> bool:
        """Go on making room where a command ran out of time for it."""
        if self._server.make_room is None or not self.evictor.behind or self._server.pause is not None:
            return False
        self._make_room(over)
        return self.evictor.behind

    def _count_foreign(self, over: Callable[[], bool]) -> bool:
        """Count the copies of other nodes' keys after a change of owners, and again from time to time."""
        now = self._server.perf()
        if now - self._counted >= _COUNT_EVERY:
            self._counted = now
            self._server.foreign_count.again()
        return self._server.foreign_count.work(over)

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

    def _close_slow(self, over: Callable[[], bool]) -> bool:
        """Ask those who have not read all replies for how much that is, and for how long."""
        sessions = self._server.sessions
        now = self._server.perf()
        if not self._unasked and now - self._asked >= _ASK_EVERY:
            self._asked = now
            self._unasked = list(sessions)
        while self._unasked and not over():
            session = sessions.get(self._unasked.pop())
            if session is not None and (session.output_pending or session.slow_since is not None):
                session.check_output_limit()
        return bool(self._unasked)
