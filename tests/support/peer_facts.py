"""What two nodes may say to each other, and a peer that is known by what it says."""

from __future__ import annotations

from typing import Any

from kevynode.scope.ledger import Ledger, LedgerEntry
from kevynode.scope.peer_actions import Action
from kevynode.scope.peer_messages import Beat, Configuration, Message, PeerRow, ScopeRow
from kevynode.scope.peer_state import DeclaredPeer, Direction, LinkState, OwnFacts, PeerState

OURS = Configuration((ScopeRow(b"app:", "a"),), (PeerRow("b", "b:1", "b:2", "kevynode"),))
THEIRS = Configuration((ScopeRow(b"app:", "b"), ScopeRow(b"z:", "b")), ())
EMPTY = Ledger().digest
OTHER = Ledger([LedgerEntry(b"p", "b", 1, "m")]).digest
ENTRY = LedgerEntry(b"app:", "b", 2, "move")
OWN = OwnFacts(EMPTY, 5, OURS.digest, "serving", "a:6004")


def beat(
    ledger: str = EMPTY, version: int = 0, remembered: int = 0, configuration: Configuration = OURS, **more: Any
) -> Beat:
    """A heartbeat of the peer."""
    said = {"state": "serving", "client_address": "b:6004", **more}
    return Beat(ledger, version, remembered, configuration.digest, **said)


class Peer:
    """The peer b, with a clock and what this node is."""

    def __init__(self, announced: int = 0) -> None:
        self.time = 100.0
        self.own = OWN
        self.state = PeerState(DeclaredPeer("b", "b:16004"), announced, self.time)

    def link(self, direction: Direction = "out", instance: str = "i") -> LinkState:
        link, _ = self.state.attach(direction, instance, self.time)
        return link

    def take(self, link: LinkState, message: Message, after: float = 0.0) -> list[Action]:
        self.time += after
        self.state.heard(link, self.time)
        return self.state.take(link, message, self.own, self.time)
