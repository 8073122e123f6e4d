"""Histories and where they branched off from each other.

Offsets count the entries of one **history**, a random number that is compared for equality only. A node that opens for
writing begins a new history which continues the numbering of the one before, and remembers it as an **ancestor** with
its **branch offset**: the first offset that the ancestor does not share with its successor. A copy that stands at or
before all branches between its history and ours holds nothing that we lack, so it can simply go on.
"""

from __future__ import annotations

from typing import Final

import attrs

__all__ = ["ANCESTOR_LIMIT", "HISTORY_LIMIT", "MAX_OFFSET", "Lineage"]

#: The largest offset that fits a frame.
MAX_OFFSET: Final = 2**63 - 1
#: Histories are at least 1 and below this, so that they survive languages whose only number is a double.
HISTORY_LIMIT: Final = 2**53
#: How many ancestors are remembered. Older ones are forgotten: their copies start over.
ANCESTOR_LIMIT: Final = 16


def _check_history(instance: object, attribute: attrs.Attribute[int], history: int) -> None:
    if not 0 < history < HISTORY_LIMIT:
        raise ValueError(f"a history is at least 1 and below 2**53, not {history}")


def _check_ancestors(
    lineage: Lineage, attribute: attrs.Attribute[tuple[tuple[int, int], ...]], ancestors: tuple[tuple[int, int], ...]
) -> None:
    if len(ancestors) > ANCESTOR_LIMIT:
        raise ValueError(f"at most {ANCESTOR_LIMIT} ancestors, not {len(ancestors)}")
    known = {lineage.history}
    for history, offset in ancestors:
        if not 0 < history < HISTORY_LIMIT:
            raise ValueError(f"a history is at least 1 and below 2**53, not {history}")
        if not 0 <= offset <= MAX_OFFSET:
            raise ValueError(f"branch offset {offset} of history {history} is out of range")
        if history in known:
            raise ValueError(f"history {history} stands twice in a lineage")
        known.add(history)


@attrs.frozen
class Lineage:
    """A history and what it descends from.

    ``ancestors`` holds ``(history, branch offset)``, newest first, at most :data:`ANCESTOR_LIMIT` of them. Raises
    ValueError for numbers out of range and for a history that stands in it twice.

    >>> lineage = Lineage(7).branch(8, 100).branch(9, 80)
    >>> lineage.shared(7), lineage.shared(8), lineage.shared(5)
    (80, 80, None)
    """

    history: int = attrs.field(validator=_check_history)
    ancestors: tuple[tuple[int, int], ...] = attrs.field(default=(), validator=_check_ancestors)

    def branch(self, history: int, offset: int) -> Lineage:
        """The lineage of the new ``history`` that leaves this one at ``offset``; the oldest ancestor may drop out.

        Raises ValueError if ``history`` is out of range or already known here, or ``offset`` is out of range.
        """
        return Lineage(history, ((self.history, offset), *self.ancestors)[:ANCESTOR_LIMIT])

    def shared(self, history: int) -> int | None:
        """Up to which next offset a copy in ``history`` holds nothing that differs from ours.

        None if the history is unknown, :data:`MAX_OFFSET` (no bound) for the present one, and for an ancestor the
        smallest branch offset from it onwards: a recovery may fall back behind an earlier branch.
        """
        if history == self.history:
            return MAX_OFFSET
        bound = MAX_OFFSET
        for ancestor, offset in self.ancestors:
            bound = min(bound, offset)
            if ancestor == history:
                return bound
        return None

    def covers(self, history: int, offset: int) -> bool:
        """Whether a copy that expects ``offset`` next in ``history`` shares everything it holds with this history."""
        bound = self.shared(history)
        return bound is not None and 0 <= offset <= bound
