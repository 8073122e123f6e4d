"""A node's files as the commands see them, with everything that would happen to them written down."""

from __future__ import annotations

from typing import Literal

import attrs
from support.session_harness import Client, ServerHarness

from kevynode.errors import ReplyError
from kevynode.persistence_view import AppendOnlyFacts, DumpFacts, LoadFacts


class FakeFiles:
    """A PersistenceView that does nothing by itself."""

    def __init__(self, node: ServerHarness) -> None:
        self.node = node
        self.aof = AppendOnlyFacts(enabled=True)
        self.dump = DumpFacts(last_save=1234)
        self.loaded: LoadFacts | None = None
        self.durable = 0
        self.asked: list[str] = []
        node.server.persistence = self

    def append_only(self) -> AppendOnlyFacts:
        return self.aof

    def dumps(self) -> DumpFacts:
        return self.dump

    def load(self) -> LoadFacts | None:
        return self.loaded

    def is_durable(self, offset: int) -> bool:
        return self.aof.enabled and offset <= self.durable

    def rewrite(self) -> Literal["started", "scheduled"]:
        self.asked.append("rewrite")
        if self.dump.running is not None:
            self.aof = attrs.evolve(self.aof, rewrite_scheduled=True)
            return "scheduled"
        self.aof = attrs.evolve(self.aof, rewrite_running=0.0)
        return "started"

    def save(self, *, schedule: bool = False) -> Literal["started", "scheduled"]:
        self.asked.append("save, or later" if schedule else "save")
        if self.aof.rewrite_running is not None:
            if not schedule:
                raise ReplyError("ERR", "not now")
            self.dump = attrs.evolve(self.dump, scheduled=True)
            return "scheduled"
        self.dump = attrs.evolve(self.dump, running=0.0)
        return "started"

    def cancel_save(self) -> Literal["running", "scheduled"] | None:
        was_running, was_scheduled = self.dump.running is not None, self.dump.scheduled
        self.end_dump(None)
        return "running" if was_running else "scheduled" if was_scheduled else None

    def begin_scheduled(self) -> None:
        """The rewrite has ended, and the dump begins."""
        self.aof = attrs.evolve(self.aof, rewrite_running=None)
        self.dump = attrs.evolve(self.dump, running=0.0, scheduled=False)

    def end_dump(self, succeeded: bool | None) -> None:
        """The dump has ended, well or not; None: it was given up."""
        facts = attrs.evolve(self.dump, running=None, scheduled=False)
        if succeeded is not None:
            facts = attrs.evolve(facts, saves=facts.saves + succeeded, last_ok=succeeded)
        self.dump = facts
        self.node.server.dump_ended()

    def advance(self, offset: int) -> None:
        """Everything before ``offset`` is on the disk."""
        self.durable = offset
        self.node.server.durable_advanced()


def info(client: Client) -> dict[str, str]:
    """What INFO tells of the files."""
    lines = client.call("INFO", "persistence").decode().split("\r\n")[2:-2]
    return {name: value for name, _, value in (line.partition(":") for line in lines if line)}
