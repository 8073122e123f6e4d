"""What the source and the target of a move say to each other. Data only; the wire form is in :mod:`.move_wire`.

Each message names its move, so that one that comes late is known for what it is. Any of them may be lost, come twice or
come in another order than it was sent: whoever waits for an answer says its own message again.

A **digest** is that of :mod:`.slice_digest`, or empty where it was not made and is not to be compared. An **attempt**
is one shipping of the whole stage; one that is broken or lost is shipped again as another attempt of the same move.
"""

from __future__ import annotations

from typing import TypeAlias

import attrs

__all__ = [
    "Aborted",
    "Accepted",
    "Activate",
    "Activated",
    "Ask",
    "Await",
    "Chunk",
    "FromSource",
    "FromTarget",
    "Message",
    "NeedStage",
    "Purged",
    "Refused",
    "Request",
    "Sealed",
    "Stage",
    "StageEnd",
    "Unknown",
]


@attrs.frozen
class Request:
    """Source: may I move the prefix to you? ``floor`` is the highest epoch that the source and its peers know.

    ``persistent``: the source keeps files; ``force``: a target without files is good enough all the same.
    """

    move_id: str
    floor: int
    persistent: bool
    force: bool


@attrs.frozen
class Accepted:
    """Target: yes, at ``epoch``, which is durable here. ``following``: I keep a live copy from your stream."""

    move_id: str
    epoch: int
    following: bool


@attrs.frozen
class Refused:
    """Target: no. ``again``: ask again soon, what is in the way may pass. This form is the same in all versions."""

    move_id: str
    again: bool
    reason: str


@attrs.frozen
class Stage:
    """Source: here come the chunks of a whole stage, as of ``offset``, the tail, in the source's ``history``."""

    move_id: str
    attempt: int
    history: int
    offset: int


@attrs.frozen
class Chunk:
    """Source: the next bytes of the stage. A command may lie in several chunks; their sequence counts from 0."""

    move_id: str
    attempt: int
    sequence: int
    data: bytes


@attrs.frozen
class StageEnd:
    """Source: that was all, ``chunks`` of them, and they make ``keys`` keys with this digest."""

    move_id: str
    attempt: int
    chunks: int
    keys: int
    digest: str


@attrs.frozen
class Await:
    """Source, to a target that follows: tell me when you have my stream up to the tail, ``offset`` in ``history``.

    There are ``keys`` keys then.
    """

    move_id: str
    history: int
    offset: int
    keys: int
    digest: str


@attrs.frozen
class NeedStage:
    """Target: I lack the data. ``attempt`` is the one that went wrong, 0 if there was none."""

    move_id: str
    attempt: int
    reason: str


@attrs.frozen
class Sealed:
    """Target: all data up to the tail, or the whole stage, are durable here: ``keys`` keys with this digest."""

    move_id: str
    keys: int
    digest: str


@attrs.frozen
class Activate:
    """Source: the move is decided (FLIPPED, durable): take over at ``epoch``. Also the answer to :class:`Ask`."""

    move_id: str
    epoch: int
    history: int
    offset: int


@attrs.frozen
class Activated:
    """Target: the prefix has an owner at ``epoch``, the move's or a higher one; what I had to do for it is done."""

    move_id: str
    epoch: int


@attrs.frozen
class Aborted:
    """Source: the move is off (ABORTED, durable). Also the answer to :class:`Ask`."""

    move_id: str


@attrs.frozen
class Purged:
    """Target: I hold nothing of that move any more, and will not ask about it again."""

    move_id: str


@attrs.frozen
class Ask:
    """Target: what has become of the move? A source that has not decided goes on with it instead of an answer."""

    move_id: str


@attrs.frozen
class Unknown:
    """Source: the answer to :class:`Ask` of a node that has no record of the move. It decides nothing."""

    move_id: str


FromSource: TypeAlias = Request | Stage | Chunk | StageEnd | Await | Activate | Aborted | Unknown
FromTarget: TypeAlias = Accepted | Refused | NeedStage | Sealed | Activated | Purged | Ask
Message: TypeAlias = FromSource | FromTarget
