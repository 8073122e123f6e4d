"""The primary's side of a node: who copies it, from where in the stream, and what is kept for them. No I/O.

It holds the backlog, the slots of the replicas and the links to them. Drivers call in for each connection; see
:mod:`sender`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final, Literal

from ..store.journal import Effect
from ..store.keyspace import KeyShard
from ..store.marks import Mark
from ..store.store import Store
from .backlog import Backlog
from .decision import Held, Refuse, Resume, Snapshot, decide
from .handshake import Request
from .lineage import HISTORY_LIMIT, Lineage
from .primary import PrimaryLink
from .released import ReleasedPrefixes
from .ships import ShipGate
from .slots import Refusal, Slot, Slots, SyncRecord
from .surroundings import FilesSide, NodeSide, OwnedPrefixes, Refused, ReplicationLog, ReplicationSettings

__all__ = ["Replicas", "new_history"]

# Bytes of a refusal that the peer is told; its id may be long.
_REFUSAL_LIMIT: Final = 1000
_LOADING_LINE: Final = b"-LOADING kevynode is loading the dataset in memory\r\n"
_OWN_WRITES: Final = "this replica has taken writes of its own: a copy of it would not be what its history says"


class Replicas(ABC):
    """The part of :class:`Replication` that serves replicas, whatever the node's own role is."""

    def __init__(
        self,
        store: Store,
        node: NodeSide,
        log: ReplicationLog,
        monotonic: Callable[[], float],
        random_bits: Callable[[int], int],
        settings: ReplicationSettings,
    ) -> None:
        self.settings = settings
        self.now = monotonic
        self.lineage = Lineage(new_history(random_bits))
        self.backlog = Backlog(settings.backlog_budget, store.journal.offset)
        self.slots = Slots(settings.reconnect_window_ms)
        self.links: dict[Slot, PrimaryLink] = {}
        self.full_syncs = self.partial_syncs = self.partial_refused = 0
        # Entries that replicas had and this node lost: writes beyond a branch.
        self.beyond_branch = 0
        # Called when a replica has told how far it is, and when this node has become a copy of its upstream.
        self.on_news: Callable[[], None] | None = None
        # The node's files, which entries go to before they go to replicas; None: nothing waits for files.
        self.files: FilesSide | None = None
        # Who writes what; None: no scopes are declared.
        self.ownership: OwnedPrefixes | None = None
        # Whether what is here under a prefix is nothing to give to others: it is this node's and has yet to be restored
        # from a copy, or it is a copy that is not whole.
        self.is_withheld: Callable[[bytes], bool] | None = None
        # Whether another node writes a prefix, as far as this one knows; None: there are no such prefixes.
        self.is_elsewhere: Callable[[bytes], bool] | None = None
        # Where this node has released prefixes that it has not acquired again.
        self._released = ReleasedPrefixes()
        # By the name of their cursors, the copies that the files know of and that are none any more.
        self._void_cursors: tuple[str, ...] = ()
        # Whether what the files hold is still being loaded: until then there is nothing to copy.
        self.loading = False
        # What this node calls itself as a replica; empty: nothing yet.
        self.own_replica_id = ""
        self._store = store
        self._journal = store.journal
        self._node = node
        self._log = log
        self._random_bits = random_bits
        self._gate = ShipGate()
        self._shipping: set[PrimaryLink] = set()
        self._closed_links_sent = 0
        # Whether the running history began with no data at offset 0, so that its entries are all there is.
        self._began_empty = not len(store.keyspace) and store.journal.offset == 0
        self._active = False

    # -- what the node's own role says ------------------------------------------------------------------------------

    @abstractmethod
    def numbers_entries(self) -> bool:
        """Whether entries get their numbers here, and enter the backlog through the journal."""

    @abstractmethod
    def copies_others(self) -> bool:
        """Whether entries of other nodes are applied here under numbers of this node's own."""

    @abstractmethod
    def may_be_copied(self) -> bool:
        """Whether the data here are somebody's whole data, as they ought to be."""

    @abstractmethod
    def expects_replicas(self) -> bool:
        """Whether somebody may come who went on from what another node streamed."""

    @abstractmethod
    def withheld(self) -> frozenset[str]:
        """Capabilities that this node does not take part in as a primary now."""

    @abstractmethod
    def judge(self) -> None:
        """Open or shut the gates that depend on replicas and the upstream."""

    # -- entries made here ------------------------------------------------------------------------------------------

    def _observe(self, first: int, group: list[Effect]) -> None:
        """Take what is applied here under numbers of this node's own, beside what it makes itself."""
        if self._journal.origin is None:
            self.backlog.observe(first, group)
        else:
            self.backlog.add(group, own=False)

    def _attach(self) -> None:
        """Have the journal's entries enter the backlog."""
        observers = self._journal.observers
        if self.backlog.observe not in observers and self._observe not in observers:
            # A primary without scopes makes all its entries itself, and need not look at each one's origin.
            observers.append(self._observe if self.copies_others() else self.backlog.observe)

    def _activate(self) -> None:
        """Hold the stream from now on: there is a replica, or this is one and may have to take its upstream's place."""
        if self._active:
            return
        self.backlog.budget = self.settings.backlog_budget
        self.backlog.reset(self._journal.offset)
        self._hold()

    def _hold(self) -> None:
        """Let the stream enter the backlog from where that ends."""
        self._active = True
        self.backlog.on_pending = self._wake_links
        if self.numbers_entries():
            self._attach()

    def _release(self) -> None:
        """Hold nothing: the last replica is gone, and nobody is expected."""
        if self._active and not len(self.slots) and not self.expects_replicas():
            self._active = False
            self._detach()
            self.backlog.on_pending = None
            self.backlog.reset(self._journal.offset)

    def _detach(self) -> None:
        for observer in (self._observe, self.backlog.observe):
            if observer in self._journal.observers:
                self._journal.observers.remove(observer)

    def _wake_links(self) -> None:
        for link in self.links.values():
            link.wake()

    def may_ship_again(self) -> None:
        """What replicas could not be told because of the files they may be told now."""
        self._wake_links()

    # -- replicas: the life of a slot and its links -----------------------------------------------------------------

    @property
    def reconnect_window(self) -> float:
        """Seconds that a slot outlives its connection."""
        return self.settings.reconnect_window_ms / 1000

    def recognise(self, request: Request, peer: str) -> Slot:
        """The slot of the replica that asks, a new one if it is new. Raises Refused."""
        if self.settings.standalone:
            raise Refused("this node is standalone")
        if request.replica_id == self.own_replica_id:
            raise Refused("a node cannot follow itself", b"-ERR a node cannot follow itself\r\n")
        found = self.slots.open(request, peer.rpartition(":")[0], self.now())
        if isinstance(found, Refusal):
            raise Refused(found.reason, b"-ERR %b\r\n" % found.reason.encode()[:_REFUSAL_LIMIT])
        return found

    def open_link(self, slot: Slot, request: Request) -> PrimaryLink:
        """Begin to serve a replica's connection: resume or snapshot, whatever its cursor allows. Raises Refused."""
        now = self.now()
        if not self.may_be_copied():
            self.slots.disconnected(slot, now)
            raise Refused("this node has no good data yet", _LOADING_LINE)
        backlog = self.backlog
        self._activate()
        backlog.seal()
        decision = decide(
            request,
            self.lineage,
            next_offset=backlog.next,
            held=Held(backlog.first, backlog.next, self._began_empty),
            served=slot.served if request.offset >= slot.served_from else None,
            on_boundary=backlog.on_boundary,
        )
        if isinstance(decision, Refuse):
            self.slots.disconnected(slot, now)
            raise Refused(decision.reason)
        if isinstance(decision, Snapshot) and self._holds_own_writes():
            # It would carry what no entry says, under the name of a history that other copies have without it.
            self.slots.disconnected(slot, now)
            raise Refused(_OWN_WRITES, b"-ERR %b\r\n" % _OWN_WRITES.encode())
        if isinstance(decision, Resume):
            self.partial_syncs += 1
        else:
            if request.history or request.offset:
                self.partial_refused += 1
            if decision.beyond_branch:
                self.beyond_branch += decision.beyond_branch
                self._log.warning("replica_ahead_of_branch", id=slot.replica_id, entries=decision.beyond_branch)
        link = PrimaryLink(request, decision, slot, self, now, self.withheld())
        self.links[slot] = link
        if isinstance(decision, Resume):
            slot.last_sync = SyncRecord("partial", decision.reason, now, 0.0)
        self._log.info(
            "replica_connected",
            id=slot.replica_id,
            address=slot.address,
            sync="partial" if isinstance(decision, Resume) else "full",
            reason=decision.reason,
        )
        self._track_filters()
        self.judge()
        return link

    def close_link(self, slot: Slot, link: PrimaryLink) -> None:
        """A connection is gone; its replica has the reconnect window to come back."""
        if self.links.get(slot) is link:
            del self.links[slot]
            self._closed_links_sent += link.sent_bytes
            self.slots.disconnected(slot, self.now(), link.number)
        if link in self._shipping:
            self._shipping.discard(link)
            self._gate.broken_off()
            record = slot.last_sync
            if record is not None:
                # It lasted until now, and came to nothing.
                record.duration = self.now() - record.started
            self._wake_links()
        self._track_filters()
        self.judge()

    def forget(self, slot: Slot) -> None:
        """A replica did not come back in time: give up what was kept for it."""
        self.slots.forget(slot)
        self._track_filters()
        self._release()

    def heard(self, slot: Slot, link: PrimaryLink, data: bytes) -> None:
        """Bytes from a replica."""
        now = self.now()
        offset = link.receive(data, now)
        if offset is None:
            return
        if self.slots.acknowledge(slot, self.lineage.history, offset, now, self.position):
            link.acknowledged(offset)
            self.judge()
            self._node.acknowledged()
            self._tell_news()

    def _tell_news(self) -> None:
        if self.on_news is not None:
            self.on_news()

    def take(self, link: PrimaryLink) -> list[bytes]:
        """What to send next on a link."""
        return link.take(self.now())

    def hang_up(self, reason: str) -> None:
        """End every link: what their replicas stand on has changed, so each is decided afresh when it comes back."""
        for link in tuple(self.links.values()):
            self._end(link, reason)

    @staticmethod
    def _end(link: PrimaryLink, reason: str) -> None:
        link.close(reason)
        if link.hang_up is not None:
            link.hang_up()

    def _track_filters(self) -> None:
        # Also while such a replica is away, or expected: it has to count for what is written meanwhile.
        filtered = any(slot.prefixes is not None for slot in self.slots)
        self._node.tracks_written_keys = filtered or self.ownership is not None

    # -- what links take their data from ------------------------------------------------------------------------------

    def freeze(self) -> tuple[list[KeyShard], bool]:
        """The data as of the backlog's next offset, and whether any hash may hold a field with a deadline."""
        if self.backlog.next != self._journal.offset:
            raise RuntimeError(f"backlog at {self.backlog.next}, journal at {self._journal.offset}")
        return self._store.freeze(), bool(self._store.field_deadline_keys)

    def may_tell(self) -> bool:
        """Whether all that has been committed, and the lineage, may leave this node now."""
        return self.files is None or self.files.may_ship()

    def owned_prefixes(self) -> tuple[bytes, ...]:
        """What a filtered link that names no prefixes follows: every one that this node owns."""
        return () if self.ownership is None else self.ownership.owned()

    def epoch(self, prefix: bytes) -> int:
        """The epoch that this node knows a prefix to be owned in; 0: no move made its owner one."""
        try:
            return 0 if self.ownership is None else self.ownership.epoch(prefix)
        except KeyError:
            # A part of a scope, or none.
            return 0

    def released_before(self, offset: int) -> list[bytes]:
        """The prefixes that this node released by a mark before ``offset``, and has not acquired again."""
        return self._released.before(offset)

    def mark(self, mark: Mark) -> int:
        """Enter a mark into the journal, as an entry of its own; its offset. Not in the midst of a command.

        What is written under a prefix behind the mark that releases it goes to no follower of scopes: so a slice can
        be cleaned up where it was, and the copies of it stay.
        """
        offset = self._journal.offset
        command = mark.command()
        self._store.emit(command, command[1])
        self._store.commit()
        self._released.passed(mark, offset)
        if self.files is not None:
            self._released.note(mark, self.lineage.history, self.files.cursor_moved)
        return offset

    # -- what the files say of upstreams ------------------------------------------------------------------------------

    def note_cursor(self, upstream: str, history: int, offset: int) -> None:
        """The group that is committed next brings a renumbered upstream to this offset of its history."""
        if self.files is not None:
            self.files.note_cursor(upstream, history, offset)

    def cursor_moved(self, upstream: str, history: int, offset: int) -> None:
        """A renumbered upstream is at this offset of its history, and no entry says so; 0 and 0: forget it."""
        if self.files is not None:
            self.files.cursor_moved(upstream, history, offset)

    def forget_void_cursors(self) -> None:
        """Tell the files which copies that they know of are none any more. When they have been loaded."""
        void, self._void_cursors = self._void_cursors, ()
        for name in sorted(void):
            self.cursor_moved(name, 0, 0)

    # -- who owns what ------------------------------------------------------------------------------------------------

    def ownership_changed(self) -> None:
        """This node owns other prefixes than before, or more of them are good to be given to others.

        Those who follow all of them are to say so again; those who wait for a ship may get it.
        """
        owned = self.owned_prefixes()
        for link in tuple(self.links.values()):
            if link.coverage.carries_owned and link.coverage.prefixes != owned:
                self._end(link, "this node owns other prefixes than before")
        self._wake_links()

    def may_ship(self, link: PrimaryLink, now: float, prefixes: tuple[bytes, ...] | None) -> bool:
        """Whether a snapshot of ``prefixes`` may start on ``link`` now; if it never may, the link is closed.

        Whoever follows a scope keeps the copy that it has until there is good data of it here; so does who follows
        everything (None), until there is of all that this node owns. Copies of others' scopes go to nobody but to who
        gets his own data back.
        """
        if self._holds_own_writes():
            link.close(_OWN_WRITES)
            return False
        concerned = self.owned_prefixes() if prefixes is None else prefixes
        if self.is_withheld is not None and any(map(self.is_withheld, concerned)):
            return False
        if self.is_elsewhere is not None and not link.request.is_restoring and any(map(self.is_elsewhere, concerned)):
            # One of the two does not know who writes it. If it is this one, what is here is older than what is there.
            return False
        return self._gate.may_start(now)

    def _holds_own_writes(self) -> bool:
        """Whether a copy has been written to beside the stream it follows.

        What has expired here by itself, as it must on a copy of a kevy server, is no such write.
        """
        return self._journal.outside and not self.numbers_entries() and not self.withheld()

    def ship_started(self, link: PrimaryLink, kind: Literal["full", "scope"], reason: str, now: float) -> None:
        """A snapshot starts."""
        self._gate.started()
        self._shipping.add(link)
        if kind == "full":
            self.full_syncs += 1
        link.slot.last_sync = SyncRecord(kind, reason, now)

    def ship_ended(self, link: PrimaryLink, size: int, now: float) -> None:
        """A snapshot is complete, ``size`` bytes of it."""
        self._shipping.discard(link)
        self._gate.finished()
        record = link.slot.last_sync
        if record is not None:
            record.duration, record.size = now - record.started, size
        self._log.info("replica_synced", id=link.slot.replica_id, bytes=size)
        self._wake_links()
        self.judge()

    def ship_caught_up(self, link: PrimaryLink) -> None:
        """What was written during a ship has gone out, too."""
        self._gate.caught_up()

    def ship_overrun(self, link: PrimaryLink, now: float) -> None:
        """The backlog could not hold what was written during a ship."""
        self._gate.overrun(now)

    # -- in short ---------------------------------------------------------------------------------------------------

    @property
    def position(self) -> int:
        """The next offset of it: of the entries made here, or on a replica of those applied."""
        return self._journal.offset

    @property
    def active(self) -> bool:
        """Whether the backlog is kept: there is, or was lately, a replica."""
        return self._active

    @property
    def sent_bytes(self) -> int:
        """Bytes sent to replicas since the start."""
        return self._closed_links_sent + sum(link.sent_bytes for link in self.links.values())

    def good_replicas(self) -> int:
        """Replicas that min_replicas_to_write may count on: streaming, and acknowledged lately."""
        return self.slots.good(self.now(), self.settings.min_replicas_max_lag_ms / 1000)


def new_history(random_bits: Callable[[int], int]) -> int:
    """A random history; ``random_bits`` gives random numbers of so many bits."""
    while True:
        history = random_bits(HISTORY_LIMIT.bit_length() - 1)
        if history:
            return history
