"""Brings a slice of data that takes the place of another one into the append-only file, while others go on writing.

Written as one group at the moment of the exchange, a large slice would hold everybody up for as long as it takes to
encode and to write. So its entries are written beforehand, to a **placement**: an increment that is not in use. In the
step that makes them in memory the writer passes them over; then one swap of the manifest brings the placement into use,
and behind it a new increment, where the writer goes on. Whatever is cut off in between finds the old data or the new.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import trio
from trio.lowlevel import enable_ki_protection

from ..store.journal import Observer
from ..twins import COMPILED
from .folder import LogFile
from .jobs import IncrementJob
from .persistence import Persistence
from .writer import AppendOnlyWriter

if COMPILED:
    from ..compiled.records import encode_commands
else:
    from .records import encode_commands

__all__ = ["Placing"]

#: Bytes of a placement that are written at once.
_PIECE: Final = 256 * 1024
#: Bytes of entries below which they are no matter: they go the way of any other group.
_SMALL: Final = 64 * 1024


class FileTasks(Protocol):
    """What is done with the files besides."""

    #: Held by who changes which files are in use, and by who syncs them; the first before the second.
    changing: trio.Lock
    syncing: trio.Lock

    async def in_thread(self, call: Callable[[], Any], /) -> Any:
        """Call what may take long, and wait for it whatever happens."""

    async def sync_ahead(self, is_due: Callable[[], bool]) -> None:
        """Leave little to be synced when an increment begins."""


class Placing:
    """One slice on its way into the files: :meth:`add` its entries in order, then :meth:`use`. Close it in any case."""

    def __init__(self, persistence: Persistence, tasks: FileTasks) -> None:
        self._persistence = persistence
        self._tasks = tasks
        writer = persistence.writer
        # Where entries must wait for a base to be complete, these wait with them.
        is_usable = writer is not None and writer.failed is None and not writer.is_fresh_running
        self._writer: AppendOnlyWriter | None = writer if is_usable else None
        self._placement: LogFile | None = None
        self._pieces: list[bytes] = []
        self._waiting = 0
        self._commands = 0
        self._failure: Exception | None = None
        persistence.placing += 1
        self._is_open = True

    def close(self) -> None:
        """Leave nothing behind that is not in use; a second call does nothing."""
        if self._is_open:
            self._is_open = False
            self._persistence.placing -= 1
            self._discard()
            self._persistence.rewrite_may_begin()

    def _discard(self) -> None:
        placement, self._placement = self._placement, None
        if placement is not None and self._writer is not None:
            self._writer.folder.discard(placement)
        self._pieces.clear()

    async def add(self, commands: Sequence[Sequence[bytes]]) -> None:
        """The next entries. Waits for the disk now and then. Raises OSError; the slice cannot be put in place then."""
        if self._writer is None or not commands:
            return
        data = encode_commands(commands)
        self._pieces.append(data)
        self._waiting += len(data)
        self._commands += len(commands)
        if self._waiting >= _PIECE:
            await self._write()

    async def _write(self) -> None:
        """Hand to the system what waits."""
        writer = self._writer
        assert writer is not None
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._waiting = 0
        await self._tasks.in_thread(lambda: self._append(writer, data))

    def _append(self, writer: AppendOnlyWriter, data: bytes) -> None:
        """Write a piece; in a thread."""
        if self._placement is None:
            self._placement = writer.folder.create_placement()
        self._placement.write(data)

    def _complete(self) -> None:
        """Have the placement complete and durable; in a thread."""
        assert self._placement is not None
        self._placement.end(self._commands)
        self._placement.sync()

    @property
    def passing(self) -> tuple[Observer, ...]:
        """The observers of the journal to whom the entries will mean nothing, if they go the way that they should."""
        return () if self._writer is None else (self._writer.observe,)

    async def use(self, commit: Callable[[tuple[Observer, ...]], None], is_true: Callable[[], bool]) -> None:
        """Call ``commit``, which makes the entries in one group of the journal, and have them in a file in use.

        It gets the observers of the journal that only count them. ``is_true`` is asked in the same step before: whether
        they will be exactly those that were added. Raises OSError, or Cancelled, before ``commit`` is called; what that
        raises is raised behind it. When this returns, the entries are as durable as any others, or the writer has
        failed and says so.
        """
        if self._placement is None and self._waiting < _SMALL:
            self._discard()
            commit(())
            return
        await self._write()
        await self._tasks.in_thread(self._complete)
        if not await self._use_placement(commit, is_true):
            self._discard()
            commit(())
        if self._failure is not None:
            raise self._failure

    async def _use_placement(self, commit: Callable[[tuple[Observer, ...]], None], is_true: Callable[[], bool]) -> bool:
        """Have the placement come into use, if that is possible now; otherwise nothing has been done."""
        writer, placement, tasks = self._writer, self._placement, self._tasks
        assert writer is not None
        assert placement is not None
        while True:
            await tasks.sync_ahead(lambda: self._is_in_use(writer))
            async with tasks.changing, tasks.syncing:
                if self._is_in_use(writer) and writer.is_changing and not writer.is_fresh_running:
                    # Somebody is about to begin an increment, and waits for this lock.
                    continue
                with trio.CancelScope(shield=True):
                    job = self._begin(writer, placement, commit) if is_true() else None
                    if job is None:
                        return False
                    try:
                        await tasks.in_thread(job.run)
                    finally:
                        self._end(writer, job)
                return True

    def _is_in_use(self, writer: AppendOnlyWriter) -> bool:
        """Whether it is still the one that the node writes with."""
        return self._persistence.writer is writer and writer.failed is None

    @enable_ki_protection
    def _begin(
        self, writer: AppendOnlyWriter, placement: LogFile, commit: Callable[[tuple[Observer, ...]], None]
    ) -> IncrementJob | None:
        def guarded() -> None:
            try:
                commit(self.passing)
            except Exception as error:
                self._failure = error

        if not self._is_in_use(writer):
            return None
        try:
            return writer.begin_placement_use(placement, self._commands, guarded)
        finally:
            # It may have failed.
            self._persistence.step_taken()

    @enable_ki_protection
    def _end(self, writer: AppendOnlyWriter, job: IncrementJob) -> None:
        writer.end_increment(job)
        self._persistence.step_taken()
