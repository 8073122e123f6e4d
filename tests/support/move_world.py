"""A small model checker for moves: two nodes, their disks, the network between them, clients and an operator.

The machines, the ledger and the ownership are the real ones. The network, the files, the data (ids of writes) and the
people are modelled, and a seeded random walk decides what happens next, misfortunes included. :meth:`World.check` says
what must hold after every step.
"""


from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import attrs

from kevynode.scope import OwnershipTable, Scope, moves
from kevynode.scope import move_messages as messages
from kevynode.scope.ledger_records import LedgerState, MoveRecord, MoveRole, MoveState
from kevynode.scope.ownership import Ownership
from kevynode.scope.source_move import MoveOrder, SourceMove, SourceState, stray_at_source
from kevynode.scope.target_move import TargetFacts, TargetMove, TargetState, consider, stray_at_target

PREFIX = b"app:"
TIMEOUT = 20.0
SOURCE_OVER = {SourceState.DONE, SourceState.CLOSED, SourceState.ABORTED, SourceState.FAILED}
TARGET_OVER = {TargetState.ACTIVE, TargetState.DISCARDED}


class File:
    """The ledger's file: what is there for sure, and what a failed write may have left."""

    def __init__(self) -> None:
        self.safe = LedgerState()
        self.visible = LedgerState()

    def crash(self, rng: random.Random, power: bool) -> LedgerState:
        """What the next process reads. Losing power may take back what was never synced, or never let it be seen."""
        if power:
            self.visible = self.safe = rng.choice([self.safe, self.visible])
        return self.visible.copy()


class Node:
    """One process and its disk. What is lost when it crashes is made anew by :meth:`World.start`."""

    def __init__(self, node_id: str) -> None:
        self.id = node_id
        self.up = False
        self.file = File()
        # Durable: the writes of the prefix that it holds, in order; stages by move; moves whose stage was placed.
        self.log: list[int] = []
        self.stages: dict[str, set[int]] = {}
        self.placed: set[str] = set()
        # How much of the other's log its live copy has; None: it does not follow.
        self.copied: int | None = None
        self.copied_durably = 0
        self.lose_memory(LedgerState())

    def lose_memory(self, state: LedgerState) -> None:
        self.state = state
        self.ownership = Ownership(self.id, OwnershipTable([Scope(PREFIX, "a")]), {"a": "a:1", "b": "b:1"})
        self.machines: dict[str, Any] = {}
        self.writing: dict[str, tuple[int, bytes]] = {}
        self.tickets: dict[str, int] = {}
        self.jobs: list[Callable[[], None]] = []
        self.holding: set[str] = set()
        self.dropping = False

    @property
    def takes_writes(self) -> bool:
        return self.up and self.ownership.refuse_key(PREFIX + b"key") is None


@attrs.frozen
class Weather:
    """How likely each misfortune is, each time it could happen."""

    loss: float = 0.0
    duplicate: float = 0.0
    disorder: float = 0.0
    record: float = 0.0
    trouble: float = 0.0
    crash: float = 0.0
    unlinked: float = 0.0
    operator: float = 0.0

    @classmethod
    def draw(cls, rng: random.Random, rough: bool) -> Weather:
        """Some of each kind; a run in which everything goes wrong at once gets nowhere."""
        if not rough:
            return cls()
        loss, duplicate, disorder, record, trouble, unlinked = (rng.choice((0.0, 0.0, 0.03, 0.15)) for _ in range(6))
        crash, operator = rng.choice((0.0, 0.005, 0.02)), rng.choice((0.0, 0.01))
        return cls(loss, duplicate, disorder, record, trouble, crash, unlinked, operator)


@attrs.frozen
class Trap:
    """What happens when the first record of that role and state is written.

    ``written``: it is durable, it is lost, or nobody can know because the write failed, though the file shows it.
    ``told``: the machine hears of it before ``crash``: the writing node, the other one, both or none of them. ``power``:
    they lose power rather than being killed. ``repeated``: crashes go on from there.
    """

    role: MoveRole
    state: MoveState
    written: Literal["durable", "lost", "unsure"]
    told: bool
    crash: Literal["writer", "other", "both", "none"]
    power: bool
    repeated: bool


