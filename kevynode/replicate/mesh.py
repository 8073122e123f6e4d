"""Whom this node copies scopes from: one follower for each other writer of what is wanted here. No I/O.

The node gives a :class:`Mesh` what it knows and calls :meth:`Mesh.refresh` when any of it has changed:

- after the data and the ledger have been loaded, for the first time,
- whenever a scope has another owner (at once, before anything else runs: what arrives for a prefix that has become this
  node's own must not be applied), and
- when its role has changed: a plain replica copies one upstream and nobody else.

How a prefix is followed from one writer to another is decided in :mod:`mesh_sources`.
:class:`~kevynode.replicate.mesh_service.MeshService` runs the followers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from ..store.marks import Release
from ..transport import format_address
from .mesh_following import Acquired, MakeMeshFollower, MeshFacts, MeshFollowing, MeshPeer, Released, ScopeCopy
from .mesh_sources import NOBODY, PATIENCE, Manner, MeshSources
from .scope_cursors import CursorNote, ScopeCursors, found_copies, found_left, parse_left
from .surroundings import ReplicationLog

__all__ = [
    "PATIENCE",
    "Acquired",
    "MakeMeshFollower",
    "Mesh",
    "MeshFacts",
    "MeshFollowing",
    "MeshPeer",
    "Released",
    "ScopeCopy",
]


class Mesh:
    """The followers of this node, ``self_id``.

    ``owners`` gives the owner of every declared prefix that is wanted here, now. Those of this node itself should be
    among them: then others are listened to before anything moves there. ``epoch`` gives the epoch of the move that made
    that owner one; None: it is not known. ``is_sure`` says whether there is no doubt of that owner, nor of who was it
    before. ``monotonic`` seconds; ``is_active`` whether this node is one that copies scopes; ``kept`` gives copies that
    nobody is followed for, and which the files are to name all the same; ``note`` tells the files of cursors: among
    those ``found`` in them at the start it is told of those that nobody will go on from.
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
        epoch: Callable[[bytes], int | None] = lambda prefix: None,
        is_sure: Callable[[bytes], bool] = lambda prefix: True,
        is_active: Callable[[], bool] = lambda: True,
        kept: Callable[[], Mapping[bytes, ScopeCopy]] = dict,
        found: Mapping[str, tuple[int, int]] | None = None,
        note: CursorNote = lambda name, history, offset: None,
    ) -> None:
        self.self_id = self_id
        self.followers: dict[str, MeshFollowing] = {}
        #: Called when there are other followers than before.
        self.on_followers: Callable[[], None] | None = None
        self._peers = {peer.node_id: peer for peer in peers if peer.node_id != self_id}
        self._owners = owners
        self._epoch = epoch
        self._make_follower = make_follower
        self._log = log
        self._is_sure = is_sure
        self._is_active = is_active
        self._kept = kept
        self._sources = MeshSources(self_id, self._peers, self.followers, monotonic)
        self._found = dict(found or {})
        self._note = note
        # What is here of prefixes that are copied from nobody.
        self._ownerless = ScopeCursors(NOBODY, note, self._found)
        self._find_what_was_left()
        self._received_before = 0
        self._began = False
        # Whether anything has been wanted of others: then what they say of moves is heard from then on.
        self._listens = False
        # What writers have released last that was not copied from them whole, by writer and prefix.
        self._let_go: dict[tuple[str, bytes], Released] = {}
        # Those of which a copy of their present writer's has been here since the start, as far as anybody has asked.
        self._had: set[bytes] = set()

    def refresh(self) -> None:
        """Follow whoever owns what now. Does nothing if that has not changed."""
        manners: dict[bytes, Manner] = {}
        wanted = self._wanted(manners)
        followers = dict(self.followers)
        # What is followed no more is let go of first: a prefix must not have two writers for a moment.
        for node_id, follower in followers.items():
            if node_id in wanted:
                follower.follow_prefixes([prefix for prefix in follower.prefixes if prefix in wanted[node_id]])
            else:
                follower.retire("none of its scopes is followed any more")
                self._received_before += follower.received_bytes
                del self.followers[node_id]
                self._let_go = {which: mark for which, mark in self._let_go.items() if which[0] != node_id}
                self._log.info("scopes_left", node=node_id, upstream=follower.address)
        for node_id, prefixes in wanted.items():
            if node_id not in self.followers:
                self._follow(self._peers[node_id], prefixes)
                continue
            follower = self.followers[node_id]
            for prefix in prefixes:
                self._change(node_id, follower, prefix, manners.get(prefix, Manner.FOLLOW))
            follower.follow_prefixes(prefixes)
        for node_id, follower in self.followers.items():
            follower.leave(self._sources.left_to(node_id), self._sources.earlier_of(node_id))
        self._ownerless.leave_earlier({**self._sources.earlier_of_others(), **self._kept()})
        self._forget_unused()
        if self.followers != followers and self.on_followers is not None:
            self.on_followers()

    def _find_what_was_left(self) -> None:
        for peer in self._peers.values():
            address = format_address(peer.host, peer.port)
            for name, at in self._found.items():
                left = parse_left(address, name)
                if left is not None and at[0]:
                    self._sources.found(left[0], Released(Release(*left, peer.node_id), at))
            self._sources.found_copies(peer.node_id, *found_copies(address, self._found))
        # A node may have been declared elsewhere then, or may be declared no more: what is here of it is what it was.
        known = {format_address(peer.host, peer.port) for peer in self._peers.values()}
        for address in sorted({name.partition("/")[0] for name in self._found} - known):
            own, earlier = found_copies(address, self._found)
            for copies in (own, earlier, found_left(address, self._found)):
                self._sources.found_copies(NOBODY, {}, copies)

    def _change(self, node_id: str, follower: MeshFollowing, prefix: bytes, manner: Manner) -> None:
        if manner is Manner.ADOPT:
            follower.adopt(prefix)
            self._log.info("scope_continued", node=node_id, prefix=prefix)
        elif manner is Manner.RENEW:
            follower.renew(prefix)
            self._log.info("scope_renewed", node=node_id, prefix=prefix)

    def released_here(self, mark: Release, history: int, offset: int, *, whole: bool = True) -> None:
        """This node has entered a mark into its own journal, where the next offset is ``offset`` now.

        What it holds under the prefix is what the next owner begins with, if that is ``whole``. Before anything of it
        is cleaned up; call :meth:`refresh` then.
        """
        self._sources.released_here(Released(mark, (history, offset), whole))

    def _wanted(self, manners: dict[bytes, Manner]) -> dict[str, tuple[bytes, ...]]:
        """The prefixes to copy, by whom from; those whose owner is no declared peer cannot be.

        ``manners`` gets how, where it is not just to be followed.
        """
        wanted: dict[str, tuple[bytes, ...]] = {}
        owners = self._owners() if self._is_active() else {}
        self._listens = self._is_active() and (self._listens or bool(owners))
        if self._listens:
            # Who writes nothing yet may acquire something: its marks are heard in time only by who listens already.
            wanted = {node_id: () for node_id, peer in self._peers.items() if peer.kind != "kevy"}
        for prefix, owner in sorted(owners.items()):
            choice = self._sources.choose(prefix, owner, self._epoch(prefix))
            if choice.source in self._peers:
                wanted[choice.source] = (*wanted.get(choice.source, ()), prefix)
                if choice.manner is not Manner.FOLLOW:
                    manners[prefix] = choice.manner
        self._sources.forget_all_but(owners)
        return wanted

    def _marks_passed(self, node_id: str) -> None:
        """The stream of a writer has come to marks."""
        follower = self.followers.get(node_id)
        if follower is not None:
            for prefix in follower.acquired:
                self._let_go.pop((node_id, prefix), None)
            for prefix, released in follower.released.items():
                if not released.whole:
                    self._let_go[node_id, prefix] = released
            self._sources.marks_passed(node_id, follower)
            self.refresh()

    def _heard(self) -> None:
        """A stream has been heard further: marks that it did not bring will not come, and some may be lost."""
        if self._sources.listens:
            self.refresh()

    def _follow(self, peer: MeshPeer, prefixes: tuple[bytes, ...]) -> None:
        follower = self._make_follower(peer, prefixes, self._found)
        follower.on_marks = partial(self._marks_passed, peer.node_id)
        follower.on_heard = self._heard
        follower.on_placing = self._sources.replaced
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
                if name.partition("/")[0] != NOBODY:
                    self._note(name, 0, 0)
            self._found = {}
            self._sources.forget_found()

    # -- questions ----------------------------------------------------------------------------------------------------

    def facts(self, now: float) -> list[MeshFacts]:
        """The state of every follower, by the writers' ids. ``now`` is monotonic."""
        return [
            MeshFacts(node_id, self._peers[node_id].kind, follower.prefixes, follower.missing, follower.facts(now))
            for node_id, follower in sorted(self.followers.items())
        ]

    def copy_of(self, prefix: bytes) -> ScopeCopy | None:
        """What the copy of a prefix here stands for; None: it is not whole, or there is none.

        While the prefix goes from one writer to the next that is what is here of the last one's: its stream up to where
        it has been applied, or, behind its release, all of it. So it is until a ship of the next one's takes its place.
        """
        for follower in self.followers.values():
            if prefix in follower.prefixes and prefix not in follower.missing:
                history, offset = follower.place_of(prefix)
                return ScopeCopy(history, offset, self._sources.epoch(prefix), follower.ancestors)
        owners = self._owners() if self._is_active() else {}
        return None if owners.get(prefix, self.self_id) == self.self_id else self._sources.left(prefix)

    def lacks(self, prefix: bytes) -> bool:
        """Whether a prefix is copied here and the copy is not whole: it is nothing to give to anybody."""
        if any(prefix in follower.missing for follower in self.followers.values()):
            return True
        released = self._sources.released(prefix)
        return released is not None and not released.whole

    def was_copied(self, prefix: bytes) -> bool:
        """Whether what is here of a prefix was, since or at the start, what another node had written."""
        return self._sources.was_copied(prefix)

    @property
    def is_between_writers(self) -> bool:
        """Whether any prefix has an owner whose stream is not followed yet, or not since what made it the owner."""
        return self._sources.waits

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

        It is not while the writer has a scope that is still followed in the stream of the one before it, or of which it
        is not known whether the copy has what was written elsewhere before; nor while the writer may have one that this
        node takes for another one's, or for its own; nor until a copy of what it has released, and was not copied from
        it until then, has come from who had it next. Nor is it, after a start, until there has been a copy of every
        scope that was ever moved: what this writer may have had of it is not known then.
        """
        for node_id, follower in self.followers.items():
            applied = follower.has_applied(history, offset)
            if applied is not None:
                return applied and not self._awaits(node_id, follower)
        return None

    def _awaits(self, node_id: str, follower: MeshFollowing) -> bool:
        """Whether a writer has anything that is to be copied, and is not taken from its stream yet."""
        owners = self._owners() if self._is_active() else {}
        for prefix, owner in owners.items():
            if owner == self.self_id:
                if self._may_be_lost(node_id, follower, prefix):
                    return True
            elif prefix in follower.prefixes:
                if owner == node_id and self._sources.is_between(prefix):
                    return True
            elif owner == node_id or not self._is_sure(prefix) or self._may_come(node_id, follower, prefix, owner):
                return True
        return False

    def _may_come(self, node_id: str, follower: MeshFollowing, prefix: bytes, owner: str) -> bool:
        """Whether what a writer has written under a prefix that is another one's now may be yet to come from there."""
        released = self._sources.released(prefix)
        if released is not None and released.mark.owner == node_id:
            # The ledger here is yet to say that it is this writer's, whose acquisition may have been passed long ago.
            return True
        return (
            self._has_acquired_last(follower, prefix)
            or self._is_let_go(node_id, follower, prefix)
            or self._is_new(prefix, owner)
        )

    def _is_let_go(self, node_id: str, follower: MeshFollowing, prefix: bytes) -> bool:
        """Whether what a writer wrote under a prefix until it released it is yet to come, from those after it."""
        released = self._let_go.get((node_id, prefix))
        if released is None or released.at[0] not in (
            follower.stream[0],
            *(before for before, _ in follower.ancestors),
        ):
            return False
        copy = self.copy_of(prefix)
        return copy is None or (self._epoch(prefix) is not None and copy.epoch < released.mark.epoch)

    def _is_new(self, prefix: bytes, owner: str) -> bool:
        """Whether a copy of a prefix is yet to come for the first time since the start.

        Who wrote it before its owner is not known then: it may have been any writer.
        """
        epoch = self._epoch(prefix)
        if not epoch or prefix in self._had or owner not in self.followers:
            # What has never been moved nobody else has written.
            return False
        copy = self.copy_of(prefix)
        if copy is None or copy.epoch < epoch:
            return True
        self._had.add(prefix)
        return False

    def _may_be_lost(self, node_id: str, follower: MeshFollowing, prefix: bytes) -> bool:
        """Whether a prefix that is this node's by the ledger may be this writer's by now.

        What made it that may not have been written down here yet, or cannot be while the disk fails.
        """
        epoch = self._epoch(prefix)
        acquired = follower.acquired.get(prefix)
        if acquired is not None and acquired.mark.epoch > (epoch or 0):
            return True
        return not self._is_sure(prefix) or self._sources.next_writer(prefix, epoch) == node_id

    def _has_acquired_last(self, follower: MeshFollowing, prefix: bytes) -> bool:
        """Whether this is the writer who acquired a prefix last, as far as the streams have come."""
        epochs = [
            (other.acquired[prefix].mark.epoch, other is follower)
            for other in self.followers.values()
            if prefix in other.acquired
        ]
        return bool(epochs) and max(epochs)[1]
