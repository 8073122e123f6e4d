"""Clients that wait for a key or a signal: who waits for what, and serving them when it comes.

A blocked client is parked on its keys. When a group of effects touches one of them, the client's command simply runs
again; the first to wait is the first to be served, after the whole EXEC of whoever made the change, and the order of
the client's own arguments decides between two keys that are ready. What a served command changes may serve others.
Whoever waits for a signal of the node (replicas that acknowledge, say) has its command run again at each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..errors import ReplyError
from ..reply import Reply
from ..store.command import Args, Blocked, Command
from ..store.journal import Effect
from ..store.store import Store
from .timers import Timer, Timers

if TYPE_CHECKING:
    from .session import Session

__all__ = ["Waiters", "Waiting"]


class Waiting:
    """One parked command: what to run again, and the timer that gives up."""

    __slots__ = ("argv", "blocked", "command", "since", "timer")

    def __init__(self, command: Command, argv: Args, blocked: Blocked, since: float) -> None:
        self.command = command
        self.argv = argv
        self.blocked = blocked
        self.since = since
        self.timer: Timer | None = None


class Waiters:
    """Everybody who waits, in order of arrival by key or signal."""

    def __init__(self, store: Store, timers: Timers, clock: Callable[[], float]) -> None:
        self._store = store
        self._timers = timers
        self._clock = clock
        self._by_key: dict[bytes, dict[Session, None]] = {}
        self._by_signal: dict[str, dict[Session, None]] = {}
        # Keys that somebody waits for and that have changed, in order of the change.
        self.ready: dict[bytes, None] = {}
        self._all: dict[Session, None] = {}

    @property
    def count(self) -> int:
        """How many sessions wait."""
        return len(self._all)

    @property
    def key_count(self) -> int:
        """How many keys somebody waits for."""
        return len(self._by_key)

    def observe(self, _offset: int, group: list[Effect]) -> None:
        """Journal observer: remember which awaited keys a group touched."""
        by_key = self._by_key
        for _, key, _ in group:
            if key in by_key and key is not None:
                self.ready[key] = None

    def park(self, session: Session, command: Command, argv: Args, blocked: Blocked) -> None:
        """Let a session wait; it runs no further command until it is served, times out or is unblocked."""
        waiting = Waiting(command, argv, blocked, self._clock())
        session.waiting = waiting
        self._all[session] = None
        if blocked.keys and not self._by_key:
            self._store.journal.observers.append(self.observe)
        for key in blocked.keys:
            self._by_key.setdefault(key, {})[session] = None
        if blocked.signal is not None:
            self._by_signal.setdefault(blocked.signal, {})[session] = None
        if blocked.timeout:
            waiting.timer = self._timers.at(
                waiting.since + blocked.timeout / 1000, lambda: self.release(session, blocked.give_up())
            )

    def forget(self, session: Session) -> None:
        """Take a session off all that it waits for, without a reply."""
        waiting = session.waiting
        if waiting is None:
            return
        session.waiting = None
        if waiting.timer is not None:
            waiting.timer.cancel()
        del self._all[session]
        blocked = waiting.blocked
        for key in blocked.keys:
            queue = self._by_key.get(key)
            if queue is not None and session in queue:
                del queue[session]
                if not queue:
                    del self._by_key[key]
        if blocked.keys and not self._by_key:
            self._store.journal.observers.remove(self.observe)
            self.ready.clear()
        if blocked.signal is not None:
            del self._by_signal[blocked.signal][session]

    def release(self, session: Session, reply: Reply) -> None:
        """End a wait with ``reply`` and let the session go on."""
        self.forget(session)
        session.write(reply)
        session.finish_command()
        session.resume()

    def unblock_all(self, error: ReplyError) -> None:
        """End every wait with ``error`` and close those connections, as Valkey: this is not the node they came to.

        Those who wait until something is applied stay: where it comes from is what they want to know. So do those who
        wait for a dump, which is one whatever the role.
        """
        for session in tuple(self._all):
            waiting = session.waiting
            if waiting is not None and waiting.blocked.signal not in ("applied", "saved"):
                self.release(session, error)
                session.close("the node's role has changed")

    def refuse(self, check: Callable[[Sequence[bytes]], ReplyError | None]) -> list[tuple[Command, ReplyError]]:
        """End every wait to change keys that ``check`` refuses, with its error; which commands, and why.

        The connections stay: their clients may go where the error sends them, and come back.
        """
        refused = []
        for session in tuple(self._all):
            waiting = session.waiting
            if waiting is None or not waiting.command.writes:
                continue
            error = check(waiting.command.written_keys(waiting.argv))
            if error is not None:
                refused.append((waiting.command, error))
                self.release(session, error)
        return refused

    def signal(self, name: str) -> None:
        """Run again the commands of those who wait for the signal ``name``; those that still have to wait stay."""
        queue = self._by_signal.get(name)
        if queue:
            for session in tuple(queue):
                waiting = session.waiting
                if waiting is not None and session in queue:
                    session.ask_again(waiting)

    def serve(self) -> None:
        """Run again the commands of those whose keys are ready, until nobody more can be served."""
        ready = self.ready
        while ready:
            # All at once: taking the oldest entries off a dict one by one takes time for those that are gone.
            keys = list(ready)
            ready.clear()
            for key in keys:
                self._serve_key(key)
                self._store.commit()

    def _serve_key(self, key: bytes) -> None:
        """Serve those who wait for ``key``, first come, first served, for as long as it holds anything."""
        for session in tuple(self._by_key.get(key, ())):
            value = self._store.lookup(key)
            if value is None:
                return
            waiting = session.waiting
            if waiting is None or session not in self._by_key.get(key, ()):
                continue
            # A key of another type does not wake this one; the next may wait for that type.
            if type(value) is not waiting.blocked.kind:
                continue
            # A client that has hung up must not take an element with it.
            if session.peer_gone is not None and session.peer_gone():
                continue
            session.serve_waiting(waiting)
