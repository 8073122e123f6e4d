"""WATCH: which keys each session watches, and which sessions have seen one change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..store.journal import Effect
from ..store.store import Store
from .idle import NOTHING, own

if TYPE_CHECKING:
    from .session import Session

__all__ = ["Watches"]


class Watches:
    """The watched keys of all sessions. Observes the journal only while somebody watches."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._by_key: dict[bytes, dict[Session, None]] = {}

    @property
    def count(self) -> int:
        """How many keys are watched."""
        return len(self._by_key)

    def add(self, session: Session, key: bytes) -> None:
        """Watch ``key`` for ``session``, noting what is there now."""
        if key in session.watched:
            return
        if not self._by_key:
            self._store.journal.observers.append(self.observe)
        shard = self._store.keyspace.directory[hash(key) >> self._store.keyspace.shift]
        there = key in shard
        watched = own(session.watched)
        watched[key] = (there, there and self._store.peek(key) is None)
        session.watched = watched
        self._by_key.setdefault(key, {})[session] = None

    def clear(self, session: Session) -> None:
        """Forget everything that ``session`` watches."""
        if not session.watched:
            return
        for key in session.watched:
            watchers = self._by_key[key]
            del watchers[session]
            if not watchers:
                del self._by_key[key]
        session.watched = NOTHING
        if not self._by_key:
            self._store.journal.observers.remove(self.observe)

    def observe(self, _offset: int, group: list[Effect]) -> None:
        """Journal observer: mark the sessions that watch a key which has changed."""
        for _, key, _ in group:
            if key is None:
                # Everything is gone: a change for whoever watched a key that was there.
                for watched, watchers in self._by_key.items():
                    for session in watchers:
                        if session.watched[watched][0]:
                            session.dirty = True
            else:
                for session in self._by_key.get(key, ()):
                    # The removal of a key that had expired before it was watched is no change.
                    if not session.watched[key][1]:
                        session.dirty = True

    def moved(self, prefixes: tuple[bytes, ...]) -> None:
        """Mark the sessions that watch a key under one of the prefixes: another node has become its writer."""
        for key, watchers in self._by_key.items():
            if key.startswith(prefixes):
                for session in watchers:
                    session.dirty = True

    def has_expired(self, session: Session) -> bool:
        """Whether a key that was live when ``session`` began to watch it has expired since."""
        store = self._store
        for key, (there, expired) in session.watched.items():
            if there and not expired and store.peek(key) is None:
                return True
        return False