class World:
    """Both nodes, and everything that can go wrong between and under them."""

    def __init__(self, seed: int, rough: bool, trap: Trap | None = None) -> None:
        self.trap = trap
        self.rng = random.Random(seed)
        self.now = 0.0
        self.nodes = {"a": Node("a"), "b": Node("b")}
        self.network: list[tuple[str, messages.Message]] = []
        self.acknowledged: set[int] = set()
        self.moves: dict[str, tuple[str, str]] = {}
        self.reports: list[moves.Outcome] = []
        self.refusals: list[str] = []
        self.rough = rough
        self.weather = Weather.draw(self.rng, rough)
        self.seen: Counter[str] = Counter()
        self.trace: list[str] = []
        # The node that an operator has given up, and keeps down until the other one can tell it so.
        self.given_up: str | None = None
        for node in self.nodes.values():
            self.start(node)

    def other(self, node: Node) -> Node:
        return self.nodes["b" if node.id == "a" else "a"]

    def happens(self, likelihood: float) -> bool:
        return self.rng.random() < likelihood

    # -- processes ----------------------------------------------------------------------------------------------------

    def crash(self, node: Node, power: bool) -> None:
        if not node.up:
            return
        self.trace.append(f"{node.id} crashes, power {power}")
        node.up = False
        if node.copied is not None:
            node.copied = self.rng.randint(node.copied_durably, node.copied)
        node.lose_memory(node.file.crash(self.rng, power))

    def lose_disk(self, node: Node) -> None:
        """Only what no other node could do without is spared: a node that owns the prefix keeps its disk."""
        owns = any(state.ledger.owner(PREFIX, "a") == node.id for state in (node.file.safe, node.file.visible))
        source = any(record.role is MoveRole.SOURCE for record in node.file.visible.moves.values())
        if owns or source or node.takes_writes:
            return
        self.crash(node, True)
        self.trace.append(f"{node.id} loses its disk")
        node.file = File()
        node.log, node.stages, node.placed, node.copied, node.copied_durably = [], {}, set(), None, 0
        node.lose_memory(LedgerState())

    def start(self, node: Node) -> None:
        if node.up or (node.id == self.given_up and not self.may_return(node)):
            return
        self.trace.append(f"{node.id} starts")
        node.up = True
        # A ledger is exchanged before anything opens, if the other one is there.
        other = self.other(node)
        if other.up and node.state.ledger.merge(other.state.ledger):
            node.file.safe = node.file.visible = node.state.copy()
        entry = node.state.ledger.entry(PREFIX)
        epoch, owner = (entry.epoch, entry.owner) if entry else (0, "")
        if entry:
            node.ownership.set_owner(PREFIX, owner, epoch)
        for record in list(node.state.moves.values()):
            if record.role is MoveRole.SOURCE:
                order = MoveOrder(record.move_id, PREFIX, node.id, record.peer, TIMEOUT)
                machine, actions = SourceMove.restart(record, order, epoch, owner, self.now)
                node.machines[record.move_id] = machine
            else:
                target, actions = TargetMove.restart(
                    record, node.id, node.copied is not None, epoch, owner, self.now
                )
                node.machines[record.move_id] = target
            self.carry_out(node, record.move_id, actions)

    # -- the network --------------------------------------------------------------------------------------------------

    def send(self, sender: Node, message: messages.Message) -> None:
        machine = sender.machines.get(message.move_id)
        if machine is not None and not machine.linked:
            return
        self.network.append((self.other(sender).id, message))

    def deliver(self, index: int) -> None:
        receiver, message = self.network.pop(index)
        self.arrive(self.nodes[receiver], message)

    def arrive(self, node: Node, message: messages.Message) -> None:
        if not node.up:
            return
        self.trace.append(f"  {node.id} hears {message}")
        move_id = message.move_id
        if move_id in node.machines:
            self.feed(node, move_id, message)
            return
        source, _ = self.moves[move_id]
        answer: messages.Message | None = None
        if node.id == source:
            answer = stray_at_source(message)  # type: ignore[arg-type]
        elif isinstance(message, messages.Request):
            answer = self.consider(node, message, source)
        else:
            epoch = node.state.ledger.epoch(PREFIX)
            answer = stray_at_target(message, epoch, True)  # type: ignore[arg-type]
            if isinstance(message, messages.Activate) and message.epoch > epoch:
                machine, actions = TargetMove.recover(message, PREFIX, node.id, source, self.now)
                self.adopt(node, machine, actions)
        if answer is not None:
            self.network.append((self.other(node).id, answer))

    def consider(self, node: Node, message: messages.Request, source: str) -> messages.Message | None:
        others = [move_id for move_id, machine in node.machines.items() if machine.busy]
        agreed = node.state.agreed.get(PREFIX)
        facts = TargetFacts(
            node_id=node.id,
            source=source,
            prefix=PREFIX,
            is_peer=True,
            owner=node.ownership.owner(PREFIX),
            epoch=node.state.ledger.epoch(PREFIX),
            loading=self.happens(self.weather.trouble),
            dropping=node.dropping,
            persistent=True,
            following=node.copied is not None,
            highest_epoch=max(node.state.ledger.epoch(PREFIX), agreed.epoch if agreed else 0),
            other_move=others[0] if others else "",
        )
        considered = consider(message, facts, self.now)
        if isinstance(considered, messages.Refused):
            return considered
        self.adopt(node, *considered)
        return None

    def adopt(self, node: Node, machine: Any, actions: list[moves.Action]) -> None:
        node.machines[machine.move_id] = machine
        machine.linked = True
        self.carry_out(node, machine.move_id, actions)

    # -- the driver ---------------------------------------------------------------------------------------------------

    def feed(self, node: Node, move_id: str, event: Any) -> None:
        machine = node.machines.get(move_id)
        if not node.up or machine is None:
            return
        before = machine.state
        actions = machine.handle(event, self.now)
        if machine.state is not before:
            self.seen[str(machine.state)] += 1
        self.trace.append(f"{self.now:.1f} {node.id} {before.name}: {event} -> {machine.state.name} {actions}")
        self.carry_out(node, move_id, actions)

    def job(self, node: Node, work: Callable[[], None]) -> None:
        node.jobs.append(work)

    def later(self, node: Node, move_id: str, event: Any) -> None:
        self.job(node, lambda: self.feed(node, move_id, event))

    def carry_out(self, node: Node, move_id: str, actions: list[moves.Action]) -> None:
        for place, action in enumerate(actions):
            match action:
                case moves.Record(records):
                    assert place == len(actions) - 1
                    self.job(node, partial(self.write, node, move_id, records))
                case moves.Send(message):
                    self.send(node, message)
                case moves.Quiesce(target):
                    node.holding.add(move_id)
                    node.ownership.quiesce(PREFIX, target)
                case moves.Resume():
                    node.holding.discard(move_id)
                    if not node.holding:
                        node.ownership.resume(PREFIX)
                case moves.Capture():
                    self.later(node, move_id, moves.Captured(1, len(node.log), len(node.log)))
                case moves.Ship(attempt):
                    self.ship(node, move_id, attempt)
                case moves.SetOwner(entry):
                    node.ownership.set_owner(PREFIX, entry.owner, entry.epoch)
                case moves.SettleSlice(keep):
                    self.settle(node, move_id, keep)
                case moves.OpenStage(_):
                    node.writing[move_id] = (0, b"")
                    node.stages.pop(move_id, None)
                case moves.WriteChunk(data):
                    node.writing[move_id] = (0, node.writing[move_id][1] + data)
                case moves.CheckStage(ticket):
                    self.job(node, partial(self.check_stage, node, move_id, ticket))
                    node.tickets[move_id] = ticket
                case moves.CheckCopy(ticket, _, offset, _):
                    self.job(node, partial(self.check_copy, node, move_id, ticket, offset))
                    node.tickets[move_id] = ticket
                case moves.Place(following):
                    self.job(node, partial(self.place, node, move_id, following))
                case moves.Acquire():
                    self.later(node, move_id, moves.Settled())
                case moves.Discard():
                    node.tickets[move_id] = -1
                    node.stages.pop(move_id, None)
                    if move_id in node.placed:
                        assert not node.takes_writes
                        node.placed.discard(move_id)
                        node.log = []
                    self.later(node, move_id, moves.Cleared())
                case moves.Report(outcome):
                    self.reports.append(outcome)
                case moves.Refuse(reason):
                    self.refusals.append(reason)
                case moves.Release():
                    pass

    def write(self, node: Node, move_id: str, records: Any) -> None:
        """Append records: durably, not at all, or nobody knows."""
        if self.happens(5 * self.weather.crash):
            self.crash(node, power=self.happens(0.5))
            return
        written = node.state.copy()
        written.add(records)
        file = node.file
        trap = self.trap
        if trap is not None and any(
            isinstance(record, MoveRecord) and (record.role, record.state) == (trap.role, trap.state)
            for record in records
        ):
            self.spring(trap, node, move_id, written)
            return
        if self.happens(self.weather.record):
            if self.happens(0.5):
                file.visible = written
            self.feed(node, move_id, moves.RecordFailed("disk"))
            return
        file.safe = file.visible = written
        node.state = written.copy()
        if self.happens(5 * self.weather.crash):
            self.crash(node, power=self.happens(0.5))
            if self.happens(0.5):
                self.resolve(self.other(node))
            return
        self.feed(node, move_id, moves.Recorded())

    def spring(self, trap: Trap, node: Node, move_id: str, written: LedgerState) -> None:
        self.trap = None
        self.trace.append(f"{node.id}: {trap}")
        file = node.file
        if trap.written == "durable":
            file.safe = file.visible = written
            node.state = written.copy()
        elif trap.written == "unsure":
            file.visible = written
        if trap.told:
            self.feed(node, move_id, moves.Recorded() if trap.written == "durable" else moves.RecordFailed("disk"))
        if trap.crash in ("writer", "both"):
            self.crash(node, trap.power)
        if trap.crash in ("other", "both"):
            self.crash(self.other(node), trap.power)
        if trap.repeated:
            self.weather = attrs.evolve(self.weather, crash=0.05)

    def ship(self, node: Node, move_id: str, attempt: int) -> None:
        ids = list(node.log)
        self.rng.shuffle(ids)
        parts = [b",".join(b"%d" % i for i in ids[at : at + 2]) + b"," for at in range(0, len(ids), 2)]
        for sequence, data in enumerate(parts):
            self.send(node, messages.Chunk(move_id, attempt, sequence, data))
        if self.happens(self.weather.trouble):
            self.later(node, move_id, moves.ShipFailed(attempt, "memory"))
        else:
            self.later(node, move_id, moves.Staged(attempt, len(parts), len(ids), len(ids), 7, digest(set(ids))))

    def settle(self, node: Node, move_id: str, keep: bool) -> None:
        if keep:
            self.later(node, move_id, moves.Settled())
            return
        node.dropping = True

        def drop() -> None:
            node.log = node.log[len(node.log) // 2 + 1 :]
            if node.log:
                self.job(node, drop)
            else:
                node.dropping = False
                self.feed(node, move_id, moves.Settled())

        self.job(node, drop)

    def check_stage(self, node: Node, move_id: str, ticket: int) -> None:
        if node.tickets[move_id] != ticket:
            return
        if self.happens(self.weather.trouble):
            self.feed(node, move_id, moves.CheckFailed(ticket, "disk"))
            return
        ids = {int(word) for word in node.writing[move_id][1].split(b",") if word}
        node.stages[move_id] = ids
        self.feed(node, move_id, moves.Checked(ticket, len(ids), digest(ids)))

    def check_copy(self, node: Node, move_id: str, ticket: int, offset: int) -> None:
        if node.tickets[move_id] != ticket:
            return
        if node.copied is None:
            self.feed(node, move_id, moves.CheckFailed(ticket, "no copy any more"))
        elif node.copied < offset:
            self.job(node, lambda: self.check_copy(node, move_id, ticket, offset))
        else:
            node.copied_durably = node.copied
            self.feed(node, move_id, moves.Checked(ticket, node.copied, ""))

    def place(self, node: Node, move_id: str, following: bool) -> None:
        if self.happens(self.weather.trouble):
            self.feed(node, move_id, moves.PlacingFailed("disk", False))
            return
        machine = node.machines[move_id]
        if following:
            if node.copied is None or node.copied < machine.tail:
                self.feed(node, move_id, moves.PlacingFailed("the copy is gone", True))
                return
            node.log = self.other(node).log[: node.copied]
        elif move_id not in node.placed:
            if move_id not in node.stages:
                self.feed(node, move_id, moves.PlacingFailed("the stage is gone", True))
                return
            node.log = sorted(node.stages[move_id])
            node.placed.add(move_id)
        self.feed(node, move_id, moves.Placed())

    # -- what happens -------------------------------------------------------------------------------------------------

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
            order = MoveOrder(move_id, PREFIX, node.id, target.id, TIMEOUT, floor, keeps_copy=False)
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

    def resolve(self, node: Node) -> None:
        """An operator decides at a target whose source is down for good, as far as anybody can tell."""
        for move_id, machine in list(node.machines.items()):
            if not isinstance(machine, TargetMove) or machine.state is not TargetState.SEALED:
                continue
            source = self.other(node)
            states = [state.moves.get(move_id) for state in (source.file.safe, source.file.visible)]
            off = any(record is None or record.decided is MoveState.ABORTED for record in states)
            if source.up or off:
                continue
            commit = self.happens(0.7)
            self.now += moves.QUIET_SECONDS
            self.trace.append(f"{node.id} resolves {move_id}, commit {commit}")
            if commit:
                self.given_up = source.id
            self.feed(node, move_id, moves.Resolve(commit))

    def may_return(self, node: Node) -> bool:
        """A node that was given up comes back where it learns of it: the other one runs, and has come to an end."""
        other = self.other(node)
        pending = {TargetState.COMMITTING, TargetState.PLACING, TargetState.OPENING, TargetState.SEALING}
        if not other.up or any(machine.state in pending for machine in other.machines.values()):
            return False
        self.given_up = None
        return True

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


def digest(ids: set[int]) -> str:
    return f"{hash(frozenset(ids)) & (2**64 - 1):x}"
