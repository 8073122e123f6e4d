"""What befalls a cluster, and what an operator does about it."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import attrs
import trio
from sim.losses import Losses
from sim.meddling import Meddling
from sim.mistakes import Mistakes
from sim.network import Host
from sim.plan import Action, Plan
from sim.records import Records
from sim.relocation import Relocation
from sim.returns import Returns
from sim.talk import GONE, Connection, Refusal, Word
from sim.traps import Traps
from sim.world import CLIENT_PORT, REPLICATION_PORT, Death, Life, World

__all__ = ["Faults"]


class Faults:
    """Carries out the actions of a plan. Everything ends with :meth:`heal`."""

    def __init__(self, world: World, plan: Plan, losses: Losses, records: Records) -> None:
        self.counts: dict[str, int] = {}
        self.moves: dict[str, int] = {}
        #: Who is the primary of a replicated cluster, and who follows whom.
        self.upstreams = dict(plan.upstreams)
        self._world = world
        self._plan = plan
        self._losses = losses
        self._operator: Host = world.network.add("operator", "10.0.9.1")
        self._healing = False
        self._promoting = trio.Lock()
        losses.on_promoted.append(self._is_promoted)
        traps = Traps(world, plan, losses, records, self._come_back, self._move)
        returns = Returns(world, plan, traps, self._come_back, self._ask)
        meddling = Meddling(world, plan, self._ask)
        self._relocation = Relocation(world, plan)
        mistakes = Mistakes(world, plan, losses, self._ask, self._point, self._replace_primary)
        self._kinds: dict[str, Callable[[Action], Awaitable[None]]] = {
            "cut": self._cut,
            "cut one way": self._cut,
            "isolate": self._isolate,
            "reset": self._reset,
            "break after": self._break_after,
            "slow": self._slow,
            "narrow": self._slow,
            "stop": self._end,
            "kill": self._end,
            "power": self._end,
            "lose": self._end,
            "kill in a call": self._end_in_a_call,
            "power in a call": self._end_in_a_call,
            "freeze": self._freeze,
            "freeze and end": self._freeze,
            "disk full": self._disk_full,
            "disk error": self._disk_error,
            "fail and end": self._fail_and_end,
            "lost sync": self._lost_sync,
            "slow disk": self._slow_disk,
            "rewrite": self._rewrite,
            "clock": self._clock,
            "move": self._move,
            "move struck": self._move_struck,
            "move trapped": traps.move_trapped,
            "move unrecorded": traps.move_unrecorded,
            "move and return": returns.move_and_return,
            "flooded ship": traps.flooded_ship,
            "abort": self._abort,
            "relocate": self._relocation.relocate,
            "promote": self._promote,
            "redirect": self._redirect,
            "usurp": mistakes.usurp,
            "switch over": mistakes.switch_over,
            "circle": mistakes.circle,
            "move twice": mistakes.move_twice,
            "pause": meddling.pause,
            "cut clients": meddling.cut_clients,
            "limit memory": meddling.limit_memory,
            "change policy": meddling.change_policy,
        }

    async def carry_out(self, action: Action) -> None:
        """Wait until it is time, and do it."""
        await trio.sleep_until(action.at)
        if self._healing:
            return
        self._world.trace.add("fault", str(action))
        self.counts[action.kind] = self.counts.get(action.kind, 0) + 1
        await self._kinds[action.kind](action)

    async def heal(self) -> None:
        """End all faults, and have all nodes run."""
        self._healing = True
        world = self._world
        world.trace.add("world", "heal")
        world.network.calm()
        world.network.on_sent.clear()
        for name in self._plan.everybody:
            if name in world.lives:
                world.thaw(world.lives[name])
            world.disks[name]._moment = None
            world.disks[name].repaired()
            world.disks[name].quick()
        async with self._promoting:
            pass
        await self._relocation.finish()
        for name in self._plan.everybody:
            if not await world.start(name) and not await world.start(name):
                world.fail(f"{name} does not start again")
        for name in sorted(self.upstreams):
            # Whoever was to be put right when that was over.
            world.nursery.start_soon(self._point, name)

    # -- the network --------------------------------------------------------------------------------------------------

    async def _cut(self, action: Action) -> None:
        one, other = action.nodes
        ways = [(one, other)] if action.kind == "cut one way" else [(one, other), (other, one)]
        await self._cut_ways(ways, action.span)

    async def _isolate(self, action: Action) -> None:
        name = action.nodes[0]
        others = [other for other in self._world.network.hosts if other not in (name, "operator")]
        await self._cut_ways([way for other in others for way in ((name, other), (other, name))], action.span)

    async def _cut_ways(self, ways: list[tuple[str, str]], span: float) -> None:
        network = self._world.network
        for way in ways:
            network.weather(way).cut = True
        await trio.sleep(span)
        if not self._healing:
            for way in ways:
                network.weather(way).cut = False
            network.changed()

    async def _reset(self, action: Action) -> None:
        for wire in self._world.network.standing():
            if wire.between(*action.nodes):
                wire.cut()
        await trio.lowlevel.checkpoint()

    async def _break_after(self, action: Action) -> None:
        """Connections break in the midst of what is sent."""
        random = Random(action.seed)
        for wire in self._world.network.standing():
            if action.nodes[0] in (wire.near, wire.far):
                lane = random.choice((wire.there, wire.back))
                lane.limit = int(random.choice((10, 100, 1000, 10000)) * random.random())
        await trio.lowlevel.checkpoint()

    async def _slow(self, action: Action) -> None:
        random, network = Random(action.seed), self._world.network
        name = action.nodes[0]
        ways = [way for way in network.ways if name in way]
        for way in ways:
            weather = network.weather(way)
            if action.kind == "slow":
                weather.latency, weather.jitter = random.choice(((0.02, 0.02), (0.2, 0.1), (0.0, 0.3)))
            else:
                weather.capacity, weather.grain = random.choice((512, 4096)), random.choice((7, 100, 1000))
        network.changed()
        await trio.sleep(action.span)
        if not self._healing:
            network.calm(ways)

    # -- nodes and disks ----------------------------------------------------------------------------------------------

    async def _end(self, action: Action) -> None:
        name = action.nodes[0]
        if action.kind == "stop":
            await self._world.stop(name)
        else:
            self._world.die(name, _death(action.kind), action.seed)
        await self._come_back(name, action.span)

    async def _end_in_a_call(self, action: Action) -> None:
        """End a node in the midst of a call of its disk."""
        name = action.nodes[0]
        random = Random(action.seed)
        died = trio.Event()

        def die() -> None:
            died.set()
            self._world.die(name, _death(action.kind.split()[0]), action.seed)

        disk = self._world.disks[name]
        disk.at_moment(random.choice((0, 1, 2, 3, 5, 8, 20, 50)), die)
        with trio.move_on_after(3):
            await died.wait()
        disk._moment = None
        if died.is_set():
            await self._come_back(name, action.span)

    async def _freeze(self, action: Action) -> None:
        """A node does nothing for a while: from some moment on, or from that at which it has sent something."""
        name, random, world = action.nodes[0], Random(action.seed), self._world
        frozen = trio.Event()
        lives: list[Life] = []

        def freeze() -> None:
            life = world.freeze(name)
            lives.extend(() if life is None else (life,))
            frozen.set()

        if random.random() < 0.7:
            world.network.on_sent[name] = random.choice((0, 1, 2, 5, 10, 30)), freeze
            with trio.move_on_after(3):
                await frozen.wait()
            world.network.on_sent.pop(name, None)
        else:
            freeze()
        for life in lives:
            await trio.sleep(action.span)
            if action.kind == "freeze and end" and world.lives[name] is life:
                world.die(name, random.choice(("kill", "power")), action.seed)
                await self._come_back(name, random.choice((0.05, 1.0)))
            else:
                world.thaw(life)

    async def _come_back(self, name: str, span: float) -> None:
        if self._plan.policy == "memory" and self._plan.shape == "replicated" and name == self._losses.primary:
            # Whoever copies it would copy that it is empty.
            await self._replace_primary(name)
        await trio.sleep(span)
        if not self._healing:
            await self._world.start(name)

    async def _disk_full(self, action: Action) -> None:
        name = action.nodes[0]
        disk = self._world.disks[name]
        disk.trouble()
        self._losses.trouble_begins(name)
        disk.fill_up(Random(action.seed).choice((0, 10, 500, 5000)))
        await self._repair(name, action.span)

    async def _disk_error(self, action: Action) -> None:
        name = action.nodes[0]
        random, disk = Random(action.seed), self._world.disks[name]
        disk.trouble()
        self._losses.trouble_begins(name)
        method = random.choice(("write", "write", "sync", "sync", "sync_folder", "rename", "create", "open_append"))
        disk.fail_next(method, random.choice((errno.EIO, errno.ENOSPC)), random.choice((1, 1, 2, 20)))
        await self._repair(name, action.span)

    async def _slow_disk(self, action: Action) -> None:
        """A disk that takes its time, while files are rewritten more often than not; and often an end in the midst."""
        name = action.nodes[0]
        world, random = self._world, Random(action.seed)
        world.disks[name].slow(action.seed, random.choice((0.05, 0.5, 3.0)))
        rewrites, ends = random.random() < 0.7, random.random() < 0.6
        end = trio.current_time() + action.span + 2.0
        while trio.current_time() < end and not self._healing:
            if rewrites:
                await self._ask(name, b"BGREWRITEAOF")
            await trio.sleep(random.uniform(0.2, 1.5))
        if ends and not self._healing:
            world.die(name, random.choice(("kill", "power")), action.seed)
            await self._come_back(name, 0.1 * action.span)
        if not self._healing:
            world.disks[name].quick()

    async def _repair(self, name: str, span: float) -> None:
        await trio.sleep(span)
        # A node may have been found on another disk meanwhile: what was left of this one goes on to fail there.
        self._world.disks[name].repaired()
        while not self._healing:
            life = self._world.lives[name]
            node = life.node
            if not life.dead and life.ready and node is not None and not node.persistence.append_only().problem:
                self._losses.trouble_ends(name)
                self._world.disks[name].forgive()
                return
            await trio.sleep(0.2)

    async def _rewrite(self, action: Action) -> None:
        await self._ask(action.nodes[0], b"BGREWRITEAOF")

    async def _clock(self, action: Action) -> None:
        random = Random(action.seed)
        life = self._world.lives[action.nodes[0]]
        life.clock.set(random.choice((-3600, -5, -0.5, 0.5, 5, 60)))
        await trio.lowlevel.checkpoint()

    # -- the operator -------------------------------------------------------------------------------------------------

    async def _ask(self, name: str, *words: Word, patience: float = 2.0) -> Any:
        """One command of the operator's; None if there is no answer."""
        reply: Any = None
        connection: Connection | None = None
        try:
            with trio.fail_after(patience):
                connection = await Connection.open(self._operator, self._world.addresses[name], CLIENT_PORT)
                reply = await connection.call(*words)
        except (trio.TooSlowError, *GONE):
            pass
        finally:
            # Who has waited for long enough hangs up.
            if connection is not None:
                with trio.CancelScope(shield=True):
                    await connection.aclose()
        self._world.trace.add("operator", f"{name} {words!r}: {reply!r}")
        return reply

    async def _move(self, action: Action) -> None:
        random = Random(action.seed)
        prefix = random.choice(sorted(self._plan.scopes))
        living = self._world.living()
        owners = [name for name, node in living.items() if node.member and prefix in node.member.ownership.owned()]
        if not owners:
            return
        source = random.choice(owners)
        targets = [name for name in action.nodes if name != source] or [random.choice(self._plan.nodes)]
        timeout = random.choice((200, 1000, 5000, 5000))
        command: tuple[Word, ...] = ("MOVE-SCOPE", prefix, "FROM", source, "TO", targets[0], "TIMEOUT", timeout)
        reply = await self._ask(source, *command, patience=8.0)
        word = "?" if reply is None else reply.code if isinstance(reply, Refusal) else "OK"
        self.moves[word] = self.moves.get(word, 0) + 1

    async def _move_struck(self, action: Action) -> None:
        """A move, and something that befalls its two nodes in the midst of it."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._move, action)
            random = Random(f"strike {action.seed}")
            await trio.sleep(random.choice((0.002, 0.005, 0.01, 0.1)) * random.uniform(0, 2))
            owners = [name for name in self._plan.nodes if any(name in found for found in self._owners())]
            pair = tuple(random.sample([*owners, *action.nodes], 2))
            kinds = [
                "kill",
                "power",
                "cut",
                "cut one way",
                "reset",
                "disk error",
                "lose",
                "kill in a call",
                "fail and end",
            ]
            if self._plan.policy == "memory":
                kinds = ["kill", "cut", "cut one way", "reset"]
            strike = attrs.evolve(action, kind=random.choice(kinds), nodes=pair, seed=random.getrandbits(32))
            self._world.trace.add("fault", f"strike {strike}")
            self.counts[strike.kind] = self.counts.get(strike.kind, 0) + 1
            nursery.start_soon(self._kinds[strike.kind], strike)

    async def resolve(self, name: str, prefix: bytes) -> None:
        """Decide a move at its target: its source has lost all memory of it, and may have gone on without."""
        goes_on = any(
            row.prefix == prefix and row.owner == other and row.state == "open"
            for other, node in self._world.living().items()
            if node.member is not None
            for row in node.member.ownership.declared()
        )
        await self._ask(name, "MOVE-SCOPE", "RESOLVE", prefix, "ABORT" if goes_on else "COMMIT")

    async def _fail_and_end(self, action: Action) -> None:
        """A disk that makes nothing durable any more, and then the end of the node."""
        name = action.nodes[0]
        random, disk = Random(action.seed), self._world.disks[name]
        disk.trouble()
        self._losses.trouble_begins(name)
        disk.fail_next(random.choice(("sync", "sync", "write")), errno.EIO, random.choice((1, 2, 5, 50)))
        await trio.sleep(random.choice((0.01, 0.1, 0.5, 2.0)))
        self._world.die(name, random.choice(("kill", "kill", "power")), action.seed)
        self._world.disks[name].repaired()
        await self._come_back(name, action.span)
        self._losses.trouble_ends(name)
        self._world.disks[name].forgive()

    async def _lost_sync(self, action: Action) -> None:
        """A sync that fails, the end of the process, another one on the same machine, and a loss of power."""
        name = action.nodes[0]
        random, disk = Random(action.seed), self._world.disks[name]
        disk.trouble()
        self._losses.trouble_begins(name)
        disk.fail_next("sync", errno.EIO, 50)
        with trio.move_on_after(3):
            while not self._has_problem(name):  # noqa: ASYNC110  nobody tells of it
                await trio.sleep(0.01)
        await trio.sleep(random.choice((0.0, 0.01, 0.5)))
        self._world.die(name, "kill", action.seed)
        self._world.disks[name].repaired()
        await self._come_back(name, 0.1 * action.span)
        self._losses.trouble_ends(name)
        self._world.disks[name].forgive()
        await trio.sleep(random.choice((0.1, 0.5, 1.5)))
        if not self._healing:
            self._world.die(name, "power", action.seed)
            await self._come_back(name, action.span)

    def _has_problem(self, name: str) -> bool:
        node = self._world.living().get(name)
        return node is not None and bool(node.persistence.append_only().problem)

    def _owners(self) -> list[set[str]]:
        """Who owns each prefix, by anybody's word."""
        found: dict[bytes, set[str]] = {}
        for node in self._world.living().values():
            if node.member is not None:
                for row in node.member.ownership.declared():
                    found.setdefault(row.prefix, set()).add(row.owner)
        return list(found.values())

    async def _abort(self, action: Action) -> None:
        random = Random(action.seed)
        await self._ask(action.nodes[0], "MOVE-SCOPE", "ABORT", random.choice(sorted(self._plan.scopes)))

    async def _promote(self, action: Action) -> None:
        random = Random(action.seed)
        name = self._losses.primary
        self._losses.about_to_promote()
        self._world.die(name, random.choice(("kill", "power")), action.seed)
        await self._replace_primary(name)
        await trio.sleep(action.span)
        if not self._healing:
            await self._world.start(name)

    async def _replace_primary(self, old: str, spare: float | None = None) -> None:
        """Make the furthest replica of a primary one, and let all others follow it.

        The primary has to be dead, unless ``spare`` are the seconds for which it may go on.
        """
        async with self._promoting:
            world, losses = self._world, self._losses
            if losses.primary != old or (spare is None and world.exists(old)):
                return
            node = world.lives[old].node
            history = 0 if node is None else node.replication.history
            found = [
                (other.replication.position, name)
                for name, other in world.living().items()
                if name != old and other.replication.history == history and other.replication.has_data
            ]
            if not found:
                return
            name = max(found)[1]
            life = world.lives[name]
            # If that is on its way already, it is right now.
            losses.usurpers.discard(name)
            while losses.primary != name:
                # Who has been asked may do it long after nobody waits for the answer any more.
                await self._ask(name, "REPLICAOF", "NO", "ONE")
                if life.dead and losses.primary != name:
                    return
        for other in self._plan.nodes:
            if other != name and world.is_up(other):
                self._world.nursery.start_soon(self._point, other, spare or 0.0 if other == old else 0.0)

    def _is_promoted(self, name: str) -> None:
        """A node has become the primary: it starts as that from now on, and all others as its replicas."""
        self._world.trace.add("operator", f"{name} is the primary now")
        for other in self._plan.nodes:
            if other != name:
                self._follow_from_now_on(other, name)
        self._world.tables[name]["replication"].pop("role", None)
        self._world.tables[name]["replication"].pop("upstream", None)
        self.upstreams.pop(name, None)

    def _follow_from_now_on(self, name: str, upstream: str) -> None:
        self.upstreams[name] = upstream
        address = f"{self._world.addresses[upstream]}:{REPLICATION_PORT}"
        self._world.tables[name]["replication"] |= {"role": "replica", "upstream": address}

    async def _point(self, name: str, after: float = 0.0) -> None:
        """Have a node follow whom it is to follow, ``after`` so many seconds, as often as it takes."""
        if after:
            await trio.sleep(after)
        while self._world.is_up(name) and name in self.upstreams:
            upstream = self._world.addresses[self.upstreams[name]]
            node = self._world.lives[name].node
            assert node is not None
            if node.replication.target == (upstream, REPLICATION_PORT):
                return
            await self._ask(name, "REPLICAOF", upstream, REPLICATION_PORT)
            await trio.sleep(0.1)

    async def _redirect(self, action: Action) -> None:
        name, upstream = action.nodes
        if name == self._losses.primary:
            name, upstream = upstream, name
        above, seen = upstream, {name}
        while above in self.upstreams and above not in seen:
            above = self.upstreams[above]
        if above in seen or self._promoting.locked():
            return
        self._follow_from_now_on(name, upstream)
        await self._point(name)


def _death(kind: str) -> Death:
    return kind  # type: ignore[return-value]  # kill, power or lose, as the kinds of actions are called
