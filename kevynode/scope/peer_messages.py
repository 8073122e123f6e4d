"""What two nodes of a cluster say to each other on a peer link, as values; as bytes in :mod:`peer_wire`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Final, Literal, TypeAlias

import attrs

from .copies import HeldCopy
from .ledger import LedgerEntry
from .ledger_text import PREFIX_LIMIT

__all__ = [
    "ASKED_PREFIXES",
    "CONFIGURATION_BYTES_LIMIT",
    "CONFIGURATION_ROWS_LIMIT",
    "PIECE_ROWS",
    "Beat",
    "Configuration",
    "ConfigurationRows",
    "CopiesAsked",
    "CopiesHeld",
    "Hello",
    "LedgerPage",
    "Message",
    "PeerRow",
    "RefusalCode",
    "Refused",
    "Row",
    "ScopeRow",
    "Welcome",
    "in_questions",
    "multibulk",
    "row_size",
    "row_words",
]

#: Bytes of rows and prefixes after which a message is not made longer.
PIECE_SIZE: Final = 64 * 1024
#: Rows or prefixes of one message.
PIECE_ROWS: Final = 512
#: Prefixes of one question: what is held of so many, with all that their histories descend from, fits into a message.
ASKED_PREFIXES: Final = 256
#: Most rows of one configuration, scopes and peers: four times what a ledger holds.
CONFIGURATION_ROWS_LIMIT: Final = 65536
#: Most bytes of one configuration.
CONFIGURATION_BYTES_LIMIT: Final = 8 * 1024 * 1024

#: Why a node does not talk to another one: its version is too new; its id is not declared here, or as another kind; it
#: takes this node for somebody else; it is a copy of this very node; or it is one of two with one id.
RefusalCode: TypeAlias = Literal["version", "unknown", "misplaced", "same-node", "same-instance", "twin"]


# -- who is there -----------------------------------------------------------------------------------------------------


@attrs.frozen
class Hello:
    """Who dials: its id and instance, the protocol's ``version``, and the id that it expects to find here."""

    version: int
    node_id: str
    instance: str
    expected: str


@attrs.frozen
class Welcome:
    """The answer of a node that takes the link."""

    version: int
    node_id: str
    instance: str


@attrs.frozen
class Refused:
    """The answer of a node that does not, with the version it speaks. ``code`` is a RefusalCode, or a newer one."""

    version: int
    code: str
    text: str


# -- what they say ----------------------------------------------------------------------------------------------------


@attrs.frozen
class Beat:
    """A sign of life, with what the sender is now. Digests are 64 hexadecimal digits. See the module's text."""

    ledger_digest: str
    ledger_version: int
    remembered: int
    configuration_digest: str
    state: str
    client_address: str


@attrs.frozen
class LedgerPage:
    """Some entries of the sender's ledger."""

    kind: Literal["NEWS", "PART", "LAST"]
    entries: tuple[LedgerEntry, ...]


@attrs.frozen
class ScopeRow:
    """One declared scope. ``fallback`` is empty where there is none."""

    prefix: bytes
    writer: str
    fallback: str = ""


@attrs.frozen
class PeerRow:
    """One declared node: its id, client address, replication address, and the program it runs."""

    node_id: str
    address: str
    replication: str
    kind: str


Row: TypeAlias = ScopeRow | PeerRow


@attrs.frozen
class ConfigurationRows:
    """A piece of the sender's configuration: rows ``place`` and the following, of ``total``."""

    place: int
    total: int
    rows: tuple[Row, ...]


@attrs.frozen
class CopiesAsked:
    """A question: what copies of these prefixes do you hold?"""

    number: int
    prefixes: tuple[bytes, ...]


@attrs.frozen
class CopiesHeld:
    """The answer to the question of that number. Prefixes that are missing in it are not held."""

    number: int
    copies: tuple[tuple[bytes, HeldCopy], ...]


