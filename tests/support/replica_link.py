"""A link to a primary that the test plays, and what it says in short texts."""

from __future__ import annotations

from support.fake_primary import answer, frames

from kevynode.replicate.handshake import CAPABILITIES, Form, Request
from kevynode.replicate.replica import ReplicaLink
from kevynode.replicate.replica_events import (
    AckWanted,
    Entries,
    Heartbeat,
    HistoryKnown,
    LinkEvent,
    Resumed,
    ShipBegins,
    ShipData,
    ShipEnds,
    Skipped,
    State,
)

HISTORY = 7
ALL = frozenset(CAPABILITIES)


def make(
    form: Form = Form.EXTENDED, history: int = 0, offset: int = 0, prefixes: tuple[bytes, ...] = ()
) -> ReplicaLink:
    capabilities = ALL if form is Form.EXTENDED else frozenset[str]()
    link = ReplicaLink(Request(form, history, offset, "me", capabilities), "primary:16004", prefixes=prefixes)
    link.start(0.0)
    return link


def live(form: Form = Form.EXTENDED, offset: int = 5) -> ReplicaLink:
    """A link that has resumed at ``offset`` of HISTORY."""
    link = make(form, 0 if form is Form.FIVE else HISTORY, offset)
    accepted = ALL if form is Form.EXTENDED else None
    link.feed(answer(None if form is Form.FIVE else HISTORY, offset, accepted), 0.0)
    link.feed(frames(offset, "SET a 1"), 0.0)
    assert link.state is State.LIVE
    return link


def tell(events: list[LinkEvent]) -> list[str]:
    """Events as short texts."""
    told = []
    for event in events:
        match event:
            case Entries():
                commands = ", ".join(b" ".join(command).decode() for command in event.commands)
                told.append(f"{'group' if event.grouped else 'entries'} {event.first}: {commands}")
            case Resumed():
                told.append(f"resumed {event.offset}" + (" from nothing" if event.from_nothing else ""))
            case ShipBegins():
                scope = "" if event.prefix is None else f" of {event.prefix.decode()} epoch {event.epoch}"
                told.append(("midstream ship" if event.midstream else "ship") + scope)
            case ShipData():
                told.append("data")
            case ShipEnds():
                told.append(f"ship ends {event.offset}")
            case Skipped():
                told.append(f"skipped {event.offset}")
            case Heartbeat():
                told.append(f"beat {event.next_offset}")
            case AckWanted():
                told.append("ack wanted")
            case HistoryKnown():
                told.append(f"history {event.history}")
    return told
