"""The section of INFO that Valkey does not have: which scopes are declared, and who writes them by now."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeAlias

from ..errors import text
from .info_replication import line

if TYPE_CHECKING:
    from ..scope.ownership import DeclaredScope
    from ..scope_view import MoveFacts
    from .server import Server

__all__ = ["scope_fields"]

Fields: TypeAlias = Iterator[tuple[str, object]]


def scope_fields(server: Server) -> Fields:
    """How many scopes there are, how many of them this node owns, and a line for each, by prefix.

    ``state`` is ``open`` (written here), ``waiting`` (``detail``: what for), ``quiesced`` (``detail``: the id of the
    node that it is moving to) or ``elsewhere``; ``writer`` is who the configuration names, ``owner`` who writes by now.
    Then a line for each move that is known here, the oldest first.
    """
    ownership = server.ownership
    if ownership is None:
        return
    scopes = ownership.declared()
    yield "scopes_declared", len(scopes)
    yield "scopes_owned", len(ownership.owned())
    yield "scopes_open", sum(scope.state == "open" for scope in scopes)
    for number, scope in enumerate(scopes):
        yield f"scope{number}", line(_scope(scope))
    moves = () if server.scopes is None else server.scopes.moves()
    yield "moves_known", len(moves)
    for number, move in enumerate(moves):
        yield f"move{number}", line(_move(move))


def _scope(scope: DeclaredScope) -> Fields:
    yield "prefix", text(scope.prefix)
    yield "owner", scope.owner
    yield "epoch", scope.epoch
    yield "state", scope.state
    yield "writer", scope.writer
    if scope.fallback is not None:
        yield "fallback", scope.fallback
    if scope.detail:
        yield "detail", scope.detail


def _move(move: MoveFacts) -> Fields:
    yield "prefix", text(move.prefix)
    yield "id", move.move_id
    yield "role", move.role
    yield "state", move.state
    yield "peer", move.peer
    yield "epoch", move.epoch
    yield "keys", move.keys
    yield "in_doubt", int(move.in_doubt)
