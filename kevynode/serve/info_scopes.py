"""The section of INFO that Valkey does not have: scopes, who writes them by now, their moves, and the other nodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeAlias

from ..errors import text
from .info_replication import line

if TYPE_CHECKING:
    from ..scope.ownership import DeclaredScope
    from ..scope_view import CopyState, MoveFacts, PeerView
    from .server import Server

__all__ = ["scope_fields"]

Fields: TypeAlias = Iterator[tuple[str, object]]


def scope_fields(server: Server) -> Fields:
    """How many scopes there are, how many of them this node owns, and a line for each, by prefix.

    ``state`` is ``open`` (written here), ``waiting`` (``detail``: what for), ``quiesced`` (``detail``: the id of the
    node that it is moving to) or ``elsewhere``; ``writer`` is who the configuration names, ``owner`` who writes by now;
    ``copy`` is how it is with the copy of what another node writes. Then a line for each move that is known here, the
    oldest first, and one for each other node of the configuration.
    """
    ownership = server.ownership
    if ownership is None:
        return
    scopes = ownership.declared()
    yield "scopes_declared", len(scopes)
    yield "scopes_owned", len(ownership.owned())
    yield "scopes_open", sum(scope.state == "open" for scope in scopes)
    copies = {} if server.scopes is None else server.scopes.copy_states()
    for number, scope in enumerate(scopes):
        yield f"scope{number}", line(_scope(scope, copies.get(scope.prefix)))
    moves = () if server.scopes is None else server.scopes.moves()
    yield "moves_known", len(moves)
    for number, move in enumerate(moves):
        yield f"move{number}", line(_move(move))
    peers = () if server.scopes is None else server.scopes.peers()
    yield "peers_declared", len(peers)
    yield "peers_linked", sum(peer.link == "up" for peer in peers)
    for number, peer in enumerate(peers):
        yield f"peer{number}", line(_peer(peer))


def _scope(scope: DeclaredScope, copy: CopyState | None) -> Fields:
    yield "prefix", text(scope.prefix)
    yield "owner", scope.owner
    yield "epoch", scope.epoch
    yield "state", scope.state
    yield "writer", scope.writer
    if scope.fallback is not None:
        yield "fallback", scope.fallback
    if copy is not None:
        yield "copy", copy
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


def _peer(peer: PeerView) -> Fields:
    yield "id", peer.node_id
    yield "kind", peer.kind
    yield "address", peer.address
    yield "client", peer.client_address
    yield "link", peer.link
    if peer.link != "none":
        yield "link_seconds", int(peer.link_seconds)
    if peer.silence is not None:
        yield "heard_ms", round(peer.silence * 1000)
    if peer.state:
        yield "state", peer.state
    if peer.ledger_equal is not None:
        yield "ledger", "equal" if peer.ledger_equal else "differs"
    if peer.same_configuration is not None:
        yield "configuration", "equal" if peer.same_configuration else "differs"
    yield "copied", len(peer.copied)
    yield "missing", len(peer.missing)
    copying = peer.copying
    if copying is not None:
        yield "copying", copying.state
        yield "lag_frames", max(0, copying.announced - copying.applied)
        if copying.staleness_ms is not None:
            yield "lag_ms", copying.staleness_ms
        if copying.sync_bytes:
            yield "sync_bytes", copying.sync_bytes
    problem = peer.problem or ("" if copying is None else copying.problem)
    if problem:
        yield "problem", problem
