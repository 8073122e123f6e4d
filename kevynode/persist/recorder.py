"""Takes the groups that the journal commits, and keeps them as records of the append-only file until they are written.

What :class:`~kevynode.persist.writer.AppendOnlyWriter` does before anything touches a disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..replicate.lineage import Lineage
from ..reply import BULK_HEADERS
from ..store.journal import Effect, Journal, Origin
from ..twins import COMPILED
from .annotations import GroupSpan, Local, MadeBy, Position, UpstreamCursor
from .folder import Cursors
from .records import EXEC, MULTI

if COMPILED:
    from ..compiled.records import encode_commands
else:
    from .records import encode_commands

__all__ = ["MOST_PARTS", "JournalRecorder"]

# No origin of entries is this one.
_NOBODY: Final = Origin("", -1)
#: Parts of records that are joined at the latest: what is written at once is held until its digest is known right.
MOST_PARTS: Final = 7 * 1024
# How the records of commands of three words begin, by their name, of which there are not many.
_HEADS: Final[dict[bytes, bytes]] = {}
_MOST_HEADS: Final = 1024


class JournalRecorder:
    """What has been observed of a journal and not been written.

    ``lineage`` is the node's. ``cursors`` holds, by upstream, history and next offset of those whose entries are
    renumbered here. ``failed`` is why nothing is recorded, or None.
    """

    __slots__ = (
        "_journal",
        "_local",
        "_origin",
        "_parts",
        "_pieces",
        "_plain_origin",
        "_records",
        "_stopped",
        "cursors",
        "failed",
        "lineage",
        "mark",
        "next_cursor",
        "offset",
    )

    def __init__(self, journal: Journal, lineage: Lineage, cursors: Cursors | None) -> None:
        self.lineage = lineage
        self.cursors: dict[str, tuple[int, int]] = dict(cursors or {})
        self.failed: str | None = None
        #: Where the upstream of the next group stands behind it; set before that group is committed.
        self.next_cursor: UpstreamCursor | None = None
        #: The next offset, as far as groups have been observed.
        self.offset = journal.offset
        self._journal = journal
        # Whether what is observed is kept for a file.
        self._records = False
        # What has been observed and not written, as bytes of the file: pieces, each to be written at once, and behind
        # them the parts of one that grows.
        self._pieces: list[bytes] = []
        self._parts: list[bytes] = []
        #: The number of groups that have been observed.
        self.mark = 0
        # Who made the last entries, and the same if their groups need no second look.
        self._origin: Origin | None = None
        self._plain_origin: Origin | None = None
        # What the journal commits is none of its business any more.
        self._stopped = False
        # What the file says of writes beside the stream (Journal.outside).
        self._local = False
        journal.observers.append(self.observe)

    @property
    def has_pending(self) -> bool:
        """Whether anything is observed that has not been handed to the system."""
        if self._parts or self._pieces:
            return True
        return self._records and not self._stopped and self._journal.offset != self.offset

    def stop(self) -> None:
        """Observe no more, and write down nothing but what has been observed; a second call does nothing."""
        self._stopped = True
        if self.observe in self._journal.observers:
            self._journal.observers.remove(self.observe)

    def observe(self, first: int, group: list[Effect]) -> None:
        """Take a group that the journal has committed. Never raises."""
        journal = self._journal
        following = journal.offset
        if (
            following - 1 == first == self.offset
            and journal.origin is self._plain_origin
            and self.next_cursor is None
            and self._records
            and len(group) == 1
        ):
            parts = self._parts
            command = group[0][0]
            try:
                # What nearly every write is, without the calls.
                name, key, value = command
                parts += (
                    _HEADS[name],
                    BULK_HEADERS[len(key)],
                    key,
                    b"\r\n",
                    BULK_HEADERS[len(value)],
                    value,
                    b"\r\n",
                )
            except (ValueError, KeyError, IndexError):
                # Not three words, a name that is new, or a word longer than the table of headers.
                parts.append(encode_commands(group[0][:1]))
                _learn(command)
            self.offset = following
            self.mark += 1
            if len(parts) > MOST_PARTS:
                self.end_piece()
        else:
            self._observe(first, following, group)

    def _observe(self, first: int, following: int, group: list[Effect]) -> None:
        """Take a group that is not just the next one of the same origin."""
        origin = self._journal.origin
        cursor = self._advance(origin, len(group))
        behind, self.offset = self.offset, following
        self.mark += 1
        if not self._records:
            return
        if first < behind or following < behind:
            self._fail(f"the journal went back from offset {behind} to {following}, and no new base was begun")
            return
        self._note_local()
        parts = self._parts
        if origin != self._origin:
            parts.append(MadeBy(origin).line())
            self._origin = origin
        # Entries of an upstream move its cursor.
        self._plain_origin = origin if origin is None or origin.upstream not in self.cursors else _NOBODY
        within = b""
        if cursor is not None:
            if len(group) > 1:
                within = cursor.line()
            else:
                # It counts together with the entry behind it.
                parts.append(cursor._replace(offset=max(cursor.offset - 1, 0)).line())
        if following - behind != len(group):
            parts.append(GroupSpan(following).line())
        commands = encode_commands([effect[0] for effect in group])
        if len(group) == 1:
            parts.append(commands)
        else:
            parts += (MULTI, within, commands, EXEC)
        if len(parts) > MOST_PARTS:
            self.end_piece()

    def _advance(self, origin: Origin | None, entries: int) -> UpstreamCursor | None:
        """Move the cursor of the origin behind its group; the cursor if it must be told to be known."""
        told, self.next_cursor = self.next_cursor, None
        if origin is None:
            return None
        known = self.cursors.get(origin.upstream)
        if known is not None and known[0] == origin.history:
            known = (known[0], known[1] + entries)
            self.cursors[origin.upstream] = known
        if told is None:
            return None
        self.cursors[told.upstream] = (told.history, told.offset)
        return None if known == (told.history, told.offset) else told

    def note_lineage(self, lineage: Lineage) -> None:
        """The next entry belongs to the history that ``lineage`` begins with, at the journal's offset.

        The offset must not go back; where all data is replaced a fresh rewrite is begun instead, after this.
        """
        if lineage == self.lineage:
            return
        self.lineage = lineage
        if self._records and self._journal.offset >= self.offset:
            self._note_position()

    def note_cursor(self, cursor: UpstreamCursor) -> None:
        """An upstream's entries are in here up to its cursor, and it begins to be tracked; no entry needs to follow."""
        self.cursors[cursor.upstream] = (cursor.history, cursor.offset)
        self._plain_origin = _NOBODY
        if self._records:
            self._parts.append(cursor.line())

    def _note_local(self) -> None:
        """Say it where writes have been made beside the stream, and where they count no more."""
        if not self._stopped and self._journal.outside != self._local:
            self._local = self._journal.outside
            self._parts.append(Local(self._local).line())

    def _note_position(self) -> None:
        offset = self._journal.offset
        self._parts.append(Position(self.lineage, offset, self.offset).line())
        self.offset = offset

    def end_piece(self) -> None:
        """What follows is written by itself. Not within a group."""
        self._pieces.append(b"".join(self._parts))
        self._parts.clear()

    def _fail(self, reason: str) -> None:
        """Nothing is recorded any more."""
        self.failed = reason
        self._records = False
        self._forget()

    def _forget(self) -> None:
        self._pieces.clear()
        self._parts.clear()


def _learn(command: Sequence[bytes]) -> None:
    """Have the beginning of such records at hand from now on."""
    if len(command) == 3 and len(_HEADS) < _MOST_HEADS and len(command[0]) < len(BULK_HEADERS):
        name = command[0]
        _HEADS[name] = b"*3\r\n%b%b\r\n" % (BULK_HEADERS[len(name)], name)
