"""From whom each prefix is copied now: by the ledger, and by the marks in the streams of its writers. No I/O.

A prefix that moves from one writer to another is followed by the marks in their own streams: up to the first one's
release, and from the second one's acquisition on. Who has all that the first one wrote goes on without a ship.

Marks that are still on their way are waited for. They are not when a stream has been heard beyond the moment in which
the ledger named the new owner, because its owner enters the mark before it tells anybody; when the acquisition is of
another move than the release; and when nobody is heard for :data:`PATIENCE` seconds. Then the new owner's ship takes
the place of what is here. Of a kevy server, which sets no marks, a ship is taken at once.

The streams may know of a move before the ledger does; and if both sides of it lose their disks then, it never will. So
what a writer has said of a move counts as long as its stream goes on from there, and not once it has lost that history.

A prefix may have gone elsewhere and be back before anybody here looks. Its owner is who it was then, but the epoch is
another one, and what was written meanwhile is not here: so epochs are compared, and not only owners.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from enum import Enum
from typing import Final, NamedTuple

import attrs

from .mesh_following import MeshFollowing, MeshPeer, Released, ScopeCopy
from .scope_cursors import copy_covering

__all__ = ["NOBODY", "PATIENCE", "Choice", "Manner", "MeshSources"]

#: Seconds that the marks of a move are waited for if the streams that would bring them are not heard.
PATIENCE: Final = 10.0
#: No node has this id: what is copied from it is copied from nobody for now.
NOBODY: Final = ""


class Manner(Enum):
    """How a prefix is copied from its source."""

    #: With what is held of it, if that is whole.
    FOLLOW = "follow"
    #: With what is held of it, which is what the source began with.
    ADOPT = "adopt"
    #: With a fresh copy: what is held is not what the source has, though it came from there.
    RENEW = "renew"


class Choice(NamedTuple):
    """From whom to copy a prefix, and how. ``source`` may be this node or no peer: then from nobody."""

    source: str
    manner: Manner = Manner.FOLLOW


class _Heir(NamedTuple):
    """Who writes a prefix next, and whether the ledger says so or only the stream of its last writer."""

    owner: str
    epoch: int | None
    is_told: bool


@attrs.define
class _Copy:
    """What is known of the copy of one prefix: in whose stream it is followed, or was last, and by which epoch.

    ``left`` is what is here of an earlier writer, until a ship of this one's takes its place: it may be the best copy
    that there is. The files say so, too. ``released``: the stream has come to the prefix's release. While it is between
    two writers: ``heir`` is who comes next, ``told`` when the ledger named him, ``since`` when it first named anybody.
    ``is_ahead``: by the streams there is a later writer than the ledger names.
    """

    source: str
    epoch: int
    left: ScopeCopy | None = None
    released: Released | None = None
    since: float | None = None
    heir: tuple[str, int | None] | None = None
    told: float | None = None
    is_ahead: bool = False


class MeshSources:
    """Chooses from whom the node ``self_id`` copies each prefix. ``followers`` are those that run now, by node."""

    def __init__(
        self,
        self_id: str,
        peers: Mapping[str, MeshPeer],
        followers: Mapping[str, MeshFollowing],
        monotonic: Callable[[], float],
    ) -> None:
        self._self_id = self_id
        self._peers = peers
        self._followers = followers
        self._now = monotonic
        self._copies: dict[bytes, _Copy] = {}
        self._found: list[bytes] = []
        # By prefix, what the files say is here of it, by the node from whose stream it is (None: of an earlier writer).
        self._found_copies: dict[bytes, dict[str | None, ScopeCopy]] = {}
        # Prefixes of which a ship has been here, as far as that is known.
        self._copied: set[bytes] = set()

    # -- what happens -------------------------------------------------------------------------------------------------

    def released_here(self, released: Released) -> None:
        """This node has released a prefix.

        Said again when the copy follows its next owner already it means nothing: what is here is more than that by now.
        """
        prefix = released.mark.prefix
        copy = self._copies.get(prefix)
        if copy is not None and copy.source != self._self_id and copy.epoch >= released.mark.epoch:
            return
        self._copies[prefix] = _Copy(self._self_id, 0, released=released)

    def found(self, prefix: bytes, released: Released) -> None:
        """The files say that what is here is what the last writer of a prefix released."""
        self._copies[prefix] = _Copy(self._self_id, 0, released=released)
        self._found.append(prefix)
        self._copied.add(prefix)

    def found_copies(self, node_id: str, own: Mapping[bytes, ScopeCopy], earlier: Mapping[bytes, ScopeCopy]) -> None:
        """The files say that what is here is of a writer's stream, or of who wrote what it writes before it did."""
        self._copied |= own.keys() | earlier.keys()
        for prefix, copy in own.items():
            self._found_copies.setdefault(prefix, {})[node_id] = copy
        for prefix, copy in earlier.items():
            found = self._found_copies.setdefault(prefix, {})
            found[None] = max(copy, found.get(None, copy), key=lambda held: held.epoch)

    def replaced(self, prefixes: Collection[bytes]) -> None:
        """A ship takes the place of what is here of these prefixes."""
        self._copied.update(prefixes)
        for prefix in prefixes:
            copy = self._copies.get(prefix)
            if copy is not None:
                copy.left = None

    def was_copied(self, prefix: bytes) -> bool:
        """Whether a ship of a prefix is here, or was at the start."""
        return prefix.startswith(tuple(self._copied))

    def forget_found(self) -> None:
        """What the files say of prefixes that nobody has asked for by now is of no use later."""
        self._found_copies = {}
        for prefix in self._found:
            copy = self._copies.get(prefix)
            if copy is not None and copy.released is not None and copy.heir is None:
                del self._copies[prefix]
        self._found = []

    def left_to(self, node_id: str) -> dict[bytes, Released]:
        """What the last writers of prefixes left whole here, and the ledger says that this one writes now."""
        return {
            prefix: copy.released
            for prefix, copy in self._copies.items()
            if copy.released is not None
            and copy.released.whole
            and copy.told is not None
            and copy.heir in ((node_id, copy.released.mark.epoch), (node_id, None))
        }

    def earlier_of(self, node_id: str) -> dict[bytes, ScopeCopy]:
        """What is here of earlier writers, of prefixes that are to be copied from this one and are not yet.

        And what this one has released, as long as the ledger does not say to whom.
        """
        found: dict[bytes, ScopeCopy] = {}
        for prefix, copy in self._copies.items():
            left = copy.left if copy.told is not None else self.left(prefix)
            if copy.source == node_id and left is not None:
                found[prefix] = left
        return found

    def earlier_of_others(self) -> dict[bytes, ScopeCopy]:
        """What is here of earlier writers, of prefixes whose writer is nobody that could be followed."""
        others = self._followers.keys() | {self._self_id}
        return {
            prefix: copy.left
            for prefix, copy in self._copies.items()
            if copy.left is not None and copy.source not in others
        }

    def marks_passed(self, node_id: str, follower: MeshFollowing) -> None:
        """The stream of a writer has come to marks."""
        for prefix, acquired in follower.acquired.items():
            copy = self._copies.get(prefix)
            if copy is not None and copy.source == node_id and acquired.mark.epoch > copy.epoch:
                # It is back there: what comes of it is of that epoch, and what is held is not.
                copy.released = None
                copy.epoch = acquired.mark.epoch
        for prefix, released in follower.released.items():
            copy = self._copies.get(prefix)
            if copy is not None and copy.source == node_id and released.mark.epoch > copy.epoch:
                # Who was ended behind it enters it again, and has written nothing in between.
                is_known = copy.released is not None and copy.released.mark == released.mark
                if not is_known:
                    copy.released = released
        follower.released.clear()

    def forget_all_but(self, prefixes: Collection[bytes]) -> None:
        """No others are copied here."""
        for prefix, copy in tuple(self._copies.items()):
            # What this node has just released may be known before its new owner is; later anything may become of it.
            is_new = copy.source == self._self_id and copy.released is not None and copy.heir is None
            if prefix not in prefixes and not is_new:
                del self._copies[prefix]

    def is_between(self, prefix: bytes) -> bool:
        """Whether a prefix has an owner whose stream is not followed yet, or not since what made it the owner."""
        copy = self._copies.get(prefix)
        return copy is not None and copy.heir is not None

    def released(self, prefix: bytes) -> Released | None:
        """The release of a prefix that its copy has come to, and not beyond; None: there is none."""
        copy = self._copies.get(prefix)
        return None if copy is None else copy.released

    def left(self, prefix: bytes) -> ScopeCopy | None:
        """What is here of a prefix where there is no whole copy of its present writer's; None: nothing whole."""
        copy = self._copies.get(prefix)
        if copy is None:
            return None
        released = copy.released
        if released is not None and released.whole:
            return ScopeCopy(released.at[0], 0, released.mark.epoch)
        return copy.left

    def epoch(self, prefix: bytes) -> int:
        """Since when the writer in whose stream the copy of a prefix is followed, or was last, has been that."""
        copy = self._copies.get(prefix)
        return 0 if copy is None else copy.epoch

    def next_writer(self, prefix: bytes, epoch: int | None) -> str | None:
        """To whom this node, which owns a prefix by the ledger, has released it, which the ledger is yet to say."""
        copy = self._copies.get(prefix)
        if copy is None or copy.released is None or not self._is_leaving(copy, epoch):
            return None
        return copy.released.mark.owner

    @property
    def waits(self) -> bool:
        """Whether any prefix is between two writers."""
        return any(copy.heir is not None for copy in self._copies.values())

    @property
    def listens(self) -> bool:
        """Whether what is heard of a stream may decide from whom a prefix is copied."""
        return any(copy.heir is not None or copy.is_ahead for copy in self._copies.values())

    # -- the choice ---------------------------------------------------------------------------------------------------

    def choose(self, prefix: bytes, owner: str, epoch: int | None) -> Choice:
        """From whom to copy a prefix that is ``owner``'s since ``epoch`` by the ledger; None: that is not known."""
        copy = self._copies.get(prefix)
        if owner == self._self_id:
            if not self._is_leaving(copy, epoch):
                self._settle(prefix, owner, epoch)
            return Choice(owner)
        if copy is None:
            return self._settle(prefix, owner, epoch)
        released = copy.released
        if released is not None and self._continues(prefix, released, copy, owner, epoch):
            self._settle(prefix, released.mark.owner, released.mark.epoch)
            self._copies[prefix].is_ahead = epoch is not None and epoch < released.mark.epoch
            return Choice(released.mark.owner, Manner.ADOPT)
        heir = _heir(copy, owner, epoch)
        copy.is_ahead = not heir.is_told
        if copy.is_ahead and heir.owner != self._self_id and epoch is not None and self._is_lost(prefix, copy):
            return self._settle(prefix, owner, epoch)
        if released is None and heir.owner == copy.source and heir.epoch in (None, copy.epoch):
            copy.since = copy.heir = copy.told = None
            return Choice(heir.owner)
        if heir.owner == self._self_id:
            # As soon as the ledger here says so, too.
            return Choice(NOBODY)
        if self._waits(prefix, copy, heir, epoch):
            # Up to the release what comes from there counts; behind it nothing does.
            return Choice(copy.source if released is None else NOBODY)
        is_same = released is None and heir.owner == copy.source
        self._settle(prefix, heir.owner, heir.epoch)
        return Choice(heir.owner, Manner.RENEW if is_same else Manner.FOLLOW)

    def _is_leaving(self, copy: _Copy | None, epoch: int | None) -> bool:
        """Whether this node, which owns a prefix by the ledger, has released it, which the ledger is yet to say."""
        if copy is None or copy.source != self._self_id or copy.released is None:
            return False
        return epoch is None or copy.released.mark.epoch > epoch

    def _settle(self, prefix: bytes, source: str, epoch: int | None) -> Choice:
        """Copy a prefix from ``source`` from here on: what was said before of its release is over."""
        # What this node writes itself is no copy.
        left = None if source == self._self_id else self._held(prefix, source)
        self._copies[prefix] = _Copy(source, epoch or 0, left)
        return Choice(source)

    def _held(self, prefix: bytes, source: str) -> ScopeCopy | None:
        """What is here of a prefix in whole, whoever wrote it, if ``source`` has nothing to do with it; else None."""
        copy = self._copies.get(prefix)
        if copy is None:
            # What is here of its own stream is followed as it is.
            if source in self._found_copies.get(prefix, {}):
                return None
            best = {
                other: max(found.values(), key=lambda held: held.epoch) for other, found in self._found_copies.items()
            }
            return copy_covering(prefix, best)
        follower = self._followers.get(copy.source)
        is_followed = follower is not None and prefix in follower.prefixes and prefix not in follower.missing
        if follower is None or not is_followed or copy.released is not None:
            return self.left(prefix)
        return ScopeCopy(*follower.place_of(prefix), copy.epoch, follower.ancestors)

    def _continues(self, prefix: bytes, released: Released, copy: _Copy, owner: str, epoch: int | None) -> bool:
        """Whether what is held of a prefix is what its next writer began with, and its stream is known from there."""
        heir = released.mark.owner
        if epoch is None and owner not in (heir, copy.source):
            return False
        follower = self._followers.get(heir)
        acquired = None if follower is None else follower.acquired.get(prefix)
        if follower is None or acquired is None or acquired.at[0] != follower.stream[0]:
            return False
        history, offset = released.at
        mark = acquired.mark
        # Both are of one move: there may have been others before, to and fro.
        return released.whole and mark.epoch == released.mark.epoch and mark.history == history and mark.tail <= offset

    def _waits(self, prefix: bytes, copy: _Copy, heir: _Heir, epoch: int | None) -> bool:
        """Whether to wait for the marks of a move, or for the ledger."""
        now = self._now()
        if (heir.owner, heir.epoch) != copy.heir:
            copy.heir, copy.told = (heir.owner, heir.epoch), None
        if heir.is_told and copy.told is None:
            copy.told = now
        if copy.since is None and (heir.is_told or epoch is None):
            copy.since = now
        if not (self._sets_marks(heir.owner) and self._sets_marks(copy.source)):
            return False
        if copy.released is not None and self._acquired_epoch(heir.owner, prefix) >= copy.released.mark.epoch:
            # It writes there, and did not begin with what is here.
            return False
        if copy.since is None:
            # Who has not acquired it may have nothing to ship. The ledger will say who is to be asked.
            return True
        if now - copy.since >= PATIENCE:
            return False
        return copy.told is None or (
            self._is_held(prefix, copy) and not self._is_over(prefix, copy, heir.owner, copy.told)
        )

    def _is_lost(self, prefix: bytes, copy: _Copy) -> bool:
        """Whether who said in its stream that a prefix is on its way, or is there, has lost that history since.

        If the other side of the move has lost its disk, too, no ledger will ever name it.
        """
        follower = self._followers.get(copy.source)
        if follower is None or not follower.stream[0]:
            return False
        said = follower.acquired.get(prefix) if copy.released is None else copy.released
        return said is not None and said.at[0] not in (
            follower.stream[0],
            *(before for before, _ in follower.ancestors),
        )

    def _is_held(self, prefix: bytes, copy: _Copy) -> bool:
        """Whether what is here of a prefix could be continued at all."""
        if copy.released is not None:
            return copy.released.whole
        source = self._followers.get(copy.source)
        return source is not None and prefix in source.prefixes and prefix not in source.missing

    def _is_over(self, prefix: bytes, copy: _Copy, owner: str, told: float) -> bool:
        """Whether the marks would be here by now: streams go on beyond where they must have been."""
        source, heir = self._followers.get(copy.source), self._followers.get(owner)
        if copy.released is None and source is not None and source.has_heard_all(told):
            return True
        may_continue = copy.released is None and self._acquired_epoch(owner, prefix) >= 0
        return not may_continue and heir is not None and heir.has_heard_all(told)

    def _acquired_epoch(self, node_id: str, prefix: bytes) -> int:
        """The epoch at which a writer's stream has come to the acquisition of a prefix; -1: it has not."""
        follower = self._followers.get(node_id)
        acquired = None if follower is None else follower.acquired.get(prefix)
        return -1 if acquired is None else acquired.mark.epoch

    def _sets_marks(self, node_id: str) -> bool:
        return node_id == self._self_id or (node_id in self._peers and self._peers[node_id].kind != "kevy")


def _heir(copy: _Copy, owner: str, epoch: int | None) -> _Heir:
    """Who writes a prefix next, by its last writer's stream or by the ledger, whichever knows more."""
    released = copy.released
    if released is not None and (owner == copy.source if epoch is None else released.mark.epoch > epoch):
        return _Heir(released.mark.owner, released.mark.epoch, is_told=False)
    if released is None and epoch is not None and epoch < copy.epoch:
        return _Heir(copy.source, copy.epoch, is_told=False)
    return _Heir(owner, epoch, is_told=True)
