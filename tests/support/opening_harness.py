"""What decides whether a scope opens, with answers and copies as short calls."""

from __future__ import annotations

from typing import Any, Final

from kevynode.scope import OwnershipTable, Scope
from kevynode.scope.copies import HeldCopy
from kevynode.scope.ledger import Ledger
from kevynode.scope.ledger_records import MoveRecord, MoveRole, MoveState
from kevynode.scope.opening import Decision, Opening

APP, WEB, ELSE = b"app:", b"web:", b"else:"
TABLE = OwnershipTable([Scope(APP, "a"), Scope(WEB, "a"), Scope(ELSE, "b")])
PEERS = ("a", "b", "c")
#: What a peer that agrees declares.
SAME: Final = {APP: "a", WEB: "a", ELSE: "b"}
MOVE = MoveRecord("m1", APP, MoveRole.SOURCE, MoveState.QUIESCED, "c", 5)


def opening(
    *,
    table: OwnershipTable = TABLE,
    ledger: Ledger | None = None,
    peers: tuple[str, ...] = PEERS,
    version: int = 3,
    is_settled: bool = False,
    **more: Any,
) -> Opening:
    found = Ledger() if ledger is None else ledger
    return Opening("a", table, found, peers, now=100.0, version=version, is_settled=is_settled, **more)


def answer(made: Opening, *peers: str) -> None:
    for peer in peers:
        made.remembered(peer, 0)
        made.declared(peer, SAME)
        made.answered(peer)


def app(made: Opening, now: float = 100.0) -> Decision:
    return made.decide(now)[APP]


def copy(
    offset: int, keys: int = 5, history: int = 1, epoch: int = 0, ancestors: tuple[tuple[int, int], ...] = ()
) -> HeldCopy:
    return HeldCopy(history, offset, keys, epoch, ancestors)
