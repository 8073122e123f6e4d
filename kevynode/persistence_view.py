"""What clients may see of the node's files, and ask of them: the seam between commands and persistence.

The node puts an object of this shape into ``Server.persistence``. ``serve`` knows nothing else of files.
"""

from __future__ import annotations

from typing import Final, Literal, Protocol

import attrs

from .errors import ErrorKind

__all__ = [
    "REWRITE_RUNNING",
    "SAVE_RUNNING",
    "WAIT_FOR_ITS_END",
    "AppendOnlyFacts",
    "DumpFacts",
    "LoadFacts",
    "PersistenceView",
]

#: What to do about an answer that says that something else is under way.
WAIT_FOR_ITS_END: Final = "Wait until that has ended, and send it again."
REWRITE_RUNNING: Final = ErrorKind("ERR", "Background append only file rewriting already in progress", WAIT_FOR_ITS_END)
SAVE_RUNNING: Final = ErrorKind("ERR", "Background save already in progress", WAIT_FOR_ITS_END)


@attrs.frozen
class AppendOnlyFacts:
    """The append-only file. Sizes in bytes, times in seconds; None: there was none, or none is under way."""

    #: Whether it is kept. The other facts hold while it is.
    enabled: bool
    #: Of all files, and of the base that the last rewrite left.
    size: int = 0
    base_size: int = 0
    #: How long the running rewrite lasts, and how long the last one took.
    rewrite_running: float | None = None
    last_rewrite: float | None = None
    #: Whether the last rewrite came to something, and how many did since the start; how many came to nothing since.
    last_rewrite_ok: bool = True
    rewrites: int = 0
    failed_rewrites: int = 0
    #: A rewrite is due, and begins when what is in its way has ended.
    rewrite_scheduled: bool = False
    #: Why nothing can be written, empty while it can: writes are refused with this reason.
    problem: str = ""
    #: Whether a sync is under way, and how often answers had to wait because one took too long.
    sync_running: bool = False
    delayed_syncs: int = 0
    #: Groups of changes that wait to be written.
    waiting: int = 0


@attrs.frozen
class DumpFacts:
    """Dumps: all data in one file, by SAVE, BGSAVE or SHUTDOWN SAVE. Seconds; ``last_save`` in unix seconds."""

    last_save: int
    #: Changes since then.
    changes: int = 0
    running: float | None = None
    last_duration: float | None = None
    last_ok: bool = True
    saves: int = 0
    scheduled: bool = False


@attrs.frozen
class LoadFacts:
    """The load at the start, while it lasts. ``started`` in unix seconds, ``seconds`` since then."""

    started: int
    seconds: float
    loaded_bytes: int
    total_bytes: int
    keys: int


class PersistenceView(Protocol):
    """Persistence, as the commands of a node use it. Nothing here blocks or checkpoints."""

    def append_only(self) -> AppendOnlyFacts: ...

    def dumps(self) -> DumpFacts: ...

    def load(self) -> LoadFacts | None:
        """The load under way; None: all that there was has been loaded."""
        ...

    def is_durable(self, offset: int) -> bool:
        """Whether everything before ``offset`` of the running history would outlive a loss of power.

        ``Server.durable_advanced()`` is called when that changes, and when the append-only file is switched off.
        """
        ...

    def rewrite(self) -> Literal["started", "scheduled"]:
        """Begin to rewrite the append-only file, or do so when what is in the way has ended.

        Raises ReplyError while one is under way, and without an append-only file. Like :meth:`save` it may be called
        inside EXEC, between changes that are not committed yet: what it writes begins behind them.
        """
        ...

    def save(self, *, schedule: bool = False) -> Literal["started", "scheduled"]:
        """Begin to write a dump. Raises ReplyError if one is being written, or a rewrite is under way.

        ``schedule``: in the latter case do it later. ``Server.dump_ended()`` is called when one has ended, well or
        not, and before the next begins.
        """
        ...

    def cancel_save(self) -> Literal["running", "scheduled"] | None:
        """Give up the dump that is being written, or the one that waits for its turn; which of them, or None.

        It ends at once or soon, with ``Server.dump_ended()``. That it was given up is no failure of dumps.
        """
        ...
