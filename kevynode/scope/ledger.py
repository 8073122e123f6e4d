"""The ledger: who has become the owner of a prefix by a move, in place of the writer that the configuration declares.

A :class:`Ledger` holds for each prefix what the highest epoch says. Merging takes the join of two ledgers, so nodes
that have seen the same entries agree, in whatever order and however often they came. Pure: no I/O, no clock.

An **incident** is a prefix for which two nodes were made owner at one epoch. The order of the entries decides who is
routed to, the same everywhere. All entries of that epoch are kept and passed on, so that the losing owner learns of it:
it must close the scope at once and keep its tail in a file (:mod:`.tails`).

Who calls what, and when:

- *Rows from a peer, or an entry made here*: ``difference = ledger.compare(entries)``. Close at once what by its
  ``changed`` entries is not this node's any more, though it has not given it away. Append the ``learned`` entries to
  the file, in a thread (``ledger_file``); only then ``ledger.merge(entries)``, and tell routing what that ``changed``.
- *Each heartbeat*: ``ledger.digest``; when the peer's differs, send it ``ledger.rows()``, page by page, each to be read
  there by :func:`parse_rows`.
- *At start, and after merging*: warn of ``ledger.inert(declared prefixes)``: they act on nothing.
- *A new move*: ``next_epoch(...)`` of what source, target and all peers that can be reached know.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Iterator
from typing import Final

import attrs

from .ledger_text import (
    MAX_NUMBER,
    PREFIX_LIMIT,
    LedgerError,
    check_id,
    check_number,
    check_prefix,
    escape_prefix,
    fields_of,
    format_fields,
    read_number,
    unescape_prefix,
)

__all__ = [
    "PAGE_LIMIT",
    "PREFIX_LIMIT",
    "RIVALS_LIMIT",
    "ROWS_LIMIT",
    "Difference",
    "Incident",
    "Ledger",
    "LedgerEntry",
    "LedgerError",
    "LedgerFull",
    "next_epoch",
    "parse_rows",
]

#: Entries that one ledger holds at most; 16 times as many scopes as anybody has been seen to declare.
ROWS_LIMIT: Final = 16384
#: Entries of one prefix and one epoch that are kept, the highest ones: more than two say nothing new.
RIVALS_LIMIT: Final = 4
#: Bytes in one page of rows.
PAGE_LIMIT: Final = 64 * 1024

_FIELDS: Final = ("prefix", "owner", "epoch", "move")


class LedgerFull(LedgerError):
    """Merging would make the ledger larger than :data:`ROWS_LIMIT`."""


@attrs.frozen(order=False)
class LedgerEntry:
    """By the move ``move_id``, ``owner`` (a node id) writes the keys under ``prefix``, from ``epoch`` (1 …) on.

    Raises LedgerError for values that a ledger does not take.
    """

    prefix: bytes
    owner: str
    epoch: int
    move_id: str

    def __attrs_post_init__(self) -> None:
        check_prefix(self.prefix)
        check_id(self.owner, "the owner")
        check_number(self.epoch, "an epoch", 1)
        check_id(self.move_id, "a move id")

    @property
    def rank(self) -> tuple[int, str, str]:
        """What entries of one prefix are ordered by: epoch, move id. (The owner only so that any two have an order.)"""
        return self.epoch, self.move_id, self.owner

    def text(self) -> str:
        """The entry as a text without spaces at its ends, ASCII."""
        return format_fields(
            "entry", prefix=escape_prefix(self.prefix), owner=self.owner, epoch=self.epoch, move=self.move_id
        )

    @classmethod
    def parse(cls, text: str) -> LedgerEntry:
        """The entry that :meth:`text` wrote. Raises LedgerError for everything else."""
        prefix, owner, epoch, move_id = fields_of(text, "entry", _FIELDS)
        entry = cls(unescape_prefix(prefix), owner, read_number(epoch), move_id)
        if entry.text() != text:
            raise LedgerError("an entry is spelled in another way than it would be written")
        return entry


@attrs.frozen
class Incident:
    """Several nodes were made owner of one prefix at one epoch. ``entries`` say so, the winning one first."""

    entries: tuple[LedgerEntry, ...]

    @property
    def prefix(self) -> bytes:
        """The prefix that they are about."""
        return self.entries[0].prefix

    @property
    def epoch(self) -> int:
        """Their epoch."""
        return self.entries[0].epoch

    @property
    def winner(self) -> LedgerEntry:
        """The one that is routed by."""
        return self.entries[0]

    @property
    def losing_owners(self) -> frozenset[str]:
        """The nodes that must close the scope at once, and keep the tail of what they wrote in a file."""
        return frozenset(entry.owner for entry in self.entries) - {self.winner.owner}


@attrs.frozen
class Difference:
    """What a ledger lacks of some entries; false if nothing.

    ``learned``: all that it does not hold and would keep. ``changed``: those of them that decide who is routed to, one
    for each prefix. ``incidents``: those that are new, or of which more became known.
    """

    learned: tuple[LedgerEntry, ...] = ()
    changed: tuple[LedgerEntry, ...] = ()
    incidents: tuple[Incident, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.learned)


class Ledger:
    """Entries, the highest epoch of each prefix. Takes any entries to begin with; equal if it holds the same ones.

    Not thread-safe: whoever reads in another thread takes ``tuple(ledger)`` first.
    """

    __slots__ = ("_by_prefix", "_count", "_digest")

    def __init__(self, entries: Iterable[LedgerEntry] = ()) -> None:
        # All entries of the highest epoch, the winning one first; one unless there is an incident.
        self._by_prefix: dict[bytes, tuple[LedgerEntry, ...]] = {}
        self._count = 0
        self._digest: str | None = None
        self.merge(entries)

    def entry(self, prefix: bytes) -> LedgerEntry | None:
        """The entry that decides who owns exactly this prefix; None where the declaration still holds."""
        held = self._by_prefix.get(prefix)
        return None if held is None else held[0]

    def owner(self, prefix: bytes, declared_writer: str) -> str:
        """Who owns a declared prefix: ledger over declaration."""
        held = self._by_prefix.get(prefix)
        return declared_writer if held is None else held[0].owner

    def epoch(self, prefix: bytes) -> int:
        """The highest epoch known of a prefix; 0 if it never moved."""
        held = self._by_prefix.get(prefix)
        return 0 if held is None else held[0].epoch

    def compare(self, entries: Iterable[LedgerEntry]) -> Difference:
        """What merging ``entries`` would bring; changes nothing. Raises LedgerFull."""
        return self._join(entries)[1]

    def merge(self, entries: Iterable[LedgerEntry]) -> Difference:
        """Take in ``entries``: the join of both, so order and repetition do not matter. Returns what it brought.

        Raises LedgerFull, and then has changed nothing.
        """
        joined, difference = self._join(entries)
        if difference:
            self._count += sum(len(rows) - len(self._by_prefix.get(prefix, ())) for prefix, rows in joined.items())
            self._by_prefix.update(joined)
            self._digest = None
        return difference

    def copy(self) -> Ledger:
        """A ledger of its own that holds the same."""
        made = Ledger()
        made._by_prefix = dict(self._by_prefix)
        made._count = self._count
        made._digest = self._digest
        return made

    def incidents(self) -> tuple[Incident, ...]:
        """All that are known and not settled by a higher epoch, in the order of their prefixes."""
        found = (Incident(rows) for _, rows in sorted(self._by_prefix.items()) if len(rows) > 1)
        return tuple(incident for incident in found if incident.losing_owners)

    def inert(self, declared: Container[bytes]) -> tuple[LedgerEntry, ...]:
        """The deciding entries of prefixes that are not among ``declared``: kept and passed on, and act on nothing."""
        return tuple(rows[0] for prefix, rows in sorted(self._by_prefix.items()) if prefix not in declared)

    @property
    def digest(self) -> str:
        """64 hexadecimal digits, equal for ledgers that hold the same entries. Made when it is first asked for."""
        if self._digest is None:
            made = hashlib.sha256()
            for entry in self:
                made.update(entry.text().encode("ascii") + b"\n")
            self._digest = made.hexdigest()
        return self._digest

    def rows(self, page_limit: int = PAGE_LIMIT) -> tuple[bytes, ...]:
        """All entries for a peer, in pages of at most ``page_limit`` bytes (or of one entry) for :func:`parse_rows`.

        An empty ledger has no page.
        """
        pages: list[bytes] = []
        page = bytearray()
        for entry in self:
            row = entry.text().encode("ascii") + b"\n"
            if page and len(page) + len(row) > page_limit:
                pages.append(bytes(page))
                page.clear()
            page += row
        return (*pages, bytes(page)) if page else tuple(pages)

    def __iter__(self) -> Iterator[LedgerEntry]:
        """Every entry, in the order of the prefixes, of one prefix the deciding one first."""
        for _, rows in sorted(self._by_prefix.items()):
            yield from rows

    def __len__(self) -> int:
        """Entries, those that lost against another of their epoch included."""
        return self._count

    def __eq__(self, other: object) -> bool:
        return self._by_prefix == other._by_prefix if isinstance(other, Ledger) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"Ledger({list(self)!r})"

    def _join(self, entries: Iterable[LedgerEntry]) -> tuple[dict[bytes, tuple[LedgerEntry, ...]], Difference]:
        """What the prefixes that change would hold then, and the difference."""
        joined: dict[bytes, tuple[LedgerEntry, ...]] = {}
        for entry in entries:
            held = joined.get(entry.prefix) or self._by_prefix.get(entry.prefix, ())
            if not held or entry.epoch > held[0].epoch:
                joined[entry.prefix] = (entry,)
            elif entry.epoch == held[0].epoch and entry not in held:
                rows = tuple(sorted((*held, entry), key=_rank, reverse=True)[:RIVALS_LIMIT])
                if rows != held:
                    joined[entry.prefix] = rows
            else:
                continue
            # Each step adds one at the most, so nobody can make this large before it is noticed.
            if len(joined) > ROWS_LIMIT:
                raise LedgerFull(_full())
        count = self._count
        learned: list[LedgerEntry] = []
        changed: list[LedgerEntry] = []
        incidents: list[Incident] = []
        for prefix, rows in sorted(joined.items()):
            held = self._by_prefix.get(prefix, ())
            count += len(rows) - len(held)
            learned += [row for row in rows if row not in held]
            if not held or rows[0] != held[0]:
                changed.append(rows[0])
            incident = Incident(rows)
            if incident.losing_owners:
                incidents.append(incident)
        if count > ROWS_LIMIT:
            raise LedgerFull(_full())
        return joined, Difference(tuple(learned), tuple(changed), tuple(incidents))


def next_epoch(known: Iterable[int]) -> int:
    """The epoch of a new move: one above all that are known, of entries and of agreements; 1 if none is.

    Raises LedgerError where there is none above.
    """
    epoch = max(known, default=0) + 1
    if epoch > MAX_NUMBER:
        raise LedgerError(f"there is no epoch above {MAX_NUMBER}")
    return epoch


def parse_rows(page: bytes) -> tuple[LedgerEntry, ...]:
    """The entries in one page of :meth:`Ledger.rows`. Raises LedgerError for everything else, large input at once."""
    if len(page) > PAGE_LIMIT:
        raise LedgerError(f"a page of rows has {len(page)} bytes, more than {PAGE_LIMIT}")
    if not page:
        return ()
    if not page.endswith(b"\n"):
        raise LedgerError("a page of rows does not end with a line end")
    try:
        text = page[:-1].decode("ascii")
    except UnicodeDecodeError:
        raise LedgerError("a page of rows is not ASCII") from None
    return tuple(LedgerEntry.parse(line) for line in text.split("\n"))


def _rank(entry: LedgerEntry) -> tuple[int, str, str]:
    return entry.rank


def _full() -> str:
    return f"the ledger would hold more than {ROWS_LIMIT} entries"
