"""All that a node knows about copies: of its own data elsewhere, and of another node's data here. No I/O.

As a primary it keeps the backlog, the slots of its replicas and the links to them; as a replica it keeps to the history
of its upstream. Drivers call in: :mod:`sender` for each connection to a replica, :mod:`follower` for the upstream.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal, Protocol

import attrs

from ..errors import ErrorKind
from ..replication_view import UpstreamFacts
from ..store.journal import Effect
from ..store.keyspace import KeyShard
from ..store.store import Store
from .backlog import Backlog, NotABoundary
from .decision import Held, Refuse, Resume, decide
from .handshake import Request
from .lineage import HISTORY_LIMIT, Lineage
from .primary import PrimaryLink, State
from .ships import ShipGate
from .slots import Refusal, Slot, Slots, SyncRecord

__all__ = ["NodeSide", "Refused", "Replication", "ReplicationLog", "ReplicationSettings"]

#: Seconds between two heartbeats.
HEARTBEAT: Final = 1.0
#: Seconds that a replica may take to accept what it is sent, or stay silent though it is asked every second.
SILENCE_DEADLINE: Final = 10.0
# Heartbeats come at least so often, whatever is configured.
_FASTEST: Final = 0.05

_LOADING_LINE: Final = b"-LOADING kevynode is loading the dataset in memory\r\n"
STANDALONE = ErrorKind(
    "ERR",
    "REPLICAOF is not allowed on a standalone node.",
    'Set replication.role to "primary" or "replica" and start the node again.',
)


class ReplicationLog(Protocol):
    """Where decisions go, with the numbers behind them."""

    def info(self, event: str, /, **facts: object) -> None: ...
    def warning(self, event: str, /, **facts: object) -> None: ...


class NodeSide(Protocol):
    """What replication asks of the rest of the node: roles, gates, and waking those who wait."""

    # Whether a replica refuses clients' writes.
    replica_read_only: bool
    # Whether sessions have to remember which keys they wrote (WAIT, while there are filtered replicas).
    tracks_written_keys: bool

    def become_replica(self, read_only: bool) -> None: ...
    def become_primary(self) -> None: ...
    def close_writes(self, reason: str) -> None: ...
    def open_writes(self, reason: str) -> None: ...
    def set_loading(self, loading: bool) -> None: ...
    def set_stale(self, stale: bool) -> None: ...
    def replication_advanced(self) -> None:
        """More of a stream has been applied."""
        ...

    def acknowledged(self) -> None:
        """A replica has told how far it is."""
        ...


class UpstreamSide(Protocol):
    """The running follower, as far as others look at it."""

    @property
    def received_bytes(self) -> int: ...
    @property
    def diverged(self) -> str:
        """Why the data here is not what the upstream's entries should have made of it; empty while it is."""
        ...

    @property
    def lenient(self) -> bool:
        """Whether a kevy server's stream is followed, at first or second hand."""
        ...

    def facts(self, now: float) -> Sequence[UpstreamFacts]: ...
    def position_in(self, history: int) -> int | None:
        """The next offset applied of a history that this node does not adopt (an upstream of several shards)."""
        ...


@attrs.define
class ReplicationSettings:
    """What the configuration says; every value may be changed while the node runs. Sizes in bytes, times in ms."""

    backlog_budget: int = 256 << 20
    reconnect_window_ms: int = 60000
    max_staleness_ms: int = 0
    min_replicas: int = 0
    min_replicas_max_lag_ms: int = 10000
    standalone: bool = False


class Refused(Exception):
    """A replica is turned away: ``reason`` is for the log, ``line`` for the peer (empty: nothing is said)."""

    def __init__(self, reason: str, line: bytes = b"") -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line


