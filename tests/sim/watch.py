"""Looks into every node while it runs: who takes writes, and what enters the journals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import attrs
import trio
from sim.exposure import Place
from sim.world import Death, Life, World

from kevynode import Node
from kevynode.replicate.lineage import Lineage
from kevynode.scope.ledger_file import load
from kevynode.scope.ledger_records import LedgerState, MoveState
from kevynode.store.journal import Effect
from kevynode.store.marks import MARK_COMMAND

__all__ = ["Watch", "latest_epoch"]

Words = tuple[bytes, ...]

#: Where nodes of a simulation keep their files.
DATA_DIR: Final = "/data"


@attrs.define
class _Counts:
    entries: int = 0
    compared: int = 0
    openings: int = 0


class Watch:
    """Checks at every change of ownership that a prefix has one writer, and at every entry that it is what it ought.

    An entry, which is a history and an offset, is the same wherever it is found; and what a node writes by itself under
    a prefix, it writes while it is the only one who takes writes there.
    """

    def __init__(self, world: World, prefixes: Sequence[bytes]) -> None:
        self.counts = _Counts()
        #: By prefix, who takes writes now, who did so last, and since when a node has after another one did.
        self.writers: dict[bytes, set[str]] = {prefix: set() for prefix in prefixes}
        self.last: dict[bytes, str] = {}
        self.acquired: dict[tuple[str, bytes], float] = {}
        #: Called with each life that opens a prefix.
        self.on_opened: list[Callable[[Life, bytes], object]] = []
        #: The latest epoch at which each prefix was opened that anybody can know of still.
        self.epochs: dict[bytes, int] = {}
        # Those of which no ledger knows any more, but a copy does: they are known as long as it lives.
        self._known_by_copies: set[bytes] = set()
        self._world = world
        self._prefixes = tuple(prefixes)
        # Those that nodes began when they opened for writing, or were promoted.
        self._histories: set[int] = set()
        self._entries: dict[tuple[int, int], Words] = {}
        # What came together where it was made, by the place of each of its entries.
        self._groups: dict[tuple[int, int], list[Effect]] = {}
        # What each history that a node began goes back to.
        self._lineages: dict[int, Lineage] = {}
        # The place in an upstream's history that the group which is committed next comes from, by the node's name.
        self._cursors: dict[str, tuple[int, int]] = {}
        world.on_birth.append(self._born)
        world.on_death.append(self._dead)
        world.on_ready.append(self._ready)

    def _born(self, life: Life) -> None:
        node = life.node
        assert node is not None
        node.store.journal.observers.append(partial(self._entered, life, node))
        note_cursor = node.replication.note_cursor

        def note(upstream: str, history: int, offset: int) -> None:
            self._cursors[life.name] = history, offset
            note_cursor(upstream, history, offset)

        node.replication.note_cursor = note  # type: ignore[method-assign]
        if node.member is not None:
            node.member.ownership.observers.append(partial(self._look, life, node))

    def _dead(self, life: Life, how: Death) -> None:
        for writers in self.writers.values():
            writers.discard(life.name)
        if life.node is not None:
            # A replica that was promoted just now may have told it already, and written nothing.
            self._note_histories(life.node)
        if how == "lose":
            self._forget_epochs([prefix for prefix, epoch in self.epochs.items() if epoch])
        elif self._known_by_copies:
            self._forget_epochs(sorted(self._known_by_copies))

    def _ready(self, life: Life) -> None:
        """A replica goes on with the history that it has, and begins none."""
        assert life.node is not None
        for node in self._world.living().values():
            self._note_histories(node)
        replication = life.node.replication
        if replication.role == "slave" and replication.position and replication.history not in self._histories:
            self._world.fail(f"replicas: {life.name} has begun history {replication.history}, and is a replica")

    def _note_histories(self, node: Node) -> None:
        if node.replication.role == "master":
            lineage = node.replication.lineage
            self._lineages[lineage.history] = lineage
            self._histories.update((lineage.history, *(history for history, _ in lineage.ancestors)))

    def promoted(self, name: str) -> None:
        """A replica has become a primary, and has begun a history."""
        node = self._world.lives[name].node
        if node is not None:
            self._histories.add(node.replication.history)

    # -- ownership ----------------------------------------------------------------------------------------------------

    def _look(self, life: Life, node: Node) -> None:
        if life.dead or node.server.ownership is None or node.member is None:
            return
        for prefix in self._prefixes:
            writers = self.writers[prefix]
            if node.server.ownership.refuse_key(prefix) is not None:
                writers.discard(life.name)
            elif life.name not in writers:
                writers.add(life.name)
                self._opened(life, prefix, node.member.ownership.epoch(prefix))

    def _opened(self, life: Life, prefix: bytes, epoch: int) -> None:
        self.counts.openings += 1
        if self.last.get(prefix, life.name) != life.name:
            self.acquired[life.name, prefix] = trio.current_time()
        self.last[prefix] = life.name
        for told in self.on_opened:
            told(life, prefix)
        self._world.trace.add("watch", f"{life.name} takes writes of {prefix!r} at epoch {epoch}")
        if len(self.writers[prefix]) > 1:
            self._world.fail(f"ownership: {sorted(self.writers[prefix])} take writes of {prefix!r}")
        if epoch < self.epochs.get(prefix, 0):
            self._world.fail(f"ownership: {life.name} opens {prefix!r} at epoch {epoch}, after {self.epochs[prefix]}")
        self.epochs[prefix] = max(epoch, self.epochs.get(prefix, 0))

    # -- what is lost with the last who knows it ----------------------------------------------------------------------

    def _forget_epochs(self, prefixes: Sequence[bytes]) -> None:
        """A node has ended: epochs that no ledger names, in memory or on a disk, and no whole copy are lost with it."""
        ledgers = [self._ledger_of(name) for name in sorted(self._world.disks)]
        for prefix in prefixes:
            self._known_by_copies.discard(prefix)
            epoch = max((latest_epoch(state, prefix) for state in ledgers), default=0)
            if epoch >= self.epochs[prefix]:
                continue
            copied = self._epoch_of_copies(prefix)
            if copied > epoch:
                self._known_by_copies.add(prefix)
            if max(epoch, copied) < self.epochs[prefix]:
                lost, self.epochs[prefix] = self.epochs[prefix], max(epoch, copied)
                self._world.trace.add(
                    "watch", f"nobody knows of epoch {lost} of {prefix!r}: {self.epochs[prefix]} it is"
                )

    def _ledger_of(self, name: str) -> LedgerState:
        """What a node's ledger says: as the node itself would find it if it was started now, on a disk in order."""
        disk = self._world.disks[name].kill()
        disk.make_room()
        disk.read_only(False)
        return load(disk, DATA_DIR).state

    def _epoch_of_copies(self, prefix: bytes) -> int:
        """The latest epoch that the whole copies of living nodes are from."""
        found = [
            copy.epoch
            for node in self._world.living().values()
            if node.member is not None
            and node.member.mesh is not None
            and (copy := node.member.mesh.copy_of(prefix)) is not None
        ]
        return max(found, default=0)

    def _prefix_of(self, key: bytes | None) -> bytes | None:
        return None if key is None else next((prefix for prefix in self._prefixes if key.startswith(prefix)), None)

    # -- entries ------------------------------------------------------------------------------------------------------

    def _entered(self, life: Life, node: Node, first: int, group: list[Effect]) -> None:
        cursor = self._cursors.pop(life.name, None)
        if life.dead:
            return
        backlog = node.replication.backlog
        lowest = backlog.pins.lowest
        if lowest is not None and lowest < backlog.first:
            self._world.fail(
                f"pins: {life.name} has let go of {lowest}, which is pinned, and begins at {backlog.first}"
            )
        journal = node.store.journal
        if journal.origin is not None and not journal.follows:
            if cursor is None or not cursor[0]:
                return
            # It may have been made in an ancestor.
            lineage = self._lineages.get(cursor[0])
            made = cursor[0] if lineage is None else Place(lineage, cursor[1]).history_of(cursor[1] - 1)
            whole = self._groups.get((made, cursor[1] - 1))
            if whole is not None:
                self._compare_part(life, cursor, group, whole)
            else:
                self._compare(life, made, cursor[1] - len(group), group)
        elif journal.follows and group[0][1] is None:
            # All data have been replaced: that is told, and is no entry.
            pass
        elif journal.offset - first == len(group):
            if not journal.follows:
                self._histories.add(node.replication.history)
                self._check_owner(life, node, group)
            self._compare(life, node.replication.history, first, group)
            if len(group) > 1:
                self._groups.update(
                    ((node.replication.history, offset), group) for offset in range(first, journal.offset)
                )

    def _check_owner(self, life: Life, node: Node, group: list[Effect]) -> None:
        for words, key, _ in group:
            prefix = self._prefix_of(key)
            if prefix is None or words[0] == MARK_COMMAND or life.name in self.writers[prefix]:
                continue
            state, detail = _state(node, prefix)
            # Who gets a slice puts it in place before it takes writes, who gets its data back does so, too, and what
            # another node writes now may be cleaned up.
            places = state == "waiting" or (state == "quiesced" and (detail == life.name or _is_closed(node, prefix)))
            # An older move of it may not be settled yet, and keep it quiesced, when a later one has given it away.
            is_given = state == "elsewhere" or (
                state == "quiesced" and node.member is not None and node.member.ownership.owner(prefix) != life.name
            )
            if not places and not (is_given and words[0] == b"DEL"):
                self._world.fail(f"ownership: {life.name} writes {_show(words)}, and {prefix!r} is {state} there")

    def _compare_part(self, life: Life, cursor: tuple[int, int], group: list[Effect], whole: list[Effect]) -> None:
        """Of what came together a copy has what is under the prefixes that it is of: all of that, in its order."""
        if any(key is None for _, key, _ in whole):
            # That everything goes is told key by key in a copy.
            return
        self.counts.compared += len(group)
        for prefix in sorted({self._prefix_of(key) for _, key, _ in group}, key=str):
            part, expected = self._under(group, prefix), self._under(whole, prefix)
            if part != expected:
                self._world.fail(
                    f"replicas: of what came together before {cursor[1]} of history {cursor[0]} {life.name} has "
                    f"{part} under {prefix!r}, and it was {expected}"
                )

    def _under(self, group: list[Effect], prefix: bytes | None) -> list[str]:
        return [_show(words) for words, key, _ in group if self._prefix_of(key) == prefix]

    def _compare(self, life: Life, history: int, first: int, group: list[Effect]) -> None:
        self.counts.entries += len(group)
        for offset, effect in enumerate(group, first):
            words = tuple(effect[0])
            known = self._entries.setdefault((history, offset), words)
            if known is words:
                continue
            self.counts.compared += 1
            if known != words:
                self._world.fail(
                    f"replicas: entry {offset} of history {history} is {_show(words)} at {life.name}, and "
                    f"{_show(known)} elsewhere"
                )


def latest_epoch(state: LedgerState, prefix: bytes) -> int:
    """The latest epoch at which a prefix can have been opened, by what a ledger knows: of owners, and of moves.

    An epoch that was agreed to is none of these yet: it counts from the decision on.
    """
    decided = [
        record.epoch
        for record in state.moves.values()
        if record.prefix == prefix and (record.decided is MoveState.FLIPPED or record.state is MoveState.ACTIVATED)
    ]
    return max([state.ledger.epoch(prefix), *decided])


def _state(node: Node, prefix: bytes) -> tuple[str, str]:
    if node.member is None:
        return "open", ""
    return next((row.state, row.detail) for row in node.member.ownership.declared() if row.prefix == prefix)


def _is_closed(node: Node, prefix: bytes) -> bool:
    """Whether a node that is in a move waits for its data as well."""
    return node.member is not None and node.member.ownership._find(prefix).waits_for is not None


def _show(words: Sequence[bytes]) -> str:
    return b" ".join(words).decode("utf-8", "backslashreplace")[:80]
