"""Copies: streaming a node's changes to replicas, and being a replica. The protocol parts know no I/O.

For programs that apply events themselves there is ``ReplicaClient``, with its events and errors. It is loaded on first
use, so that the protocol parts alone pull in no Trio:

>>> from kevynode.replicate import ReplicaClient
>>> ReplicaClient.__name__
'ReplicaClient'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client import (
        ConnectFailed,
        Frame,
        Gap,
        Group,
        HistoryChanged,
        LinkClosed,
        Ping,
        ProtocolBroken,
        Refused,
        ReplicaClient,
        ReplicaError,
        ReplicaEvent,
        Resumed,
        Silent,
        Skip,
        SnapshotBegin,
        SnapshotData,
        SnapshotEnd,
    )

__all__ = [
    "ConnectFailed",
    "Frame",
    "Gap",
    "Group",
    "HistoryChanged",
    "LinkClosed",
    "Ping",
    "ProtocolBroken",
    "Refused",
    "ReplicaClient",
    "ReplicaError",
    "ReplicaEvent",
    "Resumed",
    "Silent",
    "Skip",
    "SnapshotBegin",
    "SnapshotData",
    "SnapshotEnd",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use (PEP 562), and keep it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(".client", __name__), name)
    globals()[name] = value
    return value
