"""Which answers may leave a node, and which entries may go to replicas, while its files say what has been kept.

A promise is that what was acknowledged is in the file (``everysec``, ``no``: it outlives this process, however that
ends) or on the disk (``always``: it outlives a loss of power). It is made by letting an answer leave, so each round of
answers asks here before. What cannot be promised yet is held; what cannot be promised at all is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, Protocol

from .writer import AppendOnlyWriter

__all__ = ["MOST_EXPOSED", "Gate", "Writing"]

#: Seconds that a write may be acknowledged and not durable with ``everysec``: then its answer waits for the disk.
MOST_EXPOSED: Final = 2.0


class Writing(Protocol):
    """A session, as its answers are judged. ``wrote`` is the offset behind its last write, 0 before the first."""

    wrote: int


class Gate:
    """The promises of one writer. ``monotonic`` gives seconds; ``is_copy`` says whether this node is a replica.

    ``on_failure`` is called when the writer turns out to have failed, ``on_durable`` when more has become durable.
    """

    def __init__(
        self,
        writer: AppendOnlyWriter,
        monotonic: Callable[[], float],
        is_copy: Callable[[], bool],
        *,
        promises: bool = True,
    ) -> None:
        self._writer = writer
        self._now = monotonic
        self._is_copy = is_copy
        #: Whether answers depend on the file: not while it is being written for the first time in a node that runs.
        self.promises = promises
        self.on_failure: Callable[[], None] | None = None
        self.on_durable: Callable[[], None] | None = None
        #: How often answers had to wait because a sync took too long.
        self.delayed = 0
        #: Whether answers, and entries for replicas, were told to wait, and have not been told to ask again.
        self.answers_wait = self.entries_wait = False
        # All that had been committed before the last round may be answered, and nothing has changed since.
        self._open = True
        self._late = False
        # All that had been committed by then was durable later.
        self._durable_as_of = monotonic()
        # The lineage is written, and a sync that covers it has yet to begin, or to end.
        self._lineage_due = self._lineage_covered = False
        # What could not be written when the writer failed: behind the first offset, up to the second.
        self._lost: tuple[int, int] | None = None

    # -- answers ------------------------------------------------------------------------------------------------------

    def before_answers(self) -> bool:
        """Write what has been committed; whether the answers of all that has run so far may leave."""
        writer = self._writer
        if self._open and not writer.has_pending and not self._has_failed:
            return True
        self.hand_over()
        self._open = self._may_all_leave()
        self.answers_wait = self.answers_wait or not self._open
        return self._open

    def verdict(self, session: Writing) -> Literal["send", "hold", "drop"]:
        """What is to become of the answers of one session, right after :meth:`before_answers` has said no."""
        writer = self._writer
        if self._lost is not None:
            kept, lost = self._lost
            return "drop" if kept < session.wrote <= lost else "send"
        if writer.policy == "always":
            # What it read may be what is not durable.
            return "hold"
        return "send" if session.wrote <= writer.written_offset and not self._is_late(session) else "hold"

    def _is_late(self, session: Writing) -> bool:
        return self._late and session.wrote > self._writer.durable_offset

    def _may_all_leave(self) -> bool:
        writer = self._writer
        if not self.promises:
            return True
        if self._lost is not None:
            return False
        if writer.is_fresh_running and self._is_copy():
            # What it holds was promised by the node that it copies.
            return True
        self._look_at_the_clock()
        return not self._late and writer.reply_mark >= writer.mark

    def _look_at_the_clock(self) -> None:
        """See whether the disk is so slow that too much would be exposed. Only with ``everysec`` it may be."""
        writer = self._writer
        late = (
            writer.policy == "everysec"
            and writer.durable_mark < writer.mark
            and self._now() - self._durable_as_of > MOST_EXPOSED
        )
        if late and not self._late:
            self.delayed += 1
        self._late = late

    @property
    def has_pending(self) -> bool:
        """Whether anything has been committed and not been written."""
        return self._writer.has_pending

    # -- entries for replicas -----------------------------------------------------------------------------------------

    def may_ship(self) -> bool:
        """Write what has been committed; whether all of it, and the lineage, may be told to replicas now."""
        writer = self._writer
        if writer.has_pending or writer.reply_mark < writer.mark:
            self.hand_over()
        if not self.promises:
            return True
        if self._lost is not None or self._lineage_due or self._lineage_covered:
            may = False
        elif writer.is_fresh_running:
            may = self._is_copy()
        else:
            may = writer.reply_mark >= writer.mark
        self.entries_wait = self.entries_wait or not may
        return may

    def lineage_changed(self) -> None:
        """A lineage was noted, which no replica may hear of before it is durable. A sync is called for at once."""
        self._lineage_due = True
        self._lineage_covered = False

    @property
    def needs_sync(self) -> bool:
        """Whether a sync is due whatever the policy says."""
        return self._lineage_due

    def policy_changed(self) -> None:
        """What may be answered is to be seen anew: what has been answered by the old policy may be less durable."""
        self._open = False

    # -- what happens to the file -------------------------------------------------------------------------------------

    def write(self) -> None:
        """Write what has been committed and nobody waits for yet: who asks next has it made durable with ``always``."""
        writer = self._writer
        if writer.policy == "everysec" and writer.durable_mark == writer.written_mark:
            self._durable_as_of = self._now()
        writer.write()
        self._open = self._open and writer.reply_mark >= writer.mark
        self.notice()

    def hand_over(self) -> None:
        """Write what has been committed; with ``always`` make it durable, for everybody at once."""
        self.write()
        writer = self._writer
        if writer.policy == "always" and writer.durable_mark < writer.mark:
            job = writer.begin_sync()
            if job is not None:
                self.sync_begins()
                job.run()
                writer.end_sync(job)
                self.sync_ended(job.succeeded, self._now())

    def sync_begins(self) -> None:
        """A sync is about to begin: what has been written by now is covered by it."""
        if self._lineage_due:
            self._lineage_due, self._lineage_covered = False, True

    def sync_ended(self, succeeded: bool, began: float) -> None:
        """A sync that ``began`` then has ended."""
        if not succeeded:
            self._lineage_due = self._lineage_due or self._lineage_covered
            self._lineage_covered = False
            self.notice()
            return
        self._lineage_covered = False
        self._durable_as_of = began
        self.progress()

    def all_is_durable(self) -> None:
        """There is nothing to sync: a change of files has made durable what was written, the lineage included."""
        self._lineage_due = self._lineage_covered = False

    def progress(self) -> None:
        """More may be durable than before."""
        if self.on_durable is not None:
            self.on_durable()

    def notice(self) -> None:
        """See whether the writer has failed, and since when what has been answered is not so."""
        writer = self._writer
        if not self._has_failed or self._lost is not None or not self.promises:
            return
        kept = writer.durable_offset if writer.policy == "always" else writer.written_offset
        self._lost = (kept, writer.offset)
        self._open = False
        if self.on_failure is not None:
            self.on_failure()

    @property
    def _has_failed(self) -> bool:
        """Whether nothing is recorded any more. A writer that begins anew says only why, not that it does not work."""
        return self._writer.failed is not None and not self._writer.is_fresh_running

    def recovered(self) -> None:
        """All data is in files that are in use: what could not be promised is."""
        self._lost = None
        self.promises = True
        self._durable_as_of = self._now()
        self.progress()
