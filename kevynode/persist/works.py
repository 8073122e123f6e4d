"""What is due of the work that takes long, rewrites and dumps, and how it has gone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final, Literal, Protocol, TypeAlias

import attrs

from .. import errors
from ..disk import Disk
from ..errors import ErrorKind
from ..persistence_view import REWRITE_RUNNING, SAVE_RUNNING, WAIT_FOR_ITS_END, DumpFacts
from ..replicate.lineage import Lineage
from ..store.store import Store
from .dump import Dump
from .gate import Gate
from .rewriting import Rewrite, should_rewrite
from .writer import AppendOnlyWriter, Policy

__all__ = ["INTERVAL", "PersistenceLog", "PersistenceSettings", "Work", "Works"]

#: What takes long and is done in slices.
Work: TypeAlias = Rewrite | Dump

#: Seconds between two looks at what is due; with ``everysec`` also between two syncs.
INTERVAL: Final = 1.0
#: Seconds until what has come to nothing is tried again: at first, and at most.
FIRST_RETRY: Final = 1.0
LAST_RETRY: Final = 60.0
#: Increments that may pile up before they are rewritten into one base, whatever their size.
MOST_INCREMENTS: Final = 64

BUSY = ErrorKind(
    "ERR",
    "Another child process is active (AOF?): can't BGSAVE right now. Use BGSAVE SCHEDULE in order to schedule a BGSAVE "
    "whenever possible.",
    WAIT_FOR_ITS_END,
)
NOTHING_TO_REWRITE = ErrorKind("ERR", "The append-only file is switched off: there is nothing to rewrite", errors.FIX)


class PersistenceLog(Protocol):
    """Where events go."""

    def info(self, event: str, /, **facts: object) -> None: ...
    def warning(self, event: str, /, **facts: object) -> None: ...
    def error(self, event: str, /, **facts: object) -> None: ...


@attrs.define
class PersistenceSettings:
    """What the configuration says; every value may be changed while the node runs. Sizes in bytes."""

    policy: Policy = "everysec"
    rewrite_percentage: int = 100
    rewrite_min_size: int = 64 << 20


@attrs.define
class _Outcome:
    """How a kind of work has gone so far. Seconds."""

    succeeded: int = 0
    failed_since: int = 0
    last_duration: float | None = None
    last_ok: bool = True
    began: float | None = None
    retry_at: float = 0.0
    #: Why it came to nothing the last time; empty if it did not.
    reason: str = ""

    def end(self, succeeded: bool, now: float, reason: str | None = None) -> None:
        self.last_duration = None if self.began is None else now - self.began
        self.began = None
        self.last_ok = succeeded
        self.reason = reason or ""
        if succeeded:
            self.succeeded += 1
            self.failed_since = 0
        else:
            self.failed_since += 1
            self.retry_at = now + min(LAST_RETRY, FIRST_RETRY * 2 ** min(self.failed_since - 1, 10))


class Works(ABC):
    """The part of :class:`~kevynode.persist.persistence.Persistence` that decides about rewrites and dumps."""

    settings: PersistenceSettings
    disk: Disk
    data_dir: str
    store: Store
    lineage: Lineage
    writer: AppendOnlyWriter | None
    gate: Gate | None
    on_saved: Callable[[], None] | None
    _log: PersistenceLog
    _now: Callable[[], float]
    _wall: Callable[[], float]
    _problem: str
    _sync_wanted: bool

    def __init__(self) -> None:
        #: What is being done in slices.
        self.work: Work | None = None
        #: Slices that are on their way into a file of their own: no rewrite begins meanwhile.
        self.placing = 0
        self._rewrites, self._dumps = _Outcome(), _Outcome()
        # The dump that was given up for a newer one.
        self._overtaken: Dump | None = None
        self._rewrite_due = self._dump_due = self._is_scheduled = False
        # How far the writer was when a step was last taken.
        self._seen = (False, 0, 0)
        # Bytes of the base, and of all files but the increment that is written to.
        self._base_size = self._other_size = 0
        self._last_save = int(self._wall())
        self._saved_offset = 0

    @abstractmethod
    def _wake(self) -> None:
        """There is something to do."""

    @abstractmethod
    def _reopen(self) -> None:
        """Something has changed: have those who were told to wait ask again."""

    @abstractmethod
    def _recovered(self) -> None:
        """All data is in files that are in use."""

    # -- what is asked for ---------------------------------------------------------------------------------------------

    def rewrite(self) -> Literal["started", "scheduled"]:
        """Begin to rewrite the append-only file, or do so when a dump has ended. Raises ReplyError."""
        if self.writer is None:
            raise NOTHING_TO_REWRITE()
        if self._is_rewriting or self._problem:
            raise REWRITE_RUNNING()
        if self._rewrite_due:
            return "scheduled"
        self._rewrite_due = True
        self._is_scheduled = self.work is not None
        self._wake()
        return "scheduled" if self._is_scheduled else "started"

    def save(self, *, schedule: bool = False) -> Literal["started", "scheduled"]:
        """Begin to write a dump. Raises ReplyError while one is being written, or a rewrite is under way.

        ``schedule``: in the latter case do it later.
        """
        if isinstance(self.work, Dump) or self._dump_due:
            raise SAVE_RUNNING()
        if (self.work is not None or self._rewrite_due) and not schedule:
            raise BUSY()
        self._dump_due = True
        self._wake()
        return "started" if self._begins_dump else "scheduled"

    def cancel_save(self) -> Literal["running", "scheduled"] | None:
        """Give up the dump that is being written, or the one that waits for its turn; which of them, or None."""
        if isinstance(self.work, Dump):
            # Its driver sees that, and closes it.
            self.work = None
            return "running"
        if self._dump_due:
            begins, self._dump_due = self._begins_dump, False
            self._tell_saved()
            return "running" if begins else "scheduled"
        return None

    def save_now(self) -> str:
        """Write a dump here and now, which holds everything else up; why it came to nothing, or an empty text.

        One that is being written is given up: it holds older data.
        """
        if isinstance(self.work, Dump):
            # Its driver sees that, and closes it.
            self._overtaken, self.work = self.work, None
        dump = self._new_dump()
        self._dumps.began = self._now()
        dump.run_all()
        self._dump_ended(dump)
        return dump.failed or ""

    def begin_work(self) -> Work | None:
        """What is to be done in slices now, from :meth:`Rewrite.steps` and the like; then call :meth:`end_work`.

        Nothing else may be under way. While the steps are taken :attr:`work` may become another one: then no further
        step of this one may be asked for.
        """
        if self.work is None:
            work = self._next_work()
            if work is not None:
                self._start(work)
        return self.work

    def _next_work(self) -> Work | None:
        writer = self.writer
        if writer is not None and self._needs_fresh:
            if self._now() >= self._rewrites.retry_at:
                return Rewrite(writer, self.store, fresh=True)
        elif writer is not None and self._rewrite_due and not self.placing:
            self._rewrite_due = self._is_scheduled = False
            return Rewrite(writer, self.store)
        if self._dump_due:
            self._dump_due = False
            return self._new_dump()
        return None

    @property
    def rewrite_is_due(self) -> bool:
        """Whether a rewrite that goes on from the present file is what :meth:`begin_work` will answer with."""
        is_due = self._rewrite_due and self.work is None and not self.placing
        return self.writer is not None and is_due and not self._needs_fresh

    def rewrite_may_begin(self) -> None:
        """A slice is in its place, or will not be."""
        if not self.placing:
            self._wake()

    @property
    def _needs_fresh(self) -> bool:
        """Whether promises depend on a base that is yet to be written."""
        return bool(self._problem) or (self.gate is not None and not self.gate.promises)

    def _new_dump(self) -> Dump:
        cursors = {} if self.writer is None else self.writer.cursors
        return Dump(self.disk, self.data_dir, self.store, self.lineage, cursors, local=self.store.journal.outside)

    def _start(self, work: Work) -> None:
        """Make it what is under way; what was is given up by its driver, which sees that."""
        outcome = self._rewrites if isinstance(work, Rewrite) else self._dumps
        outcome.began = self._now()
        self.work = work
        if isinstance(work, Rewrite):
            self._log.info("rewrite_started", keys=work.keys, fresh=work.fresh)
        else:
            self._log.info("dump_started", keys=work.keys)

    def step_taken(self) -> None:
        """A step of the work under way has been taken: files may have changed."""
        writer, gate = self.writer, self.gate
        if writer is None or gate is None:
            return
        gate.notice()
        seen = (writer.is_changing, writer.written_mark, writer.durable_mark)
        if seen != self._seen:
            self._seen = seen
            gate.progress()
            self._reopen()
            self._wake()

    def end_work(self, work: Work) -> None:
        """It is closed: done, failed, or given up because another one has begun."""
        given_up = self.work is not work
        if not given_up:
            self.work = None
        if isinstance(work, Rewrite):
            self._rewrite_ended(work, given_up=given_up)
        else:
            self._dump_ended(work, given_up=given_up)
        self._reopen()
        if self._sync_wanted or (self.gate is not None and self.gate.needs_sync):
            # What could not be synced while files changed.
            self._wake()

    def _rewrite_ended(self, rewrite: Rewrite, *, given_up: bool) -> None:
        if given_up:
            # All data has been replaced, or the file was switched off.
            self._log.info("rewrite_given_up")
            return
        outcome = self._rewrites
        outcome.end(rewrite.done, self._now(), rewrite.failed)
        if not rewrite.done:
            self._log.error(
                "rewrite_failed", reason=rewrite.failed or "", again_in=round(outcome.retry_at - self._now(), 1)
            )
            if self.gate is not None:
                self.gate.notice()
            return
        # As good as known; it is measured soon.
        self._base_size = self._other_size = rewrite.size
        self._log.info(
            "rewrite_done", keys=rewrite.keys, bytes=rewrite.size, seconds=round(outcome.last_duration or 0.0, 3)
        )
        if rewrite.fresh and self.writer is not None:
            self._recovered()

    def _dump_ended(self, dump: Dump, *, given_up: bool = False) -> None:
        outcome = self._dumps
        if given_up:
            outcome.began = None
            self._log.info("dump_given_up")
            overtaken, self._overtaken = self._overtaken, None
            if dump.done and dump is overtaken:
                # It has come to its name all the same, in place of a newer one.
                self.save_now()
            self._tell_saved()
            return
        outcome.end(dump.done, self._now(), dump.failed)
        if dump.done:
            self._last_save = int(self._wall())
            self._saved_offset = dump.cursor[1]
            self._log.info("dump_done", keys=dump.keys, bytes=dump.size, seconds=round(outcome.last_duration or 0.0, 3))
        else:
            self._log.error("dump_failed", reason=dump.failed or "")
        self._tell_saved()

    def _tell_saved(self) -> None:
        if self.on_saved is not None:
            self.on_saved()

    def _consider_rewrite(self, writer: AppendOnlyWriter) -> None:
        """Have the files rewritten when they have outgrown the data, or have become many."""
        if self.work is not None or self._rewrite_due or self._problem or self._now() < self._rewrites.retry_at:
            return
        settings = self.settings
        size = self._other_size + writer.size
        has_outgrown = should_rewrite(size, self._base_size, settings.rewrite_percentage, settings.rewrite_min_size)
        is_many = bool(settings.rewrite_percentage) and len(writer.folder.manifest.increments) > MOST_INCREMENTS
        if has_outgrown or is_many:
            self._log.info("rewrite_due", bytes=size, base_bytes=self._base_size)
            self._rewrite_due = True
            self._wake()

    def seconds_until_work(self) -> float:
        """How long until :meth:`begin_work` is worth another call, if nothing happens."""
        return max(0.0, self._rewrites.retry_at - self._now()) if self._needs_fresh else INTERVAL

    def measure(self) -> None:
        """Look how large the files are. Takes long. Raises OSError."""
        writer = self.writer
        if writer is not None:
            self._base_size = writer.folder.base_size()
            self._other_size = max(0, writer.folder.size() - writer.size)

    # -- facts ---------------------------------------------------------------------------------------------------------

    def dumps(self) -> DumpFacts:
        """The state of dumps."""
        outcome = self._dumps
        return DumpFacts(
            last_save=self._last_save,
            changes=max(0, self.store.journal.offset - self._saved_offset),
            running=self._running(outcome) if isinstance(self.work, Dump) or self._begins_dump else None,
            last_duration=outcome.last_duration,
            last_ok=outcome.last_ok,
            saves=outcome.succeeded,
            scheduled=self._dump_due and not self._begins_dump,
        )

    @property
    def _is_rewriting(self) -> bool:
        """Whether a rewrite is under way, or about to begin."""
        return isinstance(self.work, Rewrite) or (self._rewrite_due and not self._is_scheduled)

    @property
    def _begins_dump(self) -> bool:
        """Whether a dump was promised that nothing is in the way of."""
        return self._dump_due and self.work is None and not self._rewrite_due

    def _running(self, outcome: _Outcome) -> float:
        return 0.0 if outcome.began is None else self._now() - outcome.began