class Replication:
    """Replication of one node. Owned by its Trio thread; nothing blocks or checkpoints.

    ``monotonic`` gives seconds. ``random_bits`` gives random numbers of so many bits, for histories.
    """

    def __init__(
        self,
        store: Store,
        node: NodeSide,
        log: ReplicationLog,
        monotonic: Callable[[], float],
        random_bits: Callable[[int], int],
        settings: ReplicationSettings | None = None,
    ) -> None:
        self.settings = settings if settings is not None else ReplicationSettings()
        self.now = monotonic
        self.role: Literal["master", "slave"] = "master"
        self.lineage = Lineage(_new_history(random_bits))
        self.backlog = Backlog(self.settings.backlog_budget, store.journal.offset)
        self.slots = Slots(self.settings.reconnect_window_ms)
        self.links: dict[Slot, PrimaryLink] = {}
        self.full_syncs = self.partial_syncs = self.partial_refused = 0
        self._received_before = 0
        # Entries that replicas had and this node lost: writes beyond a branch.
        self.beyond_branch = 0
        # Whom to follow: replication host and port; None: nobody. on_target is called when it changes.
        self.target: tuple[str, int] | None = None
        self.on_target: Callable[[], None] | None = None
        # Called when a replica has told how far it is, and when this node has become a copy of its upstream.
        self.on_news: Callable[[], None] | None = None
        self.upstream: UpstreamSide | None = None
        self._store = store
        self._journal = store.journal
        self._node = node
        self._log = log
        self._random_bits = random_bits
        self._gate = ShipGate()
        self._shipping: set[PrimaryLink] = set()
        self._closed_links_sent = 0
        # Whether the data here are, or once were, somebody's whole data: before that there is nothing to serve.
        self._has_data = True
        # Whether an upstream's entries could not be applied, and no fresh copy has come since.
        self._diverged = False
        # Whether the running history began with no data at offset 0, so that its entries are all there is.
        self._began_empty = not len(store.keyspace) and store.journal.offset == 0
        self._active = False
        self._beaten = monotonic()

    # -- entries made here ------------------------------------------------------------------------------------------

    def _observe(self, _first: int, group: list[Effect]) -> None:
        self.backlog.add(group, self._journal.origin is None)

    def _activate(self) -> None:
        """Hold the stream from now on: there is a replica."""
        if self._active:
            return
        self._active = True
        self.backlog.budget = self.settings.backlog_budget
        self.backlog.reset(self._journal.offset)
        self.backlog.on_pending = self._wake_links
        if self.role == "master" or self._renumbers:
            self._journal.observers.append(self._observe)

    def _release(self) -> None:
        """Hold nothing: the last replica is gone."""
        if self._active:
            self._active = False
            self._detach()
            self.backlog.on_pending = None
            self.backlog.reset(self._journal.offset)

    def _detach(self) -> None:
        if self._observe in self._journal.observers:
            self._journal.observers.remove(self._observe)

    def _wake_links(self) -> None:
        for link in self.links.values():
            link.wake()

    # -- replicas: the life of a slot and its links -----------------------------------------------------------------

    @property
    def reconnect_window(self) -> float:
        """Seconds that a slot outlives its connection."""
        return self.settings.reconnect_window_ms / 1000

    def recognise(self, request: Request, peer: str) -> Slot:
        """The slot of the replica that asks, a new one if it is new. Raises Refused."""
        if self.settings.standalone:
            raise Refused("this node is standalone")
        found = self.slots.open(request, peer.rpartition(":")[0], self.now())
        if isinstance(found, Refusal):
            raise Refused(found.reason, b"-ERR %b\r\n" % found.reason.encode())
        return found

    def open_link(self, slot: Slot, request: Request) -> PrimaryLink:
        """Begin to serve a replica's connection: resume or snapshot, whatever its cursor allows. Raises Refused."""
        now = self.now()
        if not self._has_data or self._is_diverged():
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
            served=slot.served,
            on_boundary=self._begins_group,
        )
        if isinstance(decision, Refuse):
            self.slots.disconnected(slot, now)
            raise Refused(decision.reason)
        if isinstance(decision, Resume):
            self.partial_syncs += 1
        else:
            if request.history or request.offset:
                self.partial_refused += 1
            if decision.beyond_branch:
                self.beyond_branch += decision.beyond_branch
                self._log.warning("replica_ahead_of_branch", id=slot.replica_id, entries=decision.beyond_branch)
        link = PrimaryLink(request, decision, slot, self, now, self._withheld())
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

    def _is_diverged(self) -> bool:
        return self._diverged or (self.upstream is not None and bool(self.upstream.diverged))

    def _withheld(self) -> frozenset[str]:
        """What this node does not take part in as a primary: a stream passed on from a kevy server has no lineage."""
        passes_on = self.role == "slave" and self.upstream is not None and self.upstream.lenient and not self._renumbers
        return frozenset({"lineage"}) if passes_on else frozenset()

    def _begins_group(self, offset: int) -> bool:
        try:
            self.backlog.cursor(offset)
        except NotABoundary:
            return False
        return True

    def close_link(self, slot: Slot, link: PrimaryLink) -> None:
        """A connection is gone; its replica has the reconnect window to come back."""
        if self.links.get(slot) is link:
            del self.links[slot]
            self._closed_links_sent += link.sent_bytes
            self.slots.disconnected(slot, self.now(), link.number)
        if link in self._shipping:
            self._shipping.discard(link)
            self._gate.broken_off()
            self._wake_links()
        self._track_filters()
        self.judge()

    def forget(self, slot: Slot) -> None:
        """A replica did not come back in time: give up what was kept for it."""
        self.slots.forget(slot)
        if not len(self.slots):
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
            link.close(reason)
            if link.hang_up is not None:
                link.hang_up()

    def _track_filters(self) -> None:
        self._node.tracks_written_keys = any(link.prefixes is not None for link in self.links.values())

    # -- what links take their data from ------------------------------------------------------------------------------

    def freeze(self) -> tuple[list[KeyShard], bool]:
        """The data as of the backlog's next offset, and whether any hash may hold a field with a deadline."""
        if self.backlog.next != self._journal.offset:
            raise RuntimeError(f"backlog at {self.backlog.next}, journal at {self._journal.offset}")
        return self._store.freeze(), bool(self._store.field_deadline_keys)

    def owned_prefixes(self) -> tuple[bytes, ...]:
        """What a filtered link that names no prefixes follows: this node owns none by name."""
        return ()

    def may_ship(self, link: PrimaryLink, now: float) -> bool:
        """Whether a snapshot may start on ``link`` now."""
        return self._gate.may_start(now)

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

    def ship_overrun(self, link: PrimaryLink, now: float) -> None:
        """The backlog could not hold what was written during a ship."""
        self._gate.overrun(now)

    # -- settings that may change -----------------------------------------------------------------------------------

    def set_backlog_budget(self, size: int) -> None:
        """Hold at most so many bytes of the stream, from now on."""
        self.settings.backlog_budget = self.backlog.budget = size

    def require_replicas(self, number: int | None = None, max_lag_ms: int | None = None) -> None:
        """Take writes only while so many replicas have acknowledged within so many milliseconds (0: never mind)."""
        if number is not None:
            self.settings.min_replicas = number
        if max_lag_ms is not None:
            self.settings.min_replicas_max_lag_ms = max_lag_ms
        self.judge()

    # -- time ---------------------------------------------------------------------------------------------------------

    def tick(self) -> float:
        """Beat, look for the silent, judge the gates; seconds until the next call."""
        now = self.now()
        interval = self._interval()
        if now - self._beaten >= interval * 0.99:
            self._beaten = now
            for link in tuple(self.links.values()):
                self._look_at(link, now)
                link.heartbeat()
        self.judge()
        return interval

    def _interval(self) -> float:
        settings = self.settings
        interval = HEARTBEAT
        if settings.min_replicas and settings.min_replicas_max_lag_ms:
            interval = min(interval, settings.min_replicas_max_lag_ms / 3000)
        if settings.max_staleness_ms:
            interval = min(interval, settings.max_staleness_ms / 4000)
        return max(_FASTEST, interval)

    def _look_at(self, link: PrimaryLink, now: float) -> None:
        if link.sending_since is not None and now - link.sending_since > SILENCE_DEADLINE:
            link.close(f"took no byte for {SILENCE_DEADLINE:.0f} s")
        elif link.waits_for_acknowledgements and now - link.heard > SILENCE_DEADLINE:
            link.close(f"silent for {SILENCE_DEADLINE:.0f} s")
        if link.state is State.CLOSED and link.hang_up is not None:
            link.hang_up()

    def judge(self) -> None:
        """Open or shut the gates that depend on replicas and the upstream."""
        settings, node = self.settings, self._node
        wanted = settings.min_replicas if settings.min_replicas_max_lag_ms else 0
        if wanted and self.role == "master" and self.good_replicas() < wanted:
            node.close_writes("noreplicas")
        else:
            node.open_writes("noreplicas")
        node.set_loading(not self._has_data)
        node.set_stale(self.role == "slave" and self._is_stale())

    def _is_stale(self) -> bool:
        limit = self.settings.max_staleness_ms
        if not limit or not self._has_data:
            return False
        ages = [] if self.upstream is None else [facts.staleness_ms for facts in self.upstream.facts(self.now())]
        return not ages or any(age is None or age > limit for age in ages)

    # -- roles --------------------------------------------------------------------------------------------------------

    @property
    def _renumbers(self) -> bool:
        """Whether this replica puts what it applies under a history of its own (an upstream of several shards)."""
        return self.upstream_shards > 1

    upstream_shards = 1

    def follow(self, host: str, port: int) -> bool:
        """Become a replica of that replication address, soon; False if this node follows it already.

        Raises ReplyError on a standalone node.
        """
        if self.settings.standalone:
            raise STANDALONE()
        if self.target == (host, port):
            return False
        if self.role == "master":
            # What a lone node without data has to show is nothing yet.
            self._has_data = bool(len(self._store.keyspace)) or self._journal.offset > 0
            self.role = "slave"
            self._detach()
            self._journal.follows = not self._renumbers
            if self._renumbers and self._active:
                self._journal.observers.append(self._observe)
            self._node.become_replica(self._node.replica_read_only)
        self.target = (host, port)
        self._log.info("follows", host=host, port=port, history=self.lineage.history, offset=self.position)
        self.judge()
        if self.on_target is not None:
            self.on_target()
        return True

    def promote(self) -> None:
        """Become a primary, with what has been applied so far. Does nothing on a primary."""
        if self.role == "master":
            return
        self.target = None
        self.role = "master"
        self._journal.follows = False
        self._branch()
        self._has_data = True
        self._diverged = False
        if self._active and self._observe not in self._journal.observers:
            self._journal.observers.append(self._observe)
        self._node.become_primary()
        self.hang_up("the node has become a primary")
        self.judge()
        if self.on_target is not None:
            self.on_target()

    def _branch(self) -> None:
        """Begin a new history where this one stands."""
        old, offset = self.lineage.history, self.position
        history = _new_history(self._random_bits)
        self.lineage = self.lineage.branch(history, offset)
        self._log.info("promoted", history=history, ancestor=old, offset=offset)

    # -- the stream of the upstream, as the follower tells of it -------------------------------------------------------

    def cursor(self) -> tuple[int, int]:
        """The position to ask an upstream for: history and next offset; (0, 0): no claim."""
        if not self._has_data or self._renumbers or self._diverged:
            return 0, 0
        return self.lineage.history, self.position

    def adopt(
        self,
        history: int,
        offset: int,
        ancestors: tuple[tuple[int, int], ...],
        kind: Literal["full", "partial"],
        reason: str,
    ) -> None:
        """The store holds all before ``offset`` of the upstream's history, which is this node's from now on.

        A ``history`` of 0 means that the upstream tells none: after a full copy this node needs one of its own.
        """
        before = self.lineage.history
        if history:
            self.lineage = Lineage(history, ancestors)
        elif kind == "full":
            self.lineage = Lineage(_new_history(self._random_bits))
        self._has_data = True
        if kind == "full":
            self._diverged = False
            self._start_over()
        elif self.lineage.history != before:
            self.hang_up("the upstream's history has changed")
        self.judge()
        self._node.replication_advanced()
        self._tell_news()

    def swapped(self) -> None:
        """All data has been replaced."""
        if self._renumbers:
            # Nobody has any of the entries that made these data.
            self.lineage = Lineage(_new_history(self._random_bits))
            self._has_data = True
            self._diverged = False
            self._start_over()
            self.judge()
        self._node.replication_advanced()
        self._tell_news()

    def _start_over(self) -> None:
        """Whoever follows this node needs a fresh copy, because it has got one itself."""
        self._began_empty = False
        if self._active:
            self.backlog.reset(self._journal.offset)
        self.hang_up("this node has been synchronised anew")

    def entries_applied(self, first: int, next: int, raw: bytes, grouped: bool) -> None:
        """Entries of the upstream are in the store: pass them on as they came."""
        if self._active and raw:
            self.backlog.add_raw(first, next - first, raw, grouped)
        self._node.replication_advanced()

    def lost(self, reason: str) -> None:
        """The link to the upstream is gone."""
        self.judge()

    def link_changed(self) -> None:
        """The link to the upstream came up, went down, or learned something about staleness."""
        self.judge()

    # -- in short ------------------------------------------------------------------------------------------------------

    @property
    def history(self) -> int:
        """The running history."""
        return self.lineage.history

    @property
    def position(self) -> int:
        """The next offset of it: of the entries made here, or on a replica of those applied."""
        return self._journal.offset

    @property
    def has_data(self) -> bool:
        """Whether there is somebody's whole data here; not on a replica before its first synchronisation."""
        return self._has_data

    @property
    def active(self) -> bool:
        """Whether the backlog is kept: there is, or was lately, a replica."""
        return self._active

    @property
    def sent_bytes(self) -> int:
        """Bytes sent to replicas since the start."""
        return self._closed_links_sent + sum(link.sent_bytes for link in self.links.values())

    @property
    def received_bytes(self) -> int:
        """Bytes received from upstreams since the start."""
        return self._received_before + (0 if self.upstream is None else self.upstream.received_bytes)

    def good_replicas(self) -> int:
        """Replicas that min_replicas_to_write may count on: streaming, and acknowledged lately."""
        return self.slots.good(self.now(), self.settings.min_replicas_max_lag_ms / 1000)

    def set_upstream(self, upstream: UpstreamSide | None) -> None:
        """The follower that runs now; None: none does."""
        if self.upstream is not None:
            self._received_before += self.upstream.received_bytes
            self._diverged = self._is_diverged()
        self.upstream = upstream


def _new_history(random_bits: Callable[[int], int]) -> int:
    while True:
        history = random_bits(HISTORY_LIMIT.bit_length() - 1)
        if history:
            return history
