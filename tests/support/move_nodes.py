"""Two nodes with a move's machines, their files, data and links, for the model checker in ``move_world``.

The machines, the ledger and the ownership are the real ones, and :meth:`Drivers.carry_out` does what a driver owes
them. The network, the files and the data (ids of writes) are modelled; a :class:`Weather` and a :class:`Trap` say what
goes wrong under them.
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
from kevynode.scope.source_move import MoveOrder, SourceMove, stray_at_source
from kevynode.scope.target_move import TargetFacts, TargetMove, TargetState, consider, stray_at_target

PREFIX = b"app:"
TIMEOUT = 20.0


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
    ``told``: the machine hears of it before ``crash``: the writing node, the other one, both or none of them.
    ``power``: they lose power rather than being killed. ``repeated``: crashes go on from there.
    """

    role: MoveRole
    state: MoveState
    written: Literal["durable", "lost", "unsure"]
    told: bool
    crash: Literal["writer", "other", "both", "none"]
    power: bool
    repeated: bool


class Drivers:
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
                target, actions = TargetMove.restart(record, node.id, node.copied is not None, epoch, owner, self.now)
                node.machines[record.move_id] = target
            self.carry_out(node, record.move_id, actions)

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
        pending = {TargetState.COMMITTING, TargetState.PLACING, TargetState.OPENING, TargetState.AGREEING}
        if not other.up or any(machine.state in pending for machine in other.machines.values()):
            return False
        self.given_up = None
        return True

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


def digest(ids: set[int]) -> str:
    return f"{hash(frozenset(ids)) & (2**64 - 1):x}"
