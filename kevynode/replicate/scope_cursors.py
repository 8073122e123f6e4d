"""Where the copies of one writer's scopes stand: how far its stream has been applied, and which prefixes are whole.

All prefixes of a writer come on one stream, so there is one place in that stream. A prefix is **whole** from the ship
that brought it on; entries of it before that ship are in the ship. One that is not whole has to be shipped before
anything in the stream means something for it.

The files are told the same in the words that they have: a cursor under the upstream's address is the place in its
stream, and one under ``address/<hex prefix>`` says that this prefix is whole, and from where in which history on. Only
the history that the stream's own cursor names counts: when it changes, every prefix is told anew. What is told of a
prefix is forgotten before its data are touched and told again behind them, so at every end of the file the data of a
prefix are old or new as a whole, and have no other cursor than the one that belongs to them; at worst none, and then
they are shipped once more.

One under ``address/<hex prefix>@<epoch>`` says that what is here is all that the last writer of the prefix wrote, which
released it in that epoch to the one at this address: everything before the offset of that last writer's history.

One under ``address/<hex prefix>+<epoch>`` says that what is here is a whole copy of what an earlier writer, who was so
since the epoch, had written before the offset of that history. The one at this address writes the prefix now, and
nothing of it is here yet; what is may be the best copy that there is. Without an address: who writes it now is no
declared node, or it is not copied from him, or it is this node, which has not taken writes of it yet.

A node may be declared at another address from one start to the next, as when it has come back on a new machine. What
is found under an address at which nobody is declared is a copy of an earlier writer.

One under ``address/^<history>`` says what that history of the writer descends from: it left another one at this offset.
So copies can be compared after a restart, too, while their writer is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from .lineage import ANCESTOR_LIMIT, HISTORY_LIMIT, Lineage
from .mesh_following import ScopeCopy

__all__ = [
    "PREFIX_LIMIT",
    "CursorNote",
    "ScopeCursors",
    "copy_covering",
    "descent_cursor_name",
    "earlier_cursor_name",
    "found_best",
    "found_copies",
    "found_left",
    "left_cursor_name",
    "parse_left",
    "scope_cursor_name",
]

#: Takes upstream, history and offset: where something stands without an entry that says so. 0 and 0: nowhere.
CursorNote = Callable[[str, int, int], None]

#: Longest prefix in bytes, and longest address, that a line of the files holds: others are shipped after each restart.
PREFIX_LIMIT: Final = 256
_ADDRESS_LIMIT: Final = 280
# Entries that are passed over before the files are told so.
_UNTOLD: Final = 4096


def scope_cursor_name(upstream: str, prefix: bytes) -> str:
    """What a prefix of an upstream is called where cursors are kept by upstream."""
    return f"{upstream}/{prefix.hex()}"


def left_cursor_name(upstream: str, prefix: bytes, epoch: int) -> str:
    """What that is called which a prefix's last writer left, when it released it to ``upstream``."""
    return f"{scope_cursor_name(upstream, prefix)}@{epoch}"


def earlier_cursor_name(upstream: str, prefix: bytes, epoch: int) -> str:
    """What the copy of a prefix of ``upstream`` is called that is here of who wrote it since an earlier epoch."""
    return f"{scope_cursor_name(upstream, prefix)}+{epoch}"


def descent_cursor_name(upstream: str, history: int) -> str:
    """What the place is called at which a history of an upstream left the one before it."""
    return f"{upstream}/^{history}"


def parse_left(upstream: str, name: str) -> tuple[bytes, int] | None:
    """The prefix and epoch in a name of :func:`left_cursor_name`; None: it is another one."""
    return _parse(upstream, name, "@")


