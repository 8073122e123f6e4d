"""What the rules let go when a node ends: nothing, the last two seconds, what only it had.

It looks at each node's end, and at each promotion, and enters a :class:`~sim.history.Loss` into the history where
something may be lost. Of an end, that is when the node is started again: then it is known what was lost
(:class:`~sim.exposure.Exposure`), and the rules say which of it may be.

- *Acknowledged writes*: none with ``always``, and none when only the process ends. With ``everysec`` the power takes no
  more than two seconds of them: answers that left within two seconds of when the first entry that was lost was written.
  Those are the last two seconds in which the node and its disk could work; where the disk has hung since, or the files
  were being changed, answers have been waiting.
- *Reads* acknowledge nothing, but with ``always``. They go on while answers to writes wait, and show these writes; so a
  read since the first entry that was lost may have shown what is lost. While a disk is in trouble that is so with
  ``always``, too.
- What had been found by a start is durable when the node is ready.
- A replica that is promoted has applied what it may not have stored yet: others have answered for that, and it is lost
  if the replica ends before its disk has it.

With ``everysec`` each answer to a write is looked at when it comes: does the disk lack what is older than two seconds?

And when a writer that has lost its disk opens again, what is there is compared with the copies that others had all the
time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import attrs
import trio
from sim.clients import keys_of
from sim.exposure import Exposure, Place, working_before
from sim.history import Dispute, History, Loss, Operation
from sim.plan import Plan
from sim.watch import Watch
from sim.world import Death, Life, World

__all__ = ["Losses"]

#: Seconds of writes that ``appendfsync everysec`` may lose with the power, and some for the way of the answers.
EVERYSEC: Final = 2.1
#: Seconds that nothing but what has begun in them may take: one round of a node.
ROUND: Final = 0.05


@attrs.frozen
class _End:
    """One end of a node: what it had then, and for which prefixes it answered, since when, as the only one."""

    life: Life
    how: Death
    at: float
    had: Place | None
    #: Whether the next process may not find what this one had handed to the system.
    loses_unsynced: bool
    #: Since when its disk was in trouble.
    trouble: float | None
    #: When the first of what its disk lacked was written to a file in use.
    exposed: float | None
    writes: dict[bytes, float]


class Losses:
    """Enters losses. Make it before the :class:`Watch` sees deaths; ``primary`` is the name of who is it."""

    def __init__(self, world: World, plan: Plan, history: History, prefixes: Sequence[bytes]) -> None:
        self.primary = plan.nodes[0]
        self.watch: Watch | None = None
        #: Called with the name of who has become the primary, in that moment.
        self.on_promoted: list[Callable[[str], object]] = []
        #: Replicas that an operator promotes by mistake.
        self.usurpers: set[str] = set()
        self.exposure = Exposure(world)
        self._world = world
        self._plan = plan
        self._history = history
        self._prefixes = tuple(prefixes)
        # When a replica was last born, or ended, and when that was as the primary was about to be replaced.
        self._unsteady = self._unsteady_before = 0.0
        # How nodes ended whose next start has not found anything yet.
        self._ends: dict[str, _End] = {}
        # When a primary became it.
        self._promoted: dict[str, float] = {}
        # How many faults have the disk of a node fail, and since when; and from when to when they did.
        self._failing: dict[str, tuple[int, float]] = {}
        self._failed: dict[str, list[tuple[float, float]]] = {}
        # Where data were lost with a disk: what whole copies held then, by prefix and node.
        self._held: dict[bytes, dict[str, dict[bytes, bytes]]] = {}
        self.exposure.on_found.append(self._found)
        world.on_death.append(self._ended)
        world.on_birth.append(self._born)

    def trouble_begins(self, name: str) -> None:
        """The disk of a node begins to fail."""
        count, since = self._failing.get(name, (0, trio.current_time()))
        self._failing[name] = count + 1, since

    def trouble_ends(self, name: str) -> None:
        """What has begun so works again, and what is there has been written anew."""
        count, since = self._failing.get(name, (0, 0.0))
        if count > 1:
            self._failing[name] = count - 1, since
        elif count:
            del self._failing[name]
            self._failed.setdefault(name, []).append((since, trio.current_time()))

    def _born(self, life: Life) -> None:
        self._unsteady = trio.current_time()
        assert life.node is not None
        replication = life.node.replication
        replication.promote = partial(self._promote, life, replication.promote)  # type: ignore[method-assign]
        replication.follow = partial(self._follow, life, replication.follow)  # type: ignore[method-assign]

    # -- ends ---------------------------------------------------------------------------------------------------------

    def _ended(self, life: Life, how: Death) -> None:
        now = self._unsteady = trio.current_time()
        self._gives_in(life.name)
        if how != "stop" or self._plan.policy == "memory" or life.name in self._failing:
            # Of those that are stopped, and can write what they have, a whole copy is there after their next start.
            for held in self._held.values():
                held.pop(life.name, None)
        written = [prefix for prefix in self._prefixes if self._is_writer(life, prefix)]
        if how == "lose" or self._plan.policy == "memory":
            self._ends.pop(life.name, None)
            for prefix in written:
                self._note_copies(life, prefix)
                self._add(Loss(now, prefix, -math.inf, why=f"{how} of {life.name}, {self._plan.policy}"))
            return
        writes = {prefix: self._writer_since(life, prefix) for prefix in written}
        _, trouble = self._failing.get(life.name, (0, None))
        forgot = how == "kill" and bool(self._world.disks[life.name].forgot)
        loses_unsynced = how == "power" or forgot
        if self.exposure.has_loaded(life):
            had = self.exposure.place(life.name)
            exposed = self._world.disks[life.name].exposed_before
            self._ends[life.name] = _End(life, how, now, had, loses_unsynced, trouble, exposed, writes)
        elif loses_unsynced and life.name in self._ends:
            # It has done nothing, but what was left of the one before it.
            self._ends[life.name] = attrs.evolve(self._ends[life.name], loses_unsynced=True)

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

    def _writer_since(self, life: Life, prefix: bytes) -> float:
        """When a node became the writer, if another one was it before."""
        if self._plan.shape == "replicated":
            return self._promoted.get(life.name, -math.inf)
        return -math.inf if self.watch is None else self.watch.acquired.get((life.name, prefix), -math.inf)

    def _found(self, life: Life, found: Place | None) -> None:
        """A node has been started again, and this is what it finds."""
        name, policy, end = life.name, self._plan.policy, self._ends.pop(life.name, None)
        lost = None if end is None else self.exposure.lost(name, end.had, found)
        if end is None or lost is None:
            return
        why = f"{end.how} of {name}, {policy}, from entry {lost.offset} on"
        self._check_age(end, lost.got, why)
        takes_writes = end.loses_unsynced and policy in ("everysec", "no")
        for prefix, since in end.writes.items():
            first = lost.made
            if self._plan.shape == "scoped":
                # It came with all that was acknowledged before.
                first = max(first, since)
            written = lost.got if end.exposed is None else max(lost.got, end.exposed)
            until = math.inf if policy == "no" else max(written + EVERYSEC, since)
            # A replica that was promoted had applied it and not stored it: others had answered for it.
            inherited = since if self._plan.shape == "replicated" and lost.got < since else -math.inf
            if policy == "always" and inherited == -math.inf:
                if end.trouble is None:
                    continue
                first = max(first, end.trouble)
            reads = not takes_writes
            self._add(Loss(end.at, prefix, first, only_reads=reads, until=until, inherited=inherited, why=why))

    def _check_age(self, end: _End, got: float, why: str) -> None:
        """What is lost is no older than it may be, where the node and its disk could do their work."""
        name, policy = end.life.name, self._plan.policy
        if end.life.ready and got < end.life.began:
            self._world.fail(f"durability: {why}: it had been there before that start")
        allowed = ROUND
        if end.loses_unsynced:
            # With always, too, what nobody waits for is synced each second.
            allowed = math.inf if policy == "no" else EVERYSEC
        failing = [*self._failed.get(name, ())]
        if end.trouble is not None:
            failing.append((end.trouble, math.inf))
        oldest = working_before(end.at, allowed, [*self.exposure.idle(name), *failing])
        if got < oldest:
            self._world.fail(f"durability: {why}: {name} got it at {got:.4f}, and may lose nothing before {oldest:.4f}")

    def answered(self, operation: Operation, name: str) -> None:
        """A node has answered. With everysec no write is, while the disk lacks what is older than two seconds."""
        life, since = self._world.lives[name], self._world.disks[name].exposed_since()
        if self._plan.policy != "everysec" or operation.kind == "get" or since is None:
            return
        if not life.dead and life.began <= operation.begun and operation.begun - since > EVERYSEC:
            self._world.fail(
                f"durability: {name} answers {operation}, and has not on its disk what is from {since:.4f}"
            )

    # -- promotions ---------------------------------------------------------------------------------------------------

    def about_to_promote(self) -> None:
        """The primary is about to be ended, for a replica to take its place."""
        self._unsteady_before = self._unsteady

    def _promote(self, life: Life, take: Any) -> None:
        replication = None if life.node is None else life.node.replication
        assert replication is not None
        was = replication.role
        found = self.exposure.place(life.name)
        take()
        if was == replication.role or life.dead:
            return
        if life.name in self.usurpers:
            if self.watch is not None:
                self.watch.promoted(life.name)
            self._dispute(life.name)
        else:
            self._takes_over(life.name, found)

    def _follow(self, life: Life, take: Callable[[str, int], bool], host: str, port: int) -> bool:
        changes = take(host, port)
        if not life.dead:
            self._gives_in(life.name)
        return changes

    def _dispute(self, name: str) -> None:
        """A node takes writes from now on that somebody else is to take."""
        self._history.disputes.append(Dispute(name, trio.current_time()))
        self._world.trace.add("losses", f"{name} takes writes, and {self.primary} is the primary")

    def _gives_in(self, name: str) -> None:
        for dispute in self._history.disputes:
            if dispute.node == name and dispute.ended == math.inf:
                dispute.ended = trio.current_time()
                self._world.trace.add("losses", f"{name} takes no writes any more")

    def _takes_over(self, name: str, found: Place | None) -> None:
        """A replica takes the primary's place in this moment: what it did not have is lost."""
        now, old = trio.current_time(), self.primary
        # Nothing depends any more on what the old one finds.
        self._ends.pop(old, None)
        self.primary = name
        self._promoted[name] = now
        self.usurpers.discard(name)
        for told in self.on_promoted:
            told(name)
        if self._world.exists(old):
            self._dispute(old)
        copies = len(self._plan.nodes) - 1
        had = self.exposure.place(old)
        lost = self.exposure.lost(old, had, found)
        if had is not None and lost is None:
            return
        since = -math.inf if lost is None else lost.made
        for prefix in self._prefixes:
            self._add(Loss(now, prefix, since, safe_copies=copies, steady_since=self._unsteady_before, why="promotion"))

    def _add(self, loss: Loss) -> None:
        self._history.losses.append(loss)
        self._world.trace.add("losses", str(loss))

    # -- what others hold ---------------------------------------------------------------------------------------------

    def _note_copies(self, life: Life, prefix: bytes) -> None:
        held = self._held[prefix] = {}
        for name, node in self._world.living().items():
            mesh = None if node.member is None else node.member.mesh
            copy = None if mesh is None or name == life.name else mesh.copy_of(prefix)
            if copy is None or self._is_dead_branch(life, copy.history, copy.offset):
                continue
            found = {key: node.store.keyspace.get(key) for key in keys_of(prefix) if key[-3:] in (b"log", b"ter")}
            held[name] = {key: value for key, value in found.items() if isinstance(value, bytes)}

    def _is_dead_branch(self, life: Life, history: int, offset: int) -> bool:
        """Whether a copy holds what its writer, ``life`` or another, had lost before: it is to be replaced."""
        assert life.node is not None
        places = [self.exposure.place(name) for name in self._plan.nodes]
        lineages = [life.node.replication.lineage, *(place.lineage for place in places if place is not None)]
        bounds = [lineage.shared(history) for lineage in lineages]
        return any(bound is not None and offset > bound for bound in bounds)

    def opened(self, life: Life, prefix: bytes) -> None:
        """A writer opens a prefix: it has at least what somebody had who has had it all the time since the loss."""
        assert life.node is not None
        for name, values in self._held.pop(prefix, {}).items():
            # A copy that is behind has still what has been emptied.
            if name == life.name or self._history.cleared(prefix):
                continue
            for key, value in values.items():
                there = life.node.store.keyspace.get(key)
                if not isinstance(there, bytes) or not _has(there, value):
                    self._world.fail(
                        f"durability: {life.name} opens {prefix!r} with {there!r} in {key!r}, and {name} had"
                        f" {value!r} when the disk was lost"
                    )


def _has(there: bytes, value: bytes) -> bool:
    if value.isdigit():
        return int(there) >= int(value)
    return there.startswith(value)
