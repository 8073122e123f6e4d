"""Files of records as an append-only writer makes them, and what a reader finds in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from kevynode.persist.annotations import Annotation
from kevynode.persist.record_reader import Entries, FileError, RecordEvent, RecordReader
from kevynode.persist.records import encode_commands, file_start
from kevynode.replicate.lineage import Lineage

LINEAGE = Lineage(7, ((5, 10),))
SET = [b"SET", b"key", b"value"]
SET_RECORD = encode_commands([SET])
START = file_start("incr", 3, LINEAGE, 100)
BASE_START = file_start("base", 3, LINEAGE, 100)


class Group(NamedTuple):
    """One group as a file should give it, however its commands came in events."""

    first: int
    commands: tuple[tuple[bytes, ...], ...]
    next: int
    start: int
    end: int


def read(data: bytes, cuts: Iterable[int] = (), *, foreign: bool = False) -> tuple[list[RecordEvent], FileError | None]:
    """The events of a file that comes in pieces, and how it ends."""
    reader = RecordReader(foreign=foreign)
    places = [0, *sorted(cuts), len(data)]
    events: list[RecordEvent] = []
    for start, stop in pairwise(places):
        events += reader.feed(data[start:stop])
    error = reader.finish()
    assert reader.error == error
    assert reader.finish() == error
    assert reader.feed(b"more") == [] or error is None
    return events, error


def split(events: Iterable[RecordEvent]) -> list[Group | Annotation]:
    """The events with each group by itself."""
    out: list[Group | Annotation] = []
    for event in events:
        if not isinstance(event, Entries):
            out.append(event)
        elif event.grouped:
            out.append(Group(event.first, plain_words(event.commands), event.next, event.start, event.end))
        else:
            step = 0 if event.next == event.first else 1
            places = [event.place_of(index) for index in range(len(event.commands) + 1)]
            assert places[-1] == event.end
            assert event.next == event.first + step * len(event.commands)
            out += [
                Group(event.first + step * index, plain_words([command]), event.first + step * (index + 1), start, end)
                for index, (command, (start, end)) in enumerate(zip(event.commands, pairwise(places), strict=True))
            ]
    return out


def plain_words(commands: Sequence[Sequence[bytes]]) -> tuple[tuple[bytes, ...], ...]:
    return tuple(map(tuple, commands))
