"""Writes the data anew, as one base, and lets it take the place of all that led there.

:class:`Rewrite` is a sequence of steps. Each item of :meth:`Rewrite.steps` is None, after about a millisecond's work,
or a :class:`~kevynode.persist.jobs.Job` that must have run before the next one is asked for::

    rewrite = Rewrite(writer, store)      # between two commands; freezes the data
    try:
        for job in rewrite.steps():
            if job is None:
                await checkpoint()
            else:
                await to_thread.run_sync(job.run)
    finally:
        rewrite.close()
    if rewrite.failed: ...
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from functools import partial
from typing import Final

from ..store.store import Store
from .base import encode_base
from .folder import LogFile
from .jobs import IncrementJob, Job
from .writer import AppendOnlyWriter

__all__ = ["Rewrite", "should_rewrite"]

#: Bytes of a base between two syncs, so that the last one has little to do.
_SYNC: Final = 8 * 1024 * 1024


def should_rewrite(size: int, base_size: int, percentage: int, min_size: int) -> bool:
    """Whether files of ``size`` bytes in all have outgrown what the last rewrite left, ``base_size`` bytes.

    As Valkey: above ``min_size`` and grown by ``percentage`` percent; 0 percent means never.
    """
    if percentage <= 0 or size <= min_size:
        return False
    return (size - base_size) * 100 >= max(base_size, 1) * percentage


class Rewrite:
    """One rewrite of the data in ``store`` as of now. Made between two commands; touches no disk until :meth:`steps`.

    With ``fresh`` nothing of the present files is needed: it is what follows a failure, a replacement of all data, or
    the wish to begin. Otherwise an increment is begun first, and a failure leaves everything as it was; not while the
    writer has failed. ``failed`` says why it came to nothing; None while it runs, and if it succeeded.
    """

    def __init__(self, writer: AppendOnlyWriter, store: Store, *, fresh: bool = False) -> None:
        self.fresh = fresh
        self.failed: str | None = None
        self.done = False
        # The increment that begins where the base stands.
        self._kept = 0
        #: Keys of the data, and commands written so far.
        self.keys = len(store.keyspace)
        self.commands = 0
        #: Bytes of the base so far.
        self.size = 0
        self._writer = writer
        self._folder = writer.folder
        self._base: LogFile | None = None
        self._steps: Generator[Job | None, None, None] | None = None
        self._change: IncrementJob | None = None
        self._number = 0
        if fresh:
            self._number = writer.begin_fresh()
        else:
            self._change = writer.begin_increment()
            if self._change is None:
                self.failed = writer.failed or "the append-only file cannot be written to now"
        # Where the base stands: everything before this offset.
        self._create = partial(
            self._folder.create_base,
            writer.lineage,
            writer.offset,
            dict(writer.cursors),
            local=store.journal.outside,
        )
        self._shards = [] if self.failed else store.freeze()

    def steps(self) -> Iterator[Job | None]:
        """See the module. Never raises OSError."""
        if self.failed is None and self._steps is None:
            self._steps = self._run()
        return iter(()) if self._steps is None else self._steps

    def close(self) -> None:
        """Nobody goes on with it: if it is not done what was in use stays, and what has been written is removed.

        No job may be under way. After a fresh rewrite that was not done the writer has failed.
        """
        if self._steps is not None:
            self._steps.close()
        if not self.done:
            if self._change is not None:
                # Nobody has asked for the first step.
                self._writer.end_increment(self._change)
            self._fail("the rewrite was given up")
        self._shards.clear()

    def _fail(self, reason: str) -> None:
        if self.failed is None:
            self.failed = reason
        if self._base is not None:
            self._folder.discard(self._base)
            self._base = None
        if self.fresh:
            self._writer.abandon_fresh(self._number, self.failed)

    # -- the steps ----------------------------------------------------------------------------------------------------

    def _run(self) -> Generator[Job | None, None, None]:
        try:
            if not (yield from self._begin()):
                return
            try:
                self._base = self._create()
                yield from self._write()
            except OSError as error:
                self._fail(f"writing a new base failed: {error.strerror or error}")
                return
            yield from self._use()
        finally:
            if not self.done:
                self._fail("the rewrite was given up")

    def _begin(self) -> Generator[Job | None, None, bool]:
        """Have the entries from now on go where they are not in the way; whether they do."""
        writer, change = self._writer, self._change
        if change is None:
            if not writer.fresh_goes_on(self._number) or not writer.open_fresh():
                self._fail(writer.failed or "")
                return False
            return True
        self._change = None
        in_use = False
        try:
            yield change
        finally:
            in_use = writer.end_increment(change)
            if change.increment is not None:
                self._kept = change.increment.sequence
        if not in_use:
            self._fail(writer.failed or f"a new increment could not be begun: {change.error or 'given up'}")
        return in_use

    def _write(self) -> Generator[Job | None, None, None]:
        """Write all but the end of the base. Raises OSError."""
        base = self._base
        assert base is not None
        synced = 0
        for piece in encode_base(self._shards):
            self._check()
            if piece.is_whole:
                base.write(piece.data)
            else:
                base.write_part(piece.data)
            self.commands += piece.commands
            self.size = base.size
            if base.size - synced >= _SYNC:
                synced = base.size
                job = Job(base.sync)
                yield job
                if job.error is not None:
                    raise job.error
            else:
                yield None
        self._check()

    def _check(self) -> None:
        """Raise OSError if the increment beside a fresh base has failed: the base would be of no use."""
        if self.fresh and not self._writer.fresh_goes_on(self._number):
            raise OSError(self._writer.failed or "another one has begun")

    def _use(self) -> Generator[Job | None, None, None]:
        """Bring the base into use."""
        base = self._base
        assert base is not None
        writer = self._writer
        if self.fresh:
            fresh = writer.begin_use(base, self.commands)
            if fresh is None:
                self._fail(writer.failed or "")
                return
            try:
                yield fresh
            finally:
                self.done = writer.end_use(fresh)
            error = fresh.error
        else:
            job = Job(partial(self._folder.use_base, base, self.commands, keep_from=self._kept))
            yield job
            self.done = job.succeeded
            error = job.error
        if self.done:
            self._base = None
        else:
            self._fail(f"a new base could not be brought into use: {error or 'given up'}")
