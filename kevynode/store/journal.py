"""The one door every change of data goes through.

A handler changes the store and records one canonical **effect** for each change; when its command (or the whole EXEC)
is done, the dispatcher commits them as one **group** at consecutive offsets. Everything that must hear of changes —
WATCH, blocked clients, keyspace notifications, and whatever streams or stores them — observes groups.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

__all__ = ["Effect", "Event", "Journal", "Observer", "Origin"]

# (class flag, event name, key), as Valkey publishes it; see notify.py for the flags.
Event: TypeAlias = tuple[int, bytes, bytes]


# One canonical change: ``(command, key, events)``. ``command`` is the argv that reproduces the change exactly on a copy
# (absolute deadlines, no randomness); ``key`` the key it changed, or None when it changed all of them; ``events`` what
# Valkey would publish for it. A plain tuple, because one is made for every write.
Effect: TypeAlias = tuple[Sequence[bytes], bytes | None, tuple[Event, ...]]

Observer: TypeAlias = Callable[[int, list[Effect]], None]


class Origin(NamedTuple):
    """Where entries come from that were not made here: the upstream they were received from, and its history."""

    upstream: str
    history: int


class Journal:
    """Numbers effects and hands whole groups to the observers. ``offset`` is the number the next effect will get."""

    __slots__ = ("follows", "observers", "offset", "origin", "outside", "pending")

    def __init__(self, offset: int = 0) -> None:
        self.offset = offset
        self.pending: list[Effect] = []
        self.observers: list[Observer] = []
        # While this node is a copy of another one's stream, only that stream's entries have numbers: what is written
        # here beside it stays outside the history.
        self.follows = False
        # Whether anything was written so since this was last set to False.
        self.outside = False
        # Set while entries of another node are applied; None: the entries are this node's own.
        self.origin: Origin | None = None

    def commit(self, next_offset: int | None = None) -> None:
        """Close the open group, if it holds anything, and tell every observer ``(first offset, effects)``.

        The group takes one offset for each effect. With ``next_offset`` it takes all up to that one, however many
        effects it has, none included: so a copy keeps the numbers that its entries came with.
        Each observer hears of every group, also if another one fails; the first failure is raised when all have heard.
        """
        group = self.pending
        first = self.offset
        if next_offset is not None:
            self.offset = next_offset
        elif not self.follows:
            self.offset = first + len(group)
        if not group:
            return
        if self.follows and next_offset is None:
            self.outside = True
        self.pending = []
        observers = self.observers
        if len(observers) == 1:
            observers[0](first, group)
        elif observers:
            failures: list[Exception] = []
            for observer in tuple(observers):
                try:
                    observer(first, group)
                except Exception as error:
                    failures.append(error)
            if failures:
                raise failures[0]
