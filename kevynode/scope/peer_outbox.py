"""What there is to send on a peer link, and how much may be said on one. Pure: time comes in as ``now``, monotonic."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from .ledger import Ledger, LedgerEntry
from .peer_messages import Beat, Configuration, CopiesAsked
from .peer_wire import PeerWireError, encode, encode_ledger, encode_news

__all__ = ["BEAT_SECONDS", "Allowance", "Outbox"]

#: Seconds between two heartbeats.
BEAT_SECONDS: Final = 1.0
#: Seconds at least between two heartbeats that something changed for.
PUSH_SECONDS: Final = 0.02
#: Announced entries that wait to be sent; beyond that the whole ledger is sent.
NEWS_LIMIT: Final = 1024

#: What a peer may say, in cost per second and at once; a byte costs 1.
RATE: Final = 4 * 1024 * 1024
BURST: Final = 8 * 1024 * 1024
#: What a message costs besides, and a question.
MESSAGE_COST: Final = 4 * 1024
QUESTION_COST: Final = 256 * 1024
#: Seconds for which a peer may say more than that, slowed down, before it is too much.
FLOOD_SECONDS: Final = 30.0


class Outbox:
    """What waits to be sent on one link. Things that came together go out together, with a heartbeat behind them."""

    __slots__ = ("_beat_at", "_begun", "_configuration", "_ledger", "_news", "_pushed_at", "_questions")

    def __init__(self, now: float) -> None:
        # When the next heartbeat is due, and when the last one went out.
        self._beat_at = now
        self._pushed_at = now - PUSH_SECONDS
        self._begun = False
        self._news: dict[LedgerEntry, None] = {}
        self._ledger = False
        self._configuration = False
        self._questions: list[CopiesAsked] = []

    def announce(self, entries: Iterable[LedgerEntry]) -> None:
        """Send these entries, and a heartbeat."""
        for entry in entries:
            self._news[entry] = None
        if len(self._news) > NEWS_LIMIT:
            self._news.clear()
            self._ledger = True
        self.push()

    def push(self) -> None:
        """Send a heartbeat soon: what it says has changed."""
        self._beat_at = min(self._beat_at, self._pushed_at + PUSH_SECONDS)

    def send_ledger(self) -> None:
        """Send the whole ledger."""
        self._ledger = True
        self.push()

    def send_configuration(self) -> None:
        """Send the configuration."""
        self._configuration = True
        self.push()

    def ask(self, question: CopiesAsked) -> None:
        """Ask this."""
        self._questions.append(question)

    def wait(self, now: float) -> float:
        """Seconds until there is something to send; 0 or less: there is."""
        return 0.0 if self._questions else self._beat_at - now

    def take(
        self,
        now: float,
        beat: Callable[[], Beat],
        ledger_pages: Callable[[], Sequence[bytes]],
        configuration: Callable[[], Configuration],
    ) -> Iterator[bytes]:
        """All that there is to send now, message by message; something, if :meth:`wait` said so."""
        questions, self._questions = self._questions, []
        for question in questions:
            yield encode(question)
        if self._beat_at > now:
            return
        self._beat_at = now + BEAT_SECONDS
        self._pushed_at = now
        if not self._begun:
            # The first that a peer hears is what there is here at all.
            self._begun = True
            yield encode(beat())
            if not (self._news or self._ledger or self._configuration):
                return
        news, self._news = self._news, {}
        whole, self._ledger = self._ledger, False
        declared, self._configuration = self._configuration, False
        if declared:
            for piece in configuration().messages():
                yield encode(piece)
        if whole:
            yield from encode_ledger(ledger_pages())
        elif news:
            for page in Ledger(news).rows():
                yield encode_news(page)
        yield encode(beat())


class Allowance:
    """Slows a peer down that says more than it has reason to, and ends that when it does not stop."""

    __slots__ = ("_at", "_left", "_since")

    def __init__(self, now: float) -> None:
        self._at = now
        self._left = float(BURST)
        # Since when it has been slowed down all the time.
        self._since: float | None = None

    def spend(self, now: float, size: int, messages: int, questions: int) -> float:
        """Seconds to wait until more is read, after so many bytes with so many messages. Raises PeerWireError."""
        self._left = min(BURST, self._left + (now - self._at) * RATE)
        self._at = now
        if self._left >= BURST / 2:
            self._since = None
        self._left -= size + messages * MESSAGE_COST + questions * QUESTION_COST
        if self._left >= 0:
            return 0.0
        if self._since is None:
            self._since = now
        if now - self._since > FLOOD_SECONDS:
            raise PeerWireError(f"it said more than a peer has to say for {FLOOD_SECONDS:.0f} s")
        return -self._left / RATE
