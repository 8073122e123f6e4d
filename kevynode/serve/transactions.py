"""What an open transaction holds until EXEC."""

from __future__ import annotations

from ..store.command import Command

__all__ = ["Transaction"]


class Transaction:
    """Queued commands in order; ``failed`` when one was refused while queuing, so that EXEC will refuse them all."""

    __slots__ = ("bytes", "commands", "failed", "scope")

    def __init__(self) -> None:
        self.commands: list[tuple[Command, list[bytes]]] = []
        self.failed = False
        # Memory of the queued arguments, for CLIENT LIST.
        self.bytes = 0
        # The prefix of the scope that its first write under any was to, queued or refused.
        self.scope: bytes | None = None

    def queue(self, command: Command, argv: list[bytes]) -> None:
        """Hold a command for EXEC. After a failure nothing needs to be held any more."""
        if not self.failed:
            self.commands.append((command, argv))
            self.bytes += sum(map(len, argv)) + 64 * len(argv)