def found_copies(
    upstream: str, found: Mapping[str, tuple[int, int]]
) -> tuple[dict[bytes, ScopeCopy], dict[bytes, ScopeCopy]]:
    """What the files say is here of an upstream's prefixes: of its own stream, and of their earlier writers.

    Since when it has been the writer of what is of its stream the files do not say: that stands for epoch 0, and none
    of a later one is given up for it.
    """
    cursors = ScopeCursors(upstream, lambda name, history, offset: None, found)
    own = {prefix: ScopeCopy(*cursors.place_of(prefix), 0, cursors.ancestors) for prefix in cursors.whole}
    earlier = {}
    for name, (history, offset) in found.items():
        parsed = _parse(upstream, name, "+")
        if parsed is not None and history:
            earlier[parsed[0]] = ScopeCopy(history, offset, parsed[1])
    return own, earlier


def found_best(found: Mapping[str, tuple[int, int]]) -> dict[bytes, ScopeCopy]:
    """What the files say is here of each prefix as a copy, whoever wrote it and wherever that one was declared."""
    best: dict[bytes, ScopeCopy] = {}
    for address in sorted({name.partition("/")[0] for name in found}):
        for copies in (*found_copies(address, found), found_left(address, found)):
            for prefix, copy in copies.items():
                best[prefix] = max(copy, best.get(prefix, copy), key=lambda held: held.epoch)
    return best


def copy_covering(prefix: bytes, copies: Mapping[bytes, ScopeCopy]) -> ScopeCopy | None:
    """The copy of a prefix among ``copies``, or of one that had all keys under it before this one was cut out of it."""
    held = (copies[other] for other in sorted(copies, key=len, reverse=True) if prefix.startswith(other))
    return max(held, key=lambda copy: copy.epoch, default=None)


def found_left(upstream: str, found: Mapping[str, tuple[int, int]]) -> dict[bytes, ScopeCopy]:
    """What the files say is here of prefixes whose last writers released them to the one at this address."""
    return {
        left[0]: ScopeCopy(at[0], 0, left[1])
        for name, at in found.items()
        if at[0] and (left := parse_left(upstream, name)) is not None
    }


def _parse(upstream: str, name: str, mark: str) -> tuple[bytes, int] | None:
    """The prefix before and the epoch behind a mark in a name of an upstream's; None: it is another one."""
    start = f"{upstream}/"
    digits, at, epoch = name[len(start) :].partition(mark)
    if not name.startswith(start) or not at or not (epoch.isascii() and epoch.isdigit() and len(epoch) <= 16):
        return None
    try:
        return bytes.fromhex(digits), int(epoch)
    except ValueError:
        return None


