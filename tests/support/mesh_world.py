"""A mesh without nodes: followers that remember what they were told, and owners, epochs and time as a test says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from support.session_harness import MemoryLog

from kevynode.replicate.mesh import Acquired, Mesh, MeshPeer, Released, ScopeCopy
from kevynode.replication_view import UpstreamFacts
from kevynode.store.marks import Acquire, Release

A = b"a:"


class Following:
    """A follower that remembers what it was told."""

    def __init__(self, peer: MeshPeer, prefixes: Sequence[bytes], found: Mapping[str, tuple[int, int]]) -> None:
        self.address = f"{peer.host}:{peer.port}"
        self.prefixes = tuple(prefixes)
        self.found = dict(found)
        self.released: dict[bytes, Released] = {}
        self.acquired: dict[bytes, Acquired] = {}
        self.on_marks: Callable[[], None] = lambda: None
        self.on_heard: Callable[[], None] = lambda: None
        # Until when all has been heard.
        self.heard_at = -1.0
        self.missing: tuple[bytes, ...] = ()
        self.stream = (7, 100)
        self.ancestors: tuple[tuple[int, int], ...] = ((6, 40),)
        self.received_bytes = 10
        self.told: list[Any] = []
        self.left: dict[bytes, Released] = {}
        self.earlier: dict[bytes, ScopeCopy] = {}
        self.on_placing: Callable[[tuple[bytes, ...]], None] = lambda prefixes: None

    def place_of(self, prefix: bytes) -> tuple[int, int]:
        return self.stream

    def follow_prefixes(self, prefixes: Sequence[bytes]) -> None:
        self.prefixes = tuple(prefixes)

    def adopt(self, prefix: bytes) -> None:
        self.told.append(("adopt", prefix))

    def renew(self, prefix: bytes) -> None:
        self.told.append(("renew", prefix))

    def leave(self, left: Mapping[bytes, Released], earlier: Mapping[bytes, ScopeCopy]) -> None:
        self.left, self.earlier = dict(left), dict(earlier)

    def has_heard_all(self, since: float) -> bool:
        return self.heard_at >= since

    def retire(self, reason: str) -> None:
        self.told.append("retired")

    def facts(self, now: float) -> UpstreamFacts:
        return UpstreamFacts("h", 1, "connected", "", None, None, 0, 0, None, 0, None)

    def has_applied(self, history: int, offset: int) -> bool | None:
        return offset <= self.stream[1] if history == self.stream[0] else None

    async def run(self) -> None:
        """Nobody runs it."""


class World:
    """A mesh of node ``me`` with peers ``s`` and ``t`` and a kevy server ``k``."""

    def __init__(
        self,
        owners: dict[bytes, str],
        found: dict[str, tuple[int, int]] | None = None,
        epochs: dict[bytes, int] | None = None,
    ) -> None:
        self.owners = owners
        # None: they are not known at all.
        self.epochs = epochs
        self.time = 0.0
        self.active = True
        # Of whose owner there is doubt.
        self.unsure: set[bytes] = set()
        self.forgotten: list[str] = []
        # The cursors in the files.
        self.files = dict(found or {})
        peers = [MeshPeer(name, name, 1, "kevy" if name == "k" else "kevynode") for name in ("me", "s", "t", "k")]
        self.mesh = Mesh(
            "me",
            peers,
            lambda: self.owners,
            Following,
            MemoryLog(),
            monotonic=lambda: self.time,
            epoch=lambda prefix: None if self.epochs is None else self.epochs.get(prefix, 0),
            is_sure=lambda prefix: prefix not in self.unsure,
            is_active=lambda: self.active,
            found=found,
            note=self.note,
        )
        self.mesh.refresh()

    def note(self, name: str, history: int, offset: int) -> None:
        """The files are told of a cursor."""
        if (history, offset) == (0, 0):
            self.forgotten.append(name)
            self.files.pop(name, None)
        else:
            self.files[name] = history, offset

    def __getitem__(self, name: str) -> Following:
        follower = self.mesh.followers[name]
        assert isinstance(follower, Following)
        return follower

    @property
    def plan(self) -> dict[str, tuple[bytes, ...]]:
        return {name: follower.prefixes for name, follower in self.mesh.followers.items() if follower.prefixes}

    def own(self, owner: str, epoch: int) -> None:
        """The ledger says so."""
        self.owners[A] = owner
        self.epochs = (self.epochs or {}) | {A: epoch}
        self.mesh.refresh()

    def hear(self, *names: str) -> None:
        """All that these writers have to say has come."""
        for name in names:
            self[name].heard_at = self.time
            self[name].on_heard()

    def release(self, name: str, owner: str, epoch: int = 1, *, whole: bool = True) -> None:
        self[name].released[A] = Released(Release(A, epoch, owner), self[name].stream, whole)
        self[name].acquired.pop(A, None)
        self[name].follow_prefixes([prefix for prefix in self[name].prefixes if prefix != A])
        self[name].on_marks()

    def acquire(self, name: str, tail: int, *, history: int = 7, epoch: int = 1) -> None:
        self[name].acquired[A] = Acquired(Acquire(A, epoch, history, tail), self[name].stream)
        self[name].released.pop(A, None)
        self[name].on_marks()
