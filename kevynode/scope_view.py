"""What clients may ask of scopes and their moves: the seam between commands and what carries moves out.

The node puts an object of this shape into ``Server.scopes``. ``serve`` knows nothing else of how scopes move.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import attrs

from .reply import Reply

__all__ = ["MoveFacts", "ScopeView", "Ticket"]


@attrs.define(eq=False)
class Ticket:
    """What somebody waits for: ``reply`` is None until it is there. The node then gives the signal ``moved``."""

    reply: Reply | None = None


@attrs.frozen
class MoveFacts:
    """One move that is under way here, or was lately. ``role`` and ``state`` are words of the move's own."""

    prefix: bytes
    move_id: str
    role: str
    state: str
    peer: str
    epoch: int
    keys: int
    in_doubt: bool


class ScopeView(Protocol):
    """The scopes of this node, as clients may ask about them and move them."""

    def move_scope(self, argv: Sequence[bytes]) -> Reply | Ticket:
        """Do what a MOVE-SCOPE command says; the reply, or what to wait for. Raises ReplyError."""
        ...

    def ingest(self, argv: Sequence[bytes], peer: str) -> Reply | Ticket:
        """Do what a MOVE-SCOPE-INGEST command says; the reply, or what to wait for. Raises ReplyError."""
        ...

    def moves(self) -> Sequence[MoveFacts]:
        """The moves that are known here, the oldest first."""
        ...
