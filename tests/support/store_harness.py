"""Commands run on a store of their own, without a server: table, arity, handler, commit, as the dispatcher does it.

>>> harness = Harness()
>>> harness.call("SET", "greeting", "hello")
Status(b'OK')
>>> harness.call("GET", "greeting")
b'hello'
>>> harness.commands
[]
>>> harness.replay()

What must hold for every command is asserted at each call: one that raises or that is declared ``readonly`` records no
change (but the end of keys that have expired), effects speak the canonical vocabulary, and memory is counted right.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

import kevynode.store.commands  # noqa: F401  enters the commands into the table
from kevynode.errors import WRONG_ARITY, ReplyError
from kevynode.reply import encode
from kevynode.store import notify
from kevynode.store.apply import Applier
from kevynode.store.command import TABLE, Command
from kevynode.store.journal import Effect, Event
from kevynode.store.settings import StoreSettings
from kevynode.store.store import Store
from kevynode.store.stream_values import Stream
from kevynode.store.values import Hash, List, Set, SortedSet, Value, bytes_memory, value_memory

Word: TypeAlias = bytes | str | int | float
#: What a store holds, in a form that compares: key -> (description of the value, deadline).
Content: TypeAlias = dict[bytes, tuple[Any, int | None]]

#: Unix milliseconds at which every harness starts.
START: Final = 1_700_000_000_000

#: The only commands an effect may be made of.
CANONICAL: Final = frozenset(
    b"SET APPEND INCR DECR INCRBY DECRBY DEL PEXPIREAT PERSIST LPUSH RPUSH LPOP RPOP LSET LREM LTRIM HSET HDEL HINCRBY"
    b" HPEXPIREAT HPERSIST SADD SREM ZADD ZREM FLUSHALL XADD XTRIM XDEL XSETID XGROUP XACK XCLAIM".split()
)


def to_bytes(word: Word) -> bytes:
    """One argument as a client sends it; text is UTF-8."""
    if isinstance(word, bytes):
        return word
    return word.encode("utf-8", "surrogateescape") if isinstance(word, str) else str(word).encode()


def find_command(argv: list[bytes]) -> Command:
    """The entry, or subcommand's entry, for ``argv``; AssertionError where there is none."""
    entry = TABLE.get(argv[0])
    assert entry is not None, f"no such command: {argv[0]!r}"
    if not entry.subcommands:
        return entry
    assert len(argv) > 1, f"{entry.name} needs a subcommand"
    subcommand = entry.subcommands.get(argv[1].lower())
    assert subcommand is not None, f"no such subcommand: {argv[:2]!r}"
    return subcommand


def describe(value: Value) -> Any:
    """A value's content, with what it counts of its memory, such that equal content compares equal."""
    match value:
        case bytes():
            return value
        case Hash():
            return ("hash", dict(value.fields.items()), dict(value.deadlines or {}), value.payload)
        case List():
            return ("list", list(value.elements), value.payload)
        case Set():
            return ("set", set(value.members), value.payload)
        case SortedSet():
            scores = dict(value.scores.items())
            assert list(value.order) == sorted((score, member) for member, score in scores.items())
            return ("zset", scores, value.payload)
        case Stream():
            ids = [entry_id for entry_id, _ in value]
            assert ids == sorted(set(ids))
            assert len(ids) == len(value)
            assert value.top_id <= value.last_id
            # When a consumer was last seen is each copy's own knowledge.
            groups = {
                name: (group.last_delivered, set(group.consumers), group.pending)
                for name, group in value.groups.items()
            }
            return ("stream", list(value), value.last_id, value.max_deleted_id, value.entries_added, groups)


def content(store: Store) -> Content:
    """Everything the store holds, expired or not."""
    return {
        key: (describe(value), shard.deadlines.get(key))
        for shard in store.keyspace.shards()
        for key, value in shard.items()
    }


def check_memory(store: Store) -> None:
    """Assert that a store's counts are what a walk over it finds, and that no container is empty that may not be."""
    held = list(store.keyspace.items())
    assert store.keyspace.count == len(held)
    assert store.used == sum(bytes_memory(key) + value_memory(value) for key, value in held)
    assert all(len(value) or isinstance(value, bytes | Stream) for _, value in held), "an empty container stayed"
    for shard in store.keyspace.shards():
        assert shard.deadlines.keys() <= shard.keys()


