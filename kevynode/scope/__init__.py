"""Scopes as a library: who writes which keys. Pure tables without I/O, clocks or Trio.

A :class:`Scope` declares that the keys under a prefix are written by one node, an :class:`OwnershipTable` answers whose
a key is, with a :class:`Routing`, and a :class:`MigrationTable` keeps the prefixes that are moving between nodes.

>>> from kevynode.scope import OwnershipTable, Scope
>>> table = OwnershipTable([Scope(b"app:billing:", "billing-1"), Scope(b"app:auth:", "auth-1")])
>>> table.route(b"app:billing:42", "billing-1")
Routing.Owned()
>>> table.route(b"app:auth:7", "billing-1")
Routing.Misdirected(target='auth-1')
>>> table.route(b"session:9", "billing-1")
Routing.Unscoped()
"""

from .migration import (
    AlreadyInFlight,
    AlreadyMigrated,
    Migration,
    MigrationError,
    MigrationState,
    MigrationTable,
    UnknownMigration,
)
from .routing import Routing
from .scope import Scope
from .table import DuplicatePrefix, NestedPrefix, OwnershipError, OwnershipTable

__all__ = [
    "AlreadyInFlight",
    "AlreadyMigrated",
    "DuplicatePrefix",
    "Migration",
    "MigrationError",
    "MigrationState",
    "MigrationTable",
    "NestedPrefix",
    "OwnershipError",
    "OwnershipTable",
    "Routing",
    "Scope",
    "UnknownMigration",
]
