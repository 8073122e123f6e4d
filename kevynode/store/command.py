"""The command table: one entry for each command says its name, arity, flags, keys, categories, docs and handler.

Dispatch, the gates, COMMAND and the docs all read this table. A family of commands is a module that declares its
entries with :func:`command` beside the handlers::

    @command("strlen", arity=2, flags="readonly fast", keys=one_key("RO"), group="string", since="2.2.0",
             summary="The length of a string value.", complexity="O(1)", syntax="key")
    def strlen(store: Store, argv: Args) -> Reply:
        value = store.read_string(argv[1])
        return 0 if value is None else len(value)
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, TypeAlias, TypeVar

import attrs

from ..reply import NULL_ARRAY, Reply

__all__ = [
    "TABLE",
    "Args",
    "Blocked",
    "Command",
    "KeySpec",
    "Table",
    "command",
    "container",
    "key_number",
    "key_range",
    "keyword_keys",
    "one_key",
]

Args: TypeAlias = Sequence[bytes]
Handler: TypeAlias = Callable[..., Any]
H = TypeVar("H", bound=Handler)


class Blocked:
    """What a blocking handler returns when nothing can be served yet.

    The dispatcher parks the client on ``keys`` and runs the same argv again when one of them changes and holds a value
    of type ``kind``; or, for what no key tells, on a ``signal`` that the node gives: ``acknowledged`` when a replica
    has said how far it is, ``applied`` when this node has come further in what it copies, ``durable`` when more is on
    the disk, ``saved`` when a dump has ended, ``moved`` when a move has. Such a handler must not change data.
    ``timeout`` is in milliseconds, 0 waits for ever; ``on_timeout`` is the reply when it passes, or tells it then;
    ``at_once`` is the reply where a client cannot wait (inside EXEC, in-process), if that is another one.
    """

    __slots__ = ("at_once", "keys", "kind", "on_timeout", "signal", "timeout")

    def __init__(
        self,
        keys: Sequence[bytes] = (),
        timeout: int = 0,
        kind: type = bytes,
        on_timeout: Reply | Callable[[], Reply] = NULL_ARRAY,
        at_once: Reply = NULL_ARRAY,
        signal: Literal["acknowledged", "applied", "durable", "saved", "moved"] | None = None,
    ) -> None:
        self.keys = keys
        self.timeout = timeout
        self.kind = kind
        self.on_timeout = on_timeout
        self.at_once = at_once
        self.signal = signal

    def give_up(self) -> Reply:
        """The reply to a client whose time has passed."""
        reply: Reply = self.on_timeout() if callable(self.on_timeout) else self.on_timeout
        return reply


@attrs.frozen
class KeySpec:
    """Where one group of keys stands in a command line, in the terms of COMMAND's key specifications.

    ``flags``: RO/RW/OW/RM and ACCESS/UPDATE/INSERT/DELETE, as Valkey publishes them.
    ``begin``: an index, or a (keyword, start index) pair; a negative start searches backwards from the end.
    ``find``: ("range", last, step, limit), ("keynum", index of the number, first key, step), or ("unknown",).
    """

    flags: tuple[str, ...]
    begin: int | tuple[str, int]
    find: tuple[Any, ...]

    def positions(self, argv: Args) -> range:
        """Indexes of the keys in ``argv``; empty where it has none. Raises ValueError for a bad number of keys."""
        start = self._start(argv)
        if start is None or start >= len(argv):
            return range(0)
        if self.find[0] == "range":
            _, last, step, limit = self.find
            if last >= 0:
                stop = start + last
            elif limit <= 1:
                stop = len(argv) + last
            else:
                stop = start + (len(argv) - start) // limit - 1
            return range(start, min(stop, len(argv) - 1) + 1, step)
        if self.find[0] == "keynum":
            _, at, first, step = self.find
            if start + at >= len(argv):
                return range(0)
            number = int(argv[start + at])
            if number < 0:
                raise ValueError("a number of keys cannot be negative")
            stop = start + first + number * step
            if stop - step >= len(argv):
                raise ValueError("more keys announced than given")
            return range(start + first, stop, step)
        return range(0)

    @property
    def is_second_word(self) -> bool:
        """Whether it is always one key, directly behind the name of the command."""
        return self.begin == 1 and self.find[:2] == ("range", 0)

    def _start(self, argv: Args) -> int | None:
        if isinstance(self.begin, int):
            return self.begin
        keyword, origin = self.begin
        wanted = keyword.encode()
        # The last word cannot introduce a key.
        places = range(origin, len(argv) - 1) if origin >= 0 else range(len(argv) + origin, 0, -1)
        for place in places:
            if argv[place].upper() == wanted:
                return place + 1
        return None

    @property
    def writes(self) -> bool:
        """Whether the command may change these keys."""
        return self.flags[0] != "RO"


def one_key(flags: str, at: int = 1) -> tuple[KeySpec, ...]:
    """A single key at index ``at``."""
    return (KeySpec(tuple(flags.split()), at, ("range", 0, 1, 0)),)


def key_range(flags: str, first: int = 1, last: int = -1, step: int = 1) -> tuple[KeySpec, ...]:
    """Every ``step``-th argument from ``first`` to ``last`` (counted from ``first``; negative: from the end)."""
    return (KeySpec(tuple(flags.split()), first, ("range", last, step, 0)),)


def key_number(flags: str, at: int = 1) -> tuple[KeySpec, ...]:
    """A number at index ``at`` and that many keys behind it (ZUNION, LMPOP, ...)."""
    return (KeySpec(tuple(flags.split()), at, ("keynum", 0, 1, 1)),)


def keyword_keys(flags: str, keyword: str, start: int) -> tuple[KeySpec, ...]:
    """One key behind a keyword that is searched from index ``start`` (SORT's STORE)."""
    return (KeySpec(tuple(flags.split()), (keyword, start), ("range", 0, 1, 0)),)


_GROUP_CATEGORIES = {
    "string": "string",
    "bitmap": "bitmap",
    "hash": "hash",
    "list": "list",
    "set": "set",
    "sorted-set": "sortedset",
    "generic": "keyspace",
    "connection": "connection",
    "transactions": "transaction",
}


@attrs.define(eq=False)
class Command:
    """One command, or one subcommand (then ``parent`` is its container and ``name`` is the part behind the ``|``).

    What counts calls belongs to one node: a server takes :meth:`Table.copy`, and leaves the table of the process alone.
    """

    name: str
    arity: int
    flags: frozenset[str]
    keys: tuple[KeySpec, ...]
    group: str
    since: str
    summary: str
    complexity: str
    syntax: str
    handler: Handler
    # Categories beside those that flags and group imply.
    extra_categories: frozenset[str] = frozenset()
    # For commands whose keys no specification describes: argv -> indexes of the keys.
    find_keys: Callable[[Args], Iterable[int]] | None = None
    tips: tuple[str, ...] = ()
    parent: Command | None = None
    subcommands: dict[bytes, Command] = attrs.field(factory=dict)
    # A handler of the store takes (store, argv); any other takes (session, argv).
    on_store: bool = True
    # Statistics of this run: calls, seconds spent in them, calls rejected before and failed during execution.
    calls: int = 0
    seconds: float = 0.0
    rejected: int = 0
    failed: int = 0
    # What the fast path asks: a command of the store that never waits, and the bounds of its argument count.
    plain: bool = attrs.field(init=False)
    fewest: int = attrs.field(init=False)
    most: int = attrs.field(init=False)
    # What the gate of scopes asks: the second word is the one key that it may change, and whatever there is.
    writes_second_word: bool = attrs.field(init=False)
    writes_everything: bool = attrs.field(init=False)
    # What the compiled loop has noted of all this; no copy has it.
    facts: object = attrs.field(default=None, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self.plain = self.on_store and "blocking" not in self.flags
        self.fewest = abs(self.arity)
        self.most = self.arity if self.arity >= 0 else sys.maxsize
        written = [spec for spec in self.keys if spec.writes]
        self.writes_second_word = len(written) == 1 and written[0].is_second_word
        self.writes_everything = self.writes and not self.keys and self.name.startswith("flush")

    def copy(self, parent: Command | None = None) -> Command:
        """The same command with its subcommands, under ``parent`` if it is one; nothing has been counted."""
        twin = attrs.evolve(self, parent=parent, subcommands={}, calls=0, seconds=0.0, rejected=0, failed=0)
        for name, entry in self.subcommands.items():
            twin.subcommands[name] = entry.copy(twin)
        return twin

    @property
    def full_name(self) -> str:
        """``get``, or ``client|list`` for a subcommand."""
        return self.name if self.parent is None else f"{self.parent.name}|{self.name}"

    @property
    def writes(self) -> bool:
        """Whether the command may change data."""
        return "write" in self.flags

    @property
    def categories(self) -> tuple[str, ...]:
        """The ACL categories, sorted, without ``@``."""
        found = set(self.extra_categories)
        if "write" in self.flags:
            found.add("write")
        if "readonly" in self.flags:
            found.add("read")
        for flag in ("admin", "pubsub", "blocking"):
            if flag in self.flags:
                found.add(flag)
        if "admin" in self.flags:
            found.add("dangerous")
        found.add("fast" if "fast" in self.flags else "slow")
        implied = _GROUP_CATEGORIES.get(self.group)
        # A container is in no group's category, and a command that names a group's category is in that one only.
        if implied and not self.subcommands and found.isdisjoint(_GROUP_CATEGORIES.values()):
            found.add(implied)
        return tuple(sorted(found))

    @property
    def needs_connection(self) -> bool:
        """Whether the command makes sense only on a connection that lives on: it changes or watches its state."""
        return (
            not self.on_store
            and (self.group in ("transactions", "pubsub", "connection"))
            and self.name
            not in (
                "ping",
                "echo",
                "publish",
                "spublish",
                "channels",
                "numsub",
                "numpat",
                "shardchannels",
                "shardnumsub",
            )
        )

    def accepts(self, count: int) -> bool:
        """Whether ``count`` arguments, the name included, fit the arity."""
        return self.fewest <= count <= self.most

    def key_positions(self, argv: Args) -> list[int]:
        """Indexes of every key in ``argv``, by specification. Raises ValueError for a bad number of keys."""
        if self.find_keys is not None:
            return list(self.find_keys(argv))
        return [place for spec in self.keys for place in spec.positions(argv)]

    def written_keys(self, argv: Args) -> list[bytes]:
        """The keys the command may change. Raises ValueError for a bad number of keys."""
        return [argv[place] for spec in self.keys if spec.writes for place in spec.positions(argv)]


class Table:
    """Commands by name. Names are looked up in any case; lower and upper case cost one dict probe."""

    def __init__(self) -> None:
        self.by_name: dict[bytes, Command] = {}
        # Lower and upper case; the fast path reads it directly.
        self.spellings: dict[bytes, Command] = {}

    def add(self, entry: Command) -> None:
        """Enter a top-level command; a second one of the same name is a programming error."""
        name = entry.name.encode()
        if name in self.by_name:
            raise ValueError(f"command {entry.name} is declared twice")
        self.by_name[name] = entry
        self.spellings[name] = entry
        self.spellings[name.upper()] = entry

    def get(self, name: bytes) -> Command | None:
        """The command called ``name``, or None."""
        found = self.spellings.get(name)
        return found if found is not None else self.by_name.get(name.lower())

    def copy(self) -> Table:
        """The same commands, which count their calls for themselves."""
        twin = Table()
        for entry in self:
            twin.add(entry.copy())
        return twin

    def __iter__(self) -> Iterator[Command]:
        return iter(self.by_name.values())

    def __len__(self) -> int:
        return len(self.by_name)


TABLE = Table()


def command(
    name: str,
    *,
    arity: int,
    flags: str,
    group: str,
    since: str,
    summary: str,
    complexity: str,
    syntax: str = "",
    keys: tuple[KeySpec, ...] = (),
    categories: str = "",
    find_keys: Callable[[Args], Iterable[int]] | None = None,
    tips: tuple[str, ...] = (),
    parent: Command | None = None,
    on_store: bool = True,
    table: Table = TABLE,
) -> Callable[[H], H]:
    """Declare the decorated function as the handler of a command.

    ``arity`` counts the name (and the container's name for a subcommand), negative for "at least". ``flags`` and
    ``categories`` are words between spaces, as in Valkey's COMMAND (``write``, ``readonly``, ``denyoom``, ``fast``,
    ``blocking``, ``noscript``, ``loading``, ``stale``, ...). ``syntax`` is the argument line in the documentation's
    notation: ``key [NX|XX] [field value ...]``, words in capitals are literal.
    """

    def declare(handler: H) -> H:
        entry = Command(
            name=name,
            arity=arity,
            flags=frozenset(flags.split()),
            keys=keys,
            group=group,
            since=since,
            summary=summary,
            complexity=complexity,
            syntax=syntax,
            handler=handler,
            extra_categories=frozenset(categories.split()),
            find_keys=find_keys,
            tips=tips,
            parent=parent,
            on_store=on_store,
        )
        if parent is None:
            table.add(entry)
        else:
            parent.subcommands[name.encode()] = entry
        return handler

    return declare


def container(name: str, *, group: str, since: str, summary: str, flags: str = "", table: Table = TABLE) -> Command:
    """Declare a command that only holds subcommands (OBJECT, CLIENT, ...); pass the result as ``parent``."""

    def refuse(*_: object) -> Reply:
        raise AssertionError(f"{name} is dispatched to its subcommands")

    entry = Command(
        name=name,
        arity=-2,
        flags=frozenset(flags.split()),
        keys=(),
        on_store=False,
        group=group,
        since=since,
        summary=summary,
        complexity="Depends on subcommand.",
        syntax="",
        handler=refuse,
    )
    table.add(entry)
    return entry
