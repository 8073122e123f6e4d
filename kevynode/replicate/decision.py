"""How a primary answers a handshake: go on from where the replica is, start over with a snapshot, or refuse.

One pure function decides, and its reasons name every number it went by, so that a log line is enough to see why.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import attrs

from .lineage import MAX_OFFSET, Lineage
from .request import Form, Request

__all__ = ["Decision", "Held", "Refuse", "Resume", "Snapshot", "decide"]


@attrs.frozen
class Resume:
    """The entries from ``offset`` on follow. ``reason`` is for the log."""

    offset: int
    reason: str = ""


@attrs.frozen
class Snapshot:
    """All data follows, then the entries behind it.

    ``beyond_branch`` is how many entries the replica holds of an older history that we continued without them: writes
    that a weaker fsync policy, or a promotion, lost.
    """

    reason: str
    beyond_branch: int = 0


@attrs.frozen
class Refuse:
    """Nothing follows: the link is closed."""

    reason: str


Decision: TypeAlias = Resume | Snapshot | Refuse


@attrs.frozen
class Held:
    """The entries that can be sent again: offsets ``first`` to ``next - 1``.

    ``began_empty``: this history's numbering began at 0 with no data.
    """

    first: int
    next: int
    began_empty: bool = False


def _anywhere(offset: int) -> bool:
    return True


def decide(
    request: Request,
    lineage: Lineage,
    held: Held | None,
    served: int | None = None,
    on_boundary: Callable[[int], bool] = _anywhere,
    *,
    next_offset: int | None = None,
    unready: str = "",
) -> Decision:
    """What a primary of ``lineage`` does about ``request``.

    ``held`` is what can be sent again. None means nothing, and then ``next_offset``, the offset that the next entry
    gets, must be given; otherwise it is where ``held`` ends. ``served`` is how far this process has served a
    five-argument replica of that id and address (None: never), and ``on_boundary(offset)`` says whether a held offset
    begins a group. ``unready`` is why this node serves nobody now, if so: everybody is refused then.
    """
    if next_offset is None:
        if held is None:
            raise TypeError("decide() needs next_offset if nothing is held")
        next_offset = held.next
    asked = f"asked history {request.history or 'none'} offset {request.offset}"
    ours = f"ours is history {lineage.history}, next offset {next_offset}, holding " + (
        f"{held.first} to {held.next}" if held is not None else "nothing"
    )

    def snapshot(why: str, beyond_branch: int = 0) -> Snapshot:
        return Snapshot(f"{why}: {asked}; {ours}", beyond_branch)

    if unready:
        return Refuse(f"{unready}: {asked}; {ours}")
    offset = request.offset
    if request.form is Form.FIVE:
        doubt = _doubt_without_history(offset, held, served)
        if doubt:
            return snapshot(doubt)
    else:
        if request.history == 0:
            return snapshot("the replica claims no data")
        bound = lineage.shared(request.history)
        if bound is None:
            return snapshot("the replica's history is unknown here")
        if offset > bound:
            lost = offset - bound
            return snapshot(f"the replica is {lost} entries beyond the branch at offset {bound}", lost)
        if bound != MAX_OFFSET and "lineage" not in request.capabilities:
            return snapshot(f"the replica cannot follow across the branch at offset {bound}")
    if offset > next_offset:
        return snapshot(f"the replica is {offset - next_offset} entries ahead")
    if offset == next_offset:
        return Resume(offset, f"up to date: {asked}; {ours}")
    if held is None or not held.first <= offset <= held.next:
        return snapshot("entries that the replica lacks are no longer held")
    if not on_boundary(offset):
        return snapshot("the replica stands inside a group")
    return Resume(offset, f"{next_offset - offset} entries behind: {asked}; {ours}")


def _doubt_without_history(offset: int, held: Held | None, served: int | None) -> str:
    """Why a five-argument cursor cannot be trusted to be about this history; empty if it can."""
    if offset == 0:
        if held is not None and held.first == 0 and held.began_empty:
            return ""
        return "a replica that begins needs what was there before the first entry held"
    if served is None:
        return "this process never served the replica, and its request names no history"
    if offset > served:
        return f"this process served the replica up to offset {served} only, and its request names no history"
    return ""
