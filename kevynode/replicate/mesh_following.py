"""What a mesh knows of other nodes, and what it sees of the followers that copy from them. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import attrs

from ..replication_view import UpstreamFacts
from ..store.marks import Acquire, Release

__all__ = ["Acquired", "MakeMeshFollower", "MeshFacts", "MeshFollowing", "MeshPeer", "Released", "ScopeCopy"]


@attrs.frozen
class MeshPeer:
    """Another node: its id, its replication address, and what it is (``kevynode`` or ``kevy``)."""

    node_id: str
    host: str
    port: int
    kind: str = "kevynode"


@attrs.frozen
class MeshFacts:
    """The copies of one writer's scopes. ``missing``: those of ``prefixes`` that are yet to be shipped."""

    node_id: str
    kind: str
    prefixes: tuple[bytes, ...]
    missing: tuple[bytes, ...]
    upstream: UpstreamFacts


@attrs.frozen
class ScopeCopy:
    """What a whole copy of a prefix stands for: all before ``offset`` of ``history`` of its writer since ``epoch``.

    An offset of 0: all that was written before that epoch, and nothing of what has been written since. ``ancestors``
    are what the history descends from, newest first, as far as it is known: (history, branch offset).
    """

    history: int
    offset: int
    epoch: int
    ancestors: tuple[tuple[int, int], ...] = ()


@attrs.frozen
class Released:
    """A writer's stream has come to this mark; ``at`` is the history and the offset behind it.

    ``whole``: so was the copy of the prefix then.
    """

    mark: Release
    at: tuple[int, int]
    whole: bool = True


@attrs.frozen
class Acquired:
    """A writer's stream has come to this mark; ``at`` is the history and the offset behind it."""

    mark: Acquire
    at: tuple[int, int]


class MeshFollowing(Protocol):
    """A follower of one writer, as far as the mesh looks at it."""

    released: dict[bytes, Released]
    acquired: dict[bytes, Acquired]
    #: Called when there is more of them, and when the answer of has_heard_all() may be another one.
    on_marks: Callable[[], None]
    on_heard: Callable[[], None]
    #: Called with prefixes when a ship is about to take the place of what is held of them.
    on_placing: Callable[[tuple[bytes, ...]], None]

    @property
    def address(self) -> str: ...
    @property
    def prefixes(self) -> tuple[bytes, ...]: ...
    @property
    def missing(self) -> tuple[bytes, ...]: ...
    @property
    def stream(self) -> tuple[int, int]: ...
    @property
    def ancestors(self) -> tuple[tuple[int, int], ...]: ...
    @property
    def received_bytes(self) -> int: ...
    def place_of(self, prefix: bytes) -> tuple[int, int]: ...
    def follow_prefixes(self, prefixes: Sequence[bytes]) -> None: ...
    def adopt(self, prefix: bytes) -> None: ...
    def renew(self, prefix: bytes) -> None: ...
    def leave(self, left: Mapping[bytes, Released], earlier: Mapping[bytes, ScopeCopy]) -> None: ...
    def retire(self, reason: str) -> None: ...
    def facts(self, now: float) -> UpstreamFacts: ...
    def has_applied(self, history: int, offset: int) -> bool | None: ...
    def has_heard_all(self, since: float) -> bool: ...
    async def run(self) -> None: ...


#: Makes the follower of a peer for some prefixes; the mapping holds the cursors that were found for it at the start.
MakeMeshFollower = Callable[[MeshPeer, tuple[bytes, ...], Mapping[str, tuple[int, int]]], MeshFollowing]
