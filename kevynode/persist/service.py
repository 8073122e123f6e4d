"""The tasks behind a node's files: loading at the start, syncs, rewrites and dumps while it runs, and the end.

::

    files nursery               the outermost one: ends last, after a final sync
    ├─ syncs                    writes what nobody waits for, syncs as the policy says
    └─ work                     rewrites and dumps, a slice at a time; recovery after trouble

What takes long runs in threads, and always to its end: whoever is cancelled meanwhile ends when the thread has.
"""

from __future__ import annotations

import posixpath
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from functools import partial
from typing import Final, Protocol, TypeVar

import attrs
import trio
from trio.lowlevel import enable_ki_protection

from ..disk import Disk, Lock
from ..persistence_view import LoadFacts
from ..replicate.lineage import Lineage
from ..store.apply import Applier
from ..store.journal import Origin
from .dump import DumpError, load_dump, sweep_dumps
from .folder import FOLDER, AppendOnlyFolder, Cursors, FolderError, lock_data_dir, read_manifest
from .instance import InstanceError, read_instance
from .jobs import IncrementJob, Job, SyncJob
from .loader import Loaded, LoadError, load
from .persistence import INTERVAL, Persistence, PersistenceLog, Work
from .placing import Placing
from .record_reader import Entries
from .rewriting import Rewrite
from .unproven import Unproven
from .writer import AppendOnlyWriter

__all__ = ["PersistenceService", "RestoringSide", "StartFailure"]

#: Jobs for the disk that are under way at one time, at most: a sync, and a change of files.
THREADS: Final = 2
#: Seconds between two reports of a load that lasts.
REPORT_EVERY: Final = 1.0

T = TypeVar("T")


class StartFailure(Exception):
    """The files cannot be used as they are; the text says which, where and why."""


class RestoringSide(Protocol):
    """What learns of the past that is in the files: the node's replication."""

    def restore_entries(self, first: int, commands: list[list[bytes]], next: int, grouped: bool, own: bool) -> None:
        """These entries, which are in the data, can be sent to replicas that lack them."""
        ...

    def restored(self, lineage: Lineage | None, offset: int, cursors: Cursors, local: bool, opens: bool) -> Lineage:
        """The data stand at this offset; the lineage from now on. The journal's offset is set."""
        ...


@attrs.define
class _Found:
    """What was loaded."""

    lineage: Lineage | None = None
    offset: int = 0
    cursors: Cursors = attrs.Factory(dict)
    local: bool = False
    # The append-only folder holds all of it; its last file holds nothing.
    is_in_folder: bool = False
    last_is_empty: bool = False
    unproven: Unproven | None = None


