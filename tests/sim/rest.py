"""The cluster at rest: what must be true once nothing befalls it any more, and what must be gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio
from sim.faults import Faults
from sim.losses import Losses
from sim.plan import Plan
from sim.records import Records
from sim.tasks import Tasks
from sim.world import World
from support.store_harness import Content, check_memory, content

from kevynode import Node
from kevynode.scope.ledger_records import MoveRole, MoveState

__all__ = ["EXPECTED_ERRORS", "Rest"]

#: Seconds that a cluster gets to come to rest.
PATIENCE: Final = 150.0
#: Seconds after which the operator decides what nobody else can.
DOUBT: Final = 45.0

#: What nodes may log as errors: the disk, or an operator, brings it about.
EXPECTED_ERRORS: Final = frozenset(
    {"append_only_failed", "rewrite_failed", "move_not_recorded", "ledger_failed", "dump_failed", "stage_failed"}
)


class Rest:
    """Waits for rest, then checks what there is."""

    def __init__(self, world: World, plan: Plan, faults: Faults, losses: Losses, records: Records) -> None:
        self._world = world
        self._plan = plan
        self._faults = faults
        self._losses = losses
        self._records = records
        self._tasks = Tasks(world, plan)

    async def reach(self) -> None:
        """Wait until everything is as it is to be, or say what is not."""
        began = trio.current_time()
        deadline = began + PATIENCE
        conditions = self._scoped() if self._plan.scopes else self._replicated()
        while True:
            missing = next((text for condition in conditions if (text := condition())), "")
            if not missing:
                return
            if trio.current_time() > deadline:
                self._world.fail(f"convergence: {missing}")
                return
            if trio.current_time() > began + DOUBT:
                await self._resolve()
            await trio.sleep(0.25)

    async def _resolve(self) -> None:
        """Decide moves whose source knows nothing of them any more, as an operator does."""
        for name, node in self._nodes().items():
            if node.member is None:
                continue
            for record in node.member.keeper.state.open_moves():
                if record.role is MoveRole.TARGET and record.state is MoveState.SEALED and record.decided is None:
                    self._records.resolved.add(record.prefix)
                    await self._faults.resolve(name, record.prefix)

    async def check(self) -> None:
        """What holds at rest. Copies may have something on the way still, so all of it is waited for again."""
        await self.reach()
        for name, node in self._world.living().items():
            check_memory(node.store)
            self._check_leftovers(name, node)
            for event, words in self._world.lives[name].log.errors:
                if event not in EXPECTED_ERRORS:
                    self._world.fail(f"log: {name} {event} {words}")
        nodes = self._nodes()
        if self._plan.scopes:
            self._compare_scopes(nodes)
            self._compare_plain_replicas(nodes)
        else:
            self._compare_replicas(nodes)

    def _nodes(self) -> dict[str, Node]:
        """Those of the plan, without plain replicas of nodes with scopes."""
        living = self._world.living()
        return {name: living[name] for name in self._plan.nodes if name in living}

    def _all_up(self) -> str:
        return next((f"{name} is not up" for name in self._plan.everybody if not self._world.is_up(name)), "")

    # -- scopes -------------------------------------------------------------------------------------------------------

    def _scoped(self) -> list[Callable[[], str]]:
        return [
            self._all_up,
            self._owners_agree,
            self._moves_over,
            self._open,
            self._copied,
            self._plain_replicas_in_step,
            self._tasks.left_over,
        ]

    def _owners(self, node: Node) -> dict[bytes, str]:
        assert node.member is not None
        return {row.prefix: row.owner for row in node.member.ownership.declared()}

    def _owners_agree(self) -> str:
        found = {name: self._owners(node) for name, node in self._nodes().items()}
        return "" if len({tuple(sorted(owners.items())) for owners in found.values()}) == 1 else f"owners are {found}"

    def _moves_over(self) -> str:
        for name, node in self._nodes().items():
            assert node.member is not None
            for record in node.member.keeper.state.open_moves():
                if record.state is not MoveState.ABORTED:
                    return f"a move of {record.prefix!r} is {record.state.value} at its {record.role.value} {name}"
        return ""

    def _open(self) -> str:
        for name, node in self._nodes().items():
            assert node.member is not None
            for row in node.member.ownership.declared():
                expected = "open" if row.owner == name else "elsewhere"
                if row.state != expected:
                    return f"{row.prefix!r} is {row.state} at {name}, {row.detail}, and its owner is {row.owner}"
        return ""

    def _copied(self) -> str:
        nodes = self._nodes()
        for name, node in nodes.items():
            assert node.member is not None
            mesh = node.member.mesh
            assert mesh is not None
            for prefix, owner in self._owners(node).items():
                if owner == name or not self._plan.wants(name, prefix):
                    continue
                writer = nodes[owner].replication
                copy = mesh.copy_of(prefix)
                expected = writer.history, writer.position, node.member.ownership.epoch(prefix)
                if copy is None or (copy.history, copy.offset, copy.epoch) != expected:
                    return f"the copy of {prefix!r} at {name} is {copy}, and {owner} is at {expected}"
        return ""

    def _compare_scopes(self, nodes: dict[str, Node]) -> None:
        for name, node in nodes.items():
            held = content(node.store)
            for prefix, owner in self._owners(node).items():
                under = _under(held, prefix)
                if owner == name:
                    continue
                if not self._plan.wants(name, prefix):
                    if under:
                        self._world.fail(f"convergence: {name} holds {sorted(under)[:3]} and wants none of {prefix!r}")
                    continue
                self._equal(name, under, owner, _under(content(nodes[owner].store), prefix))

    def _equal(self, name: str, held: Content, other: str, expected: Content) -> None:
        if held != expected:
            keys = sorted(key for key in held.keys() | expected.keys() if held.get(key) != expected.get(key))
            parts = [f"{key!r}: {str(held.get(key))[:80]} not {str(expected.get(key))[:80]}" for key in keys[:3]]
            self._world.fail(f"replicas: {name} differs from {other} at rest in {len(keys)} keys: {'; '.join(parts)}")

    # -- replicas -----------------------------------------------------------------------------------------------------

    def _replicated(self) -> list[Callable[[], str]]:
        return [self._all_up, self._in_step, self._tasks.left_over]

    def _in_step(self) -> str:
        nodes, primary = self._nodes(), self._losses.primary
        if nodes[primary].replication.role != "master":
            return f"{primary} is to be the primary, and is none"
        others = (name for name in nodes if name != primary)
        return next((text for name in others if (text := self._behind(name, primary))), "")

    def _plain_replicas_in_step(self) -> str:
        replicas = self._plan.replicas.items()
        return next((text for name, followed in replicas if (text := self._behind(name, followed))), "")

    def _behind(self, name: str, followed: str) -> str:
        """What a replica lacks of what it follows, at its upstream or above that."""
        living = self._world.living()
        node, primary = living[name], living[followed].replication
        replication = node.replication
        if replication.role != "slave":
            return f"{name} is to be a replica, and is none"
        place, expected = (replication.history, replication.position), (primary.history, primary.position)
        if place != expected:
            return f"{name} is at {place}, and the primary {followed} at {expected}"
        if any(facts.state != "connected" for facts in node.server.view.upstreams()):
            return f"{name} is not connected to its upstream"
        return ""

    def _compare_replicas(self, nodes: dict[str, Node]) -> None:
        primary = self._losses.primary
        expected = content(nodes[primary].store)
        for name, node in nodes.items():
            if name != primary:
                self._equal(name, content(node.store), primary, expected)

    def _compare_plain_replicas(self, nodes: dict[str, Node]) -> None:
        """They have all that their upstream has, copies and keys of no scope included."""
        living = self._world.living()
        for name, followed in self._plan.replicas.items():
            self._equal(name, content(living[name].store), followed, content(nodes[followed].store))

    # -- what must be gone --------------------------------------------------------------------------------------------

    def _check_leftovers(self, name: str, node: Node) -> None:
        replication = node.replication
        left = [path for path in self._world.disks[name].list("/data") if "stage" in path or "tmp" in path]
        if left:
            self._world.fail(f"convergence: {name} still has {left}")
        if replication.backlog.pins.lowest is not None:
            self._world.fail(f"convergence: {name} still pins its backlog at {replication.backlog.pins.lowest}")
        if replication._shipping or replication._gate.running:
            self._world.fail(f"convergence: {name} still ships")
        if node.server.waiters.count:
            self._world.fail(f"convergence: clients still wait at {name}")


def _under(held: Content, prefix: bytes) -> Content:
    return {key: value for key, value in held.items() if key.startswith(prefix)}
