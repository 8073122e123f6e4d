"""Moves between the nodes of a :class:`ScopedCluster`: clients that follow them, and ends of nodes at each record."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import trio
from support.cluster import Cluster, ErrorReply
from support.scoped import ScopedCluster

from kevynode.scope.ledger_records import MoveRecord, MoveRole, MoveState

PREFIX = b"a:"


class Follower:
    """A client that writes one key after the other under the prefix, and goes where it is sent."""

    def __init__(self, world: ScopedCluster) -> None:
        self._world = world
        self.acknowledged: dict[bytes, bytes] = {}
        self.refused: set[str] = set()
        self.scope = trio.CancelScope()

    async def run(self, pause: float = 0.01) -> None:
        """Write until ``scope`` is cancelled."""
        with self.scope:
            number = 0
            name = "anna"
            while True:
                key, value = b"a:live:%d" % number, b"%d" % number
                name = await self._write(key, value, name)
                number += 1
                await trio.sleep(pause)

    async def _write(self, key: bytes, value: bytes, name: str) -> str:
        while True:
            reply: Any = None
            try:
                with trio.move_on_after(1.0):
                    reply = await self._world.write(name, "SET", key, value)
            except (OSError, KeyError, AssertionError, trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            if reply == "OK":
                self.acknowledged[key] = value
                return name
            if isinstance(reply, ErrorReply):
                self.refused.add(reply.text.split()[0])
            if isinstance(reply, ErrorReply) and reply.text.startswith("MISDIRECTED"):
                port = int(reply.text.rpartition(":")[2])
                name = next(other for other, taken in self._world.ports.items() if taken == port)
            await trio.sleep(0.02)


def open_moves(world: ScopedCluster) -> list[str]:
    """What has not come to its end anywhere, as its records say."""
    return [
        f"{name}: {record.role.value} {record.state.value}"
        for name in world.nodes
        for record in world.member(name).keeper.state.open_moves()
        # Whoever was called off by an operator at the other side has nobody left to say that it has heard of it.
        if record.state is not MoveState.ABORTED
    ]


def at_most_one_writer(world: ScopedCluster, prefix: bytes = PREFIX) -> Callable[[], None]:
    """What must hold after every step of any task."""

    def check() -> None:
        writers = [
            name
            for name, node in world.nodes.items()
            if node.member is not None
            and node.server.ownership is not None
            and node.server.ownership.refuse_key(prefix) is None
        ]
        assert len(writers) <= 1, f"{writers} take writes"

    return check


async def at_rest(cluster: Cluster, world: ScopedCluster, names: Iterable[str] = ()) -> None:
    """Wait until every move is over and all nodes agree; then hold all copies against their owners."""
    await cluster.until(lambda: not open_moves(world), "the end of the moves")
    await cluster.until(
        lambda: len({world.owners(name)[PREFIX] for name in world.nodes}) == 1, "agreement on the owner"
    )
    await world.settle()


class Trap:
    """Calls ``spring`` when the first record of this role and state is durable at a node.

    With ``told`` after the machine has heard of it, otherwise instead: then it is as if the process ended between the
    two.
    """

    def __init__(self, world: ScopedCluster, role: MoveRole, state: MoveState, told: bool) -> None:
        self.sprung = trio.Event()
        self._role, self._state, self._told = role, state, told
        self._spring: Callable[[], None] = self.sprung.set
        for name in world.nodes:
            keeper = world.member(name).keeper
            keeper.on_records = partial(self._seen, keeper.on_records)

    def _seen(self, take: Callable[[Any], None], records: tuple[Any, ...]) -> None:
        matches = not self.sprung.is_set() and any(
            isinstance(record, MoveRecord) and record.role is self._role and record.state is self._state
            for record in records
        )
        if not matches or self._told:
            take(records)
        if matches:
            self._spring()
