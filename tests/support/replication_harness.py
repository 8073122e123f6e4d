"""A node's replication without the rest of the node: its store, its decisions, and the door that replicas knock at."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import trio
import trio.testing
from support.session_harness import MemoryLog
from support.store_harness import Harness, Word

from kevynode.replicate.handshake import CAPABILITIES, Form, Request
from kevynode.replicate.lineage import Lineage
from kevynode.replicate.primary import PrimaryLink
from kevynode.replicate.replication import Replication
from kevynode.replicate.sender import ReplicaEntrance
from kevynode.replicate.slots import Slot
from kevynode.replicate.surroundings import ReplicationSettings
from kevynode.transport import Incoming

#: What a copy of everything asks for.
PLAIN = "txn ackreq lineage"
ALL = " ".join(CAPABILITIES)


class NodeProbe:
    """The rest of the node, which only remembers what it was told."""

    def __init__(self) -> None:
        self.tracks_written_keys = False
        self.replica_read_only = True
        self.role = "master"
        self.refusals: set[str] = set()
        self.loading = False
        self.stale = False
        self.advanced = 0
        self.acknowledgements = 0
        self.forgotten = 0

    def become_replica(self, read_only: bool) -> None:
        self.role = "slave"

    def become_primary(self) -> None:
        self.role = "master"

    def close_writes(self, reason: str) -> None:
        self.refusals.add(reason)

    def open_writes(self, reason: str) -> None:
        self.refusals.discard(reason)

    def set_loading(self, loading: bool) -> None:
        self.loading = loading

    def set_stale(self, stale: bool) -> None:
        self.stale = stale

    def replication_advanced(self) -> None:
        self.advanced += 1

    def acknowledged(self) -> None:
        self.acknowledgements += 1

    def forget_writes(self) -> None:
        self.forgotten += 1


class FilesProbe:
    """The node's files: open until the test shuts them, and they remember what they were told."""

    def __init__(self) -> None:
        self.open = True
        self.asked = 0
        self.told: list[tuple[Any, ...]] = []

    def may_ship(self) -> bool:
        self.asked += 1
        return self.open

    def note_lineage(self, lineage: Lineage) -> None:
        self.told.append(("lineage", lineage))

    def data_replaced(self, lineage: Lineage, cursors: Mapping[str, tuple[int, int]]) -> None:
        self.told.append(("replaced", lineage, dict(cursors)))

    def note_cursor(self, upstream: str, history: int, offset: int) -> None:
        self.told.append(("cursor", upstream, history, offset))

    def cursor_moved(self, upstream: str, history: int, offset: int) -> None:
        self.told.append(("moved", upstream, history, offset))

    def hand_over(self) -> None:
        """There is nothing to write."""

    def forget_cursors(self) -> None:
        self.told.append(("forget",))


class Primary:
    """Replication over a store. ``time`` is its clock, in seconds, unless ``monotonic`` gives another one."""

    def __init__(self, monotonic: Callable[[], float] | None = None, **settings: Any) -> None:
        self.time = 100.0
        self.harness = Harness()
        self.node = NodeProbe()
        self.log = MemoryLog()
        self.replication = Replication(
            self.harness.store,
            self.node,
            self.log,
            monotonic if monotonic is not None else lambda: self.time,
            random.Random(1).getrandbits,
            ReplicationSettings(**settings),
        )

    def call(self, *words: Word) -> Any:
        """Run one command."""
        return self.harness.call(*words)

    def fill(self, count: int, size: int = 1000, key: str = "fill") -> None:
        """Write that many values of that size."""
        for number in range(count):
            self.call("SET", f"{key}:{number}", b"v" * size)

    def request(
        self, offset: int | None = None, history: int | None = None, *, form: str = "EXTENDED", name: str = "r",
        capabilities: str = PLAIN,
    ) -> Request:  # fmt: skip
        """What a replica asks for: to go on from ``offset`` in this node's history, or nothing known."""
        if history is None:
            history = 0 if offset is None or form == "FIVE" else self.replication.history
        names = frozenset(capabilities.split()) if form == "EXTENDED" else frozenset()
        return Request(Form[form], history, offset or 0, name, names)

    def connect(self, offset: int | None = None, *, peer: str = "10.0.0.1:4000", **asked: Any) -> PrimaryLink:
        """The link that a connection gets, as its sender opens it. Raises Refused."""
        request = self.request(offset, **asked)
        return self.replication.open_link(self.replication.recognise(request, peer), request)

    def take(self, link: PrimaryLink) -> bytes:
        """Everything that there is to send on a link."""
        out = []
        while (parts := self.replication.take(link)) or link.busy:
            out += parts
        return b"".join(out)

    def acknowledge(self, link: PrimaryLink, offset: int) -> None:
        """The replica says how far it is."""
        self.replication.heard(link.slot, link, b"REPLCONF ACK %d\r\n" % offset)

    def disconnect(self, link: PrimaryLink) -> None:
        """The connection is gone."""
        link.close("connection lost")
        self.replication.close_link(link.slot, link)

    @property
    def slot(self) -> Slot:
        """The one slot there is."""
        (slot,) = self.replication.slots
        return slot

    def assert_idle(self) -> None:
        """Nothing is left of any link."""
        replication = self.replication
        assert not replication.links
        assert not replication.backlog.pins
        assert not replication._shipping
        assert replication._gate.running == 0


class House(Primary):
    """The same with its door, on Trio's clock. Everything runs in ``nursery``."""

    def __init__(self, nursery: trio.Nursery, **settings: Any) -> None:
        super().__init__(trio.current_time, **settings)
        self.nursery = nursery
        self.entrance = ReplicaEntrance(self.replication, nursery, self.log)
        self.beating = trio.CancelScope()
        nursery.start_soon(self._beat)

    async def _beat(self) -> None:
        with self.beating:
            while True:  # noqa: ASYNC110  it does something each time
                await trio.sleep(self.replication.tick())

    def arrive(self, lockstep: bool = False, peer: str = "10.0.0.1:4000") -> trio.abc.Stream:
        """A new connection; its other end. With ``lockstep`` every send waits until all of it is read."""
        pair = trio.testing.lockstep_stream_pair() if lockstep else trio.testing.memory_stream_pair()
        ours, theirs = pair
        self.entrance.admit(Incoming(peer, "10.0.0.9:16004", "tcp", theirs))
        return ours

    def reasons(self, event: str) -> list[str]:
        """Why that was logged, each time."""
        return [str(facts["reason"]) for _, found, facts in self.log.records if found == event]
