"""Writes the journal to the append-only file: who must call what, and what may be claimed when.

**Thread.** Everything here belongs to the thread of the store, and what touches the disk in it never syncs. What takes
long comes as a :class:`~kevynode.persist.jobs.Job`: between ``begin_…`` and ``end_…`` the caller has ``job.run()``
called in another thread (or in this one), and never drops a job that has begun. Of the jobs that change files only one
is under way at a time, and only a fresh rewrite may be begun, not continued, meanwhile. A sync runs beside anything but
the beginning of an increment, which syncs the same file: of two at once only one would hear that bytes are lost.

**Start.** Load the folder, let the journal (``offset`` and ``outside``) and the lineage stand where the data ends, then
``begin_start``, run, ``end_start``, and have the folder swept (``AppendOnlyFolder.sweep``, which takes long, too). To
begin with data that is in no file (``appendonly`` was switched on), or where ``end_start`` says no, use a fresh rewrite
instead.

**Entries.** ``observe`` is called by the journal. Whoever changes something else says so at once, in the same step:
``note_lineage`` for a new history (promotion, an upstream's), ``next_cursor`` before the commit of an upstream's group
that is renumbered here. After ``Store.replace_all`` a fresh rewrite (``rewriting.Rewrite``) is begun in the same step:
what replaced the data is in no journal, and the group that tells of it must not be written.

**Local data.** Nobody has to say that writes were made beside the stream that a copy follows: the journal's ``outside``
does. Each file that is begun tells what it is, and so does a line wherever a write finds that it has changed. So it has
to be False in the step in which a promotion notes its lineage, which has no ancestors then, and in that in which a
fresh rewrite begins after ``Store.replace_all``.

**Writing.** ``write()`` at the end of every round in which something may have been committed: before replies leave,
before entries go to replicas, after timers and housekeeping. It is one write(2), or nothing.

**Claims.** ``mark`` numbers what has been observed. A reply computed when ``mark`` was m may leave once
``reply_mark >= m``; an entry may go to replicas once its offset is below ``ship_offset``. Both follow the policy:
``always`` waits for the disk, ``everysec`` and ``no`` for write(2). They stand still while an increment is being
changed (a few syncs), while a fresh rewrite runs, and once the file has ``failed``. What reads do meanwhile is up to
the caller: under ``everysec`` and ``no`` they acknowledge nothing, and they are to go on where writes are refused.
A write that was done in memory and could not be written is not acknowledged before a fresh rewrite has ended.

**Syncing.** ``begin_sync`` gives a job if anything is not durable, or None. With ``always`` call it after each write
unless a job is under way, and again when that ends; with ``everysec`` each second; with ``no`` never. ``begin_sync``,
run, ``end_sync`` at the end of the process, then ``close``.

**Failure.** After any error of a write or a sync ``failed`` says why. Nothing is appended to that file any more, what
is observed is forgotten, and writes must be refused. The way back is a fresh rewrite: tried again and again, its end
clears ``failed``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, TypeAlias

from ..replicate.lineage import Lineage
from ..store.journal import Journal
from .annotations import MadeBy
from .folder import AppendOnlyFolder, Cursors, LogFile
from .jobs import FreshJob, IncrementJob, SyncJob
from .recorder import JournalRecorder
from .unproven import Unproven

__all__ = ["AppendOnlyWriter", "Policy"]

#: When what has been written is made durable.
Policy: TypeAlias = Literal["always", "everysec", "no"]


class AppendOnlyWriter(JournalRecorder):
    """The journal's way into the folder's last increment. See the module for who calls what.

    ``lineage`` is the node's. ``cursors`` holds, by upstream, history and next offset of those whose entries are
    renumbered here. ``failed`` is why nothing is written, or None.
    """

    def __init__(
        self,
        folder: AppendOnlyFolder,
        journal: Journal,
        lineage: Lineage,
        cursors: Cursors | None = None,
        policy: Policy = "everysec",
    ) -> None:
        super().__init__(journal, lineage, cursors)
        self.folder = folder
        self.policy: Policy = policy
        self.failed = "the append-only file has not been started"
        self._file: LogFile | None = None
        # Files that are written to no more, and may not be closed while a job is at work on them.
        self._stale: list[LogFile] = []
        # Whether writing waits for an increment to exist or to come into use, and whether the manifest names the file.
        self._waits = False
        self._is_used = False
        # Up to where the journal is in the file, is in a file in use, and is durable: mark and offset.
        self._in_file = self._written = self._durable = (0, self.offset)
        self._sync: SyncJob | None = None
        self._change: IncrementJob | None = None
        # The number of the fresh rewrite under way, 0 if there is none, and how many there have been.
        self._fresh = self._fresh_count = 0

    # -- claims -------------------------------------------------------------------------------------------------------

    @property
    def written_mark(self) -> int:
        """So many of them outlive this process, however it ends."""
        return self._written[0]

    @property
    def durable_mark(self) -> int:
        """So many of them outlive a loss of power."""
        return self._durable[0]

    @property
    def written_offset(self) -> int:
        """The next offset that does not outlive this process."""
        return self._written[1]

    @property
    def durable_offset(self) -> int:
        """The next offset that is not durable."""
        return self._durable[1]

    @property
    def reply_mark(self) -> int:
        """Replies up to this mark may leave, by the policy."""
        return (self._durable if self.policy == "always" else self._written)[0]

    @property
    def ship_offset(self) -> int:
        """Entries below this offset may go to replicas, by the policy."""
        return (self._durable if self.policy == "always" else self._written)[1]

    @property
    def is_changing(self) -> bool:
        """Whether writing waits for an increment to exist or to come into use."""
        return self._waits

    @property
    def is_fresh_running(self) -> bool:
        """Whether what is observed goes to an increment that waits for a base to come into use with it."""
        return self._fresh > 0 and self._records

    @property
    def size(self) -> int:
        """Bytes of the increment that is written to."""
        return 0 if self._file is None else self._file.size

    # -- writing ------------------------------------------------------------------------------------------------------

    def write(self) -> bool:
        """Hand all that has been observed to the system; whether all of it is in a file in use now.

        Not in the midst of a command. Does not sync. Never raises OSError: see ``failed``.
        """
        if not self._records or self._waits:
            return False
        self._note_local()
        if self._journal.offset != self.offset and not self._stopped:
            if self._journal.offset < self.offset:
                self._fail(f"the journal went back from offset {self.offset}, and no new base was begun")
                return False
            self._note_position()
        if self._parts:
            self.end_piece()
        pieces = self._pieces
        if pieces:
            file = self._file
            assert file is not None
            try:
                for piece in pieces:
                    file.write(piece)
            except OSError as error:
                self._fail(f"writing to {file.path} failed: {_reason(error)}")
                return False
            pieces.clear()
            self._in_file = (self.mark, self.offset)
            if self._is_used:
                self._written = self._in_file
        return self._is_used

    def _fail(self, reason: str) -> None:
        """Nothing may be appended to the file any more."""
        super()._fail(reason)
        self._waits = False

    def _leave(self) -> None:
        """Write no more to the file. It is closed, and removed if it never came into use, when no job is under way."""
        file, self._file = self._file, None
        if file is not None:
            self._stale.append(file)

    def _release(self) -> None:
        """No job that changes files is under way: close those that are written to no more."""
        for file in self._stale:
            if self._sync is None or self._sync.file is not file:
                self.folder.discard(file)
        self._stale = [] if self._sync is None else [file for file in self._stale if file is self._sync.file]

    # -- syncing ------------------------------------------------------------------------------------------------------

    def begin_sync(self) -> SyncJob | None:
        """What makes durable all that has been written; None if all is, or a sync or a change of files is under way."""
        file = self._file
        if file is None or self._sync is not None or self._waits or not self._records or not self._is_used:
            return None
        if self._durable[0] == self._in_file[0] and file.synced == file.size:
            return None
        self._sync = SyncJob(file, *self._in_file)
        return self._sync

    def end_sync(self, job: SyncJob) -> None:
        """The job has run."""
        if job is self._sync:
            self._sync = None
        if job.file is not self._file:
            # Nobody writes to it any more; what it holds is durable by another way, or of no use.
            self._stale = [file for file in self._stale if file is not job.file]
            job.file.close()
        elif job.succeeded:
            self._now_durable(job.mark, job.offset)
        elif job.error is not None and self._records:
            self._fail(f"syncing {job.file.path} failed: {_reason(job.error)}")

    def _now_durable(self, mark: int, offset: int) -> None:
        if mark >= self._durable[0]:
            self._durable = (mark, offset)

    # -- changing files -----------------------------------------------------------------------------------------------

    def begin_start(self, *, instead_of_last: bool = False, unproven: Unproven | None = None) -> IncrementJob:
        """A new increment behind the set that has been loaded, or the first one of a new set.

        It takes the place of the last increment if that holds nothing (``Loaded.last_is_empty``). ``unproven`` is what
        the load has found so (``Loaded.unproven``): it is made durable first.
        """
        assert self._file is None
        self._records = True
        return self._begin_change(None, instead_of_last=instead_of_last, unproven=unproven)

    def begin_increment(self) -> IncrementJob | None:
        """A new increment, in which the next entry will be; None if what there is cannot be written: see ``failed``.

        Until it has ended what is observed is kept and not written, so sync before, to have little to wait for.
        """
        assert self._change is None
        return self._begin_change(self._file) if self.write() else None

    def begin_placement_use(self, placement: LogFile, commands: int, commit: Callable[[], None]) -> IncrementJob | None:
        """What brings ``placement``, complete and durable, into use, and behind it an increment, as `begin_increment`.

        ``commit`` is called to make the entries that the placement holds, so many ``commands`` in one group of the
        journal. None: that is not possible now, and it was not called; the placement is not of use any more. A failure
        of the job is one of the file: the data are in memory only. So it is, and RuntimeError is raised, if it made
        other entries.
        """
        may_use = self._change is None and not self._fresh and self.folder.may_use(placement)
        if not may_use or not self.write() or self._stopped:
            return None
        expected = self.offset + commands
        # It is in the file already.
        self._records = False
        try:
            commit()
        finally:
            if self.offset == expected:
                self._records = True
            else:
                self._fail(f"{commands} entries were placed, {self.offset - expected + commands} were made")
        if not self._records:
            raise RuntimeError(self.failed)
        return self._begin_change(self._file, placement=placement)

    def _begin_change(
        self,
        old: LogFile | None,
        *,
        instead_of_last: bool = False,
        unproven: Unproven | None = None,
        placement: LogFile | None = None,
    ) -> IncrementJob:
        self._waits = True
        self.offset = self._journal.offset
        self._change = IncrementJob(
            self.folder,
            old,
            self._creation(),
            self.mark,
            self.offset,
            instead_of_last=instead_of_last,
            unproven=unproven,
            placement=placement,
        )
        return self._change

    def _creation(self) -> Callable[[], LogFile]:
        """What makes an increment that begins here and now."""
        origin = b"" if self._origin is None else MadeBy(self._origin).line()
        self._local = self._journal.outside
        return partial(
            self.folder.create_increment, self.lineage, self.offset, dict(self.cursors), origin, local=self._local
        )

    def end_increment(self, job: IncrementJob) -> bool:
        """The job has run; whether the new increment is in use. What was observed meanwhile is written.

        If it failed before anything was changed the old increment goes on, and ``failed`` stays None.
        """
        if self._change is not job:
            # A fresh rewrite has begun, which has no use for it.
            if job.increment is not None:
                self._stale.append(job.increment)
            return False
        self._change = None
        self._waits = False
        if not self._records:
            # What was observed meanwhile is forgotten, for the reason in ``failed``.
            if job.increment is not None:
                self._stale.append(job.increment)
            return False
        if not job.succeeded and not job.is_harmless:
            if job.increment is not None:
                self._stale.append(job.increment)
            self._fail(f"the files in {self.folder.path} cannot be changed: {_reason(job.error)}")
            return False
        if job.succeeded:
            self._leave()
            self._file = job.increment
            self._release()
            self._is_used = True
            self.failed = None
            # All before is durable, in the old one.
            self._in_file = self._written = (job.mark, job.offset)
            self._now_durable(job.mark, job.offset)
        self.write()
        return job.succeeded

    def end_start(self, job: IncrementJob) -> bool:
        """The job has run; whether the increment is in use. Otherwise ``failed`` says why."""
        return self.end_increment(job)

    def begin_fresh(self) -> int:
        """Keep what is observed from now on for an increment that will come into use with a base of the data as of now.

        What has been observed before will be in the base, and is forgotten; one that is under way has come to nothing.
        Touches no disk. Jobs may be under way. The number that this one has from now on.
        """
        self._forget()
        self._leave()
        self._change = None
        self._is_used = False
        self._records = self._waits = True
        self.offset = offset = self._journal.offset
        # The numbering may have gone back: nothing of the new one is written yet.
        self._written = (self._written[0], min(self._written[1], offset))
        self._durable = (self._durable[0], min(self._durable[1], offset))
        self._in_file = (self.mark, offset)
        self._create = self._creation()
        self._fresh_count += 1
        self._fresh = self._fresh_count
        return self._fresh

    def fresh_goes_on(self, number: int) -> bool:
        """Whether that one is under way, and what is observed since is written as it should be."""
        return self._fresh == number and self._records

    def open_fresh(self) -> bool:
        """Make that increment, and write to it from now on; False, with the reason in ``failed``, if it cannot be."""
        assert self._waits
        self._release()
        self._waits = False
        try:
            self._file = self._create()
        except OSError as error:
            self._fail(f"a new file in {self.folder.path} cannot be written: {_reason(error)}")
            return False
        self.write()
        return self._records

    def begin_use(self, base: LogFile, commands: int) -> FreshJob | None:
        """What brings a base into use with that increment; None if the increment could not be written."""
        self.write()
        if not self.is_fresh_running:
            return None
        assert self._file is not None
        return FreshJob(self.folder, base, commands, self._file, *self._in_file)

    def end_use(self, job: FreshJob) -> bool:
        """The job has run; whether its set is in use, and ``failed`` None."""
        if job.file is not self._file:
            self._release()
            return False
        if not job.succeeded or not self._records:
            return False
        self._fresh = 0
        self._is_used = True
        self.failed = None
        self._written = self._in_file
        self._now_durable(job.mark, job.offset)
        return True

    def abandon_fresh(self, number: int, reason: str) -> None:
        """The base of that one will not be there: a crash finds what was in use before, and ``failed`` says why.

        No job that changes files may be under way.
        """
        if self._fresh == number:
            self._fresh = 0
            if self._records:
                self._fail(reason)
            self._leave()
        self._release()

    def close(self) -> None:
        """Stop observing, and close the file; nothing is written or synced. No job may be under way."""
        self.stop()
        self._fail("the append-only file is closed")
        self._leave()
        self._release()


def _reason(error: OSError | None) -> str:
    """Why a job has failed."""
    if error is None:
        return "it was given up"
    return error.strerror or str(error)
