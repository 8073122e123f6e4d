"""What is counted for one connection. There is a compiled twin of it, which counts without making an object for each
number; see :mod:`kevynode.twins`."""

from __future__ import annotations

__all__ = ["Traffic"]


class Traffic:
    """How many commands a client has run, and bytes that came from it and went to it."""

    __slots__ = ("commands_run", "input_bytes", "output_bytes")

    def __init__(self) -> None:
        self.commands_run = 0
        self.input_bytes = 0
        self.output_bytes = 0
