"""Peer links as tasks: every node dials every other one, and tells it every second what it is and what it knows.

::

    peers nursery                                   PeerLinks.run, inside the node's own work
    ├─ keeper × peers                               dial → hello → link, again with jittered back-off
    │  └─ link: reader, writer, answerer
    └─ visitor × connections that peers opened      hello is read already → link, or a refusal by name
       └─ link: reader, writer, answerer

What is decided is decided in :mod:`peer_state`; here bytes and time pass. A link that fails, lies or floods ends alone.

How a node wires it: make one :class:`PeerLinks` when the ledger is loaded; give ``{b"PEER": links.admit}`` to the
entrance of the replication port as its ``others``; start :meth:`PeerLinks.run` in the nursery of the node's own work as
soon as that port listens, before the node opens for writing (a waiting node answers, too). Call
:meth:`PeerLinks.announce` with every ledger entry that has become durable here, also with those that
:meth:`PeerHost.on_rows` brought, and :meth:`PeerLinks.changed` when the state or the address of the node changes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

import attrs
import trio

from ..clock import Clock
from ..faults import traceback_line
from ..refusals import Refusals
from ..replicate.backoff import Backoff, UniformSource
from ..transport import Transport
from .copies import HeldCopy
from .ledger import LedgerEntry
from .peer_link import GONE, SILENCE_SECONDS, Link, PeerHost, PeerLog, PeerUnreachable
from .peer_messages import Refused, in_questions
from .peer_state import DeclaredPeer, LinkState, PeerFacts, PeerState, PeerStates
from .peer_wire import AnswerDecoder, PeerWireError, encode, parse_hello

__all__ = ["PeerHost", "PeerLinks", "PeerLog", "PeerUnreachable", "PeerVisitor"]

#: Seconds that connecting may take.
CONNECT_SECONDS: Final = 5.0
#: Seconds that a node that was dialled may take to answer.
ANSWER_SECONDS: Final = 10.0
#: Seconds that a link must have been up for its loss to count as a new trouble, after which waits are short again.
STEADY_SECONDS: Final = 1.0
#: Refusals that are being said at once.
REFUSALS: Final = 64

_READ_SIZE: Final = 16384
_STOPPED: Final = "stopped"


class PeerVisitor(Protocol):
    """A connection whose first command was PEER: its ``words``, and the bytes behind it."""

    @property
    def stream(self) -> trio.abc.Stream: ...
    @property
    def peer(self) -> str: ...
    @property
    def words(self) -> tuple[bytes, ...]: ...
    @property
    def rest(self) -> bytes: ...


class PeerLinks:
    """All links of a node with its peers. ``declared`` are all nodes of the configuration, itself among them or not."""

    def __init__(
        self,
        node_id: str,
        instance: str,
        declared: Iterable[DeclaredPeer],
        host: PeerHost,
        transport: Transport,
        clock: Clock,
        random: UniformSource,
        log: PeerLog,
    ) -> None:
        self._host = host
        self._clock = clock
        self._log = log
        self.states = PeerStates(node_id, instance, declared, host.announced, clock.monotonic())
        self._transport = transport
        self._merging = trio.Lock()
        self._random = random
        self._links: dict[LinkState, Link] = {}
        self._nursery: trio.Nursery | None = None
        self._told: dict[str, PeerFacts] = {}
        self._refusals = Refusals(log, "peer_refused")
        self._refusing = 0

    # -- for the node -------------------------------------------------------------------------------------------------

    def admit(self, visitor: PeerVisitor) -> bool:
        """Take a connection that began with PEER; False if nobody is there for it. Does not block."""
        if self._nursery is None:
            return False
        self._nursery.start_soon(self._receive, visitor)
        return True

    def announce(self, entries: Iterable[LedgerEntry]) -> None:
        """Tell all peers at once of ledger entries that have become durable here. Does not block."""
        found = tuple(entries)
        for link in self._links.values():
            link.outbox.announce(found)
            link.wake()

    def changed(self) -> None:
        """Tell all peers at once that this node's facts have changed. Does not block."""
        self.announce(())

    def facts(self) -> tuple[PeerFacts, ...]:
        """What is known of each peer."""
        now = self._clock.monotonic()
        return tuple(peer.facts(now) for peer in self.states)

    @property
    def unanswered(self) -> tuple[str, ...]:
        """The ids of the peers whose ledger or configuration is not known yet."""
        return tuple(facts.node_id for facts in self.facts() if not facts.answered)

    def is_up(self, node_id: str) -> bool:
        """Whether there is a link to a peer now."""
        peer = self.states.get(node_id)
        return peer is not None and peer.up

    async def ask_copies(self, node_id: str, prefixes: Iterable[bytes]) -> dict[bytes, HeldCopy]:
        """What copies of these prefixes a peer holds. Raises PeerUnreachable.

        Wrap it into a deadline: the peer may take its time.
        """
        found: dict[bytes, HeldCopy] = {}
        await trio.lowlevel.checkpoint()
        for group in in_questions(prefixes):
            peer = self.states.get(node_id)
            if peer is None or not self.is_up(node_id):
                raise PeerUnreachable(f"there is no link to {node_id}")
            link = self._links[max(peer.links.values(), key=lambda state: state.heard_at)]
            found.update(await link.ask(group))
        return found

    async def run(self) -> None:
        """Keep links with all peers until cancelled; call it once."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                for peer in self.states:
                    nursery.start_soon(self._keep, peer)
                await trio.sleep_forever()
            finally:
                self._nursery = None

    # -- links that we open -------------------------------------------------------------------------------------------

    async def _keep(self, peer: PeerState) -> None:
        backoff = Backoff(self._random)
        while True:
            if await self._dial(peer) >= STEADY_SECONDS:
                backoff.reset()
            await trio.sleep(backoff.next())

    async def _dial(self, peer: PeerState) -> float:
        """One connection, from connecting to its end: for how many seconds it was a link."""
        stream: trio.abc.Stream | None = None
        problem = ""
        announced = peer.announced
        try:
            try:
                stream = await self._connect(peer.address)
                instance, rest = await self._introduce(peer, stream)
            except PeerWireError as error:
                problem = f"{peer.address}: {error}"
            except GONE as error:
                problem = f"{peer.address}: {error.__cause__ or error}"
            except Exception as error:
                problem = f"internal error: {error!r}"
                self._log.error("peer_failed", id=peer.node_id, error=error, where=traceback_line(error))
            else:
                began = self._clock.monotonic()
                state, replaced = peer.attach("out", instance, began, announced)
                await self._serve(self._link(peer, state, stream), replaced, b"", rest)
                return self._clock.monotonic() - began
            if problem != peer.problem:
                self._log.warning("peer_not_reached", id=peer.node_id, reason=problem)
                peer.problem = problem
            return 0.0
        finally:
            if stream is not None:
                await trio.aclose_forcefully(stream)

    async def _connect(self, address: str) -> trio.abc.Stream:
        host, _, port = address.rpartition(":")
        try:
            with trio.move_on_after(CONNECT_SECONDS):
                return await self._transport.connect(host.removeprefix("[").removesuffix("]"), int(port))
        except OSError as error:
            raise PeerWireError(f"cannot connect: {error.strerror or error}") from None
        raise PeerWireError(f"no connection was accepted within {CONNECT_SECONDS:.0f} s")

    async def _introduce(self, peer: PeerState, stream: trio.abc.Stream) -> tuple[str, bytes]:
        """Say who we are: the instance of the peer that answers, and the bytes behind its answer."""
        decoder = AnswerDecoder()
        answer = None
        with trio.move_on_after(ANSWER_SECONDS):
            await stream.send_all(encode(self.states.hello(peer)))
            while answer is None:
                data = await stream.receive_some(_READ_SIZE)
                if not data:
                    raise PeerWireError("the connection was closed instead of an answer: is this a kevynode?")
                answer = decoder.feed(bytes(data))
        if answer is None:
            raise PeerWireError(f"no answer within {ANSWER_SECONDS:.0f} s")
        problem = self.states.objection(peer, answer)
        if problem or isinstance(answer, Refused):
            raise PeerWireError(problem)
        return answer.instance, decoder.rest

    # -- links that peers open ----------------------------------------------------------------------------------------

    async def _receive(self, visitor: PeerVisitor) -> None:
        try:
            try:
                hello = parse_hello(visitor.words)
            except PeerWireError as error:
                self._refusals.log(visitor.peer, str(error))
                return
            now = self._clock.monotonic()
            found = self.states.recognise(hello, now)
            if isinstance(found, Refused):
                self._refusals.log(visitor.peer, f"{hello.node_id[:64]}: {found.text}")
                await self._refuse(visitor.stream, found)
                return
            state, replaced = found.attach("in", hello.instance, now)
            link = self._link(found, state, visitor.stream)
            await self._serve(link, replaced, encode(self.states.welcome()), visitor.rest)
        finally:
            await trio.aclose_forcefully(visitor.stream)

    async def _refuse(self, stream: trio.abc.Stream, refused: Refused) -> None:
        if self._refusing >= REFUSALS:
            return
        self._refusing += 1
        try:
            with trio.move_on_after(SILENCE_SECONDS):
                await stream.send_all(encode(refused))
        except GONE:
            pass
        finally:
            self._refusing -= 1

    # -- all links ----------------------------------------------------------------------------------------------------

    def _link(self, peer: PeerState, state: LinkState, stream: trio.abc.Stream) -> Link:
        return Link(peer, state, stream, self._host, self._clock, self._log, self._merging, self._tell)

    async def _serve(self, link: Link, replaced: tuple[LinkState, ...], opening: bytes, rest: bytes) -> None:
        """Serve a link that has just been attached until it ends. Raises nothing but cancellation."""
        peer, state = link.peer, link.state
        self._links[state] = link
        began = self._clock.monotonic()
        for other in replaced:
            self._links[other].end("another link took its place")
        self._log.info("peer_linked", id=peer.node_id, direction=state.direction, instance=state.instance)
        self._tell(peer)
        try:
            await link.serve(opening, rest)
        finally:
            del self._links[state]
            reason = link.reason or _STOPPED
            now = self._clock.monotonic()
            known = reason == peer.problem and now - began < STEADY_SECONDS
            peer.detach(state, reason, now)
            # The same trouble again and again is worth one line, and the end of the node itself none.
            say = self._log.debug if known or reason == _STOPPED else self._log.warning
            say("peer_link_lost", id=peer.node_id, direction=state.direction, reason=reason, up=peer.up)
            self._tell(peer)

    def _tell(self, peer: PeerState) -> None:
        """Tell the node what is known of a peer if that has changed."""
        facts = peer.facts(self._clock.monotonic())
        lasting = attrs.evolve(facts, since=0.0, silence=None)
        if self._told.get(peer.node_id) == lasting:
            return
        self._told[peer.node_id] = lasting
        try:
            self._host.on_peer_state(facts)
        except Exception as error:
            self._log.error("peer_failed", id=peer.node_id, error=error, where=traceback_line(error))
