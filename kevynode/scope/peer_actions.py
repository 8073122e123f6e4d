"""What is to be done about what a peer said: the conclusions of :mod:`peer_state`, as values."""

from __future__ import annotations

from typing import TypeAlias

import attrs

from .ledger import LedgerEntry
from .peer_messages import Configuration, CopiesAsked, CopiesHeld

__all__ = [
    "Action",
    "ConfigurationKnown",
    "LedgerKnown",
    "Merge",
    "NoteVersion",
    "PeerWentBack",
    "Remembered",
    "SendConfiguration",
    "SendLedger",
]


@attrs.frozen
class Merge:
    """Take in these entries."""

    entries: tuple[LedgerEntry, ...]


@attrs.frozen
class LedgerKnown:
    """All that the peer knew has been taken in, and its configuration is known; call :meth:`PeerState.answered`."""


@attrs.frozen
class NoteVersion:
    """Remember durably that the peer's ledger has this version, a new one; then call :meth:`PeerState.noted`."""

    version: int


@attrs.frozen
class Remembered:
    """The peer remembers this version of our own ledger, for the first time on this link or a new one.

    If it is above the version that we have, this node went back in time.
    """

    version: int


@attrs.frozen
class PeerWentBack:
    """The peer's ledger has a lower version than it once had; it is told with the next heartbeat."""

    version: int
    remembered: int


@attrs.frozen
class SendLedger:
    """Send this peer our whole ledger."""


@attrs.frozen
class SendConfiguration:
    """Send this peer our configuration."""


@attrs.frozen
class ConfigurationKnown:
    """The peer's configuration has become known: another one than ours, or None for the same."""

    configuration: Configuration | None


Action: TypeAlias = (
    Merge
    | LedgerKnown
    | NoteVersion
    | Remembered
    | PeerWentBack
    | SendLedger
    | SendConfiguration
    | ConfigurationKnown
    | CopiesAsked
    | CopiesHeld
)
