"""What a replication stream can say to a replica, its limits, and the error for a peer that breaks its rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

import attrs

__all__ = [
    "CHUNK_LIMIT",
    "CONTROL_LINE_LIMIT",
    "EXTENSION_LINE_LIMIT",
    "GROUP_BYTES_LIMIT",
    "GROUP_LIMIT",
    "Accepted",
    "AckRequested",
    "Acknowledged",
    "Ancestors",
    "Chunk",
    "ErrorLine",
    "Event",
    "Frames",
    "Ping",
    "ScopeSnapshotBegin",
    "Skip",
    "SnapshotBegin",
    "SnapshotEnd",
    "WireError",
]

#: Longest control line (``+PING ...``) in bytes, without its line end; as the kevy server.
CONTROL_LINE_LIMIT: Final = 256
#: Longest line of the extensions that only kevynodes exchange, and of an error line.
EXTENSION_LINE_LIMIT: Final = 4096
#: Largest chunk of a snapshot in bytes; as the kevy server.
CHUNK_LIMIT: Final = 65536
#: Most frames of one group.
GROUP_LIMIT: Final = 1024 * 1024
#: Most bytes of one frame or group unless told otherwise: Valkey lets no client's request (client-query-buffer-limit)
#: become larger.
GROUP_BYTES_LIMIT: Final = 1024 * 1024 * 1024


class WireError(Exception):
    """The peer broke the rules of the stream, and its link must end.

    ``reason`` is which rule, always in the same words; ``detail`` what stood there instead, shortened and printable.
    """

    def __init__(self, reason: str, found: bytes | bytearray | str = "") -> None:
        if isinstance(found, str):
            detail = found
        else:
            detail = repr(bytes(found[:64]))[1:] + ("..." if len(found) > 64 else "")
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


@attrs.frozen
class Acknowledged:
    """``+ACK``: the offset that was asked for, and the primary's history (None in the five-argument form)."""

    history: int | None
    offset: int


@attrs.frozen
class Accepted:
    """``+CAPA``: the capabilities the primary takes part in."""

    names: frozenset[str]


@attrs.frozen
class Ancestors:
    """``+LINEAGE``: the primary's older histories, ``(history, branch offset)``, newest first."""

    ancestors: tuple[tuple[int, int], ...]


@attrs.define
class Frames:
    """Entries at consecutive offsets from ``first`` on.

    ``raw`` is exactly the bytes of these frames, without the line that announced them as a group. ``next`` is the
    offset expected behind them: ``first`` plus their number, or more for a group of a filtered link, which may lack
    entries in its midst. ``grouped`` says that these entries, and no others, belong together: all or none of them.
    """

    first: int
    commands: Sequence[list[bytes]]
    raw: bytes
    grouped: bool
    next: int


@attrs.frozen
class Skip:
    """``+SKIP``: the entries before ``next_offset`` that were not sent are none of this link's."""

    next_offset: int


@attrs.frozen
class AckRequested:
    """``+ACKREQ``: the primary wants to hear at once how far this copy is."""


@attrs.frozen
class Ping:
    """``+PING``: the primary's history (0 in the old one-number form) and the offset its next entry gets."""

    history: int
    next_offset: int


@attrs.frozen
class SnapshotBegin:
    """``+SNAPSHOT``: chunks follow, up to a :class:`SnapshotEnd`."""


@attrs.frozen
class ScopeSnapshotBegin:
    """``+SNAPSHOT_SCOPE``: chunks follow that replace the keys under ``prefix``, as owned in ``epoch``."""

    epoch: int
    prefix: bytes


@attrs.frozen
class Chunk:
    """A piece of a snapshot."""

    data: bytes


@attrs.frozen
class SnapshotEnd:
    """``+SNAPSHOT_END``: the snapshot is complete, and the next entry behind it is ``next_offset``."""

    next_offset: int


@attrs.frozen
class ErrorLine:
    """A line that starts with ``-``: no primary sends one, but a client port answers a handshake so."""

    text: str


Event: TypeAlias = (
    Acknowledged
    | Accepted
    | Ancestors
    | Frames
    | Skip
    | AckRequested
    | Ping
    | SnapshotBegin
    | ScopeSnapshotBegin
    | Chunk
    | SnapshotEnd
    | ErrorLine
)
