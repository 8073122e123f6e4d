"""Whom this node copies scopes from: one follower for each other writer of what is wanted here. No I/O.

The node gives a :class:`Mesh` what it knows and calls :meth:`Mesh.refresh` when any of it has changed:

- after the data and the ledger have been loaded, for the first time,
- whenever a scope has another owner (at once, before anything else runs: what arrives for a prefix that has become this
  node's own must not be applied), and
- when its role has changed: a plain replica copies one upstream and nobody else.

A prefix that moves from one writer to another is followed by the marks in their own streams: up to the first one's
release, and from the second one's acquisition on. Who has all that the first one wrote goes on without a ship. Marks
that do not come are waited for a while; then the new owner's ship takes the place of what is here. Of a kevy server,
which sets no marks, a ship is taken at once.

:class:`~kevynode.replicate.mesh_service.MeshService` runs the followers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, Protocol

import attrs

from ..replication_view import UpstreamFacts
from ..store.marks import Acquire, Release
from .surroundings import ReplicationLog

__all__ = ["Acquired", "MakeMeshFollower", "Mesh", "MeshFacts", "MeshFollowing", "MeshPeer", "Released"]

#: Seconds that the marks of a move are waited for.
PATIENCE: Final = 10.0


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
class Released:
    """A writer's stream has come to this mark; ``at`` is the history and the offset behind it.

    The copy of the prefix was whole then.
    """

    mark: Release
    at: tuple[int, int]


@attrs.frozen
class Acquired:
    """A writer's stream has come to this mark; ``at`` is the history and the offset behind it."""

    mark: Acquire
    at: tuple[int, int]


class MeshFollowing(Protocol):
    """A follower of one writer, as far as the mesh looks at it."""

    released: dict[bytes, Released]
    acquired: dict[bytes, Acquired]
    on_marks: Callable[[], None]

    @property
    def address(self) -> str: ...
    @property
    def prefixes(self) -> tuple[bytes, ...]: ...
    @property
    def missing(self) -> tuple[bytes, ...]: ...
    @property
    def stream(self) -> tuple[int, int]: ...
    @property
    def received_bytes(self) -> int: ...
    def follow_prefixes(self, prefixes: Sequence[bytes]) -> None: ...
    def adopt(self, prefix: bytes) -> None: ...
    def retire(self, reason: str) -> None: ...
    def facts(self, now: float) -> UpstreamFacts: ...
    def has_applied(self, history: int, offset: int) -> bool | None: ...
    async def run(self) -> None: ...


#: Makes the follower of a peer for some prefixes; the mapping holds the cursors that were found for it at the start.
MakeMeshFollower = Callable[[MeshPeer, tuple[bytes, ...], Mapping[str, tuple[int, int]]], MeshFollowing]