class PersistenceService:
    """Runs what :class:`Persistence` decides.

    :meth:`open` first, then :meth:`load`, then :meth:`run` for as long as the node works, then :meth:`finish`.
    ``applier`` is the store's. ``on_progress`` is told of a load that takes more than a second, about once a second.
    """

    def __init__(self, persistence: Persistence, applier: Applier, log: PersistenceLog) -> None:
        self._persistence = persistence
        self._applier = applier
        self._log = log
        self._limiter = trio.CapacityLimiter(THREADS)
        self._folder: AppendOnlyFolder | None = None
        self._lock: Lock | None = None
        #: Whether files with data were loaded at the start, whatever was in them.
        self.has_loaded = False
        self._sync_alarm = trio.Event()
        self._work_alarm = trio.Event()
        # Held while a sync is under way, and while an increment is begun; and while files come into use, by who may
        # take the other one then.
        self.syncing = trio.Lock()
        self.changing = trio.Lock()
        self.on_progress: Callable[[LoadFacts], None] = self._log_progress
        #: Called when a load has ended, before anything is said about it.
        self.on_loaded: Callable[[], None] | None = None
        persistence.on_work = self._wake

    def _wake(self) -> None:
        self._sync_alarm.set()
        self._work_alarm.set()

    @property
    def disk(self) -> Disk:
        """Where the files are."""
        return self._persistence.disk

    @property
    def keeps_file(self) -> bool:
        """Whether an append-only file is kept."""
        return self._persistence.writer is not None

    @property
    def problem(self) -> str:
        """Why nothing can be stored; empty while it can."""
        return self._persistence.problem

    async def in_thread(self, call: Callable[[], T]) -> T:
        """Call what may take long, and wait for it whatever happens."""
        if self._persistence.disk.blocks:
            return await trio.to_thread.run_sync(call, limiter=self._limiter)
        await trio.lowlevel.checkpoint()
        return call()

    # -- the start -----------------------------------------------------------------------------------------------------

    async def open(self, random_bits: Callable[[int], int], *, keeps_file: bool = True) -> str:
        """Take the data directory for this node alone, and read its append-only folder; the instance of the node.

        Without ``keeps_file`` the directory is taken for other files. Raises StartFailure.
        """
        persistence = self._persistence
        read = partial(read_instance, persistence.disk, persistence.data_dir, random_bits)
        with _start_failures():
            if not keeps_file:
                lock = partial(lock_data_dir, persistence.disk, persistence.data_dir)
                self._lock = await self.in_thread(lock)
                persistence.is_locked = True
                return await self.in_thread(read)
            folder = await self.in_thread(partial(AppendOnlyFolder.open, persistence.disk, persistence.data_dir))
            try:
                instance = await self.in_thread(read)
            except BaseException:
                folder.close()
                raise
        self._folder = folder
        # Clients may ask from now on.
        _Progress(self)(0, 0)
        return instance

    async def load(self, side: RestoringSide, *, opens: bool) -> None:
        """Load what there is, and go on from there: in an increment of its own, if the append-only file is kept.

        ``opens``: this node writes from now on, so that a new history begins, which is durable when this returns.
        Raises StartFailure.
        """
        with _start_failures():
            progress = _Progress(self)
            progress(0, 0)
            try:
                found = await self._load(side, progress)
                lineage = side.restored(found.lineage, found.offset, found.cursors, found.local, opens)
                self._persistence.lineage = lineage
                if self._folder is not None:
                    # It may take as long as the load: all that is in no append-only file is written to one.
                    await self._begin(self._folder, lineage, found)
            finally:
                self._persistence.loading = None

    async def _load(self, side: RestoringSide, progress: _Progress) -> _Found:
        persistence, folder = self._persistence, self._folder
        if folder is not None and not folder.is_empty:
            loaded = await self._exhaust(
                load(folder, persistence.store, self._applier, progress, partial(_restore, side))
            )
            self._report_load(loaded)
            self.has_loaded = True
            await self.in_thread(partial(sweep_dumps, persistence.disk, persistence.data_dir))
            return _Found(
                loaded.lineage,
                loaded.offset,
                loaded.cursors,
                loaded.local,
                True,
                loaded.last_is_empty,
                loaded.unproven,
            )
        if folder is None and self._has_stale_files():
            self._log.warning("append_only_ignored", data_dir=persistence.data_dir, reason="it is switched off")
        now_ms = persistence.store.now
        steps = load_dump(persistence.disk, persistence.data_dir, persistence.store, now_ms, progress)
        dump = await self._exhaust(steps)
        if dump is None:
            return _Found()
        self.has_loaded = True
        self._log.info("dump_loaded", keys=dump.keys, bytes=dump.bytes, checked=dump.is_checked)
        return _Found(dump.lineage, dump.offset, dump.cursors, dump.local)

    def _has_stale_files(self) -> bool:
        persistence = self._persistence
        path = posixpath.join(persistence.data_dir, FOLDER)
        try:
            return persistence.disk.exists(path) and read_manifest(persistence.disk, path) is not None
        except FolderError:
            return True

    async def _exhaust(self, steps: Generator[None, None, T]) -> T:
        """Take all steps, each in its own turn, so that clients are answered meanwhile; what they come to."""
        # Whatever ends the load, the file that it was reading is closed.
        with closing(steps):
            while True:
                try:
                    next(steps)
                except StopIteration as stop:
                    if self.on_loaded is not None:
                        self.on_loaded()
                    result: T = stop.value
                    return result
                await trio.lowlevel.checkpoint()

    def _report_load(self, loaded: Loaded) -> None:
        cut = loaded.cut
        if cut is not None:
            self._log.warning("append_only_cut", file=cut.path, offset=cut.offset, bytes=cut.bytes, reason=cut.reason)
        self._log.info("append_only_loaded", keys=loaded.keys, bytes=loaded.bytes, commands=loaded.commands)

    def _log_progress(self, facts: LoadFacts) -> None:
        percent = 100 * facts.loaded_bytes // max(facts.total_bytes, 1)
        self._log.info(
            "loading",
            percent=percent,
            bytes=facts.loaded_bytes,
            total=facts.total_bytes,
            keys=facts.keys,
            seconds=round(facts.seconds, 1),
        )

    async def _begin(self, folder: AppendOnlyFolder, lineage: Lineage, found: _Found) -> None:
        """Go on in an increment of this start's own; data that are in no append-only file get a base first."""
        persistence = self._persistence
        store = persistence.store
        writer = AppendOnlyWriter(folder, store.journal, lineage, found.cursors, persistence.settings.policy)
        try:
            if found.is_in_folder or not (len(store.keyspace) or store.journal.offset):
                await self._begin_increment(writer, found)
            else:
                await self._begin_base(writer)
        except BaseException:
            # Nobody else knows of it.
            writer.close()
            raise
        persistence.started(writer)
        await self.in_thread(folder.sweep)
        await self.in_thread(persistence.measure)

    async def _begin_increment(self, writer: AppendOnlyWriter, found: _Found) -> None:
        job = writer.begin_start(instead_of_last=found.last_is_empty, unproven=found.unproven)
        await self._run(job)
        if not writer.end_start(job):
            # As in a node that runs: the old files are not gone on with, and all data are written anew.
            self._log.error("append_only_failed", reason=writer.failed or "")
            await self._begin_base(writer)
            self._log.info("append_only_recovered")

    async def _begin_base(self, writer: AppendOnlyWriter) -> None:
        rewrite = Rewrite(writer, self._persistence.store, fresh=True)
        await self._carry_out(rewrite, lambda: False)
        if rewrite.failed is not None:
            raise StartFailure(rewrite.failed)

    # -- while the node runs -------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Sync and rewrite until cancelled. Whatever the disk does is logged, and never raised."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sync)
            nursery.start_soon(self._work)

    async def _sync(self) -> None:
        """Each second, and whenever somebody asks, write and sync what the policy says."""
        due = trio.current_time() + INTERVAL
        while True:
            self._sync_alarm = trio.Event()
            with trio.move_on_at(due):
                await self._sync_alarm.wait()
            passed = trio.current_time() >= due
            if passed:
                due = trio.current_time() + INTERVAL
                self._tick()
            # Somebody may have asked for another one while one was under way.
            while (job := self._begin_sync(each_second=passed)) is not None:
                passed = False
                try:
                    async with self.syncing:
                        await self._run(job)
                finally:
                    self._persistence.end_sync(job)

    @enable_ki_protection
    def _tick(self) -> None:
        self._persistence.tick()

    @enable_ki_protection
    def _begin_sync(self, *, each_second: bool = False, ahead: bool = False) -> SyncJob | None:
        return self._persistence.begin_sync(each_second=each_second, ahead=ahead)

    async def _work(self) -> None:
        """Do what is due, one thing after the other."""
        persistence = self._persistence
        while True:
            self._work_alarm = trio.Event()
            await self._close_retired()
            await self.sync_ahead(lambda: persistence.rewrite_is_due)
            work = self._begin_work()
            if work is None:
                with trio.move_on_after(persistence.seconds_until_work()):
                    await self._work_alarm.wait()
                continue
            try:
                await self._carry_out(work, lambda work=work: persistence.work is not work)  # type: ignore[misc]
            except trio.Cancelled:
                # The node ends, which is no failure of what it was about to do.
                persistence.work = None
                raise
            finally:
                persistence.end_work(work)
            if isinstance(work, Rewrite):
                await self._measure()

    async def sync_ahead(self, is_due: Callable[[], bool]) -> None:
        """Leave little to be synced when an increment is begun, if one is due: answers to writes wait for that.

        The first sync may take long, and much is written meanwhile; the second has that left.
        """
        for _ in range(2):
            async with self.syncing:
                job = self._begin_sync(ahead=True) if is_due() else None
                if job is None:
                    return
                try:
                    await self._run(job)
                finally:
                    self._persistence.end_sync(job)

    @enable_ki_protection
    def _begin_work(self) -> Work | None:
        return self._persistence.begin_work()

    async def _carry_out(self, work: Work, is_displaced: Callable[[], bool]) -> None:
        """Take the steps of a rewrite or a dump until they are done, or another one has begun, and close it."""
        try:
            steps = iter(work.steps())
            goes_on = True
            while goes_on:
                async with self.changing:
                    goes_on = not is_displaced() and await self._take_step(steps)
        finally:
            work.close()

    async def _take_step(self, steps: Iterator[Job | None]) -> bool:
        """Take the next step; whether there was one."""
        step = self._step(steps)
        if isinstance(step, IncrementJob):
            # It syncs what a sync of its own may just be at work on.
            async with self.syncing:
                await self._run(step)
        elif isinstance(step, Job):
            await self._run(step)
        return step is not _END

    @enable_ki_protection
    def _step(self, steps: Iterator[Job | None]) -> Job | object | None:
        """The next step. What the last job came to takes effect in it, so those who wait hear of it at once."""
        step = next(steps, _END)
        self._persistence.step_taken()
        return step

    async def _run(self, job: Job) -> None:
        await self.in_thread(job.run)

    @asynccontextmanager
    async def placing(self) -> AsyncIterator[Placing]:
        """A slice of data that takes the place of another one, on its way into the append-only file, if one is kept."""
        placing = Placing(self._persistence, self)
        try:
            yield placing
        finally:
            placing.close()
        await self._measure()

    async def _measure(self) -> None:
        try:
            await self.in_thread(self._persistence.measure)
        except OSError as error:
            self._log.warning("append_only_unmeasured", reason=str(error))

    async def _close_retired(self) -> None:
        """Finish the file of a writer that was switched off."""
        writer = self._persistence.retired
        if writer is None:
            return
        async with self.syncing:
            await self._sync_and_close(writer)
        self._persistence.retired_closed()

    # -- the end -------------------------------------------------------------------------------------------------------

    async def finish(self) -> None:
        """Write and sync what is left, and close the files; also if nothing was ever opened. Never cancelled."""
        with trio.CancelScope(shield=True):
            persistence = self._persistence
            for writer in (persistence.writer, persistence.retired):
                if writer is not None:
                    await self._sync_and_close(writer)
            persistence.writer = persistence.gate = persistence.retired = None
            folder, self._folder = self._folder, None
            if folder is not None:
                folder.close()
            if self._lock is not None:
                self._lock.release()

    async def _sync_and_close(self, writer: AppendOnlyWriter) -> None:
        writer.write()
        job = writer.begin_sync()
        if job is not None:
            try:
                await self._run(job)
            finally:
                writer.end_sync(job)
            if job.error is not None:
                self._log.error("append_only_unsynced", reason=str(job.error))
        elif writer.failed is not None:
            # Without trouble it is a base that was not complete: what was in use before it is as good as ever.
            tell = self._log.error if self._persistence.problem else self._log.warning
            tell("append_only_unsynced", reason=writer.failed)
        writer.close()
        writer.folder.close()


