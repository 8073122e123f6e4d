"""What a node with scopes knows of the others, for who asks: INFO, which `kevynode status` reads, too."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .scope_view import CopyState, PeerView

if TYPE_CHECKING:
    from .replicate.mesh import Mesh, MeshFacts
    from .replicate.replication import Replication
    from .scope.ownership import Ownership
    from .scope.peer_state import PeerFacts
    from .scope.peers import PeerLinks
    from .scope.settings import DeclaredNode, ScopeSettings

__all__ = ["OtherNodes"]


class OtherNodes:
    """The nodes of the configuration, and copies of what they write. Changes nothing and does not block.

    ``wants`` says of a prefix whether it is copied here where another node owns it; ``monotonic`` is the clock of the
    links. Until :meth:`know` there is only what is declared.
    """

    def __init__(
        self,
        settings: ScopeSettings,
        ownership: Ownership,
        replication: Replication,
        monotonic: Callable[[], float],
        wants: Callable[[bytes], bool],
    ) -> None:
        self._settings = settings
        self._ownership = ownership
        self._replication = replication
        self._monotonic = monotonic
        self._wants = wants
        self._links: PeerLinks | None = None
        self._mesh: Mesh | None = None

    def know(self, links: PeerLinks, mesh: Mesh) -> None:
        """There are links and copies from now on."""
        self._links, self._mesh = links, mesh

    def peers(self) -> list[PeerView]:
        """What is known of each other node of the configuration."""
        known = {} if self._links is None else {facts.node_id: facts for facts in self._links.facts()}
        now = self._monotonic()
        copies = {} if self._mesh is None else {facts.node_id: facts for facts in self._mesh.facts(now)}
        return [
            _peer_view(node, known.get(node.node_id), copies.get(node.node_id))
            for node in self._settings.nodes
            if node.node_id != self._settings.node_id
        ]

    def copy_states(self) -> dict[bytes, CopyState]:
        """How it is with the copies of the declared prefixes that other nodes write; empty on a plain replica."""
        if self._replication.role != "master":
            return {}
        followers = () if self._mesh is None else self._mesh.followers.values()
        whole = {prefix for follower in followers for prefix in set(follower.prefixes) - set(follower.missing)}
        known = {node.node_id for node in self._settings.nodes}
        states: dict[bytes, CopyState] = {}
        for row in self._ownership.declared():
            if row.owner == self._settings.node_id:
                continue
            if row.prefix in whole:
                states[row.prefix] = "whole"
            elif not self._wants(row.prefix):
                states[row.prefix] = "none"
            else:
                states[row.prefix] = "missing" if row.owner in known else "unreachable"
        return states


def _peer_view(node: DeclaredNode, facts: PeerFacts | None, copies: MeshFacts | None) -> PeerView:
    """A node as the configuration declares it, with what its links tell; a kevy server has only that of its copies."""
    copying = None if copies is None else copies.upstream
    silence = facts.silence if facts is not None else None if copying is None else copying.silence
    return PeerView(
        node.node_id,
        node.kind,
        node.replication,
        node.address if facts is None else facts.client_address or node.address,
        "none" if facts is None else "up" if facts.up else "down",
        0.0 if facts is None else facts.since,
        silence,
        "" if facts is None or facts.up else facts.problem,
        "" if facts is None else facts.state,
        None if facts is None else facts.ledger_equal,
        None if facts is None else facts.same_configuration,
        () if copies is None else copies.prefixes,
        () if copies is None else copies.missing,
        copying,
    )
