"""All that a node knows about copies: of its own data elsewhere, and of another node's data here. No I/O.

:class:`Replication` adds to :class:`Replicas` the node's role: whom it follows, how it keeps to the history of its
upstream, and when it goes its own way. The follower's driver calls in; see :mod:`follower`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from ..errors import ErrorKind
from ..store.store import Store
from .lineage import Lineage
from .primary import PrimaryLink, State
from .replicas import Replicas, new_history
from .surroundings import NodeSide, ReplicationLog, ReplicationSettings, UpstreamSide

__all__ = ["SILENCE_DEADLINE", "Replication"]

#: Seconds between two heartbeats.
HEARTBEAT: Final = 1.0
#: Seconds that a replica may take to accept what it is sent, or stay silent though it is asked every second.
SILENCE_DEADLINE: Final = 10.0
# Heartbeats come at least so often, whatever is configured.
_FASTEST: Final = 0.05

STANDALONE = ErrorKind(
    "ERR",
    "REPLICAOF is not allowed on a standalone node.",
    'Set replication.role to "primary" or "replica" and start the node again.',
)


class Replication(Replicas):
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
        super().__init__(
            store, node, log, monotonic, random_bits, settings if settings is not None else ReplicationSettings()
        )
        self.role: Literal["master", "slave"] = "master"
        # Whom to follow: replication host and port; None: nobody. on_target is called when it changes.
        self.target: tuple[str, int] | None = None
        self.on_target: Callable[[], None] | None = None
        # On how many consecutive ports the upstream streams.
        self.upstream_shards = 1
        self.upstream: UpstreamSide | None = None
        # Whether the data here are, or once were, somebody's whole data: before that there is nothing to serve.
        self._has_data = True
        # Whether an upstream's entries could not be applied, and no fresh copy has come since.
        self._diverged = False
        # Until when others may come who followed the same upstream as this node did.
        self._expects_until = monotonic()
        self._received_before = 0
        self._beaten = monotonic()

    # -- what it means for replicas ---------------------------------------------------------------------------------

    def numbers_entries(self) -> bool:
        """Whether entries get their numbers here: not on a copy of one stream, whose entries bring their own."""
        return self.role == "master" or self._renumbers

    def copies_others(self) -> bool:
        """Whether entries of other nodes are applied here under numbers of this node's own."""
        return self.role == "slave" and self._renumbers

    def may_be_copied(self) -> bool:
        """Whether the data here are somebody's whole data, as they ought to be."""
        return self._has_data and not self._is_diverged()

    def _is_diverged(self) -> bool:
        return self._diverged or (self.upstream is not None and bool(self.upstream.diverged))

    def expects_replicas(self) -> bool:
        """Whether somebody may come who went on from what another node streamed.

        That is so on a copy, which may have to take its upstream's place, and for a reconnect window after it has.
        """
        return not self.numbers_entries() or self.now() < self._expects_until

    def withheld(self) -> frozenset[str]:
        """What this node does not take part in as a primary: a stream passed on from a kevy server has no lineage."""
        passes_on = self.role == "slave" and self.upstream is not None and self.upstream.lenient and not self._renumbers
        return frozenset({"lineage"}) if passes_on else frozenset()

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
        # What is not sealed does not count towards the budget, and without a link nobody else seals.
        self.backlog.seal()
        self._release()
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
                self._attach()
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
        self._branch()
        self._journal.follows = False
        self._has_data = True
        self._diverged = False
        self._expects_until = self.now() + self.reconnect_window
        self._detach()
        if self._active:
            self._attach()
        self._node.become_primary()
        self.hang_up("the node has become a primary")
        self.judge()
        if self.on_target is not None:
            self.on_target()

    def _branch(self) -> None:
        """Begin a new history where this one stands."""
        old, offset = self.lineage.history, self.position
        history = new_history(self._random_bits)
        # What was written here beside the stream is in nobody else's copy: nobody can go on from there.
        self.lineage = Lineage(history) if self._journal.outside else self.lineage.branch(history, offset)
        self._began_empty = False
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
            self.lineage = Lineage(new_history(self._random_bits))
        self._has_data = True
        self._activate()
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
            self.lineage = Lineage(new_history(self._random_bits))
            self._has_data = True
            self._diverged = False
            self._start_over()
            self.judge()
        self._node.replication_advanced()
        self._tell_news()

    def _start_over(self) -> None:
        """Whoever follows this node needs a fresh copy, because it has got one itself."""
        self._began_empty = False
        self._journal.outside = False
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
    def has_data(self) -> bool:
        """Whether there is somebody's whole data here; not on a replica before its first synchronisation."""
        return self._has_data

    @property
    def received_bytes(self) -> int:
        """Bytes received from upstreams since the start."""
        return self._received_before + (0 if self.upstream is None else self.upstream.received_bytes)

    def set_upstream(self, upstream: UpstreamSide | None) -> None:
        """The follower that runs now; None: none does."""
        if self.upstream is not None:
            self._received_before += self.upstream.received_bytes
            self._diverged = self._is_diverged()
        self.upstream = upstream
