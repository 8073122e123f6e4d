"""Which entries of a writer's stream are applied here: what is not ours, what came with a ship, what must not come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from ..store.command import TABLE
from ..store.marks import MARK_COMMAND, Mark, parse_mark
from .block import FLUSHES
from .scope_cursors import ScopeCursors

__all__ = ["EntryRun", "Forbidden", "ScopeEntries", "Unclear"]

#: Commands of a kevy server whose keys have nothing to do with each other, and how many words each key has.
_LISTS: Final = {b"DEL": 1, b"UNLINK": 1, b"MSET": 2}

#: What needs a second look to see which keys it names.
_SEVERAL: Final = frozenset((b"DEL", b"XGROUP"))


class Forbidden(Exception):
    """An entry that may not come on this link; the text says which."""


class Unclear(Exception):
    """An entry of which it cannot be said what it does to the keys that are copied here; the text says which."""


class EntryRun(NamedTuple):
    """Entries to apply one after the other, with their offsets.

    ``clears``: it is a single one that removes everything, which here are the keys under these prefixes. ``mark``: it
    is a mark.
    """

    commands: list[list[bytes]]
    offsets: list[int]
    clears: tuple[bytes, ...] = ()
    mark: Mark | None = None


class ScopeEntries:
    """Picks from entries those of prefixes that are whole by ``cursors``, and did not come with a ship.

    ``refuses``: the upstream is to send nothing but these prefixes, so that
    anything else is wrong; otherwise it sends all it has, in the words of its clients, and the rest is passed over.
    """

    def __init__(self, cursors: ScopeCursors, *, refuses: bool = True) -> None:
        # What the link was made for, and what of it may come now.
        self.prefixes: tuple[bytes, ...] = ()
        self._allowed: tuple[bytes, ...] = ()
        self.refuses = refuses
        self._cursors = cursors

    def begin(self, prefixes: tuple[bytes, ...]) -> None:
        """A link is made for these prefixes."""
        self.prefixes = self._allowed = prefixes

    def release(self, prefix: bytes) -> None:
        """The writer has said that it writes no more under the prefix."""
        self._allowed = tuple(other for other in self._allowed if other != prefix)

    def acquire(self, prefix: bytes) -> None:
        """The writer has said that it writes under the prefix."""
        if prefix in self.prefixes and prefix not in self._allowed:
            self._allowed = (*self._allowed, prefix)

    def pick(self, commands: Sequence[list[bytes]], first: int, at: int | None = None) -> Iterator[EntryRun]:
        """What is to be applied of entries at the offsets from ``first`` on, in order.

        ``at``: they are one group, of which some may be missing, and count as if all were at this offset. Raises
        Forbidden or Unclear when what is before such an entry has been given.
        """
        whole, plain = self._look(first if at is None else at)
        run = EntryRun([], [])
        for index, command in enumerate(commands):
            offset = first + index if at is None else at
            name = command[0].upper()
            if name in FLUSHES:
                if run.commands:
                    yield run
                    run = EntryRun([], [])
                clears = tuple(prefix for prefix in whole if not self._cursors.holds(prefix, offset))
                if clears:
                    yield EntryRun([command], [offset], clears)
                continue
            mark = parse_mark(command) if self.refuses and command[0] == MARK_COMMAND else None
            if mark is not None:
                if run.commands:
                    yield run
                    run = EntryRun([], [])
                yield EntryRun([command], [offset], mark=mark)
                # Other prefixes may be whole now.
                whole, plain = self._look(offset)
                continue
            if plain and len(command) > 1 and name not in _SEVERAL and command[1].startswith(whole):
                # What nearly all of them are.
                picked: list[bytes] | None = command
            else:
                try:
                    picked = self._concerned(command, offset)
                except (Forbidden, Unclear):
                    if run.commands:
                        yield run
                    raise
            if picked is not None:
                run.commands.append(picked)
                run.offsets.append(offset)
        if run.commands:
            yield run

    def _look(self, offset: int) -> tuple[tuple[bytes, ...], bool]:
        """The prefixes that are whole, and whether from this offset on no entry can have come with a ship."""
        return self._cursors.whole, self.refuses and self._cursors.settled <= offset

    def _concerned(self, command: list[bytes], offset: int) -> list[bytes] | None:
        """What an entry is for the keys that are held here; None: nothing. Raises Forbidden or Unclear."""
        keys = _keys_of(command)
        foreign = [key for key in keys if not key.startswith(self._allowed)]
        if self.refuses and (foreign or not keys):
            what = f"{foreign[0][:64]!r}" if foreign else f"no key ({command[0][:32]!r})"
            raise Forbidden(f"sent an entry for {what}, which is none of the scopes that it was asked for")
        due = [key for key in keys if self._is_due(key, offset)]
        if not due:
            return None
        if len(due) == len(keys):
            return command
        width = _LISTS.get(command[0].upper())
        if width is None:
            raise Unclear(f"{command[0][:32]!r} for {due[0][:64]!r} and keys that are not copied here")
        picked = command[:1]
        for place in range(1, len(command), width):
            if self._is_due(command[place], offset):
                picked += command[place : place + width]
        return picked

    def _is_due(self, key: bytes, offset: int) -> bool:
        """Whether a key is held here, and has not come with a ship that has this entry in it."""
        cursors = self._cursors
        return any(key.startswith(prefix) and not cursors.holds(prefix, offset) for prefix in cursors.whole)


def _keys_of(command: list[bytes]) -> Sequence[bytes]:
    """The keys that a command names, as far as they can be told."""
    name = command[0].upper()
    if name == b"XGROUP":
        return command[2:3]
    found = TABLE.get(name)
    if found is not None:
        try:
            return [command[place] for place in found.key_positions(command)]
        except (ValueError, IndexError):
            # It fails, here as there.
            pass
    return command[1:2]
