"""What clients ask of scopes, answered by a node that has none: what can move them is not even loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .reply import Reply
from .scope_view import CopyState, MoveFacts, PeerView, Ticket

if TYPE_CHECKING:
    from .scope_requests import ScopeRequests

__all__ = ["NoScopes"]


class NoScopes:
    """The ScopeView of a node without scopes; ``node_id`` is empty where it has none either."""

    def __init__(self, node_id: str) -> None:
        self._node_id = node_id

    def move_scope(self, argv: Sequence[bytes]) -> Reply | Ticket:
        """Say what is wrong with a MOVE-SCOPE command. Raises ReplyError."""
        return self._requests().move_scope(argv)

    def ingest(self, argv: Sequence[bytes], peer: str) -> Reply | Ticket:
        """Say what is wrong with a MOVE-SCOPE-INGEST command. Raises ReplyError."""
        return self._requests().ingest(argv, peer)

    def moves(self) -> Sequence[MoveFacts]:
        """None."""
        return ()

    def peers(self) -> Sequence[PeerView]:
        """None."""
        return ()

    def copy_states(self) -> Mapping[bytes, CopyState]:
        """None."""
        return {}

    def _requests(self) -> ScopeRequests:
        # Loaded when somebody asks: it brings all that moves are made of.
        from .scope_requests import ScopeRequests

        return ScopeRequests(self._node_id)
