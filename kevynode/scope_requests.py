"""What clients ask of scopes, answered: their words are read here, and what they want is handed to the coordinator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

from .errors import ReplyError
from .reply import OK, Reply
from .scope.move_command import (
    AbortRequest,
    MoveRequest,
    ResolveRequest,
    Standing,
    StatusRequest,
    answer,
    check_ingest,
    check_move,
    parse_ingest,
    parse_move,
    status_reply,
)
from .scope.moves import Outcome
from .scope_view import CopyState, MoveFacts, PeerView, Ticket

if TYPE_CHECKING:
    from .scope.coordinator import Coordinator

__all__ = ["ScopeRequests"]


class Surroundings(Protocol):
    """What a node knows of the others."""

    def peers(self) -> Sequence[PeerView]: ...
    def copy_states(self) -> Mapping[bytes, CopyState]: ...


class ScopeRequests:
    """The ScopeView of a node. ``coordinator`` and ``others`` are None where no scopes are declared."""

    def __init__(
        self, node_id: str, coordinator: Coordinator | None = None, others: Surroundings | None = None
    ) -> None:
        self._node_id = node_id
        self.coordinator = coordinator
        self._others = others

    def move_scope(self, argv: Sequence[bytes]) -> Reply | Ticket:
        """Do what a MOVE-SCOPE command says; the reply, or what to wait for. Raises ReplyError."""
        request = parse_move(argv)
        coordinator = self.coordinator
        if isinstance(request, StatusRequest):
            rows: Reply = status_reply(() if coordinator is None else coordinator.status(), request.prefix)
            return rows
        if coordinator is None:
            standing = Standing(self._node_id, frozenset(), {}, frozenset())
            if isinstance(request, MoveRequest) and request.source == self._node_id and self._node_id:
                # Without scopes there may be no peers either; that is not what is missing first.
                standing = Standing(self._node_id, {request.target}, {}, frozenset())
            if isinstance(request, MoveRequest):
                check_move(request, standing)
            raise ReplyError("ERR", "MOVE-SCOPE: no [cluster] scopes declared on this node")
        ticket = Ticket()
        if isinstance(request, MoveRequest):
            coordinator.move(request, lambda outcome: _settle_move(ticket, outcome))
        elif isinstance(request, AbortRequest):
            coordinator.abort(request.prefix, lambda outcome: _settle_decision(ticket, outcome, "failed"))
        elif isinstance(request, ResolveRequest):
            wanted = "moved" if request.commit else "failed"
            coordinator.resolve(
                request.prefix, request.commit, lambda outcome: _settle_decision(ticket, outcome, wanted)
            )
        return ticket if ticket.reply is None else _told(ticket.reply)

    def ingest(self, argv: Sequence[bytes], peer: str) -> Reply | Ticket:
        """Do what a MOVE-SCOPE-INGEST command says; the reply, or what to wait for. Raises ReplyError."""
        if self.coordinator is None:
            check_ingest(parse_ingest(argv).prefix, {}, (), moving=False)
            return OK
        ticket = Ticket()
        reply = self.coordinator.ingest(argv, partial(setattr, ticket, "reply"))
        return ticket if reply is None else reply

    def moves(self) -> Sequence[MoveFacts]:
        """The moves that are known here, the oldest first."""
        if self.coordinator is None:
            return ()
        return [
            MoveFacts(row.prefix, row.move_id, row.role, row.state, row.peer, row.epoch, row.keys, row.in_doubt)
            for row in self.coordinator.status()
        ]

    def peers(self) -> Sequence[PeerView]:
        """The other nodes of the configuration, in its order."""
        return () if self._others is None else self._others.peers()

    def copy_states(self) -> Mapping[bytes, CopyState]:
        """How it is with the copies of the declared prefixes that other nodes write."""
        return {} if self._others is None else self._others.copy_states()


def _settle_move(ticket: Ticket, outcome: Outcome | str) -> None:
    ticket.reply = ReplyError("ERR", f"MOVE-SCOPE: {outcome}") if isinstance(outcome, str) else answer(outcome)


def _settle_decision(ticket: Ticket, outcome: Outcome | str, wanted: str) -> None:
    if isinstance(outcome, str):
        ticket.reply = ReplyError("ERR", f"MOVE-SCOPE: {outcome}")
    elif outcome.kind == wanted:
        ticket.reply = OK
    else:
        ticket.reply = ReplyError("ERR", f"MOVE-SCOPE: it has {outcome.kind} all the same {outcome.reason}".strip())


def _told(reply: Reply) -> Reply:
    if isinstance(reply, ReplyError):
        raise reply
    return reply
