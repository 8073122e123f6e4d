"""One peer link as three tasks: one reads and does what the peer says, one sends, one answers its questions.

What is decided is decided in :mod:`peer_state`, what is to be sent in :mod:`peer_outbox`; here bytes and time pass.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol

import attrs
import trio

from ..clock import Clock
from ..faults import traceback_line
from .copies import HeldCopy
from .ledger import LedgerEntry, LedgerError
from .peer_actions import (
    Action,
    ConfigurationKnown,
    LedgerKnown,
    Merge,
    NoteVersion,
    PeerWentBack,
    Remembered,
    SendConfiguration,
    SendLedger,
)
from .peer_messages import Beat, Configuration, CopiesAsked, CopiesHeld
from .peer_outbox import Allowance, Outbox
from .peer_state import LinkState, OwnFacts, PeerFacts, PeerState
from .peer_wire import PeerDecoder, PeerWireError, encode

__all__ = ["GONE", "SILENCE_SECONDS", "Link", "PeerHost", "PeerLog", "PeerUnreachable"]

#: Seconds without a byte after which a peer is gone, and seconds that it may take to accept what it is sent.
SILENCE_SECONDS: Final = 10.0
#: Questions of one peer that wait for their answers, and our questions to one peer.
QUESTIONS: Final = 8
#: What a stream raises when its connection is lost.
GONE: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)

_READ_SIZE: Final = 16384


class PeerLog(Protocol):
    """Where events go."""

    def debug(self, event: str, /, **fields: object) -> None: ...
    def info(self, event: str, /, **fields: object) -> None: ...
    def warning(self, event: str, /, **fields: object) -> None: ...
    def error(self, event: str, /, **fields: object) -> None: ...


class PeerHost(Protocol):
    """The node around the links: what they tell, and what is done about what they hear.

    What is not async must not block. An exception ends the link that it was about, LedgerError with its text as the
    reason (the peer sent what no ledger takes).
    """

    def own_facts(self) -> OwnFacts:
        """What this node is now. The ledger's version never goes down while the node runs."""
        ...

    def ledger_pages(self) -> Sequence[bytes]:
        """The whole ledger (:meth:`Ledger.rows`)."""
        ...

    def configuration(self) -> Configuration:
        """What the node's configuration declares; its digest is that of :meth:`own_facts`."""
        ...

    def announced(self, node_id: str) -> int:
        """The highest ledger version that a node was ever heard to have; 0: never heard of."""
        ...

    def on_rows(self, node_id: str, entries: tuple[LedgerEntry, ...]) -> Awaitable[None]:
        """Take entries into the ledger: they are durable, and in the ledger's digest, when this returns.

        Never called again before it has returned. Entries may be known already. It is cancelled when the link ends:
        what is in the file by then must come into the ledger, too.
        """
        ...

    def on_announced(self, node_id: str, version: int) -> Awaitable[None]:
        """Remember durably the highest ledger version of a node."""
        ...

    def on_table(self, node_id: str, configuration: Configuration | None) -> None:
        """A peer's configuration has become known: another one than ours, or None for the same."""
        ...

    def on_peer_state(self, facts: PeerFacts) -> None:
        """Something that is known of a peer has changed."""
        ...

    def on_remembered(self, node_id: str, version: int) -> None:
        """A peer has heard of this version of our own ledger (0: of none), in this run or before.

        If it is above the one that we have, this node is a restored backup. Called at the beginning of each link,
        before anything else, and when it has changed; :meth:`on_answered` follows anew.
        """
        ...

    def on_answered(self, node_id: str) -> None:
        """All entries that a peer has are taken in, and :meth:`on_table` was called for its configuration.

        Called once or more on each link.
        """
        ...

    def copies_held(self, prefixes: tuple[bytes, ...]) -> Awaitable[Mapping[bytes, HeldCopy]]:
        """What copies of these prefixes are held here; those that are not held are left out."""
        ...


class PeerUnreachable(Exception):
    """A peer could not be asked, or its link ended before the answer."""