#: What comes behind the last step.
_END: Final = object()


class _Progress:
    """Notes how far a load has come, and reports it now and then."""

    def __init__(self, service: PersistenceService) -> None:
        self._service = service
        self._persistence = service._persistence
        self._began = self._reported = trio.current_time()
        self._started = self._persistence.store.now // 1000

    def __call__(self, loaded: int, total: int, keys: int | None = None) -> None:
        now = trio.current_time()
        count = len(self._persistence.store.keyspace) if keys is None else keys
        facts = LoadFacts(self._started, now - self._began, loaded, total, count)
        self._persistence.loading = facts
        if now - self._reported >= REPORT_EVERY:
            self._reported = now
            self._service.on_progress(facts)


def _restore(side: RestoringSide, entries: Entries, origin: Origin | None) -> None:
    side.restore_entries(entries.first, entries.commands, entries.next, entries.grouped, origin is None)


@contextmanager
def _start_failures() -> Iterator[None]:
    """Turn what is wrong with the files into one line about it."""
    try:
        yield
    except LoadError as error:
        # Where it is known from which byte on a file is wrong, something may be done about it.
        command = f"kevynode check-aof {posixpath.dirname(error.path)}"
        advice = f". `{command}` says what can be done about it" if error.offset else ""
        raise StartFailure(f"{error}{advice}") from error
    except (FolderError, DumpError, InstanceError) as error:
        raise StartFailure(str(error)) from error
    except OSError as error:
        raise StartFailure(f"{error.filename or 'the data directory'}: {error.strerror or error}") from error
