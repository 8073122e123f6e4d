"""Which answers may leave: what has been promised must be where it was promised to be before anybody hears of it."""

from __future__ import annotations

from typing import Final, Literal, Protocol, TypeAlias

__all__ = ["NOT_STORED", "AnswerGate", "Verdict", "WritingSession"]

#: ``send``: the answers may leave. ``hold``: not yet; ask again when told to. ``drop``: never, because what they
#: promise could not be kept: the connection is to be closed without them.
Verdict: TypeAlias = Literal["send", "hold", "drop"]

#: Why a connection ends whose answers are dropped.
NOT_STORED: Final = "what it wrote could not be stored"


class WritingSession(Protocol):
    """A session, as the gate looks at it."""

    #: The offset behind its last write, 0 before the first.
    wrote: int


class AnswerGate(Protocol):
    """Asked by a driver before answers leave. Nothing here checkpoints; a sync of a disk may take a millisecond."""

    def before_answers(self) -> bool:
        """Answers of all that has run so far are about to leave; whether they may. If not, ask :meth:`verdict`.

        What has been committed is written to the file here, once for all sessions of a round.
        """
        ...

    def verdict(self, session: WritingSession) -> Verdict:
        """What is to become of the answers of one session, right after :meth:`before_answers` has said no."""
        ...
