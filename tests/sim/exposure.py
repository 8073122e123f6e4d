"""What of its entries a node had lost when it was started again: known from what it had, and what it has found.

Nothing here asks a node what it takes for durable. An entry is an offset in a history; when it was made anywhere, and
when each node got it, is noted as it happens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import attrs
import trio
from sim.world import Death, Life, World

from kevynode.replicate.lineage import Lineage
from kevynode.store.journal import Effect

__all__ = ["Exposure", "Lost", "Place", "common", "working_before"]


@attrs.frozen
class Place:
    """Where the data of a node stand: everything before ``offset`` of a lineage."""

    lineage: Lineage
    offset: int

    def chain(self) -> list[tuple[int, int]]:
        """Its histories, newest first, each with the first offset that is not, or not yet, in these data."""
        bound = self.offset
        found = [(self.lineage.history, bound)]
        for history, branch in self.lineage.ancestors:
            bound = min(bound, branch)
            found.append((history, bound))
        return found

    def holds(self, history: int, offset: int) -> bool:
        """Whether an entry is among these data."""
        return any(history == known and offset < bound for known, bound in self.chain())

    def history_of(self, offset: int) -> int:
        """The history in which the entry with this offset was made, as far as is remembered."""
        return next((history for history, bound in reversed(self.chain()) if offset < bound), self.lineage.history)


def common(one: Place, other: Place | None) -> int:
    """The first offset that not both of them hold of one history; 0 if they share none."""
    bounds = {} if other is None else dict(other.chain())
    return max((min(bound, bounds[history]) for history, bound in one.chain() if history in bounds), default=0)


def working_before(moment: float, seconds: float, idle: Iterable[tuple[float, float]]) -> float:
    """When it was ``seconds`` before a moment, without those in ``idle``, which may overlap: from when to when."""
    for begin, end in sorted(idle, key=lambda span: span[1], reverse=True):
        if end <= moment - seconds:
            break
        if begin < moment:
            seconds -= max(0.0, moment - end)
            moment = begin
    return moment - seconds


@attrs.frozen
class Lost:
    """What a start did not find: from an entry on that was made at ``made``, and that the node got at ``got``."""

    offset: int
    made: float
    got: float


@attrs.define(eq=False)
class _Past:
    """What is known of a node over all its lives."""

    #: Where its data stand, as of its last end or its last start.
    place: Place | None = None
    #: When it got each entry, and when it got all of its data at once.
    got: dict[tuple[int, int], float] = attrs.Factory(dict)
    copied: float = -math.inf
    #: When it was last told to follow somebody else.
    redirected: float = -math.inf
    #: The life whose data have been loaded.
    loaded: Life | None = None
    #: When it was not there, or had not loaded: from when to when.
    absent: list[tuple[float, float]] = attrs.Factory(list)
    absent_since: float | None = 0.0

    def keep_what_is_in(self, place: Place | None) -> None:
        """Forget when it got what is not in its data any more."""
        self.got = {entry: when for entry, when in self.got.items() if place is not None and place.holds(*entry)}


class Exposure:
    """Notes what nodes have, and says what a start has not found of it. Make it before anybody who asks it."""

    def __init__(self, world: World) -> None:
        #: Called with each life that has loaded its data, and with where they stand; None: there are none.
        self.on_found: list[Callable[[Life, Place | None], object]] = []
        self._world = world
        self._made: dict[tuple[int, int], float] = {}
        self._pasts: dict[str, _Past] = {}
        world.on_birth.append(self._born)
        world.on_ready.append(self._ready)
        world.on_death.append(self._ended)

    def _past(self, name: str) -> _Past:
        return self._pasts.setdefault(name, _Past())

    def place(self, name: str) -> Place | None:
        """Where the data of a node stand, or stood when it ended; None if it never had any."""
        past, life = self._past(name), self._world.lives.get(name)
        if life is not None and past.loaded is life and not life.dead and life.node is not None:
            return Place(life.node.replication.lineage, life.node.store.journal.offset)
        return past.place

    def has_loaded(self, life: Life) -> bool:
        """Whether a life has come as far as to have its data."""
        return self._past(life.name).loaded is life

    def redirected(self, name: str, since: float) -> bool:
        """Whether a node has been told since then to follow somebody else: what it had may be replaced."""
        return self._past(name).redirected >= since

    def lost(self, name: str, had: Place | None, found: Place | None) -> Lost | None:
        """What is in ``had`` and not in ``found``, both of them a node's; None if nothing is."""
        if had is None:
            return None
        past = self._past(name)
        for offset in range(common(had, found), had.offset):
            entry = had.history_of(offset), offset
            made = self._made.get(entry)
            if made is not None:
                return Lost(offset, made, past.got.get(entry, max(made, past.copied)))
        return None

    def idle(self, name: str) -> list[tuple[float, float]]:
        """When a node was not there, or stopped, or its disk at work for it: from when to when."""
        past = self._past(name)
        spans = [*past.absent, *self._world.disks[name].busy]
        if past.absent_since is not None:
            spans.append((past.absent_since, math.inf))
        return spans

    # -- what happens to nodes ----------------------------------------------------------------------------------------

    def _born(self, life: Life) -> None:
        node = life.node
        assert node is not None
        replication = node.replication
        node.store.journal.observers.append(partial(self._entered, life))
        replication.restored = partial(self._restored, life, replication.restored)  # type: ignore[method-assign]
        replication.follow = partial(self._follow, life, replication.follow)  # type: ignore[method-assign]
        replication.adopt = partial(self._adopted, life, replication.adopt)  # type: ignore[method-assign]

    def _entered(self, life: Life, first: int, group: list[Effect]) -> None:
        node = life.node
        assert node is not None
        journal = node.store.journal
        if life.dead or (journal.follows and group[0][1] is None):
            return
        now, got = trio.current_time(), self._past(life.name).got
        place = Place(node.replication.lineage, journal.offset)
        for offset in range(first, journal.offset):
            # It may have been made in an ancestor.
            entry = place.history_of(offset), offset
            self._made.setdefault(entry, now)
            got.setdefault(entry, now)

    def _restored(
        self, life: Life, take: Callable[..., Lineage], lineage: Lineage | None, offset: int, *more: Any, **named: Any
    ) -> Lineage:
        past = self._past(life.name)
        if not life.dead:
            past.loaded = life
            past.place = place = None if lineage is None else Place(lineage, offset)
            for told in self.on_found:
                told(life, place)
            past.keep_what_is_in(place)
        return take(lineage, offset, *more, **named)

    def _follow(self, life: Life, take: Callable[[str, int], bool], host: str, port: int) -> bool:
        changes = take(host, port)
        if changes:
            self._past(life.name).redirected = trio.current_time()
        return changes

    def _adopted(
        self, life: Life, take: Callable[..., None], history: int, offset: int, ancestors: Any, kind: str, *more: Any
    ) -> None:
        take(history, offset, ancestors, kind, *more)
        if kind == "full" and not life.dead and life.node is not None:
            past = self._past(life.name)
            past.copied = trio.current_time()
            # Entries that the copy lacks come again, if at all.
            past.keep_what_is_in(Place(life.node.replication.lineage, offset))

    def _ready(self, life: Life) -> None:
        past = self._past(life.name)
        if past.absent_since is not None:
            past.absent.append((past.absent_since, trio.current_time()))
            past.absent_since = None

    def _ended(self, life: Life, how: Death) -> None:
        past, now = self._past(life.name), trio.current_time()
        past.absent.extend((begin, min(end, now)) for begin, end in life.freezes)
        if past.absent_since is None:
            past.absent_since = now
        if past.loaded is life and life.node is not None:
            past.place = Place(life.node.replication.lineage, life.node.store.journal.offset)
        if how == "lose":
            past.place = None