class Mesh:
    """The followers of this node, ``self_id``.

    ``owners`` gives the owner of every declared prefix that is wanted here, now; ``monotonic`` seconds; ``is_active``
    whether this node is one that copies scopes; ``forget`` is told the name of each cursor among those ``found`` in the
    files at the start that nobody will go on from.
    """

    def __init__(
        self,
        self_id: str,
        peers: Sequence[MeshPeer],
        owners: Callable[[], Mapping[bytes, str]],
        make_follower: MakeMeshFollower,
        log: ReplicationLog,
        *,
        monotonic: Callable[[], float],
        is_active: Callable[[], bool] = lambda: True,
        found: Mapping[str, tuple[int, int]] | None = None,
        forget: Callable[[str], None] = lambda name: None,
    ) -> None:
        self.self_id = self_id
        self.followers: dict[str, MeshFollowing] = {}
        #: Called when there are other followers than before.
        self.on_followers: Callable[[], None] | None = None
        self._peers = {peer.node_id: peer for peer in peers if peer.node_id != self_id}
        self._owners = owners
        self._make_follower = make_follower
        self._log = log
        self._is_active = is_active
        self._now = monotonic
        # Whose stream each prefix is followed in, or was last; what this node itself has released; and since when a
        # prefix has been between two writers.
        self._sources: dict[bytes, str] = {}
        self._released: dict[bytes, tuple[str, Released]] = {}
        self._moving: dict[bytes, float] = {}
        self._found = dict(found or {})
        self._forget = forget
        self._received_before = 0
        self._began = False

    def refresh(self) -> None:
        """Follow whoever owns what now. Does nothing if that has not changed."""
        adopted: dict[bytes, str] = {}
        wanted = self._wanted(adopted)
        followers = dict(self.followers)
        # What is followed no more is let go of first: a prefix must not have two writers for a moment.
        for node_id, follower in followers.items():
            if node_id in wanted:
                follower.follow_prefixes([prefix for prefix in follower.prefixes if prefix in wanted[node_id]])
            else:
                follower.retire("none of its scopes is followed any more")
                self._received_before += follower.received_bytes
                del self.followers[node_id]
                self._log.info("scopes_left", node=node_id, upstream=follower.address)
        for prefix, node_id in adopted.items():
            self.followers[node_id].adopt(prefix)
            self._log.info("scope_continued", node=node_id, prefix=prefix)
        for node_id, prefixes in wanted.items():
            if node_id in self.followers:
                self.followers[node_id].follow_prefixes(prefixes)
            else:
                self._follow(self._peers[node_id], prefixes)
        self._forget_unused()
        if self.followers != followers and self.on_followers is not None:
            self.on_followers()

    def released_here(self, mark: Release, history: int, offset: int) -> None:
        """This node has entered a mark into its own journal, where the next offset is ``offset`` now.

        What it holds under the prefix is what the next owner begins with. Before anything of it is cleaned up; call
        :meth:`refresh` then.
        """
        self._released[mark.prefix] = self.self_id, Released(mark, (history, offset))
        self._sources[mark.prefix] = self.self_id

    def _wanted(self, adopted: dict[bytes, str]) -> dict[str, tuple[bytes, ...]]:
        """The prefixes to copy, by whom from; those whose owner is no declared peer cannot be.

        ``adopted`` gets those that go on with another writer where they are.
        """
        wanted: dict[str, tuple[bytes, ...]] = {}
        owners = self._owners() if self._is_active() else {}
        if owners:
            # Who writes nothing yet may acquire something: its marks are heard in time only by who listens already.
            wanted = {node_id: () for node_id, peer in self._peers.items() if peer.kind != "kevy"}
        for prefix, owner in sorted(owners.items()):
            source = self._source(prefix, owner, adopted)
            if source in self._peers:
                wanted[source] = (*wanted.get(source, ()), prefix)
        for prefix in [prefix for prefix in self._sources if prefix not in owners]:
            self._moving.pop(prefix, None)
            if self._released_by(self.self_id, prefix) is None:
                # What this node has just released may be known here before its new owner is.
                del self._sources[prefix]
        return wanted

    def _source(self, prefix: bytes, owner: str, adopted: dict[bytes, str]) -> str:
        """From whom to copy a prefix now; from nobody if it is this node, or no peer."""
        before = self._sources.get(prefix, owner)
        released = self._released_by(before, prefix)
        if released is not None and owner == before:
            # Its stream knows it earlier than the ledger here.
            owner = released.mark.owner
        if before == owner and prefix in self._sources:
            self._moving.pop(prefix, None)
            return owner
        if owner == self.self_id or before == owner or not self._sets_marks(owner) or not self._sets_marks(before):
            self._settle(prefix, owner)
            return owner
        if released is not None and self._continues(prefix, released, owner):
            adopted[prefix] = owner
        elif self._now() - self._moving.setdefault(prefix, self._now()) < PATIENCE:
            # Up to the release what comes from there counts; behind it nothing does.
            return before if released is None else ""
        self._settle(prefix, owner)
        return owner

    def _settle(self, prefix: bytes, source: str) -> None:
        """Copy a prefix from ``source`` from here on: what was said before of its release is over."""
        self._sources[prefix] = source
        self._moving.pop(prefix, None)
        self._released.pop(prefix, None)

    def _sets_marks(self, node_id: str) -> bool:
        return node_id == self.self_id or (node_id in self._peers and self._peers[node_id].kind != "kevy")

    def _released_by(self, node_id: str, prefix: bytes) -> Released | None:
        """What is known of the release of a prefix by the node that it was followed from."""
        writer, released = self._released.get(prefix, ("", None))
        return released if writer == node_id else None

    def _marks_passed(self, node_id: str) -> None:
        """The stream of a writer has come to marks."""
        follower = self.followers.get(node_id)
        if follower is None:
            return
        for prefix in follower.acquired:
            if self._released_by(node_id, prefix) is not None:
                del self._released[prefix]
        for prefix, released in follower.released.items():
            self._released[prefix] = node_id, released
        follower.released.clear()
        self.refresh()

    def _continues(self, prefix: bytes, released: Released, owner: str) -> bool:
        """Whether what is held of a prefix is what ``owner`` began with, and its stream is known from there on."""
        follower = self.followers.get(owner)
        acquired = None if follower is None else follower.acquired.get(prefix)
        if follower is None or acquired is None or acquired.at[0] != follower.stream[0]:
            return False
        history, offset = released.at
        mark = acquired.mark
        # Both are of one move: there may have been others before, to and fro.
        return mark.epoch == released.mark.epoch and mark.history == history and mark.tail <= offset

    def _follow(self, peer: MeshPeer, prefixes: tuple[bytes, ...]) -> None:
        follower = self._make_follower(peer, prefixes, self._found)
        follower.on_marks = partial(self._marks_passed, peer.node_id)
        self.followers[peer.node_id] = follower
        # It knows better from here on.
        for name in [name for name in self._found if name.partition("/")[0] == follower.address]:
            del self._found[name]
        self._log.info("scopes_followed", node=peer.node_id, upstream=follower.address, prefixes=len(prefixes))

    def _forget_unused(self) -> None:
        """What the files say of others than those who are followed from the start on is of no use later."""
        if not self._began:
            self._began = True
            for name in self._found:
                self._forget(name)
            self._found = {}

    # -- questions ----------------------------------------------------------------------------------------------------

    def facts(self, now: float) -> list[MeshFacts]:
        """The state of every follower, by the writers' ids. ``now`` is monotonic."""
        return [
            MeshFacts(node_id, self._peers[node_id].kind, follower.prefixes, follower.missing, follower.facts(now))
            for node_id, follower in sorted(self.followers.items())
        ]

    def copy_of(self, prefix: bytes) -> tuple[int, int] | None:
        """History and next offset of the writer that the copy of a prefix here stands for; None: it is not whole."""
        for follower in self.followers.values():
            if prefix in follower.prefixes and prefix not in follower.missing:
                return follower.stream
        return None

    def lacks(self, prefix: bytes) -> bool:
        """Whether a prefix is copied here and the copy is not whole."""
        return any(prefix in follower.missing for follower in self.followers.values())

    def unreachable(self) -> tuple[bytes, ...]:
        """Wanted prefixes whose owner is neither this node nor a declared peer."""
        known = {self.self_id, *self._peers}
        return tuple(sorted(prefix for prefix, owner in self._owners().items() if owner not in known))

    @property
    def received_bytes(self) -> int:
        """Bytes received from other writers."""
        return self._received_before + sum(follower.received_bytes for follower in self.followers.values())

    def has_applied(self, history: int, offset: int) -> bool | None:
        """Whether everything before ``offset`` of a writer's history is here; None: nobody's who is copied here.

        It is not while the writer has a scope that is still followed in the stream of the one before it.
        """
        for node_id, follower in self.followers.items():
            applied = follower.has_applied(history, offset)
            if applied is not None:
                return applied and not self._awaits(node_id, follower)
        return None

    def _awaits(self, node_id: str, follower: MeshFollowing) -> bool:
        """Whether a writer has anything that is to be copied, and is not taken from its stream yet."""
        owners = self._owners() if self._is_active() else {}
        return any(
            prefix not in follower.prefixes and (owner == node_id or self._has_acquired_last(follower, prefix))
            for prefix, owner in owners.items()
        )

    def _has_acquired_last(self, follower: MeshFollowing, prefix: bytes) -> bool:
        """Whether this is the writer who acquired a prefix last, as far as the streams have come."""
        epochs = [
            (other.acquired[prefix].mark.epoch, other is follower)
            for other in self.followers.values()
            if prefix in other.acquired
        ]
        return bool(epochs) and max(epochs)[1]
