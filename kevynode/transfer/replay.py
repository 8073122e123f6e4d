"""Commands of an append-only file, applied to a store of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from ..errors import ReplyError
from ..rdb import RdbError, read_dump
from ..store import commands as _commands  # noqa: F401  enters the commands into the table
from ..store.command import TABLE
from ..store.sharded import RandomSource
from ..store.staging import Staging
from ..store.store import Store
from ..store.stream_effects import STREAM_HANDLERS
from ..store.values import Hash, Value
from .staged import staged

__all__ = ["Replay", "ReplayError"]

#: What changes no data of ours.
_PASSED_OVER: Final = frozenset((b"FUNCTION", b"SCRIPT", b"PUBLISH", b"SPUBLISH", b"PING"))
#: What counts from the moment it ran at, which nobody knows any more. Servers write it in another form.
_RELATIVE: Final = frozenset((b"EXPIRE", b"PEXPIRE", b"SETEX", b"PSETEX", b"HEXPIRE", b"HPEXPIRE"))
#: What touches two databases.
_ACROSS: Final = frozenset((b"MOVE", b"SWAPDB"))


class ReplayError(Exception):
    """A command that cannot be applied; ``reason`` names it and says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Replay:
    """Data that is built from keys, then from commands. Deadlines are kept and nothing expires meanwhile.

    ``database``: the one whose commands are applied; None: the only one that any are for. ``now_ms`` (unix ms) stands
    for times that commands do not tell. Values are made with ``epoch``.
    """

    def __init__(self, random: RandomSource, *, database: int | None = None, now_ms: int = 0, epoch: int = 0) -> None:
        self.database = database
        self.passed_over = 0
        # Commands for other databases than the wanted one.
        self.others = 0
        self._random = random
        self._now = now_ms
        self._staging = Staging(epoch)
        self._store: Store | None = None
        self._current = 0
        # Nobody has asked for the database; it is the one that data has been found in.
        self._is_implied = False

    def put(self, key: bytes, value: Value, deadline: int | None) -> None:
        """Put a key that a dump holds. Raises ReplayError once a command has been applied."""
        self.bare_staging().put(key, value, deadline)

    def bare_staging(self) -> Staging:
        """Where keys are put that a dump holds. Raises ReplayError once a command has been applied."""
        if self._store is not None:
            raise ReplayError("a dump stands behind commands")
        return self._staging

    def note_database(self, number: int) -> None:
        """The keys that have been put are those of a database that nobody has asked for by its number."""
        if self.database is None:
            self.database = number
            self._is_implied = True

    def start_file(self) -> None:
        """The next file begins: in database 0, as every file does."""
        self._current = 0

    def apply(self, command: Sequence[bytes]) -> None:
        """Apply one command. Raises ReplayError, and the data is of no use then."""
        name = command[0].upper()
        if name == b"SELECT":
            self._select(command)
        elif name in _PASSED_OVER:
            self.passed_over += 1
        elif name == b"FLUSHALL" or self._is_wanted(command, name):
            try:
                self._run(name, command)
            except ReplyError as error:
                raise _refusal(command, str(error)) from error

    def staging(self) -> Staging:
        """Everything so far. Nothing more may be applied afterwards."""
        return self._staging if self._store is None else staged(self._store)

    def _select(self, command: Sequence[bytes]) -> None:
        if len(command) != 2 or not command[1].isdigit() or len(command[1]) > 9:
            raise _refusal(command, "no number of a database")
        self._current = int(command[1])

    def _is_wanted(self, command: Sequence[bytes], name: bytes) -> bool:
        if name in _ACROSS or (name == b"COPY" and any(word.upper() == b"DB" for word in command[3:])):
            raise _refusal(command, "it reaches into another database")
        if self.database is None:
            self.database = self._current
            self._is_implied = True
        elif self.database != self._current:
            if self._is_implied:
                raise ReplayError(f"databases {self.database} and {self._current} both hold data: choose one")
            self.others += 1
            return False
        return True

    def _run(self, name: bytes, command: Sequence[bytes]) -> None:
        store = self._open_store()
        if name == b"RESTORE":
            self._restore(store, command)
        elif name in STREAM_HANDLERS:
            handler, fewest = STREAM_HANDLERS[name]
            if len(command) < fewest:
                raise _refusal(command, "too few words")
            handler(store, command, self._now)
        else:
            self._find(name, command)(store, command)
        if store.touched:
            store.settle()
        store.journal.pending.clear()
        store.discarded.clear()

    def _find(self, name: bytes, command: Sequence[bytes]) -> Callable[[Store, Sequence[bytes]], object]:
        found = TABLE.get(command[0])
        if found is None or not found.writes or not found.plain:
            raise _refusal(command, "not a command that changes data, or none that is known here")
        if not found.accepts(len(command)):
            raise _refusal(command, "wrong number of words")
        is_relative = name == b"SET" and any(word.upper() in (b"EX", b"PX") for word in command[3:-1])
        if is_relative or name in _RELATIVE:
            raise _refusal(command, "its deadline counts from when it ran, which is not known")
        return found.handler

    def _open_store(self) -> Store:
        """The store, holding from the first command on what has been put."""
        if self._store is None:
            # Time stands at 0, where nothing has expired.
            self._store = Store(self._random)
            self._store.replace_all(self._staging)
        return self._store

    def _restore(self, store: Store, command: Sequence[bytes]) -> None:
        """RESTORE key ttl payload [REPLACE] [ABSTTL] [IDLETIME seconds] [FREQ frequency]"""
        if len(command) < 4 or not command[2].isdigit() or len(command[2]) > 19:
            raise _refusal(command, "no lifetime, or too few words")
        options = {word.upper() for word in command[4:]}
        lifetime = int(command[2])
        if lifetime and b"ABSTTL" not in options:
            raise _refusal(command, "its deadline counts from when it ran, which is not known")
        if store.lookup(command[1]) is not None and b"REPLACE" not in options:
            raise _refusal(command, "the key exists")
        try:
            value = read_dump(command[3], epoch=store.epoch)
        except RdbError as error:
            raise _refusal(command, str(error)) from error
        if value is None:
            raise _refusal(command, "there is nothing in the dump")
        store.put(command[1], value)
        if type(value) is Hash and value.deadlines is not None:
            store.field_deadline_keys[command[1]] = None
        if lifetime:
            store.set_deadline(command[1], lifetime)


def _refusal(command: Sequence[bytes], reason: str) -> ReplayError:
    key = f" {_shown(command[1])}" if len(command) > 1 else ""
    return ReplayError(f"{_shown(command[0])}{key} cannot be applied: {reason}")


def _shown(word: bytes) -> str:
    """A word as part of a message."""
    return repr(word[:100])[2:-1]
