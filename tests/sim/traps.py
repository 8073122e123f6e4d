"""Faults that wait for a certain moment: a record of a move, or a ship that is under way."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from random import Random
from typing import Final

import trio
from sim.losses import Losses
from sim.network import Host
from sim.plan import Action, Plan
from sim.records import Records
from sim.talk import GONE, Connection
from sim.world import CLIENT_PORT, Death, Life, World
from support.memory_disk import Call

from kevynode.scope.ledger_file import LEDGER
from kevynode.scope.ledger_records import MoveRecord, MoveRole, MoveState

__all__ = ["Traps"]

_SOURCE, _TARGET = MoveRole.SOURCE, MoveRole.TARGET
_DEATHS: Final[dict[str, Death]] = {"kill": "kill", "power": "power"}
#: The records at which something may happen.
_MOMENTS: Final = (
    (_SOURCE, MoveState.REQUESTED),
    (_SOURCE, MoveState.QUIESCED),
    (_SOURCE, MoveState.SHIPPED),
    (_SOURCE, MoveState.FLIPPED),
    (_SOURCE, MoveState.ACTIVATED),
    (_TARGET, MoveState.AGREED),
    (_TARGET, MoveState.SEALED),
    (_TARGET, MoveState.SEALED),
    (_TARGET, MoveState.ACTIVATED),
)


class Traps:
    """Sets traps. ``come_back`` starts a node again after a while; ``move`` carries out a move."""

    def __init__(
        self,
        world: World,
        plan: Plan,
        losses: Losses,
        records: Records,
        come_back: Callable[[str, float], Awaitable[None]],
        move: Callable[[Action], Awaitable[None]],
    ) -> None:
        self._world = world
        self._plan = plan
        self._losses = losses
        self._records = records
        self._come_back = come_back
        self._move = move
        self._host: Host = world.network.add("flooder", "10.0.9.2")

    # -- moves --------------------------------------------------------------------------------------------------------

    async def move_trapped(self, action: Action) -> None:
        """A move of which a node ends, or two do, in the moment in which a certain record is durable."""
        random = Random(f"trap {action.seed}")
        role, state = random.choice(_MOMENTS)
        kinds: list[Death] = ["kill"] if self._plan.policy == "memory" else ["kill", "power", "power", "lose"]
        how, whom = random.choice(kinds), random.choice(("here", "there", "both"))
        breaks_disk = self._plan.policy != "memory" and random.random() < 0.3
        sprung: list[str] = []

        def spring(life: Life, record: MoveRecord) -> None:
            if sprung or (record.role, record.state) != (role, state):
                return
            both = {"here": [life.name], "there": [record.peer], "both": [life.name, record.peer]}[whom]
            sprung.extend(both)
            self._world.trace.add("fault", f"trap at {role.value} {state.value}: {how} {both}, {breaks_disk}")
            for name in both:
                if breaks_disk:
                    self._break_disk(name)
                else:
                    self._world.die(name, how, action.seed)

        self._records.on_record.append(spring)
        try:
            await self._move(action)
        finally:
            self._records.on_record.remove(spring)
        if breaks_disk and sprung:
            await trio.sleep(random.choice((0.05, 0.3, 1.0)))
        async with trio.open_nursery() as nursery:
            for name in sprung:
                if breaks_disk:
                    self._world.die(name, random.choice(("kill", "power")), action.seed)
                    self._world.disks[name].repaired()
                    self._losses.trouble_ends(name)
                nursery.start_soon(self._come_back, name, action.span)
        for name in sprung:
            self._world.disks[name].forgive()

    def _break_disk(self, name: str) -> None:
        """Nothing that is written is durable from here on."""
        disk = self._world.disks[name]
        disk.trouble()
        self._losses.trouble_begins(name)
        disk.fail_next("sync", errno.EIO, 500)

    async def move_unrecorded(self, action: Action) -> None:
        """A move whose source cannot make its records durable from a moment on, though all else is; then it ends."""
        random = Random(f"trap {action.seed}")
        state = random.choice((MoveState.REQUESTED, MoveState.QUIESCED, MoveState.SHIPPED, MoveState.SHIPPED))
        ends = "kill" if self._plan.policy == "memory" else random.choice(("kill", "power"))
        sprung: list[tuple[Life, trio.Event]] = []

        def spring(life: Life, record: MoveRecord) -> None:
            if not sprung and (record.role, record.state) == (_SOURCE, state):
                self._world.trace.add("fault", f"trap at source {state.value}: the ledger of {life.name} fails")
                sprung.append((life, self.fail_ledger(life.name)))

        self._records.on_record.append(spring)
        try:
            await self._move(action)
        finally:
            self._records.on_record.remove(spring)
        for life, mended in sprung:
            await trio.sleep(random.choice((0.3, 1.0, 3.0)))
            if random.random() < 0.8 and self._world.lives[life.name] is life:
                self._world.die(life.name, _DEATHS[ends], action.seed)
                await self._come_back(life.name, action.span)
            mended.set()
            self._world.disks[life.name].forgive()

    def fail_ledger(self, name: str) -> trio.Event:
        """Let every sync of the ledger's file fail, and nothing else, until the event."""
        disk, mended = self._world.disks[name], trio.Event()
        before = disk.before
        assert before is not None

        def fail(call: Call) -> None:
            before(call)
            if not mended.is_set() and call.method == "sync" and call.path.endswith(LEDGER):
                disk.fail_next("sync")

        disk.faults.append(mended)
        disk.forgive()
        disk.before = fail
        return mended

    # -- ships --------------------------------------------------------------------------------------------------------

    async def flooded_ship(self, action: Action) -> None:
        """A node that has to be sent everything over a narrow way, while more is written than the backlog may hold."""
        name = next((node for node in action.nodes if node != self._losses.primary), action.nodes[1])
        random, network = Random(action.seed), self._world.network
        ways = [way for way in network.ways if name in way]
        for way in ways:
            network.weather(way).capacity, network.weather(way).grain = 2048, 500
            network.weather(way).latency = 0.02
        network.changed()
        self._world.die(name, "lose", action.seed)
        await self._come_back(name, 0.1)
        writers = [self._losses.primary]
        if self._plan.scopes:
            living = self._world.living().items()
            writers = [other for other, node in living if node.member is not None and node.member.ownership.owned()]
        for writer in writers:
            if writer != name:
                await self._flood(writer, random)
        network.calm(ways)

    async def _flood(self, name: str, random: Random) -> None:
        prefixes = sorted(self._plan.scopes) or [b"k:"]
        connection: Connection | None = None
        try:
            with trio.fail_after(4):
                connection = await Connection.open(self._host, self._world.addresses[name], CLIENT_PORT)
                for _ in range(random.choice((2, 6))):
                    words = [
                        (b"SET", random.choice(prefixes) + b"large%d" % random.randrange(8), b"." * 1500)
                        for _ in range(12)
                    ]
                    await connection.send(*words)
                    for _ in words:
                        await connection.reply()
                    await trio.sleep(0.05)
        except (trio.TooSlowError, *GONE):
            pass
        finally:
            if connection is not None:
                with trio.CancelScope(shield=True):
                    await connection.aclose()
