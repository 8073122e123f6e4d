"""Records of the append-only file, as a test writes them down."""

from __future__ import annotations

from collections.abc import Sequence

from kevynode.persist.annotations import GroupSpan
from kevynode.persist.records import EXEC, MULTI, encode_commands
from kevynode.store.journal import Effect


def encode_groups(groups: Sequence[Sequence[Effect]]) -> bytes:
    """The records of whole groups at consecutive offsets, each of at least one effect."""
    return b"".join(_group(encode_commands([effect[0] for effect in group]), len(group)) for group in groups)


def encode_spanning(commands: Sequence[Sequence[bytes]], next_offset: int) -> bytes:
    """The record of one group, of at least one entry, that takes all offsets up to ``next_offset``."""
    return GroupSpan(next_offset).line() + _group(encode_commands(commands), len(commands))


def _group(records: bytes, size: int) -> bytes:
    return records if size == 1 else MULTI + records + EXEC
