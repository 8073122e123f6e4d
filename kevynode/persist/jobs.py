"""The work for the disk that takes long, as the writer and a rewrite hand it out: made and ended in the store's thread,
run in any.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from .folder import AppendOnlyFolder, LogFile
from .unproven import Unproven, write_again

__all__ = ["FreshJob", "IncrementJob", "Job", "SyncJob"]


class Job:
    """Work for the disk that takes long. Whoever makes it has :meth:`run` called once, in whatever thread."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.error: OSError | None = None
        self.has_run = False
        self._work = work

    def run(self) -> None:
        """Do it. Never raises OSError: ``error`` holds it."""
        try:
            self._work()
        except OSError as error:
            self.error = error
        self.has_run = True

    @property
    def succeeded(self) -> bool:
        """Whether it has been done."""
        return self.has_run and self.error is None


class SyncJob(Job):
    """A sync of the file, and up to where the journal is durable when it has succeeded."""

    def __init__(self, file: LogFile, mark: int, offset: int) -> None:
        super().__init__(file.sync)
        self.file = file
        self.mark = mark
        self.offset = offset


class IncrementJob(Job):
    """A new increment behind ``old``, or behind what was found; it begins at ``offset``.

    ``unproven``: what of the file that was found last may not be on the disk, and is to be before anything follows it.
    ``placement`` comes into use before it, with the entries that the journal has made between the two. ``increment`` is
    set once the manifest names it, durably or not.
    """

    def __init__(
        self,
        folder: AppendOnlyFolder,
        old: LogFile | None,
        create: Callable[[], LogFile],
        mark: int,
        offset: int,
        *,
        instead_of_last: bool = False,
        unproven: Unproven | None = None,
        placement: LogFile | None = None,
    ) -> None:
        super().__init__(self._change)
        self.mark = mark
        self.offset = offset
        self.increment: LogFile | None = None
        self._folder = folder
        self._old = old
        self._create = create
        self._instead_of_last = instead_of_last
        self._unproven = unproven
        self._placement = placement

    def _change(self) -> None:
        folder = self._folder
        if self._old is not None:
            self._old.sync()
        if self._unproven is not None:
            write_again(folder.disk, self._unproven)
        increment = self._create()
        try:
            folder.use_increment(increment, instead_of_last=self._instead_of_last, placement=self._placement)
        finally:
            if folder.names(increment):
                self.increment = increment
            else:
                folder.discard(increment)

    @property
    def is_harmless(self) -> bool:
        """Whether nothing has come of it, and the old increment is as good as before.

        Not if entries were made that are nowhere but in the placement.
        """
        old = self._old
        return (
            self.increment is None
            and self._placement is None
            and old is not None
            and (not self.has_run or old.synced == old.size)
        )


class FreshJob(Job):
    """A new base of ``commands`` coming into use with the increment that the writer writes to."""

    def __init__(
        self, folder: AppendOnlyFolder, base: LogFile, commands: int, file: LogFile, mark: int, offset: int
    ) -> None:
        work = partial(folder.use_base, base, commands, keep_from=file.sequence, increment=file)
        super().__init__(work)
        self.file = file
        self.mark = mark
        self.offset = offset
