"""What a node holds of each scope as far as that may be given to others, or taken for lost: who else may need it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from .config_values import split_address
from .replicate.mesh import Mesh, ScopeCopy
from .replicate.replication import Replication
from .replicate.scope_cursors import copy_covering, found_best
from .scope.copies import HeldCopy
from .scope.keeper import ScopeKeeper
from .scope.ledger_records import LedgerState
from .scope.opening import lacks_data
from .scope.tails import given_away
from .store.store import Store

__all__ = ["MemberCopies"]


class MemberCopies:
    """The copies of one node, and what it wrote itself. ``wants`` says of what others write whether it is copied."""

    def __init__(
        self, keeper: ScopeKeeper, replication: Replication, store: Store, wants: Callable[[bytes], bool]
    ) -> None:
        #: Set once the data are loaded.
        self.mesh: Mesh | None = None
        self._keeper = keeper
        self._ownership = keeper.ownership
        self._node_id = keeper.settings.node_id
        self._replication = replication
        self._store = store
        self._wants = wants
        # How many keys there were under each declared prefix when that was last counted for all of them.
        self._counts: dict[bytes, int] = {}
        # By prefix, the copy that the files said is here at the start, until something else takes its place.
        self._found: dict[bytes, ScopeCopy] = {}

    # -- at the start --------------------------------------------------------------------------------------------------

    def lacking(self, state: LedgerState, *, has_loaded: bool) -> Iterable[bytes]:
        """The declared prefixes whose data must be taken for lost."""
        self._counts = self._count(scope.prefix for scope in self._ownership.table)
        return [
            prefix
            for prefix, keys in self._counts.items()
            if lacks_data(keys, was_opened=prefix in state.opened, has_loaded=has_loaded)
        ]

    def before(self, state: LedgerState) -> Mapping[bytes, HeldCopy]:
        """Which copies of what other nodes wrote the files said are here, of prefixes that no move made this node's.

        Behind :meth:`lacking`, in the same step: there may be many keys, and they are counted once.
        """
        found = found_best(self._replication.found_scopes)
        self._found = {
            scope.prefix: copy
            for scope in self._ownership.table
            if (copy := copy_covering(scope.prefix, found)) is not None
            and (scope.prefix not in state.opened or state.ledger.entry(scope.prefix) is None)
        }
        return _held(self._found, self._counts)

    # -- while the node runs -------------------------------------------------------------------------------------------

    def kept(self) -> Mapping[bytes, ScopeCopy]:
        """What the files said is here as a copy, and still is, of prefixes that nobody is followed for.

        Others write it, and no copy is wanted; or it has become this node's by another declaration, and is not open.
        """
        ownership = self._ownership
        if self._replication.role != "master":
            # All data are about to be another node's.
            self._found.clear()
        return {
            prefix: copy
            for prefix, copy in self._found.items()
            if (ownership.is_closed(prefix) if ownership.owner(prefix) == self._node_id else not self._wants(prefix))
        }

    def replaced(self, prefix: bytes) -> None:
        """What is here of a prefix is about to be something else."""
        self._found.pop(prefix, None)

    def held(self, copies: Mapping[bytes, ScopeCopy]) -> dict[bytes, HeldCopy]:
        """Copies of declared prefixes, with the number of their keys."""
        return _held(copies, self._count(copies))

    def _count(self, prefixes: Iterable[bytes]) -> dict[bytes, int]:
        """How many keys there are under each of some declared prefixes. Walks all keys."""
        counts = dict.fromkeys(prefixes, 0)
        prefix_of = self._ownership.prefix_of
        for shard in self._store.keyspace.shards() if counts else ():
            for key in shard:
                prefix = prefix_of(key)
                if prefix in counts:
                    counts[prefix] += 1
        return counts

    def of(self, prefix: bytes) -> ScopeCopy | None:
        """What the copy of a declared prefix here stands for; None: it is not whole."""
        if self._replication.role != "master":
            return self._replicated(prefix)
        copy = None if self.mesh is None else self.mesh.copy_of(prefix)
        return copy or self._given_away(prefix) or self._written(prefix)

    def _replicated(self, prefix: bytes) -> ScopeCopy | None:
        """A plain replica has all that the node has which it follows."""
        replication, ownership = self._replication, self._ownership
        owner = ownership.owner(prefix)
        followed = any(
            node.node_id == owner and split_address(node.replication) == replication.target
            for node in self._keeper.settings.nodes
        )
        if not followed or not replication.may_be_copied():
            return None
        lineage = replication.lineage
        return ScopeCopy(lineage.history, replication.position, ownership.epoch(prefix), lineage.ancestors)

    def _given_away(self, prefix: bytes) -> ScopeCopy | None:
        """What a prefix of this node stands for that is the next owner's already, which the ledger is yet to say.

        It is all that the next owner began with, in case that one has lost it.
        """
        if not self._wants(prefix) or self._keeper.opening.lacks(prefix):
            # It will be dropped, or is not here.
            return None
        epoch = given_away(prefix, self._keeper.state)
        return None if epoch is None else ScopeCopy(self._replication.history, 0, epoch)

    def _written(self, prefix: bytes) -> ScopeCopy | None:
        """What a prefix stands for that this node wrote until another one was declared its writer, here or there.

        Nothing was moved by that, so it may be the best that there is; until a ship has taken its place. It may have
        been cut out of a scope that this node wrote.
        """
        state = self._keeper.state
        if state.ledger.entry(prefix) is not None or self._keeper.opening.lacks(prefix):
            return None
        if not any(prefix.startswith(other) and state.ledger.entry(other) is None for other in state.opened):
            return None
        is_own = self._ownership.owner(prefix) == self._node_id
        if not is_own and self.mesh is not None and self.mesh.was_copied(prefix):
            return None
        lineage = self._replication.lineage
        return ScopeCopy(lineage.history, self._replication.position, 0, lineage.ancestors)


def _held(copies: Mapping[bytes, ScopeCopy], counts: Mapping[bytes, int]) -> dict[bytes, HeldCopy]:
    return {
        prefix: HeldCopy(copy.history, copy.offset, counts[prefix], copy.epoch, copy.ancestors)
        for prefix, copy in copies.items()
    }
