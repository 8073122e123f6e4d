"""What may befall a move between whole nodes, and what must not be left of it.

::

    wires = MoveWires(cluster.network, lose(b"SEALED"))     # before the nodes start
    remains = Remains(world)                                # when they are at rest
    ...
    await remains.check()
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

import attrs
from support.cluster import Cluster
from support.moving import PREFIX, Follower, at_rest
from support.network import Network, Wire
from support.scoped import ScopedCluster
from support.store_harness import Content

from kevynode.scope.move_jobs import KeyCount

#: Gets the name of a message and how often it was sent before; says how often it arrives.
Fate: TypeAlias = Callable[[bytes, int], int]

#: What the ends of a move say to each other, in a move that goes well; by following and by a stage.
FOLLOWED: Final = (b"REQUEST", b"ACCEPTED", b"AWAIT", b"SEALED", b"ACTIVATE", b"ACTIVATED")
STAGED: Final = (b"REQUEST", b"ACCEPTED", b"STAGE", b"CHUNK", b"STAGEEND", b"SEALED", b"ACTIVATE", b"ACTIVATED")
#: In one that is called off once the target has sealed.
CALLED_OFF: Final = (b"ABORTED", b"PURGED")


class MoveWires:
    """Decides of every message of a move how often it arrives. ``sent`` counts them by name."""

    def __init__(self, network: Network, fate: Fate) -> None:
        self.sent: dict[bytes, int] = {}
        self.fate = fate
        network.on_connect = self._connected

    def _connected(self, wire: Wire) -> None:
        _Conversation(wire, self._arrives)

    def _arrives(self, message: bytes) -> bytes:
        name = _words(message)[0]
        if name == b"INGEST":
            # It opens the connection.
            return message
        before = self.sent.get(name, 0)
        self.sent[name] = before + 1
        return message * self.fate(name, before)


class _Conversation:
    """Both directions of a connection, whose messages are told apart if its first one says that it is about a move."""

    def __init__(self, wire: Wire, arrives: Callable[[bytes], bytes]) -> None:
        self._arrives = arrives
        self._is_of_a_move: bool | None = None
        self._asked, self._answered = b"", b""
        wire.inward.filter = self._ask
        wire.outward.filter = self._answer

    def _ask(self, data: bytes) -> bytes:
        self._asked += data
        if self._is_of_a_move is None and (not self._asked.startswith(b"*") or _end(self._asked)):
            self._is_of_a_move = self._asked.startswith(b"*8\r\n$6\r\nINGEST\r\n")
        if self._is_of_a_move is None:
            return b""
        data, self._asked = self._take(self._asked)
        return data

    def _answer(self, data: bytes) -> bytes:
        data, self._answered = self._take(self._answered + data)
        return data

    def _take(self, data: bytes) -> tuple[bytes, bytes]:
        """What of the bytes arrives, and the rest of them."""
        if not self._is_of_a_move:
            return data, b""
        arrives = b""
        while end := _end(data):
            arrives += self._arrives(data[:end])
            data = data[end:]
        return arrives, data


def _words(message: bytes) -> list[bytes]:
    """The words of a short command."""
    return message.split(b"\r\n")[2::2]


def _end(data: bytes) -> int:
    """Where the first command in ``data`` ends; 0 if it is not whole."""
    place = data.find(b"\r\n")
    if place < 0 or data[:1] != b"*":
        return 0
    for _ in range(int(data[1:place])):
        start = place + 2
        place = data.find(b"\r\n", start)
        if place < 0:
            return 0
        place += 2 + int(data[start + 1 : place])
        if len(data) < place + 2:
            return 0
    return place + 2


# -- what must not be left --------------------------------------------------------------------------------------------


@attrs.define
class Remains:
    """How nodes at rest look before a move: who copies from them."""

    world: ScopedCluster
    slots: dict[str, set[object]] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.slots = dict(self._slots())

    def _slots(self) -> Iterator[tuple[str, set[object]]]:
        for name, node in self.world.nodes.items():
            yield name, {slot.key for slot in node.replication.slots}

    def _busy(self) -> bool:
        members = map(self.world.member, self.world.nodes)
        return any(move.machine.busy for member in members for move in member.coordinator._moves.values())

    async def check(self) -> None:
        """Assert that nothing of a move is left anywhere, once everybody has found everybody again."""
        cluster = self.world.cluster
        await cluster.until(lambda: not self._busy(), "the end of all moves")
        await cluster.until(lambda: dict(self._slots()) == self.slots, f"the replicas {self.slots}")
        for name, node in self.world.nodes.items():
            coordinator = self.world.member(name).coordinator
            assert len(node.replication.backlog.pins) == 0, f"{name} has pins"
            assert not coordinator._holding.get(PREFIX), f"{name} holds writes back"
            assert not coordinator._writing, f"{name} is writing records"
            watching = [getattr(observe, "__self__", None) for observe in node.store.journal.observers]
            assert not coordinator._counting, f"{name} is counting"
            assert not any(isinstance(watcher, KeyCount) for watcher in watching), f"{name} counts yet"
            assert not self.world.member(name)._taken, f"{name} has taken {self.world.member(name)._taken}"
            files = cluster.disk(name).list("/data")
            assert not [file for file in files if "stage" in file or file.startswith("temp-")], (name, files)


async def ends_well(
    cluster: Cluster,
    world: ScopedCluster,
    remains: Remains,
    client: Follower,
    before: Content,
) -> str:
    """Assert what must hold when nodes are let alone after whatever befell a move: who owns the prefix then.

    One owner, known to all; all that was acknowledged and all there was before; copies equal to it, or none; and
    nothing of the move is left.
    """
    client.scope.cancel()
    await at_rest(cluster, world)
    owner = world.owners("anna")[PREFIX]
    assert {name: world.owners(name)[PREFIX] for name in world.nodes} == dict.fromkeys(world.nodes, owner)
    assert world.is_open(owner, PREFIX)
    held = world.under(owner, PREFIX)
    assert before.items() <= held.items()
    assert client.acknowledged
    for key, value in client.acknowledged.items():
        assert held[key][0] == value, (key, owner)
    await cluster.until(lambda: all(_is_apart(world, name, owner) for name in world.nodes), "slices to be dropped")
    world.compare()
    await remains.check()
    return owner


def _is_apart(world: ScopedCluster, name: str, owner: str) -> bool:
    return name == owner or world.wants(name, PREFIX) or not world.under(name, PREFIX)
