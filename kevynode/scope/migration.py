"""Which prefixes are on their way to another node, and which have gone.

One prefix is always in one :class:`MigrationState`, and :data:`TRANSITIONS` says what each event does to it. Moving the
data, and deciding when, is the caller's.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import ClassVar, Final

from .prefixes import PrefixMap, to_bytes
from .value import Value

__all__ = [
    "TRANSITIONS",
    "AlreadyInFlight",
    "AlreadyMigrated",
    "Migration",
    "MigrationError",
    "MigrationEvent",
    "MigrationState",
    "MigrationTable",
    "UnknownMigration",
]


class MigrationState(Enum):
    """Where a prefix stands."""

    #: It is not moving, and has not moved.
    IDLE = "idle"
    #: It is in flight: the source takes no writes for it until the move is committed or aborted.
    QUIESCED = "quiesced"
    #: It has moved: writes belong to the target.
    MIGRATED = "migrated"


class MigrationEvent(Enum):
    """What can happen to a prefix; each is a method of :class:`MigrationTable`."""

    START = "start"
    COMMIT = "commit"
    ABORT = "abort"
    FORGET = "forget"


class Migration(Value):
    """The move of ``prefix`` from the node ``source`` to the node ``target``, both ids. Immutable.

    Raises ValueError for a move from a node to itself.

    >>> Migration(b"app:", "a", "b")
    Migration(prefix=b'app:', source='a', target='b')
    """

    __slots__ = ("prefix", "source", "target")
    __match_args__ = ("prefix", "source", "target")

    prefix: bytes
    source: str
    target: str

    def __init__(self, prefix: bytes | str, source: str, target: str) -> None:
        if source == target:
            raise ValueError(f"a move goes from one node to another, not from {source!r} to itself")
        self._set(prefix=to_bytes(prefix, "prefix"), source=source, target=target)


class MigrationError(ValueError):
    """What was asked does not fit the state of the prefix, and has changed nothing.

    ``prefix`` is what was asked about, ``migration`` the move that is in the way, or None where there is none, and
    ``reason`` the text of the error without either.
    """

    reason: ClassVar[str] = "the prefix is in another state"

    def __init__(self, prefix: bytes, migration: Migration | None = None) -> None:
        super().__init__(prefix, migration)
        self.prefix = prefix
        self.migration = migration

    def __str__(self) -> str:
        move = f", from {self.migration.source!r} to {self.migration.target!r}" if self.migration else ""
        return f"{self.reason}: {self.prefix!r}{move}"


class AlreadyInFlight(MigrationError):
    """The prefix is moving: commit or abort that first.

    >>> table = MigrationTable()
    >>> _ = table.start(b"app:", "a", "b")
    >>> table.start(b"app:", "a", "c")
    Traceback (most recent call last):
        ...
    kevynode.scope.migration.AlreadyInFlight: migration for this prefix is already in flight: b'app:', from 'a' to 'b'
    """

    reason = "migration for this prefix is already in flight"


class AlreadyMigrated(MigrationError):
    """The prefix has moved away. Where it came back since, :meth:`MigrationTable.forget` that move first."""

    reason = "prefix has already been migrated"


class UnknownMigration(MigrationError):
    """There is no move of the prefix; ``migration`` is None.

    >>> MigrationTable().commit(b"app:")
    Traceback (most recent call last):
        ...
    kevynode.scope.migration.UnknownMigration: no migration for this prefix: b'app:'
    """

    reason = "no migration for this prefix"


_IDLE: Final = MigrationState.IDLE
_QUIESCED: Final = MigrationState.QUIESCED
_MIGRATED: Final = MigrationState.MIGRATED
_START: Final = MigrationEvent.START
_COMMIT: Final = MigrationEvent.COMMIT
_ABORT: Final = MigrationEvent.ABORT
_FORGET: Final = MigrationEvent.FORGET

#: What an event does to a prefix in a state: the state it goes into, or the error that is raised.
TRANSITIONS: Final[Mapping[tuple[MigrationState, MigrationEvent], MigrationState | type[MigrationError]]] = (
    MappingProxyType(
        {
            (_IDLE, _START): _QUIESCED,
            (_IDLE, _COMMIT): UnknownMigration,
            (_IDLE, _ABORT): UnknownMigration,
            (_IDLE, _FORGET): UnknownMigration,
            (_QUIESCED, _START): AlreadyInFlight,
            (_QUIESCED, _COMMIT): _MIGRATED,
            (_QUIESCED, _ABORT): _IDLE,
            (_QUIESCED, _FORGET): AlreadyInFlight,
            (_MIGRATED, _START): AlreadyMigrated,
            (_MIGRATED, _COMMIT): AlreadyMigrated,
            (_MIGRATED, _ABORT): AlreadyMigrated,
            (_MIGRATED, _FORGET): _IDLE,
        }
    )
)


class MigrationTable:
    """The moves that one node is the source of, or knows about.

    Goes before the :class:`OwnershipTable`: a write to a key that :meth:`match` finds waits for the end of a move, one
    that :meth:`match_migrated` finds belongs to the target of a past one, and any other is the table's to route.
    Whether a prefix is declared is not checked here. Where prefixes are nested, the longest one that a key begins with
    decides.

    Not for several threads at once.

    >>> table = MigrationTable()
    >>> table.start(b"app:", "a", "b")
    Migration(prefix=b'app:', source='a', target='b')
    >>> table.match(b"app:1").target
    'b'
    >>> _ = table.commit(b"app:")
    >>> table.match(b"app:1"), table.match_migrated(b"app:1").target
    (None, 'b')
    """

    __slots__ = ("_moves",)

    def __init__(self) -> None:
        # A prefix is in one of these at most; in none, it is idle.
        self._moves: dict[MigrationState, PrefixMap[Migration]] = {_QUIESCED: PrefixMap(), _MIGRATED: PrefixMap()}

    def start(self, prefix: bytes | str, source: str, target: str) -> Migration:
        """Quiesce ``prefix`` for its move from the node ``source`` to the node ``target``; returns the move.

        Raises :class:`AlreadyInFlight` or :class:`AlreadyMigrated`, and ValueError if the nodes are the same one.
        """
        migration = Migration(prefix, source, target)
        self._step(migration.prefix, _START, migration)
        return migration

    def commit(self, prefix: bytes | str) -> Migration:
        """The move is done: ``prefix`` belongs to its target from now on. Returns the move.

        Raises :class:`UnknownMigration` or :class:`AlreadyMigrated`.
        """
        return self._step(to_bytes(prefix, "prefix"), _COMMIT)

    def abort(self, prefix: bytes | str) -> Migration:
        """The move is off: ``prefix`` takes writes where it did before. Returns the move.

        Raises :class:`UnknownMigration`, or :class:`AlreadyMigrated`: what is committed cannot be aborted.

        >>> table = MigrationTable()
        >>> _ = table.start(b"app:", "a", "b")
        >>> _ = table.abort(b"app:")
        >>> table.match(b"app:1") is None
        True
        """
        return self._step(to_bytes(prefix, "prefix"), _ABORT)

    def forget(self, prefix: bytes | str) -> Migration:
        """A past move no longer counts: the prefix came back, or the declared scopes say it by now. Returns the move.

        Raises :class:`UnknownMigration` or :class:`AlreadyInFlight`.

        >>> table = MigrationTable()
        >>> _ = table.start(b"app:", "a", "b")
        >>> _ = table.commit(b"app:")
        >>> _ = table.forget(b"app:")
        >>> table.start(b"app:", "a", "c")
        Migration(prefix=b'app:', source='a', target='c')
        """
        return self._step(to_bytes(prefix, "prefix"), _FORGET)

    def match(self, key: bytes | str) -> Migration | None:
        """The move in flight that ``key`` is part of: writes to it are refused until that ends. None if there is none.

        ``key`` is bytes; ``str`` is taken as UTF-8. Costs next to nothing while nothing moves.
        """
        return self._moves[_QUIESCED].longest(key)

    def match_migrated(self, key: bytes | str) -> Migration | None:
        """The past move that ``key`` was part of: writes to it belong to its target. None if there is none."""
        return self._moves[_MIGRATED].longest(key)

    def state(self, prefix: bytes | str) -> MigrationState:
        """Where exactly this prefix stands.

        >>> MigrationTable().state(b"app:")
        <MigrationState.IDLE: 'idle'>
        """
        return self._find(to_bytes(prefix, "prefix"))[0]

    @property
    def in_flight(self) -> tuple[Migration, ...]:
        """The moves that are neither committed nor aborted, in the order of their prefixes."""
        return self._moves[_QUIESCED].values()

    @property
    def migrated(self) -> tuple[Migration, ...]:
        """The moves that are committed and not forgotten, in the order of their prefixes."""
        return self._moves[_MIGRATED].values()

    def __repr__(self) -> str:
        return f"<MigrationTable in_flight={list(self.in_flight)!r} migrated={list(self.migrated)!r}>"

    def _find(self, prefix: bytes) -> tuple[MigrationState, Migration | None]:
        for state, moves in self._moves.items():
            migration = moves.get(prefix)
            if migration is not None:
                return state, migration
        return _IDLE, None

    def _step(self, prefix: bytes, event: MigrationEvent, begun: Migration | None = None) -> Migration:
        """Let ``event`` happen to ``prefix``, as the table of transitions says; only a start brings a move along."""
        state, present = self._find(prefix)
        outcome = TRANSITIONS[state, event]
        if not isinstance(outcome, MigrationState):
            raise outcome(prefix, present)
        migration = self._moves[state].remove(prefix) if begun is None else begun
        if outcome in self._moves:
            self._moves[outcome].add(prefix, migration)
        return migration
