"""All that a node decides about its files: what is written when, what may be claimed, and what is due.

:class:`Persistence` is what the rest of the node sees. Work that takes long is handed out: syncs by :meth:`begin_sync`,
and rewrites and dumps, a slice at a time, by :meth:`begin_work`. The driver is :mod:`kevynode.persist.service`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, Protocol

from .. import errors
from ..disk import Disk
from ..errors import ErrorKind, ReplyError
from ..persistence_view import AppendOnlyFacts, LoadFacts
from ..replicate.lineage import Lineage
from ..store.store import Store
from .annotations import UpstreamCursor
from .folder import AppendOnlyFolder, FolderError
from .gate import Gate, Writing
from .jobs import SyncJob
from .rewriting import Rewrite
from .works import INTERVAL, PersistenceLog, PersistenceSettings, Work, Works
from .writer import AppendOnlyWriter, Policy

__all__ = ["INTERVAL", "Persistence", "PersistenceLog", "PersistenceNode", "PersistenceSettings", "Work"]

CANNOT_SWITCH_ON = ErrorKind("ERR", "The append-only file cannot be switched on: {}", errors.FIX)


class PersistenceNode(Protocol):
    """What persistence asks of the rest of the node."""

    #: "master" or "slave".
    role: str

    def close_writes(self, reason: str, detail: str = "") -> None: ...
    def open_writes(self, reason: str) -> None: ...


class Persistence(Works):
    """The files of one node. Owned by the thread of the store; nothing here checkpoints.

    ``monotonic`` and ``wall`` give seconds. What is called when something has happened is set by the node:
    ``on_work`` (look at :meth:`begin_sync` and :meth:`begin_work` again), ``on_open`` (those who were told to wait may
    ask again), ``on_durable`` and ``on_saved``.
    """

    def __init__(
        self,
        disk: Disk,
        data_dir: str,
        store: Store,
        node: PersistenceNode,
        log: PersistenceLog,
        monotonic: Callable[[], float],
        wall: Callable[[], float],
        settings: PersistenceSettings | None = None,
    ) -> None:
        self.settings = settings if settings is not None else PersistenceSettings()
        self.disk = disk
        self.data_dir = data_dir
        self.store = store
        self.lineage = Lineage(1)
        self.on_work: Callable[[], None] | None = None
        self.on_open: Callable[[], None] | None = None
        self.on_durable: Callable[[], None] | None = None
        self.on_saved: Callable[[], None] | None = None
        #: Whether the data directory is this node's for other reasons than its append-only file.
        self.is_locked = False
        #: The load under way.
        self.loading: LoadFacts | None = None
        self.writer: AppendOnlyWriter | None = None
        self.gate: Gate | None = None
        #: The writer that was switched off, until it is closed.
        self.retired: AppendOnlyWriter | None = None
        self._node = node
        self._log = log
        self._now = monotonic
        self._wall = wall
        self._problem = ""
        self._sync_wanted = self._switch_on_due = False
        self._sync_began: float | None = None
        super().__init__()

    # -- answers and entries -------------------------------------------------------------------------------------------

    def before_answers(self) -> bool:
        """Write what has been committed; whether the answers of all that has run so far may leave."""
        gate = self.gate
        if gate is None:
            return True
        may_leave = gate.before_answers()
        if may_leave and gate.answers_wait:
            # This round has brought about what others wait for.
            self._reopen()
        return may_leave

    def hand_over(self) -> None:
        """Write what has been committed, though nobody waits for an answer."""
        if self.gate is not None and self.gate.has_pending:
            self.gate.write()

    def verdict(self, session: Writing) -> Literal["send", "hold", "drop"]:
        """What is to become of the answers of one session, right after :meth:`before_answers` has said no."""
        return "send" if self.gate is None else self.gate.verdict(session)

    def may_ship(self) -> bool:
        """Write what has been committed; whether all of it, and the lineage, may be told to replicas now."""
        return self.gate is None or self.gate.may_ship()

    def _reopen(self) -> None:
        """Something has changed: have those who were told to wait ask again."""
        gate = self.gate
        if gate is not None:
            if not gate.answers_wait and not gate.entries_wait:
                return
            gate.answers_wait = gate.entries_wait = False
        if self.on_open is not None:
            self.on_open()

    # -- what others change --------------------------------------------------------------------------------------------

    def note_lineage(self, lineage: Lineage) -> None:
        """The next entry belongs to this lineage. Replicas hear of it when it is durable, which is seen to at once."""
        self.lineage = lineage
        if self.writer is not None and self.gate is not None and lineage != self.writer.lineage:
            self.writer.note_lineage(lineage)
            self.gate.lineage_changed()
            self._wake()

    def note_cursor(self, upstream: str, history: int, offset: int) -> None:
        """The group that is committed next brings an upstream to this offset of its history."""
        if self.writer is not None:
            self.writer.next_cursor = UpstreamCursor(upstream, history, offset)

    def cursor_moved(self, upstream: str, history: int, offset: int) -> None:
        """An upstream is at this offset of its history, though no entry says so; 0 and 0: forget where it is."""
        writer = self.writer
        if writer is not None:
            writer.note_cursor(UpstreamCursor(upstream, history, offset))
            if not history:
                del writer.cursors[upstream]

    def forget_cursors(self) -> None:
        """Where upstreams stood means nothing from here on."""
        writer = self.writer
        if writer is not None:
            for upstream in tuple(writer.cursors):
                writer.note_cursor(UpstreamCursor(upstream, 0, 0))
            writer.cursors.clear()

    def data_replaced(self, lineage: Lineage, cursors: Mapping[str, tuple[int, int]]) -> None:
        """All data has just been replaced, and comes from this lineage, and from upstreams up to their cursors.

        A new base is begun: what is in the files stays there until it is complete.
        """
        self.lineage = lineage
        writer = self.writer
        if writer is not None:
            writer.lineage = lineage
            writer.cursors = dict(cursors)
            self._begin_fresh(writer)

    def _begin_fresh(self, writer: AppendOnlyWriter) -> None:
        """Write the data as of now, in place of whatever is under way."""
        self._start(Rewrite(writer, self.store, fresh=True))
        self._wake()

    # -- syncs ---------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Write what has been committed and nobody waits for; see what is due. To be called every INTERVAL."""
        if self.writer is not None:
            self.before_answers()
            # With everysec time alone makes a difference.
            self._reopen()
            self._consider_rewrite(self.writer)

    def begin_sync(self, *, each_second: bool = False, ahead: bool = False) -> SyncJob | None:
        """What makes durable all that has been written, if the policy or somebody asks for that now.

        Run it, then call :meth:`end_sync`. ``each_second``: an INTERVAL has passed. ``ahead``: a rewrite is due.
        """
        writer, gate = self.writer, self.gate
        if writer is None or gate is None:
            return None
        policy = self.settings.policy
        wanted = ahead or self._sync_wanted or gate.needs_sync or policy == "always"
        if not wanted and not (each_second and policy == "everysec"):
            return None
        gate.hand_over()
        job = writer.begin_sync()
        if job is not None:
            self._sync_wanted = False
            self._sync_began = self._now()
            gate.sync_begins()
        elif gate.needs_sync and self._is_all_durable(writer):
            gate.all_is_durable()
            self._reopen()
        return job

    def _is_all_durable(self, writer: AppendOnlyWriter) -> bool:
        """Whether that is why there is nothing to sync."""
        is_busy = self._sync_began is not None or writer.is_changing or writer.is_fresh_running
        return not is_busy and writer.failed is None

    def end_sync(self, job: SyncJob) -> None:
        """The job has run, or will not."""
        began, self._sync_began = self._sync_began, None
        if self.retired is not None:
            self.retired.end_sync(job)
        if self.writer is not None and self.gate is not None:
            self.writer.end_sync(job)
            self.gate.sync_ended(job.succeeded, self._now() if began is None else began)
            self._reopen()

    def want_sync(self) -> int:
        """Have all that has been committed made durable soon; the mark that :meth:`kept` is to be asked about."""
        writer = self.writer
        if writer is None:
            return 0
        self._sync_wanted = True
        self._wake()
        return writer.mark

    def kept(self, mark: int) -> bool | None:
        """Whether everything up to a mark is durable; None: that cannot be said any more, and not be hoped for."""
        writer = self.writer
        if writer is None or self.problem:
            return None
        return self._holds_all(writer) and writer.durable_mark >= mark

    def _holds_all(self, writer: AppendOnlyWriter) -> bool:
        """Whether the data as of now are in files that are in use, and not in a base that is still being written."""
        return not writer.is_fresh_running and self.gate is not None and self.gate.promises

    @property
    def problem(self) -> str:
        """Why nothing can be stored; empty while it can, and while nobody has tried yet."""
        is_first = self.gate is not None and not self.gate.promises
        return self._rewrites.reason if is_first else self._problem

    def _wake(self) -> None:
        if self.on_work is not None:
            self.on_work()

    def _tell_durable(self) -> None:
        if self.on_durable is not None:
            self.on_durable()

    # -- trouble -------------------------------------------------------------------------------------------------------

    def _failed(self) -> None:
        """The file cannot be written: refuse writes until all data is in another one."""
        writer = self.writer
        assert writer is not None
        reason = writer.failed or ""
        self._problem = reason
        self._log.error("append_only_failed", reason=reason)
        # People and programs are told what the system said; where files lie is for the log.
        self._node.close_writes("misconf", reason.rpartition(": ")[2])
        self._tell_durable()
        self._wake()
        if self.on_open is not None:
            self.on_open()

    def _recovered(self) -> None:
        assert self.gate is not None
        self.gate.recovered()
        if self._problem:
            self._problem = ""
            self._log.info("append_only_recovered")
            self._node.open_writes("misconf")
        self._reopen()

    # -- on and off ----------------------------------------------------------------------------------------------------

    def started(self, writer: AppendOnlyWriter, *, promises: bool = True) -> None:
        """The writer has begun: from here on it is asked what may be claimed."""
        self.writer = writer
        gate = self.gate = Gate(writer, self._now, self._copies, promises=promises)
        gate.on_failure = self._failed
        gate.on_durable = self._tell_durable

    def _copies(self) -> bool:
        return self._node.role != "master"

    def set_policy(self, policy: Policy) -> None:
        """Take on another ``appendfsync``: what is acknowledged from now on is promised by it."""
        self.settings.policy = policy
        if self.writer is not None:
            self.writer.policy = policy
            if self.gate is not None:
                self.gate.policy_changed()
            self._wake()
            self._reopen()

    def switch_on(self) -> None:
        """Keep an append-only file from now on. Promises begin when all data is in it. Raises ReplyError."""
        if self.writer is not None:
            return
        if self.retired is not None:
            # The folder is free again in a moment.
            self._switch_on_due = True
            return
        try:
            folder = AppendOnlyFolder.open(self.disk, self.data_dir, is_locked=self.is_locked)
        except (FolderError, OSError) as error:
            raise CANNOT_SWITCH_ON(error) from error
        writer = AppendOnlyWriter(folder, self.store.journal, self.lineage, policy=self.settings.policy)
        self.started(writer, promises=False)
        self._begin_fresh(writer)

    def retired_closed(self) -> None:
        """The file of the writer that was switched off is closed; if it was switched on again meanwhile, begin anew."""
        self.retired = None
        due, self._switch_on_due = self._switch_on_due, False
        if due:
            try:
                self.switch_on()
            except ReplyError as error:
                self._log.error("append_only_not_switched_on", reason=str(error))

    def switch_off(self) -> None:
        """Write no append-only file any more. What is in it is made durable, and is stale from then on."""
        self._switch_on_due = False
        writer = self.writer
        if writer is None:
            return
        writer.write()
        # What follows is not for this file, which must not say that it holds it.
        writer.stop()
        self.retired, self.writer, self.gate = writer, None, None
        self._rewrite_due = self._is_scheduled = False
        if isinstance(self.work, Rewrite):
            self.work = None
        self._problem = ""
        self._node.open_writes("misconf")
        self._log.warning("append_only_switched_off", folder=writer.folder.path)
        self._wake()
        self._tell_durable()
        self._reopen()

    # -- facts ---------------------------------------------------------------------------------------------------------

    def is_durable(self, offset: int) -> bool:
        """Whether everything before ``offset`` of the running history would outlive a loss of power."""
        writer = self.writer
        return writer is not None and self._holds_all(writer) and offset <= writer.durable_offset

    def append_only(self) -> AppendOnlyFacts:
        """The state of the append-only file."""
        writer, gate, outcome = self.writer, self.gate, self._rewrites
        if writer is None or gate is None:
            # Its first base is yet to be begun.
            return AppendOnlyFacts(enabled=self._switch_on_due, rewrite_scheduled=self._switch_on_due)
        return AppendOnlyFacts(
            enabled=True,
            size=self._other_size + writer.size,
            base_size=self._base_size,
            rewrite_running=self._running(outcome) if self._is_rewriting else None,
            last_rewrite=outcome.last_duration,
            last_rewrite_ok=outcome.last_ok,
            rewrites=outcome.succeeded,
            failed_rewrites=outcome.failed_since,
            rewrite_scheduled=self._is_scheduled,
            problem=self._problem,
            sync_running=self._sync_began is not None,
            delayed_syncs=gate.delayed,
            waiting=writer.mark - writer.written_mark,
        )

    def load(self) -> LoadFacts | None:
        """The load under way; None: all that there was has been loaded."""
        return self.loading