class ScopeCursors:
    """The copies of the scopes of the writer whose replication address is ``upstream``.

    ``note`` tells the files; ``found`` are all cursors that were in them at the start.
    """

    def __init__(self, upstream: str, note: CursorNote, found: Mapping[str, tuple[int, int]]) -> None:
        self.upstream = upstream
        #: History and next offset of the stream; (0, 0): unknown. A history of 0 is not told.
        self.stream = (0, 0)
        # Prefixes that are whole, and the offset below which their entries are in the ship that made them so.
        self._whole: dict[bytes, int] = {}
        self._note = note
        self._noted = 0
        # Whether what the files know is the place behind an entry, which may be within a group of the writer's.
        self._is_inside = False
        # By name, what is here of prefixes that this one acquires, or has acquired, and that are not copied from it
        # yet: what earlier writers left. Each with its history and offset.
        self._left: dict[str, tuple[int, int]] = {}
        # By history of the writer, the one that it left, and at which offset.
        self._descent: dict[int, tuple[int, int]] = {}
        self._is_noted = upstream.isascii() and len(upstream) <= _ADDRESS_LIMIT
        self._find(found)

    def _find(self, found: Mapping[str, tuple[int, int]]) -> None:
        stream = found.get(self.upstream, (0, 0))
        start = f"{self.upstream}/"
        marks = {}
        for name, mark in found.items():
            if name.startswith(start) and not mark[0]:
                # It was forgotten, and is carried on by those who write the files until they are told so once more.
                self._note(name, 0, 0)
            elif mark[0] and (_parse(self.upstream, name, "@") or _parse(self.upstream, name, "+")):
                self._left[name] = mark
            elif name.startswith(f"{start}^") and mark[0]:
                self._find_descent(name, mark)
            elif name.startswith(start) and mark[0]:
                try:
                    marks[bytes.fromhex(name[len(start) :])] = mark
                except ValueError:
                    self._note(name, 0, 0)
        histories = {history for history, _ in marks.values()}
        if stream[0] not in histories:
            # The stream's place is from before the ship that brought all that there is.
            stream = min(marks.values()) if len(histories) == 1 else (0, 0)
        for prefix, (history, offset) in marks.items():
            if history == stream[0]:
                self._whole[prefix] = offset
            else:
                self._tell(prefix, 0, 0)
        is_awaited = any("@" in name for name in self._left)
        if not marks and is_awaited:
            # Its marks are to be heard from there on.
            stream = found.get(self.upstream, (0, 0))
        if self._whole or is_awaited:
            self.stream = stream
            self._noted = stream[1]
        self._forget_descent()

    def _find_descent(self, name: str, mark: tuple[int, int]) -> None:
        digits = name.rpartition("^")[2]
        history = int(digits) if digits.isascii() and digits.isdecimal() and len(digits) <= 16 else 0
        if descent_cursor_name(self.upstream, history) == name and 0 < history < HISTORY_LIMIT:
            self._descent[history] = mark
        else:
            self._note(name, 0, 0)

    # -- questions ----------------------------------------------------------------------------------------------------

    def is_whole(self, prefix: bytes) -> bool:
        """Whether the keys under the prefix are what they were in the stream's place."""
        return prefix in self._whole

    @property
    def whole(self) -> tuple[bytes, ...]:
        """The prefixes that are whole."""
        return tuple(self._whole)

    def place_of(self, prefix: bytes) -> tuple[int, int]:
        """The history and next offset that the keys under a prefix, which is whole, are from."""
        history, offset = self.stream
        return history, max(offset, self._whole[prefix])

    @property
    def ancestors(self) -> tuple[tuple[int, int], ...]:
        """What the stream's history descends from, newest first, as far as it is known: (history, branch offset)."""
        found: list[tuple[int, int]] = []
        met = {self.stream[0]}
        while len(found) < ANCESTOR_LIMIT:
            before = self._descent.get(found[-1][0] if found else self.stream[0])
            if before is None or before[0] in met:
                break
            met.add(before[0])
            found.append(before)
        return tuple(found)

    @property
    def settled(self) -> int:
        """The offset from which on no entry can be in a ship already."""
        return max(self._whole.values(), default=0)

    def holds(self, prefix: bytes, offset: int) -> bool:
        """Whether the entry of a prefix that is whole came with its ship."""
        return offset < self._whole[prefix]

    def is_shared(self, lineage: Lineage) -> bool:
        """Whether the writer, in ``lineage``, shares everything that is held of it."""
        history, offset = self.stream
        return lineage.covers(history, max(offset, self.settled))

    def claim(self) -> tuple[int, int]:
        """Where to ask the writer to go on if any prefix is whole; (0, 0): nothing is held that could be continued."""
        return self.stream if self.stream[0] and self._whole else (0, 0)

    # -- changes ------------------------------------------------------------------------------------------------------

    def keep(self, prefixes: Iterable[bytes]) -> None:
        """Forget every other prefix: from here on what comes of it is passed over."""
        kept = set(prefixes)
        for prefix in self.whole:
            if prefix not in kept:
                self.forget(prefix)

    def descends(self, history: int, ancestors: tuple[tuple[int, int], ...]) -> None:
        """The writer's ``history``, 0 if it tells none, comes from these: said before anything is placed in it."""
        if not history:
            return
        for before in ancestors:
            if self._descent.get(history) != before:
                self._descent[history] = before
                if self._is_noted:
                    self._note(descent_cursor_name(self.upstream, history), *before)
            history = before[0]

    def forget(self, prefix: bytes) -> None:
        """The keys under the prefix are no copy of the stream any more."""
        if self._whole.pop(prefix, None) is not None:
            self._tell(prefix, 0, 0)

    def forget_all(self) -> None:
        """Nothing here is a copy of the stream any more."""
        self.keep(())

    def forget_left(self, prefix: bytes) -> None:
        """What earlier writers left of a prefix is about to be replaced."""
        start = scope_cursor_name(self.upstream, prefix)
        for name in [name for name in self._left if name.startswith((f"{start}@", f"{start}+"))]:
            del self._left[name]
            if self._is_noted:
                self._note(name, 0, 0)

    def leave(self, left: Mapping[str, tuple[int, int]]) -> None:
        """These, by their names, are what earlier writers left, and no others."""
        for name in self._left.keys() - left.keys():
            self._note(name, 0, 0)
        for name, (history, offset) in left.items():
            if self._is_noted and self._left.get(name) != (history, offset):
                self._note(name, history, offset)
        self._left = dict(left)

    def leave_earlier(self, earlier: Mapping[bytes, ScopeCopy]) -> None:
        """As :meth:`leave`, of copies that are of earlier writers all of them."""
        self.leave(
            {
                earlier_cursor_name(self.upstream, prefix, copy.epoch): (copy.history, copy.offset)
                for prefix, copy in earlier.items()
                if len(prefix) <= PREFIX_LIMIT
            }
        )

    def shipped(self, prefix: bytes, history: int, offset: int) -> None:
        """The keys under the prefix are what they were before ``offset`` of ``history``, where the stream is, too."""
        self._whole[prefix] = offset
        self._tell(prefix, history, offset)

    def adopt(self, prefix: bytes, offset: int) -> None:
        """The keys under the prefix are what they were before ``offset`` of the stream, though nothing was shipped.

        The stream goes on from there; of other prefixes what has been applied since is not applied again.
        """
        history, reached = self.stream
        if offset < reached:
            for other, start in self._whole.items():
                if start < reached:
                    self._whole[other] = reached
                    self._tell(other, history, reached)
            # Before the prefix is told: at no end of the files is its place further than its data.
            self.stream = (history, offset)
            self._note_stream()
        self.shipped(prefix, history, offset)

    def moved(self, offset: int) -> None:
        """Everything before ``offset`` has been applied or passed over; the files hear of what was applied by itself.

        They are told of what was not only now and then, and where that ends a group of which something was applied: the
        writer goes on at the end of a group, but not within.
        """
        history, reached = self.stream
        if offset <= reached:
            return
        self.stream = (history, offset)
        if self._is_inside or offset - self._noted >= _UNTOLD:
            self._note_stream()

    def applied(self, offset: int) -> None:
        """As :meth:`moved`, and the files are told with the entry itself."""
        self.stream = (self.stream[0], offset)
        self._noted = offset
        self._is_inside = True

    def placed(self, history: int, offset: int) -> None:
        """The stream is at ``offset`` of ``history``, by what has been shipped or by where it goes on."""
        known, _ = self.stream
        self.stream = (history, offset)
        if history != known:
            for prefix, start in self._whole.items():
                self._tell(prefix, history, start)
        self._note_stream()
        if history != known:
            self._forget_descent()

    # -- the files ----------------------------------------------------------------------------------------------------

    def _note_stream(self) -> None:
        history, offset = self.stream
        self._noted = offset
        self._is_inside = False
        if history and self._is_noted:
            self._note(self.upstream, history, offset)

    def _forget_descent(self) -> None:
        """What the stream's history does not come from is of no use any more."""
        history = self.stream[0]
        kept = {history, *(ancestor for ancestor, _ in self.ancestors)}
        for ancestor in [ancestor for ancestor in self._descent if ancestor not in kept]:
            del self._descent[ancestor]
            if self._is_noted:
                self._note(descent_cursor_name(self.upstream, ancestor), 0, 0)

    def _tell(self, prefix: bytes, history: int, offset: int) -> None:
        # Where the history is not known yet nobody could go on.
        if self._is_noted and len(prefix) <= PREFIX_LIMIT and (history or not offset):
            self._note(scope_cursor_name(self.upstream, prefix), history, offset)
