"""What a call through a scope-following client may end with, other than the node's own error reply."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["BrokenReply", "ClientError", "DeadlinePassed", "RedirectLoop", "Uncertain"]


class ClientError(Exception):
    """A call came to no reply. Error replies are :class:`kevynode.ReplyError`, or what redis-py makes of them."""


class Uncertain(ClientError):
    """A write was sent, and no answer came: nobody knows whether it was done.

    It is not sent again by itself, because it might be done twice; one that was to be (``idempotent``) ends so, too, if
    no later try was answered. ``address`` is the node it was sent to; ``replies`` are those that did come, where
    several commands were sent at once.
    """

    def __init__(self, address: str, reason: str, replies: Sequence[Any] = ()) -> None:
        super().__init__(address, reason)
        self.address = address
        self.reason = reason
        self.replies = list(replies)

    def __str__(self) -> str:
        return f"sent to {self.address}, and whether it was done is unknown: {self.reason}"


class DeadlinePassed(ClientError):
    """The time for the call is over; nothing was done. ``last`` is the last thing that stood in its way."""

    def __init__(self, last: str) -> None:
        super().__init__(last)
        self.last = last

    def __str__(self) -> str:
        return f"the deadline has passed; last: {self.last}"


class RedirectLoop(ClientError):
    """Nodes sent the call from one to the next too often; nothing was done. ``visited`` are their addresses."""

    def __init__(self, visited: Sequence[str]) -> None:
        super().__init__(tuple(visited))
        self.visited = tuple(visited)

    def __str__(self) -> str:
        return f"redirected {len(self.visited)} times in a row: {' -> '.join(self.visited)}"


class BrokenReply(ClientError):
    """What a node sent is no reply, or a larger one than the client takes. What was sent to it may have been done."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(address, reason)
        self.address = address
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.address} sent no reply that can be taken: {self.reason}"
