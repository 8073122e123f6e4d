"""What a link to a primary tells its driver: the states of the link, why it ended, and the events of the stream.

These are the stream's own events, checked against what the link knows: nothing is out of place or out of order.
"""

from __future__ import annotations

from enum import Enum
from typing import TypeAlias

import attrs

from .stream_events import Frames

__all__ = [
    "AckWanted",
    "Entries",
    "Fault",
    "Heartbeat",
    "HistoryKnown",
    "LinkEvent",
    "Resumed",
    "ShipBegins",
    "ShipData",
    "ShipEnds",
    "Skipped",
    "State",
]


class State(Enum):
    """Where a link is in its life."""

    CONNECTING = "connecting"
    SYNCING = "syncing"
    SHIPPING = "shipping"
    LIVE = "live"
    SHIPPING_SCOPE = "shipping scope"
    LOST = "lost"


class Fault(Enum):
    """Why a link ended."""

    # The primary closed the connection.
    ENDED = "ended"
    # This side closed it, or it broke.
    CLOSED = "closed"
    # Nothing came for too long.
    SILENT = "silent"
    # Somebody answered who serves no replicas here.
    REFUSED = "refused"
    # The primary's history is another one now: come back, and be decided on afresh.
    HISTORY = "history"
    # Entries are missing, or come twice.
    GAP = "gap"
    # The primary broke the protocol.
    PROTOCOL = "protocol"


#: Entries to apply in order, as the decoder delivers them: all or none of them if ``grouped``.
Entries: TypeAlias = Frames


@attrs.frozen
class Resumed:
    """The stream goes on at ``offset`` of ``history`` (0: the primary tells none); what is held stays.

    ``from_nothing``: it goes on at the very beginning of a history that began empty, and no claim was made: what is
    held belongs to something else, and an empty snapshot is implied.
    """

    history: int
    offset: int
    ancestors: tuple[tuple[int, int], ...]
    from_nothing: bool


@attrs.frozen
class ShipBegins:
    """A snapshot starts: of everything the link follows, or (``prefix``) of one scope as owned in ``epoch``.

    ``midstream``: entries have come on this link before.
    """

    midstream: bool
    prefix: bytes | None = None
    epoch: int = 0


@attrs.frozen
class ShipData:
    """A piece of the snapshot."""

    data: bytes


@attrs.frozen
class ShipEnds:
    """The snapshot is complete and holds everything before ``offset`` of ``history`` (0: not told, or not yet)."""

    history: int
    offset: int
    ancestors: tuple[tuple[int, int], ...]
    prefix: bytes | None = None


@attrs.frozen
class Skipped:
    """The entries before ``offset`` that did not come are none of this link's."""

    offset: int


@attrs.frozen
class HistoryKnown:
    """The history of what came since a snapshot in the middle of the stream, which had not been told yet."""

    history: int


@attrs.frozen
class Heartbeat:
    """The primary lives, and its next entry will get ``next_offset``. ``history`` is 0 where it tells none."""

    history: int
    next_offset: int


@attrs.frozen
class AckWanted:
    """The primary wants to know at once how far this copy is."""


LinkEvent: TypeAlias = (
    Resumed | ShipBegins | ShipData | ShipEnds | Entries | Skipped | HistoryKnown | Heartbeat | AckWanted
)
