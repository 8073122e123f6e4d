"""A primary's link without I/O, what it takes its data from, and what it sends in words that tests can compare."""

from __future__ import annotations

from typing import Any, Final

from support.store_harness import Harness, Word
from support.wire_harness import decode

from kevynode.replicate.backlog import Backlog
from kevynode.replicate.decision import Resume, Snapshot
from kevynode.replicate.handshake import CAPABILITIES, Form, Request, format_scopes
from kevynode.replicate.lineage import Lineage
from kevynode.replicate.primary import PrimaryLink
from kevynode.replicate.slots import Slot, Slots
from kevynode.replicate.stream_events import Chunk, Event, Frames, Ping, ScopeSnapshotBegin, Skip, SnapshotEnd
from kevynode.store.keyspace import KeyShard

#: The history in which the kevy server was recorded.
GENERATION: Final = 4913458337130657
LINEAGE: Final = Lineage(7).branch(GENERATION, 3)


class Source:
    """What links take their data from: a store, its backlog, and a gate that the test opens and shuts."""

    def __init__(self, budget: int = 1 << 24) -> None:
        self.harness = Harness()
        self.lineage = LINEAGE
        self.backlog = Backlog(budget, 0)
        self.harness.store.journal.observers.append(lambda first, group: self.backlog.add(group))
        self.gate_open = True
        # What the files say, and how often they were asked.
        self.tellable = True
        self.asked = 0
        self.owned: tuple[bytes, ...] = ()
        self.epochs: dict[bytes, int] = {}
        self.released: dict[bytes, int] = {}
        self.slots = Slots()
        self.calls: list[tuple[Any, ...]] = []

    def call(self, *words: Word) -> Any:
        return self.harness.call(*words)

    def fill(self, count: int, size: int = 1000, key: str = "fill") -> None:
        for number in range(count):
            self.call("SET", f"{key}:{number}", b"v" * size)

    def freeze(self) -> tuple[list[KeyShard], bool]:
        store = self.harness.store
        return store.freeze(), bool(store.field_deadline_keys)

    def owned_prefixes(self) -> tuple[bytes, ...]:
        return self.owned

    def epoch(self, prefix: bytes) -> int:
        return self.epochs.get(prefix, 0)

    def released_before(self, offset: int) -> list[bytes]:
        return [prefix for prefix, at in self.released.items() if at < offset]

    def may_ship(self, link: PrimaryLink, now: float, prefixes: tuple[bytes, ...] | None) -> bool:
        return self.gate_open

    def may_tell(self) -> bool:
        self.asked += 1
        return self.tellable

    def ship_started(self, link: PrimaryLink, kind: str, reason: str, now: float) -> None:
        self.calls.append(("started", kind, reason))

    def ship_ended(self, link: PrimaryLink, size: int, now: float) -> None:
        self.calls.append(("ended", size))

    def ship_caught_up(self, link: PrimaryLink) -> None:
        self.calls.append(("caught up",))

    def ship_overrun(self, link: PrimaryLink, now: float) -> None:
        self.calls.append(("overrun",))

    @property
    def pins(self) -> int:
        return len(self.backlog.pins)

    def link(
        self, form: Form | str, decision: Resume | Snapshot | int, capabilities: str = "txn ackreq lineage"
    ) -> PrimaryLink:
        """A link of that form, which resumes from an offset, or ships for a reason."""
        form = Form[form] if isinstance(form, str) else form
        decision = Resume(decision) if isinstance(decision, int) else decision
        names = frozenset(capabilities.split()) if form is Form.EXTENDED else frozenset()
        offset = decision.offset if isinstance(decision, Resume) else 0
        request = Request(form, 0 if form is Form.FIVE else GENERATION, offset, "cap1", names)
        slot = self.slots.open(request, "127.0.0.1", 0.0)
        assert isinstance(slot, Slot)
        return PrimaryLink(request, decision, slot, self, 0.0)


ALL = " ".join(CAPABILITIES)
SHIP = Snapshot("the replica claims no data")


def take(link: PrimaryLink, now: float = 0.0) -> bytes:
    """Everything that there is to send, as a driver finds it."""
    out = []
    while (parts := link.take(now)) or link.busy:
        out += parts
    return b"".join(out)


def named(link: PrimaryLink, *prefixes: bytes) -> PrimaryLink:
    """The filtered link behind its handshake, which has named its prefixes."""
    link.receive(format_scopes(prefixes), 0.0)
    return link


def shown(data: bytes) -> list[str]:
    """A stream in words: control lines as they are, frames as offset and command, chunks as ``chunk``."""
    out: list[str] = []
    events, error = decode(data)
    assert error is None
    for event in events:
        match event:
            case Frames():
                start = "TXN " if event.grouped else ""
                out += [
                    f"{start}{event.first + place} {b' '.join(command).decode()}"
                    for place, command in enumerate(event.commands)
                ]
            case Chunk():
                if out[-1:] != ["chunk"]:
                    out.append("chunk")
            case Ping():
                out.append(f"PING {event.next_offset}")
            case Skip():
                out.append(f"SKIP {event.next_offset}")
            case SnapshotEnd():
                out.append(f"END {event.next_offset}")
            case ScopeSnapshotBegin():
                out.append(f"SCOPE {event.prefix.decode()}")
            case _:
                out.append(type(event).__name__)
    return out


def payload(data: bytes) -> bytes:
    events, _ = decode(data)
    return b"".join(event.data for event in events if isinstance(event, Chunk))


def kinds(data: bytes) -> list[type[Event]]:
    return [type(event) for event in decode(data)[0]]
