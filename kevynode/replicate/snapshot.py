"""Snapshots: a whole data set as bytes (KEVYSNAP), written from frozen shards and read into a staging.

Both ways work a piece at a time, inside a container of any size too, and neither blocks or checkpoints. The form itself
is described in ``snapshot_format``.
"""

from __future__ import annotations

from .snapshot_decoder import SnapshotDecoder, SnapshotError
from .snapshot_encoder import encode_snapshot

__all__ = ["SnapshotDecoder", "SnapshotError", "encode_snapshot"]