Message: TypeAlias = Beat | LedgerPage | ConfigurationRows | CopiesAsked | CopiesHeld


def _sorted_scopes(rows: Iterable[ScopeRow]) -> tuple[ScopeRow, ...]:
    return tuple(sorted(rows, key=lambda row: (row.prefix, row.writer, row.fallback)))


def _sorted_peers(rows: Iterable[PeerRow]) -> tuple[PeerRow, ...]:
    return tuple(sorted(rows, key=lambda row: (row.node_id, row.address, row.replication, row.kind)))


@attrs.frozen(slots=False)
class Configuration:
    """The scopes and peers that a node's configuration declares, in any order.

    Raises ValueError if a peer could not take it: for a prefix that is too long, or too many rows.
    """

    scopes: tuple[ScopeRow, ...] = attrs.field(converter=_sorted_scopes)
    peers: tuple[PeerRow, ...] = attrs.field(converter=_sorted_peers)

    def __attrs_post_init__(self) -> None:
        for scope in self.scopes:
            if len(scope.prefix) > PREFIX_LIMIT:
                raise ValueError(f"a scope's prefix has at most {PREFIX_LIMIT} bytes, not {len(scope.prefix)}")
        if len(self.scopes) + len(self.peers) > CONFIGURATION_ROWS_LIMIT:
            raise ValueError(f"there are at most {CONFIGURATION_ROWS_LIMIT} scopes and peers in all")
        if sum(row_size(row) for row in self.rows) > CONFIGURATION_BYTES_LIMIT:
            raise ValueError(f"scopes and peers take at most {CONFIGURATION_BYTES_LIMIT} bytes in all")

    @property
    def rows(self) -> tuple[Row, ...]:
        """All of it, in the order in which it is sent."""
        return (*self.scopes, *self.peers)

    @cached_property
    def digest(self) -> str:
        """64 hexadecimal digits, equal for configurations that declare the same."""
        made = hashlib.sha256()
        for row in self.rows:
            made.update(multibulk(row_words(row)))
        return made.hexdigest()

    def messages(self) -> Iterator[ConfigurationRows]:
        """All of it in pieces; one piece without rows if nothing is declared."""
        rows = self.rows
        place = 0
        while True:
            end, size = place, 0
            while end < len(rows) and end - place < PIECE_ROWS and size < PIECE_SIZE:
                size += row_size(rows[end])
                end += 1
            yield ConfigurationRows(place, len(rows), rows[place:end])
            place = end
            if place == len(rows):
                return

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Configuration:
        """The configuration that has these rows. Raises ValueError."""
        found = tuple(rows)
        return cls(
            tuple(row for row in found if isinstance(row, ScopeRow)),
            tuple(row for row in found if isinstance(row, PeerRow)),
        )


def in_questions(prefixes: Iterable[bytes]) -> list[tuple[bytes, ...]]:
    """``prefixes`` in as many groups as there must be questions for all of them."""
    groups: list[tuple[bytes, ...]] = []
    group: list[bytes] = []
    size = 0
    for prefix in prefixes:
        if group and (len(group) == ASKED_PREFIXES or size + len(prefix) > PIECE_SIZE):
            groups.append(tuple(group))
            group, size = [], 0
        group.append(prefix)
        size += len(prefix)
    return [*groups, tuple(group)] if group else groups


def row_words(row: Row) -> tuple[bytes, ...]:
    """The five words of a row."""
    if isinstance(row, ScopeRow):
        return b"SCOPE", row.prefix, row.writer.encode(), row.fallback.encode(), b""
    return b"NODE", row.node_id.encode(), row.address.encode(), row.replication.encode(), row.kind.encode()


def row_size(row: Row) -> int:
    """Bytes of a row, without what the wire adds."""
    return sum(map(len, row_words(row)))


def multibulk(words: Sequence[bytes]) -> bytes:
    """A RESP multibulk command."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
