"""What the configuration says about scopes, as the parts of this package are given it."""

from __future__ import annotations

import attrs

from .peer_messages import Configuration, PeerRow, ScopeRow
from .scope import Scope

__all__ = ["DeclaredNode", "ScopeSettings"]


@attrs.frozen
class DeclaredNode:
    """A node as the configuration declares it: id, client and replication address, ``kevynode`` or ``kevy``."""

    node_id: str
    address: str
    replication: str
    kind: str = "kevynode"


@attrs.frozen
class ScopeSettings:
    """What the configuration says about scopes: this node, all nodes, itself included, and what is declared."""

    node_id: str
    nodes: tuple[DeclaredNode, ...]
    scopes: tuple[Scope, ...]
    trust_config: bool = False
    start_empty: bool = False

    def configuration(self) -> Configuration:
        """As peers are told it."""
        return Configuration(
            [ScopeRow(scope.prefix, scope.writer, scope.fallback or "") for scope in self.scopes],
            [PeerRow(node.node_id, node.address, node.replication, node.kind) for node in self.nodes],
        )
