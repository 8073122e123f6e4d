"""All that a node knows about copies: of its own data elsewhere, and of another node's data here. No I/O.

:class:`Replication` adds to :class:`Replicas` the node's role: whom it follows, how it keeps to the history of its
upstream, and when it goes its own way. The follower's driver calls in; see :mod:`follower`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, Literal

from ..errors import LOADING, ErrorKind
from ..store.marks import MARK_COMMAND, parse_mark
from ..store.store import Store
from . import wire
from .block import FLUSHES
from .lineage import Lineage
from .primary import PrimaryLink
from .primary_states import State
from .replicas import Replicas, new_history
from .surroundings import MeshSide, NodeSide, OwnedPrefixes, ReplicationLog, ReplicationSettings, UpstreamSide

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
        # The copies of other writers' scopes; None: there are none.
        self.mesh: MeshSide | None = None
        # Where those copies stood in the data that were found at the start; see scope_cursors.
        self.found_scopes: dict[str, tuple[int, int]] = {}
        # Whether the data here are, or once were, somebody's whole data: before that there is nothing to serve.
        self._has_data = True
        # Whether an upstream's entries could not be applied, and no fresh copy has come since.
        self._diverged = False
        # Where the upstreams of the data that were found at the start are to be asked to go on, if they renumber.
        self._found_cursors: dict[str, tuple[int, int]] = {}
        # What this node did not take part in as a primary when it last heard from its upstream.
        self._was_withheld: frozenset[str] = frozenset()
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
        return self.ownership is not None if self.role == "master" else self._renumbers

    def set_ownership(self, ownership: OwnedPrefixes) -> None:
        """Let ``ownership`` say which prefixes this node writes; others' may be copied here from now on.

        Before data are loaded. Call :meth:`ownership_changed` whenever it says something else.
        """
        self.ownership = ownership
        self._track_filters()
        if self._active and self.numbers_entries():
            self._detach()
            self._attach()

    def may_be_copied(self) -> bool:
        """Whether the data here are somebody's whole data, as they ought to be."""
        return self._has_data and not self.loading and not self._is_diverged()

    def _is_diverged(self) -> bool:
        return self._diverged or (self.upstream is not None and bool(self.upstream.diverged))

    def expects_replicas(self) -> bool:
        """Whether somebody may come who went on from what another node streamed.

        That is so on a copy, which may have to take its upstream's place, and for a reconnect window after it has, or
        after the start.
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
            if self.ownership is not None and self.files is not None:
                # Whose copies these were is of no account any more.
                self.files.forget_cursors()
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
        """Become a primary, with what has been applied so far. Does nothing on a primary.

        Raises ReplyError while data are being loaded: what there is then is no state that this node ever had.
        """
        if self.role == "master":
            return
        if self.loading:
            raise LOADING()
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
        self._continue_as(self._branched(self.lineage, offset, self._journal.outside))
        self._forget_upstreams()
        self._began_empty = self._journal.outside = False
        self._log.info("promoted", history=self.lineage.history, ancestor=old, offset=offset)

    def _branched(self, lineage: Lineage, offset: int, outside: bool) -> Lineage:
        """A lineage of a new history that leaves ``lineage`` at ``offset``.

        What was written here beside the stream (``outside``) is in nobody else's copy: nobody can go on from there.
        """
        history = lineage.history
        while lineage.shared(history) is not None:
            history = new_history(self._random_bits)
        return Lineage(history) if outside else lineage.branch(history, offset)

    def _continue_as(self, lineage: Lineage) -> None:
        """The next entry belongs to ``lineage``, and all data stay what they are."""
        if lineage != self.lineage:
            self.lineage = lineage
            if self.files is not None:
                self.files.note_lineage(lineage)

    def _forget_upstreams(self) -> None:
        """What has been applied of renumbered streams says no more where they are to go on."""
        self._found_cursors = {}
        if self._renumbers and self.files is not None:
            self.files.forget_cursors()

    # -- what the files hold, at the start -----------------------------------------------------------------------------

    def restore_entries(
        self, first: int, commands: Sequence[Sequence[bytes]], next: int, grouped: bool, own: bool
    ) -> None:
        """Entries from ``first`` up to ``next`` are in the files: hold them for replicas, as far as the budget allows.

        To be called in their order while ``loading``. ``grouped``: they are one group, otherwise each is one by itself.
        ``own``: no upstream made them.
        """
        backlog, count = self.backlog, len(commands)
        if own and next - first == count:
            for offset, command in enumerate(commands, first):
                mark = parse_mark(command) if command[0] == MARK_COMMAND else None
                if mark is not None:
                    self._released.passed(mark, offset)
        if self.settings.standalone or first == next:
            # What took no number was written beside the stream, and replicas never get it.
            return
        if first != backlog.next:
            backlog.reset(first)
        if next - first != count:
            # They stand for entries that came in other words.
            backlog.reset(next)
            return
        # On a copy of one stream its entries count as its own.
        own = own or not (self._renumbers or self.ownership is not None)
        if grouped:
            backlog.add([(command, None, ()) for command in commands], own)
        else:
            may_flush = any(command[0].upper() in FLUSHES for command in commands)
            backlog.add_raw(first, count, wire.encode_frames(first, commands), own=own, may_flush=may_flush)
        backlog.seal()

    def restored(
        self, lineage: Lineage | None, offset: int, cursors: Mapping[str, tuple[int, int]], local: bool, opens: bool
    ) -> Lineage:
        """All data have been loaded; the lineage from now on, which the files are to be told by the caller.

        ``lineage`` and next ``offset`` are the data's; None: nothing was found. ``cursors``: where renumbered upstreams
        stand. ``local``: some of it was written beside the stream that it is a copy of. ``opens``: the node takes
        writes from here on, so it begins a new history; otherwise it goes on as a copy. Replicas are expected for a
        reconnect window. To be called once, before any link or follower runs; then ``loading`` is to be set to False.
        """
        journal, backlog = self._journal, self.backlog
        journal.offset = offset
        if backlog.next != offset:
            backlog.reset(offset)
        self._began_empty = lineage is None and offset == 0 and not len(self._store.keyspace)
        self._has_data = self.role == "master" or bool(len(self._store.keyspace)) or offset > 0
        if lineage is None:
            backlog.reset(offset)
        else:
            # Where entries are numbered here a number may have been given, and told, and lost again.
            branches = opens or self._renumbers
            self.lineage = self._branched(lineage, offset, local) if branches else lineage
            journal.outside = local and not branches
            found = self._released.find(cursors)
            self._found_cursors = {} if opens else found
            # Where no scopes are declared clients may write what was a copy, and so may they beside a stream.
            self.found_scopes = found if opens and self.ownership is not None and not local else {}
            self._void_cursors = tuple(found.keys() - self.found_scopes.keys()) if opens else ()
            self._expects_until = self.now() + self.reconnect_window
            if not self.settings.standalone:
                self._hold()
            self._log.info(
                "restored",
                history=self.lineage.history,
                ancestor=lineage.history if branches else 0,
                offset=offset,
                held_from=backlog.first,
            )
        self.judge()
        return self.lineage

    def cursors_of(self, upstreams: Collection[str]) -> Mapping[str, tuple[int, int]]:
        """Where these streams are to go on, if the data found at the start come from exactly them; empty otherwise.

        They are told once: from then on whoever asked knows better.
        """
        found, self._found_cursors = self._found_cursors, {}
        whole = found.keys() == set(upstreams) and all(history for history, _ in found.values())
        return found if whole else {}

    def diverged(self) -> None:
        """The data are about to be something that no upstream's history says: nobody is to go on from them."""
        if self._renumbers:
            self._forget_upstreams()
        elif self.files is not None:
            self.files.note_lineage(Lineage(new_history(self._random_bits)))

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
        withheld, self._was_withheld = self._was_withheld, self.withheld()
        self._has_data = True
        if kind == "full":
            self.lineage = Lineage(history, ancestors) if history else Lineage(new_history(self._random_bits))
            self._start_over({})
        elif history:
            self._continue_as(Lineage(history, ancestors))
        self._activate()
        if kind == "partial" and (self.lineage.history != before or self._was_withheld != withheld):
            self.hang_up("the upstream's history has changed")
        self.judge()
        self._node.replication_advanced()
        self._tell_news()

    def swapped(self, cursors: Mapping[str, tuple[int, int]]) -> None:
        """All data has been replaced. ``cursors``: where upstreams whose entries are renumbered here stand."""
        if self._renumbers:
            # Nobody has any of the entries that made these data.
            self.lineage = Lineage(new_history(self._random_bits))
            self._has_data = True
            self._start_over(cursors)
            self.judge()
        self._node.replication_advanced()
        self._tell_news()

    def _start_over(self, cursors: Mapping[str, tuple[int, int]]) -> None:
        """Whoever follows this node needs a fresh copy, because it has got one itself."""
        self._began_empty = self._diverged = False
        self._journal.outside = False
        self._found_cursors = {}
        self._node.forget_writes()
        if self.files is not None:
            self.files.data_replaced(self.lineage, cursors)
        if self._active:
            self.backlog.reset(self._journal.offset)
        self.hang_up("this node has been synchronised anew")

    def entries_applied(self, first: int, next: int, raw: bytes, grouped: bool, may_flush: bool) -> None:
        """Entries of the upstream are in the store: pass them on as they came."""
        if self._active and raw:
            self.backlog.add_raw(first, next - first, raw, grouped, may_flush=may_flush)
        if self.files is not None:
            self.files.hand_over()
        self._node.replication_advanced()

    def scopes_applied(self) -> None:
        """Entries, or a ship, of a scope that another node writes are in the store and the journal."""
        if self.files is not None:
            self.files.hand_over()
        self._node.replication_advanced()

    def number_above(self, offset: int) -> None:
        """Give entries that are made from now on numbers above ``offset`` (0: any), if they would not get them anyway.

        Nobody can go on from below: what has no number there was never there.
        """
        if offset and self._journal.offset <= offset:
            self._journal.offset = offset + 1
            if self._active:
                self.backlog.reset(self._journal.offset)
            self.hang_up("this node numbers on above what others hold of it")
            if self.files is not None:
                self.files.hand_over()

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
        received = self._received_before + (0 if self.upstream is None else self.upstream.received_bytes)
        return received + (0 if self.mesh is None else self.mesh.received_bytes)

    def set_upstream(self, upstream: UpstreamSide | None) -> None:
        """The follower that runs now; None: none does."""
        if self.upstream is not None:
            self._received_before += self.upstream.received_bytes
            self._diverged = self._is_diverged()
        self.upstream = upstream
