"""Which of several copies of a prefix has most of what its writers wrote. Pure.

Copies are compared by what they are copies of, and not by how large their numbers are:

- **Epochs first.** Whoever became the owner began with everything that the one before had written, so a copy taken from
  the later owner has all that one of the earlier owner ever had.
- **Then the histories' branches.** A copy in a history that descends from the other one's has all of that other copy
  up to the branch; what the other one has beyond is what the writer lost, and a **dead branch**: the writer went on
  without it, and clients saw that. So a copy that has come to the branch outdoes every one on the dead branch, however
  far that one is. One that names the later history and has not come to the branch stands where the earlier one stood.
- **Then the offsets.** In one history the higher one has more. Of histories that know nothing of each other, too: a
  writer that lost its data numbers on above every copy that it was told of (:attr:`Opening.highest_offset`), so what it
  has written since is higher. It is no proof where a history is older than the ancestors that are remembered
  (``lineage.ANCESTOR_LIMIT`` of them), where a writer was started empty, or by an old backup, without asking; no order
  of such histories can be known, and one copy must be chosen.

The first two rules decide between any two copies or leave them equal, and following them leads in no circle: they say
how much of one line of histories a copy has. The third one is asked only of copies that none of all outdoes by the
first two, so that a copy on a dead branch is never chosen for its offset while one is there that knows better.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from ..replicate.lineage import MAX_OFFSET

__all__ = ["HeldCopy", "newest_copies"]


@attrs.frozen
class HeldCopy:
    """A peer's whole copy of a prefix: as of ``offset`` (the next one) of ``history``, with so many ``keys``.

    ``epoch`` is that of the owner it was taken from, 0 for the declared writer. ``ancestors`` are the ``(history,
    branch offset)`` that ``history`` descends from, newest first, as far as the peer knows them. An offset of 0 stands
    for all that was written before ``epoch``, and nothing of what its owner has written since.
    """

    history: int
    offset: int
    keys: int
    epoch: int = 0
    ancestors: tuple[tuple[int, int], ...] = ()


def newest_copies(held: Mapping[str, HeldCopy]) -> list[str]:
    """The peers whose copies are as good as any, in order; none only if there are no copies at all."""
    if not held:
        return []
    epoch = max(copy.epoch for copy in held.values())
    last = {peer: copy for peer, copy in held.items() if copy.epoch == epoch}
    # Each would be outdone only if peers said of two histories that either one descends from the other.
    best = {
        peer: copy for peer, copy in last.items() if not any(_outdoes(other, copy) for other in last.values())
    } or last
    furthest = max((copy.offset, copy.keys) for copy in best.values())
    return sorted(peer for peer, copy in best.items() if (copy.offset, copy.keys) == furthest)


def _outdoes(one: HeldCopy, other: HeldCopy) -> bool:
    """Whether by their histories ``one`` is to be preferred; both are of one epoch."""
    forth, back = _has_all(one, other), _has_all(other, one)
    if forth and back:
        # One of them stands at the branch, and what the other one has beyond is dead.
        return one.offset < other.offset
    return forth and not back


def _has_all(one: HeldCopy, other: HeldCopy) -> bool:
    """Whether ``one`` has everything of ``other`` that has not turned out to be a dead branch."""
    bounds = _bounds(one)
    return any(
        history in bounds and other.offset <= bound and one.offset >= min(other.offset, bounds[history])
        for history, bound in _bounds(other).items()
    )


def _bounds(copy: HeldCopy) -> dict[int, int]:
    """The histories that a copy's own one continues, with the offset up to which it shares each of them."""
    bounds = {copy.history: MAX_OFFSET}
    bound = MAX_OFFSET
    for history, offset in copy.ancestors:
        bound = min(bound, offset)
        bounds.setdefault(history, bound)
    return bounds
