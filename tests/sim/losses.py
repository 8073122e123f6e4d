"""What the rules let go when a node ends: nothing, the last two seconds, what only it had.

It looks at each node's end, and at each promotion, and enters a :class:`~sim.history.Loss` into the history where
something may be lost. And when a writer that has lost its disk opens again, it compares what is there with the copies
that others had all the time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import trio
from sim.clients import keys_of
from sim.history import History, Loss
from sim.plan import Plan
from sim.watch import Watch
from sim.world import Death, Life, World

__all__ = ["Losses"]

#: Seconds of writes that ``appendfsync everysec`` may lose with the power, and some for the way of the answers.
EVERYSEC: Final = 2.1


class Losses:
    """Enters losses. Make it before the :class:`Watch` sees deaths; ``primary`` is the name of who is it."""

    def __init__(self, world: World, plan: Plan, history: History, prefixes: Sequence[bytes]) -> None:
        self.primary = plan.nodes[0]
        self.watch: Watch | None = None
        self._world = world
        self._plan = plan
        self._history = history
        self._prefixes = tuple(prefixes)
        # When a replica was last born, or ended.
        self._unsteady = 0.0
        self._trouble: dict[str, float] = {}
        # Where data were lost with a disk: what whole copies held then, by prefix, node and its life.
        self._held: dict[bytes, list[tuple[Life, dict[bytes, bytes]]]] = {}
        world.on_death.append(self._ended)
        world.on_birth.append(self._born)

    def trouble_begins(self, name: str) -> None:
        """The disk of a node begins to fail."""
        self._trouble.setdefault(name, trio.current_time())

    def trouble_ends(self, name: str) -> None:
        """It works again, and what is there has been written anew."""
        self._trouble.pop(name, None)

    def _born(self, life: Life) -> None:
        self._unsteady = trio.current_time()

    def _ended(self, life: Life, how: Death) -> None:
        now = trio.current_time()
        self._unsteady = now
        for prefix in self._prefixes:
            if self._is_writer(life, prefix):
                self._may_lose(life, how, prefix, now)

    def _is_writer(self, life: Life, prefix: bytes) -> bool:
        if self._plan.shape == "replicated":
            return life.name == self.primary
        node, watch = life.node, self.watch
        assert watch is not None
        if node is not None and node.member is not None:
            # What is in its ledger counts before it has acted on it.
            ledger = node.member.keeper.state.ledger
            if life.name in (node.member.ownership.owner(prefix), ledger.owner(prefix, "")):
                return True
        return watch.last.get(prefix) == life.name

    def _may_lose(self, life: Life, how: Death, prefix: bytes, now: float) -> None:
        policy, trouble = self._plan.policy, self._trouble.get(life.name)
        acquired = -math.inf if self.watch is None else self.watch.acquired.get((life.name, prefix), -math.inf)
        why = f"{how} of {life.name}, {policy}"
        if how == "lose" or policy == "memory":
            self._note_copies(life, prefix)
            self._add(Loss(now, prefix, -math.inf, why=why))
        elif policy == "everysec" and self._takes_what_is_not_synced(life, how):
            since = life.before(now if trouble is None else min(now, trouble), EVERYSEC)
            self._add(Loss(now, prefix, max(since, acquired), why=why))
        elif policy == "no" and self._takes_what_is_not_synced(life, how):
            self._add(Loss(now, prefix, acquired, why=why))
        elif trouble is not None:
            self._add(Loss(now, prefix, trouble, only_reads=True, why=f"{why}, its disk in trouble"))

    def _takes_what_is_not_synced(self, life: Life, how: Death) -> bool:
        """Whether the next process may not find what this one had handed to the system."""
        return how == "power" or (how == "kill" and bool(self._world.disks[life.name].forgot))

    def promoted(self, replicas: int) -> None:
        """A replica takes the primary's place: what it did not have is lost."""
        now = trio.current_time()
        for prefix in self._prefixes:
            loss = Loss(
                now, prefix, -math.inf, safe_copies=replicas, steady_since=self._unsteady_before, why="promotion"
            )
            self._add(loss)

    def about_to_promote(self) -> None:
        """The primary is about to be ended, for a replica to take its place."""
        self._unsteady_before = self._unsteady

    _unsteady_before = 0.0

    def _add(self, loss: Loss) -> None:
        self._history.losses.append(loss)
        self._world.trace.add("losses", str(loss))

    # -- what others hold ---------------------------------------------------------------------------------------------

    def _note_copies(self, life: Life, prefix: bytes) -> None:
        held = []
        for name, node in self._world.living().items():
            mesh = None if node.member is None else node.member.mesh
            if name == life.name or mesh is None or mesh.copy_of(prefix) is None:
                continue
            found = {key: node.store.keyspace.get(key) for key in keys_of(prefix) if key[-3:] in (b"log", b"ter")}
            values = {key: value for key, value in found.items() if isinstance(value, bytes)}
            held.append((self._world.lives[name], values))
        self._held[prefix] = held

    def opened(self, life: Life, prefix: bytes) -> None:
        """A writer opens a prefix: it has at least what somebody had who has had it all the time since the loss."""
        assert life.node is not None
        for other, values in self._held.pop(prefix, []):
            if other.dead or life is other:
                continue
            for key, value in values.items():
                there = life.node.store.keyspace.get(key)
                if not isinstance(there, bytes) or not _has(there, value):
                    self._world.fail(
                        f"durability: {life.name} opens {prefix!r} with {there!r} in {key!r}, and {other.name} had"
                        f" {value!r} when the disk was lost"
                    )


def _has(there: bytes, value: bytes) -> bool:
    if value.isdigit():
        return int(there) >= int(value)
    return there.startswith(value)
