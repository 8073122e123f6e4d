"""Nodes that live and die over a simulated network, each with a disk and clocks of its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import Any, Final, Literal

import attrs
import trio
from sim.clocks import SimClock
from sim.disk import SimDisk
from sim.network import Network
from sim.scheduling import freeze, join_group, thaw
from sim.trace import Trace, TraceLog

from kevynode import Node, NodeConfig
from kevynode.node import StartError

__all__ = ["CLIENT_PORT", "REPLICATION_PORT", "Death", "Life", "World"]

CLIENT_PORT: Final = 6004
REPLICATION_PORT: Final = 16004

#: How a node ends: by SIGTERM, by SIGKILL, with the machine's power, or with its disk.
Death = Literal["stop", "kill", "power", "lose"]


@attrs.define(eq=False)
class Life:
    """One run of a node."""

    name: str
    number: int
    log: TraceLog
    clock: SimClock
    began: float
    node: Node | None = None
    dead: bool = False
    ready: bool = False
    #: When it could do nothing: from when to when, the last of them to ``inf`` while it is frozen.
    freezes: list[tuple[float, float]] = attrs.Factory(list)
    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    ended: trio.Event = attrs.Factory(trio.Event)
    #: The one in which it runs; None before that.
    task: trio.lowlevel.Task | None = None

    def before(self, moment: float, seconds: float) -> float:
        """When it was ``seconds`` before a moment, without the time in which it could do nothing."""
        for begin, end in reversed(self.freezes):
            if end <= moment - seconds or begin >= moment:
                continue
            seconds -= max(0.0, moment - end)
            moment = begin
        return moment - seconds


class World:
    """Nodes by name. ``tables`` is the configuration of each, and may be changed before a node is started again."""

    def __init__(self, seed: int, nursery: trio.Nursery, trace: Trace) -> None:
        self.seed = seed
        self.nursery = nursery
        self.trace = trace
        self.network = Network(Random(f"{seed} network"))
        self.tables: dict[str, dict[str, Any]] = {}
        self.addresses: dict[str, str] = {}
        self.lives: dict[str, Life] = {}
        self.disks: dict[str, SimDisk] = {}
        self.failures: list[str] = []
        #: Whether keys may have been evicted anywhere.
        self.evicts = False
        # Called with each life: when its node is made, when it has loaded, and when it ends, however it does.
        self.on_birth: list[Callable[[Life], object]] = []
        self.on_ready: list[Callable[[Life], object]] = []
        self.on_death: list[Callable[[Life, Death], object]] = []
        self.starts = 0

    # -- who is there -------------------------------------------------------------------------------------------------

    def declare(self, name: str, tables: dict[str, Any]) -> None:
        """A node that can be started, and the machine that it runs on."""
        ip = f"10.0.0.{len(self.addresses) + 1}"
        self.tables[name] = tables
        self.addresses[name] = ip
        self.disks[name] = SimDisk(self.seed, self.network.now)
        self.network.add(name, ip)

    def relocate(self, name: str, ip: str) -> None:
        """Have a node that is dead go on at another address; it and the others are to be told."""
        self.trace.add("world", f"{name} goes to {ip}")
        self.addresses[name] = ip
        self.network.relocate(name, ip)

    def name_of(self, address: str) -> str | None:
        """The node with this client address."""
        ip = address.rpartition(":")[0]
        return next((name for name, own in self.addresses.items() if own == ip), None)

    def living(self) -> dict[str, Node]:
        """The nodes that have loaded and are not dead, by name."""
        return {name: life.node for name, life in self.lives.items() if self.is_up(name) and life.node is not None}

    def is_up(self, name: str) -> bool:
        """Whether a node has loaded and is not dead."""
        life = self.lives.get(name)
        return life is not None and life.ready and not life.dead

    def exists(self, name: str) -> bool:
        """Whether a node was started and is not dead, loaded or not."""
        life = self.lives.get(name)
        return life is not None and not life.dead

    def fail(self, text: str) -> None:
        """Something is not as it should be."""
        if text not in self.failures:
            self.failures.append(text)
            self.trace.add("FAILURE", text)

    # -- life and death -----------------------------------------------------------------------------------------------

    async def start(self, name: str) -> bool:
        """Start a node on the disk that it left; whether it is there and has loaded. Does nothing if it runs."""
        before = self.lives.get(name)
        if before is not None:
            if not before.dead:
                return True
            await before.ended.wait()
            if self.lives.get(name) is not before:
                return True
        self.starts += 1
        random = Random(f"{self.seed} {name} {self.starts}")
        life = Life(name, self.starts, TraceLog(self.trace, name), SimClock(random), trio.current_time())
        if before is not None:
            life.clock.take_over(before.clock)
        self.lives[name] = life
        self.network.up(name)
        self.trace.add("world", f"start {name}")
        self.nursery.start_soon(self._run, life, random)
        while not life.ready and not life.ended.is_set():  # noqa: ASYNC110  two ends, one of them an attribute
            await trio.sleep(0.01)
        return life.ready

    async def _run(self, life: Life, random: Random) -> None:
        disk = self.disks[life.name]
        life.task = trio.lowlevel.current_task()
        join_group(life)
        try:
            with life.scope:
                node = Node(
                    NodeConfig.from_dict(self.tables[life.name]),
                    life.log,  # type: ignore[arg-type]  # all that is asked of it
                    clock=life.clock,
                    transport=self.network.hosts[life.name],
                    random=random,
                    disk=disk,
                    timer=life.clock.timer,
                )
                life.node = node
                for told in self.on_birth:
                    told(life)
                await node.open_files()
                await node.listen()
                async with trio.open_nursery() as nursery:
                    await nursery.start(node.run)
                    life.ready = True
                    for told in self.on_ready:
                        told(life)
        except* StartError as group:
            self._not_started(life, disk, group)
        except* Exception as group:
            if not life.dead:
                self.fail(f"{life.name} ended by {_innermost(group)!r}")
        finally:
            if not life.dead:
                self._dies(life, "stop")
            life.ended.set()

    def _not_started(self, life: Life, disk: SimDisk, group: BaseExceptionGroup[StartError]) -> None:
        if not life.dead:
            self.trace.add("world", f"{life.name} cannot start: {_innermost(group)}")
            if not disk.had_trouble:
                self.fail(f"{life.name} cannot start: {_innermost(group)}")

    def _dies(self, life: Life, how: Death) -> None:
        life.dead = True
        life.log.silent = True
        for told in self.on_death:
            told(life, how)

    def die(self, name: str, how: Death, seed: int = 0) -> None:
        """End a node this very moment, in the midst of whatever it does; nothing that it does later has any effect."""
        life = self.lives.get(name)
        if life is None or life.dead:
            return
        self.trace.add("world", f"{how} {name}")
        disk = self.disks[name]
        if how == "kill":
            self.disks[name] = disk.survivor(seed)
        elif how == "power":
            self.disks[name] = disk.after_power_loss(seed)
        else:
            self.disks[name] = SimDisk(self.seed + seed, self.network.now)
        disk.gone.set()
        self._dies(life, how)
        self.network.down(name, silently=how == "power")
        life.scope.cancel()
        self.thaw(life)

    def freeze(self, name: str) -> Life | None:
        """Let a node do nothing from this very moment on, as SIGSTOP does, until :meth:`thaw`; None: it is dead."""
        life = self.lives.get(name)
        if life is None or life.dead or (life.freezes and life.freezes[-1][1] == math.inf):
            return None
        self.trace.add("world", f"freeze {name}")
        life.freezes.append((trio.current_time(), math.inf))
        freeze(life)
        return life

    def thaw(self, life: Life) -> None:
        """Let one that is frozen go on."""
        if life.freezes and life.freezes[-1][1] == math.inf:
            self.trace.add("world", f"thaw {life.name}")
            life.freezes[-1] = life.freezes[-1][0], trio.current_time()
            thaw(life)

    async def stop(self, name: str) -> None:
        """End a node as SIGTERM does."""
        life = self.lives.get(name)
        if life is None or life.dead or life.node is None:
            return
        self.trace.add("world", f"stop {name}")
        life.node.stop()
        with trio.move_on_after(30) as patience:
            await life.ended.wait()
        if patience.cancelled_caught and self.lives[name] is life and not life.dead:
            self.fail(f"{name} does not stop")
            self.die(name, "kill")


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
