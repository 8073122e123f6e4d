"""What happened in a simulation, in order: one line for each event, the same for the same seed, byte for byte."""

from __future__ import annotations

import hashlib
from typing import Any

import trio


class Trace:
    """Lines ``seconds actor text``."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, actor: str, text: str) -> None:
        """Something happened now."""
        self.lines.append(f"{trio.current_time():10.4f} {actor:<9} {text}")

    def text(self) -> str:
        """All of it."""
        return "\n".join(self.lines) + "\n"

    def digest(self) -> str:
        """What tells two traces apart."""
        return hashlib.sha256(self.text().encode()).hexdigest()


class TraceLog:
    """The log of one node; counts as a :class:`kevynode.log.Logger`."""

    def __init__(self, trace: Trace, name: str) -> None:
        self._trace = trace
        self._name = name
        #: What was logged as an error: event and facts.
        self.errors: list[tuple[str, str]] = []
        self.warnings: dict[str, int] = {}
        # What is left out of the trace: events of a node that is dead already.
        self.silent = False

    def _line(self, level: str, event: str, facts: dict[str, Any]) -> str:
        words = " ".join(f"{name}={value}" for name, value in facts.items())
        if not self.silent:
            self._trace.add(self._name, f"{level} {event} {words}".rstrip())
        return words

    def debug(self, event: str, /, **facts: object) -> None:
        """Not worth a line."""

    def info(self, event: str, /, **facts: object) -> None:
        """As a logger does."""
        self._line("info", event, facts)

    def warning(self, event: str, /, **facts: object) -> None:
        """As a logger does."""
        self.warnings[event] = self.warnings.get(event, 0) + 1
        self._line("warning", event, facts)

    def error(self, event: str, /, **facts: object) -> None:
        """As a logger does."""
        words = self._line("error", event, facts)
        if not self.silent:
            self.errors.append((event, words))
