"""Channels and patterns: who listens to what, and delivering messages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..reply import Push, encode
from ..store.glob import glob_match
from ..store.journal import Effect
from ..store.notify import KEYEVENT, KEYSPACE
from ..store.store import Store

if TYPE_CHECKING:
    from .session import Session

__all__ = ["KeyspaceEvents", "PubSub"]


class PubSub:
    """Subscriptions of all sessions. ``channels``, ``patterns`` and ``shard_channels`` map a name to its listeners."""

    def __init__(self) -> None:
        self.channels: dict[bytes, dict[Session, None]] = {}
        self.patterns: dict[bytes, dict[Session, None]] = {}
        self.shard_channels: dict[bytes, dict[Session, None]] = {}

    @staticmethod
    def join(listeners: dict[bytes, dict[Session, None]], name: bytes, session: Session) -> None:
        """Add a session to the listeners of ``name``."""
        listeners.setdefault(name, {})[session] = None

    @staticmethod
    def leave(listeners: dict[bytes, dict[Session, None]], name: bytes, session: Session) -> None:
        """Take a session off the listeners of ``name``."""
        found = listeners.get(name)
        if found is not None and session in found:
            del found[session]
            if not found:
                del listeners[name]

    def publish(self, channel: bytes, message: bytes) -> int:
        """Deliver to everybody who listens to the channel or to a pattern that matches; the number of deliveries."""
        delivered = 0
        listeners = self.channels.get(channel)
        if listeners:
            delivered += _deliver(listeners, Push((b"message", channel, message)))
        for pattern, followers in tuple(self.patterns.items()):
            if glob_match(pattern, channel):
                delivered += _deliver(followers, Push((b"pmessage", pattern, channel, message)))
        return delivered

    def publish_shard(self, channel: bytes, message: bytes) -> int:
        """Deliver to the listeners of a shard channel; the number of deliveries."""
        return _deliver(self.shard_channels.get(channel, ()), Push((b"smessage", channel, message)))


def _deliver(listeners: Iterable[Session], push: Push) -> int:
    wires: dict[int, bytes] = {}
    count = 0
    for session in tuple(listeners):
        wire = wires.get(session.protocol)
        if wire is None:
            wire = wires[session.protocol] = encode(push, session.protocol)
        session.write_push(wire)
        count += 1
    return count


class KeyspaceEvents:
    """Publishes the events of committed groups, as ``notify-keyspace-events`` asks for."""

    def __init__(self, store: Store, pubsub: PubSub) -> None:
        self._store = store
        self._pubsub = pubsub

    def configure(self, flags: int) -> None:
        """Take on new flags; nothing is observed while they are empty."""
        observers = self._store.journal.observers
        wanted = bool(flags & (KEYSPACE | KEYEVENT))
        self._store.settings.notify_keyspace_events = flags
        if wanted and self.observe not in observers:
            observers.append(self.observe)
            self._store.on_event = self.event
        elif not wanted and self.observe in observers:
            observers.remove(self.observe)
            self._store.on_event = None

    def observe(self, _offset: int, group: list[Effect]) -> None:
        """Journal observer."""
        for _, _, events in group:
            for flag, name, key in events:
                self.event(flag, name, key)

    def event(self, flag: int, name: bytes, key: bytes) -> None:
        """Publish one event if its class is wanted."""
        flags = self._store.settings.notify_keyspace_events
        if not flags & flag:
            return
        if flags & KEYSPACE:
            self._pubsub.publish(b"__keyspace@0__:" + key, name)
        if flags & KEYEVENT:
            self._pubsub.publish(b"__keyevent@0__:" + name, key)
