"""A small model checker for moves: a seeded random walk over everything that can happen to two nodes.

:meth:`World.check` says what must hold after every step, and :meth:`World.run` what must hold in the end.
"""

from __future__ import annotations

from support.move_nodes import PREFIX, TIMEOUT, Drivers, Node, Trap, Weather

from kevynode.scope import moves
from kevynode.scope.source_move import MoveOrder, SourceMove, SourceState
from kevynode.scope.target_move import TargetState

__all__ = ["Trap", "World"]

SOURCE_OVER = {SourceState.DONE, SourceState.CLOSED, SourceState.ABORTED, SourceState.FAILED}
TARGET_OVER = {TargetState.ACTIVE, TargetState.DISCARDED}


class World(Drivers):
    """What happens, and what must never happen."""

    def write_by_client(self) -> None:
        for node in self.nodes.values():
            if node.takes_writes:
                number = len(self.acknowledged)
                node.log.append(number)
                self.acknowledged.add(number)

    def begin(self) -> None:
        """An operator moves the prefix from whoever has it."""
        for node in self.nodes.values():
            busy = any(machine.busy for machine in node.machines.values())
            if not node.takes_writes or busy or len(self.moves) >= 4:
                continue
            move_id = f"m{len(self.moves)}"
            target = self.other(node)
            self.moves[move_id] = (node.id, target.id)
            if target.copied is None and self.happens(0.5) and target.up and not target.log:
                target.copied = 0
            floor = max(node.state.ledger.epoch(PREFIX), target.state.ledger.epoch(PREFIX) if target.up else 0)
            order = MoveOrder(move_id, PREFIX, node.id, target.id, TIMEOUT, floor, keeps_copy=self.happens(0.3))
            self.trace.append(f"move {move_id} of {len(node.log)} writes from {node.id}")
            machine, actions = SourceMove.begin(order, self.now)
            self.adopt(node, machine, actions)
            return

    def follow(self, node: Node) -> None:
        """A live copy takes what its owner has journaled; an owner has none."""
        owner = self.other(node)
        if node.takes_writes or (node.copied is not None and node.copied > len(owner.log)):
            # It is an owner itself, or what it followed is gone.
            node.copied, node.copied_durably = None, 0
        elif node.copied is not None and node.up and owner.up and not owner.dropping:
            node.copied = min(len(owner.log), node.copied + 1)

    def gossip(self, node: Node) -> None:
        """Ledger entries of the other node, made durable first."""
        other = self.other(node)
        if not node.up or not other.up:
            return
        before = node.state.ledger.entry(PREFIX)
        learned = node.state.ledger.compare(other.state.ledger).learned
        if not learned:
            return
        node.state.add(learned)
        node.file.safe = node.file.visible = node.state.copy()
        entry = node.state.ledger.entry(PREFIX)
        assert entry is not None
        if entry != before:
            node.ownership.set_owner(PREFIX, entry.owner, entry.epoch)
            for move_id in list(node.machines):
                self.feed(node, move_id, moves.LedgerChanged(entry.epoch, entry.owner))

    def tick(self) -> None:
        self.now += self.rng.choice([0.0, 0.1, 0.6, 2.5]) if self.rough else 0.25
        for node in self.nodes.values():
            for move_id, machine in list(node.machines.items()):
                if node.up and machine.wake_at <= self.now:
                    self.feed(node, move_id, moves.Tick())

    def link(self, node: Node, up: bool) -> None:
        for move_id in list(node.machines):
            self.feed(node, move_id, moves.LinkLost())
            if up:
                self.feed(node, move_id, moves.Linked())

    def check(self) -> None:
        writers = [node for node in self.nodes.values() if node.takes_writes]
        assert len(writers) <= 1, "two nodes take writes"
        for node in writers:
            assert self.acknowledged <= set(node.log), f"{node.id} takes writes without all that were acknowledged"

    def step(self) -> None:
        rng = self.rng
        node = rng.choice(list(self.nodes.values()))
        chance = rng.random()
        if chance < 0.30:
            if self.network:
                self.one_message()
        elif chance < 0.62:
            if node.up and node.jobs:
                node.jobs.pop(rng.randrange(len(node.jobs)))()
        elif chance < 0.72:
            self.tick()
        elif chance < 0.80:
            self.write_by_client()
        elif chance < 0.85:
            self.follow(node)
        elif chance < 0.89:
            self.begin()
        elif chance < 0.92:
            self.link(node, not self.happens(self.weather.unlinked))
        elif chance < 0.98:
            self.start(node)
        else:
            self.gossip(node)
        if self.happens(self.weather.crash):
            self.misfortune(node)
        if self.happens(self.weather.operator):
            self.operate(node)
        self.check()

    def one_message(self) -> None:
        rng, weather = self.rng, self.weather
        index = rng.randrange(len(self.network)) if self.happens(weather.disorder) else 0
        if self.happens(weather.loss):
            self.network.pop(index)
            return
        if self.happens(weather.duplicate) and len(self.network) < 60:
            self.network.append(self.network[index])
        self.deliver(index)

    def misfortune(self, node: Node) -> None:
        choice = self.rng.randrange(6)
        if choice < 3:
            self.crash(node, power=choice > 0)
        elif choice == 3:
            for each in self.nodes.values():
                self.crash(each, power=self.happens(0.5))
        elif choice == 4:
            self.lose_disk(node)
        elif node.copied is not None and not node.takes_writes:
            self.trace.append(f"{node.id} loses its copy")
            node.copied, node.copied_durably = None, 0

    def operate(self, node: Node) -> None:
        if self.happens(0.3):
            for move_id, machine in list(node.machines.items()):
                off = moves.AbortWanted() if isinstance(machine, SourceMove) else moves.Resolve(False)
                self.feed(node, move_id, off)
        else:
            self.resolve(node)

    def heal(self) -> None:
        """Let everything work until nothing is left to be done."""
        self.weather = Weather()
        self.rough = False
        for _ in range(400):
            for node in self.nodes.values():
                self.start(node)
                self.gossip(node)
                for machine in list(node.machines.values()):
                    if node.up and not machine.linked:
                        self.feed(node, machine.move_id, moves.Linked())
                for _ in range(len(node.jobs)):
                    # One of them may be the end of the process.
                    if node.jobs:
                        node.jobs.pop(0)()
                self.follow(node)
            for _ in range(len(self.network)):
                self.deliver(0)
            self.tick()
            self.check()
            if self.rests():
                return
        raise AssertionError("the moves do not end: " + ", ".join(self.states()))

    def rests(self) -> bool:
        machines = [machine for node in self.nodes.values() for machine in node.machines.values()]
        up = all(node.up for node in self.nodes.values())
        return up and not self.network and all(machine.state in SOURCE_OVER | TARGET_OVER for machine in machines)

    def states(self) -> list[str]:
        return [f"{node.id} {m.move_id} {m.state}" for node in self.nodes.values() for m in node.machines.values()]

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.step()
        self.heal()
        writers = [node for node in self.nodes.values() if node.takes_writes]
        assert len(writers) == 1, f"{len(writers)} nodes take writes at the end: {self.states()}"
        assert set(writers[0].log) == self.acknowledged
        owners = {node.ownership.owner(PREFIX) for node in self.nodes.values()}
        assert owners == {writers[0].id}