class Harness:
    """A store, what has been done to it, and a clock that stands still unless a test sets :attr:`now`.

    After each :meth:`call`: ``group`` has the effects of that call, ``commands`` their canonical commands as tuples,
    ``events`` what would be published for them, and ``unbound_events`` what would be published beside them (new keys,
    key misses). ``effects`` has every effect so far.
    """

    def __init__(self, now: int = START, seed: int = 1, settings: StoreSettings | None = None) -> None:
        self.seed = seed
        self.store = Store(random.Random(seed), settings=settings)
        self.store.on_event = lambda flag, name, key: self.unbound_events.append((flag, name, key))
        self.store.journal.observers.append(self._observe)
        self.now = now
        self.effects: list[Effect] = []
        self.group: list[Effect] = []
        self.unbound_events: list[Event] = []
        self._times: list[int] = []

    @property
    def now(self) -> int:
        """The wall clock the commands see, in unix milliseconds."""
        return self.store.now

    @now.setter
    def now(self, value: int) -> None:
        self.store.now = value

    def _observe(self, first: int, group: list[Effect]) -> None:
        assert first == len(self.effects)
        self.group += group
        self.effects += group
        self._times += [self.now] * len(group)

    @property
    def commands(self) -> list[tuple[bytes, ...]]:
        """The canonical commands that the last call recorded."""
        return [tuple(command) for command, _, _ in self.group]

    @property
    def events(self) -> list[Event]:
        """The (class flag, name, key) events of the last call's effects, in order."""
        return [event for _, _, events in self.group for event in events]

    def call(self, *words: Word) -> Any:
        """Run one command and return its typed reply (a ReplyError if it raised one, ``Blocked`` if it would wait)."""
        argv = [to_bytes(word) for word in words]
        entry = find_command(argv)
        self.group = []
        self.unbound_events = []
        if not entry.accepts(len(argv)):
            return WRONG_ARITY(entry.full_name)
        assert entry.on_store, f"{entry.full_name} needs a session"
        try:
            reply = entry.handler(self.store, argv)
        except ReplyError as error:
            self._commit()
            self._assert_unchanged(argv)
            return error
        self._commit()
        if not entry.writes:
            self._assert_unchanged(argv)
        return reply

    def text(self, *words: Word) -> str:
        """Run one command that must fail, and return its error line."""
        reply = self.call(*words)
        assert isinstance(reply, ReplyError), f"{words} answered {reply!r}"
        return str(reply)

    def wire(self, protocol: int, *words: Word) -> bytes:
        """Run one command and return its reply as protocol 2 or 3 sends it."""
        return encode(self.call(*words), protocol)

    def _commit(self) -> None:
        self.store.commit()
        for command, key, _ in self.group:
            assert command[0].upper() in CANONICAL, f"{command!r} is no canonical effect"
            assert all(type(word) is bytes for word in command)
            assert key is None or key in command, f"{command!r} says nothing about {key!r}"

    def _assert_unchanged(self, argv: list[bytes]) -> None:
        for command, _, events in self.group:
            assert [name for _, name, _ in events] == [b"expired"], f"{argv!r} changed something: {command!r}"

    # -- what must hold -----------------------------------------------------------------------------------------------

    def content(self) -> Content:
        """Everything the store holds, expired or not: key -> (description, deadline)."""
        return content(self.store)

    def check_memory(self) -> None:
        """Assert that the store's counts are what a walk over it finds."""
        check_memory(self.store)

    def replay(self) -> None:
        """Apply every effect so far to a second store, as a copy does, and assert that both stores are equal.

        Each effect is applied at the time it was recorded, by a store that leaves expiry to the stream.
        """
        self.check_memory()
        copy = Harness(seed=self.seed + 1)
        copy.store.deletes_expired = False
        applier = Applier(copy.store)
        for (command, _, _), time in zip(self.effects, self._times, strict=True):
            copy.now = time
            applier.apply(command)
            copy.store.commit()
        assert copy.content() == self.content()
        copy.check_memory()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Assert that a snapshot taken on entry still holds on exit what it held on entry."""
        before = self.content()
        shards = self.store.freeze()
        yield
        after = {key: (describe(value), shard.deadlines.get(key)) for shard in shards for key, value in shard.items()}
        assert after == before


def recorded(store: Store) -> list[Effect]:
    """The effects that a store commits from now on, as they come."""
    effects: list[Effect] = []
    store.journal.observers.append(lambda _, group: effects.extend(group))
    return effects


def named(harness: Harness) -> list[tuple[bytes, bytes]]:
    """The last call's events without their classes: (name, key)."""
    return [(name, key) for _, name, key in harness.events]


def event_class(letter: str) -> int:
    """The class flag of a ``notify-keyspace-events`` letter."""
    flags = notify.parse_flags(letter)
    assert flags is not None
    return flags


CallLine: TypeAlias = Callable[[str], Any]


def lines(harness: Harness) -> CallLine:
    """A function that runs a command given as one line, cut at blanks: ``run("SET k v")``."""
    return lambda line: harness.call(*line.split())
