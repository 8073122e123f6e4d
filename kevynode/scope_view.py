"""What clients may ask of scopes and their moves: the seam between commands and what carries moves out.

The node puts an object of this shape into ``Server.scopes``. ``serve`` knows nothing else of how scopes move.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, TypeAlias

import attrs

from .replication_view import UpstreamFacts
from .reply import Reply

__all__ = ["CopyState", "MoveFacts", "PeerView", "ScopeView", "Ticket"]

#: How it is with the copy of what another node writes: ``whole``; ``missing``: wanted, and not whole yet or any more;
#: ``unreachable``: wanted, and its writer is no declared node; ``none``: not wanted.
CopyState: TypeAlias = Literal["whole", "missing", "unreachable", "none"]


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


@attrs.frozen
class PeerView:
    """Another node of the configuration, as this one knows it.

    ``address`` is where its replication port is declared, ``client_address`` where clients find it: as it said itself,
    or as it is declared. ``link``: whether it is linked as a peer, and ``link_seconds`` for how long it has been, or
    has not; a kevy server knows no such links. ``silence``: seconds since it was last heard, None if never.
    ``problem``: why there is no link. ``state`` is its own word, and empty while it is not heard. ``ledger_equal`` and
    ``same_configuration`` are None while nothing is known.

    ``copied`` are its prefixes that are copied here, ``missing`` those of them whose copy is not whole, and ``copying``
    is the stream they come in; None: none is kept.
    """

    node_id: str
    kind: str
    address: str
    client_address: str
    link: Literal["up", "down", "none"]
    link_seconds: float
    silence: float | None
    problem: str
    state: str
    ledger_equal: bool | None
    same_configuration: bool | None
    copied: tuple[bytes, ...]
    missing: tuple[bytes, ...]
    copying: UpstreamFacts | None


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

    def peers(self) -> Sequence[PeerView]:
        """The other nodes of the configuration, in its order."""
        ...

    def copy_states(self) -> Mapping[bytes, CopyState]:
        """How it is with the copies of the declared prefixes that other nodes write.

        Empty on a plain replica, whose copies are those of its upstream.
        """
        ...
