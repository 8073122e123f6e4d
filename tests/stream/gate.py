"""A gate that says what a test tells it to, and connections to a driver that asks it."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from stream.driving import Driving, driving
from stream.line_session import LineSession

from kevynode.serve.answers import Verdict


class Gate:
    """Says yes unless there are verdicts. Notes what it is asked, in one list with whatever else a test notes there."""

    def __init__(self) -> None:
        self.verdicts: dict[object, Verdict] = {}
        self.events: list[object] = []
        self.judged: Counter[object] = Counter()

    @property
    def asked(self) -> int:
        """How often."""
        return self.events.count("asked")

    def before_answers(self) -> bool:
        self.events.append("asked")
        return not self.verdicts

    def verdict(self, session: object) -> Verdict:
        self.judged[session] += 1
        return self.verdicts.get(session, "send")


class Noting(LineSession):
    """Notes in its gate's list when its output is taken."""

    gate: Gate

    def take_output(self) -> bytes:
        if self.has_output:
            self.gate.events.append("taken")
        return super().take_output()


@asynccontextmanager
async def gated(kind: str, **options: Any) -> AsyncIterator[tuple[Driving, Gate]]:
    """A driver that asks the gate."""
    gate = Gate()
    async with driving(kind, answers=gate, **options) as it:
        it.room.on_command = lambda: gate.events.append("run")
        yield it, gate


async def connect(it: Driving, gate: Gate, **options: int) -> tuple[trio.abc.Stream, LineSession]:
    """A connection whose session is a noting one."""
    client, session = await it.connect(**options)
    session.__class__ = Noting
    assert isinstance(session, Noting)
    session.gate = gate
    return client, session


def open_up(it: Driving, gate: Gate) -> None:
    """Let everything leave from now on, and have those who were told to wait ask again."""
    gate.verdicts.clear()
    it.driver.release_answers()


def lines_of(session: LineSession) -> list[bytes]:
    """What a session has run."""
    return [line for who, line in session.room.executed if who is session]
