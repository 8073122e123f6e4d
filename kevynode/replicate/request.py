"""What a replica asks a primary for, as a value."""

from __future__ import annotations

import enum
from typing import Final

import attrs

__all__ = ["CAPABILITIES", "RESTORING", "Form", "Request"]

#: What a link between kevynodes can do beyond the kevy server's, in the order in which it is named.
CAPABILITIES: Final = ("txn", "skip", "scopes", "ackreq", "lineage")


#: How the id ends by which a writer asks for its own data.
RESTORING: Final = ".restore"


class Form(enum.Enum):
    """The forms of the handshake, named after their number of arguments."""

    FIVE = 5
    SIX = 6
    EXTENDED = 8


@attrs.frozen
class Request:
    """A handshake: replica ``replica_id`` asks for the stream from ``offset`` on of ``history``.

    ``history`` is 0 for none: a replica without data, or the five-argument form. Both numbers are what the replica
    claims, anything below 2**64. ``capabilities`` may hold names that this version does not know.
    """

    form: Form
    history: int
    offset: int
    replica_id: str
    capabilities: frozenset[str] = frozenset()

    @property
    def is_restoring(self) -> bool:
        """Whether it is a writer that has lost its data and gets them back from a copy: its id says so."""
        return self.replica_id.endswith(RESTORING)
