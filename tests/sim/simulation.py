"""One simulation: a cluster from a seed, what befalls it, and every check of what came of that."""

from __future__ import annotations

import time
import traceback
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Any, Final

import attrs
import trio
from sim.clients import Client, Sessions, keys_of
from sim.counted import Counted
from sim.elements import Elements, check_elements
from sim.faults import Faults
from sim.habits import HABITS, Consumer
from sim.history import History
from sim.linear import check_key
from sim.losses import Losses
from sim.plan import LENGTH, Plan, Profile, draw_plan
from sim.records import Records
from sim.rest import Rest
from sim.scheduling import run_by_seed
from sim.threads import simulated_threads
from sim.trace import Trace
from sim.watch import Watch
from sim.world import CLIENT_PORT, REPLICATION_PORT, World

__all__ = ["Outcome", "simulate", "simulate_plan", "with_actions"]

#: Seconds of the simulation after which it is taken for stuck.
LIMIT: Final = 400.0


@attrs.define
class Outcome:
    """What came of one simulation."""

    seed: int
    profile: Profile
    plan: Plan
    failures: list[str]
    trace: Trace
    #: Seconds of the cluster, and of the processor.
    simulated: float = 0.0
    took: float = 0.0
    faults: dict[str, int] = attrs.Factory(dict)
    moves: dict[str, int] = attrs.Factory(dict)
    answers: dict[str, int] = attrs.Factory(dict)
    operations: int = 0
    unanswered: int = 0
    undecided: int = 0
    compared: int = 0
    records: int = 0
    counted: int = 0
    reads: int = 0
    waits: int = 0
    pairs: int = 0
    taken: int = 0
    mortals: int = 0

    @property
    def kinds(self) -> frozenset[str]:
        """What kinds of checks failed."""
        return frozenset(failure.partition(":")[0] for failure in self.failures)


def simulate(seed: int, profile: Profile) -> Outcome:
    """Run the simulation that a seed means."""
    return simulate_plan(draw_plan(seed, profile))


def with_actions(plan: Plan, numbers: Collection[int]) -> Plan:
    """A plan of which only the actions with these numbers happen."""
    return attrs.evolve(plan, actions=tuple(action for action in plan.actions if action.number in numbers))


def simulate_plan(plan: Plan) -> Outcome:
    """Run one simulation. The plan's seed decides what the plan leaves open."""
    trace = Trace()
    outcome = Outcome(plan.seed, plan.profile, plan, [], trace)
    began = time.process_time()

    async def main() -> None:
        try:
            with trio.fail_after(LIMIT):
                await _Simulation(plan, outcome).run()
        except trio.TooSlowError:
            outcome.failures.append(f"convergence: no end after {LIMIT:.0f} s")
        outcome.simulated = trio.current_time()

    try:
        with simulated_threads():
            run_by_seed(main, plan.seed)
    except Exception as error:
        # Of the simulation itself, or of a node in a place where nothing else catches it.
        where = "".join(traceback.format_exception(error, chain=False, limit=-12))
        outcome.failures.append(f"crash: {error!r}\n{where}")
    outcome.took = time.process_time() - began
    return outcome


