"""The life of a link to a replica, as its primary sees it; everything that moves it on stands in :data:`TRANSITIONS`::

    HANDSHAKE ──resume──▶ STREAMING ◀──shipped── SNAPSHOT
        └───────ship─────────│──────────ship────────▲
    any state ──close──▶ CLOSED

- HANDSHAKE: the replica's request is known and answered; it waits until a snapshot may start.
- SNAPSHOT: a frozen copy goes out in chunks, as of one offset. The backlog is pinned from that offset on.
- STREAMING: frames follow each other. The link reads them from the backlog it shares with all others.
- CLOSED: nothing more is sent.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, Literal, TypeAlias

__all__ = ["TRANSITIONS", "Cause", "State"]


class State(Enum):
    """Where a link is in its life."""

    HANDSHAKE = "handshake"
    SNAPSHOT = "snapshot"
    STREAMING = "streaming"
    CLOSED = "closed"


Cause: TypeAlias = Literal["resume", "ship", "shipped", "close"]

TRANSITIONS: Final[dict[tuple[State, Cause], State]] = {
    (State.HANDSHAKE, "resume"): State.STREAMING,
    (State.HANDSHAKE, "ship"): State.SNAPSHOT,
    (State.STREAMING, "ship"): State.SNAPSHOT,
    (State.SNAPSHOT, "shipped"): State.STREAMING,
    (State.HANDSHAKE, "close"): State.CLOSED,
    (State.SNAPSHOT, "close"): State.CLOSED,
    (State.STREAMING, "close"): State.CLOSED,
    (State.CLOSED, "close"): State.CLOSED,
}