@attrs.define(eq=False)
class _Question:
    """A question on its way. ``copies`` is None until it is answered."""

    prefixes: tuple[bytes, ...]
    done: trio.Event = attrs.field(factory=trio.Event)
    copies: dict[bytes, HeldCopy] | None = None


class Link:
    """One link with ``peer``: three tasks around one stream.

    ``merging`` is held while entries are taken in: the same ones may come on many links at once. ``tell`` is called
    when something of the peer may have changed.
    """

    def __init__(
        self,
        peer: PeerState,
        state: LinkState,
        stream: trio.abc.Stream,
        host: PeerHost,
        clock: Clock,
        log: PeerLog,
        merging: trio.Lock,
        tell: Callable[[PeerState], None],
    ) -> None:
        now = clock.monotonic()
        self.peer = peer
        self.state = state
        self.outbox = Outbox(now)
        self.reason = ""
        self._host = host
        self._clock = clock
        self._log = log
        self._merging = merging
        self._tell = tell
        self._stream = stream
        self._allowance = Allowance(now)
        self._around = trio.CancelScope()
        self._wakeup = trio.Event()
        # Held while something is being sent.
        self._sending = trio.Lock()
        self._questions, self._asked = trio.open_memory_channel[CopiesAsked](QUESTIONS)
        self._numbers = itertools.count(1)
        self._last_number = 0
        self._pending: dict[int, _Question] = {}
        # Whether the peer's version could not be remembered, and whether all its entries have come, unsaid yet.
        self._is_unnoted = self._is_known = False
        self._asking = trio.Semaphore(QUESTIONS)

    def wake(self) -> None:
        """There is something to send."""
        self._wakeup.set()

    def end(self, reason: str) -> None:
        """End the link; the first reason counts."""
        self.reason = self.reason or reason
        self._around.cancel()

    async def serve(self, opening: bytes, rest: bytes) -> None:
        """Be a link until it ends; ``reason`` says why. Raises nothing but cancellation."""
        try:
            with self._around:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write, opening)
                    nursery.start_soon(self._answer)
                    await self._read(rest)
                    nursery.cancel_scope.cancel()
        except* PeerWireError as group:
            self.end(_first(group))
        except* LedgerError as group:
            self.end(_first(group))
        except* GONE as group:
            self.end(_first(group) or "connection lost")
        except* Exception as group:
            error = group.exceptions[0]
            self._log.error("peer_failed", id=self.peer.node_id, error=error, where=traceback_line(error))
            self.end(f"internal error: {error!r}")
        finally:
            for question in self._pending.values():
                question.done.set()

    async def ask(self, prefixes: tuple[bytes, ...]) -> dict[bytes, HeldCopy]:
        """Ask what copies the peer holds. Raises PeerUnreachable."""
        async with self._asking:
            if self.reason:
                raise PeerUnreachable(f"the link to {self.peer.node_id} ended: {self.reason}")
            number = self._last_number = next(self._numbers)
            question = self._pending[number] = _Question(prefixes)
            try:
                self.outbox.ask(CopiesAsked(number, prefixes))
                self.wake()
                await question.done.wait()
            finally:
                del self._pending[number]
            if question.copies is None:
                raise PeerUnreachable(f"the link to {self.peer.node_id} ended before it answered")
            return question.copies

    # -- sending ------------------------------------------------------------------------------------------------------

    async def _write(self, opening: bytes) -> None:
        if opening:
            await self._send(opening)
        while True:
            now = self._clock.monotonic()
            wait = self.outbox.wait(now)
            if wait > 0:
                self._wakeup = trio.Event()
                with trio.move_on_after(wait):
                    await self._wakeup.wait()
                continue
            for data in self.outbox.take(now, self._beat, self._host.ledger_pages, self._host.configuration):
                await self._send(data)

    def _beat(self) -> Beat:
        return self.peer.beat(self._host.own_facts())

    async def _send(self, data: bytes) -> None:
        async with self._sending:
            with trio.move_on_after(SILENCE_SECONDS) as patience:
                await self._stream.send_all(data)
        if patience.cancelled_caught:
            raise PeerWireError(f"it took no byte for {SILENCE_SECONDS:.0f} s")

    async def _answer(self) -> None:
        """Answer the peer's questions, one after the other."""
        async for question in self._asked:
            copies = await self._host.copies_held(question.prefixes)
            held = tuple((prefix, copies[prefix]) for prefix in question.prefixes if prefix in copies)
            await self._send(encode(CopiesHeld(question.number, held)))

    # -- receiving ----------------------------------------------------------------------------------------------------

    async def _read(self, data: bytes) -> None:
        """Do what the peer says until it says no more."""
        decoder = PeerDecoder()
        while True:
            if not data:
                with trio.move_on_after(SILENCE_SECONDS) as patience:
                    data = bytes(await self._stream.receive_some(_READ_SIZE))
                if patience.cancelled_caught:
                    raise PeerWireError(f"nothing was heard for {SILENCE_SECONDS:.0f} s")
                if not data:
                    self.end("the peer closed it")
                    return
            self.peer.heard(self.state, self._clock.monotonic())
            messages = decoder.feed(data)
            questions = 0
            for message in messages:
                questions += isinstance(message, CopiesAsked)
                facts = self._host.own_facts()
                for action in self.peer.take(self.state, message, facts, self._clock.monotonic()):
                    await self._obey(action)
                self._tell(self.peer)
            if decoder.error is not None:
                raise decoder.error
            pause = self._allowance.spend(self._clock.monotonic(), len(data), len(messages), questions)
            data = b""
            if pause:
                await trio.sleep(pause)

    async def _obey(self, action: Action) -> None:
        host, peer = self._host, self.peer
        match action:
            case Merge(entries):
                async with self._merging:
                    await host.on_rows(peer.node_id, entries)
            case LedgerKnown():
                self._is_known = True
                self._all_known()
            case NoteVersion(version):
                await self._note(version)
            case SendLedger():
                self.outbox.send_ledger()
                self.wake()
            case SendConfiguration():
                self.outbox.send_configuration()
                self.wake()
            case ConfigurationKnown(configuration):
                if configuration is not None:
                    self._log.warning("peer_configuration_differs", id=peer.node_id)
                host.on_table(peer.node_id, configuration)
            case Remembered(version):
                host.on_remembered(peer.node_id, version)
            case PeerWentBack(version, remembered):
                self._log.warning("peer_ledger_went_back", id=peer.node_id, version=version, remembered=remembered)
            case CopiesAsked():
                try:
                    self._questions.send_nowait(action)
                except trio.WouldBlock:
                    raise PeerWireError(f"it asks more than {QUESTIONS} questions at once") from None
            case CopiesHeld():
                self._answered(action)

    async def _note(self, version: int) -> None:
        """Remember the peer's version durably. Where the disk fails the next heartbeat has it tried again.

        The link goes on meanwhile: who cannot write anything down has to hear all the same what it has lost.
        """
        try:
            await self._host.on_announced(self.peer.node_id, version)
        except OSError as error:
            if not self._is_unnoted:
                self._is_unnoted = True
                self._log.warning("peer_version_not_noted", id=self.peer.node_id, version=version, reason=str(error))
            return
        self._is_unnoted = False
        self.peer.noted(version)
        self._all_known()

    def _all_known(self) -> None:
        """Say that all of the peer's entries are taken in, unless the version that they are of is yet to be noted."""
        if self._is_known and not self._is_unnoted:
            self._is_known = False
            self.peer.answered()
            self._host.on_answered(self.peer.node_id)

    def _answered(self, answer: CopiesHeld) -> None:
        if answer.number > self._last_number:
            raise PeerWireError(f"it answers question {answer.number}, which nobody asked")
        question = self._pending.get(answer.number)
        # Whoever asked may have given up.
        if question is not None:
            copies = dict(answer.copies)
            if not copies.keys() <= set(question.prefixes):
                raise PeerWireError("it answers for prefixes that nobody asked for")
            question.copies = copies
            question.done.set()


def _first(group: BaseExceptionGroup[BaseException]) -> str:
    """The text of the first error in a group."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error.__cause__ or error)