class _Simulation:
    def __init__(self, plan: Plan, outcome: Outcome) -> None:
        self.plan = plan
        self.outcome = outcome
        self.trace = outcome.trace
        self.history = History()
        self.elements = Elements()
        self.prefixes = sorted(plan.scopes) or [b"k:"]

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            world = World(self.plan.seed, nursery, self.trace)
            world.failures = self.outcome.failures
            await self._live(world, nursery)
            nursery.cancel_scope.cancel()

    async def _live(self, world: World, nursery: trio.Nursery) -> None:
        plan = self.plan
        losses = Losses(world, plan, self.history, self.prefixes)
        watch = losses.watch = Watch(world, self.prefixes if plan.scopes else ())
        watch.on_opened.append(losses.opened)
        losses.on_promoted.append(watch.promoted)
        records = Records(world)
        records.opened = watch.epochs
        counted = Counted(world, self.prefixes if plan.scopes else ())
        self._declare(world)
        faults = Faults(world, plan, losses, records)
        kinds: list[type[Client]] = [Client] * plan.clients
        for kind, count in (HABITS[habit] for habit in plan.habits):
            kinds += [kind] * count
        clients = [self._client(world, kind, number) for number, kind in enumerate(kinds, 1)]
        for client in clients:
            client.on_answered.append(losses.answered)
            client.redirected = losses.exposure.redirected
        async with trio.open_nursery() as starts:
            for name in plan.everybody:
                starts.start_soon(_start, world, name)
        done: list[str] = []
        for client in clients:
            nursery.start_soon(_ending, client.run, client.name, done)
        async with trio.open_nursery() as actions:
            for action in plan.actions:
                actions.start_soon(faults.carry_out, action)
            # What lasts long does not keep the rest of the cluster from an end.
            actions.cancel_scope.deadline = LENGTH + 8
        await faults.heal()
        await trio.sleep(1.0)
        for client in clients:
            client.stopped = True
        while len(done) < len(clients):  # noqa: ASYNC110  as good as an event
            await trio.sleep(0.1)
        rest = Rest(world, plan, faults, losses, records)
        await rest.reach()
        await self._read_all(world, clients)
        await rest.check()
        for name in plan.everybody:
            await world.stop(name)
        self.outcome.records = records.looked
        self.outcome.counted = counted.looked
        self._judge(world, watch, faults, clients)

    def _declare(self, world: World) -> None:
        plan = self.plan
        for number, name in enumerate(plan.nodes, 1):
            ip = f"10.0.0.{number}"
            sections: dict[str, Any] = {section: dict(values) for section, values in plan.sections.items()}
            sections["server"] = {"bind": ip, "port": CLIENT_PORT, "data_dir": "/data"}
            sections["cluster"] = {"node_id": name}
            if plan.scopes:
                sections["cluster"] |= {
                    "replicate": plan.replicate[name],
                    "peer": [
                        {"id": other, "address": f"10.0.0.{place}:{CLIENT_PORT}"}
                        for place, other in enumerate(plan.nodes, 1)
                    ],
                    "scope": [{"prefix": prefix.decode(), "writer": writer} for prefix, writer in plan.scopes.items()],
                }
            if name in plan.upstreams:
                place = plan.nodes.index(plan.upstreams[name]) + 1
                sections["replication"] |= {"role": "replica", "upstream": f"10.0.0.{place}:{REPLICATION_PORT}"}
            world.declare(name, sections)
        for name, upstream in plan.replicas.items():
            sections = {section: dict(values) for section, values in plan.sections.items()}
            sections["server"] = {
                "bind": f"10.0.0.{len(world.addresses) + 1}",
                "port": CLIENT_PORT,
                "data_dir": "/data",
            }
            sections["cluster"] = {"node_id": name}
            address = f"{world.addresses[upstream]}:{REPLICATION_PORT}"
            sections["replication"] |= {"role": "replica", "upstream": address}
            world.declare(name, sections)

    def _client(self, world: World, kind: type[Client], number: int) -> Client:
        name = f"c{number}"
        host = world.network.add(name, f"10.0.8.{number}")
        client = kind(name, host, world, self.history, self.prefixes, f"{self.plan.seed} {name}")
        client.copies = self.plan.wants
        client.elements = self.elements
        return client

    async def _read_all(self, world: World, clients: list[Client]) -> None:
        """At rest every key is read where it is written, and every list."""
        for prefix in self.prefixes:
            for key in keys_of(prefix):
                await _persist(world, f"{key!r}", partial(_is_read, clients[0], prefix, key))
            for consumer in [client for client in clients if isinstance(client, Consumer)][:1]:
                await _persist(world, f"the lists under {prefix!r}", partial(consumer.look, prefix))
        for client in clients:
            await client.close()

    def _judge(self, world: World, watch: Watch, faults: Faults, clients: list[Client]) -> None:
        outcome = self.outcome
        self.history.settle()
        self.elements.settle(self.history.disputes)
        for key, operations in sorted(self.history.operations.items()):
            outcome.operations += len(operations)
            outcome.unanswered += sum(not operation.known for operation in operations)
            verdict = check_key(operations, self.history.losses_of(key))
            if verdict.outcome == "undecided":
                outcome.undecided += 1
            elif verdict.outcome == "bad":
                world.fail(f"linearizability: no order explains {key!r}:\n      {verdict.detail}")
        for prefix, operations in sorted(self.elements.operations.items()):
            outcome.taken += sum(operation.known for operation in operations)
            losses = self.history.losses_of(prefix)
            for line in check_elements(operations, losses, self.elements.rest.get(prefix, ([], []))):
                world.fail(f"elements: under {prefix!r} {line}")
        outcome.compared = watch.counts.compared
        outcome.faults, outcome.moves = faults.counts, faults.moves
        for client in clients:
            self._add(client.sessions)

    def _add(self, sessions: Sessions) -> None:
        outcome = self.outcome
        outcome.reads += sessions.reads
        outcome.waits += sessions.waits
        outcome.pairs += sessions.pairs
        outcome.mortals += sessions.mortals
        for code, count in sessions.answers.items():
            outcome.answers[code] = outcome.answers.get(code, 0) + count


async def _is_read(client: Client, prefix: bytes, key: bytes) -> bool:
    return await client.operate(prefix, key, "get", b"", 2.0) is not None


async def _persist(world: World, what: str, read: Callable[[], Awaitable[bool]]) -> None:
    """Read until there is an answer."""
    for _ in range(60):
        if await read():
            return
        await trio.sleep(0.05)
    world.fail(f"convergence: nobody answers for {what} at rest")


async def _start(world: World, name: str) -> None:
    if not await world.start(name):
        world.fail(f"crash: {name} does not start")


async def _ending(work: Callable[[], Awaitable[None]], name: str, done: list[str]) -> None:
    await work()
    done.append(name)
