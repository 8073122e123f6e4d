"""The door through which changes made elsewhere enter a store: what a primary streams, and what a file holds.

A primary that is a kevynode streams canonical effects: each is one change, and each must change this copy too. A kevy
primary streams the commands of its clients as they came. Those may fail, or change nothing, or count from the time they
ran at, and it never says that something has expired: keys and fields that have, by the clock here, go before the next
command on them is applied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeAlias

from .. import errors
from ..errors import ReplyError
from ..twins import COMPILED
from . import notify
from .arguments import parse_int
from .command import TABLE, Args, Command, Table
from .commands.hash_fields import remove_fields
from .commands.keys import flush_everything
from .commands.strings import set_
from .marks import MARK_COMMAND, MARK_KEY
from .sharded import Shard
from .store import Store
from .stream_effects import STREAM_HANDLERS, StreamHandler
from .values import Hash, Value

if COMPILED:
    from ..compiled.apply import apply_known

__all__ = ["Applier", "ApplyError"]

#: (store, argv) -> anything
_Handler: TypeAlias = Callable[[Store, Args], object]
#: A handler, the fewest and the most words of its command line, and whether the second word is its only key.
_Entry: TypeAlias = tuple[_Handler, int, int, bool]

_Tracker: TypeAlias = Callable[[Shard[Value], bytes], None]
#: (store, commands, index of the first, entries) -> index of the first that was not applied, and what it failed with.
_ApplyKnown: TypeAlias = Callable[[Store, list[list[bytes]], int, dict[bytes, _Entry]], tuple[int, Exception | None]]

#: What a primary may stream beside the commands on streams; the times in them are absolute.
_VOCABULARY: Final = frozenset(
    "set setnx getset getdel incr decr incrby decrby incrbyfloat del pexpireat expireat persist lpush rpush lpop rpop "
    "lset lrem ltrim hset hsetnx hdel hincrby hpexpireat hexpireat hpersist sadd srem zadd zrem zincrby "
    "flushall flushdb".split()
)
#: Those of them with other keys than the second word.
_OTHER_KEYS: Final = frozenset((b"del", b"flushall", b"flushdb", b"XGROUP"))
#: Commands whose outcome hangs on the clock or on chance.
_UNTOLD: Final = frozenset("getex msetex hgetex hsetex spop move swapdb".split())

_SECOND: Final = 1000
_ANY: Final = 1 << 31
_RELATIVE_OPTIONS: Final = {b"EX": _SECOND, b"PX": 1}


class ApplyError(Exception):
    """A command could not be applied, so this copy is not what its upstream holds.

    ``name`` is the command's, ``key`` its key (None if it has none), ``reason`` what went wrong, and ``applied`` how
    many commands of the same call were applied before it; their effects are pending.
    """

    def __init__(self, command: Sequence[bytes], reason: str, applied: int = 0) -> None:
        self.name = command[0][:64] if command else b""
        key = _key(command)
        self.key = None if key is None else key[:256]
        self.reason = reason
        self.applied = applied
        super().__init__(f"{errors.text(self.name)} {errors.text(self.key or b'')!r}: {reason}")


def _failure(command: Sequence[bytes], error: Exception, applied: int) -> ApplyError:
    return ApplyError(command, str(error) if isinstance(error, ReplyError) else repr(error), applied)


def _key(command: Sequence[bytes]) -> bytes | None:
    """The first key of a command of the vocabulary, or None."""
    place = 2 if command and command[0].upper() == b"XGROUP" else 1
    return command[place] if len(command) > place else None


class Applier:
    """Applies commands to ``store`` with the handlers of ``table``, and asks none of the gates that clients pass.

    ``lenient`` is for upstreams of kind kevy: a command that fails there too is passed over. It is counted in
    ``ignored``, and ``on_ignored`` is called with the error. Otherwise each command must make exactly one change.
    """

    def __init__(self, store: Store, table: Table = TABLE, lenient: bool = False) -> None:
        self.store = store
        self.table = table
        self.lenient = lenient
        self.ignored = 0
        self.on_ignored: Callable[[ApplyError], None] | None = None
        # Whether one of the commands since somebody set this to False may have been one that empties everything.
        self.may_have_flushed = False
        # Unix ms at which the running call began.
        self._wall = 0
        # The compiled part, which takes what is known and plain; None: there is none.
        self._apply_known: _ApplyKnown | None = apply_known if COMPILED and type(store) is Store else None
        self._entries: dict[bytes, _Entry] = {}
        for name in _VOCABULARY:
            found = table.get(name.encode())
            assert found is not None
            self._enter(name.encode(), found.handler, found.fewest, found.most)
        self._enter(b"set", self._set, 3, _ANY)
        self._enter(b"append", _append, 3, 3)
        delete, fewest, most, has_one_key = self._entries[MARK_COMMAND]
        self._entries[MARK_COMMAND] = (_mark_or(delete), fewest, most, has_one_key)
        self._enter(b"flushall", self._flush, 1, 2)
        self._enter(b"flushdb", self._flush, 1, 2)
        self._enter(b"setex", self._set_for(_SECOND), 4, 4)
        self._enter(b"psetex", self._set_for(1), 4, 4)
        self._enter(b"expire", self._expire_in(b"PEXPIREAT", _SECOND), 3, _ANY)
        self._enter(b"pexpire", self._expire_in(b"PEXPIREAT", 1), 3, _ANY)
        self._enter(b"hexpire", self._expire_in(b"HPEXPIREAT", _SECOND), 6, _ANY)
        self._enter(b"hpexpire", self._expire_in(b"HPEXPIREAT", 1), 6, _ANY)
        for word, (handler, fewest) in STREAM_HANDLERS.items():
            self._enter(word, self._on_stream(handler), fewest, _ANY)

    def apply(self, command: Sequence[bytes]) -> None:
        """Apply one command; as :meth:`apply_all`."""
        self.apply_all((command,))

    def apply_all(self, commands: Iterable[Sequence[bytes]]) -> None:
        """Apply commands in their order; their effects are pending then, and the caller commits.

        ``store.now`` must be the time (unix ms) that relative times count from; it is so again afterwards. Raises
        ApplyError for a command that is not of the vocabulary, that fails, or that does not make exactly one change,
        unless the applier is lenient; for what must not happen, such as a handler that breaks, always.
        """
        store = self.store
        tracker = store.tracker
        self._wall = wall = store.now
        if tracker is not None:
            store.tracker = self._at_wall_time(tracker)
        # Nothing has expired at 0: what is hidden from readers here is there for the stream.
        store.now = 0
        try:
            if self.lenient:
                self._apply_leniently(commands)
            elif self._apply_known is not None and type(commands) is list:
                self._apply_in_runs(commands, self._apply_known)
            else:
                self._apply_exactly(commands)
        finally:
            store.now = wall
            store.tracker = tracker

    def _apply_in_runs(self, commands: list[list[bytes]], apply_known: _ApplyKnown) -> None:
        """As :meth:`_apply_exactly`, with the compiled part, which hands over whatever it does not know."""
        place = 0
        while True:
            place, error = apply_known(self.store, commands, place, self._entries)
            if error is not None:
                raise _failure(commands[place], error, place) from error
            if place == len(commands):
                return
            try:
                self._apply_exactly(commands[place : place + 1])
            except ApplyError as unusual:
                unusual.applied = place
                raise
            place += 1

    def _apply_exactly(self, commands: Iterable[Sequence[bytes]]) -> None:
        store = self.store
        pending = store.journal.pending
        entries = self._entries
        applied = 0
        command: Sequence[bytes] = ()
        try:
            for command in commands:
                before = len(pending)
                if command[0] == b"SET" and len(command) == 3:
                    set_(store, command)
                else:
                    handler, fewest, most, _ = entries.get(command[0]) or self._find(command)
                    if not fewest <= len(command) <= most:
                        raise errors.WRONG_ARITY(errors.text(command[0]))
                    handler(store, command)
                if len(pending) - before != 1:
                    raise ReplyError("made", f"{len(pending) - before} changes instead of one")
                applied += 1
        except Exception as error:
            raise _failure(command, error, applied) from error

    def _apply_leniently(self, commands: Iterable[Sequence[bytes]]) -> None:
        store = self.store
        entries = self._entries
        applied = 0
        command: Sequence[bytes] = ()
        try:
            for command in commands:
                try:
                    if command[0] == b"SET" and len(command) == 3:
                        # Whatever was there, expired or not.
                        set_(store, command)
                    else:
                        handler, fewest, most, has_one_key = entries.get(command[0]) or self._find(command)
                        if not fewest <= len(command) <= most:
                            raise errors.WRONG_ARITY(errors.text(command[0]))
                        for key in (command[1],) if has_one_key else self._keys(command):
                            self._expire(key)
                        handler(store, command)
                except ReplyError as error:
                    self.ignored += 1
                    self.may_have_flushed = True
                    if self.on_ignored is not None:
                        self.on_ignored(_failure(command, error, applied))
                applied += 1
        except Exception as error:
            raise _failure(command, error, applied) from error

    # -- finding ------------------------------------------------------------------------------------------------------

    def _enter(self, name: bytes, handler: _Handler, fewest: int, most: int) -> None:
        has_one_key = name not in _OTHER_KEYS
        self._entries[name.lower()] = self._entries[name.upper()] = (handler, fewest, most, has_one_key)

    def _find(self, command: Sequence[bytes]) -> _Entry:
        """The entry for a name that is spelled in mixed case, or that only a kevy primary streams."""
        entry = self._entries.get(command[0].upper())
        if entry is not None:
            return entry
        found = self.table.get(command[0]) if self.lenient else None
        if found is None or not found.writes or not found.plain or found.name in _UNTOLD:
            raise ReplyError("ERR", "not a command that is streamed")
        return found.handler, found.fewest, found.most, False

    # -- from kevy ----------------------------------------------------------------------------------------------------

    def _keys(self, command: Sequence[bytes]) -> Sequence[bytes]:
        """The keys of a command that is known, if they can be told."""
        found: Command | None = self.table.get(command[0])
        if found is None:
            key = _key(command)
            return () if key is None else (key,)
        try:
            return [command[place] for place in found.key_positions(command)]
        except ValueError as error:
            raise errors.SYNTAX() from error

    def _expire(self, key: bytes) -> None:
        """Delete a key, or the fields of a hash, that have expired: the primary did without a word."""
        store = self.store
        shard = store.keyspace.directory[hash(key) >> store.keyspace.shift]
        if not shard.deadlines and not store.field_deadline_keys:
            return
        if shard.deadlines.get(key, self._wall) < self._wall:
            store.delete(key)
            store.expired_keys += 1
            store.emit((b"DEL", key), key, (notify.EXPIRED, b"expired", key))
            return
        value = shard.get(key)
        if type(value) is Hash and value.may_have_expired(self._wall):
            deadlines = value.deadlines or {}
            fields = [field for field, deadline in deadlines.items() if deadline < self._wall]
            if fields:
                store.expired_fields += len(fields)
                remove_fields(store, key, fields, b"hexpired")

    # -- handlers -----------------------------------------------------------------------------------------------------

    def _flush(self, store: Store, argv: Args) -> None:
        self.may_have_flushed = True
        flush_everything(store, argv)

    def _set(self, store: Store, argv: Args) -> None:
        words = list(argv)
        for place in range(3, len(words) - 1):
            unit = _RELATIVE_OPTIONS.get(words[place].upper())
            # What stands behind IFEQ is a value, whatever it looks like.
            if unit is not None and words[place - 1].upper() != b"IFEQ":
                words[place : place + 2] = b"PXAT", self._moment(words[place + 1], unit, "set")
                break
        set_(store, words)

    def _set_for(self, unit: int) -> _Handler:
        def handler(store: Store, argv: Args) -> None:
            _, key, amount, value = argv
            set_(store, (b"SET", key, value, b"PXAT", self._moment(amount, unit, "setex")))

        return handler

    def _moment(self, amount: bytes, unit: int, name: str) -> bytes:
        """A time to live in units of ``unit`` ms as a deadline."""
        lifetime = parse_int(amount) * unit
        if lifetime <= 0:
            raise errors.INVALID_EXPIRE(name)
        return b"%d" % (self._wall + lifetime)

    def _expire_in(self, absolute: bytes, unit: int) -> _Handler:
        """EXPIRE and its relatives as the command that sets a deadline."""
        found = self.table.get(absolute)
        assert found is not None
        inner = found.handler

        def handler(store: Store, argv: Args) -> None:
            # What has passed already is kept as a deadline, and hidden, until somebody says that it is gone.
            moment = max(self._wall + parse_int(argv[2]) * unit, 1)
            inner(store, (absolute, argv[1], b"%d" % moment, *argv[3:]))

        return handler

    def _on_stream(self, handler: StreamHandler) -> _Handler:
        return lambda store, argv: handler(store, argv, self._wall)

    def _at_wall_time(self, tracker: _Tracker) -> _Tracker:
        """The tracker of accesses, made to note them at the time it is and not at 0."""
        store = self.store

        def track(shard: Shard[Value], key: bytes) -> None:
            store.now = self._wall
            tracker(shard, key)
            store.now = 0

        return track


def _mark_or(delete: _Handler) -> _Handler:
    """Deletes keys, and takes a mark for the entry that it is."""

    def handler(store: Store, argv: Args) -> None:
        if len(argv) == 2 and argv[1].startswith(MARK_KEY):
            store.emit(argv, argv[1])
        else:
            delete(store, argv)

    return handler


def _append(store: Store, argv: Args) -> None:
    """APPEND without a limit: the primary's was another."""
    key = argv[1]
    old = store.lookup_string(key)
    store.put(key, argv[2] if old is None else old + argv[2], True)
    store.emit(argv, key, (notify.STRING, b"append", key))
